//! One generated test of one layer or operator, as one line of text each way.
//!
//! ```
//! use qexact_verify::case::Case;
//!
//! let line = "conv ic64oc64ih56kh3ph1 x=u8 zx=131 zw=channel \
//!             rule=f32_mul:addend:channel:u8:relu:convert fill=full seed=7 isa=avx_vnni";
//! let case: Case = line.parse()?;
//! assert_eq!(case.to_string(), line);
//! # Ok::<(), qexact_verify::case::CaseError>(())
//! ```
//!
//! | part | values | if missing |
//! |---|---|---|
//! | shape | `conv …`, `linear …`, see [`qexact_reference::shape`] | |
//! | `x` | input codes: `u8`, `i8`, or of 2 to 7 bits: `u2`, `i2`, … | `u8` |
//! | `zx` | input zero point | middle of the range |
//! | `w` | weight codes: `i8`, or packed ones: `i4`, `u4`, `i2`, `u2`, `ternary`, `binary` | `i8` |
//! | `zw` | weight zero points: `0`, `one` (for all), one a `channel` | `0` |
//! | `rule` | `f32_mul:BIAS:MULTIPLIER:OUTPUT:CLAMP:OVERFLOW` with BIAS `none`, `i32`, `addend`, `fused`; MULTIPLIER `one`, `channel`; OUTPUT `u8`, `i8`; CLAMP `full`, `relu`, `LO..HI`; OVERFLOW `convert`, `clamp_first` | `f32_mul:addend:channel:u8:full:convert` |
//! | | `f32_out:SCALE:BIAS:SUM:CLAMP` with SCALE `one`, `channel`; BIAS `none`, `bias`; SUM `fused`, `unfused`; CLAMP `full`, `relu` | |
//! | | `KIND:MULTIPLIER:BIAS:OUTPUT:CLAMP` with KIND `f32_real`, `q31_double_away`, `q31_double_up`, `q31_single`, `f64_even_before`, `f64_away_after`, `pow2_even`, `pow2_away`, `pow2_up`; MULTIPLIER `one`, `channel`; BIAS `none`, `bias`; OUTPUT and CLAMP as above | |
//! | | `accumulator` | |
//! | `fill` | `full`, `extremes`, `cycle`, `ties`, `overflow`, `pairs`, see [`Fill`] | `full` |
//! | `seed` | everything that the line does not say follows from it | `0` |
//! | `isa` | instruction set | all |
//!
//! Other operators are shapes of a convolution behind their name: `transposed ic3oc5ih6kh3sh2` with the input and the kernel
//! of that, `binary ic300oc7` a linear layer of binary codes over the pixels; `add`, `mul` (two input channels for each
//! output channel, `ic64oc32g32ih5`), `max_pool`, `avg_pool`, `mean_pool`, `lookup`, `dequantize`, `concat`,
//! `batch_norm` (one) and `quantize` (the four bytes of a real number) are depthwise. The rules of the last ten follow
//! from the seed.
//!
//! What a check prints about a failed case parses as that case: a leading `FAIL` and everything from `kernel=`
//! on are skipped.

use crate::fill::{self, Fill};
use qexact_kernels::{Choice, IsaName, choose, choose_narrow};
use qexact_reference::layer::LayerParts;
use qexact_reference::requantize::{Overflow, Rounding, ZeroPoint};
use qexact_reference::{Axis, CodeType, Conv, Layer, Linear, NarrowType, PackedCodes, Rule};
use std::fmt;
use std::str::FromStr;

/// Everything that makes one test of one layer or operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// What is computed.
    pub operator: Operator,
    /// Geometry, batch included.
    pub shape: Conv,
    /// The input's codes, of at least 2 bits.
    pub input: CodeType,
    /// The code of zero in the input.
    pub input_zero_point: i32,
    /// The weights' codes where they are packed ([`Plan::from_packed`](qexact_kernels::Plan::from_packed)), else i8.
    pub weight: Option<NarrowType>,
    /// Which weight zero points there are.
    pub weight_zero_points: ZeroPoints,
    /// What becomes of the accumulators.
    pub rule: RuleForm,
    /// The kind of data.
    pub fill: Fill,
    /// Where data and parameters come from.
    pub seed: u64,
    /// The instruction set to check, if not all.
    pub isa: Option<IsaName>,
}

