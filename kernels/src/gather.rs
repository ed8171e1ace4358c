//! Where the rows of a tile lie in the input.
//!
//! A row of the output (one pixel) reads one contiguous [`Run`] of codes a tap, or a kernel row. In memory that holds
//! the padding, the distance from the first code of a row to a run is the same for all rows:
//!
//! ```text
//! address(row, run) = rows[row] + run.codes
//! ```
//!
//! Codes are read as bytes, where they lie if possible. Where a kernel needs them to be something else, words or unsigned
//! bytes, it reads a copy, always, which costs less than widening or flipping every code once a panel.
//!
//! Padding is put in place by copying the image band by band, a few output rows at a time, into scratch memory that
//! stays in cache. Two things keep most layers from being copied: without padding along the width there is nothing to
//! put in place, and kernel rows that lie above or below the image are left out instead (their products are 0): output
//! rows that see the same kernel rows form a [`View`]. Of output rows that see all of them, pixels at the edges can leave
//! out kernel columns likewise, where that pays: taps, or the ends of kernel rows. See [`spans`].
//!
//! Where little of the kernel meets the image, as on images hardly larger than the kernel, each tap is a view of its own, of
//! the pixels that see it: an output is the sum of what as many tiles as it sees taps add to it, no padding is read, and
//! nothing is multiplied by it.

use crate::band_copy::BandCopy;
use crate::element::Element;
use crate::micro::{Kind, MOST_BLOCK_ROWS, Microkernel, Run};
use crate::spans::{self, Span};
use crate::taps::{outputs_seeing, taps_seen};
use crate::work::Work;
use alloc::vec::Vec;
use core::ops::Range;
use qexact_reference::{Axis, CodeType, Conv, Error};

/// What a pixel sees of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// Pieces of the kernel, see [`Gather::pieces`].
    pub pieces: Range<usize>,
    /// Columns of each of their rows, see [`Gather::columns`].
    pub columns: Range<usize>,
    /// Where their runs are in [`Gather::runs`].
    pub runs: Range<usize>,
    /// Codes of each run. Whole quads of them are read; what follows the last code meets weights of 0.
    pub codes: usize,
}

impl View {
    /// A kernel of one piece and one column, without anything to read.
    pub(crate) const WHOLE: View = View { pieces: 0..1, columns: 0..1, runs: 0..0, codes: 0 };

    /// Quads that it reads.
    pub(crate) fn quads(&self) -> usize {
        self.runs.len() * self.codes.div_ceil(4)
    }
}

/// How rows are read, for one layer.
pub(crate) struct Gather {
    /// Output extents.
    outputs: [usize; 3],
    /// Runs of the whole kernel in the order of its weights, and after that those of each view that leaves out columns.
    pub runs: Vec<Run>,
    /// What sees the whole kernel.
    pub whole: View,
    /// Codes of a run of it.
    pub run_len: usize,
    /// What a code is in the memory that rows are read from.
    pub element: Element,
    /// Input channels.
    channels: usize,
    /// Parts of the kernel that may be left out: its rows, or the whole kernel.
    pub pieces: usize,
    /// Parts of each kernel row that may be left out: its taps, or none but the whole row.
    pub columns: usize,
    /// What output rows see, each one choice of pieces, and after that what pixels of `spans` see.
    pub views: Vec<View>,
    /// View of each output row of an image.
    view_of: Vec<usize>,
    /// Parts of an output row that sees all pieces; none if it is not to be divided.
    spans: Vec<Span>,
    /// Outputs of each axis that see the tap of each view, where taps are views.
    seeing: Vec<[Range<usize>; 3]>,
    work: Work,
    source: Source,
}

/// Memory that rows are read from.
enum Source {
    /// The input itself (where codes change, pixels are copied a block at a time); distances between neighbouring
    /// outputs, and from the first code of an image to that of its first row.
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
    /// Input channels of a group under one tap, for pixels that see it.
    SeenTaps,
}

impl Runs {
    /// Codes of a run.
    pub(crate) fn len(self, shape: &Conv) -> usize {
        match self {
            Runs::Taps | Runs::SeenTaps => shape.group_inputs(),
            Runs::KernelRows => shape.axes[2].kernel * shape.in_channels,
        }
    }
}

