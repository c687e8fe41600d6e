"""The tables of a report, as rows of texts."""

import collections
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from data_gen.solutions import faults
from data_gen.text import judge
from physlm.experiments import outcomes, published
from physlm.experiments.config import flatten
from physlm.experiments.page import Table
from physlm.experiments.published import Published
from physlm.experiments.results import Row
from physlm.experiments.summary import AMONG, Line, Point, cap_of, pooled, shown_cell


def accuracy_table(lines: Sequence[Line]) -> Table:
    """Conditions by cells: strict accuracy in %, its 95% interval, and its spread over seeds."""
    cells = _cells(lines)
    table = [["condition", *(f"op {shown_cell(cell)}" for cell in cells)]]
    for line in lines:
        points = {point.cell: point for point in line.points}
        shown = [_accuracy(points[cell]) if cell in points else "–" for cell in cells]
        table.append([line.label, *shown])
    return table


def detail_table(lines: Sequence[Line]) -> Table:
    """One row a condition and cell: both accuracies, retries, unnecessary steps, problems.

    Further columns, where their values are known: the 95% interval of retries; how many problems
    and templates are different; how many problems have templates that training may show, and strict
    accuracy on the others; tokens written for a problem, discarded ones included; the share of
    solutions that were cut off; retries of right and of wrong solutions.
    """
    table = [["condition", "op", "strict %", "answer %", "retries", "unnecessary", "n", "seeds"]]
    known = any(point.distinct is not None for line in lines for point in line.points)
    if known:
        table[0] += ["distinct", "templates"]
    some_shared = any(point.shared for line in lines for point in line.points)
    if some_shared:
        table[0] += ["shared with training", "held out: strict %"]
    points = [point for line in lines for point in line.points]
    costs = any(point.account for point in points)
    if costs:
        table[0] += ["tokens", "cut off %"]
    counted = any(point.spent(name) is not None for point in points for name in AMONG)
    if counted:
        table[0] += ["retries: right", "wrong"]
    for line in lines:
        for point in line.points:
            row = [
                line.label,
                shown_cell(point.cell),
                _percent(point.accuracy),
                _percent(point.answer_accuracy),
                _counted(point.retries, point.retries_within),
                f"{point.unnecessary:.2f}",
                str(point.n),
                str(len(point.by_seed)),
            ]
            if known:
                row += ["–" if n is None else str(n) for n in (point.distinct, point.templates)]
            if some_shared:
                row.append(str(point.shared))
                row.append("–" if point.held_out is None else _percent(point.held_out))
            if costs:
                row += _cost(point)
            if counted:
                among = map(point.spent, AMONG)
                row += ["–" if mean is None else f"{mean:.2f}" for mean in among]
            table.append(row)
    return table


def _counted(mean: float, within: tuple[float, float] | None) -> str:
    """A mean with its interval, if it has one of some width."""
    if within is None or within[0] == within[1]:
        return f"{mean:.2f}"
    return f"{mean:.2f} [{within[0]:.2f}, {within[1]:.2f}]"


def _cost(point: Point) -> list[str]:
    """Tokens and the share cut off, where they are known."""
    found = point.account
    return [f"{found['tokens']:.0f}", _percent(found["capped"])] if found else ["–", "–"]


def probe_table(lines: Sequence[Line]) -> Table | None:
    """The accuracy of probes, a row for each condition and cell; None without probes.

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
        table.append([line.label, shown_cell(point.cell), str(point.n), *shown, steps])
    return table


def paper_table(lines: Sequence[Line], beside: Mapping[str, Published]) -> Table | None:
    """Our numbers beside the paper's; None where fewer than two conditions correspond.

    Classes, models and tokens differ, so only differences between conditions can be compared.

    Args:
        lines: our conditions.
        beside: the paper's rows, by the labels of ours.
    """
    known = [(line, beside[line.label]) for line in lines if line.label in beside]
    if len(known) < 2:
        return None
    table = [["trained on", "ours, mean of cells", "ours, last cell", "ours, last cell, best run"]]
    hardest = known[0][1].hardest
    table[0] += ["paper, mean of 30 cells", f"paper, {hardest.replace(':', ' op ')}"]
    for line, row in known:
        cap = cap_of(line.points) or 0
        # The paper has no cells below the cap.
        alike = [point for point in line.points if point.op >= cap]
        last = [point for point in alike if not point.reasked][-1]
        ours = [statistics.fmean(point.accuracy for point in alike), last.accuracy]
        texts = [_percent(share) for share in (*ours, max(last.by_seed))]
        theirs = [row.cells.get(cell) for cell in (published.AVERAGE, hardest)]
        table.append([line.label, *texts, *("–" if n is None else f"{n:g}" for n in theirs)])
    return table


def published_table(beside: Mapping[str, Published]) -> Table | None:
    """The paper's rows with all their cells, as the paper prints them; None without rows."""
    found = {row.row: row for row in beside.values()}
    if not found:
        return None
    cells = list(dict.fromkeys(cell for row in found.values() for cell in row.cells))
    table = [["the paper's row", *(cell.replace("_", " ").replace(":", " ") for cell in cells)]]
    for name, row in found.items():
        table.append([name, *(f"{row.cells[c]:g}" if c in row.cells else "–" for c in cells)])
    return table


