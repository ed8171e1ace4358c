//! Row kernels for AVX-512-VNNI: depthwise and grouped convolutions over staged columns.

use super::avx512_vnni::interleave;
use super::epilogue512 as epilogue;
use crate::IsaName;
use crate::epilogue::{ACCUMULATORS, CODES, REALS, Store};
use crate::gather::Element;
use crate::micro::{Kind, Microkernel, Stage, Tile, TileFn, Window};
use crate::pack::WeightFormat;
use core::arch::x86_64::*;
use core::mem::MaybeUninit;

/// Depthwise: 6 × 4 accumulators, 4 vectors of weights, 1 of codes: 29 of 32.
const ROWS: usize = 6;
/// Grouped: 12 × 2 accumulators, 2 vectors of weights, 1 of codes: 27 of 32.
const GROUPED_ROWS: usize = 12;
/// Depthwise, with the weights of a vector in registers: 7 accumulators, up to 10 of weights, 1 of codes, and what of
/// the finished vectors fits.
const WINDOW_ROWS: usize = 7;
const _: () = assert!(ROWS < WINDOW_ROWS && ROWS * 4 + 5 <= 32 && GROUPED_ROWS * 2 + 3 <= 32);

pub(crate) const DEPTHWISE: Microkernel = Microkernel {
    name: "depthwise_rows_avx512_vnni_6x64",
    isa: IsaName::Avx512Vnni,
    kind: Kind::DepthwiseRows(Window::Any),
    rows: ROWS,
    lanes: 16,
    vectors: 4,
    format: WeightFormat::Quads,
    element: Element::Byte,
    widened: 0,
    tile: |rows, vectors, _, store| {
        let table = match vectors {
            4 => depthwise_table::<1>(store),
            2 => depthwise_table::<2>(store),
            _ => depthwise_table::<4>(store),
        };
        table[rows - 1]
    },
    stage: Some(|vectors, signed| match (vectors, signed) {
        (4, false) => stage_quads::<1, false>,
        (4, true) => stage_quads::<1, true>,
        (2, false) => stage_quads::<2, false>,
        (2, true) => stage_quads::<2, true>,
        (_, false) => stage_quads::<4, false>,
        (_, true) => stage_quads::<4, true>,
    }),
};

pub(crate) const DEPTHWISE3: Microkernel = Microkernel {
    name: "depthwise_rows_avx512_vnni_7x64_3x3",
    kind: Kind::DepthwiseRows(Window::Fixed { kernel: 3, blocks: 1, stride: 1 }),
    rows: WINDOW_ROWS,
    tile: |rows, vectors, signed, store| match rows {
        WINDOW_ROWS => window_for::<3, 1>(vectors, store),
        _ => (DEPTHWISE.tile)(rows, vectors, signed, store),
    },
    ..DEPTHWISE
};
pub(crate) const DEPTHWISE3_STRIDE2: Microkernel = Microkernel {
    name: "depthwise_rows_avx512_vnni_7x64_3x3_stride2",
    kind: Kind::DepthwiseRows(Window::Fixed { kernel: 2, blocks: 2, stride: 1 }),
    tile: |rows, vectors, signed, store| match rows {
        WINDOW_ROWS => window_for::<2, 2>(vectors, store),
        _ => (DEPTHWISE.tile)(rows, vectors, signed, store),
    },
    ..DEPTHWISE3
};
pub(crate) const DEPTHWISE5: Microkernel = Microkernel {
    name: "depthwise_rows_avx512_vnni_7x64_5x5",
    kind: Kind::DepthwiseRows(Window::Fixed { kernel: 5, blocks: 2, stride: 1 }),
    tile: |rows, vectors, signed, store| match rows {
        WINDOW_ROWS => window_for::<5, 2>(vectors, store),
        _ => (DEPTHWISE.tile)(rows, vectors, signed, store),
    },
    ..DEPTHWISE3
};
pub(crate) const DEPTHWISE5_STRIDE2: Microkernel = Microkernel {
    name: "depthwise_rows_avx512_vnni_7x64_5x5_stride2",
    kind: Kind::DepthwiseRows(Window::Fixed { kernel: 3, blocks: 3, stride: 1 }),
    tile: |rows, vectors, signed, store| match rows {
        WINDOW_ROWS => window_for::<3, 3>(vectors, store),
        _ => (DEPTHWISE.tile)(rows, vectors, signed, store),
    },
    ..DEPTHWISE3
};

