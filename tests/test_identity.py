"""What tells runs and evaluations apart: their identity, and nothing else."""

import dataclasses
import json

import pytest
from fake_runs import STUDY
from hypothesis import given
from hypothesis import strategies as st

from data_gen.solutions import names
from physlm.experiments import config, identity, plan, run
from physlm.experiments.evaluation import Evaluation, name_of

SMOKE = config.base("smoke")
SETTINGS = [key for key in config.flatten(SMOKE) if key not in ("study", "scale")]


def smoke_plan(*assignments):
    return plan.plan(STUDY, "smoke", assignments)


# A run that reads every section.
PROBE = {"adaptation.kind": "probe", "parent.run": "a-12345678"}


def made(key=None, value=None):
    """The run of the study with mistakes, with one setting changed, whatever its rooms say."""
    settings = run.make_run(config.override(SMOKE, {"mistakes.rate": 0.5})).settings
    flat = config.flatten(SMOKE) | {"mistakes.rate": 0.5}
    if key and key.startswith(("adaptation.", "parent.", "probe.")):
        flat |= PROBE
    if key and key.startswith("train.records_"):
        flat |= {"train.records": "parent"}
    flat |= {key: value} if key else {}
    return identity.of_run(nested(flat), settings.data)


def nested(flat):
    found = {}
    for key, value in flat.items():
        section, _, name = key.rpartition(".")
        (found.setdefault(section, {}) if section else found)[name] = value
    return found


def test_identity_is_stable():
    # The start of: printf '{"seed":0,"train.steps":5}' | sha256sum
    assert identity.digest({"train.steps": 5, "seed": 0}) == "2fabe5db"


@given(st.sampled_from(SETTINGS))
def test_identity_knows_every_setting_that_can_change_weights(key):
    value = (config.flatten(SMOKE) | PROBE)[key]
    possible = {"mistakes.rate": 0.25, "mistakes.kind": "value", "adaptation.kind": "lora"}
    possible["train.records"] = "parent"
    other = (*value, 9) if isinstance(value, tuple) else possible.get(key, f"{value}x")
    speed = {"train.log_every", "train.save_every", "train.keep", "train.accumulate"}
    speed |= {"model.scan", "model.remat", "model.kernel", "model.positions"}
    # Where files are; what they hold is another matter.
    paths = {"data.names_file", "data.tokenizer_files"}
    same = key in speed | paths or key.startswith(("mesh.", "evaluate."))
    assert (made(key, value) == made(key, other)) == same


@pytest.mark.parametrize(
    "key", ["train.loss_on", "train.attention", "train.pack", "mistakes.mask", "probe.task"]
)
def test_a_run_is_not_told_apart_by_what_it_does_not_read(key):
    probe = {**config.flatten(SMOKE), "mistakes.rate": 0.5, **PROBE}
    data = run.make_run(SMOKE).settings.data

    def facts(**changes):
        return identity.of_run(nested({**probe, **changes}), data)

    assert (facts(**{key: "x"}) == facts()) == (key != "probe.task")
    assert facts(**{"adaptation.kind": "lora", "probe.task": "x"}) == facts(
        **{"adaptation.kind": "lora"}
    )
    full = {"adaptation.kind": "full", "parent.run": ""}
    assert facts(**full, **{"adaptation.rank": 3, "parent.checkpoint": "best"}) == facts(**full)


def test_the_default_of_a_setting_that_was_added_leaves_earlier_runs_their_name():
    added = [key for key, known in config.declared().items() if known.added]
    assert set(added) >= {"data.max_terms", "data.op_draw", "data.split_by", "evaluate.within"}
    assert not set(added) & set(made())
    flat = config.flatten(SMOKE)
    before = nested({key: value for key, value in flat.items() if key not in added})
    assert identity.of_run(before, run.make_run(SMOKE).settings.data) == run.make_run(SMOKE).facts


