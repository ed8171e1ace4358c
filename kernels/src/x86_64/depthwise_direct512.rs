//! Depthwise 3 × 3 kernels for AVX-512-VNNI that read pixels where they lie.
//!
//! A **column** is what three or four input rows hold at one place along the width: their codes of 64 channels, those
//! of a channel side by side in a dword. It is made of four loads and eight shuffles, stays in registers for as long as
//! a pixel reads it, and with stride 1 serves two output rows: the second multiplies it by weights that are one row
//! further down.
//!
//! ```text
//! for lines of the band, two at a time with stride 1
//!     for pixel
//!         columns of the last pixel move on, new ones are read
//!         for line: acc = initial + Σ columns · weights; rule; store
//! ```
//!
//! 12 vectors of columns, 4 accumulators, 4 constants of the rule: 20 of 32. Weights, initial values and multipliers
//! come from memory; two pixels at a time would share them, but do not fit.

use super::avx512_vnni::{interleave, load, unsigned};
use super::depthwise_rows512::{store_segments, store_words};
use super::epilogue512 as epilogue;
use crate::IsaName;
use crate::element::Element;
use crate::epilogue::{ACCUMULATORS, CODES, REALS, Store};
use crate::micro::{Kind, Microkernel, Tile, TileFn};
use crate::pack::WeightFormat;
use core::arch::x86_64::*;

/// Columns of a window.
const KERNEL: usize = 3;

pub(crate) const DEPTHWISE3: Microkernel = direct::<1>("depthwise_direct_avx512_vnni_3x3");
pub(crate) const DEPTHWISE3_STRIDE2: Microkernel = direct::<2>("depthwise_direct_avx512_vnni_3x3_stride2");

const fn direct<const STRIDE: usize>(name: &'static str) -> Microkernel {
    Microkernel {
        name,
        isa: IsaName::Avx512Vnni,
        kind: Kind::DepthwiseDirect { stride: STRIDE },
        rows: 1,
        lanes: 16,
        vectors: 4,
        format: WeightFormat::Quads,
        element: Element::Byte,
        widened: 0,
        tile: |_, vectors, signed, store| match (vectors, signed) {
            (4, false) => lines_for::<STRIDE, 1, false>(store),
            (4, true) => lines_for::<STRIDE, 1, true>(store),
            (2, false) => lines_for::<STRIDE, 2, false>(store),
            (2, true) => lines_for::<STRIDE, 2, true>(store),
            (_, false) => lines_for::<STRIDE, 4, false>(store),
            (_, true) => lines_for::<STRIDE, 4, true>(store),
        },
        more_stores: false,
        stage: None,
    }
}

fn lines_for<const STRIDE: usize, const FOLD: usize, const SIGNED: bool>(store: Store) -> TileFn {
    match store {
        CODES => lines::<STRIDE, FOLD, SIGNED, CODES>,
        REALS => lines::<STRIDE, FOLD, SIGNED, REALS>,
        _ => lines::<STRIDE, FOLD, SIGNED, ACCUMULATORS>,
    }
}

/// Output lines of 64 channels, or of FOLD segments of 64 / FOLD channels.
///
/// # Safety
/// The contract of [`TileFn`]; weight zero points are 0.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn lines<const STRIDE: usize, const FOLD: usize, const SIGNED: bool, const STORE: Store>(t: &Tile<'_>) {
    let (bias, full) = (STORE == CODES && !t.epilogue.bias.is_empty(), t.channels == 64 / FOLD);
    // SAFETY: passed on.
    unsafe {
        match (bias, full) {
            (false, true) => lines_of::<STRIDE, FOLD, SIGNED, STORE, false, true>(t),
            (false, false) => lines_of::<STRIDE, FOLD, SIGNED, STORE, false, false>(t),
            (true, _) => lines_of::<STRIDE, FOLD, SIGNED, STORE, true, false>(t),
        }
    }
}

/// `BIAS`: R6 adds a float. `FULL`: registers are, and need no masks, which take 6 to 9 % of the time. A function of its
/// own for each choice: all in one loop were 7 % slower.
///
/// # Safety
/// As [`lines`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn lines_of<
    const STRIDE: usize,
    const FOLD: usize,
    const SIGNED: bool,
    const STORE: Store,
    const BIAS: bool,
    const FULL: bool,
>(
    t: &Tile<'_>,
) {
    // Lines that share their columns.
    let each = 3 - STRIDE;
    for line in (0..t.lines).step_by(each) {
        let tile = Tile {
            rows: t.rows.wrapping_add(line / each * 4),
            output: t.output.wrapping_add(line * t.line_output),
            ..*t
        };
        // SAFETY: passed on.
        unsafe {
            if each == 2 && t.lines - line >= 2 {
                pixels::<STRIDE, 2, 4, FOLD, SIGNED, STORE, BIAS, FULL>(&tile);
            } else {
                pixels::<STRIDE, 1, 3, FOLD, SIGNED, STORE, BIAS, FULL>(&tile);
            }
        }
    }
}

/// The pixels of LINES output lines, which read ROWS input rows.
///
/// # Safety
/// As [`lines`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn pixels<
    const STRIDE: usize,
    const LINES: usize,
    const ROWS: usize,
    const FOLD: usize,
    const SIGNED: bool,
    const STORE: Store,
    const BIAS: bool,
    const FULL: bool,
