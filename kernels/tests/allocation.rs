//! Running allocates nothing: every kind of plan, and operators whose outputs are the caller's, under an allocator that
//! counts.

use qexact_kernels::elementwise::{Lookup, dequantize, quantize};
use qexact_kernels::{BinaryLinear, Isa, Plan, Requantizer, TransposedPlan};
use qexact_reference::layer::LayerParts;
use qexact_reference::quantizer::{DequantizeForm, Dequantizer, QuantizeForm, Quantizer};
use qexact_reference::requantize::{
    Bias, Codes, F32Mul, F32Out, F32Real, FixedPoint, Overflow, Pow2, Q31Double, RealOutput, Rounding, Sum,
};
use qexact_reference::transposed::{TransposedAxis, TransposedConv};
use qexact_reference::{
    Addend, Axis, CodeType, Conv, Input, Layer, Linear, NarrowType, Output, PackedCodes, Quantization, Rule,
};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, which counts what a thread asks for.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is passed on.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: passed on.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `f` allocates.
fn allocations(f: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    f();
    ALLOCATIONS.get() - before
}

#[test]
fn the_allocator_counts() {
    assert_eq!(allocations(|| drop(std::hint::black_box(vec![1u8; 100]))), 1);
}

fn codes() -> Codes {
    Codes::new(3, CodeType::U8).unwrap()
}

/// A rule that kernels have built in, of each type of output, and some that they have not.
fn rules() -> Vec<Rule> {
    let f32_mul = || F32Mul::new(vec![0.01], Bias::None, 3, CodeType::U8).unwrap();
    let real = |output| F32Real { scale: vec![0.01], bias: vec![], sum: Sum::None, clip: None, output };
    let pow2 = |shift, rounding| Rule::Pow2(Pow2 { shift: vec![shift], bias: vec![], rounding, codes: codes() });
    let multiplier = vec![FixedPoint::nearest(0.01).unwrap()];
    vec![
        Rule::Accumulator,
        Rule::F32Mul(f32_mul()),
        Rule::F32Mul(F32Mul::new(vec![1e30], Bias::None, 3, CodeType::U8).unwrap().overflow(Overflow::ClampFirst)),
        Rule::F32Out(F32Out { scale: vec![0.01], bias: vec![], fused: false, relu: true }),
        Rule::F32Real(real(RealOutput::Reals)),
        Rule::F32Real(real(RealOutput::Codes { multiplier: 2.0, codes: codes() })),
        Rule::Q31Double(Q31Double { multiplier, bias: vec![], last: Rounding::Away, codes: codes() }),
        pow2(7, Rounding::Even),
        // There is no vector form.
        pow2(32, Rounding::Away),
    ]
}

fn each_rule_and_isa() -> impl Iterator<Item = (Rule, Isa)> {
    rules().into_iter().flat_map(|rule| Isa::available().map(move |isa| (rule.clone(), isa)))
}

fn parts<'a>(shape: Conv, weight: &'a [i8], rule: &'a Rule) -> LayerParts<'a> {
    LayerParts { shape, input: CodeType::U8, input_zero_point: 9, weight, weight_zero_point: &[0], rule }
}

/// Memory for outputs of a rule.
struct Buffer(Vec<u8>, Vec<i32>, Vec<f32>);

impl Buffer {
    fn new(len: usize) -> Buffer {
        Buffer(vec![0; len], vec![0; len], vec![0.0; len])
    }

    fn output(&mut self, rule: &Rule) -> Output<'_> {
        match rule.element_type() {
            "u8" => Output::U8(&mut self.0),
            "i32" => Output::I32(&mut self.1),
            _ => Output::F32(&mut self.2),
        }
    }
}

/// Shapes for every kind of kernel, with and without padding.
fn shapes() -> Vec<Conv> {
    let linear = |rows, in_features, out_features| Linear { rows, in_features, out_features }.into();
    let conv = |channels, outputs, groups, input, kernel, stride| {
        let axis = Axis { input, kernel, stride, padding: [kernel / 2; 2], ..Axis::UNIT };
        let axes = [Axis::UNIT, axis, axis];
        Conv { batch: 2, in_channels: channels, out_channels: outputs, groups, axes }
    };
    vec![
        linear(1, 100, 70),
        linear(50, 33, 41),
        conv(16, 40, 1, 9, 3, 1),
        conv(3, 20, 1, 15, 3, 2),
        conv(32, 16, 1, 8, 1, 1),
        conv(256, 16, 1, 4, 3, 1),
        conv(40, 40, 40, 9, 3, 1),
        conv(70, 70, 70, 9, 3, 2),
        conv(33, 33, 33, 11, 5, 1),
        conv(16, 16, 16, 9, 7, 1),
        conv(32, 32, 8, 9, 3, 1),
        conv(64, 64, 8, 9, 3, 2),
        conv(32, 32, 2, 9, 5, 1),
    ]
}

#[test]
fn plans_allocate_nothing_while_they_run() {
    for shape in shapes() {
        let x = vec![77; shape.batch * shape.axes.iter().map(|axis| axis.input).product::<usize>() * shape.in_channels];
        let weight: Vec<i8> = (0..shape.out_channels * shape.depth()).map(|i| (i * 37) as i8).collect();
        for (rule, isa) in each_rule_and_isa() {
            for weight_zero_point in [0, 5] {
                let parts = LayerParts { weight_zero_point: &[weight_zero_point], ..parts(shape, &weight, &rule) };
                let plan = Plan::new(&Layer::new(parts).unwrap(), isa).unwrap();
                let region = plan.region(shape.batch).unwrap();
                let (mut y, mut scratch) = (Buffer::new(region.len()), plan.scratch());
                let count = allocations(|| {
                    plan.run(&region, Input::U8(&x), y.output(&rule), &mut scratch).unwrap();
                });
                assert_eq!(count, 0, "{isa}, {}, {shape:?}, {rule:?}", plan.kernel());
            }
        }
    }
}

