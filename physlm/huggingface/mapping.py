"""Between this decoder and Hugging Face's: the content of a config.json, and the tensors.

Most variants compute what one published architecture of transformers computes: gpt2 is GPT-NeoX;
llama is Llama or, with normalised queries and keys, Qwen3; gemma and mixtral have the same names
there. What none of them has, such as Canon layers, goes with our own class, whose code is exported
beside the weights (`physlm.huggingface.remote`).

Array names as in `physlm.model` and `physlm.feedforward`, and L: layers, C: the three of queries,
keys and values, I and O: inputs and outputs of a projection.
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from physlm.architecture import ModelConfig

Leaves = dict[str, np.ndarray]

# From the variant, and whether queries and keys are normalised, to the class and type of the model.
ARCHITECTURES = {
    ("gpt2", False): ("GPTNeoXForCausalLM", "gpt_neox"),
    ("llama", False): ("LlamaForCausalLM", "llama"),
    ("llama", True): ("Qwen3ForCausalLM", "qwen3"),
    ("gemma", False): ("GemmaForCausalLM", "gemma"),
    ("mixtral", False): ("MixtralForCausalLM", "mixtral"),
}

# Our own class, and where `from_pretrained` finds it beside the weights.
OWN = ("PhyslmForCausalLM", "physlm")
_OWN_CODE = {
    "AutoConfig": "configuration_physlm.PhyslmConfig",
    "AutoModelForCausalLM": "modeling_physlm.PhyslmForCausalLM",
}

# What transformers before 5.14 calls the head of GPT-NeoX.
OLD_NEOX_HEAD = "embed_out.weight"

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
    "blocks/mixture/up": "mlp.experts.up_proj",
    "blocks/mixture/gate": "mlp.experts.gate_proj",
    "blocks/mixture/down": "mlp.experts.down_proj",
    "blocks/canon_attention": "canon_a",
    "blocks/attention/canon_query": "self_attn.canon_q",
    "blocks/attention/canon_key": "self_attn.canon_k",
    "blocks/attention/canon_value": "self_attn.canon_v",
    "blocks/canon_mlp": "canon_c",
    "blocks/mlp/canon_up": "mlp.canon_up",
    "blocks/mlp/canon_gate": "mlp.canon_gate",
}


def hf_config(config: ModelConfig) -> dict[str, Any]:
    """The content of config.json for a model of this configuration.

    The ids of the tokens that begin, end or pad a text are left unset, since they belong to the
    tokenizer.
    """
    if is_own(config):
        return _own_config(config)
    architecture, model_type = ARCHITECTURES[config.variant, config.qk_norm]
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
    """
    floats = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), params)
    found = rearranged(config, floats)
    if config.variant == "gemma" and not is_own(config):
        # Gemma multiplies by 1 + weight.
        return {name: x - 1 if "norm" in name else x for name, x in found.items()}
    return found


def rearranged(config: ModelConfig, params: dict[str, Any]) -> Leaves:
    """The numbers of parameters, by names and in the order of transformers."""
    names = _names(config)
    found = {}
    for path, leaf in _joined(config, dict(_leaves(params))).items():
        part, _, kind = path.rpartition("/")
        if part.startswith("blocks/"):
            name = names[part] + _ending(part, kind)
            for layer, one in enumerate(leaf):
                found[f"{names['blocks']}.{layer}.{name}"] = _tensor(config, path, one)
        else:
            name = names[part] + (".bias" if kind == "bias" else ".weight")
            found[name] = _tensor(config, path, leaf)
    if config.tied:
        found[head_of(config)] = found[f"{names['embed']}.weight"]
    return found


def _names(config: ModelConfig) -> dict[str, str]:
    return _NEOX if config.variant == "gpt2" and not is_own(config) else _LLAMA


def head_of(config: ModelConfig) -> str:
    """The name of the head's tensor, which is the embedding's where they are tied."""
    return f"{_names(config)['head']}.weight"


def embedding_of(config: ModelConfig) -> str:
    """The name of the embedding's module."""
    return _names(config)["embed"]


