//! Operators on several values at once, and those that move elements.

use crate::network::{Concat, Gather};
use crate::tensor::{Data, Order, Tensor};
use qexact_kernels::Isa;
use qexact_kernels::elementwise::{Binary, broadcast};
use qexact_reference::{Code, Error};

/// The rule's codes of all pairs of two values, and their order. Shapes that differ are broadcast.
pub(crate) fn pairs(isa: Isa, rule: &impl Binary, a: &Tensor, b: &Tensor) -> Result<(Order, Data), Error> {
    let order = if a.shape() == b.shape() { a.order() } else { Order::Logical };
    let (x, y) = (a.in_order(order), b.in_order(order));
    let [a_shape, b_shape] = [a, b].map(|t| [&[t.batch()], t.shape()].concat());
    let data = match (x.as_ref(), y.as_ref()) {
        (Data::U8(x), Data::U8(y)) => Data::U8(broadcast(isa, rule, (x, &a_shape), (y, &b_shape))?),
        (Data::I8(x), Data::I8(y)) => Data::I8(broadcast(isa, rule, (x, &a_shape), (y, &b_shape))?),
        _ => unreachable!("the graph gives this operator codes of one type, and `check` compared the types"),
    };
    Ok((order, data))
}

/// Recoded inputs, one after the other along an axis.
pub(crate) fn concat(concat: &Concat, inputs: &[&Tensor]) -> Data {
    let order = if concat.channels_last { Order::ChannelsLast } else { Order::Logical };
    let data: Vec<_> = inputs.iter().map(|input| input.in_order(order)).collect();
    // How many elements of an input stand together before those of the next.
    let run = |input: &Tensor| {
        let inner = if concat.channels_last { 1 } else { input.shape()[concat.axis + 1..].iter().product() };
        input.shape()[concat.axis] * inner
    };
    let lens: Vec<usize> = inputs.iter().map(|input| run(input)).collect();
    fn go<T: Code>(concat: &Concat, parts: &[(&[T], usize)]) -> Vec<T> {
        let mut output = Vec::with_capacity(parts.iter().map(|(codes, _)| codes.len()).sum());
        let runs = parts.first().map_or(0, |(codes, len)| codes.len() / len);
        for index in 0..runs {
            for ((codes, len), recoding) in parts.iter().zip(&concat.recodings) {
                let (body, tail) = codes[index * len..][..*len].split_at(recoding.body_len.min(*len));
                output.extend(body.iter().map(|&q| T::from_i32(recoding.body.apply(q.into()))));
                output.extend(tail.iter().map(|&q| T::from_i32(recoding.tail.apply(q.into()))));
            }
        }
        output
    }
    let codes = |data: &'_ Data| match data {
        Data::U8(_) => false,
        Data::I8(_) => true,
        Data::F32(_) => unreachable!("the graph gives this operator codes, and `check` compared the types"),
    };
    if codes(&data[0]) {
        let parts = data.iter().map(|data| if let Data::I8(v) = data.as_ref() { v.as_slice() } else { &[] });
        Data::I8(go(concat, &parts.zip(lens).collect::<Vec<_>>()))
    } else {
        let parts = data.iter().map(|data| if let Data::U8(v) = data.as_ref() { v.as_slice() } else { &[] });
        Data::U8(go(concat, &parts.zip(lens).collect::<Vec<_>>()))
    }
}

/// Axes of every sample in another order.
pub(crate) fn permute(input: &Tensor, axes: &[usize]) -> Data {
    let strides = strides(input.shape());
    let walk: Vec<(usize, usize)> = axes.iter().map(|&axis| (input.shape()[axis], strides[axis])).collect();
    walked(input, &walk, 0)
}

/// `len` indices along an axis of every sample, `step` apart.
pub(crate) fn slice(input: &Tensor, axis: usize, start: usize, step: usize, len: usize) -> Data {
    let strides = strides(input.shape());
    let mut walk: Vec<(usize, usize)> = input.shape().iter().copied().zip(strides.iter().copied()).collect();
    walk[axis] = (len, strides[axis] * step);
    walked(input, &walk, start * strides[axis])
}

/// What each axis of every sample chooses.
pub(crate) fn gather(input: &Tensor, choice: &Gather) -> Data {
    let mut places = vec![Some(0)];
    for (sources, stride) in choice.axes.iter().zip(strides(input.shape())) {
        let step = |place: &Option<usize>| {
            let place = *place;
            sources.iter().map(move |source| Some(place? + (*source)? * stride))
        };
        places = places.iter().flat_map(step).collect();
    }
    fn go<T: Copy>(v: &[T], sample_len: usize, places: &[Option<usize>], value: T) -> Vec<T> {
        let of =
            |sample: &[T]| places.iter().map(|place| place.map_or(value, |place| sample[place])).collect::<Vec<T>>();
        v.chunks_exact(sample_len).flat_map(of).collect()
    }
    let len = input.sample_len();
    match input.data().as_ref() {
        Data::U8(v) => Data::U8(go(v, len, &places, choice.value as u8)),
        Data::I8(v) => Data::I8(go(v, len, &places, choice.value as i8)),
        Data::F32(v) => Data::F32(go(v, len, &places, choice.value as f32)),
    }
}

/// How far apart neighbours along each axis lie.
fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// The elements of every sample that a walk meets: extents and distances of its axes, the last the fastest.
fn walked(input: &Tensor, walk: &[(usize, usize)], start: usize) -> Data {
    let mut places = vec![start];
    for &(extent, stride) in walk {
        places = places.iter().flat_map(|place| (0..extent).map(move |i| place + i * stride)).collect();
    }
    fn go<T: Copy>(v: &[T], sample_len: usize, places: &[usize]) -> Vec<T> {
        v.chunks_exact(sample_len).flat_map(|sample| places.iter().map(|&place| sample[place])).collect()
    }
    let len = input.sample_len();
    match input.data().as_ref() {
        Data::U8(v) => Data::U8(go(v, len, &places)),
        Data::I8(v) => Data::I8(go(v, len, &places)),
        Data::F32(v) => Data::F32(go(v, len, &places)),
    }
}
