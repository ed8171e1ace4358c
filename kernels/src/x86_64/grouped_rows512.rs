//! Row kernels of grouped convolutions for AVX-512-VNNI.

use super::avx512_vnni::{load, unsigned};
use super::epilogue512 as epilogue;
use super::lines;
use crate::IsaName;
use crate::element::Element;
use crate::epilogue::{ACCUMULATORS, CODES, REALS, Store};
use crate::micro::{Kind, Microkernel, Stage, Tile, TileFn, Window};
use crate::pack::WeightFormat;
use core::arch::x86_64::*;
use core::array;
use core::ptr::null_mut;

/// 7 × 2 accumulators, 7 sums of the tile before, 2 vectors of weights, 1 of codes: 24 of 32. And 7 pointers.
const ROWS: usize = 7;
/// Pixels of a window that come before what the sums of the tile before become.
const EARLY: usize = 3;

pub(crate) const GROUPED4: Microkernel = any_window::<1, 1>("grouped_rows_avx512_vnni_7x16_4");
pub(crate) const GROUPED8: Microkernel = any_window::<2, 1>("grouped_rows_avx512_vnni_7x16_8");
pub(crate) const GROUPED16: Microkernel = any_window::<2, 2>("grouped_rows_avx512_vnni_7x16_16");

pub(crate) const GROUPED4_3X3: Microkernel = windowed::<1>("grouped_rows_avx512_vnni_7x16_4_3x3");
pub(crate) const GROUPED4_3X3_STRIDE2: Microkernel = windowed::<2>("grouped_rows_avx512_vnni_7x16_4_3x3_stride2");

/// A kernel for groups of 4 · VECTORS · STEPS inputs.
const fn any_window<const VECTORS: usize, const STEPS: usize>(name: &'static str) -> Microkernel {
    Microkernel {
        name,
        isa: IsaName::Avx512Vnni,
        kind: Kind::GroupedRows { quads: VECTORS * STEPS, window: Window::Any },
        rows: ROWS,
        lanes: 16,
        vectors: 1,
        format: WeightFormat::Quads,
        element: Element::Byte,
        widened: 0,
        tile: |rows, _, _, store| grouped_table::<VECTORS, STEPS>(store)[rows - 1],
        more_stores: false,
        stage: Some(|_, signed| if signed { stage_codes::<true> } else { stage_codes::<false> }),
    }
}

/// A kernel for groups of 4 and windows of 3 × 3 that are STRIDE columns apart.
const fn windowed<const STRIDE: usize>(name: &'static str) -> Microkernel {
    Microkernel {
        kind: Kind::GroupedRows { quads: 1, window: Window::Fixed { kernel: 3, blocks: 3, stride: STRIDE } },
        tile: |rows, _, _, store| match rows {
            ROWS => window_for::<STRIDE>(store),
            _ => grouped_table::<1, 1>(store)[rows - 1],
        },
        ..any_window::<1, 1>(name)
    }
}

fn grouped_table<const VECTORS: usize, const STEPS: usize>(store: Store) -> &'static [TileFn; ROWS] {
    const fn of<const VECTORS: usize, const STEPS: usize, const STORE: Store>() -> [TileFn; ROWS] {
        [
            grouped::<1, VECTORS, STEPS, STORE>,
            grouped::<2, VECTORS, STEPS, STORE>,
            grouped::<3, VECTORS, STEPS, STORE>,
            grouped::<4, VECTORS, STEPS, STORE>,
            grouped::<5, VECTORS, STEPS, STORE>,
            grouped::<6, VECTORS, STEPS, STORE>,
            grouped::<7, VECTORS, STEPS, STORE>,
        ]
    }
    match store {
        CODES => const { &of::<VECTORS, STEPS, CODES>() },
        REALS => const { &of::<VECTORS, STEPS, REALS>() },
        _ => const { &of::<VECTORS, STEPS, ACCUMULATORS>() },
    }
}

