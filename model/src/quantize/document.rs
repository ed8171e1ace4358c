//! The document of a float network as it is written: see `FLOAT.md`.

use crate::error::{LoadError, invalid};
use serde::Deserialize;
use std::collections::BTreeMap;

/// The metadata key.
pub(super) const KEY: &str = "qexact_float";

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FloatDocument {
    pub(super) format: u64,
    pub(super) input: Input,
    pub(super) nodes: Vec<FloatNode>,
    pub(super) outputs: Vec<String>,
    #[serde(default)]
    pub(super) ranges: BTreeMap<String, [f32; 2]>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Input {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FloatNode {
    pub(super) name: String,
    pub(super) op: String,
    pub(super) input: String,
    #[serde(default)]
    pub(super) attributes: serde_json::Map<String, serde_json::Value>,
}

pub(super) fn parse(text: Option<&String>) -> Result<FloatDocument, LoadError> {
    let place = "the document of the float network";
    let text = text.ok_or_else(|| invalid(place, "metadata key `qexact_float`", "missing", "a JSON object"))?;
    let document: FloatDocument =
        serde_json::from_str(text).map_err(|e| invalid(place, "content", e, "what FLOAT.md describes"))?;
    if document.format != 1 {
        return Err(LoadError::Version { got: document.format, expected: 1 });
    }
    Ok(document)
}
