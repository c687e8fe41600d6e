"""Arrays for analysis: those of the model, aligned with what is true of the problem."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from test_again import swept

import physlm
from data_gen.solutions.mistakes import Mistakes
from physlm import analysis, export, model, probe
from physlm.experiments import run as run_lib
from physlm.huggingface import mapping

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture(scope="module", autouse=True)
def leave_jax_alone():
    with pytest.MonkeyPatch.context() as patch:
        for room in (analysis, export):
            patch.setattr(room.devices, "prepare", lambda mesh, batch, cache_dir=None: None)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model with Canon layers, and a probe of it."""
    workdir = tmp_path_factory.mktemp("runs")
    swept(workdir, "model.canon=AC", "data.tokenizer=parameter")
    (parent,) = (workdir / "models").iterdir()
    swept(workdir, "model.canon=AC", "data.tokenizer=parameter", f"parent.run={parent.name}",
          "adaptation.kind=probe", "adaptation.on=embed/embedding",
          "adaptation.rank=2", "optimizer.name=adamw")  # fmt: skip
    (of_it,) = (path for path in (workdir / "models").iterdir() if path != parent)
    return parent, of_it


@pytest.fixture(scope="module")
def loaded(trained):
    return physlm.load(str(trained[0]))


def test_what_is_read_is_what_the_model_computes(loaded):
    texts = loaded.texts(6)
    read = loaded.read(texts.tokens_NxT, attention=True)
    config = loaded.run.settings.model
    logits = model.apply(config, loaded.params, texts.tokens_NxT)
    np.testing.assert_allclose(read.logits_NxTxV, logits, atol=2e-5)
    assert read.hidden_MxNxTxD.shape[0] == config.layers + 1
    embedded = loaded.params["embed"]["embedding"][texts.tokens_NxT]
    np.testing.assert_allclose(read.hidden_MxNxTxD[0], embedded, atol=1e-6)
    head = read.last_NxTxD @ loaded.params["head"]["kernel"]
    np.testing.assert_allclose(head, read.logits_NxTxV, atol=2e-5)
    maps = read.attention_LxNxHxTxT
    assert maps.shape == (config.layers, 6, config.heads, *texts.tokens_NxT.shape[1:] * 2)
    np.testing.assert_allclose(maps.sum(-1), 1, atol=1e-5)
    assert not np.triu(maps, 1).any()
    assert loaded.read(texts.tokens_NxT).attention_LxNxHxTxT is None


def test_states_and_attention_are_those_of_another_implementation(loaded):
    torch = pytest.importorskip("torch", reason="needs physlm[export]")
    pytest.importorskip("transformers", minversion="5.14", reason="needs physlm[export]")
    from physlm.huggingface.remote import configuration_physlm, modeling_physlm

    config = loaded.run.settings.model
    content = mapping.hf_config(config)
    theirs = modeling_physlm.PhyslmForCausalLM(configuration_physlm.PhyslmConfig(**content))
    tensors = mapping.state_dict(config, loaded.params)
    theirs.load_state_dict({name: torch.tensor(x) for name, x in tensors.items()})
    texts = loaded.texts(4)
    read = loaded.read(texts.tokens_NxT, attention=True)
    with torch.no_grad():
        out = theirs.eval()(
            torch.tensor(texts.tokens_NxT).long(), output_hidden_states=True, output_attentions=True
        )
    for ours, want in zip(read.hidden_MxNxTxD[:-1], out.hidden_states[:-1], strict=True):
        np.testing.assert_allclose(ours, want.numpy(), atol=1e-5)
    np.testing.assert_allclose(read.last_NxTxD, out.hidden_states[-1].numpy(), atol=2e-5)
    for ours, want in zip(read.attention_LxNxHxTxT, out.attentions, strict=True):
        np.testing.assert_allclose(ours, want.numpy(), atol=1e-5)


