"""The problem class: caps, modulus, order, names and split, in one hashable value."""

import dataclasses
import functools
import itertools

from data_gen import settings
from data_gen.settings import RefusedError

OP_DRAWS = ("lesser", "uniform")
ORDERS = ("pq", "qp")
SOLUTIONS = ("shortest", "any")
SPLITS = ("train", "test", "all")
SPLIT_BY = ("solution", "problem")
TOKENIZERS = ("word", "parameter", "gpt2")

# A structure graph has slots for this much at most; the published class fills it.
DEPTH_LIMIT = 4
WIDTH_LIMIT = 4
LETTER_LIMIT = 52
MODULUS_LIMIT = 256  # what is drawn without bias
TERM_LIMIT = 4  # of a right side; the published class fills it
EDGE_LIMIT = 255  # beyond what any structure holds, and within what is drawn without bias


@dataclasses.dataclass(frozen=True)
class Spec:
    """A class of iGSM problems.

    The defaults are the published `med` class; `HARD` is the published `hard` one.

    Raises:
      RefusedError: a setting has a value that is not allowed, or no problem can satisfy them all.
    """

    max_op: int = settings.whole(
        15, "Operations of a problem, at most (Part 2.1, Section 2.2).", low=1, high=LETTER_LIMIT
    )
    max_edges: int = settings.whole(
        20, "Edges of the structure graph, at most.", low=1, high=EDGE_LIMIT
    )
    op: int | None = settings.whole(
        None,
        "A fixed number of operations, for test sets beyond the cap; none draws it.",
        low=1,
        high=LETTER_LIMIT,
        besides=(None,),
    )
    op_draw: str = settings.choice(
        "lesser",
        "How many operations a problem has, where that is drawn: lesser, the lesser of two draws "
        "of 1..max_op, as published, so that few are the most frequent; or uniform, each number as "
        "likely as another. Problems of a given number have the same law under both.",
        OP_DRAWS,
        added=True,
    )
    min_depth: int = settings.whole(
        2, "Layers of the structure graph, at least.", low=2, high=DEPTH_LIMIT
    )
    max_depth: int = settings.whole(
        4, "Layers of the structure graph, at most.", low=2, high=DEPTH_LIMIT
    )
    max_terms: int = settings.whole(
        TERM_LIMIT,
        "Terms that the right side of a sentence of the problem adds up, at most: other parameters "
        "and, where it has one, a constant; with 1, it is a constant or another parameter. What no "
        "sentence states, the sums over an item's things, has a term for each of them whatever "
        "this is.",
        low=1,
        high=TERM_LIMIT,
        added=True,
    )
    min_width: int = settings.whole(2, "Items of a layer, at least.", low=1, high=WIDTH_LIMIT)
    max_width: int = settings.whole(4, "Items of a layer, at most.", low=1, high=WIDTH_LIMIT)
    modulus: int = settings.whole(
        23, "All arithmetic is modulo this number.", low=2, high=MODULUS_LIMIT
    )
    order: str = settings.choice("pq", "Whether the question comes last, pq, or first, qp.", ORDERS)
    solution: str = settings.choice(
        "shortest",
        "What a solution computes: shortest, what the query needs alone, in the order it was drawn "
        "in; or any, all parameters in a random order in which they can be computed, up to the "
        "query. Where that would need more letters than there are, only what the query needs is "
        "computed.",
        SOLUTIONS,
    )
    reask: bool = settings.flag(
        False,
        "Ask for another parameter, drawn from all whose solution the letters suffice for (Part "
        "2.1, Section 3); the number of operations then varies.",
    )
    hierarchies: int = settings.whole(
        4, "Of 4 hierarchies (say region, library, shelf, book), how many are used.", low=1, high=4
    )
    subcategories: int = settings.whole(
        5, "Of each category's 5 sub-categories, how many are used.", low=1, high=5
    )
    names: int = settings.whole(
        20, "Of each sub-category's 20 names, how many are used.", low=1, high=20
    )
    names_file: str = settings.text(
        "",
        "A JSON file of other names, of the shape that data_gen.solutions.names describes. What "
        "it holds decides a run's weights, where it lies does not.",
        "the text of a path",
        decides=False,
    )
    letters: int = settings.whole(
        52,
        "Of a..z, A..Z, how many name results; a solution takes one for each operation, and one "
        "that would run out of them is not asked for.",
        low=1,
        high=LETTER_LIMIT,
    )
    split: str = settings.choice(
        "all",
        "Which problems there are: train, those whose template's hash is below 17 of 23; test, the "
        "others; or all. A template is a solution, as it is written, without names, numbers and "
        "letters (but see split_by).",
        SPLITS,
    )
    split_by: str = settings.choice(
        "solution",
        "Whose templates are split: solution, those of solutions as they are written, as published "
        "(a problem that is solved in two orders may be on both sides); or problem, those of what "
        "the answer is computed from, whatever the order, so that no text of a problem is on both "
        "sides. Where there are few problems, the first leaves some test problems in training.",
        SPLIT_BY,
        added=True,
    )
    unsplit_op: int = settings.whole(
        0,
        "Problems with at most so many operations are on both sides of the split. 0 is the "
        "published split: tests have no template that training shows. There are two templates of "
        "one operation and few of two or three; a small class may need those that one side would "
        "withhold.",
        high=LETTER_LIMIT,
    )
    statement_op: int = settings.whole(
        0,
        "Problems with at most so many operations are split by templates of all that they state, "
        "with what the answer does not need, instead of those of solutions. A few operations have "
        "too few of the latter: where one of two is for tests, these ask for what training never "
        "shows at all.",
        high=LETTER_LIMIT,
        added=True,
    )
    tokenizer: str = settings.choice(
        "word",
        'word, a token for each symbol of the grammar; parameter, one for a whole parameter ("Oak '
        "Library's Red Shelf\") and each other symbol, for classes of few names; or gpt2, GPT-2's "
        "byte pairs.",
        TOKENIZERS,
    )
    tokenizer_files: str = settings.text(
        "",
        "The directory of GPT-2's vocabulary; an empty text takes the one that the package "
        "transformers has in its cache. It is read where token ids are first needed. What it holds "
        "decides a run's weights, where it lies does not.",
        "the text of a path",
        decides=False,
    )

    def __post_init__(self) -> None:
        settings.check(self)
        if self.max_depth < self.min_depth:
            least = f"at least min_depth, {self.min_depth}"
            raise RefusedError("max_depth", self.max_depth, least, ["min_depth"])
        if self.max_width < self.min_width:
            least = f"at least min_width, {self.min_width}"
            raise RefusedError("max_width", self.max_width, least, ["min_width"])
        if self.names < self.max_width:
            least = f"at least max_width, {self.max_width}, so that items have names of their own"
            raise RefusedError("names", self.names, least, ["max_width"])
        cap = "max_op" if self.op is None else "op"
        if self.letters < self.op_cap:
            least = f"at least {cap}, {self.op_cap}, so that no letter is defined twice"
            raise RefusedError("letters", self.letters, least, [cap])
        if self.tokenizer_files and self.tokenizer != "gpt2":
            allowed = "empty where tokenizer is not 'gpt2', which alone reads files"
            raise RefusedError("tokenizer_files", self.tokenizer_files, allowed, ["tokenizer"])
        least_edges = (self.min_depth - 1) * self.min_width
        if self.max_edges < least_edges:
            allowed = (
                f"at least {least_edges}, for the {self.min_depth} layers (min_depth) of "
                f"{self.min_width} items (min_width) that there are at least"
            )
            raise RefusedError("max_edges", self.max_edges, allowed, ["min_depth", "min_width"])
        reach = reachable_op(self)
        if self.op_cap > reach:
            allowed = (
                f"at most {reach}, what max_edges={self.max_edges}, max_depth={self.max_depth}, "
                f"max_width={self.max_width} and max_terms={self.max_terms} leave room for"
            )
            others = ["max_edges", "max_depth", "max_width", "max_terms"]
            raise RefusedError(cap, self.op_cap, allowed, others)

    @property
    def op_cap(self) -> int:
        """The largest number of operations that a problem of this class has."""
        return self.max_op if self.op is None else self.op

    @property
    def op_room(self) -> int:
        """The capacity of arrays in operations: the cap, or all letters where more can occur."""
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


