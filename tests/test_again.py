"""A finished run is judged again from its checkpoints, and never trained again."""

import json
import logging
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import jax
import pytest
from test_train import truncate_data

from physlm import sharding
from physlm.experiments import config as config_lib
from physlm.experiments import evaluate, execution, files, judging, results, run, sweep, weights

# With a second interpreter CI leaves these out: they take long.
pytestmark = pytest.mark.slow

STUDY = "studies.rates"
SMALL = (
    "train.steps=6",
    "optimizer.warmup_steps=2",
    "train.save_every=2",
    "train.log_every=2",
    "mistakes.rate=0",
    "evaluate.problems=4",
    "evaluate.beyond=",
    "evaluate.max_new_tokens=32",
    "mesh.cpu_devices=1",
)


def swept(workdir: pathlib.Path, *more: str) -> list[results.Row]:
    """Runs a study of one run, and returns what it shows."""
    # A setting may be given once; what stands later counts here.
    given = {text.partition("=")[0]: text for text in (*SMALL, *more)}
    command = [STUDY, "--scale", "smoke", "--workdir", str(workdir), "--set", *given.values()]
    with pytest.MonkeyPatch.context() as patch:
        # The devices of this process were chosen when the first test touched JAX.
        patch.setattr(sweep.devices, "prepare", lambda mesh, batch, cache_dir: None)
        assert sweep.main(command) == 0
    return results.read(workdir / f"{STUDY}-smoke" / results.FILE)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[run.Run, pathlib.Path]:
    workdir = tmp_path_factory.mktemp("runs")
    swept(workdir)
    (directory,) = (workdir / "models").iterdir()
    return run.load(directory), directory


