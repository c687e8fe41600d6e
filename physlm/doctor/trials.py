"""Checks that try what studies do: a sum over the mesh, training, decoding, checkpoints, problems.

Array names as in `physlm.model` and `physlm.decoding.engine`.
"""

import contextlib
import dataclasses
import functools
import math
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from data_gen import device, keys
from data_gen.solutions.mistakes import Mistakes
from data_gen.text import records
from data_gen.text.judge import judge
from data_gen.text.reader import read
from data_gen.windows import stream
from data_gen.windows.documents import whole_documents
from data_gen.windows.tokenizer import tokenizer
from physlm import devices, model, optimizer, paths, sharding, step
from physlm.checkpoint import Checkpoints
from physlm.decoding import engine, recipe
from physlm.doctor.finding import Asked, Finding
from physlm.experiments import leases
from physlm.population import Single

# Problems: as many as streams make at once, so that they are not compiled anew; and judged ones.
_DRAWN, _JUDGED = 512, 64
_STEPS = 4
# Prompts are cut from training windows; what is written after them is short.
_PROMPT, _WRITTEN = 24, 16
# A standard deviation of initial weights, and the difference in nats a token that rounding makes.
_WIDE, _ROUNDING = 0.2, 0.01
# What the doctor makes, in the directory for results.
_OWN, _MARK = ".doctor", "mark"

_BROKEN = "another version of jax, or of the accelerator's driver"
_REPORT = "another version of jax; report which one this is"


def mesh(asked: Asked) -> Finding:
    """The mesh over the devices, and a sum over all of them."""
    made = asked.made
    sharding.check(asked.settings.model, asked.batch, 1, made)
    numbers = jax.jit(
        lambda: jnp.arange(made.size), out_shardings=NamedSharding(made, P(sharding.AXES))
    )()
    total, right = int(jax.jit(jnp.sum)(numbers)), made.size * (made.size - 1) // 2
    seen = ", ".join(f"{axis} {size}" for axis, size in made.shape.items())
    if total != right:
        seen += f": the devices add up 0 to {made.size - 1} to {total}, not {right}"
        return Finding("failed", seen, "restart the machine: its devices do not work together")
    return Finding("ok", seen)


def training(asked: Asked) -> Finding:
    """A few optimizer steps on one batch, which have to lower its loss."""
    settings, made, started = asked.settings, asked.made, time.monotonic()
    # Without a warm-up, so that the first step changes the model.
    chosen = dataclasses.replace(settings.optimizer, warmup_steps=0)
    transform = optimizer.make(chosen, settings.train.steps)
    program = Single(settings.model, transform, made, asked.batch)
    losses, times = [], []
    with jax.set_mesh(made):
        batch = program.put([_windows(asked, sharding.rows_here(asked.batch, made))])
        state = step.first_state(settings.model, transform, made, settings.seed)
        for _ in range(_STEPS):
            state, metrics = program.step(state, batch)
            losses.append(float(metrics["loss"]))
            times.append(time.monotonic())
    seen = f"loss {losses[0]:.3f}, {losses[-1]:.3f} after {_STEPS - 1} steps on one batch of "
    seen += f"{asked.batch}; compiled in {times[0] - started:.1f} s, then "
    seen += f"{1e3 * (times[-1] - times[0]) / (_STEPS - 1):.0f} ms a step"
    if not all(map(math.isfinite, losses)) or not losses[-1] < losses[0]:
        return Finding("failed", seen, _BROKEN)
    return Finding("ok", seen)


def _windows(asked: Asked, rows: np.ndarray | None = None) -> Mapping[str, np.ndarray]:
    """The first batch of training windows, or some of its rows."""
    settings = asked.settings
    source = stream.Stream(
        settings.data,
        settings.mistakes,
        settings.windows,
        seed=settings.seed,
        batch=asked.batch,
        rows=rows,
        device=device.of_data(settings.mesh.input),
    )
    with contextlib.closing(source):
        return source.batch(0)


def decoding(asked: Asked) -> Finding:
    """Greedy decoding: a pass over the whole text has to find each token as likely, and likeliest.

    Decoding keeps keys and values, grows and shares them out over devices; the pass does not.
    """
    settings = asked.settings
    # As it is usually drawn, a model hardly looks at earlier tokens.
    config = dataclasses.replace(settings.model, init_std=_WIDE)
    params = step.first_params(config, asked.made, settings.seed)
    prompts_NxP = _windows(asked)["tokens"][:, :_PROMPT]
    started = time.monotonic()
    # Accelerators would round products to few digits, and decide near ties otherwise.
    with jax.default_matmul_precision("highest"):
        written = engine.decode(
            config,
            params,
            prompts_NxP,
            np.full(len(prompts_NxP), _PROMPT),
            strategy=recipe.parse("greedy").bound(settings.data, config),
            max_new_tokens=_WRITTEN,
            stop=tokenizer(settings.data).end,
        )
        took = time.monotonic() - started
        whole = jax.device_put(params, NamedSharding(asked.made, P()))
        alone = jax.tree.map(lambda leaf: leaf.addressable_data(0), whole)
        tokens_NxT = np.concatenate([prompts_NxP, written.tokens_NxSxM[:, 0]], axis=1)
        logits_NxTxV = jax.jit(model.apply, static_argnums=0)(config, alone, tokens_NxT)
    logits_NxMxV = np.asarray(jax.nn.log_softmax(logits_NxTxV))[:, _PROMPT - 1 : -1]
    chosen_NxM = np.take_along_axis(logits_NxMxV, tokens_NxT[:, _PROMPT:, None], 2)[..., 0]
    counts_NxM = np.arange(_WRITTEN) < written.length_NxS
    count = int(counts_NxM.sum())
    behind = float((logits_NxMxV.max(2) - chosen_NxM)[counts_NxM].max())
    apart_N = (chosen_NxM * counts_NxM).sum(1) - written.score_NxS[:, 0]
    apart = float(abs(apart_N / written.length_NxS[:, 0]).max())
    if behind <= _ROUNDING and apart <= _ROUNDING:
        return Finding("ok", f"{count} tokens in {took:.1f} s, each the likeliest")
    seen = f"{count} tokens: the likeliest are missed by {behind:.1g} nats, the log-likelihood by "
    return Finding("failed", f"{seen}{apart:.1g} a token", _BROKEN)


