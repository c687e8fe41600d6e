"""What is read of JSON lines: what is damaged is named, with its field, and the rest goes on."""

import json
import re

import pytest
from test_judge import LAYERS, PROBLEM, QUESTION, SOLUTION

from data_gen.__main__ import main
from data_gen.text import lines
from data_gen.text.reader import layers_in, read

GOOD = {
    "id": "a",
    "layers": LAYERS,
    "problem": PROBLEM,
    "question": QUESTION,
    "solution": SOLUTION,
    "written": SOLUTION.replace("2 + 3 = 5", "2 + 3 = 6", 1),
}
DEEP = b"[" * 100_000
NO_LAYERS = "layers must be two or more pairs [category, [item, …]], all of them texts."
DAMAGED = [
    (b'{"id": "\xff"}', "is not valid JSON: byte 8 is not UTF-8."),
    (DEEP, "is not valid JSON: it is nested too deeply."),
    (b'{"id": ' + b"9" * 5000 + b"}", "is not valid JSON: a number has too many digits."),
    (b'{"id": 1', "is not valid JSON: Expecting ',' delimiter, at character 9."),
    (b"null", "is not a JSON object."),
    (b"[1, 2]", "is not a JSON object."),
    ({"question": None}, "has null for question, which must be a text."),
    ({"problem": 3}, "has a number for problem, which must be a text."),
    ({"solution": [SOLUTION]}, "has a list for solution, which must be a text."),
    ({"layers": None}, NO_LAYERS),
    ({"layers": [1, 2]}, NO_LAYERS),
    ({"layers": [["Library", 3], ["Shelf", 4]]}, NO_LAYERS),
    ({"layers": [["Library", []], ["Shelf", ["Red Shelf"]]]}, NO_LAYERS),
    ({"layers": "[" * 100_000}, NO_LAYERS),
    ({"layers": {"Library": ["Oak Library"]}}, NO_LAYERS),
    ({"problem": "what"}, "the sentence 'what' does not say what a known parameter equals."),
    ({"problem": PROBLEM.replace("equals 3.", "equals 03.")}, "'03' begins with no numeral."),
    ({"problem": PROBLEM.replace("equals 3.", "equals ٣.")}, "'٣' begins with no numeral."),
]


def line(damage):
    return damage if isinstance(damage, bytes) else json.dumps({**GOOD, **damage}).encode()


@pytest.fixture
def damaged(tmp_path):
    path = tmp_path / "damaged.jsonl"
    whole = [line({}), *(line(damage) for damage, _ in DAMAGED), line({"id": "last"})]
    path.write_bytes(b"\n".join(whole))
    return str(path)


def test_a_damaged_line_is_not_correct_and_the_rest_is_judged(damaged, capsys):
    assert main(["check", damaged]) == 0
    first, *between, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["correct"] and last["correct"] and last["id"] == "last"
    for number, (found, (_, said)) in enumerate(zip(between, DAMAGED, strict=True), start=2):
        assert not found["correct"]
        assert found["reason"].startswith(f"line {number}: ") and found["reason"].endswith(said)


def test_a_damaged_line_is_named_and_the_rest_is_mended(damaged, capsys):
    assert main(["correct", damaged]) == 0
    out, err = capsys.readouterr()
    assert [json.loads(one)["id"] for one in out.splitlines()] == ["a", "last"]
    told = [one for one in err.splitlines() if one.startswith("line ")]
    for number, (one, (_, said)) in enumerate(zip(told, DAMAGED, strict=True), start=2):
        assert one.startswith(f"line {number}: ") and one.endswith(said)


def test_an_own_solution_that_is_wrong_is_named(tmp_path, capsys):
    path = tmp_path / "wrong.jsonl"
    path.write_bytes(line({"solution": GOOD["written"]}))
    assert main(["correct", str(path)]) == 0
    said = capsys.readouterr().err
    assert said == "line 1: the record's own solution is wrong: 2 + 3 is not 6.\n"


def test_nothing_that_is_read_is_run(tmp_path):
    """What would do something as Python, as a pickle or in a template does nothing."""
    trap = tmp_path / "trap"
    evil = f"__import__('pathlib').Path({str(trap)!r}).touch()"
    pickled = b"cposix\nsystem\n(S'touch " + str(trap).encode() + b"'\ntR."
    for text in (evil, f'{{"id": {evil}}}', f"{{{{{evil}}}}}"):
        with pytest.raises(ValueError, match=r"^Expecting"):
            lines.value(text)
        assert lines.value(json.dumps(text)) == text
        with pytest.raises(ValueError, match=re.escape(NO_LAYERS)):
            layers_in(text)
        with pytest.raises(ValueError, match="does not say what a known parameter equals"):
            read(LAYERS, text, QUESTION)
    with pytest.raises(ValueError, match=r"^Expecting"):
        lines.value(pickled)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sample", "--rate", "0.7"], "--rate is given without --mistakes KIND"),
        (["sample", "--rate", "0"], "--rate is given without --mistakes KIND"),
        (["sample", "--late", "0"], "--late is given without --mistakes KIND"),
        (["freeze", "--mend", "fix", "--out", "x"], "--mend is given without --mistakes KIND"),
        (["draw", "--whole", "--out", "x.svg"], "--whole is given without --mistakes KIND"),
        (
            ["sample", "--set", "max_op=5", "--set", "max_op=6"],
            "max_op is given more than once, by max_op=5 and max_op=6; give one of them.",
        ),
        (
            ["sample", "--op", "3", "--set", "op=4"],
            "op is given more than once, by --op and --set op=4; give one of them.",
        ),
        (
            ["draw", "--out", "/nowhere/x.svg"],
            "out is '/nowhere/x.svg'; it must be in a directory that there is; /nowhere is none.",
        ),
        (["draw", "--out", ".svg"], "out is '.svg'; it must be a file that ends in .png or .svg."),
        (["check", "/nowhere.jsonl"], "/nowhere.jsonl cannot be read or written: No such file"),
    ],
)
def test_what_would_be_ignored_or_fail_late_is_refused_at_once(
    arguments, said, capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    # Nothing has been drawn by then.
    monkeypatch.setattr("data_gen.problems.search.sample_many", None)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(said) and error.count("\n") == 1
    assert not [*tmp_path.iterdir()]


def test_a_picture_is_not_drawn_over_a_directory(tmp_path, capsys):
    (tmp_path / "x.svg").mkdir()
    assert main(["draw", "--out", str(tmp_path / "x.svg")]) == 2
    assert "it must be a file, and is a directory." in capsys.readouterr().err
