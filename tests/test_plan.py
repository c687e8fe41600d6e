import dataclasses
import functools
import json
import re
import sys

import jax
import numpy as np
import pytest
from fake_runs import STUDY
from hypothesis import given
from hypothesis import strategies as st

from data_gen.windows import questions
from physlm import cells, optimizer, sharding, step
from physlm.experiments import config, plan, registry, run, scales

SHIPPED = registry.load("quickstart")
SMOKE = config.base("smoke")
SETTINGS = [key for key in config.flatten(SMOKE) if key not in ("study", "scale")]


def smoke_plan(*assignments):
    return plan.plan(STUDY, "smoke", assignments)


# Studies and scales.


@pytest.mark.parametrize("scale", scales.NAMES)
@pytest.mark.parametrize("name", registry.names())
def test_every_study_is_planned_at_every_scale(name, scale):
    study = registry.load(name)
    entries = plan.plan(study, scale)
    shown = [json.dumps(entry.shown, sort_keys=True) for entry in entries]
    assert len(set(shown)) == len(shown) > 0
    assert registry.configure(study, scale).scale == scale


def batch_of(settings):
    """What a training step is given, by shapes alone."""
    rows, window = settings.train.batch, settings.windows.window

    def of(kind, *shape):
        return jax.ShapeDtypeStruct((rows, *shape), kind)

    if settings.adaptation.kind == "probe":
        asked = settings.probe.questions
        room = questions.room(settings.probe.task, settings.data)
        batch = {name: of(np.int32, asked) for name in ("cuts", "ends", "answers")}
        batch |= {"tokens": of(np.int32, window), "asked": of(np.int32, asked, room)}
        return {**batch, "weights": of(np.float32, asked)}
    batch = {"tokens": of(np.int32, window + 1), "weights": of(np.float32, window)}
    if settings.windows.attention == "document":
        batch["segments"] = of(np.int32, window)
    for name, dropout in (
        ("keys", settings.model.dropout),
        ("adapters", settings.adaptation.kind == "lora" and settings.adaptation.dropout),
    ):
        if dropout:
            batch[name] = of(np.uint32, 2)
    return batch


@pytest.mark.parametrize("name", registry.names())
def test_the_first_and_the_last_run_of_every_study_can_be_built(name):
    """A state and a training step of each, what writes solutions, and the cells to be solved."""
    entries = plan.plan(registry.load(name), "smoke")
    for entry in (entries[0], entries[-1]):
        settings, judged = entry.run.settings, entry.evaluation.settings
        mesh = sharding.make_mesh(settings.mesh)
        transform = optimizer.make(settings.optimizer, settings.train.steps)
        learning = settings.learning
        state = step.abstract_state(settings.model, transform, mesh, learning.adaptation)
        whole = step.abstract_params(settings.model, mesh)
        split = functools.partial(learning.adaptation.split, model=settings.model)
        _, frozen = jax.eval_shape(split, whole, key=jax.random.key(0))
        # Tracing runs all of the model's and the optimizer's code, and takes a second.
        trained = step.make_step(settings.model, transform, mesh, 1, learning)
        after, metrics = jax.eval_shape(trained, state, batch_of(settings), frozen or None)
        assert jax.tree.map(np.shape, after.params) == jax.tree.map(np.shape, state.params)
        assert metrics["loss"].shape == ()
        assert cells.of(settings.data, judged)[0].op == settings.data.max_op
        if judged.recipe.asks != "probe":
            judged.recipe.bound(settings.data, settings.model)
        else:
            (probe,) = entry.needs
            assert probe.settings.probe.task == "can_next"


@pytest.mark.parametrize("scale", scales.NAMES)
def test_the_quickstart_compares_the_same_two_conditions(scale):
    runs = [entry.run for entry in plan.plan(SHIPPED, scale)]
    mistakes = [(one.settings.mistakes.rate, one.settings.mistakes.mask) for one in runs]
    assert mistakes == [(0.0, "none"), (0.5, "name")]
    # Nothing but these sets them apart.
    assert len({run.shape(one) for one in runs}) == 1


