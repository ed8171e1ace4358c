//! Operators around layers on every instruction set that this CPU has, against the reference: all codes and zero
//! points, odd lengths, unaligned starts, infinities and NaN.

use qexact_kernels::elementwise::{
    Binary, Lookup, Operand, adaptive_avg_pool, avg_pool, batch_norm, broadcast, concat, dequantize, max_pool,
    mean_pool, quantize,
};
use qexact_kernels::{Isa, IsaName};
use qexact_reference::add::{Add, Form, Sum};
use qexact_reference::batch_norm::{BatchNorm, Parameters};
use qexact_reference::concat::{Part, aten_channels_last, aten_contiguous};
use qexact_reference::mean::Mean;
use qexact_reference::mul::Mul;
use qexact_reference::pool::{AdaptivePool, Average, Divisor, Memory, Pool};
use qexact_reference::quantizer::{DequantizeForm, Dequantizer, QuantizeForm, Quantizer};
use qexact_reference::recode::Recode;
use qexact_reference::requantize::Rounding;
use qexact_reference::table::{Function, Table};
use qexact_reference::{Axis, Code, CodeType, Error, Quantization, broadcast as reference_broadcast};
use quickcheck::{Gen, QuickCheck};

/// SplitMix64: every bit of every draw is uniform.
#[derive(Clone)]
struct Random(u64);

impl quickcheck::Arbitrary for Random {
    fn arbitrary(g: &mut Gen) -> Random {
        Random(u64::arbitrary(g))
    }
}

impl std::fmt::Debug for Random {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "seed {:#x}", self.0)
    }
}

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 32) as usize % n
    }
    fn choose<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
    fn codes<T: Code>(&mut self, n: usize) -> Vec<T> {
        (0..n).map(|_| T::from_i32(self.next() as i32 >> 8)).collect()
    }
    /// Between 2⁻⁷ and 2 or so, with all the bits of an f64.
    fn scale(&mut self) -> f64 {
        let mantissa = 1.0 + (self.next() >> 12) as f64 / (1u64 << 52) as f64;
        mantissa / f64::from(1 << self.below(8))
    }
    fn quantization<T: Code>(&mut self) -> Quantization {
        let codes = code_type::<T>();
        let zero_point =
            if self.below(4) == 0 { self.choose(&[codes.lo(), codes.hi()]) } else { self.codes::<T>(1)[0].into() };
        Quantization::new(self.scale(), zero_point, codes).unwrap()
    }
    /// Any f32: a few specials, all bit patterns, and multiples of half a scale.
    fn reals(&mut self, n: usize, scale: f64) -> Vec<f32> {
        const SPECIAL: [f32; 12] = [
            f32::NAN,
            f32::INFINITY,
            f32::NEG_INFINITY,
            0.0,
            -0.0,
            2147483520.0,
            2147483648.0,
            -2147483648.0,
            -2147483904.0,
            f32::MAX,
            f32::MIN,
            1e-45,
        ];
        let mut real = || match self.below(8) {
            0 => self.choose(&SPECIAL),
            1 => f32::from_bits(self.next() as u32),
            _ => ((self.below(1100) as f64 - 550.0) * 0.5 * scale) as f32,
        };
        (0..n).map(|_| real()).collect()
    }
}

fn code_type<T: Code>() -> CodeType {
    let least: i32 = T::MIN.into();
    if least < 0 { CodeType::I8 } else { CodeType::U8 }
}

fn wide<T: Code>(codes: &[T]) -> Vec<i32> {
    codes.iter().map(|&q| q.into()).collect()
}

fn narrow<T: Code>(codes: &[i32]) -> Vec<T> {
    codes.iter().map(|&q| T::from_i32(q)).collect()
}

fn isas() -> Vec<Isa> {
    for name in IsaName::ALL {
        if Isa::new(name).is_err() {
            eprintln!("skipped: {name}");
        }
    }
    Isa::available().collect()
}

