//! What runtimes make of a case's numbers: which codes there are, and the rule that a preset derives.

use super::super::activation;
use super::super::error::{Part, Problem};
use super::super::file::{Case, Scalar};
use super::geometry::Geometry;
use qexact_reference::preset::{self, Scales, WeightScale};
use qexact_reference::requantize::{Codes, F32Real, Q31Double, RealOutput, Rounding, Sum};
use qexact_reference::saturation::Machine;
use qexact_reference::{CodeType, Error, Quantization, Rule};
use serde::de::DeserializeOwned;

/// A runtime's way with a layer.
pub(in super::super) struct Dialect {
    pub(super) codes: CodesOf,
    pub(super) derive: fn(&mut Case<'_>, &Geometry, Types) -> Result<Derived, Problem>,
}

/// Which codes a runtime's tensors hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum CodesOf {
    /// Inputs and outputs u8, weights i8.
    Torch,
    /// Inputs, weights and outputs either.
    Onnx,
    /// All i8.
    Lite,
    /// Inputs and weights i8, outputs in int16 elements.
    Brevitas,
}

/// The codes of a case's input and output.
#[derive(Clone, Copy)]
pub(super) struct Types {
    pub(super) input: CodeType,
    pub(super) output: CodeType,
}

impl CodesOf {
    pub(super) fn types(self, case: &Case<'_>) -> Result<Types, Problem> {
        Ok(match self {
            CodesOf::Torch => Types { input: CodeType::U8, output: CodeType::U8 },
            CodesOf::Onnx => Types { input: case.code_type("x")?, output: case.code_type("y")? },
            CodesOf::Lite | CodesOf::Brevitas => Types { input: CodeType::I8, output: CodeType::I8 },
        })
    }
}

/// What a dialect derives from a case.
pub(super) struct Derived {
    pub(super) input_zero_point: i32,
    pub(super) weight_zero_point: Vec<i32>,
    pub(super) rule: Rule,
    /// The channels from this one on follow another rule: a kernel's scalar tail.
    pub(super) tail: Option<(usize, Rule)>,
    /// The tensor that the rule adds, in the order of the file.
    pub(super) addend: Added,
    /// What it was recorded on, if that may add pairs of products in 16 bits.
    pub(super) machine: Option<Machine>,
}

/// A tensor that a rule adds.
pub(super) enum Added {
    Nothing,
    Codes(Vec<u8>),
    Reals(Vec<f32>),
}

/// The quantization of a layer.
struct Parameters {
    input: Quantization,
    weight_scale: Vec<f64>,
    per_channel: bool,
    weight_zero_point: Vec<i32>,
    output: Quantization,
}

impl Parameters {
    fn take(case: &mut Case<'_>, geometry: &Geometry, types: Types) -> Result<Parameters, Problem> {
        let channels = geometry.shape.out_channels;
        let (weight_scale, each) = if case.holds::<f32>("w_scale") {
            let (scales, each) = one_or_each::<f32>(case, "w_scale", channels)?;
            (scales.into_iter().map(f64::from).collect(), each)
        } else {
            one_or_each::<f64>(case, "w_scale", channels)?
        };
        let per_channel: bool = case.field("per_channel", "true or false")?;
        if per_channel != each {
            let expected = if each { "true with a tensor `w_scale`" } else { "false without a tensor `w_scale`" };
            return Err(Problem::wrong(Part::Field, "per_channel", per_channel, expected));
        }
        let (weight_zero_point, _) = one_or_each(case, "w_zero_point", channels)?;
        let input = case.quantization("x_", types.input)?;
        let output = case.quantization("y_", types.output)?;
        Ok(Parameters { input, weight_scale, per_channel, weight_zero_point, output })
    }

    fn scales(&self) -> Scales<'_> {
        let weight = match self.weight_scale[..] {
            [scale] if !self.per_channel => WeightScale::PerTensor(scale),
            _ => WeightScale::PerChannel(&self.weight_scale),
        };
        Scales { input: self.input.scale(), weight, output: self.output }
    }

    /// With the rule of a preset.
    fn with(self, rule: Result<Rule, Error>) -> Result<Derived, Problem> {
        Ok(Derived {
            input_zero_point: self.input.zero_point(),
            weight_zero_point: self.weight_zero_point,
            rule: rule.map_err(Problem::refused("scales"))?,
            tail: None,
            addend: Added::Nothing,
            machine: None,
        })
    }
}

