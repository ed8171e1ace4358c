//! What happens to accumulators in 256-bit registers: 8 int32 lanes.
//!
//! R6 in vectors: CVTPS2DQ is R1's `cvt`; narrowing to 16 bits with saturation, adding zero point − smallest code with
//! saturation and narrowing to unsigned bytes with saturation is the sum, counted from the smallest code and clamped to
//! 0..=255, because |zero point − smallest code| ≤ 255. Adding with saturation what the largest code lacks to 255 clamps to
//! that code, too; a subtraction of bytes, modulo 256, leaves the code, signed or not.
//!
//! These functions are inlined into tile functions, always, and have their instruction set from there: accumulators
//! that are passed to a function go through memory.

use crate::epilogue::{ACCUMULATORS, CODES, REALS, Store};
use crate::micro::Tile;
use core::arch::x86_64::*;

/// Adds the initial values of the channels.
///
/// # Safety
/// The contract of [`TileFn`](crate::micro::TileFn).
#[inline(always)]
pub(super) unsafe fn start<const MR: usize, const NV: usize>(acc: &mut [[__m256i; NV]; MR], t: &Tile<'_>) {
    // SAFETY: by this function's contract.
    unsafe {
        for j in 0..NV {
            let initial = _mm256_loadu_si256(t.initial.add(8 * j).cast());
            for i in 0..MR {
                acc[i][j] = _mm256_add_epi32(acc[i][j], initial);
            }
        }
    }
}

/// Subtracts z_W · Σ x where weight zero points are not 0, with one sum a row.
///
/// # Safety
/// The contract of [`TileFn`](crate::micro::TileFn).
#[inline(always)]
pub(super) unsafe fn subtract_row_sums<const MR: usize, const NV: usize>(
    acc: &mut [[__m256i; NV]; MR],
    top: usize,
    t: &Tile<'_>,
) {
    // SAFETY: by this function's contract.
    unsafe {
        if t.epilogue.weight_zero_point.is_empty() {
            return;
        }
        let mut sums = [[_mm256_setzero_si256(); NV]; MR];
        for i in 0..MR {
            sums[i] = [_mm256_set1_epi32(*t.row_sums.add(top + i)); NV];
        }
        subtract_channel_sums(acc, sums, t)
    }
}

/// Subtracts z_W · Σ x, with a sum for every row and channel.
///
/// # Safety
/// The contract of [`TileFn`](crate::micro::TileFn), and weight zero points are present.
#[inline(always)]
pub(super) unsafe fn subtract_channel_sums<const MR: usize, const NV: usize>(
    acc: &mut [[__m256i; NV]; MR],
    sums: [[__m256i; NV]; MR],
    t: &Tile<'_>,
) {
    // SAFETY: by this function's contract.
    unsafe {
        for j in 0..NV {
            let zero = _mm256_loadu_si256(t.epilogue.weight_zero_point.as_ptr().add(t.first + 8 * j).cast());
            for i in 0..MR {
                acc[i][j] = _mm256_sub_epi32(acc[i][j], _mm256_mullo_epi32(sums[i][j], zero));
            }
        }
    }
}

/// R6 up to and including `cvt`.
///
/// # Safety
/// The contract of [`TileFn`](crate::micro::TileFn).
#[inline(always)]
pub(super) unsafe fn scale<const MR: usize, const NV: usize>(acc: &mut [[__m256i; NV]; MR], t: &Tile<'_>) {
    // SAFETY: by this function's contract.
    unsafe {
        let e = t.epilogue;
        for j in 0..NV {
            let at = t.first + 8 * j;
            let multiplier = _mm256_loadu_ps(e.multiplier.as_ptr().add(at));
            if e.bias.is_empty() {
                for i in 0..MR {
                    let v = _mm256_cvtepi32_ps(acc[i][j]);
                    acc[i][j] = _mm256_cvtps_epi32(_mm256_mul_ps(v, multiplier));
                }
            } else {
                let (bias, reciprocal) =
                    (_mm256_loadu_ps(e.bias.as_ptr().add(at)), _mm256_loadu_ps(e.reciprocal.as_ptr().add(at)));
                for i in 0..MR {
                    let v = _mm256_fmadd_ps(bias, reciprocal, _mm256_cvtepi32_ps(acc[i][j]));
                    acc[i][j] = _mm256_cvtps_epi32(_mm256_mul_ps(v, multiplier));
                }
            }
        }
    }
}

