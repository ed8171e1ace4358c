//! Depthwise row kernels for AVX-512-VNNI.

use super::avx512_vnni::{interleave, load, unsigned};
use super::epilogue512 as epilogue;
use crate::IsaName;
use crate::element::Element;
use crate::epilogue::{ACCUMULATORS, CODES, REALS, Store};
use crate::micro::{Kind, Microkernel, Stage, Tile, TileFn};
use crate::pack::WeightFormat;
use core::arch::x86_64::*;
use core::mem::MaybeUninit;

/// 6 × 4 accumulators, 4 vectors of weights, 1 of codes: 29 of 32.
const ROWS: usize = 6;
const _: () = assert!(ROWS * 4 + 5 <= 32);

pub(crate) const DEPTHWISE: Microkernel = Microkernel {
    name: "depthwise_rows_avx512_vnni_6x64",
    isa: IsaName::Avx512Vnni,
    kind: Kind::DepthwiseRows,
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
    more_stores: false,
    stage: Some(|vectors, signed| match (vectors, signed) {
        (4, false) => stage_quads::<1, false>,
        (4, true) => stage_quads::<1, true>,
        (2, false) => stage_quads::<2, false>,
        (2, true) => stage_quads::<2, true>,
        (_, false) => stage_quads::<4, false>,
        (_, true) => stage_quads::<4, true>,
    }),
};

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
    let mut corrections = MaybeUninit::uninit();
    for tile in 0..t.count {
        let rows = t.rows.wrapping_add(tile * t.taps * MR);
        let y = t.output.wrapping_add(tile * MR * t.stride);
        // SAFETY: passed on; a panel has four vectors of initial values.
        unsafe {
            let initial = load::<4>(t.initial.cast());
            let mut acc = columns::<MR, true>(rows, [initial; MR], t);
            if !t.epilogue.weight_zero_point.is_empty() {
                let corrections = correct::<MR>(rows, t, &mut corrections);
                for i in 0..MR {
                    for v in 0..4 {
                        acc[i][v] = _mm512_sub_epi32(acc[i][v], corrections[i][v]);
                    }
                }
            }
            if STORE == CODES {
                store_codes::<MR, FOLD, BIAS>(acc, y, t);
            } else {
                store_words::<MR, FOLD, STORE>(acc, y, t);
            }
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
unsafe fn correct<'c, const MR: usize>(
    rows: *const *const u8,
    t: &Tile<'_>,
    corrections: &'c mut MaybeUninit<[[__m512i; 4]; MR]>,
) -> &'c [[__m512i; 4]; MR] {
    // SAFETY: passed on.
    unsafe {
        let mut products = columns::<MR, false>(rows, [[_mm512_setzero_si512(); 4]; MR], t);
        epilogue::multiply_weight_zero_points(&mut products, t);
        corrections.write(products)
    }
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
    let ones = t.weights.wrapping_add(256 * t.taps * t.quads);
    let mut w = t.weights;
    for run in 0..t.taps {
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
            store_segments::<FOLD, false>(epilogue::narrow(scaled[i], ends), y.wrapping_add(i * t.stride), t);
        }
    }
}

/// Stores a pixel of each segment. `FULL`: of all channels that it has room for.
///
/// # Safety
/// As [`store_codes`].
#[inline(always)]
pub(super) unsafe fn store_segments<const FOLD: usize, const FULL: bool>(codes: __m512i, y: *mut u8, t: &Tile<'_>) {
    // The compiler makes plain stores of those with a mask of all channels.
    let mask = if FULL { u64::MAX } else { epilogue::below(t.channels) };
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
                for (f, lane) in epilogue::lanes(codes).into_iter().enumerate() {
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
pub(super) unsafe fn store_words<const MR: usize, const FOLD: usize, const STORE: Store>(
    acc: [[__m512i; 4]; MR],
    y: *mut u8,
    t: &Tile<'_>,
) {
    let mask = epilogue::below(t.channels);
    for i in 0..MR {
        for v in 0..4 {
            // SAFETY: the instruction set is this function's; the epilogue's vectors reach over the panel; as in
            // `store_codes`, four channels of 4 bytes.
            unsafe {
                let mut words = acc[i][v];
                if STORE == REALS {
                    words = _mm512_castps_si512(epilogue::real_unbranched(words, t.first + 16 * v, t));
                }
                // Dword d of lane l belongs to channel 16·l + 4·v + d of all segments.
                for (l, dwords) in epilogue::lanes(words).into_iter().enumerate() {
                    let (f, channel) = (l * FOLD / 4, 16 * (l % (4 / FOLD)) + 4 * v);
                    let y = y.wrapping_add(i * t.stride + f * t.segment + 4 * channel);
                    _mm_mask_storeu_epi32(y.cast(), (mask >> channel) as u8, dwords);
                }
            }
        }
    }
}
