"""Predicted step times: what is counted, against sums by hand (`test_collectives`: by XLA)."""

import dataclasses
import itertools
import textwrap

import jax
import pytest

from physlm import model
from physlm.architecture import ModelConfig, sized
from physlm.tools import roofline
from physlm.tools.chips import CHIPS, Chip

# A chip whose figures are easily divided by, all links of which a ring can use.
CHIP = Chip(flops=1e6, bandwidth=1e5, interconnect=1e4, links=2)

# Two layers of width 8 with MLPs of 32, 10 words. In a block: four projections and an MLP's two,
# 768 weights; biases of the four, the MLP's 32 + 8, and two norms, 104 numbers. Around: embedding
# and head of 80 each, a norm of 16.
TINY = ModelConfig(vocab=10, window=4, layers=2, heads=2, head_dim=4)
BLOCKS, AROUND, REST = 2 * 768, 160, 2 * 104 + 16


def test_parameters_by_hand() -> None:
    params = jax.eval_shape(lambda: model.init(TINY, jax.random.key(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == BLOCKS + AROUND + REST


def test_bytes_along_each_axis_by_hand() -> None:
    assert roofline.collective_bytes(TINY, 8, {}) == {}
    everything = 4 * (BLOCKS + AROUND + REST)
    assert roofline.collective_bytes(TINY, 8, {"data": 8}) == {
        ("data",): {"all-reduce": everything}
    }
    for dtype, width in (("float32", 4), ("bfloat16", 2)):
        config = dataclasses.replace(TINY, dtype=dtype)
        assert roofline.collective_bytes(config, 8, {"fsdp": 4}, accumulate=2) == {
            ("fsdp",): {
                # Two parts, forward and backward; what is around the blocks once.
                "all-gather": width * (4 * BLOCKS + AROUND),
                "reduce-scatter": 4 * 2 * (BLOCKS + AROUND),
                "all-reduce": 4 * REST,
            }
        }
        # Eight sequences of four positions: keys and values, kept for the way back; the stream.
        read = 2 * 2 * 8 * 4 * 8 * width
        assert roofline.collective_bytes(config, 8, {"sequence": 2}) == {
            ("sequence",): {
                "all-gather": read,
                "reduce-scatter": read,
                "all-reduce": everything,
            }
        }
        assert roofline.collective_bytes(config, 8, {"tensor": 2}) == {
            ("tensor",): {"all-reduce": 2 * 4 * 8 * 4 * 8 * width}
        }


def test_what_is_recomputed_is_communicated_again() -> None:
    again = dataclasses.replace(TINY, remat="full")
    kept, moved = (
        roofline.collective_bytes(config, 8, {"sequence": 2, "tensor": 2})
        for config in (TINY, again)
    )
    assert moved["sequence",]["all-gather"] == 2 * kept["sequence",]["all-gather"]
    assert moved["tensor",]["all-reduce"] * 4 == kept["tensor",]["all-reduce"] * 5


@pytest.mark.parametrize("variant", ["gpt2", "llama"])
def test_gates_cost_no_further_sum(variant: str) -> None:
    config = dataclasses.replace(TINY, variant=variant)
    stream = 2 * 8 * 4 * 8 * 4
    assert roofline.collective_bytes(config, 8, {"tensor": 2})["tensor",] == {
        "all-reduce": 4 * stream
    }


def test_seconds_of_rings() -> None:
    mesh = {"data": 4, "fsdp": 2, "sequence": 2}
    moved = {("fsdp",): {"all-gather": 20_000}, ("data", "sequence"): {"all-reduce": 8_000}}
    found = roofline.collective_seconds(CHIP, moved, mesh)
    assert found == pytest.approx({("fsdp",): 1.0, ("data", "sequence"): 2 * 7 / 8 * 0.8})
    # Of six links a ring has two.
    slower = roofline.collective_seconds(CHIP._replace(links=6), moved, mesh)
    assert slower == pytest.approx({axes: 3 * seconds for axes, seconds in found.items()})


def test_bytes_of_memory_by_hand() -> None:
    # Weights: read twice, gradients written, and seven times moved by AdamW, all in float32.
    weights = (BLOCKS + AROUND + REST) * (3 + 7) * 4
    # A block's values for a token: norms, sums and streams, 6 of 8; queries, keys, values and what
    # is read, 4 of 8; hidden units before and after, 2 of 32. Moved six times; logits four.
    token = 2 * (6 * 8 + 4 * 8 + 2 * 32) * 6 * 4 + 10 * 4 * 4
    assert roofline.memory_bytes(TINY, 8, {}) == weights + 8 * 4 * token
    assert roofline.memory_bytes(TINY, 8, {"data": 4}) == weights + 8 * token
    # Two parts: weights and gradients twice, and the gradients' sum.
    parts = (BLOCKS + AROUND + REST) * (2 * (3 + 2) + 7) * 4
    assert roofline.memory_bytes(TINY, 8, {}, accumulate=2) == parts + 8 * 4 * token
    divided = roofline.memory_bytes(TINY, 8, {"fsdp": 2, "tensor": 2})
    kernels = (BLOCKS / 2 + AROUND) * (3 + 7 / 2) * 4
    rest = (2 * (4 * 8 - 8 + 32) / 2 + 2 * (8 + 8 + 32) + 16) * 40
    half = 2 * (6 * 8 + (4 * 8 + 2 * 32) / 2) * 6 * 4 + 10 * 4 * 4
    assert divided == kernels + rest + 8 * 4 / 2 * half


def test_a_prediction_by_hand() -> None:
    config = dataclasses.replace(TINY, window=1)
    found = roofline.predict(CHIP, config, 8, 1000, {"data": 2})
    flops = 8 * (6 * (BLOCKS + 80) + 12 * 2 * 8)
    links = 4 * (BLOCKS + AROUND + REST) / 1e4
    memory = roofline.memory_bytes(config, 8, {"data": 2}) / 1e5
    assert (found.tokens, found.flops) == (8, flops)
    assert (found.compute, found.memory) == (flops / 2 / 1e6, memory)
    assert found.collectives == pytest.approx({("data",): links})
    assert (found.bound, found.least) == ("memory", memory)
    step = max(found.compute / 0.55, memory / 0.8) + links / 0.8
    assert found.step == pytest.approx(step)
    assert found.days == pytest.approx(1000 * step / 86_400)


@pytest.mark.parametrize(
    ("faster", "bound"), [("flops", "compute"), ("bandwidth", "memory"), ("interconnect", "links")]
)
def test_a_faster_chip_is_never_slower(faster: str, bound: str) -> None:
    config = ModelConfig(vocab=1000, window=128, variant="llama", **sized("4-4"))
    mesh, speeds = {"data": 2, "fsdp": 2, "tensor": 2}, (1.0, 4.0, 1e9)
    chip = CHIPS["v5e"]
    found = [
        roofline.predict(
            chip._replace(**{faster: speed * getattr(chip, faster)}), config, 8, 1, mesh
        )
        for speed in speeds
    ]
    for a, b in itertools.pairwise(found):
        assert b.step <= a.step
        assert b.least <= a.least
    # What costs nothing limits nothing, and leaves the rest as it was.
    terms = {"compute": found[-1].compute, "memory": found[-1].memory}
    terms["links"] = sum(found[-1].collectives.values())
    assert terms.pop(bound) < 1e-6 * max(terms.values())
    assert found[-1].bound != bound
    assert found[-1].least == max(terms.values())


def test_a_device_alone_sends_nothing() -> None:
    found = roofline.predict(CHIPS["h200"], TINY, 8, 1, {})
    assert found.collectives == {}


def test_half_the_batch_a_device_is_half_the_operations() -> None:
    config = ModelConfig(vocab=1000, window=128, **sized("4-4"))
    one, two = (roofline.predict(CHIPS["v5e"], config, 8, 1, {"data": n}) for n in (2, 4))
    assert two.compute == one.compute / 2
    assert one.memory / 2 < two.memory < one.memory


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--devices", "8", "--fsdp", "3"], "--devices is 8"),
        (["--batch", "12"], "train.batch is 12"),
        (["--tensor", "8"], "model.heads is 12"),
        (["--size", "12"], "model.size is '12'"),
        (["--steps", "0"], "--steps is 0"),
        (["--fsdp", "0"], "--fsdp is 0; it must be at least 1."),
        (["--chip", "v9"], "invalid choice"),
    ],
)
def test_impossible_runs_are_refused(arguments, message, capsys) -> None:
    with pytest.raises(SystemExit):
        roofline.main(arguments)
    assert message in capsys.readouterr().err


def test_the_page_shows_what_is_printed(capsys) -> None:
    roofline.main([])
    printed = capsys.readouterr().out.strip("\n")
    assert printed in textwrap.dedent(roofline.__doc__.partition("\n")[2])
    roofline.main(["--chip", "v6e", "--tensor", "2"])
    assert "along tensor" in capsys.readouterr().out
