"""Optimizers: AdamW as the paper has it, and Muon for small budgets."""

import dataclasses
from typing import Any

import jax
import optax
from optax.contrib import MuonDimensionNumbers

from data_gen import settings
from data_gen.settings import RefusedError
from physlm.matrices import hidden_axes
from physlm.sharding import path_of

# Ends of the paths of what decays: kernels, embeddings, and the factors of their adapters.
_DECAYED = ("kernel", "embedding", "/a", "/b")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The update rule and its schedule.

    Raises:
      RefusedError: a setting has a value that is not allowed.
    """

    name: str = settings.choice(
        "adamw",
        "adamw, or muon: Muon for hidden matrices and AdamW for all else.",
        ("adamw", "muon"),
    )
    learning_rate: float = settings.number(
        2e-3,
        "The peak; one value serves both optimizers, as Muon's updates are scaled to AdamW's size.",
        above=0,
        of_member=True,
    )
    warmup_steps: int = settings.whole(1000, "Steps of linear growth from 0 to the peak.")
    final_fraction: float = settings.number(
        0.01,
        "The decay ends at this fraction of the peak; the paper's value.",
        at_least=0,
        at_most=1,
    )
    decay: str = settings.choice(
        "cosine",
        "How the rate falls from the peak to that fraction: by a cosine, or linearly, as the paper "
        "trains probes.",
        ("cosine", "linear"),
        added=True,
    )
    weight_decay: float = settings.number(
        0.05,
        "Decoupled decay, of kernels and embeddings under adamw and of hidden kernels under muon; "
        "never of biases and normalisation, as in GPT-2's recipe.",
        at_least=0,
    )
    beta1: float = settings.number(0.9, "Decay of Adam's first moment.", at_least=0, below=1)
    beta2: float = settings.number(0.98, "Decay of Adam's second moment.", at_least=0, below=1)
    epsilon: float = settings.number(
        1e-8,
        "Adam's and Muon's guard against division by zero; the value that GPT-2 was trained with.",
        above=0,
    )
    clip_norm: float = settings.number(
        1.0,
        "Largest global norm of a gradient; 0 leaves gradients alone. The paper does not say; 1 "
        "does nothing where they are tame.",
        at_least=0,
    )

    def __post_init__(self) -> None:
        settings.check(self)


def schedule(config: OptimizerConfig, steps: int, peak: float | None = None) -> optax.Schedule:
    """Learning rate by step: linear warm-up, then a decay that ends at step `steps`.

    Args:
      config: the shape; `config.learning_rate` is the default of `peak`.
      steps: of the run.
      peak: the rate after the warm-up.

    Raises:
      RefusedError: the warm-up does not end before the run does.
    """
    if config.warmup_steps >= steps:
        allowed = f"less than train.steps, {steps}"
        raise RefusedError("optimizer.warmup_steps", config.warmup_steps, allowed)
    peak = config.learning_rate if peak is None else peak
    if config.decay == "linear":
        warmup, end = config.warmup_steps, peak * config.final_fraction
        down = optax.linear_schedule(peak, end, steps - warmup)
        if not warmup:
            return down
        return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), down], [warmup])
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=peak,
        warmup_steps=config.warmup_steps,
        decay_steps=steps,
        end_value=peak * config.final_fraction,
    )


def make(
    config: OptimizerConfig, steps: int, peak: float | None = None
) -> optax.GradientTransformation:
    """The optimizer of a run of so many steps; `peak` as in `schedule`.

    Updates are proportional to the learning rate, so that those of peak 1 can be scaled to another.
    """
    learning_rate = schedule(config, steps, peak)
    if config.name == "adamw":
        update = optax.adamw(
            learning_rate,
            b1=config.beta1,
            b2=config.beta2,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
            mask=_decayed,
        )
    else:
        update = optax.contrib.muon(
            learning_rate,
            eps=config.epsilon,
            weight_decay=config.weight_decay,
            adam_b1=config.beta1,
            adam_b2=config.beta2,
            muon_weight_dimension_numbers=_matrices,
            # Scales an update to the root mean square of AdamW's, so that its learning rates do.
            consistent_rms=0.2,
        )
    if config.clip_norm:
        return optax.chain(optax.clip_by_global_norm(config.clip_norm), update)
    return update


def _decayed(params: Any) -> Any:
    # By name and not by rank: biases of fused projections have more than one axis.
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path_of(path).endswith(_DECAYED), params
    )


def _matrices(params: Any) -> Any:
    def numbers(path: tuple[Any, ...], _: jax.Array) -> MuonDimensionNumbers | None:
        axes = hidden_axes(path_of(path))
        return axes and MuonDimensionNumbers(axes.inputs, axes.outputs)

    return jax.tree_util.tree_map_with_path(numbers, params)