/// Checks `run(isa, slice of the output)` on every instruction set. The output starts unaligned, and what surrounds it
/// must stay as it was.
fn writes<Y: Code>(want: &[i32], what: &str, mut run: impl FnMut(Isa, &mut [Y]) -> Result<(), Error>) {
    const MARGIN: usize = 67;
    for isa in isas() {
        for offset in [0, 1, 3] {
            let marks: Vec<Y> = Random(offset as u64).codes(want.len() + 2 * MARGIN);
            let mut y = marks.clone();
            let range = MARGIN + offset..MARGIN + offset + want.len();
            run(isa, &mut y[range.clone()]).unwrap();
            assert_eq!(wide(&y[range.clone()]), want, "{isa} {what}, {} outputs", want.len());
            assert_eq!(wide(&y[..range.start]), wide(&marks[..range.start]), "{isa} {what} before");
            assert_eq!(wide(&y[range.end..]), wide(&marks[range.end..]), "{isa} {what} after");
        }
    }
}

const QUANTIZE: [QuantizeForm; 9] = [
    QuantizeForm::Wrapping,
    QuantizeForm::Saturating,
    QuantizeForm::Fused,
    QuantizeForm::ZeroPointFirst,
    QuantizeForm::Divided,
    QuantizeForm::Bounded,
    QuantizeForm::Converted,
    QuantizeForm::DividedAway,
    QuantizeForm::DividedAwayF64,
];
const DEQUANTIZE: [DequantizeForm; 3] = [DequantizeForm::Difference, DequantizeForm::Fused, DequantizeForm::Double];

#[test]
fn quantize_and_dequantize() {
    fn of<T: Code>(mut r: Random) {
        let (q, n, skip) = (r.quantization::<T>(), r.below(201), r.below(4));
        let x = r.reals(n + skip, q.scale());
        for form in QUANTIZE {
            let rule = Quantizer::new(form, q);
            let want: Vec<i32> = x[skip..].iter().map(|&x| rule.apply(x)).collect();
            writes::<T>(&want, &format!("{rule:?}"), |isa, y| quantize(isa, &rule, &x[skip..], y));
        }
        let codes: Vec<T> = r.codes(n + skip);
        for form in DEQUANTIZE {
            let rule = Dequantizer::new(form, q);
            let want: Vec<u32> = codes[skip..].iter().map(|&q| rule.apply(q.into()).to_bits()).collect();
            for isa in isas() {
                let mut y = vec![0.5f32; n + skip];
                dequantize(isa, &rule, &codes[skip..], &mut y[skip..]).unwrap();
                let got: Vec<u32> = y[skip..].iter().map(|y| y.to_bits()).collect();
                assert_eq!(got, want, "{isa} {rule:?}");
            }
        }
    }
    QuickCheck::new().tests(100).quickcheck(of::<u8> as fn(Random));
    QuickCheck::new().tests(100).quickcheck(of::<i8> as fn(Random));
}

#[test]
fn quantize_every_zero_point() {
    let x = Random(7).reals(200, 0.3);
    for (form, z) in QUANTIZE.into_iter().flat_map(|form| (0..256).map(move |z| (form, z))) {
        let rule = Quantizer::new(form, Quantization::new(0.3, z, CodeType::U8).unwrap());
        let want: Vec<i32> = x.iter().map(|&x| rule.apply(x)).collect();
        for isa in isas() {
            let mut y = vec![0u8; x.len()];
            quantize(isa, &rule, &x, &mut y).unwrap();
            assert_eq!(wide(&y), want, "{isa} {rule:?}");
        }
    }
}

/// All rules for sums; those with narrow ranges of scales only where they exist.
fn sums(a: Quantization, b: Quantization, y: Quantization) -> Vec<Add> {
    let mut rules = vec![Add::aten(a, b, y, Form::Body), Add::aten(a, b, y, Form::Tail), Add::ort(a, b, y)];
    rules.extend([Form::Body, Form::Tail].map(|form| Add::tflite(a, b, y, form)));
    rules.extend([Add::qnnpack(a, b, y), Add::xnnpack(a, b, y)].into_iter().flatten());
    // Nobody's: a mixture of forms, and a rounding to even.
    let mixed = [Dequantizer::new(DequantizeForm::Double, a), Dequantizer::new(DequantizeForm::Fused, b)];
    let quantize = Quantizer::new(QuantizeForm::DividedAway, y);
    rules.push(Add { sum: Sum::Real { dequantize: mixed, least: -1.5, quantize }, ..rules[0] });
    if let Ok(Add { sum: Sum::Shifted { multiplier, zero_points, shift, zero_point, .. }, clamp }) =
        Add::xnnpack(a, b, y)
    {
        let rounding = Rounding::Even;
        rules.push(Add { sum: Sum::Shifted { multiplier, zero_points, shift, rounding, zero_point }, clamp });
        rules.push(Add { sum: Sum::Shifted { multiplier, zero_points, shift: 0, rounding, zero_point }, clamp });
    }
    rules
}

