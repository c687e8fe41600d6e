"""What a dry run says, and that it touches nothing."""

import json
import pathlib
import re

import jax
import pytest
from fake_runs import STUDY, FakeRuns, main, times

from physlm import model, throughput
from physlm.experiments import (
    estimate,
    evaluation,
    files,
    pace,
    plan,
    registry,
    run,
    sweep,
    tree,
    versions,
)
from physlm.experiments.store import Store
from physlm.tools import roofline
from physlm.tools.chips import CHIPS

pytestmark = pytest.mark.usefixtures("devices_stay")

FAMILIES = registry.load("studies.families")


def shown(capsys, workdir, *arguments, study=STUDY.name):
    capsys.readouterr()
    assert main(workdir, "--dry-run", *arguments, study=study) == 0
    return capsys.readouterr().out


def test_it_tells_how_far_all_has_come_and_writes_nothing(tmp_path, capsys):
    workdir = tmp_path / "work"
    text = shown(capsys, workdir)
    assert not workdir.exists()
    for entry in plan.plan(STUDY, "smoke"):
        assert f"{entry.run.name}: to do\n" in text
        assert f"; {entry.run.tokens:,} tokens; " in text
    assert f"2 runs in {workdir}/models: 2 to do; 2 evaluations: 2 to do." in text
    text = shown(capsys, workdir, "--filter", "retry_rate=0.5")
    assert f"1 run in {workdir}/models: 1 to do; 1 evaluation: 1 to do." in text

    main(workdir, execute=FakeRuns(failing=(0.5,)))
    before = times(workdir)
    text = shown(capsys, workdir, "--set", "evaluate.problems=17")
    assert f"2 runs in {workdir}/models: 1 finished, 1 failed; 2 evaluations: 2 to do." in text
    assert "2 evaluations: 1 finished, 1 to do." in shown(capsys, workdir)
    assert "Nothing is left to train." not in shown(capsys, workdir)
    assert times(workdir) == before
    main(workdir, execute=FakeRuns())
    text = shown(capsys, workdir)
    assert "Nothing is left to train." in text and "Training to do" not in text


def test_runs_stand_under_their_parents_and_what_asks_names_its_probe(tmp_path, capsys):
    text = shown(capsys, tmp_path, study=FAMILIES.name)
    parent, continued, lora, asking, deeper = plan.plan(FAMILIES, "smoke")
    (probe,) = asking.needs
    lines = text.splitlines()
    # A path may be of any length.
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 100

    def indent(name):
        (line,) = (line for line in lines if f"{name}: to do" in line)
        return line.index(name)

    assert [indent(entry.run.name) for entry in (parent, deeper)] == [0, 0]
    assert [indent(one.name) for one in (continued.run, lora.run, probe)] == [2, 2, 2]
    # In one block: nothing stands between a parent and its children.
    block = next(part for part in text.split("\n\n") if part.startswith(parent.run.name))
    assert all(one.name in block for one in (continued.run, lora.run, probe))
    assert f"asks {probe.name}" in " ".join(block.replace("│", "").split())
    assert "5 runs in" in text and "5 evaluations: 5 to do" in text


def test_an_unfinished_run_says_from_where_it_goes_on(tmp_path, capsys):
    first, _ = plan.plan(STUDY, "smoke")
    directory = tmp_path / "models" / first.run.name
    (directory / "checkpoints" / "5").mkdir(parents=True)
    text = shown(capsys, tmp_path)
    assert f"{first.run.name}: unfinished at step 5 of 20\n" in text
    tokens = first.run.tokens
    assert f"Training in all: {2 * tokens:,} tokens" in text
    assert f"Training to do: {tokens * 7 // 4:,} tokens" in text


