"""Draws results of the driver: every shape, in percent of the core's peak, qexact and its best peer."""

import statistics

import matplotlib

import table

matplotlib.use("svg")
import matplotlib.pyplot as plt


def main():
    results, rows, shapes = table.read(__doc__, "picture")
    measured = table.measure(rows)
    names = [shape["name"] for shape in shapes if shape["name"] in measured]
    peak = statistics.median(row["peak_gmacs"] for row in rows if "peak_gmacs" in row)
    ours = [100 * measured[name].peak for name in names]
    best = [a / measured[name].ratio if measured[name].ratios else None for a, name in zip(ours, names)]
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
    axes.set_xlabel(f"% of the peak of one core, {peak:.0f} GMAC/s in the middle")
    axes.set_title(f"{cpu}, {rows[0]['isa']}")
    axes.legend(loc="upper right")
    figure.savefig(results.with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