def test_texts_are_aligned_with_what_is_true(loaded):
    """Read off the text itself, sentence by sentence."""
    texts = loaded.texts(12, mistakes=Mistakes(rate=0.5))
    steps = 0
    for n, record in enumerate(texts.records):
        length, prompt = texts.length_N[n], texts.prompt_N[n]
        whole = loaded.decode(texts.tokens_NxT[n, :length])
        assert record["problem"] in whole and record["solution"] in whole
        assert whole[: len(loaded.decode(texts.tokens_NxT[n, :prompt]))].endswith("<|solution|>")
        known = set()
        for moment in range(texts.labels.known_XxP.shape[1]):
            at = np.flatnonzero(texts.tokens.step_N[n, :length] == moment)
            if not len(at):
                continue
            steps += 1
            sentence = loaded.decode(texts.tokens_NxT[n, at])
            slot = texts.tokens.slot_N[n, at[0]]
            name = texts.names[n][slot]
            assert sentence.startswith(f" Define {name} as ")
            row = {texts.names[n][p] for p in np.flatnonzero(texts.labels.known_XxP[n, moment])}
            assert row == known
            assert texts.labels.can_next_XxP[n, moment, slot]
            assert sentence.rstrip(".").endswith(f" {texts.labels.value_XxP[n, moment + 1, slot]}")
            known.add(name)
    assert steps > 10


def test_a_number_of_texts_changes_none(loaded):
    few, many = loaded.texts(3), loaded.texts(5)
    np.testing.assert_array_equal(few.tokens_NxT, many.tokens_NxT[:3])
    assert all(record["op"] == 2 for record in loaded.texts(4, op=2).records)


def test_a_step_is_a_number_or_its_text(trained):
    last = run_lib.last_step(trained[0])
    for step in (last, str(last)):
        assert physlm.load(trained[0], step).run.name == trained[0].name
    with pytest.raises(ValueError, match="must be final, best, or one of"):
        physlm.load(trained[0], 3)


def test_bad_input(loaded, tmp_path):
    for call, sentence in [
        (lambda: physlm.load(tmp_path), "is not the directory of a run"),
        (lambda: loaded.texts(0), "count is 0; it must be at least 1."),
        (lambda: loaded.read([1, 2]), "it must be [N, T]"),
        (lambda: loaded.read([[1, 2], [3]]), "different lengths; pad them on the right"),
        (lambda: loaded.read([[0, 10_000]]), "tokens are in 0..10000; they must be in 0.."),
    ]:
        with pytest.raises(ValueError) as refused:
            call()
        assert sentence in str(refused.value)


@pytest.mark.parametrize("apart", [False, True])
def test_a_probe_in_pytorch_alone_says_what_ours_says(trained, loaded, tmp_path, apart):
    pytest.importorskip("transformers", minversion="5.14", reason="needs physlm[export]")
    from safetensors.numpy import load_file, save_file

    parent, of_it = trained
    assert export.main([str(parent), "--out", str(tmp_path / "model")]) == 0
    assert export.main([str(of_it), "--out", str(tmp_path / "no")]) == 2
    arguments = ["--out", str(tmp_path / "probe"), "--plain", "safetensors"]
    assert export.main([str(of_it), *arguments]) == 0
    texts = loaded.texts(3)
    lines = [json.dumps({"id": n, **record}) for n, record in enumerate(texts.records)]
    (tmp_path / "problems.jsonl").write_text("\n".join(lines))
    joined = physlm.load(of_it).params
    if apart:
        # As where texts are read by the frozen model.
        joined = {**joined, "document": physlm.load(parent).params}
        file = tmp_path / "probe" / "params.safetensors"
        given = joined["document"]["embed"]["embedding"]
        save_file({**load_file(file), "document/embed/embedding": given}, file)
    script = ROOT / "experiments" / "examples" / "probe_in_pytorch.py"
    command = [sys.executable, str(script), "model", "probe", "problems.jsonl"]
    # Without this project on its path.
    done = subprocess.run(
        [*command], cwd=tmp_path, capture_output=True, text=True, check=True, env={"PATH": ""}
    )
    said = [json.loads(line) for line in done.stdout.splitlines()]
    detect = probe.detector(run_lib.load(parent).settings.model, joined)
    compared = 0
    for line in said:
        n = line["id"]
        before = texts.tokens.moment_N[n]
        ends = np.flatnonzero(
            (before == line["after"]) & (np.arange(len(before)) >= texts.prompt_N[n])
        )
        for name, share in line["can_next"].items():
            slot = texts.names[n].index(name)
            want = detect(
                texts.tokens_NxT[n : n + 1],
                ends[None, :1].astype(np.int32),
                texts.asked_NxPxA[n, slot][None, None],
                texts.asked_NxP[n, slot][None, None],
            )
            assert share == pytest.approx(float(want[0, 0]), abs=2e-4)
            compared += 1
    assert compared > 8
