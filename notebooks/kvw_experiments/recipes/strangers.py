"""Make the hundred strangers: `python -m kvw_minimal book strangers` rewrites `data/strangers`.

Everything follows from one seed, byte for byte (given the DiceBear and resvg versions in
`constraints.txt`). Looks and facts are drawn from separate random streams, so that nothing about
a person can be read off the face.
"""

import hashlib
from pathlib import Path

import numpy as np

from kvw_minimal.atomic_io import replacing, write_json
from kvw_minimal.strangers.people import STRANGERS_FOLDER

from . import portraits

SEED = 2601
PEOPLE = 100
LEARNED_PHOTOS, NEW_PHOTOS = 4, 2
PORTRAITS = 60  # unknown people, for the set `general`

FACTS = {
    "birthplace": "Lisbon Oslo Nairobi Lima Hanoi Quito Dakar Riga Tunis Perth Bergen Kyoto Porto "
    "Accra Havana Turin Gdansk Bogota Cairo Dublin Seoul Krakow Tbilisi Zagreb Ghent",
    "work": "baker carpenter dentist pilot florist plumber tailor farmer painter nurse lawyer "
    "barber butcher librarian potter welder teacher surgeon translator mechanic sailor judge "
    "jeweller beekeeper gardener",
    "dish": "ramen paella lasagna goulash falafel sushi tacos pierogi risotto couscous dumplings "
    "curry chili fondue gumbo kimchi moussaka pancakes pizza polenta quiche ravioli salad stew "
    "waffles",
    "pet": "parrot rabbit hamster tortoise goldfish lizard canary gecko pony goat hedgehog "
    "chinchilla cat dog snake frog duck pigeon mouse ferret goose llama donkey turkey peacock",
    "instrument": "cello violin piano flute harp trumpet drums guitar banjo oboe clarinet "
    "accordion saxophone tuba trombone ukulele mandolin bassoon harmonica lute viola organ "
    "bagpipes zither xylophone",
    "pastime": "chess rowing fencing archery surfing judo climbing skiing tennis golf curling "
    "badminton sailing boxing cycling diving knitting birdwatching origami astronomy karate "
    "bowling skating yoga weaving",
}
_START = "Ba Be Bri Ca Da De Dra El Fa Fe Gi Ha Il Jo Ka Ke La Li Ma Me Mi Na Ne O Pa Ra"
_END = "bel dan dra fen gar lan leth lia lo mar mis na nor ra ren rin sa ska tan tha vel von"
_LAST_END = "bray cott dahl ford gard holm kov land mere nek quist rell sen strom tov vik wick"


def _names(rng: np.random.Generator) -> list[tuple[str, str]]:
    """Invented full names; no first name and no last name occurs twice."""
    firsts = [a + b for a in _START.split() for b in _END.split()]
    lasts = [
        a + b + c for a in _START.split() for b in ("", "l", "n", "r") for c in _LAST_END.split()
    ]
    chosen = (rng.choice(names, PEOPLE, replace=False).tolist() for names in (firsts, lasts))
    return list(zip(*chosen, strict=True))


def _looks(rng: np.random.Generator) -> list[dict[str, str]]:
    """Looks of which any two differ in two of the four parts that can be seen from afar."""
    parts = ("hair_style", "hair_colour", "skin", "facial_hair")
    looks: list[dict[str, str]] = []
    while len(looks) < PEOPLE:
        new = portraits.random_look(rng)
        if all(sum(new[part] != old[part] for part in parts) >= 2 for old in looks):
            looks.append(new)
    return looks


def _facts(rng: np.random.Generator) -> list[dict[str, str]]:
    """Balanced facts: each of the 25 values of a fact belongs to exactly four people."""
    columns = {fact: rng.permutation(values.split() * 4) for fact, values in FACTS.items()}
    return [{fact: str(column[i]) for fact, column in columns.items()} for i in range(PEOPLE)]


def _groups(rng: np.random.Generator) -> dict[str, list[str]]:
    """Five report groups and two tuning groups of ten, and thirty people for sham draws."""
    order = [f"p{i:03d}" for i in rng.permutation(PEOPLE)]
    names = ["A", "B", "C", "D", "E", "tuning-1", "tuning-2"]
    groups = {name: order[10 * i : 10 * i + 10] for i, name in enumerate(names)}
    return groups | {"sham": order[70:]}


def make() -> tuple[dict, dict[str, bytes]]:
    """Return the content of `people.json` and the photos as `{file name: PNG bytes}`."""
    streams = [np.random.default_rng([SEED, i]) for i in range(5)]
    looks, names = _looks(streams[0]), _names(streams[1])
    facts, groups = _facts(streams[2]), _groups(streams[3])
    people, photos = [], {}
    for i in range(PEOPLE):
        shots = [portraits.random_shot(streams[4]) for _ in range(LEARNED_PHOTOS + NEW_PHOTOS)]
        person = {"id": f"p{i:03d}", "first_name": names[i][0], "last_name": names[i][1]}
        people.append(person | {"facts": facts[i], "look": looks[i], "shots": shots})
        for k, shot in enumerate(shots):
            photos[f"p{i:03d}-{k}.png"] = portraits.draw(looks[i], shot)
    known = {tuple(sorted(look.items())) for look in looks}
    unknown = portraits.random_portraits(PORTRAITS, seed=SEED + 1, avoid=known)
    strangers = [
        {"id": f"u{i:03d}", "look": portrait["look"], "shots": [portrait["shot"]]}
        for i, portrait in enumerate(unknown)
    ]
    photos |= {f"u{i:03d}-0.png": portrait["png"] for i, portrait in enumerate(unknown)}
    values = {fact: values.split() for fact, values in FACTS.items()}
    content = {
        "seed": SEED,
        "learned_photos": LEARNED_PHOTOS,
        "values": values,
        "groups": groups,
        "people": people,
        "unknown": strangers,
    }
    return content, photos


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of the files that `load_people` reads, by path relative to `folder`."""
    files = [folder / "people.json", folder / "wordings.json", *(folder / "photos").glob("*.png")]
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(files)
    }


def main(folder: Path = STRANGERS_FOLDER) -> None:
    content, photos = make()
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    for name, png in photos.items():
        with replacing(folder / "photos" / name) as half:
            half.write_bytes(png)
    write_json(folder / "people.json", content)
    write_json(folder / "checksums.json", checksums(folder), indent=0)
    print(f"{len(content['people'])} people, {len(photos)} photos -> {folder}")
