"""OpenVINO's CPU plugin: a float layer between dequantize and fake-quantize, which it turns into one u8 by i8 primitive.

The zero point of its input is 0, the one it is fastest with. Whole requests are timed, with some 6 µs of overhead each
and, for convolutions, reorders from and to NHWC; where its own profiler has a shorter time for the compute node
alone, that time counts.
"""

import math
import time

import numpy as np
import openvino as ov
from openvino import opset13 as op
from protocol import repeated, serve

rng = np.random.default_rng(0)
core = ov.Core()
CONFIG = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY", "ENABLE_CPU_PINNING": False}
COMPUTE = ("Convolution", "GroupConvolution", "FullyConnected", "MatMul")


def dequantized(codes, scale):
    return op.multiply(op.convert(codes, np.float32), op.constant(np.asarray(scale, np.float32)))


def model(shape):
    """Transposes stand outside: the plugin misses the integer path if one comes before the dequantization."""
    linear = shape["op"] == "linear"
    n = shape["N"] if linear else shape["Cout"]
    weight = lambda *extents: op.constant(rng.integers(-128, 128, extents, dtype=np.int8))
    scale = rng.uniform(0.001, 0.01, n)
    if linear:
        x = op.parameter([shape["M"], shape["K"]], np.uint8)
        weights = dequantized(weight(n, shape["K"]), scale.reshape(n, 1))
        y, channels = op.matmul(dequantized(x, 0.01), weights, False, True), (1, n)
    else:
        x = op.parameter([shape["N"], shape["H"], shape["W"], shape["Cin"]], np.uint8)
        nchw = op.transpose(dequantized(x, 0.01), op.constant(np.int64([0, 3, 1, 2])))
        pads, groups = [shape["pad"]] * 2, shape["groups"]
        inputs, kernel = shape["Cin"] // groups, (shape["kh"], shape["kw"])
        if groups == 1:
            weights, layer = dequantized(weight(n, inputs, *kernel), scale.reshape(n, 1, 1, 1)), op.convolution
        else:
            scale = scale.reshape(groups, n // groups, 1, 1, 1)
            weights = dequantized(weight(groups, n // groups, inputs, *kernel), scale)
            layer = op.group_convolution
        y = layer(nchw, weights, [shape["stride"]] * 2, pads, pads, [shape["dilation"]] * 2)
        channels = (1, n, 1, 1)
    y = op.relu(op.add(y, op.constant(rng.random(channels, np.float32))))
    lo, hi = op.constant(np.float32(0)), op.constant(np.float32(12.75))
    y = op.convert(op.fake_quantize(y, lo, hi, lo, op.constant(np.float32(255)), 256), np.uint8)
    return ov.Model([y if linear else op.transpose(y, op.constant(np.int64([0, 2, 3, 1])))], [x])


def request(shape, profiled):
    compiled = core.compile_model(model(shape), "CPU", CONFIG | {"PERF_COUNT": profiled})
    infer = compiled.create_infer_request()
    infer.set_input_tensor(ov.Tensor(rng.integers(0, 256, list(compiled.input(0).shape), dtype=np.uint8)))
    return compiled, infer


def build(shape):
    compiled, infer = request(shape, False)
    nodes = [node.rt_info for node in compiled.get_runtime_model().get_ordered_ops()]
    kernels = [str(node["primitiveType"].astype(str)) for node in nodes if str(node["layerType"].astype(str)) in COMPUTE]
    # The C++ call, without the wrapper's handling of results.
    run = ov._pyopenvino.InferRequest.infer
    calls = repeated(lambda: run(infer, {}, share_outputs=True, decode_strings=False))
    return calls, ", ".join(kernels), lambda: node_seconds(shape)


def node_seconds(shape):
    """The compute node's time, an average over all runs, the first and cold one included, in whole microseconds."""
    _, infer = request(shape, True)
    start = time.perf_counter()
    while time.perf_counter() - start < 0.2:
        infer.infer()
    spent = sum(n.real_time.total_seconds() for n in infer.get_profiling_info() if n.node_type.startswith(COMPUTE))
    # Half a microsecond is what rounding down takes away on average. Nothing measured is no time to speak of.
    return spent + 0.5e-6 if spent else math.inf


serve(build)
