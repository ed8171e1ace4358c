//! Runtimes with int32 biases whose multipliers are fixed-point numbers, or alternatives to such: XNNPACK, TFLite,
//! gemmlowp, Brevitas.

use super::{Scales, WeightScale};
use crate::activation::Activation;
use crate::requantize::{
    Bias, Codes, F32Mul, F64, FixedPoint, Overflow, Pow2, Q31Double, Q31Single, Rounding, ZeroPoint,
};
use crate::{Error, Quantization};
use alloc::vec::Vec;

/// The codes that a fused activation leaves (R24).
fn codes(activation: Activation, output: Quantization) -> Result<Codes, Error> {
    clamped(activation.clamp(output), output)
}

/// The same in XNNPACK.
fn codes_of_xnnpack(activation: Activation, output: Quantization) -> Result<Codes, Error> {
    clamped(activation.clamp_of_xnnpack(output), output)
}

fn clamped([lo, hi]: [i32; 2], output: Quantization) -> Result<Codes, Error> {
    Codes::new(output.zero_point(), output.codes())?.clamped(lo, hi)
}

/// XNNPACK's `fp32` requantization (x86, WebAssembly, ARMv8): R6 that clamps first, with an int32 bias (R8a).
///
/// ```text
/// multiplier[c] = (f32(S_X) · f32(S_W[c])) / f32(S_Y)
/// ```
///
/// The runtime clamps only the upper end before rounding and the lower one, saturated to 16 bits, afterwards. That is
/// the same for every multiplier that it accepts: below, `cvt` and the saturation end at `lo` too.
///
/// # Errors
/// Scales that are not finite and positive.
pub fn xnnpack(scales: Scales<'_>, bias: Option<&[i32]>, activation: Activation) -> Result<F32Mul, Error> {
    scales.check()?;
    let bias = bias.map_or(Bias::None, |bias| Bias::I32(bias.to_vec()));
    let [lo, hi] = codes_of_xnnpack(activation, scales.output)?.range();
    let rule = F32Mul::new(scales.f32_quotients(), bias, scales.output.zero_point(), scales.output.codes())?;
    rule.overflow(Overflow::ClampFirst).clamped(lo, hi)
}

/// XNNPACK's `rndnu` requantization (scalar, NEON): R18, the multiplier being the 24 bits of `xnnpack`'s.
///
/// # Errors
/// Scales that are not finite and positive, a multiplier of 2³⁰ or more.
pub fn xnnpack_rndnu(scales: Scales<'_>, bias: Option<&[i32]>, activation: Activation) -> Result<Q31Single, Error> {
    scales.check()?;
    // An f32 has 24 bits: it is its own nearest number.
    let multiplier = scales.f32_quotients().into_iter().map(|m| FixedPoint::nearest(m.into()));
    single(multiplier.collect::<Result<_, _>>()?, bias, codes_of_xnnpack(activation, scales.output)?)
}

fn single(multiplier: Vec<FixedPoint>, bias: Option<&[i32]>, codes: Codes) -> Result<Q31Single, Error> {
    Ok(Q31Single { multiplier, bias: bias.unwrap_or_default().to_vec(), codes })
}

/// `f64(f32(S_X)) · f64(f32(S_W[c])) / f64(f32(S_Y))`, the product exact.
fn f64_quotients(scales: &Scales<'_>) -> Vec<f64> {
    let [s_x, s_y] = [scales.input, scales.output.scale()].map(|scale| f64::from(scale as f32));
    scales.map(|s_w| s_x * f64::from(s_w as f32) / s_y)
}

fn double(multiplier: Vec<f64>, bias: Option<&[i32]>, last: Rounding, codes: Codes) -> Result<Q31Double, Error> {
    let multiplier = multiplier.into_iter().map(FixedPoint::nearest).collect::<Result<_, _>>()?;
    Ok(Q31Double { multiplier, bias: bias.unwrap_or_default().to_vec(), last, codes })
}

/// TFLite's reference kernels, convolutions and depthwise convolutions: R17, the second rounding away from zero.
///
/// ```text
/// multiplier[c] = the nearest fixed-point number to f64(f32(S_X)) · f64(f32(S_W[c])) / f64(f32(S_Y))
/// ```
///
/// # Errors
/// Scales that are not finite and positive, a multiplier of 2³⁰ or more.
pub fn tflite_reference(scales: Scales<'_>, bias: Option<&[i32]>, activation: Activation) -> Result<Q31Double, Error> {
    scales.check()?;
    double(f64_quotients(&scales), bias, Rounding::Away, codes(activation, scales.output)?)
}

