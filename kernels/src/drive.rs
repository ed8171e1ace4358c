//! The loops around a microkernel, the same for all instruction sets:
//!
//! ```text
//! for band of rows                                made readable: copied with its padding where there is some
//!     for block of rows                           its rows stay in cache while the weights pass by
//!         for panel of channels                   its weights stay in cache while the rows pass by
//!             for tile of rows                    all of which see the same part of the kernel
//!                 microkernel                     straight into the output, or into a side buffer where
//!                                                 panel and region overlap in part, or added to sums
//!             finish sums                         where a tile takes but one tap of its rows
//!         move rows to their pixels               where tiles take them in another order
//! ```
//!
//! Row kernels have loops of their own, in [`rows`].

mod rows;
mod strips;

use self::rows::Rows;
use self::strips::Strip;
use crate::element::Element;
use crate::epilogue::{
    ACCUMULATORS, ColumnSums, Epilogue, Store, element_size, more_stores_for, pow2_as_f32_mul, store_for,
};
use crate::finish::{Finish, Piece};
use crate::gather::{Gather, Runs, View};
use crate::memory::Memory;
use crate::micro::{Kind, MOST_BLOCK_ROWS, Microkernel, Tile};
use crate::pack::{Order, Panel, Weights, depthwise_panels, gemm_panels};
use alloc::boxed::Box;
use core::ops::Range;
use qexact_reference::{Addend, CodeType, Conv, Error, Input, Layer, Output, Region, Rule};

/// What the driver runs on.
pub(crate) struct Packed {
    kernel: &'static Microkernel,
    reads: Reads,
    weights: Weights,
    epilogue: Epilogue,
    /// What the kernel stores.
    store: Store,
    /// What makes outputs of stored accumulators, for a rule that the kernel does not have built in.
    finish: Option<Finish>,
    order: Order,
    sums: ColumnSums,
    /// Output channels.
    channels: usize,
    /// Bytes of scratch memory that a call needs.
    scratch_len: usize,
    /// Rows of a block …
    block_rows: usize,
    /// … which are a multiple of this: tiles, or lines where pixels of several come together in a tile.
    unit: usize,
}

/// How a kernel reads the input.
enum Reads {
    /// Row by row, through where its runs are.
    Runs(Box<Gather>),
    /// Staged columns of a band of rows.
    Rows(Rows),
}

impl Packed {
    /// Packs a layer for a kernel.
    ///
    /// # Errors
    /// Sizes that overflow.
    pub(crate) fn new(layer: &Layer<'_>, kernel: &'static Microkernel, runs: Runs) -> Result<Packed, Error> {
        let shape = layer.shape();
        let lanes = kernel.lanes;
        let (reads, weights, order) = match kernel.kind {
            Kind::Gemm => {
                let gather = Gather::new(shape, runs, kernel, layer.input())?;
                let (panels, order) = gemm_panels(layer, lanes, kernel.vectors);
                let packing = (gather.whole.runs.len(), gather.run_len);
                let weights = Weights::pack(layer, (panels, &order), lanes, packing, kernel.format);
                (Reads::Runs(Box::new(gather)), weights, order)
            }
            // A depthwise channel has one code a tap: its taps are what gets packed together.
            Kind::Depthwise => {
                let gather = Gather::new(shape, Runs::Taps, kernel, layer.input())?;
                let (panels, order) = depthwise_panels(layer, lanes);
                let packing = (1, gather.whole.runs.len());
                let weights = Weights::pack(layer, (panels, &order), lanes, packing, kernel.format);
                (Reads::Runs(Box::new(gather)), weights, order)
            }
            Kind::DepthwiseRows | Kind::DepthwiseDirect { .. } | Kind::GroupedRows { .. } => {
                let rows = Rows::new(shape, kernel)?;
                let (weights, order) = rows.pack(layer, kernel);
                (Reads::Rows(rows), weights, order)
            }
        };
        let sums = match &reads {
            Reads::Runs(gather) => ColumnSums::of(layer, [gather.pieces, gather.columns]),
            Reads::Rows(_) => ColumnSums::of(layer, [1, 1]),
        };
        let (epilogue, store) = (Epilogue::default(), ACCUMULATORS);
        let channels = shape.out_channels;
        let mut packed = Packed {
            kernel,
            reads,
            weights,
            epilogue,
            store,
            finish: None,
            order,
            sums,
            channels,
            scratch_len: 0,
            block_rows: 0,
            unit: 0,
        };
        packed.set_epilogue(shape, layer.input(), layer.input_zero_point(), layer.rule());
        Ok(packed)
    }

