"""Adapters hold against PEFT's, on the same exported weights: loss and gradients."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

pytest.importorskip("peft", reason="parity needs peft, the extra `parity`")
from test_parity import CONFIG, _at_random, _random, _theirs, torch

from physlm import model
from physlm.adaptation import Adaptation, AdaptationConfig

import peft  # isort: skip

ADAPTED = Adaptation(AdaptationConfig("lora", rank=3, alpha=5.0))


def test_loss_and_gradients_are_pefts(tmp_path: pathlib.Path) -> None:
    config = dataclasses.replace(CONFIG, variant="llama", kv_heads=2)
    frozen = _random(config)
    trained, _ = ADAPTED.split(frozen, config, jax.random.key(1))
    leaves, tree = jax.tree.flatten(trained)
    rng = np.random.default_rng(3)
    leaves = [jnp.asarray(0.2 * rng.standard_normal(leaf.shape), jnp.float32) for leaf in leaves]
    trained = jax.tree.unflatten(tree, leaves)
    tokens = _at_random()

    @jax.jit
    def compute(trained: model.Params) -> tuple[jax.Array, model.Params]:
        def loss(trained: model.Params) -> jax.Array:
            logits = model.apply(config, ADAPTED.join(trained, frozen), tokens[:, :-1])
            nll = optax.losses.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
            return nll.mean()

        return jax.value_and_grad(loss)(trained)

    ours, grads = compute(trained)
    theirs = peft.get_peft_model(
        _theirs(config, frozen, tmp_path),
        peft.LoraConfig(
            r=3,
            lora_alpha=5.0,
            target_modules=["q_proj", "v_proj", "embed_tokens"],
            # There α is scaled by the rank of each, as here.
            rank_pattern={"embed_tokens": 6},
        ),
    )
    # What they have for each of our factors, of a layer.
    inner = theirs.base_model.model.model
    embed = inner.embed_tokens
    pairs = [
        ("embed/embedding/a", None, embed.lora_embedding_A["default"]),
        ("embed/embedding/b", None, embed.lora_embedding_B["default"]),
    ]
    for layer, block in enumerate(inner.layers):
        for name, module in (("query", block.self_attn.q_proj), ("value", block.self_attn.v_proj)):
            path = f"blocks/attention/{name}/kernel"
            pairs.append((f"{path}/a", layer, module.lora_A["default"].weight))
            pairs.append((f"{path}/b", layer, module.lora_B["default"].weight))

    def there(tree: model.Params, path: str, layer: int | None) -> np.ndarray:
        leaf = tree["lora"]
        for part in path.split("/"):
            leaf = leaf[part]
        one = np.asarray(leaf if layer is None else leaf[layer])
        rank = one.shape[-1] if path.endswith("/a") else one.shape[0]
        return (one.reshape(-1, rank) if path.endswith("/a") else one.reshape(rank, -1)).T

    with torch.no_grad():
        for path, layer, parameter in pairs:
            parameter.copy_(torch.tensor(there(trained, path, layer)))
    text = torch.tensor(tokens, dtype=torch.long)
    loss = torch.nn.functional.cross_entropy(
        theirs(input_ids=text[:, :-1]).logits.flatten(0, 1), text[:, 1:].flatten()
    )
    loss.backward()
    assert float(ours) == pytest.approx(loss.item(), rel=1e-5)
    found = [there(grads, path, layer) for path, layer, _ in pairs]
    largest = max(np.abs(one).max() for one in found)
    assert len(pairs) == 2 + 4 * config.layers and largest > 1e-3
    for (path, _, parameter), one in zip(pairs, found, strict=True):
        np.testing.assert_allclose(
            one, parameter.grad.numpy(), atol=2e-5 * largest, rtol=1e-3, err_msg=path
        )
