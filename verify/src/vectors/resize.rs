//! Nearest neighbours, recorded from PyTorch. Shapes are logical: [N, C, H, W].

use super::codes::{Codes, values};
use super::error::{Part, Problem};
use super::file::Case;
use super::layer::LARGEST_IMAGE;
use super::operator::{Operator, Outputs, Recorded};
use qexact_reference::movement::{Resize, upsample_nearest};
use qexact_reference::{Error, layout};

/// A recorded call, channels last.
struct Recording {
    batch: usize,
    channels: usize,
    axes: [Resize; 2],
    input: Codes,
    output: [Recorded; 1],
}

/// `interpolate(x, size, scale_factor, mode="nearest")`
pub(super) fn nearest(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    let shape = case.dims("x", &["batch", "channels", "height", "width"])?;
    let codes = case.code_type("x")?;
    case.quantization("", codes)?;
    // Both of torch's kernels choose the same pixels.
    let _: bool = case.field("channels_last", "true or false")?;
    let size: Option<[usize; 2]> = case.nullable_field("size", "null or two extents")?;
    let factors: Option<[f64; 2]> = case.nullable_field("scale_factors", "null or two numbers")?;
    let axis = |i: usize| match (size, factors) {
        (Some(size), None) => Resize::to_extent(shape[2 + i], size[i]).map_err(Problem::refused("size")),
        (None, Some(factors)) => Resize::by_factor(shape[2 + i], factors[i]).map_err(Problem::refused("scale_factors")),
        (None, None) => Err(Problem::missing(Part::Field, "size", "two extents, or `scale_factors`")),
        (Some(_), Some(_)) => Err(Problem::wrong(Part::Field, "size", "two extents", "null beside `scale_factors`")),
    };
    let axes = [axis(0)?, axis(1)?];
    let [height, width] = axes.map(|axis| axis.output());
    let len = shape[0].saturating_mul(shape[1]).saturating_mul(height).saturating_mul(width);
    if len > LARGEST_IMAGE {
        let expected = format_args!("an output of at most {LARGEST_IMAGE} codes");
        return Err(Problem::wrong(Part::Field, "size", format_args!("[{height}, {width}]"), expected));
    }
    let input = Codes::take(case, "x", &shape, codes, |x| layout::channels_last(x, shape[1], shape[2] * shape[3]))?;
    let output = [Recorded::take_codes(case, "y", vec![shape[0], shape[1], height, width], codes)?];
    Ok(Box::new(Recording { batch: shape[0], channels: shape[1], axes, input, output }))
}

impl Operator for Recording {
    fn describe(&self) -> String {
        format!("{:?} resized", self.output[0].shape)
    }

    fn recorded(&self) -> &[Recorded] {
        &self.output
    }

    fn exact(&self) -> Result<Outputs, Error> {
        let axes = [Resize::UNIT, self.axes[0], self.axes[1]];
        let y = match &self.input {
            Codes::U8(x) => values(upsample_nearest(x, self.batch, self.channels, axes)?),
            Codes::I8(x) => values(upsample_nearest(x, self.batch, self.channels, axes)?),
        };
        let shape = &self.output[0].shape;
        Ok(vec![layout::channels_first(&y, shape[1], shape[2] * shape[3])])
    }
}
