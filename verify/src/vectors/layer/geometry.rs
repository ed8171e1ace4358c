//! Shapes of recorded layers, and the order of their elements.

use super::super::error::{Part, Problem};
use super::super::file::Case;
use qexact_reference::{Axis, Conv, Linear, layout};

/// The largest padded image, in codes. A recording is far from it; a file that asks for more wants memory.
pub(in super::super) const LARGEST_IMAGE: usize = 1 << 26;

/// A layer and the shapes of its tensors.
pub(super) struct Geometry {
    pub(super) description: String,
    pub(super) shape: Conv,
    pub(super) input: Vec<usize>,
    pub(super) weight: Vec<usize>,
    pub(super) output: Vec<usize>,
    pub(super) order: Order,
    /// Nothing about the kernel's axes keeps fbgemm from adding pairs of products in 16 bits.
    pub(super) may_be_depthwise: bool,
}

/// How a file orders elements.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Channels before space, weights OIHW.
    ChannelsFirst,
    /// Channels last, weights OHWI.
    ChannelsLast,
    /// Channels last, depthwise weights 1HWO.
    Depthwise,
}

impl Order {
    /// Elements of an input or output, in the order of layers.
    pub(super) fn to_layer<T: Copy>(self, x: Vec<T>, channels: usize, pixels: usize) -> Vec<T> {
        if self == Order::ChannelsFirst { layout::channels_last(&x, channels, pixels) } else { x }
    }

    /// And back.
    pub(super) fn to_file<T: Copy>(self, y: Vec<T>, channels: usize, pixels: usize) -> Vec<T> {
        if self == Order::ChannelsFirst { layout::channels_first(&y, channels, pixels) } else { y }
    }

    /// Weights, in the order of layers.
    pub(super) fn weight<T: Copy>(self, w: Vec<T>, shape: &Conv) -> Vec<T> {
        match self {
            Order::ChannelsFirst => layout::channels_last(&w, shape.group_inputs(), shape.taps()),
            Order::ChannelsLast => w,
            Order::Depthwise => layout::transpose(&w, shape.taps(), shape.out_channels),
        }
    }

    /// Row and channel of the output at a flat index of the file.
    pub(super) fn place(self, index: usize, shape: &Conv) -> (usize, usize) {
        let (pixels, channels) = (shape.pixels(), shape.out_channels);
        match self {
            Order::ChannelsFirst => (index / pixels / channels * pixels + index % pixels, index / pixels % channels),
            Order::ChannelsLast | Order::Depthwise => (index / channels, index % channels),
        }
    }
}

impl Geometry {
    /// `x` [M, K], `w` [N, K], `y` [M, N].
    pub(super) fn linear(case: &mut Case<'_>) -> Result<Geometry, Problem> {
        let input = case.dims("x", &["rows", "in_features"])?;
        let out_features = case.dims("w", &["out_features", "in_features"])?[0];
        let linear = Linear { rows: input[0], in_features: input[1], out_features };
        let shape = Conv::from(linear);
        shape.validate().map_err(Problem::refused("shape"))?;
        Ok(Geometry {
            description: linear.to_string(),
            shape,
            weight: vec![out_features, input[1]],
            output: vec![input[0], out_features],
            input,
            order: Order::ChannelsLast,
            may_be_depthwise: false,
        })
    }

    /// [`linear`](Geometry::linear) in a file whose cases have the stride and dilation of a convolution beside it.
    pub(super) fn linear_of_lite(case: &mut Case<'_>) -> Result<Geometry, Problem> {
        let _ = [case.extents("stride", 2)?, case.extents("dilation", 2)?];
        Geometry::linear(case)
    }