fn window_for<const STRIDE: usize>(store: Store) -> TileFn {
    match store {
        CODES => window::<STRIDE, CODES>,
        REALS => window::<STRIDE, REALS>,
        _ => window::<STRIDE, ACCUMULATORS>,
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
/// The contract of [`TileFn`], for `count` ≥ 1 tiles that follow each other in each of `lines` lines.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn grouped<const MR: usize, const VECTORS: usize, const STEPS: usize, const STORE: Store>(t: &Tile<'_>) {
    // SAFETY: passed on.
    unsafe {
        if t.epilogue.weight_zero_point.is_empty() {
            return grouped_rule::<MR, VECTORS, STEPS, STORE>(t, None);
        }
        for (line, tile) in lines(t).flat_map(|line| (0..line.count).map(move |tile| (line, tile))) {
            let tile = Tile {
                rows: line.rows.wrapping_add(tile * line.taps * MR),
                output: line.output.wrapping_add(tile * MR * line.stride),
                count: 1,
                ..line
            };
            grouped_rule::<MR, VECTORS, STEPS, STORE>(&tile, Some(&correct::<MR, VECTORS, STEPS>(&tile)));
        }
    }
}

/// # Safety
/// As [`grouped`], and there is but one tile if there are `corrections`, to be subtracted.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn grouped_rule<const MR: usize, const VECTORS: usize, const STEPS: usize, const STORE: Store>(
    t: &Tile<'_>,
    corrections: Option<&[[__m512i; 1]; MR]>,
) {
    // SAFETY: passed on.
    unsafe {
        if STORE == CODES && !t.epilogue.bias.is_empty() {
            grouped_tiles::<MR, VECTORS, STEPS, STORE, true>(t, corrections);
        } else {
            grouped_tiles::<MR, VECTORS, STEPS, STORE, false>(t, corrections);
        }
    }
}

/// `BIAS`: R6 adds a float.
///
/// What a tile's sums become is computed after the first run of the next: instructions enter the CPU's queues in order,
/// and those that wait for the last products would keep out products that could fill the time.
///
/// # Safety
/// As [`grouped_rule`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn grouped_tiles<
    const MR: usize,
    const VECTORS: usize,
    const STEPS: usize,
    const STORE: Store,
    const BIAS: bool,
>(
    t: &Tile<'_>,
    corrections: Option<&[[__m512i; 1]; MR]>,
) {
    let (mut sums, mut y) = ([_mm512_setzero_si512(); MR], null_mut::<u8>());
    for line in 0..t.lines {
        let channel = t.channel + line * t.line_input;
        for tile in 0..t.count {
            let rows = t.rows.wrapping_add(tile * t.taps * MR);
            let mut acc = [[_mm512_setzero_si512(); VECTORS]; MR];
            // SAFETY: passed on; sums that are still to be stored have a place.
            unsafe {
                for run in 0..t.taps {
                    acc = codes::<MR, VECTORS, STEPS, true>(acc, rows, channel, run, t);
                    if run == 0 && !y.is_null() {
                        store_pixels::<MR, STORE, BIAS>(sums, y, t);
                    }
                }
                sums = subtract(in_order::<MR, VECTORS, STEPS>(acc), corrections);
            }
            y = t.output.wrapping_add(line * t.line_output + tile * MR * t.stride);
        }
    }
    // SAFETY: passed on.
    unsafe { store_pixels::<MR, STORE, BIAS>(sums, y, t) }
}

/// A window of 3 × 3: its weights stay in registers as far as they fit and neighbouring pixels share what they load.
///
/// # Safety
/// The contract of [`TileFn`], for `count` ≥ `ROWS` pixels in each of `lines` lines, whose columns follow each other.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn window<const STRIDE: usize, const STORE: Store>(t: &Tile<'_>) {
    // SAFETY: passed on.
    unsafe {
        if t.epilogue.weight_zero_point.is_empty() {
            return window_rule::<STRIDE, STORE>(t, None);
        }
        for (line, tile) in lines(t).flat_map(|line| (0..line.count.div_ceil(ROWS)).map(move |tile| (line, tile))) {
            let pixel = (tile * ROWS).min(t.count - ROWS);
            let staged = (*t.rows).add(pixel * STRIDE * 64);
            let rows: [_; 3 * ROWS] = array::from_fn(|at| staged.add((at % ROWS * STRIDE + at / ROWS) * 64));
            let tile = Tile {
                rows: rows.as_ptr(),
                output: line.output.wrapping_add(pixel * line.stride),
                count: ROWS,
                ..line
            };
            window_rule::<STRIDE, STORE>(&tile, Some(&correct::<ROWS, 1, 1>(&tile)));
        }
    }
}

/// # Safety
/// As [`window`], and there is but one tile if there are `corrections`, to be subtracted.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn window_rule<const STRIDE: usize, const STORE: Store>(
    t: &Tile<'_>,
    corrections: Option<&[[__m512i; 1]; ROWS]>,
) {
    // SAFETY: passed on.
    unsafe {
        if STORE == CODES && !t.epilogue.bias.is_empty() {
            window_tiles::<STRIDE, STORE, true>(t, corrections);
        } else {
            window_tiles::<STRIDE, STORE, false>(t, corrections);
        }
    }
}

