"""How long the paper's runs should take on TPUs, and what limits them: a roofline estimate.

Nothing here has been timed on these chips. For each device and each training step three times are
computed from published figures: the model's FLOPs (`physlm.throughput.model_flops`) at the chip's
peak; the bytes between the chip and its memory (`memory_bytes`, a simple model) at its bandwidth;
and the bytes of the collective operations of `physlm.step` (`collective_bytes`, which a test
compares with compiled programs), each run as a ring over two of a chip's links. Two links are what
every chip of a slice of eight has. `least` is the largest of the three times, a lower bound.

`step` is a guess at the real time. It assumes that a program gets 55% of the peak and 80% of either
bandwidth, that memory traffic overlaps with matrix products, that of the collectives only those
along `fsdp` do, and that no step takes less than 2.35 ms, as those of small models do not, whose
host cannot dispatch them faster. That was measured on an H200, and nowhere on a TPU. Times are in
milliseconds. Data, evaluation and compilation are not included. The table has two vocabularies: one
token for each word of the grammar, and GPT-2's.

 run  chips   vocab   tokens  TFLOP  compute  memory  links    bound  least   step  days
 med  8 v5e   1,720  393,216    237    150.3   137.8    6.1  compute  150.3  281.0  0.33
 med  8 v5p   1,720  393,216    237     64.5    37.0    3.1  compute   64.5  121.1  0.14
 med  8 v6e   1,720  393,216    237     32.3    65.5    3.1   memory   65.5   85.7  0.10
 med  8 v5e  50,257  393,216    325    206.1   198.6   11.4  compute  206.1  389.0  0.45
 med  8 v5p  50,257  393,216    325     88.5    51.8    5.7  compute   88.5  167.9  0.19
 med  8 v6e  50,257  393,216    325     44.2    93.0    5.7   memory   93.0  123.3  0.14
hard  8 v5e   1,720  262,144    165    104.9    97.5    6.1  compute  104.9  198.4  0.46
hard  8 v5p   1,720  262,144    165     45.0    25.1    3.1  compute   45.0   85.7  0.20
hard  8 v6e   1,720  262,144    165     22.5    45.3    3.1   memory   45.3   60.5  0.14
hard  8 v5e  50,257  262,144    224    142.1   142.7   11.4   memory  142.7  272.6  0.63
hard  8 v5p  50,257  262,144    224     61.0    35.2    5.7  compute   61.0  118.0  0.27
hard  8 v6e  50,257  262,144    224     30.5    65.0    5.7   memory   65.0   88.4  0.20

Eight chips of v5p are what Google calls v5p-16. On eight chips a whole batch needs more memory than
some have (`tests/benchmarks/memory.py`), so the table assumes `train.accumulate` of 8 on v5e, 4 on
v6e and 1 on v5p.

On v5e and v5p matrix products are the limit, on v5e only just. Attention has 14% of the FLOPs for
`med` and 18% for `hard` (word tokens). On v6e, which has 4.7 times the FLOPs of v5e and twice its
bandwidth, memory is the limit: at a width of 768 every norm and activation is written and read
again for few FLOPs. The links hardly matter on eight chips: the all-reduce of the gradients, 4 x
88M bytes or, with GPT-2's vocabulary, 4 x 162M, takes 3 to 8% of a step. With more chips it does
matter: on 256 chips of v5e a step of `med` (word tokens) takes 18 ms, half of them for the
gradients. Along `fsdp`, the TPU compiler turns the reduce-scatters of kernels of which a device
holds 8 columns into all-reduces, which send twice as much; where a device holds 128 it does not.
"""

import argparse
import collections
import functools
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh
from jax.sharding import PartitionSpec as P

from data_gen import interrupts, keys
from data_gen.keys import Purpose
from data_gen.settings import RefusedError
from data_gen.spec import Spec
from data_gen.windows.tokenizer import tokenizer
from physlm import model, sharding
from physlm.architecture import VARIANTS, ModelConfig, sized
from physlm.sharding import MeshConfig
from physlm.throughput import model_flops
from physlm.tools.chips import CHIPS, Chip

# Assumptions, not measurements: the share of the published figures that a program gets.
_FLOPS, _BANDWIDTH, _LINKS = 0.55, 0.8, 0.8

