//! Rules on their own, on every instruction set, against the scalar rule: random parameters of every switch, and the
//! accumulators around which outputs change.

use qexact_kernels::{Isa, Requantizer};
use qexact_reference::requantize::{
    Bias, Codes, F32Mul, F32Out, F32Real, F64, FixedPoint, Overflow, Pow2, Q31Double, Q31Single, RealOutput, Rounding,
    Sum, ZeroPoint,
};
use qexact_reference::{Addend, CodeType, Output, Rule};
use quickcheck::{Arbitrary, Gen, QuickCheck};

fn below(g: &mut Gen, n: u64) -> u64 {
    u64::arbitrary(g) % n
}

fn any<T: Clone>(g: &mut Gen, of: &[T]) -> T {
    g.choose(of).expect("at least one").clone()
}

fn rounding(g: &mut Gen) -> Rounding {
    any(g, &[Rounding::Even, Rounding::Away, Rounding::Up])
}

/// A magnitude from 2⁻⁴⁰ to 2⁸, half of them with few bits, so that there are ties.
fn scale(g: &mut Gen) -> f64 {
    let significand = if bool::arbitrary(g) {
        1.0 + below(g, 8) as f64 / 8.0
    } else {
        1.0 + below(g, 1 << 52) as f64 / 4503599627370496.0
    };
    significand * 2f64.powi(below(g, 49) as i32 - 40)
}

fn signed(g: &mut Gen, v: f64) -> f64 {
    if bool::arbitrary(g) { v } else { -v }
}

fn real(g: &mut Gen) -> f32 {
    const PECULIAR: [f32; 9] =
        [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, 1e-40, 2147483648.0, 1e30];
    if below(g, 8) == 0 {
        any(g, &PECULIAR)
    } else {
        let v = scale(g);
        signed(g, v) as f32
    }
}

fn integer(g: &mut Gen) -> i32 {
    (u64::arbitrary(g) as i32) >> below(g, 32)
}

fn fixed(g: &mut Gen) -> FixedPoint {
    let uniform = (1 << 30) + below(g, 1 << 30) as i32;
    let mantissa = any(g, &[1 << 30, i32::MAX, 3 << 29, uniform]);
    FixedPoint { mantissa: if below(g, 20) == 0 { 0 } else { mantissa }, exponent: below(g, 62) as i32 - 31 }
}

fn codes(g: &mut Gen) -> Codes {
    let code_type = any(g, &[CodeType::U8, CodeType::I8]);
    let code = |g: &mut Gen| {
        let any_code = code_type.lo() + below(g, 256) as i32;
        any(g, &[code_type.lo(), code_type.hi(), any_code])
    };
    let codes = Codes::new(code(g), code_type).unwrap();
    let (a, b) = (code(g), code(g));
    match below(g, 3) {
        0 => codes,
        1 => codes.relu(),
        _ => codes.clamped(a.min(b), a.max(b)).unwrap(),
    }
}

#[derive(Clone, Debug)]
struct Case {
    rule: Rule,
    channels: usize,
    seed: u64,
}

impl Arbitrary for Case {
    fn arbitrary(g: &mut Gen) -> Case {
        let channels = 1 + below(g, 70) as usize;
        let (seed, n) = (u64::arbitrary(g), if bool::arbitrary(g) { 1 } else { channels });
        let reals = |g: &mut Gen| (0..n).map(|_| real(g)).collect::<Vec<f32>>();
        let integers = |g: &mut Gen| (0..n).map(|_| integer(g)).collect::<Vec<i32>>();
        let maybe = |g: &mut Gen| if bool::arbitrary(g) { integers(g) } else { vec![] };
        let codes = codes(g);
        let rule = match below(g, 8) {
            0 | 1 => {
                let bias = match below(g, 4) {
                    0 => Bias::None,
                    1 => Bias::I32(integers(g)),
                    2 => Bias::Addend(reals(g)),
                    _ => Bias::Fused { bias: reals(g), reciprocal: reals(g) },
                };
                let [lo, hi] = codes.range();
                let rule = F32Mul::new(reals(g), bias, codes.zero_point(), codes.code_type()).unwrap();
                let overflow = any(g, &[Overflow::Convert, Overflow::ClampFirst]);
                Rule::F32Mul(rule.clamped(lo, hi).unwrap().overflow(overflow))
            }
            2 => {
                let bias = if bool::arbitrary(g) { reals(g) } else { vec![] };
                Rule::F32Out(F32Out { scale: reals(g), bias, fused: bool::arbitrary(g), relu: bool::arbitrary(g) })
            }
            3 => {
                let code_type = any(g, &[CodeType::U8, CodeType::I8]);
                let zero_point = code_type.lo() + below(g, 256) as i32;
                let added = Sum::Codes { scale: real(g), zero_point, codes: code_type };
                let output = RealOutput::Codes { multiplier: real(g), codes };
                let clip = [real(g), real(g)];
                Rule::F32Real(F32Real {
                    scale: reals(g),
                    bias: if bool::arbitrary(g) { reals(g) } else { vec![] },
                    sum: any(g, &[Sum::None, added, Sum::Reals]),
                    clip: any(g, &[None, F32Real::RELU, Some(clip)]),
                    output: any(g, &[RealOutput::Reals, output, output]),
                })
            }
            4 => {
                let mut multiplier: Vec<FixedPoint> = (0..n).map(|_| fixed(g)).collect();
                if bool::arbitrary(g) {
                    // All shifts to the right: another form.
                    for m in &mut multiplier {
                        *m = FixedPoint { mantissa: m.mantissa.max(1 << 30), exponent: -1 - m.exponent.abs().min(30) };
                    }
                }
                Rule::Q31Double(Q31Double { multiplier, bias: maybe(g), last: rounding(g), codes })
            }
            5 => Rule::Q31Single(Q31Single { multiplier: (0..n).map(|_| fixed(g)).collect(), bias: maybe(g), codes }),
            6 => {
                let zero_point = any(g, &[ZeroPoint::BeforeRounding, ZeroPoint::AfterRounding]);
                let multiplier = (0..n)
                    .map(|_| {
                        if below(g, 4) == 0 {
                            f64::from(real(g))
                        } else {
                            let v = scale(g);
                            signed(g, v)
                        }
                    })
                    .collect();
                Rule::F64(F64 { multiplier, bias: maybe(g), rounding: rounding(g), zero_point, codes })
            }
            _ => {
                let shift = (0..n).map(|_| below(g, 94) as i32 - 31).collect();
                Rule::Pow2(Pow2 { shift, bias: maybe(g), rounding: rounding(g), codes })
            }
        };
        Case { rule, channels, seed }
    }
}

