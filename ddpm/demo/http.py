"""What is answered before Gradio answers: the card of a link, a picture for the second until the
page's script runs, and requests that it bears badly.

Plain ASGI (https://asgi.readthedocs.io), so it knows neither Gradio nor its HTTP library.
"""

import base64
import html
import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

CARD = "/card.png"
LARGEST = 2_000_000  # bytes of a request: a picture as base64 has at most 100,000
# How Gradio describes every page to sites that show a card of a link.
_THEIRS = re.compile(rb"<meta\s+(?:property|name)=\"(?:og|twitter):[^>]*>\s*")
_BODY = re.compile(rb"<body[^>]*>")
RESULTS = "/gradio_api/queue/data"
_RESULT = re.compile(r"/gradio_api/call/(?:v2/)?[^/]+/([^/]+)")


class Front:
    """Wraps an ASGI app: Gradio's, on which `app.get_blocks()._queue` is its queue.

    title, text: of the card. picture: makes its PNG, asynchronously. poster: makes the PNG that the
    page shows at once, as the element #poster; page.css hides it.
    """

    def __init__(
        self,
        app: App,
        title: str,
        text: str,
        picture: Callable[[], Awaitable[bytes]],
        poster: Callable[[], Awaitable[bytes]],
    ) -> None:
        self.app, self.title, self.text = app, title, text
        self.picture, self.poster = picture, poster

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        path, method = scope.get("path", ""), scope.get("method")
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif method == "POST" and int(_header(scope, "content-length") or 0) > LARGEST:
            await _refuse(send, 413, f"a request may have at most {LARGEST:,} bytes")
        elif method == "GET" and _is_unknown(scope, path):
            await _refuse(send, 404, "no such result: it was fetched already, or never asked for")
        elif method == "GET" and path == CARD:
            await _answer(send, 200, "image/png", await self.picture())
        elif method == "GET" and path == "/":
            await self.app(scope, receive, self._with_card(scope, send))
        else:
            await self.app(scope, receive, send)

    def _with_card(self, scope: Scope, send: Send) -> Send:
        """The same, but the page that is sent describes itself in our words."""
        start: Message = {}
        parts: list[bytes] = []

        async def described(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
                return
            parts.append(message.get("body", b""))
            if message.get("more_body"):
                return
            page = b"".join(parts)
            if start["status"] == 200 and b"<head>" in page:
                page = _THEIRS.sub(b"", page).replace(b"<head>", b"<head>" + self._tags(scope), 1)
                poster = base64.b64encode(await self.poster())
                shown = b'<img id="poster" alt="" src="data:image/png;base64,%b">' % poster
                page = _BODY.sub(lambda body: body[0] + shown, page, count=1)
            length = (b"content-length", str(len(page)).encode())
            kept = [(name, value) for name, value in start["headers"] if name != length[0]]
            await send({**start, "headers": [*kept, length]})
            await send({"type": "http.response.body", "body": page})

        return described

    def _tags(self, scope: Scope) -> bytes:
        secure = _header(scope, "x-forwarded-proto").split(",")[0].strip() == "https"
        host = _header(scope, "x-forwarded-host").split(",")[0].strip() or _header(scope, "host")
        root = f"{'https' if secure else scope['scheme']}://{host}"
        facts = {"title": self.title, "description": self.text, "image": root + CARD}
        tags = {"og:type": "website", "og:url": f"{root}/", "twitter:card": "summary_large_image"}
        for name, value in facts.items():
            tags |= {f"og:{name}": value, f"twitter:{name}": value}
        tags["description"] = self.text
        return "".join(
            f'<meta {"property" if name.startswith("og:") else "name"}="{name}" '
            f'content="{html.escape(value)}" />'
            for name, value in tags.items()
        ).encode()


def _header(scope: Scope, name: str) -> str:
    return next((v.decode("latin-1") for k, v in scope["headers"] if k == name.encode()), "")


def _is_unknown(scope: Scope, path: str) -> bool:
    """Whether somebody wants a result that is not there; Gradio would fail while it answers."""
    queue = scope["app"].get_blocks()._queue
    if found := _RESULT.fullmatch(path):
        waited_for = set().union(
            queue.event_ids_to_events, *queue.pending_event_ids_session.values()
        )
        return found[1] not in waited_for
    asked = parse_qs(scope["query_string"].decode("latin-1"))
    session = asked.get("session_hash", [""])[0]
    return path == RESULTS and session not in queue.pending_messages_per_session


async def _refuse(send: Send, status: int, why: str) -> None:
    await _answer(send, status, "application/json", json.dumps({"detail": why}).encode())


async def _answer(send: Send, status: int, kind: str, body: bytes) -> None:
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
