"""How does the gain from mistakes depend on the temperature at which solutions are written?

Question: decoded greedily, models that have read mistakes seldom make them. Drawn at a temperature,
every model errs more often, and one that has learnt to take mistakes back can. Is it then further
ahead, and how many steps does it take back?

Command: `python -m physlm.experiments.sweep temperature`. Models that `retry_rate` has trained in
the same store are not trained again.

Expected: asked for by the paper's reviewers, and not published.

Found at `quick` (seeds 8, 9 and 10; rates 0 and .5; results and plots are committed): no. Masked
mistakes are ahead of error-free data by about as much at every temperature (beyond 6 operations by
1.9 points greedily, 2.6 at .4 and 1.3 at 1, none of which is told apart). Up to .4 models solve as
much as greedily, at 1 each solves less. The hotter, the fewer steps are taken back, with each model
(masked 5.4 a solution greedily, 2.6 at .4 and 1.3 at 1), and the fewer solutions are cut off.

Cost: four runs and 20 evaluations a seed. `smoke` some minutes, most of it compilation; `quick` 25
seconds an evaluation on two CPU cores (measured), beside the models, which take half an hour. The
rest is estimated: `night` four hours there for the models; `mini` 20 minutes on one v5e chip and
`paper` 31 hours on eight (training alone, by `--dry-run`).
"""

from collections.abc import Iterator

from ml_collections import ConfigDict

from physlm.decoding import recipe
from physlm.experiments import conditions, config
from physlm.experiments.condition import Condition
from physlm.experiments.conditions import Planned
from physlm.experiments.figures import Against

TEMPERATURES = (0.0, 0.2, 0.4, 0.7, 1.0)
DATA = (
    {"mistakes.rate": 0.0},
    {"mistakes.rate": 0.2},
    {"mistakes.rate": 0.5},
    {"mistakes.rate": 0.5, "mistakes.mask": "name"},
)


def temperature(condition: Condition) -> float:
    """At which solutions are drawn; greedily at 0."""
    chosen = recipe.parse(condition["decode"])
    return float(getattr(chosen, "temperature", 0.0))


# Each temperature is compared with greedy decoding of the same models.
VERSUS = {"decode": "greedy"}
_READ = ("decode",)
FIGURES = (
    Against(
        temperature,
        "temperature",
        _READ,
        heading="Problems solved, by the temperature of sampling",
    ),
    Against(temperature, "temperature", _READ, y="retries", name="retries"),
    Against(temperature, "temperature", _READ, y="capped", name="capped"),
)


def get_config(scale: str) -> ConfigDict:
    """What all runs share: the defaults of the scale."""
    return config.base(scale)


def sweep() -> Iterator[Planned]:
    """Each model at each temperature, a solution for a problem."""
    for data in DATA:
        for value in TEMPERATURES:
            way = f"sample:1,temperature={value}" if value else "greedy"
            yield conditions.pretrain(**data, **{"evaluate.decode": way})
