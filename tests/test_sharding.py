"""The table of shardings, the mesh, and equality across device counts."""

import dataclasses
import re

import jax
import optax
import pytest

from physlm import model, optimizer, sharding
from physlm import step as step_lib
from physlm.adaptation import Adaptation, AdaptationConfig
from physlm.architecture import ModelConfig
from physlm.optimizer import OptimizerConfig
from physlm.sharding import MeshConfig

CONFIG = ModelConfig(vocab=16, window=8, layers=2, heads=2, head_dim=8)


@pytest.mark.parametrize("variant", ["gpt2", "llama", "gemma", "mixtral"])
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_leaf_of_a_state_matches_exactly_one_rule(name: str, variant: str) -> None:
    config = dataclasses.replace(CONFIG, variant=variant, tied=variant == "gemma", qk_norm=True)
    transform = optimizer.make(OptimizerConfig(name=name, warmup_steps=1), 5)
    state = jax.eval_shape(lambda: step_lib.init_state(config, transform, jax.random.key(0)))
    leaves = jax.tree_util.tree_leaves_with_path(state)
    for path, leaf in leaves:
        spec = sharding.spec_of(sharding.path_of(path))
        assert len(spec) <= leaf.ndim, (path, spec)
    # The optimizer's copies of a kernel lie where the kernel lies.
    specs = {sharding.path_of(path): sharding.spec_of(sharding.path_of(path)) for path, _ in leaves}
    copies = [spec for path, spec in specs.items() if path.endswith("/query/kernel")]
    assert len(copies) > 1
    assert set(copies) == {sharding.P(None, "fsdp", "tensor", None)}


def test_every_rule_is_used() -> None:
    paths = []
    for name, variant, canon in (
        ("adamw", "gpt2", ""),
        ("muon", "gemma", "ABCD"),
        ("muon", "mixtral", ""),
    ):
        config = dataclasses.replace(CONFIG, variant=variant, qk_norm=True, canon=canon)
        transform = optimizer.make(OptimizerConfig(name=name, warmup_steps=1), 5)
        state = jax.eval_shape(
            lambda c=config, t=transform: step_lib.init_state(c, t, jax.random.key(0))
        )
        paths += [sharding.path_of(p) for p, _ in jax.tree_util.tree_leaves_with_path(state)]
    probe = Adaptation(AdaptationConfig("probe", rank=2), 2)
    state = jax.eval_shape(
        lambda: step_lib.init_state(CONFIG, optax.sgd(1.0), jax.random.key(0), probe)
    )
    paths += [sharding.path_of(p) for p, _ in jax.tree_util.tree_leaves_with_path(state)]
    for rule, _ in sharding.RULES:
        assert any(re.search(rf"(^|/)({rule})$", path) for path in paths), rule


def test_factors_lie_as_the_axes_of_their_matrix() -> None:
    places = {
        "lora/blocks/attention/query/kernel/a": (None, "fsdp", None),
        "lora/blocks/attention/query/kernel/b": (None, None, "tensor", None),
        "opt_state/0/mu/lora/blocks/attention/out/kernel/a": (None, "tensor", None, None),
        "lora/blocks/attention/out/kernel/b": (None, None, "fsdp"),
        "lora/blocks/mlp/down/kernel/a": (None, "tensor", None),
        "lora/blocks/mixture/up/kernel/a": (None, None, "fsdp", None),
        "lora/blocks/mixture/up/kernel/b": (None, None, None, "tensor"),
        "lora/embed/embedding/a": (None, None),
        "lora/embed/embedding/b": (None, "fsdp"),
        "lora/head/kernel/a": ("fsdp", None),
    }
    for path, axes in places.items():
        assert sharding.spec_of(path) == sharding.P(*axes), path
    with pytest.raises(ValueError, match="norm/scale is no matrix"):
        sharding.spec_of("lora/norm/scale/a")


@pytest.mark.parametrize("path", ["blocks/attention/qkv/kernel", "blocks/mlp/warm_up/kernel"])
def test_an_unknown_parameter_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match=f"{path} matches 0 sharding rules"):
        sharding.spec_of(path)


def test_an_ambiguous_table_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharding, "RULES", (*sharding.RULES, ("kernel", sharding.P())))
    with pytest.raises(ValueError, match="matches 2 sharding rules"):
        sharding.spec_of("head/kernel")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data": 0}, "^data is 0"),
        ({"data": -2}, "^data is -2"),
        ({"fsdp": 0}, "^fsdp is 0"),
        ({"sequence": -1}, "^sequence is -1"),
        ({"tensor": 0}, "^tensor is 0"),
        ({"population": -1}, "^population is -1"),
        ({"cpu_devices": -1}, "^cpu_devices is -1"),
    ],
)
def test_impossible_meshes_are_refused(fields: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MeshConfig(**fields)


def test_a_mesh_larger_than_the_machine_is_refused() -> None:
    with pytest.raises(ValueError, match="it must be at most the number of devices"):
        sharding.make_mesh(MeshConfig(data=1000))
    with pytest.raises(ValueError, match="it must be a divisor of the number of devices"):
        sharding.make_mesh(MeshConfig(tensor=1000))


def test_parameters_are_a_plain_dictionary() -> None:
    params = model.init(CONFIG, jax.random.key(0))

    def plain(node: object) -> bool:
        if isinstance(node, dict):
            return all(plain(child) for child in node.values())
        return isinstance(node, jax.Array)

    assert plain(params)
