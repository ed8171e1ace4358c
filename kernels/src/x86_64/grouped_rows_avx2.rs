//! Row kernels of grouped convolutions for AVX2.
//!
//! Codes are staged as words. A vector of accumulators is 8 outputs, a vector of weights a pair of inputs for each of
//! them, and a load broadcasts the pair: nothing but products and sums is left for the loop, and nothing to add up after it.
//! The 8 outputs are a group of 8, or two groups of 4 that alternate: then a load broadcasts a pair of each.

use super::epilogue256 as epilogue;
use super::lines;
use crate::IsaName;
use crate::element::Element;
use crate::epilogue::{ACCUMULATORS, CODES, REALS, Store, element_size};
use crate::micro::{Kind, Microkernel, Stage, Tile, TileFn, Window};
use crate::pack::WeightFormat;
use core::arch::x86_64::*;
use core::mem::MaybeUninit;
use core::ops::Range;

/// 7 accumulators, 3 vectors of weights, 1 of codes, 1 of products. Rows of 14, 28 and 56 pixels are whole tiles.
const ROWS: usize = 7;
const _: () = assert!(ROWS + 5 <= 16);
/// Bytes of a staged column's row: 32 codes.
const CELL: usize = 64;
/// Bytes of weights for a pair of codes of each group, of 16 outputs.
const PAIR: usize = 64;

pub(crate) const GROUPED4: Microkernel = any_window::<2>("grouped_rows_avx2_7x16_4");
pub(crate) const GROUPED8: Microkernel = any_window::<4>("grouped_rows_avx2_7x16_8");

pub(crate) const GROUPED4_3X3: Microkernel = windowed::<2, 1>("grouped_rows_avx2_7x16_4_3x3");
pub(crate) const GROUPED4_3X3_STRIDE2: Microkernel = windowed::<2, 2>("grouped_rows_avx2_7x16_4_3x3_stride2");
pub(crate) const GROUPED8_3X3: Microkernel = windowed::<4, 1>("grouped_rows_avx2_7x16_8_3x3");
pub(crate) const GROUPED8_3X3_STRIDE2: Microkernel = windowed::<4, 2>("grouped_rows_avx2_7x16_8_3x3_stride2");

/// A kernel for groups of 2 · PAIRS inputs.
const fn any_window<const PAIRS: usize>(name: &'static str) -> Microkernel {
    Microkernel {
        name,
        isa: IsaName::Avx2,
        kind: Kind::GroupedRows { quads: PAIRS / 2, window: Window::Any },
        rows: ROWS,
        lanes: 8,
        vectors: 2,
        format: WeightFormat::Pairs,
        element: Element::Byte,
        widened: 0,
        tile: |rows, _, _, store| grouped_table::<PAIRS>(store)[rows - 1],
        more_stores: false,
        stage: Some(|_, signed| if signed { stage_words::<PAIRS, true> } else { stage_words::<PAIRS, false> }),
    }
}

/// A kernel for windows of 3 × 3 that are STRIDE columns apart.
const fn windowed<const PAIRS: usize, const STRIDE: usize>(name: &'static str) -> Microkernel {
    let window = Window::Fixed { kernel: 3, blocks: 3, stride: STRIDE };
    Microkernel {
        kind: Kind::GroupedRows { quads: PAIRS / 2, window },
        tile: |rows, _, _, store| match rows {
            ROWS => window_for::<PAIRS, STRIDE>(store),
            _ => grouped_table::<PAIRS>(store)[rows - 1],
        },
        ..any_window::<PAIRS>(name)
    }
}

fn grouped_table<const PAIRS: usize>(store: Store) -> &'static [TileFn; ROWS] {
    const fn of<const PAIRS: usize, const STORE: Store>() -> [TileFn; ROWS] {
        [
            grouped::<1, PAIRS, STORE>,
            grouped::<2, PAIRS, STORE>,
            grouped::<3, PAIRS, STORE>,
            grouped::<4, PAIRS, STORE>,
            grouped::<5, PAIRS, STORE>,
            grouped::<6, PAIRS, STORE>,
            grouped::<7, PAIRS, STORE>,
        ]
    }
    match store {
        CODES => const { &of::<PAIRS, CODES>() },
        REALS => const { &of::<PAIRS, REALS>() },
        _ => const { &of::<PAIRS, ACCUMULATORS>() },
    }
}

fn window_for<const PAIRS: usize, const STRIDE: usize>(store: Store) -> TileFn {
    match store {
        CODES => window::<PAIRS, STRIDE, CODES>,
        REALS => window::<PAIRS, STRIDE, REALS>,
        _ => window::<PAIRS, STRIDE, ACCUMULATORS>,
    }
}