/// The constants of R6's end, in registers before anything is stored: the compiler must take a store of bytes for one
/// into [`Epilogue`](crate::epilogue::Epilogue).
#[derive(Clone, Copy)]
pub(super) struct Ends {
    zero_point: __m256i,
    headroom: __m256i,
    excess: __m256i,
}

#[inline(always)]
pub(super) unsafe fn ends(t: &Tile<'_>) -> Ends {
    let e = t.epilogue;
    // SAFETY: the caller's instruction set.
    unsafe {
        Ends {
            zero_point: _mm256_set1_epi16(e.zero_point),
            headroom: _mm256_set1_epi8(e.headroom as i8),
            excess: _mm256_set1_epi8(e.excess as i8),
        }
    }
}

/// The rest of R6 for four vectors: 32 bytes, of which 128-bit lane l holds four codes of each vector's lane l.
#[inline(always)]
pub(super) unsafe fn narrow(v: [__m256i; 4], ends: Ends) -> __m256i {
    // SAFETY: the caller's instruction set.
    unsafe {
        let low = _mm256_adds_epi16(_mm256_packs_epi32(v[0], v[1]), ends.zero_point);
        let high = _mm256_adds_epi16(_mm256_packs_epi32(v[2], v[3]), ends.zero_point);
        let codes = _mm256_packus_epi16(low, high);
        _mm256_sub_epi8(_mm256_adds_epu8(codes, ends.headroom), ends.excess)
    }
}

/// R9 for one vector of channels that starts `at` in the epilogue's vectors.
///
/// # Safety
/// The epilogue's vectors reach 8 elements beyond `at`.
#[inline(always)]
pub(super) unsafe fn real(acc: __m256i, at: usize, t: &Tile<'_>) -> __m256 {
    // SAFETY: by this function's contract.
    unsafe {
        let e = t.epilogue;
        let v = _mm256_cvtepi32_ps(acc);
        let scale = _mm256_loadu_ps(e.multiplier.as_ptr().add(at));
        let mut y = if e.bias.is_empty() {
            _mm256_mul_ps(v, scale)
        } else {
            let bias = _mm256_loadu_ps(e.bias.as_ptr().add(at));
            if e.fused { _mm256_fmadd_ps(v, scale, bias) } else { _mm256_add_ps(_mm256_mul_ps(v, scale), bias) }
        };
        if e.relu {
            // The second operand where the first is NaN.
            y = _mm256_max_ps(y, _mm256_setzero_ps());
        }
        y
    }
}

/// A mask of the lanes whose channel, counted from `channel`, is below `channels`.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn lanes_below(channels: usize, channel: usize) -> __m256i {
    let left = channels as i32 - channel as i32;
    _mm256_cmpgt_epi32(_mm256_set1_epi32(left), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
}

/// Stores the first `n` ≤ 32 bytes of a vector: the powers of two that `n` is made of, which a branch predictor learns.
///
/// # Safety
/// `n` bytes are writable at `y`.
#[inline(always)]
pub(super) unsafe fn store_first(mut y: *mut u8, n: usize, vector: __m256i) {
    // SAFETY: by this function's contract: the stores are `n` bytes together.
    unsafe {
        if n == 32 {
            return _mm256_storeu_si256(y.cast(), vector);
        }
        let mut rest = _mm256_castsi256_si128(vector);
        if n & 16 != 0 {
            _mm_storeu_si128(y.cast(), rest);
            (y, rest) = (y.add(16), _mm256_extracti128_si256::<1>(vector));
        }
        if n & 8 != 0 {
            _mm_storel_epi64(y.cast(), rest);
            (y, rest) = (y.add(8), _mm_srli_si128::<8>(rest));
        }
        if n & 4 != 0 {
            _mm_storeu_si32(y, rest);
            (y, rest) = (y.add(4), _mm_srli_si128::<4>(rest));
        }
        if n & 2 != 0 {
            _mm_storeu_si16(y, rest);
            (y, rest) = (y.add(2), _mm_srli_si128::<2>(rest));
        }
        if n & 1 != 0 {
            y.write(_mm_extract_epi8::<0>(rest) as u8);
        }
    }
}