# Seconds that a step takes at least: 2,048 tokens at the 872k a second at which an H200 trains a
# model of 4 layers and width 128 that keeps it all but idle (`tests/benchmarks/README.md`, "eight
# runs ... one after the other"). So long the host takes to dispatch it and the chip to launch it.
DISPATCH = 2.35e-3

# Only collectives along `fsdp` are assumed to overlap with matrix products: gradients are summed
# after the last product, and what `tensor` and `sequence` communicate is waited for.
_HIDDEN = ("fsdp",)

# Bytes a parameter: AdamW reads it, its gradient and two moments, and writes all but the gradient.
_UPDATE = 7 * 4

# (batch, window, steps) of the paper's runs, and the vocabulary of its tokenizer.
_RUNS = {"med": (512, 768, 100_000), "hard": (256, 1024, 200_000)}
_GPT2 = 50_257

# Parts of a batch (`train.accumulate`) with which the activations fit eight chips, as compiled by
# tests/benchmarks/memory.py.
_PARTS = {"v5e": 8, "v5p": 1, "v6e": 4}

Axes = tuple[str, ...]


def _leaves(config: ModelConfig) -> Iterator[tuple[str, P, int]]:
    """The path, the mesh axes and the number of elements of each parameter."""
    params = jax.eval_shape(functools.partial(model.init, config), keys.root(0, Purpose.PARAMETERS))
    for key_path, leaf in jax.tree_util.tree_leaves_with_path(params):
        path = sharding.path_of(key_path)
        yield path, sharding.spec_of(path), leaf.size


def _checked(
    config: ModelConfig, batch: int, mesh: Mapping[str, int], accumulate: int
) -> dict[str, int]:
    """The number of devices along every axis of the mesh; refuses what cannot be divided so."""
    devices = {axis: mesh.get(axis, 1) for axis in sharding.AXES}
    abstract: Any = AbstractMesh(tuple(devices.values()), sharding.AXES)
    sharding.check(config, batch, accumulate, abstract)
    return devices


