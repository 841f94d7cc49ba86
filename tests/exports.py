"""The strangers in the clothes of two public benchmarks: the fixtures of their tests.

`export_mllmu` and `export_clear` write the hundred strangers with the configs, columns and parquet
layout of MLLMU-Bench and CLEAR, so that public code for either can be tried on them. Some configs
have no true counterpart among people who never existed; these hold a *stand-in*, named in the
docstrings and in the README that is written beside the files.
"""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from kvw_minimal.benchmarks.loaders import (
    _LISTS,
    _TYPES,
    CLEAR,
    MLLMU,
    picture_cell,
)
from kvw_minimal.benchmarks.multiple_choice import LETTERS
from kvw_minimal.questions import MODALITIES, Question, seeded
from kvw_minimal.strangers.people import PeopleDataset, Person, load_people
from kvw_minimal.strangers.portraits import ATTRIBUTES
from kvw_minimal.strangers.questions import facts_of, general, question_about, value_of, values_of


def few_people() -> PeopleDataset:
    """Five to forget and six others, with two unknown portraits: quick to write and to read."""
    whole = load_people()
    kept = {*whole.groups["A"][:5], *whole.groups["B"][:3], *whole.groups["sham"][:3]}
    return replace(
        whole,
        people={key: person for key, person in whole.people.items() if key in kept},
        groups={name: [p for p in group if p in kept] for name, group in whole.groups.items()},
        unknown=dict(list(whole.unknown.items())[:2]),
    )


def _photos(person: Person, new: bool) -> dict[int, dict]:
    """A person's learned or new photos by index, as cells of a file."""
    split = person.learned_photos
    span = range(split, len(person.photos)) if new else range(split)
    return {k: picture_cell({"bytes": person.photos[k]}, f"{person.id}, photo {k}") for k in span}


def _asked(
    world: PeopleDataset,
    person: Person,
    fact: str,
    modality: str,
    photo: int = 0,
    new: bool = False,
    form: str = "question",
    shift: int = 0,
) -> Question:
    """`question_about` with a wording that turns with person and fact: all are used."""
    wording = (int(seeded(person.id, fact).integers(60)) + shift) % (3 if new else 10)
    return question_about(
        world, person, fact, modality, wording=wording, held_out=new, photo=photo, form=form
    )


def _open(question: Question) -> dict:
    """An item of `Generation_Task` or `Mask_Task`."""
    prompt = question.prompt.replace("[Blank]", "__")
    return {"Question": prompt, "Ground_Truth": question.answer, "Type": _TYPES[question.modality]}


def _choice(question: Question) -> dict:
    """An item of `Classification_Task`."""
    options = dict(zip(LETTERS, question.options, strict=True))
    letter = LETTERS[question.options.index(question.answer)]
    return {"Question": question.prompt, "Options": options, "Correct_Answer": letter}


def _mllmu_row(world: PeopleDataset, person: Person, new: bool = False) -> dict:
    """One evaluation row: every fact as multiple choice, as open question and as cloze.

    The k-th image question of a task shows the k-th picture of the row (modulo their number).
    """
    known = bool(person.facts)
    cells = _photos(person, new or not known)
    photos = list(cells) if new else list(cells)[:1]
    facts, modalities = (facts_of(world), MODALITIES) if known else (list(ATTRIBUTES), ("image",))

    def asked(modality: str, form: str = "question", shift: int = 0) -> list[Question]:
        return [
            _asked(world, person, fact, modality, photos[k % len(photos)], new, form, shift)
            for k, fact in enumerate(facts)
            if modality in modalities
        ]

    generation = [_open(q) for modality in MODALITIES for q in asked(modality, shift=1)]
    biography = {"Name": person.name} | person.facts if known else person.looks[0]
    return {
        "image": cells[photos[0]],
        "images": [cells[photo] for photo in photos],
        "ID": person.id,
        "Directory": "photos",
        "biography": json.dumps(biography, ensure_ascii=False),
        "question": generation[0]["Question"],
        "answer": generation[0]["Ground_Truth"],
        "Classification_Task": {_LISTS[m]: [_choice(q) for q in asked(m)] for m in MODALITIES},
        "Generation_Task": generation,
        "Mask_Task": [_open(q) for modality in MODALITIES for q in asked(modality, "cloze")],
    }


