//! AVX-VNNI: VPDPBUSD on 256-bit registers adds four products of u8 by i8 to each of 8 int32 lanes.
//! It does not saturate; int32 sums wrap, as R4 wants.

use super::epilogue256 as epilogue;
use super::{asks, load, panels, prefetch, quad, row_at, rows};
use crate::IsaName;
use crate::element::Element;
use crate::epilogue::{ACCUMULATORS, CODES, REALS, Store, element_size};
use crate::micro::{DEPTHWISE_ROWS, Kind, Microkernel, Tile, TileFn};
use crate::pack::WeightFormat;
use core::arch::x86_64::*;

/// Register budget of the largest tile: 6 × 2 accumulators, 2 of weights, 1 of activations: 15 of 16.
const ROWS: usize = 6;
/// Depthwise: 2 × 4 accumulators, 4 of taps and the 4 they become: 16 of 16.
const PIXELS: usize = 2;
const _: () = assert!(ROWS * 2 + 2 < 16 && PIXELS * 4 + 8 <= 16);

pub(crate) const GEMM: Microkernel = Microkernel {
    name: "gemm_avx_vnni_6x16",
    isa: IsaName::AvxVnni,
    kind: Kind::Gemm,
    rows: ROWS,
    lanes: 8,
    vectors: 2,
    format: WeightFormat::Quads,
    element: Element::Byte,
    widened: 0,
    tile: |rows, vectors, signed, store| {
        let table = match (vectors, signed) {
            (1, false) => gemm_table::<1, false>(store),
            (1, true) => gemm_table::<1, true>(store),
            (_, false) => gemm_table::<2, false>(store),
            (_, true) => gemm_table::<2, true>(store),
        };
        table[rows - 1]
    },
    more_stores: false,
    stage: None,
};

pub(crate) const DEPTHWISE: Microkernel = Microkernel {
    name: "depthwise_avx_vnni_32",
    isa: IsaName::AvxVnni,
    kind: Kind::Depthwise,
    rows: DEPTHWISE_ROWS,
    lanes: 8,
    vectors: 4,
    format: WeightFormat::Quads,
    element: Element::Byte,
    widened: 0,
    tile: |_, _, signed, store| if signed { depthwise_for::<true>(store) } else { depthwise_for::<false>(store) },
    more_stores: false,
    stage: None,
};

