//! Depthwise and grouped convolutions by rows of output pixels.
//!
//! ```text
//! for band of output rows                         as many as share their input rows
//!     for panel of channels
//!         stage the columns of the band           with padding, side by side as the kernel reads them, in L1
//!         for row of the band, tile of its pixels
//!             microkernel
//! ```
//!
//! A staged column holds **blocks** below each other. A block of a **depthwise** band has, for each channel, side by
//! side the codes that one dot product adds: its **fold**, a column of `D` input rows. 3 × 3 taps fill three rows of
//! four: a second output row multiplies the same block by weights that are shifted down. So every kernel height is the
//! same loop, and as many output rows share blocks as leave room for the shift.
//!
//! With stride 2 nothing is left for a second row, and every other column would be staged for nothing but its
//! neighbours. There a fold is 2 × 2 codes: the next pixel begins one staged column further on and the next output row
//! one block, and each code is staged once.
//!
//! The last panel may hold half or a quarter of the channels of a register. The register then takes as many
//! **segments** of the row side by side: pixel p of segment f is pixel `p + f · distance` of the band.
//!
//! **Direct** kernels read the input where it lies ([`direct`]): their columns are made in registers, of a table of the
//! input rows behind a band.
//!
//! A **grouped** band stages rows one after the other: a fold is one code. A call computes all rows of a panel, whose weights
//! are the same. Groups of fewer than four channels are merged to four, with zero weights between them.

mod direct;
mod pack;
mod stage;

use self::pack::segments;
use self::stage::Columns;
use super::{Driver, even_parts};
use crate::epilogue::element_size;
use crate::memory::Memory;
use crate::micro::{Kind, Microkernel, Tile, fold};
use crate::pack::Panel;
use core::ops::Range;
use qexact_reference::{Axis, Conv, Error};

/// Staged bytes that leave room in the L1 cache for weights and outputs.
const STAGED_BYTES: usize = 40 << 10;
/// Bytes of the input behind a band that is read where it lies, once a panel: what fits into the L1 cache …
const DIRECT_BYTES: usize = 32 << 10;
/// … or all of an image, if it is small, and never fewer lines than these: then a call less is worth more.
const DIRECT_IMAGE: usize = 128 << 10;
const DIRECT_LINES: usize = 4;
/// Blocks of columns that are staged in the time in which the driver gets from one call to the next.
const CALL: usize = 8;
/// Bytes of a register that hold the codes of one column.
const LANE: usize = 16;

/// Geometry of a layer in bands.
pub(super) struct Rows {
    height: Axis,
    width: Axis,
    output_height: usize,
    output_width: usize,
    in_channels: usize,
    /// Rows and columns of codes that lie side by side.
    fold: [usize; 2],
    /// Output rows that share blocks, each with shifted weights of its own.
    shifts: usize,
    /// Blocks from such rows to the next.
    step: usize,
    /// Blocks that an output row reads.
    blocks: usize,
    /// Columns of folds that a pixel reads.
    taps: usize,
    /// Columns of folds from a pixel to the next.
    stride: usize,
    /// Output rows of a band.
    band: usize,
    /// Most output pixels of a band's row.
    pixels: usize,
    /// Bytes of a block of a staged column.
    cell: usize,
    /// Bytes from the weights of one shift to those of the next.
    shift_weights: usize,
}

/// Part of an image's output: `lines` rows from `y` on, in each of them some columns.
struct Band {
    image: usize,
    y: usize,
    lines: usize,
    columns: Range<usize>,
}

