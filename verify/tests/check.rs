//! The check, checked: lines survive, kernels that go wrong are caught, shrunk and can be replayed.

use qexact_kernels::{Isa, IsaName, kernels};
use qexact_reference::{CodeType, Rule};
use qexact_verify::case::{Case, RuleForm};
use qexact_verify::check::{Error, Failure, Fault, Options, Summary, Tamper, run, run_tampered};
use qexact_verify::fill::{self, Fill, Random};
use qexact_verify::guard::{Guarded, Place};
use quickcheck::{QuickCheck, TestResult};

#[test]
fn lines_survive_a_round_trip() {
    fn survives(seed: u64, isa: Option<u8>) -> bool {
        let isa = isa.map(|n| IsaName::ALL[n as usize % IsaName::ALL.len()]);
        let case = Case { isa, ..Case::random(&mut Random::new(seed)) };
        case.to_string().parse() == Ok(case)
    }
    QuickCheck::new().tests(5000).quickcheck(survives as fn(u64, Option<u8>) -> bool);
}

#[test]
fn no_line_panics() {
    /// A case with one word replaced, one doubled or one cut short.
    fn is_a_case_or_an_error(seed: u64, at: usize, cut: usize, how: u8) -> TestResult {
        let line = Case::random(&mut Random::new(seed)).to_string();
        let mut words: Vec<&str> = line.split(' ').collect();
        let at = at % words.len();
        match how % 3 {
            0 => words[at] = &words[at][..cut % words[at].len()],
            1 => words.insert(at, words[at]),
            _ => drop(words.remove(at)),
        }
        let line = words.join(" ");
        match line.parse::<Case>() {
            Ok(case) => TestResult::from_bool(case.to_string().parse() == Ok(case)),
            Err(error) => TestResult::from_bool(!error.to_string().is_empty()),
        }
    }
    QuickCheck::new().tests(5000).quickcheck(is_a_case_or_an_error as fn(u64, usize, usize, u8) -> TestResult);
}

#[test]
fn what_a_line_leaves_out_has_a_value() {
    let case: Case = "linear m4k768n10".parse().unwrap();
    let line = "linear m4k768n10 x=u8 zx=128 zw=0 rule=f32_mul:addend:channel:u8:full:convert fill=full seed=0";
    assert_eq!(case.to_string(), line);
    let case: Case = "conv ic4oc8ih1kh1 x=i8".parse().unwrap();
    assert!(case.to_string().starts_with("linear m1k4n8 x=i8 zx=0 "), "a pixel is a row: {case}");
    let case: Case = "linear m1k4n8 x=u3 w=ternary".parse().unwrap();
    assert!(case.to_string().starts_with("linear m1k4n8 x=u3 zx=4 w=ternary zw=0 "), "{case}");
}

