"""How a report is laid out: what stands first, what is folded, and how wide tables are."""

import dataclasses
import re

import pytest
from fake_results import fake_rows, fake_sweep

from physlm.experiments import page, registry, report, verdicts
from physlm.experiments.figures import Against, AgainstOp, Losses, Scaling, quantities


def test_a_page_leaves_to_who_asks_what_is_long_or_tells_nothing_apart():
    rows = [[f"condition {number // 10}", str(number)] for number in range(30)]
    head = ["condition", "op"]
    content = page.Content(
        title="Much of it",
        findings=["a is ahead."],
        further=["b & c are not told apart.", "d and e neither."],
        tables=[("Short", [head, *rows[:10]]), ("Long", [head, *rows])],
    )
    html = page.page(content)
    opened = re.sub("<details>.*?</details>", "", html, flags=re.DOTALL)
    closed = re.findall("<summary>(.*?)</summary>", html)
    more = "2 more comparisons in which nothing is told apart"
    assert closed == [more, "Long (30 rows)"]
    assert "a is ahead." in opened and "Short" in opened and "b &amp; c" in html
    assert "told apart" not in opened and "Long" not in opened
    # What the rows of a condition share stands once beside all of them.
    assert html.count('<th scope="row" rowspan="10">condition 0</th>') == 2
    assert html.count("<td>") == 40 and html.count("<tr>") == 42
    text = page.markdown(content)
    folded = text[text.index("<details>") : text.index("</details>")]
    assert folded.startswith(f"<details><summary>{more}</summary>\n\n- b & c")
    assert "- a is ahead." in text and "- a is ahead." not in folded
    shown = page.terminal(content)
    assert "a is ahead." in shown and "b & c" not in shown and f"{more}: results.md" in shown


def test_tables_on_a_terminal_are_as_wide_as_it_is(monkeypatch):
    label = "with mistakes and corrections, rate 0.5, masked"
    heads = [f"column {number} of many" for number in range(8)]
    table = [["condition", "op", *heads], [label, "≤ 6", *map(str, range(8000, 8008))]]
    content = page.Content(title="t", tables=[("head", table)])
    assert page.terminal(content).splitlines()[4:6] == [
        "  ".join(["-" * len(label), "---", *["-" * 16] * 8]),
        "  ".join([label, "≤ 6", *(one.ljust(16) for one in table[1][2:])]).rstrip(),
    ]
    monkeypatch.setattr(page.sys.stdout, "isatty", lambda: True)
    for columns, times in ((200, 1), (120, 1), (80, 2), (40, 4)):
        monkeypatch.setenv("COLUMNS", str(columns))
        text = page.terminal(content)
        assert max(map(len, text.splitlines())) <= columns
        # All cells are there once, and what the rows are of beside each part.
        assert [text.count(cell) for cell in table[1][2:]] == [1] * 8
        assert text.count("condition") == text.count("≤ 6") == text.count("masked") == times
    # Words are not broken.
    monkeypatch.setenv("COLUMNS", "9")
    assert page.terminal(content).count("corrections,") == 8


def test_a_report_has_what_tells_nothing_apart(shown, monkeypatch):
    monkeypatch.setattr(verdicts, "sentences", lambda _: (["This first."], ["This later."]))
    fake_sweep(shown, fake_rows())
    report.make(shown)
    for file in (report.PAGE_FILE, report.MARKDOWN_FILE):
        text = (shown / file).read_text()
        opened = re.sub("<details>.*?</details>", "", text, flags=re.DOTALL)
        assert "This first." in opened and "This later." not in opened and "This later." in text


@pytest.mark.parametrize(
    ("figures", "first"),
    [
        (("retries", "unnecessary", "accuracy"), ["retries", "unnecessary"]),
        (("retries", "accuracy", "unnecessary"), ["retries"]),
        (("accuracy", "retries"), ["accuracy"]),
    ],
)
def test_a_study_that_asks_something_else_is_answered_first(shown, monkeypatch, figures, first):
    """Sentences are on what is solved: they follow pictures and tables of what is asked."""
    fake_sweep(shown, fake_rows())
    drawn = tuple(Against("retry_rate", y=y, name=y) for y in figures)
    asked = dataclasses.replace(registry.load("quickstart"), figures=drawn)
    monkeypatch.setattr(registry, "load", lambda _: asked)
    monkeypatch.setattr(verdicts, "sentences", lambda _: (["It is ahead."], []))
    monkeypatch.setattr(quantities, "has_intervals", lambda *_: True)
    report.make(shown)
    before, after = (shown / report.MARKDOWN_FILE).read_text().split("- It is ahead.")
    pictures = r"\]\((\w+)\.png\)"
    assert re.findall(pictures, before) == first
    assert re.findall(pictures, after) == [y for y in figures if y not in first]
    heads = [head for head in re.findall("## (.*)", after) if "against retry rate" in head]
    heads.append(re.findall("## (.*)", after)[0])
    words = [quantities.QUANTITIES[y].words for y in figures if y != "accuracy"]
    words.append(words[0] if first != ["accuracy"] else "strict accuracy")
    for head, said in zip(heads, words, strict=True):
        assert head.lower().startswith(said.partition(",")[0])
    html = (shown / report.PAGE_FILE).read_text()
    assert html[: html.index("It is ahead.")].count("<picture>") == len(first)


def test_figures_of_what_is_solved_do_not_stand_before_the_sentences():
    """Whatever they call what they draw: laws of scaling are of errors or of losses."""
    others = [Scaling(), Scaling(y="loss"), AgainstOp(), Losses(), Against("retry_rate")]
    assert not any(map(report._shows_another_quantity, others))
    assert report._shows_another_quantity(Against("retry_rate", y="retries"))
