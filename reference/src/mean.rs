//! Rule R30: average pools of runtimes other than PyTorch's own kernels (those are R12).

use crate::float::{clamp, cvt};
use crate::operand::Code;
use crate::pool::{Divisor, Pool, average_windows};
use crate::quantizer::{DequantizeForm, Dequantizer};
use crate::{Error, Quantization};
use alloc::vec::Vec;

/// How the codes of a window become the code of their mean. Sums are over the `k` pixels inside the image, in the
/// order depth, height, width; `n` is the divisor; `acc = Σ (q − z_X)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mean {
    /// QNNPACK: `clamp(cvt(f32(acc) · m) + z_Y)`, `m = f32(S_X) / (f32(S_Y) · f32(n))`.
    Scaled {
        /// S_X, z_X
        input: Quantization,
        /// S_Y, z_Y
        output: Quantization,
    },
    /// ONNX Runtime's global pool: `rne(clamp(f32(acc) · m, lo − z_Y, hi − z_Y)) + z_Y`, m as above.
    ClampFirst {
        /// S_X, z_X
        input: Quantization,
        /// S_Y, z_Y
        output: Quantization,
    },
    /// ONNX Runtime's window pool, in f32: the sum of `S_X·f32(q − z_X)` in order, divided by `f32(n)`, then
    /// `clamp(cvt(v / S_Y + f32(z_Y)))`.
    Real {
        /// S_X, z_X
        input: Quantization,
        /// S_Y, z_Y
        output: Quantization,
    },
    /// TFLite: `clamp(Σ q / n)` to the nearest integer, ties away from zero; the zero point takes no part.
    Integer {
        /// Smallest and largest code.
        clamp: [i32; 2],
    },
}

impl Mean {
    /// The code of a window of codes; `n` is at least 1.
    pub fn apply(&self, codes: impl Iterator<Item = i32>, n: usize) -> i32 {
        let add = |(sum, inside), q| (sum + i64::from(q), inside + 1);
        match *self {
            Mean::Scaled { input, output } => scaled_mean(codes.fold((0, 0), add), n, input, output),
            Mean::ClampFirst { input, output } => clamp_first_mean(codes.fold((0, 0), add), n, input, output),
            Mean::Real { input, output } => {
                let from = Dequantizer::new(DequantizeForm::Difference, input);
                real_mean(codes.fold(0.0, |sum, q| sum + from.apply(q)), n, output)
            }
            Mean::Integer { clamp } => integer_mean(codes.fold((0, 0), add).0, n, clamp),
        }
    }
}

/// [`Mean::Scaled`] of a window, of whose codes `sum` is the sum and the number.
#[inline(always)]
pub fn scaled_mean(sum: (i64, usize), n: usize, input: Quantization, output: Quantization) -> i32 {
    let (codes, z) = (output.codes(), output.zero_point());
    cvt(scaled(sum, n, input, output)).saturating_add(z).clamp(codes.lo(), codes.hi())
}

/// [`Mean::ClampFirst`] of a window, of whose codes `sum` is the sum and the number.
#[inline(always)]
pub fn clamp_first_mean(sum: (i64, usize), n: usize, input: Quantization, output: Quantization) -> i32 {
    let (codes, z) = (output.codes(), output.zero_point());
    // A NaN gives the lower bound.
    cvt(clamp(scaled(sum, n, input, output), (codes.lo() - z) as f32, (codes.hi() - z) as f32)) + z
}

/// `f32(acc) · m`.
#[inline(always)]
fn scaled((sum, inside): (i64, usize), n: usize, input: Quantization, output: Quantization) -> f32 {
    let acc = (sum as i32).wrapping_sub((inside as i32).wrapping_mul(input.zero_point()));
    acc as f32 * (input.scale() as f32 / (output.scale() as f32 * n as f32))
}

/// [`Mean::Integer`] of a window whose codes sum to `sum`.
#[inline(always)]
pub fn integer_mean(sum: i64, n: usize, [lo, hi]: [i32; 2]) -> i32 {
    let n = (n as i64).max(1);
    let magnitude = (sum.abs() + n / 2) / n;
    (if sum < 0 { -magnitude } else { magnitude }).clamp(lo.into(), hi.into()) as i32
}

/// [`Mean::Real`] of a window whose real numbers, added in order, are `sum`.
#[inline(always)]
pub fn real_mean(sum: f32, n: usize, output: Quantization) -> i32 {
    let v = sum / n as f32 / output.scale() as f32 + output.zero_point() as f32;
    cvt(v).clamp(output.codes().lo(), output.codes().hi())
}

