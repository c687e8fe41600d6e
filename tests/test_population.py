"""Runs that are trained as one program end as each would alone."""

import dataclasses
import functools
import json
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest
from test_train import SPEED

from physlm import checkpoint, metrics, model, optimizer, population, sharding, step, train
from physlm.optimizer import OptimizerConfig
from physlm.step import TrainState
from physlm.train import Member, TrainConfig

# With a second interpreter CI leaves these out: they take long.
pytestmark = pytest.mark.slow

MODEL = model.ModelConfig(vocab=16, window=8, layers=1, heads=2, head_dim=8)
RATES = (1e-2, 3e-3, 1e-2)


class Stream:
    """Counting by a step that the first token tells; the number of the stream says by what."""

    def __init__(self, number: int, bad: int | None = None) -> None:
        self.number, self.bad = number, bad

    def batch(self, step: int) -> dict[str, np.ndarray]:
        random = np.random.default_rng([self.number, step])
        start = random.integers(0, 16, (4, 1))
        tokens = (start + np.arange(9) * (3 + 2 * self.number)) % 16
        weights = random.integers(0, 2, (4, 8)).astype(np.float32)
        weights[0, 0] = np.nan if step == self.bad else 1
        return {"tokens": tokens.astype(np.int32), "weights": weights}


class Silent:
    def update(self, done: int, **fields: float) -> None:
        pass


def train_together(
    workdir: pathlib.Path, numbers: tuple[int, ...], bad: int | None = None, **changes: int
) -> list[TrainState | FloatingPointError]:
    settings = {"steps": 24, "batch": 4, "log_every": 4, "save_every": 6}
    return train.train_together(
        [
            Member(n, Stream(n, bad if n == 1 else None), RATES[n], workdir / str(n))
            for n in numbers
        ],
        model=MODEL,
        optimizer=OptimizerConfig(name="muon", warmup_steps=2),
        train=TrainConfig(**{**settings, **changes}),
        mesh=sharding.make_mesh(sharding.MeshConfig(data=1)),
        progress=Silent(),
    )


def written(directory: pathlib.Path) -> list[dict[str, float]]:
    records = metrics.read_lines(directory / "metrics.jsonl")
    return [{k: v for k, v in r.items() if k not in SPEED} for r in records]


def saved(directory: pathlib.Path) -> set[int]:
    return checkpoint.steps(directory / train.CHECKPOINTS_DIR)


def assert_same(a: TrainState, b: TrainState) -> None:
    jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_close(a: TrainState, b: TrainState) -> None:
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-5), a, b)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, list[TrainState]]:
    workdir = tmp_path_factory.mktemp("alone")
    return workdir, [train_together(workdir, (n,))[0] for n in range(3)]


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> tuple[pathlib.Path, list[TrainState]]:
    workdir = tmp_path_factory.mktemp("together")
    return workdir, train_together(workdir, (0, 1, 2))


def test_together_each_run_ends_as_it_does_alone(alone, together) -> None:
    for n in range(3):
        assert_close(together[1][n], alone[1][n])
        records = [written(workdir / str(n)) for workdir in (together[0], alone[0])]
        for of_all, of_one in zip(*records, strict=True):
            assert of_all == pytest.approx(of_one, rel=1e-5)
        assert saved(together[0] / str(n)) == saved(alone[0] / str(n)) == {18, 24}
    assert (
        len({float(record["loss"]) for n in range(3) for record in written(alone[0] / str(n))}) > 9
    )


