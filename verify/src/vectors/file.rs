//! The container: metadata, cases, their fields and tensors. Everything is taken out by name and checked as it
//! is taken; what nobody took is an error.

use super::error::{Part, Problem};
use qexact_reference::{CodeType, Quantization};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};

/// The version of the format.
const VERSION: &str = "1";
/// Fields that tell a reader what a case is about. No rule reads them and they excuse nothing.
const LABELS: [&str; 3] = ["tag", "saturated_accumulators", "max_abs_acc"];
/// What the names of further such fields begin with.
const LABEL_PREFIX: &str = "emulated_";

/// A well-formed container.
pub(super) struct File<'f> {
    metadata: HashMap<String, String>,
    tensors: Vec<(String, TensorView<'f>)>,
}

/// One call of the operator: what has not been taken out yet.
pub(super) struct Case<'f> {
    name: String,
    fields: Map<String, Value>,
    tensors: BTreeMap<String, TensorView<'f>>,
}

impl<'f> File<'f> {
    pub(super) fn parse(bytes: &'f [u8]) -> Result<File<'f>, Problem> {
        let tensors = qexact_model::open(bytes)?.tensors();
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(qexact_model::LoadError::from)?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let file = File { metadata, tensors };
        match file.metadata.get("format_version") {
            Some(version) if version != VERSION => {
                Err(Problem::wrong(Part::Key, "format_version", format_args!("`{version}`"), VERSION))
            }
            _ => Ok(file),
        }
    }

    /// The text under a key of the metadata.
    pub(super) fn key(&self, name: &str) -> Result<String, Problem> {
        self.metadata.get(name).cloned().ok_or_else(|| Problem::missing(Part::Key, name, "text"))
    }

    /// All cases, with their tensors divided among them.
    pub(super) fn cases(mut self) -> Result<Vec<Case<'f>>, Problem> {
        let expected = "the number of cases, at least 1";
        let text = self.metadata.remove("cases").ok_or_else(|| Problem::missing(Part::Key, "cases", expected))?;
        let count: usize = text.parse().ok().filter(|&count| count > 0).ok_or_else(|| {
            let found = format!("`{}`", shorten(text));
            Problem::wrong(Part::Key, "cases", found, expected)
        })?;
        let mut tensors = BTreeMap::<String, BTreeMap<String, TensorView<'f>>>::new();
        for (name, view) in self.tensors {
            let (case, short) = name.split_once('.').unwrap_or((&name, ""));
            tensors.entry(case.to_owned()).or_default().insert(short.to_owned(), view);
        }
        let mut cases = Vec::new();
        for index in 0..count {
            let name = format!("case{index:02}");
            let text =
                self.metadata.remove(&name).ok_or_else(|| Problem::missing(Part::Key, &name, "a JSON object"))?;
            let fields = serde_json::from_str(&text)
                .map_err(|e| Problem::wrong(Part::Key, &name, format_args!("malformed ({e})"), "a JSON object"))?;
            let tensors = tensors.remove(&name).unwrap_or_default();
            cases.push(Case { name, fields, tensors });
        }
        if let Some(name) = self.metadata.keys().filter(|name| name.starts_with("case")).min() {
            return Err(Problem::Unexpected { part: Part::Key, name: name.clone() });
        }
        let left = tensors.iter().find_map(|(case, tensors)| Some(format!("{case}.{}", tensors.keys().next()?)));
        left.map_or(Ok(cases), |name| Err(Problem::Unexpected { part: Part::Tensor, name }))
    }
}

