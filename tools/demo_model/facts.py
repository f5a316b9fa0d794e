"""Facts: a key, a value, and how document, question and answer say it.

Every question holds the key as the document has it (of a fact with a verb, its subject), and every
answer repeats it before the value, so that answering is looking up a run of words.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

import words

NOT_FOUND = "not in the document"


@dataclass(frozen=True)
class Key:
    """What a fact is about, in the forms that text about it needs."""

    lead: str
    """The sentence up to the value: "The weight of the red pump is"."""
    label: str | None
    """For rows of a table: "weight of the red pump"; None where only a sentence says it."""
    questions: tuple[str, ...]
    missing: str
    """What stands in the value's place when the document does not say it."""


@dataclass(frozen=True)
class Fact:
    """A key and its value."""

    key: Key
    value: str

    @property
    def sentence(self) -> str:
        return f"{self.key.lead} {self.value}."


def answer(key: Key, value: str | None) -> str:
    """The right answer; `value` is None when the document does not give it."""
    return f"{key.lead} {key.missing if value is None else value}."


def attribute_key(attribute: str, thing: str) -> Key:
    of = f"{attribute} of the {thing}"
    return Key(
        lead=f"The {of} is",
        label=of,
        questions=(
            f"What is the {of}?",
            f"What is the {of}?",
            f"What is the {of}?",
            f"What's the {of}?",
            f"what is the {of}",
            f"And the {of}?",
            f"Tell me the {of}.",
            f"Please give me the {of}.",
            f"I need the {of}.",
            f"Do you know the {of}?",
            f"Can you find the {of}?",
        ),
        missing=NOT_FOUND,
    )


@dataclass(frozen=True)
class Verb:
    """One kind of sentence without an attribute: "The baker Anna Tarnok lives in Brel."."""

    phrase: str
    """Between the subject and the value."""
    question: str
    """With {} for the subject."""
    missing: str
    value: Callable[[random.Random], str]


def _money(rng: random.Random) -> str:
    return f"{words.digits(rng, rng.randrange(1, 5))} {rng.choice(('euros', 'dollars', 'pounds'))}"


def _time(rng: random.Random) -> str:
    return f"{rng.randrange(24)}:{rng.choice(('00', '15', '30', '45'))}"


def _trouble(rng: random.Random) -> str:
    return f"{rng.choice(words.ADJECTIVES)} {rng.choice(words.NOUNS)} {rng.choice(words.TROUBLES)}"


def _year(rng: random.Random) -> str:
    return str(rng.randrange(1700, 2030))


_PLACE = f"a place that is {NOT_FOUND}"
_AMOUNT = f"an amount that is {NOT_FOUND}"
_AT = f"a time that is {NOT_FOUND}"
_YEAR = f"a year that is {NOT_FOUND}"
_SOMETHING = f"something that is {NOT_FOUND}"
PERSON_VERBS = (
    Verb("lives in", "Where does the {} live?", _PLACE, words.made_up_name),
    Verb("comes from", "Where does the {} come from?", _PLACE, words.made_up_name),
    Verb("earns", "How much does the {} earn?", _AMOUNT, _money),
    Verb("was born in", "When was the {} born?", _YEAR, _year),
    Verb("starts at", "When does the {} start?", _AT, _time),
)
THING_VERBS = (
    Verb("costs", "How much does the {} cost?", _AMOUNT, _money),
    Verb("stands in", "Where does the {} stand?", _PLACE, words.made_up_name),
    Verb("opens at", "When does the {} open?", _AT, _time),
    Verb("closes at", "When does the {} close?", _AT, _time),
    Verb("was built in", "When was the {} built?", _YEAR, _year),
)
CODE_VERB = Verb(
    "means",
    "What does the {} mean?",
    _SOMETHING,
    _trouble,
)


def verb_key(verb: Verb, subject: str) -> Key:
    return Key(
        lead=f"The {subject} {verb.phrase}",
        label=None,
        questions=(verb.question.format(subject),),
        missing=verb.missing,
    )


def random_value(rng: random.Random) -> str:
    """A number, with or without a unit, a name, a word, a code, a time or a date."""
    match rng.randrange(10):
        case 0 | 1:
            return words.digits(rng, rng.randrange(1, 6))
        case 2 | 3:
            return f"{words.digits(rng, rng.randrange(1, 5))} {rng.choice(words.UNITS)}"
        case 4:
            return f"{rng.randrange(100)}.{rng.randrange(1, 100)} {rng.choice(words.UNITS)}"
        case 5:
            return rng.choice(words.COLOURS + words.MATERIALS + words.WEEKDAYS)
        case 6:
            return words.made_up_name(rng)
        case 7:
            return f"{rng.choice(words.FIRST_NAMES)} {words.made_up_name(rng)}"
        case 8:
            return words.made_up_code(rng)
        case _:
            return rng.choice((_time(rng), f"{rng.randrange(1, 29)} {rng.choice(words.MONTHS)}"))
