"""The cost of training a run: parameters, tokens, model FLOPs, time here and on a TPU slice."""

import contextlib
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
from etils import epath

from data_gen import keys
from data_gen.keys import Purpose
from physlm import model as model_lib
from physlm import paths
from physlm.experiments import config as config_lib
from physlm.experiments import memory
from physlm.experiments import run as run_lib
from physlm.experiments.pace import Paces, pace_of
from physlm.experiments.run import Run
from physlm.experiments.store import Store
from physlm.throughput import model_flops
from physlm.tools import roofline
from physlm.tools.chips import CHIPS


@dataclasses.dataclass(frozen=True)
class Slice:
    """Accelerator chips for which times are estimated.

    Attributes:
        chip: its name in `physlm.tools.chips`.
        devices: how many.
    """

    chip: str
    devices: int

    def __str__(self) -> str:
        return f"{self.chip}-{self.devices}"


def parse_slice(text: str) -> Slice:
    """The slice of a text like `v5e-8`.

    Raises:
        ValueError: it is not written so, or there is no such chip.
    """
    chip, _, devices = text.rpartition("-")
    if chip not in CHIPS or not devices.isdecimal() or int(devices) < 1:
        known = ", ".join(CHIPS)
        raise ValueError(
            f"--slice is {text!r}; it must be a chip and how many, as v5e-8, with one of {known}."
        )
    return Slice(chip, int(devices))


def little_room(runs: Sequence[Run], store: Store) -> str:
    """A warning where the disk has too little room for the checkpoints of runs; else empty."""
    free, apart = paths.free(store.root), {run.name: run for run in runs}
    taken = sum(checkpoint_bytes(run, store.of_run(name)) for name, run in apart.items())
    if free is None or taken <= free:
        return ""
    return (
        f"warning: checkpoints of {len(apart)} runs take about {paths.in_bytes(taken)}, and in "
        f"{store.root} only {paths.in_bytes(free)} are free."
    )


def checkpoint_bytes(run: Run, directory: epath.Path) -> int:
    """About how many bytes the checkpoints take that a run is still to write.

    Args:
        run: what is trained.
        directory: of the run, which may have checkpoints.
    """
    if run_lib.status(directory) == "finished":
        return 0
    train = run.settings.train
    # The newest ones, the best one, and one that is written before the oldest is removed.
    count = min(train.keep + 2, -(-train.steps // train.save_every))
    return max(count - len(run_lib.saved_steps(directory)), 1) * memory.state_bytes(run)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The cost of a run's whole training.

    Attributes:
        trained: parameters that are trained.
        parameters: those and the frozen ones.
        tokens: that it sees; of a budget of problems, at least.
        flops: model FLOPs; where some parameters are frozen, at most.
        here: seconds on the devices here; None where no step was measured.
        there: seconds on the slice, a guess; None where the run cannot be divided over it.
    """

    trained: int
    parameters: int
    tokens: int
    flops: float
    here: float | None
    there: float | None


def estimate(run: Run, paces: Paces, place: Slice) -> Estimate:
    """Estimates the cost of a run, from speeds measured here and for a slice."""
    settings = run.settings
    batch = settings.train.batch * settings.windows.window
    trained, parameters = _parameters(settings)
    pace = paces.get(pace_of(run.config))
    return Estimate(
        trained=trained,
        parameters=parameters,
        tokens=run.tokens,
        flops=settings.train.steps * model_flops(settings.model, batch),
        here=None if pace is None else run.tokens / pace,
        there=_there(settings, place),
    )


def _parameters(settings: config_lib.Settings) -> tuple[int, int]:
    """The numbers of trained and of all parameters."""
    shapes, adaptation = model_lib.shapes(settings.model), settings.learning.adaptation
    total = _size(shapes)
    if adaptation.full:
        return total, total
    split = functools.partial(
        adaptation.split, model=settings.model, key=keys.root(0, Purpose.PARAMETERS)
    )
    trained = _size(jax.eval_shape(split, shapes)[0])
    return trained, trained + total


def _size(params: Any) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def _there(settings: config_lib.Settings, place: Slice) -> float | None:
    """Seconds on a slice, on as many chips as can share a batch."""
    mesh, config = settings.mesh, settings.train
    for data in range(place.devices // mesh.beside_data, 0, -1):
        axes = {"fsdp": mesh.fsdp, "sequence": mesh.sequence, "tensor": mesh.tensor, "data": data}
        # The batch cannot be divided over so many chips.
        with contextlib.suppress(ValueError):
            found = roofline.predict(
                CHIPS[place.chip], settings.model, config.batch, config.steps, axes,
                config.accumulate,
            )  # fmt: skip
            return config.steps * found.step
    return None
