//! Matrix products with few output channels for AVX-512-VNNI.
//!
//! A register of 16 channels is mostly empty where a layer has 10, or one. Here it holds 64 codes of one row, or one
//! channel's weights for them, and an accumulator 16 parts of one sum, which are added up at the end:
//!
//! ```text
//! for 6 rows, 4 channels
//!     for k in steps of 64
//!         acc[row][channel] += x[row][k..k + 64] · weights[channel][k..k + 64]
//!     sum the 16 lanes of each acc
//! ```

use super::avx512_vnni::{load, unsigned};
use super::epilogue512 as epilogue;
use super::{panels, rows};
use crate::IsaName;
use crate::element::Element;
use crate::epilogue::{ACCUMULATORS, CODES, REALS, Store, element_size};
use crate::micro::{Kind, Microkernel, Tile, TileFn};
use crate::pack::{CHANNELS, LONG, WeightFormat};
use core::arch::x86_64::*;
use core::ops::Range;

/// Register budget: 6 × 4 accumulators, 4 of weights, 1 of codes: 29 of 32.
const ROWS: usize = 6;
const _: () = assert!(ROWS * CHANNELS + CHANNELS < 32);
/// Channels of a panel: their sums fill a register.
const LANES: usize = 16;
/// Codes of a run that all channels pass by before the next: those of a tile's rows stay in the L1 cache.
const PIECE: usize = 4096;

pub(crate) const GEMM: Microkernel = Microkernel {
    name: "dot_avx512_vnni_6x4",
    isa: IsaName::Avx512Vnni,
    kind: Kind::Gemm,
    rows: ROWS,
    lanes: LANES,
    vectors: 1,
    format: WeightFormat::Long,
    element: Element::Byte,
    widened: 0,
    tile: |rows, _, signed, store| {
        if signed { table::<true>(store)[rows - 1] } else { table::<false>(store)[rows - 1] }
    },
    more_stores: false,
    stage: None,
};

fn table<const SIGNED: bool>(store: Store) -> &'static [TileFn; ROWS] {
    const fn of<const SIGNED: bool, const STORE: Store>() -> [TileFn; ROWS] {
        [
            tiles::<1, SIGNED, STORE>,
            tiles::<2, SIGNED, STORE>,
            tiles::<3, SIGNED, STORE>,
            tiles::<4, SIGNED, STORE>,
            tiles::<5, SIGNED, STORE>,
            tiles::<6, SIGNED, STORE>,
        ]
    }
    match store {
        CODES => const { &of::<SIGNED, CODES>() },
        REALS => const { &of::<SIGNED, REALS>() },
        _ => const { &of::<SIGNED, ACCUMULATORS>() },
    }
}

/// Tiles of MR rows by the channels of a panel.
///
/// # Safety
/// The contract of [`TileFn`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn tiles<const MR: usize, const SIGNED: bool, const STORE: Store>(t: &Tile<'_>) {
    for panel in panels(t, LANES, element_size(STORE)) {
        for top in (0..t.count).step_by(MR) {
            // SAFETY: passed on.
            unsafe {
                let mut acc =
                    if MR == 1 { [[row::<SIGNED>(top, &panel)]; MR] } else { sums::<MR, SIGNED>(top, &panel) };
                epilogue::start::<MR, 1>(&mut acc, &panel);
                epilogue::subtract_row_sums::<MR, 1>(&mut acc, top, &panel);
                epilogue::finish_rows::<MR, 1, STORE>(acc, top, &panel);
            }
        }
    }
}

/// Sums of MR rows, in order of channels.
///
/// # Safety
/// The contract of [`TileFn`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn sums<const MR: usize, const SIGNED: bool>(top: usize, t: &Tile<'_>) -> [[__m512i; 1]; MR] {
    let mut parts = [[_mm512_setzero_si512(); 2]; LANES / CHANNELS];
    for from in (0..4 * t.quads).step_by(PIECE) {
        let piece = from..(from + PIECE).min(4 * t.quads);
        for (part, first) in parts.iter_mut().zip((0..t.channels).step_by(CHANNELS)) {
            // SAFETY: passed on; the channels of a panel are so many.
            unsafe {
                match t.channels - first {
                    1 => add::<MR, 1, SIGNED>(part, top, first, &piece, t),
                    2 => add::<MR, 2, SIGNED>(part, top, first, &piece, t),
                    3 => add::<MR, 3, SIGNED>(part, top, first, &piece, t),
                    _ => add::<MR, CHANNELS, SIGNED>(part, top, first, &piece, t),
                }
            }
        }
    }
    // Lane i of each part is of row i.
    let even = |a, b| _mm512_shuffle_i32x4::<0x88>(a, b);
    let odd = |a, b| _mm512_shuffle_i32x4::<0xdd>(a, b);
    let mut rows = [[_mm512_setzero_si512(); 1]; MR];
    for first in (0..MR).step_by(4) {
        let [a, b, c, d] = parts.map(|part| part[first / 4]);
        let (ab02, cd02, ab13, cd13) = (even(a, b), even(c, d), odd(a, b), odd(c, d));
        let four = [even(ab02, cd02), even(ab13, cd13), odd(ab02, cd02), odd(ab13, cd13)];
        for (row, sums) in rows[first..].iter_mut().zip(four) {
            *row = [sums];
        }
    }
    rows
}

