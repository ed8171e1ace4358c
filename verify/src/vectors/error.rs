//! What can be wrong with a file of vectors.

use std::fmt;

/// Why a file of vectors was refused. Nothing of it was skipped, nothing guessed.
#[derive(Debug, thiserror::Error)]
#[error("{file}: {}{problem}", case.as_ref().map(|case| format!("{case}: ")).unwrap_or_default())]
pub struct Error {
    /// The file.
    pub file: String,
    /// The case, unless the file as a whole is at fault.
    pub case: Option<String>,
    /// What is wrong.
    pub problem: Box<Problem>,
}

/// What is wrong with a file or one of its cases.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// Not a well-formed safetensors file: truncated, a header longer than the file, overlapping tensors, …
    #[error(transparent)]
    Container(#[from] qexact_model::LoadError),
    /// An operator that nothing here can check.
    #[error("operator `{op}` of dialect `{dialect}` is not supported, expected one of {supported}")]
    Unsupported {
        /// The dialect found.
        dialect: String,
        /// The operator found.
        op: String,
        /// All dialects and operators that are supported.
        supported: String,
    },
    /// Something is not there.
    #[error("{part} `{name}` is missing, expected {expected}")]
    Missing {
        /// What kind of thing.
        part: Part,
        /// Its name.
        name: String,
        /// What it should have been.
        expected: String,
    },
    /// Something is not what it should be.
    #[error("{part} `{name}` is {found}, expected {expected}")]
    Wrong {
        /// What kind of thing.
        part: Part,
        /// Its name.
        name: String,
        /// What it is.
        found: String,
        /// What it should have been.
        expected: String,
    },
    /// Something is there that no rule reads: its meaning would be lost.
    #[error("{part} `{name}` is not one that this operator has")]
    Unexpected {
        /// What kind of thing.
        part: Part,
        /// Its name.
        name: String,
    },
    /// Numbers that the rules refuse: a scale that is not positive, a zero point out of range, a kernel that
    /// does not fit its input, …
    #[error("{what}: {source}")]
    Refused {
        /// Where the numbers come from.
        what: &'static str,
        /// Why they were refused.
        source: qexact_reference::Error,
    },
}

impl Problem {
    /// For `map_err`: the rules refused numbers that come from `what`.
    pub(super) fn refused(what: &'static str) -> impl Fn(qexact_reference::Error) -> Problem {
        move |source| Problem::Refused { what, source }
    }

    pub(super) fn wrong(part: Part, name: &str, found: impl fmt::Display, expected: impl fmt::Display) -> Problem {
        Problem::Wrong { part, name: name.to_owned(), found: found.to_string(), expected: expected.to_string() }
    }

    pub(super) fn missing(part: Part, name: &str, expected: impl fmt::Display) -> Problem {
        Problem::Missing { part, name: name.to_owned(), expected: expected.to_string() }
    }
}

/// The kinds of things that a file consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A key of the metadata.
    Key,
    /// A field of a case's JSON object.
    Field,
    /// A tensor.
    Tensor,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Key => "metadata key",
            Part::Field => "field",
            Part::Tensor => "tensor",
        })
    }
}
