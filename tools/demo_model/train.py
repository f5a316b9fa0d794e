"""Trains the demo model: `python tools/demo_model/train.py --out build/run --cpu-hours 2.5`.

Time is counted in CPU seconds of this process, so that it can be paused; run it again with the same
`--out` and it goes on from the last checkpoint. Needs `pip install -e '.[train]'`.
"""

import argparse
import json
import math
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from batches import IGNORED, Batch, make_batch
from circuits import initialise
from model import HEAD, make_model
from scores import score
from tokenizer import train_tokenizer
from tokenizers import Tokenizer
from torch import Tensor
from transformers import Qwen2ForCausalLM

SEED = 20_240_701
PEAK_RATE = 8e-4
SHARES = (
    ("embed_tokens", 0.0),
    ("lm_head", 0.25),
    (".layers.1.mlp", 0.1),
    (".layers.0.", 0.0),
    (".layers.1.", 0.0),
    (".layers.2.self_attn", 0.5),
    (".layers.2.input_layernorm", 0.02),
    ("", 1.0),
)
"""By a part of their names, at which share of the rate weights learn: `circuits.py` has set many up."""
WARM_UP_STEPS = 60
SAVE_EVERY_S = 150
STEP_TOKENS = ((0.3, 2048), (1.1, 4096))
LENGTHS = (
    (0.2, (512,)),
    (0.4, (512, 1024)),
    (0.65, (512, 1024, 2048)),
    (1.1, (1024, 2048, 2048, 4096, 8192)),
)
"""Up to which share of the budget, rows of which lengths."""
COMPARING, CALM = slice(0, 2 * HEAD), 0.04
"""The heads of layer 2 that compare runs of tokens learn at this share of what the third one does."""

T = TypeVar("T")


@dataclass
class Progress:
    """What a checkpoint says besides weights."""

    step: int = 0
    tokens: int = 0
    cpu_s: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, help="checkpoints, the tokenizer and log.jsonl"
    )
    parser.add_argument("--cpu-hours", type=float, default=2.5, help="of this process, over its threads")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(SEED)
    options.out.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(options.out / "tokenizer.json")
    model = make_model(tokenizer.get_vocab_size())
    initialise(model, tokenizer, _token_counts(tokenizer), SEED)
    model.to(options.device)
    optimizer = torch.optim.AdamW(_groups(model), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.0)
    progress = _resume(options.out, model, optimizer)
    _train(model, optimizer, tokenizer, progress, options.out, options.cpu_hours * 3600, options.device)


def _tokenizer(path: Path) -> Tokenizer:
    if not path.exists():
        train_tokenizer().save(str(path))
    return Tokenizer.from_file(str(path))


def _token_counts(tokenizer: Tokenizer) -> Tensor:
    rng = random.Random(SEED)
    tokens = torch.cat([make_batch(rng, tokenizer, 1, 1024).tokens.flatten() for _ in range(100)])
    return torch.bincount(tokens, minlength=tokenizer.get_vocab_size()).float()


def _groups(model: Qwen2ForCausalLM) -> list[dict[str, Any]]:
    """What was set up does not learn, or carefully; what starts empty learns fast."""
    shares: dict[float, list[torch.nn.Parameter]] = {}
    for name, weights in model.named_parameters():
        share = next(share for part, share in SHARES if part in name)
        if share:
            shares.setdefault(share, []).append(weights)
        else:
            weights.requires_grad_(False)
    return [{"params": params, "share": share} for share, params in shares.items()]


@contextmanager
def _calm(model: Qwen2ForCausalLM) -> Iterator[None]:
    """Of a step, the comparing heads take a small part."""
    attention = model.model.layers[2].self_attn
    inward = (attention.q_proj, attention.k_proj, attention.v_proj)
    parts = [part[COMPARING] for matrix in inward for part in (matrix.weight, matrix.bias)]
    parts.append(attention.o_proj.weight[:, COMPARING])
    before = [part.detach().clone() for part in parts]
    yield
    with torch.no_grad():
        for part, old in zip(parts, before, strict=True):
            part.copy_(torch.lerp(old, part, CALM))


def _resume(out: Path, model: Qwen2ForCausalLM, optimizer: torch.optim.Optimizer) -> Progress:
    if not (out / "checkpoint.pt").exists():
        return Progress()
    saved = torch.load(out / "checkpoint.pt", weights_only=True)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    return Progress(**saved["progress"])


def _save(
    out: Path, model: Qwen2ForCausalLM, optimizer: torch.optim.Optimizer, progress: Progress
) -> None:
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "progress": vars(progress),
    }
    torch.save(state, out / "checkpoint.tmp")
    (out / "checkpoint.tmp").replace(out / "checkpoint.pt")


def _train(
    model: Qwen2ForCausalLM,
    optimizer: torch.optim.Optimizer,
    tokenizer: Tokenizer,
    progress: Progress,
    out: Path,
    budget_s: float,
    device: str,
) -> None:
    before_s, saved_s = progress.cpu_s, progress.cpu_s
    started_s = time.process_time()
    while progress.cpu_s < budget_s:
        share = progress.cpu_s / budget_s
        for group in optimizer.param_groups:
            group["lr"] = _rate(progress.step, share) * group["share"]
        rng = random.Random(SEED + progress.step)
        length = rng.choice(_at(share, LENGTHS))
        rows = max(1, _at(share, STEP_TOKENS) // length)
        batch = make_batch(rng, tokenizer, rows, length).to(device)
        loss, logits = _loss(model, batch, device)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        with _calm(model):
            optimizer.step()
        optimizer.zero_grad()
        progress.step += 1
        progress.tokens += batch.tokens.numel()
        progress.cpu_s = before_s + time.process_time() - started_s
        line = vars(progress) | {"length": length, "loss": loss.item(), "norm": norm.item()}
        line |= score(logits, batch, tokenizer)
        with (out / "log.jsonl").open("a") as log:
            print(json.dumps(line), file=log)
        if progress.cpu_s - saved_s > SAVE_EVERY_S:
            saved_s = progress.cpu_s
            _save(out, model, optimizer, progress)
    _save(out, model, optimizer, progress)


def _at(share: float, phases: tuple[tuple[float, T], ...]) -> T:
    """What holds at this share of the budget."""
    return next(value for until, value in phases if share < until)


def _rate(step: int, share: float) -> float:
    """Warm up, then half a cosine down to a twentieth."""
    return (
        PEAK_RATE
        * min(1.0, (step + 1) / WARM_UP_STEPS)
        * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))
    )


def _loss(model: Qwen2ForCausalLM, batch: Batch, device: str) -> tuple[Tensor, Tensor]:
    """The mean loss over what the model is to say, and the logits there."""
    with torch.autocast(device, torch.bfloat16):
        hidden = model.model(batch.tokens).last_hidden_state
        logits = model.lm_head(hidden[batch.targets != IGNORED]).float()
    return torch.nn.functional.cross_entropy(logits, batch.targets[batch.targets != IGNORED]), logits


if __name__ == "__main__":
    main()