#[test]
fn nonsense_is_refused_with_the_reason() {
    let rules = "f32_mul:BIAS:MULTIPLIER:OUTPUT:CLAMP:OVERFLOW, f32_out:SCALE:BIAS:SUM:CLAMP, \
                 KIND:MULTIPLIER:BIAS:OUTPUT:CLAMP with KIND one of f32_real, q31_double_away, q31_double_up, \
                 q31_single, f64_even_before, f64_away_after, pow2_even, pow2_away, pow2_up, or accumulator";
    for (rest, reason) in [
        ("x=u9", "x (input codes) is `u9`, expected one of u2 to u8, i2 to i8".into()),
        ("x", "x (input codes) is ``, expected one of u2 to u8, i2 to i8".into()),
        ("x=u4 zx=16", "zx (input zero point) is 16, expected a value in 0..=15".into()),
        ("w=i3", "w (weight codes) is `i3`, expected one of i8, i4, u4, i2, u2, ternary, binary".into()),
        ("zx=256", "zx (input zero point) is 256, expected a value in 0..=255".into()),
        ("x=i8 zx=128", "zx (input zero point) is 128, expected a value in -128..=127".into()),
        ("zx=1.5", "zx (input zero point) is `1.5`, expected an integer".into()),
        ("zw=two", "zw (weight zero points) is `two`, expected one of 0, one, channel".into()),
        ("rule=q31", format!("rule is `q31`, expected {rules}")),
        ("rule=accumulator:u8", format!("rule is `accumulator:u8`, expected {rules}")),
        (
            "rule=f32_mul:float:one:u8:full:convert",
            "rule (bias) is `float`, expected one of none, i32, addend, fused".into(),
        ),
        ("rule=f32_mul:i32:two:u8:full:convert", "rule (multiplier) is `two`, expected one of one, channel".into()),
        ("rule=f32_mul:i32:one:u7:full:convert", "rule (output) is `u7`, expected one of u8, i8".into()),
        ("rule=f32_mul:i32:one:u8:5:convert", "rule (clamp) is `5`, expected one of full, relu, LO..HI".into()),
        ("rule=f32_mul:i32:one:u8:9..3:convert", "rule (clamp) is `9..3`, expected LO..HI with LO at most HI".into()),
        (
            "rule=f32_mul:i32:one:i8:0..128:convert",
            "rule (upper clamp bound) is 128, expected a value in -128..=127".into(),
        ),
        ("rule=f32_mul:i32:one:u8:full:wrap", "rule (overflow) is `wrap`, expected one of convert, clamp_first".into()),
        ("rule=f32_out:one:bias:twice:full", "rule (sum) is `twice`, expected one of fused, unfused".into()),
        ("rule=q31_double:one:bias:u8:full", format!("rule is `q31_double:one:bias:u8:full`, expected {rules}")),
        ("rule=pow2_up:one:i32:u8:full", "rule (bias) is `i32`, expected one of none, bias".into()),
        ("fill=zeros", "fill is `zeros`, expected one of full, extremes, cycle, ties, overflow, pairs".into()),
        ("seed=-1", "seed is `-1`, expected a number that fits 64 bits".into()),
        ("isa=sse2", "isa is `sse2`, expected one of reference, avx2, avx_vnni, avx512_vnni".into()),
        ("threads=2", "key is `threads`, expected one of x, zx, w, zw, rule, fill, seed, isa".into()),
        ("seed=1 seed=1", "`seed=` appears twice, expected once".into()),
        ("at n0y0", "key is `at`, expected one of x, zx, w, zw, rule, fill, seed, isa".into()),
    ] {
        let error = format!("linear m1k2n3 {rest}").parse::<Case>().unwrap_err();
        assert_eq!(error.to_string(), reason, "{rest}");
    }
    for (line, reason) in [
        (
            "pool ic3oc3",
            "operator is `pool`, expected one of conv, linear, transposed, binary, add, mul, max_pool, avg_pool, \
             mean_pool, lookup, quantize, dequantize, concat, batch_norm",
        ),
        ("linear", "shape: `linear ` is not a linear shape such as `linear m4k768n10`"),
        ("conv ic3oc4ih1kh3", "shape: dilated kernel is 3, expected at most 1, the padded input"),
    ] {
        assert_eq!(line.parse::<Case>().unwrap_err().to_string(), reason, "{line}");
    }
}

#[test]
fn arguments_may_be_quoted_or_not() {
    let [a, b] = ["linear m1k2n3 x=u8 seed=4 isa=avx2", "conv ic3oc4ih5kh3 fill=ties"];
    let parsed = vec![a.parse().unwrap(), b.parse().unwrap()];
    let failed = format!("FAIL {a} kernel=gemm_avx2_6x16 panicked='no linear way'");
    let quoted = format!("{a} kernel=gemm at n0z0y0x0c1 acc=-1 want=0 got=1");
    for arguments in [
        vec![a, b],
        vec![quoted.as_str(), b],
        format!("FAIL {a} {b}").split(' ').collect(),
        vec![failed.as_str(), b],
        [quoted.split(' ').collect(), vec!["FAIL"], b.split(' ').collect()].concat(),
    ] {
        assert_eq!(Case::parse_all(&arguments), Ok(parsed.clone()), "{arguments:?}");
    }
    assert_eq!(Case::parse_all::<&str>([]), Ok(vec![]));
    assert!(Case::parse_all(["x=u8", a]).is_err());
}

