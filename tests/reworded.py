"""Rewords the grammar, and writes, reads, judges and mends a problem in the new words.

Run by `test_grammar` in a process of its own, since all modules read the grammar as it is when they
are imported. Names, order and number of symbols of nearly every sentence are others than they were.
"""

import importlib.util
import pathlib
import sys

WORDS = (
    ('" {owner}\'s {thing}"', '" {thing} in {owner}"'),
    ('" The number of each {parameter} equals"', '" There are at every {parameter} exactly"'),
    ('" more than", " times as much as"', '" beyond", "-fold"'),
    ('" the sum of", " the difference of"', '" all of", " the rest of"'),
    ('" each {parameter}"', '" any {parameter}"'),
    ('",", " and"', '" /", " with"'),
    ('STOP = "."', 'STOP = "!"'),
    ('" How many {thing} does {owner} have?"', '" {owner} has what of {thing}"'),
    ('" Define {parameter} as"', '" Let {parameter} be"'),
    ('NEXT = ";"', 'NEXT = ":"'),
    ('" so"', '" hence"'),
    ('" {letter} = {result}"', '" {letter} is {result}"'),
    ('" {letter} = {left} = {result}"', '" {letter} is {left} is {result}"'),
    (
        "{letter} = {left} {operator} {right} = {left_value} {operator} {right_value} = {result}",
        "{letter} is {left} {operator} {right} is {left_value} {operator} {right_value} is "
        "{result}",
    ),
    ('" BACK", " FIX", " RESTART"', '" UNDO", " MEND", " ANEW"'),
)


def reword(path):
    """Writes the grammar in other words there, and puts it in the place of the grammar."""
    import data_gen.solutions

    name = "data_gen.solutions.grammar"
    source = pathlib.Path(importlib.util.find_spec(name).origin).read_text()
    for old, new in WORDS:
        assert source.count(old) == 1, old
        source = source.replace(old, new)
    path.write_text(source)
    spec = importlib.util.spec_from_file_location(name, path)
    sys.modules[name] = data_gen.solutions.grammar = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[name])


def main(path):
    reword(path)
    import jax
    import numpy as np

    from data_gen.keys import problem_key
    from data_gen.solutions import grammar
    from data_gen.solutions.document import least_length
    from data_gen.solutions.language import vocabulary
    from data_gen.solutions.mistakes import ERROR_FREE, Mistakes
    from data_gen.solutions.names import HIERARCHIES
    from data_gen.spec import Spec
    from data_gen.text import corrections, records
    from data_gen.text.judge import judge, split_sentences, standing
    from data_gen.text.parser import parse
    from data_gen.text.reader import name, read
    from data_gen.windows import stream

    spec = Spec(
        max_op=11, max_edges=6, max_depth=3, max_width=2, hierarchies=1, subcategories=1, names=2,
        letters=40,
    )  # fmt: skip
    chosen = HIERARCHIES[0][:3]
    layers = [[category.name, [category.item(0, n) for n in range(2)]] for category in chosen]
    (_, (a, b)), (middle, (c, d)), (bottom, (e, _)) = layers

    def each(*parameters):
        listed = [grammar.REFERENCE.write(parameter=parameter) for parameter in parameters]
        first, last = f"{grammar.COMMA} ".join(listed[:-1]), listed[-1]
        return f"{first}{grammar.AND} {last}" if first else last

    def stated(parameter, right):
        return f" {grammar.STATEMENT.write(parameter=parameter)}{right}{grammar.STOP}"

    ac, ad, bd, ce = name(a, c), name(a, d), name(b, d), name(c, e)
    problem = "".join(
        [
            stated(ac, " 3"),
            stated(ad, f" 2{grammar.MORE} {each(ac)}"),
            stated(bd, f"{grammar.DIFFERENCE} {each(ad, ac)}"),
            stated(ce, f" 4{grammar.TIMES}{grammar.SUM} {each(ac, ad, name(a, middle))}"),
        ]
    )
    question = f" {grammar.QUESTION.write(thing=bottom, owner=a)}"
    facts = read(layers, problem, question)
    assert (facts.value[ad], facts.value[bd], facts.value[ce]) == (5, 2, 4 * (3 + 5 + 8) % 23)
    assert facts.query == name(a, bottom)

    # c has one thing and d none, so that the answer is what c has, times what a has of c.
    order = [ac, ad, name(a, middle), ce, name(c, bottom), name(d, bottom), facts.query]
    letters = iter("abcdefghijklmnop")
    right = corrections.continuation(facts, [], order, letters)
    solution = "".join(f" {sentence}{grammar.STOP}" for sentence in right)
    verdict = judge(facts, solution, f" {facts.answer}")
    assert verdict.correct and verdict.unnecessary == 0, verdict
    damaged = solution.replace(f" {facts.value[ad]}{grammar.STOP}", f" 6{grammar.STOP}", 1)
    assert judge(facts, damaged).kind == "calculation"

    # Every document of it reads so, whatever mistakes it takes back.
    parsed = parse(layers, problem, question, solution, spec)
    count, room = 16, 768
    mistakes = Mistakes("skip:0.6,calculation:0.4", 0.25, mend="back:0.6,restart:0.4")
    keys = jax.vmap(lambda n: problem_key(0, n))(np.arange(count))
    problems = jax.tree.map(lambda x: np.repeat(np.asarray(x)[None], count, 0), parsed)
    documents = jax.jit(
        lambda keys, problems: stream.documents(
            keys, problems, size=room, spec=spec, mistakes=mistakes
        )
    )(keys, problems)
    documents = jax.tree.map(np.asarray, documents)
    assert documents.length.max() <= room
    vocab, found = vocabulary(spec), records.records(problems, documents, spec)
    lengths = np.ones(vocab.size, int)
    mended, anew = [], 0
    for n, record in enumerate(found):
        assert (record["layers"], record["problem"], record["question"]) == (
            layers,
            problem,
            question,
        )
        verdict = judge(facts, record["solution"], f" {record['answer']}")
        assert verdict.correct and verdict.op == int(parsed.op), verdict
        mended.append({mistake[1:3] for mistake in verdict.mended})
        assert verdict.retries == sum(
            sentence.endswith(tuple(grammar.MENDING_MARKERS.values()))
            for sentence in split_sentences(record["solution"])
        )
        restarted = grammar.RESTART in record["solution"]
        anew += restarted
        assert restarted or standing(record["solution"]) == right
        least = least_length(lengths, spec, mistakes if restarted else ERROR_FREE)
        assert least <= documents.length[n]
        ids = documents.tokens_N[n, : documents.length[n]]
        text = vocab.decode(ids)
        assert text == "".join(
            [
                *(grammar.PROBLEM_MARKER, problem, question, grammar.SOLUTION_MARKER),
                *(record["solution"], grammar.ANSWER.write(number=facts.answer)),
            ]
        )
    seen = set().union(*mended)
    assert seen == {(x, y) for x in ("skip", "calculation") for y in ("back", "restart")}
    assert 0 < anew < count

    # What is made of texts is what was written, and so are the roles of mistakes that are a name.
    ours = corrections.documents(found, room, spec)
    for field in ("tokens_N", "kind_N", "sentence_N", "length", "prompt"):
        np.testing.assert_array_equal(getattr(ours, field), getattr(documents, field))
    named = [n for n, kinds in enumerate(mended) if kinds == {("skip", "back")}]
    assert named
    for n in named:
        np.testing.assert_array_equal(ours.role_N[n], documents.role_N[n])


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
