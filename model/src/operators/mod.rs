//! Operators of the format: attributes, rule, tensors and shapes of a node into an [`Operator`].
//!
//! | module | operators |
//! |---|---|
//! | `layer` | linear and convolution layers |
//! | `elementwise` | functions of one code, sums, products, batch normalization |
//! | `pool` | windows |
//! | `transposed` | transposed convolutions |
//! | `moves` | shapes, order, concatenation |
//! | `gather` | padding, reflections, nearest neighbours, shuffles |

mod elementwise;
mod gather;
mod layer;
mod moves;
mod pool;
mod transposed;

use crate::document::{Dtype, Node, Rule};
use crate::error::{LoadError, invalid};
use crate::network::{Operator, Value};
use crate::tensors::{Element, Tensors};
use qexact_reference::Quantization;
use serde::de::DeserializeOwned;
use std::ops::RangeInclusive;

/// The operators of the format, in the order of its documentation.
const OPERATORS: [&str; 27] = [
    "quantize",
    "dequantize",
    "linear",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "linear_dynamic",
    "batch_norm2d",
    "relu",
    "table",
    "add",
    "mul",
    "max_pool2d",
    "avg_pool2d",
    "adaptive_avg_pool2d",
    "flatten",
    "reshape",
    "permute",
    "slice",
    "pad",
    "reflection_pad",
    "upsample_nearest",
    "channel_shuffle",
    "concat",
];

/// A node together with the values around it.
struct Context<'c> {
    node: &'c Node,
    place: String,
    inputs: &'c [&'c Value],
    /// The first of them.
    input: &'c Value,
    output: &'c Value,
    tensors: &'c Tensors<'c>,
}

/// Loads one node.
pub(crate) fn load(
    node: &Node,
    inputs: &[&Value],
    output: &Value,
    tensors: &Tensors<'_>,
) -> Result<Operator, LoadError> {
    let place = format!("node `{}`", node.name);
    let [input, ..] = inputs else {
        return Err(invalid(place, "number of inputs", 0, "at least 1"));
    };
    let c = Context { node, place, inputs, input, output, tensors };
    c.expect_inputs(match node.op.as_str() {
        "add" | "mul" => 2..=2,
        // The second is added to the layer's own result.
        "linear" | "conv1d" | "conv2d" | "conv3d" => 1..=2,
        "concat" => 1..=usize::MAX,
        _ => 1..=1,
    })?;
    match node.op.as_str() {
        "quantize" => c.quantize(),
        "dequantize" => c.dequantize(),
        "linear" => c.linear(),
        "conv1d" => c.conv(1),
        "conv2d" => c.conv(2),
        "conv3d" => c.conv(3),
        "conv_transpose1d" => c.conv_transpose(1),
        "conv_transpose2d" => c.conv_transpose(2),
        "conv_transpose3d" => c.conv_transpose(3),
        "linear_dynamic" => c.linear_dynamic(),
        "batch_norm2d" => c.batch_norm(),
        "relu" => c.relu(),
        "table" => c.table(),
        "add" => c.add(),
        "mul" => c.mul(),
        "max_pool2d" => c.max_pool(),
        "avg_pool2d" => c.avg_pool(),
        "adaptive_avg_pool2d" => c.adaptive_avg_pool(),
        "flatten" | "reshape" => c.reshape(),
        "permute" => c.permute(),
        "slice" => c.slice(),
        "pad" => c.pad(),
        "reflection_pad" => c.reflection_pad(),
        "upsample_nearest" => c.upsample_nearest(),
        "channel_shuffle" => c.channel_shuffle(),
        "concat" => c.concat(),
        op => Err(LoadError::UnknownOperator {
            node: node.name.clone(),
            op: op.to_string(),
            expected: OPERATORS.join(", "),
        }),
    }
}

