"""Processes that are killed at random moments, as by `kill -9` or for want of memory."""

import pytest
from harness import Sweep, seeds

pytestmark = pytest.mark.slow

# Seconds between moments, about, in which something happens that no moment tells of: a step that is
# computed, an array that is written, an answer that is decoded, a picture that is drawn.
_BETWEEN = {"training": 0.3, "checkpointing": 0.05, "evaluating": 1.0, "reporting": 0.5}


@pytest.mark.parametrize("phase", _BETWEEN)
@pytest.mark.parametrize("seed", seeds())
def test_killed(fault, phase, seed):
    sweep = Sweep(fault.plan(phase, delay=_BETWEEN[phase]))
    assert sweep.halted(), sweep.said
    sweep.kill()
    fault.recover()