def checkpoint(asked: Asked) -> Finding:
    """A checkpoint, written and read where results are to be, under a lock as studies take it."""
    settings, made = asked.settings, asked.made
    transform = optimizer.make(settings.optimizer, settings.train.steps)
    state = step.first_state(settings.model, transform, made, settings.seed)
    abstract = step.abstract_state(settings.model, transform, made)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    own = asked.path / _OWN
    trouble: ValueError | None = None
    with contextlib.ExitStack() as stack:
        if devices.is_first():
            try:
                stack.enter_context(_directory(own))
            except ValueError as error:
                # Other hosts, which wait for this one, are told first.
                trouble = error
            except paths.failures(own) as error:
                trouble = ValueError(f"{asked.path}: {paths.why(error)}")
        devices.wait_for_all("the doctor has made its directory")
        everywhere = multihost_utils.process_allgather(np.array(_sees(own / _MARK))).all()
        if trouble is not None:
            raise trouble
        if not everywhere:
            seen = f"what the first host writes in {asked.path} is not there on all hosts"
            return Finding("failed", seen, "give a --path that all of them see")
        started = time.monotonic()
        with Checkpoints(own / "checkpoints", keep=1) as written:
            written.save(1, state, loss=0.0)
        between = time.monotonic()
        with Checkpoints(own / "checkpoints", keep=1, read_only=True) as read_back:
            found = read_back.restore(1, abstract)
        ended = time.monotonic()
        same = bool(jax.jit(_all_equal)(state, found))
        devices.wait_for_all("the doctor has read its checkpoint")
    seen = f"{size / 2**20:.1f} MiB in {asked.path}, written in {between - started:.1f} s and read "
    seen += f"in {ended - between:.1f} s"
    if not same:
        return Finding("failed", f"{seen}, but not what was written", "give another --path")
    return Finding("ok", seen)


def _sees(mark: epath.Path) -> bool:
    # A host that cannot look there sees nothing, and others wait for its answer.
    with contextlib.suppress(*paths.failures(mark)):
        return mark.exists()
    return False


def _all_equal(one: Any, other: Any) -> jax.Array:
    equal = jax.tree.map(lambda x, y: (x == y).all(), one, other)
    return jnp.stack(jax.tree.leaves(equal)).all()


@contextlib.contextmanager
def _directory(path: epath.Path) -> Iterator[None]:
    """Makes a directory with a mark in it, for a while; nobody else has it then."""
    local = paths.is_local(path)
    if not local:
        paths.check_bucket(path)
    new = [place for place in path.parents if not place.exists()] if local else []
    paths.make_directory(path.parent)
    try:
        # Another doctor takes seconds, or is dead.
        with leases.held(path, lambda: None):
            paths.make_directory(path)
            try:
                paths.write_atomically(path / _MARK, "here")
                yield
            finally:
                path.rmtree()
    finally:
        for place in new:
            # Somebody else may have begun to use it.
            with contextlib.suppress(OSError):
                place.rmdir()


def generator(asked: Asked) -> Finding:
    """Problems: the judge takes solutions and refuses spoilt ones; the order of drawing is free."""
    spec = asked.settings.data
    key_of = functools.partial(keys.problem_key, asked.settings.seed)
    with jax.default_device(device.of_data(asked.settings.mesh.input)):
        keys_N = jax.vmap(key_of)(jnp.arange(_DRAWN))
        problems = stream.problems(keys_N, spec=spec)
        backwards = jax.tree.map(lambda x: x[::-1], stream.problems(keys_N[::-1], spec=spec))
        same = bool(_all_equal(problems, backwards))
        keys_J, judged = keys_N[:_JUDGED], jax.tree.map(lambda x: x[:_JUDGED], problems)
        documents = whole_documents(keys_J, judged, spec=spec, mistakes=Mistakes(rate=0.5))
    right = spoilt = 0
    for record in records.records(judged, documents, spec):
        facts = read(record["layers"], record["problem"], record["question"], spec.modulus)
        right += judge(facts, record["solution"]).correct
        # No result is as large.
        wrong = re.sub(r"= \d+\.", "= 9999.", record["solution"], count=1)
        spoilt += not judge(facts, wrong).correct
    seen = f"of {_JUDGED} problems {right} are solved right, {spoilt} refused when spoilt; "
    seen += f"{_DRAWN}, drawn backwards, are {'the same' if same else 'others'}"
    if right == spoilt == _JUDGED and same:
        return Finding("ok", seen)
    return Finding("failed", seen, _REPORT)
