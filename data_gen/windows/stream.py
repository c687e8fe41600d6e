"""Training streams: window n is a function of (seed, n) and the settings alone."""

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from data_gen import keys, settings
from data_gen.keys import Purpose, Stage
from data_gen.problems.problem import Problem
from data_gen.problems.search import sample_many
from data_gen.problems.structure import Goal
from data_gen.settings import RefusedError
from data_gen.solutions import render
from data_gen.solutions.document import (
    OUTSIDE,
    PROBLEM,
    WRONG_MARKER,
    WRONG_NAME,
    WRONG_WORDS,
    Document,
)
from data_gen.solutions.mistakes import Mistakes
from data_gen.solutions.script import Script, draw_script
from data_gen.solutions.steps import right_steps
from data_gen.spec import Spec
from data_gen.windows import packing, recorded
from data_gen.windows.blocks import Blocks
from data_gen.windows.configuration import Windows
from data_gen.windows.recorded import Records
from data_gen.windows.table import encode
from data_gen.windows.tokenizer import tokenizer

# Windows that are packed from one run of documents. More of them waste fewer documents at
# the run's end; fewer let a host make its rows without making its neighbours'.
SEGMENT = 16
# Windows of a stream that can be told apart: segments have numbers below 2**31.
WINDOW_LIMIT = SEGMENT << 31
# Documents made at once for each segment, and windows made at once for the whole batch.
CHUNK = 16
BLOCK_WINDOWS = 512
# Chunks after which a segment that is still not full is given up.
CHUNK_LIMIT = 1000
# Solutions of so many operations are long enough for room to matter, and of the documents written
# at once that share is written again at once.
_LONG = 12
_AGAIN = 16
# Windows that are looked at to say how many problems one holds.
_COUNTED = 1024


@functools.partial(jax.jit, static_argnames="spec")
def problems(keys_N: jax.Array, goals_N: Goal | None = None, *, spec: Spec) -> Problem:
    """`sample_many`, compiled once for all that is written from the same class."""
    return sample_many(keys_N, spec, goals_N)


def scripted(
    key: jax.Array,
    problem: Problem,
    *,
    sentences: int,
    size: int,
    spec: Spec,
    mistakes: Mistakes,
) -> tuple[Document, Script]:
    """Writes one problem, and returns its script too; `vmap` for more.

    Args:
      key: of the problem.
      problem: what is written.
      sentences: room for so many of the solution.
      size: room for symbols; the length of a document whose mistakes found no room, or of none, is
        size + 1.
      spec: the class.
      mistakes: which ones its solution holds.
    """
    right = right_steps(problem, mistakes, spec)
    # Mistakes have a key of their own, so that a problem is the same at every rate.
    key = keys.named(key, Stage.MISTAKES)
    script = draw_script(key, problem, right, mistakes, spec, sentences)
    document = render.document(problem, script, right, size, spec, mistakes)
    fits = script.complete & problem.ok
    return document._replace(length=jnp.where(fits, document.length, size + 1)), script


