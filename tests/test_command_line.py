"""The command line of data_gen: its fields are a contract."""

import io
import json
import re

import pytest

from data_gen.__main__ import main

pytestmark = pytest.mark.slow

# A class that compiles fast.
TINY = ["--set", "max_op=3", "max_edges=4", "max_depth=2", "max_width=2"]


def printed(*arguments):
    """What `sample` prints of problems of seed 3."""
    with pytest.MonkeyPatch.context() as patch:
        out = io.StringIO()
        patch.setattr("sys.stdout", out)
        assert main(["sample", "--seed", "3", *arguments]) == 0
    return [json.loads(line) for line in out.getvalue().splitlines()]


@pytest.fixture(scope="module")
def sampled():
    """Six problems as the command prints them, and again in two parts."""
    mistakes = ("--mistakes", "retry", "--rate", "0.5")
    whole = printed("--count", "6", *mistakes, *TINY)
    return whole, printed("--count", "2", "--start", "4", *mistakes, *TINY)


@pytest.fixture(scope="module")
def asked():
    """The same problems with another question each, which stands before the problem."""
    return printed("--count", "6", "--reask", "--order", "qp", *TINY)


def test_sample_prints_the_fields_of_the_contract(sampled):
    whole, _ = sampled
    fields = ["id", "layers", "problem", "question", "solution", "answer", "op"]
    assert [list(record) for record in whole] == [fields] * 6
    assert whole[0]["id"] == "med-3-0"
    category, items = whole[0]["layers"][0]
    assert isinstance(category, str) and len(items) >= 2
    assert "BACK" in "".join(record["solution"] for record in whole)


def test_start_only_says_where_to_begin(sampled):
    whole, part = sampled
    assert part == whole[4:]


def test_fields_may_be_set_one_by_one(sampled):
    one_by_one = [part for field in TINY[1:] for part in ("--set", field)]
    whole, _ = sampled
    assert printed("--count", "6", "--mistakes", "retry", "--rate", "0.5", *one_by_one) == whole


