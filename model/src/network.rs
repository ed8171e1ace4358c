//! The graph of a loaded export. Everything in it has been checked.

use crate::document::{self, Dtype};
use qexact_reference::add::Add;
use qexact_reference::batch_norm::BatchNorm;
use qexact_reference::layer::LayerParts;
use qexact_reference::mean::Mean;
use qexact_reference::mul::Mul;
use qexact_reference::pool::{AdaptivePool, Average, Divisor, Pool};
use qexact_reference::preset::{DynamicEngine, Scales, WeightScale, torch_linear_dynamic};
use qexact_reference::quantizer::Quantizer;
use qexact_reference::table::Table;
use qexact_reference::transposed::TransposedConv;
use qexact_reference::{CodeType, Conv, Error, Layer, Linear, Quantization, Rule, dynamic};

/// Elements of the largest sample, padding included: a short file could otherwise ask for any amount of memory.
pub(crate) const MOST_ELEMENTS: usize = 1 << 26;

/// Multiply-accumulates and other element operations of all samples of a recording together: hours of the reference.
pub(crate) const MOST_WORK: usize = 1 << 40;

/// Output pixels times taps of a convolution: kernels may hold a table of the input pixels that these meet.
pub(crate) const MOST_TAPS: usize = 1 << 26;

/// Phases of a transposed convolution: each has weights of its own.
pub(crate) const MOST_PHASES: usize = 1 << 12;

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

    /// Whether what a sample gives depends on the other samples of its batch.
    pub fn mixes_samples(&self) -> bool {
        self.nodes.iter().any(|node| matches!(node.operator, Operator::Dynamic(_)))
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
    /// The values read, at least one.
    pub inputs: Vec<usize>,
    /// The value produced.
    pub output: usize,
    /// What is computed.
    pub operator: Operator,
}

impl Node {
    /// About how many element operations one sample takes.
    pub(crate) fn work(&self, values: &[Value]) -> usize {
        let product = |factors: &[usize]| factors.iter().fold(1, |a: usize, &b| a.saturating_mul(b));
        let output = values[self.output].sample_len();
        match &self.operator {
            Operator::Layer(layer) => layer.shape.macs(),
            Operator::Dynamic(layer) => layer.shape.macs(),
            Operator::Transposed(layer) => {
                // Phases that no tap reaches multiply by weights of 0.
                layer.macs().max(product(&[output, layer.shape.in_channels / layer.shape.groups]))
            }
            Operator::MaxPool(pool) | Operator::AvgPool(pool, ..) => {
                product(&[output, product(&pool.axes.map(|axis| axis.kernel))])
            }
            Operator::AdaptiveAvgPool(pool, _) => {
                // A window has at most two elements of an axis more than the quotient.
                let windows: [usize; 3] = std::array::from_fn(|i| pool.input[i] / pool.output[i] + 2);
                product(&[output, product(&windows)])
            }
            _ => output,
        }
    }
}

/// What a node computes. Geometries are those of one sample (a batch of 1).
#[derive(Clone, Debug)]
pub enum Operator {
    /// R2, R22.
    Quantize(Quantizer),
    /// R3.
    Dequantize(Quantization),
    /// R4, R6: linear and convolution layers.
    Layer(Box<LayerNode>),
    /// R42, R6: transposed convolutions.
    Transposed(Box<TransposedNode>),
    /// R10.
    BatchNorm(BatchNorm),
    /// R4, R31, R9: a linear layer that quantizes its input itself.
    Dynamic(Box<DynamicNode>),
    /// R13: `max(q, zero_point)`; without a zero point, of real numbers.
    Relu(Option<i32>),
    /// R27.
    Table(Table),
    /// R25.
    Add(Add),
    /// R26.
    Mul(Mul),
    /// R11.
    MaxPool(Pool),
    /// R12.
    AvgPool(Pool, Divisor, PoolRule),
    /// R12.
    AdaptiveAvgPool(AdaptivePool, Average),
    /// R14: another shape, the same logical order.
    Reshape,
    /// Axes of a sample in another order: axis i of the output is axis `axes[i]` of the input.
    Permute(Vec<usize>),
    /// Part of a sample: along an axis, the indices `start`, `start + step`, … as many as the output has.
    Slice {
        /// Axis of a sample.
        axis: usize,
        /// First index.
        start: usize,
        /// Distance of the indices.
        step: usize,
    },
    /// R40, R41: padding, reflections, shuffles, nearest neighbours.
    Gather(Gather),
    /// R29.
    Concat(Concat),
}

