"""Problems as text: what the command line prints and what the judge reads."""

from typing import Any

import jax
import numpy as np

from data_gen.problems.problem import Problem
from data_gen.solutions.document import Document
from data_gen.solutions.grammar import QUESTION, question_at
from data_gen.solutions.language import vocabulary
from data_gen.solutions.names import hierarchies
from data_gen.spec import Spec
from data_gen.text.answers import split


def layers(problem: Problem, spec: Spec) -> list[list[Any]]:
    """[[category, [item, …]], …], top layer first, of one problem (NumPy leaves)."""
    categories = hierarchies(spec.names_file)[int(problem.hierarchy)]
    found = []
    for layer in range(int(problem.structure.depth)):
        category = categories[int(problem.first_category) + layer]
        subcategory = int(problem.subcategory_D[layer])
        items = problem.items_DxW[layer, : int(problem.structure.sizes_D[layer])]
        found.append([category.name, [category.item(subcategory, int(n)) for n in items]])
    return found


def records(problems: Problem, documents: Document, spec: Spec) -> list[dict[str, Any]]:
    """One dictionary a problem: layers, problem, question, solution, answer, op.

    Args:
      problems, documents: with a leading axis, on any device; each document whole, in symbols.
    """
    vocab = vocabulary(spec)
    problems, documents = jax.tree.map(np.asarray, (problems, documents))
    found = []
    for n in range(documents.length.shape[0]):
        problem = jax.tree.map(lambda x, n=n: x[n], problems)
        ids = documents.tokens_N[n]
        prompt, length = int(documents.prompt[n]), int(documents.length[n])
        first = question_at(prompt, spec.order)
        asked, after = ids[first : first + len(QUESTION)], first + len(QUESTION)
        stated = np.concatenate([ids[1:first], ids[after : prompt - 1]])
        solution, answer = split(ids[prompt:length], vocab)
        found.append(
            {
                "layers": layers(problem, spec),
                "problem": vocab.decode(stated),
                "question": vocab.decode(asked),
                "solution": solution,
                "answer": int(answer or -1),
                "op": int(problem.op),
            }
        )
    return found
