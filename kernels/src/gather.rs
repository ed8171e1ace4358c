//! Where the rows of a tile lie in the input.
//!
//! A row of the output reads one contiguous run of codes a tap. Along each axis, where a tap of an output lies
//! depends on that axis alone, so three small tables made at plan time replace one entry a pixel and tap:
//! the offset of a run is the sum of three entries, or lies in the padding if any of them does.

use alloc::vec::Vec;
use qexact_reference::{Axis, Conv, Error};

/// Marks a tap in the padding; more negative than the sum of any two offsets is positive.
const PADDING: isize = isize::MIN / 4;

/// Offsets of taps along one axis: `[output][tap]`, in codes.
struct AxisTable {
    taps: usize,
    outputs: usize,
    offsets: Vec<isize>,
}

impl AxisTable {
    fn new(axis: &Axis, pitch: usize) -> Result<AxisTable, Error> {
        let outputs = axis.output()?;
        let mut offsets = Vec::with_capacity(outputs * axis.kernel);
        for output in 0..outputs {
            let offset = |tap| axis.source(output, tap).map_or(PADDING, |at| (at * pitch) as isize);
            offsets.extend((0..axis.kernel).map(offset));
        }
        Ok(AxisTable { taps: axis.kernel, outputs, offsets })
    }

    fn of(&self, output: usize) -> &[isize] {
        &self.offsets[output * self.taps..][..self.taps]
    }
}

/// How rows are read, for one layer.
pub(crate) struct Gather {
    axes: [AxisTable; 3],
    /// Codes of one image, as read: of the padded copy if there is one.
    image_len: usize,
    /// Runs of a row.
    pub runs: usize,
    /// Codes of a run.
    pub run_len: usize,
    /// The padded copy that images are read from, if they are not read where they lie.
    pub copy: Option<PaddedCopy>,
}

impl Gather {
    /// Reads taps one by one: a run is the input channels of a group under one tap.
    pub(crate) fn taps(shape: &Conv) -> Result<Gather, Error> {
        Gather::over(shape.axes, shape.axes.map(|a| a.input), shape.in_channels, shape.group_inputs(), None)
    }

    /// Reads kernel rows: a run is `kernel width · channels` codes. Needs all channels in one group and an
    /// undilated width, and a padded copy unless there is no padding.
    pub(crate) fn kernel_rows(shape: &Conv) -> Result<Gather, Error> {
        debug_assert!(shape.groups == 1 && shape.axes[2].dilation == 1, "a kernel row must be contiguous");
        let copy = shape.axes.iter().any(|a| a.padding != [0, 0]).then(|| PaddedCopy::of(shape));
        let mut axes = shape.axes.map(|a| Axis { input: a.input + a.padding[0] + a.padding[1], padding: [0, 0], ..a });
        let extents = axes.map(|a| a.input);
        let run_len = axes[2].kernel * shape.in_channels;
        // Along the width only the first tap of a kernel row is looked up.
        axes[2].input -= axes[2].kernel - 1;
        axes[2].kernel = 1;
        Gather::over(axes, extents, shape.in_channels, run_len, copy)
    }

    /// `extents` are those of the image in memory.
    fn over(
        axes: [Axis; 3],
        extents: [usize; 3],
        channels: usize,
        run_len: usize,
        copy: Option<PaddedCopy>,
    ) -> Result<Gather, Error> {
        let [d, h, w] = axes;
        let row = extents[2] * channels;
        let plane = extents[1] * row;
        let axes = [AxisTable::new(&d, plane)?, AxisTable::new(&h, row)?, AxisTable::new(&w, channels)?];
        let runs = axes.iter().map(|a| a.taps).product();
        Ok(Gather { axes, image_len: extents[0] * plane, runs, run_len, copy })
    }

    /// Output pixels of an image.
    pub(crate) fn pixels(&self) -> usize {
        self.axes.iter().map(|a| a.outputs).product()
    }