    /// Zero point and rule, for the weights already packed.
    pub(crate) fn set_epilogue(&mut self, shape: &Conv, input: CodeType, input_zero_point: i32, rule: &Rule) {
        let bound = self.sums.accumulator_bound(input, input_zero_point);
        let scaled = if let Rule::Pow2(rule) = rule { pow2_as_f32_mul(rule).map(Rule::F32Mul) } else { None };
        let rule = scaled.as_ref().unwrap_or(rule);
        let more = || more_stores_for(rule, shape.out_channels).filter(|_| self.kernel.more_stores);
        let sums = self.gather().is_some_and(Gather::is_by_taps);
        let store = store_for(rule, shape.out_channels, bound).or_else(more).filter(|_| !sums);
        // A rule without a fused form finishes tiles of accumulators in a second step, as any rule does sums.
        self.store = store.unwrap_or(ACCUMULATORS);
        let (fused, finish) = match store {
            Some(_) => (rule, None),
            None => (&Rule::Accumulator, Some(Finish::new(rule, shape.out_channels, self.kernel.isa))),
        };
        self.finish = finish;
        let row_bytes = shape.taps() * shape.group_inputs() * self.kernel.element.size();
        let most = (BLOCK_BYTES / row_bytes).clamp(BLOCK_ROWS, MOST_BLOCK_ROWS);
        let (most, unit) = match self.gather() {
            Some(gather) if sums => {
                let most = (LISTED_ROWS / gather.views.len()).clamp(self.kernel.rows, SUM_ROWS);
                (most, if gather.width() <= most { gather.width() } else { 1 })
            }
            // Edges of as many lines as possible.
            Some(gather) if gather.has_spans() => {
                let most = if self.finish.is_some() { MOST_BLOCK_ROWS } else { OUTPUT_BYTES / self.row_len() };
                (most.min(MOST_BLOCK_ROWS), gather.width())
            }
            _ => (most, self.kernel.rows),
        };
        self.block_rows = (most / unit).max(1) * unit;
        self.unit = unit;
        let views = match &self.reads {
            Reads::Runs(gather) => gather.views.as_slice(),
            Reads::Rows(_) => &[View::WHOLE],
        };
        self.epilogue = Epilogue::new(&self.order, views, input, input_zero_point, &self.sums, fused);
        self.scratch_len = match &self.reads {
            Reads::Runs(gather) => Memory::needed(|memory| Scratch::divide(self, gather, memory)),
            Reads::Rows(rows) => rows.scratch_len(self.kernel),
        };
    }

    /// Whether the epilogue needs Σ x of every row.
    fn needs_row_sums(&self) -> bool {
        self.kernel.kind == Kind::Gemm && !self.epilogue.weight_zero_point.is_empty()
    }

    /// Bytes of a row of outputs.
    fn row_len(&self) -> usize {
        self.channels * element_size(self.store)
    }

    /// How rows are read that are made of runs.
    fn gather(&self) -> Option<&Gather> {
        match &self.reads {
            Reads::Runs(gather) => Some(gather),
            Reads::Rows(_) => None,
        }
    }

    /// The largest |accumulator| that any input can lead to.
    pub(crate) fn accumulator_bound(&self, input: CodeType, input_zero_point: i32) -> i64 {
        self.sums.accumulator_bound(input, input_zero_point)
    }

    /// Bytes of scratch memory that a call needs.
    pub(crate) fn scratch_len(&self) -> usize {
        self.scratch_len
    }

    /// Bytes of packed weights.
    pub(crate) fn weight_bytes(&self) -> usize {
        self.weights.len()
    }
}

/// Rows of a block, at least …
const BLOCK_ROWS: usize = 96;
/// … and as many more, up to [`MOST_BLOCK_ROWS`], as read no more than this: a panel is set up once a block.
const BLOCK_BYTES: usize = 32 << 10;
/// Outputs of a block that are stored by themselves first stay in the L2 cache.
const OUTPUT_BYTES: usize = 256 << 10;
/// Rows of a block whose outputs are sums of tiles: those of a panel stay in the L1 cache …
const SUM_ROWS: usize = 192;
/// … unless they would be more than this for all taps together.
const LISTED_ROWS: usize = 16 << 10;
/// Rows of the side buffer: what waits there for a second step stays in the L1 cache.
const SIDE_ROWS: usize = 96;
/// Bytes between weights that pass by once and those asked for meanwhile.
const AHEAD: usize = 2048;
/// Weights of a single row that come from memory, as more bytes than this do, arrive sooner without being asked for.
const FAR: usize = 8 << 20;

