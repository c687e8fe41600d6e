"""The names of things: 4 hierarchies of 4 categories, 5 sub-categories each, 20 names each.

A category lists its sub-categories (the last word of their names) and the twenty first words
that make names of them: sub-category "Library" and first word "Linden" give "Linden Library".
First words differ between the categories of a hierarchy, so no name begins another.
"""

import functools
import itertools
import json
import re
from typing import Any, NamedTuple

from data_gen.settings import RefusedError
from data_gen.solutions.grammar import AROUND_NAMES, MENDING_MARKERS, NEXT, PARAMETER

HIERARCHY_COUNT = CATEGORY_COUNT = 4
SUBCATEGORY_COUNT = 5
NAME_COUNT = 20

# Words and marks of the grammar: a name that held one could be read in two ways.
_OWNED = PARAMETER.symbols[1]
_KEPT = " ".join([*(x for x in AROUND_NAMES if x != _OWNED), NEXT, *MENDING_MARKERS.values(), "<>"])
_WORDS, _MARKS = re.findall(r"\w+", _KEPT), re.findall(r"[^\w ]", _KEPT)
_RESERVED = re.compile(
    rf"\b({'|'.join(_WORDS)})\b|{_OWNED}|[{re.escape(''.join(_MARKS))}]|[^\S ]|  |^ | $"
)


class Category(NamedTuple):
    """One level of a hierarchy: its own name, and the names of each sub-category."""

    name: str
    items: tuple[tuple[str, ...], ...]

    def item(self, subcategory: int, name: int) -> str:
        """The name number `name` (0..19) of sub-category 0..4."""
        return self.items[subcategory][name]


Hierarchies = tuple[tuple[Category, ...], ...]


@functools.lru_cache(maxsize=16)
def hierarchies(path: str = "") -> Hierarchies:
    """Our own names, or those of a JSON file of the same shape.

    The file holds a list of 4 hierarchies, each a list of 4 categories from the largest to the
    smallest, each an object with `name` and `items`, a list of 5 lists of 20 names.

    Raises:
      ValueError: the file cannot be read, is of another shape, or has a name twice or one that
        makes a text ambiguous; one sentence.
    """
    if not path:
        return HIERARCHIES
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        allowed = f"a JSON file of names that can be read ({why})"
        raise RefusedError("names_file", path, allowed) from error
    found = tuple(
        tuple(
            Category(_at(category, "name", where), tuple(map(tuple, _items(category, where))))
            for category, where in _list(hierarchy, CATEGORY_COUNT, f"hierarchy {h}")
        )
        for h, (hierarchy, _) in enumerate(_list(content, HIERARCHY_COUNT, "the file"), 1)
    )
    check(found)
    return found


def check(found: Hierarchies) -> None:
    """Raises where names would make a text ambiguous.

    Raises:
      ValueError: names the first name that is wrong, and why.
    """
    for h, hierarchy in enumerate(found, 1):
        names = [category.name for category in hierarchy]
        names += [name for category in hierarchy for sub in category.items for name in sub]
        for name in names:
            if not isinstance(name, str) or not name or _RESERVED.search(name):
                raise ValueError(
                    f"the name {name!r} of hierarchy {h} is not allowed: a text of words parted "
                    f'by single blanks is, without "{_OWNED}", marks of punctuation and the words '
                    f"{', '.join(_WORDS)}."
                )
        ordered = sorted(names)
        for first, second in itertools.pairwise(ordered):
            if first == second:
                raise ValueError(f"the name {first!r} stands twice in hierarchy {h}.")
        known = set(names)
        for name in names:
            words = name.split(" ")
            for n in range(1, len(words)):
                if (start := " ".join(words[:n])) in known:
                    raise ValueError(
                        f"the name {start!r} begins the name {name!r} of hierarchy {h}."
                    )


def _list(content: Any, count: int, where: str) -> list[tuple[Any, str]]:
    if not isinstance(content, list) or len(content) != count:
        raise ValueError(f"{where} must hold a list of {count}.")
    return [(part, f"{where}, part {n}") for n, part in enumerate(content, 1)]


def _at(content: Any, key: str, where: str) -> Any:
    if not isinstance(content, dict) or key not in content:
        raise ValueError(f"{where} has no {key!r}.")
    return content[key]


def _items(category: Any, where: str) -> list[list[Any]]:
    subcategories = _list(_at(category, "items", where), SUBCATEGORY_COUNT, where)
    return [[name for name, _ in _list(sub, NAME_COUNT, at)] for sub, at in subcategories]


def _category(name: str, subcategories: str, firsts: str) -> Category:
    return Category(
        name,
        tuple(
            tuple(f"{first} {last}" for first in firsts.split())
            for last in subcategories.split(", ")
        ),
    )


