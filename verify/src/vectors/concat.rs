//! Concatenation along the channels, recorded from PyTorch's ATen kernels. Shapes are logical: [N, C, H, W].

use super::codes::{elementwise, values};
use super::error::Problem;
use super::file::Case;
use super::operator::{Operator, Outputs, Recorded};
use qexact_kernels::{Isa, elementwise as kernels};
use qexact_reference::add::Form;
use qexact_reference::concat::{Part, aten_channels_last, aten_contiguous, concat};
use qexact_reference::recode::Recode;
use qexact_reference::{CodeType, Error, layout};

/// How many channels of an input the vector body takes at a time.
const GRANULE: usize = 8;

/// A recorded call. An input of two formulas is held as two inputs, one for each.
struct Recording {
    parts: Vec<(Vec<u8>, usize, Recode)>,
    pixels: usize,
    output: [Recorded; 1],
}

/// `torch.ops.quantized.cat([a, b], dim=1)`
pub(super) fn aten(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    let channels_last: bool = case.field("channels_last", "true or false")?;
    let y = case.quantization("y_", CodeType::U8)?;
    let a_shape = case.dims("a", &["batch", "channels", "height", "width"])?;
    let spatial = a_shape[2] * a_shape[3];
    let b_channels = case.dims("b", &["batch", "channels", "height", "width"])?[1];
    let b_shape = vec![a_shape[0], b_channels, a_shape[2], a_shape[3]];
    let y_shape = vec![a_shape[0], a_shape[1] + b_channels, a_shape[2], a_shape[3]];
    let mut parts = Vec::new();
    for (name, prefix, shape) in [("a", "a_", &a_shape), ("b", "b_", &b_shape)] {
        let x = case.quantization(prefix, CodeType::U8)?;
        let (channels, codes) = (shape[1], case.tensor::<u8>(name, shape)?);
        let codes = layout::channels_last(&codes, channels, spatial);
        if channels_last {
            let body = channels / GRANULE * GRANULE;
            let some = |range: std::ops::Range<usize>| -> Vec<u8> {
                codes.chunks_exact(channels).flat_map(|pixel| &pixel[range.clone()]).copied().collect()
            };
            parts.push((some(0..body), body, aten_channels_last(x, y, Form::Body)));
            parts.push((some(body..channels), channels - body, aten_channels_last(x, y, Form::Tail)));
        } else {
            parts.push((codes, channels, aten_contiguous(x, y)));
        }
    }
    let output = [Recorded::take::<u8>(case, "y", y_shape)?];
    Ok(Box::new(Recording { parts, pixels: a_shape[0] * spatial, output }))
}

impl Operator for Recording {
    fn describe(&self) -> String {
        let channels: Vec<String> = self.parts.iter().map(|part| part.1.to_string()).collect();
        format!("{} pixels, channels {}", self.pixels, channels.join(" + "))
    }

    fn recorded(&self) -> &[Recorded] {
        &self.output
    }

    fn exact(&self) -> Result<Outputs, Error> {
        Ok(self.outputs(concat(self.pixels, &self.parts())?))
    }

    fn on(&self, isa: Isa) -> Result<(String, Outputs), Error> {
        elementwise(isa, kernels::concat(isa, self.pixels, &self.parts()).map(|y| self.outputs(y)))
    }
}

impl Recording {
    fn parts(&self) -> Vec<Part<'_, u8>> {
        self.parts.iter().map(|&(ref codes, channels, recode)| Part { codes, channels, recode }).collect()
    }

    /// In the recording's order.
    fn outputs(&self, y: Vec<u8>) -> Outputs {
        let shape = &self.output[0].shape;
        vec![layout::channels_first(&values(y), shape[1], shape[2] * shape[3])]
    }
}
