"""Commands that are interrupted while packages are imported say nothing, and leave with 130."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest

from data_gen import interrupts

ROOT = pathlib.Path(__file__).parent.parent

# A package as others that take long to import: it turns an interrupt into an error of its own.
SLOW = """
import signal, time
print("importing", flush=True)
try:
    time.sleep(60)
except BaseException as error:
    raise ImportError("something is wrong with this package") from error
"""


def interrupted(tmp_path, command):
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy" / "__init__.py").write_text(SLOW)
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    # Tests that are started in the background of a script may ignore interrupts, and children too.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
    finally:
        signal.signal(signal.SIGINT, before)
    assert process.stdout.readline() == b"importing\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    return process.returncode, out + err


@pytest.mark.parametrize(
    "module",
    [
        "data_gen",
        "physlm.experiments.sweep",
        "physlm.experiments.report",
        "physlm.experiments.status",
        "physlm.experiments.evaluate",
        "physlm.export",
        "physlm.adopt",
        "physlm.tools.roofline",
    ],
)
def test_an_interrupt_while_modules_are_imported_is_quiet(tmp_path, module):
    assert interrupted(tmp_path, [sys.executable, "-m", module]) == (130, b"")


@pytest.mark.parametrize("arguments", [["physlm", "status", "x"], ["igsm", "kinds"]])
def test_installed_commands_are_quiet_too(tmp_path, arguments):
    package = {"physlm": "physlm", "igsm": "data_gen"}[arguments[0]]
    code = f"import sys; sys.argv = ['/bin/{arguments[0]}', *{arguments[1:]!r}]; "
    code += f"from {package}.__main__ import command; command()"
    assert interrupted(tmp_path, [sys.executable, "-c", code]) == (130, b"")
    shutil.rmtree(tmp_path / "numpy")
    if package == "physlm":
        command = [sys.executable, "-m", *arguments]
        assert interrupted(tmp_path, command) == (130, b"")


def test_whoever_imports_the_packages_keeps_interrupts(tmp_path):
    code, said = interrupted(tmp_path, [sys.executable, "-c", "import data_gen, physlm, numpy"])
    assert code in (1, -signal.SIGINT) and b"Traceback" in said


def test_a_command_that_began_is_interrupted_as_python_does(monkeypatch):
    def main():
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupts._leave)
    try:
        with pytest.raises(SystemExit) as left:
            interrupts.run(main)
    finally:
        signal.signal(signal.SIGINT, before)
    assert left.value.code == 130
