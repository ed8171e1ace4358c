//! Plans: a layer made ready for one instruction set.

use crate::drive::{self, Scratch};
use crate::gather::Gather;
use crate::micro::{ACCUMULATORS, Kind, Microkernel, Store, find};
use crate::pack::{ColumnSums, Epilogue, Order, Weights, depthwise_panels, gemm_panels, store_for};
use crate::{Isa, IsaName};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use qexact_reference::layer::{LayerParts, check_call};
use qexact_reference::{CodeType, Conv, Error, Input, Layer, Output, Region, Rule};

/// A layer with packed weights and a chosen kernel. Immutable while it runs: threads may share it.
pub struct Plan {
    shape: Conv,
    input: CodeType,
    input_zero_point: i32,
    rule: Rule,
    isa: Isa,
    choice: Choice,
    path: Path,
}

enum Path {
    /// The reference itself.
    Portable {
        weight: Vec<i8>,
        weight_zero_point: Vec<i32>,
    },
    Packed(Box<Packed>),
}

/// What the driver runs on.
pub(crate) struct Packed {
    pub(crate) kernel: &'static Microkernel,
    pub(crate) gather: Gather,
    pub(crate) weights: Weights,
    pub(crate) epilogue: Epilogue,
    /// What the kernel stores.
    pub(crate) store: Store,
    order: Order,
    sums: ColumnSums,
}

/// The kernel that a shape gets, and how it reads its input.
#[derive(Clone, Copy)]
pub struct Choice {
    kernel: Option<&'static Microkernel>,
    reads: Reads,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Reads {
    /// Input channels under one tap.
    Taps,
    /// All channels under one row of taps.
    KernelRows,
}

/// Below this many channels a tap is too short a run.
const FEW_CHANNELS: usize = 16;

/// The kernel for a shape: a pure function, so that any machine can ask what another would choose.
pub fn choose(isa: IsaName, shape: &Conv) -> Choice {
    let depthwise = shape.is_depthwise() && shape.out_channels == shape.in_channels;
    let kernel = find(isa, if depthwise { Kind::Depthwise } else { Kind::Gemm });
    let [_, _, width] = shape.axes;
    let few = shape.in_channels < FEW_CHANNELS || !shape.in_channels.is_multiple_of(4);
    let rows = shape.groups == 1 && width.dilation == 1 && width.kernel > 1 && few;
    Choice { kernel, reads: if rows { Reads::KernelRows } else { Reads::Taps } }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.kernel, self.reads) {
            (None, _) => f.pad("reference"),
            (Some(kernel), Reads::Taps) => f.pad(kernel.name),
            (Some(kernel), Reads::KernelRows) => f.pad(&alloc::format!("{}_kernel_rows", kernel.name)),
        }
    }
}

impl Plan {
    /// Chooses a kernel and packs the layer's weights for it.
    ///
    /// The batch of the layer's shape does not matter: it is taken from the input when running.
    ///
    /// # Errors
    /// Sizes that overflow. (A [`Layer`] is valid by construction.)
    pub fn new(layer: &Layer<'_>, isa: Isa) -> Result<Plan, Error> {
        let shape = *layer.shape();
        let choice = choose(isa.name(), &shape);
        let path = match choice.kernel {
            Some(kernel) => Path::Packed(Box::new(Packed::new(layer, kernel, choice.reads)?)),
            None => Path::Portable {
                weight: layer.weight().to_vec(),
                weight_zero_point: (0..shape.out_channels).map(|c| layer.weight_zero_point(c)).collect(),
            },
        };
        Ok(Plan {
            shape,
            input: layer.input(),
            input_zero_point: layer.input_zero_point(),
            rule: layer.rule().clone(),
            isa,
            choice,
            path,
        })
    }

    /// Another input zero point and rule for the same weights, without packing them again: for quantization
    /// parameters that arrive with the data.
    ///
    /// # Errors
    /// A zero point that is not a code of the input, parameters of the wrong length.
    pub fn requantize(&mut self, input_zero_point: i32, rule: &Rule) -> Result<(), Error> {
        self.input.check("input zero point", input_zero_point)?;
        rule.validate(self.shape.out_channels)?;
        if let Path::Packed(packed) = &mut self.path {
            packed.set_epilogue(&self.shape, self.input, input_zero_point, rule);
        }
        self.input_zero_point = input_zero_point;
        self.rule = rule.clone();
        Ok(())
    }

    /// Geometry of the layer.
    pub fn shape(&self) -> &Conv {
        &self.shape
    }

    /// The instruction set used.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The kernel chosen; it prints its name.
    pub fn kernel(&self) -> Choice {
        self.choice
    }

    /// The largest |accumulator| that any input can lead to, before int32 sums wrap. The proof that they do not
    /// is that this is less than 2³¹. `None` on the reference, which packs nothing.
    pub fn accumulator_bound(&self) -> Option<i64> {
        match &self.path {
            Path::Portable { .. } => None,
            Path::Packed(packed) => Some(packed.sums.accumulator_bound(self.input, self.input_zero_point)),
        }
    }

