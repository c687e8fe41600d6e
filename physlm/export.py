"""A run as Hugging Face reads it: `python -m physlm.export RUN --out DIR [--step best] …`.

RUN is the directory of a run, `DIR/models/<run>` of a store. The directory that is written holds
the configuration, the weights (of a low-rank adapter the whole model with it), a tokenizer, and a
card that says what the model is. Where no class of transformers computes the same, as with Canon
layers, ours is beside them and `from_pretrained` takes it with `trust_remote_code=True`.

Before it is in its place the directory is read back by transformers, and logits and greedy texts
are compared with those of the run.

With `--adapter BASE` the factors of a LoRA are written alone, as PEFT reads them.

With `--plain` the parameters are written as they are here, for those who read neither JAX's
checkpoints nor transformers: safetensors or npz, with an index in JSON. A probe is written so,
joined with the model that it looks at, its head under `probe`.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence

import jax
import numpy as np
from etils import epath

from data_gen import interrupts
from data_gen.windows.tokenizer import tokenizer
from physlm import cells, devices, model, paths
from physlm.adaptation import LORA, PROBE
from physlm.experiments import card, weights
from physlm.experiments import run as run_lib
from physlm.experiments.arguments import Parser, called, local, one_line, place, put
from physlm.huggingface import adapter, plain, tokens
from physlm.huggingface import directory as directories

# One device reads what any mesh has written.
_ALONE = [f"mesh.{axis}=1" for axis in ("cpu_devices", "data", "fsdp", "sequence", "tensor")]

# Test problems on which a model is compared with what transformers reads back.
_COMPARED = 32


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line.

    Returns:
        0: written; 1: there is no room for it; 2: bad input, or the model that is read back is
        another.
    """
    parser = Parser(
        prog=called("physlm.export"),
        description="Writes the model of a run as a directory of Hugging Face.",
    )
    parser.add_argument(
        "run", type=place, metavar="RUN", help="the directory of a run, DIR/models/RUN of a store"
    )
    parser.add_argument(
        "--out", type=local, required=True, help="the directory to write, a new one"
    )
    parser.add_argument("--step", default="final", help="best, final or a step (final)")
    parser.add_argument(
        "--dtype", choices=directories.DTYPES, default="float32", help="of the weights (float32)"
    )
    parser.add_argument(
        "--plain",
        choices=plain.FORMATS,
        help="write the parameters under their names here instead, with an index in JSON",
    )
    parser.add_argument(
        "--adapter",
        type=local,
        metavar="BASE",
        help="write a LoRA's factors alone, for PEFT; BASE is the exported directory of its parent",
    )
    options = parser.parse_args(arguments)
    try:
        if options.adapter and (options.plain or options.dtype != "float32"):
            raise ValueError("--adapter is given with --plain or --dtype, which it does not read.")
        if str(options.out) == ".":
            raise ValueError("--out is the current directory; it must be a new one.")
        said = export(
            options.run,
            options.out,
            step=options.step,
            dtype=options.dtype,
            kind=options.plain,
            base=options.adapter,
        )
    except (ValueError, paths.FullError) as error:
        print(one_line(error), file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    put(said)
    return 0


def export(
    path: epath.Path,
    out: pathlib.Path,
    *,
    step: str = "final",
    dtype: str = "float32",
    kind: str | None = None,
    base: pathlib.Path | None = None,
) -> str:
    """Writes a run's model.

    Args:
        path: the directory of a run.
        out: the directory to write.
        step: of which checkpoint: final, best or a step.
        dtype: of the weights.
        kind: one of `plain.FORMATS`; None for Hugging Face.
        base: the exported directory of its parent, to write low-rank adapters alone.

    Returns:
        What was written, in a sentence.

    Raises:
        ValueError: there is no such run or checkpoint, `out` is not empty, a package is missing,
            or what is read back is another model. Then nothing is written.
        paths.FullError: there is no room for it; nothing is left of what was begun.
    """
    if kind is None:
        directories.need()
    run = run_lib.load(path, [*_ALONE, "mesh.population=1"])
    settings = run.settings
    if settings.adaptation.kind == PROBE and kind is None:
        raise ValueError(
            f"{path} is a probe, whose head no language model has: export its parent, or the probe "
            "by --plain."
        )
    if base is not None:
        adapter.need()
        if settings.adaptation.kind != LORA:
            raise ValueError(f"--adapter is given, and {path} is no LoRA.")
        if not (base / "config.json").is_file():
            raise ValueError(f"--adapter is {base}, which is no exported directory.")
    devices.prepare(settings.mesh, 1)
    at = weights.step_of(run, path, step, "--step")
    with paths.room_for(str(out), out.parent), directories.fresh(out) as made:
        state = weights.restored(run, path, step, "--step")
        params, frozen = weights.joined(run, path, state)
        params = directories.rounded(jax.device_get(params), dtype)
        if kind is not None:
            plain.write(
                made,
                settings.model,
                params,
                kind=kind,
                dtype=dtype,
                name=run.name,
                step=at,
                vocabulary=tokenizer(settings.data).pieces,
                facts=run.facts,
            )
            return f"{out}: the parameters of {run.name} after step {at} ({kind}, {dtype})."
        most, factors = settings.evaluate.max_new_tokens, None
        if base is not None:
            parent = pathlib.PurePath(settings.parent.run).name or "a model drawn from its seed"
            adapter.check_base(base, settings.model, jax.device_get(frozen), parent)
            learning, trained = settings.learning.adaptation, jax.device_get(state.params)
            size = adapter.write(made, base.resolve(), settings.model, learning, trained, params)
            factors = card.Adapter(base.resolve().name, size)
            tokens.write(settings.data, made)
        else:
            directories.write(
                made,
                settings.model,
                params,
                settings.data,
                dtype=dtype,
                max_new_tokens=most,
                said=run.config,
            )
        config = dataclasses.replace(settings.evaluate, problems=_COMPARED)
        spec = cells.test_spec(settings.data, config)
        cell = cells.of(settings.data, config)[0]
        tests = cells.test_set(cell, spec, config, settings.model.window)
        prompt = tokenizer(settings.data).decode(tests.prompts_NxP[0, : tests.lengths_N[0]])
        said = card.text(run, path, at, dtype, prompt, factors)
        (made / "README.md").write_text(said)
        apart = directories.check(
            made,
            settings.model,
            params,
            settings.data,
            np.asarray(tests.prompts_NxP),
            np.asarray(tests.lengths_N),
            max_new_tokens=min(most, settings.model.window),
            base=base,
        )
    count = model.count(settings.model)
    return (
        f"{out}: {run.name} after step {at}, {count:,} parameters ({dtype}); read back, logits "
        f"differ by {apart:.1g} at most, and {len(tests.lengths_N)} greedy texts are the same."
    )


if __name__ == "__main__":
    interrupts.run(main)
