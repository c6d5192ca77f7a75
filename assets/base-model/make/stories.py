"""Running text without facts in front: stories, talks, letters, diaries, instructions, descriptions.

Contract: as in `groups.py`, a function of a `random.Random` returns a document of weighted pieces. The text hangs
together: people keep their names and things stay where they were put.
"""

from __future__ import annotations

from random import Random

import names
import words
from groups import TEXT, Document

WANTS = [
    ("find the lost {thing}", "found the {thing}", "the {thing} was gone for good"),
    ("mend the {adj} {thing}", "mended the {thing}", "the {thing} could not be mended"),
    ("carry the {thing} to {place}", "brought the {thing} to {place}", "the {thing} never reached {place}"),
    ("learn to {verb} like {friend}", "had learned to {verb}", "it was harder to {verb} than it looked"),
    ("build {a_thing} before winter", "finished the {thing}", "the {thing} fell down in the first storm"),
    ("see {place} once in a lifetime", "stood at last in {place}", "{place} was not what everybody had said"),
    ("win the race to {place}", "won by a step", "somebody else was faster"),
    ("give {friend} {a_thing}", "gave {friend} the {thing}", "{friend} already had {a_thing}"),
    ("write a song about {place}", "sang the song to a full hall", "the song stayed unfinished"),
    ("keep the {thing} secret", "kept the secret", "the whole of {place} knew by noon"),
]
OPENINGS = [
    "Once there was {a_job} called {hero} who lived in {place}.",
    "In {place} lived {hero}, {a_job} with {a_adj} heart.",
    "{hero} was {a_job} and had never left {place}.",
    "It was {a_weather} {day} in {month} when {hero} woke up early.",
    "Nobody in {place} knew much about {hero}.",
    "Long ago, when {place} was still small, there lived {a_job} named {hero}.",
    "{hero} and {friend} had been friends since they were small.",
]
MIDDLES = [
    "The road was {adj} and the wind came from the {side}.",
    "On the way {they} met {friend}, who was carrying {a_other}.",
    '"You will need {a_other}," said {friend}.',
    '"Are you sure?" asked {friend}. "I have never been so sure," said {hero}.',
    "At first everything went well.",
    "Then it began to rain, and the {other} got wet.",
    "By {day} there was nothing left to eat but {food}.",
    "{they_cap} sat down under a tree and thought about it for a while.",
    "An old {job} showed {them} a better way.",
    "Behind the {other} there was a small door.",
    "The {other} was too heavy, so {they} left it behind.",
    "{friend} laughed, but it was a kind laugh.",
    "They shared some {food} and talked until it was dark.",
    "In the night {they} heard {a_adj} noise near the {other}.",
    "For {count} days nothing happened.",
    '"Wait for me," called {friend}, but it was too late.',
    "A {adj2} bird sat on the {other} and watched them.",
    "{they_cap} had only {count} coins left.",
]
GOOD_ENDS = [
    "In the end {hero} {done}, and everyone was glad.",
    "And so {hero} {done}.",
    "When the sun came up, {hero} {done}. {friend} could hardly believe it.",
    "At last {hero} {done}, and they went home together.",
]
BAD_ENDS = [
    "But {failed}, and {hero} went home with empty hands.",
    "In the end {failed}. {hero} was sad for a while and then began to laugh.",
    "Sadly, {failed}. Still, {hero} had made a friend.",
]
MORALS = [
    "",
    "",
    "",
    "Some things take time.",
    "That is how it was told to me.",
    "They still talk about it in {place}.",
    "And nobody ever asked about the {other} again.",
]
JOBS = "baker sailor farmer miller teacher painter shepherd clockmaker gardener judge fisher weaver tailor pilot carpenter postman".split()
FOODS = ["bread", "apples", "cheese", "soup", "nuts", "honey", "pears", "rice", "beans", "cake", "plums", "milk"]


def _cast(rng: Random) -> dict[str, str]:
    hero = rng.choice(names.FIRST_NAMES) if rng.random() < 0.6 else names.invented(rng)
    if hero in names.FIRST_NAMES:
        they = "he" if hero in names.MEN else "she"
    else:
        they = rng.choice(["he", "she"])
    thing, other = rng.sample(words.NOUNS, 2)
    job, adjective = rng.choice(JOBS), rng.choice(words.ADJECTIVES)
    weather = rng.choice(words.WEATHER)
    return {
        "hero": hero,
        "friend": rng.choice(names.FIRST_NAMES) if rng.random() < 0.6 else names.invented(rng),
        "place": names.place(rng),
        "they": they,
        "they_cap": they.capitalize(),
        "them": "him" if they == "he" else "her",
        "their": "his" if they == "he" else "her",
        "thing": thing,
        "a_thing": words.article(thing),
        "other": other,
        "a_other": words.article(other),
        "job": job,
        "a_job": words.article(job),
        "adj": adjective,
        "a_adj": words.article(adjective),
        "adj2": rng.choice(["white", "small", "black", "grey", "brown", "young"]),
        "verb": rng.choice(["sing", "swim", "dance", "sail", "climb", "paint", "ride", "whistle"]),
        "weather": weather,
        "a_weather": words.article(weather),
        "day": rng.choice(words.DAYS),
        "month": rng.choice(words.MONTHS),
        "side": rng.choice(["north", "south", "east", "west"]),
        "food": rng.choice(FOODS),
        "count": rng.choice(words.NUMBER_WORDS[1:]),
    }