/// Takes a tile's accumulators, rows of NV vectors in order of channels, through the rule and stores them.
///
/// # Safety
/// The contract of [`TileFn`](crate::micro::TileFn).
#[inline(always)]
pub(super) unsafe fn finish_rows<const MR: usize, const NV: usize, const STORE: Store>(
    mut acc: [[__m256i; NV]; MR],
    top: usize,
    t: &Tile<'_>,
) {
    // SAFETY: by this function's contract.
    unsafe {
        if STORE == CODES {
            let ends = {
                scale(&mut acc, t);
                ends(t)
            };
            // Lane l of `narrow` to the front: vectors then follow each other, 8 bytes each.
            let by_vector = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
            let rows = 4 / NV;
            let mut y = t.output.wrapping_add(top * t.stride);
            for first in (0..MR).step_by(rows) {
                let mut v = [_mm256_setzero_si256(); 4];
                for i in 0..4 {
                    v[i] = acc[(first + i / NV).min(MR - 1)][i % NV];
                }
                let codes = _mm256_permutevar8x32_epi32(narrow(v, ends), by_vector);
                for row in first..(first + rows).min(MR) {
                    let half = if (row - first) * NV < 2 {
                        _mm256_castsi256_si128(codes)
                    } else {
                        _mm256_extracti128_si256::<1>(codes)
                    };
                    let half = if NV == 1 && row % 2 == 1 { _mm_unpackhi_epi64(half, half) } else { half };
                    match (NV, t.channels) {
                        (4, n) => store_first(y, n, codes),
                        (2, 16) => _mm_storeu_si128(y.cast(), half),
                        (1, 8) => _mm_storel_epi64(y.cast(), half),
                        (_, n) => store_first(y, n, _mm256_castsi128_si256(half)),
                    }
                    y = y.wrapping_add(t.stride);
                }
            }
            return;
        }
        if STORE == ACCUMULATORS && !t.places.is_null() {
            return add_rows(acc, top, t);
        }
        for i in 0..MR {
            for j in 0..NV {
                let y = t.output.wrapping_add((top + i) * t.stride + 32 * j);
                {
                    let words = if STORE == REALS {
                        _mm256_castps_si256(real(acc[i][j], t.first + 8 * j, t))
                    } else {
                        acc[i][j]
                    };
                    _mm256_maskstore_epi32(y.cast(), lanes_below(t.channels, 8 * j), words);
                }
            }
        }
    }
}

/// Adds a tile's accumulators to the sums in their places.
///
/// # Safety
/// The contract of [`TileFn`](crate::micro::TileFn), and there are places.
#[inline(always)]
unsafe fn add_rows<const MR: usize, const NV: usize>(acc: [[__m256i; NV]; MR], top: usize, t: &Tile<'_>) {
    for i in 0..MR {
        // SAFETY: by this function's contract.
        unsafe {
            let sums = t.output.add(*t.places.add(top + i) as usize * t.stride);
            for j in 0..NV {
                let sums = sums.add(32 * j).cast();
                _mm256_storeu_si256(sums, _mm256_add_epi32(_mm256_loadu_si256(sums), acc[i][j]));
            }
        }
    }
}

/// Takes a block of 32 channels of one row, in the order of `depthwise_panels`, through the rule and stores it in order
/// of channels.
///
/// # Safety
/// The contract of [`TileFn`](crate::micro::TileFn).
#[inline(always)]
pub(super) unsafe fn finish_block<const STORE: Store>(mut acc: [[__m256i; 4]; 1], row: usize, t: &Tile<'_>) {
    // SAFETY: by this function's contract.
    unsafe {
        if STORE == CODES {
            scale(&mut acc, t);
        }
        let [acc] = acc;
        let y = t.output.wrapping_add(row * t.stride);
        if STORE == CODES {
            let codes = narrow(acc, ends(t));
            return store_first(y, t.channels, codes);
        }
        for v in 0..4 {
            let words = if STORE == REALS { _mm256_castps_si256(real(acc[v], t.first + 8 * v, t)) } else { acc[v] };
            // Dword d of lane l belongs to channel 16·l + 4·v + d.
            let lanes = [_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words)];
            for (lane, dwords) in lanes.into_iter().enumerate() {
                let channel = 16 * lane + 4 * v;
                let mask = _mm256_castsi256_si128(lanes_below(t.channels, channel));
                _mm_maskstore_epi32(y.wrapping_add(4 * channel).cast(), mask, dwords);
            }
        }
    }
}
