//! Kernels against the reference, on any layer.

use arbitrary::{Arbitrary, Result, Unstructured};
use qexact_reference::requantize::{Overflow, Rounding, ZeroPoint};
use qexact_reference::{Axis, CodeType, Conv, NarrowType};
use qexact_verify::case::{
    BiasForm, Case, Clamp, F32MulForm, F32OutForm, Kind, Operator, OtherForm, RuleForm, ZeroPoints,
};
use qexact_verify::check::{self, Options};
use qexact_verify::fill::Fill;
use std::fmt;

/// The most multiply-accumulates of a layer.
const MACS: usize = 200_000;

/// A layer of bounded cost. It shows as the line that `qexact check` takes.
pub struct Layer(pub Case);

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Checks a layer on all instruction sets of this CPU.
///
/// # Panics
/// If any of them computes anything else than the reference, or touches memory that is not its own.
pub fn run(Layer(case): Layer) {
    let line = case.to_string();
    assert_eq!(line.parse(), Ok(case), "{line}");
    let options = Options { cases: vec![case], ..Options::default() };
    match check::run(&options, |_, _| (), |_| ()) {
        Ok(summary) => assert!(summary.passed(), "{}", summary.failures.join("\n")),
        Err(error) => panic!("{error}"),
    }
}

const CODES: [CodeType; 2] = [CodeType::U8, CodeType::I8];
const FILLS: [Fill; 6] = [Fill::Full, Fill::Extremes, Fill::Cycle, Fill::Ties, Fill::Overflow, Fill::Pairs];
const ZERO_POINTS: [ZeroPoints; 3] = [ZeroPoints::Zero, ZeroPoints::One, ZeroPoints::PerChannel];
const BIASES: [BiasForm; 4] = [BiasForm::None, BiasForm::I32, BiasForm::Addend, BiasForm::Fused];
const KINDS: [Kind; 9] = [
    Kind::F32Real,
    Kind::Q31Double(Rounding::Away),
    Kind::Q31Double(Rounding::Up),
    Kind::Q31Single,
    Kind::F64(Rounding::Even, ZeroPoint::BeforeRounding),
    Kind::F64(Rounding::Away, ZeroPoint::AfterRounding),
    Kind::Pow2(Rounding::Even),
    Kind::Pow2(Rounding::Away),
    Kind::Pow2(Rounding::Up),
];

impl<'a> Arbitrary<'a> for Layer {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Layer> {
        let shape = shape(u)?;
        let input = *u.choose(&CODES)?;
        Ok(Layer(Case {
            operator: Operator::Layer,
            shape,
            input,
            input_zero_point: u.int_in_range(input.lo()..=input.hi())?,
            weight: if u.arbitrary()? { Some(*u.choose(&NarrowType::ALL)?) } else { None },
            weight_zero_points: *u.choose(&ZERO_POINTS)?,
            rule: rule(u)?,
            fill: *u.choose(&FILLS)?,
            seed: u.arbitrary::<u16>()?.into(),
            isa: None,
        }))
    }
}

fn rule(u: &mut Unstructured<'_>) -> Result<RuleForm> {
    Ok(match u.int_in_range(0..=5)? {
        0 => RuleForm::Accumulator,
        1 => RuleForm::F32Out(F32OutForm {
            per_channel: u.arbitrary()?,
            bias: u.arbitrary()?,
            fused: u.arbitrary()?,
            relu: u.arbitrary()?,
        }),
        2 | 3 => {
            let (output, clamp) = codes(u)?;
            let (kind, per_channel, bias) = (*u.choose(&KINDS)?, u.arbitrary()?, u.arbitrary()?);
            RuleForm::Other(OtherForm { kind, per_channel, bias, output, clamp })
        }
        _ => {
            let (output, clamp) = codes(u)?;
            let (bias, per_channel) = (*u.choose(&BIASES)?, u.arbitrary()?);
            let overflow = *u.choose(&[Overflow::Convert, Overflow::ClampFirst])?;
            RuleForm::F32Mul(F32MulForm { bias, per_channel, output, clamp, overflow })
        }
    })
}

/// The type of the output's codes, and which of them.
fn codes(u: &mut Unstructured<'_>) -> Result<(CodeType, Clamp)> {
    let output = *u.choose(&CODES)?;
    let clamp = match u.int_in_range(0..=2)? {
        0 => Clamp::Full,
        1 => Clamp::Relu,
        _ => {
            let lo = u.int_in_range(output.lo()..=output.hi())?;
            Clamp::Range(lo, u.int_in_range(lo..=output.hi())?)
        }
    };
    Ok((output, clamp))
}

/// A valid shape of at most [`MACS`]: each extent takes its share of what the ones before it left.
fn shape(u: &mut Unstructured<'_>) -> Result<Conv> {
    let mut left = MACS;
    let mut share = |u: &mut Unstructured<'_>, most: usize| -> Result<usize> {
        let extent = u.int_in_range(1..=most.min(left))?;
        left /= extent;
        Ok(extent)
    };
    let spatial = u.int_in_range(0..=3)?;
    let most_outputs = [1, 60, 14, 6][spatial];
    let mut axes = [Axis::UNIT; 3];
    for axis in &mut axes[3 - spatial..] {
        let (kernel, outputs) = (share(u, 7)?, share(u, most_outputs)?);
        let (stride, dilation) = (u.int_in_range(1..=3)?, u.int_in_range(1..=3)?);
        let unread = u.int_in_range(0..=stride - 1)?;
        let padded = (outputs - 1) * stride + (kernel - 1) * dilation + 1 + unread;
        let before = u.int_in_range(0..=(padded - 1).min(9))?;
        let after = u.int_in_range(0..=(padded - 1 - before).min(9))?;
        *axis = Axis { input: padded - before - after, kernel, stride, padding: [before, after], dilation };
    }
    let [most_groups, most_inputs, most_outputs] = match (spatial, u.int_in_range(0..=3)?) {
        (0, _) => [1, 1200, 140],
        (_, 0 | 1) => [1, 140, 140],
        (_, 2) => [6, 40, 40],
        // Depthwise or nearly so.
        (_, _) => [200, 1, 2],
    };
    let groups = share(u, most_groups)?;
    let (inputs, outputs) = (share(u, most_inputs)?, share(u, most_outputs)?);
    let batch = share(u, if spatial == 0 { 200 } else { 3 })?;
    Ok(Conv { batch, in_channels: groups * inputs, out_channels: groups * outputs, groups, axes })
}
