"""The rows of frozen sets: which problems each split has, in any format.

Row `i` of a split is a function of the class, the mistakes, the seed and `i`: its key is child `i`
of a purpose of the seed (`data_gen.keys`). For `all`, problems of any template, these are those of
`python -m data_gen sample`. For `test` the purpose is `TESTING`, as for the cells that models are
judged on, and for `train` it is `FROZEN`: the law is that of a training stream, the problems are
not the same ones. What keeps `test` apart from training data of any seed is that its templates
(solutions without names, numbers and letters, as they are written) are withheld from all that is
drawn with split="train", but for problems of at most `unsplit_op` operations.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Self

import jax
import numpy as np

from data_gen import device, keys, settings
from data_gen.keys import Purpose
from data_gen.problems import search
from data_gen.problems.problem import Problem
from data_gen.settings import RefusedError
from data_gen.solutions.document import Document
from data_gen.solutions.language import vocabulary
from data_gen.solutions.mistakes import ERROR_FREE, Mistakes
from data_gen.spec import MED, Spec
from data_gen.text import records
from data_gen.text.judge import judge
from data_gen.text.reader import read
from data_gen.windows import stream
from data_gen.windows.documents import ROOM, whole_documents

# Changes with what a row of the same settings is; igsm.Igsm.RELEASE_NOTES says how.
VERSION = "4.0.0"
# What the keys of a split's rows are for.
PURPOSES = {"all": Purpose.SAMPLE, "train": Purpose.FROZEN, "test": Purpose.TESTING}
# Problems made at once; it changes nothing but the memory and the time taken.
BATCH = 256
SEED_LIMIT = 1 << 31


@dataclasses.dataclass(frozen=True)
class Contents:
    """The contents of a frozen set.

    Attributes:
      spec: the class; its split is "all", since each of the set's splits has its own.
      counts: rows of each split: of "train", "test" or both, or of "all" alone.
      name: what ids begin with.

    Raises:
      RefusedError: names the field, its value and what is allowed.
    """

    spec: Spec = MED
    seed: int = settings.whole(0, "Seed of the rows.", high=SEED_LIMIT - 1)
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    mistakes: Mistakes = ERROR_FREE
    name: str = "med"

    def __post_init__(self) -> None:
        settings.check(self)
        if self.spec.split != "all":
            allowed = "'all', since the splits of a frozen set choose the templates"
            raise RefusedError("split", self.spec.split, allowed)
        splits = set(self.counts)
        if not splits or not (splits <= {"train", "test"} or splits == {"all"}):
            allowed = "rows for train, test or both, or for all alone"
            raise RefusedError("counts", dict(self.counts), allowed)
        for split, count in self.counts.items():
            settings.check_whole(f"counts[{split!r}]", count, 1, SEED_LIMIT - 1)
        # Refuses a file of names that cannot be used before anything compiles.
        vocabulary(self.spec)

    @property
    def settings(self) -> dict[str, Any]:
        """All settings that the rows depend on, as JSON values."""
        wrong = {"mistakes": dataclasses.asdict(self.mistakes)} if self.mistakes.rate else {}
        counts = {split: self.counts[split] for split in PURPOSES if split in self.counts}
        return {"spec": dataclasses.asdict(self.spec), "seed": self.seed, "counts": counts, **wrong}

    def spec_of(self, split: str) -> Spec:
        """The class of a split's rows."""
        return dataclasses.replace(self.spec, split=split)


class Drawn(NamedTuple):
    """Problems with their documents (leading axis N); those that are not `ok` have none."""

    numbers_N: np.ndarray  # uint32: of their keys
    problems_N: Problem
    documents_N: Document

    def only(self, chosen_K: np.ndarray) -> Self:
        """The entries at some indices, as NumPy."""
        return jax.tree.map(lambda x_N: np.asarray(x_N)[chosen_K], self)


def label(split: str) -> str:
    """What a split is called in files: "all" means every split to those who read them."""
    return "train" if split == "all" else split


def identity(name: str, seed: int, split: str, number: int) -> str:
    """The id of a row: `name-seed-number`, or `name-seed-split-number`."""
    return "-".join([name, str(seed), *([] if split == "all" else [split]), str(number)])


def row_keys(spec: Spec, seed: int, numbers_N: np.ndarray) -> jax.Array:
    """Keys of the rows of these numbers (below 2**31) of the split that is the class's."""
    root = keys.root(seed, PURPOSES[spec.split])
    if spec.split != "all":
        # By op, so that test sets that differ in it alone do not have names in common.
        root = keys.numbered(root, spec.op or 0)
    return keys.all_numbered(root, numbers_N)


def drawn(
    spec: Spec,
    *,
    seed: int,
    mistakes: Mistakes = ERROR_FREE,
    start: int = 0,
    batch: int = BATCH,
) -> Iterator[Drawn]:
    """Rows `start`, `start` + 1, … of the class's split, `batch` at once, without end."""
    room, first = ROOM, start
    while True:
        numbers_N = (first + np.arange(batch)).astype(np.uint32)
        with jax.default_device(device.of_data()):
            keys_N = row_keys(spec, seed, numbers_N)
            problems = stream.problems(keys_N, spec=spec)
            if not np.any(np.asarray(problems.ok)):
                raise ValueError(search.not_found(spec))
            documents = whole_documents(keys_N, problems, spec=spec, mistakes=mistakes, room=room)
        # The next ones begin with what was enough for these.
        room = documents.tokens_N.shape[-1]
        yield Drawn(numbers_N, problems, documents)
        first += batch


def chosen(contents: Contents, split: str) -> Iterator[tuple[Drawn, np.ndarray]]:
    """The rows of a split of a set: batches, and the places (K) in them of what counts.

    Numbers run on from 0; one is left out where thousands of drafts gave no problem, or a class
    that asks again found no other parameter to ask for.

    Raises:
      ValueError: that is so for all that are drawn at once.
    """
    spec, left = contents.spec_of(split), contents.counts[split]
    for batch in drawn(spec, seed=contents.seed, mistakes=contents.mistakes):
        chosen_K = np.flatnonzero(np.asarray(batch.problems_N.ok))[:left]
        yield batch, chosen_K
        left -= len(chosen_K)
        if not left:
            return


def written(
    batch: Drawn, spec: Spec, *, name: str, seed: int, types: bool = False
) -> Iterator[dict[str, Any]]:
    """What `python -m data_gen sample` prints of problems: id, layers, problem, question, ….

    With `types` also `mended`, the mistakes that a solution took back, as the judge calls them.
    """
    found = records.records(batch.problems_N, batch.documents_N, spec)
    for number, record in zip(batch.numbers_N.tolist(), found, strict=True):
        if types:
            facts = read(record["layers"], record["problem"], record["question"], spec.modulus)
            verdict = judge(facts, record["solution"])
            record["mended"] = [mistake._asdict() for mistake in verdict.mended]
        yield {"id": identity(name, seed, spec.split, number), **record}


def texts(contents: Contents, split: str, *, types: bool = False) -> Iterator[dict[str, Any]]:
    """The rows of a split as `written` has them, but for `layers`, which is JSON text.

    A column of a table has one type, and a layer is a text beside a list.
    """
    spec, name, seed = contents.spec_of(split), contents.name, contents.seed
    for batch, chosen_K in chosen(contents, split):
        for row in written(batch.only(chosen_K), spec, name=name, seed=seed, types=types):
            yield {**row, "layers": json.dumps(row["layers"])}
