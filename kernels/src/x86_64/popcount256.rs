//! Binary codes with AVX2: the bits of every nibble from a table, summed in bytes as long as they hold them.

use crate::binary::{BinaryKernel, BinaryTile, ROWS};
use core::arch::x86_64::*;

/// 4 × 2 counts, 2 of weights, table and mask: 12 of 16 registers, the others for nibbles.
const NV: usize = 2;
/// Steps until a byte, which gains at most 8 with each, is full.
const STEPS: usize = 255 / 8;

pub(crate) const KERNEL: BinaryKernel = BinaryKernel { name: "binary_avx2_4x16", width: 8 * NV, tile };

/// # Safety
/// The contract of [`BinaryTileFn`](crate::binary::BinaryTileFn).
unsafe fn tile(t: &BinaryTile) {
    const { assert!(ROWS == 4) };
    for first in (0..t.steps).step_by(STEPS) {
        let steps = first..t.steps.min(first + STEPS);
        // SAFETY: passed on.
        unsafe {
            match t.count {
                1 => rows::<1>(t, steps),
                2 => rows::<2>(t, steps),
                3 => rows::<3>(t, steps),
                _ => rows::<4>(t, steps),
            }
        }
    }
}

/// # Safety
/// The contract of [`BinaryTileFn`](crate::binary::BinaryTileFn), for MR rows; at most [`STEPS`] steps, and such as
/// there are.
#[target_feature(enable = "avx2")]
unsafe fn rows<const MR: usize>(t: &BinaryTile, steps: core::ops::Range<usize>) {
    let bits_of = _mm256_setr_epi8(
        0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,
    );
    let nibble = _mm256_set1_epi8(15);
    let mut differ = [[_mm256_setzero_si256(); NV]; MR];
    for step in steps {
        for j in 0..NV {
            // SAFETY: the panel holds a word a channel for every step.
            let w = unsafe { _mm256_loadu_si256(t.weights.add((step * NV + j) * 8).cast()) };
            for i in 0..MR {
                // SAFETY: every row has `steps` words.
                let x = _mm256_set1_epi32(unsafe { *t.rows.add(i * t.steps + step) });
                let bits = _mm256_xor_si256(x, w);
                let low = _mm256_shuffle_epi8(bits_of, _mm256_and_si256(bits, nibble));
                let high = _mm256_shuffle_epi8(bits_of, _mm256_and_si256(_mm256_srli_epi16::<4>(bits), nibble));
                differ[i][j] = _mm256_add_epi8(differ[i][j], _mm256_add_epi8(low, high));
            }
        }
    }
    for i in 0..MR {
        for j in 0..NV {
            // Pairs of bytes sum to at most 510: nothing saturates.
            let pairs = _mm256_maddubs_epi16(differ[i][j], _mm256_set1_epi8(1));
            let words = _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
            // SAFETY: `differ` has room for all channels of every row.
            unsafe {
                let to = t.differ.add((i * NV + j) * 8).cast();
                _mm256_storeu_si256(to, _mm256_add_epi32(_mm256_loadu_si256(to), words));
            }
        }
    }
}
