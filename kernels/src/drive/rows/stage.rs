//! Staging: the columns of a band, with their padding, side by side as a kernel reads them.

use super::{Band, Held, PADDING, Rows, Scratch, pairs};
use crate::drive::Driver;
use crate::micro::Stage;

/// What a panel stages of a band: the channels of a register from `channel` on, of each segment.
pub(super) struct Columns {
    pub channel: usize,
    pub vectors: usize,
    pub segments: usize,
    /// Pixels from a segment to the next.
    pub distance: usize,
    /// Pixels of a segment.
    pub length: usize,
}

impl Driver<'_> {
    /// Offsets in the input of a band's staged codes; what lies in padding rows or is not needed has none.
    pub(super) fn offsets(&self, rows: &Rows, band: &Band, offsets: &mut [usize]) {
        let height = &rows.height;
        let needed = (band.lines - 1) * height.stride + (height.kernel - 1) * height.dilation + 1;
        let codes = (0..rows.staged_blocks(rows.band)).flat_map(|block| rows.input_rows(block));
        for (offset, row) in offsets.iter_mut().zip(codes) {
            let y = (band.y * height.stride + row).checked_sub(height.padding[0]);
            *offset = match y.filter(|&y| row < needed && y < height.input) {
                Some(y) => (band.image * height.input + y) * rows.width.input * rows.in_channels,
                None => PADDING,
            };
        }
    }

    /// Stages columns of a band.
    ///
    /// # Safety
    /// As [`run`](crate::drive::run).
    pub(super) unsafe fn stage(
        &self,
        rows: &Rows,
        band: &Band,
        columns: &Columns,
        input: &[u8],
        held: &mut Held,
        scratch: &mut Scratch<'_>,
    ) {
        let &Columns { channel, vectors, segments, distance, length } = columns;
        let (kernel, width, wide) = (self.packed.kernel, &rows.width, rows.fold[1]);
        let bytes = 4 * kernel.lanes / segments;
        // Staged column of the padded input that a segment begins with.
        let begin = |segment: usize| (band.columns.start + segment * distance) * rows.stride;
        let left = width.padding[0];
        // Columns of the last row behind which a register may still be read from the input.
        let last = scratch.offsets.iter().filter(|&&offset| offset != PADDING).max().copied();
        let readable = last.map_or(width.input, |last| match input.len().checked_sub(last + channel + bytes) {
            Some(rest) => (rest / rows.in_channels + 1).min(width.input),
            None => 0,
        });
        let count = rows.columns(length);
        // Columns that all segments read from the input.
        let interior = left.div_ceil(wide).saturating_sub(begin(0))
            ..((left + readable) / wide).saturating_sub(begin(segments - 1)).min(count);
        let function = kernel.stage.expect("a row kernel")(vectors, self.signed);
        // Columns of padding on both sides are the same for all rows and panels.
        let padding = [
            0..(left / wide).saturating_sub(begin(0)).min(count),
            (left + width.input).div_ceil(wide).saturating_sub(begin(0)).min(count)..count,
        ];
        let padded = segments == 1 && held.padded == (begin(0)..count);
        held.padded = if segments == 1 { begin(0)..count } else { 0..0 };
        let mut at = 0;
        while at < count {
            let side = padding.iter().find(|side| segments == 1 && side.contains(&at));
            let (run, pitch, lines) = match side {
                Some(side) => (side.end - at, 0, rows.band),
                None if interior.contains(&at) => (interior.end - at, wide * rows.in_channels, band.lines),
                None => (1, 0, band.lines),
            };
            if side.is_some() && padded {
                at += run;
                continue;
            }
            let codes = rows.staged_blocks(lines) * rows.fold[0] * wide;
            let sources = &mut scratch.sources[..codes * segments];
            for (segment, phase) in pairs(segments, wide) {
                let x = ((begin(segment) + at) * wide + phase).wrapping_sub(left);
                let places = (phase..codes).step_by(wide);
                if x >= width.input {
                    places.for_each(|code| sources[code * segments + segment] = scratch.padding.as_ptr());
                    continue;
                }
                let at = x * rows.in_channels + channel;
                for code in places.clone() {
                    sources[code * segments + segment] = scratch.rows[code].wrapping_add(at);
                }
                if last.is_none_or(|last| last + at + bytes <= input.len()) {
                    continue;
                }
                for code in places.filter(|&code| scratch.offsets[code] != PADDING) {
                    let codes = &input[scratch.offsets[code] + at..];
                    if codes.len() < bytes {
                        let place = code * segments + segment;
                        let edge = &mut scratch.edge[place * bytes..][..bytes];
                        edge[..codes.len()].copy_from_slice(codes);
                        sources[place] = edge.as_ptr();
                    }
                }
            }
            let to = scratch.staged[at * rows.cell..].as_mut_ptr();
            // SAFETY: in the interior each row is readable up to `readable` columns, all other columns are staged one
            // by one from where a register may be read; the padding is as long as a row and a register.
            // Scratch has room for the columns of the longest segment.
            unsafe { function(&Stage { sources, pitch, count: run, to, block: rows.block_len() }) };
            at += run;
        }
    }
}
