//! Running a network on one instruction set.

use crate::document::Dtype;
use crate::elementwise::{concat, gather, pairs, permute, slice};
use crate::error::RunError;
use crate::network::{DynamicNode, LayerNode, Network, Node, Operator, PoolRule, TransposedNode, Value};
use crate::tensor::{Data, Order, Tensor};
use qexact_kernels::elementwise::{self, Lookup, adaptive_avg_pool, avg_pool, batch_norm, max_pool, mean_pool};
use qexact_kernels::{Isa, Plan, TransposedPlan};
use qexact_reference::elementwise::relu_real;
use qexact_reference::pool::{AdaptivePool, Pool};
use qexact_reference::quantizer::{DequantizeForm, Dequantizer, Quantizer};
use qexact_reference::table::Table;
use qexact_reference::{Addend, Code, Error, Input, Output, Quantization, Rule};
use std::cell::{Ref, RefCell};

/// Codes of either type to codes of the same type.
macro_rules! of_codes {
    ($data:expr, $codes:ident => $result:expr) => {
        match $data {
            Data::U8($codes) => Data::U8($result),
            Data::I8($codes) => Data::I8($result),
            Data::F32(_) => unreachable!("the graph gives this operator codes, and `check` compared the types"),
        }
    };
}

/// A network with a plan for every layer.
pub struct Executor<'n> {
    network: &'n Network,
    isa: Isa,
    /// One for each node that is a linear or convolution layer. Dynamic layers change theirs when they run.
    plans: Vec<Option<RefCell<Plan>>>,
    /// One for each node that is a transposed convolution.
    transposed: Vec<Option<TransposedPlan>>,
    scratch: RefCell<Vec<u8>>,
}

impl<'n> Executor<'n> {
    /// Plans all layers for an instruction set; [`Isa::REFERENCE`] is the scalar definition itself.
    ///
    /// # Errors
    /// A layer whose sizes overflow.
    pub fn new(network: &'n Network, isa: Isa) -> Result<Executor<'n>, RunError> {
        let plan = |node: &Node| {
            let plan = match &node.operator {
                Operator::Layer(layer) => Plan::new(&layer.layer(), isa),
                Operator::Dynamic(layer) => layer.layer(0, &Rule::Accumulator).and_then(|layer| Plan::new(&layer, isa)),
                _ => return Ok(None),
            };
            plan.map(|plan| Some(RefCell::new(plan))).map_err(|e| at(node, e))
        };
        let plans = network.nodes().iter().map(plan).collect::<Result<Vec<_>, _>>()?;
        let transposed = |node: &Node| match &node.operator {
            Operator::Transposed(layer) => {
                TransposedPlan::new(&layer.shape, &layer.parts(), isa).map(Some).map_err(|e| at(node, e))
            }
            _ => Ok(None),
        };
        let transposed = network.nodes().iter().map(transposed).collect::<Result<Vec<_>, _>>()?;
        let lens = plans.iter().flatten().map(|plan| plan.borrow().scratch_len());
        let longest = lens.chain(transposed.iter().flatten().map(TransposedPlan::scratch_len)).max().unwrap_or(0);
        Ok(Executor { network, isa, plans, transposed, scratch: RefCell::new(vec![0; longest]) })
    }

    /// The instruction set.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Name of the kernel that computes a layer; other operators run the reference's rules, compiled for the
    /// instruction set.
    pub fn kernel(&self, node: usize) -> String {
        let of_phases = || self.transposed[node].as_ref().map(|plan| plan.plans()[0].kernel().to_string());
        let kernel = self.plan(node).map(|plan| plan.kernel().to_string()).or_else(of_phases);
        kernel.unwrap_or_else(|| "reference".to_string())
    }

    /// The largest |accumulator| that any input of a layer can lead to, where its weights were packed.
    pub fn accumulator_bound(&self, node: usize) -> Option<i64> {
        match &self.transposed[node] {
            Some(plan) => {
                plan.plans().iter().map(Plan::accumulator_bound).try_fold(0, |most, bound| Some(most.max(bound?)))
            }
            None => self.plan(node)?.accumulator_bound(),
        }
    }

    /// The plan of a node that is a linear or convolution layer. A dynamic layer's has the rule of its last run.
    pub fn plan(&self, node: usize) -> Option<Ref<'_, Plan>> {
        self.plans[node].as_ref().map(RefCell::borrow)
    }

