//! Row kernels for AVX2: depthwise and grouped convolutions over staged columns.

use super::avx2::interleave;
use super::epilogue256 as epilogue;
use super::rows256::{finish_segments, in_order, source, stage_codes};
use crate::IsaName;
use crate::epilogue::{ACCUMULATORS, CODES, REALS, Store};
use crate::gather::Element;
use crate::micro::{Kind, Microkernel, Stage, Tile, TileFn, Window};
use crate::pack::WeightFormat;
use core::arch::x86_64::*;

/// Depthwise: 2 × 4 accumulators, 4 of weights, 1 of products: 13 of 16.
const ROWS: usize = 2;
/// Grouped: 4 × 2 or 2 × 4 accumulators, 2 of codes, 1 of products; weights come from memory.
const GROUPED4_ROWS: usize = 4;
const GROUPED8_ROWS: usize = 2;

pub(crate) const DEPTHWISE: Microkernel = Microkernel {
    name: "depthwise_rows_avx2_2x32",
    isa: IsaName::Avx2,
    kind: Kind::DepthwiseRows(Window::Any),
    rows: ROWS,
    lanes: 8,
    vectors: 4,
    format: WeightFormat::Pairs,
    element: Element::Byte,
    widened: 0,
    tile: |rows, vectors, _, store| match (rows, vectors) {
        (1, 4) => depthwise_for::<1, 1>(store),
        (1, _) => depthwise_for::<1, 2>(store),
        (_, 4) => depthwise_for::<2, 1>(store),
        (_, _) => depthwise_for::<2, 2>(store),
    },
    more_stores: false,
    stage: Some(|vectors, signed| match (vectors, signed) {
        (4, false) => stage::<1, false>,
        (4, true) => stage::<1, true>,
        (_, false) => stage::<2, false>,
        (_, true) => stage::<2, true>,
    }),
};

pub(crate) const GROUPED4: Microkernel = Microkernel {
    name: "grouped_rows_avx2_4x16_4",
    isa: IsaName::Avx2,
    kind: Kind::GroupedRows { quads: 1, window: Window::Any },
    rows: GROUPED4_ROWS,
    lanes: 8,
    vectors: 2,
    format: WeightFormat::Pairs,
    element: Element::Byte,
    widened: 0,
    tile: |rows, _, _, store| match rows {
        1 => grouped_for::<1, 2>(store),
        2 => grouped_for::<2, 2>(store),
        3 => grouped_for::<3, 2>(store),
        _ => grouped_for::<4, 2>(store),
    },
    more_stores: false,
    stage: Some(|_, signed| if signed { stage_codes::<true> } else { stage_codes::<false> }),
};

pub(crate) const GROUPED8: Microkernel = Microkernel {
    name: "grouped_rows_avx2_2x16_8",
    kind: Kind::GroupedRows { quads: 2, window: Window::Any },
    rows: GROUPED8_ROWS,
    tile: |rows, _, _, store| match rows {
        1 => grouped_for::<1, 4>(store),
        _ => grouped_for::<2, 4>(store),
    },
    ..GROUPED4
};

fn depthwise_for<const MR: usize, const FOLD: usize>(store: Store) -> TileFn {
    match store {
        CODES => depthwise::<MR, FOLD, CODES>,
        REALS => depthwise::<MR, FOLD, REALS>,
        _ => depthwise::<MR, FOLD, ACCUMULATORS>,
    }
}

fn grouped_for<const MR: usize, const VECTORS: usize>(store: Store) -> TileFn {
    match store {
        CODES => grouped::<MR, VECTORS, CODES>,
        REALS => grouped::<MR, VECTORS, REALS>,
        _ => grouped::<MR, VECTORS, ACCUMULATORS>,
    }
}

/// Stages rows in pairs, widened to 16 bits, the codes of a channel side by side in a dword: 32 channels, or two
/// segments of 16.
///
/// # Safety
/// The contract of [`StageFn`](crate::micro::StageFn).
#[target_feature(enable = "avx2,fma")]
unsafe fn stage<const FOLD: usize, const SIGNED: bool>(s: &Stage<'_>) {
    for (block, rows) in s.sources.chunks_exact(2 * FOLD).enumerate() {
        let mut sources = [[core::ptr::null::<u8>(); FOLD]; 2];
        for (i, &source) in rows.iter().enumerate() {
            sources[i / FOLD][i % FOLD] = source;
        }
        let mut to = s.to.wrapping_add(block * s.block);
        for at in 0..s.count {
            let mut x = [_mm256_setzero_si256(); 2];
            for i in 0..2 {
                // SAFETY: 32 / FOLD bytes are readable in each column of a source.
                x[i] = unsafe { source::<FOLD, SIGNED>(sources[i], at * s.pitch) };
            }
            for (v, dwords) in interleave(x).into_iter().enumerate() {
                // SAFETY: a block holds 128 bytes a column.
                unsafe { _mm256_storeu_si256(to.wrapping_add(32 * v).cast(), dwords) };
            }
            to = to.wrapping_add(128);
        }
    }
}

