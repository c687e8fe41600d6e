"""Parameters under their names here, for those who read neither Orbax's checkpoints nor JAX.

The index says what each array is, and all that decided the weights.
"""

import dataclasses
import json
import pathlib
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from physlm import model
from physlm.architecture import ModelConfig

FORMATS = ("safetensors", "npz")
INDEX_FILE = "index.json"


def write(
    directory: pathlib.Path,
    config: ModelConfig,
    params: model.Params,
    *,
    kind: str,
    dtype: str,
    name: str,
    step: int,
    vocabulary: Sequence[bytes],
    facts: Mapping[str, Any],
) -> None:
    """Writes `params.safetensors` or `params.npz`, and `index.json`.

    Args:
      directory: an empty one.
      config: the model's configuration.
      params: its parameters; what is in `blocks` has the layers as its first axis.
      kind: one of `FORMATS`.
      dtype: of the arrays, float32 or bfloat16.
      name: of the run.
      step: after which the parameters are these.
      vocabulary: the bytes of text behind each id.
      facts: what decided the weights, by the names of settings, as plain JSON data.

    Raises:
      ValueError: npz, which knows no bfloat16, is to hold it; or a package is missing.
    """
    if kind == "npz" and dtype != "float32":
        raise ValueError(f"--dtype is {dtype}; it must be float32 with --plain npz.")
    arrays = {
        "/".join(key.key for key in path): np.ascontiguousarray(np.asarray(leaf).astype(dtype))
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }
    if kind == "npz":
        _write_npz(directory / "params.npz", arrays)
    else:
        try:
            from safetensors.numpy import save_file
        except ImportError as error:
            raise ValueError(
                "the package safetensors is missing: pip install 'physlm[export]'."
            ) from error
        save_file(arrays, directory / "params.safetensors")
    index = {
        "run": name,
        "step": step,
        "arrays": {
            name: {"shape": list(x.shape), "dtype": dtype} for name, x in sorted(arrays.items())
        },
        "model": dataclasses.asdict(config),
        "facts": dict(facts),
        # A byte pair need be no text.
        "vocabulary": [piece.decode(errors="backslashreplace") for piece in vocabulary],
    }
    (directory / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n")


def _write_npz(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """What `np.savez` writes, which not all versions of numpy can be told to pickle nothing."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, x in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, x, allow_pickle=False)
