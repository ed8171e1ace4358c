//! Operators each of whose axes chooses elements of the input.

use super::Context;
use crate::document;
use crate::error::{At, LoadError};
use crate::network::{Gather, MOST_ELEMENTS, Operator};
use qexact_reference::movement::{Resize, reflected};

impl Context<'_> {
    pub(super) fn pad(&self) -> Result<Operator, LoadError> {
        let document::Pad { padding, value } = self.attributes()?;
        self.expect_paddings(&padding)?;
        if let Some(q) = self.input.quantization {
            let codes = q.codes();
            if value.fract() != 0.0 || !(f64::from(codes.lo())..=f64::from(codes.hi())).contains(&value) {
                return Err(self.wrong("`value`", value, format!("a code, from {} to {}", codes.lo(), codes.hi())));
            }
        } else if !(value as f32).is_finite() {
            return Err(self.wrong("`value`", value, "a number that is finite as an f32"));
        }
        let axis = |(&extent, &[before, after]): (&usize, &[usize; 2])| {
            let inside = (0..extent).map(Some);
            let none = |n| std::iter::repeat_n(None, n);
            none(before).chain(inside).chain(none(after)).collect()
        };
        self.gather(self.input.shape.iter().zip(&padding).map(axis).collect(), value)
    }

    pub(super) fn reflection_pad(&self) -> Result<Operator, LoadError> {
        let document::ReflectionPad { padding } = self.attributes()?;
        self.expect_paddings(&padding)?;
        let mut axes = Vec::new();
        for (&extent, &padding) in self.input.shape.iter().zip(&padding) {
            axes.push(reflected(extent, padding).at(|| self.place.clone())?.into_iter().map(Some).collect());
        }
        self.gather(axes, 0.0)
    }

    /// One padding an axis; a short file does not ask for any amount of memory.
    fn expect_paddings(&self, padding: &[[usize; 2]]) -> Result<(), LoadError> {
        let shape = &self.input.shape;
        if padding.len() != shape.len() {
            return Err(self.wrong("number of paddings", padding.len(), shape.len()));
        }
        let padded =
            shape.iter().zip(padding).map(|(n, [before, after])| n.saturating_add(*before).saturating_add(*after));
        let padded = padded.fold(1, usize::saturating_mul);
        if padded > MOST_ELEMENTS {
            return Err(self.wrong("elements of the padded input", padded, format!("at most {MOST_ELEMENTS}")));
        }
        Ok(())
    }

    pub(super) fn upsample_nearest(&self) -> Result<Operator, LoadError> {
        let document::UpsampleNearest { scale_factors } = self.attributes()?;
        let (from, to) = (&self.input.shape, &self.output.shape);
        let spatial = from.len().saturating_sub(1);
        if !(1..=3).contains(&spatial) {
            return Err(self.wrong("number of spatial axes of the input", spatial, "1 to 3"));
        }
        if scale_factors.len() != spatial {
            return Err(self.wrong("number of scale factors", scale_factors.len(), spatial));
        }
        if to.len() != from.len() {
            return Err(self.wrong("number of axes of the output", to.len(), from.len()));
        }
        let mut resizes = Vec::new();
        for ((&from, &to), factor) in from.iter().zip(to).skip(1).zip(scale_factors) {
            let resize = match factor {
                Some(factor) => Resize::by_factor(from, factor),
                None => Resize::to_extent(from, to),
            };
            resizes.push(resize.at(|| self.place.clone())?);
        }
        // Before anything as long as the extents is made.
        let extents: Vec<usize> = resizes.iter().map(Resize::output).collect();
        self.expect_output_shape(&[&from[..1], &extents].concat())?;
        let copied = from[1..] == to[1..];
        let mut axes = vec![(0..from[0]).map(Some).collect()];
        for resize in resizes {
            axes.push((0..resize.output()).map(|at| Some(if copied { at } else { resize.source(at) })).collect());
        }
        self.gather(axes, 0.0)
    }

    pub(super) fn channel_shuffle(&self) -> Result<Operator, LoadError> {
        let document::ChannelShuffle { groups } = self.attributes()?;
        let Some((&channels, others)) = self.input.shape.split_first() else {
            return Err(self.wrong("shape of the input", "[]", "at least one axis"));
        };
        if groups == 0 || channels % groups != 0 {
            return Err(self.wrong("`groups`", groups, format!("a divisor of the {channels} channels")));
        }
        let shuffled = (0..channels).map(|at| Some(at % groups * (channels / groups) + at / groups)).collect();
        let others = others.iter().map(|&extent| (0..extent).map(Some).collect());
        self.gather(std::iter::once(shuffled).chain(others).collect(), 0.0)
    }

    /// What these operators share.
    fn gather(&self, axes: Vec<Vec<Option<usize>>>, value: f64) -> Result<Operator, LoadError> {
        self.no_rule()?;
        self.expect_same_quantization()?;
        self.expect_output_shape(&axes.iter().map(Vec::len).collect::<Vec<_>>())?;
        Ok(Operator::Gather(Gather { axes, value }))
    }
}
