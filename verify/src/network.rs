//! `qexact verify`: a network, layer by layer, against the recording of its runtime.
//!
//! ```text
//! samples recorded in full   every node runs on the recorded input, so each is judged by itself:
//!                            the reference against the recorded output, every instruction set against the reference
//! samples by digest          every node runs on what the nodes before it computed, as long as that is what
//!                            the runtime had; its result is compared by SHA-256
//! all samples at once        the whole network, end to end, on every instruction set: outputs and accuracy
//! ```

use crate::explain::{self, Reason, SaturatedOutput};
use qexact_kernels::{Isa, IsaName};
use qexact_model::{Data, Executor, Export, LayerNode, Network, Operator, Recording, RunError, Tensor};
use qexact_reference::saturation::Machine;
use serde::Serialize;
use std::borrow::Cow;

/// What a verification found.
#[derive(Clone, Debug, Serialize)]
pub struct NetworkReport {
    /// Name of the export.
    pub name: String,
    /// Runtime, version and engine that recorded it.
    pub runtime: String,
    /// Samples recorded, and how many of them in full.
    pub samples: usize,
    /// Samples recorded in full.
    pub full: usize,
    /// Parts of the file whose digest is wrong.
    pub altered: Vec<String>,
    /// One entry a node.
    pub nodes: Vec<NodeReport>,
    /// One entry an instruction set, the reference first.
    pub end_to_end: Vec<EndToEnd>,
    /// Right answers that the runtime counted, if it did.
    pub runtime_correct: Option<u64>,
    /// Instruction sets that this CPU lacks.
    pub skipped: Vec<String>,
    /// Nothing is excused.
    pub strict: bool,
}

/// What was found about one node.
#[derive(Clone, Debug, Serialize)]
pub struct NodeReport {
    /// Its name.
    pub name: String,
    /// Its operator.
    pub op: String,
    /// Geometry in one line, for linear and convolution layers.
    pub shape: Option<String>,
    /// Outputs of the reference that were compared with the recording, by value or by digest.
    pub compared: u64,
    /// Of these, outputs by value that are those of a pair-saturating machine and not of the exact rule.
    pub saturated: u64,
    /// Of these, samples by digest whose digest is that of a pair-saturating machine.
    pub saturated_samples: u64,
    /// Outputs by value that are neither.
    pub differences: u64,
    /// Samples by digest that are neither.
    pub different_samples: u64,
    /// Samples by digest that could not be judged, because what the runtime had as input is not known.
    pub unjudged_samples: u64,
    /// The first output that differs.
    pub first_difference: Option<Difference>,
    /// The first output that saturated.
    pub first_saturated: Option<Difference>,
    /// One entry an instruction set, the reference left out.
    pub isas: Vec<IsaReport>,
}

/// Kernels against the reference.
#[derive(Clone, Debug, Serialize)]
pub struct IsaReport {
    /// The instruction set.
    pub isa: String,
    /// The kernel chosen.
    pub kernel: String,
    /// Outputs compared.
    pub compared: u64,
    /// Outputs that differ.
    pub differences: u64,
    /// The first of them.
    pub first_difference: Option<Difference>,
}

/// One output that differs.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// Sample, then the axes of the value in logical order; the sample alone where only a digest is known.
    pub index: Vec<usize>,
    /// The exact accumulator, for linear and convolution layers.
    pub accumulator: Option<i32>,
    /// What the other side has, if it is known.
    pub expected: Option<f64>,
    /// What was computed.
    pub got: Option<f64>,
    /// Why, where the arithmetic tells.
    pub reason: Option<Reason>,
}

/// The whole network on one instruction set, all samples in one batch.
#[derive(Clone, Debug, Serialize)]
pub struct EndToEnd {
    /// The instruction set.
    pub isa: String,
    /// Samples whose outputs are not the recorded ones.
    pub different_samples: u64,
    /// Of these, samples whose outputs follow from a node that saturated in the recording.
    pub saturated_samples: u64,
    /// Right answers, where the recording has labels.
    pub correct: Option<u64>,
}

