// oneDNN, called directly: u8 by s8 to u8 with scales per channel, f32 bias and ReLU. Weights are reordered beforehand to
// the layout that the primitive asks for; activations are NHWC.
//
// Reads a shape a line (the driver's `onednn` format: name, op, extents) and answers with a line of JSON each.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <iostream>
#include <random>
#include <sstream>
#include <string>
#include <unordered_map>
#include <vector>

#include "oneapi/dnnl/dnnl.hpp"
using namespace dnnl;
using type = memory::data_type;
using tag = memory::format_tag;
using dims = memory::dims;

static engine cpu(engine::kind::cpu, 0);
static stream queue(cpu);
static std::mt19937 rng(1);

struct Time {
    double median, least;
    std::string kernel;
};

struct Call {
    std::function<void()> run;
    std::string kernel;
};

static double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// As protocol.py's `measure`.
static Time measure(const Call &call, double seconds) {
    auto timed = [&](long n) {
        call.run();
        double start = now();
        for (long i = 0; i < n; i++) call.run();
        return now() - start;
    };
    const double sample = 500e-6;
    long n = 1;
    for (double took; (took = timed(n)) < sample;) n = long(n * std::clamp(1.1 * sample / took, 1.1, 100.0)) + 1;
    std::vector<double> samples;
    for (double start = now(); now() - start < seconds || samples.size() < 15;) samples.push_back(timed(n) / n);
    std::sort(samples.begin(), samples.end());
    return {samples[samples.size() / 2], samples[0], call.kernel};
}

static memory bytes(const memory::desc &desc) {
    memory m(desc, cpu);
    auto *data = static_cast<uint8_t *>(m.get_data_handle());
    std::generate(data, data + desc.get_size(), [] { return uint8_t(rng()); });
    return m;
}

static memory reals(const memory::desc &desc, float lo, float hi) {
    memory m(desc, cpu);
    auto *data = static_cast<float *>(m.get_data_handle());
    std::generate(data, data + desc.get_size() / 4, [=] { return lo + (hi - lo) * (rng() % 1000) / 1000.f; });
    return m;
}

static primitive_attr attributes(int weights_mask) {
    primitive_attr attr;
    attr.set_scales_mask(DNNL_ARG_SRC, 0);
    attr.set_scales_mask(DNNL_ARG_WEIGHTS, weights_mask);
    attr.set_scales_mask(DNNL_ARG_DST, 0);
    post_ops ops;
    ops.append_eltwise(algorithm::eltwise_relu, 0.f, 0.f);
    attr.set_post_ops(ops);
    return attr;
}

template <class Primitive>
static Call prepare(const typename Primitive::primitive_desc &desc, const memory::desc &bias, const memory::desc &plain, long channels) {
    memory given = bytes(plain), weights(desc.weights_desc(), cpu);
    reorder(given, weights).execute(queue, given, weights);
    auto scales = [](long n, float lo, float hi) { return reals({{n}, type::f32, tag::a}, lo, hi); };
    std::unordered_map<int, memory> args = {
        {DNNL_ARG_SRC, bytes(desc.src_desc())},
        {DNNL_ARG_WEIGHTS, weights},
        {DNNL_ARG_BIAS, reals(bias, 0, 1)},
        {DNNL_ARG_DST, memory(desc.dst_desc(), cpu)},
        {DNNL_ARG_ATTR_SCALES | DNNL_ARG_SRC, scales(1, 0.01f, 0.01f)},
        {DNNL_ARG_ATTR_SCALES | DNNL_ARG_WEIGHTS, scales(channels, 0.001f, 0.01f)},
        {DNNL_ARG_ATTR_SCALES | DNNL_ARG_DST, scales(1, 0.05f, 0.05f)},
    };
    Primitive primitive(desc);
    queue.wait();
    return {[=]() mutable { primitive.execute(queue, args); }, desc.impl_info_str()};
}

// Two primitives can do it. The faster one counts, by samples that did not choose it: the lesser of two medians would be too
// low wherever they scatter.
static Time linear(long m, long k, long n, double seconds) {
    memory::desc x({m, k}, type::u8, tag::ab), y({m, n}, type::u8, tag::ab);
    memory::desc any({n, k}, type::s8, tag::any), plain({n, k}, type::s8, tag::ab), bias({n}, type::f32, tag::a);
    inner_product_forward::primitive_desc inner(cpu, prop_kind::forward_inference, x, any, bias, y, attributes(1));
    Call a = prepare<inner_product_forward>(inner, bias, plain, n);
    memory::desc any_kn({k, n}, type::s8, tag::any), plain_kn({k, n}, type::s8, tag::ba), row({1, n}, type::f32, tag::ab);
    matmul::primitive_desc product(cpu, x, any_kn, row, y, attributes(2));
    Call b = prepare<matmul>(product, row, plain_kn, n);
    bool first = measure(a, seconds / 4).median < measure(b, seconds / 4).median;
    return measure(first ? a : b, seconds / 2);
}

static Time conv(const std::vector<long> &v, double seconds) {
    long batch = v[0], h = v[1], w = v[2], ci = v[3], co = v[4], kh = v[5], kw = v[6], s = v[7], p = v[8], d = v[9], g = v[10];
    auto out = [=](long size, long kernel) { return (size + 2 * p - d * (kernel - 1) - 1) / s + 1; };
    memory::desc x({batch, ci, h, w}, type::u8, tag::nhwc), y({batch, co, out(h, kh), out(w, kw)}, type::u8, tag::nhwc);
    dims weight = g == 1 ? dims{co, ci, kh, kw} : dims{g, co / g, ci / g, kh, kw};
    memory::desc any(weight, type::s8, tag::any), plain(weight, type::s8, g == 1 ? tag::oihw : tag::goihw), bias({co}, type::f32, tag::a);
    convolution_forward::primitive_desc desc(cpu, prop_kind::forward_inference, algorithm::convolution_direct, x, any, bias, y,
        dims{s, s}, dims{d - 1, d - 1}, dims{p, p}, dims{p, p}, attributes(g == 1 ? 1 : 3));
    return measure(prepare<convolution_forward>(desc, bias, plain, co), seconds);
}

int main(int, char **argv) {
    double seconds = std::stod(argv[1]);
    for (std::string line; std::getline(std::cin, line);) {
        std::istringstream words(line);
        std::string name, op;
        words >> name >> op;
        std::vector<long> extents;
        for (long extent; words >> extent;) extents.push_back(extent);
        try {
            Time t = op == "linear" ? linear(extents[0], extents[1], extents[2], seconds) : conv(extents, seconds);
            printf("{\"name\": \"%s\", \"median_ns\": %.3f, \"min_ns\": %.3f, \"kernel\": \"%s\"}\n", name.c_str(), t.median * 1e9,
                t.least * 1e9, t.kernel.c_str());
        } catch (const std::exception &e) {
            printf("{\"name\": \"%s\", \"error\": \"%s\"}\n", name.c_str(), e.what());
        }
        fflush(stdout);
    }
}
