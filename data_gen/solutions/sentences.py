"""The sentences of a solution, with letters and values: right, wrong, or resting on wrong ones."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_gen.problems import draws
from data_gen.problems.parameters import Schedule, parameters
from data_gen.problems.problem import Problem
from data_gen.solutions import errors
from data_gen.solutions import lines as lines_lib
from data_gen.solutions.lines import Expression, Line, Operands, Slip
from data_gen.solutions.mistakes import ERRORS, KINDS, PARAMETERS, RESTARTS, Mistakes
from data_gen.solutions.script import Script
from data_gen.spec import Spec

# Lines that there is room for, for each sentence beyond the steps. Most have one or two, and there
# is room for many more sentences than most solutions have.
_LINES_EACH = 2
_NUMBER = 8  # bits of a letter's number


class Written(NamedTuple):
    """All lines of a solution laid flat (M), and what its sentences (S) add to them."""

    line_M: Line  # an operand is a letter of `data_gen.solutions.language`, or -1 - number
    letter_M: jax.Array  # int32: of each line's result
    sentence_M: jax.Array  # int32
    turn_M: jax.Array  # int32: which of the sentence's lines
    last_M: jax.Array  # bool: the last of them
    live_M: jax.Array  # bool
    body_S: jax.Array  # bool: the sentence has lines; else it stops at its name
    form_S: jax.Array  # int32: operands of its lines
    count_S: jax.Array  # int32: lines
    letter_S: jax.Array  # int32: the letter that its header names
    complete: jax.Array  # bool: every line found room


class _Sentence(NamedTuple):
    """A sentence before its values are known (scalars)."""

    of: Expression
    slip: Slip
    start: jax.Array  # int32: letters used before it
    step: jax.Array  # int32: its operands are known where they are solved before this one
    since: jax.Array  # int32: the step from which on letters are others than in a right solution
    shift: jax.Array  # int32: by how many
    guess: jax.Array  # uint32: what unknown numbers are drawn from


class _Operand(NamedTuple):
    """What is to be known of each slot (P) that a sentence may name."""

    value_P: jax.Array
    letter_P: jax.Array  # int32: of the letters in their order, for what a step computes
    solved_P: jax.Array


def written(
    problem: Problem,
    script: Script,
    when: Schedule,
    choices: errors.Options | None,
    mistakes: Mistakes,
    spec: Spec,
) -> Written:
    """Works out all sentences of a script; `choices` are what its wrong ones are drawn from."""
    params = parameters(problem.structure, spec)
    slot_T = jnp.maximum(problem.order_T, 0)
    of_T = lines_lib.expression(problem, params, slot_T, spec)
    count_T = jnp.where(problem.order_T >= 0, of_T.operations, 0)
    end_T = jnp.cumsum(count_T)
    solved_P = jnp.minimum(when.solved_P, spec.op_room)
    letter_P = jnp.maximum(end_T[jnp.minimum(solved_P, spec.op_room - 1)] - 1, 0)
    known = _Operand(problem.value_P, letter_P, solved_P)
    if mistakes.bodies:
        return _all(problem, script, known, of_T, count_T, choices, mistakes, spec)
    return _steps(problem, script, known, of_T, count_T, mistakes, spec)


def _steps(
    problem: Problem,
    script: Script,
    known: _Operand,
    of_T: Expression,
    count_T: jax.Array,
    mistakes: Mistakes,
    spec: Spec,
) -> Written:
    """Where wrong steps stop at their names: lines belong to steps, whatever stands between."""
    start_T, zero = jnp.cumsum(count_T) - count_T, jnp.int32(0)
    never = jnp.int32(spec.op_room)

    def right(of: Expression, start: jax.Array) -> lines_lib.Packed:
        slip = lines_lib.no_slip()
        sentence = _Sentence(of, slip, start, never + 1, never, zero, jnp.uint32(0))
        operands = _operands(sentence, known=known, mistakes=mistakes, spec=spec)
        return _lines(sentence, operands, spec)

    lines_TxJ = jax.vmap(right)(of_T, start_T)
    step_M, turn_M, live_M = lines_lib.laid_flat(count_T, spec.op_room)
    lines_M = lines_lib.unpack(jax.tree.map(lambda x_TxJ: x_TxJ[step_M, turn_M], lines_TxJ))
    body_S = (script.slot_S >= 0) & ~script.wrong_S
    # Of a step's right sentence the place among all: steps before it, and mistakes up to it.
    step_S = jnp.minimum(script.step_S, spec.op_room - 1)
    place_T = jnp.zeros(spec.op_room + 1, jnp.int32)
    place_T = place_T.at[jnp.where(body_S, step_S, spec.op_room)].set(np.arange(body_S.shape[0]))

    def letter(place: jax.Array) -> jax.Array:
        return problem.letters[jnp.clip(place, 0, spec.letters - 1)]

    return Written(
        line_M=_lettered(lines_M, letter),
        letter_M=letter(start_T[step_M] + turn_M),
        sentence_M=place_T[step_M],
        turn_M=turn_M,
        last_M=turn_M == count_T[step_M] - 1,
        live_M=live_M,
        body_S=body_S,
        form_S=of_T.form[step_S],
        count_S=count_T[step_S],
        letter_S=letter(start_T + count_T - 1)[step_S],
        complete=jnp.bool_(True),
    )


def _all(
    problem: Problem,
    script: Script,
    known: _Operand,
    of_T: Expression,
    count_T: jax.Array,
    choices: errors.Options | None,
    mistakes: Mistakes,
    spec: Spec,
) -> Written:
    """Where sentences have lines of their own: wrong ones, or right ones that come twice."""
    live_S, start_T = script.slot_S >= 0, jnp.cumsum(count_T) - count_T
    step_S = jnp.minimum(script.step_S, spec.op_room - 1)
    errs_S = script.kind_S >= len(PARAMETERS)
    named_K = np.array([mistakes.stops_at_name(kind) for kind in KINDS])
    body_S = live_S & ~(script.wrong_S & jnp.asarray(named_K)[script.kind_S])
    if all(mistakes.stops_at_name(kind) or kind in ERRORS for kind, _ in mistakes.rates):
        # All that have lines are sentences about their step.
        of_S = lines_lib.unpack_expression(lines_lib.pack_expression(of_T)[step_S], spec)
    else:
        params, slot_S = parameters(problem.structure, spec), jnp.maximum(script.slot_S, 0)
        of_S = lines_lib.expression(problem, params, slot_S, spec)
    slip_S = jax.tree.map(lambda x: jnp.broadcast_to(x, step_S.shape), lines_lib.no_slip())
    if choices is not None:
        error_S = script.kind_S - len(PARAMETERS)
        draw = partial(errors.applied, choices=choices, spec=spec)
        of_S, slip_S = jax.vmap(draw)(error_S, step_S, script.word_S, of_S)
    count_S = of_S.operations

    # After a wrong sentence that is not yet taken back, letters shift by what it takes more.
    shift_S, since_S = jnp.zeros_like(step_S), jnp.full_like(step_S, spec.op_room + 1)
    if mistakes.late:
        rests_S, origin_S = script.after_S >= 0, jnp.maximum(script.after_S, 0)
        more_S = count_S - jnp.where(errs_S, count_T[step_S], 0)
        shift_S = jnp.where(rests_S, more_S[origin_S], 0)
        since_S = jnp.where(rests_S, step_S[origin_S], spec.op_room + 1)
    start_S = start_T[step_S] + shift_S
    # All that a right sentence names is known when it is written.
    upto_S = jnp.where(script.wrong_S & ~errs_S, step_S, spec.op_room + 1)
    sentence_S = _Sentence(of_S, slip_S, start_S, upto_S, since_S, shift_S, script.word_S)
    operands_S = jax.vmap(partial(_operands, known=known, mistakes=mistakes, spec=spec))(sentence_S)
    work = jax.vmap(partial(_lines, spec=spec))
    lines_SxJ = work(sentence_S, operands_S)
    if mistakes.late:
        last_S = jnp.clip(count_S, 1, lines_lib.lines_cap(spec)) - 1
        value_SxJ = lines_lib.unpack(lines_SxJ).value_J
        value_S = jnp.take_along_axis(value_SxJ, last_S[:, None], 1)[:, 0]

        def follow(belief_P: jax.Array, at: tuple) -> tuple[jax.Array, tuple]:
            """The writer believes what it wrote, until it writes it again."""
            of, rests, value, slot = at
            found = belief_P[of.first_K], belief_P[of.second_K]
            value = jnp.where(rests, lines_lib.value(of, *found, spec), value)
            return jnp.where(np.arange(spec.slots) == slot, value, belief_P), found

        over = (of_S, rests_S, value_S, script.slot_S)
        found_SxK = jax.lax.scan(follow, problem.value_P, over)[1]
        first_SxK, second_SxK = (
            jnp.where(rests_S[:, None], believed_SxK, known_SxK)
            for believed_SxK, known_SxK in zip(
                found_SxK, (operands_S.first_value_K, operands_S.second_value_K), strict=True
            )
        )
        believed_S = operands_S._replace(first_value_K=first_SxK, second_value_K=second_SxK)
        lines_SxJ = work(sentence_S, believed_S)

    size = _room(live_S.shape[0], mistakes, spec)
    used_S = jnp.where(body_S, count_S, 0)
    sentence_M, turn_M, live_M = lines_lib.laid_flat(used_S, size)
    turn_M = jnp.clip(turn_M, 0, lines_lib.lines_cap(spec) - 1)
    lines_M = lines_lib.unpack(jax.tree.map(lambda x_SxJ: x_SxJ[sentence_M, turn_M], lines_SxJ))
    attempt_M = script.attempt_S[sentence_M]

    def letter(place: jax.Array, attempt: jax.Array) -> jax.Array:
        place = jnp.clip(place, 0, spec.letters - 1)
        return problem.letters[_place(script, attempt, place, spec) if mistakes.restarts else place]

    return Written(
        line_M=_lettered(lines_M, partial(letter, attempt=attempt_M)),
        letter_M=letter(start_S[sentence_M] + turn_M, attempt_M),
        sentence_M=sentence_M,
        turn_M=turn_M,
        last_M=turn_M == count_S[sentence_M] - 1,
        live_M=live_M,
        body_S=body_S,
        form_S=of_S.form,
        count_S=count_S,
        letter_S=letter(start_S + count_S - 1, script.attempt_S),
        complete=used_S.sum() <= size,
    )


def _room(sentences: int, mistakes: Mistakes, spec: Spec) -> int:
    """Lines that there is room for."""
    if sentences < mistakes.sentence_cap(spec):
        return math.ceil(1.4 * sentences)
    # Steps of all beginnings have room, whatever they are; of the others a few in all.
    again = spec.op_room * (1 + RESTARTS * mistakes.restarts)
    return again + _LINES_EACH * (sentences - again)


def _lettered(line_M: Line, letter: Callable[[jax.Array], jax.Array]) -> Line:
    """The lines with letters for their places in the order in which they are taken."""
    left_M, right_M = (
        jnp.where(operand_M >= 0, letter(operand_M), operand_M)
        for operand_M in (line_M.left_J, line_M.right_J)
    )
    return line_M._replace(left_J=left_M, right_J=right_M)


def _place(script: Script, attempt: jax.Array, place: jax.Array, spec: Spec) -> jax.Array:
    """Which of a problem's letters the letter `place` of a beginning is.

    The first beginning takes them in their order, each further one in another: by steps of a
    random size without a divisor in common with their number, so that none comes twice.
    """
    sizes = np.array([n for n in range(1, spec.letters + 1) if math.gcd(n, spec.letters) == 1])
    word = draws.mix(script.anew + attempt.astype(jnp.uint32) * np.uint32(0x9E3779B9))
    size = jnp.asarray(sizes)[draws.below(word, len(sizes))]
    start = draws.below(draws.mix(word), spec.letters)
    return jnp.where(attempt > 0, (size * place + start) % spec.letters, place)


def _operands(sentence: _Sentence, *, known: _Operand, mistakes: Mistakes, spec: Spec) -> Operands:
    """What a sentence names, its letters by number in the order in which they are taken."""
    spots, table_P = (
        np.arange(lines_lib.terms_cap(spec)),
        known.letter_P | known.solved_P << _NUMBER,
    )
    ends = sentence.start + sentence.of.operations

    def operand(slot_K: jax.Array, spare: int) -> tuple[jax.Array, jax.Array]:
        found_K = table_P[slot_K]
        letter_K, solved_K = found_K & (2**_NUMBER - 1), found_K >> _NUMBER
        value_K = known.value_P[slot_K]
        letter_K += jnp.where(solved_K >= sentence.since, sentence.shift, 0)
        if mistakes.whole:
            # Nothing has defined these letters; the numbers are guessed.
            known_K = solved_K < sentence.step
            guess_K = draws.mix(sentence.guess + (spare + spots).astype(np.uint32))
            value_K = jnp.where(known_K, value_K, draws.below(guess_K, spec.modulus))
            letter_K = jnp.where(known_K, letter_K, ends + spare + spots)
        return letter_K, value_K

    first = operand(sentence.of.first_K, 0)
    return Operands(*first, *operand(sentence.of.second_K, spec.max_width))


def _lines(sentence: _Sentence, operands: Operands, spec: Spec) -> lines_lib.Packed:
    """A sentence's lines, their letters by number in the order in which they are taken."""
    letters_J = sentence.start + np.arange(lines_lib.lines_cap(spec))
    return lines_lib.work(sentence.of, operands, sentence.slip, letters_J, spec)