/// # Safety
/// As [`window_rule`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn window_tiles<const STRIDE: usize, const STORE: Store, const BIAS: bool>(
    t: &Tile<'_>,
    corrections: Option<&[[__m512i; 1]; ROWS]>,
) {
    // Other stores branch, and loads of all pixels would come before the branches and wait on the stack.
    let early = if STORE == CODES { EARLY } else { 0 };
    let (mut sums, mut y) = ([_mm512_setzero_si512(); ROWS], null_mut::<u8>());
    for line in 0..t.lines {
        for tile in 0..t.count.div_ceil(ROWS) {
            let pixel = (tile * ROWS).min(t.count - ROWS);
            // SAFETY: the columns of `count` pixels follow the one that the first pointer of the table points to; sums
            // that are still to be stored have a place.
            unsafe {
                let x = (*t.rows).add(pixel * STRIDE * 64 + t.channel + line * t.line_input);
                let mut acc = [[_mm512_setzero_si512()]; ROWS];
                for i in 0..early {
                    acc[i] = [window_sum(x.add(i * STRIDE * 64), t)];
                }
                if !y.is_null() {
                    store_pixels::<ROWS, STORE, BIAS>(sums, y, t);
                }
                for i in early..ROWS {
                    acc[i] = [window_sum(x.add(i * STRIDE * 64), t)];
                }
                sums = subtract(in_order::<ROWS, 1, 1>(acc), corrections);
            }
            y = t.output.wrapping_add(line * t.line_output + pixel * t.stride);
        }
    }
    // SAFETY: passed on.
    unsafe { store_pixels::<ROWS, STORE, BIAS>(sums, y, t) }
}

/// Products over the window of a pixel whose first column is at `x`, an output a dword. Always inlined: pixels share
/// weights and columns.
///
/// # Safety
/// As [`window`].
#[inline(always)]
unsafe fn window_sum(x: *const u8, t: &Tile<'_>) -> __m512i {
    // SAFETY: by this function's contract; the panel holds a vector for every column and row of the window.
    unsafe {
        let mut acc = _mm512_setzero_si512();
        for k in 0..3 {
            for row in 0..3 {
                let codes = _mm512_broadcast_i32x4(_mm_loadu_si128(x.add(64 * k + row * t.block).cast()));
                let weights = _mm512_loadu_si512(t.weights.add(64 * (3 * k + row)).cast());
                acc = _mm512_dpbusd_epi32(acc, codes, weights);
            }
        }
        acc
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn subtract<const MR: usize>(mut sums: [__m512i; MR], corrections: Option<&[[__m512i; 1]; MR]>) -> [__m512i; MR] {
    if let Some(corrections) = corrections {
        for i in 0..MR {
            sums[i] = _mm512_sub_epi32(sums[i], corrections[i][0]);
        }
    }
    sums
}

/// z_W · Σ x of the tile. Not where sums are in registers: a call would send them through memory.
///
/// # Safety
/// The contract of [`TileFn`], and weight zero points are present.
#[cold]
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn correct<const MR: usize, const VECTORS: usize, const STEPS: usize>(t: &Tile<'_>) -> [[__m512i; 1]; MR] {
    let mut acc = [[_mm512_setzero_si512(); VECTORS]; MR];
    // SAFETY: passed on.
    unsafe {
        for run in 0..t.taps {
            acc = codes::<MR, VECTORS, STEPS, false>(acc, t.rows, t.channel, run, t);
        }
        let mut products = in_order::<MR, VECTORS, STEPS>(acc).map(|sum| [sum]);
        epilogue::multiply_weight_zero_points(&mut products, t);
        products
    }
}

/// Adds a run, a column of taps, of MR pixels: the products with its weights or (not `WEIGHTED`) its codes.
///
/// Each of STEPS steps broadcasts 4 / STEPS quads: all 16 codes, so that every 128-bit lane holds the same quads of
/// one or more groups, or half of them, which every lane then holds twice. [`in_order`] has where outputs are.
///
/// # Safety
/// The contract of [`TileFn`], with `channel` in place of the tile's.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn codes<const MR: usize, const VECTORS: usize, const STEPS: usize, const WEIGHTED: bool>(
    mut acc: [[__m512i; VECTORS]; MR],
    rows: *const *const u8,
    channel: usize,
    run: usize,
    t: &Tile<'_>,
) -> [[__m512i; VECTORS]; MR] {
    let first = if WEIGHTED { run * t.quads } else { t.taps * t.quads };
    let mut w = t.weights.wrapping_add(64 * VECTORS * STEPS * first);
    let mut x = [core::ptr::null::<u8>(); MR];
    for i in 0..MR {
        // SAFETY: the table holds runs × MR pointers.
        x[i] = unsafe { *rows.add(run * MR + i) }.wrapping_add(channel);
    }
    for row in 0..t.quads {
        for step in 0..STEPS {
            // SAFETY: the panel holds VECTORS vectors for every run, row and step, then as many of ones.
            let weights = unsafe { load::<VECTORS>(w.wrapping_add(64 * VECTORS * step)) };
            for i in 0..MR {
                // SAFETY: a block holds 64 bytes a column, of which `channel` left out a multiple of 16.
                let codes = unsafe { broadcast::<STEPS>(x[i].add(row * t.block + step * 16 / STEPS)) };
                for n in 0..VECTORS {
                    acc[i][n] = _mm512_dpbusd_epi32(acc[i][n], codes, weights[n]);
                }
            }
        }
        if WEIGHTED {
            w = w.wrapping_add(64 * VECTORS * STEPS);
        }
    }
    acc
}

/// 16 / STEPS codes, as often as they fit a vector.
///
/// # Safety
/// They are readable.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn broadcast<const STEPS: usize>(from: *const u8) -> __m512i {
    // SAFETY: by this function's contract.
    unsafe {
        match STEPS {
            1 => _mm512_broadcast_i32x4(_mm_loadu_si128(from.cast())),
            _ => _mm512_set1_epi64(from.cast::<i64>().read_unaligned()),
        }
    }
}

