"""What a study found: tables, a plot and a page, beside the paper's numbers.

`python -m physlm.experiments.report DIR/<study>-<scale>` reads `results.jsonl` there and writes,
beside it, `results.md`, `accuracy.png` and `report.html`. What `results.jsonl` does not say, it
finds in the models of the store DIR, as far as they are still there: how conditions compare problem
by problem, intervals of retries, held-out problems, settings.
"""

import argparse
import dataclasses
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from data_gen.solutions.mistakes import Mistakes
from physlm import paths
from physlm.experiments import (
    comparison,
    condition,
    cost,
    files,
    outcomes,
    overlap,
    page,
    plot,
    results,
    show,
)
from physlm.experiments.arguments import called, one_line, place, put
from physlm.experiments.config import flatten
from physlm.experiments.evaluation import EVALUATIONS_DIR, RESULT_FILE
from physlm.experiments.page import Table
from physlm.experiments.published import PAPER
from physlm.experiments.run import CONFIG_FILE, rounded
from physlm.experiments.store import Store
from physlm.experiments.summary import Line, Point, cap_of, summarise

MARKDOWN_FILE = "results.md"
PLOT_FILE = "accuracy.png"
PAGE_FILE = "report.html"
COST_FILE = "tokens.png"

_VERSUS = "Against error-free solutions: difference in points [95% interval], p"


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
    templates of test problems, how many these are, and the strict accuracy on the others. Where it
    was counted, the tokens written for a problem, those left for better ones too; the share of
    solutions that were cut off; and the retries of right and of wrong ones.
    """
    table = [["condition", "op", "strict %", "answer %", "retries", "unnecessary", "n", "seeds"]]
    known = any(point.distinct is not None for line in lines for point in line.points)
    if known:
        table[0] += ["distinct", "templates"]
    some_shared = any(point.shared for line in lines for point in line.points)
    if some_shared:
        table[0] += ["shared with training", "held out: strict %"]
    counted = any(point.account for line in lines for point in line.points)
    if counted:
        table[0] += ["tokens", "cut off %", "retries: right", "wrong"]
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
            if counted:
                row += _spent(point)
            table.append(row)
    return table


def _spent(point: Point) -> list[str]:
    """What solutions took, where it is known."""
    found = point.account or {}
    shown = [f"{found['tokens']:.0f}", _percent(found["capped"])] if found else ["–", "–"]
    for name in ("retries_right", "retries_wrong"):
        shown.append(f"{found[name]:.2f}" if name in found else "–")
    return shown


def probe_table(lines: Sequence[Line]) -> Table | None:
    """How probes answer, a row for each condition and cell; None where none was asked.

    Beside the accuracy: that of yes and of no alike (balanced), the area under the ROC curve, and
    the share of yes. Of the steps of the model's own solutions, up to the first wrong one: how many
    right ones are called wrong, and how many of the first wrong ones that come too early are seen.
    """
    columns = {
        "accuracy": "right %",
        "balanced": "balanced %",
        "auroc": "AUROC %",
        "yes": "yes %",
        "own false_alarms": "own right steps called wrong %",
        "own caught": "own first wrong steps seen %",
    }
    known = [(line, point) for line in lines for point in line.points if point.probe is not None]
    if not known:
        return None
    there = [name for name in columns if any(name in (point.probe or {}) for _, point in known)]
    table = [["probe", "op", "questions", *(columns[name] for name in there), "of so many"]]
    for line, point in known:
        found = point.probe or {}
        shown = [_percent(found[name]) if name in found else "–" for name in there]
        steps = f"{found['own too_early']:.0f}" if "own too_early" in found else "–"
        table.append([line.label, point.cell, str(point.n), *shown, steps])
    return table


def paper_table(lines: Sequence[Line], configs: Sequence[Mapping[str, Any]]) -> Table | None:
    """Our conditions beside the paper's, or None where fewer than two correspond.

    They correspond where nothing but the rate of the paper's own mistakes, and whether they are
    masked, sets the conditions apart. Scales differ, so it is the differences between conditions
    that compare.
    """
    # The paper's are the defaults; runs from before there were others do not name all of them.
    published: dict[str, Any] = {f.name: f.default for f in dataclasses.fields(Mistakes)}
    same_kind = all(
        config["mistakes"].get(name, value) == value
        for config in configs
        for name, value in published.items()
        if name not in ("rate", "mask")
    )
    masks = {config["mistakes"].get("mask", published["mask"]) for config in configs}
    shared = masks.pop() if len(masks) == 1 else published["mask"]
    known = []
    for line in lines:
        rate = float(line.condition.get(condition.RATE, -1.0))
        theirs = PAPER.get((rate, condition.is_masked(line.condition, shared)))
        if theirs is not None and condition.is_of_the_paper(line.condition):
            known.append((line, theirs))
    if not same_kind or len(known) < 2:
        return None
    table = [["trained on", "ours, mean of cells", "ours, last cell"]]
    table[0] += ["paper, mean of 30 cells", "paper, med op 23"]
    for line, paper in known:
        cap = cap_of(line.points) or 0
        # The paper has no cells below the cap.
        alike = [point for point in line.points if point.op >= cap]
        mean = statistics.fmean(point.accuracy for point in alike)
        ours = [_percent(mean), _percent(line.points[-1].accuracy)]
        table.append([line.label, *ours, str(paper.average), str(paper.hardest)])
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


def make(directory: epath.Path) -> str:
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
    evaluations, told = _evaluations(store, rows), _with_parts(store, rows)
    found = {key: outcomes.read(path) for key, path in evaluations.items()}
    lines = summarise(told, found)
    title = f"{rows[0]['study']}: {_size(rows)}"
    png = plot.against_op(lines, title)
    probes = probe_table(lines)
    what = "Right answers" if probes else "Strict accuracy"
    tables = [(f"{what} by number of operations, % [95% interval]", accuracy_table(lines))]
    # Problems are compared, and questions are not.
    compared = [] if probes else comparison.compare(lines, found)
    if versus := comparison.table(compared):
        tables.append((_VERSUS, versus))
    tables.append(("Probes", probes) if probes else ("Details", detail_table(lines)))
    if paper := paper_table(lines, configs):
        tables.append(("Beside the paper (arXiv 2408.16293, Fig. 4b), strict accuracy, %", paper))
    notes = [*_notes(lines, rows), *comparison.notes(compared), *overlap.note(told, evaluations)]
    paths.write_atomically(directory / PLOT_FILE, png)
    paths.write_atomically(
        directory / MARKDOWN_FILE, page.markdown(title, tables, notes, PLOT_FILE)
    )
    differing, shared = (settings_table(configs, differing=which) for which in (True, False))
    settings = (differing, shared) if configs else None
    written = [(line.label, show.examples(evaluations[line.judged[0]])) for line in lines]
    examples = [(label, text) for label, text in written if text]
    pictures = [png]
    files_made = [PLOT_FILE, MARKDOWN_FILE, PAGE_FILE]
    if (spent := cost.against_tokens(lines, title)) is not None:
        paths.write_atomically(directory / COST_FILE, spent)
        pictures.append(spent)
        files_made.append(COST_FILE)
    whole = page.page(title, tables, notes, pictures, settings, examples)
    paths.write_atomically(directory / PAGE_FILE, whole)
    text = [title, *(f"{head}\n{page.aligned(table)}" for head, table in tables), "\n".join(notes)]
    made = ", ".join(str(directory / name) for name in files_made)
    return "\n\n".join([*text, f"Written: {made}"])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns 0, or 2 where the input is bad."""
    parser = argparse.ArgumentParser(
        prog=called("physlm.experiments.report"),
        description="Prints the tables of a study and writes its plot and page.",
    )
    parser.add_argument("study", type=place, metavar="DIR/STUDY-SCALE")
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
    probes = any(point.probe for line in lines for point in line.points)
    of = "questions answered right" if probes else "problems solved"
    notes = [f"Intervals are 95% intervals of the share of {of}, Wilson's for one seed."]
    if probes:
        notes.append("Several questions are about one problem, for which intervals do not allow.")
    if any(len(point.by_seed) > 1 for line in lines for point in line.points):
        notes[0] = notes[0][:-1] + ", else over seeds and problems."
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


def _evaluations(store: Store, rows: Sequence[results.Row]) -> dict[tuple[str, str], epath.Path]:
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


if __name__ == "__main__":
    sys.exit(main())
