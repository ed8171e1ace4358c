//! Rule R16: the real number first, then its code.

use super::{Codes, Stored, expect_none_or};
use crate::float::{self, cvt, fma};
use crate::operand::{expect_one_or, per_channel};
use crate::{CodeType, Error};
use alloc::vec::Vec;

/// Rule R16: bias, sum and activation in real units; the zero point is added *before* rounding.
///
/// ```text
/// v = f32(acc) · scale                                  f32, one rounding each
/// v = v + bias
/// v = fma(f32(a) − f32(zero point of a), its scale, v)  sum of codes a
/// v = v + a                                             sum of real numbers a
/// v = max(v, least), then min(v, most)                  clip; NaN → least
/// y = v                                                 output: real numbers
/// q = rne( clamp( v · multiplier + f32(zero_point), lo, hi ) )       output: codes; NaN → lo
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct F32Real {
    /// Of the accumulator: `S_X · S_W`; one element or one an output channel.
    pub scale: Vec<f32>,
    /// In real units; empty (no addition), one element or one an output channel.
    pub bias: Vec<f32>,
    /// What else is added.
    pub sum: Sum,
    /// Smallest and largest real number: `[0, ∞]` is a ReLU.
    pub clip: Option<[f32; 2]>,
    /// What is stored.
    pub output: RealOutput,
}

/// A tensor of the output's shape that a layer adds to its own real numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sum {
    /// There is none.
    None,
    /// Codes, dequantized and added with one rounding: `fma(f32(a) − f32(zero_point), scale, v)`.
    Codes {
        /// Distance between the real numbers of neighbouring codes.
        scale: f32,
        /// The code of zero.
        zero_point: i32,
        /// Their type.
        codes: CodeType,
    },
    /// Real numbers: `v + a`.
    Reals,
}

/// What [`F32Real`] stores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RealOutput {
    /// The real number.
    Reals,
    /// Its code.
    Codes {
        /// The reciprocal of S_Y.
        multiplier: f32,
        /// Which codes.
        codes: Codes,
    },
}

impl F32Real {
    /// The clip of a ReLU.
    pub const RELU: Option<[f32; 2]> = Some([0.0, f32::INFINITY]);

    pub(super) fn validate(&self, channels: usize) -> Result<(), Error> {
        expect_one_or("scale", self.scale.len(), channels)?;
        if let Sum::Codes { zero_point, codes, .. } = self.sum {
            codes.check("addend zero point", zero_point)?;
        }
        expect_none_or("bias", self.bias.len(), channels)
    }

    /// The real number of an accumulator of an output channel. `addend` is read if there is a [`Sum`].
    #[inline(always)]
    pub fn real(&self, accumulator: i32, channel: usize, addend: f32) -> f32 {
        let mut v = accumulator as f32 * per_channel(&self.scale, channel);
        if !self.bias.is_empty() {
            v += per_channel(&self.bias, channel);
        }
        match self.sum {
            Sum::None => {}
            Sum::Codes { scale, zero_point, .. } => v = fma(addend - zero_point as f32, scale, v),
            Sum::Reals => v += addend,
        }
        match self.clip {
            None => v,
            Some([least, most]) => float::clamp(v, least, most),
        }
    }

    /// The real-valued code, zero point included, before it is clamped and rounded; `None` where real numbers are
    /// stored.
    #[inline(always)]
    pub fn scaled(&self, accumulator: i32, channel: usize, addend: f32) -> Option<f32> {
        let RealOutput::Codes { multiplier, codes } = self.output else { return None };
        let scaled = self.real(accumulator, channel, addend) * multiplier;
        Some(scaled + codes.zero_point() as f32)
    }

