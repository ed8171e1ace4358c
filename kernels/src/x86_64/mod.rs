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
mod rows256;
pub(crate) mod rows512;
pub(crate) mod rows_avx2;
pub(crate) mod rows_avx_vnni;

/// Four codes from `k` on, as a dword; codes beyond the run read as 0.
///
/// # Safety
/// `run_len` bytes are readable at `x`, and `k < run_len`.
#[inline(always)]
unsafe fn quad(x: *const u8, k: usize, run_len: usize) -> i32 {
    let rest = run_len - k;
    if rest >= 4 {
        // SAFETY: `k + 4 <= run_len`.
        unsafe { x.add(k).cast::<i32>().read_unaligned() }
    } else if run_len >= 4 {
        // SAFETY: the last four bytes of the run; those before `k` are shifted out.
        let last = unsafe { x.add(run_len - 4).cast::<u32>().read_unaligned() };
        (last >> (8 * (4 - rest))) as i32
    } else {
        // SAFETY: `rest` bytes are left.
        unsafe {
            match rest {
                1 => x.add(k).read().into(),
                2 => x.add(k).cast::<u16>().read_unaligned().into(),
                _ => i32::from(x.add(k).cast::<u16>().read_unaligned()) | i32::from(x.add(k + 2).read()) << 16,
            }
        }
    }
}
