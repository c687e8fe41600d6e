"""The committed results: their commands ask for them still, and their pages are whole."""

import json
import pathlib
import re
import shlex

import pytest

from physlm.experiments import evaluation as evaluation_lib
from physlm.experiments import options, results
from physlm.experiments.view import COMMANDS_FILE

# Runs that were trained by other versions than runs of the same name in other directories.
ALONE = {
    ("finetune-quick", "skip-0.2,gpt2-4-2,12.3M,seed=0-107b669e"),
}

RESULTS = pathlib.Path(__file__).parents[1] / "experiments/results"
DIRECTORIES = sorted(path for path in RESULTS.iterdir() if path.is_dir())

each = pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda path: path.name)


def test_runs_have_the_same_numbers_in_all_of_them():
    """But for those that are known to differ, which the page about all of them tells of."""
    found = {}
    for directory in DIRECTORIES:
        for row in results.read(directory / results.FILE):
            cell = (row["run"], row["evaluation"], row["cell"])
            found.setdefault(cell, {})[directory.name] = row["accuracy"]
    several = {run for (run, *_), known in found.items() if len(known) > 1}
    assert f"- Of {len(several)} runs that stand in several" in (RESULTS / "README.md").read_text()
    differ = set()
    for (run, *_), known in found.items():
        usual = {v for name, v in known.items() if (name, run) not in ALONE}
        assert len(usual) <= 1, (run, known)
        differ |= {(name, run) for name in known if {known[name]} != usual and len(known) > 1}
    assert differ == ALONE


@each
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
    assert asked == known


@each
def test_their_pages_show_their_pictures_and_commands(directory):
    page = (directory / "results.md").read_text()
    assert f"```bash\n{(directory / COMMANDS_FILE).read_text()}```" in page
    shown = set(re.findall(r"\]\((\S+\.png)\)", page))
    assert shown == {path.name for path in directory.glob("*.png")} != set()


@each
def test_they_say_what_they_show_and_what_they_do_not(directory):
    """By hand: a report that is made again leaves it as it is."""
    text = (directory / "README.md").read_text()
    study, _, scale = directory.name.rpartition("-")
    assert text.startswith(f"# {study} at {scale}\n")
    for head in ("**Shown:** ", "**Not shown:** ", "**Made:** "):
        assert text.count(head) == 1
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (directory / link).exists()
    rows = results.read(directory / results.FILE)
    # Where there are several, it says which seeds.
    seeds = sorted({row["seed"] for row in rows})
    assert "seed" in text and all(re.search(rf"\b{seed}\b", text) for seed in seeds)
