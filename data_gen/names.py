"""The names of things: 4 hierarchies of 4 categories, 5 sub-categories each, 20 names each.

A category lists its sub-categories (the last word of their names) and the twenty first words
that make names of them: sub-category "Library" and first word "Linden" give "Linden Library".
First words differ between the categories of a hierarchy, so no name begins another.
"""

from typing import NamedTuple


class Category(NamedTuple):
    """One level of a hierarchy."""

    name: str
    subcategories: tuple[str, ...]
    firsts: tuple[str, ...]

    def item(self, subcategory: int, name: int) -> str:
        """The name number `name` (0..19) of sub-category 0..4."""
        return f"{self.firsts[name]} {self.subcategories[subcategory]}"


def _category(name: str, subcategories: str, firsts: str) -> Category:
    return Category(name, tuple(subcategories.split(", ")), tuple(firsts.split()))


HIERARCHIES: tuple[tuple[Category, ...], ...] = (
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
