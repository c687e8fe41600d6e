"""Random keys: no two of the tree are equal, and nobody but `data_gen.keys` derives one."""

import ast
import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn import TINY
from flax import nnx

from data_gen import keys
from data_gen.keys import Purpose, Stage
from data_gen.problems import draws, search
from physlm import cells

PACKAGES = ("data_gen", "physlm", "experiments")
ROOT = Path(__file__).parent.parent

SEEDS = (0, 1, 2, 2**31 - 1)
# Stages below the structure of a draft, below its plan, and of a model's parameters; all others
# are below the key of a problem.
OF_A_STRUCTURE = {Stage.STRUCTURE, Stage.CHOICE, Stage.ORDER, Stage.TERMS, Stage.OPERATORS}
OF_A_PLAN = {Stage.PLAN, Stage.STRUCTURES}
OF_A_MODEL = {Stage.FRAME, Stage.BLOCKS, Stage.ADAPTERS}
OF_A_PROBLEM = set(Stage) - OF_A_STRUCTURE - OF_A_PLAN - OF_A_MODEL


def named(keys_N, stages):
    return {stage: jax.vmap(lambda key, s=stage: keys.named(key, s))(keys_N) for stage in stages}


def numbered(keys_N, numbers):
    """N keys' children of each of these numbers, as one row of keys."""
    return jax.vmap(lambda key: keys.all_numbered(key, np.array(numbers)))(keys_N).reshape(-1)


def roots(purpose):
    return jnp.stack([keys.root(seed, purpose) for seed in SEEDS])


def of_problems(problems_N):
    """All keys of problems, of two plans with two structures each."""
    below = named(problems_N, OF_A_PROBLEM)
    found = [problems_N, *below.values()]
    plans = numbered(below[Stage.DRAFTS], (0, 1))
    below = named(plans, OF_A_PLAN)
    found += [plans, *below.values()]
    structures = numbered(below[Stage.STRUCTURES], (0, 1))
    return [*found, structures, *named(structures, OF_A_STRUCTURE).values()]


def test_no_two_keys_of_the_tree_are_equal():
    problems = [
        numbered(roots(Purpose.SAMPLE), [*range(256), 2**31 - 1]),
        numbered(roots(Purpose.PROBING), range(64)),
        numbered(roots(Purpose.PRACTICE), range(64)),
        # By segment and document, and by operations and index.
        numbered(numbered(roots(Purpose.TRAINING), range(16)), range(16)),
        numbered(numbered(roots(Purpose.TESTING), (0, 3, 20)), range(64)),
        numbered(numbered(roots(Purpose.FROZEN), (0, 3, 20)), range(64)),
    ]
    found = [roots(purpose) for purpose in Purpose]
    found += of_problems(jnp.concatenate(problems))
    found.append(numbered(roots(Purpose.CORRECTION), range(256)))
    parts = named(roots(Purpose.PARAMETERS), OF_A_MODEL)
    layers = numbered(parts[Stage.BLOCKS], range(12))
    found += [*parts.values(), layers]
    # What Flax draws parameters from, as a test below shows.
    found.append(numbered(jnp.concatenate([parts[Stage.FRAME], layers]), range(16)))
    found.append(numbered(parts[Stage.ADAPTERS], range(64)))
    found.append(numbered(roots(Purpose.ADAPTER_DROPOUT), range(256)))
    rows = numbered(numbered(roots(Purpose.DROPOUT), range(8)), range(16))
    found += [rows, numbered(rows, range(25))]
    data_Nx2 = np.asarray(jax.random.key_data(jnp.concatenate(found)))
    assert len(data_Nx2) > 100_000
    assert len(np.unique(data_Nx2, axis=0)) == len(data_Nx2)


def test_cells_of_test_problems_have_no_key_in_common():
    """Neither those of other numbers of operations nor those with other questions."""
    config = cells.EvalConfig(beyond=(4, 5), within=(1, 2), reasked=(3, 4))
    found = [cells.keys_of(cell, config, np.arange(64)) for cell in cells.of(TINY, config)]
    data_Nx2 = np.asarray(jax.random.key_data(jnp.concatenate(found)))
    assert len(found) == 8 and len(data_Nx2) == 512
    assert len(np.unique(data_Nx2, axis=0)) == len(data_Nx2)


def test_names_stand_for_numbers_that_nothing_is_counted_with():
    key = jax.random.key(0)
    for name in (*Purpose, *Stage):
        number = int(keys._NUMBERS[name])
        assert 2**31 <= number < 2**32
        if isinstance(name, Stage):
            assert keys.named(key, name) == jax.random.fold_in(key, number)
    assert len({int(number) for number in keys._NUMBERS.values()}) == len(Purpose) + len(Stage)


