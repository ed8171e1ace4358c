//! Pixels at the left and right edges of a line, which see fewer columns of the kernel than those between.
//!
//! Tiles that leave out columns which lie in the padding have less to multiply, but the pixels of a tile must all see
//! the same columns: a tile at an edge takes its pixels from as many lines as a block has. Where it has few, tiles of
//! few rows lose more than there is to be gained.

use crate::taps::taps_seen;
use alloc::vec::Vec;
use core::ops::Range;
use qexact_reference::Axis;

/// Pixels of an output line that see the same columns of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub pixels: Range<usize>,
    pub columns: Range<usize>,
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
        // Dilated, with a stride, and padding wider than the kernel.
        let dilated = |input, kernel, padding, stride| Axis { dilation: 2, ..width(input, kernel, padding, stride) };
        assert_eq!(divided(&dilated(8, 3, [2, 2], 1)), [(0..2, 1..3), (2..6, 0..3), (6..8, 0..2)]);
        assert_eq!(divided(&dilated(9, 3, [3, 2], 2)), [(0..1, 2..3), (1..2, 1..3), (2..4, 0..3), (4..5, 0..2)]);
        assert_eq!(divided(&dilated(2, 2, [4, 3], 1)), [(0..2, 0..0), (2..4, 1..2), (4..6, 0..1), (6..7, 0..0)]);
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
}
