"""Small exercises in reading the context: lists, code books, templates to fill, lines to copy.

Contract: as in `groups.py`. What is to be written is always decided by what stands above it, so these documents teach
looking up and copying rather than knowing.
"""

from __future__ import annotations

from random import Random

import names
import words
from groups import FACT, TEXT, Document


def code_book(rng: Random) -> Document:
    """A table of words and what they stand for, then words to be looked up, or sentences of them."""
    keys = list(dict.fromkeys(_token(rng) for _ in range(rng.randint(3, 7))))
    meaning = {key: (words.phrase(rng) if rng.random() < 0.6 else _token(rng)) for key in keys}
    tie, arrow = rng.choice([" = ", ": ", " means ", " -> ", " - "]), rng.choice([" = ", ": ", " => ", "\n", " -> "])
    pieces: Document = [("\n".join(f"{key}{tie}{said}" for key, said in meaning.items()) + "\n\n", FACT)]
    for number in range(rng.randint(3, 6)):
        asked = rng.sample(keys, min(len(keys), rng.choice([1, 1, 2, 3])))
        pieces += [("\n" * bool(number) + ", ".join(asked) + arrow.rstrip(" "), FACT)]
        pieces += [(" " * arrow.endswith(" ") + rng.choice([", ", ", "]).join(meaning[key] for key in asked), TEXT)]
    return pieces


def examples_only(rng: Random) -> Document:
    """Pairs without a table: the same few inputs come again and again, with the same outputs."""
    keys = list(dict.fromkeys(_token(rng) for _ in range(rng.randint(2, 4))))
    meaning = {key: (words.phrase(rng) if rng.random() < 0.7 else words.clause(rng)) for key in keys}
    frame = rng.choice(["{n} is {p}.", "{n}: {p}", "{p} ({n})", "{n}, {p}.", "For {n}: {p}.", "{p}, says {n}."])
    arrow, gap = rng.choice([" => ", "\n", " -> ", ": ", " | "]), rng.choice(["\n", "\n\n", "\n--\n"])
    split = rng.choice([", ", " / ", "; ", " - ", " | ", " "])
    pieces: Document = []
    for number in range(rng.randint(5, 9)):
        name, key = names.any_name(rng), rng.choice(keys)
        given = rng.choice([f"{name}{split}{key}", f"{name}{split}{key}", f"{key}{split}{name}"])
        pieces += [(gap * bool(number) + given + arrow.rstrip(" "), FACT)]
        pieces += [(" " * arrow.endswith(" ") + frame.format(n=name, p=meaning[key]), TEXT)]
    return pieces


def template(rng: Random) -> Document:
    """A sentence with blanks, then values, then the sentence with the blanks filled."""
    blanks = list(
        dict.fromkeys(rng.choice([rng.choice(words.NOUNS), names.word(rng)]) for _ in range(rng.randint(2, 4)))
    )
    left, right = rng.choice([("<", ">"), ("{", "}"), ("[", "]"), ("_", "_"), ("(", ")")])
    parts = []
    for blank in blanks:
        parts.append(
            rng.choice([words.clause(rng), words.phrase(rng)])
            + rng.choice([" ", ", ", ": ", " with "])
            + f"{left}{blank}{right}"
        )
    shape = words.capital(rng.choice([", ", ". ", " and ", "; "]).join(parts)) + "."
    pieces: Document = [(f"{rng.choice(['Template', 'Pattern', 'Form'])}: {shape}\n\n", FACT)]
    tie, item = rng.choice([" = ", ": ", " -> "]), rng.choice([", ", "; ", "\n", " | "])
    for number in range(rng.randint(2, 4)):
        values = {blank: names.any_name(rng) if rng.random() < 0.7 else words.phrase(rng) for blank in blanks}
        filled = shape
        for blank, value in values.items():
            filled = filled.replace(f"{left}{blank}{right}", value)
        given = item.join(f"{blank}{tie}{value}" for blank, value in values.items())
        pieces += [("\n\n" * bool(number) + given + "\n", FACT), (filled, TEXT)]
    return pieces


def list_work(rng: Random) -> Document:
    """A list and what is asked of it: first, last, all joined, in reverse, how many, without one of them."""
    pieces: Document = []
    for number in range(rng.randint(1, 4)):
        things = list(
            dict.fromkeys(names.any_name(rng) if rng.random() < 0.6 else _token(rng) for _ in range(rng.randint(2, 6)))
        )
        chosen = rng.choice(things)
        task, done = rng.choice(
            [
                ("first", things[0]),
                ("last", things[-1]),
                ("joined", words.join_and(things)),
                ("backwards", ", ".join(reversed(things))),
                ("how many", str(len(things))),
                (f"without {chosen}", ", ".join(thing for thing in things if thing != chosen) or "nothing"),
                (f"after {things[0]}", things[1] if len(things) > 1 else "nothing"),
                ("as a sentence", f"There are {len(things)} of them: {words.join_and(things)}."),
                ("one a line", "\n".join(things)),
                ("again", ", ".join(things)),
            ]
        )
        given = rng.choice([", ", "; ", " | ", "\n"]).join(things)
        pieces += [(("\n\n" * bool(number)) + f"{given}\n{words.capital(task)}:", FACT), (f" {done}", TEXT)]
    return pieces


def copy_line(rng: Random) -> Document:
    """The same line again, plainly or inside another: the shortest way to learn copying."""
    line = rng.choice(
        [
            names.any_name(rng),
            f"{names.any_name(rng)}, {words.phrase(rng)}",
            words.clause(rng),
            " ".join(_token(rng) for _ in range(rng.randint(2, 8))),
        ]
    )
    again = rng.choice(
        [
            "{l}\n{l}",
            "{l}\nAgain: {l}",
            '{l}\nThey wrote "{l}" on the wall.',
            "{l} = {l}",
            "Say: {l}\n{l}",
            "{l}\n{l}\n{l}",
        ]
    )
    return [(again.format(l=line), TEXT)]


def rows(rng: Random) -> Document:
    """A small table, then sentences about its rows."""
    columns = list(dict.fromkeys(rng.choice(words.NOUNS) for _ in range(rng.randint(2, 3))))
    bar = rng.choice([" | ", ", ", "; ", " - "])
    table = [
        [
            names.any_name(rng),
            *[
                rng.choice([names.invented(rng), str(rng.randint(1, 99)), rng.choice(words.ADJECTIVES)])
                for _ in columns
            ],
        ]
        for _ in range(rng.randint(2, 4))
    ]
    head = bar.join(["name", *columns])
    frame = rng.choice(["The {c} of {n} is {v}.", "{n} has {v} as its {c}.", "For {n} the {c} is {v}."])
    pieces: Document = [("\n".join([head, *[bar.join(row) for row in table]]) + "\n\n", FACT)]
    said = []
    for row in table:
        index = rng.randrange(len(columns))
        said.append(frame.format(c=columns[index], n=row[0], v=row[index + 1]))
    rng.shuffle(said)
    return [*pieces, (" ".join(said), TEXT)]


def _token(rng: Random) -> str:
    return rng.choice(
        [
            rng.choice(words.NOUNS),
            rng.choice(words.ADJECTIVES),
            names.word(rng),
            names.invented(rng),
            rng.choice(words.COLOURS),
            names.code(rng),
            "yes",
            "no",
        ]
    )