def collective_bytes(
    config: ModelConfig, batch: int, mesh: Mapping[str, int], accumulate: int = 1
) -> dict[Axes, dict[str, int]]:
    """Bytes that the collective operations of a training step (`physlm.step`) have on each device.

    Not counted are scalars, the small sums of normalised queries and keys and of the experts'
    balance, and half of what a mixture of experts sums along `tensor`, which depends on the
    compiler.

    Args:
      config: the model.
      batch: sequences a step.
      mesh: the number of devices along the mesh's axes; an axis that is not named has 1.
      accumulate: parts of a batch that a device works on one after the other.

    Returns:
      Bytes by the axes of an operation (without axes of one device) and by its name. They are the
      size of the result of an `all-gather`, of the operand of a `reduce-scatter`, and of the array
      of an `all-reduce`.

    Raises:
      ValueError: the model or the batch cannot be divided among these devices.
    """
    devices = _checked(config, batch, mesh, accumulate)
    width = jnp.dtype(config.dtype).itemsize
    found: dict[Axes, collections.Counter[str]] = {}

    def add(axes: Axes, operation: str, size: int) -> None:
        axes = tuple(axis for axis in axes if devices[axis] > 1)
        if axes:
            found.setdefault(axes, collections.Counter())[operation] += size

    for path, spec, size in _leaves(config):
        if "tensor" in spec:
            size //= devices["tensor"]
        if "fsdp" in spec:
            # A block's kernels are gathered forward and backward for each part of a batch, those
            # outside of the blocks once for the whole batch.
            gathers = 2 * accumulate if path.startswith("blocks/") else 1
            add(("fsdp",), "all-gather", gathers * width * size)
            add(("fsdp",), "reduce-scatter", accumulate * 4 * size)
            add(("data", "sequence"), "all-reduce", 4 * size // devices["fsdp"])
        else:
            add(sharding.SHARED_OUT, "all-reduce", 4 * size)
    rows = batch // (devices["data"] * devices["fsdp"])
    heads = config.shared_heads // devices["tensor"]
    read = config.layers * 2 * rows * heads * config.window * config.head_dim * width
    # Where blocks are recomputed in the backward pass, so are their keys and values.
    again = config.remat != "none" or devices["fsdp"] > 1
    add(("sequence",), "all-gather", (1 + again) * read)
    add(("sequence",), "reduce-scatter", read)
    # Two sums forward and two backward, and attention's again where all is recomputed.
    sums = 4 + (config.remat == "full")
    stream = rows * (config.window // devices["sequence"]) * config.width * width
    add(("tensor",), "all-reduce", config.layers * sums * stream)
    return {axes: dict(operations) for axes, operations in found.items()}


def collective_seconds(
    chip: Chip, moved: Mapping[Axes, Mapping[str, int]], mesh: Mapping[str, int]
) -> dict[Axes, float]:
    """Seconds that the collectives along each set of axes take, on rings.

    In a ring a chip sends half of its data to either of two neighbours.

    Args:
      chip: the chip, whose links are used two at a time.
      moved: bytes by axes and operation, as `collective_bytes` returns them.
      mesh: the number of devices along these axes.
    """
    speed = chip.interconnect * min(1, 2 / chip.links)
    found = {}
    for axes, operations in moved.items():
        ring = int(np.prod([mesh[axis] for axis in axes]))
        # An all-reduce is a reduce-scatter and an all-gather.
        sent = sum(size * (1 + (kind == "all-reduce")) for kind, size in operations.items())
        found[axes] = sent * (ring - 1) / ring / speed
    return found


def memory_bytes(
    config: ModelConfig, batch: int, mesh: Mapping[str, int], accumulate: int = 1
) -> float:
    """Bytes that each device reads from and writes to its memory in a step, by a simple model.

    For each part of a batch weights are read forward and backward and their gradients written;
    AdamW then reads and writes its state once. The activations of a block are the outputs of its
    norms, projections and activation function and the residual stream after attention and after
    the MLP. They are written and read once in the forward pass, and the backward pass moves twice
    as much. Attention's scores never leave the chip. Logits and their gradients are written and
    read once, in float32.

    Args:
      config: the model.
      batch: sequences a step.
      mesh: the number of devices along the mesh's axes; an axis that is not named has 1.
      accumulate: parts of a batch that a device works on one after the other.

    Raises:
      ValueError: the model or the batch cannot be divided among these devices.
    """
    devices = _checked(config, batch, mesh, accumulate)
    width = jnp.dtype(config.dtype).itemsize
    # With several parts the sum of the gradients so far is read and written, in float32.
    added, weights = 8 if accumulate > 1 else 0, 0.0
    for _, spec, size in _leaves(config):
        own = size / (devices["tensor"] if "tensor" in spec else 1)
        held = own / (devices["fsdp"] if "fsdp" in spec else 1)
        weights += accumulate * (2 * width + 4 + added) * own + _UPDATE * held
    taken = config.experts_per_token if config.mixture > 1 else 1
    divided = 2 * (config.heads + config.shared_heads) * config.head_dim
    divided += taken * (3 if config.family.gated else 2) * config.hidden
    values = config.layers * (6 * config.width + divided / devices["tensor"])
    shards = devices["data"] * devices["fsdp"] * devices["sequence"]
    tokens = batch * config.window / shards
    return weights + tokens * (6 * width * values + 16 * config.vocab)


class Prediction(NamedTuple):
    """The estimate for a run.

    Attributes:
      tokens: tokens of a step.
      flops: FLOPs of a step, summed over all devices.
      compute: seconds of a step at the chip's peak.
      memory: seconds of a step at its memory's bandwidth.
      collectives: seconds of a step for the collectives, by axes.
      bound: which of the three is the largest: compute, memory or links.
      least: seconds of that one.
      step: seconds of a step at the efficiencies that are assumed, `DISPATCH` at least.
      days: days of the whole run.
    """

    tokens: int
    flops: float
    compute: float
    memory: float
    collectives: dict[Axes, float]
    bound: str
    least: float
    step: float
    days: float


def predict(
    chip: Chip,
    config: ModelConfig,
    batch: int,
    steps: int,
    mesh: Mapping[str, int],
    accumulate: int = 1,
) -> Prediction:
    """Estimates a run.

    Args:
      chip: the chip, as many of them as the mesh has devices.
      config: the model.
      batch: sequences a step.
      steps: steps of the run.
      mesh: the number of devices along the mesh's axes; an axis that is not named has 1.
      accumulate: parts of a batch that a device works on one after the other.

    Raises:
      ValueError: the model or the batch cannot be divided among these devices.
    """
    devices = _checked(config, batch, mesh, accumulate)
    count = int(np.prod(list(devices.values())))
    tokens = batch * config.window
    flops = model_flops(config, tokens)
    compute = flops / count / chip.flops
    memory = memory_bytes(config, batch, devices, accumulate) / chip.bandwidth
    moved = collective_bytes(config, batch, devices, accumulate)
    links = collective_seconds(chip, moved, devices)
    terms = {"compute": compute, "memory": memory, "links": sum(links.values())}
    bound = max(terms, key=lambda name: terms[name])
    hidden = sum(seconds for axes, seconds in links.items() if axes == _HIDDEN)
    waited = terms["links"] - hidden
    step = max(compute / _FLOPS, memory / _BANDWIDTH, hidden / _LINKS) + waited / _LINKS
    step = max(step, DISPATCH)
    days = steps * step / 86_400
    return Prediction(tokens, flops, compute, memory, links, bound, terms[bound], step, days)


def _row(run: str, chips: str, vocab: int, found: Prediction) -> dict[str, str]:
    def milliseconds(seconds: float) -> str:
        return f"{1e3 * seconds:,.1f}"

    return {
        "run": run,
        "chips": chips,
        "vocab": f"{vocab:,}",
        "tokens": f"{found.tokens:,}",
        "TFLOP": f"{found.flops / 1e12:,.0f}",
        "compute": milliseconds(found.compute),
        "memory": milliseconds(found.memory),
        "links": milliseconds(sum(found.collectives.values())),
        "bound": found.bound,
        "least": milliseconds(found.least),
        "step": milliseconds(found.step),
        "days": f"{found.days:.2f}",
    }


def _config(size: str, **fields: Any) -> ModelConfig:
    return ModelConfig(**{**sized(size), "dtype": "bfloat16", **fields})


def paper() -> Iterator[dict[str, str]]:
    """A row for each of the paper's two pretraining runs, each vocabulary and each kind of TPU."""
    for run, (batch, window, steps) in _RUNS.items():
        for vocab in (tokenizer(Spec()).size, _GPT2):
            config = _config("12-12", vocab=vocab, window=window)
            for name, parts in _PARTS.items():
                found = predict(CHIPS[name], config, batch, steps, {"data": 8}, parts)
                yield _row(run, f"8 {name}", vocab, found)


def main(arguments: list[str]) -> None:
    """Prints the estimates for the paper's runs or, with any argument, for the run it describes."""
    parser = argparse.ArgumentParser(
        prog="python -m physlm.tools.roofline", description=main.__doc__
    )
    parser.add_argument("--chip", default="v5e", choices=CHIPS)
    parser.add_argument("--devices", type=int, default=8)
    parser.add_argument("--size", default="12-12")
    parser.add_argument("--variant", default="gpt2", choices=VARIANTS)
    parser.add_argument("--vocab", type=int, default=tokenizer(Spec()).size)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--window", type=int, default=768)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--accumulate", type=int, default=1)
    for axis in ("fsdp", "sequence", "tensor"):
        parser.add_argument(f"--{axis}", type=int, default=1)
    args = parser.parse_args(arguments)
    if not arguments:
        _print(list(paper()))
        return
    try:
        for name in ("batch", "steps", "accumulate", "devices", "fsdp", "sequence", "tensor"):
            if getattr(args, name) < 1:
                raise RefusedError(f"--{name}", getattr(args, name), "at least 1")
        mesh = MeshConfig(fsdp=args.fsdp, sequence=args.sequence, tensor=args.tensor)
        if args.devices % mesh.beside_data:
            raise RefusedError("--devices", args.devices, f"a multiple of {mesh.beside_data}")
        shape = {axis: getattr(args, axis) for axis in ("fsdp", "sequence", "tensor")}
        shape["data"] = args.devices // mesh.beside_data
        config = _config(args.size, vocab=args.vocab, window=args.window, variant=args.variant)
        found = predict(CHIPS[args.chip], config, args.batch, args.steps, shape, args.accumulate)
    except ValueError as error:
        parser.error(str(error))
    _print([_row(args.size, f"{args.devices} {args.chip}", args.vocab, found)])
    for axes, operations in collective_bytes(config, args.batch, shape, args.accumulate).items():
        listed = ", ".join(f"{kind} {size / 2**20:,.1f} MiB" for kind, size in operations.items())
        print(f"along {' and '.join(axes)}: {1e3 * found.collectives[axes]:,.1f} ms, {listed}")


def _print(rows: list[dict[str, str]]) -> None:
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


if __name__ == "__main__":
    interrupts.run(lambda: main(sys.argv[1:]))
