"""Runs as Hugging Face reads them, and models of Hugging Face as runs."""

import json
import pathlib
import re
import shlex
import shutil

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from test_again import swept

from data_gen import __main__ as generator
from data_gen.windows.tokenizer import tokenizer
from physlm import adopt, export
from physlm.experiments import evaluate, options, results, sweep, weights
from physlm.experiments import run as run_lib
from physlm.huggingface import directory as directories
from physlm.huggingface import mapping, plain

torch = pytest.importorskip("torch", reason="needs physlm[export]")
transformers = pytest.importorskip("transformers", minversion="5.14", reason="physlm[export]")
import safetensors.numpy  # noqa: E402

pytestmark = pytest.mark.slow

# One for which transformers has a class, and one for which it has none.
MODELS = {"published": ("model.variant=llama", "model.kv_heads=1"), "own": ("model.canon=ABCD",)}


@pytest.fixture(scope="module", autouse=True)
def leave_jax_alone():
    with pytest.MonkeyPatch.context() as patch:
        for room in (adopt, export, evaluate):
            patch.setattr(room.devices, "prepare", lambda mesh, batch, cache_dir=None: None)
        yield


@pytest.fixture(scope="module", params=MODELS)
def trained(request, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs")
    swept(workdir, *MODELS[request.param])
    (directory,) = (workdir / "models").iterdir()
    return request.param, directory


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    kind, directory = trained
    out = tmp_path_factory.mktemp("out") / "model"
    assert export.main([str(directory), "--out", str(out)]) == 0
    return kind, directory, out


def test_anybody_can_read_it(exported):
    kind, directory, out = exported
    loaded = transformers.AutoModelForCausalLM.from_pretrained(out, trust_remote_code=kind == "own")
    reader = transformers.AutoTokenizer.from_pretrained(out, trust_remote_code=kind == "own")
    run = run_lib.load(directory)
    assert (type(loaded).__name__ == "PhyslmForCausalLM") == (kind == "own")
    assert loaded.config.vocab_size == run.settings.model.vocab == len(reader)
    assert loaded.generation_config.eos_token_id == reader.eos_token_id
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlicense: apache-2.0\n") and run.name in card
    for cell in results.cells(next(directory.glob("evaluations/*/result.json"))):
        assert f"| {cell['cell']} | {cell['n']} | {100 * cell['accuracy']:.1f} [" in card
    assert not list(out.glob("*.bin")) and not list(out.parent.glob(".model*"))
    assert not list(out.rglob("*.pkl"))


def shown(directory, language):
    """The code of a language in a card."""
    card = (directory / "README.md").read_text()
    return re.findall(rf"```{language}\n(.*?)\n```", card, re.DOTALL)


def printed_by_its_card(directory, monkeypatch, capsys):
    """What the code of a card prints as it stands, begun where the card is."""
    (code,) = shown(directory, "python")
    monkeypatch.chdir(directory)
    capsys.readouterr()
    exec(code, {})
    return capsys.readouterr().out


def test_its_card_loads_it_and_says_how_it_is_made(exported, monkeypatch, capsys):
    kind, directory, out = exported
    run = run_lib.load(directory)
    reader = transformers.AutoTokenizer.from_pretrained(out, trust_remote_code=kind == "own")
    printed = printed_by_its_card(out, monkeypatch, capsys)
    assert printed.startswith("<|problem|>") and "<|solution|>" in printed
    drawing, training, judging = map(shlex.split, shown(out, "bash"))
    assert judging[-1] == f"models/{run.name}"
    # What is drawn is of the class: its tokenizer reads it.
    assert generator.main([*drawing[3:], "--count", "8"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(records) == 8
    for record in records:
        assert reader(f"<|problem|>{record['problem']}{record['question']}<|solution|>")
    asked = options.entries(options.parse(training[3:]))
    assert {entry.run.name for entry in asked} == {run.name}


def test_what_is_read_back_as_another_model_is_not_left_there(
    trained, tmp_path, monkeypatch, capsys
):
    real = mapping.state_dict

    def changed(config, params):
        found = real(config, params)
        name = next(name for name in found if name.endswith("layers.1.mlp.up_proj.weight"))
        return {**found, name: found[name] + np.float32(1e-2)}

    monkeypatch.setattr(directories.mapping, "state_dict", changed)
    out = tmp_path / "model"
    assert export.main([str(trained[1]), "--out", str(out)]) == 2
    assert "logits differ by" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_half_the_bytes_and_any_step(trained, tmp_path):
    _, directory = trained
    run = run_lib.load(directory)
    for step in ("4", "best"):
        out = tmp_path / step
        assert export.main([str(directory), "--out", str(out), "--step", step, "--dtype",
                            "bfloat16"]) == 0  # fmt: skip
        content = json.loads((out / "config.json").read_text())
        assert content["dtype"] == "bfloat16"
        tensors = safetensors.torch.load_file(out / "model.safetensors")
        assert {x.dtype for x in tensors.values()} == {torch.bfloat16}
        params, _ = weights.joined(run, directory, weights.restored(run, directory, step))
        for name, want in mapping.state_dict(run.settings.model, params).items():
            torch.testing.assert_close(tensors[name], torch.tensor(want).bfloat16(), msg=name)


def test_weights_in_several_files_come_back_too(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(directories, "_SHARD", "20KB")
    out, store = tmp_path / "model", tmp_path / "store"
    assert export.main([str(trained[1]), "--out", str(out)]) == 0
    assert len(list(out.glob("model-*.safetensors"))) > 1
    assert adopt.main([str(out), "--workdir", str(store)]) == 0
    (out / sorted(path.name for path in out.glob("model-*"))[0]).unlink()
    capsys.readouterr()
    assert adopt.main([str(out), "--workdir", str(tmp_path / "other")]) == 2
    assert "only safetensors are read" in capsys.readouterr().err


def test_it_comes_back_as_a_run(exported, tmp_path, capsys):
    """That is judged as the one it was, and that another can begin with."""
    _, directory, out = exported
    workdir = tmp_path / "runs"
    assert adopt.main([str(out), "--workdir", str(workdir)]) == 0
    (adopted,) = (workdir / "models").iterdir()
    assert adopt.main([str(out), "--workdir", str(workdir)]) == 0
    assert list((workdir / "models").iterdir()) == [adopted]
    # Another process may be as quick, and be done between the first look and the last.
    looks, real = iter(["new"]), run_lib.status
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adopt.run_lib, "status", lambda path: next(looks, None) or real(path))
        assert adopt.main([str(out), "--workdir", str(workdir)]) == 0
    assert list((workdir / "models").iterdir()) == [adopted]
    capsys.readouterr()
    told = []
    for run in (directory, adopted):
        assert evaluate.main([str(run), "--set", "evaluate.problems=8"]) == 0
        told.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    assert [{**cell, "run": "", "evaluation": "", "step": 0, "tokens": 0} for cell in told[0]] == [
        {**cell, "run": "", "evaluation": ""} for cell in told[1]
    ]
    # All else as in the study that trained it.
    rows = swept(workdir, *MODELS[exported[0]], f"parent.run={adopted.name}", "train.steps=2",
                 "train.save_every=1", "optimizer.warmup_steps=1")  # fmt: skip
    assert rows and adopted.name.rpartition("-")[2] in rows[0]["run"]
    capsys.readouterr()
    with pytest.raises(AssertionError):
        swept(workdir, f"parent.run={out}")
    assert f"a model of Hugging Face; model.from={out} begins with it" in capsys.readouterr().err


def test_a_study_begins_with_it(exported, tmp_path, capsys):
    """With its architecture and class, and nothing but its place in the command."""
    _, directory, out = exported
    store = tmp_path / "runs"
    given = ["--scale", "smoke", "--workdir", str(store), "--set", f"model.from={out}"]
    given += ["train.steps=2", "train.save_every=1", "optimizer.warmup_steps=1"]
    assert sweep.main(["quickstart", "--dry-run", *given]) == 0
    asked = capsys.readouterr().out
    assert not store.exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sweep.devices, "prepare", lambda mesh, batch, cache_dir: None)
        assert sweep.main(["quickstart", *given]) == 0
    rows = results.read(store / "quickstart-smoke" / results.FILE)
    assert {row["condition"]["retry_rate"] for row in rows} == {0.0, 0.5}
    model = run_lib.load(directory).settings.model
    for name in {row["run"] for row in rows}:
        assert f"\n{name}: to do" in asked
        assert run_lib.load(store / "models" / name).settings.model == model
    assert len(list((store / "models").glob("adopted,*"))) == 1


def test_bad_input(exported, tmp_path, capsys):
    _, directory, out = exported

    def said(command, *arguments):
        assert command.main([*map(str, arguments)]) == 2
        text = capsys.readouterr().err
        assert text.count("\n") == 1
        return text

    assert "which is not empty" in said(export, directory, "--out", out)
    text = said(export, directory, "--out", tmp_path / "a", "--step", "5")
    assert text.startswith("--step is '5'; it must be final, best, or one of")
    # Nor is a directory left that was made for it.
    said(export, directory, "--out", tmp_path / "b" / "c" / "d", "--step", "5")
    assert not (tmp_path / "b").exists()
    text = said(export, tmp_path, "--out", tmp_path / "a")
    assert "is not the directory of a run" in text
    assert "must be float32 with --plain npz" in said(
        export, directory, "--out", tmp_path / "a", "--plain", "npz", "--dtype", "bfloat16"
    )
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    store = tmp_path / "store"
    assert "no config.json" in said(adopt, foreign, "--workdir", store)
    content = json.loads((out / "config.json").read_text())
    for change, sentence in [
        ({"architectures": "LlamaForCausalLM"}, "it must be a list, as ['LlamaForCausalLM']"),
        ({"architectures": ["BertModel"]}, "architectures is 'BertModel'; it must be one of"),
        ({"vocab_size": content["vocab_size"] + 1}, "it must be that of the class of problems"),
        ({"intermediate_size": content["intermediate_size"] + 8}, "has the shape"),
    ]:
        (foreign / "config.json").write_text(json.dumps(content | change))
        for name in ("physlm.json", "model.safetensors"):
            (foreign / name).write_bytes((out / name).read_bytes())
        assert sentence in said(adopt, foreign, "--workdir", store)
    (foreign / "config.json").write_text(json.dumps(content))
    (foreign / "model.safetensors").write_bytes(b"no tensors")
    assert "model.safetensors cannot be read" in said(adopt, foreign, "--workdir", store)
    assert not list(store.rglob("config.json")) and not (tmp_path / "a").exists()


def test_missing_packages_are_named(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    assert export.main([str(trained[1]), "--out", str(tmp_path / "a")]) == 2
    said = capsys.readouterr().err
    assert said == "the package transformers is missing: pip install 'physlm[export]'.\n"


@pytest.mark.parametrize("kind", ["npz", "safetensors"])
def test_plain_parameters_are_those_of_the_run(trained, tmp_path, kind):
    out = tmp_path / "plain"
    assert export.main([str(trained[1]), "--out", str(out), "--plain", kind]) == 0
    index = json.loads((out / "index.json").read_text())
    if kind == "npz":
        arrays = dict(np.load(out / "params.npz", allow_pickle=False))
    else:
        arrays = safetensors.numpy.load_file(out / "params.safetensors")
    run = run_lib.load(pathlib.Path(trained[1]))
    params, _ = weights.joined(run, trained[1], weights.restored(run, trained[1], "final"))
    want = flatten_dict(params, sep="/")
    assert set(arrays) == set(index["arrays"]) == set(want)
    for name, x in arrays.items():
        np.testing.assert_array_equal(x, want[name], err_msg=name)
        assert index["arrays"][name] == {"shape": list(x.shape), "dtype": "float32"}
    assert index["model"]["layers"] == run.settings.model.layers
    assert (index["run"], index["step"]) == (run.name, 6)
    table = tokenizer(run.settings.data)
    assert "".join(index["vocabulary"]).encode() == b"".join(table.pieces)
    assert len(index["vocabulary"]) == arrays["embed/embedding"].shape[0] == table.size
    modes = {path.stat().st_mode for path in out.iterdir()}
    (tmp_path / "another").write_text("")
    assert modes == {(tmp_path / "another").stat().st_mode}


def test_plain_parameters_of_half_the_bytes(trained, tmp_path):
    out, whole = tmp_path / "half", tmp_path / "whole"
    command = [str(trained[1]), "--plain", "safetensors", "--out"]
    assert export.main([*command, str(whole)]) == 0
    assert export.main([*command, str(out), "--dtype", "bfloat16"]) == 0
    halves = safetensors.torch.load_file(out / "params.safetensors")
    index = json.loads((out / "index.json").read_text())
    assert {said["dtype"] for said in index["arrays"].values()} == {"bfloat16"}
    for name, x in safetensors.torch.load_file(whole / "params.safetensors").items():
        assert halves[name].dtype == torch.bfloat16
        torch.testing.assert_close(halves[name], x.bfloat16(), rtol=0, atol=0, msg=name)


def test_no_version_of_numpy_adds_an_array(tmp_path, monkeypatch):
    """Before 2.2 it took all that `savez` is given by name for arrays."""
    real = np.savez

    def older(file, **arrays):
        real(file, **{name.replace("allow_pickle", "allow_pickle_"): x for name, x in
                      arrays.items()})  # fmt: skip

    monkeypatch.setattr(np, "savez", older)
    arrays = {"a/b": np.arange(3.0), "c": np.ones((2, 2), np.float32)}
    plain._write_npz(tmp_path / "some.npz", arrays)
    with np.load(tmp_path / "some.npz", allow_pickle=False) as found:
        assert set(found.files) == set(arrays)
        for name, x in arrays.items():
            np.testing.assert_array_equal(found[name], x)
            assert found[name].dtype == x.dtype


@pytest.mark.parametrize("kind", ["gpt2", *MODELS])
def test_adapters_change_the_exported_model_as_they_do_here(kind, tmp_path, monkeypatch, capsys):
    """The check of the command itself compares them; here, that it would see a difference."""
    model = MODELS.get(kind, ("model.variant=gpt2", "model.canon="))
    workdir = tmp_path / "runs"
    swept(workdir, *model)
    (parent,) = (workdir / "models").iterdir()
    swept(workdir, *model, f"parent.run={parent.name}", "adaptation.kind=lora",
          "adaptation.rank=3", "adaptation.alpha=7", "optimizer.learning_rate=0.1",
          "adaptation.on=attention/(query|value)/kernel,embed/embedding:2,mlp/up/kernel"
          )  # fmt: skip
    (child,) = (path for path in (workdir / "models").iterdir() if path != parent)
    base = tmp_path / "base"
    assert export.main([str(parent), "--out", str(base)]) == 0
    out = tmp_path / "adapter"
    assert export.main([str(child), "--out", str(out), "--adapter", str(base)]) == 0
    names = {path.name for path in out.iterdir()}
    factors = {"adapter_config.json", "adapter_model.safetensors", "README.md"}
    assert names == factors | {"tokenizer.json", "tokenizer_config.json"}
    card = (out / "README.md").read_text()
    assert 'library_name: peft\nbase_model: "base"\n' in card and "- lora\n" in card
    said = safetensors.numpy.load_file(out / "adapter_model.safetensors").values()
    assert f"Low-rank factors of {sum(x.size for x in said):,} numbers" in card
    assert len({path.stat().st_mode for path in out.iterdir()}) == 1
    with monkeypatch.context() as patch:
        printed = printed_by_its_card(out, patch, capsys)
    assert printed.startswith("<|problem|>")
    tensors = safetensors.numpy.load_file(out / "adapter_model.safetensors")
    embedded = next(name for name in tensors if "embedding_A" in name)
    safetensors.numpy.save_file(
        {**tensors, embedded: tensors[embedded] + 0.1}, out / "adapter_model.safetensors"
    )
    whole = tmp_path / "whole"
    assert export.main([str(child), "--out", str(whole)]) == 0
    peft = pytest.importorskip("peft", reason="needs physlm[export]")
    load = transformers.AutoModelForCausalLM.from_pretrained
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        merged = load(whole, trust_remote_code=True)(tokens).logits
        changed = peft.PeftModel.from_pretrained(load(base, trust_remote_code=True), out)(tokens)
        plain = load(base, trust_remote_code=True)(tokens).logits
    assert (merged - plain).abs().max() > 1e-2
    assert (merged - changed.logits).abs().max() > 1e-3
    capsys.readouterr()
    assert export.main([str(parent), "--out", str(tmp_path / "b"), "--adapter", str(base)]) == 2
    assert "is no LoRA" in capsys.readouterr().err
    content = json.loads((base / "config.json").read_text())
    other = tmp_path / "other"
    for wrong, why in [
        (whole, "which holds other weights"),
        ({"dtype": torch.bfloat16}, "whose weights are rounded"),
        ({"config": {"num_hidden_layers": 7}}, "which holds another architecture"),
    ]:
        if isinstance(wrong, dict):
            shutil.rmtree(other, ignore_errors=True)
            shutil.copytree(base, other)
            (other / "config.json").write_text(json.dumps(content | wrong.get("config", {})))
            tensors = safetensors.torch.load_file(base / "model.safetensors")
            halves = {name: x.to(wrong.get("dtype", x.dtype)) for name, x in tensors.items()}
            safetensors.torch.save_file(halves, other / "model.safetensors")
            wrong = other
        command = [str(child), "--out", str(tmp_path / "c"), "--adapter", str(wrong)]
        assert export.main(command) == 2
        assert capsys.readouterr().err == (
            f"--adapter is {wrong}, {why}; it must be what export writes of the LoRA's parent, "
            f"{parent.name}, in float32.\n"
        )
        assert not (tmp_path / "c").exists()
