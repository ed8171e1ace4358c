//! Presets: how a runtime derives the parameters of a rule from scales. They compute parameters and
//! nothing else; what is computed with them is in the rules.

use crate::quantization::check_scale;
use crate::requantize::{Bias, F32Mul};
use crate::{Error, Quantization};
use alloc::vec::Vec;

/// The scales of a layer.
#[derive(Clone, Copy, Debug)]
pub struct Scales<'a> {
    /// S_X
    pub input: f64,
    /// S_W
    pub weight: WeightScale<'a>,
    /// S_Y, z_Y and the codes of the output.
    pub output: Quantization,
}

/// S_W. A runtime may treat one scale for all channels differently from equal scales.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum WeightScale<'a> {
    /// One scale.
    PerTensor(f64),
    /// One scale an output channel.
    PerChannel(&'a [f64]),
}

impl WeightScale<'_> {
    pub(crate) fn as_slice(&self) -> &[f64] {
        match self {
            WeightScale::PerTensor(scale) => core::slice::from_ref(scale),
            WeightScale::PerChannel(scales) => scales,
        }
    }
}

/// PyTorch's fbgemm engine, linear and convolution: R7, and R8c for one weight scale, R8b for one a channel.
///
/// ```text
/// s_aw[c]       = f32(S_X) · f32(S_W[c])
/// multiplier[c] = s_aw[c] / f32(S_Y)                     a division, not a product with the reciprocal
/// per tensor :  fused bias, reciprocal = f32(1 / f64(s_aw))
/// per channel:  addend[c] = bias[c] / s_aw[c]
/// ```
///
/// # Errors
/// Scales that are not finite and positive.
pub fn fbgemm(scales: Scales<'_>, bias: Option<&[f32]>, relu: bool) -> Result<F32Mul, Error> {
    check_scale("input scale", scales.input)?;
    for &scale in scales.weight.as_slice() {
        check_scale("weight scale", scale)?;
    }
    Ok(fbgemm_unchecked(scales, bias, relu))
}

/// [`fbgemm`] for any scales, also those (zero, infinite, NaN) that a runtime computes with although they mean nothing.
///
/// # Panics
/// If the zero point is not a code of the output, which [`Quantization`] excludes.
pub fn fbgemm_unchecked(scales: Scales<'_>, bias: Option<&[f32]>, relu: bool) -> F32Mul {
    let s_aw: Vec<f32> = scales.weight.as_slice().iter().map(|&s_w| scales.input as f32 * s_w as f32).collect();
    let multiplier = s_aw.iter().map(|s_aw| s_aw / scales.output.scale() as f32).collect();
    let bias = match (bias, scales.weight) {
        (None, _) => Bias::None,
        (Some(bias), WeightScale::PerTensor(_)) => Bias::Fused {
            bias: bias.to_vec(),
            reciprocal: s_aw.iter().map(|&s_aw| (1.0 / f64::from(s_aw)) as f32).collect(),
        },
        (Some(bias), WeightScale::PerChannel(_)) => Bias::Addend(bias.iter().zip(&s_aw).map(|(b, s)| b / s).collect()),
    };
    let rule = F32Mul::new(multiplier, bias, scales.output.zero_point(), scales.output.codes())
        .expect("a Quantization's zero point is one of its codes");
    if relu { rule.relu() } else { rule }
}
