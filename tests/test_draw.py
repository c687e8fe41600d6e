"""The picture of a problem: what is in it is what the arrays say, and no two things overlap."""

import dataclasses
import itertools
import xml.etree.ElementTree as ET

import jax
import numpy as np
import pytest
from drawn import SMALL, drawn

from data_gen.__main__ import main
from data_gen.keys import problem_key
from data_gen.picture import figure, layering
from data_gen.picture.relations import DISTRACTOR, NECESSARY, QUERY, relate
from data_gen.problems.slots import layout
from data_gen.windows import stream

pytestmark = pytest.mark.slow

FEW = 24


def problems():
    every, _, found = drawn(SMALL)
    return [(jax.tree.map(lambda x, n=n: x[n], every), found[n]) for n in range(FEW)]


def needed_by_definition(problem):
    """(slot, slot it is computed from) pairs, read off the arrays one by one."""
    table, instances = layout(SMALL), SMALL.instance_slots
    edge_I = problem.structure.edges_GxWxW.reshape(-1)
    depth, sizes_D = problem.structure.depth, problem.structure.sizes_D
    found = {}
    for slot in range(SMALL.slots):
        if slot < instances:
            if edge_I[slot]:
                found[slot] = {int(n) for n in problem.refs_IxR[slot] if n >= 0}
        elif table.item_P[slot] < sizes_D[table.layer_P[slot]] and table.category_P[slot] < depth:
            children = table.children_AxW[slot - instances]
            factors = table.factors_AxW[slot - instances]
            pairs = [(c, f) for c, f in zip(children, factors, strict=True) if edge_I[c]]
            found[slot] = {int(n) for pair in pairs for n in pair if n >= 0}
    return found


def reached(start, needs):
    seen, todo = set(), list(start)
    while todo:
        slot = todo.pop()
        if slot not in seen:
            seen.add(slot)
            todo += needs[slot]
    return seen


def test_nodes_arrows_and_roles_are_what_the_arrays_say():
    roles = set()
    for problem, _ in problems():
        needs, found = needed_by_definition(problem), relate(problem, SMALL)
        query = int(problem.order_T[problem.steps - 1])
        stated = {int(n) for n in problem.sentences_E if n >= 0}
        by_slot = {node.slot: node for node in found.nodes}
        assert set(by_slot) == reached(stated | {query}, needs)
        expected = {(n, slot) for slot in by_slot for n in needs[slot]}
        assert len(found.edges) == len(expected) and set(found.edges) == expected
        # The shortest solution computes what the query needs, and that alone.
        steps = {int(n) for n in problem.order_T if n >= 0}
        for slot, node in by_slot.items():
            role = QUERY if slot == query else NECESSARY if slot in steps else DISTRACTOR
            assert node.role == role
            assert node.abstract == (slot >= SMALL.instance_slots)
            assert node.depth == max((by_slot[n].depth + 1 for n in needs[slot]), default=0)
        roles |= {(node.role, node.abstract) for node in found.nodes}
        strong = {slot for slot in steps if slot < SMALL.instance_slots}
        assert sum(found.belongs.values()) == len(strong)
        assert len(found.belongs) == len(stated)
    assert len(roles) >= 5


def test_names_are_those_of_the_text():
    for problem, record in problems():
        found = relate(problem, SMALL)
        for node in found.nodes:
            if node.slot < SMALL.instance_slots:
                said = f"The number of each {node.owner}'s {node.thing} equals"
                assert said in record["problem"]
            if node.role == QUERY:
                assert record["question"] == f" How many {node.thing} does {node.owner} have?"


def test_labels_do_not_overlap_and_lie_inside_their_outlines():
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.patches import FancyBboxPatch

    for problem, _ in problems()[:6]:
        page = figure.draw(problem, SMALL)
        renderer = FigureCanvasAgg(page).get_renderer()
        axes = page.axes[0]
        texts = [text for text in axes.texts if text.get_text()]
        spots = [text.get_window_extent(renderer) for text in texts]
        for one, other in itertools.combinations(spots, 2):
            assert not one.overlaps(other)
        box = page.bbox
        for spot in spots:
            assert box.x0 <= spot.x0 and spot.x1 <= box.x1
            assert box.y0 <= spot.y0 and spot.y1 <= box.y1
        outlines = [
            patch.get_window_extent(renderer)
            for patch in axes.patches
            if isinstance(patch, FancyBboxPatch)
        ]
        for outline in outlines:
            assert not any(
                spot.x0 < outline.x0 < spot.x1 or spot.x0 < outline.x1 < spot.x1
                for spot in spots
                if spot.y0 < outline.y1 and outline.y0 < spot.y1
            )