def documents(
    keys_N: jax.Array, problems_N: Problem, *, size: int, spec: Spec, mistakes: Mistakes
) -> Document:
    """Writes N problems (leading axis N) in symbols of the vocabulary, with room for `size` each.

    The length of a document whose mistakes found no room is reported as size + 1.
    """

    def write(sentences: int, key: jax.Array, problem: Problem) -> Document:
        made = functools.partial(scripted, size=size, spec=spec, mistakes=mistakes)
        return made(key, problem, sentences=sentences)[0]

    count, most = keys_N.shape[0], mistakes.sentence_cap(spec)
    no_room = size + 1
    write_all = jax.vmap(functools.partial(write, most))
    if spec.op_room < _LONG or most <= 2 * mistakes.usual_sentences(spec):
        return write_all(keys_N, problems_N)

    # Room for the longest solutions is room that nearly all leave empty. What does not fit into
    # less of it is written again, some at a time.
    first = functools.partial(write, mistakes.usual_sentences(spec))
    some = max(1, count // _AGAIN)

    def again(carry: tuple[jax.Array, Document]) -> tuple[jax.Array, Document]:
        todo_N, found_N = carry
        (at_A,) = jnp.nonzero(todo_N, size=some, fill_value=count)
        safe_A = jnp.minimum(at_A, count - 1)
        made_A = write_all(*jax.tree.map(lambda x_N: x_N[safe_A], (keys_N, problems_N)))
        found_N = jax.tree.map(lambda x_N, x_A: x_N.at[at_A].set(x_A, mode="drop"), found_N, made_A)
        return todo_N.at[at_A].set(False, mode="drop"), found_N

    found_N = jax.vmap(first)(keys_N, problems_N)
    start = (found_N.length == no_room, found_N)
    return jax.lax.while_loop(lambda carry: carry[0].any(), again, start)[1]


def encoded(documents_N: Document, *, size: int, spec: Spec) -> Document:
    """The same documents in tokens, with room for `size` each; longer ones say so by length."""
    return jax.vmap(functools.partial(encode, table=tokenizer(spec), size=size))(documents_N)


def token_weights(role_N: jax.Array, mistakes: Mistakes, loss_on: str) -> jax.Array:
    """float32: 1 for each token that bears loss, 0 for the others."""
    masked = {
        "none": (),
        "name": (WRONG_NAME,),
        "sentence": (WRONG_NAME, WRONG_WORDS),
        "all": (WRONG_NAME, WRONG_WORDS, WRONG_MARKER),
    }[mistakes.mask]
    unused = (OUTSIDE, *masked, *((PROBLEM,) if loss_on == "solution" else ()))
    return 1.0 - (role_N[..., None] == np.array(unused)).any(-1).astype(jnp.float32)


@functools.partial(
    jax.jit, static_argnames=("spec", "mistakes", "loss_on", "whole"), donate_argnums=0
)
def _lay(
    packed_Q: packing.Packed,
    keys_QxD: jax.Array,
    problems_N: Problem,
    *,
    spec: Spec,
    mistakes: Mistakes,
    loss_on: str,
    whole: bool,
    records: Records | None = None,
) -> tuple[packing.Packed, jax.Array]:
    """Writes D problems for each of Q segments and packs them; also the share that is too long."""
    size = packed_Q.tokens_KxS.shape[-1]
    room = tokenizer(spec).symbols(size)
    keys_N = keys_QxD.reshape(-1)
    written = documents(keys_N, problems_N, size=room, spec=spec, mistakes=mistakes)
    written = encoded(written, size=size, spec=spec)
    if records is not None:
        written = recorded.mixed(written, keys_N, records)
    weights = token_weights(written.role_N, mistakes, loss_on)
    parts = (
        x.reshape(*keys_QxD.shape, *x.shape[1:])
        for x in (written.tokens_N, weights, written.length)
    )
    lay = functools.partial(packing.extend, whole=whole)
    return jax.vmap(lay)(packed_Q, *parts), (written.length > size).mean()


@jax.jit
def _chunk_keys(root: jax.Array, numbers_Q: jax.Array, turn: jax.Array) -> jax.Array:
    place_D = turn * CHUNK + jnp.arange(CHUNK)
    keys_Q = keys.all_numbered(root, numbers_Q)
    return jax.vmap(lambda key: keys.all_numbered(key, place_D))(keys_Q)


def segments(
    root: jax.Array,
    numbers_Q: np.ndarray,
    *,
    spec: Spec,
    mistakes: Mistakes,
    windows: Windows,
    records: Records | None = None,
    drawn: Callable[[Problem], None] | None = None,
) -> packing.Packed:
    """Segments `numbers_Q` of the stream (leading axis Q), SEGMENT windows of W + 1 each.

    Args:
      root: the key of the stream.
      numbers_Q: which segments.
      spec: the class of problems.
      mistakes: which ones their solutions hold.
      windows: how documents are laid into windows.
      records: what stands in the place of some documents; None where all are of fresh problems.
      drawn: takes the problems, CHUNK of each segment after those of the segment before it, as
        often as more are drawn. The last ones of a segment may not have found room in it.

    Raises:
      RefusedError: documents hardly ever fit a window.
    """
    blank = packing.empty(SEGMENT, windows.window + 1, tokenizer(spec).end)
    packed = jax.tree.map(lambda x: jnp.repeat(x[None], len(numbers_Q), 0), blank)
    # What a window is laid out by and nothing else, so that equal programs are compiled once.
    lay = functools.partial(
        _lay,
        spec=spec,
        mistakes=mistakes,
        loss_on=windows.loss_on,
        whole=windows.pack == "whole",
        records=records,
    )
    for turn in range(CHUNK_LIMIT):
        keys_QxD = _chunk_keys(root, numbers_Q, turn)
        made = problems(keys_QxD.reshape(-1), spec=spec)
        if drawn is not None:
            drawn(made)
        packed, dropped = lay(packed, keys_QxD, made)
        if (np.asarray(packed.window) == SEGMENT).all():
            return packed
    allowed = f"longer: {float(dropped):.0%} of this class's documents do not fit"
    raise RefusedError("window", windows.window, allowed)


def problems_a_window(spec: Spec, mistakes: Mistakes, windows: Windows, *, seed: int) -> float:
    """Problems that a training window holds on average, cut ones included.

    Counted on the first windows of the seed's stream, a thousand of them.
    """
    root, first, found = keys.root(seed, Purpose.TRAINING), tokenizer(spec).problem, 0
    # As many at once as a stream makes, so that nothing is compiled for this alone.
    for numbers_Q in np.arange(_COUNTED // SEGMENT, dtype=np.int32).reshape(
        -1, BLOCK_WINDOWS // SEGMENT
    ):
        packed = segments(root, numbers_Q, spec=spec, mistakes=mistakes, windows=windows)
        found += int((packed.tokens_KxS == first).sum())
    return found / _COUNTED


class Stream:
    """Batches of packed windows; batch `step` holds windows step * batch, … of the stream.

    Batches are made in blocks on a thread of the stream's own, one block ahead of what is
    asked for. Any order of steps may be asked for; going forward is what is fast.

    A host that needs some rows of every batch makes no more than the segments, SEGMENT windows
    each, that hold such rows. Only whole segments can be made: where rows do not begin and end
    with segments, the rest of theirs is made as well and dropped.
    """

    def __init__(
        self,
        spec: Spec,
        mistakes: Mistakes,
        windows: Windows,
        *,
        seed: int,
        batch: int,
        rows: Sequence[int] | np.ndarray | None = None,
        records: Records | None = None,
        device: jax.Device | None = None,
    ) -> None:
        """Prepares a stream; nothing is compiled before the first batch.

        Args:
          spec: the class of problems.
          mistakes: which ones their solutions hold.
          windows: how documents are laid into windows.
          seed: of the data.
          batch: windows per batch.
          rows: those of every batch that `batch` returns, in increasing order; None is all.
          records: what stands in the place of some documents; None where all are of fresh problems.
          device: where windows are made, which changes none of them; None is JAX's default.

        Raises:
          RefusedError: a setting is out of range or no document fits a window.
        """
        settings.check_whole("batch", batch, 1)
        taken = np.asarray(range(batch) if rows is None else rows).tolist()
        if not taken or taken != sorted({*taken} & {*range(batch)}):
            raise RefusedError(
                "rows", taken, f"one or more of 0 to {batch - 1}, in increasing order"
            )
        mistakes.check(spec)
        windows.check(spec, mistakes)
        self._make = functools.partial(
            segments, spec=spec, mistakes=mistakes, windows=windows, records=records
        )
        self._root_of = functools.partial(keys.root, seed, Purpose.TRAINING)
        self._rows, self._window, self._device = len(taken), windows.window, device
        self._segmented = windows.attention == "document"
        self._first = tokenizer(spec).problem
        # A block is a whole number of batches and of segments, so that rows lie in the same
        # segments of every block, and no block compiles anew.
        unit = math.lcm(batch, SEGMENT)

        def wanted(count: int) -> np.ndarray:
            return (np.arange(0, count, batch)[:, None] + np.array(taken)).reshape(-1)

        made = SEGMENT * len(np.unique(wanted(unit) // SEGMENT))
        block = unit * max(1, BLOCK_WINDOWS // made)
        self._steps, self._per_block = block // batch, block // SEGMENT
        wanted_N = wanted(block)
        self._segments_Q = np.unique(wanted_N // SEGMENT).astype(np.int32)
        made_QxK = self._segments_Q[:, None] * SEGMENT + np.arange(SEGMENT)
        self._kept_M = np.isin(made_QxK.reshape(-1), wanted_N)
        self._blocks = Blocks(self._load, "stream")

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """The batch of a step, or its `rows`: tokens int32[B, W + 1] and weights float32[B, W].

        `weights[b, t]` weighs the loss of predicting `tokens[b, t + 1]`. Where attention stays
        within a document, also segments int32[B, W]: the number of the document in its window.

        Raises:
          ValueError: where documents hardly ever fit a window.
        """
        number, at = divmod(step, self._steps)
        tokens, weights = self._blocks[number]
        rows = slice(at * self._rows, (at + 1) * self._rows)
        found = {"tokens": tokens[rows], "weights": weights[rows]}
        if self._segmented:
            begins = tokens[rows, :-1] == self._first
            found["segments"] = np.cumsum(begins, axis=1, dtype=np.int32) - 1
        return found

    def _load(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        with jax.default_device(self._device):
            packed = self._make(self._root_of(), block * self._per_block + self._segments_Q)
        size = self._window + 1
        tokens = np.asarray(packed.tokens_KxS).reshape(-1, size)
        weights = np.asarray(packed.weights_KxS).reshape(-1, size)[:, 1:]
        if self._kept_M.all():
            return tokens, weights
        return tokens[self._kept_M], weights[self._kept_M]

    def close(self) -> None:
        """Stops the stream's thread."""
        self._blocks.close()
