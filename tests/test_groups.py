import types

from fake_runs import STUDY

from physlm.experiments import execution, plan, registry, run
from physlm.experiments.config import override
from physlm.experiments.store import Store


def grouped(tmp_path, monkeypatch, runs, devices=1, saved=None):
    monkeypatch.setattr(
        plan.sharding, "make_mesh", lambda mesh: types.SimpleNamespace(size=devices)
    )
    steps = {} if saved is None else dict(zip((run.name for run in runs), saved, strict=True))
    monkeypatch.setattr(run, "saved_steps", lambda directory: steps.get(directory.name, set()))
    found = plan.groups([execution.Task(one, ()) for one in runs], Store(tmp_path))
    names = [[task.run.name for task in group] for group in found]
    assert sorted(name for group in names for name in group) == sorted(one.name for one in runs)
    place = {one.name: number for number, one in enumerate(runs)}
    return [[place[name] for name in group] for group in names]


def runs_of(*changes, **shared):
    config = registry.configure(STUDY, "smoke")
    return [run.make_run(override(config, {**shared, **change})) for change in changes]


def test_runs_of_one_shape_are_one_program(tmp_path, monkeypatch):
    runs = runs_of(
        {"mistakes.rate": 0.0},
        {"mistakes.rate": 0.5, "mistakes.mask": "name", "seed": 1},
        {"optimizer.learning_rate": 1e-3},
        {"model.layers": 1},
        {"train.steps": 10},
        {"mistakes.kind": "value:0.5,skip:0.5", "mistakes.rate": 0.1, "mistakes.mend": "restart"},
        {"model.layers": 1, "seed": 3, "evaluate.problems": 5},
    )
    assert grouped(tmp_path, monkeypatch, runs) == [[0, 1, 2, 5], [3, 6], [4]]


def test_populations_fill_the_devices_and_leave_what_is_over_alone(tmp_path, monkeypatch):
    runs = runs_of(*({"seed": n} for n in range(7)), **{"mesh.population": 5})
    assert grouped(tmp_path, monkeypatch, runs) == [[0, 1, 2, 3, 4], [5, 6]]
    assert grouped(tmp_path, monkeypatch, runs, 2) == [[0, 1, 2, 3], [4, 5], [6]]
    assert grouped(tmp_path, monkeypatch, runs, 8) == [[n] for n in range(7)]
    alone = runs_of(*({"seed": n} for n in range(3)), **{"mesh.population": 1})
    assert grouped(tmp_path, monkeypatch, alone) == [[0], [1], [2]]


def test_small_models_fill_an_accelerator_together(tmp_path, monkeypatch):
    seeds = [{"seed": n} for n in range(9)]
    small = runs_of(*seeds, **{"mesh.population": 0})
    assert grouped(tmp_path, monkeypatch, small) == [[n] for n in range(9)]
    monkeypatch.setattr(plan.jax, "default_backend", lambda: "gpu")
    assert grouped(tmp_path, monkeypatch, small) == [list(range(8)), [8]]
    monkeypatch.setattr(plan.jax, "default_backend", lambda: "cpu")
    # A run for each core.
    assert grouped(tmp_path, monkeypatch, small, 2) == [[0, 1], [2, 3], [4, 5], [6, 7], [8]]
    # 12-12 at a batch of the paper's fills it alone.
    paper = {"model.size": "12-12", "train.batch": 512, "mesh.population": 0}
    large = runs_of(*seeds[:2], **paper)
    for backend in ("cpu", "gpu"):
        monkeypatch.setattr(plan.jax, "default_backend", lambda backend=backend: backend)
        assert grouped(tmp_path, monkeypatch, large) == [[0], [1]]


def test_runs_that_take_other_steps_are_alone(tmp_path, monkeypatch):
    rates = ({"mistakes.rate": 0.2, "seed": n} for n in range(2))
    runs = runs_of({}, *rates, {"seed": 1}, **{"train.budget": "problems"})
    assert grouped(tmp_path, monkeypatch, runs) == [[0, 3], [1], [2]]


def test_what_was_begun_is_not_put_with_what_was_not(tmp_path, monkeypatch):
    runs = runs_of(*({"seed": n} for n in range(5)))
    saved = [{5, 10}, set(), {10, 15}, {15, 20}, set()]
    assert grouped(tmp_path, monkeypatch, runs, saved=saved) == [[0, 2], [1, 4], [3]]
    # But for first checkpoints, of which a kill may have left some.
    saved = [{5}, set(), {5, 10}, {5}, set()]
    assert grouped(tmp_path, monkeypatch, runs, saved=saved) == [[0, 1, 3, 4], [2]]
    # What is finished is no longer trained with others.
    saved = [set(), set(), {20}, {20}, set()]
    for one in runs[2:4]:
        (tmp_path / "models" / one.name).mkdir(parents=True)
        run.finish(tmp_path / "models" / one.name, 20, 1.0)
    assert grouped(tmp_path, monkeypatch, runs, saved=saved) == [[0, 1, 4], [2], [3]]
