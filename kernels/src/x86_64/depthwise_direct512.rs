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

use super::avx512_vnni::{interleave, join, load, pairs, unsigned};
use super::depthwise_rows512::{store_segments, store_words};
use super::epilogue512 as epilogue;
use crate::IsaName;
use crate::element::Element;
use crate::epilogue::{ACCUMULATORS, CODES, REALS, Store};
use crate::micro::{Kind, Microkernel, Tile, TileFn};
use crate::pack::WeightFormat;
use core::arch::x86_64::*;

pub(crate) const DEPTHWISE3: Microkernel = direct::<3, 1>("depthwise_direct_avx512_vnni_3x3");
pub(crate) const DEPTHWISE3_STRIDE2: Microkernel = direct::<3, 2>("depthwise_direct_avx512_vnni_3x3_stride2");
pub(crate) const DEPTHWISE5: Microkernel = direct::<5, 1>("depthwise_direct_avx512_vnni_5x5");
pub(crate) const DEPTHWISE5_STRIDE2: Microkernel = direct::<5, 2>("depthwise_direct_avx512_vnni_5x5_stride2");

const fn direct<const KERNEL: usize, const STRIDE: usize>(name: &'static str) -> Microkernel {
    Microkernel {
        name,
        isa: IsaName::Avx512Vnni,
        kind: Kind::DepthwiseDirect { kernel: KERNEL, stride: STRIDE },
        rows: 1,
        lanes: 16,
        vectors: 4,
        format: WeightFormat::Quads,
        element: Element::Byte,
        widened: 0,
        tile: |_, vectors, signed, store| match (vectors, signed) {
            (4, false) => lines_for::<KERNEL, STRIDE, 1, false>(store),
            (4, true) => lines_for::<KERNEL, STRIDE, 1, true>(store),
            (2, false) => lines_for::<KERNEL, STRIDE, 2, false>(store),
            (2, true) => lines_for::<KERNEL, STRIDE, 2, true>(store),
            (_, false) => lines_for::<KERNEL, STRIDE, 4, false>(store),
            (_, true) => lines_for::<KERNEL, STRIDE, 4, true>(store),
        },
        more_stores: false,
        stage: None,
    }
}

fn lines_for<const KERNEL: usize, const STRIDE: usize, const FOLD: usize, const SIGNED: bool>(store: Store) -> TileFn {
    match store {
        CODES => lines::<KERNEL, STRIDE, FOLD, SIGNED, CODES>,
        REALS => lines::<KERNEL, STRIDE, FOLD, SIGNED, REALS>,
        _ => lines::<KERNEL, STRIDE, FOLD, SIGNED, ACCUMULATORS>,
    }
}

