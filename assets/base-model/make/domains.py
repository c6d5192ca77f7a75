"""The subjects of the corpus: what kinds of things there are, which facts they have, how each fact may be said.

Contract: `DOMAINS` is a list of `Domain`, parsed from the table below. The samples' own subjects (places to eat and
drink, opinions about products, help for buyers) are not among them, and `corpus.py` refuses their words.

The table: a block a domain, its first line `noun, other noun | pronoun | kind of name`, then a line a fact:
    key = values | predicate; predicate | modifier; modifier      values copied into "{v}" or "{a}" (with a or an)
    key ? value: predicate; predicate | value: ...                values that are said in other words
Values in capitals are drawn by `VALUES`. A predicate continues a sentence whose subject is the thing; a modifier is a
phrase that can stand in front of the sentence or at its end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import names
import words

VALUES: dict[str, Callable[[Random], str]] = {
    "PLACE": names.place,
    "PERSON": names.person,
    "TITLE": names.title,
    "NAME": names.invented,
    "CODE": names.code,
    "YEAR": lambda rng: str(rng.randint(1702, 2031)),
    "COUNT": lambda rng: str(rng.choice([rng.randint(2, 20), rng.randint(2, 20), rng.randint(21, 999)])),
    "SMALL": lambda rng: rng.choice([str(rng.randint(2, 12)), rng.choice(words.NUMBER_WORDS[1:])]),
    "METRES": lambda rng: f"{rng.randint(2, 900)} m",
    "KM": lambda rng: f"{rng.randint(2, 240)} km",
    "HOURS": lambda rng: f"{rng.randint(2, 30)} hours",
    "MONEY": lambda rng: f"{rng.randint(2, 950)} {rng.choice(['crowns', 'marks', 'coins', 'dollars', 'pounds'])}",
    "CLOCK": lambda rng: f"{rng.randint(1, 12)}:{rng.choice(['00', '15', '30', '45'])}",
    "MONTH": lambda rng: rng.choice(words.MONTHS),
    "DAY": lambda rng: rng.choice(words.DAYS),
    "COLOUR": lambda rng: rng.choice(words.COLOURS),
    "MATERIAL": lambda rng: rng.choice(words.MATERIALS),
    "WEATHER": lambda rng: rng.choice(words.WEATHER),
    "ADJECTIVE": lambda rng: rng.choice(words.ADJECTIVES),
}

TABLE = """
ship, boat | it | TITLE
type = ferry, tug, trawler, yacht, barge, icebreaker, steamer, rowing boat | is {a}; sails as {a}; serves as {a} | as {a}
home port = PLACE | sails from {v}; is based in {v}; has its home in {v} | from its berth in {v}; at home in {v}
built = YEAR | was built in {v}; dates from {v}; first sailed in {v} | built in {v}; launched in {v}
captain = PERSON | is led by {v}; answers to captain {v}; follows the orders of {v} | with {v} at the wheel; under {v}
hull = MATERIAL, COLOUR | has {a} hull; shows {a} hull | with {a} hull; with its {v} hull
crew = SMALL | has a crew of {v}; needs {v} hands on deck | with a crew of {v}; with {v} people on board
speed ? slow: takes its time; is in no hurry; moves slowly | average: keeps a steady pace; is neither slow nor fast | fast: cuts quickly through the water; is one of the fast ones
insured ? yes: is fully insured; is covered for any loss | no: has no insurance; sails at its own risk; is not insured

house, home | it | TITLE
type = cottage, villa, flat, tower house, farmhouse, bungalow, attic flat | is {a}; can be called {a} | as {a}
rooms = SMALL | has {v} rooms; offers {v} rooms; is divided into {v} rooms | with {v} rooms; counting {v} rooms
street = PLACE | stands on {v}; is found on {v}; looks out on {v} | on {v}; right on {v}
close to = PLACE, TITLE | is close to {v}; lies a short way from {v}; is next door to {v} | close to {v}; not far from {v}; near {v}
rent = MONEY | costs {v} a month; can be rented for {v}; asks {v} in rent | for {v} a month; at {v}
owner = PERSON | belongs to {v}; is owned by {v} | owned by {v}; in the hands of {v}
walls = COLOUR, MATERIAL | has {v} walls; is known by its {v} walls | with {v} walls; behind {v} walls
garden ? yes: has a garden; comes with a garden; opens onto a garden of its own | no: has no garden; does without a garden
furnished ? yes: comes with furniture; is fully furnished | no: comes without furniture; is empty, so bring your own chairs | partly: comes with some furniture; is partly furnished
pets ? allowed: lets you keep pets; welcomes cats and dogs | forbidden: does not allow pets; has no room for pets

