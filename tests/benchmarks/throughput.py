"""Training and decoding tokens per second, ours beside PyTorch and Hugging Face.

    python tests/benchmarks/throughput.py [--layers 4 --heads 4 --head-dim 32 ...]
    python tests/benchmarks/throughput.py --platform gpu --layers 12 --heads 12 --head-dim 64 \
        --batch 32 --window 768 --vocab 50304 --dtype bfloat16 --only train

Every contender lives in a process of its own, is warmed up, and then they take turns; the table
shows medians over the rounds, so that what else the machine does hits all alike. One that cannot
start says why, and the others go on. Tokens are synthetic. A training token is one input position
of a step (forward, backward, AdamW, clipping); a decoded token is one generated token of a row, and
all contenders generate as many, from the same weights and prompts: greedily (decode), with 4 beams
(beam), and 8 samples of each prompt (sample).

On a GPU PyTorch's model is nanoGPT's but for its positions, which are rotary as ours: flash
attention by `scaled_dot_product_attention`, autocast to bfloat16, fused AdamW. Where the chip's
peak is known, the table has model FLOPs utilization (`physlm.throughput.model_flops`), counted
alike for all.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

TRAINERS = ("ours", "torch", "torch-compile")
DECODERS = ("ours", "hf", "hf-compile")
# Ways of decoding, and how many texts of a prompt are written in each.
WAYS = {"decode": 1, "beam": 4, "sample": 8}


def flags() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in [
        ("layers", 4),
        ("heads", 4),
        ("head-dim", 32),
        ("batch", 32),
        ("window", 256),
        ("vocab", 128),
        ("prompts", 64),
        ("prompt-tokens", 64),
        ("new-tokens", 96),
        ("rounds", 5),
        ("seconds", 4),
    ]:
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--devices", default=f"1,{os.cpu_count()},{2 * (os.cpu_count() or 1)}")
    parser.add_argument("--platform", choices=("cpu", "gpu", "tpu"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--only", default="", help="comma-separated patterns of contenders' names")
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    return parser


class Contender(NamedTuple):
    """What came of one contender.

    Attributes:
      speeds: tokens a second, round by round; none where it did not start.
      device: the kind of device that it ran on, and how many of them.
      said: the first rows that it decoded, the new tokens alone.
      error: why it did not start.
    """

    speeds: list[float]
    device: str = ""
    count: int = 1
    said: list[list[int]] | None = None
    error: str = ""

    @property
    def speed(self) -> float:
        """The median of the rounds; 0 where there are none."""
        return statistics.median(self.speeds) if self.speeds else 0.0


# Decoded rows that contenders show, to be compared.
SHOWN = 8


def decoder(args: argparse.Namespace):
    """The configuration that all contenders have."""
    from physlm.architecture import ModelConfig

    return ModelConfig(
        vocab=args.vocab,
        window=args.window,
        layers=args.layers,
        heads=args.heads,
        head_dim=args.head_dim,
        dtype=args.dtype,
        positions=max(args.window, args.prompt_tokens + args.new_tokens),
    )


def prompts_of(args: argparse.Namespace) -> np.ndarray:
    """The prompts that all contenders continue."""
    shape = (args.prompts, args.prompt_tokens)
    return np.random.default_rng(0).integers(0, args.vocab, shape, dtype=np.int32)


def ours(args: argparse.Namespace, job: str, devices: int, said: list) -> Callable[[], int]:
    """One training step or one decoding of all prompts; returns its tokens."""
    from physlm.devices import prepare
    from physlm.sharding import MeshConfig, make_mesh, shardings

    prepare(MeshConfig(cpu_devices=devices), args.batch)
    import jax
    import jax.numpy as jnp

    from physlm import model, optimizer
    from physlm import step as step_lib
    from physlm.decoding import engine
    from physlm.decoding.beam import Beam
    from physlm.decoding.sampling import Greedy, Sample
    from physlm.sharding import batch_sharding

    config = decoder(args)
    mesh = make_mesh(MeshConfig())
    key = jax.random.key(0)
    if job in WAYS:
        many = WAYS[job]
        strategy = Beam(beams=many) if job == "beam" else Sample(n=many)
        if job == "decode":
            strategy = Greedy()
        params = model.init(config, key)
        params = jax.device_put(params, shardings(params, mesh))
        prompts = jnp.asarray(prompts_of(args))
        lengths = jnp.full(args.prompts, args.prompt_tokens)

        def once() -> int:
            # A stop token outside the vocabulary: every row is decoded to the end.
            out = engine.decode(
                config,
                params,
                prompts,
                lengths,
                strategy=strategy,
                max_new_tokens=args.new_tokens,
                stop=-1,
                rows=args.prompts * many,
            )
            said[:] = out.tokens_NxSxM[:SHOWN, 0].tolist()
            return int(out.spent_NxS.sum())

        return once
    transform = optimizer.make(optimizer.OptimizerConfig(learning_rate=1e-3), 10_000)
    state = step_lib.first_state(config, transform, mesh, seed=0)
    step = step_lib.make_step(config, transform, mesh)
    batch = {
        "tokens": jax.random.randint(key, (args.batch, args.window + 1), 0, args.vocab),
        "weights": jnp.ones((args.batch, args.window)),
    }
    batch = jax.device_put(batch, batch_sharding(mesh))
    held = [state]

    def once() -> int:
        with jax.set_mesh(mesh):
            state, out = step(held.pop(), batch)
        held.append(state)
        jax.block_until_ready(out)
        return args.batch * args.window

    return once


def torch_device(args: argparse.Namespace) -> str:
    """PyTorch's name of the machine."""
    return "cuda" if args.platform == "gpu" else "cpu"


