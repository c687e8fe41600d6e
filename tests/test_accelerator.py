"""What waits for an accelerator runs, at a tiny size, with what an accelerator's image holds."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import jax
import pytest
from benchmarks import accelerator
from benchmarks.steps import kernels
from benchmarks.steps.figure import Figure, Setting

from experiments import quickstart
from physlm import attention

SCRIPT = pathlib.Path(accelerator.__file__)
# What such an image may lack, and what some lack.
LACKING = (
    "array_record",
    "grain",
    "importlib_resources",
    "matplotlib",
    "ml_collections",
    "scipy",
    "tensorflow_datasets",
    "torch",
    "tqdm",
    "transformers",
)
MEASURED = ("installed", "kernels", "training", "generator", "decoding", "population")
TINY = Setting(tiny=True, platform="cpu", devices=1, memory=0.0, out=pathlib.Path())


def call(out: pathlib.Path, *flags: str, without: pathlib.Path | None = None) -> Any:
    # Threads of PyTorch would wait for each other most of the time.
    env = {**os.environ, "OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu"}
    if without is not None:
        env["PYTHONPATH"] = str(without)
    command = [sys.executable, str(SCRIPT), "--out", str(out), "--tiny", *flags]
    # From elsewhere, so that nothing is found because it lies in the current directory.
    return subprocess.run(
        command, env=env, cwd=out.parent, capture_output=True, text=True, timeout=1500
    )


def lines(out: pathlib.Path) -> list[dict[str, Any]]:
    text = (out / accelerator.RESULTS_FILE).read_text()
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def lacking(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A directory on whose account these packages cannot be imported."""
    directory = tmp_path_factory.mktemp("lacking")
    (directory / "sitecustomize.py").write_text(
        f"import sys\nsys.modules.update(dict.fromkeys({LACKING!r}))\n"
    )
    return directory


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, lacking: pathlib.Path) -> tuple[Any, Any]:
    """A directory with all steps in it, and how the command ended."""
    out = tmp_path_factory.mktemp("accelerator") / "out"
    return out, call(out, "--minutes", "20", without=lacking)


@pytest.mark.slow
def test_an_image_has_all_that_is_needed(first: tuple[Any, Any]) -> None:
    out, done = first
    found = {line["step"]: line for line in lines(out)}
    assert list(found) == list(accelerator.ORDER), done.stdout + done.stderr
    for step in MEASURED:
        assert found[step]["status"] == accelerator.DONE, done.stdout + done.stderr
    assert found["sweep"]["status"] == accelerator.FAILED
    assert "needs ml_collections, which is not installed" in found["sweep"]["errors"][0]
    assert done.returncode == 1

    def values(step: str) -> dict[str, Any]:
        return {figure["what"]: figure["value"] for figure in found[step]["figures"]}

    assert values("installed")["torch"] is None
    for step in ("training", "decoding"):
        ours, theirs = values(step).values()
        assert ours > 0
        assert theirs is None
        assert "ModuleNotFoundError" in found[step]["figures"][1]["note"]
    for step in ("generator", "population"):
        assert all(value > 0 for value in values(step).values())
    for figure in found["kernels"]["figures"]:
        assert f"\n   {figure['what']}: " in done.stdout
        assert f"| {figure['what']} | {Figure(**figure).shown} |" in done.stdout
    assert (out / accelerator.TABLE_FILE).read_text() in done.stdout


@pytest.mark.slow
def test_what_is_done_is_not_done_again(first: tuple[Any, Any], lacking: pathlib.Path) -> None:
    out, _ = first
    before = lines(out)
    done = call(out, "--steps", "1,2,3,4,5,6", without=lacking)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("done before, skipped") == len(MEASURED)
    assert lines(out) == before
    again = call(out, "--steps", "1", "--again", without=lacking)
    assert again.returncode == 0, again.stderr
    assert [line["step"] for line in lines(out)[len(before) :]] == ["installed"]


@pytest.mark.slow
def test_the_sweep_goes_on_in_another_piece(first: tuple[Any, Any]) -> None:
    out, _ = first
    cut = call(out, "--steps", "sweep", "--minutes", "0.01")
    assert cut.returncode == 143, cut.stderr
    assert lines(out)[-1]["status"] == accelerator.UNFINISHED
    assert "| sweep | **unfinished** |" in cut.stdout
    done = call(out, "--steps", "sweep", "--minutes", "20")
    assert done.returncode == 0, done.stdout + done.stderr
    line = lines(out)[-1]
    assert line["status"] == accelerator.DONE
    cells = [figure["what"] for figure in line["figures"] if ", op " in figure["what"]]
    # Each is judged on two cells within the class and two beyond it.
    assert len(cells) == 4 * len(quickstart.CONDITIONS)
    assert (out / "runs" / "quickstart-smoke" / "accuracy.png").exists()


@pytest.mark.slow
@pytest.mark.skipif(
    not importlib.util.find_spec("transformers") or not importlib.util.find_spec("torch"),
    reason="the comparison needs torch and transformers, the extra `parity`",
)
def test_others_are_compared_with(first: tuple[Any, Any]) -> None:
    out, _ = first
    done = call(out, "--steps", "training,decoding", "--again", "--minutes", "20")
    assert done.returncode == 0, done.stdout + done.stderr
    training, decoding = lines(out)[-2:]
    assert all(figure["value"] > 0 for figure in training["figures"] + decoding["figures"])
    assert [figure["what"].split(",")[0] for figure in training["figures"]] == ["ours", "torch"]
    # The same weights, in float32.
    assert decoding["figures"][-1]["what"] == "the same tokens"
    assert decoding["figures"][-1]["value"] == 100


def test_a_kernel_that_is_wrong_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that sees later tokens, and one that sees other documents."""
    small = kernels.Size(1, 16, ((16, 1), (16, 3)), 1, 2, 4, 8, 2, 2)

    def wrong(kernel: Any) -> list[str]:
        monkeypatch.setattr(attention, "in_blocks", kernel)
        monkeypatch.setattr(attention, "splash", lambda *args, interpret: kernel(*args))
        return [figure.what for figure in kernels._attention(small, TINY) if figure.wrong]

    def sees_all(q: jax.Array, k: jax.Array, v: jax.Array, segments: Any = None) -> jax.Array:
        return attention.attention(q, k, v, jax.numpy.ones((1, 1, 1, 16), bool))

    right = attention.in_blocks
    assert not wrong(right)
    assert len(wrong(lambda q, k, v, segments=None: right(q, k, v))) == 3
    assert len(wrong(sees_all)) == 6
    assert kernels.difference({"a": jax.numpy.nan}, {"a": jax.numpy.ones(())}) == float("inf")


def test_bad_input_is_refused_in_a_sentence(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "out"
    assert accelerator.main(["--out", str(out), "--steps", "1,eight"]) == 2
    assert "--steps has 'eight'; it must be of 1 or installed, 2 or" in capsys.readouterr().err
    assert accelerator.main(["--out", str(out), "--minutes", "0"]) == 2
    assert capsys.readouterr().err == "--minutes is 0.0; it must be above 0.\n"
    assert not out.exists()
    assert accelerator.chosen("7,2,training") == ["kernels", "training", "sweep"]


def test_rows_are_those_that_fit_a_device() -> None:
    memory = {0.0: 64, 15.7: 8, 39.5: 32, 79.1: 64, 141.0: 64, 0.5: 1}
    for gib, rows in memory.items():
        assert TINY._replace(memory=gib).rows(64) == rows
