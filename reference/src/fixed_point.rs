//! Fixed-point numbers of 31 bits, as gemmlowp and TFLite multiply with them, and roundings of integers.

use crate::{Error, float};

/// How a number between two integers is rounded to one of them; ties are what they differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// Ties to even.
    Even,
    /// Ties away from zero.
    Away,
    /// Ties towards +∞.
    Up,
}

impl Rounding {
    /// `v / 2^shift`, rounded.
    ///
    /// `shift` is at most 62, |v| at most 2⁶².
    #[inline(always)]
    pub(crate) fn shift_right(self, v: i64, shift: u32) -> i64 {
        // Without a shift there is nothing to round, nor anything just below a half.
        let (half, one) = ((1i64 << shift) >> 1, i64::from(shift != 0));
        match self {
            Rounding::Up => (v + half) >> shift,
            // Of a negative number, half away from zero is half down: just below a half more.
            Rounding::Away => (v + half - (i64::from(v < 0) & one)) >> shift,
            // A tie goes up only from an odd quotient.
            Rounding::Even => (v + half - one + ((v >> shift) & one)) >> shift,
        }
    }

    /// A number of at most 32 bits, rounded.
    #[inline(always)]
    pub(crate) fn round(self, v: f64) -> f64 {
        match self {
            Rounding::Even => float::round_ties_even_f64(v),
            Rounding::Away => float::round_ties_away_f64(v),
            Rounding::Up => {
                let below = float::floor_f64(v);
                // Exact near one half, and on its side of one half everywhere.
                if v - below >= 0.5 { below + 1.0 } else { below }
            }
        }
    }
}

/// A number that is not negative: `mantissa · 2^(exponent − 31)`, the mantissa 0 or in 2³⁰ .. 2³¹.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedPoint {
    /// 0, or 2³⁰ ≤ mantissa < 2³¹.
    pub mantissa: i32,
    /// −31 ≤ exponent ≤ 30.
    pub exponent: i32,
}

impl FixedPoint {
    /// Zero.
    pub const ZERO: FixedPoint = FixedPoint { mantissa: 0, exponent: 0 };
    const EXPONENTS: [i32; 2] = [-31, 30];

    /// The nearest such number, halves away from zero. Numbers below 2⁻³² are 0, as they are to TFLite.
    ///
    /// # Errors
    /// A number that is not finite, is negative or 2³⁰ or more.
    pub fn nearest(v: f64) -> Result<FixedPoint, Error> {
        if v == 0.0 || (v > 0.0 && v.is_finite()) {
            let number = FixedPoint::of(v);
            number.validate().map(|()| number)
        } else {
            Err(Error::Scale { what: "multiplier", got: v })
        }
    }

    /// [`nearest`](FixedPoint::nearest) of a quotient of scales, which may be as large as it likes.
    pub(crate) fn of(v: f64) -> FixedPoint {
        // v = significand · 2^(exponent − 53), the significand of 53 bits. What is subnormal is 0 in the end.
        if v < f64::MIN_POSITIVE {
            return FixedPoint::ZERO;
        }
        let bits = v.to_bits();
        let (significand, mut exponent) = ((bits & ((1 << 52) - 1)) | (1 << 52), (bits >> 52) as i32 - 1022);
        let mut mantissa = (significand + (1 << 21)) >> 22;
        if mantissa == 1 << 31 {
            (mantissa, exponent) = (1 << 30, exponent + 1);
        }
        if exponent < FixedPoint::EXPONENTS[0] {
            return FixedPoint::ZERO;
        }
        FixedPoint { mantissa: mantissa as i32, exponent }
    }

    /// `x · factor` with two roundings (R17): the doubled product's high half, ties upwards, then the shift to the
    /// right. An exponent above 0 shifts x to the left first, wrapping in int32.
    #[inline(always)]
    pub(crate) fn multiply(self, x: i32, last: Rounding) -> i32 {
        let (high, shift) = self.high(x);
        last.shift_right(high, shift) as i32
    }

    /// The first rounding of [`multiply`](FixedPoint::multiply), and how far its result is shifted right.
    #[inline(always)]
    pub(crate) fn high(self, x: i32) -> (i64, u32) {
        let left = x.checked_shl(self.exponent.max(0).unsigned_abs()).unwrap_or(0);
        let high = Rounding::Up.shift_right(i64::from(left) * i64::from(self.mantissa), 31);
        (high, self.exponent.min(0).unsigned_abs())
    }

    pub(crate) fn validate(self) -> Result<(), Error> {
        let [lo, hi] = FixedPoint::EXPONENTS;
        for (what, got, lo, hi) in [
            ("multiplier mantissa (unless 0)", self.mantissa, 1 << 30, i32::MAX),
            ("multiplier exponent", self.exponent, lo, hi),
        ] {
            let zero = self.mantissa == 0 && got == 0;
            if !zero && !(lo..=hi).contains(&got) {
                return Err(Error::OutOfRange { what, got: got.into(), lo: lo.into(), hi: hi.into() });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ties_of_each_rounding() {
        let ties = |rounding: Rounding| [1, 3, -1, -3].map(|x| rounding.shift_right(x, 1));
        assert_eq!(ties(Rounding::Even), [0, 2, 0, -2]);
        assert_eq!(ties(Rounding::Away), [1, 2, -1, -2]);
        assert_eq!(ties(Rounding::Up), [1, 2, 0, -1]);
        assert_eq!(Rounding::Away.shift_right(i32::MIN.into(), 31), -1);
        assert_eq!(Rounding::Away.shift_right(1 << 30, 31), 1);
    }

    #[test]
    fn multipliers() {
        let of = |v| (FixedPoint::of(v).mantissa, FixedPoint::of(v).exponent);
        assert_eq!(of(1.0), (1 << 30, 1));
        assert_eq!(of(0.75), (3 << 29, 0));
        // 1 − 2⁻³³ rounds up to 2³¹, which becomes 2³⁰ with the next exponent.
        assert_eq!(of(1.0 - 2.0f64.powi(-33)), (1 << 30, 1));
        // A tie of the mantissa goes away from zero.
        assert_eq!(of(0.5 + 2.0f64.powi(-32)), ((1 << 30) + 1, 0));
        assert_eq!(of(2.0f64.powi(-32)), (1 << 30, -31));
        assert_eq!(of(2.0f64.powi(-33)), (0, 0));
        assert_eq!(of(0.0), (0, 0));
        assert!(FixedPoint::nearest(2.0f64.powi(30)).is_err() && FixedPoint::nearest(-1.0).is_err());
    }

    #[test]
    fn the_last_rounding_tells_the_two_forms_apart() {
        let quarter = FixedPoint::of(0.125);
        assert_eq!([4, -4, 12, -12].map(|x| quarter.multiply(x, Rounding::Away)), [1, -1, 2, -2]);
        assert_eq!([4, -4, 12, -12].map(|x| quarter.multiply(x, Rounding::Up)), [1, 0, 2, -1]);
        // Twice: 3·0.125 = 0.375 → the high half keeps 1.5 of the last two bits → 2 → 2 / 4 = 0.5 → 1.
        assert_eq!(quarter.multiply(3, Rounding::Away), 1);
        assert_eq!(FixedPoint::of(6.0).multiply(-7, Rounding::Away), -42);
        assert_eq!(FixedPoint { mantissa: 1 << 30, exponent: 40 }.multiply(1, Rounding::Up), 0, "wrapped away");
    }
}
