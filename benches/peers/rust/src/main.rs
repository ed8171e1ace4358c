//! Rust peers, matrix products only: rten-gemm (u8 by i8) and tract-linalg (i8 by i8).
//!
//! Neither requantizes: what is timed ends with int32 sums and a bias, which flatters them. Weights are packed
//! beforehand; tract also packs activations, in every call. Takes part in linear layers and 1x1 convolutions.

use qexact_verify::bench::Shape;
use qexact_verify::bench::clock::{self, Statistics, Timed};
use rten_gemm::{BiasVector, GemmExecutor, GemmInputA, GemmInputB, GemmOptions, QuantParams};
use rten_tensor::NdTensor;
use rten_tensor::prelude::*;
use std::hint::black_box;
use std::io::{BufRead, Write};
use std::time::Duration;
use tract_data::prelude::Tensor;
use tract_linalg::mmm::{AsInputValue, FusedSpec, MatMatMul};
use tract_linalg::x86_64::mmm::{avx512vnni_mmm_i32_8x8, avx512vnni_mmm_i32_16x16};

/// Rows, products an output, columns.
type Product = [usize; 3];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, peer, seconds] = &arguments[..] else { return Err("usage: qexact-rust-peers rten|tract SECONDS".into()) };
    let seconds = Duration::try_from_secs_f64(seconds.parse()?)?;
    for line in std::io::stdin().lock().lines() {
        let shape = Shape::parse_file(&format!("[{}]", line?))?.remove(0);
        let conv = shape.conv;
        let product = [conv.batch * conv.pixels(), conv.in_channels, conv.out_channels];
        let mut answer = if conv.is_pointwise() && conv.groups == 1 {
            let (time, kernel) = if peer == "rten" { rten(product, seconds) } else { tract(product, seconds) };
            serde_json::json!({"median_ns": time.median_ns, "min_ns": time.min_ns, "kernel": kernel})
        } else {
            serde_json::json!({"error": "no matrix product"})
        };
        answer["name"] = shape.name.into();
        writeln!(std::io::stdout(), "{answer}")?;
    }
    Ok(())
}

fn time(seconds: Duration, mut call: impl FnMut()) -> Statistics {
    let mut timed = Timed::new(Duration::from_micros(500), |n| clock::calls(n, &mut call));
    clock::interleave(&mut [&mut timed], seconds);
    timed.statistics()
}

fn faster(a: (Statistics, String), b: (Statistics, String)) -> (Statistics, String) {
    if a.0.median_ns <= b.0.median_ns { a } else { b }
}

fn codes(len: usize) -> impl Iterator<Item = u8> {
    (0..len as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
}

fn rten([m, k, n]: Product, seconds: Duration) -> (Statistics, String) {
    let gemm = GemmExecutor::<u8, i8, i32>::default();
    let x = NdTensor::from_data([m, k], codes(m * k).collect::<Vec<_>>());
    let weights = NdTensor::from_data([k, n], codes(k * n).map(|code| code as i8).collect::<Vec<_>>());
    let packed = gemm.prepack_b(weights.view());
    let (bias, x_zero, weight_zero, mut y) = (vec![7; n], vec![128; m], vec![0; n], vec![0; m * n]);
    let mut run = |as_it_is: bool| {
        time(seconds, || {
            let b = if as_it_is { GemmInputB::Unpacked(weights.view()) } else { GemmInputB::Packed(&packed) };
            let options = GemmOptions {
                bias: Some(BiasVector::Row(&bias)),
                a_quant: Some(QuantParams { zero_point: &x_zero }),
                b_quant: Some(QuantParams { zero_point: &weight_zero }),
                ..Default::default()
            };
            gemm.gemm(&mut y, GemmInputA::Unpacked(x.view()), b, options).expect("a valid product");
            black_box(&y);
        })
    };
    let kernel = gemm.kernel_name().to_string();
    let prepacked = (run(false), kernel.clone());
    // Its products of a vector want the matrix as it is.
    if m > 1 { prepacked } else { faster(prepacked, (run(true), kernel)) }
}

/// Asked for its preferred kernel, tract names a portable one; the fast ones have to be called by name.
fn tract(product: Product, seconds: Duration) -> (Statistics, String) {
    let wide = tract_kernel(&*avx512vnni_mmm_i32_16x16.mmm(), product, seconds / 2);
    faster(wide, tract_kernel(&*avx512vnni_mmm_i32_8x8.mmm(), product, seconds / 2))
}

fn tract_kernel(kernel: &dyn MatMatMul, [m, k, n]: Product, seconds: Duration) -> (Statistics, String) {
    let tensor = |rows, len| {
        let codes: Vec<i8> = codes(rows * len).map(|code| code as i8).collect();
        Tensor::from_shape(&[rows, len], &codes).expect("a matrix")
    };
    let (weights, x) = (tensor(n, k), tensor(m, k));
    let bias = Tensor::from_shape(&[n], &vec![7i32; n]).expect("a vector");
    // The second packing is that of 8-bit codes.
    let (weight_format, x_format) = &kernel.packings()[1];
    let packed = weight_format.prepare_one(&weights, 1, 0).expect("weights that can be packed");
    let mut y = Tensor::zero::<i32>(&[m, n]).expect("a matrix");
    // SAFETY: the kernel's own scratch space is used with the kernel.
    let mut scratch = unsafe { kernel.allocate_scratch_space() };
    let statistics = time(seconds, || {
        let x = x_format.prepare_one(&x, 1, 0).expect("activations that can be packed");
        // SAFETY: the output is a matrix of `m` rows and `n` columns, stored with outputs along axis 1.
        let output = unsafe { kernel.c_view(Some(1), Some(0)).wrap(&y.view_mut()) };
        let product =
            FusedSpec::AddMatMul { a: AsInputValue::Borrowed(&*packed), b: AsInputValue::Borrowed(&*x), packing: 1 };
        let bias = FusedSpec::BinPerRow(bias.view(), tract_linalg::BinOp::Add);
        // SAFETY: operands were packed for this kernel and have `k` products an output.
        unsafe { kernel.run_with_scratch_space(n, m, scratch.as_mut(), &[product, bias, FusedSpec::Store(output)]) }
            .expect("a valid product");
        black_box(&y);
    });
    (statistics, kernel.name().to_string())
}
