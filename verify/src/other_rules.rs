//! A layer under the rules of other runtimes: what each of them derives from the same scales, zero points and bias.

use qexact_model::LayerNode;
use qexact_reference::activation::Activation;
use qexact_reference::observer::{BiasForm, quantize_bias};
use qexact_reference::preset::{self, Scales};
use qexact_reference::requantize::{Bias, Codes, F32Mul, F32Real, Overflow, Pow2, RealOutput, Rounding, Sum};
use qexact_reference::{Error, Rule};

/// Every rule that fits a layer, by name; the one that it has is among them, and changes nothing. A layer that stores
/// real numbers, or adds a tensor, has none: no other runtime's rule does.
///
/// Integer biases are those of the layer, or its real ones by R37. Where a preset refuses the scales, such as powers
/// of two where there are none, it is left out. Bounds of the codes are the layer's.
pub(crate) fn other_rules(layer: &LayerNode) -> Vec<(&'static str, Rule)> {
    let (Some(scales), Some(codes)) = (layer.scales(), layer.rule().codes()) else { return Vec::new() };
    if layer.rule().addend_type().is_some() {
        return Vec::new();
    }
    let mut rules: Vec<_> =
        presets(layer, scales).into_iter().filter_map(|(name, rule)| Some((name, rule.ok()?))).collect();
    if let Rule::F32Mul(rule) = layer.rule() {
        rules.extend(neighbours(rule, layer.shape().out_channels));
    }
    rules.into_iter().filter_map(|(name, rule)| Some((name, with_codes(rule, codes)?))).collect()
}

fn presets(layer: &LayerNode, scales: Scales<'_>) -> Vec<(&'static str, Result<Rule, Error>)> {
    let none = Activation::None;
    let (real, integer) = biases(layer, scales);
    let (real, integer) = (real.as_deref(), integer.as_deref());
    let onednn = if layer.is_linear() { preset::onednn_linear } else { preset::onednn_conv };
    vec![
        ("fbgemm", preset::fbgemm(scales, real, false).map(Rule::F32Mul)),
        ("qnnpack", preset::qnnpack(scales, real, false).map(Rule::F32Mul)),
        ("onednn", onednn(scales, real, false).map(Rule::F32Real)),
        ("pt2e", preset::pt2e(scales, real, None).map(Rule::F32Real)),
        ("ort", preset::ort(scales, integer).map(Rule::F32Mul)),
        ("onnx_reference", preset::onnx_reference(scales, integer).map(Rule::F64)),
        ("xnnpack_rndnu", preset::xnnpack_rndnu(scales, integer, none).map(Rule::Q31Single)),
        ("tflite_reference", preset::tflite_reference(scales, integer, none).map(Rule::Q31Double)),
        (
            "tflite_reference_fully_connected",
            preset::tflite_reference_fully_connected(scales, integer, none).map(Rule::F64),
        ),
        ("tflite_ruy", preset::tflite_ruy(scales, integer, none).map(Rule::Q31Double)),
        ("tflite_single", preset::tflite_single(scales, integer, none).map(Rule::Q31Single)),
        ("paper", preset::paper(scales, integer, false).map(Rule::Q31Double)),
        ("nearest power of two", nearest_power(scales, integer).map(Rule::Pow2)),
    ]
}

/// The bias in real units and as int32, one of them computed from the other.
fn biases(layer: &LayerNode, scales: Scales<'_>) -> (Option<Vec<f32>>, Option<Vec<i32>>) {
    match (layer.bias(), layer.rule()) {
        (Some(bias), _) => {
            let integer = quantize_bias(bias, scales.input, scales.weight, BiasForm::Quotient).ok();
            (Some(bias.to_vec()), integer)
        }
        (None, Rule::Pow2(Pow2 { bias, .. })) if !bias.is_empty() => {
            let weight = weight_scales(scales);
            let scale = |channel: usize| scales.input * weight[channel.min(weight.len() - 1)];
            let real = bias.iter().enumerate().map(|(channel, &b)| (f64::from(b) * scale(channel)) as f32);
            (Some(real.collect()), Some(bias.clone()))
        }
        _ => (None, None),
    }
}

