"""Where data is made."""

import threading
import types

import jax
import pytest
from drawn import SMALL
from etils import epath
from test_evaluate import Silent

from data_gen import device
from data_gen.device import of_data
from data_gen.frozen import rows
from data_gen.settings import RefusedError
from data_gen.solutions.mistakes import Mistakes
from data_gen.windows import stream
from data_gen.windows.configuration import Windows
from data_gen.windows.questions import QuestionStream
from data_gen.windows.stream import Stream
from physlm import cells, overlap, practice
from physlm.analysis import Loaded
from physlm.cells import EvalConfig
from physlm.doctor import trials
from physlm.doctor.finding import Asked
from physlm.experiments import execution

CORES = jax.local_devices(backend="cpu")[0]


class AskedError(Exception):
    """Problems are asked for; none are made."""


def where_asked(monkeypatch, thread: str, what: str = "problems") -> set:
    """The devices on which that thread is to make problems, as soon as it is; it ends then."""
    seen, real = set(), getattr(stream, what)

    def made(*asked, **rest):
        # Other tests' streams may still be at work.
        if not threading.current_thread().name.startswith(thread):
            return real(*asked, **rest)
        seen.add(jax.config.jax_default_device)
        raise AskedError

    monkeypatch.setattr(stream, what, made)
    return seen


def test_the_machine_says_where(monkeypatch):
    assert (of_data(), of_data("devices"), of_data("cpu")) == (None, None, CORES)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert (of_data(), of_data("devices"), of_data("cpu")) == (CORES, None, CORES)

    def absent(backend):
        raise RuntimeError(f"no {backend}")

    monkeypatch.setattr(jax, "local_devices", absent)
    assert of_data() is None
    with pytest.raises(RefusedError, match=r"^mesh\.input is 'cpu'; it must be auto or devices"):
        of_data("cpu")


@pytest.mark.parametrize("kind", ["stream", "questions"])
@pytest.mark.parametrize("place", [CORES, None])
def test_a_stream_makes_it_on_the_device_that_is_named(kind, place, monkeypatch):
    seen = where_asked(monkeypatch, kind)
    shared = {"seed": 0, "batch": 4, "device": place}
    if kind == "stream":
        made = Stream(SMALL, Mistakes(), Windows(96), **shared)
    else:
        made = QuestionStream(SMALL, Mistakes(), window=96, task="can_next", count=2, **shared)
    with pytest.raises(AskedError):
        made.batch(0)
    assert seen == {place}


@pytest.mark.parametrize("which", ["tests", "rows", "overlap"])
def test_what_no_stream_makes_is_made_there_too(which, monkeypatch):
    asked = EvalConfig(problems=3, within=(), beyond=(), seed=1234)
    sets = cells.test_sets(SMALL, asked, 160, Silent) if which == "overlap" else []
    cells._drawn.clear()
    seen = where_asked(monkeypatch, threading.current_thread().name)
    monkeypatch.setattr(device, "of_data", lambda *_: CORES)
    with pytest.raises(AskedError):
        if which == "tests":
            cells.test_sets(SMALL, asked, 160, Silent)
        elif which == "rows":
            next(rows.drawn(SMALL, seed=0))
        else:
            monkeypatch.setattr(cells, "test_sets", lambda *_: sets)
            shape = {"seed": 0, "first": 32, "config": asked, "progress": Silent}
            overlap.count(SMALL, Mistakes(), Windows(160), **shape)
    assert seen == {CORES}


@pytest.mark.parametrize("which", ["practice", "analysis", "doctor", "budget"])
def test_what_a_run_has_made_beside_its_stream_is_made_there_too(which, tmp_path, monkeypatch):
    asked = Asked(epath.Path(tmp_path), ("train.budget=problems", "mistakes.rate=0.5"))
    settings = asked.settings
    what = "segments" if which == "budget" else "problems"
    seen = where_asked(monkeypatch, threading.current_thread().name, what)
    for module in (device, execution):
        monkeypatch.setattr(module, "of_data", lambda *_: CORES)
    with pytest.raises(AskedError):
        if which == "practice":
            shape = {"model": settings.model, "spec": settings.data, "config": settings.practice}
            practice.own_mistakes({}, **shape, seed=0, batch=4, progress=Silent)
        elif which == "analysis":
            of_run = types.SimpleNamespace(settings=settings)
            Loaded(of_run, {}).texts(2)
        elif which == "doctor":
            trials.generator(asked)
        else:
            execution.budgeted(settings)
    assert seen == {CORES}
