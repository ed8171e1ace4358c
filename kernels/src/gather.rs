//! Where the rows of a tile lie in the input.
//!
//! A row of the output (one pixel) reads one contiguous run of codes a tap, or a kernel row. In memory that holds
//! the padding, the distance from the first code of a row to a run is the same for all rows:
//!
//! ```text
//! address(row, run) = rows[row] + offsets[run]
//! ```
//!
//! Padding is put in place by copying the image band by band, a few output rows at a time, into scratch memory that
//! stays in cache. Two things keep most layers from being copied: without padding along the width there is nothing to put in place, and
//! kernel rows that lie above or below the image are left out instead (their products are 0): output rows that see
//! the same kernel rows form a [`View`].

use alloc::vec::Vec;
use core::ops::Range;
use qexact_reference::{Axis, Conv, Error};

/// Kernel rows that an output row sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// Pieces of the kernel, see [`Gather::pieces`].
    pub pieces: Range<usize>,
}

impl View {
    /// A kernel of one piece.
    pub(crate) const WHOLE: View = View { pieces: 0..1 };
}

/// How rows are read, for one layer.
pub(crate) struct Gather {
    /// Output extents.
    outputs: [usize; 3],
    /// Where runs are, in codes after their row.
    pub offsets: Vec<isize>,
    /// Codes of a run. Whole quads of them are read; what follows the last code meets weights of 0.
    pub run_len: usize,
    /// Input channels.
    channels: usize,
    /// Parts of the kernel that may be left out: its rows, or the whole kernel.
    pub pieces: usize,
    /// What output rows see: each of `views` is one choice of pieces.
    pub views: Vec<View>,
    /// View of each output row of an image.
    view_of: Vec<usize>,
    source: Source,
}

/// Memory that rows are read from.
enum Source {
    /// The input itself; distances between neighbouring outputs, and from the first code of an image to that of its first row.
    Input { pitch: [isize; 4], start: isize },
    /// A padded copy of a band.
    Copy(BandCopy),
}

/// Which runs rows are made of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runs {
    /// Input channels of a group under one tap.
    Taps,
    /// All channels under one row of taps; needs one group and an undilated width.
    KernelRows,
}

impl Gather {
    /// `copied` has the input copied whether there is padding or not, all padding included, with `slack` codes readable beyond every run.
    pub(crate) fn new(shape: &Conv, runs: Runs, copied: bool, slack: usize) -> Result<Gather, Error> {
        let outputs = [shape.axes[0].output()?, shape.axes[1].output()?, shape.axes[2].output()?];
        let [depth, height, width] = shape.axes;
        let channels = shape.in_channels;
        let run_len = match runs {
            Runs::Taps => shape.group_inputs(),
            Runs::KernelRows => width.kernel * channels,
        };
        // Kernel rows follow each other in the order of weights only where the kernel has no depth.
        let by_rows = depth.kernel == 1 && !copied;
        let pieces = if by_rows { height.kernel } else { 1 };
        let mut views = Vec::new();
        let mut view_of = Vec::with_capacity(outputs[1]);
        for y in 0..outputs[1] {
            let seen = |tap: &usize| !by_rows || height.source(y, *tap).is_some();
            let first = (0..pieces).find(seen).unwrap_or(0);
            let count = (first..pieces).take_while(seen).count();
            let view = View { pieces: first..first + count };
            view_of.push(views.iter().rposition(|v| *v == view).unwrap_or_else(|| {
                views.push(view);
                views.len() - 1
            }));
        }
        let padded = |axis: &Axis| axis.padding != [0, 0];
        let copied = copied || padded(&width) || (padded(&depth)) || (!by_rows && padded(&height));
        // Reading beyond every run would end beyond the input too often, unless rows have but one run.
        let copied = copied || (!run_len.is_multiple_of(4) && depth.kernel * height.kernel * width.kernel > 1);
        let (source, [plane, row]) = if copied {
            let copy = BandCopy::new(shape, outputs, by_rows, slack);
            let pitches = [copy.plane(), copy.row()];
            (Source::Copy(copy), pitches)
        } else {
            let row = width.input * channels;
            let plane = height.input * row;
            let pitch = [shape.image_len(), depth.stride * plane, height.stride * row, width.stride * channels];
            let start = -((height.padding[0] * row) as isize);
            (Source::Input { pitch: pitch.map(|p| p as isize), start }, [plane, row])
        };
        let mut offsets = Vec::new();
        for z in 0..depth.kernel {
            // A copy holds only the planes that a band reads.
            let z = if copied { z * plane } else { z * depth.dilation * plane };
            for y in 0..height.kernel {
                let across = if runs == Runs::Taps { width.kernel } else { 1 };
                offsets.extend(
                    (0..across).map(|x| (z + y * height.dilation * row + x * width.dilation * channels) as isize),
                );
            }
        }
        Ok(Gather { outputs, offsets, run_len, channels, pieces, views, view_of, source })
    }

