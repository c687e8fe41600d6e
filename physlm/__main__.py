"""The command `physlm`: each of its commands is `python -m` of a module, under a shorter name."""

import difflib
import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

import physlm
from data_gen import interrupts
from physlm.experiments.arguments import put

# Each with the module whose `main` it is, which alone is imported, and what it does.
COMMANDS: Mapping[str, tuple[str, str]] = {
    "sweep": ("physlm.experiments.sweep", "run a study, or what is left of it"),
    "status": ("physlm.experiments.status", "say how a study stands, or watch it"),
    "report": ("physlm.experiments.report", "tables, plot and page of a study"),
    "evaluate": ("physlm.experiments.evaluate", "judge the model of a run once more"),
    "export": ("physlm.export", "write a run's model for Hugging Face, PEFT, or as arrays"),
    "adopt": ("physlm.adopt", "take a model of Hugging Face into a store"),
    "doctor": ("physlm.doctor.__main__", "say whether studies can run here"),
}


def usage() -> str:
    """The commands, a line each."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, (_, what) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: physlm COMMAND [ARGUMENT …]",
            "",
            *lines,
            "",
            "physlm COMMAND --help explains a command, physlm --version says which version this is."
            " Problems are another command's: igsm.",
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line.

    Returns:
        what the command returns; 2: there is no such command; 130: interrupted.
    """
    name, *rest = (sys.argv[1:] if arguments is None else arguments) or [""]
    if name in ("-h", "--help"):
        put(usage())
        return 0
    if name == "--version":
        put(f"physlm {physlm.__version__}")
        return 0
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f" (nearest: {close[0]})" if close else ""
        what = f"unknown command {name!r}{hint}" if name else "a command is missing"
        print(f"{what}: there are {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    try:
        with interrupts.importing():
            module = importlib.import_module(COMMANDS[name][0])
        return module.main(rest)
    except KeyboardInterrupt:
        # Commands that have something to say of it have said it.
        return 130


def command() -> NoReturn:
    """The command that is installed."""
    interrupts.run(main)


if __name__ == "__main__":
    command()
