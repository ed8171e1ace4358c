//! Depthwise kernels for AVX-512-VNNI that read pixels where they lie: 3 × 3, and 5 × 5 with stride 2.
//!
//! A **column** is what three or four input rows hold at one place along the width: their codes of 64 channels, those
//! of a channel side by side in a dword. It is made of four loads and eight shuffles, stays in registers for as long as
//! a pixel reads it, and with 3 × 3 and stride 1 serves two output rows: the second multiplies it by weights that are one
//! row further down.
//!
//! ```text
//! for lines of the band, two at a time of 3 × 3 with stride 1
//!     for pixel
//!         columns of the last pixel move on, new ones are read
//!         for line: acc = initial + Σ columns · weights; rule; store
//! ```
//!
//! 3 × 3: 12 vectors of columns, 4 accumulators, 4 constants of the rule: 20 of 32. Weights, initial values and multipliers
//! come from memory; two pixels at a time would share them, but do not fit.
//!
//! **The fifth row** of 5 × 5 is put side by side along the width. Columns 1 and 2 of a pixel make a pair of codes, 3 and 4
//! another, which is the first of the next pixel; two pairs are a dword. Each pixel multiplies the dword that the last one
//! made, for its columns 0 to 2, and the one that it makes, for 3 and 4: seven products in all, and each code is loaded
//! once a line. 12 vectors of columns, 6 of the fifth row, 4 accumulators, 5 codes just loaded: 27.

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
                5 => pixels5::<FOLD, SIGNED, STORE, BIAS, FULL>(&tile),
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
        let rows: [*const u8; ROWS] = core::array::from_fn(|row| (*t.rows.add(row)).wrapping_add(t.channel));
        let rule = Rule::of::<STORE>(t);
        let mut columns = [[_mm512_setzero_si512(); 4]; 3];
        for k in STRIDE..3 {
            columns[k] = column3::<STRIDE, ROWS, FOLD, SIGNED, FULL>(rows, k - STRIDE, t.columns.pitch, t);
        }
        for x in 0..t.count {
            let pitch = anew(&t.columns.pitch);
            for k in 0..3 {
                columns[k] = if k + STRIDE < 3 {
                    columns[k + STRIDE]
                } else {
                    column3::<STRIDE, ROWS, FOLD, SIGNED, FULL>(rows, x * STRIDE + k, pitch, t)
                };
            }
            // Sums side by side: while one waits for its last product, the CPU has others at hand.
            let mut acc = [load::<4>(t.initial.cast()); LINES];
            for k in 0..3 {
                for line in 0..LINES {
                    acc[line] = product(acc[line], columns[k], line * 3 + k, t.weights);
                }
            }
            for line in 0..LINES {
                let y = t.output.wrapping_add(line * t.line_output + x * t.stride);
                store::<FOLD, STORE, BIAS, FULL>(acc[line], y, &rule, t);
            }
        }
    }
}

/// Column `k` of the padded input: up to four rows side by side.
///
/// # Safety
/// As [`lines`].
#[inline(always)]
unsafe fn column3<const STRIDE: usize, const ROWS: usize, const FOLD: usize, const SIGNED: bool, const FULL: bool>(
    rows: [*const u8; ROWS],
    k: usize,
    pitch: usize,
    t: &Tile<'_>,
) -> [__m512i; 4] {
    // SAFETY: passed on; the instruction set is the caller's.
    unsafe {
        let x = codes::<STRIDE, ROWS, FOLD, SIGNED, FULL>(rows, k, pitch, None, t);
        // The last of three rows meets weights of 0 the second time.
        interleave([x[0], x[1], x[2], x[ROWS - 1]])
    }
}

/// The pixels of an output line of 5 × 5 with stride 2.
///
/// # Safety
/// As [`lines`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn pixels5<const FOLD: usize, const SIGNED: bool, const STORE: Store, const BIAS: bool, const FULL: bool>(
    t: &Tile<'_>,
) {
    // SAFETY: as in `pixels3`.
    unsafe {
        let rows: [*const u8; 5] = core::array::from_fn(|row| (*t.rows.add(row)).wrapping_add(t.channel));
        let (rule, padding) = (Rule::of::<STORE>(t), _mm512_loadu_si512(t.columns.padding.cast()));
        let (mut even, low) = column5::<FOLD, SIGNED, FULL>(rows, 0, t.columns.pitch, padding, t);
        let (mut odd, left) = column5::<FOLD, SIGNED, FULL>(rows, 1, t.columns.pitch, padding, t);
        let (mut last, right) = column5::<FOLD, SIGNED, FULL>(rows, 2, t.columns.pitch, padding, t);
        // The fifth row: columns 1 and 2 of a pixel, behind those before them.
        let mut pair = pairs(left, right);
        let mut quad = join(pairs(low, low), pair);
        for x in 0..t.count {
            let (weights, pitch) = (anew(&t.weights), anew(&t.columns.pitch));
            let mut acc = product(load::<4>(t.initial.cast()), quad, 5, weights);
            acc = product(acc, even, 0, weights);
            acc = product(acc, odd, 1, weights);
            acc = product(acc, last, 2, weights);
            even = last;
            let (column, left) = column5::<FOLD, SIGNED, FULL>(rows, 2 * x + 3, pitch, padding, t);
            odd = column;
            acc = product(acc, odd, 3, weights);
            let (column, right) = column5::<FOLD, SIGNED, FULL>(rows, 2 * x + 4, pitch, padding, t);
            last = column;
            acc = product(acc, last, 4, weights);
            let next = pairs(left, right);
            quad = join(pair, next);
            pair = next;
            acc = product(acc, quad, 6, weights);
            store::<FOLD, STORE, BIAS, FULL>(acc, t.output.wrapping_add(x * t.stride), &rule, t);
        }
    }
}

