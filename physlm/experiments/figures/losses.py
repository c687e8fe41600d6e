"""Figures of training losses."""

import dataclasses
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from physlm.experiments.figures.drawing import Curve, Drawing, Shown, draw
from physlm.experiments.figures.looks import looks
from physlm.experiments.figures.style import legend_beside, plain, title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZE_INCHES = (11.0, 4.6)


@dataclasses.dataclass(frozen=True)
class Losses:
    """The recent mean of the training loss against tokens, a curve for each run.

    Data differ between conditions, and with them what there is to predict, so that losses tell how
    a run went and not which condition is better.

    Attributes:
        name: of the picture's files.
    """

    name: str = "loss"

    def draw(self, shown: Shown) -> Drawing | None:
        """The picture; None where no run's metrics are in the store any more."""
        known = {label: [run for run in runs if run] for label, runs in shown.curves.items()}
        curves: dict[str, list[Curve]] = {}
        for label, runs in known.items():
            # A model that is judged in several ways is one run.
            if runs and runs not in curves.values():
                curves[label] = runs
        if not curves:
            return None
        alternative = "Training losses against the tokens seen"
        look_of = dict(zip((line.label for line in shown.lines), looks(shown.lines), strict=True))
        return draw(
            self.name,
            alternative,
            SIZE_INCHES,
            lambda on: _build(on, curves, look_of, shown.about),
        )


def _build(
    figure: "Figure",
    curves: Mapping[str, Sequence[Curve]],
    look_of: dict[str, dict[str, Any]],
    about: str,
) -> None:
    what = "mean over recent steps, nats a token; not comparable between different data"
    title(figure, "Training loss", f"{about}; {what}", top=0.94)
    axes = figure.add_axes((0.07, 0.12, 0.58, 0.7))
    for label, runs in curves.items():
        look = {**look_of[label], "marker": None}
        for nth, curve in enumerate(runs):
            tokens, losses = zip(*curve, strict=True)
            name = None if nth else textwrap.fill(label, 46)
            axes.plot(tokens, losses, **look, linewidth=1.4, alpha=0.9, label=name)
    plain(axes)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}")
    axes.tick_params(which="both", labelsize=9)
    axes.xaxis.set_major_formatter(lambda value, _: _rounded(value))
    axes.set_xlabel("tokens seen", fontsize=10.5)
    legend_beside(axes, *axes.get_legend_handles_labels())


def _rounded(number: float) -> str:
    for size, suffix in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:g}{suffix}"
    return f"{number:g}"
