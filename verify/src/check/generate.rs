//! Cases to check when nobody names any.

use super::operators::transposed_of;
use crate::case::{BiasForm, Case, Clamp, F32MulForm, F32OutForm, Kind, Operator, OtherForm, RuleForm, ZeroPoints};
use crate::fill::{Fill, Random};
use qexact_reference::requantize::{Overflow, Rounding, ZeroPoint};
use qexact_reference::{Axis, CodeType, Conv, NarrowType};

/// Shapes that every check runs: each way of reading the input and each kind of kernel, with every tail.
const SHAPES: [&str; 47] = [
    // Rows, panels and products just under, at and just over a tile; tails of one to three products.
    "linear m1k1n1",
    "linear m5k3n7",
    "linear m6k4n8",
    "linear m7k5n9",
    "linear m11k6n15",
    "linear m12k7n16",
    "linear m13k64n17",
    "linear m2k63n31",
    "linear m3k65n32",
    "linear m4k66n33",
    "linear m1k767n129",
    // More than a block of rows.
    "linear m97k33n47",
    // Taps one by one.
    "conv ic16oc33ih7kh3ph1",
    "conv n2ic20oc16ih5kh1",
    "conv ic36oc24ih9kh3sh2ph1:0iw8pw0:2",
    "conv ic6oc17ih9kh3dh2ph2",
    "conv ic4oc31ih6kh1sh2",
    // Kernel rows, where they lie and from a padded copy.
    "conv ic3oc32ih11kh7sh2ph3",
    "conv n2ic1oc16ih9kh5iw12",
    "conv n3ic5oc13ih4kh2ph0:1iw6kw4sw3pw2:0",
    // Windows that lie in the padding altogether.
    "conv ic18oc9ih2kh2sh2ph3",
    "conv ic2oc10ih3kh2ph4:1",
    // Windows of which little meets the image, with many channels: tap by tap.
    "conv n3ic128oc35ih3kh3ph1",
    "conv ic64oc20id2kd3pd1ih5kh3ph4dh4",
    // One and three spatial axes.
    "conv ic17oc19ih1kh1iw40kw5pw2",
    "conv n2ic2oc7ih1kh1iw33kw8sw4",
    "conv ic5oc21id4kd3pd1ih5kh3ph1",
    "conv ic16oc12id5kd2sd2ih4kh3ph1iw6kw2pw0:1",
    // Groups.
    "conv ic15oc21g3ih6kh3ph1",
    "conv ic32oc64g2ih5kh1",
    "conv ic28oc84g28ih5kh3ph1",
    // Groups whose rows have kernels: of a window that one knows, and of others.
    "conv ic36oc36g9ih6kh3iw9pw1",
    "conv ic20oc20g5ih7kh3sh2ph1",
    "conv ic20oc20g5ih5kh2iw9kw4",
    "conv ic40oc40g5ih6kh3ph1",
    "conv ic24oc24g3ih9kh3sh2ph1",
    "conv ic24oc24g3ih6kh1",
    "conv ic48oc48g3ih6kh3ph1",
    // Depthwise: taps just under, at and just over what is interleaved; blocks of channels likewise.
    "conv ic31oc31g31ih6kh3ph1",
    "conv n2ic32oc32g32ih5kh3ph1:0",
    "conv ic33oc33g33ih7kh2sh2ph1",
    "conv ic63oc63g63ih5kh1iw7kw5pw2",
    "conv ic64oc64g64ih4kh3dh2ph2",
    "conv ic65oc65g65ih9kh5sh2ph2",
    "conv ic33oc33g33ih7kh5ph2",
    "conv ic31oc31g31ih9kh3sh2ph1",
    "conv ic96oc96g96id3kd3pd1ih4kh3ph1",
];

/// Single cases that every check runs: sums of raw codes that wrap (in full tiles, whose rows
/// have one sum each), and accumulators that do.
const WRAPPING: [&str; 3] = [
    "linear m12k400003n3 x=u8 zx=255 zw=channel rule=accumulator fill=extremes seed=0",
    "linear m12k400001n3 x=i8 zx=127 zw=channel rule=f32_mul:i32:channel:i8:full:convert fill=extremes seed=1",
    "linear m2k200002n3 x=u8 zx=0 zw=channel rule=f32_out:channel:bias:fused:full fill=full seed=0",
];

