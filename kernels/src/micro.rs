//! Microkernels: one call computes a tile of outputs, from packed weights to stored codes.
//!
//! A tile is some rows (output pixels) by some channels (one panel of the packed weights). Its rows are
//! gathered through pointers and [`Run`]s, so that matrix products and convolutions are the same loop:
//!
//! ```text
//! for run of the tile                         a run is a contiguous piece of every row: K, a tap, a kernel row
//!     for k in 0..run_len
//!         for row, channel of the tile        in registers
//!             acc[row][channel] += (rows[row] + run.codes)[k] · weights[run.weights..][k][channel]
//! for row, channel of the tile
//!     output[row][channel] = rule(acc[row][channel])              acc begins as initial[channel]
//! ```
//!
//! Where rows of an output are spread over several tiles, one for each tap, accumulators are added to sums instead.

use crate::IsaName;
use crate::element::Element;
use crate::epilogue::{Epilogue, Store};
use crate::pack::WeightFormat;
use core::ptr::{null, null_mut};
use qexact_reference::Axis;

/// The work of one microkernel call: a tile, or several below each other.
#[derive(Clone, Copy)]
pub(crate) struct Tile<'a> {
    /// Where each row begins.
    pub rows: *const *const u8,
    /// What is read of each row; not for row kernels.
    pub runs: &'a [Run],
    /// Added to where each run is, in bytes: the first input channel of the panel's group, or of a depthwise panel; for
    /// row kernels also the first block of the row.
    pub channel: usize,
    /// Rows. GEMM functions compute tiles of a fixed number of rows, of which this is a multiple.
    pub count: usize,
    /// Quads of codes of each run. Depthwise kernels, whose runs are taps, load whole blocks of channels instead. Row
    /// kernels: blocks of a staged column.
    pub quads: usize,
    /// Staged columns that a pixel reads; row kernels only.
    pub taps: usize,
    /// Pairs of codes of each run, for kernels that read words.
    pub pairs: usize,
    /// Quads of which products are added in 16 bits, for kernels of [`WeightFormat::SafeQuads`].
    pub steps: usize,
    /// The panel's weights.
    pub weights: *const u8,
    /// Weights that will be needed later, and bytes of them to ask for with every quad; 0 leaves them to the hardware.
    pub ahead: *const u8,
    pub ahead_step: usize,
    /// Scratch memory, [`Microkernel::widened`] bytes for every pair of codes of a row.
    pub widened: *mut u8,
    /// `Σ x` of each row, needed where weight zero points are not 0; GEMM only.
    pub row_sums: *const i32,
    /// What the accumulators of the panel's channels begin with.
    pub initial: *const i32,
    /// Position of the panel's first channel in the vectors of `epilogue`.
    pub first: usize,
    /// Parameters of the channels.
    pub epilogue: &'a Epilogue,
    /// First byte of the tile's output.
    pub output: *mut u8,
    /// Bytes between rows of the output.
    pub stride: usize,
    /// Rows of the output, sums of whole panels, that accumulators of each row are added to instead of being stored one
    /// below the other; null where they are stored. GEMM only.
    pub places: *const u32,
    /// Channels to store, from the panel's first; at least 1. More than the panel has are those of panels like it that
    /// follow; GEMM only.
    pub channels: usize,
    /// Bytes from the panel's weights to those of the next.
    pub panel_bytes: usize,
    /// Bytes from an output to that of the next segment; depthwise row kernels only.
    pub segment: usize,
    /// Bytes between the blocks of a staged column; row kernels only.
    pub block: usize,
    /// Output lines, each of `count` tiles or pixels; at least 1; grouped row kernels and direct ones.
    pub lines: usize,
    /// Bytes from what is staged for a line to what is for the next.
    pub line_input: usize,
    /// Bytes between output lines.
    pub line_output: usize,
    /// Where columns of the input are; direct kernels only.
    pub columns: Columns,
}

/// Codes that follow each other in every row of a tile.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// Where they begin, in bytes after their row.
    pub codes: isize,
    /// Where their weights begin, counted from the panel's in steps of [`WeightFormat::depth`] codes; GEMM only.
    pub weights: usize,
}

