"""The decoder of physlm in PyTorch, with Canon layers and all else that it may have.

It computes what `physlm.model` computes. Texts may be padded on the left or on the right.

Names of arrays: B batch, T position, S position that is attended to, D width, H head, N head of
keys and values, K head width, F hidden units, E experts, C channels.
"""

import dataclasses
from typing import Any, ClassVar

import torch
from torch import nn
from transformers import DynamicCache, GenerationMixin, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.modeling_outputs import CausalLMOutputWithPast

from .configuration_physlm import PhyslmConfig

_NAMES = {field.name for field in dataclasses.fields(CausalLMOutputWithPast)}
_CACHE = "cache" if "cache" in _NAMES else "past_key_values"


class RMSNorm(nn.Module):
    """Normalisation by the root of the mean square, in float32."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight, self.epsilon = nn.Parameter(torch.ones(width)), epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalises the last axis."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)
        return (wide * self.weight.float()).to(x.dtype)


def _norm(config: PhyslmConfig) -> nn.Module:
    if config.norm == "rms":
        return RMSNorm(config.hidden_size, config.norm_eps)
    return nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=config.biases)


class Canon(nn.Module):
    """A depthwise causal convolution over the last positions, added to its input."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width, channels))

    def forward(self, x_BxTxC: torch.Tensor, memory: "Memory") -> torch.Tensor:
        """The input with what its neighbours add."""
        length = x_BxTxC.shape[1]
        behind_BxZxC = memory.behind(x_BxTxC, len(self.weight) - 1)
        out_BxTxC = x_BxTxC
        for distance, weight_C in enumerate(self.weight):
            start = len(self.weight) - 1 - distance
            out_BxTxC = out_BxTxC + behind_BxZxC[:, start : start + length] * weight_C
        return out_BxTxC


class Memory:
    """What blocks keep of earlier tokens, and which of the new ones are padding.

    Inputs of Canon layers are kept as layers of the cache after those of attention, so that the
    cache can be reordered and cut as any other.
    """

    def __init__(
        self, cache: DynamicCache | None, layers: int, real_BxTx1: torch.Tensor | None
    ) -> None:
        self.cache, self.real_BxTx1, self._next = cache, real_BxTx1, layers

    def behind(self, x_BxTxC: torch.Tensor, count: int) -> torch.Tensor:
        """The input with the `count` before it; before a text are zeros."""
        if self.real_BxTx1 is not None:
            x_BxTxC = x_BxTxC * self.real_BxTx1.to(x_BxTxC.dtype)
        length, number = x_BxTxC.shape[1], self._next
        self._next += 1
        whole = x_BxTxC
        if self.cache is not None:
            while len(self.cache.layers) <= number:
                self.cache.layers.append(DynamicLayer())
            kept = self.cache.layers[number].update(x_BxTxC[:, None], x_BxTxC[:, None, :, :0])
            whole = kept[0][:, 0]
        earlier = min(count, whole.shape[1] - length)
        part = whole[:, whole.shape[1] - length - earlier :]
        return nn.functional.pad(part, (0, 0, count - earlier, 0))


