"""Can an error-free model be taught afterwards to mend its mistakes?

Question: mistakes with their corrections in pretraining make a model reason better. Is it enough to
show them to a model that was pretrained without: for as long again (continued pretraining, with the
optimizer as it was, or full finetuning, with a fresh one), for a tenth of that, or by low-rank
changes alone (LoRA), of what rank?

Command: `python -m physlm.experiments.sweep finetune`. Models that other studies have trained in
the same store are not trained again.

Expected: in the paper (arXiv 2408.16293, Section 5, Figures 7 and 10) LoRA cannot teach it: at rate
.2 it solves 63 to 79% of the problems of 23 operations, by ranks 4 to 256, where error-free
pretraining solves 78 and continued pretraining 88. Continued pretraining does, at the price of
pretraining; full finetuning is the same there. What a tenth of it does is not published.

Found at `quick` (LoRA of rank 8; rate .5, masked, seeds 0 to 2; rate .2, seed 0): continued
pretraining and full finetuning solve 22% of 7 and 8 operations by their means, with each seed more
than error-free pretraining (10) and pretraining with mistakes (13), which saw half as many tokens.
A tenth of the steps spoils the model (0), and LoRA costs accuracy (46 for 56% at most 6, 6 for 10
beyond, with each seed), as in the paper. Error-free pretraining for twice as long, which sees as
many tokens as what is trained in two steps, does no less (72% at most 6, 26 beyond; continued 66
and 22; ahead with two of three seeds), other than in the paper, whose models had learnt their class
before.

Cost: 74 runs a seed at `quick` and `night`, 98 at `mini` and `paper`; `--filter` takes a part.
`smoke` half an hour, most of it compilation. The rest is estimated: `quick` ten hours and `night`
three days on two CPU cores; at most eight hours for `mini` on one v5e chip and 33 days for `paper`
on eight (training alone, by `--dry-run`).
"""

from collections.abc import Iterator

from ml_collections import ConfigDict

from physlm.experiments import conditions, config
from physlm.experiments.condition import PARENT, TRAINED, Condition
from physlm.experiments.conditions import Planned
from physlm.experiments.figures import Against, AgainstOp, Grid
from physlm.experiments.published import Beside

RATES = (0.05, 0.1, 0.2, 0.5)
MASKS = ("none", "name")
RANKS = (4, 8, 16, 32, 64, 128, 256)
SOME_RANKS = (8, 32, 256)
LORA = "LoRA of rank"


def way(condition: Condition) -> str | None:
    """How a model of data with mistakes was trained."""
    return condition.get(TRAINED, "pretraining") if condition["retry_rate"] else None


def rank(condition: Condition) -> int | None:
    """The rank of a model that LoRA has trained."""
    trained = condition.get(TRAINED, "")
    return int(trained.removeprefix(LORA)) if trained.startswith(LORA) else None


def is_shown_by_op(condition: Condition) -> bool:
    """Whether curves show a condition: not all ranks, which would hide each other."""
    return rank(condition) in (None, *SOME_RANKS)


WAYS = (
    *("pretraining", "for twice as long", "continued", "full finetuning"),
    *("continued for 0.1 of the steps", *(f"{LORA} {rank}" for rank in RANKS)),
)

FIGURES = (
    Grid(
        way,
        (TRAINED, PARENT),
        WAYS,
        name="against",
        heading="Problems solved, by how mistakes were learnt",
    ),
    Against(
        rank,
        "rank of LoRA",
        (TRAINED, PARENT),
        name="ranks",
        heading="Problems solved after LoRA, by its rank",
    ),
    AgainstOp(
        wanted=is_shown_by_op, which=f"LoRA of ranks {', '.join(map(str, SOME_RANKS))} alone"
    ),
)

# The paper's rows, and how a model is trained here.
_WAYS = {
    "pretrain": "",
    "pretrain 2x": "for twice as long",
    "continued pretrain": "continued",
    **{f"LoRA qv{rank}e{2 * rank}": f"{LORA} {rank}" for rank in RANKS},
}
_MASKED = {"": "none", " mask": "name"}

BESIDE = (
    Beside(
        "Fig10_acc",
        {
            "original": {"retry_rate": 0.0},
            **{
                f"{rate} {row}{masked}": {"retry_rate": rate, "trained": trained, "mask": mask}
                for rate in RATES
                for row, trained in _WAYS.items()
                for masked, mask in _MASKED.items()
            },
        },
    ),
)


def get_config(scale: str) -> ConfigDict:
    """What all runs share: the defaults of the scale."""
    return config.base(scale)


def _rank_of_embedding(shared: ConfigDict) -> int:
    model = config.resolve(shared).model
    return min(model.width, model.vocab)


def sweep(config: ConfigDict) -> Iterator[Planned]:
    """Error-free pretraining, also for twice as long; all ways to learn from mistakes, by rate and
    mask. Ranks whose double exceeds that of the embedding are left out."""
    error_free = conditions.pretrain(**{"mistakes.rate": 0.0})
    yield error_free
    # What is trained in two steps has seen as many tokens.
    yield conditions.pretrain_2x(**{"mistakes.rate": 0.0})
    highest = _rank_of_embedding(config)
    for mistakes in conditions.product(
        conditions.over("mistakes.rate", *RATES), conditions.over("mistakes.mask", *MASKS)
    ):
        yield conditions.pretrain(**mistakes)
        yield conditions.pretrain_2x(**mistakes)
        yield conditions.continued(error_free, **mistakes)
        yield conditions.full_finetune(error_free, **mistakes)
        yield conditions.continued_fraction(error_free, 0.1, **mistakes)
        for size in RANKS:
            if 2 * size <= highest:
                yield conditions.lora(error_free, rank=size, **mistakes)
