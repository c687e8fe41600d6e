"""A study of a dozen runs, which several workers do together."""

from collections.abc import Iterator
from typing import Any

from physlm.experiments import config

get_config = config.base


def sweep() -> Iterator[dict[str, Any]]:
    for twentieths in range(12):
        yield {"mistakes.rate": twentieths / 20}
