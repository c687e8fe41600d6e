"""All commands under one name: `physlm sweep …`, or `python -m physlm sweep …`.

`physlm sweep` is `python -m physlm.experiments.sweep`, and so on: what a command takes, its own
`--help` tells.
"""

import importlib
import sys
from collections.abc import Sequence

import physlm

# From a command to its module, which has a `main`, and to what it does.
COMMANDS = {
    "sweep": ("physlm.experiments.sweep", "runs a study: trains, judges, reports"),
    "report": ("physlm.experiments.report", "makes a study's tables, plots and page again"),
    "evaluate": ("physlm.experiments.evaluate", "judges a run once more, or shows what it writes"),
    "export": ("physlm.export", "writes a run's model for Hugging Face, PEFT, or as arrays"),
    "adopt": ("physlm.adopt", "takes a model of Hugging Face into a store"),
    "doctor": ("physlm.doctor.__main__", "tries whether everything works on this machine"),
}


def usage() -> str:
    """The commands there are."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(["usage: physlm COMMAND …, with --help for its own options", "", *lines])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line.

    Returns:
        What the command returns; 2 where there is no such command, 130 where it was interrupted.
    """
    name, *rest = [*(sys.argv[1:] if arguments is None else arguments), ""]
    rest = rest[:-1]
    if name in ("-h", "--help"):
        print(usage())
        return 0
    if name == "--version":
        print(f"physlm {physlm.__version__}")
        return 0
    if name not in COMMANDS:
        said = f"there is no command {name!r}" if name else "a command is missing"
        print(f"{said}; there are {', '.join(COMMANDS)} (--help says more).", file=sys.stderr)
        return 2
    try:
        return importlib.import_module(COMMANDS[name][0]).main(rest)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