def reachable_op(spec: Spec) -> int:
    """The largest number of operations that is possible under the caps.

    An instance parameter costs up to `max_terms` - 1 operations, and at least one; the first
    three in the solution's order cost no more than what is there to add up, 1, 1 and 2. An abstract
    one costs what its children make it cost, so it is dearest where one item has many of them. Of
    classes with hardly more edges than their items need, this is an estimate: sums that stand among
    the first three allow one or two more, and not all sums of items without children can be needed.
    """
    widths = (spec.min_width, spec.max_width)
    depths = (spec.min_depth, spec.max_depth)
    return _reachable_op(depths, widths, spec.max_edges, spec.max_terms)


@functools.lru_cache(maxsize=256)
def _reachable_op(
    depths: tuple[int, int], widths: tuple[int, int], max_edges: int, max_terms: int
) -> int:
    most_each = max(max_terms - 1, 1)
    # Nothing but the constant is there for the first to add up, one parameter for the second.
    lost = [most_each - max(min(terms, max_terms) - 1, 1) for terms in range(1, TERM_LIMIT)]
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
                            sums = _sum_op(edges, sizes[i], sizes[i + 1], depth - i - 2)
                            cost = op + most_each * edges + sums
                            step[used + edges] = max(step.get(used + edges, 0), cost)
                most = step
            for edges, op in most.items():
                best = max(best, op - sum(lost[:edges]))
    return best


def _sum_op(edges: int, parents: int, children: int, layers_below: int) -> int:
    """Operations of a layer's abstract ones when its edges crowd on as few parents as can be."""
    full, rest = divmod(edges, children)
    counts = ([children] * full + [rest] + [0] * parents)[:parents]
    sums = sum(max(c - 1, 1) for c in counts)
    products = sum(max(2 * c - 1, 1) for c in counts)
    return sums + layers_below * products


MED = Spec()
HARD = Spec(max_op=21, max_edges=28)
NAMED = {"med": MED, "hard": HARD}
