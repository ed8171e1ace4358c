//! Rule R29: concatenation of quantized tensors along the channels, each recoded to the output's scale.

use crate::Error;
use crate::Quantization;
use crate::add::Form;
use crate::operand::{Code, expect_len};
use crate::quantizer::{DequantizeForm, Dequantizer, QuantizeForm, Quantizer};
use crate::recode::Recode;
use crate::shape::product;
use alloc::vec::Vec;

/// PyTorch's kernel for channels-last tensors. The body covers the first `floor(C / 8) · 8` channels of an input.
///
/// ```text
/// body: R22 Wrapping of fma(f32(S), f32(q), −(f32(S)·f32(z))) with m = f32( 1 / S_Y ), the quotient in f64
/// tail: R22 Saturating of f32(S)·f32(q − z) with m = f32(1) / f32(S_Y)
/// ```
pub fn aten_channels_last(x: Quantization, y: Quantization, form: Form) -> Recode {
    let mut quantize = Quantizer::new(form.quantize(), y);
    if form == Form::Body {
        quantize.factor = (1.0 / y.scale()) as f32;
    }
    Recode::Real { dequantize: Dequantizer::new(form.dequantize(), x), quantize }
}

/// PyTorch for all other layouts: R3, then R2.
pub fn aten_contiguous(x: Quantization, y: Quantization) -> Recode {
    let dequantize = Dequantizer::new(DequantizeForm::Difference, x);
    Recode::Real { dequantize, quantize: Quantizer::new(QuantizeForm::Wrapping, y) }
}

/// One of the tensors to concatenate: `[pixels, channels]`.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a, T> {
    /// The codes.
    pub codes: &'a [T],
    /// How many a pixel has.
    pub channels: usize,
    /// Applied to every code.
    pub recode: Recode,
}

/// `[pixels, Σ channels]`: the channels of all parts, pixel by pixel.
///
/// # Errors
/// A part of another length than `pixels · channels`, sizes that overflow.
pub fn concat<T: Code>(pixels: usize, parts: &[Part<'_, T>]) -> Result<Vec<T>, Error> {
    for part in parts {
        let expected = product("elements of a part", &[pixels, part.channels])?;
        expect_len("part", part.codes.len(), expected)?;
    }
    let mut output = Vec::new();
    for pixel in 0..pixels {
        for Part { codes, channels, recode } in parts {
            let codes = &codes[pixel * channels..][..*channels];
            output.extend(codes.iter().map(|&q| T::from_i32(recode.apply(q.into()))));
        }
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CodeType;

    fn u8(scale: f64, zero_point: i32) -> Quantization {
        Quantization::new(scale, zero_point, CodeType::U8).unwrap()
    }

    #[test]
    fn channels_of_all_parts_of_a_pixel_are_neighbours() {
        let to = u8(1.0, 0);
        let (one, two) = (aten_contiguous(u8(1.0, 0), to), aten_contiguous(u8(2.0, 1), to));
        let parts = [
            Part { codes: &[1u8, 2, 3, 4][..], channels: 2, recode: one },
            Part { codes: &[5, 6], channels: 1, recode: two },
        ];
        assert_eq!(concat(2, &parts).unwrap(), [1, 2, 8, 3, 4, 10]);
        assert!(concat(3, &parts).is_err());
    }

    #[test]
    fn body_tail_and_contiguous_part() {
        let parts = |f: fn(Quantization, Quantization) -> Recode, g: fn(Quantization, Quantization) -> Recode| {
            (1..200).any(|i| {
                let s = 0.05 + f64::from(i) * 1e-4;
                let (x, y) = (u8(s, 61), u8(2.0 * s, 120));
                (0..=255).any(|q| f(x, y).apply(q) != g(x, y).apply(q))
            })
        };
        let body = |x, y| aten_channels_last(x, y, Form::Body);
        let tail = |x, y| aten_channels_last(x, y, Form::Tail);
        assert!(parts(body, tail) && parts(body, aten_contiguous));
        // The reciprocal of the f64 scale is not that of the f32 scale.
        let differs = (1..200).any(|i| {
            let y = u8(0.05 + f64::from(i) * 1e-4, 0);
            let Recode::Real { quantize, .. } = body(y, y) else { unreachable!() };
            quantize.factor != 1.0 / y.scale() as f32
        });
        assert!(differs);
    }
}
