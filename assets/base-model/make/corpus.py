"""The corpus of the bundled base model: an endless stream of documents from a seed.

Contract: `documents(seed)` yields documents, lists of (text, loss weight), each free of the samples' subjects and of
their style: `BANNED` names the words and separators, and a document with one of them is drawn again. The same seed
gives the same documents on every machine. Run as a program it prints a few.
"""

from __future__ import annotations

import argparse
import itertools
import re
from collections.abc import Iterator
from random import Random

import exercises
import groups
import stories
from groups import Document

# Shares of documents, not of tokens; groups of facts are the longest, so they fill well over half of the tokens.
MIX = [
    (groups.facts_to_prose, 0.30),
    (groups.invented_to_prose, 0.13),
    (groups.prose_to_facts, 0.03),
    (groups.questions, 0.07),
    (groups.chat, 0.06),
    (exercises.code_book, 0.03),
    (exercises.examples_only, 0.06),
    (exercises.template, 0.03),
    (exercises.list_work, 0.04),
    (exercises.copy_line, 0.03),
    (exercises.rows, 0.02),
    (stories.story, 0.07),
    (stories.talk, 0.03),
    (stories.letter, 0.03),
    (stories.how_to, 0.02),
    (stories.description, 0.03),
    (stories.diary, 0.02),
]

# What the sample tasks are about and how they are written: places to eat and drink, opinions on products, help for
# buyers. A base model that has met none of it shows honestly what a prefix adds.
BANNED = re.compile(
    r"::|//|\b(?:restaurants?|pubs?|caf[eé]s?|coffee|bars?|bistros?|diners?|taverns?|canteens?|menus?|cuisines?|chefs?|"
    r"waiters?|dining|dishes|venues?|riverside|city centre|famil(?:y|ies)[ _-]?friendly|italian|french|japanese|indian|"
    r"chinese|mexican|thai|greek|spanish|turkish|reviews?|reviewers?|positive|negative|mixed|sentiment|customers?|buyers?|refunds?|"
    r"warrant(?:y|ies)|support|helpdesk|tickets?|parcels?|invoices?|subscriptions?|passwords?|accounts?)\b",
    re.IGNORECASE,
)


def text_of(document: Document) -> str:
    return "".join(text for text, _ in document)


def documents(seed: int) -> Iterator[Document]:
    rng = Random(seed)
    makers, shares = zip(*MIX, strict=True)
    while True:
        document = rng.choices(makers, shares)[0](rng)
        if not BANNED.search(text_of(document)):
            yield document


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=10)
    arguments = parser.parse_args()
    for document in itertools.islice(documents(arguments.seed), arguments.count):
        print(text_of(document), end="\n" + "=" * 80 + "\n")


if __name__ == "__main__":
    main()
