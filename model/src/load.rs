//! From the bytes of an export to a checked network and its recording.

use crate::digest::Digest;
use crate::document::{self, Document, Dtype, FORMAT};
use crate::error::{At, LoadError, invalid};
use crate::network::{MOST_ELEMENTS, MOST_WORK, Network, Node, Value};
use crate::operators;
use crate::recording::Recording;
use crate::tensors::{Tensors, open};
use qexact_reference::{CodeType, Quantization};
use safetensors::tensor::SafeTensors;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

/// A loaded export.
#[derive(Clone, Debug)]
pub struct Export {
    /// The graph, checked.
    pub network: Network,
    /// What the runtime computed, if the file says.
    pub recording: Option<Recording>,
    /// Who made it, and on what. Informative.
    pub producer: document::Producer,
    /// Name of the preset that the exporter took its rules from. Informative.
    pub numerics: String,
    /// What the author wanted to travel with the network.
    pub annotations: Option<serde_json::Value>,
    /// Parts of the file whose SHA-256 is not the one written down: names of tensors, or `document`.
    pub altered: Vec<String>,
}

impl Export {
    /// Reads an export.
    ///
    /// # Errors
    /// [`LoadError`]: whatever is wrong with the file, by name. A wrong digest is no error: see
    /// [`altered`](Export::altered).
    pub fn read(path: &Path) -> Result<Export, LoadError> {
        let bytes = std::fs::read(path).map_err(|source| LoadError::Io { path: path.to_path_buf(), source })?;
        Export::from_bytes(&bytes)
    }

    /// Reads an export from memory.
    ///
    /// # Errors
    /// As [`read`](Export::read).
    pub fn from_bytes(bytes: &[u8]) -> Result<Export, LoadError> {
        let tensors = Tensors::new(open(bytes)?);
        let (_, metadata) = SafeTensors::read_metadata(bytes)?;
        let strings = metadata.metadata().clone().unwrap_or_default();
        let text = strings.get("qexact").ok_or(LoadError::NoDocument)?;
        let document = parse(text)?;
        let mut altered = altered_tensors(&document, &tensors)?;
        if strings.get("qexact_digest").and_then(|hex| Digest::from_hex(hex)) != Some(Digest::of(text.as_bytes())) {
            altered.push("document".into());
        }
        let network = network(&document, &tensors)?;
        let samples = document.recording.as_ref().map_or(1, |recording| recording.samples);
        check_work(&network, samples)?;
        let recording = match &document.recording {
            Some(recording) => Some(Recording::load(recording, &network, &tensors)?),
            None => None,
        };
        if let Some(tensor) = tensors.left_over() {
            return Err(LoadError::LeftOver { tensor });
        }
        let Document { producer, numerics, annotations, .. } = document;
        Ok(Export { network, recording, producer, numerics, annotations, altered })
    }
}

/// A short file must not ask for any amount of time.
fn check_work(network: &Network, samples: usize) -> Result<(), LoadError> {
    let mut work = 0usize;
    for node in &network.nodes {
        work = work.saturating_add(node.work(&network.values).saturating_mul(samples.max(1)));
        if work > MOST_WORK {
            let place = format!("node `{}`", node.name);
            let expected = format!("at most {MOST_WORK}");
            return Err(invalid(place, "operations of all samples up to here", work, expected));
        }
    }
    Ok(())
}

fn parse(text: &str) -> Result<Document, LoadError> {
    /// The version decides what else may be there, so it is looked at alone first.
    #[derive(Deserialize)]
    struct Version {
        format: u64,
    }
    let Version { format } = serde_json::from_str(text).map_err(LoadError::Document)?;
    if format != FORMAT {
        return Err(LoadError::Version { got: format, expected: FORMAT });
    }
    serde_json::from_str(text).map_err(LoadError::Document)
}

fn altered_tensors(document: &Document, tensors: &Tensors<'_>) -> Result<Vec<String>, LoadError> {
    let mut altered = Vec::new();
    for name in tensors.names() {
        let place = || format!("tensor `{name}`");
        let hex = document
            .digests
            .get(&name)
            .ok_or_else(|| invalid(place(), "entry in `digests`", "missing", "the SHA-256 of its bytes"))?;
        let digest = Digest::from_hex(hex)
            .ok_or_else(|| invalid(place(), "entry in `digests`", format!("`{hex}`"), "64 lower-case hex digits"))?;
        if tensors.digest(&name) != Some(digest) {
            altered.push(name);
        }
    }
    if let Some(name) = document.digests.keys().find(|name| tensors.digest(name).is_none()) {
        return Err(LoadError::Unresolved { place: "`digests`".into(), what: "tensor", name: name.clone() });
    }
    Ok(altered)
}

/// Which values exist, and what produces each.
struct Names<'d> {
    values: HashMap<&'d str, usize>,
    producers: BTreeMap<usize, &'d str>,
}

impl Names<'_> {
    fn resolve(&self, place: &str, name: &str) -> Result<usize, LoadError> {
        self.values.get(name).copied().ok_or_else(|| LoadError::Unresolved {
            place: place.to_string(),
            what: "value",
            name: name.to_string(),
        })
    }
}

