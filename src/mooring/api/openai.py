"""OpenAI's chat completions and models, with the cache message (docs/moonshot-api.md, 3 and 4)."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from mooring.api.answer_format import ResponseFormat, ToolChoiceField, read_answer_format
from mooring.api.auth import Tenant
from mooring.api.body import StrictRoute
from mooring.api.cache_role import read_cache_headers, split_cache_message
from mooring.api.completion import Envelope, chunks, collect, dry_completion
from mooring.api.document import CACHE_HEADERS, documented
from mooring.api.errors import MISS_HEADER
from mooring.api.messages import ChatMessage, ToolDeclaration
from mooring.api.replies import CompletionReply, ModelList, TokenEstimate
from mooring.api.stream import ClientGone, EventStream, until_gone
from mooring.config import ChatConfig
from mooring.core.errors import InvalidRequest
from mooring.engine.interface import Sampling
from mooring.service.chat import Answer, Chat, ChatRequest, DryRun
from mooring.service.models import Models

_log = logging.getLogger("mooring.api")
_CLIENT_CLOSED_REQUEST = 499
_NEARLY_GREEDY = 0.01
_STRICT_HEADER = "X-Context-Cache-Strict"
_EVENT_STREAM = {
    "responses": {"200": {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}
}

StopString = Annotated[str, Field(min_length=1, max_length=256)]


class StreamOptions(BaseModel):
    include_usage: bool = False


class ChatBody(BaseModel):
    """What `POST /v1/chat/completions` takes. Fields it does not name are ignored."""

    model_config = ConfigDict(strict=True)

    model: str
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    tools: list[ToolDeclaration] | None = None
    tool_choice: ToolChoiceField | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    logit_bias: dict[str, float] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    n: Annotated[int, Field(ge=1, le=16)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: StopString | Annotated[list[StopString], Field(max_length=16)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None

    def to_request(self, config: ChatConfig, headers: Mapping[str, str]) -> ChatRequest:
        """Raises InvalidRequest."""
        if self.logit_bias:  # it would change the answer, so it is refused rather than ignored
            raise InvalidRequest("logit_bias: not supported by this version", param="logit_bias")
        tools_sent = "tools" in self.model_fields_set
        cache, messages = split_cache_message(self.messages, tools_sent=tools_sent)
        if cache is not None and not messages:
            raise InvalidRequest("messages: a message must follow the cache message", param="messages")
        return ChatRequest(
            model=self.model,
            messages=tuple(message.as_sent() for message in messages),
            tools=tuple(tool.as_sent() for tool in self.tools or []),
            sampling=self._sampling(config),
            answer_format=read_answer_format(
                self.response_format, self.tool_choice, parallel=self.parallel_tool_calls is not False
            ),
            cache=cache or read_cache_headers(headers),
            strict=headers.get(_STRICT_HEADER) == "1",
        )

    def _sampling(self, config: ChatConfig) -> Sampling:
        temperature = 1.0 if self.temperature is None else self.temperature
        choices = self.n or 1
        if choices > 1 and temperature < _NEARLY_GREEDY:
            raise InvalidRequest(
                "n: at a temperature near 0 all choices would be the same; raise temperature or"
                " leave n at 1",
                param="n",
            )
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidRequest("top_logprobs: needs logprobs: true", param="top_logprobs")
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return Sampling(
            max_tokens=self.max_completion_tokens or self.max_tokens or config.default_max_tokens,
            temperature=temperature,
            top_p=1.0 if self.top_p is None else self.top_p,
            frequency_penalty=self.frequency_penalty or 0.0,
            presence_penalty=self.presence_penalty or 0.0,
            seed=self.seed,
            stop=tuple(stop),
            choices=choices,
            top_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
        )


def router(
    chat: Chat,
    models: Models,
    config: ChatConfig,
    fingerprint: str,
) -> APIRouter:
    routes = APIRouter(prefix="/v1", tags=["chat"], route_class=StrictRoute)

    @routes.post(
        "/chat/completions",
        **documented(CompletionReply, conflict=True),
        openapi_extra=CACHE_HEADERS | _EVENT_STREAM,
    )
    async def create_completion(request: Request, tenant: Tenant, body: ChatBody) -> Response:
        """Answer a chat, whole or as a stream of chunks."""
        asked = body.to_request(config, request.headers)
        envelope = Envelope(body.model, fingerprint)
        choices = asked.sampling.choices
        if asked.cache is not None and asked.cache.dry_run:
            run = await chat.dry_run(tenant, asked)
            return JSONResponse(dry_completion(envelope, run), headers=cache_headers(run))
        usage = bool(body.stream_options and body.stream_options.include_usage)

        async def reply() -> Response:
            answer = await chat.begin(tenant, asked)
            headers = cache_headers(answer) | dict(answer.limits)
            named = replace(envelope, id=answer.id)
            if body.stream:
                stream = chunks(named, answer, choices, include_usage=usage)
                return EventStream(stream, answer.close, headers)
            try:
                whole = await collect(named, answer.events, choices)
            finally:
                await answer.close()
            return JSONResponse(whole, headers=headers)

        try:
            return await until_gone(request, reply())
        except ClientGone:
            _log.info("client_closed_request path=%s", request.url.path)
            return Response(status_code=_CLIENT_CLOSED_REQUEST)

    @routes.post("/tokenizers/estimate-token-count", **documented(TokenEstimate))
    async def estimate(request: Request, tenant: Tenant, body: ChatBody) -> dict[str, Any]:
        """The prompt tokens of a chat: what its `usage.prompt_tokens` will be."""
        tokens = await chat.count(tenant, body.to_request(config, request.headers))
        return {"data": {"total_tokens": tokens}}

    @routes.get("/models", **documented(ModelList))
    async def list_models(_: Tenant) -> dict[str, Any]:
        """The loaded model under all its names."""
        data = [
            {"id": name, "object": "model", "created": models.loaded_at, "owned_by": "mooring"}
            for name in models.names
        ]
        return {"object": "list", "data": data}

    return routes


def cache_headers(answer: Answer | DryRun) -> dict[str, str]:
    """Moonshot's reply headers on a hit, ours on a miss (docs/moonshot-api.md, section 3)."""
    headers = {} if answer.miss is None else {MISS_HEADER: str(answer.miss)}
    if answer.hit is None:
        return headers
    return headers | {
        "Msh-Context-Cache-Id": answer.hit.cache_id,
        "Msh-Context-Cache-Token-Saved": str(answer.hit.saved_tokens),
        "Msh-Context-Cache-Token-Exp": str(answer.hit.expired_at),
    }
