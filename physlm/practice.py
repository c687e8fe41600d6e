"""Training documents beside fresh problems: records, and a model's own corrected mistakes.

A model's own mistakes are found where it trains: it solves problems of its class's split for
training, which has no template of the test problems, and what it writes up to its first wrong step
is followed by the marker and a right continuation (`data_gen.text.corrections`).
"""

import dataclasses
import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
import numpy as np

from data_gen import device, keys, settings
from data_gen.keys import Purpose
from data_gen.settings import RefusedError
from data_gen.spec import Spec
from data_gen.text.answers import split
from data_gen.text.corrections import corrected
from data_gen.windows import recorded
from data_gen.windows.tokenizer import tokenizer
from physlm import cells as cells_lib
from physlm import evaluate
from physlm.architecture import ModelConfig
from physlm.cells import Cell, EvalConfig
from physlm.decoding.recipe import parse
from physlm.model import Params
from physlm.progress import Reporter

PARENT = "parent"

# Problems that are drawn and solved at once; it changes nothing but the memory taken.
_AT_ONCE = 1024


@dataclasses.dataclass(frozen=True)
class PracticeConfig:
    """The documents mixed into those of fresh problems.

    Raises:
      RefusedError: a setting has a value that is not allowed.
    """

    records: str = settings.text(
        "",
        "Documents to train on beside those of fresh problems: a file of JSON lines, as `python -m "
        "data_gen correct` prints them, or parent: the parent's own wrong solutions of problems of "
        "the split for training, mended. Empty for fresh problems alone. What a file holds decides "
        "a run's weights, where it lies does not.",
        "a file of JSON lines, parent, or empty",
        decides=False,
        added=True,
    )
    records_share: float = settings.number(
        0.5, "The share of documents that are records.", above=0, at_most=1, added=True
    )
    records_problems: int = settings.whole(
        65_536,
        "Problems that the parent solves, where records are its own mistakes.",
        low=1,
        high=2**31 - 1,
        added=True,
    )
    records_decode: str = settings.text(
        "sample:temperature=1",
        "How it chooses tokens, as evaluate.decode says, but none that asks anybody. At a "
        "temperature of 1 mistakes come as often as the model believes in them.",
        "a strategy",
        added=True,
    )

    def __post_init__(self) -> None:
        settings.check(self)
        try:
            asks = parse(self.records_decode).asks
        except RefusedError as error:
            raise RefusedError("records_decode", self.records_decode, error.allowed) from error
        if asks:
            raise RefusedError("records_decode", self.records_decode, "a strategy that asks nobody")


def own_mistakes(
    params: Params,
    *,
    model: ModelConfig,
    spec: Spec,
    config: PracticeConfig,
    seed: int,
    batch: int,
    progress: Callable[[str, int, str], AbstractContextManager[Reporter]],
) -> tuple[list[dict[str, Any]], int]:
    """A model's own wrong solutions, corrected, as far as they fit a training window.

    Args:
      params: of the model.
      model: its configuration.
      spec: the class that it is trained on; problems are of the split that this names.
      config: how many problems it solves, and how.
      seed: of the problems, and of what decoding and mending draw.
      batch: prompts decoded at once.
      progress: makes a progress display of (title, total, unit).

    Returns:
      the records, as `corrected` makes them, in the order of their problems; and how many more are
      left out since they are longer than a window or hold what no token stands for.
    """
    root = keys.root(seed, Purpose.PRACTICE)
    letters = keys.root(seed, Purpose.CORRECTION)
    cell = Cell("practice", spec.max_op, False)
    judged = EvalConfig(
        batch=batch, decode=config.records_decode, max_new_tokens=model.window, beyond=(), seed=seed
    )
    found: list[dict[str, Any]] = []
    left_out = 0
    with progress("practice", config.records_problems, "problem") as shown:
        for first in range(0, config.records_problems, _AT_ONCE):
            count = min(_AT_ONCE, config.records_problems - first)
            numbers_N = (first + np.arange(count)).astype(np.int32)
            keys_N = keys.all_numbered(root, numbers_N)
            with jax.default_device(device.of_data()):
                tests, _ = cells_lib.fitting(keys_N, numbers_N, spec, model.window)
            if not len(tests.lengths_N):
                continue
            written = evaluate.solved(
                params,
                cell,
                tests,
                model=model,
                spec=spec,
                config=judged,
                width=_wide(tests.prompts_NxP.shape[1]),
                done=functools.partial(_shown, shown, first),
            )
            for record, ids, number in zip(
                tests.records, written.tokens_NxM, tests.index_N, strict=True
            ):
                text, _ = split(ids, tokenizer(spec))
                made = corrected(record, text, keys.numbered(letters, number), spec)
                if made is None:
                    continue
                if recorded.why_not(made, model.window, spec):
                    left_out += 1
                    continue
                found.append(made)
    return found, left_out


def _wide(width: int) -> int:
    """The width of prompts rounded up, so that few programs are compiled."""
    return -(-width // 32) * 32


def _shown(reporter: Reporter, first: int, count: int) -> None:
    reporter.update(first + count)
