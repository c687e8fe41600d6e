"""The cells of an evaluation, and which problems they have."""

import dataclasses

import numpy as np
import pytest
import scipy.stats
from drawn import first_keys
from test_evaluate import CONFIG, SMALL, Silent, model_of

from data_gen.solutions import language
from data_gen.solutions.mistakes import Mistakes
from physlm import cells as cells_lib
from physlm import evaluate
from physlm.decoding.engine import Written
from physlm.experiments import published

pytestmark = pytest.mark.slow


def test_cells_have_the_op_they_name_and_only_test_templates():
    spec = cells_lib.test_spec(SMALL, CONFIG)
    assert spec.split == "test"
    ops = {
        cell.name: {r["op"] for r in cells_lib.test_set(cell, spec, CONFIG, 160).records}
        for cell in cells_lib.of(SMALL, CONFIG)
    }
    assert ops["4"] == {4} and ops["5"] == {5}
    assert ops["<=4"] <= {1, 2, 3, 4} and len(ops["<=4"]) > 1


def test_the_mixed_cell_has_the_mixture_of_the_class():
    """At most the cap, though the class that all cells are drawn from goes beyond it."""
    for draw, weights in (("lesser", [7, 5, 3, 1]), ("uniform", [4, 4, 4, 4])):
        spec = cells_lib.test_spec(dataclasses.replace(SMALL, op_draw=draw), CONFIG)
        goals = cells_lib._goals(first_keys(4096), cap=4, fixed=False, spec=spec)
        counts = np.bincount(goals.target, minlength=5)
        assert counts[0] == 0 and (goals.cap == 4).all()
        assert scipy.stats.chisquare(counts[1:], 256 * np.array(weights)).pvalue > 1e-3


def test_problems_longer_than_the_window_are_replaced():
    spec = cells_lib.test_spec(SMALL, CONFIG)
    cell = cells_lib.of(SMALL, CONFIG)[1]
    roomy = cells_lib.test_set(cell, spec, CONFIG, 160)
    tight = cells_lib.test_set(cell, spec, CONFIG, 110)
    assert len(tight.lengths_N) == 24
    assert tight.lengths_N.max() < roomy.lengths_N.max()
    with pytest.raises(ValueError, match="No problem of the cell 4 fits a window of 60 tokens"):
        cells_lib.test_set(cell, spec, CONFIG, 60)


def test_problems_follow_the_seed():
    spec = cells_lib.test_spec(SMALL, CONFIG)
    cell = cells_lib.of(SMALL, CONFIG)[0]
    one, same, other = (
        cells_lib.test_set(cell, spec, dataclasses.replace(CONFIG, seed=seed), 160).records
        for seed in (0, 0, 1)
    )
    assert one == same
    assert not {r["problem"] for r in one} & {r["problem"] for r in other if r["op"] > 2}


def test_test_problems_are_not_training_problems():
    """Other keys than the stream's, and the same problems for every seed of training."""
    from data_gen.windows.configuration import Windows
    from data_gen.windows.stream import Stream

    spec = cells_lib.test_spec(SMALL, CONFIG)
    tests = cells_lib.test_set(cells_lib.of(SMALL, CONFIG)[0], spec, CONFIG, 160)
    train = dataclasses.replace(SMALL, split="train")
    stream = Stream(train, Mistakes(), Windows(160), seed=CONFIG.seed, batch=64)
    seen = language.vocabulary(SMALL).decode(stream.batch(0)["tokens"])
    long = [r["problem"] for r in tests.records if r["op"] > 2]
    assert long and not any(problem in seen for problem in long)


def test_cells_within_the_cap_are_those_asked_for_beside_the_caps_own():
    named = dataclasses.replace(CONFIG, within=(4, 2, 1, 2))
    assert [cell.name for cell in cells_lib.of(SMALL, named)] == ["<=4", "1", "2", "4", "5"]
    assert [cell.name for cell in cells_lib.of(SMALL, CONFIG)] == ["<=4", "4", "5"]
    spec = cells_lib.test_spec(SMALL, named)
    tests = cells_lib.test_set(cells_lib.of(SMALL, named)[2], spec, named, 160)
    assert {record["op"] for record in tests.records} == {2}
    assert tests.shared_N.all()  # As `unsplit_op` has it, and the cell says so.


