"""The course: sessions, slides, votes, exam, projects, and the copy that students get."""

import doctest
import html
import json
import math
import re
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import slide_notes
import slides
import students
import torch
import yaml
from bs4 import BeautifulSoup
from execute import ROOT
from test_house import dead_links, markdown_of

from kvw_minimal.coefficients import mean_absolute
from kvw_minimal.kvw import contrast, gate
from kvw_minimal.methods import losses

pytestmark = pytest.mark.slow

PAGE = (ROOT / "book" / "teaching.md").read_text(encoding="utf-8")
EXAM = (ROOT / "book" / "exam.md").read_text(encoding="utf-8")
ANSWERS = (ROOT / "book" / "exam_answers.md").read_text(encoding="utf-8")
SESSIONS = slides.sessions_of(PAGE)
NUMBERS = range(1, len(slides.DECKS) + 1)
CORE = [1, 2, 3, 4, 5, 7, 8, 11, 13, 14]
KINDS = {"understanding", "calculation", "reading a table", "missing control"}


def section(number: int) -> str:
    """What the teacher's page says of a session."""
    return re.split(r"^## ", PAGE.partition(f"## Session {number}: ")[2], flags=re.M)[0]


def cells_of(chapter: str) -> list[dict]:
    text = (ROOT / "notebooks" / f"{chapter}.ipynb").read_text(encoding="utf-8")
    return json.loads(text)["cells"]


@pytest.mark.parametrize("module", [slides, slide_notes, students])
def test_examples_in_the_builders(module):
    found = doctest.testmod(module)
    assert found.attempted > 0 and found.failed == 0


# --- sessions --------------------------------------------------------------------------------


@pytest.mark.parametrize("number", NUMBERS)
def test_what_is_found_points_to_headings_of_the_chapter(number: int):
    fold = re.search(r"^:::\{dropdown\}.*?^:::", section(number), re.M | re.S)[0]
    markdown = "\n".join(
        "".join(cell["source"])
        for cell in cells_of(slides.DECKS[number - 1].chapter)
        if cell["cell_type"] == "markdown"
    )
    headings = re.findall(r"^#+ (.+)$|^\*\*(.+?)\*\*", markdown, re.M)
    named = [name for name in re.findall(r"(?<!\w)\*([A-Z][^*]+)\*", fold)]
    assert named
    for name in named:
        assert any(re.sub(r"^[\d.]+ ", "", "".join(each)).startswith(name) for each in headings), (
            name
        )


@pytest.mark.parametrize("number", NUMBERS)
def test_homework_names_exercises_that_there_are(number: int):
    homework = slides.part_of(section(number), "Homework")
    numbers, chapter = re.search(r"Exercises? ([\d, and]+) of chapter (\d+)", homework).groups()
    more = re.findall(r"; (\d+) for those who are quick", homework)
    there = re.findall(rf"^\| \[{chapter}\]\([^)]+\) \| (\d+)\. ", PAGE, re.M)
    assert {*re.findall(r"\d+", numbers), *more} <= set(there)


def test_what_is_calculated_on_the_board():
    """The package's own coefficients and gates, for the numbers of session 4."""
    rows = dict(re.findall(r"^\| (.+?) \| (.+) \|$", slides.part_of(section(4), "Board"), re.M))

    def row(name: str) -> list:
        """Numbers of a row, a cell each."""
        (values,) = (text for title, text in rows.items() if name in title)
        found = [re.findall(r"-?\d+(?:/\d+)?", cell) for cell in values.split(" | ")]
        return [[float(Fraction(number)) for number in cell] for cell in found]

    h = [torch.tensor(row(f"question about the {who}")).T[None] for who in ("five", "others")]
    mask = torch.ones(1, 3, dtype=torch.bool)
    five, others = (mean_absolute(each, mask) for each in h)
    gates = gate(contrast(five, others), 2)
    vectors = torch.tensor(row("vector $v$"))
    edited = gates[:, None] * vectors
    for name, values in (
        ("measure: $c_f$", five),
        ("measure: $c_r$", others),
        ("divide", others / five),
        ("gate", gates),
    ):
        assert torch.allclose(torch.tensor(row(name))[:, 0], values), name
    assert torch.allclose(torch.tensor(row("multiply")), edited)
    told = slides.part_of(section(4), "Board")
    called, before, after = (
        [float(number) for number in each.split(", ")]
        for each in re.findall(r"\((-?\d+(?:, -?\d+)+)\)", told.rpartition("For $h")[2])
    )
    assert torch.allclose(torch.tensor(called) @ vectors, torch.tensor(before))
    assert torch.allclose(torch.tensor(called) @ edited, torch.tensor(after))
    assert h[0][0, :, 0].mean() == pytest.approx(4 / 3) and "4/3 for the first vector" in told


