"""The loop: what it learns from, and that nothing is lost when it is killed."""

import dataclasses
import functools
import json
import logging
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

from physlm import checkpoint, metrics, model, optimizer, sharding, train
from physlm import step as step_lib
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
    settings = {"steps": 40, "batch": 4, "window": 8, "log_every": 4, "save_every": 10}
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


def test_a_tiny_batch_is_learnt_by_heart() -> None:
    key = jax.random.key(3)
    batch = {"tokens": jax.random.randint(key, (2, 9), 0, 16), "weights": jnp.ones((2, 8))}
    config = OptimizerConfig(learning_rate=1e-2, warmup_steps=5, weight_decay=0.0)
    transform = optimizer.make(config, 150)
    state = step_lib.first_state(CONFIG, transform, one_device(), seed=3)
    step = step_lib.make_step(CONFIG, transform, one_device())
    for _ in range(150):
        state, out = step(state, batch)
    assert float(out["loss"]) < 0.02


@functools.partial(jax.jit, static_argnums=0)
def loss_and_grads(
    config: ModelConfig, params: model.Params, tokens: jax.Array, weights: jax.Array
) -> tuple[jax.Array, model.Params]:
    batch = {"tokens": tokens, "weights": weights}
    return step_lib.loss_and_grads(config, one_device(), params, batch)


def distance(a: model.Params, b: model.Params) -> float:
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(float(jnp.abs(x - y).max()) for x, y in leaves)


def test_the_loss_is_the_weighted_mean_over_the_batch() -> None:
    # Rows long enough to be taken in several parts, whose weights differ widely.
    config = dataclasses.replace(CONFIG, window=200)
    params = model.init(config, jax.random.key(0))
    tokens = jax.random.randint(jax.random.key(1), (6, 201), 0, 16)
    weights = jnp.zeros((6, 200)).at[0, 2].set(1.0).at[5, 50].set(3.0)
    assert step_lib.rows_at_once(6, 200, one_device()) == 2

    @jax.jit
    def want(params: model.Params) -> jax.Array:
        logp = jax.nn.log_softmax(model.apply(config, params, tokens[:, :-1]))
        return -(logp[0, 2, tokens[0, 3]] + 3 * logp[5, 50, tokens[5, 51]]) / 4

    loss, grads = loss_and_grads(config, params, tokens, weights)
    assert float(loss) == pytest.approx(float(want(params)), rel=1e-5)
    assert distance(grads, jax.jit(jax.grad(want))(params)) < 1e-5


def test_targets_of_weight_zero_have_no_influence() -> None:
    params = model.init(CONFIG, jax.random.key(0))
    tokens = jax.random.randint(jax.random.key(1), (2, 9), 0, 16)
    # The last target is nobody's input, and so appears through its loss only.
    weights = jnp.ones((2, 8)).at[:, -1].set(0.0)
    changed = tokens.at[:, -1].set((tokens[:, -1] + 5) % 16)

    def grads(tokens: jax.Array, weights: jax.Array) -> model.Params:
        return loss_and_grads(CONFIG, params, tokens, weights)[1]

    assert distance(grads(tokens, weights), grads(changed, weights)) == 0
    assert distance(grads(tokens, jnp.ones((2, 8))), grads(changed, jnp.ones((2, 8)))) > 1e-3
    # Without any weight there is neither loss nor gradient, and no division by zero.
    nothing = grads(tokens, jnp.zeros((2, 8)))
    assert distance(nothing, jax.tree.map(jnp.zeros_like, nothing)) == 0


def test_segments_keep_documents_apart() -> None:
    """A window of two documents costs what the two cost alone."""
    params = jax.tree.map(lambda x: 5 * x, model.init(CONFIG, jax.random.key(0)))
    tokens = jax.random.randint(jax.random.key(1), (2, 9), 0, CONFIG.vocab)
    segments = jnp.array([[0] * 5 + [1] * 3] * 2)
    weights = jnp.ones((2, 8))
    together = {"tokens": tokens, "weights": weights, "segments": segments}

    def loss(batch: dict[str, jax.Array]) -> float:
        compute = jax.jit(step_lib.loss_and_grads, static_argnums=(0, 1))
        return float(compute(CONFIG, one_device(), params, batch)[0])

    first = loss({"tokens": tokens[:, :6], "weights": weights[:, :5]})
    second = loss({"tokens": tokens[:, 5:], "weights": weights[:, :3]})
    assert loss(together) == pytest.approx((5 * first + 3 * second) / 8, rel=1e-5)
    assert abs(loss(together) - loss({"tokens": tokens, "weights": weights})) > 1e-3


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
    deadline = time.monotonic() + 60
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
        assert newest % 10
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


