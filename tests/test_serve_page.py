"""The page of the server in a headless Chromium: what is drawn, dropped, typed and recorded is answered, with why."""

from __future__ import annotations

import ast
import base64
import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile
from browser import REACHABLE, Page, in_a_browser, launched
from column_cells import fit
from PIL import Image
from serving import running, served, text_run

import zhixing as zx
from zhixing.columns import COLUMNS
from zhixing.data.source import open_source
from zhixing.serve.fields import Fields
from zhixing.serve.page import FILES

PAGE = Path(zx.__file__).parent / "serve" / "page"
RATE = 8000


# Runs ----------------------------------------------------------------------------------------------------------------


def digits(folder: Path) -> zx.Run:
    table, n = open_source("mnist"), 2500
    pictures = table["image"].slice(0, n).combine_chunks().to_numpy_ndarray()
    data = {"image": list(pictures), "label": table["label"].slice(0, n).to_pylist()}
    encoder = {"name": "cnn", "layers": [8, "pool", 16, "pool"], "dense": [32]}
    return zx.train(data, target="label", encoder=encoder, batch_size=50, lr=0.005, epochs=3, out=folder)


def emails(folder: Path) -> zx.Run:
    rng = np.random.default_rng(0)
    words = {"spam": "prize winner free money claim", "ham": "meeting report agenda budget minutes"}
    labels = rng.choice(list(words), 240).tolist()
    common = "please see the note about your order today thank you and best wishes"
    texts = [
        " ".join(rng.permutation([*rng.choice(words[label].split(), 4), *rng.choice(common.split(), 8)]))
        for label in labels
    ]
    recipe = {"inputs": {"email": {"type": "text", "encoder": {"name": "bag", "width": 16}}}, "outputs": {"label": {}}}
    return zx.train({"email": texts, "label": labels}, recipe=recipe, batch_size=16, lr=0.02, epochs=4, out=folder)


def homes(folder: Path) -> zx.Run:
    """Columns of every kind; the picture decides."""
    rng, n = np.random.default_rng(1), 96
    label = rng.choice(["bright", "dark"], n)
    photos = [
        rng.normal(190 if one == "bright" else 60, 25, (3, 24, 32)).clip(0, 255).astype(np.uint8) for one in label
    ]
    plain = {
        "size": rng.normal(80, 20, n).round(1).tolist(),
        "city": rng.choice(["Beijing", "Chengdu", "Shanghai"], n).tolist(),
        "built": [f"{rng.integers(1990, 2025)}-{rng.integers(1, 13):02}-{rng.integers(1, 28):02}" for _ in range(n)],
        "with": [[tag for tag in ("lift", "garden") if rng.random() < 0.5] for _ in range(n)],
        "warmth": [rng.normal(20, 3, 12).round(1).tolist() for _ in range(n)],
        "bought": [rng.choice(["tea", "milk", "bread"], rng.integers(1, 5)).tolist() for _ in range(n)],
        "note": rng.choice(["quiet and bright", "on a noisy street"], n).tolist(),
    }
    bag = {"name": "bag", "width": 8}
    inputs = {
        "size": {}, "city": {}, "built": {"type": "date"}, "with": {"type": "tags"},
        "warmth": {"type": "series", "encoder": {"name": "text_cnn", "channels": 4, "kernels": [3]}},
        "bought": {"type": "history", "encoder": bag}, "note": {"type": "text", "encoder": bag},
        "photo": {"type": "image", "encoder": {"name": "cnn", "layers": [6, "pool"], "dense": [8]}},
    }  # fmt: skip
    data = {**plain, "photo": photos, "light": label.tolist(), "price": [100 * size for size in plain["size"]]}
    recipe = {"inputs": inputs, "outputs": {"light": {}, "price": {}}}
    return zx.train(data, recipe=recipe, batch_size=16, lr=0.01, epochs=4, out=folder)


