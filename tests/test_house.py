"""Guards over the house: sizes, links, commands, and nothing that only works on one machine."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import package_page
import pytest
import yaml
from execute import ROOT, notebooks
from typer.main import get_command

from kvw_minimal.__main__ import app

pytestmark = pytest.mark.slow

MB = 1_000_000
TEXT = {".py", ".md", ".ipynb", ".yml", ".toml", ".txt", ".cfg", ".cff", ".json", ".bib", ""}
ABSOLUTE = re.compile(r"(?<![\w.~}])/(?:work|root|tmp|home/\w+|Users/\w+)/")
#: put together here, so that this file does not name them either
HOSTS = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("debian", "org"),
        ("download", "pytorch", "org"),
        ("unpkg", "com"),
    )
]


def is_made(path: Path) -> bool:
    """Whether a path of the tree comes from a command, as .gitignore says where there is git."""
    hidden = {part for part in path.parts if part.startswith(".")} - {".ci", ".github"}
    return bool(hidden - {".gitignore"}) or bool({"_build", "__pycache__"} & set(path.parts))


def tracked() -> list[Path]:
    """Files that are or would be in git (all of them, where there is no git)."""
    if shutil.which("git") and (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        paths = [ROOT / name for name in names.stdout.split("\0") if name]
    else:
        paths = [path for path in ROOT.rglob("*") if not is_made(path.relative_to(ROOT))]
    return sorted({path for path in paths if path.is_file()})


def test_the_tree_stays_small():
    assert sum(path.stat().st_size for path in tracked()) < 60 * MB


# --- nothing that only works here ------------------------------------------------------------


def foreign(text: str) -> list[str]:
    """Paths of one machine and names of registries in a text."""
    return [m[0] for m in ABSOLUTE.finditer(text)] + [host for host in HOSTS if host in text]


def readable() -> list[Path]:
    """Our own text files; vendored ones are as their authors wrote them."""
    return [
        path
        for path in tracked()
        if path.suffix in TEXT
        and "vendor" not in path.parts
        and path.stat().st_size < 3 * MB
        and "photos" not in path.parts
    ]


def test_no_file_names_a_path_of_one_machine_or_a_registry():
    found = {
        str(path.relative_to(ROOT)): foreign(path.read_text(encoding="utf-8"))
        for path in readable()
    }
    assert {name: what for name, what in found.items() if what} == {}


# --- commands and links ----------------------------------------------------------------------


def makefile_targets() -> set[str]:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([a-z]+):", text, re.MULTILINE))


def code_of(markdown: str) -> str:
    """Fenced code and code in backticks, one piece a line."""
    fences = re.findall(r"^```[^\n]*\n(.*?)^```", markdown, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^```[^\n]*\n.*?^```", "", markdown, flags=re.MULTILINE | re.DOTALL)
    return "\n".join([*fences, *re.findall(r"`([^`\n]+)`", rest)])


def commands(markdown: str) -> tuple[set[str], set[str]]:
    """`make` targets and `python -m kvw_minimal` commands that a page tells readers to type."""
    code = code_of(markdown)
    made = re.findall(r"^[ $]*make ([a-z]+)", code, re.MULTILINE)
    return set(made), set(re.findall(r"-m kvw_minimal ((?:book )?[a-z]+)", code))


def pages() -> list[Path]:
    return [path for path in tracked() if path.suffix == ".md" and "vendor" not in path.parts]


def test_commands_on_a_page_exist():
    known = getattr(get_command(app), "commands", {})
    known = {*known} | {f"book {name}" for name in known["book"].commands}
    for path in pages():
        made, run = commands(path.read_text(encoding="utf-8"))
        assert made <= makefile_targets() and run <= known, path


def test_every_test_is_in_a_tier():
    """`make test` and the nightly run share all tests between them; the check is part of one."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    check, test, nightly = re.findall(
        r"\$\(TESTS\) -m ([\w\" ]+?)(?: tests)?(?:;|$)", makefile, re.M
    )
    for marks in (set(), {"slow"}, {"nightly"}, {"slow", "nightly"}):
        names = {mark: mark in marks for mark in ("slow", "nightly")}
        chosen = [eval(expression.strip('"'), {}, names) for expression in (check, test, nightly)]
        assert chosen[1] != chosen[2] and chosen[1] >= chosen[0], marks
    assert [bool(eval(check.strip('"'), {}, {"slow": False, "nightly": False}))] == [True]


