"""How fast data is made on the device, and what that costs a training step."""

import statistics
from collections.abc import Iterator

import jax
from benchmarks import documents
from benchmarks import input as input_lib
from benchmarks.steps.figure import Figure, Setting
from benchmarks.steps.training import ROWS, WINDOW

from data_gen.device import of_data
from data_gen.solutions.mistakes import Mistakes
from data_gen.spec import MED, Spec
from data_gen.windows.configuration import Windows
from data_gen.windows.tokenizer import tokenizer
from physlm import sharding
from physlm.architecture import ModelConfig, sized
from physlm.optimizer import OptimizerConfig

RETRY = Mistakes(rate=0.5)
DISTRIBUTIONS = {"retry 0.5": RETRY}
# That of the scale `smoke`.
SMALL = Spec(
    max_op=3,
    max_edges=6,
    max_depth=3,
    max_width=2,
    modulus=5,
    hierarchies=1,
    subcategories=1,
    names=3,
    letters=12,
)


def figures(setting: Setting) -> Iterator[Figure]:
    """Problems and documents a second, and their share of a step of the paper's model."""
    spec, counts, rounds = MED, (512, 4096), 11
    if setting.tiny:
        spec, counts, rounds = SMALL, (16,), 1
    yield from _share(setting, spec)
    # As many as a stream makes at once, and more.
    places = {"": None}
    if setting.platform != "cpu":
        places = {", a core of the host": of_data("cpu"), **places}
    for count in counts:
        for where, device in places.items():
            with jax.default_device(device):
                found = documents.measure(spec, count, rounds, DISTRIBUTIONS)
            for name, pace in found.items():
                is_all = name == documents.PROBLEMS
                what = "problems" if is_all else f"documents, {name}"
                unit = "problems/s" if is_all else "documents/s"
                yield Figure(f"{what}, {count} at once{where}", count / pace.seconds, unit)


def _share(setting: Setting, spec: Spec) -> Iterator[Figure]:
    vocab = tokenizer(spec).size
    if setting.tiny:
        batch, window, rounds, seconds = 16 * setting.devices, 128, 1, 0.1
        model = ModelConfig(vocab=vocab, window=window, layers=1, heads=1, head_dim=8)
    else:
        batch, window, rounds, seconds = setting.rows(ROWS) * setting.devices, WINDOW, 3, 3.0
        model = ModelConfig(vocab=vocab, window=window, dtype="bfloat16", **sized("12-12"))
    work = input_lib.Work(spec, RETRY, Windows(window), model, OptimizerConfig(), batch)
    mesh = sharding.make_mesh(sharding.MeshConfig())
    names = ("ready", "beside", "alone")
    speeds = input_lib.measure(work, mesh, names, rounds, seconds)
    ready, beside, alone = (statistics.median(speeds[name]) for name in names)
    size = f"{model.layers}-{model.heads}, {batch} x {window}"
    yield Figure(f"training, {size}, data ready", ready, "tokens/s")
    yield Figure(
        f"training, {size}, data made beside it", beside, "tokens/s", f"{beside / ready:.2f} x"
    )
    yield Figure("windows with retry 0.5, made alone", alone, "tokens/s")
    yield Figure("making data, as a share of a step", 100 * ready / alone, "%")
