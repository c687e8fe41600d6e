"""The second half of a block: an MLP, or a mixture of experts.

Array names as in `physlm.model`, and F: hidden units, E: experts, A: experts of a token, R: pairs
of a token and one of its experts.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P

from physlm.architecture import PRODUCT, ModelConfig
from physlm.canon import Canon, Neighbours
from physlm.sharding import FREE, constrain, manual_size


def _activation(config: ModelConfig, x: jax.Array) -> jax.Array:
    if config.family.activation == "silu":
        return jax.nn.silu(x)
    return jax.nn.gelu(x, approximate=True)


def _divided(hidden: jax.Array) -> jax.Array:
    """Hidden units [..., F], divided along `tensor`."""
    hidden = constrain(hidden, P(*(FREE,) * (hidden.ndim - 1), "tensor"))
    return checkpoint_name(hidden, PRODUCT)


class MLP(nnx.Module):
    """Two projections with an activation between them, or three where it is gated."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        def linear(inputs: int, outputs: int, std: float) -> nnx.Linear:
            return nnx.Linear(
                inputs,
                outputs,
                kernel_init=nnx.initializers.normal(std),
                use_bias=config.family.biases,
                dtype=jnp.dtype(config.dtype),
                rngs=rngs,
            )

        self.config = config
        self.up = linear(config.width, config.hidden, config.init_std)
        if config.family.gated:
            self.gate = linear(config.width, config.hidden, config.init_std)
        self.down = linear(config.hidden, config.width, config.residual_std)
        self.canon = "D" in config.canon
        if self.canon:
            place = P(None, None, "tensor")
            self.canon_up = Canon(config, "up", (config.hidden,), place, rngs=rngs)
            if config.family.gated:
                self.canon_gate = Canon(config, "gate", (config.hidden,), place, rngs=rngs)

    def __call__(self, x_BxTxD: jax.Array, neighbours: Neighbours) -> tuple[jax.Array, jax.Array]:
        """The output [B, T, D]; and a load-balancing loss of 0, since there are no experts."""
        if self.config.family.gated:
            # One product, so that along `tensor` its input's gradient is one all-reduce.
            kernels = (self.up.kernel[...], self.gate.kernel[...])
            kernel_Dx2xF = jnp.stack([k.astype(x_BxTxD.dtype) for k in kernels], axis=1)
            both = _divided(jnp.einsum("btd,dgf->btgf", x_BxTxD, kernel_Dx2xF))
            up, gate = both[:, :, 0], both[:, :, 1]
            if self.canon:
                up, gate = neighbours(self.canon_up, up), neighbours(self.canon_gate, gate)
            hidden = up * _activation(self.config, gate)
        else:
            up = _divided(self.up(x_BxTxD))
            if self.canon:
                up = neighbours(self.canon_up, up)
            hidden = _activation(self.config, up)
        return self.down(hidden), jnp.zeros((), jnp.float32)


class Mixture(nnx.Module):
    """A mixture of experts: a router gives each token the few MLPs that it scores highest.

    No token is dropped. The tokens of each expert are sorted together and multiplied with the
    kernels of that expert only. Mixtures have no biases.
    """

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        def kernels(inputs: int, outputs: int, std: float) -> _Kernels:
            return _Kernels((config.mixture, inputs, outputs), std, rngs=rngs)

        self.config = config
        self.router = nnx.Linear(
            config.width,
            config.mixture,
            use_bias=False,
            kernel_init=nnx.initializers.normal(config.init_std),
            rngs=rngs,
        )
        self.up = kernels(config.width, config.hidden, config.init_std)
        if config.family.gated:
            self.gate = kernels(config.width, config.hidden, config.init_std)
        self.down = kernels(config.hidden, config.width, config.residual_std)

    def __call__(self, x_BxTxD: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Applies to every token the experts that it is routed to.

        Returns:
          The output [B, T, D], and the load-balancing loss of Switch Transformers (arXiv
          2101.03961, equation 4). The loss is computed for each sequence alone and summed, so that
          it does not depend on which sequences share a device. A sequence that uses all experts
          equally has the loss `experts_per_token`.
        """
        config = self.config
        # The router's scores decide which experts a token goes to, so they are float32 throughout.
        logits_BxTxE = self.router(x_BxTxD.astype(jnp.float32))
        top_BxTxA, expert_BxTxA = jax.lax.top_k(logits_BxTxE, config.experts_per_token)
        share_BxTxA = jax.nn.softmax(top_BxTxA, axis=-1)

        rows_R, expert_R = x_BxTxD.reshape(-1, config.width), expert_BxTxA.reshape(-1)
        order_R = jnp.argsort(expert_R)
        sizes_E = jnp.bincount(expert_R, length=config.mixture)
        rows_RxD = rows_R[order_R // config.experts_per_token]

        def times(x: jax.Array, kernels: "_Kernels") -> jax.Array:
            return jax.lax.ragged_dot(x, kernels.kernel[...].astype(x.dtype), sizes_E)

        hidden_RxF = _divided(times(rows_RxD, self.up))
        if config.family.gated:
            hidden_RxF = _activation(config, _divided(times(rows_RxD, self.gate))) * hidden_RxF
        else:
            hidden_RxF = _activation(config, hidden_RxF)
        out_RxD = times(hidden_RxF, self.down) * share_BxTxA.reshape(-1)[order_R, None]
        back_R = jnp.argsort(order_R)
        out_BxTxAxD = out_RxD[back_R].reshape(*expert_BxTxA.shape, config.width)
        return out_BxTxAxD.sum(2).astype(x_BxTxD.dtype), _imbalance(logits_BxTxE, expert_BxTxA)


class _Kernels(nnx.Module):
    """One kernel for each expert."""

    def __init__(self, shape: tuple[int, int, int], std: float, *, rngs: nnx.Rngs):
        self.kernel = nnx.Param(nnx.initializers.normal(std)(rngs.params(), shape))


def _imbalance(logits_BxTxE: jax.Array, expert_BxTxA: jax.Array) -> jax.Array:
    experts = logits_BxTxE.shape[-1]
    taken_BxE = jax.nn.one_hot(expert_BxTxA, experts).sum(2).mean(1)
    shares_BxE = jax.nn.softmax(logits_BxTxE, axis=-1).mean(1)
    # Linear in the shares: each part of a divided sequence adds its own term to the sum.
    parts = manual_size("sequence")
    if parts > 1:
        taken_BxE = jax.lax.pmean(taken_BxE, "sequence")
    return experts * jnp.sum(taken_BxE * shares_BxE) / parts
