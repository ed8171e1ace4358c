//! Values at run time.

use crate::digest::Digest;
use crate::document::Dtype;
use qexact_reference::layout::{channels_first, channels_last};
use std::borrow::Cow;

/// Elements of a tensor.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Data {
    U8(Vec<u8>),
    I8(Vec<i8>),
    F32(Vec<f32>),
}

impl Data {
    /// Element type.
    pub fn dtype(&self) -> Dtype {
        match self {
            Data::U8(_) => Dtype::U8,
            Data::I8(_) => Dtype::I8,
            Data::F32(_) => Dtype::F32,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Data::U8(v) => v.len(),
            Data::I8(v) => v.len(),
            Data::F32(v) => v.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements as they lie in memory, little-endian.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Data::U8(v) => v,
            Data::I8(v) => bytemuck::cast_slice(v),
            Data::F32(v) => bytemuck::cast_slice(v),
        }
    }

    /// Elements of `dtype` from little-endian bytes, whose length is a multiple of the element's.
    pub(crate) fn from_bytes(dtype: Dtype, bytes: &[u8]) -> Data {
        match dtype {
            Dtype::U8 => Data::U8(bytes.to_vec()),
            Dtype::I8 => Data::I8(bytemuck::pod_collect_to_vec(bytes)),
            Dtype::F32 => Data::F32(bytemuck::pod_collect_to_vec(bytes)),
        }
    }

    fn slice(&self, range: std::ops::Range<usize>) -> Data {
        match self {
            Data::U8(v) => Data::U8(v[range].to_vec()),
            Data::I8(v) => Data::I8(v[range].to_vec()),
            Data::F32(v) => Data::F32(v[range].to_vec()),
        }
    }

    fn reorder(&self, channels: usize, pixels: usize, to_channels_last: bool) -> Data {
        fn go<T: Copy>(v: &[T], channels: usize, pixels: usize, to_channels_last: bool) -> Vec<T> {
            if to_channels_last { channels_last(v, channels, pixels) } else { channels_first(v, channels, pixels) }
        }
        match self {
            Data::U8(v) => Data::U8(go(v, channels, pixels, to_channels_last)),
            Data::I8(v) => Data::I8(go(v, channels, pixels, to_channels_last)),
            Data::F32(v) => Data::F32(go(v, channels, pixels, to_channels_last)),
        }
    }
}

/// The order of a tensor's elements in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Batch, then the axes of a sample as the document lists them.
    Logical,
    /// Batch, spatial axes, channels; for samples whose axis 0 is channels.
    ChannelsLast,
}

/// A batch of samples of one value.
///
/// Convolutions and pools leave their results with channels last, and what follows converts only if it must;
/// [`data`](Tensor::data) is always in logical order.
#[derive(Clone, Debug)]
pub struct Tensor {
    batch: usize,
    shape: Vec<usize>,
    order: Order,
    data: Data,
}

impl Tensor {
    /// A tensor in logical order: `[batch, shape…]`. `None` if the number of elements is another, or overflows.
    pub fn new(batch: usize, shape: Vec<usize>, data: Data) -> Option<Tensor> {
        let len = shape.iter().try_fold(batch, |len, &extent| len.checked_mul(extent))?;
        (len == data.len()).then_some(Tensor { batch, shape, order: Order::Logical, data })
    }

    pub(crate) fn from_parts(batch: usize, shape: Vec<usize>, order: Order, data: Data) -> Tensor {
        debug_assert_eq!(data.len(), batch * shape.iter().product::<usize>());
        Tensor { batch, shape, order, data }
    }

    /// Number of samples.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Shape of a sample.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Element type.
    pub fn dtype(&self) -> Dtype {
        self.data.dtype()
    }

    /// Elements of a sample.
    pub fn sample_len(&self) -> usize {
        self.shape.iter().product()
    }

    /// The elements in logical order.
    pub fn data(&self) -> Cow<'_, Data> {
        self.in_order(Order::Logical)
    }

    /// The elements with the batch first and axis 0 of a sample, its channels, last.
    pub fn channels_last(&self) -> Cow<'_, Data> {
        self.in_order(Order::ChannelsLast)
    }

    pub(crate) fn order(&self) -> Order {
        self.order
    }

    /// The elements as they lie, whatever the order.
    pub(crate) fn data_as_is(&self) -> &Data {
        &self.data
    }

    pub(crate) fn in_order(&self, order: Order) -> Cow<'_, Data> {
        // Without spatial axes, or with one pixel, both orders are one.
        let (channels, pixels) = match self.shape.split_first() {
            Some((&channels, spatial)) => (channels, spatial.iter().product()),
            None => (1, 1),
        };
        if order == self.order || channels == 1 || pixels == 1 {
            Cow::Borrowed(&self.data)
        } else {
            Cow::Owned(self.data.reorder(channels, pixels, order == Order::ChannelsLast))
        }
    }

    /// Samples `range` of this batch.
    ///
    /// # Panics
    /// If the range reaches beyond the batch.
    pub fn samples(&self, range: std::ops::Range<usize>) -> Tensor {
        let len = self.sample_len();
        let data = self.data.slice(range.start * len..range.end * len);
        Tensor { batch: range.len(), data, ..self.clone_shape() }
    }

    /// Batches of one value, one after the other. `None` if there are none, or if types or shapes differ.
    pub fn join(batches: &[Tensor]) -> Option<Tensor> {
        let (first, rest) = batches.split_first()?;
        let mut joined = first.clone();
        for tensor in rest {
            let data = tensor.in_order(joined.order);
            match (&mut joined.data, data.as_ref()) {
                _ if tensor.shape != joined.shape => return None,
                (Data::U8(v), Data::U8(more)) => v.extend(more),
                (Data::I8(v), Data::I8(more)) => v.extend(more),
                (Data::F32(v), Data::F32(more)) => v.extend(more),
                _ => return None,
            }
            joined.batch += tensor.batch;
        }
        Some(joined)
    }

    fn clone_shape(&self) -> Tensor {
        Tensor { batch: 0, shape: self.shape.clone(), order: self.order, data: Data::U8(Vec::new()) }
    }

    /// One SHA-256 a sample, of its bytes in logical order.
    pub fn digests(&self) -> Vec<Digest> {
        let data = self.data();
        let bytes = data.bytes();
        if self.batch == 0 {
            return Vec::new();
        }
        bytes.chunks_exact((bytes.len() / self.batch).max(1)).map(Digest::of).collect()
    }

    /// For each sample, the index of the largest element of its last axis, the lowest where several are equal.
    /// `None` for samples with more than one such row.
    pub fn arg_max(&self) -> Option<Vec<usize>> {
        let classes = *self.shape.last()?;
        (self.sample_len() == classes).then(|| match self.data().as_ref() {
            Data::U8(v) => rows_arg_max(v, classes),
            Data::I8(v) => rows_arg_max(v, classes),
            Data::F32(v) => rows_arg_max(v, classes),
        })
    }
}

fn rows_arg_max<T: PartialOrd>(v: &[T], classes: usize) -> Vec<usize> {
    v.chunks_exact(classes)
        .map(|row| row.iter().enumerate().fold(0, |best, (i, x)| if *x > row[best] { i } else { best }))
        .collect()
}