# --- slides ----------------------------------------------------------------------------------


def plain(markdown: str) -> str:
    """The words of some Markdown, as a browser would show them."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", "", slides.marked_up(markdown))).split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """All decks, made by the command that `make slides` runs."""
    made = tmp_path_factory.mktemp("slides")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["slides.py", str(made)])
        slides.main()
    return made


def test_a_block_that_is_not_in_the_plan_is_refused():
    wrong = replace(slides.DECKS[3], blocks={"Forget against retain": 21})
    with pytest.raises(ValueError, match="no block from minute 21 for 'Forget against retain'"):
        slides.slides_of(4, SESSIONS[3], wrong)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_deck_opens_with_its_aim_has_its_vote_and_loads_what_lies_beside_it(folder, number: int):
    session, deck = SESSIONS[number - 1], slides.DECKS[number - 1]
    text = (folder / f"session_{number}.html").read_text(encoding="utf-8")
    page = BeautifulSoup(text, "html.parser")
    shown = [" ".join(each.text.split()) for each in page.find_all("section")]
    assert 12 <= len(shown) <= 40
    title = f"Session {number}, chapter {int(deck.chapter[:2])}: {session.title}"
    assert page.title.text == title
    assert shown[0].startswith(f"Session {number}: {session.title} {plain(session.aim)} Chapter ")
    (vote,) = (
        at for at, said in enumerate(shown) if said.startswith(f"Vote {plain(session.vote)}")
    )
    assert shown[vote + 1].startswith(plain(deck.vote))
    assert "What is found" not in text and ">not yet<" not in text
    loads = page.select("[src]:not(a), [href]:not(a), [srcset], [data], [poster]")
    files = [each.get("src") or each.get("href") for each in loads]
    files = [name for name in files if not name.startswith("data:image/")]
    told = [each.select_one("aside.notes").text for each in page.find_all("section")]
    minutes = [re.match(r"\s*Minutes (\d+) to (\d+), ", each).groups() for each in told]
    plan = [(str(first), str(last)) for first, last, _ in session.plan]
    assert list(dict.fromkeys(minutes)) == plan  # each block has slides, in the order of the plan
    voted = dict(zip(plan, (what for *_, what in session.plan), strict=True))[minutes[vote]]
    assert "vote" in voted.lower()
    assert plain(session.wrong) in plain(told[0]) and plain(session.found) in plain(told[vote])
    assert files and all((folder / name).is_file() for name in files)
    body = re.sub(r"<(pre|code)\b.*?</\1>", "", text.partition("<body>")[2], flags=re.DOTALL)
    assert not re.search(r"\$[^$]+\$|\\[a-z]+|\{(?:cite|dropdown)", body)  # formulas are set


@pytest.mark.parametrize("number", NUMBERS)
def test_each_slide_has_a_note_of_its_own(folder, number: int):
    text = (folder / f"session_{number}.html").read_text(encoding="utf-8")
    pages = BeautifulSoup(text, "html.parser").find_all("section")
    before: dict[str, str] = {}
    for at, page in enumerate(pages, 1):
        paragraphs = [each.text.strip() for each in page.select("aside.notes p")]
        told = dict(each.split(". ", 1) for each in paragraphs if re.match(r"[A-Z]\w+\. ", each))
        wanted = ("Say", "Ask", "Expected") if at < len(pages) else ("Say",)
        assert all(len(told.get(name, "")) > 8 for name in wanted), (at, paragraphs)
        assert not any(told[name] == before.get(name) for name in wanted), (at, told)
        before = told
    shown = [
        slides.words_of(re.sub("<aside.*?</aside>", "", str(page), flags=re.S)) for page in pages
    ]
    for words in slides.typed_notes(number):  # each belongs to one slide
        assert sum(words in each for each in shown) == 1, words


@pytest.mark.parametrize("number", NUMBERS)
def test_decimal_numbers_of_typed_notes_stand_in_the_chapter(number: int):
    chapter = ROOT / "notebooks" / f"{slides.DECKS[number - 1].chapter}.ipynb"
    text = chapter.read_text(encoding="utf-8")
    for note in slides.typed_notes(number).values():
        for decimal in re.findall(r"\d+\.\d+", f"{note.say} {note.ask} {note.expected}"):
            assert decimal in text, (decimal, note)


def test_the_site_links_each_session_to_its_deck():
    source = [PAGE]
    slides.link(None, "book/teaching", source)
    linked = re.findall(r'^<a href="\.\./slides/session_(\d+)\.html">', source[0], re.M)
    assert [int(number) for number in linked] == [*NUMBERS]


# --- the exam --------------------------------------------------------------------------------


def questions(page: str) -> dict[int, tuple[str, str]]:
    """Title and text of each question, by number."""
    found = re.split(r"^## (\d+)\. (.+)$", page, flags=re.M)[1:]
    return {
        int(number): (title, body)
        for number, title, body in zip(found[::3], found[1::3], found[2::3], strict=True)
    }


def test_the_exam_has_twenty_questions_with_chapter_kind_and_answer():
    asked, answered = questions(EXAM), questions(ANSWERS)
    assert list(asked) == list(answered) == list(range(1, 21))
    tags = {}
    for number, (title, body) in asked.items():
        assert answered[number][0] == title and "*Half*: " in answered[number][1]
        chapter, kind = re.search(
            r"^\*\[Chapter (\d+)\]\([^)]+\).*? · (.+)\*$", body, re.M
        ).groups()
        assert kind in KINDS
        tags[number] = int(chapter), kind
    for chosen in (tags.values(), [tags[number] for number in range(2, 21, 2)]):
        assert {chapter for chapter, _ in chosen} == set(CORE)
        assert {kind for _, kind in chosen} == KINDS


def test_what_is_calculated_in_the_answers():
    """By the package where it has the formula; the questions' numbers are written down again."""
    told = {number: body for number, (_, body) in questions(ANSWERS).items()}
    asked = {number: body for number, (_, body) in questions(EXAM).items()}

    guessed = Fraction(5 * 6 * 4, 25) + Fraction(5 * 4, 100)
    assert guessed == 5 and "140 questions" in told[3] and "Together 5" in told[3]

    w_gate, w_up, w_down = (
        torch.tensor([[float(n) for n in re.findall(r"-?\d+", row)] for row in each.split(r"\\")])
        for each in re.findall(r"pmatrix\}(.+?)\\end", asked[6])
    )
    x = torch.tensor([2.0, 1.0])
    c = torch.relu(w_gate @ x) * (w_up @ x)
    silent = w_down.clone()
    silent[:, 1] = 0
    assert "x = (2, 1)" in asked[6] and c.tolist() == [4, 2, 3]
    assert "4, 2, 3" in told[6] and (w_down @ c).tolist() == [7, 5] and "(7, 5)" in told[6]
    assert (silent @ c).tolist() == [7, 3] and "(7, 3)" in told[6]

    [row] = re.findall(r"^\| (8 .+) \|$", asked[4], re.M)
    h = torch.tensor([[[float(n)] for n in row.split(" | ")]])
    mask = torch.tensor([[False, True, True, True, True, False, False]])
    late = mask.roll(1, 1)
    found = [mean_absolute(h, mask).item(), mean_absolute(h, late).item(), h[mask].mean().item()]
    assert found == [3, 5, 1]
    assert [int(n) for n in re.findall(r"/ 4 = (\d+)", told[4])] == found

    ratios = torch.tensor([2.0, -2.0, 1.0, -1.0])
    assert "2, -2, 1, -1" in asked[11] and "= 3/4" in told[11]
    assert ratios.clamp(min=0).mean() == 0.75 and ratios.mean().clamp(min=0) == 0

    gates = gate(contrast(torch.tensor([4.0, 3.0, 1.0]), torch.tensor([2.0, 3.0, 5.0])), 3)
    assert "(4, 2), (3, 3) and (1, 5)" in asked[12] and "1/8; 1; 1" in told[12]
    assert torch.allclose(gates, torch.tensor([1 / 8, 1, 1]))
    assert "1/64, 1 and 1" in told[12] and torch.allclose(gates**2, torch.tensor([1 / 64, 1, 1]))

    now = torch.tensor([0.0, math.log(3)], requires_grad=True)
    losses.negative_preference(now, torch.zeros(2), 1.0).mul(2).backward()  # a mean over two
    assert torch.allclose(now.grad, torch.tensor([-1.0, -0.5]))
    assert "= 1 at the start" in told[15] and "= 1/2 there" in told[15]

    first = next(n for n in range(1, 99) if 70 * n + 1330 < 630 * n)
    assert f"from {first} requests on" in told[17]


