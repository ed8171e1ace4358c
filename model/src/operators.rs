//! Operators of the format: attributes, rule, tensors and shapes of a node into an [`Operator`].

use crate::document::{self, Bias, Dtype, Memory, Node, Rule};
use crate::error::{At, LoadError, invalid};
use crate::network::{LayerNode, MOST_ELEMENTS, MOST_WINDOW, Operator, Value};
use crate::tensors::Tensors;
use qexact_reference::batch_norm::{self, BatchNorm};
use qexact_reference::layer::LayerParts;
use qexact_reference::layout::channels_last;
use qexact_reference::pool::{self, AdaptivePool, Average, Divisor, Pool};
use qexact_reference::preset::{self, Scales, WeightScale};
use qexact_reference::quantization::check_scale;
use qexact_reference::{Axis, Conv, Layer, Linear, Quantization};
use serde::de::DeserializeOwned;

/// The operators of the format, in the order of its documentation.
const OPERATORS: [&str; 13] = [
    "quantize",
    "dequantize",
    "linear",
    "conv1d",
    "conv2d",
    "conv3d",
    "batch_norm2d",
    "relu",
    "max_pool2d",
    "avg_pool2d",
    "adaptive_avg_pool2d",
    "flatten",
    "reshape",
];

/// A node together with the values around it.
struct Context<'c> {
    node: &'c Node,
    place: String,
    input: &'c Value,
    output: &'c Value,
    tensors: &'c Tensors<'c>,
}

