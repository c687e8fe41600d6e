"""What the device computes, beside the CPU in float32: attention, logits, gradients, decoding.

Differences are the norm of the difference as a share of the norm of what the CPU computes, the
largest of those that a line is about.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from benchmarks.steps.figure import Figure, Setting
from jax.flatten_util import ravel_pytree

from physlm import attention, model
from physlm import step as step_lib
from physlm.architecture import ModelConfig
from physlm.decoding import engine
from physlm.decoding.sampling import Greedy

# What is allowed: rounding of sums alone, where products are exact; and that of bfloat16.
SUMS, HALF = 1e-4, 5e-2
# Rows of which a token may be decoded otherwise, since two logits are as good as equal.
ROWS = 0.05


class Size(NamedTuple):
    """Of what is compared."""

    rows: int
    window: int
    attended: tuple[tuple[int, int], ...]  # lengths, and how many documents each is divided into
    layers: int
    heads: int
    head_dim: int
    vocab: int
    prompts: int
    new_tokens: int


# Few programs, since a GPU's take some ten seconds each to compile.
FULL = Size(4, 768, ((768, 3), (200, 1)), 2, 4, 64, 1720, 64, 96)
TINY = Size(2, 72, ((72, 1), (72, 3)), 1, 4, 8, 40, 4, 8)

MODELS: dict[str, dict[str, Any]] = {
    "gpt2 with Canon layers ABCD": {"canon": "ABCD"},
    "llama, shared heads, normalised": {"variant": "llama", "kv_heads": 2, "qk_norm": True},
}
# All of it in one.
TINY_MODELS = {
    "llama with Canon layers": {**MODELS["llama, shared heads, normalised"], "canon": "ABCD"}
}


def figures(setting: Setting) -> Iterator[Figure]:
    """Compares, and says that the step has failed where a difference is too large."""
    size, models = (TINY, TINY_MODELS) if setting.tiny else (FULL, MODELS)
    yield from _attention(size, setting)
    for name, changes in models.items():
        config = ModelConfig(
            vocab=size.vocab,
            window=size.window,
            layers=size.layers,
            heads=size.heads,
            head_dim=size.head_dim,
            init_std=0.1,
            **changes,
        )
        yield from _model(name, config, size)
        yield from _decoding(name, config, size)


def difference(found: Any, wanted: Any) -> float:
    """The largest, over leaves, of |found - wanted| / |wanted|."""

    def one(a: jax.Array, b: jax.Array) -> float:
        x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if not np.isfinite(x).all():
            return float("inf")
        return float(np.linalg.norm(x - y) / max(np.linalg.norm(y), 1e-30))

    return max(jax.tree.leaves(jax.tree.map(one, found, wanted)))


def _compared(what: str, found: float, allowed: float) -> Figure:
    note = f"at most {allowed:g}"
    wrong = "" if found <= allowed else f"{what} differs by {found:.2g}; {note} is allowed."
    return Figure(what, float(f"{found:.2g}"), note=note, wrong=wrong)


@contextlib.contextmanager
def _exact(really: bool) -> Iterator[None]:
    """Products of float32 in float32, which accelerators do not take by default."""
    with jax.default_matmul_precision("highest") if really else contextlib.nullcontext():
        yield


def _cpu() -> jax.Device:
    return jax.devices("cpu")[0]


def _attention(size: Size, setting: Setting) -> Iterator[Figure]:
    """Every kernel that there is here, forward and backward, in one document and in several."""
    kernels: dict[str, tuple[str, ...]] = {"blocks": ("float32", "bfloat16")}
    if setting.platform == "gpu":
        kernels["cudnn"] = ("bfloat16",)
    if setting.platform == "tpu" or setting.tiny:
        kernels["splash"] = ("float32",) if setting.tiny else ("float32", "bfloat16")
    for kernel, dtypes in kernels.items():
        for dtype in dtypes:
            for length, documents in size.attended:
                what = f"attention, {kernel}, {dtype}, {length} tokens, {documents} documents"
                # Inside, splash attention takes products as the hardware does.
                exact = dtype == "float32" and kernel == "blocks"
                found = _one_attention(size, setting, kernel, dtype, length, documents, exact)
                yield _compared(what, found, SUMS if exact else HALF)


def _one_attention(
    size: Size,
    setting: Setting,
    kernel: str,
    dtype: str,
    length: int,
    documents: int,
    exact: bool,
) -> float:
    random = np.random.default_rng(0)

    def drawn(heads: int) -> np.ndarray:
        shape = (size.rows, heads, length, size.head_dim)
        return random.standard_normal(shape).astype(np.float32)

    q, k, v, probe = drawn(size.heads), drawn(2), drawn(2), drawn(size.heads)
    segments = np.broadcast_to(np.arange(length) * documents // length, (size.rows, length))
    config = ModelConfig(
        vocab=1,
        window=length,
        heads=size.heads,
        kv_heads=2,
        head_dim=size.head_dim,
        dtype=dtype,
        kernel=kernel,
    )

    def here(q, k, v):
        given = None if documents == 1 else jnp.asarray(segments)
        if kernel == "splash" and setting.platform != "tpu":
            return attention.splash(q, k, v, given, interpret=True)
        return attention.causal(config, q, k, v, given)

    def plain(q, k, v):
        before = np.arange(length)[:, None] >= np.arange(length)
        same = segments[:, None, :, None] == segments[:, None, None, :]
        return attention.attention(q, k, v, jnp.asarray(before & same))

    def read_and_grads(attend: Callable, device: jax.Device, dtype: str) -> Any:
        def probed(qkv: tuple) -> tuple[jax.Array, jax.Array]:
            read = attend(*qkv)
            return jnp.sum(read.astype(jnp.float32) * probe), read

        given = jax.device_put(tuple(jnp.asarray(x, dtype) for x in (q, k, v)), device)
        return jax.jit(jax.grad(probed, has_aux=True))(given)

    wanted = read_and_grads(plain, _cpu(), "float32")
    with _exact(exact):
        return difference(read_and_grads(here, jax.devices()[0], dtype), wanted)


def _params(config: ModelConfig) -> model.Params:
    """Parameters whose Canon layers, which are zero at first, do something."""
    params = model.init(config, jax.random.key(0))

    def moved(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        if "canon" not in jax.tree_util.keystr(path):
            return leaf
        return jax.random.normal(jax.random.key(1), leaf.shape) * 0.3

    return jax.device_put(jax.tree_util.tree_map_with_path(moved, params), _cpu())


def _model(name: str, config: ModelConfig, size: Size) -> Iterator[Figure]:
    """Logits and gradients of windows with several documents."""
    params, random = _params(config), np.random.default_rng(0)
    shape = (size.rows, config.window + 1)
    batch = {
        "tokens": random.integers(0, config.vocab, shape, dtype=np.int32),
        "weights": np.full((size.rows, config.window), 1 / size.rows / config.window, np.float32),
        "segments": np.sort(random.integers(0, 4, (size.rows, config.window), dtype=np.int32)),
    }

    def computed(config: ModelConfig, device: jax.Device) -> tuple[Any, Any]:
        def both(params: model.Params, batch: step_lib.Batch) -> tuple[Any, Any]:
            tokens, rows = batch["tokens"][:, :-1], size.rows
            logits = model.apply(config, params, tokens, batch["segments"])
            _, grads = step_lib.summed_loss_and_grads(config, params, batch, rows, rows)
            # Of all together, since those of some biases are rounding alone.
            return logits, ravel_pytree(grads)[0]

        return jax.jit(both)(*jax.device_put((params, batch), device))

    # On the CPU attention is that of CPUs, whatever there is beside it.
    reference = dataclasses.replace(config, kernel="blocks")
    wanted = computed(reference, _cpu())
    for dtype in ("float32", "bfloat16"):
        exact = dtype == "float32"
        with _exact(exact):
            found = computed(dataclasses.replace(config, dtype=dtype), jax.devices()[0])
        for what, one, other in zip(("logits", "gradients"), found, wanted, strict=True):
            allowed = SUMS if exact else HALF
            yield _compared(f"{name}, {what}, {dtype}", difference(one, other), allowed)


def _decoding(name: str, config: ModelConfig, size: Size) -> Iterator[Figure]:
    """Greedy decoding, in float32 token by token the same; in bfloat16 close calls fall anyhow."""
    params, random = _params(config), np.random.default_rng(0)
    longest = config.window // 2
    prompts = random.integers(0, config.vocab, (size.prompts, longest), dtype=np.int32)
    lengths = random.integers(1, longest + 1, size.prompts, dtype=np.int32)

    def decoded(config: ModelConfig, device: jax.Device) -> np.ndarray:
        mine = jax.device_put(params, device)
        with jax.default_device(device):
            return engine.decode(
                config,
                mine,
                prompts,
                lengths,
                strategy=Greedy(),
                max_new_tokens=size.new_tokens,
                stop=-1,
            ).tokens_NxSxM[:, 0]

    with _exact(True):
        wanted = decoded(dataclasses.replace(config, kernel="blocks"), _cpu())
        found = decoded(config, jax.devices()[0])
    other = 1 - float((found == wanted).all(1).mean())
    yield _compared(f"{name}, rows decoded otherwise, float32", other, ROWS)
    half = decoded(dataclasses.replace(config, dtype="bfloat16"), jax.devices()[0])
    same = float((half == wanted).mean())
    yield Figure(f"{name}, tokens decoded alike, bfloat16", round(100 * same, 1), "%")
