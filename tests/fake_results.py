"""Results of sweeps that never ran, as a store keeps them and as a report shows them."""

import json
import struct

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from physlm import metrics
from physlm.experiments import figures, results, run
from physlm.experiments.figures.drawing import Drawing

CELLS = {"<=4": 4, "4": 4, "5": 5, "6": 6}
RETRY = "with mistakes and corrections, rate 0.5"


def solved(rate, seed, op):
    """Number of problems of 200 that the fake run solves: any function that tells cells apart."""
    return round(200 - 23 * (op - 4) * (1.3 - rate) - 7 * seed - 5)


def fake_rows(rates=(0.0, 0.5), seeds=1, condition=lambda rate: {"retry_rate": rate}):
    rows = []
    for rate in rates:
        for seed in range(seeds):
            for cell, op in CELLS.items():
                right = solved(rate, seed, op)
                low, high = metrics.wilson_interval(right, 200)
                rows.append(
                    {
                        "study": "quickstart",
                        "run": f"retry-{rate},seed={seed}-0123abcd",
                        "evaluation": "step=100,greedy,problems=200-0123abcd",
                        "condition": condition(rate),
                        "seed": seed,
                        "step": 100,
                        "tokens": 1_000_000,
                        "cell": cell,
                        "op": op,
                        "n": 200,
                        "accuracy": right / 200,
                        "answer_accuracy": (right + 2) / 200,
                        "ci_low": low,
                        "ci_high": high,
                        "retries": rate,
                        "unnecessary": 0.015,
                    }
                )
    return rows


def fake_sweep(directory, rows, kind="retry", parts=None, data=None):
    results.write(directory / results.FILE, rows)
    for row in rows:
        of_run = directory.parent / "models" / row["run"]
        of_evaluation = of_run / "evaluations" / row["evaluation"]
        of_evaluation.mkdir(parents=True, exist_ok=True)
        rate = row["condition"].get("retry_rate", 0)
        mistakes = {"kind": kind, "rate": rate, "mask": "none"}
        train = {"steps": 100}
        config = {"seed": row["seed"], "mistakes": mistakes, "train": train, "evaluate": {"old": 1}}
        config |= {"data": data} if data else {}
        (of_run / run.CONFIG_FILE).write_text(json.dumps(config))
        config = {"step": 100, "decode": "greedy", "evaluate": {"problems": 200}}
        (of_evaluation / run.CONFIG_FILE).write_text(json.dumps(config))
        cells = [
            {name: one[name] for name in results.CELL_FIELDS} | (parts or {}).get(one["cell"], {})
            for one in rows
            if one["run"] == row["run"]
        ]
        result = {name: row[name] for name in results.RESULT_FIELDS} | {"cells": cells}
        (of_evaluation / "result.json").write_text(json.dumps(result))


def png_size(data):
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])


def drawn(lines):
    return figures.AgainstOp().draw(figures.Shown(lines, "what was run")).png


def kept_figures(monkeypatch, *modules):
    """A list of the figures that these modules draw from now on, instead of pictures of them."""
    found = []

    def draw(name, alternative, size_inches, build):
        figure = Figure(figsize=size_inches)
        FigureCanvasAgg(figure)
        build(figure)
        figure.canvas.draw()
        found.append(figure)
        return Drawing(name, alternative, b"", b"", b"")

    for module in modules:
        monkeypatch.setattr(module, "draw", draw)
    return found
