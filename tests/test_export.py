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


def _read(content: dict[str, Any]) -> dict[str, Any]:
    return inverse.settings_of({**content, "initializer_range": 0.02})


def test_a_foreign_setting_that_changes_the_function_is_refused() -> None:
    contents = {kind: mapping.hf_config(config_of(kind)) for kind in VARIANTS}
    contents["qwen3"] = mapping.hf_config(config_of("llama", qk_norm=True))
    changes: list[tuple[str, dict[str, Any], str]] = [
        ("qwen3", {"use_sliding_window": True}, "use_sliding_window is True"),
        ("qwen3", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types has"),
        ("qwen3", {"attention_bias": True}, "attention_bias is True"),
        ("mixtral", {"sliding_window": 8}, "sliding_window is 8"),
        ("llama", {"attention_bias": True}, "attention_bias is True; it must be False"),
        ("llama", {"mlp_bias": True}, "mlp_bias is True"),
        ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "rope_scaling has"),
        ("llama", {"rope_scaling": {"type": "dynamic"}}, "rope_scaling has the type 'dynamic'"),
        ("llama", {"partial_rotary_factor": 0.5}, "rotary"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantization_config is"),
        ("gemma", {"use_bidirectional_attention": True}, "use_bidirectional_attention is True"),
        ("gemma", {"final_logit_softcapping": 30.0}, "final_logit_softcapping is 30.0"),
        ("gemma", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping is 50.0"),
        ("gpt2", {"attention_bias": False}, "attention_bias is False; it must be True"),
        ("gpt2", {"use_parallel_residual": True}, "use_parallel_residual is True"),
    ]
    for kind, change, sentence in changes:
        with pytest.raises(ValueError) as refused:
            _read({**contents[kind], **change})
        said = str(refused.value)
        assert sentence in said or "architectures" in said, (kind, change, said)
    # What is not said is what the class takes it for.
    for name in ("use_parallel_residual", "hidden_act"):
        unsaid = {key: value for key, value in contents["gpt2"].items() if key != name}
        with pytest.raises(ValueError, match=name):
            _read(unsaid)
    neutral: list[tuple[str, dict[str, Any]]] = [
        ("qwen3", {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 1}),
        ("qwen3", {"layer_types": ["full_attention"] * 2}),
        ("mixtral", {"sliding_window": None}),
        ("llama", {"attention_bias": False, "mlp_bias": False, "rope_scaling": None}),
        ("gpt2", {"attention_bias": True, "classifier_dropout": 0.1}),
        ("gemma", {"use_bidirectional_attention": None}),
    ]
    for kind, change in neutral:
        assert _read({**contents[kind], **change}) == _read(contents[kind])


def test_what_a_stock_file_leaves_to_be_worked_out_is() -> None:
    """Coefficients of training, widths that are null, and a head by its older name."""
    content = mapping.hf_config(config_of("mixtral"))
    assert _read({**content, "router_aux_loss_coef": 0.001})["balance"] == 0.001
    assert _read({**content, "head_dim": None}) == _read(content)
    gemma = mapping.hf_config(config_of("gemma", tied=True))
    assert _read({key: x for key, x in gemma.items() if key != "tie_word_embeddings"})["tied"]
    content = mapping.hf_config(config_of("gpt2", rotary_fraction=0.25))
    del content["rope_parameters"]["partial_rotary_factor"]
    assert _read(content)["rotary_fraction"] == 0.25
    config = config_of("gpt2")
    ours = params_of(config)
    tensors = mapping.state_dict(config, ours)
    tensors["embed_out.weight"] = tensors.pop("lm_head.weight")
    back = inverse.params(config, tensors)
    np.testing.assert_array_equal(back["head"]["kernel"], ours["head"]["kernel"])


def test_architectures_that_are_no_list_are_refused() -> None:
    content = mapping.hf_config(config_of("llama"))
    with pytest.raises(ValueError) as refused:
        _read({**content, "architectures": "LlamaForCausalLM"})
    assert str(refused.value) == (
        "architectures is 'LlamaForCausalLM'; it must be a list, as ['LlamaForCausalLM']"
    )
