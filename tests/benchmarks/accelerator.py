"""All that waits for a GPU or a TPU, one step after the other, in pieces of under ten minutes.

    python tests/benchmarks/accelerator.py --out DIR [--steps 1,2,… or names] [--minutes 9]
    python tests/benchmarks/accelerator.py --out DIR --tiny --platform cpu

| step | what it finds out |
|---|---|
| 1 installed | what is installed, and on what machine |
| 2 kernels | whether the device computes what the CPU does |
| 3 generator | problems and documents a second, and what data costs a 12-12 step |
| 4 training | tokens a second and MFU, beside nanoGPT's model under `torch.compile` |
| 5 decoding | tokens a second, beside Hugging Face's `generate` of the same weights |
| 6 population | eight runs as one program, beside eight runs alone |
| 7 sweep | the quickstart's study at scale `mini`, from checkpoint to checkpoint |

They run in the order of `ORDER`, what matters most first. The first is run in any case, since the
others are told by it what the machine is. Each has a process of its own, so that it has all of the
device's memory and cannot take the others with it, and prints what it finds at once. It leaves a
line in `DIR/results.jsonl`; a step that is finished there is not run again unless `--again` says
so, and one that failed or was not finished is. When the minutes are over no step begins, and the
one that runs is asked to end: the sweep saves a checkpoint and goes on from it when the same
command is given again, the others start anew, with programs that are compiled already (`DIR/cache`
unless JAX_COMPILATION_CACHE_DIR says where). At the end it prints all that is known, as a table in
Markdown that is also in `DIR/table.md`.

It needs jax, flax, optax and orbax, and the sweep ml-collections as well. Without PyTorch or
transformers the lines that compare with them say so. `--tiny` runs every step in seconds on a CPU,
to see that it runs; its figures mean nothing.

The code that it ends with: 0, all steps that were asked for are finished; 1, one failed; 2, bad
input; 143, there is more to do, by the same command.
"""

import argparse
import importlib
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[2]
# A checkout is enough: nothing has to be installed, here or in the processes of the steps.
PATHS = [str(ROOT), str(ROOT / "tests")]
sys.path[:0] = PATHS

from benchmarks.steps.figure import Figure, Setting, UnfinishedError  # noqa: E402

STEPS = ("installed", "kernels", "generator", "training", "decoding", "population", "sweep")
ORDER = ("installed", "kernels", "training", "generator", "decoding", "population", "sweep")
# JAX's names; the CPU is always there too, to be compared with.
PLATFORMS = {"cpu": "cpu", "gpu": "cuda,cpu", "tpu": "tpu,cpu"}

RESULTS_FILE, TABLE_FILE = "results.jsonl", "table.md"
DONE, FAILED, UNFINISHED = "done", "failed", "unfinished"

# Seconds that a step has to save what it must when it is asked to end.
GRACE = 45

Line = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    options = _parser().parse_args(arguments)
    if options.worker:
        return work(options)
    try:
        wanted = chosen(options.steps)
        if not options.minutes > 0:
            raise ValueError(f"--minutes is {options.minutes}; it must be above 0.")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, _interrupt)
    deadline = time.monotonic() + 60 * options.minutes
    for step in dict.fromkeys([ORDER[0], *wanted]):
        asked = step in wanted and options.again
        if is_done(options, step) and not asked:
            print(f"== {step}: done before, skipped", flush=True)
            continue
        if time.monotonic() >= deadline:
            break
        if not run(options, step, deadline):
            break
        if step == ORDER[0] and (reason := unfit(options)):
            print(reason, file=sys.stderr)
            return 2
    table = markdown(options)
    (options.out / TABLE_FILE).write_text(table)
    print(f"\n{table}", flush=True)
    statuses = {step: known(options).get(step, {}).get("status") for step in wanted}
    failed = [step for step in wanted if statuses[step] == FAILED]
    more = [step for step in wanted if statuses[step] not in (DONE, FAILED)]
    if more:
        print(f"There is more to do, by the same command: {', '.join(more)}.", file=sys.stderr)
    if failed:
        print(f"Failed, and tried again by the same command: {', '.join(failed)}.", file=sys.stderr)
    return 143 if more else int(bool(failed))