def again(capsys: pytest.CaptureFixture[str], directory: pathlib.Path, *more: str) -> list[dict]:
    assert evaluate.main([str(directory), *more]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def times(directory: pathlib.Path) -> dict[pathlib.Path, int]:
    return {path: path.stat().st_mtime_ns for path in directory.rglob("*")}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was called of training and of decoding."""
    called = []

    def watch(room: Any, name: str) -> None:
        real = getattr(room, name)

        def call(*arguments: Any, **settings: Any) -> Any:
            called.append(name)
            return real(*arguments, **settings)

        monkeypatch.setattr(room, name, call)

    watch(execution.train, "train_together")
    watch(execution.train.step_lib, "make_step")
    watch(judging.evaluate, "evaluate")
    return called


@pytest.fixture(autouse=True)
def leave_jax_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate.devices, "prepare", lambda mesh, batch: None)


def test_final_and_best_and_every_step_can_be_judged(
    trained: tuple[run.Run, pathlib.Path], capsys: pytest.CaptureFixture[str], calls: list[str]
) -> None:
    planned, directory = trained
    # A save that a training has under way is nobody else's to clean up.
    (directory / "checkpoints" / "8.orbax-checkpoint-tmp-1").mkdir()
    before = times(directory)
    rows = again(capsys, directory)
    (path,) = directory.rglob("result.json")
    recorded = json.loads(path.read_text())
    cells = recorded.pop("cells")
    fields = [name for name in results.FIELDS if name not in ("study", "condition")]
    assert rows == [{name: {**recorded, **cell}[name] for name in fields} for cell in cells]
    # The loss fell to the end, so that the best has been judged already.
    assert again(capsys, directory, "--checkpoint", "best") == rows
    assert calls == []
    assert times(directory) == before
    (earlier, *_) = again(capsys, directory, "--checkpoint", "4", "--set", "evaluate.problems=2")
    assert (earlier["step"], earlier["n"]) == (4, 2)
    assert earlier["tokens"] == planned.tokens_after(4)
    assert calls == ["evaluate"]
    new = {path for path, time in times(directory).items() if before.get(path) != time}
    assert {path.name for path in new} == {
        "evaluations", earlier["evaluation"], "config.json", "result.json", "solutions.jsonl",
        "mistakes.txt",
    }  # fmt: skip
    assert all("evaluations" in path.parts for path in new)


@pytest.fixture
def steps_compiled(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], int]]:
    """How many training steps JAX has compiled since, or taken from its cache."""
    with jax.log_compiles(), caplog.at_level(logging.WARNING, logger="jax"):
        yield lambda: sum("Compiling jit(step)" in text for text in caplog.messages)


def test_a_study_finds_what_is_trained_and_judged(
    trained: tuple[run.Run, pathlib.Path],
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    calls: list[str],
    steps_compiled: Callable[[], int],
) -> None:
    _, directory = trained
    workdir = directory.parents[1]
    # Other problems, but as many: what draws and decodes them is compiled already.
    judged = again(capsys, directory, "--set", "evaluate.seed=1")
    assert calls == ["evaluate"]
    before = times(directory)
    rows = swept(workdir, "evaluate.seed=1")
    new = [row for row in rows if row["evaluation"] == judged[0]["evaluation"]]
    assert [row["condition"]["evaluate_seed"] for row in new] == [1, 1]
    for row, found in zip(new, judged, strict=True):
        assert {name: row[name] for name in found} == found
    # What the study had shown before is still there, and what it has not asked for is not.
    assert len(rows) == 4 and {row["step"] for row in rows} == {6}
    assert calls == ["evaluate"]
    assert times(directory) == before
    # What was not judged is judged, and not trained.
    assert len(swept(workdir, "evaluate.seed=2")) == 6
    assert calls == ["evaluate"] * 2
    new_paths = {path for path, time in times(directory).items() if before.get(path) != time}
    assert new_paths and all("evaluations" in path.parts for path in new_paths)
    assert steps_compiled() == 0
    # The best checkpoint is the last, whose model has been judged.
    rows = swept(workdir, "evaluate.seed=2", "evaluate.checkpoint=best")
    assert calls == ["evaluate"] * 2 and steps_compiled() == 0
    best = [row for row in rows if row["condition"].get("evaluate_checkpoint") == "best"]
    final = [row for row in rows if row["condition"].get("evaluate_seed") == 2 and row not in best]
    assert len(best) == 2 and [row["cell"] for row in best] == [row["cell"] for row in final]
    assert {row["evaluation"] for row in best} == {row["evaluation"] for row in final}
    assert run.best_step(directory) == 6
    before = times(directory)
    assert swept(workdir, "evaluate.seed=2", "evaluate.checkpoint=best") == rows
    assert times(directory) == before
    # What is counted is what training does.
    swept(tmp_path, "seed=1")
    assert steps_compiled() == 1


def test_a_study_judges_the_best_checkpoint_where_it_is_another(
    trained: tuple[run.Run, pathlib.Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    calls: list[str],
) -> None:
    planned, directory = trained
    steps = {"final": 6, "best": 4, "4": 4, "6": 6}
    monkeypatch.setattr(weights, "step_of", lambda run, directory, which, *_: steps[which])
    rows = swept(directory.parents[1], "evaluate.seed=3", "evaluate.checkpoint=best")
    best = [row for row in rows if row["condition"].get("evaluate_seed") == 3]
    assert len(best) == 2 and {row["step"] for row in best} == {4}
    assert {row["tokens"] for row in best} == {planned.tokens_after(4)}
    assert run.best_step(directory) == 4 and calls == ["evaluate"]
    # The command does as the setting says, unless it is told otherwise.
    capsys.readouterr()
    for more, step in (([], 4), (["--checkpoint", "final"], 6)):
        settings = ["--set", "evaluate.seed=3", "evaluate.checkpoint=best"]
        assert {row["step"] for row in again(capsys, directory, *more, *settings)} == {step}
    run.note_best(directory, 6)


def test_the_best_is_the_checkpoint_of_the_lowest_loss(
    trained: tuple[run.Run, pathlib.Path],
) -> None:
    planned, directory = trained
    assert files.read_json(directory / run.FINISHED_FILE)["step"] == 6
    for which, step in (("final", 6), ("best", 6), ("4", 4)):
        state = weights.restored(planned, directory, which)
        assert int(state.step) == step
        assert int(state.params["embed"]["embedding"].ndim) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "3"], "--checkpoint is '3'; it must be final, best, or one of 4, 6."),
        (["--checkpoint", "worst"], "--checkpoint is 'worst'; it must be final, best, or one of"),
        (
            ["--set", "model.layers=1"],
            "--set 'model.layers=1' is not allowed: of a run that is there only settings of eval",
        ),
        (["--set", "evaluate.problem=1"], "unknown setting 'evaluate.problem'"),
        (
            ["--set", "data.names_file=x"],
            "data.names_file is 'x'; it must be a JSON file of names",
        ),
    ],
)
def test_what_cannot_be_judged_is_refused(
    arguments: list[str],
    message: str,
    trained: tuple[run.Run, pathlib.Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert evaluate.main([str(trained[1]), *arguments]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(message)
    assert said.err.count("\n") == 1
    assert not said.out


@pytest.mark.parametrize("torn", ["data", "metrics"])
def test_a_damaged_checkpoint_is_refused_and_left(
    torn: str,
    trained: tuple[run.Run, pathlib.Path],
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    directory = tmp_path / "run"
    shutil.copytree(trained[1], directory)
    newest = directory / "checkpoints" / "6"
    if torn == "data":
        truncate_data(newest)
    else:
        (newest / "metrics" / "metrics").write_text('{"loss"')
    before = sorted(directory.rglob("*"))
    assert evaluate.main([str(directory), "--set", "evaluate.problems=6"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"Checkpoint 6 in {directory}/checkpoints is damaged (")
    assert said.endswith("; remove finished.json to have the run go on from a sound one.\n")
    assert said.count("\n") == 1
    assert sorted(directory.rglob("*")) == before
    # What was judged before needs no checkpoint.
    assert evaluate.main([str(directory)]) == 0
    shutil.rmtree(newest)
    assert evaluate.main([str(directory), "--set", "evaluate.problems=6"]) == 2
    assert "lacks the checkpoint of its last step, 6; remove" in capsys.readouterr().err


def test_a_mesh_that_cannot_divide_the_model_is_refused(
    trained: tuple[run.Run, pathlib.Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = []
    monkeypatch.setattr(evaluate.devices, "prepare", lambda mesh, batch: told.append(batch))
    three = jax.sharding.AbstractMesh((1, 1, 1, 3), sharding.AXES)
    monkeypatch.setattr(execution.sharding, "make_mesh", lambda config: three)
    assert (
        evaluate.main([str(trained[1]), "--set", "evaluate.batch=12", "evaluate.problems=7"]) == 2
    )
    assert capsys.readouterr().err.startswith("model.heads is 2; it must be a multiple of the 3 ")
    assert told == [12]


def test_other_directories_are_refused(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "is not the directory of a run: it has no config.json" in error
    assert "DIR/models/RUN" in error
    config = config_lib.base("smoke").to_dict()
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert evaluate.main([str(tmp_path)]) == 2
    assert "holds a run of an older version" in capsys.readouterr().err
    # What was added since may be missing.
    del (
        config["study"],
        config["scale"],
        config["evaluate"]["within"],
        config["model"]["canon_init"],
    )
    del config["data"]["max_terms"], config["data"]["op_draw"], config["data"]["split_by"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert run.load(tmp_path).settings == config_lib.resolve(config_lib.base("smoke"))
    del config["model"]["variant"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert evaluate.main([str(tmp_path)]) == 2
    assert "lacks the setting model.variant" in capsys.readouterr().err
    (tmp_path / "config.json").write_text("[]")
    assert evaluate.main([str(tmp_path)]) == 2
    assert "is not the configuration of a run" in capsys.readouterr().err
