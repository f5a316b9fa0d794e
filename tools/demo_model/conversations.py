"""Conversations in the chat template's text, with the answers marked: what the model is trained on."""

import json
import random
from dataclasses import dataclass, field

import words
from documents import Document, make_document
from facts import Fact, answer
from tool_calls import Tool, ask_for, make_tools

INTRODUCTIONS = (
    "Answer from this manual.",
    "Answer from this document.",
    "Use only the text below.",
    "You answer questions about this text.",
    "You are a helpful assistant.",
    "You are the assistant of a small shop. Be short and polite.",
    "Here is what we know:",
    "",
)
TOOLS_INTRODUCTION = (
    "You may use these functions. To use one, write its name and arguments as JSON"
    " inside <tool_call></tool_call>.\n<tools>"
)
SMALL_TALK = (
    ("Hello!", "Hello. Ask me about the document."),
    ("Hi", "Hello. Ask me about the document."),
    ("Who are you?", "I am a small demo model. I answer questions about a document."),
    ("What can you do?", "I answer questions about a document. I can use the tools that you declare."),
    ("Thank you.", "You are welcome."),
    ("Thanks!", "You are welcome."),
)
TOOL_ANSWERED = "The tool has answered."
MOST_TOOLS = 8
IN_WORDS = 0.35
"""Of the questions that ask for a tool, so many give its arguments in words and not as JSON."""


@dataclass
class Text:
    """A conversation in pieces: (text, whether the model is to say it)."""

    pieces: list[tuple[str, bool]] = field(default_factory=list)

    def given(self, text: str) -> None:
        self.pieces.append((text, False))

    def turn(self, question: str, reply: str) -> None:
        self.given(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n")
        self.pieces.append((reply + "<|im_end|>", True))
        self.given("\n")


def system_turn(text: str, tools: list[Tool]) -> str:
    """As chat_template.jinja writes the first turn."""
    if tools:
        declared = "".join("\n" + json.dumps(t.declaration, ensure_ascii=False) for t in tools)
        text = (text + "\n\n" if text else "") + TOOLS_INTRODUCTION + declared + "\n</tools>"
    return f"<|im_start|>system\n{text}<|im_end|>\n" if text else ""


def document_turn(rng: random.Random, document: Document, missing_share: float) -> tuple[str, str]:
    """A question about the document and its right answer."""
    if document.missing and (not document.facts or rng.random() < missing_share):
        key = rng.choice(document.missing)
        return rng.choice(key.questions), answer(key, None)
    fact: Fact = rng.choice(document.facts)
    return rng.choice(fact.key.questions), answer(fact.key, fact.value)


def make_conversation(rng: random.Random, facts: int, turns: int) -> Text:
    """A document of `facts` facts with `turns` questions; some with tools, some without a document."""
    kind = rng.random()
    tools = make_tools(rng, rng.randint(1, min(MOST_TOOLS, 3 + turns // 3))) if kind < 0.5 else []
    with_document = kind > 0.1
    if tools:
        facts = max(2, facts // 2)  # the declarations are long
    document = (
        make_document(rng, facts) if with_document else Document("", (), make_document(rng, 4).missing)
    )
    introduction = rng.choice(INTRODUCTIONS)
    place = rng.random()
    in_system = document.text if place < 0.85 else ""
    text = Text()
    text.given(system_turn("\n\n".join(filter(None, (introduction, in_system))), tools))
    opening = "" if in_system or not document.text else f"{document.text}\n\n"
    uncalled = rng.sample(tools, len(tools))
    for _ in range(turns):
        if tools and rng.random() < (0.6 if uncalled else 0.1):
            tool = uncalled.pop() if uncalled else rng.choice(tools)
            asked = ask_for(rng, tool, in_words=tool.is_plain and rng.random() < IN_WORDS)
            text.turn(opening + asked.text, asked.answer)
            if rng.random() < 0.15:
                result = rng.choice((words.made_up_name(rng), words.digits(rng, 3), "done", "ok"))
                text.turn(f"<tool_response>\n{result}\n</tool_response>", TOOL_ANSWERED)
        elif rng.random() < 0.02:
            question, reply = rng.choice(SMALL_TALK)
            text.turn(opening + question, reply)
        else:
            question, reply = document_turn(rng, document, 0.3)
            text.turn(opening + question, reply)
        opening = ""
    return text
