"""From a problem's text to the arrays that the sampler makes."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_gen.problems import structure
from data_gen.problems.problem import Problem
from data_gen.problems.slots import layout
from data_gen.solutions import names
from data_gen.solutions.grammar import NEXT, SO
from data_gen.solutions.language import LETTERS
from data_gen.spec import Spec
from data_gen.text.judge import defined_in, standing
from data_gen.text.reader import Facts, Layers, name, read, right_sides

_TERMS = 4
_SO = f"{SO} ".lstrip()


def parse(layers: Layers, problem: str, question: str, solution: str, spec: Spec) -> Problem:
    """The `Problem` whose text this is, as arrays.

    Mistakes that are taken back are left out of the solution's order. Names that are not the
    vocabulary's own are numbered as they stand in `layers`.

    Raises:
      ValueError: the text cannot be read, or the class `spec` has no room for it; one sentence.
    """
    facts = read(layers, problem, question, spec.modulus)
    sizes = [len(items) for _, items in layers]
    _fit("layers", len(layers), spec.max_depth)
    _fit("items of a layer", max(sizes), spec.max_width)
    slots = slot_names(layers, spec)
    number = {text: slot for slot, text in slots.items()}
    edges = np.zeros((spec.max_depth - 1, spec.max_width, spec.max_width), bool)
    constant = np.zeros(spec.instance_slots, bool)
    value = np.zeros(spec.slots, np.int32)
    numbers, times, difference = (np.zeros(spec.instance_slots, np.int32) for _ in range(3))
    refs = np.full((spec.instance_slots, _TERMS), -1, np.int32)
    sides = right_sides(layers, problem, spec.modulus)
    _fit("sentences", len(sides), spec.edge_cap)
    stated = np.full(spec.edge_cap, -1, np.int32)
    for n, (text, side) in enumerate(sides.items()):
        slot = number[text]
        stated[n] = slot
        edges.reshape(-1)[slot] = True
        _fit("parameters on a right side", len(side.refs), _TERMS)
        refs[slot, : len(side.refs)] = [number[ref] for ref in side.refs]
        constant[slot] = side.number is not None
        numbers[slot] = side.number or 0
        times[slot], difference[slot] = side.times, side.difference
    for text, slot in number.items():
        value[slot] = facts.value[text]
    steps, letters = _solution(solution, number, facts)
    _fit("operations", len(letters), spec.op_room)
    hierarchy, first, subcategories, items = _places(layers, spec)
    order = np.full(spec.op_room, -1, np.int32)
    order[: len(steps)] = steps
    unused = [n for n in range(len(LETTERS)) if n not in letters]
    made: dict[str, Any] = {
        "ok": True,
        "op": np.int32(len(letters)),
        "steps": np.int32(len(steps)),
        "order_T": order,
        "constant_I": constant,
        "number_I": numbers,
        "refs_IxR": refs,
        "times_I": times.astype(bool),
        "difference_I": difference.astype(bool),
        "value_P": value,
        "sentences_E": stated,
        "hierarchy": np.int32(hierarchy),
        "first_category": np.int32(first),
        "subcategory_D": subcategories,
        "items_DxW": items,
        "letters": np.array((letters + unused)[: spec.letters], np.int32),
    }
    shape: tuple[Any, ...] = (
        np.int32(len(layers)),
        np.array(sizes + [0] * (spec.max_depth - len(sizes)), np.int32),
        edges,
    )
    return jax.tree.map(jnp.asarray, Problem(structure=structure.Structure(*shape), **made))


def slot_names(layers: Layers, spec: Spec) -> dict[int, str]:
    """The text of every parameter of these layers, by slot."""
    table, found = layout(spec), {}
    for slot in range(spec.slots):
        layer, item = int(table.layer_P[slot]), int(table.item_P[slot])
        category, thing = int(table.category_P[slot]), int(table.thing_P[slot])
        if category >= len(layers) or item >= len(layers[layer][1]):
            continue
        owner = layers[layer][1][item]
        if table.abstract_P[slot]:
            found[slot] = name(owner, layers[category][0])
        elif thing < len(layers[category][1]):
            found[slot] = name(owner, layers[category][1][thing])
    return found


def _fit(what: str, count: int, room: int) -> None:
    if count > room:
        raise ValueError(f"{count} {what}: the class has room for {room}.")


def _solution(text: str, number: dict[str, int], facts: Facts) -> tuple[list[int], list[int]]:
    """Slots of the steps, and the letters of all operations."""
    steps, letters = [], []
    for sentence in standing(text):
        found = defined_in(sentence)
        if found is None:
            raise ValueError(f"the sentence {sentence[:80]!r} defines nothing.")
        if found[0] not in number:
            raise ValueError(f"the step {sentence[:80]!r} defines no known parameter.")
        steps.append(number[found[0]])
        for part in sentence.split(NEXT)[1:]:
            letter = part.strip().removeprefix(_SO).partition(" ")[0]
            if letter not in LETTERS:
                raise ValueError(f"the step {sentence[:80]!r} uses {letter!r} for a letter.")
            letters.append(LETTERS.index(letter))
    if not steps or steps[-1] != number[facts.query]:
        raise ValueError("the solution does not end with the parameter that is asked for.")
    return steps, letters


def _places(layers: Sequence[Any], spec: Spec) -> tuple[int, int, np.ndarray, np.ndarray]:
    """Where the names stand in the vocabulary: hierarchy, top category, sub-categories, items."""
    depth, width = spec.max_depth, spec.max_width
    items = np.tile(np.arange(width, dtype=np.int32), (depth, 1))
    subcategories = np.zeros(depth, np.int32)
    for h, hierarchy in enumerate(names.hierarchies(spec.names_file)[: spec.hierarchies]):
        for first in range(len(hierarchy) - len(layers) + 1):
            pairs = zip(hierarchy[first:], layers, strict=False)
            found = [_items(c, things, spec) for c, (text, things) in pairs if c.name == text]
            known = [place for place in found if place is not None]
            if len(known) == len(layers):
                for layer, (sub, places) in enumerate(known):
                    subcategories[layer] = sub
                    items[layer, : len(places)] = places
                return h, first, subcategories, items
    return 0, 0, subcategories, items


def _items(
    category: names.Category, things: Sequence[str], spec: Spec
) -> tuple[int, list[int]] | None:
    for sub in range(spec.subcategories):
        known = [category.item(sub, n) for n in range(spec.names)]
        if all(thing in known for thing in things):
            return sub, [known.index(thing) for thing in things]
    return None
