"""The webhook over HTTP: ``POST /inject`` for the API server, ``GET /healthz`` for the kubelet.

TLS is the server's (``main``). The API server is not asked to prove who it is: an answer tells nothing that
whoever may create pods could not see, and changes nothing by itself.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from mesh.inject.settings import Settings
from services.injector.review import review
from services.injector.room import Room

log = logging.getLogger("mesh.injector")


def webhook(settings: Settings, is_ready: Callable[[], bool] = lambda: True) -> Starlette:
    """Give the application; ``is_ready`` says whether the API server can trust the certificate by now."""
    room = Room()

    async def inject(request: Request) -> Response:
        try:
            async with room.body(request) as body:
                answer = await room.judge(body, lambda found: review(json.loads(found), settings))
                said = JSONResponse(answer)
        except (ValueError, RecursionError) as error:
            return PlainTextResponse(f"no review: {type(error).__name__}", 400)
        response = answer["response"]
        if not response["allowed"]:
            log.warning("refused: %s", response["status"]["message"])
        return said

    async def health(_request: Request) -> Response:
        return PlainTextResponse("ok") if is_ready() else PlainTextResponse("not ready", 503)

    routes = [Route("/inject", inject, methods=["POST"]), Route("/healthz", health, methods=["GET"])]
    return Starlette(routes=routes)