def test_flax_draws_parameters_from_numbered_keys():
    key = keys.named(keys.root(0, Purpose.PARAMETERS), Stage.FRAME)
    rngs = nnx.Rngs(key)
    assert [rngs.params() for _ in range(3)] == [keys.numbered(key, n) for n in range(3)]


def test_a_problem_uses_each_stage_once_and_draws_from_leaves_alone(monkeypatch):
    """As `sample` is traced: a key's stages, and the keys that words are drawn from."""
    stages_of, drawn_from, kept = {}, [], []

    def recorded(derive, key, stage):
        kept.append(key)
        stages_of.setdefault(id(key), []).append(stage)
        return derive(key, stage)

    def source(draw, key):
        kept.append(key)
        drawn_from.append(id(key))
        return draw(key)

    for name in ("named", "numbered"):
        monkeypatch.setattr(keys, name, functools.partial(recorded, getattr(keys, name)))
    monkeypatch.setattr(draws, "source", functools.partial(source, draws.source))
    spec = dataclasses.replace(TINY, reask=True, solution="any")
    jax.eval_shape(lambda key: search.sample(key, spec), jax.random.key(0))
    for stages in stages_of.values():
        of_name = [stage for stage in stages if isinstance(stage, Stage)]
        assert len(set(of_name)) == len(of_name)
        assert len(of_name) in (0, len(stages)), "numbered and named children of one key"
    assert drawn_from and not set(drawn_from) & set(stages_of)
    seen = {stage for stages in stages_of.values() for stage in stages if isinstance(stage, Stage)}
    # Mistakes are a document's, its source a stream's, questions a probe's.
    assert seen == set(Stage) - OF_A_MODEL - {Stage.MISTAKES, Stage.SOURCE, Stage.QUESTIONS}


def modules(*exceptions):
    found = {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
    }
    assert set(exceptions) <= set(found)
    return {name: tree for name, tree in found.items() if name not in exceptions}


# What computes the numbers of `jax.random` for it, which tests/test_threefry.py compares.
THREEFRY = "physlm/decoding/threefry.py"
DERIVES = {"fold_in", "PRNGKey", "threefry_2x32"}
# Of `jax.random` what draws from a key, and what makes arrays of keys and keys of such arrays.
DRAWS = {"bits", "bernoulli", "permutation", "normal", "uniform", "categorical", "gumbel"}
CARRIES = {"key_data", "wrap_key_data"}
CARRIERS = {"data_gen/problems/search.py", "physlm/adaptation.py", "physlm/step.py"}


def derivations(name, tree):
    """Where a module of the packages could derive keys, or has randomness of another kind."""
    allowed = DRAWS | CARRIES if name in CARRIERS else DRAWS
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None) or ""
            names = {f"{module}.{alias.name}".lstrip(".") for alias in node.names}
            for one in names | {module}:
                if {"random", "prng", "secrets"} & set(one.split(".")):
                    yield f"{name}:{node.lineno} imports {one}"
        elif isinstance(node, ast.Attribute):
            text, begins = ast.unparse(node), ("np.random", "jnp.random")
            of_jax = text.startswith("jax.random.") and node.attr not in allowed
            if of_jax or node.attr in DERIVES or text.startswith(begins):
                yield f"{name}:{node.lineno} {text}"


def test_nobody_else_derives_keys():
    found = [
        text
        for name, tree in modules("data_gen/keys.py", THREEFRY).items()
        for text in derivations(name, tree)
    ]
    assert not found, found


@pytest.mark.parametrize(
    "code",
    [
        "jax.random.fold_in(key, 1)",
        "jax.random.split(key)",
        "jax.random.key(0)",
        "jax.random.wrap_key_data(words)",
        "from jax import random",
        "from jax.random import fold_in",
        "import jax.random as jr",
        "import random",
        "np.random.default_rng(0)",
    ],
)
def test_each_way_to_derive_a_key_is_seen(code):
    assert list(derivations("physlm/model.py", ast.parse(code)))


def constants(tree):
    """Whole numbers that mix bits: large ones, but for powers of two and masks of equal bytes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and type(node.value) is int and node.value >= 2**24:
            value = node.value
            one_bit = not value & (value - 1) or not value & (value + 1)
            if not one_bit and len(set(value.to_bytes(8).lstrip(b"\0"))) > 1:
                yield node.lineno, hex(value)


def test_words_are_hashed_in_one_place():
    found = [
        (name, *place)
        for name, tree in modules("data_gen/problems/draws.py", THREEFRY).items()
        for place in constants(tree)
    ]
    assert not found, found
    assert list(constants(ast.parse("x * 0x9E3779B9")))
