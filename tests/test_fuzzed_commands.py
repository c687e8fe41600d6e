"""The commands with every setting and every kind of wrong value: done, or refused in one sentence.

What compiles, trains or writes is replaced by a mark that the input was accepted; up to there the
commands' own `main` runs, in this process.
"""

import contextlib
import io
import os
import pathlib
import random
import subprocess
import sys
import time

import pytest
from fake_runs import STUDY
from fake_runs import main as fake_sweep
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_gen import __main__ as igsm
from data_gen import settings as declared
from data_gen.frozen import rows
from data_gen.spec import Spec
from data_gen.windows import stream
from physlm import __main__ as physlm_command
from physlm import devices
from physlm.doctor import __main__ as doctor
from physlm.experiments import config, judging, overlap, weights

ROOT = pathlib.Path(__file__).parent.parent
KNOWN = config.declared()

# Of every kind that some setting takes, and of kinds that none does.
VALUES = [
    *("", " ", "none", "None", "true", "false", "True", "yes", "null", "nan", "-nan", "inf"),
    *("-inf", "0", "1", "-1", "2", "3", "7", "100", "0.5", "1.0", "-0.0", "1e3", "1e-320", "1e999"),
    *("999999999999", "9" * 20, "9" * 400, "9" * 5000, "2147483648", "4294967296", "-" + "9" * 30),
    *(
        "0.999999",
        "1,2",
        "1,,2",
        ",",
        "1, 2",
        "3,3,3",
        "0,1",
        "-1,2",
        "1;2",
        "٣",
        "１２",
        "²",
        "1_0",
    ),
    *("0x10", "+5", " 5 ", "5\n", "a", "é", "🜁", "\x00", "\ud800", "\n", "a\nb", "'", '"', "\\"),
    *(
        "[]",
        "[1]",
        "(1,)",
        "{}",
        "{0}",
        "%s",
        "%(x)s",
        "$HOME",
        "~",
        "..",
        "../..",
        "/",
        "/dev/null",
    ),
    *("/nowhere/x", "/etc/passwd", "gs://", "s3://a/b", "file:///etc", "a" * 5000),
    *(
        "muon",
        "linear",
        "gpt2",
        "lora",
        "probe",
        "retry",
        "skip:0.5",
        "skip:0.5,value:0.5",
        "skip:",
    ),
    *(
        "skip:nan,value:1",
        "os.path",
        "os.",
        ".os",
        "back:1",
        "beam:4",
        "beam:0",
        "beam:-1",
        "beam:x",
    ),
    *(
        "sample:temperature=nan",
        "sample:n=0",
        "sample:n",
        "regret:perfect",
        "regret:probe",
        "final",
    ),
    *("best", "dataset", "train", "test", "all", "parent", "can_next", "=", "=1", "1=1", "--help"),
]


class Accepted(BaseException):
    """All was checked, and the work would begin. No command may take it for an error."""


def accept(*arguments, **options):
    raise Accepted