/// Where the elements of a sample come from: each axis chooses for itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Gather {
    /// For every axis and index of the output the index of the input, `None` in the padding.
    pub axes: Vec<Vec<Option<usize>>>,
    /// The code or number in the padding.
    pub value: f64,
}

/// How the codes of a window become the code of their average.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PoolRule {
    /// R12: PyTorch's own kernels.
    Average(Average),
    /// R30.
    Mean(Mean),
}

/// Codes of several values one after the other along an axis.
#[derive(Clone, Debug)]
pub struct Concat {
    /// Axis of a sample.
    pub axis: usize,
    /// Whether the axis is that of the channels, innermost.
    pub channels_last: bool,
    /// One for each input.
    pub recodings: Vec<Recoding>,
}

/// From the codes of an input to those of the output.
#[derive(Clone, Debug)]
pub struct Recoding {
    /// How many elements of each row follow `body`; those that are left follow `tail`.
    pub body_len: usize,
    /// R29, the vector body's formula.
    pub body: Table,
    /// R29, the scalar tail's formula.
    pub tail: Table,
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
    pub(crate) weight_scale: Vec<f64>,
    /// In real units, where the export holds real numbers.
    pub(crate) bias: Option<Vec<f32>>,
    /// `None` where real numbers are stored.
    pub(crate) output: Option<Quantization>,
    pub(crate) rule: Rule,
}

impl LayerNode {
    /// Geometry for one sample.
    pub fn shape(&self) -> &Conv {
        &self.shape
    }

    /// The geometry in one line, for a batch.
    pub fn describe(&self, batch: usize) -> String {
        describe(&self.shape, self.linear, batch)
    }

    /// Number of weight scales: 1 (per tensor) or one an output channel.
    pub fn weight_scales(&self) -> usize {
        self.weight_scale.len()
    }

    /// What any preset derives a rule from; `None` where the layer stores real numbers.
    pub fn scales(&self) -> Option<Scales<'_>> {
        let weight = match self.weight_scale[..] {
            [scale] => WeightScale::PerTensor(scale),
            _ => WeightScale::PerChannel(&self.weight_scale),
        };
        Some(Scales { input: self.input.scale(), weight, output: self.output? })
    }

    /// The bias in real units, one number a channel, where the export holds real numbers.
    pub fn bias(&self) -> Option<&[f32]> {
        self.bias.as_deref()
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

/// A transposed convolution with its weights.
#[derive(Clone, Debug)]
pub struct TransposedNode {
    pub(crate) shape: TransposedConv,
    pub(crate) input: Quantization,
    /// OHWI.
    pub(crate) weight: Vec<i8>,
    pub(crate) weight_zero_point: Vec<i32>,
    pub(crate) weight_scales: usize,
    pub(crate) rule: Rule,
}

impl TransposedNode {
    /// Geometry for one sample.
    pub fn shape(&self) -> &TransposedConv {
        &self.shape
    }

    /// The geometry in one line, for one sample.
    pub fn describe(&self) -> String {
        let TransposedConv { in_channels, out_channels, groups, axes, .. } = self.shape;
        let [input, kernel, stride] =
            [axes.map(|axis| axis.input), axes.map(|axis| axis.kernel), axes.map(|axis| axis.stride)];
        let by = |extents: [usize; 3]| extents.map(|extent| extent.to_string()).join("x");
        let groups = if groups == 1 { String::new() } else { format!("g{groups}") };
        format!("transposed ic{in_channels}oc{out_channels}{groups} i{} k{} s{}", by(input), by(kernel), by(stride))
    }

    /// Weights in OHWI order.
    pub fn weight(&self) -> &[i8] {
        &self.weight
    }

    /// Number of weight scales: 1 (per tensor) or one an output channel.
    pub fn weight_scales(&self) -> usize {
        self.weight_scales
    }

    /// What becomes of the accumulators.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }

    /// Multiply-accumulates for one sample, those included that fall into the padding.
    pub fn macs(&self) -> usize {
        // Every pixel of the input meets every weight of its group.
        let pixels = self.shape.axes.iter().map(|axis| axis.input).fold(1, usize::saturating_mul);
        pixels.saturating_mul(self.weight.len())
    }

    /// All that a plan is made of, but for the shape, which a transposed convolution has of its own.
    pub(crate) fn parts(&self) -> LayerParts<'_> {
        let TransposedConv { in_channels, out_channels, .. } = self.shape;
        LayerParts {
            shape: Conv::from(Linear { rows: 1, in_features: in_channels, out_features: out_channels }),
            input: self.input.codes(),
            input_zero_point: self.input.zero_point(),
            weight: &self.weight,
            weight_zero_point: &self.weight_zero_point,
            rule: &self.rule,
        }
    }
}

