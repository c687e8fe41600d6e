"""What is trained of a model: all of it, low-rank adapters of some matrices (LoRA), or a probe.

An adaptation parts a model into what is trained and what is frozen (`split`) and makes it one again
(`join`). Gradients, the optimizer's memory and checkpoints are those of the trained part alone.
Whoever runs a model runs the joined one, and need not know how it was trained.

LoRA (arXiv 2106.09685) adds to a matrix W the product of two factors of small rank,
W + (α / r) A B. Here the sum is formed before the model runs. That gives the gradients that
adapters beside each product would give, serves every matrix, embedding and experts included, and
costs, for each of a step's batches, as much as a few tokens.

Names: R the rank of an adapter; I inputs and O outputs of a matrix, each one axis or more.
"""

import dataclasses
import math
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from data_gen import keys, settings
from data_gen.keys import Purpose, Stage
from data_gen.settings import RefusedError
from physlm import model as model_lib
from physlm.architecture import ModelConfig
from physlm.matrices import Axes, axes_of
from physlm.sharding import manual_size, spec_of

Params = model_lib.Params

# Where joined parameters keep the head of a probe, and the model that reads what it is asked about,
# where that is not the one which reads its questions.
HEAD, DOCUMENT = "probe", "document"

FULL, LORA, PROBE = "full", "lora", "probe"

# Part 2.2's: queries and values, and with twice the rank the embedding.
PUBLISHED = "attention/(query|value)/kernel,embed/embedding:2"


@dataclasses.dataclass(frozen=True)
class AdaptationConfig:
    """Which parameters are trained, and the ranks of adapters.

    Raises:
      RefusedError: a setting has a value that is not allowed.
    """

    kind: str = settings.choice(
        FULL,
        "What is trained: the full model; lora, low-rank changes of some of its matrices; or a "
        "probe, such changes and a linear head that answers probe.task. The rest is frozen.",
        (FULL, LORA, PROBE),
        added=True,
    )
    on: str = settings.text(
        PUBLISHED,
        "Which matrices have an adapter: expressions (regular ones) that the ends of their paths "
        "match, with commas between them, each followed by a colon and a factor where its rank is "
        "to be a multiple of adaptation.rank. Empty for none.",
        "expressions for paths of matrices, as attention/(query|value)/kernel,embed/embedding:2",
        added=True,
    )
    rank: int = settings.whole(
        8, "Rank of an adapter; the paper tries 4 to 256.", low=1, added=True
    )
    alpha: float = settings.number(
        0.0,
        "Adapters are scaled by alpha over their rank; 0 is the rank itself, so that nothing is "
        "scaled. The paper does not say.",
        at_least=0,
        added=True,
    )
    dropout: float = settings.number(
        0.0,
        "Share of the inputs of every adapter that a training step leaves out, the same for all "
        "its tokens (as in arXiv 2404.09610).",
        at_least=0,
        below=1,
        added=True,
    )
    init: str = settings.choice(
        "uniform",
        "What the first factor is drawn from: uniform within one over the root of its inputs, or "
        "normal with a deviation of one over the rank, as PEFT's gaussian. The second is zero. Of "
        "an embedding the first is zero and the second standard normal, as PEFT has it.",
        ("uniform", "normal"),
        added=True,
    )

    def __post_init__(self) -> None:
        settings.check(self)
        self.ranks()

    def ranks(self) -> dict[str, int]:
        """The rank by expression.

        Raises:
          RefusedError: an expression cannot be read.
        """
        found = {}
        for part in filter(None, self.on.split(",")):
            pattern, colon, factor = part.partition(":")
            try:
                re.compile(pattern)
                found[pattern] = self.rank * (int(factor) if colon else 1)
            except (re.error, ValueError):
                allowed = "expressions with commas between them, each with :FACTOR or without"
                raise RefusedError("on", self.on, allowed) from None
            if found[pattern] < 1:
                raise RefusedError("on", self.on, "with factors of at least 1")
        return found


class Place(NamedTuple):
    """A matrix that has an adapter."""

    shape: tuple[int, ...]
    axes: Axes
    rank: int

    @property
    def batch(self) -> tuple[int, ...]:
        """Sizes of the axes that hold separate matrices."""
        return self.shape[: min(self.axes.inputs)]

    @property
    def inputs(self) -> tuple[int, ...]:
        """Sizes of its inputs."""
        return tuple(self.shape[axis] for axis in self.axes.inputs)

    @property
    def outputs(self) -> tuple[int, ...]:
        """Sizes of its outputs."""
        return tuple(self.shape[axis] for axis in self.axes.outputs)


