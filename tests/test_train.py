"""The loop: what it learns from, and that nothing is lost when it is killed."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from data_gen.settings import RefusedError
from physlm import checkpoint, metrics, model, sharding, train
from physlm.architecture import ModelConfig
from physlm.checkpoint import Checkpoints
from physlm.journal import Journal
from physlm.optimizer import OptimizerConfig
from physlm.step import TrainState
from physlm.throughput import Meter
from physlm.train import TrainConfig

_CACHE = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")

CONFIG = ModelConfig(vocab=16, window=8, layers=1, heads=2, head_dim=8)


# What of a line differs from machine to machine and from hour to hour.
SPEED = ("seconds", "tokens_per_s", "step_seconds", "input_share", "model_flops_per_s")


class Stream:
    """Counting by a step that the first token tells."""

    def batch(self, step: int) -> dict[str, jax.Array]:
        start = jax.random.randint(jax.random.fold_in(jax.random.key(5), step), (4, 1), 0, 16)
        tokens = (start + jnp.arange(9) * 3) % 16
        return {"tokens": tokens, "weights": jnp.ones((4, 8))}


class Silent:
    def __init__(self) -> None:
        self.seen: list[int] = []

    def update(self, done: int, **fields: float) -> None:
        self.seen.append(done)


def run(directory: pathlib.Path, stream: object = None, **changes: int) -> TrainState:
    settings = {"steps": 40, "batch": 4, "log_every": 4, "save_every": 10}
    return train.train(
        model=CONFIG,
        optimizer=OptimizerConfig(name="muon", warmup_steps=2, learning_rate=1e-2),
        train=TrainConfig(**{**settings, **changes}),
        mesh=one_device(),
        seed=0,
        stream=stream or Stream(),
        run_dir=directory,
        progress=Silent(),
    )


def same(a: TrainState, b: TrainState) -> bool:
    return jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), a, b))


def lines(directory: pathlib.Path) -> list[dict]:
    records = metrics.read_lines(directory / "metrics.jsonl")
    return [{k: v for k, v in r.items() if k not in SPEED} for r in records]


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    # Many tests train the same model; the process that is killed shares the programs, too.
    with pytest.MonkeyPatch.context() as patch:
        directory = str(tmp_path_factory.mktemp("compiled"))
        patch.setenv("JAX_COMPILATION_CACHE_DIR", directory)
        patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
        before = {name: getattr(jax.config, name) for name in _CACHE}
        for name, value in zip(_CACHE, (directory, 0.2), strict=True):
            jax.config.update(name, value)
        reset_cache()
        yield
        for name, value in before.items():
            jax.config.update(name, value)
        reset_cache()


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, TrainState]:
    directory = tmp_path_factory.mktemp("straight")
    return directory, run(directory)


def test_it_learns_and_writes_what_it_promises(
    straight: tuple[pathlib.Path, TrainState],
) -> None:
    directory, state = straight
    written = metrics.read_lines(directory / "metrics.jsonl")
    assert int(state.step) == 40
    assert [r["step"] for r in written] == list(range(4, 41, 4))
    assert set(written[0]) == {
        'step', 'loss', 'grad_norm', 'learning_rate', 'tokens', 'tokens_per_s', 'seconds',
        'step_seconds', 'input_share', 'model_flops_per_s', 'recent_loss',
    }  # fmt: skip
    assert written[-1]["tokens"] == 40 * 4 * 8
    assert written[0]["loss"] > 2.3
    assert written[-1]["loss"] < 1.2


def one_device() -> jax.sharding.Mesh:
    return sharding.make_mesh(sharding.MeshConfig(data=1))


def distance(a: model.Params, b: model.Params) -> float:
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(jnp.abs(x - y).max()) for x, y in leaves)


def test_a_finished_run_is_left_alone(straight: tuple[pathlib.Path, TrainState]) -> None:
    directory, state = straight
    before = (directory / "metrics.jsonl").read_text()

    class Broken:
        def batch(self, step: int) -> dict[str, jax.Array]:
            raise AssertionError("a finished run needs no data")

    assert same(run(directory, Broken()), state)
    assert (directory / "metrics.jsonl").read_text() == before


_KILLED = """
import pathlib, sys, time
sys.path.insert(0, sys.argv[2])
import test_train
class Slow(test_train.Stream):
    def batch(self, step):
        time.sleep(0.05)
        return super().batch(step)
