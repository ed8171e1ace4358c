//! Exports with one thing changed.
#![allow(dead_code)] // Every test that includes this uses a part of it.

use qexact_model::Export;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};

pub(crate) type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;
pub(crate) type EditDocument<'e> = &'e dyn Fn(&mut Value);
pub(crate) type EditTensors<'e> = &'e dyn Fn(&mut Tensors);

/// An export taken apart, to be put together with one thing changed.
pub(crate) struct Parts {
    pub(crate) document: Value,
    pub(crate) tensors: Tensors,
}

impl Parts {
    pub(crate) fn of(bytes: &[u8]) -> Parts {
        let (_, metadata) = SafeTensors::read_metadata(bytes).unwrap();
        let document = serde_json::from_str(&metadata.metadata().as_ref().unwrap()["qexact"]).unwrap();
        let file = SafeTensors::deserialize(bytes).unwrap();
        let tensor = |(name, view): (String, TensorView<'_>)| {
            (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec()))
        };
        Parts { document, tensors: file.tensors().into_iter().map(tensor).collect() }
    }

    /// The file again, digests of tensors brought up to date.
    pub(crate) fn bytes(mut self) -> Vec<u8> {
        let hex = |bytes: &[u8]| Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect::<String>();
        if self.document["digests"].is_object() {
            self.document["digests"] = self.tensors.iter().map(|(name, t)| (name.clone(), json!(hex(&t.2)))).collect();
        }
        self.bytes_as_is()
    }

    pub(crate) fn bytes_as_is(self) -> Vec<u8> {
        let text = self.document.to_string();
        let digest: String = Sha256::digest(text.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
        let metadata = HashMap::from([("qexact".to_string(), text), ("qexact_digest".to_string(), digest)]);
        let views = self.tensors.iter().map(|(name, t)| (name, TensorView::new(t.0, t.1.clone(), &t.2).unwrap()));
        safetensors::serialize(views, Some(metadata)).unwrap()
    }
}

/// The error that an edited export gets.
pub(crate) fn refused(original: &[u8], edit: impl FnOnce(&mut Value, &mut Tensors)) -> String {
    let mut parts = Parts::of(original);
    edit(&mut parts.document, &mut parts.tensors);
    match Export::from_bytes(&parts.bytes()) {
        Ok(_) => "accepted".into(),
        Err(error) => error.to_string(),
    }
}

pub(crate) fn named<'v>(list: &'v mut Value, name: &str) -> &'v mut Value {
    list.as_array_mut().unwrap().iter_mut().find(|v| v["name"] == name).unwrap_or_else(|| panic!("no {name}"))
}