def test_an_op_without_test_problems_has_no_cell_and_is_searched_for_once(monkeypatch):
    searched = []
    real = cells_lib.stream.problems

    def problems(keys_N, goals_N, *, spec):
        found = real(keys_N, goals_N, spec=spec)
        if (np.asarray(goals_N.target) == lost).all():
            searched.append(len(keys_N))
            found = found._replace(ok=found.ok & False)
        return found

    monkeypatch.setattr(cells_lib.stream, "problems", problems)

    def nothing(model, params, prompts, lengths, *, max_new_tokens, stop, **rest):
        zero = np.zeros((len(prompts), 1), np.int32)
        tokens = np.full((len(prompts), 1, max_new_tokens), stop, np.int32)
        return Written(tokens, *[zero] * 5)

    monkeypatch.setattr(evaluate.engine, "decode", nothing)

    def judged():
        cells_lib._drawn.clear()
        within = dataclasses.replace(CONFIG, within=(1, 2))
        found = evaluate.evaluate(
            {}, model=model_of(SMALL), spec=SMALL, config=within, progress=Silent
        )
        return [cell["cell"] for cell in found]

    lost = 1
    assert judged() == ["<=4", "2", "4", "5"]
    assert searched == [CONFIG.problems]
    lost = 4  # The cap's cell must be there.
    with pytest.raises(cells_lib.NoProblemsError, match="No problem of the cell 4"):
        judged()


def test_runs_judged_one_after_the_other_share_their_problems(monkeypatch):
    config = dataclasses.replace(CONFIG, problems=4, within=(), beyond=(SMALL.max_op + 1,))
    first = cells_lib.test_sets(SMALL, config, 160, Silent)
    drawn = []
    monkeypatch.setattr(
        cells_lib, "test_set", lambda *asked: drawn.append(asked) or cells_lib.NoProblemsError
    )
    other = dataclasses.replace(config, decode="sample:temperature=1", batch=7)
    again = cells_lib.test_sets(SMALL, other, 160, Silent)
    assert not drawn
    assert [id(tests) for _, tests in again] == [id(tests) for _, tests in first]


def test_what_takes_longest_to_draw_is_drawn_first(monkeypatch):
    """Problems of few operations: else the display would tell of little time left for long."""
    monkeypatch.setattr(cells_lib, "_drawn", {})
    known, ops = cells_lib.test_set, []
    monkeypatch.setattr(
        cells_lib, "test_set", lambda cell, *asked: ops.append(cell.op) or known(cell, *asked)
    )
    config = dataclasses.replace(CONFIG, problems=2, within=(2, 1), beyond=(SMALL.max_op + 1,))
    sets = cells_lib.test_sets(SMALL, config, 160, Silent)
    assert ops == sorted(ops) and len(ops) > 3
    asked = [cell for cell in cells_lib.of(SMALL, config) if cell in dict(sets)]
    assert [cell for cell, _ in sets] == asked


@pytest.mark.parametrize("changes", [{"seed": 5}, {"problems": 3}, {"window": 150}, {"max_op": 2}])
def test_other_problems_are_drawn_anew(changes):
    config = dataclasses.replace(CONFIG, problems=4, within=(), beyond=())
    before = cells_lib.test_sets(SMALL, config, 160, Silent)
    window, most = changes.pop("window", 160), changes.pop("max_op", SMALL.max_op)
    spec, config = (
        dataclasses.replace(SMALL, max_op=most),
        dataclasses.replace(config, **changes),
    )
    after = cells_lib.test_sets(spec, config, window, Silent)
    assert all(x is not y for (_, x), (_, y) in zip(before, after, strict=True))


def test_cells_of_other_questions():
    """They are asked of the problems of one number of operations, and take fewer or more."""
    config = dataclasses.replace(CONFIG, reasked=(4, 5))
    spec = cells_lib.test_spec(SMALL, config)
    found = cells_lib.of(SMALL, config)
    assert [cell.name for cell in found] == ["<=4", "4", "5", "4re", "5re"]
    assert len({cell.number for cell in found}) == 5
    tests = cells_lib.test_set(found[4], spec, config, 200)
    assert len({record["op"] for record in tests.records}) > 2
    assert len({record["question"] for record in tests.records}) > 5


@pytest.mark.parametrize(("name", "window"), [("med_pq:23", 768), ("hard_pq:32", 1024)])
def test_a_window_of_gpt2s_tokens_leaves_out_half_of_what_is_hardest(name, window):
    """As in the paper, though the model reads fewer tokens."""
    spec, config, cell = published.cells()[name]
    assert config.window_tokens == "gpt2"
    spec = cells_lib.test_spec(spec, config)
    numbers_N = np.arange(200, dtype=np.int32)
    keys_N = cells_lib.keys_of(cell, config, numbers_N)
    goals_N = cells_lib._goals(keys_N, cap=cell.op, fixed=True, spec=spec)
    found = {}
    for counted in cells_lib.WINDOW_TOKENS:
        tests, _ = cells_lib.fitting(
            keys_N, numbers_N, spec, window, goals_N=goals_N, counted=counted
        )
        found[counted] = {int(n) for n in tests.index_N}
    print(f"{name}: {200 - len(found['gpt2'])} of 200 are left out")
    assert len(found["own"]) == 200 and found["gpt2"] < found["own"]
    assert 0.35 < len(found["gpt2"]) / 200 < 0.65
    # It is the setting that decides.
    config = dataclasses.replace(config, problems=100)
    kept = cells_lib.test_set(cell, spec, config, window)
    assert {int(n) for n in kept.index_N if n < 100} == {n for n in found["gpt2"] if n < 100}
