//! AVX-512-VNNI over weights of 4, 2 and 1 bits, which stay packed in memory: a byte holds the weights of several quads
//! of codes, taken apart in registers. What weighs less arrives sooner.

use super::avx512_vnni::{broadcast, load};
use super::epilogue512 as epilogue;
use super::{panels, prefetch, quad, rows};
use crate::IsaName;
use crate::element::Element;
use crate::epilogue::{ACCUMULATORS, CODES, REALS, Store, element_size};
use crate::micro::{Kind, Microkernel, Tile, TileFn};
use crate::pack::WeightFormat;
use core::arch::x86_64::*;

/// Register budget of the largest tile: 12 × 2 accumulators, 2 of packed weights, 2 of weights, table, mask and 1 of
/// activations: 31 of 32.
const ROWS: usize = 12;

pub(crate) const GEMM4: Microkernel = gemm_of::<4>("gemm4_avx512_vnni_12x32");
pub(crate) const GEMM2: Microkernel = gemm_of::<2>("gemm2_avx512_vnni_12x32");
pub(crate) const GEMM1: Microkernel = gemm_of::<1>("gemm1_avx512_vnni_12x32");

const fn gemm_of<const BITS: usize>(name: &'static str) -> Microkernel {
    Microkernel {
        name,
        isa: IsaName::Avx512Vnni,
        kind: Kind::Gemm,
        rows: ROWS,
        lanes: 16,
        vectors: 2,
        format: WeightFormat::Fields { bits: BITS },
        element: Element::Byte,
        widened: 0,
        tile: |rows, vectors, signed, store| {
            let table = match (vectors, signed) {
                (1, false) => table::<1, BITS, false>(store),
                (1, true) => table::<1, BITS, true>(store),
                (_, false) => table::<2, BITS, false>(store),
                (_, true) => table::<2, BITS, true>(store),
            };
            table[rows - 1]
        },
        more_stores: false,
        stage: None,
    }
}

fn table<const NV: usize, const BITS: usize, const SIGNED: bool>(store: Store) -> &'static [TileFn; ROWS] {
    const fn of<const NV: usize, const BITS: usize, const SIGNED: bool, const STORE: Store>() -> [TileFn; ROWS] {
        [
            gemm::<1, NV, 4, BITS, SIGNED, STORE>,
            gemm::<2, NV, 2, BITS, SIGNED, STORE>,
            gemm::<3, NV, 2, BITS, SIGNED, STORE>,
            gemm::<4, NV, 1, BITS, SIGNED, STORE>,
            gemm::<5, NV, 1, BITS, SIGNED, STORE>,
            gemm::<6, NV, 1, BITS, SIGNED, STORE>,
            gemm::<7, NV, 1, BITS, SIGNED, STORE>,
            gemm::<8, NV, 1, BITS, SIGNED, STORE>,
            gemm::<9, NV, 1, BITS, SIGNED, STORE>,
            gemm::<10, NV, 1, BITS, SIGNED, STORE>,
            gemm::<11, NV, 1, BITS, SIGNED, STORE>,
            gemm::<12, NV, 1, BITS, SIGNED, STORE>,
        ]
    }
    match store {
        CODES => const { &of::<NV, BITS, SIGNED, CODES>() },
        REALS => const { &of::<NV, BITS, SIGNED, REALS>() },
        _ => const { &of::<NV, BITS, SIGNED, ACCUMULATORS>() },
    }
}

/// The weight that each field stands for: in two's complement, or the sign of a binary one.
const fn weights_of(bits: usize) -> [i8; 16] {
    let mut table = [0; 16];
    let mut field = 0;
    while field < 1 << bits {
        table[field] = match bits {
            1 => 1 - 2 * field as i8,
            _ => ((field << (8 - bits)) as u8 as i8) >> (8 - bits),
        };
        field += 1;
    }
    table
}

/// The tiles of each panel.
///
/// # Safety
/// The contract of [`TileFn`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn gemm<
    const MR: usize,
    const NV: usize,
    const U: usize,
    const BITS: usize,
    const SIGNED: bool,
    const STORE: Store,