def torch_model(args: argparse.Namespace):
    """The same decoder in PyTorch."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    width, heads, head_dim = args.heads * args.head_dim, args.heads, args.head_dim
    exponents = torch.arange(0, head_dim, 2) / head_dim
    angles = torch.arange(args.window)[:, None] * 10000.0**-exponents
    cos, sin = angles.cos().to(torch_device(args)), angles.sin().to(torch_device(args))

    def rotate(x):
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x):
            size, length, _ = x.shape
            qkv = self.qkv(self.norm1(x)).view(size, length, 3, heads, head_dim)
            q, k, v = qkv.permute(2, 0, 3, 1, 4)
            read = F.scaled_dot_product_attention(rotate(q), rotate(k), v, is_causal=True)
            x = x + self.out(read.transpose(1, 2).reshape(size, length, width))
            return x + self.down(F.gelu(self.up(self.norm2(x)), approximate="tanh"))

    return nn.Sequential(
        nn.Embedding(args.vocab, width),
        *(Block() for _ in range(args.layers)),
        nn.LayerNorm(width),
        nn.Linear(width, args.vocab, bias=False),
    )


def torch_train(args: argparse.Namespace, compiled: bool) -> Callable[[], int]:
    """One training step of the PyTorch model."""
    import torch
    from torch.nn import functional as F

    torch.manual_seed(0)
    device = torch_device(args)
    torch.set_float32_matmul_precision("high")
    net = torch_model(args).to(device)
    update = torch.optim.AdamW(
        net.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0.05, fused=True
    )
    tokens = torch.randint(0, args.vocab, (args.batch, args.window + 1), device=device)
    half = args.dtype == "bfloat16"

    def loss_fn(tokens):
        with torch.autocast(device, dtype=torch.bfloat16, enabled=half):
            logits = net(tokens[:, :-1])
        return F.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())

    if compiled:
        loss_fn = torch.compile(loss_fn)

    def once() -> int:
        update.zero_grad()
        loss_fn(tokens).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        update.step()
        if device == "cuda":
            torch.cuda.synchronize()
        return args.batch * args.window

    return once


def hugging_face(
    args: argparse.Namespace, job: str, said: list, compiled: bool
) -> Callable[[], int]:
    """`generate` of the same model, exported: a GPT-NeoX, the rotary relative of GPT-2 there.

    Compiled, its cache is static and its forward pass compiled.
    """
    import jax

    # The weights are drawn by JAX, which is to leave the accelerator to PyTorch.
    jax.config.update("jax_platforms", "cpu")
    import torch
    import transformers

    from physlm import model
    from physlm.huggingface.mapping import hf_config, state_dict

    config = decoder(args)
    content = hf_config(config)
    loaded = transformers.AutoConfig.for_model(content.pop("model_type"), **content)
    net = getattr(transformers, content["architectures"][0])._from_config(loaded).eval()
    tensors = state_dict(config, model.init(config, jax.random.key(0)))
    net.load_state_dict({name: torch.from_numpy(x) for name, x in tensors.items()}, strict=True)
    net = net.to(torch_device(args), getattr(torch, args.dtype))
    prompts = torch.from_numpy(prompts_of(args)).long().to(torch_device(args))
    ways: dict[str, dict[str, Any]] = {
        "decode": {"do_sample": False},
        "beam": {"do_sample": False, "num_beams": WAYS["beam"]},
        "sample": {"do_sample": True, "num_return_sequences": WAYS["sample"], "top_k": 0},
    }
    way = ways[job]
    if compiled:
        way["cache_implementation"] = "static"
        net.forward = torch.compile(net.forward, fullgraph=True)

    def once() -> int:
        with torch.inference_mode():
            out = net.generate(
                prompts,
                attention_mask=torch.ones_like(prompts),
                min_new_tokens=args.new_tokens,
                max_new_tokens=args.new_tokens,
                pad_token_id=0,
                **way,
            )
        new = out[:, args.prompt_tokens :]
        said[:] = new[:SHOWN].tolist()
        return args.prompts * WAYS[job] * args.new_tokens

    return once


def contenders(args: argparse.Namespace) -> Iterator[str]:
    """Names `job:who[:devices]`, those asked for."""
    devices = dict.fromkeys(args.devices.split(",") if args.platform == "cpu" else ["1"])
    for job, names in (("train", TRAINERS), *((way, DECODERS) for way in WAYS)):
        for name in names:
            for full in (
                [f"{job}:ours:{n}" for n in devices] if name == "ours" else [f"{job}:{name}"]
            ):
                if not args.only or any(re.search(part, full) for part in args.only.split(",")):
                    yield full


def work(args: argparse.Namespace) -> None:
    """A contender's process: a round for every line that it reads."""
    job, name, *rest = args.worker.split(":")
    said: list[list[int]] = []
    try:
        if name == "ours":
            once = ours(args, job, int(rest[0]), said)
        elif job in WAYS:
            once = hugging_face(args, job, said, compiled=name == "hf-compile")
        else:
            once = torch_train(args, compiled=name == "torch-compile")
        for _ in range(3):
            once()
    # One contender must not take the others with it: no memory, no such package, no compiler.
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        print(json.dumps({"error": f"{type(error).__name__}: {text}"}), flush=True)
        return
    print(json.dumps({**_device(args, name), "said": said or None}), flush=True)
    for _ in sys.stdin:
        start, tokens = time.perf_counter(), 0
        while time.perf_counter() - start < args.seconds:
            tokens += once()
        print(tokens / (time.perf_counter() - start), flush=True)


