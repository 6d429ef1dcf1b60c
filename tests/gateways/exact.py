"""Compares the answers of jobs with a server's direct answer, for a model that always writes one sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
from sentence import CONTEXT
from servers import Server

ROOM = 200
CUT = 5
TOO_LONG = "x" * (CONTEXT + 1)  # each byte is a token


def direct(base: str, key: str, model: str, prompt: str) -> dict[str, Any]:
    """Return the server's own unstreamed answer over chat."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": ROOM,
        "temperature": 0,
    }
    answer = httpx2.post(
        f"{base}/chat/completions", json=body, headers={"Authorization": f"Bearer {key}"}, timeout=60
    ).json()
    choice, usage = answer["choices"][0], answer["usage"]
    return {
        "text": choice["message"]["content"],
        "finish": choice["finish_reason"],
        "usage": [usage["prompt_tokens"], usage["completion_tokens"]],
    }


def ended(client: httpx2.Client, model: str, prompt: str, limit: int) -> dict[str, Any]:
    """Submit a job and return it once it has ended."""
    body = {
        "model": model,
        "input": prompt,
        "params": {"max_output_tokens": limit, "temperature": 0},
        "policy": {"max_attempts": 2, "run_deadline_seconds": 45},
    }
    made = client.post("/v1/jobs", json=body).json()
    with client.stream("GET", f"/v1/jobs/{made['id']}/events") as events:
        for _ in events.iter_lines():
            pass
    job: dict[str, Any] = client.get(f"/v1/jobs/{made['id']}").json()
    return job


def counted(usage: dict[str, Any] | None) -> list[int] | None:
    """Return the server's token counts of prompt and answer, or None if Vigil counted pieces itself."""
    return None if not usage or usage.get("estimated") else [usage["input_tokens"], usage["output_tokens"]]


def faults(
    client: httpx2.Client, own: dict[str, Any], server: Server, model: str, prompt: str, *, counts: bool
) -> Iterator[str]:
    """Return what differs from the server's own answer `own`; `counts`: it sends its usage in a stream."""
    says = server.says or ""
    if (own["text"], own["finish"]) != (says, "stop"):
        yield f"the server itself said {own}"
    usage = own["usage"] if counts else None
    job = ended(client, model, prompt, ROOM)
    if (job["status"], job["output_text"], job["reason"]) != ("completed", says, None):
        yield f"whole: {job['status']}, {job['reason']}, {job['output_text']!r}"
    if counted(job["usage"]) != usage:
        yield f"usage {job['usage']}, its own {usage}"
    job = ended(client, model, prompt, CUT)
    text = job["output_text"] or ""
    if (job["status"], job["reason"]) != ("completed", "max_output_tokens") or not says.startswith(text or "?"):
        yield f"cut: {job['status']}, {job['reason']}, {text!r}"
    if counts and counted(job["usage"]) != [own["usage"][0], CUT]:
        yield f"cut: usage {job['usage']}"
    job = ended(client, model, TOO_LONG, ROOM)
    if (job["status"], (job["error"] or {}).get("code")) != ("failed", server.too_long):
        yield f"too long: {job['status']}, {job['error']}, {len(job['attempts'])} attempts"
    yield from _as_responses(client, model, prompt, says, usage)


def _as_responses(client: httpx2.Client, model: str, prompt: str, says: str, usage: list[int] | None) -> Iterator[str]:
    """Yield what differs through `/v1/responses`, plain and streamed; its usage can't be marked as an estimate."""
    body = {"model": model, "input": prompt, "max_output_tokens": ROOM}
    plain = client.post("/v1/responses", json=body | {"stream": False}).json()
    pieces, last = "", {}
    with client.stream("POST", "/v1/responses", json=body | {"stream": True}) as events:
        for line in events.iter_lines():
            if line.startswith("data: {"):
                event = json.loads(line[6:])
                pieces += event.get("delta", "") if event["type"] == "response.output_text.delta" else ""
                last = event.get("response", last)
    for how, answer in (("plain", plain), ("streamed", last)):
        parts = [part.get("text") for item in answer.get("output", []) for part in item.get("content", [])]
        if (answer.get("status"), parts) != ("completed", [says]):
            yield f"{how} Response: {answer.get('status')}, {parts}"
        if usage is not None and counted(answer.get("usage")) != usage:
            yield f"{how} Response: usage {counted(answer.get('usage'))}"
    if pieces != says:
        yield f"streamed Response: {pieces!r}"
