//! Row kernels of grouped convolutions for AVX-512-VNNI.

use super::avx512_vnni::unsigned;
use super::epilogue512 as epilogue;
use crate::IsaName;
use crate::epilogue::{ACCUMULATORS, CODES, REALS, Store};
use crate::gather::Element;
use crate::micro::{Kind, Microkernel, Stage, Tile, TileFn, Window};
use crate::pack::WeightFormat;
use core::arch::x86_64::*;
use core::mem::MaybeUninit;

/// 12 × 2 accumulators, 2 vectors of weights, 1 of codes: 27 of 32. Of groups of 16, 6 × 4, 4 and 1: 29.
const ROWS: usize = 12;
const ROWS16: usize = 6;
/// With weights in registers as far as they fit: 7 × 2 accumulators, 1 of codes, the rest of weights.
const WINDOW_ROWS: usize = 7;
const _: () = assert!(ROWS * 2 + 3 <= 32 && ROWS16 * 4 + 5 <= 32 && WINDOW_ROWS <= ROWS);

pub(crate) const GROUPED4: Microkernel = any_window::<1>("grouped_rows_avx512_vnni_12x16_4", ROWS);
pub(crate) const GROUPED8: Microkernel = any_window::<2>("grouped_rows_avx512_vnni_12x16_8", ROWS);
pub(crate) const GROUPED16: Microkernel = any_window::<4>("grouped_rows_avx512_vnni_6x16_16", ROWS16);

pub(crate) const GROUPED4_3X3: Microkernel = windowed::<1, 1>("grouped_rows_avx512_vnni_7x16_4_3x3");
pub(crate) const GROUPED4_3X3_STRIDE2: Microkernel = windowed::<1, 2>("grouped_rows_avx512_vnni_7x16_4_3x3_stride2");
pub(crate) const GROUPED8_3X3: Microkernel = windowed::<2, 1>("grouped_rows_avx512_vnni_7x16_8_3x3");
pub(crate) const GROUPED8_3X3_STRIDE2: Microkernel = windowed::<2, 2>("grouped_rows_avx512_vnni_7x16_8_3x3_stride2");

/// A kernel for groups of 4 · QUADS inputs.
const fn any_window<const QUADS: usize>(name: &'static str, rows: usize) -> Microkernel {
    Microkernel {
        name,
        isa: IsaName::Avx512Vnni,
        kind: Kind::GroupedRows { quads: QUADS, window: Window::Any },
        rows,
        lanes: 16,
        vectors: 1,
        format: WeightFormat::Quads,
        element: Element::Byte,
        widened: 0,
        tile: |rows, _, _, store| grouped_table::<QUADS>(store)[rows - 1],
        more_stores: false,
        stage: Some(|_, signed| if signed { stage_codes::<true> } else { stage_codes::<false> }),
    }
}

/// A kernel for windows of 3 × 3 that are STRIDE columns apart.
const fn windowed<const QUADS: usize, const STRIDE: usize>(name: &'static str) -> Microkernel {
    let window = Window::Fixed { kernel: 3, blocks: 3, stride: STRIDE };
    Microkernel {
        kind: Kind::GroupedRows { quads: QUADS, window },
        tile: |rows, _, _, store| match rows {
            WINDOW_ROWS => window_for::<QUADS, STRIDE>(store),
            _ => grouped_table::<QUADS>(store)[rows - 1],
        },
        ..any_window::<QUADS>(name, WINDOW_ROWS)
    }
}

fn grouped_table<const QUADS: usize>(store: Store) -> &'static [TileFn; ROWS] {
    const fn of<const QUADS: usize, const STORE: Store>() -> [TileFn; ROWS] {
        [
            grouped::<1, QUADS, STORE>,
            grouped::<2, QUADS, STORE>,
            grouped::<3, QUADS, STORE>,
            grouped::<4, QUADS, STORE>,
            grouped::<5, QUADS, STORE>,
            grouped::<6, QUADS, STORE>,
            grouped::<7, QUADS, STORE>,
            grouped::<8, QUADS, STORE>,
            grouped::<9, QUADS, STORE>,
            grouped::<10, QUADS, STORE>,
            grouped::<11, QUADS, STORE>,
            grouped::<12, QUADS, STORE>,
        ]
    }
    match store {
        CODES => const { &of::<QUADS, CODES>() },
        REALS => const { &of::<QUADS, REALS>() },
        _ => const { &of::<QUADS, ACCUMULATORS>() },
    }
}

