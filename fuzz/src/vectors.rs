//! Files that claim to be recorded operator vectors.

use crate::{File, edit};
use arbitrary::{Arbitrary, Result, Unstructured};
use qexact_kernels::Isa;
use qexact_verify::vectors::{FileReport, Options, run_bytes};

macro_rules! seeds {
    ($($name:literal)*) => {
        &[$(include_bytes!(concat!("../corpus_seed/vectors/", $name, ".safetensors"))),*]
    };
}

/// Recorded by real runtimes: one small case of each operator.
#[rustfmt::skip]
pub const SEEDS: &[&[u8]] = seeds![
    "aten.adaptive_avg_pool2d" "aten.add" "aten.avg_pool2d" "aten.cat" "aten.max_pool2d" "aten.mul"
    "aten.quantize_per_channel" "aten.quantize_per_tensor" "aten.unary"
    "brevitas.linear_fixed_point"
    "fbgemm.conv1d" "fbgemm.conv2d" "fbgemm.conv3d" "fbgemm.linear" "fbgemm.linear_dynamic"
    "fbgemm_avx2.conv2d" "fbgemm_avx2.linear"
    "onednn.conv1d" "onednn.conv2d" "onednn.conv2d_add" "onednn.conv3d" "onednn.linear" "onednn.linear_dynamic"
    "onnx_reference.QLinearConv2d"
    "ort.DynamicQuantizeMatMul" "ort.QGemm" "ort.QLinearAdd" "ort.QLinearAveragePool" "ort.QLinearConv1d"
    "ort.QLinearConv2d" "ort.QLinearConv3d" "ort.QLinearGlobalAveragePool" "ort.QLinearMatMul" "ort.QLinearMul"
    "ort.QuantizeLinear"
    "ort_avx2.QGemm" "ort_avx2.QLinearConv2d" "ort_avx2.QLinearMatMul"
    "pt2e_onednn.qconv2d_pointwise" "pt2e_onednn.qlinear_pointwise"
    "qnnpack.adaptive_avg_pool2d" "qnnpack.add" "qnnpack.avg_pool2d" "qnnpack.conv2d" "qnnpack.linear"
    "qnnpack.linear_dynamic" "qnnpack.max_pool2d" "qnnpack.mul"
    "tflite_ref.add" "tflite_ref.average_pool_2d" "tflite_ref.conv2d" "tflite_ref.depthwise_conv2d"
    "tflite_ref.fully_connected" "tflite_ref.mul" "tflite_ref.quantize" "tflite_ref.requantize"
    "tflite_ruy.add" "tflite_ruy.average_pool_2d" "tflite_ruy.conv2d" "tflite_ruy.depthwise_conv2d"
    "tflite_ruy.fully_connected" "tflite_ruy.mul" "tflite_ruy.quantize" "tflite_ruy.requantize"
    "x86.conv2d" "x86.linear"
    "xnnpack.add" "xnnpack.average_pool_2d" "xnnpack.conv2d" "xnnpack.depthwise_conv2d" "xnnpack.fully_connected"
    "xnnpack.mul" "xnnpack.quantize" "xnnpack.requantize"
];

/// One of [`SEEDS`], edited.
#[derive(Debug)]
pub struct Edited(pub File);

impl<'a> Arbitrary<'a> for Edited {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Edited> {
        Ok(Edited(File(edit::file(u, SEEDS)?)))
    }
}

/// Checks a file as `qexact vectors` does.
///
/// # Panics
/// If a kernel disagrees with the reference, whatever the file says. (That the reference disagrees with the file is no
/// failure: the file may say anything.)
pub fn run(File(bytes): File) {
    drop(check(&bytes));
}

/// [`run`] on a file that is nearly well-formed.
///
/// # Panics
/// As [`run`].
pub fn run_edited(Edited(file): Edited) {
    run(file);
}

/// The report on a file, if it is well-formed.
///
/// # Panics
/// As [`run`].
pub fn check(bytes: &[u8]) -> Option<FileReport> {
    let options = Options { isas: Isa::available().collect(), strict: false };
    match run_bytes("fuzzed", bytes, &options, |_, _| ()) {
        Ok(report) => {
            let text = report.to_string();
            assert_eq!(report.totals.kernel_differences, 0, "{text}");
            Some(report)
        }
        Err(error) => {
            assert!(!error.to_string().is_empty(), "refused without a reason");
            None
        }
    }
}