HIERARCHIES: Hierarchies = (
    (
        _category(
            "Region",
            "Valley, County, Plateau, Coast, Province",
            "Amber Ashen Bracken Cedar Copper Dover Elder Falcon Granite Harrow "
            "Ivory Juniper Kestrel Larch Marble Norton Osprey Pewter Quarry Raven",
        ),
        _category(
            "Library",
            "Library, Archive, Reading Room, Bookshop, Athenaeum",
            "Abbey Bishop Carlton Dunmore Easton Fairfax Grafton Holloway Inkwell Jarrow "
            "Kingsley Linden Merton Newbury Orchard Portland Queensway Radley Sutton Thornton",
        ),
        _category(
            "Shelf",
            "Shelf, Bookcase, Cabinet, Rack, Trolley",
            "Ashwood Bamboo Birch Chestnut Ebony Elm Glass Hickory Iron Jade "
            "Lacquer Mahogany Maple Oak Pine Rosewood Steel Teak Walnut Willow",
        ),
        _category(
            "Book",
            "Atlas, Novel, Almanac, Reader, Primer",
            "Arctic Botany Chess Desert Epic Fable Garden History Island Jungle "
            "Knight Lunar Mystery Nature Ocean Poetry Railway Science Travel Winter",
        ),
    ),
    (
        _category(
            "Harbor",
            "Harbor, Marina, Port, Quay, Wharf",
            "Anchor Beacon Channel Drake Eastern Fisher Gull Haven Inlet Jetty "
            "Keel Lagoon Mariner Northern Outer Pelican Reef Southern Tidal Western",
        ),
        _category(
            "Ship",
            "Ferry, Schooner, Trawler, Freighter, Barge",
            "Albatross Bluefin Comet Dolphin Endeavour Frigate Galaxy Horizon Icebreaker Jupiter "
            "Kraken Liberty Meridian Neptune Orion Phoenix Ranger Sirius Triton Voyager",
        ),
        _category(
            "Crate",
            "Crate, Barrel, Trunk, Chest, Drum",
            "Azure Beige Crimson Denim Emerald Fawn Golden Hazel Indigo Khaki "
            "Lilac Magenta Navy Olive Purple Russet Scarlet Turquoise Umber Violet",
        ),
        _category(
            "Instrument",
            "Compass, Lantern, Sextant, Whistle, Barometer",
            "Alpine Brass Captain Deck Engine Field Gilded Hand Imperial Jewelled "
            "Keeper Long Miniature Nickel Old Pocket Quartz Royal Silver Twin",
        ),
    ),
    (
        _category(
            "Forest",
            "Forest, Grove, Woodland, Thicket, Park",
            "Autumn Bear Cloud Deer Echo Foxglove Green Hidden Iris Jasper "
            "King Lake Misty Nightfall Owl Pioneer Quiet River Shadow Timber",
        ),
        _category(
            "Tree",
            "Alder, Beech, Hawthorn, Spruce, Sycamore",
            "Ancient Bent Crooked Dwarf Evergreen Forked Giant Hollow Ivied Jagged "
            "Knotted Lofty Mossy Narrow Old Pale Red Slender Tall Weeping",
        ),
        _category(
            "Nest",
            "Nest, Burrow, Hive, Roost, Den",
            "Bark Clay Down Earth Feather Grass Heather Ivy Leaf Moss "
            "Needle Petal Reed Root Rush Sand Straw Thistle Twig Wool",
        ),
        _category(
            "Animal",
            "Finch, Sparrow, Squirrel, Beetle, Moth",
            "Alert Bold Calm Dusky Eager Fluffy Gentle Happy Inky Jolly "
            "Keen Lively Merry Nimble Orange Proud Quick Rusty Sleepy Tiny",
        ),
    ),
    (
        _category(
            "Market",
            "Market, Bazaar, Fair, Arcade, Plaza",
            "Avenue Bridge Castle Dockside Eastgate Fountain Guildhall Hillside Italian Jubilee "
            "Keystone Lowtown Midtown Northgate Oldtown Princes Riverside Southgate Tower Uptown",
        ),
        _category(
            "Stall",
            "Stall, Kiosk, Counter, Booth, Wagon",
            "Adler Baxter Cooper Dawson Ellis Fletcher Garnet Harper Irving Jensen "
            "Keller Lambert Mercer Nolan Osborne Parker Quinn Rowe Sawyer Tanner",
        ),
        _category(
            "Basket",
            "Basket, Hamper, Tray, Bowl, Sack",
            "Braided Checked Dotted Embroidered Flowered Gingham Homespun Inlaid Jute Knitted "
            "Linen Mesh Netted Oval Plaited Quilted Round Striped Tasselled Woven",
        ),
        _category(
            "Fruit",
            "Apple, Plum, Pear, Cherry, Melon",
            "Aromatic Bitter Crisp Dried Early Fresh Glossy Honey Imported Juicy "
            "Kitchen Late Mellow Native Organic Prize Ripe Sweet Tart Wild",
        ),
    ),
)
