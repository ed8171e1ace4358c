//! Rule R14: the order of elements in memory. Recordings hold PyTorch's logical order (channels before
//! space), layers compute with channels last; both are the same values.

use alloc::vec::Vec;

/// `[outer, rows, columns]` → `[outer, columns, rows]`.
///
/// # Panics
/// If the length of `x` is not a multiple of `rows · columns`.
pub fn transpose<T: Copy>(x: &[T], rows: usize, columns: usize) -> Vec<T> {
    assert_eq!(x.len() % (rows * columns), 0, "whole matrices of {rows}×{columns}");
    let mut y = Vec::with_capacity(x.len());
    for matrix in x.chunks_exact(rows * columns) {
        for column in 0..columns {
            y.extend(matrix.iter().skip(column).step_by(columns));
        }
    }
    y
}

/// `[batch, channels, spatial…]` → `[batch, spatial…, channels]`, where `pixels` is the product of the spatial extents.
///
/// Also OIHW → OHWI: the batch of a weight is its output channels.
///
/// # Panics
/// If the length of `x` is not a multiple of `channels · pixels`.
pub fn channels_last<T: Copy>(x: &[T], channels: usize, pixels: usize) -> Vec<T> {
    transpose(x, channels, pixels)
}

/// `[batch, spatial…, channels]` → `[batch, channels, spatial…]`.
///
/// # Panics
/// If the length of `x` is not a multiple of `channels · pixels`.
pub fn channels_first<T: Copy>(x: &[T], channels: usize, pixels: usize) -> Vec<T> {
    transpose(x, pixels, channels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let x: Vec<u8> = (0..2 * 3 * 4).collect();
        let y = channels_last(&x, 3, 4);
        assert_eq!(y[..6], [0, 4, 8, 1, 5, 9]);
        assert_eq!(channels_first(&y, 3, 4), x);
    }
}