def test_sizes_are_those_that_the_rooms_know(tmp_path, capsys):
    parent, _, lora, _, _ = plan.plan(FAMILIES, "smoke")
    place = estimate.Slice("v5e", 4)
    whole, part = (estimate.estimate(one.run, {}, place) for one in (parent, lora))
    config = parent.run.settings.model
    total = sum(leaf.size for leaf in jax.tree.leaves(model.shapes(config)))
    assert (whole.trained, whole.parameters) == (total, total)
    # Two factors of rank 2 on queries and values of two layers, of rank 4 on the embedding.
    width = config.width
    adapters = 2 * 2 * 2 * (width + width) + 4 * (config.vocab + width)
    assert (part.trained, part.parameters) == (adapters, adapters + total)
    assert whole.flops == 20 * throughput.model_flops(config, 8 * 128)
    found = roofline.predict(CHIPS["v5e"], config, 8, 20, {"data": 4})
    assert whole.there == pytest.approx(found.days * 86_400)
    assert whole.here is None


def test_a_slice_that_cannot_share_the_batch_is_used_in_part():
    first, _ = plan.plan(STUDY, "smoke", ["train.batch=6"])
    several = [estimate.estimate(first.run, {}, estimate.Slice("v6e", n)).there for n in (3, 4, 5)]
    assert several[0] == several[1] == several[2]
    wide, _ = plan.plan(STUDY, "smoke", ["mesh.tensor=2"])
    assert estimate.estimate(wide.run, {}, estimate.Slice("v5e", 1)).there is None


def test_a_step_of_a_small_model_takes_as_long_as_it_takes_to_dispatch(tmp_path, capsys):
    first, _ = plan.plan(STUDY, "smoke", ["train.steps=12000"])
    found = estimate.estimate(first.run, {}, estimate.Slice("v5e", 8))
    assert found.there == pytest.approx(12_000 * roofline.DISPATCH)
    text = " ".join(shown(capsys, tmp_path, "--set", "train.steps=12000").split())
    assert "not measured, 28 s" in text and "56 s on v5e-8" in text
    assert "A step is taken to last 2.35 ms at least" in text


def test_times_of_the_slice_that_the_script_takes_can_be_estimated():
    script = pathlib.Path(__file__).parents[1] / "experiments/cloud_tpu.sh"
    kind, cores = re.search(r"TYPE:-(v\d)-(\d+)", script.read_text()).groups()
    found = estimate.parse_slice(f"{kind}-{int(cores) // 2}")
    assert CHIPS[found.chip].flops == throughput.PEAK_FLOPS[f"TPU {kind}"]


def trained(store, one, speeds, **recorded):
    """Leaves what a training of a run leaves behind."""
    directory = store.of_run(one.name)
    directory.mkdir(parents=True)
    files.write_json(directory / run.CONFIG_FILE, one.config)
    files.write_json(directory / versions.FILE, versions.versions() | recorded)
    lines = (
        json.dumps({"step": n, "tokens_per_s": speed}) + "\n" for n, speed in enumerate(speeds, 1)
    )
    (directory / "metrics.jsonl").write_text("".join(lines))


def test_time_here_is_that_of_runs_of_one_shape_on_such_devices(tmp_path, capsys):
    store = Store(tmp_path)
    (other, _), (elsewhere, _), (processor, _) = (
        plan.plan(STUDY, "smoke", [f"seed={seed}", "train.steps=30"]) for seed in (7, 8, 9)
    )
    larger, _ = plan.plan(STUDY, "smoke", ["model.layers=3"])
    # The first line counts compilation.
    trained(store, other.run, [1.0, 64.0, 256.0, 128.0])
    # Earlier versions did not tell the processor.
    said = store.of_run(other.run.name) / versions.FILE
    files.write_json(said, {k: v for k, v in files.read_json(said).items() if k != "cpu"})
    trained(store, elsewhere.run, [9e9, 9e9], device_kind="a quantum computer")
    trained(store, processor.run, [9e9, 9e9], cpu="an abacus")
    trained(store, larger.run, [9e9, 9e9])
    first, second = plan.plan(STUDY, "smoke")
    wanted = {pace.pace_of(one.run.config) for one in (first, second)}
    assert pace.measured(store, wanted) == {wanted.pop(): 128.0}
    text = shown(capsys, tmp_path)
    assert first.run.tokens == 20_480
    assert len(re.findall(r"FLOP, 2 min 40 s here, ", text)) == 2
    assert re.search(r"Training in all: 40,960 tokens, [\d.]+ GFLOP, 5 min 20 s here, ", text)
    assert "--measure" not in text