@pytest.mark.parametrize("name", registry.names())
def test_every_study_says_what_it_is(name):
    parts = registry.load(name).doc.split("\n\n")
    for heading in ("Question: ", "Command: ", "Expected: ", "Found", "Cost: "):
        assert any(part.startswith(heading) for part in parts), heading
    (cost,) = (part for part in parts if part.startswith("Cost: "))
    # What `paper_hard` costs beside `paper` is the same for all, and said once, with the scales.
    told = [scale for scale in scales.NAMES if scale != "paper_hard"]
    assert [scale for scale in told if f"`{scale}`" not in cost] == []
    assert "estimated" in cost.lower()


WHOLE = "'What?'\ndef get_config(scale): ...\nsweep = get_config\n"


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("'What?'\ndef get_config(scale): ...\n", "'others.some' lacks the function sweep."),
        ("'What?'\nsweep = get_config = 3\n", "'others.some' lacks the function get_config."),
        ("def get_config(scale): ...\nsweep = get_config\n", "'others.some' lacks a docstring."),
        ("def get_config(scale)\n", "the module others.some cannot be imported: expected ':'"),
        ("import nothing.at_all\n", "others.some cannot be imported: No module named 'nothing'."),
        ("'What?'\n\nFIGURES = nothing\n", "some cannot be imported: NameError in line 3 of"),
        (f"{WHOLE}FIGURES = 3\n", "FIGURES of the study 'others.some' is 3; it must be a tuple."),
        (f"{WHOLE}VERSUS = 'mask'\n", "VERSUS of the study 'others.some' is 'mask'; it must be s"),
    ],
)
def test_a_module_that_is_no_study_is_refused(tmp_path, monkeypatch, source, complaint):
    package = tmp_path / "others"
    package.mkdir()
    (package / "some.py").write_text(source)
    (package / "_hidden.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "others"]:
        monkeypatch.delitem(sys.modules, name)
    assert registry.names("others") == ["some"]
    with pytest.raises(ValueError, match=re.escape(complaint)):
        registry.load("others.some")


def test_paper_scale_is_the_published_recipe():
    (settings, *_) = (entry.run.settings for entry in plan.plan(SHIPPED, "paper"))
    assert (settings.model.layers, settings.model.heads, settings.model.head_dim) == (12, 12, 64)
    assert (settings.train.steps, settings.train.batch, settings.windows.window) == (
        10**5,
        512,
        768,
    )
    assert settings.optimizer.name == "adamw"
    assert (settings.optimizer.beta1, settings.optimizer.beta2) == (0.9, 0.98)
    assert (settings.optimizer.learning_rate, settings.optimizer.weight_decay) == (2e-3, 0.05)
    assert (settings.optimizer.warmup_steps, settings.optimizer.final_fraction) == (1000, 0.01)
    assert settings.evaluate.problems == 4096
    assert settings.evaluate.beyond == (20, 21, 22, 23)
    assert settings.evaluate.within == ()


# Settings.


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("train.steps=7", 7),
        ("optimizer.learning_rate=1e-4", 1e-4),
        ("optimizer.learning_rate=1", 1.0),
        ("model.tied=true", True),
        ("model.dtype=bfloat16", "bfloat16"),
        ("evaluate.beyond=5,6", (5, 6)),
        ("evaluate.beyond=", ()),
        ("seed=3", 3),
    ],
)
def test_assignment_takes_the_type_of_the_default(text, value):
    _, parsed = config.parse_assignment(text)
    assert (parsed, type(parsed)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("train.steps=1.5", "train.steps is '1.5'; it must be a whole number, at least 1."),
        ("train.steps=", "train.steps is ''; it must be a whole number, at least 1."),
        ("train.steps=none", "train.steps is 'none'; it must be a whole number, at least 1."),
        ("train.steps=0", "train.steps is 0; it must be a whole number, at least 1."),
        ("optimizer.learning_rate=fast", "learning_rate is 'fast'; it must be a number above 0."),
        ("optimizer.learning_rate=nan", "learning_rate is nan; it must be a number above 0."),
        ("optimizer.learning_rate=inf", "learning_rate is inf; it must be a number above 0."),
        ("model.tied=1", "model.tied is '1'; it must be true or false."),
        ("model.dtype=float16", "model.dtype is 'float16'; it must be one of float32, bfloat16."),
        ("mesh.data=0", "mesh.data is 0; it must be a whole number, at least 1, or -1."),
        ("evaluate.beyond=5,x", "evaluate.beyond is '5,x'; it must be whole numbers with commas"),
        (
            "train.step=5",
            r"unknown setting 'train.step' \(nearest: train.steps\): there are train.",
        ),
        ("speed=5", r"unknown setting 'speed'.* seed, adaptation.\*, data.\*, evaluate.\*"),
        ("data.op=3", r"unknown setting 'data.op'"),
        ("data.reask=true", r"unknown setting 'data.reask'"),
        ("train=5", "'train' is a section: its settings are train.accumulate, train.attention"),
        ("scale=quick", "'scale' cannot be set"),
        ("train.steps", "is not of the form KEY=VALUE."),
        ("__class__=x", "unknown setting"),
    ],
)
def test_bad_assignment_is_refused(text, complaint):
    with pytest.raises(ValueError, match=complaint):
        config.parse_assignment(text)


