"""Times qexact and its peers on the same shapes, shape by shape in turn, on one core; see README.md."""

import argparse
import collections
import datetime
import json
import math
import os
import pathlib
import re
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
PYTHON = sys.executable
# How libraries are told which instructions to do without. The others cannot be told, and take part in the first set only.
LIMITS = {
    "avx512_vnni": {},
    "avx_vnni": {"ONEDNN_MAX_CPU_ISA": "AVX2_VNNI", "ATEN_CPU_CAPABILITY": "avx2"},
    "avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "FBGEMM_ENABLE_INSTRUCTIONS": "AVX2"},
}
ONE_THREAD = dict.fromkeys(["OMP_NUM_THREADS", "RAYON_NUM_THREADS", "RTEN_NUM_THREADS", "MKL_NUM_THREADS"], "1")


def python(script, *arguments):
    return lambda build, seconds: [PYTHON, HERE / script, seconds, *arguments]


# Name, instruction sets that it can be limited to, command.
PEERS = [
    ("onednn", ["avx512_vnni", "avx_vnni", "avx2"], lambda build, seconds: [build / "onednn_peer", seconds]),
    ("openvino", ["avx512_vnni", "avx_vnni", "avx2"], python("peer_openvino.py")),
    ("onnxruntime", ["avx512_vnni"], python("peer_onnxruntime.py")),
    ("xnnpack", ["avx512_vnni"], python("peer_litert.py")),
    ("torch_fbgemm", ["avx512_vnni", "avx2"], python("peer_torch.py", "fbgemm")),
    ("torch_onednn", ["avx512_vnni", "avx_vnni", "avx2"], python("peer_torch.py", "onednn")),
    ("rten_gemm", ["avx512_vnni"], lambda build, seconds: [build / "qexact-rust-peers", "rten", seconds]),
    ("tract_linalg", ["avx512_vnni"], lambda build, seconds: [build / "qexact-rust-peers", "tract", seconds]),
]
EXTENTS = {
    "linear": ["M", "K", "N"],
    "conv2d": ["N", "H", "W", "Cin", "Cout", "kh", "kw", "stride", "pad", "dilation", "groups"],
}