@given(st.sampled_from([key for key in SETTINGS if key.startswith("evaluate.")]))
def test_an_evaluation_knows_every_setting_that_can_change_its_numbers(key):
    name = key.partition(".")[2]
    settings = run.make_run(SMOKE).settings.evaluate
    if name == "probe":
        settings = dataclasses.replace(settings, decode="regret:probe", probe="that")
    value = getattr(settings, name)
    texts = {"checkpoint": "best", "decode": "beam:4", "probe": "this", "window_tokens": "gpt2"}
    other = (*value, 9) if isinstance(value, tuple) else texts.get(name) or value + 1
    changed = dataclasses.replace(settings, **{name: other})
    # A step says which model it is, however it was chosen.
    same = name in ("batch", "checkpoint")
    names = [name_of(Evaluation(one).config, 20) for one in (settings, changed)]
    assert (names[0] == names[1]) == same
    assert names[0] != name_of(Evaluation(settings).config, 10)


def test_a_setting_that_came_later_leaves_evaluations_as_they_were():
    """The hash is that of the version before `evaluate.within`."""
    settings = run.make_run(SMOKE).settings.evaluate
    known = "step=20,greedy,problems=16,beyond=4-5-21f4a567"
    assert name_of(Evaluation(settings).config, 20) == known
    more = name_of(Evaluation(dataclasses.replace(settings, within=(1, 2))).config, 20)
    assert more.startswith("step=20,greedy,problems=16,within=1-2,beyond=4-5-")


def test_what_means_the_same_way_of_decoding_is_one_evaluation():
    settings = run.make_run(SMOKE).settings.evaluate

    def name(decode):
        return name_of(Evaluation(dataclasses.replace(settings, decode=decode)).config, 20)

    assert name("beam") == name("beam:4") == name("beam:beams=4,sample=false")
    assert name("beam:4").startswith("step=20,beam-4,problems=16,")
    assert len({name(text) for text in ("greedy", "beam", "beam:5", "sample", "sample:2")}) == 5


@given(st.randoms(use_true_random=False))
def test_identity_does_not_depend_on_the_order_of_settings(random):
    def shuffled(content):
        items = [(k, shuffled(v) if isinstance(v, dict) else v) for k, v in content.items()]
        random.shuffle(items)
        return dict(items)

    spec = run.make_run(SMOKE).settings.data
    facts = [identity.of_run(one, spec) for one in (shuffled(SMOKE.to_dict()), SMOKE.to_dict())]
    assert identity.digest(facts[0]) == identity.digest(facts[1])


def test_what_an_error_free_run_does_not_read_is_none_of_its_identity():
    changed = ("mistakes.kind=value", "mistakes.mask=all", "train.budget=problems")
    (free, mistaken), (other_free, other_mistaken) = smoke_plan(), smoke_plan(*changed)
    assert other_free.run.name == free.run.name
    assert other_mistaken.run.name != mistaken.run.name
    assert other_free.condition == {
        "retry_rate": 0.0,
        "kind": "value",
        "mask": "all",
        "budget": "problems",
    }


def test_files_count_by_what_they_hold(tmp_path):
    paths = [tmp_path / name for name in ("a.json", "b.json", "c.json")]
    text = json.dumps(
        [[{"name": c.name, "items": c.items} for c in hierarchy] for hierarchy in names.HIERARCHIES]
    )
    for path in paths:
        path.write_text(text)
    paths[2].write_text(text.replace("Amber", "Umber"))
    (first, _), (second, _), (third, _) = (smoke_plan(f"data.names_file={path}") for path in paths)
    assert first.run.name == second.run.name != third.run.name
    assert first.condition == second.condition != third.condition
    assert str(tmp_path) not in json.dumps(first.shown)


def test_only_runs_whose_wrong_sentences_may_repeat_got_another_identity():
    assert made()["mistakes.kind"] == "skip" and "mistakes.sentences" not in made()
    for kind in ("value", "skip:0.7,value:0.3"):
        assert made("mistakes.kind", kind)["mistakes.sentences"] == "distinct"
