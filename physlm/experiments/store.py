"""A store: the directory in which trained models, their evaluations and studies are kept.

`models/` holds a directory for each run, `<study>-<scale>/` what a study shows of them.
"""

import dataclasses
import os
import pathlib
import tempfile

from physlm import train
from physlm.experiments import results
from physlm.experiments import run as run_lib

MODELS_DIR = "models"
CACHE_DIR = ".compiled"


@dataclasses.dataclass(frozen=True)
class Store:
    """Where things are in a store."""

    root: pathlib.Path

    @property
    def models(self) -> pathlib.Path:
        """The directory of all runs."""
        return self.root / MODELS_DIR

    @property
    def cache(self) -> pathlib.Path | None:
        """Where compiled programs go, unless JAX has been told already by its own variable."""
        return None if "JAX_COMPILATION_CACHE_DIR" in os.environ else self.root / CACHE_DIR

    def of_run(self, name: str) -> pathlib.Path:
        """The directory of a run."""
        return self.models / name

    def check(self, view: pathlib.Path) -> None:
        """Sees to it that the store can be written, without touching it.

        Args:
            view: the directory in it of what a study shows.

        Raises:
            ValueError: it is a file, cannot be written, or holds what an older version left.
        """
        nearest = self.root
        while not nearest.exists() and nearest != nearest.parent:
            nearest = nearest.parent
        if not nearest.is_dir():
            raise ValueError(f"--workdir {self.root} cannot be a directory: {nearest} is a file.")
        if not os.access(nearest, os.R_OK | os.W_OK | os.X_OK):
            raise ValueError(f"--workdir {self.root} is not writable: no permission in {nearest}.")
        for directory in (self.root, view):
            if run := _first_run(directory):
                raise ValueError(
                    f"{directory} holds a run itself, {run}, as in an older version; runs are kept "
                    f"in {MODELS_DIR}/ of a store now: choose another --workdir."
                )
        if (self.root / results.FILE).exists():
            raise ValueError(
                f"--workdir {self.root} is what a study shows and not a store, as "
                f"it holds {results.FILE}: choose another --workdir."
            )

    def make(self, view: pathlib.Path) -> None:
        """Creates the directories and tries them: permission bits do not tell everything.

        Args:
            view: the directory in it of what a study shows.

        Raises:
            ValueError: they cannot be written, for quotas or mounts for example.
        """
        try:
            for directory in (self.models, view):
                directory.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryFile(dir=directory):
                    pass
        except OSError as error:
            raise ValueError(f"--workdir {self.root} is not writable: {error.strerror}.") from error


def _first_run(directory: pathlib.Path) -> str | None:
    """The name of a run that lies in a directory itself; None where there is none."""
    marks = (run_lib.CONFIG_FILE, train.CHECKPOINTS_DIR)
    found = (path.parent.name for mark in marks for path in directory.glob(f"*/{mark}"))
    return min(found, default=None)
