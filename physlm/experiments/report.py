"""Reports: tables, figures and a page of a study's results, beside the paper's numbers.

`python -m physlm.experiments.report DIR/<study>-<scale>` reads `results.jsonl` there and writes,
beside it, `report.html`, `results.md`, `table.csv`, `table.md`, and each picture as PNG and SVG.
What `results.jsonl` does not say, it finds in the models of the store DIR, as far as they are still
there: held-out problems, losses, what solutions took, settings, and what became of every problem,
by which conditions are compared. The last it also keeps in `outcomes.jsonl`, and the others but for
settings in `accounts.jsonl`, and reads them there when the models are gone.
"""

import collections
import csv
import dataclasses
import io
import itertools
import sys
from collections.abc import Sequence

from etils import epath

from data_gen import interrupts
from physlm import paths
from physlm.experiments import (
    accounts,
    comparison,
    material,
    outcomes,
    overlap,
    page,
    published,
    registry,
    results,
    show,
    tables,
    verdicts,
)
from physlm.experiments.arguments import Parser, called, one_line, place, put
from physlm.experiments.figures import USUAL, Against, Figure, Losses, Shown, first_wrong
from physlm.experiments.material import Material
from physlm.experiments.page import Content, Table
from physlm.experiments.published import Published
from physlm.experiments.registry import Study
from physlm.experiments.summary import Line
from physlm.experiments.view import View

MARKDOWN_FILE = "results.md"
TABLE_FILE, CSV_FILE = "table.md", "table.csv"
PAGE_FILE = "report.html"


def make(directory: epath.Path) -> str:
    """Writes pictures, tables and the page, and returns the text for the terminal.

    Args:
        directory: of what a study shows.

    Raises:
        ValueError: there are no results, or a line of them breaks the contract.
    """
    path = directory / results.FILE
    if not directory.is_dir():
        raise ValueError(f"{directory} is not the directory of a study.")
    if not path.exists():
        raise ValueError(
            f"{directory} has no {results.FILE}: run the sweep first, or name the directory of a "
            "study, which in a store DIR is DIR/STUDY-SCALE."
        )
    rows, cut = results.read_whole(path)
    if cut and not rows:
        raise ValueError(f"{path} has no line that can be read, and {cut} that cannot.")
    if not rows:
        raise ValueError(
            f"{path} is empty: no run has finished yet; {called('physlm.experiments.status')} "
            f"{directory} tells how they stand."
        )
    found = Material(directory, rows)
    content = _content(found, _scale(directory, rows[0]["study"]), cut)
    texts = {
        PAGE_FILE: page.page(content),
        MARKDOWN_FILE: page.markdown(content),
        TABLE_FILE: page.tables(content.tables[:2]),
        CSV_FILE: _csv(tables.flat(found.lines)),
    }
    if kept := outcomes.text(found.outcomes):
        texts[outcomes.FILE] = kept
    if kept := accounts.text(found.accounts):
        texts[accounts.FILE] = kept
    written: dict[str, str | bytes] = {}
    for drawing in content.drawings:
        written |= {f"{drawing.name}.png": drawing.png, f"{drawing.name}.svg": drawing.svg}
    written |= texts
    for name, data in written.items():
        paths.write_atomically(directory / name, data)
    made = ", ".join(str(directory / name) for name in written)
    return f"{page.terminal(content)}\n\nWritten: {made}"


def _scale(directory: epath.Path, study: str) -> str:
    return directory.name.removeprefix(f"{study}-")