/// What a case computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// A convolution or linear layer.
    Layer,
    /// R42.
    Transposed,
    /// R44.
    Binary,
    /// R25.
    Add,
    /// R26.
    Mul,
    /// R11.
    MaxPool,
    /// R12.
    AvgPool,
    /// R30.
    MeanPool,
    /// R27.
    Lookup,
    /// R22.
    Quantize,
    /// R23.
    Dequantize,
    /// R29.
    Concat,
    /// R10.
    BatchNorm,
}

impl Operator {
    /// Those of [`OPERATORS`], of which [`Layer`](Operator::Layer) is none.
    pub(crate) fn others() -> impl Iterator<Item = Operator> {
        OPERATORS.iter().map(|&(_, operator)| operator)
    }

    /// Whether it sums products that a rule then takes to outputs.
    pub(crate) fn accumulates(self) -> bool {
        matches!(self, Operator::Layer | Operator::Transposed | Operator::Binary)
    }

    /// Input bytes of an output, of those that do not accumulate.
    pub(crate) fn operands(self) -> usize {
        match self {
            Operator::Add | Operator::Mul => 2,
            Operator::Quantize => 4,
            _ => 1,
        }
    }
}

/// Weight zero points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroPoints {
    /// All are 0.
    Zero,
    /// One for all channels.
    One,
    /// One an output channel.
    PerChannel,
}

/// A [`Rule`] without its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RuleForm {
    /// R6: codes.
    F32Mul(F32MulForm),
    /// R9: real numbers.
    F32Out(F32OutForm),
    /// R16 to R20: codes, in a second step after the kernel.
    Other(OtherForm),
    /// Accumulators.
    Accumulator,
}

/// An [`F32Mul`](qexact_reference::requantize::F32Mul) without its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct F32MulForm {
    /// How the bias enters.
    pub bias: BiasForm,
    /// A multiplier for every channel, or one for all.
    pub per_channel: bool,
    /// The codes produced: [`CodeType::U8`] or [`CodeType::I8`].
    pub output: CodeType,
    /// Which of them.
    pub clamp: Clamp,
    /// What happens to products that do not fit an int32.
    pub overflow: Overflow,
}

/// An [`F32Out`](qexact_reference::requantize::F32Out) without its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct F32OutForm {
    /// A scale for every channel, or one for all.
    pub per_channel: bool,
    /// Whether a bias is added.
    pub bias: bool,
    /// Multiply and add with one rounding.
    pub fused: bool,
    /// Nothing below zero.
    pub relu: bool,
}

/// A rule of R16 to R20 without its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherForm {
    /// Which.
    pub kind: Kind,
    /// A multiplier for every channel, or one for all.
    pub per_channel: bool,
    /// Whether a bias is added.
    pub bias: bool,
    /// The codes produced: [`CodeType::U8`] or [`CodeType::I8`].
    pub output: CodeType,
    /// Which of them.
    pub clamp: Clamp,
}

/// R16 to R20, and how they round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// R16.
    F32Real,
    /// R17, with its second rounding.
    Q31Double(Rounding),
    /// R18.
    Q31Single,
    /// R19, and when the zero point is added.
    F64(Rounding, ZeroPoint),
    /// R20.
    Pow2(Rounding),
}

/// A [`Bias`](qexact_reference::requantize::Bias) without its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BiasForm {
    /// There is none.
    None,
    /// R8a.
    I32,
    /// R8b.
    Addend,
    /// R8c.
    Fused,
}

/// The codes that a rule may produce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clamp {
    /// All of its output's.
    Full,
    /// None below the zero point.
    Relu,
    /// These, both bounds included.
    Range(i32, i32),
}

