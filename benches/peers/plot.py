"""Draws results of the driver: every shape, in percent of the core's peak, qexact and its best peer."""

import argparse
import collections
import json
import pathlib
import statistics

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=pathlib.Path, help="a file of JSON lines; the picture lies beside it")
    parser.add_argument("--shapes", type=pathlib.Path, default=pathlib.Path(__file__).parent.parent / "shapes.json")
    given = parser.parse_args()
    rows = [json.loads(line) for line in given.results.read_text().splitlines()]
    macs = {shape["name"]: shape["macs"] for shape in json.loads(given.shapes.read_text())}
    peak = statistics.median(row["peak_gmacs"] for row in rows if "peak_gmacs" in row)
    times = collections.defaultdict(lambda: collections.defaultdict(list))
    for row in rows:
        if "median_ns" in row:
            times[row["name"]][row["peer"]].append(row["median_ns"])
    names = [name for name in macs if "qexact" in times[name]]

    def percent(name, ns):
        return 100 * macs[name] / ns / peak

    ours, best = [], []
    for name in names:
        medians = {peer: statistics.median(ns) for peer, ns in times[name].items()}
        ours.append(percent(name, medians.pop("qexact")))
        best.append(percent(name, min(medians.values())) if medians else None)
    # The same picture from the same results, whenever it is drawn.
    plt.rcParams["svg.hashsalt"] = "qexact"
    figure, axes = plt.subplots(figsize=(9, 1.5 + 0.19 * len(names)), layout="constrained")
    places = range(len(names))
    axes.hlines(places, [min(a, b) if b else a for a, b in zip(ours, best)],
                [max(a, b) if b else a for a, b in zip(ours, best)], color="0.8", linewidth=2, zorder=1)
    drawn = [(place, value) for place, value in zip(places, best) if value is not None]
    axes.scatter([value for _, value in drawn], [place for place, _ in drawn], color="tab:orange", label="best peer", zorder=2)
    axes.scatter(ours, places, color="tab:blue", label="qexact", zorder=3)
    axes.set_yticks(places, names, fontsize=7)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(0, max(105, *ours, *(value for _, value in drawn)) + 2)
    axes.grid(axis="x", color="0.9")
    cpu = next(row["cpu"] for row in rows if "cpu" in row)
    axes.set_xlabel(f"% of {peak:.0f} GMAC/s, the peak of one core")
    axes.set_title(f"{cpu}, {rows[0]['isa']}")
    axes.legend(loc="upper right")
    figure.savefig(given.results.with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
