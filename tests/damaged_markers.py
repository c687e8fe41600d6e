"""Damages of a solution by markers: sentences that are taken back, or not quite."""

import re

from damages import DAMAGES, at_random, damage, of_text

# All of them: those of `damages` and those that are added here.
__all__ = ["DAMAGES"]

MARKERS = ("BACK", "FIX", "RESTART")


def marked(rng, sentences, markers, place=None, name_only=None):
    """A copy of a sentence from anywhere comes before one, and ends in these markers."""
    place = at_random(rng, sentences) if place is None else place
    wrong = rng.choice(sentences)
    if rng.random() < 0.5 if name_only is None else name_only:
        wrong = wrong.partition(" as ")[0] + " as"
    return [*sentences[:place], f"{wrong} {markers}", *sentences[place:]]


@damage
def taken_back(rng, sentences):
    return marked(rng, sentences, rng.choice(MARKERS[:2]))


@damage
def taken_back_many_times(rng, sentences):
    for _ in range(4):
        sentences = marked(rng, sentences, "BACK")
    return sentences


@damage
def taken_back_at_the_end(rng, sentences):
    return marked(rng, sentences, rng.choice(MARKERS), len(sentences))


@damage
def taken_back_late(rng, sentences):
    """A mistake, sentences after it, and as many markers; then all of them once more."""
    place, late = at_random(rng, sentences), rng.randrange(1, 3)
    wrong = re.sub(r"\d+$", str(rng.randrange(5)), sentences[place])
    rest = sentences[place + 1 : place + 1 + late]
    count = len(rest) + 1 if rng.random() < 0.7 else rng.randrange(1, 4)
    ended = [wrong, *rest]
    ended[-1] += f" {rng.choice(MARKERS[:2])}" * count
    return [*sentences[:place], *ended, *sentences[place:]]


@damage
def begun_anew(rng, sentences):
    place = at_random(rng, sentences)
    begun = [*sentences[:place], f"{sentences[place]} RESTART"]
    return [*begun, *sentences]


@damage
def anew_and_not_begun(rng, sentences):
    return marked(rng, sentences, "RESTART")


@damage
def too_many_markers(rng, sentences):
    return marked(rng, sentences, " ".join([rng.choice(MARKERS)] * rng.randrange(2, 9)))


@damage
def too_many_markers_at_first(rng, sentences):
    return marked(rng, sentences, " ".join([rng.choice(MARKERS)] * rng.randrange(2, 9)), 0)


@damage
def mixed_markers(rng, sentences):
    return marked(rng, sentences, " ".join(rng.choices(MARKERS, k=2)))


@damage
def mixed_markers_at_first(rng, sentences):
    return marked(rng, sentences, " ".join(rng.choices(MARKERS, k=2)), 0)


@of_text(r"(?<=\S) (?=\S)")
def marker_inside(rng, match):
    return f" {rng.choice(MARKERS)} "


@of_text(r"\.")
def marker_at_an_end(rng, match):
    return f" {rng.choice(MARKERS)}."


@damage
def marker_in_what_is_said_again(rng, sentences):
    """A sentence that is right comes with a marker in its middle, before it comes as it is."""
    place = at_random(rng, sentences)
    words = sentences[place].split(" ")
    words.insert(rng.randrange(len(words)), rng.choice(MARKERS))
    return [*sentences[:place], " ".join(words), *sentences[place:]]


@of_text(r"\.")
def marker_of_other_form(rng, match):
    return rng.choice([" back.", " BACK .", "BACK.", "  BACK.", " BACKFIX.", " [BACK].", " BACK;"])


@damage
def taken_back_by_another_form(rng, sentences):
    place, text = at_random(rng, sentences), rng.choice(["back", "BACKS", "xBACK", "BACK BACk"])
    return marked(rng, sentences, text, place)


@damage
def marker_alone(rng, sentences):
    place = at_random(rng, sentences, empty=True)
    return [*sentences[:place], rng.choice(MARKERS), *sentences[place:]]


@damage
def number_after_number(rng, sentences):
    return [*sentences[:-1], f"{sentences[-1]} = {sentences[-1].rpartition(' ')[2]}"]


@damage
def what_the_problem_lacks(rng, sentences):
    return ["Define Moon's Moth as Z; so Z = 0", *sentences]
