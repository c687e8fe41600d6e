"""Makes random one-line mutations of the code and says which share of them the tests notice.

    python tests/benchmarks/mutants.py [--count 200] [--seed 0] [--only judge,script] [--jobs 2]

Each mutant is one change in one module of `NEAREST` (an operator, a comparison, a constant, a
negation, a statement dropped), in a copy of the tree, against the tests that stand there: the next
ones are run where the ones before have passed. Prints each mutant, and in the end those that
survived; what a test failed by, or ran out of time or memory by, is noticed. Before that all these
tests have to pass on the tree as it is; `--unchecked` takes that for granted.
"""

import argparse
import ast
import collections
import copy
import os
import pathlib
import queue
import random
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent import futures

ROOT = pathlib.Path(__file__).parent.parent.parent
SECONDS, MEMORY = 600, 12 * 2**30

# Of each module the tests nearest to it, cheapest first, as arguments of pytest.
NEAREST = {
    "data_gen/text/judge.py": ["test_judge.py test_second_reading.py", "test_mended.py -k judged"],
    "data_gen/text/reader.py": [
        "test_judge.py test_lines.py test_second_reading.py",
        "test_labels.py",
    ],
    "data_gen/solutions/script.py": [
        "test_mistakes.py -k 'leave or candidates'",
        "test_mended.py -k 'rate or late or begin or mendings or letters or drawn or stay'",
    ],
    "data_gen/solutions/wrong_sentences.py": ["test_wrong_sentences.py", "test_mended.py"],
    "data_gen/solutions/computation.py": [
        "test_computation.py test_wrong_sentences.py",
        "test_mended.py",
    ],
    "data_gen/windows/packing.py": ["test_stream.py"],
    "data_gen/windows/stream.py": [
        "test_stream.py",
        "test_whole.py test_overlap.py test_population.py",
        "test_mended.py -k room",
    ],
    "data_gen/solutions/labels.py": [
        "test_labels.py",
        "test_questions.py test_probe.py",
        "test_mended.py -k labels",
    ],
    "physlm/attention.py": [
        "test_attention.py test_model.py",
        "test_variants.py test_decode.py",
        "test_mesh.py",
    ],
    "physlm/decoding/beam.py": ["test_strategies.py", "test_regret.py test_decode.py"],
    "physlm/decoding/detectors.py": ["test_detectors.py", "test_regret.py"],
    "physlm/decoding/engine.py": [
        "test_decode.py test_exact.py",
        "test_strategies.py test_regret.py test_evaluate.py",
    ],
    "physlm/decoding/loop.py": [
        "test_decode.py",
        "test_strategies.py test_regret.py",
    ],
    "physlm/decoding/naming.py": ["test_regret.py test_detectors.py", "test_evaluate.py"],
    "physlm/decoding/pruned.py": ["test_regret.py"],
    "physlm/decoding/recipe.py": ["test_strategies.py test_own_strategy.py"],
    "physlm/decoding/regret.py": ["test_regret.py", "test_strategies.py"],
    "physlm/decoding/sampling.py": [
        "test_threefry.py test_strategies.py test_own_strategy.py",
        "test_decode.py",
    ],
    "physlm/decoding/selection.py": ["test_strategies.py"],
    "physlm/decoding/strategy.py": [
        "test_strategies.py test_own_strategy.py",
        "test_regret.py test_detectors.py",
    ],
    "physlm/decoding/threefry.py": ["test_threefry.py"],
    "physlm/step.py": ["test_step.py", "test_train.py", "test_mesh.py test_accelerator.py"],
    "physlm/checkpoint.py": ["test_checkpoint.py", "test_train.py test_start.py test_again.py"],
    "physlm/experiments/identity.py": [
        "test_identity.py test_plan.py",
        "test_names.py test_settings.py",
    ],
}

_BINARY = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult, ast.Mod: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift, ast.RShift: ast.LShift,
}  # fmt: skip
_COMPARED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip


def changed(node: ast.AST, rng: random.Random) -> str | None:
    """The text of a node with one mutation; None where it can have none."""
    made = copy.deepcopy(node)
    if isinstance(made, ast.BinOp) and type(made.op) in _BINARY:
        made.op = _BINARY[type(made.op)]()
    elif isinstance(made, ast.AugAssign) and type(made.op) in _BINARY:
        if rng.random() < 0.5:
            return "pass"
        made.op = _BINARY[type(made.op)]()
        return ast.unparse(made)
    elif isinstance(made, ast.Compare) and len(made.ops) == 1 and type(made.ops[0]) in _COMPARED:
        made.ops = [_COMPARED[type(made.ops[0])]()]
    elif isinstance(made, ast.BoolOp):
        made.op = ast.And() if isinstance(made.op, ast.Or) else ast.Or()
    elif isinstance(made, ast.UnaryOp) and isinstance(made.op, ast.Not | ast.Invert | ast.USub):
        made = made.operand
    elif isinstance(made, ast.IfExp):
        made.body, made.orelse = made.orelse, made.body
    elif isinstance(made, ast.Expr) and isinstance(made.value, ast.Call):
        return "pass"
    elif isinstance(made, ast.Constant) and isinstance(made.value, bool):
        return str(not made.value)
    elif isinstance(made, ast.Constant) and isinstance(made.value, int):
        return str(made.value + rng.choice([-1, 1]))
    else:
        return None
    return f"({ast.unparse(made)})"


