//! Functions of one code, as tables of 256 bytes.

use super::expect_len;
use crate::{Isa, IsaName};
#[cfg(target_arch = "x86_64")]
use core::arch::x86_64::*;
use core::marker::PhantomData;
use qexact_reference::recode::Recode;
use qexact_reference::table::Table;
use qexact_reference::{Code, Error};

/// What a function gives for every code of type `X`, ready to be looked up in registers. Rules that take many steps
/// (R28 multiplies in 64 bits) cost no more than a ReLU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup<X, Y> {
    /// Of the code whose byte is the index.
    entries: [u8; 256],
    steps: [[u8; 16]; 16],
    types: PhantomData<(X, Y)>,
}

impl<X: Code, Y: Code> Lookup<X, Y> {
    /// The values of `f`, which gives codes of type `Y`.
    pub fn new(f: impl Fn(i32) -> i32) -> Lookup<X, Y> {
        let entry = |byte: usize| byte_of(Y::from_i32(f(X::from_i32(byte as i32).into())));
        let entries: [u8; 256] = core::array::from_fn(entry);
        let step = |i: usize| if i % 128 < 16 { entries[i] } else { entries[i] ^ entries[i - 16] };
        let steps = core::array::from_fn(|row| core::array::from_fn(|i| step(16 * row + i)));
        Lookup { entries, steps, types: PhantomData }
    }

    /// R27
    pub fn of_table(table: &Table) -> Lookup<X, Y> {
        Lookup::new(|code| table.apply(code))
    }

    /// R28
    pub fn of_recode(rule: &Recode) -> Lookup<X, Y> {
        Lookup::new(|code| rule.apply(code))
    }

    /// R13: `max(q, zero_point)`.
    pub fn of_relu(zero_point: i32) -> Lookup<X, Y> {
        Lookup::new(|code| code.max(zero_point))
    }

    /// The value of every code.
    ///
    /// # Errors
    /// Slices of different lengths.
    pub fn run(&self, isa: Isa, x: &[X], y: &mut [Y]) -> Result<(), Error> {
        expect_len("output", y.len(), x.len())?;
        let done = match isa.name() {
            IsaName::Reference => 0,
            // SAFETY: the token vouches for AVX2.
            #[cfg(target_arch = "x86_64")]
            IsaName::Avx2 | IsaName::AvxVnni => unsafe { blocks_256(&self.steps, x, y) },
            // SAFETY: the token vouches for AVX-512 F and BW.
            #[cfg(target_arch = "x86_64")]
            IsaName::Avx512Vnni => unsafe { blocks_512(&self.steps, x, y) },
            #[cfg(not(target_arch = "x86_64"))]
            _ => 0,
        };
        for (y, &x) in y[done..].iter_mut().zip(&x[done..]) {
            *y = Y::from_i32(self.entries[usize::from(byte_of(x))].into());
        }
        Ok(())
    }
}

#[inline(always)]
fn byte_of<T: Code>(code: T) -> u8 {
    let code: i32 = code.into();
    code as u8
}

// A shuffle of bytes looks up 16 entries: by the low four bits of an index, or 0 where bit 7 is set. With the 128
// entries of a half in rows T[0..8] of 16, and row k holding T[k] ^ T[k − 1] (`steps`), an index less 16·k finds its
// step in all rows up to its own and 0 in those after, where it has become negative: the steps add up to T[row]. The
// other half's indices are negative from the start, and the subtraction saturates.

/// Looks up as many codes as whole vectors hold; the number of them.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn blocks_256<X: Code, Y: Code>(steps: &[[u8; 16]; 16], x: &[X], y: &mut [Y]) -> usize {
    const LEN: usize = 32;
    for (x, y) in x.chunks_exact(LEN).zip(y.chunks_exact_mut(LEN)) {
        let mut codes: [u8; LEN] = core::array::from_fn(|i| byte_of(x[i]));
        // SAFETY: 32 bytes are readable.
        let x = unsafe { _mm256_loadu_si256(codes.as_ptr().cast()) };
        let mut found = _mm256_setzero_si256();
        for (half, x) in [x, _mm256_xor_si256(x, _mm256_set1_epi8(i8::MIN))].into_iter().enumerate() {
            for k in 0..8 {
                // SAFETY: a row has 16 bytes.
                let row = unsafe { _mm_loadu_si128(steps[8 * half + k].as_ptr().cast()) };
                let at = _mm256_subs_epi8(x, _mm256_set1_epi8(16 * k as i8));
                found = _mm256_xor_si256(found, _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(row), at));
            }
        }
        // SAFETY: 32 bytes are writable.
        unsafe { _mm256_storeu_si256(codes.as_mut_ptr().cast(), found) };
        for (y, code) in y.iter_mut().zip(codes) {
            *y = Y::from_i32(code.into());
        }
    }
    x.len() / LEN * LEN
}

/// Likewise.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw")]
fn blocks_512<X: Code, Y: Code>(steps: &[[u8; 16]; 16], x: &[X], y: &mut [Y]) -> usize {
    const LEN: usize = 64;
    for (x, y) in x.chunks_exact(LEN).zip(y.chunks_exact_mut(LEN)) {
        let mut codes: [u8; LEN] = core::array::from_fn(|i| byte_of(x[i]));
        // SAFETY: 64 bytes are readable.
        let x = unsafe { _mm512_loadu_si512(codes.as_ptr().cast()) };
        let mut found = _mm512_setzero_si512();
        for (half, x) in [x, _mm512_xor_si512(x, _mm512_set1_epi8(i8::MIN))].into_iter().enumerate() {
            for k in 0..8 {
                // SAFETY: a row has 16 bytes.
                let row = unsafe { _mm_loadu_si128(steps[8 * half + k].as_ptr().cast()) };
                let at = _mm512_subs_epi8(x, _mm512_set1_epi8(16 * k as i8));
                found = _mm512_xor_si512(found, _mm512_shuffle_epi8(_mm512_broadcast_i32x4(row), at));
            }
        }
        // SAFETY: 64 bytes are writable.
        unsafe { _mm512_storeu_si512(codes.as_mut_ptr().cast(), found) };
        for (y, code) in y.iter_mut().zip(codes) {
            *y = Y::from_i32(code.into());
        }
    }
    x.len() / LEN * LEN
}