fn checked(options: &Options, tamper: &Tamper<'_>) -> (Summary, Vec<Failure>) {
    let mut failures = Vec::new();
    let fail = &mut |failure: &Failure| failures.push(failure.clone());
    let summary = run_tampered(options, &mut |_, _| (), fail, tamper).unwrap();
    (summary, failures)
}

#[test]
fn kernels_pass() {
    let options = Options { outputs: 400_000, seed: 1, ..Options::default() };
    let mut last = (0, 0);
    let summary = run(&options, |done, total| last = (done, total), |failure| eprintln!("{failure}")).unwrap();
    assert!(summary.passed(), "{:?}", summary.failures);
    assert_eq!(last, (400_000, 400_000));
    assert_eq!(summary.isas.len(), Isa::available().count());
    assert_eq!(summary.isas.len() + summary.skipped.len(), IsaName::ALL.len());
    for isa in &summary.isas {
        assert!(isa.outputs >= 400_000);
        assert!(isa.weak * 20 < isa.cases, "most cases prove something: {:?}", summary.weak);
        let name: IsaName = isa.isa.parse().unwrap();
        let unused: Vec<&str> = kernels(name).filter(|&kernel| !isa.kernels.contains_key(kernel)).collect();
        assert!(unused.is_empty(), "{name}: {unused:?} of {:?}", isa.kernels);
    }
}

#[test]
fn a_wrong_output_is_caught_shrunk_and_replayed() {
    // Wrong where the number of products is 3 more than a multiple of 4: in the last output, a bit.
    let wrong = |case: &Case, isa: Isa, output: &mut Guarded, _: &mut Guarded| {
        let hit = isa == Isa::best() && case.shape.depth() % 4 == 3 && case.rule != RuleForm::Accumulator;
        if let Some(byte) = output.bytes_mut().last_mut().filter(|_| hit) {
            *byte ^= 1;
        }
    };
    let case = "conv n2ic21oc40ih9kh3ph1 zx=7 zw=one rule=f32_mul:i32:channel:u8:relu:convert seed=5".parse().unwrap();
    let (summary, failures) = checked(&Options { cases: vec![case], ..Options::default() }, &wrong);
    assert!(failures.is_empty() && summary.passed(), "189 products");

    let case = "conv n2ic23oc40ih9kh3ph1 zx=7 zw=one rule=f32_mul:i32:channel:u8:relu:convert seed=5".parse().unwrap();
    let (summary, failures) = checked(&Options { cases: vec![case], ..Options::default() }, &wrong);
    let [failure] = &failures[..] else { panic!("one failure: {failures:?}") };
    let line = failure.to_string();
    let isa = Isa::best();
    let shrunk =
        format!("FAIL linear m1k3n1 x=u8 zx=7 zw=0 rule=f32_mul:none:one:u8:full:convert fill=full seed=5 isa={isa}");
    assert!(line.starts_with(&shrunk), "{line}");
    assert!(line.contains(" at n0z0y0x0c0 acc="), "{line}");
    assert_eq!(summary.failures, [line.as_str()]);
    assert!(!summary.passed());
    let tally = summary.isas.last().unwrap();
    assert_eq!((tally.failures, tally.differences), (1, 1));

    // The line alone leads to the same failure.
    let cases = Case::parse_all(line.split(' ')).unwrap();
    let (_, again) = checked(&Options { cases, ..Options::default() }, &wrong);
    assert_eq!(again, failures);
}

