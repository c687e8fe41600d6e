"""Meshes of every shape, and several hosts, give the same losses."""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import pytest

from physlm import metrics, sharding
from physlm.architecture import ModelConfig

# With a second interpreter CI leaves these out: they take long.
pytestmark = pytest.mark.slow

MESHES = {
    "1x1": (1, 1, 1, 1),
    "8x1": (8, 1, 1, 1),
    "4x2": (4, 1, 1, 2),
    "2x4": (2, 1, 1, 4),
    "2x2x2": (2, 2, 1, 2),
    "fsdp": (1, 8, 1, 1),
    "sequence": (2, 1, 4, 1),
    "all": (1, 2, 2, 2),
}

# The work of one process: trains on meshes, says the data it saw and where a kernel lies.
_WORK = """
import hashlib, json, pathlib, sys, time
import jax
settings = json.loads(sys.argv[1])
jax.config.update("jax_num_cpu_devices", settings["devices"])
if "process" in settings:
    from physlm.devices import join
    join(f"localhost:{settings['port']},2,{settings['process']}")
import jax.numpy as jnp
import numpy as np
from data_gen.solutions.mistakes import Mistakes
from data_gen.spec import Spec
from data_gen.windows.configuration import Windows
from data_gen.windows.stream import Stream
from data_gen.windows.tokenizer import tokenizer
from physlm import architecture, optimizer, sharding, step, train
from physlm.adaptation import Adaptation, AdaptationConfig

SPEC = Spec(max_op=3, max_edges=6, max_depth=3, max_width=2, modulus=5, hierarchies=1,
            subcategories=1, names=3, letters=12)
class Noting:
    def __init__(self, rows):
        windows = Windows(96, attention="document")
        self.stream = Stream(SPEC, Mistakes(rate=0.5), windows, seed=0, batch=16, rows=rows)
        self.rows, self.seen = rows, {}
    def batch(self, step):
        found = self.stream.batch(step)
        for name, value in found.items():
            for row, content in zip(self.rows, value):
                self.seen[f"{step} {name} {row}"] = hashlib.sha256(content.tobytes()).hexdigest()
        if settings["pause"]:
            time.sleep(settings["pause"])
            for name, value in self.seen.items():
                if name.startswith(f"{step} "):
                    print("seen:", name.replace(" ", "_"), value, file=sys.stderr)
        return found
class Silent:
    def update(self, done, **fields):
        pass
shape = {"vocab": tokenizer(SPEC).size, "window": 96, "layers": 2, "heads": 4, "head_dim": 8}
model = architecture.ModelConfig(**{**shape, **settings["model"]})
adapted = AdaptationConfig(**settings["adapted"])
found = {}
for name, shape in settings["meshes"].items():
    mesh = sharding.make_mesh(sharding.MeshConfig(*shape))
    data = Noting(sharding.rows_here(16, mesh))
    run_dir = pathlib.Path(settings["directory"]) / name
    (state,) = train.train_together(
        [train.Member(0, data, 1e-2, run_dir)],
        learning=step.Learning(Adaptation(adapted)),
        model=model,
        optimizer=optimizer.OptimizerConfig(
            name=settings["optimizer"], warmup_steps=2, learning_rate=1e-2),
        train=train.TrainConfig(steps=20, batch=16, log_every=1, save_every=20,
                                accumulate=settings["accumulate"]),
        mesh=mesh, progress=Silent())
    params = state.params.get("lora", state.params)
    kernel = params["blocks"]["attention"]["query"]["kernel"]
    kernel = kernel.get("a") if isinstance(kernel, dict) else kernel
    found[name] = {"seen": data.seen, "shard": kernel.addressable_shards[0].data.shape}
print(json.dumps(found))
"""

_DEFAULTS = {
    "devices": 8,
    "model": {},
    "optimizer": "adamw",
    "accumulate": 1,
    "adapted": {},
    # Seconds that data takes; then each process says what it saw as it goes on.
    "pause": 0,
}


