"""Documents of facts and prose: groups of one to six in one style, questions about facts, facts read back from prose.

Contract: every function takes a `random.Random` and returns a document, a list of (text, weight) pieces. The weight is
what a piece counts in the loss: facts can hardly be foreseen, so they count less than what is said about them.
"""

from __future__ import annotations

from random import Random

import names
import words
from domains import DOMAINS, Domain
from styles import Items, Style, draw_style, invented_domain

Document = list[tuple[str, float]]

FACT, TEXT = 0.25, 1.0
GROUP_CHARACTERS = 680  # about 300 tokens: a group should fit one training row

INSTRUCTIONS = [
    "Write about the {k}.",
    "Put the facts into words.",
    "Turn the notes into text.",
    "Describe the {k}.",
    "Say it in full sentences.",
    "A short text about {ak}.",
    "Facts and their text.",
    "Notes on every {k}, in the house style.",
    "Keep to the style.",
    "Use every fact and add nothing.",
    "From the list of {k}s.",
    "Question: how should the {k} be described?",
]


def draw_items(rng: Random, domain: Domain, style: Style, keep: float, optional: float) -> Items:
    """Some of the domain's facts with values; the first half of a style's facts are nearly always there."""
    items = []
    for attribute in domain.attributes:
        rank = style.rank[attribute.key]
        if rank < keep and rng.random() < (1 if rank < keep / 2 else optional):
            items.append((attribute, attribute.draw(rng)))
    if len(items) < 2:
        items = [(attribute, attribute.draw(rng)) for attribute in domain.attributes[:2]]
    if style.shuffle:
        rng.shuffle(items)
    return items


def facts_to_prose(rng: Random, domain: Domain | None = None) -> Document:
    """A group: facts, bridge, prose, again and again in one style."""
    domain = domain or rng.choice(DOMAINS)
    style = draw_style(rng, domain)
    keep, optional = rng.choice([0.4, 0.6, 0.8, 1.0]), rng.choice([0.5, 0.7, 0.9, 1.0])
    wanted = rng.choice([1, 2, 3, 4, 6, 6, 8, 8])
    pieces: Document = []
    if rng.random() < 0.25:
        noun = domain.nouns[0]
        pieces.append((rng.choice(INSTRUCTIONS).format(k=noun, ak=words.article(noun)) + "\n", TEXT))
    gap = rng.choice(["\n\n", "\n\n", "\n\n", "\n", "\n***\n"])
    length = 0
    for number in range(wanted):
        name = domain.draw_name(rng)
        items = draw_items(rng, domain, style, keep, optional)
        facts, prose = style.facts(name, items) + style.bridge, style.prose(name, items)
        length += len(facts) + len(prose)
        if number and length > GROUP_CHARACTERS:
            break
        if not style.bridge.endswith("\n"):
            prose = " " + prose
        pieces += [(gap, TEXT)] * bool(number) + [(facts, FACT), (prose, TEXT)]
    return pieces


def invented_to_prose(rng: Random) -> Document:
    return facts_to_prose(rng, invented_domain(rng))


def prose_to_facts(rng: Random) -> Document:
    """The way back: read the facts off a text."""
    domain = rng.choice(DOMAINS) if rng.random() < 0.7 else invented_domain(rng)
    style = draw_style(rng, domain)
    pieces: Document = []
    for number in range(rng.randint(1, 3)):
        name = domain.draw_name(rng)
        items = draw_items(rng, domain, style, 0.5, 0.8)
        pieces += [("\n\n", TEXT)] * bool(number)
        pieces += [(style.prose(name, items) + "\n", TEXT), (style.facts(name, items), TEXT)]
    return pieces


