//! Rule R31: scale and zero point from the range of the data, as dynamic quantization chooses them. Codes are u8.

use crate::float::round_ties_even;
use crate::observer::{self, CodeRange, Range};
use crate::{CodeType, Error, Quantization};

/// Smallest and largest element, extended to contain 0. NaNs take no part.
pub fn range(x: &[f32]) -> [f32; 2] {
    x.iter().fold([0.0, 0.0], |[lo, hi], &x| [lo.min(x), hi.max(x)])
}

/// PyTorch's choice (R35); with `reduce_range` the range is mapped to 0..=127 (and the codes stay u8).
///
/// # Errors
/// A range that is not finite.
pub fn torch([lo, hi]: [f32; 2], reduce_range: bool) -> Result<Quantization, Error> {
    let codes = if reduce_range { CodeRange::reduced(CodeType::U8)? } else { CodeRange::all(CodeType::U8) };
    observer::choose(Range::new(lo, hi)?, codes)
}

/// ONNX's DynamicQuantizeLinear, all in f32.
///
/// ```text
/// s = (hi − lo) / 255, 1 if lo = hi;     z = clamp(rne(0 − lo / s), 0, 255)
/// ```
///
/// # Errors
/// A range that is not finite, or so small that the scale is 0.
pub fn onnx(range: [f32; 2]) -> Result<Quantization, Error> {
    let [lo, hi] = [range[0].min(0.0), range[1].max(0.0)];
    let scale = if lo == hi { 1.0 } else { (hi - lo) / 255.0 };
    let zero_point = round_ties_even(0.0 - lo / scale) as i32;
    Quantization::new(scale.into(), zero_point.clamp(0, 255), CodeType::U8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(q: Result<Quantization, Error>) -> (f64, i32) {
        let q = q.unwrap();
        (q.scale(), q.zero_point())
    }

    #[test]
    fn ranges_contain_zero() {
        assert_eq!(range(&[1.0, 3.0, f32::NAN]), [0.0, 3.0]);
        assert_eq!(range(&[-1.0, -3.0]), [-3.0, 0.0]);
        assert_eq!(range(&[]), [0.0, 0.0]);
    }

    #[test]
    fn torch_chooses() {
        assert_eq!(of(torch([0.0, 255.0], false)), (1.0, 0));
        assert_eq!(of(torch([-127.0, 0.0], true)), (1.0, 127));
        // The quotient is an f64.
        assert_eq!(of(torch([0.0, 1.0], false)).0, 1.0 / 255.0);
        assert_eq!(of(torch([0.0, 0.0], false)), (0.1, 0));
        assert_eq!(of(torch([0.0, 1e-3], false)), (f64::from(6.1e-5f32), 0));
        assert_eq!(of(torch([-1e-3, 0.0], false)), (f64::from(6.1e-5f32), 255));
        assert_eq!(of(torch([-1e-3, 1e-3], false)).1, 128, "127.5 to the even");
        assert_eq!(of(torch([-126.5, 128.5], false)), (1.0, 126), "126.5 to the even");
        assert!(torch([0.0, f32::INFINITY], false).is_err());
        assert!(torch([f32::MIN, f32::MAX], false).is_ok(), "the difference is taken in f64");
    }

    #[test]
    fn onnx_chooses() {
        assert_eq!(of(onnx([0.0, 0.0])), (1.0, 0));
        assert_eq!(of(onnx([-1.0, 1.0])).0, f64::from(2.0f32 / 255.0));
        assert_eq!(of(onnx([-1.0, 0.0])).1, 255);
        assert_eq!(of(onnx([-0.5, 254.5])).1, 0, "a tie to the even");
        assert!(onnx([f32::MIN, f32::MAX]).is_err());
    }
}
