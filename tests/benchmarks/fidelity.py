"""Compares the sampler with the public generator, feature by feature.

    python tests/benchmarks/fidelity.py REFERENCE [--count 3072] [--histograms FILE]

REFERENCE is a directory with `features.csv`: columns `set` (med, hard, med op=20, …) and the
features of `solutions.features`, a row a problem of the public program. Each column is compared
by a Kolmogorov-Smirnov test and, on its values, by a chi-square test; the smallest p that is
allowed is 1e-3 divided by the number of comparisons. Numbers of words are shown, not compared:
they depend on the names. Exits with 1 where a column differs. With --histograms, also writes
how often each value occurs in REFERENCE.
"""

import argparse
import csv
import dataclasses
import functools
import json
import pathlib
import sys
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from data_gen.keys import problem_key
from data_gen.solutions.features import Features, measure
from data_gen.solutions.mistakes import ERROR_FREE
from data_gen.spec import NAMED, Spec
from data_gen.windows import stream

NOT_COMPARED = ("words", "solution_words")
BATCH = 512


def class_of(name: str) -> Spec:
    """The class that a set's name stands for: `hard op=30` is hard at 30 operations."""
    base, _, op = name.partition(" op=")
    return dataclasses.replace(NAMED[base], op=int(op) if op else None)


def ours(spec: Spec, count: int, seed: int) -> dict[str, np.ndarray]:
    """The features of `count` problems, each column as an array."""
    write = jax.jit(
        lambda keys_N, problems_N: jax.vmap(functools.partial(measure, spec=spec))(
            problems_N,
            stream.documents(keys_N, problems_N, size=2048, spec=spec, mistakes=ERROR_FREE),
        )
    )
    found = []
    for start in range(0, count, BATCH):
        keys_N = jax.vmap(functools.partial(problem_key, seed))(start + jnp.arange(BATCH))
        found.append(jax.tree.map(np.asarray, write(keys_N, stream.problems(keys_N, spec=spec))))
    return {
        name: np.concatenate(parts)[:count]
        for name, parts in zip(Features._fields, zip(*found, strict=True), strict=True)
    }


def compare(left: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """The p-values of a Kolmogorov-Smirnov and a chi-square test of two samples.

    Values are taken to two decimals, as the reference has them.
    """
    left, right = (np.round(np.asarray(x, np.float64), 2) for x in (left, right))
    smirnov = stats.ks_2samp(left, right).pvalue
    values, place = np.unique(np.concatenate([left, right]), return_inverse=True)
    counts = np.stack(
        [np.bincount(part, minlength=len(values)) for part in np.split(place, [len(left)])]
    )
    # Neighbouring values together until ten or more of them are expected.
    group, sums = np.zeros(len(values), int), 0
    for n in range(1, len(values)):
        sums += counts[:, n - 1].sum()
        group[n] = group[n - 1] + (sums >= 20)
        sums = 0 if sums >= 20 else sums
    pooled = np.stack([np.bincount(group, row) for row in counts])
    if pooled[:, -1].sum() < 20 and pooled.shape[1] > 1:
        pooled = np.concatenate([pooled[:, :-2], pooled[:, -2:].sum(1, keepdims=True)], 1)
    if pooled.shape[1] < 2:
        return float(smirnov), 1.0
    return float(smirnov), float(stats.chi2_contingency(pooled, correction=False).pvalue)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reference", type=pathlib.Path)
    parser.add_argument("--count", type=int, default=3072)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--histograms", type=pathlib.Path)
    args = parser.parse_args()
    sets: dict[str, list[dict[str, str]]] = {}
    with open(args.reference / "features.csv", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            sets.setdefault(row.pop("set"), []).append(row)
    columns = [name for name in Features._fields if name not in NOT_COMPARED]
    if args.histograms:
        figures = {
            name: {c: Counter(f"{float(row[c]):g}" for row in rows) for c in columns}
            for name, rows in sets.items()
        }
        args.histograms.write_text(
            json.dumps(figures, sort_keys=True, separators=(",", ":")) + "\n"
        )
    allowed, different = 1e-3 / (2 * len(columns) * len(sets)), 0
    print(f"{'set':9} {'feature':16} {'reference':>10} {'ours':>10} {'p (KS)':>9} {'p (chi2)':>9}")
    for name, rows in sets.items():
        found = ours(class_of(name), args.count, args.seed)
        for column in Features._fields:
            theirs = np.array([float(row[column]) for row in rows])
            line = f"{name:9} {column:16} {theirs.mean():10.3f} {found[column].mean():10.3f}"
            if column in NOT_COMPARED:
                print(line)
                continue
            p_values = compare(theirs, found[column])
            wrong = min(p_values) < allowed
            different += wrong
            print(line, *(f"{p:9.4f}" for p in p_values), "differs" if wrong else "")
    compared = len(columns) * len(sets)
    print(f"{compared} columns compared, {different} differ (p < {allowed:.1e} in either test).")
    return different > 0


if __name__ == "__main__":
    sys.exit(main())