/// The mean of each window. `input` is `[batch, depth, height, width, channels]`, and so is the result.
///
/// # Errors
/// As [`Pool::output_extents`]; an input of the wrong length, a dilation, a divisor of zero.
pub fn mean_pool<T: Code>(pool: &Pool, divisor: Divisor, mean: &Mean, input: &[T]) -> Result<Vec<T>, Error> {
    average_windows(pool, divisor, input, |codes, _, n| mean.apply(codes, n))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Axis, CodeType};

    fn u8(scale: f64, zero_point: i32) -> Quantization {
        Quantization::new(scale, zero_point, CodeType::U8).unwrap()
    }

    fn mean(mean: Mean, codes: &[i32]) -> i32 {
        mean.apply(codes.iter().copied(), codes.len())
    }

    #[test]
    fn ties() {
        let q = u8(1.0, 7);
        let ties = |m| [[7, 8], [8, 9], [7, 6]].map(|codes| mean(m, &codes));
        assert_eq!(ties(Mean::Scaled { input: q, output: q }), [7, 9, 7]);
        assert_eq!(ties(Mean::ClampFirst { input: q, output: q }), [7, 9, 7]);
        assert_eq!(ties(Mean::Real { input: q, output: q }), [8, 8, 6], "the zero point takes part");
        let integer = Mean::Integer { clamp: [-128, 127] };
        assert_eq!(ties(integer), [8, 9, 7]);
        assert_eq!([[-7, -8], [-7, -6]].map(|codes| mean(integer, &codes)), [-8, -7], "away from zero");
    }

    /// Beside ties.
    #[test]
    fn every_division_matters() {
        let q = u8(0.9606693387031555, 0);
        for m in [Mean::Scaled { input: q, output: q }, Mean::ClampFirst { input: q, output: q }] {
            assert_eq!(mean(m, &[195, 195, 195, 195, 195, 198]), 195, "S / (S·6), not (S / S) / 6");
        }
        let m = Mean::Real { input: u8(0.9380590319633484, 0), output: u8(1.8761180639266968, 0) };
        assert_eq!(mean(m, &[180, 78, 237]), 82, "by the count, then by the scale");
    }

    #[test]
    fn overflow() {
        let (input, output) = (u8(1e30, 0), u8(1e-8, 3));
        assert_eq!(mean(Mean::Scaled { input, output }, &[1]), 0, "converted");
        assert_eq!(mean(Mean::ClampFirst { input, output }, &[1]), 255, "clamped");
    }

    #[test]
    fn padding_counts_as_the_divisor_says() {
        let axis = Axis { input: 2, kernel: 2, stride: 1, padding: [1; 2], dilation: 1 };
        let pool = Pool { batch: 1, channels: 1, axes: [Axis::UNIT, Axis::UNIT, axis], ceil_mode: false };
        let q = u8(1.0, 10);
        let scaled = Mean::Scaled { input: q, output: q };
        assert_eq!(mean_pool(&pool, Divisor::Padded, &scaled, &[20u8, 30]).unwrap(), [15, 25, 20]);
        let integer = Mean::Integer { clamp: [0, 255] };
        assert_eq!(mean_pool(&pool, Divisor::Image, &integer, &[20u8, 31]).unwrap(), [20, 26, 31]);
    }

    /// Sums in f32, pixel by pixel, divided by the count and then by the scale.
    #[test]
    fn windows_of_reals_round_after_every_step() {
        use crate::float::round_ties_even;
        let (mut apart, mut state) = ([0; 2], 1u32);
        for i in 0..20_000u16 {
            let mut random = || {
                state = state.wrapping_mul(1664525).wrapping_add(1013904223);
                (state >> 24) as i32
            };
            let codes: [i32; 6] = core::array::from_fn(|_| random());
            // Twice the input's scale: ties are frequent.
            let s = (0.01 + f64::from(i) * 1e-5) as f32;
            let (input, output) = (u8(s.into(), 3), u8((2.0 * s).into(), 0));
            let code = |v: f32| round_ties_even(v) as i32;
            let sum = codes.iter().fold(0.0, |sum, &q| sum + s * (q - 3) as f32);
            let got = mean(Mean::Real { input, output }, &codes);
            assert_eq!(got, code(sum / 6.0 / (2.0 * s)).clamp(0, 255));
            apart[0] += u32::from(got != code(sum / (2.0 * s) / 6.0).clamp(0, 255));
            let exact: f64 = codes.iter().map(|&q| f64::from(s * (q - 3) as f32)).sum();
            apart[1] += u32::from(got != code(exact as f32 / 6.0 / (2.0 * s)).clamp(0, 255));
        }
        assert!(apart.iter().all(|&n| n > 0), "{apart:?}");
    }
}
