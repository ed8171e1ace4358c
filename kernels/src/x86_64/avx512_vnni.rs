//! AVX-512-VNNI: VPDPBUSD on 512-bit registers adds four products of u8 by i8 to each of 16 int32 lanes.
//! It does not saturate; int32 sums wrap, as R4 wants.

use super::epilogue512 as epilogue;
use super::{asks, panels, prefetch, quad, row_at, rows};
use crate::IsaName;
use crate::element::Element;
use crate::epilogue::{ACCUMULATORS, CODES, DOUBLE_CODES, REAL_CODES, REALS, Store, element_size};
use crate::micro::{DEPTHWISE_ROWS, Kind, Microkernel, Tile, TileFn};
use crate::pack::WeightFormat;
use core::arch::x86_64::*;

/// Register budget of the largest tile: 12 × 2 accumulators, 2 of weights, 1 of activations: 27 of 32.
const ROWS: usize = 12;
/// Depthwise: 4 × 4 accumulators, 4 of taps and their 4 interleavings: 24 of 32.
const PIXELS: usize = 4;
const _: () = assert!(ROWS * 2 + 2 < 32 && PIXELS * 4 + 8 <= 32);

pub(crate) const GEMM: Microkernel = Microkernel {
    name: "gemm_avx512_vnni_12x32",
    isa: IsaName::Avx512Vnni,
    kind: Kind::Gemm,
    rows: ROWS,
    lanes: 16,
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
    more_stores: true,
    stage: None,
};