fn bits(rule: &Rule, accumulator: i32, channel: usize, addend: f32) -> u32 {
    let bits = rule.apply(accumulator, channel, addend).bits();
    match rule.codes() {
        Some(_) => bits & 0xff,
        // All NaN are one: which bits an operation gives them is not defined.
        None if rule.element_type() == "f32" && f32::from_bits(bits).is_nan() => f32::NAN.to_bits(),
        None => bits,
    }
}

/// Accumulators of a channel: strides over all of them, and both sides of every change that strides enclose, with their
/// neighbours. A tie is always such a side.
fn accumulators(rule: &Rule, channel: usize, addend: f32, seed: u64) -> Vec<i32> {
    const STRIDE: i64 = 9_586_981; // 448 of them; a prime
    let at = |v: i64| bits(rule, v as i32, channel, addend);
    let mut all: Vec<i64> =
        (0..=448).map(|i| (i64::from(i32::MIN) + i * STRIDE + (seed % 1000) as i64).min(i32::MAX.into())).collect();
    // About 0, where most multipliers do not saturate.
    all.extend((-500..500).map(i64::from));
    all.sort_unstable();
    let mut found = Vec::new();
    for pair in all.windows(2) {
        let [mut below, mut above] = [pair[0], pair[1]];
        if at(below) == at(above) {
            continue;
        }
        while above - below > 1 {
            let middle = i64::midpoint(below, above);
            if at(middle) == at(below) { below = middle } else { above = middle }
        }
        found.extend([below - 1, below, above, above + 1]);
    }
    all.extend(found);
    all.extend([i32::MIN, i32::MIN + 1, i32::MAX - 1, i32::MAX].map(i64::from));
    all.into_iter().map(|v| v as i32).collect()
}

