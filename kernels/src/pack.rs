//! Packing: weights in the order in which a kernel reads them.

use crate::aligned::Aligned;
use alloc::vec::Vec;
use core::ops::Range;
use qexact_reference::Layer;

/// How weights of a panel follow each other. `w` stands for the panel's width in channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WeightFormat {
    /// i8 `[run][k / 4][w][4]`: the operand of a four-way dot product.
    Quads,
    /// The same, of weights that are proven to allow so many `steps`, quads added in 16 bits: see [`safe`](crate::safe).
    SafeQuads { steps: usize },
    /// i8 `[run][k / 2][w][2]`: half the memory traffic of `Pairs`, widened where it is used.
    BytePairs,
    /// i16 `[run][k / 2][w][2]`: the operand of a two-way dot product.
    Pairs,
    /// i8 `[run][w / CHANNELS][k / LONG][CHANNELS][LONG]`: registers of one channel's weights.
    Long,
    /// Bytes of `8 / bits` weights `[run][k / (4 · 8 / bits)][w][4]`: field f, counted from the least significant bits,
    /// is of the f-th quad. Fields are those of R43.
    Fields { bits: usize },
}

impl WeightFormat {
    /// Elements of k that are packed together; runs are filled up with zeros to a multiple of it.
    pub(crate) fn depth(self) -> usize {
        match self {
            WeightFormat::Quads | WeightFormat::SafeQuads { .. } => 4,
            WeightFormat::BytePairs | WeightFormat::Pairs => 2,
            WeightFormat::Long => LONG,
            WeightFormat::Fields { bits } => 4 * 8 / bits,
        }
    }

    /// Steps of so many elements of a run.
    pub(crate) fn steps_of(self, run_len: usize) -> usize {
        run_len.div_ceil(self.depth())
    }

    /// Bytes of a weight, or of as many as share one.
    pub(crate) fn bytes(self) -> usize {
        match self {
            WeightFormat::Pairs => 2,
            _ => 1,
        }
    }

    /// Elements of k that are packed, or proven not to saturate, together: whole groups can be left out of a run. None
    /// where a run is not a row of groups.
    pub(crate) fn group(self) -> Option<usize> {
        (self != WeightFormat::Long).then_some(self.depth() * self.steps().max(1))
    }

    /// Steps that are added in 16 bits; 0 where products are added in 32.
    pub(crate) fn steps(self) -> usize {
        match self {
            WeightFormat::SafeQuads { steps } => steps,
            _ => 0,
        }
    }

    /// Bytes of a channel's weights that are packed together.
    fn group_bytes(self) -> usize {
        match self {
            WeightFormat::Fields { .. } => 4,
            _ => self.depth() * self.bytes(),
        }
    }
}

/// Codes, and channels, of [`WeightFormat::Long`].
pub(crate) const LONG: usize = 64;
pub(crate) const CHANNELS: usize = 4;

/// One panel: channels that a tile computes together.
#[derive(Clone, Debug)]
pub(crate) struct Panel {
    /// Position of its first channel in the epilogue's vectors.
    pub first: usize,
    /// Vectors of channels.
    pub vectors: usize,
    /// Its first output channel.
    pub channel: usize,
    /// Output channels in it; less than its width where the layer (or group) ends.
    pub channels: usize,
    /// Group of its channels; 0 for depthwise panels, which span groups.
    pub group: usize,
    /// Offset of its weights in bytes, number of steps, each of weights that are packed together, and bytes of one.
    offset: usize,
    steps: usize,
    step_bytes: usize,
}

impl Panel {
    /// A panel whose weights are yet to be packed.
    pub(crate) fn new(first: usize, vectors: usize, channel: usize, channels: usize, group: usize) -> Panel {
        Panel { first, vectors, channel, channels, group, offset: 0, steps: 0, step_bytes: 0 }
    }

    /// Whether another is like it, so that one call can go through both.
    pub(crate) fn is_like(&self, other: &Panel) -> bool {
        (self.group, self.vectors) == (other.group, other.vectors)
    }

    /// Its output channels within `channels`.
    pub(crate) fn within(&self, channels: &Range<usize>) -> Range<usize> {
        self.channel.max(channels.start)..(self.channel + self.channels).min(channels.end)
    }
}

