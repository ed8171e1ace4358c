//! Representative layers on every instruction set: `run/<shape>/<kernel>` and `pack/<shape>/<kernel>`, in
//! multiply-accumulates (weights) a second.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use qexact_kernels::{Isa, Plan};
use qexact_verify::bench::{Expected, RuleName, Shape, Subject};
use std::time::Duration;

/// Of `shapes.json`, one for each kind of layer that kernels treat differently.
const NAMES: [&str; 18] = [
    "bert/lin_128x768x3072",
    "bert/lin_1x768x3072",
    "llm/lin_1x4096x4096",
    "mlp/lin_64x784x512",
    "mlp/lin_64x512x10",
    "odd/lin_7x131x61",
    "resnet50/7x7_3-64_s2_224px",
    "resnet50/1x1_64-64_s1_56px",
    "resnet50/1x1_256-64_s1_56px",
    "resnet50/1x1_256-512_s2_56px",
    "resnet50/3x3_64-64_s1_56px",
    "resnet50/3x3_512-512_s1_7px",
    "mobilenet_v2/3x3_3-32_s2_224px",
    "mobilenet_v2/dw3x3_32-32_s1_112px",
    "mobilenet_v2/dw3x3_144-144_s2_56px",
    "efficientnet_b0/dw5x5_240-240_s1_28px",
    "resnext50/g32_3x3_128-128_s1_56px",
    "small_cnn/3x3_1-32_s1_28px",
];

fn subjects(names: &[&str]) -> Vec<Subject> {
    let shapes = Shape::embedded();
    let find = |name: &&str| shapes.iter().find(|shape| shape.name == *name).unwrap_or_else(|| panic!("no {name}"));
    names.iter().map(|name| Subject::new(find(name).clone(), RuleName::F32Mul, 8).expect("a valid layer")).collect()
}

fn isas() -> impl Iterator<Item = Isa> {
    Isa::available().filter(|&isa| isa != Isa::REFERENCE)
}

fn run(c: &mut Criterion) {
    for subject in subjects(&NAMES) {
        let expected = Expected::of(&subject).expect("a valid layer");
        let mut group = c.benchmark_group(format!("run/{}", subject.shape.name));
        group.throughput(Throughput::Elements(subject.shape.conv.macs() as u64));
        for isa in isas() {
            let mut prepared = subject.prepare(isa, &[None]).expect("a valid layer");
            prepared.run();
            assert_eq!(expected.difference(&prepared), None, "{} on {isa}", subject.shape.name);
            let kernel = prepared.plan.kernel();
            group.bench_function(BenchmarkId::from_parameter(kernel), |b| b.iter(|| prepared.run()));
        }
    }
}

fn pack(c: &mut Criterion) {
    for subject in subjects(&[NAMES[0], NAMES[10], NAMES[14]]) {
        let layer = subject.layer().expect("a valid layer");
        let mut group = c.benchmark_group(format!("pack/{}", subject.shape.name));
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
