"""A token a parameter: what is merged is what a plain reading merges, and the text stays."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest
from drawn import COUNT, ROOM, SMALL, TINY, drawn, writer
from test_stream import pack_slowly

from data_gen import keys
from data_gen.frozen.rows import Contents
from data_gen.keys import Purpose
from data_gen.settings import RefusedError
from data_gen.solutions import document, kinds, language
from data_gen.solutions.mistakes import MASKS, Mistakes
from data_gen.spec import MED, Spec
from data_gen.text import corrections
from data_gen.text.answers import judge_many
from data_gen.windows import stream
from data_gen.windows.configuration import Windows, shortest_document
from data_gen.windows.parameter import PARAMETER_LIMIT
from data_gen.windows.tokenizer import tokenizer
from physlm import cells as cells_lib
from physlm.cells import EvalConfig
from physlm.experiments import config, execution, registry, run, sweep
from physlm.experiments.evaluation import Evaluation
from physlm.experiments.store import Store

pytestmark = pytest.mark.slow

KINDS = kinds.known()
ALL = ",".join(f"{kind.name}:{1 / len(KINDS):.4f}" for kind in KINDS)
RETRY = Mistakes("retry", 0.5)
LATE = Mistakes(ALL, 0.5, mend="back:0.4,fix:0.3,restart:0.3", whole=True, late=1)
NAMED = Mistakes(ALL, 0.5, mend="back:0.4,fix:0.3,restart:0.3")
QP = dataclasses.replace(SMALL, order="qp")
CASES = [(SMALL, RETRY), (SMALL, LATE), (QP, NAMED)]


def merging(spec):
    return dataclasses.replace(spec, tokenizer="parameter")


@functools.cache
def made(spec, mistakes):
    """(symbols, tokens): COUNT documents that found room, in both, as NumPy."""
    _, symbols, _ = drawn(spec, mistakes)
    assert (symbols.length <= ROOM).all()
    encode = jax.jit(functools.partial(stream.encoded, size=ROOM, spec=merging(spec)))
    return symbols, jax.tree.map(np.asarray, encode(symbols))


def slowly(symbols, n, spec):
    """(text, role, kind, sentence) of each token of document `n`; the rule in plain Python."""
    length = int(symbols.length[n])
    text = [language.vocabulary(spec).tokens[i] for i in symbols.tokens_N[n, :length]]
    facts = [x[n, :length].tolist() for x in (symbols.role_N, symbols.kind_N, symbols.sentence_N)]
    found, at = [], 0

    def put(piece, place):
        found.append((piece, *(column[place] for column in facts)))

    while at < length:
        if text[at] == " How many":
            thing, does, owner, have = text[at + 1 : at + 5]
            assert (does, have) == (" does", " have?")
            put(" How many", at)
            put(f"{owner}'s{thing}", at + 3)
            at += 5
        elif at + 1 < length and text[at + 1] == "'s":
            put("".join(text[at : at + 3]), at + 2)
            at += 3
        else:
            put(text[at], at)
            at += 1
    return found


@pytest.mark.parametrize(("spec", "mistakes"), CASES)
def test_tokens_are_those_of_a_plain_reading(spec, mistakes):
    symbols, tokens = made(spec, mistakes)
    table, vocab = tokenizer(merging(spec)), language.vocabulary(spec)
    roles = set()
    for n in range(COUNT):
        expected = slowly(symbols, n, spec)
        length, whole = int(tokens.length[n]), int(symbols.length[n])
        assert length == len(expected)
        ids = tokens.tokens_N[n, :length]
        columns = (tokens.role_N, tokens.kind_N, tokens.sentence_N)
        pieces = [table.pieces[i].decode() for i in ids]
        facts = [x[n, :length].tolist() for x in columns]
        assert list(zip(pieces, *facts, strict=True)) == expected
        assert table.decode(ids) == vocab.decode(symbols.tokens_N[n, :whole])
        assert expected[tokens.prompt[n] - 1][0] == "<|solution|>"
        assert (tokens.tokens_N[n, length:] == table.end).all()
        assert (tokens.role_N[n, length:] == document.OUTSIDE).all()
        assert (tokens.sentence_N[n, length:] == -1).all()
        assert whole <= table.symbols(length)
        roles |= set(facts[0])
    assert roles == set(range(1, 7)), "something of everything was looked at"


@pytest.mark.parametrize("loss_on", ["all", "solution"])
@pytest.mark.parametrize("mask", MASKS)
def test_masks_leave_out_the_same_text(mask, loss_on):
    symbols, tokens = made(SMALL, LATE)
    mistakes = dataclasses.replace(LATE, mask=mask)
    owned = language.vocabulary(SMALL).ids["'s"]
    left_out = 0
    for n in range(COUNT):
        role_of = np.array([role for _, role, _, _ in slowly(symbols, n, SMALL)])
        ours, whole = int(tokens.length[n]), int(symbols.length[n])
        weights = np.asarray(stream.token_weights(tokens.role_N[n, :ours], mistakes, loss_on))
        np.testing.assert_array_equal(
            weights, stream.token_weights(role_of, mistakes, loss_on), err_msg=str(n)
        )
        by_symbol = np.asarray(stream.token_weights(symbols.role_N[n, :whole], mistakes, loss_on))
        joined = symbols.tokens_N[n, :whole] == owned
        # A parameter is three symbols, which bear loss together or not at all.
        question = 3 * (loss_on == "all")
        assert weights.sum() == by_symbol.sum() - 2 * by_symbol[joined].sum() - question
        left_out += ours - weights.sum()
    assert (left_out > 0) == (mask != "none" or loss_on == "solution")


def test_arbitrary_ids_have_a_text():
    table = tokenizer(merging(SMALL))
    opening = table.joined.opening
    first = min(table.joined.asked)
    owner, thing = table.pieces[first].decode().split("'s")
    asked = f" How many{thing} does{owner} have?"
    assert table.decode([opening, first, first, opening, opening]) == (
        f"{asked}{owner}'s{thing} How many How many"
    )
    assert table.decode([-1, opening, table.size, first]) == (
        f"<|-1|> How many<|{table.size}|>{owner}'s{thing}"
    )
    ids = np.random.default_rng(0).integers(-2, table.size + 2, 1000)
    assert table.decode(ids) and table.decode([]) == ""


def test_every_pair_has_a_token_and_no_other():
    """All that problems of the class name is there, and tokens that none names are few."""
    seen = set()
    for spec, mistakes in CASES:
        _, tokens = made(spec, mistakes)
        seen |= set(np.unique(tokens.tokens_N).tolist())
    table = tokenizer(merging(SMALL))
    pairs = set(table.joined.asked)
    # By hierarchy: 8 items of 4 categories, and up to two categories below an item.
    assert len(pairs) == 2 * (3 * 64 + 8 * (2 + 2 + 1))
    assert len(seen & pairs) > 0.95 * len(pairs)
    assert max(seen) < table.size and min(seen) >= 0
    assert len({*table.pieces}) == table.size
    alone = [piece for i, piece in enumerate(table.pieces) if i not in pairs]
    assert not {b"'s", b" does", b" have?"} & {*alone}


def test_the_shortest_document_is_measured_in_tokens():
    # Two sentences of the problem and one of the solution name a parameter, and the question does.
    assert shortest_document(merging(TINY)) == shortest_document(TINY) - 3 * 2 - 3
    _, tokens = made(SMALL, RETRY)
    shortest = shortest_document(merging(SMALL))
    assert shortest <= tokens.length.min()
    with pytest.raises(ValueError, match=f"the shortest document of this class has {shortest} tok"):
        Windows(shortest - 2).check(merging(SMALL))


def test_what_fits_a_window_in_tokens_is_in_the_stream():
    """Windows are the merged documents packed, those too that are longer in symbols."""
    window, count = 100, 8 * stream.CHUNK
    root = keys.root(0, Purpose.TRAINING)
    numbers = np.arange(8, dtype=np.int32)
    keys_N = stream._chunk_keys(root, numbers, np.int32(0)).reshape(-1)
    symbols = writer(SMALL, RETRY)(keys_N, stream.problems(keys_N, spec=SMALL))
    symbols = jax.tree.map(np.asarray, symbols)
    settings = Windows(window, loss_on="solution")
    packed = stream.segments(root, numbers, spec=merging(SMALL), mistakes=RETRY, windows=settings)
    id_of = {piece.decode(): i for i, piece in enumerate(tokenizer(merging(SMALL)).pieces)}
    rows = [slowly(symbols, n, SMALL) for n in range(count)]
    assert any(symbols.length[n] > window + 1 >= len(rows[n]) for n in range(count))
    full = 0
    for segment in range(8):
        chunk = rows[segment * stream.CHUNK : (segment + 1) * stream.CHUNK]
        tokens, weights, window_, _ = pack_slowly(
            [[id_of[piece] for piece, *_ in row] for row in chunk],
            [[float(role != document.PROBLEM) for _, role, *_ in row] for row in chunk],
            stream.SEGMENT,
            window + 1,
            False,
        )
        np.testing.assert_array_equal(packed.tokens_KxS[segment, :window_], tokens[:window_])
        np.testing.assert_array_equal(packed.weights_KxS[segment, :window_], weights[:window_])
        full += window_
    assert full > 16


def test_corrected_texts_are_the_same_tokens():
    _, _, found = drawn(SMALL, RETRY)
    theirs = corrections.documents(found, ROOM, SMALL)
    ours = stream.encoded(theirs, size=ROOM, spec=merging(SMALL))
    for name, left, right in zip(ours._fields, ours, made(SMALL, RETRY)[1], strict=True):
        np.testing.assert_array_equal(left, right, err_msg=name)


def test_prompts_and_right_answers_are_read_as_text():
    spec, asked_for = merging(SMALL), EvalConfig(problems=16, beyond=())
    table = tokenizer(spec)
    cell = cells_lib.of(spec, asked_for)[0]
    found = cells_lib.test_set(cell, cells_lib.test_spec(spec, asked_for), asked_for, 100)
    vocab = language.vocabulary(SMALL)
    rights = []
    for record, ids, n in zip(found.records, found.prompts_NxP, found.lengths_N, strict=True):
        asked = f"{record['problem']}{record['question']}"
        assert table.decode(ids[:n]) == f"<|problem|>{asked}<|solution|>"
        words = corrections.documents([record], ROOM, SMALL)
        assert vocab.decode(words.tokens_N[0]).startswith(f"<|problem|>{asked}<|solution|>")
        whole = jax.tree.map(np.asarray, stream.encoded(words, size=ROOM, spec=spec))
        assert (whole.tokens_N[0, :n] == ids[:n]).all()
        rights.append(whole.tokens_N[0, n:])
    judged = judge_many(found.records, rights, table, spec.modulus)
    assert all(verdict.correct for verdict in judged)
    moved = judge_many(found.records, [rights[-1], *rights[:-1]], table, spec.modulus)
    assert not any(verdict.correct for verdict in moved)


def test_a_run_trains_and_is_judged(tmp_path):
    # The class of the tests above, which is compiled already.
    shared = registry.configure(registry.load("quickstart"), "smoke")
    changes = {
        **{f"data.{key}": getattr(merging(SMALL), key) for key in shared.data},
        "mistakes.rate": RETRY.rate,
        "model.layers": 1,
        "optimizer.name": "adamw",
        "train.steps": 5,
        "evaluate.problems": 4,
        "evaluate.batch": 4,
        "evaluate.beyond": (),
    }
    one = run.make_run(config.override(shared, changes))
    assert one.settings.model.vocab == tokenizer(merging(SMALL)).size
    plain = run.make_run(config.override(shared, {**changes, "data.tokenizer": "word"}))
    assert one.name != plain.name
    task = execution.Task(one, (Evaluation(one.settings.evaluate),))
    assert list(execution.execute([task], Store(tmp_path))) == [(one, None)]
    result = json.loads(min(tmp_path.rglob("result.json")).read_text())
    assert result["step"] == 5 and [cell["n"] for cell in result["cells"]] == [4, 4]
    solutions = next(tmp_path.rglob("solutions.jsonl")).read_text().splitlines()
    assert len(solutions) == 8 and all(isinstance(json.loads(x)["written"], str) for x in solutions)


def test_frozen_sets_hold_symbols_whatever_the_tokenizer():
    igsm = pytest.importorskip("data_gen.frozen.igsm", reason="needs physlm[datasets]")
    vocab = language.vocabulary(TINY)
    for row in igsm.rows(Contents(merging(TINY), counts={"train": 4}), "train"):
        text = vocab.decode(row["tokens"][row["prompt_length"] :])
        assert text == f"{row['solution']}<|answer|> {row['answer']}<|end|>"


def test_too_many_parameters_are_refused(tmp_path, capsys):
    said = (
        "tokenizer is 'parameter'; it must be 'word' or 'gpt2', since a token for each parameter "
        "of this class takes 122,400 tokens and 4,096 are allowed (fewer hierarchies, "
        "subcategories or names would do)."
    )
    with pytest.raises(RefusedError) as refused:
        tokenizer(merging(MED))
    assert str(refused.value) == said
    command = ["--scale", "mini", "--dry-run", "--workdir", str(tmp_path), "--set"]
    assert sweep.main([*command, "data.tokenizer=parameter"]) == 2
    assert capsys.readouterr().err == f"data.{said}\n"
    most = Spec(hierarchies=1, subcategories=5, names=7, tokenizer="parameter")
    assert len(tokenizer(most).joined.asked) == 3 * 35**2 + 6 * 35 <= PARAMETER_LIMIT
    with pytest.raises(RefusedError, match="takes 5,040 tokens"):
        tokenizer(dataclasses.replace(most, names=8))
