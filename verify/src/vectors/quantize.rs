//! Quantizing and dequantizing.

use super::codes::{elementwise, narrow, values};
use super::error::{Part, Problem};
use super::file::Case;
use super::operator::{Explanation, Operator, Outputs, Recorded};
use super::report::Value;
use crate::explain::Reason;
use qexact_kernels::{Isa, elementwise as kernels};
use qexact_reference::quantizer::{DequantizeForm, Dequantizer, QuantizeForm, Quantizer};
use qexact_reference::{Code, CodeType, Error, Quantization};

/// A recorded tensor: reals, their codes and, where that was recorded, what the codes stand for.
struct Recording {
    /// One, or one for each row.
    rules: Vec<(Quantizer, Dequantizer)>,
    /// How many elements have the same scale.
    row: usize,
    /// For the elements from this one on.
    tail: Option<(usize, Quantizer)>,
    input: Vec<f32>,
    /// The codes, and `x_dequant` where it was recorded.
    output: Vec<Recorded>,
}

/// `q = quantize_per_tensor(x)` and `x_dequant = dequantize(q)`, both of the shape of `x`.
pub(super) fn per_tensor(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    let dtype: String = case.field("dtype", "`quint8` or `qint8`")?;
    let codes = match dtype.as_str() {
        "quint8" => CodeType::U8,
        "qint8" => CodeType::I8,
        _ => return Err(Problem::wrong(Part::Field, "dtype", format_args!("`{dtype}`"), "`quint8` or `qint8`")),
    };
    there_and_back(case, codes, QuantizeForm::Wrapping)
}

/// `q = quantize_per_channel(x, axis=0)` to i8 and `x_dequant = dequantize(q)`.
pub(super) fn per_channel(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    let axis: usize = case.field("axis", "0")?;
    if axis != 0 {
        return Err(Problem::wrong(Part::Field, "axis", axis, "0"));
    }
    let shape = case.any_dims("x")?;
    let rows = shape.first().copied().unwrap_or(1);
    let scales = case.tensor::<f64>("scale", &[rows])?;
    let zero_points = case.tensor::<i64>("zero_point", &[rows])?;
    let mut rules = Vec::new();
    for (scale, zero_point) in scales.into_iter().zip(zero_points) {
        // What does not fit an i32 is no code either.
        let zero_point = i32::try_from(zero_point).unwrap_or(i32::MAX);
        let quantization =
            Quantization::new(scale, zero_point, CodeType::I8).map_err(Problem::refused("scale and zero_point"))?;
        rules.push(both(quantization, QuantizeForm::Saturating, DequantizeForm::Double));
    }
    let output =
        vec![Recorded::take::<i8>(case, "q", shape.clone())?, Recorded::take::<f32>(case, "x_dequant", shape.clone())?];
    let input: Vec<f32> = case.tensor("x", &shape)?;
    Ok(Box::new(Recording { rules, row: input.len() / rows, tail: None, input, output }))
}

/// ONNX's `QuantizeLinear` and `DequantizeLinear`.
pub(super) fn ort(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    let codes = case.code_type("q")?;
    there_and_back(case, codes, QuantizeForm::Divided)
}

fn there_and_back(case: &mut Case<'_>, codes: CodeType, form: QuantizeForm) -> Result<Box<dyn Operator>, Problem> {
    let rules = vec![both(case.quantization("", codes)?, form, DequantizeForm::Difference)];
    let shape = case.any_dims("x")?;
    let input: Vec<f32> = case.tensor("x", &shape)?;
    let output =
        vec![Recorded::take_codes(case, "q", shape.clone(), codes)?, Recorded::take::<f32>(case, "x_dequant", shape)?];
    Ok(Box::new(Recording { rules, row: input.len(), tail: None, input, output }))
}

fn both(quantization: Quantization, form: QuantizeForm, back: DequantizeForm) -> (Quantizer, Dequantizer) {
    (Quantizer::new(form, quantization), Dequantizer::new(back, quantization))
}

/// TFLite's `QUANTIZE` of reals, the reference kernel.
pub(super) fn tflite_ref(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    tflite(case, QuantizeForm::DividedAway, None)
}

/// TFLite's `QUANTIZE` of reals, the optimised kernel on x86: vectors of 8.
pub(super) fn tflite_optimised(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    tflite(case, QuantizeForm::Converted, Some((8, QuantizeForm::DividedAwayF64)))
}

