//! The fixed-point primitives of gemmlowp and TFLite.

use crate::float::round_away;

/// How the last bits of a fixed-point number are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To the nearest integer, ties away from zero.
    Away,
    /// To the nearest integer, ties towards +∞: half is added, then the bits are shifted out.
    Up,
}

/// `mantissa · 2^(exponent − 31)`: a real factor in 31 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedPoint {
    /// In 2³⁰..2³¹, or 0.
    pub mantissa: i32,
    /// At least −31; 0 where the mantissa is 0.
    pub exponent: i32,
}

impl FixedPoint {
    /// The nearest fixed-point number of a factor that is finite and not negative; what is below 2⁻³² becomes 0.
    pub fn new(factor: f64) -> FixedPoint {
        let (mantissa, exponent) = quantize_multiplier(factor);
        FixedPoint { mantissa, exponent }
    }

    /// `x · factor` with two roundings: the high half of the doubled product (ties up), then the shift to the right.
    /// An exponent above 0 shifts x to the left first, wrapping in int32.
    #[inline]
    pub fn multiply(self, x: i32, last: Rounding) -> i32 {
        let left = self.exponent.max(0).unsigned_abs();
        let right = self.exponent.min(0).unsigned_abs();
        let high = srdhm(x.checked_shl(left).unwrap_or(0), self.mantissa);
        match last {
            Rounding::Away => rounding_divide_away(high, right),
            Rounding::Up => rounding_divide_up(high, right),
        }
    }
}

/// The saturating, rounding, doubling high half of a product: `(a·b + nudge) / 2³¹`, truncated, with the nudge 2³⁰, or
/// 1 − 2³⁰ for a negative product. That is a·b / 2³¹ to the nearest integer, ties up.
pub(crate) fn srdhm(a: i32, b: i32) -> i32 {
    if a == i32::MIN && b == i32::MIN {
        return i32::MAX;
    }
    let product = i64::from(a) * i64::from(b);
    let nudge = if product >= 0 { 1 << 30 } else { 1 - (1 << 30) };
    ((product + nudge) / (1 << 31)) as i32
}

/// `x / 2^exponent` to the nearest integer, ties away from zero; exponents to 31.
pub(crate) fn rounding_divide_away(x: i32, exponent: u32) -> i32 {
    let x = i64::from(x);
    let half = (1i64 << exponent) >> 1;
    let magnitude = (x.abs() + half) >> exponent;
    (if x < 0 { -magnitude } else { magnitude }) as i32
}

/// `x / 2^exponent` to the nearest integer, ties towards +∞; exponents to 31.
pub(crate) fn rounding_divide_up(x: i32, exponent: u32) -> i32 {
    let half = (1i64 << exponent) >> 1;
    ((i64::from(x) + half) >> exponent) as i32
}

/// A factor as mantissa (31 bits, ties away from zero) and exponent.
pub(crate) fn quantize_multiplier(factor: f64) -> (i32, i32) {
    let bits = factor.to_bits();
    let biased = (bits >> 52) as i32;
    // Zero, subnormal: too small. Anything else than a finite positive factor is excluded by its scales.
    if biased == 0 || biased >= 0x7ff {
        return (0, 0);
    }
    let mut exponent = biased - 1022;
    let fraction = f64::from_bits(bits & ((1 << 52) - 1) | 1022 << 52);
    let mut mantissa = round_away(fraction * 2147483648.0) as i64;
    if mantissa == 1 << 31 {
        (mantissa, exponent) = (1 << 30, exponent + 1);
    }
    if exponent < -31 { (0, 0) } else { (mantissa as i32, exponent) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_of_each_primitive() {
        assert_eq!([1, 3, -1, -3].map(|x| rounding_divide_away(x, 1)), [1, 2, -1, -2]);
        assert_eq!([1, 3, -1, -3].map(|x| rounding_divide_up(x, 1)), [1, 2, 0, -1]);
        assert_eq!([5, -5].map(|x| rounding_divide_away(x, 0)), [5, -5]);
        assert_eq!(rounding_divide_away(i32::MIN, 31), -1);
        assert_eq!(rounding_divide_away(1 << 30, 31), 1);
        // a·b / 2³¹ is ±0.5, ±1.5.
        assert_eq!([1, -1, 3, -3].map(|x| srdhm(x, 1 << 30)), [1, 0, 2, -1]);
        assert_eq!(srdhm(i32::MIN, i32::MIN), i32::MAX);
    }

    #[test]
    fn multipliers() {
        assert_eq!(quantize_multiplier(1.0), (1 << 30, 1));
        assert_eq!(quantize_multiplier(0.75), (3 << 29, 0));
        // 1 − 2⁻³³ rounds up to 2³¹, which becomes 2³⁰ with the next exponent.
        assert_eq!(quantize_multiplier(1.0 - 2.0f64.powi(-33)), (1 << 30, 1));
        // A tie of the mantissa goes away from zero.
        assert_eq!(quantize_multiplier(0.5 + 2.0f64.powi(-32)), ((1 << 30) + 1, 0));
        assert_eq!(quantize_multiplier(2.0f64.powi(-32)), (1 << 30, -31));
        assert_eq!(quantize_multiplier(2.0f64.powi(-33)), (0, 0));
        assert_eq!(quantize_multiplier(0.0), (0, 0));
    }

    #[test]
    fn the_last_rounding_tells_the_two_forms_apart() {
        let quarter = FixedPoint::new(0.125);
        assert_eq!([4, -4, 12, -12].map(|x| quarter.multiply(x, Rounding::Away)), [1, -1, 2, -2]);
        assert_eq!([4, -4, 12, -12].map(|x| quarter.multiply(x, Rounding::Up)), [1, 0, 2, -1]);
        // Twice: 3·0.125 = 0.375 → the high half keeps 1.5 of the last two bits → 2 → 2 / 4 = 0.5 → 1.
        assert_eq!(quarter.multiply(3, Rounding::Away), 1);
        assert_eq!(FixedPoint::new(6.0).multiply(-7, Rounding::Away), -42);
        assert_eq!(FixedPoint { mantissa: 1 << 30, exponent: 40 }.multiply(1, Rounding::Up), 0, "wrapped away");
    }
}