def _content(found: Material, scale: str, cut: int) -> Content:
    lines, name = found.lines, found.rows[0]["study"]
    study, why = _study(name)
    beside = _beside(found, study, scale)
    shown = Shown(lines, f"{name}: {found.size}", beside, found.curves, found.trained)
    figures = [*((study.figures if study else ()) or USUAL), Losses()]
    drawn = [(figure, made) for figure in figures if (made := figure.draw(shown)) is not None]
    drawings = [made for _, made in drawn]
    # A study that asks something else than what is solved is answered first.
    answers = itertools.takewhile(lambda one: _shows_another_quantity(one[0]), drawn)
    leading = len(list(answers))
    probes = tables.probe_table(lines)
    # Problems are compared, and questions are not.
    compared = []
    if not probes:
        compared = comparison.compare(lines, found.outcomes, study.versus if study else None)
    wrong = tables.wrong_table(lines, found.outcomes)
    notes = [
        *_missing(found, name, scale, cut),
        *([why] if why else []),
        *_notes(lines, found),
        *(note for drawing in drawings for note in drawing.notes),
        *([_kinds(wrong)] if wrong else []),
        *verdicts.notes(compared),
        *overlap.note(found.told, found.evaluations),
    ]
    first, further = verdicts.sentences(compared)
    return Content(
        title=study.question if study else f"{name}: {found.size}",
        about=_about(name, scale, found.size) if study else "",
        findings=first,
        further=further,
        drawings=drawings,
        leading=max(1, leading),
        tables=[
            *(table for drawing in drawings[:leading] for table in drawing.tables),
            *_tables(found, compared, beside, probes, wrong),
            *(table for drawing in drawings[leading:] for table in drawing.tables),
        ],
        notes=notes,
        examples=_examples(found),
        closed=_closed(found, beside),
        commands=View(found.store, name, scale).commands(),
    )


def _shows_another_quantity(figure: Figure) -> bool:
    return isinstance(figure, Against) and figure.y != "accuracy"


def _study(name: str) -> tuple[Study | None, str]:
    """The study, where it can be imported here; else why it cannot."""
    try:
        return registry.load(name), ""
    except ValueError as error:
        return None, f"Shown as studies usually are: {error}"


def _about(name: str, scale: str, size: str) -> str:
    said = f"{name} at scale {scale}: {size}."
    if scale == "smoke":
        said += " Models learn nothing from so little: it shows that all works."
    return said


def _beside(found: Material, study: Study | None, scale: str) -> dict[str, dict[str, Published]]:
    """The paper's rows, by what they are of and the labels of our conditions, where there are
    several; none at `smoke`, which learns nothing. They are of our class, where that is one of the
    paper's."""
    if study is None or scale == "smoke":
        return {}
    shared, specs = found.shared, (found.spec(*entry) for entry in found.evaluations)
    classes = {published.class_of(spec) for spec in specs if spec is not None}
    of = next(iter(classes - {None}), None) or published.CLASS
    known: dict[str, dict[str, Published]] = {}
    for beside in study.beside:
        for line in found.lines:
            if (row := beside.find(line.condition, shared)) is not None:
                row = dataclasses.replace(row, of=of)
                known.setdefault(row.quantity, {}).setdefault(line.label, row)
    return {quantity: rows for quantity, rows in known.items() if len(rows) > 1}


def _tables(
    found: Material,
    compared: Sequence[comparison.Comparison],
    beside: dict[str, dict[str, Published]],
    probes: Table | None,
    wrong: Table | None,
) -> list[tuple[str, Table]]:
    lines = found.lines
    what = "Right answers" if probes else "Strict accuracy"
    made = [(f"{what} by number of operations, % [95% interval]", tables.accuracy_table(lines))]
    if pooled := tables.pooled_table(lines):
        made.append((f"{what}, cells together: mean over seeds, %", pooled))
    for against in dict.fromkeys(one.against for one in compared):
        kind = [one for one in compared if one.against == against]
        if versus := verdicts.table(kind):
            made.append((f"Against {against}: difference in points [95% interval], p", versus))
    made.append(("Probes", probes) if probes else ("Details", tables.detail_table(lines)))
    if wrong:
        made.append(("Wrong solutions by their first wrong step, %", wrong))
    if taken_back := tables.taken_back_table(lines, found.outcomes):
        made.append(("What solutions take back first, % of problems", taken_back))
    if paper := tables.paper_table(lines, beside.get("accuracy", {})):
        chosen = "the best of two seeds by beams of 1 and 4"
        heading = f"Beside the paper, strict accuracy, %: {_budgets(found)}; its are {chosen}"
        made.append((heading, paper))
    return made


def _budgets(found: Material) -> str:
    """Problem class and token budget, ours and the paper's, without which a comparison misleads."""
    caps = {p.op for line in found.lines for p in line.points if p.inside}
    tokens = sorted({row["tokens"] for row in found.rows})
    ours = f"ours up to op {max(caps)}, {material.rounded(tokens[-1])} tokens" if caps else "ours"
    both = " and ".join(map(str, sorted({spec.max_op for spec in published.CLASSES.values()})))
    return f"{ours}; the paper's up to op {both}, {published.MODEL}"