/// The caller's scratch memory for kernels that read runs.
struct Scratch<'s> {
    /// The padded copy of a band.
    copy: &'s mut [u8],
    /// Pixels that are copied by themselves.
    pixels: &'s mut [u8],
    block: Block<'s>,
}

impl<'s> Scratch<'s> {
    fn divide(packed: &Packed, gather: &Gather, memory: &mut Memory<'s>) -> Scratch<'s> {
        let sums = gather.is_by_taps();
        // A pixel is a row of each tap that it sees.
        let rows = if sums { gather.views.len() } else { 1 } * packed.block_rows;
        let row_sums = if packed.needs_row_sums() { rows } else { 0 };
        let runs = gather.views.iter().map(|view| view.runs.len()).max().unwrap_or(0);
        let moved = if sums || gather.has_spans() { packed.block_rows } else { 0 };
        let side = if sums { packed.block_rows } else { SIDE_ROWS.max(packed.kernel.rows) };
        Scratch {
            copy: memory.take(gather.copy_len()),
            pixels: memory.take(gather.pixels_len(packed.block_rows)),
            block: Block {
                range: 0..0,
                rows: memory.take(rows),
                widened: memory.take(packed.kernel.widened * runs * gather.run_len.div_ceil(2)),
                strips: memory.take(if sums { 2 * gather.views.len() } else { rows }),
                count: 0,
                quads: 0,
                share: 0,
                moved: false,
                pixels: memory.take(if moved > 0 { rows } else { 0 }),
                located: memory.take(moved),
                outputs: memory.take(if packed.finish.is_none() { moved * packed.row_len() } else { 0 }),
                row_sums: memory.take(row_sums),
                tile: memory.take(side * packed.kernel.width()),
            },
        }
    }
}

/// Where a region is stored.
struct Target {
    first: *mut u8,
    /// Bytes of an element.
    size: usize,
    region: Region,
}

impl Target {
    fn new(region: &Region, output: Output<'_>) -> Target {
        let (first, size) = match output {
            Output::U8(y) => (y.as_mut_ptr(), 1),
            Output::I8(y) => (y.as_mut_ptr().cast(), 1),
            Output::I32(y) => (y.as_mut_ptr().cast(), 4),
            Output::F32(y) => (y.as_mut_ptr().cast(), 4),
        };
        Target { first, size, region: region.clone() }
    }

    /// Bytes between rows.
    fn stride(&self) -> usize {
        self.region.channels.len() * self.size
    }

    /// Address of an output inside the region.
    fn at(&self, row: usize, channel: usize) -> *mut u8 {
        self.first.wrapping_add(self.index(row, channel) * self.size)
    }

