//! `qexact inspect`: what an export holds.

use crate::render::{grouped, table};
use qexact_model::{Executor, Export, Operator};
use serde::Serialize;
use std::fmt;

/// What an export holds, and which kernels it gets.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// Name of the export.
    pub name: String,
    /// Who made it, and on what.
    pub producer: qexact_model::document::Producer,
    /// Name of the preset that its rules were taken from.
    pub numerics: String,
    /// Names of the graph's inputs.
    pub inputs: Vec<String>,
    /// Names of the graph's outputs.
    pub outputs: Vec<String>,
    /// The instruction set that kernels were chosen for.
    pub isa: String,
    /// One entry a node.
    pub nodes: Vec<InspectedNode>,
    /// Samples recorded, and how many of them in full.
    pub recording: Option<[usize; 2]>,
    /// What the author wanted to travel with the network.
    pub annotations: Option<serde_json::Value>,
    /// Parts of the file whose digest is wrong.
    pub altered: Vec<String>,
}

/// A node and what it produces.
#[derive(Clone, Debug, Serialize)]
pub struct InspectedNode {
    /// Its name.
    pub name: String,
    /// Its operator.
    pub op: String,
    /// Element type of the output.
    pub dtype: String,
    /// Shape of one sample of the output.
    pub shape: Vec<usize>,
    /// Real numbers that the output's smallest and largest code stand for.
    pub range: Option<[f32; 2]>,
    /// For linear and convolution layers.
    pub layer: Option<InspectedLayer>,
    /// The kernel chosen.
    pub kernel: String,
}

/// A linear or convolution layer.
#[derive(Clone, Debug, Serialize)]
pub struct InspectedLayer {
    /// Geometry in one line, for one sample.
    pub shape: String,
    /// Smallest and largest weight code.
    pub weights: [i8; 2],
    /// Number of weight scales.
    pub weight_scales: usize,
    /// Bytes of weights.
    pub bytes: usize,
    /// Multiply-accumulates for one sample.
    pub macs: usize,
    /// The largest |accumulator| that any input can lead to, where weights were packed.
    pub accumulator_bound: Option<i64>,
}

/// Looks at an export, and at the kernels that an executor chose for it.
pub fn inspect(name: &str, export: &Export, executor: &Executor<'_>) -> Inspection {
    let network = &export.network;
    let names = |values: &[usize]| values.iter().map(|&v| network.values()[v].name.clone()).collect();
    let node = |(index, node): (usize, &qexact_model::Node)| {
        let output = &network.values()[node.output];
        let layer = match &node.operator {
            Operator::Layer(layer) => {
                Some((layer.describe(1), layer.shape().macs(), layer.weight(), layer.weight_scales()))
            }
            Operator::Dynamic(layer) => {
                Some((layer.describe(1), layer.shape().macs(), layer.weight(), layer.weight_scales()))
            }
            Operator::Transposed(layer) => {
                Some((layer.describe(), layer.macs(), layer.weight(), layer.weight_scales()))
            }
            _ => None,
        };
        let layer = layer.map(|(shape, macs, weight, weight_scales)| {
            let (lo, hi) = weight.iter().fold((i8::MAX, i8::MIN), |(lo, hi), &w| (lo.min(w), hi.max(w)));
            let (weights, accumulator_bound) = ([lo, hi], executor.accumulator_bound(index));
            InspectedLayer { shape, weights, weight_scales, bytes: weight.len(), macs, accumulator_bound }
        });
        InspectedNode {
            name: node.name.clone(),
            op: node.op.clone(),
            dtype: output.dtype.to_string(),
            shape: output.shape.clone(),
            range: output.quantization.map(|q| [q.codes().lo(), q.codes().hi()].map(|code| q.dequantize(code))),
            layer,
            kernel: executor.kernel(index),
        }
    };
    Inspection {
        name: name.to_string(),
        producer: export.producer.clone(),
        numerics: export.numerics.clone(),
        inputs: names(network.inputs()),
        outputs: names(network.outputs()),
        isa: executor.isa().to_string(),
        nodes: network.nodes().iter().enumerate().map(node).collect(),
        recording: export.recording.as_ref().map(|r| [r.samples(), r.full()]),
        annotations: export.annotations.clone(),
        altered: export.altered.clone(),
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let p = &self.producer;
        writeln!(f, "{}   {} {}, engine {}, {}", self.name, p.framework, p.version, p.engine, p.cpu_capability)?;
        writeln!(f, "numerics {}; exported by {} on {} threads", self.numerics, p.exporter, p.threads)?;
        writeln!(f, "inputs {}; outputs {}", self.inputs.join(", "), self.outputs.join(", "))?;
        let header = ["layer", "operator", "output", "range", "weights", "kernel", "bytes", "MACs", "|acc| ≤"];
        let mut rows = table(&header, 6);
        for node in &self.nodes {
            let range = node.range.map_or(String::new(), |[lo, hi]| format!("{lo:.4}..{hi:.4}"));
            let output = format!("{} {:?}", node.dtype, node.shape);
            let mut row = vec![node.name.clone(), node.op.clone(), output, range];
            let number = |n: Option<u64>| n.map_or(String::new(), grouped);
            let layer = node.layer.as_ref();
            row.push(layer.map_or(String::new(), |layer| {
                let [lo, hi] = layer.weights;
                format!("{lo}..{hi} per {}", if layer.weight_scales == 1 { "tensor" } else { "channel" })
            }));
            row.push(node.kernel.clone());
            row.push(number(layer.map(|layer| layer.bytes as u64)));
            row.push(number(layer.map(|layer| layer.macs as u64)));
            row.push(number(layer.and_then(|layer| layer.accumulator_bound).map(i64::unsigned_abs)));
            rows.add_row(row);
        }
        writeln!(f, "{rows}")?;
        let layers = || self.nodes.iter().filter_map(|node| node.layer.as_ref());
        let (bytes, macs) = (layers().map(|l| l.bytes as u64).sum(), layers().map(|l| l.macs as u64).sum());
        writeln!(f, "{} bytes of weights, {} multiply-accumulates a sample", grouped(bytes), grouped(macs))?;
        match self.recording {
            Some([samples, full]) => writeln!(f, "recording of {samples} samples, {full} in full")?,
            None => writeln!(f, "no recording")?,
        }
        if let Some(annotations) = &self.annotations {
            writeln!(f, "annotations: {annotations}")?;
        }
        for part in &self.altered {
            writeln!(f, "ALTERED: the digest of `{part}` does not match its bytes")?;
        }
        Ok(())
    }
}
