//! Rule R27: functions of one code, as tables.

use crate::float::exp;
use crate::quantizer::{DequantizeForm, Dequantizer, QuantizeForm, Quantizer};
use crate::{CodeType, Error, Quantization};
use alloc::vec::Vec;

/// What a function gives for every code. A table taken from a runtime's recording is that function, whatever the
/// runtime computed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    lo: i32,
    entries: Vec<i32>,
}

impl Table {
    /// The values of `f`.
    pub fn new(input: CodeType, f: impl FnMut(i32) -> i32) -> Table {
        Table { lo: input.lo(), entries: (input.lo()..=input.hi()).map(f).collect() }
    }

    /// `quantize(f(dequantize(q)))`.
    pub fn from_real(input: CodeType, from: Dequantizer, f: impl Fn(f32) -> f32, to: Quantizer) -> Table {
        Table::new(input, |q| to.apply(f(from.apply(q))))
    }

    /// A function as PyTorch's vector body computes it. Sigmoid's alone subtracts the zero point first.
    pub fn aten(function: Function, from: Quantization, to: Quantization) -> Table {
        let form = if function == Function::Sigmoid { DequantizeForm::Difference } else { DequantizeForm::Fused };
        let to = Quantizer::new(QuantizeForm::Wrapping, to);
        Table::from_real(from.codes(), Dequantizer::new(form, from), |x| function.apply(x), to)
    }

    /// PyTorch's ReLU6: codes between those of 0 and of 6, saturated both.
    pub fn aten_relu6(q: Quantization) -> Table {
        let real = Quantizer::new(QuantizeForm::Saturating, q);
        let (zero, six) = (real.apply(0.0), real.apply(6.0));
        Table::new(q.codes(), |code| code.max(zero).min(six))
    }

    /// A recorded table: one code of `output` for every code of `input`, in order.
    ///
    /// # Errors
    /// Another number of entries, entries that are not codes.
    pub fn recorded(input: CodeType, output: CodeType, entries: Vec<i32>) -> Result<Table, Error> {
        crate::operand::expect_len("table", entries.len(), 1 << input.bits())?;
        entries.iter().try_for_each(|&code| output.check("entry of a table", code))?;
        Ok(Table { lo: input.lo(), entries })
    }

    /// The entries, of the smallest code first.
    pub fn entries(&self) -> &[i32] {
        &self.entries
    }

    /// The value for a code; for what is no code of the input, that of the nearest one.
    #[inline(always)]
    pub fn apply(&self, code: i32) -> i32 {
        let last = self.entries.len() - 1;
        self.entries[(code.saturating_sub(self.lo).max(0) as usize).min(last)]
    }
}

/// Functions of real numbers; every operation is one f32 rounding.
///
/// The last three need an exponential, which runtimes compute with approximations of their own. Here it is
/// [`exp`] rounded to f32, the same on every machine; where it matters what the runtime computed,
/// take a recorded [`Table`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Function {
    /// `x · min(max(x + 3, 0), 6) / 6`
    Hardswish,
    /// `min(max(x + 3, 0), 6) / 6`
    Hardsigmoid,
    /// `x > 0 ? x : x · slope`
    LeakyRelu(f32),
    /// `x > 0 ? x : (exp(x) − 1) · alpha`
    Elu(f32),
    /// `1 / (1 + exp(−x))`
    Sigmoid,
    /// `(1 − e) / (1 + e)` with `e = exp(−2x)` in f64, rounded once
    Tanh,
}

