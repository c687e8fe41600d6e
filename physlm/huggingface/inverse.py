"""From Hugging Face to this decoder: the inverse of `physlm.huggingface.mapping`."""

import dataclasses
from typing import Any

import jax
import numpy as np

from physlm import model
from physlm.architecture import VARIANTS, ModelConfig
from physlm.huggingface import mapping

# What a class takes for said where its config.json does not say it, if that is not so here.
_UNSAID: dict[str, dict[str, Any]] = {
    "GPTNeoXForCausalLM": {"hidden_act": "gelu", "use_parallel_residual": True},
    "Qwen3ForCausalLM": {"head_dim": 128},
    "GemmaForCausalLM": {"head_dim": 256, "tie_word_embeddings": True},
}

# Of each head GPT-NeoX turns so much where it does not say how much.
_NEOX_TURNED = 0.25

# Settings of classes there that change what is computed, and which nothing here has. Each is one of
# these values, or is not there.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "use_sliding_window": (False, None),
    "sliding_window": (None,),
    "use_bidirectional_attention": (False, None),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "quantization_config": (None,),
}

# Where a class means something else by one: GPT-NeoX has biases, and Qwen3 reads the width of a
# window only where `use_sliding_window` asks for one.
_OTHERWISE: dict[str, dict[str, tuple[Any, ...]]] = {
    "GPTNeoXForCausalLM": {"attention_bias": (True, None)},
    "Qwen3ForCausalLM": {"sliding_window": ()},
}


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
    head = mapping.head_of(config)
    old = mapping.OLD_NEOX_HEAD
    if config.variant == "gpt2" and old in tensors and head not in tensors:
        tensors = {head if name == old else name: x for name, x in tensors.items()}
    if config.tied:
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
    named = content.get("architectures") or [None]
    if not isinstance(named, list):
        raise ValueError(f"architectures is {named!r}; it must be a list, as [{named!r}]")
    architecture = named[0]
    own = architecture == mapping.OWN[0]
    kinds = {name: kind for kind, (name, _) in mapping.ARCHITECTURES.items()}
    if not own and architecture not in kinds:
        known = ", ".join([*kinds, mapping.OWN[0]])
        raise ValueError(f"architectures is {architecture!r}; it must be one of {known}")
    variant, qk_norm = (_variant(content), content["qk_norm"]) if own else kinds[architecture]
    content = _UNSAID.get(architecture, {}) | content
    heads, width = content["num_attention_heads"], content["hidden_size"]
    rope = content.get("rope_parameters") or {}
    turned, base = content.get("partial_rotary_factor", 1.0), content.get("rope_theta")
    if variant == "gpt2" and not own:
        # Its names in files of transformers 4.
        turned = content.get("rotary_pct", _NEOX_TURNED)
        base = base or content.get("rotary_emb_base")
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
        "rotary_base": float(base or rope["rope_theta"]),
        "rotary_fraction": float(rope.get("partial_rotary_factor", turned)),
        "init_std": content.get("initializer_range", 0.02),
        "experts": content.get("num_experts") or content.get("num_local_experts") or 0,
        "canon": "",
        "logit_cap": 0.0,
    }
    for name in ("norm_eps", "layer_norm_eps", "rms_norm_eps"):
        found["norm_eps"] = content.get(name, found.get("norm_eps"))
    if variant == "mixtral" or own:
        found["experts_per_token"] = content["num_experts_per_tok"]
    # Of no part in what is computed, but in how training goes on.
    if variant == "mixtral" and not own:
        found["balance"] = content.get("router_aux_loss_coef", 0.001)
    if variant == "gpt2" and not own:
        found["dropout"] = content.get("hidden_dropout", 0.0)
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
        if said is None and name in ("head_dim", "num_key_value_heads"):
            # What follows from the width and the heads.
            said = config.width // config.heads if name == "head_dim" else config.heads
        if isinstance(want, dict):
            said = {key: said.get(key, value) for key, value in want.items()}
        free = name.endswith("_token_id") or name in ("dtype", "auto_map", "initializer_range")
        if not free and said != want:
            return f"{name} is {said!r}; it must be {want!r} here"
    # Our own class reads nothing but what has been compared.
    return "" if mapping.is_own(config) else _unknown_here(config, content)


def _unknown_here(config: ModelConfig, content: dict[str, Any]) -> str:
    """Which setting has the class there compute what no model here does, in words; "" if none."""
    architecture, _ = mapping.ARCHITECTURES[config.variant, config.qk_norm]
    for name, neutral in (_NEUTRAL | _OTHERWISE.get(architecture, {})).items():
        said = content.get(name)
        if neutral and said not in neutral:
            return f"{name} is {said!r}; it must be {neutral[0]!r} or left out here"
    if strange := [kind for kind in content.get("layer_types") or () if kind != "full_attention"]:
        return f"layer_types has {strange[0]!r}; all must be 'full_attention' here"
    scaling = content.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind != "default":
        return f"rope_scaling has the type {kind!r}; it must be 'default' or left out here"
    for name in ("partial_rotary_factor", "rotary_pct"):
        turned = content.get(name)
        if turned is not None and turned != config.rotary_fraction:
            return f"{name} is {turned!r}; it must be {config.rotary_fraction!r} here"
    return ""
