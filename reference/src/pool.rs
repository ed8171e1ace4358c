//! Pools: rules R11 (maximum) and R12 (averages). The output keeps the input's scale and zero point.

use crate::float::{cvt, round_ties_even};
use crate::operand::{Code, expect_len};
use crate::quantization::Quantize;
use crate::shape::product;
use crate::{Axis, CodeType, Error};
use alloc::vec::Vec;
use core::ops::Range;

/// Geometry of a window pool over depth, height and width; axes that are not there are [`Axis::UNIT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// Number of images.
    pub batch: usize,
    /// Channels of input and output.
    pub channels: usize,
    /// Windows, strides, symmetric paddings; dilation for the maximum only.
    pub axes: [Axis; 3],
    /// Round the number of outputs up: the last window may reach beyond the padding, but starts before it.
    pub ceil_mode: bool,
}

impl Pool {
    /// Extents of the output: depth, height, width.
    ///
    /// # Errors
    /// Zero extents, windows that do not fit, sizes that overflow, a padding of more than half a window.
    pub fn output_extents(&self) -> Result<[usize; 3], Error> {
        let mut extents = [0; 3];
        for (extent, axis) in extents.iter_mut().zip(&self.axes) {
            let (padded, window) = axis.checked()?;
            if axis.padding.iter().any(|&p| p > axis.kernel / 2) {
                let expected = alloc::format!("at most half the window of {}", axis.kernel);
                return Err(Error::Extent { what: "padding of a pool", got: axis.padding[0], expected });
            }
            *extent = (padded - window) / axis.stride + 1;
            let next = *extent * axis.stride;
            if self.ceil_mode && (padded - window) % axis.stride != 0 && next < axis.input + axis.padding[0] {
                *extent += 1;
            }
        }
        let [d, h, w] = extents;
        let input = self.axes.map(|a| a.input);
        let window = self.axes.map(|a| a.kernel);
        product("elements of a window", &window)?;
        product("elements of the input", &[self.batch, input[0], input[1], input[2], self.channels])?;
        product("elements of the output", &[self.batch, d, h, w, self.channels])?;
        Ok(extents)
    }

    fn check<T>(&self, input: &[T]) -> Result<[usize; 3], Error> {
        let extents = self.output_extents()?;
        let pixels: usize = self.axes.iter().map(|a| a.input).product();
        expect_len("input", input.len(), self.batch * pixels * self.channels)?;
        Ok(extents)
    }
}

/// R11: the largest code of each window; padding takes no part.
///
/// `input` is `[batch, depth, height, width, channels]`, and so is the result.
///
/// # Errors
/// As [`Pool::output_extents`]; an input of the wrong length.
pub fn max_pool<T: Code>(pool: &Pool, input: &[T]) -> Result<Vec<T>, Error> {
    let extents = pool.check(input)?;
    let mut output = Vec::new();
    each_window(pool.batch, extents, |image, at| {
        for channel in 0..pool.channels {
            let mut most = T::MIN;
            let taps = |axis: usize| {
                let a = pool.axes[axis];
                (0..a.kernel).filter_map(move |tap| a.source(at[axis], tap))
            };
            for z in taps(0) {
                for y in taps(1) {
                    for x in taps(2) {
                        most = most.max(input[pixel(&pool.axes, image, [z, y, x]) * pool.channels + channel]);
                    }
                }
            }
            output.push(most);
        }
    });
    Ok(output)
}

/// Which of PyTorch's average kernels: it depends on how the tensor lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// Channels innermost.
    ChannelsLast,
    /// Width innermost.
    Contiguous,
}

/// What an average is divided by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Divisor {
    /// Elements of the window that lie in the padded image.
    Padded,
    /// Elements of the window that lie in the image.
    Image,
    /// This number.
    Constant(u32),
}

/// How the average of a window becomes a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Average {
    /// The kernel whose formula is used.
    pub memory: Memory,
    /// Zero point of input and output.
    pub zero_point: i32,
    /// Codes of input and output.
    pub codes: CodeType,
}

/// R12: the average of each window.
///
/// With `acc = Σ (q − z)` over the pixels of the window that lie in the image and `n` the divisor,
///
/// ```text
/// channels last: clamp(cvt(f32(acc) · (1 / f32(n))) + z)
/// contiguous   : clamp(cvt(f32(acc) · f32(1 / f64(n)) + f32(z)))        z before rounding: its parity turns ties
/// ```
///
/// `input` is `[batch, depth, height, width, channels]`, and so is the result, whatever `memory` says.
///
/// # Errors
/// As [`Pool::output_extents`]; an input of the wrong length, a dilation, a divisor of zero.
pub fn avg_pool<T: Code>(pool: &Pool, divisor: Divisor, average: Average, input: &[T]) -> Result<Vec<T>, Error> {
    each_window_average(pool, divisor, input, |codes, inside, n| {
        let sum = codes.fold(0i32, i32::wrapping_add);
        average.of_window(sum.wrapping_sub(average.zero_point.wrapping_mul(inside as i32)), n)
    })
}

