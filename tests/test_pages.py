"""The written pages: their links lead somewhere, and their commands are ones that there are."""

import pathlib
import re
import shlex
import sys

import pytest

from data_gen import options as problems
from physlm.__main__ import COMMANDS
from physlm.experiments import options, plan, registry

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("data_gen", "experiments", "physlm", "tests")
PAGES = sorted(
    [ROOT / "README.md", *(path for name in PACKAGES for path in (ROOT / name).rglob("*.md"))]
)
IGSM, SWEEP = ("python", "-m", "data_gen"), ("python", "-m", "physlm.experiments.sweep")


def anchors(path):
    """What a link to a page may name, as GitHub makes it of headings."""
    heads = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(path):
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if not link.startswith("https://"):
            file, _, anchor = link.partition("#")
            there = path.parent / file if file else path
            assert there.exists(), link
            assert not anchor or anchor in anchors(there), link


def test_readme_leads_to_every_page_of_a_package():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in ("data_gen", "physlm", "experiments", "experiments/results", "tests/benchmarks"):
        assert f"]({page}/README.md)" in text
    results = (ROOT / "experiments/results/README.md").read_text(encoding="utf-8")
    for directory in (ROOT / "experiments/results").iterdir():
        assert directory.is_file() or f"]({directory.name}" in results, directory.name


def commands(path):
    """The words of each line of its shell blocks."""
    blocks = re.findall(r"```bash\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    parts = [part for line in lines for part in re.split(r" && | \| ", line)]
    return [shlex.split(part, comments=True) for part in parts]


@pytest.mark.parametrize(
    "path", [path for path in PAGES if commands(path)], ids=lambda path: str(path.relative_to(ROOT))
)
def test_commands_that_are_shown_can_be_given(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for words in commands(path):
        if words[:1] == ["igsm"]:
            words = [*IGSM, *words[1:]]
        if tuple(words[:3]) == IGSM and "mykinds.again:0.5" not in " ".join(words):
            problems.parse(words[3 : words.index(">") if ">" in words else None], "")
        if words[:1] == ["physlm"]:
            assert words[1] in COMMANDS, words
            words = [*SWEEP, *words[2:]] if words[1] == "sweep" else words
        if tuple(words[:3]) == SWEEP and "--settings" not in words:
            # Those with a reader's own model, study, file or machine name it so.
            own = re.search(r"\b[A-Z]{3,}\b|mypackage|mended\.jsonl|\$|/shared", " ".join(words))
            assert own or options.entries(options.parse(words[3:])), words


def test_the_study_that_is_shown_can_be_run(tmp_path, monkeypatch):
    text = (ROOT / "experiments/README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "mypackage").mkdir()
    (tmp_path / "mypackage" / "depth.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    study = registry.load("mypackage.depth")
    (against,) = study.figures
    for scale in ("smoke", "paper"):
        entries = plan.plan(study, scale)
        settings = [entry.run.settings for entry in entries]
        kinds = {(one.model.layers, one.mistakes.rate) for one in settings}
        assert len(entries) == 6 and kinds == {(n, rate) for n in (2, 4, 8) for rate in (0.0, 0.5)}
        assert all(against.x in entry.condition for entry in entries)
    for name in ("mypackage.depth", "mypackage"):
        sys.modules.pop(name, None)
