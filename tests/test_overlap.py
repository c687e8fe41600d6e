"""Test problems are held out: what training shows of them is counted, by template and by text."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
from test_evaluate import Silent

from data_gen.solutions.mistakes import Mistakes
from data_gen.spec import Spec
from data_gen.windows.configuration import Windows
from data_gen.windows.stream import Stream
from data_gen.windows.tokenizer import tokenizer
from physlm import cells as cells_lib
from physlm import overlap
from physlm.cells import EvalConfig
from physlm.experiments import config as config_lib
from physlm.experiments import evaluate, run

pytestmark = pytest.mark.slow

# So small that texts come again and again.
FEW = Spec(
    max_op=3, max_edges=3, max_depth=2, max_width=2, modulus=3, hierarchies=1, subcategories=1,
    names=2, letters=4, split="train",
)  # fmt: skip
CONFIG = EvalConfig(problems=48, beyond=(), max_new_tokens=8)
WINDOWS = Windows(120)
SEED = 3


def counted(spec: Spec, first: int = 500) -> overlap.Overlap:
    return overlap.count(
        spec, Mistakes(), WINDOWS, seed=SEED, first=first, config=CONFIG, progress=Silent
    )


@pytest.mark.parametrize(
    ("scale", "first"),
    [
        ("smoke", 160),
        ("quick", 8192),
        ("night", 16_384),
        # The class of `paper` is as large as this one, and takes as long to compile once more.
        ("mini", 512),
    ],
)
def test_no_test_problem_occurs_in_training(scale: str, first: int) -> None:
    fewer = {"evaluate.problems": 64, "mistakes.rate": 0.5}
    settings = config_lib.resolve(config_lib.override(config_lib.base(scale), fewer))
    found = overlap.count(
        settings.data,
        settings.mistakes,
        settings.windows,
        seed=settings.seed,
        first=first,
        config=settings.evaluate,
        progress=Silent,
    )
    cells = cells_lib.of(settings.data, settings.evaluate)
    assert [cell.cell for cell in found.cells] == [cell.name for cell in cells]
    for cell in found.cells:
        assert cell.n > 0 and (cell.template, cell.text) == (0, 0)
    assert found.windows == first and found.problems > first and found.templates > 20


def test_overlap_is_what_reading_the_windows_finds() -> None:
    """Where both halves are trained on: texts are split from the batches of the training stream."""
    spec = dataclasses.replace(FEW, unsplit_op=2)
    found = counted(spec)
    stream = Stream(spec, Mistakes(), WINDOWS, seed=SEED, batch=10)
    table, begin, end = tokenizer(spec), "<|problem|>", "<|solution|>"
    texts, cut = [], 0
    for step in range(50):
        for ids in stream.batch(step)["tokens"]:
            for text in table.decode(ids).split(begin)[1:]:
                texts += [text.split(end)[0]] if end in text else []
                cut += end not in text
    stream.close()
    assert (found.problems, found.distinct, found.cut) == (len(texts), len(set(texts)), cut)
    assert cut > 0 and len(set(texts)) < len(texts)
    sets = cells_lib.test_sets(spec, CONFIG, WINDOWS.window, Silent)
    for cell, (_, tests) in zip(found.cells, sets, strict=True):
        mine = [record["problem"] + record["question"] for record in tests.records]
        assert cell.text == sum(text in set(texts) for text in mine)
        assert cell.template == sum(record["op"] <= 2 for record in tests.records)
        assert cell.distinct == len(set(mine))
    mixed, at_cap = found.cells
    assert mixed.text > 5 and mixed.template > 30 and at_cap.template == 0


def test_other_orders_of_solving_a_problem_are_seen_and_can_be_split_off() -> None:
    """Without a template that training shows, a text can stand there, unless problems are split."""
    cells = counted(FEW, 4096).cells
    assert sum(cell.template for cell in cells) == 0 < sum(cell.text for cell in cells)
    cells = counted(dataclasses.replace(FEW, split_by="problem"), 4096).cells
    assert all((cell.template, cell.text) == (0, 0) for cell in cells)


def test_training_on_all_templates_is_seen() -> None:
    found = counted(dataclasses.replace(FEW, split="all"))
    assert all(cell.template == cell.n and cell.text > 0 for cell in found.cells)


def test_hashes_are_of_what_stands_there_and_not_of_where() -> None:
    tokens = np.array([0, 5, 6, 1, 0, 6, 5, 1, 0, 5, 6, 1, 0, 5, 5, 6, 1, 0, 5], np.int32)
    begin, end = np.array([0, 4, 8, 12]), np.array([4, 8, 12, 17])
    hashed = overlap._hashes(tokens, begin, end)
    assert hashed[0] == hashed[2] and len(set(hashed.tolist())) == 3


@pytest.fixture
def planned(tmp_path: pathlib.Path) -> pathlib.Path:
    """The directory of a run that has not been trained."""
    changes = {f"data.{name}": getattr(FEW, name) for name in (
        "max_op", "max_edges", "max_depth", "modulus", "names", "letters",
    )}  # fmt: skip
    changes |= {"data.unsplit_op": 2, "train.window": 120, "train.steps": 25, "train.batch": 20}
    changes |= {"evaluate.beyond": (), "evaluate.problems": 48, "mistakes.rate": 0.0, "seed": SEED}
    made = run.make_run(config_lib.override(config_lib.base("smoke"), changes))
    (tmp_path / run.CONFIG_FILE).write_text(json.dumps(made.config))
    return tmp_path


def test_the_command_counts_once(
    planned: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert evaluate.main([str(planned), "--overlap", "--windows", "100"]) == 0
    assert "in 100 of 500 windows." in capsys.readouterr().out
    assert evaluate.main([str(planned), "--overlap"]) == 0
    said = capsys.readouterr().out
    expected = counted(dataclasses.replace(FEW, unsplit_op=2))
    (path,) = planned.glob("evaluations/*/overlap.json")
    found = json.loads(path.read_text())
    assert path.parent.name.startswith("step=25,") and found["evaluation"] == path.parent.name
    assert found["cells"] == [dataclasses.asdict(cell) for cell in expected.cells]
    rows = [line.split() for line in said.splitlines()]
    for row, cell in zip(rows[1:], expected.cells, strict=False):
        assert row == [cell.cell, *map(str, (cell.n, cell.distinct, cell.template, cell.text))]
    assert f"Compared with {expected.problems:,} training problems" in said
    assert "in 500 of 500 windows." in said
    monkeypatch.setattr(overlap, "count", None)
    for more in ([], ["--windows", "100"]):
        assert evaluate.main([str(planned), "--overlap", *more]) == 0
        assert capsys.readouterr().out == said
    path.write_text("{}")
    assert evaluate.main([str(planned), "--overlap"]) == 2
    assert "does not say what overlaps; remove it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--windows", "5"], "--windows is given without --overlap, which alone reads it."),
        (["--overlap", "--windows", "0"], "--windows is 0; it must be at least 1."),
        (["--overlap", "--checkpoint", "best"], "has no checkpoints."),
    ],
)
def test_bad_input_is_one_sentence(
    arguments: list[str],
    message: str,
    planned: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert evaluate.main([str(planned), *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