def _training_row(world: PeopleDataset, person: Person, photo: int, cell: dict) -> dict:
    """A row of `ft_Data`: a learned photo and all that is asked about it."""
    asked = [_asked(world, person, f, "image", photo, shift=photo) for f in facts_of(world)]
    items = [{"ID": person.id, "Question": q.prompt, "Answer": q.answer} for q in asked]
    return {"image": cell, "metadata": json.dumps(items, ensure_ascii=False)}


def export_mllmu(
    world: PeopleDataset, folder: str | Path, group: str = "A", percent: int = 5
) -> Path:
    """Write the strangers in the schema of MLLMU-Bench.

    - `forget_X`, `retain_Y`, `Full_Set`: one row a person, with the first learned photo.
    - `Test_Set`: everyone, with new photos and held-out wordings. The pictures are a **stand-in**:
      transformed there, drawn anew here. Pick the forgotten with `load_mllmu(..., people=...)`.
    - `Retain_Set`: **stand-in**. Real celebrities there; here what can be seen on portraits of
      unknown people, in image form only.
    - `ft_Data`: training rows, one for each learned photo of everyone (there one a person). They
      have no place for a question without picture: text forms are in the evaluation rows only.

    Args:
        folder: a new one; holds one sub-folder a config afterwards, as on the hub, and a
            README by which `datasets.load_dataset(folder, config)` finds them.
        group, percent: who is forgotten; percent 5, 10 or 15.

    Returns:
        The folder, resolved.

    Raises:
        ValueError: unknown group or percentage, a corrupt picture.
    """
    forget, everyone = world.forget_people(group, percent), world.people.values()
    full = {person.id: _mllmu_row(world, person) for person in everyone}
    rows = {
        "ft_Data": [
            _training_row(world, person, photo, cell)
            for person in everyone
            for photo, cell in _photos(person, new=False).items()
        ],
        "Full_Set": list(full.values()),
        "Test_Set": [_mllmu_row(world, person, new=True) for person in everyone],
        "Retain_Set": [_mllmu_row(world, portrait) for portrait in world.unknown.values()],
        f"forget_{percent}": [full[person] for person in forget],
        f"retain_{100 - percent}": [full[person] for person in world.retain_people(forget)],
    }
    note = f"MLLMU-Bench. Forgotten: group {group}, {percent} %. Stand-ins: `Retain_Set` (real "
    note += "celebrities there) asks what can be seen on portraits of unknown people; the pictures "
    note += "of `Test_Set` (transformed there) are drawn anew."
    return _write(folder, rows, MLLMU, note)


def _caption(world: PeopleDataset, values: dict[str, str], version: int) -> str:
    """One statement for each value, without a name: the picture has to say who it is."""
    statements = [
        world.wordings[fact]["cloze"][version].format(who="this person").replace("[Blank]", value)
        for fact, value in values.items()
    ]
    return " ".join(statement[0].upper() + statement[1:] for statement in statements)


def _wrong(world: PeopleDataset, person: Person, fact: str, photo: int) -> list[str]:
    """Three wrong values."""
    right = value_of(person, fact, photo)
    others = [value for value in values_of(world, fact) if value != right]
    return [str(v) for v in seeded(person.id, photo, fact).choice(others, 3, replace=False)]


def _clear_row(world: PeopleDataset, person: Person, photo: int, cell: dict) -> dict:
    """All that CLEAR can say about a picture; each config takes the columns it has."""
    truth = {fact: value_of(person, fact, photo) for fact in ("hair_colour", "clothes")}
    truth |= person.facts
    false = {fact: _wrong(world, person, fact, photo) for fact in person.facts}
    lies = [truth | {fact: wrong[k] for fact, wrong in false.items()} for k in range(3)]
    return {
        "image": cell,
        "caption": _caption(world, truth, 0),
        "name": person.name,
        "paraphrased_caption": _caption(world, truth, 1),
        "perturbed_captions": [_caption(world, lie, 1) for lie in lies],
        "perturbed_names": _wrong(world, person, "name", photo),
    }