impl Gather {
    /// How a kernel reads its rows, one way or tap by tap, whichever takes less time.
    ///
    /// # Errors
    /// Sizes that overflow.
    pub(crate) fn new(shape: &Conv, runs: Runs, kernel: &Microkernel, input: CodeType) -> Result<Gather, Error> {
        let gather = Gather::by(shape, runs, kernel, input)?;
        // Runs must be whole groups of weights that are packed, or proven, together.
        let groups = kernel.format.group().is_some_and(|group| shape.group_inputs().is_multiple_of(group));
        if kernel.kind == Kind::Gemm && groups && shape.axes.iter().any(|axis| axis.padding != [0, 0]) {
            let by_taps = Gather::by(shape, Runs::SeenTaps, kernel, input)?;
            // Widened weights stay in the L1 cache tap by tap, which is worth as much as the columns of taps.
            let divided = kernel.widened == 0 || runs == Runs::KernelRows;
            if by_taps.work(false) < gather.work(divided) {
                return Ok(by_taps);
            }
        }
        Ok(gather)
    }

    /// How it reads rows of such runs.
    fn by(shape: &Conv, runs: Runs, kernel: &Microkernel, input: CodeType) -> Result<Gather, Error> {
        let element = kernel.element.of(input);
        // Depthwise kernels read whole blocks of channels, from memory that has room for them: the input is copied
        // whether there is padding or not, all padding included.
        let (copied, slack) = if kernel.kind == Kind::Depthwise { (true, kernel.width()) } else { (false, 4) };
        let outputs = [shape.axes[0].output()?, shape.axes[1].output()?, shape.axes[2].output()?];
        let [depth, height, width] = shape.axes;
        let channels = shape.in_channels;
        let run_len = runs.len(shape);
        let (taps, by_taps) = (shape.taps(), runs == Runs::SeenTaps);
        // Kernel rows follow each other in the order of weights only where the kernel has no depth.
        let by_rows = depth.kernel == 1 && !copied && !by_taps;
        let pieces = match runs {
            Runs::SeenTaps => taps,
            _ if by_rows => height.kernel,
            _ => 1,
        };
        let padded = |axis: &Axis| axis.padding != [0, 0];
        // Padding that is read, unless kernel rows or taps are left out.
        let reads_padding = padded(&width) || padded(&depth) || (!by_rows && padded(&height));
        let copied = copied || (reads_padding && !by_taps);
        // Reading beyond every run would end beyond the input too often, unless rows have but one run.
        let copied = copied || (!run_len.is_multiple_of(4) && taps > 1);
        // Where codes change, pixels are copied by themselves if they are all there is to a row.
        let copied = copied || (element.changes() && (taps > 1 || shape.axes.iter().any(padded)));
        let (source, [plane, row]) = if copied {
            let copy = BandCopy::new(shape, outputs, element, by_rows || by_taps, slack);
            let pitches = [copy.plane(), copy.row()];
            (Source::Copy(copy), pitches)
        } else {
            let row = width.input * channels;
            let plane = height.input * row;
            let pitch = [shape.image_len(), depth.stride * plane, height.stride * row, width.stride * channels];
            let before = depth.padding[0] * plane + height.padding[0] * row + width.padding[0] * channels;
            let start = -(before as isize);
            (Source::Input { pitch: pitch.map(|p| p as isize), start }, [plane, row])
        };
        // A copy holds only the planes that a band reads.
        let plane = if copied { plane } else { depth.dilation * plane };
        let rows =
            (0..depth.kernel).flat_map(|z| (0..height.kernel).map(move |y| z * plane + y * height.dilation * row));
        let run_steps = kernel.format.steps_of(run_len);
        let is_row = runs == Runs::KernelRows;
        let [row_steps, tap_steps] =
            if is_row { [run_steps, channels / kernel.format.depth()] } else { [width.kernel * run_steps, run_steps] };
        // Some columns of all rows: one run each, or one for each tap.
        let runs_of = |columns: &Range<usize>| -> Vec<Run> {
            let first = if is_row { columns.start..columns.start + 1 } else { columns.clone() };
            let run = |at: usize, row: usize, x: usize| Run {
                codes: ((row + x * width.dilation * channels) * element.size()) as isize,
                weights: at * row_steps + x * tap_steps,
            };
            rows.clone().enumerate().flat_map(|(at, row)| first.clone().map(move |x| run(at, row, x))).collect()
        };
        let steps = depth.kernel * height.kernel * shape.group_inputs().div_ceil(element.step());
        let work = Work { rows: kernel.rows, columns: width.kernel, steps };
        let pieces_of = |y| if by_rows { taps_seen(&height, y) } else { 0..1 };
        let list = runs_of(&(0..width.kernel));
        let mut gather = Gather {
            outputs,
            whole: View { pieces: 0..pieces, columns: 0..1, runs: 0..list.len(), codes: run_len },
            runs: list,
            run_len,
            element,
            channels,
            pieces,
            columns: 1,
            views: Vec::new(),
            view_of: Vec::with_capacity(outputs[1]),
            spans: Vec::new(),
            seeing: Vec::new(),
            work,
            source,
        };
        if by_taps {
            gather.views = (0..taps).map(|tap| gather.view_of_pieces(tap..tap + 1)).collect();
            gather.seeing = (0..taps).map(|tap| outputs_seeing(shape, tap)).collect();
            return Ok(gather);
        }
        // What is left out of a run must be whole groups of weights that are packed, or proven, together.
        let groups = kernel.format.group().is_some_and(|group| !is_row || channels.is_multiple_of(group));
        if kernel.kind == Kind::Gemm && padded(&width) && groups {
            let lines = (0..outputs[1]).filter(|&y| pieces_of(y).len() == pieces).count();
            gather.divide_lines(lines, &width);
            gather.whole.columns = 0..gather.columns;
        }
        for pieces in (0..outputs[1]).map(pieces_of) {
            let known = gather.views.iter().rposition(|view| view.pieces == pieces);
            gather.view_of.push(known.unwrap_or(gather.views.len()));
            if known.is_none() {
                gather.views.push(gather.view_of_pieces(pieces));
            }
        }
        for Span { columns, .. } in &gather.spans {
            let first = gather.runs.len();
            gather.runs.extend(runs_of(columns));
            let codes = if is_row { columns.len() * channels } else { run_len };
            let runs = first..gather.runs.len();
            gather.views.push(View { pieces: 0..pieces, columns: columns.clone(), runs, codes });
        }
        Ok(gather)
    }

