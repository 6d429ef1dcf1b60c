"""The page at /docs: renders the OpenAPI document as one plain HTML page, without scripts or external resources."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from html import escape
from typing import Any, Final

_STYLE: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "code,pre{font:14px/1.4 ui-monospace,monospace;background:#f4f4f4}pre{padding:.6rem;overflow:auto}"
    "table{border-collapse:collapse;width:100%}td,th{border:1px solid #ddd;padding:.2rem .5rem;text-align:left}"
    "h2{border-top:1px solid #ccc;padding-top:1rem}summary{cursor:pointer}"
)
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; frame-ancestors 'none'; style-src 'sha256-"
    f"{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'"
)
"""The Content-Security-Policy of the page: allows its style sheet and nothing else."""


def render_page(document: dict[str, Any], prefix: str = "") -> str:
    """Return the page; `prefix` is what comes before the paths of the API outside."""
    link = escape(f"{prefix}/openapi.json", quote=True)
    info = document["info"]
    operations = [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    parts = [
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{escape(info['description'])}</p>",
        f"<p>For programs: <a href='{link}'>{link}</a>.</p>",
        *([f"<p>All paths are below <code>{escape(prefix)}</code>.</p>"] if prefix else []),
        "<p>Send the API key as <code>Authorization: Bearer vgl_…</code>.</p>",
        "<ul>",
        *(f"<li><a href='#{_name(operation)}'><code>{m} {escape(p)}</code></a></li>" for m, p, operation in operations),
        "</ul>",
        *(line for m, p, operation in operations for line in _operation(m, p, operation)),
        "<h2>Schemas</h2>",
        *(_schema(name, schema) for name, schema in sorted(document["components"]["schemas"].items())),
    ]
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(info['title'])}</title>"
    return f"{head}<style>{_STYLE}</style>" + "\n".join(parts) + "</html>"


def _name(operation: dict[str, Any]) -> str:
    return escape(operation["operationId"], quote=True)


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"<h2 id='{_name(operation)}'>{escape(operation['summary'])}</h2><pre>{method} {escape(path)}</pre>"
    yield f"<p>{escape(operation.get('description', ''))}</p>"
    if "x-scope" in operation:
        yield f"<p>Scope: <code>{escape(operation['x-scope'])}</code></p>"
    if operation.get("parameters"):
        rows = ((one["name"], f"{one['in']}: {one.get('description', '')}") for one in operation["parameters"])
        yield _table("Parameter", rows)
    for media, body in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<p>Body: <code>{escape(media)}</code> {_link(body['schema'])}</p>"
        yield f"<pre>{_json(body['example'])}</pre>" if "example" in body else ""
    yield _table("Status", ((status, row["description"]) for status, row in operation["responses"].items()))


def _table(head: str, rows: Iterator[tuple[str, str]]) -> str:
    cells = "".join(f"<tr><td><code>{escape(one)}</code></td><td>{escape(about)}</td></tr>" for one, about in rows)
    return f"<table><tr><th>{head}</th><th></th></tr>{cells}</table>"


def _link(schema: dict[str, Any]) -> str:
    name = escape(str(schema.get("$ref", "")).rpartition("/")[2], quote=True)
    return f"<a href='#schema-{name}'>{name}</a>" if name else ""


def _schema(name: str, schema: dict[str, Any]) -> str:
    label = escape(name, quote=True)
    return f"<details id='schema-{label}'><summary><code>{label}</code></summary><pre>{_json(schema)}</pre></details>"


def _json(value: object) -> str:
    return escape(json.dumps(value, indent=2, ensure_ascii=False))