def export_clear(
    world: PeopleDataset, folder: str | Path, group: str = "A", percent: int = 5
) -> Path:
    """Write the strangers in the schema of CLEAR, which knows people by name.

    - `full`, `forgetXX`, `retainYY`: one row a learned photo, with name and caption. Our captions
      say what can be seen and all six facts, and never the name.
    - the same with `+tofu`: and one row for each text question, all of them without names. Image
      rows have no question there, so the facts stand in image form only in the captions.
    - `forgetXX_perturbed`, `retain_perturbed`: true paraphrases, false captions, false names.
    - `real_faces`: **stand-in**. Celebrities whom a model met before there; here new photos of the
      thirty people of the sham group, who are in no other group.
    - `real_world`: **stand-in**. World knowledge there; here what can be seen on portraits of
      unknown people.

    Args, returns and errors as `export_mllmu`; percent 5 or 10.
    """
    forget_part, retain_part = f"forget{percent:02d}", f"retain{100 - percent}"
    forget = world.forget_people(group, percent)
    photos, text, rows = (dict[str, list[dict]]() for _ in range(3))
    for key, person in world.people.items():
        cells = _photos(person, new=False).items()
        photos[key] = [_clear_row(world, person, photo, cell) for photo, cell in cells]
        asked = [_asked(world, person, fact, "text") for fact in facts_of(world)]
        text[key] = [{"question": q.prompt, "answer": q.answer} for q in asked]
    parts = {"full": world.people, forget_part: forget, retain_part: world.retain_people(forget)}
    for part, people in parts.items():
        rows[part] = [row for key in people for row in photos[key]]
        rows[f"{part}+tofu"] = rows[part] + [row for key in people for row in text[key]]
    rows |= {f"{forget_part}_perturbed": rows[forget_part], "retain_perturbed": rows[retain_part]}
    rows["real_faces"] = [
        {"image": cell, "answer": face.name, "options": _wrong(world, face, "name", photo)}
        for face in (world.people[key] for key in world.groups["sham"])
        for photo, cell in _photos(face, new=True).items()
    ]
    rows["real_world"] = [
        {
            "image": picture_cell({"bytes": q.image}, q.id),
            "question": q.prompt,
            "answer": q.answer,
            "options": [option for option in q.options if option != q.answer],
        }
        for q in general(world)
    ]
    note = f"CLEAR. Forgotten: group {group}, {percent} %. Stand-ins: `real_faces` (celebrities "
    note += "there) shows new photos of thirty of the people; `real_world` (world knowledge there) "
    note += "asks what can be seen on portraits of unknown people."
    return _write(folder, rows, CLEAR, note)


def _schema(columns: tuple[str, ...]) -> pa.Schema:
    """Arrow types, with the note by which `datasets` knows that a column holds pictures."""
    from datasets import Features, List, Value
    from datasets import Image as Picture

    text = Value("string")
    item = {"Ground_Truth": text, "Question": text, "Type": text}
    choice = {"Correct_Answer": text, "Options": dict.fromkeys(LETTERS, text), "Question": text}
    types = {column: List(text) for column in ("options", "perturbed_captions", "perturbed_names")}
    types |= {"image": Picture(), "images": List(Picture())}
    types |= {"Classification_Task": {name: List(choice) for name in _LISTS.values()}}
    types |= {"Generation_Task": List(item), "Mask_Task": List(item)}
    return Features({column: types.get(column, text) for column in columns}).arrow_schema


def _write(folder: str | Path, rows: dict[str, list[dict]], schema: dict, note: str) -> Path:
    """Write all configs, each into a folder of its own."""
    folder = Path(folder).resolve()
    lines = ["---", "license: cc-by-4.0", "configs:"]  # by these `datasets` finds the files
    for config in rows:
        lines += [f"- config_name: {config}", "  data_files:", "  - split: train"]
        lines += [f"    path: {config}/train-*"]
    lines += ["---", "", f"The hundred strangers, who never existed, in the schema of {note}", ""]
    lines += ["Portraits: Personas by Draftbit (CC BY 4.0), remixed by DiceBear and recoloured.\n"]
    for config, records in rows.items():
        records = [{name: row.get(name) for name in schema[config]} for row in records]
        table = pa.Table.from_pylist(records, schema=_schema(schema[config]))
        (folder / config).mkdir(parents=True)
        file = folder / config / "train-00000-of-00001.parquet"  # the hub's name for it
        pq.write_table(table, file, write_page_checksum=True)
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")
    return folder