writer, person | she | PERSON
born = YEAR | was born in {v}; came into the world in {v} | born in {v}
birthplace = PLACE | was born in {v}; comes from {v}; grew up in {v} | raised in {v}; a child of {v}
job = teacher, sailor, baker, farmer, judge, pilot, nurse, painter, engineer, gardener, clockmaker, tailor | works as {a}; is {a}; earns a living as {a} | as {a}; {a} by trade
known for = TITLE | is known for {v}; became famous with {v}; wrote {v} | known for {v}; famous for {v}
lives in = PLACE | lives in {v}; has a house in {v}; has settled in {v} | now living in {v}; at home in {v}
teacher = PERSON | learned from {v}; was taught by {v} | taught by {v}; after years with {v}
hobby = chess, rowing, singing, knitting, running, painting, climbing, astronomy, fishing, dancing | likes {v}; spends free time on {v}; is fond of {v} | fond of {v}
languages = SMALL | speaks {v} languages; can talk in {v} languages | with {v} languages
married ? yes: is married; has found someone to share life with | no: is not married; lives alone | unknown: keeps quiet about home life
temper ? calm: is rarely upset; stays calm | fiery: is quick to anger; has a fiery temper | shy: says little among strangers; is shy

dog, animal | he | NAME
breed = terrier, collie, spaniel, poodle, hound, mastiff, mongrel, sheepdog | is {a}; is a true {v} | as {a}
age = SMALL | is {v} years old; has lived for {v} years | at {v} years of age
coat = COLOUR | has {a} coat; wears {a} coat | with {a} coat; in {a} coat
owner = PERSON | belongs to {v}; follows {v} everywhere; lives with {v} | at the side of {v}; with {v}
found in = PLACE | was found in {v}; came from {v} | found in {v}; from {v}
likes = balls, sticks, water, long walks, cheese, sleep, snow, company | likes {v}; cannot get enough of {v}; loves {v} | fond of {v}
trained ? yes: sits when told; has been trained well | no: has not been trained; listens to nobody
good with children ? yes: is kind to children; plays well with little ones | no: should be kept away from children; is not one for children
size ? small: fits in a basket; is a small one | medium: is of middle size; is neither big nor small | large: takes up half the sofa; is a big one

village, town | it | PLACE
region = PLACE | lies in {v}; is part of {v}; belongs to the region of {v} | in {v}; in the heart of {v}
people = COUNT | has {v} people; is home to {v} souls; counts {v} inhabitants | with {v} people; home to {v} souls
river = NAME | stands on the {v}; is crossed by the {v} | on the river {v}; along the {v}
founded = YEAR | was founded in {v}; has stood since {v} | founded in {v}; since {v}
mayor = PERSON | is run by {v}; has {v} as its mayor | under mayor {v}; with {v} as mayor
sight = TITLE, PLACE | is known for {v}; draws people to {v}; is proud of {v} | known for {v}; proud of {v}
market day = DAY | holds its market on {v}; is busy on {v} | with a market on {v}
railway ? yes: can be reached by train; has a railway station | no: has no railway; cannot be reached by train
season ? spring: is best seen in spring; blooms in the spring | summer: comes to life in summer; fills up when it is warm | autumn: is loveliest when the leaves fall; should be seen in autumn | winter: is at its best under snow; is a place for the winter
size ? small: is small enough to cross on foot; can be seen in an hour | large: takes a day to cross; is larger than it looks

book, volume | it | TITLE
author = PERSON | was written by {v}; comes from the pen of {v}; is the work of {v} | by {v}; from the hand of {v}
genre = mystery, romance, history, travel book, fable, memoir, fantasy, adventure | is {a}; can be read as {a} | as {a}
pages = COUNT | has {v} pages; runs to {v} pages; fills {v} pages | in {v} pages; at {v} pages
published = YEAR | came out in {v}; was published in {v}; first appeared in {v} | published in {v}; out since {v}
set in = PLACE | is set in {v}; takes us to {v}; plays out in {v} | set in {v}; on the streets of {v}
hero = PERSON | follows {v}; tells of {v}; is about the life of {v} | with {v} as its hero; following {v}
cover = COLOUR, MATERIAL | has {a} cover; is bound in {v} | in {a} cover; bound in {v}
pictures ? yes: has pictures; is full of drawings | no: has no pictures; relies on words alone
ending ? happy: ends well; leaves everyone smiling | sad: ends in tears; does not end well | open: leaves the end to the reader; stops before the answer
length ? short: can be read in an evening; is over soon | long: keeps you busy for weeks; takes its time