    /// Runs of a view.
    pub(crate) fn runs(&self, view: &View) -> Range<usize> {
        let each = self.offsets.len() / self.pieces;
        view.pieces.start * each..view.pieces.end * each
    }

    /// Codes of the memory for rows at the end of the input.
    pub(crate) fn edge_len(&self) -> usize {
        EDGE_ROWS * (self.channels + 3)
    }

    /// Codes of the copy; 0 where the input is read where it lies.
    pub(crate) fn copy_len(&self) -> usize {
        match &self.source {
            Source::Input { .. } => 0,
            Source::Copy(copy) => copy.len,
        }
    }

    /// Splits a range of output pixels into bands that can be read at a time.
    pub(crate) fn bands(&self, rows: Range<usize>) -> impl Iterator<Item = Range<usize>> {
        let [_, height, width] = self.outputs;
        let mut next = rows.start;
        core::iter::from_fn(move || {
            if next >= rows.end {
                return None;
            }
            let start = next;
            next = match &self.source {
                Source::Input { .. } => rows.end,
                Source::Copy(copy) => {
                    let line = start / width;
                    let end = (line % height / copy.outputs + 1) * copy.outputs;
                    ((line - line % height + end.min(height)) * width).min(rows.end)
                }
            };
            Some(start..next)
        })
    }

    /// Makes a band readable: the result tells where its rows are.
    pub(crate) fn read<'a>(
        &'a self,
        band: &Range<usize>,
        input: &'a [u8],
        zero_point: u8,
        copy: &'a mut [u8],
    ) -> Band<'a> {
        let [depth, height, width] = self.outputs;
        match &self.source {
            Source::Input { pitch, start } => {
                let pixels = (!self.run_len.is_multiple_of(4)).then_some(input.as_ptr_range());
                Band { gather: self, pitch: *pitch, base: input.as_ptr().wrapping_offset(*start), pixels }
            }
            Source::Copy(bands) => {
                let (first, last) = (band.start / width, (band.end - 1) / width);
                let (image, z, y) = (first / height / depth, first / height % depth, first % height);
                let image = &input[image * bands.image_len..][..bands.image_len];
                let top = bands.write(image, z, y..y + last - first + 1, zero_point, copy);
                let [_, h, w] = &bands.axes;
                let row = bands.row() as isize;
                let pitch = [0, 0, h.stride as isize * row, (w.stride * bands.channels) as isize];
                Band { gather: self, pitch, base: copy.as_ptr().wrapping_offset(-top * row), pixels: None }
            }
        }
    }

    /// The part of a range of pixels, from its first on, that shares a view; and the view.
    pub(crate) fn view(&self, rows: &Range<usize>) -> (Range<usize>, usize) {
        if self.views.len() == 1 {
            return (rows.clone(), 0);
        }
        let [_, height, width] = self.outputs;
        let view = |line: usize| self.view_of[line % height];
        let line = rows.start / width;
        let mut end = line + 1;
        while end * width < rows.end && view(end) == view(line) {
            end += 1;
        }
        (rows.start..rows.end.min(end * width), view(line))
    }
}

/// Where the rows of a band are.
pub(crate) struct Band<'a> {
    gather: &'a Gather,
    /// Codes between neighbouring outputs: images, planes, rows, pixels.
    pitch: [isize; 4],
    /// Where row 0 of the batch would be.
    base: *const u8,
    /// The input, where reading whole quads could reach beyond it: rows are then single pixels.
    pixels: Option<Range<*const u8>>,
}

/// Pixels so near to the end of the input that a quad may reach beyond it, at most.
const EDGE_ROWS: usize = 3;

