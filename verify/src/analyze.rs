//! `qexact analyze`: what other machines and other rules would make of a network.
//!
//! Which layers can saturate where products are added in pairs of 16 bits (R15) follows from weights and ranges of
//! codes alone, before anything runs: for every pair of weights, the largest and the smallest sum over all codes that
//! can stand before it. A layer that is called safe never saturates, whatever the network reads; for one that is not,
//! there are codes in the range that do ([`Worst::input`]). A recording adds how many of its outputs would be touched.

use crate::network::{accumulator, element, layer_input};
use crate::other_rules::other_rules;
use crate::render::{grouped, table};
use qexact_model::{Data, Export, LayerNode, Network, Operator};
use qexact_reference::add::Add;
use qexact_reference::mul::Mul;
use qexact_reference::pool::Divisor;
use qexact_reference::saturation::{Machine, excess, in_pairs, saturating_inputs};
use qexact_reference::{Conv, Layer};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// What is known about a network.
#[derive(Clone, Debug, Serialize)]
pub struct Analysis {
    /// Name of the export.
    pub name: String,
    /// Samples recorded in full.
    pub samples: usize,
    /// One entry a linear or convolution layer.
    pub layers: Vec<LayerAnalysis>,
}

/// What is known about a layer.
#[derive(Clone, Debug, Serialize)]
pub struct LayerAnalysis {
    /// Its name.
    pub name: String,
    /// Its operator.
    pub op: String,
    /// Geometry in one line, for one sample.
    pub shape: String,
    /// Least and largest code that can stand before it.
    pub codes: [i32; 2],
    /// What a machine would do that adds its products in pairs.
    pub pairs: Pairs,
    /// One entry a machine, in the order of [`Machine::ALL`].
    pub machines: Vec<MachineVerdict>,
    /// What would become of its outputs in the samples recorded in full.
    pub recorded: Option<Recorded>,
}

/// All pairs of weights of a layer.
#[derive(Clone, Debug, Serialize)]
pub struct Pairs {
    /// How many there are; lone last products not counted.
    pub total: u64,
    /// How many of them saturate for some codes.
    pub can_saturate: u64,
    /// Output channels.
    pub channels: usize,
    /// Output channels with such pairs.
    pub channels_affected: Vec<usize>,
    /// The codes alone are proof: no weights whatever could saturate.
    pub safe_by_codes: bool,
    /// The pair that exceeds 16 bits by most, if any does.
    pub worst: Option<Worst>,
}

/// A pair of weights, and codes that break it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Worst {
    /// Output channel.
    pub channel: usize,
    /// Output pixel of a sample: somewhere the pair meets these codes.
    pub row: usize,
    /// Positions along K.
    pub positions: [usize; 2],
    /// The two codes.
    pub input: [i32; 2],
    /// The two weights.
    pub weight: [i32; 2],
    /// The sum of the products, which does not fit 16 bits.
    pub sum: i32,
    /// Of all pairs of codes in range, how many saturate with these weights.
    pub saturating_inputs: u64,
}

/// What a machine makes of a layer.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct MachineVerdict {
    /// Its name.
    pub machine: &'static str,
    /// What it does.
    pub verdict: Verdict,
}

/// Whether a layer saturates on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The machine does not add this layer's products in 16 bits.
    Exact,
    /// Proven safe: no weights could saturate with codes of this range.
    SafeByCodes,
    /// Proven safe: none of these weights saturates with codes of this range.
    SafeByWeights,
    /// Some input saturates.
    CanSaturate,
}

/// Recorded outputs under other arithmetic.
#[derive(Clone, Debug, Serialize)]
pub struct Recorded {
    /// Outputs in the samples recorded in full.
    pub outputs: u64,
    /// Of these, outputs with a pair that saturates.
    pub saturated: u64,
    /// Of these, outputs whose code is another then.
    pub changed: u64,
    /// For every rule that fits the layer, the outputs whose code it would change: presets of R21 with the layer's own
    /// scales and bias, and, of a layer with R6, its rule with one decision made differently. The layer's own rule may
    /// be among them, and changes none.
    pub other_rules: BTreeMap<&'static str, u64>,
}