#[test]
fn plans_that_add_a_tensor_allocate_nothing_while_they_run() {
    let shape: Conv = Linear { rows: 20, in_features: 30, out_features: 40 }.into();
    let (x, weight, a) = (vec![7; 600], vec![3; 1200], vec![9; 800]);
    let sum = Sum::Codes { scale: 0.5, zero_point: 3, codes: CodeType::U8 };
    let output = RealOutput::Codes { multiplier: 1.0, codes: codes() };
    let rule = Rule::F32Real(F32Real { scale: vec![0.1], bias: vec![], sum, clip: None, output });
    for isa in Isa::available() {
        let plan = Plan::new(&Layer::new(parts(shape, &weight, &rule)).unwrap(), isa).unwrap();
        let (region, mut scratch, mut y) = (plan.region(20).unwrap(), plan.scratch(), vec![0; 800]);
        let count = allocations(|| {
            let (x, y) = (Input::U8(&x), Output::U8(&mut y));
            plan.run_adding(&region, x, Addend::U8(&a), y, &mut scratch).unwrap();
        });
        assert_eq!(count, 0, "{isa}");
    }
}

#[test]
fn transposed_plans_allocate_nothing_while_they_run() {
    let axis = TransposedAxis { input: 5, kernel: 3, stride: 2, padding: [1, 0], output_padding: 1, dilation: 1 };
    let axes = [TransposedAxis::UNIT, axis, axis];
    let unread: Conv = Linear { rows: 1, in_features: 1, out_features: 1 }.into();
    for groups in [1, 2, 8] {
        let shape = TransposedConv { batch: 2, in_channels: 8, out_channels: 16, groups, axes };
        let (x, weight) = (vec![7; 2 * 25 * 8], vec![3; 16 * 9 * 8 / groups]);
        for (rule, isa) in each_rule_and_isa() {
            let plan = TransposedPlan::new(&shape, &parts(unread, &weight, &rule), isa).unwrap();
            let (mut y, mut scratch) = (Buffer::new(shape.output_len().unwrap()), plan.scratch());
            let count = allocations(|| plan.run(Input::U8(&x), y.output(&rule), &mut scratch).unwrap());
            assert_eq!(count, 0, "{isa}, {rule:?}");
        }
    }
}

#[test]
fn narrow_weights_allocate_nothing_while_they_run() {
    let shape: Conv = Linear { rows: 20, in_features: 100, out_features: 40 }.into();
    let x = vec![7; 2000];
    // Codes of each of the types.
    let weight = [1i8, -1].repeat(2000);
    for codes in [NarrowType::I4, NarrowType::I2, NarrowType::Ternary, NarrowType::Binary] {
        let packed = PackedCodes::pack(codes, 100, &weight).unwrap();
        for (rule, isa) in each_rule_and_isa() {
            let parts = LayerParts { weight: &[], ..parts(shape, &weight, &rule) };
            let plan = Plan::from_packed(&parts, &packed, isa).unwrap();
            let (region, mut scratch, mut y) = (plan.region(20).unwrap(), plan.scratch(), Buffer::new(800));
            let count = allocations(|| plan.run(&region, Input::U8(&x), y.output(&rule), &mut scratch).unwrap());
            assert_eq!(count, 0, "{isa}, {}, {rule:?}", plan.kernel());
        }
    }
}

#[test]
fn binary_layers_and_requantizers_allocate_nothing_while_they_run() {
    let [x, weight] = [20, 40].map(|rows| PackedCodes::pack(NarrowType::Binary, 100, &vec![-1; rows * 100]).unwrap());
    for (rule, isa) in each_rule_and_isa() {
        let layer = BinaryLinear::new(&weight, &rule, isa).unwrap();
        let (mut scratch, mut y) = (layer.scratch(), Buffer::new(800));
        let count = allocations(|| layer.run(0..20, &x, y.output(&rule), &mut scratch).unwrap());
        assert_eq!(count, 0, "{isa}, {rule:?}");
        let requantizer = Requantizer::new(&rule, 40, isa).unwrap();
        let count = allocations(|| requantizer.run(&[5; 800], Addend::None, y.output(&rule)).unwrap());
        assert_eq!(count, 0, "{isa}, {rule:?}");
    }
}

#[test]
fn operators_allocate_nothing_where_the_output_is_the_callers() {
    let quantization = Quantization::new(0.5, 3, CodeType::U8).unwrap();
    let (quantizer, lookup) = (Quantizer::new(QuantizeForm::DividedAway, quantization), Lookup::<u8, u8>::of_relu(3));
    let dequantizer = Dequantizer::new(DequantizeForm::Fused, quantization);
    let (mut y, mut real) = (vec![0u8; 1000], vec![0.0; 1000]);
    for isa in Isa::available() {
        let x: Vec<u8> = (0..1000).map(|i| i as u8).collect();
        let count = allocations(|| {
            dequantize(isa, &dequantizer, &x, &mut real).unwrap();
            quantize(isa, &quantizer, &real, &mut y).unwrap();
            lookup.run(isa, &x, &mut y).unwrap();
        });
        assert_eq!(count, 0, "{isa}");
    }
}
