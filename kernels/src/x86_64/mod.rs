//! The kernels themselves: a file an instruction set for the dot products, a file a vector width for what
//! happens to accumulators.
//!
//! All of them are `unsafe fn`s with the contract of [`TileFn`](crate::micro::TileFn): they read and write
//! through raw pointers. Loops over registers have constant bounds and are unrolled.

pub(crate) mod avx2;
pub(crate) mod avx512_vnni;
pub(crate) mod avx_vnni;
mod epilogue256;
mod epilogue512;

/// The last one to three bytes of a run as a dword; the weights beyond them are 0.
///
/// # Safety
/// `len` bytes are readable at `x`.
#[inline(always)]
unsafe fn last_bytes(x: *const u8, len: usize) -> i32 {
    let mut dword = 0;
    for i in 0..len {
        // SAFETY: `i < len`.
        dword |= i32::from(unsafe { x.add(i).read() }) << (8 * i);
    }
    dword
}
