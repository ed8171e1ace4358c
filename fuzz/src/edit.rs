//! Safetensors files with a few things changed, so that most of what reads them is reached.
//!
//! A file is taken apart into one JSON tree (the metadata, whose values are trees themselves, and the types and shapes
//! of tensors) and the bytes of tensors. When it is put together again, sizes, offsets and digests are made to fit.

use arbitrary::{Result, Unstructured};
use qexact_model::Digest;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A safetensors file taken apart.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// `__metadata__`, and `dtype` and `shape` of every tensor.
    pub tree: Map<String, Value>,
    /// The bytes of every tensor.
    pub data: BTreeMap<String, Vec<u8>>,
}

const METADATA: &str = "__metadata__";

/// Edits of one file.
const MOST_EDITS: usize = 8;

/// Values in a tree; one that has more, because edits put parts of it into others, is edited no further.
const MOST_PLACES: usize = 1000;

/// One of some files, with edits that an input of the fuzzer stands for.
///
/// # Errors
/// None: an input that is too short stands for fewer edits.
pub fn file(u: &mut Unstructured<'_>, files: &[&[u8]]) -> Result<Vec<u8>> {
    let mut parts = Parts::of(u.choose(files)?);
    for _ in 0..MOST_EDITS {
        if !u.is_empty() {
            parts.edit(u)?;
        }
    }
    Ok(parts.bytes())
}

impl Parts {
    /// Takes a file apart.
    ///
    /// # Panics
    /// If it is not well-formed.
    pub fn of(file: &[u8]) -> Parts {
        let (length, rest) = file.split_first_chunk().expect("the length of the header");
        let (header, bytes) = rest.split_at(u64::from_le_bytes(*length) as usize);
        let mut parts = Parts { tree: serde_json::from_slice(header).expect("a header"), data: BTreeMap::new() };
        for (name, entry) in &mut parts.tree {
            let entry = entry.as_object_mut().expect("tensors and metadata are objects");
            if name == METADATA {
                entry.values_mut().for_each(parse);
                if let Some(document) = entry.get_mut("qexact") {
                    // Made anew in the end.
                    document["digests"] = json!({});
                }
            } else if let Some(offsets) = entry.remove("data_offsets") {
                let [start, end] = [0, 1].map(|i| offsets[i].as_u64().expect("an offset") as usize);
                parts.data.insert(name.clone(), bytes[start..end].to_vec());
            }
        }
        parts
    }

    /// Adds a tensor.
    pub fn insert(&mut self, name: &str, dtype: &str, shape: &[usize], bytes: &[u8]) {
        self.tree.insert(name.into(), json!({"dtype": dtype, "shape": shape}));
        self.data.insert(name.into(), bytes.to_vec());
    }

