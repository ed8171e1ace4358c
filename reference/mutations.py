"""What rules say and which test says so: changes one detail of a rule at a time and records the tests that fail.

    python reference/mutations.py [--only TEXT] [--folder FOLDER] [--markdown reference/MUTATIONS.md]

Works on a copy of the tracked files, never on the tree itself. Exits with 1 if the unit tests of `qexact-reference` all
pass with a change. Takes seconds for each: it is run by hand when a rule changes. What was found is kept in FOLDER and
not computed again there.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent

# Rule, detail, file below reference/src, text that occurs there once, what it becomes.
MUTATIONS = [
    # R1
    ("R1", "overflow upwards saturates", "float.rs", "nearest(v.into()) } else { i32::MIN }", "nearest(v.into()) } else if v >= 2147483648.0 { i32::MAX } else { i32::MIN }"),
    ("R1", "NaN converts to 0", "float.rs", "nearest(v.into()) } else { i32::MIN }", "nearest(v.into()) } else if v.is_nan() { 0 } else { i32::MIN }"),
    ("R1", "ties away from zero", "float.rs", "if (-2147483648.0..2147483648.0).contains(&v) { nearest(v.into()) }", "if (-2147483648.0..2147483648.0).contains(&v) { v.round() as i32 }"),
    ("R1", "towards zero", "float.rs", "if (-2147483648.0..2147483648.0).contains(&v) { nearest(v.into()) }", "if (-2147483648.0..2147483648.0).contains(&v) { v as i32 }"),
    ("R1", "a multiply-add of two roundings", "float.rs", "return a.mul_add(b, c);", "return a * b + c;"),
    ("R1", "a multiply-add rounded to f64 first", "float.rs", "return a.mul_add(b, c);", "return (f64::from(a) * f64::from(b) + f64::from(c)) as f32;"),
    # R2
    ("R2", "a division for the product with the reciprocal", "quantization.rs", "let t = x * self.multiplier;", "let t = x / (1.0 / self.multiplier);"),
    ("R2", "the reciprocal in f64", "quantization.rs", "multiplier: 1.0 / self.scale as f32,", "multiplier: (1.0 / self.scale) as f32,"),
    ("R2", "the zero point inside the rounding", "quantization.rs", "cvt(t).wrapping_add(self.zero_point).clamp(self.lo, self.hi)", "cvt(t + self.zero_point as f32).clamp(self.lo, self.hi)"),
    ("R2", "ties away from zero", "quantization.rs", "cvt(t).wrapping_add(self.zero_point)", "(t.round() as i32).wrapping_add(self.zero_point)"),
    ("R2", "the sum saturates", "quantization.rs", "cvt(t).wrapping_add(self.zero_point)", "cvt(t).saturating_add(self.zero_point)"),
    ("R2", "no limit below 2³¹", "quantization.rs", "let t = if t < BELOW_2_31 { t } else { BELOW_2_31 };", "let t = if t < BELOW_2_31 || t >= BELOW_2_31 { t } else { BELOW_2_31 };"),
    ("R2", "NaN stays", "quantization.rs", "let t = if t < BELOW_2_31 { t } else { BELOW_2_31 };", "let t = if t > BELOW_2_31 { BELOW_2_31 } else { t };"),
    # R3
    ("R3", "the product in f64", "quantization.rs", "self.scale as f32 * code.wrapping_sub(self.zero_point) as f32", "(self.scale * f64::from(code.wrapping_sub(self.zero_point))) as f32"),
    ("R3", "two products and a difference", "quantization.rs", "self.scale as f32 * code.wrapping_sub(self.zero_point) as f32", "self.scale as f32 * code as f32 - self.scale as f32 * self.zero_point as f32"),
    # R4
    ("R4", "sums saturate", "layer.rs", "sum = sum.wrapping_add(dot(x, zx, weight, zw));", "sum = sum.saturating_add(dot(x, zx, weight, zw));"),
    ("R4", "products saturate pair by pair in 16 bits", "layer.rs", "sum.wrapping_add(i32::from(x - zx) * i32::from(i16::from(w) - zw))", "sum.wrapping_add((i32::from(x - zx) * i32::from(i16::from(w) - zw)).clamp(-32768, 32767))"),
    ("R4", "padding holds 0", "layer.rs", "                sum = sum.wrapping_add(dot(x, zx, weight, zw));\n            }", "                sum = sum.wrapping_add(dot(x, zx, weight, zw));\n            } else {\n                for &w in weight { sum = sum.wrapping_sub(zx * (i32::from(w) - zw)); }\n            }"),
    ("R4", "the weight zero point is not subtracted", "layer.rs", "i32::from(i16::from(w) - zw)", "i32::from(i16::from(w) - zw * 0)"),
    ("R4", "the input zero point is not subtracted", "layer.rs", "i32::from(x - zx)", "i32::from(x - zx * 0)"),
    # R6
    ("R6", "the zero point inside the rounding, convert", "requantize/f32_mul.rs", "cvt(v).saturating_add(zero_point).clamp(lo, hi)", "cvt(v + zero_point as f32).clamp(lo, hi)"),
    ("R6", "ties away from zero, convert", "requantize/f32_mul.rs", "cvt(v).saturating_add(zero_point)", "(v.round() as i32).saturating_add(zero_point)"),
    ("R6", "overflow saturates", "requantize/f32_mul.rs", "cvt(v).saturating_add(zero_point)", "(float::round_ties_even(v) as i32).saturating_add(zero_point)"),
    ("R6", "the sum with the zero point wraps", "requantize/f32_mul.rs", "cvt(v).saturating_add(zero_point)", "cvt(v).wrapping_add(zero_point)"),
    ("R6", "clamp first: ties away from zero", "requantize/f32_mul.rs", "cvt(v) + zero_point", "v.round() as i32 + zero_point"),
    ("R6", "clamp first: the zero point inside the rounding", "requantize/f32_mul.rs", "cvt(v) + zero_point", "cvt(v + zero_point as f32)"),
    ("R6", "clamp first: overflow converts", "requantize/f32_mul.rs", "Overflow::ClampFirst => {\n                let v = float::clamp(v, (lo - zero_point) as f32, (hi - zero_point) as f32);", "Overflow::ClampFirst => {\n                let v = float::clamp(cvt(v) as f32, (lo - zero_point) as f32, (hi - zero_point) as f32);"),
    ("R6", "the product in f64", "requantize/f32_mul.rs", "        v * per_channel(&self.multiplier, channel)\n    }", "        (f64::from(v) * f64::from(per_channel(&self.multiplier, channel))).round_ties_even() as f32\n    }"),
    ("R6", "the accumulator in f64", "requantize/f32_mul.rs", "Bias::None => accumulator as f32,", "Bias::None => return (f64::from(accumulator) * f64::from(per_channel(&self.multiplier, channel))) as f32,"),
    ("R6", "a fused ReLU is forgotten", "requantize/mod.rs", "self.lo = self.lo.max(self.zero_point);", "self.lo = self.lo.max(self.lo);"),
    ("R6", "a fused ReLU bounds at 0", "requantize/mod.rs", "self.lo = self.lo.max(self.zero_point);", "self.lo = self.lo.max(0);"),
    # R7
    ("R7", "a reciprocal for the division", "preset/torch.rs", "s_aw / scales.output.scale() as f32).collect()", "s_aw * (1.0 / scales.output.scale() as f32)).collect()"),
    ("R7", "in f64, rounded once", "preset/torch.rs", "let multiplier = s_aw.iter().map(|s_aw| s_aw / scales.output.scale() as f32).collect();", "let multiplier = scales.map(|s_w| (scales.input * s_w / scales.output.scale()) as f32);"),
    ("R7", "the product of scales in f64", "preset/torch.rs", "let s_aw = scales.map(|s_w| scales.input as f32 * s_w as f32);", "let s_aw = scales.map(|s_w| (scales.input * s_w) as f32);"),
    # R8
    ("R8a", "the sum saturates", "requantize/f32_mul.rs", "accumulator.wrapping_add(per_channel(bias, channel)) as f32", "accumulator.saturating_add(per_channel(bias, channel)) as f32"),
    ("R8a", "the sum in f32", "requantize/f32_mul.rs", "accumulator.wrapping_add(per_channel(bias, channel)) as f32", "accumulator as f32 + per_channel(bias, channel) as f32"),
    ("R8b", "the addend is a product with the reciprocal", "preset/torch.rs", ".map(|(b, s)| b / s).collect())", ".map(|(b, s)| b * (1.0 / s)).collect())"),
    ("R8b", "the bias is rounded to an integer", "preset/torch.rs", ".map(|(b, s)| b / s).collect())", ".map(|(b, s)| (b / s).round_ties_even()).collect())"),
    ("R8b", "one weight scale takes the addend", "preset/torch.rs", "(Some(bias), WeightScale::PerTensor(_)) => Bias::Fused {", "(Some(bias), WeightScale::PerTensor(_)) if !bias.is_empty() => Bias::Addend(bias.iter().map(|b| b / s_aw[0]).collect()),\n        (Some(bias), WeightScale::PerTensor(_)) => Bias::Fused {"),
    ("R8c", "not fused", "requantize/f32_mul.rs", "fma(per_channel(bias, channel), per_channel(reciprocal, channel), accumulator as f32)", "per_channel(bias, channel) * per_channel(reciprocal, channel) + accumulator as f32"),
    ("R8c", "the reciprocal in f32", "preset/torch.rs", "reciprocal: s_aw.iter().map(|&s_aw| (1.0 / f64::from(s_aw)) as f32).collect(),", "reciprocal: s_aw.iter().map(|&s_aw| 1.0 / f32::from_bits(s_aw.to_bits() + 1)).collect(),"),
    ("R8c", "one scale a channel is fused too", "preset/torch.rs", "(Some(bias), WeightScale::PerTensor(_)) => Bias::Fused {", "(Some(bias), _) => Bias::Fused {"),
    # R9
    ("R9", "fused: two roundings", "requantize/f32_out.rs", "(false, true) => fma(v, scale, per_channel(&self.bias, channel)),", "(false, true) => v * scale + per_channel(&self.bias, channel),"),
    ("R9", "not fused: one rounding", "requantize/f32_out.rs", "(false, false) => v * scale + per_channel(&self.bias, channel),", "(false, false) => fma(v, scale, per_channel(&self.bias, channel)),"),
    ("R9", "ReLU keeps NaN", "requantize/f32_out.rs", "let keep = y > 0.0 || !self.relu;", "let keep = y > 0.0 || y.is_nan() || !self.relu;"),
    ("R9", "ReLU keeps −0", "requantize/f32_out.rs", "let keep = y > 0.0 || !self.relu;", "let keep = y >= 0.0 || y.is_nan() && false || !self.relu;"),
    # R10
    ("R10", "not fused", "batch_norm.rs", "self.quantize.apply(fma(alpha, x, beta))", "self.quantize.apply(alpha * x + beta)"),
    ("R10", "alpha: the ratio of scales in f32", "batch_norm.rs", "let ratio = input.scale() / output.scale();", "let ratio = f64::from(input.scale() as f32 / output.scale() as f32);"),
    ("R10", "alpha: the product in f32", "batch_norm.rs", "f64::from(inverse * p.weight[c]) * ratio", "f64::from(inverse * p.weight[c] * ratio as f32)"),
    ("R10", "beta: associated the other way", "batch_norm.rs", "p.running_mean[c] * inverse * p.weight[c]", "p.running_mean[c] * (inverse * p.weight[c])"),
    ("R10", "beta: the division in f32", "batch_norm.rs", "f64::from(p.bias[c] - p.running_mean[c] * inverse * p.weight[c]) / output.scale();", "f64::from((p.bias[c] - p.running_mean[c] * inverse * p.weight[c]) / output.scale() as f32);"),
    ("R10", "eps added in f64", "batch_norm.rs", "sqrt(p.running_var[c] + p.eps as f32)", "((f64::from(p.running_var[c]) + p.eps).sqrt() as f32)"),
    ("R10", "the ReLU is forgotten", "batch_norm.rs", "let least = if relu { zero_point } else { codes.lo() };", "let least = if relu { codes.lo() } else { codes.lo() };"),
    # R11
    ("R11", "an empty window gives 0", "pool.rs", ".max().unwrap_or(T::MIN)", ".max().unwrap_or(T::from_i32(0))"),
    ("R11", "ceil mode keeps windows that start in the padding behind", "pool.rs", "next < axis.input + axis.padding[0] {", "next < axis.input + axis.padding[0] + axis.padding[1] {"),
    ("R11", "ceil mode is ignored", "pool.rs", "if self.ceil_mode && ", "if false && self.ceil_mode && "),
    # R12
    ("R12", "channels last: the zero point inside the rounding", "pool.rs", "Memory::ChannelsLast => Quantize { multiplier: 1.0 / n as f32, zero_point, lo, hi }.apply(acc as f32),", "Memory::ChannelsLast => cvt(acc as f32 * (1.0 / n as f32) + zero_point as f32).clamp(lo, hi),"),
    ("R12", "channels last: a division", "pool.rs", "Quantize { multiplier: 1.0 / n as f32, zero_point, lo, hi }.apply(acc as f32)", "Quantize { multiplier: 1.0, zero_point, lo, hi }.apply(acc as f32 / n as f32)"),
    ("R12", "contiguous: the zero point after the rounding", "pool.rs", "cvt(acc as f32 * multiplier + zero_point as f32).clamp(lo, hi)", "(cvt(acc as f32 * multiplier) + zero_point).clamp(lo, hi)"),
    ("R12", "contiguous: a division", "pool.rs", "cvt(acc as f32 * multiplier + zero_point as f32)", "cvt(acc as f32 * 0.0 * multiplier + acc as f32 / n as f32 + zero_point as f32)"),
    ("R12", "contiguous: one rounding", "pool.rs", "cvt(acc as f32 * multiplier + zero_point as f32)", "cvt(crate::float::fma(acc as f32, multiplier, zero_point as f32))"),
    ("R12", "adaptive, contiguous: one division", "pool.rs", "(1.0 / depth as f32 / height as f32 / width as f32)", "(1.0 / (depth * height * width) as f32)"),
    ("R12", "adaptive, contiguous: a quotient", "pool.rs", "cvt(sum as f32 * (1.0 / depth as f32 / height as f32 / width as f32))", "cvt(sum as f32 / (depth * height * width) as f32)"),
    ("R12", "adaptive, contiguous: width divided first", "pool.rs", "(1.0 / depth as f32 / height as f32 / width as f32)", "(1.0 / width as f32 / height as f32 / depth as f32)"),
    ("R12", "adaptive windows end where the next begins", "pool.rs", "let ceil = end as usize + usize::from(end as usize as f32 != end);", "let ceil = end as usize;"),
    ("R12", "padding counts in neither divisor", "pool.rs", "Divisor::Padded => window.padded,", "Divisor::Padded => window.pixels.len(),"),
    ("R12", "padding counts in both divisors", "pool.rs", "Divisor::Image => window.pixels.len(),", "Divisor::Image => window.padded,"),
    # R13
    ("R13", "the bound is 0", "elementwise.rs", "*q = (*q).max(zero_point);", "*q = (*q).max(if false { zero_point } else { T::from_i32(0) });"),
    ("R13", "of real numbers: −0 becomes 0", "elementwise.rs", "if *x < 0.0 {", "if *x <= 0.0 {"),
    ("R13", "of real numbers: NaN becomes 0", "elementwise.rs", "if *x < 0.0 {", "if !(*x >= 0.0) {"),
    # R15
    ("R15", "pairs are shifted by one", "saturation.rs", "for position in (0..depth).step_by(2) {", "factors.next();\n    for position in (1..depth).step_by(2) {"),
    ("R15", "sums saturate at 2¹⁵", "saturation.rs", "sum.clamp(i16::MIN.into(), i16::MAX.into()) - sum", "sum.clamp(i16::MIN.into(), 32768) - sum"),
    ("R15", "taps in the padding hold 0", "saturation.rs", "first.map_or(zx, |first|", "first.map_or(zx * 0, |first|"),
    ("R15", "depthwise: any number of channels", "saturation.rs", "&& shape.groups.is_multiple_of(8)", "&& shape.groups > 0"),
    ("R15", "depthwise: kernels of 9 too", "saturation.rs", "matches!(a.kernel, 3 | 5 | 7)", "matches!(a.kernel, 3 | 5 | 7 | 9)"),
    ("R15", "depthwise: strides of 3 too", "saturation.rs", "matches!(a.stride, 1 | 2)", "matches!(a.stride, 1..=3)"),
    ("R15", "depthwise: dilated kernels too", "saturation.rs", "&& a.dilation == 1\n", "&& a.dilation > 0\n"),
    ("R15", "depthwise: any padding", "saturation.rs", "&& a.padding == [(a.kernel - 1) / 2; 2]", "&& a.padding[0] <= a.kernel"),
    ("R15", "depthwise: one output a channel", "saturation.rs", "(shape.out_channels == shape.in_channels || shape.out_channels == 2 * shape.in_channels)", "shape.out_channels == shape.in_channels"),
    ("R15", "ONNX Runtime: depthwise too", "saturation.rs", "Machine::OnnxRuntimeWithoutVnni => shape.group_inputs() > 1 || shape.group_outputs() > 1,", "Machine::OnnxRuntimeWithoutVnni => true,"),
    ("R15", "signed inputs too", "saturation.rs", "!layer.input().is_signed()\n            && match", "(layer.input().is_signed() || true)\n            && match"),
    # R16
    ("R16", "the zero point after the rounding", "requantize/f32_real.rs", "Stored::Code(cvt(float::clamp(scaled, lo as f32, hi as f32)))", "Stored::Code((cvt(scaled - codes.zero_point() as f32)).saturating_add(codes.zero_point()).clamp(lo, hi))"),
    ("R16", "ties away from zero", "requantize/f32_real.rs", "cvt(float::clamp(scaled, lo as f32, hi as f32))", "float::clamp(scaled, lo as f32, hi as f32).round() as i32"),
    ("R16", "the bias is fused", "requantize/f32_real.rs", "            v += per_channel(&self.bias, channel);", "            v = fma(accumulator as f32, per_channel(&self.scale, channel), per_channel(&self.bias, channel));"),
    ("R16", "the sum is not fused", "requantize/f32_real.rs", "v = fma(addend - zero_point as f32, scale, v)", "v += (addend - zero_point as f32) * scale"),
    ("R16", "product and zero point are fused", "requantize/f32_real.rs", "let scaled = self.real(accumulator, channel, addend) * multiplier;\n        Some(scaled + codes.zero_point() as f32)", "Some(fma(self.real(accumulator, channel, addend), multiplier, codes.zero_point() as f32))"),
    ("R16", "the clip comes before the sum", "requantize/f32_real.rs", "        match self.sum {\n            Sum::None", "        if let Some([least, most]) = self.clip { v = float::clamp(v, least, most); }\n        match self.sum {\n            Sum::None"),
    ("R16", "NaN keeps through the clip", "requantize/f32_real.rs", "Some([least, most]) => float::clamp(v, least, most),", "Some([least, most]) => v.clamp(least, most),"),
    ("R16", "NaN gives the largest code", "float.rs", "let v = if v > lo { v } else { lo };\n    if v < hi { v } else { hi }\n}", "let v = if v < hi { v } else { hi };\n    if v > lo { v } else { lo }\n}"),
    ("R16", "a division by S_Y", "requantize/f32_real.rs", "let scaled = self.real(accumulator, channel, addend) * multiplier;", "let scaled = self.real(accumulator, channel, addend) / (1.0 / multiplier);"),
    # Fixed point
    ("Q31", "mantissas are cut", "fixed_point.rs", "(significand + (1 << 21)) >> 22", "significand >> 22"),
    ("Q31", "a mantissa of 2³¹ saturates", "fixed_point.rs", "(mantissa, exponent) = (1 << 30, exponent + 1);", "mantissa = (1 << 31) - 1;"),
    ("Q31", "small numbers keep their mantissa", "fixed_point.rs", "if exponent < FixedPoint::EXPONENTS[0] {\n            return FixedPoint::ZERO;\n        }", "if exponent < FixedPoint::EXPONENTS[0] {\n            exponent = FixedPoint::EXPONENTS[0];\n        }"),
    ("Q31", "up: ties down", "fixed_point.rs", "Rounding::Up => (v + half) >> shift,", "Rounding::Up => (v + half - one) >> shift,"),
    ("Q31", "away: ties up", "fixed_point.rs", "Rounding::Away => (v + half - (i64::from(v < 0) & one)) >> shift,", "Rounding::Away => (v + half) >> shift,"),
    ("Q31", "even: ties away", "fixed_point.rs", "Rounding::Even => (v + half - one + ((v >> shift) & one)) >> shift,", "Rounding::Even => (v + half - (i64::from(v < 0) & one)) >> shift,"),
    # R17
    ("R17", "the first rounding away from zero", "fixed_point.rs", "let high = Rounding::Up.shift_right(", "let high = Rounding::Away.shift_right("),
    ("R17", "the first rounding cuts", "fixed_point.rs", "let high = Rounding::Up.shift_right(i64::from(left) * i64::from(self.mantissa), 31);", "let high = (i64::from(left) * i64::from(self.mantissa)) >> 31;"),
    ("R17", "the shift to the left saturates", "fixed_point.rs", "let left = x.checked_shl(self.exponent.max(0).unsigned_abs()).unwrap_or(0);", "let left = (i64::from(x) << self.exponent.max(0)).clamp(i32::MIN.into(), i32::MAX.into()) as i32;"),
    ("R17", "one rounding", "requantize/q31.rs", "self.codes.code(self.last.shift_right(h, shift))", "{ let _ = (h, shift); let m = per_channel(&self.multiplier, channel); self.codes.code(self.last.shift_right(i64::from(biased(accumulator, &self.bias, channel)) * i64::from(m.mantissa), (31 - m.exponent) as u32)) }"),
    ("R17", "bias and accumulator saturate", "requantize/mod.rs", "accumulator.wrapping_add(crate::operand::per_channel(bias, channel))", "accumulator.saturating_add(crate::operand::per_channel(bias, channel))"),
    # R18
    ("R18", "away from zero", "requantize/q31.rs", "self.codes.code(Rounding::Up.shift_right(product,", "self.codes.code(Rounding::Away.shift_right(product,"),
    ("R18", "two roundings", "requantize/q31.rs", "self.codes.code(Rounding::Up.shift_right(product, (31 - exponent) as u32))", "{ let _ = (product, exponent, mantissa); let (h, shift) = per_channel(&self.multiplier, channel).high(biased(accumulator, &self.bias, channel)); self.codes.code(Rounding::Up.shift_right(h, shift)) }"),
    # R19
    ("R19", "the product in f32", "requantize/f64_mul.rs", "let r = f64::from(biased(accumulator, &self.bias, channel)) * per_channel(&self.multiplier, channel);", "let r = f64::from(biased(accumulator, &self.bias, channel) as f32 * per_channel(&self.multiplier, channel) as f32);"),
    ("R19", "the zero point always after the rounding", "requantize/f64_mul.rs", "ZeroPoint::BeforeRounding => r + f64::from(self.codes.zero_point()),", "ZeroPoint::BeforeRounding => self.rounding.round(r) + f64::from(self.codes.zero_point()),"),
    ("R19", "the zero point always before the rounding", "requantize/f64_mul.rs", "saturate(self.rounding.round(r)) + later", "saturate(self.rounding.round(r + f64::from(later)))"),
    ("R19", "NaN gives hi", "requantize/f64_mul.rs", "    let v = if v > lo { v } else { lo };\n    if v < hi { v } else { hi }", "    let v = if v < hi { v } else { hi };\n    if v > lo { v } else { lo }"),
    # R20
    ("R20", "ties up", "requantize/pow2.rs", "self.codes.code(self.rounding.shift_right(v, shift))", "self.codes.code(Rounding::Up.shift_right(v, shift))"),
    ("R20", "no shift to the left", "requantize/pow2.rs", "<< (-shift).max(0);", "<< (-shift).max(0).min(0);"),
    ("R20", "Brevitas rounds away from zero", "preset/fixed.rs", "rounding: Rounding::Even,", "rounding: Rounding::Away,"),
    # R21
    ("R21", "qnnpack: a division", "preset/torch.rs", "s_w as f32 * scales.input as f32 * inverse);", "s_w as f32 * scales.input as f32 / scales.output.scale() as f32 + 0.0 * inverse);"),
    ("R21", "qnnpack: the bias by a product of f32 scales", "preset/torch.rs", "1.0 / (s_w * scales.input) as f32", "1.0 / (s_w as f32 * scales.input as f32)"),
    ("R21", "qnnpack: the bias is divided", "preset/torch.rs", "let v = round_ties_even(b * crate::operand::per_channel(&reciprocals, c));", "let v = round_ties_even(b / (1.0 / crate::operand::per_channel(&reciprocals, c)));"),
    ("R21", "qnnpack: biases away from zero", "preset/torch.rs", "let v = round_ties_even(b * crate::operand::per_channel(&reciprocals, c));", "let v = (b * crate::operand::per_channel(&reciprocals, c)).round();"),
    ("R21", "qnnpack: a NaN bias is 0", "preset/torch.rs", "if v.is_nan() { i32::MIN } else { v as i32 }", "v as i32"),
    ("R21", "ort: a reciprocal", "preset/mod.rs", "self.input as f32 * s_w as f32 / self.output.scale() as f32)", "self.input as f32 * s_w as f32 * (1.0 / self.output.scale() as f32))"),
    ("R21", "ort: the weight scale is divided first", "preset/mod.rs", "self.input as f32 * s_w as f32 / self.output.scale() as f32)", "self.input as f32 * (s_w as f32 / self.output.scale() as f32))"),
    ("R21", "ort: in f64", "preset/mod.rs", "self.input as f32 * s_w as f32 / self.output.scale() as f32)", "(self.input * s_w / self.output.scale()) as f32)"),
    ("R21", "ort converts", "preset/onnx.rs", "Ok(rule.overflow(Overflow::ClampFirst))", "Ok(rule.overflow(Overflow::Convert))"),
    ("R21", "onednn: S_X is not inverted twice, linear", "preset/onednn.rs", "rule(scales, (twice_f64(scales.input), s_w, twice_f64(scales.output.scale())), bias, relu_clip(relu))\n}\n\n/// PyTorch's onednn engine, convolutions", "rule(scales, (scales.input as f32, s_w, twice_f64(scales.output.scale())), bias, relu_clip(relu))\n}\n\n/// PyTorch's onednn engine, convolutions"),
    ("R21", "onednn: S_Y is not inverted twice, linear", "preset/onednn.rs", "rule(scales, (twice_f64(scales.input), s_w, twice_f64(scales.output.scale())), bias, relu_clip(relu))\n}\n\n/// PyTorch's onednn engine, convolutions", "rule(scales, (twice_f64(scales.input), s_w, scales.output.scale() as f32), bias, relu_clip(relu))\n}\n\n/// PyTorch's onednn engine, convolutions"),
    ("R21", "onednn: S_Y is not inverted twice, convolution", "preset/onednn.rs", "rule(scales, (twice_f64(scales.input), s_w, twice_f64(scales.output.scale())), bias, relu_clip(relu))\n}\n\n/// The sum of", "rule(scales, (twice_f64(scales.input), s_w, scales.output.scale() as f32), bias, relu_clip(relu))\n}\n\n/// The sum of"),
    ("R21", "onednn: weights per tensor in f32", "preset/onednn.rs", "WeightScale::PerTensor(_) => scales.map(twice_f64),", "WeightScale::PerTensor(_) => scales.map(|s| s as f32),"),
    ("R21", "onednn: weights per channel in f32", "preset/onednn.rs", "WeightScale::PerChannel(_) => scales.map(twice_f32),", "WeightScale::PerChannel(_) => scales.map(|s| s as f32),"),
    ("R21", "onednn: a sum's scale in f32", "preset/onednn.rs", "Ok(Sum::Codes { scale: twice_f32(scale), zero_point, codes })", "Ok(Sum::Codes { scale: scale as f32, zero_point, codes })"),
    ("R21", "tflite: an f32 product", "preset/fixed.rs", "scales.map(|s_w| s_x * f64::from(s_w as f32) / s_y)", "scales.map(|s_w| f64::from(s_x as f32 * s_w as f32) / s_y)"),
    ("R21", "tflite: f64 scales", "preset/fixed.rs", "map(|scale| f64::from(scale as f32));", "map(|scale| scale);"),
    ("R21", "tflite: the last rounding is up", "preset/fixed.rs", "double(f64_quotients(&scales), bias, Rounding::Away, codes(activation, scales.output)?)", "double(f64_quotients(&scales), bias, Rounding::Up, codes(activation, scales.output)?)"),
    ("R21", "ruy: the last rounding is away", "preset/fixed.rs", "Ok(Q31Double { last: Rounding::Up, ..tflite_reference(scales, bias, activation)? })", "tflite_reference(scales, bias, activation)"),
    ("R21", "ruy, fully connected: an f64 product", "preset/fixed.rs", "let multiplier = f64::from(scales.input as f32 * s_w as f32) / f64::from(scales.output.scale() as f32);", "let multiplier = f64::from(scales.input as f32) * f64::from(s_w as f32) / f64::from(scales.output.scale() as f32);"),
    ("R21", "tflite, fully connected: nearest even", "preset/fixed.rs", "rounding: Rounding::Away,\n        zero_point", "rounding: Rounding::Even,\n        zero_point"),
    ("R21", "onnx.reference: after the rounding", "preset/onnx.rs", "zero_point: ZeroPoint::BeforeRounding,", "zero_point: ZeroPoint::AfterRounding,"),
    ("R21", "x86: at most 99 groups", "preset/onednn.rs", "shape.groups <= 100 &&", "shape.groups <= 99 &&"),
    # R22
    ("R22", "Saturating: the zero point inside the rounding", "quantizer.rs", "saturate((z + round_ties_even(x * factor)).into())", "saturate(round_ties_even(z + x * factor).into())"),
    ("R22", "Saturating: overflow wraps", "quantizer.rs", "saturate((z + round_ties_even(x * factor)).into())", "cvt(x * factor).wrapping_add(zero_point)"),
    ("R22", "Saturating: NaN gives the zero point", "quantizer.rs", "saturate((z + round_ties_even(x * factor)).into())", "saturate(round_ties_even(x * factor).into()).saturating_add(zero_point)"),
    ("R22", "Saturating: a division", "quantizer.rs", "saturate((z + round_ties_even(x * factor)).into())", "saturate((z + round_ties_even(x / (1.0 / factor))).into())"),
    ("R22", "Saturating: ties away from zero", "quantizer.rs", "saturate((z + round_ties_even(x * factor)).into())", "saturate((z + (x * factor).round()).into())"),
    ("R22", "Fused: two roundings", "quantizer.rs", "cvt(minimum(fma(x, factor, z), LIMIT))", "cvt(minimum(x * factor + z, LIMIT))"),
    ("R22", "Fused: the zero point after the rounding", "quantizer.rs", "cvt(minimum(fma(x, factor, z), LIMIT)).clamp(lo, hi)", "cvt(minimum(x * factor, LIMIT)).saturating_add(zero_point).clamp(lo, hi)"),
    ("R22", "ZeroPointFirst: one rounding", "quantizer.rs", "cvt(minimum(maximum(x * factor + z, lo as f32), hi as f32))", "cvt(minimum(maximum(fma(x, factor, z), lo as f32), hi as f32))"),
    ("R22", "Divided: a reciprocal", "quantizer.rs", "let t = maximum(x / factor, (lo - zero_point) as f32);", "let t = maximum(x * (1.0 / factor), (lo - zero_point) as f32);"),
    ("R22", "Divided: the zero point inside the rounding", "quantizer.rs", "cvt(minimum(t, (hi - zero_point) as f32)) + zero_point", "cvt(minimum(t, (hi - zero_point) as f32) + z)"),
    ("R22", "Bounded: a division", "quantizer.rs", "let t = minimum(x * factor, (hi - zero_point) as f32);", "let t = minimum(x / (1.0 / factor), (hi - zero_point) as f32);"),
    ("R22", "Converted: a division", "quantizer.rs", "cvt(x * factor).saturating_add(zero_point)", "cvt(x / (1.0 / factor)).saturating_add(zero_point)"),
    ("R22", "Converted: overflow saturates", "quantizer.rs", "cvt(x * factor).saturating_add(zero_point)", "cvt(minimum(x * factor, LIMIT)).saturating_add(zero_point)"),
    ("R22", "DividedAway: ties to even", "quantizer.rs", "away(f64::from(x / factor))", "cvt(x / factor)"),
    ("R22", "DividedAway: a reciprocal", "quantizer.rs", "away(f64::from(x / factor))", "away(f64::from(x * (1.0 / factor)))"),
    ("R22", "DividedAwayF64: the quotient in f32", "quantizer.rs", "away(f64::from(x) / f64::from(factor))", "away(f64::from(x / factor))"),
    # R23
    ("R23", "Fused: two roundings", "quantizer.rs", "fma(scale, code as f32, -(scale * self.zero_point as f32))", "scale * code as f32 - scale * self.zero_point as f32"),
    ("R23", "Fused: the difference", "quantizer.rs", "fma(scale, code as f32, -(scale * self.zero_point as f32))", "scale * difference as f32"),
    ("R23", "Double: in f32", "quantizer.rs", "(self.scale * f64::from(difference)) as f32", "scale * difference as f32"),
    # R24
    ("R24", "ReLU6: to even", "activation.rs", "round_ties_away_f64((6.0 / output.scale() as f32).into())", "crate::float::round_ties_even_f64((6.0 / output.scale() as f32).into())"),
    ("R24", "ReLU6: the quotient in f64", "activation.rs", "round_ties_away_f64((6.0 / output.scale() as f32).into())", "round_ties_away_f64(6.0 / output.scale())"),
    ("R24", "no lower bound", "activation.rs", "let lo = if self == Activation::None { codes.lo() } else { zero_point };", "let lo = if self != Activation::Relu6 { codes.lo() } else { zero_point };"),
    ("R24", "XNNPACK: ties away from zero", "activation.rs", "[lo, cvt(six.min(output.codes().hi() as f32))]", "[lo, round_ties_away_f64(six.min(output.codes().hi() as f32).into()) as i32 + 0 * cvt(six)]"),
    ("R24", "XNNPACK: the zero point after the rounding", "activation.rs", "let six = 6.0 / output.scale() as f32 + output.zero_point() as f32;", "let six = crate::float::round_ties_even(6.0 / output.scale() as f32) + output.zero_point() as f32;"),
    ("R24", "XNNPACK: the quotient in f64", "activation.rs", "let six = 6.0 / output.scale() as f32 + output.zero_point() as f32;", "let six = (6.0 / output.scale()) as f32 + output.zero_point() as f32;"),
    ("R24", "XNNPACK: a product with the reciprocal", "activation.rs", "let six = 6.0 / output.scale() as f32 + output.zero_point() as f32;", "let six = 6.0 * (1.0 / output.scale() as f32) + output.zero_point() as f32;"),
    ("R24", "XNNPACK: the sum in f64", "activation.rs", "let six = 6.0 / output.scale() as f32 + output.zero_point() as f32;\n        [lo, cvt(six.min(output.codes().hi() as f32))]", "let six = f64::from(6.0 / output.scale() as f32) + f64::from(output.zero_point());\n        [lo, crate::float::round_ties_even_f64(six.min(output.codes().hi().into())) as i32 + 0 * cvt(0.0)]"),
    ("R24", "XNNPACK: the largest code bounds after the rounding", "activation.rs", "[lo, cvt(six.min(output.codes().hi() as f32))]", "[lo, cvt(six).min(output.codes().hi())]"),
    ("R24", "XNNPACK: a ReLU too ends at 6", "activation.rs", "if self != Activation::Relu6 {", "if self == Activation::None {"),
    ("R24", "xnnpack bounds as TFLite does", "preset/fixed.rs", "let [lo, hi] = codes_of_xnnpack(activation, scales.output)?.range();", "let [lo, hi] = codes(activation, scales.output)?.range();"),
    ("R24", "xnnpack_rndnu bounds as TFLite does", "preset/fixed.rs", "bias, codes_of_xnnpack(activation, scales.output)?)", "bias, codes(activation, scales.output)?)"),
    ("R24", "TFLite bounds as XNNPACK does", "preset/fixed.rs", "clamped(activation.clamp(output), output)", "codes_of_xnnpack(activation, output)"),
    # R25
    ("R25", "PyTorch: the body is the tail", "add.rs", "Form::Body => DequantizeForm::Fused,", "Form::Body => DequantizeForm::Difference,"),
    ("R25", "PyTorch: the tail wraps", "add.rs", "Form::Tail => QuantizeForm::Saturating,", "Form::Tail => QuantizeForm::Wrapping,"),
    ("R25", "PyTorch: the ReLU clamps codes", "add.rs", "Sum::Real { least, .. } => *least = 0.0,", "Sum::Real { .. } => self.clamp[0] = y.zero_point(),"),
    ("R25", "PyTorch: the ReLU takes NaN to 0", "add.rs", "if sum < least { least } else { sum }", "if sum > least { sum } else { least }"),
    ("R25", "PyTorch: the ReLU's bound is a code", "add.rs", "Sum::Real { least, .. } => *least = 0.0,", "Sum::Real { least, .. } => *least = y.zero_point() as f32,"),
    ("R25", "PyTorch: always a ReLU", "add.rs", "least: f32::NEG_INFINITY,", "least: 0.0,"),
    ("R25", "elsewhere the ReLU's bound is code 0", "add.rs", "_ => self.clamp[0] = y.zero_point(),", "_ => self.clamp[0] = 0,"),
    ("R25", "QNNPACK: up", "add.rs", "Add::shifted(a, b, y, 21, 113, Rounding::Away)", "Add::shifted(a, b, y, 21, 113, Rounding::Up)"),
    ("R25", "QNNPACK: one bit less", "add.rs", "Add::shifted(a, b, y, 21, 113, Rounding::Away)", "Add::shifted(a, b, y, 20, 113, Rounding::Away)"),
    ("R25", "XNNPACK: away", "add.rs", "Add::shifted(a, b, y, 20, 117, Rounding::Up)", "Add::shifted(a, b, y, 20, 117, Rounding::Away)"),
    ("R25", "XNNPACK: one bit more", "add.rs", "Add::shifted(a, b, y, 20, 117, Rounding::Up)", "Add::shifted(a, b, y, 21, 117, Rounding::Up)"),
    ("R25", "QNNPACK, XNNPACK: multipliers are cut", "add.rs", "round_ties_even(r * power) as i32", "(r * power) as i32"),
    ("R25", "ORT: the fixed part is not fused", "add.rs", "fma(ratio[0], a.zero_point() as f32, ratio[1] * b.zero_point() as f32)", "(ratio[0] * a.zero_point() as f32 + ratio[1] * b.zero_point() as f32)"),
    ("R25", "ORT: the sum is not fused", "add.rs", "cvt(fma(a as f32, r_a, fma(b as f32, r_b, fixed)))", "cvt(a as f32 * r_a + (b as f32 * r_b + fixed))"),
    ("R25", "ORT: the other order", "add.rs", "cvt(fma(a as f32, r_a, fma(b as f32, r_b, fixed)))", "cvt(fma(b as f32, r_b, fma(a as f32, r_a, fixed)))"),
    ("R25", "ORT: a reciprocal", "add.rs", "pub fn ort(a: Quantization, b: Quantization, y: Quantization) -> Add {\n        let ratio = [a, b].map(|from| from.scale() as f32 / y.scale() as f32);", "pub fn ort(a: Quantization, b: Quantization, y: Quantization) -> Add {\n        let ratio = [a, b].map(|from| from.scale() as f32 * (1.0 / y.scale() as f32));"),
    ("R25", "TFLite: shifted by 19", "add.rs", "m.multiply(difference.wrapping_shl(20), Rounding::Away);", "m.multiply(difference.wrapping_shl(19), Rounding::Away).wrapping_shl(1);"),
    ("R25", "TFLite: the last rounding is up", "add.rs", "output.multiply(sum, Rounding::Away)", "output.multiply(sum, Rounding::Up)"),
    ("R25", "TFLite: the operands' roundings are up", "add.rs", "m.multiply(difference.wrapping_shl(20), Rounding::Away);", "m.multiply(difference.wrapping_shl(20), Rounding::Up);"),
    ("R25", "TFLite: the body is the tail", "add.rs", "narrow: form == Form::Body,", "narrow: form != form,"),
    ("R25", "TFLite: the tail is the body", "add.rs", "narrow: form == Form::Body,", "narrow: form == form,"),
    ("R25", "TFLite: the body saturates in int16", "add.rs", "(sum.wrapping_add(zero_point) as i16).into()", "sum.saturating_add(zero_point).clamp(i16::MIN.into(), i16::MAX.into())"),
    ("R25", "TFLite: the body wraps before the zero point", "add.rs", "(sum.wrapping_add(zero_point) as i16).into()", "i32::from(sum as i16) + zero_point"),
    ("R25", "TFLite: the body saturates before the zero point", "add.rs", "(sum.wrapping_add(zero_point) as i16).into()", "(sum.clamp(i16::MIN.into(), i16::MAX.into()).wrapping_add(zero_point) as i16).into()"),
    # R26
    ("R26", "PyTorch: a division", "mul.rs", "a.scale() as f32 * b.scale() as f32 * (1.0 / y.scale() as f32)", "quotient(a, b, y)"),
    ("R26", "XNNPACK, ORT, TFLite: a reciprocal", "mul.rs", "    a.scale() as f32 * b.scale() as f32 / y.scale() as f32", "    a.scale() as f32 * b.scale() as f32 * (1.0 / y.scale() as f32)"),
    ("R26", "PyTorch, XNNPACK: the zero point before", "mul.rs", "cvt(product as f32 * m).saturating_add(self.zero_point)", "cvt(product as f32 * m + self.zero_point as f32)"),
    ("R26", "PyTorch: the body is the tail", "mul.rs", "Form::Body => Scaling::ZeroPointAfter(multiplier),", "Form::Body => Scaling::Wide(multiplier),"),
    ("R26", "PyTorch: the tail is the body", "mul.rs", "Form::Tail => Scaling::Wide(multiplier),", "Form::Tail => Scaling::ZeroPointAfter(multiplier),"),
    ("R26", "PyTorch, tail: the zero point before", "mul.rs", "let r = round_ties_even(product as f32 * m);", "let r = round_ties_even(product as f32 * m + self.zero_point as f32) - self.zero_point as f32;"),
    ("R26", "PyTorch, tail: ties away from zero", "mul.rs", "let r = round_ties_even(product as f32 * m);", "let r = (product as f32 * m + 0.0 * round_ties_even(0.0)).round();"),
    ("R26", "PyTorch, tail: what int64 cannot hold saturates", "mul.rs", "if r < BEYOND_INT64 { saturate(r.into()) } else { i32::MIN }", "if r < BEYOND_INT64 || r >= BEYOND_INT64 { saturate(r.into()) } else { i32::MIN }"),
    ("R26", "PyTorch, tail: NaN gives the zero point", "mul.rs", "if r < BEYOND_INT64 { saturate(r.into()) } else { i32::MIN }", "if !(r >= BEYOND_INT64) { saturate(r.into()) } else { i32::MIN }"),
    ("R26", "PyTorch, tail: 2⁶³ is an int64", "mul.rs", "if r < BEYOND_INT64 { saturate(r.into()) } else { i32::MIN }", "if r <= BEYOND_INT64 { saturate(r.into()) } else { i32::MIN }"),
    ("R26", "PyTorch, tail: int64 ends at 2⁶²", "mul.rs", "if r < BEYOND_INT64 { saturate(r.into()) } else { i32::MIN }", "if r < BEYOND_INT64 / 2.0 { saturate(r.into()) } else { i32::MIN }"),
    ("R26", "PyTorch, tail: what int32 cannot hold goes to the bottom", "mul.rs", "if r < BEYOND_INT64 { saturate(r.into()) } else { i32::MIN }", "if r < 2147483648.0f32.min(BEYOND_INT64) { saturate(r.into()) } else { i32::MIN }"),
    ("R26", "ORT: fused", "mul.rs", "cvt(product as f32 * m + self.zero_point as f32),", "cvt(crate::float::fma(product as f32, m, self.zero_point as f32)),"),
    ("R26", "ORT: the zero point after", "mul.rs", "cvt(product as f32 * m + self.zero_point as f32),", "cvt(product as f32 * m).saturating_add(self.zero_point),"),
    ("R26", "TFLite: up", "mul.rs", "Scaling::FixedPoint(m) => m.multiply(product, Rounding::Away)", "Scaling::FixedPoint(m) => m.multiply(product, Rounding::Up)"),
    ("R26", "TFLite: the multiplier in f64", "mul.rs", "FixedPoint::of(quotient(a, b, y).into())", "FixedPoint::of(f64::from(a.scale() as f32) * f64::from(b.scale() as f32) / f64::from(y.scale() as f32))"),
    ("R26", "TFLite: the body is the tail", "mul.rs", "Form::Body => Scaling::Narrow(multiplier),", "Form::Body => Scaling::FixedPoint(multiplier),"),
    ("R26", "TFLite: the tail is the body", "mul.rs", "Form::Tail => Scaling::FixedPoint(multiplier),", "Form::Tail => Scaling::Narrow(multiplier),"),
    ("R26", "TFLite, body: up", "mul.rs", "let product = m.multiply(product, Rounding::Away).clamp(i16::MIN.into(), i16::MAX.into());", "let product = m.multiply(product, Rounding::Up).clamp(i16::MIN.into(), i16::MAX.into());"),
    ("R26", "TFLite, body: products wrap upwards", "mul.rs", "let product = m.multiply(product, Rounding::Away).clamp(i16::MIN.into(), i16::MAX.into());", "let product = m.multiply(product, Rounding::Away).max(i16::MIN.into());"),
    ("R26", "TFLite, body: products wrap downwards", "mul.rs", "let product = m.multiply(product, Rounding::Away).clamp(i16::MIN.into(), i16::MAX.into());", "let product = m.multiply(product, Rounding::Away).min(i16::MAX.into());"),
    ("R26", "TFLite, body: the sum with the zero point saturates", "mul.rs", "(product.wrapping_add(self.zero_point) as i16).into()", "product.wrapping_add(self.zero_point)"),
    ("R26", "TFLite, body: saturates after the zero point too", "mul.rs", "let product = m.multiply(product, Rounding::Away).clamp(i16::MIN.into(), i16::MAX.into());\n                (product.wrapping_add(self.zero_point) as i16).into()", "m.multiply(product, Rounding::Away).saturating_add(self.zero_point).clamp(i16::MIN.into(), i16::MAX.into())"),
    # R27
    ("R27", "hardswish: divided first", "table.rs", "x * (x + 3.0).clamp(0.0, 6.0) / 6.0", "x * ((x + 3.0).clamp(0.0, 6.0) / 6.0)"),
    ("R27", "hardsigmoid: a product", "table.rs", "Function::Hardsigmoid => (x + 3.0).clamp(0.0, 6.0) / 6.0,", "Function::Hardsigmoid => (x + 3.0).clamp(0.0, 6.0) * (1.0 / 6.0),"),
    ("R27", "elu: the exponential less 1 in f64", "table.rs", "(exp32(x) - 1.0) * alpha", "((exp(x.into()) - 1.0) * f64::from(alpha)) as f32"),
    ("R27", "sigmoid in f64", "table.rs", "1.0 / (1.0 + exp32(-x))", "(1.0 / (1.0 + exp((-x).into()))) as f32"),
    ("R27", "leaky ReLU: of the absolute value", "table.rs", "x * slope", "x * -slope"),
    ("R27", "the body of sigmoid is fused", "table.rs", "if function == Function::Sigmoid { DequantizeForm::Difference }", "if function != function { DequantizeForm::Difference }"),
    ("R27", "all bodies subtract the zero point first", "table.rs", "if function == Function::Sigmoid { DequantizeForm::Difference }", "if function == function { DequantizeForm::Difference }"),
    ("R27", "relu6: the wrapping form", "table.rs", "let real = Quantizer::new(QuantizeForm::Saturating, q);", "let real = Quantizer::new(QuantizeForm::Wrapping, q);"),
    ("R27", "relu6: between codes as XNNPACK's", "table.rs", "(real.apply(0.0), real.apply(6.0));", "(real.apply(0.0), crate::activation::Activation::Relu6.clamp_of_xnnpack(q)[1]);"),
    ("R27", "relu6: the lower bound is the zero point", "table.rs", "(real.apply(0.0), real.apply(6.0));", "(q.zero_point(), real.apply(6.0));"),
    ("R27", "relu6: no upper bound", "table.rs", "code.max(zero).min(six)", "code.max(zero).min(six.max(255))"),
    ("R27", "relu6: no lower bound", "table.rs", "code.max(zero).min(six)", "code.max(zero.min(0)).min(six)"),
    # R28
    ("R28", "XNNPACK: nine bits", "recode.rs", "round_ties_even(256.0 * ratio) as i32", "(round_ties_even(512.0 * ratio) as i32) / 2"),
    ("R28", "XNNPACK: ties down", "recode.rs", ".wrapping_add(128) >> 8)", ".wrapping_add(127) >> 8)"),
    ("R28", "TFLite: the ratio in f32", "recode.rs", "FixedPoint::of(f64::from(x.scale() as f32) / f64::from(y.scale() as f32))", "FixedPoint::of((x.scale() as f32 / y.scale() as f32).into())"),
    ("R28", "TFLite: always up", "recode.rs", "multiplier.multiply(code.wrapping_sub(input_zero_point), rounding)", "multiplier.multiply(code.wrapping_sub(input_zero_point), if false { rounding } else { Rounding::Up })"),
    ("R28", "TFLite: always away", "recode.rs", "multiplier.multiply(code.wrapping_sub(input_zero_point), rounding)", "multiplier.multiply(code.wrapping_sub(input_zero_point), if false { rounding } else { Rounding::Away })"),
    # R29
    ("R29", "the reciprocal in f32", "concat.rs", "quantize.factor = (1.0 / y.scale()) as f32;", "quantize.factor = 1.0 / y.scale() as f32;"),
    # R30
    ("R30", "QNNPACK, ORT: divided one after the other", "mean.rs", "(input.scale() as f32 / (output.scale() as f32 * n as f32))", "(input.scale() as f32 / output.scale() as f32 / n as f32)"),
    ("R30", "QNNPACK: the zero point before", "mean.rs", "cvt(scaled(sum, n, input, output)).saturating_add(z).clamp(codes.lo(), codes.hi())", "cvt(scaled(sum, n, input, output) + z as f32).clamp(codes.lo(), codes.hi())"),
    ("R30", "ORT, global: overflow converts", "mean.rs", "cvt(clamp(scaled(sum, n, input, output), (codes.lo() - z) as f32, (codes.hi() - z) as f32)) + z", "cvt(scaled(sum, n, input, output)).clamp(codes.lo() - z, codes.hi() - z) + z"),
    ("R30", "ORT, window: the zero point after", "mean.rs", "let v = sum / n as f32 / output.scale() as f32 + output.zero_point() as f32;\n    cvt(v).clamp(", "let v = sum / n as f32 / output.scale() as f32;\n    (cvt(v) + output.zero_point()).clamp("),
    ("R30", "ORT, window: the scale is divided first", "mean.rs", "sum / n as f32 / output.scale() as f32", "sum / output.scale() as f32 / n as f32"),
    ("R30", "ORT, window: exact sums", "mean.rs", "real_mean(codes.fold(0.0, |sum, q| sum + from.apply(q)), n, output)", "real_mean(codes.fold(0.0f64, |sum, q| sum + f64::from(from.apply(q))) as f32, n, output)"),
    ("R30", "TFLite: ties up", "mean.rs", "(if sum < 0 { -magnitude } else { magnitude })", "{ let _ = magnitude; (2 * sum + n).div_euclid(2 * n) }"),
    # R31
    ("R31", "NaN takes part in ranges", "dynamic.rs", "[lo.min(x), hi.max(x)]", "if x.is_nan() { [x, x] } else { [lo.min(x), hi.max(x)] }"),
    ("R31", "ONNX: the scale in f64", "dynamic.rs", "(hi - lo) / 255.0 };", "((f64::from(hi) - f64::from(lo)) / 255.0) as f32 };"),
    ("R31", "ONNX: the zero point away from zero", "dynamic.rs", "round_ties_even(0.0 - lo / scale) as i32", "(0.0 - lo / scale).round() as i32"),
    ("R31", "fbgemm adds its bias", "preset/dynamic.rs", "let fused = engine == DynamicEngine::Fbgemm;", "let fused = false && engine == DynamicEngine::Fbgemm;"),
    ("R31", "oneDNN fuses its bias", "preset/dynamic.rs", "let fused = engine == DynamicEngine::Fbgemm;", "let fused = engine != DynamicEngine::Qnnpack;"),
    ("R31", "QNNPACK fuses its bias", "preset/dynamic.rs", "let fused = engine == DynamicEngine::Fbgemm;", "let fused = engine != DynamicEngine::Onednn;"),
    ("R31", "fbgemm's codes are R2's", "preset/dynamic.rs", "Quantizer::new(QuantizeForm::Fused, input)", "Quantizer::new(QuantizeForm::Wrapping, input)"),
    ("R31", "QNNPACK's codes are fbgemm's", "preset/dynamic.rs", "Quantizer::new(QuantizeForm::Wrapping, input)", "Quantizer::new(QuantizeForm::Fused, input)"),
    ("R31", "oneDNN's reciprocal is of f32", "preset/dynamic.rs", "let factor = 1.0 / onednn::twice_f64(input.scale());", "let factor = 1.0 / input.scale() as f32;"),
    # R32 - R39
    ("R32", "averages move in f64", "observer/range.rs", "let moved = |end: f32, newer: f32| end + averaging_constant * (newer - end);", "let moved = |end: f32, newer: f32| (f64::from(end) + f64::from(averaging_constant) * (f64::from(newer) - f64::from(end))) as f32;"),
    ("R32", "averages: c·newer + (1 − c)·end", "observer/range.rs", "end + averaging_constant * (newer - end);", "averaging_constant * newer + (1.0 - averaging_constant) * end;"),
    ("R33", "the range is not extended to 0", "observer/parameters.rs", "pub fn affine(range: Range, codes: CodeRange, eps: f32) -> Result<Quantization, Error> {\n    let range = range.with_zero();", "pub fn affine(range: Range, codes: CodeRange, eps: f32) -> Result<Quantization, Error> {"),
    ("R33", "zero points away from zero", "observer/parameters.rs", "codes.lo() - round_ties_even(range.min() / scale) as i32", "codes.lo() - (range.min() / scale).round() as i32"),
    ("R33", "lo inside the rounding", "observer/parameters.rs", "codes.lo() - round_ties_even(range.min() / scale) as i32", "round_ties_even(codes.lo() as f32 - range.min() / scale) as i32"),
    ("R33", "the width in f64", "observer/parameters.rs", "at_least((range.max() - range.min()) / codes.steps() as f32, eps)?", "at_least(((f64::from(range.max()) - f64::from(range.min())) / f64::from(codes.steps())) as f32, eps)?"),
    ("R34", "the divisor is 127", "observer/parameters.rs", "(codes.steps() as f32 / 2.0)", "(codes.steps() / 2) as f32"),
    ("R34", "u8 with bounds: 128", "observer/codes.rs", "let middle = if codes.is_signed() { 0 } else { (lo + hi) / 2 };", "let middle = if codes.is_signed() { 0 } else { (lo + hi + 1) / 2 };"),
    ("R35", "the scale in f32", "observer/parameters.rs", "let mut scale = (f64::from(max) - f64::from(min)) / f64::from(steps);", "let mut scale = f64::from((max - min) / steps as f32);"),
    ("R35", "FBGEMM's sum for the difference", "observer/parameters.rs", "lo.abs() - below.abs() < hi.abs() - above.abs()", "lo.abs() + below.abs() < hi.abs() + above.abs()"),
    ("R35", "no smallest scale", "observer/parameters.rs", "if scale < f64::from(SMALLEST) {", "if false && scale < f64::from(SMALLEST) {"),
    ("R35", "the range is not amplified", "observer/parameters.rs", "_ => (min * amplifier, max * amplifier),", "_ => (min * (amplifier * 0.0 + 1.0), max),"),
    ("R35", "clamped after the rounding", "observer/parameters.rs", "round_ties_even_f64(zero_point.clamp(lo, hi)) as i32", "((zero_point + 0.5).floor() as i32).clamp(codes.lo(), codes.hi())"),
    ("R36", "narrow bounds are forgotten", "observer/weights.rs", "rule.apply(w).clamp(codes.lo(), codes.hi()) as i8", "rule.apply(w) as i8"),
    ("R37", "Reciprocal: the product of scales in f32", "observer/bias.rs", "BiasForm::Reciprocal => (weight_scale * input_scale) as f32,", "BiasForm::Reciprocal => weight_scale as f32 * input_scale as f32,"),
    ("R37", "Reciprocal: a division", "observer/bias.rs", "saturate(b * (1.0 / scale))", "saturate(b / scale)"),
    ("R37", "Quotient: a reciprocal", "observer/bias.rs", "BiasForm::Quotient => saturate(b / scale),", "BiasForm::Quotient => saturate(b * (1.0 / scale)),"),
    ("R37", "ties away from zero", "observer/bias.rs", "round_ties_even(v) as i32", "v.round() as i32"),
    ("R37", "NaN becomes 0", "observer/bias.rs", "if v.is_nan() { i32::MIN } else { round_ties_even(v) as i32 }", "round_ties_even(v) as i32"),
    ("R38", "convolutions associate as linear layers", "observer/fold.rs", "(centred * inverse) * gamma", "centred * (gamma * inverse)"),
    ("R38", "linear layers associate as convolutions", "observer/fold.rs", "centred * (gamma * inverse)", "(centred * inverse) * gamma"),
    ("R38", "weights: associated the other way", "observer/fold.rs", "weight.iter().map(|w| w * factor)", "weight.iter().map(|w| w * p.weight[c] * (factor * 0.0 + inverse))"),
    ("R38", "the bias is fused", "observer/fold.rs", "folded.bias.push(scaled(centred, inverse, p.weight[c]) + p.bias[c]);", "folded.bias.push(crate::float::fma(centred * inverse, p.weight[c], p.bias[c] + 0.0 * scaled(centred, inverse, p.weight[c])));"),
    ("R39", "restricted: divided by 127.5", "observer/textbook.rs", "range.magnitude() / codes.hi() as f32", "range.magnitude() / (codes.hi() as f32 + 0.5)"),
    ("R39", "inside: the zero point after", "observer/textbook.rs", "round_ties_even(if v < hi { v } else { hi }) as i32", "(round_ties_even(x / quantization.scale() as f32) as i32).saturating_add(quantization.zero_point()).clamp(lo as i32, if v < hi { hi as i32 } else { hi as i32 })"),
    # R40 - R42
    ("R40", "padding before and after change places", "movement.rs", "|to, ((at, [before, _]), extent)|", "|to, ((at, [_, before]), extent)|"),
    ("R40", "padding repeats an element", "movement.rs", "let mut y = vec![value; product", "let mut y = vec![x.first().copied().unwrap_or(value); product"),
    ("R40", "reflections repeat the end behind", "movement.rs", "{ 2 * (extent - 1) - at };", "{ 2 * extent - 1 - at };"),
    ("R40", "reflections repeat the end in front", "movement.rs", "map_or(before - at.min(before), inside)", "map_or((before - at).saturating_sub(1), inside)"),
    ("R40", "reflections are circular", "movement.rs", "{ 2 * (extent - 1) - at };", "{ at - extent };"),
    ("R40", "reflections before and after change places", "movement.rs", "pub fn reflected(extent: usize, [before, after]: [usize; 2])", "pub fn reflected(extent: usize, [after, before]: [usize; 2])"),
    ("R40", "reflections reach the whole extent", "movement.rs", "if got >= extent {\n            let expected = alloc::format!(\"less than {extent}", "if got > extent {\n            let expected = alloc::format!(\"less than {extent}"),
    ("R40", "the inverse permutation", "movement.rs", "axes.iter().map(|&axis| (shape[axis], strides[axis])).collect();", "(0..axes.len()).filter_map(|i| axes.iter().position(|&axis| axis == i)).map(|axis| (shape[axis], strides[axis])).collect();"),
    ("R40", "channels are shuffled the other way", "movement.rs", "layout::transpose(x, groups, channels / groups)", "layout::transpose(x, channels / groups, groups)"),
    ("R40", "every part of a split begins at the front", "movement.rs", "            rows = rest;", "            rows = if rest.is_empty() { rest } else { rows };"),
    ("R40", "chunks of floor(extent / n)", "movement.rs", "let most = extent.div_ceil(chunks);", "let most = (extent / chunks).max(1);"),
    ("R40", "chunks of nearly the same extents", "movement.rs", "Ok((0..extent).step_by(most).map(|start| most.min(extent - start)).collect())", "Ok((0..chunks.min(extent + 0 * most)).map(|i| extent / chunks + usize::from(i < extent % chunks)).collect())"),
    ("R41", "the step of a factor is the quotient of the extents", "movement.rs", "Resize::checked(input, output as usize, (1.0 / factor) as f32)", "Resize::checked(input, output as usize, input as f32 / (output as usize) as f32)"),
    ("R41", "the step in f64", "movement.rs", "((at as f32 * self.step) as usize)", "((at as f64 * f64::from(self.step)) as usize)"),
    ("R41", "centres of pixels", "movement.rs", "((at as f32 * self.step) as usize)", "(((at as f32 + 0.5) * self.step) as usize)"),
    ("R41", "extents: a product with the reciprocal", "movement.rs", "input as f32 / output as f32)", "input as f32 * (1.0 / output as f32))"),
    ("R41", "factors: the reciprocal in f32", "movement.rs", "(1.0 / factor) as f32)", "1.0 / factor as f32)"),
    ("R41", "factors: the extent in f32", "movement.rs", "let output = input as f64 * factor;", "let output = f64::from(input as f32 * factor as f32);"),
    ("R41", "factors: the extent to the nearest", "movement.rs", "Resize::checked(input, output as usize, (1.0", "Resize::checked(input, (output + 0.5) as usize, (1.0"),
    ("R41", "beyond the last pixel", "movement.rs", ".min(self.input - 1)", ".min(self.input)"),
    ("R41", "nothing is copied", "movement.rs", "if axes.iter().all(|axis| axis.input == axis.output) {", "if axes.iter().all(|axis| axis.input == 0 && axis.output == 0) {"),
    ("R41", "an axis that keeps its extent is copied", "movement.rs", "        ((at as f32 * self.step) as usize)", "        if self.input == self.output { return at; }\n        ((at as f32 * self.step) as usize)"),
    ("R42", "taps in ascending order", "transposed.rs", "(0..self.kernel).rev().filter(", "(0..self.kernel).filter("),
    ("R42", "the padding after takes part in the phase", "transposed.rs", "self.padding[0] as i64);", "self.padding[1] as i64);"),
    ("R42", "neighbours of a phase are the dilation apart", "transposed.rs", "(leading - next) as i64 * dilation / stride)", "dilation + 0 * (leading - next) as i64)"),
    ("R42", "no outputs are skipped", "transposed.rs", "(0, reads as usize) };", "(0, 0 * reads as usize) };"),
    ("R42", "phases without taps have weights 0", "transposed.rs", "iter::repeat_n(zero_point as i8,", "iter::repeat_n(0 * zero_point as i8,"),
    ("R42", "phases without taps have the first zero point", "transposed.rs", "crate::operand::per_channel(weight_zero_point, channel)", "crate::operand::per_channel(weight_zero_point, 0 * channel)"),
    ("R42", "the extent without the output padding", "transposed.rs", "v.checked_add(self.output_padding)?.checked_add(1)", "v.checked_add(0 * self.output_padding)?.checked_add(1)"),
    ("R42", "the extent without the dilation", "transposed.rs", "reach(self.kernel, self.dilation)", "reach(self.kernel, 1)"),
    ("R42", "the extent without the padding after", "transposed.rs", "saturating_add(self.padding[1])", "saturating_add(0 * self.padding[1])"),
    ("R42", "the extent with twice the padding before", "transposed.rs", "saturating_add(self.padding[1])", "saturating_add(self.padding[0])"),
    ("R42", "the output padding may be the stride or the dilation", "transposed.rs", "if self.output_padding >= most {", "if self.output_padding > most {"),
    ("R42", "the output padding is less than the stride", "transposed.rs", "self.stride.max(self.dilation)", "self.stride"),
    ("R42", "PyTorch's weights: taps after inputs", "transposed.rs", "&[0, 2, 3, 1])", "&[0, 2, 1, 3])"),
    ("R42", "PyTorch's weights: groups divide the outputs only", "transposed.rs", "&[groups, inputs, outputs, taps], &[0, 2, 3, 1])", "&[inputs, groups, outputs, taps], &[1, 2, 3, 0])"),
]


class Tree:
    """A copy of the tracked files, built again and again."""

    def __init__(self, folder):
        self.root = folder / "tree"
        self.environment = {
            **os.environ, "CARGO_TARGET_DIR": str(folder / "target"), "CARGO_PROFILE_TEST_OPT_LEVEL": "0",
            "CARGO_PROFILE_DEV_DEBUG": "0", "CARGO_PROFILE_TEST_DEBUG": "0", "CARGO_PROFILE_DEV_OPT_LEVEL": "1",
        }
        for name in subprocess.check_output(["git", "ls-files", "-z"], cwd=ROOT).decode().split("\0")[:-1]:
            if (ROOT / name).is_file():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, self.root / name)

    def cargo(self, *arguments):
        run = subprocess.run(["cargo", *arguments], cwd=self.root, env=self.environment, capture_output=True, text=True, check=False)
        return run.returncode, run.stdout + run.stderr

    def noticed(self):
        """The tests of `qexact-reference` that fail."""
        code, text = self.cargo("test", "--no-fail-fast", "-p", "qexact-reference", "--lib")
        failed = re.findall(r"^test (\S+)(?: - should panic)? \.\.\. FAILED", text, re.MULTILINE)
        if code and not failed:
            raise RuntimeError(text[-3000:])
        return sorted(failed)

    def noticed_with(self, change):
        """The tests that fail with a text replaced."""
        _, _, file, old, new = change
        path = self.root / "reference/src" / file
        original = path.read_text()
        code, mark, tests = original.partition("#[cfg(test)]")
        if code.count(old) != 1:
            raise RuntimeError(f"{file} holds {code.count(old)} times: {old}")
        path.write_text(code.replace(old, new) + mark + tests)
        try:
            return self.noticed()
        finally:
            path.write_text(original)


def markdown(results):
    """The table of MUTATIONS.md."""
    lines = []
    for (rule, detail, *_), found in results:
        shown = ", ".join(f"`{name}`" for name in found[:3])
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        lines.append(f"| {rule} | {detail} | {shown or '**nothing**'}{more} |")
    return "\n".join(["| rule | change | fails |", "|---|---|---|", *lines])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="changes whose rule or detail holds this text")
    parser.add_argument("--folder", type=pathlib.Path, help="where the copy is built [default: a temporary folder]")
    parser.add_argument("--markdown", type=pathlib.Path, help="the file whose table is written again")
    options = parser.parse_args()
    folder = options.folder or pathlib.Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    known = folder / "found.json"
    found = json.loads(known.read_text()) if known.exists() else {}
    tree = Tree(folder)
    chosen = [change for change in MUTATIONS if options.only in f"{change[0]} {change[1]}"]
    if failing := tree.noticed():
        raise SystemExit(f"without any change these fail: {failing}")
    for change in chosen:
        key = " | ".join(change)
        if found.get(key):
            continue
        try:
            found[key] = tree.noticed_with(change)
        except RuntimeError as error:
            print(*change[:2], f"not run: {error}", sep=" | ", flush=True)
            continue
        known.write_text(json.dumps(found))
        print(*change[:2], found[key] or "not noticed", sep=" | ", flush=True)
    results = [(change, found.get(" | ".join(change), [])) for change in chosen]
    if options.markdown:
        text = options.markdown.read_text()
        options.markdown.write_text(text[: text.index("| rule |")] + markdown(results) + "\n")
    survivors = [change for change, names in results if not names]
    print(f"{len(chosen) - len(survivors)} of {len(chosen)} changes are noticed")
    sys.exit(bool(survivors))


if __name__ == "__main__":
    main()
