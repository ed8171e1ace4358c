//! Transposed convolutions against their definition, which scatters every input: the reference and every instruction
//! set.

use qexact_kernels::{Isa, TransposedPlan};
use qexact_reference::layer::LayerParts;
use qexact_reference::requantize::{Bias, F32Mul};
use qexact_reference::transposed::{self, TransposedAxis, TransposedConv, weight_from_torch};
use qexact_reference::{CodeType, Conv, Error, Input, Linear, Output, Rule};
use quickcheck::{Arbitrary, Gen, QuickCheck};

#[derive(Clone, Debug)]
struct Case {
    shape: TransposedConv,
    weight_zero_point: Vec<i32>,
    seed: u64,
}

fn pick(g: &mut Gen, range: std::ops::RangeInclusive<usize>) -> usize {
    range.start() + usize::arbitrary(g) % (range.end() - range.start() + 1)
}

impl Arbitrary for Case {
    fn arbitrary(g: &mut Gen) -> Case {
        let axis = |g: &mut Gen| loop {
            let (stride, dilation) = (pick(g, 1..=4), pick(g, 1..=3));
            let axis = TransposedAxis {
                input: pick(g, 1..=5),
                kernel: pick(g, 1..=5),
                stride,
                padding: [pick(g, 0..=4), pick(g, 0..=4)],
                output_padding: pick(g, 0..=stride.max(dilation) - 1),
                dilation,
            };
            if axis.output().is_ok() {
                return axis;
            }
        };
        let mut axes = [TransposedAxis::UNIT, axis(g), axis(g)];
        if pick(g, 0..=4) == 0 {
            axes[0] = axis(g);
        }
        let groups = pick(g, 1..=3);
        let (inputs, outputs) = if pick(g, 0..=3) == 0 { (1, 1) } else { (pick(g, 1..=9), pick(g, 1..=19)) };
        let (in_channels, out_channels) = (groups * inputs, groups * outputs);
        let shape = TransposedConv { batch: pick(g, 1..=2), in_channels, out_channels, groups, axes };
        let zero_points = [0, 1, out_channels][pick(g, 0..=2)];
        let weight_zero_point =
            (0..zero_points.max(1)).map(|_| if zero_points == 0 { 0 } else { i8::arbitrary(g).into() });
        Case { shape, weight_zero_point: weight_zero_point.collect(), seed: u64::arbitrary(g) }
    }
}

/// SplitMix64's bytes; half of them extremes.
fn bytes(seed: u64, n: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 33
    };
    (0..n)
        .map(|_| {
            let r = next();
            if r & 1 == 0 { (r >> 8) as u8 } else { [0, 255, 127, 128][(r >> 8) as usize % 4] }
        })
        .collect()
}

/// The definition: every input adds its products to the outputs that it reaches.
fn scatter(case: &Case, x: &[u8], zero_point: i32, weight: &[i8]) -> Vec<i32> {
    let TransposedConv { batch, in_channels, out_channels, groups, axes } = case.shape;
    let (inputs, outputs) = (in_channels / groups, out_channels / groups);
    let [od, oh, ow] = case.shape.output_extents().unwrap();
    let [id, ih, iw] = axes.map(|a| a.input);
    let [kd, kh, kw] = axes.map(|a| a.kernel);
    let mut y = vec![0i32; batch * od * oh * ow * out_channels];
    let target = |axis: usize, at: usize, tap: usize| {
        let a = axes[axis];
        (at * a.stride + tap * a.dilation).checked_sub(a.padding[0])
    };
    for pixel in 0..batch * id * ih * iw {
        let (n, at) = (pixel / (id * ih * iw), [pixel / (ih * iw) % id, pixel / iw % ih, pixel % iw]);
        for tap in 0..kd * kh * kw {
            let taps = [tap / (kh * kw), tap / kw % kh, tap % kw];
            let to: Option<Vec<usize>> = (0..3).map(|i| target(i, at[i], taps[i])).collect();
            let Some(to) = to.filter(|to| to[0] < od && to[1] < oh && to[2] < ow) else { continue };
            let out = ((n * od + to[0]) * oh + to[1]) * ow + to[2];
            for (c, o) in (0..in_channels).flat_map(|c| (0..outputs).map(move |o| (c, c / inputs * outputs + o))) {
                let z = case.weight_zero_point[o.min(case.weight_zero_point.len() - 1)];
                let w = i32::from(weight[(o * kd * kh * kw + tap) * inputs + c % inputs]) - z;
                y[out * out_channels + o] += (i32::from(x[pixel * in_channels + c]) - zero_point) * w;
            }
        }
    }
    y
}