/// Packed weights.
pub(crate) struct Weights {
    /// Panels begin on cache lines: no load of packed weights crosses one.
    bytes: Aligned<u8>,
    /// In order of output channels.
    pub panels: Vec<Panel>,
}

/// Output channel at each position of the epilogue's vectors, `None` where a panel is filled up.
pub(crate) type Order = Vec<Option<usize>>;

/// Panels for a GEMM kernel: each group's channels in panels of up to `vectors` vectors, always a power of two, filled
/// up by less than a vector.
pub(crate) fn gemm_panels(layer: &Layer<'_>, lanes: usize, vectors: usize) -> (Vec<Panel>, Order) {
    let outputs = layer.shape().group_outputs();
    let (mut panels, mut order) = (Vec::new(), Order::new());
    for group in 0..layer.shape().groups {
        let mut done = 0;
        while done < outputs {
            let vectors = (1 << (outputs - done).div_ceil(lanes).ilog2()).min(vectors);
            let channels = (outputs - done).min(lanes * vectors);
            let channel = group * outputs + done;
            panels.push(Panel::new(order.len(), vectors, channel, channels, group));
            order.extend((0..lanes * vectors).map(|i| (i < channels).then_some(channel + i)));
            done += channels;
        }
    }
    (panels, order)
}

/// Panels for a depthwise kernel: blocks of four vectors, channels in the order in which interleaving the bytes
/// of taps leaves them: dword d of 128-bit lane l of vector v holds channel `16·l + 4·v + d` of the block.
/// Narrowing four vectors to bytes undoes exactly this order.
pub(crate) fn depthwise_panels(layer: &Layer<'_>, lanes: usize) -> (Vec<Panel>, Order) {
    let (channels, width) = (layer.shape().out_channels, 4 * lanes);
    let (mut panels, mut order) = (Vec::new(), Order::new());
    for channel in (0..channels).step_by(width) {
        let valid = (channels - channel).min(width);
        panels.push(Panel::new(order.len(), 4, channel, valid, 0));
        order.extend(interleaved(lanes).map(|at| (at < valid).then_some(channel + at)));
    }
    (panels, order)
}

/// Channel of a block at each position of the four vectors of [`depthwise_panels`].
pub(crate) fn interleaved(lanes: usize) -> impl Iterator<Item = usize> {
    (0..4 * lanes).map(move |position| {
        let (vector, lane) = (position / lanes, position % lanes);
        16 * (lane / 4) + 4 * vector + lane % 4
    })
}

impl Weights {
    /// Packs a layer whose rows are read in `runs` runs of `run_len` codes each.
    pub(crate) fn pack(
        layer: &Layer<'_>,
        (mut panels, order): (Vec<Panel>, &Order),
        lanes: usize,
        (runs, run_len): (usize, usize),
        format: WeightFormat,
    ) -> Weights {
        let depth = layer.shape().depth();
        debug_assert_eq!(runs * run_len, depth, "runs cover the products of an output");
        let steps = runs * format.steps_of(run_len);
        let mut bytes = 0;
        for panel in &mut panels {
            panel.offset = bytes;
            panel.steps = steps;
            panel.step_bytes = panel.vectors * lanes * format.group_bytes();
            bytes += (steps * panel.step_bytes).next_multiple_of(64);
        }
        let mut memory = Aligned::zeros(bytes);
        for panel in &panels {
            let width = panel.vectors * lanes;
            let channels = &order[panel.first..][..width];
            let rows: Vec<Option<&[i8]>> =
                channels.iter().map(|c| c.map(|c| &layer.weight()[c * depth..][..depth])).collect();
            let memory = &mut memory[panel.offset..][..steps * panel.step_bytes];
            match format {
                WeightFormat::Quads | WeightFormat::SafeQuads { .. } => interleave::<4, 1>(&rows, run_len, memory),
                WeightFormat::Long => {
                    let run_bytes = steps / runs * panel.step_bytes;
                    for (run, memory) in memory.chunks_exact_mut(run_bytes).enumerate() {
                        let rows = rows.iter().map(|row| row.map(|row| &row[run * run_len..][..run_len]));
                        let rows: Vec<_> = rows.collect();
                        let bytes = run_bytes / width * CHANNELS;
                        for (rows, memory) in rows.chunks(CHANNELS).zip(memory.chunks_exact_mut(bytes)) {
                            interleave::<LONG, 1>(rows, run_len, memory);
                        }
                    }
                }
                WeightFormat::BytePairs => interleave::<2, 1>(&rows, run_len, memory),
                WeightFormat::Pairs => interleave::<2, 2>(&rows, run_len, memory),
                WeightFormat::Fields { bits } => fields(&rows, run_len, bits, memory),
            }
        }
        Weights { bytes: memory, panels }
    }