impl NodeReport {
    /// Whether the reference equals the recording and every instruction set the reference.
    pub fn is_clean(&self, strict: bool) -> bool {
        let excused = !strict || (self.saturated == 0 && self.saturated_samples == 0);
        self.differences + self.different_samples == 0 && excused && self.isas.iter().all(|isa| isa.differences == 0)
    }
}

impl NetworkReport {
    /// Whether nothing differs and nothing in the file was altered.
    pub fn is_clean(&self) -> bool {
        let saturated = self.nodes.iter().any(|n| n.saturated + n.saturated_samples > 0);
        let end_to_end = self
            .end_to_end
            .iter()
            .all(|e| e.different_samples == 0 || (!self.strict && e.different_samples == e.saturated_samples));
        self.altered.is_empty()
            && self.nodes.iter().all(|node| node.is_clean(self.strict))
            && end_to_end
            && (!self.strict || !saturated)
    }
}

/// What to verify with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Instruction sets besides the reference, which always runs.
    pub isas: Vec<Isa>,
    /// Do not excuse what a pair-saturating machine explains.
    pub strict: bool,
}

/// Why there is nothing to verify.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// An export may come without a recording, but then nothing says what the runtime computed.
    #[error("the export holds no recording: there is nothing to verify against")]
    NoRecording,
    /// A network that cannot be run.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// Verifies an export.
///
/// `progress` is called with the steps done and their total.
///
/// # Errors
/// [`VerifyError`].
pub fn verify(
    name: &str,
    export: &Export,
    options: &Options,
    mut progress: impl FnMut(usize, usize),
) -> Result<NetworkReport, VerifyError> {
    let recording = export.recording.as_ref().ok_or(VerifyError::NoRecording)?;
    let network = &export.network;
    let reference = Executor::new(network, Isa::REFERENCE)?;
    let isas: Vec<Isa> = options.isas.iter().copied().filter(|&isa| isa != Isa::REFERENCE).collect();
    let executors = isas.iter().map(|&isa| Executor::new(network, isa)).collect::<Result<Vec<_>, _>>()?;
    let machines = explain::machines(&export.producer);
    let mut run = Run { network, recording, machines, reference, executors, nodes: Vec::new() };
    run.nodes = (0..network.nodes().len()).map(|node| run.empty_report(node)).collect();

    let digest_samples = recording.full()..recording.samples();
    let steps = network.nodes().len() + digest_samples.len() + run.executors.len() + 1;
    let mut done = 0;
    let mut step = || {
        done += 1;
        progress(done, steps);
    };
    if recording.full() > 0 {
        for node in 0..network.nodes().len() {
            run.node_in_full(node)?;
            step();
        }
    }
    for sample in digest_samples {
        run.sample_by_digest(sample)?;
        step();
    }
    let mut end_to_end = Vec::new();
    for executor in std::iter::once(&run.reference).chain(&run.executors) {
        end_to_end.push(run.end_to_end(executor)?);
        step();
    }
    let missing = |name: &IsaName| Isa::new(*name).is_err();
    Ok(NetworkReport {
        name: name.to_string(),
        runtime: format!(
            "{} {}, engine {}, {}",
            export.producer.framework, export.producer.version, export.producer.engine, export.producer.cpu_capability
        ),
        samples: recording.samples(),
        full: recording.full(),
        altered: export.altered.clone(),
        nodes: run.nodes,
        end_to_end,
        runtime_correct: recording.accuracy().map(|a| a.correct),
        skipped: IsaName::ALL.iter().filter(|name| missing(name)).map(ToString::to_string).collect(),
        strict: options.strict,
    })
}

struct Run<'e> {
    network: &'e Network,
    recording: &'e Recording,
    /// Those that may have made the recording.
    machines: &'e [Machine],
    reference: Executor<'e>,
    executors: Vec<Executor<'e>>,
    nodes: Vec<NodeReport>,
}

