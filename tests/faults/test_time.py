"""Processes that stand still, and clocks that jump."""

import pytest
from harness import PAUSE, Sweep, seeds

pytestmark = pytest.mark.slow

_PHASES = ("training", "checkpointing", "evaluating", "reporting")
_DAY = 24 * 3600.0


@pytest.mark.parametrize("seed", seeds(4))
def test_paused(fault, seed):
    """As by Ctrl-Z, or by a machine that sleeps; half of the time somebody else takes over."""
    phase, taken_over = fault.draw.choice(_PHASES), seed % 2 == 0
    sweep = Sweep(fault.plan(phase, delay=0.3, expiry=2.0))
    assert sweep.halted(), sweep.said
    fault.say(f"paused for {PAUSE:g} s{', and another sweep goes on' if taken_over else ''}")
    with fault.meanwhile(PAUSE):
        if taken_over:
            Sweep(fault.plan()).end(0)
    sweep.go_on()
    sweep.end(0)
    fault.recover()


@pytest.mark.parametrize("seed", seeds(4))
def test_clock_jumps(fault, seed):
    """As when it is set, or a machine wakes up: the time of day, backward and forward."""
    days = fault.draw.choice([-1, 1]) * 10 ** fault.draw.uniform(-2, 4)
    plan = fault.plan(fault.draw.choice(_PHASES), inject="clock", jump=days * _DAY)
    fault.say(f"by {days:.2f} days")
    Sweep(plan).end(0)
    fault.compare()
