"""What a study found: tables, a plot and a page, beside the paper's numbers.

`python -m physlm.experiments.report DIR/<study>-<scale>` reads `results.jsonl` there and writes,
beside it, `results.md`, `accuracy.png` and `report.html`. What `results.jsonl` does not say, it
finds in the models of the store DIR, as far as they are still there.
"""

import argparse
import base64
import dataclasses
import html
import json
import pathlib
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from data_gen.solutions.mistakes import Mistakes
from physlm.experiments import files, overlap, plot, results
from physlm.experiments.arguments import one_line, put
from physlm.experiments.config import flatten
from physlm.experiments.evaluation import EVALUATIONS_DIR, RESULT_FILE
from physlm.experiments.run import CONFIG_FILE, rounded
from physlm.experiments.store import Store
from physlm.experiments.summary import Line, Point, summarise

MARKDOWN_FILE = "results.md"
PLOT_FILE = "accuracy.png"
PAGE_FILE = "report.html"

# arXiv 2408.16293, Figure 4(b): strict accuracy in percent of retry data without masking; the
# average of its 30 cells, and med_pq at op = 23. Each is the best of two seeds and two beams.
PAPER: dict[float, tuple[float, float]] = {
    0.0: (91.8, 77.7),
    0.05: (93.3, 83.9),
    0.1: (94.9, 90.6),
    0.2: (96.2, 91.6),
    0.4: (96.4, 90.6),
    0.5: (97.5, 93.6),
}

Table = list[list[str]]


def accuracy_table(lines: Sequence[Line]) -> Table:
    """Conditions by cells: strict accuracy in percent with its 95% interval, spread over seeds."""
    cells = _cells(lines)
    table = [["condition", *(f"op {cell}" for cell in cells)]]
    for line in lines:
        points = {point.cell: point for point in line.points}
        shown = [_accuracy(points[cell]) if cell in points else "–" for cell in cells]
        table.append([line.label, *shown])
    return table


def detail_table(lines: Sequence[Line]) -> Table:
    """One row a condition and cell: both accuracies, retries, unnecessary steps, problems.

    Where it is known, how many different problems and templates these are. Where training may show
    templates of test problems, how many these are, and the strict accuracy on the others.
    """
    table = [["condition", "op", "strict %", "answer %", "retries", "unnecessary", "n", "seeds"]]
    known = any(point.distinct is not None for line in lines for point in line.points)
    if known:
        table[0] += ["distinct", "templates"]
    some_shared = any(point.shared for line in lines for point in line.points)
    if some_shared:
        table[0] += ["shared with training", "held out: strict %"]
    for line in lines:
        for point in line.points:
            row = [
                line.label,
                point.cell,
                _percent(point.accuracy),
                _percent(point.answer_accuracy),
                f"{point.retries:.2f}",
                f"{point.unnecessary:.2f}",
                str(point.n),
                str(len(point.by_seed)),
            ]
            if known:
                row += ["–" if n is None else str(n) for n in (point.distinct, point.templates)]
            if some_shared:
                row.append(str(point.shared))
                row.append("–" if point.held_out is None else _percent(point.held_out))
            table.append(row)
    return table


def paper_table(lines: Sequence[Line], configs: Sequence[Mapping[str, Any]]) -> Table | None:
    """Our conditions beside the paper's, or None where fewer than two correspond.

    They correspond where nothing but the rate of the paper's own, unmasked mistakes sets the
    conditions apart. Scales differ, so it is the differences between conditions that compare.
    """
    # The paper's are the defaults; runs from before there were others do not name all of them.
    published = {f.name: f.default for f in dataclasses.fields(Mistakes) if f.name != "rate"}
    same_kind = all(
        config["mistakes"].get(name, value) == value
        for config in configs
        for name, value in published.items()
    )
    known = [
        line
        for line in lines
        if set(line.condition) == {"retry_rate"} and line.condition["retry_rate"] in PAPER
    ]
    if not same_kind or len(known) < 2:
        return None
    table = [["retry rate", "ours, mean of cells", "ours, last cell"]]
    table[0] += ["paper, mean of 30 cells", "paper, med op 23"]
    for line in known:
        average, hardest = PAPER[line.condition["retry_rate"]]
        mean = statistics.fmean(point.accuracy for point in line.points)
        ours = [_percent(mean), _percent(line.points[-1].accuracy)]
        table.append([f"{line.condition['retry_rate']:g}", *ours, str(average), str(hardest)])
    return table


