"""Exported tokenizers: every document's text is its ids, and its ids are its text."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest
from drawn import SMALL, written

from data_gen.solutions.mistakes import Mistakes
from data_gen.windows import gpt2
from data_gen.windows.table import encode as encode_document
from data_gen.windows.tokenizer import tokenizer

pytest.importorskip("transformers", minversion="5.14", reason="needs physlm[export]")
from physlm.huggingface import tokens

import tokenizers  # isort: skip
import transformers  # isort: skip

MISTAKES = Mistakes(rate=0.4, mend="restart:0.3,fix:0.3,back:0.4")


@pytest.fixture(scope="module")
def byte_pairs(tmp_path_factory):
    """A small vocabulary in GPT-2's layout that merges bytes of the markers too."""
    found = tmp_path_factory.mktemp("gpt2")
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    texts = [" The number of each Library equals", " Define Book as", "“”‘’" * 50]
    made.train_from_iterator(texts * 20, trainer)
    made.model.save(str(found))
    vocab = json.loads((found / "vocab.json").read_text())
    markers = {text for text, i in vocab.items() if i in gpt2.MARKER_IDS}
    merges = (found / "merges.txt").read_text().splitlines()
    assert any(markers & set(merge) for merge in merges), "nothing has to be left out"
    vocab[gpt2.END_TOKEN] = len(vocab)
    (found / "vocab.json").write_text(json.dumps(vocab))
    return found


@pytest.mark.parametrize("kind", ["word", "parameter", "gpt2"])
def test_documents_are_read_back(kind, tmp_path, request):
    files = str(request.getfixturevalue("byte_pairs")) if kind == "gpt2" else ""
    spec = dataclasses.replace(SMALL, tokenizer=kind, tokenizer_files=files)
    table = tokenizer(spec)
    _, symbols = written(SMALL, MISTAKES)
    encode = jax.jit(jax.vmap(functools.partial(encode_document, table=table, size=2048)))
    documents = jax.tree.map(np.asarray, encode(symbols))
    assert documents.length.max() <= 2048
    ids = tokens.write(spec, tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert len(theirs) == table.size or kind == "gpt2"
    assert ids == {"eos_token_id": table.end, "pad_token_id": table.end}
    assert theirs.eos_token_id == theirs.pad_token_id == table.end
    for tokens_N, length in zip(documents.tokens_N[:200], documents.length[:200], strict=True):
        want_N = tokens_N[:length]
        text = table.decode(want_N)
        assert theirs.decode(want_N.tolist()) == text
        np.testing.assert_array_equal(theirs(text)["input_ids"], want_N)
    prompt = table.decode(documents.tokens_N[0, : documents.prompt[0]])
    assert theirs.decode(theirs(prompt)["input_ids"], skip_special_tokens=True) in prompt


def test_a_text_of_another_world_is_no_guess(tmp_path):
    tokens.write(SMALL, tmp_path)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    with pytest.raises(Exception, match="UNK"):
        theirs("It was a dark and stormy night.")


def test_a_vocabulary_of_two_tokens_with_one_text_is_refused(monkeypatch):
    table = tokenizer(SMALL)
    pieces = (*table.pieces[:-1], table.pieces[-2])
    monkeypatch.setattr(tokens, "tokenizer", lambda _: dataclasses.replace(table, pieces=pieces))
    with pytest.raises(ValueError) as refused:
        tokens.fast(SMALL)
    last = len(pieces) - 1
    text = pieces[-1].decode()
    assert str(refused.value) == (
        f"token {last} of the vocabulary has the text of token {last - 1}, {text!r}: "
        "no tokenizer can hold it."
    )
