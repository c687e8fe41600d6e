"""Low-rank adapters as PEFT reads them, beside the exported model that they change.

Names as in `physlm.adaptation`, and R: rank, I and O: inputs and outputs of a matrix.
"""

import json
import pathlib
from collections import defaultdict
from typing import Any

import numpy as np

from physlm.adaptation import Adaptation
from physlm.architecture import ModelConfig
from physlm.huggingface import inverse, mapping
from physlm.model import Params

FILES = ("adapter_config.json", "adapter_model.safetensors")


def need() -> None:
    """Raises ValueError where PEFT is not installed.

    Raises:
      ValueError: it is missing.
    """
    try:
        import peft
    except ImportError as error:
        raise ValueError("the package peft is missing: pip install 'physlm[export]'.") from error
    del peft


def check_base(base: pathlib.Path, config: ModelConfig, frozen: Params, parent: str) -> None:
    """Raises ValueError where a directory is not the exported model that adapters change.

    Args:
      base: the directory.
      config: of that model.
      frozen: its parameters.
      parent: its run's name.

    Raises:
      ValueError: it holds another architecture, other weights, or rounded ones.
    """
    from safetensors.numpy import load_file

    def refused(why: str) -> ValueError:
        return ValueError(
            f"--adapter is {base}, {why}; it must be what export writes of the LoRA's parent, "
            f"{parent}, in float32."
        )

    try:
        content = json.loads((base / "config.json").read_text())
        found: dict[str, np.ndarray] = {}
        for path in base.glob("*.safetensors"):
            found |= load_file(path)
    # The package raises its own kinds.
    except Exception as error:
        raise refused("whose files cannot be read") from error
    if not isinstance(content, dict) or inverse.differs(config, content):
        raise refused("which holds another architecture")
    if any(x.dtype != np.float32 for x in found.values()):
        raise refused("whose weights are rounded")
    want = mapping.state_dict(config, frozen)
    if config.tied:
        want.pop(mapping.head_of(config))
    same = set(want) == set(found) and all(np.array_equal(x, found[n]) for n, x in want.items())
    if not same:
        raise refused("which holds other weights")


def write(
    directory: pathlib.Path,
    base: pathlib.Path,
    config: ModelConfig,
    adaptation: Adaptation,
    trained: Params,
    params: Params,
) -> int:
    """Writes the configuration and the factors of adapters.

    Args:
      directory: an empty one.
      base: the exported directory of the model that they change.
      config: of that model.
      adaptation: how the adapters were trained.
      trained: their factors.
      params: of the whole model, or their shapes.

    Returns:
      How many numbers the factors have.

    Raises:
      ValueError: a matrix with an adapter has none in PEFT.
    """
    from safetensors.numpy import save_file

    factors: dict[str, list[tuple[np.ndarray, np.ndarray]]] = defaultdict(list)
    for path, place in sorted(adaptation.places(params).items()):
        tree: Any = trained["lora"]
        for part in path.split("/"):
            tree = tree[part]
        scale = (adaptation.config.alpha or place.rank) / place.rank
        layers = config.layers if path.startswith("blocks/") else 1
        a_LxIxR = np.asarray(tree["a"], np.float32).reshape(layers, -1, place.rank)
        b_LxRxO = scale * np.asarray(tree["b"], np.float32).reshape(layers, place.rank, -1)
        name, outputs_O, size = mapping.module_of(config, path)
        for layer in range(layers):
            b_RxO = np.zeros((place.rank, size), np.float32)
            b_RxO[:, outputs_O] = b_LxRxO[layer]
            factors[name.format(layer=layer)].append((a_LxIxR[layer], b_RxO))
    tensors: dict[str, np.ndarray] = {}
    ranks: dict[str, int] = {}
    for name, parts in factors.items():
        a_RxI = np.concatenate([a for a, _ in parts], axis=1).T
        b_OxR = np.concatenate([b for _, b in parts], axis=0).T
        kind = "embedding_" if name == mapping.embedding_of(config) else ""
        ending = "" if kind else ".weight"
        for letter, x in (("A", a_RxI), ("B", b_OxR)):
            key = f"base_model.model.{name}.lora_{kind}{letter}{ending}"
            tensors[key] = np.ascontiguousarray(x)
        ranks[name] = len(a_RxI)
    save_file(tensors, directory / FILES[1], metadata={"format": "pt"})
    content = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "inference_mode": True,
        "bias": "none",
        "r": max(ranks.values()),
        # Factors are scaled already.
        "lora_alpha": max(ranks.values()),
        "target_modules": sorted(ranks),
        "rank_pattern": ranks,
        "alpha_pattern": ranks,
    }
    (directory / FILES[0]).write_text(json.dumps(content, indent=2) + "\n")
    return sum(x.size for x in tensors.values())