fn gemm_table<const NV: usize, const SIGNED: bool>(store: Store) -> &'static [TileFn; ROWS] {
    const fn of<const NV: usize, const SIGNED: bool, const STORE: Store>() -> [TileFn; ROWS] {
        [
            gemm::<1, NV, 4, SIGNED, STORE>,
            gemm::<2, NV, 2, SIGNED, STORE>,
            gemm::<3, NV, 2, SIGNED, STORE>,
            gemm::<4, NV, 1, SIGNED, STORE>,
            gemm::<5, NV, 1, SIGNED, STORE>,
            gemm::<6, NV, 1, SIGNED, STORE>,
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

/// Sums of U interleaved parts of K, so that small tiles too have enough independent sums to hide the latency of
/// the dot product.
///
/// # Safety
/// The contract of [`TileFn`].
#[target_feature(enable = "avx2,fma,avxvnni")]
unsafe fn gemm<const MR: usize, const NV: usize, const U: usize, const SIGNED: bool, const STORE: Store>(t: &Tile<'_>) {
    for panel in panels(t, 8 * NV, element_size(STORE)) {
        // SAFETY: passed on.
        unsafe { tiles::<MR, NV, U, SIGNED, STORE>(&panel) };
    }
}

/// The tiles of one panel.
///
/// # Safety
/// The contract of [`TileFn`].
#[inline]
#[target_feature(enable = "avx2,fma,avxvnni")]
unsafe fn tiles<const MR: usize, const NV: usize, const U: usize, const SIGNED: bool, const STORE: Store>(
    t: &Tile<'_>,
) {
    let asks = asks::<NV, U>(t);
    let mut ahead = t.ahead;
    for top in (0..t.count).step_by(MR) {
        // SAFETY: a pointer a row, and initial values for all channels of the panel.
        let (x, initial): ([*const u8; MR], _) = unsafe { (rows(t, top), load::<NV>(t.initial.cast())) };
        let mut sums = [[[_mm256_setzero_si256(); NV]; MR]; U];
        sums[0] = [initial; MR];
        for run in t.runs {
            let mut w = t.weights.wrapping_add(32 * NV * run.weights);
            let mut at = run.codes.wrapping_add_unsigned(t.channel);
            let end = at + 4 * t.quads as isize;
            while at + 4 * U as isize <= end {
                for u in 0..U {
                    // SAFETY: the panel holds a quad a channel for every four codes of a run.
                    let weights = unsafe { load::<NV>(w) };
                    if asks {
                        prefetch::<NV, 32>(ahead);
                    }
                    ahead = ahead.wrapping_add(t.ahead_step);
                    for i in 0..MR {
                        // SAFETY: `at + 4 * U <= end`.
                        let codes = broadcast::<SIGNED>(unsafe { quad(x[i], at + 4 * u as isize) });
                        for j in 0..NV {
                            sums[u][i][j] = _mm256_dpbusd_avx_epi32(sums[u][i][j], codes, weights[j]);
                        }
                    }
                    w = w.wrapping_add(32 * NV);
                }
                at += 4 * U as isize;
            }
            while U > 1 && at < end {
                // SAFETY: as above.
                let weights = unsafe { load::<NV>(w) };
                for i in 0..MR {
                    // SAFETY: `at < end`.
                    let codes = broadcast::<SIGNED>(unsafe { quad(x[i], at) });
                    for j in 0..NV {
                        sums[0][i][j] = _mm256_dpbusd_avx_epi32(sums[0][i][j], codes, weights[j]);
                    }
                }
                w = w.wrapping_add(32 * NV);
                at += 4;
            }
        }
        let mut acc = sums[0];
        for part in &sums[1..] {
            for i in 0..MR {
                for j in 0..NV {
                    acc[i][j] = _mm256_add_epi32(acc[i][j], part[i][j]);
                }
            }
        }
        // SAFETY: the epilogue's part of the contract.
        unsafe {
            epilogue::subtract_row_sums::<MR, NV>(&mut acc, top, t);
            epilogue::finish_rows::<MR, NV, STORE>(acc, top, t);
        }
    }
}

/// Four codes in every lane, signed ones as code + 128.
#[inline]
#[target_feature(enable = "avx2,fma,avxvnni")]
fn broadcast<const SIGNED: bool>(quad: i32) -> __m256i {
    let codes = _mm256_set1_epi32(quad);
    if SIGNED { _mm256_xor_si256(codes, _mm256_set1_epi32(0x8080_8080_u32 as i32)) } else { codes }
}

/// One pixel at a time: 4 accumulators, 4 vectors of taps and their 4 interleavings; weights come from memory.
///
/// # Safety
/// The contract of [`TileFn`].
#[target_feature(enable = "avx2,fma,avxvnni")]
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
#[target_feature(enable = "avx2,fma,avxvnni")]
unsafe fn taps<const SIGNED: bool, const WEIGHTED: bool>(t: &Tile<'_>, row: usize) -> [__m256i; 4] {
    let mut acc = [_mm256_setzero_si256(); 4];
    let mut w = t.weights;
    for first in (0..t.runs.len()).step_by(4) {
        let mut x = [_mm256_setzero_si256(); 4];
        for i in 0..4 {
            // Taps beyond the last have weight 0; as a plain sum they must be 0 themselves.
            if first + i < t.runs.len() {
                // SAFETY: every run is readable for a block of 32 channels.
                let codes = unsafe { _mm256_loadu_si256(row_at(t, row, first + i).cast()) };
                x[i] = if SIGNED { _mm256_xor_si256(codes, _mm256_set1_epi8(-128)) } else { codes };
            }
        }
        let quads = interleave(x);
        for v in 0..4 {
            let weights = if WEIGHTED {
                // SAFETY: the panel holds four vectors for every four taps.
                unsafe { _mm256_loadu_si256(w.add(32 * v).cast()) }
            } else {
                _mm256_set1_epi8(1)
            };
            acc[v] = _mm256_dpbusd_avx_epi32(acc[v], quads[v], weights);
        }
        w = w.wrapping_add(128);
    }
    acc
}

/// Puts the bytes of four taps that belong to one channel into one dword, in the order of `depthwise_panels`.
#[inline]
#[target_feature(enable = "avx2,fma,avxvnni")]
pub(super) fn interleave(x: [__m256i; 4]) -> [__m256i; 4] {
    let (lo01, hi01) = (_mm256_unpacklo_epi8(x[0], x[1]), _mm256_unpackhi_epi8(x[0], x[1]));
    let (lo23, hi23) = (_mm256_unpacklo_epi8(x[2], x[3]), _mm256_unpackhi_epi8(x[2], x[3]));
    [
        _mm256_unpacklo_epi16(lo01, lo23),
        _mm256_unpackhi_epi16(lo01, lo23),
        _mm256_unpacklo_epi16(hi01, hi23),
        _mm256_unpackhi_epi16(hi01, hi23),
    ]
}
