"""From a problem and the script of its solution to tokens, by scatter at computed offsets."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_gen.problems.parameters import Schedule
from data_gen.problems.problem import Problem
from data_gen.problems.slots import layout
from data_gen.solutions.errors import Options
from data_gen.solutions.language import Vocabulary, vocabulary
from data_gen.solutions.lines import (
    LEFT,
    LEFT_VALUE,
    OPERATOR,
    RESULT,
    RIGHT,
    RIGHT_VALUE,
    first_case,
)
from data_gen.solutions.mistakes import PARAMETERS, Mistakes
from data_gen.solutions.script import RESTART, Script
from data_gen.solutions.sentences import Written, written
from data_gen.spec import Spec

# What a token is part of: of a mistake, what is wrong, the marker that mends it, and the rest.
OUTSIDE, PROBLEM, SOLUTION, WRONG_NAME, WRONG_WORDS, WRONG_MARKER, ANSWER = range(7)

# Tokens of "Define {owner}'s {thing} as x;" and of "Define {owner}'s {thing} as BACK."
HEADER = 7
# Tokens of "How many {thing} does {owner} have?"
QUESTION = 5


class Document(NamedTuple):
    """The tokens of one document; N is the room given."""

    tokens_N: jax.Array  # int32, the end marker from `length` on
    role_N: jax.Array  # int32: OUTSIDE, PROBLEM, …
    kind_N: jax.Array  # int32: what the token is, MARKER, WORD, … of `data_gen.solutions.language`
    sentence_N: jax.Array  # int32: the script's sentence that a solution token is in, or -1
    length: jax.Array  # int32: of the whole document, also where it exceeds the room N
    prompt: jax.Array  # int32: tokens up to and including the solution marker


class _Pieces:
    """Tokens with the positions they go to, collected before one scatter."""

    def __init__(self) -> None:
        self.parts: list[tuple[jax.Array, ...]] = []

    def put(
        self,
        at: Any,
        token: Any,
        role: Any,
        keep: Any = True,
        sentence: Any = -1,
    ) -> None:
        """Adds tokens (broadcast against their positions `at`); `keep` drops some."""
        at, token, role, keep, sentence = jnp.broadcast_arrays(at, token, role, keep, sentence)
        packed = token | role << 16 | (sentence + 1) << 20
        self.parts.append((jnp.where(keep, at, 1 << 30).reshape(-1), packed.reshape(-1)))

    def scatter(self, size: int, fill: int) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Writes all into `size` places, the rest being `fill`."""
        at, packed = (jnp.concatenate(column) for column in zip(*self.parts, strict=True))
        all_N = jnp.full(size, fill, jnp.int32).at[at].set(packed.astype(jnp.int32), mode="drop")
        return all_N & 0xFFFF, (all_N >> 16) & 15, (all_N >> 20) - 1


class _Words(NamedTuple):
    """Token ids of a problem's names, by slot."""

    owner_P: jax.Array
    thing_P: jax.Array


def _words(problem: Problem, vocab: Vocabulary, spec: Spec) -> _Words:
    table = layout(spec)
    _, categories, subcategories, names = vocab.name_shape
    layer = jnp.arange(spec.max_depth)
    category_D = problem.hierarchy * categories + problem.first_category + layer
    block_D = category_D * subcategories + problem.subcategory_D
    name_DxW = vocab.names + block_D[:, None] * names + problem.items_DxW
    thing_P = jnp.where(
        table.abstract_P,
        vocab.categories + category_D[table.category_P],
        name_DxW[table.category_P, table.thing_P],
    )
    return _Words(name_DxW[table.layer_P, table.item_P], thing_P)


def document(
    problem: Problem,
    script: Script,
    when: Schedule,
    choices: Options | None,
    size: int,
    spec: Spec,
    mistakes: Mistakes,
) -> Document:
    """Writes a whole document: problem, solution with its mistakes, answer.

    Args:
      problem: what is asked.
      script: the sentences of its solution.
      when: the schedule of the problem (`data_gen.solutions.labels`).
      choices: what wrong sentences are drawn from (`data_gen.solutions.errors`).
      size: room for tokens; what goes beyond is cut, `length` tells the whole length.
      spec: the class.
      mistakes: the distribution that the script was drawn from.
    """
    vocab = vocabulary(spec)
    words = _words(problem, vocab, spec)
    pieces = _Pieces()
    prompt = _problem(pieces, problem, words, vocab, spec)
    made = written(problem, script, when, choices, mistakes, spec)
    end = _solution(pieces, prompt, script, made, words, vocab, mistakes)
    answer = vocab.numbers + problem.value_P[problem.query]
    pieces.put(
        end + np.arange(3),
        jnp.stack([jnp.int32(vocab.answer), answer, jnp.int32(vocab.end)]),
        ANSWER,
    )
    tokens_N, role_N, sentence_N = pieces.scatter(size, vocab.end)
    kind_N = jnp.asarray(vocab.kinds)[tokens_N]
    length = jnp.where(made.complete, end + 3, size + 1)
    return Document(tokens_N, role_N, kind_N, sentence_N, length, prompt)


