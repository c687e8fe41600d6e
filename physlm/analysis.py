"""A trained model as NumPy arrays: logits, hidden states and attention, aligned with the problem.

    import physlm
    run = physlm.load("runs/models/RUN")
    texts = run.texts(16)
    read = run.read(texts.tokens_NxT, attention=True)

Names: N texts, T tokens, L layers, M = L + 1 places of the residual stream, D its width, H heads, V
vocabulary, P slots of parameters, X moments of a solution, Q questions, A tokens of a question.
"""

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from data_gen import device, keys
from data_gen.problems.parameters import parameters
from data_gen.problems.problem import Problem
from data_gen.solutions.document import Document
from data_gen.solutions.labels import Labels, TokenLabels, labels, token_labels
from data_gen.solutions.mistakes import Mistakes
from data_gen.spec import Spec
from data_gen.text import records
from data_gen.windows import questions, stream
from data_gen.windows.tokenizer import tokenizer
from physlm import cells, devices, model, paths, probe
from physlm.attention import attention as attended
from physlm.block import Reading
from physlm.canon import with_zeros
from physlm.experiments import run as run_lib
from physlm.experiments import weights
from physlm.experiments.run import Run
from physlm.model import Params

_ALONE = [f"mesh.{axis}=1" for axis in ("cpu_devices", "data", "fsdp", "sequence", "tensor")]


class Texts(NamedTuple):
    """Problems with solutions, and labels of every token and parameter, as NumPy arrays."""

    tokens_NxT: np.ndarray  # int32, padded on the right with the end marker
    length_N: np.ndarray  # int32: tokens of each text
    prompt_N: np.ndarray  # int32: of them, up to where the solution begins
    tokens: TokenLabels  # of each token, [N, T]: step, moment, parameter, kind
    labels: Labels  # of each parameter, leading axis N: known_NxXxP, can_next_NxXxP, …
    names: list[list[str]]  # of each parameter, "" where the problem has none
    asked_NxPxA: np.ndarray  # int32: each parameter in brackets, as probes are asked about it
    asked_NxP: np.ndarray  # int32: how many tokens that is
    records: list[dict[str, Any]]  # as `python -m data_gen sample` prints them


class Read(NamedTuple):
    """Logits, hidden states and attention maps of a model on some texts, in float32."""

    logits_NxTxV: np.ndarray
    # The stream before each block and after the last one, and what the head reads: normalised.
    hidden_MxNxTxD: np.ndarray
    last_NxTxD: np.ndarray
    attention_LxNxHxTxT: np.ndarray | None  # where it was asked for


@dataclasses.dataclass(frozen=True)
class Loaded:
    """The model of a run, ready for analysis.

    Attributes:
      run: whose model it is, with all settings.
      params: its parameters as NumPy arrays; a low-rank adapter is joined with its parent's. A
        probe's head is under `probe`.
    """

    run: Run
    params: Params

    @property
    def spec(self) -> Spec:
        """The class of problems that the run is tested on."""
        return cells.test_spec(self.run.settings.data, self.run.settings.evaluate)

    def texts(
        self,
        count: int,
        *,
        seed: int = 0,
        op: int | None = None,
        mistakes: Mistakes | None = None,
    ) -> Texts:
        """Problems of templates that training held out, with right solutions.

        Args:
          count: N.
          seed: of the problems; number n is the same whatever the count.
          op: operations of each; without it up to `data.max_op`.
          mistakes: in the solutions; by default those of the run's training.

        Raises:
          ValueError: `count` is below 1, or a problem is not found or does not fit the window.
        """
        settings = self.run.settings
        if count < 1:
            raise ValueError(f"count is {count}; it must be at least 1.")
        mistakes = settings.mistakes if mistakes is None else mistakes
        most = settings.data.max_op
        spec = dataclasses.replace(self.spec, op=op, max_op=max(most, op or 0))
        size = settings.model.window
        with jax.default_device(device.of_data(settings.mesh.input)):
            keys_N = jax.vmap(functools.partial(keys.problem_key, seed))(jnp.arange(count))
            problems = stream.problems(keys_N, spec=spec)
            found = _aligned(keys_N, problems, size=size, spec=spec, mistakes=mistakes)
        document, symbols, of_tokens, of_slots, asked_NxPxA, asked_NxP, exists_NxP = jax.tree.map(
            np.asarray, found
        )
        problems = jax.tree.map(np.asarray, problems)
        unfit = np.flatnonzero(~problems.ok | (document.length > size))
        if len(unfit):
            raise ValueError(
                f"problem {unfit[0]} of seed {seed} does not fit the window, {size} tokens, or is "
                "not found; another seed or fewer operations (op) would do."
            )
        table = tokenizer(spec)
        names = [
            [
                table.decode(asked_A[1 : n - 1]).strip() if there else ""
                for asked_A, n, there in zip(asked_PxA, asked_P, exists_P, strict=True)
            ]
            for asked_PxA, asked_P, exists_P in zip(asked_NxPxA, asked_NxP, exists_NxP, strict=True)
        ]
        return Texts(
            document.tokens_N,
            document.length,
            document.prompt,
            of_tokens,
            of_slots,
            names,
            asked_NxPxA,
            asked_NxP,
            records.records(problems, symbols, spec),
        )

    def read(
        self, tokens_NxT: np.ndarray | Sequence[Sequence[int]], *, attention: bool = False
    ) -> Read:
        """Runs the model on texts, causally.

        Args:
          tokens_NxT: int token ids, padded on the right with any.
          attention: whether to return what each position attends to, [L, N, H, T, T].

        Raises:
          ValueError: an id is none of the vocabulary's.
        """
        config = self.run.settings.model
        lengths = {np.shape(tokens_T) for tokens_T in tokens_NxT}
        if len(lengths) > 1:
            raise ValueError("tokens are texts of different lengths; pad them on the right.")
        tokens_NxT = np.asarray(tokens_NxT, np.int32)
        if tokens_NxT.ndim != 2 or not tokens_NxT.size:
            raise ValueError(f"tokens have the shape {tokens_NxT.shape}; it must be [N, T].")
        if tokens_NxT.min() < 0 or tokens_NxT.max() >= config.vocab:
            raise ValueError(
                f"tokens are in {tokens_NxT.min()}..{tokens_NxT.max()}; they must be in "
                f"0..{config.vocab - 1}."
            )
        params = probe.for_texts(self.params)
        return Read(*jax.device_get(_read(config, params, tokens_NxT, attention)))

    def decode(self, tokens_T: np.ndarray | Sequence[int]) -> str:
        """The text of token ids."""
        return tokenizer(self.run.settings.data).decode(tokens_T)