def test_judging_takes_here_what_it_took_of_such_models_on_such_devices(tmp_path, capsys):
    first, _ = plan.plan(STUDY, "smoke")
    assert "Judging to do: not measured here." in shown(capsys, tmp_path)
    for arguments, seconds in (((), 30.0), (("model.layers=3",), 9e9), (("train.steps=30",), 90.0)):
        main(tmp_path, *(("--set", *arguments) if arguments else ()), execute=FakeRuns())
        for entry in plan.plan(STUDY, "smoke", arguments):
            directory = tmp_path / "models" / entry.run.name
            files.write_json(directory / versions.FILE, versions.versions())
            path = evaluation.result_of(directory, entry.evaluation.config)
            files.write_json(path, files.read_json(path) | {"evaluate_seconds": seconds})
    text = shown(capsys, tmp_path)
    # Nothing is to be judged, and what has been is not told to take time.
    assert "Judging to do" not in text and " s here" not in text.split("Training in all")[0]
    evaluation.result_of(tmp_path / "models" / first.run.name, first.evaluation.config).unlink()
    text = " ".join(shown(capsys, tmp_path, "--set", "seed=5").split())
    # The median of 30, 90 and 90 s, whatever the models were trained on.
    assert text.count(": to do, 1 min 30 s here") == 2
    assert "Judging to do: 3 min 00 s here." in text
    text = " ".join(shown(capsys, tmp_path, "--set", "seed=5", "evaluate.problems=17").split())
    assert "Judging to do: not measured here." in text


def test_measuring_trains_what_was_not_measured_and_keeps_nothing(tmp_path, capsys, monkeypatch):
    workdir = tmp_path / "work"
    monkeypatch.setattr(pace, "_TIMED", 0.0)
    text = shown(capsys, workdir, "--measure", "--set", "mesh.population=2")
    assert not workdir.exists()
    assert "not measured" not in text.split("Judging to do")[0]
    assert len(re.findall(r"FLOP, .* s here, ", text)) == 3
    assert "--measure" not in text


def test_what_was_measured_before_is_not_measured_again(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(pace, "measure", lambda group: asked.append(group[0].run.name) or 1.0)
    todo = plan.tasks(plan.plan(FAMILIES, "smoke"))
    parent, _, lora, asking, deeper = plan.plan(FAMILIES, "smoke")
    (probe,) = asking.needs
    trained(Store(tmp_path), parent.run, [1.0, 2.0])
    found = sweep._paces(todo, Store(tmp_path), True)
    # A continued run has the steps of its parent.
    assert sorted(asked) == sorted([lora.run.name, probe.name, deeper.run.name])
    assert sorted(found.values()) == [1.0, 1.0, 1.0, 2.0]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--dry-run", "--slice", "v9-8"], "--slice is 'v9-8'; it must be a chip and how many"),
        (["--dry-run", "--slice", "v5e-0"], "--slice is 'v5e-0'; it must be"),
        (["--slice", "v5e-8"], "--slice is for --dry-run."),
        (["--measure"], "--measure is for --dry-run."),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, capsys, arguments, complaint):
    assert main(tmp_path / "work", *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(complaint) and error.count("\n") == 1
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.0, "0 "), (999.4, "999 "), (999.6, "1 k"), (2.35e13, "23.5 T"), (2.36e21, "2.36 Z")],
)
def test_numbers_are_told_to_three_digits(number, text):
    assert tree._counted(number) == text
