//! AVX2, exact: VPMADDWD multiplies 16-bit numbers and adds pairs of products in 32 bits, which u8 by i8 codes
//! cannot overflow. VPMADDUBSW would take twice the codes an instruction, but adds pairs in 16 bits and saturates
//! for 3.58 % of them.

use super::epilogue256 as epilogue;
use super::{quad, row_at, rows};
use crate::IsaName;
use crate::epilogue::{ACCUMULATORS, CODES, REALS, Store};
use crate::micro::{DEPTHWISE_ROWS, Kind, Microkernel, Tile, TileFn};
use crate::pack::WeightFormat;
use core::arch::x86_64::*;

/// Register budget of the largest tile: 4 × 2 accumulators, 4 of weights, 2 of activations, 1 of products: 15 of 16.
const ROWS: usize = 4;
const _: () = assert!(ROWS * 2 + 7 <= 16);

pub(crate) const GEMM: Microkernel = Microkernel {
    name: "gemm_avx2_4x16",
    isa: IsaName::Avx2,
    kind: Kind::Gemm,
    rows: ROWS,
    lanes: 8,
    vectors: 2,
    format: WeightFormat::EvenOdd,
    tile: |rows, vectors, signed, store| {
        let table = match (vectors, signed) {
            (1, false) => gemm_table::<1, false>(store),
            (1, true) => gemm_table::<1, true>(store),
            (_, false) => gemm_table::<2, false>(store),
            (_, true) => gemm_table::<2, true>(store),
        };
        table[rows - 1]
    },
    stage: None,
};

pub(crate) const DEPTHWISE: Microkernel = Microkernel {
    name: "depthwise_avx2_32",
    isa: IsaName::Avx2,
    kind: Kind::Depthwise,
    rows: DEPTHWISE_ROWS,
    lanes: 8,
    vectors: 4,
    format: WeightFormat::Pairs,
    tile: |_, _, signed, store| if signed { depthwise_for::<true>(store) } else { depthwise_for::<false>(store) },
    stage: None,
};

fn gemm_table<const NV: usize, const SIGNED: bool>(store: Store) -> &'static [TileFn; ROWS] {
    const fn of<const NV: usize, const SIGNED: bool, const STORE: Store>() -> [TileFn; ROWS] {
        [
            gemm::<1, NV, SIGNED, STORE>,
            gemm::<2, NV, SIGNED, STORE>,
            gemm::<3, NV, SIGNED, STORE>,
            gemm::<4, NV, SIGNED, STORE>,
        ]
    }
    match store {
        CODES => const { &of::<NV, SIGNED, CODES>() },
        REALS => const { &of::<NV, SIGNED, REALS>() },
        _ => const { &of::<NV, SIGNED, ACCUMULATORS>() },
    }
}

fn depthwise_for<const SIGNED: bool>(store: Store) -> TileFn {
    match store {
        CODES => depthwise::<SIGNED, CODES>,
        REALS => depthwise::<SIGNED, REALS>,
        _ => depthwise::<SIGNED, ACCUMULATORS>,
    }
}

