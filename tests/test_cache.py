"""The cache of decoding, where a row goes on from another."""

import hypothesis
import hypothesis.extra.numpy as arrays
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

from data_gen.spec import Spec
from physlm import cache as cache_lib
from physlm.architecture import ModelConfig
from physlm.block import KeyValue, Memory
from physlm.decoding.detectors import Perfect, Probed, Reading, Steps
from physlm.decoding.naming import marks_of
from physlm.decoding.sampling import largest

SLOTS, BEFORE = 40, 3


def _cache(text_BxL: np.ndarray) -> cache_lib.Cache:
    """Slots that hold what their text is up to there, as those of a model do."""
    weight_L = 1 + np.arange(SLOTS) % 7
    slot_BxS = np.cumsum((text_BxL[:, :SLOTS] + 1) * weight_L, axis=1).astype(np.float32)
    key_Bx1xSx1 = jnp.asarray(slot_BxS)[:, None, :, None]
    behind_BxZx1 = jnp.pad(jnp.asarray(slot_BxS), ((0, 0), (BEFORE, 0)))[..., None]
    return [
        Memory(KeyValue(n * key_Bx1xSx1, -n * key_Bx1xSx1), {"mlp": n * behind_BxZx1})
        for n in (1, 2)
    ]


@hypothesis.settings(deadline=None, max_examples=50)
@hypothesis.given(
    arrays.arrays(np.int32, (6, 50), elements=st.integers(0, 1)),
    arrays.arrays(np.int32, 6, elements=st.integers(0, 5)),
    arrays.arrays(np.int32, 6, elements=st.integers(1, SLOTS)),
)
def test_a_row_that_goes_on_from_another_has_all_of_its_slots(text_BxL, source_B, length_B):
    # Often alike for a while, as beams are.
    text_BxL[:, : text_BxL[0].sum()] = text_BxL[0, : text_BxL[0].sum()]
    shared_B = np.asarray(cache_lib.alike(jnp.asarray(text_BxL), jnp.asarray(source_B)))
    for row, (source, shared) in enumerate(zip(source_B, shared_B, strict=True)):
        assert (text_BxL[row, :shared] == text_BxL[source, :shared]).all()
        assert shared == 50 or text_BxL[row, shared] != text_BxL[source, shared]
    cache = _cache(text_BxL)
    found = jax.jit(cache_lib.continued)(cache, source_B, shared_B, length_B)
    cache, found = jax.tree.map(np.asarray, (cache, found))
    for row, source in enumerate(source_B):
        upto = length_B[source]
        for before, after in zip(cache, found, strict=True):
            for old, new in zip(before.attention, after.attention, strict=True):
                assert (new[row, :, :upto] == old[source, :, :upto]).all()
            old, new = before.canon["mlp"], after.canon["mlp"]
            assert (new[row, : BEFORE + upto] == old[source, : BEFORE + upto]).all()


def test_rows_that_stay_are_left_alone():
    cache = _cache(np.arange(300, dtype=np.int32).reshape(6, 50))
    length_B = jnp.full(6, SLOTS)
    found = cache_lib.continued(cache, jnp.arange(6), jnp.zeros(6, jnp.int32), length_B)
    for old, new in zip(jax.tree.leaves(cache), jax.tree.leaves(found), strict=True):
        assert (old == new).all()
    # Row 1 becomes row 4 from slot 20 on; before it they are said to be the same.
    source_B, shared_B = jnp.arange(6).at[1].set(4), jnp.full(6, 20)
    found = cache_lib.continued(cache, source_B, shared_B, length_B)
    old, new = cache[1].attention.k_BxNxSxK, found[1].attention.k_BxNxSxK
    assert (new[1, :, 20:] == old[4, :, 20:]).all() and (new[1, :, :20] == old[1, :, :20]).all()
    assert (new[jnp.array([0, 2, 3, 4, 5])] == old[jnp.array([0, 2, 3, 4, 5])]).all()


def test_as_much_is_copied_as_the_source_holds():
    cache = _cache(np.arange(100, dtype=np.int32).reshape(2, 50))
    source_B, none_B = jnp.array([1, 1]), jnp.zeros(2, jnp.int32)
    found = cache_lib.continued(cache, source_B, none_B, jnp.array([2, SLOTS]))
    for layer in found:
        assert (layer.attention.k_BxNxSxK[0] == layer.attention.k_BxNxSxK[1]).all()


def test_what_a_probe_has_not_read_is_not_shared():
    """Two beams have one text, of which the probe has read less in one row than in the other."""
    text_BxL = np.arange(100, dtype=np.int32).reshape(2, 50)
    text_BxL[0] = text_BxL[1]
    read = _cache(text_BxL)
    unread = [jax.tree.map(lambda x: x.at[0, ..., 10:, :].set(0), layer) for layer in read]
    own = Reading(jnp.array([7, 30]), unread)
    source_B = jnp.array([1, 1])
    shared_B = cache_lib.alike(jnp.asarray(text_BxL), source_B)
    found = Probed(ModelConfig(50, 40), 3).continued(own, source_B, shared_B)
    assert found.read_B.tolist() == [30, 30]
    for layer, whole in zip(found.cache, read, strict=True):
        keys, want = layer.attention.k_BxNxSxK, whole.attention.k_BxNxSxK
        assert (keys[:, :, :30] == want[:, :, :30]).all()


def test_steps_move_with_the_beams():
    steps = Steps(jnp.array([[1, 2], [3, 4]]), jnp.array([[5, 6], [7, 8]]), jnp.array([1, 2]))
    found = Perfect(marks_of(Spec())).continued(steps, jnp.array([1, 1]), jnp.zeros(2, jnp.int32))
    assert found.begin_BxZ.tolist() == [[3, 4]] * 2 and found.slot_BxZ.tolist() == [[7, 8]] * 2
    assert found.count_B.tolist() == [2, 2]


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="is about XLA for CPUs")
def test_the_largest_are_found_without_sorting_all():
    x_GxT = jax.random.normal(jax.random.key(0), (2, 500))

    def choose(x_GxT: jax.Array) -> tuple[jax.Array, jax.Array]:
        value_GxC, at_GxC = largest(x_GxT, 8)
        return value_GxC[:, :4], at_GxC[:, :8] % 7

    program = jax.jit(choose).lower(x_GxT).compile()
    assert " sort(" not in program.as_text()
    value_GxC, at_GxC = program(x_GxT)
    want, where = jax.lax.top_k(x_GxT, 8)
    assert (value_GxC == want[:, :4]).all() and (at_GxC == where % 7).all()
