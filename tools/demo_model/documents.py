"""Documents: facts as sentences, lists, tables and paragraphs, and keys that are deliberately missing.

Things and attributes come from small pools, so that most facts share a part of their key with others,
and the missing keys are those that one would guess from the rest.
"""

import random
from dataclasses import dataclass

import words
from facts import (
    CODE_VERB,
    PERSON_VERBS,
    THING_VERBS,
    Fact,
    Key,
    attribute_key,
    random_value,
    verb_key,
)


@dataclass(frozen=True)
class Document:
    """A text, the facts that stand in it, and keys that it does not give."""

    text: str
    facts: tuple[Fact, ...]
    missing: tuple[Key, ...]


def _things(rng: random.Random, count: int) -> list[str]:
    """Names of things, most of them sharing a word with others."""
    adjectives = rng.sample(words.ADJECTIVES, min(len(words.ADJECTIVES), 2 + int(count**0.6)))
    nouns = rng.sample(words.NOUNS, min(len(words.NOUNS), 2 + int(count**0.6)))
    names = [words.made_up_name(rng) for _ in range(1 + count // 6)]
    things: dict[str, None] = {}
    while len(things) < count:
        noun = rng.choice(nouns)
        match rng.randrange(6):
            case 0 | 1 | 2:
                thing = f"{rng.choice(adjectives)} {noun}"
            case 3:
                thing = f"{rng.choice(names)} {noun}"
            case 4:
                thing = f"{noun} {words.made_up_code(rng)}"
            case _:
                thing = noun if rng.random() < 0.3 else f"{rng.choice(adjectives)} {noun}"
        things[thing] = None
    return list(things)


def _attribute_facts(rng: random.Random, count: int) -> tuple[list[Fact], list[Key]]:
    things = _things(rng, max(2, int(count**0.62)))
    attributes = rng.sample(sorted(set(words.ATTRIBUTES)), min(60, 2 + int(1.6 * count**0.45)))
    pairs = [(attribute, thing) for thing in things for attribute in attributes]
    rng.shuffle(pairs)
    keys = [attribute_key(*pair) for pair in pairs]
    present, absent = keys[:count], keys[count:]
    if len(absent) < 4:
        strangers = _things(rng, 4)
        absent += [attribute_key(rng.choice(attributes), s) for s in strangers if s not in things]
    return [Fact(key, random_value(rng)) for key in present], absent


def _verb_facts(rng: random.Random, count: int) -> tuple[list[Fact], list[Key]]:
    people = [
        f"{rng.choice(words.ROLES)} {rng.choice(words.FIRST_NAMES)}"
        + (f" {words.made_up_name(rng)}" if rng.random() < 0.5 else "")
        for _ in range(1 + count // 4)
    ]
    codes = [f"code {words.made_up_code(rng)}" for _ in range(1 + count // 3)]
    choices = [(verb, person) for person in people for verb in PERSON_VERBS]
    choices += [(verb, thing) for thing in _things(rng, 1 + count // 4) for verb in THING_VERBS]
    choices += [(CODE_VERB, code) for code in codes]
    choices = list({(verb.phrase, subject): (verb, subject) for verb, subject in choices}.values())
    rng.shuffle(choices)
    facts = [Fact(verb_key(verb, subject), verb.value(rng)) for verb, subject in choices[:count]]
    return facts, [verb_key(verb, subject) for verb, subject in choices[count:]]


def _block(rng: random.Random, facts: list[Fact]) -> str:
    """Some facts, said in one of the ways a document says them."""
    rows = [fact for fact in facts if fact.key.label is not None]
    style = rng.choice(("lines", "paragraph", "paragraph", "list", "table"))
    if style in ("list", "table") and len(rows) == len(facts):
        if style == "table":
            head = "| item | value |\n| --- | --- |\n"
            return head + "\n".join(f"| {fact.key.label} | {fact.value} |" for fact in rows)
        mark, colon = rng.choice(("-", "*")), rng.choice((":", ":", " ="))
        return "\n".join(f"{mark} {fact.key.label}{colon} {fact.value}" for fact in rows)
    sentences = [fact.sentence for fact in facts]
    if style == "paragraph":
        for place in range(len(sentences) - 1, 0, -1):
            if rng.random() < 0.25:
                first, second = sentences[place - 1][:-1], sentences.pop(place)
                sentences[place - 1] = f"{first}, and the{second[3:]}"
        for _ in range(rng.randrange(1 + len(sentences) // 2)):
            sentences.insert(rng.randrange(len(sentences) + 1), rng.choice(words.FILLER))
        return " ".join(sentences)
    return "\n".join(sentences)


def make_document(rng: random.Random, count: int) -> Document:
    """A document of `count` facts."""
    verbs = int(count * rng.choice((0, 0.2, 0.3)))
    facts, missing = _attribute_facts(rng, count - verbs)
    if verbs:
        more, absent = _verb_facts(rng, verbs)
        facts, missing = facts + more, missing + absent
    tabled = [fact for fact in facts if fact.key.label is not None]
    if rng.random() < 0.5:  # by thing, as a real text would be
        tabled.sort(key=lambda fact: fact.key.lead.split(" of the ")[-1])
    else:
        rng.shuffle(tabled)
    spoken = [fact for fact in facts if fact.key.label is None]
    blocks = []
    for pool in (tabled, spoken):
        while pool:
            size = rng.randrange(2, 9)
            blocks.append(_block(rng, pool[:size]))
            pool = pool[size:]
    if rng.random() < 0.5:
        rng.shuffle(blocks)
    parts = []
    for block in blocks:
        if rng.random() < 0.2:
            number = rng.choice(("", f"{rng.randrange(1, 20)}. "))
            parts.append(f"## {number}{rng.choice(words.HEADINGS)}")
        if rng.random() < 0.15:
            parts.append(" ".join(rng.sample(words.FILLER, rng.randrange(1, 3))))
        parts.append(block)
    rng.shuffle(missing)
    return Document("\n\n".join(parts), tuple(facts), tuple(missing))