    /// Runs the network; the results are the graph's outputs.
    ///
    /// # Errors
    /// Inputs whose number, type, shape or batch is not the graph's.
    pub fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>, RunError> {
        let mut values = self.run_all(inputs)?;
        let outputs = self.network.outputs();
        // An output may be listed twice.
        Ok(outputs
            .iter()
            .enumerate()
            .filter_map(|(i, &o)| if outputs[i + 1..].contains(&o) { values[o].clone() } else { values[o].take() })
            .collect())
    }

    /// Runs the network; the results are all values of the graph, by index.
    ///
    /// # Errors
    /// As [`run`](Executor::run).
    pub fn run_all(&self, inputs: &[Tensor]) -> Result<Vec<Option<Tensor>>, RunError> {
        let expected = self.network.inputs();
        if inputs.len() != expected.len() {
            return Err(RunError::Inputs { got: inputs.len(), expected: expected.len() });
        }
        let mut values = vec![None; self.network.values().len()];
        for (&index, tensor) in expected.iter().zip(inputs) {
            self.check(&self.network.values()[index], tensor, inputs[0].batch())?;
            values[index] = Some(tensor.clone());
        }
        for (index, node) in self.network.nodes().iter().enumerate() {
            let ready = |&value: &usize| values[value].as_ref().expect("nodes are in execution order");
            let inputs: Vec<&Tensor> = node.inputs.iter().map(ready).collect();
            values[node.output] = Some(self.run_node(index, &inputs)?);
        }
        Ok(values)
    }

