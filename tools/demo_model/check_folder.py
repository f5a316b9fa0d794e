"""Checks that the exported folder and the GGUF are one model: prompts' tokens and greedy answers.

`python tools/demo_model/check_folder.py --folder build/hf --gguf src/mooring/assets/demo.gguf`
fails when tokens differ. Of answers it says how many are equal: one model's weights are rounded.
"""

import argparse
import random
from itertools import chain, islice
from pathlib import Path

import torch
from evaluate import ANSWER_TOKENS, SEED, Case, Reader, calls, questions
from transformers import AutoModelForCausalLM, AutoTokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=20, help="of each kind")
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.folder)
    model = AutoModelForCausalLM.from_pretrained(options.folder, dtype=torch.float32)
    reader = Reader(options.gguf, None)
    cases = _cases(reader, options.questions)
    same_tokens = same_answers = 0
    for case in cases:
        ids = tokenizer.apply_chat_template(
            list(case.messages),
            tools=list(case.tools) or None,
            add_generation_prompt=True,
            return_dict=False,
        )
        same_tokens += ids == reader.prompt(case)
        with torch.no_grad():
            said = model.generate(
                torch.tensor([ids]), max_new_tokens=ANSWER_TOKENS, do_sample=False, pad_token_id=0
            )
        text = tokenizer.decode(said[0, len(ids) :]).removesuffix(tokenizer.eos_token)
        same_answers += text == reader.answer(case)
    print(f"of {len(cases)} prompts: {same_tokens} with equal tokens, {same_answers} with equal answers")
    if same_tokens < len(cases):
        raise SystemExit("the folder's template or tokenizer is another one than the GGUF's")


def _cases(reader: Reader, count: int) -> list[Case]:
    rng = random.Random(SEED + 1)
    kinds = (questions(rng, reader, 1000), questions(rng, reader, 1000, missing=True))
    return list(chain(*(islice(kind, count) for kind in (*kinds, calls(rng, reader, 0)))))


if __name__ == "__main__":
    main()
