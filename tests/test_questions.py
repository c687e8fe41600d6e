"""What probes are asked, against a plain reading of the text."""

import collections

import jax
import numpy as np
import pytest
from drawn import SMALL, facts_of

from data_gen import keys
from data_gen.keys import Purpose
from data_gen.solutions.mistakes import ERROR_FREE, Mistakes
from data_gen.spec import Spec
from data_gen.text.judge import defined_in, split_sentences, standing_places
from data_gen.text.parser import slot_names
from data_gen.text.records import records
from data_gen.windows import stream
from data_gen.windows.questions import TASKS, QuestionStream, answers, questions
from data_gen.windows.tokenizer import tokenizer

pytestmark = pytest.mark.slow

COUNT, ROOM, ASKED = 96, 320, 6


def made(task, spec=SMALL, mistakes=ERROR_FREE):
    """Questions about problems, and these as records."""
    keys_N = keys.all_numbered(keys.root(5, Purpose.SAMPLE), np.arange(COUNT))
    problems = stream.problems(keys_N, spec=spec)
    documents = stream.documents(keys_N, problems, size=ROOM, spec=spec, mistakes=mistakes)
    found = questions(
        keys_N, problems, size=ROOM, task=task, count=ASKED, spec=spec, mistakes=mistakes
    )
    return jax.tree.map(np.asarray, found), records(
        *(jax.tree.map(np.asarray, x) for x in (problems, documents)), spec
    )


def needed(name, needs):
    found = set()
    for other in needs[name]:
        found |= {other} | needed(other, needs)
    return found


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("mistakes", [ERROR_FREE, Mistakes(rate=0.5)], ids=["right", "mistakes"])
def test_answers_are_what_a_reader_of_the_prefix_says(task, mistakes):
    found, texts = made(task, mistakes=mistakes)
    table, seen, cuts = tokenizer(SMALL), collections.Counter(), set()
    for n, record in enumerate(texts):
        facts = facts_of(record, SMALL)
        names = slot_names(record["layers"], SMALL)
        for q in range(ASKED):
            assert found.asks_NxQ[n, q]
            cut, end = found.cut_NxQ[n, q], found.length_NxQ[n, q]
            before = table.decode(found.tokens_NxT[n, :cut])
            prompt, _, solved = before.partition("<|solution|>")
            assert prompt == f"<|problem|>{record['problem']}{record['question']}"
            asked = table.decode(found.asked_NxQxA[n, q, :end])
            assert asked.startswith("<|answer|>") and asked.endswith("<|end|>")
            inner = asked.removeprefix("<|answer|>").removesuffix("<|end|>").strip()
            name = names[found.slot_NxQ[n, q]]
            assert inner.startswith(name)
            # A prefix ends with a sentence, and those that stand are as many as the moment says.
            assert record["solution"].startswith(solved)
            assert not solved or solved.endswith(".")
            sentences = split_sentences(solved) if solved else []
            standing = [sentences[at] for at in standing_places(solved)] if solved else []
            known = {defined_in(sentence)[0] for sentence in standing}
            assert len(known) == found.moment_NxQ[n, q]
            ready = facts.needs[name] <= known and name not in known
            right = {
                "known": name in known,
                "can_next": ready,
                "nece": name in facts.necessary,
                "nece_next": ready and name in facts.necessary,
                "val": facts.value[name] if name in known else SMALL.modulus,
                "dep": inner.removeprefix(name).strip() in needed(name, facts.needs),
            }[task]
            assert found.answer_NxQ[n, q] == int(right)
            seen[int(right)] += 1
            cuts.add(len(sentences))
    assert len(seen) == (2 if answers(task, SMALL) == 2 else SMALL.modulus + 1)
    assert (cuts == {0}) == (task in ("dep", "nece"))
    if task not in ("dep", "nece"):
        assert len(cuts) > 3


@pytest.mark.parametrize("named", ["word", "parameter"])
def test_a_question_is_the_parameter_as_the_document_names_it(named):
    spec = Spec(
        max_op=3, max_edges=6, max_depth=3, max_width=2, modulus=5, hierarchies=1,
        subcategories=1, names=3, letters=12, tokenizer=named,
    )  # fmt: skip
    found, texts = made("can_next", spec)
    table, shown = tokenizer(spec), 0
    for n, record in enumerate(texts):
        names = slot_names(record["layers"], spec)
        for q in range(ASKED):
            inner = found.asked_NxQxA[n, q, 1 : found.length_NxQ[n, q] - 1]
            assert len(inner) == (1 if named == "parameter" else 3)
            name = names[found.slot_NxQ[n, q]]
            assert table.decode(inner).strip() == name
            if f"Define {name} as" in record["solution"]:
                tokens = found.tokens_NxT[n].tolist()
                spans = [tokens[at : at + len(inner)] for at in range(len(tokens))]
                assert inner.tolist() in spans
                shown += 1
    assert shown > 50


def test_a_batch_is_a_function_of_seed_and_step():
    def stream_of(batch, rows=None):
        return QuestionStream(
            SMALL, ERROR_FREE, window=200, task="can_next", count=3, seed=4, batch=batch, rows=rows
        )

    whole, some, again = stream_of(8), stream_of(8, [1, 5]), stream_of(8)
    for step in (0, 70):
        batch = whole.batch(step)
        assert {name: value.shape for name, value in batch.items()} == {
            "tokens": (8, 200), "cuts": (8, 3), "asked": (8, 3, 5), "ends": (8, 3),
            "answers": (8, 3), "weights": (8, 3),
        }  # fmt: skip
        for name, value in batch.items():
            np.testing.assert_array_equal(value[[1, 5]], some.batch(step)[name])
            np.testing.assert_array_equal(value, again.batch(step)[name])
    assert (whole.batch(0)["tokens"] != whole.batch(1)["tokens"]).any()
    for one in (whole, some, again):
        one.close()