test_train.run(pathlib.Path(sys.argv[1]), Slow())
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_ends_where_the_undisturbed_one_does(
    how: signal.Signals, straight: tuple[pathlib.Path, TrainState], tmp_path: pathlib.Path
) -> None:
    directory, state = straight
    here = str(pathlib.Path(__file__).parent)
    command = [sys.executable, "-c", _KILLED, str(tmp_path), here]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    # Some way past the first checkpoint, in the middle of things.
    while not (
        checkpoint.steps(tmp_path / "checkpoints")
        and any(r["step"] >= 16 for r in metrics.read_lines(tmp_path / "metrics.jsonl"))
    ):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, how)
    _, said = process.communicate()
    newest = max(checkpoint.steps(tmp_path / "checkpoints"))
    if how == signal.SIGTERM:
        # Who is asked to end saves what is done.
        assert f"TerminatedError: after step {newest}, of which there is a checkpoint" in said
        assert newest >= 16
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 17, "los')
    stopped_at = max(r["step"] for r in metrics.read_lines(tmp_path / "metrics.jsonl"))
    assert stopped_at < 40

    class Counting(Stream):
        asked: list[int] = []  # noqa: RUF012

        def batch(self, step: int) -> dict[str, jax.Array]:
            self.asked.append(step)
            return super().batch(step)

    assert same(run(tmp_path, Counting()), state)
    assert lines(tmp_path) == lines(directory)
    # It went on from a checkpoint, and did not begin anew.
    assert Counting.asked[0] == newest
    assert Counting.asked == list(range(Counting.asked[0], 40))


