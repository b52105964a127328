"""The webhook over HTTP: ``POST /inject`` for the API server, ``GET /healthz`` for the kubelet.

TLS is the server's (``main``). The API server is not asked to prove who it is: an answer tells nothing that
whoever may create pods could not see, and changes nothing by itself.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from mesh.inject.settings import Settings
from services.injector.review import review

log = logging.getLogger("mesh.injector")

#: An object is at most 1.5 MiB in the API server's store; a review may hold it twice.
MAX_REVIEW: Final = 4 * 1024 * 1024


def webhook(settings: Settings, is_ready: Callable[[], bool] = lambda: True) -> Starlette:
    """Give the application; ``is_ready`` says whether the API server can trust the certificate by now."""

    async def inject(request: Request) -> Response:
        body = await _body(request)
        if body is None:
            return PlainTextResponse(f"larger than {MAX_REVIEW} bytes", 413)
        try:
            answer = review(json.loads(body), settings)
        except (ValueError, RecursionError) as error:
            return PlainTextResponse(f"no review: {error}", 400)
        response = answer["response"]
        if not response["allowed"]:
            log.warning("refused: %s", response["status"]["message"])
        return JSONResponse(answer)

    async def health(_request: Request) -> Response:
        return PlainTextResponse("ok") if is_ready() else PlainTextResponse("not ready", 503)

    routes = [Route("/inject", inject, methods=["POST"]), Route("/healthz", health, methods=["GET"])]
    return Starlette(routes=routes)


async def _body(request: Request) -> bytes | None:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_REVIEW:
            return None
    return bytes(body)
