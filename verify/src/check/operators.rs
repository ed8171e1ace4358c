//! What is no layer of its own: elementwise operators and pools, and the plans made of layers.
//!
//! Numbers follow from the case alone; the reference and a kernel are given the same ones.

use super::material::real_bits;
use crate::case::{Case, Operator};
use crate::fill::{Fill, Random, Stream};
use bytemuck::Pod;
use qexact_kernels::Isa;
use qexact_kernels::elementwise::{self, Lookup, Operand};
use qexact_reference::activation::Activation;
use qexact_reference::add::{Add, Form};
use qexact_reference::batch_norm::{BatchNorm, Parameters};
use qexact_reference::concat::{self, Part};
use qexact_reference::mean::{self, Mean};
use qexact_reference::mul::Mul;
use qexact_reference::pool::{self, Average, Divisor, Memory, Pool};
use qexact_reference::quantizer::{DequantizeForm, Dequantizer, QuantizeForm, Quantizer};
use qexact_reference::recode::Recode;
use qexact_reference::requantize::Rounding;
use qexact_reference::transposed::{TransposedAxis, TransposedConv};
use qexact_reference::{Code, Conv, Error, Quantization};

/// The transposed convolution of a case, whose shape names its input and its kernel.
pub(super) fn transposed(case: &Case) -> TransposedConv {
    let mut r = Random::of(case, Stream::Regions);
    transposed_of(&case.shape, |below| r.below(below))
}

/// The transposed convolution of a shape, with an output padding below what it is asked for.
pub(super) fn transposed_of(shape: &Conv, mut output_padding: impl FnMut(usize) -> usize) -> TransposedConv {
    let axes = shape.axes.map(|axis| TransposedAxis {
        input: axis.input,
        kernel: axis.kernel,
        stride: axis.stride,
        padding: axis.padding,
        output_padding: output_padding(axis.stride.max(axis.dilation)),
        dilation: axis.dilation,
    });
    let (in_channels, out_channels) = (shape.in_channels, shape.out_channels);
    TransposedConv { batch: shape.batch, in_channels, out_channels, groups: shape.groups, axes }
}

/// The input's bytes of an operator that reads real numbers: around codes, beside ties, and any there are.
pub(super) fn reals(case: &Case, bytes: usize) -> Vec<u8> {
    let mut r = Random::of(case, Stream::Input);
    let reals = (0..bytes / 4).map(|_| match (case.fill, r.below(4)) {
        (Fill::Overflow, _) | (_, 0) => f32::from_bits(r.bits() as u32),
        (_, 1) => (r.between(-400, 400) as f32 + 0.5) / 2.0,
        _ => r.real(-300.0, 300.0) as f32,
    });
    bytemuck::cast_slice(&reals.collect::<Vec<f32>>()).to_vec()
}

/// The bits of an operator's outputs, as the reference computes them: integers as an `i32`.
pub(super) fn want(case: &Case, input: &[u8]) -> Result<Vec<u32>, Error> {
    let len = super::outputs(case) as usize;
    if case.operator == Operator::Dequantize {
        let mut y = vec![0f32; len];
        run(case, None, input, bytemuck::cast_slice_mut(&mut y))?;
        return Ok(y.into_iter().map(real_bits).collect());
    }
    let mut y = vec![0; len];
    run(case, None, input, &mut y)?;
    let signed = case.input.is_signed();
    Ok(y.into_iter().map(|y| if signed { y as i8 as u32 } else { y.into() }).collect())
}

/// Computes all outputs: by the reference's scalar functions, or by a kernel.
///
/// # Errors
/// A shape that is none of the operator's; what the operator refuses.
pub(super) fn run(case: &Case, kernel: Option<Isa>, input: &[u8], output: &mut [u8]) -> Result<(), Error> {
    let (got, operands) = (case.shape.group_inputs(), case.operator.operands());
    if case.shape.groups != case.shape.out_channels || got != operands {
        let expected = format!("{operands}, of as many groups as output channels");
        return Err(Error::Extent { what: "input channels of a group", got, expected });
    }
    let pools = matches!(case.operator, Operator::MaxPool | Operator::AvgPool | Operator::MeanPool);
    let expected = operands * super::outputs(case) as usize;
    if !pools && input.len() != expected {
        let expected = format!("{expected}, as many as outputs take: kernels and strides of 1, no padding");
        return Err(Error::Length { what: "input", got: input.len(), expected });
    }
    if case.input.is_signed() {
        Operation { case, kernel }.run::<i8>(input, output)
    } else {
        Operation { case, kernel }.run::<u8>(input, output)
    }
}

struct Operation<'c> {
    case: &'c Case,
    kernel: Option<Isa>,
}

