//! The kernels themselves: a file an instruction set for the dot products, two files a vector width for what
//! happens to accumulators: in a kernel (`epilogue…`), and in a step of its own (`finish…`). Depthwise and grouped
//! convolutions over staged columns are in `…rows…`, depthwise ones that read their input where it lies in
//! `depthwise_direct512`, weights that cannot saturate in `maddubs`, narrow ones in `fields512`,
//! few outputs of long sums in `dot512`, binary codes in `popcount…`.
//!
//! All of them are `unsafe fn`s with the contract of [`TileFn`](crate::micro::TileFn): they read and write
//! through raw pointers. Loops over registers have constant bounds and are unrolled.

pub(crate) mod avx2;
pub(crate) mod avx512_vnni;
pub(crate) mod avx_vnni;
pub(crate) mod depthwise_direct512;
pub(crate) mod depthwise_rows512;
pub(crate) mod dot512;
mod epilogue256;
mod epilogue512;
pub(crate) mod fields512;
pub(crate) mod finish256;
pub(crate) mod finish512;
pub(crate) mod grouped_rows512;
pub(crate) mod grouped_rows_avx2;
pub(crate) mod maddubs;
pub(crate) mod popcount256;
#[cfg(feature = "std")]
pub(crate) mod popcount512;
mod rows256;
pub(crate) mod rows_avx2;
pub(crate) mod rows_avx_vnni;

use crate::micro::Tile;
use core::arch::x86_64::{__m256i, _MM_HINT_T0, _mm_prefetch, _mm256_loadu_si256, _mm256_setzero_si256};

/// Where a run of a row is.
///
/// # Safety
/// `t` has this row and this run.
#[inline(always)]
unsafe fn row_at(t: &Tile<'_>, row: usize, run: usize) -> *const u8 {
    // SAFETY: by this function's contract.
    let (row, run) = unsafe { (*t.rows.add(row), t.runs.get_unchecked(run)) };
    row.wrapping_offset(run.codes).wrapping_add(t.channel)
}

/// Where MR rows are, from row `top` on. Read anew wherever it is called: a tile's pointers and its loop need more
/// registers than there are, and pointers that are kept from run to run would be stored and loaded again instead.
///
/// # Safety
/// `t` has these rows.
#[inline(always)]
unsafe fn rows<const MR: usize>(t: &Tile<'_>, top: usize) -> [*const u8; MR] {
    // SAFETY: by this function's contract.
    core::array::from_fn(|row| unsafe { t.rows.add(top + row).read_volatile() })
}

/// The panels of a call, `width` channels of `element` bytes each, as calls of their own.
#[inline(always)]
fn panels<'a>(t: &Tile<'a>, width: usize, element: usize) -> impl Iterator<Item = Tile<'a>> {
    let t = *t;
    (0..t.channels.div_ceil(width)).map(move |panel| {
        let (channel, bytes) = (panel * width, panel * t.panel_bytes);
        Tile {
            weights: t.weights.wrapping_add(bytes),
            ahead: t.ahead.wrapping_add(bytes),
            initial: t.initial.wrapping_add(channel),
            first: t.first + channel,
            output: t.output.wrapping_add(channel * element),
            channels: (t.channels - channel).min(width),
            ..t
        }
    })
}

/// The lines of a call of a row kernel, as calls of their own.
#[inline(always)]
fn lines<'a>(t: &Tile<'a>) -> impl Iterator<Item = Tile<'a>> {
    let t = *t;
    (0..t.lines).map(move |line| Tile {
        channel: t.channel + line * t.line_input,
        output: t.output.wrapping_add(line * t.line_output),
        lines: 1,
        ..t
    })
}

/// Four codes, as a dword.
///
/// # Safety
/// They are readable `at` bytes from `x`.
#[inline(always)]
unsafe fn quad(x: *const u8, at: isize) -> i32 {
    // SAFETY: by this function's contract.
    unsafe { x.wrapping_offset(at).cast::<i32>().read_unaligned() }
}

/// NV vectors.
///
/// # Safety
/// They are readable at `w`.
#[inline]
#[target_feature(enable = "avx2,fma")]
unsafe fn load<const NV: usize>(w: *const u8) -> [__m256i; NV] {
    let mut v = [_mm256_setzero_si256(); NV];
    for j in 0..NV {
        // SAFETY: by this function's contract.
        v[j] = unsafe { _mm256_loadu_si256(w.add(32 * j).cast()) };
    }
    v
}

/// Whether tiles of NV vectors and U parts of K ask for weights. To ask for a line takes a load. None do where weights are left
/// to the hardware, so that as many loads as possible wait for memory, nor large tiles of one vector, which load more than
/// they multiply and are the last of their channels.
#[inline(always)]
fn asks<const NV: usize, const U: usize>(t: &Tile<'_>) -> bool {
    if U > 1 { t.ahead_step > 0 } else { NV > 1 }
}

/// Asks for the cache lines of N vectors of `BYTES` bytes. Where they are does not matter: nothing is read.
#[inline(always)]
fn prefetch<const N: usize, const BYTES: usize>(from: *const u8) {
    for line in 0..(N * BYTES).div_ceil(64) {
        // SAFETY: SSE is part of x86-64; a prefetch of any address has no effect but on caches.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add(64 * line).cast()) };
    }
}