impl Rows {
    pub(super) fn new(shape: &Conv, kernel: &Microkernel) -> Result<Rows, Error> {
        let [_, height, width] = shape.axes;
        let (output_height, output_width) = (height.output()?, width.output()?);
        let register = 4 * kernel.lanes;
        let (fold, cell) = match kernel.kind {
            // Four vectors of dwords for a register of channels.
            Kind::DepthwiseRows => (fold(&height, &width, kernel.format.depth()), 4 * register),
            // Nothing is staged: a band is what its input rows leave of the cache.
            Kind::DepthwiseDirect { .. } => ([1, 1], 0),
            // Codes are staged as wide as weights.
            _ => ([1, 1], register * kernel.format.bytes()),
        };
        let blocks = height.kernel.div_ceil(fold[0]);
        let taps = width.kernel.div_ceil(fold[1]);
        // Output rows share what is staged only where taps are neighbours.
        let near = height.dilation == 1;
        let shifts = if near { (blocks * fold[0] - height.kernel) / height.stride + 1 } else { 1 };
        let shared = near && shifts * height.stride % fold[0] == 0;
        let step = if shared { (shifts * height.stride / fold[0]).min(blocks) } else { blocks };
        let mut rows = Rows {
            height,
            width,
            output_height,
            output_width,
            in_channels: shape.in_channels,
            fold,
            shifts,
            step,
            blocks,
            taps,
            stride: width.stride / fold[1],
            band: shifts.min(output_height),
            pixels: kernel.rows.min(output_width),
            cell,
            shift_weights: 5 * taps * blocks * register,
        };
        if kernel.stage.is_none() {
            let row = width.input * shape.in_channels;
            let bytes = if row * height.input <= DIRECT_IMAGE { DIRECT_IMAGE } else { DIRECT_BYTES };
            let lines = (bytes / row).saturating_sub(height.kernel) / height.stride + 1;
            // With stride 1 two lines share what is read.
            let shared = if height.stride == 1 { 2 } else { 1 };
            rows.band = (lines.max(DIRECT_LINES) / shared * shared).min(output_height);
            rows.pixels = output_width;
            return Ok(rows);
        }
        // Each segment should fill a tile.
        let segments = match kernel.kind {
            Kind::DepthwiseRows => segments(shape.out_channels, register).into_iter().max().unwrap_or(1),
            _ => 1,
        };
        // Without blocks to share, the input's rows are better kept in the cache, for the next panel.
        let bytes = if step < blocks { STAGED_BYTES } else { STAGED_BYTES / 2 };
        // Parts of rows for which least is staged twice, of those that fit.
        let (mut least, mut best) = (f64::INFINITY, (rows.band, rows.pixels));
        for parts in 1..=(output_width / (kernel.rows * segments)).max(1) {
            rows.pixels = output_width.div_ceil(parts);
            let Some(more) = (bytes / rows.block_len()).checked_sub(blocks) else { continue };
            rows.band = ((more / step + 1) * shifts).min(output_height);
            let staged = rows.staged_blocks(rows.band) * rows.columns(rows.pixels);
            let cost = (staged + CALL * (rows.band + 2)) as f64 / (rows.band * rows.pixels) as f64;
            if cost < least {
                (least, best) = (cost, (rows.band, rows.pixels));
            }
        }
        (rows.band, rows.pixels) = best;
        Ok(rows)
    }

    /// Staged columns behind `pixels` pixels of a row.
    fn columns(&self, pixels: usize) -> usize {
        (pixels - 1) * self.stride + (self.taps - 1) * self.width.dilation + 1
    }

    /// Staged blocks behind `lines` output rows.
    fn staged_blocks(&self, lines: usize) -> usize {
        (lines.div_ceil(self.shifts) - 1) * self.step + self.blocks
    }

    /// Bytes of the blocks of a band that lie side by side.
    fn block_len(&self) -> usize {
        self.columns(self.pixels) * self.cell
    }

    /// Input rows of a block's codes, counted from the first row of the band.
    fn input_rows(&self, block: usize) -> impl Iterator<Item = usize> {
        let (group, block) = (block / self.step, block % self.step);
        let first = group * self.shifts * self.height.stride;
        pairs(self.fold[0], self.fold[1]).map(move |(y, _)| first + (block * self.fold[0] + y) * self.height.dilation)
    }

    /// Bytes of scratch memory that a call needs.
    pub(super) fn scratch_len(&self, kernel: &Microkernel) -> usize {
        Memory::needed(|memory| Scratch::divide(self, kernel, memory))
    }
}

/// All of `0..a` by `0..b`.
fn pairs(a: usize, b: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..a).flat_map(move |a| (0..b).map(move |b| (a, b)))
}

/// Segments of a register: 1, 2 or 4, each with a table of pointers for its length.
const MOST_SEGMENTS: usize = 4;
const TABLES: usize = 3;
/// Offset of rows that lie in the padding.
const PADDING: usize = usize::MAX;

/// The caller's scratch memory.
struct Scratch<'s> {
    /// What rows in the padding read: z_X, for a row of the input and a register.
    padding: &'s mut [u8],
    /// The staged columns of a band.
    staged: &'s mut [u8],
    /// Pointers of tiles, a table for each number of segments.
    pointers: &'s mut [*const u8],
    /// Rows that are not stored straight into the output.
    tile: &'s mut [i32],
    /// Where staged rows come from …
    sources: &'s mut [*const u8],
    /// … and their codes, where a register would reach beyond the input.
    edge: &'s mut [u8],
    /// Offsets in the input of the rows of a band, for each code of a staged column.
    offsets: &'s mut [usize],
    /// The same as pointers, or to the padding.
    rows: &'s mut [*const u8],
}

