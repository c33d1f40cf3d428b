"""Data that look like a mistake and are none: they are read exactly as they stand."""

from dataclasses import dataclass, field

from tests.pipeline.faults.tables import EVENTS, KINDS, TITLES

NFC, NFD = "caf\u00e9", "cafe\u0301"
ARABIC, FAMILY = "\u0645\u0643\u062a\u0628", "\U0001f468\u200d\U0001f469\u200d\U0001f467"
_NO_TABS = ("csv", "jsonl", "parquet")
_NO_SPACES = ("csv", "tsv", "jsonl", "parquet")


@dataclass(frozen=True)
class OddData:
    """Tables, and what is kept of them if that is not all.

    kept, texts: the interactions and texts expected; None: those given.
    facts: of the domain's report.
    """

    name: str
    events: tuple = field(default=EVENTS, repr=False)
    titles: tuple = field(default=TITLES, repr=False)
    kinds: tuple = field(default=KINDS, repr=False)
    kept: tuple | None = field(default=None, repr=False)
    texts: dict | None = field(default=None, repr=False)
    facts: dict = field(default_factory=dict, repr=False)

    def expected_events(self):
        """By user, time and item."""
        kept = self.events if self.kept is None else self.kept
        return sorted(kept, key=lambda event: (event[0], event[2], event[1]))

    def expected_texts(self):
        """The text of every item that somebody had."""
        texts = dict(self.titles) if self.texts is None else self.texts
        return {item: texts.get(item, "") for _, item, _ in self.expected_events()}


def _ids(name, *odd, kinds=KINDS):
    """Users and items called so, each with a title that is its id."""
    every = list(odd)
    events = tuple((user, item, 5 + place) for place, user in enumerate(every) for item in every)
    titles = tuple((item, f"Title {place}") for place, item in enumerate(every))
    return OddData(name, events, titles, kinds, facts={"users": len(every), "items": len(every)})


def _times(name, *times):
    return OddData(name, tuple((f"u{n}", "a", time) for n, time in enumerate(times)))


ODD_DATA = [
    OddData("nothing odd"),
    # few
    OddData("one user", tuple(("u1", i, t) for _, i, t in EVENTS), facts={"users": 1}),
    OddData("one item", tuple((u, "a", t) for u, _, t in EVENTS), facts={"items": 1}),
    OddData(
        "users with one event",
        tuple((f"u{n}", i, t) for n, (_, i, t) in enumerate(EVENTS)),
        facts={"users": 5, "longest_history": 1},
    ),
    OddData("one event", EVENTS[:1], facts={"interactions": 1}),
    # twice
    OddData("rows twice", EVENTS + EVENTS[:3], kept=EVENTS, facts={"removed_duplicates": 3}),
    OddData(
        "an item twice with other texts",
        titles=(*TITLES, ("a", "A very long oak desk"), ("b", "x")),
        texts=dict(TITLES) | {"a": "A very long oak desk"},
        facts={"repeated_items": 2},
    ),
    OddData(
        "an item with other texts of one length",
        titles=(*TITLES, ("a", "Elm desk")),
        texts={**dict(TITLES), "a": "Elm desk"},
    ),
    # ids that readers like to change
    _ids("leading zeros", "007", "7", "07"),
    _ids("words for nothing", "NA", "null", "None", "nan", "N/A", "NULL", "-"),
    _ids("words for yes and no", "true", "false", "True"),
    _ids("numbers", "1", "1.0", "1e5", "100000", "+1", "9" * 40),
    _ids("commas", "a,b", "a", "b", kinds=KINDS),
    _ids("tabs", "a\tb", "a", "b", kinds=_NO_TABS),
    _ids("quotes", '"a"', 'a"b', "'a'", "a"),
    _ids("line ends", "a\nb", "a", kinds=_NO_TABS),
    _ids("spaces around", " a", "a ", "a", "a b", kinds=_NO_SPACES),
    _ids("separators of ours", "main:u", "shop:u", "u:shop", "%3A", "a/b", "../a"),
    _ids("one letter in two forms", NFC, NFD),
    _ids("right to left", ARABIC, f"\u202e{ARABIC}", "u"),
    _ids("emoji", "\U0001f600", FAMILY, "\u2764\ufe0f", "\u2764"),
    _ids("markup", "<script>alert(1)</script>", "&amp;", "&"),
    _ids("formulas", "=1+1", "@SUM(A1)", "-1"),
    # times
    _times("times before 1970", -1, -86_400, -2_208_988_800),
    _times("time 0", 0, 1),
    _times("times of the future", 4_102_444_800, 7_258_118_400),
    _times("one time for all", 5, 5, 5),
    # texts
    OddData("a text is missing", titles=TITLES[:2], facts={"empty_texts": 1}),
    OddData("a text is empty", titles=(*TITLES[:2], ("c", "")), facts={"empty_texts": 1}),
    OddData("no texts", titles=(("z", "Nobody's"),), facts={"empty_texts": 3}),
    OddData("items nobody had", titles=(*TITLES, ("z", "Lamp")), facts={"items_without_events": 1}),
    OddData(
        "a text of 5 MB",
        titles=(("a", "word " * 1_000_000), *TITLES[1:]),
        texts=dict(TITLES) | {"a": ("word " * 400).strip()},
        facts={"cut_texts": 1},
    ),
    OddData(
        "a text of 2 MB without a space",
        titles=(("a", "w" * 2_000_000), *TITLES[1:]),
        texts=dict(TITLES) | {"a": "w" * 2000},
        facts={"cut_texts": 1},
    ),
    OddData(
        "a text of 2 MB of markup that is never closed",
        titles=(("a", "<!-- <script> " * 140_000), *TITLES[1:]),
        texts=dict(TITLES) | {"a": ("<!-- " * 400).strip()},
        facts={"cut_texts": 1, "html_texts": 1},
    ),
    OddData(
        "a text that was escaped a million times",
        titles=(("a", "Oak &" + "amp;" * 1_000_000), *TITLES[1:]),
        texts=dict(TITLES) | {"a": "Oak"},
        facts={"cut_texts": 1},
    ),
    OddData(
        "a letter with a million accents",
        titles=(("a", "e" + "\u0323\u0301" * 500_000), *TITLES[1:]),
        texts=dict(TITLES) | {"a": "\u1eb9" + "\u0323" * 14 + "\u0301" * 15},
    ),
    OddData(
        "a text in two forms",
        titles=(("a", NFD), ("b", NFC), ("c", FAMILY)),
        texts={"a": NFC, "b": NFC, "c": FAMILY},
    ),
    OddData(
        "a text with a script",
        titles=(("a", "Oak <script>alert(1)</script> desk"), *TITLES[1:]),
        texts=dict(TITLES) | {"a": "Oak desk"},
        facts={"html_texts": 1},
    ),
]