/// Output lines of 64 channels, or of FOLD segments of 64 / FOLD channels.
///
/// # Safety
/// The contract of [`TileFn`]; weight zero points are 0.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn lines<const KERNEL: usize, const STRIDE: usize, const FOLD: usize, const SIGNED: bool, const STORE: Store>(
    t: &Tile<'_>,
) {
    let (bias, full) = (STORE == CODES && !t.epilogue.bias.is_empty(), t.channels == 64 / FOLD);
    // SAFETY: passed on.
    unsafe {
        match (bias, full) {
            (false, true) => lines_of::<KERNEL, STRIDE, FOLD, SIGNED, STORE, false, true>(t),
            (false, false) => lines_of::<KERNEL, STRIDE, FOLD, SIGNED, STORE, false, false>(t),
            (true, _) => lines_of::<KERNEL, STRIDE, FOLD, SIGNED, STORE, true, false>(t),
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
    const KERNEL: usize,
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
    let each = if KERNEL == 3 { 3 - STRIDE } else { 1 };
    for line in (0..t.lines).step_by(each) {
        let tile = Tile {
            rows: t.rows.wrapping_add(line * STRIDE),
            output: t.output.wrapping_add(line * t.line_output),
            ..*t
        };
        // SAFETY: passed on.
        unsafe {
            match KERNEL {
                5 => pixels5::<STRIDE, FOLD, SIGNED, STORE, BIAS, FULL>(&tile),
                _ if each == 2 && t.lines - line >= 2 => {
                    pixels3::<STRIDE, 2, 4, FOLD, SIGNED, STORE, BIAS, FULL>(&tile)
                }
                _ => pixels3::<STRIDE, 1, 3, FOLD, SIGNED, STORE, BIAS, FULL>(&tile),
            }
        }
    }
}

/// The pixels of LINES output lines of 3 × 3, which read ROWS input rows.
///
/// # Safety
/// As [`lines`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn pixels3<
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
    // SAFETY: a pointer for every input row; the panel holds four vectors for every product; the epilogue's vectors
    // reach over the panel; every pixel is writable.
    unsafe {
        let rows: [*const u8; ROWS] = core::array::from_fn(|row| *t.rows.add(row));
        let rule = Rule::of::<STORE>(t);
        let column = |k: usize| {
            let x = codes::<STRIDE, ROWS, FOLD, SIGNED, FULL>(rows, [k; ROWS], t);
            // The last of three rows meets weights of 0 the second time.
            interleave([x[0], x[1], x[2], x[ROWS - 1]])
        };
        let mut columns = [[_mm512_setzero_si512(); 4]; 3];
        for k in STRIDE..3 {
            columns[k] = column(k - STRIDE);
        }
        for x in 0..t.count {
            for k in 0..3 {
                columns[k] = if k + STRIDE < 3 { columns[k + STRIDE] } else { column(x * STRIDE + k) };
            }
            // Sums side by side: while one waits for its last product, the CPU has others at hand.
            let mut acc = [load::<4>(t.initial.cast()); LINES];
            for k in 0..3 {
                for line in 0..LINES {
                    acc[line] = product(acc[line], columns[k], line * 3 + k, t);
                }
            }
            for line in 0..LINES {
                let y = t.output.wrapping_add(line * t.line_output + x * t.stride);
                store::<FOLD, STORE, BIAS, FULL>(acc[line], y, &rule, t);
            }
        }
    }
}

/// The pixels of an output line of 5 × 5.
///
/// # Safety
/// As [`lines`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn pixels5<
    const STRIDE: usize,
    const FOLD: usize,
    const SIGNED: bool,
    const STORE: Store,
    const BIAS: bool,
    const FULL: bool,
>(
    t: &Tile<'_>,
) {
    // SAFETY: as in `pixels3`.
    unsafe {
        let rows: [*const u8; 5] = core::array::from_fn(|row| *t.rows.add(row));
        let rule = Rule::of::<STORE>(t);
        let column = |k: usize| codes::<STRIDE, 5, FOLD, SIGNED, FULL>(rows, [k; 5], t);
        let across = |k: usize| {
            interleave(codes::<STRIDE, 4, FOLD, SIGNED, FULL>([rows[4]; 4], core::array::from_fn(|i| k + i), t))
        };
        let mut columns = [[_mm512_setzero_si512(); 4]; 5];
        let mut fifth = [_mm512_setzero_si512(); 5];
        for k in STRIDE..5 {
            let [x0, x1, x2, x3, x4] = column(k - STRIDE);
            (columns[k], fifth[k]) = (interleave([x0, x1, x2, x3]), x4);
        }
        // The fifth row: with stride 2 columns 1 and 2 of a pixel, behind those before them.
        let mut pair = pairs(fifth[3], fifth[4]);
        let mut quad = if STRIDE == 2 { join(pairs(fifth[2], fifth[2]), pair) } else { across(0) };
        for x in 0..t.count {
            let mut acc = product(load::<4>(t.initial.cast()), quad, 5, t);
            for k in 0..5 - STRIDE {
                columns[k] = columns[k + STRIDE];
                acc = product(acc, columns[k], k, t);
            }
            for k in 5 - STRIDE..5 {
                let [x0, x1, x2, x3, x4] = column(x * STRIDE + k);
                (columns[k], fifth[k]) = (interleave([x0, x1, x2, x3]), x4);
                acc = product(acc, columns[k], k, t);
            }
            if STRIDE == 2 {
                let next = pairs(fifth[3], fifth[4]);
                quad = join(pair, next);
                pair = next;
            } else {
                quad = across(x + 1);
            }
            acc = product(acc, quad, 6, t);
            store::<FOLD, STORE, BIAS, FULL>(acc, t.output.wrapping_add(x * t.stride), &rule, t);
        }
    }
}

/// Adds product `at` of a window.
///
/// # Safety
/// The panel has its weights, four vectors.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn product(mut acc: [__m512i; 4], codes: [__m512i; 4], at: usize, t: &Tile<'_>) -> [__m512i; 4] {
    for v in 0..4 {
        // SAFETY: by this function's contract.
        let weights = unsafe { _mm512_loadu_si512(t.weights.add((at * 4 + v) * 64).cast()) };
        acc[v] = _mm512_dpbusd_epi32(acc[v], codes[v], weights);
    }
    acc
}