fn products(a: Quantization, b: Quantization, y: Quantization) -> Vec<Mul> {
    let aten = [Form::Body, Form::Tail].map(|form| Mul::aten(a, b, y, form));
    let tflite = [Form::Body, Form::Tail].map(|form| Mul::tflite(a, b, y, form));
    vec![tflite[0], tflite[1], aten[0], aten[1], Mul::xnnpack(a, b, y), Mul::ort(a, b, y)]
}

#[test]
fn sums_and_products_of_all_pairs_of_codes() {
    fn of<A: Code, B: Code, Y: Code>(mut r: Random) {
        let [least_a, least_b]: [i32; 2] = [A::MIN.into(), B::MIN.into()];
        let a: Vec<i32> = (0..65536).map(|i| least_a + i / 256).collect();
        let b: Vec<i32> = (0..65536).map(|i| least_b + i % 256).collect();
        let [qa, qb, qy] = [r.quantization::<A>(), r.quantization::<B>(), r.quantization::<Y>()];
        let clamp = [qy.zero_point(), (qy.codes().hi() - r.below(3) as i32).max(qy.zero_point())];
        fn check<A: Code, B: Code, Y: Code>(
            rule: &(impl Binary + std::fmt::Debug),
            [a, b]: [&[i32]; 2],
            f: impl Fn(i32, i32) -> i32,
        ) {
            let want: Vec<i32> = a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect();
            let (a, b): (Vec<A>, Vec<B>) = (narrow(a), narrow(b));
            for isa in isas() {
                let mut y = vec![Y::MIN; want.len()];
                rule.run(isa, Operand::Each(&a), Operand::Each(&b), &mut y).unwrap();
                let wrong = wide(&y).iter().zip(&want).position(|(got, want)| got != want);
                assert_eq!(wrong, None, "{isa} {rule:?}");
            }
        }
        for rule in sums(qa, qb, qy) {
            for rule in [rule, rule.relu(qy), rule.clamped(clamp)] {
                check::<A, B, Y>(&rule, [&a, &b], |a, b| rule.apply(a, b));
            }
        }
        for rule in products(qa, qb, qy) {
            for rule in [rule, rule.clamped(clamp)] {
                check::<A, B, Y>(&rule, [&a, &b], |a, b| rule.apply(a, b));
            }
        }
    }
    QuickCheck::new().tests(8).quickcheck(of::<u8, u8, u8> as fn(Random));
    QuickCheck::new().tests(8).quickcheck(of::<i8, i8, i8> as fn(Random));
    QuickCheck::new().tests(4).quickcheck(of::<u8, i8, u8> as fn(Random));
}

