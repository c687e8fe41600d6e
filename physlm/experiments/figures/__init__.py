"""Pictures of what a study found, each a small value that a study lists in `FIGURES`.

    FIGURES = (AgainstOp(), Against("retry_rate"))

A figure draws the conditions of a study (`physlm.experiments.summary.Line`) and returns what it
drew, or None where it has nothing to show of them.
"""

from physlm.experiments.figures.against import Against
from physlm.experiments.figures.against_op import AgainstOp
from physlm.experiments.figures.against_tokens import AgainstTokens
from physlm.experiments.figures.drawing import Drawing, Figure, Shown
from physlm.experiments.figures.first_wrong import FirstWrong
from physlm.experiments.figures.grid import Grid
from physlm.experiments.figures.losses import Losses
from physlm.experiments.figures.robustness import Robustness
from physlm.experiments.figures.scaling import Scaling

# What a study without FIGURES shows.
USUAL: tuple[Figure, ...] = (AgainstOp(), Robustness(), FirstWrong(), AgainstTokens())

__all__ = [
    "USUAL",
    "Against",
    "AgainstOp",
    "AgainstTokens",
    "Drawing",
    "Figure",
    "FirstWrong",
    "Grid",
    "Losses",
    "Robustness",
    "Scaling",
    "Shown",
]