def _problem(
    pieces: _Pieces, problem: Problem, words: _Words, vocab: Vocabulary, spec: Spec
) -> jax.Array:
    """Puts problem, question and the markers around them; returns the prompt's length."""
    word = vocab.ids
    stated_E = problem.sentences_E >= 0
    slot_E = jnp.maximum(problem.sentences_E, 0)
    refs_ExR = problem.refs_IxR[slot_E]
    count_E = (refs_ExR >= 0).sum(-1)
    constant_E = problem.constant_I[slot_E].astype(jnp.int32)
    scaled_E = constant_E * (count_E > 0)
    listed_E = (count_E > 1).astype(jnp.int32)
    refs_at_E = 5 + constant_E + scaled_E + listed_E
    stop_at_E = refs_at_E + jnp.maximum(5 * count_E - 1, 0)
    length_E = jnp.where(stated_E, stop_at_E + 1, 0)
    before_E = jnp.cumsum(length_E) - length_E
    question_first = spec.order == "qp"
    question_at = 1 if question_first else 1 + length_E.sum()
    start_E = 1 + before_E + (QUESTION if question_first else 0)

    pieces.put(0, vocab.problem, PROBLEM)
    owner_E, thing_E = words.owner_P[slot_E], words.thing_P[slot_E]
    head = (word[" The number of each"], owner_E, word["'s"], thing_E, word[" equals"])
    for n, token in enumerate(head):
        pieces.put(start_E + n, token, PROBLEM, stated_E)
    number_E = vocab.numbers + problem.number_I[slot_E]
    pieces.put(start_E + 5, number_E, PROBLEM, stated_E & (constant_E > 0))
    scale_E = jnp.where(problem.times_I[slot_E], word[" times as much as"], word[" more than"])
    pieces.put(start_E + 6, scale_E, PROBLEM, stated_E & (scaled_E > 0))
    minus_E = problem.difference_I[slot_E] & (count_E == 2)
    list_E = jnp.where(minus_E, word[" the difference of"], word[" the sum of"])
    pieces.put(start_E + refs_at_E - 1, list_E, PROBLEM, stated_E & (listed_E > 0))
    for r in range(refs_ExR.shape[-1]):
        keep_E = stated_E & (r < count_E)
        at_E = start_E + refs_at_E + 5 * r
        if r:
            comma_E = jnp.where(r == count_E - 1, word[" and"], word[","])
            pieces.put(at_E - 1, comma_E, PROBLEM, keep_E)
        ref_E = refs_ExR[:, r]
        parts = (word[" each"], words.owner_P[ref_E], word["'s"], words.thing_P[ref_E])
        for n, token in enumerate(parts):
            pieces.put(at_E + n, token, PROBLEM, keep_E)
    pieces.put(start_E + stop_at_E, word["."], PROBLEM, stated_E)

    owner, thing = words.owner_P[problem.query], words.thing_P[problem.query]
    question = (word[" How many"], thing, word[" does"], owner, word[" have?"])
    for n, token in enumerate(question):
        pieces.put(question_at + n, token, PROBLEM)
    prompt = 1 + length_E.sum() + QUESTION + 1
    pieces.put(prompt - 1, vocab.solution, PROBLEM)
    return prompt


