//! Transposed convolutions: a plan for each of their phases.

use crate::{Isa, Plan};
use alloc::vec;
use alloc::vec::Vec;
use qexact_reference::layer::LayerParts;
use qexact_reference::transposed::{Phase, TransposedConv, run_phases};
use qexact_reference::{Error, Input, Layer, Output};

/// A transposed convolution (R42) with packed weights, on the kernels of ordinary ones.
pub struct TransposedPlan {
    shape: TransposedConv,
    phases: Vec<Phase>,
    plans: Vec<Plan>,
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
        let plans = phases.iter().map(plan).collect::<Result<_, _>>()?;
        Ok(TransposedPlan { shape: *shape, phases, plans })
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

    /// Bytes of scratch memory that one call of [`run`](TransposedPlan::run) needs.
    pub fn scratch_len(&self) -> usize {
        self.plans.iter().map(Plan::scratch_len).max().unwrap_or(0)
    }

    /// Scratch memory of the right size.
    pub fn scratch(&self) -> Vec<u8> {
        vec![0; self.scratch_len()]
    }

    /// Computes the whole output, NHWC, of the shape's batch. A phase's outputs take a buffer of their own.
    ///
    /// # Errors
    /// As [`Plan::run`].
    pub fn run(&self, input: Input<'_>, output: Output<'_>, scratch: &mut [u8]) -> Result<(), Error> {
        run_phases(&self.phases, output, |index, output| {
            let plan = &self.plans[index];
            plan.run(&plan.region(self.shape.batch)?, input, output, scratch)
        })
    }
}
