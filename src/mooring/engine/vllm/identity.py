"""Whether a worker serves what the others serve, and takes tokens for what we take them for.

Prompts go out as token ids, so how a worker would cut a text does not matter (transformers may build
another tokenizer than the one in `tokenizer.json`); what an id means does.
"""

from mooring.core.errors import MooringError
from mooring.engine.vllm.completions import message_body
from mooring.engine.vllm.vocabulary import Vocabulary
from mooring.engine.vllm.worker import GenerationFailed, Identity, Worker, WorkerLost

# Letters of many scripts, digits, spaces, line ends, and what most vocabularies need several tokens for.
_PROBE = (
    "The quick brown fox, 1234567890 times:\n\n\t  for (i = 0; i < 10; ++i) { x[i] *= 3.14; }\r\n"
    "Größe, œuvre, ñandú; Ωμέγα; съешь же ещё этих мягких булок; 天地玄黄，宇宙洪荒。"
    " いろはにほへと 가나다라 שלום عليكم हिन्दी ไทย 🙂👩‍🚀 ｆｕｌｌ－ｗｉｄｔｈ e\u0301"
)


class Unfit(Exception):
    """The worker cannot be asked, or must not be used; says why."""


async def identify(worker: Worker, vocabulary: Vocabulary) -> Identity:
    """Ask a worker what it serves.

    Raises:
        Unfit: it does not answer, has no connector of ours, or another vocabulary.
    """
    try:
        model, context_tokens = await worker.models()
        probe = vocabulary.tokenize(_PROBE, add_bos=False, control=True)
        theirs = await worker.detokenize(model, probe)
        announces = await worker.announces(message_body(model, {"stat": True}) | {"stream": True})
        report = await worker.report(message_body(model, {"stat": True}))
        identity = Identity(
            model, context_tokens, str(report["fingerprint"]), int(report["block_tokens"])
        )
    except (WorkerLost, GenerationFailed, MooringError, TimeoutError) as error:
        raise Unfit(str(error)) from error
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise Unfit(f"{worker.url} does not answer as a worker of ours does: {error!r}") from error
    if not announces:
        raise Unfit(
            f"{worker.url} runs without Mooring's middleware: start it as `mooring vllm-args` says"
        )
    if theirs != _PROBE:
        raise Unfit(f"{worker.url} has another vocabulary than --model")
    return identity


def difference(one: Identity, other: Identity) -> str | None:
    """How two workers differ, if they do."""
    for field in ("model", "context_tokens", "block_tokens", "fingerprint"):
        here, there = getattr(one, field), getattr(other, field)
        if here != there:
            return f"its {field.replace('_', ' ')} is {there}, not {here}"
    return None