class Attention(nn.Module):
    """Attention with rotary positions; heads of keys and values may be shared."""

    def __init__(self, config: PhyslmConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        width, head = config.hidden_size, config.head_dim
        sizes = [config.num_attention_heads, *[config.num_key_value_heads] * 2]
        self.q_proj, self.k_proj, self.v_proj = (
            nn.Linear(width, count * head, bias=config.biases) for count in sizes
        )
        self.o_proj = nn.Linear(sizes[0] * head, width, bias=config.biases)
        if config.qk_norm:
            self.q_norm, self.k_norm = (RMSNorm(head, config.norm_eps) for _ in range(2))
        if "B" in config.canon:
            self.canon_q, self.canon_k, self.canon_v = (
                Canon(config.canon_width, count * head) for count in sizes
            )

    def forward(
        self,
        x_BxTxD: torch.Tensor,
        cos_BxTxK: torch.Tensor,
        sin_BxTxK: torch.Tensor,
        visible_Bx1xTxS: torch.Tensor,
        memory: Memory,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The output [B, T, D], and how much each position attends to each, [B, H, T, S]."""
        config, head = self.config, self.config.head_dim
        q, k, v = self.q_proj(x_BxTxD), self.k_proj(x_BxTxD), self.v_proj(x_BxTxD)
        if config.qk_norm:
            q, k = (
                norm(part.unflatten(-1, (-1, head))).flatten(-2)
                for norm, part in ((self.q_norm, q), (self.k_norm, k))
            )
        if "B" in config.canon:
            q = self.canon_q(q, memory)
            k = self.canon_k(k, memory)
            v = self.canon_v(v, memory)
        q, k, v = (x.unflatten(-1, (-1, head)).transpose(1, 2) for x in (q, k, v))
        q, k = (_turned(x, cos_BxTxK, sin_BxTxK) for x in (q, k))
        if memory.cache is not None:
            k, v = memory.cache.update(k, v, self.layer)
        groups = q.shape[1] // k.shape[1]
        k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
        scores_BxHxTxS = (q * head**-0.5) @ k.transpose(-1, -2)
        scores_BxHxTxS = scores_BxHxTxS.float().masked_fill(~visible_Bx1xTxS, -1e30)
        shares_BxHxTxS = scores_BxHxTxS.softmax(-1)
        read_BxTxD = (shares_BxHxTxS.to(v.dtype) @ v).transpose(1, 2).flatten(2)
        return self.o_proj(read_BxTxD), shares_BxHxTxS


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """[B, H, T, K] with the first channels turned, in pairs (i, i + half)."""
    cos, sin = (part[:, None].to(x.dtype) for part in (cos, sin))
    half = cos.shape[-1]
    a, b, rest = x.split([half, half, x.shape[-1] - 2 * half], dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], dim=-1)


def _activation(config: PhyslmConfig, x: torch.Tensor) -> torch.Tensor:
    if config.hidden_act == "silu":
        return nn.functional.silu(x)
    return nn.functional.gelu(x, approximate="tanh")


class MLP(nn.Module):
    """Two projections with an activation between them, or three where it is gated."""

    def __init__(self, config: PhyslmConfig) -> None:
        super().__init__()
        self.config = config
        width, hidden = config.hidden_size, config.intermediate_size
        self.up_proj = nn.Linear(width, hidden, bias=config.biases)
        if config.gated:
            self.gate_proj = nn.Linear(width, hidden, bias=config.biases)
        self.down_proj = nn.Linear(hidden, width, bias=config.biases)
        if "D" in config.canon:
            self.canon_up = Canon(config.canon_width, hidden)
            if config.gated:
                self.canon_gate = Canon(config.canon_width, hidden)

    def forward(self, x_BxTxD: torch.Tensor, memory: Memory) -> torch.Tensor:
        """The output [B, T, D]."""
        up = self.up_proj(x_BxTxD)
        gate = self.gate_proj(x_BxTxD) if self.config.gated else None
        if "D" in self.config.canon:
            up = self.canon_up(up, memory)
            gate = None if gate is None else self.canon_gate(gate, memory)
        if gate is None:
            return self.down_proj(_activation(self.config, up))
        return self.down_proj(up * _activation(self.config, gate))


class Experts(nn.Module):
    """The kernels of a block's experts, [E, inputs, outputs]."""

    def __init__(self, config: PhyslmConfig) -> None:
        super().__init__()
        count, width, hidden = config.num_experts, config.hidden_size, config.intermediate_size
        self.up_proj = nn.Parameter(torch.zeros(count, width, hidden))
        if config.gated:
            self.gate_proj = nn.Parameter(torch.zeros(count, width, hidden))
        self.down_proj = nn.Parameter(torch.zeros(count, hidden, width))


class Mixture(nn.Module):
    """A router gives each token the few MLPs that it scores highest."""

    def __init__(self, config: PhyslmConfig) -> None:
        super().__init__()
        self.config, self.experts = config, Experts(config)
        self.gate = nn.Linear(config.hidden_size, config.num_experts, bias=False)

    def forward(self, x_BxTxD: torch.Tensor, memory: Memory) -> torch.Tensor:
        """The output [B, T, D]."""
        del memory
        scores, expert = self.gate(x_BxTxD.float()).topk(self.config.num_experts_per_tok, dim=-1)
        share, out_BxTxD = scores.softmax(-1), torch.zeros_like(x_BxTxD, dtype=torch.float32)
        for number in range(self.config.num_experts):
            part_BxT = (share * (expert == number)).sum(-1)
            at = part_BxT > 0
            x, parts = x_BxTxD[at], self.experts
            up = x @ parts.up_proj[number]
            if self.config.gated:
                up = up * _activation(self.config, x @ parts.gate_proj[number])
            else:
                up = _activation(self.config, up)
            out_BxTxD[at] += (up @ parts.down_proj[number]).float() * part_BxT[at][:, None]
        return out_BxTxD.to(x_BxTxD.dtype)


class Block(nn.Module):
    """One pre-normalised block: attention, then an MLP or a mixture of several."""

    def __init__(self, config: PhyslmConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm, self.post_attention_layernorm = _norm(config), _norm(config)
        self.self_attn = Attention(config, layer)
        self.mlp = Mixture(config) if config.num_experts > 1 else MLP(config)
        for letter in "AC":
            if letter in config.canon:
                name = f"canon_{letter.lower()}"
                setattr(self, name, Canon(config.canon_width, config.hidden_size))
        self.canon = config.canon

    def forward(
        self, x_BxTxD: torch.Tensor, memory: Memory, **places: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The residual stream after the block, and what attention attended to."""
        h_BxTxD = self.input_layernorm(x_BxTxD)
        if "A" in self.canon:
            h_BxTxD = self.canon_a(h_BxTxD, memory)
        added_BxTxD, shares = self.self_attn(h_BxTxD, memory=memory, **places)
        x_BxTxD = x_BxTxD + added_BxTxD
        h_BxTxD = self.post_attention_layernorm(x_BxTxD)
        if "C" in self.canon:
            h_BxTxD = self.canon_c(h_BxTxD, memory)
        return x_BxTxD + self.mlp(h_BxTxD, memory), shares


class PhyslmModel(nn.Module):
    """Embedding, blocks and the last normalisation."""

    def __init__(self, config: PhyslmConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, n) for n in range(config.num_hidden_layers))
        self.norm = _norm(config)


class PhyslmForCausalLM(PreTrainedModel, GenerationMixin):
    """The decoder with its head."""

    config_class = PhyslmConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    _tied_weights_keys: ClassVar[dict[str, str]] = {"lm_head.weight": "model.embed_tokens.weight"}

    def __init__(self, config: PhyslmConfig) -> None:
        super().__init__(config)
        self.model = PhyslmModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The embedding."""
        return self.model.embed_tokens

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replaces the embedding."""
        self.model.embed_tokens = value

    def get_output_embeddings(self) -> nn.Module:
        """The head."""
        return self.lm_head

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        cache: DynamicCache | None = None,
        past_key_values: DynamicCache | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool = False,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        logits_to_keep: int = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Reads tokens.

        Args:
          input_ids: [B, T].
          attention_mask: [B, S], 0 for padding, of the tokens in the cache too.
          position_ids: [B, T]; by default they count what is no padding.
          cache: what is kept of earlier tokens.
          past_key_values: what versions of transformers before 5.20 call the cache.
          labels: [B, T]; those of -100 bear no loss.
          use_cache: whether to keep what later tokens need.
          output_hidden_states: whether to return the residual stream before each block, and what
            the head reads.
          output_attentions: whether to return what each position attends to, of every layer.
          logits_to_keep: of so many last positions alone; 0 for all.
          kwargs: are not read.
        """
        del kwargs
        cache = past_key_values if cache is None else cache
        if use_cache and cache is None:
            cache = DynamicCache()
        size, length = input_ids.shape
        before = 0 if cache is None else cache.get_seq_length()
        place_S = torch.arange(before + length, device=input_ids.device)
        visible = (place_S <= place_S[before:, None])[None, None].expand(size, 1, -1, -1)
        real_BxTx1 = None
        if attention_mask is not None:
            real_BxS = attention_mask[:, : before + length].bool()
            visible = visible & real_BxS[:, None, None]
            real_BxTx1 = real_BxS[:, before:, None]
        if position_ids is None:
            counted = place_S[None].expand(size, -1)
            if attention_mask is not None:
                counted = (real_BxS.long().cumsum(-1) - 1).clamp(min=0)
            position_ids = counted[:, before:]
        cos, sin = self._angles(position_ids)
        memory = Memory(cache, self.config.num_hidden_layers, real_BxTx1)
        x_BxTxD = self.model.embed_tokens(input_ids)
        if self.config.scaled_embedding:
            x_BxTxD = x_BxTxD * self.config.hidden_size**0.5
        states, attentions = [], []
        for block in self.model.layers:
            states.append(x_BxTxD)
            x_BxTxD, shares = block(
                x_BxTxD, memory, cos_BxTxK=cos, sin_BxTxK=sin, visible_Bx1xTxS=visible
            )
            attentions.append(shares)
        x_BxTxD = self.model.norm(x_BxTxD)
        states.append(x_BxTxD)
        logits = self.lm_head(x_BxTxD[:, -logits_to_keep:] if logits_to_keep else x_BxTxD).float()
        if self.config.logit_cap:
            logits = self.config.logit_cap * torch.tanh(logits / self.config.logit_cap)
        loss = None
        if labels is not None:
            loss = nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100
            )
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            **{_CACHE: cache},
            hidden_states=tuple(states) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
        )

    def _angles(self, position_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines [B, T, half the channels that turn], in float32."""
        channels = self.config.rotary_channels
        place = torch.arange(0, channels, 2, device=position_ids.device, dtype=torch.float32)
        frequencies = self.config.rope_theta ** -(place / max(channels, 1))
        angles = position_ids[..., None].float() * frequencies
        return angles.cos(), angles.sin()