pub(crate) const GROUPED4: Microkernel = Microkernel {
    name: "grouped_rows_avx512_vnni_12x16_4",
    isa: IsaName::Avx512Vnni,
    kind: Kind::GroupedRows { quads: 1, window: Window::Any },
    rows: GROUPED_ROWS,
    lanes: 16,
    vectors: 1,
    format: WeightFormat::Quads,
    element: Element::Byte,
    widened: 0,
    tile: |rows, _, _, store| grouped_table::<1>(store)[rows - 1],
    stage: Some(|_, signed| if signed { stage_codes::<true> } else { stage_codes::<false> }),
};
pub(crate) const GROUPED8: Microkernel = Microkernel {
    name: "grouped_rows_avx512_vnni_12x16_8",
    kind: Kind::GroupedRows { quads: 2, window: Window::Any },
    tile: |rows, _, _, store| grouped_table::<2>(store)[rows - 1],
    ..GROUPED4
};
pub(crate) const GROUPED16: Microkernel = Microkernel {
    name: "grouped_rows_avx512_vnni_6x16_16",
    kind: Kind::GroupedRows { quads: 4, window: Window::Any },
    rows: 6,
    tile: |rows, _, _, store| grouped_table::<4>(store)[rows - 1],
    ..GROUPED4
};

pub(crate) const GROUPED4_3X3: Microkernel = Microkernel {
    name: "grouped_rows_avx512_vnni_7x16_4_3x3",
    kind: Kind::GroupedRows { quads: 1, window: Window::Fixed { kernel: 3, blocks: 3, stride: 1 } },
    rows: WINDOW_ROWS,
    tile: |rows, vectors, signed, store| match rows {
        WINDOW_ROWS => grouped_window_for::<1, 1>(store),
        _ => (GROUPED4.tile)(rows, vectors, signed, store),
    },
    ..GROUPED4
};
pub(crate) const GROUPED4_3X3_STRIDE2: Microkernel = Microkernel {
    name: "grouped_rows_avx512_vnni_7x16_4_3x3_stride2",
    kind: Kind::GroupedRows { quads: 1, window: Window::Fixed { kernel: 3, blocks: 3, stride: 2 } },
    tile: |rows, vectors, signed, store| match rows {
        WINDOW_ROWS => grouped_window_for::<1, 2>(store),
        _ => (GROUPED4.tile)(rows, vectors, signed, store),
    },
    ..GROUPED4_3X3
};
pub(crate) const GROUPED8_3X3: Microkernel = Microkernel {
    name: "grouped_rows_avx512_vnni_7x16_8_3x3",
    kind: Kind::GroupedRows { quads: 2, window: Window::Fixed { kernel: 3, blocks: 3, stride: 1 } },
    tile: |rows, vectors, signed, store| match rows {
        WINDOW_ROWS => grouped_window_for::<2, 1>(store),
        _ => (GROUPED8.tile)(rows, vectors, signed, store),
    },
    ..GROUPED4_3X3
};
pub(crate) const GROUPED8_3X3_STRIDE2: Microkernel = Microkernel {
    name: "grouped_rows_avx512_vnni_7x16_8_3x3_stride2",
    kind: Kind::GroupedRows { quads: 2, window: Window::Fixed { kernel: 3, blocks: 3, stride: 2 } },
    tile: |rows, vectors, signed, store| match rows {
        WINDOW_ROWS => grouped_window_for::<2, 2>(store),
        _ => (GROUPED8.tile)(rows, vectors, signed, store),
    },
    ..GROUPED4_3X3
};

fn grouped_window_for<const QUADS: usize, const STRIDE: usize>(store: Store) -> TileFn {
    match store {
        CODES => grouped_window::<QUADS, STRIDE, CODES>,
        REALS => grouped_window::<QUADS, STRIDE, REALS>,
        _ => grouped_window::<QUADS, STRIDE, ACCUMULATORS>,
    }
}

