"""`--set model.from=DIR`: a study whose runs all begin with a model of Hugging Face.

The model becomes a run of the store (`physlm.adopt`), and that run the parent of all runs of the
study. They take the architecture and the class of problems from it.
"""

import atexit
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from etils import epath

from physlm import paths
from physlm.experiments import config
from physlm.experiments import run as run_lib
from physlm.experiments.store import Store

KEY = "model.from"

# What children take from their parent: its data and model, and what suits its class of problems.
_SHARED = ("data.", "model.")
_FITTING = (
    "train.window",
    *(f"evaluate.{name}" for name in ("beyond", "within", "reasked", "max_new_tokens")),
)


def begun(
    assignments: Sequence[str], workdir: epath.Path, scale: str, *, keep: bool
) -> tuple[list[str], dict[str, Any]]:
    """Adopts the model that `model.from` names, where it is given.

    Args:
        assignments: `key=value` texts, `model.from=DIR` among them or not.
        workdir: the store.
        scale: whose settings hold where nothing else says any.
        keep: whether to write the adopted run to the store; otherwise it is kept elsewhere until
            this process ends.

    Returns:
        the assignments with the adopted run as parent in place of `model.from`; and the settings of
        the parent that its children need or that fit its class of problems, by dotted key.

    Raises:
        ValueError: two of the assignments say which model runs begin with, or the model cannot be
            adopted.
    """
    keys = [text.partition("=")[0].strip() for text in assignments]
    others = [text for key, text in zip(keys, assignments, strict=True) if key != KEY]
    if KEY not in keys:
        return others, {}
    if keys.count(KEY) > 1 or "parent.run" in keys:
        raise ValueError(f"{KEY} is given beside another {KEY} or parent.run: give one of them.")
    directory = assignments[keys.index(KEY)].partition("=")[2].strip()
    if not directory:
        raise ValueError(f"{KEY} is ''; it must be a directory of a model of Hugging Face.")
    own = [text for text in others if text.strip().startswith((*_SHARED, "train.window"))]
    store = Store(workdir if keep else _elsewhere())
    name = _adopted(directory, store, scale, own)
    found = config.flatten(run_lib.load(store.of_run(name)).config)
    shared = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in found.items()
        if key.startswith(_SHARED) or key in _FITTING
    }
    parent = name if keep else str(store.of_run(name))
    return [*others, f"parent.run={parent}"], shared


def _elsewhere() -> epath.Path:
    made = tempfile.TemporaryDirectory(prefix="physlm-adopted-")
    atexit.register(made.cleanup)
    return epath.Path(made.name)


def _adopted(directory: str, store: Store, scale: str, assignments: Sequence[str]) -> str:
    """The name of the run that a directory is adopted as.

    Adopting initialises JAX, but this process has not decided yet how many devices it needs. So it
    is done in a process of its own, on a CPU.
    """
    command = [sys.executable, "-m", "physlm.adopt", directory, "--workdir", str(store.root)]
    command += ["--scale", scale, *(["--set", *assignments] if assignments else [])]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"}
    )
    if done.returncode:
        if done.returncode == 1:
            raise paths.FullError(f"the model of {directory}", store.root)
        # The last line is the sentence that says what is wrong.
        said = done.stderr.strip().splitlines() or [f"it ended with {done.returncode}."]
        raise ValueError(f"{KEY} is {directory!r}: {said[-1]}")
    return done.stdout.strip().rpartition("parent.run=")[2]
