//! Binary codes with AVX-512-VPOPCNTDQ: XOR, count, add, for 16 channels of 32 products each.

use crate::binary::{BinaryKernel, BinaryTile, ROWS};
use core::arch::x86_64::*;

/// 4 × 2 counts, which is enough to hide the latency of a sum.
const NV: usize = 2;

pub(crate) const KERNEL: BinaryKernel = BinaryKernel { name: "binary_avx512_vpopcntdq_4x32", width: 16 * NV, tile };

/// # Safety
/// The contract of [`BinaryTileFn`](crate::binary::BinaryTileFn).
unsafe fn tile(t: &BinaryTile) {
    const { assert!(ROWS == 4) };
    // SAFETY: passed on.
    unsafe {
        match t.count {
            1 => rows::<1>(t),
            2 => rows::<2>(t),
            3 => rows::<3>(t),
            _ => rows::<4>(t),
        }
    }
}

/// # Safety
/// The contract of [`BinaryTileFn`](crate::binary::BinaryTileFn), for MR rows.
#[target_feature(enable = "avx512f,avx512vpopcntdq")]
unsafe fn rows<const MR: usize>(t: &BinaryTile) {
    let mut differ = [[_mm512_setzero_si512(); NV]; MR];
    for step in 0..t.steps {
        for j in 0..NV {
            // SAFETY: the panel holds a word a channel for every step.
            let w = unsafe { _mm512_loadu_si512(t.weights.add((step * NV + j) * 16).cast()) };
            for i in 0..MR {
                // SAFETY: every row has `steps` words.
                let x = _mm512_set1_epi32(unsafe { *t.rows.add(i * t.steps + step) });
                differ[i][j] = _mm512_add_epi32(differ[i][j], _mm512_popcnt_epi32(_mm512_xor_si512(x, w)));
            }
        }
    }
    for i in 0..MR {
        for j in 0..NV {
            // SAFETY: `differ` has room for all channels of every row.
            unsafe {
                let to = t.differ.add((i * NV + j) * 16);
                let sum = _mm512_add_epi32(_mm512_loadu_si512(to.cast()), differ[i][j]);
                _mm512_storeu_si512(to.cast(), sum);
            }
        }
    }
}