fn depthwise_table<const FOLD: usize>(store: Store) -> &'static [TileFn; ROWS] {
    const fn of<const FOLD: usize, const STORE: Store>() -> [TileFn; ROWS] {
        [
            depthwise::<1, FOLD, STORE>,
            depthwise::<2, FOLD, STORE>,
            depthwise::<3, FOLD, STORE>,
            depthwise::<4, FOLD, STORE>,
            depthwise::<5, FOLD, STORE>,
            depthwise::<6, FOLD, STORE>,
        ]
    }
    match store {
        CODES => const { &of::<FOLD, CODES>() },
        REALS => const { &of::<FOLD, REALS>() },
        _ => const { &of::<FOLD, ACCUMULATORS>() },
    }
}

fn window_for<const KERNEL: usize, const BLOCKS: usize>(vectors: usize, store: Store) -> TileFn {
    match (vectors, store) {
        (4, CODES) => window::<KERNEL, BLOCKS, 1, CODES>,
        (2, CODES) => window::<KERNEL, BLOCKS, 2, CODES>,
        (_, CODES) => window::<KERNEL, BLOCKS, 4, CODES>,
        (4, REALS) => window::<KERNEL, BLOCKS, 1, REALS>,
        (2, REALS) => window::<KERNEL, BLOCKS, 2, REALS>,
        (_, REALS) => window::<KERNEL, BLOCKS, 4, REALS>,
        (4, _) => window::<KERNEL, BLOCKS, 1, ACCUMULATORS>,
        (2, _) => window::<KERNEL, BLOCKS, 2, ACCUMULATORS>,
        (_, _) => window::<KERNEL, BLOCKS, 4, ACCUMULATORS>,
    }
}

fn grouped_table<const QUADS: usize>(store: Store) -> &'static [TileFn; GROUPED_ROWS] {
    const fn of<const QUADS: usize, const STORE: Store>() -> [TileFn; GROUPED_ROWS] {
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

/// Signed codes as code + 128.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn unsigned<const SIGNED: bool>(codes: __m512i) -> __m512i {
    if SIGNED { _mm512_xor_si512(codes, _mm512_set1_epi8(-128)) } else { codes }
}

/// Stages rows in fours, the codes of a channel side by side in a dword: 64 channels, or FOLD segments of 64 / FOLD.
///
/// # Safety
/// The contract of [`StageFn`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn stage_quads<const FOLD: usize, const SIGNED: bool>(s: &Stage<'_>) {
    for (block, rows) in s.sources.chunks_exact(4 * FOLD).enumerate() {
        let mut sources = [[core::ptr::null::<u8>(); FOLD]; 4];
        for (i, &source) in rows.iter().enumerate() {
            sources[i / FOLD][i % FOLD] = source;
        }
        let mut to = s.to.wrapping_add(block * s.block);
        for at in 0..s.count {
            let mut x = [_mm512_setzero_si512(); 4];
            for i in 0..4 {
                let y = |f: usize| sources[i][f % FOLD].wrapping_add(at * s.pitch);
                // SAFETY: 64 / FOLD bytes are readable in each column of a source.
                let codes = unsafe {
                    match FOLD {
                        1 => _mm512_loadu_si512(y(0).cast()),
                        2 => _mm512_inserti64x4::<1>(
                            _mm512_castsi256_si512(_mm256_loadu_si256(y(0).cast())),
                            _mm256_loadu_si256(y(1).cast()),
                        ),
                        _ => {
                            let lane = |f: usize| _mm_loadu_si128(y(f).cast());
                            let low = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(lane(0)), lane(1));
                            let high = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(lane(2)), lane(3));
                            _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high)
                        }
                    }
                };
                x[i] = unsigned::<SIGNED>(codes);
            }
            for (v, quads) in interleave(x).into_iter().enumerate() {
                // SAFETY: a block holds 256 bytes a column.
                unsafe { _mm512_storeu_si512(to.wrapping_add(64 * v).cast(), quads) };
            }
            to = to.wrapping_add(256);
        }
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
unsafe fn depthwise<const MR: usize, const FOLD: usize, const STORE: Store>(t: &Tile<'_>) {
    // SAFETY: passed on.
    unsafe {
        if STORE == CODES && !t.epilogue.bias.is_empty() {
            depthwise_tiles::<MR, FOLD, STORE, true>(t);
        } else {
            depthwise_tiles::<MR, FOLD, STORE, false>(t);
        }
    }
}