def chosen(text: str) -> list[str]:
    """The steps that a text names, by name or number, in the order in which they are run.

    Raises:
      ValueError: there is no such step.
    """
    numbered = {str(number): name for number, name in enumerate(STEPS, 1)}
    names = [numbered.get(part, part) for part in text.split(",")] if text else list(ORDER)
    for name in names:
        if name not in STEPS:
            listed = ", ".join(f"{number} or {known}" for number, known in numbered.items())
            raise ValueError(f"--steps has {name!r}; it must be of {listed}.")
    return [step for step in ORDER if step in names]


def known(options: argparse.Namespace) -> dict[str, Line]:
    """By step the last line that there is of it, of this size."""
    path = options.out / RESULTS_FILE
    lines = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
    return {line["step"]: line for line in lines if line["tiny"] == options.tiny}


def is_done(options: argparse.Namespace, step: str) -> bool:
    """Whether the step needs not be run again."""
    return known(options).get(step, {}).get("status") == DONE


def found(line: Line) -> list[Figure]:
    """The figures of a line."""
    return [Figure(**figure) for figure in line.get("figures", ())]


def machine(options: argparse.Namespace) -> dict[str, Any]:
    """What the first step has found, by name."""
    return {figure.what: figure.value for figure in found(known(options).get(ORDER[0], {}))}


def unfit(options: argparse.Namespace) -> str:
    """Why nothing more can be run here; empty where it can."""
    here = machine(options)
    if "platform" not in here:
        return "What the machine is could not be found out; the reason stands above."
    if here["platform"] == "cpu" and not options.tiny:
        return "JAX sees no accelerator here; on a CPU --tiny must be given."
    return ""


def setting_of(options: argparse.Namespace) -> Setting:
    """What a step is told."""
    here = machine(options)
    return Setting(
        options.tiny,
        here.get("platform") or "",
        here.get("devices") or 1,
        here.get("memory of a device") or 0.0,
        options.out,
    )


def run(options: argparse.Namespace, step: str, deadline: float) -> bool:
    """Runs a step in a process of its own and writes its line; whether another may follow."""
    print(f"== {step}", flush=True)
    _kept(options.out, step).unlink(missing_ok=True)
    command = [sys.executable, __file__, "--out", str(options.out), "--worker", step]
    command += ["--tiny"] if options.tiny else []
    started = time.monotonic()
    process = subprocess.Popen(command, env=_environment(options), start_new_session=True)
    asked = interrupted = False
    try:
        code = process.wait(max(0.0, deadline - started))
    except (subprocess.TimeoutExpired, KeyboardInterrupt) as error:
        asked, interrupted = True, isinstance(error, KeyboardInterrupt)
        code = _ended(process)
    seconds = round(time.monotonic() - started, 1)
    pieces = [json.loads(text) for text in _lines(_kept(options.out, step))]
    _kept(options.out, step).unlink(missing_ok=True)
    figures = [piece["figure"] for piece in pieces if "figure" in piece]
    errors = [piece["error"] for piece in pieces if "error" in piece]
    errors += [figure["wrong"] for figure in figures if figure["wrong"]]
    status = DONE if code == 0 else FAILED
    if code == 143 or (asked and code != 0):
        status, errors = UNFINISHED, []
    elif code != 0 and not errors:
        errors = [f"its process ended with code {code}"]
    line = {
        "step": step,
        "status": status,
        "tiny": options.tiny,
        "seconds": seconds,
        "when": time.strftime("%Y-%m-%d %H:%M"),
        "command": shlex.join(["python", "tests/benchmarks/accelerator.py", *sys.argv[1:]]),
        "figures": figures,
        "errors": errors,
    }
    with (options.out / RESULTS_FILE).open("a") as file:
        file.write(json.dumps(line) + "\n")
    for error in errors:
        print(f"   failed: {error}")
    print(f"== {step}: {status} in {seconds:.0f} s", flush=True)
    return not interrupted


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _ended(process: subprocess.Popen) -> int:
    """Asks a step, and all that it has started, to end; after a while it must."""
    for sign, patience in ((signal.SIGTERM, GRACE), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, sign)
            return process.wait(patience)
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            break
    return process.wait()


