//! Requantization: from an accumulator to what a layer stores (rules R6, R8, R9, R16 to R20).
//!
//! The functions of one accumulator are inlined always, so that a loop over them is compiled, and vectorised, for the
//! instructions of the function that it is in.

mod f32_mul;
mod f32_out;
mod f32_real;
mod f64_mul;
mod pow2;
mod q31;

pub use f32_mul::{Bias, F32Mul, Overflow};
pub use f32_out::F32Out;
pub use f32_real::{F32Real, RealOutput, Sum};
pub use f64_mul::{F64, ZeroPoint};
pub use pow2::Pow2;
pub use q31::{Q31Double, Q31Single};

pub use crate::fixed_point::{FixedPoint, Rounding};

use crate::operand::expect_one_or;
use crate::{CodeType, Error};

/// What becomes of an accumulator.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Rule {
    /// R6: one f32 multiplication, rounded to a code.
    F32Mul(F32Mul),
    /// R9: real numbers.
    F32Out(F32Out),
    /// R16: real numbers first, then codes.
    F32Real(F32Real),
    /// R17: a 32-bit fixed-point multiplier, rounded twice.
    Q31Double(Q31Double),
    /// R18: a 32-bit fixed-point multiplier, rounded once.
    Q31Single(Q31Single),
    /// R19: one f64 multiplication, rounded to a code.
    F64(F64),
    /// R20: a power of two.
    Pow2(Pow2),
    /// The accumulator itself, an `i32`.
    Accumulator,
}

impl Rule {
    /// Checks parameters against the number of output channels they are for.
    ///
    /// # Errors
    /// Vectors that are neither of length 1 nor one element a channel, fixed-point numbers and shifts out of range.
    pub fn validate(&self, channels: usize) -> Result<(), Error> {
        match self {
            Rule::F32Mul(rule) => rule.validate(channels),
            Rule::F32Out(rule) => rule.validate(channels),
            Rule::F32Real(rule) => rule.validate(channels),
            Rule::Q31Double(rule) => rule.validate(channels),
            Rule::Q31Single(rule) => rule.validate(channels),
            Rule::F64(rule) => rule.validate(channels),
            Rule::Pow2(rule) => rule.validate(channels),
            Rule::Accumulator => Ok(()),
        }
    }

    /// The codes that the rule produces, if it produces codes.
    pub fn codes(&self) -> Option<Codes> {
        match self {
            Rule::F32Mul(rule) => Some(rule.codes),
            Rule::F32Real(F32Real { output: RealOutput::Codes { codes, .. }, .. }) => Some(*codes),
            Rule::Q31Double(rule) => Some(rule.codes),
            Rule::Q31Single(rule) => Some(rule.codes),
            Rule::F64(rule) => Some(rule.codes),
            Rule::Pow2(rule) => Some(rule.codes),
            Rule::F32Real(_) | Rule::F32Out(_) | Rule::Accumulator => None,
        }
    }

    /// The element type that the rule produces.
    pub fn element_type(&self) -> &'static str {
        match (self, self.codes()) {
            (_, Some(codes)) => codes.code_type().element_type(),
            (Rule::Accumulator, None) => "i32",
            (_, None) => "f32",
        }
    }

    /// The element type of the tensor that the rule adds, if it adds one.
    pub fn addend_type(&self) -> Option<&'static str> {
        match self {
            Rule::F32Real(F32Real { sum: Sum::Codes { codes, .. }, .. }) => Some(codes.element_type()),
            Rule::F32Real(F32Real { sum: Sum::Reals, .. }) => Some("f32"),
            _ => None,
        }
    }

    /// What is stored for an accumulator of an output channel. `addend` is the element of the tensor that the rule
    /// adds (a code, or a real number); rules that add none do not read it.
    #[inline]
    pub fn apply(&self, accumulator: i32, channel: usize, addend: f32) -> Stored {
        match self {
            Rule::F32Mul(rule) => Stored::Code(rule.apply(accumulator, channel)),
            Rule::F32Out(rule) => Stored::Real(rule.apply(accumulator, channel)),
            Rule::F32Real(rule) => rule.apply(accumulator, channel, addend),
            Rule::Q31Double(rule) => Stored::Code(rule.apply(accumulator, channel)),
            Rule::Q31Single(rule) => Stored::Code(rule.apply(accumulator, channel)),
            Rule::F64(rule) => Stored::Code(rule.apply(accumulator, channel)),
            Rule::Pow2(rule) => Stored::Code(rule.apply(accumulator, channel)),
            Rule::Accumulator => Stored::Accumulator(accumulator),
        }
    }
}

/// What a rule makes of an accumulator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Stored {
    /// A code.
    Code(i32),
    /// A real number.
    Real(f32),
    /// The accumulator.
    Accumulator(i32),
}

impl Stored {
    /// Its bits: a code's as an i32, whose low byte is the code as a `u8` or an `i8`.
    #[inline(always)]
    pub fn bits(self) -> u32 {
        match self {
            Stored::Code(v) | Stored::Accumulator(v) => v as u32,
            Stored::Real(v) => v.to_bits(),
        }
    }
}

