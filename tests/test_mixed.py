"""Results that differ in more than their seed: said, and not averaged."""

import json

import pytest
from fake_results import fake_rows, fake_sweep

from physlm.experiments import config, material, report, run


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


def planned_rows(shown, **changes):
    """Rows of two seeds whose runs the store has; that of seed 1 has other settings, too."""
    chosen = [{"mistakes.rate": 0.5, "seed": 0}, {"mistakes.rate": 0.5, "seed": 1, **changes}]
    planned = [run.make_run(config.override(config.base("smoke"), one)) for one in chosen]
    rows = [row | {"run": planned[row["seed"]].name} for row in fake_rows((0.5,), seeds=2)]
    fake_sweep(shown, rows)
    for one in planned:
        directory = shown.parent / "models" / one.name
        (directory / run.CONFIG_FILE).write_text(json.dumps(one.config))
        (directory / "versions.json").write_text('{"physlm": "0.1.0", "jax": "0.10.2"}')
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
    rows = planned_rows(shown, **changes)
    found = material.Material(shown, rows)
    assert len(found.lines) == conditions
    assert len(found.mixed) == (0 if conditions == 1 else 2)
    assert ("are shown apart and not averaged" in report.make(shown)) == (conditions == 2)


@pytest.mark.parametrize(
    ("other", "conditions"), [({"physlm": "0.2.0"}, 2), ({"physlm": "0.1.0", "jax": "0.12"}, 1)]
)
def test_seeds_of_another_release_are_not_averaged(shown, other, conditions):
    rows = planned_rows(shown)
    (shown.parent / "models" / rows[0]["run"] / "versions.json").write_text(json.dumps(other))
    assert len(material.Material(shown, rows).lines) == conditions
    # Either is said.
    assert "Warning: runs were not all trained by the same versions" in report.make(shown)
