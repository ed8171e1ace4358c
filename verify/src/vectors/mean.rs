//! Average pools of QNNPACK, ONNX Runtime and TFLite.

use super::activation;
use super::codes::{Codes, elementwise, values};
use super::error::{Part, Problem};
use super::file::Case;
use super::operator::{Operator, Outputs, Recorded};
use super::pool::LARGEST_WINDOW;
use super::report::Value;
use qexact_kernels::{Isa, elementwise as kernels};
use qexact_reference::mean::{Mean, mean_pool};
use qexact_reference::pool::{Divisor, Pool};
use qexact_reference::{Axis, CodeType, Error, Quantization, layout};

const NCHW: [&str; 4] = ["batch", "channels", "height", "width"];

/// A recorded pool, channels last.
struct Recording {
    pool: Pool,
    divisor: Divisor,
    mean: Mean,
    input: Codes,
    output: [Recorded; 1],
    /// Whether the recording has channels before space.
    channels_first: bool,
}

/// `avg_pool2d` with the engine qnnpack: padding holds z and always counts.
pub(super) fn qnnpack(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    let shape = case.dims("x", &NCHW)?;
    // What this engine ignores: its padding always counts.
    let _: bool = case.field("count_include_pad", "true or false")?;
    let _: Option<u32> = case.nullable_field("divisor_override", "null or an integer")?;
    let ceil_mode: bool = case.field("ceil_mode", "true or false")?;
    if ceil_mode {
        return Err(Problem::wrong(Part::Field, "ceil_mode", true, "false, all that this engine has"));
    }
    let [kernel, stride, padding] =
        [case.extents("kernel", 2)?, case.extents("stride", 2)?, case.extents("padding", 2)?];
    let padding = [padding[0], padding[1], padding[0], padding[1]];
    let pool = pool([shape[0], shape[1], shape[2], shape[3]], &kernel, &stride, padding)?;
    let quantization = qnnpack_quantization(case)?;
    let mean = Mean::Scaled { input: quantization, output: quantization };
    recording(case, pool, Divisor::Padded, mean, true)
}

/// `adaptive_avg_pool2d` to one pixel with the engine qnnpack.
pub(super) fn qnnpack_adaptive(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    let size = case.extents("output_size", 2)?;
    if size != [1, 1] {
        return Err(Problem::wrong(Part::Field, "output_size", format_args!("{size:?}"), "[1, 1]"));
    }
    let pool = global(case)?;
    let quantization = qnnpack_quantization(case)?;
    let mean = Mean::Scaled { input: quantization, output: quantization };
    recording(case, pool, Divisor::Image, mean, true)
}

fn qnnpack_quantization(case: &mut Case<'_>) -> Result<Quantization, Problem> {
    // The engine computes channels last whatever the memory.
    let _: bool = case.field("channels_last", "true or false")?;
    case.quantization("", CodeType::U8)
}

/// `com.microsoft.QLinearAveragePool`
pub(super) fn ort(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    let shape = case.dims("x", &NCHW)?;
    let [kernel, stride, pads] =
        [case.extents("kernel_shape", 2)?, case.extents("strides", 2)?, case.extents("pads", 4)?];
    let padding = [pads[0], pads[1], pads[2], pads[3]];
    let pool = pool([shape[0], shape[1], shape[2], shape[3]], &kernel, &stride, padding)?;
    let divisor = match case.field("count_include_pad", "0 or 1")? {
        0 => Divisor::Image,
        1 => Divisor::Padded,
        other => return Err(Problem::wrong(Part::Field, "count_include_pad", format_args!("{other}"), "0 or 1")),
    };
    let [input, output] = ort_quantizations(case)?;
    recording(case, pool, divisor, Mean::Real { input, output }, true)
}

/// `com.microsoft.QLinearGlobalAveragePool`
pub(super) fn ort_global(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    let pool = global(case)?;
    let [input, output] = ort_quantizations(case)?;
    recording(case, pool, Divisor::Image, Mean::ClampFirst { input, output }, true)
}

fn ort_quantizations(case: &mut Case<'_>) -> Result<[Quantization; 2], Problem> {
    let (x, y) = (case.code_type("x")?, case.code_type("y")?);
    if x != y {
        return Err(Problem::wrong(Part::Tensor, "y", y, x));
    }
    Ok([case.quantization("x_", x)?, case.quantization("y_", y)?])
}

