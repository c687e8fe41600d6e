import itertools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from fake_runs import STUDY, VIEW, FakeRuns, main, times

from physlm.experiments import adoption, evaluate, plan, report, results, status, store, sweep

pytestmark = pytest.mark.usefixtures("devices_stay", "unrendered")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--set", "train.step=5"], "unknown setting 'train.step'"),
        (
            ["--set", "train.steps=many"],
            "^train.steps is 'many'; it must be a whole number, at least 1",
        ),
        (["--set", "train.steps=0"], "train.steps is 0"),
        (["--set", "train.steps=3"], "optimizer.warmup_steps is 4"),
        (["--set", "data.modulus=1"], "^data.modulus is 1; "),
        (["--set", "data.max_edges=1"], "^data.max_edges is 1; "),
        (
            ["--set", "data.max_op=50", "data.letters=52"],
            "^data.max_op is 50; it must be at most .*, what data.max_edges=.*, data.max_depth=.*, "
            "data.max_width=.* and data.max_terms=.* leave room for",
        ),
        (["--set", "mistakes.rate=1.5"], "rate"),
        (
            ["--set", "evaluate.beyond=2"],
            r"^evaluate.beyond is \(2,\); it must be whole numbers above data.max_op, 3",
        ),
        (["--set", "evaluate.beyond=50"], "evaluate.beyond has 50: "),
        (["--set", "seed=-1"], "seed is -1"),
        (["--set", "model.from="], "^model.from is ''; it must be a directory of a model of Hugg"),
        (
            ["--set", "model.from=x", "parent.run=y"],
            "^model.from is given beside another model.from or parent.run: give one of them",
        ),
        (["--set", "model.from=/no"], "^model.from is '/no': /no has no config.json: it is no dir"),
        (["--set", "train.window=8"], "^train.window is 8; it must be at least .*: the shortest"),
        (["--set", "mesh.data=1000"], "it must be at most the number of devices"),
        (["--colour"], "unrecognized arguments"),
        (
            ["--set", "seed=1", "--set", "seed=2"],
            "^seed is given more than once, by seed=1 and seed=2; give one of them.",
        ),
        (
            ["--set", "model.size=2-2", "model.size=3-2"],
            "^model.size is given more than once, by model.size=2-2 and model.size=3-2;",
        ),
        (
            ["--set", "data.max_op=30", "data.letters=12"],
            "^data.letters is 12; it must be at least data.max_op, 30, so that no letter",
        ),
        (["--set", "data.max_width=1"], "^data.max_width is 1; it must be at least data.min_width"),
        (["--set", "mistakes.rate=1.0"], "^mistakes.rate is 1.0; it must be a number at least 0"),
        (
            ["--set", "mistakes.late=1"],
            "^mistakes.late is 1; it must be 0, since skip stops at a name: mistakes.whole=true",
        ),
        (
            ["--set", "data.names_file=/nowhere"],
            "^data.names_file is '/nowhere'; it must be a JSON file of names that can be read",
        ),
        (
            ["--set", "model.heads=2", "model.kv_heads=4"],
            "^model.kv_heads is 4; it must be a divisor of model.heads, 2",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(tmp_path, capsys, arguments, complaint):
    refused(tmp_path / "work", capsys, complaint, *arguments)


def test_an_unknown_scale_is_one_sentence_and_leaves_nothing(tmp_path, capsys):
    complaint = "unknown scale 'huge': there are smoke, quick, night, mini, paper"
    refused(tmp_path / "work", capsys, complaint, scale="huge")


@pytest.mark.parametrize(
    ("study", "complaint"),
    [
        ("nothing", "unknown study 'nothing': there are .*quickstart.*, as mypackage.mystudy"),
        ("quickstrat", r"unknown study 'quickstrat' \(nearest: quickstart\): there are"),
        (
            "nopackage.nothing",
            "nopackage.nothing cannot be imported: No module named 'nopackage'; Python looks in",
        ),
        ("physlm.metrics", "the study 'physlm.metrics' lacks the function get_config"),
        ("../quickstart", "the study is '../quickstart'; it must be one of .*quickstart.*, or the"),
    ],
)
def test_what_is_no_study_is_one_sentence_and_leaves_nothing(tmp_path, capsys, study, complaint):
    refused(tmp_path / "work", capsys, complaint, study=study)


def test_a_mistake_in_a_study_of_ones_own_names_the_study(tmp_path, capsys, monkeypatch):
    (tmp_path / "mytypos").mkdir()
    (tmp_path / "mytypos/rates.py").write_text(
        '"""Does it?"""\nfrom physlm.experiments import config\nget_config = config.base\n'
        'def sweep():\n    yield {"mistakes.rat": 0.5}\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    complaint = r"^the study 'mytypos.rates': unknown setting 'mistakes.rat' \(nearest: mistakes.ra"
    for seeds in ((), ("--seeds", "0:2")):
        refused(tmp_path / "work", capsys, complaint, *seeds, study="mytypos.rates")


def refused(workdir, capsys, complaint, *arguments, **study):
    try:
        code = main(workdir, *arguments, **study)
    except SystemExit as leaving:
        code = leaving.code
    assert code == 2
    sentence = capsys.readouterr().err
    assert re.search(complaint, sentence)
    assert sentence.count("\n") == 1
    assert not workdir.exists()


@pytest.mark.parametrize("workdir", ["", " "])
def test_no_workdir_is_not_the_directory_that_one_is_in(tmp_path, capsys, monkeypatch, workdir):
    monkeypatch.chdir(tmp_path)
    commands = [
        (sweep, [STUDY.name, "--scale", "smoke", "--workdir", workdir]),
        (report, [workdir]),
        (status, [workdir]),
        (evaluate, [workdir]),
    ]
    for command, arguments in commands:
        with pytest.raises(SystemExit) as leaving:
            command.main(arguments)
        assert leaving.value.code == 2
        assert f"{workdir!r} is not allowed; a local path is" in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_workdir_that_is_or_lies_in_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    for workdir in (tmp_path / "file", tmp_path / "file" / "below"):
        assert main(workdir) == 2
        assert "is a file" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


def test_workdir_without_permission_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(store.os, "access", lambda path, mode: False)
    assert main(tmp_path / "work") == 2
    assert "is not writable" in capsys.readouterr().err


def test_workdir_that_cannot_be_made_is_refused(tmp_path, capsys, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "makedirs", refuse)
    assert main(tmp_path / "work") == 2
    assert "is not writable: Read-only file system" in capsys.readouterr().err


@pytest.mark.skipif(not pathlib.Path("/proc/self").exists(), reason="needs /proc")
def test_nothing_is_computed_before_the_workdir_can_be_written():
    """Compiled programs would be looked for there, and that they are not, be warned of."""
    command = "sweep --scale smoke --workdir /proc/nowhere/runs"
    done = subprocess.run(
        [sys.executable, "-m", *f"physlm.experiments.{command}".split()],
        env={k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "--workdir /proc/nowhere/runs is not writable: No such file or directory.\n"
    )


def test_results_of_another_study_are_refused_untouched(tmp_path, capsys):
    main(tmp_path)
    path = tmp_path / VIEW / results.FILE
    path.write_text(path.read_text().replace(f'"{STUDY.name}"', '"masking"'))
    before = path.read_text()
    capsys.readouterr()
    assert main(tmp_path) == 2
    assert f"results of the study 'masking', not of '{STUDY.name}'" in capsys.readouterr().err
    assert path.read_text() == before


@pytest.mark.parametrize(
    ("left", "complaint"),
    [
        (
            f"{VIEW}/retry_rate=0.0,seed=0-0123abcd/config.json",
            f"{VIEW} holds a run itself, retry_",
        ),
        (f"{VIEW}/retry_rate=0.0,seed=0-0123abcd/checkpoints/5/x", "choose another --workdir."),
        ("retry_rate=0.0,seed=0-0123abcd/config.json", "holds a run itself, retry_rate=0.0,seed=0"),
        ("results.jsonl", "is what a study shows and not a store"),
        ("config.json", "is the directory of a run and not a store"),
    ],
)
def test_what_an_older_version_left_is_refused_untouched(tmp_path, capsys, left, complaint):
    (tmp_path / left).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / left).write_text("")
    before = times(tmp_path)
    assert main(tmp_path) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.count("\n") == 1
    assert times(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *itertools.product(["shown.json", "finished.json", "result.json"], ["{", "[3]", "{}"]),
        *itertools.product(["runs.json"], ["{", "[3]", '{"a": "b"}']),
    ],
)
def test_damaged_files_are_set_aside_and_made_again(tmp_path, capsys, name, text):
    """They follow from others; a dry run leaves them alone, and says which they are."""
    main(tmp_path)
    path = min(tmp_path.rglob(name))
    whole, shown = path.read_bytes(), (tmp_path / VIEW / results.FILE).read_bytes()
    path.write_text(text)
    before = times(tmp_path)
    capsys.readouterr()
    assert main(tmp_path, "--dry-run") == 2
    error = capsys.readouterr().err
    assert str(path) in error and error.count("\n") == 1
    assert times(tmp_path) == before
    assert main(tmp_path) == 0
    (sentence,) = [line for line in capsys.readouterr().err.splitlines() if str(path) in line]
    assert sentence.endswith(f": it is set aside as {name}.damaged, and made again.")
    assert path.with_name(f"{name}.damaged").read_text() == text
    assert set(path.read_bytes().splitlines()) == set(whole.splitlines())
    assert (tmp_path / VIEW / results.FILE).read_bytes() == shown
    assert main(tmp_path) == 0 and ".damaged" not in capsys.readouterr().err


def test_what_another_command_asked_for_is_shown_again(tmp_path, capsys):
    """Where what is shown is lost: as far as there are results of it."""
    assert main(tmp_path, "--set", "seed=1") == 0
    assert main(tmp_path) == 0
    path = tmp_path / VIEW / results.FILE
    whole = path.read_bytes()
    (tmp_path / VIEW / "shown.json").write_bytes(b"")
    path.write_bytes(b"x" + whole)
    assert main(tmp_path) == 0
    assert path.read_bytes() == whole


def test_a_run_whose_configuration_is_damaged_gets_it_again(tmp_path, capsys):
    main(tmp_path)
    paths = [min(tmp_path.glob(f"models/*/{place}config.json")) for place in ("", "*/*/")]
    whole = [path.read_bytes() for path in paths]
    for path in paths:
        path.write_bytes(path.read_bytes()[:9])
    capsys.readouterr()
    fake = FakeRuns()
    assert main(tmp_path, execute=fake) == 0
    assert fake.trained == fake.judged == []
    assert [path.read_bytes() for path in paths] == whole
    error = capsys.readouterr().err
    assert all(f"{path} is not valid JSON (" in error for path in paths)


def test_solutions_of_another_size_are_written_again(tmp_path, capsys):
    main(tmp_path)
    path = min(tmp_path.rglob("result.json"))
    solutions = path.with_name("solutions.jsonl")
    solutions.write_text(json.dumps({"cell": "4", "problem": "", "question": "", "correct": True}))
    size = solutions.stat().st_size
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"solutions_bytes": size}))
    fake = FakeRuns()
    assert main(tmp_path, execute=fake) == 0 and fake.judged == []
    path.write_text(json.dumps(content | {"solutions_bytes": size + 1}))
    assert main(tmp_path, execute=fake) == 0
    assert len(fake.judged) == 1
    assert f"{solutions} has {size} bytes of {size + 1}, so that" in capsys.readouterr().err
    # What was removed to save room is not missed.
    solutions.unlink()
    path.write_text(json.dumps(content | {"solutions_bytes": size + 1}))
    fake = FakeRuns()
    assert main(tmp_path, execute=fake) == 0 and fake.judged == []


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[:-9], "line 2 of .*results.jsonl is not valid JSON ("),
        (lambda data: b"\xff" + data, "line 1 of .*results.jsonl is not valid JSON (byte 0 is not"),
        (lambda data: b"[" * 100_000, "line 1 of .*results.jsonl is not valid JSON (it is nested"),
        (lambda data: b"[]\n" + data, "line 1 of .*results.jsonl is not a JSON object"),
        (
            lambda data: data.replace(b'"n": 9', b'"n": "9"'),
            "line 1 of .* has n = '9', not a",
        ),
    ],
)
def test_results_that_are_damaged_are_made_again(tmp_path, capsys, damage, said):
    """They follow from what evaluations wrote, and so the sweep goes on."""
    main(tmp_path)
    path = tmp_path / VIEW / results.FILE
    before = path.read_bytes()
    path.write_bytes(damage(before))
    capsys.readouterr()
    assert main(tmp_path, "--dry-run") == 0
    assert path.read_bytes() != before
    assert main(tmp_path) == 0
    told = capsys.readouterr().err
    assert re.search(said.replace("(", r"\("), told)
    assert "the file is made again from the results of the runs." in told
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", ["[]", "", "null", "[" * 100_000, '{"seed": 0}', b"\xff"])
def test_a_configuration_that_is_none_is_named(tmp_path, capsys, content):
    main(tmp_path)
    path = min((tmp_path / "models").glob("*/config.json"))
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    capsys.readouterr()
    assert evaluate.main([str(path.parent)]) == 2
    error = capsys.readouterr().err
    assert str(path) in error and error.count("\n") == 1
    assert report.main([str(tmp_path / VIEW)]) in (0, 2)
    error = capsys.readouterr().err
    assert error.count("\n") < 2 and (not error or str(path) in error)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ["--decode", "beam:x"],
            "evaluate.decode is 'beam:x', in which 'x' must be a whole number",
        ),
        (
            ["--decode", "beam:2,top_k=3"],
            "evaluate.decode is 'beam:2,top_k=3', in which sample must be true where",
        ),
        (["--decode", "gredy"], "evaluate.decode is 'gredy'; it must be one of greedy"),
        (["--checkpoint", ""], "--checkpoint is ''; it must be final, best or a step."),
        (["--checkpoint", " "], "--checkpoint is ' '; it must be final, best or a step."),
    ],
)
def test_what_a_model_is_to_be_judged_by_is_named(tmp_path, capsys, arguments, complaint):
    main(tmp_path)
    run = min((tmp_path / "models").iterdir())
    before = times(tmp_path)
    capsys.readouterr()
    assert evaluate.main([str(run), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(complaint) and error.count("\n") == 1
    assert times(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [("decode", "greedy", "beam:2"), ("probe", "one", "other"), ("checkpoint", "", "final")],
)
def test_what_a_model_is_judged_by_is_said_once(capsys, name, first, second):
    with pytest.raises(SystemExit) as refused:
        evaluate.main(["nowhere", f"--{name}", first, "--show", "2", f"--{name}={second}"])
    error = capsys.readouterr().err
    assert refused.value.code == 2 and error.count("\n") == 1
    assert error.startswith(f"--{name} is given twice, as {first!r} and as {second!r}")


def test_checkpoints_of_other_settings_are_refused_untouched(tmp_path, capsys):
    (planned, _) = plan.plan(STUDY, "smoke", ())
    checkpoints = tmp_path / "models" / planned.run.name / "checkpoints"
    (checkpoints / "10" / "state").mkdir(parents=True)
    said = checkpoints / "made_by.json"
    said.write_text(json.dumps({"model.layers": 3, "data.max_op": 7, "model.heads": 2}))
    before = sorted(tmp_path.rglob("*"))
    assert main(tmp_path) == 2
    error = capsys.readouterr().err
    assert "differs in model.layers (there 3, here 2), data.max_op (there 7, here 3)." in error
    assert error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
    # Without checkpoints there is nothing to go on from.
    shutil.rmtree(checkpoints / "10")
    assert main(tmp_path) == 0


def test_a_model_that_there_is_no_room_for_is_said(tmp_path, capsys, monkeypatch):
    ended = subprocess.CompletedProcess([], 1, "", "said elsewhere")
    monkeypatch.setattr(adoption.subprocess, "run", lambda *_, **__: ended)
    assert main(tmp_path, "--set", "model.from=model") == 1
    error = capsys.readouterr().err
    assert "the model of model" in error and error.count("\n") == 1
