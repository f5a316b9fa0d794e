"""Batches: conversations as token rows, with the places marked where the model is to be right."""

import random
from dataclasses import dataclass

import torch
from conversations import Text, make_conversation
from tokenizers import Tokenizer
from torch import Tensor

IGNORED = -100
FACT_TOKENS = 13
TURN_TOKENS = 38


@dataclass(frozen=True)
class Batch:
    """Both [rows, tokens]; a target is the token that follows, where the model is to say it."""

    tokens: Tensor
    targets: Tensor

    def to(self, device: str) -> "Batch":
        return Batch(self.tokens.to(device), self.targets.to(device))


def encode(tokenizer: Tokenizer, text: Text) -> tuple[list[int], list[bool]]:
    """Token numbers, and for each whether the model is to say it."""
    ids: list[int] = []
    said: list[bool] = []
    for piece, is_answer in text.pieces:
        new = tokenizer.encode(piece, add_special_tokens=False).ids
        ids += new
        said += [is_answer] * len(new)
    return ids, said


def make_batch(rng: random.Random, tokenizer: Tokenizer, rows: int, tokens: int) -> Batch:
    inputs = torch.zeros(rows, tokens, dtype=torch.long)
    targets = torch.full((rows, tokens), IGNORED)
    for row in range(rows):
        turns = max(2, int(tokens * rng.uniform(0.3, 0.7) / TURN_TOKENS))
        facts = max(2, int((tokens - turns * TURN_TOKENS) / FACT_TOKENS * rng.uniform(0.6, 1.0)))
        ids, said = encode(tokenizer, make_conversation(rng, facts, turns))
        ids, said = ids[: tokens + 1], said[: tokens + 1]
        inputs[row, : len(ids) - 1] = torch.tensor(ids[:-1])
        wanted = [token if mine else IGNORED for token, mine in zip(ids[1:], said[1:], strict=True)]
        targets[row, : len(wanted)] = torch.tensor(wanted)
    return Batch(inputs, targets)
