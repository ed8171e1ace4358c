//! Row kernels for AVX-VNNI: depthwise and grouped convolutions over staged columns.

use super::avx_vnni::interleave;
use super::epilogue256 as epilogue;
use super::lines;
use super::rows256::{finish_segments, source};
use crate::IsaName;
use crate::element::Element;
use crate::epilogue::{ACCUMULATORS, CODES, REALS, Store};
use crate::micro::{Kind, Microkernel, Stage, Tile, TileFn, Window};
use crate::pack::WeightFormat;
use core::arch::x86_64::*;

/// Depthwise: 2 × 4 accumulators, 4 of weights, 1 of codes: 13 of 16.
const ROWS: usize = 2;
/// Grouped: 4 × 2 or 2 × 4 accumulators, the vectors of weights, 1 of codes.
const GROUPED4_ROWS: usize = 4;
const GROUPED8_ROWS: usize = 2;

pub(crate) const DEPTHWISE: Microkernel = Microkernel {
    name: "depthwise_rows_avx_vnni_2x32",
    isa: IsaName::AvxVnni,
    kind: Kind::DepthwiseRows,
    rows: ROWS,
    lanes: 8,
    vectors: 4,
    format: WeightFormat::Quads,
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
    name: "grouped_rows_avx_vnni_4x16_4",
    isa: IsaName::AvxVnni,
    kind: Kind::GroupedRows { quads: 1, window: Window::Any },
    rows: GROUPED4_ROWS,
    lanes: 8,
    vectors: 2,
    format: WeightFormat::Quads,
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
    name: "grouped_rows_avx_vnni_2x16_8",
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

/// Stages rows in fours, the codes of a channel side by side in a dword: 32 channels, or two segments of 16.
///
/// # Safety
/// The contract of [`StageFn`](crate::micro::StageFn).
#[target_feature(enable = "avx2,fma,avxvnni")]
unsafe fn stage<const FOLD: usize, const SIGNED: bool>(s: &Stage<'_>) {
    for (block, rows) in s.sources.chunks_exact(4 * FOLD).enumerate() {
        let mut sources = [[core::ptr::null::<u8>(); FOLD]; 4];
        for (i, &source) in rows.iter().enumerate() {
            sources[i / FOLD][i % FOLD] = source;
        }
        let mut to = s.to.wrapping_add(block * s.block);
        for at in 0..s.count {
            let mut x = [_mm256_setzero_si256(); 4];
            for i in 0..4 {
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
#[target_feature(enable = "avx2,fma,avxvnni")]
unsafe fn depthwise<const MR: usize, const FOLD: usize, const STORE: Store>(t: &Tile<'_>) {
    for tile in 0..t.count {
        let rows = t.rows.wrapping_add(tile * t.taps * MR);
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
#[target_feature(enable = "avx2,fma,avxvnni")]
unsafe fn columns<const MR: usize, const FOLD: usize, const STORE: Store, const WEIGHTED: bool>(
    rows: *const *const u8,
    t: &Tile<'_>,
) -> [[__m256i; 4]; MR] {
    let mut acc = [[_mm256_setzero_si256(); 4]; MR];
    let ones = t.weights.wrapping_add(128 * t.taps * t.quads);
    let mut w = t.weights;
    for run in 0..t.taps {
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
                    acc[i][v] = _mm256_dpbusd_avx_epi32(acc[i][v], codes, weights);
                }
            }
            w = w.wrapping_add(128);
        }
    }
    acc
}

/// Stages rows one after the other, 32 codes each.
///
/// # Safety
/// The contract of [`StageFn`](crate::micro::StageFn).
#[target_feature(enable = "avx2,fma,avxvnni")]
unsafe fn stage_codes<const SIGNED: bool>(s: &Stage<'_>) {
    for (block, &from) in s.sources.iter().enumerate() {
        for at in 0..s.count {
            let to = s.to.wrapping_add(block * s.block + 32 * at);
            // SAFETY: 32 bytes are readable in each column of a source, a block holds 32 bytes a column.
            unsafe { _mm256_storeu_si256(to.cast(), source::<1, SIGNED>([from], at * s.pitch)) };
        }
    }
}

/// # Safety
/// The contract of [`TileFn`], for `count` tiles that follow each other in each of `lines` lines.
#[target_feature(enable = "avx2,fma,avxvnni")]
unsafe fn grouped<const MR: usize, const VECTORS: usize, const STORE: Store>(t: &Tile<'_>) {
    for (line, tile) in lines(t).flat_map(|line| (0..line.count).map(move |tile| (line, tile))) {
        let rows = line.rows.wrapping_add(tile * line.taps * MR);
        let tile = &Tile { output: line.output.wrapping_add(tile * MR * line.stride), ..line };
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
#[target_feature(enable = "avx2,fma,avxvnni")]
unsafe fn codes<const MR: usize, const VECTORS: usize, const STORE: Store, const WEIGHTED: bool>(
    rows: *const *const u8,
    t: &Tile<'_>,
) -> [[__m256i; VECTORS]; MR] {
    let mut acc = [[_mm256_setzero_si256(); VECTORS]; MR];
    let mut w = t.weights;
    if !WEIGHTED {
        w = w.wrapping_add(32 * VECTORS * t.taps * t.quads);
    }
    for run in 0..t.taps {
        let mut x = [core::ptr::null::<u8>(); MR];
        for i in 0..MR {
            // SAFETY: the table holds runs × MR pointers.
            x[i] = unsafe { *rows.add(run * MR + i) }.wrapping_add(t.channel);
        }
        for row in 0..t.quads {
            for i in 0..MR {
                // SAFETY: a block holds 32 bytes a column, of which `channel` left out a multiple of 16.
                let codes = _mm256_broadcastsi128_si256(unsafe { _mm_loadu_si128(x[i].add(row * t.block).cast()) });
                for n in 0..VECTORS {
                    // SAFETY: the panel holds as many vectors for every run and row, then as many of ones.
                    let weights = unsafe { _mm256_loadu_si256(w.wrapping_add(32 * n).cast()) };
                    acc[i][n] = _mm256_dpbusd_avx_epi32(acc[i][n], codes, weights);
                }
            }
            if WEIGHTED {
                w = w.wrapping_add(32 * VECTORS);
            }
        }
    }
    acc
}

/// Adds the quads of each output and puts 16 outputs in order of channels. Vector n, lane l: output `VECTORS · l + n`
/// of the group that a dword belongs to.
#[inline]
#[target_feature(enable = "avx2,fma,avxvnni")]
fn in_order<const MR: usize, const VECTORS: usize>(acc: [[__m256i; VECTORS]; MR]) -> [[__m256i; 2]; MR] {
    let mut sums = [[_mm256_setzero_si256(); 2]; MR];
    for i in 0..MR {
        let n = |n: usize| acc[i][n % VECTORS];
        sums[i] = if VECTORS == 2 {
            let (low, high) = (_mm256_unpacklo_epi32(n(0), n(1)), _mm256_unpackhi_epi32(n(0), n(1)));
            [_mm256_permute4x64_epi64::<0b11_01_10_00>(low), _mm256_permute4x64_epi64::<0b11_01_10_00>(high)]
        } else {
            let a = _mm256_castsi256_ps(_mm256_hadd_epi32(n(0), n(1)));
            let b = _mm256_castsi256_ps(_mm256_hadd_epi32(n(2), n(3)));
            [_mm256_castps_si256(_mm256_shuffle_ps::<0x88>(a, b)), _mm256_castps_si256(_mm256_shuffle_ps::<0xdd>(a, b))]
        };
    }
    sums
}
