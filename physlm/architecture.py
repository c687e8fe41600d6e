"""The configuration of the decoder: its variant, size and numerics."""

import dataclasses
import re
from typing import NamedTuple

from data_gen import settings
from data_gen.settings import RefusedError

# The places of Canon layers.
CANON = "ABCD"
CANON_INITS = ("zero", "uniform")

# What `jax.checkpoint` policies call the products of activations and kernels.
PRODUCT = "product"


class Variant(NamedTuple):
    """The properties of a published model family that are not settings of their own."""

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
      RefusedError: it is not written so.
    """
    if not re.fullmatch(r"[1-9]\d*-[1-9]\d*", name):
        allowed = "layers-heads, as 12-12 (heads of width 64)"
        raise RefusedError("model.size", name, allowed)
    layers, heads = map(int, name.split("-"))
    return {"layers": layers, "heads": heads, "head_dim": 64}


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Shape and numerics of the decoder; its width is `heads * head_dim`.

    Where the paper is silent, the default is what most would take for granted, or what suits its
    data; each says which.

    Attributes:
      vocab: number of token ids.
      window: tokens that a training sequence feeds to the model.

    Raises:
      RefusedError: a field has a value that is not allowed.
    """

    vocab: int
    window: int
    layers: int = settings.whole(12, "Number of blocks.", low=1)
    heads: int = settings.whole(12, "Attention heads of a block.", low=1)
    head_dim: int = settings.whole(
        64, "Width of a head, even because rotary positions turn pairs.", low=2
    )
    variant: str = settings.choice(
        "gpt2",
        "The family whose normalisation, activation, biases and MLP the decoder has; gpt2 is the "
        "paper's, with rotary positions instead of learned ones.",
        tuple(VARIANTS),
    )
    kv_heads: int = settings.whole(
        0, "Heads of keys and values, each shared by as many heads of queries; 0 is all heads."
    )
    mlp_width: int = settings.whole(
        0,
        "Hidden width of an MLP; 0 is four times the model's width or, where the MLP is gated, 8/3 "
        "of it rounded up to whole heads, which makes as many parameters.",
    )
    experts: int = settings.whole(
        0, "MLPs of a block, some of which each token takes; 0 is the variant's own number."
    )
    experts_per_token: int = settings.whole(
        2, "Experts that a token takes; Mixtral's number.", low=1
    )
    balance: float = settings.number(
        0.02, "Weight of the loss that keeps experts equally busy; Mixtral's.", at_least=0
    )
    qk_norm: bool = settings.flag(
        False, "Whether queries and keys are normalised (RMS) within each head."
    )
    logit_cap: float = settings.number(
        0.0,
        "Logits are kept between plus and minus this number by a tanh, as in Gemma 2; 0 leaves "
        "them alone.",
        at_least=0,
    )
    tied: bool = settings.flag(
        False,
        "Whether the head shares the embedding. With a closed vocabulary of some hundred words the "
        "head is a sliver of the parameters, and a shared one must serve two roles.",
    )
    dropout: float = settings.number(
        0.0,
        "Dropout of embeddings and of what each half of a block adds, as in GPT-2. Off by default: "
        "no training data is seen twice.",
        at_least=0,
        below=1,
    )
    positions: int = settings.whole(
        2048,
        "Tokens that a text may take at most, the answer included. Rotary angles set no limit of "
        "their own; 2048 is how far the paper generates.",
        low=1,
        decides=False,
    )
    rotary_base: float = settings.number(
        10000.0,
        "Base of the geometric series of rotary wavelengths; 10,000 as RoFormer has it.",
        above=1,
    )
    rotary_fraction: float = settings.number(
        1.0,
        "The part of a head that rotary positions turn, its first channels; 0 is attention without "
        "positions. The paper's is 1; Part 4.1 finds that fewer generalise better to longer texts "
        "where there are Canon layers.",
        at_least=0,
        at_most=1,
    )
    canon: str = settings.text(
        "",
        "Which Canon layers a block has (physlm.canon): A before attention, B on queries, keys and "
        "values, C before the MLP, D inside it. The paper's model has none.",
        f"letters of {CANON} in their order",
    )
    canon_width: int = settings.whole(
        4, "Positions that a Canon layer takes in, its own among them; Part 4.1's 4.", low=2
    )
    canon_init: str = settings.choice(
        "zero",
        "Initial weights of Canon layers: zero, so that a model begins as one without; or uniform "
        "within one over the root of canon_width, as in the published code.",
        CANON_INITS,
        added=True,
    )
    norm_eps: float = settings.number(
        1e-5, "Added to the variance in normalisation; GPT-2's value.", above=0
    )
    init_std: float = settings.number(
        0.02,
        "Deviation of initial weights; GPT-2's value. Residual projections begin smaller.",
        above=0,
    )
    dtype: str = settings.choice(
        "float32",
        "Type of activations; the weights that the optimizer changes and the loss stay float32.",
        ("float32", "bfloat16"),
    )
    scan: bool = settings.flag(
        False,
        "Whether layers are one program run again and again, which compiles sooner, or written out "
        "one after the other, which runs a little faster. Parameters are the same for both.",
        decides=False,
    )
    remat: str = settings.choice(
        "none",
        "What the backward pass computes again instead of reading it from memory: none of it, dots "
        "(all but products with kernels), or full blocks. Where mesh.fsdp divides the parameters, "
        "none is dots.",
        ("none", "dots", "full"),
        decides=False,
    )
    kernel: str = settings.choice(
        "auto",
        "How attention is computed: by XLA in blocks of queries, or by the flash attention of "
        "cudnn or of TPUs (splash); auto is the one for the machine.",
        ("auto", "blocks", "cudnn", "splash"),
        decides=False,
    )

    def __post_init__(self) -> None:
        settings.check(self)
        settings.check_whole("vocab", self.vocab, 1)
        settings.check_whole("window", self.window, 1)
        if self.head_dim % 2:
            raise RefusedError("head_dim", self.head_dim, "even")
        if self.heads % self.shared_heads:
            allowed = f"a divisor of heads, {self.heads}"
            raise RefusedError("kv_heads", self.kv_heads, allowed, ["heads"])
        if self.mixture < self.experts_per_token and self.mixture > 1:
            allowed = f"at most experts, {self.mixture}"
            raise RefusedError("experts_per_token", self.experts_per_token, allowed, ["experts"])
        if self.head_dim * self.rotary_fraction % 2:
            allowed = f"such that it turns whole pairs of the {self.head_dim} channels of a head"
            raise RefusedError("rotary_fraction", self.rotary_fraction, allowed)
        if self.canon != "".join(letter for letter in CANON if letter in self.canon):
            raise RefusedError("canon", self.canon, f"letters of {CANON} in their order")
        if "D" in self.canon and self.mixture > 1:
            raise RefusedError("canon", self.canon, "without D where a block has experts")
        if self.canon and self.canon_width > self.window:
            allowed = f"at most the window (train.window), {self.window}"
            raise RefusedError("canon_width", self.canon_width, allowed)
        if self.window > self.positions:
            allowed = f"at least the window (train.window), {self.window}"
            raise RefusedError("positions", self.positions, allowed)

    @property
    def family(self) -> Variant:
        """The properties of the variant's family."""
        return VARIANTS[self.variant]

    @property
    def width(self) -> int:
        """Width of the residual stream."""
        return self.heads * self.head_dim

    @property
    def shared_heads(self) -> int:
        """The number of key-value heads."""
        return self.kv_heads or self.heads

    @property
    def rotary_channels(self) -> int:
        """Channels of a head that rotary positions turn."""
        return round(self.head_dim * self.rotary_fraction)

    @property
    def mixture(self) -> int:
        """Experts of a block; 1 is an ordinary MLP."""
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