/// Analyzes an export.
pub fn analyze(name: &str, export: &Export) -> Analysis {
    let network = &export.network;
    let recording = export.recording.as_ref();
    let mut layers = Vec::new();
    for node in network.nodes() {
        let Operator::Layer(layer) = &node.operator else { continue };
        let codes = range(network, node.inputs[0]);
        let pairs = Pairs::of(&layer.layer(), codes);
        let verdict = |machine: Machine| match () {
            () if !machine.pairs(&layer.layer()) => Verdict::Exact,
            () if pairs.safe_by_codes => Verdict::SafeByCodes,
            () if pairs.can_saturate == 0 => Verdict::SafeByWeights,
            () => Verdict::CanSaturate,
        };
        let machines = Machine::ALL.map(|m| MachineVerdict { machine: m.as_str(), verdict: verdict(m) }).to_vec();
        let input = recording.and_then(|recording| recording.value(node.inputs[0]));
        let addend = node.inputs.get(1).and_then(|&addend| recording.and_then(|recording| recording.value(addend)));
        let addend = addend.as_ref().map(|addend| layer_input(layer, addend));
        let recorded = input.map(|input| Recorded::of(layer, &layer_input(layer, &input), addend.as_deref(), &pairs));
        let (name, op, shape) = (node.name.clone(), node.op.clone(), layer.describe(1));
        layers.push(LayerAnalysis { name, op, shape, codes, pairs, machines, recorded });
    }
    Analysis { name: name.to_string(), samples: recording.map_or(0, |recording| recording.full()), layers }
}

/// Least and largest code that a value of the graph can have, whatever the input of the graph is.
fn range(network: &Network, value: usize) -> [i32; 2] {
    let codes = network.values()[value].quantization.map_or([0, 255], |q| [q.codes().lo(), q.codes().hi()]);
    let Some(node) = network.nodes().iter().find(|node| node.output == value) else { return codes };
    let input = || range(network, node.inputs[0]);
    match &node.operator {
        Operator::Layer(layer) => layer.rule().codes().map_or(codes, |codes| codes.range()),
        Operator::Transposed(layer) => layer.rule().codes().map_or(codes, |codes| codes.range()),
        Operator::Gather(choice) => {
            let ([lo, hi], value) = (input(), choice.value as i32);
            let padded = choice.axes.iter().flatten().any(Option::is_none);
            if padded { [lo.min(value), hi.max(value)] } else { [lo, hi] }
        }
        Operator::Relu(Some(zero_point)) => input().map(|code| code.max(*zero_point)),
        Operator::Table(table) => {
            let [lo, hi] = input();
            let entries = || (lo..=hi).map(|code| table.apply(code));
            [entries().min().unwrap_or(codes[0]), entries().max().unwrap_or(codes[1])]
        }
        Operator::Add(Add { clamp, .. }) | Operator::Mul(Mul { clamp, .. }) => *clamp,
        Operator::Reshape | Operator::Permute(_) | Operator::Slice { .. } => input(),
        // A dilated window may lie in the padding altogether; its maximum is the smallest code.
        Operator::MaxPool(pool) if pool.axes.iter().all(|axis| axis.dilation == 1) => input(),
        Operator::MaxPool(_) => [codes[0], input()[1]],
        // A mean of codes; padding counts as zero points.
        Operator::AdaptiveAvgPool(..) | Operator::AvgPool(_, Divisor::Image, _) => input(),
        Operator::AvgPool(_, Divisor::Padded, _) => {
            // Scale and zero point pass through.
            let (zero_point, [lo, hi]) = (network.values()[value].quantization.map_or(0, |q| q.zero_point()), input());
            [lo.min(zero_point), hi.max(zero_point)]
        }
        _ => codes,
    }
}