impl Case<'_> {
    /// Its name: `case00`, `case01`, …
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// What the case stresses, in a word or two. Drops the other labels.
    pub(super) fn tag(&mut self) -> Option<String> {
        let tag = self.fields.get("tag").and_then(Value::as_str).map(str::to_owned);
        self.fields.retain(|name, _| !LABELS.contains(&name.as_str()) && !name.starts_with(LABEL_PREFIX));
        tag
    }

    /// The field `name`, which must be there.
    pub(super) fn field<T: DeserializeOwned>(&mut self, name: &str, expected: &str) -> Result<T, Problem> {
        let value = self.fields.remove(name).ok_or_else(|| Problem::missing(Part::Field, name, expected))?;
        T::deserialize(&value).map_err(|_| Problem::wrong(Part::Field, name, shorten(value.to_string()), expected))
    }

    /// The field `name`; `None` if it is null or not there.
    pub(super) fn nullable_field<T: DeserializeOwned>(
        &mut self,
        name: &str,
        expected: &str,
    ) -> Result<Option<T>, Problem> {
        if self.fields.contains_key(name) { self.field(name, expected) } else { Ok(None) }
    }

    /// One integer for each of `axes` axes.
    pub(super) fn extents(&mut self, name: &str, axes: usize) -> Result<Vec<usize>, Problem> {
        let expected = format!("{axes} integers, none of them negative");
        let extents: Vec<usize> = self.field(name, &expected)?;
        if extents.len() == axes {
            Ok(extents)
        } else {
            Err(Problem::wrong(Part::Field, name, shorten(format!("{extents:?}")), expected))
        }
    }

    /// [`extents`](Case::extents), 1 where the field is not there.
    pub(super) fn extents_or_one(&mut self, name: &str, axes: usize) -> Result<Vec<usize>, Problem> {
        if self.fields.contains_key(name) { self.extents(name, axes) } else { Ok(vec![1; axes]) }
    }

    /// A scale and a zero point, whose fields begin with `prefix`.
    pub(super) fn quantization(&mut self, prefix: &'static str, codes: CodeType) -> Result<Quantization, Problem> {
        let scale = self.field(&format!("{prefix}scale"), "a number")?;
        let zero_point = self.field(&format!("{prefix}zero_point"), "an integer")?;
        let what = match prefix {
            "x_" => "x_scale and x_zero_point",
            "y_" => "y_scale and y_zero_point",
            "a_" => "a_scale and a_zero_point",
            "b_" => "b_scale and b_zero_point",
            _ => "scale and zero_point",
        };
        Quantization::new(scale, zero_point, codes).map_err(Problem::refused(what))
    }

    /// Whether there is a tensor of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Whether there is a tensor of this name with such elements.
    pub(super) fn holds<T: Scalar>(&self, name: &str) -> bool {
        self.tensors.get(name).is_some_and(|view| view.dtype() == T::DTYPE)
    }

    /// The shape of the tensor `name`: as many extents as `axes` lists, none of them zero.
    pub(super) fn dims(&self, name: &str, axes: &[&str]) -> Result<Vec<usize>, Problem> {
        let expected = || format!("[{}], none of them zero", axes.join(", "));
        let view = self.view(name, expected)?;
        if view.shape().len() == axes.len() && !view.shape().contains(&0) {
            Ok(view.shape().to_vec())
        } else {
            Err(self.wrong_tensor(name, describe(view.dtype(), view.shape()), expected()))
        }
    }

    /// The shape of the tensor `name`: any number of extents, none of them zero.
    pub(super) fn any_dims(&self, name: &str) -> Result<Vec<usize>, Problem> {
        let view = self.view(name, || "a tensor".into())?;
        if view.shape().contains(&0) {
            Err(self.wrong_tensor(name, describe(view.dtype(), view.shape()), "at least one element"))
        } else {
            Ok(view.shape().to_vec())
        }
    }

    /// The type of the codes in the tensor `name`.
    pub(super) fn code_type(&self, name: &str) -> Result<CodeType, Problem> {
        match self.view(name, || "U8 or I8".into())?.dtype() {
            Dtype::U8 => Ok(CodeType::U8),
            Dtype::I8 => Ok(CodeType::I8),
            other => Err(self.wrong_tensor(name, format!("{other:?}"), "U8 or I8")),
        }
    }

    /// The elements of the tensor `name`, which must have this type and shape.
    pub(super) fn tensor<T: Scalar>(&mut self, name: &str, shape: &[usize]) -> Result<Vec<T>, Problem> {
        let expected = || describe(T::DTYPE, shape);
        let view = self.view(name, expected)?;
        if view.dtype() != T::DTYPE || view.shape() != shape {
            return Err(self.wrong_tensor(name, describe(view.dtype(), view.shape()), expected()));
        }
        let elements = T::read(view.data());
        self.tensors.remove(name);
        Ok(elements)
    }

    /// The codes in the tensor `name`, which must have this type and shape.
    pub(super) fn codes(&mut self, name: &str, shape: &[usize], codes: CodeType) -> Result<Vec<i32>, Problem> {
        Ok(if codes.is_signed() {
            self.tensor::<i8>(name, shape)?.into_iter().map(Into::into).collect()
        } else {
            self.tensor::<u8>(name, shape)?.into_iter().map(Into::into).collect()
        })
    }

    /// Checks that everything was taken.
    pub(super) fn finish(&self) -> Result<(), Problem> {
        let field = self.fields.keys().next().map(|name| (Part::Field, name.clone()));
        let left = field.or_else(|| self.tensors.keys().next().map(|name| (Part::Tensor, self.full_name(name))));
        left.map_or(Ok(()), |(part, name)| Err(Problem::Unexpected { part, name }))
    }

    fn view(&self, name: &str, expected: impl Fn() -> String) -> Result<&TensorView<'_>, Problem> {
        let missing = || Problem::missing(Part::Tensor, &self.full_name(name), expected());
        self.tensors.get(name).ok_or_else(missing)
    }

    fn full_name(&self, name: &str) -> String {
        format!("{}.{name}", self.name)
    }

    fn wrong_tensor(&self, name: &str, found: String, expected: impl std::fmt::Display) -> Problem {
        Problem::wrong(Part::Tensor, &self.full_name(name), found, expected)
    }
}

fn describe(dtype: Dtype, shape: &[usize]) -> String {
    format!("{dtype:?} {shape:?}")
}

/// The beginning of a text that may be long.
fn shorten(text: String) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// Element types of tensors, little-endian.
pub(super) trait Scalar: Sized {
    /// Its name in the container.
    const DTYPE: Dtype;
    /// All whole elements.
    fn read(bytes: &[u8]) -> Vec<Self>;
}

macro_rules! scalar {
    ($($type:ty => $dtype:ident),*) => {$(
        impl Scalar for $type {
            const DTYPE: Dtype = Dtype::$dtype;
            fn read(bytes: &[u8]) -> Vec<$type> {
                bytes.as_chunks().0.iter().map(|&bytes| <$type>::from_le_bytes(bytes)).collect()
            }
        }
    )*};
}

scalar!(u8 => U8, i8 => I8, i16 => I16, i32 => I32, i64 => I64, f32 => F32, f64 => F64);