impl<'s> Scratch<'s> {
    fn divide(rows: &Rows, kernel: &Microkernel, memory: &mut Memory<'s>) -> Scratch<'s> {
        let register = 4 * kernel.lanes;
        let blocks = rows.staged_blocks(rows.band);
        let codes = blocks * rows.fold[0] * rows.fold[1];
        let staged = usize::from(kernel.stage.is_some());
        Scratch {
            padding: memory.take(rows.width.input * rows.in_channels + register),
            staged: memory.take(blocks * rows.block_len()),
            pointers: memory.take(TABLES * rows.pixels * rows.taps * staged),
            tile: memory.take(rows.pixels * register),
            sources: memory.take(codes * MOST_SEGMENTS * staged),
            edge: memory.take(codes * MOST_SEGMENTS * register * staged),
            offsets: memory.take(codes),
            rows: memory.take(codes),
        }
    }
}

/// What scratch memory still holds from one band to the next.
struct Held {
    /// Lengths that the tables are for.
    tables: [usize; TABLES],
    /// Columns, first of the padded input and number, on whose sides the padding is staged.
    padded: Range<usize>,
}

/// The tiles that `rows` pixels are computed in: their number and size.
fn tiles(kernel: &Microkernel, rows: usize) -> [(usize, usize); 2] {
    if kernel.takes_rows(rows) { [(0, 0), (rows, kernel.rows)] } else { even_tiles(rows, kernel.rows) }
}

/// Tiles of at most `most` rows, as even as possible.
fn even_tiles(rows: usize, most: usize) -> [(usize, usize); 2] {
    let tiles = rows.div_ceil(most);
    [(rows % tiles, rows / tiles + 1), (tiles - rows % tiles, rows / tiles)]
}

impl Driver<'_> {
    /// All rows of the region.
    ///
    /// # Safety
    /// As [`run`](super::run).
    pub(super) unsafe fn bands(&self, rows: &Rows, input: &[u8], zero_point: u8, memory: &mut Memory<'_>) {
        let mut scratch = Scratch::divide(rows, self.packed.kernel, memory);
        scratch.padding.fill(zero_point);
        let Range { start: mut row, end } = self.target.region.rows;
        let width = rows.output_width;
        let mut held = Held { tables: [0; TABLES], padded: 0..0 };
        while row < end {
            let (line, x) = (row / width, row % width);
            let (image, y) = (line / rows.output_height, line % rows.output_height);
            let columns = x..width.min(x + end - row);
            let whole = if columns.len() == width { (end - row) / width } else { 1 };
            let lines = whole.min(rows.band).min(rows.output_height - y);
            row += if lines > 1 { lines * width } else { columns.len() };
            for columns in even_parts(columns, rows.pixels, 1) {
                let band = Band { image, y, lines, columns };
                // SAFETY: passed on.
                unsafe { self.band(rows, &band, input, &mut held, &mut scratch) };
            }
        }
    }

