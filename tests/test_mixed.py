"""Results that differ in more than their seed: said, and not averaged."""

import json

import pytest
from fake_results import fake_rows, fake_sweep

from physlm.experiments import accounts, config, material, report, results, run, versions

pytestmark = pytest.mark.usefixtures("unrendered")


@pytest.mark.parametrize("field", ["run", "evaluation"])
def test_runs_that_only_look_alike_are_shown_apart(shown, field):
    rows = fake_rows()
    others = [row | {field: row[field] + "x", "accuracy": 0.5} for row in rows]
    fake_sweep(shown, rows + others)
    text = report.make(shown)
    assert "Warning: runs of one condition, but of" in text and "are shown apart" in text
    (_, first), (_, second) = [
        (line.label, line.points[0].accuracy)
        for line in material.Material(shown, rows + others).lines
        if line.label.startswith("error-free")
    ]
    # Nothing is averaged over them.
    assert {first, second} == {0.975, 0.5}


def test_runs_of_several_versions_are_said(shown):
    rows = fake_rows(seeds=2)
    fake_sweep(shown, rows)
    said = {"physlm": "0.1.0", "git_commit": "0123456789", "jax": "0.10.0", "device_kind": "cpu"}
    runs = list(dict.fromkeys(row["run"] for row in rows))
    for name in runs:
        (shown.parent / "models" / name / "versions.json").write_text(json.dumps(said))
    assert "same versions" not in report.make(shown)
    other = {**said, "device_kind": "NVIDIA H200"}
    (shown.parent / "models" / runs[0] / "versions.json").write_text(json.dumps(other))
    text = report.make(shown)
    assert "1 run by physlm 0.1.0 at 0123456, jax 0.10.0, NVIDIA H200" in text
    assert f"{len(runs) - 1} runs by physlm 0.1.0 at 0123456, jax 0.10.0, cpu" in text
    other = {**said, "cpu": "A Processor, avx2"}
    (shown.parent / "models" / runs[0] / "versions.json").write_text(json.dumps(other))
    assert "1 run by physlm 0.1.0 at 0123456, jax 0.10.0, cpu (A Processor, avx2)" in report.make(
        shown
    )


@pytest.mark.parametrize(
    ("told", "known"),
    [
        ("model name\t: EPYC\nflags\t\t: fpu sse4_2 avx avx2 avx512f", "EPYC, avx512f"),
        ("model name\t: EPYC\nflags\t\t: fpu sse4_2 avx avx2", "EPYC, avx2"),
        ("model name\t: Old\nflags\t\t: fpu", "Old"),
        ("processor\t: 0\nFeatures\t: fp asimd\n", "some processor, asimd"),
        (None, "some processor"),
    ],
)
def test_kinds_of_cpus_are_told_apart(tmp_path, monkeypatch, told, known):
    """The same seed has been another model on another one."""
    described = tmp_path / "cpuinfo"
    if told is not None:
        described.write_text(told)
    monkeypatch.setattr(versions, "_PROCESSOR", described)
    monkeypatch.setattr(versions.platform, "processor", lambda: "some processor")
    assert versions.versions()["cpu"] == known


def planned(*chosen):
    return [run.make_run(config.override(config.base("smoke"), one)) for one in chosen]


def put(shown, one):
    directory = shown.parent / "models" / one.name
    directory.mkdir(parents=True, exist_ok=True)
    (directory / run.CONFIG_FILE).write_text(json.dumps(one.config))
    (directory / "versions.json").write_text('{"physlm": "0.1.0", "jax": "0.10.2"}')


def planned_rows(shown, *changes):
    """Rows of two seeds whose runs the store has, each with some changes of its settings."""
    chosen = [{"mistakes.rate": 0.5, "seed": seed, **one} for seed, one in enumerate(changes)]
    runs = planned(*chosen)
    rows = [row | {"run": runs[row["seed"]].name} for row in fake_rows((0.5,), seeds=2)]
    fake_sweep(shown, rows)
    for one in runs:
        put(shown, one)
    return rows


@pytest.mark.parametrize(
    ("changes", "conditions"),
    [
        ({}, 1),
        # What decides nothing, and what decides.
        ({"mesh.population": 3}, 1),
        ({"optimizer.learning_rate": 0.5}, 2),
    ],
)
def test_seeds_of_other_settings_are_not_averaged(shown, changes, conditions):
    """As where a study's file was edited between two seeds."""
    rows = planned_rows(shown, {}, changes)
    found = material.Material(shown, rows)
    assert len(found.lines) == conditions
    assert len(found.mixed) == (0 if conditions == 1 else 2)
    assert ("are shown apart and not averaged" in report.make(shown)) == (conditions == 2)