def _device(args: argparse.Namespace, name: str) -> dict[str, Any]:
    if name == "ours":
        import jax

        return {"device": jax.devices()[0].device_kind, "count": jax.device_count()}
    if torch_device(args) == "cpu":
        return {"device": "cpu"}
    import torch

    return {"device": torch.cuda.get_device_name()}


def compare(arguments: Sequence[str]) -> dict[str, Contender]:
    """Runs the rounds of a command line; by name what came of each contender."""
    args = flags().parse_args(arguments)
    # Several share the memory of one GPU, and none has more GPUs than PyTorch, which takes one.
    env = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    if args.platform == "gpu":
        env.setdefault("CUDA_VISIBLE_DEVICES", "0")
    found: dict[str, Contender] = {}
    processes: dict[str, subprocess.Popen] = {}
    try:
        # They prepare side by side, since compiling takes each a while.
        for name in contenders(args):
            command = [sys.executable, __file__, *arguments, "--worker", name]
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            processes[name] = subprocess.Popen(command, **pipes, text=True, env=env)
        for name, process in list(processes.items()):
            line = process.stdout.readline()
            ready = json.loads(line) if line else {"error": "its process ended."}
            found[name] = Contender([], **ready)
            if found[name].error:
                process.stdin.close()
                process.wait()
                del processes[name]
        for _ in range(args.rounds):
            for name, process in processes.items():
                process.stdin.write("\n")
                process.stdin.flush()
                found[name].speeds.append(float(process.stdout.readline()))
    finally:
        for process in processes.values():
            process.stdin.close()
            process.wait()
    return found


def utilization(args: argparse.Namespace, contender: Contender) -> float | None:
    """Model FLOPs utilization of training; None where the peak of the device is not known."""
    from physlm.throughput import model_flops, peak_flops

    peak = peak_flops(types.SimpleNamespace(device_kind=contender.device))
    return peak and contender.speed * model_flops(decoder(args), 1) / (peak * contender.count)


def ratio(contender: Contender, base: Contender | None) -> float | None:
    """How many times as fast, as the median over the rounds; None where one did not run."""
    if not base or not base.speeds or not contender.speeds:
        return None
    pairs = zip(contender.speeds, base.speeds, strict=True)
    return statistics.median(ours / theirs for ours, theirs in pairs)


def main() -> None:
    """Runs the rounds and prints the table."""
    args = flags().parse_args()
    if args.worker:
        work(args)
        return
    found = compare(sys.argv[1:])
    width = args.heads * args.head_dim
    print(
        f"{args.layers} layers, width {width}, {args.dtype}; training {args.batch} x "
        f"{args.window}, decoding {args.prompts} x ({args.prompt_tokens} + {args.new_tokens})"
    )
    for name, contender in found.items():
        job, *who = name.split(":")
        label = " x ".join([*who[:1], *(f"{n} devices" for n in who[1:])])
        if contender.error:
            print(f"{job:7}{label:22} did not start: {contender.error}")
            continue
        base = "hf" if job in WAYS else "torch"
        times = ratio(contender, found.get(f"{job}:{base}"))
        beside = "" if times is None else f"  {times:5.2f} x {base}"
        share = utilization(args, contender) if job == "train" else None
        used = "" if share is None else f"  MFU {share:.1%}"
        print(f"{job:7}{label:22}{contender.speed:10.0f} tokens/s{beside}{used}")


if __name__ == "__main__":
    main()