#[test]
fn sums_and_products_of_any_length_and_shape() {
    /// Each axis whole in both, or of extent 1 in either; leading axes may be missing.
    fn shapes(r: &mut Random) -> [Vec<usize>; 2] {
        let mut shapes = [vec![], vec![]];
        for _ in 0..r.below(5) {
            let extent = r.choose(&[0, 1, 2, 3, 5, 17, 40]).min(if r.below(9) == 0 { 40 } else { 17 });
            let one = r.below(5);
            shapes[0].push(if one == 0 { 1 } else { extent });
            shapes[1].push(if one == 1 { 1 } else { extent });
        }
        let missing = r.below(shapes[1].len() + 1);
        shapes[1].drain(..missing);
        if r.below(2) == 0 {
            shapes.swap(0, 1);
        }
        shapes
    }
    fn check<R: Binary + std::fmt::Debug>(rule: &R, apply: impl Fn(i32, i32) -> i32, mut r: Random) {
        let n = r.below(201);
        let (a, b): (Vec<u8>, Vec<i8>) = (r.codes(n + 1), r.codes(n + 1));
        let operands = [(0..n, 1..n + 1), (1..n + 1, 0..n)];
        for (at_a, at_b) in operands {
            let (a, b) = (&a[at_a], &b[at_b]);
            let pairs: Vec<i32> = a.iter().zip(b).map(|(&a, &b)| apply(a.into(), b.into())).collect();
            writes::<u8>(&pairs, &format!("{rule:?}"), |isa, y| rule.run(isa, Operand::Each(a), Operand::Each(b), y));
            let same: Vec<i32> = a.iter().map(|&a| apply(a.into(), -7)).collect();
            writes::<u8>(&same, &format!("{rule:?}"), |isa, y| rule.run(isa, Operand::Each(a), Operand::One(-7i8), y));
            let same: Vec<i32> = b.iter().map(|&b| apply(200, b.into())).collect();
            writes::<u8>(&same, &format!("{rule:?}"), |isa, y| rule.run(isa, Operand::One(200u8), Operand::Each(b), y));
            let one = vec![apply(200, -7); n];
            writes::<u8>(&one, &format!("{rule:?}"), |isa, y| {
                rule.run(isa, Operand::One(200u8), Operand::One(-7i8), y)
            });
        }
        let [a_shape, b_shape] = shapes(&mut r);
        let (a, b): (Vec<u8>, Vec<i8>) = (r.codes(a_shape.iter().product()), r.codes(b_shape.iter().product()));
        let want = reference_broadcast::broadcast((&a, &a_shape), (&b, &b_shape), |a, b| apply(a.into(), b.into()));
        for isa in isas() {
            let y = broadcast::<u8, i8, u8>(isa, rule, (&a, &a_shape), (&b, &b_shape)).unwrap();
            assert_eq!(wide(&y), want.clone().unwrap(), "{isa} {a_shape:?} {b_shape:?}");
        }
        assert!(broadcast::<u8, i8, u8>(Isa::best(), rule, (&a, &[2, 3]), (&b, &[4])).is_err());
    }
    fn of(mut r: Random) {
        let [a, b, y] = [r.quantization::<u8>(), r.quantization::<i8>(), r.quantization::<u8>()];
        let rules = sums(a, b, y);
        let rule = r.choose(&rules);
        check(&rule, |a, b| rule.apply(a, b), r.clone());
        let rules = products(a, b, y);
        let rule = r.choose(&rules);
        check(&rule, |a, b| rule.apply(a, b), r);
    }
    QuickCheck::new().tests(300).quickcheck(of as fn(Random));
}

#[test]
fn functions_of_one_code() {
    fn of<X: Code, Y: Code>(mut r: Random) {
        let (x, y) = (r.quantization::<X>(), r.quantization::<Y>());
        let (n, skip) = (r.below(201), r.below(4));
        let codes: Vec<X> = r.codes(n + skip);
        // All codes, and then some.
        let all: Vec<X> = (0..256).map(X::from_i32).chain(codes[..n].iter().copied()).collect();
        let check = |lookup: &Lookup<X, Y>, f: &dyn Fn(i32) -> i32, what: &str| {
            for codes in [&codes[skip..], &all] {
                let want: Vec<i32> = codes.iter().map(|&q| f(q.into())).collect();
                writes::<Y>(&want, what, |isa, y| lookup.run(isa, codes, y));
            }
        };
        let mut rules =
            vec![Recode::tflite(x, y, Rounding::Away), Recode::tflite(x, y, Rounding::Up), aten_contiguous(x, y)];
        rules.extend([Form::Body, Form::Tail].map(|form| aten_channels_last(x, y, form)));
        rules.extend(Recode::xnnpack(x, y));
        for rule in &rules {
            check(&Lookup::of_recode(rule), &|q| rule.apply(q), &format!("{rule:?}"));
        }
        let from = Dequantizer::new(DequantizeForm::Fused, x);
        let table = Table::from_real(
            x.codes(),
            from,
            |v| Function::Hardswish.apply(v),
            Quantizer::new(QuantizeForm::Wrapping, y),
        );
        check(&Lookup::of_table(&table), &|q| table.apply(q), "hardswish");
        // No two neighbours alike.
        let entries: Vec<i32> = r.codes::<Y>(256).into_iter().map(Into::into).collect();
        let table = Table::recorded(x.codes(), y.codes(), entries).unwrap();
        check(&Lookup::of_table(&table), &|q| table.apply(q), "a random table");
        let relu = Lookup::<X, X>::of_relu(x.zero_point());
        let want: Vec<i32> = all.iter().map(|&q| x.zero_point().max(q.into())).collect();
        writes::<X>(&want, "relu", |isa, y| relu.run(isa, &all, y));
    }
    QuickCheck::new().tests(50).quickcheck(of::<u8, u8> as fn(Random));
    QuickCheck::new().tests(50).quickcheck(of::<i8, i8> as fn(Random));
    QuickCheck::new().tests(30).quickcheck(of::<u8, i8> as fn(Random));
    QuickCheck::new().tests(30).quickcheck(of::<i8, u8> as fn(Random));
}

