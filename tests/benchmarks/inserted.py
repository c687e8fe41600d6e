"""Holds the paper's mistakes against closed forms and against the public generator's texts.

    python tests/benchmarks/inserted.py DIRECTORY [--count 2048] [--gpt2 FILES]

DIRECTORY has `cases_*.jsonl.gz` with texts `retry_0.5` and `weak_0.5`. For these and for ours,
drawn with the public program's rules: mistakes outside their candidates, twice at one position,
their number before a step where at least ten candidates are left (geometric: 1/2, 1/4, …), where
among its candidates the first one stands (uniform), and how often it was wrong earlier in its
solution (as often as chance has it: what was taken back may be said again). Then how much longer
documents of `med` are at each rate, in symbols and, where GPT-2's vocabulary lies in FILES, in its
tokens.
"""

import argparse
import collections
import dataclasses
import functools
import gzip
import json
import pathlib
import re
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from data_gen.keys import problem_key
from data_gen.solutions.mistakes import Mistakes
from data_gen.spec import MED
from data_gen.text import records
from data_gen.text.judge import split_sentences
from data_gen.text.reader import Facts, read
from data_gen.windows import stream

ROOM = 2048
PLENTY = 10


def positions(facts: Facts, text: str) -> Iterator[tuple[list[str], set[str], list[str]]]:
    """(mistakes, parameters done, steps to come, the next one first) before every step."""
    sentences = split_sentences(text)
    named = [re.match(r"Define (.+) as", s.partition("; ")[0])[1] for s in sentences]
    right = [n for n, sentence in enumerate(sentences) if not sentence.endswith(" BACK")]
    done: set[str] = set()
    begin = 0
    for turn, at in enumerate(right):
        yield named[begin:at], set(done), [named[n] for n in right[turn:]]
        done.add(named[at])
        begin = at + 1


def counted(texts: Iterable[tuple[Facts, str]], rule: str) -> dict[str, Any]:
    """What is to be said of the mistakes of many solutions."""
    outside = repeated = 0
    rng = np.random.default_rng(0)
    number, ranks = collections.Counter(), []
    again, chances = 0, []
    for facts, text in texts:
        earlier: set[str] = set()
        for wrong, done, coming in positions(facts, text):
            if rule == "retry":
                pool = [p for p in facts.needs if p not in done and not facts.needs[p] <= done]
            else:
                pool = coming
            outside += sum(parameter not in pool for parameter in wrong)
            repeated += len(wrong) != len(set(wrong))
            if len(pool) >= PLENTY:
                number[min(len(wrong), 4)] += 1
            if wrong and wrong[0] in pool:
                # Spread over its share, so that it is uniform on 0..1 where all are as likely.
                ranks.append((sorted(pool).index(wrong[0]) + rng.random()) / len(pool))
                again += wrong[0] in earlier
                chances.append(len(earlier.intersection(pool)) / len(pool))
            earlier.update(wrong)
    counts = [number[n] for n in range(5)]
    chance_N = np.array(chances)
    spread = max(np.sqrt((chance_N * (1 - chance_N)).sum()), 1e-9)
    expected = np.array([0.5, 0.25, 0.125, 0.0625, 0.0625]) * sum(counts)
    return {
        "outside": outside,
        "repeated": repeated,
        "again": f"{again} of {len(ranks)}, by chance {chance_N.sum():.0f}",
        "recurring": 2 * stats.norm.sf(abs(again - chance_N.sum()) / spread),
        "counts": counts,
        "geometric": stats.chisquare(counts, expected).pvalue,
        "uniform": stats.kstest(ranks, "uniform").pvalue,
        "ranks": ranks,
    }


def theirs(directory: pathlib.Path, field: str) -> Iterator[tuple[Facts, str]]:
    """The reference's texts with mistakes."""
    for path in sorted(directory.glob("cases_*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for record in map(json.loads, lines):
                if field in record:
                    yield (
                        read(record["layers"], record["problem"], record["question"]),
                        record[field],
                    )


@functools.partial(jax.jit, static_argnames=("mistakes", "spec"))
def _write(keys_N, problems_N, *, mistakes, spec):
    return stream.documents(keys_N, problems_N, size=ROOM, spec=spec, mistakes=mistakes)


def ours(count: int, mistakes: Mistakes) -> Iterator[tuple[Facts, str]]:
    """As many of our own."""
    keys = jax.vmap(functools.partial(problem_key, 0))(jnp.arange(count))
    problems = stream.problems(keys, spec=MED)
    documents = _write(keys, problems, mistakes=mistakes, spec=MED)
    for record in records.records(problems, documents, MED):
        yield read(record["layers"], record["problem"], record["question"]), record["solution"]


def lengths(count: int, files: str) -> Iterator[str]:
    """How much longer documents are with mistakes."""
    keys = jax.vmap(functools.partial(problem_key, 0))(jnp.arange(count))
    problems = stream.problems(keys, spec=MED)
    plain: dict[str, float] = {}
    for rate in (0.0, 0.05, 0.1, 0.2, 0.5):
        documents = _write(keys, problems, mistakes=Mistakes("retry", rate), spec=MED)
        mean = {"symbols": float(documents.length.mean())}
        if files:
            gpt2 = dataclasses.replace(MED, tokenizer="gpt2", tokenizer_files=files)
            tokens = stream.encoded(documents, size=2 * ROOM, spec=gpt2)
            mean["GPT-2 tokens"] = float(tokens.length.mean())
        plain = plain or mean
        ratios = ", ".join(f"{value / plain[key]:.3f} in {key}" for key, value in mean.items())
        yield f"retry {rate}: documents are {ratios} times as long as error-free ones"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=pathlib.Path)
    parser.add_argument("--count", type=int, default=2048)
    parser.add_argument("--gpt2", default="", help="directory with GPT-2's vocabulary")
    args = parser.parse_args()
    bad = 0
    for rule, field, kind in (
        ("retry", "retry_0.5", "retry"),
        ("weak", "weak_0.5", "retry_weak_public"),
    ):
        found = {
            "theirs": counted(theirs(args.directory, field), rule),
            "ours": counted(ours(args.count, Mistakes(kind, 0.5)), rule),
        }
        for whose, row in found.items():
            print(
                f"{field:<10} {whose:<7} outside {row['outside']}, repeated {row['repeated']}; "
                f"0, 1, 2, 3, more before a step: {row['counts']} (geometric: p = "
                f"{row['geometric']:.3f}); place among candidates uniform: p = "
                f"{row['uniform']:.3f}; wrong before: {row['again']} (p = {row['recurring']:.3f})"
            )
            bad += row["outside"] + row["repeated"]
            bad += min(row["geometric"], row["uniform"], row["recurring"]) < 1e-3
        both = [found[whose]["counts"] for whose in ("theirs", "ours")]
        same = stats.chi2_contingency(np.maximum(both, 1e-9)).pvalue
        places = stats.ks_2samp(found["theirs"]["ranks"], found["ours"]["ranks"]).pvalue
        print(f"{field:<10} both agree: p = {same:.3f} (number), {places:.3f} (place)")
        bad += min(same, places) < 1e-3
    for line in lengths(args.count, args.gpt2):
        print(line)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
