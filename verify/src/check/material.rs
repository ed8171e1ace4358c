//! What the reference says about a case.

use super::{Error, outputs};
use crate::case::Case;
use crate::fill::{self, Random, Stream};
use crate::guard::{Guarded, Place};
use qexact_kernels::{Isa, Plan};
use qexact_reference::layer::LayerParts;
use qexact_reference::requantize::Stored;
use qexact_reference::{Input, Layer, Output, PackedCodes, Region, Rule};
use std::collections::HashMap;
use std::ops::Range;

/// A case and all that follows from it.
pub(super) struct Material {
    pub(super) case: Case,
    weight: Vec<i8>,
    weight_zero_points: Vec<i32>,
    /// The same codes, once after and once before a protected page.
    inputs: [Guarded; 2],
    /// R4.
    pub(super) accumulators: Vec<i32>,
    /// The rule, with its numbers.
    pub(super) rule: Rule,
    /// The bits of its outputs.
    pub(super) want: Vec<u32>,
    /// All of the output.
    pub(super) all: Region,
    /// A region of it, in parts.
    pub(super) parts: Vec<Region>,
}

/// More codes or outputs than this are refused.
const MOST: usize = 1 << 31;

/// Fewer outputs may well be equal.
const FEW_OUTPUTS: usize = 16;

impl Material {
    /// Data, parameters and the reference's outputs.
    ///
    /// # Errors
    /// A case that is too large, or that the reference refuses; memory that cannot be protected.
    pub(super) fn new(case: &Case) -> Result<Material, Error> {
        let shape = &case.shape;
        let refused = |source| Error::Layer { case: Box::new(*case), source };
        shape.validate().map_err(refused)?;
        if shape.batch * shape.image_len() > MOST || shape.weight_len() > MOST || outputs(case) > MOST as u64 {
            return Err(Error::TooLarge { case: Box::new(*case) });
        }
        let weight_zero_points = fill::weight_zero_points(case);
        let weight = fill::weight(case, &weight_zero_points);
        let input = fill::input(case);
        let mut material = Material {
            case: *case,
            weight,
            weight_zero_points,
            inputs: [Guarded::holding(&input, Place::Start)?, Guarded::holding(&input, Place::End)?],
            accumulators: Vec::new(),
            rule: Rule::Accumulator,
            want: Vec::new(),
            all: Region { rows: 0..0, channels: 0..0 },
            parts: Vec::new(),
        };
        material.compute().map_err(refused)?;
        Ok(material)
    }

    fn compute(&mut self) -> Result<(), qexact_reference::Error> {
        let layer = Layer::new(self.parts(self.case.input_zero_point, &Rule::Accumulator))?;
        let all = layer.region(self.case.shape.batch)?;
        let mut accumulators = vec![0; all.len()];
        layer.run(&all, self.input(Place::Start), Output::I32(&mut accumulators))?;
        self.rule = fill::rule(&self.case, &accumulators)?;
        let with_channels = accumulators.iter().zip(all.channels.clone().cycle());
        let bits = |stored| match stored {
            Stored::Real(y) => real_bits(y),
            Stored::Code(_) | Stored::Accumulator(_) => stored.bits(),
        };
        self.want = with_channels.map(|(&acc, c)| bits(self.rule.apply(acc, c, 0.0))).collect();
        self.accumulators = accumulators;
        self.parts = parts(&mut Random::of(&self.case, Stream::Regions), &all);
        self.all = all;
        Ok(())
    }

    fn parts<'m>(&'m self, input_zero_point: i32, rule: &'m Rule) -> LayerParts<'m> {
        LayerParts {
            shape: self.case.shape,
            input: self.case.input,
            input_zero_point,
            weight: &self.weight,
            weight_zero_point: &self.weight_zero_points,
            rule,
        }
    }

    /// A plan for a rule. Every other seed takes the way of parameters that arrive after packing.
    pub(super) fn plan(&self, isa: Isa, rule: &Rule) -> Result<Plan, qexact_reference::Error> {
        let zero_point = self.case.input_zero_point;
        if self.case.seed.is_multiple_of(2) {
            return self.plan_of(&self.parts(zero_point, rule), isa);
        }
        let mut plan = self.plan_of(&self.parts(0, &Rule::Accumulator), isa)?;
        plan.requantize(zero_point, rule)?;
        Ok(plan)
    }

    fn plan_of(&self, parts: &LayerParts<'_>, isa: Isa) -> Result<Plan, qexact_reference::Error> {
        match self.case.weight {
            None => Plan::new(&Layer::new(*parts)?, isa),
            Some(codes) => {
                let weight = PackedCodes::pack(codes, parts.shape.depth(), parts.weight)?;
                Plan::from_packed(&LayerParts { weight: &[], ..*parts }, &weight, isa)
            }
        }
    }

    /// The input, begun or ended by a protected page.
    pub(super) fn input(&self, place: Place) -> Input<'_> {
        let bytes = self.inputs[usize::from(place != Place::Start)].bytes();
        if self.case.input.is_signed() { Input::I8(bytemuck::cast_slice(bytes)) } else { Input::U8(bytes) }
    }

    /// Whether more than 99 % of the outputs are one value.
    pub(super) fn is_weak(&self) -> bool {
        let mut counts: HashMap<u32, usize> = HashMap::new();
        for &output in &self.want {
            *counts.entry(output).or_default() += 1;
        }
        let most = counts.into_values().max().unwrap_or(0);
        self.want.len() >= FEW_OUTPUTS && most * 100 > self.want.len() * 99
    }
}

/// The bits of a real number; those of every NaN are the same.
pub(super) fn real_bits(y: f32) -> u32 {
    if y.is_nan() { f32::NAN.to_bits() } else { y.to_bits() }
}

/// A random region in two or more parts, if it has so many outputs.
fn parts(r: &mut Random, all: &Region) -> Vec<Region> {
    let [rows, channels] =
        [&all.rows, &all.channels].map(|range| if r.once_in(2) { range.clone() } else { some(r, range) });
    let (row_parts, channel_parts) = (1 + r.below(3), 1 + r.below(2));
    // One at least is cut.
    let row_parts = if row_parts * channel_parts == 1 { 2 } else { row_parts };
    let channel_parts = if rows.len() == 1 { 2 } else { channel_parts };
    let channels = cut(r, channels, channel_parts);
    let regions =
        |rows: Range<usize>| channels.clone().into_iter().map(move |channels| Region { rows: rows.clone(), channels });
    cut(r, rows, row_parts).into_iter().flat_map(regions).collect()
}

/// A random part of a range.
fn some(r: &mut Random, range: &Range<usize>) -> Range<usize> {
    let [a, b] = [(); 2].map(|()| range.start + r.below(range.len()));
    a.min(b)..a.max(b) + 1
}

/// Cuts a range at random places.
fn cut(r: &mut Random, range: Range<usize>, parts: usize) -> Vec<Range<usize>> {
    let mut ends: Vec<usize> = (1..parts).map(|_| range.start + r.below(range.len())).collect();
    ends.push(range.end);
    ends.sort_unstable();
    let mut start = range.start;
    let pieces = ends.into_iter().map(|end| std::mem::replace(&mut start, end)..end);
    pieces.filter(|piece| !piece.is_empty()).collect()
}
