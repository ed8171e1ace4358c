//! Requantization: from an accumulator to what a layer stores (rules R6, R8, R9).

use crate::float::{cvt, fma, round_ties_even};
use crate::operand::{expect_one_or, per_channel};
use crate::{CodeType, Error};
use alloc::vec::Vec;

/// What becomes of an accumulator.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Rule {
    /// R6: one f32 multiplication, rounded to a code.
    F32Mul(F32Mul),
    /// R9: real numbers.
    F32Out(F32Out),
    /// The accumulator itself, an `i32`.
    Accumulator,
}

impl Rule {
    /// Checks parameters against the number of output channels they are for.
    ///
    /// # Errors
    /// Vectors that are neither of length 1 nor one element a channel.
    pub fn validate(&self, channels: usize) -> Result<(), Error> {
        match self {
            Rule::F32Mul(rule) => rule.validate(channels),
            Rule::F32Out(rule) => rule.validate(channels),
            Rule::Accumulator => Ok(()),
        }
    }

    /// The element type that the rule produces.
    pub fn element_type(&self) -> &'static str {
        match self {
            Rule::F32Mul(rule) if rule.output.is_signed() => "i8",
            Rule::F32Mul(_) => "u8",
            Rule::F32Out(_) => "f32",
            Rule::Accumulator => "i32",
        }
    }
}

/// Rule R8: how the bias enters. Vectors hold one element, or one an output channel.
#[derive(Clone, Debug, PartialEq)]
pub enum Bias {
    /// There is none.
    None,
    /// R8a: `f32(acc + bias)`, the sum wrapping in int32.
    I32(Vec<i32>),
    /// R8b: `f32(acc) + addend`, where `addend = bias / (S_X · S_W)` was divided in f32 beforehand.
    Addend(Vec<f32>),
    /// R8c: `fma(bias, reciprocal, f32(acc))`, where `reciprocal = 1 / (S_X · S_W)`; the product is not rounded.
    Fused {
        /// In real units.
        bias: Vec<f32>,
        /// Of the accumulator's scale.
        reciprocal: Vec<f32>,
    },
}

/// What happens to products that do not fit an int32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// They become −2³¹ (R1, `cvt`), also the positive ones and NaN, and so the lower clamp bound.
    Convert,
    /// The product is clamped to `[lo − zero_point, hi − zero_point]` before it is rounded; NaN gives `lo`.
    ClampFirst,
}

/// Rule R6: `clamp(cvt(v · multiplier) + zero_point, lo, hi)` with `v` the accumulator and its bias (R8).
#[derive(Clone, Debug, PartialEq)]
pub struct F32Mul {
    pub(crate) multiplier: Vec<f32>,
    pub(crate) bias: Bias,
    pub(crate) zero_point: i32,
    pub(crate) output: CodeType,
    pub(crate) clamp: [i32; 2],
    pub(crate) overflow: Overflow,
}

impl F32Mul {
    /// A rule with codes of type `output`, clamped to all of its range.
    ///
    /// `multiplier` holds one element or one an output channel; any f32 is allowed, the result is
    /// the rule's.
    ///
    /// # Errors
    /// A zero point that is not a code of `output`.
    pub fn new(multiplier: Vec<f32>, bias: Bias, zero_point: i32, output: CodeType) -> Result<F32Mul, Error> {
        output.check("output zero point", zero_point)?;
        let clamp = [output.lo(), output.hi()];
        Ok(F32Mul { multiplier, bias, zero_point, output, clamp, overflow: Overflow::Convert })
    }

    /// The same rule with a fused ReLU: no code below the zero point.
    #[must_use]
    pub fn relu(mut self) -> F32Mul {
        self.clamp[0] = self.clamp[0].max(self.zero_point);
        self
    }

    /// The same rule, clamped to `lo..=hi`.
    ///
    /// # Errors
    /// Bounds that are not codes of the output, or an empty range.
    pub fn clamped(mut self, lo: i32, hi: i32) -> Result<F32Mul, Error> {
        self.output.check("lower clamp bound", lo)?;
        self.output.check("upper clamp bound", hi)?;
        if lo > hi {
            return Err(Error::OutOfRange {
                what: "lower clamp bound",
                got: lo.into(),
                lo: self.output.lo().into(),
                hi: hi.into(),
            });
        }
        self.clamp = [lo, hi];
        Ok(self)
    }

    /// The same rule with another treatment of what does not fit an int32.
    #[must_use]
    pub fn overflow(mut self, overflow: Overflow) -> F32Mul {
        self.overflow = overflow;
        self
    }

    fn validate(&self, channels: usize) -> Result<(), Error> {
        expect_one_or("multiplier", self.multiplier.len(), channels)?;
        match &self.bias {
            Bias::None => Ok(()),
            Bias::I32(b) => expect_one_or("bias", b.len(), channels),
            Bias::Addend(b) => expect_one_or("bias addend", b.len(), channels),
            Bias::Fused { bias, reciprocal } => {
                expect_one_or("bias", bias.len(), channels)?;
                expect_one_or("bias reciprocal", reciprocal.len(), channels)
            }
        }
    }

    /// Factor of an output channel.
    pub fn multiplier(&self, channel: usize) -> f32 {
        per_channel(&self.multiplier, channel)
    }

