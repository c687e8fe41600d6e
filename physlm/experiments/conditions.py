"""Ways to train a model, each as changes of the study's pretraining.

A study yields them, with changes of its own by their dotted keys:

    error_free = conditions.pretrain(**{"mistakes.rate": 0.0})
    yield conditions.lora(error_free, rank=8, **{"mistakes.rate": 0.2})

What a study's configuration says is pretraining for T steps. A number of the recipe that is a
multiple of it is written as `Times`, so that a condition is the same at every scale. The paper is
Part 2.2 (arXiv 2408.16293); its numbers are in Appendix B.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from data_gen.settings import RefusedError
from physlm.adaptation import LORA, PROBE, PUBLISHED
from physlm.experiments import scales
from physlm.probe import FROZEN
from physlm.start import CARRIED

Changes = Mapping[str, Any]


class Times(float):
    """A multiple of the value in the study's configuration.

    A whole number stays whole, and above 0 where it was.

    Attributes:
      hard: the multiple at the scale `paper_hard`, where the paper gives another one for iGSM-hard.
    """

    hard: float

    def __new__(cls, multiple: float, hard: float | None = None) -> "Times":
        """A multiple, and the one for iGSM-hard where it is another."""
        self = super().__new__(cls, multiple)
        self.hard = multiple if hard is None else hard
        return self

    def of(self, value: Any, scale: str = "") -> Any:
        """The multiple of a value at a scale."""
        multiple = self.hard if scale == scales.PAPER_HARD else float(self)
        if not isinstance(value, int):
            return value * multiple
        return max(min(1, value), round(value * multiple))


class ByWidth(float):
    """A learning rate of Adam that was published for models of the width 768.

    Others take it in inverse proportion to their width (arXiv 2203.03466).
    """

    def of(self, values: Mapping[str, Any]) -> float:
        """The rate of a configuration, given by dotted keys."""
        return float(self) * 768 / (values["model.heads"] * values["model.head_dim"])


@dataclasses.dataclass(frozen=True)
class Planned:
    """A run that a study asks for.

    Attributes:
      title: how it is trained, in words; empty where nothing but data sets it apart.
      differences: the condition's own changes of the study's configuration.
      changes: what the study changes beyond them; these are what its results are told apart by.
      parent: the run that it begins with.
    """

    title: str
    differences: Changes
    changes: Changes
    parent: "Planned | None" = None


def pretrain(**changes: Any) -> Planned:
    """T steps from a model drawn from the seed (Section 4).

    Differences: none.
    """
    return Planned("", {}, changes)


def pretrain_2x(**changes: Any) -> Planned:
    """Pretraining for twice as long (Section 5).

    Differences: 2 T steps, and 0.6 of the weight decay, two thirds for iGSM-hard.
    """
    return Planned(
        "for twice as long",
        {"train.steps": Times(2), "optimizer.weight_decay": Times(0.6, hard=2 / 3)},
        changes,
    )


def continued(parent: Planned, **changes: Any) -> Planned:
    """T steps more on other data (Section 5, continued pretraining).

    Differences: begins with the parent's model and the optimizer's memory of it; half of the
    learning rate, in a schedule of its own.
    """
    return Planned(
        "continued",
        {"parent.optimizer": CARRIED, "optimizer.learning_rate": Times(0.5)},
        changes,
        parent,
    )


def continued_fraction(parent: Planned, fraction: float = 0.1, **changes: Any) -> Planned:
    """T · f steps more on other data, as reviewers asked for with f = 0.1.

    Differences: those of `continued`; a schedule, its warm-up too, of f times the steps.

    Raises:
      RefusedError: the fraction is not above 0 and at most 1.
    """
    if not 0 < fraction <= 1:
        raise RefusedError("fraction", fraction, "above 0 and at most 1")
    whole = continued(parent)
    shorter = {
        "train.steps": Times(fraction),
        "train.save_every": Times(fraction),
        "optimizer.warmup_steps": Times(fraction),
    }
    title = f"continued for {fraction:g} of the steps"
    return Planned(title, {**whole.differences, **shorter}, changes, parent)


def full_finetune(parent: Planned, **changes: Any) -> Planned:
    """All parameters are trained for T steps more, as a new task would be (Section 5).

    Differences: begins with the parent's model; half of the learning rate.
    """
    return Planned("full finetuning", {"optimizer.learning_rate": Times(0.5)}, changes, parent)


def lora(parent: Planned, rank: int = 8, on: str = PUBLISHED, **changes: Any) -> Planned:
    """Low-rank changes of a frozen model (Section 5, Result 7): r is 4 to 256 there.

    Differences: begins with the parent's model, which is frozen; adapters of that rank on queries
    and values and of twice the rank on the embedding; half of the learning rate and of the batch,
    twice the steps. As many steps and as much weight decay serve both published classes: for
    iGSM-hard they are T steps, and 5/3 of its weight decay.
    """
    differences = {
        "adaptation.kind": LORA,
        "adaptation.rank": rank,
        "adaptation.on": on,
        "optimizer.learning_rate": Times(0.5),
        "optimizer.weight_decay": Times(1, hard=5 / 3),
        "train.batch": Times(0.5),
        "train.steps": Times(2, hard=1),
    }
    return Planned(f"LoRA of rank {rank}", differences, changes, parent)


def probe(
    parent: Planned | None, rank: int = 8, on: str = "embed/embedding", **changes: Any
) -> Planned:
    """V-probing of a frozen model, the paper's first probe (Section 3).

    Differences: the parent's model is frozen (without a parent: a model as it is drawn, the
    control); a linear head, and a change of rank 8 of the embedding; half of the batch, 0.2 of the
    weight decay, AdamW with a rate that falls linearly from 0.002, for the width 768, to 0. For
    iGSM-hard, too, that is 100,000 steps, half of T, and a decay of 0.01, a third.
    """
    differences = {
        "adaptation.kind": PROBE,
        "adaptation.rank": rank,
        "adaptation.on": on,
        "optimizer.name": "adamw",
        "optimizer.learning_rate": ByWidth(2e-3),
        "optimizer.decay": "linear",
        "optimizer.final_fraction": 0.0,
        "optimizer.weight_decay": Times(0.2, hard=1 / 3),
        "train.batch": Times(0.5),
        "train.steps": Times(1, hard=0.5),
    }
    of = "" if parent else " of a random model"
    kind = f"probe of rank {rank}" if on else "linear probe"
    return Planned(f"{kind}{of}", differences, changes, parent)


def second_probe(parent: Planned, **changes: Any) -> Planned:
    """The paper's second probe (Section 3), with more to change and less to train it on.

    Differences: those of `probe`; rank 32 on the embedding and 2 on queries and values; a batch of
    8, no weight decay, half of the rate, 16,000 steps (of T = 100,000; for iGSM-hard of 200,000),
    a warm-up as much shorter.
    """
    on = "attention/(query|value)/kernel,embed/embedding:16"
    first = probe(parent, rank=2, on=on)
    differences = {
        **first.differences,
        "train.batch": 8,
        "train.steps": Times(0.16, hard=0.08),
        "optimizer.warmup_steps": Times(0.16),
        "optimizer.learning_rate": ByWidth(1e-3),
        "optimizer.weight_decay": 0.0,
    }
    return Planned("probe of rank 32 and 2", differences, changes, parent)


def linear_probe(parent: Planned, **changes: Any) -> Planned:
    """A linear head on the frozen model, as a control.

    Differences: those of `probe`; no change of the embedding.
    """
    return probe(parent, on="", **changes)


def reader(parent: Planned | None, rank: int = 16, **changes: Any) -> Planned:
    """A detector that looks at the states of a frozen model as it writes (not published).

    Differences: those of `probe`; the text is read by the frozen model (without a parent: a model
    as it is drawn, the control), and in questions alone all matrices have a change of rank 16.
    """
    on = "(attention/(query|key|value|out)|(mlp|mixture)/(up|gate|down))/kernel,embed/embedding"
    first = probe(parent, rank=rank, on=on)
    differences = {**first.differences, "probe.reads": FROZEN}
    of = "" if parent else " of a random model"
    return Planned(f"reader of rank {rank}{of}", differences, changes, parent)


def over(key: str, *values: Any) -> list[dict[str, Any]]:
    """A sweep over the values of one setting."""
    return [{key: value} for value in values]


def product(*sweeps: Iterable[Changes]) -> Iterator[dict[str, Any]]:
    """Every combination of the changes of some sweeps."""
    return (_merged(parts) for parts in itertools.product(*map(list, sweeps)))


def zipped(*sweeps: Iterable[Changes]) -> Iterator[dict[str, Any]]:
    """The first changes of all sweeps together, the second ones, …; sweeps are of equal length."""
    return (_merged(parts) for parts in zip(*sweeps, strict=True))


def chain(*sweeps: Iterable[Changes]) -> Iterator[dict[str, Any]]:
    """The concatenation of sweeps."""
    return (dict(changes) for changes in itertools.chain(*sweeps))


def _merged(parts: Iterable[Changes]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part in parts:
        found |= part
    return found