/// Adds to the sums of MR rows from `top` on and C channels of the panel from `first` on those of a `piece` of every run.
///
/// # Safety
/// The contract of [`TileFn`], for these rows; `first + 4` ≤ 16.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn add<const MR: usize, const C: usize, const SIGNED: bool>(
    part: &mut [__m512i; 2],
    top: usize,
    first: usize,
    piece: &Range<usize>,
    t: &Tile<'_>,
) {
    let mut acc = [[_mm512_setzero_si512(); C]; MR];
    let codes = (4 * t.quads).next_multiple_of(LONG);
    for run in t.runs {
        // SAFETY: a pointer a row.
        let x: [*const u8; MR] = unsafe { rows(t, top) };
        let mut at = run.codes.wrapping_add_unsigned(t.channel + piece.start);
        let end = at + piece.len() as isize;
        let mut w = t.weights.wrapping_add(LONG * LANES * run.weights + first * codes + piece.start * CHANNELS);
        while at + LONG as isize <= end {
            // SAFETY: the panel holds 64 weights a channel for every 64 codes of a run.
            unsafe {
                let weights = load::<C>(w);
                for i in 0..MR {
                    let codes = unsigned::<SIGNED>(_mm512_loadu_si512(x[i].wrapping_offset(at).cast()));
                    for c in 0..C {
                        acc[i][c] = _mm512_dpbusd_epi32(acc[i][c], codes, weights[c]);
                    }
                }
            }
            w = w.wrapping_add(LONG * CHANNELS);
            at += LONG as isize;
        }
        if at < end {
            let mask = epilogue::below((end - at) as usize);
            // SAFETY: as above, with zeros for what the run lacks of 64 codes.
            unsafe {
                let weights = load::<C>(w);
                for i in 0..MR {
                    let codes = _mm512_maskz_loadu_epi8(mask, x[i].wrapping_offset(at).cast());
                    let codes = unsigned::<SIGNED>(codes);
                    for c in 0..C {
                        acc[i][c] = _mm512_dpbusd_epi32(acc[i][c], codes, weights[c]);
                    }
                }
            }
        }
    }
    for first in (0..MR).step_by(4) {
        part[first / 4] = _mm512_add_epi32(part[first / 4], sum_lanes(&acc, first));
    }
}

/// Sums of one row, in order of channels: 16 at a time, which read its codes once.
///
/// # Safety
/// The contract of [`TileFn`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn row<const SIGNED: bool>(top: usize, t: &Tile<'_>) -> __m512i {
    // SAFETY: passed on.
    unsafe {
        match t.channels.div_ceil(CHANNELS) {
            1 => channels::<1, SIGNED>(top, t),
            2 => channels::<2, SIGNED>(top, t),
            3 => channels::<3, SIGNED>(top, t),
            _ => channels::<4, SIGNED>(top, t),
        }
    }
}

/// # Safety
/// As [`row`]; there are 4 · N channels.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn channels<const N: usize, const SIGNED: bool>(top: usize, t: &Tile<'_>) -> __m512i {
    let mut acc = [[_mm512_setzero_si512(); CHANNELS]; N];
    let stride = CHANNELS * (4 * t.quads).next_multiple_of(LONG);
    for run in t.runs {
        // SAFETY: a row.
        let [x] = unsafe { rows(t, top) };
        let mut w = t.weights.wrapping_add(LONG * LANES * run.weights);
        let (mut at, mut left) = (run.codes.wrapping_add_unsigned(t.channel), 4 * t.quads);
        while left > 0 {
            let mask = epilogue::below(left.min(LONG));
            // SAFETY: so many codes are readable; the panel holds 64 weights of 16 channels for them.
            unsafe {
                let codes = unsigned::<SIGNED>(_mm512_maskz_loadu_epi8(mask, x.wrapping_offset(at).cast()));
                for n in 0..N {
                    let weights = load::<CHANNELS>(w.wrapping_add(n * stride));
                    for c in 0..CHANNELS {
                        acc[n][c] = _mm512_dpbusd_epi32(acc[n][c], codes, weights[c]);
                    }
                }
            }
            w = w.wrapping_add(LONG * CHANNELS);
            at += LONG as isize;
            left = left.saturating_sub(LONG);
        }
    }
    sum_lanes(&acc, 0)
}

/// The sums of the lanes of each accumulator, of four rows from `first` on: of acc[first + i][c] in dword c of 128-bit
/// lane i.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn sum_lanes<const N: usize, const C: usize>(acc: &[[__m512i; C]; N], first: usize) -> __m512i {
    let mut sums = [_mm512_setzero_si512(); 4];
    for i in 0..4.min(N - first) {
        let mut v = [_mm512_setzero_si512(); CHANNELS];
        v[..C].copy_from_slice(&acc[first + i]);
        // Dwords 0 and 2, then 1 and 3, of a and b in turn; then of all four.
        let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
        let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
        sums[i] = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    }
    let neighbours = |a, b| {
        let (even, odd) = (_mm512_shuffle_i32x4::<0x88>(a, b), _mm512_shuffle_i32x4::<0xdd>(a, b));
        _mm512_add_epi32(even, odd)
    };
    neighbours(neighbours(sums[0], sums[1]), neighbours(sums[2], sums[3]))
}