@pytest.mark.parametrize(
    "changes", [{}, {"variant": "mixtral", "experts": 4, "dropout": 0.2}], ids=["gpt2", "mixtral"]
)
def test_vectorized_runs_differ_by_rounding_alone(changes: dict[str, object]) -> None:
    config = dataclasses.replace(MODEL, **changes)
    mesh = sharding.make_mesh(sharding.MeshConfig(data=1))

    def transform(peak: float) -> optax.GradientTransformation:
        return optimizer.make(OptimizerConfig(name="muon", warmup_steps=2), 24, peak)

    def batch(number: int, at: int) -> dict[str, np.ndarray]:
        keys = {"keys": np.asarray(step.row_keys(number, at, np.arange(4)))}
        return {**Stream(number).batch(at), **(keys if config.dropout else {})}

    def losses(program: population.Single | population.Population, *numbers: int) -> np.ndarray:
        first = [step.first_state(config, transform(1.0), mesh, n) for n in numbers]
        state, found = program.gathered(first), []
        for at in range(24):
            state, out = program.step(state, program.put([batch(n, at) for n in numbers]))
            found.append(np.atleast_1d(out["loss"]))
        return np.stack(found)

    alone = [
        losses(population.Single(config, transform(rate), mesh, 4), n)
        for n, rate in enumerate(RATES[:2])
    ]
    for vectorized in (False, True):
        program = population.Population(
            config, transform(1.0), mesh, RATES[:2], vectorized=vectorized
        )
        np.testing.assert_allclose(losses(program, 0, 1), np.hstack(alone), rtol=1e-5)


def test_it_goes_on_from_the_newest_step_that_all_have(together, tmp_path) -> None:
    workdir, expected = together
    shutil.copytree(workdir, tmp_path, dirs_exist_ok=True)
    # As a kill leaves them that falls between two saves, one run being behind.
    shutil.rmtree(tmp_path / "1" / train.CHECKPOINTS_DIR / "24")
    found = train_together(tmp_path, (0, 1, 2))
    for n in range(3):
        assert_same(found[n], expected[n])
        assert written(tmp_path / str(n)) == written(workdir / str(n))
        assert saved(tmp_path / str(n)) == {18, 24}


def test_a_run_goes_on_alone_from_what_was_saved_together(alone, together, tmp_path) -> None:
    shutil.copytree(together[0], tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "2" / train.CHECKPOINTS_DIR / "24")
    assert_close(train_together(tmp_path, (2,))[0], alone[1][2])


def test_a_number_that_is_not_finite_ends_one_run_only(together, tmp_path) -> None:
    first, second, third = train_together(tmp_path, (0, 1, 2), bad=13)
    assert_same(first, together[1][0])
    assert_same(third, together[1][2])
    assert isinstance(second, FloatingPointError)
    assert str(second).startswith("At step 14 the loss is nan")
    assert str(second).endswith("the last good checkpoint is that of step 12.")
    assert saved(tmp_path / "1") == {6, 12}
    assert [record["step"] for record in written(tmp_path / "1")] == [4, 8, 12]


_OVER_DEVICES = """
import json, sys, tempfile, pathlib
import jax
jax.config.update("jax_num_cpu_devices", 2)
sys.path.insert(0, sys.argv[1])
import test_population as here
from physlm import sharding, train
from physlm.train import Member
with tempfile.TemporaryDirectory() as directory:
    states = train.train_together(
        [Member(n, here.Stream(n), here.RATES[n], pathlib.Path(directory, str(n))) for n in (0, 1)],
        model=here.MODEL,
        optimizer=here.OptimizerConfig(name="muon", warmup_steps=2),
        train=here.TrainConfig(steps=24, batch=4, log_every=4, save_every=6),
        mesh=sharding.make_mesh(sharding.MeshConfig()),
        progress=here.Silent())
    kernels = [state.params["head"]["kernel"].tolist() for state in states]
    print(json.dumps([jax.device_count(), *kernels]))
"""


def test_devices_share_the_runs(alone) -> None:
    command = [sys.executable, "-c", _OVER_DEVICES, str(pathlib.Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    devices, *kernels = json.loads(done.stdout.splitlines()[-1])
    assert devices == 2
    for kernel, state in zip(kernels, alone[1], strict=False):
        np.testing.assert_allclose(kernel, state.params["head"]["kernel"], rtol=1e-3, atol=1e-5)
