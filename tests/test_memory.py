"""What cannot fit is refused before anything compiles, with what can."""

import re

import pytest
from fake_runs import FakeRuns, main
from test_sweep_refusals import refused

from data_gen import settings
from data_gen.__main__ import main as data_gen
from data_gen.settings import RefusedError
from data_gen.solutions.mistakes import SENTENCE_LIMIT, Mistakes
from data_gen.spec import HARD, MED, Spec
from physlm import devices
from physlm.experiments import memory, plan, registry
from physlm.experiments.config import declared

pytestmark = pytest.mark.usefixtures("devices_stay")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["mesh.cpu_devices=100000"], "^mesh.cpu_devices is 100000; it must be .* in 0..1024"),
        (
            ["train.steps=99999999999999999999"],
            "^train.steps is 9+; it must be .* at most 2147",
        ),
        (["evaluate.problems=4294967296"], "^evaluate.problems is 4294967296; it must be a whole"),
        (["evaluate.beyond=4,4294967296"], "^evaluate.beyond is .4, 4294967296.; it must be"),
        (["train.batch=1000000000", "train.steps=2000000000"], "^train.steps is .* at most 34 of"),
        (["mistakes.rate=0.999999"], "^mistakes.rate is 0.999999; it must be at most 0.9"),
        (["train.batch=4000000"], "^train.batch is 4000000; it must be at most .* GiB of memory"),
        (["model.heads=20000"], "takes .* TiB of each device for parameters, their gradients"),
    ],
)
def test_what_cannot_fit_is_one_sentence_and_leaves_nothing(
    tmp_path, capsys, monkeypatch, arguments, complaint
):
    monkeypatch.setattr(devices, "room", lambda device: 12 << 30)
    refused(tmp_path / "work", capsys, complaint, "--set", *arguments)


def test_what_is_only_planned_may_be_for_another_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "room", lambda device: 1 << 10)
    assert main(tmp_path, "--dry-run") == 0
    assert main(tmp_path) == 2
    monkeypatch.setattr(devices, "room", lambda device: 1 << 40)
    fake = FakeRuns()
    assert main(tmp_path, execute=fake) == 0 and fake.trained


def test_the_batch_that_fits_is_found(monkeypatch):
    (one, _) = plan.plan(registry.load("quickstart"), "smoke", ["train.batch=1024"])
    monkeypatch.setattr(devices, "room", lambda device: 200_000 + memory.state_bytes(one.run) * 2)
    with pytest.raises(RefusedError, match=r"^train.batch is 1024; it must be at most ") as found:
        memory.check(one.run)
    fits = int(re.search(r"at most (\d+)", str(found.value))[1])
    (smaller, _) = plan.plan(registry.load("quickstart"), "smoke", [f"train.batch={fits}"])
    memory.check(smaller.run)
    assert 0 < fits < 1024


@pytest.mark.parametrize("spec", [MED, HARD, Spec(reask=True)])
@pytest.mark.parametrize("late", [0, 3])
def test_a_rate_that_has_no_room_says_which_has(spec, late):
    mistakes = Mistakes("skip", 0.9999999, whole=True, late=late, mend="back:0.5,restart:0.5")
    with pytest.raises(RefusedError, match=r"^rate is 0\.9999999; it must be at most 0\.9") as said:
        mistakes.check(spec)
    fits = float(re.search(r"at most ([\d.]+)", str(said.value))[1])
    for rate, enough in ((fits, True), (fits + 0.002, False)):
        other = Mistakes("skip", rate, whole=True, late=late, mend="back:0.5,restart:0.5")
        assert (other.sentence_cap(spec) <= SENTENCE_LIMIT) == enough


def test_rates_of_studies_have_room():
    for rate in (0.0, 0.05, 0.5, 0.9, 0.95):
        Mistakes("skip", rate).check(HARD)


def test_a_rate_without_room_is_refused_before_anything_is_drawn(capsys, monkeypatch):
    monkeypatch.setattr("data_gen.problems.search.sample_many", None)
    assert data_gen(["sample", "--mistakes", "retry", "--rate", "0.99999"]) == 2
    assert capsys.readouterr().err.startswith("rate is 0.99999; it must be at most 0.9")


def test_no_whole_number_is_beyond_what_is_counted_in():
    for name, known in declared().items():
        if known.type is int:
            assert not known.accepts(settings.LIMIT + 1), name
            with pytest.raises(RefusedError, match=rf"^{name} is {2**80}; it must be a whole"):
                known.check(name, 2**80)