def load(directory: str | os.PathLike[str], step: str | int = "final") -> Loaded:
    """Reads a run's model, on one device.

    Args:
      directory: of the run, `DIR/models/<run>` of a store.
      step: final, best or a step.

    Raises:
      ValueError: there is no such run or checkpoint.
    """
    path = paths.path(directory)
    run = run_lib.load(path, [*_ALONE, "mesh.population=1"])
    devices.prepare(run.settings.mesh, 1)
    params, _ = weights.joined(run, path, weights.restored(run, path, str(step), "step"))
    return Loaded(run, jax.device_get(params))


@functools.partial(jax.jit, static_argnames=("size", "spec", "mistakes"))
def _aligned(
    keys_N: jax.Array, problems_N: Problem, *, size: int, spec: Spec, mistakes: Mistakes
) -> tuple[Document, Document, TokenLabels, Labels, jax.Array, jax.Array, jax.Array]:
    """Texts in tokens and in symbols, their labels, and parameters in brackets."""
    table = tokenizer(spec)

    def one(key: jax.Array, problem: Problem) -> Any:
        symbols, script = stream.scripted(
            key,
            problem,
            sentences=mistakes.sentence_cap(spec),
            size=table.symbols(size),
            spec=spec,
            mistakes=mistakes,
        )
        document = stream.encoded(jax.tree.map(lambda x: x[None], symbols), size=size, spec=spec)
        document = jax.tree.map(lambda x: x[0], document)
        exists_P = parameters(problem, spec).exists_P
        aligned = token_labels(document, script, problem)
        named = questions.names(problem, spec)
        return document, symbols, aligned, labels(problem, spec), *named, exists_P

    return jax.vmap(one)(keys_N, problems_N)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _read(config: Any, params: Params, tokens_NxT: jax.Array, attention: bool) -> Any:
    """The fields of `Read`."""
    place_T = jnp.arange(tokens_NxT.shape[1])
    visible_TxT = place_T <= place_T[:, None]

    def attend(layer: Any, q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, Any]:
        del layer
        kept = None
        if attention:
            # Values that tell keys apart: what is read is then how much of each.
            eye = jnp.eye(k.shape[2], dtype=jnp.float32)
            kept = attended(
                q.astype(jnp.float32),
                k.astype(jnp.float32),
                jnp.broadcast_to(eye, (*k.shape[:2], *eye.shape)),
                visible_TxT,
            )
        return attended(q, k, v, visible_TxT), kept

    def behind(layer: Any, name: str, x: jax.Array, place: P) -> tuple[jax.Array, None]:
        del layer, name, place
        return with_zeros(x, config.canon_width - 1), None

    frame, states, _, memories = model.streams(
        config, params, tokens_NxT, place_T, Reading(attend, behind)
    )
    maps = jnp.stack([memory.attention for memory in memories]) if attention else None
    hidden = jnp.stack(states).astype(jnp.float32)
    last = frame.norm(states[-1]).astype(jnp.float32)
    return frame.logits(states[-1]), hidden, last, maps
