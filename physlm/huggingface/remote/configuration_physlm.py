"""The configuration of `modeling_physlm`."""

from typing import Any

from transformers import PreTrainedConfig


class PhyslmConfig(PreTrainedConfig):
    """A decoder with rotary positions, and what no published class has beside them.

    Args:
      vocab_size: number of token ids.
      hidden_size: width of the residual stream.
      intermediate_size: hidden units of an MLP.
      num_hidden_layers: blocks.
      num_attention_heads: heads of queries.
      num_key_value_heads: heads of keys and values.
      head_dim: width of a head.
      rotary_channels: channels of a head that rotary positions turn, its first.
      rope_theta: base of the rotary wavelengths.
      norm: "layer" or "rms".
      norm_eps: added to the variance in normalisation.
      hidden_act: "gelu" (by tanh) or "silu".
      gated: the activation multiplies a second projection.
      biases: projections and layer normalisation have biases.
      scaled_embedding: embeddings are multiplied by the root of the width.
      num_experts: MLPs of a block; 1 is no mixture.
      num_experts_per_tok: MLPs that a token takes.
      qk_norm: queries and keys are normalised (RMS) within each head.
      logit_cap: logits are kept between plus and minus this number by a tanh; 0 leaves them alone.
      canon: letters of the Canon layers of a block: A before attention, B on queries, keys and
        values, C before the MLP, D inside it (arXiv 2512.17351).
      canon_width: positions that a Canon layer takes in, its own among them.
      max_position_embeddings: tokens that a text may take.
      initializer_range: deviation of weights that are drawn.
      kwargs: of `PreTrainedConfig`.
    """

    model_type = "physlm"
    keys_to_ignore_at_inference = ("cache", "past_key_values")

    def __init__(
        self,
        vocab_size: int = 256,
        hidden_size: int = 64,
        intermediate_size: int = 256,
        num_hidden_layers: int = 4,
        num_attention_heads: int = 1,
        num_key_value_heads: int = 1,
        head_dim: int = 64,
        rotary_channels: int = 64,
        rope_theta: float = 10000.0,
        norm: str = "layer",
        norm_eps: float = 1e-5,
        hidden_act: str = "gelu",
        gated: bool = False,
        biases: bool = True,
        scaled_embedding: bool = False,
        num_experts: int = 1,
        num_experts_per_tok: int = 2,
        qk_norm: bool = False,
        logit_cap: float = 0.0,
        canon: str = "",
        canon_width: int = 4,
        max_position_embeddings: int = 2048,
        initializer_range: float = 0.02,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_key_value_heads
        self.head_dim = head_dim
        self.rotary_channels = rotary_channels
        self.rope_theta = rope_theta
        self.norm = norm
        self.norm_eps = norm_eps
        self.hidden_act = hidden_act
        self.gated = gated
        self.biases = biases
        self.scaled_embedding = scaled_embedding
        self.num_experts = num_experts
        self.num_experts_per_tok = num_experts_per_tok
        self.qk_norm = qk_norm
        self.logit_cap = logit_cap
        self.canon = canon
        self.canon_width = canon_width
        self.max_position_embeddings = max_position_embeddings
        self.initializer_range = initializer_range
        super().__init__(**kwargs)
