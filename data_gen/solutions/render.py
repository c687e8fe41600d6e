"""From a problem and the script of its solution to tokens, by scatter at computed offsets."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_gen.problems.problem import Problem
from data_gen.problems.slots import layout
from data_gen.solutions import grammar
from data_gen.solutions.computation import (
    LEFT,
    LEFT_VALUE,
    OPERATOR,
    RESULT,
    RIGHT,
    RIGHT_VALUE,
    first_case,
)
from data_gen.solutions.document import (
    ANSWER,
    PROBLEM,
    SOLUTION,
    WRONG_MARKER,
    WRONG_NAME,
    WRONG_WORDS,
    Document,
)
from data_gen.solutions.grammar import (
    CONSTANT,
    EQUALS,
    HEADER,
    LINES,
    MENDING_MARKERS,
    NAMED,
    NEXT,
    OPERATORS,
    PARAMETER,
    QUESTION,
    REFERENCE,
    SO,
    STATEMENT,
    STOP,
)
from data_gen.solutions.language import Vocabulary, vocabulary
from data_gen.solutions.mistakes import RESTART, Mistakes
from data_gen.solutions.script import Script
from data_gen.solutions.sentences import Written, written
from data_gen.solutions.steps import Steps
from data_gen.spec import Spec

# How many symbols there are in a sentence's beginning, with the mark after it; in a line, likewise;
# and in a reference, with the comma before it.
_BEGINNING = len(HEADER) + 1
_LINES = tuple(len(line) + 1 for line in LINES)
_REFERENCE = 1 + len(REFERENCE)


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


class Words(NamedTuple):
    """Symbols of a problem's names, by slot."""

    owner_P: jax.Array
    thing_P: jax.Array


def words_of(problem: Problem, vocab: Vocabulary, spec: Spec) -> Words:
    """The names of every parameter of a problem."""
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
    return Words(name_DxW[table.layer_P, table.item_P], thing_P)


def document(
    problem: Problem,
    script: Script,
    steps: Steps,
    size: int,
    spec: Spec,
    mistakes: Mistakes,
) -> Document:
    """Writes a whole document: problem, solution with its mistakes, answer.

    Args:
      problem: what is asked.
      script: the sentences of its solution.
      steps: what is worked out of the problem, which the script was drawn from.
      size: room for tokens; what goes beyond is cut, `length` tells the whole length.
      spec: the class.
      mistakes: the distribution that the script was drawn from.
    """
    vocab = vocabulary(spec)
    words = words_of(problem, vocab, spec)
    pieces = _Pieces()
    prompt = _problem(pieces, problem, words, vocab, spec)
    made = written(problem, script, steps, mistakes, spec)
    end = _solution(pieces, prompt, script, made, words, vocab, mistakes)
    answer = vocab.numbers + problem.value_P[problem.query]
    ending = [jnp.int32(token) for token in grammar.ANSWER.fill(vocab.ids, number=answer)]
    pieces.put(end + np.arange(len(ending)), jnp.stack(ending), ANSWER)
    tokens_N, role_N, sentence_N = pieces.scatter(size, vocab.end)
    kind_N = jnp.asarray(vocab.kinds)[tokens_N]
    length = jnp.where(made.complete, end + len(ending), size + 1)
    return Document(tokens_N, role_N, kind_N, sentence_N, length, prompt)


