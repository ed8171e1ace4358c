"""How a peer written in Python talks to the driver: shapes in, times out, a line of JSON each."""

import gc
import json
import sys
import time

SAMPLE = 500e-6  # the shortest sample, seconds
SAMPLES = 15


def serve(build):
    """Answers the shapes on standard input until it ends.

    `build(shape)` returns a function that makes a number of calls, the kernel's name and, from libraries that time
    themselves, a function for the seconds of one call without what surrounds it; the shorter time counts.
    """
    seconds = float(sys.argv[1])
    answer = sys.stdout
    sys.stdout = sys.stderr  # libraries print what they like
    for line in sys.stdin:
        shape = json.loads(line)
        try:
            calls, kernel, *itself = build(shape)
            median, least = measure(calls, seconds)
            for inner in (its_own() for its_own in itself):
                median, least = min(median, inner), min(least, inner)
            reply = {"median_ns": median * 1e9, "min_ns": least * 1e9, "kernel": kernel}
        except Exception as error:  # a peer that refuses a shape takes part in the others
            reply = {"error": f"{type(error).__name__}: {error}"[:300]}
        print(json.dumps({"name": shape["name"], **reply}), file=answer, flush=True)


def measure(calls, seconds):
    """Median and minimum of one call, in seconds."""
    n = 1
    while (took := timed(calls, n)) < SAMPLE:
        n = int(n * min(max(1.1 * SAMPLE / max(took, 1e-9), 1.1), 100)) + 1
    samples, start = [], time.perf_counter()
    gc.disable()
    while time.perf_counter() - start < seconds or len(samples) < SAMPLES:
        samples.append(timed(calls, n) / n)
    gc.enable()
    samples.sort()
    return samples[len(samples) // 2], samples[0]


def timed(calls, n):
    calls(1)
    start = time.perf_counter()
    calls(n)
    return time.perf_counter() - start


def output_size(shape):
    """Height and width of a convolution's output."""

    def extent(size, kernel):
        window = shape["dilation"] * (kernel - 1) + 1
        return (size + 2 * shape["pad"] - window) // shape["stride"] + 1

    return extent(shape["H"], shape["kh"]), extent(shape["W"], shape["kw"])


def repeated(call):
    """Calls of a Python function that has no loop of its own."""

    def calls(n):
        for _ in range(n):
            call()

    return calls
