//! Parameters, codes and folded weights as PyTorch computed them (`fixtures/observers`), bit for bit.

use qexact_model::open;
use qexact_reference::batch_norm::Parameters;
use qexact_reference::observer::{
    BiasForm, CodeRange, EPS, Range, affine, choose, fold, quantize_bias, quantize_weights, symmetric,
};
use qexact_reference::preset::WeightScale;
use qexact_reference::{CodeType, Quantization};
use safetensors::tensor::{Dtype, SafeTensors};
use serde_json::Value;
use std::fmt::Debug;

const FILE: &[u8] = include_bytes!("../../fixtures/observers/observers.safetensors");

struct Cases {
    file: SafeTensors<'static>,
    cases: Vec<Value>,
}

impl Cases {
    fn read() -> Cases {
        let (_, metadata) = SafeTensors::read_metadata(FILE).unwrap();
        let recording: Value = serde_json::from_str(&metadata.metadata().as_ref().unwrap()["recording"]).unwrap();
        Cases { file: open(FILE).unwrap(), cases: recording["cases"].as_array().unwrap().clone() }
    }

    /// The cases of one kind, at least one.
    fn of(&self, kind: &str) -> Vec<Case<'_>> {
        let cases = self.cases.iter().enumerate().filter(|(_, case)| case["kind"] == kind);
        let cases: Vec<_> =
            cases.map(|(i, fields)| Case { name: format!("case{i:03}"), fields, file: &self.file }).collect();
        assert!(!cases.is_empty(), "no case of kind {kind}");
        cases
    }

    /// Rows of numbers, each observed on its own.
    fn observed(&self) -> Vec<Vec<f32>> {
        let view = self.file.tensor("observed").unwrap();
        let numbers: Vec<f32> = bytemuck::pod_collect_to_vec(view.data());
        numbers.chunks_exact(view.shape()[1]).map(<[f32]>::to_vec).collect()
    }
}

struct Case<'c> {
    name: String,
    fields: &'c Value,
    file: &'c SafeTensors<'static>,
}

impl Case<'_> {
    fn optional<T: bytemuck::Pod>(&self, tensor: &str) -> Option<Vec<T>> {
        let view = self.file.tensor(&format!("{}.{tensor}", self.name)).ok()?;
        let elements: Vec<T> = bytemuck::pod_collect_to_vec(view.data());
        assert_eq!(elements.len(), view.shape().iter().product::<usize>(), "{} {tensor}: another type", self.name);
        Some(elements)
    }

    fn get<T: bytemuck::Pod>(&self, tensor: &str) -> Vec<T> {
        self.optional(tensor).unwrap_or_else(|| panic!("{} has no {tensor}", self.name))
    }

    fn rows(&self, tensor: &str) -> usize {
        self.file.tensor(&format!("{}.{tensor}", self.name)).unwrap().shape()[0]
    }

    fn number(&self, field: &str) -> f64 {
        self.fields[field].as_f64().unwrap()
    }

    fn code_range(&self) -> CodeRange {
        let codes = if self.fields["codes"] == "u8" { CodeType::U8 } else { CodeType::I8 };
        match (self.fields["reduced"].as_bool().unwrap(), self.fields["bounds"].as_array()) {
            (true, _) => CodeRange::reduced(codes).unwrap(),
            (_, Some(bounds)) => {
                let bound = |i: usize| bounds[i].as_i64().unwrap() as i32;
                CodeRange::new(codes, bound(0), bound(1)).unwrap()
            }
            _ => CodeRange::all(codes),
        }
    }

    /// The observer of this case.
    fn parameters(&self, range: Range) -> Quantization {
        let (codes, eps) = (self.code_range(), self.number("eps") as f32);
        let symmetric_scheme = self.fields["symmetric"].as_bool().unwrap();
        if symmetric_scheme { symmetric(range, codes, eps) } else { affine(range, codes, eps) }.unwrap()
    }

    /// Compares, element by element; returns how many were compared.
    fn expect<T: PartialEq + Debug>(&self, what: &str, got: &[T], expected: &[T]) -> usize {
        assert_eq!(got.len(), expected.len(), "{} {what}", self.name);
        for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
            assert_eq!(got, expected, "{} {what} {i} {}", self.name, self.fields);
        }
        got.len()
    }

    fn expect_parameters(&self, prefix: &str, got: &[Quantization]) -> usize {
        let name = format!("{prefix}scale");
        let scales: Vec<f64> = match self.file.tensor(&format!("{}.{name}", self.name)).unwrap().dtype() {
            Dtype::F64 => self.get(&name),
            _ => self.get::<f32>(&name).into_iter().map(f64::from).collect(),
        };
        let got_scales: Vec<_> = got.iter().map(|q| q.scale().to_bits()).collect();
        let scales: Vec<_> = scales.into_iter().map(f64::to_bits).collect();
        let zero_points: Vec<_> = got.iter().map(|q| q.zero_point()).collect();
        self.expect("scale", &got_scales, &scales)
            + self.expect("zero point", &zero_points, &self.get::<i32>(&format!("{prefix}zero_point")))
    }
}

fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|v| v.to_bits()).collect()
}

/// Bits, with both zeros alike: which of them ends a range is not specified.
fn end_bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|v| (v + 0.0).to_bits()).collect()
}

#[test]
fn min_max() {
    let cases = Cases::read();
    let ranges: Vec<_> = cases.observed().iter().map(|row| Range::of(row).unwrap()).collect();
    let mut compared = 0;
    for case in cases.of("min_max") {
        let parameters: Vec<_> = ranges.iter().map(|&range| case.parameters(range)).collect();
        compared += case.expect_parameters("", &parameters) + case.expect_parameters("channel_", &parameters);
    }
    assert_eq!(compared, 33 * 4 * ranges.len());
}

#[test]
fn moving_average() {
    let cases = Cases::read();
    for case in cases.of("moving_average") {
        let share = case.number("averaging_constant") as f32;
        let x: Vec<f32> = case.get("x");
        let batches: Vec<_> = x.chunks_exact(x.len() / case.rows("x")).collect();
        let follow = |ranges: Vec<Range>| -> Vec<Range> {
            let mut average = None;
            let step = |newer: Range| {
                let next = average.map_or(newer, |a: Range| a.moving_average(newer, share).unwrap());
                average = Some(next);
                next
            };
            ranges.into_iter().map(step).collect()
        };
        let ends = |ranges: &[Range]| {
            let (min, max): (Vec<f32>, Vec<f32>) = ranges.iter().map(|r| (r.min(), r.max())).unzip();
            (end_bits(&min), end_bits(&max))
        };
        let tensor = follow(batches.iter().map(|batch| Range::of(batch).unwrap()).collect());
        let (min, max) = ends(&tensor);
        case.expect("min", &min, &end_bits(&case.get("min")));
        case.expect("max", &max, &end_bits(&case.get("max")));
        let parameters = affine(*tensor.last().unwrap(), CodeRange::all(CodeType::U8), EPS).unwrap();
        case.expect_parameters("", &[parameters]);
        let channels = 4;
        for channel in 0..channels {
            let range = |batch: &&[f32]| Range::per_channel(batch, channels).unwrap()[channel];
            let (min, max) = ends(&follow(batches.iter().map(range).collect()));
            let of_channel = |tensor: &str| {
                let all: Vec<f32> = case.get(tensor);
                end_bits(&all.into_iter().skip(channel).step_by(channels).collect::<Vec<_>>())
            };
            case.expect("channel min", &min, &of_channel("channel_min"));
            case.expect("channel max", &max, &of_channel("channel_max"));
        }
    }
}

#[test]
fn dynamic_parameters() {
    for case in Cases::read().of("choose") {
        let x: Vec<f32> = case.get("x");
        let parameters: Vec<_> =
            x.chunks_exact(2).map(|row| choose(Range::of(row).unwrap(), case.code_range()).unwrap()).collect();
        case.expect_parameters("", &parameters);
    }
}

#[test]
fn weights() {
    for case in Cases::read().of("weights") {
        let (weight, channels): (Vec<f32>, usize) = (case.get("weight"), case.rows("weight"));
        let codes =
            |parameters: &[Quantization]| quantize_weights(&weight, channels, parameters, case.code_range()).unwrap();
        case.expect("code", &codes(&[case.parameters(Range::of(&weight).unwrap())]), &case.get("codes"));
        let ranges = Range::per_channel(&weight, channels).unwrap();
        let parameters: Vec<_> = ranges.into_iter().map(|range| case.parameters(range)).collect();
        case.expect("channel code", &codes(&parameters), &case.get("channel_codes"));
    }
}

#[test]
fn biases() {
    for case in Cases::read().of("bias") {
        let (bias, scales): (Vec<f32>, Vec<f64>) = (case.get("bias"), case.get("weight_scale"));
        let codes = |weight| quantize_bias(&bias, case.number("input_scale"), weight, BiasForm::Reciprocal).unwrap();
        case.expect("code", &codes(WeightScale::PerTensor(*scales.last().unwrap())), &case.get("codes"));
        case.expect("channel code", &codes(WeightScale::PerChannel(&scales)), &case.get("channel_codes"));
    }
}

#[test]
fn folded_batch_norms() {
    let cases = Cases::read();
    for (kind, linear) in [("fold_convolution", false), ("fold_linear", true)] {
        for case in cases.of(kind) {
            let tensor = |name: &str| -> Vec<f32> { case.get(name) };
            let (weight, bias) = (tensor("weight"), case.optional::<f32>("bias"));
            let [gamma, beta, mean, var] = ["gamma", "beta", "mean", "var"].map(tensor);
            let parameters = Parameters {
                weight: &gamma,
                bias: &beta,
                running_mean: &mean,
                running_var: &var,
                eps: case.number("eps"),
            };
            let fold = if linear { fold::into_linear } else { fold::into_convolution };
            let folded = fold(&weight, bias.as_deref(), &parameters).unwrap();
            case.expect("weight", &bits(&folded.weight), &bits(&tensor("folded_weight")));
            case.expect("bias", &bits(&folded.bias), &bits(&tensor("folded_bias")));
        }
    }
}
