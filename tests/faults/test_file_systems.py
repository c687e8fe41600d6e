"""File systems that fill up, that turn read-only, and that lose the last bytes of a file."""

import pathlib
import re
import shutil

import mounts
import pytest
from harness import FAULTS, Sweep, seeds
from test_again import swept

from physlm import adopt, export

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("how", ["mounted", "injected"])
@pytest.mark.parametrize("seed", seeds(5))
def test_full(fault, how, seed):
    """At a random write there is room for no more; later there is."""
    if how == "injected":
        # What arrays are written by raises nothing then; the file system below does.
        Sweep(fault.plan("writing", inject="ENOSPC")).end()
        fault.recover()
        return
    with mounts.small(fault.store.parent / "small") as place:
        fault.store = place / "store"
        sweep = Sweep(fault.plan("writing"))
        assert sweep.halted(), sweep.said
        left = fault.draw.choice([0, fault.draw.randrange(1 << 16)])
        fault.say(f"{left} bytes are left")
        with mounts.filled(place, left):
            sweep.go_on()
            sweep.end()
        fault.recover()


# The array store's threads may print what was not seen in any of the faults that were tried.
_PRINTS = pytest.param("mounted", marks=pytest.mark.xfail(reason="what the array store prints"))


@pytest.mark.parametrize("how", [_PRINTS, "injected"])
@pytest.mark.parametrize("seed", seeds(5))
def test_read_only(fault, how, seed):
    """From a random write on nothing can be written; later it can."""
    if how == "injected":
        Sweep(fault.plan("writing", inject="EROFS")).end()
        fault.recover()
        return
    fault.store.mkdir()
    sweep = Sweep(fault.plan("writing"))
    assert sweep.halted(), sweep.said
    fault.say("mounted read-only")
    with mounts.read_only(fault.store):
        sweep.go_on()
        sweep.end()
    fault.recover()


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("seed", seeds(4))
def test_last_bytes_are_lost(fault, finished, seed):
    """Of any file of the store, between two sweeps."""
    if finished:
        shutil.copytree(fault.undisturbed.store, fault.store)
    else:
        sweep = Sweep(fault.plan(fault.draw.choice(["checkpointing", "evaluating", "reporting"])))
        assert sweep.halted(), sweep.said
        sweep.kill()
    lose(fault)
    fault.recover()


def lose(fault) -> None:
    """Takes the last bytes of a file: kinds of files are as likely as one another."""
    kinds: dict[str, list[pathlib.Path]] = {}
    for path in sorted(fault.store.rglob("*")):
        if path.is_file() and path.stat().st_size:
            kinds.setdefault(path.suffix + path.parent.name.strip("0123456789"), []).append(path)
    path = fault.draw.choice(kinds[fault.draw.choice(sorted(kinds))])
    size = path.stat().st_size
    kept = fault.draw.choice([0, size - 1, fault.draw.randrange(size)])
    fault.say(f"{path.relative_to(fault.store)} has {kept} bytes left of {size}")
    with path.open("r+b") as file:
        file.truncate(kept)


# Of which the last bytes can be lost, each alone; checkpoints and what is made of these are drawn.
FILES = (
    "config.json",
    "evaluations/*/config.json",
    "evaluations/*/result.json",
    "evaluations/*/solutions.jsonl",
    "finished.json",
    "metrics.jsonl",
    "versions.json",
    "checkpoints/made_by.json",
    "../../quickstart-smoke/accounts.jsonl",
    "../../quickstart-smoke/outcomes.jsonl",
    "../../quickstart-smoke/results.jsonl",
    "../../quickstart-smoke/runs.json",
    "../../quickstart-smoke/shown.json",
)


@pytest.mark.skipif(FAULTS == 1, reason="takes minutes")
@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("seed", [0])
def test_half_of_a_file_is_lost(fault, name, seed):
    """Of a run that is finished, or of what is shown of it: it is said, and made again."""
    shutil.copytree(fault.undisturbed.store, fault.store)
    run = fault.draw.choice(sorted((fault.store / "models").iterdir()))
    (path,) = run.glob(name)
    fault.say(f"half of {name}")
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    # Losses follow from nothing else; a run is not trained again for them.
    said = fault.recover(losses=name != "metrics.jsonl")
    known = ("metrics.jsonl", "accounts.jsonl", "outcomes.jsonl")
    assert path.name.endswith(known) or f"{path.name}" in said


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    pytest.importorskip("transformers", minversion="5.14", reason="physlm[export]")
    workdir = tmp_path_factory.mktemp("runs")
    swept(workdir)
    return next((workdir / "models").iterdir())


@pytest.mark.parametrize("left", [0, 1 << 16])
def test_a_model_that_is_taken_elsewhere(tmp_path, capsys, monkeypatch, trained, left):
    """Out of a store, and into another: one sentence, nothing left behind, and done once it can."""
    full = r"cannot be written: .* (is|are) (left|free) there. Once there is more, the same command"
    with mounts.small(tmp_path / "small") as place:
        for room in (adopt, export):
            monkeypatch.setattr(room.devices, "prepare", lambda mesh, batch, cache_dir=None: None)
        out, workdir = place / "model", place / "runs"
        commands = {
            export: [str(trained), "--out", str(out)],
            adopt: [str(out), "--workdir", str(workdir)],
        }
        for module, arguments in commands.items():
            capsys.readouterr()
            with mounts.filled(place, left):
                assert module.main(arguments) == 1
                (sentence,) = capsys.readouterr().err.splitlines()
                assert re.search(full, sentence), sentence
                (target,) = (path for path in (out, workdir) if str(path) in sentence)
                assert not [p for p in target.rglob("*") if p.is_file()]
            assert module.main(arguments) == 0