/// Loads one node.
pub(crate) fn load(node: &Node, input: &Value, output: &Value, tensors: &Tensors<'_>) -> Result<Operator, LoadError> {
    let c = Context { node, place: format!("node `{}`", node.name), input, output, tensors };
    match node.op.as_str() {
        "quantize" => c.quantize(),
        "dequantize" => c.dequantize(),
        "linear" => c.linear(),
        "conv1d" => c.conv(1),
        "conv2d" => c.conv(2),
        "conv3d" => c.conv(3),
        "batch_norm2d" => c.batch_norm(),
        "relu" => c.relu(),
        "max_pool2d" => c.max_pool(),
        "avg_pool2d" => c.avg_pool(),
        "adaptive_avg_pool2d" => c.adaptive_avg_pool(),
        "flatten" | "reshape" => c.reshape(),
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

    /// The quantization of a value that must hold codes.
    fn codes(&self, value: &Value) -> Result<Quantization, LoadError> {
        value
            .quantization
            .ok_or_else(|| self.wrong("type of a value", format!("f32 (`{}`)", value.name), "codes (u8 or i8)"))
    }

    /// The quantization of a value that must hold u8 codes.
    fn u8_codes(&self, value: &Value) -> Result<Quantization, LoadError> {
        match (value.dtype, value.quantization) {
            (Dtype::U8, Some(quantization)) => Ok(quantization),
            (dtype, _) => Err(self.wrong("type of a value", format!("{dtype} (`{}`)", value.name), "u8")),
        }
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

    fn quantize(&self) -> Result<Operator, LoadError> {
        let document::NoAttributes {} = self.attributes()?;
        self.expect_f32(self.input)?;
        self.expect_output_shape(&self.input.shape)?;
        let output = self.codes(self.output)?;
        match self.rule()? {
            Rule::Quantize { .. } => Ok(Operator::Quantize(output.quantize())),
            rule => self.wrong_rule(&rule, "quantize"),
        }
    }

    fn dequantize(&self) -> Result<Operator, LoadError> {
        let document::NoAttributes {} = self.attributes()?;
        self.expect_f32(self.output)?;
        self.expect_output_shape(&self.input.shape)?;
        let input = self.codes(self.input)?;
        match self.rule()? {
            Rule::Dequantize {} => Ok(Operator::Dequantize(input)),
            rule => self.wrong_rule(&rule, "dequantize"),
        }
    }

    fn linear(&self) -> Result<Operator, LoadError> {
        let document::Linear { relu } = self.attributes()?;
        let Some((&in_features, leading)) = self.input.shape.split_last() else {
            return Err(self.wrong("shape of the input", "[]", "at least one axis"));
        };
        let Some((&out_features, _)) = self.output.shape.split_last() else {
            return Err(self.wrong("shape of the output", "[]", "at least one axis"));
        };
        self.expect_output_shape(&[leading, &[out_features]].concat())?;
        let rows = leading.iter().product();
        let weight: Vec<i8> = self.parameter("weight", &[out_features, in_features])?;
        self.layer(Linear { rows, in_features, out_features }.into(), true, weight, relu)
    }

    fn conv(&self, spatial: usize) -> Result<Operator, LoadError> {
        let a: document::Conv = self.attributes()?;
        for (what, got) in [
            ("number of strides", a.stride.len()),
            ("number of paddings", a.padding.len()),
            ("number of dilations", a.dilation.len()),
            ("number of spatial axes of the input", self.input.shape.len().saturating_sub(1)),
            ("number of spatial axes of the output", self.output.shape.len().saturating_sub(1)),
        ] {
            if got != spatial {
                return Err(self.wrong(what, got, spatial));
            }
        }
        let name = format!("{}.weight", self.node.name);
        let (shape, weight) = self.tensors.any_shape::<i8>(&self.place, &name)?;
        if shape.len() != spatial + 2 {
            let got = format!("{shape:?}");
            return Err(invalid(format!("tensor `{name}`"), "shape", got, format!("{} axes", spatial + 2)));
        }
        let (in_channels, out_channels) = (self.input.shape[0], self.output.shape[0]);
        let mut axes = [Axis::UNIT; 3];
        for (i, axis) in axes[3 - spatial..].iter_mut().enumerate() {
            *axis = Axis {
                input: self.input.shape[1 + i],
                kernel: shape[2 + i],
                stride: a.stride[i],
                padding: a.padding[i],
                dilation: a.dilation[i],
            };
        }
        let conv = Conv { batch: 1, in_channels, out_channels, groups: a.groups, axes };
        conv.validate().at(|| self.place.clone())?;
        let padded = axes.iter().map(|a| a.input + a.padding[0] + a.padding[1]).product::<usize>() * in_channels;
        if padded > MOST_ELEMENTS {
            return Err(self.wrong("elements of the padded input", padded, format!("at most {MOST_ELEMENTS}")));
        }
        let expected = [&[out_channels, conv.group_inputs()][..], &shape[2..]].concat();
        if shape != expected {
            let (got, expected) = (format!("{shape:?}"), format!("{expected:?}"));
            return Err(invalid(format!("tensor `{name}`"), "shape", got, expected));
        }
        let extents = conv.output_extents().at(|| self.place.clone())?;
        self.expect_output_shape(&[&[out_channels], &extents[3 - spatial..]].concat())?;
        let weight = channels_last(&weight, conv.group_inputs(), conv.taps());
        self.layer(conv, false, weight, a.relu)
    }

    /// The part that linear and convolution layers share; `weight` is OHWI.
    fn layer(&self, shape: Conv, linear: bool, weight: Vec<i8>, relu: bool) -> Result<Operator, LoadError> {
        let (input, output) = (self.u8_codes(self.input)?, self.u8_codes(self.output)?);
        let channels = shape.out_channels;
        let name = |parameter: &str| format!("{}.{parameter}", self.node.name);
        let (scale_shape, scales) = self.tensors.any_shape::<f64>(&self.place, &name("weight_scale"))?;
        if scale_shape != [1] && scale_shape != [channels] {
            let (got, expected) = (format!("{scale_shape:?}"), format!("[1] or [{channels}]"));
            return Err(invalid(format!("tensor `{}`", name("weight_scale")), "shape", got, expected));
        }
        for &scale in &scales {
            check_scale("a weight scale", scale).at(|| format!("tensor `{}`", name("weight_scale")))?;
        }
        let weight_zero_point: Vec<i32> = self.parameter("weight_zero_point", &scale_shape)?;
        let bias_name = name("bias");
        let has_bias = self.tensors.view(&bias_name).is_some();
        let bias = if has_bias { Some(self.parameter::<f32>("bias", &[channels])?) } else { None };
        let Rule::F32Mul { bias: kind, .. } = self.rule()? else {
            return self.wrong_rule(&self.rule()?, "f32_mul");
        };
        let weight_scale = match (kind, has_bias, scales.as_slice()) {
            (Bias::None, false, [scale]) | (Bias::Fused, true, [scale]) => WeightScale::PerTensor(*scale),
            (Bias::None, false, scales) => WeightScale::PerChannel(scales),
            (Bias::Addend, true, scales) if scales.len() == channels => WeightScale::PerChannel(scales),
            (Bias::None, true, _) => return Err(self.wrong("`bias` of the rule", "none", "addend or fused")),
            (Bias::Fused | Bias::Addend, false, _) => {
                return Err(LoadError::Unresolved { place: self.place.clone(), what: "tensor", name: bias_name });
            }
            (Bias::Fused, true, _) => {
                return Err(self.wrong("number of weight scales", scales.len(), "1 (fused bias)"));
            }
            (Bias::Addend, true, _) => {
                return Err(self.wrong("number of weight scales", scales.len(), format!("{channels} (bias addend)")));
            }
        };
        let scales_given = scales.len();
        let rule = preset::fbgemm(Scales { input: input.scale(), weight: weight_scale, output }, bias.as_deref(), relu)
            .at(|| self.place.clone())?;
        let rule = qexact_reference::Rule::F32Mul(rule);
        Layer::new(LayerParts {
            shape,
            input: input.codes(),
            input_zero_point: input.zero_point(),
            weight: &weight,
            weight_zero_point: &weight_zero_point,
            rule: &rule,
        })
        .at(|| self.place.clone())?;
        let weight_scales = scales_given;
        Ok(Operator::Layer(Box::new(LayerNode {
            shape,
            linear,
            input,
            weight,
            weight_zero_point,
            weight_scales,
            rule,
        })))
    }

    fn parameter<T: crate::tensors::Element>(&self, parameter: &str, shape: &[usize]) -> Result<Vec<T>, LoadError> {
        self.tensors.get(&self.place, &format!("{}.{parameter}", self.node.name), shape)
    }

    /// Channels, height and width of the input.
    fn image(&self) -> Result<[usize; 3], LoadError> {
        <[usize; 3]>::try_from(self.input.shape.as_slice()).map_err(|_| {
            let got = format!("{:?} (`{}`)", self.input.shape, self.input.name);
            self.wrong("shape of the input", got, "[channels, height, width]")
        })
    }

    fn batch_norm(&self) -> Result<Operator, LoadError> {
        let a: document::BatchNorm = self.attributes()?;
        let [channels, ..] = self.image()?;
        self.expect_output_shape(&self.input.shape)?;
        let parameter = |name| -> Result<Vec<f32>, LoadError> {
            let values: Vec<f32> = self.parameter(name, &[channels])?;
            match values.iter().find(|v| !v.is_finite()) {
                None => Ok(values),
                Some(v) => {
                    Err(invalid(format!("tensor `{}.{name}`", self.node.name), "an element", v, "a finite number"))
                }
            }
        };
        let (weight, bias) = (parameter("weight")?, parameter("bias")?);
        let (mean, var) = (parameter("running_mean")?, parameter("running_var")?);
        if let Some(v) = var.iter().find(|&&v| v + (a.eps as f32) <= 0.0) {
            let place = format!("tensor `{}.running_var`", self.node.name);
            return Err(invalid(place, "an element", v, "more than −eps"));
        }
        match self.rule()? {
            Rule::BatchNorm { fma: true } => {}
            Rule::BatchNorm { fma: false } => return Err(self.wrong("`fma` of the rule", false, true)),
            rule => return self.wrong_rule(&rule, "batch_norm"),
        }
        let parameters =
            batch_norm::Parameters { weight: &weight, bias: &bias, running_mean: &mean, running_var: &var, eps: a.eps };
        let (input, output) = (self.codes(self.input)?, self.codes(self.output)?);
        if self.input.dtype != self.output.dtype {
            return Err(self.wrong("type of the output", self.output.dtype, self.input.dtype));
        }
        Ok(Operator::BatchNorm(BatchNorm::new(&parameters, input, output, a.relu).at(|| self.place.clone())?))
    }

    fn relu(&self) -> Result<Operator, LoadError> {
        let document::NoAttributes {} = self.attributes()?;
        self.no_rule()?;
        self.expect_output_shape(&self.input.shape)?;
        self.expect_same_quantization()?;
        Ok(Operator::Relu(self.codes(self.input)?.zero_point()))
    }

    /// A pool with these height and width axes, whose output shape is checked.
    fn window_pool(&self, axes: [Axis; 2], ceil_mode: bool) -> Result<Pool, LoadError> {
        let [channels, ..] = self.image()?;
        self.expect_same_quantization()?;
        self.codes(self.input)?;
        let pool = Pool { batch: 1, channels, axes: [Axis::UNIT, axes[0], axes[1]], ceil_mode };
        let [_, height, width] = pool.output_extents().at(|| self.place.clone())?;
        // A window much larger than its input is all padding.
        let window: usize = pool.axes.iter().map(|a| a.kernel).fold(1, usize::saturating_mul);
        if window > MOST_WINDOW {
            return Err(self.wrong("pixels of a window", window, format!("at most {MOST_WINDOW}")));
        }
        self.expect_output_shape(&[channels, height, width])?;
        Ok(pool)
    }

    fn max_pool(&self) -> Result<Operator, LoadError> {
        let a: document::MaxPool = self.attributes()?;
        self.no_rule()?;
        let [_, height, width] = self.image()?;
        let axis = |i: usize, input| Axis {
            input,
            kernel: a.kernel[i],
            stride: a.stride[i],
            padding: [a.padding[i]; 2],
            dilation: a.dilation[i],
        };
        Ok(Operator::MaxPool(self.window_pool([axis(0, height), axis(1, width)], a.ceil_mode)?))
    }

    fn average(&self) -> Result<Average, LoadError> {
        let input = self.codes(self.input)?;
        let memory = match self.rule()? {
            Rule::Pool { memory: Memory::ChannelsLast } => pool::Memory::ChannelsLast,
            Rule::Pool { memory: Memory::Contiguous } => pool::Memory::Contiguous,
            rule => return self.wrong_rule(&rule, "pool"),
        };
        Ok(Average { memory, zero_point: input.zero_point(), codes: input.codes() })
    }

    fn avg_pool(&self) -> Result<Operator, LoadError> {
        let a: document::AvgPool = self.attributes()?;
        let [_, height, width] = self.image()?;
        let axis = |i: usize, input| Axis {
            input,
            kernel: a.kernel[i],
            stride: a.stride[i],
            padding: [a.padding[i]; 2],
            dilation: 1,
        };
        let divisor = match (a.divisor_override, a.count_include_pad) {
            (Some(0), _) => return Err(self.wrong("`divisor_override`", 0, "at least 1, or null")),
            (Some(n), _) => Divisor::Constant(n),
            (None, true) => Divisor::Padded,
            (None, false) => Divisor::Image,
        };
        let pool = self.window_pool([axis(0, height), axis(1, width)], a.ceil_mode)?;
        Ok(Operator::AvgPool(pool, divisor, self.average()?))
    }

    fn adaptive_avg_pool(&self) -> Result<Operator, LoadError> {
        let a: document::AdaptiveAvgPool = self.attributes()?;
        let [channels, height, width] = self.image()?;
        self.expect_same_quantization()?;
        let [out_height, out_width] = a.output_size;
        if out_height == 0 || out_width == 0 {
            return Err(self.wrong("`output_size`", format!("{:?}", a.output_size), "extents of at least 1"));
        }
        self.expect_output_shape(&[channels, out_height, out_width])?;
        let (input, output) = ([1, height, width], [1, out_height, out_width]);
        Ok(Operator::AdaptiveAvgPool(AdaptivePool { batch: 1, channels, input, output }, self.average()?))
    }

    fn reshape(&self) -> Result<Operator, LoadError> {
        let document::NoAttributes {} = self.attributes()?;
        self.no_rule()?;
        self.expect_same_quantization()?;
        let (from, to) = (self.input.sample_len(), self.output.sample_len());
        if from != to {
            return Err(self.wrong("number of elements of the output", to, from));
        }
        Ok(Operator::Reshape)
    }
}