/// Stages rows one after the other, 32 codes each, widened to words; of groups of 4, the first pairs of two groups
/// side by side and then the second.
///
/// # Safety
/// The contract of [`StageFn`](crate::micro::StageFn).
#[target_feature(enable = "avx2,fma")]
unsafe fn stage_words<const PAIRS: usize, const SIGNED: bool>(s: &Stage<'_>) {
    for (block, &from) in s.sources.iter().enumerate() {
        for at in 0..s.count {
            let (from, to) = (from.wrapping_add(at * s.pitch), s.to.wrapping_add(block * s.block + CELL * at));
            for part in 0..CELL / 32 {
                // SAFETY: 32 bytes are readable in each column of a source, a block holds CELL bytes a column.
                unsafe {
                    let words = _mm256_cvtepu8_epi16(unsigned::<SIGNED>(_mm_loadu_si128(from.add(16 * part).cast())));
                    let words = if PAIRS == 2 { _mm256_shuffle_epi32::<0b11_01_10_00>(words) } else { words };
                    _mm256_storeu_si256(to.add(32 * part).cast(), words);
                }
            }
        }
    }
}

/// Signed codes as code + 128.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn unsigned<const SIGNED: bool>(codes: __m128i) -> __m128i {
    if SIGNED { _mm_xor_si128(codes, _mm_set1_epi8(-128)) } else { codes }
}

/// # Safety
/// The contract of [`TileFn`], for `count` tiles that follow each other in each of `lines` lines.
#[target_feature(enable = "avx2,fma")]
unsafe fn grouped<const MR: usize, const PAIRS: usize, const STORE: Store>(t: &Tile<'_>) {
    let mut memory = MaybeUninit::uninit();
    for (t, tile) in lines(t).flat_map(|line| (0..line.count).map(move |tile| (line, tile))) {
        let (t, rows) = (&t, t.rows.wrapping_add(tile * t.taps * MR));
        for v in 0..t.channels.div_ceil(8) {
            // SAFETY: passed on.
            unsafe {
                let acc = codes::<MR, PAIRS, true>(rows, v, t);
                let sums =
                    (!t.epilogue.weight_zero_point.is_empty()).then(|| sums::<MR, PAIRS>(rows, v, t, &mut memory));
                finish::<MR, PAIRS, STORE>(acc, sums, tile * MR, v, t);
            }
        }
    }
}

/// A window of 3 × 3, in tiles as even as possible.
///
/// # Safety
/// The contract of [`TileFn`], for `count` ≥ `ROWS` pixels whose columns follow each other.
#[target_feature(enable = "avx2,fma")]
unsafe fn window<const PAIRS: usize, const STRIDE: usize, const STORE: Store>(t: &Tile<'_>) {
    for line in lines(t) {
        // SAFETY: passed on.
        unsafe { window_line::<PAIRS, STRIDE, STORE>(&line) };
    }
}

/// # Safety
/// As [`window`], for one line.
#[target_feature(enable = "avx2,fma")]
unsafe fn window_line<const PAIRS: usize, const STRIDE: usize, const STORE: Store>(t: &Tile<'_>) {
    if t.count.is_multiple_of(ROWS) {
        // SAFETY: passed on.
        return unsafe { window_tiles::<ROWS, PAIRS, STRIDE, STORE>(0..t.count, t) };
    }
    let tiles = t.count.div_ceil(ROWS);
    let (size, more) = (t.count / tiles, t.count % tiles);
    let larger = more * (size + 1);
    for (pixels, size) in [(0..larger, size + 1), (larger..t.count, size)] {
        // SAFETY: passed on. As there are more than ROWS pixels, no tile has fewer than 4.
        unsafe {
            match size {
                4 => window_tiles::<4, PAIRS, STRIDE, STORE>(pixels, t),
                5 => window_tiles::<5, PAIRS, STRIDE, STORE>(pixels, t),
                6 => window_tiles::<6, PAIRS, STRIDE, STORE>(pixels, t),
                _ => window_tiles::<ROWS, PAIRS, STRIDE, STORE>(pixels, t),
            }
        }
    }
}

