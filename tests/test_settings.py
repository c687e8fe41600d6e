"""Settings: each is declared once, and all that is said of it elsewhere follows from that."""

import dataclasses
import inspect
import re
import subprocess
import sys

import pytest
from benchmarks import workloads

from data_gen import settings
from data_gen.settings import RefusedError
from physlm.architecture import ModelConfig
from physlm.experiments import config, scales, sweep

KNOWN = config.declared()
PARTS = [part for parts in config.SECTIONS.values() for part in parts]


@dataclasses.dataclass(frozen=True)
class Sample:
    count: int | None = settings.whole(3, "How many.", low=1, high=9, besides=(None,))
    share: float = settings.number(0.5, "How much.", at_least=0, below=1)
    word: str = settings.choice("a", "Which.", ("a", "b"))
    loud: bool = settings.flag(True, "Whether.")
    path: str = settings.text("", "Where.", "a path")
    places: tuple[int, ...] = settings.wholes((1, 2), "Where to.", low=1)

    def __post_init__(self) -> None:
        settings.check(self)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("count", "9", 9),
        ("count", "none", None),
        ("share", "0", 0.0),
        ("share", "1e-3", 0.001),
        ("loud", "false", False),
        ("path", "none", "none"),
        ("path", "", ""),
        ("places", "5,6", (5, 6)),
        ("places", "", ()),
    ],
)
def test_a_text_is_read_as_the_type_and_written_back(name, text, value):
    found = settings.of(Sample)[name].parse(name, text)
    assert (found, type(found)) == (value, type(value))
    assert settings.of(Sample)[name].parse(name, settings.written(found)) == value
    assert getattr(Sample(**{name: value}), name) == value


