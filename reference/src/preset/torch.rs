//! PyTorch's engines fbgemm and qnnpack.

use super::{Scales, WeightScale};
use crate::Error;
use crate::float::round_ties_even;
use crate::requantize::{Bias, F32Mul};
use alloc::vec::Vec;

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
    scales.check()?;
    Ok(fbgemm_unchecked(scales, bias, relu))
}

/// [`fbgemm`] for any scales, also those (zero, infinite, NaN) that a runtime computes with although they mean nothing.
///
/// # Panics
/// If the zero point is not a code of the output, which [`Quantization`](crate::Quantization) excludes.
pub fn fbgemm_unchecked(scales: Scales<'_>, bias: Option<&[f32]>, relu: bool) -> F32Mul {
    let s_aw = scales.map(|s_w| scales.input as f32 * s_w as f32);
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

/// PyTorch's qnnpack engine, linear and convolution: R6 with an int32 bias (R8a).
///
/// ```text
/// bias_q[c]     = rne( f32(bias[c]) · (f32(1) / f32(f64(S_W[c]) · f64(S_X))) )      clamped to int32; NaN → −2³¹
/// multiplier[c] = (f32(S_W[c]) · f32(S_X)) · (f32(1) / f32(S_Y))                    a product with the reciprocal
/// ```
///
/// # Errors
/// Scales that are not finite and positive, a multiplier that is 0, subnormal or infinite (which the runtime refuses
/// too), a bias that is not one number a channel where there is a scale a channel.
pub fn qnnpack(scales: Scales<'_>, bias: Option<&[f32]>, relu: bool) -> Result<F32Mul, Error> {
    scales.check()?;
    let inverse = 1.0 / scales.output.scale() as f32;
    let multiplier = scales.map(|s_w| s_w as f32 * scales.input as f32 * inverse);
    if let Some(&m) = multiplier.iter().find(|m| !m.is_normal()) {
        return Err(Error::Scale { what: "multiplier (S_X · S_W / S_Y)", got: m.into() });
    }
    let bias = bias.map_or(Ok(Bias::None), |bias| {
        let reciprocals: Vec<f32> = scales.map(|s_w| 1.0 / (s_w * scales.input) as f32);
        crate::operand::expect_one_or("weight scale", reciprocals.len(), bias.len())?;
        let quantize = |(c, &b): (usize, &f32)| {
            let v = round_ties_even(b * crate::operand::per_channel(&reciprocals, c));
            // Casts saturate.
            if v.is_nan() { i32::MIN } else { v as i32 }
        };
        Ok(Bias::I32(bias.iter().enumerate().map(quantize).collect()))
    })?;
    let rule = F32Mul::new(multiplier, bias, scales.output.zero_point(), scales.output.codes())?;
    Ok(if relu { rule.relu() } else { rule })
}