/// `BIAS`: R6 adds a float.
///
/// # Safety
/// As [`depthwise`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn depthwise_tiles<const MR: usize, const FOLD: usize, const STORE: Store, const BIAS: bool>(t: &Tile<'_>) {
    let mut corrected = MaybeUninit::uninit();
    for tile in 0..t.count {
        let rows = t.rows.wrapping_add(tile * t.runs * MR);
        let y = t.output.wrapping_add(tile * MR * t.stride);
        // SAFETY: passed on; the initial values are four vectors a pixel, or the same four for all.
        unsafe {
            let (initial, pixel) = if t.epilogue.weight_zero_point.is_empty() {
                (t.epilogue.initial.as_ptr().add(t.first).cast::<__m512i>(), 0)
            } else {
                depthwise_corrected::<MR>(rows, t, &mut corrected);
                (corrected.as_ptr().cast(), 4)
            };
            let mut acc = [[_mm512_setzero_si512(); 4]; MR];
            for i in 0..MR {
                for v in 0..4 {
                    acc[i][v] = initial.add(i * pixel + v).read_unaligned();
                }
            }
            let acc = columns::<MR, true>(rows, acc, t);
            if STORE == CODES {
                store_codes::<MR, FOLD, BIAS>(acc, y, t);
            } else {
                store_words::<MR, FOLD, STORE>(acc, y, t);
            }
        }
    }
}

/// A window of known extents: vector by vector, so that its weights stay in registers and neighbouring pixels share
/// the columns they load. `count` pixels, of which the last tile may compute some again.
///
/// # Safety
/// The contract of [`TileFn`], for `count` ≥ `WINDOW_ROWS` pixels whose columns follow each other.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn window<const KERNEL: usize, const BLOCKS: usize, const FOLD: usize, const STORE: Store>(t: &Tile<'_>) {
    // SAFETY: passed on.
    unsafe {
        if STORE == CODES && !t.epilogue.bias.is_empty() {
            window_tiles::<KERNEL, BLOCKS, FOLD, STORE, true>(t);
        } else {
            window_tiles::<KERNEL, BLOCKS, FOLD, STORE, false>(t);
        }
    }
}

/// # Safety
/// As [`window`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn window_tiles<
    const KERNEL: usize,
    const BLOCKS: usize,
    const FOLD: usize,
    const STORE: Store,
    const BIAS: bool,
>(
    t: &Tile<'_>,
) {
    const MR: usize = WINDOW_ROWS;
    let mut corrected = MaybeUninit::uninit();
    for tile in 0..t.count.div_ceil(MR) {
        let pixel = (tile * MR).min(t.count - MR);
        let y = t.output.wrapping_add(pixel * t.stride);
        // SAFETY: the columns of `count` pixels follow the one that the first pointer of the table points to; the
        // panel holds four vectors for every column and block of the window.
        unsafe {
            let staged = (*t.rows).add(pixel * 256);
            let x = staged.add(t.channel);
            let (initial, step) = if t.epilogue.weight_zero_point.is_empty() {
                (t.epilogue.initial.as_ptr().add(t.first).cast::<__m512i>(), 0)
            } else {
                let mut rows = [staged; 5 * MR];
                for (at, row) in rows[..KERNEL * MR].iter_mut().enumerate() {
                    *row = staged.add((at % MR + at / MR) * 256);
                }
                depthwise_corrected::<MR>(rows.as_ptr(), t, &mut corrected);
                (corrected.as_ptr().cast(), 4)
            };
            let v0 = window_vector::<KERNEL, BLOCKS, FOLD, STORE, BIAS, 0>(x, initial, step, t);
            let v1 = window_vector::<KERNEL, BLOCKS, FOLD, STORE, BIAS, 1>(x, initial, step, t);
            if STORE == CODES {
                // Narrowed by halves, finished vectors fit into registers next to the ones in work.
                let ends = epilogue::ends(t);
                let mut low = [_mm512_setzero_si512(); MR];
                for i in 0..MR {
                    low[i] = epilogue::narrow_half([v0[i], v1[i]], ends);
                }
                let v2 = window_vector::<KERNEL, BLOCKS, FOLD, STORE, BIAS, 2>(x, initial, step, t);
                let v3 = window_vector::<KERNEL, BLOCKS, FOLD, STORE, BIAS, 3>(x, initial, step, t);
                for i in 0..MR {
                    let high = epilogue::narrow_half([v2[i], v3[i]], ends);
                    store_segments::<FOLD>(epilogue::narrow_words(low[i], high, ends), y.wrapping_add(i * t.stride), t);
                }
                continue;
            }
            let v2 = window_vector::<KERNEL, BLOCKS, FOLD, STORE, BIAS, 2>(x, initial, step, t);
            let v3 = window_vector::<KERNEL, BLOCKS, FOLD, STORE, BIAS, 3>(x, initial, step, t);
            let mut pixels = [[_mm512_setzero_si512(); 4]; MR];
            for i in 0..MR {
                pixels[i] = [v0[i], v1[i], v2[i], v3[i]];
            }
            store_words::<MR, FOLD, STORE>(pixels, y, t);
        }
    }
}