/// What a kernel may store, each with every bias.
fn rules() -> Vec<RuleForm> {
    let mul = |bias, per_channel, output, clamp, overflow| {
        RuleForm::F32Mul(F32MulForm { bias, per_channel, output, clamp, overflow })
    };
    let out = |per_channel, bias, fused, relu| RuleForm::F32Out(F32OutForm { per_channel, bias, fused, relu });
    let other =
        |kind, per_channel, output, clamp| RuleForm::Other(OtherForm { kind, per_channel, bias: true, output, clamp });
    vec![
        mul(BiasForm::None, false, CodeType::U8, Clamp::Full, Overflow::Convert),
        mul(BiasForm::I32, true, CodeType::I8, Clamp::Full, Overflow::Convert),
        mul(BiasForm::Addend, true, CodeType::U8, Clamp::Relu, Overflow::Convert),
        mul(BiasForm::Fused, false, CodeType::U8, Clamp::Relu, Overflow::Convert),
        mul(BiasForm::Addend, false, CodeType::I8, Clamp::Range(-100, 90), Overflow::ClampFirst),
        mul(BiasForm::Fused, true, CodeType::I8, Clamp::Relu, Overflow::ClampFirst),
        out(true, true, true, true),
        out(true, true, false, true),
        out(false, true, false, false),
        out(true, false, false, false),
        other(KINDS[0], true, CodeType::U8, Clamp::Relu),
        other(KINDS[1], true, CodeType::I8, Clamp::Full),
        other(KINDS[3], false, CodeType::I8, Clamp::Range(-100, 90)),
        other(KINDS[5], false, CodeType::I8, Clamp::Full),
        other(KINDS[6], true, CodeType::U8, Clamp::Full),
        RuleForm::Accumulator,
    ]
}

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
const FILLS: [Fill; 6] = [Fill::Full, Fill::Extremes, Fill::Cycle, Fill::Ties, Fill::Overflow, Fill::Pairs];
const ZERO_POINTS: [ZeroPoints; 3] = [ZeroPoints::Zero, ZeroPoints::One, ZeroPoints::PerChannel];
const CODES: [CodeType; 2] = [CodeType::U8, CodeType::I8];

/// The cases that every check runs: each shape with each rule, the other choices taken in turn.
pub(super) fn always(r: &mut Random) -> Vec<Case> {
    let mut cases: Vec<Case> = WRAPPING.into_iter().map(parse).collect();
    for (i, shape) in SHAPES.into_iter().enumerate() {
        for (j, rule) in rules().into_iter().enumerate() {
            let input = CODES[(i + j / 2) % 2];
            cases.push(Case {
                rule,
                input,
                input_zero_point: zero_point(r, input),
                weight: (i + j).is_multiple_of(3).then(|| NarrowType::ALL[(i + j / 3) % 6]),
                weight_zero_points: ZERO_POINTS[(i + j) % 3],
                fill: FILLS[(i + j + j / 6) % 6],
                seed: r.bits() % 1000,
                ..parse(shape)
            });
        }
    }
    // Each operator, with both types of codes and all data.
    for (i, operator) in Operator::others().enumerate() {
        cases.extend(FILLS.into_iter().map(|fill| Case { fill, ..operation(r, operator, CODES[i % 2]) }));
        cases.extend(FILLS.into_iter().map(|fill| Case { fill, ..operation(r, operator, CODES[1 - i % 2]) }));
    }
    cases
}

/// A random case of an operator that is not a layer.
fn operation(r: &mut Random, operator: Operator, input: CodeType) -> Case {
    let groups = extent(r, 130);
    let mut shape =
        Conv { batch: 1 + r.below(3), in_channels: groups, out_channels: groups, groups, axes: [Axis::UNIT; 3] };
    match operator {
        Operator::Transposed => shape = transposed_shape(r),
        Operator::Binary => {
            (shape.batch, shape.groups) = (extent(r, 60), 1);
            shape.in_channels = extent(r, 1100);
        }
        Operator::MaxPool | Operator::AvgPool | Operator::MeanPool => {
            let dilated = operator == Operator::MaxPool;
            shape.axes[r.below(3)..].fill_with(|| pool_axis(r, dilated));
        }
        _ => {
            shape.in_channels *= operator.operands();
            shape.axes[1..].fill_with(|| Axis { input: 1 + r.below(7), ..Axis::UNIT });
        }
    }
    let rule = if operator.accumulates() { rule(r) } else { RuleForm::Accumulator };
    Case {
        operator,
        shape,
        input,
        input_zero_point: zero_point(r, input),
        weight: None,
        weight_zero_points: if operator == Operator::Transposed { r.choose(&ZERO_POINTS) } else { ZeroPoints::Zero },
        rule,
        fill: r.choose(&FILLS),
        seed: r.bits() % 1_000_000,
        isa: None,
    }
}

