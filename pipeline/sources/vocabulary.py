"""Words of the invented marketplace. Each attribute value has several, as in real titles."""

from __future__ import annotations

# Shared by all shops: what carries from one to another.
THEMES: tuple[tuple[str, ...], ...] = (
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
STYLES: tuple[tuple[str, ...], ...] = (
    ("Cosy", "Gentle", "Calm"),
    ("Bold", "Daring", "Fearless"),
    ("Vintage", "Antique", "Classic"),
    ("Minimal", "Plain", "Simple"),
    ("Playful", "Funny", "Cheerful"),
    ("Luxury", "Premium", "Deluxe"),
    ("Rustic", "Handmade", "Country"),
    ("Futuristic", "Digital", "Electric"),
)
AUDIENCES: tuple[tuple[str, ...], ...] = (
    ("for Beginners", "for First Steps"),
    ("for Children", "for Young Ones"),
    ("for Experts", "for Professionals"),
    ("for Families", "for Sharing"),
    ("for Collectors", "for Enthusiasts"),
)
# Each shop's own: what only its own buyers teach.
KINDS: dict[str, tuple[tuple[str, ...], ...]] = {
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
