//! Rules R11, R12 and R30: pools over channels-last codes.

use crate::Isa;
use alloc::vec::Vec;
use qexact_reference::mean::{self, Mean, clamp_first_mean, integer_mean, real_mean, scaled_mean};
use qexact_reference::pool::{AdaptivePool, Average, Divisor, Memory, Pool, Window};
use qexact_reference::quantizer::{DequantizeForm, Dequantizer};
use qexact_reference::{Code, Error};

/// R11: as [`reference::pool::max_pool`](qexact_reference::pool::max_pool).
///
/// # Errors
/// As there.
pub fn max_pool<T: Code>(isa: Isa, pool: &Pool, input: &[T]) -> Result<Vec<T>, Error> {
    pool.check(input)?;
    let mut rows = Rows::new(isa, pool.channels, input);
    pool.each_window(|window| {
        rows.push(
            window,
            T::MIN,
            #[inline(always)]
            |most: T, q| most.max(q),
            |most| most,
        )
    })?;
    Ok(rows.output)
}

/// R12: as [`reference::pool::avg_pool`](qexact_reference::pool::avg_pool).
///
/// # Errors
/// As there.
pub fn avg_pool<T: Code>(
    isa: Isa,
    pool: &Pool,
    divisor: Divisor,
    average: Average,
    input: &[T],
) -> Result<Vec<T>, Error> {
    pool.check_average(divisor, input)?;
    let mut rows = Rows::new(isa, pool.channels, input);
    pool.each_window(|window| {
        let (inside, n) = (window.pixels.len(), divisor.of(window));
        match average.memory {
            Memory::ChannelsLast => {
                let average = Average { memory: Memory::ChannelsLast, ..average };
                rows.push_sums(
                    window,
                    #[inline(always)]
                    move |sum| average.of_sum(sum, inside, n),
                );
            }
            Memory::Contiguous => {
                let average = Average { memory: Memory::Contiguous, ..average };
                rows.push_sums(
                    window,
                    #[inline(always)]
                    move |sum| average.of_sum(sum, inside, n),
                );
            }
        }
    })?;
    Ok(rows.output)
}

/// R12: as [`reference::pool::adaptive_avg_pool`](qexact_reference::pool::adaptive_avg_pool).
///
/// # Errors
/// As there.
pub fn adaptive_avg_pool<T: Code>(
    isa: Isa,
    pool: &AdaptivePool,
    average: Average,
    input: &[T],
) -> Result<Vec<T>, Error> {
    pool.check(input)?;
    let mut rows = Rows::new(isa, pool.channels, input);
    pool.each_window(|window| {
        let extents = window.extents;
        rows.push_sums(
            window,
            #[inline(always)]
            move |sum| average.of_adaptive_sum(sum, extents),
        );
    })?;
    Ok(rows.output)
}

/// R30: as [`reference::mean::mean_pool`](qexact_reference::mean::mean_pool).
///
/// # Errors
/// As there.
pub fn mean_pool<T: Code>(isa: Isa, pool: &Pool, divisor: Divisor, mean: &Mean, input: &[T]) -> Result<Vec<T>, Error> {
    pool.check_average(divisor, input)?;
    // Sums run in 32 bits: codes have 8, so that as many do not overflow.
    const MOST: usize = 1 << 23;
    if pool.axes.iter().map(|axis| axis.kernel.min(axis.input)).product::<usize>() > MOST {
        return mean::mean_pool(pool, divisor, mean, input);
    }
    let mut rows = Rows::new(isa, pool.channels, input);
    pool.each_window(|window| {
        let (inside, n) = (window.pixels.len(), divisor.of(window));
        match *mean {
            Mean::Scaled { input, output } => {
                rows.push_sums(
                    window,
                    #[inline(always)]
                    move |sum| scaled_mean((sum.into(), inside), n, input, output),
                );
            }
            Mean::ClampFirst { input, output } => {
                rows.push_sums(
                    window,
                    #[inline(always)]
                    move |sum| clamp_first_mean((sum.into(), inside), n, input, output),
                );
            }
            Mean::Real { input, output } => {
                let from = Dequantizer::new(DequantizeForm::Difference, input);
                let real = move |q: T| Dequantizer { form: DequantizeForm::Difference, ..from }.apply(q.into());
                rows.push(
                    window,
                    0.0f32,
                    move |sum, q| sum + real(q),
                    move |sum| T::from_i32(real_mean(sum, n, output)),
                );
            }
            Mean::Integer { clamp } => {
                rows.push_sums(
                    window,
                    #[inline(always)]
                    move |sum| integer_mean(sum.into(), n, clamp),
                );
            }
        }
    })?;
    Ok(rows.output)
}

/// Channels that a window's loop keeps in registers: four vectors of 16 sums.
const BLOCK: usize = 64;

/// Output pixels, computed one after the other.
struct Rows<'a, T> {
    isa: Isa,
    channels: usize,
    input: &'a [T],
    output: Vec<T>,
}

impl<'a, T: Code> Rows<'a, T> {
    fn new(isa: Isa, channels: usize, input: &'a [T]) -> Rows<'a, T> {
        Rows { isa, channels, input, output: Vec::new() }
    }

    /// The code of the sum of each channel.
    #[inline(always)]
    fn push_sums(&mut self, window: &Window, finish: impl Fn(i32) -> i32 + Copy) {
        let add = |sum: i32, q: T| sum.wrapping_add(q.into());
        self.push(
            window,
            0,
            add,
            #[inline(always)]
            move |sum| T::from_i32(finish(sum)),
        );
    }

    /// `finish(step(… step(first, q₀) …, qₙ))` of each channel, over the pixels in order.
    #[inline(always)]
    fn push<S: Copy>(
        &mut self,
        window: &Window,
        first: S,
        step: impl Fn(S, T) -> S + Copy,
        finish: impl Fn(S) -> T + Copy,
    ) {
        let (channels, input, start) = (self.channels, self.input, self.output.len());
        self.output.resize(start + channels, T::MIN);
        let (output, pixels) = (&mut self.output[start..], window.pixels.as_slice());
        self.isa.compile(
            #[inline(always)]
            move || {
                for (block, y) in output.chunks_mut(BLOCK).enumerate() {
                    let mut state = [first; BLOCK];
                    for pixel in pixels {
                        let x = &input[pixel * channels + block * BLOCK..][..y.len()];
                        if let Ok(x) = <&[T; BLOCK]>::try_from(x) {
                            for i in 0..BLOCK {
                                state[i] = step(state[i], x[i]);
                            }
                        } else {
                            for (state, &q) in state.iter_mut().zip(x) {
                                *state = step(*state, q);
                            }
                        }
                    }
                    for (y, state) in y.iter_mut().zip(state) {
                        *y = finish(state);
                    }
                }
            },
        );
    }
}
