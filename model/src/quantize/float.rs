//! Running the fused network on floats, to see ranges. Sums are f64, rounded once to f32.

use super::document::FloatDocument;
use super::fuse::{FloatLayer, Step};
use crate::document;
use crate::error::{At, LoadError, invalid};
use crate::network::{MOST_ELEMENTS, MOST_WINDOW};
use crate::tensors::Tensors;
use qexact_reference::pool::Pool;
use qexact_reference::{Axis, Conv};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// A batch of float samples, in logical order.
#[derive(Clone, Debug)]
pub(super) struct Values {
    pub(super) batch: usize,
    /// Of one sample.
    pub(super) shape: Vec<usize>,
    pub(super) data: Vec<f32>,
}

/// The tensor `samples`: `[S, shape…]`.
pub(super) fn samples(document: &FloatDocument, tensors: &Tensors<'_>) -> Result<Values, LoadError> {
    let (shape, data) = tensors.any_shape::<f32>("the document of the float network", "samples")?;
    match shape.split_first() {
        Some((&batch, sample)) if batch > 0 && sample == document.input.shape && !data.is_empty() => {
            Ok(Values { batch, shape: sample.to_vec(), data })
        }
        _ => {
            let expected = format!("at least one sample of the shape {:?}", document.input.shape);
            Err(invalid("tensor `samples`", "shape", format!("{shape:?}"), expected))
        }
    }
}

/// All values, by name.
pub(super) fn run(input: &str, samples: Values, steps: &[Step]) -> Result<BTreeMap<String, Values>, LoadError> {
    let mut values = BTreeMap::from([(input.to_string(), samples)]);
    for step in steps {
        let output = apply(step, &values[&step.input])?;
        values.insert(step.output.clone(), output);
    }
    Ok(values)
}

fn apply(step: &Step, x: &Values) -> Result<Values, LoadError> {
    let place = || format!("node `{}`", step.node);
    match (step.op.as_str(), &step.layer) {
        ("linear", Some(layer)) => linear(place, layer, x),
        (_, Some(layer)) => conv2d(step, layer, x),
        ("max_pool2d", _) => max_pool2d(step, x),
        ("avg_pool2d", _) => avg_pool2d(step, x),
        ("relu", _) => {
            let document::NoAttributes {} = attributes(step)?;
            Ok(Values { data: x.data.iter().map(|v| v.max(0.0)).collect(), ..x.clone() })
        }
        _ => {
            let document::NoAttributes {} = attributes(step)?;
            Ok(Values { shape: vec![x.shape.iter().product()], ..x.clone() })
        }
    }
}

fn attributes<T: for<'d> Deserialize<'d>>(step: &Step) -> Result<T, LoadError> {
    serde_json::from_value(Value::Object(step.attributes.clone())).map_err(|source| LoadError::Field {
        node: step.node.clone(),
        part: "attributes",
        source,
    })
}

fn linear(place: impl Fn() -> String, layer: &FloatLayer, x: &Values) -> Result<Values, LoadError> {
    let [outputs, inputs] = [layer.shape[0], layer.shape[1]];
    match x.shape.split_last() {
        Some((&last, leading)) if last == inputs => {
            let shape = [leading, &[outputs]].concat();
            let mut data = allocate(&place, x.batch, &shape)?;
            for row in x.data.chunks_exact(inputs) {
                for (o, weight) in layer.weight.chunks_exact(inputs).enumerate() {
                    let sum: f64 = row.iter().zip(weight).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
                    data.push(finish(layer, o, sum));
                }
            }
            Ok(Values { batch: x.batch, shape, data })
        }
        _ => Err(invalid(place(), "shape of the input", format!("{:?}", x.shape), format!("[…, {inputs}]"))),
    }
}

/// Bias and ReLU.
fn finish(layer: &FloatLayer, channel: usize, sum: f64) -> f32 {
    let y = sum + layer.bias.as_ref().map_or(0.0, |bias| f64::from(bias[channel]));
    if layer.relu { y.max(0.0) as f32 } else { y as f32 }
}

fn conv2d(step: &Step, layer: &FloatLayer, x: &Values) -> Result<Values, LoadError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Attributes {
        stride: [usize; 2],
        padding: [[usize; 2]; 2],
        dilation: [usize; 2],
        groups: usize,
    }
    let place = || format!("node `{}`", step.node);
    let a: Attributes = attributes(step)?;
    let [channels, height, width] = image(step, x)?;
    let axis = |i: usize, input| Axis {
        input,
        kernel: layer.shape[2 + i],
        stride: a.stride[i],
        padding: a.padding[i],
        dilation: a.dilation[i],
    };
    let axes = [Axis::UNIT, axis(0, height), axis(1, width)];
    let conv = Conv { batch: x.batch, in_channels: channels, out_channels: layer.shape[0], groups: a.groups, axes };
    conv.validate().at(place)?;
    if layer.shape[1] != conv.group_inputs() {
        let (got, expected) = (format!("{:?}", layer.shape), format!("{} inputs a group", conv.group_inputs()));
        return Err(invalid(format!("tensor `{}.weight`", step.node), "shape", got, expected));
    }
    let [_, out_height, out_width] = conv.output_extents().at(place)?;
    let shape = vec![conv.out_channels, out_height, out_width];
    let mut data = allocate(&place, x.batch, &shape)?;
    let (inputs, [_, rows, columns]) = (conv.group_inputs(), axes);
    for sample in x.data.chunks_exact(channels * height * width) {
        for (o, weight) in layer.weight.chunks_exact(conv.depth()).enumerate() {
            let first = o / conv.group_outputs() * inputs;
            for (i, j) in pixels(out_height, out_width) {
                let mut sum = 0.0;
                for (tap, (y, x)) in pixels(rows.kernel, columns.kernel).enumerate() {
                    let (Some(y), Some(x)) = (rows.source(i, y), columns.source(j, x)) else { continue };
                    for c in 0..inputs {
                        let value = sample[((first + c) * height + y) * width + x];
                        sum += f64::from(value) * f64::from(weight[c * conv.taps() + tap]);
                    }
                }
                data.push(finish(layer, o, sum));
            }
        }
    }
    Ok(Values { batch: x.batch, shape, data })
}

