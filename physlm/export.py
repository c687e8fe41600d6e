"""Export to Hugging Face transformers: the content of a config.json, and the tensors.

Each variant computes what one architecture of transformers computes: gpt2 is GPT-NeoX; llama is
Llama or, with normalised queries and keys, Qwen3; gemma and mixtral have the same names there.

Array names as in `physlm.model` and `physlm.feedforward`, and L: layers, C: the three of queries,
keys and values, I and O: inputs and outputs of a projection.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from physlm.architecture import ModelConfig

Leaves = dict[str, np.ndarray]

# From the variant, and whether queries and keys are normalised, to the class and type of the model.
_ARCHITECTURES = {
    ("gpt2", False): ("GPTNeoXForCausalLM", "gpt_neox"),
    ("llama", False): ("LlamaForCausalLM", "llama"),
    ("llama", True): ("Qwen3ForCausalLM", "qwen3"),
    ("gemma", False): ("GemmaForCausalLM", "gemma"),
    ("mixtral", False): ("MixtralForCausalLM", "mixtral"),
}

# From the parts of the model to their names in transformers.
_NEOX = {
    "embed": "gpt_neox.embed_in",
    "norm": "gpt_neox.final_layer_norm",
    "head": "lm_head",
    "blocks": "gpt_neox.layers",
    "blocks/norm_attention": "input_layernorm",
    "blocks/attention/joined": "attention.query_key_value",
    "blocks/attention/out": "attention.dense",
    "blocks/norm_mlp": "post_attention_layernorm",
    "blocks/mlp/up": "mlp.dense_h_to_4h",
    "blocks/mlp/down": "mlp.dense_4h_to_h",
}
_LLAMA = {
    "embed": "model.embed_tokens",
    "norm": "model.norm",
    "head": "lm_head",
    "blocks": "model.layers",
    "blocks/norm_attention": "input_layernorm",
    "blocks/attention/query": "self_attn.q_proj",
    "blocks/attention/key": "self_attn.k_proj",
    "blocks/attention/value": "self_attn.v_proj",
    "blocks/attention/norm_query": "self_attn.q_norm",
    "blocks/attention/norm_key": "self_attn.k_norm",
    "blocks/attention/out": "self_attn.o_proj",
    "blocks/norm_mlp": "post_attention_layernorm",
    "blocks/mlp/up": "mlp.up_proj",
    "blocks/mlp/gate": "mlp.gate_proj",
    "blocks/mlp/down": "mlp.down_proj",
    "blocks/mixture/router": "mlp.gate",
    "blocks/mixture/joined": "mlp.experts.gate_up_proj",
    "blocks/mixture/down": "mlp.experts.down_proj",
}


def hf_config(config: ModelConfig) -> dict[str, Any]:
    """The content of config.json for a model of this configuration.

    The ids of the tokens that begin, end or pad a text are left unset, since they belong to the
    tokenizer.

    Raises:
      ValueError: no architecture of transformers computes the same.
    """
    architecture, model_type = _architecture(config)
    content: dict[str, Any] = {
        "architectures": [architecture],
        "model_type": model_type,
        "dtype": "float32",
        "vocab_size": config.vocab,
        "hidden_size": config.width,
        "intermediate_size": config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "max_position_embeddings": config.positions,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rotary_base},
        "initializer_range": config.init_std,
        "tie_word_embeddings": config.tied,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }
    if config.variant == "gpt2":
        # By default GPT-NeoX rotates only a quarter of each head.
        content["rope_parameters"]["partial_rotary_factor"] = config.rotary_fraction
        return content | {
            "hidden_act": "gelu_new",
            "hidden_dropout": config.dropout,
            "layer_norm_eps": config.norm_eps,
            "use_parallel_residual": False,
        }
    content |= {
        "hidden_act": {"gelu": "gelu_pytorch_tanh", "silu": "silu"}[config.family.activation],
        "num_key_value_heads": config.shared_heads,
        "head_dim": config.head_dim,
        "rms_norm_eps": config.norm_eps,
    }
    if config.variant == "mixtral":
        content["num_local_experts"] = config.mixture
        content["num_experts_per_tok"] = config.experts_per_token
        content["router_aux_loss_coef"] = config.balance
    return content


def state_dict(config: ModelConfig, params: dict[str, Any]) -> Leaves:
    """The parameters as float32 tensors, by their names in transformers.

    Args:
      config: the model's configuration.
      params: its parameters, with the layers as the first axis of what is in `blocks`.

    Returns:
      The argument of `load_state_dict` (transformers 5.14 or later). A tied head is in it twice,
      under the name of the embedding and under its own.

    Raises:
      ValueError: no architecture of transformers computes the same.
    """
    _architecture(config)
    names = _NEOX if config.variant == "gpt2" else _LLAMA
    found = {}
    for path, leaf in _joined(config, dict(_leaves(params))).items():
        part, _, kind = path.rpartition("/")
        if part.startswith("blocks/"):
            name = names[part] + {"kernels": "", "bias": ".bias"}.get(kind, ".weight")
            for layer, one in enumerate(leaf):
                found[f"{names['blocks']}.{layer}.{name}"] = _tensor(config, path, one)
        else:
            name = names[part] + (".bias" if kind == "bias" else ".weight")
            found[name] = _tensor(config, path, leaf)
    if config.tied:
        found[f"{names['head']}.weight"] = found[f"{names['embed']}.weight"]
    return found


def _architecture(config: ModelConfig) -> tuple[str, str]:
    variant = config.variant
    if config.canon:
        raise ValueError(f"model.canon is {config.canon!r}; it must be '' for Hugging Face.")
    if config.rotary_fraction < 1 and (variant != "gpt2" or not config.rotary_channels):
        allowed = "above 0" if variant == "gpt2" else "1"
        raise ValueError(
            f"model.rotary_fraction is {config.rotary_fraction}; it must be {allowed} for Hugging "
            f"Face's {variant}."
        )
    if config.logit_cap:
        raise ValueError(f"model.logit_cap is {config.logit_cap}; it must be 0 for Hugging Face.")
    if (variant, config.qk_norm) not in _ARCHITECTURES:
        raise ValueError(
            f"model.qk_norm is {config.qk_norm}; it must be False for Hugging Face, "
            f"where no {variant} has it."
        )
    if variant == "gpt2" and config.shared_heads != config.heads:
        raise ValueError(
            f"model.kv_heads is {config.kv_heads}; it must be 0 or model.heads, {config.heads}, "
            f"for Hugging Face's {variant}."
        )
    if (variant == "mixtral") != (config.mixture > 1):
        allowed = "0 or above 1" if variant == "mixtral" else "0 or 1"
        raise ValueError(
            f"model.experts is {config.experts}; it must be {allowed} for Hugging Face's {variant}."
        )
    return _ARCHITECTURES[variant, config.qk_norm]


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    for name, part in tree.items():
        if isinstance(part, dict):
            yield from _leaves(part, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", np.asarray(part, dtype=np.float32)


def _joined(config: ModelConfig, leaves: Leaves) -> Leaves:
    """The leaves, with those joined that are one tensor in transformers.

    Kernels of experts get the name `kernels`, since they have an axis more than others.
    """
    if config.variant == "gpt2":
        for kind, axis in (("kernel", 3), ("bias", 2)):
            names = (f"blocks/attention/{name}/{kind}" for name in ("query", "key", "value"))
            # The three kernels of a head are next to each other: [L, D, H, C, K] and [L, H, C, K].
            leaves[f"blocks/attention/joined/{kind}"] = np.stack([*map(leaves.pop, names)], axis)
    if config.mixture > 1:
        gate_LxExDxF, up_LxExDxF, down_LxExFxD = (
            leaves.pop(f"blocks/mixture/{name}/kernel") for name in ("gate", "up", "down")
        )
        both_LxExDx2F = np.concatenate([gate_LxExDxF, up_LxExDxF], axis=-1)
        leaves["blocks/mixture/joined/kernels"] = both_LxExDx2F
        leaves["blocks/mixture/down/kernels"] = down_LxExFxD
    return leaves


def _tensor(config: ModelConfig, path: str, leaf: np.ndarray) -> np.ndarray:
    """A leaf of one layer, laid out as in PyTorch: outputs before inputs, each one axis."""
    part, _, kind = path.rpartition("/")
    if kind == "kernel":
        leaf_IxO = leaf.reshape(config.hidden if part == "blocks/mlp/down" else config.width, -1)
        return np.ascontiguousarray(leaf_IxO.T)
    if kind == "kernels":
        return np.ascontiguousarray(np.swapaxes(leaf, -1, -2))
    if kind == "scale" and config.variant == "gemma":
        # Gemma multiplies by 1 + weight.
        return leaf - 1
    return np.array(leaf if kind == "embedding" else leaf.reshape(-1))
