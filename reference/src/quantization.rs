//! Scales, zero points and code types; rules R2 (quantize) and R3 (dequantize).

use crate::Error;
use crate::float::cvt;
use alloc::vec::Vec;
use core::fmt;

/// The integers that may stand for real numbers: `bits` wide, signed or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CodeType {
    bits: u8,
    signed: bool,
}

impl CodeType {
    /// 0..=255.
    pub const U8: CodeType = CodeType { bits: 8, signed: false };
    /// −128..=127.
    pub const I8: CodeType = CodeType { bits: 8, signed: true };

    /// Codes of 1 to 8 bits.
    ///
    /// # Errors
    /// Any other width.
    pub fn new(bits: u8, signed: bool) -> Result<CodeType, Error> {
        if (1..=8).contains(&bits) {
            Ok(CodeType { bits, signed })
        } else {
            Err(Error::OutOfRange { what: "bit width of a code", got: bits.into(), lo: 1, hi: 8 })
        }
    }

    /// Width in bits.
    pub fn bits(self) -> u8 {
        self.bits
    }

    /// Whether negative codes exist.
    pub fn is_signed(self) -> bool {
        self.signed
    }

    /// The elements that hold such codes: `i8` or `u8`.
    pub fn element_type(self) -> &'static str {
        if self.signed { "i8" } else { "u8" }
    }

    /// The smallest code.
    pub fn lo(self) -> i32 {
        if self.signed { -(1 << (self.bits - 1)) } else { 0 }
    }

    /// The largest code.
    pub fn hi(self) -> i32 {
        self.lo() + (1 << self.bits) - 1
    }

    /// Checks that `value` is one of these codes.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], naming `what`.
    pub fn check(self, what: &'static str, value: i32) -> Result<(), Error> {
        if (self.lo()..=self.hi()).contains(&value) {
            Ok(())
        } else {
            Err(Error::OutOfRange { what, got: value.into(), lo: self.lo().into(), hi: self.hi().into() })
        }
    }
}

impl fmt::Display for CodeType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.signed { 'i' } else { 'u' }, self.bits)
    }
}

/// Checks that a scale is finite and positive, and still is after rounding to f32.
///
/// # Errors
/// [`Error::Scale`], naming `what`.
pub fn check_scale(what: &'static str, scale: f64) -> Result<(), Error> {
    let usable = scale.is_finite() && scale > 0.0 && (scale as f32).is_finite() && scale as f32 > 0.0;
    if usable { Ok(()) } else { Err(Error::Scale { what, got: scale }) }
}

/// How codes stand for real numbers: `real = scale · (code − zero_point)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantization {
    scale: f64,
    zero_point: i32,
    codes: CodeType,
}

impl Quantization {
    /// A checked quantization.
    ///
    /// # Errors
    /// A scale that is not finite and positive (also as f32), a zero point that is not a code.
    pub fn new(scale: f64, zero_point: i32, codes: CodeType) -> Result<Quantization, Error> {
        check_scale("scale", scale)?;
        codes.check("zero point", zero_point)?;
        Ok(Quantization { scale, zero_point, codes })
    }

    /// Distance between the real numbers of neighbouring codes.
    pub fn scale(self) -> f64 {
        self.scale
    }

    /// The code of the real number 0.
    pub fn zero_point(self) -> i32 {
        self.zero_point
    }

    /// The integers used.
    pub fn codes(self) -> CodeType {
        self.codes
    }

    /// The rule that PyTorch's `quantize_per_tensor` follows (R2).
    pub fn quantize(self) -> Quantize {
        Quantize {
            multiplier: 1.0 / self.scale as f32,
            zero_point: self.zero_point,
            lo: self.codes.lo(),
            hi: self.codes.hi(),
        }
    }

    /// Rule R3: `f32(scale) · f32(code − zero_point)`.
    pub fn dequantize(self, code: i32) -> f32 {
        self.scale as f32 * code.wrapping_sub(self.zero_point) as f32
    }
}

/// Rule R2: `clamp(wrap(cvt(min(x · multiplier, 2147483520)) + zero_point))`.
///
/// Every f32 has a result, NaN and infinities included: the minimum takes NaN to 2147483520, the sum
/// wraps, so that +∞ and NaN give `hi` when the zero point is at most 127 and `lo` when it is larger.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantize {
    /// Reciprocal of the scale.
    pub multiplier: f32,
    /// Added after rounding.
    pub zero_point: i32,
    /// Smallest code.
    pub lo: i32,
    /// Largest code.
    pub hi: i32,
}

/// The largest f32 below 2³¹.
const BELOW_2_31: f32 = 2147483520.0;

