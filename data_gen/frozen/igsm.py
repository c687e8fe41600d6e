"""Frozen sets as a TensorFlow Datasets (TFDS) builder. TensorFlow is not needed.

Importing this module registers the builder, so that TFDS finds it by name:

    import data_gen.frozen.igsm
    import tensorflow_datasets as tfds

    rows = tfds.data_source("igsm/med", split="train")

Training needs no files (`windows.stream` makes its data as it goes); a frozen set is for those
who compare models elsewhere, or want to see the same rows forever.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_gen import settings
from data_gen.frozen import rows as rows_lib
from data_gen.frozen.rows import Contents
from data_gen.problems.template import templates
from data_gen.settings import RefusedError
from data_gen.solutions.language import vocabulary
from data_gen.solutions.mistakes import ERROR_FREE, Mistakes
from data_gen.spec import MED, NAMED, Spec

try:
    import tensorflow_datasets as tfds
except ImportError as error:
    raise ImportError(
        f"frozen sets of TFDS need what the extra `datasets` brings ({error}): "
        "pip install -e '.[datasets]'."
    ) from error

# Without TensorFlow, TFDS orders at most a gigabyte; so many of the longest documents fit.
ROWS_LIMIT = 1 << 16
# The only format that is whole here: TFRecord needs TensorFlow, Parquet loses rows.
FORMAT = "array_record"

TRAIN_ROWS, TEST_ROWS = 1 << 16, 1 << 12
# The published test sets: problems with more operations than any of the class.
BEYOND = {"med": (20, 21, 22, 23), "hard": (28, 30, 32)}


@dataclasses.dataclass(eq=False)
class IgsmConfig(tfds.core.BuilderConfig):
    """What a frozen set holds: the attributes of `Contents`, of at most 65536 rows a split."""

    spec: Spec = MED
    seed: int = 0
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)
    mistakes: Mistakes = ERROR_FREE

    def __post_init__(self) -> None:
        """Refuses what no set can hold.

        Raises:
          RefusedError: names the field, its value and what is allowed.
        """
        for split, count in self.counts.items():
            settings.check_whole(f"counts[{split!r}]", count, 1, ROWS_LIMIT)
        _ = self.contents

    @property
    def contents(self) -> Contents:
        """The same without TFDS."""
        return Contents(self.spec, self.seed, self.counts, self.mistakes, self.name)

    @property
    def settings(self) -> dict[str, Any]:
        """All that the rows depend on, as JSON has it."""
        return self.contents.settings

    def named(self) -> "IgsmConfig":
        """The named configuration of these settings, or this one, named by a hash of them."""
        for config in Igsm.BUILDER_CONFIGS:
            if config.settings == self.settings:
                return config
        text = json.dumps(self.settings, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        name = f"custom_{digest}"
        return IgsmConfig(
            name=name,
            spec=self.spec,
            seed=self.seed,
            counts=self.counts,
            mistakes=self.mistakes,
        )


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
    """Problems with their solutions, as texts and as tokens; those of named sets have no mistakes.

    Features of a row:
      id: text, `name-seed-split-i`, or `name-seed-i` where problems of all templates are asked for.
      tokens: int32[n], the whole document, a token a name, number, letter or fixed phrase, whatever
        the class's `tokenizer`; the metadata's `vocabulary` has the text of each.
      prompt_length: int32, tokens up to and including the marker that the solution follows.
      op: int32, operations of the solution.
      answer: int32, modulo the class's modulus.
      problem, question, solution: texts (bytes of UTF-8 when read).
      layers: JSON text, [[category, [item, …]], …], top layer first.
      shared: bool, whether `train` may have rows of the same template.

    The metadata hold `spec`, `seed`, `counts` and `vocabulary`, and `mistakes` where there are any.
    Rows stand in the order of `i`.
    """

    VERSION = tfds.core.Version(rows_lib.VERSION)
    RELEASE_NOTES = {  # noqa: RUF012 (TFDS's own form)
        "4.0.0": "No wrong sentence stands twice at one position; all without any is as it was.",
        "3.0.0": "Other random bits; `test` of the published classes has no template of `train`; "
        "rows say whether their template is shared.",
        "2.0.0": "The vocabulary has the markers FIX and RESTART; ids of what follows are others.",
        "1.0.0": "First release.",
    }
    BUILDER_CONFIGS = [  # noqa: RUF012
        *(_class(name, spec) for name, spec in NAMED.items()),
        *(_test_set(name, NAMED[name], op) for name, ops in BEYOND.items() for op in ops),
    ]

    def __init__(
        self,
        *,
        file_format: str | None = FORMAT,
        report: Callable[[int], object] = lambda rows: None,
        **kwargs: Any,
    ) -> None:
        """As TFDS has it, but for the file format, which is ArrayRecord.

        Args:
          report: is told of each row that is made, as a number of rows.
        """
        self._report = report
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
            rows_lib.label(split): self._generate_examples(split)
            for split in self.builder_config.settings["counts"]
        }

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict]]:
        for place, row in enumerate(rows(self.builder_config.contents, split)):
            yield place, row
            self._report(1)


def rows(contents: Contents, split: str) -> Iterator[dict[str, Any]]:
    """The rows of a split: features as the builder has them.

    Raises:
      ValueError: the class has no such problems.
    """
    spec = contents.spec_of(split)
    for batch, chosen_K in rows_lib.chosen(contents, split):
        shared_K = np.asarray(templates(batch.problems_N, spec).shared)[chosen_K]
        kept = batch.only(chosen_K)
        documents = kept.documents_N
        found = rows_lib.written(kept, spec, name=contents.name, seed=contents.seed)
        for n, record in enumerate(found):
            yield {
                **record,
                "tokens": documents.tokens_N[n, : documents.length[n]],
                "prompt_length": int(documents.prompt[n]),
                "layers": json.dumps(record["layers"]),
                "shared": bool(shared_K[n]),
            }


def build(
    spec: Spec,
    *,
    seed: int,
    counts: Mapping[str, int],
    directory: str | Path,
    mistakes: Mistakes = ERROR_FREE,
    report: Callable[[int], object] = lambda rows: None,
) -> Igsm:
    """Writes a frozen set, or finds the one written before.

    Args:
      spec: the class, of any split of templates ("all").
      seed: of the rows.
      counts: rows of each split: "train" (templates for training) or "test" (withheld ones) or
        both; or "all" (any template), whose rows are called train.
      directory: where sets are; this one gets a directory of its own below, named by its
        settings.
      mistakes: those that solutions have.
      report: is told of each row that is made, as a number of rows.

    Returns:
      the builder; its `data_dir` is what `load` reads.

    Raises:
      ValueError: a setting is out of range, or the class out of reach.
    """
    config = IgsmConfig(name="custom", spec=spec, seed=seed, counts=counts, mistakes=mistakes)
    builder = Igsm(config=config.named(), data_dir=str(directory), report=report)
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
