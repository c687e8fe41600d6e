"""The variants hold against Hugging Face's own: logits, loss, gradients and balance of experts."""

import dataclasses
import functools
import json
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from data_gen import keys
from data_gen.keys import Purpose
from data_gen.solutions.mistakes import Mistakes
from data_gen.windows.configuration import Windows
from data_gen.windows.stream import segments
from physlm import model
from physlm.architecture import ModelConfig
from physlm.decoding import engine
from physlm.decoding.beam import Beam
from physlm.decoding.sampling import Greedy
from physlm.experiments import config as config_lib
from physlm.huggingface.mapping import hf_config, is_own, state_dict

# Of transformers 5, those whose GPT-NeoX calls its head `lm_head`.
WHY = "parity needs torch and transformers 5.14, the extra `parity`"
torch = pytest.importorskip("torch", reason=WHY)
transformers = pytest.importorskip("transformers", minversion="5.14", reason=WHY)

from physlm.huggingface.remote.configuration_physlm import PhyslmConfig  # noqa: E402
from physlm.huggingface.remote.modeling_physlm import PhyslmForCausalLM  # noqa: E402

# So little is to be computed that threads would wait for each other most of the time.
torch.set_num_threads(1)

SETTINGS = config_lib.resolve(config_lib.base("smoke"))
WINDOW, ROWS = 64, 4

# Nothing is at its default of either side: not the series of angles, nor epsilon.
CONFIG = ModelConfig(
    vocab=SETTINGS.model.vocab,
    window=WINDOW,
    layers=3,
    heads=4,
    head_dim=8,
    init_std=0.2,
    rotary_base=500.0,
    norm_eps=3e-3,
    positions=96,
)
MIXTRAL = {"variant": "mixtral", "experts": 4, "mlp_width": 40}
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "gpt2": ({"variant": "gpt2"}, "GPTNeoX"),
    "gpt2-half-turned": ({"variant": "gpt2", "rotary_fraction": 0.5}, "GPTNeoX"),
    "gpt2-tied": ({"variant": "gpt2", "tied": True, "mlp_width": 56}, "GPTNeoX"),
    "llama-shared": ({"variant": "llama", "kv_heads": 2}, "Llama"),
    "llama-tied": ({"variant": "llama", "tied": True, "mlp_width": 56}, "Llama"),
    "llama-normed": ({"variant": "llama", "qk_norm": True, "kv_heads": 2}, "Qwen3"),
    "gemma": ({"variant": "gemma", "kv_heads": 1}, "Gemma"),
    "gemma-tied": ({"variant": "gemma", "tied": True}, "Gemma"),
    "mixtral": (MIXTRAL, "Mixtral"),
    "mixtral-shared": ({**MIXTRAL, "kv_heads": 2, "tied": True}, "Mixtral"),
    "own-gpt2": ({"canon": "ABCD", "qk_norm": True, "kv_heads": 2, "logit_cap": 3.0}, "Physlm"),
    "own-llama-unturned": (
        {"variant": "llama", "rotary_fraction": 0.0, "canon": "AC", "canon_width": 3},
        "Physlm",
    ),
    "own-gpt2-experts": ({"experts": 4, "tied": True}, "Physlm"),
    "own-llama": ({"variant": "llama", "canon": "ABCD", "rotary_fraction": 0.5}, "Physlm"),
    "own-gemma": ({"variant": "gemma", "canon": "BD", "qk_norm": True, "tied": True}, "Physlm"),
    "own-mixtral": ({**MIXTRAL, "canon": "ABC"}, "Physlm"),
}


class Case(NamedTuple):
    """A variant here, with random parameters, and there."""

    config: ModelConfig
    params: model.Params
    theirs: Any


