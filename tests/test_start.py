"""Where the first state comes from: own checkpoint, else the parent, else the seed."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import optax
import pytest
from test_train import CONFIG, Silent, Stream, distance, one_device, same

from physlm import model, optimizer, train
from physlm.adaptation import Adaptation, AdaptationConfig
from physlm.checkpoint import Checkpoints
from physlm.optimizer import OptimizerConfig
from physlm.start import Parent, start
from physlm.step import PRETRAINING, Learning, TrainState, first_params, first_state

# With a second interpreter CI leaves these out: they take long.
pytestmark = pytest.mark.slow

OPTIMIZERS = {
    name: OptimizerConfig(name=name, warmup_steps=2, learning_rate=1e-2)
    for name in ("adamw", "muon")
}


def trained(directory: pathlib.Path, name: str, parent: Parent | None = None) -> TrainState:
    member = train.Member(0, Stream(), 1e-2, directory, parent=parent)
    (state,) = train.train_together(
        [member],
        model=CONFIG,
        optimizer=OPTIMIZERS[name],
        train=train.TrainConfig(steps=8, batch=4, log_every=1, save_every=4),
        mesh=one_device(),
        progress=Silent(),
    )
    assert isinstance(state, TrainState)
    return state


def started(
    directory: pathlib.Path, name: str, parent: Parent | None, learning: Learning = PRETRAINING
) -> tuple[TrainState, Any]:
    with Checkpoints(directory / "checkpoints", 2) as own:
        states, frozen = start(
            [own],
            [5],
            [parent],
            model=CONFIG,
            transform=optimizer.make(OPTIMIZERS[name], 8),
            mesh=one_device(),
            adaptation=learning.adaptation,
        )
    return states[0], frozen[0]


def counts(state: TrainState) -> list[int]:
    """Steps that the schedules have counted."""
    leaves = jax.tree.leaves(
        state.opt_state, is_leaf=lambda part: isinstance(part, optax.ScaleByScheduleState)
    )
    return [int(leaf.count) for leaf in leaves if isinstance(leaf, optax.ScaleByScheduleState)]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_parents_optimizer_is_carried_on_but_for_its_schedule(
    name: str, tmp_path: pathlib.Path
) -> None:
    before = trained(tmp_path / "parent", name)
    assert set(counts(before)) == {8}
    fresh, _ = started(tmp_path / "fresh", name, lambda: (before.params, None))
    carried, frozen = started(tmp_path / "carried", name, lambda: (before.params, before.opt_state))
    assert frozen == {}
    for state in (fresh, carried):
        assert int(state.step) == 0 and set(counts(state)) == {0}
        assert distance(state.params, before.params) == 0
        assert float(state.trend.mean) == 0

    def moments(state: TrainState) -> list[jax.Array]:
        return [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim]

    assert len(moments(carried)) == len(moments(before)) > 5
    for ours, theirs in zip(moments(carried), moments(before), strict=True):
        assert bool((ours == theirs).all())
    # What Newton and Schulz's iteration is given are no moments.
    assert all(bool((leaf == 0).all()) or leaf.size == 3 for leaf in moments(fresh))


def test_an_own_checkpoint_comes_before_the_parent(tmp_path: pathlib.Path) -> None:
    def never() -> Any:
        raise AssertionError("the parent was read")

    straight = trained(tmp_path / "own", "adamw")
    state, frozen = started(tmp_path / "own", "adamw", never)
    assert same(state, straight) and frozen == {}


def test_the_seed_comes_last_and_freezes_what_it_draws(tmp_path: pathlib.Path) -> None:
    transform = optimizer.make(OPTIMIZERS["adamw"], 8)
    state, frozen = started(tmp_path / "full", "adamw", None)
    assert same(state, first_state(CONFIG, transform, one_device(), 5)) and frozen == {}
    learning = Learning(Adaptation(AdaptationConfig("lora", rank=2)))
    state, frozen = started(tmp_path / "lora", "adamw", None, learning)
    drawn = first_params(CONFIG, one_device(), 5)
    assert distance(frozen, drawn) == 0
    assert distance(learning.adaptation.join(state.params, frozen), drawn) == 0
    # With a parent that one is frozen, also when a run goes on from its own checkpoint.
    parent = model.init(CONFIG, jax.random.key(9))
    with Checkpoints(tmp_path / "goes on" / "checkpoints", 2, {}) as own:
        own.save(3, state._replace(step=jnp.asarray(3)), 1.0)
    later, frozen = started(tmp_path / "goes on", "adamw", lambda: (parent, None), learning)
    assert int(later.step) == 3 and distance(later.params, state.params) == 0
    assert distance(frozen, parent) == 0