def test_roles_differ_in_outline_and_in_grey():
    from matplotlib.colors import to_rgb

    looks = {key: (figure._shape(*key), look.dash) for key, look in figure._LOOKS.items()}
    assert len(set(looks.values())) == len(looks)
    grey = {
        key: np.dot(to_rgb(look.fill), (0.2126, 0.7152, 0.0722))
        for key, look in figure._LOOKS.items()
    }
    kinds = [(QUERY, False), (NECESSARY, False), (NECESSARY, True), (DISTRACTOR, False)]
    for one, other in itertools.combinations(kinds, 2):
        assert abs(grey[one] - grey[other]) > 0.08


@pytest.mark.parametrize("suffix", figure.SUFFIXES)
def test_a_file_is_written_the_same_each_time(suffix, tmp_path):
    problem, _ = problems()[0]
    paths = [tmp_path / f"{n}{suffix}" for n in range(2)]
    for path in paths:
        figure.save(figure.draw(problem, SMALL), path)
    first = paths[0].read_bytes()
    assert first == paths[1].read_bytes()
    if suffix == ".png":
        assert first.startswith(b"\x89PNG")
    else:
        assert ET.fromstring(first).tag.endswith("svg")


@pytest.mark.parametrize("name", ["problem.pdf", "problem", "png"])
def test_another_suffix_is_refused_before_anything_is_drawn(name, tmp_path, capsys):
    path = tmp_path / name
    assert main(["draw", "--out", str(path)]) == 2
    error = capsys.readouterr().err
    assert f"out is {str(path)!r}; it must be a file that ends in .png or .svg." in error
    assert error.count("\n") == 1 and not path.exists()


def test_the_command_draws_the_problem_asked_for(tmp_path, monkeypatch):
    every, _, _ = drawn(SMALL)
    asked = []

    def remember(keys_N, *, spec):
        asked.append((jax.random.key_data(keys_N).tolist(), spec))
        return jax.tree.map(lambda x: x[3:4], every)

    # What is asked of the sampler is what counts; it is tested elsewhere.
    monkeypatch.setattr(stream, "problems", remember)
    monkeypatch.setattr("data_gen.options.NAMED", {"med": SMALL})
    path = tmp_path / "problem.png"
    assert main(["draw", "--index", "3", "--out", str(path)]) == 0
    below = path.read_bytes()
    assert main(["draw", "--index", "3", "--order", "qp", "--out", str(path)]) == 0
    assert path.read_bytes() != below
    assert main(["draw", "--seed", "1", "--op", "2", "--reask", "--out", str(path)]) == 0
    keys = [jax.random.key_data(problem_key(*of))[None].tolist() for of in ((0, 3), (0, 3), (1, 0))]
    changes = [{}, {"order": "qp"}, {"op": 2, "reask": True}]
    specs = [dataclasses.replace(SMALL, **change) for change in changes]
    assert asked == list(zip(keys, specs, strict=True))


def test_a_problem_that_was_not_found_is_one_sentence(tmp_path, monkeypatch, capsys):
    every, _, _ = drawn(SMALL)
    none = jax.tree.map(lambda x: x[:1], every)._replace(ok=np.array([False]))
    monkeypatch.setattr(stream, "problems", lambda keys_N, *, spec: none)
    path = tmp_path / "problem.svg"
    assert main(["draw", "--op", "9", "--out", str(path)]) == 2
    error = capsys.readouterr().err
    assert "index=0 has no problem of op=9" in error and error.count("\n") == 1
    assert not path.exists()


def test_few_lines_cross():
    # Two lines that cross in the order given, and need not.
    placed = layering.place(
        {n: 1.0 for n in range(4)}, {0: 0, 1: 0, 2: 1, 3: 1}, [(0, 3), (1, 2)], 0.1
    )
    assert layering.crossings([(link.start, link.end) for link in placed.links]) == 0
    assert layering.crossings([(0, 3), (1, 2), (2, 4)]) == 1


def test_neighbours_keep_their_gap_and_are_as_near_as_can_be():
    assert layering.spread([0, 5], [1, 1], [1]) == [0, 5]
    assert layering.spread([0, 0], [1, 1], [2]) == [-1, 1]
    assert layering.spread([0, 0, 9], [3, 1, 1], [4, 1]) == [-1, 3, 9]


def test_a_long_line_keeps_clear_of_the_rows_that_it_passes():
    widths = {n: 3.0 for n in range(5)}
    rows = {0: 0, 1: 1, 2: 2, 3: 3, 4: 1}
    edges = [(0, 1), (1, 2), (2, 3), (0, 3), (0, 4)]
    placed = layering.place(widths, rows, edges, 0.25)
    passing = [link for link in placed.links if link.to is None]
    assert [link.row for link in passing] == [0, 1]
    for link in passing:
        for node, row in rows.items():
            if row == link.row + 1:
                assert abs(placed.centre[node] - link.end) >= 1.75 - 1e-9
    assert abs(placed.centre[1] - placed.centre[4]) >= 3.25 - 1e-9
    last = next(link for link in placed.links if link.to == 3 and link.source == 0)
    assert last.targets == {3} and last.row == 2
