//! Operators that move codes, or recode them on the way.

use super::Context;
use crate::document::{self, Memory, Rule};
use crate::error::LoadError;
use crate::network::{Concat, Operator, Recoding};
use qexact_reference::Quantization;
use qexact_reference::add::Form;
use qexact_reference::concat::{aten_channels_last, aten_contiguous};
use qexact_reference::recode::Recode;
use qexact_reference::table::Table;

/// Of an input of a concatenation that is channels last, the first channels up to a multiple of this follow the
/// vector body's formula, those that are left the scalar tail's.
const CONCAT_GRANULE: usize = 8;

impl Context<'_> {
    pub(super) fn reshape(&self) -> Result<Operator, LoadError> {
        let document::NoAttributes {} = self.attributes()?;
        self.no_rule()?;
        self.expect_same_quantization()?;
        let (from, to) = (self.input.sample_len(), self.output.sample_len());
        if from != to {
            return Err(self.wrong("number of elements of the output", to, from));
        }
        Ok(Operator::Reshape)
    }

    pub(super) fn permute(&self) -> Result<Operator, LoadError> {
        let document::Permute { axes } = self.attributes()?;
        self.no_rule()?;
        self.expect_same_quantization()?;
        let rank = self.input.shape.len();
        let mut sorted = axes.clone();
        sorted.sort_unstable();
        if sorted != (0..rank).collect::<Vec<_>>() {
            return Err(self.wrong("`axes`", format!("{axes:?}"), format!("each of 0..{rank} once")));
        }
        self.expect_output_shape(&axes.iter().map(|&axis| self.input.shape[axis]).collect::<Vec<_>>())?;
        Ok(Operator::Permute(axes))
    }

    pub(super) fn slice(&self) -> Result<Operator, LoadError> {
        let document::Slice { axis, start, step } = self.attributes()?;
        self.no_rule()?;
        self.expect_same_quantization()?;
        let Some(&extent) = self.input.shape.get(axis) else {
            let expected = format!("less than {}, the axes of a sample", self.input.shape.len());
            return Err(self.wrong("`axis`", axis, expected));
        };
        if step == 0 {
            return Err(self.wrong("`step`", 0, "at least 1"));
        }
        let mut shape = self.input.shape.clone();
        shape[axis] = self.output.shape.get(axis).copied().unwrap_or(0);
        self.expect_output_shape(&shape)?;
        let last = (shape[axis] - 1).checked_mul(step).and_then(|steps| steps.checked_add(start));
        if last.is_none_or(|last| last >= extent) {
            let got = format!("{start} with {} steps of {step}", shape[axis] - 1);
            return Err(self.wrong("`start`", got, format!("a last index of less than {extent}")));
        }
        Ok(Operator::Slice { axis, start, step })
    }

    pub(super) fn concat(&self) -> Result<Operator, LoadError> {
        let document::Concat { axis } = self.attributes()?;
        self.expect_one_type()?;
        let mut shape = self.input.shape.clone();
        if axis >= shape.len() {
            let expected = format!("less than {}, the axes of a sample", shape.len());
            return Err(self.wrong("`axis`", axis, expected));
        }
        shape[axis] = 0;
        for input in self.inputs {
            let mut others = input.shape.clone();
            let extent = others.get_mut(axis).map(|extent| std::mem::replace(extent, shape[axis]));
            match extent {
                Some(extent) if others == shape => shape[axis] += extent,
                _ => {
                    let got = format!("{:?} (`{}`)", input.shape, input.name);
                    let expected = format!("{:?} except along axis {axis}", self.input.shape);
                    return Err(self.wrong("shape of an input", got, expected));
                }
            }
        }
        self.expect_output_shape(&shape)?;
        let channels_last = match self.rule()? {
            Rule::Concat { memory: Memory::ChannelsLast } if axis == 0 && shape.len() == 3 => true,
            Rule::Concat { memory: Memory::ChannelsLast } => {
                let got = format!("channels_last along axis {axis} of {} axes", shape.len());
                return Err(self.wrong(
                    "`memory` of the rule",
                    got,
                    "contiguous, or axis 0 of [channels, height, width]",
                ));
            }
            Rule::Concat { memory: Memory::Contiguous } => false,
            rule => return self.wrong_rule(&rule, "concat"),
        };
        let y = self.codes(self.output)?;
        let table = |x: Quantization, recode: Recode| Table::new(x.codes(), |q| recode.apply(q));
        let mut recodings = Vec::new();
        for input in self.inputs {
            let (x, extent) = (self.codes(input)?, input.shape[axis]);
            recodings.push(if channels_last {
                let [body, tail] = [Form::Body, Form::Tail].map(|form| table(x, aten_channels_last(x, y, form)));
                Recoding { body_len: extent / CONCAT_GRANULE * CONCAT_GRANULE, body, tail }
            } else {
                let every = table(x, aten_contiguous(x, y));
                Recoding { body_len: usize::MAX, body: every.clone(), tail: every }
            });
        }
        Ok(Operator::Concat(Concat { axis, channels_last, recodings }))
    }
}