impl Run<'_> {
    fn empty_report(&self, index: usize) -> NodeReport {
        let node = &self.network.nodes()[index];
        let shape = match &node.operator {
            Operator::Layer(layer) => Some(layer.describe(1)),
            Operator::Dynamic(layer) => Some(layer.describe(1)),
            Operator::Transposed(layer) => Some(layer.describe()),
            _ => None,
        };
        let isa = |executor: &Executor<'_>| IsaReport {
            isa: executor.isa().to_string(),
            kernel: executor.kernel(index),
            compared: 0,
            differences: 0,
            first_difference: None,
        };
        NodeReport {
            name: node.name.clone(),
            op: node.op.clone(),
            shape,
            compared: 0,
            saturated: 0,
            saturated_samples: 0,
            differences: 0,
            different_samples: 0,
            unjudged_samples: 0,
            first_difference: None,
            first_saturated: None,
            isas: self.executors.iter().map(isa).collect(),
        }
    }

    fn layer(&self, node: usize) -> Option<&LayerNode> {
        match &self.network.nodes()[node].operator {
            Operator::Layer(layer) => Some(layer),
            _ => None,
        }
    }

    /// Every instruction set on inputs of a node, against what the reference made of them.
    fn kernels(&mut self, node: usize, first_sample: usize, inputs: &[Tensor], want: &Tensor) -> Result<(), RunError> {
        for i in 0..self.executors.len() {
            let got = self.executors[i].run_node_in_batches(node, inputs, self.recording.batch())?;
            let comparison = Comparison::of(self.layer(node), inputs, want, &got);
            let differing = comparison.differing();
            let first = differing.first().map(|&at| {
                let mut difference = comparison.describe(at);
                difference.index[0] += first_sample;
                difference
            });
            let report = &mut self.nodes[node].isas[i];
            report.compared += elements(want);
            report.differences += differing.len() as u64;
            report.first_difference = report.first_difference.take().or(first);
        }
        Ok(())
    }

    fn node_in_full(&mut self, node: usize) -> Result<(), RunError> {
        let graph_node = &self.network.nodes()[node];
        let recorded = |value| self.recording.value(value).expect("samples are recorded in full");
        let inputs: Vec<Tensor> = graph_node.inputs.iter().map(|&value| recorded(value)).collect();
        let want = recorded(graph_node.output);
        let got = self.reference.run_node_in_batches(node, &inputs, self.recording.batch())?;
        let (mut differences, mut saturated) = (0, 0);
        let (mut first_difference, mut first_saturated) = (None, None);
        let comparison = Comparison::of(self.layer(node), &inputs, &want, &got);
        for at in comparison.differing() {
            let mut difference = comparison.describe(at);
            let outputs = self.machines.iter().filter_map(|&machine| comparison.saturated(machine, at));
            let recorded = |output: &SaturatedOutput| difference.expected == Some(f64::from(output.code));
            if let Some(machine) = outputs.into_iter().find(recorded) {
                difference.reason = Some(Reason::PairSaturation(machine.saturation));
                saturated += 1;
                first_saturated.get_or_insert(difference);
            } else {
                differences += 1;
                first_difference.get_or_insert(difference);
            }
        }
        let report = &mut self.nodes[node];
        report.compared += elements(&got);
        report.differences += differences;
        report.saturated += saturated;
        report.first_difference = first_difference;
        report.first_saturated = first_saturated;
        self.kernels(node, 0, &inputs, &got)
    }

    /// Follows one sample through the network.
    fn sample_by_digest(&mut self, sample: usize) -> Result<(), RunError> {
        /// A value as computed, and whether the runtime is known to have had the same.
        type Known = Option<(Tensor, bool)>;
        let mut values: Vec<Known> = vec![None; self.network.values().len()];
        for (&value, input) in self.network.inputs().iter().zip(self.recording.inputs()) {
            values[value] = Some((input.samples(sample..sample + 1), true));
        }
        for node in 0..self.network.nodes().len() {
            let graph_node = &self.network.nodes()[node];
            let ready = |&value: &usize| values[value].clone().expect("nodes are in execution order");
            let (inputs, known): (Vec<Tensor>, Vec<bool>) = graph_node.inputs.iter().map(ready).unzip();
            let known = known.into_iter().all(|known| known);
            let mut got = self.reference.run_node(node, &inputs.iter().collect::<Vec<_>>())?;
            self.kernels(node, sample, &inputs, &got)?;
            let want = self.recording.digests(graph_node.output)[sample - self.recording.full()];
            let equal = got.digests()[0] == want;
            let layer = self.layer(node).filter(|_| !equal);
            let excused = layer.and_then(|layer| {
                let samples =
                    self.machines.iter().filter_map(|&machine| saturated_sample(machine, layer, &inputs[0], &got));
                samples.into_iter().find(|sample| sample.digests()[0] == want)
            });
            let report = &mut self.nodes[node];
            let judged = equal || excused.is_some();
            match excused {
                _ if equal => report.compared += elements(&got),
                Some(machine) => {
                    report.compared += elements(&got);
                    report.saturated_samples += 1;
                    got = machine;
                }
                None if known => {
                    report.compared += elements(&got);
                    report.different_samples += 1;
                    let index = vec![sample];
                    let nothing = Difference { index, accumulator: None, expected: None, got: None, reason: None };
                    report.first_difference.get_or_insert(nothing);
                }
                None => report.unjudged_samples += 1,
            }
            values[graph_node.output] = Some((got, judged));
        }
        Ok(())
    }

    fn end_to_end(&self, executor: &Executor<'_>) -> Result<EndToEnd, RunError> {
        let outputs = executor.run_in_batches(self.recording.inputs(), self.recording.batch())?;
        let (samples, full) = (self.recording.samples(), self.recording.full());
        let mut different = vec![false; samples];
        for (&value, got) in self.network.outputs().iter().zip(&outputs) {
            let recorded = self.recording.value(value).map(|t| t.digests()).unwrap_or_default();
            let by_digest = self.recording.digests(value);
            for (sample, digest) in got.digests().into_iter().enumerate() {
                let want = if sample < full { recorded.get(sample) } else { by_digest.get(sample - full) };
                // A graph input that is also an output has no digests: it is what it is.
                different[sample] |= want.is_some_and(|want| *want != digest);
            }
        }
        let different_samples = different.iter().filter(|&&d| d).count() as u64;
        let excusable = self.nodes.iter().any(|n| n.saturated + n.saturated_samples > 0)
            && self.nodes.iter().all(|n| n.differences + n.different_samples == 0);
        let correct = self.recording.accuracy().zip(self.recording.labels()).and_then(|(accuracy, labels)| {
            let position = self.network.outputs().iter().position(|&o| o == accuracy.output)?;
            let guesses = outputs[position].arg_max()?;
            Some(guesses.iter().zip(labels).filter(|(guess, label)| i64::try_from(**guess) == Ok(**label)).count()
                as u64)
        });
        Ok(EndToEnd {
            isa: executor.isa().to_string(),
            different_samples,
            saturated_samples: if excusable { different_samples } else { 0 },
            correct,
        })
    }
}