def _random(config: ModelConfig) -> model.Params:
    """Parameters of which no bias is 0 and no scale 1."""
    shapes = jax.eval_shape(functools.partial(model.init, config), jax.random.key(0))
    rng = np.random.default_rng(1)
    narrow = {"attention/out/kernel", "mlp/down/kernel", "mixture/down/kernel"}

    def drawn(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
        names = [key.key for key in path]
        std = config.residual_std if "/".join(names[1:]) in narrow else config.init_std
        centre = 1.0 if names[-1] == "scale" else 0.0
        return jnp.asarray(centre + std * rng.standard_normal(leaf.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(drawn, shapes)


def _theirs(config: ModelConfig, params: model.Params, directory: Any) -> Any:
    """The module that transformers makes of the file, with our parameters."""
    content = hf_config(config)
    if is_own(config):
        theirs = PhyslmForCausalLM(PhyslmConfig(**content)).eval()
    else:
        (directory / "config.json").write_text(json.dumps(content))
        loaded = transformers.AutoConfig.from_pretrained(directory)
        kind = getattr(transformers, loaded.architectures[0])
        theirs = kind._from_config(loaded, attn_implementation="eager").eval()
    tensors = {name: torch.tensor(x) for name, x in state_dict(config, params).items()}
    theirs.load_state_dict(tensors, strict=True)
    return theirs


@pytest.fixture(scope="module")
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    changes, architecture = CASES[request.param]
    config = dataclasses.replace(CONFIG, **changes)
    params = _random(config)
    theirs = _theirs(config, params, tmp_path_factory.mktemp("theirs"))
    assert type(theirs).__name__ == f"{architecture}ForCausalLM"
    return Case(config, params, theirs)


every_case = pytest.mark.parametrize("case", list(CASES), indirect=True)


@functools.cache
def _documents() -> np.ndarray:
    """Windows [B, W + 1] of problems whose solutions have mistakes in them."""
    # The first of a stream's, without the five hundred that it would make at once.
    packed = segments(
        keys.root(0, Purpose.TRAINING),
        np.zeros(1, np.int32),
        spec=SETTINGS.data,
        mistakes=Mistakes(rate=0.5),
        windows=Windows(WINDOW),
    )
    return np.asarray(packed.tokens_KxS)[0, :ROWS]


def _at_random() -> np.ndarray:
    rng = np.random.default_rng(2)
    return rng.integers(0, CONFIG.vocab, (ROWS, WINDOW + 1), dtype=np.int32)


@functools.partial(jax.jit, static_argnums=0)
def _ours(
    config: ModelConfig, params: model.Params, tokens_BxS: jax.Array
) -> tuple[jax.Array, jax.Array, model.Params]:
    """Logits, the loss of a training step whose tokens all weigh the same, and its gradients."""

    def loss_of(params: model.Params) -> tuple[jax.Array, jax.Array]:
        logits_BxWxV = model.apply(config, params, tokens_BxS[:, :-1])
        nll_BxW = optax.losses.softmax_cross_entropy_with_integer_labels(
            logits_BxWxV, tokens_BxS[:, 1:]
        )
        return nll_BxW.mean(), logits_BxWxV

    (loss, logits_BxWxV), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
    return logits_BxWxV, loss, grads


@pytest.mark.parametrize("tokens", [_at_random, _documents], ids=["random", "documents"])
@every_case
def test_logits_and_loss_are_theirs(case: Case, tokens: Any) -> None:
    tokens_BxS = tokens()
    with torch.no_grad():
        given = torch.tensor(tokens_BxS).long()
        # Labels are shifted there: the last token is read, and predicts nothing.
        out = case.theirs(input_ids=given, labels=given)
    logits, loss, _ = _ours(case.config, case.params, tokens_BxS)
    assert 1 < jnp.abs(logits).max() < 20
    np.testing.assert_allclose(logits, out.logits[:, :-1], atol=1e-4)
    assert float(loss) == pytest.approx(float(out.loss), abs=1e-5)


@every_case
def test_gradients_are_theirs(case: Case) -> None:
    tokens_BxS = _documents()
    grads = _ours(case.config, case.params, tokens_BxS)[2]
    # What is exported is linear in the parameters, but for the 1 that Gemma's scales are less.
    zeros = state_dict(case.config, jax.tree.map(np.zeros_like, grads))
    ours = {name: x - zeros[name] for name, x in state_dict(case.config, grads).items()}
    given = torch.tensor(tokens_BxS).long()
    case.theirs.zero_grad()
    case.theirs(input_ids=given, labels=given).loss.backward()
    # A tied head is no parameter of its own.
    theirs = {name: x.grad.numpy() for name, x in case.theirs.named_parameters()}
    assert set(ours) - set(theirs) == ({"lm_head.weight"} if case.config.tied else set())
    for name, want in theirs.items():
        largest = np.abs(want).max()
        assert largest > 1e-5, name
        np.testing.assert_allclose(ours[name], want, atol=1e-4 * largest, rtol=0, err_msg=name)


@pytest.mark.parametrize("case", ["llama-shared"], indirect=True)
def test_capped_logits_are_theirs_by_a_tanh(case: Case) -> None:
    tokens_BxS, cap = _documents(), 2.0
    with torch.no_grad():
        logits = case.theirs(input_ids=torch.tensor(tokens_BxS).long()).logits.numpy()
    capped = _ours(dataclasses.replace(case.config, logit_cap=cap), case.params, tokens_BxS)[0]
    np.testing.assert_allclose(capped, cap * np.tanh(logits / cap)[:, :-1], atol=1e-4)


def test_balance_of_experts_is_theirs(tmp_path: Any) -> None:
    # Theirs is of all tokens of all layers at once, ours of each sequence in each layer.
    config = dataclasses.replace(CONFIG, **MIXTRAL, layers=1)
    params = _random(config)
    theirs, apply = (
        _theirs(config, params, tmp_path),
        jax.jit(model.apply_with_loss, static_argnums=0),
    )
    sequences = _documents()[:, :-1]
    want = []
    for tokens_W in sequences:
        with torch.no_grad():
            given = torch.tensor(tokens_W[None]).long()
            out = theirs(input_ids=given, output_router_logits=True)
        balance = transformers.models.mixtral.modeling_mixtral.load_balancing_loss_func
        want.append(float(balance(out.router_logits, config.mixture, config.experts_per_token)))
        assert float(out.aux_loss) == pytest.approx(want[-1], abs=1e-6)
    alone = [float(apply(config, params, tokens_W[None])[1]) for tokens_W in sequences]
    np.testing.assert_allclose(alone, want, atol=1e-5)
    assert np.std(want) > 1e-3
    together = apply(config, params, sequences)[1]
    assert float(together) == pytest.approx(sum(want), abs=1e-4)


# The published Canon layers stand in a Llama; here they are PyTorch's own convolutions, put where
# the paper puts them.
CANON = dataclasses.replace(
    CONFIG, variant="llama", kv_heads=2, mlp_width=56, canon="ABCD", canon_width=4
)


def _hook(kernel_WxC: np.ndarray) -> Any:
    kernel_WxC = kernel_WxC.reshape(len(kernel_WxC), -1)
    width, channels = kernel_WxC.shape
    convolution = torch.nn.Conv1d(
        channels, channels, width, groups=channels, bias=False, padding=width - 1
    )
    # PyTorch's last weight is that of the position itself.
    convolution.weight.data = torch.tensor(kernel_WxC[::-1].T[:, None].copy())

    def add(module: Any, inputs: Any, output: Any) -> Any:
        added = convolution(output.transpose(1, 2))[..., : output.shape[1]]
        return output + added.transpose(1, 2)

    return add


def test_canon_layers_are_convolutions_where_the_paper_has_them(tmp_path: Any) -> None:
    params = _random(CANON)
    plain = dataclasses.replace(CANON, canon="")
    bare = jax.tree.map(lambda leaf: leaf, params)
    blocks = bare["blocks"]
    kernels = {"canon_attention": "input_layernorm", "canon_mlp": "post_attention_layernorm"}
    inside = {
        "attention": {"canon_query": "q_proj", "canon_key": "k_proj", "canon_value": "v_proj"},
        "mlp": {"canon_up": "up_proj", "canon_gate": "gate_proj"},
    }
    places = [(blocks.pop(ours), theirs) for ours, theirs in kernels.items()]
    for part, names in inside.items():
        module = "self_attn" if part == "attention" else part
        places += [(blocks[part].pop(a), f"{module}.{b}") for a, b in names.items()]
    theirs = _theirs(plain, bare, tmp_path)
    for leaves, name in places:
        for layer, kernel in enumerate(np.asarray(leaves["kernel"])):
            theirs.get_submodule(f"model.layers.{layer}.{name}").register_forward_hook(
                _hook(kernel)
            )
    rng = np.random.default_rng(2)
    tokens = rng.integers(0, CANON.vocab, (ROWS, WINDOW))
    with torch.no_grad():
        want = theirs(torch.tensor(tokens)).logits.numpy()
    got = jax.jit(model.apply, static_argnums=0)(CANON, params, jnp.asarray(tokens, jnp.int32))
    np.testing.assert_allclose(got, want, atol=1e-4)
    without = jax.jit(model.apply, static_argnums=0)(plain, bare, jnp.asarray(tokens, jnp.int32))
    assert np.abs(without - want).max() > 0.1


@pytest.mark.parametrize(
    "case", ["gpt2", "llama-shared", "llama-normed", "gemma", "mixtral"], indirect=True
)
def test_greedy_and_beams_write_what_theirs_do(case: Case) -> None:
    """The same tokens and scores, with texts that end and texts that are cut off."""
    prompts_BxP = np.random.default_rng(5).integers(0, case.config.vocab, (6, 9), dtype=np.int32)
    new, lengths = 12, []
    settings = {"strategy": Greedy(), "max_new_tokens": new}
    said = engine.decode(
        case.config, case.params, prompts_BxP, np.full(6, 9), stop=-1, **settings
    ).tokens_NxSxM
    # A token that some text really says, and no prompt.
    stop = int(said[0, 0, 5])
    prompts_BxP[prompts_BxP == stop] = (stop + 1) % case.config.vocab
    for beams, strategy in ((1, Greedy()), (4, Beam(beams=4))):
        with torch.no_grad():
            theirs = case.theirs.generate(
                torch.tensor(prompts_BxP).long(),
                attention_mask=torch.ones(prompts_BxP.shape, dtype=torch.long),
                num_beams=beams,
                do_sample=False,
                max_new_tokens=new,
                eos_token_id=stop,
                pad_token_id=stop,
                output_scores=True,
                return_dict_in_generate=True,
            )
        settings["strategy"] = strategy
        ours = engine.decode(
            case.config, case.params, prompts_BxP, np.full(6, 9), stop=stop, **settings
        )
        wanted = theirs.sequences[:, 9:].numpy()
        wanted = np.pad(wanted, ((0, 0), (0, new - wanted.shape[1])), constant_values=stop)
        np.testing.assert_array_equal(ours.tokens_NxSxM[:, 0], wanted)
        if beams > 1:
            scores = theirs.sequences_scores.numpy()
            np.testing.assert_allclose(ours.score_NxS[:, 0], scores, atol=1e-4)
        lengths += ours.length_NxS[:, 0].tolist()
    assert len(set(lengths)) > 1