def questions(rng: Random) -> Document:
    """Facts, then questions about them with answers that can be read off, some of them "not stated"."""
    domain = rng.choice(DOMAINS) if rng.random() < 0.7 else invented_domain(rng)
    style = draw_style(rng, domain)
    name = domain.draw_name(rng)
    items = draw_items(rng, domain, style, 1.0, 0.7)
    ask, answer = rng.choice(
        [("Q: ", "\nA: "), ("Question: ", "\nAnswer: "), ("- ", " "), ("Ask: ", "\nSay: "), ("", "\n")]
    )
    in_full = rng.random() < 0.5
    as_prose = rng.random() < 0.3
    pieces: Document = [((style.prose if as_prose else style.facts)(name, items) + "\n\n", TEXT if as_prose else FACT)]
    shape = rng.choice(
        ["What is the {key} of {n}?", "{key}?", "What about the {key}?", "What is its {key}?", "Tell me the {key}."]
    )
    known = rng.sample(items, min(len(items), rng.randint(1, 4)))
    for number, (attribute, value) in enumerate(known):
        reply = f"The {attribute.key} of {name} is {value}." if in_full else value
        if rng.random() < 0.1:
            missing = rng.choice(words.NOUNS)
            question, reply = shape.format(key=missing, n=name), "That is not stated."
        elif attribute.values == ("yes", "no") and rng.random() < 0.7:
            question = f"Is it true: {attribute.key}?"
            reply = f"{value.capitalize()}, " + style.say(attribute, value, name)[1] + "." if in_full else value
        else:
            question = shape.format(key=attribute.key, n=name)
        pieces += [("\n" * bool(number) + ask + words.capital(question) + answer.rstrip(" "), FACT)]
        pieces += [((" " if answer.endswith(" ") else "") + reply, TEXT)]
    return pieces


def chat(rng: Random) -> Document:
    """A conversation in the form of the tokenizer's chat template; each answer ends with the end-of-text token."""
    domain = rng.choice(DOMAINS)
    style = draw_style(rng, domain)
    name = domain.draw_name(rng)
    items = draw_items(rng, domain, style, 0.6, 0.8)
    turns = [_chat_turn(rng, style, name, items) for _ in range(rng.randint(1, 3))]
    pieces: Document = []
    if rng.random() < 0.3:
        tone = rng.choice(
            [
                "Be brief.",
                "Be kind.",
                "Answer in full sentences.",
                "You know a great deal about " + domain.nouns[0] + "s.",
            ]
        )
        pieces.append((f"[system]\n{tone}\n", FACT))
    for number, (said, reply) in enumerate(turns):
        end = "</s>\n" if number + 1 < len(turns) else ""  # the last turn's end is the document's own
        pieces += [(f"[user]\n{said}\n[assistant]\n", FACT), (reply + end, TEXT)]
    return pieces


def _chat_turn(rng: Random, style: Style, name: str, items: Items) -> tuple[str, str]:
    noun = style.domain.nouns[0]
    attribute, value = rng.choice(items)
    first, second = rng.sample(words.NOUNS, 2)
    shape = rng.randrange(7)
    if shape == 0:
        asked = rng.choice(
            [
                f"Please describe this {noun}: ",
                f"Can you write a few words about this {noun}? ",
                "Put this into words: ",
            ]
        )
        return asked + style.facts(name, items), rng.choice(["", "", "Of course. ", "With pleasure. "]) + style.prose(
            name, items
        )
    if shape == 1:
        return (
            f"{style.prose(name, items)} What is the {attribute.key}?",
            rng.choice(
                [
                    f"The {attribute.key} is {value}.",
                    f"{words.capital(value)}.",
                    f"It says that the {attribute.key} is {value}.",
                ]
            ),
        )
    if shape == 2:
        who = names.person(rng)
        return (
            rng.choice([f"Hello, I am {who}.", f"Good morning! My name is {who}.", f"Hi there, {who} here."]),
            rng.choice(
                [
                    f"Hello {who}, how can I help you?",
                    f"Good to meet you, {who}. What can I do for you?",
                    f"Welcome, {who}.",
                ]
            ),
        )
    if shape == 3:
        return (
            f"Is {words.article(first)} the same as {words.article(second)}?",
            f"No, {words.article(first)} and {words.article(second)} are different things.",
        )
    if shape == 4:
        listed = rng.sample(words.NOUNS, rng.randint(3, 5))
        return (
            f"Make a sentence of these words: {', '.join(listed)}.",
            f"There was {words.join_and([words.article(item) for item in listed])}.",
        )
    if shape == 5:
        return f"Which {noun} did you mean?", f"I meant {name}, the {noun} we spoke about."
    return (
        rng.choice(["Thank you so much!", "Thanks, that was kind.", "Great, thank you."]),
        rng.choice(
            [
                "You are welcome.",
                "It was a pleasure.",
                "Any time. Have a good day!",
                f"You are welcome. Enjoy your {rng.choice(words.DAYS)}!",
            ]
        ),
    )