fn elements(tensor: &Tensor) -> u64 {
    (tensor.batch() * tensor.sample_len()) as u64
}

/// Row and channel of an output of a layer, from its position in logical order.
fn row_and_channel(layer: &LayerNode, at: usize) -> (usize, usize) {
    let channels = layer.shape().out_channels;
    if layer.is_linear() {
        return (at / channels, at % channels);
    }
    let pixels = layer.shape().pixels();
    let (image, rest) = (at / (channels * pixels), at % (channels * pixels));
    (image * pixels + rest % pixels, rest / pixels)
}

/// The codes that a layer reads, in the order in which it reads them.
pub(crate) fn layer_input<'t>(layer: &LayerNode, input: &'t Tensor) -> Cow<'t, Data> {
    if layer.is_linear() { input.data() } else { input.channels_last() }
}

/// The exact accumulator of an output of a layer.
pub(crate) fn accumulator(layer: &LayerNode, input: &Data, row: usize, channel: usize) -> i32 {
    match input {
        Data::U8(codes) => layer.layer().accumulator(codes, row, channel),
        Data::I8(codes) => layer.layer().accumulator(codes, row, channel),
        Data::F32(_) => unreachable!("layers read codes"),
    }
}

/// What a node made of an input on two sides, in logical order.
struct Comparison<'c> {
    /// The layer and the codes it reads, where the node is one.
    layer: Option<(&'c LayerNode, Cow<'c, Data>)>,
    /// What the layer adds to its own results, in logical order.
    addend: Option<Cow<'c, Data>>,
    shape: &'c [usize],
    want: Cow<'c, Data>,
    got: Cow<'c, Data>,
}

