"""Most of the tests' time is compilation: programs are compiled once, and in a hurry.

All of them take three quarters of an hour on two cores. `--turn K/N` runs one of N parts, so that
CI can have another part each day of those that take long.
"""

import argparse
import importlib.metadata
import os
import pathlib

import hypothesis
import pytest

# Memory maps of a process beyond which compiled programs are let go. A class of problems takes
# 2,000 of the 65,530 that Linux allows, and a compilation that would need more ends the process.
MANY_MAPS = 20_000


def pytest_addoption(parser):
    parser.addoption(
        "--turn",
        type=_turn,
        default=(1, 1),
        metavar="K/N",
        help="of the tests that are selected, only the K-th of N parts",
    )


def _turn(text):
    part, _, parts = text.partition("/")
    if not (part.isdigit() and parts.isdigit() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"--turn is {text!r}; it must be K/N with K in 1..N")
    return int(part), int(parts)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    part, parts = config.getoption("turn")
    # The cases of one function have much in common that is compiled once.
    functions = {item: item.nodeid.partition("[")[0] for item in items}
    turns = {name: n % parts + 1 for n, name in enumerate(sorted(set(functions.values())))}
    config.hook.pytest_deselected(items=[i for i in items if turns[functions[i]] != part])
    items[:] = [item for item in items if turns[functions[item]] == part]


def pytest_configure(config):
    # What one example takes is mostly compilation, and on a busy machine anything.
    hypothesis.settings.register_profile("no deadline", deadline=None)
    hypothesis.settings.load_profile("no deadline")
    # Read by this process before it imports JAX, and by the sweeps that tests start.
    directory = config.cache.mkdir("jax") if hasattr(config, "cache") else None
    if directory is not None:
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(directory))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    # Programs that run once need not be fast, and are ready in a third of the time. XLA_FLAGS=
    # keeps what users have.
    flags = "--xla_backend_optimization_level=0"
    # Later ones end the process where they meet what they do not know any more.
    if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 11):
        flags += " --xla_cpu_use_fusion_emitters=false"
    os.environ.setdefault("XLA_FLAGS", flags)


@pytest.fixture(autouse=True)
def few_programs():
    """Lets compiled programs go when there are many; files keep them."""
    yield
    maps = pathlib.Path("/proc/self/maps")
    if maps.exists() and len(maps.read_text().splitlines()) > MANY_MAPS:
        import jax

        jax.clear_caches()


@pytest.fixture
def devices_stay(monkeypatch):
    """Sweeps in this process leave its devices, which its first test that touched JAX chose."""
    from physlm import devices

    monkeypatch.setattr(devices, "prepare", lambda *rest, **settings: None)


@pytest.fixture
def unrendered(monkeypatch):
    """Figures are built, and their pictures empty: rendering is most of what a report takes."""
    from physlm.experiments.figures import drawing

    monkeypatch.setattr(drawing, "_saved", lambda figure, kind: b"")


@pytest.fixture
def shown(tmp_path):
    """The directory of what a study shows, in a store."""
    directory = tmp_path / "quickstart-quick"
    directory.mkdir()
    return directory
