"""Times qexact and its peers on the same shapes, shape by shape in turn, on one core; see README.md."""

import argparse
import datetime
import json
import os
import pathlib
import re
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
    for script in ["table.py", "plot.py"]:
        subprocess.run([PYTHON, HERE / script, folder / f"{given.isa}.jsonl", "--shapes", given.shapes], check=True)
    print((folder / f"{given.isa}.md").read_text())
    return any("error" in row for row in rows if row["peer"] == "qexact")


if __name__ == "__main__":
    sys.exit(main())
