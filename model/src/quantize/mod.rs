//! A float network with samples into an export: `FLOAT.md` says what is read, `FORMAT.md` what is written.
//!
//! | module | room |
//! |---|---|
//! | `document` | the JSON document of a float network |
//! | `fuse` | BatchNorm folded into layers, ReLU joined to them |
//! | `float` | running the fused network on floats |
//! | `write` | the export: document, tensors, digests |

mod document;
mod float;
mod fuse;
mod write;

use crate::error::{At, LoadError, RunError, invalid};
use crate::load::Export;
use crate::tensors::{Tensors, open};
use crate::{Executor, Tensor};
use qexact_kernels::Isa;
use qexact_reference::observer::{CodeRange, EPS, Range, affine};
use qexact_reference::{CodeType, Quantization};
use safetensors::tensor::SafeTensors;
use std::collections::BTreeMap;

/// Choices that a float network leaves open.
#[derive(Clone, Copy, Debug, Default)]
pub struct QuantizeOptions {
    /// One weight scale an output channel, instead of one a layer.
    pub per_channel: bool,
}

/// What [`quantize`] made.
#[derive(Clone, Debug)]
pub struct Quantized {
    /// The export: a safetensors file with a recording that the reference made.
    pub bytes: Vec<u8>,
    /// Every value that got parameters of its own, in execution order.
    pub observed: Vec<Observed>,
}

/// A value's range, and the parameters computed from it.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The value's name.
    pub value: String,
    /// Given, or seen in the samples.
    pub range: Range,
    /// Whether the document gave the range.
    pub given: bool,
    /// R33 of the range.
    pub quantization: Quantization,
}

/// Why a float network was not quantized.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QuantizeError {
    /// Something about the file.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The quantized network does not run on the samples.
    #[error(transparent)]
    Run(#[from] RunError),
}

/// Quantizes a float network: ranges (R32) and parameters (R33) of activations in u8, BatchNorm folded (R38), symmetric
/// i8 weights (R34, R36), fbgemm's requantization; records what the scalar reference computes for the samples.
///
/// # Errors
/// Whatever is wrong with the file, by name.
pub fn quantize(file: &[u8], options: QuantizeOptions) -> Result<Quantized, QuantizeError> {
    let tensors = Tensors::new(open(file)?);
    let (_, metadata) = SafeTensors::read_metadata(file).map_err(LoadError::from)?;
    let document = document::parse(metadata.metadata().as_ref().and_then(|strings| strings.get(document::KEY)))?;
    let steps = fuse::steps(&document, &tensors)?;
    let samples = float::samples(&document, &tensors)?;
    if let Some(tensor) = tensors.left_over() {
        return Err(LoadError::LeftOver { tensor }.into());
    }
    let values = float::run(&document.input.name, samples.clone(), &steps)?;
    let observed = observe(&document, &steps, &values)?;
    let draft = write::draft(&document, &steps, &values, &observed, options)?;
    // The loader checks what was written as it checks any file; the reference then says what is computed.
    let network = Export::from_bytes(&draft.clone().bytes()?)?.network;
    let input = Tensor::new(samples.batch, samples.shape.clone(), crate::Data::F32(samples.data));
    let input = input.expect("as many elements as the shape says");
    let recorded = Executor::new(&network, Isa::REFERENCE)?.run_all(&[input])?;
    let bytes = draft.record(&network, &recorded)?.bytes()?;
    Export::from_bytes(&bytes)?;
    Ok(Quantized { bytes, observed })
}

/// Ranges and parameters of the graph input and of every layer's output; other operators keep their input's.
fn observe(
    document: &document::FloatDocument,
    steps: &[fuse::Step],
    values: &BTreeMap<String, float::Values>,
) -> Result<Vec<Observed>, LoadError> {
    let layers = steps.iter().filter(|step| step.layer.is_some()).map(|step| &step.output);
    let names: Vec<&String> = std::iter::once(&document.input.name).chain(layers).collect();
    if let Some(name) = document.ranges.keys().find(|name| !names.contains(name)) {
        let expected = format!("one of {names:?}, the values with parameters of their own");
        return Err(invalid("`ranges`", "name of a value", format!("`{name}`"), expected));
    }
    let observe = |name: &String| {
        let given = document.ranges.get(name);
        let range = match given {
            Some(&[min, max]) => Range::new(min, max),
            None => Range::of(&values[name].data),
        };
        let place = || format!("value `{name}`");
        let range = range.at(place)?;
        let quantization = affine(range, CodeRange::all(CodeType::U8), EPS).at(place)?;
        Ok(Observed { value: name.clone(), range, given: given.is_some(), quantization })
    };
    names.into_iter().map(observe).collect()
}
