"""What solutions and trainings took, as a report keeps it beside `results.jsonl`."""

import json
import shutil

import pytest
from fake_results import fake_rows, fake_sweep
from test_outcomes import write_solutions

from physlm import model
from physlm.experiments import accounts, config, files, material, outcomes, report, results, run
from physlm.experiments.figures.drawing import Trained

ACCOUNT = {"tokens": 31.5, "passes": 30.0, "capped": 0.25, "retries_wrong": None, "wrong": {"x": 3}}
PARTS = {
    cell: {
        "held_out": {"n": 150, "accuracy": 0.9},
        "shared": {"n": 50, "accuracy": 0.99},
        "distinct": {"problems": 199, "templates": 17},
        "account": ACCOUNT | {"tokens": 31.5 + number},
    }
    for number, cell in enumerate(("<=4", "4", "5", "6"))
}


def by_decoding(rate):
    return {"retry_rate": 0.5, "decode": "greedy" if rate else "beam:4"}


def with_accounts(directory, rows):
    """A sweep whose evaluations say all that they can, and whose runs left their losses."""
    fake_sweep(directory, rows, parts=PARTS)
    write_solutions(directory, rows)
    for number, name in enumerate(dict.fromkeys(row["run"] for row in rows)):
        losses = [
            {"tokens": 100 * step, "recent_loss": (2 + number) / step} for step in range(1, 9)
        ]
        path = directory.parent / "models" / name / "metrics.jsonl"
        path.write_text("".join(f"{json.dumps(line)}\n" for line in losses))


def files_of(directory):
    return {
        path.name: path.read_bytes()
        for path in directory.iterdir()
        if path.suffix in (".png", ".jsonl", ".csv") or path.name == report.TABLE_FILE
    }


def test_pictures_and_tables_are_the_same_where_the_store_is_not(shown):
    rows = fake_rows(seeds=2, condition=by_decoding)
    with_accounts(shown, rows)
    report.make(shown)
    made = files_of(shown)
    assert {"tokens.png", "loss.png", accounts.FILE} <= made.keys()
    (shown.parent / "models").rename(shown.parent / "away")
    said = report.make(shown)
    assert files_of(shown) == made
    assert "cut off %" in said and "25.0" in said and "held out: strict %" in said
    # As were directories of earlier versions.
    for name in (accounts.FILE, "tokens.png", "loss.png"):
        (shown / name).unlink()
    said = report.make(shown)
    assert "cut off %" not in said
    assert not {accounts.FILE, "tokens.png", "loss.png"} & {path.name for path in shown.iterdir()}


@pytest.mark.usefixtures("unrendered")
def test_files_of_several_stores_are_one_after_the_other(shown, tmp_path):
    rows = fake_rows(seeds=2, condition=by_decoding)
    with_accounts(shown, rows)
    report.make(shown)
    together = tmp_path / "together" / shown.name
    together.mkdir(parents=True)
    for seed in (1, 0):
        store = tmp_path / f"store-{seed}" / shown.name
        store.mkdir(parents=True)
        mine = [row for row in rows if row["seed"] == seed]
        for kept in (shown.parent / "models").glob(f"*seed={seed}*"):
            shutil.copytree(kept, store.parent / "models" / kept.name)
        results.write(store / results.FILE, mine)
        report.make(store)
        for name in (results.FILE, outcomes.FILE, accounts.FILE):
            with (together / name).open("ab") as file:
                file.write((store / name).read_bytes())
    report.make(together)
    # The order of seeds alone differs.
    for name in (accounts.FILE, "table.md"):
        one, other = ((place / name).read_text().splitlines() for place in (shown, together))
        assert sorted(one) == sorted(other)


def test_what_a_run_is_again_counts_and_not_what_it_was(shown):
    rows = fake_rows()
    with_accounts(shown, rows)
    report.make(shown)
    fake_sweep(shown, rows)
    assert "cut off %" not in report.make(shown)
    assert "account" not in (shown / accounts.FILE).read_text()


def test_sizes_of_models_are_kept(shown):
    rows = fake_rows(rates=(0.5,))
    with_accounts(shown, rows)
    planned = run.make_run(config.base("smoke"))
    rows = [row | {"run": planned.name} for row in rows]
    with_accounts(shown, rows)
    files.write_json(shown.parent / "models" / planned.name / run.CONFIG_FILE, planned.config)
    report.make(shown)
    shutil.rmtree(shown.parent / "models")
    found = material.Material(shown, rows)
    ((one,),) = found.trained.values()
    count = model.count(planned.settings.model)
    assert one == Trained(count, 1_000_000, 2 / 8)
    assert found.curves[found.lines[0].label] == [[(100 * n, 2 / n) for n in range(1, 9)]]


@pytest.mark.parametrize(
    "damage",
    [
        lambda row: "{",
        lambda row: "3",
        lambda row: json.dumps(row | {"run": 3}),
        lambda row: json.dumps(row | {"account": [1]}),
        lambda row: json.dumps(row | {"account": {"tokens": 1}}),
        lambda row: json.dumps(row | {"account": {"tokens": "1", "capped": 0}}),
        lambda row: json.dumps(row | {"account": {"tokens": 1, "capped": 0, "x": {"y": "z"}}}),
        lambda row: json.dumps(row | {"held_out": {"n": 3}}),
        lambda row: json.dumps({"run": row["run"], "parameters": None}),
        lambda row: json.dumps({"run": row["run"], "parameters": "1M", "losses": []}),
        lambda row: json.dumps({"run": row["run"], "parameters": 1, "losses": [[1, "2"]]}),
        lambda row: json.dumps({"run": row["run"], "parameters": 1, "losses": [1]}),
        lambda row: json.dumps(
            {"run": row["run"], "parameters": 1, "losses": [], "made_by": {"jax": 1}}
        ),
        lambda row: json.dumps({"run": row["run"], "parameters": 1, "losses": [], "versions": []}),
    ],
)
@pytest.mark.usefixtures("unrendered")
def test_accounts_that_cannot_be_read_are_left_out_and_said(shown, damage):
    rows = fake_rows()
    with_accounts(shown, rows)
    report.make(shown)
    path = shown / accounts.FILE
    whole = path.read_text().splitlines()
    path.write_text("\n".join([*whole[:-1], damage(json.loads(whole[-1]))]) + "\n")
    shutil.rmtree(shown.parent / "models")
    said = report.make(shown)
    assert "1 line of accounts.jsonl could not be read and left out." in said
    assert path.read_text().splitlines() == whole[:-1]