impl Function {
    /// The value at `x`.
    pub fn apply(self, x: f32) -> f32 {
        let exp32 = |v: f32| exp(v.into()) as f32;
        match self {
            Function::Hardswish => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
            Function::Hardsigmoid => (x + 3.0).clamp(0.0, 6.0) / 6.0,
            Function::LeakyRelu(slope) => {
                if x > 0.0 {
                    x
                } else {
                    x * slope
                }
            }
            Function::Elu(alpha) => {
                if x > 0.0 {
                    x
                } else {
                    (exp32(x) - 1.0) * alpha
                }
            }
            Function::Sigmoid => 1.0 / (1.0 + exp32(-x)),
            Function::Tanh => {
                // Of |x|: the exponential cannot overflow.
                let e = exp(-2.0 * f64::from(x).abs());
                let magnitude = ((1.0 - e) / (1.0 + e)) as f32;
                if x < 0.0 { -magnitude } else { magnitude }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_functions() {
        let at = |f: Function| [-4.0, -1.0, 0.0, 1.5, 4.0].map(|x| f.apply(x));
        assert_eq!(at(Function::Hardswish), [0.0, -1.0 / 3.0, 0.0, 1.125, 4.0]);
        assert_eq!(at(Function::Hardsigmoid), [0.0, 1.0 / 3.0, 0.5, 0.75, 1.0]);
        assert_eq!(Function::Hardswish.apply(-2.664788), -0.14887814, "the division comes last");
        assert_eq!(Function::Hardsigmoid.apply(2.430737), 0.9051228, "no reciprocal");
        assert_eq!(at(Function::LeakyRelu(0.5)), [-2.0, -0.5, 0.0, 1.5, 4.0]);
        assert_eq!(at(Function::Elu(2.0))[2..], [0.0, 1.5, 4.0]);
        assert_eq!(Function::Elu(2.0).apply(-1.0), -1.2642411);
        // e⁻ˣ is 1 to f32, and so nothing is left.
        assert_eq!(Function::Elu(1.0).apply(-1e-8), 0.0, "the exponential is rounded before 1 is subtracted");
        assert_eq!(Function::Sigmoid.apply(-15.375), 2.1024336e-7, "1 + e¹⁵·³⁷⁵ is rounded before it divides");
        assert_eq!(Function::Sigmoid.apply(0.0), 0.5);
        assert_eq!(Function::Sigmoid.apply(-200.0), 0.0);
        assert_eq!((Function::Tanh.apply(0.5), Function::Tanh.apply(-0.5)), (0.46211717, -0.46211717));
        assert_eq!(Function::Tanh.apply(-1e30), -1.0);
    }

    #[test]
    fn tables_are_checked_and_never_miss() {
        let codes = CodeType::I8;
        assert!(Table::recorded(codes, codes, alloc::vec![0; 255]).is_err());
        assert!(Table::recorded(codes, codes, alloc::vec![128; 256]).is_err());
        let table = Table::new(codes, |q| -q.max(-127));
        assert_eq!([-128, 5, 127, 1000, i32::MIN].map(|q| table.apply(q)), [127, -5, -127, -127, 127]);
        let q = Quantization::new(0.5, 1, codes).unwrap();
        let from = Dequantizer::new(DequantizeForm::Difference, q);
        let to = Quantizer::new(QuantizeForm::Wrapping, q);
        let table = Table::from_real(codes, from, |x| x * x, to);
        assert_eq!((table.apply(3), table.apply(-1), table.apply(100)), (3, 3, 127));
    }

    #[test]
    fn relu6_of_pytorch() {
        let at = |scale, z| {
            let table = Table::aten_relu6(Quantization::new(scale, z, CodeType::U8).unwrap());
            [0, 9, 10, 11, 12, 255].map(|q| table.apply(q))
        };
        assert_eq!(at(4.0, 9), [9, 9, 10, 11, 11, 11], "1.5 codes, to even");
        assert_eq!(at(4.0, 10), [10, 10, 10, 11, 12, 12], "the zero point comes after");
        assert_eq!(at(1e-20, 9), [9, 9, 10, 11, 12, 255], "saturated");
        assert_eq!(at(1e-40, 9), [0, 9, 10, 11, 12, 255], "the reciprocal is infinite, and 0 of it NaN");
    }

    #[test]
    fn sigmoid_of_pytorch_subtracts_the_zero_point_first() {
        let q = |scale, z| Quantization::new(scale, z, CodeType::U8).unwrap();
        // Both functions are 1/2 at 0, which is 2.5 codes; a little more is 3.
        let of_zero_points = |function| {
            (1..200u8).map(move |i| Table::aten(function, q(0.01 * f64::from(i), 127), q(0.2, 0)).apply(127))
        };
        assert!(of_zero_points(Function::Sigmoid).all(|code| code == 2));
        assert!(of_zero_points(Function::Hardsigmoid).any(|code| code == 3), "a zero point need not be 0");
    }
}