/// TFLite's `QUANTIZE` of reals given to XNNPACK.
pub(super) fn xnnpack(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    tflite(case, QuantizeForm::Bounded, None)
}

/// `tail`: how many elements a vector has, and the form for those left over.
fn tflite(
    case: &mut Case<'_>,
    form: QuantizeForm,
    tail: Option<(usize, QuantizeForm)>,
) -> Result<Box<dyn Operator>, Problem> {
    let codes = case.code_type("y")?;
    let quantization = case.quantization("", codes)?;
    let shape = case.any_dims("x")?;
    let input: Vec<f32> = case.tensor("x", &shape)?;
    let tail = tail.map(|(granule, form)| (input.len() / granule * granule, Quantizer::new(form, quantization)));
    let rules = vec![both(quantization, form, DequantizeForm::Difference)];
    let output = vec![Recorded::take_codes(case, "y", shape, codes)?];
    Ok(Box::new(Recording { rules, row: input.len(), tail, input, output }))
}

impl Recording {
    /// The rule for an element.
    fn quantizer(&self, index: usize) -> Quantizer {
        match self.tail {
            Some((start, quantizer)) if index >= start => quantizer,
            _ => self.rules[index / self.row].0,
        }
    }
}

impl Recording {
    /// Row by row, each up to where the tail begins and from there on.
    fn run<T: Code>(&self, isa: Isa) -> Result<Outputs, Error> {
        let (len, row) = (self.input.len(), self.row.max(1));
        let tail = self.tail.map_or(len, |(start, _)| start);
        let mut codes = vec![T::MIN; len];
        for start in (0..len).step_by(row) {
            let (end, middle) = (start + row, tail.clamp(start, start + row));
            for (first, end) in [(start, middle), (middle, end)].into_iter().filter(|(first, end)| first < end) {
                kernels::quantize(isa, &self.quantizer(first), &self.input[first..end], &mut codes[first..end])?;
            }
        }
        if self.output.len() == 1 {
            return Ok(vec![values(codes)]);
        }
        let recorded: Vec<T> = narrow(&self.output[0].values.iter().map(|&q| code(q)).collect::<Vec<i32>>());
        let mut reals = vec![0.0; len];
        for (i, (q, x)) in recorded.chunks(row).zip(reals.chunks_mut(row)).enumerate() {
            kernels::dequantize(isa, &self.rules[i].1, q, x)?;
        }
        Ok(vec![values(codes), reals.into_iter().map(Value::Real).collect()])
    }
}

/// A recorded code.
fn code(value: Value) -> i32 {
    match value {
        Value::Code(code) => code,
        Value::Real(_) => unreachable!("the first output of this operator holds codes"),
    }
}

impl Operator for Recording {
    fn describe(&self) -> String {
        let codes = if self.rules[0].0.clamp[0] < 0 { "i8" } else { "u8" };
        format!("{codes} of {:?}", self.output[0].shape)
    }

    fn recorded(&self) -> &[Recorded] {
        &self.output
    }

    fn exact(&self) -> Result<Outputs, Error> {
        let codes = self.input.iter().enumerate().map(|(i, &x)| Value::Code(self.quantizer(i).apply(x))).collect();
        if self.output.len() == 1 {
            return Ok(vec![codes]);
        }
        // Of the recorded codes: a wrong code is one difference, not two.
        let recorded = self.output[0].values.iter().enumerate();
        let reals = recorded.map(|(i, &q)| Value::Real(self.rules[i / self.row].1.apply(code(q))));
        Ok(vec![codes, reals.collect()])
    }

    fn on(&self, isa: Isa) -> Result<(String, Outputs), Error> {
        let outputs = if self.rules[0].0.clamp[0] < 0 { self.run::<i8>(isa) } else { self.run::<u8>(isa) };
        elementwise(isa, outputs)
    }

    fn explain(&self, tensor: usize, index: usize) -> Explanation {
        let Quantizer { form, factor, .. } = self.quantizer(index);
        let divides = matches!(form, QuantizeForm::Divided | QuantizeForm::DividedAway | QuantizeForm::DividedAwayF64);
        let x = self.input[index];
        let scaled = if divides { x / factor } else { x * factor };
        let tie = tensor == 0 && scaled.fract().abs() == 0.5;
        Explanation { tie: tie.then_some(Reason::RoundingTie { scaled }), ..Explanation::default() }
    }
}
