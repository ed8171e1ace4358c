//! Packing for row kernels: for each shift, column of taps and block, what the kernel multiplies it by; after them
//! weights that are all 1, for sums of codes: depthwise a vector for each column and block, grouped one block.

use super::{LANE, Rows, pairs};
use crate::micro::{Kind, Microkernel};
use crate::pack::{Order, Panel, WeightFormat, Weights, interleaved};
use alloc::vec::Vec;
use qexact_reference::Layer;

impl Rows {
    /// Packs weights as the kernel reads them.
    pub(in crate::drive) fn pack(&self, layer: &Layer<'_>, kernel: &Microkernel) -> (Weights, Order) {
        let (lanes, format) = (kernel.lanes, kernel.format);
        if let Kind::GroupedRows { quads, .. } = kernel.kind {
            let (panels, order) = grouped_row_panels(layer, quads, lanes, format);
            let pack = |panel: &Panel| self.grouped_weights(layer, panel.channel, quads, lanes, format);
            (Weights::from_panels(panels, pack), order)
        } else {
            let (panels, order) = depthwise_row_panels(layer, lanes);
            let pack = |panel: &Panel| {
                let channels = &order[panel.first..][..4 * lanes];
                match kernel.kind {
                    Kind::DepthwiseDirect { stride, .. } => self.direct_weights(layer, channels, stride),
                    _ => self.depthwise_weights(layer, channels, lanes, format),
                }
            };
            (Weights::from_panels(panels, pack), order)
        }
    }

    /// Weight of an output channel at a tap (row, column) and an input channel; none beyond the layer.
    fn weight(&self, layer: &Layer<'_>, channel: usize, [row, column]: [usize; 2], input: usize) -> Option<i8> {
        let (shape, inputs) = (layer.shape(), layer.shape().group_inputs());
        let inside = channel < shape.out_channels && row < self.height.kernel && column < self.width.kernel;
        if !inside || channel / shape.group_outputs() != input / inputs {
            return None;
        }
        let tap = channel * shape.taps() + row * self.width.kernel + column;
        Some(layer.weight()[tap * inputs + input % inputs])
    }

    /// The weights of the channels of a register.
    fn depthwise_weights(
        &self,
        layer: &Layer<'_>,
        channels: &[Option<usize>],
        lanes: usize,
        format: WeightFormat,
    ) -> Vec<u8> {
        let [high, wide] = self.fold;
        let mut bytes = Vec::new();
        for shift in 0..self.shifts {
            let weight = |channel: usize, column: usize, block: usize, i: usize| {
                // Rows above the shift's own wrap around and have no weight.
                let row = (block * high + i / wide).wrapping_sub(shift * self.height.stride);
                self.weight(layer, channel, [row, column * wide + i % wide], channel)
            };
            for (column, block) in pairs(self.taps, self.blocks) {
                for (channel, i) in channels.iter().flat_map(|&c| (0..format.depth()).map(move |i| (c, i))) {
                    push(&mut bytes, format, channel.and_then(|c| weight(c, column, block, i)));
                }
            }
            for (column, block) in pairs(self.taps, self.blocks) {
                for (_, i) in pairs(lanes, format.depth()) {
                    push(&mut bytes, format, channels[0].and_then(|c| weight(c, column, block, i)).and(Some(1)));
                }
            }
        }
        bytes
    }

    /// The weights of the channels of a register, product by product of a direct kernel.
    fn direct_weights(&self, layer: &Layer<'_>, channels: &[Option<usize>], stride: usize) -> Vec<u8> {
        let quads = direct_products(self.height.kernel, stride).into_iter();
        let taps = quads.flat_map(|quad| channels.iter().flat_map(move |&c| quad.map(|tap| (c, tap))));
        let weight = |(channel, tap): (Option<usize>, _)| channel.and_then(|c| self.weight(layer, c, tap, c));
        taps.map(|tap| weight(tap).unwrap_or(0) as u8).collect()
    }

    /// The weights of 16 channels from `channel` on, in groups of 4 · `quads`.
    fn grouped_weights(
        &self,
        layer: &Layer<'_>,
        channel: usize,
        quads: usize,
        lanes: usize,
        format: WeightFormat,
    ) -> Vec<u8> {
        let inputs = 4 * quads;
        // Output and input of each weight of a tap, counted from `channel`.
        let elements: Vec<[usize; 2]> = if format == WeightFormat::Pairs {
            // Pair by pair, 16 outputs each.
            let words = pairs(inputs / 2, 2 * LANE).map(|(pair, word)| {
                let output = grouped_output(word / 2, quads, lanes, format);
                [output, output / inputs * inputs + 2 * pair + word % 2]
            });
            words.collect()
        } else {
            // Vector n, 128-bit lane l and dword d of it. Up to two quads a group: output `vectors · l + n` of the lane's
            // group `d / quads`. Four quads: one group, vectors 0 and 1 with its first two quads and 2 and 3 with the
            // others, in each lane for two outputs.
            let vectors = quads * LANE / lanes;
            let bytes = pairs(vectors, 4 * lanes).map(|(n, byte)| {
                let (lane, d) = (byte / LANE, byte % LANE / 4);
                let (output, quad) = match quads {
                    4 => (4 * lane + n % 2 * 2 + d / 2, n / 2 * 2 + d % 2),
                    _ => (d / quads * inputs + vectors * lane + n, d),
                };
                [output, 4 * quad + byte % 4]
            });
            bytes.collect()
        };
        let weights = |tap: [usize; 2]| {
            elements.iter().map(move |&[output, input]| self.weight(layer, channel + output, tap, channel + input))
        };
        let mut bytes = Vec::new();
        for (column, row) in pairs(self.width.kernel, self.height.kernel) {
            weights([row, column]).for_each(|weight| push(&mut bytes, format, weight));
        }
        weights([0, 0]).for_each(|weight| push(&mut bytes, format, weight.and(Some(1))));
        bytes
    }
}

