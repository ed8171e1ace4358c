//! Weights whose products just fit 16 bits, and those that just do not: which kernel AVX2 chooses, and that both give the
//! reference's bits on the inputs that reach the ends.

use qexact_kernels::{Isa, IsaName, Plan, choose};
use qexact_reference::layer::LayerParts;
use qexact_reference::{CodeType, Conv, Input, Layer, Linear, Output, Rule};

const EXACT: &str = "gemm_avx2_6x16";
const KERNELS: [(usize, &str); 4] = [
    (1, "gemm_avx2_maddubs_6x16"),
    (2, "gemm_avx2_maddubs2_6x16"),
    (4, "gemm_avx2_maddubs4_6x16"),
    (8, "gemm_avx2_maddubs8_6x16"),
];

fn conv(text: &str) -> Conv {
    if text.starts_with("linear") { text.parse::<Linear>().unwrap().into() } else { text.parse().unwrap() }
}

/// Whether the kernel for these weights, of the name it should have, computes the reference's accumulators.
fn agrees(shape: &Conv, input: CodeType, weight: &[i8], zero_points: &[i32], codes: &[u8], kernel: &str) {
    let Ok(isa) = Isa::new(IsaName::Avx2) else { return eprintln!("SKIPPED: this CPU does not have avx2") };
    let layer = Layer::new(LayerParts {
        shape: *shape,
        input,
        input_zero_point: input.lo() + 77,
        weight,
        weight_zero_point: zero_points,
        rule: &Rule::Accumulator,
    });
    let layer = layer.unwrap();
    let plan = Plan::new(&layer, isa).unwrap();
    assert_eq!(plan.kernel().to_string(), kernel, "{shape}");
    let signed: Vec<i8> = codes.iter().map(|&code| (code ^ 0x80) as i8).collect();
    let x = if input.is_signed() { Input::I8(&signed) } else { Input::U8(codes) };
    let region = plan.region(shape.batch).unwrap();
    let (mut got, mut want) = (vec![0; region.len()], vec![0; region.len()]);
    plan.run(&region, x, Output::I32(&mut got), &mut plan.scratch()).unwrap();
    layer.run(&region, x, Output::I32(&mut want)).unwrap();
    assert!(got == want, "{shape} {input} {kernel}");
}

/// Codes at the ends of their range, in every pair and in pairs that differ.
fn codes(len: usize) -> [Vec<u8>; 4] {
    let pattern = |pattern: [u8; 4]| (0..len).map(|i| pattern[i % 4]).collect();
    let mixed = (0..len as u32).map(|i| if i.wrapping_mul(0x9e37_79b9) >> 30 == 0 { 0 } else { 255 }).collect();
    [pattern([255; 4]), pattern([255, 0, 0, 255]), pattern([0, 255, 255, 0]), mixed]
}

/// Weights of which the pairs of every channel are these, in turn.
fn repeated(shape: &Conv, pairs: &[[i8; 2]]) -> Vec<i8> {
    let depth = shape.depth();
    let pair = |at: usize| pairs[(at / depth + at % depth / 2) % pairs.len()];
    (0..shape.weight_len()).map(|at| pair(at)[at % depth % 2]).collect()
}

#[test]
fn sums_at_the_ends_of_16_bits_are_exact() {
    for (steps, kernel) in KERNELS {
        let most = (128 / steps) as i32;
        // As many as the steps that are added reach 128 or −128 at most.
        let pairs: Vec<[i8; 2]> =
            [[most - 1, 1], [most / 2, most / 2], [1, most - 1], [-most, 0], [-most / 2, -most / 2]]
                .iter()
                .chain(&[[0, -most], [-1, 1 - most], [most / 2, -most], [most - 1, -most]])
                .map(|pair| pair.map(|w| w as i8))
                .collect();
        for (shape, signed) in [
            ("linear m1k64n40", false),
            ("linear m2k96n7", true),
            ("linear m7k768n33", false),
            ("linear m13k70n16", true),
            ("conv ic64oc20ih5kh1", false),
            ("conv ic64oc20ih5kh1", true),
            ("conv ic34oc17ih6kh3ph1", false),
            ("conv ic34oc17ih6kh3ph1", true),
            ("conv n2ic16oc24ih9kh2sh2ph1:0", true),
            ("conv ic36oc20ih7kh3ph2dh2", false),
            ("conv ic72oc48g2ih5kh3ph1", true),
            ("conv ic18oc9id3kd2pd1ih5kh2ph1", false),
        ] {
            let shape = conv(shape);
            let input = if signed { CodeType::I8 } else { CodeType::U8 };
            for codes in codes(shape.batch * shape.image_len()) {
                let weight = repeated(&shape, &pairs);
                for zero_points in [&[0][..], &[-128], &[127]] {
                    agrees(&shape, input, &weight, zero_points, &codes, kernel);
                }
            }
        }
    }
}