impl Operation<'_> {
    fn run<T: Code + Pod>(&self, input: &[u8], output: &mut [u8]) -> Result<(), Error> {
        let mut r = Random::of(self.case, Stream::Rule);
        match self.case.operator {
            Operator::Quantize => {
                return self.quantize::<T>(&mut r, bytemuck::cast_slice(input), bytemuck::cast_slice_mut(output));
            }
            Operator::Dequantize => {
                return self.dequantize::<T>(&mut r, bytemuck::cast_slice(input), bytemuck::cast_slice_mut(output));
            }
            _ => {}
        }
        let (x, y): (&[T], &mut [T]) = (bytemuck::cast_slice(input), bytemuck::cast_slice_mut(output));
        match self.case.operator {
            Operator::Add => self.add(&mut r, x, y),
            Operator::Mul => self.mul(&mut r, x, y),
            Operator::Lookup => {
                let entries: Vec<i32> = (0..256).map(|_| self.code(&mut r)).collect();
                let f = |code: i32| entries[(code & 255) as usize];
                match self.kernel {
                    Some(isa) => Lookup::<T, T>::new(f).run(isa, x, y),
                    None => each(y, |i| f(x[i].into())),
                }
            }
            Operator::BatchNorm => self.batch_norm(&mut r, x, y),
            Operator::Concat => self.concat(&mut r, x, y),
            _ => self.pool(&mut r, x, y),
        }
    }

    /// Any code.
    fn code(&self, r: &mut Random) -> i32 {
        r.between(self.case.input.lo(), self.case.input.hi())
    }

    /// Codes of the input's type; a step is between `unit` and eight times that.
    fn quantization(&self, r: &mut Random, unit: f64) -> Result<Quantization, Error> {
        let steps = if self.case.fill == Fill::Ties { r.choose(&[1.0, 2.0, 4.0]) } else { r.real(1.0, 8.0) };
        Quantization::new(unit * steps, self.code(r), self.case.input)
    }

    fn quantize<T: Code>(&self, r: &mut Random, x: &[f32], y: &mut [T]) -> Result<(), Error> {
        use QuantizeForm::*;
        let forms =
            [Wrapping, Saturating, Fused, ZeroPointFirst, Divided, Bounded, Converted, DividedAway, DividedAwayF64];
        let rule = Quantizer::new(r.choose(&forms), self.quantization(r, 0.5)?);
        match self.kernel {
            Some(isa) => elementwise::quantize(isa, &rule, x, y),
            None => each(y, |i| rule.apply(x[i])),
        }
    }

    fn dequantize<T: Code>(&self, r: &mut Random, x: &[T], y: &mut [f32]) -> Result<(), Error> {
        let form = r.choose(&[DequantizeForm::Difference, DequantizeForm::Fused, DequantizeForm::Double]);
        let rule = Dequantizer::new(form, self.quantization(r, 0.01)?);
        if let Some(isa) = self.kernel {
            return elementwise::dequantize(isa, &rule, x, y);
        }
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = rule.apply(x.into()));
        Ok(())
    }

    fn add<T: Code>(&self, r: &mut Random, x: &[T], y: &mut [T]) -> Result<(), Error> {
        let [a, b, to] = [self.quantization(r, 0.1)?, self.quantization(r, 0.1)?, self.quantization(r, 0.2)?];
        let form = r.choose(&[Form::Body, Form::Tail]);
        let rule = match r.below(5) {
            0 => Add::aten(a, b, to, form),
            1 => Add::qnnpack(a, b, to)?,
            2 => Add::xnnpack(a, b, to)?,
            3 => Add::ort(a, b, to),
            _ => Add::tflite(a, b, to, form),
        };
        let rule = if r.once_in(4) { rule.clamped(Activation::Relu.clamp(to)) } else { rule };
        self.pairs(r, x, y, &rule, |a, b| rule.apply(a, b))
    }

    fn mul<T: Code>(&self, r: &mut Random, x: &[T], y: &mut [T]) -> Result<(), Error> {
        let [a, b, to] = [self.quantization(r, 0.1)?, self.quantization(r, 0.1)?, self.quantization(r, 5.0)?];
        let form = r.choose(&[Form::Body, Form::Tail]);
        let rule = match r.below(4) {
            0 => Mul::aten(a, b, to, form),
            1 => Mul::xnnpack(a, b, to),
            2 => Mul::ort(a, b, to),
            _ => Mul::tflite(a, b, to, form),
        };
        let rule = if r.once_in(4) { rule.clamped(Activation::Relu.clamp(to)) } else { rule };
        self.pairs(r, x, y, &rule, |a, b| rule.apply(a, b))
    }

    /// The first half of the input with the second, or one code with it.
    fn pairs<T: Code>(
        &self,
        r: &mut Random,
        x: &[T],
        y: &mut [T],
        rule: &impl elementwise::Binary,
        apply: impl Fn(i32, i32) -> i32,
    ) -> Result<(), Error> {
        let (a, b) = x.split_at(x.len() / 2);
        let form = r.below(5);
        let Some(isa) = self.kernel else {
            let at = |one: bool, i: usize| if one { 0 } else { i };
            return each(y, |i| apply(a[at(form == 0, i)].into(), b[at(form == 1, i)].into()));
        };
        let a = if form == 0 { Operand::One(a[0]) } else { Operand::Each(a) };
        let b = if form == 1 { Operand::One(b[0]) } else { Operand::Each(b) };
        rule.run(isa, a, b, y)
    }

    fn batch_norm<T: Code>(&self, r: &mut Random, x: &[T], y: &mut [T]) -> Result<(), Error> {
        let channels = self.case.shape.out_channels;
        let mut numbers = |lo, hi| -> Vec<f32> { (0..channels).map(|_| r.real(lo, hi) as f32).collect() };
        let (weight, bias) = (numbers(-2.0, 2.0), numbers(-5.0, 5.0));
        let (running_mean, running_var) = (numbers(-5.0, 5.0), numbers(0.01, 4.0));
        let parameters = Parameters {
            weight: &weight,
            bias: &bias,
            running_mean: &running_mean,
            running_var: &running_var,
            eps: 1e-5,
        };
        let (from, to) = (self.quantization(r, 0.1)?, self.quantization(r, 0.1)?);
        let rule = BatchNorm::new(&parameters, from, to, r.once_in(2))?;
        match self.kernel {
            Some(isa) => elementwise::batch_norm(isa, &rule, x, y),
            None => each(y, |i| rule.apply(x[i].into(), i % channels)),
        }
    }

    /// The channels in two parts, the second empty if there is but one.
    fn concat<T: Code>(&self, r: &mut Random, x: &[T], y: &mut [T]) -> Result<(), Error> {
        let channels = self.case.shape.out_channels;
        let (pixels, first) = (x.len() / channels, 1 + r.below(channels));
        let (a, b) = x.split_at(pixels * first);
        let to = self.quantization(r, 0.1)?;
        let mut part = |codes, channels| -> Result<Part<'_, T>, Error> {
            let from = self.quantization(r, 0.1)?;
            let recode = match r.below(4) {
                0 => concat::aten_channels_last(from, to, Form::Body),
                1 => concat::aten_contiguous(from, to),
                2 => Recode::xnnpack(from, to)?,
                _ => Recode::tflite(from, to, r.choose(&[Rounding::Up, Rounding::Away])),
            };
            Ok(Part { codes, channels, recode })
        };
        let parts = [part(a, first)?, part(b, channels - first)?];
        match self.kernel {
            Some(isa) => copy(y, &elementwise::concat(isa, pixels, &parts)?),
            None => copy(y, &concat::concat(pixels, &parts)?),
        }
    }

    fn pool<T: Code>(&self, r: &mut Random, x: &[T], y: &mut [T]) -> Result<(), Error> {
        let shape = &self.case.shape;
        let pool = Pool { batch: shape.batch, channels: shape.out_channels, axes: shape.axes, ceil_mode: false };
        let divisor = r.choose(&[Divisor::Padded, Divisor::Image, Divisor::Constant(7)]);
        let memory = r.choose(&[Memory::ChannelsLast, Memory::Contiguous]);
        let average = Average { memory, zero_point: self.code(r), codes: self.case.input };
        let (input, output) = (self.quantization(r, 0.1)?, self.quantization(r, 0.05)?);
        let mean = r.choose(&[
            Mean::Scaled { input, output },
            Mean::ClampFirst { input, output },
            Mean::Real { input, output },
            Mean::Integer { clamp: [output.codes().lo(), output.codes().hi()] },
        ]);
        let pooled = match (self.case.operator, self.kernel) {
            (Operator::MaxPool, Some(isa)) => elementwise::max_pool(isa, &pool, x),
            (Operator::MaxPool, None) => pool::max_pool(&pool, x),
            (Operator::AvgPool, Some(isa)) => elementwise::avg_pool(isa, &pool, divisor, average, x),
            (Operator::AvgPool, None) => pool::avg_pool(&pool, divisor, average, x),
            (_, Some(isa)) => elementwise::mean_pool(isa, &pool, divisor, &mean, x),
            (_, None) => mean::mean_pool(&pool, divisor, &mean, x),
        };
        copy(y, &pooled?)
    }
}

fn each<T: Code>(y: &mut [T], f: impl Fn(usize) -> i32) -> Result<(), Error> {
    y.iter_mut().enumerate().for_each(|(i, y)| *y = T::from_i32(f(i)));
    Ok(())
}

fn copy<T: Copy>(y: &mut [T], from: &[T]) -> Result<(), Error> {
    if y.len() != from.len() {
        let expected = format!("{}", y.len());
        return Err(Error::Length { what: "output of the operator", got: from.len(), expected });
    }
    y.copy_from_slice(from);
    Ok(())
}
