//! The graph of a loaded export. Everything in it has been checked.

use crate::document::{self, Dtype};
use qexact_reference::batch_norm::BatchNorm;
use qexact_reference::layer::LayerParts;
use qexact_reference::pool::{AdaptivePool, Average, Divisor, Pool};
use qexact_reference::quantization::Quantize;
use qexact_reference::{Conv, Layer, Quantization, Rule};

/// Elements of the largest sample, padding included: a short file could otherwise ask for any amount of memory.
pub(crate) const MOST_ELEMENTS: usize = 1 << 28;

/// Pixels of the largest window of a pool: a short file could otherwise ask for any amount of time.
pub(crate) const MOST_WINDOW: usize = 1 << 20;

/// A quantized network.
#[derive(Clone, Debug)]
pub struct Network {
    pub(crate) values: Vec<Value>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) inputs: Vec<usize>,
    pub(crate) outputs: Vec<usize>,
}

impl Network {
    /// Every value, graph inputs included.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// Operators in execution order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The model's arguments: indices of values.
    pub fn inputs(&self) -> &[usize] {
        &self.inputs
    }

    /// The model's results: indices of values.
    pub fn outputs(&self) -> &[usize] {
        &self.outputs
    }
}

/// A value of the graph: every sample has this type and shape.
#[derive(Clone, Debug)]
pub struct Value {
    /// Its name.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Shape of one sample, in PyTorch's logical order.
    pub shape: Vec<usize>,
    /// For codes.
    pub quantization: Option<Quantization>,
    /// How it lay in the runtime's memory.
    pub memory: Option<document::Memory>,
}

impl Value {
    /// Elements of one sample.
    pub fn sample_len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// An operator of the graph, with its parameters.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// The operator's name, as in the export.
    pub op: String,
    /// The value read.
    pub input: usize,
    /// The value produced.
    pub output: usize,
    /// What is computed.
    pub operator: Operator,
}

/// What a node computes. Geometries are those of one sample (a batch of 1).
#[derive(Clone, Debug)]
pub enum Operator {
    /// R2.
    Quantize(Quantize),
    /// R3.
    Dequantize(Quantization),
    /// R4, R6: linear and convolution layers.
    Layer(Box<LayerNode>),
    /// R10.
    BatchNorm(BatchNorm),
    /// R13: `max(q, zero_point)`.
    Relu(i32),
    /// R11.
    MaxPool(Pool),
    /// R12.
    AvgPool(Pool, Divisor, Average),
    /// R12.
    AdaptiveAvgPool(AdaptivePool, Average),
    /// R14: another shape, the same logical order.
    Reshape,
}

/// A linear or convolution layer with its weights.
#[derive(Clone, Debug)]
pub struct LayerNode {
    pub(crate) shape: Conv,
    /// Rows of a linear layer are samples and the leading axes of a sample, not pixels.
    pub(crate) linear: bool,
    pub(crate) input: Quantization,
    /// OHWI.
    pub(crate) weight: Vec<i8>,
    pub(crate) weight_zero_point: Vec<i32>,
    pub(crate) weight_scales: usize,
    pub(crate) rule: Rule,
}

impl LayerNode {
    /// Geometry for one sample.
    pub fn shape(&self) -> &Conv {
        &self.shape
    }

    /// The geometry in one line, for a batch.
    pub fn describe(&self, batch: usize) -> String {
        if self.linear {
            let (rows, in_features, out_features) =
                (self.shape.batch * batch, self.shape.in_channels, self.shape.out_channels);
            qexact_reference::Linear { rows, in_features, out_features }.to_string()
        } else {
            Conv { batch, ..self.shape }.to_string()
        }
    }

    /// Number of weight scales: 1 (per tensor) or one an output channel.
    pub fn weight_scales(&self) -> usize {
        self.weight_scales
    }

    /// Bytes of weights.
    pub fn weight_bytes(&self) -> usize {
        self.weight.len()
    }

    /// Weights in OHWI order.
    pub fn weight(&self) -> &[i8] {
        &self.weight
    }

    /// What becomes of the accumulators.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// Whether it is a linear layer, which reads its input in logical order; convolutions read channels last.
    pub fn is_linear(&self) -> bool {
        self.linear
    }

    /// The layer as the reference defines it.
    pub fn layer(&self) -> Layer<'_> {
        Layer::new(LayerParts {
            shape: self.shape,
            input: self.input.codes(),
            input_zero_point: self.input.zero_point(),
            weight: &self.weight,
            weight_zero_point: &self.weight_zero_point,
            rule: &self.rule,
        })
        .expect("checked when the export was loaded")
    }
}
