//! The loops around a microkernel, the same for all instruction sets:
//!
//! ```text
//! for block of rows                               its rows stay in cache while the weights pass by
//!     gather the pointers of its tiles
//!     for panel of channels                       its weights stay in cache while the rows pass by
//!         for tile of rows
//!             microkernel                         straight into the output, or into a side buffer where
//!                                                 panel and region overlap in part
//! ```

mod rows;

use self::rows::{Rows, depthwise_row_panels, grouped_row_panels};
use crate::choose::Reads;
use crate::epilogue::{ACCUMULATORS, CODES, ColumnSums, Epilogue, Store, store_for};
use crate::gather::Gather;
use crate::micro::{Kind, Microkernel, Tile, TileFn};
use crate::pack::{Order, Panel, Weights, depthwise_panels, gemm_panels};
use core::ops::Range;
use qexact_reference::{Addend, CodeType, Conv, Error, Input, Layer, Output, Region, Rule};

/// What the driver runs on.
pub(crate) struct Packed {
    kernel: &'static Microkernel,
    gather: Gather,
    weights: Weights,
    epilogue: Epilogue,
    /// What the kernel stores.
    store: Store,
    order: Order,
    sums: ColumnSums,
    /// Bands of row kernels.
    rows: Option<Rows>,
}

impl Packed {
    /// Packs a layer for a kernel.
    ///
    /// # Errors
    /// Sizes that overflow.
    pub(crate) fn new(layer: &Layer<'_>, kernel: &'static Microkernel, reads: Reads) -> Result<Packed, Error> {
        let shape = layer.shape();
        let gather = match reads {
            Reads::Taps => Gather::taps(shape)?,
            Reads::KernelRows => Gather::kernel_rows(shape)?,
        };
        let lanes = kernel.lanes;
        let (panels, order) = match kernel.kind {
            Kind::Gemm => gemm_panels(layer, lanes, kernel.vectors),
            Kind::Depthwise => depthwise_panels(layer, lanes),
            Kind::DepthwiseRows(_) => depthwise_row_panels(layer, lanes),
            Kind::GroupedRows { .. } => grouped_row_panels(layer, lanes),
        };
        let mut rows = None;
        let weights = match kernel.kind {
            Kind::Gemm => Weights::pack(layer, (panels, &order), lanes, (gather.runs, gather.run_len), kernel.format),
            // A depthwise channel has one code a tap: its taps are what gets packed together.
            Kind::Depthwise => Weights::pack(layer, (panels, &order), lanes, (1, gather.runs), kernel.format),
            Kind::DepthwiseRows(_) | Kind::GroupedRows { .. } => {
                rows.insert(Rows::new(shape, kernel)?).pack(layer, kernel, panels, &order)
            }
        };
        let sums = ColumnSums::of(layer);
        let (epilogue, store) = (Epilogue::default(), ACCUMULATORS);
        let mut packed = Packed { kernel, gather, weights, epilogue, store, order, sums, rows };
        packed.set_epilogue(shape, layer.input(), layer.input_zero_point(), layer.rule());
        Ok(packed)
    }

    /// Zero point and rule, for the weights already packed.
    pub(crate) fn set_epilogue(&mut self, shape: &Conv, input: CodeType, input_zero_point: i32, rule: &Rule) {
        let bound = self.sums.accumulator_bound(input, input_zero_point);
        let store = store_for(rule, shape.out_channels, bound);
        // A rule without a fused form finishes tiles of accumulators in a second step.
        self.store = store.unwrap_or(ACCUMULATORS);
        let fused = if store.is_some() { rule } else { &Rule::Accumulator };
        self.epilogue = Epilogue::new(&self.order, input, input_zero_point, &self.sums, fused);
    }

    /// Whether the kernel stores what the rule produces.
    fn is_fused(&self, rule: &Rule) -> bool {
        self.store != ACCUMULATORS || matches!(rule, Rule::Accumulator)
    }

    /// Whether the epilogue needs Σ x of every row.
    fn needs_row_sums(&self) -> bool {
        self.kernel.kind == Kind::Gemm && !self.epilogue.weight_zero_point.is_empty()
    }

