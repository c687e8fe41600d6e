"""Parts of a study: some seeds, what a filter lets through, one share of several."""

import collections
import shlex
import threading

import pytest
from fake_runs import STUDY, FakeRuns, main, rows_in

from physlm.experiments import plan, registry, selection, sweep
from physlm.experiments.selection import deal, of_share

pytestmark = pytest.mark.usefixtures("devices_stay", "unrendered")

FAMILIES = registry.load("studies.families")


def rates_and_seeds(workdir):
    return {(row["condition"]["retry_rate"], row["seed"]) for row in rows_in(workdir)}


def test_seeds_are_those_of_each_run(tmp_path):
    fake = FakeRuns()
    assert main(tmp_path, "--seeds", "1:3", execute=fake) == 0
    assert rates_and_seeds(tmp_path) == {(0.0, 1), (0.0, 2), (0.5, 1), (0.5, 2)}
    # What one command asks for with each seed alone is the same.
    again = FakeRuns()
    assert main(tmp_path, "--set", "seed=2", execute=again) == 0
    assert again.trained == []
    assert selection.parse_seeds("0,1,2") == selection.parse_seeds("0:3") == [0, 1, 2]
    assert selection.parse_seeds("7, 1:3,2") == [7, 1, 2]


@pytest.mark.parametrize(
    ("texts", "kept"),
    [
        (["retry_rate=0.5"], {(0.5, 0), (0.5, 1)}),
        (["retry_rate=.50", "seed=1"], {(0.5, 1)}),
        (["retry_rate!=0.5"], {(0.0, 0), (0.0, 1)}),
        (["retry_rate=0,0.5", "seed=0"], {(0.0, 0), (0.5, 0)}),
        (["seed!=1,1", "retry_rate!=0.5"], {(0.0, 0)}),
        (["mistakes.rate=0.5", "model.layers=2", "seed!=0"], {(0.5, 1)}),
        (["evaluate.beyond=4,5", "seed=0"], {(0.0, 0), (0.5, 0)}),
        (["optimizer.name = muon", "model.qk_norm=false", "seed=0"], {(0.0, 0), (0.5, 0)}),
    ],
)
def test_a_filter_lets_runs_through_that_fulfil_all_of_it(tmp_path, texts, kept):
    assert main(tmp_path, "--seeds", "0,1", "--filter", *texts) == 0
    assert rates_and_seeds(tmp_path) == kept


def test_what_was_shown_before_a_filter_stays_shown(tmp_path):
    assert main(tmp_path) == 0
    assert main(tmp_path, "--set", "seed=1", "--filter", "retry_rate=0.5") == 0
    assert rates_and_seeds(tmp_path) == {(0.0, 0), (0.5, 0), (0.5, 1)}


def test_a_report_has_the_commands_that_made_it(tmp_path):
    """Given again in another store, they make the same results."""
    first, other = tmp_path / "first", tmp_path / "other"
    chosen = ["--filter", "retry_rate=0.5", "--set", "evaluate.beyond=4", "evaluate.problems=60"]
    assert main(first, "--seeds", "1:3", *chosen) == 0
    assert main(first, "--only", "1/3") == 0
    assert main(first) == 0
    (view,) = (path.parent for path in first.glob("*/results.md"))
    written = (view / "commands.txt").read_text()
    assert f"```bash\n{written}```" in (view / "results.md").read_text()
    commands = written.splitlines()
    assert len(commands) == 2
    for command in commands:
        head, *given = command.partition(f" {STUDY.name} ")
        assert head == "python -m physlm.experiments.sweep"
        again = [STUDY.name, *shlex.split(given[1]), "--workdir", str(other)]
        assert sweep.main(again, FakeRuns()) == 0
    assert rows_in(other) == rows_in(first) != []
    # Begun anew, it is made by what follows.
    (view / "shown.json").unlink()
    assert main(first) == 0
    assert (view / "commands.txt").read_text().splitlines() == commands[1:]


def test_parents_and_probes_come_along():
    entries = plan.plan(FAMILIES, "smoke")
    parent, continued, _, asking, _ = entries
    todo = plan.tasks(selection.filtered(entries, ["trained=continued"]))
    assert [(task.run, len(task.evaluations)) for task in todo] == [
        (parent.run, 0),
        (continued.run, 1),
    ]
    todo = plan.tasks(selection.filtered(entries, ["decode=regret:probe"]))
    assert [task.run.name for task in todo] == [
        parent.run.name,
        asking.needs[0].name,
        parent.run.name,
    ]


def test_a_value_that_has_commas_is_one_value():
    entries = plan.plan(FAMILIES, "smoke", ["evaluate.beyond=4"])
    other = plan.plan(FAMILIES, "smoke", ["evaluate.beyond=4,5"])
    assert selection.filtered([*entries, *other], ["evaluate.beyond=4,5"]) == other
    with pytest.raises(ValueError, match=r"no run has '5': evaluate\.beyond is 4\."):
        selection.filtered(entries, ["evaluate.beyond=5,4"])
    assert selection.filtered([*entries, *other], ["evaluate.beyond!=4,5"]) == entries


