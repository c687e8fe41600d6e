"""GPT-2's byte pairs: what the symbols of the grammar are in them, and how many they take."""

import functools
import importlib.resources
import json
import pathlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from data_gen.settings import RefusedError
from data_gen.solutions.grammar import BACK, MARKERS, PHRASES
from data_gen.solutions.language import Vocabulary, vocabulary
from data_gen.spec import Spec
from data_gen.windows.table import Tokenizer

if TYPE_CHECKING:
    import tokenizers

# Ids of the markers of problem, solution and answer, as in Part 2.2: bytes of GPT-2's alphabet
# that no English text has. The end is GPT-2's own.
MARKER_IDS = (222, 223, 224)
END_TOKEN = "<|endoftext|>"

_PAIR, _WHOLE = ("vocab.json", "merges.txt"), "tokenizer.json"
_EXPECTED = "vocab.json and merges.txt, or tokenizer.json"
_CACHED_NAMES = ("openai-community/gpt2", "gpt2")

# How many byte pairs each word of the grammar and of the names takes, with the blank before it.
_LENGTHS = "gpt2_lengths.json"


def gpt2(spec: Spec, directory: str) -> Tokenizer:
    """GPT-2's byte pairs, so that documents are as long as in Part 2.2.

    Any byte-level vocabulary with an end marker will do. Nothing is ever downloaded.

    Args:
      spec: whose symbols are to be written.
      directory: with `vocab.json` and `merges.txt`, or `tokenizer.json`; "" takes the GPT-2
        that `transformers` has in its cache.

    Raises:
      ValueError: the package `tokenizers` or the files are missing or cannot be read; or a
        symbol is such that encoding it on its own is not encoding the text around it.
    """
    return _gpt2(vocabulary(spec), directory)


@functools.lru_cache(maxsize=16)
def _gpt2(vocab: Vocabulary, directory: str) -> Tokenizer:
    backend, where = _load(directory)
    known = backend.get_vocab(with_added_tokens=True)
    size = max(known.values(), default=-1) + 1
    if END_TOKEN not in known:
        raise ValueError(f"the vocabulary in {where} has no {END_TOKEN} to end documents with.")
    markers = (*MARKER_IDS, known[END_TOKEN])
    if size <= max(MARKER_IDS) or len(set(markers)) < len(markers):
        raise ValueError(
            f"the vocabulary in {where} has {size} ids and {END_TOKEN} is {markers[-1]}: the ids "
            f"{', '.join(map(str, MARKER_IDS))} are needed for the document markers."
        )
    pieces = [f"<|{i}|>".encode() for i in range(size)]
    alphabet = _alphabet()
    for token, i in known.items():
        # A token outside the alphabet was added to the vocabulary as the text it is.
        inside = all(character in alphabet for character in token)
        pieces[i] = bytes(alphabet[c] for c in token) if inside else token.encode()
    for marker, i in zip(MARKERS, markers, strict=True):
        pieces[i] = marker.encode()

    def write(text: str) -> list[int]:
        return backend.encode(text, add_special_tokens=False).ids

    rows = [[i] for i in markers] + [write(text) for text in vocab.tokens[len(MARKERS) :]]
    width = max(map(len, rows))
    ids_VxK = np.array([row + [-1] * (width - len(row)) for row in rows], np.int32)
    lengths_V = np.array([len(row) for row in rows], np.int32)
    table = Tokenizer(ids_VxK, lengths_V, size, *markers, tuple(pieces))
    _check(vocab, table, backend, where)
    return table


def lengths(vocab: Vocabulary) -> np.ndarray:
    """How many of GPT-2's tokens each symbol takes, int32 [V]: they are known without its files.

    Raises:
      ValueError: for a word that is not among the package's own names.
    """
    # Pairs are merged within a word alone, so that those of words add up.
    known = _lengths_of_words()
    rows = [re.findall(r" ?[^ ]+", text) for text in vocab.tokens[len(MARKERS) :]]
    if unknown := [word for words in rows for word in words if word not in known]:
        raise ValueError(
            f"how many of GPT-2's tokens {unknown[0].strip()!r} takes is known of the package's "
            "own names alone."
        )
    found = [1] * len(MARKERS) + [sum(known[word] for word in words) for words in rows]
    return np.array(found, np.int32)


@functools.cache
def _lengths_of_words() -> dict[str, int]:
    text = importlib.resources.files(__package__).joinpath(_LENGTHS).read_text(encoding="utf-8")
    return {word: int(length) for length, words in json.loads(text).items() for word in words}


