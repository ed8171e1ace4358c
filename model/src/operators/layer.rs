//! Linear and convolution layers.

use super::Context;
use crate::document::{self, Bias, DynamicQuantize, Granularity, Multiplier, Rule};
use crate::error::{At, LoadError, invalid};
use crate::network::{DynamicNode, LayerNode, MOST_ELEMENTS, MOST_TAPS, Operator};
use crate::tensors::Element;
use qexact_reference::layer::LayerParts;
use qexact_reference::layout::channels_last;
use qexact_reference::preset::{self, DynamicEngine, Scales, WeightScale};
use qexact_reference::quantization::check_scale;
use qexact_reference::requantize::{F32Real, RealOutput, Rule as Requantize, Sum};
use qexact_reference::{Axis, CodeType, Conv, Layer, Linear, Quantization};

impl Context<'_> {
    pub(super) fn linear(&self) -> Result<Operator, LoadError> {
        let document::Linear { relu, weight_bits } = self.attributes()?;
        let shape = self.linear_shape()?;
        let weight = self.parameter("weight", &[shape.out_features, shape.in_features])?;
        let weights = self.weights(shape.out_features, weight, weight_bits)?;
        self.layer(shape.into(), true, weights, relu)
    }

    /// Rows are those of one sample.
    fn linear_shape(&self) -> Result<Linear, LoadError> {
        let Some((&in_features, leading)) = self.input.shape.split_last() else {
            return Err(self.wrong("shape of the input", "[]", "at least one axis"));
        };
        let Some((&out_features, _)) = self.output.shape.split_last() else {
            return Err(self.wrong("shape of the output", "[]", "at least one axis"));
        };
        self.expect_output_shape(&[leading, &[out_features]].concat())?;
        Ok(Linear { rows: leading.iter().product(), in_features, out_features })
    }

    pub(super) fn conv(&self, spatial: usize) -> Result<Operator, LoadError> {
        let a: document::Conv = self.attributes()?;
        let (strides, paddings, dilations) = (a.stride.len(), a.padding.len(), a.dilation.len());
        self.expect_axes(
            spatial,
            &[("number of strides", strides), ("number of paddings", paddings), ("number of dilations", dilations)],
        )?;
        let (name, shape, weight) = self.spatial_weight(spatial)?;
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
        self.expect_bounded(&conv)?;
        let expected = [&[out_channels, conv.group_inputs()][..], &shape[2..]].concat();
        if shape != expected {
            let (got, expected) = (format!("{shape:?}"), format!("{expected:?}"));
            return Err(invalid(format!("tensor `{name}`"), "shape", got, expected));
        }
        let extents = conv.output_extents().at(|| self.place.clone())?;
        self.expect_output_shape(&[&[out_channels], &extents[3 - spatial..]].concat())?;
        let weight = channels_last(&weight, conv.group_inputs(), conv.taps());
        let weights = self.weights(out_channels, weight, a.weight_bits)?;
        self.layer(conv, false, weights, a.relu)
    }

    /// One of each attribute for every spatial axis, which input and output have as many of.
    pub(super) fn expect_axes(&self, spatial: usize, attributes: &[(&'static str, usize)]) -> Result<(), LoadError> {
        let values = [
            ("number of spatial axes of the input", self.input.shape.len().saturating_sub(1)),
            ("number of spatial axes of the output", self.output.shape.len().saturating_sub(1)),
        ];
        match attributes.iter().chain(&values).find(|(_, got)| *got != spatial) {
            Some(&(what, got)) => Err(self.wrong(what, got, spatial)),
            None => Ok(()),
        }
    }

    /// The tensor `weight` of a convolution: its name, shape and codes.
    pub(super) fn spatial_weight(&self, spatial: usize) -> Result<(String, Vec<usize>, Vec<i8>), LoadError> {
        let name = format!("{}.weight", self.node.name);
        let (shape, weight) = self.tensors.any_shape::<i8>(&self.place, &name)?;
        if shape.len() != spatial + 2 {
            let got = format!("{shape:?}");
            return Err(invalid(format!("tensor `{name}`"), "shape", got, format!("{} axes", spatial + 2)));
        }
        Ok((name, shape, weight))
    }

    /// What a convolution's padded input and its work may be at most.
    pub(super) fn expect_bounded(&self, conv: &Conv) -> Result<(), LoadError> {
        let extents = conv.axes.iter().map(|a| a.input.saturating_add(a.padding[0]).saturating_add(a.padding[1]));
        let padded = extents.fold(conv.in_channels, usize::saturating_mul);
        if padded > MOST_ELEMENTS {
            return Err(self.wrong("elements of the padded input", padded, format!("at most {MOST_ELEMENTS}")));
        }
        let taps = conv.pixels().saturating_mul(conv.taps());
        if taps > MOST_TAPS {
            return Err(self.wrong("output pixels times taps", taps, format!("at most {MOST_TAPS}")));
        }
        Ok(())
    }

    /// The parameters that all layers have; `codes` are OHWI.
    pub(super) fn weights(&self, channels: usize, codes: Vec<i8>, bits: Option<u8>) -> Result<Weights, LoadError> {
        let name = |parameter: &str| format!("{}.{parameter}", self.node.name);
        if let Some(bits) = bits {
            let range = CodeType::new(bits, true).at(|| self.place.clone())?;
            for &code in &codes {
                range.check("a weight", code.into()).at(|| format!("tensor `{}`", name("weight")))?;
            }
        }
        let (shape, scales) = self.tensors.any_shape::<f64>(&self.place, &name("weight_scale"))?;
        if shape != [1] && shape != [channels] {
            let (got, expected) = (format!("{shape:?}"), format!("[1] or [{channels}]"));
            return Err(invalid(format!("tensor `{}`", name("weight_scale")), "shape", got, expected));
        }
        for &scale in &scales {
            check_scale("a weight scale", scale).at(|| format!("tensor `{}`", name("weight_scale")))?;
        }
        let zero_point: Vec<i32> = self.parameter("weight_zero_point", &shape)?;
        Ok(Weights { codes, scales, zero_point })
    }

    /// The tensor `bias`, if there is one.
    fn bias<T: Element>(&self, channels: usize) -> Result<Option<Vec<T>>, LoadError> {
        match self.tensors.view(&format!("{}.bias", self.node.name)) {
            Some(_) => self.parameter("bias", &[channels]).map(Some),
            None => Ok(None),
        }
    }

    /// The part that linear and convolution layers share.
    fn layer(&self, shape: Conv, linear: bool, weights: Weights, relu: bool) -> Result<Operator, LoadError> {
        let input = self.codes(self.input)?;
        let rule = self.layer_rule(shape.out_channels, linear, &weights, relu)?;
        let Weights { codes: weight, scales, zero_point: weight_zero_point } = weights;
        Layer::new(LayerParts {
            shape,
            input: input.codes(),
            input_zero_point: input.zero_point(),
            weight: &weight,
            weight_zero_point: &weight_zero_point,
            rule: &rule,
        })
        .at(|| self.place.clone())?;
        // The rule has checked it.
        let bias = if matches!(rule, Requantize::Pow2(_)) { None } else { self.bias(shape.out_channels)? };
        Ok(Operator::Layer(Box::new(LayerNode {
            shape,
            linear,
            input,
            weight,
            weight_zero_point,
            weight_scale: scales,
            bias,
            output: self.output.quantization,
            rule,
        })))
    }

    /// The rule of a layer of so many output channels.
    pub(super) fn layer_rule(
        &self,
        channels: usize,
        linear: bool,
        weights: &Weights,
        relu: bool,
    ) -> Result<Requantize, LoadError> {
        let rule = self.rule()?;
        if let Some(addend) = self.inputs.get(1) {
            if !matches!(rule, Rule::F32Real { .. }) {
                return Err(self.wrong("number of inputs", 2, format!("1 with the rule {}", rule.kind())));
            }
            self.expect_output_shape(&addend.shape)?;
        }
        let at = || self.place.clone();
        match rule {
            Rule::F32Mul { multiplier: Multiplier::Quotient, bias: kind, .. } => {
                let bias = self.bias::<f32>(channels)?;
                let weight = self.granularity(kind, bias.is_some(), &weights.scales, channels)?;
                let rule = preset::fbgemm(self.scales(weight, self.codes(self.output)?)?, bias.as_deref(), relu);
                Ok(Requantize::F32Mul(rule.at(at)?))
            }
            Rule::F32Mul { multiplier: Multiplier::Reciprocal, bias: kind, .. } => {
                let bias = self.bias::<f32>(channels)?;
                match (kind, bias.is_some()) {
                    (Bias::None, false) | (Bias::Rounded, true) => {}
                    (Bias::Rounded, false) => return Err(self.no_bias()),
                    (kind, has_bias) => {
                        let expected = if has_bias { "rounded" } else { "none" };
                        let expected = format!("{expected} (multiplier reciprocal)");
                        return Err(self.wrong("`bias` of the rule", kind.as_str(), expected));
                    }
                }
                let scales = self.scales(WeightScale::PerChannel(&weights.scales), self.codes(self.output)?)?;
                Ok(Requantize::F32Mul(preset::qnnpack(scales, bias.as_deref(), relu).at(at)?))
            }
            Rule::F32Real { scales, weight, clip } => {
                let clip = self.clip(clip, relu)?;
                let bias = self.bias::<f32>(channels)?;
                let weight = self.stated_granularity(weight, &weights.scales, channels)?;
                // Where real numbers are stored, the output's scale takes no part.
                let codes = self.output.quantization;
                let any = Quantization::new(1.0, 0, CodeType::U8).at(at)?;
                let given = self.scales(weight, codes.unwrap_or(any))?;
                let rule = match scales {
                    document::Scales::Direct => preset::pt2e(given, bias.as_deref(), clip),
                    document::Scales::Reciprocal if linear => preset::onednn_linear(given, bias.as_deref(), false),
                    document::Scales::Reciprocal => preset::onednn_conv(given, bias.as_deref(), false),
                };
                let mut rule = F32Real { clip, sum: self.sum(scales)?, ..rule.at(at)? };
                if codes.is_none() {
                    rule.output = RealOutput::Reals;
                }
                Ok(Requantize::F32Real(rule))
            }
            Rule::Pow2 { rounding: document::Rounding::Even } => {
                let bias = self.bias::<i32>(channels)?;
                let output = self.codes(self.output)?;
                let scales = self.scales(WeightScale::PerChannel(&weights.scales), output)?;
                let mut rule = preset::brevitas(scales, bias.as_deref()).at(at)?;
                if relu {
                    rule.codes = rule.codes.relu();
                }
                Ok(Requantize::Pow2(rule))
            }
            rule => self.wrong_rule(&rule, "f32_mul, f32_real or pow2"),
        }
    }

    fn scales<'s>(&self, weight: WeightScale<'s>, output: Quantization) -> Result<Scales<'s>, LoadError> {
        Ok(Scales { input: self.codes(self.input)?.scale(), weight, output })
    }

    fn no_bias(&self) -> LoadError {
        LoadError::Unresolved { place: self.place.clone(), what: "tensor", name: format!("{}.bias", self.node.name) }
    }

    /// R8b and R8c: how the bias enters says whether there is one weight scale, or one a channel.
    fn granularity<'s>(
        &self,
        kind: Bias,
        has_bias: bool,
        scales: &'s [f64],
        channels: usize,
    ) -> Result<WeightScale<'s>, LoadError> {
        match (kind, has_bias, scales) {
            (Bias::None, false, [scale]) | (Bias::Fused, true, [scale]) => Ok(WeightScale::PerTensor(*scale)),
            (Bias::None, false, scales) => Ok(WeightScale::PerChannel(scales)),
            (Bias::Addend, true, scales) if scales.len() == channels => Ok(WeightScale::PerChannel(scales)),
            (Bias::None, true, _) => Err(self.wrong("`bias` of the rule", "none", "addend or fused")),
            (Bias::Rounded, ..) => {
                Err(self.wrong("`bias` of the rule", "rounded", "none, addend or fused (multiplier quotient)"))
            }
            (Bias::Fused | Bias::Addend, false, _) => Err(self.no_bias()),
            (Bias::Fused, true, _) => Err(self.wrong("number of weight scales", scales.len(), "1 (fused bias)")),
            (Bias::Addend, true, _) => {
                Err(self.wrong("number of weight scales", scales.len(), format!("{channels} (bias addend)")))
            }
        }
    }

    /// The weight scales of a rule that says how many there are.
    fn stated_granularity<'s>(
        &self,
        stated: Granularity,
        scales: &'s [f64],
        channels: usize,
    ) -> Result<WeightScale<'s>, LoadError> {
        match (stated, scales) {
            (Granularity::PerTensor, [scale]) => Ok(WeightScale::PerTensor(*scale)),
            (Granularity::PerTensor, _) => Err(self.wrong("number of weight scales", scales.len(), "1 (per_tensor)")),
            (Granularity::PerChannel, _) if scales.len() == channels => Ok(WeightScale::PerChannel(scales)),
            (Granularity::PerChannel, _) => {
                Err(self.wrong("number of weight scales", scales.len(), format!("{channels} (per_channel)")))
            }
        }
    }

    fn clip(&self, clip: Option<[f32; 2]>, relu: bool) -> Result<Option<[f32; 2]>, LoadError> {
        match clip {
            None => Ok(if relu { F32Real::RELU } else { None }),
            Some([least, most]) if relu || least.is_nan() || most.is_nan() || least > most => {
                let got = format!("[{least}, {most}]");
                Err(self.wrong("`clip` of the rule", got, "none with `relu`, else the least and the largest number"))
            }
            clip => Ok(clip),
        }
    }

    /// What a second input is to the rule.
    fn sum(&self, scales: document::Scales) -> Result<Sum, LoadError> {
        let Some(addend) = self.inputs.get(1) else { return Ok(Sum::None) };
        match (addend.quantization, scales) {
            (None, _) => Ok(Sum::Reals),
            (Some(q), document::Scales::Reciprocal) => {
                preset::onednn_sum(q.scale(), q.zero_point(), q.codes()).at(|| self.place.clone())
            }
            (Some(q), document::Scales::Direct) => {
                Ok(Sum::Codes { scale: q.scale() as f32, zero_point: q.zero_point(), codes: q.codes() })
            }
        }
    }

    pub(super) fn linear_dynamic(&self) -> Result<Operator, LoadError> {
        let document::LinearDynamic { relu, reduce_range } = self.attributes()?;
        self.expect_f32(self.input)?;
        self.expect_f32(self.output)?;
        let shape = self.linear_shape()?;
        let weight = self.parameter("weight", &[shape.out_features, shape.in_features])?;
        let Weights { codes: weight, scales, zero_point: weight_zero_point } =
            self.weights(shape.out_features, weight, None)?;
        let Rule::F32Out { quantize, weight: granularity } = self.rule()? else {
            return self.wrong_rule(&self.rule()?, "f32_out");
        };
        self.stated_granularity(granularity, &scales, shape.out_features)?;
        let engine = match quantize {
            DynamicQuantize::Fused => DynamicEngine::Fbgemm,
            DynamicQuantize::ZeroPointFirst => DynamicEngine::Onednn,
            DynamicQuantize::Wrapping => DynamicEngine::Qnnpack,
        };
        let bias = self.bias::<f32>(shape.out_features)?.unwrap_or_default();
        let per_channel = granularity == Granularity::PerChannel;
        let node = DynamicNode {
            shape: shape.into(),
            weight,
            weight_zero_point,
            weight_scale: scales,
            per_channel,
            bias,
            relu,
            reduce_range,
            engine,
        };
        node.check().at(|| self.place.clone())?;
        Ok(Operator::Dynamic(Box::new(node)))
    }
}

/// Weights and their quantization.
pub(super) struct Weights {
    /// OHWI.
    pub(super) codes: Vec<i8>,
    pub(super) scales: Vec<f64>,
    pub(super) zero_point: Vec<i32>,
}
