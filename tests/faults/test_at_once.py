"""Several sweeps at once on one store, of which some are killed."""

import pytest
from harness import Sweep, seeds

pytestmark = pytest.mark.slow

# Seconds without a sign of life until a process is taken for dead: of several that all compile on
# few cores, one that lives may be silent for a while.
_EXPIRY = 8.0


@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("seed", seeds(10))
def test_sweeps_at_once(fault, count, seed):
    """Half of them are killed, at moments of their own: of the run, or as they end without it."""
    phases = ("training", "checkpointing", "evaluating")
    plans = [
        fault.plan(fault.draw.choice(phases), delay=0.3, expiry=_EXPIRY) for _ in range(count // 2)
    ]
    sweeps = [Sweep(plan) for plan in plans]
    others = [Sweep(fault.plan(expiry=_EXPIRY)) for _ in range(count - len(plans))]
    for sweep in sweeps:
        assert sweep.halted(), sweep.said
        sweep.kill()
    fault.say(f"{len(sweeps)} of {count} sweeps were killed")
    for sweep in others:
        sweep.end(0)
    fault.compare()
    fault.recover()