/// TFLite's `AVERAGE_POOL_2D` without padding. Shapes are [N, H, W, C].
pub(super) fn tflite(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    let shape = case.dims("x", &["batch", "height", "width", "channels"])?;
    let [kernel, stride] = [case.extents("kernel", 2)?, case.extents("stride", 2)?];
    let pool = pool([shape[0], shape[3], shape[1], shape[2]], &kernel, &stride, [0; 4])?;
    let codes = case.code_type("x")?;
    let clamp = activation(case)?.clamp(case.quantization("", codes)?);
    recording(case, pool, Divisor::Image, Mean::Integer { clamp }, false)
}

fn global(case: &Case<'_>) -> Result<Pool, Problem> {
    let shape = case.dims("x", &NCHW)?;
    pool([shape[0], shape[1], shape[2], shape[3]], &shape[2..], &[1, 1], [0; 4])
}

/// `shape` is N, C, H, W; `padding` is top, left, bottom, right.
fn pool(shape: [usize; 4], kernel: &[usize], stride: &[usize], padding: [usize; 4]) -> Result<Pool, Problem> {
    let [batch, channels, height, width] = shape;
    if kernel[0].saturating_mul(kernel[1]) > LARGEST_WINDOW {
        let expected = format_args!("at most {LARGEST_WINDOW} pixels");
        return Err(Problem::wrong(Part::Field, "kernel", format_args!("{kernel:?}"), expected));
    }
    let axis = |i: usize, input| Axis {
        input,
        kernel: kernel[i],
        stride: stride[i],
        padding: [padding[i], padding[i + 2]],
        dilation: 1,
    };
    Ok(Pool { batch, channels, axes: [Axis::UNIT, axis(0, height), axis(1, width)], ceil_mode: false })
}

fn recording(
    case: &mut Case<'_>,
    pool: Pool,
    divisor: Divisor,
    mean: Mean,
    channels_first: bool,
) -> Result<Box<dyn Operator>, Problem> {
    let [_, height, width] = pool.output_extents().map_err(Problem::refused("kernel, stride and padding"))?;
    let [_, h, w] = pool.axes.map(|axis| axis.input);
    let shape = |h, w| {
        if channels_first { vec![pool.batch, pool.channels, h, w] } else { vec![pool.batch, h, w, pool.channels] }
    };
    let (x_shape, y_shape) = (shape(h, w), shape(height, width));
    let codes = case.code_type("x")?;
    let input = Codes::take(case, "x", &x_shape, codes, |x| {
        if channels_first { layout::channels_last(x, pool.channels, h * w) } else { x.to_vec() }
    })?;
    let output = [Recorded::take_codes(case, "y", y_shape, codes)?];
    Ok(Box::new(Recording { pool, divisor, mean, input, output, channels_first }))
}

impl Operator for Recording {
    fn describe(&self) -> String {
        let Pool { batch, channels, axes: [_, h, w], .. } = self.pool;
        format!(
            "n{batch}c{channels}ih{}iw{}kh{}kw{}sh{}sw{}ph{}pw{}",
            h.input, w.input, h.kernel, w.kernel, h.stride, w.stride, h.padding[0], w.padding[0]
        )
    }

    fn recorded(&self) -> &[Recorded] {
        &self.output
    }

    fn exact(&self) -> Result<Outputs, Error> {
        Ok(self.outputs(match &self.input {
            Codes::U8(x) => values(mean_pool(&self.pool, self.divisor, &self.mean, x)?),
            Codes::I8(x) => values(mean_pool(&self.pool, self.divisor, &self.mean, x)?),
        }))
    }

    fn on(&self, isa: Isa) -> Result<(String, Outputs), Error> {
        let y = match &self.input {
            Codes::U8(x) => kernels::mean_pool(isa, &self.pool, self.divisor, &self.mean, x).map(values),
            Codes::I8(x) => kernels::mean_pool(isa, &self.pool, self.divisor, &self.mean, x).map(values),
        };
        elementwise(isa, y.map(|y| self.outputs(y)))
    }
}

impl Recording {
    /// In the recording's order.
    fn outputs(&self, y: Vec<Value>) -> Outputs {
        let shape = &self.output[0].shape;
        vec![if self.channels_first { layout::channels_first(&y, shape[1], shape[2] * shape[3]) } else { y }]
    }
}
