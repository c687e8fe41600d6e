"""Solutions as they are shown."""

import json
import re

import pytest

from data_gen.spec import Spec
from data_gen.text.judge import judge
from physlm.experiments import show

LAYERS = [["Shelf", ["Red Shelf", "Oak Shelf"]], ["Book", ["Atlas", "Novel"]]]
PROBLEM = (
    " The number of each Red Shelf's Atlas equals 3. "
    "The number of each Red Shelf's Novel equals 1 more than each Red Shelf's Atlas."
)
QUESTION = " How many Book does Red Shelf have?"
RIGHT = (
    " Define Red Shelf's Atlas as a; so a = 3. Define Red Shelf's Book as BACK. "
    "Define Red Shelf's Novel as b; so b = 1 + a = 1 + 3 = 4. "
    "Define Red Shelf's Book as c; so c = a + b = 3 + 4 = 2."
)


def record(written, answer, cell="3", op=3):
    from data_gen.text.reader import read

    verdict = judge(read(LAYERS, PROBLEM, QUESTION, 5), written, answer)
    return {
        "cell": cell, "layers": LAYERS, "problem": PROBLEM, "question": QUESTION, "solution": "",
        "answer": 2, "op": op, "written": written, "written_answer": answer,
        "correct": verdict.correct, "reason": verdict.reason,
        "first_wrong_step": verdict.first_wrong_step, "retries": verdict.retries,
        "mended": [mistake._asdict() for mistake in verdict.mended],
    }  # fmt: skip


def test_steps_have_numbers_and_what_was_taken_back_its_kind():
    lines = show.solution(record(RIGHT, " 2"), colour=False).splitlines()
    assert lines[0] == "op 3 (cell 3): right after 1 retry"
    assert "   < Define Red Shelf's Book as BACK.  (taken back: skip)" in lines
    assert "   1 Define Red Shelf's Atlas as a; so a = 3." in lines
    assert "   3 Define Red Shelf's Book as c; so c = a + b = 3 + 4 = 2." in lines
    assert lines[-1] == "Answer: 2"
    assert not any(line.startswith(" x") for line in lines)


def test_the_first_wrong_step_has_its_reason_and_later_ones_none():
    wrong = RIGHT.replace("1 + 3 = 4", "1 + 2 = 3").replace("3 + 4 = 2", "3 + 3 = 1")
    text = show.solution(record(wrong, " 1"), colour=False)
    marked = [line for line in text.splitlines() if line.startswith(" x")]
    assert len(marked) == 1 and marked[0].startswith(" x 2 Define Red Shelf's Novel")
    assert "(first wrong step: a is 3, not 2)" in " ".join(text.split())
    assert "Answer: 1 (the right one is 2)" in text and "op 3 (cell 3): wrong" in text


def test_what_is_wrong_at_the_end_is_said_there():
    text = show.solution(record(RIGHT, " 4"), colour=False)
    assert text.splitlines()[-1] == "Answer: 4 (the right one is 2; the answer is 2)"
    nothing = show.solution(record("", None), colour=False)
    assert "Answer: none (the right one is 2" in nothing


def test_the_same_again_and_again_is_one_line():
    back = " Define Oak Shelf's Book as BACK."
    text = show.solution(record(back * 40 + RIGHT, " 2"), colour=False)
    assert text.count("Oak Shelf's Book") == 1 and "(40 times)" in text


def test_pages_show_what_was_taken_back_and_what_is_wrong_and_no_html_of_a_model():
    back = " Define Oak Shelf's Book as BACK."
    page = show.as_html(record(back * 3 + RIGHT, " 2"))
    assert page.count('class="back"') == 2 and "3 times" in page
    assert '<li value="1">' in page and 'class="wrong"' not in page
    wrong = record("<script>alert(1)</script> & more.", " 2")
    wrong |= {"correct": False, "reason": "no <sentence>", "first_wrong_step": 0}
    page = show.as_html(wrong)
    assert "<script" not in page and "&lt;script&gt;" in page and "no &lt;sentence&gt;" in page
    assert '<span class="wrong">&lt;script' in page


def test_graphs_have_the_numbers_of_a_models_steps_and_its_first_wrong_one():
    wrong = RIGHT.replace("1 + a = 1 + 3 = 4", "1 + a = 1 + 3 = 0")
    text = json.dumps(record(wrong, " 2") | {"solution": RIGHT})
    # Names of the class's own vocabulary.
    for ours, own in (("Red", "Birch"), ("Oak", "Bamboo"), ("Atlas", "Botany Atlas")):
        text = text.replace(ours, own)
    found = json.loads(text.replace("Novel", "Chess Atlas"))
    spec = Spec(modulus=5)
    # Letters are drawn as paths, and named in comments.
    said = re.findall("<!-- (.*?) -->", show.graphs(found, spec).decode())
    assert said.count("1: Birch Shelf's") == said.count("3: Birch Shelf's") == 1
    assert "wrong: 1 + 3 is not 0" in said and "skip" in said
    # A text that the class has no room for has no picture.
    deep = [*found["layers"], ["Page", ["Leaf"]], ["Line", ["Verse"]], ["Word", ["Name"]]]
    assert show.graphs(found | {"layers": deep}, spec) is None


def test_colours_are_for_terminals():
    assert "\033[" in show.solution(record(RIGHT, " 2"), colour=True)
    assert "\033[" not in show.solution(record(RIGHT, " 2"), colour=False)


def test_cells_take_turns(tmp_path):
    rows = [record(RIGHT, " 2", cell=cell, op=n) for n, cell in enumerate("aaaabbc")]
    path = tmp_path / "solutions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = show.solutions(tmp_path, 5, colour=False)
    heads = [line.partition(":")[0] for line in text.splitlines() if line.startswith("op ")]
    assert heads == [
        "op 0 (cell a)",
        "op 1 (cell a)",
        "op 4 (cell b)",
        "op 5 (cell b)",
        "op 6 (cell c)",
    ]
    assert show.solutions(tmp_path, 99, colour=False).count("(cell") == 7
    (example,) = show.examples(tmp_path)
    assert example["cell"] == "c"
    assert show.solution(example, colour=False).startswith("op 6 (cell c): right after 1 retry")


def test_nothing_to_show_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"has no solutions.jsonl to show"):
        show.solutions(tmp_path, 3, colour=False)
    assert show.examples(tmp_path) == []
    (tmp_path / "solutions.jsonl").write_text("{\n")
    with pytest.raises(ValueError, match="is not what an evaluation writes"):
        show.solutions(tmp_path, 3, colour=False)
