//! The caller's scratch memory, divided up.

/// Every part begins on a cache line.
const LINE: usize = 64;

/// Memory that parts are taken from, or, without any, a count of what they need: the same function measures and
/// divides.
pub(crate) struct Memory<'s> {
    rest: Option<&'s mut [u8]>,
    needed: usize,
}

/// Plain data for which any bytes are a value.
///
/// # Safety
/// They are.
pub(crate) unsafe trait Plain: Copy {}
// SAFETY: any bytes are numbers, and addresses.
unsafe impl Plain for u8 {}
// SAFETY: likewise.
unsafe impl Plain for i8 {}
// SAFETY: likewise.
unsafe impl Plain for i32 {}
// SAFETY: likewise.
unsafe impl Plain for u32 {}
// SAFETY: likewise.
unsafe impl Plain for f32 {}
// SAFETY: likewise.
unsafe impl Plain for f64 {}
// SAFETY: likewise.
unsafe impl Plain for usize {}
// SAFETY: likewise.
unsafe impl Plain for *const u8 {}

impl<'s> Memory<'s> {
    /// The bytes that `divide` needs, wherever the caller's memory begins.
    pub(crate) fn needed<T>(divide: impl FnOnce(&mut Memory<'s>) -> T) -> usize {
        let mut memory = Memory { rest: None, needed: LINE };
        divide(&mut memory);
        memory.needed
    }

    /// All of a caller's memory.
    pub(crate) fn new(memory: &'s mut [u8]) -> Memory<'s> {
        let skip = memory.as_ptr().align_offset(LINE).min(memory.len());
        Memory { rest: Some(&mut memory[skip..]), needed: 0 }
    }

    /// Splits `len` elements off the front, and the rest of their last cache line with them.
    #[inline]
    pub(crate) fn take<T: Plain>(&mut self, len: usize) -> &'s mut [T] {
        const { assert!(LINE.is_multiple_of(align_of::<T>())) };
        // Most calls need few of the parts.
        if len == 0 {
            return &mut [];
        }
        let bytes = (len * size_of::<T>()).next_multiple_of(LINE);
        self.needed += bytes;
        let Some(memory) = self.rest.take() else { return &mut [] };
        let (part, rest) = memory.split_at_mut(bytes);
        self.rest = Some(rest);
        // SAFETY: `part` has room for `len` elements and, not being empty, begins on a cache line, which is aligned for
        // them; any bytes are a value of a `Plain` type; the exclusive borrow passes to the result.
        unsafe { core::slice::from_raw_parts_mut(part.as_mut_ptr().cast(), len) }
    }
}
