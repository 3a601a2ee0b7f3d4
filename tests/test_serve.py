"""Requests and answers: the same as predict gives, whoever asks beside; what is refused, and how."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import Running, picture_of, picture_run, running, served, table_run

from zhixing.api import Run
from zhixing.cli import main
from zhixing.serve.app import Service
from zhixing.serve.settings import Settings, limits_of, tokens_of

ROW = {"size": 55.0, "kind": "house", "day": "2026-03-15"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, digits: dict[str, list[Any]]) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("serve")
    return {"homes": table_run(folder / "homes"), "digits": picture_run(folder / "digits", digits)}


@pytest.fixture(scope="module")
def server(runs: dict[str, Run]) -> Iterator[Running]:
    with running(*(served(name, run) for name, run in runs.items())) as one:
        yield one


def test_answers_are_those_of_predict(server: Running, runs: dict[str, Run]) -> None:
    rows = [ROW, ROW | {"size": 30, "kind": None}, ROW | {"kind": "castle", "day": "2025-12-31"}]
    reply = server.predict(rows, model="homes", probabilities=True)
    assert reply.status == 200
    expected = runs["homes"].predict(rows, probabilities=True).to_pylist()
    for got, row in zip(reply.json()["rows"], expected, strict=True):
        assert got["answer"]["dear"] == row["dear"]
        assert got["answer"]["price"] == pytest.approx(row["price"], rel=1e-5)
        assert got["probabilities"]["dear"] == pytest.approx(
            {name: row[f"dear_probability_{name}"] for name in ("true", "false")}, abs=2e-6
        )


def test_pictures_come_as_base64_or_as_files(server: Running, runs: dict[str, Run], digits: dict[str, Any]) -> None:
    pictures = digits["picture"][:5]
    reply = server.predict([{"picture": picture_of(one)} for one in pictures], model="digits")
    found = [row["answer"]["label"] for row in reply.json()["rows"]]
    assert found == runs["digits"].predict(np.stack(pictures))["label"].to_pylist()
    import base64

    content = base64.b64decode(picture_of(pictures[0])["base64"])
    parts = {"model": b"digits", "probabilities": b"true"}
    body = b"".join(
        b'--xx\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name.encode(), value)
        for name, value in parts.items()
    )
    body += b'--xx\r\nContent-Disposition: form-data; name="picture"; filename="/etc/passwd"\r\n\r\n' + content
    body += b"\r\n--xx--\r\n"
    reply = server.ask("POST", "/v1/predict", body, {"content-type": "multipart/form-data; boundary=xx"})
    assert reply.status == 200, reply.body
    row = reply.json()["rows"][0]
    assert row["answer"]["label"] == found[0]
    assert sum(row["probabilities"]["label"].values()) == pytest.approx(1, abs=1e-4)


def test_a_bad_row_fails_alone(server: Running) -> None:
    rows = [ROW, ROW | {"size": "wide"}, ROW | {"day": "soon"}, {"size": 1.0}, ROW | {"colour": 1}, 7, ROW]
    reply = server.predict(rows, model="homes")
    assert reply.status == 200
    found = reply.json()["rows"]
    assert [("answer" in row, row.get("error", {}).get("column")) for row in found] == [
        (True, None), (False, "size"), (False, "day"), (False, "kind"), (False, "colour"), (False, None), (True, None)
    ]  # fmt: skip
    assert found[0]["answer"]["price"] == pytest.approx(found[6]["answer"]["price"], rel=1e-5)
    assert server.predict(rows[1:3], model="homes").status == 422


def test_a_row_that_the_model_fails_on_fails_alone(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    lane = server.service.lanes["homes"]
    poison, whole = 666.0, lane.served.answer

    def answer(rows: Any, *, probabilities: bool) -> Any:
        if any(row.cells["size"] == poison for row in rows):
            raise RuntimeError("the model broke")
        return whole(rows, probabilities=probabilities)

    monkeypatch.setattr(lane.served, "answer", answer)
    rows = [ROW | {"size": size} for size in (1.0, 2.0, poison, 3.0, 4.0, 5.0)]
    found = server.predict(rows, model="homes").json()["rows"]
    assert ["error" in row for row in found] == [False, False, True, False, False, False]


@pytest.mark.parametrize(
    "cell",
    ["/etc/passwd", "https://example.com/a.png", {"path": "/etc/passwd"}, {"base64": "/etc"}, {"base64": "Zm9v"},
     {"base64": "!!!!"}, None, 3, [1]],
)  # fmt: skip
def test_no_path_or_address_is_opened(server: Running, cell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*given: Any, **named: Any) -> None:
        raise AssertionError(f"a file was opened: {given}")

    monkeypatch.setattr("zhixing.columns.picture.existing_file", opened)
    reply = server.predict([{"picture": cell}], model="digits")
    assert reply.status == 422
    assert reply.json()["rows"][0]["error"]["column"] == "picture"


def test_large_pictures_are_refused_by_their_head(runs: dict[str, Run]) -> None:
    with running(served("digits", runs["digits"], limits_of(["pixels=100"])), limits=limits_of(["pixels=100"])) as one:
        good, bad = (picture_of(np.zeros((side, side), np.uint8)) for side in (10, 11))
        found = one.predict([{"picture": good}, {"picture": bad}]).json()["rows"]
    assert "answer" in found[0]
    assert "more than 100" in found[1]["error"]["message"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400), (b"[]", 422), (b"{}", 422), (b'{"rows": []}', 422), (b'{"rows": 1}', 422), (b"\xff", 400),
        (b'{"rows": [NaN]}', 400), (b"[" * 100_000, 400), (b'{"rows": [{}], "modle": "homes"}', 422),
        (b'{"rows": [{}], "model": "hoems"}', 404), (b'{"rows": [{}], "model": ["homes"]}', 422),
        (b'{"rows": [{}]}', 422), (b'{"rows": [{}], "model": "homes", "probabilities": 1}', 422),
        (b'{"rows": [{}], "model": "homes", "explain": "guess"}', 422),
    ],
)  # fmt: skip
def test_bad_bodies_are_told_of(server: Running, body: bytes, status: int) -> None:
    reply = server.ask("POST", "/v1/predict", body)
    assert reply.status == status, reply.body
    assert reply.json()["error"]["message"]


def test_who_may_ask(server: Running) -> None:
    def status(**headers: str) -> int:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return server.ask("POST", "/v1/predict", {"model": "homes", "rows": [ROW]}, given).status

    here = f"127.0.0.1:{server.port}"
    assert status() == 200
    assert status(origin=f"http://{here}") == 200
    assert status(origin="http://evil.example") == 403
    assert status(origin="null") == 403
    assert status(sec_fetch_site="cross-site") == 403
    assert status(host="evil.example") == 403
    assert status(host=f"localhost:{server.port}") == 200
    assert status(content_encoding="gzip") == 415
    assert status(content_type="text/plain") == 415


def test_a_token_is_asked_for(runs: dict[str, Run], tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("a-long-enough-token\nand-another-long-token\n")
    with running(served("homes", runs["homes"]), tokens=tokens_of(file)) as one:
        for given, status in (("", 401), ("Bearer wrong", 401), ("Basic a-long-enough-token", 401),
                              ("Bearer a-long-enough-token", 200), ("bearer and-another-long-token", 200)):  # fmt: skip
            headers = {"authorization": given} if given else {}
            assert one.ask("POST", "/v1/predict", {"rows": [ROW]}, headers).status == status
        assert one.ask("GET", "/v1/models").status == one.ask("GET", "/metrics").status == 401
        assert one.ask("GET", "/health").status == one.ask("GET", "/ready").status == 200


def test_other_hosts_need_a_token(capsys: pytest.CaptureFixture[str], runs: dict[str, Run]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["serve", str(runs["homes"].path), "--host", "0.0.0.0"])
    assert left.value.code == 2
    assert "--token-file" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["serve", str(runs["homes"].path), "--limit", "bdoy=1"])
    assert "Did you mean 'body'" in capsys.readouterr().err


def test_models_say_what_they_take(server: Running) -> None:
    found = {one["id"]: one for one in server.ask("GET", "/v1/models").json()["models"]}
    assert set(found) == {"homes", "digits"}
    columns = {one["name"]: one for one in found["homes"]["inputs"]}
    assert columns["kind"]["classes"] == ["flat", "house", "hut"]
    assert columns["size"]["low"] < columns["size"]["example"] < columns["size"]["high"]
    assert columns["size"]["schema"]["anyOf"][0]["minimum"] < 0
    assert found["digits"]["inputs"][0]["size"] == [8, 8]
    assert found["digits"]["outputs"][0]["classes"] == [str(digit) for digit in range(10)]
    for one in found.values():  # each example is one that is answered
        row = {column["name"]: column["example"] for column in one["inputs"]}
        assert server.predict([row], model=one["id"]).status == 200


def test_explanations(server: Running, digits: dict[str, Any]) -> None:
    reply = server.predict([{"picture": picture_of(digits["picture"][0])}], model="digits", explain="occlusion")
    row = reply.json()["rows"][0]
    facts = row["explanation"]["label"]["rows"][0]
    assert facts["answer"] == row["answer"]["label"]
    shown = facts["maps"]["occlusion"]["columns"][0]["shown"]
    assert np.shape(shown["values"]) == (8, 8) or shown["picture"].startswith("data:image/png")
    assert server.predict([ROW], model="homes", explain=True).json()["rows"][0]["explanation"].keys() == {
        "price",
        "dear",
    }
    refused = server.predict([ROW], model="homes", explain="grad_cam")
    assert refused.status == 422, refused.body


def test_each_caller_gets_its_own_answer(server: Running, runs: dict[str, Run]) -> None:
    sizes = np.random.default_rng(1).uniform(20, 80, 160).round(3).tolist()
    rows = [ROW | {"size": size} for size in sizes]
    alone = [runs["homes"].predict([row])["price"][0].as_py() for row in rows]
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda row: server.predict([row], model="homes").json(), rows))
    together = [reply["rows"][0]["answer"]["price"] for reply in replies]
    assert together == pytest.approx(alone, rel=1e-5)
    assert len(set(together)) == len(set(sizes))


def test_openapi_is_made_of_the_columns(server: Running) -> None:
    document = server.ask("GET", "/openapi.json").json()
    content = document["paths"]["/v1/predict"]["post"]["requestBody"]["content"]
    homes, explained, digits, _ = content["application/json"]["schema"]["anyOf"]
    assert explained["properties"]["rows"]["maxItems"] == 16
    assert "grad_cam" not in str(explained)  # there is no map that it could read; in the pictures' network there is
    assert "grad_cam" in str(content)
    row = homes["properties"]["rows"]["items"]
    assert row["required"] == ["size", "kind", "day"]
    assert all(schema["examples"] for schema in row["properties"].values())
    assert digits["properties"]["rows"]["items"]["properties"]["picture"]["properties"]["base64"]["type"] == "string"


def test_metrics_count(server: Running) -> None:
    server.predict([ROW], model="homes")
    text = server.ask("GET", "/metrics").body.decode()
    assert 'zhixing_requests_total{path="/v1/predict",status="200"}' in text
    assert 'zhixing_batch_rows_count{model="homes"}' in text


def test_unknown_paths_and_methods(server: Running) -> None:
    assert server.ask("GET", "/nothing").status == 404
    reply = server.ask("GET", "/v1/predict")
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert reply.json()["error"]["message"]
    assert "default-src 'none'" in server.ask("GET", "/").headers["content-security-policy"]


def test_settings() -> None:
    assert Settings(host="::1").names >= {"[::1]", "localhost"}
    assert Settings().most_waiting == 128
    assert json.dumps(limits_of(["rows=8", "idle_time=0.5"]).__dict__)
    assert threading.active_count() < 50


def test_rows_of_a_model_that_looks_at_the_whole_batch_go_one_by_one(runs: dict[str, Run]) -> None:
    one, other = (served(name, run) for name, run in list(runs.items())[:2])
    one.alone = True
    service = Service([one, other], Settings(max_batch=8))
    assert [lane.size for lane in service.lanes.values()] == [1, 8]
    assert [lane.most for lane in service.lanes.values()] == [32, 32]
