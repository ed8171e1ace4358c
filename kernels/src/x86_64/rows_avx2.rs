//! Row kernels for AVX2: depthwise convolutions over staged columns.

use super::avx2::interleave;
use super::epilogue256 as epilogue;
use super::rows256::{finish_segments, source};
use crate::IsaName;
use crate::element::Element;
use crate::epilogue::{ACCUMULATORS, CODES, REALS, Store};
use crate::micro::{Kind, Microkernel, Stage, Tile, TileFn};
use crate::pack::WeightFormat;
use core::arch::x86_64::*;

/// 2 × 4 accumulators, 4 of weights, 1 of products: 13 of 16.
const ROWS: usize = 2;

pub(crate) const DEPTHWISE: Microkernel = Microkernel {
    name: "depthwise_rows_avx2_2x32",
    isa: IsaName::Avx2,
    kind: Kind::DepthwiseRows,
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

fn depthwise_for<const MR: usize, const FOLD: usize>(store: Store) -> TileFn {
    match store {
        CODES => depthwise::<MR, FOLD, CODES>,
        REALS => depthwise::<MR, FOLD, REALS>,
        _ => depthwise::<MR, FOLD, ACCUMULATORS>,
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
#[target_feature(enable = "avx2,fma")]
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
                    acc[i][v] = _mm256_add_epi32(acc[i][v], _mm256_madd_epi16(codes, weights));
                }
            }
            w = w.wrapping_add(128);
        }
    }
    acc
}