/// Why a line is not a case.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CaseError {
    /// A part has a value that means nothing.
    #[error("{part} is `{got}`, expected {expected}")]
    Part {
        /// Which part.
        part: &'static str,
        /// Its value.
        got: String,
        /// What it should have been.
        expected: String,
    },
    /// A part is there twice.
    #[error("`{0}=` appears twice, expected once")]
    Twice(&'static str),
    /// The shape is refused.
    #[error("shape: {0}")]
    Shape(qexact_reference::Error),
    /// A number is refused.
    #[error(transparent)]
    Number(#[from] qexact_reference::Error),
}

type Result<T> = std::result::Result<T, CaseError>;

/// Values and what they are called.
type Names<T> = &'static [(&'static str, T)];

const OPERATORS: Names<Operator> = &[
    ("transposed", Operator::Transposed),
    ("binary", Operator::Binary),
    ("add", Operator::Add),
    ("mul", Operator::Mul),
    ("max_pool", Operator::MaxPool),
    ("avg_pool", Operator::AvgPool),
    ("mean_pool", Operator::MeanPool),
    ("lookup", Operator::Lookup),
    ("quantize", Operator::Quantize),
    ("dequantize", Operator::Dequantize),
    ("concat", Operator::Concat),
    ("batch_norm", Operator::BatchNorm),
];
const CODES: Names<CodeType> = &[("u8", CodeType::U8), ("i8", CodeType::I8)];
const WEIGHTS: Names<Option<NarrowType>> = &[
    ("i8", None),
    ("i4", Some(NarrowType::I4)),
    ("u4", Some(NarrowType::U4)),
    ("i2", Some(NarrowType::I2)),
    ("u2", Some(NarrowType::U2)),
    ("ternary", Some(NarrowType::Ternary)),
    ("binary", Some(NarrowType::Binary)),
];
const ZERO_POINTS: Names<ZeroPoints> =
    &[("0", ZeroPoints::Zero), ("one", ZeroPoints::One), ("channel", ZeroPoints::PerChannel)];
const BIASES: Names<BiasForm> =
    &[("none", BiasForm::None), ("i32", BiasForm::I32), ("addend", BiasForm::Addend), ("fused", BiasForm::Fused)];
const PER_CHANNEL: Names<bool> = &[("one", false), ("channel", true)];
const OVERFLOWS: Names<Overflow> = &[("convert", Overflow::Convert), ("clamp_first", Overflow::ClampFirst)];
const KINDS: Names<Kind> = &[
    ("f32_real", Kind::F32Real),
    ("q31_double_away", Kind::Q31Double(Rounding::Away)),
    ("q31_double_up", Kind::Q31Double(Rounding::Up)),
    ("q31_single", Kind::Q31Single),
    ("f64_even_before", Kind::F64(Rounding::Even, ZeroPoint::BeforeRounding)),
    ("f64_away_after", Kind::F64(Rounding::Away, ZeroPoint::AfterRounding)),
    ("pow2_even", Kind::Pow2(Rounding::Even)),
    ("pow2_away", Kind::Pow2(Rounding::Away)),
    ("pow2_up", Kind::Pow2(Rounding::Up)),
];
const HAS_BIAS: Names<bool> = &[("none", false), ("bias", true)];
const FUSED: Names<bool> = &[("fused", true), ("unfused", false)];
const RELU: Names<bool> = &[("full", false), ("relu", true)];
const FILLS: Names<Fill> = &[
    ("full", Fill::Full),
    ("extremes", Fill::Extremes),
    ("cycle", Fill::Cycle),
    ("ties", Fill::Ties),
    ("overflow", Fill::Overflow),
    ("pairs", Fill::Pairs),
];
const KEYS: [&str; 8] = ["x", "zx", "w", "zw", "rule", "fill", "seed", "isa"];

fn name<T: Copy + PartialEq>(names: Names<T>, value: T) -> &'static str {
    names.iter().find(|(_, v)| *v == value).map_or("?", |(name, _)| name)
}