def _truncate(checkpoint: pathlib.Path) -> None:
    for file in checkpoint.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def _truncate_data(checkpoint: pathlib.Path) -> None:
    largest = max((f for f in checkpoint.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


def _flip_a_bit(checkpoint: pathlib.Path) -> None:
    largest = max((f for f in checkpoint.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 4
    largest.write_bytes(data)


def _delete_data(checkpoint: pathlib.Path) -> None:
    for file in list(checkpoint.rglob("*")):
        if file.is_file() and file.stat().st_size > 2000:
            file.unlink()


def _delete_metadata(checkpoint: pathlib.Path) -> None:
    for file in list(checkpoint.rglob("*")):
        if file.is_file() and ("METADATA" in file.name or "manifest" in file.name):
            file.unlink()


def _empty(checkpoint: pathlib.Path) -> None:
    for file in list(checkpoint.rglob("*")):
        if file.is_file():
            file.unlink()


# The array store complains once more when a failed read is collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "damage",
    [_truncate, _truncate_data, _flip_a_bit, _delete_data, _delete_metadata, _empty],
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    damage: object, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = {"w": jax.random.normal(jax.random.key(0), (64, 64)), "n": jnp.int32(3)}
    later = jax.tree.map(lambda x: x + 1, state)
    with Checkpoints(tmp_path, 2) as checkpoints:
        checkpoints.save(10, state, 2.0)
        checkpoints.save(20, later, 1.0)
    damage(tmp_path / "20")
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), state)
    with caplog.at_level(logging.WARNING, "root"), Checkpoints(tmp_path, 2) as checkpoints:
        restored = checkpoints.restore_latest(target)
        assert same(restored, state)
        # The step can be saved again.
        checkpoints.save(20, later, 1.0)
        checkpoints.wait()
        assert same(checkpoints.restore_latest(target), later)
    warnings = [r.getMessage() for r in caplog.records if r.name == "root"]
    assert len(warnings) == 1
    assert warnings[0].startswith("Checkpoint 20 in ")
    assert "\n" not in warnings[0]


def test_a_run_with_a_damaged_checkpoint_ends_the_same(
    straight: tuple[pathlib.Path, TrainState], tmp_path: pathlib.Path
) -> None:
    directory, state = straight
    run(tmp_path)
    _truncate_data(tmp_path / "checkpoints" / "40")
    assert same(run(tmp_path), state)
    assert lines(tmp_path) == lines(directory)


def test_only_the_newest_checkpoints_are_kept(
    straight: tuple[pathlib.Path, TrainState],
) -> None:
    kept = {p.name for p in (straight[0] / "checkpoints").iterdir() if p.is_dir()}
    assert kept == {"30", "40"}


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
    with pytest.raises(ValueError, match=r"^model.window is 8; it must be train.window, 9\.$"):
        run(tmp_path / "a", window=9)
    with pytest.raises(ValueError, match=r"^optimizer.warmup_steps is 2; it must be less than"):
        run(tmp_path / "b", steps=2)
    assert not list(tmp_path.iterdir())
    for field in ("steps", "batch", "window", "log_every", "save_every", "keep"):
        values = {"steps": 1, "batch": 1, "window": 1, field: 0}
        with pytest.raises(ValueError, match=rf"^train\.{field} is 0; it must be at least 1\.$"):
            TrainConfig(**values)
    with pytest.raises(ValueError, match=r"^train\.loss_on is 'some'; it must be one of"):
        TrainConfig(steps=1, batch=1, window=1, loss_on="some")
    for field, value in [("name", "sgd"), ("learning_rate", 0), ("beta2", 1), ("clip_norm", -1)]:
        with pytest.raises(ValueError, match=rf"^optimizer\.{field} is .*{value}.*; it must"):
            OptimizerConfig(**{field: value})


_OTHER_DEVICES = """
import pathlib, sys
import jax
jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec as P
from physlm.checkpoint import Checkpoints
from physlm.sharding import MeshConfig, make_mesh

place = NamedSharding(make_mesh(MeshConfig()), P())
with Checkpoints(pathlib.Path(sys.argv[2]), 2) as checkpoints:
    if sys.argv[1] == "2":
        checkpoints.save(7, jax.device_put({"x": jnp.arange(4.0)}, place), 1.0)
    else:
        state = checkpoints.restore_latest(
            {"x": jax.ShapeDtypeStruct((4,), jnp.float32, sharding=place)}
        )
        print(state["x"].tolist())
"""


def test_checkpoint_is_read_on_other_devices(tmp_path):
    """One from two devices is no damage to a machine that has one."""
    for devices in ("2", "1"):
        out = subprocess.run(
            [sys.executable, "-c", _OTHER_DEVICES, devices, str(tmp_path / "checkpoints")],
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert out.stdout.split("\n")[0] == "[0.0, 1.0, 2.0, 3.0]"
    assert "damaged" not in out.stderr


def test_the_best_checkpoint_is_kept_beside_the_newest(tmp_path: pathlib.Path) -> None:
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = {"w": jax.ShapeDtypeStruct((), jnp.float32, sharding=place)}
    with Checkpoints(tmp_path, 2) as checkpoints:
        for step, loss in enumerate([3.0, 1.0, 2.0, 1.5, 1.25], start=1):
            checkpoints.save(step, {"w": jnp.float32(10 * step)}, loss)
        checkpoints.wait()
    assert checkpoint.steps(tmp_path) == {2, 4, 5}
    with Checkpoints(tmp_path, 2) as checkpoints:
        assert (checkpoints.latest, checkpoints.best) == (5, 2)
        assert checkpoints.restore(checkpoints.best, target) == {"w": 20}
        # A new best frees the old one.
        checkpoints.save(6, {"w": jnp.float32(0)}, 0.5)
        checkpoints.wait()
        assert checkpoints.best == 6
    assert checkpoint.steps(tmp_path) == {5, 6}


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


@pytest.mark.parametrize("leap", [0.0, 3.0])
def test_a_leap_of_the_loss_is_recorded(leap: float) -> None:
    random = np.random.default_rng(0)
    trend, step, rises = step_lib.Trend(jnp.zeros(()), jnp.zeros(())), 0, []
    losses = 2 + 0.1 * random.standard_normal(300)
    losses[250] += leap
    follow = jax.jit(step_lib._followed)
    for step, loss in enumerate(losses):
        trend, rise = follow(trend, jnp.int32(step), jnp.float32(loss))
        rises.append(float(rise))
        if step == 99:
            assert float(trend.mean) == pytest.approx(losses[:100].mean(), abs=1e-4)
            assert float(trend.variance) == pytest.approx(losses[:100].var(), rel=1e-2)
    assert rises[:100] == [0] * 100
    assert (rises[250] > 20) == bool(leap)
    assert max(rises[:250]) < 4


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
            train=TrainConfig(steps=40, batch=4, window=8),
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


def test_dropout_is_by_seed_step_and_row(tmp_path: pathlib.Path) -> None:
    config = dataclasses.replace(CONFIG, dropout=0.5)
    params = model.init(config, jax.random.key(0))
    batch = {**Stream().batch(0)}

    @jax.jit
    def loss(keys: jax.Array, rows: jax.Array) -> jax.Array:
        part = jax.tree.map(lambda x: x[rows], {**batch, "keys": keys})
        return step_lib.summed_loss(config, params, part, 4)[1]

    keys = step_lib.row_keys(0, 7, np.arange(4))
    every = jnp.arange(4)
    assert loss(keys, every) == pytest.approx(float(loss(keys, every[::-1])), rel=1e-5)
    assert (keys[2:] == step_lib.row_keys(0, 7, np.array([2, 3]))).all()
    for other in (step_lib.row_keys(0, 8, np.arange(4)), step_lib.row_keys(1, 7, np.arange(4))):
        assert abs(loss(keys, every) - loss(other, every)) > 1e-3
