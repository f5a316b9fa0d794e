"""The official example: upload files, cache their text under a tag, chat by the tag."""

import json

import httpx
import openai
from documents import make_docx, make_pdf

TAG = "harbour-files"


def test_files_are_cached_under_a_tag_and_asked_about(
    sdk: openai.OpenAI, http: httpx.Client, settled, held
):
    texts = []
    for name, data in (("a.pdf", make_pdf("Berth 7 is closed.")), ("b.docx", make_docx())):
        file = sdk.files.create(file=(name, data), purpose="file-extract")  # type: ignore[arg-type]
        texts.append(sdk.files.content(file.id).text)
    assert json.loads(texts[0])["content"].strip() == "Berth 7 is closed."

    messages = [{"role": "system", "content": text} for text in texts]
    body = {"model": "moonshot-v1", "messages": messages, "ttl": 300, "tags": [TAG]}
    cache = settled(http.post("/v1/caching", json=body).json())
    assert cache["status"] == "ready"

    for question in ("Which berth is closed?", "How long is the quay?"):
        reply = sdk.chat.completions.with_raw_response.create(
            model="moonshot-v1-128k",
            messages=[
                {"role": "cache", "content": f"tag={TAG};reset_ttl=300"},  # type: ignore[list-item]
                {"role": "user", "content": question},
            ],
            max_tokens=4,
        )
        assert reply.headers["Msh-Context-Cache-Id"] == cache["id"]
        assert reply.parse().usage.prompt_tokens_details.cached_tokens == held(cache)
