//! Whether a kernel agrees with the reference.

use super::material::{Material, Runner, real_bits};
use super::{Failure, Fault, Tamper, extents};
use crate::case::{Case, Operator, RuleForm};
use crate::guard::{GuardError, Guarded, Place};
use qexact_kernels::Isa;
use qexact_reference::{Output, Region, Rule};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How an instruction set's kernel fails, if it does.
///
/// # Errors
/// Memory that cannot be protected.
pub(super) fn examine(material: &Material, isa: Isa, tamper: &Tamper<'_>) -> Result<Option<Failure>, GuardError> {
    let accumulators: Vec<u32> = material.accumulators.iter().map(|&acc| acc as u32).collect();
    let stages = [
        (RuleForm::Accumulator, &Rule::Accumulator, &accumulators),
        (material.case.rule, &material.rule, &material.want),
    ];
    let operator = material.case.operator;
    let first = usize::from(material.case.rule == RuleForm::Accumulator || !operator.accumulates());
    for &(form, rule, want) in &stages[first..] {
        let case = Case { rule: form, isa: Some(isa.name()), ..material.case };
        let element = if operator.accumulates() { Element::of(rule) } else { Element::of_operator(&material.case) };
        let compared = catch_unwind(AssertUnwindSafe(|| match material.runner(isa, rule) {
            Ok(runner) => Examination { material, case, isa, runner, element, want, tamper }.compare(),
            Err(error) => Ok(Some(Fault::Refused(error.to_string()))),
        }));
        if let Some(fault) = compared.unwrap_or_else(|panic| Ok(Some(Fault::Panicked(message(&*panic)))))? {
            return Ok(Some(Failure { case, fault }));
        }
    }
    Ok(None)
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "something".into())
}

/// What runs and what it should compute.
struct Examination<'m> {
    material: &'m Material,
    case: Case,
    isa: Isa,
    runner: Runner,
    element: Element,
    want: &'m [u32],
    tamper: &'m Tamper<'m>,
}

impl Examination<'_> {
    /// The whole output and parts of it, in buffers in all places. In the middle first: there a byte written
    /// outside is a line of text and not a crash.
    fn compare(&self) -> Result<Option<Fault>, GuardError> {
        // The reference is safe code: its buffers need no watching.
        let places: &[Place] =
            if self.isa == Isa::REFERENCE { &[Place::Middle] } else { &[Place::Middle, Place::Start, Place::End] };
        let whole = (&self.material.all, None);
        let parts = self.material.parts.iter().map(|part| (part, Some(part)));
        for (region, part) in std::iter::once(whole).chain(parts) {
            for &place in places {
                if let Some(fault) = self.call(region, part, place)? {
                    return Ok(Some(fault));
                }
            }
        }
        Ok(None)
    }

    /// One call of the kernel.
    fn call(&self, region: &Region, part: Option<&Region>, place: Place) -> Result<Option<Fault>, GuardError> {
        let mut output = Guarded::new(region.len() * self.element.size(), place)?;
        let mut scratch = Guarded::new(self.runner.scratch_len(), place.opposite())?;
        let view = self.element.output(output.bytes_mut());
        if let Err(error) = self.runner.run(region, self.material.input(place), view, scratch.bytes_mut()) {
            return Ok(Some(Fault::Refused(error.to_string())));
        }
        (self.tamper)(&self.case, self.isa, &mut output, &mut scratch);
        let outside = |buffer, bytes: &Guarded| bytes.overwritten().map(|byte| Fault::WroteOutside { buffer, byte });
        let difference = self.difference(region, part, output.bytes());
        Ok(difference.or_else(|| outside("output", &output)).or_else(|| outside("scratch", &scratch)))
    }

    /// The first output that is wrong.
    fn difference(&self, region: &Region, part: Option<&Region>, got: &[u8]) -> Option<Fault> {
        let channels = self.case.shape.out_channels;
        let indices = region.rows.clone().flat_map(|row| region.channels.clone().map(move |c| row * channels + c));
        let got = self.element.bits(got);
        let mut wrong = indices.zip(got).filter(|&(at, got)| self.want[at] != got);
        let (at, got) = wrong.next()?;
        let [depth, height, width] = extents(&self.case);
        let (row, channel) = (at / channels, at % channels);
        let (line, x) = (row / width, row % width);
        let (plane, y) = (line / height, line % height);
        Some(Fault::Differs {
            part: part.cloned(),
            at: [plane / depth, plane % depth, y, x, channel],
            accumulator: self.material.accumulators.get(at).copied().unwrap_or(0),
            want: self.element.show(self.want[at]),
            got: self.element.show(got),
            count: 1 + wrong.count() as u64,
        })
    }
}

/// What outputs are in memory.
#[derive(Clone, Copy)]
enum Element {
    U8,
    I8,
    I32,
    F32,
}

impl Element {
    fn of(rule: &Rule) -> Element {
        match rule.element_type() {
            "u8" => Element::U8,
            "i8" => Element::I8,
            "f32" => Element::F32,
            _ => Element::I32,
        }
    }

    /// Codes of the input's type, except where real numbers come out.
    fn of_operator(case: &Case) -> Element {
        match (case.operator, case.input.is_signed()) {
            (Operator::Dequantize, _) => Element::F32,
            (_, true) => Element::I8,
            (_, false) => Element::U8,
        }
    }

    fn size(self) -> usize {
        match self {
            Element::U8 | Element::I8 => 1,
            Element::I32 | Element::F32 => 4,
        }
    }

    fn output(self, bytes: &mut [u8]) -> Output<'_> {
        match self {
            Element::U8 => Output::U8(bytes),
            Element::I8 => Output::I8(bytemuck::cast_slice_mut(bytes)),
            Element::I32 => Output::I32(bytemuck::cast_slice_mut(bytes)),
            Element::F32 => Output::F32(bytemuck::cast_slice_mut(bytes)),
        }
    }

    /// The bits of every element; integers as an `i32`.
    fn bits(self, bytes: &[u8]) -> Vec<u32> {
        match self {
            Element::U8 => bytes.iter().map(|&y| y.into()).collect(),
            Element::I8 => bytes.iter().map(|&y| y as i8 as u32).collect(),
            Element::I32 => bytemuck::cast_slice(bytes).to_vec(),
            Element::F32 => bytemuck::cast_slice(bytes).iter().copied().map(real_bits).collect(),
        }
    }

    fn show(self, bits: u32) -> String {
        match self {
            Element::F32 => f32::from_bits(bits).to_string(),
            Element::U8 | Element::I8 | Element::I32 => (bits as i32).to_string(),
        }
    }
}
