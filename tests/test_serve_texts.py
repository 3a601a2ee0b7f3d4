"""Texts in the OpenAI forms, with the client that others use, whole and as they come."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from serving import Running, running, served, text_run

from zhixing.api import Run
from zhixing.verbs.chat import Chat
from zhixing.verbs.generate import Plan, Writer

openai = pytest.importorskip("openai")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return text_run(tmp_path_factory.mktemp("texts") / "cats")


@pytest.fixture(scope="module")
def server(run: Run) -> Iterator[Running]:
    with running(served("cats", run)) as one:
        yield one


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", max_retries=0) as one:
        yield one


def test_completions_are_those_of_generate(client: Any, run: Run) -> None:
    found = client.completions.create(model="cats", prompt="the cat", max_tokens=12, temperature=1.0, seed=3)
    assert [choice.text for choice in found.choices] == run.generate("the cat", most=12, temperature=1.0, seed=3)
    assert found.choices[0].finish_reason == "length"
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (7, 12)
    several = client.completions.create(model="cats", prompt=["a dog", "the"], max_tokens=5)
    assert [choice.text for choice in several.choices] == [run.generate(one, most=5)[0] for one in ("a dog", "the")]


def test_streams_are_the_same_piece_by_piece(client: Any) -> None:
    asked = {"model": "cats", "prompt": "the cat", "max_tokens": 12, "temperature": 1.0, "seed": 3}
    whole = client.completions.create(**asked)
    parts = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    assert "".join(part.choices[0].text for part in parts[:-1]) == whole.choices[0].text
    assert len(parts) > 5
    assert parts[-2].choices[0].finish_reason == "length"
    assert parts[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_conversations(client: Any, run: Run) -> None:
    talk = Chat(Writer(run.settings, run.fitted, run.model, run.device), system="be")
    expected = "".join(piece.text for piece in talk.say("hi", Plan({"most": 8})))
    asked = {"model": "cats", "messages": [{"role": "system", "content": "be"}, {"role": "user", "content": "hi"}]}
    found = client.chat.completions.create(**asked, max_tokens=8)
    assert found.choices[0].message.content == expected
    parts = list(client.chat.completions.create(**asked, max_tokens=8, stream=True))
    assert "".join(part.choices[0].delta.content or "" for part in parts) == expected
    assert parts[0].choices[0].delta.role == "assistant"


def test_stop_strings_end_a_text(client: Any) -> None:
    asked = {"model": "cats", "prompt": "the cat", "max_tokens": 30, "temperature": 1.0, "seed": 5}
    whole = client.completions.create(**asked).choices[0].text
    mark = whole[6:8]
    found = client.completions.create(**asked, stop=[mark]).choices[0]
    assert found.text == whole[: whole.index(mark)]
    assert found.finish_reason == "stop"


def test_many_texts_at_once_do_not_mix(client: Any) -> None:
    def one(seed: int) -> str:
        found = client.completions.create(model="cats", prompt="the", max_tokens=10, temperature=1.0, seed=seed)
        return str(found.choices[0].text)

    alone = [one(seed) for seed in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(8))) == alone
    assert len(set(alone)) > 1


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"prompt": 3}, 422), ({"prompt": []}, 422), ({"max_tokens": 0}, 422), ({"temperature": -1}, 422),
        ({"n": 2}, 422), ({"n": True}, 422), ({"stop": [""]}, 422), ({"model": "dogs"}, 404),
        ({"prompt": "x" * 5000}, 422), ({"logprobs": 3}, 422), ({"echo": True}, 422),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused(server: Running, asked: dict[str, Any], status: int) -> None:
    for stream in (False, True):
        body = {"model": "cats", "prompt": "the", "max_tokens": 3, "stream": stream} | asked
        reply = server.ask("POST", "/v1/completions", body)
        assert reply.status == status, reply.body
        assert reply.json()["error"]["message"]


@pytest.mark.parametrize(
    "messages",
    [[], [{"role": "user"}], [{"role": "robot", "content": "a"}],
     [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://example.com"}}]}],
     [{"role": "user", "content": "x" * 5000}]],
)  # fmt: skip
def test_conversations_that_cannot_go_on_are_refused(server: Running, messages: Any) -> None:
    reply = server.ask("POST", "/v1/chat/completions", {"model": "cats", "messages": messages})
    assert reply.status == 422, reply.body


def test_the_client_sees_the_models_and_the_errors(client: Any, server: Running) -> None:
    assert [one.id for one in client.models.list()] == ["cats"]
    with pytest.raises(openai.NotFoundError, match="there is no model"):
        client.completions.create(model="dogs", prompt="a")
    found = server.ask("GET", "/v1/models").json()["models"][0]
    assert found["generates"]
    assert found["chats"]
    assert server.predict([{"text": "the cat"}]).json()["rows"][0]["answer"]["text"]


def test_a_text_ends_when_its_reader_leaves(server: Running) -> None:
    import http.client
    import json
    import time

    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    body = {"model": "cats", "prompt": "the", "max_tokens": 60, "temperature": 1.5, "stream": True}
    connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
    assert connection.getresponse().readline().startswith(b"data: ")
    connection.close()
    deadline = time.monotonic() + 10
    while server.service.streams.held and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not server.service.streams.held