/// What a direct kernel reads: input rows where they lie, with padding to their left and right.
#[derive(Clone, Copy)]
pub(crate) struct Columns {
    /// Bytes between pixels of the input.
    pub pitch: usize,
    /// The input column that the first pixel's window begins with; one to the left of the image wraps around.
    pub first: usize,
    /// Columns of the input.
    pub inside: usize,
    /// A register of zero points, for all others; also a row of them.
    pub padding: *const u8,
    /// The end of the input.
    pub end: *const u8,
    /// Output pixels from a segment to the next.
    pub distance: usize,
}

impl Columns {
    /// How many of the first `count` pixels read new columns of the image alone, in each of FOLD segments. Pixel x is the
    /// first to read STRIDE columns, the last ones of its window. 0 if those of the first pixel lie before the image.
    #[inline]
    pub(crate) fn pixels_inside<const KERNEL: usize, const STRIDE: usize, const FOLD: usize>(
        &self,
        count: usize,
    ) -> usize {
        let new = self.first.wrapping_add(KERNEL - STRIDE);
        let last = new.wrapping_add((FOLD - 1) * self.distance * STRIDE);
        if new >= self.inside { 0 } else { (self.inside.saturating_sub(last) / STRIDE).min(count) }
    }
}

impl Tile<'_> {
    /// A tile of no rows yet, for the channels from `first` on.
    #[inline]
    pub(crate) fn of(epilogue: &Epilogue, first: usize) -> Tile<'_> {
        Tile {
            rows: null(),
            runs: &[],
            channel: 0,
            count: 0,
            quads: 0,
            taps: 0,
            pairs: 0,
            steps: 0,
            weights: null(),
            ahead: null(),
            ahead_step: 0,
            widened: null_mut(),
            row_sums: null(),
            initial: epilogue.initial.as_ptr().wrapping_add(first),
            first,
            epilogue,
            output: null_mut(),
            stride: 0,
            places: null(),
            channels: 0,
            panel_bytes: 0,
            segment: 0,
            block: 0,
            lines: 0,
            line_input: 0,
            line_output: 0,
            columns: Columns { pitch: 0, first: 0, inside: 0, padding: null(), end: null(), distance: 0 },
        }
    }
}

/// Columns of a band of input rows, to be staged: laid out as a row kernel reads them.
#[derive(Clone, Copy)]
pub(crate) struct Stage<'a> {
    /// `[code of a column][segment]` pointers to the first column.
    pub sources: &'a [*const u8],
    /// Bytes between columns of the sources.
    pub pitch: usize,
    /// Columns.
    pub count: usize,
    /// Where the first column goes.
    pub to: *mut u8,
    /// Bytes from a block of a column to the next. Columns of a block follow each other.
    pub block: usize,
}

