"""Can an error-free model be taught afterwards to mend its mistakes?

Question: mistakes with their corrections in pretraining make a model reason better. Is it enough to
show them to a model that was pretrained without: for as long again (continued pretraining, with the
optimizer as it was, or full finetuning, with a fresh one), for a tenth of that, or by low-rank
changes alone (LoRA)?

Command: `python -m physlm.experiments.sweep conditions`. Models that the quickstart has trained in
the same store are not trained again.

Expected: in the paper (arXiv 2408.16293, Section 5 and Figure 10) LoRA at rate 0.2 solves 63 to 79%
of the problems of 23 operations, where error-free pretraining solves 78 and continued pretraining
88; full finetuning is continued pretraining there. What a tenth of it does is not published.

Found at `quick` (seed 0): error-free pretraining for twice as long, which sees as many tokens as
what is trained in two steps, is ahead of all of it up to 7 operations (68% at most 6, 32 at 7) and
level at 8, other than in the paper, whose models had learnt their class before. Of the others,
continued pretraining and full finetuning (63 and 20 to 21% at rate 0.5) reach what pretraining with
mistakes reaches (59 and 20), a tenth of the steps spoils the model (20 and 0), and LoRA of rank 8
costs accuracy (49 and 6), as in the paper.

Cost: `smoke` some minutes, most of it compilation; at `quick` not more than an hour on two CPU
cores, beside the quickstart.
"""

from collections.abc import Iterator

from ml_collections import ConfigDict

from physlm.experiments import conditions, config
from physlm.experiments.conditions import Planned

# The quickstart's, and the rate of the paper's Figure 10 without a mask.
MISTAKES = (
    {"mistakes.rate": 0.5, "mistakes.mask": "name"},
    {"mistakes.rate": 0.2},
)


def get_config(scale: str) -> ConfigDict:
    """What all runs share: the defaults of the scale."""
    return config.base(scale)


def sweep() -> Iterator[Planned]:
    """Error-free pretraining, also for twice as long; five ways to learn from mistakes, by rate."""
    error_free = conditions.pretrain(**{"mistakes.rate": 0.0})
    yield error_free
    # What is trained in two steps has seen as many tokens.
    yield conditions.pretrain_2x(**{"mistakes.rate": 0.0})
    for mistakes in MISTAKES:
        yield conditions.pretrain(**mistakes)
        yield conditions.continued(error_free, **mistakes)
        yield conditions.full_finetune(error_free, **mistakes)
        yield conditions.continued_fraction(error_free, 0.1, **mistakes)
        yield conditions.lora(error_free, rank=8, **mistakes)
