import dataclasses
import re
import shutil

import pytest
from fake_runs import STUDY, VIEW, FakeRuns, main, rows_in, times

from physlm.experiments import plan, run, sweep

pytestmark = pytest.mark.usefixtures("devices_stay")


def test_finished_runs_are_skipped_and_results_are_complete(tmp_path, capsys):
    fake = FakeRuns(failing=(0.0,))
    assert main(tmp_path, execute=fake) == 1
    assert fake.trained == [0.5]
    assert [row["accuracy"] for row in rows_in(tmp_path)] == [0.5]
    error = capsys.readouterr().err.splitlines()[-1]
    assert re.match(r"1 of 2 runs failed \(error-free,gpt2.*error.txt", error)
    (planned, _) = plan.plan(STUDY, "smoke", ())
    recorded = (tmp_path / "models" / planned.run.name / run.ERROR_FILE).read_text()
    assert "in the fourth layer" in recorded
    assert "Traceback" in recorded

    fake = FakeRuns()
    assert main(tmp_path, execute=fake) == 0
    assert fake.trained == [0.0]
    assert not (tmp_path / "models" / planned.run.name / run.ERROR_FILE).exists()
    assert [row["accuracy"] for row in rows_in(tmp_path)] == [0.0, 0.5]
    assert (tmp_path / VIEW / "accuracy.png").exists()

    fake = FakeRuns()
    assert main(tmp_path, execute=fake) == 0
    assert fake.trained == fake.judged == []


def test_devices_are_as_many_as_can_share_every_batch(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(sweep.devices, "prepare", lambda *arguments: told.append(arguments[1]))
    assert main(tmp_path / "a", "--set", "train.batch=12", "train.accumulate=2") == 0
    batches = [{"train.batch": 8}, {"train.batch": 12}]
    study = dataclasses.replace(STUDY, sweep=lambda: iter(batches))
    monkeypatch.setattr(sweep.registry, "load", lambda name: study)
    assert main(tmp_path / "b", "--dry-run") == 0
    assert told == [6, 4]


def test_results_are_refreshed_after_each_run(tmp_path):
    seen = []

    class Watching(FakeRuns):
        def train(self, planned, directory):
            seen.append(len(rows_in(tmp_path)))
            super().train(planned, directory)

    assert main(tmp_path, execute=Watching()) == 0
    assert seen == [0, 1]


def test_further_seeds_add_to_the_same_directory(tmp_path):
    assert main(tmp_path) == 0
    assert main(tmp_path, "--set", "seed=1") == 0
    rows = rows_in(tmp_path)
    assert [(row["condition"]["retry_rate"], row["seed"]) for row in rows] == [
        (0.0, 0),
        (0.0, 1),
        (0.5, 0),
        (0.5, 1),
    ]


def test_interrupt_says_how_to_go_on(tmp_path, capsys):
    assert main(tmp_path, execute=FakeRuns((0.5,), KeyboardInterrupt())) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert main(tmp_path) == 0


def test_all_runs_failing_is_not_a_crash(tmp_path, capsys):
    assert main(tmp_path, execute=FakeRuns((0.0, 0.5))) == 1
    assert "2 of 2 runs failed" in capsys.readouterr().err
    assert rows_in(tmp_path) == []


# What is trained once.


@pytest.fixture
def other_study(tmp_path, monkeypatch):
    """A study of the user's own, that has the runs of the other one and one more."""
    package = tmp_path / "package" / "mine"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "masking.py").write_text(
        '''"""What does masking change?"""
from physlm.experiments import config

get_config = config.base

def sweep():
    yield {"mistakes.rate": 0.0}
    yield {"mistakes.rate": 0.5, "mistakes.mask": "none"}
    yield {"mistakes.rate": 0.5, "mistakes.mask": "name"}
'''
    )
    monkeypatch.syspath_prepend(str(package.parent))
    return "mine.masking"


def test_another_study_and_other_judging_train_nothing_again(tmp_path, other_study):
    assert main(tmp_path) == 0
    models = tmp_path / "models"
    before = times(models)
    fake = FakeRuns()
    assert main(tmp_path, study=other_study, execute=fake) == 0
    assert (fake.trained, fake.judged) == ([0.5], [(0.5, 16)])
    (new,) = set(models.iterdir()) - set(before)
    assert {
        p: t for p, t in times(models).items() if p != models and new not in (p, *p.parents)
    } == {path: time for path, time in before.items() if path != models}
    rows = rows_in(tmp_path, "mine.masking-smoke")
    assert [(row["condition"], row["study"]) for row in rows] == [
        ({"retry_rate": 0.5, "mask": "name"}, "mine.masking"),
        ({"retry_rate": 0.5, "mask": "none"}, "mine.masking"),
        ({"retry_rate": 0.0}, "mine.masking"),
    ]
    assert len(rows_in(tmp_path)) == 2

    # Another number of problems is another evaluation; nothing else in the models is touched.
    before = times(models)
    fake = FakeRuns()
    assert main(tmp_path, "--set", "evaluate.problems=17", execute=fake) == 0
    assert (fake.trained, fake.judged) == ([], [(0.0, 17), (0.5, 17)])
    touched = {path for path, time in times(models).items() if before.get(path) != time} - {models}
    assert touched and all("evaluations" in path.parts for path in touched)
    rows = rows_in(tmp_path)
    assert [row["condition"].get("problems") for row in rows] == [17, 17, None, None]
    assert len({(row["run"], row["evaluation"]) for row in rows}) == 4
    # What the other study shows is its own.
    assert main(tmp_path, study=other_study) == 0
    assert len(rows_in(tmp_path, "mine.masking-smoke")) == 3


def test_what_is_trained_and_not_judged_is_judged(tmp_path, capsys):
    assert main(tmp_path) == 0
    (planned, _) = plan.plan(STUDY, "smoke", ())
    directory = tmp_path / "models" / planned.run.name
    shutil.rmtree(directory / "evaluations")
    fake = FakeRuns()
    assert main(tmp_path, execute=fake) == 0
    assert (fake.trained, fake.judged) == ([], [(0.0, 16)])
    assert f"run 1/2 {planned.run.name}: trained before, is judged" in capsys.readouterr().err
