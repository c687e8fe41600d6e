"""Which parameters are matrices, and which of their axes are its rows and its columns.

Axes that are neither, of layers and of experts, hold separate matrices, and come first.
"""

from typing import NamedTuple


class Axes(NamedTuple):
    """Axes of a kernel: those over which a product sums, and those of its result."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


# By the ends of their paths.
HIDDEN = {
    "attention/query/kernel": Axes((1,), (2, 3)),
    "attention/key/kernel": Axes((1,), (2, 3)),
    "attention/value/kernel": Axes((1,), (2, 3)),
    "attention/out/kernel": Axes((1, 2), (3,)),
    "mlp/up/kernel": Axes((1,), (2,)),
    "mlp/gate/kernel": Axes((1,), (2,)),
    "mlp/down/kernel": Axes((1,), (2,)),
    "mixture/up/kernel": Axes((2,), (3,)),
    "mixture/gate/kernel": Axes((2,), (3,)),
    "mixture/down/kernel": Axes((2,), (3,)),
}
_OTHERS = {
    "mixture/router/kernel": Axes((1,), (2,)),
    "embed/embedding": Axes((0,), (1,)),
    "head/kernel": Axes((0,), (1,)),
}


def hidden_axes(path: str) -> Axes | None:
    """The axes of a hidden kernel, by its path; None where a leaf is none."""
    return next((axes for end, axes in HIDDEN.items() if path.endswith(end)), None)


def axes_of(path: str) -> Axes | None:
    """The axes of any matrix, by its path; None where a leaf is none."""
    found = (axes for end, axes in _OTHERS.items() if path.endswith(end))
    return hidden_axes(path) or next(found, None)
