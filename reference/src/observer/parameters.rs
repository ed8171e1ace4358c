//! Rules R33–R35: scale and zero point of a range.

use super::{CodeRange, Range};
use crate::float::{round_ties_even, round_ties_even_f64};
use crate::{Error, Quantization};
use alloc::string::ToString;

/// PyTorch's default for the smallest scale: 2⁻²³.
pub const EPS: f32 = f32::EPSILON;

/// Rule R33: PyTorch's `MinMaxObserver`, affine; for one range a channel, `PerChannelMinMaxObserver`.
///
/// ```text
/// min, max   = the range, extended to hold 0
/// scale      = max( (max − min) / f32(hi − lo), eps )                            f32
/// zero_point = clamp( lo − rne(min / scale), lo, hi )
/// ```
///
/// # Errors
/// An `eps` that is not finite and at least 0; a range so wide that its scale is infinite; a range of 0 without an eps.
pub fn affine(range: Range, codes: CodeRange, eps: f32) -> Result<Quantization, Error> {
    let range = range.with_zero();
    let scale = at_least((range.max() - range.min()) / codes.steps() as f32, eps)?;
    // The quotient lies between −(hi − lo) − 1 and 0: converting it cannot overflow.
    let zero_point = codes.lo() - round_ties_even(range.min() / scale) as i32;
    Quantization::new(scale.into(), zero_point.clamp(codes.lo(), codes.hi()), codes.codes())
}

/// Rule R34: PyTorch's `MinMaxObserver`, symmetric; for one range a channel, `PerChannelMinMaxObserver`.
///
/// ```text
/// scale      = max( max(−min, max, 0) / f32((hi − lo) / 2), eps )                f32; the divisor of all i8 is 127.5
/// zero_point = 0 for signed codes, the middle for unsigned ones
/// ```
///
/// # Errors
/// As [`affine`].
pub fn symmetric(range: Range, codes: CodeRange, eps: f32) -> Result<Quantization, Error> {
    let scale = at_least(range.with_zero().magnitude() / (codes.steps() as f32 / 2.0), eps)?;
    Quantization::new(scale.into(), codes.middle(), codes.codes())
}

fn at_least(scale: f32, eps: f32) -> Result<f32, Error> {
    if eps.is_finite() && eps >= 0.0 {
        Ok(scale.max(eps))
    } else {
        let expected = "a finite number, at least 0".to_string();
        Err(Error::Number { what: "eps, the smallest scale,", got: eps.into(), expected })
    }
}

/// The smallest scale of [`choose`].
const SMALLEST: f32 = 6.1e-5;

