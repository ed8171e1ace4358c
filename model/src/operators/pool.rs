//! Pools.

use super::Context;
use crate::document::{self, Memory, Multiplier, Rule};
use crate::error::{At, LoadError};
use crate::network::{MOST_WINDOW, Operator, PoolRule};
use qexact_reference::Axis;
use qexact_reference::mean::Mean;
use qexact_reference::pool::{self, AdaptivePool, Average, Divisor, Pool};

impl Context<'_> {
    /// A pool with these height and width axes, whose output shape is checked.
    fn window_pool(&self, axes: [Axis; 2], ceil_mode: bool) -> Result<Pool, LoadError> {
        let [channels, ..] = self.image()?;
        self.expect_same_quantization()?;
        self.codes(self.input)?;
        let pool = Pool { batch: 1, channels, axes: [Axis::UNIT, axes[0], axes[1]], ceil_mode };
        let [_, height, width] = pool.output_extents().at(|| self.place.clone())?;
        // A window much larger than its input is all padding.
        let window: usize = pool.axes.iter().map(|a| a.kernel).fold(1, usize::saturating_mul);
        if window > MOST_WINDOW {
            return Err(self.wrong("pixels of a window", window, format!("at most {MOST_WINDOW}")));
        }
        self.expect_output_shape(&[channels, height, width])?;
        Ok(pool)
    }

    pub(super) fn max_pool(&self) -> Result<Operator, LoadError> {
        let a: document::MaxPool = self.attributes()?;
        self.no_rule()?;
        let [_, height, width] = self.image()?;
        let axis = |i: usize, input| Axis {
            input,
            kernel: a.kernel[i],
            stride: a.stride[i],
            padding: [a.padding[i]; 2],
            dilation: a.dilation[i],
        };
        Ok(Operator::MaxPool(self.window_pool([axis(0, height), axis(1, width)], a.ceil_mode)?))
    }

    fn average(&self) -> Result<PoolRule, LoadError> {
        let input = self.codes(self.input)?;
        let memory = match self.rule()? {
            Rule::Pool { memory: Memory::ChannelsLast } => pool::Memory::ChannelsLast,
            Rule::Pool { memory: Memory::Contiguous } => pool::Memory::Contiguous,
            Rule::Mean { multiplier: Multiplier::Quotient } => {
                return Ok(PoolRule::Mean(Mean::Scaled { input, output: self.codes(self.output)? }));
            }
            Rule::Mean { multiplier: Multiplier::Reciprocal } => {
                return Err(self.wrong("`multiplier` of the rule", "reciprocal", "quotient"));
            }
            rule => return self.wrong_rule(&rule, "pool or mean"),
        };
        Ok(PoolRule::Average(Average { memory, zero_point: input.zero_point(), codes: input.codes() }))
    }

    pub(super) fn avg_pool(&self) -> Result<Operator, LoadError> {
        let a: document::AvgPool = self.attributes()?;
        let [_, height, width] = self.image()?;
        let axis = |i: usize, input| Axis {
            input,
            kernel: a.kernel[i],
            stride: a.stride[i],
            padding: [a.padding[i]; 2],
            dilation: 1,
        };
        let divisor = match (a.divisor_override, a.count_include_pad) {
            (Some(0), _) => return Err(self.wrong("`divisor_override`", 0, "at least 1, or null")),
            (Some(n), _) => Divisor::Constant(n),
            (None, true) => Divisor::Padded,
            (None, false) => Divisor::Image,
        };
        let pool = self.window_pool([axis(0, height), axis(1, width)], a.ceil_mode)?;
        Ok(Operator::AvgPool(pool, divisor, self.average()?))
    }

    pub(super) fn adaptive_avg_pool(&self) -> Result<Operator, LoadError> {
        let a: document::AdaptiveAvgPool = self.attributes()?;
        let [channels, height, width] = self.image()?;
        self.expect_same_quantization()?;
        let [out_height, out_width] = a.output_size;
        if out_height == 0 || out_width == 0 {
            return Err(self.wrong("`output_size`", format!("{:?}", a.output_size), "extents of at least 1"));
        }
        self.expect_output_shape(&[channels, out_height, out_width])?;
        let (input, output) = ([1, height, width], [1, out_height, out_width]);
        match self.average()? {
            PoolRule::Average(rule) => {
                Ok(Operator::AdaptiveAvgPool(AdaptivePool { batch: 1, channels, input, output }, rule))
            }
            // Windows of one size: the pool of that size.
            PoolRule::Mean(_) if output != [1, 1, 1] => {
                Err(self.wrong("`output_size` with the rule mean", format!("{:?}", a.output_size), "[1, 1]"))
            }
            rule @ PoolRule::Mean(_) => {
                let axes = input.map(|input| Axis { input, kernel: input, ..Axis::UNIT });
                Ok(Operator::AvgPool(Pool { batch: 1, channels, axes, ceil_mode: false }, Divisor::Image, rule))
            }
        }
    }
}