impl Pairs {
    /// Looks at every pair of weights of a layer, before codes in `lo..=hi`.
    pub fn of(layer: &Layer<'_>, [lo, hi]: [i32; 2]) -> Pairs {
        let shape = *layer.shape();
        let (inputs, depth, channels) = (shape.group_inputs(), shape.depth(), shape.out_channels);
        let zx = layer.input_zero_point();
        // 2 · 128 · 127 and −2 · 128 · 128 fit 16 bits.
        let safe_by_codes = hi.max(zx) <= 128;
        let total = (channels * (depth / 2)) as u64;
        let mut pairs =
            Pairs { total, can_saturate: 0, channels, channels_affected: Vec::new(), safe_by_codes, worst: None };
        if safe_by_codes {
            return pairs;
        }
        let taps = |pair: usize| [2 * pair / inputs, (2 * pair + 1) / inputs];
        let mut known = BTreeMap::new();
        for pair in 0..depth / 2 {
            known.entry(taps(pair)).or_insert_with(|| meetings(&shape, taps(pair)));
        }
        for (channel, weight) in layer.weight().chunks_exact(depth).enumerate() {
            let mut affected = false;
            for (pair, weight) in weight.as_chunks().0.iter().enumerate() {
                let worst = known[&taps(pair)].iter().flat_map(|meeting| {
                    let ranges = meeting.inside.map(|inside| if inside { [lo, hi] } else { [zx, zx] });
                    extremes(*weight, ranges).map(|input| (meeting.row, input))
                });
                let sum = |input: [i32; 2]| input[0] * i32::from(weight[0]) + input[1] * i32::from(weight[1]);
                let worst = worst.max_by_key(|&(_, input)| excess(sum(input)).abs());
                let Some((row, input)) = worst.filter(|&(_, input)| excess(sum(input)) != 0) else { continue };
                affected = true;
                pairs.can_saturate += 1;
                let sum = sum(input);
                if pairs.worst.is_none_or(|worst| excess(worst.sum).abs() < excess(sum).abs()) {
                    let saturating_inputs = saturating_inputs(*weight, [lo, hi]);
                    let (positions, weight) = ([2 * pair, 2 * pair + 1], weight.map(i32::from));
                    pairs.worst = Some(Worst { channel, row, positions, input, weight, sum, saturating_inputs });
                }
            }
            pairs.channels_affected.extend(affected.then_some(channel));
        }
        pairs
    }
}

/// The two choices of codes with the largest and the smallest sum of products.
fn extremes(weight: [i8; 2], ranges: [[i32; 2]; 2]) -> [[i32; 2]; 2] {
    let choose = |i: usize, largest: bool| ranges[i][usize::from((weight[i] > 0) == largest)];
    [true, false].map(|largest| [choose(0, largest), choose(1, largest)])
}

/// Where two taps stand at an output pixel: over a pixel of the image, or in the padding, which holds z_X.
struct Meeting {
    row: usize,
    inside: [bool; 2],
}

/// All combinations that occur, each with the first output pixel where it does.
fn meetings(shape: &Conv, taps: [usize; 2]) -> Vec<Meeting> {
    let mut found: Vec<Meeting> = Vec::new();
    for row in 0..shape.pixels() {
        let inside = taps.map(|tap| source(shape, row, tap).is_some());
        // One tap twice: two channels of one pixel.
        if !found.iter().any(|meeting| meeting.inside == inside) {
            found.push(Meeting { row, inside });
        }
        let all = if taps[0] == taps[1] { 2 } else { 4 };
        if found.len() == all {
            break;
        }
    }
    found
}

/// The input pixel under a tap at an output pixel of the first sample.
fn source(shape: &Conv, row: usize, tap: usize) -> Option<usize> {
    let [_, height, width] = shape.output_extents().expect("a validated shape");
    let [_, kernel_height, kernel_width] = shape.axes.map(|axis| axis.kernel);
    let at = [row / width / height, row / width % height, row % width];
    let taps = [tap / kernel_width / kernel_height, tap / kernel_width % kernel_height, tap % kernel_width];
    let mut axes = shape.axes.iter().zip(at.into_iter().zip(taps));
    axes.try_fold(0, |pixel, (axis, (at, tap))| Some(pixel * axis.input + axis.source(at, tap)?))
}

impl Worst {
    /// One sample for a layer of this shape that breaks the pair at [`row`](Worst::row) and
    /// [`channel`](Worst::channel): zero points, except for the two codes.
    pub fn input(&self, layer: &Layer<'_>) -> Vec<u8> {
        let shape = layer.shape();
        let mut codes = vec![layer.input_zero_point() as u8; shape.image_len()];
        for (position, code) in self.positions.into_iter().zip(self.input) {
            if let Some(pixel) = source(shape, self.row, position / shape.group_inputs()) {
                let group = self.channel / shape.group_outputs();
                let channel = group * shape.group_inputs() + position % shape.group_inputs();
                codes[pixel * shape.in_channels + channel] = code as u8;
            }
        }
        codes
    }
}