def beyond_limit(peer, isa, shape):
    """Why a peer takes no part in a shape: it would run instructions that it was told to do without.

    FBGEMM chooses its kernels for groups of few channels by what the CPU has, not by the variable (`fbgemmOptimizedGConv`,
    `getOrCreateConvKernel`).
    """
    if peer != "torch_fbgemm" or isa == "avx512_vnni" or shape["op"] != "conv2d":
        return None
    inputs, outputs = (shape[key] // shape["groups"] for key in ("Cin", "Cout"))
    window = [shape[key] for key in ("kh", "kw", "pad", "dilation")] == [3, 3, 1, 1] and shape["stride"] <= 2
    return "not limited: runs VPDPBUSD of 512 bits" if inputs == outputs in (2, 4, 8, 16) and window else None


class Peer:
    """A process that times one shape when it is told to."""

    def __init__(self, name, command, isa):
        self.name, self.isa = name, isa
        environment = os.environ | ONE_THREAD | LIMITS[isa]
        self.process = subprocess.Popen(
            [str(word) for word in command], env=environment, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def time(self, shape):
        if reason := beyond_limit(self.name, self.isa, shape):
            return {"name": shape["name"], "error": reason}
        words = [shape["name"], shape["op"], *(shape[key] for key in EXTENTS[shape["op"]])]
        line = " ".join(map(str, words)) if self.name == "onednn" else json.dumps(shape)
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            reply = self.process.stdout.readline()
        except BrokenPipeError:
            reply = ""
        answer = json.loads(reply) if reply else {"name": shape["name"], "error": "the process ended"}
        assert answer["name"] == shape["name"], f"{self.name} answered {answer} to {shape}"
        return answer


def kind(shape):
    """As the groups of `qexact bench`."""
    if shape["op"] == "linear":
        return f"{shape['group']} M{'=' if shape['M'] == 1 else '>'}1"
    names = {
        "depthwise": shape["groups"] == shape["Cin"] > 1,
        "stem": shape["Cin"] <= 3,
        "grouped": shape["groups"] > 1,
        "1x1": shape["kh"] * shape["kw"] == 1,
        "kxk": True,
    }
    return f"{shape['group']} {next(name for name, holds in names.items() if holds)}"


def geomean(values):
    return math.exp(statistics.fmean(map(math.log, values)))


def table(isa, shapes, rows):
    """Medians over the rounds, by shapes and by groups."""
    times = collections.defaultdict(dict)
    for shape in shapes:
        for row in rows:
            if row["name"] == shape["name"] and "median_ns" in row:
                times[shape["name"]].setdefault(row["peer"], []).append(row["median_ns"])
    peak = statistics.median(row["peak_gmacs"] for row in rows if "peak_gmacs" in row)
    cpu = next(row["cpu"] for row in rows if "cpu" in row)
    peers = [name for name, _, _ in PEERS if any(name in times[shape["name"]] for shape in shapes)]
    text = [f"# {cpu}, {isa}, {datetime.date.today()}", "",
            f"One core; 100 % = {peak:.0f} GMAC/s, measured beside. Times are medians of {rows[-1]['round']} "
            "rounds. Ratios are the peer's time by qexact's: above 1 qexact is faster.", ""]
    columns = ["shape", "qexact µs", "GMAC/s", "% of peak", "best peer", "ratio", *peers]
    text += [f"| {' | '.join(columns)} |", f"|---|--:|--:|--:|---|--:|{'--:|' * len(peers)}"]
    groups = collections.defaultdict(list)
    for shape in shapes:
        median = {peer: statistics.median(ns) for peer, ns in times[shape["name"]].items()}
        if "qexact" not in median:
            text.append(f"| {shape['name']} | wrong |")
            continue
        ours = median.pop("qexact")
        ratios = {peer: ns / ours for peer, ns in median.items()}
        gmacs = shape["macs"] / ours
        best = min(ratios, key=ratios.get, default="none")
        cells = [shape["name"], f"{ours / 1e3:.2f}", f"{gmacs:.0f}", f"{100 * gmacs / peak:.0f}", best,
                 f"{ratios[best]:.2f}" if ratios else ""]
        text.append(f"| {' | '.join(cells + [f'{ratios[p]:.2f}' if p in ratios else '' for p in peers])} |")
        if ratios:
            groups[kind(shape)].append((ratios, best))
    left_out = collections.defaultdict(set)
    for row in rows:
        if "error" in row and row["peer"] != "qexact":
            left_out[row["peer"], row["error"]].add(row["name"])
    text += ["", *(f"* {peer} is left out of {len(names)} shapes: {error}." for (peer, error), names in left_out.items())]
    text += ["", "| group | shapes | ratio to the best peer (geomean) | faster than every peer | " + " | ".join(peers) + " |",
             f"|---|--:|--:|--:|{'--:|' * len(peers)}"]
    for group, members in [*groups.items(), ("all", [member for members in groups.values() for member in members])]:
        bests = [ratios[best] for ratios, best in members]
        cells = [group, str(len(members)), f"{geomean(bests):.2f}", str(sum(best > 1 for best in bests))]
        for peer in peers:
            values = [ratios[peer] for ratios, _ in members if peer in ratios]
            cells.append(f"{geomean(values):.2f}" if values else "")
        text.append(f"| {' | '.join(cells)} |")
    return "\n".join(text) + "\n"


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", type=pathlib.Path, default=HERE.parent / "shapes.json", help="a file of shapes")
    parser.add_argument("--shapes-filter", default="", metavar="TEXT", help="only shapes with this in their name")
    parser.add_argument("--isa", choices=LIMITS, default="avx512_vnni", help="what qexact and its peers may use")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", default="0.2", help="for each shape, peer and round")
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--peers", default="", metavar="NAME,…", help="only these")
    parser.add_argument("--output", type=pathlib.Path, default=HERE.parent / "results", help="where results go")
    parser.add_argument("--build", type=pathlib.Path, required=True, help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    given = arguments()
    shapes = [shape for shape in json.loads(given.shapes.read_text()) if given.shapes_filter in shape["name"]]
    chosen = given.peers.split(",") if given.peers else [name for name, _, _ in PEERS]
    if unknown := set(chosen) - {name for name, _, _ in PEERS}:
        sys.exit(f"peers: {', '.join(sorted(unknown))} unknown, expected some of {', '.join(name for name, _, _ in PEERS)}")
    if not shapes or given.rounds < 1:
        sys.exit(f"{len(shapes)} shapes with `{given.shapes_filter}` in their name, {given.rounds} rounds; expected 1 at least")
    # Children inherit it.
    os.sched_setaffinity(0, {given.core})
    ours = [given.build / "qexact_peer", "--isa", given.isa, "--seconds", given.seconds]
    running = [Peer("qexact", ours, given.isa)]
    for name, isas, command in PEERS:
        if name in chosen and given.isa in isas:
            running.append(Peer(name, command(given.build, given.seconds), given.isa))
    rows = []
    for number in range(1, given.rounds + 1):
        for shape in shapes:
            for peer in running:
                row = {"peer": peer.name, "isa": given.isa, "round": number} | peer.time(shape)
                rows.append(row)
                time = f"{row['median_ns'] / 1e3:12.2f} µs" if "median_ns" in row else row["error"]
                print(f"{number} {shape['name']:44} {peer.name:14} {time}  {row.get('kernel', '')}", flush=True)
    cpu = next((row["cpu"] for row in rows if "cpu" in row), None)
    if cpu is None:
        sys.exit("qexact timed no shape, so there is nothing to compare")
    slug = re.sub(r"[^a-z0-9]+", "-", cpu.lower()).strip("-")
    folder = given.output / f"{slug}-{datetime.date.today()}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{given.isa}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / f"{given.isa}.md").write_text(table(given.isa, shapes, rows))
    print((folder / f"{given.isa}.md").read_text())
    subprocess.run([PYTHON, HERE / "plot.py", folder / f"{given.isa}.jsonl", "--shapes", given.shapes], check=True)
    return any("error" in row for row in rows if row["peer"] == "qexact")


if __name__ == "__main__":
    sys.exit(main())