    /// The largest |accumulator| that any input can lead to.
    pub(crate) fn accumulator_bound(&self, input: CodeType, input_zero_point: i32) -> i64 {
        self.sums.accumulator_bound(input, input_zero_point)
    }

    /// Bytes of packed weights.
    pub(crate) fn weight_bytes(&self) -> usize {
        self.weights.len()
    }
}

/// Rows of a block, unless they have so many runs that their pointers outgrow `BLOCK_POINTERS`.
const BLOCK_ROWS: usize = 96;
const BLOCK_POINTERS: usize = 8192;

/// The caller's scratch memory, divided up.
pub(crate) struct Scratch<'s> {
    /// What taps in the padding read: z_X for every input channel, and for a whole block beyond the last.
    padding: &'s mut [u8],
    /// The padded copy of an image; the staged columns of a row kernel.
    copy: &'s mut [u8],
    /// Pointers of the tiles of a block, one tile after the other.
    pointers: &'s mut [*const u8],
    /// Σ x of the rows of a block.
    row_sums: &'s mut [i32],
    /// A tile that is not stored straight into the output.
    tile: &'s mut [i32],
    /// Pointers of one tile of the last block of depthwise channels …
    edge_pointers: &'s mut [*const u8],
    /// … and the channels they point to, where a whole block would reach beyond the input.
    edge: &'s mut [u8],
    /// Offsets in the input of the rows of a band, `usize::MAX` where they are padding.
    offsets: &'s mut [usize],
}

/// Lengths of the parts of [`Scratch`], in elements.
struct Lengths {
    padding: usize,
    copy: usize,
    block_rows: usize,
    pointers: usize,
    row_sums: usize,
    tile: usize,
    edge_pointers: usize,
    edge: usize,
    offsets: usize,
}

impl Lengths {
    fn of(packed: &Packed, shape: &Conv) -> Lengths {
        let (kernel, gather) = (packed.kernel, &packed.gather);
        if let Some(rows) = &packed.rows {
            return rows.lengths(kernel);
        }
        let block_rows = (BLOCK_POINTERS / gather.runs).clamp(kernel.rows, BLOCK_ROWS);
        let edge_pointers = if kernel.kind == Kind::Depthwise { gather.runs * kernel.rows } else { 0 };
        Lengths {
            padding: shape.in_channels.max(gather.run_len) + kernel.width(),
            copy: gather.copy.as_ref().map_or(0, |copy| copy.len()),
            block_rows,
            pointers: block_rows * gather.runs,
            row_sums: if packed.needs_row_sums() { block_rows } else { 0 },
            tile: kernel.rows * kernel.width(),
            edge_pointers,
            edge: edge_pointers * kernel.width(),
            offsets: 0,
        }
    }
}

/// Every part begins on a cache line.
const LINE: usize = 64;

impl<'s> Scratch<'s> {
    /// Bytes needed, wherever the caller's memory begins.
    pub(crate) fn len(packed: &Packed, shape: &Conv) -> usize {
        let l = Lengths::of(packed, shape);
        let pointer = size_of::<*const u8>();
        let pointers = [l.pointers * pointer, l.edge_pointers * pointer, l.offsets * size_of::<usize>()];
        let parts = [l.padding, l.copy, l.row_sums * 4, l.tile * 4, l.edge].into_iter().chain(pointers);
        LINE + parts.map(|bytes| bytes.next_multiple_of(LINE)).sum::<usize>()
    }

