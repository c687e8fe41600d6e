"""What of a model is trained: parting and joining, gradients, cost; nothing frozen moves."""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict
from test_train import CONFIG, SPEED, Silent, Stream, distance, one_device, same

from data_gen.settings import RefusedError
from physlm import adaptation, metrics, model, optimizer, sharding, train
from physlm import step as step_lib
from physlm.adaptation import Adaptation, AdaptationConfig
from physlm.architecture import ModelConfig
from physlm.optimizer import OptimizerConfig
from physlm.step import Learning, TrainState
from physlm.train import Member, TrainConfig

ALL = "attention/(query|key|value|out)/kernel,mlp/(up|down)/kernel,embed/embedding,head/kernel"
LORA = Adaptation(AdaptationConfig("lora", rank=2))
EVERYWHERE = Adaptation(AdaptationConfig("lora", on=ALL, rank=2, alpha=3.0))
KEY = jax.random.key(7)
LOSS_AND_GRADS = jax.jit(
    functools.partial(step_lib.loss_and_grads, CONFIG, one_device()), static_argnames="learning"
)


def parent() -> model.Params:
    return model.init(CONFIG, jax.random.key(11))


def moved(adapted: Adaptation, config: ModelConfig = CONFIG) -> tuple[Any, Any]:
    """A model that is parted, with both factors of every adapter drawn at random."""
    trained, frozen = adapted.split(model.init(config, jax.random.key(11)), config, KEY)
    leaves, tree = jax.tree.flatten(trained)
    keys = jax.random.split(jax.random.key(5), len(leaves))
    leaves = [0.3 * jax.random.normal(k, leaf.shape) for k, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, leaves), frozen


@pytest.mark.parametrize(
    "adapted", [adaptation.WHOLE, LORA, EVERYWHERE], ids=["full", "lora", "all"]
)
def test_what_is_split_and_joined_is_the_model_to_the_bit(adapted: Adaptation) -> None:
    params = parent()
    joined = adapted.join(*adapted.split(params, CONFIG, KEY))
    assert jax.tree.structure(joined) == jax.tree.structure(params)
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), joined, params))


def test_a_matrix_gets_the_scaled_product_of_its_factors() -> None:
    config = dataclasses.replace(CONFIG, layers=2)
    trained, frozen = moved(EVERYWHERE, config)
    joined = flatten_dict(EVERYWHERE.join(trained, frozen), sep="/")
    factors, before = flatten_dict(trained["lora"], sep="/"), flatten_dict(frozen, sep="/")
    sums = {
        "blocks/attention/query/kernel": "ldr,lrhk->ldhk",
        "blocks/attention/out/kernel": "lhkr,lrd->lhkd",
        "blocks/mlp/up/kernel": "ldr,lrf->ldf",
        "embed/embedding": "vr,rd->vd",
        "head/kernel": "dr,rv->dv",
    }
    for path, letters in sums.items():
        product = np.einsum(letters, factors[f"{path}/a"], factors[f"{path}/b"])
        np.testing.assert_allclose(joined[path], before[path] + 1.5 * product, atol=1e-6)
    changed = {path for path in before if not np.array_equal(before[path], joined[path])}
    assert len(changed) == 8 == len(factors) // 2 and set(sums) < changed


@pytest.mark.parametrize("init", ["uniform", "normal"])
def test_factors_are_drawn_as_is_said(init: str) -> None:
    config = dataclasses.replace(CONFIG, heads=8, head_dim=32)
    adapted = Adaptation(AdaptationConfig("lora", rank=4, init=init))
    drawn = [
        flatten_dict(adapted.split(model.init(config, KEY), config, key)[0]["lora"], sep="/")
        for key in jax.random.split(KEY, 2)
    ]
    query, embed = "blocks/attention/query/kernel", "embed/embedding"
    first, second = (np.asarray(found[f"{query}/a"]) for found in drawn)
    assert (first != second).any() and not np.any(drawn[0][f"{query}/b"])
    if init == "uniform":
        assert 0.9 / 16 < np.abs(first).max() <= 1 / 16
    else:
        assert abs(first.std() - 1 / 4) < 0.03
    assert not np.any(drawn[0][f"{embed}/a"])
    assert abs(np.asarray(drawn[0][f"{embed}/b"]).std() - 1) < 0.05


