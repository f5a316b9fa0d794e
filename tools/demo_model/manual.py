"""Writes the manual of `mooring demo` and its ten questions: `python tools/demo_model/manual.py`.

It is a manual of a harbour's equipment in the controlled English that the demo model reads. Training
never draws it, though it draws from the same words.
"""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import words
from facts import CODE_VERB, NOT_FOUND, PERSON_VERBS, THING_VERBS, Fact, attribute_key, verb_key

ASSETS = Path(__file__).parents[2] / "src" / "mooring" / "assets"
SEED = 1924
THINGS = (
    "front winch", "rear winch", "main winch", "spare winch", "steel drum", "spare drum",
    "main motor", "front motor", "oil pump", "water pump", "wooden crane", "electric crane",
    "upper brake", "lower brake", "winch controller", "pier controller", "northern gate",
    "southern gate", "signal lamp", "pier lamp", "steel rope", "nylon rope", "red buoy",
    "green buoy", "pressure sensor", "wind sensor", "power cable", "spare battery", "diesel heater",
    "harbour radio",
)  # fmt: skip
PEOPLE = (
    "captain Anna Velder", "engineer Oscar Brandal", "mechanic Ida Sternow", "guard Felix Moreau",
    "diver Nora Quist", "clerk Hugo Tamsin", "sailor Ruth Ekvall", "inspector Karl Osier",
)  # fmt: skip
PLACES = ("harbour office", "workshop", "museum", "harbour kitchen", "library", "warehouse")


def _measured(low: int, high: int, unit: str) -> Callable[[random.Random], str]:
    return lambda rng: f"{rng.randrange(low, high)} {unit}"


ATTRIBUTES: dict[str, Callable[[random.Random], str]] = {
    "weight": _measured(2, 900, "kg"),
    "length": _measured(10, 400, "cm"),
    "price": _measured(15, 9000, "euros"),
    "supplier": words.made_up_name,
    "serial": words.made_up_code,
    "shelf": words.made_up_code,
    "material": lambda rng: rng.choice(("steel", "brass", "bronze", "oak", "iron", "nylon")),
    "colour": lambda rng: rng.choice(words.COLOURS),
    "voltage": _measured(12, 690, "volts"),
    "power": _measured(5, 5000, "watts"),
    "torque": _measured(10, 400, "Nm"),
    "pressure": _measured(1, 60, "bar"),
    "warranty": _measured(6, 60, "months"),
    "inspector": lambda rng: f"{rng.choice(words.FIRST_NAMES)} {words.made_up_name(rng)}",
}


@dataclass(frozen=True)
class Chapter:
    """A heading and what stands under it."""

    heading: str
    facts: tuple[Fact, ...]
    as_table: bool = False

    @property
    def text(self) -> str:
        if self.as_table:
            rows = "\n".join(f"| {fact.key.label} | {fact.value} |" for fact in self.facts)
            return f"## {self.heading}\n\n| item | value |\n| --- | --- |\n{rows}"
        return f"## {self.heading}\n\n" + " ".join(fact.sentence for fact in self.facts)


def make_chapters(rng: random.Random) -> list[Chapter]:
    chapters = []
    for number, thing in enumerate(THINGS):
        facts = []
        for attribute, value in rng.sample(list(ATTRIBUTES.items()), 12):
            facts.append(Fact(attribute_key(attribute, thing), value(rng)))
        chapters.append(Chapter(f"The {thing}", tuple(facts), as_table=number % 3 == 2))
    codes = list(dict.fromkeys(f"code E{rng.randrange(10, 99)}" for _ in range(30)))
    means = tuple(Fact(verb_key(CODE_VERB, code), CODE_VERB.value(rng)) for code in codes)
    chapters.insert(20, Chapter("Error codes", means))
    lives = tuple(
        Fact(verb_key(verb, person), verb.value(rng)) for person in PEOPLE for verb in PERSON_VERBS
    )
    chapters.insert(9, Chapter("People", lives))
    opens = tuple(
        Fact(verb_key(verb, place), verb.value(rng)) for place in PLACES for verb in THING_VERBS[2:]
    )
    chapters.insert(14, Chapter("Places", opens))
    return chapters


def write_manual() -> None:
    rng = random.Random(SEED)
    chapters = make_chapters(rng)
    parts = ["# Harbour equipment\n\nThis manual lists the things, people and places of the harbour."]
    for chapter in chapters:
        if rng.random() < 0.4:
            parts.append(rng.choice(words.FILLER))
        parts.append(chapter.text)
    (ASSETS / "manual.md").write_text("\n\n".join(parts) + "\n", "utf-8")
    asked = [_entry(rng, rng.choice(chapter.facts)) for chapter in chapters[1::4]][:8]
    given = {fact.key.lead for chapter in chapters for fact in chapter.facts}
    absent = [attribute_key(a, t) for a in ATTRIBUTES for t in THINGS]
    absent = [key for key in absent if key.lead not in given]
    asked += [_line(key.questions[0], NOT_FOUND) for key in rng.sample(absent, 2)]
    rows = ",\n".join(f"  {json.dumps(entry)}" for entry in asked)
    (ASSETS / "questions.json").write_text(f"[\n{rows}\n]\n", "utf-8")


def _entry(rng: random.Random, fact: Fact) -> dict[str, str]:
    return _line(rng.choice(fact.key.questions), fact.value)


def _line(question: str, right: str) -> dict[str, str]:
    return {"question": question, "answer": right}


if __name__ == "__main__":
    write_manual()