# --- projects --------------------------------------------------------------------------------


# --- the copy for students -------------------------------------------------------------------


def left_over(copy: Path) -> list[str]:
    """What of a copy leads to something that it lacks and the book has."""
    pages = [
        path
        for path in copy.rglob("*")
        if path.suffix in (".md", ".ipynb") and "vendor" not in path.parts
    ]
    found = []
    for page in pages:
        own = ROOT / page.relative_to(copy)
        lost = set(dead_links(page, markdown_of(page))) - set(dead_links(own, markdown_of(own)))
        found += [f"{own.name}: {link}" for link in sorted(lost)]
    return found


def in_contents(copy: Path) -> list[str]:
    toc = yaml.safe_load((copy / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    sections = [each for chapter in chapters for each in chapter.get("sections", [])]
    return [toc["root"], *(entry["file"] for entry in chapters + sections)]


@pytest.mark.parametrize(
    ("more", "keep"), [((), ()), (("book/projects.md",), ("book/exam.md", "book/teaching.md"))]
)
def test_the_copy_for_students_is_whole(tmp_path: Path, more: tuple, keep: tuple):
    copy = students.build(tmp_path / "copy", more, keep)
    left_out = [name for name in students.LEFT_OUT if name not in keep]
    out = [
        name
        for name in map(str, students.files())
        if students.is_out(Path(name), (*left_out, *more))
    ]
    solutions = list((ROOT / "notebooks" / "solutions").glob("*.ipynb"))
    assert len(out) == len(solutions) + 3 + len(more) - len(keep)  # exam, answers, the course
    there = {str(path.relative_to(copy)) for path in copy.rglob("*") if path.is_file()}
    assert there == set(map(str, students.files())) - set(out)
    assert left_over(copy) == []
    gone = {name.rpartition(".")[0] for name in out}
    assert in_contents(copy) == [name for name in in_contents(ROOT) if name not in gone]
    for page in copy.rglob("*.ipynb"):  # still notebooks, with the same cells
        own = json.loads((ROOT / page.relative_to(copy)).read_text(encoding="utf-8"))
        mine = json.loads(page.read_text(encoding="utf-8"))
        assert [cell["id"] for cell in mine["cells"]] == [cell["id"] for cell in own["cells"]]
    told = "".join(
        page.read_text(encoding="utf-8") for page in (copy / "notebooks").glob("*.ipynb")
    )
    assert not re.search(r"(?:Worked s|\"S)olutions", told)  # words that would lead nowhere
    assert ("Teach" in (copy / "book" / "index.md").read_text(encoding="utf-8")) == bool(keep)
    students.build(copy, more, keep)  # again, in its place


def test_the_copy_replaces_nothing_else(tmp_path: Path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(ValueError, match="something else"):
        students.build(tmp_path)
    with pytest.raises(ValueError, match="no book/nothing.md"):
        students.build(tmp_path / "copy", ["book/nothing.md"])
    with pytest.raises(ValueError, match="index.md is not among"):
        students.build(tmp_path / "copy", keep=["book/index.md"])
    assert (tmp_path / "thesis.txt").exists()
