//! # qexact-model
//!
//! Reads exports ([`FORMAT.md`](https://github.com/qexact/qexact/blob/main/model/FORMAT.md)): one safetensors file with
//! a quantized network and, usually, a recording of the runtime that made it. Trusts nothing in the file, and runs the
//! network on the scalar reference or on any instruction set.
//!
//! ```no_run
//! use qexact_kernels::Isa;
//! use qexact_model::{Executor, Export};
//!
//! let export = Export::read("net.safetensors".as_ref())?;
//! let executor = Executor::new(&export.network, Isa::best())?;
//! let recording = export.recording.as_ref().expect("a recording");
//! let outputs = executor.run(recording.inputs())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | module | room |
//! |---|---|
//! | `document` | the JSON document as it is written |
//! | `tensors`, `digest` | the safetensors container: typed, checked access |
//! | `load`, `operators` | document and tensors into a checked [`Network`] |
//! | `network` | the graph: values, nodes, operators |
//! | `tensor` | values at run time |
//! | `elementwise` | operators on several values, moves
//! | `execute` | running a network on one instruction set |
//! | `recording` | what the runtime computed |
//! | `quantize` | a float network into an export |

#[cfg(target_endian = "big")]
compile_error!("safetensors hold little-endian numbers; this crate reads them as they lie in memory");

mod digest;
pub mod document;
mod elementwise;
mod error;
mod execute;
mod load;
mod network;
mod operators;
mod quantize;
mod recording;
mod tensor;
mod tensors;

pub use digest::Digest;
pub use error::{LoadError, RunError};
pub use execute::Executor;
pub use load::Export;
pub use network::{Concat, DynamicNode, Gather, LayerNode, Network, Node, Operator};
pub use network::{PoolRule, Recoding, TransposedNode, Value};
pub use quantize::{Observed, QuantizeError, QuantizeOptions, Quantized, quantize};
pub use recording::{Accuracy, Recording};
pub use tensor::{Data, Tensor};
pub use tensors::{open, read_tensors, write_tensors};
