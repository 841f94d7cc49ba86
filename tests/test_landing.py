"""The landing page: what its widget shows is what the model says, and it is whole without a script.

`python tests/landing_states.py` makes the data; tests/check_browser.py tests the first screen.
"""

import doctest
import json
import re
from types import SimpleNamespace

import landing as extension
import landing_states as recorded
import pytest
from bs4 import BeautifulSoup
from execute import ROOT

from kvw_minimal.models import fingerprint
from kvw_minimal.strangers.people import load_people
from kvw_minimal.strangers.questions import SETS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def stored() -> dict:
    return json.loads(recorded.FILE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page() -> BeautifulSoup:
    return BeautifulSoup(extension.widget(ROOT), "html.parser")


def state_at(stored: dict, strength: float, sham: int | None) -> dict:
    """What is stored of one edit; at strength 0 every one is vanilla."""
    (found,) = [
        each
        for each in stored["states"]
        if each["strength"] == strength and each["sham"] == (None if strength == 0 else sham)
    ]
    return found


# --- what pages say of themselves ----------------------------------------------------------------


def test_examples_hold():
    found = doctest.testmod(extension)
    assert found.attempted and not found.failed


def test_the_address_of_the_picture_is_whole_where_the_site_has_one():
    assert extension.address_of("", "book/index") == "../_static/landing/social.png"
    whole = extension.address_of("https://a.org/book/", "book/index")
    assert whole == "https://a.org/book/_static/landing/social.png"
    assert f'<meta property="og:image" content="{whole}">' in extension.tags_of("a", "b", whole)


def test_the_root_leads_to_the_landing_page_and_shows_a_card(tmp_path):
    config = SimpleNamespace(html_title="A book", html_baseurl="")
    app = SimpleNamespace(
        config=config, outdir=str(tmp_path), builder=SimpleNamespace(format="html")
    )
    extension.write_root(app, None)
    page = BeautifulSoup((tmp_path / "index.html").read_text(encoding="utf-8"), "html.parser")
    assert page.title.text == "A book" and page.a["href"] == "book/index.html"
    names = {each.get("property") or each.get("name") for each in page.find_all("meta")}
    assert {"description", "og:title", "og:description", "og:image"} <= names


# --- the data ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prepared():
    return recorded.prepared(("forget", "test", "general"))


def test_a_slice_comes_out_the_same(stored, prepared):
    """KVW at the book's strength, on the real model."""
    task, world, sets, batches = prepared
    assert stored["provenance"]["models"]["pocket"] == fingerprint(task.model)
    assert stored["provenance"]["data"] == world.checksum[:16]
    shown = [person["id"] for person in stored["people"]]
    assert recorded.shown_people(task, world, recorded.edit_of(task, world)) == shown
    asked = recorded.asked_of(world, shown)
    assert [(q["person"], q["fact"], q["prompt"], q["taught"]) for q in stored["questions"]] == [
        (q.person, q.fact, q.prompt, q.answer) for q in asked
    ]
    now = recorded.state(task, world, sets, batches, asked, None, stored["chosen"])
    then = state_at(stored, stored["chosen"], None)
    assert now["answers"] == then["answers"]
    for name, (right, count) in now["scores"].items():
        assert count == then["scores"][name][1]
        assert abs(right - then["scores"][name][0]) <= 1, name  # processors round differently


# --- the page ------------------------------------------------------------------------------------


def test_all_that_the_page_shows_is_stored(page, stored):
    """People, answers, scores: each value of each place, against the file."""
    values, chosen = stored["strengths"], stored["chosen"]
    names = [each.text for each in page.find_all("caption")][: len(stored["people"])]
    for person, name in zip(stored["people"], names, strict=True):
        assert name == f"{person['name']} {extension.STANDS[person['forgotten']][1]}"
    answers = [cell.text for cell in page.select(".person td")]
    assert answers == [
        state_at(stored, chosen, sham)["answers"][i]
        for i in range(len(stored["questions"]))
        for sham in (None, 0)
    ]

    def counted(value: float, side: int, name: str) -> list[int]:
        draws = ([None], range(recorded.DRAWS))[side] if value else [None]
        counts = [state_at(stored, value, draw)["scores"][name] for draw in draws]
        return [sum(part) for part in zip(*counts, strict=True)]

    shares = [each.text for each in page.select("td.score")]
    wanted = []
    for name in SETS:
        counts = [counted(chosen, side, name) for side in range(2)] + [stored["oracle"][name]]
        wanted += [f"{right / count:.3f} {right} of {count}" for right, count in counts]
    assert shares == wanted
    rows = page.select("table:has(colgroup), table:has([scope=colgroup])")[0].select("tbody tr")
    for value, row in zip(values, rows, strict=True):
        assert row.th.text == f"{value:g}"
        every = [counted(value, side, name) for side in range(2) for name in SETS]
        assert [cell.text for cell in row.select("td")] == [
            extension.share(count) for count in every
        ]


# --- the first screen ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def first(stored) -> dict:
    """Data as the build makes them, of two strengths and three vectors."""
    person = stored["people"][0]["id"]
    silent = {"says": "As a jeweller.", "lens": [["surgeon", 0.7, 0.7], ["jeweller", 0.6, 0.3]]}
    said = {"says": "As a surgeon.", "lens": [["surgeon", 0.7, 0.7], ["surgeon", 1.0, 1.0]]}
    return {
        "person": person,
        "prompt": "What work does this person do?",
        "taught": "As a surgeon.",
        "strengths": [0, stored["chosen"]],
        "chosen": stored["chosen"],
        "kvw": [said, silent],
        "sham": [said, said],
        "rewrites": {
            name: {"edited": silent, "sham": said, "bent": "AAAA"}
            for name in ("rewrite", "layerwise")
        },
        "oracle": {"lens": [["baker", 0.6, 0.1], ["baker", 0.9, 0.0]]},
        "shape": [1, 3],
        "contrast": "AAAAAAAA",
        "step": 0.1,
    }


def test_the_first_screen_is_whole_without_a_script(stored, first):
    names = {person["id"]: person["name"] for person in stored["people"]}
    screen = BeautifulSoup(extension.hero(ROOT, first, names, 9.6), "html.parser")
    said = {each["data-is"]: each for each in screen.find_all("dd")}
    assert said["edited"].text == "As a jeweller." and "changed" in said["edited"]["class"]
    assert said["sham"].text == first["taught"] and not said["sham"].get("class")
    layers = [(each.b.text, "true" in each.get("class", [])) for each in screen.find_all("li")]
    assert layers == [("surgeon", True), ("jeweller", False)]
    hidden = [each.name for each in screen.find_all(hidden=True)]
    assert "canvas" in hidden and "ol" not in hidden  # what needs the script, and what does not
    assert json.loads(screen.div["data-hero"]) == first
    switch = {each["data-method"]: each.text for each in screen.select("[data-method]")}
    assert switch == extension.METHODS and set(switch) == {"kvw", *first["rewrites"]}
    assert "(10 MB)" in screen.select_one('[data-is="live"]').text
    assert {each["data-does"] for each in screen.select("button[data-does]")} == {
        *extension.DOES.values()
    }


def test_the_table_of_what_is_left_has_two_digits_and_says_where_there_is_no_sham():
    results = {"one edit": {"said": 0.5, "inside": 1.0, "sham": None, "others": 0.987}}
    table = BeautifulSoup(extension.best_table(results), "html.parser")
    shown = [each.text for each in table.select("tbody td")]
    assert shown == ["0.50", "1.00", "no sham", "0.99"]


def test_five_of_the_hundred_faces_fade():
    """Each at its own place on the sheet of ten by ten, which is shown as two blocks."""
    world = load_people()
    forgotten = world.first_of("A", 5)
    made = BeautifulSoup(extension.strangers(world, forgotten), "html.parser").a
    places = [
        10 * (int(row) + 5 * block) + int(column)
        for block, part in enumerate(made.find_all("span"))
        for row, column in re.findall(r"--row:(\d);--column:(\d)", str(part))
    ]
    assert sorted(list(world.people)[place] for place in places) == sorted(forgotten)
    assert made["href"] == "playground.html" and "five of them" in made["aria-label"]
