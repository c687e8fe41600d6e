"""Greedy decoding, and sampling with temperature, top-k, top-p and min-p."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_gen import keys, settings
from data_gen.spec import Spec
from physlm.architecture import ModelConfig
from physlm.decoding import selection, threefry
from physlm.decoding.strategy import Choice, Each, Rows

# How one of several solutions of a problem is chosen (`physlm.decoding.selection`).
PICKS = ("vote", "weighted", "likeliest")
DETECTORS = ("probe", "perfect")


@dataclasses.dataclass(frozen=True)
class Greedy(Each):
    """Greedy decoding: always the likeliest token."""

    def choose(self, rows: Rows, own: Any, logits_BxV: jax.Array, stop: int, most: int) -> Choice:
        """The first of the likeliest tokens."""
        del rows, stop, most
        return Choice(jnp.argmax(logits_BxV, axis=-1).astype(jnp.int32), own)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawing(Each):
    """The rules of sampling, applied one after the other in the order of Hugging Face's.

    Raises:
      RefusedError: a rule has a value that is not allowed.
    """

    # The bound keeps logits divided by it, and their sums over a beam, well inside float32.
    temperature: float = settings.number(1.0, "By which logits are divided.", at_least=0.001)
    top_k: int = settings.whole(0, "How many of the likeliest tokens are left; 0 for all.")
    top_p: float = settings.number(
        1.0,
        "The likeliest tokens are left whose probabilities together first reach it.",
        above=0,
        at_most=1,
    )
    min_p: float = settings.number(
        0.0,
        "Tokens are left whose probability is this share of the largest at least.",
        at_least=0,
        at_most=1,
    )

    def __post_init__(self) -> None:
        settings.check(self)

    @property
    def plain(self) -> bool:
        """Whether all rules have their defaults, which change nothing."""
        rules = settings.of(Drawing)
        return all(getattr(self, name) == known.default for name, known in rules.items())

    def warped(self, logits_BxV: jax.Array) -> jax.Array:
        """The logits after all rules; -inf for tokens that are excluded."""
        x_BxV = logits_BxV / self.temperature
        if self.top_k:
            least_Bx1 = largest(x_BxV, min(self.top_k, x_BxV.shape[-1]))[0][:, -1:]
            x_BxV = jnp.where(x_BxV < least_Bx1, -jnp.inf, x_BxV)
        if self.top_p < 1:
            sorted_BxV = jnp.sort(x_BxV, axis=-1)
            upto_BxV = jnp.cumsum(jax.nn.softmax(sorted_BxV), axis=-1)
            # The likeliest one stays, whatever the sum.
            gone_B = (upto_BxV <= 1 - self.top_p)[:, :-1].sum(-1)
            least_Bx1 = jnp.take_along_axis(sorted_BxV, gone_B[:, None], axis=-1)
            x_BxV = jnp.where(x_BxV < least_Bx1, -jnp.inf, x_BxV)
        if self.min_p:
            share_BxV = jax.nn.softmax(x_BxV)
            least_Bx1 = self.min_p * share_BxV.max(-1, keepdims=True)
            x_BxV = jnp.where(share_BxV < least_Bx1, -jnp.inf, x_BxV)
        return x_BxV


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample(Drawing):
    """Sampling of `n` solutions, of which one is selected.

    Raises:
      RefusedError: a setting has a value that is not allowed.
    """

    FIRST = BUDGET = "n"

    n: int = settings.whole(1, "Solutions of each problem.", low=1, high=1024)
    pick: str = settings.choice(
        "vote",
        "Which of several solutions counts: the likeliest of those with the answer that most have "
        "(vote), or whose solutions a detector trusts most (weighted), or the likeliest of all.",
        PICKS,
    )
    detector: str = settings.choice("probe", "Whom pick=weighted asks.", DETECTORS)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n == 1 and self.pick != "vote":
            raise settings.RefusedError("pick", self.pick, "left out where n is 1")
        if self.pick != "weighted" and self.detector != "probe":
            allowed = "left out where pick is not weighted"
            raise settings.RefusedError("detector", self.detector, allowed)

    @property
    def samples(self) -> int:
        """The number of solutions, `n`."""
        return self.n

    @property
    def asks(self) -> str:
        """The detector's name, where it weights the votes; else ""."""
        return self.detector if self.n > 1 and self.pick == "weighted" else ""

    def select(
        self, answers: Sequence[str | None], score_S: np.ndarray, trust_S: np.ndarray | None
    ) -> int:
        """The solution that is selected by `pick`."""
        return selection.chosen(self.pick, answers, score_S, trust_S)

    def bound(self, spec: Spec, model: ModelConfig) -> "Sample":
        """The drawing alone, without `pick` and `detector`.

        Which solution counts is decided after decoding, so that all ways to decide share one
        program.
        """
        del spec, model
        return dataclasses.replace(self, pick="vote", detector="probe")

    def choose(self, rows: Rows, own: Any, logits_BxV: jax.Array, stop: int, most: int) -> Choice:
        """Samples the next tokens after the rules."""
        del stop, most
        return Choice(drawn(rows, self.warped(logits_BxV)), own)


def largest(x: jax.Array, count: int) -> tuple[jax.Array, jax.Array]:
    """`jax.lax.top_k`: the largest numbers along the last axis, in order, and their indices.

    XLA for CPUs has a fast program for it, which it does not recognize where some of the result is
    sliced off afterwards: then it sorts all numbers. The barrier keeps the slices apart.
    """
    return jax.lax.optimization_barrier(jax.lax.top_k(x, count))


def drawn(rows: Rows, logits_BxV: jax.Array) -> jax.Array:
    """A token for each row, sampled by its key and its number of generated tokens.

    It is the one that `jax.random.categorical` draws.
    """
    noise_BxV = gumbel(rows.key_B, rows.tokens_B, logits_BxV.shape[1:])
    # XLA for CPUs computes noise one number after the other where it looks for the largest as well.
    _, first_Bx1 = largest(noise_BxV + logits_BxV, 1)
    return first_Bx1[:, 0].astype(jnp.int32)


def gumbel(key_B: jax.Array, number_B: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Gumbel variables [B, *shape] in float32 by child `number_B[b]` of each key."""
    child_B = jax.vmap(keys.numbered)(threefry.written_out(key_B), number_B)
    return jax.vmap(lambda key: jax.random.gumbel(key, shape, jnp.float32))(child_B)