#[test]
fn one_weight_beyond_is_left_to_fewer_steps_or_the_exact_kernel() {
    for (shape, signed) in [("linear m6k256n24", false), ("conv ic64oc20ih6kh3ph1", true)] {
        let (shape, input) = (conv(shape), if signed { CodeType::I8 } else { CodeType::U8 });
        let codes = &codes(shape.batch * shape.image_len())[0];
        let mut fewer = EXACT;
        for (steps, kernel) in KERNELS {
            let half = 64 / steps as i8;
            for sign in [1, -1] {
                let mut weight = vec![sign * half; shape.weight_len()];
                agrees(&shape, input, &weight, &[0], codes, kernel);
                let at = shape.weight_len() / 2 + 9;
                weight[at] += sign;
                agrees(&shape, input, &weight, &[0], codes, fewer);
            }
            fewer = kernel;
        }
    }
}

#[test]
fn narrow_codes_and_short_runs_are_part_of_the_proof() {
    let name = |shape: &str, input: CodeType, w: i8| {
        let shape = conv(shape);
        let weight = vec![w; shape.weight_len()];
        let (weight_zero_point, rule) = (&[0][..], &Rule::Accumulator);
        let parts = LayerParts { shape, input, input_zero_point: 0, weight: &weight, weight_zero_point, rule };
        choose(IsaName::Avx2, &shape).for_layer(&Layer::new(parts).unwrap()).to_string()
    };
    let bits = |bits| CodeType::new(bits, false).unwrap();
    for (shape, input, weight, kernel) in [
        ("linear m4k64n8", CodeType::U8, 127, EXACT),
        ("linear m4k64n8", bits(7), 127, KERNELS[0].1),
        ("linear m4k64n8", bits(4), 127, KERNELS[3].1),
        ("linear m4k64n8", CodeType::new(4, true).unwrap(), 127, EXACT),
        // No more steps than a run has.
        ("linear m4k12n8", CodeType::U8, 1, KERNELS[2].1),
        ("linear m4k7n8", CodeType::U8, 1, KERNELS[1].1),
        ("linear m4k4n8", CodeType::U8, 1, KERNELS[0].1),
        // What fills up quads would cost more than they gain.
        ("linear m4k1n8", CodeType::U8, 1, EXACT),
        ("linear m4k5n8", CodeType::U8, 1, EXACT),
        ("conv ic3oc32ih9kh3", CodeType::U8, 64, EXACT),
        ("conv ic3oc32ih9kh3", CodeType::U8, 32, KERNELS[1].1),
        ("conv ic3oc32ih9kh7", CodeType::U8, 64, KERNELS[0].1),
        // Other kinds of kernels have no such way.
        ("conv ic32oc32g32ih9kh3", CodeType::U8, 1, "depthwise_rows_avx2_2x32"),
        ("conv ic32oc32g8ih9kh3", CodeType::U8, 1, "grouped_rows_avx2_7x16_4_3x3"),
    ] {
        assert_eq!(name(shape, input, weight), kernel, "{shape} {input} {weight}");
    }
    let shape = conv("linear m4k64n8");
    let weight = vec![1; shape.weight_len()];
    let (weight_zero_point, rule, input) = (&[0][..], &Rule::Accumulator, CodeType::U8);
    let parts = LayerParts { shape, input, input_zero_point: 0, weight: &weight, weight_zero_point, rule };
    let layer = Layer::new(parts).unwrap();
    for (isa, kernel) in [
        (IsaName::AvxVnni, "gemm_avx_vnni_6x16"),
        (IsaName::Avx512Vnni, "gemm_avx512_vnni_12x32"),
        (IsaName::Reference, "reference"),
    ] {
        assert_eq!(choose(isa, &shape).for_layer(&layer).to_string(), kernel);
    }
}