@pytest.mark.parametrize(
    ("other", "conditions"), [({"physlm": "0.2.0"}, 2), ({"physlm": "0.1.0", "jax": "0.12"}, 1)]
)
def test_seeds_of_another_release_are_not_averaged(shown, other, conditions):
    rows = planned_rows(shown, {}, {})
    (shown.parent / "models" / rows[0]["run"] / "versions.json").write_text(json.dumps(other))
    assert len(material.Material(shown, rows).lines) == conditions
    # Either is said.
    assert "Warning: runs were not all trained by the same versions" in report.make(shown)


@pytest.mark.parametrize(
    ("changes", "other", "conditions", "makers"),
    [
        ({}, {}, 1, 1),
        ({"optimizer.learning_rate": 0.5}, {}, 2, 1),
        ({}, {"physlm": "0.2.0"}, 2, 2),
        ({}, {"cpu": "an abacus"}, 1, 2),
    ],
)
@pytest.mark.parametrize("where", ["without the store", "put together from two stores"])
def test_files_alone_tell_what_the_store_did(
    shown, tmp_path, where, changes, other, conditions, makers
):
    rows = planned_rows(shown, {}, changes)
    file = shown.parent / "models" / rows[-1]["run"] / "versions.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | other))
    kept = (results.FILE, accounts.FILE)
    parts = [rows]
    if where == "put together from two stores":
        parts = [[row for row in rows if row["seed"] == seed] for seed in (0, 1)]
    alone = tmp_path / "elsewhere" / shown.name
    alone.mkdir(parents=True)
    for part in parts:
        results.write(shown / results.FILE, part)
        report.make(shown)
        for name in kept:
            with (alone / name).open("a") as file:
                file.write((shown / name).read_text())
    found = material.Material(alone, rows)
    assert (len(found.lines), len(found.makers)) == (conditions, makers)
    text = report.make(alone)
    assert ("are shown apart and not averaged" in text) == (conditions == 2)
    assert ("runs were not all trained by the same versions" in text) == (makers == 2)


@pytest.mark.parametrize(
    ("changes", "conditions"),
    [({}, 1), ({"optimizer.learning_rate": 0.5}, 2), ("another release", 2), ("gone", 1)],
)
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("key", ["parent.run", "evaluate.probe"])
def test_seeds_whose_ancestors_differ_are_not_averaged(shown, changes, conditions, depth, key):
    """As where a model was trained again, otherwise, before another seed began with it."""
    more = changes if isinstance(changes, dict) else {}
    first = ancestors = planned({"seed": 0}, {"seed": 1, **more})
    if depth == 2:
        named = [{"seed": seed, "parent.run": one.name} for seed, one in enumerate(first)]
        ancestors = planned(*named)
    asked = {"evaluate.decode": "regret:probe"} if key == "evaluate.probe" else {}
    rows = planned_rows(shown, *({key: one.name, **asked} for one in ancestors))
    for one in (*first, *ancestors):
        put(shown, one)
    if key == "evaluate.probe":
        for row, one in zip(
            dict.fromkeys((row["run"], row["evaluation"]) for row in rows), ancestors, strict=True
        ):
            judged = shown.parent / "models" / row[0] / "evaluations" / row[1] / run.CONFIG_FILE
            judged.parent.mkdir(parents=True, exist_ok=True)
            judged.write_text(json.dumps({"evaluate": {"probe": one.name}}))
    directory = shown.parent / "models" / first[1].name
    if changes == "another release":
        (directory / "versions.json").write_text('{"physlm": "0.2.0"}')
    if changes == "gone":
        (directory / run.CONFIG_FILE).unlink()
    found = material.Material(shown, rows)
    assert len(found.lines) == conditions
    assert len(found.mixed) == (0 if conditions == 1 else 2)


def test_what_an_earlier_report_knew_of_ancestors_that_are_gone_counts(shown):
    parents = planned({"seed": 0}, {"seed": 1, "optimizer.learning_rate": 0.5})
    rows = planned_rows(shown, *({"parent.run": one.name} for one in parents))
    for one in parents:
        put(shown, one)
    report.make(shown)
    (shown.parent / "models" / parents[1].name / run.CONFIG_FILE).unlink()
    assert len(material.Material(shown, rows).lines) == 2