    /// `x` [N, C, spatial…], `w` [O, C / groups, kernel…], `y` [N, O, spatial…] over `axes` spatial axes.
    pub(super) fn conv(case: &mut Case<'_>, axes: usize) -> Result<Geometry, Problem> {
        let spatial = &["depth", "height", "width"][3 - axes..];
        let input = case.dims("x", &[&["batch", "channels"], spatial].concat())?;
        let weight = case.dims("w", &[&["out_channels", "channels / groups"], spatial].concat())?;
        let [stride, dilation] = [case.extents("stride", axes)?, case.extents("dilation", axes)?];
        let padding = paddings(case, axes)?;
        let axes_of_shape = axes_of(&input[2..], &weight[2..], (&stride, &padding, &dilation));
        let groups = case.field("groups", "an integer of at least 1")?;
        let shape =
            Conv { batch: input[0], in_channels: input[1], out_channels: weight[0], groups, axes: axes_of_shape };
        shape.validate().map_err(Problem::refused("shape, stride, padding, dilation and groups"))?;
        // Validation has shown that this fits.
        let padded = shape.axes.iter().map(|a| a.input + a.padding[0] + a.padding[1]).product::<usize>();
        if padded * shape.in_channels > LARGEST_IMAGE {
            let expected = format_args!("a padded image of at most {LARGEST_IMAGE} codes");
            return Err(Problem::wrong(Part::Field, "padding", format_args!("{padding:?}"), expected));
        }
        let extents = shape.output_extents().map_err(Problem::refused("shape"))?;
        Ok(Geometry {
            description: shape.to_string(),
            shape,
            weight: [&[weight[0], shape.group_inputs()], &weight[2..]].concat(),
            output: [&[input[0], weight[0]], &extents[3 - axes..]].concat(),
            input,
            order: Order::ChannelsFirst,
            // A three-dimensional kernel is on the depthwise path only if no extent is 1; two dimensions have no
            // third.
            may_be_depthwise: axes < 3 || shape.axes[0].kernel > 1,
        })
    }

    /// `x` [N, H, W, C], `w` [O, H, W, C], `y` [N, H, W, O], without padding.
    pub(super) fn lite_conv2d(case: &mut Case<'_>) -> Result<Geometry, Problem> {
        let weight = case.dims("w", &["out_channels", "height", "width", "channels"])?;
        Geometry::lite(case, [weight[0], weight[1], weight[2]], 1, Order::ChannelsLast)
    }

    /// `x` [N, H, W, C], `w` [1, H, W, C], `y` [N, H, W, C], without padding: every channel is a group of its own.
    pub(super) fn lite_depthwise_conv2d(case: &mut Case<'_>) -> Result<Geometry, Problem> {
        let weight = case.dims("w", &["one", "height", "width", "channels"])?;
        Geometry::lite(case, [weight[3], weight[1], weight[2]], weight[3], Order::Depthwise)
    }

    /// Output channels, height and width of the kernel, groups.
    fn lite(
        case: &mut Case<'_>,
        [out_channels, height, width]: [usize; 3],
        groups: usize,
        order: Order,
    ) -> Result<Geometry, Problem> {
        let input = case.dims("x", &["batch", "height", "width", "channels"])?;
        let [stride, dilation] = [case.extents("stride", 2)?, case.extents("dilation", 2)?];
        let axes = axes_of(&input[1..3], &[height, width], (&stride, &[[0; 2]; 2], &dilation));
        let shape = Conv { batch: input[0], in_channels: input[3], out_channels, groups, axes };
        shape.validate().map_err(Problem::refused("shape, stride and dilation"))?;
        let [_, y, x] = shape.output_extents().map_err(Problem::refused("shape"))?;
        let weight = match order {
            Order::Depthwise => vec![1, height, width, out_channels],
            Order::ChannelsFirst | Order::ChannelsLast => vec![out_channels, height, width, shape.group_inputs()],
        };
        Ok(Geometry {
            description: shape.to_string(),
            shape,
            weight,
            output: vec![input[0], y, x, out_channels],
            input,
            order,
            may_be_depthwise: false,
        })
    }
}

/// One number a spatial axis; or two, where padding behind differs: those before all axes, then those behind.
fn paddings(case: &mut Case<'_>, axes: usize) -> Result<Vec<[usize; 2]>, Problem> {
    let expected = format!("{axes} integers, none of them negative, or {} of them", 2 * axes);
    let padding: Vec<usize> = case.field("padding", &expected)?;
    let behind = match padding.len() {
        n if n == axes => 0,
        n if n == 2 * axes => axes,
        _ => return Err(Problem::wrong(Part::Field, "padding", format_args!("{padding:?}"), expected)),
    };
    Ok((0..axes).map(|axis| [padding[axis], padding[behind + axis]]).collect())
}

/// The last axes, from the extents of input and kernel, and stride, padding and dilation.
fn axes_of(
    input: &[usize],
    kernel: &[usize],
    (stride, padding, dilation): (&[usize], &[[usize; 2]], &[usize]),
) -> [Axis; 3] {
    let mut axes = [Axis::UNIT; 3];
    for (i, axis) in axes[3 - input.len()..].iter_mut().enumerate() {
        *axis =
            Axis { input: input[i], kernel: kernel[i], stride: stride[i], padding: padding[i], dilation: dilation[i] };
    }
    axes
}