/// Rule R35: PyTorch's `ChooseQuantizationParams`, which dynamic quantization uses (`quantize_per_tensor_dynamic`).
/// The scale is f64.
///
/// ```text
/// min, max = the range, extended to hold 0
/// scale    = (f64(max) − f64(min)) / (hi − lo)
/// scale    = 0.1                            where f32(scale) is 0 or its f32 reciprocal infinite
/// where scale < t, t = f32(6.1e-5):         keeping the share of the range that lies below 0
///     min, max = 0, t·f32(hi − lo)          if min was 0
///                −t·f32(hi − lo), 0         else if max was 0
///                min·a, max·a               else; a = t / f32(scale)
///     scale    = f64(t)
/// zero_point from the end x whose | |code| − |x / scale| | was cut off least, which is how PyTorch writes it:
///     z = lo − min / scale                  if |lo| − |min / scale| < |hi| − |max / scale|, without the outer |·|
///         hi − max / scale                  else
///     zero_point = lo if z < lo, hi if z > hi, else rne(z)                       all f64
/// ```
///
/// # Errors
/// A range so wide that its scale is infinite in f32.
pub fn choose(range: Range, codes: CodeRange) -> Result<Quantization, Error> {
    let range = range.with_zero();
    let (lo, hi, steps) = (f64::from(codes.lo()), f64::from(codes.hi()), codes.steps());
    let (mut min, mut max) = (range.min(), range.max());
    let mut scale = (f64::from(max) - f64::from(min)) / f64::from(steps);
    if scale as f32 == 0.0 || (1.0 / scale as f32).is_infinite() {
        scale = 0.1;
    }
    if scale < f64::from(SMALLEST) {
        let amplifier = SMALLEST / scale as f32;
        (min, max) = match (min == 0.0, max == 0.0) {
            (true, _) => (min, SMALLEST * steps as f32),
            (_, true) => (-SMALLEST * steps as f32, max),
            _ => (min * amplifier, max * amplifier),
        };
        scale = SMALLEST.into();
    }
    let (below, above) = (f64::from(min) / scale, f64::from(max) / scale);
    let from_min = lo.abs() - below.abs() < hi.abs() - above.abs();
    let zero_point = if from_min { lo - below } else { hi - above };
    Quantization::new(scale, round_ties_even_f64(zero_point.clamp(lo, hi)) as i32, codes.codes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CodeType;

    fn range(min: f32, max: f32) -> Range {
        Range::new(min, max).unwrap()
    }

    fn numbers(quantization: Result<Quantization, Error>) -> (f32, i32) {
        let quantization = quantization.unwrap();
        (quantization.scale() as f32, quantization.zero_point())
    }

    #[test]
    fn parameters_by_hand() {
        let (u8s, i8s) = (CodeRange::all(CodeType::U8), CodeRange::all(CodeType::I8));
        assert_eq!(numbers(affine(range(-1.0, 2.0), u8s, EPS)), (3.0 / 255.0, 85));
        assert_eq!(numbers(affine(range(-1.0, 2.0), i8s, EPS)), (3.0 / 255.0, -43));
        assert_eq!(numbers(affine(range(1.0, 2.0), u8s, EPS)), (2.0 / 255.0, 0), "extended to 0");
        assert_eq!(numbers(affine(range(-2.0, -1.0), u8s, EPS)), (2.0 / 255.0, 255));
        assert_eq!(numbers(affine(range(0.0, 0.0), u8s, EPS)), (EPS, 0));
        assert_eq!(numbers(symmetric(range(-1.0, 2.0), i8s, EPS)), (2.0 / 127.5, 0));
        assert_eq!(numbers(symmetric(range(-1.0, 0.5), u8s, EPS)), (1.0 / 127.5, 128));
        let reduced = CodeRange::reduced(CodeType::U8).unwrap();
        assert_eq!(numbers(affine(range(-1.0, 1.0), reduced, EPS)), (2.0 / 127.0, 64));
        assert_eq!(numbers(choose(range(-1.0, 2.0), u8s)), (3.0 / 255.0, 85));
        assert_eq!(numbers(choose(range(0.0, 0.0), u8s)), (0.1, 0));
        assert_eq!(numbers(choose(range(0.0, 1e-5), u8s)), (SMALLEST, 0));
    }

    #[test]
    fn zero_points_beside_ties() {
        let i8s = CodeRange::all(CodeType::I8);
        let narrow = CodeRange::new(CodeType::I8, -127, 127).unwrap();
        assert_eq!(numbers(affine(range(-0.5, 254.5), i8s, EPS)), (1.0, -128), "to even, not away");
        assert_eq!(numbers(affine(range(-0.5, 253.5), narrow, EPS)), (1.0, -127), "an odd bound turns no tie");
        // Amplified by an f32, the ends tell of different zero points.
        assert_eq!(numbers(choose(range(-0.00040589194, 0.00020836589), i8s)), (SMALLEST, 40), "the lower end's");
        assert_eq!(numbers(choose(range(-6.2859035e-5, 0.00064954336), i8s)), (SMALLEST, -105), "the upper end's");
    }

    #[test]
    fn parameters_without_meaning_are_refused() {
        let u8s = CodeRange::all(CodeType::U8);
        let widest = range(-f32::MAX, f32::MAX);
        assert!(matches!(affine(widest, u8s, EPS), Err(Error::Scale { .. })), "the width overflows");
        assert!(choose(widest, u8s).is_ok(), "but not in f64");
        assert!(matches!(affine(range(0.0, 0.0), u8s, 0.0), Err(Error::Scale { .. })));
        let one_bit = CodeRange::all(CodeType::new(1, true).unwrap());
        assert!(matches!(symmetric(widest, one_bit, EPS), Err(Error::Scale { .. })));
        for eps in [-1.0, f32::NAN, f32::INFINITY] {
            assert!(matches!(affine(range(0.0, 1.0), u8s, eps), Err(Error::Number { .. })));
        }
    }
}
