//! What happens to accumulators: the parameters of a kernel's epilogue, derived from zero points and rule.
//!
//! With padding that holds z_X, the accumulator of R4 splits into a dot product of raw codes and terms that
//! are known beforehand, K being the number of products:
//!
//! ```text
//! Σ (x − z_X)(w − z_W) = Σ x·w  − z_X · (Σ w − K·z_W)  − z_W · Σ x
//!                        kernel   initial value           row sums, only where z_W ≠ 0
//! ```
//!
//! Signed inputs are read as x + 128: then z_X + 128 takes the place of z_X. All sums wrap in int32, so the
//! order of the terms does not matter.

use crate::aligned::Aligned;
use crate::finish::{Double, Line, Real};
use crate::gather::View;
use crate::pack::Order;
use alloc::vec;
use alloc::vec::Vec;
use qexact_reference::requantize::{Bias, F32Mul, Overflow, Pow2, Rounding, Rule};
use qexact_reference::{CodeType, Layer};

/// What a tile does with its accumulators; a constant parameter of the kernels.
pub(crate) type Store = u8;
/// R6: store codes.
pub(crate) const CODES: Store = 0;
/// R9: store real numbers.
pub(crate) const REALS: Store = 1;
/// Store accumulators.
pub(crate) const ACCUMULATORS: Store = 2;
/// R16: store codes.
pub(crate) const REAL_CODES: Store = 3;
/// R17 with shifts to the right, and ties away from zero or up: store codes.
pub(crate) const DOUBLE_CODES: Store = 4;

/// Bytes of what is stored.
pub(crate) fn element_size(store: Store) -> usize {
    if matches!(store, REALS | ACCUMULATORS) { 4 } else { 1 }
}

/// The parameters of a layer's epilogue; vectors are indexed by position in the panels.
#[derive(Clone, Debug, Default)]
pub(crate) struct Epilogue {
    /// Accumulators begin with this, zero points and an int32 bias: `[view][position]`.
    pub initial: Aligned<i32>,
    /// z_W, or empty where all are 0.
    pub weight_zero_point: Aligned<i32>,
    /// R6: the multiplier; R9, R16: the scale.
    pub multiplier: Aligned<f32>,
    /// R8b, R8c, R9: the float bias, or empty where there is none; R16: −0.0 where there is none.
    pub bias: Aligned<f32>,
    /// R8: factor of the bias, 1 for an addend (a fused multiply-add with factor 1 is a sum).
    pub reciprocal: Aligned<f32>,
    /// R6: added after rounding: the zero point, counted from the smallest code.
    pub zero_point: i16,
    /// R6: what the largest code, counted from the smallest, lacks to 255; added to codes with saturation …
    pub headroom: u8,
    /// … and what they are then too large by, modulo 256.
    pub excess: u8,
    /// R16: the multiplier of real numbers, and the zero point added to their product.
    pub real: [f32; 2],
    /// R17: the slopes of [`Line`]s …
    pub slope: Aligned<f64>,
    /// … and the offsets.
    pub offset: Aligned<f64>,
    /// R17: one less than the shift to the right.
    pub right: Aligned<i32>,
    /// R17: ties of the second rounding go away from zero, not up.
    pub away: bool,
    /// R9: multiply and add with one rounding.
    pub fused: bool,
    /// R9: nothing below zero.
    pub relu: bool,
}

