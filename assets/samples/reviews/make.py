"""Makes the sample `reviews`: short opinions on things bought, each with the label positive, negative or mixed.

Contract: `python make.py` writes train.csv (300 rows) and validation.csv (100 rows) beside itself; the same seed gives
the same files, and no text stands in both. Needs nothing but Python. A text says two things about a product: both
praise, both blame, or one of each, which is what the label names.
"""

from __future__ import annotations

import csv
from pathlib import Path
from random import Random

SEED = 11
TRAIN_ROWS, VALIDATION_ROWS = 300, 100
LABELS = ["positive", "negative", "mixed"]

PRODUCTS = """kettle lamp backpack blender jacket chair keyboard tent bicycle pump radio suitcase drill mattress scarf
toaster watch umbrella camera fan teapot hammock rucksack speaker torch vacuum heater blanket clock helmet""".split()

# Aspect -> (praise, blame). Each sentence stands on its own, and {p} is the product.
ASPECTS = {
    "build": (
        ["The {p} feels solid.", "It is built to last.", "Nothing about it is flimsy."],
        ["The {p} feels flimsy.", "It fell apart within a week.", "The handle broke on the first day."],
    ),
    "use": (
        ["It is a joy to use.", "The {p} works exactly as promised.", "Setting it up took two minutes."],
        ["It is a pain to use.", "The {p} does not do what it promises.", "Setting it up took the whole evening."],
    ),
    "looks": (
        ["It looks lovely in our home.", "The colour is beautiful.", "Friends keep asking where I found it."],
        ["It looks cheap and dull.", "The colour is nothing like the picture.", "I hide it when friends come."],
    ),
    "money": (
        ["It is worth every penny.", "I would happily pay double.", "A bargain at this price."],
        ["It is a waste of money.", "I want my money back.", "Far too expensive for what it is."],
    ),
    "noise": (
        ["The {p} is wonderfully quiet.", "You hardly notice that it is there."],
        ["The {p} makes an awful noise.", "It squeaks all day long."],
    ),
    "size": (
        ["The size is perfect.", "It fits just where I wanted it."],
        ["It is much too small.", "It is so bulky that it fits nowhere."],
    ),
    "delivery": (
        ["It arrived a day early.", "It came well wrapped and in one piece."],
        ["It arrived three weeks late.", "It came scratched and badly wrapped."],
    ),
    "heart": (
        ["I love this {p}.", "Best {p} I have ever owned.", "I would buy this {p} again."],
        ["I regret buying this {p}.", "Worst {p} I have ever owned.", "I sent this {p} straight back."],
    ),
}
OPENERS = ["", "", "", "Honestly? ", "Two months in: ", "Bought this for my brother. ", "My second one. "]
TURNS = ["But ", "Still, ", "Sadly, ", "That said, "]


def a_review(rng: Random) -> dict[str, str]:
    label, product = rng.choice(LABELS), rng.choice(PRODUCTS)
    first, second = rng.sample(list(ASPECTS), 2)
    praised = {
        "positive": (True, True),
        "negative": (False, False),
        "mixed": rng.choice([(True, False), (False, True)]),
    }
    said = [rng.choice(ASPECTS[aspect][not good]) for aspect, good in zip((first, second), praised[label], strict=True)]
    if label == "mixed" and rng.random() < 0.4:
        turn = rng.choice([turn for turn in TURNS if praised[label][0] or turn != "Sadly, "])
        said[1] = turn + (said[1] if said[1].startswith("I ") else said[1][0].lower() + said[1][1:])
    return {"text": (rng.choice(OPENERS) + " ".join(said)).format(p=product), "label": label}


def make_rows() -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    rng, seen, rows = Random(SEED), set(), []
    while len(rows) < TRAIN_ROWS + VALIDATION_ROWS:
        row = a_review(rng)
        if row["text"] not in seen:
            seen.add(row["text"])
            rows.append(row)
    return rows[:TRAIN_ROWS], rows[TRAIN_ROWS:]


def main() -> None:
    for path, rows in zip(("train.csv", "validation.csv"), make_rows(), strict=True):
        with (Path(__file__).parent / path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["text", "label"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
