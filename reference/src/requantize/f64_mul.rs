//! Rule R19: one f64 product.

use super::{Codes, Rounding, biased, expect_none_or};
use crate::Error;
use crate::float::saturate;
use crate::operand::{expect_one_or, per_channel};
use alloc::vec::Vec;

/// Rule R19: one product in f64.
///
/// ```text
/// r = f64( wrap(acc + bias) ) · multiplier                                       f64, one rounding
/// q = round( clamp(r, lo − zero_point, hi − zero_point) ) + zero_point           zero point after rounding
/// q = round( clamp(r + zero_point, lo, hi) )                                     before it
/// ```
///
/// NaN gives `lo`.
#[derive(Clone, Debug, PartialEq)]
pub struct F64 {
    /// One element or one an output channel.
    pub multiplier: Vec<f64>,
    /// Empty (none), one element or one an output channel.
    pub bias: Vec<i32>,
    /// Of the product.
    pub rounding: Rounding,
    /// When the zero point is added.
    pub zero_point: ZeroPoint,
    /// What is stored.
    pub codes: Codes,
}

/// When the zero point is added. Before rounding, the parity of the zero point turns ties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroPoint {
    /// To the real-valued code; the sum is rounded to f64.
    BeforeRounding,
    /// To the integer.
    AfterRounding,
}

impl F64 {
    pub(super) fn validate(&self, channels: usize) -> Result<(), Error> {
        expect_one_or("multiplier", self.multiplier.len(), channels)?;
        expect_none_or("bias", self.bias.len(), channels)
    }

    /// The real-valued code before it is clamped and rounded, with the zero point if that is added before rounding.
    #[inline(always)]
    pub fn scaled(&self, accumulator: i32, channel: usize) -> f64 {
        let r = f64::from(biased(accumulator, &self.bias, channel)) * per_channel(&self.multiplier, channel);
        match self.zero_point {
            ZeroPoint::BeforeRounding => r + f64::from(self.codes.zero_point()),
            ZeroPoint::AfterRounding => r,
        }
    }

    /// The code of an accumulator of an output channel.
    #[inline(always)]
    pub fn apply(&self, accumulator: i32, channel: usize) -> i32 {
        let [lo, hi] = self.codes.range();
        let later = match self.zero_point {
            ZeroPoint::BeforeRounding => 0,
            ZeroPoint::AfterRounding => self.codes.zero_point(),
        };
        let r = clamp(self.scaled(accumulator, channel), f64::from(lo - later), f64::from(hi - later));
        saturate(self.rounding.round(r)) + later
    }
}

/// A NaN fails the first comparison.
#[inline(always)]
fn clamp(v: f64, lo: f64, hi: f64) -> f64 {
    let v = if v > lo { v } else { lo };
    if v < hi { v } else { hi }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CodeType;
    use alloc::vec;

    fn rule(multiplier: f64, rounding: Rounding, zero_point: ZeroPoint) -> F64 {
        let codes = Codes::new(11, CodeType::U8).unwrap();
        F64 { multiplier: vec![multiplier], bias: vec![], rounding, zero_point, codes }
    }

    #[test]
    fn rounding_and_the_place_of_the_zero_point_decide_ties() {
        use Rounding::{Away, Even, Up};
        use ZeroPoint::{AfterRounding, BeforeRounding};
        for (rounding, zero_point, want) in [
            (Even, AfterRounding, [11, 13, 13, 11, 9]),
            (Even, BeforeRounding, [12, 12, 14, 10, 10]),
            (Away, AfterRounding, [12, 13, 14, 10, 9]),
            (Away, BeforeRounding, [12, 13, 14, 11, 10]),
            (Up, AfterRounding, [12, 13, 14, 11, 10]),
        ] {
            let rule = rule(0.5, rounding, zero_point);
            assert_eq!([1, 3, 5, -1, -3].map(|acc| rule.apply(acc, 0)), want, "{rounding:?} {zero_point:?}");
        }
    }

    #[test]
    fn no_bit_of_an_accumulator_is_lost() {
        // In f32, 2²⁴ + 1 is 2²⁴, and the product 0.5.
        let rule = rule(2f64.powi(-25), Rounding::Even, ZeroPoint::AfterRounding);
        assert_eq!(rule.apply((1 << 24) + 1, 0), 12);
        assert_eq!(rule.apply(1 << 24, 0), 11);
    }

    #[test]
    fn everything_saturates() {
        for zero_point in [ZeroPoint::BeforeRounding, ZeroPoint::AfterRounding] {
            for (multiplier, want) in [(f64::NAN, 0), (f64::INFINITY, 255), (-1e300, 0), (1e300, 255)] {
                assert_eq!(rule(multiplier, Rounding::Away, zero_point).apply(7, 0), want);
            }
            let wrapped = F64 { bias: vec![i32::MAX], ..rule(1.0, Rounding::Away, zero_point) };
            assert_eq!(wrapped.apply(1, 0), 0);
        }
    }
}