    /// How the bias enters.
    pub fn bias(&self) -> &Bias {
        &self.bias
    }

    /// Added after rounding.
    pub fn zero_point(&self) -> i32 {
        self.zero_point
    }

    /// The codes produced.
    pub fn output(&self) -> CodeType {
        self.output
    }

    /// Smallest and largest code produced.
    pub fn clamp(&self) -> [i32; 2] {
        self.clamp
    }

    /// What happens to products that do not fit.
    pub fn overflow_mode(&self) -> Overflow {
        self.overflow
    }

    /// The real-valued code, before it is rounded: `v · multiplier`.
    #[inline]
    pub fn scaled(&self, accumulator: i32, channel: usize) -> f32 {
        let v = match &self.bias {
            Bias::None => accumulator as f32,
            Bias::I32(bias) => accumulator.wrapping_add(per_channel(bias, channel)) as f32,
            Bias::Addend(addend) => accumulator as f32 + per_channel(addend, channel),
            Bias::Fused { bias, reciprocal } => {
                fma(per_channel(bias, channel), per_channel(reciprocal, channel), accumulator as f32)
            }
        };
        v * per_channel(&self.multiplier, channel)
    }

    /// The code of an accumulator of an output channel.
    #[inline]
    pub fn apply(&self, accumulator: i32, channel: usize) -> i32 {
        let v = self.scaled(accumulator, channel);
        let [lo, hi] = self.clamp;
        match self.overflow {
            // Saturating, as the runtimes' 16-bit sums are: |zero_point| ≤ 255, so both end at a clamp bound.
            Overflow::Convert => cvt(v).saturating_add(self.zero_point).clamp(lo, hi),
            Overflow::ClampFirst => {
                let (least, most) = ((lo - self.zero_point) as f32, (hi - self.zero_point) as f32);
                // A NaN fails the first comparison.
                let v = if v > least { v } else { least };
                let v = if v < most { v } else { most };
                round_ties_even(v) as i32 + self.zero_point
            }
        }
    }
}

/// Rule R9: `f32(acc) · scale + bias`, rounded once (`fused`) or twice, then an optional ReLU.
#[derive(Clone, Debug, PartialEq)]
pub struct F32Out {
    /// Of the accumulator: `S_X · S_W`; one element or one an output channel.
    pub scale: Vec<f32>,
    /// In real units; empty (no addition), one element or one an output channel.
    pub bias: Vec<f32>,
    /// Multiply and add with one rounding.
    pub fused: bool,
    /// Replace what is not greater than zero by zero.
    pub relu: bool,
}

impl F32Out {
    fn validate(&self, channels: usize) -> Result<(), Error> {
        expect_one_or("scale", self.scale.len(), channels)?;
        if self.bias.is_empty() { Ok(()) } else { expect_one_or("bias", self.bias.len(), channels) }
    }

    /// The real number of an accumulator of an output channel.
    #[inline]
    pub fn apply(&self, accumulator: i32, channel: usize) -> f32 {
        let (v, scale) = (accumulator as f32, per_channel(&self.scale, channel));
        let y = match (self.bias.is_empty(), self.fused) {
            (true, _) => v * scale,
            (false, true) => fma(v, scale, per_channel(&self.bias, channel)),
            (false, false) => v * scale + per_channel(&self.bias, channel),
        };
        // A NaN, which is not greater than 0 either, becomes 0 too.
        let keep = y > 0.0 || !self.relu;
        if keep { y } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn rule(multiplier: f32, bias: Bias) -> F32Mul {
        F32Mul::new(vec![multiplier], bias, 10, CodeType::U8).unwrap()
    }

    #[test]
    fn ties_go_to_even_before_the_zero_point_is_added() {
        let rule = rule(0.5, Bias::None);
        assert_eq!([1, 3, 5, -1, -3].map(|acc| rule.apply(acc, 0)), [10, 12, 12, 10, 8]);
    }

    #[test]
    fn overflow_goes_to_the_bottom_or_saturates() {
        let rule = rule(1e9, Bias::None);
        assert_eq!(rule.apply(100, 0), 0);
        assert_eq!(rule.clone().relu().apply(100, 0), 10);
        let rule = rule.overflow(Overflow::ClampFirst);
        assert_eq!(rule.apply(100, 0), 255);
        assert_eq!(rule.apply(-100, 0), 0);
        assert_eq!(F32Mul { multiplier: vec![f32::NAN], ..rule }.apply(100, 0), 0);
    }

    #[test]
    fn a_fused_bias_differs_from_an_addend_beside_a_tie() {
        // b·r is 1 − 2⁻⁴⁶: rounded, it is 1 and the sum 2²⁴ + 3 is a tie; exact, the sum is below the tie.
        let (bias, reciprocal) = (1.0 + f32::EPSILON, 1.0 - f32::EPSILON);
        assert_eq!(bias * reciprocal, 1.0);
        let fused = Bias::Fused { bias: vec![bias], reciprocal: vec![reciprocal] };
        assert_eq!(rule(1.0, fused).scaled((1 << 24) + 2, 0), 16777218.0);
        assert_eq!(rule(1.0, Bias::Addend(vec![1.0])).scaled((1 << 24) + 2, 0), 16777220.0);
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
