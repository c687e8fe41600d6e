"""Judges a model again: `python -m physlm.experiments.evaluate RUN [--checkpoint best] …`.

RUN is the directory of a run. Its model, as it was at the end (`final`), where its recent loss was
lowest (`best`) or after any step that there is a checkpoint of, solves test problems anew, by
default those that it was judged on. Prints a line of JSON for each cell, in the fields of
`results.jsonl`; nothing in RUN changes.
"""

import json
import pathlib
import sys
from collections.abc import Sequence

from physlm import devices, evaluate
from physlm.experiments import execution, results
from physlm.experiments import run as run_lib
from physlm.experiments.arguments import Parser

# Settings that do not change what the model is.
_SETTABLE = ("evaluate.", "mesh.")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line.

    Returns:
        0: done; 2: bad input.
    """
    parser = Parser(
        prog="python -m physlm.experiments.evaluate",
        description="Lets the model of a run solve test problems again.",
    )
    parser.add_argument("run", type=pathlib.Path, help="the directory of a run")
    parser.add_argument("--checkpoint", default="final", help="final, best or a step")
    parser.add_settings("change settings of evaluate.* and mesh.*, e.g. evaluate.problems=4096")
    options = parser.parse_args(arguments)
    try:
        for text in options.set:
            if not text.startswith(_SETTABLE):
                raise ValueError(
                    f"--set {text!r} is not allowed: settings of evaluate.* and mesh.* are."
                )
        run = run_lib.load(options.run, options.set)
        devices.prepare(run.settings.mesh, run.settings.evaluate.batch)
        state = execution.restored(run, options.run, options.checkpoint)
        header = execution.result_header(run, int(state.step))
        cells = evaluate.evaluate(
            state.params,
            model=run.settings.model,
            spec=run.settings.data,
            config=run.settings.evaluate,
            progress=execution.progress,
        )
    except ValueError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    for number, cell in enumerate(cells, start=1):
        print(json.dumps(results.validate({**header, **cell}, f"cell {number}")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