pub(crate) const DEPTHWISE: Microkernel = Microkernel {
    name: "depthwise_avx512_vnni_64",
    isa: IsaName::Avx512Vnni,
    kind: Kind::Depthwise,
    rows: DEPTHWISE_ROWS,
    lanes: 16,
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
            gemm::<4, NV, 2, SIGNED, STORE>,
            gemm::<5, NV, 2, SIGNED, STORE>,
            gemm::<6, NV, 1, SIGNED, STORE>,
            gemm::<7, NV, 1, SIGNED, STORE>,
            gemm::<8, NV, 1, SIGNED, STORE>,
            gemm::<9, NV, 1, SIGNED, STORE>,
            gemm::<10, NV, 1, SIGNED, STORE>,
            gemm::<11, NV, 1, SIGNED, STORE>,
            gemm::<12, NV, 1, SIGNED, STORE>,
        ]
    }
    match store {
        CODES => const { &of::<NV, SIGNED, CODES>() },
        REALS => const { &of::<NV, SIGNED, REALS>() },
        REAL_CODES => const { &of::<NV, SIGNED, REAL_CODES>() },
        DOUBLE_CODES => const { &of::<NV, SIGNED, DOUBLE_CODES>() },
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
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn gemm<const MR: usize, const NV: usize, const U: usize, const SIGNED: bool, const STORE: Store>(t: &Tile<'_>) {
    for panel in panels(t, 16 * NV, element_size(STORE)) {
        // SAFETY: passed on.
        unsafe { tiles::<MR, NV, U, SIGNED, STORE>(&panel) };
    }
}

/// The tiles of one panel.
///
/// # Safety
/// The contract of [`TileFn`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn tiles<const MR: usize, const NV: usize, const U: usize, const SIGNED: bool, const STORE: Store>(
    t: &Tile<'_>,
) {
    let asks = asks::<NV, U>(t);
    let mut ahead = t.ahead;
    for top in (0..t.count).step_by(MR) {
        // SAFETY: there are initial values for all channels of the panel.
        let initial = unsafe { load::<NV>(t.initial.cast()) };
        let mut sums = [[[_mm512_setzero_si512(); NV]; MR]; U];
        sums[0] = [initial; MR];
        for run in t.runs {
            // SAFETY: a pointer a row.
            let x: [*const u8; MR] = unsafe { rows(t, top) };
            let mut w = t.weights.wrapping_add(64 * NV * run.weights);
            let mut at = run.codes.wrapping_add_unsigned(t.channel);
            let end = at + 4 * t.quads as isize;
            while at + 4 * U as isize <= end {
                for u in 0..U {
                    // SAFETY: the panel holds a quad a channel for every four codes of a run.
                    let weights = unsafe { load::<NV>(w) };
                    if asks {
                        prefetch::<NV, 64>(ahead);
                    }
                    ahead = ahead.wrapping_add(t.ahead_step);
                    for i in 0..MR {
                        // SAFETY: `at + 4 * U <= end`.
                        let codes = broadcast::<SIGNED>(unsafe { quad(x[i], at + 4 * u as isize) });
                        for j in 0..NV {
                            sums[u][i][j] = _mm512_dpbusd_epi32(sums[u][i][j], codes, weights[j]);
                        }
                    }
                    w = w.wrapping_add(64 * NV);
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
                        sums[0][i][j] = _mm512_dpbusd_epi32(sums[0][i][j], codes, weights[j]);
                    }
                }
                w = w.wrapping_add(64 * NV);
                at += 4;
            }
        }
        let mut acc = sums[0];
        for part in &sums[1..] {
            for i in 0..MR {
                for j in 0..NV {
                    acc[i][j] = _mm512_add_epi32(acc[i][j], part[i][j]);
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
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn broadcast<const SIGNED: bool>(quad: i32) -> __m512i {
    let codes = _mm512_set1_epi32(quad);
    if SIGNED { _mm512_xor_si512(codes, _mm512_set1_epi32(0x8080_8080_u32 as i32)) } else { codes }
}

/// NV vectors.
///
/// # Safety
/// They are readable at `w`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn load<const NV: usize>(w: *const u8) -> [__m512i; NV] {
    let mut v = [_mm512_setzero_si512(); NV];
    for j in 0..NV {
        // SAFETY: by this function's contract.
        v[j] = unsafe { _mm512_loadu_si512(w.add(64 * j).cast()) };
    }
    v
}

/// One pixel at a time: 4 accumulators, 4 vectors of taps and their 4 interleavings; weights come from memory.
///
/// # Safety
/// The contract of [`TileFn`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
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

/// Sums over the taps of one pixel and 64 channels, each code times its weight (`WEIGHTED`) or times 1.
///
/// # Safety
/// The contract of [`TileFn`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn taps<const SIGNED: bool, const WEIGHTED: bool>(t: &Tile<'_>, row: usize) -> [__m512i; 4] {
    let mut acc = [_mm512_setzero_si512(); 4];
    let mut w = t.weights;
    for first in (0..t.runs.len()).step_by(4) {
        let mut x = [_mm512_setzero_si512(); 4];
        for i in 0..4 {
            // Taps beyond the last have weight 0; as a plain sum they must be 0 themselves.
            if first + i < t.runs.len() {
                // SAFETY: every run is readable for a block of 64 channels.
                let codes = unsafe { _mm512_loadu_si512(row_at(t, row, first + i).cast()) };
                x[i] = unsigned::<SIGNED>(codes);
            }
        }
        let quads = interleave(x);
        for v in 0..4 {
            let weights = if WEIGHTED {
                // SAFETY: the panel holds four vectors for every four taps.
                unsafe { _mm512_loadu_si512(w.add(64 * v).cast()) }
            } else {
                _mm512_set1_epi8(1)
            };
            acc[v] = _mm512_dpbusd_epi32(acc[v], quads[v], weights);
        }
        w = w.wrapping_add(256);
    }
    acc
}

/// Puts the bytes of four taps that belong to one channel into one dword, in the order of `depthwise_panels`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn interleave(x: [__m512i; 4]) -> [__m512i; 4] {
    join(pairs(x[0], x[1]), pairs(x[2], x[3]))
}

/// The first step of [`interleave`]: bytes of two taps in words.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn pairs(a: __m512i, b: __m512i) -> [__m512i; 2] {
    [_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b)]
}

/// The second: words in dwords.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn join(a: [__m512i; 2], b: [__m512i; 2]) -> [__m512i; 4] {
    [
        _mm512_unpacklo_epi16(a[0], b[0]),
        _mm512_unpackhi_epi16(a[0], b[0]),
        _mm512_unpacklo_epi16(a[1], b[1]),
        _mm512_unpackhi_epi16(a[1], b[1]),
    ]
}

/// Signed codes as code + 128.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) fn unsigned<const SIGNED: bool>(codes: __m512i) -> __m512i {
    if SIGNED { _mm512_xor_si512(codes, _mm512_set1_epi8(-128)) } else { codes }
}
