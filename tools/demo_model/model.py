"""The model's shape: Qwen2 with heads of 128 and a very slow rotary embedding.

With this theta 51 of a head's 64 rotary pairs turn by less than 0.2 over 16k positions, so that
matching words does not depend on how far apart they stand.
"""

from transformers import Qwen2Config, Qwen2ForCausalLM

WIDTH, HEADS, HEAD, LAYERS, FEED_FORWARD = 384, 3, 128, 5, 512
THETA = 1e25
CONTEXT = 16_384


def make_model(vocabulary: int) -> Qwen2ForCausalLM:
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=vocabulary,
            hidden_size=WIDTH,
            intermediate_size=FEED_FORWARD,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS,
            max_position_embeddings=CONTEXT,
            rope_parameters={"rope_type": "default", "rope_theta": THETA},
            rms_norm_eps=1e-6,
            tie_word_embeddings=False,
            bos_token_id=None,
            eos_token_id=2,
            attn_implementation="sdpa",
        )
    )
