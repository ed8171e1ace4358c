//! Codes of fewer than 8 bits: packed weights, narrow activations and biases, powers of two, binary products.

use qexact_kernels::{BinaryLinear, Isa, IsaName, Plan, choose, choose_narrow};
use qexact_reference::layer::LayerParts;
use qexact_reference::requantize::{Bias, Codes, F32Mul, Overflow, Pow2, Rounding};
use qexact_reference::{Axis, CodeType, Conv, Input, Layer, Linear, NarrowType, Output, PackedCodes, Rule};
use quickcheck::{Arbitrary, Gen, QuickCheck};

fn pick(g: &mut Gen, range: std::ops::RangeInclusive<usize>) -> usize {
    range.start() + usize::arbitrary(g) % (range.end() - range.start() + 1)
}

/// Numbers of 64 bits from a seed (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn between(&mut self, lo: i32, hi: i32) -> i32 {
        lo + (self.next() % (hi - lo + 1) as u64) as i32
    }

    /// Half of all codes are the ends of the range.
    fn code(&mut self, lo: i32, hi: i32) -> i32 {
        match self.next() % 4 {
            0 => lo,
            1 => hi,
            _ => self.between(lo, hi),
        }
    }

    fn narrow(&mut self, codes: NarrowType) -> i8 {
        loop {
            let code = self.code(codes.lo().into(), codes.hi().into()) as i8;
            if codes.contains(code) {
                return code;
            }
        }
    }
}

#[derive(Clone, Debug)]
struct Case {
    shape: Conv,
    weight: NarrowType,
    /// Width and signedness of activations.
    input: CodeType,
    zero_points: bool,
    rule: usize,
    seed: u64,
}

impl Arbitrary for Case {
    fn arbitrary(g: &mut Gen) -> Case {
        let mut shape = Conv {
            batch: pick(g, 1..=30),
            in_channels: pick(g, 1..=150),
            out_channels: pick(g, 1..=80),
            groups: 1,
            axes: [Axis::UNIT; 3],
        };
        if bool::arbitrary(g) {
            shape.batch = pick(g, 1..=2);
            // Images and channels for which kernels leave out padding.
            let edges = pick(g, 0..=3) == 0;
            let most = if edges { 12 } else { 6 };
            for axis in &mut shape.axes[1..] {
                let kernel = pick(g, 1..=3);
                let padding = [pick(g, 0..=kernel / 2), pick(g, 0..=kernel / 2)];
                *axis = Axis {
                    input: pick(g, kernel..=kernel + most),
                    kernel,
                    padding,
                    stride: pick(g, 1..=2),
                    ..Axis::UNIT
                };
            }
            let groups = if edges { 1 } else { *g.choose(&[1, 1, 2, 3, 16]).unwrap() };
            let inputs = if edges { 32 * pick(g, 1..=4) } else { pick(g, 1..=40) };
            let outputs = pick(g, 1..=40);
            let (inputs, outputs) = if groups == 16 { (1, 1) } else { (inputs, outputs) };
            (shape.groups, shape.in_channels, shape.out_channels) = (groups, groups * inputs, groups * outputs);
        }
        Case {
            shape,
            weight: *g.choose(&NarrowType::ALL).unwrap(),
            input: CodeType::new(pick(g, 2..=8) as u8, bool::arbitrary(g)).unwrap(),
            zero_points: bool::arbitrary(g),
            rule: pick(g, 0..=3),
            seed: u64::arbitrary(g),
        }
    }
}

impl Case {
    fn rule(&self, r: &mut Random) -> Rule {
        let channels = self.shape.out_channels;
        let bits = r.between(2, 8) as u8;
        let output = CodeType::new(bits, r.next().is_multiple_of(2)).unwrap();
        let codes = Codes::new(r.between(output.lo(), output.hi()), output).unwrap();
        match self.rule {
            0 => Rule::Accumulator,
            // A bound of the accumulators that narrow codes alone prove.
            1 => {
                let bias = Bias::I32((0..channels).map(|_| r.between(-32768, 32767)).collect());
                let mul = F32Mul::new(vec![0.01], bias, codes.zero_point(), output).unwrap();
                Rule::F32Mul(mul.overflow(Overflow::ClampFirst))
            }
            _ => {
                let shift = (0..channels).map(|_| r.between(-31, 40)).collect();
                let bias = (0..channels).map(|_| r.between(-32768, 32767)).collect();
                let rounding = [Rounding::Even, Rounding::Away, Rounding::Up][r.next() as usize % 3];
                Rule::Pow2(Pow2 { shift, bias, rounding, codes })
            }
        }
    }