impl Quantize {
    /// The code of `x`.
    #[inline(always)]
    pub fn apply(&self, x: f32) -> i32 {
        let t = x * self.multiplier;
        let t = if t < BELOW_2_31 { t } else { BELOW_2_31 };
        cvt(t).wrapping_add(self.zero_point).clamp(self.lo, self.hi)
    }
}

/// Unsigned weights as a [`Layer`](crate::Layer) takes them: codes and zero points less 128.
///
/// Exact, since only differences `q_W − z_W` enter an accumulator (R4).
///
/// # Errors
/// Zero points outside 0..=255.
pub fn signed_weights(codes: &[u8], zero_points: &[i32]) -> Result<(Vec<i8>, Vec<i32>), Error> {
    zero_points.iter().try_for_each(|&zero_point| CodeType::U8.check("weight zero point", zero_point))?;
    // Flipping bit 7 subtracts 128.
    let codes = codes.iter().map(|&code| (code ^ 0x80) as i8).collect();
    Ok((codes, zero_points.iter().map(|&zero_point| zero_point - 128).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_code_types() {
        for (bits, signed, lo, hi) in
            [(8, false, 0, 255), (8, true, -128, 127), (4, true, -8, 7), (2, false, 0, 3), (1, true, -1, 0)]
        {
            let t = CodeType::new(bits, signed).unwrap();
            assert_eq!((t.lo(), t.hi()), (lo, hi));
        }
        assert!(CodeType::new(0, true).is_err() && CodeType::new(9, false).is_err());
    }

    #[test]
    fn a_quantization_is_checked() {
        for scale in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e-60, 1e60] {
            assert!(matches!(Quantization::new(scale, 0, CodeType::U8), Err(Error::Scale { .. })), "{scale}");
        }
        assert!(Quantization::new(1.0, 256, CodeType::U8).is_err());
        assert!(Quantization::new(1.0, -129, CodeType::I8).is_err());
    }

    #[test]
    fn infinities_and_nan_follow_the_rule() {
        let quantize =
            |x: f32, zero_point| Quantization::new(0.5, zero_point, CodeType::U8).unwrap().quantize().apply(x);
        for x in [f32::INFINITY, f32::NAN, 3e38] {
            assert_eq!(quantize(x, 127), 255);
            assert_eq!(quantize(x, 128), 0);
        }
        assert_eq!(quantize(f32::NEG_INFINITY, 128), 0);
        assert_eq!(quantize(0.25, 10), 10, "0.5 ties to the even 0");
        assert_eq!(quantize(0.75, 10), 12, "1.5 ties to the even 2");
    }

    #[test]
    fn unsigned_weights_keep_their_differences() {
        let (codes, zero_points) = signed_weights(&[0, 127, 128, 255], &[200]).unwrap();
        assert_eq!(codes, [-128, -1, 0, 127]);
        assert_eq!(zero_points, [72]);
        assert!(signed_weights(&[], &[256]).is_err() && signed_weights(&[], &[-1]).is_err());
    }

    /// Beside ties a product with the f32 reciprocal of the f32 scale is neither a quotient nor a product with the
    /// reciprocal of the f64 scale.
    #[test]
    fn quantizing_multiplies_with_the_reciprocal_of_the_f32_scale() {
        use crate::float::round_ties_even;
        let mut apart = [0; 2];
        for i in 0..1000 {
            let scale = 0.01 + f64::from(i) * 1.234567890123e-5;
            let (rule, s) = (Quantization::new(scale, 0, CodeType::U8).unwrap().quantize(), scale as f32);
            for k in 0..200u8 {
                let x = (f32::from(k) + 0.5) * s;
                let want = round_ties_even(x * (1.0 / s));
                assert_eq!(rule.apply(x), want as i32);
                apart[0] += u32::from(want != round_ties_even(x / s));
                apart[1] += u32::from(want != round_ties_even(x * (1.0 / scale) as f32));
            }
        }
        assert!(apart.iter().all(|&n| n > 0), "{apart:?}");
    }

    #[test]
    fn dequantizing_multiplies_the_f32_scale_and_the_difference() {
        let mut apart = [0; 2];
        for i in 0..100 {
            let scale = 0.01 + f64::from(i) * 1.234567890123e-5;
            let (q, s) = (Quantization::new(scale, 77, CodeType::U8).unwrap(), scale as f32);
            for code in 0..256 {
                let want = s * (code - 77) as f32;
                assert_eq!(q.dequantize(code), want);
                apart[0] += u32::from(want != (scale * f64::from(code - 77)) as f32);
                apart[1] += u32::from(want != s * code as f32 - s * 77.0);
            }
        }
        assert!(apart.iter().all(|&n| n > 0), "{apart:?}");
    }
}
