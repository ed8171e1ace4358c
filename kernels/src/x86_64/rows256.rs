//! What the row kernels of AVX2 and AVX-VNNI share.

use super::epilogue256 as epilogue;
use crate::epilogue::{CODES, REALS, Store};
use crate::micro::Tile;
use core::arch::x86_64::*;

/// Signed codes as code + 128.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn unsigned<const SIGNED: bool>(codes: __m256i) -> __m256i {
    if SIGNED { _mm256_xor_si256(codes, _mm256_set1_epi8(-128)) } else { codes }
}

/// The codes of a staged column's row: 32 channels, or 16 of each of two segments.
///
/// # Safety
/// 32 / FOLD bytes are readable `at` bytes from each source.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn source<const FOLD: usize, const SIGNED: bool>(sources: [*const u8; FOLD], at: usize) -> __m256i {
    let y = |f: usize| sources[f % FOLD].wrapping_add(at);
    // SAFETY: by this function's contract.
    unsafe {
        unsigned::<SIGNED>(match FOLD {
            1 => _mm256_loadu_si256(y(0).cast()),
            _ => _mm256_inserti128_si256::<1>(
                _mm256_castsi128_si256(_mm_loadu_si128(y(0).cast())),
                _mm_loadu_si128(y(1).cast()),
            ),
        })
    }
}

/// Takes MR pixels of 32 channels, in the order of `depthwise_panels`, through the rule and stores them in order of
/// channels; or of two segments of 16 channels, each to its own place.
///
/// # Safety
/// The contract of [`TileFn`](crate::micro::TileFn), with `y` in place of the output.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn finish_segments<const MR: usize, const FOLD: usize, const STORE: Store>(
    mut acc: [[__m256i; 4]; MR],
    y: *mut u8,
    t: &Tile<'_>,
) {
    if STORE == CODES {
        // SAFETY: passed on.
        unsafe { epilogue::scale(&mut acc, t) };
    }
    // SAFETY: the instruction set is this function's.
    let ends = unsafe { epilogue::ends(t) };
    for i in 0..MR {
        let y = y.wrapping_add(i * t.stride);
        if STORE == CODES {
            // SAFETY: likewise.
            let codes = unsafe { epilogue::narrow(acc[i], ends) };
            let halves = [_mm256_castsi256_si128(codes), _mm256_extracti128_si256::<1>(codes)];
            // SAFETY: every segment's pixel is writable for `channels` channels.
            unsafe {
                match (FOLD, t.channels) {
                    (1, 32) => _mm256_storeu_si256(y.cast(), codes),
                    (1, n) => epilogue::store_first(y, n, codes),
                    (_, 16) => {
                        _mm_storeu_si128(y.cast(), halves[0]);
                        _mm_storeu_si128(y.wrapping_add(t.segment).cast(), halves[1]);
                    }
                    (_, n) => {
                        epilogue::store_first(y, n, codes);
                        epilogue::store_first(y.wrapping_add(t.segment), n, _mm256_castsi128_si256(halves[1]));
                    }
                }
            }
            continue;
        }
        for v in 0..4 {
            let mut words = acc[i][v];
            if STORE == REALS {
                // SAFETY: the epilogue's vectors reach over the panel.
                words = _mm256_castps_si256(unsafe { epilogue::real(words, t.first + 8 * v, t) });
            }
            // Dword d of lane l belongs to channel 16·l + 4·v + d of all segments.
            let lanes = [_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words)];
            for (l, dwords) in lanes.into_iter().enumerate() {
                let (f, channel) = if FOLD == 1 { (0, 16 * l + 4 * v) } else { (l, 4 * v) };
                let mask = _mm256_castsi256_si128(epilogue::lanes_below(t.channels, channel));
                let y = y.wrapping_add(f * t.segment + 4 * channel);
                // SAFETY: as above, four channels of 4 bytes.
                unsafe { _mm_maskstore_epi32(y.cast(), mask, dwords) };
            }
        }
    }
}
