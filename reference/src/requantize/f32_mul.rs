//! Rules R6 and R8: one f32 product, the zero point added to the rounded code.

use super::Codes;
use crate::float::{self, cvt, fma};
use crate::operand::{expect_one_or, per_channel};
use crate::{CodeType, Error};
use alloc::vec::Vec;

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
    pub(crate) codes: Codes,
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
        Ok(F32Mul { multiplier, bias, codes: Codes::new(zero_point, output)?, overflow: Overflow::Convert })
    }

    /// The same rule with a fused ReLU: no code below the zero point.
    #[must_use]
    pub fn relu(mut self) -> F32Mul {
        self.codes = self.codes.relu();
        self
    }

    /// The same rule, clamped to `lo..=hi`.
    ///
    /// # Errors
    /// Bounds that are not codes of the output, or an empty range.
    pub fn clamped(mut self, lo: i32, hi: i32) -> Result<F32Mul, Error> {
        self.codes = self.codes.clamped(lo, hi)?;
        Ok(self)
    }

    /// The same rule with another treatment of what does not fit an int32.
    #[must_use]
    pub fn overflow(mut self, overflow: Overflow) -> F32Mul {
        self.overflow = overflow;
        self
    }

    pub(super) fn validate(&self, channels: usize) -> Result<(), Error> {
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
        self.codes.zero_point()
    }

    /// The codes produced.
    pub fn output(&self) -> CodeType {
        self.codes.code_type()
    }

    /// Smallest and largest code produced.
    pub fn clamp(&self) -> [i32; 2] {
        self.codes.range()
    }

    /// What happens to products that do not fit.
    pub fn overflow_mode(&self) -> Overflow {
        self.overflow
    }

    /// The real-valued code, before it is rounded: `v · multiplier`.
    #[inline(always)]
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
    #[inline(always)]
    pub fn apply(&self, accumulator: i32, channel: usize) -> i32 {
        let v = self.scaled(accumulator, channel);
        let ([lo, hi], zero_point) = (self.codes.range(), self.codes.zero_point());
        match self.overflow {
            // Saturating, as the runtimes' 16-bit sums are: |zero_point| ≤ 255, so both end at a clamp bound.
            Overflow::Convert => cvt(v).saturating_add(zero_point).clamp(lo, hi),
            Overflow::ClampFirst => {
                let v = float::clamp(v, (lo - zero_point) as f32, (hi - zero_point) as f32);
                cvt(v) + zero_point
            }
        }
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
    fn an_odd_zero_point_turns_no_tie() {
        let rule = F32Mul::new(vec![0.5], Bias::None, 11, CodeType::U8).unwrap();
        for rule in [rule.clone(), rule.overflow(Overflow::ClampFirst)] {
            assert_eq!([1, 3, 5, -1, -3].map(|acc| rule.apply(acc, 0)), [11, 13, 13, 11, 9]);
        }
    }

    #[test]
    fn the_largest_product_and_the_largest_zero_point_saturate() {
        let rule = F32Mul::new(vec![1.0], Bias::None, 255, CodeType::U8).unwrap();
        assert_eq!(rule.apply(2147483520, 0), 255);
    }

    /// f32(acc)·M with M = f32((k + ½) / acc): often the tie itself in f32, and beside it in f64.
    #[test]
    fn the_product_is_an_f32() {
        let mut apart = 0;
        for acc in 1..2000 {
            let m = 20.5 / acc as f32;
            let want = float::round_ties_even(acc as f32 * m) as i32 + 10;
            assert_eq!(rule(m, Bias::None).apply(acc, 0), want);
            apart += u32::from(want != float::round_ties_even_f64(f64::from(acc) * f64::from(m)) as i32 + 10);
        }
        assert!(apart > 0);
        // 2²⁴ + 1 becomes 2²⁴ before the product.
        assert_eq!(rule(1.0 + f32::EPSILON, Bias::None).scaled((1 << 24) + 1, 0), 16777218.0);
    }

    #[test]
    fn an_integer_bias_wraps_and_is_added_exactly() {
        assert_eq!(rule(1.0, Bias::I32(vec![i32::MAX])).scaled(1, 0), -2147483648.0);
        assert_eq!(rule(1.0, Bias::I32(vec![i32::MIN])).scaled(-1, 0), 2147483648.0);
        assert_eq!(rule(1.0, Bias::I32(vec![-(1 << 24)])).scaled((1 << 24) + 1, 0), 1.0);
    }
}
