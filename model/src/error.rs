//! What can be wrong with an export, or with a call.

use std::path::PathBuf;

/// Why a file is not an export that can be used. Every variant names the place.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not a well-formed safetensors file: truncated, a header longer than the file, overlapping tensors, …
    #[error("not a valid safetensors file: {0}")]
    Container(#[from] safetensors::SafeTensorError),
    /// A safetensors file without the document of an export.
    #[error("the metadata has no key `qexact`: this safetensors file is not a qexact export")]
    NoDocument,
    /// The document is not JSON, or has missing, unknown or mistyped fields.
    #[error("the document (metadata key `qexact`) is malformed: {0}")]
    Document(serde_json::Error),
    /// A version of the format that this reader does not know.
    #[error("the export's format version is {got}, expected {expected}")]
    Version {
        /// The version found.
        got: u64,
        /// The version known.
        expected: u64,
    },
    /// An operator that this reader does not know.
    #[error("node `{node}`: unknown operator `{op}`, expected one of {expected}")]
    UnknownOperator {
        /// The node.
        node: String,
        /// Its operator.
        op: String,
        /// The operators known.
        expected: String,
    },
    /// Attributes or rule of a node lack a field, or have one that is unknown or mistyped.
    #[error("node `{node}`: {part} malformed: {source}")]
    Field {
        /// The node.
        node: String,
        /// `attributes` or `rule`.
        part: &'static str,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// Two things with one name.
    #[error("the {what} `{name}` appears more than once")]
    Duplicate {
        /// What kind of thing.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A name that resolves to nothing.
    #[error("{place} refers to the {what} `{name}`, which does not exist")]
    Unresolved {
        /// Who refers to it.
        place: String,
        /// What kind of thing.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Nodes are not in execution order, which a cycle makes impossible.
    #[error(
        "node `{node}` reads `{value}`, which only node `{producer}`, not before it, produces: the graph has a cycle or is not in execution order"
    )]
    Order {
        /// The node that reads.
        node: String,
        /// What it reads.
        value: String,
        /// Who produces that.
        producer: String,
    },
    /// A tensor that belongs to no node and to no recording.
    #[error("the tensor `{tensor}` belongs to no node and to no recording")]
    LeftOver {
        /// The tensor.
        tensor: String,
    },
    /// A shape, type, number or name is not what the rest of the file implies.
    #[error("{place}: {what} is {got}, expected {expected}")]
    Invalid {
        /// Node, value or tensor.
        place: String,
        /// Which property.
        what: &'static str,
        /// What was found.
        got: String,
        /// What was expected.
        expected: String,
    },
    /// A quantization, shape or rule that the reference refuses.
    #[error("{place}: {source}")]
    Arithmetic {
        /// Node or value.
        place: String,
        /// What the reference said.
        source: qexact_reference::Error,
    },
}

/// Why a network was not run on the values given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The number of inputs.
    #[error("{got} inputs were given, expected {expected}")]
    Inputs {
        /// The number found.
        got: usize,
        /// The number of the graph's inputs.
        expected: usize,
    },
    /// Type, shape or batch of a value.
    #[error("the value `{value}`: {what} is {got}, expected {expected}")]
    Value {
        /// The value's name.
        value: String,
        /// Which property.
        what: &'static str,
        /// What was found.
        got: String,
        /// What was expected.
        expected: String,
    },
    /// A shape that the reference refuses, such as a batch whose sizes overflow.
    #[error("node `{node}`: {source}")]
    Node {
        /// The node.
        node: String,
        /// What the reference said.
        source: qexact_reference::Error,
    },
}

/// Shorthand for [`LoadError::Invalid`].
pub(crate) fn invalid(
    place: impl Into<String>,
    what: &'static str,
    got: impl std::fmt::Display,
    expected: impl std::fmt::Display,
) -> LoadError {
    LoadError::Invalid { place: place.into(), what, got: got.to_string(), expected: expected.to_string() }
}

/// Attaches a place to what the reference refused.
pub(crate) trait At<T> {
    fn at(self, place: impl FnOnce() -> String) -> Result<T, LoadError>;
}

impl<T> At<T> for Result<T, qexact_reference::Error> {
    fn at(self, place: impl FnOnce() -> String) -> Result<T, LoadError> {
        self.map_err(|source| LoadError::Arithmetic { place: place(), source })
    }
}