def tones(folder: Path) -> zx.Run:
    rng, clock = np.random.default_rng(2), np.arange(RATE // 4) / RATE
    labels = rng.choice(["low", "high"], 60).tolist()
    pitches = [(300 if label == "low" else 1500) * rng.uniform(0.9, 1.1) for label in labels]
    data = {"sound": [wav(0.4 * np.sin(2 * np.pi * pitch * clock)) for pitch in pitches], "pitch": labels}
    sound = {"type": "audio", "rate": RATE, "bands": 20, "encoder": "tcn"}
    recipe = {"inputs": {"sound": sound}, "outputs": {"pitch": {}}}
    return zx.train(data, recipe=recipe, batch_size=10, lr=0.01, epochs=3, out=folder)


def wav(samples: Any) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format="WAV")
    return buffer.getvalue()


RUNS: dict[str, Callable[[Path], zx.Run]] = {
    "digits": digits, "emails": emails, "homes": homes, "tones": tones, "tales": text_run,
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], zx.Run]:
    folder, made = tmp_path_factory.mktemp("runs"), dict[str, zx.Run]()

    def run(name: str) -> zx.Run:
        if name not in made:
            made[name] = RUNS[name](folder / name)
        return made[name]

    return run


# Servers and browsers ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def serving(trained: Callable[[str], zx.Run]) -> Iterator[Callable[..., str]]:
    """Serves runs on a port of its own; gives the address of the page."""
    with ExitStack() as stack:
        made: dict[Any, str] = {}

        def serve(*names: str, tokens: tuple[str, ...] = ()) -> str:
            if (names, tokens) not in made:
                runs = [served(name, trained(name)) for name in names]
                port = stack.enter_context(running(*runs, tokens=tokens)).port
                made[names, tokens] = f"http://127.0.0.1:{port}/"
            return made[names, tokens]

        yield serve


@pytest.fixture(scope="module")
def browsing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Page]]:
    """A window of a visitor who has not been here."""
    with ExitStack() as stack:
        drivers: list[Any] = []

        def browse(language: str = "en-GB", width: int = 1200, dark: bool = False) -> Page:
            if not drivers:
                drivers.append(stack.enter_context(launched(tmp_path_factory.mktemp("browser"))))
            page = Page(drivers[0])
            page.get_ready(language, width, dark)
            return page

        yield browse


SEVEN = [(0.3, 0.25), (0.5, 0.24), (0.7, 0.25), (0.62, 0.42), (0.53, 0.6), (0.46, 0.78)]


def picture(path: Path, shade: int = 200) -> Path:
    Image.new("RGB", (160, 120), (shade, shade, shade - 20)).save(path)
    return path


# What the page must do -----------------------------------------------------------------------------------------------


@in_a_browser
def test_a_drawn_seven_is_read_as_seven_with_its_heat_map(
    serving: Callable[..., str], browsing: Callable[..., Page], tmp_path: Path
) -> None:
    page = browsing()
    page.open(serving("digits"))
    page.draw(SEVEN)
    assert page.run(
        "const c = document.querySelector('canvas.pad').getContext('2d');return [...c.getImageData(3, 3, 1, 1).data]"
    ) == [0, 0, 0, 255]  # as the pictures were: on black
    status = page.ask()
    assert page.find(".result .value").text == "7"
    assert status.startswith("7 (")
    assert re.search(r"Answered in [\d.,]+ ms, [\d.,]+ ms with the way", status)
    chances = page.chances()
    assert next(iter(chances)) == "7"
    assert sorted(chances) == list("0123456789")

    heat = page.find("figure.heat img")
    page.until(lambda: page.run("return arguments[0].complete && arguments[0].naturalWidth", heat))
    assert page.run("return [arguments[0].naturalWidth, arguments[0].naturalHeight]", heat) == [28, 28]
    shown = Image.open(io.BytesIO(base64.b64decode(heat.get_attribute("src").partition(",")[2]))).convert("RGB")
    reds, _, blues = (np.asarray(part, int) for part in shown.split())
    coloured = np.abs(reds - blues) > 30
    drawn = np.asarray(Image.open(io.BytesIO(canvas(page))).convert("L"), int)
    ink = drawn.reshape(28, 10, 28, 10).mean((1, 3)) > 60
    assert coloured[ink].mean() > 3 * coloured[~ink].mean()  # the map lies over what was drawn
    assert re.search(r"Most important: .+ [+−]\d+%", heat.get_attribute("alt"))
    assert page.severe() == []

    (tmp_path / page.find("#saves a").get_attribute("download")).write_bytes(canvas(page))
    for row in from_programs(page, tmp_path):
        assert row["answer"] == {"label": "7"}
        assert row["explanation"]["label"]["rows"][0]["maps"]


