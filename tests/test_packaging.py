"""What is packed: types, and everything that a sweep needs, and nothing else."""

import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile
from typing import NamedTuple

import pytest
from benchmarks import mutants

import physlm

ROOT = pathlib.Path(__file__).parents[1]
CONFTEST = pathlib.Path(__file__).with_name("conftest.py")
PACKAGES = ("data_gen", "experiments", "physlm")


def test_importing_it_imports_no_jax():
    command = "import sys, physlm, data_gen; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", command], check=True, cwd=ROOT)


def test_mutants_are_drawn_of_all_that_decodes_and_of_nothing_that_is_gone():
    decoding = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("physlm/decoding/[!_]*.py")}
    assert decoding and decoding <= {*mutants.NEAREST}
    assert all((ROOT / module).is_file() for module in mutants.NEAREST)
    for commands in mutants.NEAREST.values():
        files = [word for one in commands for word in one.split() if word.endswith(".py")]
        assert files and all(CONFTEST.with_name(name).is_file() for name in files)


class _Item(NamedTuple):
    nodeid: str


class _Configuration:
    """As much of pytest's configuration as its hooks here ask for."""

    def __init__(self, turn):
        self.turn, self.hook, self.left_out = turn, self, []

    def getoption(self, name):
        return getattr(self, name)

    def pytest_deselected(self, items):
        self.left_out += items


@pytest.mark.parametrize("parts", [1, 3, 7])
def test_turns_share_all_tests_out_and_leave_cases_together(request, parts):
    every = [_Item(f"test_{n // 3}[{n % 3}]") for n in range(30)]
    known = request.config.pluginmanager.get_plugins()
    hooks = next(one for one in known if getattr(one, "__file__", "") == str(CONFTEST))
    done = []
    for part in range(1, parts + 1):
        items, config = list(every), _Configuration((part, parts))
        hooks.pytest_collection_modifyitems(config, items)
        assert {*items, *config.left_out} == {*every}
        names = [item.nodeid.partition("[")[0] for item in items]
        assert all(names.count(name) == 3 for name in names) and names
        done += items
    assert sorted(done) == sorted(every)


@pytest.mark.parametrize(
    ("marks", "turn", "found"),
    [("not slow", "1/2", "b"), ("not slow", "2/2", "c"), ("slow", "1/2", "a"), ("", "2/2", "b")],
)
def test_turns_are_of_the_tests_that_are_selected(tmp_path, marks, turn, found):
    shutil.copy(CONFTEST, tmp_path)
    tests = "import pytest\n@pytest.mark.slow\ndef test_a(): pass\n"
    (tmp_path / "test_x.py").write_text(f"{tests}def test_b(): pass\ndef test_c(): pass\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow: takes long\n")
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "--turn", turn, "-m", marks]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    names = [line[-1] for line in made.stdout.splitlines() if line.startswith("test_x.py::")]
    assert names == [found]


def test_a_turn_that_there_is_not_is_refused():
    command = [sys.executable, "-m", "pytest", "--turn", "3/2"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 4 and "--turn is '3/2'; it must be K/N with K in 1..N" in made.stderr


@pytest.mark.slow
def test_wheel_and_sdist_hold_everything_and_nothing_else(tmp_path):
    pytest.importorskip("build", reason="needs physlm[test]")
    # In a copy, as building leaves files behind.
    source = tmp_path / "source"
    for name in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path)]
    subprocess.run([*command, str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"physlm-{physlm.__version__}-py3-none-any.whl"
    names = set(zipfile.ZipFile(wheel).namelist())
    code = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if (path.parent / "__init__.py").exists()
    }
    assert "experiments/quickstart.py" in code
    described = f"physlm-{physlm.__version__}.dist-info/"
    data = {"physlm/experiments/published.csv", *(f"{package}/py.typed" for package in PACKAGES)}
    assert {name for name in names if not name.startswith(described)} == code | data
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        kept = {"/".join(name.split("/")[1:]) for name in opened.getnames()}
    assert code | data | {"LICENSE", "README.md", "pyproject.toml"} <= kept
