//! Rules R17 and R18: multipliers of 31 bits and a power of two.

use super::{Codes, biased, expect_none_or};
use crate::Error;
use crate::fixed_point::{FixedPoint, Rounding};
use crate::operand::{expect_one_or, per_channel};
use alloc::vec::Vec;

fn validate(multiplier: &[FixedPoint], bias: &[i32], channels: usize) -> Result<(), Error> {
    expect_one_or("multiplier", multiplier.len(), channels)?;
    expect_none_or("bias", bias.len(), channels)?;
    multiplier.iter().try_for_each(|m| m.validate())
}

/// Rule R17: the product is rounded to an integer twice, at bit 31 and after the right shift.
///
/// ```text
/// a = wrap( wrap(acc + bias) · 2^max(exponent, 0) )
/// h = up( a · mantissa / 2³¹ )                              SRDHM, SQRDMULH
/// q = clamp( last( h / 2^max(−exponent, 0) ) + zero_point, lo, hi )
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Q31Double {
    /// One element or one an output channel.
    pub multiplier: Vec<FixedPoint>,
    /// Empty (none), one element or one an output channel.
    pub bias: Vec<i32>,
    /// The second rounding.
    pub last: Rounding,
    /// What is stored.
    pub codes: Codes,
}

impl Q31Double {
    pub(super) fn validate(&self, channels: usize) -> Result<(), Error> {
        validate(&self.multiplier, &self.bias, channels)
    }

    /// `h`, and how far it is shifted right.
    #[inline(always)]
    fn high(&self, accumulator: i32, channel: usize) -> (i64, u32) {
        per_channel(&self.multiplier, channel).high(biased(accumulator, &self.bias, channel))
    }

    /// The number that is rounded last.
    pub fn scaled(&self, accumulator: i32, channel: usize) -> f64 {
        let (h, shift) = self.high(accumulator, channel);
        // Both have at most 32 bits: the quotient is exact.
        h as f64 / (1u64 << shift) as f64
    }

    /// The code of an accumulator of an output channel.
    #[inline(always)]
    pub fn apply(&self, accumulator: i32, channel: usize) -> i32 {
        let (h, shift) = self.high(accumulator, channel);
        self.codes.code(self.last.shift_right(h, shift))
    }
}

/// Rule R18: the exact product is rounded once, ties upwards.
///
/// ```text
/// q = clamp( up( wrap(acc + bias) · mantissa / 2^(31 − exponent) ) + zero_point, lo, hi )
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Q31Single {
    /// One element or one an output channel.
    pub multiplier: Vec<FixedPoint>,
    /// Empty (none), one element or one an output channel.
    pub bias: Vec<i32>,
    /// What is stored.
    pub codes: Codes,
}

impl Q31Single {
    pub(super) fn validate(&self, channels: usize) -> Result<(), Error> {
        validate(&self.multiplier, &self.bias, channels)
    }