fn one_of<T: Copy>(part: &'static str, text: &str, names: Names<T>) -> Result<T> {
    let expected = || {
        let list: Vec<_> = names.iter().map(|(name, _)| *name).collect();
        format!("one of {}", list.join(", "))
    };
    names.iter().find(|(name, _)| *name == text).map(|(_, v)| *v).ok_or_else(|| unexpected(part, text, expected()))
}

/// Codes of an input: `u` or `i`, and bits.
fn input_codes(text: &str) -> Result<CodeType> {
    let known = (2..=8).flat_map(|bits| [false, true].map(|signed| CodeType::new(bits, signed)));
    let found = known.flatten().find(|codes| codes.to_string() == text);
    found.ok_or_else(|| unexpected("x (input codes)", text, "one of u2 to u8, i2 to i8"))
}

fn number<T: FromStr>(part: &'static str, text: &str, expected: &str) -> Result<T> {
    text.parse().map_err(|_| unexpected(part, text, expected))
}

fn unexpected(part: &'static str, got: &str, expected: impl Into<String>) -> CaseError {
    CaseError::Part { part, got: got.into(), expected: expected.into() }
}

impl Case {
    /// The kernel that its plan gets, its weights being what they are; the name of what has no plan of its own.
    pub(crate) fn kernel(&self, isa: IsaName) -> String {
        if self.operator != Operator::Layer {
            return name(OPERATORS, self.operator).into();
        }
        let choice =
            self.weight.map_or_else(|| choose(isa, &self.shape), |weight| choose_narrow(isa, &self.shape, weight));
        let proven = || -> std::result::Result<Choice, qexact_reference::Error> {
            let mut zero_points = fill::weight_zero_points(self);
            let mut weight = fill::weight(self, &zero_points);
            if let Some(codes) = self.weight {
                let packed = PackedCodes::pack(codes, self.shape.depth(), &weight)?;
                (weight, zero_points) = packed.signed_weights(&zero_points)?;
            }
            let layer = Layer::new(LayerParts {
                shape: self.shape,
                input: self.input,
                input_zero_point: self.input_zero_point,
                weight: &weight,
                weight_zero_point: &zero_points,
                rule: &Rule::Accumulator,
            })?;
            Ok(choice.for_layer(&layer))
        };
        proven().unwrap_or(choice).to_string()
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.operator, as_linear(&self.shape)) {
            (Operator::Layer, Some(linear)) => write!(f, "{linear}")?,
            (Operator::Layer, None) => write!(f, "{}", self.shape)?,
            (operator, _) => {
                write!(f, "{}{}", name(OPERATORS, operator), self.shape.to_string().trim_start_matches("conv"))?;
            }
        }
        write!(f, " x={} zx={}", self.input, self.input_zero_point)?;
        self.weight.map_or(Ok(()), |weight| write!(f, " w={weight}"))?;
        write!(f, " zw={} rule={}", name(ZERO_POINTS, self.weight_zero_points), self.rule)?;
        write!(f, " fill={} seed={}", name(FILLS, self.fill), self.seed)?;
        self.isa.map_or(Ok(()), |isa| write!(f, " isa={isa}"))
    }
}

/// The linear layer that a convolution over images of one pixel is.
fn as_linear(shape: &Conv) -> Option<Linear> {
    let linear = Linear { rows: shape.batch, in_features: shape.in_channels, out_features: shape.out_channels };
    (shape.groups == 1 && shape.axes == [Axis::UNIT; 3]).then_some(linear)
}

impl FromStr for Case {
    type Err = CaseError;

