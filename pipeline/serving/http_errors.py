"""One shape for every answer that is not a success; no traces, nothing of the input repeated."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from pipeline.serving.refused import RefusedError
from pipeline.serving.replies import Failed, Mistake, Problem
from pipeline.serving.requests import BY_HISTORY, BY_USER

_LOG = logging.getLogger(__name__)
_PROBLEMS = 20  # named in one answer
_CODES = {404: "no_such_path", 405: "method_not_allowed"}


def failed(status: int, code: str, message: str, problems: Sequence[Problem] = ()) -> Response:
    """An answer in the one shape, in ASCII: strangers' text may be no valid Unicode."""
    content = Failed(error=Mistake(code=code, message=message, problems=list(problems)))
    body = json.dumps(content.model_dump()).encode("ascii")
    return Response(body, status, media_type="application/json")


def _place(location: Sequence[str | int]) -> str:
    """Where in the request: `body.events.3.item`."""
    return ".".join(str(part) for part in location if part not in (BY_HISTORY, BY_USER))


def install_error_handlers(app: FastAPI) -> None:
    """Let the app answer every failure in the one shape."""

    @app.exception_handler(RefusedError)
    async def refusal(request: Request, error: RefusedError) -> Response:
        return failed(error.status, error.code, error.message)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        problems = [
            Problem(at=_place(wrong["loc"]), message=wrong["msg"])
            for wrong in error.errors()[:_PROBLEMS]
        ]
        message = f"the request does not fit the schema in {len(error.errors())} place(s)"
        return failed(422, "invalid_request", message, problems)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        code = _CODES.get(error.status_code, "bad_request")
        answer = failed(error.status_code, code, str(error.detail))
        answer.headers.update(error.headers or {})
        return answer

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> Response:
        _LOG.error("%s %s", request.method, request.url.path, exc_info=error)
        return failed(500, "internal", "something is wrong on this side; it was logged")
