"""Writes the table of the driver's results: every shape, groups of shapes, and in how many qexact comes first."""

import argparse
import collections
import json
import pathlib
import statistics


def kind(shape):
    """As the groups of `qexact bench`: layers that the same things limit."""
    if shape["op"] == "linear":
        m, k, n = (shape[key] for key in "MKN")
        return f"linear {'M=1' if m == 1 else 'GEMM' if m >= 16 and k >= 512 and n >= 64 else 'other'}"
    window = f"{shape['kh']}x{shape['kw']}"
    if shape["groups"] == shape["Cin"] > 1:
        return f"depthwise {window} stride {shape['stride']}"
    if shape["groups"] > 1:
        return "grouped"
    if shape["Cin"] <= 3:
        return f"{shape['Cin']}-channel {window} stem"
    return f"{shape['group']} {window}"


class Measured:
    """Medians over the rounds, of one shape."""

    def __init__(self, rows):
        times = collections.defaultdict(list)
        for row in rows:
            if "median_ns" in row:
                times[row["peer"]].append(row["median_ns"])
        ours = [row for row in rows if row["peer"] == "qexact" and "median_ns" in row]
        self.macs, self.ns = ours[0]["macs"], statistics.median(times.pop("qexact"))
        # Each time by what a core reached in turn with it: the clock moves.
        self.peak = statistics.median(row["gmacs"] / row["peak_gmacs"] for row in ours)
        reads = [row["weight_gb_per_s"] / row["read_gb_per_s"] for row in ours if "read_gb_per_s" in row]
        self.read, self.bytes = (statistics.median(reads), ours[0]["weight_bytes"]) if reads else (None, 0)
        self.ratios = {peer: statistics.median(ns) / self.ns for peer, ns in times.items()}
        self.best = min(self.ratios, key=self.ratios.get, default=None)

    @property
    def ratio(self):
        return self.ratios[self.best]


def first(measured):
    """How many are as fast as the best peer or faster, up to 1 %."""
    return sum(one.ratio >= 0.99 for one in measured)


def line(cells):
    return f"| {' | '.join(map(str, cells))} |"


def ratio(value):
    return "" if value is None else f"{value:.2f}"


def share(shares, weights):
    """Percent of what could be done in the time of all: work by Σ time × peak, where time × peak is work by share."""
    shares = list(shares)
    return "" if None in shares else f"{100 * statistics.harmonic_mean(shares, weights=list(weights)):.1f}"


def speeds(measured):
    """GMAC/s, percent of the peak and of the loop that reads, of all that was measured together."""
    macs = [one.macs for one in measured]
    return [f"{sum(macs) / sum(one.ns for one in measured):.0f}", share((one.peak for one in measured), macs),
            share((one.read for one in measured), (one.bytes for one in measured))]


def table(title, shapes, rows):
    names = {row["name"] for row in rows}
    shapes = [shape for shape in shapes if shape["name"] in names]
    measured = measure(rows)
    peers = list(dict.fromkeys(row["peer"] for row in rows if "median_ns" in row and row["peer"] != "qexact"))
    peak = statistics.median(row["peak_gmacs"] for row in rows if "peak_gmacs" in row)
    text = [f"# {title}", "",
            f"One core; 100 % of the peak is what dot products in registers reached in turn with the layer, {peak:.0f} GMAC/s in "
            "the middle, and 100 % of reading what a loop read of as many bytes as a single row has weights. "
            f"Times and percentages are medians of {rows[-1]['round']} rounds. Ratios are the peer's time by qexact's: above 1 "
            "qexact is faster.", "",
            line(["shape", "qexact µs", "GMAC/s", "% of peak", "% of reading", "best peer", "ratio", *peers]),
            f"|---|--:|--:|--:|--:|---|--:|{'--:|' * len(peers)}"]
    groups = collections.defaultdict(list)
    for shape in shapes:
        one = measured.get(shape["name"])
        if one is None:
            text.append(line([shape["name"], "wrong"]))
            continue
        text.append(line([shape["name"], f"{one.ns / 1e3:.2f}", *speeds([one]), one.best or "none",
                          ratio(one.ratios.get(one.best)), *(ratio(one.ratios.get(peer)) for peer in peers)]))
        if one.ratios:
            groups[kind(shape)].append(one)
    left_out = collections.defaultdict(set)
    for row in rows:
        if "error" in row and row["peer"] != "qexact":
            left_out[row["peer"], row["error"]].add(row["name"])
    if left_out:
        text += ["", *(f"* {peer} is left out of {len(names)} shapes: {error}." for (peer, error), names in left_out.items())]
    compared = {name: one for name, one in measured.items() if one.ratios}
    if not compared:
        return "\n".join(text) + "\n"
    text += ["", line(["group", "shapes", "GMAC/s", "% of peak", "% of reading", "ratio to the best peer (geomean)", "lowest",
                       "first or within 1 %", *peers]),
             f"|---|--:|--:|--:|--:|--:|--:|--:|{'--:|' * len(peers)}"]
    for group, members in [*groups.items(), ("all", list(compared.values()))]:
        columns = ([one.ratios[peer] for one in members if peer in one.ratios] for peer in peers)
        bests = [one.ratio for one in members]
        text.append(line([group, len(members), *speeds(members), ratio(statistics.geometric_mean(bests)), ratio(min(bests)),
                          first(members), *(ratio(statistics.geometric_mean(c) if c else None) for c in columns)]))
    order = sorted(compared, key=lambda name: compared[name].ratio)
    extremes = (f"{word} ratio {compared[name].ratio:.2f}, {name}" for word, name in [("highest", order[-1]), ("lowest", order[0])])
    text += ["", f"First or within 1 %: {first(compared.values())} of {len(compared)}; below 0.95: "
             f"{sum(one.ratio < 0.95 for one in compared.values())}; geometric mean: "
             f"{statistics.geometric_mean(one.ratio for one in compared.values()):.2f}; {'; '.join(extremes)}."]
    return "\n".join(text) + "\n"


def read(description, beside):
    """The file of results that a command is given, its rows, and the shapes."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("results", type=pathlib.Path, help=f"CPU-DATE/ISA.jsonl; the {beside} lies beside it")
    parser.add_argument("--shapes", type=pathlib.Path, default=pathlib.Path(__file__).parent.parent / "shapes.json")
    given = parser.parse_args()
    rows = [json.loads(text) for text in given.results.read_text().splitlines()]
    return given.results, rows, json.loads(given.shapes.read_text())


def measure(rows):
    """Every shape that qexact computed right, by name."""
    by_name = collections.defaultdict(list)
    for row in rows:
        by_name[row["name"]].append(row)
    right = {row["name"] for row in rows if row["peer"] == "qexact" and "median_ns" in row}
    return {name: Measured(by_name[name]) for name in right}


def main():
    results, rows, shapes = read(__doc__, "table")
    cpu = next(row["cpu"] for row in rows if "cpu" in row)
    date = results.resolve().parent.name[-len("2000-01-01"):]
    results.with_suffix(".md").write_text(table(f"{cpu}, {rows[0]['isa']}, {date}", shapes, rows))


if __name__ == "__main__":
    main()