    /// Writes the pointers of `rows` output pixels from `first` on: `[run][row]`, `rows` = `table.len() / runs`.
    ///
    /// `input` is the first image of the batch that `first` counts through, or the padded copy of one image;
    /// taps in the padding get `padding`.
    pub(crate) fn pointers(&self, input: *const u8, first: usize, padding: *const u8, table: &mut [*const u8]) {
        let rows = table.len() / self.runs;
        let [depth, height, width] = &self.axes;
        let (rest, mut x) = (first / width.outputs, first % width.outputs);
        let (rest, mut y) = (rest / height.outputs, rest % height.outputs);
        let (image, mut z) = (rest / depth.outputs, rest % depth.outputs);
        let mut base = input.wrapping_add(image * self.image_len);
        for row in 0..rows {
            let mut slot = row;
            for z in depth.of(z) {
                for y in height.of(y) {
                    for x in width.of(x) {
                        let offset = z + y + x;
                        table[slot] = if offset < 0 { padding } else { base.wrapping_offset(offset) };
                        slot += rows;
                    }
                }
            }
            x += 1;
            if x == width.outputs {
                (x, y) = (0, y + 1);
                if y == height.outputs {
                    (y, z) = (0, z + 1);
                    if z == depth.outputs {
                        (z, base) = (0, base.wrapping_add(self.image_len));
                    }
                }
            }
        }
    }
}

/// A copy of one image with its padding written out.
pub(crate) struct PaddedCopy {
    /// Input extents and padding: depth, height, width.
    axes: [Axis; 3],
    channels: usize,
}

impl PaddedCopy {
    fn of(shape: &Conv) -> PaddedCopy {
        PaddedCopy { axes: shape.axes, channels: shape.in_channels }
    }

    fn padded(&self, axis: usize) -> usize {
        self.axes[axis].input + self.axes[axis].padding[0] + self.axes[axis].padding[1]
    }

    /// Codes of the copy.
    pub(crate) fn len(&self) -> usize {
        self.padded(0) * self.padded(1) * self.padded(2) * self.channels
    }

    /// Writes the part of an image that its output pixels `first` to `last` read.
    pub(crate) fn write(&self, image: &[u8], zero_point: u8, [first, last]: [usize; 2], copy: &mut [u8]) {
        let [depth, height, width] = &self.axes;
        let row = width.input * self.channels;
        let padded_row = self.padded(2) * self.channels;
        let [left, _] = width.padding;
        let needed = self.rows_needed([first, last]);
        for (at, line) in copy[..self.len()].chunks_exact_mut(padded_row).enumerate() {
            if !needed.contains(&at) {
                continue;
            }
            let z = (at / self.padded(1)).checked_sub(depth.padding[0]).filter(|&z| z < depth.input);
            let y = (at % self.padded(1)).checked_sub(height.padding[0]).filter(|&y| y < height.input);
            if let (Some(z), Some(y)) = (z, y) {
                let (before, rest) = line.split_at_mut(left * self.channels);
                let (inside, after) = rest.split_at_mut(row);
                before.fill(zero_point);
                inside.copy_from_slice(&image[(z * height.input + y) * row..][..row]);
                after.fill(zero_point);
            } else {
                line.fill(zero_point);
            }
        }
    }

    /// Rows of the padded image (depth × height) behind output pixels `first` to `last`.
    fn rows_needed(&self, [first, last]: [usize; 2]) -> core::ops::Range<usize> {
        let [_, height, width] = self.axes.map(|a| a.output().unwrap_or(1));
        let [d, h, _] = &self.axes;
        let of = |pixel: usize| (pixel / width / height * d.stride, pixel / width % height * h.stride);
        let ((first_z, first_y), (last_z, last_y)) = (of(first), of(last));
        let end_z = last_z + (d.kernel - 1) * d.dilation;
        let end_y = last_y + (h.kernel - 1) * h.dilation;
        // Within one plane of outputs whole planes need not be read.
        if first_z == last_z && d.kernel == 1 {
            first_z * self.padded(1) + first_y..end_z * self.padded(1) + end_y + 1
        } else {
            first_z * self.padded(1)..(end_z + 1) * self.padded(1)
        }
    }
}
