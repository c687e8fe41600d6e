"""Programs that are compiled once, and processes that are several."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from physlm import devices
from physlm.sharding import MeshConfig

_STEPS = """
import collections, json, pathlib, sys
import jax
from physlm.devices import prepare
from physlm.sharding import MeshConfig, make_mesh
prepare(MeshConfig(cpu_devices=2), 4, pathlib.Path(sys.argv[1]))
import jax.numpy as jnp
from physlm import architecture, optimizer, sharding, step
events = collections.Counter()
jax.monitoring.register_event_listener(lambda name, **_: events.update([name]))
config = architecture.ModelConfig(vocab=16, window=8, layers=1, heads=2, head_dim=8)
mesh = make_mesh(MeshConfig())
transform = optimizer.make(optimizer.OptimizerConfig(warmup_steps=1), 5)
batch = {"tokens": jnp.zeros((4, 9), jnp.int32), "weights": jnp.ones((4, 8))}
with jax.set_mesh(mesh):
    state = step.first_state(config, transform, mesh, seed=0)
    batch = jax.device_put(batch, sharding.batch_sharding(mesh))
    state, _ = step.make_step(config, transform, mesh)(state, batch)
kinds = ("cache_hits", "cache_misses")
found = [events[f"/jax/compilation_cache/{kind}"] for kind in kinds]
print(json.dumps([len(jax.devices()), *found]))
"""


@pytest.mark.slow
def test_the_second_process_compiles_nothing(tmp_path: pathlib.Path) -> None:
    # Where the tests' own programs are kept is not what this is about.
    environment = {k: v for k, v in os.environ.items() if "COMPILATION_CACHE" not in k}
    environment.pop("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", None)

    def found() -> tuple[int, int, int]:
        command = [sys.executable, "-c", _STEPS, str(tmp_path)]
        out = subprocess.run(
            command, check=True, capture_output=True, text=True, timeout=200, env=environment
        )
        return tuple(json.loads(out.stdout.splitlines()[-1]))

    count, hits, misses = found()
    assert (count, hits) == (2, 0)
    assert misses >= 2
    kept = sorted(path.name for path in tmp_path.glob("*-cache"))
    assert len(kept) == misses
    assert found() == (2, misses, 0)
    assert sorted(path.name for path in tmp_path.glob("*-cache")) == kept


@pytest.mark.parametrize(
    ("cores", "mesh", "count"),
    [
        (1, {}, 1),
        (2, {}, 2),
        (3, {}, 2),
        (6, {}, 4),
        (8, {}, 8),
        (12, {}, 8),
        (64, {}, 16),
        (6, {"tensor": 2}, 4),
        (6, {"tensor": 3}, 6),
        (12, {"fsdp": 2, "sequence": 3}, 12),
        (40, {"fsdp": 2}, 16),
        # The user's own numbers, and a mesh that is too large.
        (6, {"cpu_devices": 3}, 3),
        (6, {"data": 3}, 6),
        (6, {"tensor": 8}, 6),
    ],
)
def test_as_many_cores_are_used_as_can_share_a_batch(
    cores: int, mesh: dict[str, int], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    monkeypatch.setattr(devices.jax.config, "update", found.__setitem__)
    devices.prepare(MeshConfig(**mesh), 16)
    assert found == {"jax_num_cpu_devices": count}
    # Of a machine with more of them, all but these are for others.
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda _: set(range(99)), raising=False)
    devices.prepare(MeshConfig(**mesh), 16, cores=cores)
    assert found == {"jax_num_cpu_devices": count}


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("localhost", r"^--distributed is 'localhost'; it must be auto or ADDRESS:PORT,PROCESSES,"),
        ("localhost:1,2", r"^--distributed is 'localhost:1,2'; it must be auto or ADDRESS:PORT,"),
        ("localhost:1,2,x", r"^--distributed is .*; it must be auto or ADDRESS:PORT,PROCESSES,NU"),
        ("localhost:1,2,2", r"^--distributed is .*; the number of a process must be in 0\.\.1\."),
    ],
)
def test_processes_that_cannot_be_joined_are_refused(where: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        devices.join(where)


def test_a_cluster_that_jax_does_not_know_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def initialize() -> None:
        # What JAX says, in a process that has not begun to compute.
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(devices.jax.distributed, "initialize", initialize)
    with pytest.raises(ValueError, match=r"^--distributed auto does not know this cluster; write "):
        devices.join("auto")
