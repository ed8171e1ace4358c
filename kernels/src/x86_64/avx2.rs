//! AVX2, exact: VPMADDWD multiplies 16-bit numbers and adds pairs of products in 32 bits, which u8 by i8 codes
//! cannot overflow. VPMADDUBSW takes twice the codes an instruction, but adds pairs in 16 bits and saturates for 3.58 %
//! of them: it is for weights that are proven not to, see `maddubs`.
//!
//! Both operands have 16 bits. Products and sums alone keep all vector units busy: codes are therefore widened when
//! they are copied, and weights, packed as bytes, once for all rows of a strip. Few rows do not repay that and widen
//! weights as they go; a single one is bound by it, and by half the memory traffic of 16-bit weights.

use super::epilogue256 as epilogue;
use super::{panels, prefetch, quad, row_at, rows};
use crate::IsaName;
use crate::element::{Element, widen};
use crate::epilogue::{ACCUMULATORS, CODES, REALS, Store, element_size};
use crate::micro::{DEPTHWISE_ROWS, Kind, Microkernel, Tile, TileFn};
use crate::pack::WeightFormat;
use core::arch::x86_64::*;

/// Register budget of the largest tile: 6 × 2 accumulators, 2 of weights, 1 of activations, 1 of products: 16 of 16.
const ROWS: usize = 6;
const _: () = assert!(ROWS * 2 + 4 <= 16);
/// Rows of a strip from which on its weights are widened beforehand.
const MANY_ROWS: usize = 18;
/// Bytes between weights that pass by once and those asked for meanwhile.
const AHEAD: usize = 2048;

pub(crate) const GEMM: Microkernel = Microkernel {
    name: "gemm_avx2_6x16",
    isa: IsaName::Avx2,
    kind: Kind::Gemm,
    rows: ROWS,
    lanes: 8,
    vectors: 4,
    format: WeightFormat::BytePairs,
    element: Element::Word(widen_codes),
    widened: 64,
    tile: |rows, vectors, _, store| {
        let table = match vectors {
            1 => gemm_table::<1, 1>(store),
            2 => gemm_table::<2, 2>(store),
            _ => gemm_table::<4, 2>(store),
        };
        table[rows - 1]
    },
    more_stores: false,
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
    element: Element::Byte,
    widened: 0,
    tile: |_, _, signed, store| if signed { depthwise_for::<true>(store) } else { depthwise_for::<false>(store) },
    more_stores: false,
    stage: None,
};

fn gemm_table<const VECTORS: usize, const NV: usize>(store: Store) -> &'static [TileFn; ROWS] {
    const fn of<const VECTORS: usize, const NV: usize, const STORE: Store>() -> [TileFn; ROWS] {
        [
            row::<VECTORS, STORE>,
            gemm::<2, VECTORS, NV, STORE>,
            gemm::<3, VECTORS, NV, STORE>,
            gemm::<4, VECTORS, NV, STORE>,
            gemm::<5, VECTORS, NV, STORE>,
            gemm::<6, VECTORS, NV, STORE>,
        ]
    }
    match store {
        CODES => const { &of::<VECTORS, NV, CODES>() },
        REALS => const { &of::<VECTORS, NV, REALS>() },
        _ => const { &of::<VECTORS, NV, ACCUMULATORS>() },
    }
}

fn depthwise_for<const SIGNED: bool>(store: Store) -> TileFn {
    match store {
        CODES => depthwise::<SIGNED, CODES>,
        REALS => depthwise::<SIGNED, REALS>,
        _ => depthwise::<SIGNED, ACCUMULATORS>,
    }
}

/// Tiles of a single row: all vectors of the panel at once, and two pairs of codes a turn, because nothing hides the
/// instructions of the loop itself.
///
/// # Safety
/// The contract of [`TileFn`].
#[target_feature(enable = "avx2,fma")]
unsafe fn row<const NV: usize, const STORE: Store>(t: &Tile<'_>) {
    for panel in panels(t, 8 * NV, element_size(STORE)) {
        // SAFETY: passed on.
        unsafe { row_of_panel::<NV, STORE>(&panel) };
    }
}

/// # Safety
/// The contract of [`TileFn`], of one panel.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn row_of_panel<const NV: usize, const STORE: Store>(t: &Tile<'_>) {
    for top in 0..t.count {
        // SAFETY: a row, and initial values for all channels of the panel.
        let ([x], mut acc) = unsafe { (rows(t, top), load::<NV, true>(t.initial.cast())) };
        for run in t.runs {
            let mut w = t.weights.wrapping_add(16 * NV * run.weights);
            let mut at = run.codes.wrapping_add_unsigned(t.channel);
            let end = at + 4 * t.pairs as isize;
            while at + 8 <= end {
                prefetch::<NV, 32>(w.wrapping_add(AHEAD));
                for _ in 0..2 {
                    // SAFETY: `at < end`; the panel has a step of weights for every pair of codes of a run.
                    let (codes, weights) = unsafe { (_mm256_set1_epi32(quad(x, at)), load::<NV, false>(w)) };
                    for j in 0..NV {
                        acc[j] = _mm256_add_epi32(acc[j], _mm256_madd_epi16(codes, weights[j]));
                    }
                    w = w.wrapping_add(16 * NV);
                    at += 4;
                }
            }
            if at < end {
                // SAFETY: as above.
                let (codes, weights) = unsafe { (_mm256_set1_epi32(quad(x, at)), load::<NV, false>(w)) };
                for j in 0..NV {
                    acc[j] = _mm256_add_epi32(acc[j], _mm256_madd_epi16(codes, weights[j]));
                }
            }
        }
        let mut acc = [acc];
        // SAFETY: the epilogue's part of the contract.
        unsafe {
            epilogue::subtract_row_sums::<1, NV>(&mut acc, top, t);
            epilogue::finish_rows::<1, NV, STORE>(acc, top, t);
        }
    }
}

