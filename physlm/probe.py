"""Probes of a frozen model's knowledge of a parameter, from its last hidden state (V-probing).

Part 2.1, Section 4, and Part 2.2, Section 3: after a prefix of a solution the name of a parameter
stands in brackets, and a linear head answers a question about it at the closing one, while a
low-rank change of the input embedding lets the model learn what is asked of it.

Names as in `physlm.branches`, and C: answers.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from data_gen import settings
from data_gen.windows.questions import TASKS
from physlm import branches, cache, model
from physlm.adaptation import DOCUMENT, HEAD
from physlm.architecture import ModelConfig
from physlm.model import Params

# By which model a probe reads the text before a question.
ADAPTED, FROZEN = "adapted", "frozen"

Batch = Mapping[str, jax.Array | np.ndarray]


@dataclasses.dataclass(frozen=True)
class ProbeConfig:
    """The questions of a probe; used where adaptation.kind is probe.

    It is asked about solutions with the run's mistakes: error-free ones at mistakes.rate=0.

    Raises:
      RefusedError: a setting has a value that is not allowed.
    """

    task: str = settings.choice(
        "can_next",
        "What is asked about a parameter: "
        + "; ".join(f"{name}, {words}" for name, words in TASKS.items())
        + ".",
        tuple(TASKS),
        added=True,
    )
    questions: int = settings.whole(
        10, "Questions about a problem, the paper's number at most.", low=1, high=200, added=True
    )
    reads: str = settings.choice(
        ADAPTED,
        "By which model texts are read before a question is: the adapted one, as published, or the "
        "frozen one, as it writes them, so that regret:probe need not read them again.",
        (ADAPTED, FROZEN),
        added=True,
    )

    def __post_init__(self) -> None:
        settings.check(self)


def logits(config: ModelConfig, params: Params, batch: Batch) -> jax.Array:
    """Float32 logits [B, Q, C] of the answers.

    Args:
      config: the model.
      params: its parameters, joined with those of the probe (`Adaptation.join`).
      batch: int32 arrays: tokens [B, T], documents; cuts [B, Q], the tokens of the document before
        each question; asked [B, Q, A], questions, padded on the right; ends [B, Q], how many tokens
        a question has.
    """
    tokens_BxT, cuts_BxQ, asked_BxQxA, ends_BxQ = (
        jnp.asarray(batch[name]) for name in ("tokens", "cuts", "asked", "ends")
    )
    document = cache.read(config, model.unrolled(config, for_texts(params)), tokens_BxT)
    stream_BxQxAxD = branches.states(config, for_questions(params), document, cuts_BxQ, asked_BxQxA)
    last_BxQx1x1 = (ends_BxQ - 1)[:, :, None, None]
    h_BxQxD = jnp.take_along_axis(stream_BxQxAxD, last_BxQx1x1, axis=2)[:, :, 0]
    return answered(params, h_BxQxD)


def for_questions(params: Params) -> Params:
    """The parameters of the model that reads a probe's questions, of joined ones."""
    return {name: part for name, part in params.items() if name not in (HEAD, DOCUMENT)}


def for_texts(params: Params) -> Params:
    """The parameters of the model that reads the text before them."""
    return params[DOCUMENT] if DOCUMENT in params else for_questions(params)


def answered(params: Params, h: jax.Array) -> jax.Array:
    """Float32 logits [..., C] of the answers, from normalised last hidden states [..., D]."""
    return h.astype(jnp.float32) @ params[HEAD]["kernel"] + params[HEAD]["bias"]


def objective(
    config: ModelConfig, params: Params, batch: dict[str, jax.Array], sequences: int
) -> tuple[jax.Array, jax.Array]:
    """The loss of a part of a batch of questions, as a `physlm.step.Objective`.

    The batch is as `data_gen.windows.questions.QuestionStream` gives it.
    """
    del sequences
    logits_BxQxC = logits(config, params, batch)
    nll_BxQ = optax.losses.softmax_cross_entropy_with_integer_labels(logits_BxQxC, batch["answers"])
    loss = jnp.sum(nll_BxQ * batch["weights"])
    return loss, loss


class Detector(Protocol):
    """Says whether the parameter just named can be computed next (Part 2.2, Section 3)."""

    def __call__(
        self,
        tokens_BxT: np.ndarray,
        cuts_BxQ: np.ndarray,
        names_BxQxA: np.ndarray,
        ends_BxQ: np.ndarray,
    ) -> np.ndarray:
        """float32 [B, Q]: the probability that it can, at Q places of each text.

        Args:
          tokens_BxT: int32, prompts and what has been written after them, padded on the right.
          cuts_BxQ: int32, how many tokens stand before the sentence that names the parameter; what
            comes after them is not read.
          names_BxQxA: int32, the parameter in brackets (`data_gen.windows.questions.names`).
          ends_BxQ: int32, how many tokens that is.
        """
        ...


@functools.partial(jax.jit, static_argnums=0)
def probabilities(config: ModelConfig, params: Params, batch: Batch) -> jax.Array:
    """Float32 [B, Q, C], the probability of each answer; arguments as those of `logits`."""
    return jax.nn.softmax(logits(config, params, batch), axis=-1)


def detector(config: ModelConfig, params: Params) -> Detector:
    """A trained probe of the task can_next as a detector.

    Args:
      config: the model that was probed.
      params: it and the head, joined (`physlm.adaptation`).
    """

    def detect(
        tokens_BxT: np.ndarray,
        cuts_BxQ: np.ndarray,
        names_BxQxA: np.ndarray,
        ends_BxQ: np.ndarray,
    ) -> np.ndarray:
        asked = {"tokens": tokens_BxT, "cuts": cuts_BxQ, "asked": names_BxQxA, "ends": ends_BxQ}
        return np.asarray(probabilities(config, params, asked)[..., 1])

    return detect