/// Vector `V` of a tile's pixels: scaled if codes are stored, else accumulators.
///
/// # Safety
/// As [`window`], for the tile whose first column is `x`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn window_vector<
    const KERNEL: usize,
    const BLOCKS: usize,
    const FOLD: usize,
    const STORE: Store,
    const BIAS: bool,
    const V: usize,
>(
    x: *const u8,
    initial: *const __m512i,
    step: usize,
    t: &Tile<'_>,
) -> [__m512i; WINDOW_ROWS] {
    let mut acc = [_mm512_setzero_si512(); WINDOW_ROWS];
    // SAFETY: by this function's contract.
    unsafe {
        for i in 0..WINDOW_ROWS {
            acc[i] = initial.add(i * step + V).read_unaligned();
        }
        for i in 0..WINDOW_ROWS {
            for k in 0..KERNEL {
                for b in 0..BLOCKS {
                    let codes = _mm512_loadu_si512(x.add(b * t.block + (i + k) * 256 + 64 * V).cast());
                    let weights = _mm512_loadu_si512(t.weights.add(((k * BLOCKS + b) * 4 + V) * 64).cast());
                    acc[i] = _mm512_dpbusd_epi32(acc[i], codes, weights);
                }
            }
        }
        if STORE == CODES { epilogue::scale_pixels::<WINDOW_ROWS, BIAS>(acc, t.first + 16 * V, t) } else { acc }
    }
}

/// Initial values less z_W · Σ x. Through memory: in one function with the rest, the rest would lose its registers.
///
/// # Safety
/// The contract of [`TileFn`], and weight zero points are present.
#[cold]
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn depthwise_corrected<const MR: usize>(
    rows: *const *const u8,
    t: &Tile<'_>,
    initial: &mut MaybeUninit<[[__m512i; 4]; MR]>,
) {
    let mut acc = [[_mm512_setzero_si512(); 4]; MR];
    // SAFETY: passed on.
    unsafe {
        let sums = columns::<MR, false>(rows, acc, t);
        epilogue::start::<MR, 4>(&mut acc, t);
        epilogue::subtract_channel_sums::<MR, 4>(&mut acc, sums, t);
    }
    initial.write(acc);
}

/// Adds the staged columns of MR pixels, each code times its weight (`WEIGHTED`) or, where it has one, times 1.
///
/// # Safety
/// The contract of [`TileFn`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn columns<const MR: usize, const WEIGHTED: bool>(
    rows: *const *const u8,
    mut acc: [[__m512i; 4]; MR],
    t: &Tile<'_>,
) -> [[__m512i; 4]; MR] {
    let ones = t.weights.wrapping_add(256 * t.runs * t.quads);
    let mut w = t.weights;
    for run in 0..t.runs {
        let mut x = [core::ptr::null::<u8>(); MR];
        for i in 0..MR {
            // SAFETY: the table holds runs × MR pointers.
            x[i] = unsafe { *rows.add(run * MR + i) }.wrapping_add(t.channel);
        }
        for block in 0..t.quads {
            let mut weights = [_mm512_setzero_si512(); 4];
            for v in 0..4 {
                let from =
                    if WEIGHTED { w.wrapping_add(64 * v) } else { ones.wrapping_add(64 * (run * t.quads + block)) };
                // SAFETY: the panel holds four vectors for every run and block, then one of ones.
                weights[v] = unsafe { _mm512_loadu_si512(from.cast()) };
            }
            for i in 0..MR {
                for v in 0..4 {
                    // SAFETY: a staged column holds four vectors a block.
                    let codes = unsafe { _mm512_loadu_si512(x[i].add(block * t.block + 64 * v).cast()) };
                    acc[i][v] = _mm512_dpbusd_epi32(acc[i][v], codes, weights[v]);
                }
            }
            w = w.wrapping_add(256);
        }
    }
    acc
}

