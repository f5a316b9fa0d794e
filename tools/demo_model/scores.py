"""How many answers of a training batch are right to the last token, by kind.

Each token is judged after the right ones before it. An answer that a row's end cuts off counts without
its rest.
"""

import torch
from batches import IGNORED, Batch
from tokenizers import Tokenizer
from torch import Tensor


def score(logits: Tensor, batch: Batch, tokenizer: Tokenizer) -> dict[str, list[int]]:
    """`logits` are those where `batch` has a target; each kind maps to [right, asked]."""
    said = batch.targets != IGNORED
    begins = said & ~torch.nn.functional.pad(said, (1, 0))[:, :-1]
    answer_of = begins.flatten().cumsum(0)[said.flatten()] - 1
    wrong = (logits.argmax(-1) != batch.targets[said]).long()
    answers = int(begins.sum())
    wrong_in = torch.zeros(answers, dtype=torch.long, device=wrong.device).index_add_(
        0, answer_of, wrong
    )
    has_not = (batch.targets[said] == tokenizer.token_to_id("Ġnot")).long()
    missing = torch.zeros_like(wrong_in).index_add_(0, answer_of, has_not) > 0
    call = batch.targets[begins] == tokenizer.token_to_id("<")
    kinds = {"found": ~missing & ~call, "missing": missing, "call": call}
    return {k: [int((wrong_in[w] == 0).sum()), int(w.sum())] for k, w in kinds.items()} | {
        "token": [int((wrong == 0).sum()), len(wrong)]
    }