    fn divide(mut memory: &'s mut [u8], l: &Lengths) -> Scratch<'s> {
        let skip = memory.as_ptr().align_offset(LINE).min(memory.len());
        memory = &mut memory[skip..];
        Scratch {
            padding: take(&mut memory, l.padding),
            copy: take(&mut memory, l.copy),
            pointers: take(&mut memory, l.pointers),
            row_sums: take(&mut memory, l.row_sums),
            tile: take(&mut memory, l.tile),
            edge_pointers: take(&mut memory, l.edge_pointers),
            edge: take(&mut memory, l.edge),
            offsets: take(&mut memory, l.offsets),
        }
    }
}

/// Plain data for which any bytes are a value.
trait Plain: Copy {}
impl Plain for u8 {}
impl Plain for i32 {}
impl Plain for usize {}
impl Plain for *const u8 {}

/// Splits `len` elements off the front, and the rest of their last cache line with them.
fn take<'s, T: Plain>(memory: &mut &'s mut [u8], len: usize) -> &'s mut [T] {
    let bytes = len * size_of::<T>();
    let (part, rest) = core::mem::take(memory).split_at_mut(bytes.next_multiple_of(LINE));
    *memory = rest;
    assert_eq!(part.as_ptr() as usize % align_of::<T>(), 0, "parts begin on cache lines");
    // SAFETY: `part` has room for `len` elements and is aligned for them; any bytes are a value of a `Plain`
    // type; the exclusive borrow passes to the result.
    unsafe { core::slice::from_raw_parts_mut(part.as_mut_ptr().cast(), len) }
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
/// * [`check_call`](qexact_reference::layer::check_call) accepted region, input and output for `shape`, and the
///   output's elements are what `rule` produces.
/// * [`check_addend`](qexact_reference::layer::check_addend) accepted the addend.
/// * `scratch` has at least [`Scratch::len`] bytes.
pub(crate) unsafe fn run(
    packed: &Packed,
    shape: &Conv,
    zero_point: u8,
    rule: &Rule,
    region: &Region,
    (input, addend, output): (Input<'_>, Addend<'_>, Output<'_>),
    scratch: &mut [u8],
) {
    let (input, signed) = match input {
        Input::U8(x) => (x, false),
        // SAFETY: the same memory, read as bytes.
        Input::I8(x) => (unsafe { core::slice::from_raw_parts(x.as_ptr().cast::<u8>(), x.len()) }, true),
    };
    let lengths = Lengths::of(packed, shape);
    let mut scratch = Scratch::divide(scratch, &lengths);
    scratch.padding.fill(zero_point);
    let target = Target::new(region, output);
    let driver = Driver { packed, rule, addend, signed, block_rows: lengths.block_rows, target };
    if let Some(rows) = &packed.rows {
        // SAFETY: passed on.
        return unsafe { driver.bands(rows, input, &mut scratch) };
    }
    let rows = region.rows.clone();
    let Some(copy) = &packed.gather.copy else {
        // SAFETY: rows are counted through the batch that `input` holds.
        return unsafe { driver.rows(rows, 0, input, &mut scratch) };
    };
    let (pixels, image_len) = (packed.gather.pixels(), shape.image_len());
    let mut row = rows.start;
    while row < rows.end {
        let image = row / pixels;
        let end = rows.end.min((image + 1) * pixels);
        let memory = core::mem::take(&mut scratch.copy);
        let first = image * pixels;
        copy.write(&input[image * image_len..][..image_len], zero_point, [row - first, end - 1 - first], memory);
        // SAFETY: rows are counted from the first of this image, whose padded copy `memory` is.
        unsafe { driver.rows(row..end, first, memory, &mut scratch) };
        scratch.copy = memory;
        row = end;
    }
}

struct Driver<'p> {
    packed: &'p Packed,
    rule: &'p Rule,
    addend: Addend<'p>,
    signed: bool,
    block_rows: usize,
    target: Target,
}

