//! Operators around layers between protected pages: whoever reads or writes beyond a buffer crashes.

use qexact_kernels::Isa;
use qexact_kernels::elementwise::{Binary, Lookup, Operand, dequantize, max_pool, quantize};
use qexact_reference::add::{Add, Form};
use qexact_reference::pool::{self, Pool};
use qexact_reference::quantizer::{DequantizeForm, Dequantizer, QuantizeForm, Quantizer};
use qexact_reference::{Axis, CodeType, Quantization};
use qexact_verify::guard::{Guarded, Place};

#[test]
fn nothing_beyond_the_slices_is_touched() {
    let q = Quantization::new(0.037, 121, CodeType::U8).unwrap();
    let (to, from) = (Quantizer::new(QuantizeForm::Wrapping, q), Dequantizer::new(DequantizeForm::Fused, q));
    let sum = Add::aten(q, q, q, Form::Body);
    let lookup = Lookup::<u8, u8>::new(|code| 255 - code);
    for isa in Isa::available() {
        for n in (0..=200).chain([255, 256, 257, 1000]) {
            for place in [Place::Middle, Place::Start, Place::End] {
                let codes: Vec<u8> = (0..n).map(|i| (i * 37 % 256) as u8).collect();
                let reals: Vec<f32> = codes.iter().map(|&code| from.apply(code.into())).collect();
                let (x, v) = (Guarded::holding(&codes, place).unwrap(), bytemuck::cast_slice(&reals));
                let v = Guarded::holding(v, place).unwrap();
                let output = |bytes, run: &dyn Fn(&mut [u8])| {
                    let mut y = Guarded::new(bytes, place).unwrap();
                    run(y.bytes_mut());
                    assert_eq!(y.overwritten(), None, "{isa} {n} {place:?}");
                    y.bytes().to_vec()
                };
                let y = output(n, &|y| quantize(isa, &to, bytemuck::cast_slice(v.bytes()), y).unwrap());
                assert!(y.iter().zip(&reals).all(|(&y, &x)| i32::from(y) == to.apply(x)));
                let y = output(4 * n, &|y| {
                    dequantize(isa, &from, x.bytes(), bytemuck::cast_slice_mut(y)).unwrap();
                });
                assert_eq!(y, v.bytes());
                let y = output(n, &|y| lookup.run(isa, x.bytes(), y).unwrap());
                assert!(y.iter().zip(&codes).all(|(y, x)| y ^ x == 255));
                let (a, b) = (Operand::Each(x.bytes()), Operand::Each(x.bytes()));
                let y = output(n, &|y| sum.run(isa, a, b, y).unwrap());
                assert!(y.iter().zip(&codes).all(|(&y, &x)| i32::from(y) == sum.apply(x.into(), x.into())));
            }
        }
        for channels in [1, 31, 63, 64, 65, 130] {
            let axis = Axis { input: 3, kernel: 2, stride: 1, padding: [1, 0], dilation: 1 };
            let pool = Pool { batch: 1, channels, axes: [Axis::UNIT, axis, axis], ceil_mode: false };
            let codes: Vec<u8> = (0..9 * channels).map(|i| (i * 37 % 256) as u8).collect();
            let want = pool::max_pool(&pool, &codes).unwrap();
            for place in [Place::Start, Place::End] {
                let x = Guarded::holding(&codes, place).unwrap();
                assert_eq!(max_pool(isa, &pool, x.bytes()).unwrap(), want, "{isa}");
            }
        }
    }
}
