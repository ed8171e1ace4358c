//! The document of an export as it is written: see `FORMAT.md`. Nothing here is checked beyond its JSON types;
//! unknown fields are refused.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The format version that this crate reads.
pub const FORMAT: u64 = 1;

/// The whole document.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)] // The fields are documented, once, in FORMAT.md.
pub struct Document {
    pub format: u64,
    pub producer: Producer,
    pub numerics: String,
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    pub values: Vec<Value>,
    pub nodes: Vec<Node>,
    pub digests: BTreeMap<String, String>,
    pub recording: Option<Recording>,
    pub annotations: Option<serde_json::Value>,
}

/// Who made the codes, and on what. Informative.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Producer {
    pub framework: String,
    pub version: String,
    pub engine: String,
    pub cpu_capability: String,
    pub cpu_flags: Vec<String>,
    pub threads: u64,
    pub exporter: String,
}

/// An input or output of the graph.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Port {
    pub name: String,
}

/// A value of the graph.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Value {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub scale: Option<f64>,
    pub zero_point: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits: Option<u8>,
    pub memory: Option<Memory>,
}

/// Element type of a value.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Dtype {
    U8,
    I8,
    F32,
}

impl Dtype {
    /// As written in the document.
    pub fn as_str(self) -> &'static str {
        match self {
            Dtype::U8 => "u8",
            Dtype::I8 => "i8",
            Dtype::F32 => "f32",
        }
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// How a tensor lay in the runtime's memory.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Memory {
    Contiguous,
    ChannelsLast,
}

/// A node of the graph.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Node {
    pub name: String,
    pub op: String,
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
    pub attributes: serde_json::Value,
    pub rule: Option<serde_json::Value>,
}

/// What the recording holds.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Recording {
    pub samples: usize,
    pub full: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<usize>,
    pub labels: Option<String>,
    pub accuracy: Option<Accuracy>,
}

/// The runtime's own count of right answers.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Accuracy {
    pub output: String,
    pub correct: u64,
}

/// Rules of nodes, by their `kind`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[allow(missing_docs)]
pub enum Rule {
    Quantize {
        multiplier: QuantizeMultiplier,
        zero_point: ZeroPoint,
        overflow: QuantizeOverflow,
    },
    Dequantize {},
    F32Mul {
        multiplier: Multiplier,
        bias: Bias,
        overflow: Overflow,
    },
    F32Real {
        scales: Scales,
        weight: Granularity,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clip: Option<[f32; 2]>,
    },
    Pow2 {
        rounding: Rounding,
    },
    F32Out {
        quantize: DynamicQuantize,
        weight: Granularity,
    },
    Add {
        sum: Sum,
    },
    Mul {
        multiplier: Multiplier,
    },
    Concat {
        memory: Memory,
    },
    BatchNorm {
        fma: bool,
    },
    Pool {
        memory: Memory,
    },
    Mean {
        multiplier: Multiplier,
    },
}

impl Rule {
    /// The `kind` of this rule.
    pub fn kind(&self) -> &'static str {
        match self {
            Rule::Quantize { .. } => "quantize",
            Rule::Dequantize {} => "dequantize",
            Rule::F32Mul { .. } => "f32_mul",
            Rule::F32Real { .. } => "f32_real",
            Rule::Pow2 { .. } => "pow2",
            Rule::F32Out { .. } => "f32_out",
            Rule::Add { .. } => "add",
            Rule::Mul { .. } => "mul",
            Rule::Concat { .. } => "concat",
            Rule::BatchNorm { .. } => "batch_norm",
            Rule::Pool { .. } => "pool",
            Rule::Mean { .. } => "mean",
        }
    }
}

/// R8: how the bias enters.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Bias {
    None,
    Addend,
    Fused,
    Rounded,
}

impl Bias {
    /// As written in the document.
    pub fn as_str(self) -> &'static str {
        match self {
            Bias::None => "none",
            Bias::Addend => "addend",
            Bias::Fused => "fused",
            Bias::Rounded => "rounded",
        }
    }
}

/// R2: what a real number is multiplied by.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum QuantizeMultiplier {
    /// The reciprocal of the scale, in f32.
    Reciprocal,
    /// The reciprocal of the scale, in f64, rounded to f32.
    F64Reciprocal,
}

