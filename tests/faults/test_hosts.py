"""Two processes that are one program, as on two hosts, of which one dies."""

import re
import socket

import pytest
from harness import FAULTS, Sweep, seeds

# The others notice, and end, after minutes.
pytestmark = [pytest.mark.slow, pytest.mark.skipif(FAULTS == 1, reason="takes minutes")]


def start(plans) -> list[Sweep]:
    """One process for each plan; the first coordinates them."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    said = [f"localhost:{port},{len(plans)},{number}" for number in range(len(plans))]
    return [Sweep(plan, ["--distributed", one]) for plan, one in zip(plans, said, strict=True)]


@pytest.mark.parametrize("seed", seeds(10))
def test_host_dies(fault, seed):
    """The other ends as soon as it notices, which takes 100 s where the first one is left."""
    # With one of each kind, the one whose death is noticed at once.
    dies = seed % 2
    plans = [fault.plan(), fault.plan()]
    plans[dies] = fault.plan(fault.draw.choice(["training", "checkpointing"]))
    hosts = start(plans)
    fault.say(f"host {dies} of 2 was killed")
    assert hosts[dies].halted(), hosts[dies].said
    hosts[dies].kill()
    left = hosts[1 - dies]
    # JAX's coordination service aborts those that are left, whatever they do about it.
    left.process.wait(400)
    assert left.process.returncode != 0
    assert not re.search(r"^Traceback", left.said, re.MULTILINE), left.said
    for host in start([fault.plan(), fault.plan()]):
        host.end(0)
    fault.rounds = True
    fault.compare()