def test_a_value_with_commas_stands_among_others():
    entries = plan.plan(registry.load("regret"), "smoke")
    known = {entry.condition.get("decode") for entry in entries}
    assert {"greedy", "regret:probe", "regret:probe,beams=4"} <= known

    def left(text):
        return [entry.condition.get("decode") for entry in selection.filtered(entries, [text])]

    assert {*left("decode=regret:probe,beams=4")} == {"regret:probe,beams=4"}
    assert {*left("decode=greedy,regret:probe,beams=4,beam:4")} == {
        *("greedy", "regret:probe,beams=4", "beam:4")
    }
    assert {*left("decode!=regret:probe, beams=4, greedy")} == known - {
        *("regret:probe,beams=4", "greedy")
    }
    with pytest.raises(ValueError, match=r"no run has 'beams=3': decode is greedy or "):
        selection.filtered(entries, ["decode=regret:probe,beams=3"])


def test_of_values_that_begin_alike_the_longest_is_meant():
    entries = plan.plan(registry.load("inference"), "smoke")
    drawn = "sample:16,temperature=0.7"

    def left(text):
        return {entry.condition["decode"] for entry in selection.filtered(entries, [text])}

    assert left(f"decode=greedy,{drawn},pick=likeliest") == {"greedy", f"{drawn},pick=likeliest"}
    assert left(f"decode={drawn},greedy") == {"greedy", drawn}


def test_runs_that_have_no_value_are_named_by_none():
    entries = plan.plan(registry.load("regret"), "smoke")
    without = [entry for entry in entries if entry.condition.get("probe") is None]
    assert 0 < len(without) < len(entries)
    assert selection.filtered(entries, ["probe="]) == without
    having = selection.filtered(entries, ["probe!="])
    assert {*map(id, having)} == {*map(id, entries)} - {*map(id, without)}
    with pytest.raises(ValueError, match="--filter has seed= for runs that have none, and all"):
        selection.filtered(entries, ["seed="])


THERE = "there are retry_rate 0, 0.5; seed 0; and settings, as model.layers.\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ["--filter", "retry_rate=0.5", "retry_rate=0"],
            f"--filter retry_rate=0.5 retry_rate=0 lets no run through: {THERE}",
        ),
        (
            ["--filter", "retry_rate=0.5", "seed=many"],
            "--filter has seed=many, and no run has 'many': seed is 0.\n",
        ),
        (
            ["--filter", "retry_rate=0.5,0.3"],
            "--filter has retry_rate=0.5,0.3, and no run has '0.3': retry_rate is 0 or 0.5.\n",
        ),
        (["--filter", "retry_rate!=0.3"], "--filter has retry_rate!=0.3, and no run has '0.3'"),
        (["--filter", "colour=red"], f"--filter has 'colour', which no run has: {THERE}"),
        (["--filter", "model.layer=2"], "unknown setting 'model.layer'"),
        (["--filter", "retry_rate"], "--filter has 'retry_rate'; it must be NAME=VALUE"),
        (["--only", "0/8"], "--only is '0/8'; it must be 1/N to N/N, as 3/8, the third of eight."),
        (["--only", "9/8"], "--only is '9/8'; it must be 1/N"),
        (["--only", "3"], "--only is '3'; it must be 1/N"),
        (["--seeds", "a"], "--seeds is 'a'; it must be seeds as 0,1,2 or 0:3."),
        (["--seeds", "3:3"], "--seeds is '3:3'; it must be"),
        (["--seeds", ""], "--seeds is ''; it must be seeds as 0,1,2 or 0:3."),
        (["--only", ""], "--only is ''; it must be 1/N to N/N"),
        (["--seeds", "0:10000000"], "--seeds is '0:10000000'; it must be at most 1,000 seeds."),
        (["--seeds", "0:600,700:1101"], "--seeds is '0:600,700:1101'; it must be at most 1,000"),
        (["--settings", "--dry-run"], "--dry-run is given with --settings, which only prints"),
        (["--settings", "--seeds", "0:3"], "--seeds is given with --settings, which only prints"),
        (["--seeds", "0:2", "--set", "seed=1"], "--seeds and --set seed=… both say which seeds"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(tmp_path, capsys, arguments, complaint):
    assert main(tmp_path / "work", *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(complaint) and error.count("\n") == 1
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [("only", "1/2", "2/2"), ("seeds", "0,1", "5"), ("workdir", "a", "b"), ("scale", "x", "x")],
)
def test_which_runs_are_meant_is_said_once(tmp_path, monkeypatch, capsys, name, first, second):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as refused:
        sweep.main([f"--{name}", first, "--dry-run", f"--{name}={second}"])
    error = capsys.readouterr().err
    assert refused.value.code == 2 and error.count("\n") == 1
    assert error.startswith(f"--{name} is given twice, as '{first}' and as '{second}'")
    assert not list(tmp_path.iterdir())


# Shares.


def planned(study, *settings, seeds=range(1)):
    return plan.tasks(
        [e for seed in seeds for e in plan.plan(study, "smoke", [*settings, f"seed={seed}"])]
    )


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 30])
@pytest.mark.parametrize("study", [STUDY, FAMILIES])
def test_every_run_is_in_one_share(study, count):
    todo = planned(study, seeds=range(4))
    shares = deal(todo, count)
    counted = collections.Counter(name for share in shares for name in share)
    assert counted == dict.fromkeys((task.run.name for task in todo), 1)
    for share in shares:
        done = of_share(share, todo)
        # Every evaluation is in its run's share, and what is needed comes before it.
        seen = set()
        for task in done:
            before = [task.run.parent, *task.needs]
            assert {run.name for run in before if run} <= seen
            seen.add(task.run.name)
            assert not task.evaluations or task.run.name in share
    judged = [
        (task.run.name, str(one.config))
        for share in shares
        for task in of_share(share, todo)
        for one in task.evaluations
    ]
    asked = [(task.run.name, str(one.config)) for task in todo for one in task.evaluations]
    assert sorted(judged) == sorted(asked)