/// A linear layer that chooses the quantization of its input from the range of the data: of the whole batch.
#[derive(Clone, Debug)]
pub struct DynamicNode {
    pub(crate) shape: Conv,
    pub(crate) weight: Vec<i8>,
    pub(crate) weight_zero_point: Vec<i32>,
    pub(crate) weight_scale: Vec<f64>,
    pub(crate) per_channel: bool,
    pub(crate) bias: Vec<f32>,
    pub(crate) relu: bool,
    pub(crate) reduce_range: bool,
    pub(crate) engine: DynamicEngine,
}

impl DynamicNode {
    /// The parts that do not depend on data, valid.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let (zero_point, rule) = self.quantized(&[0.0])?.1;
        self.layer(zero_point, &rule).map(drop)
    }

    /// The layer for an input zero point and a rule.
    pub(crate) fn layer<'a>(&'a self, input_zero_point: i32, rule: &'a Rule) -> Result<Layer<'a>, Error> {
        Layer::new(LayerParts {
            shape: self.shape,
            input: CodeType::U8,
            input_zero_point,
            weight: &self.weight,
            weight_zero_point: &self.weight_zero_point,
            rule,
        })
    }

    /// R31: the codes of the data, and the input zero point and rule (R9) that go with them.
    ///
    /// # Errors
    /// Data whose range is not finite.
    pub fn quantized(&self, x: &[f32]) -> Result<(Vec<u8>, (i32, Rule)), Error> {
        let reduce_range = self.reduce_range && self.engine != DynamicEngine::Qnnpack;
        let input = dynamic::torch(dynamic::range(x), reduce_range)?;
        let weight = match self.weight_scale.as_slice() {
            [scale] if !self.per_channel => WeightScale::PerTensor(*scale),
            scales => WeightScale::PerChannel(scales),
        };
        let (quantizer, rule) = torch_linear_dynamic(self.engine, input, weight, &self.bias, self.relu)?;
        let codes = x.iter().map(|&x| quantizer.apply(x) as u8).collect();
        Ok((codes, (input.zero_point(), Rule::F32Out(rule))))
    }

    /// Geometry for one sample.
    pub fn shape(&self) -> &Conv {
        &self.shape
    }

    /// Weights in OHWI order.
    pub fn weight(&self) -> &[i8] {
        &self.weight
    }

    /// Number of weight scales: 1 (per tensor) or one an output channel.
    pub fn weight_scales(&self) -> usize {
        self.weight_scale.len()
    }

    /// The geometry in one line, for a batch.
    pub fn describe(&self, batch: usize) -> String {
        describe(&self.shape, true, batch)
    }
}

/// The geometry of a layer in one line, for a batch.
fn describe(shape: &Conv, linear: bool, batch: usize) -> String {
    if linear {
        let (rows, in_features, out_features) = (shape.batch * batch, shape.in_channels, shape.out_channels);
        Linear { rows, in_features, out_features }.to_string()
    } else {
        Conv { batch, ..*shape }.to_string()
    }
}