impl Epilogue {
    /// Parameters for a layer's zero point and rule; `views` are the parts of the kernel that rows may see.
    pub(crate) fn new(
        order: &Order,
        views: &[View],
        input: CodeType,
        input_zero_point: i32,
        sums: &ColumnSums,
        rule: &Rule,
    ) -> Epilogue {
        let at = |f: &dyn Fn(usize) -> f32| order.iter().map(|c| c.map_or(0.0, f)).collect::<Aligned<f32>>();
        let x_zero = if input.is_signed() { input_zero_point + 128 } else { input_zero_point };
        let mut e = Epilogue {
            initial: views
                .iter()
                .flat_map(|view| order.iter().map(move |c| c.map_or(0, |c| sums.shifted(c, view))))
                .map(|sum| sum.wrapping_mul(x_zero).wrapping_neg())
                .collect(),
            ..Epilogue::default()
        };
        if sums.zero_points.iter().any(|&z| z != 0) {
            e.weight_zero_point = order.iter().map(|c| c.map_or(0, |c| sums.zero_points[c])).collect();
        }
        match rule {
            Rule::F32Mul(rule) => {
                e.multiplier = at(&|c| rule.multiplier(c));
                match rule.bias() {
                    Bias::None => {}
                    Bias::I32(bias) => e.add_bias(bias, order),
                    Bias::Addend(addend) => {
                        e.bias = at(&|c| one_or(addend, c));
                        e.reciprocal = at(&|_| 1.0);
                    }
                    Bias::Fused { bias, reciprocal } => {
                        e.bias = at(&|c| one_or(bias, c));
                        e.reciprocal = at(&|c| one_or(reciprocal, c));
                    }
                }
                e.store_codes(rule.zero_point(), rule.clamp());
            }
            Rule::F32Real(rule) => {
                let real = Real::new(rule, order.iter().flatten().count());
                e.multiplier = at(&|c| one_or(&rule.scale, c));
                e.bias = at(&|c| if rule.bias.is_empty() { -0.0 } else { one_or(&rule.bias, c) });
                e.real = [real.multiplier, real.zero_point];
                e.store_codes(0, [real.steps.least, real.steps.most]);
            }
            Rule::Q31Double(rule) => {
                let multiplier = |c| one_or(&rule.multiplier, c);
                let line =
                    |part: fn(Line) -> f64| order.iter().map(move |c| c.map_or(0.0, |c| part(Line::of(multiplier(c)))));
                e.slope = line(|line| line.slope).collect();
                e.offset = line(|line| line.offset).collect();
                e.right = order.iter().map(|c| c.map_or(0, |c| -1 - multiplier(c).exponent)).collect();
                e.away = rule.last == Rounding::Away;
                e.add_bias(&rule.bias, order);
                // As they stand in the low half of an f64.
                e.initial.iter_mut().for_each(|initial| *initial ^= i32::MIN);
                e.store_codes(rule.codes.zero_point(), rule.codes.range());
                // Added to twice the steps, before the last rounding.
                e.zero_point = 2 * e.zero_point + 1;
            }
            Rule::F32Out(rule) => {
                e.multiplier = at(&|c| one_or(&rule.scale, c));
                if !rule.bias.is_empty() {
                    e.bias = at(&|c| one_or(&rule.bias, c));
                }
                (e.fused, e.relu) = (rule.fused, rule.relu);
            }
            _ => {}
        }
        e
    }

    /// Adds an int32 bias to what accumulators begin with.
    fn add_bias(&mut self, bias: &[i32], order: &Order) {
        for (initial, channel) in self.initial.iter_mut().zip(order.iter().cycle()) {
            let bias = channel.filter(|_| !bias.is_empty()).map_or(0, |c| one_or(bias, c));
            *initial = initial.wrapping_add(bias);
        }
    }

    /// What makes codes of steps.
    fn store_codes(&mut self, zero_point: i32, [least, most]: [i32; 2]) {
        self.zero_point = (zero_point - least) as i16;
        self.headroom = (255 - (most - least)) as u8;
        self.excess = (255 - most) as u8;
    }
}

pub(crate) fn one_or<T: Copy>(parameter: &[T], channel: usize) -> T {
    if parameter.len() == 1 { parameter[0] } else { parameter[channel] }
}

/// What packing keeps of the weights, so that zero point and rule may still change.
#[derive(Clone, Debug)]
pub(crate) struct ColumnSums {
    /// `Σ (w − z_W)` of each output channel and part of its kernel: `[channel][piece][column]`.
    shifted: Vec<i32>,
    /// Pieces and columns of a kernel.
    parts_of: [usize; 2],
    /// z_W of each output channel.
    zero_points: Vec<i32>,
    /// `Σ max(0, w − z_W)` and `Σ max(0, z_W − w)` of each output channel.
    parts: Vec<[i64; 2]>,
}

impl ColumnSums {
    /// For accumulators that are complete.
    pub(crate) fn none(channels: usize) -> ColumnSums {
        let (shifted, zero_points) = (vec![0; channels], vec![0; channels]);
        ColumnSums { shifted, parts_of: [1, 1], zero_points, parts: vec![[0; 2]; channels] }
    }

    /// What can be left out of a kernel: equal `pieces`, and equal `columns` of each of its rows.
    pub(crate) fn of(layer: &Layer<'_>, [pieces, columns]: [usize; 2]) -> ColumnSums {
        let (depth, axes) = (layer.shape().depth(), &layer.shape().axes);
        let parts_of = [pieces, columns];
        let mut sums = ColumnSums { shifted: Vec::new(), parts_of, zero_points: Vec::new(), parts: Vec::new() };
        // Only where columns can be left out do rows count.
        let in_piece = if columns > 1 { axes[0].kernel * axes[1].kernel / pieces * columns } else { 1 };
        for (channel, weights) in layer.weight().chunks_exact(depth).enumerate() {
            let zero = layer.weight_zero_point(channel);
            let mut parts = [0; 2];
            let first = sums.shifted.len();
            sums.shifted.resize(first + pieces * columns, 0);
            for (at, part) in weights.chunks_exact(depth / pieces / in_piece).enumerate() {
                let [positive, negative] = positive_and_negative(part, zero);
                let sum = &mut sums.shifted[first + at / in_piece * columns + at % columns];
                *sum = sum.wrapping_add((positive - negative) as i32);
                parts = [parts[0] + positive, parts[1] + negative];
            }
            sums.zero_points.push(zero);
            sums.parts.push(parts);
        }
        sums
    }