/// R2: when the zero point is added.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ZeroPoint {
    /// After rounding.
    After,
}

/// R2: what becomes of a sum that does not fit an int32.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum QuantizeOverflow {
    /// It wraps.
    Wrap,
    /// There is none: the sum is clamped before it is converted.
    Saturate,
}

/// R7, R21, R26, R30: how scales become one multiplier, in f32.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Multiplier {
    /// A division by the output's scale: `(S_X · S_W) / S_Y`.
    Quotient,
    /// A product with its reciprocal: `(S_W · S_X) · (1 / S_Y)`.
    Reciprocal,
}

/// R21: in which form scales enter.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Scales {
    /// As they are, rounded to f32.
    Direct,
    /// After a passage through their reciprocals and back.
    Reciprocal,
}

/// Whether weights have one scale, or one an output channel: some runtimes treat one channel differently then.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Granularity {
    PerTensor,
    PerChannel,
}

/// R20: how what a power of two cuts off is rounded.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Rounding {
    /// To nearest, ties to even.
    Even,
}

/// R21, R22: how a layer that quantizes its input itself makes codes of real numbers.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum DynamicQuantize {
    /// As `quantize` does (R2).
    Wrapping,
    /// The zero point inside the rounding, in one multiply-add.
    Fused,
    /// The zero point before the rounding, two roundings.
    ZeroPointFirst,
}

/// R25: how a sum is computed.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Sum {
    /// Of real numbers, in the form of PyTorch's vector body.
    Real,
    /// Of integers with multipliers of 22 bits, ties away from zero.
    Shifted,
}

/// R6: what becomes of a product that does not fit an int32.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Overflow {
    /// It becomes −2³¹.
    Convert,
}

/// Attributes of `linear`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Linear {
    pub relu: bool,
    #[serde(default)]
    pub weight_bits: Option<u8>,
}

/// Attributes of `add` and `mul`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Relu {
    pub relu: bool,
}

/// Attributes of `conv1d`, `conv2d`, `conv3d`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Conv {
    pub stride: Vec<usize>,
    pub padding: Vec<[usize; 2]>,
    pub dilation: Vec<usize>,
    pub groups: usize,
    pub relu: bool,
    #[serde(default)]
    pub weight_bits: Option<u8>,
}

/// Attributes of `batch_norm2d`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct BatchNorm {
    pub eps: f64,
    pub relu: bool,
}

/// Attributes of `max_pool2d`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct MaxPool {
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub padding: [usize; 2],
    pub dilation: [usize; 2],
    pub ceil_mode: bool,
}

/// Attributes of `avg_pool2d`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct AvgPool {
    pub kernel: [usize; 2],
    pub stride: [usize; 2],
    pub padding: [usize; 2],
    pub ceil_mode: bool,
    pub count_include_pad: bool,
    pub divisor_override: Option<u32>,
}

/// Attributes of `adaptive_avg_pool2d`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct AdaptiveAvgPool {
    pub output_size: [usize; 2],
}

/// Attributes of `linear_dynamic`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct LinearDynamic {
    pub relu: bool,
    pub reduce_range: bool,
}

/// Attributes of `concat`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Concat {
    pub axis: usize,
}

/// Attributes of `table`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Table {
    pub function: String,
}

/// Attributes of `slice`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Slice {
    pub axis: usize,
    pub start: usize,
    pub step: usize,
}

/// Attributes of `permute`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Permute {
    pub axes: Vec<usize>,
}

/// Attributes of `conv_transpose1d`, `conv_transpose2d`, `conv_transpose3d`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ConvTranspose {
    pub stride: Vec<usize>,
    pub padding: Vec<[usize; 2]>,
    pub output_padding: Vec<usize>,
    pub dilation: Vec<usize>,
    pub groups: usize,
    pub relu: bool,
}

/// Attributes of `pad`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Pad {
    pub padding: Vec<[usize; 2]>,
    pub value: f64,
}

/// Attributes of `reflection_pad`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ReflectionPad {
    pub padding: Vec<[usize; 2]>,
}

/// Attributes of `upsample_nearest`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct UpsampleNearest {
    pub scale_factors: Vec<Option<f64>>,
}

/// Attributes of `channel_shuffle`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ChannelShuffle {
    pub groups: usize,
}

/// Attributes of an operator without any.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoAttributes {}
