//! What codes are in the memory that kernels read: bytes as they are, unsigned ones, or words.

use qexact_reference::CodeType;

/// What kernels read codes as.
#[derive(Clone, Copy)]
pub(crate) enum Element {
    /// As they are.
    Byte,
    /// Bytes 0..=255: signed codes plus 128. Unsigned codes are [`Byte`](Element::Byte)s.
    Unsigned,
    /// 16-bit numbers, 0..=255: signed codes plus 128. The function is [`widen`] for an instruction set.
    Word(Widen),
}

/// [`widen`], to be called only where the CPU has the instruction set of the kernel that it comes with.
pub(crate) type Widen = unsafe fn(codes: &[u8], flip: u8, words: &mut [u8]);

/// Writes `code ^ flip` as a 16-bit number, for each code.
#[inline(always)]
pub(crate) fn widen(codes: &[u8], flip: u8, words: &mut [u8]) {
    for (word, code) in words.as_chunks_mut::<2>().0.iter_mut().zip(codes) {
        *word = u16::from(code ^ flip).to_le_bytes();
    }
}

impl Element {
    /// What codes are where a kernel reads them as this.
    pub(crate) fn of(self, codes: CodeType) -> Element {
        match self {
            Element::Unsigned if !codes.is_signed() => Element::Byte,
            element => element,
        }
    }

    /// Codes that one step of a kernel's loop reads of a row.
    pub(crate) fn step(self) -> usize {
        if let Element::Word(_) = self { 2 } else { 4 }
    }

    /// Whether codes have to be copied, because they are something else in the input.
    pub(crate) fn changes(self) -> bool {
        !matches!(self, Element::Byte)
    }

    /// Bytes of a code.
    pub(crate) fn size(self) -> usize {
        match self {
            Element::Byte | Element::Unsigned => 1,
            Element::Word(_) => 2,
        }
    }

    /// Writes codes as elements.
    ///
    /// # Safety
    /// The CPU has the instruction set of the kernel that the element comes with.
    pub(crate) unsafe fn write(self, codes: &[u8], flip: u8, elements: &mut [u8]) {
        match self {
            Element::Byte => elements.copy_from_slice(codes),
            Element::Unsigned => elements.iter_mut().zip(codes).for_each(|(element, code)| *element = code ^ flip),
            // SAFETY: by this function's contract.
            Element::Word(widen) => unsafe { widen(codes, flip, elements) },
        }
    }

    /// Writes one code again and again.
    pub(crate) fn fill(self, code: u8, flip: u8, elements: &mut [u8]) {
        match self {
            Element::Byte => elements.fill(code),
            Element::Unsigned => elements.fill(code ^ flip),
            Element::Word(_) => elements.as_chunks_mut::<2>().0.fill([code ^ flip, 0]),
        }
    }
}