/// Column `k` of the padded input: four rows side by side, and the fifth.
///
/// # Safety
/// As [`lines`].
#[inline(always)]
unsafe fn column5<const FOLD: usize, const SIGNED: bool, const FULL: bool>(
    rows: [*const u8; 5],
    k: usize,
    pitch: usize,
    padding: __m512i,
    t: &Tile<'_>,
) -> ([__m512i; 4], __m512i) {
    // SAFETY: passed on; the instruction set is the caller's.
    unsafe {
        let [x0, x1, x2, x3, x4] = codes::<2, 5, FOLD, SIGNED, FULL>(rows, k, pitch, Some(padding), t);
        (interleave([x0, x1, x2, x3]), x4)
    }
}

/// Reads a value again for every pixel. Where the compiler knows it to stay the same, it keeps a pointer for each row and
/// column, which are more than there are registers, in place of one offset: 5 × 5 took 1.3 times as long.
#[inline(always)]
fn anew<T: Copy>(value: &T) -> T {
    // SAFETY: a reference is valid for reads.
    unsafe { core::ptr::from_ref(value).read_volatile() }
}

/// Adds product `at` of a window.
///
/// # Safety
/// The panel has its weights, four vectors.
#[inline(always)]
unsafe fn product(mut acc: [__m512i; 4], codes: [__m512i; 4], at: usize, weights: *const u8) -> [__m512i; 4] {
    for v in 0..4 {
        // SAFETY: by this function's contract; the instruction set is the caller's.
        acc[v] = unsafe {
            let weights = _mm512_loadu_si512(weights.add((at * 4 + v) * 64).cast());
            _mm512_dpbusd_epi32(acc[v], codes[v], weights)
        };
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
    #[inline(always)]
    unsafe fn of<const STORE: Store>(t: &Tile<'_>) -> Rule {
        // SAFETY: the epilogue's vectors reach over the panel; the instruction set is the caller's.
        unsafe {
            let mut multiplier = [_mm512_setzero_ps(); 4];
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
#[inline(always)]
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

/// The codes of column `k` of the padded input in N rows, of all segments. `padding`: what lies beside the image, where it
/// is kept in a register.
///
/// # Safety
/// As [`lines`]: columns inside the image are readable for the tile's channels.
#[inline(always)]
unsafe fn codes<const STRIDE: usize, const N: usize, const FOLD: usize, const SIGNED: bool, const FULL: bool>(
    rows: [*const u8; N],
    k: usize,
    pitch: usize,
    padding: Option<__m512i>,
    t: &Tile<'_>,
) -> [__m512i; N] {
    let c = &t.columns;
    let mask = if FULL { u64::MAX } else { epilogue::below(t.channels) };
    // Columns before the image are beyond its end, too: they wrap around.
    let at: [usize; FOLD] = core::array::from_fn(|f| c.first.wrapping_add(k + f * c.distance * STRIDE));
    let from = at.map(|at| at.wrapping_mul(pitch));
    // SAFETY: by this function's contract; the padding is readable for a register; the instruction set is the caller's.
    unsafe {
        let mut x = [padding.unwrap_or(_mm512_setzero_si512()); N];
        if at.iter().all(|&at| at < c.inside) {
            for i in 0..N {
                x[i] = segments::<FOLD, FULL>(from.map(|from| rows[i].wrapping_add(from)), mask);
            }
        } else if FOLD > 1 || padding.is_none() {
            for i in 0..N {
                let place = |f: usize| if at[f] < c.inside { rows[i].wrapping_add(from[f]) } else { c.padding };
                x[i] = segments::<FOLD, FULL>(core::array::from_fn(place), mask);
            }
        }
        for i in 0..N {
            x[i] = unsigned::<SIGNED>(x[i]);
        }
        x
    }
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
