"""The installed commands, `physlm` and `igsm`."""

import importlib
import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import tomllib
import types

import pytest

import physlm
from data_gen.__main__ import main as igsm
from physlm import __main__ as console

ROOT = pathlib.Path(__file__).parent.parent


def project():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture
def called(monkeypatch):
    """Says by which program Python was started."""
    return lambda program: monkeypatch.setattr(sys, "argv", [program])


def leaves(main, arguments):
    with pytest.raises(SystemExit) as leaving:
        main(arguments)
    return leaving.value.code


@pytest.mark.parametrize("name", console.COMMANDS)
def test_usage_is_how_the_command_was_called(name, capsys, called):
    called("/anywhere/bin/physlm")
    assert leaves(console.main, [name, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: physlm {name} [-h]")
    module = console.COMMANDS[name][0]
    called(importlib.util.find_spec(module).origin)
    assert leaves(importlib.import_module(module).main, ["--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.startswith(f"usage: python -m {module.removesuffix('.__main__')} [-h]")


def test_every_module_that_is_a_command_has_a_name():
    named = {importlib.util.find_spec(module).origin for module, _ in console.COMMANDS.values()}
    commands = {
        str(path)
        for path in (ROOT / "physlm").rglob("*.py")
        if "\nif __name__ ==" in path.read_text() and path.parent.name != "tools"
    }
    assert {str(pathlib.Path(path)) for path in named} == commands - {console.__file__}


def test_help_lists_the_commands_and_imports_none_of_them(capsys):
    assert console.main(["--help"]) == 0
    listed = capsys.readouterr().out
    for name, (_, what) in console.COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(what)}$", listed, re.M)
    code = "import sys; from physlm.__main__ import main; main(['--help']); "
    code += "sys.exit('jax' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_the_version_is_the_package_s(capsys):
    assert console.main(["--version"]) == 0
    assert capsys.readouterr().out == f"physlm {physlm.__version__}\n"
    # It is written once.
    assert "version" in project()["project"]["dynamic"]
    assert project()["tool"]["setuptools"]["dynamic"]["version"]["attr"] == "physlm.__version__"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["swep"], "unknown command 'swep' (nearest: sweep): there are sweep, status, "),
        (["--colour"], "unknown command '--colour': there are sweep, status, "),
        ([], "a command is missing: there are sweep, status, "),
    ],
)
def test_what_is_no_command_is_one_sentence(arguments, complaint, capsys):
    assert console.main(arguments) == 2
    out, err = capsys.readouterr()
    assert err.startswith(complaint) and err.count("\n") == 1 and not out


def test_a_command_is_given_the_rest_and_its_code_is_returned(monkeypatch, capsys):
    seen = []

    def main(arguments):
        seen.append(arguments)
        if arguments == ["wait"]:
            raise KeyboardInterrupt
        return 3

    monkeypatch.setitem(sys.modules, "a_command", types.SimpleNamespace(main=main))
    monkeypatch.setattr(console, "COMMANDS", {"try": ("a_command", "tries")})
    assert console.main(["try", "--this", "that"]) == 3
    monkeypatch.setattr(sys, "argv", ["physlm", "try", "one"])
    assert console.main() == 3
    assert console.main(["try", "wait"]) == 130
    assert seen == [["--this", "that"], ["one"], ["wait"]]
    assert capsys.readouterr() == ("", "")


def test_installed_commands_find_studies_in_the_working_directory(tmp_path):
    script = tmp_path / "bin" / "physlm"
    script.parent.mkdir()
    script.write_text("from physlm.__main__ import command\ncommand()\n")
    (tmp_path / "here" / "mine").mkdir(parents=True)
    (tmp_path / "here" / "mine" / "study.py").write_text("")
    done = subprocess.run(
        [sys.executable, script, "sweep", "mine.study"],
        cwd=tmp_path / "here",
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stderr == "the study 'mine.study' lacks the function get_config.\n"


def test_problems_have_a_command_too(monkeypatch, capsys, called):
    called("/anywhere/bin/igsm")
    assert leaves(igsm, ["--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("usage: igsm [-h]") and "python -m" not in shown
    called("/anywhere/data_gen/__main__.py")
    assert leaves(igsm, ["--help"]) == 0
    assert capsys.readouterr().out.startswith("usage: python -m data_gen [-h]")

    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("data_gen.__main__.kinds.in_words", interrupted)
    assert igsm(["kinds"]) == 130
    assert capsys.readouterr() == ("", "")


def test_the_names_stand_for_what_there_is():
    scripts = project()["project"]["scripts"]
    assert list(scripts) == ["physlm", "igsm"]
    for place in scripts.values():
        module, _, name = place.partition(":")
        assert callable(getattr(importlib.import_module(module), name))
