"""Draws documents of every kind of mistake and mending, and has the judge read every one as text.

    python tests/benchmarks/mended.py [--spec med] [--count 10000] [--processes 2]

A document must be judged right, and its mistakes named as they were drawn; cut at a mistake, with
its marker removed, it must be judged wrong there and for that reason. Prints the first that are
not, and exits with 1 where there are any.
"""

import argparse
import collections
import functools
import multiprocessing
import re
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from data_gen import keys
from data_gen.keys import Stage, problem_key
from data_gen.solutions import kinds
from data_gen.solutions.faults import FORM, NEEDLESS
from data_gen.solutions.kinds import WrongSentence
from data_gen.solutions.mistakes import MENDINGS, Mistakes
from data_gen.solutions.script import draw_script
from data_gen.solutions.steps import right_steps
from data_gen.spec import NAMED
from data_gen.text import records
from data_gen.text.judge import judge, split_sentences, standing_places
from data_gen.text.reader import read
from data_gen.windows import stream

BATCH = 2048
ROOM = 4096


def writer(spec, mistakes, room):
    """From keys and problems to documents, and what their mistakes were drawn as."""

    def drawn(key, problem):
        right = right_steps(problem, mistakes, spec)
        return draw_script(keys.named(key, Stage.MISTAKES), problem, right, mistakes, spec)

    def write(keys_N, problems_N):
        documents = stream.documents(keys_N, problems_N, size=room, spec=spec, mistakes=mistakes)
        return documents, jax.vmap(drawn)(keys_N, problems_N)

    return jax.jit(write)


def truths(scripts, mistakes) -> list[list[tuple[str, str, int]]]:
    """For each document (kind, mending, late) of its mistakes, in the order of their markers."""
    names, found = [kind.name for kind, _ in mistakes.rates], []
    for n in range(len(scripts.sentences)):
        ends = np.flatnonzero(scripts.back_S[n])
        after = scripts.after_S[n, ends]
        origin = np.where(after >= 0, after, ends)
        kinds, mends = scripts.kind_S[n, origin], scripts.mend_S[n, ends]
        late = scripts.back_S[n, ends] - 1
        rows = zip(kinds, mends, late, strict=True)
        found.append([(names[kind], MENDINGS[mend], int(d)) for kind, mend, d in rows])
    return found


def fault(record: dict[str, Any], truth: list[tuple[str, str, int]], modulus: int = 23) -> str:
    """What is wrong with a document, or with the judge; "" where nothing is."""
    facts = read(record["layers"], record["problem"], record["question"], modulus)
    verdict = judge(facts, record["solution"], f" {record['answer']}")
    if not verdict.correct:
        return verdict.reason
    if verdict.unnecessary or verdict.op != record["op"] or verdict.retries != len(truth):
        return f"unnecessary, retries or op: {verdict}"
    sentences = split_sentences(record["solution"])
    marked = [n for n, sentence in enumerate(sentences) if re.search(r" [A-Z]{3,}$", sentence)]
    for at, found, (kind, mending, late) in zip(marked, verdict.mended, truth, strict=True):
        # Where the problem decides how a kind is judged, some mistakes are right, and how much was
        # taken back with them cannot be told.
        called = kinds.find(kind).judged
        told = (called, mending, late) if called else (found.kind, mending, found.late)
        if found[1:] != told:
            return f"{(kind, mending, late)} was judged {found}"
        # The same document up to the mistake, with the marker and what follows removed.
        places = [*standing_places(". ".join(sentences[:at]) + "."), at] if at else [at]
        begin = places[found.step]
        wrong = re.sub(r"( BACK| FIX| RESTART)+$", "", sentences[begin])
        alone = judge(facts, ". ".join([*sentences[:begin], wrong]) + ".")
        named = wrong.endswith(" as")
        if called in NEEDLESS and not named:
            as_drawn = alone.kind == "end" and alone.unnecessary == 1
        else:
            as_drawn = alone.first_wrong_step == found.step and not alone.correct
            # What is right but for its end is wrong only in that it stops at a name.
            as_drawn &= called is None or alone.kind == (FORM if called in NEEDLESS else called)
        if not as_drawn and (called or named):
            return f"{kind} at step {found.step} was judged {alone} without its marker"
    return ""


def distributions():
    """Every kind with each mending that it can have, and with all of them two steps late."""
    for kind in kinds.known():
        mendings = [name for name in MENDINGS if name != "fix" or isinstance(kind, WrongSentence)]
        for mending in mendings:
            yield Mistakes(kind.name, 0.3, mend=mending)
        mixed = ",".join(f"{name}:{1 / len(mendings):.4f}" for name in mendings)
        yield Mistakes(kind.name, 0.3, whole=True, mend=mixed, late=2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spec", default="med", choices=sorted(NAMED))
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    spec, wrong = NAMED[args.spec], 0
    todo = list(distributions())
    with (
        multiprocessing.get_context("spawn").Pool(args.processes) as pool,
        tqdm(total=len(todo) * args.count, unit=" documents", mininterval=5) as bar,
    ):
        for mistakes in todo:
            write, taken_back, left_out = writer(spec, mistakes, ROOM), collections.Counter(), 0
            for first in range(0, args.count, BATCH):
                numbers = first + jnp.arange(BATCH, dtype=jnp.uint32)
                keys = jax.vmap(functools.partial(problem_key, args.seed))(numbers)
                problems = stream.problems(keys, spec=spec)
                documents, scripts = jax.tree.map(np.asarray, write(keys, problems))
                here = np.arange(min(BATCH, args.count - first))
                fits = here[documents.length[here] <= ROOM]
                left_out += len(here) - len(fits)
                problems, documents, scripts = jax.tree.map(
                    lambda x, fits=fits: np.asarray(x)[fits], (problems, documents, scripts)
                )
                found = records.records(problems, documents, spec)
                rows = list(zip(found, truths(scripts, mistakes), strict=True))
                taken_back.update(mending for _, truth in rows for _, mending, _ in truth)
                for (record, _), reason in zip(
                    rows, pool.starmap(fault, rows, chunksize=128), strict=True
                ):
                    wrong += bool(reason)
                    if reason and wrong < 10:
                        print(reason, record)
                bar.update(len(here))
            counts = ", ".join(f"{count} by {mending}" for mending, count in taken_back.items())
            print(
                f"{mistakes.kind}, late={mistakes.late}: {counts}; {left_out} documents beyond "
                f"{ROOM} symbols left out; {wrong} wrong so far",
                flush=True,
            )
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
