//! Transposed convolutions: a plan for each of their phases.

use crate::memory::{Memory, Plain};
use crate::{Isa, Plan};
use alloc::vec;
use alloc::vec::Vec;
use qexact_reference::layer::LayerParts;
use qexact_reference::transposed::{Phase, TransposedConv};
use qexact_reference::{Error, Input, Layer, Output, Region};

/// A transposed convolution (R42) with packed weights, on the kernels of ordinary ones.
pub struct TransposedPlan {
    shape: TransposedConv,
    phases: Vec<Phase>,
    plans: Vec<Plan>,
    /// Elements of the output …
    len: usize,
    /// … and their type.
    element: &'static str,
}

impl TransposedPlan {
    /// Packs the weights of every phase. `parts.shape` is not read; `parts.weight` is OHWI.
    ///
    /// # Errors
    /// As [`TransposedConv::phases`], [`Phase::weight`] and [`Layer::new`].
    pub fn new(shape: &TransposedConv, parts: &LayerParts<'_>, isa: Isa) -> Result<TransposedPlan, Error> {
        let phases = shape.phases()?;
        let plan = |phase: &Phase| {
            let weight = phase.weight(parts.weight, parts.weight_zero_point)?;
            Plan::new(&Layer::new(LayerParts { shape: phase.shape, weight: &weight, ..*parts })?, isa)
        };
        let plans: Vec<Plan> = phases.iter().map(plan).collect::<Result<_, _>>()?;
        // What running asks for: that no size overflows is known from here on.
        plans.iter().try_for_each(|plan| plan.region(shape.batch).map(|_| ()))?;
        let (len, element) = (shape.output_len()?, parts.rule.element_type());
        Ok(TransposedPlan { shape: *shape, phases, plans, len, element })
    }

    /// Geometry.
    pub fn shape(&self) -> &TransposedConv {
        &self.shape
    }

    /// The plans of the phases; the first one's kernel is everybody's unless phases differ in kind, or in what their weights
    /// prove.
    pub fn plans(&self) -> &[Plan] {
        &self.plans
    }

    /// Bytes of scratch memory that one call of [`run`](TransposedPlan::run) needs: for the outputs of a phase, before
    /// they are put in their places, and for its plan.
    pub fn scratch_len(&self) -> usize {
        let size = if matches!(self.element, "u8" | "i8") { 1 } else { 4 };
        let outputs = self.regions().map(|region| region.len()).max().unwrap_or(0);
        let plans = self.plans.iter().map(Plan::scratch_len).max().unwrap_or(0);
        Memory::needed(|memory| (memory.take::<u8>(outputs * size), memory.take::<u8>(plans)))
    }

    /// All outputs of every phase.
    fn regions(&self) -> impl Iterator<Item = Region> + '_ {
        self.plans.iter().map(|plan| plan.region(self.shape.batch).expect("sizes were checked by `new`"))
    }

    /// Scratch memory of the right size.
    pub fn scratch(&self) -> Vec<u8> {
        vec![0; self.scratch_len()]
    }

    /// Computes the whole output, NHWC, of the shape's batch. Allocates nothing.
    ///
    /// # Errors
    /// As [`Plan::run`].
    pub fn run(&self, input: Input<'_>, output: Output<'_>, scratch: &mut [u8]) -> Result<(), Error> {
        if output.element_type() != self.element {
            let expected = self.element;
            return Err(Error::ElementType { what: "output", got: output.element_type(), expected });
        }
        if output.len() != self.len {
            let expected = alloc::format!("{}", self.len);
            return Err(Error::Length { what: "output", got: output.len(), expected });
        }
        let needed = self.scratch_len();
        if scratch.len() < needed {
            let expected = alloc::format!("at least {needed}");
            return Err(Error::Length { what: "scratch", got: scratch.len(), expected });
        }
        match output {
            Output::U8(y) => self.phases(input, y, |y| Output::U8(y), scratch),
            Output::I8(y) => self.phases(input, y, |y| Output::I8(y), scratch),
            Output::I32(y) => self.phases(input, y, |y| Output::I32(y), scratch),
            Output::F32(y) => self.phases(input, y, |y| Output::F32(y), scratch),
        }
    }

    /// Every phase into scratch memory, and from there to its places.
    fn phases<T: Plain>(
        &self,
        input: Input<'_>,
        y: &mut [T],
        output: for<'a> fn(&'a mut [T]) -> Output<'a>,
        scratch: &mut [u8],
    ) -> Result<(), Error> {
        for ((phase, plan), region) in self.phases.iter().zip(&self.plans).zip(self.regions()) {
            let mut memory = Memory::new(scratch);
            let (outputs, rest) = (memory.take::<T>(region.len()), memory.take::<u8>(plan.scratch_len()));
            plan.run(&region, input, output(outputs), rest)?;
            phase.place(outputs, y);
        }
        Ok(())
    }
}