/// Taps (row, column) of each product of a direct kernel; those outside the window have no weight.
///
/// Four rows of a column make a product. 3 × 3 has one to spare: with stride 1 a second line multiplies the same rows by
/// weights that are one row further down. The fifth row of 5 × 5 is left to two products of four neighbouring columns. With
/// stride 1 the second has column 4 alone, and column k of the input lies in byte k mod 4: a version for each column that a
/// pixel can begin with. With stride 2 the second is the next pixel's first.
fn direct_products(kernel: usize, stride: usize) -> Vec<[[usize; 2]; 4]> {
    let lines = if kernel == 3 { 3 - stride } else { 1 };
    let columns = pairs(lines, kernel).map(|(line, k)| [0, 1, 2, 3].map(|row: usize| [row.wrapping_sub(line), k]));
    let none = kernel;
    let turned = |turn: usize| {
        let columns = [0, 1, 2, 3].map(|byte: usize| byte.wrapping_sub(turn) % 4);
        [columns, columns.map(|k| if k == 0 { 4 } else { none })]
    };
    let fifth: Vec<[usize; 4]> = match (kernel, stride) {
        (5, 1) => (0..4).flat_map(turned).collect(),
        (5, _) => [[none, 0, 1, 2], [none, none, 3, 4]].into(),
        _ => Vec::new(),
    };
    columns.chain(fifth.into_iter().map(|columns| columns.map(|k| [4, k]))).collect()
}

/// Adds a weight, 0 where there is none.
fn push(bytes: &mut Vec<u8>, format: WeightFormat, weight: Option<i8>) {
    bytes.extend(&i16::from(weight.unwrap_or(0)).to_le_bytes()[..format.bytes()]);
}

/// Panels for a depthwise row kernel: registers of channels in the order of
/// [`depthwise_panels`](crate::pack::depthwise_panels). The last ones hold half or a quarter of the channels, once for
/// every segment.
fn depthwise_row_panels(layer: &Layer<'_>, lanes: usize) -> (Vec<Panel>, Order) {
    let (channels, width) = (layer.shape().out_channels, 4 * lanes);
    let (mut panels, mut order) = (Vec::new(), Order::new());
    let mut channel = 0;
    for segments in segments(channels, width) {
        let distinct = width / segments;
        let valid = (channels - channel).min(distinct);
        panels.push(Panel::new(order.len(), 4 / segments, channel, valid, 0));
        order.extend(interleaved(lanes).map(|at| Some(at % distinct).filter(|&at| at < valid).map(|at| channel + at)));
        channel += valid;
    }
    (panels, order)
}

/// Segments of each register, `width` codes, that channels are divided into: one, but for the last channels.
pub(super) fn segments(channels: usize, width: usize) -> Vec<usize> {
    let (mut segments, mut left) = (Vec::new(), channels);
    while left > 0 {
        let count = match left {
            _ if left > width * 3 / 4 => 1,
            // Three quarters of a register: first a half, then a quarter.
            _ if left > width / 2 => 2,
            _ => width / left.next_multiple_of(LANE).next_power_of_two(),
        };
        segments.push(count);
        left = left.saturating_sub(width / count);
    }
    segments
}

/// Panels for a grouped row kernel: 16 channels each.
fn grouped_row_panels(layer: &Layer<'_>, quads: usize, lanes: usize, format: WeightFormat) -> (Vec<Panel>, Order) {
    let channels = layer.shape().out_channels;
    let panels = (0..channels).step_by(LANE);
    let panels = panels.map(|channel| Panel::new(channel, LANE / lanes, channel, (channels - channel).min(LANE), 0));
    let order = (0..channels.next_multiple_of(LANE)).map(|at| {
        let channel = at / LANE * LANE + grouped_output(at % LANE, quads, lanes, format);
        Some(channel).filter(|&channel| channel < channels)
    });
    (panels.collect(), order.collect())
}

/// Output of a panel at a position of its vectors: their own order, but for two groups that share a vector of a kernel
/// that reads pairs. They alternate there.
fn grouped_output(at: usize, quads: usize, lanes: usize, format: WeightFormat) -> usize {
    let groups = if format == WeightFormat::Pairs { (lanes / (4 * quads)).max(1) } else { 1 };
    at / lanes * lanes + at % groups * (lanes / groups) + at % lanes / groups
}
