"""From logits to events: draws each choice's next token and says when it is complete."""

from mooring.core.usage import Usage
from mooring.engine.interface import (
    ChoiceFinished,
    Delta,
    Finished,
    FinishReason,
    SampledToken,
    Sampling,
)
from mooring.engine.llamacpp.binding import DecodeContext
from mooring.engine.llamacpp.buffer import Buffer
from mooring.engine.llamacpp.fill import Fill
from mooring.engine.llamacpp.outbox import Outbox
from mooring.engine.llamacpp.request import Choice, Request, Stage
from mooring.engine.llamacpp.sampler import make_chain, report_logprobs
from mooring.engine.text import TextStream
from mooring.telemetry import Metrics


class Decode:
    """The choices of running requests."""

    def __init__(self, context: DecodeContext, buffer: Buffer, outbox: Outbox, metrics: Metrics) -> None:
        self._context = context
        self._buffer = buffer
        self._outbox = outbox
        self._metrics = metrics

    def begin(self, request: Request, fill: Fill, row: int) -> None:
        """The prompt is in its sequence: fork it into the choices and draw their first tokens.

        All choices draw from the same logits; their sequences share the prompt's cells.
        Raises as `advance` does.
        """
        request.stage = Stage.DECODING
        sampling = request.generation.sampling
        for index, sequence in enumerate(request.sequences):
            if index > 0:
                self._buffer.share(fill.sequence, sequence, len(fill.tokens))
            sampler = make_chain(sampling, choice=index, vocabulary=self._context.model.vocab_size)
            text = TextStream(sampling.stop)
            matcher = request.matcher and request.matcher.fork()
            request.choices.append(Choice(index, sequence, sampler, text, matcher=matcher))
        for choice in request.choices:
            self.advance(request, choice, row)

    def advance(self, request: Request, choice: Choice, row: int) -> None:
        """Draw one token from the logits of `row` and send what text it completes.

        Raises:
            InvalidRequest: the request's grammar cannot be followed any further.
        """
        model, sampling = self._context.model, request.generation.sampling
        token, logprobs = self._draw(choice, row, sampling)
        choice.pending = token
        choice.tokens.append(token)
        self._metrics.generated_tokens.inc()

        text = ""
        if model.ends_generation(token):
            choice.finished = FinishReason.STOP
        else:
            text = choice.text.push(model.piece(token, control=token in request.visible))
            if choice.text.stopped or (choice.matcher is not None and choice.matcher.complete):
                choice.finished = FinishReason.STOP
            elif choice.drawn == sampling.max_tokens:
                choice.finished = FinishReason.LENGTH
        if choice.finished is not None and not choice.text.stopped:
            text += choice.text.finish()
        if text or logprobs:
            first = choice.drawn == 1
            self._outbox.post(request.sink, Delta(choice.index, text, logprobs), urgent=first)
        if choice.finished is not None:
            self._finish_choice(request, choice, choice.finished)

    def _draw(
        self, choice: Choice, row: int, sampling: Sampling
    ) -> tuple[int, tuple[SampledToken, ...]]:
        """The next token, and its log probabilities if they were asked for."""
        wanted, own = sampling.top_logprobs, None
        if wanted is not None:
            own = self._context.logits(row).copy()  # as the model gave them
        if choice.matcher is not None:
            choice.matcher.restrict(self._context.logits(row))
        token = choice.sampler.sample(self._context, row)
        if choice.matcher is not None:
            choice.matcher.accept(token)
        if wanted is None or own is None:
            return token, ()
        return token, (report_logprobs(self._context.model, own, token, wanted),)

    def _finish_choice(self, request: Request, choice: Choice, reason: FinishReason) -> None:
        choice.sampler.close()
        self._outbox.post(request.sink, ChoiceFinished(choice.index, reason, choice.drawn))
        if all(other.finished for other in request.choices):
            drawn = sum(other.drawn for other in request.choices)
            usage = Usage(len(request.tokens), request.cached_from.total(), drawn)
            self._outbox.post(request.sink, Finished(usage))