fn agrees(case: &Case) -> bool {
    let Case { rule, channels, seed } = case;
    let channels = *channels;
    let addend_at = |i: usize| (i as u64 ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[7];
    let columns: Vec<Vec<i32>> = (0..channels.min(9)).map(|c| accumulators(rule, c, 0.0, *seed)).collect();
    let rows = columns.iter().map(Vec::len).max().unwrap();
    let len = rows * channels;
    let acc: Vec<i32> = (0..len)
        .map(|i| {
            let column = &columns[(i % channels) % columns.len()];
            column[(i / channels) % column.len()]
        })
        .collect();
    let (u8s, i8s): (Vec<u8>, Vec<i8>) = (0..len).map(|i| (addend_at(i), addend_at(i) as i8)).unzip();
    let f32s: Vec<f32> = u8s.iter().map(|&a| f32::from(a) / 3.0 - 40.0).collect();
    let addend = match rule.addend_type() {
        None => Addend::None,
        Some("u8") => Addend::U8(&u8s),
        Some("i8") => Addend::I8(&i8s),
        Some(_) => Addend::F32(&f32s),
    };
    let want: Vec<u32> = (0..len).map(|i| bits(rule, acc[i], i % channels, addend.get(i))).collect();
    Isa::available().all(|isa| {
        let requantizer = Requantizer::new(rule, channels, isa).unwrap();
        let tie_of_32 = matches!(rule, Rule::Pow2(p) if p.rounding == Rounding::Away && p.shift.contains(&32));
        let clips_first = match rule {
            Rule::F32Real(F32Real {
                clip: Some([least, most]), output: RealOutput::Codes { multiplier, .. }, ..
            }) => !(*multiplier > 0.0 && multiplier.is_finite() && least <= most),
            _ => false,
        };
        assert_eq!(requantizer.is_vectorized(), isa != Isa::REFERENCE && !tie_of_32 && !clips_first);
        let mut got = vec![0u32; len];
        match rule.element_type() {
            "u8" => {
                let mut y = vec![0u8; len];
                requantizer.run(&acc, addend, Output::U8(&mut y)).unwrap();
                got.iter_mut().zip(y).for_each(|(got, y)| *got = y.into());
            }
            "i8" => {
                let mut y = vec![0i8; len];
                requantizer.run(&acc, addend, Output::I8(&mut y)).unwrap();
                got.iter_mut().zip(y).for_each(|(got, y)| *got = (y as u8).into());
            }
            _ => {
                let mut y = vec![0f32; len];
                requantizer.run(&acc, addend, Output::F32(&mut y)).unwrap();
                let bits = |v: f32| if v.is_nan() { f32::NAN.to_bits() } else { v.to_bits() };
                got.iter_mut().zip(y).for_each(|(got, y)| *got = bits(y));
            }
        }
        let wrong = (0..len).find(|&i| got[i] != want[i]);
        if let Some(i) = wrong {
            eprintln!(
                "{isa}: accumulator {} of channel {} is {:x} instead of {:x}: {rule:?}",
                acc[i],
                i % channels,
                got[i],
                want[i]
            );
        }
        wrong.is_none()
    })
}

#[test]
fn every_rule_equals_the_scalar_rule() {
    QuickCheck::new().tests(1000).max_tests(1000).quickcheck((|case: Case| agrees(&case)) as fn(Case) -> bool);
}

/// The product with the multiplier would fit an int32; the f32 sum before it overflows.
#[test]
fn sums_that_overflow_are_clamped_first() {
    let bias = Bias::Fused { bias: vec![f32::MAX], reciprocal: vec![200.0] };
    let rule = F32Mul::new(vec![1e-40], bias, 3, CodeType::U8).unwrap().overflow(Overflow::ClampFirst);
    for isa in Isa::available() {
        let mut y = [0; 3];
        let requantizer = Requantizer::new(&Rule::F32Mul(rule.clone()), 1, isa).unwrap();
        requantizer.run(&[-1, 0, 1], Addend::None, Output::U8(&mut y)).unwrap();
        assert_eq!(y, [255; 3], "{isa}");
    }
}

/// The largest number below one half, which a sum with one half takes to 1.
#[test]
fn just_below_a_tie_away_from_zero_goes_to_zero() {
    let codes = Codes::new(0, CodeType::I8).unwrap();
    let zero_point = ZeroPoint::AfterRounding;
    let multiplier = vec![0.5f64.next_down()];
    let rule = Rule::F64(F64 { multiplier, bias: vec![], rounding: Rounding::Away, zero_point, codes });
    for isa in Isa::available() {
        let mut y = [5; 4];
        let requantizer = Requantizer::new(&rule, 4, isa).unwrap();
        requantizer.run(&[-1, 1, 2, 3], Addend::None, Output::I8(&mut y)).unwrap();
        assert_eq!(y, [0, 0, 1, 1], "{isa}");
    }
}

#[test]
fn accumulators_pass_as_they_are() {
    let acc: Vec<i32> = (0..77).map(|i: i32| i.wrapping_mul(55_555_555)).collect();
    for isa in Isa::available() {
        let mut y = vec![0; acc.len()];
        Requantizer::new(&Rule::Accumulator, 11, isa).unwrap().run(&acc, Addend::None, Output::I32(&mut y)).unwrap();
        assert_eq!(y, acc, "{isa}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let codes = Codes::new(0, CodeType::U8).unwrap();
    let rule = Rule::Pow2(Pow2 { shift: vec![1; 3], bias: vec![], rounding: Rounding::Up, codes });
    for isa in Isa::available() {
        let text = |error: Result<(), qexact_reference::Error>| error.unwrap_err().to_string();
        assert!(Requantizer::new(&rule, 2, isa).is_err() && Requantizer::new(&rule, 0, isa).is_err());
        let requantizer = Requantizer::new(&rule, 3, isa).unwrap();
        let run = |len: usize, addend: Addend<'_>, output: Output<'_>| requantizer.run(&vec![7; len], addend, output);
        assert_eq!(run(0, Addend::None, Output::U8(&mut [])), Ok(()));
        let error = text(run(4, Addend::None, Output::U8(&mut [0; 4])));
        assert_eq!(error, "accumulators has 4 elements, expected a multiple of 3, the channels");
        assert_eq!(text(run(3, Addend::None, Output::U8(&mut [0; 4]))), "output has 4 elements, expected 3");
        assert_eq!(text(run(3, Addend::None, Output::I8(&mut [0; 3]))), "output holds i8, expected u8");
        assert_eq!(text(run(3, Addend::U8(&[0; 3]), Output::U8(&mut [0; 3]))), "addend holds u8, expected nothing");
    }
}