impl Recorded {
    fn of(node: &LayerNode, input: &Data, addend: Option<&Data>, pairs: &Pairs) -> Recorded {
        let layer = node.layer();
        let rows = input.len() / layer.shape().image_len() * layer.shape().pixels();
        let mut recorded = Recorded { outputs: 0, saturated: 0, changed: 0, other_rules: BTreeMap::new() };
        let others = other_rules(node);
        recorded.other_rules = others.iter().map(|(name, _)| (*name, 0)).collect();
        for channel in 0..layer.shape().out_channels {
            let affected = pairs.channels_affected.binary_search(&channel).is_ok();
            for row in 0..rows {
                let addend = addend.map_or(0.0, |a| element(a, row * layer.shape().out_channels + channel) as f32);
                let code = |accumulator: i32| layer.rule().apply(accumulator, channel, addend).bits();
                let accumulator = accumulator(node, input, row, channel);
                recorded.outputs += 1;
                for (name, other) in &others {
                    *recorded.other_rules.entry(name).or_default() +=
                        u64::from(other.apply(accumulator, channel, 0.0).bits() != code(accumulator));
                }
                if let (true, Data::U8(input)) = (affected, input) {
                    let machine = in_pairs(&layer, input, row, channel);
                    recorded.saturated += u64::from(machine.pairs > 0);
                    recorded.changed += u64::from(code(machine.accumulator) != code(accumulator));
                }
            }
        }
        recorded
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Exact => "exact",
            Verdict::SafeByCodes => "safe: codes",
            Verdict::SafeByWeights => "safe: weights",
            Verdict::CanSaturate => "can saturate",
        })
    }
}

impl fmt::Display for Analysis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let machines = Machine::ALL.map(Machine::as_str);
        writeln!(f, "{}   where products are added in pairs of 16 bits", self.name)?;
        let mut rows =
            table(&[&["layer", "codes"][..], &machines, &["unsafe pairs", "of", "channels", "of"]].concat(), 5);
        for LayerAnalysis { name, codes: [lo, hi], pairs, machines, .. } in &self.layers {
            let mut row = vec![name.clone(), format!("{lo}..{hi}")];
            row.extend(machines.iter().map(|machine| machine.verdict.to_string()));
            let channels = [pairs.channels_affected.len(), pairs.channels].map(|n| n as u64);
            row.extend([pairs.can_saturate, pairs.total].into_iter().chain(channels).map(grouped));
            rows.add_row(row);
        }
        writeln!(f, "{rows}")?;
        writeln!(
            f,
            "exact: not added in 16 bits there; safe: proven to fit, by the range of the codes or by the weights"
        )?;
        for LayerAnalysis { name, codes: [lo, hi], pairs, .. } in &self.layers {
            let Some(w) = &pairs.worst else { continue };
            let ([k0, k1], [x0, x1], [w0, w1]) = (w.positions, w.input, w.weight);
            let codes = f64::from(hi - lo + 1);
            let share = 100.0 * w.saturating_inputs as f64 / (codes * codes);
            writeln!(
                f,
                "`{name}`: worst in channel {}, products {k0} and {k1}: {x0}·{w0} + {x1}·{w1} = {}; {share:.1} % of all \
                 pairs of codes saturate there",
                w.channel, w.sum
            )?;
        }
        if self.samples == 0 {
            return writeln!(f, "no recording in full: nothing to count");
        }
        writeln!(f, "codes of the {} samples recorded in full that would be others", self.samples)?;
        let recorded = || self.layers.iter().filter_map(|layer| Some((&layer.name, layer.recorded.as_ref()?)));
        let mut rows = table(&["layer", "codes", "with saturated pairs", "changed by them"], 1);
        for (name, r) in recorded() {
            let counts = [r.outputs, r.saturated, r.changed].map(grouped);
            rows.add_row(std::iter::once(name.clone()).chain(counts));
        }
        writeln!(f, "{rows}")?;
        // A line for each, because there are more rules than fit a line.
        let mut rows = table(&["layer", "another rule", "changed", "of"], 2);
        for (name, r) in recorded() {
            for (rule, &changed) in r.other_rules.iter().filter(|(_, changed)| **changed > 0) {
                rows.add_row([name.clone(), (*rule).to_string(), grouped(changed), grouped(r.outputs)]);
            }
        }
        writeln!(
            f,
            "codes that other rules would change, with the layer's own scales and bias; rules that change none are left out"
        )?;
        writeln!(f, "{rows}")
    }
}
