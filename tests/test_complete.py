"""What a recipe leaves open is inferred; what it says of every column reaches those that it fits."""

from __future__ import annotations

from typing import Any

import pytest

from zhixing.api import assemble
from zhixing.data.source import open_source
from zhixing.data.table import Table
from zhixing.errors import RecipeError
from zhixing.verbs.complete import complete

EVERY_TEXT = {"type": "text", "length": 40, "encoder": {"name": "gru", "width": 16}}


@pytest.fixture(scope="module")
def pairs() -> Table:
    rows = range(40)
    return open_source(
        {
            "en": [f"the cat number {row} sat on mat {row}" for row in rows],
            "fr": [f"le chat numéro {row} sur le tapis {row}" for row in rows],
            "size": [float(row) / 7 for row in rows],
        }
    )


def test_settings_of_every_column_reach_those_that_they_fit(pairs: Table) -> None:
    raw = assemble({"inputs": {"*": EVERY_TEXT}, "outputs": {"*": {"type": "text", "length": 30}}}, target="fr")
    done = complete(raw, pairs, source="pairs").raw
    assert done["inputs"]["en"] == EVERY_TEXT
    assert done["inputs"]["size"] == {"type": "number"}
    assert done["outputs"] == {"fr": {"type": "text", "length": 30}}


@pytest.mark.parametrize(
    ("own", "want"),
    [
        ({"length": 9}, {**EVERY_TEXT, "length": 9}),
        ({"encoder": {"width": 8}}, {**EVERY_TEXT, "encoder": {"name": "gru", "width": 8}}),
        ({"encoder": {"name": "lstm"}}, {**EVERY_TEXT, "encoder": {"name": "lstm"}}),
        ("category", {"type": "category"}),
        (None, EVERY_TEXT),
    ],
)
def test_a_columns_own_settings_come_first(pairs: Table, own: Any, want: dict[str, Any]) -> None:
    raw = {"inputs": {"*": EVERY_TEXT, "en": own}, "outputs": {"size": "number"}}
    done = complete(raw, pairs, source="pairs").raw
    assert done["inputs"] == {"en": want}


def test_settings_of_one_column_do_not_shut_out_the_others(pairs: Table) -> None:
    raw = assemble({"inputs": {"*": EVERY_TEXT}}, target="fr", settings=["inputs.en.length=7"])
    done = complete(raw, pairs, source="pairs").raw
    assert set(done["inputs"]) == {"en", "size"}
    assert done["inputs"]["en"]["length"] == 7


@pytest.mark.parametrize(
    ("every", "told"),
    [
        ({"length": 4}, r"inputs\.\*: a type has to be given"),
        ({"type": "text", "lenght": 4}, r"inputs\.\*\.lenght: there is no such setting.*length"),
        ({"type": "txt"}, r"inputs\.\*: 'txt' is not known.*text"),
        (3, r"inputs\.\*: a type has to be given"),
    ],
)
def test_what_is_wrong_with_settings_of_every_column_is_told(pairs: Table, every: Any, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        complete({"inputs": {"*": every}, "outputs": {"fr": "text"}}, pairs, source="pairs")