def test_whole_numbers_are_those_that_jax_counts_with():
    known = settings.of(ModelConfig)["layers"]
    known.check("layers", 2**31 - 1)
    with pytest.raises(RefusedError, match="whole number, at least 1, and at most 2147483647"):
        known.check("layers", 2**31)
    with pytest.raises(RefusedError, match="and at most 2147483647"):
        settings.of(Sample)["places"].check("places", (1, 10**20))


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("count", 0, "a whole number in 1..9, or none"),
        ("count", 10, "a whole number in 1..9, or none"),
        ("count", True, "a whole number in 1..9, or none"),
        ("count", 2.0, "a whole number in 1..9, or none"),
        ("share", 1.0, "a number at least 0 and below 1"),
        ("share", float("nan"), "a number at least 0 and below 1"),
        ("share", "0.5", "a number at least 0 and below 1"),
        ("share", None, "a number at least 0 and below 1"),
        ("word", "c", "one of a, b"),
        ("word", None, "one of a, b"),
        ("loud", 1, "true or false"),
        ("path", 3, "a path"),
        ("places", (0,), "whole numbers with commas between them, each at least 1"),
        ("places", (True,), "whole numbers with commas between them, each at least 1"),
        ("places", 5, "whole numbers with commas between them, each at least 1"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused(name, value, allowed):
    with pytest.raises(RefusedError) as refused:
        Sample(**{name: value})
    assert str(refused.value) == f"{name} is {value!r}; it must be {allowed}."
    assert str(refused.value.within("room")).startswith(f"room.{name} is ")
    part = RefusedError(name, value, allowed, part="'a'").within("room")
    assert str(part) == f"room.{name} is {value!r}, in which 'a' must be {allowed}."


@pytest.mark.parametrize(
    ("name", "text"), [("count", "x"), ("count", ""), ("share", "x"), ("loud", "1")]
)
def test_a_text_that_is_no_value_is_refused(name, text):
    setting = settings.of(Sample)[name]
    with pytest.raises(RefusedError) as refused:
        setting.parse(name, text)
    assert str(refused.value) == f"{name} is {text!r}; it must be {setting.allowed}."


# The settings that there are.


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_every_field_is_declared_with_its_meaning(part):
    known = settings.of(part)
    undeclared = {field.name for field in dataclasses.fields(part)} - set(known)
    # What follows from the data is no setting.
    assert undeclared == ({"vocab", "window"} if part.__name__ == "ModelConfig" else set())
    for name, setting in known.items():
        assert setting.accepts(setting.default), name
        assert re.fullmatch(r"\S.*[.]", setting.meaning), name
        assert not re.search(rf"(?m)^ +{name}:", inspect.getdoc(part) or ""), name


def test_no_name_of_a_section_is_declared_twice():
    for section, parts in config.SECTIONS.items():
        names = [name for part in parts for name in settings.of(part)]
        assert len(names) == len(set(names)), section


def test_the_published_recipe_is_the_defaults_but_for_four():
    paper = config.flatten(config.base("paper"))
    assert [*config.ARGUMENTS, *KNOWN] == [
        key for key in [*config.ARGUMENTS, *KNOWN] if key in paper
    ]
    assert len(paper) == len(KNOWN) + len(config.ARGUMENTS)
    other = {key: paper[key] for key, known in KNOWN.items() if paper[key] != known.default}
    evaluated = {"evaluate.reasked": (20,), "evaluate.window_tokens": "gpt2"}
    assert other == {"data.split": "train", "model.dtype": "bfloat16"} | evaluated


@pytest.mark.parametrize("scale", scales.NAMES)
def test_a_scale_states_only_what_it_changes(scale):
    before, stated = "paper", scales.CHANGES.get(scale, {})
    if scale == "night":
        before, stated = "quick", scales.OVERNIGHT
    if scale == "paper_hard":
        stated = scales.HARD
    values = config.flatten(config.base(before))
    if scale == "paper":
        values = {key: known.default for key, known in KNOWN.items()}
    for key, value in stated.items():
        assert value != values[key], f"{key} of {scale} is that of {before}"


def test_a_night_is_more_of_what_is_quick():
    quick, night = config.base("quick"), config.base("night")
    assert night.mistakes == quick.mistakes
    assert night.model.to_dict() == {**quick.model, "heads": 2 * quick.model.heads}
    changed = {"learning_rate": night.optimizer.learning_rate}
    assert night.optimizer.to_dict() == {**quick.optimizer, **changed}
    assert night.data.to_dict() == {**quick.data, "statement_op": 2}
    assert night.train.window == quick.train.window
    assert night.train.steps * night.train.batch > 3 * quick.train.steps * quick.train.batch
    assert {*night.evaluate.beyond} > {*quick.evaluate.beyond}


def test_what_is_timed_beside_another_checkout_is_possible():
    """Whatever the scale that it changes has become."""
    config.resolve(config.override(config.base("quick"), workloads.SETTINGS))


def test_all_but_speed_and_judging_decides_the_weights():
    free = {key for key in KNOWN if not config.decides(key)}
    inside = {key for key in free if not key.startswith(("evaluate.", "mesh."))}
    assert inside == {
        "data.names_file",  # Their contents decide.
        "data.tokenizer_files",
        "train.records",
        "model.positions",
        "model.scan",
        "model.remat",
        "model.kernel",
        "train.accumulate",
        "train.log_every",
        "train.save_every",
        "train.keep",
    }
    judging = {key for key in KNOWN if key.startswith(("evaluate.", "mesh."))}
    assert free - inside == judging
    assert not any(map(config.decides, config.ARGUMENTS))


def test_members_of_a_population_differ_in_what_is_no_shape():
    free = {key for key in KNOWN if config.of_member(key)}
    own = {key for key in free if not key.startswith(("mistakes.", "evaluate."))}
    assert own == {"seed", "optimizer.learning_rate", "parent.run", "parent.checkpoint"}
    assert free - own == {key for key in KNOWN if key.startswith(("mistakes.", "evaluate."))}


@pytest.mark.parametrize("ask", [config.decides, config.of_member])
def test_nothing_is_said_of_keys_that_there_are_not(ask):
    with pytest.raises(ValueError, match=r"unknown setting 'train.step' \(nearest: train.steps\)"):
        ask("train.step")
    with pytest.raises(ValueError, match=r"'rate' \(nearest: mistakes.rate\): there are seed,"):
        ask("rate")


def test_a_configuration_takes_no_new_names():
    shared = config.base("smoke")
    with pytest.raises(AttributeError, match="steps"):
        shared.train.step = 5
    with pytest.raises(TypeError):
        shared.train.steps = "many"
    shared.train.steps = 30
    assert config.resolve(shared).train.steps == 30


# What `--settings` prints.


def test_settings_are_printed_with_value_and_meaning(capsys):
    kind = "retry_weak_public:0.5,value:0.5"
    assert sweep.main(["--settings", "--scale", "quick", "--set", f"mistakes.kind={kind}"]) == 0
    lines = [*capsys.readouterr().out.splitlines(), ""]
    assert max(map(len, lines)) <= 100
    values = config.flatten(config.base("quick")) | {"mistakes.kind": kind}
    paper = config.flatten(config.base("paper"))
    right = next(line.index("Seed of") for line in lines if line.startswith("seed "))
    for key, setting in KNOWN.items():
        (at,) = (n for n, line in enumerate(lines) if line.split()[:1] == [key])
        entry = lines[at : lines.index("", at)]
        mark = [] if config.decides(key) else ["*"]
        assert entry[0].split()[1 : len(mark) + 2] == [*mark, settings.written(values[key]) or '""']
        other = "(" + (settings.written(paper[key]) or '""') + ")"
        shown = any(line.split()[:1] == [other] for line in entry[1:])
        assert shown == (values[key] != paper[key]), key
        words = " ".join(line[right:].strip() for line in entry).strip()
        assert words.lower().endswith(f"{setting.meaning} {setting.allowed}.".lower()), key


def test_who_has_read_enough_of_the_settings_is_left_alone():
    command = f"{sys.executable} -m physlm.experiments.sweep --settings | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.stdout.startswith("Settings of the study quickstart")
    assert not done.stderr


def test_settings_are_printed_of_studies_that_there_are(capsys):
    assert sweep.main(["nothing", "--settings"]) == 2
    assert capsys.readouterr().err.startswith("unknown study 'nothing'")
