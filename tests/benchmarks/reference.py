"""Holds the reader and the judge against the public generator's own output.

    python tests/benchmarks/reference.py DIRECTORY

DIRECTORY has `cases_*.jsonl.gz`: problems with their labels and altered solutions, each with the
public program's verdict, solutions with mistakes taken back, and re-asked questions. Prints how
many verdicts, answers and sets of necessary parameters differ, and exits with 1 where any does.
"""

import collections
import gzip
import json
import pathlib
import sys
import time
from collections.abc import Iterator
from typing import Any

from data_gen.judge import judge
from data_gen.reader import read


def solutions(record: dict[str, Any]) -> Iterator[tuple[str, str, str, bool]]:
    """(kind, question, solution, the public verdict) of everything that the record holds."""
    for case in record["cases"]:
        yield case["kind"], record["question"], case["solution"], case["correct"]
    for kind in ("retry_0.5", "weak_0.5"):
        if kind in record:
            yield kind, record["question"], record[kind], True
    if asked := record.get("reask"):
        yield "reask", asked["question"], asked["solution"], True


def main(directory: pathlib.Path) -> int:
    """Prints one line a kind of solution, and the sums."""
    judged, differing = collections.Counter(), collections.Counter()
    problems = labels = 0
    started = time.perf_counter()
    for path in sorted(directory.glob("cases_*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for record in map(json.loads, lines):
                problems += 1
                facts = read(record["layers"], record["problem"], record["question"])
                necessary = {record["params"].index(name) for name in facts.necessary}
                labels += facts.answer != record["answer"]
                labels += necessary != set(record["necessary"])
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
        f"{judged.total()} verdicts: {differing.total()} differ; {problems} problems: {labels} "
        f"answers or necessary sets differ; {seconds:.1f} s"
    )
    return int(differing.total() + labels > 0)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(pathlib.Path(sys.argv[1])))
