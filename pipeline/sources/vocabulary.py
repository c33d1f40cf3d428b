"""Words of the invented marketplace. Each attribute value has several, as in real titles."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.stable_hash import hash_text

Words = tuple[str, ...]

# Shared by all shops: what carries from one to another.
THEMES: tuple[Words, ...] = (
    ("Galaxy", "Orbit", "Starlight", "Cosmic"),
    ("Ocean", "Tidal", "Coral", "Harbour"),
    ("Nordic", "Fjord", "Glacier", "Arctic"),
    ("Desert", "Dune", "Oasis", "Canyon"),
    ("Forest", "Woodland", "Moss", "Cedar"),
    ("Royal", "Castle", "Crown", "Palace"),
    ("Steampunk", "Clockwork", "Brass", "Gearwheel"),
    ("Jungle", "Safari", "Tropical", "Rainforest"),
    ("Lantern", "Bamboo", "Lotus", "Jade"),
    ("Midnight", "Shadow", "Moonlit", "Raven"),
    ("Carnival", "Circus", "Festival", "Parade"),
    ("Alpine", "Summit", "Meadow", "Chalet"),
)
STYLES: tuple[Words, ...] = (
    ("Cosy", "Gentle", "Calm"),
    ("Bold", "Daring", "Fearless"),
    ("Vintage", "Antique", "Classic"),
    ("Minimal", "Plain", "Simple"),
    ("Playful", "Funny", "Cheerful"),
    ("Luxury", "Premium", "Deluxe"),
    ("Rustic", "Handmade", "Country"),
    ("Futuristic", "Digital", "Electric"),
)
AUDIENCES: tuple[Words, ...] = (
    ("for Beginners", "for First Steps"),
    ("for Children", "for Young Ones"),
    ("for Experts", "for Professionals"),
    ("for Families", "for Sharing"),
    ("for Collectors", "for Enthusiasts"),
)
# Each shop's own: what only its own buyers teach.
KINDS: dict[str, tuple[Words, ...]] = {
    "books": (
        ("Mystery Novel", "Detective Story"),
        ("Cookbook", "Recipe Collection"),
        ("Biography", "Memoir"),
        ("Travel Guide", "Atlas"),
        ("Poetry Book", "Collected Poems"),
        ("Love Story", "Romance Novel"),
        ("History Book", "Chronicle"),
        ("Picture Book", "Illustrated Tale"),
    ),
    "games": (
        ("Puzzle Game", "Brain Teaser"),
        ("Racing Game", "Rally Game"),
        ("Board Game", "Tabletop Game"),
        ("Card Game", "Deck Game"),
        ("Strategy Game", "Empire Builder"),
        ("Adventure Game", "Quest Game"),
        ("Quiz Game", "Trivia Game"),
        ("Farming Game", "Life Simulator"),
    ),
    "beauty": (
        ("Face Cream", "Moisturiser"),
        ("Shampoo", "Hair Wash"),
        ("Perfume", "Eau de Toilette"),
        ("Lipstick", "Lip Balm"),
        ("Bath Salts", "Bath Bombs"),
        ("Hand Soap", "Soap Bar"),
        ("Nail Polish", "Nail Colour"),
        ("Face Mask", "Clay Mask"),
    ),
    "garden": (
        ("Flower Seeds", "Seed Mix"),
        ("Watering Can", "Sprinkler"),
        ("Plant Pot", "Planter"),
        ("Garden Lights", "Path Lights"),
        ("Pruning Shears", "Hedge Clippers"),
        ("Bird Feeder", "Bird House"),
        ("Garden Bench", "Patio Chair"),
        ("Hand Trowel", "Digging Fork"),
    ),
    "instruments": (
        ("Ukulele", "Small Guitar"),
        ("Harmonica", "Mouth Organ"),
        ("Hand Drum", "Bongo"),
        ("Keyboard", "Electric Piano"),
        ("Violin", "Fiddle"),
        ("Flute", "Recorder"),
        ("Guitar Strings", "String Set"),
        ("Music Stand", "Sheet Holder"),
    ),
}
# Makers mean nothing: noise that a model must learn to pass over.
MAKERS: tuple[str, ...] = (
    "Harrow", "Pennington", "Okafor", "Lindqvist", "Marlowe", "Castellan", "Whitby", "Tanaka",
    "Brightwell", "Corvin", "Delacroix", "Eastgate", "Fairburn", "Greaves", "Hollis", "Ivarsen",
    "Juniper", "Kestrel", "Lowell", "Mistral", "Norwood", "Osprey", "Pemberley", "Quill",
)  # fmt: skip

# Of these the words of any other catalogue are composed, 2,304 pairs.
_FIRST: Words = (
    "Amber", "Ash", "Birch", "Blue", "Bright", "Bronze", "Chalk", "Clear", "Clover", "Copper",
    "Crimson", "Dawn", "Deep", "Dry", "Dusk", "Ebony", "Fern", "Flint", "Fresh", "Golden",
    "Granite", "Green", "Grey", "Hazel", "Hollow", "Honey", "Indigo", "Iron", "Ivory", "Linen",
    "Lunar", "Maple", "Marble", "Misty", "Olive", "Pearl", "Pine", "Plum", "Quiet", "Red",
    "Saffron", "Sandy", "Silver", "Slate", "Snow", "Velvet", "Violet", "Walnut",
)  # fmt: skip
_SECOND: Words = (
    "Anchor", "Arrow", "Basket", "Beacon", "Bell", "Bridge", "Candle", "Chest", "Cloud", "Comb",
    "Compass", "Cradle", "Drum", "Falcon", "Feather", "Fountain", "Frame", "Garnet", "Hammer",
    "Harp", "Hook", "Island", "Kettle", "Key", "Ladder", "Lamp", "Leaf", "Loom", "Mask", "Mill",
    "Mirror", "Needle", "Otter", "Paddle", "Quilt", "Ribbon", "Ring", "Saddle", "Sail", "Shell",
    "Spindle", "Spoon", "Stone", "Tower", "Valley", "Wagon", "Wheel", "Window",
)  # fmt: skip
# How a pair becomes the words of a theme, a style, an audience and a kind.
_FORMS: tuple[Words, ...] = (
    ("{0} {1}", "{1} of {0}"),
    ("{0}-{1}", "{1}-{0}"),
    ("for {0} {1} Owners", "for Owners of {0} {1}"),
    ("{0} {1} Set", "Set of {0} {1}"),
)


def words_of_values(catalogue: str, shared: Sequence[bool]) -> tuple[Words, ...]:
    """The words of every attribute value of a shop: themes, styles, audiences, kinds.

    Args:
        catalogue: what the shop sells; one of `KINDS`, or any other name, whose words are
            composed: the same for the same name, whatever the seed.
        shared: for each theme, style and audience, whether it is the marketplace's (and so are
            its words) or the shop's own.
    """
    marketplace = (*THEMES, *STYLES, *AUDIENCES)
    composed = _composed(catalogue)
    chosen = (
        theirs if is_shared else own
        for theirs, own, is_shared in zip(marketplace, composed, shared, strict=False)
    )
    return (*chosen, *KINDS.get(catalogue, composed[len(marketplace) :]))


def _composed(catalogue: str) -> tuple[Words, ...]:
    """Words for all values of all attributes, no two of one pair."""
    stream = np.random.Generator(np.random.PCG64(hash_text(f"words/{catalogue}")))
    pairs = stream.permutation(len(_FIRST) * len(_SECOND))
    sizes = (len(THEMES), len(STYLES), len(AUDIENCES), len(KINDS["books"]))
    forms = [form for form, size in zip(_FORMS, sizes, strict=True) for _ in range(size)]
    return tuple(
        tuple(form.format(_FIRST[pair // len(_SECOND)], _SECOND[pair % len(_SECOND)])
              for form in both)
        for both, pair in zip(forms, pairs.tolist(), strict=False)
    )  # fmt: skip