#[test]
fn phases_compute_what_scattering_does() {
    #[expect(clippy::needless_pass_by_value, reason = "as quickcheck calls it")]
    fn property(case: Case) {
        let shape = &case.shape;
        let pixels: usize = shape.axes.iter().map(|a| a.input).product();
        let taps: usize = shape.axes.iter().map(|a| a.kernel).product();
        let x = bytes(case.seed, shape.batch * pixels * shape.in_channels);
        let weight = bytes(!case.seed, shape.out_channels * taps * shape.in_channels / shape.groups);
        let weight: Vec<i8> = weight.into_iter().map(|w| w as i8).collect();
        let input_zero_point = i32::from(x[0]);
        let accumulators = scatter(&case, &x, input_zero_point, &weight);
        let multiplier = (0..shape.out_channels).map(|c| 0.002 + c as f32 * 1e-4).collect();
        let mul =
            F32Mul::new(multiplier, Bias::I32((0..shape.out_channels as i32).collect()), 77, CodeType::U8).unwrap();
        let codes: Vec<u8> =
            accumulators.iter().enumerate().map(|(i, &acc)| mul.apply(acc, i % shape.out_channels) as u8).collect();
        let rules = [Rule::Accumulator, Rule::F32Mul(mul)];
        let parts = rules.each_ref().map(|rule| LayerParts {
            shape: Conv::from(Linear { rows: 1, in_features: 1, out_features: 1 }),
            input: CodeType::U8,
            input_zero_point,
            weight: &weight,
            weight_zero_point: &case.weight_zero_point,
            rule,
        });
        let (mut acc, mut y) = (vec![0; accumulators.len()], vec![0; codes.len()]);
        transposed::run(shape, &parts[0], Input::U8(&x), Output::I32(&mut acc)).unwrap();
        assert_eq!(acc, accumulators, "reference");
        transposed::run(shape, &parts[1], Input::U8(&x), Output::U8(&mut y)).unwrap();
        assert_eq!(y, codes, "reference");
        for isa in Isa::available() {
            let [acc_plan, plan] = parts.map(|parts| TransposedPlan::new(shape, &parts, isa).unwrap());
            acc_plan.run(Input::U8(&x), Output::I32(&mut acc), &mut acc_plan.scratch()).unwrap();
            assert_eq!(acc, accumulators, "{isa}");
            plan.run(Input::U8(&x), Output::U8(&mut y), &mut plan.scratch()).unwrap();
            assert_eq!(y, codes, "{isa}");
            assert!(plan.run(Input::U8(&x), Output::U8(&mut y[1..]), &mut plan.scratch()).is_err());
            let mut scratch = plan.scratch();
            let refused = plan.run(Input::U8(&x), Output::U8(&mut y), &mut scratch[1..]);
            assert!(matches!(refused, Err(Error::Length { what: "scratch", .. })), "{refused:?}");
            let refused = plan.run(Input::U8(&x), Output::I32(&mut acc), &mut scratch);
            assert!(matches!(refused, Err(Error::ElementType { what: "output", .. })), "{refused:?}");
        }
    }
    QuickCheck::new().tests(400).quickcheck(property as fn(Case));
}

#[test]
fn what_is_not_a_transposed_convolution_is_refused() {
    let axis = TransposedAxis { input: 3, kernel: 3, stride: 2, padding: [1; 2], output_padding: 1, dilation: 1 };
    assert_eq!(axis.output().unwrap(), 6);
    let message = |axis: TransposedAxis| axis.output().unwrap_err().to_string();
    assert_eq!(
        message(TransposedAxis { output_padding: 2, ..axis }),
        "output padding is 2, expected less than 2, the larger of stride and dilation"
    );
    assert_eq!(
        message(TransposedAxis { padding: [4; 2], ..axis }),
        "padding of a transposed convolution is 8, expected less than 8, the outputs without it"
    );
    assert!(matches!(TransposedAxis { stride: usize::MAX, ..axis }.output(), Err(Error::TooLarge { .. })));
    assert!(message(TransposedAxis { kernel: 0, ..axis }).contains("kernel extent"));
}

#[test]
fn weights_of_torch() {
    // Two groups of two inputs and one output, two taps.
    let axis = TransposedAxis { kernel: 2, ..TransposedAxis::UNIT };
    let axes = [TransposedAxis::UNIT, TransposedAxis::UNIT, axis];
    let shape = TransposedConv { batch: 1, in_channels: 4, out_channels: 2, groups: 2, axes };
    assert_eq!(weight_from_torch(&[0, 1, 10, 11, 20, 21, 30, 31], &shape).unwrap(), [0, 10, 1, 11, 20, 30, 21, 31]);
    assert!(weight_from_torch(&[0; 7], &shape).is_err());
    assert!(weight_from_torch(&[0; 8], &TransposedConv { groups: 3, ..shape }).is_err());
}
