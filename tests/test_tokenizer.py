"""Tokenizers: GPT-2's byte pairs are those of whole texts, and everything works with them."""

import dataclasses
import functools
import json
import shutil
import sys

import jax
import numpy as np
import pytest
from drawn import COUNT, SMALL
from test_stream import pack_slowly

from data_gen import keys
from data_gen.keys import Purpose
from data_gen.solutions import document, language
from data_gen.solutions.mistakes import Mistakes
from data_gen.spec import MED
from data_gen.text import records
from data_gen.windows import gpt2, stream
from data_gen.windows import tokenizer as room
from data_gen.windows.configuration import Windows, shortest_document
from physlm.experiments import config, execution, judging, registry, run, sweep
from physlm.experiments.evaluation import Evaluation
from physlm.experiments.store import Store

pytestmark = pytest.mark.slow

tokenizers = pytest.importorskip("tokenizers", reason="needs physlm[gpt2]")

SIZE = 512  # holds every document of the class, in symbols and in tokens
WINDOW = 224
MISTAKES = Mistakes(rate=0.5)


@pytest.fixture(scope="module")
def written():
    """The first documents of 32 segments, in symbols: (records, documents) as NumPy."""
    keys_QxD = stream._chunk_keys(
        keys.root(0, Purpose.TRAINING), np.arange(COUNT // stream.CHUNK), np.int32(0)
    )
    keys_N = keys_QxD.reshape(-1)
    problems = stream.problems(keys_N, spec=SMALL)
    write = functools.partial(stream.documents, size=SIZE, spec=SMALL, mistakes=MISTAKES)
    symbols = jax.jit(write)(keys_N, problems)
    problems, symbols = jax.tree.map(np.asarray, (problems, symbols))
    return records.records(problems, symbols, SMALL), symbols


@pytest.fixture(scope="module")
def directory(written, tmp_path_factory):
    """A small vocabulary in GPT-2's layout: 256 bytes, merges, and the end marker last."""
    found = tmp_path_factory.mktemp("gpt2")
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=420,
        show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    texts = [record[part] for record in written[0] for part in ("problem", "solution")]
    backend.train_from_iterator(texts, trainer)
    backend.model.save(str(found))
    vocab = json.loads((found / "vocab.json").read_text())
    vocab[gpt2.END_TOKEN] = len(vocab)
    (found / "vocab.json").write_text(json.dumps(vocab))
    return found


@pytest.fixture(scope="module")
def backend(directory):
    """The package's own reading of the files, for whole texts."""
    found = tokenizers.ByteLevelBPETokenizer.from_file(
        str(directory / "vocab.json"), str(directory / "merges.txt")
    )
    return lambda text: found.encode(text).ids


@pytest.fixture(scope="module")
def spec(directory):
    return dataclasses.replace(SMALL, tokenizer="gpt2", tokenizer_files=str(directory))


@pytest.fixture(scope="module")
def made(written, spec):
    """The same with what they are in tokens: (records, symbols, tokens)."""
    found, symbols = written
    tokens = jax.jit(functools.partial(stream.encoded, size=SIZE, spec=spec))(symbols)
    tokens = jax.tree.map(np.asarray, tokens)
    assert max(symbols.length.max(), tokens.length.max()) <= SIZE
    return found, symbols, tokens


def by_hand(record, encode, table):
    """(prompt, rest): the ids of a document's texts between the paper's markers."""
    answer = encode(f" {record['answer']}")
    prompt = [222, *encode(record["problem"] + record["question"]), 223]
    return prompt, [*encode(record["solution"]), 224, *answer, table.end]


def test_words_are_their_own_tokens(made):
    _, symbols, _ = made
    table, vocab = room.tokenizer(SMALL), language.vocabulary(SMALL)
    expand = functools.partial(stream.encoded, size=SIZE, spec=SMALL)
    assert not jax.make_jaxpr(expand)(symbols).eqns, "there is nothing to do"
    assert (table.size, table.problem, table.solution, table.answer, table.end) == (
        vocab.size, vocab.problem, vocab.solution, vocab.answer, vocab.end,
    )  # fmt: skip
    ids = [*symbols.tokens_N[0], -1, vocab.size]
    assert table.decode(ids) == vocab.decode(ids)


def test_tokens_read_as_the_text_and_are_those_of_the_whole_text(made, spec, backend):
    found, symbols, tokens = made
    table, vocab = room.tokenizer(spec), language.vocabulary(SMALL)
    several = 0
    for n in range(COUNT):
        ids = tokens.tokens_N[n, : tokens.length[n]].tolist()
        assert table.decode(ids) == vocab.decode(symbols.tokens_N[n, : symbols.length[n]])
        if n < 128:
            prompt, rest = by_hand(found[n], backend, table)
            assert ids == prompt + rest
            assert tokens.prompt[n] == len(prompt)
        several += "BACK" in found[n]["solution"]
    assert several > 50
    assert tokens.length.mean() > 1.3 * symbols.length.mean()


def test_roles_and_sentences_go_with_the_tokens(made, spec):
    _, symbols, tokens = made
    table, vocab = room.tokenizer(spec), language.vocabulary(SMALL)
    seen = set()
    for n in range(64):
        for field in ("role_N", "sentence_N"):
            theirs, ours = getattr(symbols, field)[n], getattr(tokens, field)[n]
            for value in np.unique(theirs[: symbols.length[n]]):
                of_symbols = np.flatnonzero(theirs[: symbols.length[n]] == value)
                of_tokens = np.flatnonzero(ours[: tokens.length[n]] == value)
                text = vocab.decode(symbols.tokens_N[n, of_symbols])
                assert table.decode(tokens.tokens_N[n, of_tokens]) == text
                seen.add((field, int(value)))
        after = slice(tokens.length[n], None)
        assert (tokens.tokens_N[n, after] == table.end).all()
        assert (tokens.role_N[n, after] == document.OUTSIDE).all()
        assert (tokens.sentence_N[n, after] == -1).all()
    assert {("role_N", role) for role in range(1, 7)} | {("sentence_N", 1)} <= seen


def test_what_has_no_room_is_told_by_length(made, spec):
    _, symbols, tokens = made
    short = stream.encoded(symbols, size=100, spec=spec)
    np.testing.assert_array_equal(short.length, tokens.length)
    np.testing.assert_array_equal(short.prompt, tokens.prompt)
    np.testing.assert_array_equal(short.tokens_N, tokens.tokens_N[:, :100])
    cut = symbols._replace(
        **{field: getattr(symbols, field)[:, :60] for field in ("tokens_N", "role_N", "sentence_N")}
    )
    assert (symbols.length > 60).any()
    for size in (60, SIZE):
        length = np.asarray(stream.encoded(cut, size=size, spec=spec).length)
        np.testing.assert_array_equal(
            length[symbols.length <= 60], tokens.length[symbols.length <= 60]
        )
        assert (length[symbols.length > 60] > size).all()


def test_windows_are_the_encoded_texts_packed(made, spec, backend):
    found, _, _ = made
    table = room.tokenizer(spec)
    packed = stream.segments(
        keys.root(0, Purpose.TRAINING),
        np.arange(COUNT // stream.CHUNK, dtype=np.int32),
        spec=spec,
        mistakes=MISTAKES,
        windows=Windows(WINDOW, loss_on="solution"),
    )
    full = 0
    for segment in range(8):
        rows = found[segment * stream.CHUNK : (segment + 1) * stream.CHUNK]
        parts = [by_hand(record, backend, table) for record in rows]
        tokens, weights, window, _ = pack_slowly(
            [prompt + rest for prompt, rest in parts],
            [[0.0] * len(prompt) + [1.0] * len(rest) for prompt, rest in parts],
            stream.SEGMENT,
            WINDOW + 1,
            False,
        )
        np.testing.assert_array_equal(packed.tokens_KxS[segment, :window], tokens[:window])
        np.testing.assert_array_equal(packed.weights_KxS[segment, :window], weights[:window])
        full += window
    assert full > 16


def test_window_is_checked_in_tokens(made, spec):
    _, _, tokens = made
    shortest = shortest_document(spec)
    assert shortest_document(SMALL) < shortest <= tokens.length.min()
    with pytest.raises(ValueError, match=f"the shortest document of this class has {shortest} tok"):
        Windows(shortest - 2).check(spec)
    Windows(shortest - 1).check(spec)


def test_one_file_and_the_cache_of_transformers_serve_as_well(
    directory, spec, tmp_path, monkeypatch
):
    two = room.tokenizer(spec)
    whole = tokenizers.Tokenizer(
        tokenizers.models.BPE.from_file(
            str(directory / "vocab.json"), str(directory / "merges.txt")
        )
    )
    whole.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    whole.enable_truncation(1)
    snapshot = tmp_path / "models--openai-community--gpt2" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    whole.save(str(snapshot / "tokenizer.json"))
    (tmp_path / "models--openai-community--gpt2" / "refs").mkdir()
    (tmp_path / "models--openai-community--gpt2" / "refs" / "main").write_text("abc")
    hub = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
    # Nothing that other tests have found, or leave to be found.
    monkeypatch.setattr(gpt2, "_load", gpt2._load.__wrapped__)
    monkeypatch.setattr(gpt2, "_gpt2", gpt2._gpt2.__wrapped__)
    for one in (gpt2.gpt2(SMALL, str(snapshot)), gpt2.gpt2(SMALL, "")):
        np.testing.assert_array_equal(one.ids_VxK, two.ids_VxK)
        assert (one.size, one.end, one.pieces) == (two.size, two.end, two.pieces)


def test_missing_files_are_refused(tmp_path, monkeypatch):
    expected = "vocab.json and merges.txt, or tokenizer.json"
    with pytest.raises(ValueError, match=f"it must be a directory with GPT-2's files, {expected}"):
        gpt2.gpt2(SMALL, str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(
        ValueError,
        match=r"tokenizer_files is '.*'; .* of files that can be read [^\n]*\.$",
    ):
        gpt2.gpt2(SMALL, str(tmp_path))
    hub = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "nothing"))
    with pytest.raises(ValueError, match=f"set tokenizer_files to a directory with its {expected}"):
        gpt2.gpt2(SMALL, "")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ValueError, match=r"needs the package tokenizers: pip install 'physlm\[gp"):
        gpt2.gpt2(SMALL, str(tmp_path / "other"))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda vocab: vocab.pop(gpt2.END_TOKEN), "has no <|endoftext|> to end documents with"),
        (
            lambda vocab: vocab.update({gpt2.END_TOKEN: 223, "\u0123": len(vocab) - 1}),
            "<|endoftext|> is 223: the ids 222, 223, 224 are needed",
        ),
        # The comma and GPT-2's byte 222 change places.
        (
            lambda vocab: vocab.update({",": 222, "\u0122": vocab[","]}),
            "the symbol ',' cannot be written with .*: it takes the id 222, which marks documents",
        ),
    ],
)
def test_vocabularies_without_room_for_markers_are_refused(directory, tmp_path, change, complaint):
    vocab = json.loads((directory / "vocab.json").read_text())
    assert vocab["\u0122"] == 222 and vocab["\u0123"] == 223
    change(vocab)
    (tmp_path / "vocab.json").write_text(json.dumps(vocab))
    (tmp_path / "merges.txt").write_text((directory / "merges.txt").read_text())
    with pytest.raises(ValueError, match=complaint.replace("|", r"\|")):
        gpt2.gpt2(SMALL, str(tmp_path))


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        (" St.", r"the symbols ' St\.' and \"'s\" cannot be written with .*: side by side"),
        (" Oak ", r"the symbols ' Oak ' and \"'s\" cannot be written"),
        ("Oak", r"the symbols ' a' and 'Oak' cannot be written"),
        (
            " \u0141\u00f3d\u017a",
            r"the symbol ' Łódź' cannot be written with .*: it takes the id 22",
        ),
    ],
)
def test_symbols_that_texts_are_not_cut_around_are_refused(directory, monkeypatch, name, complaint):
    vocab = language.vocabulary(SMALL)
    changed = dataclasses.replace(vocab, tokens=(*vocab.tokens[:-1], name))
    monkeypatch.setattr(gpt2, "vocabulary", lambda spec: changed)
    with pytest.raises(ValueError, match=complaint):
        gpt2.gpt2(SMALL, str(directory))


