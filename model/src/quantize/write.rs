//! The export: document, tensors, digests, recording.

use super::document::FloatDocument;
use super::float::Values;
use super::fuse::{FloatLayer, Step};
use super::{Observed, QuantizeOptions};
use crate::digest::Digest;
use crate::document::{self, Document, Dtype, Memory, Node, Port, Producer, Recording, Rule, Value};
use crate::error::{At, LoadError};
use crate::{Network, Tensor};
use qexact_reference::observer::{CodeRange, EPS, Range, quantize_weights, symmetric};
use qexact_reference::{CodeType, Quantization};
use safetensors::Dtype as Stored;
use safetensors::tensor::TensorView;
use serde_json::Map;
use std::collections::{BTreeMap, HashMap};

/// Of how many samples every value is recorded in full.
const FULL: usize = 4;

/// An export that is being written.
#[derive(Clone)]
pub(super) struct Draft {
    document: Document,
    tensors: BTreeMap<String, (Stored, Vec<usize>, Vec<u8>)>,
}

/// The graph and its parameters, without a recording.
pub(super) fn draft(
    float: &FloatDocument,
    steps: &[Step],
    values: &BTreeMap<String, Values>,
    observed: &[Observed],
    options: QuantizeOptions,
) -> Result<Draft, LoadError> {
    let mut draft = Draft { document: header(float), tensors: BTreeMap::new() };
    let parameters: HashMap<&str, Quantization> = observed.iter().map(|o| (o.value.as_str(), o.quantization)).collect();
    // The name and the parameters of each float value's codes.
    let quantized = format!("{}.quantized", float.input.name);
    let mut codes: HashMap<&str, (&str, Quantization)> = HashMap::new();
    codes.insert(&float.input.name, (&quantized, parameters[float.input.name.as_str()]));
    draft.value(&float.input.name, &float.input.shape, None);
    draft.value(&quantized, &float.input.shape, Some(parameters[float.input.name.as_str()]));
    let quantize = Rule::Quantize {
        multiplier: document::QuantizeMultiplier::Reciprocal,
        zero_point: document::ZeroPoint::After,
        overflow: document::QuantizeOverflow::Wrap,
    };
    draft.node("quantize", &quantized, [&float.input.name, &quantized], Map::new(), Some(quantize));
    for step in steps {
        let (input, kept) = codes[step.input.as_str()];
        let quantization = parameters.get(step.output.as_str()).copied().unwrap_or(kept);
        codes.insert(&step.output, (&step.output, quantization));
        draft.value(&step.output, &values[&step.output].shape, Some(quantization));
        let mut attributes = step.attributes.clone();
        let rule = match (&step.layer, step.op.as_str()) {
            (Some(layer), _) => {
                attributes.insert("relu".into(), layer.relu.into());
                Some(draft.layer(&step.node, layer, options)?)
            }
            (None, "avg_pool2d") => Some(Rule::Pool { memory: Memory::ChannelsLast }),
            _ => None,
        };
        draft.node(&step.op, &step.node, [input, &step.output], attributes, rule);
    }
    for output in &float.outputs {
        let name = format!("{output}.dequantized");
        draft.value(&name, &values[output].shape, None);
        draft.node("dequantize", &name, [codes[output.as_str()].0, &name], Map::new(), Some(Rule::Dequantize {}));
        draft.document.outputs.push(Port { name });
    }
    Ok(draft)
}

fn header(float: &FloatDocument) -> Document {
    let version = env!("CARGO_PKG_VERSION");
    Document {
        format: document::FORMAT,
        producer: Producer {
            framework: "qexact".into(),
            version: version.into(),
            engine: "reference".into(),
            cpu_capability: "scalar".into(),
            cpu_flags: Vec::new(),
            threads: 1,
            exporter: format!("qexact quantize {version}"),
        },
        numerics: "fbgemm".into(),
        inputs: vec![Port { name: float.input.name.clone() }],
        outputs: Vec::new(),
        values: Vec::new(),
        nodes: Vec::new(),
        digests: BTreeMap::new(),
        recording: None,
        annotations: None,
    }
}

impl Draft {
    fn value(&mut self, name: &str, shape: &[usize], codes: Option<Quantization>) {
        self.document.values.push(Value {
            name: name.into(),
            dtype: if codes.is_some() { Dtype::U8 } else { Dtype::F32 },
            shape: shape.to_vec(),
            scale: codes.map(Quantization::scale),
            zero_point: codes.map(|q| q.zero_point().into()),
            bits: None,
            memory: None,
        });
    }

