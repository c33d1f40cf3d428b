"""The routes, over a `Service`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Body, FastAPI, Query
from starlette.responses import Response

from pipeline.serving import limits
from pipeline.serving.http_errors import install_error_handlers
from pipeline.serving.http_layers import BoundedBodies, CountedAnswers
from pipeline.serving.page import add_page
from pipeline.serving.replies import (
    EventsKept,
    Failed,
    Found,
    FoundItem,
    Health,
    ItemKept,
    Recommended,
    RecommendedItem,
)
from pipeline.serving.requests import Asked, Events, Id, ItemAdded
from pipeline.serving.service import Service
from pipeline.serving.store import NewItem

_WHY = {
    400: "the body cannot be read",
    404: "a domain, an item or a user is not known",
    409: "what is there already differs",
    413: "the body is too large",
    422: "the request does not fit the schema",
    500: "something is wrong on the server's side",
    503: "the store of states does not answer",
}
_QUERY = Query(min_length=1, max_length=limits.QUERY_CHARS)


def build_app(service: Service) -> FastAPI:
    """The ASGI app of one replica: routes, the page, limits, metrics."""
    app = FastAPI(
        title="hydrarec",
        description="Recommendations from a trained bundle, and the states of its users.",
        version="1",
        docs_url=None,  # they would load scripts from elsewhere
        redoc_url=None,
    )
    install_error_handlers(app)
    _add_writing_routes(app, service)
    _add_reading_routes(app, service)
    add_page(app)
    app.add_middleware(BoundedBodies, most=limits.BODY_BYTES)
    app.add_middleware(CountedAnswers, metrics=service.metrics)
    return app


def _failures(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {
        status: {"model": Failed, "description": _WHY[status]} for status in (*statuses, 500, 503)
    }


def _add_writing_routes(app: FastAPI, service: Service) -> None:
    @app.post("/recommend", responses=_failures(400, 404, 413, 422))
    def recommend(asked: Annotated[Asked, Body()]) -> Recommended:
        """The best items after a history, or for a known user."""
        live = service.live()
        found = service.recommend(asked, live)
        catalogue = live.recommender.catalogue(asked.domain)
        items = [
            RecommendedItem(
                item=item, score=float(score), text=catalogue.texts(catalogue.row(item))
            )
            for item, score in zip(found.item_ids, found.scores, strict=True)
        ]
        return Recommended(bundle=live.recommender.version, domain=asked.domain, items=items)

    @app.post("/events", responses=_failures(400, 404, 413, 422))
    def events(sent: Events) -> EventsKept:
        """Append events of users. Where one is refused, none is applied."""
        live = service.live()
        done = service.append(sent.domain, sent.events, live)
        return EventsKept(
            bundle=live.recommender.version, applied=done.applied, duplicates=done.duplicates
        )

    @app.post("/items", responses=_failures(400, 404, 409, 413, 422))
    def items(sent: ItemAdded) -> ItemKept:
        """Add an item by its text; every replica knows it once this is answered."""
        live = service.live()
        added = service.add_item(NewItem(sent.domain, sent.item, sent.text), live)
        version = live.recommender.version
        return ItemKept(bundle=version, domain=sent.domain, item=sent.item, added=added)


def _add_reading_routes(app: FastAPI, service: Service) -> None:
    @app.get("/search", responses=_failures(404, 413, 422))
    def search(
        domain: Annotated[Id, Query()],
        text: Annotated[str, _QUERY],
        k: Annotated[int, Query(ge=1, le=limits.MOST_FOUND)] = 10,
    ) -> Found:
        """Items whose texts fit what is searched for."""
        found = service.search(domain, text, k, service.live())
        return Found(domain=domain, items=[FoundItem(item=item, text=t) for item, t in found])

    @app.get("/health", responses=_failures(413))
    def health() -> Health:
        """Whether the bundle answers and the store is there."""
        recommender = service.live().recommender
        sizes = {domain: recommender.catalogue(domain).n_items for domain in recommender.domains}
        return Health(status="ok", bundle=recommender.version, domains=sizes)

    @app.get(
        "/metrics",
        response_class=Response,
        responses=_failures(413)
        | {200: {"description": "Prometheus's text format", "content": {"text/plain": {}}}},
    )
    def metrics() -> Response:
        """Requests, latencies, states held and evicted, the bundle of each replica."""
        kind = "text/plain; version=0.0.4; charset=utf-8"
        return Response(service.exposition(), headers={"content-type": kind})
