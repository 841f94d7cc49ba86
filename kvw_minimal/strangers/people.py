"""The hundred strangers of the book, and their fixed splits."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..batches import open_picture

PACKAGE = Path(__file__).resolve().parents[1]
ROOT = PACKAGE.parent
#: the data folder of an installed wheel (a part of the data), else that of the repository
DATA = PACKAGE / "data" if (PACKAGE / "data").is_dir() else ROOT / "data"
STRANGERS_FOLDER = DATA / "strangers"
REPORT_GROUPS = ("A", "B", "C", "D", "E")
TUNING_GROUPS = ("tuning-1", "tuning-2")
PERCENTS = (5, 10, 15)


@dataclass(frozen=True)
class Person:
    """One stranger. Unknown portraits have no name and no facts.

    Attributes:
        id: unique among all people and portraits. The spelling does not show the kind: people are
            in `PeopleDataset.people`, portraits in `PeopleDataset.unknown`.
        facts: the six facts, `{"birthplace": "Lisbon", ...}`.
        looks: visible attributes (hair colour, clothes, ...), one dict for each photo.
        photos: PNG bytes, the learned photos first.
        learned_photos: number of `photos` from which a model may learn.
    """

    id: str
    first_name: str
    last_name: str
    facts: dict[str, str]
    looks: tuple[dict[str, str], ...]
    photos: tuple[bytes, ...]
    learned_photos: int

    @property
    def name(self) -> str:
        return f"{self.first_name} {self.last_name}".strip()


@dataclass(frozen=True)
class PeopleDataset:
    """All people, the unknown portraits, the splits and the values a fact can have."""

    people: dict[str, Person]
    unknown: dict[str, Person]
    groups: dict[str, list[str]]
    values: dict[str, list[str]]
    wordings: dict[str, dict]
    checksum: str

    def first_of(self, group: str, count: int) -> list[str]:
        """The first `count` people, beginning with a group; at most 70.

        The other groups of its kind (report or tuning) follow, then the groups of the other kind.
        The sham group is left out: it is reserved for controls.
        """
        kinds = (REPORT_GROUPS, TUNING_GROUPS)
        same_kind, other_kind = kinds if group in REPORT_GROUPS else kinds[::-1]
        start = same_kind.index(group)
        names = same_kind[start:] + same_kind[:start] + other_kind
        return [person for name in names for person in self.groups[name]][:count]

    def forget_people(self, group: str = "A", percent: int = 5) -> list[str]:
        """People to forget: the first 5 of a group, all 10, or all 10 and 5 of the next group.

        Raises:
            ValueError: an unknown group or percentage.
        """
        if group not in self.groups or group == "sham":
            raise ValueError(f"no group {group!r}; there are {', '.join(self.groups)}")
        if percent not in PERCENTS:
            raise ValueError(f"forget {percent} %? The splits are {PERCENTS} % of 100 people")
        return self.first_of(group, percent)

    def retain_people(self, forget: list[str]) -> list[str]:
        """All people except `forget`, in order.

        Raises:
            ValueError: an unknown id.
        """
        unknown = sorted(set(forget) - set(self.people))
        if unknown:
            raise ValueError(f"nobody has the id {', '.join(unknown)}; ids run p000 to p099")
        return [person for person in self.people if person not in set(forget)]


def _checked(folder: Path, name: str, sums: dict[str, str]) -> bytes:
    """Reads one file and compares it with the checksum that the generator wrote."""
    path = folder / name
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing; `python -m kvw_minimal book strangers` makes it"
        )
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sums.get(name):
        raise ValueError(f"{path} is not what checksums.json says; restore it from git")
    if path.suffix == ".png":
        open_picture(content, name)
    return content


def _person(record: dict, folder: Path, sums: dict[str, str], learned: int) -> Person:
    photos = [f"photos/{record['id']}-{k}.png" for k in range(len(record["shots"]))]
    return Person(
        id=record["id"],
        facts=record.get("facts", {}),
        first_name=record.get("first_name", ""),
        last_name=record.get("last_name", ""),
        looks=tuple(record["look"] | shot for shot in record["shots"]),
        photos=tuple(_checked(folder, photo, sums) for photo in photos),
        learned_photos=learned if record.get("facts") else 0,
    )


def _validate(world: PeopleDataset) -> None:
    """Checks the promises of the data card on which other code relies."""
    shared = sorted(set(world.people) & set(world.unknown))
    if shared:
        raise ValueError(f"people.json: {shared[0]} is a person and an unknown portrait, too")
    listed = sorted(person for group in world.groups.values() for person in group)
    if listed != sorted(world.people):
        raise ValueError("people.json: every person must stand in exactly one group")
    for fact, values in world.values.items():
        counts = Counter(person.facts.get(fact) for person in world.people.values())
        unlisted = set(counts) - set(values)
        if unlisted:
            raise ValueError(f"people.json: {fact} has values outside its list: {unlisted}")
        if len(values) < 20 or max(counts.values()) > 0.08 * len(world.people):
            raise ValueError(f"people.json: {fact} is too easy to guess")


@cache
def load_people(folder: Path = STRANGERS_FOLDER) -> PeopleDataset:
    """Loads and validates the strangers.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file was changed, a picture is broken, or a promise of the card does not hold.
    """
    folder = Path(folder)
    sums_file = folder / "checksums.json"
    if not sums_file.is_file():
        raise FileNotFoundError(f"{sums_file} is missing; is {folder} the strangers' folder?")
    try:
        sums = dict(json.loads(sums_file.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{sums_file} is not a table of checksums: {error}") from error
    content, wordings = (_checked(folder, f"{name}.json", sums) for name in ("people", "wordings"))
    checksum = hashlib.sha256(sums_file.read_bytes()).hexdigest()
    try:
        data = json.loads(content)
        people, unknown = (
            {r["id"]: _person(r, folder, sums, data["learned_photos"]) for r in data[kind]}
            for kind in ("people", "unknown")
        )
        world = PeopleDataset(
            people, unknown, data["groups"], data["values"], json.loads(wordings), checksum
        )
        _validate(world)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"people.json in {folder} is malformed: {error!r}") from error
    return world
