//! What can be checked: one module an operator, one line here.

use super::error::Problem;
use super::file::{Case, Scalar};
use super::report::Value;
use super::{binary, concat, dynamic, layer, mean, pool, quantize, resize, unary};
use crate::explain::{Reason, SaturatedOutput};
use qexact_kernels::Isa;
use qexact_reference::{CodeType, Error};

/// One call of an operator, with everything it needs and everything it returned.
pub(super) trait Operator {
    /// Its geometry in one line.
    fn describe(&self) -> String;
    /// What the runtime returned.
    fn recorded(&self) -> &[Recorded];
    /// What the rules say, in the same order.
    fn exact(&self) -> Result<Outputs, Error>;
    /// The kernel of an instruction set, by name, and what it computes.
    fn on(&self, _isa: Isa) -> Result<(String, Outputs), Error> {
        Ok(("reference".into(), self.exact()?))
    }
    /// What is known about the output at flat index `index` of the recorded tensor number `tensor`.
    fn explain(&self, _tensor: usize, _index: usize) -> Explanation {
        Explanation::default()
    }
}

/// One vector for every recorded tensor.
pub(super) type Outputs = Vec<Vec<Value>>;

/// A tensor that the runtime returned.
pub(super) struct Recorded {
    pub(super) name: &'static str,
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<Value>,
}

impl Recorded {
    /// Takes the tensor `name`.
    pub(super) fn take<T: Scalar + Into<Value>>(
        case: &mut Case<'_>,
        name: &'static str,
        shape: Vec<usize>,
    ) -> Result<Recorded, Problem> {
        let values = case.tensor::<T>(name, &shape)?.into_iter().map(Into::into).collect();
        Ok(Recorded { name, shape, values })
    }

    /// Takes the tensor `name`, which holds codes.
    pub(super) fn take_codes(
        case: &mut Case<'_>,
        name: &'static str,
        shape: Vec<usize>,
        codes: CodeType,
    ) -> Result<Recorded, Problem> {
        if codes.is_signed() { Self::take::<i8>(case, name, shape) } else { Self::take::<u8>(case, name, shape) }
    }
}

/// Why an output is what it is.
#[derive(Default)]
pub(super) struct Explanation {
    /// The exact accumulator.
    pub(super) accumulator: Option<i32>,
    /// The number that was rounded lies half-way between two integers.
    pub(super) tie: Option<Reason>,
    /// What a machine returns whose pairs of products saturate, if any of this output's do.
    pub(super) saturated: Option<SaturatedOutput>,
}

