"""What is packed: types, and everything that a sweep needs, and nothing else."""

import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest

import physlm

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("data_gen", "experiments", "physlm")


def test_importing_it_imports_no_jax():
    command = "import sys, physlm, data_gen; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", command], check=True, cwd=ROOT)


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
