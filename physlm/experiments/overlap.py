"""Counts how many test problems occur in a run's training data, and reports it.

`python -m physlm.experiments.evaluate RUN --overlap` counts; the result is kept beside that of the
evaluation whose problems these are. Training data is generated again from the run's seed, by the
present code; anything else that the model was trained on (mended solutions, frozen sets) is not
read.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from physlm import overlap, paths
from physlm.experiments import evaluation as evaluation_lib
from physlm.experiments import execution, files, hosts, results, weights
from physlm.experiments import run as run_lib
from physlm.experiments.evaluation import Evaluation
from physlm.experiments.run import Run

FILE = "overlap.json"

_COMMAND = "`python -m physlm.experiments.evaluate RUN --overlap`"

Found = Mapping[str, Any]


def counted(
    run: Run,
    evaluation: Evaluation,
    directory: epath.Path,
    *,
    which: str = "final",
    most: int | None = None,
) -> Found:
    """Counts a run's overlap and writes it, unless as many windows have been read before.

    Args:
        run: whose training is read. It need not have been trained.
        evaluation: whose test problems are looked for.
        directory: of the run.
        which: the checkpoint up to which training is read, as for `weights.step_of`; the final
            one is the last that there will be.
        most: training windows, at most; None is all.

    Returns:
        what the file holds: the fields of `physlm.overlap.Overlap`, and the names of run and
        evaluation, the step, and how many windows (`of_windows`) training has up to it.

    Raises:
        ValueError: there is no such checkpoint, the protocol asks for problems that there are not,
            the run is trained on records too, or a file that was written before is damaged.
    """
    settings = run.settings
    if settings.practice.records:
        raise ValueError(
            f"--overlap is given for {run.name}, which is trained on records too (train.records is "
            f"{settings.practice.records!r}); it must be left out, as fresh problems alone are "
            "counted."
        )
    if which == "final":
        step = run_lib.last_step(directory) or execution.budgeted(settings).train.steps
    else:
        step = weights.step_of(run, directory, which)
    path = evaluation_lib.directory_of(directory, evaluation.config, step) / FILE
    whole = step * settings.train.batch
    first = whole if most is None else min(most, whole)
    if path.exists() and (before := _read(path))["windows"] >= first:
        return before
    found = overlap.count(
        settings.data,
        settings.mistakes,
        settings.windows,
        seed=settings.seed,
        first=first,
        config=evaluation.settings,
        progress=hosts.progress,
    )
    header = {"run": run.name, "evaluation": path.parent.name, "step": step, "of_windows": whole}
    paths.make_directory(path.parent)
    files.write_json(path, header | dataclasses.asdict(found))
    return _read(path)


def in_words(found: Found) -> str:
    """The overlap of each cell as a table, and what was compared."""
    rows: list[tuple[str, ...]] = [
        ("cell", "problems", "distinct", "template in training", "word for word in training")
    ]
    names = ("cell", "n", "distinct", "template", "text")
    rows += [tuple(str(cell[name]) for name in names) for cell in found["cells"]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True))
        for row in rows
    ]
    compared = (
        f"Compared with {found['problems']:,} training problems ({found['distinct']:,} distinct) "
        f"of {found['templates']:,} templates, in {found['windows']:,} of {found['of_windows']:,} "
        f"windows. {found['cut']:,} more are cut by their window before their solution begins."
    )
    return "\n".join([*lines, "", compared])


def note(
    rows: Sequence[results.Row], evaluations: Mapping[tuple[str, str], epath.Path]
) -> list[str]:
    """One line for a study's report; none where overlap was not counted.

    Args:
        rows: of `results.jsonl`, with what their evaluations say of shared problems.
        evaluations: the directory of each evaluation, by its run and its name.
    """
    told = []
    paths = [directory / FILE for directory in evaluations.values()]
    if found := [_read(path) for path in paths if path.exists()]:
        told.append(_counted(found, len(paths)))
    if len(found) < len(paths) and any("shared" in row for row in rows):
        told.append(_by_template(rows, bool(found)))
    return [" ".join(told)] if told else []


def _counted(found: Sequence[Found], runs: int) -> str:
    def most(field: str) -> int:
        return max(sum(cell[field] for cell in one["cells"]) for one in found)

    of = f"the {runs} runs" if runs > 1 else "the run"
    checked = f"checked for {sum(one['problems'] for one in found):,} training problems of {of}"
    if len(found) < runs:
        checked = checked.replace(of, f"{len(found)} of {of}")
    read, whole = (sum(one[field] for one in found) for field in ("windows", "of_windows"))
    if read < whole:
        checked += f", {read:,} of {whole:,} windows"
    if not most("text") and not most("template"):
        return f"No test problem occurs in training, by template or word for word: {checked}."
    at_most = "at most " if len(found) > 1 else ""
    return (
        f"Of {most('n'):,} test problems {at_most}{most('text'):,} stand in a run's training word "
        f"for word, and {at_most}{most('template'):,} have a template that it shows: {checked}."
    )


def _by_template(rows: Sequence[results.Row], some_counted: bool) -> str:
    shared: dict[tuple[str, str], int] = {}
    for row in rows:
        key = (row["run"], row["evaluation"])
        shared[key] = shared.get(key, 0) + row.get("shared", {"n": 0})["n"]
    most = max(shared.values())
    for_all = " for all runs" if some_counted else ""
    what = f"{most:,} test problems have" if most else "No test problem has"
    return (
        f"{what} a template that training may show; whether any stands there word for word has "
        f"not been counted{for_all} ({_COMMAND} does)."
    )


def _read(path: epath.Path) -> Found:
    fields = {field.name for field in dataclasses.fields(overlap.Overlap)}
    fields |= {"run", "evaluation", "step", "of_windows"}
    found = files.read_json(path)
    if not isinstance(found, dict) or set(found) != fields:
        raise ValueError(f"{path} does not say what overlaps; remove it to have it counted again.")
    return found
