"""What the decoder looks like: its variants, its size, its numerics."""

import dataclasses
import re
from typing import NamedTuple

_DTYPES = ("float32", "bfloat16")
_REMAT = ("none", "dots", "full")
_KERNELS = ("auto", "blocks", "cudnn", "splash")

# What `jax.checkpoint` policies call the products of activations and kernels.
PRODUCT = "product"


class Variant(NamedTuple):
    """What sets the published families apart, beside what is a setting of its own."""

    norm: str  # "layer" normalisation or "rms"
    activation: str  # "gelu" (by tanh) or "silu"
    gated: bool  # the activation multiplies a second projection
    biases: bool  # of projections and layer normalisation
    scaled_embedding: bool  # by the square root of the width
    experts: int  # MLPs of a block; 1 is no mixture


VARIANTS = {
    # GPT-2 with rotary positions instead of learned ones, as in the paper.
    "gpt2": Variant("layer", "gelu", False, True, False, 1),
    # Llama (arXiv 2302.13971).
    "llama": Variant("rms", "silu", True, False, False, 1),
    # Gemma (arXiv 2403.08295).
    "gemma": Variant("rms", "gelu", True, False, True, 1),
    # Mixtral (arXiv 2401.04088).
    "mixtral": Variant("rms", "silu", True, False, False, 8),
}


def sized(name: str) -> dict[str, int]:
    """Layers, heads and head width of a size written as the paper writes it, `12-12`.

    Raises:
      ValueError: it is not written so.
    """
    if not re.fullmatch(r"[1-9]\d*-[1-9]\d*", name):
        raise ValueError(
            f"model.size is {name!r}; it must be layers-heads, as 12-12 (heads of width 64)."
        )
    layers, heads = map(int, name.split("-"))
    return {"layers": layers, "heads": heads, "head_dim": 64}


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Shape and numerics of the decoder; its width is `heads * head_dim`.

    Where the paper is silent, the default is what most would take for granted, or what suits its
    data; each says which.

    Attributes:
      vocab: number of token ids.
      window: tokens a training sequence feeds to the model.
      layers: number of blocks.
      heads: attention heads a block.
      head_dim: width of a head, even because rotary positions turn pairs.
      variant: one of `VARIANTS`.
      kv_heads: heads of keys and values, each shared by as many heads of queries; 0 is `heads`.
      mlp_width: hidden width of an MLP; 0 is four times the model's width or, where it is gated,
        8/3 of it rounded up to whole heads, which makes as many parameters.
      experts: MLPs of a block, of which each token takes some; 0 is the variant's own number.
      experts_per_token: how many; Mixtral's 2.
      balance: weight of the loss that keeps experts equally busy; Mixtral's.
      qk_norm: whether queries and keys are normalised (RMS) within each head.
      logit_cap: logits are kept within ± this by a tanh, as in Gemma 2; 0 leaves them alone.
      tied: whether the head shares the embedding. Off: with a closed vocabulary of some hundred
        words the head is a sliver of the parameters, and a shared one must serve two roles.
      dropout: of embeddings and of what each half of a block adds, as in GPT-2. Off: no training
        data is seen twice.
      positions: the most that texts may take, answers included. Rotary angles set no limit of
        their own; 2048 is how far the paper generates.
      rotary_base: base of the geometric series of rotary wavelengths; 10,000 as RoFormer has it.
      norm_eps: added to the variance in normalisation; GPT-2's value.
      init_std: deviation of initial weights; GPT-2's value, its residual projections smaller.
      dtype: dtype of activations, `float32` or `bfloat16`; masters and loss stay float32.
      scan: whether layers are one program run again and again, which compiles sooner, or written
        out one after the other, which runs a little faster. Parameters are the same for both.
      remat: what the backward pass computes again instead of reading it from memory: `none` of
        it, all but products with kernels (`dots`), or `full` blocks. Where `mesh.fsdp` divides
        the parameters, `none` is `dots`.
      kernel: how attention is computed: `blocks` of queries by XLA, `cudnn`'s or TPU's `splash`
        flash attention; `auto` is the one for the machine.

    Raises:
      ValueError: a field is out of its range.
    """

    vocab: int
    window: int
    layers: int
    heads: int
    head_dim: int
    variant: str = "gpt2"
    kv_heads: int = 0
    mlp_width: int = 0
    experts: int = 0
    experts_per_token: int = 2
    balance: float = 0.02
    qk_norm: bool = False
    logit_cap: float = 0.0
    tied: bool = False
    dropout: float = 0.0
    positions: int = 2048
    rotary_base: float = 10000.0
    norm_eps: float = 1e-5
    init_std: float = 0.02
    dtype: str = "float32"
    scan: bool = False
    remat: str = "none"
    kernel: str = "auto"

    def __post_init__(self) -> None:
        for name in ("vocab", "window", "layers", "heads", "head_dim", "experts_per_token"):
            if getattr(self, name) < 1:
                raise ValueError(f"model.{name} is {getattr(self, name)}; it must be at least 1.")
        for name in ("kv_heads", "mlp_width", "experts", "balance", "logit_cap"):
            if getattr(self, name) < 0:
                value = getattr(self, name)
                raise ValueError(f"model.{name} is {value}; it must not be negative.")
        for name, allowed in (
            ("variant", tuple(VARIANTS)),
            ("dtype", _DTYPES),
            ("remat", _REMAT),
            ("kernel", _KERNELS),
        ):
            if getattr(self, name) not in allowed:
                value = getattr(self, name)
                raise ValueError(f"model.{name} is {value!r}; it must be one of {allowed}.")
        if self.head_dim % 2:
            raise ValueError(f"model.head_dim is {self.head_dim}; it must be even.")
        if self.heads % self.shared_heads:
            raise ValueError(
                f"model.kv_heads is {self.kv_heads}; it must divide model.heads, {self.heads}."
            )
        if self.mixture < self.experts_per_token and self.mixture > 1:
            raise ValueError(
                f"model.experts_per_token is {self.experts_per_token}; "
                f"it must be at most the number of experts, {self.mixture}."
            )
        if self.window > self.positions:
            raise ValueError(
                f"the window (train.window) is {self.window}; it must be at most model.positions, "
                f"{self.positions}."
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"model.dropout is {self.dropout}; it must be in [0, 1).")
        if self.rotary_base <= 1:
            raise ValueError(f"model.rotary_base is {self.rotary_base}; it must be above 1.")
        for name in ("norm_eps", "init_std"):
            if getattr(self, name) <= 0:
                raise ValueError(f"model.{name} is {getattr(self, name)}; it must be above 0.")

    @property
    def family(self) -> Variant:
        """What the variant decides."""
        return VARIANTS[self.variant]

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return self.heads * self.head_dim

    @property
    def shared_heads(self) -> int:
        """Heads of keys and values."""
        return self.kv_heads or self.heads

    @property
    def mixture(self) -> int:
        """MLPs of a block; 1 is an ordinary one."""
        return self.experts or self.family.experts

    @property
    def hidden(self) -> int:
        """Hidden width of an MLP."""
        if self.mlp_width:
            return self.mlp_width
        if not self.family.gated:
            return 4 * self.width
        return -(-8 * self.heads // 3) * self.head_dim

    @property
    def residual_std(self) -> float:
        """GPT-2's deviation for projections onto the residual stream, whose sum keeps scale."""
        return self.init_std / (2 * self.layers) ** 0.5
