"""What Hugging Face is given, and what comes back from it."""

from typing import Any

import jax
import numpy as np
import pytest
from test_variants import config_of, params_of

from physlm.architecture import VARIANTS
from physlm.huggingface import inverse, mapping

# What no published class has.
OWN: list[tuple[str, dict[str, Any]]] = [
    ("gpt2", {"qk_norm": True}),
    ("gemma", {"qk_norm": True}),
    ("mixtral", {"qk_norm": True}),
    ("gpt2", {"kv_heads": 2}),
    ("llama", {"logit_cap": 30.0}),
    ("llama", {"rotary_fraction": 0.5}),
    ("gpt2", {"rotary_fraction": 0.0}),
    ("gpt2", {"experts": 4}),
    ("gemma", {"experts": 4}),
    ("mixtral", {"experts": 1}),
    ("gpt2", {"canon": "ABCD"}),
    ("llama", {"canon": "AC"}),
]


def test_our_own_class_is_taken_where_no_published_one_will_do() -> None:
    for variant in VARIANTS:
        assert not mapping.is_own(config_of(variant))
        assert "auto_map" not in mapping.hf_config(config_of(variant))
    for variant, changes in OWN:
        config = config_of(variant, **changes)
        assert mapping.is_own(config)
        assert mapping.hf_config(config)["architectures"] == ["PhyslmForCausalLM"]


def test_import_is_the_inverse_of_export() -> None:
    """Also where tensors are joined, turned about, or moved by a constant."""
    for variant, changes in [*((v, {}) for v in VARIANTS), ("gemma", {"tied": True}), *OWN]:
        config = config_of(variant, **changes)
        ours = params_of(config)
        tensors = mapping.state_dict(config, ours)
        back = inverse.params(config, tensors)
        assert jax.tree.structure(back) == jax.tree.structure(ours)
        for (path, want), got in zip(
            jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(back), strict=True
        ):
            np.testing.assert_allclose(got, want, atol=1e-7, err_msg=str((variant, path)))


def test_tensors_that_do_not_fit_are_refused() -> None:
    config = config_of("llama")
    tensors = mapping.state_dict(config, params_of(config))
    first = sorted(tensors)[0]
    for changed, sentence in [
        ({n: x for n, x in tensors.items() if n != first}, f"the model lacks the tensor {first}."),
        ({**tensors, "a.b": tensors[first]}, "the model has no place for the tensor a.b."),
        (
            {**tensors, "model.norm.weight": np.zeros(3, np.float32)},
            "the tensor model.norm.weight has the shape [3]; it must be [32].",
        ),
    ]:
        with pytest.raises(ValueError) as refused:
            inverse.params(config, changed)
        assert str(refused.value) == sentence


def test_every_parameter_is_exported_once() -> None:
    for variant in VARIANTS:
        for tied in (False, True):
            config = config_of(variant, tied=tied)
            tensors = mapping.state_dict(config, params_of(config))
            sizes = {id(x): x.size for x in tensors.values()}
            leaves = jax.tree.leaves(params_of(config))
            assert sum(sizes.values()) == sum(leaf.size for leaf in leaves)
            assert all(x.dtype == np.float32 for x in tensors.values())
            assert mapping.hf_config(config)["tie_word_embeddings"] == tied
