"""From Hugging Face to this decoder: the inverse of `physlm.huggingface.mapping`."""

import dataclasses
from typing import Any

import jax
import numpy as np

from physlm import model
from physlm.architecture import VARIANTS, ModelConfig
from physlm.huggingface import mapping


def params(config: ModelConfig, tensors: mapping.Leaves) -> dict[str, Any]:
    """The inverse of `state_dict`: float32 parameters, layers as the first axis in `blocks`.

    Args:
      config: the model's configuration.
      tensors: by their names in transformers; a tied head need not be there.

    Raises:
      ValueError: a tensor is missing, is one too many, or has another shape.
    """
    shapes = model.shapes(config)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    want = mapping.state_dict(config, zeros)
    if config.tied:
        head = mapping.head_of(config)
        want = {name: x for name, x in want.items() if name != head}
        tensors = {name: x for name, x in tensors.items() if name != head}
    if strange := sorted(set(want) ^ set(tensors)):
        what = "lacks" if strange[0] in want else "has no place for"
        raise ValueError(f"the model {what} the tensor {strange[0]}.")
    for name, x in want.items():
        if tensors[name].shape != x.shape:
            raise ValueError(
                f"the tensor {name} has the shape {list(tensors[name].shape)}; it must be "
                f"{list(x.shape)}."
            )
    return _placed(config, tensors, zeros)


def _placed(config: ModelConfig, tensors: mapping.Leaves, zeros: dict[str, Any]) -> dict[str, Any]:
    """Parameters from tensors of the right names and shapes.

    `state_dict` moves numbers about and adds a constant, so where each goes is read off what it
    makes of numbered parameters.
    """
    leaves, tree = jax.tree.flatten(zeros)
    starts = np.cumsum([0, *(leaf.size for leaf in leaves)])
    numbered = [
        (start + np.arange(leaf.size)).reshape(leaf.shape)
        for start, leaf in zip(starts[:-1], leaves, strict=True)
    ]
    flat = np.zeros(starts[-1], np.float32)
    offsets = mapping.state_dict(config, zeros)
    for name, places in mapping.rearranged(config, jax.tree.unflatten(tree, numbered)).items():
        if name in tensors:
            flat[places] = np.asarray(tensors[name], np.float32) - offsets[name]
    filled = [
        flat[start : start + leaf.size].reshape(leaf.shape)
        for start, leaf in zip(starts[:-1], leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, filled)


def settings_of(content: dict[str, Any]) -> dict[str, Any]:
    """The fields of `ModelConfig` that a config.json says: the inverse of `hf_config`.

    Vocabulary and window are not among them, since they belong to the texts.

    Raises:
      ValueError: no variant computes what it says.
      KeyError: it lacks a field.
    """
    architecture = (content.get("architectures") or [None])[0]
    own = architecture == mapping.OWN[0]
    kinds = {name: kind for kind, (name, _) in mapping.ARCHITECTURES.items()}
    if not own and architecture not in kinds:
        known = ", ".join([*kinds, mapping.OWN[0]])
        raise ValueError(f"architectures is {architecture!r}; it must be one of {known}")
    variant, qk_norm = (_variant(content), content["qk_norm"]) if own else kinds[architecture]
    heads, width = content["num_attention_heads"], content["hidden_size"]
    rope = content.get("rope_parameters") or {}
    found = {
        "variant": variant,
        "qk_norm": qk_norm,
        "layers": content["num_hidden_layers"],
        "heads": heads,
        "head_dim": content.get("head_dim") or width // heads,
        "kv_heads": content.get("num_key_value_heads") or heads,
        "mlp_width": content["intermediate_size"],
        "tied": content.get("tie_word_embeddings", False),
        "positions": content["max_position_embeddings"],
        "rotary_base": float(content.get("rope_theta") or rope["rope_theta"]),
        "rotary_fraction": float(rope.get("partial_rotary_factor", 1.0)),
        "init_std": content.get("initializer_range", 0.02),
        "experts": content.get("num_experts") or content.get("num_local_experts") or 0,
        "canon": "",
        "logit_cap": 0.0,
    }
    for name in ("norm_eps", "layer_norm_eps", "rms_norm_eps"):
        found["norm_eps"] = content.get(name, found.get("norm_eps"))
    if variant == "mixtral" or own:
        found["experts_per_token"] = content["num_experts_per_tok"]
    if own:
        found |= {name: content[name] for name in ("logit_cap", "canon", "canon_width")}
        found["rotary_fraction"] = content["rotary_channels"] / content["head_dim"]
        if content["num_experts"] == 1 and variant != "mixtral":
            found["experts"] = 0
    return _sure(content, found)


def _variant(content: dict[str, Any]) -> str:
    """The variant of our own class."""
    family = tuple(
        content[name] for name in ("norm", "hidden_act", "gated", "biases", "scaled_embedding")
    )
    names = [name for name, variant in VARIANTS.items() if tuple(variant)[:5] == family]
    if not names:
        raise ValueError(f"norm, hidden_act, gated, biases and scaled_embedding are {family}")
    mixed = content["num_experts"] > 1
    return "mixtral" if mixed and "mixtral" in names else names[0]


def _sure(content: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The settings, if their config.json agrees with the given one in all that it says.

    Raises:
      ValueError: a field has a value that no model here has.
    """
    window = found.get("canon_width", 2)
    config = ModelConfig(vocab=content["vocab_size"], window=window, **found)
    if apart := differs(config, content):
        raise ValueError(apart)
    # What is as it is by default goes without saying.
    for name in ("mlp_width", "kv_heads", "experts"):
        zero: dict[str, Any] = {name: 0}
        unsaid = dataclasses.replace(config, **zero)
        if mapping.hf_config(unsaid) == mapping.hf_config(config):
            config = unsaid
    return {name: getattr(config, name) for name in found}


def differs(config: ModelConfig, content: dict[str, Any]) -> str:
    """How a config.json differs from that of a model here, in words; "" where it does not."""
    for name, want in mapping.hf_config(config).items():
        said = content.get(name, want)
        if isinstance(want, dict):
            said = {key: said.get(key, value) for key, value in want.items()}
        free = name.endswith("_token_id") or name in ("dtype", "auto_map", "initializer_range")
        if not free and said != want:
            return f"{name} is {said!r}; it must be {want!r} here"
    return ""
