//! Pools: rules R11 (maximum) and R12 (averages). The output keeps the input's scale and zero point.

use crate::float::cvt;
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

    /// Calls `visit` with the window of every output pixel, in order.
    ///
    /// # Errors
    /// As [`output_extents`](Pool::output_extents).
    pub fn each_window(&self, mut visit: impl FnMut(&Window)) -> Result<(), Error> {
        let extents = self.output_extents()?;
        let (mut window, mut sources) = (Window::default(), <[Vec<usize>; 3]>::default());
        each_output(self.batch, extents, |image, at| {
            window.padded = 1;
            for (((sources, axis), at), extent) in sources.iter_mut().zip(&self.axes).zip(at).zip(&mut window.extents) {
                sources.clear();
                sources.extend((0..axis.kernel).filter_map(|tap| axis.source(at, tap)));
                *extent = sources.len();
                // Taps beyond the padding, which ceil mode allows, take no part.
                let padded = axis.input + axis.padding[0] + axis.padding[1] - at * axis.stride;
                window.padded *= axis.kernel.min(padded.div_ceil(axis.dilation));
            }
            window.gather(self.axes.map(|axis| axis.input), image, &sources);
            visit(&window);
        });
        Ok(())
    }

    /// Checks an input: `[batch, depth, height, width, channels]`.
    ///
    /// # Errors
    /// As [`output_extents`](Pool::output_extents); an input of another length.
    pub fn check<T>(&self, input: &[T]) -> Result<(), Error> {
        self.output_extents()?;
        let pixels: usize = self.axes.iter().map(|a| a.input).product();
        expect_len("input", input.len(), self.batch * pixels * self.channels)
    }

    /// Checks what averages need besides: no dilation, a divisor that is not 0.
    ///
    /// # Errors
    /// As [`check`](Pool::check); a dilation, a divisor of zero.
    pub fn check_average<T>(&self, divisor: Divisor, input: &[T]) -> Result<(), Error> {
        self.check(input)?;
        if let Some(axis) = self.axes.iter().find(|a| a.dilation != 1) {
            return Err(Error::Extent { what: "dilation of an average", got: axis.dilation, expected: "1".into() });
        }
        if divisor == Divisor::Constant(0) {
            return Err(Error::Extent { what: "divisor", got: 0, expected: "at least 1".into() });
        }
        Ok(())
    }
}

/// The pixels that an output pixel is computed from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Window {
    /// Those inside the image, counted through the batch: `((n · depth + z) · height + y) · width + x`; the width
    /// is the fastest axis.
    pub pixels: Vec<usize>,
    /// How many of them lie along each axis.
    pub extents: [usize; 3],
    /// How many elements lie inside the padded image.
    pub padded: usize,
}

impl Window {
    /// All combinations of coordinates in an image.
    fn gather(&mut self, [depth, height, width]: [usize; 3], image: usize, [zs, ys, xs]: &[Vec<usize>; 3]) {
        self.pixels.clear();
        for z in zs {
            for y in ys {
                self.pixels.extend(xs.iter().map(|x| ((image * depth + z) * height + y) * width + x));
            }
        }
    }
}

