"""Plain English words by kind, and phrases drawn from them.

Knows nothing of facts, styles or documents. Every list was typed for this project. `phrase` makes small arbitrary
phrases ("with a quiet lantern by the gate"): they stand for what a house style may say for a value, so the model has
to read the mapping from its context instead of knowing it.
"""

from __future__ import annotations

from random import Random

ADJECTIVES = """amber ancient awkward bare bent bitter blank blue bold brave bright brisk broad broken brown busy calm
careful cheerful clean clear clever cloudy clumsy cold common cool crisp crooked curious curved damp dark deep dense
dim distant double dry dusty eager early easy empty even faint fair famous fancy fast fine firm flat fresh friendly
frozen full gentle giant glad golden grand gray great green grey handy happy hard harsh heavy hidden high hollow honest
huge humble icy idle important ivory jolly keen kind large late lazy light little lively lonely long loose loud low
loyal lucky mellow merry mild misty modern modest muddy narrow neat new noble noisy odd old open orange ordinary pale
patient plain pleasant polite poor pretty proud pure purple quick quiet rapid rare raw ready red remote rich rough
round royal rusty sad safe scarlet secret serious shallow sharp shiny short shy silent silver simple slow small smart
smooth soft solid spare special steady steep stiff still stormy straight strange strong sturdy sudden sunny sweet swift
tall tame thick thin tidy tiny tired tough unusual useful vast violet warm weary wet white wide wild windy wise wooden
yellow young""".split()

NOUNS = """acorn anchor apple arch arrow ash attic badge bag ball banner barn barrel basket bay beach beacon bean bear
bee bell bench berry bird blanket boat bolt book boot bottle boulder bowl box branch brick bridge broom brush bucket
bush button cabin cable candle canvas carpet cart castle cave cedar cellar chain chair chalk chest chimney circle
clay cliff clock cloud coat coin copper cord corner cottage crane creek crow crown cup curtain desk dome door dove dream
drum dune dust eagle echo edge egg elm engine fan feather fence fern ferry field fire fish flag flame flint flower
flute fog forest fork fountain fox frame frog frost garden gate gift glass glove goat goose grain grove guest gull
hall hammer harbour hare hat hawk hazel heart hedge heron hill hook horn horse house ice island ivy jacket jar jewel
journey juniper kettle key kite knife knot ladder lake lamp lane lantern leaf ledge lemon letter library lily line lion
lock log loom map maple market mast meadow melody mill mirror mist moon moss moth mountain mouse nail needle nest
net nettle night north oak oar oat ocean olive orchard otter owl page paint palm paper parrot path peak pear pearl
pebble pen pencil pepper piano picture pier pillow pine pipe plum pocket poem pond pony poppy port post pot prism pump
quarry quill rabbit raft rain raven reed ribbon ridge ring river road robin rock roof room root rope rose saddle sail
salt sand scarf school sea seal seed shadow shed sheep shelf shell ship shoe shore sign silk sky sled smoke snow song
south spade spark sparrow spoon spring spruce square stable stage stair star station stone storm stove stream street
summer sun swan table tail tent thistle thorn thread thunder tide tower town trail train tree trout trumpet tunnel
valley vase velvet village vine violin wagon wall walnut watch water wave well west whale wheat wheel whistle willow
wind window wing winter wolf wood wool wren yard""".split()

# Base form and third person singular, so that both "to carry" and "it carries" come out right.
VERBS = [
    tuple(pair.split("/"))
    for pair in """answer/answers arrive/arrives ask/asks begin/begins belong/belongs bend/bends bring/brings
build/builds burn/burns call/calls care/cares carry/carries catch/catches change/changes choose/chooses climb/climbs
close/closes come/comes count/counts cover/covers cross/crosses dance/dances dig/digs draw/draws dream/dreams
drift/drifts drop/drops face/faces fall/falls fill/fills find/finds fix/fixes float/floats fly/flies fold/folds
follow/follows gather/gathers give/gives glow/glows go/goes grow/grows guard/guards guide/guides hang/hangs
hear/hears help/helps hide/hides hold/holds hum/hums hurry/hurries join/joins jump/jumps keep/keeps knock/knocks
know/knows laugh/laughs lead/leads lean/leans learn/learns leave/leaves lift/lifts linger/lingers listen/listens
live/lives look/looks march/marches measure/measures meet/meets melt/melts mend/mends move/moves need/needs
notice/notices offer/offers open/opens paint/paints pass/passes pause/pauses play/plays point/points pull/pulls
push/pushes reach/reaches remember/remembers rest/rests return/returns ring/rings rise/rises roll/rolls rub/rubs
run/runs rush/rushes sail/sails save/saves search/searches see/sees send/sends shake/shakes share/shares shine/shines
sing/sings sit/sits sleep/sleeps slide/slides smile/smiles speak/speaks spin/spins stand/stands start/starts stay/stays
step/steps stop/stops sweep/sweeps swim/swims swing/swings talk/talks teach/teaches tell/tells think/thinks throw/throws
tie/ties touch/touches travel/travels trust/trusts try/tries turn/turns visit/visits wait/waits wake/wakes walk/walks
wander/wanders want/wants warm/warms wash/washes watch/watches wave/waves wear/wears welcome/welcomes whisper/whispers
win/wins wonder/wonders work/works write/writes""".split()
]