#[test]
fn concatenations() {
    fn of<T: Code>(mut r: Random) {
        let pixels = r.below(20);
        let y = r.quantization::<T>();
        let parts: Vec<(Vec<T>, usize, Recode)> = (0..r.below(5))
            .map(|_| {
                let channels = r.choose(&[0, 1, 3, 8, 17, 64, 70]);
                let recode = aten_channels_last(r.quantization::<T>(), y, Form::Body);
                (r.codes(pixels * channels), channels, recode)
            })
            .collect();
        let parts: Vec<Part<'_, T>> = parts
            .iter()
            .map(|(codes, channels, recode)| Part { codes, channels: *channels, recode: *recode })
            .collect();
        let want = wide(&qexact_reference::concat::concat(pixels, &parts).unwrap());
        for isa in isas() {
            assert_eq!(wide(&concat(isa, pixels, &parts).unwrap()), want, "{isa}");
            assert_eq!(concat(isa, pixels + 1, &parts).is_err(), parts.iter().any(|part| part.channels > 0));
        }
    }
    QuickCheck::new().tests(200).quickcheck(of::<u8> as fn(Random));
    QuickCheck::new().tests(200).quickcheck(of::<i8> as fn(Random));
}

#[test]
fn batch_norms() {
    fn of<X: Code, Y: Code>(mut r: Random) {
        let channels = r.choose(&[1, 2, 7, 8, 15, 16, 17, 33, 64, 100]);
        let mut some = |scale: f32| -> Vec<f32> {
            (0..channels).map(|_| ((r.next() >> 40) as f32 / (1 << 23) as f32 - 1.0) * scale).collect()
        };
        // Now and then a parameter that leads to infinities and NaN.
        let (mut weight, bias, running_mean, running_var) = (some(2.0), some(2.0), some(3.0), some(1.0));
        let running_var: Vec<f32> = running_var.into_iter().map(f32::abs).collect();
        if r.below(4) == 0 {
            weight[0] = r.choose(&[f32::NAN, f32::INFINITY, 1e30]);
        }
        let parameters = Parameters {
            weight: &weight,
            bias: &bias,
            running_mean: &running_mean,
            running_var: &running_var,
            eps: 1e-5,
        };
        let (from, to) = (r.quantization::<X>(), r.quantization::<Y>());
        let rule = BatchNorm::new(&parameters, from, to, r.below(2) == 0).unwrap();
        let x: Vec<X> = {
            let pixels = r.below(7);
            r.codes(pixels * channels)
        };
        let want: Vec<i32> = x.iter().enumerate().map(|(i, &q)| rule.apply(q.into(), i % channels)).collect();
        writes::<Y>(&want, "batch norm", |isa, y| batch_norm(isa, &rule, &x, y));
        let refused = batch_norm(Isa::best(), &rule, &[X::MIN; 101], &mut [Y::MIN; 101]);
        assert_eq!(refused.is_err(), channels != 1);
    }
    QuickCheck::new().tests(200).quickcheck(of::<u8, u8> as fn(Random));
    QuickCheck::new().tests(100).quickcheck(of::<i8, i8> as fn(Random));
}

