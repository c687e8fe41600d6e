"""The problem class: caps, modulus, order, names and split, in one hashable value."""

import dataclasses
import functools
import itertools

ORDERS = ("pq", "qp")
SOLUTIONS = ("shortest", "any")
SPLITS = ("train", "test", "all")
TOKENIZERS = ("word", "gpt2")

# A structure graph has slots for this much at most; the published class fills it.
DEPTH_LIMIT = 4
WIDTH_LIMIT = 4
LETTER_LIMIT = 52
MODULUS_LIMIT = 256  # what is drawn without bias
EDGE_LIMIT = 255  # beyond what any structure holds, and within what is drawn without bias


@dataclasses.dataclass(frozen=True)
class Spec:
    """A class of iGSM problems.

    The defaults are the published `med` class; `HARD` is the published `hard` one.

    Attributes:
      max_op: operations of a problem, at most (Part 2.1, Section 2.2).
      max_edges: edges of the structure graph, at most.
      op: a fixed number of operations, for test sets beyond the cap; None draws it.
      min_depth, max_depth: layers of the structure graph, within 2..4.
      min_width, max_width: items of a layer, within 1..4.
      modulus: all arithmetic is modulo this number, at least 2.
      order: "pq", the question last, or "qp", the question first.
      solution: "shortest", what the query needs alone, in the order it was drawn in; or "any",
        all parameters in a random order in which they can be computed, up to the query. Where
        that would need more letters than there are, only what the query needs is computed.
      reask: ask for another parameter, drawn from all whose solution the letters suffice for
        (Part 2.1, Section 3); the number of operations then varies.
      hierarchies: of 4 (say region, library, shelf, book), how many are used.
      subcategories: of each category's 5, how many are used.
      names: of each sub-category's 20, how many are used; at least `max_width`.
      names_file: a JSON file of other names, of the shape that `solutions.names` describes.
      letters: of a..z, A..Z, how many name results; a solution takes one per operation, and
        one that would run out of them is not asked for.
      split: "train" (template hash < 17 of 23), "test" (the others), or "all".
      unsplit_op: problems with at most so many operations are on both sides of the split, at
        least 2: there are two templates of one operation and hardly more of two, so that one
        side would go without.
      tokenizer: "word", a token for each symbol of the grammar, or "gpt2", GPT-2's byte pairs.
      tokenizer_files: directory with GPT-2's vocabulary; "" takes the one that `transformers`
        has in its cache. It is read where token ids are first needed, not here.
    """

    max_op: int = 15
    max_edges: int = 20
    op: int | None = None
    min_depth: int = 2
    max_depth: int = 4
    min_width: int = 2
    max_width: int = 4
    modulus: int = 23
    order: str = "pq"
    solution: str = "shortest"
    reask: bool = False
    hierarchies: int = 4
    subcategories: int = 5
    names: int = 20
    names_file: str = ""
    letters: int = 52
    split: str = "all"
    unsplit_op: int = 2
    tokenizer: str = "word"
    tokenizer_files: str = ""

    def __post_init__(self) -> None:
        """Refuses what no problem can satisfy.

        Raises:
          ValueError: names the field, its value and what is allowed.
        """
        _within("min_depth", self.min_depth, 2, DEPTH_LIMIT)
        _within("max_depth", self.max_depth, self.min_depth, DEPTH_LIMIT)
        _within("min_width", self.min_width, 1, WIDTH_LIMIT)
        _within("max_width", self.max_width, self.min_width, WIDTH_LIMIT)
        _within("modulus", self.modulus, 2, MODULUS_LIMIT)
        _within("hierarchies", self.hierarchies, 1, 4)
        _within("subcategories", self.subcategories, 1, 5)
        _within("names", self.names, self.max_width, 20)
        _within("max_op", self.max_op, 1, LETTER_LIMIT)
        _within("max_edges", self.max_edges, 1, EDGE_LIMIT)
        if self.op is not None:
            _within("op", self.op, 1, LETTER_LIMIT)
        # Every operation takes a letter of its own, so that no letter is defined twice.
        _within("letters", self.letters, self.op_cap, LETTER_LIMIT)
        _within("unsplit_op", self.unsplit_op, 2, LETTER_LIMIT)
        if self.order not in ORDERS:
            raise ValueError(f"order={self.order!r} is unknown; choose one of {', '.join(ORDERS)}.")
        if self.solution not in SOLUTIONS:
            raise ValueError(
                f"solution={self.solution!r} is unknown; choose one of {', '.join(SOLUTIONS)}."
            )
        if not isinstance(self.names_file, str):
            raise ValueError(f"names_file={self.names_file!r} is not allowed: a path is.")
        if not isinstance(self.reask, bool):
            raise ValueError(f"reask={self.reask!r} is not allowed: True or False is.")
        if self.split not in SPLITS:
            raise ValueError(f"split={self.split!r} is unknown; choose one of {', '.join(SPLITS)}.")
        if self.tokenizer not in TOKENIZERS:
            raise ValueError(
                f"tokenizer={self.tokenizer!r} is unknown; choose one of {', '.join(TOKENIZERS)}."
            )
        if not isinstance(self.tokenizer_files, str):
            raise ValueError(
                f"tokenizer_files={self.tokenizer_files!r} is not allowed: the text of a path is."
            )
        if self.tokenizer_files and self.tokenizer != "gpt2":
            raise ValueError(
                f"tokenizer_files={self.tokenizer_files!r} is not allowed: only tokenizer='gpt2' "
                "reads files."
            )
        least_edges = (self.min_depth - 1) * self.min_width
        if self.max_edges < least_edges:
            raise ValueError(
                f"max_edges={self.max_edges} is too small: {self.min_depth} layers of "
                f"{self.min_width} items need at least {least_edges} edges."
            )
        reach = reachable_op(self)
        if not 1 <= self.op_cap <= reach:
            field = "max_op" if self.op is None else "op"
            raise ValueError(
                f"{field}={self.op_cap} is out of reach: with max_edges={self.max_edges}, "
                f"max_depth={self.max_depth} and max_width={self.max_width} a problem has "
                f"1 to {reach} operations."
            )

    @property
    def op_cap(self) -> int:
        """The largest number of operations that a problem of this class has."""
        return self.max_op if self.op is None else self.op

    @property
    def op_room(self) -> int:
        """Operations that arrays have room for: the cap, or all letters where it can be passed."""
        return self.letters if self.reask or self.solution == "any" else self.op_cap

    @property
    def instance_slots(self) -> int:
        """Slots for instance parameters (item of layer i, item of layer i + 1)."""
        return (self.max_depth - 1) * self.max_width**2

    @property
    def abstract_slots(self) -> int:
        """Slots for abstract parameters (item of layer i, category of a layer below)."""
        return self.max_width * self.max_depth * (self.max_depth - 1) // 2

    @property
    def slots(self) -> int:
        """All parameter slots, instance ones first."""
        return self.instance_slots + self.abstract_slots

    @property
    def edge_cap(self) -> int:
        """Edges, hence sentences of a problem, at most."""
        return min(self.max_edges, self.instance_slots)


