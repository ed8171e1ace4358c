//! Rule R39: quantization as text books and papers write it down. Runtimes compute something else (R2, R33, R34).

use super::{CodeRange, Range};
use crate::float::round_ties_even;
use crate::{CodeType, Error, Quantization};

/// Restricted symmetric: `S = max(|min|, |max|) / hi` and `z = 0`, for codes `−hi..=hi`; −127..=127 of i8. The code
/// −128 is not used, so that the codes of x and −x are each other's negatives.
///
/// # Errors
/// [`Error::Scale`]: a range that holds nothing but 0. A type without negative codes, or of one bit.
pub fn symmetric(range: Range, codes: CodeType) -> Result<(Quantization, CodeRange), Error> {
    let codes = CodeRange::new(codes, -codes.hi(), codes.hi())?;
    let scale = range.magnitude() / codes.hi() as f32;
    Ok((Quantization::new(scale.into(), 0, codes.codes())?, codes))
}

/// Affine, without extending the range: `S = (max − min) / (hi − lo)`, `z = rne(lo − min / S)`.
///
/// A range that does not contain 0 may have no zero point: then 0 has no code, and layers could not pad with it.
///
/// # Errors
/// [`Error::Scale`]: a range of one number. [`Error::OutOfRange`]: a zero point that is not a code.
pub fn affine(range: Range, codes: CodeType) -> Result<Quantization, Error> {
    let steps = (codes.hi() - codes.lo()) as f32;
    let scale = (range.max() - range.min()) / steps;
    // The conversion saturates; what is not a code is refused.
    let zero_point = round_ties_even(codes.lo() as f32 - range.min() / scale) as i32;
    Quantization::new(scale.into(), 0, codes)?;
    Quantization::new(scale.into(), zero_point, codes)
}

/// The code of `x`, the zero point inside the rounding: `rne( clamp( x / S + z, lo, hi ) )`, all in f32; NaN gives
/// `lo`.
///
/// On ties it differs from R2 where z is odd: the sum goes to the even integer, not the quotient.
pub fn quantize(x: f32, quantization: Quantization) -> i32 {
    let (lo, hi) = (quantization.codes().lo() as f32, quantization.codes().hi() as f32);
    let v = x / quantization.scale() as f32 + quantization.zero_point() as f32;
    // A NaN fails the first comparison.
    let v = if v > lo { v } else { lo };
    round_ties_even(if v < hi { v } else { hi }) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(min: f32, max: f32) -> Range {
        Range::new(min, max).unwrap()
    }

    #[test]
    fn restricted_symmetric() {
        let (quantization, codes) = symmetric(range(-2.54, 1.0), CodeType::I8).unwrap();
        assert_eq!((quantization.scale() as f32, quantization.zero_point()), (2.54 / 127.0, 0));
        assert_eq!((codes.lo(), codes.hi()), (-127, 127));
        let (four_bits, codes) = symmetric(range(-7.0, 7.0), CodeType::new(4, true).unwrap()).unwrap();
        assert_eq!((four_bits.scale(), codes.lo(), codes.hi()), (1.0, -7, 7));
        assert!(matches!(symmetric(range(0.0, 0.0), CodeType::I8), Err(Error::Scale { .. })));
        assert!(symmetric(range(-1.0, 1.0), CodeType::U8).is_err());
        assert!(symmetric(range(-1.0, 1.0), CodeType::new(1, true).unwrap()).is_err());
    }

    #[test]
    fn ranges_as_they_are() {
        let quantization = affine(range(-1.0, 1.55), CodeType::U8).unwrap();
        assert_eq!((quantization.scale() as f32, quantization.zero_point()), (0.01, 100));
        assert!(matches!(affine(range(10.0, 20.0), CodeType::U8), Err(Error::OutOfRange { .. })));
        assert!(matches!(affine(range(-2e30, -1e30), CodeType::I8), Err(Error::OutOfRange { .. })));
        for point in [0.0, 1.0, -1.0] {
            assert!(matches!(affine(range(point, point), CodeType::U8), Err(Error::Scale { .. })));
        }
        assert!(matches!(affine(range(-f32::MAX, f32::MAX), CodeType::U8), Err(Error::Scale { .. })));
    }

    #[test]
    fn the_zero_point_inside_the_rounding_turns_ties() {
        let quantization = Quantization::new(0.5, 7, CodeType::U8).unwrap();
        assert_eq!(quantize(0.25, quantization), 8, "7.5");
        assert_eq!(quantization.quantize().apply(0.25), 7, "0.5 + 7");
        let ends = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e30, -1e30].map(|x| quantize(x, quantization));
        assert_eq!(ends, [255, 0, 0, 255, 0]);
    }
}
