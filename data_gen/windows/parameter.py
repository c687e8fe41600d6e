"""A tokenizer with one token for each parameter: its two names and the symbol between them.

A small model is slow to learn to find a parameter by two names. Here it has one token wherever it
stands, in the question too: " How many" is a token, and so is the parameter after it, which there
reads " {thing} does {owner} have?" instead of " {owner}'s {thing}". Names alone have none.
"""

import numpy as np

from data_gen.settings import RefusedError
from data_gen.solutions.grammar import PARAMETER, QUESTION, is_slot
from data_gen.solutions.language import Vocabulary, vocabulary
from data_gen.spec import Spec
from data_gen.windows.table import Joined, Tokenizer

# A model of width 64 and four layers has more weights for so many tokens than for all else. The
# published classes have 122,400 parameters.
PARAMETER_LIMIT = 4096

# Symbols of the question of which the names are between words.
_WORDS_AND_NAMES = (False, True, False, True, False)


def parameter(spec: Spec) -> Tokenizer:
    """One token a parameter, and one for each symbol that is in no parameter.

    Raises:
      RefusedError: says how many parameters the class has, and how many are allowed.
      ValueError: the grammar has a question without words before, between and after its names.
    """
    owned, symbols = PARAMETER.symbols[1], QUESTION.symbols
    if tuple(map(is_slot, symbols)) != _WORDS_AND_NAMES:
        raise ValueError(
            f"tokenizer='parameter' cannot write the question {QUESTION.text!r}: words must stand "
            "before, between and after its names."
        )
    opening, _, asked_words, _, closing = symbols
    vocab = vocabulary(spec)
    pairs_Px2 = np.array(_pairs(vocab, spec.max_depth), np.int32)
    if len(pairs_Px2) > PARAMETER_LIMIT:
        raise RefusedError(
            "tokenizer",
            spec.tokenizer,
            f"'word' or 'gpt2', since a token for each parameter of this class takes "
            f"{len(pairs_Px2):,} tokens and {PARAMETER_LIMIT:,} are allowed (fewer hierarchies, "
            "subcategories or names would do)",
        )
    text, word = vocab.tokens, vocab.ids
    unwritten = {word[owned], word[asked_words], word[closing]}
    kept = [n for n in range(vocab.categories) if n not in unwritten]
    ids_V = np.full(vocab.size, -1, np.int32)
    ids_V[kept] = np.arange(len(kept))
    lengths_V = np.ones(vocab.size, np.int32)
    lengths_V[[word[owned], word[asked_words]]] = -1
    lengths_V[word[closing]] = 0
    ids_P = np.arange(len(kept), len(kept) + len(pairs_Px2), dtype=np.int32)
    owner_P, thing_P = pairs_Px2.T
    ids_VxV = np.full((vocab.size, vocab.size), -1, np.int32)
    # A thing is always below its owner, so that a pair can be looked up in either order.
    ids_VxV[owner_P, thing_P] = ids_VxV[thing_P, owner_P] = ids_P
    named = [f"{text[owner]}{owned}{text[thing]}" for owner, thing in pairs_Px2]
    asked = [f"{text[thing]}{asked_words}{text[owner]}{closing}" for owner, thing in pairs_Px2]
    return Tokenizer(
        ids_VxK=ids_V[:, None],
        lengths_V=lengths_V,
        size=len(kept) + len(pairs_Px2),
        problem=int(ids_V[vocab.problem]),
        solution=int(ids_V[vocab.solution]),
        answer=int(ids_V[vocab.answer]),
        end=int(ids_V[vocab.end]),
        pieces=tuple(piece.encode() for piece in (*(text[n] for n in kept), *named)),
        joined=Joined(
            ids_VxV,
            int(ids_V[word[opening]]),
            {i: piece.encode() for i, piece in zip(ids_P.tolist(), asked, strict=True)},
        ),
    )


def _pairs(vocab: Vocabulary, depth: int) -> list[tuple[int, int]]:
    """The owner and the thing, as symbols, of every parameter that a problem can have.

    An owner is an item; its thing is an item of the next category, or a category that lies at most
    so far below as layers do.
    """
    hierarchies, categories, *_ = vocab.name_shape
    items = np.arange(vocab.names, vocab.size).reshape(hierarchies, categories, -1).tolist()
    groups = np.arange(vocab.categories, vocab.names).reshape(hierarchies, categories).tolist()
    return [
        (owner, thing)
        for items_CxI, group_C in zip(items, groups, strict=True)
        for c in range(categories - 1)
        for owner in items_CxI[c]
        for thing in (*items_CxI[c + 1], *group_C[c + 1 : c + depth])
    ]
