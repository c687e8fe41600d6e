"""A loss, or a share of errors, against training tokens for each size, and the law that fits."""

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from physlm.experiments import condition as condition_lib
from physlm.experiments import fits
from physlm.experiments.condition import Condition
from physlm.experiments.figures.drawing import Drawing, Shown, Trained, draw
from physlm.experiments.figures.style import (
    COLOURS,
    GREY,
    LEGEND,
    MARKERS,
    name,
    plain,
    style,
    title,
)
from physlm.experiments.fits import Fit, Measured
from physlm.experiments.run import rounded
from physlm.experiments.summary import Line, Point, cap_of, pooled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE_INCHES = (11.0, 6.6)

LOSS, ERROR = "loss", "error"
BEYOND = "beyond"
# Groups that leave room for their panels.
_GROUPS = 3


@dataclasses.dataclass(frozen=True)
class _Size:
    """The runs of one size of model.

    Attributes:
        label: the size in words.
        parameters: of the model.
        runs: of each, tokens and what is drawn.
    """

    label: str
    parameters: int
    runs: list[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class _Group:
    """Runs that differ in size and training tokens alone.

    Attributes:
        label: what all of it is trained on, in words.
        sizes: the smallest first.
        fit: the law; None where there is none.
        why: why there is none, in a sentence.
    """

    label: str
    sizes: list[_Size]
    fit: Fit | None
    why: str

    @property
    def measured(self) -> list[Measured]:
        return _measured(self.sizes)

    @property
    def left_out(self) -> list[Measured]:
        """The runs that the law is fitted without; none where there is no law."""
        if self.fit is None:
            return []
        known = zip(self.measured, self.fit.left_out, strict=True)
        return [one for one, is_left_out in known if is_left_out]


@dataclasses.dataclass(frozen=True)
class Scaling:
    """Loss or error rate against training tokens, with a colour for each model size.

    A column for all that else sets conditions apart. Above a point for each run, and the curves of
    the law E + A / N**alpha + B / D**beta (`physlm.experiments.fits`) where there are enough of
    them; without it the means of sizes are joined. Below how far runs are from the law. Points of
    runs that the law is fitted without are hollow. Exponents and their intervals are a table of the
    report; why there is no law, and which sizes and tokens are left out, are notes.

    Attributes:
        y: `error`, the share of problems that are not solved with every step right, or `loss`, the
            recent mean of the training loss at the end of a run.
        cell: for errors, the cell's name, as `<=15` or `23`, or `beyond`: all cells of more
            operations than in training together.
        name: of the picture's files; "" for one that says what is drawn.
        wanted: which conditions are drawn; all of them without it.
    """

    y: str = ERROR
    cell: str = BEYOND
    name: str = ""
    wanted: Callable[[Condition], bool] = lambda _: True

    def __post_init__(self) -> None:
        if self.y not in (LOSS, ERROR):
            raise ValueError(f"y is {self.y!r}; it must be one of {LOSS}, {ERROR}.")
        if not self.name:
            object.__setattr__(self, "name", f"scaling-{self.y}")

    @property
    def _what(self) -> str:
        if self.y == LOSS:
            return "training loss"
        of = "more operations than in training" if self.cell == BEYOND else f"op {self.cell}"
        return f"share of problems not solved, {of}"

    def draw(self, shown: Shown) -> Drawing | None:
        """The picture; None where neither size nor length is told apart, or no model is known."""
        groups = [group for group in self._groups(shown) if _varied(group)][:_GROUPS]
        if not groups:
            return None
        what, _, where = self._what.partition(", ")
        heading = f"{what[0].upper()}{what[1:]} against the tokens of training"
        about = "; ".join([shown.about, *([where] if where else [])])
        made = draw(
            self.name,
            f"{heading}, by size, with what a law of scaling says",
            SIZE_INCHES,
            lambda figure: self._build(figure, groups, heading, about),
        )
        law = "E + A / N^α + B / D^β, [95% interval]"
        head = f"Scaling with parameters N and tokens D: {self._what}, {law}"
        return dataclasses.replace(made, tables=[(head, _table(groups))], notes=self._notes(groups))

    def _groups(self, shown: Shown) -> list[_Group]:
        lines: dict[str, list[Line]] = {}
        for line in shown.lines:
            if self.wanted(line.condition):
                beside = condition_lib.beside_scale(line.condition)
                lines.setdefault(json.dumps(beside, sort_keys=True), []).append(line)
        conditions = [json.loads(key) for key in lines]
        cap = cap_of([point for line in shown.lines for point in line.points])
        return [
            self._group(condition_lib.label(condition, conditions), of_group, shown, cap)
            for condition, of_group in zip(conditions, lines.values(), strict=True)
        ]

    def _group(self, label: str, lines: Sequence[Line], shown: Shown, cap: int | None) -> _Group:
        apart = [condition_lib.size_of(line.condition) for line in lines]
        sizes: dict[str, _Size] = {}
        for line, size in zip(lines, apart, strict=True):
            trained = shown.trained.get(line.label, ())
            for run, value in zip(trained, self._values(line, trained, cap), strict=False):
                if run.parameters is None or value is None:
                    continue
                said = condition_lib.label(size, apart)
                words = "" if said == "all" else f"{said}: "
                key = f"{words}{rounded(run.parameters)}"
                found = sizes.setdefault(key, _Size(key, run.parameters, []))
                found.runs.append((run.tokens, value))
        ordered = sorted(sizes.values(), key=lambda one: (one.parameters, one.label))
        try:
            return _Group(label, ordered, fits.fit(_measured(ordered)), "")
        except ValueError as refused:
            return _Group(label, ordered, None, str(refused))

    def _values(
        self, line: Line, trained: Sequence[Trained], cap: int | None
    ) -> Sequence[float | None]:
        """The drawn value of each run."""
        if self.y == LOSS:
            return [run.loss for run in trained]
        found = pooled(line, lambda point: self._is_of(point, cap))
        if found is None:
            return []
        count = sum(point.n for point in line.points if self._is_of(point, cap))
        # The law is of numbers above 0: as if of one problem more half were not solved.
        return [((1 - share) * count + 0.5) / (count + 1) for share in found.by_seed]

    def _is_of(self, point: Point, cap: int | None) -> bool:
        if self.cell != BEYOND:
            return point.cell == self.cell
        return cap is not None and point.op > cap and not (point.inside or point.reasked)

    def _notes(self, groups: Sequence[_Group]) -> list[str]:
        what = f"{self._what[0].upper()}{self._what[1:]}"
        notes = [f"{what}, {group.label}: {group.why}" for group in groups if group.why]
        notes += [f"{what}, {group.label}: {_without(group)}" for group in groups if group.left_out]
        drawn = {group.fit.drawn for group in groups if group.fit}
        if "runs" in drawn:
            notes.append(
                "Intervals of scaling are of fits to runs that are drawn again within their size "
                "and tokens: they speak of other seeds of these sizes."
            )
        if drawn:
            notes.append("Exponents are looked for up to 4; an interval up to there has no end.")
        if "residuals" in drawn:
            notes.append(
                "Intervals of scaling are of fits to the law with its own residuals drawn again, "
                "since not every size and number of tokens has several seeds."
            )
        return notes

    def _build(self, figure: "Figure", groups: Sequence[_Group], heading: str, about: str) -> None:
        fitted = any(group.fit for group in groups)
        points = "points are runs"
        points += ", curves the law that is fitted, below how far runs are off it" if fitted else ""
        points += "; hollow: left out of the fit" if any(one.left_out for one in groups) else ""
        title(figure, heading, f"{about}; {points}", top=0.955)
        ratios = (2.6, 1) if fitted else (1,)
        grid = figure.add_gridspec(
            len(ratios), len(groups), height_ratios=ratios, left=0.08, right=0.76, bottom=0.09,
            top=0.82, wspace=0.16, hspace=0.12,
        )  # fmt: skip
        labels = list(dict.fromkeys(size.label for group in groups for size in group.sizes))
        looks = {label: _look(number) for number, label in enumerate(labels)}
        handles: dict[str, Any] = {}
        first: list[Axes] = []
        for number, group in enumerate(groups):
            share = {"sharey": first[0]} if first else {}
            column = [figure.add_subplot(grid[0, number], **share)]
            first += column
            if fitted:
                column.append(figure.add_subplot(grid[1, number], sharex=column[0]))
            for size in group.sizes:
                look = looks[size.label]
                handles.setdefault(size.label, _points(column[0], size, group, look))
                if group.fit:
                    _residuals(column[1], size, group, look)
            _frame(column, group)
            if fitted and not number:
                column[1].set_ylabel("off the law, %", fontsize=9.5)
        first[0].set_ylabel(self._what.partition(",")[0], fontsize=10.5)
        place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0.77, 0.84)}
        figure.legend(
            list(handles.values()),
            list(handles),
            title="parameters",
            **LEGEND | {"fontsize": 8.5} | place,
        )


