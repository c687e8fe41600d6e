"""A Hugging Face checkpoint as a run: `python -m physlm.adopt DIR [--workdir runs] [--set …]`.

DIR is a directory with a `config.json` and weights as safetensors, of a class that `physlm.export`
writes. It becomes a run of the store that is trained to its end after 0 steps here, so that all
that takes a run takes it: `parent.run=<its name>` begins with it, `physlm.experiments.evaluate`
judges it, probes are trained on it.

The model's settings are read off `config.json`. Those of its class of problems are read off
`physlm.json`, which exported directories have, or are given by `--set data.…`: the tokenizer of
that class must have the ids that the model has learnt.
"""

import hashlib
import json
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from data_gen import interrupts
from data_gen import settings as settings_lib
from physlm import checkpoint, devices, optimizer, paths, sharding, train
from physlm.architecture import ModelConfig
from physlm.experiments import config as config_lib
from physlm.experiments import files, scales
from physlm.experiments import run as run_lib
from physlm.experiments.arguments import Parser, called, local, one_line, place, put
from physlm.experiments.store import Store
from physlm.huggingface import inverse
from physlm.huggingface.directory import RUN_FILE
from physlm.step import TrainState, first_state

_CONFIG_FILE = "config.json"
_INDEX_FILE = "model.safetensors.index.json"
_WEIGHTS_FILE = "model.safetensors"