>(
    t: &Tile<'_>,
) {
    for panel in panels(t, 16 * NV, element_size(STORE)) {
        // SAFETY: passed on.
        unsafe { tiles::<MR, NV, U, BITS, SIGNED, STORE>(&panel) };
    }
}

/// A step takes the vectors of 8 / BITS quads from memory at once. U interleaved sums hide the latency of the dot
/// product.
///
/// # Safety
/// The contract of [`TileFn`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn tiles<
    const MR: usize,
    const NV: usize,
    const U: usize,
    const BITS: usize,
    const SIGNED: bool,
    const STORE: Store,
>(
    t: &Tile<'_>,
) {
    let quads = 8 / BITS;
    let weight_of = const { weights_of(BITS) };
    // SAFETY: 16 bytes.
    let table = _mm512_broadcast_i32x4(unsafe { _mm_loadu_si128(weight_of.as_ptr().cast()) });
    let mask = _mm512_set1_epi8((1 << BITS) - 1);
    // Eight quads of eight rows and one vector leave registers, which the compiler fills with the codes of quads to come
    // until it runs out of them.
    let unrolled = BITS > 1 || NV > 1 || MR < 8;
    let mut ahead = t.ahead;
    for top in (0..t.count).step_by(MR) {
        // SAFETY: a pointer a row, and initial values for all channels of the panel.
        let (x, initial): ([*const u8; MR], _) = unsafe { (rows(t, top), load::<NV>(t.initial.cast())) };
        let mut sums = [[[_mm512_setzero_si512(); NV]; MR]; U];
        sums[0] = [initial; MR];
        for run in t.runs {
            let mut w = t.weights.wrapping_add(64 * NV * run.weights);
            let mut at = run.codes.wrapping_add_unsigned(t.channel);
            let end = at + 4 * t.quads as isize;
            let step = 4 * quads.max(U) as isize;
            while unrolled && at + step <= end {
                for first in (0..quads.max(U)).step_by(quads) {
                    // SAFETY: the panel holds a vector for every `quads` quads of a run.
                    let mut packed = unsafe { load::<NV>(w) };
                    prefetch::<NV, 64>(ahead);
                    ahead = ahead.wrapping_add(t.ahead_step);
                    for q in first..first + quads {
                        let weights = take::<NV, BITS>(&mut packed, mask, table);
                        for i in 0..MR {
                            // SAFETY: `at + step <= end`.
                            let codes = broadcast::<SIGNED>(unsafe { quad(x[i], at + 4 * q as isize) });
                            for j in 0..NV {
                                sums[q % U][i][j] = _mm512_dpbusd_epi32(sums[q % U][i][j], codes, weights[j]);
                            }
                        }
                    }
                    w = w.wrapping_add(64 * NV);
                }
                at += step;
            }
            while at < end {
                // SAFETY: as above.
                let mut packed = unsafe { load::<NV>(w) };
                let last = end.min(at + 4 * quads as isize);
                while at < last {
                    let weights = take::<NV, BITS>(&mut packed, mask, table);
                    for i in 0..MR {
                        // SAFETY: `at < end`.
                        let codes = broadcast::<SIGNED>(unsafe { quad(x[i], at) });
                        for j in 0..NV {
                            sums[0][i][j] = _mm512_dpbusd_epi32(sums[0][i][j], codes, weights[j]);
                        }
                    }
                    at += 4;
                }
                w = w.wrapping_add(64 * NV);
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

/// The weights of one quad, and the fields after them moved down.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn take<const NV: usize, const BITS: usize>(
    packed: &mut [__m512i; NV],
    mask: __m512i,
    table: __m512i,
) -> [__m512i; NV] {
    let mut weights = [mask; NV];
    for j in 0..NV {
        weights[j] = _mm512_shuffle_epi8(table, _mm512_and_si512(packed[j], mask));
        // Bits that come from the neighbouring byte lie above the last field taken.
        packed[j] = _mm512_srl_epi16(packed[j], _mm_cvtsi32_si128(BITS as i32));
    }
    weights
}
