"""The example of analysis: what models would name next."""

import csv
import pathlib
import runpy

import hypothesis
import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import strategies as st
from test_again import swept

import physlm
from physlm import analysis

SCRIPT = pathlib.Path(__file__).parents[1] / "experiments" / "examples" / "next_names.py"
example = runpy.run_path(str(SCRIPT))
RIGHT, NEEDLESS, EARLY = (example[name] for name in ("RIGHT", "NEEDLESS", "EARLY"))

# Two problems, the second of one step; three parameters.
KIND = np.array([[[RIGHT, EARLY, EARLY], [-1, RIGHT, NEEDLESS]], [[EARLY, RIGHT, -1]] * 2])
CHANCE = np.array([[[0.5, 0.2, 0.1], [0.1, 0.3, 0.6]], [[0.7, 0.2, 0], [np.nan] * 3]])


def test_each_kind_has_its_share_of_the_probability():
    found = example["steps"](KIND, CHANCE[None])
    assert found.there_NxX.tolist() == [[True, True], [True, False]]
    assert found.early_NxX.tolist() == [[2, 0], [1, 1]]
    want = [[[0.5, 0, 0.3], [0.3, 0.6, 0]], [[0.2, 0, 0.7], [0, 0, 0]]]
    np.testing.assert_allclose(found.share_SxNxXxC[0], want)
    # The likeliest of the second step is needless, and not early.
    assert found.first_SxNxX[0].tolist() == [[False, False], [True, False]]


def test_mixed_with_mistakes_each_early_one_has_an_equal_part_of_the_rate():
    found = example["steps"](KIND, CHANCE[None], 0.5)
    # Where nothing is early, as at the second step, nothing is mixed.
    want = [[[0.25, 0, 0.65], [0.3, 0.6, 0]], [[0.1, 0, 0.85], [0, 0, 0]]]
    np.testing.assert_allclose(found.share_SxNxXxC[0], want)
    # 0.5 * 0.2 + 0.5 / 2 = 0.35 is more than 0.5 * 0.5.
    assert found.first_SxNxX[0].tolist() == [[True, False], [True, False]]


@hypothesis.given(
    arrays.arrays(float, (3, 5, 4), elements=st.sampled_from([0.0, 0.25, 0.6, 1.0])),
    arrays.arrays(bool, (5, 4)).filter(lambda chosen: chosen.any()),
)
def test_means_are_over_steps_whatever_problems_have_of_them(values_SxNxX, chosen_NxX):
    found, low, high = example["mean"](values_SxNxX, chosen_NxX)
    assert found == pytest.approx(values_SxNxX[:, chosen_NxX].mean(), abs=1e-9)
    assert low <= found + 1e-9 and found - 1e-9 <= high


@hypothesis.given(st.lists(st.integers(0, 12), min_size=1).filter(any))
def test_groups_hold_every_number_once(numbers):
    found = example["groups"](np.array(numbers))
    assert sorted(n for low, high in found for n in range(low, high + 1)) == list(
        range(found[0][0], max(numbers) + 1)
    )
    assert found[0][0] <= min(n for n in numbers if n)


def test_where_nothing_is_early_there_is_no_table():
    with pytest.raises(ValueError, match="has a parameter that is too early"):
        example["groups"](np.zeros(5, int))


