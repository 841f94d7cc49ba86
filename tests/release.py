"""What a release says of itself, and whether its places agree; `.ci/dist` asks before it builds.

    python tests/release.py [TAG]

`pyproject.toml` says which version this is; CITATION.cff, .zenodo.json and the newest entry of
the changelog must say the same, and so must the tag (`v0.1.0`) of what is published.
"""

import json
import re
import sys
import tomllib

import yaml
from execute import ROOT


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def newest(changelog: str) -> tuple[str, str]:
    """Version of the newest entry, and what stands behind it: a date, or that there is none yet."""
    found = re.search(r"^## (\S+), (.+)$", changelog, re.MULTILINE)
    return (found[1], found[2]) if found else ("", "")


def said() -> dict[str, dict[str, str]]:
    """What each place says of this release."""
    project = tomllib.loads(text("pyproject.toml"))["project"]
    cited, deposit = yaml.safe_load(text("CITATION.cff")), json.loads(text(".zenodo.json"))
    (author,), (cited_author,) = project["authors"], cited["authors"]
    (creator,), (paper,) = deposit["creators"], deposit["related_identifiers"]
    (identifier,) = cited["references"][0]["identifiers"]
    return {
        "pyproject.toml": {
            "version": project["version"],
            "licence": project["license"],
            "author": author["name"],
        },
        "CITATION.cff": {
            "version": cited["version"],
            "licence": cited["license"],
            "author": cited_author["name"],
            "title": cited["title"],
            "paper": identifier["value"],
        },
        ".zenodo.json": {
            "version": deposit["version"],
            "licence": deposit["license"],
            "author": creator["name"],
            "title": deposit["title"],
            "paper": paper["identifier"],
        },
        "CHANGELOG.md": {"version": newest(text("CHANGELOG.md"))[0]},
    }


def disagreements(
    places: dict[str, dict[str, str]], tag: str | None = None, date: str = ""
) -> list[str]:
    """What two places say differently; with a tag, also what keeps it from being published."""
    found = []
    for what in dict.fromkeys(name for place in places.values() for name in place):
        values = {place: own[what] for place, own in places.items() if what in own}
        if len(set(values.values())) > 1:
            found.append(f"{what}: " + ", ".join(f"{p} says {v!r}" for p, v in values.items()))
    version = places["pyproject.toml"]["version"]
    if tag and tag != f"v{version}":
        found.append(f"the tag is {tag}, the version {version}")
    if tag and not re.fullmatch(r"\d{4}-\d\d-\d\d", date):
        found.append("the changelog does not say when this version was released")
    return found


if __name__ == "__main__":
    tag = sys.argv[1] if sys.argv[1:] else None
    sys.exit("\n".join(disagreements(said(), tag, newest(text("CHANGELOG.md"))[1])) or 0)
