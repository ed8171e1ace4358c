//! Presets (R7, R21): how a runtime derives the parameters of a rule from scales. They compute parameters and
//! nothing else; what is computed with them is in the rules.
//!
//! | runtime | preset | rule |
//! |---|---|---|
//! | PyTorch, engine fbgemm | [`fbgemm`] | R6 |
//! | PyTorch, engine onednn | [`onednn_linear`], [`onednn_conv`] | R16 |
//! | PyTorch, engine x86 | linear: [`fbgemm`]; convolutions: [`x86_takes_onednn`] tells | R6, R16 |
//! | PyTorch 2 export, X86Inductor | [`pt2e`] | R16 |
//! | PyTorch, engine qnnpack | [`qnnpack`] | R6 |
//! | PyTorch, dynamic linear layers | [`torch_linear_dynamic`] | R22, R9 |
//! | ONNX Runtime | [`ort`] | R6 |
//! | ONNX reference evaluator | [`onnx_reference`] | R19 |
//! | XNNPACK | [`xnnpack`]; [`xnnpack_rndnu`] in its scalar and NEON kernels | R6; R18 |
//! | TFLite, reference kernels | [`tflite_reference`], [`tflite_reference_fully_connected`] | R17; R19 |
//! | TFLite, ruy on x86 | [`tflite_ruy`], [`tflite_ruy_fully_connected`] | R17 |
//! | TFLite, built with single rounding | [`tflite_single`] | R18 |
//! | Jacob et al., gemmlowp | [`paper`] | R17 |
//! | Brevitas, powers of two | [`brevitas`] | R20 |

mod dynamic;
mod fixed;
mod onednn;
mod onnx;
mod torch;

pub use dynamic::{DynamicEngine, torch_linear_dynamic};
pub use fixed::{brevitas, paper, tflite_reference_fully_connected, tflite_ruy_fully_connected};
pub use fixed::{tflite_reference, tflite_ruy, tflite_single, xnnpack, xnnpack_rndnu};
pub use onednn::{onednn_conv, onednn_linear, onednn_sum, pt2e, x86_takes_onednn};
pub use onnx::{onnx_reference, ort};
pub use torch::{fbgemm, fbgemm_unchecked, qnnpack};

use crate::quantization::check_scale;
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

impl Scales<'_> {
    fn check(&self) -> Result<(), Error> {
        check_scale("input scale", self.input)?;
        self.weight.as_slice().iter().try_for_each(|&scale| check_scale("weight scale", scale))
    }

    /// `f(S_W)` of every weight scale.
    fn map<T>(&self, f: impl FnMut(f64) -> T) -> Vec<T> {
        self.weight.as_slice().iter().copied().map(f).collect()
    }

    /// `(f32(S_X) · f32(S_W[c])) / f32(S_Y)`, two roundings.
    fn f32_quotients(&self) -> Vec<f32> {
        self.map(|s_w| self.input as f32 * s_w as f32 / self.output.scale() as f32)
    }
}

impl WeightScale<'_> {
    pub(crate) fn as_slice(&self) -> &[f64] {
        match self {
            WeightScale::PerTensor(scale) => core::slice::from_ref(scale),
            WeightScale::PerChannel(scales) => scales,
        }
    }
}

#[cfg(test)]
mod tests;
