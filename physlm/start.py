"""The initial state of training: a fresh model, a parent's, or a checkpoint.

In this order: the run's own newest checkpoint; else the model of its parent, with or without the
parent's optimizer state; else the seed. What is frozen of a model is the parent's, or drawn from
the seed where there is no parent, also when a run goes on from its own checkpoint, which does not
hold it.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from data_gen import settings
from physlm.adaptation import Adaptation
from physlm.architecture import ModelConfig
from physlm.checkpoint import Checkpoints, restore_all
from physlm.model import Params
from physlm.step import TrainState, abstract_state, first_params, first_state

FRESH, CARRIED = "fresh", "carried"

# Makes a trained model on the devices of a run's mesh, and what its optimizer remembers, or None
# where that is not carried on.
Parent = Callable[[], tuple[Params, optax.OptState | None]]


@dataclasses.dataclass(frozen=True)
class ParentConfig:
    """The run whose model a run starts from.

    Raises:
      RefusedError: a setting has a value that is not allowed.
    """

    run: str = settings.text(
        "",
        "The run whose model this one begins with, or whose model is frozen in it: its name in the "
        "store, or its directory. Empty to begin with a model drawn from the seed.",
        "the name or the directory of a run, or empty",
        of_member=True,
        added=True,
    )
    checkpoint: str = settings.text(
        "final",
        "Which of its checkpoints.",
        "final, best or a step",
        of_member=True,
        added=True,
    )
    optimizer: str = settings.choice(
        FRESH,
        "Whether the optimizer begins fresh, or carried on from the parent's, moments and all; the "
        "schedule is the run's own either way.",
        (FRESH, CARRIED),
        added=True,
    )

    def __post_init__(self) -> None:
        settings.check(self)
        if self.checkpoint not in ("final", "best") and not self.checkpoint.isdecimal():
            raise settings.RefusedError("checkpoint", self.checkpoint, "final, best or a step")


def start(
    checkpoints: Sequence[Checkpoints],
    seeds: Sequence[int],
    parents: Sequence[Parent | None],
    *,
    model: ModelConfig,
    transform: optax.GradientTransformation,
    mesh: Mesh,
    adaptation: Adaptation,
) -> tuple[list[TrainState], list[Params]]:
    """The states from which runs start or resume, all at the same step, and the frozen parameters.

    Args:
      checkpoints: each run's own.
      seeds: of the runs.
      parents: of the runs.
      model: the decoder of each.
      transform: the update rule.
      mesh: of a run alone.
      adaptation: what is trained of each model.

    Raises:
      ValueError: a parent cannot be read.
    """
    abstract = abstract_state(model, transform, mesh, adaptation)
    states = restore_all(checkpoints, abstract)
    goes_on = bool(states)
    frozen: list[Params] = [{} for _ in seeds]
    if goes_on and adaptation.full:
        return states, frozen
    for number, (seed, parent) in enumerate(zip(seeds, parents, strict=True)):
        base, memory = parent() if parent else (None, None)
        if not adaptation.full:
            base = first_params(model, mesh, seed) if base is None else base
            frozen[number] = base
        if not goes_on:
            state = first_state(model, transform, mesh, seed, adaptation, base)
            if memory is not None:
                state = state._replace(opt_state=_begun_anew(memory))
            states.append(state)
    return states, frozen


def _begun_anew(memory: optax.OptState) -> optax.OptState:
    """The optimizer's state with its step count reset, so that the schedule starts anew."""

    def one(part: Any) -> Any:
        if isinstance(part, optax.ScaleByScheduleState):
            return part._replace(count=jnp.zeros_like(part.count))
        return part

    return jax.tree.map(
        one, memory, is_leaf=lambda part: isinstance(part, optax.ScaleByScheduleState)
    )