/// # Safety
/// The contract of [`TileFn`].
#[target_feature(enable = "avx2,fma")]
unsafe fn gemm<const MR: usize, const NV: usize, const SIGNED: bool, const STORE: Store>(t: &Tile<'_>) {
    for top in (0..t.count).step_by(MR) {
        // SAFETY: a pointer a row.
        let x: [*const u8; MR] = unsafe { rows(t, top) };
        let mut initial = [_mm256_setzero_si256(); NV];
        for j in 0..NV {
            // SAFETY: initial values for all channels of the panel.
            initial[j] = unsafe { _mm256_loadu_si256(t.initial.add(8 * j).cast()) };
        }
        let mut acc = [initial; MR];
        let mut w = t.weights;
        for run in 0..t.runs {
            // SAFETY: an offset a run.
            let mut at = unsafe { *t.offsets.add(run) }.wrapping_add_unsigned(t.channel);
            let end = at + 4 * t.quads as isize;
            while at < end {
                let (mut even, mut odd) = ([_mm256_setzero_si256(); NV], [_mm256_setzero_si256(); NV]);
                for j in 0..NV {
                    // SAFETY: the panel holds two pairs a channel for every four codes of a run.
                    unsafe {
                        even[j] = _mm256_loadu_si256(w.add(32 * j).cast());
                        odd[j] = _mm256_loadu_si256(w.add(32 * (NV + j)).cast());
                    }
                }
                for i in 0..MR {
                    // SAFETY: `at < end`.
                    let mut codes = _mm256_set1_epi32(unsafe { quad(x[i], at) });
                    if SIGNED {
                        codes = _mm256_xor_si256(codes, _mm256_set1_epi32(0x8080_8080_u32 as i32));
                    }
                    // The even codes, masked out of their dword, and the odd ones, shifted down.
                    let even_codes = _mm256_and_si256(codes, _mm256_set1_epi16(0x00ff));
                    for j in 0..NV {
                        acc[i][j] = _mm256_add_epi32(acc[i][j], _mm256_madd_epi16(even_codes, even[j]));
                    }
                    let odd_codes = _mm256_srli_epi16::<8>(codes);
                    for j in 0..NV {
                        acc[i][j] = _mm256_add_epi32(acc[i][j], _mm256_madd_epi16(odd_codes, odd[j]));
                    }
                }
                w = w.wrapping_add(64 * NV);
                at += 4;
            }
        }
        // SAFETY: the epilogue's part of the contract.
        unsafe {
            epilogue::subtract_row_sums::<MR, NV>(&mut acc, top, t);
            epilogue::finish_rows::<MR, NV, STORE>(acc, top, t);
        }
    }
}

/// One pixel at a time: 4 accumulators, 2 vectors of taps, their 4 widened pairs, 1 of products, 1 zero; weights come
/// from memory.
///
/// # Safety
/// The contract of [`TileFn`].
#[target_feature(enable = "avx2,fma")]
unsafe fn depthwise<const SIGNED: bool, const STORE: Store>(t: &Tile<'_>) {
    for row in 0..t.count {
        // SAFETY: passed on.
        unsafe {
            let mut acc = [taps::<SIGNED, true>(t, row)];
            epilogue::start::<1, 4>(&mut acc, t);
            if !t.epilogue.weight_zero_point.is_empty() {
                epilogue::subtract_channel_sums::<1, 4>(&mut acc, [taps::<SIGNED, false>(t, row)], t);
            }
            epilogue::finish_block::<STORE>(acc, row, t);
        }
    }
}

/// Sums over the taps of one pixel and 32 channels, each code times its weight (`WEIGHTED`) or times 1.
///
/// # Safety
/// The contract of [`TileFn`].
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn taps<const SIGNED: bool, const WEIGHTED: bool>(t: &Tile<'_>, row: usize) -> [__m256i; 4] {
    let mut acc = [_mm256_setzero_si256(); 4];
    let mut w = t.weights;
    for first in (0..t.runs).step_by(2) {
        let mut x = [_mm256_setzero_si256(); 2];
        for i in 0..2 {
            // A tap beyond the last has weight 0; as a plain sum it must be 0 itself.
            if first + i < t.runs {
                // SAFETY: every run is readable for a block of 32 channels.
                let codes = unsafe { _mm256_loadu_si256(row_at(t, row, first + i).cast()) };
                x[i] = if SIGNED { _mm256_xor_si256(codes, _mm256_set1_epi8(-128)) } else { codes };
            }
        }
        let pairs = interleave(x);
        for v in 0..4 {
            let weights = if WEIGHTED {
                // SAFETY: the panel holds four vectors for every two taps.
                unsafe { _mm256_loadu_si256(w.add(32 * v).cast()) }
            } else {
                _mm256_set1_epi16(1)
            };
            acc[v] = _mm256_add_epi32(acc[v], _mm256_madd_epi16(pairs[v], weights));
        }
        w = w.wrapping_add(128);
    }
    acc
}

/// Puts the codes of two taps that belong to one channel into one dword, 16 bits each, in the order of
/// `depthwise_panels`.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn interleave(x: [__m256i; 2]) -> [__m256i; 4] {
    let zero = _mm256_setzero_si256();
    let (low, high) = (_mm256_unpacklo_epi8(x[0], x[1]), _mm256_unpackhi_epi8(x[0], x[1]));
    [
        _mm256_unpacklo_epi8(low, zero),
        _mm256_unpackhi_epi8(low, zero),
        _mm256_unpacklo_epi8(high, zero),
        _mm256_unpackhi_epi8(high, zero),
    ]
}