fn pixels(height: usize, width: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..height).flat_map(move |y| (0..width).map(move |x| (y, x)))
}

fn max_pool2d(step: &Step, x: &Values) -> Result<Values, LoadError> {
    let a: document::MaxPool = attributes(step)?;
    let axis = |i: usize, input| Axis {
        input,
        kernel: a.kernel[i],
        stride: a.stride[i],
        padding: [a.padding[i]; 2],
        dilation: a.dilation[i],
    };
    pool(step, x, a.ceil_mode, axis, |window, _| window.iter().copied().fold(f32::NEG_INFINITY, f32::max))
}

fn avg_pool2d(step: &Step, x: &Values) -> Result<Values, LoadError> {
    let a: document::AvgPool = attributes(step)?;
    if let Some(divisor) = a.divisor_override {
        return Err(invalid(format!("node `{}`", step.node), "`divisor_override`", divisor, "null"));
    }
    let axis = |i: usize, input| Axis {
        input,
        kernel: a.kernel[i],
        stride: a.stride[i],
        padding: [a.padding[i]; 2],
        dilation: 1,
    };
    pool(step, x, a.ceil_mode, axis, |window, taps| {
        let divisor = if a.count_include_pad { taps } else { window.len() };
        (window.iter().map(|&v| f64::from(v)).sum::<f64>() / divisor as f64) as f32
    })
}

/// A pool of `value(elements of the window inside the image, all taps)`.
fn pool(
    step: &Step,
    x: &Values,
    ceil_mode: bool,
    axis: impl Fn(usize, usize) -> Axis,
    value: impl Fn(&[f32], usize) -> f32,
) -> Result<Values, LoadError> {
    let place = || format!("node `{}`", step.node);
    if ceil_mode {
        return Err(invalid(place(), "`ceil_mode`", true, false));
    }
    let [channels, height, width] = image(step, x)?;
    let axes = [Axis::UNIT, axis(0, height), axis(1, width)];
    let pool = Pool { batch: x.batch, channels, axes, ceil_mode };
    let [_, out_height, out_width] = pool.output_extents().at(place)?;
    let ([_, rows, columns], shape) = (axes, vec![channels, out_height, out_width]);
    let taps = rows.kernel.checked_mul(columns.kernel).filter(|&taps| taps <= MOST_WINDOW).ok_or_else(|| {
        let (got, expected) =
            (format!("{} × {}", rows.kernel, columns.kernel), format!("at most {MOST_WINDOW} elements"));
        invalid(place(), "window", got, expected)
    })?;
    let mut data = allocate(&place, x.batch, &shape)?;
    let mut window = Vec::new();
    for plane in x.data.chunks_exact(height * width) {
        for (i, j) in pixels(out_height, out_width) {
            window.clear();
            for (y, x) in pixels(rows.kernel, columns.kernel) {
                if let (Some(y), Some(x)) = (rows.source(i, y), columns.source(j, x)) {
                    window.push(plane[y * width + x]);
                }
            }
            if window.is_empty() {
                let expected = "windows with a pixel in each";
                return Err(invalid(place(), "geometry", "a window without any pixel", expected));
            }
            data.push(value(&window, taps));
        }
    }
    Ok(Values { batch: x.batch, shape, data })
}

/// Channels, height and width of the input.
fn image(step: &Step, x: &Values) -> Result<[usize; 3], LoadError> {
    <[usize; 3]>::try_from(x.shape.as_slice()).map_err(|_| {
        let expected = "[channels, height, width]";
        invalid(format!("node `{}`", step.node), "shape of the input", format!("{:?}", x.shape), expected)
    })
}

/// Room for a value of a size that a file may ask for.
fn allocate(place: &impl Fn() -> String, batch: usize, shape: &[usize]) -> Result<Vec<f32>, LoadError> {
    let len = shape.iter().try_fold(batch, |len, &extent| len.checked_mul(extent));
    match len.filter(|&len| len <= MOST_ELEMENTS) {
        Some(len) => Ok(Vec::with_capacity(len)),
        None => {
            let (got, expected) = (format!("{batch} × {shape:?}"), format!("at most {MOST_ELEMENTS} elements"));
            Err(invalid(place(), "size of the output", got, expected))
        }
    }
}
