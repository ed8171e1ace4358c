//! AVX2 for weights that are proven not to saturate (`safe`): VPMADDUBSW multiplies u8 by i8 codes, 32 at a time, and adds
//! pairs of products in 16 bits.
//!
//! A step of four codes is VPMADDUBSW, VPMADDWD by ones and VPADDD: three instructions for 32 products instead of the four
//! of 16-bit multiplication. Where weights leave room for it, the results of up to eight steps are added in 16 bits first
//! (VPADDW), and the other two are needed once for all of them.
//!
//! Codes must be unsigned: signed ones are flipped where they are copied, because a XOR a quad in the loop would cost
//! 13 to 30 %.

use super::epilogue256 as epilogue;
use super::{load, panels, prefetch, quad, rows};
use crate::IsaName;
use crate::element::Element;
use crate::epilogue::{ACCUMULATORS, CODES, REALS, Store, element_size};
use crate::micro::{Kind, Microkernel, Tile, TileFn};
use crate::pack::WeightFormat;
use core::arch::x86_64::*;

/// Register budget of the largest tile: 6 × 2 sums, 2 of weights, 1 of codes, 1 of products: 16 of 16. That is one less
/// than with the ones of VPMADDWD: the second vector of weights is read again for each row, to where its products will be.
/// Of several steps, those are sums in 16 bits, and accumulators wait in memory until all are added.
const ROWS: usize = 6;
const _: () = assert!(ROWS * 2 + 4 <= 16);

/// Whether registers hold sums in 16 and in 32 bits beside each other.
const fn fits_twice(sums: usize) -> bool {
    2 * sums + 4 <= 16
}

/// Whether registers hold all weights beside the sums, codes, products and the ones of VPMADDWD.
const fn fits_with_ones(sums: usize) -> bool {
    sums + 5 <= 16
}

pub(crate) const GEMM1: Microkernel = kernel("gemm_avx2_maddubs_6x16", 1);
pub(crate) const GEMM2: Microkernel = kernel("gemm_avx2_maddubs2_6x16", 2);
pub(crate) const GEMM4: Microkernel = kernel("gemm_avx2_maddubs4_6x16", 4);
pub(crate) const GEMM8: Microkernel = kernel("gemm_avx2_maddubs8_6x16", 8);

/// For weights of which so many steps may be added in 16 bits.
const fn kernel(name: &'static str, steps: usize) -> Microkernel {
    Microkernel {
        name,
        isa: IsaName::Avx2,
        kind: Kind::Gemm,
        rows: ROWS,
        lanes: 8,
        vectors: 2,
        format: WeightFormat::SafeQuads { steps },
        element: Element::Unsigned,
        widened: 0,
        tile: if steps == 1 {
            |rows, vectors, _, store| table::<false>(vectors, store)[rows - 1]
        } else {
            |rows, vectors, _, store| table::<true>(vectors, store)[rows - 1]
        },
        more_stores: false,
        stage: None,
    }
}

fn table<const SEVERAL: bool>(vectors: usize, store: Store) -> &'static [TileFn; ROWS] {
    const fn of<const NV: usize, const SEVERAL: bool, const STORE: Store>() -> [TileFn; ROWS] {
        [
            gemm::<1, NV, SEVERAL, STORE>,
            gemm::<2, NV, SEVERAL, STORE>,
            gemm::<3, NV, SEVERAL, STORE>,
            gemm::<4, NV, SEVERAL, STORE>,
            gemm::<5, NV, SEVERAL, STORE>,
            gemm::<6, NV, SEVERAL, STORE>,
        ]
    }
    match (vectors, store) {
        (1, CODES) => const { &of::<1, SEVERAL, CODES>() },
        (1, REALS) => const { &of::<1, SEVERAL, REALS>() },
        (1, _) => const { &of::<1, SEVERAL, ACCUMULATORS>() },
        (_, CODES) => const { &of::<2, SEVERAL, CODES>() },
        (_, REALS) => const { &of::<2, SEVERAL, REALS>() },
        (_, _) => const { &of::<2, SEVERAL, ACCUMULATORS>() },
    }
}

