"""Features of problems, to compare the distributions of two samplers."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_gen.problems.problem import Problem
from data_gen.solutions.document import OUTSIDE, PROBLEM, Document
from data_gen.solutions.language import vocabulary
from data_gen.spec import Spec


class Features(NamedTuple):
    """Counts of one problem (int32, but for `necessary_share`, float32)."""

    depth: jax.Array  # layers
    items: jax.Array
    edges: jax.Array  # of the structure graph
    op: jax.Array
    steps: jax.Array  # sentences of the solution
    sentences: jax.Array  # of the problem, without the question
    abstract_steps: jax.Array  # steps that compute an abstract parameter
    abstract_refs: jax.Array  # right sides' references to abstract parameters
    query_abstract: jax.Array  # 1 where the question asks for an abstract parameter
    refs0: jax.Array  # sentences whose right side names so many parameters
    refs1: jax.Array
    refs2: jax.Array
    refs3: jax.Array
    refs4: jax.Array
    more: jax.Array  # sentences with "more than"
    times: jax.Array  # with "times as much as"
    difference: jax.Array  # with "the difference of"
    words: jax.Array  # of problem and question, between blanks
    solution_words: jax.Array
    answer: jax.Array
    necessary_share: jax.Array  # steps that compute instance parameters, a sentence


def measure(problem: Problem, document: Document, spec: Spec) -> Features:
    """Counts one problem and its error-free document; `vmap` for more."""
    instances = spec.instance_slots
    stated_I = (
        jnp.zeros(instances, bool)
        .at[problem.sentences_E]
        .set(problem.sentences_E >= 0, mode="drop", wrap_negative_indices=False)
    )
    refs_I = (problem.refs_IxR >= 0).sum(-1)
    scaled_I = stated_I & problem.constant_I & (refs_I > 0)
    step_T = problem.order_T
    instance_steps = ((step_T >= 0) & (step_T < instances)).sum()
    words_N = jnp.asarray(_words(spec))[document.tokens_N]
    asked_N = document.role_N == PROBLEM
    solved_N = (document.sentence_N >= 0) & (document.role_N != OUTSIDE)
    sentences = stated_I.sum()
    return Features(
        depth=problem.structure.depth,
        items=problem.structure.sizes_D.sum(),
        edges=problem.structure.edges_GxWxW.sum(),
        op=problem.op,
        steps=problem.steps,
        sentences=sentences,
        abstract_steps=(step_T >= instances).sum(),
        abstract_refs=(stated_I[:, None] & (problem.refs_IxR >= instances)).sum(),
        query_abstract=(problem.query >= instances).astype(jnp.int32),
        **{f"refs{n}": (stated_I & (refs_I == n)).sum() for n in range(5)},
        more=(scaled_I & ~problem.times_I).sum(),
        times=(scaled_I & problem.times_I).sum(),
        difference=(stated_I & problem.difference_I & (refs_I == 2)).sum(),
        words=jnp.where(asked_N, words_N, 0).sum(),
        solution_words=jnp.where(solved_N, words_N, 0).sum(),
        answer=problem.value_P[problem.query],
        necessary_share=instance_steps / jnp.maximum(sentences, 1),
    )


@functools.lru_cache(maxsize=64)
def _words(spec: Spec) -> np.ndarray:
    """int32[V]: the words that begin in each token (a blank stands before every word)."""
    return np.array([token.count(" ") for token in vocabulary(spec).tokens], np.int32)


def table(found_B: Features) -> str:
    """Mean, deviation and quantiles of each feature, as text."""
    rows: list[tuple[str, ...]] = [("feature", "mean", "sd", "least", "5%", "50%", "95%", "most")]
    for name, column_B in zip(Features._fields, found_B, strict=True):
        x_B = np.asarray(column_B, np.float64)
        quantiles = np.quantile(x_B, [0, 0.05, 0.5, 0.95, 1])
        rows.append((name, f"{x_B.mean():.3f}", f"{x_B.std():.3f}", *(f"{q:g}" for q in quantiles)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(w) if n == 0 else cell.rjust(w) for n, (cell, w) in enumerate(pairs))
        for pairs in (list(zip(row, widths, strict=True)) for row in rows)
    )