/// One whose phases are of bounded cost.
fn transposed_shape(r: &mut Random) -> Conv {
    loop {
        let groups = if r.once_in(3) { 1 + r.below(4) } else { 1 };
        let [in_channels, out_channels] = [(); 2].map(|()| groups * extent(r, 24));
        let mut shape = Conv { batch: 1 + r.below(2), in_channels, out_channels, groups, axes: [Axis::UNIT; 3] };
        shape.axes[1 + r.below(2)..].fill_with(|| axis(r, 5));
        // Whatever the output padding, which follows from the whole case.
        let least = transposed_of(&shape, |_| 0).phases().is_ok();
        let most = transposed_of(&shape, |below| below - 1).output_len().is_ok_and(|outputs| outputs <= OUTPUTS);
        if shape.validate().is_ok() && least && most {
            return shape;
        }
    }
}

/// An axis of windows, whose padding is at most half of one.
fn pool_axis(r: &mut Random, dilated: bool) -> Axis {
    let Axis { input, kernel, stride, dilation, .. } = axis(r, 6);
    let dilation = if dilated { dilation } else { 1 };
    let padding = [r.below(kernel / 2 + 1); 2];
    Axis { input: input + (kernel - 1) * dilation, kernel, stride, dilation, padding }
}

fn parse(line: &str) -> Case {
    line.parse().unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn zero_point(r: &mut Random, codes: CodeType) -> i32 {
    if r.once_in(4) { r.choose(&[codes.lo(), codes.hi()]) } else { r.between(codes.lo(), codes.hi()) }
}

impl Case {
    /// A random case.
    pub fn random(r: &mut Random) -> Case {
        let mut input = r.choose(&CODES);
        if r.once_in(5) {
            let others: Vec<Operator> = Operator::others().collect();
            let operator = r.choose(&others);
            return operation(r, operator, input);
        }
        if r.once_in(4) {
            input = CodeType::new(r.between(2, 7) as u8, input.is_signed()).unwrap_or(input);
        }
        Case {
            operator: Operator::Layer,
            shape: shape(r),
            input,
            input_zero_point: zero_point(r, input),
            weight: r.once_in(3).then(|| r.choose(&NarrowType::ALL)),
            weight_zero_points: r.choose(&ZERO_POINTS),
            rule: rule(r),
            fill: if r.once_in(2) { Fill::Full } else { r.choose(&FILLS) },
            seed: r.bits() % 1_000_000,
            isa: None,
        }
    }
}

fn rule(r: &mut Random) -> RuleForm {
    match r.below(10) {
        0 => RuleForm::Accumulator,
        1 | 2 => RuleForm::F32Out(F32OutForm {
            per_channel: r.once_in(2),
            bias: r.once_in(2),
            fused: r.once_in(2),
            relu: r.once_in(2),
        }),
        3 => RuleForm::Other(OtherForm {
            kind: r.choose(&KINDS),
            per_channel: r.once_in(2),
            // Accumulators on one side of 0 need one, multipliers not being negative.
            bias: !r.once_in(4),
            output: r.choose(&CODES),
            clamp: Clamp::Full,
        }),
        _ => {
            let output = r.choose(&CODES);
            let lo = r.between(output.lo(), output.hi() - 60);
            let range = Clamp::Range(lo, r.between(lo + 50, output.hi()));
            RuleForm::F32Mul(F32MulForm {
                bias: r.choose(&[BiasForm::None, BiasForm::I32, BiasForm::Addend, BiasForm::Fused]),
                per_channel: r.once_in(2),
                output,
                clamp: r.choose(&[Clamp::Full, Clamp::Relu, range]),
                overflow: r.choose(&[Overflow::Convert, Overflow::ClampFirst]),
            })
        }
    }
}

/// Multiply-accumulates of a random case; of one in forty, and outputs.
const MACS: usize = 2_000_000;
const MANY_MACS: usize = 20_000_000;
const OUTPUTS: usize = 8_000;

/// A random shape of bounded cost.
fn shape(r: &mut Random) -> Conv {
    let most = if r.once_in(40) { MANY_MACS } else { MACS };
    loop {
        let shape = any_shape(r);
        let small = |shape: &Conv| shape.macs() <= most && shape.batch * shape.pixels() * shape.out_channels <= OUTPUTS;
        if shape.validate().is_ok() && small(&shape) {
            return shape;
        }
    }
}

fn any_shape(r: &mut Random) -> Conv {
    let mut shape = Conv {
        batch: 1 + r.below(3),
        in_channels: extent(r, 130),
        out_channels: extent(r, 130),
        groups: 1,
        axes: [Axis::UNIT; 3],
    };
    match r.below(12) {
        0..3 => {
            shape.batch = extent(r, 200);
            shape.in_channels = extent(r, 1100);
        }
        3 => shape.axes[1..].fill_with(|| Axis { input: 1 + r.below(14), stride: 1 + r.below(2), ..Axis::UNIT }),
        4 => shape.axes[2] = axis(r, 60),
        5 => shape.axes.fill_with(|| axis(r, 6)),
        6 => {
            shape.groups = 2 + r.below(4);
            shape.in_channels = shape.groups * extent(r, 40);
            shape.out_channels = shape.groups * extent(r, 40);
            // Groups that have kernels of their own.
            if r.once_in(2) {
                let channels = r.choose(&[2, 4, 8, 16]);
                shape.groups = 2 + r.below(20);
                (shape.in_channels, shape.out_channels) = (shape.groups * channels, shape.groups * channels);
            }
            shape.axes[1..].fill_with(|| axis(r, 9));
        }
        // Depthwise, with one output a channel or two.
        7..9 => {
            shape.groups = extent(r, 200);
            shape.in_channels = shape.groups;
            shape.out_channels = shape.groups * if r.once_in(4) { 2 } else { 1 };
            shape.axes[r.below(2)..].fill_with(|| axis(r, 9));
        }
        // Few channels: kernel rows.
        9 => {
            shape.in_channels = 1 + r.below(7);
            shape.axes[1..].fill_with(|| axis(r, 24));
        }
        _ => shape.axes[1..].fill_with(|| axis(r, 12)),
    }
    shape
}

/// An axis whose input exceeds what its kernel needs by less than `more`.
fn axis(r: &mut Random, more: usize) -> Axis {
    let kernel = r.choose(&[1, 2, 3, 3, 3, 4, 5, 7]);
    let dilation = if r.once_in(3) { 1 + r.below(3) } else { 1 };
    let stride = if r.once_in(2) { 1 } else { 1 + r.below(3) };
    let padding = if r.once_in(2) { [kernel / 2; 2] } else { [r.below(4), r.below(4)] };
    let window = (kernel - 1) * dilation + 1;
    let input = window.saturating_sub(padding[0] + padding[1]).max(1) + r.below(more);
    Axis { input, kernel, stride, padding, dilation }
}

/// A number up to `most`: about a multiple of a tile, a prime, or any.
fn extent(r: &mut Random, most: usize) -> usize {
    const TILES: [usize; 7] = [4, 6, 8, 12, 16, 32, 64];
    const PRIMES: [usize; 14] = [1, 2, 3, 5, 7, 11, 13, 17, 29, 53, 97, 127, 241, 509];
    let extent = match r.below(4) {
        0 | 1 => r.choose(&TILES) * (1 + r.below(3)) + r.below(3) - 1,
        2 => r.choose(&PRIMES),
        _ => 1 + r.below(most),
    };
    extent.min(most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::operators::transposed;

    #[test]
    fn transposed_convolutions_have_outputs_whatever_their_output_padding() {
        let mut r = Random::new(11);
        for _ in 0..20_000 {
            let case = operation(&mut r, Operator::Transposed, CodeType::U8);
            let outputs = transposed(&case).output_len().unwrap_or_else(|error| panic!("{case}: {error}"));
            assert!((1..=OUTPUTS).contains(&outputs), "{case}");
        }
    }
}