    fn from_str(text: &str) -> Result<Case> {
        let mut words = text.split_whitespace().skip_while(|&word| word == "FAIL").take_while(|w| !is_result(w));
        let (operator, extents) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let shape = match operator {
            "linear" => format!("linear {extents}").parse::<Linear>().map(Conv::from),
            _ => format!("conv {extents}").parse(),
        };
        let operator = match operator {
            "conv" | "linear" => Operator::Layer,
            _ => one_of("operator", operator, OPERATORS).map_err(|_| unexpected_operator(operator))?,
        };
        let shape = shape.map_err(CaseError::Shape)?;
        let mut values = [None; KEYS.len()];
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            let known = KEYS.iter().position(|&k| k == key);
            let at = known.ok_or_else(|| unexpected("key", key, format!("one of {}", KEYS.join(", "))))?;
            if values[at].replace(value).is_some() {
                return Err(CaseError::Twice(KEYS[at]));
            }
        }
        let [x, zx, w, zw, rule, fill, seed, isa] = values;
        let named = |isa: &str| isa.parse().map_err(|_| unexpected("isa", isa, names_of_isas()));
        let input = input_codes(x.unwrap_or("u8"))?;
        let middle = (input.lo() + input.hi() + 1) / 2;
        let input_zero_point = zx.map_or(Ok(middle), |zx| number("zx (input zero point)", zx, "an integer"))?;
        input.check("zx (input zero point)", input_zero_point)?;
        Ok(Case {
            operator,
            shape,
            input,
            input_zero_point,
            weight: one_of("w (weight codes)", w.unwrap_or("i8"), WEIGHTS)?,
            weight_zero_points: one_of("zw (weight zero points)", zw.unwrap_or("0"), ZERO_POINTS)?,
            rule: rule.unwrap_or("f32_mul:addend:channel:u8:full:convert").parse()?,
            fill: one_of("fill", fill.unwrap_or("full"), FILLS)?,
            seed: number("seed", seed.unwrap_or("0"), "a number that fits 64 bits")?,
            isa: isa.map(named).transpose()?,
        })
    }
}

fn unexpected_operator(got: &str) -> CaseError {
    let names: Vec<_> = OPERATORS.iter().map(|(name, _)| *name).collect();
    unexpected("operator", got, format!("one of conv, linear, {}", names.join(", ")))
}

/// Whether a word begins a case.
fn is_operator(word: &str) -> bool {
    matches!(word, "conv" | "linear") || OPERATORS.iter().any(|(name, _)| *name == word)
}

fn names_of_isas() -> String {
    format!("one of {}", IsaName::ALL.map(IsaName::as_str).join(", "))
}

/// Whether a word begins what is reported about a case.
fn is_result(word: &str) -> bool {
    word.starts_with("kernel=")
}

impl Case {
    /// The cases in a command line's arguments: quoted or not, one or many, lines of failures among them.
    ///
    /// # Errors
    /// The first that is not a case.
    pub fn parse_all<S: AsRef<str>>(arguments: impl IntoIterator<Item = S>) -> Result<Vec<Case>> {
        let mut lines: Vec<String> = Vec::new();
        let mut in_result = false;
        for argument in arguments {
            for (at, word) in argument.as_ref().split_whitespace().enumerate() {
                let after_fail = lines.last().is_some_and(|line| line == "FAIL");
                let operator = is_operator(word) && !after_fail && (at == 0 || !in_result);
                if lines.is_empty() || word == "FAIL" || operator {
                    lines.push(word.into());
                    in_result = false;
                } else if let Some(line) = lines.last_mut() {
                    *line = format!("{line} {word}");
                    in_result |= is_result(word);
                }
            }
        }
        lines.iter().map(|line| line.parse()).collect()
    }
}

impl fmt::Display for RuleForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            RuleForm::F32Mul(F32MulForm { bias, per_channel, output, clamp, overflow }) => {
                let (bias, multiplier) = (name(BIASES, bias), name(PER_CHANNEL, per_channel));
                write!(f, "f32_mul:{bias}:{multiplier}:{}:{clamp}:{}", name(CODES, output), name(OVERFLOWS, overflow))
            }
            RuleForm::F32Out(F32OutForm { per_channel, bias, fused, relu }) => {
                let (scale, bias) = (name(PER_CHANNEL, per_channel), name(HAS_BIAS, bias));
                write!(f, "f32_out:{scale}:{bias}:{}:{}", name(FUSED, fused), name(RELU, relu))
            }
            RuleForm::Other(OtherForm { kind, per_channel, bias, output, clamp }) => {
                let (multiplier, bias) = (name(PER_CHANNEL, per_channel), name(HAS_BIAS, bias));
                write!(f, "{}:{multiplier}:{bias}:{}:{clamp}", name(KINDS, kind), name(CODES, output))
            }
            RuleForm::Accumulator => f.write_str("accumulator"),
        }
    }
}

