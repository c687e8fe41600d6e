"""The judge beside a reading that shares nothing with it, on solutions damaged in many ways."""

import collections
import random
import re

import pytest
from drawn import SMALL, drawn, facts_of
from second_reading import Reading

from data_gen.spec import MED
from data_gen.text.judge import judge

# Each takes a source of chance and a solution's sentences, without their full stops, and returns
# sentences or a text; None where there is nothing to damage so.
DAMAGES = {}


def damage(make):
    DAMAGES[make.__name__] = make
    return make


def of_text(pattern):
    """A damage of one match of a pattern in the whole text, by a function of it and chance."""

    def decorate(change):
        def make(rng, sentences):
            text = " " + ". ".join(sentences) + "."
            found = list(re.finditer(pattern, text))
            if not found:
                return None
            match = rng.choice(found)
            return text[: match.start()] + change(rng, match) + text[match.end() :]

        DAMAGES[change.__name__] = make
        return change

    return decorate


def at_random(rng, sentences, empty=False):
    return rng.randrange(len(sentences) + empty)


@of_text(r"\d+")
def another_number(rng, match):
    return str(rng.randrange(24))


@of_text(r"\d+(?=[.;])")
def another_result(rng, match):
    return str(int(match[0]) + rng.choice([-1, 1, 5, 23]))


@of_text(r"(\d+) ([+*-]) (\d+)")
def numbers_swapped(rng, match):
    return f"{match[3]} {match[2]} {match[1]}"


@of_text(r"(\w) ([+*-]) (\w)(?= = \d)")
def letters_swapped(rng, match):
    return f"{match[3]} {match[2]} {match[1]}"


@of_text(r"(\w+) ([+*-]) (\w+) = (\w+) ([+*-]) (\w+)")
def operands_swapped(rng, match):
    return f"{match[3]} {match[2]} {match[1]} = {match[6]} {match[5]} {match[4]}"


@of_text(r"= \d+")
def leading_zero(rng, match):
    return match[0].replace("= ", "= 0")


@of_text(r"\d+(?= [+*-])")
def operand_with_leading_zeros(rng, match):
    return f"00{match[0]}"


@of_text(r"\d+")
def not_reduced(rng, match):
    return str(int(match[0]) + rng.choice([5, 23]))


@of_text(r"\d+")
def signed(rng, match):
    return rng.choice("+-") + match[0]


@of_text(r"\d")
def digit_of_another_script(rng, match):
    return rng.choice(["٣", "²", chr(ord("０") + int(match[0]))])


@of_text(r"\d+")
def huge(rng, match):
    return "9" * rng.choice([8, 9, 10, 5000])


@of_text(r"\b[A-Za-z]\b(?!')")
def another_letter(rng, match):
    return rng.choice("abcdefgxyzABC")


@of_text(r"\b[A-Za-z]\b(?!')")
def letter_of_another_script(rng, match):
    return rng.choice("éяα中")


@of_text(r"\b[A-Za-z]\b(?!')")
def number_for_a_letter(rng, match):
    return str(rng.randrange(5))


@of_text(r" [+*-] ")
def another_operator(rng, match):
    return f" {rng.choice('+-*/')} "


@of_text(r"[+*-](?=[^.;]*? [+*-] )")
def operator_of_the_symbols(rng, match):
    return rng.choice("+-*")


@of_text(r"(\w) = ([^.;=]+ = )?([^.;=]+) = (\d+)")
def result_alone(rng, match):
    return f"{match[1]} = {match[4]}"


@of_text(r" = [^.;=]+(?= = )")
def part_left_out(rng, match):
    return ""


@of_text(r" = [^.;=]+(?= = )")
def part_twice(rng, match):
    return match[0] * 2


@of_text(r" so ")
def without_so(rng, match):
    return " "


@of_text(r"; (?!so)")
def so_early(rng, match):
    return "; so "


@of_text(r" ")
def two_blanks(rng, match):
    return "  "


@of_text(r" ")
def no_blank(rng, match):
    return ""


@of_text(r" ")
def another_blank(rng, match):
    return rng.choice(["\t", "\n", "\u00a0", "\u2003", "\x1f"])


@of_text(r"[.;=]")
def mark_left_out(rng, match):
    return ""


@of_text(r"[.;]")
def another_mark(rng, match):
    return rng.choice(".;,!")


@of_text(r"[.;=]")
def mark_twice(rng, match):
    return match[0] * 2


@of_text(r"\w")
def another_case(rng, match):
    return match[0].swapcase()


@of_text(r"; [^;.]*(?=;)")
def line_left_out(rng, match):
    return ""


@of_text(r"; [^;.]*(?=;)")
def line_twice(rng, match):
    return match[0] * 2


@of_text(r"; so [^;.]*")
def last_line_twice(rng, match):
    return match[0].replace("; so", ";") + match[0]


@of_text(r"Define (.+?)'s (.+?) as")
def owner_and_thing_swapped(rng, match):
    return f"Define {match[2]}'s {match[1]} as"


@damage
def idle_line(rng, sentences):
    """A line that nothing uses, of letters that were defined before or of a number."""
    place = at_random(rng, sentences)
    known = re.findall(r"\b(\w) = (?:[^;]* )?(\d+)(?=;|$)", "; ".join(sentences[:place]))
    letter, number = rng.choice([*known, ("", "3")])
    line = f"; Z = {letter and letter + ' = '}{number}"
    head, mark, rest = sentences[place].partition(";")
    return [*sentences[:place], head + line + mark + rest, *sentences[place + 1 :]]