/// R12: the average of each of `output` windows that divide every axis as evenly as possible.
///
/// `axes` are the extents of the input (depth, height, width). Output `o` of an axis covers
/// `floor(o · in / out) .. ceil((o + 1) · in / out)`, quotients in f32 as PyTorch computes them.
/// With `sum = Σ q` over the window of `n = k_D · k_H · k_W` pixels,
///
/// ```text
/// channels last: clamp(cvt(f32(sum − n · z) · (1 / f32(n))) + z)
/// contiguous   : rne(f32(sum) · (((1 / k_D) / k_H) / k_W))              z takes no part
/// ```
///
/// # Errors
/// Zero extents, sizes that overflow, an input of the wrong length.
pub fn adaptive_avg_pool<T: Code>(pool: &AdaptivePool, average: Average, input: &[T]) -> Result<Vec<T>, Error> {
    let AdaptivePool { batch, channels, input: extents, output: outputs } = *pool;
    for got in [batch, channels].into_iter().chain(extents).chain(outputs) {
        if got == 0 {
            return Err(Error::Extent { what: "extent of a pool", got, expected: "at least 1".into() });
        }
    }
    product("elements of the output", &[batch, outputs[0], outputs[1], outputs[2], channels])?;
    let len = product("elements of the input", &[batch, extents[0], extents[1], extents[2], channels])?;
    expect_len("input", input.len(), len)?;
    let axes = extents.map(|input| Axis { input, ..Axis::UNIT });
    let windows = Pool { batch, channels, axes, ceil_mode: false };
    let mut output = Vec::new();
    each_window(batch, outputs, |image, at| {
        let ranges: [Range<usize>; 3] = core::array::from_fn(|i| adaptive_window(at[i], extents[i], outputs[i]));
        let n: usize = ranges.iter().map(Range::len).product();
        for channel in 0..channels {
            let sum = window_sum(&windows, input, image, &ranges, channel);
            let code = match average.memory {
                Memory::ChannelsLast => {
                    average.of_window(sum.wrapping_sub(average.zero_point.wrapping_mul(n as i32)), n)
                }
                Memory::Contiguous => {
                    let factor = ranges.iter().fold(1.0f32, |factor, range| factor / range.len() as f32);
                    round_ties_even(sum as f32 * factor) as i32
                }
            };
            output.push(T::from_i32(code));
        }
    });
    Ok(output)
}

/// Geometry of an adaptive pool: extents are depth, height, width, 1 where an axis is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdaptivePool {
    /// Number of images.
    pub batch: usize,
    /// Channels of input and output.
    pub channels: usize,
    /// Extents of the input.
    pub input: [usize; 3],
    /// Extents of the output.
    pub output: [usize; 3],
}

impl Average {
    /// The code of a window whose codes less their zero points sum to `acc`, divided by `n`.
    fn of_window(&self, acc: i32, n: usize) -> i32 {
        let (lo, hi, zero_point) = (self.codes.lo(), self.codes.hi(), self.zero_point);
        match self.memory {
            Memory::ChannelsLast => Quantize { multiplier: 1.0 / n as f32, zero_point, lo, hi }.apply(acc as f32),
            Memory::Contiguous => {
                let multiplier = (1.0 / n as f64) as f32;
                cvt(acc as f32 * multiplier + zero_point as f32).clamp(lo, hi)
            }
        }
    }
}

fn adaptive_window(at: usize, input: usize, output: usize) -> Range<usize> {
    let start = (at * input) as f32 / output as f32;
    let end = ((at + 1) * input) as f32 / output as f32;
    // Both are non-negative: truncation is the floor, and the ceiling is one more unless exact.
    let ceil = end as usize + usize::from(end as usize as f32 != end);
    start as usize..ceil.min(input)
}

fn each_window(batch: usize, [depth, height, width]: [usize; 3], mut f: impl FnMut(usize, [usize; 3])) {
    for image in 0..batch {
        for z in 0..depth {
            for y in 0..height {
                for x in 0..width {
                    f(image, [z, y, x]);
                }
            }
        }
    }
}

fn pixel(axes: &[Axis; 3], image: usize, at: [usize; 3]) -> usize {
    axes.iter().zip(at).fold(image, |pixel, (axis, at)| pixel * axis.input + at)
}