def _closed(found: Material, beside: dict[str, dict[str, Published]]) -> list[tuple[str, Table]]:
    made = []
    for quantity, words in published.QUANTITIES.values():
        if paper := tables.published_table(beside.get(quantity, {})):
            made.append((f"The paper's {words} (arXiv 2408.16293)", paper))
    if cost := tables.cost_table(found.lines, found.rows, found.seconds):
        made.append(("What it took", cost))
    configs = list(found.configs.values())
    if configs:
        for head, differing in (("In what the runs differ", True), ("What all runs share", False)):
            made.append((head, tables.settings_table(configs, differing=differing)))
    return made


def _examples(found: Material) -> list[tuple[str, str]]:
    written = []
    for line in found.lines:
        records = show.examples(found.evaluations[line.judged[0]])
        spec = found.spec(*line.judged[0])
        parts = [show.as_html(record) for record in records]
        # One picture tells what there is to know of a problem; more make the page heavy.
        if records and spec and (svg := show.graphs(records[0], spec)) is not None:
            what = "The problem's graphs, with the number of the step that computes a parameter"
            parts.insert(1, page.picture(what, svg))
        if parts:
            written.append((line.label, "\n".join(parts)))
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns 0, or 2 where the input is bad."""
    parser = Parser(
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


def _kinds(wrong: Table) -> str:
    """A note on what the columns of `tables.wrong_table` are called."""
    words = [f"{kind} ({first_wrong.IN_WORDS[kind]})" for kind in wrong[0][2:]]
    return f"What goes wrong first: {', '.join(words)}."


def _missing(found: Material, name: str, scale: str, cut: int) -> list[str]:
    """Notes on runs and evaluations that are missing, and on lines that could not be read."""
    said = []
    view = View(found.store, name, scale)
    entries = view.remembered() if view.directory.exists() else []
    asked = {entry["run"] for entry in entries}
    if missing := sorted(asked - {row["run"] for row in found.rows}):
        names = ", ".join(missing[:8]) + (", …" if len(missing) > 8 else "")
        said.append(
            f"Incomplete: {len(missing)} of {len(asked)} runs are not trained and judged: {names}."
        )
    judged = collections.Counter(run for run, _ in found.evaluations)
    left = collections.Counter(entry["run"] for entry in entries) - judged
    if some := {run: number for run, number in left.items() if run not in missing}:
        names = ", ".join(f"{number} of {run}" for run, number in sorted(some.items())[:8])
        said.append(
            f"Incomplete: {sum(some.values())} of {len(entries)} evaluations are not done: {names}"
            f"{', …' if len(some) > 8 else ''}."
        )
    for file, number in {results.FILE: cut, **found.damaged}.items():
        if number:
            plural = "lines" if number > 1 else "line"
            said.append(f"{number} {plural} of {file} could not be read and left out.")
    return said


def _notes(lines: Sequence[Line], found: Material) -> list[str]:
    probes = any(point.probe for line in lines for point in line.points)
    of = "questions answered right" if probes else "problems solved"
    several = any(len(point.by_seed) > 1 for line in lines for point in line.points)
    over = "over seeds and problems" if several else "over problems alone (Wilson's)"
    notes = [f"Intervals are 95% intervals of the share of {of}, {over}."]
    if probes:
        notes.append("Several questions are about one problem, for which intervals do not allow.")
    if several:
        notes[0] += (
            " How far seeds vary is taken from all conditions together, so that those of one seed "
            "have an interval over seeds, too."
        )
        notes.append("± is the standard deviation over seeds, all tested on the same problems.")
    if names := found.mixed:
        notes.append(
            "Warning: runs of one condition, but of different configurations or releases, are "
            f"shown apart and not averaged: {', '.join(names)}."
        )
    if len(parts := found.makers) > 1:
        notes.append(
            "Warning: runs were not all trained by the same versions on the same kind of device, "
            f"which may round otherwise: {'; '.join(parts)}."
        )
    return notes


def _csv(table: Table) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(table)
    return buffer.getvalue()


if __name__ == "__main__":
    interrupts.run(main)
