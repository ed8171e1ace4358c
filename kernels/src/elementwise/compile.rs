//! Loops compiled for an instruction set.

use crate::{Isa, IsaName};

impl Isa {
    /// Runs `f`, compiled for this instruction set: the same bits, since neither Rust nor LLVM contracts or reorders
    /// operations on real numbers.
    ///
    /// Two things decide whether that is any faster. All that `f` calls must be inlined into it (`#[inline(always)]`),
    /// since what is not stays compiled for every CPU. And `f` must own what it uses (`move`): a store through a
    /// captured reference might change another captured value, for all the compiler knows, and stops it from
    /// vectorising.
    #[inline(always)]
    pub fn compile<R>(self, f: impl FnOnce() -> R) -> R {
        match self.name() {
            IsaName::Reference => f(),
            // SAFETY: the token vouches for AVX2 and FMA.
            #[cfg(target_arch = "x86_64")]
            IsaName::Avx2 | IsaName::AvxVnni => unsafe { in_256_bits(f) },
            // SAFETY: the token vouches for them and for AVX-512 F, BW and VL.
            #[cfg(target_arch = "x86_64")]
            IsaName::Avx512Vnni => unsafe { in_512_bits(f) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => f(),
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn in_256_bits<R>(f: impl FnOnce() -> R) -> R {
    f()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl")]
fn in_512_bits<R>(f: impl FnOnce() -> R) -> R {
    f()
}

/// `y[i] = f(x[i])`, over the length of the shorter.
#[inline(always)]
pub(super) fn map<X: Copy, Y>(isa: Isa, x: &[X], y: &mut [Y], f: impl Fn(X) -> Y) {
    isa.compile(
        #[inline(always)]
        move || {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = f(x);
            }
        },
    );
}

/// `y[i] = f(a[i], b[i])`, over the length of the shortest.
#[inline(always)]
pub(super) fn zip<A: Copy, B: Copy, Y>(isa: Isa, a: &[A], b: &[B], y: &mut [Y], f: impl Fn(A, B) -> Y) {
    isa.compile(
        #[inline(always)]
        move || {
            for ((y, &a), &b) in y.iter_mut().zip(a).zip(b) {
                *y = f(a, b);
            }
        },
    );
}
