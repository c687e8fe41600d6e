"""What models solve beyond training, against what they solve within it, a mark for each model."""

import dataclasses
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from physlm.experiments import condition as condition_lib
from physlm.experiments import inference, robustness
from physlm.experiments.figures.drawing import Drawing, Shown, draw
from physlm.experiments.figures.looks import looks
from physlm.experiments.figures.style import GREY, legend_beside, marks, title
from physlm.experiments.robustness import Fit
from physlm.experiments.summary import Line, cap_of, pooled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE_INCHES = (11.0, 5.6)

# Ticks of axes in log odds, %, and the room left and right of what is drawn, in log odds.
_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9)
_ROOM = 0.25


@dataclasses.dataclass(frozen=True)
class Robustness:
    """Accuracy beyond training against that on the longest problems within it, a mark a model.

    Marks above the line of error-free models solve more beyond training than error-free models
    that are as good within it, and those below it less (`physlm.experiments.robustness`).

    Attributes:
        name: of the picture's files.
    """

    name: str = "robustness"

    def draw(self, shown: Shown) -> Drawing | None:
        """The picture.

        None where models are too few for lines, or were judged in several ways, or where there is
        no error-free condition, or no problem within or beyond training.
        """
        cap = cap_of([point for line in shown.lines for point in line.points])
        known = [] if cap is None else [_models(line, cap) for line in shown.lines]
        models = [each for each in known if each is not None]
        runs = [run for one in models for run, _ in one.line.judged]
        if cap is None or len(set(runs)) < len(runs) or not models:
            return None
        problems = min(one.problems for one in models)
        fitted = robustness.fit(
            [one.within for one in models], [one.beyond for one in models], problems
        )
        bases = condition_lib.baselines([one.line.condition for one in models])
        pairs = [(number, base) for number, base in bases.items() if base is not None]
        if fitted is None or not pairs:
            return None
        drawing = draw(
            self.name,
            f"Problems of more than {cap} operations solved against those of {cap}",
            SIZE_INCHES,
            lambda figure: _build(figure, shown, models, fitted, pairs, cap),
        )
        head = (
            f"Beyond {cap} operations, beside error-free models that solve as many problems of "
            f"{cap}: difference in points [95% interval], p"
        )
        note = (
            f"{self.name}: lines in log odds, with one slope ({fitted.slope:.2f}) for all "
            f"conditions, fitted to {len(runs)} models, which vary about them by "
            f"{fitted.rest:.2f}. They describe: what a condition does to accuracy within training "
            "is not in them."
        )
        table = _table(models, fitted, pairs, cap)
        return dataclasses.replace(drawing, tables=[(head, table)], notes=[note])


@dataclasses.dataclass(frozen=True)
class _Models:
    """The models of a condition, and the shares of problems that each solves.

    Attributes:
        line: the condition.
        within: of as many operations as the most in training.
        beyond: of more, all lengths with equal weights.
        problems: how many these are.
    """

    line: Line
    within: tuple[float, ...]
    beyond: tuple[float, ...]
    problems: tuple[int, int]


def _models(line: Line, cap: int) -> _Models | None:
    """None where a cell is missing, or is not of problems that models solve."""
    alone = [point for point in line.points if not (point.inside or point.reasked)]
    at = [point for point in alone if point.op == cap]
    over = [point for point in alone if point.op > cap]
    within, beyond = (pooled(line, points.__contains__) for points in (at, over))
    if within is None or beyond is None or any(point.probe for point in alone):
        return None
    if not len(within.by_seed) == len(beyond.by_seed) == len(line.judged):
        return None
    problems = (sum(point.n for point in at), sum(point.n for point in over))
    return _Models(line, within.by_seed, beyond.by_seed, problems)


def _table(
    models: Sequence[_Models], fitted: Fit, pairs: Sequence[tuple[int, int]], cap: int
) -> list[list[str]]:
    table = [["condition", "seeds", f"op {cap}", f"op > {cap}", "expected", "difference, points"]]
    effects = [fitted.effect(*pair) for pair in pairs]
    corrected = inference.holm([effect.p for effect in effects])
    for (number, _), effect, holm in zip(pairs, effects, corrected, strict=True):
        one = models[number]
        means = [100 * float(np.mean(shares)) for shares in (one.within, one.beyond)]
        value, low, high = (f"{100 * x:+.1f}" for x in (effect.value, effect.low, effect.high))
        ps = f"{inference.in_words(effect.p)} (Holm {inference.in_words(holm)})"
        table.append(
            [
                one.line.label,
                str(len(one.within)),
                *(f"{mean:.1f}" for mean in (*means, 100 * effect.expected)),
                f"{value} [{low}, {high}], {ps}",
            ]
        )
    return table


def _build(
    figure: "Figure",
    shown: Shown,
    models: Sequence[_Models],
    fitted: Fit,
    pairs: Sequence[tuple[int, int]],
    cap: int,
) -> None:
    about = "a mark is a model; dashed is the line of error-free models; axes are in log odds"
    title(
        figure,
        f"Beyond {cap} operations, at equal accuracy within training",
        f"{shown.about}; {about}",
        top=0.945,
    )
    axes = figure.add_axes((0.07, 0.12, 0.56, 0.71))
    look_of = dict(zip((line.label for line in shown.lines), looks(shown.lines), strict=True))
    each = [look_of[one.line.label] for one in models]
    handles: list[Any] = []
    for one, look in zip(models, each, strict=True):
        x, y = (special.logit(_inside(shares)) for shares in (one.within, one.beyond))
        handles += axes.plot(x, y, **marks(look), markersize=7, alpha=0.9)
    for base in dict.fromkeys(base for _, base in pairs):
        mine = [base, *(number for number, other in pairs if other == base)]
        span = np.concatenate([_inside(models[number].within) for number in mine])
        ends = np.array([span.min(), span.max()])
        heights = special.logit(fitted.beyond(base, ends))
        look = {"color": each[base]["color"], "linestyle": "--", "linewidth": 1.3}
        axes.plot(special.logit(ends), heights, **look, zorder=0)
    _frame(axes, cap)
    names = [textwrap.fill(one.line.label, 46) for one in models]
    legend_beside(axes, handles, names, title="trained on", alignment="left")


def _frame(axes: "Axes", cap: int) -> None:
    axes.grid(color=GREY, alpha=0.25, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(f"problems of {cap} operations solved, the most in training", fontsize=10)
    axes.set_ylabel("problems of more operations solved", fontsize=10)
    for axis in (axes.xaxis, axes.yaxis):
        low, high = axis.get_data_interval()
        low, high = low - _ROOM, high + _ROOM
        shown = [tick for tick in _TICKS if low <= special.logit(tick / 100) <= high]
        axis.set_ticks(special.logit(np.array(shown) / 100), [f"{tick:g}%" for tick in shown])
        axis.set_view_interval(low, high, ignore=True)
    axes.tick_params(labelsize=9.5)


def _inside(shares: Sequence[float]) -> np.ndarray:
    """Shares that have log odds: at least a thousandth, and at most all but one."""
    return np.clip(np.asarray(shares), 0.001, 0.999)