    /// The code of an accumulator of an output channel.
    #[inline(always)]
    pub fn apply(&self, accumulator: i32, channel: usize) -> i32 {
        let FixedPoint { mantissa, exponent } = per_channel(&self.multiplier, channel);
        let product = i64::from(biased(accumulator, &self.bias, channel)) * i64::from(mantissa);
        // Exponents are −31 to 30, the shift hence 1 to 62.
        self.codes.code(Rounding::Up.shift_right(product, (31 - exponent) as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CodeType, Rule};
    use alloc::vec;

    fn codes() -> Codes {
        Codes::new(3, CodeType::I8).unwrap()
    }

    fn double(multiplier: f64, last: Rounding) -> Q31Double {
        Q31Double { multiplier: vec![FixedPoint::nearest(multiplier).unwrap()], bias: vec![], last, codes: codes() }
    }

    fn single(multiplier: f64) -> Q31Single {
        Q31Single { multiplier: vec![FixedPoint::nearest(multiplier).unwrap()], bias: vec![], codes: codes() }
    }

    #[test]
    fn a_number_becomes_its_nearest_fixed_point() {
        let fixed = |v| FixedPoint::nearest(v).unwrap();
        assert_eq!(fixed(0.5), FixedPoint { mantissa: 1 << 30, exponent: 0 });
        assert_eq!(fixed(0.75), FixedPoint { mantissa: 3 << 29, exponent: 0 });
        assert_eq!(fixed(3.0), FixedPoint { mantissa: 3 << 29, exponent: 2 });
        assert_eq!(fixed(1.0f64.next_down()), FixedPoint { mantissa: 1 << 30, exponent: 1 });
        let tie = (f64::from(1 << 30) + 0.5) / 2147483648.0;
        assert_eq!(fixed(tie).mantissa, (1 << 30) + 1);
        assert_eq!(fixed(tie.next_down()).mantissa, 1 << 30);
        assert_eq!(fixed(2f64.powi(-32)), FixedPoint { mantissa: 1 << 30, exponent: -31 });
        for tiny in [2f64.powi(-34), 1e-300, 5e-324, 0.0] {
            assert_eq!(fixed(tiny), FixedPoint::ZERO);
        }
        for bad in [2f64.powi(30), f64::INFINITY, f64::NAN, -0.5] {
            assert!(FixedPoint::nearest(bad).is_err(), "{bad}");
        }
        assert_eq!(fixed(0.1f32.into()).mantissa, 0xcccccd << 7);
    }

    #[test]
    fn the_second_rounding_has_ties_of_its_own() {
        // 5/4 and −5/4 at bit 31 of 1/8: 2·(5/8) = 1.25. Ties: acc/8 with acc = 4, 12, −4, −12.
        let ties = [4, 12, -4, -12];
        let steps = |last| ties.map(|acc| double(0.125, last).apply(acc, 0) - 3);
        assert_eq!(steps(Rounding::Away), [1, 2, -1, -2]);
        assert_eq!(steps(Rounding::Up), [1, 2, 0, -1]);
        assert_eq!(steps(Rounding::Even), [0, 2, 0, -2]);
        assert_eq!(ties.map(|acc| single(0.125).apply(acc, 0) - 3), [1, 2, 0, -1]);
    }

    #[test]
    fn the_first_rounding_is_up_whatever_the_second() {
        // With 1/2 there is no right shift: bit 31 alone rounds.
        for last in [Rounding::Away, Rounding::Up, Rounding::Even] {
            let rule = double(0.5, last);
            assert_eq!([1, 3, -1, -3].map(|acc| rule.apply(acc, 0) - 3), [1, 2, 0, -1], "{last:?}");
        }
    }

    #[test]
    fn two_roundings_are_not_one() {
        // 11 · 0.136 = 1.496: to 0.136·8 = 1.088, 11.968 → 12, then 12/8 = 1.5 → 2.
        assert_eq!(double(0.136, Rounding::Up).apply(11, 0), 3 + 2);
        assert_eq!(single(0.136).apply(11, 0), 3 + 1);
    }

    #[test]
    fn large_multipliers_shift_left_first_and_wrap() {
        assert_eq!(double(6.0, Rounding::Away).apply(7, 0), 45);
        assert_eq!(single(6.0).apply(7, 0), 45);
        // 2³⁰·8 wraps to 0 before it is multiplied; in 64 bits it saturates.
        assert_eq!(double(6.0, Rounding::Away).apply(1 << 30, 0), 3);
        assert_eq!(single(6.0).apply(1 << 30, 0), 127);
        assert_eq!(double(0.9, Rounding::Up).apply(i32::MIN, 0), -128);
        assert_eq!(single(2f64.powi(29)).apply(i32::MIN, 0), -128);
    }

    #[test]
    fn a_bias_wraps() {
        let rule = Q31Double { bias: vec![i32::MAX], ..double(2f64.powi(-26), Rounding::Away) };
        assert_eq!(rule.apply(1, 0), 3 - 32);
        let rule = Q31Single { bias: vec![i32::MAX], ..single(2f64.powi(-26)) };
        assert_eq!(rule.apply(1, 0), 3 - 32);
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for (mantissa, exponent) in [(1, 0), (-1, 0), ((1 << 30) - 1, 0), (1 << 30, 31), (1 << 30, -32), (0, 31)] {
            let multiplier = vec![FixedPoint { mantissa, exponent }];
            let single = Q31Single { multiplier: multiplier.clone(), ..single(0.5) };
            assert!(Rule::Q31Single(single).validate(4).is_err(), "{mantissa} {exponent}");
            let double = Q31Double { multiplier, ..double(0.5, Rounding::Up) };
            assert!(Rule::Q31Double(double).validate(4).is_err(), "{mantissa} {exponent}");
        }
        assert!(Rule::Q31Single(Q31Single { multiplier: vec![FixedPoint::ZERO], ..single(0.5) }).validate(4).is_ok());
        assert!(Rule::Q31Single(Q31Single { bias: vec![0; 2], ..single(0.5) }).validate(4).is_err());
    }
}