def test_gradients_are_those_of_adapters_beside_the_products() -> None:
    """An independent model of one layer, in which nothing is joined."""
    config = dataclasses.replace(CONFIG, canon="", variant="llama", mlp_width=16)
    trained, frozen = moved(LORA, config)
    scale, factors = 1.0, trained["lora"]
    tokens = jax.random.randint(jax.random.key(2), (3, 9), 0, 16)

    def normal(x: jax.Array, norm: Any) -> jax.Array:
        size = jnp.sqrt((x**2).mean(-1, keepdims=True) + config.norm_eps)
        return x / size * norm["scale"].reshape(-1)

    def beside(x: jax.Array, kernel: jax.Array, pair: Any) -> jax.Array:
        low = x @ pair["a"][0]
        return jnp.einsum("btd,dhk->bthk", x, kernel[0]) + scale * jnp.einsum(
            "btr,rhk->bthk", low, pair["b"][0]
        )

    def loss(factors: Any) -> jax.Array:
        embed, block = factors["embed"]["embedding"], frozen["blocks"]
        rows = frozen["embed"]["embedding"][tokens[:, :-1]]
        x = rows + embed["a"][tokens[:, :-1]] @ embed["b"]
        h = normal(x, block["norm_attention"])
        own = factors["blocks"]["attention"]
        kernels = block["attention"]
        q = beside(h, kernels["query"]["kernel"], own["query"]["kernel"])
        k = jnp.einsum("btd,dhk->bthk", h, kernels["key"]["kernel"][0])
        v = beside(h, kernels["value"]["kernel"], own["value"]["kernel"])
        angle = jnp.arange(8)[:, None] * config.rotary_base ** (-jnp.arange(4) / 4)

        def turned(x: jax.Array) -> jax.Array:
            first, second = x[..., :4], x[..., 4:]
            cos, sin = (f(angle)[None, :, None] for f in (jnp.cos, jnp.sin))
            return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1)

        scores = jnp.einsum("bthk,bshk->bhts", turned(q), turned(k)) / 8**0.5
        scores = jnp.where(jnp.tril(jnp.ones((8, 8), bool)), scores, -jnp.inf)
        read = jnp.einsum("bhts,bshk->bthk", jax.nn.softmax(scores, -1), v)
        x += jnp.einsum("bthk,hkd->btd", read, kernels["out"]["kernel"][0])
        h, mlp = normal(x, block["norm_mlp"]), block["mlp"]
        up, gate = h @ mlp["up"]["kernel"][0], h @ mlp["gate"]["kernel"][0]
        x += (up * jax.nn.silu(gate)) @ mlp["down"]["kernel"][0]
        logits = normal(x, frozen["norm"]) @ frozen["head"]["kernel"]
        return optax.losses.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()

    batch = {"tokens": tokens, "weights": jnp.ones((3, 8))}
    compute = functools.partial(step_lib.loss_and_grads, config, one_device())
    found, grads = jax.jit(compute, static_argnames=("accumulate", "learning"))(
        trained, batch, learning=Learning(LORA), frozen=frozen
    )
    want, want_grads = jax.jit(jax.value_and_grad(loss))(factors)
    assert float(found) == pytest.approx(float(want), rel=1e-5)
    assert jax.tree.structure(grads["lora"]) == jax.tree.structure(want_grads)
    assert distance(grads["lora"], want_grads) < 1e-5
    assert all(bool(jnp.abs(grad).max() > 1e-5) for grad in jax.tree.leaves(want_grads))


@pytest.mark.slow
def test_adapters_of_full_rank_everywhere_move_as_all_of_the_model_does() -> None:
    """With orthonormal first factors the first step of plain descent changes W alike."""
    on = f"{ALL.replace(',embed/embedding,head/kernel', '')}"
    adapted = Adaptation(AdaptationConfig("lora", on=on, rank=16))
    trained, frozen = adapted.split(parent(), CONFIG, KEY)
    random = np.random.default_rng(1)

    def orthonormal(path: Any, leaf: jax.Array) -> jax.Array:
        if not sharding.path_of(path).endswith("/a"):
            return leaf
        drawn = random.normal(size=(int(np.prod(leaf.shape[:-1])), leaf.shape[-1]))
        return jnp.asarray(np.linalg.qr(drawn)[0].reshape(leaf.shape), jnp.float32)

    trained = jax.tree_util.tree_map_with_path(orthonormal, trained)
    batch = {name: jnp.asarray(value) for name, value in Stream().batch(0).items()}
    rate = 1e3

    def after(learning: Learning, params: Any, frozen: Any) -> model.Params:
        _, grads = LOSS_AND_GRADS(params, batch, learning=learning, frozen=frozen)
        stepped = jax.tree.map(lambda p, g: p - rate * g, params, grads)
        return learning.adaptation.join(stepped, frozen)

    full = flatten_dict(after(Learning(), parent(), {}), sep="/")
    low = flatten_dict(after(Learning(adapted), trained, frozen), sep="/")
    before = flatten_dict(parent(), sep="/")
    square = [f"blocks/attention/{name}/kernel" for name in ("query", "key", "value", "out")]
    for path in square:
        moved_by = np.asarray(full[path] - before[path])
        size = np.abs(moved_by).max()
        assert size > 1e-2
        np.testing.assert_allclose(low[path] - before[path], moved_by, atol=1e-4 * size)