    /// Runs one node on values of its own.
    ///
    /// # Errors
    /// Values whose number, types or shapes are not those of the node's inputs; for a layer that quantizes its input
    /// itself, numbers whose range is not finite.
    pub fn run_node(&self, node: usize, inputs: &[&Tensor]) -> Result<Tensor, RunError> {
        let index = node;
        let plan = || self.plans[index].as_ref().expect("every layer has a plan");
        let node = &self.network.nodes()[node];
        if inputs.len() != node.inputs.len() {
            return Err(RunError::Inputs { got: inputs.len(), expected: node.inputs.len() });
        }
        let input = inputs[0];
        for (&value, tensor) in node.inputs.iter().zip(inputs) {
            self.check(&self.network.values()[value], tensor, input.batch())?;
        }
        let output = &self.network.values()[node.output];
        let batch = input.batch();
        let refused = |source| at(node, source);
        let tensor = |order, data| Tensor::from_parts(batch, output.shape.clone(), order, data);
        Ok(match &node.operator {
            Operator::Quantize(rule) => {
                tensor(input.order(), self.quantize(rule, input.data_as_is(), output).map_err(refused)?)
            }
            Operator::Dequantize(q) => tensor(input.order(), self.dequantize(*q, input.data_as_is()).map_err(refused)?),
            Operator::Layer(layer) => {
                let order = layer_order(layer);
                let codes = input.in_order(order);
                let addend = inputs.get(1).map(|addend| addend.in_order(order));
                let rows = layer.shape.batch * batch;
                let data = self.layer(&plan().borrow(), rows, &codes, addend.as_deref(), output.dtype);
                tensor(order, data.map_err(refused)?)
            }
            Operator::Dynamic(layer) => {
                let data = self.dynamic(layer, &mut plan().borrow_mut(), batch, input.data().as_ref());
                tensor(Order::Logical, data.map_err(refused)?)
            }
            Operator::Transposed(layer) => {
                let data = self.transposed(layer, index, batch, &input.in_order(Order::ChannelsLast), output);
                tensor(Order::ChannelsLast, data.map_err(refused)?)
            }
            Operator::Relu(Some(zero_point)) => tensor(
                input.order(),
                of_codes!(input.data_as_is(), codes => {
                    let mut y = codes.clone();
                    Lookup::of_relu(*zero_point).run(self.isa, codes, &mut y).map_err(refused)?;
                    y
                }),
            ),
            Operator::Relu(None) => {
                let mut data = input.data_as_is().clone();
                if let Data::F32(x) = &mut data {
                    relu_real(x);
                }
                tensor(input.order(), data)
            }
            Operator::Table(table) => {
                let data = input.data_as_is();
                let data = match output.dtype {
                    Dtype::I8 => self.table(table, data).map(Data::I8),
                    _ => self.table(table, data).map(Data::U8),
                };
                tensor(input.order(), data.map_err(refused)?)
            }
            Operator::Add(rule) => {
                let (order, data) = pairs(self.isa, rule, inputs[0], inputs[1]).map_err(refused)?;
                tensor(order, data)
            }
            Operator::Mul(rule) => {
                let (order, data) = pairs(self.isa, rule, inputs[0], inputs[1]).map_err(refused)?;
                tensor(order, data)
            }
            Operator::BatchNorm(rule) => {
                let data = input.in_order(Order::ChannelsLast);
                let data = of_codes!(data.as_ref(), codes => {
                    let mut y = codes.clone();
                    batch_norm(self.isa, rule, codes, &mut y).map_err(refused)?;
                    y
                });
                tensor(Order::ChannelsLast, data)
            }
            Operator::MaxPool(pool) => {
                let (pool, data) = (Pool { batch, ..*pool }, input.in_order(Order::ChannelsLast));
                let data = of_codes!(data.as_ref(), codes => max_pool(self.isa, &pool, codes).map_err(refused)?);
                tensor(Order::ChannelsLast, data)
            }
            Operator::AvgPool(pool, divisor, rule) => {
                let (pool, data) = (Pool { batch, ..*pool }, input.in_order(Order::ChannelsLast));
                let data = of_codes!(data.as_ref(), codes => match rule {
                    PoolRule::Average(average) => avg_pool(self.isa, &pool, *divisor, *average, codes).map_err(refused)?,
                    PoolRule::Mean(mean) => mean_pool(self.isa, &pool, *divisor, mean, codes).map_err(refused)?,
                });
                tensor(Order::ChannelsLast, data)
            }
            Operator::AdaptiveAvgPool(pool, average) => {
                let (pool, data) = (AdaptivePool { batch, ..*pool }, input.in_order(Order::ChannelsLast));
                let data = of_codes!(data.as_ref(), codes => {
                    adaptive_avg_pool(self.isa, &pool, *average, codes).map_err(refused)?
                });
                tensor(Order::ChannelsLast, data)
            }
            Operator::Reshape => tensor(Order::Logical, input.data().into_owned()),
            Operator::Permute(axes) => tensor(Order::Logical, permute(input, axes)),
            Operator::Slice { axis, start, step } => {
                tensor(Order::Logical, slice(input, *axis, *start, *step, output.shape[*axis]))
            }
            Operator::Gather(choice) => tensor(Order::Logical, gather(input, choice)),
            Operator::Concat(parts) => {
                let order = if parts.channels_last { Order::ChannelsLast } else { Order::Logical };
                tensor(order, concat(parts, inputs))
            }
        })
    }

    /// [`run`](Executor::run) on batches of so many samples of the inputs, one after the other.
    ///
    /// # Errors
    /// As [`run`](Executor::run).
    pub fn run_in_batches(&self, inputs: &[Tensor], samples: usize) -> Result<Vec<Tensor>, RunError> {
        in_batches(inputs, samples, |batch| self.run(batch))
    }

    /// [`run_node`](Executor::run_node) on batches of so many samples of the inputs, one after the other.
    ///
    /// # Errors
    /// As [`run_node`](Executor::run_node).
    pub fn run_node_in_batches(&self, node: usize, inputs: &[Tensor], samples: usize) -> Result<Tensor, RunError> {
        let run = |batch: &[Tensor]| Ok(vec![self.run_node(node, &batch.iter().collect::<Vec<_>>())?]);
        Ok(in_batches(inputs, samples, run)?.remove(0))
    }

