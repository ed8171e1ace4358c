//! What the runtime computed.

use crate::digest::Digest;
use crate::document::{self, Dtype};
use crate::error::{LoadError, invalid};
use crate::network::Network;
use crate::tensor::Tensor;
use crate::tensors::Tensors;

/// A recording: all inputs, the values of the first samples in full, digests of the values of the rest.
#[derive(Clone, Debug)]
pub struct Recording {
    samples: usize,
    full: usize,
    batch: usize,
    inputs: Vec<Tensor>,
    values: Vec<Recorded>,
    labels: Option<Vec<i64>>,
    accuracy: Option<Accuracy>,
}

/// The runtime's own count of right answers.
#[derive(Clone, Copy, Debug)]
pub struct Accuracy {
    /// The value that is compared with the labels.
    pub output: usize,
    /// For how many samples the arg max was the label.
    pub correct: u64,
}

#[derive(Clone, Debug)]
enum Recorded {
    Input(usize),
    Value { full: Option<Tensor>, digests: Vec<Digest> },
}

impl Recording {
    pub(crate) fn load(
        document: &document::Recording,
        network: &Network,
        tensors: &Tensors<'_>,
    ) -> Result<Recording, LoadError> {
        const PLACE: &str = "the recording";
        let document::Recording { samples, full, .. } = *document;
        if samples == 0 || full > samples {
            return Err(invalid(
                PLACE,
                "number of samples in full",
                full,
                format!("at most {samples} samples, of at least 1"),
            ));
        }
        let batch = match document.batch {
            None if network.mixes_samples() => {
                let expected = "1: the network has layers that quantize a batch by its range";
                return Err(invalid(PLACE, "samples of a batch", "not given", expected));
            }
            None => samples,
            Some(1) => 1,
            Some(other) => return Err(invalid(PLACE, "samples of a batch", other, "1, or not given: all of them")),
        };
        let read = |name: &str, batch: usize, dtype: Dtype, shape: &[usize]| {
            let data = tensors.get_data(PLACE, name, dtype, &[&[batch], shape].concat())?;
            let expected = "a number of elements that fits the address space";
            Tensor::new(batch, shape.to_vec(), data)
                .ok_or_else(|| invalid(name, "shape", format!("{shape:?}"), expected))
        };
        let mut inputs = Vec::new();
        let mut values = Vec::new();
        for (index, value) in network.values().iter().enumerate() {
            let name = format!("record.{}", value.name);
            if let Some(input) = network.inputs().iter().position(|&input| input == index) {
                values.push(Recorded::Input(input));
                continue;
            }
            let in_full = if full > 0 { Some(read(&name, full, value.dtype, &value.shape)?) } else { None };
            let digests = if samples > full {
                let name = format!("digest.{}", value.name);
                let bytes: Vec<u8> = tensors.get(PLACE, &name, &[samples - full, 32])?;
                let digest = |d: &[u8]| <[u8; 32]>::try_from(d).map(Digest).ok();
                bytes.chunks_exact(32).filter_map(digest).collect()
            } else {
                Vec::new()
            };
            values.push(Recorded::Value { full: in_full, digests });
        }
        for &input in network.inputs() {
            let value = &network.values()[input];
            inputs.push(read(&format!("record.{}", value.name), samples, value.dtype, &value.shape)?);
        }
        let labels = match &document.labels {
            Some(name) => Some(tensors.get::<i64>(PLACE, name, &[samples])?),
            None => None,
        };
        let accuracy = match (&document.accuracy, &labels) {
            (None, _) => None,
            (Some(_), None) => return Err(invalid(PLACE, "accuracy", "present", "none without labels")),
            (Some(accuracy), Some(_)) => Some(Accuracy::load(accuracy, network, samples)?),
        };
        Ok(Recording { samples, full, batch, inputs, values, labels, accuracy })
    }

    /// Number of samples.
    pub fn samples(&self) -> usize {
        self.samples
    }

    /// Of how many of them, the first, every value is stored.
    pub fn full(&self) -> usize {
        self.full
    }

    /// How many samples the runtime computed at once: 1 or all.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// The graph's inputs, all samples.
    pub fn inputs(&self) -> &[Tensor] {
        &self.inputs
    }

    /// The first samples of a value, in full.
    pub fn value(&self, value: usize) -> Option<Tensor> {
        match &self.values[value] {
            Recorded::Input(input) => (self.full > 0).then(|| self.inputs[*input].samples(0..self.full)),
            Recorded::Value { full, .. } => full.clone(),
        }
    }

    /// Digests of a value, one for each sample that is not stored in full. Graph inputs have none: they are stored.
    pub fn digests(&self, value: usize) -> &[Digest] {
        match &self.values[value] {
            Recorded::Input(_) => &[],
            Recorded::Value { digests, .. } => digests,
        }
    }

    /// The right answers.
    pub fn labels(&self) -> Option<&[i64]> {
        self.labels.as_deref()
    }

    /// The runtime's own count of right answers.
    pub fn accuracy(&self) -> Option<Accuracy> {
        self.accuracy
    }
}

impl Accuracy {
    fn load(accuracy: &document::Accuracy, network: &Network, samples: usize) -> Result<Accuracy, LoadError> {
        let outputs = network.outputs().iter().copied();
        let output = outputs.into_iter().find(|&o| network.values()[o].name == accuracy.output);
        let output = output.ok_or_else(|| LoadError::Unresolved {
            place: "the recorded accuracy".into(),
            what: "output",
            name: accuracy.output.clone(),
        })?;
        let value = &network.values()[output];
        if value.shape.last().copied() != Some(value.sample_len()) {
            let got = format!("{:?} (`{}`)", value.shape, value.name);
            return Err(invalid("the recorded accuracy", "shape of its output", got, "one row of scores a sample"));
        }
        if accuracy.correct > samples as u64 {
            let expected = format!("at most {samples} samples");
            return Err(invalid("the recorded accuracy", "number of right answers", accuracy.correct, expected));
        }
        Ok(Accuracy { output, correct: accuracy.correct })
    }
}
