"""Runs the notebooks of `experiments/notebooks`, and makes those that are committed.

`python tests/notebooks.py DIR [NAME …]` runs them from top to bottom at the scale that they name,
in the working directory DIR, and puts them with their outputs in the place of the committed ones.
What is finished in `DIR/runs` is not trained again, as wherever a notebook is run.
"""

import base64
import contextlib
import io
import os
import pathlib
import re
import sys
from collections.abc import Iterator

import nbclient
import nbformat
from nbformat import NotebookNode
from PIL import Image

ROOT = pathlib.Path(__file__).parents[1]
PATHS = sorted((ROOT / "experiments" / "notebooks").glob("*.ipynb"))

# The tag of the cell that says what may be changed.
PARAMETERS = "parameters"


def executed(path: pathlib.Path, directory: pathlib.Path, scale: str | None = None) -> NotebookNode:
    """A notebook with its outputs, of which an error ends the run.

    Args:
        path: of the notebook.
        directory: in which it works.
        scale: in place of the one that it names.
    """
    notebook = nbformat.read(path, as_version=4)
    if scale is not None:
        (cell,) = (one for one in notebook.cells if PARAMETERS in one.metadata.get("tags", ()))
        cell.source, count = re.subn(r"^SCALE = .*", f"SCALE = {scale!r}", cell.source, flags=re.M)
        assert count == 1, cell.source
    where = {"metadata": {"path": str(directory)}}
    client = nbclient.NotebookClient(notebook, resources=where, record_timing=False)
    with _commands_are_ours():
        client.execute()
    return cleaned(notebook)


@contextlib.contextmanager
def _commands_are_ours() -> Iterator[None]:
    """Commands of a notebook are this interpreter's, and import this checkout."""
    ours = {
        "PATH": os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(ROOT),
    }
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def cleaned(notebook: NotebookNode) -> NotebookNode:
    """The notebook without what another run of it would have otherwise.

    Of a line that a command wrote again and again, as progress bars do, the last state stays.
    Pictures get a palette of 256 colours, with which they take a third of the space.
    """
    for cell in notebook.cells:
        kept: list[NotebookNode] = []
        for output in cell.get("outputs", ()):
            if output.output_type == "stream" and kept and kept[-1].get("name") == output.name:
                kept[-1].text += output.text
            else:
                kept.append(output)
        for output in kept:
            if output.output_type == "stream":
                lines = output.text.replace("\r\n", "\n").split("\n")
                output.text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)
            elif "image/png" in output.get("data", {}):
                output.data["image/png"] = _smaller(output.data["image/png"])
        if cell.cell_type == "code":
            cell.outputs = kept
            cell.metadata.pop("execution", None)
    notebook.metadata = NotebookNode(
        kernelspec=NotebookNode(display_name="Python 3", language="python", name="python3"),
        language_info=NotebookNode(name="python"),
    )
    return notebook


def _smaller(png: str) -> str:
    """A PNG in base64 with a palette."""
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    buffer = io.BytesIO()
    picture.quantize(256, dither=Image.Dither.NONE).save(buffer, "png", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()


def main(directory: str, *names: str) -> None:
    """Makes the committed notebooks of these names, or all."""
    for path in PATHS:
        if path.stem in names or not names:
            nbformat.write(executed(path, pathlib.Path(directory)), path)


if __name__ == "__main__":
    main(*sys.argv[1:])