impl Band<'_> {
    /// Writes the addresses of output pixels from `first` on. Pixels whose last quad would reach beyond the input
    /// are copied to `edge`.
    ///
    /// # Safety
    /// The pixels lie in the band.
    pub(crate) unsafe fn rows(&self, first: usize, rows: &mut [*const u8], edge: &mut [u8]) {
        self.locate(first, rows);
        let Some(input) = &self.pixels else { return };
        let pixel = self.gather.channels;
        // Rows whose only tap lies in the padding are not read, and may be anywhere.
        let near = |row: &&mut *const u8| input.contains(&**row) && row.wrapping_add(pixel + 3) > input.end;
        for (row, copy) in rows.iter_mut().filter(near).zip(edge.chunks_exact_mut(pixel + 3)) {
            // SAFETY: a pixel of the input.
            copy[..pixel].copy_from_slice(unsafe { core::slice::from_raw_parts(*row, pixel) });
            *row = copy.as_ptr();
        }
    }

    fn locate(&self, first: usize, rows: &mut [*const u8]) {
        let [depth, height, width] = self.gather.outputs;
        let (line, mut x) = (first / width, first % width);
        let mut rest = rows;
        for line in line.. {
            let count = (width - x).min(rest.len());
            let position = [line / height / depth, line / height % depth, line % height, x];
            let offset: isize = position.iter().zip(&self.pitch).map(|(&at, pitch)| at as isize * pitch).sum();
            let (now, later) = rest.split_at_mut(count);
            let mut at = self.base.wrapping_offset(offset);
            for row in now {
                *row = at;
                at = at.wrapping_offset(self.pitch[3]);
            }
            if later.is_empty() {
                return;
            }
            (rest, x) = (later, 0);
        }
    }
}

/// A copy of the input behind some output rows of one plane, with its padding written out.
struct BandCopy {
    axes: [Axis; 3],
    channels: usize,
    image_len: usize,
    /// Whether rows above and below the image are left out, because no kernel row reads them.
    skips: bool,
    /// Output rows of a band.
    outputs: usize,
    /// Input rows of a band, at most.
    rows: usize,
    /// Codes of the copy, with what may be read beyond its last run.
    len: usize,
}

/// What a band may take of the cache …
const BAND_BYTES: usize = 96 << 10;
/// … unless it would have fewer pixels than this: weights pass by once a band.
const BAND_PIXELS: usize = 192;

impl BandCopy {
    fn new(shape: &Conv, [_, height, width]: [usize; 3], skips: bool, slack: usize) -> BandCopy {
        let mut copy = BandCopy {
            axes: shape.axes,
            channels: shape.in_channels,
            image_len: shape.image_len(),
            skips,
            outputs: 1,
            rows: 1,
            len: 0,
        };
        let line = shape.axes[0].kernel * copy.row();
        let most = (BAND_BYTES / (line * shape.axes[1].stride)).max(BAND_PIXELS.div_ceil(width)).clamp(1, height);
        copy.outputs = height.div_ceil(height.div_ceil(most));
        copy.rows = copy.rows_behind(copy.outputs);
        copy.len = shape.axes[0].kernel * copy.plane() + slack;
        copy
    }

    /// Codes of a padded row.
    fn row(&self) -> usize {
        let width = &self.axes[2];
        (width.input + width.padding[0] + width.padding[1]) * self.channels
    }

    /// Codes of a plane.
    fn plane(&self) -> usize {
        self.rows * self.row()
    }

    /// Input rows behind some output rows.
    fn rows_behind(&self, outputs: usize) -> usize {
        let height = &self.axes[1];
        (outputs - 1) * height.stride + (height.kernel - 1) * height.dilation + 1
    }

    /// Writes what output rows `outputs` of plane `z` read, and returns which row of the image (counted from
    /// its padding) comes first.
    fn write(&self, image: &[u8], z: usize, outputs: Range<usize>, zero_point: u8, copy: &mut [u8]) -> isize {
        let [depth, height, width] = &self.axes;
        let first = outputs.start * height.stride;
        let (row, padded) = (width.input * self.channels, self.row());
        let left = width.padding[0] * self.channels;
        for tap in 0..depth.kernel {
            let plane = depth.source(z, tap);
            let lines = copy[tap * self.plane()..][..self.plane()].chunks_exact_mut(padded);
            for (at, line) in lines.take(self.rows_behind(outputs.len())).enumerate() {
                let y = (first + at).checked_sub(height.padding[0]).filter(|&y| y < height.input);
                match (plane, y) {
                    (Some(z), Some(y)) => {
                        let (before, rest) = line.split_at_mut(left);
                        let (inside, after) = rest.split_at_mut(row);
                        before.fill(zero_point);
                        inside.copy_from_slice(&image[(z * height.input + y) * row..][..row]);
                        after.fill(zero_point);
                    }
                    // No kernel row reads it.
                    (Some(_), None) if self.skips => {}
                    _ => line.fill(zero_point),
                }
            }
        }
        first as isize
    }
}