@damage
def needless_zero(rng, sentences):
    """A known letter times 0 is added: the value stays, what goes into it does not."""
    known = re.findall(r"\b(\w) = (?:[^;]* )?(\d+)(?=;|$)", "; ".join(sentences[:-1]))
    if not known:
        return None
    letter, number = rng.choice(known)
    found = re.fullmatch(r"(.*); so (\w) = (.* = )?(\d+)", sentences[-1])
    lines = f"; X = {found[3] or ''}{found[4]}; Y = 0 * {letter} = 0 * {number} = 0"
    ending = f"; so {found[2]} = X + Y = {found[4]} + 0 = {found[4]}"
    return [*sentences[:-1], found[1] + lines + ending]


@damage
def sentence_left_out(rng, sentences):
    place = at_random(rng, sentences)
    return sentences[:place] + sentences[place + 1 :]


@damage
def sentence_twice(rng, sentences):
    place = at_random(rng, sentences)
    return [*sentences[: place + 1], sentences[place], *sentences[place + 1 :]]


@damage
def sentence_again_with_another_letter(rng, sentences):
    place = at_random(rng, sentences)
    letter = re.search(r" as (\w)", sentences[place])[1]
    again = re.sub(rf"\b{letter}(?= =|;)", "Z", sentences[place])
    return [*sentences[: place + 1], again, *sentences[place + 1 :]]


@damage
def neighbours_swapped(rng, sentences):
    place = at_random(rng, sentences)
    swapped = [*sentences]
    swapped[place - 1], swapped[place] = swapped[place], swapped[place - 1]
    return swapped


@damage
def shuffled(rng, sentences):
    return rng.sample(sentences, len(sentences))


@damage
def names_swapped(rng, sentences):
    one, other = (at_random(rng, sentences) for _ in range(2))
    names = [re.match(r"Define (.+) as ", sentences[n])[1] for n in (one, other)]
    swapped = [*sentences]
    swapped[one] = swapped[one].replace(names[0], names[1])
    swapped[other] = swapped[other].replace(names[1], names[0])
    return swapped


@damage
def truncated(rng, sentences):
    text = " " + ". ".join(sentences) + "."
    return text[: rng.randrange(len(text))]


@damage
def truncated_to_sentences(rng, sentences):
    return sentences[: at_random(rng, sentences)]


@damage
def beginning_left_out(rng, sentences):
    text = " " + ". ".join(sentences) + "."
    return text[rng.randrange(2, len(text)) :]


@damage
def without_stop(rng, sentences):
    return ". ".join(sentences)


@damage
def spaces_around(rng, sentences):
    return "  " + ". ".join(sentences) + ". \n"


@damage
def renamed_letters(rng, sentences):
    """All letters others: nothing is wrong."""
    letters = [chr(n) for n in [*range(65, 91), *range(97, 123)]]
    new = dict(zip(letters, rng.sample(letters, len(letters)), strict=True))
    return [
        head + mark + re.sub(r"\b[A-Za-z]\b", lambda m: new[m[0]], lines)
        for head, mark, lines in (re.match(r"(.* as)( )(.*)", s).groups() for s in sentences)
    ]


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


def compared(found, spec, each, seed):
    """Judges every damage of some solutions twice; returns counts, and where the two differ."""
    rng = random.Random(seed)
    counts, differing = collections.Counter(), []
    for record in found:
        asked = record["layers"], record["problem"], record["question"]
        facts, reading = facts_of(record, spec), Reading(*asked, spec.modulus)
        sentences = record["solution"].strip().removesuffix(".").split(". ")
        answer = f" {record['answer']}"
        for name in each:
            made = DAMAGES[name](rng, sentences)
            if made is None:
                continue
            text = made if isinstance(made, str) else "".join(f" {s}." for s in made)
            if rng.random() < 0.1:
                answer = rng.choice([" 7", " 0", "", f" 0{record['answer']}"])
            judged, read = judge(facts, text, answer), reading.right(text, answer)
            counts[name, read] += 1
            if judged.correct != read:
                differing.append((name, read, judged.reason, text, record))
            answer = f" {record['answer']}"
    return counts, differing


def test_right_solutions_are_read_as_right():
    _, _, found = drawn(SMALL)
    for record in found:
        reading = Reading(record["layers"], record["problem"], record["question"], SMALL.modulus)
        assert reading.value(reading.query) == record["answer"]
        assert reading.right(record["solution"], f" {record['answer']}")


@pytest.mark.parametrize("name", DAMAGES)
def test_what_is_damaged_is_judged_as_it_is_read(name):
    _, _, found = drawn(SMALL)
    counts, differing = compared(found, SMALL, [name], 0)
    assert not differing, differing[0]
    assert counts.total() > 5


@pytest.mark.slow
def test_damaged_solutions_of_the_papers_class_are_judged_as_they_are_read():
    _, _, found = drawn(MED)
    counts, differing = compared(found, MED, DAMAGES, 1)
    assert not differing, differing[0]
    assert counts.total() > 20_000 and len(DAMAGES) >= 28
    both = {name for name in DAMAGES if counts[name, True] and counts[name, False]}
    assert len(both) > 10, "some damage leaves a solution right"
