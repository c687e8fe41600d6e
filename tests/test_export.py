"""What Hugging Face is given, and what it has no place for."""

import functools
from typing import Any

import jax
import numpy as np
import pytest
from test_variants import config_of, params_of

from physlm import export
from physlm.architecture import VARIANTS


@pytest.mark.parametrize(
    ("variant", "changes", "sentence"),
    [
        (
            "gpt2",
            {"qk_norm": True},
            "model.qk_norm is True; it must be False for Hugging Face, where no gpt2 has it.",
        ),
        (
            "gemma",
            {"qk_norm": True},
            "model.qk_norm is True; it must be False for Hugging Face, where no gemma has it.",
        ),
        (
            "mixtral",
            {"qk_norm": True},
            "model.qk_norm is True; it must be False for Hugging Face, where no mixtral has it.",
        ),
        (
            "gpt2",
            {"kv_heads": 2},
            "model.kv_heads is 2; it must be 0 or model.heads, 4, for Hugging Face's gpt2.",
        ),
        (
            "llama",
            {"logit_cap": 30.0},
            "model.logit_cap is 30.0; it must be 0 for Hugging Face.",
        ),
        (
            "gpt2",
            {"experts": 4},
            "model.experts is 4; it must be 0 or 1 for Hugging Face's gpt2.",
        ),
        (
            "gemma",
            {"experts": 4},
            "model.experts is 4; it must be 0 or 1 for Hugging Face's gemma.",
        ),
        (
            "mixtral",
            {"experts": 1},
            "model.experts is 1; it must be 0 or above 1 for Hugging Face's mixtral.",
        ),
    ],
)
def test_what_hugging_face_has_not_is_refused(
    variant: str, changes: dict[str, Any], sentence: str
) -> None:
    config = config_of(variant, **changes)
    for refusing in (export.hf_config, functools.partial(export.state_dict, params={})):
        with pytest.raises(ValueError) as refused:
            refusing(config)
        assert str(refused.value) == sentence


def test_every_parameter_is_exported_once() -> None:
    for variant in VARIANTS:
        for tied in (False, True):
            config = config_of(variant, tied=tied)
            tensors = export.state_dict(config, params_of(config))
            sizes = {id(x): x.size for x in tensors.values()}
            leaves = jax.tree.leaves(params_of(config))
            assert sum(sizes.values()) == sum(leaf.size for leaf in leaves)
            assert all(x.dtype == np.float32 for x in tensors.values())
            assert export.hf_config(config)["tie_word_embeddings"] == tied
