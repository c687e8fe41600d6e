"""What is packed: types, and everything that a sweep needs, and nothing else."""

import pathlib
import subprocess
import sys
import tarfile
import zipfile

import pytest

import physlm

ROOT = pathlib.Path(__file__).parents[1]


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
