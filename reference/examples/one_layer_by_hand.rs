//! One float linear layer, two inputs, step by step to the codes that PyTorch computes:
//!
//!     cargo run -p qexact-reference --example one_layer_by_hand
//!
//! Parameters and codes are compared with what torch 2.5.1, engine fbgemm, computed for the same layer:
//! `nn.Linear(4, 3)` with the weight and bias below, prepared with `MinMaxObserver` (quint8 affine for activations,
//! qint8 symmetric for the weight), calibrated on the two inputs, converted and run on them. The integer sums, which
//! PyTorch does not show, are compared with a plain loop.

use qexact_reference::layer::LayerParts;
use qexact_reference::observer::{CodeRange, EPS, Range, affine, quantize_weights, symmetric};
use qexact_reference::preset::{Scales, WeightScale, fbgemm};
use qexact_reference::{CodeType, Error, Input, Layer, Linear, Output, Quantization, Rule};
use std::fmt::Debug;

const INPUTS: usize = 4;
const OUTPUTS: usize = 3;
const WEIGHT: [f32; OUTPUTS * INPUTS] = [
    0.5, -1.0, 0.25, 0.75, //
    -0.3, 0.2, 0.9, -0.6, //
    0.1, 0.4, -0.8, 0.05,
];
const BIAS: [f32; OUTPUTS] = [0.1, -0.2, 0.3];
const X: [f32; 2 * INPUTS] = [
    0.5, -1.0, 2.0, 0.25, //
    1.5, 0.0, -0.75, 1.0,
];

/// What PyTorch's float layer returns for the two inputs: the output observer saw these.
const Y: [f32; 2 * OUTPUTS] = [2.0375, 1.0999999, -1.6375, 1.4125, -1.9250001, 1.1];

/// What torch 2.5.1, engine fbgemm, computed.
mod pytorch {
    pub(super) const INPUT: (f64, i32) = (0.0117647061124444, 85);
    pub(super) const WEIGHT_SCALE: f64 = 0.007843137718737125;
    pub(super) const OUTPUT: (f64, i32) = (0.015539215877652168, 124);
    pub(super) const WEIGHT_CODES: [i8; 12] = [64, -127, 32, 96, -38, 25, 115, -76, 13, 51, -102, 6];
    pub(super) const INPUT_CODES: [u8; 8] = [127, 0, 255, 106, 213, 85, 21, 170];
    pub(super) const OUTPUT_CODES: [u8; 6] = [255, 196, 19, 215, 0, 195];
    pub(super) const OUTPUT_NUMBERS: [f32; 6] = [2.0356374, 1.1188235, -1.6316177, 1.4140687, -1.9268627, 1.1032844];
}

fn main() -> Result<(), Error> {
    println!("1. Ranges: the smallest and largest number, extended to hold 0 (R32, R33)");
    let [input_range, weight_range, output_range] = [Range::of(&X)?, Range::of(&WEIGHT)?, Range::of(&Y)?];
    for (what, range) in [("input", input_range), ("weight", weight_range), ("output", output_range)] {
        println!("   {what:6} {} .. {}", range.min(), range.max());
    }

    println!("2. Parameters: the range divided among the codes; weights symmetric, activations affine (R33, R34)");
    let input = affine(input_range, CodeRange::all(CodeType::U8), EPS)?;
    let weight = symmetric(weight_range, CodeRange::all(CodeType::I8), EPS)?;
    let output = affine(output_range, CodeRange::all(CodeType::U8), EPS)?;
    let numbers = |q: Quantization| (q.scale(), q.zero_point());
    expect("S_X, z_X", &[numbers(input)], &[pytorch::INPUT]);
    expect("S_W, z_W", &[numbers(weight)], &[(pytorch::WEIGHT_SCALE, 0)]);
    expect("S_Y, z_Y", &[numbers(output)], &[pytorch::OUTPUT]);

    println!("3. Weight codes: w · (1 / S_W), rounded; −1.0 is −127.5 exactly, but not as a product in f32 (R36)");
    let w = quantize_weights(&WEIGHT, OUTPUTS, &[weight], CodeRange::all(CodeType::I8))?;
    expect("q_W", &w, &pytorch::WEIGHT_CODES);

    println!(
        "4. Input codes: x · (1 / S_X), rounded, plus z_X; 0.5 is 42.5 + 85, and the tie goes to the even 42 (R2)"
    );
    let x: Vec<u8> = X.iter().map(|&x| input.quantize().apply(x) as u8).collect();
    expect("q_X", &x, &pytorch::INPUT_CODES);

    println!("5. Integer sums: Σ (q_X − z_X)(q_W − z_W), exact (R4)");
    let shape = Linear { rows: 1, in_features: INPUTS, out_features: OUTPUTS }.into();
    let run = |rule: &Rule, output: Output<'_>| {
        let (input_codes, z_x) = (input.codes(), input.zero_point());
        let layer = Layer::new(LayerParts {
            shape,
            input: input_codes,
            input_zero_point: z_x,
            weight: &w,
            weight_zero_point: &[0],
            rule,
        })?;
        layer.run(&layer.region(2)?, Input::U8(&x), output)
    };
    let mut sums = [0; 2 * OUTPUTS];
    run(&Rule::Accumulator, Output::I32(&mut sums))?;
    let mut by_hand = [0; 2 * OUTPUTS];
    for (i, sum) in by_hand.iter_mut().enumerate() {
        let (row, channel) = (i / OUTPUTS, i % OUTPUTS);
        *sum = (0..INPUTS).map(|k| (i32::from(x[row * INPUTS + k]) - 85) * i32::from(w[channel * INPUTS + k])).sum();
    }
    expect("acc", &sums, &by_hand);

    println!("6. Bias and multiplier: M = S_X·S_W / S_Y; the bias, over S_X·S_W, joins the sum in f32 (R7, R8c)");
    let weight_scale = WeightScale::PerTensor(weight.scale());
    let rule = fbgemm(Scales { input: input.scale(), weight: weight_scale, output }, Some(&BIAS), false)?;
    let scale = input.scale() as f32 * weight.scale() as f32;
    println!("   M    = {}", rule.multiplier(0));
    println!("   bias = {:?}, in units of S_X·S_W = {scale}", BIAS.map(|b| b / scale));

    println!("7. Requantize: (acc + bias) · M, rounded, plus z_Y, clamped to 0..=255 (R6)");
    println!("   real = {:?}", [0, 1, 2, 3, 4, 5].map(|i| rule.scaled(sums[i], i % OUTPUTS)));
    let mut y = [0; 2 * OUTPUTS];
    run(&Rule::F32Mul(rule), Output::U8(&mut y))?;
    expect("q_Y", &y, &pytorch::OUTPUT_CODES);

    println!("8. Dequantize: S_Y · (q_Y − z_Y), beside what the float layer returns (R3)");
    expect("y", &y.map(|code| output.dequantize(code.into())), &pytorch::OUTPUT_NUMBERS);
    println!("   float {Y:?}");
    Ok(())
}

/// Prints a step's numbers, which must be the expected ones.
fn expect<T: PartialEq + Debug>(what: &str, got: &[T], expected: &[T]) {
    println!("   {what} = {got:?}");
    assert_eq!(got, expected, "{what}");
}

#[test]
fn every_number_is_the_one_pytorch_computed() {
    main().unwrap();
}
