//! Rule R32: the codes that a range is mapped to.

use crate::{CodeType, Error};

/// The codes of a type that an observer maps a range to: `lo..=hi`, which holds 0 and at least one more code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CodeRange {
    codes: CodeType,
    lo: i32,
    hi: i32,
    middle: i32,
}

impl CodeRange {
    /// All codes of a type.
    pub fn all(codes: CodeType) -> CodeRange {
        let middle = if codes.is_signed() { 0 } else { 1 << (codes.bits() - 1) };
        CodeRange { codes, lo: codes.lo(), hi: codes.hi(), middle }
    }

    /// One bit less than the type has, PyTorch's `reduce_range`: 0..=127 of u8, −64..=63 of i8.
    ///
    /// # Errors
    /// A type of one bit.
    pub fn reduced(codes: CodeType) -> Result<CodeRange, Error> {
        let narrower = CodeType::new(codes.bits() - 1, codes.is_signed())?;
        CodeRange::new(codes, narrower.lo(), narrower.hi())
    }

    /// The codes `lo..=hi` of a type.
    ///
    /// # Errors
    /// Bounds that are no codes of the type, that leave out 0, or that are equal.
    pub fn new(codes: CodeType, lo: i32, hi: i32) -> Result<CodeRange, Error> {
        let check = |what, got: i32, lo: i32, hi: i32| {
            let inside = (lo..=hi).contains(&got);
            if inside { Ok(()) } else { Err(Error::OutOfRange { what, got: got.into(), lo: lo.into(), hi: hi.into() }) }
        };
        check("smallest code of a range", lo, codes.lo(), 0)?;
        check("largest code of a range", hi, 0.max(lo + 1), codes.hi())?;
        let middle = if codes.is_signed() { 0 } else { (lo + hi) / 2 };
        Ok(CodeRange { codes, lo, hi, middle })
    }

    /// The type.
    pub fn codes(self) -> CodeType {
        self.codes
    }

    /// The smallest code used.
    pub fn lo(self) -> i32 {
        self.lo
    }

    /// The largest code used.
    pub fn hi(self) -> i32 {
        self.hi
    }

    /// The zero point of the symmetric scheme: 0 for signed codes; for unsigned ones the middle, rounded up for
    /// [all](CodeRange::all) codes (128 of u8) and down for [bounds](CodeRange::new) that were given, also if they are
    /// those of the type (127 for 0..=255), as in PyTorch.
    pub fn middle(self) -> i32 {
        self.middle
    }

    /// `hi − lo`
    pub(crate) fn steps(self) -> i32 {
        self.hi - self.lo
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_codes() {
        let bounds = |range: CodeRange| (range.lo(), range.hi(), range.middle());
        assert_eq!(bounds(CodeRange::all(CodeType::U8)), (0, 255, 128));
        assert_eq!(bounds(CodeRange::new(CodeType::U8, 0, 255).unwrap()), (0, 255, 127));
        assert_eq!(bounds(CodeRange::all(CodeType::I8)), (-128, 127, 0));
        assert_eq!(bounds(CodeRange::reduced(CodeType::U8).unwrap()), (0, 127, 63));
        assert_eq!(bounds(CodeRange::reduced(CodeType::I8).unwrap()), (-64, 63, 0));
        assert_eq!(bounds(CodeRange::all(CodeType::new(1, true).unwrap())), (-1, 0, 0));
        for (lo, hi) in [(0, 0), (-129, 127), (-128, 128), (1, 5), (-5, -1), (5, 1)] {
            assert!(matches!(CodeRange::new(CodeType::I8, lo, hi), Err(Error::OutOfRange { .. })), "{lo} {hi}");
        }
        assert!(CodeRange::reduced(CodeType::new(1, false).unwrap()).is_err());
    }
}