def test_equal_runs_are_dealt_equally():
    todo = planned(STUDY, seeds=range(7))
    sizes = map(len, deal(todo, 4))
    assert sorted(sizes) == [3, 3, 4, 4]


def test_large_runs_are_weighed_by_their_tokens():
    long, short = planned(STUDY, "train.steps=60"), planned(STUDY, seeds=range(1, 4))
    shares = deal([*long, *short], 4)
    assert sorted(map(len, shares)) == [1, 1, 3, 3]
    assert {frozenset({task.run.name}) for task in long} <= set(map(frozenset, shares))


def test_families_and_programs_stay_together_where_they_fit():
    todo = planned(FAMILIES, seeds=range(3))
    runs = {task.run.name: task.run for task in todo}
    share_of = {name: number for number, names in enumerate(deal(todo, 3)) for name in names}
    for task in todo:
        for run in filter(None, (task.run.parent, *task.needs)):
            assert share_of[run.name] == share_of[task.run.name]
    # Two shapes of equally many tokens are two shares, though two halves of each were as large.
    shapes = [
        task for layers in (1, 2) for task in planned(STUDY, f"model.layers={layers}", seeds=[0, 1])
    ]
    for names in deal(shapes, 2):
        mine = {task.run.settings.model.layers for task in shapes if task.run.name in names}
        assert len(names) == 4 and len(mine) == 1
    assert len(runs) == 15


def test_what_is_done_does_not_change_the_shares(tmp_path, capsys):
    """Jobs of an array start at any time, and have to agree."""
    second = FakeRuns()
    assert main(tmp_path, "--seeds", "0:3", "--only", "2/4", execute=second) == 0
    trained = len(second.trained)
    for number in (1, 3, 4):
        fake = FakeRuns()
        assert main(tmp_path, "--seeds", "0:3", "--only", f"{number}/4", execute=fake) == 0
        trained += len(fake.trained)
        assert fake.trained
    assert trained == 6
    assert len(rates_and_seeds(tmp_path)) == 6
    all_of_it = FakeRuns()
    assert main(tmp_path, "--seeds", "0:3", execute=all_of_it) == 0
    assert all_of_it.trained == all_of_it.judged == []


def test_a_share_of_more_than_there_are_runs_does_nothing(tmp_path, capsys):
    assert main(tmp_path / "work", "--only", "3/8") == 0
    assert capsys.readouterr().err == "share 3/8 has none of the 2 runs: nothing is to do.\n"
    assert not (tmp_path / "work").exists()


def test_a_dry_run_of_a_share_tells_its_own_runs_from_others(tmp_path, capsys):
    todo = planned(FAMILIES)
    count = 5
    for number, own in enumerate(deal(todo, count), 1):
        arguments = ("--dry-run", "--only", f"{number}/{count}")
        assert main(tmp_path, *arguments, study=FAMILIES.name) == 0
        text = " ".join(capsys.readouterr().out.split())
        assert f"{len(own)} run{'s' * (len(own) > 1)} in" in text
        others = {task.run.name for task in of_share(own, todo)} - own
        assert text.count(", another share's") == len(others)
        for name in others:
            assert f"{name}: to do, another share's" in text


def test_shares_of_a_study_are_worked_on_at_once(tmp_path):
    """Nothing of what one shows is lost where another writes."""
    codes = []

    def work(number):
        codes.append(main(tmp_path, "--seeds", "0:2", "--only", f"{number}/4"))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [0] * 4
    assert rates_and_seeds(tmp_path) == {(0.0, 0), (0.0, 1), (0.5, 0), (0.5, 1)}
    assert not list(tmp_path.rglob("*.lock"))
