//! Presets on scales that tell their formulas from others.

use super::*;
use crate::activation::Activation;
use crate::float::round_ties_even;
use crate::requantize::{F32Real, FixedPoint, Overflow, RealOutput, Rounding, Sum, ZeroPoint};
use crate::{CodeType, Conv, Linear};

fn scales(input: f64, weight: WeightScale<'_>, output: f64) -> Scales<'_> {
    Scales { input, weight, output: Quantization::new(output, 5, CodeType::I8).unwrap() }
}

/// The first of some scales that no f32 holds with which two formulas differ.
fn first<T: PartialEq + core::fmt::Debug>(formula: impl Fn(f64) -> T, other: impl Fn(f64) -> T) -> f64 {
    (1..1000).map(|i| 0.0012345678901 * f64::from(i)).find(|&s| formula(s) != other(s)).expect("they differ somewhere")
}

const S_W: f64 = 0.013;
const S_Y: f64 = 0.7;
const ONE: WeightScale<'_> = WeightScale::PerTensor(S_W);

#[test]
fn fbgemm_divides_and_qnnpack_multiplies_with_the_reciprocal() {
    let fb = |s| fbgemm(scales(s, ONE, S_Y), None, false).unwrap().multiplier(0);
    let qnn = |s| qnnpack(scales(s, ONE, S_Y), None, false).unwrap().multiplier(0);
    let s = first(fb, qnn);
    assert_eq!(fb(s), s as f32 * S_W as f32 / S_Y as f32);
    assert_eq!(qnn(s), S_W as f32 * s as f32 * (1.0 / S_Y as f32));
    let ort = |s| ort(scales(s, ONE, S_Y), None).unwrap().multiplier(0);
    assert_eq!(ort(s), fb(s));
    assert!(qnnpack(scales(1e-30, WeightScale::PerTensor(1e-10), 1.0), None, false).is_err());
}

#[test]
fn qnnpack_rounds_biases_to_even_and_saturates() {
    use crate::requantize::Bias;
    let bias = [0.25, 0.75, -0.25, 3e30, -3e30, f32::NAN];
    let rule = qnnpack(scales(0.5, WeightScale::PerTensor(1.0), 1.0), Some(&bias), false).unwrap();
    assert_eq!(*rule.bias(), Bias::I32([0, 2, 0, i32::MAX, i32::MIN, i32::MIN].into()));
    let two = [1.0; 2];
    assert!(qnnpack(scales(0.5, WeightScale::PerChannel(&two), 1.0), Some(&bias), false).is_err());
}

#[test]
fn onednn_inverts_scales_twice() {
    let of = |rule: F32Real| match rule.output {
        RealOutput::Codes { multiplier, .. } => (rule.scale[0], multiplier),
        RealOutput::Reals => panic!("codes"),
    };
    let channel = [S_W];
    let plain = |s| of(pt2e(scales(s, ONE, S_Y), None, None).unwrap());
    let conv = |s| of(onednn_conv(scales(s, ONE, S_Y), None, false).unwrap());
    let tensor = |s_w| of(onednn_linear(scales(0.5, WeightScale::PerTensor(s_w), S_Y), None, false).unwrap());
    let channels = |s_w| of(onednn_linear(scales(0.5, WeightScale::PerChannel(&[s_w]), S_Y), None, false).unwrap());
    let conv_w = |s_w| of(onednn_conv(scales(0.5, WeightScale::PerTensor(s_w), S_Y), None, false).unwrap());
    let s = first(plain, conv);
    assert_eq!(plain(s), (s as f32 * channel[0] as f32, 1.0 / S_Y as f32));
    assert_eq!(conv(s).0, 1.0 / (1.0 / s) as f32 * S_W as f32);
    let s = first(tensor, channels);
    assert_eq!(tensor(s).0, 0.5 * (1.0 / (1.0 / s) as f32));
    assert_eq!(channels(s).0, 0.5 * (1.0 / (1.0 / s as f32)));
    first(channels, conv_w);
    let s = first(
        |s| onednn_sum(s, 0, CodeType::U8).unwrap(),
        |s| Sum::Codes { scale: s as f32, zero_point: 0, codes: CodeType::U8 },
    );
    let want = Sum::Codes { scale: 1.0 / (1.0 / s as f32), zero_point: 0, codes: CodeType::U8 };
    assert_eq!(onednn_sum(s, 0, CodeType::U8), Ok(want));
}

#[test]
fn x86_picks_by_groups_and_zero_points() {
    let conv = |groups| Conv { groups, ..Conv::from(Linear { rows: 1, in_features: groups, out_features: groups }) };
    assert!(x86_takes_onednn(&conv(100), &[0, 0]) && !x86_takes_onednn(&conv(101), &[0]));
    assert!(!x86_takes_onednn(&conv(1), &[0, 1]));
}

#[test]
fn tflite_multipliers_are_f64_quotients_but_for_ruy_fully_connected() {
    let conv = |s| tflite_ruy(scales(s, ONE, S_Y), None, Activation::None).unwrap().multiplier;
    let full = |s| tflite_ruy_fully_connected(scales(s, ONE, S_Y), None, Activation::None).unwrap().multiplier;
    let rndnu = |s| xnnpack_rndnu(scales(s, ONE, S_Y), None, Activation::None).unwrap().multiplier;
    let s = first(conv, full);
    let [s_x, s_w, s_y] = [s, S_W, S_Y].map(|s| s as f32);
    let quotient = f64::from(s_x) * f64::from(s_w) / f64::from(s_y);
    assert_eq!(conv(s), [FixedPoint::nearest(quotient).unwrap()]);
    assert_eq!(full(s), [FixedPoint::nearest(f64::from(s_x * s_w) / f64::from(s_y)).unwrap()]);
    assert_eq!(rndnu(s), [FixedPoint::nearest(f64::from(s_x * s_w / s_y)).unwrap()]);
    assert_eq!(rndnu(s)[0].mantissa % 128, 0, "24 bits");
    let channel = [S_W];
    let each = scales(s, WeightScale::PerChannel(&channel), S_Y);
    assert_eq!(tflite_ruy_fully_connected(each, None, Activation::None).unwrap().multiplier, conv(s));
    let exact = tflite_reference_fully_connected(each, None, Activation::None).unwrap();
    assert_eq!(exact.multiplier, [quotient]);
}

#[test]
fn every_preset_has_its_rounding() {
    let (s, none) = (scales(0.1, ONE, S_Y), Activation::None);
    assert_eq!(tflite_reference(s, None, none).unwrap().last, Rounding::Away);
    assert_eq!(tflite_ruy(s, None, none).unwrap().last, Rounding::Up);
    assert_eq!(tflite_ruy_fully_connected(s, None, none).unwrap().last, Rounding::Up);
    assert_eq!(paper(s, None, false).unwrap().last, Rounding::Away);
    assert_eq!(brevitas(scales(0.5, WeightScale::PerTensor(0.5), 1.0), None).unwrap().rounding, Rounding::Even);
    let full = tflite_reference_fully_connected(s, None, none).unwrap();
    assert_eq!((full.rounding, full.zero_point), (Rounding::Away, ZeroPoint::AfterRounding));
    let onnx = onnx_reference(s, None).unwrap();
    assert_eq!((onnx.rounding, onnx.zero_point), (Rounding::Even, ZeroPoint::BeforeRounding));
    let single = tflite_single(s, None, none).unwrap();
    assert_eq!(single.multiplier, tflite_reference(s, None, none).unwrap().multiplier);
    assert_eq!(fbgemm(s, None, false).unwrap().overflow_mode(), Overflow::Convert);
    assert_eq!(qnnpack(s, None, false).unwrap().overflow_mode(), Overflow::Convert);
    assert_eq!(ort(s, None).unwrap().overflow_mode(), Overflow::ClampFirst);
    assert_eq!(xnnpack(s, None, none).unwrap().overflow_mode(), Overflow::ClampFirst);
}

#[test]
fn activations_bound_codes() {
    let range = |activation, s_y| tflite_reference(scales(0.1, ONE, s_y), None, activation).unwrap().codes.range();
    assert_eq!(range(Activation::None, 0.1), [-128, 127]);
    assert_eq!(range(Activation::Relu, 0.1), [5, 127]);
    assert_eq!(range(Activation::Relu6, 0.1), [5, 65]);
    assert_eq!(range(Activation::Relu6, 4.0), [5, 7], "1.5 goes away from zero");
    assert_eq!(range(Activation::Relu6, 1e-9), [5, 127]);
    let halves = scales(0.1, ONE, 4.0);
    assert_eq!(xnnpack(halves, None, Activation::Relu6).unwrap().codes.range(), [5, 6], "6.5 goes to even");
    assert_eq!(xnnpack_rndnu(halves, None, Activation::Relu6).unwrap().codes.range(), [5, 6]);
}

#[test]
fn multipliers_out_of_reach_are_refused() {
    let at = |s_x, s_y| scales(s_x, WeightScale::PerTensor(1.0), s_y);
    assert!(paper(at(0.5, 1.0), None, true).is_ok());
    assert!(paper(at(1.0, 1.0), None, true).is_err());
    assert!(tflite_reference(at(1e30, 1e-5), None, Activation::None).is_err());
    assert!(ort(at(-1.0, 1.0), None).is_err() && onnx_reference(at(f64::NAN, 1.0), None).is_err());
}

#[test]
fn brevitas_shifts_by_exponents() {
    let of = |s_x, s_w, s_y| brevitas(scales(s_x, WeightScale::PerTensor(s_w), s_y), None);
    assert_eq!(of(0.125, 0.5, 4.0).unwrap().shift, [6]);
    assert_eq!(of(2.0, 4.0, 0.5).unwrap().shift, [-4]);
    for (s_x, s_w, s_y) in [(0.3, 0.5, 1.0), (0.5, 0.75, 1.0), (0.5, 0.5, 3.0)] {
        assert!(of(s_x, s_w, s_y).is_err());
    }
}

#[test]
fn fbgemm_divides_biases_of_one_scale_a_channel_and_fuses_those_of_one() {
    use crate::requantize::Bias;
    let (bias, mut apart): (Vec<f32>, _) = ((0..1000u16).map(|i| f32::from(i) * 0.00137 - 0.4).collect(), [0; 2]);
    let weights = alloc::vec![S_W; 1000];
    let s = 0.0123456789f64 as f32 * S_W as f32;
    let rule = fbgemm(scales(0.0123456789, WeightScale::PerChannel(&weights), S_Y), Some(&bias), false).unwrap();
    let Bias::Addend(addend) = rule.bias() else { panic!("{:?}", rule.bias()) };
    for (a, b) in addend.iter().zip(&bias) {
        assert_eq!(*a, b / s);
        apart[0] += u32::from(*a != b * (1.0 / s));
        apart[1] += u32::from(*a != round_ties_even(b / s));
    }
    assert!(apart.iter().all(|&n| n > 0), "{apart:?}");
    let rule = fbgemm(scales(0.0123456789, ONE, S_Y), Some(&bias), false).unwrap();
    assert_eq!(*rule.bias(), Bias::Fused { bias, reciprocal: [(1.0 / f64::from(s)) as f32].into() });
}

/// Scales that no f32 holds, a thousand of them.
fn many() -> impl Iterator<Item = f64> {
    (1..1000).map(|i| 0.0012345678901 * f64::from(i))
}

#[test]
fn qnnpack_multiplies_biases_with_the_reciprocal_of_an_f64_product() {
    use crate::requantize::Bias;
    let mut apart = [0; 2];
    for s in many() {
        let exact = (S_W * s) as f32;
        let bias: Vec<f32> = (0..100u8).map(|k| (1e5 + f32::from(k) + 0.5) * exact).collect();
        let rule = qnnpack(scales(s, ONE, S_Y), Some(&bias), false).unwrap();
        let want = |factor: f32| bias.iter().map(|b| round_ties_even(b * factor) as i32).collect::<Vec<_>>();
        let divided: Vec<_> = bias.iter().map(|b| round_ties_even(b / exact) as i32).collect();
        assert_eq!(*rule.bias(), Bias::I32(want(1.0 / exact)));
        apart[0] += u32::from(want(1.0 / exact) != want(1.0 / (S_W as f32 * s as f32)));
        apart[1] += u32::from(want(1.0 / exact) != divided);
    }
    assert!(apart.iter().all(|&n| n > 0), "{apart:?}");
}

#[test]
fn ort_multiplies_scales_before_it_divides() {
    let mut apart = 0;
    for s in many() {
        let [s_x, s_w, s_y] = [s, S_W, S_Y].map(|s| s as f32);
        let got = ort(scales(s, ONE, S_Y), None).unwrap().multiplier(0);
        assert_eq!(got, s_x * s_w / s_y);
        apart += u32::from(got != s_x * (s_w / s_y));
    }
    assert!(apart > 0);
}

#[test]
fn onednn_inverts_scales_of_input_and_output_twice() {
    let of = |rule: F32Real| match rule.output {
        RealOutput::Codes { multiplier, .. } => (rule.scale[0], multiplier),
        RealOutput::Reals => panic!("codes"),
    };
    let twice = |s: f64| 1.0 / (1.0 / s) as f32;
    let mut apart = [0; 2];
    for s in many() {
        let linear = of(onednn_linear(scales(s, ONE, s), None, false).unwrap());
        let conv = of(onednn_conv(scales(s, ONE, s), None, false).unwrap());
        assert_eq!(linear, (twice(s) * twice(S_W), 1.0 / twice(s)));
        assert_eq!(conv, (twice(s) * S_W as f32, 1.0 / twice(s)));
        apart[0] += u32::from(linear.0 != s as f32 * twice(S_W));
        apart[1] += u32::from(linear.1 != 1.0 / s as f32);
    }
    assert!(apart.iter().all(|&n| n > 0), "{apart:?}");
}

#[test]
fn dynamic_engines_have_their_forms() {
    use crate::quantizer::QuantizeForm::{Fused, Wrapping, ZeroPointFirst};
    let mut apart = 0;
    for s in many() {
        let input = Quantization::new(s, 5, CodeType::U8).unwrap();
        let of = |engine| torch_linear_dynamic(engine, input, ONE, &[1.0], false).unwrap();
        let [fb, one, qnn] = [DynamicEngine::Fbgemm, DynamicEngine::Onednn, DynamicEngine::Qnnpack].map(of);
        assert_eq!([fb.0.form, one.0.form, qnn.0.form], [Fused, ZeroPointFirst, Wrapping]);
        assert_eq!([fb.1.fused, one.1.fused, qnn.1.fused], [true, false, false]);
        let twice = 1.0 / (1.0 / s) as f32;
        assert_eq!(one.0.factor, 1.0 / twice);
        apart += u32::from(one.0.factor != 1.0 / s as f32);
    }
    assert!(apart > 0);
}
