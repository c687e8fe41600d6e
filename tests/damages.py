"""Damages of a solution's text and of its sentences, each by a source of chance."""

import re

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