def sites(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that may be mutated: none of annotations, messages and decorators."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.JoinedStr | ast.Raise | ast.arg | ast.AnnAssign):
            continue
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            node.decorator_list = []
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if getattr(node, "lineno", 0) and node.lineno == node.end_lineno:
            yield node
        yield from sites(node)


def mutants(module: str, rng: random.Random) -> Iterator[tuple[int, str, str]]:
    """For each site of a module its line, that line as it is and as it may be."""
    lines = (ROOT / module).read_text().splitlines()
    for node in sites(ast.parse("\n".join(lines))):
        text = changed(node, rng)
        if text is not None:
            line = lines[node.lineno - 1].encode()
            made = line[: node.col_offset] + text.encode() + line[node.end_col_offset :]
            yield node.lineno - 1, line.decode(), made.decode()


def limited() -> None:
    """A loop that does not end any more may fill lists for ever."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def noticed(tree: pathlib.Path, module: str) -> str:
    """The test that notices what a copy of the tree has changed; "" where all pass."""
    env = {"JAX_PLATFORMS": "cpu", "MPLBACKEND": "agg", **os.environ, "PYTHONPATH": str(tree)}
    for tests in NEAREST[module]:
        command = f"nice -n 10 {sys.executable} -m pytest -x -n 0 -m '' -p no:cacheprovider {tests}"
        try:
            made = subprocess.run(
                shlex.split(command), cwd=tree / "tests", env=env, capture_output=True, text=True,
                timeout=SECONDS, preexec_fn=limited,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"more than {SECONDS} s"
        if made.returncode:
            failed = [x for x in made.stdout.splitlines() if x.startswith(("FAILED", "ERROR"))]
            return (failed or made.stdout.splitlines()[-1:] or ["not imported"])[0][:100]
    return ""


class Trees:
    """Copies of the tree, one for each mutant that is tried at the time."""

    def __init__(self, scratch: pathlib.Path, jobs: int) -> None:
        self._free: queue.Queue[pathlib.Path] = queue.Queue()
        for number in range(jobs):
            tree = scratch / f"tree-{number}"
            left_out = shutil.ignore_patterns(".git", "__pycache__", "runs")
            shutil.copytree(ROOT, tree, ignore=left_out)
            self._free.put(tree)

    def noticed(self, module: str, place: int = 0, new: str | None = None) -> tuple[str, float]:
        """What notices a mutant, or a module as it is, "" if nothing does; and after what seconds.

        Args:
            module: path of a module.
            place: index of a line.
            new: what stands there in the mutant; None for the module as it is.
        """
        tree, began = self._free.get(), time.perf_counter()
        try:
            file = tree / module
            text = file.read_text()
            lines = text.splitlines()
            lines[place] = lines[place] if new is None else new
            file.write_text("\n".join(lines) + "\n")
            by = noticed(tree, module)
            file.write_text(text)
        finally:
            self._free.put(tree)
        return by, time.perf_counter() - began


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="modules whose names have one of these in them")
    parser.add_argument(
        "--jobs", type=int, default=1, choices=range(1, 65), metavar="N", help="tried at a time"
    )
    parser.add_argument("--unchecked", action="store_true", help="the tests are known to pass")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    modules = [m for m in NEAREST if any(part in m for part in args.only.split(","))]
    every = [(module, *mutant) for module in modules for mutant in mutants(module, rng)]
    drawn = rng.sample(every, min(args.count, len(every)))
    print(f"{len(drawn)} of {len(every)} mutants, seed {args.seed}", flush=True)
    counts, survivors = collections.Counter(), []
    with tempfile.TemporaryDirectory() as scratch, futures.ThreadPoolExecutor(args.jobs) as pool:
        trees = Trees(pathlib.Path(scratch), args.jobs)
        tried = [] if args.unchecked else sorted({module for module, *_ in drawn})
        for module, (by, _) in zip(tried, pool.map(trees.noticed, tried), strict=True):
            if by:
                print(f"{module} as it is: {by}", file=sys.stderr)
                return 2
        waiting = {
            pool.submit(trees.noticed, module, place, new): (module, place, old, new)
            for module, place, old, new in drawn
        }
        for number, done in enumerate(futures.as_completed(waiting), 1):
            module, place, old, new = waiting[done]
            by, took = done.result()
            counts[module, bool(by)] += 1
            said = f"{module}:{place + 1}: {old.strip()}  →  {new.strip()}"
            survivors += [] if by else [said]
            print(f"{number} {by or 'SURVIVED'} ({took:.0f} s)  {said}", flush=True)
    for module in modules:
        print(f"{module}: {counts[module, True]} of {counts[module, True] + counts[module, False]}")
    print(f"{len(drawn) - len(survivors)} of {len(drawn)} noticed; survived:", *survivors, sep="\n")
    return int(len(survivors) > 0.1 * len(drawn))


if __name__ == "__main__":
    sys.exit(main())
