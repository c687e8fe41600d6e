"""Judges a model once more: `python -m physlm.experiments.evaluate RUN [--checkpoint best] …`.

RUN is the directory of a run, `DIR/models/<run>` of a store. Its model, as it was at the end
(`final`), where its recent loss was lowest (`best`) or after any step that there is a checkpoint
of, solves test problems; `--set` says which others than those of the study that began the run. The
evaluation is kept in the run's directory, where studies find it, and what is judged already is not
judged again. Prints a line of JSON for each cell, in those fields of `results.jsonl` that a study
does not add; what solutions took stands in `result.json`. It never trains.

`--decode` says how solutions are sought, as `greedy`, `sample:temperature=0.8,n=16`, `beam:4` or
`regret:perfect`; `--probe` which run's probe is asked where decoding asks one. With `--show 20`
twenty problems are printed instead of cells, with the model's solution step by step.

With `--overlap` nothing is judged: it counts how many of the same test problems the run's training
shows, by template and word for word, and keeps that beside the result of judging.
"""

import json
import sys
from collections.abc import Sequence

from data_gen import interrupts
from physlm import devices, paths
from physlm.decoding.recipe import manual
from physlm.experiments import execution, judging, leases, overlap, results, show
from physlm.experiments import run as run_lib
from physlm.experiments.arguments import Parser, called, one_line, place, put
from physlm.experiments.evaluation import Evaluation

# Settings that do not change what the model is: how it is judged, on what, and where files are.
_PATHS = ("data.names_file", "data.tokenizer_files", "train.records")
_SETTABLE = ("evaluate.", "mesh.", *(f"{path}=" for path in _PATHS))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line.

    Returns:
        0: done; 1: another process has taken it over, or it cannot be written; 2: bad input.
    """
    parser = Parser(
        prog=called("physlm.experiments.evaluate"),
        description="Lets the model of a run solve test problems, and keeps the result.",
    )
    parser.add_argument(
        "run", type=place, metavar="RUN", help="the directory of a run, DIR/models/RUN of a store"
    )
    parser.add_argument(
        "--checkpoint",
        help="final, best or a step (the run's evaluate.checkpoint, which is final by default)",
    )
    parser.add_argument(
        "--decode",
        help=f"the decoding strategy, with settings behind a colon: {manual()}; or one of your "
        "own, package.module.Class",
    )
    parser.add_argument(
        "--probe",
        metavar="RUN",
        help="the run of a can_next probe, for strategies with a detector",
    )
    parser.add_argument(
        "--show",
        type=int,
        metavar="N",
        help="print N problems with the model's solutions, step by step",
    )
    parser.add_settings("change settings of evaluate.* and mesh.*, e.g. evaluate.problems=4096")
    parser.add_argument(
        "--overlap",
        action="store_true",
        help="count the test problems that occur in the run's training, which is made again for "
        "that from its seed; needs neither a checkpoint nor an accelerator",
    )
    parser.add_argument(
        "--windows",
        type=int,
        metavar="N",
        help="of --overlap: look at the first N training windows alone",
    )
    options = parser.parse_args(arguments)
    try:
        if options.windows is not None and not options.overlap:
            raise ValueError("--windows is given without --overlap, which alone reads it.")
        if options.show is not None and options.show < 1:
            raise ValueError(f"--show is {options.show}; it must be at least 1.")
        if options.show is not None and options.overlap:
            raise ValueError("--show is given with --overlap, which judges nothing.")
        if options.checkpoint is not None and not options.checkpoint.strip():
            raise ValueError(
                f"--checkpoint is {options.checkpoint!r}; it must be final, best or a step."
            )
        for name in ("decode", "probe"):
            if (value := getattr(options, name)) is not None:
                if any(text.startswith(f"evaluate.{name}=") for text in options.set):
                    raise ValueError(f"--{name} is given beside --set evaluate.{name}.")
                options.set.append(f"evaluate.{name}={value}")
        if options.windows is not None and options.windows < 1:
            raise ValueError(f"--windows is {options.windows}; it must be at least 1.")
        for text in options.set:
            if not text.startswith(_SETTABLE):
                raise ValueError(
                    f"--set {text!r} is not allowed: of a run that is there only settings of "
                    f"evaluate.* and mesh.*, and the paths {', '.join(_PATHS)}, can be changed."
                )
        run = run_lib.load(options.run, options.set)
        if options.show is not None and run.settings.adaptation.kind == "probe":
            raise ValueError(
                f"--show is {options.show} for a probe, which answers questions and writes nothing."
            )
        which = options.checkpoint or run.settings.evaluate.checkpoint
        execution.check_resumable(run, options.run)
        if options.overlap:
            evaluation = Evaluation(run.settings.evaluate)
            found = overlap.counted(run, evaluation, options.run, which=which, most=options.windows)
            put(overlap.in_words(found))
            return 0
        devices.prepare(run.settings.mesh, run.settings.evaluate.batch)
        evaluation = Evaluation(run.settings.evaluate)
        path = judging.judge(run, evaluation, options.run, which=which)
        if options.show:
            put(show.solutions(path.parent, options.show, colour=sys.stdout.isatty()))
            return 0
        cells = results.cells(path)
    except ValueError as error:
        print(one_line(error), file=sys.stderr)
        return 2
    except leases.LostError as error:
        print(error, file=sys.stderr)
        return 1
    except paths.failures(options.run) as error:
        print(paths.unreachable(error, options.run), file=sys.stderr)
        return 1
    for cell in cells:
        fields = [name for name in results.FIELDS if name not in results.STUDY_FIELDS]
        put(json.dumps({name: cell[name] for name in fields}))
    return 0


if __name__ == "__main__":
    interrupts.run(main)
