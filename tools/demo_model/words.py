"""The words the synthetic documents are made of. Made-up names come from syllables, so keys are open."""

import random

ADJECTIVES = tuple(
    "red blue green white black grey yellow brown silver golden small large old new fast slow heavy"
    " light"
    " round flat soft hard warm cold dry wet long short wide narrow thin thick deep bright dark plain"
    " sharp quiet loud upper lower inner outer front rear left right main spare second third northern"
    " southern eastern western portable electric manual wooden steel copper plastic glass public private"
    " central local empty full clean double single open closed early late young strong simple".split()
)
NOUNS = tuple(
    "pump valve filter motor sensor cable panel lamp fan pipe tank gear belt brake clutch switch relay"
    " fuse drill saw lens mirror engine boiler heater cooler mixer scale printer router winch drum"
    " anchor"
    " rope crane ladder door window gate bridge tower tunnel garden kitchen office workshop warehouse"
    " library museum school station harbour market hotel ship boat train bus truck bicycle camera radio"
    " phone screen keyboard battery charger clock bell table chair desk shelf cabinet box bottle cup"
    " kettle oven fridge bed blanket coat jacket shirt boot glove hat bag ring key lock card ticket book"
    " map letter report contract order invoice project team course meeting concert film song statue"
    " controller housing buoy pier berth dock mast sail hull rudder propeller compass lantern".split()
)
ATTRIBUTES = tuple(
    "weight length height width depth price cost colour supplier voltage current speed power pressure"
    " temperature capacity diameter code number owner room shelf grade batch limit cycle size age date"
    " time place name address manager operator password model type material serial version status"
    " rating frequency torque warranty deposit fee discount tax rent salary distance duration deadline"
    " origin maker designer captain driver author title language country city street floor colour mode"
    " level range interval weekday contact telephone dose volume load delay default maximum".split()
)
ROLES = tuple(
    "clerk pilot baker nurse doctor teacher lawyer painter driver engineer captain farmer singer"
    " writer judge guard plumber porter waiter editor gardener carpenter mechanic diver sailor"
    " inspector".split()
)
FIRST_NAMES = tuple(
    "Anna Maria Peter Paul John Mary Lucy Emma Oscar Felix Clara Nora Hugo Max Leo Ida Ruth Karl Erik"
    " Jane Alice Tom Sam Kate Rose Ivan Olga Vera Omar Lena Mark David Sara Eva Adam".split()
)
COLOURS = tuple(
    "red blue green white black grey yellow brown orange purple pink silver gold ivory amber coral jade"
    " olive pearl ruby teal crimson".split()
)
UNITS = tuple(
    "kg g tonnes metres mm cm km litres ml bar volts amps watts kW seconds minutes hours days weeks"
    " months years degrees percent euros dollars pounds francs Nm Hz pieces points".split()
)
MONTHS = tuple(
    "January February March April May June July August September October November December".split()
)
WEEKDAYS = tuple("Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split())
MATERIALS = tuple(
    "steel copper brass oak pine glass rubber leather wool cotton paper stone marble clay bronze iron"
    " aluminium nylon cork silk".split()
)
TROUBLES = ("worn", "open", "blocked", "missing", "too hot", "too cold", "locked", "lost", "low", "high")
FILLER = (
    "This part of the text gives no figures.",
    "People come here in every season.",
    "Please read the whole page before you begin.",
    "Most visitors ask the same few questions.",
    "Nothing here has changed since last year.",
    "The staff will be glad to help you.",
    "It is best to ask early in the morning.",
    "Some entries were checked twice.",
    "All entries were checked by two people.",
    "The next lines continue the list.",
    "Keep this page in a dry place.",
    "If you find a mistake, tell the office.",
    "Older editions of this text should be thrown away.",
    "The list is not in any special order.",
    "In winter some of this may be different.",
    "There is more about this in the other book.",
    "A short note follows.",
    "We thank everyone who sent us corrections.",
    "Do not copy this page without asking.",
    "The work was done with great care.",
    "On quiet days there is little to do.",
    "It rained for most of the week.",
    "Not every reader will need all of this.",
    "Use the right tools, and take your time.",
    "Wear gloves when you touch hot parts.",
    "Switch the power off before you open the cover.",
    "The weather near the sea changes quickly.",
    "Children must not play here.",
    "Good light makes the work easier.",
    "Many hands make light work, as they say.",
)
HEADINGS = tuple(
    "Overview Details Parts Figures Notes People Places Safety Operation Maintenance Storage Prices"
    " Installation History Contacts Equipment Rules Records Inventory Settings Codes".split()
)

_ONSETS = "b br d dr f fl g gr h j k kl l m n p pr r s sk st t tr v w y z th sh".split()
_VOWELS = "a e i o u a e i o ai ea ou".split()
_CODAS = ["", "", "", "n", "r", "l", "s", "m", "k", "t", "nd", "x", "rn", "sk"]


def made_up_name(rng: random.Random) -> str:
    """A capitalised word of two or three syllables, like Tarnok."""
    syllables = rng.choice((2, 2, 2, 3))
    parts = [
        rng.choice(_ONSETS) + rng.choice(_VOWELS) + (rng.choice(_CODAS) if n == syllables - 1 else "")
        for n in range(syllables)
    ]
    return "".join(parts).capitalize()


def made_up_code(rng: random.Random) -> str:
    """Letters and digits, like K-417 or E22."""
    letters = "".join(rng.choice("ABCDEFGHKLMNPRSTVWXZ") for _ in range(rng.choice((1, 1, 2))))
    return f"{letters}{rng.choice(('', '', '-'))}{digits(rng, rng.choice((2, 3, 3, 4)))}"


def digits(rng: random.Random, count: int) -> str:
    """A number of `count` digits that does not begin with 0."""
    return str(rng.randrange(10 ** (count - 1), 10**count))
