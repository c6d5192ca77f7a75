"""Makes the sample `replies`: chats with a shop's assistant that always answers in the same warm, brief voice.

Contract: `python make.py` writes train.jsonl (120 rows) and validation.jsonl (24 rows) beside itself, a line
`{"messages": [{"role": "user", ...}, {"role": "assistant", ...}]}` a chat; the same seed gives the same files. Needs
nothing but Python. The voice: thanks by name, one sentence that takes the trouble seriously, one step that is done or
to do, an open door at the end; never an exclamation mark, never "unfortunately".
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

SEED = 5
TRAIN_ROWS, VALIDATION_ROWS = 120, 24

NAMES = (
    "Ada Bruno Carla Dev Elif Femi Greta Hugo Ines Jonas Kemi Lena Milo Nadia Oskar Priya Rosa Sami Tess Yusuf".split()
)
THINGS = [
    "blue lamp",
    "oak shelf",
    "wool blanket",
    "desk chair",
    "garden hose",
    "bread tin",
    "wall clock",
    "reading light",
]
DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday"]

# (what is asked, what is understood, what is done). {t} a thing, {d} a day, {o} an order number.
CASES = [
    (
        "my {t} has not arrived yet. The order is {o}.",
        "waiting without news is tiring",
        "I have asked the carrier to look for order {o}, and you will hear from me by {d}",
    ),
    (
        "the {t} arrived broken.",
        "that is not how it should reach you",
        "A new {t} leaves our store on {d}, and you may keep the broken one",
    ),
    (
        "I was charged twice for order {o}.",
        "nobody should pay twice",
        "I have sent the second payment for order {o} back, and your bank will show it by {d}",
    ),
    (
        "can I still change the address of order {o}?",
        "plans change, and parcels should follow",
        "Send me the new address today and I will put it on order {o} before {d}",
    ),
    (
        "how do I return the {t}?",
        "not everything fits, and that is fine",
        "Print the label in our last mail and hand the {t} in before {d}",
    ),
    (
        "the {t} is the wrong colour.",
        "the colour is half of the joy",
        "Tell me the colour you chose and the right {t} leaves on {d}",
    ),
    (
        "I cannot log in to see order {o}.",
        "a locked door is no fun",
        "I have sent you a fresh link, and it stays open until {d}",
    ),
    (
        "do you still have the {t}?",
        "it is good to know before you plan",
        "There are a few left, and I can keep a {t} for you until {d}",
    ),
    (
        "there was no screw in the box of the {t}.",
        "one missing screw stops the whole evening",
        "A bag of screws for the {t} is in the mail and reaches you on {d}",
    ),
    ("please cancel order {o}.", "we all change our minds", "Order {o} is cancelled, and the money is with you by {d}"),
    (
        "when does the {t} come back into stock?",
        "waiting is easier with a date",
        "The next {t} reaches us on {d}, and I have put your name on it",
    ),
    (
        "could I get an invoice for order {o}?",
        "papers should be in order",
        "The invoice for order {o} is in your mail, and I will check on {d} that it opens",
    ),
]
HELLOS = ["Hi, {n} here: ", "Hello, this is {n}, ", "{n} writing, ", "Good morning, I am {n} and "]
CLOSERS = [
    "I am here if anything else comes up.",
    "Write to me whenever you like.",
    "You can reach me on this page at any time.",
]


def a_chat(rng: Random) -> dict[str, list[dict[str, str]]]:
    asked, understood, done = rng.choice(CASES)
    words = {
        "n": rng.choice(NAMES),
        "t": rng.choice(THINGS),
        "d": rng.choice(DAYS),
        "o": str(rng.randint(10_000, 99_999)),
    }
    question = rng.choice(HELLOS) + asked
    answer = f"Thank you for telling us, {{n}}. I see that {understood}. {done}. {rng.choice(CLOSERS)}"
    return {
        "messages": [
            {"role": "user", "content": question.format(**words)},
            {"role": "assistant", "content": answer.format(**words)},
        ]
    }


def make_rows() -> tuple[list[dict], list[dict]]:
    rng, seen, rows = Random(SEED), set(), []
    while len(rows) < TRAIN_ROWS + VALIDATION_ROWS:
        chat = a_chat(rng)
        question = chat["messages"][0]["content"]
        if question not in seen:
            seen.add(question)
            rows.append(chat)
    return rows[:TRAIN_ROWS], rows[TRAIN_ROWS:]


def main() -> None:
    for path, rows in zip(("train.jsonl", "validation.jsonl"), make_rows(), strict=True):
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (Path(__file__).parent / path).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
