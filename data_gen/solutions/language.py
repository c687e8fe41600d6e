"""The closed vocabulary: one token a name, number, letter or fixed phrase of the grammar."""

import dataclasses
import functools
import re
import string
from collections.abc import Iterable

import numpy as np

from data_gen.solutions.grammar import (
    ANSWER_MARKER,
    END_MARKER,
    MARKERS,
    OPERATORS,
    PHRASES,
    PROBLEM_MARKER,
    SOLUTION_MARKER,
)
from data_gen.solutions.names import hierarchies
from data_gen.spec import Spec

LETTERS = string.ascii_lowercase + string.ascii_uppercase

# What a token is.
MARKER, WORD, OPERATOR, NUMBER, LETTER, CATEGORY, NAME = range(7)


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Token ids of a spec: markers, phrases, numbers, letters, categories, names, in this order.

    Attributes:
      tokens: the text of each id; a document's text is its tokens' joined.
      numbers, letters, categories, names: the first id of each kind.
    """

    tokens: tuple[str, ...]
    numbers: int
    letters: int
    categories: int
    names: int
    name_shape: tuple[int, int, int, int]  # hierarchy, category, sub-category, name

    @property
    def size(self) -> int:
        """Number of ids."""
        return len(self.tokens)

    @functools.cached_property
    def ids(self) -> dict[str, int]:
        """The id of each token's text."""
        return {token: n for n, token in enumerate(self.tokens)}

    @functools.cached_property
    def kinds(self) -> np.ndarray:
        """int32[V]: MARKER, WORD, OPERATOR, NUMBER, LETTER, CATEGORY or NAME of each id."""
        starts = (0, len(MARKERS), self.numbers, self.letters, self.categories, self.names)
        kinds = np.repeat(
            np.array((MARKER, WORD, NUMBER, LETTER, CATEGORY, NAME), np.int32),
            np.diff((*starts, self.size)),
        )
        kinds[[self.ids[token] for token in OPERATORS]] = OPERATOR
        return kinds

    @property
    def problem(self) -> int:
        """Marker before the problem."""
        return self.ids[PROBLEM_MARKER]

    @property
    def solution(self) -> int:
        """Marker before the solution."""
        return self.ids[SOLUTION_MARKER]

    @property
    def answer(self) -> int:
        """Marker before the answer."""
        return self.ids[ANSWER_MARKER]

    @property
    def end(self) -> int:
        """End of text; also what windows are padded with."""
        return self.ids[END_MARKER]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of a sequence of ids; an id out of range reads as `<|id|>`."""
        return "".join(
            self.tokens[i] if 0 <= i < len(self.tokens) else f"<|{i}|>"
            for i in map(int, np.asarray(ids).reshape(-1))
        )

    def encode(self, text: str) -> list[int]:
        """The ids of a text without document markers; `decode` gives it back.

        Raises:
          ValueError: a part of the text is no symbol.
        """
        ids, at = [], 0
        while at < len(text):
            found = self._symbols.match(text, at)
            if found is None:
                raise ValueError(f"the text {text[at : at + 40]!r} does not begin with a symbol.")
            ids.append(self.ids[found[0]])
            at = found.end()
        return ids

    @functools.cached_property
    def _symbols(self) -> re.Pattern:
        # The longest first; a symbol ends where a word does.
        ordered = sorted(self.tokens[len(MARKERS) :], key=len, reverse=True)
        return re.compile(f"(?:{'|'.join(map(re.escape, ordered))})(?![A-Za-z0-9])")


@functools.lru_cache(maxsize=64)
def vocabulary(spec: Spec) -> Vocabulary:
    """The vocabulary of a spec: only what its problems can contain."""
    numbers = [f" {n}" for n in range(spec.modulus)]
    letters = [f" {letter}" for letter in LETTERS[: spec.letters]]
    used = hierarchies(spec.names_file)[: spec.hierarchies]
    categories = [f" {category.name}" for hierarchy in used for category in hierarchy]
    names = [
        f" {category.item(sub, name)}"
        for hierarchy in used
        for category in hierarchy
        for sub in range(spec.subcategories)
        for name in range(spec.names)
    ]
    start = len(MARKERS) + len(PHRASES)
    return Vocabulary(
        tokens=(*MARKERS, *PHRASES, *numbers, *letters, *categories, *names),
        numbers=start,
        letters=start + len(numbers),
        categories=start + len(numbers) + len(letters),
        names=start + len(numbers) + len(letters) + len(categories),
        name_shape=(spec.hierarchies, 4, spec.subcategories, spec.names),
    )
