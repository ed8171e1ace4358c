//! The padded copy that rows are read from where the input itself does not hold what they read.

use crate::element::Element;
use core::ops::Range;
use qexact_reference::{Axis, Conv};

/// A copy of the input behind some output rows of one plane, with its padding written out.
pub(crate) struct BandCopy {
    pub axes: [Axis; 3],
    pub channels: usize,
    element: Element,
    pub image_len: usize,
    /// Whether rows above and below the image are left out, because no kernel row reads them.
    skips: bool,
    /// Output rows of a band.
    pub outputs: usize,
    /// Input rows of a band, at most.
    rows: usize,
    /// Bytes of the copy, with what may be read beyond its last run.
    pub len: usize,
}

/// What a band may take of the cache …
const BAND_BYTES: usize = 96 << 10;
/// … unless it would have fewer pixels than this: weights pass by once a band.
const BAND_PIXELS: usize = 192;

impl BandCopy {
    pub(crate) fn new(
        shape: &Conv,
        [_, height, width]: [usize; 3],
        element: Element,
        skips: bool,
        slack: usize,
    ) -> BandCopy {
        let mut copy = BandCopy {
            axes: shape.axes,
            channels: shape.in_channels,
            element,
            image_len: shape.image_len(),
            skips,
            outputs: 1,
            rows: 1,
            len: 0,
        };
        let line = shape.axes[0].kernel * copy.row() * element.size();
        let most = (BAND_BYTES / (line * shape.axes[1].stride)).max(BAND_PIXELS.div_ceil(width)).clamp(1, height);
        copy.outputs = height.div_ceil(height.div_ceil(most));
        copy.rows = copy.rows_behind(copy.outputs);
        copy.len = (shape.axes[0].kernel * copy.plane() + slack) * element.size();
        copy
    }

    /// Codes of a padded row.
    pub(crate) fn row(&self) -> usize {
        let width = &self.axes[2];
        (width.input + width.padding[0] + width.padding[1]) * self.channels
    }

    /// Codes of a plane.
    pub(crate) fn plane(&self) -> usize {
        self.rows * self.row()
    }

    /// Input rows behind some output rows.
    fn rows_behind(&self, outputs: usize) -> usize {
        let height = &self.axes[1];
        (outputs - 1) * height.stride + (height.kernel - 1) * height.dilation + 1
    }

    /// Writes what output rows `outputs` of plane `z` read, and returns which row of the image (counted from
    /// its padding) comes first.
    ///
    /// # Safety
    /// The CPU has the instruction set of the kernel.
    pub(crate) unsafe fn write(
        &self,
        image: &[u8],
        z: usize,
        outputs: Range<usize>,
        (zero_point, flip): (u8, u8),
        copy: &mut [u8],
    ) -> isize {
        let (element, size) = (self.element, self.element.size());
        let [depth, height, width] = &self.axes;
        let first = outputs.start * height.stride;
        let (row, padded) = (width.input * self.channels, self.row() * size);
        let left = width.padding[0] * self.channels * size;
        for tap in 0..depth.kernel {
            let plane = depth.source(z, tap);
            let lines = copy[tap * self.plane() * size..][..self.plane() * size].chunks_exact_mut(padded);
            for (at, line) in lines.take(self.rows_behind(outputs.len())).enumerate() {
                let y = (first + at).checked_sub(height.padding[0]).filter(|&y| y < height.input);
                match (plane, y) {
                    (Some(z), Some(y)) => {
                        let (before, rest) = line.split_at_mut(left);
                        let (inside, after) = rest.split_at_mut(row * size);
                        element.fill(zero_point, flip, before);
                        // SAFETY: by this function's contract.
                        unsafe { element.write(&image[(z * height.input + y) * row..][..row], flip, inside) };
                        element.fill(zero_point, flip, after);
                    }
                    // No kernel row reads it.
                    (Some(_), None) if self.skips => {}
                    _ => element.fill(zero_point, flip, line),
                }
            }
        }
        first as isize
    }
}
