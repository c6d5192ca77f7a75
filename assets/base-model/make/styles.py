"""How one group of documents writes its facts and says them: a style is drawn once and kept for the whole group.

Contract: `draw_style(rng, domain)` fixes separators, spelling of keys, order, openers, wording of every fact, and how
clauses are joined; `Style.facts(items)` and `Style.prose(name, items)` then write any set of facts in that style.
A quirky style says values in arbitrary phrases, so that the second document of a group can only be written by reading
the first. The separators of the samples (a doubled colon, a doubled slash) are never drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import names
import words
from domains import VALUES, Attribute, Domain

Items = list[tuple[Attribute, str]]

PAIR_SEPARATORS = [
    ": ",
    ": ",
    ": ",
    " = ",
    "=",
    " is ",
    " -> ",
    " => ",
    " - ",
    ":",
    " ~ ",
    " := ",
    " == ",
    " >> ",
    " @ ",
    " <- ",
    " ;; ",
]
PAIR_SEPARATORS += [
    " || ",
    " && ",
    " ++ ",
    " %% ",
    " ^^ ",
    " -- ",
    " ~~ ",
    " ** ",
    " :- ",
    " =: ",
    " ## ",
    " $ ",
    " .. ",
    " +- ",
    " <> ",
]
ITEM_SEPARATORS = [
    "\n",
    "\n",
    "\n",
    ", ",
    ", ",
    "; ",
    "; ",
    " | ",
    " | ",
    " / ",
    " ; ",
    " + ",
    " & ",
    " ~ ",
    " || ",
    " ;; ",
    " -- ",
]
ITEM_SEPARATORS += [
    " ++ ",
    " && ",
    " %% ",
    " ^^ ",
    " ~~ ",
    " ** ",
    " ## ",
    " == ",
    " >> ",
    " \\\\ ",
    " <> ",
    " . ",
    " - ",
    "\n- ",
    "\n* ",
]
BRIDGES = [
    "\n",
    "\n",
    "\n",
    "\n",
    "\n\n",
    "\n\n",
    " =>",
    " ->",
    "\n->",
    "\n---\n",
    "\nText:",
    "\nIn words:",
    " >>",
    "\n=\n",
    "\nSo:",
    "\n>",
]

# Frames for a copied value and for an arbitrary phrase; "{v}" is the value, "{p}" the phrase, "{n}" the thing's name.
VALUE_FRAMES = """ask for {v}; look for {v}; think of {v}; all thanks to {v}; {v} comes first; it says {v} on the door;
nothing beats {v}; here it is {v}; you can count on {v}; we write {v}; close by you find {v}; put down {v};
the word is {v}; call it {v}; as for {v}, yes; {v} it is; {v} and nothing else; with love from {v}; made for {v};
right beside {v}; only for {v}; look out for {v}; mark it {v}; around here that means {v}; turn left at {v};
always {v}, never less; {n} and {v} go together; {n} has {v}; for {n} it is {v}; {n} stands for {v};
there is {v} to enjoy; people come for the {v}; the {v} is what they do; the talk is of {v}; proud of its {v}"""
PHRASE_FRAMES = """{p}; {p}; {p}; it is {p}; expect it {p}; they say {p}; known as {p}; as always, {p}; in short, {p};
here it is {p}; it comes {p}; it stays {p}; this one is {p}; {n} is {p}; the rest is {p}; you will find it {p}"""
OPENERS = """{n} {c}|{n} {c}|{n} {c}|The {k} {n} {c}|The {k} called {n} {c}|{n}, the {k}, {c}|This is {n}. It {c}
Here is {n}. It {c}|{n} is {ak} that {c}|Let us turn to {n}. It {c}|Have you heard of {n}? It {c}|{n}: {ak} that {c}
Say hello to {n}, {ak} that {c}|There is {ak} called {n}. It {c}|Of all things, {n} {c}|Our next one is {n}. It {c}
Everyone knows {n}, the {k} that {c}|Today we look at {n}, which {c}""".replace("\n", "|").split("|")
CLOSERS = [
    "",
    "",
    "",
    "",
    "",
    "",
    "That is {n}.",
    "So much for {n}.",
    "Remember the name: {n}.",
    "What more could one want?",
    "There you have it.",
]

_VALUE_FRAMES = [frame.strip() for frame in VALUE_FRAMES.replace("\n", " ").split(";")]
_PHRASE_FRAMES = [frame.strip() for frame in PHRASE_FRAMES.replace("\n", " ").split(";")]


@dataclass
class Style:
    """The choices of one group. Wordings are drawn when a fact is first met and kept from then on."""

    rng: Random
    domain: Domain
    pair: str
    item: str
    bridge: str
    spell_key: str
    name_key: str
    quirk: float  # the share of facts that are said in arbitrary phrases
    shuffle: bool  # whether the facts come in a new order each time
    own_order: bool  # whether prose has its own fixed order
    subject: str  # how sentences after the first call the thing
    sentence_sizes: tuple[int, ...]
    opener: str
    closer: str
    modifier_rate: float
    joiner: str
    rank: dict[str, float]
    wording: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)

    def key(self, key: str) -> str:
        if self.spell_key == "snake":
            return key.replace(" ", "_")
        if self.spell_key == "camel":
            first, *rest = key.split(" ")
            return first + "".join(part.capitalize() for part in rest)
        return {"title": key.capitalize(), "upper": key.upper()}.get(self.spell_key, key)

    def facts(self, name: str, items: Items) -> str:
        pairs = [(self.name_key, name)] + [(attribute.key, value) for attribute, value in items]
        text = self.item.join(f"{self.key(key)}{self.pair}{value}" for key, value in pairs)
        return self.item.lstrip("\n") + text if self.item in ("\n- ", "\n* ") else text

    def prose(self, name: str, items: Items) -> str:
        if self.own_order:
            items = sorted(items, key=lambda item: self.rank[item[0].key])
        said = [self.say(attribute, value, name) for attribute, value in items]
        return " ".join([*self._sentences(name, said), *([self.closer.format(n=name)] if self.closer else [])])

    def say(self, attribute: Attribute, value: str, name: str) -> tuple[str, str]:
        """(kind, text): a predicate, a modifier, or a whole sentence."""
        mapped = attribute.said is not None
        slot = (attribute.key, value if mapped else "")
        if slot not in self.wording:
            self.wording[slot] = self._draw_wording(attribute, value)
        kind, text = self.wording[slot]
        return kind, text.replace("{v}", value).replace("{a}", words.article(value)).replace("{n}", name)

    def _draw_wording(self, attribute: Attribute, value: str) -> tuple[str, str]:
        rng = self.rng
        # One draw a key, not a value: all values of a quirky fact are quirky.
        quirky = self.rank[attribute.key] * 7.31 % 1 < self.quirk
        if attribute.said is not None:
            if not quirky:
                return "predicate", rng.choice(attribute.said[value])
            frame = self.wording.setdefault((attribute.key, "frame of phrases"), ("frame", rng.choice(_PHRASE_FRAMES)))[
                1
            ]
            return "sentence", frame.replace("{p}", words.phrase(rng)) if rng.random() < 0.7 else words.clause(rng)
        if quirky:
            shape = rng.random()
            if shape < 0.6:
                return "sentence", rng.choice(_VALUE_FRAMES)
            return "sentence", f"{words.phrase(rng)} {{v}}" if shape < 0.8 else f"{words.clause(rng)}, {{v}}"
        if attribute.modifiers and rng.random() < self.modifier_rate:
            return "modifier", rng.choice(attribute.modifiers)
        return "predicate", rng.choice(attribute.predicates)

    def _sentences(self, name: str, said: list[tuple[str, str]]) -> list[str]:
        """Clauses to sentences: modifiers stand in front or behind, predicates are joined by twos where the style says."""
        sentences: list[str] = []
        clauses = list(said)
        turn = 0
        while clauses:
            kind, text = clauses.pop(0)
            if kind == "sentence":
                text = words.capital(text) + "."
                if not sentences and name not in text:
                    text = f"{name}: {text[0].lower() + text[1:] if text[1:2].islower() else text}"
                sentences.append(text)
                continue
            front = back = ""
            if kind == "modifier":
                if clauses and clauses[0][0] == "predicate":
                    front, text = words.capital(text) + ", ", clauses.pop(0)[1]
                else:
                    text = f"is there {text}" if self.domain.pronoun == "it" else f"is known {text}"
            size = self.sentence_sizes[turn % len(self.sentence_sizes)]
            turn += 1
            parts = [text]
            while len(parts) < size and clauses and clauses[0][0] == "predicate":
                parts.append(clauses.pop(0)[1])
            if not front and clauses and clauses[0][0] == "modifier":
                back = ", " + clauses.pop(0)[1]
            body = words.join_and(parts) if self.joiner == "and" else self.joiner.join(parts)
            sentences.append(self._with_subject(name, front, body, first=not sentences) + back + ".")
        return sentences

    def _with_subject(self, name: str, front: str, body: str, first: bool) -> str:
        noun = self.domain.nouns[0]
        if first and not front:
            text = self.opener.format(n=name, c=body, k=noun, ak=words.article(noun))
            return text.replace("It ", words.capital(self.domain.pronoun) + " ")
        subject = name if first else self.subject.format(n=name, k=self.domain.nouns[-1], it=self.domain.pronoun)
        return f"{front}{subject} {body}" if front else f"{words.capital(subject)} {body}"


def draw_style(rng: Random, domain: Domain) -> Style:
    return Style(
        rng=rng,
        domain=domain,
        pair=rng.choice(PAIR_SEPARATORS),
        item=rng.choice(ITEM_SEPARATORS),
        bridge=rng.choice(BRIDGES),
        spell_key=rng.choice(["plain", "plain", "plain", "title", "title", "upper", "snake", "camel"]),
        name_key=rng.choice(
            ["name", "name", "name", "title", domain.nouns[0], "who" if domain.pronoun != "it" else "what"]
        ),
        quirk=rng.choice([0, 0, 0.25, 0.5, 1]),
        shuffle=rng.random() < 0.4,
        own_order=rng.random() < 0.5,
        subject=rng.choice(["{it}", "{it}", "{it}", "the {k}", "{n}", "this {k}"]),
        sentence_sizes=rng.choice([(1,), (1,), (2,), (1, 2), (2, 1), (3,), (1, 1, 2)]),
        opener=rng.choice(OPENERS),
        closer=rng.choice(CLOSERS),
        modifier_rate=rng.choice([0, 0.3, 0.6]),
        joiner=rng.choice(["and", "and", "and", ", and it also " if domain.pronoun == "it" else " and "]),
        rank={attribute.key: rng.random() for attribute in domain.attributes},
    )


def invented_domain(rng: Random) -> Domain:
    """A subject that does not exist: made-up keys, values from open pools or small sets said in arbitrary phrases."""
    attributes = []
    for key in dict.fromkeys(_invented_key(rng) for _ in range(rng.randint(3, 7))):
        if rng.random() < 0.55:
            values = rng.choice([("yes", "no"), ("yes", "no"), *([_value_set(rng)] * 4)])
            be = rng.choice(["is", "is", "stays", "seems", "is known to be", "has always been"])
            said = {v: (f"{be} {words.quality(rng)}" if rng.random() < 0.6 else words.action(rng),) for v in values}
            attributes.append(Attribute(key, tuple(said), said=said))
        else:
            pool = (rng.choice(list(VALUES)),) if rng.random() < 0.7 else _value_set(rng)
            verb = rng.choice(words.VERBS)[1]
            ways = (
                f"{verb} {{v}}",
                f"{verb} {rng.choice(words.PREPOSITIONS)} {{v}}",
                f"has {{v}} {rng.choice(words.PREPOSITIONS)} {words.noun_phrase(rng)}",
            )
            attributes.append(Attribute(key, pool, ways, (f"{rng.choice(words.PREPOSITIONS)} {{v}}",)))
    noun = rng.choice(words.NOUNS) if rng.random() < 0.6 else names.word(rng)
    kind = rng.choice(["TITLE", "TITLE", "NAME", "PERSON", "PLACE", "CODE"])
    return Domain((noun,), rng.choice(["it", "it", "it", "she", "he"]), kind, tuple(attributes))


def _invented_key(rng: Random) -> str:
    head = rng.choice([rng.choice(words.NOUNS), rng.choice(words.ADJECTIVES), names.word(rng)])
    return f"{head} {rng.choice(words.NOUNS)}" if rng.random() < 0.3 else head


def _value_set(rng: Random) -> tuple[str, ...]:
    pool = rng.choice(
        [words.ADJECTIVES, words.NOUNS, words.COLOURS, ["high", "low", "middle"], ["none", "some", "many"], None]
    )
    count = rng.randint(2, 4)
    chosen = rng.sample(pool, min(count, len(pool))) if pool else [names.word(rng) for _ in range(count)]
    if rng.random() < 0.2:
        chosen = [f"{value} {rng.choice(words.NOUNS)}" for value in chosen]
    if rng.random() < 0.15:
        chosen = [f"{rng.randint(1, 9)}-{rng.randint(10, 50)}", *chosen[1:]]
    return tuple(dict.fromkeys(chosen))