/// What R6 needs for every pixel.
struct Rule {
    multiplier: [__m512; 4],
    ends: epilogue::Ends,
}

impl Rule {
    /// # Safety
    /// As [`lines`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
    unsafe fn of<const STORE: Store>(t: &Tile<'_>) -> Rule {
        let mut multiplier = [_mm512_setzero_ps(); 4];
        // SAFETY: the epilogue's vectors reach over the panel; the instruction set is this function's.
        unsafe {
            if STORE == CODES {
                for v in 0..4 {
                    multiplier[v] = _mm512_loadu_ps(t.epilogue.multiplier.as_ptr().add(t.first + 16 * v));
                }
            }
            Rule { multiplier, ends: epilogue::ends(t) }
        }
    }
}

/// Stores a pixel of each segment.
///
/// # Safety
/// As [`lines`], with `y` in place of the output.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn store<const FOLD: usize, const STORE: Store, const BIAS: bool, const FULL: bool>(
    mut acc: [__m512i; 4],
    y: *mut u8,
    rule: &Rule,
    t: &Tile<'_>,
) {
    // SAFETY: passed on; the epilogue's vectors reach over the panel.
    unsafe {
        if STORE == CODES {
            for v in 0..4 {
                acc[v] = epilogue::scale::<BIAS>(acc[v], rule.multiplier[v], t.first + 16 * v, t);
            }
            store_segments::<FOLD, FULL>(epilogue::narrow(acc, rule.ends), y, t);
        } else {
            store_words::<1, FOLD, STORE>([acc], y, t);
        }
    }
}

/// The codes of N places of the padded input, each a row and a column, of all segments.
///
/// # Safety
/// As [`lines`]: columns inside the image are readable for the tile's channels.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn codes<const STRIDE: usize, const N: usize, const FOLD: usize, const SIGNED: bool, const FULL: bool>(
    rows: [*const u8; N],
    k: [usize; N],
    t: &Tile<'_>,
) -> [__m512i; N] {
    let c = &t.columns;
    let mask = if FULL { u64::MAX } else { epilogue::below(t.channels) };
    // Columns before the image are beyond its end, too: they wrap around.
    let at: [[usize; FOLD]; N] = k.map(|k| core::array::from_fn(|f| c.first.wrapping_add(k + f * c.distance * STRIDE)));
    let place = |i: usize, f: usize| rows[i].wrapping_add(at[i][f] * c.pitch + t.channel);
    let mut x = [_mm512_setzero_si512(); N];
    // SAFETY: by this function's contract; the padding is readable for a register.
    unsafe {
        if at.iter().flatten().all(|&at| at < c.inside) {
            for i in 0..N {
                x[i] = segments::<FOLD, FULL>(core::array::from_fn(|f| place(i, f)), mask);
            }
        } else {
            for i in 0..N {
                let from = |f: usize| if at[i][f] < c.inside { place(i, f) } else { c.padding };
                x[i] = segments::<FOLD, FULL>(core::array::from_fn(from), mask);
            }
        }
    }
    x.map(|x| unsigned::<SIGNED>(x))
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
