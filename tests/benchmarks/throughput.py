"""Training and decoding tokens per second, ours beside PyTorch and Hugging Face.

    python tests/benchmarks/throughput.py [--layers 4 --heads 4 --head-dim 32 ...]
    python tests/benchmarks/throughput.py --platform gpu --layers 12 --heads 12 --head-dim 64 \
        --batch 32 --window 768 --vocab 50304 --dtype bfloat16 --only train

Every contender lives in a process of its own, is warmed up, and then they take turns; the table
shows medians over the rounds, so that what else the machine does hits all alike. Tokens are
synthetic. A training token is one input position of a step (forward, backward, AdamW, clipping);
a decoded token is one generated token of a row, and all contenders generate as many.

On a GPU PyTorch's model is nanoGPT's but for its positions, which are rotary as ours: flash
attention by `scaled_dot_product_attention`, autocast to bfloat16, fused AdamW. Where the chip's
peak is known, the table has model FLOPs utilization (`physlm.throughput.model_flops`), counted
alike for all.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

TRAINERS = ("ours", "torch", "torch-compile")
DECODERS = ("ours", "hf")


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
    parser.add_argument("--platform", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--only", default="", help="comma-separated parts of contenders' names")
    parser.add_argument("--worker", default="", help=argparse.SUPPRESS)
    return parser


def ours(args: argparse.Namespace, job: str, devices: int) -> Callable[[], int]:
    """One training step or one decoding of all prompts; returns its tokens."""
    from physlm.devices import prepare
    from physlm.sharding import MeshConfig, make_mesh, shardings

    prepare(MeshConfig(cpu_devices=devices), args.batch)
    import jax
    import jax.numpy as jnp

    from physlm import decode, model, optimizer
    from physlm import step as step_lib
    from physlm.sharding import batch_sharding

    config = model.ModelConfig(
        vocab=args.vocab,
        window=args.window,
        layers=args.layers,
        heads=args.heads,
        head_dim=args.head_dim,
        dtype=args.dtype,
        positions=max(args.window, args.prompt_tokens + args.new_tokens),
    )
    mesh = make_mesh(MeshConfig())
    key = jax.random.key(0)
    if job == "decode":
        params = model.init(config, key)
        params = jax.device_put(params, shardings(params, mesh))
        shape = (args.prompts, args.prompt_tokens)
        prompts = jax.random.randint(key, shape, 0, args.vocab)
        lengths = jnp.full(args.prompts, args.prompt_tokens)

        def once() -> int:
            # A stop token outside the vocabulary: every row is decoded to the end.
            out = decode.greedy(
                config, params, prompts, lengths, max_new_tokens=args.new_tokens, stop=-1
            )
            return jax.block_until_ready(out).size

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


def hugging_face(args: argparse.Namespace) -> Callable[[], int]:
    """`generate` of a GPT-NeoX of the same shape: the rotary relative of GPT-2 there."""
    import torch
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    width = args.heads * args.head_dim
    net = GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=args.vocab,
            hidden_size=width,
            num_hidden_layers=args.layers,
            num_attention_heads=args.heads,
            intermediate_size=4 * width,
            rotary_pct=1.0,
            max_position_embeddings=args.prompt_tokens + args.new_tokens,
            use_parallel_residual=False,
            hidden_act="gelu_new",
            eos_token_id=None,
            bos_token_id=None,
        )
    ).eval()
    if args.dtype == "bfloat16":
        net = net.bfloat16()
    net = net.to(torch_device(args))
    shape = (args.prompts, args.prompt_tokens)
    prompts = torch.randint(0, args.vocab, shape, device=torch_device(args))

    def once() -> int:
        with torch.inference_mode():
            out = net.generate(
                prompts,
                attention_mask=torch.ones_like(prompts),
                do_sample=False,
                min_new_tokens=args.new_tokens,
                max_new_tokens=args.new_tokens,
                pad_token_id=0,
            )
        return out[:, args.prompt_tokens :].numel()

    return once


def contenders(args: argparse.Namespace) -> Iterator[str]:
    """Names `job:who[:devices]`, those asked for."""
    devices = dict.fromkeys(["1"] if args.platform == "gpu" else args.devices.split(","))
    for job, names in (("train", TRAINERS), ("decode", DECODERS)):
        for name in names:
            for full in (
                [f"{job}:ours:{n}" for n in devices] if name == "ours" else [f"{job}:{name}"]
            ):
                if not args.only or any(part in full for part in args.only.split(",")):
                    yield full


def work(args: argparse.Namespace) -> None:
    """A contender's process: a round for every line that it reads."""
    job, name, *rest = args.worker.split(":")
    if name == "ours":
        once = ours(args, job, int(rest[0]))
    elif job == "decode":
        once = hugging_face(args)
    else:
        once = torch_train(args, compiled=name == "torch-compile")
    for _ in range(3):
        once()
    print("ready", flush=True)
    for _ in sys.stdin:
        start, tokens = time.perf_counter(), 0
        while time.perf_counter() - start < args.seconds:
            tokens += once()
        print(tokens / (time.perf_counter() - start), flush=True)


def utilization(args: argparse.Namespace) -> tuple[float, float | None]:
    """Model FLOPs of a trained token, and those that the device could do in a second."""
    import jax

    from physlm.architecture import ModelConfig
    from physlm.throughput import model_flops, peak_flops

    shape = (args.vocab, args.window, args.layers, args.heads, args.head_dim)
    return model_flops(ModelConfig(*shape, positions=args.window), 1), peak_flops(jax.devices()[0])


def main() -> None:
    """Runs the rounds and prints the table."""
    args = flags().parse_args()
    if args.worker:
        work(args)
        return
    speeds: dict[str, list[float]] = {name: [] for name in contenders(args)}
    processes = {}
    for name in speeds:
        command = [sys.executable, __file__, *sys.argv[1:], "--worker", name]
        processes[name] = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Several share the memory of one GPU.
            env={**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
        )
        if processes[name].stdout.readline() != "ready\n":
            raise RuntimeError(f"{name} did not start.")
    for _ in range(args.rounds):
        for name, process in processes.items():
            process.stdin.write("\n")
            process.stdin.flush()
            speeds[name].append(float(process.stdout.readline()))
    for process in processes.values():
        process.stdin.close()
        process.wait()
    width = args.heads * args.head_dim
    flops, peak = utilization(args)
    print(
        f"{args.layers} layers, width {width}, {args.dtype}; training {args.batch} x "
        f"{args.window}, decoding {args.prompts} x ({args.prompt_tokens} + {args.new_tokens})"
    )
    for name, values in speeds.items():
        job, *who = name.split(":")
        label = " x ".join([*who[:1], *(f"{n} devices" for n in who[1:])])
        base = speeds.get(f"{job}:torch" if job == "train" else f"{job}:hf")
        ratio = ""
        if base:
            pairs = [value / other for value, other in zip(values, base, strict=True)]
            ratio = f"  {statistics.median(pairs):5.2f} x {'torch' if job == 'train' else 'hf'}"
        speed = statistics.median(values)
        share = f"  MFU {speed * flops / peak:.1%}" if peak and job == "train" else ""
        print(f"{job:7}{label:22}{speed:10.0f} tokens/s{ratio}{share}")


if __name__ == "__main__":
    main()
