"""Memory, operations and collectives of training steps on TPUs, by compilation alone: no TPU.

    pip install 'jax[tpu]'
    python tests/benchmarks/memory.py [--case NAME …]

XLA's own compiler for TPUs (libtpu) makes the program that would run, and says what each device
must hold: its arguments, and at the peak, arguments included. Its figure for what is temporary can
be above that: not all of it is held at once. Nothing is run and nothing is timed. A case that
needs more than its chip has is said not to compile. Bytes of collectives are counted as in
`physlm.tools.roofline`, and what is in a loop as often as the loop runs; XLA's own count of
operations has a loop's body once, and nothing of Mosaic kernels (splash attention).
"""

import argparse
import collections
import os
import re
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh

from physlm import optimizer, sharding
from physlm import step as step_lib
from physlm.architecture import ModelConfig, sized


class Case(NamedTuple):
    topology: str
    data: int
    fsdp: int
    size: str
    variant: str
    vocab: int
    batch: int
    window: int
    remat: str = "none"
    accumulate: int = 1
    scan: bool = False


# The paper's model, its layers written out as at scale `paper`, and one of a billion parameters:
# Llama's blocks, 16 of width 2048, one program run again and again.
_PAPER = ("12-12", "gpt2", 50_257, 512, 768)
_BILLION = ("16-32", "llama", 50_257, 512, 1024)

CASES = {
    "12-12/v5e-8": Case("v5e:2x4", 8, 1, *_PAPER),
    "12-12/v5e-8/parts-8": Case("v5e:2x4", 8, 1, *_PAPER, accumulate=8),
    "12-12/v6e-8/parts-4": Case("v6e:2x4", 8, 1, *_PAPER, accumulate=4),
    "12-12/v5p-8": Case("v5p:2x2x2", 8, 1, *_PAPER),
    "12-12/v5p-8/scan": Case("v5p:2x2x2", 8, 1, *_PAPER, scan=True),
    "12-12/v5e-256": Case("v5e:16x16", 256, 1, *_PAPER),
    "1B/v5e-256/fsdp-256": Case("v5e:16x16", 1, 256, *_BILLION, scan=True),
    "1B/v5e-256/fsdp-256/full": Case("v5e:16x16", 1, 256, *_BILLION, remat="full", scan=True),
    "1B/v5e-256/fsdp-16": Case("v5e:16x16", 16, 16, *_BILLION, scan=True),
    "1B/v5e-256/fsdp-16/full": Case("v5e:16x16", 16, 16, *_BILLION, remat="full", scan=True),
}


def compiled(case: Case) -> tuple[int, jax.stages.Compiled]:
    """Parameters, and the step's program."""
    devices = topologies.get_topology_desc(platform="tpu", topology_name=case.topology).devices
    shape = (case.data, case.fsdp, 1, 1)
    mesh = Mesh(np.array(devices).reshape(shape), sharding.AXES, axis_types=(AxisType.Auto,) * 4)
    assert mesh.devices.flat[0].platform == "tpu"
    config = ModelConfig(
        vocab=case.vocab,
        window=case.window,
        **sized(case.size),
        variant=case.variant,
        dtype="bfloat16",
        scan=case.scan,
        remat=case.remat,
        kernel="splash",
    )
    transform = optimizer.make(optimizer.OptimizerConfig(), 100_000)
    state = step_lib.abstract_state(config, transform, mesh)
    place = sharding.batch_sharding(mesh)
    batch = {
        "tokens": jax.ShapeDtypeStruct((case.batch, case.window + 1), jnp.int32, sharding=place),
        "weights": jax.ShapeDtypeStruct((case.batch, case.window), jnp.float32, sharding=place),
    }
    step = step_lib.make_step(config, transform, mesh, case.accumulate)
    with jax.set_mesh(mesh):
        program = step.lower(state, batch).compile()
    return sum(leaf.size for leaf in jax.tree.leaves(state.params)), program


_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4}
_KINDS = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"


class Collective(NamedTuple):
    """A collective operation of a compiled program, counted as `collective_bytes` counts.

    Attributes:
      kind: its name in HLO.
      bytes: without scalars.
      times: how often a step does it.
      group: devices of which one gets what is made of all, those of the first one's group; empty
        where the program says it in a way that is not read here.
    """

    kind: str
    bytes: int
    times: int
    group: tuple[int, ...]


