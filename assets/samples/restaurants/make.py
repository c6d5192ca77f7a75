"""Makes the sample `restaurants` and scores texts against its facts.

Contract: `python make.py` writes train.csv (400 rows) and validation.csv (100 rows, all names unseen in training)
beside itself; the same seed gives the same files. `score(mr, text)` says how many facts a text tells in the house's
words, what it invents, and whether it is the house's text to the letter. Needs nothing but Python.

The house style is `say`: a sentence a fact, in the order of the facts, values copied or put in a phrase of the house.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from random import Random

SEED = 7
TRAIN_ROWS, VALIDATION_ROWS = 400, 100

TYPES = {
    "pub": "a proper pub",
    "restaurant": "a fine restaurant",
    "cafe": "a corner cafe",
    "wine bar": "a snug wine bar",
}
FOODS = ["Italian", "Indian", "French", "Greek", "Thai", "Mexican"]
PRICES = {
    "cheap": "The price is kind.",
    "moderate": "The price is fair.",
    "high": "The price is steep.",
}
AREAS = ["riverside", "city centre", "harbour", "hillside"]
FAMILY = {"yes": "Family friendly? With pleasure.", "no": "Family friendly? Not here."}

# How a fact is recognised in a text: {v} is its value, or the house's phrase for it.
FRAMES = {
    "name": "Step into {v},",
    "type": ", {v}.",
    "food": "Come hungry for {v} plates.",
    "price": "{v}",
    "area": "The area is the {v}.",
    "family friendly": "{v}",
    "near": "Look for it near {v}.",
}
PHRASES = {"type": TYPES, "price": PRICES, "family friendly": FAMILY}
KEYS = ["name", "type", "food", "price", "area", "family friendly", "near"]
OPTIONAL = ["price", "family friendly"]


# ---------------------------------------------------------------------------------------------- the house style


def write(facts: dict[str, str]) -> str:
    """The facts as the model reads them: `name :: X // type :: pub // ...`."""
    return " // ".join(f"{key} :: {facts[key]}" for key in KEYS if key in facts)


def read(mr: str) -> dict[str, str]:
    return dict(pair.split(" :: ", 1) for pair in mr.split(" // "))


def say(facts: dict[str, str]) -> str:
    """The facts in the house's words."""
    sentences = [f"Step into {facts['name']}, {TYPES[facts['type']]}."]
    sentences += [in_house_words(key, facts[key]) for key in KEYS[2:] if key in facts]
    return " ".join(sentences)


def in_house_words(key: str, value: str) -> str:
    return FRAMES[key].format(v=PHRASES[key][value] if key in PHRASES else value)


# ---------------------------------------------------------------------------------------------- the score


@dataclass(frozen=True)
class Score:
    """right of total facts told in the house's words; what was told that no fact says; the house's text exactly."""

    right: int
    total: int
    invented: tuple[str, ...]
    exact: bool


def score(mr: str, text: str) -> Score:
    facts, text = read(mr), " ".join(text.split())
    right = sum(in_house_words(key, value) in text for key, value in facts.items())
    return Score(right, len(facts), tuple(_invented(facts, text)), text == say(facts))


def _invented(facts: dict[str, str], text: str) -> list[str]:
    """The facts that a text tells in the house's words though they are missing or otherwise."""
    told = []
    for key in KEYS:
        if key in PHRASES:
            values = [value for value in PHRASES[key] if in_house_words(key, value) in text]
        else:
            pattern = re.escape(FRAMES[key]).replace(re.escape("{v}"), "(.+?)")
            values = re.findall(pattern, text)
        told += [f"{key} :: {value}" for value in values if facts.get(key) != value]
    return told


# ---------------------------------------------------------------------------------------------- the rows


ADJECTIVES = """Amber Bronze Copper Crooked Drunken Emerald Gilded Golden Happy Hidden Hungry Iron Jolly Laughing Little
Lucky Merry Midnight Old Painted Quiet Rusty Scarlet Silver Sleepy Smiling Velvet Wandering White Winking""".split()
NOUNS = """Anchor Badger Barrel Bell Bridge Candle Carrot Cellar Crown Fiddle Fig Fox Garden Goose Hare Kettle Lantern
Lemon Lion Mill Olive Oven Pear Pepper Plough Quail Raven Spoon Stag Table Walnut Whistle""".split()
STARTS = """Al Bel Bor Cal Cor Dal Del Fen Gal Har Jor Kel Lor Mar Mel Nor Or Pal Quin Ros Sal Tar Tor Ul Val Ver Wil
Zan""".split()
MIDDLES = "a e i o a e i o an en in on ar er ov el il".split()
ENDS = """bello by dale dine do fino ford ga hall ka la li lo mere mondo na ni ra rano ric ro sa ta tello ton va via
wick za""".split()
PLACES = "Bridge Church Cinema Hall Library Market Museum Park Square Station Theatre Tower".split()


def a_name(rng: Random) -> str:
    invented = rng.choice(STARTS) + rng.choice(MIDDLES) + rng.choice(ENDS)
    adjective, noun = rng.choice(ADJECTIVES), rng.choice(NOUNS)
    return rng.choice(
        [invented, invented, f"{invented} {noun}", f"The {adjective} {noun}", f"{adjective} {noun}", f"{invented}'s"]
    )


def a_neighbour(rng: Random) -> str:
    if rng.random() < 0.4:
        return a_name(rng)
    return f"{rng.choice(STARTS) + rng.choice(MIDDLES) + rng.choice(ENDS)} {rng.choice(PLACES)}"


def some_facts(rng: Random) -> dict[str, str]:
    facts = {
        "name": a_name(rng),
        "type": rng.choice(list(TYPES)),
        "food": rng.choice(FOODS),
        "price": rng.choice(list(PRICES)),
        "area": rng.choice(AREAS),
        "family friendly": rng.choice(list(FAMILY)),
        "near": a_neighbour(rng),
    }
    left_out = {key for key in OPTIONAL if rng.random() < 0.35}
    return {key: value for key, value in facts.items() if key not in left_out}


def make_rows() -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """(train, validation) rows with the columns mr and ref; no name stands in more than one row."""
    rng, seen, rows = Random(SEED), set(), []
    while len(rows) < TRAIN_ROWS + VALIDATION_ROWS:
        facts = some_facts(rng)
        names = {facts["name"], facts["near"]}
        if len(names) < 2 or names & seen:
            continue
        seen |= names
        rows.append({"mr": write(facts), "ref": say(facts)})
    return rows[:TRAIN_ROWS], rows[TRAIN_ROWS:]


def main() -> None:
    for path, rows in zip(("train.csv", "validation.csv"), make_rows(), strict=True):
        with (Path(__file__).parent / path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["mr", "ref"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
