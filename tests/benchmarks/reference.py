"""Holds reader, parser, labels and judge against the public generator's own output.

    python tests/benchmarks/reference.py DIRECTORY

DIRECTORY has `cases_*.jsonl.gz`: problems with their labels and altered solutions, each with the
public program's verdict, solutions with mistakes taken back, and re-asked questions. Prints how
many verdicts differ, and how many problems in any label that the reference tells of: what the
query needs; after each step what is known, with its value, what can be computed next, and what of
that is needed. What needs what it does not tell. Exits with 1 where anything differs.
"""

import collections
import functools
import gzip
import json
import pathlib
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from data_gen.problems.problem import Problem
from data_gen.solutions.labels import Labels, labels
from data_gen.spec import Spec
from data_gen.text.judge import judge
from data_gen.text.parser import parse, slot_names
from data_gen.text.reader import read

# Room for every problem of the reference, re-asked ones included.
ROOMY = Spec(max_op=52, max_edges=48)


def solutions(record: dict[str, Any]) -> Iterator[tuple[str, str, str, bool]]:
    """(kind, question, solution, the public verdict) of everything that the record holds."""
    for case in record["cases"]:
        yield case["kind"], record["question"], case["solution"], case["correct"]
    for kind in ("retry_0.5", "weak_0.5"):
        if kind in record:
            yield kind, record["question"], record[kind], True
    if asked := record.get("reask"):
        yield "reask", asked["question"], asked["solution"], True


@functools.partial(jax.jit, static_argnames="spec")
def _labels(problem: Problem, *, spec: Spec) -> Labels:
    return labels(problem, spec)


def labels_agree(record: dict[str, Any]) -> bool:
    """Whether our labels, from arrays read off the text, are those that the record holds."""
    texts = (record["problem"], record["question"], record["solution"])
    problem = parse(record["layers"], *texts, ROOMY)
    found = jax.tree.map(np.asarray, _labels(problem, spec=ROOMY))
    place = {
        slot: record["params"].index(text)
        for slot, text in slot_names(record["layers"], ROOMY).items()
    }

    def members(mask_P: np.ndarray) -> set[int]:
        return {place[slot] for slot in np.flatnonzero(mask_P)}

    order = [record["params"].index(name) for name in record["order"]]
    # A sentence ends with what comes out of it.
    values = [int(value) for value in re.findall(r"(\d+)\.(?= |$)", record["solution"])]
    asked, necessary = len(order) == len(values) == problem.steps, set(record["necessary"])
    return (
        asked
        and len(record["can_next"]) == problem.steps + 1
        and members(found.nece_P) == necessary
        and int(problem.value_P[problem.query]) == record["answer"]
        and all(
            members(found.known_XxP[x]) == set(order[:x])
            and members(found.can_next_XxP[x]) == set(can_next)
            and members(found.nece_next_XxP[x]) == necessary & set(can_next)
            and {
                place[slot]: value
                for slot, value in enumerate(found.value_XxP[x].tolist())
                if value != ROOMY.modulus
            }
            == dict(zip(order[:x], values[:x], strict=True))
            for x, can_next in enumerate(record["can_next"])
        )
    )


def main(directory: pathlib.Path) -> int:
    """Prints one line a kind of solution, and the sums."""
    judged, differing = collections.Counter(), collections.Counter()
    problems = different = 0
    started = time.perf_counter()
    for path in sorted(directory.glob("cases_*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for record in map(json.loads, lines):
                problems += 1
                different += not labels_agree(record)
                for kind, question, solution, correct in solutions(record):
                    facts = read(record["layers"], record["problem"], question)
                    judged[kind] += 1
                    differing[kind] += judge(facts, solution).correct != correct
    if not problems:
        print(f"{directory} has no cases_*.jsonl.gz.", file=sys.stderr)
        return 2
    for kind, count in judged.items():
        print(f"{kind:<12}{count:>6} judged {differing[kind]:>5} differ")
    seconds = time.perf_counter() - started
    print(
        f"{judged.total()} verdicts: {differing.total()} differ; {problems} problems: {different} "
        f"differ in nece, known, value, can_next or nece_next; {seconds:.1f} s"
    )
    return int(differing.total() + different > 0)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(pathlib.Path(sys.argv[1])))
