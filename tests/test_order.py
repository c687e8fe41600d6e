"""In which order reports show conditions."""

import random

import pytest
from test_figures import rows_of

from physlm.experiments import registry, results
from physlm.experiments.summary import summarise

RANKS = [f"LoRA of rank {rank}" for rank in (4, 8, 16, 32, 64, 128, 256)]


def shown(name):
    """The conditions of a study in their order, whatever that of the rows."""
    rows = rows_of(registry.load(name))
    entries = [[row for row in rows if row["condition"] == said] for said in _distinct(rows)]
    found = [line.condition for line in summarise(results.ordered(entries))]
    random.Random(0).shuffle(rows)
    assert [line.condition for line in summarise(rows)] == found
    return found


def _distinct(rows):
    found = []
    for row in rows:
        if row["condition"] not in found:
            found.append(row["condition"])
    return found


@pytest.mark.parametrize(
    ("name", "setting", "values"),
    [
        ("masking", "mask", ["none", "name", "sentence", "all"]),
        ("retry_rate", "mask", ["none", "name"]),
        ("fake_mistakes", "kind", ["skip", "retry_miss", "retry_weak"]),
        ("architectures", "variant", ["gpt2", "llama", "gemma", "mixtral"]),
        ("finetune", "trained", ["continued", "continued for 0.1 of the steps",
                                 "for twice as long", "full finetuning", *RANKS]),
    ],
)  # fmt: skip
def test_values_have_the_order_of_their_meaning(name, setting, values):
    """As they are declared, the usual one first, and by size; of each rate."""
    conditions = shown(name)
    rates = [said["retry_rate"] for said in conditions]
    assert rates == sorted(rates) and rates[0] == 0
    of_rate = [said.get(setting) for said in conditions if said["retry_rate"] == max(rates)]
    assert list(dict.fromkeys(filter(None, of_rate))) == values


def test_what_is_trained_once_is_before_what_is_trained_on():
    assert shown("on_policy")[0] == {"retry_rate": 0.0}
    found = shown("finetune")
    assert "trained" not in found[0] and found[1]["trained"] == "for twice as long"


def test_greedy_decoding_is_first_and_beams_are_in_the_order_of_their_number():
    ways = [said["decode"] for said in shown("regret") if said["retry_rate"] == 0]
    assert ways[:4] == ["greedy", "beam:4", "beam:16", "beam:32"]
