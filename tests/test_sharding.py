"""The table of shardings, the mesh, and equality across device counts."""

import json
import re
import subprocess
import sys

import jax
import pytest

from physlm import model, optimizer, sharding
from physlm import step as step_lib
from physlm.model import ModelConfig
from physlm.optimizer import OptimizerConfig
from physlm.sharding import MeshConfig

CONFIG = ModelConfig(vocab=16, window=8, layers=2, heads=2, head_dim=8)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_leaf_of_a_state_matches_exactly_one_rule(name: str, tied: bool) -> None:
    config = ModelConfig(vocab=16, window=8, layers=2, heads=2, head_dim=8, tied=tied)
    transform = optimizer.make(OptimizerConfig(name=name, warmup_steps=1), 5)
    state = jax.eval_shape(lambda: step_lib.init_state(config, transform, jax.random.key(0)))
    leaves = jax.tree_util.tree_leaves_with_path(state)
    for path, leaf in leaves:
        spec = sharding.spec_of(sharding.path_of(path))
        assert len(spec) <= leaf.ndim, (path, spec)
    # The optimizer's copies of a kernel lie where the kernel lies.
    specs = {sharding.path_of(path): sharding.spec_of(sharding.path_of(path)) for path, _ in leaves}
    copies = [spec for path, spec in specs.items() if path.endswith("0/up/kernel")]
    assert len(copies) > 1
    assert set(copies) == {sharding.P(None, "model")}


def test_every_rule_is_used() -> None:
    paths = []
    for name in ("adamw", "muon"):
        transform = optimizer.make(OptimizerConfig(name=name, warmup_steps=1), 5)
        state = jax.eval_shape(
            lambda t=transform: step_lib.init_state(CONFIG, t, jax.random.key(0))
        )
        paths += [sharding.path_of(p) for p, _ in jax.tree_util.tree_leaves_with_path(state)]
    for rule, _ in sharding.RULES:
        assert any(re.search(rf"(^|/)({rule})$", path) for path in paths), rule


@pytest.mark.parametrize("path", ["blocks/0/attention/query/kernel", "blocks/0/warm_up/kernel"])
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
        ({"data": 0}, "mesh.data is 0"),
        ({"data": -2}, "mesh.data is -2"),
        ({"model": 0}, "mesh.model is 0"),
        ({"cpu_devices": -1}, "mesh.cpu_devices is -1"),
    ],
)
def test_impossible_meshes_are_refused(fields: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MeshConfig(**fields)


def test_a_mesh_larger_than_the_machine_is_refused() -> None:
    with pytest.raises(ValueError, match="must not exceed the number of devices"):
        sharding.make_mesh(MeshConfig(data=1000))
    with pytest.raises(ValueError, match="must divide the number of devices"):
        sharding.make_mesh(MeshConfig(model=1000))


_LOSSES = """
import json, pathlib, tempfile
import jax
jax.config.update('jax_num_cpu_devices', 4)
import jax.numpy as jnp
from physlm import model, optimizer, sharding, train
config = model.ModelConfig(vocab=16, window=8, layers=1, heads=2, head_dim=8)
class Stream:
    def batch(self, step):
        a, b = jax.random.split(jax.random.fold_in(jax.random.key(5), step))
        return {'tokens': jax.random.randint(a, (8, 9), 0, 16),
                'weights': jax.random.bernoulli(b, 0.5, (8, 8)).astype(jnp.float32)}
class Silent:
    def update(self, done, **fields):
        pass
results = []
for data, width in [(1, 1), (4, 1), (2, 2)]:
    with tempfile.TemporaryDirectory() as directory:
        state = train.train(
            model=config,
            optimizer=optimizer.OptimizerConfig(name='muon', warmup_steps=2, learning_rate=1e-2),
            train=train.TrainConfig(steps=12, batch=8, window=8, log_every=1, save_every=12),
            mesh=sharding.make_mesh(sharding.MeshConfig(data=data, model=width)),
            seed=0, stream=Stream(), run_dir=pathlib.Path(directory), progress=Silent())
        lines = (pathlib.Path(directory) / 'metrics.jsonl').read_text().splitlines()
    kernel = state.params['blocks'][0]['up']['kernel']
    results.append({'losses': [json.loads(line)['loss'] for line in lines],
                    'devices': len(kernel.sharding.device_set),
                    'shard': kernel.addressable_shards[0].data.shape})
print(json.dumps(results))
"""


def test_losses_do_not_depend_on_the_devices() -> None:
    out = subprocess.run(
        [sys.executable, "-c", _LOSSES], check=True, capture_output=True, text=True, timeout=180
    )
    one, four, square = json.loads(out.stdout.splitlines()[-1])
    assert one["devices"] == 1
    assert four["devices"] == square["devices"] == 4
    assert four["shard"] == [16, 64]
    assert square["shard"] == [16, 32]
    assert one["losses"][0] - one["losses"][-1] > 1e-3
    for other in (four, square):
        assert other["losses"] == pytest.approx(one["losses"], abs=1e-5)


def test_a_batch_that_cannot_be_divided_is_refused() -> None:
    mesh = jax.sharding.AbstractMesh((3, 1), ("data", "model"))
    with pytest.raises(ValueError, match=r"^train.batch is 8; it must be a multiple of the 3"):
        sharding.check_batch(8, mesh, "train.batch")
    sharding.check_batch(9, mesh, "train.batch")


def test_heads_that_cannot_be_divided_are_refused() -> None:
    mesh = jax.sharding.AbstractMesh((1, 3), ("data", "model"))
    with pytest.raises(ValueError, match=r"^model.heads is 4; it must be a multiple of the 3"):
        sharding.check_heads(4, mesh)
    sharding.check_heads(6, mesh)


def test_parameters_are_a_plain_dictionary() -> None:
    params = model.init(CONFIG, jax.random.key(0))

    def plain(node: object) -> bool:
        if isinstance(node, dict):
            return all(plain(child) for child in node.values())
        return isinstance(node, jax.Array)

    assert plain(params)
