"""The floor of `gateway.py`: FastAPI takes the same body, and answers what it always answers.

No key, no cache, no limit, no ledger, no engine: what the HTTP framework itself takes.
"""

import sys

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse

from mooring.api.openai import ChatBody
from mooring.serving import listen

_ANSWER = {
    "id": "chatcmpl-0",
    "object": "chat.completion",
    "created": 0,
    "model": "moonshot-v1",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "At once."}}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3},
}
app = FastAPI()


@app.post("/v1/chat/completions")
async def answer(_: ChatBody) -> JSONResponse:
    return JSONResponse(_ANSWER)


if __name__ == "__main__":
    listener = listen("127.0.0.1", 0)
    sys.stderr.write(f"base URL   http://127.0.0.1:{listener.getsockname()[1]}/v1\n")
    sys.stderr.flush()
    uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False)).run(sockets=[listener])