/// Takes a case apart.
pub(super) type Parse = fn(&mut Case<'_>) -> Result<Box<dyn Operator>, Problem>;

/// Dialect, operator and how to read a case.
const OPERATORS: &[(&str, &str, Parse)] = &[
    ("fbgemm", "linear", |case| layer::linear(case, &layer::FBGEMM)),
    ("fbgemm", "conv1d", |case| layer::conv(case, 1, &layer::FBGEMM)),
    ("fbgemm", "conv2d", |case| layer::conv(case, 2, &layer::FBGEMM)),
    ("fbgemm", "conv3d", |case| layer::conv(case, 3, &layer::FBGEMM)),
    ("fbgemm", "conv_transpose2d", |case| layer::conv_transpose2d(case, &layer::FBGEMM)),
    ("qnnpack", "conv_transpose2d", |case| layer::conv_transpose2d(case, &layer::QNNPACK)),
    ("fbgemm_avx2", "linear", |case| layer::linear(case, &layer::FBGEMM_WITHOUT_VNNI)),
    ("fbgemm_avx2", "conv2d", |case| layer::conv(case, 2, &layer::FBGEMM_WITHOUT_VNNI)),
    ("onednn", "linear", |case| layer::linear(case, &layer::ONEDNN_LINEAR)),
    ("onednn", "conv1d", |case| layer::conv(case, 1, &layer::ONEDNN_CONV)),
    ("onednn", "conv2d", |case| layer::conv(case, 2, &layer::ONEDNN_CONV)),
    ("onednn", "conv3d", |case| layer::conv(case, 3, &layer::ONEDNN_CONV)),
    ("onednn", "conv2d_add", |case| layer::conv(case, 2, &layer::ONEDNN_CONV_ADD)),
    ("x86", "linear", |case| layer::linear(case, &layer::FBGEMM)),
    ("x86", "conv2d", |case| layer::conv(case, 2, &layer::X86_CONV)),
    ("pt2e_onednn", "qlinear_pointwise", |case| layer::linear(case, &layer::PT2E)),
    ("pt2e_onednn", "qconv2d_pointwise", |case| layer::conv(case, 2, &layer::PT2E)),
    ("qnnpack", "linear", |case| layer::linear(case, &layer::QNNPACK)),
    ("qnnpack", "conv2d", |case| layer::conv(case, 2, &layer::QNNPACK)),
    ("ort", "QGemm", |case| layer::linear(case, &layer::ORT)),
    ("ort", "QLinearMatMul", |case| layer::linear(case, &layer::ORT)),
    ("ort", "QLinearConv1d", |case| layer::conv(case, 1, &layer::ORT)),
    ("ort", "QLinearConv2d", |case| layer::conv(case, 2, &layer::ORT)),
    ("ort", "QLinearConv3d", |case| layer::conv(case, 3, &layer::ORT)),
    ("ort_avx2", "QGemm", |case| layer::linear(case, &layer::ORT_WITHOUT_VNNI)),
    ("ort_avx2", "QLinearMatMul", |case| layer::linear(case, &layer::ORT_WITHOUT_VNNI)),
    ("ort_avx2", "QLinearConv2d", |case| layer::conv(case, 2, &layer::ORT_WITHOUT_VNNI)),
    ("onnx_reference", "QLinearConv2d", |case| layer::conv(case, 2, &layer::ONNX_REFERENCE)),
    ("tflite_ref", "conv2d", |case| layer::lite_conv2d(case, &layer::TFLITE_REFERENCE)),
    ("tflite_ref", "depthwise_conv2d", |case| layer::lite_depthwise_conv2d(case, &layer::TFLITE_REFERENCE)),
    ("tflite_ref", "fully_connected", |case| layer::lite_linear(case, &layer::TFLITE_REFERENCE_FULLY_CONNECTED)),
    ("tflite_ruy", "conv2d", |case| layer::lite_conv2d(case, &layer::TFLITE_RUY)),
    ("tflite_ruy", "depthwise_conv2d", |case| layer::lite_depthwise_conv2d(case, &layer::TFLITE_RUY_DEPTHWISE)),
    ("tflite_ruy", "fully_connected", |case| layer::lite_linear(case, &layer::TFLITE_RUY_FULLY_CONNECTED)),
    ("xnnpack", "conv2d", |case| layer::lite_conv2d(case, &layer::XNNPACK)),
    ("xnnpack", "depthwise_conv2d", |case| layer::lite_depthwise_conv2d(case, &layer::XNNPACK)),
    ("xnnpack", "fully_connected", |case| layer::lite_linear(case, &layer::XNNPACK)),
    ("brevitas", "linear_fixed_point", |case| layer::linear(case, &layer::BREVITAS)),
    ("fbgemm", "linear_dynamic", dynamic::fbgemm),
    ("onednn", "linear_dynamic", dynamic::onednn),
    ("qnnpack", "linear_dynamic", dynamic::qnnpack),
    ("ort", "DynamicQuantizeMatMul", dynamic::ort),
    ("aten", "quantize_per_tensor", quantize::per_tensor),
    ("aten", "max_pool2d", pool::max),
    ("aten", "avg_pool2d", pool::average),
    ("aten", "adaptive_avg_pool2d", pool::adaptive_average),
    ("aten", "upsample_nearest2d", resize::nearest),
    ("aten", "quantize_per_channel", quantize::per_channel),
    ("aten", "add", binary::aten_add),
    ("aten", "mul", binary::aten_mul),
    ("aten", "cat", concat::aten),
    ("aten", "unary", unary::aten_unary),
    ("qnnpack", "add", binary::qnnpack_add),
    ("qnnpack", "mul", binary::aten_mul),
    ("qnnpack", "max_pool2d", pool::qnnpack_max),
    ("qnnpack", "avg_pool2d", mean::qnnpack),
    ("qnnpack", "adaptive_avg_pool2d", mean::qnnpack_adaptive),
    ("ort", "QLinearAdd", binary::ort_add),
    ("ort", "QLinearMul", binary::ort_mul),
    ("ort", "QLinearAveragePool", mean::ort),
    ("ort", "QLinearGlobalAveragePool", mean::ort_global),
    ("ort", "QuantizeLinear", quantize::ort),
    ("tflite_ref", "add", binary::tflite_add),
    ("tflite_ref", "mul", binary::tflite_mul),
    ("tflite_ref", "average_pool_2d", mean::tflite),
    ("tflite_ref", "quantize", quantize::tflite_ref),
    ("tflite_ref", "requantize", unary::tflite_ref),
    ("tflite_ruy", "add", binary::tflite_optimised_add),
    ("tflite_ruy", "mul", binary::tflite_optimised_mul),
    ("tflite_ruy", "average_pool_2d", mean::tflite),
    ("tflite_ruy", "quantize", quantize::tflite_optimised),
    ("tflite_ruy", "requantize", unary::tflite_optimised),
    ("xnnpack", "add", binary::xnnpack_add),
    ("xnnpack", "mul", binary::xnnpack_mul),
    // XNNPACK has no int8 average: the delegate leaves it to TFLite.
    ("xnnpack", "average_pool_2d", mean::tflite),
    ("xnnpack", "quantize", quantize::xnnpack),
    ("xnnpack", "requantize", unary::xnnpack),
];

/// How to read the cases of an operator.
pub(super) fn find(dialect: &str, op: &str) -> Result<Parse, Problem> {
    let found = OPERATORS.iter().find(|known| (known.0, known.1) == (dialect, op));
    found.map(|&(_, _, parse)| parse).ok_or_else(|| {
        let names: Vec<String> = OPERATORS.iter().map(|(dialect, op, _)| format!("{dialect}.{op}")).collect();
        let supported = names.join(", ");
        Problem::Unsupported { dialect: dialect.to_owned(), op: op.to_owned(), supported }
    })
}