/// The tiles of each panel.
///
/// # Safety
/// The contract of [`TileFn`].
#[target_feature(enable = "avx2,fma")]
unsafe fn gemm<const MR: usize, const NV: usize, const SEVERAL: bool, const STORE: Store>(t: &Tile<'_>) {
    for panel in panels(t, 8 * NV, element_size(STORE)) {
        // SAFETY: passed on.
        unsafe { tiles::<MR, NV, SEVERAL, STORE>(&panel) };
    }
}

/// Tiles of MR rows by NV vectors of channels, which add one step in 16 bits or (`SEVERAL`) as many as the tile says.
///
/// # Safety
/// The contract of [`TileFn`].
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn tiles<const MR: usize, const NV: usize, const SEVERAL: bool, const STORE: Store>(t: &Tile<'_>) {
    let ones = _mm256_set1_epi16(1);
    let mut ahead = t.ahead;
    for top in (0..t.count).step_by(MR) {
        // SAFETY: a pointer a row, and initial values for all channels of the panel.
        let (x, initial): ([*const u8; MR], _) = unsafe { (rows(t, top), load::<NV>(t.initial.cast())) };
        let mut acc = [initial; MR];
        for run in t.runs {
            let mut w = t.weights.wrapping_add(32 * NV * run.weights);
            let mut at = run.codes.wrapping_add_unsigned(t.channel);
            let end = at + 4 * t.quads as isize;
            while at < end {
                // SAFETY: the panel holds a quad a channel for every four codes of a run.
                let weights = unsafe { load::<NV>(w) };
                let mut sums = [[_mm256_setzero_si256(); NV]; MR];
                for i in 0..MR {
                    // SAFETY: `at < end`.
                    let codes = _mm256_set1_epi32(unsafe { quad(x[i], at) });
                    for j in 0..NV {
                        let weights = if !SEVERAL && j > 0 && !fits_with_ones(MR * NV) {
                            // SAFETY: as above; panels begin on cache lines. Volatile, so that it is read again.
                            unsafe { w.add(32 * j).cast::<__m256i>().read_volatile() }
                        } else {
                            weights[j]
                        };
                        let products = _mm256_maddubs_epi16(codes, weights);
                        if SEVERAL {
                            sums[i][j] = products;
                        } else {
                            acc[i][j] = _mm256_add_epi32(acc[i][j], _mm256_madd_epi16(products, ones));
                        }
                    }
                }
                prefetch::<NV, 32>(ahead);
                ahead = ahead.wrapping_add(t.ahead_step);
                w = w.wrapping_add(32 * NV);
                at += 4;
                if !SEVERAL {
                    continue;
                }
                let last = end.min(at + 4 * (t.steps as isize - 1));
                while at < last {
                    // SAFETY: as above.
                    let weights = unsafe { load::<NV>(w) };
                    for i in 0..MR {
                        // SAFETY: `at < end`.
                        let codes = _mm256_set1_epi32(unsafe { quad(x[i], at) });
                        for j in 0..NV {
                            sums[i][j] = _mm256_add_epi16(sums[i][j], _mm256_maddubs_epi16(codes, weights[j]));
                        }
                    }
                    prefetch::<NV, 32>(ahead);
                    ahead = ahead.wrapping_add(t.ahead_step);
                    w = w.wrapping_add(32 * NV);
                    at += 4;
                }
                for i in 0..MR {
                    for j in 0..NV {
                        let sum = _mm256_madd_epi16(sums[i][j], ones);
                        if fits_twice(MR * NV) {
                            acc[i][j] = _mm256_add_epi32(acc[i][j], sum);
                        } else {
                            let acc = &raw mut acc[i][j];
                            // SAFETY: an element. Volatile, so that sums in 16 bits stay in registers instead: 10 % of
                            // two steps.
                            unsafe { acc.write_volatile(_mm256_add_epi32(acc.read_volatile(), sum)) };
                        }
                    }
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
