"""What devices say to each other in a step: as often as it must be, and as much as is predicted."""

import collections
import json
import subprocess
import sys

import numpy as np
import pytest
from benchmarks.memory import Collective, collectives
from test_mesh import MESHES

from physlm.architecture import ModelConfig
from physlm.sharding import AXES
from physlm.tools import roofline

# With a second interpreter CI leaves these out: they take long.
pytestmark = pytest.mark.slow

FIELDS = {"vocab": 40, "window": 32, "layers": 3, "heads": 4, "head_dim": 8, "scan": True}

CASES = {
    **{name: (shape, "gpt2") for name, shape in MESHES.items()},
    "llama": ((2, 2, 1, 2), "llama"),
}

# One microbatch a device. The layers are a loop, so that what is brought together forward and
# backward is not merged; the CPU widens bfloat16, so that the dtype is float32.
_PROGRAMS = """
import json, pathlib, sys
import jax, jax.numpy as jnp
jax.config.update("jax_num_cpu_devices", 8)
from physlm import optimizer, sharding, step
from physlm.architecture import ModelConfig
directory, fields, cases = pathlib.Path(sys.argv[1]), *map(json.loads, sys.argv[2:])
transform = optimizer.make(optimizer.OptimizerConfig(warmup_steps=1), 5)
for name, (shape, variant) in cases.items():
    config = ModelConfig(**fields, variant=variant)
    mesh = sharding.make_mesh(sharding.MeshConfig(*shape))
    rows, place = shape[0] * shape[1], sharding.batch_sharding(mesh)
    batch = {
        "tokens": jax.ShapeDtypeStruct((rows, config.window + 1), jnp.int32, sharding=place),
        "weights": jax.ShapeDtypeStruct((rows, config.window), jnp.float32, sharding=place),
    }
    state = step.abstract_state(config, transform, mesh)
    with jax.set_mesh(mesh):
        program = step.make_step(config, transform, mesh).lower(state, batch).compile()
    (directory / name).write_text(program.as_text())
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Collective]]:
    """Of each case the collectives in its compiled step, but for sums of single numbers."""
    directory = tmp_path_factory.mktemp("programs")
    command = [sys.executable, "-c", _PROGRAMS, str(directory)]
    subprocess.run([*command, json.dumps(FIELDS), json.dumps(CASES)], check=True, timeout=400)
    return {
        name: [one for one in collectives((directory / name).read_text()) if one.bytes]
        for name in CASES
    }


def test_a_step_communicates_what_it_must_and_nothing_else(
    said: dict[str, list[Collective]],
) -> None:
    """In the program of scanned layers each of a layer's collectives stands once."""
    # Gradients, added up once a step.
    gradients = collections.Counter({"all-reduce": 1})
    # Six kernels of a block forward and backward, embedding and head once; and their gradients.
    fsdp = collections.Counter({"all-gather": 6 + 6 + 2, "reduce-scatter": 6 + 2})
    # What each half of a block adds to the stream, and to its gradient.
    tensor = collections.Counter({"all-reduce": 4})
    # Keys and values; what is read forward is not read again unless it is computed again.
    sequence = collections.Counter({"all-gather": 2, "reduce-scatter": 2})
    again = collections.Counter({"all-gather": 2})
    # A gate is a kernel more, and no biases are added up apart.
    gate = collections.Counter({"all-gather": 2, "reduce-scatter": 1})
    expected = {
        "1x1": collections.Counter(),
        "8x1": gradients,
        "4x2": gradients + tensor,
        "2x4": gradients + tensor,
        # Along `data` what is divided, along `fsdp` too what is not.
        "2x2x2": gradients + gradients + fsdp + tensor,
        "fsdp": gradients + fsdp,
        "sequence": gradients + sequence,
        "all": gradients + gradients + fsdp + tensor + sequence + again,
        "llama": gradients + gradients + fsdp + gate + tensor,
    }
    found = {name: collections.Counter(one.kind for one in each) for name, each in said.items()}
    assert found == expected


@pytest.mark.parametrize("name", list(CASES))
def test_bytes_are_those_predicted(name: str, said: dict[str, list[Collective]]) -> None:
    shape, variant = CASES[name]
    found: dict = {}
    for one in said[name]:
        places = np.array(np.unravel_index(one.group, shape))
        axes = tuple(np.array(AXES)[(places != places[:, :1]).any(axis=1)].tolist())
        found.setdefault(axes, collections.Counter())[one.kind] += one.times * one.bytes
    config, mesh = ModelConfig(**FIELDS, variant=variant), dict(zip(AXES, shape, strict=True))
    assert found == roofline.collective_bytes(config, shape[0] * shape[1], mesh)