def pooled_table(lines: Sequence[Line]) -> Table | None:
    """Accuracy up to, at and beyond the cap, by condition: means over seeds, and the best run."""
    cap = cap_of([point for line in lines for point in line.points])
    if cap is None:
        return None
    wanted = {
        f"op ≤ {cap}": lambda p: p.inside,
        f"op {cap}": lambda p: p.op == cap and not (p.inside or p.reasked),
        f"op > {cap}": lambda p: p.op > cap and not (p.inside or p.reasked),
    }
    table = [["condition", "seeds", *wanted, f"op > {cap}, best run"]]
    for line in lines:
        found = [pooled(line, rule, lines) for rule in wanted.values()]
        texts = [
            f"{_percent(one.mean)} [{_percent(one.low)}, {_percent(one.high)}]" if one else "–"
            for one in found
        ]
        best = _percent(max(found[-1].by_seed)) if found[-1] else "–"
        table.append([line.label, str(len(line.judged)), *texts, best])
    return table


def wrong_table(lines: Sequence[Line], found: outcomes.All) -> Table | None:
    """Shares of wrong solutions by their first error, a row a condition; None where unknown.

    Shares of all problems, of all cells.
    """
    counts: dict[str, collections.Counter[str]] = {}
    problems: dict[str, int] = {}
    for line in lines:
        cells = [cell for judged in line.judged for cell in found.get(judged, {}).values()]
        counts[line.label] = sum(
            (collections.Counter(c.wrong) for c in cells), collections.Counter()
        )
        problems[line.label] = sum(len(cell.correct_N) for cell in cells)
    total = sum(counts.values(), collections.Counter())
    if not total:
        return None
    kinds = [kind for kind, _ in total.most_common()]
    table = [["condition", "wrong", *kinds]]
    for label, count in counts.items():
        if problems[label]:
            shares = [sum(count.values()), *(count[kind] for kind in kinds)]
            table.append([label, *(_percent(share / problems[label]) for share in shares)])
    return table


def taken_back_table(lines: Sequence[Line], found: outcomes.All) -> Table | None:
    """What solutions take back first, and how many of them are right in the end.

    Shares of all problems, up to the cap on operations and beyond it. None where nothing is taken
    back, and where no cell tells the cap.
    """
    cap = cap_of([point for line in lines for point in line.points])
    if cap is None:
        return None
    table = [["condition", "op"]]
    for what in _TAKEN_BACK:
        table[0] += [f"{what} step %", "right in the end %"]
    for line in lines:
        for where, rule in (
            (f"≤ {cap}", lambda point: point.inside),
            (f"> {cap}", lambda point: point.op > cap and not point.reasked),
        ):
            cells = [point.cell for point in line.points if rule(point)]
            known = [found.get(judged, {}).get(cell) for judged in line.judged for cell in cells]
            there = [one for one in known if one is not None]
            if any(one.taken_back for one in there):
                table.append([line.label, where, *_taken_back(there)])
    return table if len(table) > 1 else None


_TAKEN_BACK: dict[str, Callable[[str], bool]] = {
    "a wrong": lambda kind: kind not in (judge.RIGHT, *faults.NEEDLESS),
    "a right": lambda kind: kind == judge.RIGHT,
    "a needless": lambda kind: kind in faults.NEEDLESS,
}


def _taken_back(found: Sequence[outcomes.Outcomes]) -> list[str]:
    total = sum(len(one.correct_N) for one in found)
    texts = []
    for chosen in _TAKEN_BACK.values():
        counts = [of for one in found for kind, of in one.taken_back.items() if chosen(kind)]
        solved, all_of = sum(of[0] for of in counts), sum(sum(of) for of in counts)
        texts += [_percent(all_of / total), _percent(solved / all_of) if all_of else "–"]
    return texts


def cost_table(
    lines: Sequence[Line],
    rows: Sequence[Row],
    seconds: Mapping[str, tuple[float | None, float | None]],
) -> Table | None:
    """Tokens and time of a run, by condition; None where no time is known."""
    if not any(part is not None for parts in seconds.values() for part in parts):
        return None
    tokens = {row["run"]: row["tokens"] for row in rows}
    table = [["condition", "runs", "tokens a run", "training, min", "judging, min"]]
    for line in lines:
        runs = dict.fromkeys(run for run, _ in line.judged)
        seen = statistics.fmean(tokens[run] for run in runs)
        times = ["–" if part is None else f"{part / 60:.1f}" for part in seconds[line.label]]
        table.append([line.label, str(len(runs)), f"{seen:,.0f}", *times])
    return table


def flat(lines: Sequence[Line]) -> Table:
    """A row for each condition and cell with all its numbers, for programs to read."""
    names = list(dict.fromkeys(name for line in lines for name in line.condition))
    points = [point for line in lines for point in line.points]
    known = dict.fromkeys(name for p in points for name in (*(p.account or {}), *p.counts))
    counted = [name for name in known if name != "retries"]
    head = ["label", *names, "cell", "op", "n", "seeds", "accuracy", "ci_low", "ci_high", "best"]
    table = [[*head, "answer_accuracy", "retries", "unnecessary", *counted]]
    for line in lines:
        said = ["" if (v := line.condition.get(n)) is None else str(v) for n in names]
        for p in line.points:
            shares = [p.accuracy, p.low, p.high, max(p.by_seed), p.answer_accuracy, p.retries]
            more = [p.spent(name) for name in counted]
            numbers = [*shares, p.unnecessary, *more]
            texts = ["" if number is None else f"{number:.6g}" for number in numbers]
            table.append(
                [line.label, *said, p.cell, str(p.op), str(p.n), str(len(p.by_seed)), *texts]
            )
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


def _cells(lines: Sequence[Line]) -> list[str]:
    return list(dict.fromkeys(point.cell for line in lines for point in line.points))


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _accuracy(point: Point) -> str:
    text = f"{_percent(point.accuracy)} [{_percent(point.low)}, {_percent(point.high)}]"
    if len(point.by_seed) > 1:
        text += f" ±{_percent(statistics.stdev(point.by_seed))}"
    return text