def _check(
    vocab: Vocabulary, table: Tokenizer, backend: "tokenizers.Tokenizer", where: pathlib.Path
) -> None:
    """Refuses a symbol that is not read back, or that a text would not be cut around."""
    markers = {table.problem, table.solution, table.answer, table.end}
    for n, symbol in enumerate(vocab.tokens[len(MARKERS) :], start=len(MARKERS)):
        row = table.ids_VxK[n, : table.lengths_V[n]]
        refusal = f"the symbol {symbol!r} cannot be written with the vocabulary in {where}: "
        if taken := markers & set(row.tolist()):
            raise ValueError(f"{refusal}it takes the id {min(taken)}, which marks documents.")
        if (read := table.decode(row)) != symbol:
            raise ValueError(f"{refusal}its ids read {read!r}.")
    for first, second in _neighbours(vocab):
        # Pairs are merged within such a piece alone, so that a cut here is a cut in any text.
        cutter = backend.pre_tokenizer
        pieces = cutter.pre_tokenize_str(first + second) if cutter else []
        if not any(begin == len(first) for _, (begin, _) in pieces):
            raise ValueError(
                f"the symbols {first!r} and {second!r} cannot be written with the vocabulary in "
                f"{where}: side by side they are not cut apart, so that they may be other tokens "
                "than each on its own."
            )


def _neighbours(vocab: Vocabulary) -> Iterator[tuple[str, str]]:
    """Pairs of symbols that stand for all that can stand side by side.

    Where the second begins with a blank, only the end of the first matters and only that
    there is a blank; the phrases without one follow names, numbers, letters and BACK.
    """
    for symbol in vocab.tokens[len(MARKERS) :]:
        yield symbol, " a"
        yield " a", symbol
    for symbol in (BACK, *vocab.tokens[vocab.numbers :]):
        for phrase in PHRASES:
            if not phrase.startswith(" "):
                yield symbol, phrase


def backend(directory: str) -> "tokenizers.Tokenizer":
    """The encoder itself, of the library `tokenizers`; arguments and errors as of `gpt2`."""
    return _load(directory)[0]


@functools.lru_cache(maxsize=4)
def _load(directory: str) -> tuple["tokenizers.Tokenizer", pathlib.Path]:
    """GPT-2's encoder, and the directory that it is from."""
    try:
        import tokenizers
        from tokenizers import models, pre_tokenizers
    except ImportError as error:
        raise ValueError(
            "tokenizer='gpt2' needs the package tokenizers: pip install 'physlm[gpt2]'."
        ) from error
    where = pathlib.Path(directory) if directory else _cached()
    if where is None:
        raise ValueError(
            "tokenizer='gpt2' finds no GPT-2 in the cache of transformers: set tokenizer_files to "
            f"a directory with its {_EXPECTED}."
        )
    if not _complete(where):
        raise RefusedError(
            "tokenizer_files", directory, f"a directory with GPT-2's files, {_EXPECTED}"
        )
    vocab, merges = (where / name for name in _PAIR)
    try:
        if not (vocab.is_file() and merges.is_file()):
            backend = tokenizers.Tokenizer.from_file(str(where / _WHOLE))
            backend.no_truncation()
            backend.no_padding()
            return backend, where
        backend = tokenizers.Tokenizer(models.BPE.from_file(str(vocab), str(merges)))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    # The package raises nothing narrower.
    except Exception as error:
        allowed = f"a directory of files that can be read ({' '.join(str(error).split())})"
        raise RefusedError("tokenizer_files", directory, allowed) from error
    return backend, where


def _complete(where: pathlib.Path) -> bool:
    return all((where / name).is_file() for name in _PAIR) or (where / _WHOLE).is_file()


def _cached() -> pathlib.Path | None:
    """Where the hub's cache, that of `transformers`, has GPT-2; it is not asked for over a net."""
    from huggingface_hub import try_to_load_from_cache

    for name in _CACHED_NAMES:
        for file in (_PAIR[0], _WHOLE):
            path = try_to_load_from_cache(name, file)
            if isinstance(path, str) and _complete(pathlib.Path(path).parent):
                return pathlib.Path(path).parent
    return None


def _alphabet() -> dict[str, int]:
    """The byte behind each character of a byte-level vocabulary.

    What is printable in Latin-1 stands for itself, the other bytes for 256, 257, …
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = sorted(set(range(256)) - set(printable))
    return {chr(b): b for b in printable} | {chr(256 + n): b for n, b in enumerate(others)}