    fn agrees(&self) -> bool {
        let mut r = Random(self.seed);
        let weight: Vec<i8> = (0..self.shape.weight_len()).map(|_| r.narrow(self.weight)).collect();
        let zero_points: Vec<i32> = match self.zero_points {
            true => (0..self.shape.out_channels).map(|_| r.narrow(self.weight).into()).collect(),
            false => vec![0],
        };
        let input: Vec<u8> = (0..self.shape.batch * self.shape.image_len())
            .map(|_| r.code(self.input.lo(), self.input.hi()) as u8)
            .collect();
        let signed: Vec<i8> = input.iter().map(|&x| x as i8).collect();
        let input = if self.input.is_signed() { Input::I8(&signed) } else { Input::U8(&input) };
        let rule = self.rule(&mut r);
        let parts = LayerParts {
            shape: self.shape,
            input: self.input,
            input_zero_point: r.between(self.input.lo(), self.input.hi()),
            weight: &weight,
            weight_zero_point: &zero_points,
            rule: &rule,
        };
        let layer = Layer::new(parts).unwrap();
        let all = layer.region(self.shape.batch).unwrap();
        let want = outputs(&rule, all.len(), |y| layer.run(&all, input, y).unwrap());
        let packed = PackedCodes::pack(self.weight, self.shape.depth(), &weight).unwrap();
        Isa::available().all(|isa| {
            let plan = Plan::from_packed(&LayerParts { weight: &[], ..parts }, &packed, isa).unwrap();
            let got = outputs(&rule, all.len(), |y| plan.run(&all, input, y, &mut plan.scratch()).unwrap());
            got == want || panic!("{isa} {}: {self:?}", plan.kernel())
        })
    }
}