def test_vocabulary_that_changes_the_text_is_refused(directory, tmp_path):
    backend = tokenizers.Tokenizer(
        tokenizers.models.BPE.from_file(
            str(directory / "vocab.json"), str(directory / "merges.txt")
        )
    )
    backend.normalizer = tokenizers.normalizers.Lowercase()
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match=r"' The number of each' .*: its ids read ' the number of"):
        gpt2.gpt2(SMALL, str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"tokenizer": "gpt3"}, "tokenizer is 'gpt3'; it must be one of word, parameter, gpt2."),
        ({"tokenizer_files": 3}, "tokenizer_files is 3; it must be the text of a path."),
        (
            {"tokenizer_files": "x"},
            "tokenizer_files is 'x'; it must be empty where tokenizer is not 'gpt2', which alone",
        ),
    ],
)
def test_bad_settings_are_refused(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        dataclasses.replace(SMALL, **changes)


def test_command_line_says_in_one_line_what_is_missing(tmp_path, capsys):
    command = ["--scale", "smoke", "--dry-run", "--workdir", str(tmp_path / "runs"), "--set"]
    assert sweep.main([*command, "data.tokenizer=gpt2", f"data.tokenizer_files={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert "it must be a directory with GPT-2's files" in error and error.count("\n") == 1


def test_a_run_trains_and_is_judged_on_byte_pairs(spec, backend, tmp_path, monkeypatch):
    asked, judged = [], []

    def seen(name, room, calls):
        real = getattr(room, name)

        def call(*args, **settings):
            calls.append((args, settings))
            return real(*args, **settings)

        monkeypatch.setattr(room, name, call)

    seen("decode", judging.evaluate.engine, asked)
    seen("judge_many", judging.evaluate, judged)
    # The class and the windows of the tests above, which are compiled already.
    changes = {
        **{f"data.{key}": getattr(spec, key) for key in config.base("smoke").data},
        "mistakes.rate": MISTAKES.rate,
        "model.layers": 1,
        "optimizer.name": "adamw",
        "train.steps": 6,
        "train.batch": stream.SEGMENT,
        "train.window": WINDOW,
        "evaluate.problems": 4,
        "evaluate.batch": 4,
        "evaluate.beyond": (),
        "evaluate.max_new_tokens": 32,
    }
    shared = registry.configure(registry.load("quickstart"), "smoke")
    one = run.make_run(config.override(shared, changes))
    assert one.settings.data == spec
    # Where the files are is nothing of the run, and what they hold is.
    for name in ("same", "other"):
        shutil.copytree(spec.tokenizer_files, tmp_path / name)
    vocab = json.loads((tmp_path / "other" / "vocab.json").read_text())
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    (tmp_path / "other" / "vocab.json").write_text(json.dumps(vocab))
    same, other = (
        run.make_run(
            config.override(shared, {**changes, "data.tokenizer_files": str(tmp_path / name)})
        )
        for name in ("same", "other")
    )
    assert same.name == one.name != other.name
    table = room.tokenizer(spec)
    assert one.settings.model.vocab == table.size > 256
    task = execution.Task(one, (Evaluation(one.settings.evaluate),))
    assert list(execution.execute([task], Store(tmp_path))) == [(one, None)]
    result = json.loads(min(tmp_path.rglob("result.json")).read_text())
    assert result["step"] == 6 and [cell["n"] for cell in result["cells"]] == [4, 4]
    (found, _, *tested), _ = judged[0]
    (_, _, prompts, lengths), settings = asked[0]
    assert settings["stop"] == table.end
    for row, ids, n in zip(found, prompts, lengths, strict=True):
        text = f"<|problem|>{row['problem']}{row['question']}<|solution|>"
        assert table.decode(ids[:n]) == text
    # A right answer in these tokens is judged right.
    rights = [[*by_hand(row, backend, table)[1], 0] for row in found]
    assert all(verdict.correct for verdict in judging.evaluate.judge_many(found, rights, *tested))
    wrong = [by_hand(dict(row, answer=row["answer"] + 1), backend, table)[1] for row in found]
    assert not any(
        verdict.correct for verdict in judging.evaluate.judge_many(found, wrong, *tested)
    )


def test_known_lengths_are_those_of_gpt2():
    """Where GPT-2 itself is at hand; what it leaves out of a window is tested without it."""
    if gpt2._cached() is None:
        pytest.skip("there is no GPT-2 in the cache of transformers")
    for spec in (SMALL, dataclasses.replace(MED, modulus=256)):
        vocab = language.vocabulary(spec)
        np.testing.assert_array_equal(gpt2.lengths(vocab), gpt2.gpt2(spec, "").lengths_V)
