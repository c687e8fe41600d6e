"""What tests run: a model, those that begin with it, and one that a probe of it helps to decode."""

from collections.abc import Iterator

from physlm.experiments import conditions, config
from physlm.experiments.conditions import Planned

get_config = config.base

ERROR_FREE = {"mistakes.rate": 0.0}
RETRY = {"mistakes.rate": 0.5}


def sweep() -> Iterator[Planned]:
    parent = conditions.pretrain(**ERROR_FREE)
    yield parent
    yield conditions.continued(parent, **RETRY)
    yield conditions.lora(parent, rank=2, **RETRY)
    asked = {"evaluate.decode": "regret:probe", "evaluate.probe": conditions.probe(parent)}
    yield conditions.pretrain(**ERROR_FREE, **asked)
    yield conditions.pretrain(**RETRY, **{"model.layers": 3})
