//! Nodes into steps: BatchNorm folded into the layer before it (R38), ReLU joined to it.

use super::document::{FloatDocument, FloatNode};
use crate::error::{At, LoadError, invalid};
use crate::tensors::Tensors;
use qexact_reference::batch_norm::Parameters;
use qexact_reference::observer::fold;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// One operator of the quantized network.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// The name of its first node.
    pub(super) node: String,
    pub(super) op: String,
    /// The value read.
    pub(super) input: String,
    /// The value produced: the name of its last node.
    pub(super) output: String,
    pub(super) attributes: Map<String, Value>,
    /// For `linear` and `conv2d`.
    pub(super) layer: Option<FloatLayer>,
}

/// Weights and bias of a layer, BatchNorm folded in.
#[derive(Clone, Debug)]
pub(super) struct FloatLayer {
    /// Output channels first.
    pub(super) shape: Vec<usize>,
    pub(super) weight: Vec<f32>,
    pub(super) bias: Option<Vec<f32>>,
    pub(super) relu: bool,
}

const OPERATORS: &str = "linear, conv2d, batch_norm2d, batch_norm1d, relu, max_pool2d, avg_pool2d, flatten";

pub(super) fn steps(document: &FloatDocument, tensors: &Tensors<'_>) -> Result<Vec<Step>, LoadError> {
    let mut readers: HashMap<&str, usize> = HashMap::new();
    for name in document.nodes.iter().map(|node| &node.input).chain(&document.outputs) {
        *readers.entry(name).or_default() += 1;
    }
    let mut steps: Vec<Step> = Vec::new();
    let mut names = vec![document.input.name.as_str()];
    for node in &document.nodes {
        if node.name.is_empty() || names.contains(&node.name.as_str()) {
            return Err(LoadError::Duplicate { what: "node or input", name: node.name.clone() });
        }
        if !names.contains(&node.input.as_str()) {
            let place = format!("node `{}`", node.name);
            return Err(LoadError::Unresolved { place, what: "earlier node or input", name: node.input.clone() });
        }
        names.push(&node.name);
        // The layer whose output this node, and nobody else, reads.
        let layer = steps.iter_mut().find(|step| step.output == node.input).filter(|_| readers[&*node.input] == 1);
        let layer = layer.filter(|step| step.layer.as_ref().is_some_and(|layer| !layer.relu));
        match (node.op.as_str(), layer) {
            ("batch_norm2d" | "batch_norm1d", Some(step)) => {
                let (linear, layer) = (step.op == "linear", step.layer.as_mut().expect("a layer"));
                fold_into(layer, linear, node, tensors)?;
                step.output.clone_from(&node.name);
            }
            ("batch_norm2d" | "batch_norm1d", None) => {
                let place = format!("node `{}`", node.name);
                let expected = "a layer that nobody else reads and that is not followed by a ReLU: it is folded in";
                return Err(invalid(place, "input", format!("`{}`", node.input), expected));
            }
            ("relu", Some(step)) => {
                no_attributes(node)?;
                step.layer.as_mut().expect("a layer").relu = true;
                step.output.clone_from(&node.name);
            }
            ("linear" | "conv2d", _) => steps.push(Step { layer: Some(layer_of(node, tensors)?), ..step_of(node) }),
            ("relu" | "max_pool2d" | "avg_pool2d" | "flatten", _) => steps.push(step_of(node)),
            (op, _) => {
                let (node, op, expected) = (node.name.clone(), op.to_string(), OPERATORS.to_string());
                return Err(LoadError::UnknownOperator { node, op, expected });
            }
        }
    }
    if document.outputs.is_empty() {
        return Err(invalid("the document of the float network", "number of outputs", 0, "at least 1"));
    }
    for (i, name) in document.outputs.iter().enumerate() {
        let place = || "the list of outputs".to_string();
        if !steps.iter().any(|step| step.output == *name) {
            return Err(LoadError::Unresolved { place: place(), what: "node", name: name.clone() });
        }
        if document.outputs[..i].contains(name) {
            return Err(LoadError::Duplicate { what: "output", name: name.clone() });
        }
    }
    Ok(steps)
}

fn step_of(node: &FloatNode) -> Step {
    Step {
        node: node.name.clone(),
        op: node.op.clone(),
        input: node.input.clone(),
        output: node.name.clone(),
        attributes: node.attributes.clone(),
        layer: None,
    }
}

fn no_attributes(node: &FloatNode) -> Result<(), LoadError> {
    let crate::document::NoAttributes {} = attributes(node)?;
    Ok(())
}

fn attributes<T: for<'d> Deserialize<'d>>(node: &FloatNode) -> Result<T, LoadError> {
    serde_json::from_value(Value::Object(node.attributes.clone())).map_err(|source| LoadError::Field {
        node: node.name.clone(),
        part: "attributes",
        source,
    })
}

fn layer_of(node: &FloatNode, tensors: &Tensors<'_>) -> Result<FloatLayer, LoadError> {
    let place = format!("node `{}`", node.name);
    let name = format!("{}.weight", node.name);
    let (shape, weight) = tensors.any_shape::<f32>(&place, &name)?;
    let axes = if node.op == "linear" { 2 } else { 4 };
    if shape.len() != axes || shape.contains(&0) {
        let expected = format!("{axes} axes of at least one element");
        return Err(invalid(format!("tensor `{name}`"), "shape", format!("{shape:?}"), expected));
    }
    let bias_name = format!("{}.bias", node.name);
    let has_bias = tensors.view(&bias_name).is_some();
    let bias = if has_bias { Some(finite(tensors, &place, &bias_name, shape[0])?) } else { None };
    Ok(FloatLayer { shape, weight, bias, relu: false })
}

fn finite(tensors: &Tensors<'_>, place: &str, name: &str, len: usize) -> Result<Vec<f32>, LoadError> {
    let values: Vec<f32> = tensors.get(place, name, &[len])?;
    match values.iter().find(|v| !v.is_finite()) {
        None => Ok(values),
        Some(v) => Err(invalid(format!("tensor `{name}`"), "an element", v, "a finite number")),
    }
}

fn fold_into(layer: &mut FloatLayer, linear: bool, node: &FloatNode, tensors: &Tensors<'_>) -> Result<(), LoadError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Attributes {
        eps: f64,
    }
    let Attributes { eps } = attributes(node)?;
    let place = format!("node `{}`", node.name);
    let parameter = |name: &str| finite(tensors, &place, &format!("{}.{name}", node.name), layer.shape[0]);
    let (weight, bias) = (parameter("weight")?, parameter("bias")?);
    let (running_mean, running_var) = (parameter("running_mean")?, parameter("running_var")?);
    let parameters =
        Parameters { weight: &weight, bias: &bias, running_mean: &running_mean, running_var: &running_var, eps };
    let fold = if linear { fold::into_linear } else { fold::into_convolution };
    let folded = fold(&layer.weight, layer.bias.as_deref(), &parameters).at(|| place.clone())?;
    (layer.weight, layer.bias) = (folded.weight, Some(folded.bias));
    Ok(())
}