def _problem(
    pieces: _Pieces, problem: Problem, words: Words, vocab: Vocabulary, spec: Spec
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
    number_at = len(STATEMENT)
    scale_at = number_at + len(CONSTANT)
    refs_at_E = number_at + len(CONSTANT) * constant_E + scaled_E + listed_E
    stop_at_E = refs_at_E + jnp.maximum(_REFERENCE * count_E - 1, 0)
    length_E = jnp.where(stated_E, stop_at_E + 1, 0)
    before_E = jnp.cumsum(length_E) - length_E
    prompt = 1 + length_E.sum() + len(QUESTION) + 1
    start_E = 1 + before_E + (len(QUESTION) if spec.order == "qp" else 0)

    pieces.put(0, vocab.problem, PROBLEM)
    head = STATEMENT.fill(word, owner=words.owner_P[slot_E], thing=words.thing_P[slot_E])
    for n, token in enumerate(head):
        pieces.put(start_E + n, token, PROBLEM, stated_E)
    number_E = vocab.numbers + problem.number_I[slot_E]
    pieces.put(start_E + number_at, number_E, PROBLEM, stated_E & (constant_E > 0))
    scale_E = jnp.where(problem.times_I[slot_E], word[grammar.TIMES], word[grammar.MORE])
    pieces.put(start_E + scale_at, scale_E, PROBLEM, stated_E & (scaled_E > 0))
    minus_E = problem.difference_I[slot_E] & (count_E == 2)
    list_E = jnp.where(minus_E, word[grammar.DIFFERENCE], word[grammar.SUM])
    pieces.put(start_E + refs_at_E - 1, list_E, PROBLEM, stated_E & (listed_E > 0))
    for r in range(refs_ExR.shape[-1]):
        keep_E = stated_E & (r < count_E)
        at_E = start_E + refs_at_E + _REFERENCE * r
        if r:
            comma_E = jnp.where(r == count_E - 1, word[grammar.AND], word[grammar.COMMA])
            pieces.put(at_E - 1, comma_E, PROBLEM, keep_E)
        ref_E = refs_ExR[:, r]
        parts = REFERENCE.fill(word, owner=words.owner_P[ref_E], thing=words.thing_P[ref_E])
        for n, token in enumerate(parts):
            pieces.put(at_E + n, token, PROBLEM, keep_E)
    pieces.put(start_E + stop_at_E, word[STOP], PROBLEM, stated_E)

    owner, thing = words.owner_P[problem.query], words.thing_P[problem.query]
    question_at = grammar.question_at(prompt, spec.order)
    for n, token in enumerate(QUESTION.fill(word, owner=owner, thing=thing)):
        pieces.put(question_at + n, token, PROBLEM)
    pieces.put(prompt - 1, vocab.solution, PROBLEM)
    return prompt


def _solution(
    pieces: _Pieces,
    start: jax.Array,
    script: Script,
    written: Written,
    words: Words,
    vocab: Vocabulary,
    mistakes: Mistakes,
) -> jax.Array:
    """Puts the solution from position `start` on; returns where it ends."""
    word = vocab.ids
    marker_S = jnp.array([word[marker] for marker in MENDING_MARKERS.values()])[script.mend_S]
    # A marker for each sentence that is taken back; a new beginning takes back all.
    markers_S = jnp.where(script.mend_S == RESTART, 1, script.back_S)
    markers_S = jnp.where(script.back_S > 0, markers_S, 0)

    live_S = script.slot_S >= 0
    place_S = np.arange(script.slot_S.shape[0])
    # Of lines with fewer than two operands a sentence has one. The last one begins with "so".
    forms = [written.form_S == 0, written.form_S == 1]
    lines_S = 1 + first_case(forms, [_LINES[0], _LINES[1]], _LINES[2] * written.count_S)
    size_S = _BEGINNING + jnp.where(written.body_S, lines_S + markers_S, 0)
    size_S = jnp.where(live_S, size_S, 0)
    end_S = jnp.cumsum(size_S)
    at_S = start + end_S - size_S

    slot_S, wrong_S = jnp.maximum(script.slot_S, 0), script.wrong_S
    stops_S = live_S & ~written.body_S
    taken_S = wrong_S | (script.after_S >= 0)
    named_S = script.misnamed_S
    words_role_S = jnp.where(taken_S, WRONG_WORDS, SOLUTION)
    name_role_S = jnp.where(named_S, WRONG_NAME, words_role_S)
    marker_role_S = jnp.where(stops_S, WRONG_MARKER, words_role_S)
    letter_S = vocab.letters + written.letter_S
    ends_S = jnp.where(stops_S, marker_S, letter_S)
    owner_S, thing_S = words.owner_P[slot_S], words.thing_P[slot_S]
    header = HEADER.fill(word, owner=owner_S, thing=thing_S, letter=ends_S)
    roles = [
        name_role_S if symbol in PARAMETER.symbols else words_role_S for symbol in NAMED.symbols
    ]
    header.append(jnp.where(stops_S, word[STOP], word[NEXT]))
    for n, token in enumerate(header):
        role_S = roles[n] if n < len(roles) else marker_role_S
        pieces.put(at_S + n, token, role_S, live_S, place_S)
    if mistakes.bodies:
        for n in range(1 + mistakes.late):
            keep_S = written.body_S & (n < markers_S)
            at = at_S + size_S - 1 - markers_S + n
            pieces.put(at, marker_S, WRONG_MARKER, keep_S, place_S)

    sentence_M, live_M, last_M = written.sentence_M, written.live_M, written.last_M
    role_M = words_role_S[sentence_M]
    start_M = at_S[sentence_M] + _BEGINNING + _LINES[2] * written.turn_M
    pieces.put(start_M, word[SO], role_M, live_M & last_M, sentence_M)
    end_M = _lines(pieces, start_M + last_M, written, role_M, vocab)
    end_M += jnp.where(last_M, markers_S[sentence_M], 0)
    mark_M = jnp.where(last_M, word[STOP], word[NEXT])
    mark_role_M = jnp.where(last_M & (markers_S[sentence_M] > 0), WRONG_MARKER, role_M)
    pieces.put(end_M, mark_M, mark_role_M, live_M, sentence_M)
    return start + end_S[-1]


def _lines(
    pieces: _Pieces, at_M: jax.Array, written: Written, role_M: jax.Array, vocab: Vocabulary
) -> jax.Array:
    """Puts all lines from their positions on; returns where the marks after them stand."""
    line = written.line_M
    operators = jnp.array([vocab.ids[operator] for operator in OPERATORS])

    def symbol(operand_M: jax.Array) -> jax.Array:
        number_M = vocab.numbers - 1 - operand_M
        return jnp.where(operand_M >= 0, vocab.letters + operand_M, number_M)

    def errs(what: int) -> jax.Array:
        return jnp.where((line.wrong_J & what) != 0, WRONG_NAME, role_M)

    equals = {EQUALS: (vocab.ids[EQUALS], role_M)}
    slots = {
        "letter": (vocab.letters + written.letter_M, role_M),
        "left": (symbol(line.left_J), errs(LEFT)),
        "operator": (operators[line.operator_J], errs(OPERATOR)),
        "right": (symbol(line.right_J), errs(RIGHT)),
        "left_value": (vocab.numbers + line.left_value_J, errs(LEFT_VALUE)),
        "right_value": (vocab.numbers + line.right_value_J, errs(RIGHT_VALUE)),
        "result": (vocab.numbers + line.value_J, errs(RESULT)),
    }
    filled = [form.fill(equals, **slots) for form in LINES]
    is_M = [line.form_J == operands for operands in range(len(LINES))]
    for n in range(len(LINES[-1])):
        # In a line of fewer operands something else may stand there, or nothing.
        *fewer, (least, (token, role)) = [
            (operands, form[n]) for operands, form in enumerate(filled) if n < len(form)
        ]
        for operands, (other, other_role) in reversed(fewer):
            least = operands
            if other is not token:
                token = jnp.where(is_M[operands], other, token)
                role = jnp.where(is_M[operands], other_role, role)
        keep_M = written.live_M & (line.form_J >= least) if least else written.live_M
        pieces.put(at_M + n, token, role, keep_M, written.sentence_M)
    return at_M + first_case(is_M[:2], [len(LINES[0]), len(LINES[1])], len(LINES[2]))