def truncate_data(checkpoint: pathlib.Path) -> None:
    largest = max((f for f in checkpoint.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


def test_a_run_with_a_damaged_checkpoint_ends_the_same(
    straight: tuple[pathlib.Path, TrainState], tmp_path: pathlib.Path
) -> None:
    directory, state = straight
    run(tmp_path)
    truncate_data(tmp_path / "checkpoints" / "40")
    assert same(run(tmp_path), state)
    assert lines(tmp_path) == lines(directory)


def test_only_the_newest_checkpoints_are_kept(
    straight: tuple[pathlib.Path, TrainState],
) -> None:
    kept = {p.name for p in (straight[0] / "checkpoints").iterdir() if p.is_dir()}
    assert kept == {"30", "40"}


def test_what_another_process_has_taken_over_is_not_saved(tmp_path: pathlib.Path) -> None:
    asked: list[bool] = []

    def allowed() -> None:
        asked.append(True)
        if len(asked) == 2:
            raise PermissionError("it is another's")

    with pytest.raises(PermissionError, match="another's"):
        train.train_together(
            [train.Member(0, Stream(), 1e-2, tmp_path)],
            model=CONFIG,
            optimizer=OptimizerConfig(name="muon", warmup_steps=2, learning_rate=1e-2),
            train=TrainConfig(steps=40, batch=4, log_every=4, save_every=10),
            mesh=one_device(),
            progress=Silent(),
            allowed=allowed,
        )
    assert checkpoint.steps(tmp_path / "checkpoints") == {10}


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: pathlib.Path) -> None:
    class Poisoned(Stream):
        def batch(self, step: int) -> dict[str, jax.Array]:
            batch = super().batch(step)
            return batch if step != 14 else {**batch, "weights": batch["weights"] * jnp.nan}

    with pytest.raises(FloatingPointError, match=r"^At step 15 .*checkpoint is that of step 10\.$"):
        run(tmp_path, Poisoned())
    assert all(np.isfinite(r["loss"]) for r in lines(tmp_path))
    assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 12


def test_impossible_settings_are_refused_before_anything_is_written(
    tmp_path: pathlib.Path,
) -> None:
    with pytest.raises(ValueError, match=r"^optimizer.warmup_steps is 2; it must be less than"):
        run(tmp_path / "a", steps=2)
    assert not list(tmp_path.iterdir())
    for field in ("steps", "batch", "accumulate", "log_every", "save_every", "keep"):
        with pytest.raises(RefusedError, match=rf"^{field} is 0; it must be .*, at least 1\.$"):
            TrainConfig(**{field: 0})
    with pytest.raises(RefusedError, match=r"^budget is 'time'; it must be one of tokens, "):
        TrainConfig(budget="time")
    for field, value in [
        ("name", "sgd"),
        ("learning_rate", 0),
        ("beta2", 1),
        ("clip_norm", -1),
        ("final_fraction", 2),
    ]:
        with pytest.raises(ValueError, match=rf"^{field} is .*{value}.*; it must be "):
            OptimizerConfig(**{field: value})


def test_checkpoints_are_ranked_by_the_recent_loss(
    straight: tuple[pathlib.Path, TrainState],
) -> None:
    directory, state = straight
    with Checkpoints(directory / "checkpoints", 2) as checkpoints:
        assert checkpoints.best == 40
    records = lines(directory)
    # In the first hundred steps it is the mean of all.
    losses = [r["loss"] for r in records]
    assert float(state.trend.mean) == pytest.approx(records[-1]["recent_loss"], abs=1e-6)
    assert min(losses) < records[-1]["recent_loss"] < max(losses)


def test_spikes_have_a_file_of_their_own(tmp_path: pathlib.Path) -> None:
    names = ("a", "b")
    for name in names:
        (tmp_path / name).mkdir()
    # What a killed process wrote of steps that are done again.
    (tmp_path / "a" / "spikes.jsonl").write_text('{"step": 3}\n{"step": 8}\n')

    def steps(*rises: list[float], first: int) -> None:
        journal = Journal(
            [tmp_path / name for name in names],
            [lambda _: 0.1] * 2,
            Meter(first, 8, 1.0, None),
            Silent(),
            first=first,
            last=20,
            every=5,
            tokens=8,
        )
        with journal:
            for step, rise in enumerate(rises, start=first + 1):
                values = {"loss": [2.0, np.nan], "grad_norm": [0.5, 1.0], "recent_loss": [1, 1]}
                bad = journal.note(step, {**values, "rise": rise}, {} if step < 9 else {1: None})
                assert bad == ([1] if step < 9 else [])

    steps([0.0, 9.0], [5.9, 0.0], [6.1, 0.0], [0.0, 0.0], [0.0, 0.0], first=5)
    of_a, of_b = (metrics.read_lines(tmp_path / name / "spikes.jsonl") for name in names)
    spike = {"step": 8, "loss": 2.0, "grad_norm": 0.5, "recent_loss": 1, "rise": 6.1}
    assert of_a == [{"step": 3}, spike]
    assert of_b == []
    assert [r["step"] for r in metrics.read_lines(tmp_path / "a" / "metrics.jsonl")] == [10]


def test_a_batch_in_parts_gives_the_same_step(
    straight: tuple[pathlib.Path, TrainState], tmp_path: pathlib.Path
) -> None:
    state = run(tmp_path, accumulate=4)
    assert distance(state.params, straight[1].params) < 1e-5
    assert lines(tmp_path)[-1]["loss"] == pytest.approx(lines(straight[0])[-1]["loss"], abs=1e-5)


def test_checkpoints_of_another_run_are_refused(
    straight: tuple[pathlib.Path, TrainState],
) -> None:
    directory, _ = straight
    before = sorted(path.name for path in directory.iterdir())

    def again(made_by: dict[str, object], **changes: object) -> None:
        train.train_together(
            [train.Member(0, Stream(), 1e-2, directory, made_by)],
            model=dataclasses.replace(CONFIG, **changes),
            optimizer=OptimizerConfig(name="muon", warmup_steps=2),
            train=TrainConfig(steps=40, batch=4),
            mesh=one_device(),
            progress=Silent(),
        )

    with pytest.raises(
        ValueError, match=r"another run, which differs in model\.layers \(there 1, "
    ):
        again({}, layers=2)
    with pytest.raises(
        ValueError,
        match=r"model\.heads \(there 2, here 4\), model\.variant \(there 'gpt2', here 'll",
    ):
        again({}, heads=4, variant="llama")
    assert sorted(path.name for path in directory.iterdir()) == before
    # What only decides how the same is computed may change.
    again({}, scan=True, remat="full")
    again({"data.max_op": 3})
    with pytest.raises(ValueError, match=r"differs in data\.max_op \(there 3, here 4\)\.$"):
        again({"data.max_op": 4})