#[test]
fn operators_are_drawn_caught_shrunk_and_replayed() {
    let options = Options { outputs: 400_000, seed: 2, ..Options::default() };
    let (summary, _) = checked(&options, &|_, _, _, _| ());
    assert!(summary.passed(), "{:?}", summary.failures);
    let names = "transposed binary add mul max_pool avg_pool mean_pool lookup quantize dequantize concat batch_norm";
    for name in names.split(' ') {
        for isa in &summary.isas {
            assert!(isa.kernels.get(name).is_some_and(|&cases| cases >= 10), "{name}: {:?}", isa.kernels);
        }
        let operands = match name {
            "add" | "mul" => 10,
            "quantize" => 20,
            _ => 5,
        };
        let line = match name {
            "transposed" => "transposed n2ic3oc5ih6kh3sh2 seed=6".into(),
            "binary" => "binary n3ic70oc5 seed=6".into(),
            _ => format!("{name} n2ic{operands}oc5g5ih6 seed=6"),
        };
        let case: Case = line.parse().unwrap();
        // Wrong where there are 3 channels or more: in the last output, a bit.
        let wrong = |case: &Case, _: Isa, output: &mut Guarded, _: &mut Guarded| {
            if let Some(byte) = output.bytes_mut().last_mut().filter(|_| case.shape.out_channels >= 3) {
                *byte ^= 1;
            }
        };
        let run = |case| checked(&Options { cases: vec![case], isas: vec![Isa::best()], ..Options::default() }, &wrong);
        let (_, failures) = run(case);
        let line = failures[0].to_string();
        assert!(line.starts_with(&format!("FAIL {name} ")) && line.contains("oc3"), "{line}");
        let (_, again) = run(line.parse().unwrap());
        assert_eq!(again, failures);
    }
}

#[test]
fn wrong_accumulators_are_named_first() {
    let wrong = |case: &Case, _: Isa, output: &mut Guarded, _: &mut Guarded| {
        if case.rule == RuleForm::Accumulator && case.shape.out_channels > 16 {
            output.bytes_mut()[2] ^= 0x80;
        }
    };
    let case = "linear m7k9n40 rule=f32_out:one:bias:fused:full fill=extremes".parse().unwrap();
    let (_, failures) = checked(&Options { cases: vec![case], isas: vec![Isa::best()], seed: 0, outputs: 0 }, &wrong);
    let line = failures[0].to_string();
    assert!(line.starts_with("FAIL linear m1k1n17 "), "{line}");
    assert!(line.contains(" rule=accumulator "), "{line}");
    let Fault::Differs { accumulator, want, .. } = &failures[0].fault else { panic!("{line}") };
    assert_eq!(&accumulator.to_string(), want);
}

#[test]
fn a_byte_written_outside_is_caught() {
    let case: Case = "conv ic5oc7ih6kh3".parse().unwrap();
    for isa in Isa::available() {
        for (at, buffer) in [(0, "output"), (9, "output"), (-1, "output"), (3, "scratch")] {
            let wrong = move |_: &Case, _: Isa, output: &mut Guarded, scratch: &mut Guarded| {
                let (bytes, range) = if buffer == "output" { output } else { scratch }.around_mut();
                let at = if at < 0 { range.start as isize + at } else { range.end as isize + at };
                // A protected page is not to be tried.
                if let Some(byte) = usize::try_from(at).ok().and_then(|at| bytes.get_mut(at)) {
                    *byte = !*byte;
                }
            };
            let options = Options { cases: vec![case], isas: vec![isa], ..Options::default() };
            let (_, failures) = checked(&options, &wrong);
            let Fault::WroteOutside { buffer: named, byte } = failures[0].fault else { panic!("{}", failures[0]) };
            assert_eq!(named, buffer);
            assert!(byte == at || at >= 0 && byte >= at, "{byte}");
            assert!(failures[0].to_string().ends_with(&format!(" wrote outside {buffer} at byte {byte}")));
        }
    }
}

#[test]
fn a_panic_is_a_failure() {
    let wrong = |case: &Case, _: Isa, _: &mut Guarded, _: &mut Guarded| {
        assert!(case.shape.in_channels < 2, "it's {} channels", case.shape.in_channels);
    };
    let case: Case = "linear m1k2n1".parse().unwrap();
    let (_, failures) =
        checked(&Options { cases: vec![case], isas: vec![Isa::REFERENCE], ..Options::default() }, &wrong);
    let line = failures[0].to_string();
    assert!(line.ends_with(" isa=reference kernel=reference panicked='it`s 2 channels'"), "{line}");
    assert_eq!(line.parse(), Ok(failures[0].case));
}