def _measured(sizes: Sequence[_Size]) -> list[Measured]:
    return [Measured(size.parameters, *run) for size in sizes for run in size.runs]


def _varied(group: _Group) -> bool:
    found = group.measured
    return len({one.parameters for one in found}) > 1 or len({one.tokens for one in found}) > 1


def _table(groups: Sequence[_Group]) -> list[list[str]]:
    heads = ["runs", "sizes × tokens", "left out", "α, of N", "β, of D", "E", "median off, %"]
    table = [["condition", *heads]]
    for group in groups:
        runs, fit = len(group.measured), group.fit
        if fit is None:
            table.append([group.label, str(runs), str(len(_pairs(group.measured))), *["–"] * 5])
            continue
        numbers = {"alpha": fit.law.alpha, "beta": fit.law.beta, "floor": fit.law.floor}
        texts = [
            f"{value:.3f} [{fit.within[name][0]:.3f}, {fit.within[name][1]:.3f}]"
            for name, value in numbers.items()
        ]
        off = 100 * float(np.median(np.abs(np.expm1(fit.residuals[~fit.left_out]))))
        counts = [str(number) for number in (runs, fit.pairs, len(_pairs(group.left_out)))]
        table.append([group.label, *counts, *texts, f"{off:.1f}"])
    return table


