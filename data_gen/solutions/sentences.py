"""The sentences of a solution with letters and values: right, wrong, or based on wrong ones."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data_gen.problems import draws
from data_gen.problems.problem import Problem
from data_gen.solutions import computation
from data_gen.solutions.computation import Expression, Line, Operands, Slip
from data_gen.solutions.kinds import WrongSentence
from data_gen.solutions.mistakes import RESTARTS, Mistakes
from data_gen.solutions.script import Script
from data_gen.solutions.steps import Steps, written_wrong
from data_gen.spec import Spec

# Lines that there is room for, for each sentence beyond the steps. Most have one or two, and there
# is room for many more sentences than most solutions have.
_LINES_EACH = 2
_NUMBER = 8  # bits of a letter's number


class Written(NamedTuple):
    """All lines of a solution, concatenated (M), and the rest of its sentences (S)."""

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


class _Known(NamedTuple):
    """Facts about each slot (P) that a sentence may name."""

    value_P: jax.Array
    letter_P: jax.Array  # int32: of the letters in their order, for what a step computes
    solved_P: jax.Array


def written(
    problem: Problem, script: Script, steps: Steps, mistakes: Mistakes, spec: Spec
) -> Written:
    """All sentences of a script that was drawn from these steps."""
    count_T = jnp.where(problem.order_T >= 0, steps.of_T.operations, 0)
    end_T = jnp.cumsum(count_T)
    solved_P = jnp.minimum(steps.params.solved_P, spec.op_room)
    letter_P = jnp.maximum(end_T[jnp.minimum(solved_P, spec.op_room - 1)] - 1, 0)
    known = _Known(problem.value_P, letter_P, solved_P)
    by = _by_sentence if mistakes.bodies else _by_step
    return by(problem, script, known, steps, count_T, mistakes, spec)


def _by_step(
    problem: Problem,
    script: Script,
    known: _Known,
    steps: Steps,
    count_T: jax.Array,
    mistakes: Mistakes,
    spec: Spec,
) -> Written:
    """For mistakes cut off at their names: lines belong to steps alone."""
    start_T, zero = jnp.cumsum(count_T) - count_T, jnp.int32(0)
    never = jnp.int32(spec.op_room)

    def right(of: Expression, start: jax.Array) -> computation.Packed:
        slip = computation.no_slip()
        sentence = _Sentence(of, slip, start, never + 1, never, zero, jnp.uint32(0))
        operands = _operands(sentence, known=known, mistakes=mistakes, spec=spec)
        return _lines(sentence, operands, spec)

    lines_TxJ = jax.vmap(right)(steps.of_T, start_T)
    step_M, turn_M, live_M = computation.laid_flat(count_T, spec.op_room)
    lines_M = computation.unpack(jax.tree.map(lambda x_TxJ: x_TxJ[step_M, turn_M], lines_TxJ))
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
        form_S=steps.of_T.form[step_S],
        count_S=count_T[step_S],
        letter_S=letter(start_T + count_T - 1)[step_S],
        complete=jnp.bool_(True),
    )


def _by_sentence(
    problem: Problem,
    script: Script,
    known: _Known,
    steps: Steps,
    count_T: jax.Array,
    mistakes: Mistakes,
    spec: Spec,
) -> Written:
    """For mistakes with whole sentences, or repeated steps: every sentence has lines."""
    live_S, start_T = script.slot_S >= 0, jnp.cumsum(count_T) - count_T
    step_S = jnp.minimum(script.step_S, spec.op_room - 1)
    kinds = [kind for kind, _ in mistakes.rates]
    named_K = jnp.array([mistakes.stops_at_name(kind) for kind in kinds])
    body_S = live_S & ~(script.wrong_S & named_K[script.kind_S])
    if all(mistakes.stops_at_name(kind) or isinstance(kind, WrongSentence) for kind in kinds):
        # All that have lines are sentences about their step.
        packed_T = computation.pack_expression(steps.of_T)
        of_S = computation.unpack_expression(packed_T[step_S], spec)
    else:
        slot_S = jnp.maximum(script.slot_S, 0)
        of_S = computation.expressions(problem, steps.params, slot_S, spec)
    slip_S = jax.tree.map(lambda x: jnp.broadcast_to(x, step_S.shape), computation.no_slip())
    if steps.candidates is not None:
        draw = partial(written_wrong, candidates=steps.candidates, mistakes=mistakes, spec=spec)
        of_S, slip_S = jax.vmap(draw)(script.kind_S, step_S, script.word_S, script.turn_S, of_S)
    count_S = of_S.operations

    # After a wrong sentence that is not yet taken back, letters shift by what it takes more.
    shift_S, since_S = jnp.zeros_like(step_S), jnp.full_like(step_S, spec.op_room + 1)
    if mistakes.late:
        rests_S, origin_S = script.after_S >= 0, jnp.maximum(script.after_S, 0)
        more_S = count_S - jnp.where(script.misnamed_S, 0, count_T[step_S])
        shift_S = jnp.where(rests_S, more_S[origin_S], 0)
        since_S = jnp.where(rests_S, step_S[origin_S], spec.op_room + 1)
    start_S = start_T[step_S] + shift_S
    # All that a right sentence names is known when it is written.
    upto_S = jnp.where(script.misnamed_S, step_S, spec.op_room + 1)
    sentence_S = _Sentence(of_S, slip_S, start_S, upto_S, since_S, shift_S, script.word_S)
    operands_S = jax.vmap(partial(_operands, known=known, mistakes=mistakes, spec=spec))(sentence_S)
    work = jax.vmap(partial(_lines, spec=spec))
    lines_SxJ = work(sentence_S, operands_S)
    if mistakes.late:
        last_S = jnp.clip(count_S, 1, computation.lines_cap(spec)) - 1
        value_SxJ = computation.unpack(lines_SxJ).value_J
        value_S = jnp.take_along_axis(value_SxJ, last_S[:, None], 1)[:, 0]

        def follow(belief_P: jax.Array, at: tuple) -> tuple[jax.Array, tuple]:
            """Later sentences use values as they were written, right or wrong."""
            of, rests, value, slot = at
            found = belief_P[of.first_F], belief_P[of.second_F]
            value = jnp.where(rests, computation.value_of(of, *found, spec), value)
            return jnp.where(np.arange(spec.slots) == slot, value, belief_P), found

        over = (of_S, rests_S, value_S, script.slot_S)
        found_SxF = jax.lax.scan(follow, problem.value_P, over)[1]
        first_SxF, second_SxF = (
            jnp.where(rests_S[:, None], believed_SxF, known_SxF)
            for believed_SxF, known_SxF in zip(
                found_SxF, (operands_S.first_value_F, operands_S.second_value_F), strict=True
            )
        )
        believed_S = operands_S._replace(first_value_F=first_SxF, second_value_F=second_SxF)
        lines_SxJ = work(sentence_S, believed_S)

    size = _line_room(live_S.shape[0], mistakes, spec)
    used_S = jnp.where(body_S, count_S, 0)
    sentence_M, turn_M, live_M = computation.laid_flat(used_S, size)
    turn_M = jnp.clip(turn_M, 0, computation.lines_cap(spec) - 1)
    lines_M = computation.unpack(jax.tree.map(lambda x_SxJ: x_SxJ[sentence_M, turn_M], lines_SxJ))
    attempt_M = script.attempt_S[sentence_M]

    def letter(place: jax.Array, attempt: jax.Array) -> jax.Array:
        place = jnp.clip(place, 0, spec.letters - 1)
        if mistakes.restarts:
            place = _reordered(script, attempt, place, spec)
        return problem.letters[place]

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


def _line_room(sentences: int, mistakes: Mistakes, spec: Spec) -> int:
    """The capacity in lines."""
    if sentences < mistakes.sentence_cap(spec):
        return math.ceil(1.4 * sentences)
    # Steps of all beginnings have room, whatever they are; of the others a few in all.
    again = spec.op_room * (1 + RESTARTS * mistakes.restarts)
    return again + _LINES_EACH * (sentences - again)


def _lettered(line_M: Line, letter: Callable[[jax.Array], jax.Array]) -> Line:
    """The lines with their letters, which are numbered in order of use until then."""
    left_M, right_M = (
        jnp.where(operand_M >= 0, letter(operand_M), operand_M)
        for operand_M in (line_M.left_J, line_M.right_J)
    )
    return line_M._replace(left_J=left_M, right_J=right_M)


def _reordered(script: Script, attempt: jax.Array, place: jax.Array, spec: Spec) -> jax.Array:
    """Which of a problem's letters the letter `place` of a beginning is.

    The first beginning takes them in their order, each further one in another: by steps of a
    random size without a divisor in common with their number, so that none comes twice.
    """
    sizes = np.array([n for n in range(1, spec.letters + 1) if math.gcd(n, spec.letters) == 1])
    word = draws.numbered(script.anew, attempt)
    size = jnp.asarray(sizes)[draws.below(word, len(sizes))]
    start = draws.below(draws.named(word, "start"), spec.letters)
    return jnp.where(attempt > 0, (size * place + start) % spec.letters, place)


def _operands(sentence: _Sentence, *, known: _Known, mistakes: Mistakes, spec: Spec) -> Operands:
    """What a sentence names, its letters by number in the order in which they are taken."""
    spots = jnp.arange(computation.terms_cap(spec))
    table_P = known.letter_P | known.solved_P << _NUMBER
    ends = sentence.start + sentence.of.operations

    def operand(slot_F: jax.Array, spare: int) -> tuple[jax.Array, jax.Array]:
        found_F = table_P[slot_F]
        letter_F, solved_F = found_F & (2**_NUMBER - 1), found_F >> _NUMBER
        value_F = known.value_P[slot_F]
        letter_F += jnp.where(solved_F >= sentence.since, sentence.shift, 0)
        if mistakes.whole:
            # Nothing has defined these letters; the numbers are guessed.
            known_F = solved_F < sentence.step
            guess_F = draws.numbered(sentence.guess, spare + spots)
            value_F = jnp.where(known_F, value_F, draws.below(guess_F, spec.modulus))
            letter_F = jnp.where(known_F, letter_F, ends + spare + spots)
        return letter_F, value_F

    first = operand(sentence.of.first_F, 0)
    return Operands(*first, *operand(sentence.of.second_F, spec.max_width))


def _lines(sentence: _Sentence, operands: Operands, spec: Spec) -> computation.Packed:
    """A sentence's lines, their letters by number in the order in which they are taken."""
    letters_J = sentence.start + np.arange(computation.lines_cap(spec))
    return computation.computed(sentence.of, operands, sentence.slip, letters_J, spec)
