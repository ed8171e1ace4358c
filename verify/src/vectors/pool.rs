//! Two-dimensional pools, recorded from PyTorch's ATen kernels. Shapes are logical: [N, C, H, W].

use super::codes::{Codes, elementwise, values};
use super::error::{Part, Problem};
use super::file::Case;
use super::operator::{Operator, Outputs, Recorded};
use super::report::Value;
use qexact_kernels::{Isa, elementwise as kernels};
use qexact_reference::pool::{AdaptivePool, Average, Divisor, Memory, Pool, adaptive_avg_pool, avg_pool, max_pool};
use qexact_reference::{Axis, Code, Error, layout};

/// The largest window, in pixels. A recording is far from it; a file that asks for more wants time.
pub(super) const LARGEST_WINDOW: usize = 1 << 20;

/// A recorded pool, channels last.
struct Recording {
    rule: Rule,
    input: Codes,
    output: [Recorded; 1],
}

enum Rule {
    Max(Pool),
    Average(Pool, Divisor, Average),
    Adaptive(AdaptivePool, Average),
}

/// `max_pool2d(x, kernel, stride, padding, dilation, ceil_mode)`
pub(super) fn max(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    let pool = window_pool(case)?;
    quantization(case)?;
    let extents = pool.output_extents().map_err(Problem::refused("kernel, stride, padding and dilation"))?;
    recording(case, Rule::Max(pool), extents)
}

/// [`max`] with the engine qnnpack, whose taps in the padding read the nearest pixel. Without dilation that pixel is in
/// the window anyway.
pub(super) fn qnnpack_max(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    let dilation = case.extents_or_one("dilation", 2)?;
    if dilation != [1, 1] {
        let expected = "[1, 1], all that R11 covers of this engine";
        return Err(Problem::wrong(Part::Field, "dilation", format_args!("{dilation:?}"), expected));
    }
    max(case)
}

/// `avg_pool2d(x, kernel, stride, padding, ceil_mode, count_include_pad, divisor_override)`
pub(super) fn average(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    let pool = window_pool(case)?;
    let padded: bool = case.field("count_include_pad", "true or false")?;
    let divisor = match case.nullable_field("divisor_override", "null or an integer of at least 1")? {
        Some(constant) => Divisor::Constant(constant),
        None if padded => Divisor::Padded,
        None => Divisor::Image,
    };
    let average = quantization(case)?;
    let extents = pool.output_extents().map_err(Problem::refused("kernel, stride and padding"))?;
    recording(case, Rule::Average(pool, divisor, average), extents)
}

/// `adaptive_avg_pool2d(x, output_size)`
pub(super) fn adaptive_average(case: &mut Case<'_>) -> Result<Box<dyn Operator>, Problem> {
    let size = case.extents("output_size", 2)?;
    let average = quantization(case)?;
    let shape = input_shape(case)?;
    let (input, output) = ([1, shape[2], shape[3]], [1, size[0], size[1]]);
    let pool = AdaptivePool { batch: shape[0], channels: shape[1], input, output };
    recording(case, Rule::Adaptive(pool, average), output)
}

fn input_shape(case: &Case<'_>) -> Result<Vec<usize>, Problem> {
    case.dims("x", &["batch", "channels", "height", "width"])
}

fn window_pool(case: &mut Case<'_>) -> Result<Pool, Problem> {
    let shape = input_shape(case)?;
    let [kernel, stride, padding] =
        [case.extents("kernel", 2)?, case.extents("stride", 2)?, case.extents("padding", 2)?];
    let dilation = case.extents_or_one("dilation", 2)?;
    if kernel[0].saturating_mul(kernel[1]) > LARGEST_WINDOW {
        let expected = format_args!("at most {LARGEST_WINDOW} pixels");
        return Err(Problem::wrong(Part::Field, "kernel", format_args!("{kernel:?}"), expected));
    }
    let axis = |i: usize| Axis {
        input: shape[2 + i],
        kernel: kernel[i],
        stride: stride[i],
        padding: [padding[i]; 2],
        dilation: dilation[i],
    };
    let ceil_mode = case.field("ceil_mode", "true or false")?;
    Ok(Pool { batch: shape[0], channels: shape[1], axes: [Axis::UNIT, axis(0), axis(1)], ceil_mode })
}