def _pairs(measured: Sequence[Measured]) -> list[tuple[float, float]]:
    """The numbers of parameters and tokens that runs have, each pair once."""
    return sorted({(one.parameters, one.tokens) for one in measured})


def _without(group: _Group) -> str:
    """Which pairs of parameters and tokens the law of a group is fitted without, in a sentence."""
    pairs = _pairs(group.left_out)
    shared = " or ".join(f"{value:.4g}" for value in sorted({one.value for one in group.left_out}))
    named = ", ".join(f"{rounded(int(size))} × {rounded(int(tokens))}" for size, tokens in pairs)
    return (
        f"the law is fitted without {len(pairs)} pairs of parameters and tokens that share "
        f"{shared}, as where all problems are solved or none, which are hollow: {named}."
    )


def _points(axes: "Axes", size: _Size, group: _Group, look: dict[str, Any]) -> Any:
    """Draws the runs and the fitted curve of a size, and returns their legend handle."""
    fit, tokens = group.fit, [run[0] for run in size.runs]
    handle = _dots(axes, size, group, look, 5.5, lambda _, value: value)
    along = np.unique(tokens)
    heights = np.array([np.mean([y for x, y in size.runs if x == one]) for one in along])
    if fit is not None:
        along = np.geomspace(min(tokens), max(tokens), 60)
        heights = fit.law(np.array(size.parameters), along)
    line = {"color": look["color"], "linestyle": look["linestyle"]}
    axes.plot(along, heights, **line, linewidth=1.4, alpha=0.85)
    return handle


def _residuals(axes: "Axes", size: _Size, group: _Group, look: dict[str, Any]) -> None:
    def off(tokens: float, value: float) -> float:
        said = group.fit.law(np.array(size.parameters), np.array(tokens)) if group.fit else value
        return 100 * (value / float(said) - 1)

    _dots(axes, size, group, look, 4.5, off)


def _dots(
    axes: "Axes",
    size: _Size,
    group: _Group,
    look: dict[str, Any],
    points: float,
    height: Callable[[float, float], float],
) -> Any:
    """Draws the runs of a size, hollow where the fit is without them; returns a legend handle."""
    left_out = {(one.parameters, one.tokens, one.value) for one in group.left_out}
    dots = {"color": look["color"], "marker": look["marker"], "linestyle": "none"}
    # The handle is that of filled ones.
    for hollow, face in ((True, "none"), (False, look["color"])):
        runs = [run for run in size.runs if ((size.parameters, *run) in left_out) == hollow]
        tokens, heights = [run[0] for run in runs], [height(*run) for run in runs]
        (handle,) = axes.plot(tokens, heights, **dots, markersize=points, markerfacecolor=face)
    return handle


def _frame(column: Sequence["Axes"], group: _Group) -> None:
    fit, above = group.fit, column[0]
    exponents = f"α {fit.law.alpha:.2f}, β {fit.law.beta:.2f}" if fit else "no law fitted"
    name(above, group.label, exponents)
    for axes in column:
        plain(axes)
        axes.set_xscale("log")
    above.set_yscale("log")
    above.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    above.yaxis.set_minor_formatter(lambda value, _: f"{value:g}")
    above.tick_params(which="both", labelsize=9, labelbottom=len(column) == 1)
    tokens = sorted({run[0] for size in group.sizes for run in size.runs})
    column[-1].set_xticks(tokens, [rounded(int(number)) for number in tokens])
    column[-1].set_xticks([], minor=True)
    column[-1].set_xlabel("tokens of training", fontsize=10.5)
    for axes in column[1:]:
        axes.axhline(0, color=GREY, linewidth=0.9)


def _look(number: int) -> dict[str, Any]:
    """As `style`, with another marker where colours repeat."""
    marker = MARKERS[(number + number // len(COLOURS)) % len(MARKERS)]
    return {**style(number), "marker": marker}