#[test]
fn pools() {
    fn window(r: &mut Random) -> Axis {
        let kernel = 1 + r.below(4);
        let padding = [r.below(kernel / 2 + 1), r.below(kernel / 2 + 1)];
        Axis { input: kernel + r.below(6), kernel, stride: 1 + r.below(3), padding, dilation: 1 }
    }
    fn of<T: Code>(mut r: Random) {
        let mut axes = [Axis::UNIT, window(&mut r), window(&mut r)];
        if r.below(4) == 0 {
            axes[0] = window(&mut r);
        }
        let channels = r.choose(&[1, 3, 16, 31, 63, 64, 65, 130]);
        let pool = Pool { batch: 1 + r.below(2), channels, axes, ceil_mode: r.below(2) == 0 };
        let input: Vec<T> = r.codes(pool.batch * channels * axes.iter().map(|axis| axis.input).product::<usize>());
        let (x, y) = (r.quantization::<T>(), r.quantization::<T>());
        let memory = r.choose(&[Memory::ChannelsLast, Memory::Contiguous]);
        let average = Average { memory, zero_point: x.zero_point(), codes: x.codes() };
        let divisor = r.choose(&[Divisor::Padded, Divisor::Image, Divisor::Constant(3)]);
        let means = [
            Mean::Scaled { input: x, output: y },
            Mean::ClampFirst { input: x, output: y },
            Mean::Real { input: x, output: y },
            Mean::Integer { clamp: [x.codes().lo(), x.codes().hi() - 5] },
        ];
        // Dilation, for the maximum.
        let mut dilated = pool;
        dilated.axes[2] = Axis { input: axes[2].input + 8, dilation: 3, ..axes[2] };
        let wider: Vec<T> = r.codes(input.len() / axes[2].input * dilated.axes[2].input);
        let [d, h, w] = axes.map(|axis| axis.input);
        let adaptive =
            AdaptivePool { batch: pool.batch, channels, input: [d, h, w], output: [1 + r.below(2), 1 + r.below(h), 1] };
        use qexact_reference::{mean, pool as reference};
        for isa in isas() {
            let equal = |got: Result<Vec<T>, Error>, want: Result<Vec<T>, Error>, what: &str| {
                assert_eq!(wide(&got.unwrap()), wide(&want.unwrap()), "{isa} {what} of {pool:?}");
            };
            equal(max_pool(isa, &pool, &input), reference::max_pool(&pool, &input), "maximum");
            equal(max_pool(isa, &dilated, &wider), reference::max_pool(&dilated, &wider), "dilated maximum");
            equal(
                avg_pool(isa, &pool, divisor, average, &input),
                reference::avg_pool(&pool, divisor, average, &input),
                "average",
            );
            for mean in &means {
                let want = mean::mean_pool(&pool, divisor, mean, &input);
                equal(mean_pool(isa, &pool, divisor, mean, &input), want, "mean");
            }
            let want = reference::adaptive_avg_pool(&adaptive, average, &input);
            equal(adaptive_avg_pool(isa, &adaptive, average, &input), want, "adaptive average");
            assert!(
                max_pool(isa, &pool, &input[1..]).is_err()
                    && avg_pool(isa, &dilated, divisor, average, &wider).is_err()
            );
            assert!(mean_pool(isa, &pool, Divisor::Constant(0), &means[0], &input).is_err());
        }
    }
    QuickCheck::new().tests(150).quickcheck(of::<u8> as fn(Random));
    QuickCheck::new().tests(150).quickcheck(of::<i8> as fn(Random));
}

#[test]
fn lengths_are_checked() {
    let q = Quantization::new(0.5, 3, CodeType::U8).unwrap();
    for isa in isas() {
        let error = quantize(isa, &Quantizer::new(QuantizeForm::Wrapping, q), &[0.0; 3], &mut [0u8; 2]).unwrap_err();
        assert_eq!(error.to_string(), "output has 2 elements, expected 3");
        assert!(dequantize(isa, &Dequantizer::new(DequantizeForm::Double, q), &[0u8; 3], &mut [0.0; 4]).is_err());
        assert!(Lookup::<u8, u8>::of_relu(3).run(isa, &[0; 3], &mut [0; 4]).is_err());
        let error = Add::ort(q, q, q).run(isa, Operand::Each(&[0u8; 2]), Operand::One(1u8), &mut [0u8; 3]).unwrap_err();
        assert_eq!(error.to_string(), "a has 2 elements, expected 3");
        let error = Mul::ort(q, q, q).run(isa, Operand::One(1u8), Operand::Each(&[0i8; 4]), &mut [0u8; 3]).unwrap_err();
        assert_eq!(error.to_string(), "b has 4 elements, expected 3");
    }
}