def collectives(hlo: str) -> list[Collective]:
    """The collective operations in a compiled program's text, scalars left out.

    What is in a loop counts as often as the loop is known to run; what is begun and ended apart,
    where it is begun.
    """
    bodies: dict[str, list[str]] = {}
    entry = name = ""
    for line in hlo.splitlines():
        if head := re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line):
            name, entry = head[2], head[2] if head[1] else entry
        elif line.startswith(" ") and name:
            bodies.setdefault(name, []).append(line)
    found, seen = [], set()

    def trips(line: str) -> int:
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
        condition = re.search(r"condition=%?([\w.\-]+)", line)
        if known or not condition:
            return int(known[1]) if known else 1
        # TPU's programs do not say; JAX's loops count from 0 up to a constant.
        until = re.findall(r" s32\[\]\S* constant\((\d+)\)", "".join(bodies[condition[1]]))
        return max(map(int, until), default=1)

    def visit(name: str, times: int) -> None:
        for line in bodies[name]:
            for key, called in re.findall(r"(body|calls|to_apply)=\{?%?([\w.\-]+)", line):
                if called in bodies:
                    visit(called, times * trips(line) if key == "body" else times)
            made = re.match(rf"\s+(?:ROOT )?%\S+ = (.*?) ({_KINDS})(-start)?\(", line)
            shapes = re.findall(r"(\w+)\[([\d,]+)\]", made[1]) if made else []
            # TPU's programs name one that goes on during others in each of them.
            chain = re.search(r'chain_id="\d+"', line)
            if not made or not shapes or (chain and chain[0] in seen):
                continue
            if chain:
                seen.add(chain[0])
            sizes = [_BYTES[dtype] * int(np.prod(_dims(dims))) for dtype, dims in shapes]
            # What is begun names what goes in before what comes out.
            if made[3] and made[2] != "all-reduce":
                sizes = sizes[len(sizes) // 2 :]
            group = _group(line)
            size = sum(sizes) * (len(group) if made[2] == "reduce-scatter" else 1)
            found.append(Collective(made[2], size, times, group))

    visit(entry, 1)
    return found


def _dims(dims: str) -> list[int]:
    return [int(dim) for dim in dims.split(",")]


def _group(line: str) -> tuple[int, ...]:
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return tuple(_dims(listed[1]))
    counted = re.search(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", line)
    if not counted:
        return ()
    shape, dims = _dims(counted[1]), _dims(counted[2])
    ids = np.arange(np.prod(dims)).reshape(dims)
    if counted[3]:
        ids = ids.transpose(_dims(counted[3]))
    return tuple(ids.reshape(shape)[0].tolist())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", nargs="+", default=list(CASES), choices=list(CASES))
    cases = parser.parse_args().case
    # No TPU is looked for, and several such compilers may be at work.
    os.environ.update(ALLOW_MULTIPLE_LIBTPU_LOAD="1", TPU_SKIP_MDS_QUERY="1")
    jax.config.update("jax_platforms", "cpu")
    for name in cases:
        print(f"{name} …", flush=True)
        started = time.perf_counter()
        try:
            parameters, program = compiled(CASES[name])
        except jax.errors.JaxRuntimeError as error:
            print(f"  does not compile: {str(error)[:2000]}", flush=True)
            continue
        seconds = time.perf_counter() - started
        memory = program.memory_analysis()
        mib = {
            "arguments": memory.argument_size_in_bytes,
            "temporary": memory.temp_size_in_bytes,
            "peak": memory.peak_memory_in_bytes,
        }
        print(f"  {parameters:,} parameters; compiled in {seconds:.0f} s")
        print("  MiB a device: " + ", ".join(f"{k} {v / 2**20:,.0f}" for k, v in mib.items()))
        flops = program.cost_analysis()["flops"]
        print(f"  operations a device, loops' bodies once, without splash attention: {flops:.4g}")
        counts: collections.Counter[str] = collections.Counter()
        sizes: collections.Counter[str] = collections.Counter()
        for one in collectives(program.as_text()):
            counts[one.kind] += one.times
            sizes[one.kind] += one.times * one.bytes
        for kind in sorted(counts):
            print(f"  {kind}: {counts[kind]} a step, {sizes[kind] / 2**20:,.1f} MiB", flush=True)


if __name__ == "__main__":
    main()