class Started:
    """Stands for what is compiled: called or lowered, it was accepted."""

    __call__ = lower = staticmethod(accept)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory to be in, with a store that holds a finished run; nothing compiles or trains."""
    directory = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(directory)
        patch.setattr(devices, "prepare", lambda *rest, **options: None)
        with contextlib.redirect_stdout(io.StringIO()):
            assert fake_sweep(directory / "store") == 0
        patch.setattr(judging, "judge", accept)
        patch.setattr(weights, "restored", accept)
        patch.setattr(overlap, "counted", accept)
        patch.setattr(rows, "drawn", accept)
        patch.setattr(stream, "problems", Started())
        patch.setattr(doctor, "CHECKS", {})
        yield directory


def outcome(main, arguments, seconds=20):
    """What a command ends with: its code or "accepted", and what it said on standard error."""
    said, began = io.StringIO(), time.process_time()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
        patch.setattr(sys, "stderr", said)
        patch.setattr(sys, "stdout", io.StringIO())
        try:
            code = main(arguments)
        except SystemExit as end:
            code = end.code
        except Accepted:
            code = "accepted"
    assert time.process_time() - began < seconds, arguments
    return code, said.getvalue()


def refused_or_done(main, arguments):
    code, said = outcome(main, arguments)
    assert code in (0, 2, "accepted"), (arguments, code, said)
    if code == 2:
        assert said.count("\n") == 1 and len(said.strip()) > 10, (arguments, said)
        assert "Traceback" not in said and "Error:" not in said, (arguments, said)
    return code


def physlm(*arguments):
    return refused_or_done(physlm_command.main, list(arguments))


def sweep(*arguments):
    asked = ["sweep", STUDY.name, "--scale", "smoke", "--workdir", "work", "--dry-run"]
    return physlm(*asked, *arguments)


def assignments(names):
    """Names and values of settings: right ones, ones that are nearly right, and anything."""
    name = st.one_of(
        st.sampled_from(names),
        st.sampled_from(names),
        st.sampled_from(names).map(lambda name: name[:-1]),
        st.text(max_size=20),
    )
    value = st.one_of(
        st.sampled_from(VALUES),
        st.integers().map(str),
        st.floats().map(str),
        st.text(max_size=40),
    )
    return st.lists(st.builds("{}={}".format, name, value), min_size=1, max_size=3)


often = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@often
@given(texts=assignments([*KNOWN, "model.size", "model", "study"]))
def test_settings_of_a_study(place, texts):
    sweep("--set", *texts)


@often
@given(texts=assignments([*KNOWN]))
def test_settings_of_an_evaluation(place, texts):
    physlm("evaluate", run_in(place), "--set", *texts)


@often
@given(texts=assignments([*declared.of(Spec)]))
def test_settings_of_problems(place, texts):
    refused_or_done(igsm.main, ["sample", "--count", "2", "--set", *texts])


def run_in(place):
    return str(min((place / "store" / "models").iterdir()))


# Each with the arguments that take a value; where that stands alone it is "".
COMMANDS = {
    ("sample",): "--spec --seed --op --order --split --solution --names-file --count --start",
    ("sample", "--mistakes", "retry"): "--rate --mend --late",
    ("freeze", "--out", "frozen"): "--test --format --mistakes --op --split --seed",
    ("draw", "--out", "x.svg"): "--index --mistakes --seed",
    ("draw",): "--out",
    ("check", "-"): "--modulus",
    ("check",): "",
    ("correct",): "",
    ("correct", "-"): "--op --seed",
    ("bench",): "--rounds --count",
    ("stats",): "--start",
    ("sweep", STUDY.name, "--scale", "smoke", "--dry-run"): (
        "--scale --workdir --slice --only --filter --seeds --profile --log --executor --address "
        "--resources --distributed"
    ),
    ("sweep", "--dry-run"): "",
    ("status",): "",
    ("report",): "",
    ("evaluate",): "",
    ("evaluate", "RUN"): "--checkpoint --decode --probe --show --windows",
    ("evaluate", "RUN", "--overlap"): "--windows",
    ("export", "--out", "exported"): "",
    ("export", "RUN"): "--out",
    ("export", "RUN", "--out", "exported"): "--step --dtype --plain --adapter",
    ("adopt",): "",
    ("doctor",): "--path --distributed --set",
    ("doctor", "--set"): "mesh.data mesh.cpu_devices mesh.tensor",
    ("adopt", "nothing"): "--workdir --scale --set",
    (): "",
}
IGSM = {"sample", "freeze", "draw", "check", "correct", "bench", "stats"}


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_arguments_with_values_of_every_kind(place, command):
    main = igsm.main if set(command[:1]) <= IGSM and command else physlm_command.main
    given = [run_in(place) if word == "RUN" else word for word in command]
    ends = set()
    for name in COMMANDS[command].split() or [""]:
        for value in random.Random(name).sample(VALUES, 12 if name else len(VALUES)):
            ends.add(refused_or_done(main, [*given, f"{name}={value}" if name else value]))
    assert 2 in ends


@pytest.mark.slow
def test_every_setting_with_values_of_every_kind(place):
    ends = {
        sweep("--set", f"{name}={value}")
        for name in KNOWN
        for value in random.Random(name).sample(VALUES, 25)
    }
    assert ends == {0, 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["physlm", "sweep", "--set", "train.steps=" + "9" * 20],
        ["physlm.experiments.report", "nowhere"],
        ["physlm", "evaluate", "nowhere", "--decode", "os.path"],
        ["data_gen", "sample", "--set", "modulus=-1"],
        ["data_gen", "freeze", "--out", "/dev/null/x", "--count", "x"],
    ],
)
def test_a_process_of_its_own_refuses_in_one_sentence(tmp_path, arguments):
    made = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert made.returncode == 2 and made.stderr.count("\n") == 1, made.stderr
    assert "Traceback" not in made.stderr and not list(tmp_path.iterdir())
