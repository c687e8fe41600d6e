"""A store: where trained models, their evaluations and studies are kept.

It is a local directory, or one in a bucket.

`models/` holds a directory for each run, `<study>-<scale>/` what a study shows of them.
"""

import contextlib
import dataclasses
import os
import uuid
from collections.abc import Iterator

from etils import epath

from physlm import paths, train
from physlm.experiments import results
from physlm.experiments import run as run_lib

MODELS_DIR = "models"
CACHE_DIR = ".compiled"

# Either of these lies in the directory of every run.
_MARKS = (run_lib.CONFIG_FILE, train.CHECKPOINTS_DIR)


@dataclasses.dataclass(frozen=True)
class Store:
    """The layout of a store."""

    root: epath.Path

    @property
    def models(self) -> epath.Path:
        """The directory of all runs."""
        return self.root / MODELS_DIR

    @property
    def cache(self) -> epath.Path | None:
        """The directory of compiled programs; None where JAX's own variable names one."""
        return None if "JAX_COMPILATION_CACHE_DIR" in os.environ else self.root / CACHE_DIR

    def of_run(self, name: str) -> epath.Path:
        """The directory of a run."""
        return self.models / name

    def check(self, view: epath.Path) -> None:
        """Checks, without writing anything, that the store can be written.

        Args:
            view: the directory in it of what a study shows.

        Raises:
            ValueError: it is a file, a run or a study's directory, cannot be written, or holds
                what an older version left.
        """
        if paths.is_local(self.root):
            self._check_directory()
            # There are no old stores in buckets.
            for directory in (self.root, view):
                if run := _first_run(directory):
                    raise ValueError(
                        f"{directory} holds a run itself, {run}, as in an older version; runs are "
                        f"kept in {MODELS_DIR}/ of a store now: choose another --workdir."
                    )
        else:
            with self._tried():
                paths.check_bucket(self.root)
        if any((self.root / mark).exists() for mark in _MARKS):
            raise ValueError(
                f"--workdir {self.root} is the directory of a run and not a store, in which runs "
                f"are kept in {MODELS_DIR}/: choose another --workdir."
            )
        if (self.root / results.FILE).exists():
            raise ValueError(
                f"--workdir {self.root} is what a study shows and not a store, as "
                f"it holds {results.FILE}: choose another --workdir."
            )

    def make(self, view: epath.Path) -> None:
        """Creates the directories and writes to them on trial, as permission bits can mislead.

        Args:
            view: the directory in it of what a study shows.

        Raises:
            ValueError: they cannot be written, for quotas or mounts for example.
        """
        with self._tried():
            for directory in (self.models, view):
                paths.make_directory(directory)
                trial = directory / f".{uuid.uuid4().hex}"
                paths.create(trial, b"")
                trial.unlink()

    def _check_directory(self) -> None:
        nearest = self.root
        while not nearest.exists() and nearest != nearest.parent:
            nearest = nearest.parent
        if not nearest.is_dir():
            raise ValueError(f"--workdir {self.root} cannot be a directory: {nearest} is a file.")
        if not os.access(nearest, os.R_OK | os.W_OK | os.X_OK):
            raise ValueError(f"--workdir {self.root} is not writable: no permission in {nearest}.")

    @contextlib.contextmanager
    def _tried(self) -> Iterator[None]:
        try:
            yield
        except paths.failures(self.root) as error:
            lost = paths.is_disconnected(error, self.root)
            state = "cannot be reached" if lost else "is not writable"
            raise ValueError(f"--workdir {self.root} {state}: {paths.why(error)}.") from error


def _first_run(directory: epath.Path) -> str | None:
    """The name of a run that lies in a directory itself; None where there is none."""
    found = (path.parent.name for mark in _MARKS for path in directory.glob(f"*/{mark}"))
    return min(found, default=None)