    /// Bytes from a panel to the next.
    pub(crate) fn panel_bytes(&self, panel: &Panel) -> usize {
        (panel.steps * panel.step_bytes).next_multiple_of(64)
    }

    /// Packs whatever bytes a panel's weights are.
    pub(crate) fn from_panels(mut panels: Vec<Panel>, bytes: impl Fn(&Panel) -> Vec<u8>) -> Weights {
        let mut memory = Vec::new();
        for panel in &mut panels {
            panel.offset = memory.len();
            memory.extend(bytes(panel));
            memory.resize(memory.len().next_multiple_of(64), 0);
        }
        Weights { bytes: memory.into_iter().collect(), panels }
    }

    /// The first byte of a panel's weights, from a step on.
    pub(crate) fn of_panel(&self, panel: &Panel, step: usize) -> *const u8 {
        debug_assert!(panel.offset < self.bytes.len());
        self.bytes.as_ptr().wrapping_add(panel.offset + step * panel.step_bytes)
    }

    /// Bytes of packed weights.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }
}

/// Writes GROUP weights of each channel after the other, run by run, as numbers of `BYTES` bytes. What a run lacks of a
/// whole group stays 0, as do channels that are not there.
fn interleave<const GROUP: usize, const BYTES: usize>(rows: &[Option<&[i8]>], run_len: usize, packed: &mut [u8]) {
    let groups = run_len.div_ceil(GROUP);
    // In the order of memory: weights of a channel are read in runs, whole cache lines are written.
    for (step, packed) in packed.chunks_exact_mut(rows.len() * GROUP * BYTES).enumerate() {
        let (run, k) = (step / groups, step % groups * GROUP);
        let (from, count) = (run * run_len + k, GROUP.min(run_len - k));
        for (row, packed) in rows.iter().zip(packed.chunks_exact_mut(GROUP * BYTES)) {
            let Some(row) = row else { continue };
            let mut weights = [0; GROUP];
            match row.get(from..from + GROUP).filter(|_| count == GROUP) {
                Some(whole) => weights.copy_from_slice(whole),
                None => weights[..count].copy_from_slice(&row[from..from + count]),
            }
            for i in 0..GROUP {
                let wide = i16::from(weights[i]).to_le_bytes();
                for byte in 0..BYTES {
                    packed[i * BYTES + byte] = wide[byte];
                }
            }
        }
    }
}

/// Packs weights of 1 (−1 and 1), 2 or 4 bits as [`WeightFormat::Fields`]. What a run lacks of a whole quad meets codes
/// that are not the layer's: it must be 0, or, of binary weights, must not be there.
fn fields(rows: &[Option<&[i8]>], run_len: usize, bits: usize, packed: &mut [u8]) {
    let depth = WeightFormat::Fields { bits }.depth();
    let groups = run_len.div_ceil(depth);
    debug_assert!(bits > 1 || run_len.is_multiple_of(4), "a quad that is not whole has no weights that are 0");
    for (step, packed) in packed.chunks_exact_mut(rows.len() * 4).enumerate() {
        let (run, k) = (step / groups, step % groups * depth);
        let (from, count) = (run * run_len + k, depth.min(run_len - k));
        for (row, packed) in rows.iter().zip(packed.chunks_exact_mut(4)) {
            let Some(row) = row else { continue };
            for (i, &weight) in row[from..from + count].iter().enumerate() {
                let field = if bits == 1 { u8::from(weight < 0) } else { weight as u8 & ((1 << bits) - 1) };
                packed[i % 4] |= field << (i / 4 * bits);
            }
        }
    }
}
