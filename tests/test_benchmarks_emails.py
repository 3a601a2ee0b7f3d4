"""What the bench of e-mails takes for the text that a person reads."""

from __future__ import annotations

import base64

import pytest

from benchmarks.fine_tune import as_it_came, as_read

HEAD = "Received: from somewhere\nSubject: Hello\n  you\n"
PAGE = "<html><style>p {color: red}</style><p>Buy&nbsp;it&#33;</p><script>run()</script><b>now</b></html>"


def typed(kind: str, body: str, more: str = "") -> str:
    return f"{HEAD}Content-Type: {kind}\n{more}\n{body}"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (f"{HEAD}\nplain\n\n text", "Hello you\nplain text"),
        (typed("text/html", PAGE), "Hello you\nBuy it! now"),
        (typed("text/plain", PAGE), "Hello you\nBuy it! now"),
        (typed("text/plain; charset=none-such", "caf=E9", "Content-Transfer-Encoding: quoted-printable\n"),
         "Hello you\ncafé"),
        (typed("text/html", base64.b64encode(PAGE.encode()).decode(), "Content-Transfer-Encoding: BASE64\n"),
         "Hello you\nBuy it! now"),
        (typed("multipart/alternative; boundary=X",
               f"--X\nContent-Type: text/plain\n\nwords\n--X\nContent-Type: text/html\n\n{PAGE}\n--X--\n"),
         "Hello you\nwords"),
        (typed("multipart/mixed; boundary=X",
               f"--X\nContent-Type: image/png\n\nAAAA\n--X\nContent-Type: text/html\n\n{PAGE}\n--X--\n"),
         "Hello you\nBuy it! now"),
        ("no head at all", "\nno head at all"),
    ],
)  # fmt: skip
def test_the_text_that_is_read_has_no_markup(message: str, expected: str) -> None:
    assert as_read(message) == expected


def test_raw_bodies_keep_it() -> None:
    assert as_it_came(typed("text/html", PAGE)) == f"Hello you\n{PAGE}"
