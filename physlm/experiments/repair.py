"""Repair of a store: damaged files that can be made again are set aside.

Files are written atomically, so that a kill damages none; a disk that loses bytes, a copy that
broke off or an editor may. All that a run or a study needs can be made again: its configuration
from the plan, the mark of its end from its checkpoints, results from its model, and what a study
shows from its results. Metrics and versions cannot: half a line of metrics is skipped, and a
damaged file of versions is set aside.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from etils import epath

from physlm import checkpoint, paths, train
from physlm.experiments import evaluation as evaluation_lib
from physlm.experiments import files, judging, results, versions
from physlm.experiments import run as run_lib
from physlm.experiments.execution import Task
from physlm.experiments.view import FILE as SHOWN_FILE
from physlm.experiments.view import RUNS_FILE, Entry, View

# Added to the name of a file that is set aside; an earlier one of that name is replaced.
ASIDE = ".damaged"


def repair(todo: Sequence[Task], entries: Sequence[Entry], view: View) -> list[str]:
    """Sets damaged files aside, and restores those that the sweep would not make again by itself.

    Several processes may do so at once, hosts of one program and other workers.

    Args:
        todo: the runs of the sweep.
        entries: what the study is to show of them.
        view: the study in its store.

    Returns:
        a sentence about each file.

    Raises:
        one of `paths.failures`: the store cannot be read or written.
    """
    said = list(_view(view))
    for task in todo:
        said += _run(task, view.store.of_run(task.run.name))
    asked = [entry.shown for entry in entries]
    others = [one for one in view.remembered() if one not in asked]
    for shown in (*asked, *others):
        directory = view.store.of_run(shown["run"])
        said += _end(directory)
        said += _evaluation(directory, shown["evaluation"])
    return said


def _view(view: View) -> Iterator[str]:
    for sentence in _checked(view.directory / SHOWN_FILE, lambda path: view.remembered()):
        yield sentence
        view.recall()
    yield from _checked(view.directory / RUNS_FILE, lambda path: view.needed())


def _run(task: Task, directory: epath.Path) -> Iterator[str]:
    yield from _end(directory)
    # Of a finished run this file cannot be made again.
    yield from _checked(directory / versions.FILE, files.read_object, again="")
    yield from _checked(directory / train.CHECKPOINTS_DIR / checkpoint.MADE_BY, files.read_object)
    config = directory / run_lib.CONFIG_FILE
    for sentence in _checked(config, files.read_object):
        yield sentence
        # The directory's name has the hash of all that decides the weights.
        files.write_json(config, task.run.config)


def _end(directory: epath.Path) -> Iterator[str]:
    # The run then goes on from its last checkpoint, which is that of its last step.
    mark = directory / run_lib.FINISHED_FILE
    yield from _checked(mark, lambda path: run_lib.last_step(directory))


def _evaluation(directory: epath.Path, config: dict[str, Any]) -> Iterator[str]:
    path = evaluation_lib.result_of(directory, config)
    if path is None:
        return
    yield from _checked(path, _check_result)
    own = path.parent / run_lib.CONFIG_FILE
    for sentence in _checked(own, files.read_object) if path.exists() else ():
        yield sentence
        files.write_json(own, {"step": results.cells(path)[0]["step"], **config})


def _check_result(path: epath.Path) -> None:
    results.cells(path)
    judging.check_solutions(path)


def _checked(
    path: epath.Path, read: Callable[[epath.Path], Any], again: str = ", and made again"
) -> Iterator[str]:
    """Sets a file aside if `read` refuses it, and says so."""
    try:
        # A file that cannot be read at all may still be whole.
        paths.read_bytes(path)
    except FileNotFoundError:
        return
    try:
        read(path)
    except ValueError as error:
        # Another process may have done so by now.
        with contextlib.suppress(FileNotFoundError):
            path.replace(path.with_name(f"{path.name}{ASIDE}"))
        yield f"{str(error).rstrip('.')}: it is set aside as {path.name}{ASIDE}{again}."
