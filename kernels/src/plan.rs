//! Plans: a layer made ready for one instruction set.

use crate::Isa;
use crate::choose::{Choice, choose, choose_narrow};
use crate::drive::{self, Packed};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use qexact_reference::layer::{LayerParts, check_addend, check_call};
use qexact_reference::{Addend, CodeType, Conv, Error, Input, Layer, Output, PackedCodes, Region, Rule};

/// A layer with packed weights and a chosen kernel. Immutable while it runs: threads may share it.
pub struct Plan {
    shape: Conv,
    /// Pixels of an output image.
    pixels: usize,
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

impl Plan {
    /// Chooses a kernel and packs the layer's weights for it.
    ///
    /// The batch of the layer's shape does not matter: it is taken from the input when running.
    ///
    /// # Errors
    /// Sizes that overflow. (A [`Layer`] is valid by construction.)
    pub fn new(layer: &Layer<'_>, isa: Isa) -> Result<Plan, Error> {
        Plan::with(choose(isa.name(), layer.shape()), layer, isa)
    }

    /// A plan for packed weights of 4 bits or less: [`LayerParts::weight`] is not read, `weight` has an OHWI row for
    /// each output channel. Where a kernel takes them apart as it goes they stay packed, see
    /// [`weight_bytes`](Plan::weight_bytes); zero points of unsigned weights are such codes.
    ///
    /// # Errors
    /// As [`Layer::new`]; weights that are not one row an output channel, zero points of unsigned ones that are no
    /// codes.
    pub fn from_packed(parts: &LayerParts<'_>, weight: &PackedCodes, isa: Isa) -> Result<Plan, Error> {
        let rows = parts.shape.out_channels;
        if weight.rows() != rows {
            let expected = alloc::format!("{rows} (one an output channel)");
            return Err(Error::Extent { what: "rows of packed weights", got: weight.rows(), expected });
        }
        let (codes, zero_points) = weight.signed_weights(parts.weight_zero_point)?;
        let layer = Layer::new(LayerParts { weight: &codes, weight_zero_point: &zero_points, ..*parts })?;
        Plan::with(choose_narrow(isa.name(), layer.shape(), weight.codes()), &layer, isa)
    }

    /// Packs a layer for the kernel of a choice made for its shape, or a faster one that its weights allow.
    fn with(choice: Choice, layer: &Layer<'_>, isa: Isa) -> Result<Plan, Error> {
        let (shape, choice) = (*layer.shape(), choice.for_layer(layer));
        let path = match choice.kernel {
            Some(kernel) => Path::Packed(Box::new(Packed::new(layer, kernel, choice.runs)?)),
            None => Path::Portable {
                weight: layer.weight().to_vec(),
                weight_zero_point: (0..shape.out_channels).map(|c| layer.weight_zero_point(c)).collect(),
            },
        };
        Ok(Plan {
            shape,
            pixels: shape.pixels(),
            input: layer.input(),
            input_zero_point: layer.input_zero_point(),
            rule: layer.rule().clone(),
            isa,
            choice,
            path,
        })
    }

    /// Another input zero point and rule for the same weights, without packing them again: for quantization
    /// parameters that arrive with the data. A rule of another kind may need more scratch memory.
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
            Path::Packed(packed) => Some(packed.accumulator_bound(self.input, self.input_zero_point)),
        }
    }

    /// Bytes of packed weights.
    pub fn weight_bytes(&self) -> usize {
        match &self.path {
            Path::Portable { weight, .. } => weight.len(),
            Path::Packed(packed) => packed.weight_bytes(),
        }
    }

    /// Bytes of scratch memory that one call of [`run`](Plan::run) needs; whatever the batch.
    pub fn scratch_len(&self) -> usize {
        match &self.path {
            Path::Portable { .. } => 0,
            Path::Packed(packed) => packed.scratch_len(),
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
    /// Buffers of the wrong type or length, a region outside the output or empty, scratch too small, a rule that
    /// adds a tensor.
    pub fn run(&self, region: &Region, input: Input<'_>, output: Output<'_>, scratch: &mut [u8]) -> Result<(), Error> {
        self.run_adding(region, input, Addend::None, output, scratch)
    }

    /// [`run`](Plan::run) with the tensor that the rule adds, laid out as the output.
    ///
    /// # Errors
    /// As [`run`](Plan::run), and an addend that the rule does not have, or of another type or length.
    pub fn run_adding(
        &self,
        region: &Region,
        input: Input<'_>,
        addend: Addend<'_>,
        output: Output<'_>,
        scratch: &mut [u8],
    ) -> Result<(), Error> {
        check_call((&self.shape, self.pixels), self.input, self.rule.element_type(), region, input, &output)?;
        check_addend(&self.rule, region, &addend)?;
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
                layer.run_adding(region, input, addend, output)
            }
            Path::Packed(packed) => {
                let zero_point = self.input_zero_point as u8;
                let operands = (input, addend, output);
                // SAFETY: the token `isa`, for which the kernel was chosen, vouches for its instructions; the
                // call was checked just above and scratch is long enough.
                unsafe { drive::run(packed, zero_point, region, operands, scratch) };
                Ok(())
            }
        }
    }
}