    /// # Safety
    /// As [`run`](super::run); `held` is what `scratch` holds.
    unsafe fn band(&self, rows: &Rows, band: &Band, input: &[u8], held: &mut Held, scratch: &mut Scratch<'_>) {
        let (kernel, region) = (self.packed.kernel, &self.target.region);
        let depthwise = matches!(kernel.kind, Kind::DepthwiseRows);
        let grouped = matches!(kernel.kind, Kind::GroupedRows { .. });
        let register = 4 * kernel.lanes;
        self.offsets(rows, band, scratch.offsets);
        for (row, &offset) in scratch.rows.iter_mut().zip(&*scratch.offsets) {
            *row = if offset == PADDING { scratch.padding.as_ptr() } else { input[offset..].as_ptr() };
        }
        if kernel.stage.is_none() {
            // SAFETY: passed on; the rows were just written.
            return unsafe { self.direct(rows, band, input, scratch) };
        }
        let mut staged = None;
        for panel in &self.packed.weights.panels {
            let inside = panel.within(&region.channels);
            if inside.is_empty() {
                continue;
            }
            let segments = if depthwise { 4 / panel.vectors } else { 1 };
            let distance = band.columns.len() / segments;
            let length = band.columns.len() - (segments - 1) * distance;
            let channel = if depthwise { panel.channel } else { panel.channel / register * register };
            if staged != Some(channel) {
                staged = Some(channel);
                let columns = Columns { channel, vectors: panel.vectors, segments, distance, length };
                // SAFETY: passed on.
                unsafe { self.stage(rows, band, &columns, input, held, scratch) };
            }
            let slot = segments.ilog2() as usize;
            let table = &mut scratch.pointers[slot * rows.pixels * rows.taps..][..length * rows.taps];
            if held.tables[slot] != length {
                held.tables[slot] = length;
                fill_table(rows, kernel, length, scratch.staged.as_ptr(), table);
            }

            let weights = self.packed.weights.of_panel(panel, 0);
            let tiles = tiles(kernel, length).map(|(count, size)| {
                let function = || (kernel.tile)(size, panel.vectors, self.signed, self.packed.store);
                (count, size, (count > 0).then(function))
            });
            let (tile, direct) = self.row_tile(panel, &inside, distance);
            let mut tile = Tile { taps: rows.taps, quads: rows.blocks, block: rows.block_len(), ..tile };
            // Grouped kernels take all lines at once; what is not stored straight into the output is computed line by line.
            tile.lines = if grouped && direct { band.lines } else { 1 };
            tile.line_input = rows.step * tile.block;
            tile.line_output = rows.output_width * tile.stride;
            for line in (0..band.lines).step_by(tile.lines) {
                let first = band.first(rows, line);
                let output =
                    if direct { self.target.at(first, inside.start) } else { scratch.tile.as_mut_ptr().cast() };
                let (group, shift) = (line / rows.shifts, line % rows.shifts);
                tile.channel = group * tile.line_input + (panel.channel - channel) * kernel.format.bytes();
                tile.weights = weights.wrapping_add(shift * rows.shift_weights);
                let mut done = 0;
                for (count, size, function) in tiles {
                    let Some(function) = function else { continue };
                    tile.rows = table[done * rows.taps..].as_ptr();
                    tile.count = count;
                    tile.output = output.wrapping_add(done * tile.stride);
                    // SAFETY: the CPU has the kernel's instructions (by `run`'s contract). The table points to
                    // staged columns, of which the last pixel's last tap is the last. Weights and epilogue were
                    // packed for this panel. All segments of the row lie in the band: in the region, or in
                    // the tile buffer, which has room for a band's row of 4-byte elements.
                    unsafe { function(&tile) };
                    done += count * size;
                }
                if !direct {
                    let row = first..first + band.columns.len();
                    // SAFETY: the tile buffer was just filled.
                    unsafe { self.copy_out(&row, &inside, panel, panel.vectors * kernel.lanes, scratch.tile) };
                }
            }
        }
    }
}

impl Driver<'_> {
    /// A tile of no pixels yet for a panel's channels in segments `distance` pixels apart, and whether it is stored
    /// straight into the output.
    fn row_tile(&self, panel: &Panel, inside: &Range<usize>, distance: usize) -> (Tile<'_>, bool) {
        let direct = inside.start == panel.channel && self.packed.finish.is_none();
        let element = element_size(self.packed.store);
        let width = panel.vectors * self.packed.kernel.lanes;
        let mut tile = Tile {
            stride: if direct { self.target.stride() } else { width * element },
            channels: if direct { inside.len() } else { panel.channels },
            ..Tile::of(&self.packed.epilogue, panel.first)
        };
        tile.segment = distance * tile.stride;
        (tile, direct)
    }
}

impl Band {
    /// The output pixel that a line begins with, counted through the batch.
    fn first(&self, rows: &Rows, line: usize) -> usize {
        (self.image * rows.output_height + self.y + line) * rows.output_width + self.columns.start
    }
}

/// Pointers of a segment's tiles, `[tile][tap][pixel]`: to the staged column under each tap.
fn fill_table(rows: &Rows, kernel: &Microkernel, length: usize, staged: *const u8, table: &mut [*const u8]) {
    table[0] = staged;
    if kernel.takes_rows(length) {
        return;
    }
    let mut slots = table.iter_mut();
    let mut first = 0;
    for (count, size) in tiles(kernel, length) {
        for _ in 0..count {
            for (tap, pixel) in pairs(rows.taps, size) {
                let column = (first + pixel) * rows.stride + tap * rows.width.dilation;
                *slots.next().expect("a slot for every pixel and tap") = staged.wrapping_add(column * rows.cell);
            }
            first += size;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_their_rows_evenly() {
        for (rows, most) in pairs(200, 14).map(|(rows, most)| (rows + 1, most + 1)) {
            let [(many, more), (few, less)] = even_tiles(rows, most);
            assert_eq!(many * more + few * less, rows);
            assert!(less >= 1 && (many == 0 || more <= most) && less <= most);
            assert_eq!(many + few, rows.div_ceil(most));
        }
    }
}