fn window_for<const QUADS: usize, const STRIDE: usize>(store: Store) -> TileFn {
    match store {
        CODES => window::<QUADS, STRIDE, CODES>,
        REALS => window::<QUADS, STRIDE, REALS>,
        _ => window::<QUADS, STRIDE, ACCUMULATORS>,
    }
}

/// Stages rows one after the other, 64 codes each.
///
/// # Safety
/// The contract of [`StageFn`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn stage_codes<const SIGNED: bool>(s: &Stage<'_>) {
    for (block, &source) in s.sources.iter().enumerate() {
        for at in 0..s.count {
            let to = s.to.wrapping_add(block * s.block + 64 * at);
            // SAFETY: 64 bytes are readable in each column of a source, a block holds 64 bytes a column.
            unsafe {
                let codes = _mm512_loadu_si512(source.wrapping_add(at * s.pitch).cast());
                _mm512_storeu_si512(to.cast(), unsigned::<SIGNED>(codes));
            }
        }
    }
}

/// # Safety
/// The contract of [`TileFn`], for `count` tiles that follow each other.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn grouped<const MR: usize, const QUADS: usize, const STORE: Store>(t: &Tile<'_>) {
    // SAFETY: passed on.
    unsafe {
        if STORE == CODES && !t.epilogue.bias.is_empty() {
            grouped_tiles::<MR, QUADS, STORE, true>(t);
        } else {
            grouped_tiles::<MR, QUADS, STORE, false>(t);
        }
    }
}

/// `BIAS`: R6 adds a float.
///
/// # Safety
/// As [`grouped`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn grouped_tiles<const MR: usize, const QUADS: usize, const STORE: Store, const BIAS: bool>(t: &Tile<'_>) {
    let mut corrections = MaybeUninit::uninit();
    for tile in 0..t.count {
        let rows = t.rows.wrapping_add(tile * t.runs * MR);
        let y = t.output.wrapping_add(tile * MR * t.stride);
        // SAFETY: passed on.
        unsafe {
            let acc = in_order(codes::<MR, QUADS, true>(rows, t));
            let corrections = if t.epilogue.weight_zero_point.is_empty() {
                None
            } else {
                Some(correct::<MR, QUADS>(rows, t, &mut corrections))
            };
            finish_pixels::<MR, STORE, BIAS>(acc, corrections, y, t);
        }
    }
}

/// Adds initial values, subtracts corrections, and stores. Always inlined: a call would pass accumulators through
/// memory.
///
/// # Safety
/// The contract of [`TileFn`], with `y` in place of the output.
#[inline(always)]
unsafe fn finish_pixels<const MR: usize, const STORE: Store, const BIAS: bool>(
    mut acc: [__m512i; MR],
    corrections: Option<&[[__m512i; 1]; MR]>,
    y: *mut u8,
    t: &Tile<'_>,
) {
    // SAFETY: by this function's contract.
    unsafe {
        let initial = _mm512_loadu_si512(t.initial.cast());
        for i in 0..MR {
            acc[i] = _mm512_add_epi32(acc[i], initial);
        }
        if let Some(corrections) = corrections {
            for i in 0..MR {
                acc[i] = _mm512_sub_epi32(acc[i], corrections[i][0]);
            }
        }
        if STORE == CODES {
            return store_pixels::<MR, BIAS>(acc, y, t);
        }
        let mask = epilogue::below(t.channels) as u16;
        for i in 0..MR {
            let words = if STORE == REALS { _mm512_castps_si512(epilogue::real(acc[i], t.first, t)) } else { acc[i] };
            _mm512_mask_storeu_epi32(y.wrapping_add(i * t.stride).cast(), mask, words);
        }
    }
}

