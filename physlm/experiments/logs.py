"""Other places for the metrics of runs: TensorBoard's files, and Weights & Biases.

They are given what is in `metrics.jsonl`, which remains the source: also a run that was resumed is
shown from its first step on, with no step twice. Each needs the extra of its name.
"""

import contextlib
import functools
import importlib
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from physlm.experiments import identity
from physlm.experiments.run import Run
from physlm.journal import Line, Log

# By name, the package that writes there. TensorBoard's files are written by tensorboardX, as the
# writers of clu and flax need TensorFlow.
_PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb"}
NAMES = tuple(_PACKAGES)

# Where W&B shows runs, unless its own variable says it.
_PROJECT = "physlm"

Tell = Callable[[Line], None]


def check(names: Sequence[str]) -> None:
    """Checks that the chosen writers can be used.

    Raises:
        ValueError: a package is not installed, or W&B does not know who writes.
    """
    for name in names:
        try:
            package = importlib.import_module(_PACKAGES[name])
        except ImportError as error:
            raise ValueError(
                f"--log {name} needs {_PACKAGES[name]}, which is not installed: "
                f"pip install 'physlm[{name}]'."
            ) from error
        if name == "wandb" and package.setup().settings.mode == "online":
            try:
                package.login()
            except package.errors.UsageError as error:
                raise ValueError(
                    f"--log wandb: {error} Or keep what it is told here, with WANDB_MODE=offline."
                ) from error


def of_run(run: Run, directory: pathlib.Path, names: Sequence[str]) -> list[Log]:
    """The writers of a run's metrics.

    Args:
        run: which run.
        directory: of the run; what is written lies there.
        names: of `NAMES`.
    """
    made = {
        "tensorboard": functools.partial(_tensorboard, directory / "tensorboard"),
        "wandb": functools.partial(_wandb, run, directory),
    }
    return [made[name] for name in dict.fromkeys(names)]


@contextlib.contextmanager
def _tensorboard(directory: pathlib.Path, lines: Sequence[Line]) -> Iterator[Tell]:
    """A TensorBoard writer, whose event files are rebuilt from `metrics.jsonl`."""
    import tensorboardX

    shutil.rmtree(directory, ignore_errors=True)
    # The time axis has seconds of training, not of the day, so that pauses do not show.
    begun = time.time() - (lines[-1].get("seconds", 0.0) if lines else 0.0)
    # This has a viewer drop what it has read of earlier files.
    with tensorboardX.SummaryWriter(str(directory), purge_step=0) as writer:

        def tell(line: Line) -> None:
            for name, value in line.items():
                if name != "step":
                    at = begun + line.get("seconds", 0.0)
                    writer.add_scalar(name, value, int(line["step"]), walltime=at)
            writer.flush()

        for line in lines:
            tell(line)
        yield tell


@contextlib.contextmanager
def _wandb(run: Run, directory: pathlib.Path, lines: Sequence[Line]) -> Iterator[Tell]:
    """A writer to Weights & Biases that resumes the run with our hash as its id."""
    import wandb

    name = identity.hash_of(run.name)
    # Offline files are written again, whole; the server already has the earlier steps.
    for before in directory.glob(f"wandb/offline-run-*-{name}"):
        shutil.rmtree(before)
    settings: dict[str, Any] = {"console": "off"}
    with wandb.init(
        project=os.environ.get("WANDB_PROJECT", _PROJECT),
        id=name,
        name=run.name,
        config=dict(run.config),
        dir=str(directory),
        resume="allow",
        # Several runs may be trained together.
        reinit="create_new",
        settings=settings,
    ) as shown:

        def tell(line: Line) -> None:
            step = int(line["step"])
            if step >= shown.starting_step:
                values = {name: value for name, value in line.items() if name != "step"}
                shown.log(values, step=step)

        for line in lines:
            tell(line)
        yield tell
