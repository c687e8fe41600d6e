"""The input and output of figures, and their rendering in light and dark."""

import dataclasses
import io
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from physlm.experiments.published import Published
from physlm.experiments.summary import Line

if TYPE_CHECKING:
    import matplotlib.figure

DOTS_PER_INCH = 150

# All else is drawn in colours that can be read on both grounds (`style`).
_GROUNDS = {"light": ("white", "#1b1b1b"), "dark": ("#16181c", "#e6e6e6")}


# Tokens seen and the loss then, of one run.
Curve = Sequence[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Trained:
    """Size, tokens and final loss of a run.

    Attributes:
        parameters: of its model; None where its configuration is not in the store, or cannot be
            read here.
        tokens: that it was trained on.
        loss: the recent mean of its training loss at the end, nats a token; None where its metrics
            are not in the store.
    """

    parameters: int | None
    tokens: float
    loss: float | None


@dataclasses.dataclass(frozen=True)
class Shown:
    """The data that figures draw from.

    Attributes:
        lines: the conditions.
        about: what was run, in words.
        beside: the paper's numbers: by quantity, and by the labels of the conditions that it has.
        curves: by the conditions' labels, the tokens and losses of each of their runs.
        trained: by the conditions' labels, what each of their runs took, in the order of `judged`.
    """

    lines: Sequence[Line]
    about: str
    beside: Mapping[str, Mapping[str, Published]] = dataclasses.field(default_factory=dict)
    curves: Mapping[str, Sequence[Curve]] = dataclasses.field(default_factory=dict)
    trained: Mapping[str, Sequence[Trained]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A picture.

    Attributes:
        name: of its files, without their endings.
        alternative: what it shows, for who does not see it.
        png: for slides and READMEs.
        svg: for pages, on a light ground.
        dark: the same on a dark ground.
        tables: numbers that are read off it, under their heads.
        notes: what is to be known of it, and what is not in it.
    """

    name: str
    alternative: str
    png: bytes
    svg: bytes
    dark: bytes
    tables: Sequence[tuple[str, list[list[str]]]] = ()
    notes: Sequence[str] = ()


class Figure(Protocol):
    """The interface of figures."""

    @property
    def name(self) -> str:
        """The name of the picture's files, without suffix."""

    def draw(self, shown: Shown) -> Drawing | None:
        """The picture; None where there is nothing to show."""


def draw(
    name: str,
    alternative: str,
    size_inches: tuple[float, float],
    build: Callable[["matplotlib.figure.Figure"], None],
) -> Drawing:
    """Renders what `build` draws as PNG and SVG, light and dark."""
    # Matplotlib takes a second to import and is needed here alone. A figure of its own, without
    # pyplot, is drawn off screen and leaves no global state behind.
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    made: dict[str, bytes] = {}
    for ground, (paper, ink) in _GROUNDS.items():
        with matplotlib.rc_context(_settings(paper, ink)):
            figure = Figure(figsize=size_inches, dpi=DOTS_PER_INCH)
            FigureCanvasAgg(figure)
            build(figure)
            made[ground] = _saved(figure, "svg")
            if ground == "light":
                made["png"] = _saved(figure, "png")
    return Drawing(name, alternative, made["png"], made["light"], made["dark"])


def _settings(paper: str, ink: str) -> Any:
    inks = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    papers = ("figure.facecolor", "axes.facecolor", "savefig.facecolor", "legend.facecolor")
    return {
        **dict.fromkeys(inks, ink),
        **dict.fromkeys(papers, paper),
        # The same numbers are the same file.
        "svg.hashsalt": "physlm",
    }


def _saved(figure: "matplotlib.figure.Figure", kind: str) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, metadata={"Date": None} if kind == "svg" else None)
    return buffer.getvalue()