/// A staging function for a number of segments and an input type; signed codes are staged as code + 128.
///
/// # Safety
/// * The CPU has the instruction set of the [`Microkernel`] it comes from.
/// * Every source is readable in each of `count` columns for the codes of a segment: those of a register, divided by
///   the number of segments.
/// * `to` is writable for `count` columns in the kernel's layout, in as many blocks as there are sources for.
pub(crate) type StageFn = unsafe fn(&Stage<'_>);

/// A tile function for a fixed number of rows, vectors of channels, input type and [`Store`].
///
/// # Safety
/// * The CPU has the instruction set of the [`Microkernel`] it comes from.
/// * `rows` holds a pointer a row; where it and a run lead to is readable from `channel` on
///   for `quads` · 4 bytes or `pairs` · 2 words (GEMM) or for one block of channels (depthwise). Direct kernels: all
///   input rows behind `lines` lines, each readable from `inside` columns for `channels` channels, and up to `end` what
///   follows those that are not the padding.
/// * `widened` is writable for [`Microkernel::widened`] bytes for each of as many runs · `pairs` pairs.
/// * `weights` points to one panel packed in the kernel's format, on a cache line, which holds these runs' weights where
///   they say.
/// * `initial`, and from `first` on the vectors of `epilogue`, reach over all channels of the panel; `row_sums` holds
///   one element a row unless all weight zero points are 0.
/// * Every row of `output` is writable for `channels` channels, which are no more than the panel has, or (GEMM) than it has
///   together with panels of as many vectors whose weights follow every `panel_bytes`; rows
///   that `places` names for all channels of the panel, in accumulators.
pub(crate) type TileFn = unsafe fn(&Tile<'_>);

/// Rows that weights pass by, at most.
pub(crate) const MOST_BLOCK_ROWS: usize = 480;

/// Rows of a depthwise tile: it keeps nothing in registers from one to the next.
pub(crate) const DEPTHWISE_ROWS: usize = 16;

/// What a microkernel is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Channels of the output are columns of packed weights: matrix products, dense and grouped convolutions.
    Gemm,
    /// Every channel has its own taps: blocks of channels side by side in a register.
    Depthwise,
    /// The same, by rows of output pixels over staged columns that hold vertically adjacent codes of a channel side
    /// by side.
    DepthwiseRows,
    /// The same, `kernel` × `kernel`, undilated, by lines of output pixels over the input itself. Weight zero points are 0.
    DepthwiseDirect { kernel: usize, stride: usize },
    /// Groups of 4 · `quads` inputs and as many outputs, by rows of output pixels over staged columns.
    GroupedRows { quads: usize, window: Window },
}

/// What a grouped row kernel knows of its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Window {
    Any,
    /// Undilated: staged columns that a pixel reads, blocks that it reads of each, and staged columns from a pixel to
    /// the next. Tiles of the largest size take all pixels of a row in one call.
    Fixed {
        kernel: usize,
        blocks: usize,
        stride: usize,
    },
}

/// Rows and columns of input codes that one dot product of `depth` of them adds.
pub(crate) fn fold(height: &Axis, width: &Axis, depth: usize) -> [usize; 2] {
    let halves = |axis: &Axis| axis.stride == 2 && axis.dilation == 1;
    if depth == 4 && halves(height) && halves(width) { [2, 2] } else { [depth, 1] }
}

/// A family of tile functions that share a packing.
pub(crate) struct Microkernel {
    /// Kind, instruction set and largest tile, as shown to users.
    pub name: &'static str,
    pub isa: IsaName,
    pub kind: Kind,
    /// Rows of the largest tile.
    pub rows: usize,
    /// Channels of one vector; GEMM panels are a power of two of them wide, depthwise panels always `vectors`.
    pub lanes: usize,
    /// Vectors of the widest panel.
    pub vectors: usize,
    /// How weights are packed.
    pub format: WeightFormat,
    /// What it reads codes as; only bytes may be signed: see [`Element`].
    pub element: Element,
    /// Bytes of scratch memory for every pair of codes of a row; 0 unless it widens weights.
    pub widened: usize,
    /// The function for `rows` ≥ 1 rows (all functions, for depthwise kernels, take any number), `vectors` vectors,
    /// signed input or not, and a [`Store`].
    pub tile: fn(rows: usize, vectors: usize, signed: bool, store: Store) -> TileFn,
    /// Whether it has the rules of [`more_stores_for`](crate::epilogue::more_stores_for) built in.
    pub more_stores: bool,
    /// Row kernels: the function that stages panels of `vectors` vectors.
    pub stage: Option<fn(vectors: usize, signed: bool) -> StageFn>,
}

impl Microkernel {
    /// Channels of the widest panel.
    pub(crate) fn width(&self) -> usize {
        self.lanes * self.vectors
    }

    /// Whether one call takes this many pixels, whatever its tiles: kernels of a fixed window.
    pub(crate) fn takes_rows(&self, rows: usize) -> bool {
        let fixed = match self.kind {
            Kind::GroupedRows { window, .. } => window != Window::Any,
            Kind::Gemm | Kind::Depthwise | Kind::DepthwiseRows | Kind::DepthwiseDirect { .. } => false,
        };
        fixed && rows >= self.rows
    }
}