    /// Pieces of the kernel with all columns.
    fn view_of_pieces(&self, pieces: Range<usize>) -> View {
        let runs = self.whole.runs.len() / self.pieces;
        View { runs: pieces.start * runs..pieces.end * runs, pieces, ..self.whole.clone() }
    }

    /// What an image takes, in steps of a row, its lines `divided` where that pays.
    fn work(&self, divided: bool) -> usize {
        let [depth, height, width] = self.outputs;
        let steps = |view: &View| view.runs.len() * view.codes.div_ceil(self.element.step());
        if self.is_by_taps() {
            let rows = |seeing: &[Range<usize>; 3]| seeing.iter().map(|outputs| outputs.len()).product();
            let parts = self.seeing.iter().zip(&self.views).map(|(seeing, view)| (rows(seeing), steps(view)));
            return self.work.of_sums(depth * height * width, parts);
        }
        let lines = self.view_of.chunk_by(|a, b| a == b).map(|lines| {
            let view = &self.views[lines[0]];
            if self.spans.is_empty() || view.pieces.len() < self.pieces {
                return self.work.of(lines.len() * width, steps(view));
            }
            let spans = self.spans.iter().map(|span| (lines.len() * span.pixels.len(), span.columns.len()));
            let [together, apart] = self.work.of_spans(spans);
            if divided { together.min(apart) } else { together }
        });
        depth * lines.sum::<usize>()
    }

    /// Has lines that see all pieces divided, if that pays for so many.
    fn divide_lines(&mut self, lines: usize, width: &Axis) {
        let [_, height, pixels] = self.outputs;
        let band = if let Source::Copy(copy) = &self.source { copy.outputs } else { height };
        let most = (MOST_BLOCK_ROWS / pixels).min(band);
        let spans = spans::divide(width, pixels);
        let divides = |lines: usize| {
            let spans = spans.iter().map(|span| (lines * span.pixels.len(), span.columns.len()));
            let [together, apart] = self.work.of_spans(spans);
            apart < together
        };
        // As even blocks as possible.
        if most > 0 && divides(lines.div_ceil(lines.div_ceil(most).max(1))) {
            (self.columns, self.spans) = (width.kernel, spans);
        }
    }