/// Vector v of every pixel.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn column<const MR: usize>(acc: &[[__m512i; 4]; MR], v: usize) -> [__m512i; MR] {
    let mut column = [_mm512_setzero_si512(); MR];
    for i in 0..MR {
        column[i] = acc[i][v];
    }
    column
}

/// R6 for MR pixels of 64 channels, or of FOLD segments of 64 / FOLD channels, each stored to its own place.
///
/// # Safety
/// The contract of [`TileFn`], with `y` in place of the output.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn store_codes<const MR: usize, const FOLD: usize, const BIAS: bool>(
    acc: [[__m512i; 4]; MR],
    y: *mut u8,
    t: &Tile<'_>,
) {
    let mut scaled = [[_mm512_setzero_si512(); 4]; MR];
    for v in 0..4 {
        // SAFETY: the epilogue's vectors reach over the panel.
        let vector = unsafe { epilogue::scale_pixels::<MR, BIAS>(column(&acc, v), t.first + 16 * v, t) };
        for i in 0..MR {
            scaled[i][v] = vector[i];
        }
    }
    // SAFETY: passed on; the instruction set is this function's.
    unsafe {
        let ends = epilogue::ends(t);
        for i in 0..MR {
            store_segments::<FOLD>(epilogue::narrow(scaled[i], ends), y.wrapping_add(i * t.stride), t);
        }
    }
}

/// Stores a pixel of each segment.
///
/// # Safety
/// As [`store_codes`].
#[inline(always)]
unsafe fn store_segments<const FOLD: usize>(codes: __m512i, y: *mut u8, t: &Tile<'_>) {
    let mask = epilogue::below(t.channels);
    // SAFETY: every segment's pixel is writable for `channels` channels, the mask leaves out what lies beyond.
    unsafe {
        match FOLD {
            1 => _mm512_mask_storeu_epi8(y.cast(), mask, codes),
            2 => {
                let second = _mm512_extracti64x4_epi64::<1>(codes);
                _mm256_mask_storeu_epi8(y.cast(), mask as u32, _mm512_castsi512_si256(codes));
                _mm256_mask_storeu_epi8(y.wrapping_add(t.segment).cast(), mask as u32, second);
            }
            _ => {
                for (f, lane) in lanes(codes).into_iter().enumerate() {
                    _mm_mask_storeu_epi8(y.wrapping_add(f * t.segment).cast(), mask as u16, lane);
                }
            }
        }
    }
}

/// The same for accumulators and R9.
///
/// # Safety
/// As [`store_codes`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn store_words<const MR: usize, const FOLD: usize, const STORE: Store>(
    acc: [[__m512i; 4]; MR],
    y: *mut u8,
    t: &Tile<'_>,
) {
    let mask = epilogue::below(t.channels);
    for i in 0..MR {
        for v in 0..4 {
            let mut words = acc[i][v];
            if STORE == REALS {
                // SAFETY: the epilogue's vectors reach over the panel.
                words = _mm512_castps_si512(unsafe { epilogue::real(words, t.first + 16 * v, t) });
            }
            // Dword d of lane l belongs to channel 16·l + 4·v + d of all segments.
            for (l, dwords) in lanes(words).into_iter().enumerate() {
                let (f, channel) = (l * FOLD / 4, 16 * (l % (4 / FOLD)) + 4 * v);
                let y = y.wrapping_add(i * t.stride + f * t.segment + 4 * channel);
                // SAFETY: as in `store_codes`, four channels of 4 bytes.
                unsafe { _mm_mask_storeu_epi32(y.cast(), (mask >> channel) as u8, dwords) };
            }
        }
    }
}

/// The four 128-bit lanes.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
fn lanes(v: __m512i) -> [__m128i; 4] {
    [
        _mm512_castsi512_si128(v),
        _mm512_extracti32x4_epi32::<1>(v),
        _mm512_extracti32x4_epi32::<2>(v),
        _mm512_extracti32x4_epi32::<3>(v),
    ]
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
    let mut corrected = MaybeUninit::uninit();
    for tile in 0..t.count {
        let rows = t.rows.wrapping_add(tile * t.runs * MR);
        let y = t.output.wrapping_add(tile * MR * t.stride);
        // SAFETY: passed on; the initial values are a vector a pixel, or the same for all.
        unsafe {
            let (initial, step) = if t.epilogue.weight_zero_point.is_empty() {
                (t.epilogue.initial.as_ptr().add(t.first).cast::<__m512i>(), 0)
            } else {
                grouped_corrected::<MR, QUADS>(rows, t, &mut corrected);
                (corrected.as_ptr().cast(), 1)
            };
            let acc = in_order(codes::<MR, QUADS, true>(rows, t));
            finish_pixels::<MR, STORE, BIAS>(acc, initial, step, y, t);
        }
    }
}