def start(directory: pathlib.Path, **settings: object) -> subprocess.Popen:
    text = json.dumps({**_DEFAULTS, "directory": str(directory), **settings})
    # Both hosts of two would write the same entries.
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": str("process" not in settings)}
    return subprocess.Popen(
        [sys.executable, "-c", _WORK, text],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def end(process: subprocess.Popen) -> dict[str, dict]:
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err[-3000:]
    return json.loads(out.splitlines()[-1])


def seen(said: str) -> list[tuple[str, str]]:
    return [(a.replace("_", " "), b) for a, b in re.findall(r"^seen: (\S+) (\S+)$", said, re.M)]


def losses(directory: pathlib.Path, name: str) -> list[float]:
    return [r["loss"] for r in metrics.read_lines(directory / name / "metrics.jsonl")]


@pytest.mark.parametrize(
    ("optimizer", "accumulate", "meshes", "model", "adapted"),
    [
        ("adamw", 1, ["1x1", "8x1", "4x2", "2x4", "2x2x2", "all"], {}, {}),
        (
            "adamw",
            2,
            ["1x1", "all"],
            {"variant": "llama", "kv_heads": 2},
            {
                "kind": "lora",
                "rank": 4,
                "on": "attention/(query|out)/kernel,mlp/down/kernel,embed/embedding,head/kernel",
                "dropout": 0.1,
            },
        ),
        (
            "muon",
            2,
            ["1x1", "2x2x2", "all"],
            {
                "variant": "llama",
                "qk_norm": True,
                "scan": True,
                "canon": "ABCD",
                "rotary_fraction": 0.5,
            },
            {},
        ),
        (
            "adamw",
            1,
            ["1x1", "8x1", "all"],
            {"variant": "mixtral", "experts": 4, "dropout": 0.1, "remat": "full"},
            {},
        ),
    ],
)
def test_losses_do_not_depend_on_the_mesh(
    optimizer: str,
    accumulate: int,
    meshes: list[str],
    model: dict[str, object],
    adapted: dict[str, object],
    tmp_path: pathlib.Path,
) -> None:
    chosen = {name: MESHES[name] for name in meshes}
    settings = {"optimizer": optimizer, "accumulate": accumulate, "model": model}
    found = end(start(tmp_path, meshes=chosen, adapted=adapted, **settings))
    alone = losses(tmp_path, "1x1")
    assert len(alone) == 20
    assert alone[0] - alone[-1] > 0.3
    for name, (_, fsdp, _, tensor) in chosen.items():
        assert losses(tmp_path, name) == pytest.approx(alone, abs=1e-5), name
        assert found[name]["seen"] == found["1x1"]["seen"]
        outputs = [4] if adapted else [4 // tensor, 8]
        assert found[name]["shard"] == [2, 32 // fsdp, *outputs], name


def test_two_hosts_are_one_and_one_goes_on_where_they_were_ended(tmp_path: pathlib.Path) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    mesh = {"run": (2, 2, 1, 1)}
    one = start(tmp_path / "one", meshes=mesh, devices=4)
    hosts = [
        start(tmp_path / "two", meshes=mesh, devices=2, pause=0.3, port=port, process=number)
        for number in range(2)
    ]
    deadline = time.monotonic() + 300
    while len(losses(tmp_path / "two", "run")) < 4:
        assert all(host.poll() is None for host in hosts), [host.communicate() for host in hosts]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    # The machine of one is taken away: both agree on a step and save it.
    hosts[0].send_signal(signal.SIGTERM)
    said = [host.communicate(timeout=100)[1] for host in hosts]
    (step,) = {int(re.search(r"TerminatedError: after step (\d+),", text)[1]) for text in said}
    assert 4 <= step < 20
    whole = end(one)["run"]["seen"]
    expected = losses(tmp_path / "one", "run")
    assert losses(tmp_path / "two", "run") == pytest.approx(expected[:step], abs=1e-5)
    # Each host made its own rows, and no others.
    first, second = ({name: value for name, value in seen(text)} for text in said)
    assert not set(first) & set(second)
    both = {**first, **second}
    assert both == {name: whole[name] for name in both}
    for number in range(step):
        for part in (first, second):
            assert len([name for name in part if name.startswith(f"{number} tokens ")]) == 8
    # One host, with other devices along other axes, goes on from what two saved.
    later = end(start(tmp_path / "two", meshes={"run": (1, 1, 1, 2)}, devices=2))["run"]["seen"]
    assert later == {k: v for k, v in whole.items() if int(k.split()[0]) >= step}
    assert losses(tmp_path / "two", "run") == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("shape", "changes", "message"),
    [
        (
            (3, 1, 1, 1),
            {},
            r"^train\.batch is 16; it must be a multiple of 6, the 3 devices along ",
        ),
        (
            (1, 3, 1, 1),
            {},
            r"^train\.batch is 16; it must be a multiple of 6, the 3 devices along ",
        ),
        (
            (1, 1, 1, 3),
            {},
            r"^model\.heads is 4; it must be a multiple of the 3 devices along mesh\.t",
        ),
        (
            (1, 1, 1, 4),
            {"kv_heads": 2},
            r"^model\.kv_heads is 2; it must be a multiple of the 4 dev",
        ),
        ((1, 1, 1, 4), {"mlp_width": 30}, r"^the hidden width \(model\.mlp_width\) is 30; it must"),
        ((1, 8, 1, 1), {"head_dim": 2, "heads": 2}, r"^the width \(model\.heads times model\.head"),
        (
            (1, 1, 5, 1),
            {},
            r"^train\.window is 96; it must be a multiple of the 5 devices along me",
        ),
        ((1, 1, 2, 1), {"kernel": "splash"}, r"^model\.kernel is 'splash'; it must be 'blocks' or"),
    ],
)
def test_what_cannot_be_divided_is_refused(
    shape: tuple[int, ...], changes: dict[str, object], message: str
) -> None:
    mesh = jax.sharding.AbstractMesh(shape, sharding.AXES)
    settings = {"vocab": 60, "window": 96, "layers": 1, "heads": 4, "head_dim": 8, **changes}
    config = ModelConfig(**settings)
    accumulate = 2 if shape[0] == 3 or shape[1] == 3 else 1
    with pytest.raises(ValueError, match=message):
        sharding.check(config, 16, accumulate, mesh)
    whole = jax.sharding.AbstractMesh((1, 1, 1, 1), sharding.AXES)
    sharding.check(config, 16, 16, whole)
