//! oneDNN, as PyTorch calls it.

use super::{Scales, WeightScale};
use crate::quantization::check_scale;
use crate::requantize::{Codes, F32Real, RealOutput, Sum};
use crate::{CodeType, Conv, Error};
use alloc::vec::Vec;

/// A scale that went through its reciprocal, in f64, and back: `f32(1) / f32(f64(1) / S)`.
pub(super) fn twice_f64(scale: f64) -> f32 {
    1.0 / (1.0 / scale) as f32
}

/// A scale that went through its reciprocal, in f32, and back: `f32(1) / (f32(1) / f32(S))`.
fn twice_f32(scale: f64) -> f32 {
    1.0 / (1.0 / scale as f32)
}

/// R16 with `scale[c] = s_x · s_w[c]` and `multiplier = f32(1) / s_y`.
fn rule(
    scales: Scales<'_>,
    (s_x, s_w, s_y): (f32, Vec<f32>, f32),
    bias: Option<&[f32]>,
    clip: Option<[f32; 2]>,
) -> Result<F32Real, Error> {
    let codes = Codes::new(scales.output.zero_point(), scales.output.codes())?;
    Ok(F32Real {
        scale: s_w.into_iter().map(|s_w| s_x * s_w).collect(),
        bias: bias.unwrap_or_default().to_vec(),
        sum: Sum::None,
        clip,
        output: RealOutput::Codes { multiplier: 1.0 / s_y, codes },
    })
}

fn relu_clip(relu: bool) -> Option<[f32; 2]> {
    if relu { F32Real::RELU } else { None }
}

/// PyTorch's onednn engine, linear layers: R16. PyTorch stores reciprocals, which are inverted once more.
///
/// ```text
/// scale[c]   = r64(S_X) · s_w[c],  s_w = r64(S_W) for one weight scale, r32(S_W[c]) for one a channel
/// multiplier = f32(1) / r64(S_Y)
/// r64(S) = f32(1) / f32(f64(1) / S)        r32(S) = f32(1) / (f32(1) / f32(S))
/// ```
///
/// # Errors
/// Scales that are not finite and positive.
pub fn onednn_linear(scales: Scales<'_>, bias: Option<&[f32]>, relu: bool) -> Result<F32Real, Error> {
    scales.check()?;
    let s_w = match scales.weight {
        WeightScale::PerTensor(_) => scales.map(twice_f64),
        WeightScale::PerChannel(_) => scales.map(twice_f32),
    };
    rule(scales, (twice_f64(scales.input), s_w, twice_f64(scales.output.scale())), bias, relu_clip(relu))
}

/// PyTorch's onednn engine, convolutions: R16.
///
/// ```text
/// scale[c]   = r64(S_X) · f32(S_W[c])                r64 as in onednn_linear
/// multiplier = f32(1) / r64(S_Y)
/// ```
///
/// # Errors
/// Scales that are not finite and positive.
pub fn onednn_conv(scales: Scales<'_>, bias: Option<&[f32]>, relu: bool) -> Result<F32Real, Error> {
    scales.check()?;
    let s_w = scales.map(|s_w| s_w as f32);
    rule(scales, (twice_f64(scales.input), s_w, twice_f64(scales.output.scale())), bias, relu_clip(relu))
}

/// The sum of PyTorch's `quantized::conv2d_add`: `scale = f32(1) / (f32(1) / f32(S))`.
///
/// # Errors
/// A scale that is not finite and positive.
pub fn onednn_sum(scale: f64, zero_point: i32, codes: CodeType) -> Result<Sum, Error> {
    check_scale("addend scale", scale)?;
    Ok(Sum::Codes { scale: twice_f32(scale), zero_point, codes })
}

/// PyTorch's `onednn.qconv*_pointwise` and `onednn.qlinear_pointwise`, to which its export lowers models for x86: R16.
///
/// ```text
/// scale[c]   = f32(S_X) · f32(S_W[c])
/// multiplier = f32(1) / f32(S_Y)
/// ```
///
/// Sums have the scale f32(S).
///
/// # Errors
/// Scales that are not finite and positive.
pub fn pt2e(scales: Scales<'_>, bias: Option<&[f32]>, clip: Option<[f32; 2]>) -> Result<F32Real, Error> {
    scales.check()?;
    let s_w = scales.map(|s_w| s_w as f32);
    rule(scales, (scales.input as f32, s_w, scales.output.scale() as f32), bias, clip)
}

/// Whether PyTorch's x86 engine (2.5, on a CPU with AVX-512-VNNI) gives a *convolution* to oneDNN ([`onednn_conv`])
/// rather than to fbgemm: at most 100 groups and no weight zero point other than 0. Linear layers always go to fbgemm.
pub fn x86_takes_onednn(shape: &Conv, weight_zero_points: &[i32]) -> bool {
    shape.groups <= 100 && weight_zero_points.iter().all(|&zero_point| zero_point == 0)
}