def canvas(page: Page) -> bytes:
    uri = page.run("return document.querySelector('canvas.pad').toDataURL('image/png')")
    return base64.b64decode(uri.partition(",")[2])


def from_programs(page: Page, folder: Path) -> list[dict[str, Any]]:
    """What the programs that the page shows get for an answer, run as they stand."""
    curl = subprocess.run(["bash", "-c", page.find("#curl").text + " -s"], cwd=folder, capture_output=True, check=True)
    code = [sys.executable, "-c", page.find("#python").text]
    python = subprocess.run(code, cwd=folder, capture_output=True, check=True)
    return [json.loads(curl.stdout)["rows"][0], ast.literal_eval(python.stdout.decode())["rows"][0]]


@in_a_browser
def test_a_dropped_photo_among_numbers_and_choices(
    serving: Callable[..., str], browsing: Callable[..., Page], tmp_path: Path
) -> None:
    page = browsing()
    page.open(serving("homes", "emails"), "homes")
    page.find("#example").click()
    zone = page.field("photo").find_element("css selector", ".drop")
    page.drop(zone, picture(tmp_path / "dark.png", 50))
    page.until(lambda: page.field("photo").find_elements("css selector", ".shown img"))
    page.ask()
    assert page.find(".result .value").text == "dark"
    page.drop(page.field("note"), picture(tmp_path / "a picture.png"))  # not a text
    page.until(lambda: "not plain text" in page.field("note").text)
    page.drop(zone, picture(tmp_path / 'it\'s; "bright".png', 220))
    page.until(lambda: "it's" in page.field("photo").text)
    page.ask()
    light, price = page.all(".result")
    assert light.find_element("css selector", ".value").text == "bright"
    assert 1000 < float(price.find_element("css selector", ".value").text) < 20_000
    kinds = {"figure.heat img", "svg.curve", ".tokens", "td.sides"}
    assert all(
        light.find_elements("css selector", kind) for kind in kinds
    )  # picture, series, texts, numbers and choices
    for row in from_programs(page, tmp_path):
        assert row["answer"]["light"] == "bright"
        assert row["answer"]["price"] == pytest.approx(
            float(price.find_element("css selector", ".value").text), rel=1e-4
        )
    shares = light.find_elements("css selector", ".why table")[0].text
    assert all(name in shares for name in ("size", "city", "built", "with", "warmth", "bought", "note", "photo"))
    assert page.severe() == []


@in_a_browser
def test_an_email_is_typed_and_its_words_are_marked(serving: Callable[..., str], browsing: Callable[..., Page]) -> None:
    page = browsing(width=320)
    page.open(serving("homes", "emails"), "emails")
    text = "Please claim your free prize, winner.\nThank you and best wishes"
    page.find("textarea").send_keys(text)
    assert page.ask().startswith("spam (")
    tokens = page.find(".tokens")
    assert page.run("return arguments[0].textContent", tokens) == text
    strong = {one.text: one.get_attribute("class") for one in page.all("mark.strong")}
    assert strong
    assert set(strong) <= {"claim", "free", "prize", "winner"}
    assert all("for" in kind.split() for kind in strong.values())
    first = page.all("ol.top li")[0].text
    assert re.fullmatch(r"(claim|free|prize|winner) \(\+[\d.]+\)", first)
    sign = page.run("return getComputedStyle(arguments[0], '::before').content", page.find("mark.strong"))
    assert sign.startswith('"+"')
    assert page.run("return document.documentElement.scrollWidth") == 320  # nothing hangs out on a narrow phone
    assert page.severe() == []


