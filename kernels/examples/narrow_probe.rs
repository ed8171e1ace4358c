#![allow(missing_docs)]
use qexact_kernels::{Isa, IsaName, Plan};
use qexact_reference::layer::LayerParts;
use qexact_reference::requantize::{Bias, F32Mul};
use qexact_reference::*;
use std::time::Instant;
fn main() {
    let isa = Isa::new(IsaName::Avx512Vnni).unwrap();
    for shape in [
        "linear m1k768n3072",
        "linear m1k4096n4096",
        "linear m4k768n3072",
        "linear m16k768n3072",
        "linear m128k768n768",
        "linear m1k768n768",
    ] {
        let l: Linear = shape.parse().unwrap();
        let rule = Rule::F32Mul(F32Mul::new(vec![0.001], Bias::None, 3, CodeType::U8).unwrap());
        let mut s = 7u64;
        let mut next = || {
            s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            s >> 40
        };
        let (k, n) = (l.in_features, l.out_features);
        let conv: Conv = l.into();
        let x: Vec<u8> = (0..l.rows * k).map(|_| next() as u8).collect();
        let mut plans = vec![];
        for t in [None, Some(NarrowType::I4), Some(NarrowType::I2), Some(NarrowType::Binary)] {
            let w: Vec<i8> = (0..k * n)
                .map(|_| match t {
                    Some(NarrowType::Binary) => 1 - 2 * (next() & 1) as i8,
                    Some(NarrowType::I2) => (next() & 3) as i8 - 2,
                    _ => (next() & 15) as i8 - 8,
                })
                .collect();
            let parts = LayerParts {
                shape: conv,
                input: CodeType::U8,
                input_zero_point: 128,
                weight: &w,
                weight_zero_point: &[0],
                rule: &rule,
            };
            plans.push(match t {
                None => Plan::new(&Layer::new(parts).unwrap(), isa).unwrap(),
                Some(t) => Plan::from_packed(&parts, &PackedCodes::pack(t, k, &w).unwrap(), isa).unwrap(),
            });
        }
        let mut y = vec![0u8; l.rows * n];
        let reps = (400_000_000 / (l.rows * k * n)).max(3);
        let mut times = vec![vec![]; plans.len()];
        for _ in 0..25 {
            for (plan, times) in plans.iter().zip(&mut times) {
                let mut scratch = plan.scratch();
                let region = plan.region(l.rows).unwrap();
                let start = Instant::now();
                for _ in 0..reps {
                    plan.run(&region, Input::U8(&x), Output::U8(&mut y), &mut scratch).unwrap();
                }
                times.push(start.elapsed().as_secs_f64() / reps as f64);
            }
        }
        print!("{shape:24}");
        let mut base = 0.0;
        for (plan, times) in plans.iter().zip(&mut times) {
            times.sort_by(f64::total_cmp);
            let m = times[times.len() / 2];
            if base == 0.0 {
                base = m;
            }
            print!(
                " | {} {:.1} GMAC/s x{:.2} {} KB",
                plan.kernel(),
                (l.rows * k * n) as f64 / m / 1e9,
                base / m,
                plan.weight_bytes() / 1024
            );
        }
        println!();
    }
}