@pytest.fixture(scope="module", autouse=True)
def leave_jax_alone():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analysis.devices, "prepare", lambda mesh, batch, cache_dir=None: None)
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Models that read a token a word, and a token a parameter."""
    workdir = tmp_path_factory.mktemp("runs")
    for tokens in ("word", "parameter"):
        swept(workdir, f"data.tokenizer={tokens}")
    return {
        physlm.load(path).run.settings.data.tokenizer: path
        for path in (workdir / "models").iterdir()
    }


@pytest.mark.slow
@pytest.mark.parametrize("tokens", ["word", "parameter"])
def test_a_name_is_as_likely_as_its_tokens_after_the_text_before_it(trained, tokens):
    run = physlm.load(trained[tokens])
    texts = run.texts(3, mistakes=example["ERROR_FREE"])
    chance_NxXxP = example["chances"](run, texts)
    kind_NxXxP = example["kinds"](texts)
    compared = 0
    for n, record in enumerate(texts.records):
        known: set[str] = set()
        sentences = record["solution"].split(".")[:-1]
        for step, sentence in enumerate(sentences):
            at = np.flatnonzero(texts.tokens.step_N[n] == step)
            for slot, name in enumerate(texts.names[n]):
                if not name:
                    assert kind_NxXxP[n, step, slot] == -1 and np.isnan(chance_NxXxP[n, step, slot])
                    continue
                # The text up to the word Define, and the name after it.
                inside = texts.asked_NxPxA[n, slot, 1 : texts.asked_NxP[n, slot] - 1]
                text = [*texts.tokens_NxT[n, : at[0] + 1], *inside]
                assert run.decode(text).endswith(f" Define {name}")
                logits_TxV = run.read([text]).logits_NxTxV[0].astype(float)
                log_TxV = logits_TxV - np.log(np.exp(logits_TxV).sum(-1, keepdims=True))
                want = np.exp(sum(log_TxV[at[0] + j, token] for j, token in enumerate(inside)))
                assert chance_NxXxP[n, step, slot] == pytest.approx(want, rel=1e-4)
                compared += 1
                named = sentence.startswith(f" Define {name} as")
                assert not named or kind_NxXxP[n, step, slot] == RIGHT
                assert (kind_NxXxP[n, step, slot] == -1) == (name in known)
            known.add(sentence.split(" Define ")[1].split(" as ")[0])
        assert np.isnan(chance_NxXxP[n, len(sentences) :]).all()
    assert compared > 20


@pytest.mark.slow
def test_texts_are_read_in_parts(trained, monkeypatch):
    run = physlm.load(trained["word"])
    texts = run.texts(3, mistakes=example["ERROR_FREE"])
    whole = example["chances"](run, texts)
    few = 4 * int(texts.length_N.max()) * run.run.settings.model.vocab
    monkeypatch.setitem(example["chances"].__globals__, "_AT_ONCE", few)
    sizes = []
    monkeypatch.setattr(
        analysis.Loaded, "read", lambda self, x, read=run.read: sizes.append(len(x)) or read(x)
    )
    np.testing.assert_allclose(example["chances"](run, texts), whole, rtol=1e-4)
    assert len(sizes) > 1 and len(set(sizes)) == 1


@pytest.mark.slow
def test_the_command_writes_a_table_and_a_figure(trained, tmp_path, capsys):
    run = str(trained["parameter"])
    example["main"]([run, run, "--op", "2", "--problems", "8", "--mixed", "0.5", "--out",
                     str(tmp_path)])  # fmt: skip
    said = capsys.readouterr().out
    with (tmp_path / "names.csv").open() as file:
        rows = list(csv.DictReader(file))
    plain, mixed = (row for row in rows if row["early_to"] == "0")
    assert plain["models"] == "2" and "mixed with mistakes at 0.5" in mixed["condition"]
    assert float(mixed["early"]) > float(plain["early"]) + 20
    assert plain["condition"] in said
    assert (tmp_path / "names.png").stat().st_size > 10_000


@pytest.mark.slow
def test_bad_input(trained, tmp_path, capsys, monkeypatch):
    run = str(trained["parameter"])
    for arguments, sentence in [
        ([str(tmp_path)], "is not the directory of a run"),
        ([run, "--mixed", "1"], "--mixed is 1; it must be at least 0 and below 1."),
        ([run, str(trained["word"])], "has problems of another class than"),
        ([run, "--problems", "0"], "count is 0; it must be at least 1."),
    ]:
        with pytest.raises(SystemExit):
            example["main"]([*arguments, "--out", str(tmp_path / "out")])
        assert sentence in " ".join(capsys.readouterr().err.split())
        assert not (tmp_path / "out").exists()