/// # Safety
/// The contract of [`TileFn`], for `count` tiles that follow each other.
#[target_feature(enable = "avx2,fma")]
unsafe fn depthwise<const MR: usize, const FOLD: usize, const STORE: Store>(t: &Tile<'_>) {
    for tile in 0..t.count {
        let rows = t.rows.wrapping_add(tile * t.runs * MR);
        let y = t.output.wrapping_add(tile * MR * t.stride);
        // SAFETY: passed on.
        unsafe {
            let mut acc = columns::<MR, FOLD, STORE, true>(rows, t);
            epilogue::start::<MR, 4>(&mut acc, t);
            if !t.epilogue.weight_zero_point.is_empty() {
                epilogue::subtract_channel_sums::<MR, 4>(&mut acc, columns::<MR, FOLD, STORE, false>(rows, t), t);
            }
            finish_segments::<MR, FOLD, STORE>(acc, y, t);
        }
    }
}

/// Sums over the staged columns of MR pixels, each code times its weight (`WEIGHTED`) or, where it has one, times 1.
///
/// # Safety
/// The contract of [`TileFn`].
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn columns<const MR: usize, const FOLD: usize, const STORE: Store, const WEIGHTED: bool>(
    rows: *const *const u8,
    t: &Tile<'_>,
) -> [[__m256i; 4]; MR] {
    let mut acc = [[_mm256_setzero_si256(); 4]; MR];
    let ones = t.weights.wrapping_add(128 * t.runs * t.quads);
    let mut w = t.weights;
    for run in 0..t.runs {
        let mut x = [core::ptr::null::<u8>(); MR];
        for i in 0..MR {
            // SAFETY: the table holds runs × MR pointers.
            x[i] = unsafe { *rows.add(run * MR + i) }.wrapping_add(t.channel);
        }
        for block in 0..t.quads {
            for v in 0..4 {
                let from =
                    if WEIGHTED { w.wrapping_add(32 * v) } else { ones.wrapping_add(32 * (run * t.quads + block)) };
                // SAFETY: the panel holds four vectors for every run and block, then one of ones.
                let weights = unsafe { _mm256_loadu_si256(from.cast()) };
                for i in 0..MR {
                    // SAFETY: a staged column holds four vectors a block.
                    let codes = unsafe { _mm256_loadu_si256(x[i].add(block * t.block + 32 * v).cast()) };
                    acc[i][v] = _mm256_add_epi32(acc[i][v], _mm256_madd_epi16(codes, weights));
                }
            }
            w = w.wrapping_add(128);
        }
    }
    acc
}

/// # Safety
/// The contract of [`TileFn`], for `count` tiles that follow each other in each of `lines` lines.
#[target_feature(enable = "avx2,fma")]
unsafe fn grouped<const MR: usize, const VECTORS: usize, const STORE: Store>(t: &Tile<'_>) {
    for (line, tile) in (0..t.lines).flat_map(|line| (0..t.count).map(move |tile| (line, tile))) {
        let rows = t.rows.wrapping_add(tile * t.runs * MR);
        let tile = &Tile {
            channel: t.channel + line * t.line_input,
            output: t.output.wrapping_add(line * t.line_output + tile * MR * t.stride),
            ..*t
        };
        // SAFETY: passed on.
        unsafe {
            let mut acc = in_order(codes::<MR, VECTORS, STORE, true>(rows, tile));
            epilogue::start::<MR, 2>(&mut acc, tile);
            if !t.epilogue.weight_zero_point.is_empty() {
                let sums = in_order(codes::<MR, VECTORS, STORE, false>(rows, tile));
                epilogue::subtract_channel_sums::<MR, 2>(&mut acc, sums, tile);
            }
            epilogue::finish_rows::<MR, 2, STORE>(acc, 0, tile);
        }
    }
}

/// Sums over the taps of MR pixels: both 128-bit lanes hold the same 16 codes, each dword a quad of a group, and
/// the vectors of weights one output a lane.
///
/// # Safety
/// The contract of [`TileFn`].
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn codes<const MR: usize, const VECTORS: usize, const STORE: Store, const WEIGHTED: bool>(
    rows: *const *const u8,
    t: &Tile<'_>,
) -> [[__m256i; VECTORS]; MR] {
    let mut acc = [[_mm256_setzero_si256(); VECTORS]; MR];
    let mut w = t.weights;
    if !WEIGHTED {
        w = w.wrapping_add(64 * VECTORS * t.runs * t.quads);
    }
    for run in 0..t.runs {
        let mut x = [core::ptr::null::<u8>(); MR];
        for i in 0..MR {
            // SAFETY: the table holds runs × MR pointers.
            x[i] = unsafe { *rows.add(run * MR + i) }.wrapping_add(t.channel);
        }
        for row in 0..t.quads {
            for i in 0..MR {
                // SAFETY: a block holds 32 bytes a column, of which `channel` left out a multiple of 16.
                let codes = _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(x[i].add(row * t.block).cast()) });
                let even = _mm256_and_si256(codes, _mm256_set1_epi16(0x00ff));
                let odd = _mm256_srli_epi16::<8>(codes);
                for n in 0..VECTORS {
                    // SAFETY: the panel holds twice as many vectors for every run and row, then as many of ones.
                    let (for_even, for_odd) = unsafe {
                        (
                            _mm256_loadu_si256(w.wrapping_add(32 * n).cast()),
                            _mm256_loadu_si256(w.wrapping_add(32 * (VECTORS + n)).cast()),
                        )
                    };
                    acc[i][n] = _mm256_add_epi32(acc[i][n], _mm256_madd_epi16(even, for_even));
                    acc[i][n] = _mm256_add_epi32(acc[i][n], _mm256_madd_epi16(odd, for_odd));
                }
            }
            if WEIGHTED {
                w = w.wrapping_add(64 * VECTORS);
            }
        }
    }
    acc
}
