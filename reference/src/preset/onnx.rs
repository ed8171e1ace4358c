//! ONNX: the runtime and the reference evaluator.

use super::Scales;
use crate::Error;
use crate::requantize::{Bias, Codes, F32Mul, F64, Overflow, Rounding, ZeroPoint};

/// ONNX Runtime's QLinearConv, QLinearMatMul and QGemm: R6 that clamps first, with the operator's int32 bias (R8a).
///
/// ```text
/// multiplier[c] = (f32(S_X) · f32(S_W[c])) / f32(S_Y)
/// ```
///
/// A ReLU that the runtime has fused is [`F32Mul::relu`].
///
/// # Errors
/// Scales that are not finite and positive.
pub fn ort(scales: Scales<'_>, bias: Option<&[i32]>) -> Result<F32Mul, Error> {
    scales.check()?;
    let bias = bias.map_or(Bias::None, |bias| Bias::I32(bias.to_vec()));
    let rule = F32Mul::new(scales.f32_quotients(), bias, scales.output.zero_point(), scales.output.codes())?;
    Ok(rule.overflow(Overflow::ClampFirst))
}

/// ONNX's reference evaluator, QLinearConv and QLinearMatMul: R19, nearest even, the zero point before rounding.
///
/// ```text
/// multiplier[c] = f64( (f32(S_X) · f32(S_W[c])) / f32(S_Y) )
/// ```
///
/// # Errors
/// Scales that are not finite and positive.
pub fn onnx_reference(scales: Scales<'_>, bias: Option<&[i32]>) -> Result<F64, Error> {
    scales.check()?;
    Ok(F64 {
        multiplier: scales.f32_quotients().into_iter().map(f64::from).collect(),
        bias: bias.unwrap_or_default().to_vec(),
        rounding: Rounding::Even,
        zero_point: ZeroPoint::BeforeRounding,
        codes: Codes::new(scales.output.zero_point(), scales.output.codes())?,
    })
}
