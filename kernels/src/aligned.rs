//! Numbers that begin on a cache line, so that no load of a whole vector of them crosses one: such a load counts as
//! two, which takes 1 to 3 % of layers with few products an output, and up to 30 % of depthwise ones.

use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};

/// Elements of a cache line.
const LINE: usize = 16;

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line<T>([T; LINE]);

/// A vector of 4-byte numbers on a cache line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Aligned<T> {
    lines: Vec<Line<T>>,
    len: usize,
}

impl<T: Copy + Default> FromIterator<T> for Aligned<T> {
    fn from_iter<I: IntoIterator<Item = T>>(numbers: I) -> Aligned<T> {
        const { assert!(size_of::<Line<T>>() == LINE * size_of::<T>()) };
        let (mut lines, mut len) = (Vec::new(), 0);
        for number in numbers {
            if len % LINE == 0 {
                lines.push(Line([T::default(); LINE]));
            }
            lines[len / LINE].0[len % LINE] = number;
            len += 1;
        }
        Aligned { lines, len }
    }
}

impl<T> Deref for Aligned<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: lines are LINE elements each, without gaps, and hold at least `len`.
        unsafe { core::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl<T> DerefMut for Aligned<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above.
        unsafe { core::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_begin_on_a_cache_line() {
        for len in 0..50 {
            let numbers: Aligned<i32> = (0..len).collect();
            assert_eq!(numbers.as_ptr() as usize % 64, 0);
            assert!(numbers.iter().copied().eq(0..len));
        }
    }
}