    /// `Σ (w − z_W)` of what a view sees.
    fn shifted(&self, channel: usize, view: &View) -> i32 {
        let [pieces, columns] = self.parts_of;
        let sums = &self.shifted[channel * pieces * columns..];
        let seen = view.pieces.clone().flat_map(|piece| &sums[piece * columns..][view.columns.clone()]);
        seen.fold(0, |sum, &part| sum.wrapping_add(part))
    }

    /// The largest |accumulator| that any input can produce, before wrapping: positive weights meet the
    /// largest code and negative ones the smallest, or the reverse.
    pub(crate) fn accumulator_bound(&self, input: CodeType, input_zero_point: i32) -> i64 {
        let (above, below) = (i64::from(input.hi() - input_zero_point), i64::from(input_zero_point - input.lo()));
        let extremes = |[positive, negative]: &[i64; 2]| {
            (positive * above + negative * below).max(positive * below + negative * above)
        };
        self.parts.iter().map(extremes).max().unwrap_or(0)
    }
}

/// `Σ max(0, w − z_W)` and `Σ max(0, z_W − w)`.
fn positive_and_negative(weights: &[i8], zero: i32) -> [i64; 2] {
    // So many differences of at most 383 fit an int32.
    weights.chunks(1 << 20).fold([0; 2], |[positive, negative], weights| {
        let [p, n] = weights.iter().fold([0; 2], |[p, n], &w| {
            let difference = i32::from(w) - zero;
            [p + difference.max(0), n - difference.min(0)]
        });
        [positive + i64::from(p), negative + i64::from(n)]
    })
}

/// R20 by the operations of R6: a power of two is a multiplier. With ties to even and shifts by 1 to 16, an accumulator
/// below 2²⁴ and its product are exact; a larger one is at least 2⁸ steps from the zero point, as is its product, which
/// fits an int32.
pub(crate) fn pow2_as_f32_mul(rule: &Pow2) -> Option<F32Mul> {
    if rule.rounding != Rounding::Even || !rule.shift.iter().all(|shift| (1..=16).contains(shift)) {
        return None;
    }
    let multiplier = rule.shift.iter().map(|shift| 1.0 / (1u32 << shift) as f32).collect();
    let bias = if rule.bias.is_empty() { Bias::None } else { Bias::I32(rule.bias.clone()) };
    let [lo, hi] = rule.codes.range();
    F32Mul::new(multiplier, bias, rule.codes.zero_point(), rule.codes.code_type()).and_then(|r| r.clamped(lo, hi)).ok()
}

/// How a kernel finishes a tile: with the rule built in, or with accumulators that the reference's rule finishes.
pub(crate) fn store_for(rule: &Rule, channels: usize, accumulator_bound: i64) -> Option<Store> {
    match rule {
        Rule::F32Mul(rule) => match rule.overflow_mode() {
            Overflow::Convert => Some(CODES),
            // Where nothing can overflow, clamping before or after rounding is the same.
            Overflow::ClampFirst if fits_i32(rule, channels, accumulator_bound) => Some(CODES),
            Overflow::ClampFirst => None,
        },
        Rule::F32Out(_) => Some(REALS),
        Rule::Accumulator => Some(ACCUMULATORS),
        _ => None,
    }
}

/// The same for rules that only some kernels have built in.
pub(crate) fn more_stores_for(rule: &Rule, channels: usize) -> Option<Store> {
    match rule {
        Rule::F32Real(rule) if Real::new(rule, channels).is_plain() => Some(REAL_CODES),
        Rule::Q31Double(rule) if rule.last != Rounding::Even && Double::new(rule, channels).shifts_right => {
            Some(DOUBLE_CODES)
        }
        _ => None,
    }
}

/// Whether no accumulator within the bound scales to a number outside the int32 range (or to NaN).
fn fits_i32(rule: &F32Mul, channels: usize, accumulator_bound: i64) -> bool {
    (0..channels).all(|c| {
        let bias = match rule.bias() {
            Bias::None => 0.0,
            Bias::I32(bias) => f64::from(one_or(bias, c)),
            Bias::Addend(addend) => f64::from(one_or(addend, c)),
            Bias::Fused { bias, reciprocal } => f64::from(one_or(bias, c)) * f64::from(one_or(reciprocal, c)),
        };
        let sum = accumulator_bound as f64 + bias.abs();
        // An int32 bias must not wrap; three f32 roundings grow a product by less than one part in 2^20.
        let limit = 2147483648.0 * (1.0 - 1.0 / 1048576.0);
        let wraps = matches!(rule.bias(), Bias::I32(_)) && sum >= limit;
        // A fused bias alone may exceed what f32 holds: then the product is infinite, however small the multiplier.
        let overflows = sum >= f64::from(f32::MAX) / 2.0;
        !wraps && !overflows && sum * f64::from(rule.multiplier(c)).abs() < limit
    })
}