def _environment(options: argparse.Namespace) -> dict[str, str]:
    env = dict(os.environ)
    given = PLATFORMS.get(options.platform) or env.get("JAX_PLATFORMS")
    if given:
        env["JAX_PLATFORMS"] = given if "cpu" in given.split(",") else f"{given},cpu"
    env["PYTHONPATH"] = os.pathsep.join([*PATHS, *filter(None, [env.get("PYTHONPATH")])])
    env.setdefault("JAX_COMPILATION_CACHE_DIR", str((options.out / "cache").absolute()))
    env.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
    return env


def _kept(out: pathlib.Path, step: str) -> pathlib.Path:
    """What a step has found so far, so that nothing is lost with its process."""
    return out / f".{step}.jsonl"


def _lines(path: pathlib.Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def work(options: argparse.Namespace) -> int:
    """A step's process: prints and keeps what it finds, one figure after the other."""
    step = options.worker

    def keep(**piece: Any) -> None:
        with _kept(options.out, step).open("a") as file:
            file.write(json.dumps(piece) + "\n")

    try:
        wrong = False
        for figure in _figures(step, setting_of(options)):
            wrong = wrong or bool(figure.wrong)
            print(f"   {figure.what}: {figure.shown}  {figure.note}".rstrip(), flush=True)
            keep(figure=figure._asdict())
        return int(wrong)
    except ModuleNotFoundError as error:
        keep(error=f"the step needs {error.name}, which is not installed.")
    except UnfinishedError as error:
        print(f"   {error}", flush=True)
        return 143
    # Whatever goes wrong in a step, the others are to be run.
    except Exception as error:
        traceback.print_exc()
        keep(error=f"{type(error).__name__}: {' '.join(str(error).split())[:500]}")
    return 1


def _figures(step: str, setting: Setting) -> Iterator[Figure]:
    return importlib.import_module(f"benchmarks.steps.{step}").figures(setting)


def markdown(options: argparse.Namespace) -> str:
    """A table of all that is known, with the machine and the command."""
    lines, here = known(options), machine(options)
    names = ("device", "devices", "memory of a device", "cores", "jax")
    kind, count, memory, cores, jax = (here.get(name) for name in names)
    memory = f" of {memory} GiB" if memory else ""
    title = f"{count} x {kind}{memory}, {cores} cores of the host, jax {jax}"
    flags = "; --tiny, whose figures mean nothing" if options.tiny else ""
    text = [f"{title} (`python tests/benchmarks/accelerator.py --out DIR`{flags})", ""]
    text += ["| step | | | |", "|---|---|---|---|"]
    for step in ORDER:
        if step not in lines:
            continue
        line, label = lines[step], step
        if step == ORDER[0] and line["status"] == DONE:
            rest = [one for one in found(line) if one.what not in names]
            listed = ", ".join(f"{one.what} {one.shown}" for one in rest)
            text.append(f"| {step} | {listed} | | |")
            continue
        for figure in found(line):
            note = figure.note
            if figure.wrong and figure.wrong not in note:
                note = f"{note}; **wrong**" if note else f"**{figure.wrong}**"
            text.append(f"| {label} | {figure.what} | {figure.shown} | {note} |")
            label = ""
        own = {figure.wrong for figure in found(line)}
        if line["status"] != DONE:
            why = "; ".join(error for error in line["errors"] if error not in own)
            text.append(f"| {label} | **{line['status']}** | | {why} |")
    return "\n".join(text) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=pathlib.Path, required=True, metavar="DIR")
    parser.add_argument("--steps", default="", help="numbers or names, with commas; default all")
    parser.add_argument("--minutes", type=float, default=9, help="of this call, for all steps (9)")
    parser.add_argument("--again", action="store_true", help="run what is finished once more")
    parser.add_argument("--tiny", action="store_true", help="in seconds on a CPU, for tests")
    parser.add_argument("--platform", default="", choices=["", *PLATFORMS])
    parser.add_argument("--worker", default="", choices=["", *STEPS], help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