machine, engine | it | CODE
maker = TITLE, NAME | is made by {v}; comes from {v}; was built at {v} | made by {v}; from the workshop of {v}
use = cutting, washing, printing, sewing, drilling, pumping, sorting, weaving, mowing | is used for {v}; is meant for {v}; does the {v} | made for {v}; for {v}
weight = COUNT | weighs {v} kilos; brings {v} kilos to the scale | at {v} kilos; with its {v} kilos
power = steam, wind, water, electricity, diesel, muscle, sunlight | runs on {v}; is driven by {v}; needs {v} to work | driven by {v}; running on {v}
housing = MATERIAL, COLOUR | has {a} case; comes in {a} case | in {a} case; with {a} shell
year = YEAR | was designed in {v}; has been made since {v} | designed in {v}; in use since {v}
operator = PERSON | is run by {v}; is looked after by {v} | in the care of {v}; run by {v}
noise ? quiet: hardly makes a sound; runs quietly | loud: can be heard next door; makes a great noise
tested ? yes: has passed its tests; was checked with care | no: has yet to be tested; was never checked
state ? new: is as good as new; has never been used | worn: shows its age; is well worn | broken: no longer works; needs repair

trail, path | it | PLACE
start = PLACE | begins at {v}; sets out from {v}; starts in {v} | from {v}; starting at {v}
end = PLACE | ends at {v}; leads to {v}; takes you as far as {v} | all the way to {v}; down to {v}
length = KM | is {v} long; runs for {v}; covers {v} | over {v}; for {v}
climb = METRES | climbs {v}; rises by {v} | with a climb of {v}; climbing {v}
passes = TITLE, PLACE | passes {v}; goes by {v}; touches {v} | past {v}; by way of {v}
best month = MONTH | is best in {v}; should be walked in {v} | in {v}; best in {v}
markers = COLOUR | is marked in {v}; follows {v} signs | marked in {v}; with {v} markers
difficulty ? easy: asks little of the legs; is fit for everyone; is easy | moderate: is a fair effort; asks for some breath | hard: is for strong legs only; is hard going
shade ? yes: lies mostly in the shade; is shaded by trees | no: has no shade; lies in full sun
open ? yes: is open; may be walked today | no: is closed; may not be entered for now

concert, evening | it | TITLE
artist = PERSON, TITLE | features {v}; brings {v} to the stage; is played by {v} | with {v}; played by {v}
day = DAY | takes place on {v}; is planned for {v} | on {v}; this {v}
hall = PLACE | is held at {v}; happens at {v}; can be heard at {v} | at {v}; inside {v}
starts = CLOCK | starts at {v}; begins at {v} sharp | at {v}; from {v}
music = jazz, folk songs, waltzes, organ music, marches, opera, drumming, piano pieces | is an evening of {v}; is all about {v} | with {v}; full of {v}
seats = COUNT | has {v} seats; leaves room for {v} people | with {v} seats; for {v} listeners
entry ? free: costs nothing; is free for all | paid: is not free; asks for a small fee | invited: is for invited guests only; needs an invitation
outdoors ? yes: takes place in the open air; is held under the sky | no: is held indoors; stays under a roof
children ? welcome: is fit for children; is one to bring the little ones to | not allowed: is for adults only; is no evening for children

planet, world | it | NAME
star = NAME | circles {v}; goes around {v}; belongs to the star {v} | around {v}; in the light of {v}
moons = SMALL | has {v} moons; is circled by {v} moons | with {v} moons; under {v} moons
colour = COLOUR | looks {v} from afar; shines {v}; is {v} | {v} from afar; with its {v} glow
year length = COUNT | takes {v} days to go around; has a year of {v} days | with a year of {v} days
found by = PERSON | was found by {v}; was first seen by {v} | found by {v}; first seen by {v}
found in = YEAR | was found in {v}; has been known since {v} | found in {v}; known since {v}
surface = ice, sand, rock, water, lava, dust, salt, moss | is covered with {v}; is mostly {v} | covered with {v}; under a skin of {v}
rings ? yes: has rings; wears bright rings | no: has no rings; does without rings
life ? none: has no life at all; is quite dead | unknown: may hold life, nobody knows; keeps its secret | plants: is home to simple plants; has green things growing on it
temperature ? cold: is freezing; never thaws | mild: is neither hot nor cold; is mild | hot: is burning hot; would melt your boots