def module_of(config: ModelConfig, path: str) -> tuple[str, np.ndarray, int]:
    """Where a matrix of the model is in transformers.

    Args:
      config: the model's configuration.
      path: of the matrix, as `blocks/attention/query/kernel`.

    Returns:
      The module's name, in which `{layer}` stands for the layer; which of its outputs the matrix
      makes, in order; and how many outputs it has.

    Raises:
      ValueError: no module of its own holds the matrix.
    """
    names, part = _names(config), path.rpartition("/")[0]
    if part.startswith("blocks/mixture/") or (config.tied and part in ("embed", "head")):
        raise ValueError(
            f"adaptation.on matches {path}, which PEFT cannot adapt in this model; export the "
            "whole model, without --adapter."
        )
    if part == "embed":
        return names["embed"], np.arange(config.width), config.width
    if part == "head":
        return names["head"], np.arange(config.vocab), config.vocab
    prefix = f"{names['blocks']}.{{layer}}."
    third = {"query": 0, "key": 1, "value": 2}.get(part.rpartition("/")[2])
    if names is _NEOX and third is not None:
        # The three kernels of a head are next to each other.
        places_Hx3xK = np.arange(3 * config.width).reshape(config.heads, 3, config.head_dim)
        name = names["blocks/attention/joined"]
        return prefix + name, places_Hx3xK[:, third].reshape(-1), 3 * config.width
    sizes = {"query": config.width, "out": config.width, "down": config.width}
    shared = config.shared_heads * config.head_dim
    sizes |= {"key": shared, "value": shared, "up": config.hidden, "gate": config.hidden}
    size = sizes[part.rpartition("/")[2]]
    return prefix + names[part], np.arange(size), size


def is_own(config: ModelConfig) -> bool:
    """Whether no published architecture computes the same, so that our own code goes with it."""
    turned = config.variant == "gpt2" and config.rotary_channels > 0
    return (
        bool(config.canon)
        or bool(config.logit_cap)
        or not (config.rotary_fraction == 1 or turned)
        or (config.variant, config.qk_norm) not in ARCHITECTURES
        or (config.variant == "gpt2" and config.shared_heads != config.heads)
        or (config.variant == "mixtral") != (config.mixture > 1)
    )


def _own_config(config: ModelConfig) -> dict[str, Any]:
    architecture, model_type = OWN
    family = config.family
    return {
        "architectures": [architecture],
        "auto_map": _OWN_CODE,
        "model_type": model_type,
        "dtype": "float32",
        "vocab_size": config.vocab,
        "hidden_size": config.width,
        "intermediate_size": config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.shared_heads,
        "head_dim": config.head_dim,
        "rotary_channels": config.rotary_channels,
        "rope_theta": config.rotary_base,
        "norm": family.norm,
        "norm_eps": config.norm_eps,
        "hidden_act": family.activation,
        "gated": family.gated,
        "biases": family.biases,
        "scaled_embedding": family.scaled_embedding,
        "num_experts": config.mixture,
        "num_experts_per_tok": config.experts_per_token,
        "qk_norm": config.qk_norm,
        "logit_cap": config.logit_cap,
        "canon": config.canon,
        "canon_width": config.canon_width,
        "max_position_embeddings": config.positions,
        "initializer_range": config.init_std,
        "tie_word_embeddings": config.tied,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }


def _ending(part: str, kind: str) -> str:
    experts = part.startswith("blocks/mixture/") and not part.endswith("router")
    return "" if experts else {"bias": ".bias"}.get(kind, ".weight")


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    for name, part in tree.items():
        if isinstance(part, dict):
            yield from _leaves(part, f"{prefix}{name}/")
        else:
            yield f"{prefix}{name}", np.asarray(part)


def _joined(config: ModelConfig, leaves: Leaves) -> Leaves:
    """The leaves, with those joined that are one tensor in transformers.

    Kernels of experts get the name `kernels`, since they have an axis more than others.
    """
    if is_own(config):
        return leaves
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
    if "canon_" in part:
        return np.array(leaf.reshape(config.canon_width, -1))
    if part.startswith("blocks/mixture/") and not part.endswith("router") and is_own(config):
        return np.array(leaf)
    if kind == "kernel":
        leaf_IxO = leaf.reshape(config.hidden if part == "blocks/mlp/down" else config.width, -1)
        return np.ascontiguousarray(leaf_IxO.T)
    if kind == "kernels":
        return np.ascontiguousarray(np.swapaxes(leaf, -1, -2))
    return np.array(leaf if kind == "embedding" else leaf.reshape(-1))