def _within(field: str, value: int, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{field}={value!r} is not allowed: an integer in {low}..{high} is.")


def reachable_op(spec: Spec) -> int:
    """The largest number of operations that the caps leave room for.

    An instance parameter costs up to 3 operations (4 predecessors), except the first two in
    the solution's order (1) and the third (2); an abstract one costs what its children make
    it cost, so it is dearest where one item has many of them.
    """
    widths = (spec.min_width, spec.max_width)
    depths = (spec.min_depth, spec.max_depth)
    return _reachable_op(depths, widths, spec.max_edges)


@functools.lru_cache(maxsize=256)
def _reachable_op(depths: tuple[int, int], widths: tuple[int, int], max_edges: int) -> int:
    best = 0
    for depth in range(depths[0], depths[1] + 1):
        for sizes in itertools.product(range(widths[0], widths[1] + 1), repeat=depth):
            # most[e]: operations of all parameters with e edges in the layers so far.
            most = {0: 0}
            for i in range(depth - 1):
                step: dict[int, int] = {}
                for used, op in most.items():
                    for edges in range(sizes[i + 1], sizes[i] * sizes[i + 1] + 1):
                        if used + edges <= max_edges:
                            cost = op + _layer_op(edges, sizes[i], sizes[i + 1], depth - i - 2)
                            step[used + edges] = max(step.get(used + edges, 0), cost)
                most = step
            for edges, op in most.items():
                best = max(best, op - sum((2, 2, 1)[:edges]))
    return best


def _layer_op(edges: int, parents: int, children: int, layers_below: int) -> int:
    """Operations of a layer's parameters when its edges crowd on as few parents as can be."""
    full, rest = divmod(edges, children)
    counts = ([children] * full + [rest] + [0] * parents)[:parents]
    sums = sum(max(c - 1, 1) for c in counts)
    products = sum(max(2 * c - 1, 1) for c in counts)
    return 3 * edges + sums + layers_below * products


MED = Spec()
HARD = Spec(max_op=21, max_edges=28)
NAMED = {"med": MED, "hard": HARD}
