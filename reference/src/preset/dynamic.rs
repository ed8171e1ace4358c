//! PyTorch's dynamic linear layers: parameters that follow from the scale of the data (R31).

use super::{Scales, WeightScale, onednn};
use crate::quantizer::{QuantizeForm, Quantizer};
use crate::requantize::F32Out;
use crate::{Error, Quantization};
use alloc::vec::Vec;

/// Which of PyTorch's engines computes `quantized::linear_dynamic`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DynamicEngine {
    /// fbgemm, also what the engine x86 uses.
    Fbgemm,
    /// oneDNN.
    Onednn,
    /// QNNPACK, which does not read `reduce_range`.
    Qnnpack,
}

/// How the input of a dynamic linear layer becomes codes, and its accumulators real numbers: R22 and R9. `input` is
/// what [`dynamic::torch`](crate::dynamic::torch) chose for the data.
///
/// ```text
/// fbgemm   R22 Fused           scale[c] = f32(S_X) · f32(S_W[c]),  the bias in one multiply-add
/// qnnpack  R22 Wrapping        scale[c] = f32(S_W[c]) · f32(S_X)
/// onednn   R22 ZeroPointFirst  scale[c] = r64(S_X) · s_w[c],  r64 and s_w as in onednn_linear; m = f32(1) / r64(S_X)
/// ```
///
/// # Errors
/// Scales that are not finite and positive.
pub fn torch_linear_dynamic(
    engine: DynamicEngine,
    input: Quantization,
    weight: WeightScale<'_>,
    bias: &[f32],
    relu: bool,
) -> Result<(Quantizer, F32Out), Error> {
    let scales = Scales { input: input.scale(), weight, output: input };
    scales.check()?;
    let s_x = input.scale() as f32;
    let (quantizer, scale): (Quantizer, Vec<f32>) = match engine {
        DynamicEngine::Fbgemm => (Quantizer::new(QuantizeForm::Fused, input), scales.map(|s_w| s_x * s_w as f32)),
        DynamicEngine::Qnnpack => (Quantizer::new(QuantizeForm::Wrapping, input), scales.map(|s_w| s_w as f32 * s_x)),
        DynamicEngine::Onednn => {
            let rule = onednn::onednn_linear(scales, None, false)?;
            let factor = 1.0 / onednn::twice_f64(input.scale());
            (Quantizer { factor, ..Quantizer::new(QuantizeForm::ZeroPointFirst, input) }, rule.scale)
        }
    };
    let fused = engine == DynamicEngine::Fbgemm;
    Ok((quantizer, F32Out { scale, bias: bias.to_vec(), fused, relu }))
}