    /// Position of an output inside the region.
    fn index(&self, row: usize, channel: usize) -> usize {
        debug_assert!(self.region.rows.contains(&row) && self.region.channels.contains(&channel));
        (row - self.region.rows.start) * self.region.channels.len() + channel - self.region.channels.start
    }
}

/// Runs a plan over a region.
///
/// # Safety
/// * The CPU has the instruction set of the plan's kernel.
/// * [`check_call`](qexact_reference::layer::check_call) accepted region, input and output for the plan's shape, and
///   the output's elements are what its rule produces.
/// * [`check_addend`](qexact_reference::layer::check_addend) accepted the addend.
/// * `scratch` has at least [`Packed::scratch_len`] bytes.
pub(crate) unsafe fn run(
    packed: &Packed,
    zero_point: u8,
    region: &Region,
    (input, addend, output): (Input<'_>, Addend<'_>, Output<'_>),
    scratch: &mut [u8],
) {
    let (input, signed) = match input {
        Input::U8(x) => (x, false),
        // SAFETY: the same memory, read as bytes.
        Input::I8(x) => (unsafe { core::slice::from_raw_parts(x.as_ptr().cast::<u8>(), x.len()) }, true),
    };
    let driver = Driver { packed, addend, signed, target: Target::new(region, output) };
    let mut memory = Memory::new(scratch);
    let gather = match &packed.reads {
        Reads::Runs(gather) => gather,
        // SAFETY: passed on.
        Reads::Rows(rows) => return unsafe { driver.bands(rows, input, zero_point, &mut memory) },
    };
    let flip = if signed { 0x80 } else { 0 };
    let Scratch { copy, pixels, block } = &mut Scratch::divide(packed, gather, &mut memory);
    // Rows that are copied from the tile buffer, because the region begins inside a panel, are so in their order.
    let first = region.channels.start;
    let divides = packed.finish.is_some() || packed.weights.panels.iter().any(|panel| panel.channel == first);
    for band in gather.bands(region.rows.clone()) {
        // SAFETY: the CPU has the kernel's instructions.
        let read = unsafe { gather.read(&band, input, (zero_point, flip), copy) };
        for range in even_parts(band, packed.block_rows, packed.unit) {
            block.range = range;
            packed.arrange(gather, block, divides);
            let (first, len, listed) = (block.range.start, block.range.len(), block.listed());
            let rows = if block.moved { &mut *block.located } else { &mut *block.rows };
            // SAFETY: the block lies in the band, and its rows are then where they can be read.
            unsafe { read.rows(first, &mut rows[..len], pixels) };
            if block.moved {
                for (row, &pixel) in block.rows.iter_mut().zip(&block.pixels[..listed]) {
                    *row = block.located[pixel as usize];
                }
            }
            // SAFETY: likewise.
            unsafe { driver.block(gather, block) };
        }
    }
}

struct Driver<'p> {
    packed: &'p Packed,
    addend: Addend<'p>,
    signed: bool,
    target: Target,
}

/// Rows that the weights pass by.
struct Block<'s> {
    /// Output pixels, counted through the batch.
    range: Range<usize>,
    /// Where each row of the strips begins: a pixel has one, or one for each tap that it sees.
    rows: &'s mut [*const u8],
    widened: &'s mut [u8],
    strips: &'s mut [Strip],
    /// How many of them there are.
    count: usize,
    /// Quads that all tiles take from the weights.
    quads: usize,
    /// Quads of a panel by those that all tiles take from it, in parts of 2^16.
    share: usize,
    /// Whether rows are not in the order of pixels: …
    moved: bool,
    /// … then the pixel of each row, counted from the first, …
    pixels: &'s mut [u32],
    /// … where they are, in the order of pixels, …
    located: &'s mut [*const u8],
    /// … and the outputs of each row, where there is no second step that takes them to their pixels.
    outputs: &'s mut [u8],
    row_sums: &'s mut [i32],
    /// The side buffer.
    tile: &'s mut [i32],
}

