"""Recorded documents (JSON lines), to be trained on among fresh ones.

Records are what `python -m data_gen sample` and `correct` print: a model's own mistakes, mended, or
whatever else is a right solution of a problem of the class. A training stream takes each document
from them with some probability; whether it does, and which one it takes, is drawn from the key of
the problem in whose place it stands, so that a window stays a function of (seed, number).
"""

import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_gen import keys
from data_gen.keys import Stage
from data_gen.settings import RefusedError
from data_gen.solutions.document import Document
from data_gen.spec import Spec
from data_gen.text import corrections, lines
from data_gen.text.judge import judge
from data_gen.text.reader import read
from data_gen.windows.table import encode
from data_gen.windows.tokenizer import tokenizer

Record = Mapping[str, Any]

# Records written in tokens at once; it changes nothing but the memory taken.
_AT_ONCE = 256
_TEXTS = ("problem", "question", "solution")


class Records(NamedTuple):
    """M documents in tokens, and how many of a stream's documents are of them."""

    tokens_MxS: jax.Array  # int32, S = window + 1
    role_MxS: jax.Array  # int8, as of `data_gen.solutions.document`
    length_M: jax.Array  # int32
    share: jax.Array  # float32: above 0 and up to 1


def of_file(path: str, window: int, spec: Spec) -> list[Record]:
    """The records of a file, every one of which can be trained on.

    Args:
      path: of JSON lines.
      window: tokens of a window that are fed to the model.
      spec: the class.

    Raises:
      RefusedError: the file cannot be read or has no record, or a line cannot be trained on; the
        setting is called `records`.
    """
    try:
        found = pathlib.Path(path).stat()
    except OSError as error:
        raise RefusedError(
            "records", path, f"a file that can be read ({error.strerror})"
        ) from error
    return _of_file(path, (found.st_mtime_ns, found.st_size), window, spec)


@functools.lru_cache(maxsize=4)
def _of_file(path: str, state: tuple[int, int], window: int, spec: Spec) -> list[Record]:
    del state  # Another one is another content.
    made = []
    try:
        content = pathlib.Path(path).read_bytes()
    except OSError as error:
        allowed = f"a file that can be read ({error.strerror})"
        raise RefusedError("records", path, allowed) from error
    for number, line in enumerate(content.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            record = lines.value(line)
        except ValueError as error:
            raise RefusedError(
                "records", path, f"of JSON lines, and line {number} is none ({error})"
            ) from error
        if why := why_not(record, window, spec):
            allowed = f"of records of this class that fit a window, and line {number} {why}"
            raise RefusedError("records", path, allowed)
        made.append(record)
    if not made:
        raise RefusedError("records", path, "a file with a record, a line of JSON each")
    return made


def why_not(record: Any, window: int, spec: Spec) -> str:
    """Why a record cannot be trained on, in words that go on after what it is; "" if it can.

    Args:
      record: what a line of JSON holds.
      window: as for `of_file`.
      spec: the class.
    """
    try:
        record = lines.record(record, _TEXTS)
    except ValueError as error:
        return str(error).rstrip(".")
    if "answer" not in record:
        return "has no field 'answer'"
    try:
        facts = read(record["layers"], record["problem"], record["question"], spec.modulus)
        verdict = judge(facts, record["solution"], f" {record['answer']}")
        if not verdict.correct:
            return f"is no right solution in this class ({verdict.reason})"
        written = np.array(corrections.symbols(record, spec))
    except ValueError as error:
        return f"is not of this class ({error})"
    table = tokenizer(spec)
    if not table.has_all(written):
        return "has a name that is no parameter's, for which there is no token"
    length = int(table.lengths_V[written].sum())
    if length > window + 1:
        return f"has {length} tokens, above the {window + 1} of a window"
    return ""


def tokens_of(records: Sequence[Record], window: int, spec: Spec) -> Document:
    """Records in tokens, with room for a window of them each (leading axis M, NumPy).

    Raises:
      ValueError: a text has something that is no symbol of the class.
    """
    table, size = tokenizer(spec), window + 1
    write = jax.jit(jax.vmap(functools.partial(encode, table=table, size=size)))
    parts = []
    for first in range(0, len(records), _AT_ONCE):
        some = list(records[first : first + _AT_ONCE])
        # As many at all times, so that nothing is compiled for the rest alone.
        more = some[:1] * (_AT_ONCE - len(some))
        written = corrections.documents([*some, *more], table.symbols(size), spec)
        count = len(some)
        parts.append(jax.tree.map(lambda x, n=count: np.asarray(x)[:n], write(written)))
    return jax.tree.map(lambda *columns: np.concatenate(columns), *parts)


def laid(records: Sequence[Record], share: float, window: int, spec: Spec) -> Records:
    """Records in the format of a stream.

    Args:
      records: at least one; all can be trained on.
      share: of a stream's documents that are of them.
      window: as for `of_file`.
      spec: the class.
    """
    made = tokens_of(records, window, spec)
    return Records(
        jnp.asarray(made.tokens_N),
        jnp.asarray(made.role_N, jnp.int8),
        jnp.asarray(made.length),
        jnp.float32(share),
    )


def mixed(documents_N: Document, keys_N: jax.Array, records: Records) -> Document:
    """A stream's documents, some of them replaced by records.

    Args:
      documents_N: fresh ones in tokens, S each.
      keys_N: of their problems.
      records: what may stand in their place.
    """

    drawn_Nx2 = jax.vmap(lambda key: jax.random.uniform(keys.named(key, Stage.SOURCE), (2,)))(
        keys_N
    )
    taken_N = drawn_Nx2[:, 0] < records.share
    count = records.length_M.shape[0]
    which_N = jnp.minimum((drawn_Nx2[:, 1] * count).astype(jnp.int32), count - 1)

    def chosen(fresh: jax.Array, kept_M: jax.Array) -> jax.Array:
        mask = taken_N.reshape(-1, *[1] * (fresh.ndim - 1))
        return jnp.where(mask, kept_M[which_N].astype(fresh.dtype), fresh)

    return documents_N._replace(
        tokens_N=chosen(documents_N.tokens_N, records.tokens_MxS),
        role_N=chosen(documents_N.role_N, records.role_MxS),
        length=chosen(documents_N.length, records.length_M),
    )
