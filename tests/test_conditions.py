"""Parents and children: what is planned, in which order, and that parents are trained once."""

import contextlib
import dataclasses
import json
import pathlib
import re
from typing import Any

import numpy as np
import pytest
from fake_runs import STUDY
from test_train import distance

from data_gen.settings import RefusedError
from experiments import finetune as study_of_finetuning
from experiments import probing as study_of_probes
from physlm.experiments import (
    ancestry,
    condition,
    conditions,
    config,
    execution,
    files,
    plan,
    registry,
    run,
    sweep,
    weights,
)  # fmt: skip
from physlm.experiments.conditions import Planned, Times
from physlm.experiments.store import Store

ERROR_FREE = conditions.pretrain(**{"mistakes.rate": 0.0})
RETRY = {"mistakes.rate": 0.2}


def planned(*asked: Any, settings: tuple[str, ...] = ()) -> list[Any]:
    study = dataclasses.replace(STUDY, sweep=lambda: iter(asked))
    return plan.plan(study, "smoke", settings)


def changed(entry: Any, base: Any) -> dict[str, Any]:
    """In what two runs differ."""
    ours, theirs = (config.flatten(one.run.config) for one in (entry, base))
    return {key: value for key, value in ours.items() if value != theirs[key]}


def test_conditions_are_their_differences() -> None:
    base, *entries = planned(
        ERROR_FREE,
        conditions.pretrain_2x(**RETRY),
        conditions.continued(ERROR_FREE, **RETRY),
        conditions.continued_fraction(ERROR_FREE, 0.5, **RETRY),
        conditions.full_finetune(ERROR_FREE, **RETRY),
        conditions.lora(ERROR_FREE, rank=4, **RETRY),
    )
    name, rate = base.run.name, base.run.settings.optimizer.learning_rate
    steps, decay = base.run.settings.train.steps, base.run.settings.optimizer.weight_decay
    warmup, save = base.run.settings.optimizer.warmup_steps, base.run.settings.train.save_every
    twice, continued, half, full, lora = [changed(entry, base) for entry in entries]
    child = {"parent.run": name, "mistakes.rate": 0.2, "optimizer.learning_rate": rate / 2}
    assert twice == {
        "mistakes.rate": 0.2,
        "train.steps": 2 * steps,
        "optimizer.weight_decay": pytest.approx(0.6 * decay),
    }
    assert continued == {**child, "parent.optimizer": "carried"}
    assert half == {
        **continued,
        "train.steps": steps // 2,
        "train.save_every": save // 2,
        "optimizer.warmup_steps": max(1, warmup // 2),
    }
    assert full == child
    assert lora == {
        **child,
        "train.steps": 2 * steps,
        "train.batch": base.run.settings.train.batch // 2,
        "adaptation.kind": "lora",
        "adaptation.rank": 4,
    }
    assert [entry.condition.get("trained") for entry in entries] == [
        "for twice as long",
        "continued",
        "continued for 0.5 of the steps",
        "full finetuning",
        "LoRA of rank 4",
    ]
    assert {entry.condition.get("parent") for entry in entries[1:]} == {"error-free"}
    # What is said of all runs is said of parents and of what a multiple is taken of.
    other = planned(conditions.pretrain_2x(**RETRY), settings=("train.steps=50", "seed=4"))[0]
    assert (other.run.settings.train.steps, other.run.settings.seed) == (100, 4)


def test_identity_includes_the_parents() -> None:
    def name(parent: Planned, **changes: Any) -> str:
        return planned(conditions.lora(parent, **changes, **RETRY))[0].run.name

    longer = conditions.pretrain(**{"mistakes.rate": 0.0, "train.steps": 50})
    names = [
        name(ERROR_FREE),
        name(longer),
        name(ERROR_FREE, **{"parent.checkpoint": "best"}),
        name(ERROR_FREE, rank=4),
        name(ERROR_FREE, **{"adaptation.alpha": 16.0}),
    ]
    assert len(set(names)) == len(names)
    # Of grandparents, too; and not of how a parent is judged.
    again = conditions.continued(conditions.continued(ERROR_FREE, **RETRY), **RETRY)
    other = conditions.continued(conditions.continued(longer, **RETRY), **RETRY)
    assert planned(again)[0].run.name != planned(other)[0].run.name
    judged = conditions.pretrain(**{"mistakes.rate": 0.0, "evaluate.problems": 9})
    assert name(judged) == name(ERROR_FREE)


def published() -> list[Planned]:
    """Every condition of Part 2.2 that trains a model."""
    rates = conditions.over("mistakes.rate", 0.05, 0.1, 0.2, 0.5)
    masks = conditions.over("mistakes.mask", "none", "name")
    kinds = conditions.over("mistakes.kind", "retry_weak", "retry_miss")
    rows = [{"mistakes.rate": 0.0}, {"mistakes.rate": 0.4}]
    rows += conditions.product(rates, masks)
    found = [conditions.pretrain(**row) for row in rows]
    found += [
        conditions.pretrain(**row) for row in conditions.chain(conditions.product(kinds, rates))
    ]
    found += [
        conditions.lora(ERROR_FREE, rank=2**power, **row)
        for power in range(2, 9)
        for row in conditions.product(rates, masks)
    ]
    found += [conditions.pretrain_2x(**{"mistakes.rate": rate}) for rate in (0.0, 0.05, 0.5)]
    for row in rates:
        found += [
            conditions.continued(ERROR_FREE, **row),
            conditions.continued_fraction(ERROR_FREE, **row),
            conditions.full_finetune(ERROR_FREE, **row),
        ]
    found += [conditions.probe(ERROR_FREE), conditions.second_probe(ERROR_FREE)]
    return found


def test_a_probe_is_trained_on_as_many_questions_as_are_asked_for() -> None:
    changes = {"probe.questions": 3, "mistakes.rate": 0.0}
    (entry,) = planned(conditions.probe(None, **changes))
    rows = np.arange(entry.run.settings.train.batch)
    stream = execution.stream_of(entry.run, pathlib.Path(), rows)
    with contextlib.closing(stream) as questions:
        assert questions.batch(0)["answers"].shape == (len(rows), 3)


def test_every_published_condition_can_be_said() -> None:
    """At the smallest scale with a model that is wide enough for every rank."""
    wide = ("model.heads=16", "model.head_dim=32", "data.tokenizer=word", "train.steps=200")
    wide = (*wide, "data.names=20", "data.hierarchies=4", "data.subcategories=5")
    asked = published()
    entries = planned(*asked, settings=wide)
    assert len(entries) == len(asked) == 2 + 8 + 8 + 56 + 3 + 12 + 2
    assert len({entry.run.name for entry in entries}) == len(entries)
    ranks = {entry.run.settings.adaptation.rank for entry in entries}
    assert ranks >= {4, 8, 16, 32, 64, 128, 256}
    paper = [plan.plan(dataclasses.replace(STUDY, sweep=lambda: iter(asked)), "paper")]
    by_title = {entry.condition.get("trained"): entry.run.settings for entry in paper[0]}
    lora, probe = by_title["LoRA of rank 256"], by_title["probe of rank 8"]
    assert (lora.train.batch, lora.train.steps) == (256, 200_000)
    assert lora.optimizer.learning_rate == pytest.approx(1e-3)
    assert lora.adaptation.ranks() == {
        "attention/(query|value)/kernel": 256,
        "embed/embedding": 512,
    }
    assert by_title["for twice as long"].optimizer.weight_decay == pytest.approx(0.03)
    assert by_title["continued for 0.1 of the steps"].train.steps == 10_000
    assert (probe.train.batch, probe.optimizer.weight_decay) == (256, pytest.approx(0.01))
    assert (probe.optimizer.decay, probe.optimizer.final_fraction) == ("linear", 0.0)
    second = by_title["probe of rank 32 and 2"]
    assert (second.train.batch, second.train.steps) == (8, 16_000)
    assert second.adaptation.ranks() == {
        "attention/(query|value)/kernel": 2,
        "embed/embedding": 32,
    }


@pytest.mark.parametrize(
    ("scale", "rows", "double", "decay"),
    [("paper", 256, 0.03, 0.05), ("paper_hard", 128, 0.02, 0.03)],
)
def test_numbers_of_both_published_classes(
    scale: str, rows: int, double: float, decay: float
) -> None:
    """Appendix B: LoRA and probes take as many steps for iGSM-hard, which pretrains for twice."""
    asked = (
        conditions.pretrain_2x(**RETRY),
        conditions.continued(ERROR_FREE, **RETRY),
        conditions.lora(ERROR_FREE, **RETRY),
        conditions.probe(ERROR_FREE),
        conditions.second_probe(ERROR_FREE),
    )
    entries = plan.plan(dataclasses.replace(STUDY, sweep=lambda: iter(asked)), scale)
    twice, continued, lora, first, second = (entry.run.settings for entry in entries)
    assert twice.optimizer.weight_decay == pytest.approx(double)
    assert twice.train.steps == 2 * continued.train.steps
    assert continued.optimizer.weight_decay == decay
    steps = [one.train.steps for one in (lora, first, second)]
    assert steps == [200_000, 100_000, 16_000]
    assert [one.train.batch for one in (lora, first, second)] == [rows, rows, 8]
    decays = [one.optimizer.weight_decay for one in (lora, first, second)]
    assert decays == pytest.approx([0.05, 0.01, 0.0])
    assert second.optimizer.warmup_steps == 160


def test_parents_come_first_and_once(tmp_path: pathlib.Path) -> None:
    parent = conditions.pretrain(**{"mistakes.rate": 0.1})
    children = [
        conditions.continued(parent, **{"mistakes.rate": rate}) for rate in (0.1, 0.2, 0.3, 0.4)
    ]
    grandchild = conditions.full_finetune(children[3], **RETRY)
    entries = planned(grandchild, *children)
    todo = plan.tasks(entries)
    names = [task.run.name for task in todo]
    assert len(names) == len(set(names)) == 6
    # The parent alone is not asked for, and so is not judged.
    assert [len(task.evaluations) for task in todo] == [0, 1, 1, 1, 1, 1]
    for task in todo:
        if task.run.parent:
            assert names.index(task.run.parent.name) < names.index(task.run.name)
    groups = plan.groups(todo, Store(tmp_path))
    depths = [[task.run.depth for task in group] for group in groups]
    assert depths == sorted(depths) and all(len(set(group)) == 1 for group in depths)
    assert depths[0][0] == 0 and depths[-1][0] == 2


def test_children_of_one_program_wait_for_all_their_parents(tmp_path: pathlib.Path) -> None:
    """Though the second one's parent, of another shape, is asked for after the first child."""
    parents = [
        conditions.pretrain(**{"mistakes.rate": 0.0, "train.steps": steps}) for steps in (20, 30)
    ]
    asked = [one for parent in parents for one in (parent, conditions.full_finetune(parent))]
    entries = planned(*asked, settings=("mesh.population=2", "mesh.data=1"))
    groups = plan.groups(plan.tasks(entries), Store(tmp_path))
    assert [[task.run.depth for task in group] for group in groups] == [[0], [0], [1, 1]]


@pytest.mark.slow
def test_a_parent_is_trained_once_for_all_its_children(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shipped studies at the smallest scale, with fewer rates and tasks, in one store."""
    for name, values in (("RATES", (0.5,)), ("MASKS", ("name",)), ("RANKS", (8,))):
        monkeypatch.setattr(study_of_finetuning, name, values)
    monkeypatch.setattr(study_of_probes, "TASKS", ("can_next", "val"))
    monkeypatch.setattr(sweep.devices, "prepare", lambda *arguments: None)
    steps = ["train.steps=6", "evaluate.problems=8", "evaluate.beyond=4", "train.save_every=3"]
    steps += ["optimizer.warmup_steps=0"]

    def go(study: str) -> str:
        arguments = [study, "--scale", "smoke", "--workdir", str(tmp_path), "--set", *steps]
        assert sweep.main(arguments) == 0, capsys.readouterr().err
        return capsys.readouterr().err

    said = go("finetune")
    trained = re.findall(r"(\S+): (?:starts|goes on)", said)
    assert len(trained) == len(set(trained)) == 8
    rows = (tmp_path / "finetune-smoke" / "results.jsonl").read_text().splitlines()
    assert len({json.loads(row)["run"] for row in rows}) == 8
    models = tmp_path / "models"
    before = {path: path.stat().st_mtime_ns for path in models.rglob("*") if path.is_file()}
    said = go("probing")
    trained = re.findall(r"(\S+): (?:starts|goes on)", said)
    assert len(trained) == 11
    assert sum(name.startswith("probe-8,") for name in trained) == 8
    assert sum(name.startswith("probe-16,") for name in trained) == 3
    for count in (0, 1, 7):
        assert re.search(rf"trains [\d,]+ parameters in {count} adapters and a head, \d", said)
    # Nothing of what was trained before is touched.
    for path, time in before.items():
        assert path.stat().st_mtime_ns == time, path
    of_a_parent = next(name for name in trained if ",of=" in name)
    (one,) = (models / of_a_parent).glob("evaluations/*/result.json")
    cell = json.loads(one.read_text())["cells"][0]
    assert set(cell["probe"]) == {"n", "accuracy", "balanced", "auroc", "yes", "own"}
    # Each of two problems, a quarter of what the models solve, is asked about ten times; the
    # probe's parent is what is frozen in it.
    assert cell["n"] == cell["probe"]["n"] == 20
    child = run.load(models / of_a_parent)
    parent = models / child.settings.parent.run
    state = weights.restored(child, models / of_a_parent, "final")
    _, frozen = weights.joined(child, models / of_a_parent, state)
    final = weights.restored(run.load(parent), parent, "final").params
    assert distance(frozen, final) == 0
    earlier = run.make_run(
        config.override(
            config.override(
                config.base("smoke"),
                {
                    key: tuple(value) if isinstance(value, list) else value
                    for key, value in config.flatten(child.config).items()
                },
            ),
            {"parent.checkpoint": "3"},
        )
    )
    read = weights.parent(earlier, models / of_a_parent)
    assert read is not None
    before = weights.restored(run.load(parent), parent, "3").params
    assert distance(read()[0], before) == 0 < distance(before, final)
    shown = (tmp_path / "probing-smoke" / "results.md").read_text()
    assert "linear probe" in shown and "AUROC" in shown
    assert go("finetune").count("finished before, skipped") == 8


@pytest.mark.parametrize(
    ("changes", "apart"),
    [
        ({"adaptation.kind": "probe", "probe.reads": "frozen"}, True),
        ({"adaptation.kind": "probe"}, False),
        ({"probe.reads": "frozen"}, False),
    ],
)
def test_a_probe_that_has_texts_read_by_the_frozen_model_keeps_it(
    changes: dict[str, str], apart: bool
) -> None:
    chosen = config.resolve(config.override(config.base("smoke"), changes))
    assert chosen.learning.adaptation.apart == apart


def test_what_is_missing_or_does_not_fit_is_refused(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    def said(*settings: str) -> str:
        arguments = ["quickstart", "--scale", "smoke", "--workdir", str(tmp_path), "--set"]
        assert sweep.main([*arguments, *settings]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert not (tmp_path / "quickstart-smoke").exists()
        return error

    assert "parent.run is 'nothing'; it must be the name of a run in" in said("parent.run=nothing")
    smoke = registry.configure(registry.load("quickstart"), "smoke")
    one = run.make_run(smoke)
    directory = tmp_path / "models" / one.name
    directory.mkdir(parents=True)
    files.write_json(directory / run.CONFIG_FILE, one.config)
    other = said(f"parent.run={one.name}", "model.layers=3", "data.max_op=2")
    assert "differs in data.max_op (there 3, here 2), model.layers (there 2, here 3)." in other
    assert "which is not trained to its end yet" in said(f"parent.run={one.name}")
    assert "parent.checkpoint is 'last'; it must be final, best or a step" in said(
        f"parent.run={one.name}", "parent.checkpoint=last"
    )
    assert "parent.optimizer is 'carried'; it must be 'fresh', since" in said(
        f"parent.run={one.name}", "parent.optimizer=carried", "optimizer.name=adamw"
    )
    assert "adaptation.rank is 99; it must be such that no rank" in said(
        "adaptation.kind=lora", "adaptation.rank=99"
    )


def test_who_descends_from_itself_is_refused(tmp_path: pathlib.Path) -> None:
    """As files can say, though no study can: names hold hashes of parents."""
    smoke = registry.configure(registry.load("quickstart"), "smoke")
    for name, parent in (("a-1", "b-2"), ("b-2", "a-1")):
        one = run.make_run(config.override(smoke, {"parent.run": parent}))
        (tmp_path / name).mkdir()
        files.write_json(tmp_path / name / run.CONFIG_FILE, one.config)
        run.finish(tmp_path / name, 1, 1.0)
    one = run.load(tmp_path / "a-1")
    with pytest.raises(ValueError, match="'a-1' descends from itself"):
        ancestry.lineage(one, tmp_path)


@pytest.mark.parametrize("fraction", [0.0, -1.0, 1.5])
def test_a_fraction_is_above_0_and_at_most_1(fraction: float) -> None:
    with pytest.raises(RefusedError, match=r"fraction is .*; it must be above 0"):
        conditions.continued_fraction(ERROR_FREE, fraction)


def test_sweeps_combine() -> None:
    rates, masks = conditions.over("r", 1, 2), conditions.over("m", "a", "b")
    assert list(conditions.product(rates, masks)) == [
        {"r": 1, "m": "a"}, {"r": 1, "m": "b"}, {"r": 2, "m": "a"}, {"r": 2, "m": "b"}
    ]  # fmt: skip
    assert list(conditions.zipped(rates, masks)) == [{"r": 1, "m": "a"}, {"r": 2, "m": "b"}]
    assert list(conditions.chain(rates, masks)) == [{"r": 1}, {"r": 2}, {"m": "a"}, {"m": "b"}]
    with pytest.raises(ValueError):
        list(conditions.zipped(rates, [{}]))
    assert (Times(0.5).of(5), Times(0.1).of(3), Times(0.5).of(0.4)) == (2, 1, 0.2)
    assert Times(3).of(0) == 0


def test_labels_leave_out_what_all_mistakes_have_in_common():
    """The report says it once; where it alone tells mistakes from none, labels say it."""
    free = {"retry_rate": 0.0, "kind": "skip"}
    kinds = [free, *({"retry_rate": 0.2, "kind": kind} for kind in ("skip", "value"))]
    labels = ["error-free solutions", "mistakes of the kind skip", "mistakes of the kind value"]
    assert [condition.label(one, kinds) for one in kinds] == labels
    assert condition.in_common(kinds) == "mistakes at rate 0.2"

    masks = [free, *({"retry_rate": 0.5, "mask": mask} for mask in ("none", "name"))]
    assert [condition.label(one, masks)[:8] for one in masks[1:]] == ["mistakes"] * 2
    assert condition.label(masks[2], masks) == "mistakes, masked"

    ways = [
        {"retry_rate": rate, "decode": way} for rate in (0.0, 0.5) for way in ("greedy", "beam:4")
    ]
    assert condition.label(ways[3], ways) == "with mistakes and corrections, rate 0.5, beam:4"
    rates = [free, *({"retry_rate": rate, "kind": "skip"} for rate in (0.2, 0.5))]
    assert condition.label(rates[1], rates) == "with mistakes and corrections, rate 0.2"
    for told in (ways, rates, kinds[:2], kinds[1:]):
        assert condition.in_common(told) == ""