/// LiteRT 2.3's reference kernel for fully connected layers: R19, halves away from zero, the zero point afterwards.
///
/// ```text
/// multiplier[c] = f64(f32(S_X)) · f64(f32(S_W[c])) / f64(f32(S_Y))
/// ```
///
/// Older releases use [`tflite_reference`].
///
/// # Errors
/// Scales that are not finite and positive.
pub fn tflite_reference_fully_connected(
    scales: Scales<'_>,
    bias: Option<&[i32]>,
    activation: Activation,
) -> Result<F64, Error> {
    scales.check()?;
    Ok(F64 {
        multiplier: f64_quotients(&scales),
        bias: bias.unwrap_or_default().to_vec(),
        rounding: Rounding::Away,
        zero_point: ZeroPoint::AfterRounding,
        codes: codes(activation, scales.output)?,
    })
}

/// TFLite's optimised kernels on x86 (ruy), convolutions: [`tflite_reference`] with the second rounding up.
///
/// # Errors
/// As [`tflite_reference`].
pub fn tflite_ruy(scales: Scales<'_>, bias: Option<&[i32]>, activation: Activation) -> Result<Q31Double, Error> {
    Ok(Q31Double { last: Rounding::Up, ..tflite_reference(scales, bias, activation)? })
}

/// [`tflite_ruy`] for fully connected layers: with one weight scale the product is rounded to f32,
/// `f64(f32(S_X) · f32(S_W)) / f64(f32(S_Y))`.
///
/// # Errors
/// As [`tflite_reference`].
pub fn tflite_ruy_fully_connected(
    scales: Scales<'_>,
    bias: Option<&[i32]>,
    activation: Activation,
) -> Result<Q31Double, Error> {
    let WeightScale::PerTensor(s_w) = scales.weight else { return tflite_ruy(scales, bias, activation) };
    scales.check()?;
    let multiplier = f64::from(scales.input as f32 * s_w as f32) / f64::from(scales.output.scale() as f32);
    double([multiplier].into(), bias, Rounding::Up, codes(activation, scales.output)?)
}

/// TFLite built with `TFLITE_SINGLE_ROUNDING`: R18 with the multiplier of [`tflite_reference`].
///
/// # Errors
/// As [`tflite_reference`].
pub fn tflite_single(scales: Scales<'_>, bias: Option<&[i32]>, activation: Activation) -> Result<Q31Single, Error> {
    let Q31Double { multiplier, codes, .. } = tflite_reference(scales, bias, activation)?;
    single(multiplier, bias, codes)
}

/// Jacob et al. and gemmlowp: R17, the second rounding away from zero, with a multiplier of at most 1.
///
/// ```text
/// multiplier[c] = the nearest fixed-point number to f64(S_X) · f64(S_W[c]) / f64(S_Y)
/// ```
///
/// # Errors
/// Scales that are not finite and positive, a multiplier that is not below 1.
pub fn paper(scales: Scales<'_>, bias: Option<&[i32]>, relu: bool) -> Result<Q31Double, Error> {
    scales.check()?;
    let multiplier = scales.map(|s_w| scales.input * s_w / scales.output.scale());
    let activation = if relu { Activation::Relu } else { Activation::None };
    let rule = double(multiplier.clone(), bias, Rounding::Away, codes(activation, scales.output)?)?;
    // The largest f64 below 1 rounds to 1, which gemmlowp refuses.
    match rule.multiplier.iter().position(|m| m.exponent > 0) {
        Some(c) => Err(Error::Scale { what: "multiplier (S_X · S_W / S_Y, below 1)", got: multiplier[c] }),
        None => Ok(rule),
    }
}

/// Brevitas with scales that are powers of two: R20, nearest even.
///
/// ```text
/// shift[c] = −log2( S_X · S_W[c] / S_Y )
/// ```
///
/// Biases are int16 there; here they are int32.
///
/// # Errors
/// Scales that are not powers of two.
pub fn brevitas(scales: Scales<'_>, bias: Option<&[i32]>) -> Result<Pow2, Error> {
    scales.check()?;
    let [s_x, s_y] =
        [("input scale", scales.input), ("output scale", scales.output.scale())].map(|(what, scale)| log2(what, scale));
    let (s_x, s_y) = (s_x?, s_y?);
    let shift = scales.map(|s_w| Ok(s_y - s_x - log2("weight scale", s_w)?));
    Ok(Pow2 {
        shift: shift.into_iter().collect::<Result<_, Error>>()?,
        bias: bias.unwrap_or_default().to_vec(),
        rounding: Rounding::Even,
        codes: Codes::new(scales.output.zero_point(), scales.output.codes())?,
    })
}

/// The exponent of a power of two.
fn log2(what: &'static str, scale: f64) -> Result<i32, Error> {
    let bits = scale.to_bits();
    let normal_power = bits & ((1 << 52) - 1) == 0 && scale.is_normal();
    if normal_power { Ok((bits >> 52) as i32 - 1023) } else { Err(Error::Scale { what, got: scale }) }
}