impl Driver<'_> {
    /// All rows of a region that are read from `input`, whose first row is number `origin`.
    ///
    /// # Safety
    /// As [`run`]; `input` holds the images (or the padded copy) behind the rows.
    unsafe fn rows(&self, rows: Range<usize>, origin: usize, input: &[u8], scratch: &mut Scratch<'_>) {
        for block in even_parts(rows, self.block_rows) {
            let padding = scratch.padding.as_ptr();
            let runs = self.packed.gather.runs;
            for tile in even_parts(block.clone(), self.packed.kernel.rows) {
                let table = &mut scratch.pointers[(tile.start - block.start) * runs..][..tile.len() * runs];
                self.packed.gather.pointers(input.as_ptr(), tile.start - origin, padding, table);
            }
            let mut summed_group = None;
            for panel in &self.packed.weights.panels {
                let channels = panel.channel..panel.channel + panel.channels;
                if channels.end <= self.target.region.channels.start
                    || channels.start >= self.target.region.channels.end
                {
                    continue;
                }
                if self.packed.needs_row_sums() && summed_group != Some(panel.group) {
                    summed_group = Some(panel.group);
                    // SAFETY: the pointers of the block were just gathered.
                    unsafe { self.sum_rows(block.clone(), panel, scratch) };
                }
                // SAFETY: likewise.
                unsafe { self.panel(block.clone(), panel, input, scratch) };
            }
        }
    }

    /// First input channel that a panel reads.
    fn input_channel(&self, panel: &Panel) -> usize {
        match self.packed.kernel.kind {
            Kind::Gemm => panel.group * self.packed.gather.run_len,
            Kind::Depthwise | Kind::DepthwiseRows(_) | Kind::GroupedRows { .. } => panel.channel,
        }
    }

    /// Σ x of every row of a block, signed codes read as x + 128.
    ///
    /// # Safety
    /// The block's pointers are in `scratch`.
    unsafe fn sum_rows(&self, block: Range<usize>, panel: &Panel, scratch: &mut Scratch<'_>) {
        let (runs, run_len) = (self.packed.gather.runs, self.packed.gather.run_len);
        let flip = if self.signed { 0x80 } else { 0 };
        for tile in even_parts(block.clone(), self.packed.kernel.rows) {
            let table = &scratch.pointers[(tile.start - block.start) * runs..][..tile.len() * runs];
            for (i, row) in tile.clone().enumerate() {
                let mut sum = 0u32;
                for pointer in table.iter().skip(i).step_by(tile.len()) {
                    let run = pointer.wrapping_add(self.input_channel(panel));
                    // SAFETY: every run is readable for `run_len` codes.
                    let run = unsafe { core::slice::from_raw_parts(run, run_len) };
                    sum = sum.wrapping_add(run.iter().fold(0, |sum: u32, &x| sum.wrapping_add(u32::from(x ^ flip))));
                }
                scratch.row_sums[row - block.start] = sum as i32;
            }
        }
    }

    /// The outputs of one block of rows and one panel.
    ///
    /// # Safety
    /// As [`run`]; the block's pointers and row sums are in `scratch`, and point into `input` or the padding.
    unsafe fn panel(&self, block: Range<usize>, panel: &Panel, input: &[u8], scratch: &mut Scratch<'_>) {
        let Packed { kernel, gather, weights, epilogue, store, .. } = self.packed;
        let region = &self.target.region;
        let width = panel.vectors * kernel.lanes;
        let inside =
            panel.channel.max(region.channels.start)..(panel.channel + panel.channels).min(region.channels.end);
        let direct = inside.start == panel.channel && self.packed.is_fused(self.rule);
        let element = if *store == CODES { 1 } else { 4 };
        let function = |rows| (kernel.tile)(rows, panel.vectors, self.signed, *store);
        let mut chosen: Option<(usize, TileFn)> = None;
        for rows in even_parts(block.clone(), kernel.rows) {
            let at = rows.start - block.start;
            let table = &scratch.pointers[at * gather.runs..][..rows.len() * gather.runs];
            let mut tile = Tile {
                rows: table.as_ptr(),
                channel: self.input_channel(panel),
                count: rows.len(),
                runs: gather.runs,
                run_len: gather.run_len,
                weights: weights.of_panel(panel),
                row_sums: scratch.row_sums.as_ptr().wrapping_add(at),
                first: panel.first,
                epilogue,
                output: scratch.tile.as_mut_ptr().cast(),
                stride: width * element,
                channels: panel.channels,
                segment: 0,
                column: 0,
            };
            if kernel.kind == Kind::Depthwise && panel.channels < width && self.beyond(table, panel, input) {
                // SAFETY: `table` points into `input` or the padding.
                tile.rows = unsafe { self.edge(table, panel, input, scratch.edge_pointers, scratch.edge) };
            }
            if direct {
                tile.output = self.target.at(rows.start, inside.start);
                tile.stride = self.target.stride();
                tile.channels = inside.len();
            }
            let call = match chosen {
                Some((n, call)) if n == rows.len() => call,
                _ => chosen.insert((rows.len(), function(rows.len()))).1,
            };
            // SAFETY: the CPU has the kernel's instructions (by `run`'s contract). The table holds runs × rows
            // pointers, each to a run inside `input` or the padding, which is as long as all input channels and
            // a block; `edge` saw to blocks that end beyond the input. Weights and epilogue were packed for
            // this panel. The output is the region (`direct`: the panel begins inside it) or the tile
            // buffer, which has room for the largest tile of 4-byte elements.
            unsafe { call(&tile) };
            if !direct {
                // SAFETY: the tile buffer was just filled.
                unsafe { self.copy_out(&rows, &inside, panel, width, scratch.tile) };
            }
        }
    }

    /// Whether a block of channels under any of these pointers would end beyond the input.
    fn beyond(&self, table: &[*const u8], panel: &Panel, input: &[u8]) -> bool {
        let reach = panel.channel + self.packed.kernel.width();
        let inside = input.as_ptr_range();
        let last = inside.end.wrapping_sub(reach);
        table.iter().any(|&pointer| pointer > last && pointer < inside.end && pointer >= inside.start)
    }

    /// Pointers for the last, partly filled block of depthwise channels: a block that would end beyond the
    /// input is copied to where it may be read in full.
    ///
    /// # Safety
    /// `table` points into `input` or to padding of the length that [`Scratch`] gives it.
    unsafe fn edge(
        &self,
        table: &[*const u8],
        panel: &Panel,
        input: &[u8],
        pointers: &mut [*const u8],
        bytes: &mut [u8],
    ) -> *const *const u8 {
        let width = self.packed.kernel.width();
        let inside = input.as_ptr_range();
        for (i, &pointer) in table.iter().enumerate() {
            let end = pointer.wrapping_add(panel.channel + width);
            pointers[i] = if inside.contains(&pointer) && end > inside.end {
                let copy = &mut bytes[i * width..][..panel.channels];
                // SAFETY: the pixel's channels from `panel.channel` to its last lie in the input.
                let channels = unsafe { core::slice::from_raw_parts(pointer.add(panel.channel), panel.channels) };
                copy.copy_from_slice(channels);
                // The kernel adds the panel's channel.
                copy.as_ptr().wrapping_sub(panel.channel)
            } else {
                pointer
            };
        }
        pointers.as_ptr()
    }

    /// Copies the part of a tile that lies inside the region, or takes it through a rule that is not fused.
    ///
    /// # Safety
    /// `tile` holds the tile in the elements that the kernel stores; the region's output is as [`run`] says.
    unsafe fn copy_out(&self, rows: &Range<usize>, inside: &Range<usize>, panel: &Panel, width: usize, tile: &[i32]) {
        let size = self.target.size;
        for (i, row) in rows.clone().enumerate() {
            let from = i * width + (inside.start - panel.channel);
            let to = self.target.at(row, inside.start);
            if self.packed.is_fused(self.rule) {
                let from = tile.as_ptr().cast::<u8>().wrapping_add(from * size);
                // SAFETY: both hold these elements; scratch and output do not overlap.
                unsafe { core::ptr::copy_nonoverlapping(from, to, inside.len() * size) };
                continue;
            }
            let first = self.target.index(row, inside.start);
            for (i, (channel, &accumulator)) in inside.clone().zip(&tile[from..]).enumerate() {
                let bits = self.rule.apply(accumulator, channel, self.addend.get(first + i)).bits();
                // SAFETY: an output of the region, of `size` bytes: one (a code) or four.
                unsafe {
                    match size {
                        1 => to.add(i).write(bits as u8),
                        _ => to.cast::<u32>().add(i).write(bits),
                    }
                }
            }
        }
    }
}

/// Splits a range into as few parts of at most `most` as possible, as even as possible.
fn even_parts(range: Range<usize>, most: usize) -> impl Iterator<Item = Range<usize>> {
    let parts = range.len().div_ceil(most).max(1);
    let size = range.len().div_ceil(parts).max(1);
    range.clone().step_by(size).map(move |start| start..(start + size).min(range.end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn parts_are_even_and_cover_the_range() {
        for (len, most) in (0..200).flat_map(|len| (1..14).map(move |most| (len, most))) {
            let mut next = 3;
            for part in even_parts(3..3 + len, most) {
                assert_eq!(part.start, next);
                assert!((1..=most).contains(&part.len()));
                next = part.end;
            }
            assert_eq!(next, 3 + len);
        }
        assert_eq!(even_parts(0..13, 12).map(|p| p.len()).collect::<Vec<_>>(), [7, 6]);
    }
}