    /// Bytes of packed weights.
    pub fn weight_bytes(&self) -> usize {
        match &self.path {
            Path::Portable { weight, .. } => weight.len(),
            Path::Packed(packed) => packed.weights.len(),
        }
    }

    /// Bytes of scratch memory that one call of [`run`](Plan::run) needs; whatever the batch.
    pub fn scratch_len(&self) -> usize {
        match &self.path {
            Path::Portable { .. } => 0,
            Path::Packed(packed) => Scratch::len(packed, &self.shape),
        }
    }

    /// Scratch memory of the right size, one for every thread that runs.
    pub fn scratch(&self) -> Vec<u8> {
        vec![0; self.scratch_len()]
    }

    /// All outputs of a batch.
    ///
    /// # Errors
    /// A batch whose sizes overflow.
    pub fn region(&self, batch: usize) -> Result<Region, Error> {
        let rows = batch
            .checked_mul(self.shape.pixels())
            .filter(|rows| rows.checked_mul(self.shape.out_channels).is_some_and(|len| len <= isize::MAX as usize / 8));
        let rows = rows.ok_or(Error::TooLarge { what: "elements of the output" })?;
        Ok(Region { rows: 0..rows, channels: 0..self.shape.out_channels })
    }

    /// Computes a region of the output.
    ///
    /// `input` is the whole batch, NHWC; `output` is the region alone, dense `[rows, channels]`. Split an output
    /// among threads in any way: the bits are the same. Allocates nothing, starts no thread, takes no lock.
    /// What `scratch` holds before and after does not matter.
    ///
    /// # Errors
    /// Buffers of the wrong type or length, a region outside the output or empty, scratch too small.
    pub fn run(&self, region: &Region, input: Input<'_>, output: Output<'_>, scratch: &mut [u8]) -> Result<(), Error> {
        check_call(&self.shape, self.input, self.rule.element_type(), region, input, &output)?;
        let needed = self.scratch_len();
        if scratch.len() < needed {
            let expected = alloc::format!("at least {needed}");
            return Err(Error::Length { what: "scratch", got: scratch.len(), expected });
        }
        match &self.path {
            Path::Portable { weight, weight_zero_point } => {
                let layer = Layer::new(LayerParts {
                    shape: self.shape,
                    input: self.input,
                    input_zero_point: self.input_zero_point,
                    weight,
                    weight_zero_point,
                    rule: &self.rule,
                })?;
                layer.run(region, input, output)
            }
            Path::Packed(packed) => {
                let zero_point = self.input_zero_point as u8;
                // SAFETY: the token `isa`, for which the kernel was chosen, vouches for its instructions; the
                // call was checked just above and scratch is long enough.
                unsafe { drive::run(packed, &self.shape, zero_point, &self.rule, region, (input, output), scratch) };
                Ok(())
            }
        }
    }
}

impl Packed {
    fn new(layer: &Layer<'_>, kernel: &'static Microkernel, reads: Reads) -> Result<Packed, Error> {
        let shape = layer.shape();
        let gather = match reads {
            Reads::Taps => Gather::taps(shape)?,
            Reads::KernelRows => Gather::kernel_rows(shape)?,
        };
        let ((panels, order), runs) = match kernel.kind {
            Kind::Gemm => (gemm_panels(layer, kernel.lanes, kernel.vectors), (gather.runs, gather.run_len)),
            // A depthwise channel has one code a tap: its taps are what gets packed together.
            Kind::Depthwise => (depthwise_panels(layer, kernel.lanes), (1, gather.runs)),
        };
        let weights = Weights::pack(layer, (panels, &order), kernel.lanes, runs, kernel.format);
        let sums = ColumnSums::of(layer);
        let (epilogue, store) = (Epilogue::default(), ACCUMULATORS);
        let mut packed = Packed { kernel, gather, weights, epilogue, store, order, sums };
        packed.set_epilogue(shape, layer.input(), layer.input_zero_point(), layer.rule());
        Ok(packed)
    }

    fn set_epilogue(&mut self, shape: &Conv, input: CodeType, input_zero_point: i32, rule: &Rule) {
        let bound = self.sums.accumulator_bound(input, input_zero_point);
        let store = store_for(rule, shape.out_channels, bound);
        // A rule without a fused form finishes tiles of accumulators in a second step.
        self.store = store.unwrap_or(ACCUMULATORS);
        let fused = if store.is_some() { rule } else { &Rule::Accumulator };
        self.epilogue = Epilogue::new(&self.order, input, input_zero_point, &self.sums, fused);
    }

    /// Whether the kernel stores what the rule produces.
    pub(crate) fn is_fused(&self, rule: &Rule) -> bool {
        self.store != ACCUMULATORS || matches!(rule, Rule::Accumulator)
    }

    /// Whether the input's codes are signed.
    pub(crate) fn needs_row_sums(&self) -> bool {
        self.kernel.kind == Kind::Gemm && !self.epilogue.weight_zero_point.is_empty()
    }
}
