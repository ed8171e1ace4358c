//! Buffers between pages that must not be touched: whoever reads or writes beyond one crashes, and whoever
//! writes beside one is found out.
//!
//! ```text
//! Place::Start     │ no access │ bytes   poison  poison │ no access │
//! Place::Middle    │ no access │ poison  bytes   poison │ no access │
//! Place::End       │ no access │ poison  poison   bytes │ no access │
//! ```

use region::{Allocation, Protection};
use std::ops::Range;

/// Where a buffer lies between its protected pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Begins right after a protected page.
    Start,
    /// At least a page of poison on either side; aligned for elements of 4 bytes and no more.
    Middle,
    /// Ends right before a protected page.
    End,
}

impl Place {
    /// The other end, or the middle again.
    pub fn opposite(self) -> Place {
        match self {
            Place::Start => Place::End,
            Place::Middle => Place::Middle,
            Place::End => Place::Start,
        }
    }
}

/// Why there is no such buffer: the platform did not map or protect its memory.
#[derive(Debug, thiserror::Error)]
#[error("guarded memory of {bytes} bytes: {source}")]
pub struct GuardError {
    /// Length of the buffer.
    pub bytes: usize,
    source: region::Error,
}

/// A buffer between two protected pages. It and what surrounds it hold poison at first.
pub struct Guarded {
    pages: Allocation,
    page: usize,
    /// Where the buffer lies in the accessible pages.
    buffer: Range<usize>,
}

/// The poison of a byte, so that neighbours differ.
fn poison(at: usize) -> u8 {
    0xa5 ^ (at as u8).wrapping_mul(31)
}

impl Guarded {
    /// A buffer of so many bytes.
    ///
    /// # Errors
    /// A platform that does not protect pages.
    pub fn new(bytes: usize, place: Place) -> Result<Guarded, GuardError> {
        Guarded::map(bytes, place).map_err(|source| GuardError { bytes, source })
    }

    /// A copy of `bytes`.
    ///
    /// # Errors
    /// As [`new`](Guarded::new).
    pub fn holding(bytes: &[u8], place: Place) -> Result<Guarded, GuardError> {
        let mut guarded = Guarded::new(bytes.len(), place)?;
        guarded.bytes_mut().copy_from_slice(bytes);
        Ok(guarded)
    }

    fn map(bytes: usize, place: Place) -> region::Result<Guarded> {
        let page = region::page::size();
        // The buffer's own pages, and one or two of poison.
        let open = bytes.next_multiple_of(page) + if place == Place::Middle { 2 * page } else { page };
        let pages = region::alloc(open + 2 * page, Protection::READ_WRITE)?;
        let first = pages.as_ptr::<u8>();
        // SAFETY: the first and the last page of an allocation that nobody else knows.
        unsafe {
            region::protect(first, page, Protection::NONE)?;
            region::protect(first.wrapping_add(page + open), page, Protection::NONE)?;
        }
        let start = match place {
            Place::Start => 0,
            Place::Middle => page + 4,
            Place::End => open - bytes,
        };
        let mut guarded = Guarded { pages, page, buffer: start..start + bytes };
        for (at, byte) in guarded.around_mut().0.iter_mut().enumerate() {
            *byte = poison(at);
        }
        Ok(guarded)
    }

    /// The accessible pages.
    fn open(&self) -> &[u8] {
        let (first, len) = (self.pages.as_ptr::<u8>().wrapping_add(self.page), self.pages.len() - 2 * self.page);
        // SAFETY: all pages but the first and the last may be read and written; mapped pages are initialised.
        unsafe { std::slice::from_raw_parts(first, len) }
    }

    /// Everything between the protected pages, and where the buffer lies in it.
    pub fn around_mut(&mut self) -> (&mut [u8], Range<usize>) {
        let len = self.pages.len() - 2 * self.page;
        let first = self.pages.as_mut_ptr::<u8>().wrapping_add(self.page);
        // SAFETY: as in `open`, and `self` is borrowed exclusively.
        (unsafe { std::slice::from_raw_parts_mut(first, len) }, self.buffer.clone())
    }

    /// The buffer.
    pub fn bytes(&self) -> &[u8] {
        &self.open()[self.buffer.clone()]
    }

    /// The buffer.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let (open, buffer) = self.around_mut();
        &mut open[buffer]
    }

    /// The byte outside the buffer, counted from its first, that no longer holds poison; the nearest if there are many.
    pub fn overwritten(&self) -> Option<isize> {
        let changed = |range: Range<usize>| {
            let open = self.open();
            range.filter(move |&at| open[at] != poison(at)).map(|at| at as isize - self.buffer.start as isize)
        };
        let after = changed(self.buffer.end..self.open().len()).next();
        after.or_else(|| changed(0..self.buffer.start).next_back())
    }
}