@in_a_browser
def test_programs_say_any_text(serving: Callable[..., str], browsing: Callable[..., Page], tmp_path: Path) -> None:
    page = browsing()
    page.open(serving("homes", "emails"), "emails")
    text = 'It\'s a "prize" of $HOME `id` \\n 100% {free}\r\n\t<b>money</b> – 免费 🎁 \\'
    page.run("const t = document.querySelector('textarea'); t.value = arguments[0]", text)
    page.ask()
    shown = [line.text.split(" (")[0] for line in page.all("ol.top li")]
    for row in from_programs(page, tmp_path):
        found = row["explanation"]["label"]["rows"][0]["maps"]["integrated_gradients"]["columns"][0]["shown"]
        assert [word for word, _ in found["top"]] == shown
        assert "".join(piece for piece, _ in found["pieces"]) == page.run(
            "return document.querySelector('.tokens').textContent"
        )
    assert page.all("b") == [] or all(one.text != "money" for one in page.all("b"))  # text stays text


@in_a_browser
def test_what_came_last_is_sent(serving: Callable[..., str], browsing: Callable[..., Page], tmp_path: Path) -> None:
    page = browsing()
    page.open(serving("digits"))
    blank = canvas(page)
    page.draw([(0.5, 0.2), (0.5, 0.8)])
    one = canvas(page)
    page.draw(SEVEN)
    page.find(".field .row button").click()  # undo
    assert canvas(page) == one != blank
    page.drop(page.find(".drop"), picture(tmp_path / "grey.png"))
    page.until(lambda: page.find(".shown").is_displayed())
    assert canvas(page) == blank
    page.ask()
    assert page.find("#saves a").get_attribute("download") == "grey.png"
    page.draw(SEVEN)
    assert not page.find(".shown").is_displayed()
    page.find("#send").click()
    page.until(lambda: page.find("#saves a").get_attribute("download") == "drawing.png")
    page.find("#form button[type=reset]").click()
    assert canvas(page) == blank


@in_a_browser
def test_a_wrong_file_is_told_of_clearly(
    serving: Callable[..., str], browsing: Callable[..., Page], tmp_path: Path
) -> None:
    page = browsing()
    page.open(serving("digits"))
    zone, trouble = page.find(".drop"), page.find(".field .complaint")
    assert not trouble.is_displayed()
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "torn.png").write_bytes(picture(tmp_path / "whole.png").read_bytes()[:60])
    (tmp_path / "nothing.png").touch()
    for name, told in (
        ("notes.txt", "notes.txt is not a picture (text/plain). Choose a PNG"),
        ("torn.png", "torn.png cannot be read as a picture. It may be damaged."),
        ("nothing.png", "nothing.png is empty."),
    ):
        page.drop(zone, tmp_path / name)
        page.until(lambda told=told: trouble.text.startswith(told))  # type: ignore[misc]
    assert trouble.get_attribute("role") == "alert"
    entry = page.find(".field input[type=file]")
    assert entry.get_attribute("aria-invalid") == "true"
    assert trouble.get_attribute("id") in entry.get_attribute("aria-describedby").split()
    page.find("#send").click()  # and nothing of it is sent
    page.until(lambda: "draw or choose a picture" in trouble.text)
    assert page.run("return document.activeElement === arguments[0]", entry)
    assert page.all(".result") == []
    # What only the server can see stands beside the field as well, in its words.
    frames = tmp_path / "huge.png"
    Image.new("L", (6000, 6000)).save(frames)
    page.drop(zone, frames)
    page.until(lambda: "huge.png" in page.field("image").text)
    page.find("#send").click()
    page.until(lambda: "pixels" in trouble.text)
    assert "image" in page.find("#status").text


