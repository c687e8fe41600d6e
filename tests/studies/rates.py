"""What tests run: error-free data and retry data, one seed.

The tests of sweeps name its two runs, so that the studies of `experiments` can change without them.
"""

from collections.abc import Iterator
from typing import Any

from physlm.experiments import config

get_config = config.base


def sweep() -> Iterator[dict[str, Any]]:
    for rate in (0.0, 0.5):
        yield {"mistakes.rate": rate}