/// A parameter of the weights: a field for all of them, or a tensor with one element an output channel. Tells
/// which it is.
pub(in super::super) fn one_or_each<T: Scalar + DeserializeOwned>(
    case: &mut Case<'_>,
    name: &str,
    channels: usize,
) -> Result<(Vec<T>, bool), Problem> {
    let one = case.nullable_field(name, "a number, or null beside a tensor")?;
    let each = if case.has(name) { Some(case.tensor(name, &[channels])?) } else { None };
    match (one, each) {
        (Some(one), None) => Ok((vec![one], false)),
        (None, Some(each)) => Ok((each, true)),
        (None, None) => Err(Problem::missing(Part::Field, name, "a number where there is no tensor")),
        (Some(_), Some(_)) => Err(Problem::wrong(Part::Field, name, "a number", "null beside a tensor")),
    }
}

fn bias<T: Scalar>(case: &mut Case<'_>, geometry: &Geometry) -> Result<Option<Vec<T>>, Problem> {
    if case.has("bias") { case.tensor("bias", &[geometry.shape.out_channels]).map(Some) } else { Ok(None) }
}

fn relu(case: &mut Case<'_>) -> Result<bool, Problem> {
    case.field("relu", "true or false")
}

/// PyTorch's engine fbgemm.
pub(in super::super) const FBGEMM: Dialect = Dialect {
    codes: CodesOf::Torch,
    derive: |case, geometry, types| {
        let bias = bias(case, geometry)?;
        let parameters = Parameters::take(case, geometry, types)?;
        let rule = preset::fbgemm(parameters.scales(), bias.as_deref(), relu(case)?).map(Rule::F32Mul);
        Ok(Derived { machine: Some(Machine::FbgemmDepthwise), ..parameters.with(rule)? })
    },
};

/// The same on a CPU without VNNI.
pub(in super::super) const FBGEMM_WITHOUT_VNNI: Dialect = Dialect {
    codes: CodesOf::Torch,
    derive: |case, geometry, types| {
        let derived = (FBGEMM.derive)(case, geometry, types)?;
        Ok(Derived { machine: Some(Machine::FbgemmWithoutVnni), ..derived })
    },
};

/// PyTorch's engine onednn, linear layers.
pub(in super::super) const ONEDNN_LINEAR: Dialect = Dialect {
    codes: CodesOf::Torch,
    derive: |case, geometry, types| {
        let bias = bias(case, geometry)?;
        let parameters = Parameters::take(case, geometry, types)?;
        let rule = preset::onednn_linear(parameters.scales(), bias.as_deref(), relu(case)?).map(Rule::F32Real);
        parameters.with(rule)
    },
};

/// PyTorch's engine onednn, convolutions.
pub(in super::super) const ONEDNN_CONV: Dialect = Dialect {
    codes: CodesOf::Torch,
    derive: |case, geometry, types| {
        let bias = bias(case, geometry)?;
        let parameters = Parameters::take(case, geometry, types)?;
        let rule = preset::onednn_conv(parameters.scales(), bias.as_deref(), relu(case)?).map(Rule::F32Real);
        parameters.with(rule)
    },
};

/// PyTorch's engine onednn, convolutions that add a tensor of codes.
pub(in super::super) const ONEDNN_CONV_ADD: Dialect = Dialect {
    codes: CodesOf::Torch,
    derive: |case, geometry, types| {
        let (scale, zero_point) = accumulated(case)?;
        let sum = preset::onednn_sum(scale, zero_point, CodeType::U8).map_err(Problem::refused("accum_scale"))?;
        let addend = Added::Codes(case.tensor("accum", &geometry.output)?);
        let derived = (ONEDNN_CONV.derive)(case, geometry, types)?;
        let rule = match derived.rule {
            Rule::F32Real(rule) => Rule::F32Real(F32Real { sum, ..rule }),
            other => other,
        };
        Ok(Derived { rule, addend, ..derived })
    },
};

/// Scale and zero point of `accum`.
fn accumulated(case: &mut Case<'_>) -> Result<(f64, i32), Problem> {
    Ok((case.field("accum_scale", "a number")?, case.field("accum_zero_point", "an integer")?))
}