    /// Spans of a part of the output whose pixels all have this view, and their views, if it pays to divide it.
    pub(crate) fn spans(&self, part: &Range<usize>, view: usize) -> Option<impl Iterator<Item = (&Span, usize)>> {
        if self.spans.is_empty() {
            return None;
        }
        let width = self.outputs[2];
        let pixels = |span: &Span| span.within(part, width).map(|pixels| pixels.len()).sum();
        let spans = self.spans.iter().map(|span| (pixels(span), span.columns.len()));
        let [together, apart] = self.work.of_spans(spans);
        let divides = self.views[view].pieces == (0..self.pieces) && apart < together;
        let first = self.views.len() - self.spans.len();
        divides.then(|| self.spans.iter().zip(first..))
    }

    /// Whether views are taps, each of the pixels that see it.
    pub(crate) fn is_by_taps(&self) -> bool {
        !self.seeing.is_empty()
    }

    /// Pixels of a part of the output that see the tap of a view, line by line.
    pub(crate) fn seeing(&self, part: &Range<usize>, view: usize) -> impl Iterator<Item = Range<usize>> {
        let ([depth, height, width], Range { start, end }) = (self.outputs, part.clone());
        let [planes, lines, pixels] = self.seeing[view].clone();
        (start / width..end.div_ceil(width))
            .filter(move |line| planes.contains(&(line / height % depth)) && lines.contains(&(line % height)))
            .map(move |line| (line * width + pixels.start).max(start)..(line * width + pixels.end).min(end))
    }

    /// Pixels of a line.
    pub(crate) fn width(&self) -> usize {
        self.outputs[2]
    }

    /// Whether lines may be divided into spans.
    pub(crate) fn has_spans(&self) -> bool {
        !self.spans.is_empty()
    }

    /// Bytes of the memory for pixels that are copied by themselves, in blocks of so many rows.
    pub(crate) fn pixels_len(&self, block_rows: usize) -> usize {
        match (self.element.changes(), &self.source) {
            (false, _) => EDGE_ROWS * (self.channels + 3),
            (true, Source::Input { .. }) => (block_rows * self.channels + 3) * self.element.size(),
            (true, Source::Copy(_)) => 0,
        }
    }

    /// Bytes of the copy; 0 where the input is read where it lies.
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