def story(rng: Random) -> Document:
    cast = _cast(rng)
    want, done, failed = rng.choice(WANTS)
    happy = rng.random() < 0.65
    lines = [
        rng.choice(OPENINGS),
        f"More than anything {{they}} wanted to {want}.",
        *rng.sample(MIDDLES, rng.randint(2, 6)),
        rng.choice(GOOD_ENDS).replace("{done}", done) if happy else rng.choice(BAD_ENDS).replace("{failed}", failed),
        rng.choice(MORALS),
    ]
    text = " ".join(words.capital(line.format(**cast)) for line in lines if line)
    if rng.random() < 0.3:
        text = (
            f"{rng.choice(['The {thing}', '{hero} and the {thing}', 'A story from {place}']).format(**cast)}\n\n{text}"
        )
    return [(text, TEXT)]


def talk(rng: Random) -> Document:
    """Two people make a plan; what is agreed on is what was proposed."""
    cast = _cast(rng)
    here, there = names.place(rng), names.place(rng)
    day, other_day = rng.sample(words.DAYS, 2)
    plan = rng.choice(
        [
            "go for a walk",
            "visit the museum",
            "play chess",
            "take the boat out",
            "paint the fence",
            "look for mushrooms",
            "practise the song",
        ]
    )
    lines = [
        (
            "hero",
            rng.choice(
                [
                    f"Shall we {plan} on {day}?",
                    f"I would like to {plan}. Are you free on {day}?",
                    f"What about {day}? We could {plan}.",
                ]
            ),
        ),
        (
            "friend",
            rng.choice(
                [f"On {day} I cannot. What about {other_day}?", f"{day} is difficult. {other_day} would be better."]
            ),
        ),
        ("hero", rng.choice([f"{other_day} is fine.", f"Good, {other_day} then.", f"Then let us say {other_day}."])),
        ("friend", rng.choice([f"Where do we meet, at {here} or at {there}?", f"{here} or {there}?"])),
        ("hero", rng.choice([f"At {there}. It is closer.", f"Let us meet at {there}.", f"I prefer {there}."])),
        (
            "friend",
            rng.choice(
                [
                    f"See you on {other_day} at {there}!",
                    f"All right: {other_day}, {there}.",
                    f"Agreed. I will bring {cast['food']}.",
                ]
            ),
        ),
    ]
    form = rng.choice(["{who}: {said}", '"{said}" said {who}.', "{who} - {said}"])
    written = []
    for who, said in lines:
        if form.startswith('"') and said.endswith("."):
            said = said[:-1] + ","
        written.append(form.format(who=cast[who], said=said))
    text = rng.choice(["\n", "\n", "\n\n"]).join(written)
    if rng.random() < 0.4:
        text += f"\n\nIn short: {cast['hero']} and {cast['friend']} {plan} on {other_day} and meet at {there}."
    return [(text, TEXT)]


def letter(rng: Random) -> Document:
    cast = _cast(rng)
    body = [
        rng.choice(
            [
                "Thank you for your letter from {place}.",
                "I hope you are well.",
                "It has been a long time.",
                "You asked about the {thing}.",
            ]
        ),
        rng.choice(
            ["The weather here is {weather}, and the {other} is still {adj}.", "We have had a {weather} {month}."]
        ),
        rng.choice(
            [
                "On {day} I went to {place} to buy {a_thing}.",
                "Last {day} I saw {a_adj} {thing} in {place} and thought of you.",
                "We are building {a_thing} out of {a_other}.",
            ]
        ),
        rng.choice(
            [
                "Please bring {food} when you come.",
                "Could you send me the {other}?",
                "Come and see us in {month}.",
                "Do not forget the {thing}.",
            ]
        ),
        rng.choice(
            [
                "There is not much else to tell.",
                "The children ask about you every day.",
                "Everyone here sends greetings.",
                "Write soon.",
            ]
        ),
    ]
    greeting, farewell = rng.choice(
        [
            ("Dear {friend},", "Yours, {hero}"),
            ("Hello {friend},", "Best wishes, {hero}"),
            ("My dear {friend},", "With love, {hero}"),
        ]
    )
    start = rng.choice(["", "", "{place}, {day}\n\n"])
    return [((start + greeting + "\n\n" + " ".join(body) + "\n\n" + farewell).format(**cast), TEXT)]