def settings_of(path: pathlib.Path, learning: Learning, steps: int = 12, **changes: Any) -> Any:
    mesh = changes.pop("mesh", None) or one_device()
    member = {"seed": 3, "stream": Stream(), "learning_rate": 1e-2, "run_dir": path}
    member["parent"] = lambda: (jax.device_put(parent()), None)
    return train.train_together(
        [Member(**{**member, **changes})],
        model=CONFIG,
        optimizer=OptimizerConfig(name="adamw", warmup_steps=2),
        train=TrainConfig(steps=steps, batch=4, log_every=1, save_every=4),
        mesh=mesh,
        progress=Silent(),
        learning=learning,
    )


def losses(path: pathlib.Path) -> list[float]:
    return [line["loss"] for line in metrics.read_lines(path / "metrics.jsonl")]


@pytest.mark.slow
def test_a_child_begins_where_its_parent_ended_and_moves_adapters_alone(
    tmp_path: pathlib.Path,
) -> None:
    batch = {name: jnp.asarray(value) for name, value in Stream().batch(0).items()}
    want = LOSS_AND_GRADS(parent(), batch)[0]
    for name, learning in {"lora": Learning(LORA), "full": Learning()}.items():
        (state,) = settings_of(tmp_path / name, learning)
        assert losses(tmp_path / name)[0] == pytest.approx(float(want), rel=1e-6)
        assert losses(tmp_path / name)[-1] < 0.95 * float(want)
        counted = "model_flops_per_s" in metrics.read_lines(tmp_path / name / "metrics.jsonl")[0]
        assert counted == (name == "full")
        if name == "lora":
            assert set(state.params) == {"lora"}
            # The optimizer remembers adapters alone, and nothing frozen is kept.
            count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
            assert sum(leaf.size for leaf in jax.tree.leaves(state.opt_state)) < 2 * count + 10
            joined = flatten_dict(LORA.join(state.params, parent()), sep="/")
            before = flatten_dict(parent(), sep="/")
            changed = {path for path in before if not np.array_equal(before[path], joined[path])}
            assert changed == {
                "embed/embedding",
                "blocks/attention/query/kernel",
                "blocks/attention/value/kernel",
            }


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_a_killed_child_ends_where_it_would_have_ended(
    dropout: float, tmp_path: pathlib.Path
) -> None:
    learning = Learning(Adaptation(AdaptationConfig("lora", rank=2, dropout=dropout)))
    (straight,) = settings_of(tmp_path / "straight", learning)

    class Stops(Stream):
        def batch(self, step: int) -> dict[str, jax.Array]:
            if step == 7:
                raise KeyboardInterrupt
            return super().batch(step)

    with pytest.raises(KeyboardInterrupt):
        settings_of(tmp_path / "cut", learning, stream=Stops())
    (resumed,) = settings_of(tmp_path / "cut", learning)
    assert same(straight, resumed)

    def told(name: str) -> list[dict[str, Any]]:
        lines = metrics.read_lines(tmp_path / name / "metrics.jsonl")
        return [{k: v for k, v in line.items() if k not in SPEED} for line in lines]

    assert told("straight") == told("cut")