/// Tiles of MR rows by NV vectors of channels, parts of a panel of `VECTORS`.
///
/// # Safety
/// The contract of [`TileFn`].
#[target_feature(enable = "avx2,fma")]
unsafe fn gemm<const MR: usize, const VECTORS: usize, const NV: usize, const STORE: Store>(t: &Tile<'_>) {
    for panel in panels(t, 8 * VECTORS, element_size(STORE)) {
        let panel = Tile { panel_bytes: 16 * NV, ..panel };
        for mut part in panels(&panel, 8 * NV, element_size(STORE)) {
            let pitch = 16 * VECTORS;
            // SAFETY: a part of the panel; scratch memory as the contract says.
            unsafe {
                if t.count < MANY_ROWS {
                    tiles::<MR, NV, false, STORE>(&part, pitch);
                } else {
                    widen_weights::<NV>(&part, pitch);
                    part.weights = t.widened;
                    tiles::<MR, NV, true, STORE>(&part, 32 * NV);
                }
            }
        }
    }
}

/// [`widen`], 32 codes at a time.
#[target_feature(enable = "avx2")]
fn widen_codes(codes: &[u8], flip: u8, words: &mut [u8]) {
    widen(codes, flip, words)
}

/// Widens NV vectors of weights, `pitch` bytes after the last ones, for each pair of codes, run by run.
///
/// # Safety
/// The contract of [`TileFn`].
#[target_feature(enable = "avx2,fma")]
unsafe fn widen_weights<const NV: usize>(t: &Tile<'_>, pitch: usize) {
    let mut to = t.widened;
    for run in t.runs {
        let mut from = t.weights.wrapping_add(pitch * run.weights);
        for _ in 0..t.pairs {
            prefetch::<1, 64>(from.wrapping_add(AHEAD));
            // SAFETY: by this function's contract.
            unsafe {
                for (j, vector) in load::<NV, false>(from).into_iter().enumerate() {
                    _mm256_storeu_si256(to.add(32 * j).cast(), vector);
                }
            }
            (from, to) = (from.wrapping_add(pitch), to.wrapping_add(32 * NV));
        }
    }
}

/// NV vectors of pairs of 16-bit numbers, or (unless `WIDE`) of bytes that they are widened from.
///
/// # Safety
/// They can be read at `w`.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn load<const NV: usize, const WIDE: bool>(w: *const u8) -> [__m256i; NV] {
    let mut v = [_mm256_setzero_si256(); NV];
    for j in 0..NV {
        // SAFETY: by this function's contract.
        v[j] = unsafe {
            if WIDE {
                _mm256_loadu_si256(w.add(32 * j).cast())
            } else {
                _mm256_cvtepi8_epi16(_mm_loadu_si128(w.add(16 * j).cast()))
            }
        };
    }
    v
}

/// Tiles of MR rows by NV vectors of channels. The weights of a step, one pair of codes, are bytes where the runs say, or
/// (`WIDE`) words of one run after the other, and `pitch` bytes after those of the last.
///
/// # Safety
/// The contract of [`TileFn`], but for the format of the weights.
#[target_feature(enable = "avx2,fma")]
unsafe fn tiles<const MR: usize, const NV: usize, const WIDE: bool, const STORE: Store>(t: &Tile<'_>, pitch: usize) {
    for top in (0..t.count).step_by(MR) {
        // SAFETY: a pointer a row, and initial values for all channels of the panel.
        let (x, initial): ([*const u8; MR], _) = unsafe { (rows(t, top), load::<NV, true>(t.initial.cast())) };
        let mut acc = [initial; MR];
        let mut w = t.weights;
        for run in t.runs {
            if !WIDE {
                w = t.weights.wrapping_add(pitch * run.weights);
            }
            let mut at = run.codes.wrapping_add_unsigned(t.channel);
            let end = at + 4 * t.pairs as isize;
            while at < end {
                // SAFETY: a step of weights for every pair of codes of a run.
                let weights = unsafe { load::<NV, WIDE>(w) };
                if !WIDE {
                    prefetch::<1, 64>(w.wrapping_add(AHEAD));
                }
                for i in 0..MR {
                    // SAFETY: `at < end`; two words are as long as a quad of bytes.
                    let codes = _mm256_set1_epi32(unsafe { quad(x[i], at) });
                    for j in 0..NV {
                        acc[i][j] = _mm256_add_epi32(acc[i][j], _mm256_madd_epi16(codes, weights[j]));
                    }
                }
                w = w.wrapping_add(pitch);
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
    for first in (0..t.runs.len()).step_by(2) {
        let mut x = [_mm256_setzero_si256(); 2];
        for i in 0..2 {
            // A tap beyond the last has weight 0; as a plain sum it must be 0 itself.
            if first + i < t.runs.len() {
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
