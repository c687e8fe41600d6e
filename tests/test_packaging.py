"""What is installed: commands, versions, types, and everything that a sweep needs."""

import importlib
import pathlib
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest

import physlm
from physlm import __main__ as commands

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_one_version_is_written_once():
    assert PROJECT["dynamic"] == ["version"] and "version" not in PROJECT
    cited = (ROOT / ".github" / "CITATION.cff").read_text()
    assert f"\nversion: {physlm.__version__}\n" in cited


def test_every_command_has_a_module_that_takes_arguments(capsys):
    for name, (module, _) in commands.COMMANDS.items():
        with pytest.raises(SystemExit) as left:
            importlib.import_module(module).main(["--help"])
        assert left.value.code == 0
        assert module.removesuffix(".__main__") in capsys.readouterr().out, name
    assert commands.main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in commands.COMMANDS)


def test_commands_that_there_are_not(capsys):
    assert commands.main(["swep"]) == 2
    assert capsys.readouterr().err.startswith("there is no command 'swep'; there are sweep, ")
    assert commands.main([]) == 2
    assert capsys.readouterr().err.startswith("a command is missing; there are sweep, ")
    assert commands.main(["--version"]) == 0
    assert capsys.readouterr().out == f"physlm {physlm.__version__}\n"


def test_arguments_reach_the_command(capsys):
    assert commands.main(["evaluate", "nowhere"]) == 2
    assert "nowhere is not the directory of a run" in capsys.readouterr().err


def test_scripts_are_these_commands():
    for name, target in PROJECT["scripts"].items():
        module, function = target.split(":")
        assert callable(getattr(importlib.import_module(module), function)), name


def test_importing_it_imports_no_jax():
    command = "import sys, physlm, data_gen; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", command], check=True, cwd=ROOT)


@pytest.mark.slow
def test_wheel_and_sdist_hold_everything_and_nothing_else(tmp_path):
    pytest.importorskip("build", reason="needs physlm[test]")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path)]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tracked = subprocess.run(
        ["git", "ls-files", "data_gen", "physlm", "experiments"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\n")  # fmt: skip
    packages = {path.parent for path in map(pathlib.Path, tracked) if path.name == "__init__.py"}
    code = {p for p in tracked if p.endswith(".py") and pathlib.Path(p).parent in packages}
    assert code and code <= {*names}
    assert {f"{package}/py.typed" for package in ("data_gen", "physlm", "experiments")} <= {*names}
    inside = {name.split("/")[0] for name in names}
    assert inside == {
        "data_gen", "physlm", "experiments", f"physlm-{physlm.__version__}.dist-info"
    }  # fmt: skip
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        kept = {"/".join(name.split("/")[1:]) for name in opened.getnames()}
    assert code | {"LICENSE", "README.md", "pyproject.toml"} <= kept