def _solution(
    pieces: _Pieces,
    start: jax.Array,
    script: Script,
    written: Written,
    words: _Words,
    vocab: Vocabulary,
    mistakes: Mistakes,
) -> jax.Array:
    """Puts the solution from position `start` on; returns where it ends."""
    word, line = vocab.ids, written.line_M
    marker_S = jnp.array([word[" BACK"], word[" FIX"], word[" RESTART"]])[script.mend_S]
    # A marker for each sentence that is taken back; a new beginning takes back all.
    markers_S = jnp.where(script.mend_S == RESTART, 1, script.back_S)
    markers_S = jnp.where(script.back_S > 0, markers_S, 0)

    last_M = written.last_M.astype(jnp.int32)
    live_S = script.slot_S >= 0
    place_S = np.arange(script.slot_S.shape[0])
    # A line of two operands is 12 tokens long, and one more where it says "so".
    forms = [written.form_S == 0, written.form_S == 1]
    lines_S = first_case(forms, [5, 7], 12 * written.count_S + 1)
    size_S = HEADER + jnp.where(written.body_S, lines_S + markers_S, 0)
    size_S = jnp.where(live_S, size_S, 0)
    end_S = jnp.cumsum(size_S)
    at_S = start + end_S - size_S

    slot_S, wrong_S = jnp.maximum(script.slot_S, 0), script.wrong_S
    stops_S = live_S & ~written.body_S
    taken_S = wrong_S | (script.after_S >= 0)
    named_S = wrong_S & (script.kind_S < len(PARAMETERS))
    words_role_S = jnp.where(taken_S, WRONG_WORDS, SOLUTION)
    name_role_S = jnp.where(named_S, WRONG_NAME, words_role_S)
    marker_role_S = jnp.where(stops_S, WRONG_MARKER, words_role_S)
    letter_S = vocab.letters + written.letter_S
    header = (
        (word[" Define"], words_role_S),
        (words.owner_P[slot_S], name_role_S),
        (word["'s"], name_role_S),
        (words.thing_P[slot_S], name_role_S),
        (word[" as"], words_role_S),
        (jnp.where(stops_S, marker_S, letter_S), marker_role_S),
        (jnp.where(stops_S, word["."], word[";"]), marker_role_S),
    )
    for n, (token, role) in enumerate(header):
        pieces.put(at_S + n, token, role, live_S, place_S)
    if mistakes.bodies:
        for n in range(1 + mistakes.late):
            keep_S = written.body_S & (n < markers_S)
            at = at_S + size_S - 1 - markers_S + n
            pieces.put(at, marker_S, WRONG_MARKER, keep_S, place_S)

    sentence_M = written.sentence_M
    base_M = at_S[sentence_M] + HEADER + 12 * written.turn_M
    two_M, some_M = line.form_J == 2, line.form_J >= 1
    body_M = base_M + last_M
    equals = word[" ="]
    second_M = body_M + jnp.where(two_M, 6, 4)
    value_at_M = first_case([two_M, some_M], [body_M + 10, body_M + 4], body_M + 2)
    end_M = value_at_M + 1 + jnp.where(written.last_M, markers_S[sentence_M], 0)

    def symbol(operand_M: jax.Array) -> jax.Array:
        number_M = vocab.numbers - 1 - operand_M
        return jnp.where(operand_M >= 0, vocab.letters + operand_M, number_M)

    def number(value_M: jax.Array) -> jax.Array:
        return vocab.numbers + value_M

    operator_M = jnp.array([word[" +"], word[" -"], word[" *"]])[line.operator_J]
    role_M = words_role_S[sentence_M]
    ends_M = written.last_M & (markers_S[sentence_M] > 0)

    def errs(what: int) -> jax.Array:
        return jnp.where((line.wrong_J & what) != 0, WRONG_NAME, role_M)

    puts = (
        (base_M, word[" so"], role_M, written.last_M),
        (body_M, vocab.letters + written.letter_M, role_M, True),
        (body_M + 1, equals, role_M, True),
        (body_M + 2, symbol(line.left_J), errs(LEFT), some_M),
        (body_M + 3, operator_M, errs(OPERATOR), two_M),
        (body_M + 4, symbol(line.right_J), errs(RIGHT), two_M),
        (body_M + 5, equals, role_M, two_M),
        (second_M, number(line.left_value_J), errs(LEFT_VALUE), two_M),
        (second_M + 1, operator_M, errs(OPERATOR), two_M),
        (second_M + 2, number(line.right_value_J), errs(RIGHT_VALUE), two_M),
        (value_at_M - 1, equals, role_M, some_M),
        (value_at_M, number(line.value_J), errs(RESULT), True),
        (
            end_M,
            jnp.where(written.last_M, word["."], word[";"]),
            jnp.where(ends_M, WRONG_MARKER, role_M),
            True,
        ),
    )
    for at_M, token, role, keep in puts:
        pieces.put(at_M, token, role, written.live_M & keep, sentence_M)
    return start + end_S[-1]