/// A window of 3 × 3: its weights stay in registers as far as they fit and neighbouring pixels share what they load.
///
/// # Safety
/// The contract of [`TileFn`], for `count` ≥ `WINDOW_ROWS` pixels whose columns follow each other.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn window<const QUADS: usize, const STRIDE: usize, const STORE: Store>(t: &Tile<'_>) {
    // SAFETY: passed on.
    unsafe {
        if STORE == CODES && !t.epilogue.bias.is_empty() {
            window_tiles::<QUADS, STRIDE, STORE, true>(t);
        } else {
            window_tiles::<QUADS, STRIDE, STORE, false>(t);
        }
    }
}

/// # Safety
/// As [`window`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn window_tiles<const QUADS: usize, const STRIDE: usize, const STORE: Store, const BIAS: bool>(t: &Tile<'_>) {
    const MR: usize = WINDOW_ROWS;
    let mut corrections = MaybeUninit::uninit();
    for tile in 0..t.count.div_ceil(MR) {
        let pixel = (tile * MR).min(t.count - MR);
        let y = t.output.wrapping_add(pixel * t.stride);
        // SAFETY: the columns of `count` pixels follow the one that the first pointer of the table points to; the
        // panel holds QUADS vectors for every column and row of the window.
        unsafe {
            let staged = (*t.rows).add(pixel * STRIDE * 64);
            let x = staged.add(t.channel);
            let corrections = if t.epilogue.weight_zero_point.is_empty() {
                None
            } else {
                let mut rows = [staged; 3 * MR];
                for (at, row) in rows.iter_mut().enumerate() {
                    *row = staged.add((at % MR * STRIDE + at / MR) * 64);
                }
                Some(correct::<MR, QUADS>(rows.as_ptr(), t, &mut corrections))
            };
            let mut acc = [[_mm512_setzero_si512(); QUADS]; MR];
            for i in 0..MR {
                for k in 0..3 {
                    let column = x.add((i * STRIDE + k) * 64);
                    for row in 0..3 {
                        let lane = _mm512_broadcast_i32x4(_mm_loadu_si128(column.add(row * t.block).cast()));
                        for n in 0..QUADS {
                            let weights = _mm512_loadu_si512(t.weights.add(((k * 3 + row) * QUADS + n) * 64).cast());
                            acc[i][n] = _mm512_dpbusd_epi32(acc[i][n], lane, weights);
                        }
                    }
                }
            }
            finish_pixels::<MR, STORE, BIAS>(in_order(acc), corrections, y, t);
        }
    }
}

/// z_W · Σ x. Through memory: in one function with the rest, the rest would lose its registers.
///
/// # Safety
/// The contract of [`TileFn`], and weight zero points are present.
#[cold]
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn correct<'c, const MR: usize, const QUADS: usize>(
    rows: *const *const u8,
    t: &Tile<'_>,
    corrections: &'c mut MaybeUninit<[[__m512i; 1]; MR]>,
) -> &'c [[__m512i; 1]; MR] {
    // SAFETY: passed on.
    unsafe {
        let mut products = in_order(codes::<MR, QUADS, false>(rows, t)).map(|sum| [sum]);
        epilogue::multiply_weight_zero_points(&mut products, t);
        corrections.write(products)
    }
}

