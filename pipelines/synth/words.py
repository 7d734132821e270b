"""Words for the simulated music: names of artists, titles and lyrics.

    genre, artist's vocabulary, random numbers  ->  text

Every genre has its themes and every artist a part of them, with common words between them, so that lyrics
tell something of genre and artist but not all. Artist names are syllables, to be no real person's name.
"""

import numpy as np

_SYLLABLES = ("bel", "dor", "fen", "gal", "hou", "jun", "kai", "lor", "mar", "nix", "ora", "pel", "quo")
_ENDINGS = ("an", "ek", "is", "o", "una", "eth", "ia", "ow", "ux", "ay")
_COMMON = ("night", "heart", "time", "road", "light", "home", "rain", "day", "name", "dream", "hand", "eyes")
_THEMES_TEXT = {
    "house": (
        "floor dance body lights higher tonight feel music groove sunrise rhythm move glow crowd pulse neon "
        "paradise release loving louder"
    ),
    "metal": (
        "blood iron throne ashes war skull burn abyss thunder steel doom crown shadow wrath serpent blade "
        "grave storm chains hell"
    ),
    "folk": (
        "river valley harvest mother barn meadow winter crow lantern mountain sailor orchard hearth wagon "
        "willow stone shore daughter bread field"
    ),
    "jazz": (
        "moon blue velvet whiskey lonely autumn city smoke waltz kiss midnight stranger april stairs piano "
        "bar darling satin foolish paris"
    ),
    "ambient": (
        "drift horizon snow tide silence breath orbit mist glacier signal hollow aurora slow water distance "
        "cloud echo sleep salt stillness"
    ),
    "hip hop": (
        "block money street mic hustle crew rhyme king corner gold respect flow city grind truth mama game "
        "chain legend word"
    ),
    "reggae": (
        "jah sun island roots unity babylon freedom lion zion people rise sister smile ocean peace tribe "
        "fire mango yard natural"
    ),
    "chiptune": (
        "pixel level robot rocket score laser arcade galaxy power planet hero coin turbo portal dragon "
        "quest start joystick castle cosmic"
    ),
}
_THEMES = {genre: tuple(text.split()) for genre, text in _THEMES_TEXT.items()}
_LINES = (
    "{0} in the {1}, {2} in my {3}",
    "oh {0}, take me to the {1}",
    "I was waiting for the {0} and the {1}",
    "no more {0}, no more {1}, only {2}",
    "when the {0} comes over the {1}",
    "we carry the {0}, we carry the {1}",
    "you and me and the {0} of {1}",
    "{0} {0}, where did the {1} go",
    "give me {0}, give me {1}, give me {2}",
    "every {0} knows your {1}",
)


def artist_names(n: int, rng: np.random.Generator) -> tuple[str, ...]:
    """Invent ``n`` different two-part names."""
    names: dict[str, None] = {}  # a dict keeps the order, so that the same seed gives the same names
    while len(names) < n:
        first = _pick(_SYLLABLES, rng) + _pick(_ENDINGS, rng)
        second = _pick(_SYLLABLES, rng) + _pick(_SYLLABLES, rng) + _pick(_ENDINGS, rng)
        names[f"{first.title()} {second.title()}"] = None
    return tuple(names)


def vocabulary(genre: str, influence: str, rng: np.random.Generator) -> tuple[str, ...]:
    """Choose an artist's words: most from the genre, some from the influence, some that all share."""
    parts = ((_THEMES[genre], 9), (_THEMES[influence], 3), (_COMMON, 5))
    return tuple(str(word) for words, n in parts for word in rng.choice(words, size=n, replace=False))


def title(words: tuple[str, ...], taken: set[str], rng: np.random.Generator) -> str:
    """Make a title of two of the artist's words that is not ``taken``; after 100 tries it is numbered."""
    for _ in range(100):
        first, second = rng.choice(len(words), size=2, replace=False)
        found = f"{words[first]} {words[second]}".title()
        if found not in taken:
            return found
    return f"{found} {len(taken) + 1}"


def lyrics(words: tuple[str, ...], title: str, rng: np.random.Generator) -> str:
    """Write two verses and a chorus, a line each row, verses parted by an empty line."""

    def line() -> str:
        return _LINES[rng.integers(len(_LINES))].format(*(_pick(words, rng) for _ in range(4)))

    chorus = [f"{title.lower()}, {title.lower()}", line()]
    verses = [[line() for _ in range(4)] for _ in range(2)]
    return "\n\n".join("\n".join(part) for part in (verses[0], chorus, verses[1], chorus))


def _pick(options: tuple[str, ...], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
