//! The safetensors container: tensors by name, each looked up once, with the type and shape expected.

use crate::digest::Digest;
use crate::document::Dtype;
use crate::error::{LoadError, invalid};
use crate::tensor::{Data, Tensor};
use safetensors::tensor::{SafeTensors, TensorView};
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

/// Element types that tensors of an export have.
pub(crate) trait Element: bytemuck::Pod {
    const DTYPE: safetensors::Dtype;
}
impl Element for u8 {
    const DTYPE: safetensors::Dtype = safetensors::Dtype::U8;
}
impl Element for i8 {
    const DTYPE: safetensors::Dtype = safetensors::Dtype::I8;
}
impl Element for i32 {
    const DTYPE: safetensors::Dtype = safetensors::Dtype::I32;
}
impl Element for i64 {
    const DTYPE: safetensors::Dtype = safetensors::Dtype::I64;
}
impl Element for f32 {
    const DTYPE: safetensors::Dtype = safetensors::Dtype::F32;
}
impl Element for f64 {
    const DTYPE: safetensors::Dtype = safetensors::Dtype::F64;
}

/// Opens a safetensors file.
///
/// The container's own reader adds up sizes without looking for overflow, so that eight tensors of 2⁶¹ bytes pass
/// for none; no tensor may end beyond the file, which rules that out beforehand.
///
/// # Errors
/// A malformed file.
pub fn open(bytes: &[u8]) -> Result<SafeTensors<'_>, LoadError> {
    let header = bytes.get(..8).and_then(|len| <[u8; 8]>::try_from(len).ok()).map(u64::from_le_bytes);
    let header = header.and_then(|len| bytes.get(8..)?.get(..usize::try_from(len).ok()?));
    // What is not even this is the container's to refuse.
    let entries: HashMap<String, serde_json::Value> =
        header.and_then(|header| serde_json::from_slice(header).ok()).unwrap_or_default();
    for (name, entry) in &entries {
        let end = entry.get("data_offsets").and_then(|offsets| offsets.get(1)).and_then(serde_json::Value::as_u64);
        if end.is_some_and(|end| end > bytes.len() as u64) {
            let (got, expected) = (end.unwrap_or_default(), format!("at most {}, the length of the file", bytes.len()));
            return Err(invalid(format!("tensor `{name}`"), "end in the file", got, expected));
        }
    }
    Ok(SafeTensors::deserialize(bytes)?)
}

/// The tensors of a file, and which of them nobody has asked for.
pub(crate) struct Tensors<'f> {
    file: SafeTensors<'f>,
    left: RefCell<BTreeSet<String>>,
}

impl<'f> Tensors<'f> {
    pub(crate) fn new(file: SafeTensors<'f>) -> Tensors<'f> {
        let left = RefCell::new(file.names().iter().map(ToString::to_string).collect());
        Tensors { file, left }
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.file.names().iter().map(ToString::to_string).collect();
        names.sort_unstable();
        names
    }

    pub(crate) fn digest(&self, name: &str) -> Option<Digest> {
        self.file.tensor(name).ok().map(|view| Digest::of(view.data()))
    }

    /// A tensor that may be absent.
    pub(crate) fn view(&self, name: &str) -> Option<TensorView<'_>> {
        let view = self.file.tensor(name).ok()?;
        self.left.borrow_mut().remove(name);
        Some(view)
    }

    /// The shape of a tensor of type `T`, and its elements.
    pub(crate) fn any_shape<T: Element>(&self, place: &str, name: &str) -> Result<(Vec<usize>, Vec<T>), LoadError> {
        let view = self.view(name).ok_or_else(|| LoadError::Unresolved {
            place: place.to_string(),
            what: "tensor",
            name: name.to_string(),
        })?;
        if view.dtype() != T::DTYPE {
            let (got, expected) = (format!("{:?}", view.dtype()), format!("{:?}", T::DTYPE));
            return Err(invalid(format!("tensor `{name}`"), "dtype", got, expected));
        }
        Ok((view.shape().to_vec(), bytemuck::pod_collect_to_vec(view.data())))
    }

    /// The elements of a tensor of this type and shape.
    pub(crate) fn get<T: Element>(&self, place: &str, name: &str, shape: &[usize]) -> Result<Vec<T>, LoadError> {
        let (got, elements) = self.any_shape(place, name)?;
        if got == shape {
            Ok(elements)
        } else {
            Err(invalid(format!("tensor `{name}`"), "shape", format!("{got:?}"), format!("{shape:?}")))
        }
    }

    /// The elements of a tensor in a value's type, of this shape.
    pub(crate) fn get_data(&self, place: &str, name: &str, dtype: Dtype, shape: &[usize]) -> Result<Data, LoadError> {
        Ok(match dtype {
            Dtype::U8 => Data::U8(self.get(place, name, shape)?),
            Dtype::I8 => Data::I8(self.get(place, name, shape)?),
            Dtype::F32 => Data::F32(self.get(place, name, shape)?),
        })
    }

    /// Tensors that nobody asked for.
    pub(crate) fn left_over(&self) -> Option<String> {
        self.left.borrow().first().cloned()
    }
}

/// Reads plain tensors with the batch in front from a safetensors file, for instance inputs of a network.
///
/// # Errors
/// A malformed file, a tensor of another type than u8, i8 or f32, or without a batch axis.
pub fn read_tensors(file: &[u8]) -> Result<Vec<(String, Tensor)>, LoadError> {
    let file = open(file)?;
    let mut tensors = Vec::new();
    for (name, view) in file.tensors() {
        let place = || format!("tensor `{name}`");
        let dtype = match view.dtype() {
            safetensors::Dtype::U8 => Dtype::U8,
            safetensors::Dtype::I8 => Dtype::I8,
            safetensors::Dtype::F32 => Dtype::F32,
            other => return Err(invalid(place(), "dtype", format!("{other:?}"), "U8, I8 or F32")),
        };
        let data = Data::from_bytes(dtype, view.data());
        let tensor = view.shape().split_first().and_then(|(&batch, shape)| Tensor::new(batch, shape.to_vec(), data));
        let tensor = tensor.ok_or_else(|| {
            invalid(place(), "shape", format!("{:?}", view.shape()), "the batch and the sample's axes")
        })?;
        tensors.push((name, tensor));
    }
    tensors.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(tensors)
}

/// A safetensors file of tensors with the batch in front.
///
/// # Errors
/// What the container refuses.
pub fn write_tensors(tensors: &[(String, Tensor)]) -> Result<Vec<u8>, LoadError> {
    let data: Vec<_> = tensors.iter().map(|(_, tensor)| tensor.data()).collect();
    let mut views = Vec::new();
    for ((name, tensor), data) in tensors.iter().zip(&data) {
        let dtype = match tensor.dtype() {
            Dtype::U8 => safetensors::Dtype::U8,
            Dtype::I8 => safetensors::Dtype::I8,
            Dtype::F32 => safetensors::Dtype::F32,
        };
        let shape = std::iter::once(tensor.batch()).chain(tensor.shape().iter().copied()).collect();
        views.push((name, TensorView::new(dtype, shape, data.bytes())?));
    }
    Ok(safetensors::serialize(views, None)?)
}
