//! Pixels at the left and right edges of a line, which see fewer columns of the kernel than those between.
//!
//! Tiles that leave out columns which lie in the padding have less to multiply, but the pixels of a tile must all see
//! the same columns: a tile at an edge takes its pixels from as many lines as a block has. Where it has few, tiles of
//! few rows lose more than there is to be gained.

use alloc::vec::Vec;
use core::ops::Range;
use qexact_reference::Axis;

/// Pixels of an output line that see the same columns of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub pixels: Range<usize>,
    pub columns: Range<usize>,
}

/// Taps of an axis that an output sees: the others lie in the padding.
pub(crate) fn taps_seen(axis: &Axis, output: usize) -> Range<usize> {
    let seen = |tap: &usize| axis.source(output, *tap).is_some();
    let first = (0..axis.kernel).find(seen).unwrap_or(0);
    first..first + (first..axis.kernel).take_while(seen).count()
}

/// Divides a line of so many pixels.
pub(crate) fn divide(width: &Axis, pixels: usize) -> Vec<Span> {
    let mut spans = Vec::<Span>::new();
    for x in 0..pixels {
        let columns = taps_seen(width, x);
        match spans.last_mut() {
            Some(span) if span.columns == columns => span.pixels.end += 1,
            _ => spans.push(Span { pixels: x..x + 1, columns }),
        }
    }
    spans
}

impl Span {
    /// What lies in it of a range of pixels that are counted through lines of `width`: a range for each line.
    pub(crate) fn within(&self, range: &Range<usize>, width: usize) -> impl Iterator<Item = Range<usize>> {
        let (span, range) = (self.pixels.clone(), range.clone());
        (range.start / width..range.end.div_ceil(width))
            .map(move |line| (line * width + span.start).max(range.start)..(line * width + span.end).min(range.end))
            .filter(|pixels| !pixels.is_empty())
    }
}

/// What tiles are measured by.
#[derive(Clone, Copy)]
pub(crate) struct Work {
    /// Rows of the largest tile.
    pub rows: usize,
    /// Columns of the kernel …
    pub columns: usize,
    /// … and steps of the kernel's loop, quads of codes or pairs, for each of them.
    pub steps: usize,
}

/// Rows that a tile takes as long for as for less: the dot products of fewer wait for each other, or for weights.
const FEW: usize = 5;
/// What a tile costs beyond its products, in steps of a row.
const TILE: usize = 16;
/// What it costs to store a row elsewhere first, in steps.
const MOVE: usize = 4;

impl Work {
    /// Steps of a row that tiles of some rows and columns take.
    fn of(&self, rows: usize, columns: usize) -> usize {
        let tiles = rows.div_ceil(self.rows);
        tiles * TILE + rows.max(tiles * FEW) * columns * self.steps
    }

    /// Whether pixels of spans, given by their numbers, take less time by themselves than all together.
    pub(crate) fn is_less_apart(&self, spans: impl Iterator<Item = (usize, usize)>) -> bool {
        let (mut all, mut apart) = (0, 0);
        for (pixels, columns) in spans {
            all += pixels;
            apart += self.of(pixels, columns) + pixels * MOVE;
        }
        apart < self.of(all, self.columns)
    }

    /// The same for the spans of so many whole lines.
    pub(crate) fn divides_lines(&self, spans: &[Span], lines: usize) -> bool {
        self.is_less_apart(spans.iter().map(|span| (lines * span.pixels.len(), span.columns.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn width(input: usize, kernel: usize, padding: [usize; 2], stride: usize) -> Axis {
        Axis { input, kernel, stride, padding, dilation: 1 }
    }

    fn divided(width: &Axis) -> Vec<(Range<usize>, Range<usize>)> {
        divide(width, width.output().unwrap()).into_iter().map(|span| (span.pixels, span.columns)).collect()
    }

    #[test]
    fn pixels_of_a_span_see_the_same_columns() {
        assert_eq!(divided(&width(7, 3, [1, 1], 1)), [(0..1, 1..3), (1..6, 0..3), (6..7, 0..2)]);
        assert_eq!(divided(&width(56, 3, [1, 1], 2)), [(0..1, 1..3), (1..28, 0..3)]);
        assert_eq!(divided(&width(9, 3, [0, 0], 1)), [(0..7, 0..3)]);
        // Five columns over two pixels, and pixels that see none of them.
        assert_eq!(divided(&width(2, 5, [2, 2], 1)), [(0..1, 2..4), (1..2, 1..3)]);
        assert_eq!(divided(&width(1, 2, [3, 0], 1)), [(0..2, 0..0), (2..3, 1..2)]);
    }

    #[test]
    fn spans_cover_every_part_of_an_image() {
        let axis = width(9, 5, [2, 1], 1);
        let (spans, pixels) = (divide(&axis, 8), 8);
        for (start, end) in (0..40).flat_map(|start| (start..=40).map(move |end| (start, end))) {
            let mut seen = [0; 40];
            for span in &spans {
                for range in span.within(&(start..end), pixels) {
                    assert!(range.clone().all(|pixel| span.pixels.contains(&(pixel % pixels))));
                    range.for_each(|pixel| seen[pixel] += 1);
                }
            }
            assert!((0..40).all(|pixel| seen[pixel] == usize::from((start..end).contains(&pixel))));
        }
    }

    /// Square images of a 3 × 3 layer with padding 1, by lines that see the whole kernel.
    #[test]
    fn lines_are_divided_where_that_leaves_enough_to_a_tile() {
        let divides = |rows, channels: usize, size, lines| {
            let work = Work { rows, columns: 3, steps: 3 * channels / 4 };
            work.divides_lines(&divide(&width(size, 3, [1, 1], 1), size), lines)
        };
        for rows in [6, 12] {
            for (channels, size, lines) in [(512, 7, 5), (512, 8, 6), (256, 14, 12), (128, 28, 13)] {
                assert!(divides(rows, channels, size, lines), "{channels} channels {size}");
            }
            for (channels, size, lines) in [
                // Edges of two pixels.
                (512, 4, 2),
                (256, 14, 2),
                // Storing elsewhere first takes longer than the padding.
                (4, 14, 12),
                (16, 112, 4),
                (3, 224, 2),
            ] {
                assert!(!divides(rows, channels, size, lines), "{channels} channels {size}");
            }
        }
    }
}
