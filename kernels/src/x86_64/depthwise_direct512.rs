//! Depthwise kernels for AVX-512-VNNI that read pixels where they lie: 3 × 3 and 5 × 5.
//!
//! A **column** is what three or four input rows hold at one place along the width: their codes of 64 channels, those
//! of a channel side by side in a dword. It is made of four loads and eight shuffles, stays in registers for as long as
//! a pixel reads it, and with 3 × 3 and stride 1 serves two output rows: the second multiplies it by weights that are one
//! row further down.
//!
//! ```text
//! for lines of the band, two at a time of 3 × 3 with stride 1
//!     for pixel, first those whose new columns are of the image, then the others
//!         columns of the last pixel move on, new ones are read
//!         for line: acc = initial + Σ columns · weights; rule; store
//! ```
//!
//! 3 × 3: 12 vectors of columns, 8 accumulators of two lines, 8 constants of the rule: 28 of 32. Weights and initial values
//! come from memory; two pixels at a time would share them, but do not fit.
//!
//! **The fifth row** of 5 × 5 is put side by side along the width, and each of its codes is loaded once a line. With stride 1
//! a dword holds four columns, column k in byte k mod 4, where it replaces column k − 4. Each pixel multiplies the dwords twice:
//! before, for its columns 0 to 3, and after, for column 4 alone. Its weights are turned as the bytes are, in four versions.
//! 16 vectors of columns, 4 of the fifth row, 4 accumulators, 5 codes just loaded: 29.
//!
//! With stride 2 columns 1 and 2 of a pixel make a pair of codes, 3 and 4 another, which is the first of the next pixel; two
//! pairs are a dword. Each pixel multiplies the dword that the last one made, for its columns 0 to 2, and the one that it
//! makes, for 3 and 4: seven products in all, too. 12 vectors of columns, 6 of the fifth row, 4 accumulators, 5 codes: 27.
//!
//! Where registers also have to hold segments or masks, constants of the rule are read again for every pixel
//! ([`Rule::again`]), and [`fence`] keeps the compiler from reading ahead.

use super::avx512_vnni::{interleave, join, load, pairs, unsigned};
use super::depthwise_rows512::{store_segments, store_words};
use super::epilogue512 as epilogue;
use crate::IsaName;
use crate::element::Element;
use crate::epilogue::{ACCUMULATORS, CODES, REALS, Store};
use crate::micro::{Kind, Microkernel, Tile, TileFn};
use crate::pack::WeightFormat;
use core::arch::x86_64::*;
use core::sync::atomic::{Ordering, compiler_fence};

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
    // SAFETY: passed on.
    let rule = unsafe { Rule::of::<STORE>(t) };
    // Lines that share their columns.
    let each = if KERNEL == 3 { 3 - STRIDE } else { 1 };
    for line in (0..t.lines).step_by(each) {
        let lines = each.min(t.lines - line);
        let tile = Tile {
            rows: t.rows.wrapping_add(line * STRIDE),
            output: t.output.wrapping_add(line * t.line_output),
            lines,
            ..*t
        };
        // SAFETY: passed on; the rows behind these lines are in the table.
        unsafe {
            if FULL || whole::<FOLD>((lines - 1) * STRIDE + KERNEL, &tile) {
                pixels::<KERNEL, STRIDE, FOLD, SIGNED, STORE, BIAS, FULL, true>(&tile, &rule);
            } else {
                pixels::<KERNEL, STRIDE, FOLD, SIGNED, STORE, BIAS, FULL, false>(&tile, &rule);
            }
        }
    }
}

/// Whether a segment can be read at every column of the first rows of a tile, though it has fewer channels: not at the end
/// of the input.
///
/// # Safety
/// There are as many rows.
unsafe fn whole<const FOLD: usize>(rows: usize, t: &Tile<'_>) -> bool {
    let (c, reach) = (&t.columns, t.channel + (t.columns.inside - 1) * t.columns.pitch + 64 / FOLD);
    // SAFETY: by this function's contract.
    (0..rows).map(|row| unsafe { *t.rows.add(row) }).all(|row| row == c.padding || row.addr() + reach <= c.end.addr())
}

