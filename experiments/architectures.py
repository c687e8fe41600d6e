"""Is it the same with other architectures, and with layers that look at their neighbours?

Question: the paper's models are GPT-2 with rotary positions. Do Llama, Gemma and mixtures of
experts gain as much from mistakes, and does it depend on Canon layers (arXiv 2512.17351), which let
a token see the ones just before it?

Command: `python -m physlm.experiments.sweep architectures`. Models that the quickstart has trained
in the same store are not trained again.

Expected: the paper says of Llama that it makes no visible difference, without numbers; a full table
was asked for by its reviewers, and is not published.

Found: nothing yet; only `smoke` has been run.

Cost: 16 runs a seed. `smoke` some minutes, most of it compilation. The rest is estimated: `quick`
two hours and `night` 17 on two CPU cores; `mini` 85 minutes on one v5e chip and `paper` six days on
eight (training alone, by `--dry-run`).
"""

from collections.abc import Iterator

from ml_collections import ConfigDict

from physlm.experiments import conditions, config
from physlm.experiments.condition import Condition
from physlm.experiments.conditions import Planned
from physlm.experiments.figures import Against, AgainstOp, Robustness

VARIANTS = ("gpt2", "llama", "gemma", "mixtral")
# None, and those that the scale `quick` has.
CANON = ("", "AC")
DATA = ({"mistakes.rate": 0.0}, {"mistakes.rate": 0.5, "mistakes.mask": "name"})


def architecture(condition: Condition) -> str:
    """A variant, and whether it has Canon layers."""
    return condition["variant"] + (" with Canon" if condition["canon"] else "")


FIGURES = (
    Against(
        architecture,
        "architecture",
        ("variant", "canon"),
        heading="Problems solved, by architecture",
    ),
    AgainstOp(),
    Robustness(),
)


def get_config(scale: str) -> ConfigDict:
    """What all runs share: the defaults of the scale."""
    return config.base(scale)


def sweep() -> Iterator[Planned]:
    """Each architecture, with and without Canon layers, on both kinds of data."""
    for model in conditions.product(
        conditions.over("model.variant", *VARIANTS), conditions.over("model.canon", *CANON)
    ):
        for data in DATA:
            yield conditions.pretrain(**model, **data)