# Settings that can name something in a module.
_IMPORTING = ("mistakes.kind", "evaluate.decode", "train.records_decode")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line.

    Returns:
        0: done; 1: there is no room for it; 2: bad input.
    """
    parser = Parser(
        prog=called("physlm.adopt"),
        description="Takes a model of Hugging Face into a store, as a run.",
    )
    parser.add_argument(
        "directory", type=local, help="a Hugging Face directory, with config.json and safetensors"
    )
    parser.add_argument(
        "--workdir", type=place, default="runs", help="the store that takes the run (runs)"
    )
    parser.add_argument(
        "--scale",
        choices=scales.NAMES,
        default="quick",
        help="the scale of settings that neither the directory nor --set gives (quick)",
    )
    parser.add_settings("settings of data.*, train.window and evaluate.*, e.g. data.max_op=15")
    options = parser.parse_args(arguments)
    try:
        name = adopt(options.directory, options.workdir, options.scale, options.set)
    except (ValueError, paths.FullError) as error:
        print(one_line(error), file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    put(f"{options.workdir / 'models' / name}: begin with it by --set parent.run={name}")
    return 0


def adopt(
    directory: pathlib.Path, workdir: epath.Path, scale: str, assignments: Sequence[str]
) -> str:
    """Makes a run of a directory's model.

    Args:
        directory: of Hugging Face.
        workdir: the store.
        scale: whose settings hold where nothing else says any.
        assignments: `key=value` texts.

    Returns:
        The run's name.

    Raises:
        ValueError: a file is missing or damaged, the model's class is unknown, or it does not fit
            the class of problems. Then nothing is written.
        paths.FullError: there is no room for it; nothing is left of what was begun.
    """
    content = _json_of(directory / _CONFIG_FILE)
    given = config_lib.parse_assignments(assignments)
    changes = _told(directory, given)
    if not changes or inverse.differs(_model(changes, scale), content):
        changes |= _model_settings(directory, content)
    changes |= given
    run = run_lib.make_run(config_lib.override(config_lib.base(scale), changes))
    decoder = run.settings.model
    if decoder.vocab != content["vocab_size"]:
        raise ValueError(
            f"{directory / _CONFIG_FILE} has vocab_size {content['vocab_size']}; it must be that "
            f"of the class of problems, {decoder.vocab} (data.tokenizer, data.names, …)."
        )
    tensors, digest = _tensors(directory)
    try:
        params = inverse.params(decoder, tensors)
    except ValueError as error:
        raise ValueError(f"{directory}: {error}") from error
    words = run_lib.in_a_path(directory.resolve().name)
    size = f"{decoder.variant}-{decoder.layers}-{decoder.heads}"
    name = f"adopted,{words[:80]},{size}-{digest}"
    store = Store(workdir)
    target = store.of_run(name)
    if not paths.is_local(workdir):
        store.check(store.models)
    if run_lib.status(target) == "finished":
        return name
    try:
        paths.make_directory(store.models)
    except OSError as error:
        raise ValueError(f"--workdir is {workdir}: {error.strerror}.") from error
    devices.prepare(run.settings.mesh, 1)
    mesh = sharding.make_mesh(run.settings.mesh)
    transform = optimizer.make(run.settings.optimizer, run.settings.train.steps)
    state = first_state(decoder, transform, mesh, 0, base=params)
    with paths.room_for(str(target), workdir):
        _place(target, run, state)
    return name


def _place(target: epath.Path, run: run_lib.Run, state: TrainState) -> None:
    """Writes the run, finished at step 0, to its directory in the store."""
    local = paths.is_local(target)
    # A bucket cannot rename a directory at once; there it counts when it is marked as finished.
    made = target
    if local:
        made = epath.Path(tempfile.mkdtemp(prefix=".adopted-", dir=target.parent))
    try:
        if not local:
            target.rmtree(missing_ok=True)
        with checkpoint.Checkpoints(made / train.CHECKPOINTS_DIR, keep=1) as checkpoints:
            checkpoints.save(0, state, 0.0)
        files.write_json(made / run_lib.CONFIG_FILE, run.config)
        run_lib.finish(made, 0, 0.0)
        if local:
            os.chmod(made, 0o755)
            try:
                made.rename(target)
            except OSError:
                # Another process has been as quick.
                if run_lib.status(target) != "finished":
                    raise
    finally:
        if local:
            shutil.rmtree(made, ignore_errors=True)


def _json_of(path: pathlib.Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{path.parent} has no {path.name}: it is no directory of a model.")
    return files.read_object(path)


def _model(changes: Mapping[str, Any], scale: str) -> ModelConfig:
    """The model of these settings."""
    return config_lib.resolve(config_lib.override(config_lib.base(scale), changes)).model


def _told(directory: pathlib.Path, given: Collection[str]) -> dict[str, Any]:
    """The settings of the exported run, where the directory has them.

    Args:
        directory: which is somebody else's.
        given: keys whose values are taken from elsewhere.

    Raises:
        ValueError: a setting would have a module imported, and so run what is in it.
    """
    if not (directory / RUN_FILE).is_file():
        return {}
    found = config_lib.flatten(_json_of(directory / RUN_FILE))
    kept = ("data.", "mistakes.", "model.", "train.", "evaluate.", "optimizer.")
    unset = ("evaluate.probe", *given)
    for key in _IMPORTING:
        parts = str(found.get(key, "")).split(",") if key not in given else []
        if named := [name for name in (part.partition(":")[0] for part in parts) if "." in name]:
            raise ValueError(
                f"{directory / RUN_FILE} has {key} = {found[key]!r}, and {named[0]} would be "
                f"imported, which what is read may not ask for; --set {key}=… may."
            )
    return {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in found.items()
        if key.startswith(kept) and key not in unset
    }


def _model_settings(directory: pathlib.Path, content: dict[str, Any]) -> dict[str, Any]:
    """The settings `model.…` of a config.json.

    Raises:
        ValueError: its class is none of those that are known, or it lacks something.
    """
    try:
        found = inverse.settings_of(content)
    except (KeyError, TypeError, ValueError) as error:
        why = f"lacks {error}" if isinstance(error, KeyError) else str(error).rstrip(".")
        raise ValueError(f"{directory / _CONFIG_FILE}: {why}.") from error
    known = settings_lib.of(ModelConfig)
    return {f"model.{name}": value for name, value in found.items() if name in known}


def _tensors(directory: pathlib.Path) -> tuple[dict[str, np.ndarray], str]:
    """The weights as float32, and the first eight hexadecimal digits of their hash."""
    try:
        from safetensors.numpy import load_file
    except ImportError as error:
        raise ValueError(
            "the package safetensors is missing: pip install 'physlm[export]'."
        ) from error
    names = [_WEIGHTS_FILE]
    if (directory / _INDEX_FILE).is_file():
        names = sorted(set(_json_of(directory / _INDEX_FILE).get("weight_map", {}).values()))
    found: dict[str, np.ndarray] = {}
    for name in names:
        path = directory / pathlib.PurePath(name).name
        if not path.is_file():
            raise ValueError(f"{directory} has no {path.name}; only safetensors are read.")
        try:
            found |= load_file(path)
        # The package raises its own kinds, and OSError.
        except Exception as error:
            text = " ".join(str(error).split()).rstrip(".")
            raise ValueError(f"{path} cannot be read: {text}.") from error
    found = {name: np.asarray(x, np.float32) for name, x in found.items()}
    seen = hashlib.sha256()
    for name in sorted(found):
        seen.update(json.dumps([name, found[name].shape]).encode())
        seen.update(found[name].tobytes())
    return found, seen.hexdigest()[:8]


if __name__ == "__main__":
    interrupts.run(main)