/// PyTorch's engine x86, convolutions.
pub(in super::super) const X86_CONV: Dialect = Dialect {
    codes: CodesOf::Torch,
    derive: |case, geometry, types| {
        let bias = bias::<f32>(case, geometry)?;
        let parameters = Parameters::take(case, geometry, types)?;
        let (scales, bias, relu) = (parameters.scales(), bias.as_deref(), relu(case)?);
        let onednn = preset::x86_takes_onednn(&geometry.shape, &parameters.weight_zero_point);
        let rule = if onednn {
            preset::onednn_conv(scales, bias, relu).map(Rule::F32Real)
        } else {
            preset::fbgemm(scales, bias, relu).map(Rule::F32Mul)
        };
        Ok(Derived { machine: (!onednn).then_some(Machine::FbgemmDepthwise), ..parameters.with(rule)? })
    },
};

/// PyTorch's `onednn.q…_pointwise`, with what they fuse.
pub(in super::super) const PT2E: Dialect = Dialect {
    codes: CodesOf::Torch,
    derive: |case, geometry, types| {
        const POSTS: &str = "one of none, relu, sum, sum_relu, add, add_relu, hardtanh, f32";
        let post: String = case.field("post", POSTS)?;
        let (sum, addend) = match post.as_str() {
            "sum" | "sum_relu" => {
                let (scale, zero_point) = accumulated(case)?;
                let sum = Sum::Codes { scale: scale as f32, zero_point, codes: CodeType::U8 };
                (sum, Added::Codes(case.tensor("accum", &geometry.output)?))
            }
            "add" | "add_relu" => (Sum::Reals, Added::Reals(case.tensor("addend", &geometry.output)?)),
            "none" | "relu" | "hardtanh" | "f32" => (Sum::None, Added::Nothing),
            _ => return Err(Problem::wrong(Part::Field, "post", format_args!("`{post}`"), POSTS)),
        };
        let clip = match post.as_str() {
            "relu" | "sum_relu" | "add_relu" => F32Real::RELU,
            "hardtanh" => {
                let [least, most]: [f64; 2] = case.field("hardtanh", "two numbers")?;
                Some([least as f32, most as f32])
            }
            _ => None,
        };
        let rectified = clip == F32Real::RELU;
        if relu(case)? != rectified {
            return Err(Problem::wrong(Part::Field, "relu", !rectified, format_args!("{rectified} beside `{post}`")));
        }
        let bias = bias(case, geometry)?;
        let parameters = Parameters::take(case, geometry, types)?;
        let rule = preset::pt2e(parameters.scales(), bias.as_deref(), clip).map(|rule| {
            let output = if post == "f32" { RealOutput::Reals } else { rule.output };
            Rule::F32Real(F32Real { sum, output, ..rule })
        });
        Ok(Derived { addend, ..parameters.with(rule)? })
    },
};

/// PyTorch's engine qnnpack.
pub(in super::super) const QNNPACK: Dialect = Dialect {
    codes: CodesOf::Torch,
    derive: |case, geometry, types| {
        let bias = bias(case, geometry)?;
        let parameters = Parameters::take(case, geometry, types)?;
        let rule = preset::qnnpack(parameters.scales(), bias.as_deref(), relu(case)?).map(Rule::F32Mul);
        parameters.with(rule)
    },
};

/// ONNX Runtime.
pub(in super::super) const ORT: Dialect = Dialect {
    codes: CodesOf::Onnx,
    derive: |case, geometry, types| {
        let bias = bias(case, geometry)?;
        let parameters = Parameters::take(case, geometry, types)?;
        let rule = preset::ort(parameters.scales(), bias.as_deref()).map(Rule::F32Mul);
        parameters.with(rule)
    },
};

/// The same on a CPU without VNNI.
pub(in super::super) const ORT_WITHOUT_VNNI: Dialect = Dialect {
    codes: CodesOf::Onnx,
    derive: |case, geometry, types| {
        let derived = (ORT.derive)(case, geometry, types)?;
        Ok(Derived { machine: Some(Machine::OnnxRuntimeWithoutVnni), ..derived })
    },
};

/// ONNX's reference evaluator.
pub(in super::super) const ONNX_REFERENCE: Dialect = Dialect {
    codes: CodesOf::Onnx,
    derive: |case, geometry, types| {
        let bias = bias(case, geometry)?;
        let parameters = Parameters::take(case, geometry, types)?;
        let rule = preset::onnx_reference(parameters.scales(), bias.as_deref()).map(Rule::F64);
        parameters.with(rule)
    },
};