    fn check(&self, value: &Value, tensor: &Tensor, batch: usize) -> Result<(), RunError> {
        let wrong = |what, got: String, expected: String| {
            Err(RunError::Value { value: value.name.clone(), what, got, expected })
        };
        if tensor.dtype() != value.dtype {
            return wrong("type", tensor.dtype().to_string(), value.dtype.to_string());
        }
        if tensor.shape() != value.shape {
            return wrong("shape of a sample", format!("{:?}", tensor.shape()), format!("{:?}", value.shape));
        }
        if let Some(codes) = value.quantization.map(Quantization::codes).filter(|codes| codes.bits() < 8) {
            let outside = |code: i32| codes.check("a code", code).is_err();
            let found = match tensor.data_as_is() {
                Data::U8(v) => v.iter().map(|&q| q.into()).find(|&q| outside(q)),
                Data::I8(v) => v.iter().map(|&q| q.into()).find(|&q| outside(q)),
                Data::F32(_) => None,
            };
            if let Some(code) = found {
                return wrong("a code", code.to_string(), format!("a value in {}..={}", codes.lo(), codes.hi()));
            }
        }
        if tensor.batch() == 0 || tensor.batch() != batch {
            let expected = if batch == 0 { "at least 1".into() } else { format!("{batch}, as in the first input") };
            return wrong("batch", tensor.batch().to_string(), expected);
        }
        Ok(())
    }

    fn layer(
        &self,
        plan: &Plan,
        batch: usize,
        input: &Data,
        addend: Option<&Data>,
        output: Dtype,
    ) -> Result<Data, Error> {
        let region = plan.region(batch)?;
        let input = match input {
            Data::U8(x) => Input::U8(x),
            Data::I8(x) => Input::I8(x),
            Data::F32(_) => return Err(Error::ElementType { what: "input", got: "f32", expected: "u8" }),
        };
        let addend = match addend {
            None => Addend::None,
            Some(Data::U8(a)) => Addend::U8(a),
            Some(Data::I8(a)) => Addend::I8(a),
            Some(Data::F32(a)) => Addend::F32(a),
        };
        let len = region.len();
        let mut output = match output {
            Dtype::U8 => Data::U8(vec![0; len]),
            Dtype::I8 => Data::I8(vec![0; len]),
            Dtype::F32 => Data::F32(vec![0.0; len]),
        };
        let y = match &mut output {
            Data::U8(y) => Output::U8(y),
            Data::I8(y) => Output::I8(y),
            Data::F32(y) => Output::F32(y),
        };
        let mut scratch = self.scratch.borrow_mut();
        // A rule that came with the data may need more than the one that was planned for.
        if scratch.len() < plan.scratch_len() {
            scratch.resize(plan.scratch_len(), 0);
        }
        plan.run_adding(&region, input, addend, y, &mut scratch)?;
        Ok(output)
    }

    /// Sample by sample: the plan is one sample's.
    fn transposed(
        &self,
        layer: &TransposedNode,
        node: usize,
        batch: usize,
        input: &Data,
        output: &Value,
    ) -> Result<Data, Error> {
        let plan = self.transposed[node].as_ref().expect("every transposed convolution has a plan");
        let len = output.sample_len();
        let pixels: usize = layer.shape.axes.iter().map(|axis| axis.input).product();
        let from = pixels * layer.shape.in_channels;
        let mut scratch = self.scratch.borrow_mut();
        let mut data = match output.dtype {
            Dtype::U8 => Data::U8(vec![0; batch * len]),
            Dtype::I8 => Data::I8(vec![0; batch * len]),
            Dtype::F32 => Data::F32(vec![0.0; batch * len]),
        };
        for sample in 0..batch {
            let (from, to) = (sample * from..(sample + 1) * from, sample * len..(sample + 1) * len);
            let x = match input {
                Data::U8(x) => Input::U8(&x[from]),
                Data::I8(x) => Input::I8(&x[from]),
                Data::F32(_) => return Err(Error::ElementType { what: "input", got: "f32", expected: "u8" }),
            };
            let y = match &mut data {
                Data::U8(y) => Output::U8(&mut y[to]),
                Data::I8(y) => Output::I8(&mut y[to]),
                Data::F32(y) => Output::F32(&mut y[to]),
            };
            plan.run(x, y, &mut scratch)?;
        }
        Ok(data)
    }