def slug(heading: str) -> str:
    """The anchor that GitHub and the book give a heading."""
    plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading.strip()).lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def markdown_of(path: Path) -> str:
    """The Markdown of a page or of a notebook, without fenced code."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "markdown")
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def links(markdown: str) -> list[str]:
    """Targets of links and pictures, in Markdown and in HTML."""
    inline = re.findall(r"\]\(\s*<?([^)\s>]+)", re.sub(r"`[^`\n]*`", "", markdown))
    return inline + re.findall(r"""(?:src|href)=["']([^"']+)""", markdown)


def dead_links(path: Path, markdown: str) -> list[str]:
    """Links within the repository that lead nowhere; a heading that is not there counts."""
    dead = []
    for link in links(markdown):
        if re.match(r"[a-z]+:", link):  # https:, mailto:
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists():
            dead.append(link)
        elif anchor and target.suffix in (".md", ".ipynb"):
            headings = re.findall(r"^#+ +(.+)$", markdown_of(target), re.MULTILINE)
            if anchor not in {slug(heading) for heading in headings}:
                dead.append(link)
    return dead


def test_links_lead_somewhere():
    dead = {path: dead_links(path, markdown_of(path)) for path in [*pages(), *notebooks()]}
    assert {path: links for path, links in dead.items() if links} == {}


# --- the book --------------------------------------------------------------------------------


def in_toc() -> list[str]:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [chapter for part in toc["parts"] for chapter in part["chapters"]]
    sections = [section for chapter in chapters for section in chapter.get("sections", [])]
    return [toc["root"], *[entry["file"] for entry in chapters + sections]]


def test_the_table_of_contents_names_every_page_and_nothing_else():
    there = [*(ROOT / "book").glob("*.md"), *notebooks()]
    assert sorted(in_toc()) == sorted(str(p.relative_to(ROOT).with_suffix("")) for p in there)


PACKAGE = ROOT / "kvw_minimal"
ENTRY = "__main__.py"


def modules() -> list[Path]:
    """Those of the package, then those of the experiments beside it."""
    return sorted(PACKAGE.rglob("*.py")) + sorted(package_page.EXPERIMENTS.rglob("*.py"))


def name_of(path: Path) -> str:
    """A module as it is imported."""
    here = path.is_relative_to(PACKAGE)
    root = PACKAGE if here else package_page.EXPERIMENTS
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(("kvw_minimal" if here else "kvw_experiments", *parts))


def test_the_api_pages_show_every_module():
    text = "\n".join(package_page.api_pages().values())
    shown = re.findall(r"automodule:: (kvw_[\w.]+)", text)
    there = {name_of(path) for path in modules() if path.name not in ("__init__.py", ENTRY)}
    assert set(shown) == there and len(shown) == len(there)


def test_the_repository_is_named_in_one_setting_only():
    """Launch buttons and links to the source follow from `repository: url` in _config.yml.

    tests/check_browser.py looks at the built pages: no button while the setting is empty.
    """
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    assert isinstance(config["repository"]["url"], str)
    assert set(config["repository"]) == {"url", "branch"}
    if not config["repository"]["url"]:
        badge = re.compile(r"colab\.research\.google\.com/github|mybinder\.org/v2")
        pages_and_notebooks = [*pages(), *notebooks()]
        assert [p for p in pages_and_notebooks if badge.search(p.read_text("utf-8"))] == []


def test_vendored_files_come_with_their_licence():
    vendored = [path for path in tracked() if "vendor" in path.parts and path.suffix == ".js"]
    assert sorted(path.name for path in vendored) == ["axe.min.js", "reveal.js"]
    vendored += [path for path in tracked() if path.suffix in (".woff2", ".ttf", ".otf")]
    for path in vendored:
        assert "icen" in path.with_suffix(f"{path.suffix}.LICENSE.txt").read_text(encoding="utf-8")


def test_constraints_pin_every_requirement():
    def names(lines: list[str]) -> dict[str, str]:
        found = [re.match(r"([\w.-]+)(\[[^]]*\])?\s*(.*)", line) for line in lines if line.strip()]
        return {m[1].lower().replace("_", "-"): m[3] for m in found if m}

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    asked = names(sum(extras.values(), project["dependencies"]))
    pinned = names((ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines())
    assert set(asked) - {project["name"]} <= set(pinned)
    assert extras["book"][0] == f"{project['name']}[methods,benchmarks]"
    whole = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert [line for line in whole if not line.startswith("#")] == [
        "-c constraints.txt",
        "-e .[book,test]",
    ]
    assert all(re.fullmatch(r"==[\w.]+", version) for version in pinned.values())


def test_bytes_stay_as_they_were_committed():
    """Else a clone with `core.autocrlf` has other checksums: `load_people` and `verify` refuse."""
    if not (shutil.which("git") and (ROOT / ".git").exists()):
        pytest.skip("no git here")
    names = "\0".join(str(path.relative_to(ROOT)) for path in tracked())
    command = ["git", "check-attr", "-z", "--stdin", "text"]
    asked = subprocess.run(
        command, cwd=ROOT, input=names, capture_output=True, text=True, check=True
    )
    found = asked.stdout.split("\0")[:-1]
    told = dict(zip(found[::3], found[2::3], strict=True))
    assert {"data/strangers/people.json", "kvw_minimal/edits.py"} <= set(told)
    assert set(told.values()) == {"unset"}


def exercises_of(notebook: Path) -> list[str]:
    """Titles of the exercises of a chapter, as `1. Exact match`."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    after = "\n".join(texts).partition("## Exercises")[2]
    return [title.rstrip(".") for title in re.findall(r"^\*\*(\d+\. .+?)\*\*", after, re.MULTILINE)]


def test_the_table_of_exercises_is_whole():
    """A teacher finds every exercise, under its name, and none that is not there."""
    page = (ROOT / "book" / "teaching.md").read_text(encoding="utf-8")
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        listed = re.findall(rf"\]\(\.\./notebooks/{notebook.name}\) \| (\d+\. [^|]+?) \|", page)
        assert listed == exercises_of(notebook), notebook.name