/// The pixels of lines that share their columns. `WHOLE`: registers are read without masks.
///
/// # Safety
/// As [`lines`], and as [`whole`] says.
#[inline(always)]
unsafe fn pixels<
    const KERNEL: usize,
    const STRIDE: usize,
    const FOLD: usize,
    const SIGNED: bool,
    const STORE: Store,
    const BIAS: bool,
    const FULL: bool,
    const WHOLE: bool,
>(
    t: &Tile<'_>,
    rule: &Rule,
) {
    // SAFETY: passed on.
    unsafe {
        match (KERNEL, STRIDE, t.lines) {
            (3, 1, 2) => pixels3::<STRIDE, 2, 4, FOLD, SIGNED, STORE, BIAS, FULL, WHOLE>(t, rule),
            (3, ..) => pixels3::<STRIDE, 1, 3, FOLD, SIGNED, STORE, BIAS, FULL, WHOLE>(t, rule),
            (_, 1, _) => pixels5::<FOLD, SIGNED, STORE, BIAS, FULL, WHOLE>(t, rule),
            _ => pixels5_stride2::<FOLD, SIGNED, STORE, BIAS, FULL, WHOLE>(t, rule),
        }
    }
}

/// The pixels of LINES output lines of 3 × 3, which read ROWS input rows.
///
/// # Safety
/// As [`pixels`].
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
    const WHOLE: bool,
>(
    t: &Tile<'_>,
    rule: &Rule,
) {
    // SAFETY: a pointer for every input row; the panel holds four vectors for every product; the epilogue's vectors
    // reach over the panel; every pixel is writable.
    unsafe {
        let rows: [*const u8; ROWS] = core::array::from_fn(|row| (*t.rows.add(row)).wrapping_add(t.channel));
        let mut columns = [[_mm512_setzero_si512(); 4]; 3];
        for k in STRIDE..3 {
            columns[k] = column3::<STRIDE, ROWS, FOLD, SIGNED, WHOLE, false>(rows, k - STRIDE, t.columns.pitch, t);
        }
        let inside = if WHOLE { t.columns.pixels_inside::<3, STRIDE, FOLD>(t.count) } else { 0 };
        if WHOLE {
            for x in 0..inside {
                pixel3::<STRIDE, LINES, ROWS, FOLD, SIGNED, STORE, BIAS, FULL, WHOLE, true>(
                    &mut columns,
                    rows,
                    x,
                    rule,
                    t,
                );
            }
        }
        for x in inside..t.count {
            pixel3::<STRIDE, LINES, ROWS, FOLD, SIGNED, STORE, BIAS, FULL, WHOLE, false>(
                &mut columns,
                rows,
                x,
                rule,
                t,
            );
        }
    }
}

/// Pixel `x` of each line. `columns`: what the last one read. `INSIDE`: the new ones are of the image.
///
/// # Safety
/// As [`pixels`].
#[inline(always)]
unsafe fn pixel3<
    const STRIDE: usize,
    const LINES: usize,
    const ROWS: usize,
    const FOLD: usize,
    const SIGNED: bool,
    const STORE: Store,
    const BIAS: bool,
    const FULL: bool,
    const WHOLE: bool,
    const INSIDE: bool,
