"""From a problem and the script of its solution to tokens, by scatter at computed offsets."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_gen.dependency import compact
from data_gen.language import Vocabulary, vocabulary
from data_gen.mistakes import Script
from data_gen.problem import Problem
from data_gen.slots import layout, parameters
from data_gen.spec import Spec

# What a token is part of.
OUTSIDE, PROBLEM, SOLUTION, WRONG_NAME, WRONG_WORDS, WRONG_MARKER, ANSWER = range(7)

# Tokens of "Define {owner}'s {thing} as x;" and of "Define {owner}'s {thing} as BACK."
HEADER = 7
# Tokens of "How many {thing} does {owner} have?"
QUESTION = 5


class Document(NamedTuple):
    """The tokens of one document; N is the room given."""

    tokens_N: jax.Array  # int32, the end marker from `length` on
    role_N: jax.Array  # int32: OUTSIDE, PROBLEM, …
    kind_N: jax.Array  # int32: what the token is, MARKER, WORD, … of `data_gen.language`
    sentence_N: jax.Array  # int32: the script's sentence that a solution token is in, or -1
    length: jax.Array  # int32: of the whole document, also where it exceeds the room
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


def document(problem: Problem, script: Script, size: int, spec: Spec) -> Document:
    """Writes a whole document: problem, solution with its mistakes, answer.

    Args:
      size: room for tokens; what goes beyond is cut, `length` tells the whole length.
    """
    vocab = vocabulary(spec)
    words = _words(problem, vocab, spec)
    pieces = _Pieces()
    prompt = _problem(pieces, problem, words, vocab, spec)
    end = _solution(pieces, prompt, problem, script, words, vocab, spec)
    answer = vocab.numbers + problem.value_P[problem.query]
    pieces.put(
        end + np.arange(3),
        jnp.stack([jnp.int32(vocab.answer), answer, jnp.int32(vocab.end)]),
        ANSWER,
    )
    tokens_N, role_N, sentence_N = pieces.scatter(size, vocab.end)
    kind_N = jnp.asarray(vocab.kinds)[tokens_N]
    return Document(tokens_N, role_N, kind_N, sentence_N, end + 3, prompt)


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


class _Lines(NamedTuple):
    """One operation each; L is the op cap. Operands are token ids and values."""

    live_L: jax.Array
    step_L: jax.Array
    last_L: jax.Array  # the step's last, whose result is the step's
    form_L: jax.Array  # operands: 0 (a number alone), 1, 2
    operator_L: jax.Array  # token id
    left_L: jax.Array
    left_value_L: jax.Array
    right_L: jax.Array
    right_value_L: jax.Array
    value_L: jax.Array


def lines(problem: Problem, vocab: Vocabulary, spec: Spec) -> tuple[_Lines, jax.Array]:
    """Breaks every step into operations on two operands.

    Terms are added from the left; a product is formed before the sum that uses it; a constant
    comes last, as the left operand.

    Returns:
      the lines, and letter_T, the token of the letter that each step ends in.
    """
    table, instances, modulus = layout(spec), spec.instance_slots, spec.modulus
    params = parameters(problem.structure, spec)
    live_T = problem.order_T >= 0
    slot_T = jnp.maximum(problem.order_T, 0)
    instance_T = slot_T < instances
    at_T = jnp.where(instance_T, slot_T, 0)
    abstract_T = jnp.clip(slot_T - instances, 0, spec.abstract_slots - 1)

    child_TxW = jnp.asarray(table.children_AxW)[abstract_T]
    edge_TxW = params.exists_P[child_TxW]
    factor_TxW = jnp.where(edge_TxW, jnp.asarray(table.factors_AxW)[abstract_T], -1)
    # A child's number and its factor's are both at least 0 or both left out.
    width = max(spec.max_width, problem.refs_IxR.shape[-1])
    child_TxK = compact(jnp.where(edge_TxW, child_TxW, -1), width)
    refs_TxR = problem.refs_IxR[at_T]
    refs_TxK = jnp.pad(refs_TxR, ((0, 0), (0, width - refs_TxR.shape[-1])), constant_values=-1)
    first_TxK = jnp.where(instance_T[:, None], refs_TxK, child_TxK)
    second_TxK = jnp.where(instance_T[:, None], -1, compact(factor_TxW, width))
    count_T = (first_TxK >= 0).sum(-1)
    product_T = (second_TxK[:, 0] >= 0) & ~instance_T
    constant_T = instance_T & problem.constant_I[at_T]
    minus_T = instance_T & problem.difference_I[at_T] & (count_T == 2)
    op_T = jnp.maximum(jnp.where(product_T, 2 * count_T - 1, count_T + constant_T - 1), 1) * live_T
    end_T = jnp.cumsum(op_T)
    start_T = end_T - op_T

    first_value_TxK = jnp.where(first_TxK >= 0, problem.value_P[first_TxK], 0)
    second_value_TxK = jnp.where(second_TxK >= 0, problem.value_P[second_TxK], 1)
    sign_TxK = jnp.where(minus_T[:, None] & (np.arange(width) == 1), -1, 1)
    term_TxK = (first_value_TxK * second_value_TxK * sign_TxK) % modulus
    partial_TxK = jnp.cumsum(term_TxK, -1) % modulus

    letters_L = vocab.letters + problem.letters
    letter_T = letters_L[jnp.maximum(end_T - 1, 0)]
    match_PxT = (jnp.arange(spec.slots)[:, None] == slot_T) & live_T
    letter_P = letter_T[match_PxT.argmax(-1)]

    line_L = np.arange(spec.op_room)
    step_L = jnp.minimum((line_L[:, None] >= end_T[None, :]).sum(-1), spec.op_room - 1)
    live_L = jnp.asarray(line_L) < end_T[-1]
    turn_L = line_L - start_T[step_L]
    last_L = turn_L == op_T[step_L] - 1
    count_L, product_L, constant_L = count_T[step_L], product_T[step_L], constant_T[step_L]

    # Lines of a product step: p0, p1, p0 + p1, p2, … + p2, p3, … + p3.
    sums_L = product_L & (turn_L >= 2) & (turn_L % 2 == 0)
    multiplies_L = product_L & ~sums_L
    finishes_L = constant_L & last_L & (count_L > 0)
    term_L = jnp.where(product_L, jnp.where(turn_L < 2, turn_L, (turn_L + 1) // 2), turn_L + 1)
    term_L = jnp.clip(term_L, 0, width - 1)

    def operand(slot_L: jax.Array) -> tuple[jax.Array, jax.Array]:
        return letter_P[slot_L], problem.value_P[slot_L]

    own_L = jnp.where(
        last_L,
        problem.value_P[slot_T[step_L]],
        jnp.where(
            multiplies_L,
            term_TxK[step_L, term_L],
            partial_TxK[step_L, jnp.where(product_L, turn_L // 2, term_L)],
        ),
    )
    above_L, two_above_L = np.maximum(line_L - 1, 0), np.maximum(line_L - 2, 0)
    head_token_L, head_value_L = operand(first_TxK[step_L, 0])
    term_token_L, term_value_L = operand(first_TxK[step_L, term_L])
    factor_token_L, factor_value_L = operand(second_TxK[step_L, term_L])
    number_L = problem.number_I[at_T[step_L]]

    begins_L = turn_L == 0
    single_L = (count_L == 1) & ~constant_L & ~product_L
    form_L = jnp.where(count_L == 0, 0, jnp.where(single_L, 1, 2))
    cases_L = [finishes_L, multiplies_L, sums_L, begins_L]
    left_L = jnp.select(
        cases_L,
        [vocab.numbers + number_L, term_token_L, letters_L[two_above_L], head_token_L],
        letters_L[above_L],
    )
    left_value_L = jnp.select(
        cases_L, [number_L, term_value_L, own_L[two_above_L], head_value_L], own_L[above_L]
    )
    cases_L = [finishes_L & begins_L, multiplies_L, finishes_L | sums_L]
    right_L = jnp.select(cases_L, [head_token_L, factor_token_L, letters_L[above_L]], term_token_L)
    right_value_L = jnp.select(
        cases_L, [head_value_L, factor_value_L, own_L[above_L]], term_value_L
    )
    word = vocab.ids
    times_L = jnp.where(finishes_L, problem.times_I[at_T[step_L]], multiplies_L)
    minus_L = minus_T[step_L] & ~finishes_L
    operator_L = jnp.where(times_L, word[" *"], jnp.where(minus_L, word[" -"], word[" +"]))
    found = _Lines(
        live_L,
        step_L,
        last_L,
        form_L,
        operator_L,
        left_L,
        left_value_L,
        right_L,
        right_value_L,
        own_L,
    )
    return found, letter_T


def _solution(
    pieces: _Pieces,
    start: jax.Array,
    problem: Problem,
    script: Script,
    words: _Words,
    vocab: Vocabulary,
    spec: Spec,
) -> jax.Array:
    """Puts the solution from position `start` on; returns where it ends."""
    word = vocab.ids
    line, letter_T = lines(problem, vocab, spec)
    last_L = line.last_L.astype(jnp.int32)
    size_L = jnp.select([line.form_L == 0, line.form_L == 1], [5, 7], 12 + last_L) * line.live_L
    before_L = jnp.cumsum(size_L) - size_L
    in_step_TxL = (np.arange(spec.op_room)[:, None] == line.step_L) & line.live_L
    size_T = (in_step_TxL * size_L).sum(-1)
    before_T = jnp.cumsum(size_T) - size_T

    live_S = script.slot_S >= 0
    place_S = np.arange(script.slot_S.shape[0])
    at_S = start + HEADER * place_S + before_T[script.step_S]
    slot_S, wrong_S = jnp.maximum(script.slot_S, 0), script.wrong_S
    words_role_S = jnp.where(wrong_S, WRONG_WORDS, SOLUTION)
    name_role_S = jnp.where(wrong_S, WRONG_NAME, SOLUTION)
    marker_role_S = jnp.where(wrong_S, WRONG_MARKER, SOLUTION)
    header = (
        (word[" Define"], words_role_S),
        (words.owner_P[slot_S], name_role_S),
        (word["'s"], name_role_S),
        (words.thing_P[slot_S], name_role_S),
        (word[" as"], words_role_S),
        (jnp.where(wrong_S, word[" BACK"], letter_T[script.step_S]), marker_role_S),
        (jnp.where(wrong_S, word["."], word[";"]), marker_role_S),
    )
    for n, (token, role) in enumerate(header):
        pieces.put(at_S + n, token, role, live_S, place_S)

    right_SxT = (script.step_S[:, None] == np.arange(spec.op_room)) & (live_S & ~wrong_S)[:, None]
    sentence_T = right_SxT.argmax(0)
    sentence_L = sentence_T[line.step_L]
    base_L = start + HEADER * (sentence_L + 1) + before_L
    letters_L = vocab.letters + problem.letters
    two_L = line.form_L == 2
    some_L = line.form_L >= 1
    body_L = base_L + last_L
    equals, value_L = word[" ="], vocab.numbers + line.value_L
    second_L = body_L + jnp.where(two_L, 6, 4)
    value_at_L = jnp.select([two_L, some_L], [body_L + 10, body_L + 4], body_L + 2)
    puts = (
        (base_L, word[" so"], line.last_L),
        (body_L, letters_L, True),
        (body_L + 1, equals, True),
        (body_L + 2, line.left_L, some_L),
        (body_L + 3, line.operator_L, two_L),
        (body_L + 4, line.right_L, two_L),
        (body_L + 5, equals, two_L),
        (second_L, vocab.numbers + line.left_value_L, two_L),
        (second_L + 1, line.operator_L, two_L),
        (second_L + 2, vocab.numbers + line.right_value_L, two_L),
        (value_at_L - 1, equals, some_L),
        (value_at_L, value_L, True),
        (value_at_L + 1, jnp.where(line.last_L, word["."], word[";"]), True),
    )
    for at_L, token, keep in puts:
        pieces.put(at_L, token, SOLUTION, line.live_L & keep, sentence_L)
    return start + HEADER * script.sentences + size_L.sum()