>(
    t: &Tile<'_>,
) {
    // SAFETY: a pointer for every input row; the panel holds four vectors for every line and column; the epilogue's
    // vectors reach over the panel; every pixel is writable.
    unsafe {
        let rows: [*const u8; ROWS] = core::array::from_fn(|row| (*t.rows.add(row)).wrapping_add(t.channel));
        let ends = epilogue::ends(t);
        let mut multiplier = [_mm512_setzero_ps(); 4];
        if STORE == CODES {
            for v in 0..4 {
                multiplier[v] = _mm512_loadu_ps(t.epilogue.multiplier.as_ptr().add(t.first + 16 * v));
            }
        }
        let mut columns = [[_mm512_setzero_si512(); 4]; KERNEL];
        for (k, kept) in columns.iter_mut().enumerate().skip(STRIDE) {
            *kept = column::<STRIDE, ROWS, FOLD, SIGNED, FULL>(rows, k - STRIDE, t);
        }
        for x in 0..t.count {
            for k in 0..KERNEL {
                columns[k] = if k + STRIDE < KERNEL {
                    columns[k + STRIDE]
                } else {
                    column::<STRIDE, ROWS, FOLD, SIGNED, FULL>(rows, x * STRIDE + k, t)
                };
            }
            // Sums side by side: while one waits for its last product, the CPU has others at hand.
            let mut acc = [load::<4>(t.initial.cast()); LINES];
            for k in 0..KERNEL {
                for line in 0..LINES {
                    for v in 0..4 {
                        let weights = t.weights.add(line * LINE_WEIGHTS + (k * 4 + v) * 64);
                        let weights = _mm512_loadu_si512(weights.cast());
                        acc[line][v] = _mm512_dpbusd_epi32(acc[line][v], columns[k][v], weights);
                    }
                }
            }
            for line in 0..LINES {
                let y = t.output.wrapping_add(line * t.line_output + x * t.stride);
                if STORE == CODES {
                    for v in 0..4 {
                        acc[line][v] = epilogue::scale::<BIAS>(acc[line][v], multiplier[v], t.first + 16 * v, t);
                    }
                    store_segments::<FOLD, FULL>(epilogue::narrow(acc[line], ends), y, t);
                } else {
                    store_words::<1, FOLD, STORE>([acc[line]], y, t);
                }
            }
        }
    }
}

/// Bytes of the weights of a line: four vectors a column and, not used here, one of ones.
const LINE_WEIGHTS: usize = KERNEL * (4 + 1) * 64;

/// Column `k` of the padded input in ROWS rows, of all segments.
///
/// # Safety
/// As [`lines`]: columns inside the image are readable for the tile's channels.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn column<const STRIDE: usize, const ROWS: usize, const FOLD: usize, const SIGNED: bool, const FULL: bool>(
    rows: [*const u8; ROWS],
    k: usize,
    t: &Tile<'_>,
) -> [__m512i; 4] {
    let c = &t.columns;
    let mask = if FULL { u64::MAX } else { epilogue::below(t.channels) };
    // Columns before the image are beyond its end, too: they wrap around.
    let at: [usize; FOLD] = core::array::from_fn(|f| c.first.wrapping_add(k + f * c.distance * STRIDE));
    let mut x = [_mm512_setzero_si512(); 4];
    // SAFETY: by this function's contract; the padding is readable for a register.
    unsafe {
        if at.iter().all(|&at| at < c.inside) {
            for i in 0..ROWS {
                x[i] = segments::<FOLD, FULL>(core::array::from_fn(|f| rows[i].wrapping_add(at[f] * c.pitch)), mask);
            }
        } else {
            for i in 0..ROWS {
                let from = |f: usize| if at[f] < c.inside { rows[i].wrapping_add(at[f] * c.pitch) } else { c.padding };
                x[i] = segments::<FOLD, FULL>(core::array::from_fn(from), mask);
            }
        }
    }
    // The last of three rows meets weights of 0 the second time.
    x[3] = x[ROWS - 1];
    for i in 0..4 {
        x[i] = unsigned::<SIGNED>(x[i]);
    }
    interleave(x)
}

/// The codes of FOLD segments side by side, as many of each as the mask has.
///
/// # Safety
/// They are readable.
#[inline(always)]
unsafe fn segments<const FOLD: usize, const FULL: bool>(from: [*const u8; FOLD], mask: u64) -> __m512i {
    // SAFETY: by this function's contract; the instruction set is the caller's.
    unsafe {
        let half = |f: usize| {
            let from = from[f % FOLD].cast();
            if FULL { _mm256_loadu_si256(from) } else { _mm256_maskz_loadu_epi8(mask as u32, from.cast()) }
        };
        let lane = |f: usize| {
            let from = from[f % FOLD].cast();
            if FULL { _mm_loadu_si128(from) } else { _mm_maskz_loadu_epi8(mask as u16, from.cast()) }
        };
        match FOLD {
            1 if FULL => _mm512_loadu_si512(from[0].cast()),
            1 => _mm512_maskz_loadu_epi8(mask, from[0].cast()),
            2 => _mm512_inserti64x4::<1>(_mm512_castsi256_si512(half(0)), half(1)),
            _ => {
                let low = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(lane(0)), lane(1));
                let high = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(lane(2)), lane(3));
                _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
            }
        }
    }
}