fn network(document: &Document, tensors: &Tensors<'_>) -> Result<Network, LoadError> {
    let values = document.values.iter().map(value).collect::<Result<Vec<_>, _>>()?;
    let mut names = Names { values: HashMap::new(), producers: BTreeMap::new() };
    for (index, value) in document.values.iter().enumerate() {
        if names.values.insert(&value.name, index).is_some() {
            return Err(LoadError::Duplicate { what: "value", name: value.name.clone() });
        }
    }
    let mut node_names = HashSet::new();
    for node in &document.nodes {
        let place = format!("node `{}`", node.name);
        if node.name.is_empty() || !node_names.insert(node.name.as_str()) {
            return Err(LoadError::Duplicate { what: "node", name: node.name.clone() });
        }
        for output in &node.outputs {
            if names.producers.insert(names.resolve(&place, output)?, &node.name).is_some() {
                return Err(LoadError::Duplicate { what: "output of nodes", name: output.clone() });
            }
        }
    }
    let ports = |what: &str, ports: &[document::Port]| -> Result<Vec<usize>, LoadError> {
        if ports.is_empty() {
            return Err(invalid("the graph", "number of inputs or outputs", 0, "at least 1"));
        }
        ports.iter().map(|port| names.resolve(&format!("the list of {what}"), &port.name)).collect()
    };
    let inputs = ports("inputs", &document.inputs)?;
    let outputs = ports("outputs", &document.outputs)?;
    let mut ready = HashSet::new();
    for (&input, port) in inputs.iter().zip(&document.inputs) {
        if !ready.insert(input) || names.producers.contains_key(&input) {
            return Err(LoadError::Duplicate { what: "graph input", name: port.name.clone() });
        }
    }
    let mut nodes = Vec::new();
    for node in &document.nodes {
        let place = format!("node `{}`", node.name);
        let [output] = node.outputs.as_slice() else {
            return Err(invalid(place, "number of outputs", node.outputs.len(), 1));
        };
        let mut from = Vec::new();
        for input in &node.inputs {
            let value = names.resolve(&place, input)?;
            if !ready.contains(&value) {
                return Err(match names.producers.get(&value) {
                    Some(producer) => {
                        LoadError::Order { node: node.name.clone(), value: input.clone(), producer: (*producer).into() }
                    }
                    None => {
                        let got = format!("`{input}`, which nothing produces");
                        invalid(place, "input", got, "a graph input or an output")
                    }
                });
            }
            from.push(value);
        }
        let to = names.resolve(&place, output)?;
        let inputs: Vec<&Value> = from.iter().map(|&value| &values[value]).collect();
        let operator = operators::load(node, &inputs, &values[to], tensors)?;
        nodes.push(Node { name: node.name.clone(), op: node.op.clone(), inputs: from, output: to, operator });
        ready.insert(to);
    }
    if let Some((index, value)) = values.iter().enumerate().find(|(index, _)| !ready.contains(index)) {
        debug_assert!(!names.producers.contains_key(&index));
        let expected = "a graph input or the output of a node";
        return Err(invalid(format!("value `{}`", value.name), "origin", "unknown", expected));
    }
    Ok(Network { values, nodes, inputs, outputs })
}

fn value(value: &document::Value) -> Result<Value, LoadError> {
    let place = || format!("value `{}`", value.name);
    if value.name.is_empty() {
        return Err(invalid(place(), "name", "empty", "a name"));
    }
    let mut len = 1usize;
    for &extent in &value.shape {
        len = len.checked_mul(extent).filter(|&len| extent > 0 && len <= MOST_ELEMENTS).ok_or_else(|| {
            let expected = format!("extents of at least 1 whose product is at most {MOST_ELEMENTS}");
            invalid(place(), "shape", format!("{:?}", value.shape), expected)
        })?;
    }
    let quantization = match (value.dtype, value.scale, value.zero_point) {
        (Dtype::F32, None, None) if value.bits.is_none() => None,
        (Dtype::F32, None, None) => return Err(invalid(place(), "bit width", "present", "none for f32")),
        (Dtype::F32, _, _) => return Err(invalid(place(), "scale or zero point", "present", "none for f32")),
        (dtype, Some(scale), Some(zero_point)) => {
            let codes = CodeType::new(value.bits.unwrap_or(8), dtype == Dtype::I8).at(place)?;
            let zero_point = i32::try_from(zero_point).map_err(|_| {
                invalid(place(), "zero point", zero_point, format!("a value in {}..={}", codes.lo(), codes.hi()))
            })?;
            Some(Quantization::new(scale, zero_point, codes).at(place)?)
        }
        (dtype, _, _) => {
            return Err(invalid(place(), "scale or zero point", "missing", format!("both for {dtype} codes")));
        }
    };
    if value.memory == Some(document::Memory::ChannelsLast) && !matches!(value.shape.len(), 3 | 4) {
        let expected = "contiguous unless the value has 4 or 5 axes, the batch included";
        return Err(invalid(place(), "memory", "channels_last", expected));
    }
    Ok(Value {
        name: value.name.clone(),
        dtype: value.dtype,
        shape: value.shape.clone(),
        quantization,
        memory: value.memory,
    })
}
