"""Exports a checkpoint: the GGUF that ships with Mooring, and a folder for transformers and vLLM.

`python tools/demo_model/export.py --run build/run --gguf src/mooring/assets/demo.gguf --folder build/hf`
"""

import argparse
import json
from pathlib import Path

import gguf
import torch
from model import CONTEXT, FEED_FORWARD, HEAD, HEADS, LAYERS, THETA, WIDTH, make_model
from tokenizer import CONTROL
from tokenizers import Tokenizer
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

TEMPLATE = Path(__file__).with_name("chat_template.jinja")
NAME = "mooring-demo"
DESCRIPTION = "Answers questions about a document in simple English. Trained on synthetic text only."
NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers.": "blk.",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""What transformers calls a part of a tensor's name, and what llama.cpp calls it."""


def write_gguf(path: Path, weights: dict[str, Tensor], tokenizer: Tokenizer) -> None:
    """Matrices in q8_0, vectors in f32."""
    writer = gguf.GGUFWriter(path, "qwen2")
    writer.add_name(NAME)
    writer.add_description(DESCRIPTION)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_freq_base(THETA)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    described = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(described["vocab"], key=described["vocab"].__getitem__)
    writer.add_token_list(tokens)
    writer.add_token_types(
        [gguf.TokenType.CONTROL if token in CONTROL else gguf.TokenType.NORMAL for token in tokens]
    )
    writer.add_token_merges([" ".join(merge) for merge in described["merges"]])
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_pad_token_id(tokens.index("<|endoftext|>"))
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE.read_text("utf-8"))
    for name, tensor in weights.items():
        for theirs, ours in NAMES.items():
            name = name.replace(theirs, ours)
        kind = gguf.GGMLQuantizationType.F32 if tensor.dim() == 1 else gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quantize(tensor.float().numpy(), kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_folder(folder: Path, weights: dict[str, Tensor], tokenizer: Tokenizer) -> None:
    """config.json, model.safetensors (float32), tokenizer.json and its configuration.

    It is called a Llama with biases, which computes the same: transformers 5 gives whatever is called a
    Qwen2 the tokenizer of that family, which keeps no digits together.
    """
    qwen2 = make_model(tokenizer.get_vocab_size()).config.to_dict()
    shared = {name: qwen2[name] for name in LlamaConfig().to_dict() if name in qwen2}
    shared |= {"model_type": "llama", "attention_bias": True, "head_dim": HEAD}
    model = LlamaForCausalLM(LlamaConfig(**shared))
    for layer in range(LAYERS):
        weights = weights | {f"model.layers.{layer}.self_attn.o_proj.bias": torch.zeros(WIDTH)}
    model.load_state_dict(weights)
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["rope_theta"] = THETA  # where readers before transformers 5 look for it
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "eos_token": "<|im_end|>",
                "pad_token": "<|endoftext|>",
                "model_max_length": CONTEXT,
                "clean_up_tokenization_spaces": False,
                "chat_template": TEMPLATE.read_text("utf-8"),
            },
            indent=2,
        )
        + "\n",
        "utf-8",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="the training's --out")
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--folder", type=Path, help="write the safetensors folder, too")
    options = parser.parse_args()
    saved = torch.load(options.run / "checkpoint.pt", weights_only=True, map_location="cpu")
    tokenizer = Tokenizer.from_file(str(options.run / "tokenizer.json"))
    write_gguf(options.gguf, saved["model"], tokenizer)
    print(f"{options.gguf}: {options.gguf.stat().st_size / 1e6:.1f} MB after {saved['progress']}")
    if options.folder:
        write_folder(options.folder, saved["model"], tokenizer)


if __name__ == "__main__":
    main()
