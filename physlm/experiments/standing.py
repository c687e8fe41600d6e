"""The progress of a study's runs, by their files: state, latest metrics, time left."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Literal

from etils import epath

from physlm import paths
from physlm.experiments import evaluation as evaluation_lib
from physlm.experiments import leases, results
from physlm.experiments import run as run_lib
from physlm.experiments.view import View
from physlm.journal import METRICS_FILE
from physlm.metrics import read_lines

State = Literal["done", "judging", "going", "failed", "stopped", "waiting"]

# The line of a traceback that names the error is the one that is not indented.
_ERROR = re.compile(r"^[A-Za-z_][\w.]*(?:: .*)?$", re.MULTILINE)

# States of a run for which nothing more happens until somebody starts a sweep again.
ENDED = ("done", "failed")


@dataclasses.dataclass(frozen=True)
class Standing:
    """The progress of a run.

    Attributes:
        run: its name.
        state: done, with all that the study judges; judging, trained and being judged; going, being
            trained; failed, in one of these; stopped, begun and not being trained; waiting, to be
            begun or, if it is trained, to be judged.
        step: the last one that its metrics tell of.
        steps: how many it takes; None where that is not known.
        loss: its recent mean.
        accuracy: strict, in 0..1, on problems up to the most operations in training, by the first
            evaluation that has it.
        tokens_per_s: recent speed, of all runs that are trained together; while it is going.
        seconds_left: of its training, at that speed.
        error: why it failed, in one line.
    """

    run: str
    state: State
    step: int = 0
    steps: int | None = None
    loss: float | None = None
    accuracy: float | None = None
    tokens_per_s: float | None = None
    seconds_left: float | None = None
    error: str = ""


def of_view(view: View) -> list[Standing]:
    """The progress of all runs of a study, parents before children.

    Raises:
        ValueError: a file is damaged.
    """
    evaluations: dict[str, list[Mapping[str, Any]]] = {}
    for shown in view.remembered():
        evaluations.setdefault(shown["run"], []).append(shown["evaluation"])
    return [
        _of_run(view.store.of_run(name), steps, evaluations.get(name, []))
        for name, steps in view.needed().items()
    ]


def _of_run(
    directory: epath.Path, steps: int | None, evaluations: list[Mapping[str, Any]]
) -> Standing:
    places = [evaluation_lib.result_of(directory, one) for one in evaluations]
    state, error = _state(directory, places)
    last = (read_lines(directory / METRICS_FILE) or [{}])[-1]
    step = run_lib.last_step(directory) or last.get("step", 0)
    going = state == "going"
    pace = last.get("step_seconds") if going else None
    left = None if pace is None or steps is None or step > steps else (steps - step) * pace
    return Standing(
        run=directory.name,
        state=state,
        step=step,
        steps=steps if run_lib.last_step(directory) is None else step,
        loss=last.get("recent_loss"),
        accuracy=next((found for one in places if (found := _accuracy(one)) is not None), None),
        tokens_per_s=last.get("tokens_per_s") if going else None,
        seconds_left=left,
        error=error,
    )


def _state(directory: epath.Path, places: list[epath.Path | None]) -> tuple[State, str]:
    """The state of a run, and its error if it has failed.

    Args:
        directory: of the run.
        places: the files with the results of judging it.
    """
    known = [place for place in places if place is not None]
    busy = leases.is_held(directory)
    if run_lib.status(directory) != "finished":
        if busy:
            return "going", ""
        if error := _error(directory):
            return "failed", error
        return ("stopped" if directory.exists() else "waiting"), ""
    if len(known) == len(places) and all(place.exists() for place in known):
        return "done", ""
    if busy or any(leases.is_held(place.parent) for place in known):
        return "judging", ""
    errors = [_error(place.parent) for place in known if not place.exists()]
    error = next(filter(None, errors), "")
    return ("failed" if error else "waiting"), error


def _error(directory: epath.Path) -> str:
    """The first line of the error that was left in a directory; empty where there is none."""
    path = directory / run_lib.ERROR_FILE
    if not path.exists():
        return ""
    found = _ERROR.findall(paths.read_bytes(path).decode("utf-8", "replace"))
    return found[-1] if found else "for no reason that is known"


def _accuracy(place: epath.Path | None) -> float | None:
    if place is None or not place.exists():
        return None
    cells = (cell for cell in results.cells(place) if cell["cell"].startswith("<="))
    return next((cell["accuracy"] for cell in cells), None)