impl Driver<'_> {
    /// All outputs of a block that lie in the region.
    ///
    /// # Safety
    /// As [`run`]; the block's rows are where its pointers say.
    unsafe fn block(&self, gather: &Gather, block: &mut Block<'_>) {
        let region = &self.target.region.channels;
        let mut summed_group = None;
        // One call for all panels that are alike, where they have nothing else between them.
        let through = self.packed.kernel.kind == Kind::Gemm && self.packed.finish.is_none() && block.count == 1;
        let together = |a: &Panel, b: &Panel| through && a.channel >= region.start && a.is_like(b);
        for panels in self.packed.weights.panels.chunk_by(together) {
            let [panel, ..] = panels else { continue };
            let inside = panel.within(region).start..panels[panels.len() - 1].within(region).end;
            if inside.is_empty() {
                continue;
            }
            if self.packed.needs_row_sums() && summed_group != Some(panel.group) {
                summed_group = Some(panel.group);
                // SAFETY: passed on.
                unsafe { self.sum_rows(gather, panel, block) };
            }
            let width = panel.vectors * self.packed.kernel.lanes;
            if gather.is_by_taps() {
                block.tile[..block.range.len() * width].fill(0);
            }
            // SAFETY: passed on.
            unsafe { self.panels(gather, panel, inside.clone(), block) };
            if gather.is_by_taps() {
                // SAFETY: the tiles of all taps have added to the sums in the side buffer.
                unsafe { self.copy_out(&block.range, &inside, panel, width, block.tile) };
            }
        }
        if block.moved && self.packed.finish.is_none() {
            let stride = self.target.stride();
            for (rows, pixels) in block.pieces(0..block.range.len()) {
                let to = self.target.at(pixels.start, region.start);
                let from = &block.outputs[rows.start * stride..rows.end * stride];
                // SAFETY: so many pixels of the region; scratch and output do not overlap.
                unsafe { core::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
            }
        }
    }

    /// First input channel that a panel reads, as bytes after the first of all.
    fn input_channel(&self, gather: &Gather, panel: &Panel) -> usize {
        let channel = match self.packed.kernel.kind {
            Kind::Depthwise => panel.channel,
            _ => panel.group * gather.run_len,
        };
        channel * gather.element.size()
    }

    /// Σ x of every row of a block, signed codes read as x + 128.
    ///
    /// # Safety
    /// As [`block`](Driver::block).
    unsafe fn sum_rows(&self, gather: &Gather, panel: &Panel, block: &mut Block<'_>) {
        // Nothing else is signed, and high bytes of words are 0.
        let flip = if self.signed && matches!(gather.element, Element::Byte) { 0x80 } else { 0 };
        for strip in &block.strips[..block.count] {
            let view = &gather.views[strip.view as usize];
            let (first, len) = (self.input_channel(gather, panel), view.codes * gather.element.size());
            for row in (strip.at..strip.at + strip.rows).map(|row| row as usize) {
                let mut sum = 0u32;
                for run in &gather.runs[view.runs.clone()] {
                    let codes = block.rows[row].wrapping_offset(run.codes).wrapping_add(first);
                    // SAFETY: every run is readable for the elements of its view.
                    let run = unsafe { core::slice::from_raw_parts(codes, len) };
                    sum = run.iter().fold(sum, |sum, &x| sum.wrapping_add(u32::from(x ^ flip)));
                }
                block.row_sums[row] = sum as i32;
            }
        }
    }

    /// The outputs of one block of rows and the channels `inside` a panel, or a panel and those like it that follow.
    ///
    /// # Safety
    /// As [`block`](Driver::block), and the row sums are there if needed.
    unsafe fn panels(&self, gather: &Gather, panel: &Panel, inside: Range<usize>, block: &mut Block<'_>) {
        let Packed { kernel, weights, epilogue, store, order, .. } = self.packed;
        let region = &self.target.region;
        let width = panel.vectors * kernel.lanes;
        let direct = inside.start == panel.channel && self.packed.finish.is_none();
        // What a tile has stored or added stays where it is.
        let sums = gather.is_by_taps();
        let stays = direct || sums;
        let element = element_size(*store);
        let mut tile = Tile {
            steps: kernel.format.steps(),
            ahead_step: width * 4,
            widened: block.widened.as_mut_ptr(),
            stride: if direct { self.target.stride() } else { width * element },
            channels: if direct { inside.len() } else { panel.channels },
            panel_bytes: weights.panel_bytes(panel),
            ..Tile::of(epilogue, panel.first)
        };
        let output = match direct {
            true if block.moved => {
                let before = (inside.start - region.channels.start) * element;
                block.outputs.as_mut_ptr().wrapping_add(before)
            }
            true => self.target.at(block.range.start, inside.start),
            false => block.tile.as_mut_ptr().cast(),
        };
        tile.output = output;
        let once = block.range.len() <= kernel.rows;
        // Weights that are used again and again are in the caches, once all tiles have asked for their shares of them.
        if !once {
            tile.ahead_step = (width * 4 * block.share) >> 16;
        } else if block.range.len() == 1 && weights.len() > FAR {
            tile.ahead_step = 0;
        }
        tile.channel = self.input_channel(gather, panel);
        tile.weights = weights.of_panel(panel, 0);
        let next = tile.weights.wrapping_add(tile.panel_bytes);
        for strip in &block.strips[..block.count] {
            let (mut at, end, view) = (strip.at as usize, (strip.at + strip.rows) as usize, strip.view as usize);
            let View { runs, codes, .. } = &gather.views[view];
            tile.runs = &gather.runs[runs.clone()];
            (tile.quads, tile.pairs) = (codes.div_ceil(4), codes.div_ceil(2));
            tile.initial = epilogue.initial[view * order.len() + panel.first..].as_ptr();
            let tile_rows = strip.tile as usize;
            let call = (kernel.tile)(tile_rows, panel.vectors, self.signed, *store);
            // As many tiles at once as the side buffer has room for.
            let mut quads = strip.quads;
            let most = if stays { end - at } else { SIDE_ROWS.max(kernel.rows) / tile_rows * tile_rows };
            while at < end {
                let rows = at..(at + most).min(end);
                tile.rows = block.rows[at..].as_ptr();
                tile.count = rows.len();
                // Where weights are used again and again, every tile asks for its share of the next panel's; weights that
                // are used once are asked for a little ahead of their use.
                tile.ahead = if once {
                    let first = tile.runs.first().map_or(0, |run| run.weights);
                    weights.of_panel(panel, first).wrapping_add(AHEAD)
                } else {
                    next.wrapping_add((width * 4 * quads * block.share) >> 16)
                };
                tile.row_sums = block.row_sums.as_ptr().wrapping_add(at);
                if sums {
                    tile.places = block.pixels.as_ptr().wrapping_add(at);
                }
                if direct {
                    tile.output = output.wrapping_add(at * tile.stride);
                }
                // SAFETY: the CPU has the kernel's instructions (by `run`'s contract). Every row has its runs in the
                // input or in a copy, and what whole quads and blocks reach beyond the last run is readable too.
                // Weights and epilogue were packed for this panel, and those like it follow. The output is the region
                // (`direct`: the panel begins inside it), memory for a block's rows of it, or the side buffer, which has
                // room for so many rows of 4-byte elements, or for the sums of all pixels of a block.
                unsafe { call(&tile) };
                at = rows.end;
                if stays {
                    continue;
                }
                quads += rows.len() / tile_rows * gather.views[view].quads();
                for (piece, pixels) in block.pieces(rows.clone()) {
                    let tile = &block.tile[(piece.start - rows.start) * width..];
                    // SAFETY: the side buffer was just filled.
                    unsafe { self.copy_out(&pixels, &inside, panel, width, tile) };
                }
            }
        }
    }

    /// Takes the part of the side buffer that lies inside the region through the second step, or copies it: rows that
    /// follow each other.
    ///
    /// # Safety
    /// `tile` holds the rows in the elements that the kernel stores; the region's output is as [`run`] says.
    #[inline(never)]
    unsafe fn copy_out(&self, rows: &Range<usize>, inside: &Range<usize>, panel: &Panel, width: usize, tile: &[i32]) {
        let skip = inside.start - panel.channel;
        let Some(finish) = &self.packed.finish else {
            let size = self.target.size;
            for (i, row) in rows.clone().enumerate() {
                let from = tile.as_ptr().cast::<u8>().wrapping_add((i * width + skip) * size);
                let to = self.target.at(row, inside.start);
                // SAFETY: both hold these elements; scratch and output do not overlap.
                unsafe { core::ptr::copy_nonoverlapping(from, to, inside.len() * size) };
            }
            return;
        };
        let piece = Piece {
            accumulators: tile[skip..].as_ptr(),
            accumulator_stride: width,
            rows: rows.len(),
            first: inside.start,
            channels: inside.len(),
            addend: self.addend,
            addend_first: self.target.index(rows.start, inside.start),
            output: self.target.at(rows.start, inside.start),
            stride: self.target.region.channels.len(),
        };
        // SAFETY: the CPU has the kernel's instructions, which the step was made for with the layer's channels; tile
        // and region have these rows and channels, and the addend is laid out as the region.
        unsafe { finish.run(&piece) };
    }
}

/// Splits a range into as few parts of at most `most` as possible, as even as possible in whole tiles.
fn even_parts(range: Range<usize>, most: usize, tile: usize) -> impl Iterator<Item = Range<usize>> {
    let size = if range.len() <= most {
        range.len()
    } else {
        range.len().div_ceil(range.len().div_ceil(most)).next_multiple_of(tile)
    };
    let mut next = range.start;
    core::iter::from_fn(move || {
        let part = next..(next + size).min(range.end);
        next = part.end;
        (!part.is_empty()).then_some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn parts_are_even_and_cover_the_range() {
        for (len, most) in (0..200).flat_map(|len| (1..14).map(move |most| (len, most))) {
            let mut next = 3;
            for part in even_parts(3..3 + len, most, 1) {
                assert_eq!(part.start, next);
                assert!((1..=most).contains(&part.len()));
                next = part.end;
            }
            assert_eq!(next, 3 + len);
        }
        assert_eq!(even_parts(0..13, 12, 1).map(|p| p.len()).collect::<Vec<_>>(), [7, 6]);
    }
}