/// Adds the quads of each output and puts 16 outputs in order of channels.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn in_order<const MR: usize, const VECTORS: usize, const STEPS: usize>(acc: [[__m512i; VECTORS]; MR]) -> [__m512i; MR] {
    let mut sums = [_mm512_setzero_si512(); MR];
    for i in 0..MR {
        let n = |n: usize| acc[i][n % VECTORS];
        sums[i] = match (VECTORS, STEPS) {
            // Lane l, dword d: output l of group d.
            (1, _) => {
                let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
                _mm512_permutexvar_epi32(order, n(0))
            }
            // Lane l, dword 2·n + g: output 2·l + n of group g.
            (_, 1) => {
                let order = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
                _mm512_permutexvar_epi32(order, add_neighbours(n(0), n(1)))
            }
            // Lane l, dword 2·n + d: output 4·l + 2·n + d.
            _ => add_neighbours(n(0), n(1)),
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

/// Adds initial values to the sums of MR pixels, takes them through the rule and stores them. Always inlined: a call would
/// pass sums through memory.
///
/// # Safety
/// The contract of [`TileFn`], with `y` in place of the output.
#[inline(always)]
unsafe fn store_pixels<const MR: usize, const STORE: Store, const BIAS: bool>(
    mut sums: [__m512i; MR],
    y: *mut u8,
    t: &Tile<'_>,
) {
    let mask = epilogue::below(t.channels) as u16;
    // SAFETY: the caller's instruction set; the epilogue's vectors reach over the panel; every pixel is writable
    // for `channels` channels, the mask leaves out what lies beyond.
    unsafe {
        let initial = _mm512_loadu_si512(t.initial.cast());
        for i in 0..MR {
            sums[i] = _mm512_add_epi32(sums[i], initial);
        }
        if STORE != CODES {
            for i in 0..MR {
                let words =
                    if STORE == REALS { _mm512_castps_si512(epilogue::real(sums[i], t.first, t)) } else { sums[i] };
                _mm512_mask_storeu_epi32(y.wrapping_add(i * t.stride).cast(), mask, words);
            }
            return;
        }
        let (scaled, ends) = (epilogue::scale_pixels::<MR, BIAS>(sums, t.first, t), epilogue::ends(t));
        for top in (0..MR).step_by(4) {
            let mut v = [_mm512_setzero_si512(); 4];
            for i in 0..4 {
                v[i] = scaled[(top + i).min(MR - 1)];
            }
            let codes = epilogue::lanes(epilogue::by_vector(epilogue::narrow(v, ends)));
            for i in top..(top + 4).min(MR) {
                _mm_mask_storeu_epi8(y.wrapping_add(i * t.stride).cast(), mask, codes[i - top]);
            }
        }
    }
}