def test_check_judges_what_sample_prints(sampled, tmp_path, capsys):
    whole, _ = sampled
    spoilt = dict(whole[1], solution=whole[1]["solution"].replace("so ", "thus ", 1))
    path = tmp_path / "solutions.jsonl"
    lines = [json.dumps(whole[0]), "{not json", "[]", json.dumps({"id": 7}), json.dumps(spoilt)]
    path.write_text("\n".join([*lines, "", json.dumps(dict(whole[2], layers=3))]) + "\n")
    assert main(["check", str(path)]) == 0
    verdicts = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    fields = ["id", "correct", "reason", "first_wrong_step", "retries", "unnecessary"]
    assert [list(verdict) for verdict in verdicts] == [fields] * 6
    assert [verdict["correct"] for verdict in verdicts] == [True] + [False] * 5
    assert verdicts[0]["retries"] == whole[0]["solution"].count("BACK")
    assert "line 2: " in verdicts[1]["reason"]
    assert "line 3: " in verdicts[2]["reason"]
    assert verdicts[3]["reason"] == "line 4: has no field 'layers'."
    assert verdicts[4]["reason"] == "a step does not end in 'so'"
    assert "line 7: " in verdicts[5]["reason"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "/nowhere.jsonl"], "No such file"),
        (["sample", "--rate", "1.5", "--mistakes", "retry"], "rate is 1.5; it must be a number"),
        (["sample", "--op", "60"], "op is 60; it must be a whole number in 1..52, or none."),
        (["stats", "--set", "max_op"], "--set 'max_op' is not of the form KEY=VALUE."),
        (
            ["stats", "--set", "maxop=3"],
            "unknown setting 'maxop' (nearest: max_op): there are max",
        ),
        (["bench", "--set", "max_op=few"], "max_op is 'few'; it must be a whole number in 1..52."),
        (["bench", "--set", "reask=1"], "reask is '1'; it must be true or false."),
        (["sample", "--set", "max_edges=1"], "max_edges is 1; it must be at least 2, for"),
        (
            ["sample", "--names-file", "/nowhere.json"],
            "names_file is '/nowhere.json'; it",
        ),
    ],
)
def test_bad_input_is_one_sentence(arguments, said, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sample", "--count", "0"], "'0' is not allowed; it must be a whole number in 1..21474"),
        (["sample", "--spec", "easy"], "invalid choice: 'easy'"),
        # An option that is cut short could be another than was meant.
        (["sample", "--cou", "3"], "unrecognized arguments: --cou"),
        (["sample", "--seed", "4294967296"], "it must be a whole number in 0..2147483647"),
    ],
)
def test_bad_arguments_exit_with_2(arguments, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_stats_is_the_table_of_what_sample_prints(sampled, capsys):
    whole, _ = sampled
    assert main(["stats", "--seed", "3", "--count", "6", *TINY]) == 0
    features, templates = capsys.readouterr().out.split("\n\n")
    rows = {line.split()[0]: line.split()[1:] for line in features.splitlines()}
    ops = [record["op"] for record in whole]
    counts = [line.split()[:2] for line in templates.splitlines()[1:]]
    assert counts == [[str(op), str(ops.count(op))] for op in sorted(set(ops))]
    assert rows["op"][0] == f"{sum(ops) / 6:.3f}"
    assert (float(rows["op"][2]), float(rows["op"][-1])) == (min(ops), max(ops))
    assert float(rows["answer"][0]) == pytest.approx(sum(r["answer"] for r in whole) / 6, abs=1e-3)


def test_any_field_of_a_spec_can_be_set(asked):
    assert printed("--count", "6", *TINY, "order=qp", "reask=true") == asked
    for record in asked:
        assert [len(items) for _, items in record["layers"]] == [2, 2]


def test_bench_says_what_it_measured_on(capsys):
    assert main(["bench", "--count", "6", "--rounds", "1", *TINY]) == 0
    out = capsys.readouterr().out
    assert re.match(r"[\d,]+ problems/s \(med, 6 at once, median of 1\) on \w+", out)
    peak = re.search(r"compiled in [\d.]+ s.*; the process at its peak: ([\d.]+) GiB", out)
    # JAX and a compiled class take hundreds of MiB, and no test here tens of GiB.
    assert 0.2 < float(peak[1]) < 20


def test_reasked_problems_pass_the_check(sampled, asked, tmp_path, capsys):
    whole, _ = sampled
    for before, after in zip(whole, asked, strict=True):
        assert before["problem"] == after["problem"] and before["question"] != after["question"]
    path = tmp_path / "asked.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in asked))
    assert main(["check", str(path)]) == 0
    verdicts = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [verdict["correct"] for verdict in verdicts] == [True] * 6


def test_types_of_mistakes_are_told_where_asked_for(sampled, tmp_path, capsys):
    path = tmp_path / "solutions.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in sampled[0]) + "{\n")
    assert main(["check", "--types", str(path)]) == 0
    *verdicts, unread = map(json.loads, capsys.readouterr().out.splitlines())
    for record, verdict in zip(sampled[0], verdicts, strict=True):
        assert verdict["kind"] == ""
        assert {(m["kind"], m["mending"], m["late"]) for m in verdict["mended"]} <= {
            ("skip", "back", 0)
        }
        assert len(verdict["mended"]) == record["solution"].count("BACK")
    assert unread["kind"] is unread["mended"] is None
    arguments = ["--seed", "3", "--count", "6", "--mistakes", "retry", "--rate", "0.5", "--types"]
    assert main(["sample", *arguments, *TINY]) == 0
    drawn = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record.pop("mended") for record in drawn] == [v["mended"] for v in verdicts]
    assert drawn == sampled[0]


def test_wrong_solutions_are_mended(sampled, tmp_path, capsys):
    """What `correct` prints passes `check`; what it cannot read is named on standard error."""
    path = tmp_path / "solutions.jsonl"
    rows = [
        {**record, "written": re.sub(r"= (\d+)\.", "= 9999.", record["solution"], count=1)}
        for record in sampled[0]
    ]
    right = {**sampled[0][0], "written": sampled[0][0]["solution"]}
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, right, sampled[0][0]]))
    assert main(["correct", str(path), *TINY]) == 0
    out, err = capsys.readouterr()
    assert "line 8: has no field 'written'" in err
    assert "7 solutions, 6 wrong" in err and "6 mended" in err
    mended = tmp_path / "mended.jsonl"
    mended.write_text(out)
    assert main(["check", str(mended)]) == 0
    verdicts = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(verdicts) == 6 and all(verdict["correct"] for verdict in verdicts)
