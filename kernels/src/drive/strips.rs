//! How the rows of a block are divided into strips of tiles.

use super::{Block, Packed};
use crate::gather::Gather;
use crate::memory::Plain;
use core::ops::Range;

/// Rows of a tile where there are no more products than this to a sum …
const SHORT_ROWS: usize = 8;
const SHORT_SUM: usize = 640;
/// … and where tiles have one vector: those load more than they multiply, the less the more rows share the weights.
const SHORT_SUM_OF_ONE: usize = 16;

/// Tiles of equally many rows below each other.
#[derive(Clone, Copy)]
pub(super) struct Strip {
    /// The first row, counted from that of the block.
    pub at: u32,
    pub rows: u32,
    /// Rows of a tile.
    pub tile: u32,
    /// What its rows see, a [`View`](crate::gather::View).
    pub view: u32,
    /// Quads that the tiles before it take from the weights.
    pub quads: usize,
}

// SAFETY: five numbers.
unsafe impl Plain for Strip {}

impl Packed {
    /// Divides a block into strips of rows that see the same part of the kernel. Rows are in the order of pixels, unless
    /// lines are divided (`divides`: they may be), or each tap takes the pixels that see it.
    pub(super) fn arrange(&self, gather: &Gather, block: &mut Block<'_>, divides: bool) {
        (block.count, block.quads, block.moved) = (0, 0, false);
        // The end of a smaller tile overlaps better with the beginning of the next, and small images divide more evenly.
        let one = self.weights.panels.first().is_some_and(|panel| panel.vectors == 1);
        let short = gather.run_len * gather.whole.runs.len() <= if one { SHORT_SUM_OF_ONE } else { SHORT_SUM };
        let most = if short { self.kernel.rows.min(SHORT_ROWS) } else { self.kernel.rows };
        let (mut rest, mut at) = (block.range.clone(), 0);
        if gather.is_by_taps() {
            block.moved = true;
            for view in 0..gather.views.len() {
                at = gather.seeing(&rest, view).fold(at, |at, pixels| block.take(at, pixels));
                block.add_strips(gather, at, view, most);
            }
            rest.start = rest.end;
        }
        while !rest.is_empty() {
            let (part, view) = gather.view(&rest);
            rest.start = part.end;
            let Some(spans) = gather.spans(&part, view).filter(|_| divides) else {
                at = block.take(at, part);
                block.add_strips(gather, at, view, most);
                continue;
            };
            block.moved = true;
            for (span, view) in spans {
                at = span.within(&part, gather.width()).fold(at, |at, pixels| block.take(at, pixels));
                block.add_strips(gather, at, view, most);
            }
        }
        let whole = gather.whole.quads();
        block.share = if block.quads > whole { (whole << 16) / block.quads } else { 1 << 16 };
    }
}

impl Block<'_> {
    /// How many rows the strips have.
    pub(super) fn listed(&self) -> usize {
        self.strips[..self.count].last().map_or(0, |strip| (strip.at + strip.rows) as usize)
    }

    /// Makes some pixels the rows from `at` on; returns where they end.
    fn take(&mut self, at: usize, pixels: Range<usize>) -> usize {
        let end = at + pixels.len();
        // Nothing is noted where lines are never divided.
        for (noted, pixel) in self.pixels.iter_mut().skip(at).zip(pixels) {
            *noted = (pixel - self.range.start) as u32;
        }
        end
    }

    /// Adds the rows up to `end` that are in no strip yet: as few tiles as possible, all but the last of the same size.
    fn add_strips(&mut self, gather: &Gather, end: usize, view: usize, most: usize) {
        let mut at = self.listed();
        let rows = end - at;
        if rows == 0 {
            return;
        }
        let (tiles, tile) = if rows <= most {
            (1, rows)
        } else {
            let tile = rows.div_ceil(rows.div_ceil(most));
            (rows / tile, tile)
        };
        for (tiles, tile) in [(tiles, tile), (1, rows - tiles * tile)] {
            if tile > 0 {
                let rows = tiles * tile;
                let (view, quads) = (view as u32, self.quads);
                self.strips[self.count] = Strip { at: at as u32, rows: rows as u32, tile: tile as u32, view, quads };
                self.count += 1;
                self.quads += tiles * gather.views[view as usize].quads();
                at += rows;
            }
        }
    }

    /// Parts of some rows whose pixels follow each other, as long as possible, and these pixels.
    pub(super) fn pieces(&self, rows: Range<usize>) -> impl Iterator<Item = (Range<usize>, Range<usize>)> {
        let (moved, pixels, first_pixel) = (self.moved, &*self.pixels, self.range.start);
        let mut next = rows.start;
        core::iter::from_fn(move || {
            let first = next;
            if first == rows.end {
                return None;
            }
            let mut pixel = first_pixel + first;
            next = rows.end;
            if moved {
                let follow = pixels[first..rows.end].windows(2).take_while(|pair| pair[0] + 1 == pair[1]);
                (pixel, next) = (first_pixel + pixels[first] as usize, first + 1 + follow.count());
            }
            Some((first..next, pixel..pixel + next - first))
        })
    }
}
