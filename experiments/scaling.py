"""How do loss and errors fall with parameters and tokens, and do mistakes in the data change that?

Question: models of several sizes, each trained on three numbers of tokens, see error-free data or
data with mistakes at rate .5, masked. Two sets of sizes hold the number of parameters and change
the depth, as in Part 2.1; two smaller models are ours, without which sizes would be two alone and
nobody could tell an exponent. A law of scaling is fitted to the loss and to the share of problems
of more operations than in training that are not solved, for each rate.

Command: `python -m physlm.experiments.sweep scaling`; for intervals over seeds the same with
`--set seed=1`, and 2. Every number of tokens is a training of its own, with a schedule that ends
with it, as a law of scaling needs it (arXiv 2203.15556).

Expected: Part 2.1 (arXiv 2407.20311) compares, at equal numbers of parameters, models of layers and
heads 4-21, 8-15, 12-12, 16-10, 20-9 and 4-30, 8-21, 12-17, 16-15, 20-13: the deeper ones are better
although they are no larger. Nobody has published exponents, nor how size and mistakes go together.
Here all sizes have one learning rate, that of the scale's own model.

Found: nothing yet; only `smoke` has been run.

Cost: 6 runs a size and seed. `smoke` six minutes, most of it compilation. The rest is estimated:
eight sizes at `quick` about four hours and at `night` thirty on two CPU cores; `mini` two and a
half hours on one v5e chip and `paper`, with twelve sizes and 1.25e21 operations, 17 days on eight
(training alone, by `--dry-run`).
"""

from collections.abc import Iterator

from ml_collections import ConfigDict

from physlm.experiments import conditions, config
from physlm.experiments.conditions import Planned, Times
from physlm.experiments.figures import Scaling

TIMES = (0.25, 0.5, 1.0)

# Layers and heads. In each set their product with the square of the other's is nearly the same.
PAPER = (
    *((4, 21), (8, 15), (12, 12), (16, 10), (20, 9)),
    *((4, 30), (8, 21), (12, 17), (16, 15), (20, 13)),
)

FIGURES = (Scaling("error"), Scaling("loss"))


def get_config(scale: str) -> ConfigDict:
    """What all runs share: the defaults of the scale."""
    return config.base(scale)


def sizes(shared: ConfigDict) -> list[tuple[int, int]]:
    """Layers and heads of all models, the smallest first.

    At `paper` those of Part 2.1. Elsewhere a set about the scale's own model, of a quarter and half
    of its layers too, and one of twice its parameters, up to twice its layers; heads are such that
    a set is of one number of parameters as nearly as whole heads allow. At `smoke` of each set the
    model of the own depth alone.
    """
    layers, heads = shared.model.layers, shared.model.heads
    smaller = [(max(1, layers // 2), max(1, heads // 2)), (layers, max(1, heads // 2))]
    if shared.scale.startswith("paper"):
        return [*smaller, *PAPER]
    first, second = [layers // 4, layers // 2, layers], [layers // 2, layers, 2 * layers]
    if shared.scale == "smoke":
        smaller, first, second = smaller[1:], [layers], [layers]
    sets = [(depth, layers * heads**2) for depth in first if depth]
    sets += [(depth, 2 * layers * heads**2) for depth in second if depth]
    wide = [(depth, max(1, round((weight / depth) ** 0.5))) for depth, weight in sets]
    return list(dict.fromkeys([*smaller, *wide]))


def sweep(shared: ConfigDict) -> Iterator[Planned]:
    """Each size for each number of tokens, without mistakes and with them."""
    data = ({"mistakes.rate": 0.0}, {"mistakes.rate": 0.5, "mistakes.mask": "name"})
    of_size = [{"model.layers": depth, "model.heads": heads} for depth, heads in sizes(shared)]
    steps = conditions.over("train.steps", *map(Times, TIMES))
    for changes in conditions.product(of_size, steps, data):
        yield conditions.pretrain(**changes)