impl<'c> Comparison<'c> {
    fn of(layer: Option<&'c LayerNode>, inputs: &'c [Tensor], want: &'c Tensor, got: &'c Tensor) -> Comparison<'c> {
        let addend = layer.and_then(|_| inputs.get(1)).map(Tensor::data);
        let layer = layer.map(|layer| (layer, layer_input(layer, &inputs[0])));
        Comparison { layer, addend, shape: want.shape(), want: want.data(), got: got.data() }
    }

    /// Positions where the sides differ in any bit.
    fn differing(&self) -> Vec<usize> {
        let width = self.want.bytes().len() / self.want.len().max(1);
        let pairs = self.want.bytes().chunks_exact(width.max(1)).zip(self.got.bytes().chunks_exact(width.max(1)));
        pairs.enumerate().filter(|(_, (want, got))| want != got).map(|(at, _)| at).collect()
    }

    fn describe(&self, at: usize) -> Difference {
        let mut index = Vec::new();
        let mut rest = at;
        for &extent in self.shape.iter().rev() {
            index.insert(0, rest % extent);
            rest /= extent;
        }
        index.insert(0, rest);
        let (mut accumulator, mut reason) = (None, None);
        if let Some((layer, codes)) = &self.layer {
            let (row, channel) = row_and_channel(layer, at);
            let acc = self::accumulator(layer, codes, row, channel);
            accumulator = Some(acc);
            let addend = self.addend.as_ref().map_or(0.0, |addend| element(addend, at) as f32);
            reason = explain::rounding_tie(layer.rule(), acc, channel, addend);
        }
        let (expected, got) = (Some(element(&self.want, at)), Some(element(&self.got, at)));
        Difference { index, accumulator, expected, got, reason }
    }

    /// The output at a position as a pair-saturating machine computes it, if one of its pairs saturates.
    fn saturated(&self, machine: Machine, at: usize) -> Option<SaturatedOutput> {
        let (layer, codes) = self.layer.as_ref()?;
        let Data::U8(codes) = codes.as_ref() else { return None };
        let (row, channel) = row_and_channel(layer, at);
        explain::saturated(machine, &layer.layer(), codes, row, channel)
    }
}

pub(crate) fn element(data: &Data, at: usize) -> f64 {
    match data {
        Data::U8(v) => v[at].into(),
        Data::I8(v) => v[at].into(),
        Data::F32(v) => v[at].into(),
    }
}

/// One sample of a layer's output as a pair-saturating machine computes it; `None` if no pair saturates.
fn saturated_sample(machine: Machine, layer: &LayerNode, input: &Tensor, exact: &Tensor) -> Option<Tensor> {
    let (codes, reference) = (layer_input(layer, input), layer.layer());
    let Data::U8(codes) = codes.as_ref() else { return None };
    if !machine.pairs(&reference) {
        return None;
    }
    let mut data = exact.data().into_owned();
    let Data::U8(outputs) = &mut data else { return None };
    let mut any = false;
    for (at, output) in outputs.iter_mut().enumerate() {
        let (row, channel) = row_and_channel(layer, at);
        if let Some(saturated) = explain::saturated(machine, &reference, codes, row, channel) {
            any = true;
            *output = saturated.code as u8;
        }
    }
    if any { Tensor::new(exact.batch(), exact.shape().to_vec(), data) } else { None }
}
