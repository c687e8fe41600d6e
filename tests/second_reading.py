"""A second reading of problems and solutions, which shares nothing with `data_gen.text`.

It knows the sentences by heart and not from the grammar, and reads them strictly: one blank between
words, numerals without leading zeros, markers at the end of a sentence and nowhere else: one or
more times BACK or FIX, no more than there are sentences to take back, or RESTART once. It says
right or wrong, and no more.
"""

import re

NUMERAL = r"(?:0|[1-9]\d{0,8})"  # none of ten digits is below a modulus
_STATED = re.compile(r"The number of each (.+?) equals (.+)", re.ASCII)
_SCALED = re.compile(rf"({NUMERAL}) (more than|times as much as) (.+)", re.ASCII)
_HEAD = re.compile(r"Define (.+) as ([A-Za-z])", re.ASCII)
_LINE = re.compile(
    rf"([A-Za-z]) = (?:([A-Za-z]|{NUMERAL}(?= [+*-])) (?:([+*-]) ({NUMERAL}|[A-Za-z]) = "
    rf"({NUMERAL}) ([+*-]) ({NUMERAL}) )?= )?({NUMERAL})",
    re.ASCII,
)
_MARKER = re.compile(r" (?:BACK|FIX|RESTART)")
_ENDING = re.compile(r"((?: BACK)+|(?: FIX)+| RESTART)\Z")


class WrongError(Exception):
    """The text says something that is not so, or in a way that is not allowed."""


def demand(holds):
    if not holds:
        raise WrongError


class Reading:
    """A problem: which parameters go into which, and how."""

    def __init__(self, layers, problem, question, modulus=23):
        self.modulus = modulus
        self.layer = {}  # of an item's name, or of a category's
        self.items = [list(items) for _, items in layers]
        for depth, (category, items) in enumerate(layers):
            self.layer |= {category: depth} | dict.fromkeys(items, depth)
        self.categories = {category for category, _ in layers}
        self.equals = {}  # of what is stated: (number or None, its operator, joiner, parameters)
        for sentence in problem.strip().removesuffix(".").split(". "):
            stated, right = _STATED.fullmatch(sentence).groups()
            self.equals[stated] = self.right_side(right)
        thing, owner = re.fullmatch(r"How many (.+) does (.+) have\?", question.strip()).groups()
        self.query = f"{owner}'s {thing}"

    def right_side(self, text):
        if text.isdigit():
            return int(text), "+", "+", []
        number, operator, joiner = None, "+", "+"
        if found := _SCALED.fullmatch(text):
            number, operator = int(found[1]), "+" if found[2] == "more than" else "*"
            text = found[3]
        if text.startswith("the difference of "):
            joiner = "-"
        text = re.sub("^the (sum|difference) of ", "", text)
        return (
            number,
            operator,
            joiner,
            [part.removeprefix("each ") for part in re.split(r"(?:,| and) (?=each )", text)],
        )

    def terms(self, parameter):
        """What a parameter adds up: products of the parameters in each of these tuples."""
        # Names may have such an ending of their own.
        parts = parameter.split("'s ")
        cuts = [("'s ".join(parts[:n]), "'s ".join(parts[n:])) for n in range(1, len(parts))]
        cuts = [cut for cut in cuts if self.layer.keys() >= set(cut)]
        demand(len(cuts) == 1)
        [(owner, thing)] = cuts
        demand(owner not in self.categories and self.layer[owner] < self.layer[thing])
        if thing not in self.categories:
            demand(self.layer[thing] == self.layer[owner] + 1)
            return [(named,) for named in self.equals.get(parameter, (0, 0, 0, []))[3]]
        below = self.layer[owner] + 1
        held = [item for item in self.items[below] if f"{owner}'s {item}" in self.equals]
        if self.layer[thing] == below:
            return [(f"{owner}'s {item}",) for item in held]
        return [(f"{owner}'s {item}", f"{item}'s {thing}") for item in held]

    def value(self, parameter):
        """What it is worth, worked out anew each time."""
        found = []
        for term in self.terms(parameter):
            product = 1
            for factor in term:
                product *= self.value(factor)
            found.append(product)
        number, operator, joiner, _ = self.equals.get(parameter, (None, "+", "+", []))
        if not found:
            return (number or 0) % self.modulus
        total = found[0] - found[1] if joiner == "-" else sum(found)
        if number is not None:
            total = total * number if operator == "*" else total + number
        return total % self.modulus

    def right(self, solution, answer):
        """Whether a solution and the answer after it are right in all that stands."""
        try:
            self.follow(standing(solution))
            demand(answer.strip() == str(self.value(self.query)))
        except WrongError:
            return False
        return True

    def follow(self, sentences):
        worth, means = {}, {}  # letters, and the parameters that went into them
        last = None
        for sentence in sentences:
            head, *lines = sentence.split("; ")
            found = _HEAD.fullmatch(head)
            demand(found and lines and lines[-1].startswith("so "))
            last, letter = found.groups()
            needed = {factor for term in self.terms(last) for factor in term}
            lines[-1] = lines[-1].removeprefix("so ")
            for line in lines:
                written, went_in = self.work_out(line, worth, means)
                demand(went_in <= needed)
                demand((written == letter) == (line is lines[-1]))
            demand(went_in == needed and worth[letter] == self.value(last))
            means[letter] = {last}
        demand(last == self.query)

    def work_out(self, line, worth, means):
        read = _LINE.fullmatch(line)
        demand(read)
        written, left, operator, right, left_number, again, right_number, result = read.groups()
        demand(written not in worth)
        went_in = set()
        quoted = [(left, left_number), (right, right_number)] if operator else [(left, result)]
        for symbol, number in quoted:
            demand(number is None or int(number) < self.modulus)
            if symbol is None:
                continue
            if symbol.isalpha():
                demand(symbol in worth)
                went_in |= means[symbol]
            demand((worth[symbol] if symbol.isalpha() else int(symbol)) == int(number))
        demand(int(result) < self.modulus)
        if operator:
            a, b = int(left_number), int(right_number)
            total = a + b if operator == "+" else a - b if operator == "-" else a * b
            demand(again == operator and total % self.modulus == int(result))
        worth[written], means[written] = int(result), went_in
        return written, went_in


def standing(solution):
    """The sentences that are not taken back, markers that take nothing back among them."""
    text = solution.strip()
    demand(text.endswith("."))
    kept = []
    for sentence in text.removesuffix(".").split(". "):
        kept.append(sentence)
        found = _ENDING.search(sentence)
        if not found or _MARKER.search(sentence[: found.start()]):
            continue
        markers = found[0].split()
        if len(markers) <= len(kept):
            kept = [] if markers[0] == "RESTART" else kept[: -len(markers)]
    return kept