fn weight_scales(scales: Scales<'_>) -> Vec<f64> {
    match scales.weight {
        preset::WeightScale::PerTensor(scale) => vec![scale],
        preset::WeightScale::PerChannel(scales) => scales.to_vec(),
    }
}

/// R20 with the power of two nearest to each multiplier, in the exponent: what a deployment without multipliers has.
fn nearest_power(scales: Scales<'_>, bias: Option<&[i32]>) -> Result<Pow2, Error> {
    let shift = |s_w: f64| -(scales.input * s_w / scales.output.scale()).log2().round() as i32;
    let rule = Pow2 {
        shift: weight_scales(scales).into_iter().map(shift).collect(),
        bias: bias.unwrap_or_default().to_vec(),
        rounding: Rounding::Even,
        codes: Codes::new(scales.output.zero_point(), scales.output.codes())?,
    };
    Rule::Pow2(rule.clone()).validate(rule.shift.len().max(rule.bias.len())).map(|()| rule)
}

/// A rule's neighbours: the same but for one decision that runtimes make differently.
fn neighbours(rule: &F32Mul, channels: usize) -> Vec<(&'static str, Rule)> {
    let with = |bias: Bias| {
        let multiplier = (0..channels).map(|channel| rule.multiplier(channel)).collect();
        let other = F32Mul::new(multiplier, bias, rule.zero_point(), rule.output()).expect("parts of a rule");
        Rule::F32Mul(other.overflow(rule.overflow_mode()))
    };
    let integer = |bias: f64| bias.round_ties_even() as i32;
    let mut others = Vec::new();
    match rule.bias() {
        Bias::Addend(addend) => {
            others.push(("int32 bias", with(Bias::I32(addend.iter().map(|&a| integer(a.into())).collect()))));
        }
        Bias::Fused { bias, reciprocal } => {
            let of = |i: usize| reciprocal[if reciprocal.len() == 1 { 0 } else { i }];
            let exact = bias.iter().enumerate().map(|(i, &b)| integer(f64::from(b) * f64::from(of(i))));
            others.push(("int32 bias", with(Bias::I32(exact.collect()))));
            let rounded = bias.iter().enumerate().map(|(i, &b)| b * of(i));
            others.push(("bias not fused", with(Bias::Addend(rounded.collect()))));
        }
        _ => {}
    }
    if rule.overflow_mode() == Overflow::Convert {
        others.push(("clamp first", Rule::F32Mul(rule.clone().overflow(Overflow::ClampFirst))));
    }
    others
}

/// The rule with the bounds of other codes of the same type and zero point.
fn with_codes(rule: Rule, codes: Codes) -> Option<Rule> {
    let [lo, hi] = codes.range();
    Some(match rule {
        Rule::F32Mul(rule) => Rule::F32Mul(rule.clamped(lo, hi).ok()?),
        Rule::F32Real(F32Real { output: RealOutput::Codes { multiplier, .. }, sum: Sum::None, bias, scale, clip }) => {
            let output = RealOutput::Codes { multiplier, codes };
            Rule::F32Real(F32Real { output, sum: Sum::None, bias, scale, clip })
        }
        Rule::Q31Double(mut rule) => {
            rule.codes = codes;
            Rule::Q31Double(rule)
        }
        Rule::Q31Single(mut rule) => {
            rule.codes = codes;
            Rule::Q31Single(rule)
        }
        Rule::F64(mut rule) => {
            rule.codes = codes;
            Rule::F64(rule)
        }
        Rule::Pow2(mut rule) => {
            rule.codes = codes;
            Rule::Pow2(rule)
        }
        _ => return None,
    })
}