    /// Puts the file together. Tensors whose shape asks for more or fewer bytes than there are repeat or lose some.
    pub fn bytes(mut self) -> Vec<u8> {
        let (mut body, mut digests) = (Vec::new(), Map::new());
        for (name, entry) in self.tree.iter_mut().filter(|(name, _)| *name != METADATA) {
            let mut data = self.data.remove(name).unwrap_or_default();
            if let Some(len) = length(entry).filter(|&len| len <= 1 << 16) {
                data.resize(data.len().max(1), 0);
                data = data.iter().copied().cycle().take(len).collect();
            }
            if let Some(entry) = entry.as_object_mut() {
                entry.insert("data_offsets".into(), json!([body.len(), body.len() + data.len()]));
            }
            digests.insert(name.clone(), json!(Digest::of(&data).to_string()));
            body.extend(data);
        }
        if let Some(metadata) = self.tree.get_mut(METADATA).and_then(Value::as_object_mut) {
            if let Some(document) = metadata.get_mut("qexact").filter(|document| document.is_object()) {
                document["digests"] = digests.into();
                let digest = Digest::of(document.to_string().as_bytes()).to_string();
                metadata.insert("qexact_digest".into(), json!(digest));
            }
            for value in metadata.values_mut().filter(|value| !value.is_string()) {
                *value = json!(value.to_string());
            }
        }
        let header = Value::from(self.tree).to_string();
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &body].concat()
    }

    fn edit(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        if u.ratio(1, 4)? { self.edit_data(u) } else { self.edit_tree(u) }
    }

    /// Overwrites some bytes of a tensor.
    fn edit_data(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let which = u.choose_index(self.data.len().max(1))?;
        let Some(data) = self.data.values_mut().nth(which).filter(|data| !data.is_empty()) else { return Ok(()) };
        let start = u.choose_index(data.len())?;
        let len = u.int_in_range(1..=(data.len() - start).min(8))?;
        u.fill_buffer(&mut data[start..start + len])
    }

    /// Replaces or removes one value of the tree, or replaces all that equal it: the only way to another geometry that
    /// fits together.
    fn edit_tree(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        /// Where sizes and types end.
        const NUMBERS: [u64; 14] = [0, 1, 2, 3, 8, 127, 128, 255, 256, 1 << 28, 1 << 31, 1 << 32, 1 << 62, u64::MAX];
        let mut tree = Value::from(self.tree.clone());
        let mut places = Vec::new();
        list(&tree, String::new(), &mut places);
        if places.len() > MOST_PLACES {
            return Ok(());
        }
        let place = u.choose(&places)?.as_str();
        let old = tree.pointer(place).cloned().unwrap_or_default();
        let new = match u.int_in_range(0..=6)? {
            0 => Some(filled(&old, &json!(u.choose(&NUMBERS)?))),
            1 => Some(filled(&old, &json!(u.arbitrary::<i8>()?))),
            2 => Some(filled(&old, &json!(u.arbitrary::<f64>()?))),
            3 => tree.pointer(u.choose(&places)?).cloned(),
            4 => Some(changed(&old)),
            5 => Some(Value::Null),
            _ => None,
        };
        match new {
            Some(new) if u.arbitrary()? => replace(&mut tree, &old, &new),
            Some(new) => *tree.pointer_mut(place).expect("a place of the tree") = new,
            None => remove(&mut tree, place),
        }
        if let Value::Object(tree) = tree {
            self.tree = tree;
        }
        Ok(())
    }
}

/// JSON in a string becomes a tree.
fn parse(value: &mut Value) {
    if let Some(object @ Value::Object(_)) = value.as_str().and_then(|text| serde_json::from_str(text).ok()) {
        *value = object;
    }
}

/// Bytes of a tensor, by its type and shape.
fn length(entry: &Value) -> Option<usize> {
    let size = match entry.get("dtype")?.as_str()? {
        "U8" | "I8" => 1,
        "F32" | "I32" => 4,
        "F64" | "I64" => 8,
        _ => return None,
    };
    let mut extents = entry.get("shape")?.as_array()?.iter();
    extents.try_fold(size, |len: usize, extent| len.checked_mul(extent.as_u64()? as usize))
}

/// JSON pointers to everything below a value.
fn list(value: &Value, place: String, places: &mut Vec<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| list(value, format!("{place}/{key}"), places)),
        Value::Array(list_) => {
            list_.iter().enumerate().for_each(|(i, value)| list(value, format!("{place}/{i}"), places))
        }
        _ => {}
    }
    if !place.is_empty() {
        places.push(place);
    }
}

/// A number in place of a value; in place of each element where it is a list.
fn filled(value: &Value, number: &Value) -> Value {
    match value {
        Value::Array(list) => list.iter().map(|element| filled(element, number)).collect(),
        _ => number.clone(),
    }
}

/// Something like a value that is not it.
fn changed(value: &Value) -> Value {
    match value {
        Value::Bool(b) => json!(!b),
        Value::Number(n) => n.as_u64().map_or_else(|| json!(-n.as_f64().unwrap_or(0.0)), |n| json!(n.wrapping_add(1))),
        Value::String(text) => json!(format!("{text}{text}")),
        Value::Array(list) => list.iter().chain(list.last()).cloned().collect(),
        Value::Object(_) | Value::Null => json!({}),
    }
}

/// Replaces every value that equals `old`.
fn replace(value: &mut Value, old: &Value, new: &Value) {
    if value == old {
        *value = new.clone();
        return;
    }
    match value {
        Value::Object(map) => map.values_mut().for_each(|value| replace(value, old, new)),
        Value::Array(list) => list.iter_mut().for_each(|value| replace(value, old, new)),
        _ => {}
    }
}

/// Removes the value at a place.
fn remove(tree: &mut Value, place: &str) {
    let Some((parent, key)) = place.rsplit_once('/') else { return };
    match tree.pointer_mut(parent) {
        Some(Value::Object(map)) => drop(map.remove(key)),
        Some(Value::Array(list)) => drop(key.parse().map(|at: usize| list.remove(at))),
        _ => {}
    }
}