/// Adds initial values, `step` vectors apart, and stores. Always inlined: a call would pass accumulators through
/// memory.
///
/// # Safety
/// The contract of [`TileFn`], with `y` in place of the output.
#[inline(always)]
unsafe fn finish_pixels<const MR: usize, const STORE: Store, const BIAS: bool>(
    mut acc: [__m512i; MR],
    initial: *const __m512i,
    step: usize,
    y: *mut u8,
    t: &Tile<'_>,
) {
    // SAFETY: by this function's contract.
    unsafe {
        for i in 0..MR {
            acc[i] = _mm512_add_epi32(acc[i], initial.add(i * step).read_unaligned());
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
unsafe fn grouped_window<const QUADS: usize, const STRIDE: usize, const STORE: Store>(t: &Tile<'_>) {
    // SAFETY: passed on.
    unsafe {
        if STORE == CODES && !t.epilogue.bias.is_empty() {
            grouped_window_tiles::<QUADS, STRIDE, STORE, true>(t);
        } else {
            grouped_window_tiles::<QUADS, STRIDE, STORE, false>(t);
        }
    }
}

/// # Safety
/// As [`grouped_window`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn grouped_window_tiles<const QUADS: usize, const STRIDE: usize, const STORE: Store, const BIAS: bool>(
    t: &Tile<'_>,
) {
    const MR: usize = WINDOW_ROWS;
    let mut corrected = MaybeUninit::uninit();
    for tile in 0..t.count.div_ceil(MR) {
        let pixel = (tile * MR).min(t.count - MR);
        let y = t.output.wrapping_add(pixel * t.stride);
        // SAFETY: the columns of `count` pixels follow the one that the first pointer of the table points to; the
        // panel holds QUADS vectors for every column and row of the window.
        unsafe {
            let staged = (*t.rows).add(pixel * STRIDE * 64);
            let x = staged.add(t.channel);
            let (initial, step) = if t.epilogue.weight_zero_point.is_empty() {
                (t.epilogue.initial.as_ptr().add(t.first).cast::<__m512i>(), 0)
            } else {
                let mut rows = [staged; 3 * MR];
                for (at, row) in rows.iter_mut().enumerate() {
                    *row = staged.add((at % MR * STRIDE + at / MR) * 64);
                }
                grouped_corrected::<MR, QUADS>(rows.as_ptr(), t, &mut corrected);
                (corrected.as_ptr().cast(), 1)
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
            finish_pixels::<MR, STORE, BIAS>(in_order(acc), initial, step, y, t);
        }
    }
}

/// Initial values less z_W · Σ x.
///
/// # Safety
/// The contract of [`TileFn`], and weight zero points are present.
#[cold]
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni")]
unsafe fn grouped_corrected<const MR: usize, const QUADS: usize>(
    rows: *const *const u8,
    t: &Tile<'_>,
    initial: &mut MaybeUninit<[[__m512i; 1]; MR]>,
) {
    let (mut acc, mut channel_sums) = ([[_mm512_setzero_si512(); 1]; MR], [[_mm512_setzero_si512(); 1]; MR]);
    // SAFETY: passed on.
    unsafe {
        let sums = in_order(codes::<MR, QUADS, false>(rows, t));
        for i in 0..MR {
            channel_sums[i][0] = sums[i];
        }
        epilogue::start::<MR, 1>(&mut acc, t);
        epilogue::subtract_channel_sums::<MR, 1>(&mut acc, channel_sums, t);
    }
    initial.write(acc);
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
            let codes = lanes(_mm512_permutexvar_epi32(by_pixel, epilogue::narrow(v, ends)));
            for i in top..(top + 4).min(MR) {
                _mm_mask_storeu_epi8(y.wrapping_add(i * t.stride).cast(), mask, codes[i - top]);
            }
        }
    }
}
