"""Requests that are made up from the server's own OpenAPI document: none may end it, or meet a fault of ours."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from serving import Running, picture_of, picture_run, running, served, table_run, text_run

from zhixing.serve.settings import limits_of

schemathesis = pytest.importorskip("schemathesis")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
EVERYTHING = ["/v1/predict", "/v1/models", "/v1/completions", "/v1/chat/completions", "/health", "/ready", "/metrics"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, digits: dict[str, list[Any]]) -> Iterator[Running]:
    folder, limits = tmp_path_factory.mktemp("fuzz"), limits_of(["tokens=4"])
    runs = {"homes": table_run(folder / "homes"), "digits": picture_run(folder / "digits", digits)}
    runs["cats"] = text_run(folder / "cats", length=2048)  # a window that no made-up text is too long for
    pictures = [picture_of(array)["base64"] for array in digits["picture"][:3]]
    schemathesis.openapi.format("byte", st.sampled_from(pictures))
    schemathesis.openapi.format("binary", st.sampled_from([base64.b64decode(one) for one in pictures]))
    with running(*(served(name, run, limits) for name, run in runs.items()), limits=limits) as one:
        yield one


def cases(server: Running, path: str, count: int) -> None:
    """As many cases that the schema allows, and, of what has a body, as many that it does not."""
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")
    for found in schema.include(path=path).get_all_operations():
        operation = found.ok()
        run(operation.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE), count)
        if operation.method.upper() == "POST":
            wrong = operation.as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE)
            # In a form all is text: what is no number there is a good word.
            run(wrong.filter(lambda case: case.media_type == "application/json"), count)


def run(strategy: Any, count: int) -> None:
    @settings(
        max_examples=count, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(case=strategy)
    def check(case: Any) -> None:
        case.call_and_validate()

    check()


@pytest.mark.parametrize("path", EVERYTHING)
def test_a_thousand_cases_meet_no_fault(server: Running, path: str) -> None:
    """All checks of schemathesis: no 5xx, answers and statuses as documented, what the schema allows is taken and what
    it does not is refused."""
    cases(server, path, 1000)