def test_dropout_of_adapters_leaves_inputs_out_and_doubles_the_others() -> None:
    dropping = Adaptation(AdaptationConfig("lora", rank=2, dropout=0.5))
    trained, frozen = moved(dropping)
    path = "blocks/attention/query/kernel"
    before, whole = (
        np.asarray(flatten_dict(params, sep="/")[path])
        for params in (frozen, dropping.join(trained, frozen))
    )
    draws = np.stack(
        [
            flatten_dict(dropping.join(trained, frozen, key), sep="/")[path]
            for key in jax.random.split(KEY, 200)
        ]
    )
    by_input = (draws - before).reshape(200, 16, -1)
    dropped = (by_input == 0).all(-1)
    assert 0.4 < dropped.mean() < 0.6
    assert ((by_input != 0).any(-1) == ~dropped).all()
    doubled = np.broadcast_to(2 * (whole - before), draws.shape).reshape(by_input.shape)
    np.testing.assert_allclose(by_input[~dropped], doubled[~dropped], atol=1e-5)


@pytest.mark.slow
def test_runs_together_and_alone_end_alike(tmp_path: pathlib.Path) -> None:
    """Two children of different parents, which are frozen in one program."""

    def member(number: int, directory: pathlib.Path) -> Member:
        def read() -> tuple[model.Params, None]:
            return model.init(CONFIG, jax.random.key(number)), None

        return Member(number, Stream(), 1e-2, directory / str(number), parent=read)

    def trained(numbers: tuple[int, ...], directory: pathlib.Path) -> list[TrainState]:
        return train.train_together(
            [member(number, directory) for number in numbers],
            model=CONFIG,
            optimizer=OptimizerConfig(name="adamw", warmup_steps=2),
            train=TrainConfig(steps=6, batch=4, log_every=2, save_every=6),
            mesh=one_device(),
            progress=Silent(),
            learning=Learning(LORA),
        )

    both = trained((0, 1), tmp_path / "both")
    for number, together in enumerate(both):
        (alone,) = trained((number,), tmp_path / "alone")
        assert distance(together.params, alone.params) < 1e-5
    assert distance(both[0].params, both[1].params) > 1e-3


@pytest.mark.slow
def test_a_step_of_lora_costs_at_most_four_fifths_at_the_published_size() -> None:
    """By the operations that XLA counts in the program of a step of 12 layers and 12 heads."""
    config = ModelConfig(vocab=1720, window=768, layers=12, heads=12, head_dim=64, kernel="blocks")
    mesh, transform = one_device(), optimizer.make(OptimizerConfig(), 2000)
    batch = {
        "tokens": jax.ShapeDtypeStruct((1, 769), jnp.int32),
        "weights": jax.ShapeDtypeStruct((1, 768), jnp.float32),
    }

    def cost(adapted: Adaptation) -> tuple[float, int]:
        learning = Learning(adapted)
        with jax.set_mesh(mesh):
            state = step_lib.abstract_state(config, transform, mesh, adapted)
            frozen = None if adapted.full else step_lib.abstract_params(config, mesh)
            step = step_lib.make_step(config, transform, mesh, 1, learning)
            flops = step.lower(state, batch, frozen).cost_analysis()["flops"]
        return flops, sum(leaf.size for leaf in jax.tree.leaves(state.opt_state))

    flops, memory = cost(adaptation.WHOLE)
    fewer, less = cost(Adaptation(AdaptationConfig("lora", rank=8)))
    assert fewer < 0.8 * flops
    assert less < 0.01 * memory


def test_how_much_is_trained_is_said() -> None:
    trained, frozen = LORA.split(parent(), CONFIG, KEY)
    count = sum(leaf.size for leaf in jax.tree.leaves(trained))
    total = sum(leaf.size for leaf in jax.tree.leaves(frozen))
    said = adaptation.counted(trained, frozen)
    assert said.startswith(f"{count:,} parameters in 3 adapters, {count / total:.2%} of ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"on": "attention/nothing"}, "matches none: there are blocks/attention/key/kernel, "),
        ({"rank": 17}, "adaptation.rank is 17; it must be such that no rank is above"),
        ({"rank": 9}, "embed/embedding has 16 and would be given 18"),
        ({"on": "("}, "on is '('; it must be expressions"),
        ({"on": "head/kernel:0"}, "on is 'head/kernel:0'; it must be with factors of at least 1"),
        ({"kind": "qlora"}, "kind is 'qlora'; it must be one of full, lora, probe"),
        ({"dropout": 1.0}, "dropout is 1.0; it must be a number at least 0 and below 1"),
    ],
)
def test_bad_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RefusedError) as caught:
        config = AdaptationConfig(**{"kind": "lora", **changes})
        Adaptation(config).places(parent())
    assert message in str(caught.value)