/// Sums over the taps of MR pixels: every 128-bit lane holds the same 16 codes, each dword of it a quad of a group,
/// and QUADS vectors of weights one output a lane.
///
/// # Safety
/// The contract of [`TileFn`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn codes<const MR: usize, const QUADS: usize, const WEIGHTED: bool>(
    rows: *const *const u8,
    t: &Tile<'_>,
) -> [[__m512i; QUADS]; MR] {
    let mut acc = [[_mm512_setzero_si512(); QUADS]; MR];
    let mut w = t.weights;
    if !WEIGHTED {
        w = w.wrapping_add(64 * QUADS * t.runs * t.quads);
    }
    for run in 0..t.runs {
        let mut x = [core::ptr::null::<u8>(); MR];
        for i in 0..MR {
            // SAFETY: the table holds runs × MR pointers.
            x[i] = unsafe { *rows.add(run * MR + i) }.wrapping_add(t.channel);
        }
        for row in 0..t.quads {
            let mut weights = [_mm512_setzero_si512(); QUADS];
            for n in 0..QUADS {
                // SAFETY: the panel holds QUADS vectors for every run and row, then as many of ones.
                weights[n] = unsafe { _mm512_loadu_si512(w.wrapping_add(64 * n).cast()) };
            }
            for i in 0..MR {
                // SAFETY: a block holds 64 bytes a column, of which `channel` left out a multiple of 16.
                let lane = unsafe { _mm_loadu_si128(x[i].add(row * t.block).cast()) };
                for n in 0..QUADS {
                    acc[i][n] = _mm512_dpbusd_epi32(acc[i][n], _mm512_broadcast_i32x4(lane), weights[n]);
                }
            }
            if WEIGHTED {
                w = w.wrapping_add(64 * QUADS);
            }
        }
    }
    acc
}

/// Adds the quads of each output and puts 16 outputs in order of channels.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn in_order<const MR: usize, const QUADS: usize>(acc: [[__m512i; QUADS]; MR]) -> [__m512i; MR] {
    let mut sums = [_mm512_setzero_si512(); MR];
    for i in 0..MR {
        let n = |n: usize| acc[i][n % QUADS];
        sums[i] = match QUADS {
            // Lane l, dword d: output l of group d.
            1 => {
                let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
                _mm512_permutexvar_epi32(order, n(0))
            }
            // Lane l, dword 2·n + g: output 2·l + n of group g.
            2 => {
                let order = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
                _mm512_permutexvar_epi32(order, add_neighbours(n(0), n(1)))
            }
            // Lane l, dword n: output 4·l + n.
            _ => add_neighbours(add_neighbours(n(0), n(1)), add_neighbours(n(2), n(3))),
        };
    }
    sums
}

/// Sums of neighbouring dwords: of `a` in the first half of every lane, of `b` in the second.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn add_neighbours(a: __m512i, b: __m512i) -> __m512i {
    let (a, b) = (_mm512_castsi512_ps(a), _mm512_castsi512_ps(b));
    let (even, odd) = (_mm512_shuffle_ps::<0x88>(a, b), _mm512_shuffle_ps::<0xdd>(a, b));
    _mm512_add_epi32(_mm512_castps_si512(even), _mm512_castps_si512(odd))
}

/// R6 for MR pixels of 16 channels.
///
/// # Safety
/// The contract of [`TileFn`], with `y` in place of the output.
#[inline(always)]
unsafe fn store_pixels<const MR: usize, const BIAS: bool>(acc: [__m512i; MR], y: *mut u8, t: &Tile<'_>) {
    let mask = epilogue::below(t.channels) as u16;
    // SAFETY: the caller's instruction set; the epilogue's vectors reach over the panel; every pixel is writable
    // for `channels` channels, the mask leaves out what lies beyond.
    unsafe {
        let (scaled, ends) = (epilogue::scale_pixels::<MR, BIAS>(acc, t.first, t), epilogue::ends(t));
        // Lane l of four narrowed pixels to the front: pixels then follow each other, 16 bytes each.
        let by_pixel = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        for top in (0..MR).step_by(4) {
            let mut v = [_mm512_setzero_si512(); 4];
            for i in 0..4 {
                v[i] = scaled[(top + i).min(MR - 1)];
            }
            let codes = epilogue::lanes(_mm512_permutexvar_epi32(by_pixel, epilogue::narrow(v, ends)));
            for i in top..(top + 4).min(MR) {
                _mm_mask_storeu_epi8(y.wrapping_add(i * t.stride).cast(), mask, codes[i - top]);
            }
        }
    }
}