    /// What is stored for an accumulator of an output channel.
    #[inline(always)]
    pub fn apply(&self, accumulator: i32, channel: usize, addend: f32) -> Stored {
        match (self.output, self.scaled(accumulator, channel, addend)) {
            (RealOutput::Codes { codes, .. }, Some(scaled)) => {
                let [lo, hi] = codes.range();
                Stored::Code(cvt(float::clamp(scaled, lo as f32, hi as f32)))
            }
            _ => Stored::Real(self.real(accumulator, channel, addend)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn rule(scale: f32, multiplier: f32, zero_point: i32) -> F32Real {
        let codes = Codes::new(zero_point, CodeType::U8).unwrap();
        let output = RealOutput::Codes { multiplier, codes };
        F32Real { scale: vec![scale], bias: vec![], sum: Sum::None, clip: None, output }
    }

    fn code(rule: &F32Real, accumulator: i32) -> i32 {
        match rule.apply(accumulator, 0, 0.0) {
            Stored::Code(code) => code,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_zero_point_is_added_before_ties_go_to_even() {
        let (even, odd) = (rule(0.5, 1.0, 10), rule(0.5, 1.0, 11));
        assert_eq!([1, 3, 5, -1, -3].map(|acc| code(&even, acc)), [10, 12, 12, 10, 8]);
        // Added afterwards, it would give 11, 13, 13, 11, 9.
        assert_eq!([1, 3, 5, -1, -3].map(|acc| code(&odd, acc)), [12, 12, 14, 10, 10]);
    }

    #[test]
    fn the_code_is_a_product_with_the_reciprocal_and_not_a_quotient() {
        // 7 · 20.5 / 41 is the tie 3.5, which goes to 4; the product with f32(1/41) falls short of it.
        assert_eq!(code(&rule(20.5, 1.0 / 41.0, 0), 7), 3);
        assert_eq!(float::round_ties_even(7.0 * 20.5 / 41.0), 4.0);
    }

    #[test]
    fn the_bias_is_rounded_on_its_own() {
        // (2²⁴ + 2)·(1 + ε) + 1: the product is rounded first. A fused sum would keep its last bits.
        let rule = F32Real { scale: vec![1.0 + f32::EPSILON], bias: vec![1.0], ..rule(0.0, 1.0, 0) };
        let v = ((1 << 24) + 2) as f32 * (1.0 + f32::EPSILON);
        assert_eq!(rule.real((1 << 24) + 2, 0, 0.0), v + 1.0);
        assert_ne!(rule.real((1 << 24) + 2, 0, 0.0), fma(((1 << 24) + 2) as f32, 1.0 + f32::EPSILON, 1.0));
    }

    #[test]
    fn summed_codes_are_dequantized_and_added_with_one_rounding() {
        let scale = 1.0 + f32::EPSILON;
        let sum = Sum::Codes { scale, zero_point: 3, codes: CodeType::U8 };
        let rule = F32Real { sum, output: RealOutput::Reals, ..rule(1.0, 1.0, 0) };
        // 3·(1 + ε) − 3 is 3ε; rounded before the sum, the product is 3 + 4ε.
        assert_eq!(rule.apply(-3, 0, 6.0), Stored::Real(3.0 * f32::EPSILON));
        assert_eq!(3.0 * scale - 3.0, 4.0 * f32::EPSILON);
        let reals = F32Real { sum: Sum::Reals, ..rule };
        assert_eq!(reals.apply(-3, 0, 6.5), Stored::Real(3.5));
    }

    #[test]
    fn a_clip_comes_before_the_multiplier_and_takes_nan() {
        let relu6 = F32Real { clip: Some([0.0, 6.0]), ..rule(1.0, 10.0, 50) };
        assert_eq!([-5, 5, 7].map(|acc| code(&relu6, acc)), [50, 100, 110]);
        let nan = F32Real { scale: vec![f32::NAN], ..rule(1.0, 1.0, 50) };
        assert_eq!(code(&nan, 1), 0);
        assert_eq!(code(&F32Real { clip: F32Real::RELU, ..nan }, 1), 50);
        assert_eq!(code(&rule(f32::MAX, 1.0, 50), 9), 255, "infinity saturates");
        let reals = F32Real { clip: F32Real::RELU, output: RealOutput::Reals, ..rule(1.0, 1.0, 0) };
        assert_eq!([-2, 2].map(|acc| reals.apply(acc, 0, 0.0)), [Stored::Real(0.0), Stored::Real(2.0)]);
    }

    #[test]
    fn a_clip_comes_after_the_sum() {
        let rule = F32Real { sum: Sum::Reals, clip: F32Real::RELU, output: RealOutput::Reals, ..rule(1.0, 1.0, 0) };
        assert_eq!(rule.apply(-3, 0, 2.0), Stored::Real(0.0));
    }

    #[test]
    fn the_product_is_rounded_before_the_zero_point_is_added() {
        let rule = rule(1.0, 1.0 / 3.0, 1);
        let differs = |acc: &i32| rule.scaled(*acc, 0, 0.0) != Some(fma(*acc as f32, 1.0 / 3.0, 1.0));
        assert!((-3000..0).any(|acc| differs(&acc)));
    }
}