def settings_table(configs: Sequence[Mapping[str, Any]], *, differing: bool) -> Table:
    """Settings of all runs: those in which they differ, or those that they share."""
    flat = [flatten(config) for config in configs]
    keys = list(dict.fromkeys(key for config in flat for key in config))
    table = []
    for key in keys:
        values = list(dict.fromkeys(json.dumps(config.get(key)) for config in flat))
        if (len(values) > 1) == differing:
            table.append([key, ", ".join(values)])
    return [["setting", "values"], *table]


def make(directory: pathlib.Path) -> str:
    """Writes the Markdown, the plot and the page, and returns the text for the terminal.

    Args:
        directory: of what a study shows.

    Raises:
        ValueError: there are no results, or a line of them breaks the contract.
    """
    path = directory / results.FILE
    if not directory.is_dir():
        raise ValueError(f"{directory} is not the directory of a study.")
    if not path.exists():
        raise ValueError(f"{directory} has no {results.FILE}: run the sweep first.")
    rows = results.read(path)
    if not rows:
        raise ValueError(f"{path} is empty: no run has finished yet.")
    store = Store(directory.parent)
    configs = _configs(store, rows)
    told = _with_parts(store, rows)
    lines = summarise(told)
    title = f"{rows[0]['study']}: {_size(rows)}"
    png = plot.accuracy_against_op(lines, title)
    tables = [
        ("Strict accuracy by number of operations, % [95% interval]", accuracy_table(lines)),
        ("Details", detail_table(lines)),
    ]
    if paper := paper_table(lines, configs):
        tables.append(("Beside the paper (arXiv 2408.16293, Fig. 4b), strict accuracy, %", paper))
    notes = _notes(lines, rows) + overlap.note(told, _evaluations(store, rows))
    files.write_atomically(directory / PLOT_FILE, png)
    files.write_atomically(directory / MARKDOWN_FILE, _markdown(title, tables, notes))
    files.write_atomically(directory / PAGE_FILE, _page(title, tables, notes, png, configs))
    text = [title, *(f"{head}\n{_aligned(table)}" for head, table in tables), "\n".join(notes)]
    written = ", ".join(str(directory / name) for name in (PLOT_FILE, MARKDOWN_FILE, PAGE_FILE))
    return "\n\n".join([*text, f"Written: {written}"])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns 0, or 2 where the input is bad."""
    parser = argparse.ArgumentParser(
        prog="python -m physlm.experiments.report",
        description="Prints the tables of a study and writes its plot and page.",
    )
    parser.add_argument("study", type=pathlib.Path, metavar="DIR/STUDY-SCALE")
    options = parser.parse_args(arguments)
    try:
        put(make(options.study))
    except (ValueError, OSError) as error:
        print(one_line(error), file=sys.stderr)
        return 2
    return 0


def _cells(lines: Sequence[Line]) -> list[str]:
    return list(dict.fromkeys(point.cell for line in lines for point in line.points))


def _size(rows: Sequence[results.Row]) -> str:
    runs = {row["run"]: row["tokens"] for row in rows}
    tokens = sorted(set(runs.values()))
    each = " to ".join(rounded(number) for number in {tokens[0]: 0, tokens[-1]: 0})
    return f"{len(runs)} run{'s' if len(runs) > 1 else ''} of {each} tokens"


def _notes(lines: Sequence[Line], rows: Sequence[results.Row]) -> list[str]:
    notes = ["Intervals are 95% Wilson intervals of the share of problems solved."]
    if any(len(point.by_seed) > 1 for line in lines for point in line.points):
        notes.append("± is the standard deviation over seeds, all tested on the same problems.")
    alike: dict[str, set[str]] = {}
    for row in rows:
        key = json.dumps([row["condition"], row["seed"]], sort_keys=True)
        alike.setdefault(key, set()).add(f"{row['run']} ({row['evaluation']})")
    for names in alike.values():
        if len(names) > 1:
            notes.append(
                "Warning: runs of one condition and seed, but of different configurations, "
                f"are taken together: {', '.join(sorted(names))}."
            )
    return notes


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _accuracy(point: Point) -> str:
    text = f"{_percent(point.accuracy)} [{_percent(point.low)}, {_percent(point.high)}]"
    if len(point.by_seed) > 1:
        text += f" ±{_percent(statistics.stdev(point.by_seed))}"
    return text


def _evaluations(store: Store, rows: Sequence[results.Row]) -> dict[tuple[str, str], pathlib.Path]:
    """The directory of each evaluation, by its run and its name."""
    return {
        (row["run"], row["evaluation"]): store.of_run(row["run"])
        / EVALUATIONS_DIR
        / row["evaluation"]
        for row in rows
    }


def _configs(store: Store, rows: Sequence[results.Row]) -> list[dict[str, Any]]:
    """The configurations of runs and evaluations, as far as their directories are still there."""
    found = []
    for (run, _), evaluation in _evaluations(store, rows).items():
        paths = (store.of_run(run) / CONFIG_FILE, evaluation / CONFIG_FILE)
        if all(path.exists() for path in paths):
            of_run, of_evaluation = map(files.read_json, paths)
            del of_evaluation["step"]
            found.append(of_run | of_evaluation)
    return found


def _with_parts(store: Store, rows: Sequence[results.Row]) -> list[results.Row]:
    """The rows with what their evaluations say of held-out and shared problems, where they do."""
    known: dict[tuple[str, str, str], results.Row] = {}
    for key, directory in _evaluations(store, rows).items():
        path = directory / RESULT_FILE
        for cell in results.cells(path) if path.exists() else ():
            known[*key, cell["cell"]] = {n: cell[n] for n in results.PARTS if n in cell}
    return [row | known.get((row["run"], row["evaluation"], row["cell"]), {}) for row in rows]


def _aligned(table: Table) -> str:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = []
    for row in table:
        first, *others = (text.ljust(width) for text, width in zip(row, widths, strict=True))
        lines.append("  ".join([first, *others]).rstrip())
    rule = "  ".join("-" * width for width in widths)
    return "\n".join([lines[0], rule, *lines[1:]])


def _markdown(title: str, tables: Sequence[tuple[str, Table]], notes: Sequence[str]) -> str:
    parts = [f"# {title}", f"![Accuracy against op]({PLOT_FILE})"]
    for head, table in tables:
        rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table]
        rule = "|" + " --- |" * len(table[0])
        parts.append("\n".join([f"## {head}", "", rows[0], rule, *rows[1:]]))
    return "\n\n".join([*parts, *notes]) + "\n"


_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
       color: #1b1b1b; background: #fff; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
img { max-width: 100%; height: auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #ddd; }
td { white-space: nowrap; } th { font-weight: 600; border-bottom-color: #888; }
p.note { color: #555; margin: .3rem 0; }
"""


def _page(
    title: str,
    tables: Sequence[tuple[str, Table]],
    notes: Sequence[str],
    png: bytes,
    configs: Sequence[Mapping[str, Any]],
) -> str:
    """A page that needs no other file."""
    picture = base64.b64encode(png).decode()
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{html.escape(title)}</h1>",
        f'<img alt="Accuracy against op" src="data:image/png;base64,{picture}">',
    ]
    for head, table in tables:
        parts += [f"<h2>{html.escape(head)}</h2>", _html_table(table)]
    parts += [f'<p class="note">{html.escape(note)}</p>' for note in notes]
    if configs:
        parts += [
            "<h2>In what the runs differ</h2>",
            _html_table(settings_table(configs, differing=True)),
            "<details><summary>What all runs share</summary>",
            _html_table(settings_table(configs, differing=False)),
            "</details>",
        ]
    return "\n".join([*parts, "</body></html>"]) + "\n"


def _html_table(table: Table) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    body = "\n".join(row(cells, "td") for cells in table[1:])
    head = row(table[0], "th")
    return f'<div class="wide"><table><thead>{head}</thead><tbody>\n{body}\n</tbody></table></div>'


if __name__ == "__main__":
    sys.exit(main())
