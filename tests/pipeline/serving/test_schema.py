"""Schemathesis against a listening server and its own schema: it finds nothing.

Once with the schema as it is, whose generated names are hardly ever known, and once with one that
knows the names of the bundle, so that more than the refusals is reached.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from in_process_server import Server, listening, wanted

from pipeline.serving.desk import Desk
from pipeline.serving.memory_store import MemoryStore

EXAMPLES = 25  # of each route, beside those at the bounds of every field
USERS = ("anna", "ben")


@pytest.fixture(scope="module")
def replica(bundle, recommender):
    replica = Server(Desk(wanted(bundle)), MemoryStore(1 << 24, 3_600)).replica()
    events = [
        {"user": user, "item": item}
        for user in USERS
        for item in recommender.catalogue("books").ids(range(3))
    ]
    assert replica.post("/events", domain="books", events=events).status_code == 200
    return replica


def with_known_names(schema: dict, items: list[str]) -> dict:
    """The schema, with requests that name the domains, users and items of the bundle."""
    shapes, items_known = schema["components"]["schemas"], {"type": "string", "enum": items}
    domains = {"type": "string", "enum": ["books"]}
    for name in ("HistoryAsked", "UserAsked", "Events", "ItemAdded"):
        shapes[name]["properties"]["domain"] = domains
    shapes["UserAsked"]["properties"]["user"] = {"type": "string", "enum": list(USERS)}
    shapes["HistoryAsked"]["properties"]["history"]["items"] = items_known
    shapes["Event"]["properties"]["item"] = items_known
    for parameter in schema["paths"]["/search"]["get"]["parameters"]:
        if parameter["name"] == "domain":
            parameter["schema"] = domains
    return schema


def run_schemathesis(schema: str, address: str, folder: Path, *options: str) -> str:
    program = str(Path(sys.executable).with_name("schemathesis"))
    command = [
        *(program, "run", schema, "--url", address, "--checks", "all"),
        *("--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES)),
        *("--generation-deterministic", "--warnings", "off", "--no-color", *options),
    ]
    done = subprocess.run(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("names", ["any", "known"])
def test_schemathesis_finds_nothing(replica, recommender, tmp_path, names):
    own = replica.client.get("/openapi.json").json()
    items = recommender.catalogue("books").ids(range(8))
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(own if names == "any" else with_known_names(own, items)))
    before = answered(replica)
    with listening(replica.service) as address:
        # Other names than the known ones are valid too, so that they need not be refused.
        options = () if names == "any" else ("--exclude-checks", "negative_data_rejection")
        printed = run_schemathesis(str(file), address, tmp_path, *options)
    assert "6 selected / 6 total" in re.sub(r"\s+", " ", printed), printed
    answers = {key: count - before.get(key, 0) for key, count in answered(replica).items()}
    routes = ("/recommend", "/events", "/items", "/search")
    assert all(answers[route, "422"] > 10 for route in routes), answers
    if names == "known":
        assert all(answers[route, "200"] > 10 for route in routes), answers


def answered(replica) -> dict[tuple[str, str], float]:
    """How many answers there were, by route and status."""
    rows = re.findall(
        r'hydrarec_requests_total\{.*?route="(.*?)",status="(.*?)"\} (\S+)',
        replica.client.get("/metrics").text,
    )
    return {(route, status): float(count) for route, status, count in rows}
