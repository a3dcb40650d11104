"""What a request may bring: one file at a time, and no more bytes than one file may have."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from zoo.extras import need

Message: TypeAlias = MutableMapping[str, Any]
#: bytes beside a file's own: the heads of its parts, and the fields of the page
MORE = 1024 * 1024
#: parts of a form: a file and what is said of it
PARTS = 4


def mark(kind: bytes) -> bytes | None:
    """What stands before each part of a form of this content type, read as gradio reads it; None where it has no parts."""
    found, options = need("python_multipart.multipart", "demo").parse_options_header(kind)
    limit = options.get(b"boundary")
    return b"--" + limit if found.startswith(b"multipart/") and limit else None


class Limited:
    """An ASGI application that ends a request with one error where it brings too many files or bytes.

    gradio limits the bytes of each file, and takes a thousand files in a request.

    Args:
        app: what else is asked. upload: most bytes of a file.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], upload: int) -> None:
        self.app, self.upload = app, upload

    async def __call__(self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Any) -> None:
        """One request: its body is counted while it comes, so that nothing more of it is kept."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        # the form's own error: gradio's reader removes what it has written of it, and answers with its text
        refused: Any = need("starlette.formparsers", "demo").MultiPartException
        answer: Any = need("starlette.responses", "demo").PlainTextResponse
        heads = dict(reversed(scope["headers"]))  # of a name that comes twice the first counts, as for gradio
        large = f"the request exceeds the maximum allowed size: a file may have {self.upload:,} bytes."
        said = heads.get(b"content-length", b"")
        if said.isdigit() and int(said[:20]) > self.upload + MORE:
            return await answer(large, status_code=413)(scope, receive, send)
        between, size, parts, rest, began = mark(heads.get(b"content-type", b"")), 0, 0, b"", False

        async def counted() -> Message:
            nonlocal size, parts, rest
            message = await receive()
            body = message.get("body", b"")
            size += len(body)
            if size > self.upload + MORE:
                raise refused(large)
            if between is not None:
                rest += body
                parts += rest.count(between)
                rest = rest[1 - len(between) :]  # shorter than a mark: nothing is counted twice
                if parts > PARTS + 1:  # and the last one closes the form
                    raise refused("the request holds too many files: give one file at a time.")
            return message

        async def told(message: Message) -> None:
            nonlocal began
            began = began or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, counted, told)
        except refused as error:  # of an address that reads no form
            if began:
                raise
            status = 413 if "maximum allowed size" in error.message else 400
            await answer(error.message, status_code=status)(scope, receive, send)