    /// Makes a band readable: the result tells where its rows are. Codes that change become `code ^ flip`, which for 0x80
    /// is a signed code plus 128.
    ///
    /// # Safety
    /// The CPU has the instruction set of the kernel.
    pub(crate) unsafe fn read<'a>(
        &'a self,
        band: &Range<usize>,
        input: &'a [u8],
        (zero_point, flip): (u8, u8),
        copy: &'a mut [u8],
    ) -> Band<'a> {
        let [depth, height, width] = self.outputs;
        match &self.source {
            Source::Input { pitch, start } => {
                let base = input.as_ptr().wrapping_offset(*start);
                Band { gather: self, pitch: *pitch, base, input: Some((input, flip)) }
            }
            Source::Copy(bands) => {
                let (first, last) = (band.start / width, (band.end - 1) / width);
                let (image, z, y) = (first / height / depth, first / height % depth, first % height);
                let image = &input[image * bands.image_len..][..bands.image_len];
                // SAFETY: by this function's contract.
                let top = unsafe { bands.write(image, z, y..y + last - first + 1, (zero_point, flip), copy) };
                let [_, h, w] = &bands.axes;
                let size = self.element.size();
                let row = (bands.row() * size) as isize;
                let pitch = [0, 0, h.stride as isize * row, (w.stride * bands.channels * size) as isize];
                Band { gather: self, pitch, base: copy.as_ptr().wrapping_offset(-top * row), input: None }
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
    /// Bytes between neighbouring outputs: images, planes, rows, pixels.
    pitch: [isize; 4],
    /// Where row 0 of the batch would be.
    base: *const u8,
    /// The input, unless a copy is read, and what codes that change are flipped with.
    input: Option<(&'a [u8], u8)>,
}

/// Pixels so near to the end of the input that a quad may reach beyond it, at most.
const EDGE_ROWS: usize = 3;

impl Band<'_> {
    /// Writes the addresses of output pixels from `first` on. Single pixels are copied to `pixels` where their codes
    /// change, or where their last quad would reach beyond the input.
    ///
    /// # Safety
    /// The pixels lie in the band, and the CPU has the instruction set of the kernel.
    pub(crate) unsafe fn rows(&self, first: usize, rows: &mut [*const u8], pixels: &mut [u8]) {
        self.locate(first, rows);
        let Some((input, flip)) = self.input else { return };
        let Gather { element, channels: pixel, run_len, .. } = *self.gather;
        if element.changes() {
            let copy = pixel * element.size();
            // Pixels that follow each other are copied at once.
            let follow = rows.windows(2).all(|pair| pair[0].wrapping_add(pixel) == pair[1]);
            let each = if follow { rows.len() } else { 1 };
            for (rows, copies) in rows.chunks_mut(each).zip(pixels.chunks_mut(each * copy)) {
                // SAFETY: pixels of the input; the instruction set is by this function's contract.
                unsafe {
                    let codes = core::slice::from_raw_parts(rows[0], rows.len() * pixel);
                    element.write(codes, flip, &mut copies[..rows.len() * copy]);
                }
                for (row, copy) in rows.iter_mut().zip(copies.chunks(copy)) {
                    *row = copy.as_ptr();
                }
            }
            return;
        }
        if run_len.is_multiple_of(4) {
            return;
        }
        let input = input.as_ptr_range();
        // Rows whose only tap lies in the padding are not read, and may be anywhere.
        let near = |row: &&mut *const u8| input.contains(&**row) && row.wrapping_add(pixel + 3) > input.end;
        for (row, copy) in rows.iter_mut().filter(near).zip(pixels.chunks_exact_mut(pixel + 3)) {
            // SAFETY: a pixel of the input.
            copy[..pixel].copy_from_slice(unsafe { core::slice::from_raw_parts(*row, pixel) });
            *row = copy.as_ptr();
        }
    }

    fn locate(&self, first: usize, rows: &mut [*const u8]) {
        let [depth, height, width] = self.gather.outputs;
        let [image, plane, line, pixel] = self.pitch;
        // Pixels at equal distances, from image to image, are one line.
        let even = [image, plane, line] == [plane * depth as isize, line * height as isize, pixel * width as isize];
        let width = if even { usize::MAX } else { width };
        // Most calls of little work begin with the first.
        let (at, mut x) = if first == 0 { (0, 0) } else { (first / width, first % width) };
        let (mut y, mut z) = if at == 0 { (0, 0) } else { (at % height, at / height % depth) };
        let position = [if at == 0 { 0 } else { at / height / depth }, z, y, 0];
        let offset: isize = position.iter().zip(&self.pitch).map(|(&at, pitch)| at as isize * pitch).sum();
        let (mut start, mut rest) = (self.base.wrapping_offset(offset), rows);
        while !rest.is_empty() {
            let (now, later) = rest.split_at_mut((width - x).min(rest.len()));
            for (x, row) in (x as isize..).zip(now) {
                *row = start.wrapping_offset(x * pixel);
            }
            (rest, x, y) = (later, 0, y + 1);
            start = start.wrapping_offset(line);
            if y == height {
                (y, z) = (0, z + 1);
                start = start.wrapping_offset(plane - height as isize * line);
                if z == depth {
                    z = 0;
                    start = start.wrapping_offset(image - depth as isize * plane);
                }
            }
        }
    }
}

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests {
    use super::*;
    use crate::IsaName;
    use crate::choose::choose;

    fn on_each_isa<T>(shape: &str, of: impl Fn(Gather) -> T) -> [T; 3] {
        [IsaName::Avx2, IsaName::AvxVnni, IsaName::Avx512Vnni].map(|isa| {
            let shape: Conv = shape.parse().unwrap();
            let choice = choose(isa, &shape);
            of(Gather::new(&shape, choice.runs, choice.kernel.unwrap(), CodeType::U8).unwrap())
        })
    }

    fn divided(shape: &str) -> [bool; 3] {
        on_each_isa(shape, |gather| gather.has_spans())
    }

    #[test]
    fn lines_are_divided_where_edges_leave_out_whole_groups_of_weights() {
        for shape in [
            "conv ic64oc40ih7kh3ph1",
            "conv n2ic64oc33ih8kh3ph1",
            "conv ic64oc47ih14kh3ph1",
            "conv ic64oc50ih28kh5ph2",
            "conv ic32oc40id3ih12kd2kh3ph1",
            "conv ic64oc50ih20iw2kh3kw7ph0pw3",
            // Taps by themselves, of any number of channels: dilated, with strides, wide padding; of groups.
            "conv ic128oc40ih16kh3ph2dh2",
            "conv ic64oc33ih24iw20kh3ph2dh2sw2",
            "conv ic32oc40id3ih12kd2kh3ph2dh2",
            "conv ic128oc64g2ih14kh3ph1",
            "conv ic67oc40ih14kh3ph3dh3",
            "conv ic198oc70g2ih14kh3ph1",
        ] {
            assert_eq!(divided(shape), [true; 3], "{shape}");
        }
        // Pairs of channels, but no quads.
        assert_eq!(divided("conv ic62oc40ih7kh3ph1"), [true, false, false]);
        for shape in [
            "conv ic127oc40ih7kh3ph1",
            "conv ic128oc40ih7kh3",
            "conv ic128oc40ih7kh3ph1pw0",
            "conv ic4oc40ih14kh3ph2dh2",
            "conv ic32oc64g2ih14kh3ph1",
            "conv ic512oc512ih4kh3ph1",
        ] {
            assert_eq!(divided(shape), [false; 3], "{shape}");
        }
    }

    #[test]
    fn taps_are_gone_through_one_by_one_where_many_lie_in_the_padding() {
        let by_taps = |shape| on_each_isa(shape, |gather| gather.is_by_taps());
        for shape in [
            "conv ic256oc40ih4kh3ph1",
            "conv n9ic256oc33ih4kh3ph1",
            "conv n2ic512oc47ih8kh3ph1sh2",
            "conv ic192oc70ih7kh5ph2",
            "conv ic64oc39ih7kh3ph4dh4",
            "conv ic64oc50ih20iw7kh3ph6dh6",
            "conv ic64oc48id3ih3kd3kh3pd1ph1",
            "conv n2ic128oc66g2ih2kh3ph1",
            "conv ic64oc50ih1iw700kh1kw3ph0pw400dw400",
        ] {
            assert_eq!(by_taps(shape), [true; 3], "{shape}");
        }
        // Spans leave out as much, but not with widened weights.
        for shape in [
            "conv ic128oc50ih1iw20kh1kw3ph0pw12dw12",
            "conv ic256oc50g2ih2kh1ph3:4",
            "conv ic64oc20ih20iw9kh3kw2ph0pw4dw3",
            "conv ic64oc50ih30iw2kh3ph0pw6dw5",
        ] {
            assert_eq!(by_taps(shape), [true, false, false], "{shape}");
            assert_eq!(divided(shape), [false, true, true], "{shape}");
        }
        // Tiles that have more to multiply lose less to padding than to sums in memory, on AVX-512 first.
        assert_eq!(by_taps("conv ic512oc512ih7kh3ph1"), [true, true, false]);
        for shape in [
            "conv ic8oc40ih4kh3ph1",
            "conv ic256oc256ih14kh3ph1",
            "conv ic128oc128ih28kh3ph1",
            "conv ic256oc256ih4kh3",
            // Groups of weights that taps divide.
            "conv ic255oc40ih4kh3ph1",
            "conv ic256oc256g256ih3kh3ph1",
        ] {
            assert_eq!(by_taps(shape), [false; 3], "{shape}");
        }
        // Eight quads are proven together, in the order of kernel rows.
        let proven = |shape: &str| {
            let (shape, kernel) = (shape.parse().unwrap(), &crate::x86_64::maddubs::GEMM8);
            Gather::new(&shape, Runs::KernelRows, kernel, CodeType::U8).unwrap().is_by_taps()
        };
        assert!(proven("conv ic128oc8ih3kh3ph1") && !proven("conv ic124oc8ih3kh3ph1"));
    }
}