/// The codes that a rule produces: their type, the code of zero, and the smallest and largest of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codes {
    code_type: CodeType,
    zero_point: i32,
    lo: i32,
    hi: i32,
}

impl Codes {
    /// All codes of a type.
    ///
    /// # Errors
    /// A zero point that is not a code.
    pub fn new(zero_point: i32, code_type: CodeType) -> Result<Codes, Error> {
        code_type.check("output zero point", zero_point)?;
        Ok(Codes { code_type, zero_point, lo: code_type.lo(), hi: code_type.hi() })
    }

    /// Without those below the zero point: a fused ReLU.
    #[must_use]
    pub fn relu(mut self) -> Codes {
        self.lo = self.lo.max(self.zero_point);
        self
    }

    /// Only `lo..=hi`.
    ///
    /// # Errors
    /// Bounds that are not codes, or an empty range.
    pub fn clamped(mut self, lo: i32, hi: i32) -> Result<Codes, Error> {
        self.code_type.check("lower clamp bound", lo)?;
        self.code_type.check("upper clamp bound", hi)?;
        if lo > hi {
            let least = self.code_type.lo().into();
            return Err(Error::OutOfRange { what: "lower clamp bound", got: lo.into(), lo: least, hi: hi.into() });
        }
        (self.lo, self.hi) = (lo, hi);
        Ok(self)
    }

    /// The type.
    pub fn code_type(self) -> CodeType {
        self.code_type
    }

    /// The code of zero.
    pub fn zero_point(self) -> i32 {
        self.zero_point
    }

    /// The smallest and the largest code.
    pub fn range(self) -> [i32; 2] {
        [self.lo, self.hi]
    }

    /// The code of a number of steps from the zero point: `clamp(steps + zero_point, lo, hi)`, the sum exact.
    #[inline(always)]
    pub(crate) fn code(self, steps: i64) -> i32 {
        // The sum cannot be larger than its type: steps have at most 63 bits.
        (steps + i64::from(self.zero_point)).clamp(self.lo.into(), self.hi.into()) as i32
    }
}

/// A length check for parameters that may be absent.
pub(crate) fn expect_none_or(what: &'static str, got: usize, channels: usize) -> Result<(), Error> {
    if got == 0 { Ok(()) } else { expect_one_or(what, got, channels) }
}

/// The accumulator and its int32 bias, if there is one; the sum wraps.
#[inline(always)]
pub(crate) fn biased(accumulator: i32, bias: &[i32], channel: usize) -> i32 {
    if bias.is_empty() { accumulator } else { accumulator.wrapping_add(crate::operand::per_channel(bias, channel)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn each_rounding_has_its_own_ties() {
        for (rounding, want) in [
            (Rounding::Even, [-2, -2, 0, 0, 2, 2]),
            (Rounding::Away, [-3, -2, -1, 1, 2, 3]),
            (Rounding::Up, [-2, -1, 0, 1, 2, 3]),
        ] {
            let halves = [-5, -3, -1, 1, 3, 5];
            assert_eq!(halves.map(|v| rounding.shift_right(v, 1)), want, "{rounding:?}");
            assert_eq!(halves.map(|v| rounding.shift_right(v << 30, 31)), want, "{rounding:?}");
            assert_eq!(halves.map(|v| rounding.round(v as f64 / 2.0) as i64), want, "{rounding:?}");
        }
    }

    #[test]
    fn what_is_no_tie_goes_to_the_nearest() {
        for rounding in [Rounding::Even, Rounding::Away, Rounding::Up] {
            for (v, want) in [(-11, -3), (-9, -2), (-7, -2), (-5, -1), (-1, 0), (1, 0), (5, 1), (7, 2), (9, 2), (11, 3)]
            {
                assert_eq!(rounding.shift_right(v, 2), want, "{rounding:?} {v}");
                assert_eq!(rounding.round(v as f64 / 4.0), want as f64, "{rounding:?} {v}");
            }
            for v in [0.5f64.next_down(), (-0.5f64).next_up(), f64::MIN_POSITIVE, -1e-300] {
                assert_eq!(rounding.round(v), 0.0, "{rounding:?} {v:e}");
            }
            assert_eq!(rounding.round((-0.5f64).next_down()), -1.0);
            assert_eq!([rounding.shift_right(1 << 62, 62), rounding.shift_right(-(1 << 62), 62)], [1, -1]);
            assert_eq!(rounding.shift_right(7, 0), 7);
        }
    }

    #[test]
    fn lengths_and_bounds_are_checked() {
        let two = F32Mul::new(vec![1.0; 2], Bias::None, 0, CodeType::U8).unwrap();
        assert!(Rule::F32Mul(two.clone()).validate(3).is_err());
        assert!(two.clone().clamped(5, 4).is_err() && two.clone().clamped(0, 256).is_err());
        assert!(F32Mul::new(vec![1.0], Bias::None, 200, CodeType::I8).is_err());
        let short = F32Out { scale: vec![1.0], bias: vec![0.0; 2], fused: true, relu: false };
        assert!(Rule::F32Out(short).validate(3).is_err());
    }
}
