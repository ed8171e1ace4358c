//! What can be wrong with a request, with both the value found and what was expected.

use alloc::string::String;
use core::fmt;

/// Why a shape, a quantization, a rule or a buffer was refused.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// An extent of a shape makes no sense: a zero stride, a kernel wider than its padded input, …
    Extent {
        /// Which extent, for example `stride (height)`.
        what: &'static str,
        /// Its value.
        got: usize,
        /// What it should have been.
        expected: String,
    },
    /// A product of extents does not fit the address space.
    TooLarge {
        /// What was being counted, for example `elements of the output`.
        what: &'static str,
    },
    /// A slice has the wrong number of elements.
    Length {
        /// Which slice.
        what: &'static str,
        /// Its length.
        got: usize,
        /// What it should have been.
        expected: String,
    },
    /// A range of rows or channels reaches outside the output.
    Range {
        /// `rows` or `channels`.
        what: &'static str,
        /// First index.
        start: usize,
        /// One past the last index.
        end: usize,
        /// How many there are.
        available: usize,
    },
    /// A scale is not a finite positive number (as f64, and after rounding to f32).
    Scale {
        /// Whose scale.
        what: &'static str,
        /// Its value.
        got: f64,
    },
    /// A ratio of scales is out of the range for which a rule is defined.
    Ratio {
        /// Which ratio.
        what: &'static str,
        /// Its value.
        got: f64,
        /// What it should have been.
        expected: &'static str,
    },
    /// A zero point, a clamp bound or a code lies outside the range of its type.
    OutOfRange {
        /// Which number.
        what: &'static str,
        /// Its value.
        got: i64,
        /// Smallest value allowed.
        lo: i64,
        /// Largest value allowed.
        hi: i64,
    },
    /// An element of a tensor is not one of the codes that its type allows.
    Code {
        /// Which tensor.
        what: &'static str,
        /// Which element.
        index: usize,
        /// Its value.
        got: i64,
        /// What it should have been.
        expected: String,
    },
    /// A real number from which no parameter can be computed.
    Number {
        /// Which number.
        what: &'static str,
        /// Its value.
        got: f64,
        /// What it should have been.
        expected: String,
    },
    /// The element type of a buffer is not the one the layer was built for.
    ElementType {
        /// `input` or `output`.
        what: &'static str,
        /// The type found.
        got: &'static str,
        /// The type expected.
        expected: &'static str,
    },
    /// A line of text does not describe a shape.
    Parse {
        /// The part that was not understood.
        text: String,
        /// What was expected there.
        expected: &'static str,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Extent { what, got, expected } => write!(f, "{what} is {got}, expected {expected}"),
            Error::TooLarge { what } => write!(f, "the number of {what} does not fit the address space"),
            Error::Length { what, got, expected } => write!(f, "{what} has {got} elements, expected {expected}"),
            Error::Range { what, start, end, available } => {
                write!(f, "{what} {start}..{end} do not lie within 0..{available}, or are empty")
            }
            Error::Scale { what, got } => {
                write!(f, "{what} is {got}, expected a finite number greater than zero, also after rounding to f32")
            }
            Error::Ratio { what, got, expected } => write!(f, "{what} is {got}, expected {expected}"),
            Error::OutOfRange { what, got, lo, hi } => write!(f, "{what} is {got}, expected a value in {lo}..={hi}"),
            Error::Code { what, index, got, expected } => write!(f, "{what} {index} is {got}, expected {expected}"),
            Error::Number { what, got, expected } => write!(f, "{what} is {got}, expected {expected}"),
            Error::ElementType { what, got, expected } => write!(f, "{what} holds {got}, expected {expected}"),
            Error::Parse { text, expected } => write!(f, "`{text}` is not {expected}"),
        }
    }
}

impl core::error::Error for Error {}