>(
    columns: &mut [[__m512i; 4]; 3],
    rows: [*const u8; ROWS],
    x: usize,
    rule: &Rule,
    t: &Tile<'_>,
) {
    // SAFETY: passed on.
    unsafe {
        let pitch = anew(&t.columns.pitch);
        for k in 0..3 {
            columns[k] = if k + STRIDE < 3 {
                columns[k + STRIDE]
            } else {
                column3::<STRIDE, ROWS, FOLD, SIGNED, WHOLE, INSIDE>(rows, x * STRIDE + k, pitch, t)
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
            store::<FOLD, STORE, BIAS, FULL>(acc[line], y, rule, t);
        }
    }
}

/// Column `k` of the padded input: up to four rows side by side.
///
/// # Safety
/// As [`codes`].
#[inline(always)]
unsafe fn column3<
    const STRIDE: usize,
    const ROWS: usize,
    const FOLD: usize,
    const SIGNED: bool,
    const WHOLE: bool,
    const INSIDE: bool,
>(
    rows: [*const u8; ROWS],
    k: usize,
    pitch: usize,
    t: &Tile<'_>,
) -> [__m512i; 4] {
    // SAFETY: passed on; the instruction set is the caller's.
    unsafe {
        let x = codes::<STRIDE, ROWS, FOLD, SIGNED, WHOLE, INSIDE>(rows, k, pitch, t);
        // The last of three rows meets weights of 0 the second time.
        interleave([x[0], x[1], x[2], x[ROWS - 1]])
    }
}

/// What is in registers from one pixel of 5 × 5 with stride 1 to the next: columns 0 to 3 of the next, and their fifth row.
#[derive(Clone, Copy)]
struct Window {
    a: [__m512i; 4],
    b: [__m512i; 4],
    c: [__m512i; 4],
    d: [__m512i; 4],
    fifth: [__m512i; 4],
}

/// The pixels of an output line of 5 × 5 with stride 1.
///
/// # Safety
/// As [`pixels`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn pixels5<
    const FOLD: usize,
    const SIGNED: bool,
    const STORE: Store,
    const BIAS: bool,
    const FULL: bool,
    const WHOLE: bool,
>(
    t: &Tile<'_>,
    rule: &Rule,
) {
    // SAFETY: as in `pixels3`.
    unsafe {
        let rows: [*const u8; 5] = core::array::from_fn(|row| (*t.rows.add(row)).wrapping_add(t.channel));
        let (pitch, none) = (t.columns.pitch, [_mm512_setzero_si512(); 4]);
        let (a, code) = column5::<1, FOLD, SIGNED, WHOLE, false>(rows, 0, pitch, t);
        let fifth = replace(none, 0, code, 4);
        let (b, code) = column5::<1, FOLD, SIGNED, WHOLE, false>(rows, 1, pitch, t);
        let fifth = replace(fifth, 1, code, 4);
        let (c, code) = column5::<1, FOLD, SIGNED, WHOLE, false>(rows, 2, pitch, t);
        let fifth = replace(fifth, 2, code, 4);
        let (d, code) = column5::<1, FOLD, SIGNED, WHOLE, false>(rows, 3, pitch, t);
        let fifth = replace(fifth, 3, code, 4);
        let mut window = Window { a, b, c, d, fifth };
        let inside = if WHOLE { t.columns.pixels_inside::<5, 1, FOLD>(t.count) } else { 0 };
        if WHOLE {
            for x in 0..inside {
                window = pixel5::<FOLD, SIGNED, STORE, BIAS, FULL, WHOLE, true>(window, rows, x, rule, t);
            }
        }
        for x in inside..t.count {
            window = pixel5::<FOLD, SIGNED, STORE, BIAS, FULL, WHOLE, false>(window, rows, x, rule, t);
        }
    }
}

/// Pixel `x`. `INSIDE`: its last column is of the image. That is read before anything is multiplied (7 %), but for what would
/// not fit: its fifth row where R6 adds a float, all of it where reading takes masks.
///
/// # Safety
/// As [`pixels`].
#[inline(always)]
unsafe fn pixel5<
    const FOLD: usize,
    const SIGNED: bool,
    const STORE: Store,
    const BIAS: bool,
    const FULL: bool,
    const WHOLE: bool,
    const INSIDE: bool,
>(
    window: Window,
    rows: [*const u8; 5],
    x: usize,
    rule: &Rule,
    t: &Tile<'_>,
) -> Window {
    // SAFETY: passed on; the instruction set is the caller's.
    unsafe {
        let Window { a, b, c, d, fifth } = window;
        let (weights, pitch) = (anew(&t.weights), anew(&t.columns.pitch));
        let turned = weights.wrapping_add(512 * (x % 4));
        let [above @ .., below] = rows;
        let mut acc = load::<4>(t.initial.cast());
        if !WHOLE {
            acc = product(acc, a, 0, weights);
            fence();
        }
        let upper = codes::<1, 4, FOLD, SIGNED, WHOLE, INSIDE>(above, x + 4, pitch, t);
        let early =
            if BIAS { None } else { Some(codes::<1, 1, FOLD, SIGNED, WHOLE, INSIDE>([below], x + 4, pitch, t)) };
        fence();
        if WHOLE {
            acc = product(acc, a, 0, weights);
        }
        let e = interleave(upper);
        acc = product(acc, fifth, 5, turned);
        let [code] = match early {
            Some(code) => code,
            None => {
                fence();
                codes::<1, 1, FOLD, SIGNED, WHOLE, INSIDE>([below], x + 4, pitch, t)
            }
        };
        let held = match STORE {
            CODES if FOLD == 1 && FULL => 4,
            CODES if WHOLE && !BIAS => 2,
            _ => 0,
        };
        let fifth = replace(fifth, x, code, held);
        acc = product(acc, b, 1, weights);
        acc = product(acc, c, 2, weights);
        acc = product(acc, d, 3, weights);
        acc = product(acc, e, 4, weights);
        acc = product(acc, fifth, 6, turned);
        let y = t.output.wrapping_add(x * t.stride);
        if FOLD == 1 && FULL {
            store::<FOLD, STORE, BIAS, FULL>(acc, y, rule, t);
        } else {
            store::<FOLD, STORE, BIAS, FULL>(acc, y, &rule.again::<STORE>(), t);
        }
        Window { a: b, b: c, c: d, d: e, fifth }
    }
}

/// Puts column `k` of the fifth row into its place in dwords of four columns, that of the one four columns before. `held`:
/// vectors of [`SPREAD`] that may stay in registers.
#[inline(always)]
unsafe fn replace(mut dwords: [__m512i; 4], k: usize, codes: __m512i, held: usize) -> [__m512i; 4] {
    let place = 0x1111_1111_1111_1111_u64 << (k % 4);
    for v in 0..4 {
        // SAFETY: four aligned vectors; the instruction set is the caller's.
        unsafe {
            let spread = (&raw const SPREAD).cast::<__m512i>().add(v);
            let spread = if v < held { spread.read() } else { spread.read_volatile() };
            dwords[v] = _mm512_mask_shuffle_epi8(dwords[v], place, codes, spread);
        }
    }
    dwords
}

/// Spreads the codes of a register over all bytes of the dwords of each vector, in the order of [`interleave`].
static SPREAD: Spread = Spread(spread());

#[repr(C, align(64))]
struct Spread([[u8; 64]; 4]);

const fn spread() -> [[u8; 64]; 4] {
    let mut spread = [[0; 64]; 4];
    let mut at = 0;
    while at < 256 {
        spread[at / 64][at % 64] = (at / 64 * 4 + at % 16 / 4) as u8;
        at += 1;
    }
    spread
}

/// The same for stride 2: columns 0 to 2 of the next pixel, and of the fifth row columns 1 and 2, alone and behind 0.
#[derive(Clone, Copy)]
struct Window2 {
    a: [__m512i; 4],
    b: [__m512i; 4],
    c: [__m512i; 4],
    pair: [__m512i; 2],
    quad: [__m512i; 4],
}

/// The pixels of an output line of 5 × 5 with stride 2.
///
/// # Safety
/// As [`pixels`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn pixels5_stride2<
    const FOLD: usize,
    const SIGNED: bool,
    const STORE: Store,
    const BIAS: bool,
    const FULL: bool,
    const WHOLE: bool,
>(
    t: &Tile<'_>,
    rule: &Rule,
) {
    // SAFETY: as in `pixels3`.
    unsafe {
        let rows: [*const u8; 5] = core::array::from_fn(|row| (*t.rows.add(row)).wrapping_add(t.channel));
        let pitch = t.columns.pitch;
        let (a, low) = column5::<2, FOLD, SIGNED, WHOLE, false>(rows, 0, pitch, t);
        let (b, left) = column5::<2, FOLD, SIGNED, WHOLE, false>(rows, 1, pitch, t);
        let (c, right) = column5::<2, FOLD, SIGNED, WHOLE, false>(rows, 2, pitch, t);
        let pair = pairs(left, right);
        let mut window = Window2 { a, b, c, pair, quad: join(pairs(low, low), pair) };
        let inside = if WHOLE { t.columns.pixels_inside::<5, 2, FOLD>(t.count) } else { 0 };
        if WHOLE {
            for x in 0..inside {
                window = pixel5_stride2::<FOLD, SIGNED, STORE, BIAS, FULL, WHOLE, true>(window, rows, x, rule, t);
            }
        }
        for x in inside..t.count {
            window = pixel5_stride2::<FOLD, SIGNED, STORE, BIAS, FULL, WHOLE, false>(window, rows, x, rule, t);
        }
    }
}

/// Pixel `x`. `INSIDE`: its last two columns are of the image.
///
/// # Safety
/// As [`pixels`].
#[inline(always)]
unsafe fn pixel5_stride2<
    const FOLD: usize,
    const SIGNED: bool,
    const STORE: Store,
    const BIAS: bool,
    const FULL: bool,
    const WHOLE: bool,
    const INSIDE: bool,
>(
    window: Window2,
    rows: [*const u8; 5],
    x: usize,
    rule: &Rule,
    t: &Tile<'_>,
) -> Window2 {
    // SAFETY: passed on; the instruction set is the caller's.
    unsafe {
        let Window2 { a, b, c, pair, quad } = window;
        let (weights, pitch) = (anew(&t.weights), anew(&t.columns.pitch));
        let (d, left) = column5::<2, FOLD, SIGNED, WHOLE, INSIDE>(rows, 2 * x + 3, pitch, t);
        let mut acc = product(load::<4>(t.initial.cast()), quad, 5, weights);
        acc = product(acc, a, 0, weights);
        acc = product(acc, b, 1, weights);
        acc = product(acc, c, 2, weights);
        acc = product(acc, d, 3, weights);
        if FOLD > 1 || !FULL {
            fence();
        }
        let (e, right) = column5::<2, FOLD, SIGNED, WHOLE, INSIDE>(rows, 2 * x + 4, pitch, t);
        acc = product(acc, e, 4, weights);
        let next = pairs(left, right);
        let quad = join(pair, next);
        acc = product(acc, quad, 6, weights);
        let y = t.output.wrapping_add(x * t.stride);
        if FOLD == 1 && FULL {
            store::<FOLD, STORE, BIAS, FULL>(acc, y, rule, t);
        } else {
            store::<FOLD, STORE, BIAS, FULL>(acc, y, &rule.again::<STORE>(), t);
        }
        Window2 { a: c, b: d, c: e, pair: next, quad }
    }
}

/// Column `k` of the padded input: four rows side by side, and the fifth.
///
/// # Safety
/// As [`codes`].
#[inline(always)]
unsafe fn column5<const STRIDE: usize, const FOLD: usize, const SIGNED: bool, const WHOLE: bool, const INSIDE: bool>(
    rows: [*const u8; 5],
    k: usize,
    pitch: usize,
    t: &Tile<'_>,
) -> ([__m512i; 4], __m512i) {
    // SAFETY: passed on; the instruction set is the caller's.
    unsafe {
        let [x0, x1, x2, x3, x4] = codes::<STRIDE, 5, FOLD, SIGNED, WHOLE, INSIDE>(rows, k, pitch, t);
        (interleave([x0, x1, x2, x3]), x4)
    }
}

/// Nothing that is read after it is read before it: the compiler takes codes of a later column into registers that others
/// need, or those of this one too late.
#[inline(always)]
fn fence() {
    compiler_fence(Ordering::SeqCst);
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
    /// Where the multipliers are.
    multipliers: *const f32,
}

impl Rule {
    /// # Safety
    /// As [`lines`].
    #[inline(always)]
    unsafe fn of<const STORE: Store>(t: &Tile<'_>) -> Rule {
        let multipliers = t.epilogue.multiplier.as_ptr().wrapping_add(t.first);
        // SAFETY: the epilogue's vectors reach over the panel; the instruction set is the caller's.
        unsafe { Rule { multiplier: Rule::read::<STORE>(multipliers), ends: epilogue::ends(t), multipliers } }
    }

    /// The same, read from memory again, where nothing of it has room in registers.
    ///
    /// # Safety
    /// The epilogue's vectors reach over the panel.
    #[inline(always)]
    unsafe fn again<const STORE: Store>(&self) -> Rule {
        // SAFETY: passed on.
        unsafe { Rule { multiplier: Rule::read::<STORE>(self.multipliers), ends: anew(&self.ends), ..*self } }
    }

    /// # Safety
    /// Four vectors are readable, of codes' multipliers.
    #[inline(always)]
    unsafe fn read<const STORE: Store>(multipliers: *const f32) -> [__m512; 4] {
        // SAFETY: by this function's contract; the instruction set is the caller's.
        unsafe {
            let mut multiplier = [_mm512_setzero_ps(); 4];
            if STORE == CODES {
                for v in 0..4 {
                    multiplier[v] = _mm512_loadu_ps(multipliers.add(16 * v));
                }
            }
            multiplier
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

/// The codes of column `k` of the padded input in N rows, of all segments. `INSIDE`: in each of them it is one of the image.
///
/// # Safety
/// As [`pixels`]: columns inside the image are readable for the tile's channels.
#[inline(always)]
unsafe fn codes<
    const STRIDE: usize,
    const N: usize,
    const FOLD: usize,
    const SIGNED: bool,
    const WHOLE: bool,
    const INSIDE: bool,
>(
    rows: [*const u8; N],
    k: usize,
    pitch: usize,
    t: &Tile<'_>,
) -> [__m512i; N] {
    let c = &t.columns;
    let mask = if WHOLE { u64::MAX } else { epilogue::below(t.channels) };
    // Columns before the image are beyond its end, too: they wrap around.
    let at: [usize; FOLD] = core::array::from_fn(|f| c.first.wrapping_add(k + f * c.distance * STRIDE));
    let from = at.map(|at| at.wrapping_mul(pitch));
    // SAFETY: by this function's contract; the padding is readable for a register; the instruction set is the caller's.
    unsafe {
        let mut x = [_mm512_setzero_si512(); N];
        for i in 0..N {
            let place = |f: usize| if INSIDE || at[f] < c.inside { rows[i].wrapping_add(from[f]) } else { c.padding };
            x[i] = unsigned::<SIGNED>(segments::<FOLD, WHOLE>(core::array::from_fn(place), mask));
        }
        x
    }
}

/// The codes of FOLD segments side by side, as many of each as the mask has.
///
/// # Safety
/// They are readable.
#[inline(always)]
unsafe fn segments<const FOLD: usize, const WHOLE: bool>(from: [*const u8; FOLD], mask: u64) -> __m512i {
    // SAFETY: by this function's contract; the instruction set is the caller's.
    unsafe {
        if !WHOLE {
            let mut x = _mm512_setzero_si512();
            for f in 0..FOLD {
                // At their place in the register; what the mask leaves out, before them too, is not read.
                let before = 64 / FOLD * f;
                x = _mm512_mask_loadu_epi8(x, mask << before, from[f].wrapping_sub(before).cast());
            }
            return x;
        }
        let half = |f: usize| _mm256_loadu_si256(from[f % FOLD].cast());
        let quarter = |f: usize| _mm_loadu_si128(from[f % FOLD].cast());
        match FOLD {
            1 => _mm512_loadu_si512(from[0].cast()),
            2 => _mm512_inserti64x4::<1>(_mm512_castsi256_si512(half(0)), half(1)),
            _ => {
                // One after the other, into one register.
                let x = _mm512_inserti32x4::<1>(_mm512_castsi128_si512(quarter(0)), quarter(1));
                _mm512_inserti32x4::<3>(_mm512_inserti32x4::<2>(x, quarter(2)), quarter(3))
            }
        }
    }
}
