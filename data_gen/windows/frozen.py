"""Frozen sets: problems of a class in files, as a TensorFlow Datasets (TFDS) builder.

Training needs no files (`windows.stream` makes its data as it goes); a frozen set is for those
who compare models elsewhere, or want to see the same rows forever. TensorFlow is not needed.

Row `i` of a split is a function of the class, the seed and `i`: its key is child `i` of child
`op or 0` of a purpose of the seed (`data_gen.keys`). For `test` that is `TESTING`, as for the cells
that models are judged on; for `train` it is `FROZEN`: the law is that of a training stream, the
problems are not the same ones. What keeps `test` apart from training data of any seed is
that its templates (solutions without names, numbers and letters, as they are written) are
withheld from all that is drawn with split="train", but for problems of at most `unsplit_op`
operations: `shared` names those.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from data_gen import keys, settings
from data_gen.keys import Purpose
from data_gen.problems import search
from data_gen.problems.template import templates
from data_gen.settings import RefusedError
from data_gen.solutions.language import vocabulary
from data_gen.spec import HARD, MED, Spec
from data_gen.text import records
from data_gen.windows import stream
from data_gen.windows.documents import ROOM, whole_documents

try:
    import tensorflow_datasets as tfds
except ImportError as error:
    raise ImportError(
        f"data_gen.windows.frozen needs what the extra `datasets` brings ({error}): "
        "pip install -e '.[datasets]'."
    ) from error

# What the keys of a split's rows are for.
PURPOSES = {"train": Purpose.FROZEN, "test": Purpose.TESTING}
# Without TensorFlow, TFDS orders at most a gigabyte; so many of the longest documents fit.
ROWS_LIMIT = 1 << 16
SEED_LIMIT = 1 << 31
# The only format that is whole here: TFRecord needs TensorFlow, Parquet loses rows.
FORMAT = "array_record"
# Problems made at once; it changes nothing but the memory and the time taken.
BATCH = 256

TRAIN_ROWS, TEST_ROWS = 1 << 16, 1 << 12


@dataclasses.dataclass(eq=False)
class IgsmConfig(tfds.core.BuilderConfig):
    """What a frozen set holds.

    Attributes:
      spec: the class; its split is "all", since each of the set's splits has its own.
      counts: rows of each split, "train" or "test" or both, in 1..65536.
    """

    spec: Spec = MED
    seed: int = settings.whole(0, "Seed of the rows.", high=SEED_LIMIT - 1)
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses what no set can hold.

        Raises:
          RefusedError: names the field, its value and what is allowed.
        """
        settings.check(self)
        if self.spec.split != "all":
            allowed = "'all', since the splits of a frozen set choose the templates"
            raise RefusedError("split", self.spec.split, allowed)
        if not self.counts or not set(self.counts) <= set(PURPOSES):
            raise RefusedError("counts", dict(self.counts), "rows for train, test or both")
        for split, count in self.counts.items():
            settings.check_whole(f"counts[{split!r}]", count, 1, ROWS_LIMIT)

    @property
    def settings(self) -> dict[str, Any]:
        """All that the rows depend on, as JSON has it."""
        counts = {split: self.counts[split] for split in PURPOSES if split in self.counts}
        return {"spec": dataclasses.asdict(self.spec), "seed": self.seed, "counts": counts}

    def named(self) -> "IgsmConfig":
        """The named configuration of these settings, or this one, named by a hash of them."""
        for config in Igsm.BUILDER_CONFIGS:
            if config.settings == self.settings:
                return config
        text = json.dumps(self.settings, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        name = f"custom_{digest}"
        return IgsmConfig(name=name, spec=self.spec, seed=self.seed, counts=self.counts)


def _test_set(name: str, spec: Spec, op: int) -> IgsmConfig:
    return IgsmConfig(
        name=f"{name}_op{op}",
        description=f"The published test set of `{name}` with {op} operations a problem.",
        spec=dataclasses.replace(spec, op=op),
        counts={"test": TEST_ROWS},
    )


def _class(name: str, spec: Spec) -> IgsmConfig:
    return IgsmConfig(
        name=name,
        description=f"The published class `{name}`, up to {spec.max_op} operations a problem.",
        spec=spec,
        counts={"train": TRAIN_ROWS, "test": TEST_ROWS},
    )


class Igsm(tfds.core.GeneratorBasedBuilder):
    """Problems with their shortest error-free solutions, as texts and as tokens.

    Features of a row:
      id: text, `name-seed-split-i`.
      tokens: int32[n], the whole document, a token a name, number, letter or fixed phrase, whatever
        the class's `tokenizer`; the metadata's `vocabulary` has the text of each.
      prompt_length: int32, tokens up to and including the marker that the solution follows.
      op: int32, operations of the solution.
      answer: int32, modulo the class's modulus.
      problem, question, solution: texts (bytes of UTF-8 when read).
      layers: JSON text, [[category, [item, …]], …], top layer first.
      shared: bool, whether `train` may have rows of the same template.

    The metadata hold `spec`, `seed`, `counts` and `vocabulary`. Rows stand in the order of `i`.
    """

    VERSION = tfds.core.Version("3.0.0")
    RELEASE_NOTES = {  # noqa: RUF012 (TFDS's own form)
        "3.0.0": "Other random bits; `test` of the published classes has no template of `train`; "
        "rows say whether their template is shared.",
        "2.0.0": "The vocabulary has the markers FIX and RESTART; ids of what follows are others.",
        "1.0.0": "First release.",
    }
    BUILDER_CONFIGS = [  # noqa: RUF012
        _class("med", MED),
        _class("hard", HARD),
        *(_test_set("med", MED, op) for op in (20, 21, 22, 23)),
        *(_test_set("hard", HARD, op) for op in (28, 30, 32)),
    ]

    def __init__(self, *, file_format: str | None = FORMAT, **kwargs: Any) -> None:
        """As TFDS has it, but for the file format, which is ArrayRecord."""
        super().__init__(file_format=file_format, **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        number = functools.partial(tfds.features.Scalar, np.int32)
        return tfds.core.DatasetInfo(
            builder=self,
            description="iGSM: grade-school problems whose structure is drawn at random, with "
            "solutions (Physics of Language Models, Part 2.1).",
            homepage="https://arxiv.org/abs/2407.20311",
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "tokens": tfds.features.Tensor(shape=(None,), dtype=np.int32),
                    "prompt_length": number(),
                    "op": number(),
                    "answer": number(),
                    "problem": tfds.features.Text(),
                    "question": tfds.features.Text(),
                    "solution": tfds.features.Text(),
                    "layers": tfds.features.Text(),
                    "shared": tfds.features.Scalar(np.bool_),
                }
            ),
            metadata=tfds.core.MetadataDict(
                **config.settings, vocabulary=list(vocabulary(config.spec).tokens)
            ),
            # Row i is problem i; to shuffle is the reader's.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict]]]:
        file_format = self.info.file_format.value
        if file_format != FORMAT:
            raise RefusedError("file_format", file_format, repr(FORMAT))
        return {
            split: self._generate_examples(split)
            for split in self.builder_config.settings["counts"]
        }

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        config = self.builder_config
        made = rows(config.spec, seed=config.seed, split=split, count=config.counts[split])
        for place, row in enumerate(made):
            number = row.pop("number")
            yield place, {"id": f"{config.name}-{config.seed}-{split}-{number}", **row}


def row_keys(spec: Spec, seed: int, split: str, numbers_N: np.ndarray) -> jax.Array:
    """Keys of problems `numbers_N` (int32) of a split; see the module."""
    # By op, so that test sets that differ in it alone do not have names in common.
    root = keys.numbered(keys.root(seed, PURPOSES[split]), spec.op or 0)
    return keys.all_numbered(root, numbers_N)


def rows(spec: Spec, *, seed: int, split: str, count: int) -> Iterator[dict[str, Any]]:
    """The first `count` problems of a split, features but for `id`, and `number`.

    Numbers run on from 0; one is left out where thousands of drafts gave no problem, or a class
    that asks again found no other parameter to ask for.

    Raises:
      ValueError: that is so for all that are drawn at once.
    """
    spec = dataclasses.replace(spec, split=split)
    room, first, kept = ROOM, 0, 0
    while kept < count:
        numbers_N = first + np.arange(BATCH, dtype=np.int32)
        keys_N = row_keys(spec, seed, split, numbers_N)
        problems = stream.problems(keys_N, spec=spec)
        ok_N = np.asarray(problems.ok)
        if not ok_N.any():
            raise ValueError(search.not_found(spec))
        documents = whole_documents(keys_N, problems, spec=spec, room=room)
        # The next rows begin with what was enough for these.
        room = documents.tokens_N.shape[-1]
        chosen_K = np.flatnonzero(ok_N)[: count - kept]
        problems, documents, shared_K = jax.tree.map(
            lambda x_N, chosen_K=chosen_K: np.asarray(x_N)[chosen_K],
            (problems, documents, templates(problems, spec).shared),
        )
        found = records.records(problems, documents, spec)
        for n, record in enumerate(found):
            yield {
                "number": int(numbers_N[chosen_K[n]]),
                "tokens": documents.tokens_N[n, : documents.length[n]],
                "prompt_length": int(documents.prompt[n]),
                **record,
                "layers": json.dumps(record["layers"]),
                "shared": bool(shared_K[n]),
            }
        first, kept = first + BATCH, kept + len(found)


def build(spec: Spec, *, seed: int, counts: Mapping[str, int], directory: str | Path) -> Igsm:
    """Writes a frozen set, or finds the one written before.

    Args:
      spec: the class, of any split of templates ("all").
      seed: of the rows.
      counts: rows of each split, "train" (templates for training) or "test" (withheld ones).
      directory: where sets are; this one gets a directory of its own below, named by its
        settings.

    Returns:
      the builder; its `data_dir` is what `load` reads.

    Raises:
      ValueError: a setting is out of range, or the class out of reach.
    """
    config = IgsmConfig(name="custom", spec=spec, seed=seed, counts=counts).named()
    builder = Igsm(config=config, data_dir=str(directory))
    builder.download_and_prepare()
    return builder


def load(directory: str | Path) -> Mapping[str, Any]:
    """Reads a frozen set: a sequence of rows (dictionaries of NumPy) for each split.

    With Grain: `grain.MapDataset.source(load(directory)["train"]).seed(0).shuffle().repeat()`,
    then `.map` and `.batch`; `tokens` differ in length, so pad or pack before batching.

    Args:
      directory: a builder's `data_dir`.

    Raises:
      ValueError: there is no frozen set.
    """
    if not (Path(directory) / "dataset_info.json").is_file():
        raise ValueError(
            f"directory={str(directory)!r} holds no frozen set: a builder's data_dir does."
        )
    sources: Mapping[str, Any] = tfds.builder_from_directory(str(directory)).as_data_source()
    return sources