/// What input and output share, and the layout whose kernel ran.
fn quantization(case: &mut Case<'_>) -> Result<Average, Problem> {
    let codes = case.code_type("x")?;
    let zero_point = case.quantization("", codes)?.zero_point();
    let channels_last: bool = case.field("channels_last", "true or false")?;
    Ok(Average { memory: if channels_last { Memory::ChannelsLast } else { Memory::Contiguous }, zero_point, codes })
}

fn recording(case: &mut Case<'_>, rule: Rule, extents: [usize; 3]) -> Result<Box<dyn Operator>, Problem> {
    let shape = input_shape(case)?;
    let (channels, pixels) = (shape[1], shape[2] * shape[3]);
    let codes = case.code_type("x")?;
    let input = Codes::take(case, "x", &shape, codes, |x| layout::channels_last(x, channels, pixels))?;
    let output = [Recorded::take_codes(case, "y", vec![shape[0], channels, extents[1], extents[2]], codes)?];
    Ok(Box::new(Recording { rule, input, output }))
}

impl Rule {
    fn run<T: Code>(&self, x: &[T]) -> Result<Vec<T>, Error> {
        match self {
            Rule::Max(pool) => max_pool(pool, x),
            Rule::Average(pool, divisor, average) => avg_pool(pool, *divisor, *average, x),
            Rule::Adaptive(pool, average) => adaptive_avg_pool(pool, *average, x),
        }
    }

    fn run_on<T: Code>(&self, isa: Isa, x: &[T]) -> Result<Vec<T>, Error> {
        match self {
            Rule::Max(pool) => kernels::max_pool(isa, pool, x),
            Rule::Average(pool, divisor, average) => kernels::avg_pool(isa, pool, *divisor, *average, x),
            Rule::Adaptive(pool, average) => kernels::adaptive_avg_pool(isa, pool, *average, x),
        }
    }
}

impl Operator for Recording {
    fn describe(&self) -> String {
        let window = |p: &Pool| {
            let [_, h, w] = p.axes;
            format!(
                "n{}c{}ih{}iw{}kh{}kw{}sh{}sw{}ph{}pw{}{}",
                p.batch,
                p.channels,
                h.input,
                w.input,
                h.kernel,
                w.kernel,
                h.stride,
                w.stride,
                h.padding[0],
                w.padding[0],
                if p.ceil_mode { " ceil" } else { "" }
            )
        };
        let memory = |average: &Average| match average.memory {
            Memory::ChannelsLast => "channels last",
            Memory::Contiguous => "contiguous",
        };
        match &self.rule {
            Rule::Max(pool) => window(pool),
            Rule::Average(pool, _, average) => format!("{} {}", window(pool), memory(average)),
            Rule::Adaptive(pool, average) => {
                let ([_, ih, iw], [_, oh, ow]) = (pool.input, pool.output);
                format!("n{}c{}ih{ih}iw{iw}oh{oh}ow{ow} {}", pool.batch, pool.channels, memory(average))
            }
        }
    }

    fn recorded(&self) -> &[Recorded] {
        &self.output
    }

    fn exact(&self) -> Result<Outputs, Error> {
        Ok(self.outputs(&match &self.input {
            Codes::U8(x) => values(self.rule.run(x)?),
            Codes::I8(x) => values(self.rule.run(x)?),
        }))
    }

    fn on(&self, isa: Isa) -> Result<(String, Outputs), Error> {
        let y = match &self.input {
            Codes::U8(x) => self.rule.run_on(isa, x).map(values),
            Codes::I8(x) => self.rule.run_on(isa, x).map(values),
        };
        elementwise(isa, y.map(|y| self.outputs(&y)))
    }
}

impl Recording {
    /// In the recording's order.
    fn outputs(&self, y: &[Value]) -> Outputs {
        let shape = &self.output[0].shape;
        vec![layout::channels_first(y, shape[1], shape[2] * shape[3])]
    }
}