@dataclasses.dataclass(frozen=True)
class Adaptation:
    """Splits a model into trained and frozen parameters, and joins them again; hashable.

    Attributes:
      config: what is trained.
      answers: of a probe, how many answers its head tells apart.
      apart: whether a probe has texts read by the frozen model, and its questions alone by the
        adapted one (`ProbeConfig.reads`).
    """

    config: AdaptationConfig = AdaptationConfig()
    answers: int = 0
    apart: bool = False

    @property
    def full(self) -> bool:
        """Whether all of the model is trained."""
        return self.config.kind == FULL

    def places(self, params: Params) -> dict[str, Place]:
        """The matrices that have an adapter, by their paths.

        Args:
          params: of a model, or their shapes.

        Raises:
          RefusedError: an expression matches none, or a matrix is smaller than its rank.
        """
        if self.full:
            return {}
        shapes = {path: leaf.shape for path, leaf in flatten_dict(params, sep="/").items()}
        known = {path: axes for path in shapes if (axes := axes_of(path))}
        found: dict[str, Place] = {}
        for pattern, rank in self.config.ranks().items():
            matched = [path for path in known if re.search(rf"(^|/)({pattern})$", path)]
            if not matched:
                raise RefusedError(
                    "adaptation.on",
                    self.config.on,
                    f"expressions that match matrices, and {pattern!r} matches none: there are "
                    f"{', '.join(sorted(known))}",
                )
            for path in matched:
                found[path] = place = Place(shapes[path], known[path], rank)
                most = min(math.prod(place.inputs), math.prod(place.outputs))
                if rank > most:
                    allowed = (
                        "such that no rank is above that of its matrix, by the factors of "
                        f"adaptation.on too; {path} has {most} and would be given {rank}"
                    )
                    raise RefusedError("adaptation.rank", self.config.rank, allowed)
        return found

    def split(self, params: Params, model: ModelConfig, key: jax.Array) -> tuple[Params, Params]:
        """The trained parameters at their initial values, and the frozen ones.

        Joined they are `params`, to the bit, beside the head of a probe.

        Args:
          params: the model that is adapted.
          model: its configuration.
          key: of the parameters of a run; what is new is drawn from it.
        """
        if self.full:
            return params, {}
        key = keys.named(key, Stage.ADAPTERS)
        factors: dict[str, jax.Array] = {}
        for number, (path, place) in enumerate(sorted(self.places(params).items())):
            drawn = keys.numbered(key, number)
            shape_a = (*place.batch, *place.inputs, place.rank)
            shape_b = (*place.batch, place.rank, *place.outputs)
            if path.endswith("embedding"):
                a, b = jnp.zeros(shape_a), jax.random.normal(drawn, shape_b)
            else:
                a, b = self._drawn(drawn, shape_a, math.prod(place.inputs)), jnp.zeros(shape_b)
            factors |= {f"{path}/a": a, f"{path}/b": b}
        trained: Params = {"lora": unflatten_dict(factors, sep="/")}
        if self.config.kind == PROBE:
            drawn = keys.numbered(key, len(factors))
            kernel = model.init_std * jax.random.normal(drawn, (model.width, self.answers))
            trained[HEAD] = {"kernel": kernel, "bias": jnp.zeros(self.answers)}
        return trained, params

    def _drawn(self, key: jax.Array, shape: tuple[int, ...], inputs: int) -> jax.Array:
        if self.config.init == "normal":
            return jax.random.normal(key, shape) / shape[-1]
        most = inputs**-0.5
        return jax.random.uniform(key, shape, minval=-most, maxval=most)

    def join(self, trained: Params, frozen: Params, key: jax.Array | None = None) -> Params:
        """The parameters of the model as it is run.

        Those of a probe have its head under `probe` and, where they are kept `apart`, the frozen
        model under `document`.

        Args:
          trained: what is trained.
          frozen: what is not.
          key: for dropout of adapters, of a training step; None drops nothing.
        """
        if self.full:
            return trained
        factors = flatten_dict(trained["lora"], sep="/")
        joined = flatten_dict(frozen, sep="/")
        for number, path in enumerate(sorted({path[:-2] for path in factors})):
            a, b = factors[f"{path}/a"], factors[f"{path}/b"]
            axes = axes_of(path)
            assert axes is not None
            if key is not None and self.config.dropout:
                a = self._dropped(a, path, keys.numbered(key, number))
            joined[path] = joined[path] + self._product(a, b, joined[path].shape, axes)
        return {
            **unflatten_dict(joined, sep="/"),
            **{name: part for name, part in trained.items() if name != "lora"},
            **({DOCUMENT: frozen} if self.apart else {}),
        }

    def _product(self, a: jax.Array, b: jax.Array, shape: tuple[int, ...], axes: Axes) -> jax.Array:
        rank, batch = a.shape[-1], shape[: min(axes.inputs)]
        scale = (self.config.alpha or rank) / rank
        # The sizes are those of this device's part.
        product = a.reshape(*batch, -1, rank) @ b.reshape(*batch, rank, -1)
        return scale * product.reshape(shape)

    def _dropped(self, a: jax.Array, path: str, key: jax.Array) -> jax.Array:
        shape, spec = [*a.shape[:-1], 1], tuple(spec_of(f"lora/{path}/a"))
        parts = manual_size("fsdp") if "fsdp" in spec else 1
        axis = spec.index("fsdp") if parts > 1 else 0
        # Drawn for the whole matrix, so that it does not depend on how that is divided.
        shape[axis] *= parts
        kept = jax.random.bernoulli(key, 1 - self.config.dropout, shape)
        if parts > 1:
            size = a.shape[axis]
            first = jax.lax.axis_index("fsdp") * size
            kept = jax.lax.dynamic_slice_in_dim(kept, first, size, axis)
        return jnp.where(kept, a / (1 - self.config.dropout), 0)


WHOLE = Adaptation()


def step_keys(seed: int, step: int, rows: int) -> jax.Array:
    """The key of a step's dropout of adapters, as uint32 key data [rows, 2], the same in each row.

    Rows are those of a batch, whose parts each device is given.
    """
    key = keys.numbered(keys.root(seed, Purpose.ADAPTER_DROPOUT), step)
    return jnp.broadcast_to(jax.random.key_data(key), (rows, 2))


def counted(trained: Params, frozen: Params) -> str:
    """The number of trained and of all parameters, in words."""
    count, total = (sum(leaf.size for leaf in jax.tree.leaves(p)) for p in (trained, frozen))
    adapters = len(jax.tree.leaves(trained["lora"])) // 2
    head = " and a head" if HEAD in trained else ""
    return (
        f"{count:,} parameters in {adapters} adapters{head}, {count / total:.2%} of the {total:,} "
        "of the model, which are frozen"
    )
