"""The study of ways of decoding, and the command line that judges by them, at `smoke`."""

import base64
import json
import pathlib
from collections.abc import Iterator

import pytest

import experiments.inference as study
from physlm import devices
from physlm.experiments import evaluate, plan, registry, sweep
from physlm.experiments.store import Store

pytestmark = pytest.mark.usefixtures("devices_stay")

PROBLEMS = ("evaluate.problems=8", "evaluate.beyond=4")
# As many as the study has of them, so that programs are compiled once; others are drawn.
OTHERS = ("evaluate.problems=2", "evaluate.beyond=4", "evaluate.seed=1")

# One of each kind. The samples are one program, however one is chosen.
WAYS = ("greedy", "sample:2,temperature=0.7", "beam:2", "regret:perfect")
ASKING = ("regret:probe", "sample:2,temperature=0.7,pick=weighted")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Two models, their probes, and some ways of decoding, of which the study is made."""
    root = tmp_path_factory.mktemp("decoding")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(devices, "prepare", lambda *rest: None)
        patch.setattr(study, "WAYS", WAYS)
        patch.setattr(study, "ASKING", ASKING)
        arguments = ["inference", "--scale", "smoke", "--workdir", str(root), "--set", *PROBLEMS]
        assert sweep.main(arguments) == 0
        yield Store(root)


def models(store: Store) -> dict[str, pathlib.Path]:
    """The models and their probes, by how they are named."""
    found = {}
    for path in store.models.iterdir():
        kind = "probe" if path.name.startswith("probe") else "model"
        parent = json.loads((path / "config.json").read_text())["parent"]["run"] or path.name
        found[f"{'error-free' if parent.startswith('error-free') else 'retry'} {kind}"] = path
    return found


def test_probes_are_trained_before_they_are_asked(store: Store) -> None:
    assert set(models(store)) == {
        "error-free model", "error-free probe", "retry model", "retry probe"
    }  # fmt: skip
    rows = [
        json.loads(line)
        for line in (store.root / "inference-smoke" / "results.jsonl").read_text().splitlines()
    ]
    ways = [(row["condition"]["decode"], row["condition"]["retry_rate"]) for row in rows]
    assert set(ways) == {(way, rate) for way in (*WAYS, *ASKING) for rate in (0.0, 0.5)}
    assert len(rows) == 12 * 3
    assert {row["condition"].get("probe") for row in rows} == {None, "probe of rank 8"}


def test_the_report_shows_accuracy_against_tokens(store: Store) -> None:
    view = store.root / "inference-smoke"
    assert (view / "tokens.png").read_bytes().startswith(b"\x89PNG")
    page = (view / "report.html").read_text()
    assert base64.b64encode((view / "tokens.svg").read_bytes()).decode() in page
    assert "What models wrote" in page
    table = (view / "results.md").read_text()
    assert "| tokens | cut off % | retries: right | wrong |" in table


def test_nothing_is_done_twice(store: Store) -> None:
    entries = plan.plan(registry.load("inference"), "smoke", PROBLEMS)
    some = [entry for entry in entries if entry.evaluation.settings.decode in study.ASKING]
    done = plan.tasks(some)
    # Two models, two probes, and both models once more when the probes are there.
    assert len(done) == 6
    assert all(task.is_done(store.of_run(task.run.name)) for task in done)
    assert [task.depth for task in done] == [0, 1, 2, 0, 1, 2]
    groups = plan.groups(done, store)
    depths = [group[0].depth for group in groups]
    assert depths == sorted(depths)


def judged(capsys: pytest.CaptureFixture, *arguments: str) -> tuple[int, str, str]:
    code = evaluate.main(arguments)
    out = capsys.readouterr()
    return code, out.out, out.err.strip().splitlines()[-1] if out.err.strip() else ""


def test_a_model_is_judged_by_another_way(store: Store, capsys: pytest.CaptureFixture) -> None:
    found = models(store)
    model, probe = str(found["retry model"]), found["retry probe"].name
    arguments = (model, "--decode", "regret:probe", "--probe", probe, "--set", *OTHERS)
    code, out, _ = judged(capsys, *arguments)
    cells = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [cell["cell"] for cell in cells] == ["<=3", "3", "4"]
    (evaluation,) = {cell["evaluation"] for cell in cells}
    path = found["retry model"] / "evaluations" / evaluation / "result.json"
    took = [cell["account"] for cell in json.loads(path.read_text())["cells"]]
    assert all(0 < one["tokens"] <= one["passes"] for one in took)
    code, out, _ = judged(capsys, *arguments, "--show", "2")
    assert code == 0 and out.count("Problem: ") == 2 and "Answer: " in out


def test_bad_input_is_one_sentence(store: Store, capsys: pytest.CaptureFixture) -> None:
    found = {name: str(path) for name, path in models(store).items()}
    model = found["retry model"]
    other, probe = pathlib.Path(found["error-free probe"]).name, found["retry probe"]
    before = sorted(pathlib.Path(model).rglob("*"))
    for arguments, complaint in [
        ((model, "--decode", "beam:x"), "decode is 'beam:x', in which 'x' must be a whole"),
        (
            (model, "--decode", "regret:probe"),
            "evaluate.probe is ''; it must be the run of",
        ),
        ((model, "--probe", "x"), "evaluate.probe is 'x'; it must be empty, since the"),
        ((model, "--decode", "regret:probe", "--probe", other), "a probe of error-free"),
        ((model, "--decode", "regret:probe", "--probe", model), "no probe of the task can_next"),
        ((model, "--decode", "regret:probe", "--probe", "none"), "is not the directory of a run"),
        (
            (model, "--decode", "beam:64", "--set", "evaluate.batch=32"),
            "evaluate.batch is 32; it must be",
        ),
        ((model, "--decode", "beam", "--set", "evaluate.decode=beam"), "given beside --set"),
        ((model, "--show", "0"), "--show is 0; it must be at least 1."),
        ((model, "--show", "2", "--overlap"), "--show is given with --overlap"),
        ((probe, "--decode", "regret:perfect"), "one that asks nobody, for a probe"),
    ]:
        code, out, error = judged(capsys, *arguments)
        assert (code, out) == (2, ""), arguments
        assert complaint in error, error
    assert sorted(pathlib.Path(model).rglob("*")) == before
