//! Layers and packing on every instruction set: `run/<case>/<kernel>` and `pack/<case>/<kernel>`, in
//! multiply-accumulates (elements) a second.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use qexact_benches::{Bench, CASES};
use qexact_kernels::{Isa, Plan};
use std::time::Duration;

fn isas() -> impl Iterator<Item = Isa> {
    Isa::available().filter(|&isa| isa != Isa::REFERENCE)
}

fn run(c: &mut Criterion) {
    for (name, shape) in CASES {
        let bench = Bench::new(shape).expect("a valid shape");
        let mut group = c.benchmark_group(format!("run/{name}"));
        group.throughput(Throughput::Elements(bench.macs()));
        for isa in isas() {
            let mut prepared = bench.prepare(isa).expect("a valid layer");
            let kernel = prepared.plan.kernel();
            group.bench_function(BenchmarkId::from_parameter(kernel), |b| b.iter(|| prepared.run()));
        }
    }
}

fn pack(c: &mut Criterion) {
    for (name, shape) in [CASES[0], CASES[10], CASES[15]] {
        let bench = Bench::new(shape).expect("a valid shape");
        let layer = bench.layer().expect("a valid layer");
        let mut group = c.benchmark_group(format!("pack/{name}"));
        group.throughput(Throughput::Elements(layer.weight().len() as u64));
        for isa in isas() {
            let kernel = Plan::new(&layer, isa).expect("a valid layer").kernel();
            group.bench_function(BenchmarkId::from_parameter(kernel), |b| b.iter(|| Plan::new(&layer, isa)));
        }
    }
}

criterion_group! {
    name = layers;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600));
    targets = run, pack
}
criterion_main!(layers);
