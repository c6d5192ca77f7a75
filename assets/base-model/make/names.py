"""Names that nobody has seen: people, places, things, codes, all drawn from a random generator.

Contract: every function takes a `random.Random` and returns one name. The space of syllable names is far larger than
the corpus, so copying, not remembering, is what pays when the model meets one.
"""

from __future__ import annotations

from random import Random

from words import ADJECTIVES, NOUNS

ONSETS = """b b br c c cl cr d d dr f fl fr g gl gr h h j k k kr l l m m n n p pl pr qu r r s s sh sk sl sm sn sp st str
t t th tr v w wh y z""".split()
VOWELS = "a a a e e e i i i o o o u u ai ea ee ei ia oa oo ou y".split()
CODAS = ["", "", "", "", *"ck d g l l ll m n n nd ng nt p r r rd rk rn s s sh ss st t x".split()]
ENDINGS = """ford ton ham field ley wick stead mere dale burgh mouth haven cliff brook wood worth holm by gate bridge
ville port ia ora an en is us ix on or ar el ett ock ine ane ell ow er""".split()

FIRST_NAMES = """Ada Adil Agnes Aiko Alma Amir Ana Anton Arlo Asha Beatrix Ben Bodil Bram Carla Cedric Chidi Clara
Cora Dalia Dario Daphne Edda Elias Ella Emil Enzo Esther Eva Farah Felix Finn Flora Frida Gideon Grace Greta Hana Hugo
Ida Igor Ines Iris Ivo Jana Jasper Joel Jonas Jude June Kai Karim Kira Lars Lena Leo Lila Lin Lotte Luca Mabel Magnus
Mara Marek Mei Milo Mina Nadia Nell Nico Nina Noah Nora Olga Omar Oscar Otto Paula Petra Pia Priya Quinn Rafael Ravi
Rhea Rosa Ruben Ruth Sami Sanne Selma Silas Simon Sofia Stella Tariq Tess Theo Tilda Tomas Uma Vera Victor Viola Wanda
Wren Yara Yusuf Zara Zeno""".split()


PLACE_HEADS = "North South East West Upper Lower New Old Port Saint".split()
MEN = """Adil Amir Anton Arlo Ben Bram Cedric Chidi Dario Elias Emil Enzo Felix Finn Gideon Hugo Igor Ivo Jasper Joel
Jonas Karim Lars Leo Luca Magnus Marek Milo Nico Noah Omar Oscar Otto Rafael Ravi Ruben Sami Silas Simon Tariq Theo
Tomas Victor Yusuf Zeno""".split()


def syllables(rng: Random, low: int = 1, high: int = 2) -> str:
    parts = [rng.choice(ONSETS) + rng.choice(VOWELS) for _ in range(rng.randint(low, high))]
    return "".join(parts) + rng.choice(CODAS)


def invented(rng: Random) -> str:
    """One invented proper noun: Brelloth, Sneaford, Kiaspen."""
    stem = syllables(rng)
    if rng.random() < 0.45:
        stem += rng.choice(ENDINGS)
    elif len(stem) < 4:
        stem += rng.choice(VOWELS)
    return stem.capitalize()


def word(rng: Random) -> str:
    """An invented common word in small letters: a key or a value without a meaning."""
    return syllables(rng)


def person(rng: Random) -> str:
    first = rng.choice(FIRST_NAMES) if rng.random() < 0.5 else invented(rng)
    style = rng.random()
    if style < 0.1:
        return f"{rng.choice(['Dr', 'Captain', 'Professor', 'Aunt', 'Uncle', 'Judge'])} {invented(rng)}"
    if style < 0.2:
        return f"{first} {chr(65 + rng.randrange(26))}. {invented(rng)}"
    return f"{first} {invented(rng)}" if style < 0.8 else first


def place(rng: Random) -> str:
    style = rng.random()
    if style < 0.4:
        return invented(rng)
    if style < 0.55:
        return f"{rng.choice(PLACE_HEADS)} {invented(rng)}"
    if style < 0.7:
        return f"{rng.choice(ADJECTIVES).capitalize()}{rng.choice(NOUNS)}"
    kind = "Lane Street Square Bay Hill Bridge Park Road Hall Valley Station Garden Market House Tower Museum".split()
    head = invented(rng) if style < 0.85 else rng.choice([*ADJECTIVES, *NOUNS]).capitalize()
    return f"{head} {rng.choice(kind)}"


def title(rng: Random) -> str:
    """The name of a thing, club, book or firm: many shapes, common words and invented ones."""
    adjective, noun, other = rng.choice(ADJECTIVES).title(), rng.choice(NOUNS).title(), rng.choice(NOUNS).title()
    return rng.choice(
        [
            f"The {adjective} {noun}",
            f"The {adjective} {noun}",
            f"{adjective} {noun}",
            f"{noun} and {other}",
            f"The {noun} & {other}",
            f"{noun} & {other}",
            f"{invented(rng)}'s {noun}",
            f"{rng.choice(FIRST_NAMES)}'s",
            f"{invented(rng)} {noun}",
            f"The {invented(rng)}",
            f"{noun} of {invented(rng)}",
            f"{adjective}{noun.lower()}",
            f"La {invented(rng)}",
            f"{invented(rng)} {invented(rng)}",
            invented(rng),
            invented(rng),
        ]
    )


def code(rng: Random) -> str:
    letters = "".join(chr(65 + rng.randrange(26)) for _ in range(rng.randint(1, 3)))
    return rng.choice(
        [f"{letters}-{rng.randint(2, 999)}", f"{letters}{rng.randint(10, 9999)}", f"No. {rng.randint(2, 400)}"]
    )


def any_name(rng: Random) -> str:
    return rng.choice([title, title, invented, person, place, code])(rng)