impl FromStr for RuleForm {
    type Err = CaseError;

    fn from_str(text: &str) -> Result<RuleForm> {
        let parts: Vec<&str> = text.split(':').collect();
        match parts[..] {
            ["f32_mul", bias, multiplier, output, clamp, overflow] => {
                let output = one_of("rule (output)", output, CODES)?;
                Ok(RuleForm::F32Mul(F32MulForm {
                    bias: one_of("rule (bias)", bias, BIASES)?,
                    per_channel: one_of("rule (multiplier)", multiplier, PER_CHANNEL)?,
                    output,
                    clamp: Clamp::parse(clamp, output)?,
                    overflow: one_of("rule (overflow)", overflow, OVERFLOWS)?,
                }))
            }
            ["f32_out", scale, bias, sum, clamp] => Ok(RuleForm::F32Out(F32OutForm {
                per_channel: one_of("rule (scale)", scale, PER_CHANNEL)?,
                bias: one_of("rule (bias)", bias, HAS_BIAS)?,
                fused: one_of("rule (sum)", sum, FUSED)?,
                relu: one_of("rule (clamp)", clamp, RELU)?,
            })),
            ["accumulator"] => Ok(RuleForm::Accumulator),
            [kind, multiplier, bias, output, clamp] if KINDS.iter().any(|(name, _)| *name == kind) => {
                let output = one_of("rule (output)", output, CODES)?;
                Ok(RuleForm::Other(OtherForm {
                    kind: one_of("rule", kind, KINDS)?,
                    per_channel: one_of("rule (multiplier)", multiplier, PER_CHANNEL)?,
                    bias: one_of("rule (bias)", bias, HAS_BIAS)?,
                    output,
                    clamp: Clamp::parse(clamp, output)?,
                }))
            }
            _ => {
                let kinds: Vec<_> = KINDS.iter().map(|(name, _)| *name).collect();
                let expected = format!(
                    "f32_mul:BIAS:MULTIPLIER:OUTPUT:CLAMP:OVERFLOW, f32_out:SCALE:BIAS:SUM:CLAMP, \
                     KIND:MULTIPLIER:BIAS:OUTPUT:CLAMP with KIND one of {}, or accumulator",
                    kinds.join(", ")
                );
                Err(unexpected("rule", text, expected))
            }
        }
    }
}

impl fmt::Display for Clamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Clamp::Full => f.write_str("full"),
            Clamp::Relu => f.write_str("relu"),
            Clamp::Range(lo, hi) => write!(f, "{lo}..{hi}"),
        }
    }
}

impl Clamp {
    /// The smallest and largest code of the output, a ReLU aside.
    pub(crate) fn range(self, output: CodeType) -> (i32, i32) {
        match self {
            Clamp::Range(lo, hi) => (lo, hi),
            Clamp::Full | Clamp::Relu => (output.lo(), output.hi()),
        }
    }

    fn parse(text: &str, output: CodeType) -> Result<Clamp> {
        const PART: &str = "rule (clamp)";
        const EXPECTED: &str = "one of full, relu, LO..HI";
        let (lo, hi) = match (text, text.split_once("..")) {
            ("full", _) => return Ok(Clamp::Full),
            ("relu", _) => return Ok(Clamp::Relu),
            (_, Some((lo, hi))) => (number(PART, lo, EXPECTED)?, number(PART, hi, EXPECTED)?),
            (_, None) => return Err(unexpected(PART, text, EXPECTED)),
        };
        output.check("rule (lower clamp bound)", lo)?;
        output.check("rule (upper clamp bound)", hi)?;
        if lo > hi { Err(unexpected(PART, text, "LO..HI with LO at most HI")) } else { Ok(Clamp::Range(lo, hi)) }
    }
}