@given(st.sampled_from(SETTINGS))
def test_any_setting_survives_its_own_text(key):
    value = config.flatten(SMOKE)[key]
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    text = text.lower() if isinstance(value, bool) else text
    assert config.parse_assignment(f"{key}={text}") == (key, value)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"mistakes.rate": "high"}, "mistakes.rate is 'high'; it must be a number"),
        ({"mistakes.rat": 0.1}, "unknown setting 'mistakes.rat'"),
        ({"train.steps": True}, "train.steps is True; it must be a whole number"),
        ({"train.steps": 2.0}, "train.steps is 2.0; it must be a whole number"),
        ({"model.tied": 1}, "model.tied is 1; it must be true or false"),
        ({"train.pack": None}, "train.pack is None; it must be one of cut, whole."),
        ({"evaluate.beyond": ("5",)}, r"evaluate.beyond is \('5',\); it must be whole numbers"),
    ],
)
def test_study_with_a_bad_override_is_refused(changes, complaint):
    study = dataclasses.replace(STUDY, sweep=lambda: iter([changes]))
    with pytest.raises(ValueError, match=complaint):
        plan.plan(study, "smoke")


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("step", 5, "get_config of the study 'studies.rates' fails: .*step"),
        ("steps", "5", "fails: "),
    ],
)
def test_study_that_sets_what_is_not_there_is_refused(key, value, complaint):
    def get_config(scale):
        shared = config.base(scale)
        shared.train[key] = value
        return shared

    study = dataclasses.replace(STUDY, get_config=get_config)
    with pytest.raises(ValueError, match=complaint):
        plan.plan(study, "smoke")