/// `mean(codes, inside, n)` of each window: its codes that lie in the image, in order, how many there are, the divisor.
pub(crate) fn each_window_average<T: Code>(
    pool: &Pool,
    divisor: Divisor,
    input: &[T],
    mean: impl Fn(&mut dyn Iterator<Item = i32>, usize, usize) -> i32,
) -> Result<Vec<T>, Error> {
    let extents = pool.check(input)?;
    if let Some(axis) = pool.axes.iter().find(|a| a.dilation != 1) {
        return Err(Error::Extent { what: "dilation of an average", got: axis.dilation, expected: "1".into() });
    }
    if divisor == Divisor::Constant(0) {
        return Err(Error::Extent { what: "divisor", got: 0, expected: "at least 1".into() });
    }
    let mut output = Vec::new();
    each_window(pool.batch, extents, |image, at| {
        let (mut ranges, mut padded, mut inside) = ([0..0, 0..0, 0..0], 1usize, 1usize);
        for ((range, axis), at) in ranges.iter_mut().zip(&pool.axes).zip(at) {
            // In padded coordinates, clipped to the padded image and then to the image.
            let start = at * axis.stride;
            let end = (start + axis.kernel).min(axis.input + axis.padding[0] + axis.padding[1]);
            let shift = axis.padding[0];
            *range = start.saturating_sub(shift)..end.saturating_sub(shift).min(axis.input);
            padded *= end - start;
            inside *= range.len();
        }
        let n = match divisor {
            Divisor::Padded => padded,
            Divisor::Image => inside,
            Divisor::Constant(n) => n as usize,
        };
        for channel in 0..pool.channels {
            output.push(T::from_i32(mean(&mut window_codes(pool, input, image, &ranges, channel), inside, n)));
        }
    });
    Ok(output)
}

/// The codes of a channel in a part of an image, the last axis fastest.
fn window_codes<'a, T: Code>(
    pool: &'a Pool,
    input: &'a [T],
    image: usize,
    ranges: &[Range<usize>; 3],
    channel: usize,
) -> impl Iterator<Item = i32> + 'a {
    let [depth, height, width] = ranges.clone();
    depth.flat_map(move |z| {
        let width = width.clone();
        height.clone().flat_map(move |y| {
            width.clone().map(move |x| input[pixel(&pool.axes, image, [z, y, x]) * pool.channels + channel].into())
        })
    })
}

fn window_sum<T: Code>(pool: &Pool, input: &[T], image: usize, ranges: &[Range<usize>; 3], channel: usize) -> i32 {
    window_codes(pool, input, image, ranges, channel).fold(0i32, i32::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(input: usize, kernel: usize, stride: usize, padding: usize, ceil_mode: bool) -> Pool {
        let axis = Axis { input, kernel, stride, padding: [padding; 2], dilation: 1 };
        Pool { batch: 1, channels: 1, axes: [Axis::UNIT, Axis::UNIT, axis], ceil_mode }
    }

    #[test]
    fn ceil_mode_keeps_only_windows_that_start_before_the_end() {
        for (pool, want) in [
            (pool(5, 2, 2, 0, false), 2),
            (pool(5, 2, 2, 0, true), 3),
            (pool(4, 2, 2, 1, true), 3),
            (pool(2, 2, 3, 1, true), 1),
            (pool(6, 2, 3, 1, true), 3),
        ] {
            assert_eq!(pool.output_extents().unwrap()[2], want, "{pool:?}");
        }
        assert!(pool(5, 2, 2, 2, false).output_extents().is_err());
    }

    #[test]
    fn the_two_layouts_part_at_ties() {
        // Mean 0.5 above an odd zero point: rounded before the zero point is added it goes down, after it up.
        let p = pool(2, 2, 1, 0, false);
        let average = |memory| {
            let average = Average { memory, zero_point: 7, codes: CodeType::U8 };
            avg_pool(&p, Divisor::Padded, average, &[7u8, 8]).unwrap()[0]
        };
        assert_eq!((average(Memory::ChannelsLast), average(Memory::Contiguous)), (7, 8));
    }

    #[test]
    fn divisors() {
        let p = pool(3, 2, 1, 1, false);
        let x = [10u8, 20, 30];
        let run = |divisor| {
            let average = Average { memory: Memory::ChannelsLast, zero_point: 0, codes: CodeType::U8 };
            avg_pool(&p, divisor, average, &x).unwrap()
        };
        assert_eq!(run(Divisor::Padded), [5, 15, 25, 15]);
        assert_eq!(run(Divisor::Image), [10, 15, 25, 30]);
        assert_eq!(run(Divisor::Constant(1)), [10, 30, 50, 30]);
    }

    #[test]
    fn the_maximum_ignores_padding() {
        assert_eq!(max_pool(&pool(3, 2, 1, 1, false), &[-5i8, -7, -9]).unwrap(), [-5, -5, -7, -9]);
    }

    #[test]
    fn adaptive_windows_cover_the_input() {
        for (input, output) in (1..40usize).flat_map(|i| (1..40).map(move |o| (i, o))) {
            for o in 0..output {
                let exact = o * input / output..((o + 1) * input).div_ceil(output);
                assert_eq!(adaptive_window(o, input, output), exact, "{o} of {output} over {input}");
            }
        }
    }
}
