"""Records that a run is trained on: those of a file, or its parent's own corrected mistakes.

The latter are made once, before the first run that needs them is trained, and kept in the parent's
directory, where all runs that ask for the same ones find them.
"""

import functools
import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack

from etils import epath

from data_gen.windows import recorded
from data_gen.windows.recorded import Record, Records
from physlm import devices, paths, practice
from physlm.decoding import recipe
from physlm.experiments import ancestry, leases, weights
from physlm.experiments.identity import digest
from physlm.experiments.run import Run, in_a_path
from physlm.practice import PARENT
from physlm.progress import Reporter

DIRECTORY = "records"

Progress = Callable[[str, int, str], AbstractContextManager[Reporter]]


def of_run(
    run: Run, directory: epath.Path, progress: Progress, say: Callable[[str], None]
) -> Records | None:
    """The records mixed into a run's fresh problems; None where there are none.

    Several hosts call it together.

    Args:
        run: which run. Its parent is trained to its end.
        directory: of the run; parents lie beside it, where they are not somewhere else.
        progress: makes a progress display of (title, total, unit).
        say: takes, in words, what happens.

    Raises:
        ValueError: the parent made no mistake that can be trained on, or its model cannot be read.
    """
    asked, settings = run.settings.practice, run.settings
    if not asked.records:
        return None
    window = settings.windows.window
    found: Sequence[Record]
    if asked.records == PARENT:
        found = _read(_own(run, directory, progress, say))
    else:
        found = recorded.of_file(asked.records, window, settings.data)
    return recorded.laid(found, asked.records_share, window, settings.data)


def path_of(run: Run, directory: epath.Path) -> epath.Path:
    """The file of the parent's own corrected mistakes, which need not exist yet.

    Raises:
        ValueError: there is no such parent, or it is not trained to its end.
    """
    asked = run.settings.practice
    parent, where = ancestry.lineage(run, directory.parent)[0]
    step = weights.step_of(parent, where, run.settings.parent.checkpoint)
    decode = recipe.canonical(asked.records_decode)
    facts = {
        "step": step,
        "problems": asked.records_problems,
        "decode": decode,
        "seed": run.settings.seed,
        "window": run.settings.windows.window,
    }
    words = [f"step={step}", in_a_path(decode), f"problems={asked.records_problems}"]
    words.append(f"seed={run.settings.seed}")
    return where / DIRECTORY / f"{','.join(words)[:150]}-{digest(facts)}.jsonl"


def _own(
    run: Run, directory: epath.Path, progress: Progress, say: Callable[[str], None]
) -> epath.Path:
    """The file of the parent's own corrected mistakes; makes it where it is missing."""
    path = path_of(run, directory)
    busy = functools.partial(say, f"{run.name}: another process makes its records: waits for it")
    with ExitStack() as stack:
        if devices.is_first() and not path.exists():
            paths.make_directory(path.parent)
            stack.enter_context(leases.held(path, busy))
        devices.wait_for_all(f"locked the records of {run.name}")
        done = path.exists()
        devices.wait_for_all(f"decided on the records of {run.name}")
        if not done:
            _make(run, directory, path, progress, say)
        devices.wait_for_all(f"made the records of {run.name}")
    return path


def _make(
    run: Run,
    directory: epath.Path,
    path: epath.Path,
    progress: Progress,
    say: Callable[[str], None],
) -> None:
    settings, read = run.settings, weights.parent(run, directory)
    assert read is not None  # Who asks for the parent's mistakes has one.
    made, left_out = practice.own_mistakes(
        read()[0],
        model=settings.model,
        spec=settings.data,
        config=settings.practice,
        seed=settings.seed,
        batch=settings.evaluate.batch,
        progress=progress,
    )
    count = settings.practice.records_problems
    if not made:
        raise ValueError(
            f"train.records is {PARENT!r}; it must be empty or a file, or train.records_problems "
            f"more: of {count} problems the parent of {run.name} solved none with a mistake that "
            "can be mended and fits a window."
        )
    say(
        f"{run.name}: of {count} problems for training its parent made {len(made)} mistakes that "
        f"are mended, and {left_out} that fit no window"
    )
    if devices.is_first():
        leases.check(path)
        paths.write_atomically(path, "".join(f"{json.dumps(record)}\n" for record in made))


def _read(path: epath.Path) -> list[Record]:
    return [json.loads(line) for line in paths.read_bytes(path).decode("utf-8").splitlines()]
