//! What the reference says about a case.

use super::{Error, extents, operators, outputs};
use crate::case::{Case, Operator};
use crate::fill::{self, Random, Stream};
use crate::guard::{Guarded, Place};
use qexact_kernels::{BinaryLinear, Isa, Plan, TransposedPlan};
use qexact_reference::layer::LayerParts;
use qexact_reference::requantize::Stored;
use qexact_reference::{Input, Layer, NarrowType, Output, PackedCodes, Region, Rule, narrow, transposed};
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
        let input = match case.operator {
            Operator::Quantize => operators::reals(case, shape.batch * shape.image_len()),
            _ => fill::input(case),
        };
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
        let [depth, height, width] = extents(&self.case);
        let rows = self.case.shape.batch * depth * height * width;
        let all = Region { rows: 0..rows, channels: 0..self.case.shape.out_channels };
        if !self.case.operator.accumulates() {
            self.want = operators::want(&self.case, self.inputs[0].bytes())?;
            self.all = all;
            return Ok(());
        }
        let mut accumulators = vec![0; all.len()];
        let (input, layer) = (self.input(Place::Start), self.parts(self.case.input_zero_point, &Rule::Accumulator));
        match self.case.operator {
            Operator::Transposed => {
                let output = Output::I32(&mut accumulators);
                transposed::run(&operators::transposed(&self.case), &layer, input, output)?;
            }
            Operator::Binary => {
                let (x, w) = (self.binary_input()?, self.binary_weight()?);
                let pairs = (0..x.rows()).flat_map(|row| (0..w.rows()).map(move |channel| (row, channel)));
                for (accumulator, (row, channel)) in accumulators.iter_mut().zip(pairs) {
                    *accumulator = narrow::binary_dot(x.row(row), w.row(channel), x.row_len());
                }
            }
            _ => Layer::new(layer)?.run(&all, input, Output::I32(&mut accumulators))?,
        }
        self.rule = fill::rule(&self.case, &accumulators)?;
        let with_channels = accumulators.iter().zip(all.channels.clone().cycle());
        let bits = |stored| match stored {
            Stored::Real(y) => real_bits(y),
            Stored::Code(_) | Stored::Accumulator(_) => stored.bits(),
        };
        self.want = with_channels.map(|(&acc, c)| bits(self.rule.apply(acc, c, 0.0))).collect();
        self.accumulators = accumulators;
        if self.case.operator == Operator::Layer {
            self.parts = parts(&mut Random::of(&self.case, Stream::Regions), &all);
        }
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

    /// What computes the case on an instruction set.
    pub(super) fn runner(&self, isa: Isa, rule: &Rule) -> Result<Runner, qexact_reference::Error> {
        let parts = self.parts(self.case.input_zero_point, rule);
        Ok(match self.case.operator {
            Operator::Layer => Runner::Plan(self.plan(isa, rule)?),
            Operator::Transposed => {
                Runner::Transposed(TransposedPlan::new(&operators::transposed(&self.case), &parts, isa)?)
            }
            Operator::Binary => {
                let layer = Box::new(BinaryLinear::new(&self.binary_weight()?, rule, isa)?);
                Runner::Binary(layer, self.binary_input()?)
            }
            _ => Runner::Operator(self.case, isa),
        })
    }

    /// Rows of −1 and 1: the lowest bits of the input.
    fn binary_input(&self) -> Result<PackedCodes, qexact_reference::Error> {
        let codes: Vec<i8> = self.inputs[0].bytes().iter().map(|x| if x & 1 == 1 { 1 } else { -1 }).collect();
        PackedCodes::pack(NarrowType::Binary, self.case.shape.in_channels, &codes)
    }

    fn binary_weight(&self) -> Result<PackedCodes, qexact_reference::Error> {
        let shape = &self.case.shape;
        if shape.groups != 1 || shape.axes.iter().any(|axis| axis.kernel * axis.stride != 1 || axis.padding != [0; 2]) {
            let expected = "groups, kernels and strides of 1, and no padding".into();
            return Err(qexact_reference::Error::Extent { what: "binary layer's groups", got: shape.groups, expected });
        }
        let codes: Vec<i8> = self.weight.iter().map(|w| if w & 1 == 1 { 1 } else { -1 }).collect();
        PackedCodes::pack(NarrowType::Binary, shape.in_channels, &codes)
    }

    /// A plan for a rule. Every other seed takes the way of parameters that arrive after packing.
    fn plan(&self, isa: Isa, rule: &Rule) -> Result<Plan, qexact_reference::Error> {
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

/// What computes a case.
pub(super) enum Runner {
    Plan(Plan),
    Transposed(TransposedPlan),
    Binary(Box<BinaryLinear>, PackedCodes),
    Operator(Case, Isa),
}

impl Runner {
    /// Bytes of scratch memory.
    pub(super) fn scratch_len(&self) -> usize {
        match self {
            Runner::Plan(plan) => plan.scratch_len(),
            Runner::Transposed(plan) => plan.scratch_len(),
            Runner::Binary(layer, _) => 4 * layer.scratch_len(),
            Runner::Operator(..) => 0,
        }
    }

    /// Computes a region, which is all of the output but for a plan.
    pub(super) fn run(
        &self,
        region: &Region,
        input: Input<'_>,
        output: Output<'_>,
        scratch: &mut [u8],
    ) -> Result<(), qexact_reference::Error> {
        match self {
            Runner::Plan(plan) => plan.run(region, input, output, scratch),
            Runner::Transposed(plan) => plan.run(input, output, scratch),
            Runner::Binary(layer, x) => layer.run(0..x.rows(), x, output, bytemuck::cast_slice_mut(scratch)),
            Runner::Operator(case, isa) => {
                let x = match input {
                    Input::U8(x) => x,
                    Input::I8(x) => bytemuck::cast_slice(x),
                };
                let y = match output {
                    Output::U8(y) => y,
                    Output::I8(y) => bytemuck::cast_slice_mut(y),
                    Output::I32(y) => bytemuck::cast_slice_mut(y),
                    Output::F32(y) => bytemuck::cast_slice_mut(y),
                };
                operators::run(case, Some(*isa), x, y)
            }
        }
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