#[test]
fn many_failures_are_counted_and_few_shown() {
    let wrong = |_: &Case, _: Isa, output: &mut Guarded, _: &mut Guarded| output.bytes_mut()[0] ^= 1;
    let options = Options { outputs: 1000, isas: vec![Isa::REFERENCE], ..Options::default() };
    let (summary, failures) = checked(&options, &wrong);
    assert_eq!(failures.len(), 5);
    assert_eq!(summary.isas[0].failures, summary.isas[0].cases);
}

#[test]
fn what_cannot_be_checked_is_an_error() {
    let run = |line: &str| {
        let options = Options { cases: vec![line.parse().unwrap()], ..Options::default() };
        run(&options, |_, _| (), |_| ()).map(drop)
    };
    assert!(matches!(run("linear m1k1n99999999999"), Err(Error::TooLarge { .. })));
    for line in [
        "add ic5oc5g5ih6",
        "lookup ic5oc5g5ih6kh3",
        "lookup ic5oc5g5ih6kh3ph2",
        "max_pool ic5oc5g5ih6kh3ph2",
        "avg_pool ic5oc6ih6kh3",
        "binary ic5oc6ih6kh3",
        "transposed ic5oc6ih1kh3ph2",
    ] {
        assert!(matches!(run(line), Err(Error::Layer { .. })), "{line}");
    }
    for name in IsaName::ALL.into_iter().filter(|&name| Isa::new(name).is_err()) {
        assert!(matches!(run(&format!("linear m1k1n1 isa={name}")), Err(Error::Isa { .. })));
    }
}

#[test]
fn guarded_bytes_lie_where_they_should() {
    for (len, place) in [0, 1, 4095, 4096, 4097, 10_000].into_iter().flat_map(|n| PLACES.map(|place| (n, place))) {
        let codes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        let mut guarded = Guarded::holding(&codes, place).unwrap();
        assert_eq!(guarded.bytes(), codes);
        assert_eq!(guarded.overwritten(), None);
        guarded.bytes_mut().fill(0);
        assert_eq!(guarded.overwritten(), None);
        let (around, range) = guarded.around_mut();
        assert_eq!(range.len(), len);
        match place {
            Place::Start => assert_eq!(range.start, 0),
            Place::Middle => assert!(range.start >= 4096 && around.len() - range.end >= 4000),
            Place::End => assert_eq!(range.end, around.len()),
        }
        let last = around.len() - 1;
        let nearest = if place == Place::End { 0 } else { last };
        around[nearest] = !around[nearest];
        assert_eq!(guarded.overwritten(), Some(nearest as isize - range.start as isize), "{len} {place:?}");
    }
}

const PLACES: [Place; 3] = [Place::Start, Place::Middle, Place::End];

#[test]
fn ties_are_ties() {
    let line = "linear m40k64n40 zx=9 zw=one rule=f32_mul:i32:channel:i8:full:convert fill=ties";
    for seed in 0..20 {
        let case = Case { seed, ..line.parse().unwrap() };
        let zero_points = fill::weight_zero_points(&case);
        let weight = fill::weight(&case, &zero_points);
        let input = fill::input(&case);
        let parts = qexact_reference::layer::LayerParts {
            shape: case.shape,
            input: CodeType::U8,
            input_zero_point: 9,
            weight: &weight,
            weight_zero_point: &zero_points,
            rule: &Rule::Accumulator,
        };
        let layer = qexact_reference::Layer::new(parts).unwrap();
        let accumulators: Vec<i32> = (0..40 * 40).map(|i| layer.accumulator(&input, i / 40, i % 40)).collect();
        let Ok(Rule::F32Mul(rule)) = fill::rule(&case, &accumulators) else { panic!("codes") };
        let is_tie = |&i: &usize| rule.scaled(accumulators[i], i % 40).fract().abs() == 0.5;
        let ties = (0..40 * 40).filter(is_tie).count();
        assert!(ties > 400, "{ties} of 1600");
        assert_eq!(case.fill, Fill::Ties);
    }
}