/// Tiles of MR pixels, which share what they load.
///
/// # Safety
/// The contract of [`TileFn`], for these pixels, a multiple of MR, whose columns follow each other.
#[inline(never)]
#[target_feature(enable = "avx2,fma")]
unsafe fn window_tiles<const MR: usize, const PAIRS: usize, const STRIDE: usize, const STORE: Store>(
    pixels: Range<usize>,
    t: &Tile<'_>,
) {
    let mut memory = MaybeUninit::uninit();
    for pixel in pixels.step_by(MR) {
        // SAFETY: the first pointer of the table points to the columns of all pixels.
        let staged = unsafe { *t.rows }.wrapping_add(pixel * STRIDE * CELL);
        for v in 0..t.channels.div_ceil(8) {
            // SAFETY: passed on; the table is that of the tile's pixels.
            unsafe {
                let acc = shared::<MR, PAIRS, STRIDE>(staged, v, t);
                let sums = (!t.epilogue.weight_zero_point.is_empty()).then(|| {
                    let column = |at| staged.wrapping_add((at % MR * STRIDE + at / MR) * CELL);
                    let rows: [*const u8; 3 * ROWS] = core::array::from_fn(column);
                    sums::<MR, PAIRS>(rows.as_ptr(), v, t, &mut memory)
                });
                finish::<MR, PAIRS, STORE>(acc, sums, pixel, v, t);
            }
        }
    }
}

/// The pair of codes of each output's group, of the panel's v-th vector.
///
/// # Safety
/// `x` points to the 16 words of a panel in a staged row.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn broadcast<const PAIRS: usize>(x: *const u8, v: usize, pair: usize) -> __m256i {
    let x = x.wrapping_add(16 * v);
    // SAFETY: by this function's contract.
    unsafe {
        match PAIRS {
            2 => _mm256_set1_epi64x(x.add(8 * pair).cast::<i64>().read_unaligned()),
            _ => _mm256_set1_epi32(x.add(4 * pair).cast::<i32>().read_unaligned()),
        }
    }
}

/// Sums over a window of 3 × 3 for MR pixels. Three columns of weights stay in registers while a pair of codes of
/// each staged column is loaded, once for all pixels that see it.
///
/// # Safety
/// As [`window_tiles`].
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn shared<const MR: usize, const PAIRS: usize, const STRIDE: usize>(
    staged: *const u8,
    v: usize,
    t: &Tile<'_>,
) -> [[__m256i; 1]; MR] {
    // SAFETY: passed on.
    let mut acc = [[unsafe { initial(v, t) }]; MR];
    // One loop over rows and pairs, which the compiler does not unroll: with four pairs at once two sums go to the stack.
    for step in 0..3 * PAIRS {
        let (row, pair) = (step / PAIRS, step % PAIRS);
        let x = staged.wrapping_add(t.channel + row * t.block);
        let mut weights = [_mm256_setzero_si256(); 3];
        for k in 0..3 {
            let at = (k * 3 * PAIRS + step) * PAIR + 32 * v;
            // SAFETY: the panel holds PAIRS · PAIR bytes for every column and row of the window.
            weights[k] = unsafe { _mm256_loadu_si256(t.weights.wrapping_add(at).cast()) };
        }
        // Column c · STRIDE + phase is pixel c's and, STRIDE taps further on each, those before.
        for c in 0..MR + 2 / STRIDE {
            for phase in 0..STRIDE {
                let column = c * STRIDE + phase;
                if column >= (MR - 1) * STRIDE + 3 {
                    continue;
                }
                // SAFETY: the columns of the tile's pixels are staged.
                let codes = unsafe { broadcast::<PAIRS>(x.wrapping_add(column * CELL), v, pair) };
                for k in 0..3 {
                    if k % STRIDE == phase && c >= k / STRIDE && c - k / STRIDE < MR {
                        let i = c - k / STRIDE;
                        acc[i][0] = _mm256_add_epi32(acc[i][0], _mm256_madd_epi16(codes, weights[k]));
                    }
                }
            }
        }
    }
    acc
}

/// Sums over the taps of MR pixels for the panel's v-th vector of outputs: weighted from the initial values on, or of
/// the codes alone.
///
/// # Safety
/// The contract of [`TileFn`].
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn codes<const MR: usize, const PAIRS: usize, const WEIGHTED: bool>(
    rows: *const *const u8,
    v: usize,
    t: &Tile<'_>,
) -> [[__m256i; 1]; MR] {
    // SAFETY: passed on.
    let mut acc = [[if WEIGHTED { unsafe { initial(v, t) } } else { _mm256_setzero_si256() }]; MR];
    let mut w = t.weights.wrapping_add(32 * v);
    if !WEIGHTED {
        w = w.wrapping_add(PAIRS * PAIR * t.taps * t.quads);
    }
    for run in 0..t.taps {
        let mut x = [core::ptr::null::<u8>(); MR];
        for i in 0..MR {
            // SAFETY: the table holds runs × MR pointers.
            x[i] = unsafe { *rows.add(run * MR + i) }.wrapping_add(t.channel);
        }
        for row in 0..t.quads {
            for pair in 0..PAIRS {
                // SAFETY: the panel holds PAIRS · PAIR bytes for every run and row, then as many of ones.
                let weights = unsafe { _mm256_loadu_si256(w.wrapping_add(PAIR * pair).cast()) };
                for i in 0..MR {
                    // SAFETY: a block holds CELL bytes a column, of which `channel` left out a multiple of 32.
                    let codes = unsafe { broadcast::<PAIRS>(x[i].wrapping_add(row * t.block), v, pair) };
                    acc[i][0] = _mm256_add_epi32(acc[i][0], _mm256_madd_epi16(codes, weights));
                }
            }
            if WEIGHTED {
                w = w.wrapping_add(PAIRS * PAIR);
            }
        }
    }
    acc
}

