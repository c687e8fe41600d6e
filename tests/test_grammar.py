"""The grammar: its forms, and that all that writes or reads a sentence follows them."""

import ast
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from drawn import SMALL, drawn

import data_gen
from data_gen.solutions import grammar, language
from data_gen.solutions.grammar import Form
from data_gen.solutions.mistakes import MENDINGS
from data_gen.text.reader import right_sides

PACKAGE = pathlib.Path(data_gen.__file__).parent


def test_a_form_is_symbols_text_and_pattern():
    form = Form(" Define {parameter} as {letter}")
    assert form.symbols == (" Define", " {owner}", "'s", " {thing}", " as", " {letter}")
    assert len(form) == 6
    assert form.write(parameter="Oak's Elm", letter="x") == "Define Oak's Elm as x"
    assert form.around("parameter") == ("Define ", " as {letter}")
    found = re.fullmatch(form.pattern(parameter="(.+)", letter=r"(\S)"), "Define Oak's Elm as x")
    assert found.groups() == ("Oak's Elm", "x")
    words = {" Define": 1, "'s": 2, " as": 3}
    assert form.fill(words, owner=7, thing=8, letter=9) == [1, 7, 2, 8, 3, 9]
    marked = Form("a.b {letter}?")
    assert re.fullmatch(marked.pattern(letter="(.)"), "a.b x?") is not None
    assert re.fullmatch(marked.pattern(letter="(.)"), "aab x?") is None


def test_lines_are_in_the_order_of_their_operands():
    operands = [
        sum(slot in form.symbols for slot in (" {left}", " {right}")) for form in grammar.LINES
    ]
    assert operands == [0, 1, 2]
    assert sorted(map(len, grammar.LINES)) == list(map(len, grammar.LINES))


def test_each_mending_has_a_marker():
    assert tuple(grammar.MENDING_MARKERS) == MENDINGS


def sentence(parameter, side):
    """What the problem says of a parameter, put together from the grammar's parts."""
    listed = [grammar.REFERENCE.write(parameter=ref) for ref in side.refs]
    right = "".join(f" {ref}{grammar.COMMA}" for ref in listed[:-1])
    right = right.removesuffix(grammar.COMMA) + grammar.AND if right else ""
    right += "".join(f" {ref}" for ref in listed[-1:])
    if len(listed) > 1:
        right = f"{grammar.DIFFERENCE if side.difference else grammar.SUM}{right}"
    if side.number is not None and listed:
        right = f"{grammar.TIMES if side.times else grammar.MORE}{right}"
    if side.number is not None:
        right = f" {grammar.CONSTANT.write(number=side.number)}{right}"
    return f" {grammar.STATEMENT.write(parameter=parameter)}{right}{grammar.STOP}"


def test_documents_are_put_together_from_the_forms():
    """Texts written from the forms are those that are drawn, symbol for symbol."""
    _, documents, found = drawn(SMALL)
    vocab = language.vocabulary(SMALL)
    for n, record in enumerate(found):
        sides = right_sides(record["layers"], record["problem"], SMALL.modulus)
        assert "".join(sentence(*side) for side in sides.items()) == record["problem"]
        text = record["problem"] + record["question"]
        ids = [vocab.problem, *vocab.encode(text), vocab.solution]
        assert documents.prompt[n] == len(ids)
        ids += vocab.encode(record["solution"])
        ids += grammar.ANSWER.fill(vocab.ids, number=vocab.numbers + record["answer"])
        assert documents.length[n] == len(ids)
        np.testing.assert_array_equal(documents.tokens_N[n, : len(ids)], ids)


def test_all_follows_a_reworded_grammar(tmp_path):
    """In other words, of other lengths and orders, a problem is still written, read and judged."""
    script = pathlib.Path(__file__).with_name("reworded.py")
    command = [sys.executable, str(script), str(tmp_path / "grammar.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["reader", "judge"])
def test_texts_are_read_and_judged_without_jax(module):
    code = f"import sys, data_gen.text.{module}; assert 'jax' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def texts(tree):
    """The strings of a module that are neither docstrings nor tell what a setting means."""
    told = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            told.append(node.value)
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("settings."):
            told += node.args
    skipped = {id(part) for node in told for part in ast.walk(node)}
    constants = (node for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return [x.value for x in constants if isinstance(x.value, str) and id(x) not in skipped]


# Words and marks that stand in other texts too; the others give a sentence away.
COMMON = {"'s", "equals", "each", ",", "and", ".", "does", "have?", ";", "so", "as", *"=+-*"}


def test_the_grammar_is_written_out_nowhere_else():
    phrases = {phrase.strip() for phrase in grammar.PHRASES}
    assert phrases > COMMON
    telling = "|".join(rf"\b{phrase}\b" for phrase in phrases - COMMON)
    alone = {
        form for word in COMMON - {",", "and"} for form in (f" {word}", f"{word} ", f" {word} ")
    }
    for wing in ("solutions", "text", "windows", "picture"):
        for path in (PACKAGE / wing).glob("*.py"):
            if path.name in ("grammar.py", "frozen.py"):  # frozen.py tells of earlier grammars
                continue
            for text in texts(ast.parse(path.read_text())):
                assert not re.search(telling, text), (path, text)
                assert text not in alone, (path, text)
