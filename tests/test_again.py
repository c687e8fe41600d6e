"""A finished run is judged again from its checkpoints."""

import json
import pathlib
import shutil

import jax
import pytest
from test_train import truncate_data

from physlm import sharding
from physlm.experiments import config as config_lib
from physlm.experiments import evaluate, execution, registry, results, run, sweep

# With a second interpreter CI leaves these out: they take long.
pytestmark = pytest.mark.slow

SMALL = ("train.steps=6", "optimizer.warmup_steps=2", "train.save_every=2", "train.log_every=2")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[run.Run, pathlib.Path]:
    workdir = tmp_path_factory.mktemp("runs")
    few = ("evaluate.problems=4", "evaluate.beyond=", "evaluate.max_new_tokens=32")
    assignments = [*SMALL, *few, "mesh.cpu_devices=1"]
    (planned, _) = sweep.plan(registry.load("quickstart"), "smoke", assignments)
    ((_, error),) = execution.execute([planned], workdir)
    assert error is None
    return planned, workdir / planned.name


def again(capsys: pytest.CaptureFixture[str], directory: pathlib.Path, *more: str) -> list[dict]:
    assert evaluate.main([str(directory), *more]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.fixture(autouse=True)
def leave_jax_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate.devices, "prepare", lambda mesh, batch: None)


def test_final_and_best_and_every_step_can_be_judged(
    trained: tuple[run.Run, pathlib.Path], capsys: pytest.CaptureFixture[str]
) -> None:
    planned, directory = trained
    # A save that a training has under way is nobody else's to clean up.
    (directory / "checkpoints" / "8.orbax-checkpoint-tmp-1").mkdir()
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
    rows = again(capsys, directory)
    recorded = json.loads((directory / results.RUN_FILE).read_text())
    cells = recorded.pop("cells")
    assert rows == [{name: {**recorded, **cell}[name] for name in results.FIELDS} for cell in cells]
    # The loss fell to the end.
    assert again(capsys, directory, "--checkpoint", "best") == rows
    (earlier, *_) = again(capsys, directory, "--checkpoint", "4", "--set", "evaluate.problems=2")
    assert (earlier["step"], earlier["n"]) == (4, 2)
    assert earlier["tokens"] == planned.tokens_after(4)
    assert before == {path: path.stat().st_mtime_ns for path in directory.rglob("*")}


def test_the_best_is_the_checkpoint_of_the_lowest_loss(
    trained: tuple[run.Run, pathlib.Path],
) -> None:
    planned, directory = trained
    for which, step in (("final", 6), ("best", 6), ("4", 4)):
        state = execution.restored(planned, directory, which)
        assert int(state.step) == step
        assert int(state.params["embed"]["embedding"].ndim) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checkpoint", "3"], "--checkpoint is '3'; it must be final, best, or one of 4, 6."),
        (["--checkpoint", "worst"], "--checkpoint is 'worst'; it must be final, best, or one of"),
        (
            ["--set", "model.layers=1"],
            "--set 'model.layers=1' is not allowed: settings of eval",
        ),
        (["--set", "evaluate.problem=1"], "unknown setting 'evaluate.problem'"),
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
    assert evaluate.main([str(directory)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"Checkpoint 6 in {directory}/checkpoints is damaged (")
    assert said.count("\n") == 1
    assert sorted(directory.rglob("*")) == before


def test_a_mesh_that_cannot_divide_the_model_is_refused(
    trained: tuple[run.Run, pathlib.Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = []
    monkeypatch.setattr(evaluate.devices, "prepare", lambda mesh, batch: told.append(batch))
    three = jax.sharding.AbstractMesh((1, 1, 1, 3), sharding.AXES)
    monkeypatch.setattr(execution.sharding, "make_mesh", lambda config: three)
    assert evaluate.main([str(trained[1]), "--set", "evaluate.batch=12"]) == 2
    assert capsys.readouterr().err.startswith("model.heads is 2; it must be a multiple of the 3 ")
    assert told == [12]


def test_other_directories_are_refused(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate.main([str(tmp_path)]) == 2
    assert "is not the directory of a run: it has no config.json" in capsys.readouterr().err
    config = config_lib.base("smoke").to_dict()
    del config["model"]["variant"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert evaluate.main([str(tmp_path)]) == 2
    assert "lacks the setting model.variant" in capsys.readouterr().err