/// Σ x, for weight zero points. Through memory: in one function with the rest, the rest would lose its registers.
///
/// # Safety
/// The contract of [`TileFn`].
#[cold]
#[inline(never)]
#[target_feature(enable = "avx2,fma")]
unsafe fn sums<'c, const MR: usize, const PAIRS: usize>(
    rows: *const *const u8,
    v: usize,
    t: &Tile<'_>,
    memory: &'c mut MaybeUninit<[[__m256i; 1]; MR]>,
) -> &'c [[__m256i; 1]; MR] {
    // SAFETY: passed on.
    memory.write(unsafe { codes::<MR, PAIRS, false>(rows, v, t) })
}

/// What the accumulators of the panel's v-th vector begin with.
///
/// # Safety
/// The contract of [`TileFn`].
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn initial(v: usize, t: &Tile<'_>) -> __m256i {
    // SAFETY: initial values reach over the panel.
    unsafe { _mm256_loadu_si256(t.initial.wrapping_add(8 * v).cast()) }
}

/// Takes MR pixels of the panel's v-th vector, from a pixel on, through the rule and stores them in order of channels.
/// Always inlined: a call would pass accumulators through memory.
///
/// # Safety
/// The contract of [`TileFn`].
#[inline(always)]
unsafe fn finish<const MR: usize, const PAIRS: usize, const STORE: Store>(
    mut acc: [[__m256i; 1]; MR],
    sums: Option<&[[__m256i; 1]; MR]>,
    pixel: usize,
    v: usize,
    t: &Tile<'_>,
) {
    let half = &Tile { first: t.first + 8 * v, channels: (t.channels - 8 * v).min(8), ..*t };
    let y = t.output.wrapping_add(pixel * t.stride + 8 * v * element_size(STORE));
    // SAFETY: by this function's contract: every pixel is writable for the tile's channels.
    unsafe {
        if let Some(sums) = sums {
            epilogue::subtract_channel_sums::<MR, 1>(&mut acc, *sums, half);
        }
        if STORE == CODES {
            epilogue::scale::<MR, 1>(&mut acc, half);
            return store_codes::<MR, PAIRS>(acc, y, half);
        }
        for i in 0..MR {
            let mut words = acc[i][0];
            if STORE == REALS {
                words = _mm256_castps_si256(epilogue::real(words, half.first, half));
            }
            if PAIRS == 2 {
                words = _mm256_permutevar8x32_epi32(words, _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
            }
            let y = y.wrapping_add(i * t.stride).cast();
            _mm256_maskstore_epi32(y, epilogue::lanes_below(half.channels, 0), words);
        }
    }
}

/// The end of R6 for MR pixels of 8 channels.
///
/// # Safety
/// As [`finish`].
#[inline(always)]
unsafe fn store_codes<const MR: usize, const PAIRS: usize>(acc: [[__m256i; 1]; MR], y: *mut u8, t: &Tile<'_>) {
    // SAFETY: by this function's contract.
    unsafe {
        let ends = epilogue::ends(t);
        // Lane l of four narrowed pixels to the front: pixels then follow each other, 8 bytes each.
        let by_pixel = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        let by_group = _mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
        for top in (0..MR).step_by(4) {
            let mut four = [_mm256_setzero_si256(); 4];
            for i in 0..4 {
                four[i] = acc[(top + i).min(MR - 1)][0];
            }
            let mut codes = _mm256_permutevar8x32_epi32(epilogue::narrow(four, ends), by_pixel);
            if PAIRS == 2 {
                codes = _mm256_shuffle_epi8(codes, _mm256_broadcastsi128_si256(by_group));
            }
            let halves = [_mm256_castsi256_si128(codes), _mm256_extracti128_si256::<1>(codes)];
            for i in 0..4.min(MR - top) {
                let eight = if i % 2 == 1 { _mm_unpackhi_epi64(halves[i / 2], halves[i / 2]) } else { halves[i / 2] };
                let y = y.wrapping_add((top + i) * t.stride);
                match t.channels {
                    8 => _mm_storel_epi64(y.cast(), eight),
                    n => epilogue::store_first(y, n, _mm256_castsi128_si256(eight)),
                }
            }
        }
    }
}