ADVERBS = """again almost alone already always away badly barely boldly briefly brightly calmly carefully clearly
closely daily deeply early easily eagerly evenly finally firmly freely gently gladly happily hardly kindly late lightly
loudly mostly neatly nearly never nicely often once openly patiently plainly politely proudly quickly quietly rarely
sadly safely seldom sharply silently simply slowly smoothly softly sometimes soon steadily still suddenly sweetly
swiftly tightly together twice usually warmly well widely wisely""".split()

PREPOSITIONS = """above across after against along among around at before behind below beneath beside between beyond by
down for from in inside into like near off on onto outside over past through to toward under until up upon with
within without""".split()

COLOURS = "red blue green black white grey yellow orange purple brown silver golden crimson turquoise ivory".split()
MATERIALS = "oak pine steel iron brass copper glass clay marble granite bamboo leather cotton wool silk canvas".split()
MONTHS = "January February March April May June July August September October November December".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
WEATHER = "sunny cloudy windy rainy foggy snowy stormy frosty misty mild".split()
NUMBER_WORDS = "one two three four five six seven eight nine ten eleven twelve".split()


def article(phrase: str) -> str:
    """The phrase with "a" or "an" in front, by sound: an hour, a unit, an old mill."""
    word = phrase.lstrip("\"'").lower()
    vowel = word[:1] in "aeiou" and not word.startswith(("uni", "use", "usu", "eu", "one", "once"))
    vowel = vowel or word.startswith(("hour", "honest", "heir"))
    if word[:1].isdigit():
        vowel = word.startswith("8") or word in ("11", "18") or word.startswith(("11-", "18-", "11 ", "18 "))
    return f"{'an' if vowel else 'a'} {phrase}"


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def join_and(items: list[str], oxford: bool = False) -> str:
    """ "a", "a and b", "a, b and c"."""
    if len(items) < 2:
        return "".join(items)
    return ", ".join(items[:-1]) + ("," if oxford and len(items) > 2 else "") + " and " + items[-1]


def noun_phrase(rng: Random) -> str:
    noun = rng.choice(NOUNS)
    described = f"{rng.choice(ADJECTIVES)} {noun}" if rng.random() < 0.5 else noun
    return rng.choice([f"the {described}", article(described), f"every {described}", f"the {described}"])


def quality(rng: Random) -> str:
    """An arbitrary phrase that can follow "is": "as quick as a wren", "behind the old mill"."""
    noun, adjective, preposition = rng.choice(NOUNS), rng.choice(ADJECTIVES), rng.choice(PREPOSITIONS)
    return rng.choice(
        [
            f"{preposition} {noun_phrase(rng)}",
            f"{adjective} and {rng.choice(ADJECTIVES)}",
            f"{adjective} {preposition} {noun_phrase(rng)}",
            f"{rng.choice(ADVERBS)} {adjective}",
            f"not {adjective} but {rng.choice(ADJECTIVES)}",
            f"{article(adjective + ' ' + noun)} {preposition} {noun_phrase(rng)}",
            f"ready to {rng.choice(VERBS)[0]} {rng.choice(ADVERBS)}",
            f"as {adjective} as {article(noun)}",
        ]
    )


def action(rng: Random) -> str:
    """An arbitrary predicate: "waits by the river", "sings softly"."""
    verb = rng.choice(VERBS)[1]
    return f"{verb} {rng.choice([rng.choice(ADVERBS), f'{rng.choice(PREPOSITIONS)} {noun_phrase(rng)}'])}"


def phrase(rng: Random) -> str:
    """A small arbitrary phrase of two to seven words; it need not mean much, only be worth copying."""
    shape = rng.random()
    if shape < 0.6:
        return quality(rng)
    if shape < 0.8:
        return action(rng)
    if shape < 0.9:
        return f"no {rng.choice(NOUNS)} and no {rng.choice(NOUNS)}"
    return f"{rng.choice(PREPOSITIONS)} {rng.choice(ADJECTIVES)} {rng.choice(NOUNS)}s"


def clause(rng: Random) -> str:
    """A small arbitrary main clause: "the old gate swings softly near a pond"."""
    verb = rng.choice(VERBS)
    tail = rng.choice([rng.choice(ADVERBS), f"{rng.choice(PREPOSITIONS)} {noun_phrase(rng)}", ""])
    return rng.choice(
        [
            f"{noun_phrase(rng)} {verb[1]} {tail}",
            f"you can {verb[0]} {tail}",
            f"nobody {verb[1]} {tail}",
            f"we {verb[0]} {tail}",
            f"everyone {verb[1]} {tail}",
            f"please {verb[0]} {tail}",
            f"do not {verb[0]} {tail}",
        ]
    ).strip()
