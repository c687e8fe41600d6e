"""Optimizers: AdamW as the paper has it, and Muon for small budgets."""

import dataclasses
from typing import Any

import jax
import optax
from optax.contrib import MuonDimensionNumbers

from physlm.sharding import path_of

_NAMES = ("adamw", "muon")

# Which axes of a hidden kernel are the rows and which the columns of a matrix; axes named in
# neither (layers, experts) hold separate matrices.
_MATRICES = {
    "attention/query/kernel": MuonDimensionNumbers(reduction_axis=1, output_axis=(2, 3)),
    "attention/key/kernel": MuonDimensionNumbers(reduction_axis=1, output_axis=(2, 3)),
    "attention/value/kernel": MuonDimensionNumbers(reduction_axis=1, output_axis=(2, 3)),
    "attention/out/kernel": MuonDimensionNumbers(reduction_axis=(1, 2), output_axis=3),
    "mlp/up/kernel": MuonDimensionNumbers(reduction_axis=1, output_axis=2),
    "mlp/gate/kernel": MuonDimensionNumbers(reduction_axis=1, output_axis=2),
    "mlp/down/kernel": MuonDimensionNumbers(reduction_axis=1, output_axis=2),
    "mixture/up/kernel": MuonDimensionNumbers(reduction_axis=2, output_axis=3),
    "mixture/gate/kernel": MuonDimensionNumbers(reduction_axis=2, output_axis=3),
    "mixture/down/kernel": MuonDimensionNumbers(reduction_axis=2, output_axis=3),
}


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The update rule and its schedule.

    Attributes:
      name: `adamw`, or `muon`: Muon for hidden matrices and AdamW for all else.
      learning_rate: peak; one value serves both, as Muon's updates are scaled to AdamW's size.
      warmup_steps: steps of linear growth from 0 to the peak.
      final_fraction: the cosine ends at this fraction of the peak; the paper's 0.01.
      weight_decay: decoupled decay, of kernels and embeddings under `adamw` and of hidden
        kernels under `muon`; never of biases and normalisation, as in GPT-2's recipe.
      beta1: decay of Adam's first moment.
      beta2: decay of Adam's second moment.
      epsilon: Adam's and Muon's guard against division by zero.
      clip_norm: largest global norm of a gradient; 0 leaves gradients alone.

    Raises:
      ValueError: a field is out of its range.
    """

    name: str = "adamw"
    learning_rate: float = 2e-3
    warmup_steps: int = 1000
    final_fraction: float = 0.01
    weight_decay: float = 0.05
    beta1: float = 0.9
    beta2: float = 0.98
    epsilon: float = 1e-8
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        if self.name not in _NAMES:
            raise ValueError(f"optimizer.name is {self.name!r}; it must be one of {_NAMES}.")
        for name in ("learning_rate", "epsilon"):
            if getattr(self, name) <= 0:
                value = getattr(self, name)
                raise ValueError(f"optimizer.{name} is {value}; it must be above 0.")
        for name in ("warmup_steps", "weight_decay", "clip_norm"):
            if getattr(self, name) < 0:
                value = getattr(self, name)
                raise ValueError(f"optimizer.{name} is {value}; it must not be negative.")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                value = getattr(self, name)
                raise ValueError(f"optimizer.{name} is {value}; it must be in [0, 1).")
        if not 0 <= self.final_fraction <= 1:
            raise ValueError(
                f"optimizer.final_fraction is {self.final_fraction}; it must be in [0, 1]."
            )


def schedule(config: OptimizerConfig, steps: int, peak: float | None = None) -> optax.Schedule:
    """Learning rate by step: linear warm-up, then a cosine that ends at step `steps`.

    Args:
      config: the shape; `config.learning_rate` is the default of `peak`.
      steps: of the run.
      peak: the rate after the warm-up.

    Raises:
      ValueError: the warm-up does not end before the run does.
    """
    if config.warmup_steps >= steps:
        raise ValueError(
            f"optimizer.warmup_steps is {config.warmup_steps}; "
            f"it must be less than train.steps, {steps}."
        )
    peak = config.learning_rate if peak is None else peak
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

    All updates are proportional to the rate: those of peak 1, multiplied, are those of any other.
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
        lambda path, _: path_of(path).endswith(("kernel", "embedding")), params
    )


def _matrices(params: Any) -> Any:
    def numbers(path: tuple[Any, ...], _: jax.Array) -> MuonDimensionNumbers | None:
        name = path_of(path)
        return next((dims for end, dims in _MATRICES.items() if name.endswith(end)), None)

    return jax.tree_util.tree_map_with_path(numbers, params)