/// What `f` writes, as i64.
fn outputs(rule: &Rule, len: usize, f: impl FnOnce(Output<'_>)) -> Vec<i64> {
    match rule.element_type() {
        "u8" => {
            let mut y = vec![0x5a; len];
            f(Output::U8(&mut y));
            y.into_iter().map(i64::from).collect()
        }
        "i8" => {
            let mut y = vec![0x5a; len];
            f(Output::I8(&mut y));
            y.into_iter().map(i64::from).collect()
        }
        _ => {
            let mut y = vec![0x5a; len];
            f(Output::I32(&mut y));
            y.into_iter().map(i64::from).collect()
        }
    }
}

#[test]
fn layers_with_packed_weights_equal_the_reference() {
    QuickCheck::new().tests(1500).quickcheck((|case| case.agrees()) as fn(Case) -> bool);
}

/// Every remainder of what a step, a quad and a panel hold, for one row and for tiles of rows.
#[test]
fn every_tail_of_every_width() {
    for weight in NarrowType::ALL {
        for in_channels in 1..=70 {
            for (batch, out_channels) in [(1, 33), (2, 16), (5, 49), (13, 7)] {
                let shape = Linear { rows: batch, in_features: in_channels, out_features: out_channels }.into();
                let (input, zero_points) = (CodeType::U8, in_channels % 3 == 0);
                assert!(Case { shape, weight, input, zero_points, rule: 0, seed: in_channels as u64 }.agrees());
            }
        }
    }
}

#[test]
fn packed_weights_take_less_memory_where_a_kernel_takes_them_apart() {
    let shape = Conv::from(Linear { rows: 1, in_features: 768, out_features: 64 });
    let rule = Rule::Accumulator;
    for (codes, name) in [
        (NarrowType::I4, "gemm4_avx512_vnni_12x32"),
        (NarrowType::Ternary, "gemm2_avx512_vnni_12x32"),
        (NarrowType::Binary, "gemm1_avx512_vnni_12x32"),
    ] {
        assert_eq!(choose_narrow(IsaName::Avx512Vnni, &shape, codes).to_string(), name);
        let weight = PackedCodes::pack(codes, 768, &[1; 768 * 64]).unwrap();
        let parts = LayerParts {
            shape,
            input: CodeType::U8,
            input_zero_point: 0,
            weight: &[],
            weight_zero_point: &[0],
            rule: &rule,
        };
        for isa in Isa::available().filter(|isa| isa.name() == IsaName::Avx512Vnni) {
            let plan = Plan::from_packed(&parts, &weight, isa).unwrap();
            assert_eq!(plan.weight_bytes(), 768 * 64 * codes.bits() / 8);
        }
        let short = PackedCodes::pack(codes, 768, &[1; 768 * 63]).unwrap();
        let error = Plan::from_packed(&parts, &short, Isa::REFERENCE).err().unwrap();
        assert_eq!(error.to_string(), "rows of packed weights is 63, expected 64 (one an output channel)");
        let short = PackedCodes::pack(codes, 767, &[1; 767 * 64]).unwrap();
        assert!(Plan::from_packed(&parts, &short, Isa::REFERENCE).is_err());
    }
    // Binary weights have no 0 to fill up a quad of codes; depthwise layers are none for a matrix kernel.
    let name = |shape: &str, codes| choose_narrow(IsaName::Avx512Vnni, &shape.parse().unwrap(), codes).to_string();
    assert_eq!(name("conv ic3oc16ih8kh3", NarrowType::Binary), "gemm_avx512_vnni_12x32");
    assert_eq!(name("conv ic3oc16ih8kh3", NarrowType::I2), "gemm2_avx512_vnni_12x32");
    let depthwise = "conv ic32oc32g32ih8kh3ph1";
    assert_eq!(name(depthwise, NarrowType::I4), choose(IsaName::Avx512Vnni, &depthwise.parse().unwrap()).to_string());
}

#[test]
fn codes_of_activations_that_are_too_wide_are_refused() {
    let rule = Rule::Accumulator;
    for (input, x, want) in [
        (CodeType::new(4, false).unwrap(), vec![15, 0, 16, 3], "input 2 is 16, expected a value in 0..=15"),
        (CodeType::new(2, true).unwrap(), vec![1, 0xfe, 0, 0x80], "input 3 is -128, expected a value in -2..=1"),
    ] {
        let parts = LayerParts {
            shape: Linear { rows: 2, in_features: 2, out_features: 1 }.into(),
            input,
            input_zero_point: 0,
            weight: &[1, 1],
            weight_zero_point: &[0],
            rule: &rule,
        };
        let signed: Vec<i8> = x.iter().map(|&x| x as i8).collect();
        let x = if input.is_signed() { Input::I8(&signed) } else { Input::U8(&x) };
        let layer = Layer::new(parts).unwrap();
        let all = layer.region(2).unwrap();
        for isa in Isa::available() {
            let plan = Plan::new(&layer, isa).unwrap();
            let run = |region: &_, y: &mut [i32]| plan.run(region, x, Output::I32(y), &mut plan.scratch());
            assert_eq!(run(&all, &mut [0; 2]).unwrap_err().to_string(), want, "{isa}");
            // The first row sees only codes.
            let first = qexact_reference::Region { rows: 0..1, channels: 0..1 };
            assert!(run(&first, &mut [0]).is_ok());
        }
    }
}

/// Shifts to the left and to the right, and biases of 16 bits, by hand.
#[test]
fn powers_of_two_either_way() {
    let codes = Codes::new(-3, CodeType::I8).unwrap();
    let bias: Vec<i32> = [-7i16, 100, i16::MIN].map(i32::from).to_vec();
    let rule = Rule::Pow2(Pow2 { shift: vec![-2, 3, 9], bias, rounding: Rounding::Even, codes });
    let parts = LayerParts {
        shape: Linear { rows: 1, in_features: 2, out_features: 3 }.into(),
        input: CodeType::U8,
        input_zero_point: 0,
        weight: &[1, 2, 3, 4, 5, 6],
        weight_zero_point: &[0],
        rule: &rule,
    };
    let layer = Layer::new(parts).unwrap();
    for isa in Isa::available() {
        let plan = Plan::new(&layer, isa).unwrap();
        let mut y = [0; 3];
        plan.run(&plan.region(1).unwrap(), Input::U8(&[4, 6]), Output::I8(&mut y), &mut plan.scratch()).unwrap();
        // (16 − 7) · 4, (36 + 100) / 8, (56 − 32768) / 512 = −63.9; less 3.
        assert_eq!(y, [33, 14, -67], "{isa}");
    }
}

#[derive(Clone, Debug)]
struct Binary {
    rows: usize,
    in_features: usize,
    out_features: usize,
    seed: u64,
}

impl Arbitrary for Binary {
    fn arbitrary(g: &mut Gen) -> Binary {
        let most = *g.choose(&[70, 300, 2200]).unwrap();
        let (rows, in_features, out_features) = (pick(g, 1..=70), pick(g, 1..=most), pick(g, 1..=70));
        Binary { rows, in_features, out_features, seed: u64::arbitrary(g) }
    }
}

impl Binary {
    fn agrees(&self) -> bool {
        let mut r = Random(self.seed);
        // Sometimes all products are −1, which fills every count.
        let opposite = self.seed.is_multiple_of(4);
        let mut codes = |n: usize, all: i8| -> Vec<i8> {
            (0..n).map(|_| if opposite { all } else { r.narrow(NarrowType::Binary) }).collect()
        };
        let (x, weight) = (codes(self.rows * self.in_features, 1), codes(self.in_features * self.out_features, -1));
        let codes = Codes::new(5, CodeType::new(4, false).unwrap()).unwrap();
        let pow2 = Pow2 { shift: vec![2], bias: vec![3], rounding: Rounding::Up, codes };
        for rule in [Rule::Accumulator, Rule::Pow2(pow2)] {
            // The products themselves, by the rule of every layer.
            let layer = Layer::new(LayerParts {
                shape: Linear { rows: self.rows, in_features: self.in_features, out_features: self.out_features }
                    .into(),
                input: CodeType::I8,
                input_zero_point: 0,
                weight: &weight,
                weight_zero_point: &[0],
                rule: &rule,
            })
            .unwrap();
            let pack = |codes: &[i8]| PackedCodes::pack(NarrowType::Binary, self.in_features, codes).unwrap();
            let (x, packed) = (pack(&x), pack(&weight));
            let rows = self.rows / 3..self.rows;
            let region = qexact_reference::Region { rows: rows.clone(), channels: 0..self.out_features };
            let want = outputs(&rule, region.len(), |y| layer.run(&region, Input::I8(&x.unpack()), y).unwrap());
            for isa in Isa::available() {
                let layer = BinaryLinear::new(&packed, &rule, isa).unwrap();
                let mut scratch = vec![0x5a5a; layer.scratch_len()];
                let run = |y: Output<'_>| layer.run(rows.clone(), &x, y, &mut scratch).unwrap();
                assert_eq!(outputs(&rule, region.len(), run), want, "{isa} {}", layer.kernel());
            }
        }
        true
    }
}

#[test]
fn binary_layers_equal_the_reference() {
    QuickCheck::new().tests(300).quickcheck((|case| case.agrees()) as fn(Binary) -> bool);
    for in_features in 1..=130 {
        Binary { rows: 1 + in_features % 9, in_features, out_features: 1 + in_features % 37, seed: 1 }.agrees();
    }
}

#[test]
fn bad_binary_calls_are_refused() {
    let binary = |len: usize, n: usize| PackedCodes::pack(NarrowType::Binary, len, &vec![1; n]).unwrap();
    let ternary = PackedCodes::pack(NarrowType::Ternary, 3, &[1; 6]).unwrap();
    for isa in Isa::available() {
        let new = |weight: &PackedCodes| BinaryLinear::new(weight, &Rule::Accumulator, isa);
        assert_eq!(new(&ternary).err().unwrap().to_string(), "weight holds ternary, expected binary");
        assert!(new(&binary(3, 0)).is_err(), "no channels");
        let layer = new(&binary(3, 6)).unwrap();
        let run = |rows, x: &PackedCodes, y: &mut [i32], scratch: &mut [i32]| {
            layer.run(rows, x, Output::I32(y), scratch).err().map(|e| e.to_string()).unwrap_or_default()
        };
        let (mut scratch, x) = (layer.scratch(), binary(3, 6));
        assert_eq!(run(0..2, &x, &mut [0; 4], &mut scratch), "");
        assert_eq!(run(0..2, &ternary, &mut [0; 4], &mut scratch), "input holds ternary, expected binary");
        assert_eq!(run(0..1, &binary(2, 4), &mut [0; 2], &mut scratch), "row of the input has 2 elements, expected 3");
        assert_eq!(run(0..3, &x, &mut [0; 6], &mut scratch), "rows 0..3 do not lie within 0..2, or are empty");
        assert_eq!(run(0..2, &x, &mut [0; 3], &mut scratch), "output has 3 elements, expected 4");
        assert!(run(0..2, &x, &mut [0; 4], &mut []).starts_with("scratch has 0 elements, expected at least"));
        let error = layer.run(0..1, &x, Output::U8(&mut [0; 2]), &mut scratch).unwrap_err();
        assert_eq!(error.to_string(), "output holds u8, expected i32");
    }
}