    /// Allocates: for codes, and for the parameters that follow from the data.
    fn dynamic(&self, layer: &DynamicNode, plan: &mut Plan, batch: usize, input: &Data) -> Result<Data, Error> {
        let Data::F32(x) = input else {
            return Err(Error::ElementType { what: "input", got: "codes", expected: "f32" });
        };
        let (codes, (zero_point, rule)) = layer.quantized(x)?;
        plan.requantize(zero_point, &rule)?;
        self.layer(plan, layer.shape.batch * batch, &Data::U8(codes), None, Dtype::F32)
    }

    fn quantize(&self, rule: &Quantizer, data: &Data, output: &Value) -> Result<Data, Error> {
        let Data::F32(x) = data else { return Ok(data.clone()) };
        if output.quantization.is_some_and(|q| q.codes().is_signed()) {
            self.codes(rule, x).map(Data::I8)
        } else {
            self.codes(rule, x).map(Data::U8)
        }
    }

    fn codes<T: Code>(&self, rule: &Quantizer, x: &[f32]) -> Result<Vec<T>, Error> {
        let mut codes = vec![T::MIN; x.len()];
        elementwise::quantize(self.isa, rule, x, &mut codes)?;
        Ok(codes)
    }

    fn dequantize(&self, q: Quantization, data: &Data) -> Result<Data, Error> {
        let (rule, mut reals) = (Dequantizer::new(DequantizeForm::Difference, q), vec![0.0; data.len()]);
        match data {
            Data::U8(codes) => elementwise::dequantize(self.isa, &rule, codes, &mut reals)?,
            Data::I8(codes) => elementwise::dequantize(self.isa, &rule, codes, &mut reals)?,
            f32 @ Data::F32(_) => return Ok(f32.clone()),
        }
        Ok(Data::F32(reals))
    }

    fn table<T: Code>(&self, table: &Table, data: &Data) -> Result<Vec<T>, Error> {
        let mut codes = vec![T::MIN; data.len()];
        match data {
            Data::U8(x) => Lookup::of_table(table).run(self.isa, x, &mut codes)?,
            Data::I8(x) => Lookup::of_table(table).run(self.isa, x, &mut codes)?,
            Data::F32(_) => unreachable!("the graph gives this operator codes, and `check` compared the types"),
        }
        Ok(codes)
    }
}

/// What `run` gives for batches of so many samples, joined.
fn in_batches(
    inputs: &[Tensor],
    samples: usize,
    run: impl Fn(&[Tensor]) -> Result<Vec<Tensor>, RunError>,
) -> Result<Vec<Tensor>, RunError> {
    let all = inputs.first().map_or(0, Tensor::batch);
    if samples == 0 || samples >= all || inputs.iter().any(|input| input.batch() != all) {
        return run(inputs);
    }
    let mut outputs: Vec<Vec<Tensor>> = Vec::new();
    for first in (0..all).step_by(samples) {
        let batch: Vec<Tensor> = inputs.iter().map(|x| x.samples(first..all.min(first + samples))).collect();
        for (position, output) in run(&batch)?.into_iter().enumerate() {
            if outputs.len() == position {
                outputs.push(Vec::new());
            }
            outputs[position].push(output);
        }
    }
    Ok(outputs.iter().map(|batches| Tensor::join(batches).expect("batches of one value")).collect())
}

fn layer_order(layer: &LayerNode) -> Order {
    if layer.linear { Order::Logical } else { Order::ChannelsLast }
}

fn at(node: &Node, source: Error) -> RunError {
    RunError::Node { node: node.name.clone(), source }
}