# Languages, keyboards, screen readers --------------------------------------------------------------------------------


@in_a_browser
def test_both_languages(serving: Callable[..., str], browsing: Callable[..., Page]) -> None:
    page = browsing("zh-CN")
    page.open(serving("homes", "emails"), "emails")
    assert page.run("return document.documentElement.lang") == "zh-CN"
    page.find("textarea").send_keys("free prize")
    assert "模型用时" in page.ask()
    shown = page.run(
        "const some = [...document.querySelectorAll('select, pre')];"
        "some.forEach((one) => { one.hidden = true }); const text = document.body.innerText;"
        "some.forEach((one) => { one.hidden = false }); return text"
    )  # no names of methods, no programs
    names = {
        "Zhixing",
        "English",
        "emails",
        "email",
        "label",
        "spam",
        "ham",
        "free",
        "prize",
        "curl",
        "Python",
        "logit",
    }
    assert set(re.findall("[A-Za-z]{2,}", shown)) <= names
    chinese = page.find("main").text
    page.find("#language").click()
    assert "Answered in" in page.find("#status").text
    assert not re.search("[\u4e00-\u9fff]", page.find("main").text)
    assert page.find("textarea").get_attribute("value") == "free prize"  # and nothing is lost by it
    page.driver.refresh()
    page.until(lambda: page.find("#title").text.startswith("homes"))
    assert page.run("return document.documentElement.lang") == "en"  # which is remembered
    assert page.find("#language").text == "中文"
    page.find("#language").click()
    assert page.find("#send").text in chinese


def test_every_sentence_is_there_in_both_languages() -> None:
    text = (PAGE / "words.js").read_text("utf-8")
    spelled = [
        dict(re.findall(r'(\w+): "((?:[^"\\]|\\.)*)"', part))
        for part in re.split("const (?:EN|ZH) = |export const WORDS", text)[1:3]
    ]
    english, chinese = spelled
    assert len(english) > 80
    assert english.keys() == chinese.keys()
    gaps = [{key: sorted(re.findall(r"\{\w+\}", said)) for key, said in one.items()} for one in spelled]
    assert gaps[0] == gaps[1]
    others = (
        "".join((PAGE / name).read_text("utf-8") for name in FILES if name != "words.js")
        + text.split("export const WORDS")[1]
    )
    built = {f"{form}_{part}" for form in ("chat", "complete") for part in ("words", "send")}
    built |= {f"{axis}{place}" for axis in "xy" for place in range(3)} | {
        key for key in english if key.startswith(("type_", "unit_"))
    }
    unused = [key for key in english if key not in built and not re.search(rf'"{key}"|\b{key}\b: \[', others)]
    assert unused == []
    assert {f"type_{kind}" for kind in COLUMNS} <= english.keys()


@in_a_browser
def test_the_keyboard_reaches_all_and_all_has_a_name(
    serving: Callable[..., str], browsing: Callable[..., Page]
) -> None:
    page = browsing()
    page.open(serving("homes", "emails"), "homes")
    page.find("#example").click()
    reached, there = page.tabbed(), page.run(REACHABLE)
    missed = [one.get_attribute("outerHTML")[:120] for one in there if one not in reached]
    assert missed == []
    order = [one for one in reached if one in there]
    assert order[0].get_attribute("textContent") == "Skip to the form"
    assert page.run(
        "return arguments[0].every((one, i, all) => !i || all[i - 1].compareDocumentPosition(one) & 4)", order
    )
    assert page.unnamed() == []
    names = [one.accessible_name for one in page.all(".field input, .field select, .field textarea")]
    for column in ("size", "city", "built", "warmth", "bought", "note", "photo"):
        assert any(column in name for name in names)
    outlines = page.run("document.getElementById('send').focus({ focusVisible: true });"
                        "return getComputedStyle(document.activeElement).outline")  # fmt: skip
    assert "3px" in outlines


