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
from physlm.huggingface import mapping
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


def write(
    directory: pathlib.Path,
    base: pathlib.Path,
    config: ModelConfig,
    adaptation: Adaptation,
    trained: Params,
    params: Params,
) -> None:
    """Writes the configuration and the factors of adapters.

    Args:
      directory: an empty one.
      base: the exported directory of the model that they change.
      config: of that model.
      adaptation: how the adapters were trained.
      trained: their factors.
      params: of the whole model, or their shapes.

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
