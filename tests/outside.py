"""Kinds of mistake that are not the package's, as a study would add them."""

import dataclasses

import numpy as np

from data_gen.solutions import faults, kinds

AGAIN = kinds.register(
    kinds.WrongParameter(
        "outside.again",
        "A parameter that the solution has computed already.",
        "its name alone: it has been defined",
        faults.REPEATED,
        candidates=lambda moment: moment.known_P,
    )
)


def one_off(sentence):
    """The distance of a number from the next and from the one before."""
    distance = np.arange(sentence.spec.modulus)
    return (distance == 1) | (distance == sentence.spec.modulus - 1)


OFF_BY_ONE = kinds.register(
    dataclasses.replace(
        kinds.find("calculation"),
        name="outside.off_by_one",
        meaning="The result of a line is one too large or too small.",
        others=one_off,
    )
)
