//! Typed views of a caller's buffers.

use crate::{CodeType, Error};
use core::ops::Range;

/// An 8-bit code: `u8` or `i8`.
pub trait Code: Copy + Into<i32> + Into<i16> + Ord + Send + Sync + 'static {
    /// The smallest code.
    const MIN: Self;
    /// The code with this value.
    ///
    /// The caller has clamped `v` to the type's range; anything else is truncated to its low byte.
    fn from_i32(v: i32) -> Self;
}

impl Code for u8 {
    const MIN: u8 = 0;
    fn from_i32(v: i32) -> u8 {
        v as u8
    }
}

impl Code for i8 {
    const MIN: i8 = i8::MIN;
    fn from_i32(v: i32) -> i8 {
        v as i8
    }
}

/// Activations to read: NHWC codes.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Unsigned codes.
    U8(&'a [u8]),
    /// Signed codes.
    I8(&'a [i8]),
}

impl Input<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Input::U8(x) => x.len(),
            Input::I8(x) => x.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element type's name.
    pub fn element_type(&self) -> &'static str {
        match self {
            Input::U8(_) => "u8",
            Input::I8(_) => "i8",
        }
    }

    /// Checks that elements are codes of a type. Types of 8 bits take no time.
    ///
    /// # Errors
    /// [`Error::Code`] for the first that is none.
    ///
    /// # Panics
    /// If the range lies outside.
    pub fn check_codes(&self, codes: CodeType, range: Range<usize>) -> Result<(), Error> {
        fn check<X: Code>(x: &[X], first: usize, codes: CodeType) -> Result<(), Error> {
            let is_code = |x: X| (codes.lo()..=codes.hi()).contains(&x.into());
            // Without a way out of the loop, so that it is one of vectors.
            if x.iter().fold(true, |all, &x| all & is_code(x)) {
                return Ok(());
            }
            let expected = alloc::format!("a value in {}..={}", codes.lo(), codes.hi());
            let found = x.iter().position(|&x| !is_code(x)).unwrap_or(0);
            let got: i32 = x[found].into();
            Err(Error::Code { what: "input", index: first + found, got: got.into(), expected })
        }
        match self {
            _ if codes.bits() == 8 => Ok(()),
            Input::U8(x) => check(&x[range.clone()], range.start, codes),
            Input::I8(x) => check(&x[range.clone()], range.start, codes),
        }
    }
}

/// A tensor that a layer adds to its own outputs before they are rounded
/// ([`Sum`](crate::requantize::Sum)): laid out as the output is, the rows and channels of a
/// [`Region`](crate::Region), row by row.
#[derive(Clone, Copy, Debug)]
pub enum Addend<'a> {
    /// There is none.
    None,
    /// Unsigned codes.
    U8(&'a [u8]),
    /// Signed codes.
    I8(&'a [i8]),
    /// Real numbers.
    F32(&'a [f32]),
}

impl Addend<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Addend::None => 0,
            Addend::U8(a) => a.len(),
            Addend::I8(a) => a.len(),
            Addend::F32(a) => a.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element type's name, `nothing` without an addend.
    pub fn element_type(&self) -> &'static str {
        match self {
            Addend::None => "nothing",
            Addend::U8(_) => "u8",
            Addend::I8(_) => "i8",
            Addend::F32(_) => "f32",
        }
    }

    /// The element at an index, codes as exact numbers; 0 without an addend.
    ///
    /// # Panics
    /// If there is an addend and the index lies outside.
    #[inline]
    pub fn get(&self, index: usize) -> f32 {
        match self {
            Addend::None => 0.0,
            Addend::U8(a) => a[index].into(),
            Addend::I8(a) => a[index].into(),
            Addend::F32(a) => a[index],
        }
    }
}

/// A buffer to write: the rows and channels of a [`Region`](crate::Region), row by row.
#[derive(Debug)]
pub enum Output<'a> {
    /// Unsigned codes.
    U8(&'a mut [u8]),
    /// Signed codes.
    I8(&'a mut [i8]),
    /// Accumulators.
    I32(&'a mut [i32]),
    /// Real numbers.
    F32(&'a mut [f32]),
}

impl Output<'_> {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Output::U8(y) => y.len(),
            Output::I8(y) => y.len(),
            Output::I32(y) => y.len(),
            Output::F32(y) => y.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element type's name.
    pub fn element_type(&self) -> &'static str {
        match self {
            Output::U8(_) => "u8",
            Output::I8(_) => "i8",
            Output::I32(_) => "i32",
            Output::F32(_) => "f32",
        }
    }
}

/// A length check that names the slice.
pub(crate) fn expect_len(what: &'static str, got: usize, expected: usize) -> Result<(), Error> {
    if got == expected { Ok(()) } else { Err(Error::Length { what, got, expected: alloc::format!("{expected}") }) }
}

/// A length check for data that is split evenly among channels.
pub(crate) fn expect_multiple(what: &'static str, got: usize, channels: usize) -> Result<(), Error> {
    if got > 0 && channels > 0 && got.is_multiple_of(channels) {
        Ok(())
    } else {
        Err(Error::Length { what, got, expected: alloc::format!("a positive multiple of {channels}, the channels") })
    }
}

/// A length check for parameters given once or once a channel.
pub(crate) fn expect_one_or(what: &'static str, got: usize, channels: usize) -> Result<(), Error> {
    if got == 1 || got == channels {
        Ok(())
    } else {
        Err(Error::Length { what, got, expected: alloc::format!("1 or {channels} (one an output channel)") })
    }
}

/// A parameter given once or once a channel.
#[inline(always)]
pub(crate) fn per_channel<T: Copy>(parameter: &[T], channel: usize) -> T {
    if parameter.len() == 1 { parameter[0] } else { parameter[channel] }
}
