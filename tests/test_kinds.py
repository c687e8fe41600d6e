"""Kinds of mistake: one table of values, to which others can be added from outside."""

import dataclasses
import functools
import io
import json
import pathlib
import re
import shlex

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import TINY, first_keys
from outside import AGAIN, OFF_BY_ONE, one_off

from data_gen.__main__ import main
from data_gen.solutions import faults, kinds
from data_gen.solutions.mistakes import Mistakes
from data_gen.text.judge import judge
from data_gen.text.reader import read
from data_gen.windows import stream

README = pathlib.Path(__file__).parents[1] / "data_gen/README.md"
# A class that compiles fast.
SET = ["--count", "40", "--set", "max_op=3", "max_edges=4", "max_depth=2", "max_width=2"]


def test_names_and_faults_are_one_to_one():
    assert kinds.find("retry") is kinds.find("skip")
    assert kinds.find("nothing") is None
    judged = [
        value for name, value in vars(faults).items() if isinstance(value, str) and name.isupper()
    ]
    assert len(set(judged)) == len(judged)
    for kind in kinds.known():
        assert kind.judged is None or kind.judged in judged
        assert kinds.find(kind.name) is kind
    # What a model does wrong is drawn as the package's kind, whatever else is judged the same.
    assert OFF_BY_ONE.judged == "calculation" == kinds.by_fault()["calculation"]


def test_the_command_prints_every_kind(capsys):
    assert main(["kinds"]) == 0
    printed = capsys.readouterr().out
    for kind in kinds.known():
        assert kind.meaning in printed and kind.told_by in printed
        assert re.search(rf"^{re.escape(kind.name)}(, |$)", printed, re.MULTILINE)
    assert "skip, retry\n" in printed


def test_a_name_stands_for_one_kind():
    assert kinds.register(dataclasses.replace(OFF_BY_ONE)) is OFF_BY_ONE
    # As when a cell of a notebook runs again: another function, elsewhere, that does the same.
    moved = one_off.__code__.replace(co_firstlineno=7, co_filename="elsewhere")
    again = dataclasses.replace(OFF_BY_ONE, others=type(one_off)(moved, one_off.__globals__))
    assert again != OFF_BY_ONE and kinds.register(again) is OFF_BY_ONE
    for other in (
        dataclasses.replace(OFF_BY_ONE, meaning="Another."),
        dataclasses.replace(OFF_BY_ONE, others=lambda sentence: np.ones(2, bool)),
        dataclasses.replace(AGAIN, name="mine", aliases=("retry",)),
    ):
        with pytest.raises(ValueError, match="it must be one that no other kind has"):
            kinds.register(other)
    assert kinds.find("mine") is None
    for name in ("", "a:b", "a,b", "a b", ".a", "a..b", "1a"):
        with pytest.raises(ValueError, match=re.escape(f"name is {name!r}; it must be one word")):
            dataclasses.replace(AGAIN, name=name)


def test_modules_of_kinds_are_imported_by_name(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "kinds_empty.py").write_text("")
    (tmp_path / "kinds_broken.py").write_text("import nowhere_to_be_found\n")
    missing = ("kinds_empty.mine", "kinds_nowhere.mine", "kinds_nowhere.deeper.mine", "..mine")
    for name in missing:
        with pytest.raises(ValueError, match=f"kind is '{name}'; it must be one of skip, retry, "):
            Mistakes(name)
    with pytest.raises(ValueError, match="; the module kinds_empty registers no such kind"):
        Mistakes("kinds_empty.mine")
    with pytest.raises(ValueError, match=r"; Python finds no module kinds_nowhere\.deeper in"):
        Mistakes("kinds_nowhere.deeper.mine")
    with pytest.raises(ValueError, match=r"module kinds_broken of .* No module named 'nowhere_to_"):
        Mistakes("kinds_broken.mine")
    (tmp_path / "kinds_wrong.py").write_text("1 / 0\n")
    with pytest.raises(ValueError, match=r"kinds_wrong.mine cannot be imported: ZeroDivisionError"):
        Mistakes("kinds_wrong.mine")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (
            dataclasses.replace(AGAIN, name="short", candidates=lambda moment: moment.known_P[1:]),
            r"candidates of kind 'short' is bool\[\d+\]; it must be bool\[\d+\]\.",
        ),
        (
            dataclasses.replace(OFF_BY_ONE, name="far", places=lambda _: jnp.ones(1000, bool)),
            r"places of kind 'far' is bool\[1000\]; it must be bool\[n\], n at most \d+\.",
        ),
        (
            dataclasses.replace(OFF_BY_ONE, name="numbers", others=lambda _: np.arange(3)),
            r"others of kind 'numbers' is int64\[3\]; it must be bool\[n\], n at most \d+\.",
        ),
    ],
)
def test_candidates_of_a_wrong_shape_are_refused(kind, said, monkeypatch):
    monkeypatch.setitem(kinds._REGISTERED, kind.name, kind)
    mistakes, keys_N = Mistakes(kind.name, 0.5), first_keys(1)
    problems = jax.eval_shape(functools.partial(stream.problems, spec=TINY), keys_N)
    write = functools.partial(stream.documents, size=64, spec=TINY, mistakes=mistakes)
    with pytest.raises(ValueError, match=said):
        jax.eval_shape(write, keys_N, problems)


@pytest.mark.slow
def test_the_readme_defines_a_kind(tmp_path, monkeypatch):
    """Its module, word for word, and its command, in a small class."""
    text = README.read_text(encoding="utf-8")
    (code,) = [c for c in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "mykinds" in c]
    (command,) = re.findall(r"^python -m data_gen (sample .*mykinds.*)$", text, re.MULTILINE)
    assert len(code.strip().splitlines()) < 15
    (tmp_path / "mykinds.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("sys.stdout", out := io.StringIO())
    assert main([*shlex.split(command), *SET]) == 0
    records = [json.loads(line) for line in out.getvalue().splitlines()]
    seen = {mistake["kind"] for record in records for mistake in record["mended"]}
    assert seen == {"skip", "repeated"}
    for record in records:
        facts = read(record["layers"], record["problem"], record["question"])
        verdict = judge(facts, record["solution"], str(record["answer"]))
        assert verdict.correct and verdict.unnecessary == 0