def _fails_in_sweep():
    yield {}
    yield {"mistakes.rate": 1 / 0}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"get_config": lambda scale: int("x")}, "get_config .* fails: ValueError in line .*'x'$"),
        ({"get_config": lambda scale: None}, "get_config .* returns None; it must return a conf"),
        ({"sweep": _fails_in_sweep}, "sweep .* fails: ZeroDivisionError in line .* of .*test_plan"),
        ({"sweep": lambda: None}, "sweep of the study 'studies.rates' yields None; it must yield"),
        ({"sweep": lambda: [{}, 3]}, "sweep of the study 'studies.rates' yields 3; it must yield"),
        ({"sweep": lambda: []}, "'studies.rates' has no runs"),
    ],
)
def test_a_study_that_fails_says_where(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        plan.plan(dataclasses.replace(STUDY, **changes), "smoke")


def test_override_leaves_the_original_alone():
    changed = config.override(SMOKE, {"train.steps": 7, "mistakes.rate": 0})
    assert changed.train.steps == 7
    assert isinstance(changed.mistakes.rate, float)
    assert config.base("smoke").train.steps == SMOKE.train.steps != 7


# Names.


def test_run_is_named_by_what_it_is_seed_and_identity():
    first, second = smoke_plan("seed=3")
    assert re.fullmatch(r"error-free,gpt2-2-2,20\.5k,seed=3-[0-9a-f]{8}", first.run.name)
    assert re.fullmatch(r"skip-0\.5,gpt2-2-2,20\.5k,seed=3-[0-9a-f]{8}", second.run.name)
    assert first.condition == {"retry_rate": 0.0}


def test_neither_study_nor_scale_makes_another_run():
    (first, _) = smoke_plan()
    study = dataclasses.replace(STUDY, name="mine")
    smoke = config.flatten(SMOKE)
    quick = config.flatten(config.base("quick"))
    back = {key: smoke[key] for key in SETTINGS if smoke[key] != quick[key]}
    study = dataclasses.replace(study, sweep=lambda: iter([back]))
    (same,) = plan.plan(study, "quick")
    assert same.run == first.run
    assert not {"study", "scale"} & set(first.run.config)


def test_settings_given_by_hand_set_a_run_apart():
    (first, _) = smoke_plan("train.batch=16", "model.layers=3", "evaluate.beyond=4")
    assert first.condition == {
        "retry_rate": 0.0,
        "beyond": [4],
        "layers": 3,
        "train_batch": 16,  # There is a batch in `evaluate` too.
    }
    assert smoke_plan("train.batch=8")[0].run.name == smoke_plan()[0].run.name


def test_settings_that_change_no_result_change_no_name():
    changed = smoke_plan("mesh.cpu_devices=1", "evaluate.batch=8", "train.save_every=2")
    assert [entry.shown for entry in changed] == [entry.shown for entry in smoke_plan()]
    assert changed[0].run.settings.evaluate.batch == 8


def test_one_run_is_trained_once_however_often_it_is_judged():
    changes = [{"evaluate.problems": n} for n in (16, 17, 16)]
    study = dataclasses.replace(STUDY, sweep=lambda: iter(changes))
    entries = plan.plan(study, "smoke")
    assert [entry.condition["problems"] for entry in entries] == [16, 17]
    (task,) = plan.tasks(entries)
    assert [one.settings.problems for one in task.evaluations] == [16, 17]


def test_equal_runs_are_merged():
    (only,) = smoke_plan("mistakes.rate=0.2")
    assert only.condition == {"retry_rate": 0.2}


def test_a_kind_by_another_name_is_the_same_run():
    named = [entry.run.name for entry in smoke_plan("mistakes.kind=skip")]
    assert named == [entry.run.name for entry in smoke_plan("mistakes.kind=retry")]
    assert named != [entry.run.name for entry in smoke_plan("mistakes.kind=retry_weak")]


def test_a_mixture_of_kinds_is_swept_over_its_rate():
    entries = smoke_plan("mistakes.kind=skip:0.7,value:0.3")
    assert [entry.condition["retry_rate"] for entry in entries] == [0.0, 0.5]
    rates = {kind.name: rate for kind, rate in entries[1].run.settings.mistakes.rates}
    assert rates == pytest.approx({"skip": 0.35, "value": 0.15})
    assert "skip-0.7-value-0.3-0.5" in entries[1].run.name
    assert entries[1].condition["kind"] == "skip:0.7,value:0.3"


def test_a_size_by_name_is_its_three_settings() -> None:
    (named, _) = smoke_plan("model.size=3-5")
    (spelled, _) = smoke_plan("model.layers=3", "model.heads=5", "model.head_dim=64")
    assert named == spelled
    assert ",gpt2-3-5," in named.run.name
    # What stands later counts.
    (later, _) = smoke_plan("model.size=3-5", "model.heads=2")
    assert (later.run.settings.model.layers, later.run.settings.model.heads) == (3, 2)
    for text in ("model.size=12", "model.size=0-12", "model.size=a-b"):
        with pytest.raises(ValueError, match=r"^model\.size is '.*'; it must be layers-heads, as "):
            smoke_plan(text)


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["model.variant=bert"], r"^model\.variant is 'bert'; it must be one of gpt2, llama, "),
        (
            ["train.window=3000"],
            r"^model\.positions is 2048; it must be at least the window \(train\.window\), 3000",
        ),
        (
            ["evaluate.within=1,4"],
            r"^evaluate\.within is \(1, 4\); it must be whole numbers up to data\.max_op, 3",
        ),
        (
            ["evaluate.max_new_tokens=2000"],
            r"plus evaluate\.max_new_tokens is 2128; it must be",
        ),
        (["model.kv_heads=3"], r"^model\.kv_heads is 3; it must be a divisor of model\.heads, 2\."),
        (
            ["train.accumulate=0"],
            r"^train\.accumulate is 0; it must be a whole number, at l",
        ),
    ],
)
def test_models_that_cannot_be_are_refused(assignments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        smoke_plan(*assignments)
