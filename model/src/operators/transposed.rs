//! Transposed convolutions.

use super::Context;
use super::layer::Weights;
use crate::document;
use crate::error::{At, LoadError, invalid};
use crate::network::{MOST_ELEMENTS, MOST_PHASES, Operator, TransposedNode};
use qexact_reference::Layer;
use qexact_reference::layer::LayerParts;
use qexact_reference::transposed::{TransposedAxis, TransposedConv, weight_from_torch};

impl Context<'_> {
    pub(super) fn conv_transpose(&self, spatial: usize) -> Result<Operator, LoadError> {
        let a: document::ConvTranspose = self.attributes()?;
        self.expect_axes(
            spatial,
            &[
                ("number of strides", a.stride.len()),
                ("number of paddings", a.padding.len()),
                ("number of output paddings", a.output_padding.len()),
                ("number of dilations", a.dilation.len()),
            ],
        )?;
        let (name, shape, weight) = self.spatial_weight(spatial)?;
        let (in_channels, out_channels) = (self.input.shape[0], self.output.shape[0]);
        if a.groups == 0 || in_channels % a.groups != 0 || out_channels % a.groups != 0 {
            let expected = format!("a divisor of the {in_channels} and {out_channels} channels");
            return Err(self.wrong("`groups`", a.groups, expected));
        }
        let expected = [&[in_channels, out_channels / a.groups][..], &shape[2..]].concat();
        if shape != expected {
            let (got, expected) = (format!("{shape:?}"), format!("{expected:?}"));
            return Err(invalid(format!("tensor `{name}`"), "shape", got, expected));
        }
        let mut axes = [TransposedAxis::UNIT; 3];
        for (i, axis) in axes[3 - spatial..].iter_mut().enumerate() {
            *axis = TransposedAxis {
                input: self.input.shape[1 + i],
                kernel: shape[2 + i],
                stride: a.stride[i],
                padding: a.padding[i],
                output_padding: a.output_padding[i],
                dilation: a.dilation[i],
            };
        }
        let shape = TransposedConv { batch: 1, in_channels, out_channels, groups: a.groups, axes };
        let extents = shape.output_extents().at(|| self.place.clone())?;
        self.expect_output_shape(&[&[out_channels], &extents[3 - spatial..]].concat())?;
        self.expect_bounded_phases(&shape, extents)?;
        let weight = weight_from_torch(&weight, &shape).at(|| self.place.clone())?;
        let weights = self.weights(out_channels, weight, None)?;
        let rule = self.layer_rule(out_channels, false, &weights, a.relu)?;
        let Weights { codes: weight, scales, zero_point: weight_zero_point } = weights;
        let input = self.codes(self.input)?;
        let node = TransposedNode { shape, input, weight, weight_zero_point, weight_scales: scales.len(), rule };
        let at = || self.place.clone();
        for phase in shape.phases().at(at)? {
            self.expect_bounded(&phase.shape)?;
            let weight = phase.weight(&node.weight, &node.weight_zero_point).at(at)?;
            Layer::new(LayerParts { shape: phase.shape, weight: &weight, ..node.parts() }).at(at)?;
        }
        Ok(Operator::Transposed(Box::new(node)))
    }

    /// Each phase has weights of its own, also one that no tap reaches.
    fn expect_bounded_phases(&self, shape: &TransposedConv, extents: [usize; 3]) -> Result<(), LoadError> {
        let phases = shape.axes.iter().zip(extents).map(|(axis, extent)| axis.stride.min(extent));
        let phases = phases.fold(1, usize::saturating_mul);
        if phases > MOST_PHASES {
            return Err(self.wrong("phases (the product of the strides)", phases, format!("at most {MOST_PHASES}")));
        }
        let weights = phases.saturating_mul(shape.out_channels).saturating_mul(shape.in_channels / shape.groups);
        if weights > MOST_ELEMENTS {
            return Err(self.wrong("phases times weights of a tap", weights, format!("at most {MOST_ELEMENTS}")));
        }
        Ok(())
    }
}