/// R11: the largest code of each window; padding takes no part.
///
/// `input` is `[batch, depth, height, width, channels]`, and so is the result.
///
/// # Errors
/// As [`Pool::output_extents`]; an input of the wrong length.
pub fn max_pool<T: Code>(pool: &Pool, input: &[T]) -> Result<Vec<T>, Error> {
    pool.check(input)?;
    let mut output = Vec::new();
    pool.each_window(|window| {
        for channel in 0..pool.channels {
            output.push(window_codes(input, pool.channels, window, channel).max().unwrap_or(T::MIN));
        }
    })?;
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

impl Divisor {
    /// The divisor of a window.
    pub fn of(self, window: &Window) -> usize {
        match self {
            Divisor::Padded => window.padded,
            Divisor::Image => window.pixels.len(),
            Divisor::Constant(n) => n as usize,
        }
    }
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
    average_windows(pool, divisor, input, |codes, inside, n| {
        average.of_sum(codes.fold(0i32, i32::wrapping_add), inside, n)
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
    pool.check(input)?;
    let mut output = Vec::new();
    pool.each_window(|window| {
        for channel in 0..pool.channels {
            let codes = window_codes(input, pool.channels, window, channel);
            let sum = codes.map(Into::<i32>::into).fold(0i32, i32::wrapping_add);
            output.push(T::from_i32(average.of_adaptive_sum(sum, window.extents)));
        }
    })?;
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

impl AdaptivePool {
    /// Checks an input: `[batch, depth, height, width, channels]`.
    ///
    /// # Errors
    /// Zero extents, sizes that overflow, an input of the wrong length.
    pub fn check<T>(&self, input: &[T]) -> Result<(), Error> {
        let len = self.validate()?;
        expect_len("input", input.len(), len)
    }

    /// Elements of the input.
    fn validate(&self) -> Result<usize, Error> {
        let AdaptivePool { batch, channels, input, output } = *self;
        for got in [batch, channels].into_iter().chain(input).chain(output) {
            if got == 0 {
                return Err(Error::Extent { what: "extent of a pool", got, expected: "at least 1".into() });
            }
        }
        product("elements of the output", &[batch, output[0], output[1], output[2], channels])?;
        product("elements of the input", &[batch, input[0], input[1], input[2], channels])
    }

    /// Calls `visit` with the window of every output pixel, in order.
    ///
    /// # Errors
    /// Zero extents, sizes that overflow.
    pub fn each_window(&self, mut visit: impl FnMut(&Window)) -> Result<(), Error> {
        self.validate()?;
        let mut window = Window::default();
        each_output(self.batch, self.output, |image, at| {
            let range = |i| adaptive_window(at[i], self.input[i], self.output[i]);
            let ranges: [Range<usize>; 3] = core::array::from_fn(range);
            window.extents = ranges.clone().map(|range| range.len());
            window.gather(self.input, image, &ranges.map(Iterator::collect));
            window.padded = window.pixels.len();
            visit(&window);
        });
        Ok(())
    }
}

impl Average {
    /// The code of a window whose `inside` codes sum to `sum`, divided by `n`.
    #[inline(always)]
    pub fn of_sum(&self, sum: i32, inside: usize, n: usize) -> i32 {
        let (lo, hi, zero_point) = (self.codes.lo(), self.codes.hi(), self.zero_point);
        let acc = sum.wrapping_sub(zero_point.wrapping_mul(inside as i32));
        match self.memory {
            Memory::ChannelsLast => Quantize { multiplier: 1.0 / n as f32, zero_point, lo, hi }.apply(acc as f32),
            Memory::Contiguous => {
                let multiplier = (1.0 / n as f64) as f32;
                cvt(acc as f32 * multiplier + zero_point as f32).clamp(lo, hi)
            }
        }
    }

    /// The code of a window of an adaptive pool: the sum of its codes, and how many there are along each axis.
    #[inline(always)]
    pub fn of_adaptive_sum(&self, sum: i32, extents: [usize; 3]) -> i32 {
        let [depth, height, width] = extents;
        match self.memory {
            Memory::ChannelsLast => {
                let n = depth * height * width;
                self.of_sum(sum, n, n)
            }
            Memory::Contiguous => cvt(sum as f32 * (1.0 / depth as f32 / height as f32 / width as f32)),
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

fn each_output(batch: usize, [depth, height, width]: [usize; 3], mut f: impl FnMut(usize, [usize; 3])) {
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

/// `mean(codes, inside, n)` of each window: its codes that lie in the image, in order, how many there are, the divisor.
pub(crate) fn average_windows<T: Code>(
    pool: &Pool,
    divisor: Divisor,
    input: &[T],
    mean: impl Fn(&mut dyn Iterator<Item = i32>, usize, usize) -> i32,
) -> Result<Vec<T>, Error> {
    pool.check_average(divisor, input)?;
    let mut output = Vec::new();
    pool.each_window(|window| {
        for channel in 0..pool.channels {
            let mut codes = window_codes(input, pool.channels, window, channel).map(Into::into);
            output.push(T::from_i32(mean(&mut codes, window.pixels.len(), divisor.of(window))));
        }
    })?;
    Ok(output)
}

/// The codes of a channel in a window.
fn window_codes<'a, T: Code>(
    input: &'a [T],
    channels: usize,
    window: &'a Window,
    channel: usize,
) -> impl Iterator<Item = T> + 'a {
    window.pixels.iter().map(move |pixel| input[pixel * channels + channel])
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

    #[test]
    fn a_window_without_pixels_gives_the_smallest_code() {
        // Two taps, one before the image and one behind it.
        let axis = Axis { input: 1, kernel: 2, stride: 1, padding: [1; 2], dilation: 2 };
        let pool = Pool { batch: 1, channels: 1, axes: [Axis::UNIT, Axis::UNIT, axis], ceil_mode: false };
        assert_eq!(max_pool(&pool, &[5i8]).unwrap(), [-128]);
        assert_eq!(max_pool(&pool, &[5u8]).unwrap(), [0]);
    }

    /// At ties, where the last bit of a reciprocal decides.
    #[test]
    fn averages_are_products_with_reciprocals() {
        use crate::float::{fma, round_ties_even};
        let mut apart = [0; 3];
        for (n, mean) in (2..300usize).step_by(2).flat_map(|n| (0..255).map(move |mean| (n, mean))) {
            let (sum, of) = (mean * n as i32 + n as i32 / 2, n as f32);
            for zero_point in [0, 7, 128, 255] {
                let average = |memory| Average { memory, zero_point, codes: CodeType::U8 }.of_sum(sum, n, n);
                let (acc, z) = ((sum - zero_point * n as i32) as f32, zero_point as f32);
                let last = average(Memory::ChannelsLast);
                assert_eq!(last, round_ties_even(acc * (1.0 / of)) as i32 + zero_point);
                apart[0] += u32::from(last != round_ties_even(acc / of) as i32 + zero_point);
                let contiguous = average(Memory::Contiguous);
                assert_eq!(contiguous, round_ties_even(acc * (1.0 / of) + z) as i32);
                apart[1] += u32::from(contiguous != round_ties_even(acc / of + z) as i32);
                apart[2] += u32::from(contiguous != round_ties_even(fma(acc, 1.0 / of, z)) as i32);
            }
        }
        assert!(apart.iter().all(|&n| n > 0), "{apart:?}");
    }

    #[test]
    fn contiguous_adaptive_averages_divide_by_depth_then_height_then_width() {
        let average = Average { memory: Memory::Contiguous, zero_point: 0, codes: CodeType::U8 };
        // Means 0.5, 6.5 and 0.5; one division, a quotient or another order give 0, 6 and 0.
        assert_eq!(average.of_adaptive_sum(35, [1, 7, 10]), 1);
        assert_eq!(average.of_adaptive_sum(91, [1, 2, 7]), 7);
        assert_eq!(35.0 * (1.0 / 10.0f32 / 7.0), 0.5);
    }
}