def how_to(rng: Random) -> Document:
    cast = _cast(rng)
    steps = [
        "Find {a_thing} and {a_other}.",
        "Wash the {thing} with warm water and let it dry.",
        "Put the {thing} on the {other}.",
        "Wait for {count} minutes.",
        "Turn the {thing} around and do the same on the other side.",
        "Paint the {thing} in {adj2}.",
        "Tie everything together with a strong rope.",
        "Ask somebody to hold the {other} while you work.",
        "Measure twice before you cut.",
        "Press the {thing} gently against the {other}.",
        "Check that nothing is loose.",
    ]
    chosen = [steps[0], *rng.sample(steps[1:], rng.randint(2, 5))]
    chosen = [step.format(**cast) for step in chosen]
    head = rng.choice(
        [
            "How to make {a_adj} {thing}",
            "How to clean {a_thing}",
            "How to fix {a_thing} at home",
            "A {adj2} {thing} in a few steps",
        ]
    ).format(**cast)
    if rng.random() < 0.6:
        mark = rng.choice(["{n}. ", "{n}) ", "Step {n}: ", "- "])
        return [
            (head + "\n\n" + "\n".join(mark.format(n=number) + step for number, step in enumerate(chosen, 1)), TEXT)
        ]
    linked = [chosen[0]] + [
        f"{rng.choice(['Then', 'After that,', 'Next,', 'Now'])} {step[0].lower()}{step[1:]}" for step in chosen[1:]
    ]
    return [(f"{head}. " + " ".join(linked) + " That is all.", TEXT)]


def description(rng: Random) -> Document:
    """A place or a day, with what stands where; the last sentence comes back to the first."""
    cast = _cast(rng)
    near, far, left = rng.sample(words.NOUNS, 3)
    lines = [
        rng.choice(
            [
                "{place} is {a_adj} place.",
                "You reach {place} by the old road from the {side}.",
                "On {a_weather} morning {place} looks almost new.",
            ]
        ),
        f"In front there is {words.article(near)}, and behind it {words.article(rng.choice(words.ADJECTIVES) + ' ' + far)}.",
        f"To the left you see {words.article(left)} made of {rng.choice(words.MATERIALS)}.",
        rng.choice(
            [
                "{friend} lives there with {count} cats.",
                "Hardly anyone comes by on {day}s.",
                "In {month} the air smells of {food}.",
                "It is quiet except for the wind.",
            ]
        ),
        rng.choice(
            [
                "{hero} used to say that it never changes.",
                "People say that {hero} built it alone.",
                "Since {month} a sign says: keep out.",
            ]
        ),
        rng.choice(
            [
                f"If you come, look for the {left}.",
                f"Nobody remembers who put the {near} there.",
                f"The {far} can be seen from far away.",
                "One could stay there for hours.",
            ]
        ),
    ]
    kept = [lines[0], lines[1], *[line for line in lines[2:] if rng.random() < 0.75]]
    return [(" ".join(words.capital(line.format(**cast)) for line in kept), TEXT)]


MOODS = {
    "glad": [
        "It was a fine day.",
        "I could not stop smiling.",
        "Everything went right.",
        "I have not laughed so much in weeks.",
        "It was lovely.",
    ],
    "upset": [
        "It was an awful day.",
        "I could have cried.",
        "Everything went wrong.",
        "I am so tired of it.",
        "It was a waste of time.",
    ],
    "calm": [
        "It was an ordinary day.",
        "Not much happened.",
        "I took my time.",
        "It was neither good nor bad.",
        "I rested.",
    ],
}
EVENTS = {
    "glad": [
        "{friend} brought me {a_thing}",
        "I found the {thing} at last",
        "we won the game",
        "{friend} remembered my birthday",
        "the {thing} works perfectly again",
        "the soup was delicious",
    ],
    "upset": [
        "{friend} lost the {thing}",
        "the {thing} broke after {count} days",
        "it rained on my {other}",
        "nobody came",
        "the {thing} arrived late and damaged",
        "the soup was cold and bitter",
    ],
    "calm": [
        "I cleaned the {thing}",
        "I wrote to {friend}",
        "we walked to {place} and back",
        "I moved the {other} to the other room",
        "I had {food} for lunch",
        "I read for an hour",
    ],
}


def diary(rng: Random) -> Document:
    """Short entries with the mood named at the end or the start: text to label, in words the samples do not use."""
    form = rng.choice(
        ["{text}\nMood: {mood}", "{text} => {mood}", "{text}\n{mood}", "({mood}) {text}", "Mood: {mood}\n{text}"]
    )
    names_of = dict(
        zip(
            MOODS,
            rng.choice(
                [
                    list(MOODS),
                    ["good", "bad", "plain"],
                    ["sun", "rain", "cloud"],
                    ["up", "down", "flat"],
                    [names.word(rng) for _ in MOODS],
                ]
            ),
            strict=True,
        )
    )
    entries = []
    for _ in range(rng.randint(2, 6)):
        cast, mood = _cast(rng), rng.choice(list(MOODS))
        event = words.capital(rng.choice(EVENTS[mood]).format(**cast))
        parts = [event + rng.choice([".", f" on {cast['day']}.", f" in {cast['place']}."]), rng.choice(MOODS[mood])]
        if rng.random() < 0.5:
            parts.reverse()
        entries.append(form.format(text=" ".join(parts[: rng.randint(1, 2)]), mood=names_of[mood]))
    return [(rng.choice(["\n\n", "\n\n", "\n"]).join(entries), TEXT)]