impl Context<'_> {
    fn attributes<T: DeserializeOwned>(&self) -> Result<T, LoadError> {
        let field = |source| LoadError::Field { node: self.node.name.clone(), part: "attributes", source };
        serde_json::from_value(self.node.attributes.clone()).map_err(field)
    }

    fn rule(&self) -> Result<Rule, LoadError> {
        let field = |source| LoadError::Field { node: self.node.name.clone(), part: "rule", source };
        match &self.node.rule {
            Some(rule) => serde_json::from_value(rule.clone()).map_err(field),
            None => Err(self.wrong("rule", "missing", format!("one for the operator `{}`", self.node.op))),
        }
    }

    /// A rule of another kind than the operator needs.
    fn wrong_rule<T>(&self, rule: &Rule, expected: &str) -> Result<T, LoadError> {
        Err(self.wrong("kind of the rule", rule.kind(), expected))
    }

    fn no_rule(&self) -> Result<(), LoadError> {
        match &self.node.rule {
            None => Ok(()),
            Some(_) => Err(self.wrong("rule", "present", format!("none for the operator `{}`", self.node.op))),
        }
    }

    fn wrong(&self, what: &'static str, got: impl std::fmt::Display, expected: impl std::fmt::Display) -> LoadError {
        invalid(self.place.clone(), what, got, expected)
    }

    fn expect_inputs(&self, number: RangeInclusive<usize>) -> Result<(), LoadError> {
        let got = self.inputs.len();
        if number.contains(&got) {
            return Ok(());
        }
        let (least, most) = (number.start(), number.end());
        let expected = if least == most { least.to_string() } else { format!("{least} to {most}") };
        Err(self.wrong("number of inputs", got, expected))
    }

    /// Codes of all inputs and of the output are of one type.
    fn expect_one_type(&self) -> Result<(), LoadError> {
        self.codes(self.input)?;
        match self.inputs.iter().find(|input| input.dtype != self.input.dtype) {
            Some(other) => {
                let got = format!("{} (`{}`)", other.dtype, other.name);
                Err(self.wrong("type of an input", got, format!("{}, as of the first", self.input.dtype)))
            }
            None if self.output.dtype != self.input.dtype => {
                Err(self.wrong("type of the output", self.output.dtype, self.input.dtype))
            }
            None => Ok(()),
        }
    }

    /// The quantization of a value that must hold codes.
    fn codes(&self, value: &Value) -> Result<Quantization, LoadError> {
        value
            .quantization
            .ok_or_else(|| self.wrong("type of a value", format!("f32 (`{}`)", value.name), "codes (u8 or i8)"))
    }

    fn expect_f32(&self, value: &Value) -> Result<(), LoadError> {
        if value.dtype == Dtype::F32 {
            Ok(())
        } else {
            Err(self.wrong("type of a value", format!("{} (`{}`)", value.dtype, value.name), "f32"))
        }
    }

    fn expect_output_shape(&self, shape: &[usize]) -> Result<(), LoadError> {
        if self.output.shape == shape {
            Ok(())
        } else {
            let what = "shape of the output";
            Err(self.wrong(what, format!("{:?} (`{}`)", self.output.shape, self.output.name), format!("{shape:?}")))
        }
    }

    fn expect_same_quantization(&self) -> Result<(), LoadError> {
        let (a, b) = (self.input, self.output);
        if a.dtype == b.dtype && a.quantization == b.quantization {
            Ok(())
        } else {
            let show = |v: &Value| match v.quantization {
                Some(q) => format!("{} with scale {} and zero point {}", v.dtype, q.scale(), q.zero_point()),
                None => v.dtype.to_string(),
            };
            Err(self.wrong("quantization of the output", show(b), format!("that of the input, {}", show(a))))
        }
    }

    fn parameter<T: Element>(&self, parameter: &str, shape: &[usize]) -> Result<Vec<T>, LoadError> {
        self.tensors.get(&self.place, &format!("{}.{parameter}", self.node.name), shape)
    }

    /// Channels, height and width of the input.
    fn image(&self) -> Result<[usize; 3], LoadError> {
        <[usize; 3]>::try_from(self.input.shape.as_slice()).map_err(|_| {
            let got = format!("{:?} (`{}`)", self.input.shape, self.input.name);
            self.wrong("shape of the input", got, "[channels, height, width]")
        })
    }
}
