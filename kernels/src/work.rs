//! What tiles take, to choose between ways of leaving out products.

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
/// What it costs to add a row to sums, in steps.
const ADD: usize = 5;

impl Work {
    /// Steps of a row that tiles of some rows take, of so many steps each.
    pub(crate) fn of(&self, rows: usize, steps: usize) -> usize {
        let tiles = rows.div_ceil(self.rows);
        tiles * TILE + rows.max(tiles * FEW) * steps
    }

    /// The same where sums of some pixels are added up part by part, each of some rows and steps.
    pub(crate) fn of_sums(&self, pixels: usize, parts: impl Iterator<Item = (usize, usize)>) -> usize {
        pixels * MOVE + parts.map(|(rows, steps)| self.of(rows, steps) + rows * ADD).sum::<usize>()
    }

    /// The same for spans, given by their pixels and columns: all together, and by themselves.
    pub(crate) fn of_spans(&self, spans: impl Iterator<Item = (usize, usize)>) -> [usize; 2] {
        let (mut all, mut apart) = (0, 0);
        for (pixels, columns) in spans {
            all += pixels;
            apart += self.of(pixels, columns * self.steps) + pixels * MOVE;
        }
        [self.of(all, self.columns * self.steps), apart]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Square images of a 3 × 3 layer with padding 1, by lines that see the whole kernel.
    #[test]
    fn lines_are_divided_where_that_leaves_enough_to_a_tile() {
        let divides = |rows, channels: usize, size: usize, lines: usize| {
            let work = Work { rows, columns: 3, steps: 3 * channels / 4 };
            let [together, apart] = work.of_spans([(lines, 2), (lines * (size - 2), 3), (lines, 2)].into_iter());
            apart < together
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
