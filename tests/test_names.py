"""Names: which are used, our own and those of a file."""

import json
import re

import pytest
from drawn import SMALL, drawn, facts_of

from data_gen.settings import RefusedError
from data_gen.solutions import language, names
from data_gen.spec import Spec
from data_gen.text import records
from data_gen.text.judge import judge
from physlm.experiments import config


def test_names_come_from_the_part_that_is_asked_for():
    _, _, found = drawn(SMALL)
    used = {(layer[0], item) for record in found for layer in record["layers"] for item in layer[1]}
    allowed = {
        (category.name, category.item(sub, n))
        for hierarchy in names.HIERARCHIES[: SMALL.hierarchies]
        for category in hierarchy
        for sub in range(SMALL.subcategories)
        for n in range(SMALL.names)
    }
    assert used == allowed


def shaped(change):
    """Names of a file's shape, none beginning another, after `change` to them."""
    content = [
        [
            {
                "name": f"Kind{h}{c}",
                "items": [[f"First{h}{c} N{s}x{n}" for n in range(20)] for s in range(5)],
            }
            for c in range(4)
        ]
        for h in range(4)
    ]
    change(content)
    return content


def test_names_can_come_from_a_file(tmp_path):
    path = tmp_path / "names.json"
    path.write_text(json.dumps(shaped(lambda content: None)))
    spec = Spec(**{**SMALL.__dict__, "names_file": str(path)})
    vocab, ours = language.vocabulary(spec), language.vocabulary(SMALL)
    assert vocab.size == ours.size and " First10 N1x2" in vocab.ids
    assert not any(token.startswith(" First") for token in ours.tokens)
    problems, documents, _ = drawn(SMALL)
    found = records.records(problems, documents, spec)
    assert found[0]["layers"][0][0].startswith("Kind")
    assert all(judge(facts_of(r, spec), r["solution"]).correct for r in found)


def rename(name):
    def change(content):
        content[1][2]["items"][3][4] = name

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.pop(), "the file must hold a list of 4."),
        (lambda c: c[0][0].pop("name"), "hierarchy 1, part 1 has no 'name'."),
        (lambda c: c[3][1]["items"].pop(), "hierarchy 4, part 2 must hold a list of 5."),
        (rename("First10 N0x0"), "the name 'First10 N0x0' stands twice in hierarchy 2."),
        (rename("First10"), "the name 'First10' begins the name 'First10 N0x0' of hierarchy 2."),
        (rename("Salt and Pepper"), "the name 'Salt and Pepper' of hierarchy 2 is not allowed"),
        (rename("Sedano's Market"), "is not allowed"),
        (rename("St. Mary"), "is not allowed"),
        (rename("Two  Blanks"), "is not allowed"),
        (rename(7), "the name 7 of hierarchy 2 is not allowed"),
    ],
)
def test_files_with_ambiguous_names_are_refused(change, said, tmp_path):
    path = tmp_path / "names.json"
    path.write_text(json.dumps(shaped(change)))
    with pytest.raises(ValueError, match=re.escape(said)):
        names.hierarchies(str(path))
    with pytest.raises(
        ValueError, match=r"names_file is .*; it must be a JSON file of names that can be"
    ):
        names.hierarchies(str(tmp_path / "missing.json"))


def test_names_are_unambiguous():
    names.check(names.HIERARCHIES)

    spec = Spec()
    vocab = language.vocabulary(spec)
    assert len(set(vocab.tokens)) == vocab.size
    assert vocab.size - vocab.names == 4 * 4 * 5 * 20
    for hierarchy in names.HIERARCHIES:
        mine = [
            category.item(sub, n) for category in hierarchy for sub in range(5) for n in range(20)
        ] + [category.name for category in hierarchy]
        assert len(set(mine)) == len(mine)
        for one in mine:
            assert "'s" not in one and "." not in one
            assert not any(other.startswith(one + " ") for other in mine)


def test_names_of_ones_own_have_no_known_length_in_gpt2s_tokens(tmp_path):
    path = tmp_path / "names.json"
    path.write_text(json.dumps(shaped(lambda content: None)))
    changes = {"data.names_file": str(path)}
    allowed = (
        "own with data.names_file, since how many of GPT-2's tokens 'Kind00' takes is known of"
    )
    with pytest.raises(
        RefusedError, match=f"evaluate.window_tokens is 'gpt2'; it must be {allowed}"
    ):
        config.resolve(config.override(config.base("paper"), changes))
    settings = config.override(config.base("paper"), changes | {"evaluate.window_tokens": "own"})
    assert config.resolve(settings).data.names_file == str(path)