/// A dialect of those that run TFLite's models, by its preset.
macro_rules! lite {
    ($(#[$doc:meta])* $name:ident, $preset:path, $rule:path) => {
        $(#[$doc])*
        pub(in super::super) const $name: Dialect = Dialect {
            codes: CodesOf::Lite,
            derive: |case, geometry, types| {
                let bias = bias(case, geometry)?;
                let activation = activation(case)?;
                let parameters = Parameters::take(case, geometry, types)?;
                let rule = $preset(parameters.scales(), bias.as_deref(), activation).map($rule);
                parameters.with(rule)
            },
        };
    };
}

lite!(
    /// TFLite's reference kernels.
    TFLITE_REFERENCE, preset::tflite_reference, Rule::Q31Double
);
lite!(
    /// TFLite's reference kernel for fully connected layers.
    TFLITE_REFERENCE_FULLY_CONNECTED, preset::tflite_reference_fully_connected, Rule::F64
);
lite!(
    /// TFLite's optimised kernels.
    TFLITE_RUY, preset::tflite_ruy, Rule::Q31Double
);
/// TFLite's optimised kernel for depthwise convolutions: whole groups of 8 channels are vectors, and those left over
/// follow the reference.
pub(in super::super) const TFLITE_RUY_DEPTHWISE: Dialect = Dialect {
    codes: CodesOf::Lite,
    derive: |case, geometry, types| {
        let channels = geometry.shape.out_channels;
        let derived = (TFLITE_RUY.derive)(case, geometry, types)?;
        let tail = match &derived.rule {
            Rule::Q31Double(body) if channels % 8 != 0 => {
                let scalar = Q31Double { last: Rounding::Away, ..body.clone() };
                Some((channels / 8 * 8, Rule::Q31Double(scalar)))
            }
            _ => None,
        };
        Ok(Derived { tail, ..derived })
    },
};

lite!(
    /// TFLite's optimised kernel for fully connected layers.
    TFLITE_RUY_FULLY_CONNECTED, preset::tflite_ruy_fully_connected, Rule::Q31Double
);
lite!(
    /// XNNPACK.
    XNNPACK, preset::xnnpack, Rule::F32Mul
);

/// Brevitas with scales that are powers of two.
pub(in super::super) const BREVITAS: Dialect = Dialect {
    codes: CodesOf::Brevitas,
    derive: |case, geometry, _| {
        let channels = geometry.shape.out_channels;
        // What codes were made from, and how wide they are; the codes are there.
        for (name, shape) in
            [("x_float", &geometry.input), ("w_float", &geometry.weight), ("bias_float", &vec![channels])]
        {
            if case.has(name) {
                case.tensor::<f32>(name, shape)?;
            }
        }
        let _: u8 = case.field("weight_bits", "a number of bits")?;
        let bias = bias::<i16>(case, geometry)?.map(|bias| bias.into_iter().map(i32::from).collect::<Vec<_>>());
        let per_channel: bool = case.field("per_channel", "true or false")?;
        let scales = if per_channel { channels } else { 1 };
        let weight_scale = case.tensor::<f64>("w_scale", &[scales])?;
        let codes = CodeType::new(case.field("out_bits", "a number of bits")?, !relu(case)?)
            .map_err(Problem::refused("out_bits"))?;
        let output =
            Quantization::new(case.field("y_scale", "a number")?, 0, codes).map_err(Problem::refused("y_scale"))?;
        let input = Quantization::new(case.field("x_scale", "a number")?, 0, CodeType::I8)
            .map_err(Problem::refused("x_scale"))?;
        let parameters = Parameters { input, weight_scale, per_channel, weight_zero_point: vec![0], output };
        let mut rule = preset::brevitas(parameters.scales(), bias.as_deref()).map_err(Problem::refused("scales"))?;
        let [lo, hi]: [i32; 2] = [case.field("out_min", "an integer")?, case.field("out_max", "an integer")?];
        rule.codes = Codes::new(0, codes)
            .and_then(|all| all.clamped(lo, hi))
            .map_err(Problem::refused("out_min and out_max"))?;
        let shift = case.tensor::<i32>("shift", &[scales])?;
        if shift != rule.shift {
            let expected = format_args!("{:?}, as the scales say", rule.shift);
            return Err(Problem::wrong(Part::Tensor, "shift", format_args!("{shift:?}"), expected));
        }
        parameters.with(Ok(Rule::Pow2(rule)))
    },
};