course, class | it | TITLE
teacher = PERSON | is taught by {v}; is given by {v}; is led by {v} | with {v}; led by {v}
subject = drawing, botany, singing, carpentry, history, geometry, swimming, pottery, weaving, sailing | teaches {v}; is about {v}; is a course in {v} | in {v}; about {v}
day = DAY | meets on {v}; is held every {v} | every {v}; on {v}
time = CLOCK | starts at {v}; begins at {v} | at {v}; from {v}
room = CODE, PLACE | takes place in {v}; is held in {v} | in {v}; over in {v}
places = SMALL | has {v} places; takes {v} people | with {v} places; for {v} people
fee = MONEY | costs {v}; asks {v} | for {v}; at a fee of {v}
level ? beginner: needs no experience; starts from nothing | middle: asks for some practice; is for those who know a little | expert: is for the experienced; is not for beginners
exam ? yes: ends with an exam; closes with a test | no: has no exam; ends without a test

museum piece, object | it | TITLE
kind = mask, vase, sword, statue, coin, map, carpet, crown, clock, necklace | is {a}; is an old {v} | as {a}
made of = MATERIAL | is made of {v}; was carved from {v}; consists of {v} | made of {v}; of {v}
from = PLACE | comes from {v}; was made in {v} | from {v}; made in {v}
age = COUNT | is {v} years old; has lasted {v} years | {v} years old; after {v} years
found by = PERSON | was found by {v}; was dug up by {v} | found by {v}; dug up by {v}
shown in = PLACE, CODE | is shown in {v}; can be seen in {v}; stands in {v} | on show in {v}; in {v}
gift of = PERSON, TITLE | was a gift of {v}; was given by {v} | given by {v}; thanks to {v}
real ? yes: is the real thing; is beyond doubt | no: is only a copy; is not the real one | unclear: may or may not be real; divides the experts
touch ? allowed: may be touched; can be picked up | forbidden: must not be touched; stays behind glass
worth ? little: is worth next to nothing; would fetch little | much: is worth a great deal; would fetch a fortune

club, team | it | TITLE
sport = rowing, chess, football, archery, cycling, skating, fencing, sailing, running | plays {v}; is devoted to {v}; lives for {v} | for lovers of {v}; all about {v}
city = PLACE | is based in {v}; comes from {v}; plays at home in {v} | from {v}; based in {v}
coach = PERSON | is trained by {v}; is coached by {v} | coached by {v}; under {v}
colours = COLOUR | plays in {v}; wears {v} | dressed in {v}; in {v}
members = COUNT | has {v} members; counts {v} members | with {v} members; {v} members strong
founded = YEAR | was founded in {v}; started in {v} | founded in {v}; since {v}
rival = TITLE | sees {v} as its rival; has an old quarrel with {v} | always at odds with {v}
last match ? won: won the last match; comes from a victory | lost: lost the last match; comes from a defeat | drawn: drew the last match; shared the points last time
new members ? yes: takes new members; is glad of new faces | no: is full; takes nobody new

plant, flower | it | NAME
family = NAME | belongs to the {v} family; is one of the {v} kind | of the {v} family
height = METRES | grows to {v}; reaches {v} | up to {v}; at {v}
blossom = COLOUR | has {v} blossom; blooms {v} | with {v} blossom; blooming in {v}
blooms = MONTH | blooms in {v}; opens its buds in {v} | in {v}; blooming in {v}
grows in = PLACE | grows in {v}; is at home in {v}; comes from {v} | from the hills of {v}; native to {v}
named after = PERSON | was named after {v}; owes its name to {v} | named after {v}; in memory of {v}
soil = sand, clay, chalk, peat, gravel, loam | prefers {v}; grows best in {v} | in {v}; rooted in {v}
light ? sun: needs full sun; wants to stand in the sun | shade: grows in the shade; avoids the sun | half shade: likes a little sun; is happy in half shade
water ? little: needs little water; puts up with drought | much: must be watered every day; is always thirsty
poisonous ? yes: is poisonous; must never be eaten | no: is harmless; does nobody any harm

