//! Bands for kernels that read the input where it lies.

use super::{Band, Rows, Scratch};
use crate::drive::Driver;
use crate::micro::Columns;

impl Driver<'_> {
    /// All outputs of a band that lie in the region.
    ///
    /// # Safety
    /// As [`run`](crate::drive::run); `scratch` holds the band's rows.
    pub(super) unsafe fn direct(&self, rows: &Rows, band: &Band, input: &[u8], scratch: &mut Scratch<'_>) {
        let width = &rows.width;
        for panel in &self.packed.weights.panels {
            let inside = panel.within(&self.target.region.channels);
            if inside.is_empty() {
                continue;
            }
            let segments = 4 / panel.vectors;
            let distance = band.columns.len() / segments;
            let (mut tile, direct) = self.row_tile(panel, &inside, distance);
            tile.count = band.columns.len() - (segments - 1) * distance;
            tile.columns = Columns {
                pitch: rows.in_channels,
                first: (band.columns.start * width.stride).wrapping_sub(width.padding[0]),
                inside: width.input,
                padding: scratch.padding.as_ptr(),
                end: input.as_ptr_range().end,
                distance,
            };
            tile.line_output = rows.output_width * tile.stride;
            tile.weights = self.packed.weights.of_panel(panel, 0);
            tile.channel = panel.channel;
            let function = (self.packed.kernel.tile)(1, panel.vectors, self.signed, self.packed.store);
            // Lines that are not stored straight into the output are computed one by one.
            let lines = if direct { band.lines } else { 1 };
            for line in (0..band.lines).step_by(lines) {
                let first = band.first(rows, line);
                tile.rows = scratch.rows[line * rows.step..].as_ptr();
                tile.lines = lines;
                tile.output =
                    if direct { self.target.at(first, inside.start) } else { scratch.tile.as_mut_ptr().cast() };
                // SAFETY: the CPU has the kernel's instructions (by `run`'s contract). The table points to rows of
                // the input or of the padding, which is as long as a row and a register. Weights and epilogue were
                // packed for this panel. All segments of the lines lie in the band: in the region, or in the tile
                // buffer, which has room for a band's row of 4-byte elements.
                unsafe { function(&tile) };
                if !direct {
                    let row = first..first + band.columns.len();
                    let width = panel.vectors * self.packed.kernel.lanes;
                    // SAFETY: the tile buffer was just filled.
                    unsafe { self.copy_out(&row, &inside, panel, width, scratch.tile) };
                }
            }
        }
    }
}
