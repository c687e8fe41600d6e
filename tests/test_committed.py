"""The committed results: their commands ask for them still, and their pages are whole."""

import json
import pathlib
import re
import shlex

import pytest

from physlm.experiments import evaluation as evaluation_lib
from physlm.experiments import options, results
from physlm.experiments.view import COMMANDS_FILE

# Made before a default changed, and what has: their studies say so.
OLDER = {"probing-quick": "warmup_steps"}

DIRECTORIES = sorted((pathlib.Path(__file__).parents[1] / "experiments/results").iterdir())

pytestmark = pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda path: path.name)


def test_their_commands_would_make_the_same_runs(directory):
    """Else a default has changed since, and what a reader makes is something else."""
    rows = results.read(directory / results.FILE)
    steps = {row["run"]: row["step"] for row in rows}
    asked = set()
    for command in (directory / COMMANDS_FILE).read_text().splitlines():
        *head, study, scale = re.match(r"(\S+) (\S+) (\S+) (\S+) --scale (\S+)", command).groups()
        assert head == ["python", "-m", "physlm.experiments.sweep"]
        assert f"{study}-{scale}" == directory.name
        for entry in options.entries(options.parse(shlex.split(command)[3:])):
            name = entry.run.name
            evaluation = evaluation_lib.name_of(entry.evaluation.config, steps.get(name, 0))
            asked.add((name, evaluation, json.dumps(dict(entry.condition), sort_keys=True)))
    known = {
        (row["run"], row["evaluation"], json.dumps(row["condition"], sort_keys=True))
        for row in rows
    }
    if changed := OLDER.get(directory.name):
        assert len(asked) == len(known)
        assert asked != known and all(changed in condition for *_, condition in asked - known)
    else:
        assert asked == known


def test_their_pages_show_their_pictures_and_commands(directory):
    page = (directory / "results.md").read_text()
    assert f"```bash\n{(directory / COMMANDS_FILE).read_text()}```" in page
    shown = set(re.findall(r"\]\((\S+\.png)\)", page))
    assert shown == {path.name for path in directory.glob("*.png")} != set()