@in_a_browser
def test_a_form_is_filled_in_by_keyboard_alone(serving: Callable[..., str], browsing: Callable[..., Page]) -> None:
    page = browsing(dark=True)
    page.open(serving("homes", "emails"), "emails")
    reached = [one for one in page.tabbed() if one.tag_name == "textarea"]
    page.run("arguments[0].focus()", reached[0])
    page.cdp("Input.insertText", text="the agenda of our budget meeting")
    for _ in range(4):  # past the file, the box and the method, to the button
        page.cdp("Input.dispatchKeyEvent", type="keyDown", key="Tab", code="Tab", windowsVirtualKeyCode=9)
    assert page.run("return document.activeElement.id") == "send"
    page.cdp("Input.dispatchKeyEvent", type="keyDown", key=" ", code="Space", windowsVirtualKeyCode=32, text=" ")
    page.cdp("Input.dispatchKeyEvent", type="keyUp", key=" ", code="Space", windowsVirtualKeyCode=32)
    page.until(lambda: page.all(".result"))
    status = page.find("#status")
    assert status.text.startswith("ham (")
    assert (status.get_attribute("role"), status.get_attribute("aria-live")) == ("status", "polite")
    assert page.unnamed() == []


def luminance(colour: tuple[float, ...]) -> float:
    """Relative luminance as WCAG 2 has it, of sRGB from 0 to 1."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_that_of_black_on_grey() -> None:
    assert contrast((0, 0, 0), (1, 1, 1)) == pytest.approx(21)
    assert contrast((119 / 255,) * 3, (1, 1, 1)) == pytest.approx(4.48, abs=0.01)  # #777777, as WCAG's examples have it


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(scheme: str) -> None:
    style = (PAGE / "page.css").read_text("utf-8")
    light, dark = [
        {name: tuple(int(value[i : i + 2], 16) / 255 for i in (0, 2, 4)) for name, value in found}
        for found in (
            re.findall(r"--([-\w]+): #([0-9a-f]{6})", block) for block in re.findall(r":root \{(.*?)\}", style, re.S)
        )
    ]
    colours = light if scheme == "light" else dark
    assert light.keys() == dark.keys()
    assert not re.findall(r"(?:color|background): *#", style)  # there are no others
    on = {
        "ink": ("paper", "wash", "for", "against", "bar"), "soft": ("paper", "wash"), "main": ("paper", "wash"),
        "on-main": ("main",), "trouble": ("paper", "trouble-wash"),
    }  # fmt: skip
    for text, grounds in on.items():
        for ground in grounds:
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for share in np.linspace(0, 1, 21):  # a word is coloured by as much as it counts
        for sign in ("for", "against"):
            mixed = tuple(share * a + (1 - share) * b for a, b in zip(colours[sign], colours["paper"], strict=True))
            assert contrast(colours["ink"], mixed) >= 4.5
    for edge in ("rule", "main"):  # edges of controls, and what has the focus
        assert contrast(colours[edge], colours["paper"]) >= 3


# What is served ------------------------------------------------------------------------------------------------------


def test_files_are_whole_and_need_nothing_from_outside() -> None:
    from fastapi import FastAPI
    from starlette.testclient import TestClient

    from zhixing.serve.page import POLICY, router

    assert set(FILES) == {path.name for path in PAGE.iterdir() if path.suffix in (".html", ".css", ".js")}
    app = FastAPI()
    app.include_router(router())
    with TestClient(app) as client:
        for name, media in FILES.items():
            found = client.get("/" if name == "page.html" else f"/page/{name}")
            assert (found.status_code, found.headers["content-type"]) == (200, media)
            assert found.headers["content-security-policy"] == POLICY
            assert found.text == (PAGE / name).read_text("utf-8")
            again = client.get(found.url.path, headers={"If-None-Match": found.headers["etag"]})
            assert (again.status_code, again.content) == (304, b"")
            outside = set(re.findall(r"(?:https?:)?//[\w.]+\.[a-z]{2,}[^\s\"']*", found.text))
            assert outside <= {"http://www.w3.org/2000/svg"}  # the name of a language, which nobody fetches
            for asked in re.findall(r'(?:from|src=|href=) ?"([^"#]+)"', found.text):
                assert asked == "data:," or asked.removeprefix("page/").removeprefix("./") in FILES
        assert client.get("/page/../app.py").status_code == 404
        assert client.get("/page/__init__.py").status_code == 404
        assert "/" not in app.openapi()["paths"]
    html = (PAGE / "page.html").read_text("utf-8")
    assert not re.search(r"<style|style=|\son\w+=|<script(?! type=\"module\" src)", html)  # which the policy forbids


FILLED = """
const [url, inputs, done] = arguments;
import(url + "page/fields.js").then(async ({ field }) => {
  const cells = {};
  for (const input of inputs) {
    const one = field(input);
    document.getElementById("fields").append(one.node);
    if (one.sample) one.show(one.sample);
    cells[input.name] = one.sample ? await one.read() : null;
  }
  done(cells);
}).catch((error) => done(String(error)));
"""


@in_a_browser
def test_there_is_a_field_for_every_type_of_column(serving: Callable[..., str], browsing: Callable[..., Page]) -> None:
    """An example, shown in the field and read from it again, is the same cell, and one that the server takes."""
    fitted = {
        "category": ["red", "blue"], "date": ["2026-01-31", "2025-07-01"], "history": [["tea", "a, b"], ["a, b"]],
        "labels": [["one", "two", "one"], ["two"]], "number": [1.5, 2.5], "series": [[1.5, 2.0, 3.0], [2.0, 4.5]],
        "tags": [["a", "b"], ["b"]], "text": ["a text, of words", "another"],
    }  # fmt: skip
    assert set(fitted) | {"audio", "image"} == set(COLUMNS)  # which are files: they are dropped in other tests
    columns = {kind: fit(COLUMNS[kind](), pa.array(cells)) for kind, cells in fitted.items()}
    columns["times"] = fit(COLUMNS["date"](), pa.array(["2026-01-31 12:30", "2025-07-01 06:00"]))
    columns["numbers"] = fit(COLUMNS["number"](), pa.array([[1.5, -2.0], [2.5, 4.0]]))
    columns["steps"] = fit(COLUMNS["series"](), pa.array([[[1.5, 2.0], [3.0, 4.0]], [[2.0, 4.5]]]))
    columns["words"] = fit(COLUMNS["text"](), pa.array([["some", "words"], ["others"]]))
    columns["many"] = fit(COLUMNS["category"](), pa.array([f"class {i}" for i in range(400)]))
    fields = Fields(columns, 10_000)
    page = browsing()
    page.open(serving("homes", "emails"), "emails")
    unheard = {"name": "unheard-of", "type": "colour", "schema": {"type": "string"}, "example": "teal"}
    address, described = page.driver.current_url, [*fields.describe(), unheard]
    filled = page.driver.execute_async_script(FILLED, address, described)
    assert isinstance(filled, dict), filled
    assert filled.pop("unheard-of") == "teal"
    expected = fields.example() | {"times": filled["times"]}
    assert filled == expected
    assert filled["times"].replace("T", " ") == fields.example()["times"][:16]
    assert fields.read(filled).keys() == columns.keys()
    assert page.unnamed() == []


@in_a_browser
def test_a_server_with_a_token_asks_for_it(serving: Callable[..., str], browsing: Callable[..., Page]) -> None:
    page, token = browsing(), "a-token-of-many-letters"
    page.open(serving("emails", tokens=(token,)))
    assert "access token" in page.find("#trouble").text
    for given in ("a-wrong-one-of-many-letters", token):
        page.find("#token").clear()
        page.find("#token").send_keys(given)
        page.find("#access button").click()
        page.until(lambda given=given: page.find("#fields").is_displayed() == (given == token))  # type: ignore[misc]
    page.find("textarea").send_keys("free money")
    assert page.ask().startswith("spam")
    programs = page.find("#curl").text + page.find("#python").text
    assert "$TOKEN" in programs
    assert token not in programs  # which people paste into reports
    page.driver.refresh()
    page.until(lambda: page.find("#fields").is_displayed())  # it is kept as long as the window


@in_a_browser
def test_a_server_that_is_gone_is_told_of(serving: Callable[..., str], browsing: Callable[..., Page]) -> None:
    page = browsing()
    page.open(serving("digits"))
    page.draw(SEVEN)
    page.cdp("Network.enable")
    page.cdp("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1)
    try:
        page.find("#send").click()
        page.until(lambda: "cannot be reached" in page.find("#answer").text)
    finally:
        page.cdp(
            "Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )
    assert page.ask().startswith("7")


# Sounds and texts that are written -----------------------------------------------------------------------------------


@pytest.mark.slow
@in_a_browser
def test_sounds_are_dropped_and_recorded(
    serving: Callable[..., str], browsing: Callable[..., Page], tmp_path: Path
) -> None:
    page = browsing(width=360)
    page.open(serving("tones"))
    zone = page.find(".drop")
    page.drop(zone, picture(tmp_path / "no sound.png"))
    page.until(lambda: "is not a sound (image/png)" in page.find(".field .complaint").text)
    clock = np.arange(RATE // 4) / RATE
    for name, pitch in (("low", 320), ("high", 1450)):
        path = tmp_path / f"{name}.wav"
        path.write_bytes(wav(0.4 * np.sin(2 * np.pi * pitch * clock)))
        page.drop(zone, path)
        page.until(lambda name=name: page.find(".shown").text.endswith(f"{name}.wav"))  # type: ignore[misc]
        assert page.ask().startswith(name)
        page.until(lambda: page.find(".bands img").get_attribute("naturalWidth") != "0")
        page.find("#form button[type=reset]").click()
    record = page.find(".field button")
    record.click()  # the browser's own test sound: beeps
    page.until(lambda: record.text == "Stop recording")
    time.sleep(1.3)
    record.click()
    page.until(lambda: page.find(".shown").text.endswith("recording.wav"))
    page.ask()
    assert page.find(".result .value").text in ("low", "high")
    assert page.unnamed() == []
    assert page.severe() == []


@pytest.mark.slow
@in_a_browser
def test_a_text_is_written_piece_by_piece(serving: Callable[..., str], browsing: Callable[..., Page]) -> None:
    page = browsing()
    page.open(serving("tales"))
    assert not page.find("#predict").is_displayed()
    page.run("document.querySelector('#talk details').open = true")
    page.find("#most").clear()
    page.find("#most").send_keys("6")
    page.find("#words").send_keys("the cat", "\ue007")  # Enter
    page.until(lambda: page.find("#talk-status").text.startswith("Written in"))
    said = [one.text for one in page.all(".turn")]
    assert said[0] == "You\nthe cat"
    assert said[1].startswith("The model\n")
    assert page.find("#log").get_attribute("role") == "log"
    assert "/v1/chat/completions" in page.find("#curl").text
    done = subprocess.run(["bash", "-c", page.find("#curl").text + " -s"], capture_output=True, check=True)
    assert json.loads(done.stdout)["choices"][0]["message"]["role"] == "assistant"
    page.run(
        "const way = document.getElementById('way'); way.value = 'complete'; way.dispatchEvent(new Event('change'))"
    )
    page.find("#words").send_keys("the dog")
    page.find("#speak").click()
    page.until(lambda: page.find("#talk-status").text.startswith("Written in"))
    assert page.all(".turn")[1].text.startswith("The model\nthe dog")  # whole, with its beginning
    assert page.unnamed() == []
    assert page.severe() == []