job, post | it | TITLE
role = clerk, driver, welder, librarian, translator, guard, cook, carpenter, nurse, editor | is a job as {a}; is open to {a}; calls for {a} | for {a}; as {a}
firm = TITLE, NAME | is offered by {v}; is with {v} | at {v}; with {v}
city = PLACE | is in {v}; brings you to {v} | in {v}; over in {v}
pay = MONEY | pays {v} a week; brings in {v} | for {v} a week; at {v}
hours = COUNT | asks for {v} hours; takes {v} hours a week | for {v} hours a week
start = MONTH | starts in {v}; begins in {v} | from {v}; starting in {v}
boss = PERSON | reports to {v}; answers to {v} | under {v}; with {v} as head
remote ? yes: can be done from home; needs no office | no: must be done on site; cannot be done from home | partly: can be done from home now and then; is half at home, half on site
experience ? none: needs no experience; is fit for starters | some: asks for some experience; is for those who have done it before | much: asks for many years of practice; is for old hands

bridge, structure | it | PLACE
crosses = NAME | crosses the {v}; spans the {v} | over the {v}; across the {v}
length = METRES | is {v} long; measures {v} | {v} long; over {v}
opened = YEAR | opened in {v}; has been in use since {v} | opened in {v}; since {v}
designer = PERSON | was designed by {v}; was drawn by {v} | designed by {v}; by {v}
material = MATERIAL | is made of {v}; was built from {v} | of {v}; built from {v}
links = PLACE | leads to {v}; links the bank with {v} | on the way to {v}; leading to {v}
arches = SMALL | has {v} arches; rests on {v} arches | on {v} arches; with {v} arches
traffic ? cars: carries cars; is made for cars | trains: carries trains; is for the railway | walkers: is for people on foot; carries no cars
toll ? yes: asks for a toll; is not free to cross | no: can be crossed for free; asks for no toll
lit ? yes: is lit at night; shines after dark | no: is dark at night; has no lamps

phone, device | it | TITLE
brand = NAME, TITLE | is made by {v}; carries the name {v} | by {v}; from {v}
screen = SMALL | has {a} inch screen; shows a screen of {v} inches | with {a} inch screen
colour = COLOUR | comes in {v}; has {a} back | in {v}; with {a} back
memory = COUNT | has {v} gigabytes; stores {v} gigabytes | with {v} gigabytes
battery = HOURS | runs for {v}; lasts {v} | for {v}; with {v} of power
launched = YEAR | came out in {v}; was launched in {v} | launched in {v}; out since {v}
cost = MONEY | costs {v}; sells for {v} | for {v}; at {v}
waterproof ? yes: survives a fall into water; can get wet | no: must be kept dry; does not like rain
camera ? none: takes no pictures; has no camera | basic: takes plain pictures; has a simple camera | good: takes fine pictures; has a camera to be proud of
"""


@dataclass(frozen=True)
class Attribute:
    """A fact's key, its values, and how each may be said. `said` is empty for values that are copied."""

    key: str
    values: tuple[str, ...]
    predicates: tuple[str, ...] = ()
    modifiers: tuple[str, ...] = ()
    said: dict[str, tuple[str, ...]] | None = None

    def draw(self, rng: Random) -> str:
        value = rng.choice(self.values)
        return VALUES[value](rng) if value in VALUES else value


@dataclass(frozen=True)
class Domain:
    nouns: tuple[str, ...]
    pronoun: str
    name_kind: str
    attributes: tuple[Attribute, ...]

    def draw_name(self, rng: Random) -> str:
        return VALUES[self.name_kind](rng)


def _split(text: str, separator: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(separator) if part.strip())


def _parse_attribute(line: str) -> Attribute:
    if " ? " in line:
        key, rest = line.split(" ? ", 1)
        said = {value.strip(): _split(ways, ";") for value, ways in (part.split(":", 1) for part in rest.split("|"))}
        return Attribute(key.strip(), tuple(said), said=said)
    key, rest = line.split(" = ", 1)
    values, predicates, modifiers = rest.split("|")
    return Attribute(key.strip(), _split(values, ","), _split(predicates, ";"), _split(modifiers, ";"))


def _parse(table: str) -> list[Domain]:
    domains = []
    for block in table.strip().split("\n\n"):
        head, *lines = block.splitlines()
        nouns, pronoun, name_kind = (part.strip() for part in head.split("|"))
        domains.append(Domain(_split(nouns, ","), pronoun, name_kind, tuple(map(_parse_attribute, lines))))
    return domains


DOMAINS = _parse(TABLE)
