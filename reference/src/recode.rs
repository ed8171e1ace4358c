//! Rule R28: from codes of one scale to codes of another.

use crate::fixed_point::{FixedPoint, Rounding};
use crate::float::round_ties_even;
use crate::quantizer::{Dequantizer, Quantizer};
use crate::{Error, Quantization};

/// How a code is converted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Recode {
    /// `quantize(dequantize(q))` in f32.
    Real {
        /// R23
        dequantize: Dequantizer,
        /// R22
        quantize: Quantizer,
    },
    /// `clamp(((q − z_X)·m + (z_Y << 8) + 128) >> 8)`: a multiplier with 8 fractional bits only, ties up.
    EightBits {
        /// `rne(256 · (f32(S_X) / f32(S_Y)))`
        multiplier: i32,
        /// z_X
        input_zero_point: i32,
        /// z_Y
        zero_point: i32,
        /// Smallest and largest code.
        clamp: [i32; 2],
    },
    /// `clamp(M·(q − z_X) + z_Y)`, the fixed-point product rounded twice.
    FixedPoint {
        /// M, of the f64 quotient of the f32 scales.
        multiplier: FixedPoint,
        /// The second rounding.
        rounding: Rounding,
        /// z_X
        input_zero_point: i32,
        /// z_Y
        zero_point: i32,
        /// Smallest and largest code.
        clamp: [i32; 2],
    },
}

impl Recode {
    /// XNNPACK.
    ///
    /// # Errors
    /// A ratio of scales outside 2⁻⁸..=2⁷.
    pub fn xnnpack(x: Quantization, y: Quantization) -> Result<Recode, Error> {
        let ratio = x.scale() as f32 / y.scale() as f32;
        if !(0.00390625..=128.0).contains(&ratio) {
            let expected = "at least 2^-8 and at most 2^7";
            return Err(Error::Ratio { what: "ratio of the scales of x and y", got: ratio.into(), expected });
        }
        Ok(Recode::EightBits {
            multiplier: round_ties_even(256.0 * ratio) as i32,
            input_zero_point: x.zero_point(),
            zero_point: y.zero_point(),
            clamp: [y.codes().lo(), y.codes().hi()],
        })
    }

    /// TFLite: ties of the second rounding go away from zero in the reference and in the scalar tail, up in the vector
    /// body (16 codes) on x86.
    pub fn tflite(x: Quantization, y: Quantization, rounding: Rounding) -> Recode {
        Recode::FixedPoint {
            multiplier: FixedPoint::of(f64::from(x.scale() as f32) / f64::from(y.scale() as f32)),
            rounding,
            input_zero_point: x.zero_point(),
            zero_point: y.zero_point(),
            clamp: [y.codes().lo(), y.codes().hi()],
        }
    }

    /// The code of the other scale.
    #[inline(always)]
    pub fn apply(&self, code: i32) -> i32 {
        match *self {
            Recode::Real { dequantize, quantize } => quantize.apply(dequantize.apply(code)),
            Recode::EightBits { multiplier, input_zero_point, zero_point, clamp: [lo, hi] } => {
                let product = code.wrapping_sub(input_zero_point).wrapping_mul(multiplier);
                (product.wrapping_add(zero_point << 8).wrapping_add(128) >> 8).clamp(lo, hi)
            }
            Recode::FixedPoint { multiplier, rounding, input_zero_point, zero_point, clamp: [lo, hi] } => {
                let scaled = multiplier.multiply(code.wrapping_sub(input_zero_point), rounding);
                scaled.saturating_add(zero_point).clamp(lo, hi)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CodeType;

    fn i8(scale: f64, zero_point: i32) -> Quantization {
        Quantization::new(scale, zero_point, CodeType::I8).unwrap()
    }

    #[test]
    fn ties() {
        let (x, y) = (i8(0.25, 1), i8(1.0, 7));
        let ties = |rule: Recode| [3, 7, -1, -5].map(|q| rule.apply(q));
        assert_eq!(ties(Recode::xnnpack(x, y).unwrap()), [8, 9, 7, 6], "up");
        assert_eq!(ties(Recode::tflite(x, y, Rounding::Up)), [8, 9, 7, 6]);
        assert_eq!(ties(Recode::tflite(x, y, Rounding::Away)), [8, 9, 6, 5]);
    }

    #[test]
    fn eight_bits_only() {
        // 1/3 becomes 85/256: 100/3 = 33.3 is 33, but 126·85/256 = 41.8 where 126/3 = 42.
        let rule = Recode::xnnpack(i8(1.0, 0), i8(3.0, 0)).unwrap();
        assert_eq!(rule, Recode::EightBits { multiplier: 85, input_zero_point: 0, zero_point: 0, clamp: [-128, 127] });
        assert_eq!((rule.apply(100), rule.apply(127)), (33, 42));
        assert!(matches!(Recode::xnnpack(i8(1.0, 0), i8(1000.0, 0)), Err(Error::Ratio { .. })));
    }

    #[test]
    fn quotients() {
        let rule = Recode::xnnpack(i8(1.0, 0), i8(1.5, 0)).unwrap();
        assert!(matches!(rule, Recode::EightBits { multiplier: 171, .. }), "170.67 to the nearest");
        let u8 = |scale| Quantization::new(scale, 0, CodeType::U8).unwrap();
        let rule = Recode::tflite(u8(0.8869117498397827), u8(1.0642940998077393), Rounding::Away);
        assert_eq!(rule.apply(177), 148, "in f64; the f32 quotient gives 147");
    }

    #[test]
    fn saturates() {
        let rule = Recode::tflite(i8(100.0, 0), i8(1.0, 0), Rounding::Up);
        assert_eq!([2, -2].map(|q| rule.apply(q)), [127, -128]);
    }
}