    fn node(
        &mut self,
        op: &str,
        name: &str,
        [input, output]: [&str; 2],
        attributes: Map<String, serde_json::Value>,
        rule: Option<Rule>,
    ) {
        self.document.nodes.push(Node {
            name: name.into(),
            op: op.into(),
            inputs: vec![input.into()],
            outputs: vec![output.into()],
            attributes: attributes.into(),
            rule: rule.map(|rule| serde_json::to_value(rule).expect("a rule is JSON")),
        });
    }

    /// The tensors of a layer; returns its rule.
    fn layer(&mut self, node: &str, layer: &FloatLayer, options: QuantizeOptions) -> Result<Rule, LoadError> {
        let place = || format!("tensor `{node}.weight`");
        let (channels, codes) = (layer.shape[0], CodeRange::all(CodeType::I8));
        let ranges = if options.per_channel {
            Range::per_channel(&layer.weight, channels).at(place)?
        } else {
            vec![Range::of(&layer.weight).at(place)?]
        };
        let parameters = ranges.into_iter().map(|range| symmetric(range, codes, EPS));
        let parameters = parameters.collect::<Result<Vec<_>, _>>().at(place)?;
        let weight = quantize_weights(&layer.weight, channels, &parameters, codes).at(place)?;
        let scales: Vec<f64> = parameters.iter().map(|q| q.scale()).collect();
        let zero_points: Vec<i32> = parameters.iter().map(|q| q.zero_point()).collect();
        let len = vec![parameters.len()];
        self.tensor(format!("{node}.weight"), Stored::I8, layer.shape.clone(), bytemuck::cast_slice(&weight))?;
        self.tensor(format!("{node}.weight_scale"), Stored::F64, len.clone(), bytemuck::cast_slice(&scales))?;
        self.tensor(format!("{node}.weight_zero_point"), Stored::I32, len, bytemuck::cast_slice(&zero_points))?;
        if let Some(bias) = &layer.bias {
            self.tensor(format!("{node}.bias"), Stored::F32, vec![channels], bytemuck::cast_slice(bias))?;
        }
        let bias = match (&layer.bias, options.per_channel) {
            (None, _) => document::Bias::None,
            (Some(_), true) => document::Bias::Addend,
            (Some(_), false) => document::Bias::Fused,
        };
        let (multiplier, overflow) = (document::Multiplier::Quotient, document::Overflow::Convert);
        Ok(Rule::F32Mul { multiplier, bias, overflow })
    }

    fn tensor(&mut self, name: String, dtype: Stored, shape: Vec<usize>, bytes: &[u8]) -> Result<(), LoadError> {
        match self.tensors.insert(name.clone(), (dtype, shape, bytes.to_vec())) {
            None => Ok(()),
            Some(_) => Err(LoadError::Duplicate { what: "tensor of the export", name }),
        }
    }

    /// Adds what the reference computed: all values of the network, by index.
    pub(super) fn record(mut self, network: &Network, recorded: &[Option<Tensor>]) -> Result<Draft, LoadError> {
        let mut samples = 0;
        for (index, (value, tensor)) in network.values().iter().zip(recorded).enumerate() {
            let tensor = tensor.as_ref().expect("`run_all` computes every value");
            samples = tensor.batch();
            let is_input = network.inputs().contains(&index);
            let full = if is_input { samples } else { samples.min(FULL) };
            let dtype = if value.dtype == Dtype::F32 { Stored::F32 } else { Stored::U8 };
            let shape = [&[full], value.shape.as_slice()].concat();
            let name = format!("record.{}", value.name);
            self.tensor(name, dtype, shape, tensor.samples(0..full).data().bytes())?;
            if full < samples {
                let digests: Vec<u8> = tensor.samples(full..samples).digests().iter().flat_map(|d| d.0).collect();
                self.tensor(format!("digest.{}", value.name), Stored::U8, vec![samples - full, 32], &digests)?;
            }
        }
        self.document.recording =
            Some(Recording { samples, full: samples.min(FULL), batch: None, labels: None, accuracy: None });
        Ok(self)
    }

    /// The file.
    pub(super) fn bytes(mut self) -> Result<Vec<u8>, LoadError> {
        let digest = |(name, tensor): (&String, &(Stored, Vec<usize>, Vec<u8>))| {
            (name.clone(), Digest::of(&tensor.2).to_string())
        };
        self.document.digests = self.tensors.iter().map(digest).collect();
        let text = serde_json::to_string(&self.document).map_err(LoadError::Document)?;
        let hex = Digest::of(text.as_bytes()).to_string();
        let metadata = HashMap::from([("qexact".to_string(), text), ("qexact_digest".to_string(), hex)]);
        let mut views = Vec::new();
        for (name, (dtype, shape, bytes)) in &self.tensors {
            views.push((name, TensorView::new(*dtype, shape.clone(), bytes)?));
        }
        Ok(safetensors::serialize(views, Some(metadata))?)
    }
}
