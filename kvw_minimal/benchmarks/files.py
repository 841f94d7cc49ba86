"""The strangers in the clothes of two public benchmarks, and those benchmarks as questions.

`export_mllmu` and `export_clear` write the hundred strangers with the configs, columns and parquet
layout of MLLMU-Bench and CLEAR, so that public code for either can be tried on them. `load_mllmu`
and `load_clear` read these schemas, ours or the real ones, from a local folder or a hub id.

Some configs have no true counterpart among people who never existed; these hold a *stand-in*,
named in the docstrings and in the README that is written beside the files.

Sources: the data set cards of `MLLMMU/MLLMU-Bench` and `therem/CLEAR`.
"""

import json
import re
import tempfile
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..batches import open_picture
from ..questions import MODALITIES, Question, seeded
from ..strangers.people import Person, World
from ..strangers.portraits import ATTRIBUTES
from ..strangers.questions import ask, facts_of, general, value_of, values_of
from ..taught.catalogue import hub_if_there
from .letters import LETTERS, whole_words

MLLMU_HUB, CLEAR_HUB = "MLLMMU/MLLMU-Bench", "therem/CLEAR"
_EVALUATION = ("ID", "Directory", "biography", "question", "answer", "Classification_Task",
               "Generation_Task", "Mask_Task")  # fmt: skip
_ONE_PICTURE = ("Full_Set", "Retain_Set", "forget_5", "forget_10", "forget_15",
                "retain_95", "retain_90", "retain_85")  # fmt: skip
#: the columns of each config of MLLMU-Bench
MLLMU: dict[str, tuple[str, ...]] = {config: ("image", *_EVALUATION) for config in _ONE_PICTURE}
MLLMU |= {"Test_Set": ("images", *_EVALUATION), "ft_Data": ("image", "metadata")}
_CAPTIONS = ("image", "caption", "name")
_PERTURBED = ("perturbed_captions", "paraphrased_caption", "perturbed_names")
_PARTS = ("full", "forget01", "forget05", "forget10", "retain99", "retain95", "retain90")
#: the columns of each config of CLEAR
CLEAR: dict[str, tuple[str, ...]] = {config: _CAPTIONS for config in _PARTS}
CLEAR |= {f"{config}+tofu": ("image", "caption", "question", "answer") for config in _PARTS}
CLEAR |= {f"{config}_perturbed": _CAPTIONS + _PERTURBED for config in (*_PARTS[1:4], "retain")}
CLEAR |= {"real_faces": ("image", "answer", "options")}
CLEAR |= {"real_world": ("image", "question", "answer", "options")}

NAME_PROMPT = "What is the name of the person in the image?"
CAPTION_PROMPT = "Describe the person in the image."
_TYPES = {"image": "Image_Textual", "text": "Pure_Text"}  # how a modality is written
_LISTS = {modality: f"{kind}_Questions" for modality, kind in _TYPES.items()}
#: at most so many rows of a config of MLLMU-Bench may be bad: one of the 25 of `forget_5`
BAD_SHARE = 0.05


class Unnamed(Question):
    """A question of a row that has no place for a name: the row does not say whom it is about."""


# ---- what is written ---------------------------------------------------------------------------


def _photos(person: Person, new: bool) -> dict[int, dict]:
    """A person's learned or new photos by index, as cells of a file."""
    split = person.learned_photos
    span = range(split, len(person.photos)) if new else range(split)
    if not span or span[-1] >= len(person.photos):
        raise ValueError(f"a {'new' if new else 'learned'} picture of {person.id} is missing")
    return {k: picture_cell({"bytes": person.photos[k]}, f"{person.id}, photo {k}") for k in span}


def _asked(world: World, person: Person, fact: str, modality: str, photo: int = 0,
           new: bool = False, form: str = "question", shift: int = 0) -> Question:  # fmt: skip
    """`ask` with a wording that turns with person and fact, so that all wordings are used."""
    wording = (int(seeded(person.id, fact).integers(60)) + shift) % (3 if new else 10)
    return ask(world, person, fact, modality, wording=wording, held_out=new, photo=photo, form=form)


def _open(question: Question) -> dict:
    """An item of `Generation_Task` or `Mask_Task`."""
    prompt = question.prompt.replace("[Blank]", "__")
    return {"Question": prompt, "Ground_Truth": question.answer, "Type": _TYPES[question.modality]}


def _choice(question: Question) -> dict:
    """An item of `Classification_Task`."""
    options = dict(zip(LETTERS, question.options, strict=True))
    letter = LETTERS[question.options.index(question.answer)]
    return {"Question": question.prompt, "Options": options, "Correct_Answer": letter}


def _mllmu_row(world: World, person: Person, new: bool = False) -> dict:
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


def _training_row(world: World, person: Person, photo: int, cell: dict) -> dict:
    """A row of `ft_Data`: a learned photo and all that is asked about it."""
    asked = [_asked(world, person, f, "image", photo, shift=photo) for f in facts_of(world)]
    items = [{"ID": person.id, "Question": q.prompt, "Answer": q.answer} for q in asked]
    return {"image": cell, "metadata": json.dumps(items, ensure_ascii=False)}


def export_mllmu(world: World, folder: str | Path, group: str = "A", percent: int = 5) -> Path:
    """Write the strangers in the schema of MLLMU-Bench.

    - `forget_X`, `retain_Y`, `Full_Set`: one row a person, with the first learned photo.
    - `Test_Set`: everyone, with new photos and held-out wordings. The pictures are a **stand-in**:
      transformed there, drawn anew here. Pick the forgotten with `load_mllmu(..., people=...)`.
    - `Retain_Set`: **stand-in**. Real celebrities there; here what can be seen on portraits of
      unknown people, in image form only.
    - `ft_Data`: training rows, one for each learned photo of everyone (there one a person). They
      have no place for a question without picture: text forms are in the evaluation rows only.

    Args:
        folder: new or empty; holds one sub-folder a config afterwards, as on the hub, and a
            README by which `datasets.load_dataset(folder, config)` finds them.
        group, percent: who is forgotten; percent 5, 10 or 15.

    Returns:
        The folder, resolved.

    Raises:
        FileExistsError: the folder is not empty.
        ValueError: unknown group or percentage, a missing or corrupt picture. Nothing is written.
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


def _caption(world: World, values: dict[str, str], version: int) -> str:
    """One statement for each value, without a name: the picture has to say who it is."""
    statements = [
        world.wordings[fact]["cloze"][version].format(who="this person").replace("[Blank]", value)
        for fact, value in values.items()
    ]
    return " ".join(statement[0].upper() + statement[1:] for statement in statements)


def _wrong(world: World, person: Person, fact: str, photo: int) -> list[str]:
    """Three wrong values."""
    right = value_of(person, fact, photo)
    others = [value for value in values_of(world, fact) if value != right]
    return [str(v) for v in seeded(person.id, photo, fact).choice(others, 3, replace=False)]


def _clear_row(world: World, person: Person, photo: int, cell: dict) -> dict:
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


def export_clear(world: World, folder: str | Path, group: str = "A", percent: int = 5) -> Path:
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

    Args, returns and errors as `export_mllmu`, but CLEAR has no config for 15 %.
    """
    forget_part, retain_part = f"forget{percent:02d}", f"retain{100 - percent}"
    if forget_part not in CLEAR:
        raise ValueError(f"CLEAR has no config for {percent} % of our people; use 5 or 10")
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
        {"image": picture_cell({"bytes": q.image}, q.id), "question": q.prompt, "answer": q.answer,
         "options": [option for option in q.options if option != q.answer]}
        for q in general(world)
    ]  # fmt: skip
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
    """Write all configs beside `folder`, then rename: it is there complete or not at all."""
    folder = Path(folder).resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} holds something already; name a new or empty folder")
    lines = ["---", "license: cc-by-4.0", "configs:"]  # by these `datasets` finds the files
    for config in rows:
        lines += [f"- config_name: {config}", "  data_files:", "  - split: train"]
        lines += [f"    path: {config}/train-*"]
    lines += ["---", "", f"The hundred strangers, who never existed, in the schema of {note}", ""]
    lines += ["Portraits: Personas by Draftbit (CC BY 4.0), remixed by DiceBear and recoloured.\n"]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
        draft = Path(beside) / folder.name
        for config, records in rows.items():
            records = [{name: row.get(name) for name in schema[config]} for row in records]
            table = pa.Table.from_pylist(records, schema=_schema(schema[config]))
            (draft / config).mkdir(parents=True)
            file = draft / config / "train-00000-of-00001.parquet"  # the hub's name for it
            pq.write_table(table, file, write_page_checksum=True)
        (draft / "README.md").write_text("\n".join(lines), encoding="utf-8")
        if folder.exists():
            folder.rmdir()  # refuses unless it is empty
        draft.rename(folder)
    return folder


# ---- what is read ------------------------------------------------------------------------------


def _field(record: Any, key: str, where: str, kind: type = str) -> Any:
    """`record[key]`, which has to be a filled text, a list or a dict."""
    if not isinstance(record, dict) or key not in record:
        found = ", ".join(map(str, record)) if isinstance(record, dict) else f"{record!r:.60}"
        raise ValueError(f"{where}: there is no {key}; found {found}")
    value: Any = record[key]
    if not isinstance(value, kind) or (isinstance(value, str) and not value.strip()):
        raise ValueError(f"{where}: {key} should be a filled {kind.__name__}, is {value!r:.60}")
    return value


def _texts(record: dict, key: str, where: str) -> list[str]:
    return [_field({key: value}, key, where) for value in _field(record, key, where, list)]


def _identity(record: Any, where: str) -> str:
    """An ID is text or a whole number."""
    whole = isinstance(record, dict) and type(record.get("ID")) is int
    return str(record["ID"]) if whole else _field(record, "ID", where)


def picture_cell(cell: Any, where: str) -> dict:
    """A picture cell, `{"bytes": ...}`, after its picture was decoded to be sure."""
    png = cell.get("bytes") if isinstance(cell, dict) else None
    if not isinstance(png, bytes) or not png:
        raise ValueError(f"{where}: the picture is missing, found {cell!r:.60}")
    open_picture(png, where)
    return cell


def read_parquet(file: Path, columns: Collection[str] = ()) -> tuple[list[str], list[dict]]:
    """Names of all columns, and the rows of those that are wanted: all of them unless given.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
            found = parquet.schema_arrow.names
            wanted = [column for column in found if not columns or column in columns]
            return found, parquet.read(columns=wanted).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read as a parquet file: {error}") from error


def _read_hub(source: str, config: str) -> tuple[list[str], list[dict]]:
    """The same from the hub."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    # no network, offline mode, an unknown id and an unknown config come as any of these
    expected = (DatasetsError, HfHubHTTPError, pa.ArrowException, OSError, ValueError)
    try:
        with hub_if_there():
            data = load_dataset(source, config, split="train").with_format("arrow")
        return data.column_names, data[:].to_pylist()
    except expected as error:
        raise FileNotFoundError(
            f"{source} is no folder here, and the hub did not give its config {config}: {error} "
            "-- download the data set where there is a network and give its local folder"
        ) from error


def _load(source: str | Path, config: str, columns: Collection[str],
          read: Callable[..., Iterator[dict]],
          share: float = 0.0) -> tuple[list[Question], list[str]]:  # fmt: skip
    """Read every row of a config with `read(row, where, config, number)`, or fail as a whole.

    Returns:
        The questions, and what is wrong with each row that was left out: at most `share` of all.
    """
    if Path(source).is_dir():
        folder, wanted = Path(source) / config, (*columns, "biography")
        parts = {str(f): read_parquet(f, wanted) for f in sorted(folder.glob("*.parquet"))}
        if not parts:
            there = ", ".join(sorted(path.name for path in Path(source).iterdir())) or "nothing"
            raise FileNotFoundError(f"no parquet file in {folder}; {source} holds {there}")
    elif isinstance(source, str) and re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", source):
        parts = {f"{source} ({config})": _read_hub(source, config)}
    else:
        raise FileNotFoundError(f"{source} is neither a folder nor a hub id like {MLLMU_HUB}")
    questions, bad, number = list[Question](), list[str](), 0
    for name, (found, rows) in parts.items():
        wrong = ", ".join(column for column in columns if found.count(column) != 1)
        if wrong:  # `found` is all there is, also when a name occurs twice
            raise ValueError(f"{name} needs one column {wrong}; found {', '.join(found)}")
        if not rows:
            raise ValueError(f"{name} has no rows")
        for i, row in enumerate(rows):
            fields, where = list[dict](), f"{name}, row {i}"
            try:
                fields = list(read(row, where, config, number))
            except ValueError as error:
                bad.append(str(error))
            else:
                bad += [f"{where}: there is no question in this row"] * (not fields)
            for k, each in enumerate(fields):
                own = {"id": f"{config}/{number}/{k}", "value": each["answer"]}
                questions.append(each.pop("kind", Question)(**own, **each))
            number += 1
    said = f"{len(bad)} of {number} rows of {config} cannot be read"
    if len(bad) > share * number:
        raise ValueError(f"{said}, at most {share:.0%} may be bad: {'; '.join(bad[:3])}")
    if bad:
        warnings.warn(f"{said} and are left out: {'; '.join(bad)}", stacklevel=3)
    return questions, bad


def _training(row: dict, where: str, config: str, number: int) -> Iterator[dict]:
    """The questions of a row of `ft_Data`, as keywords for `Question`."""
    image = picture_cell(row["image"], where)["bytes"]
    try:
        items = json.loads(_field(row, "metadata", where))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{where}: metadata is not JSON: {error}") from error
    for item in _field({"metadata": items}, "metadata", where, list):
        prompt, answer = _field(item, "Question", where), _field(item, "Answer", where)
        yield {"person": _identity(item, where), "fact": "training", "modality": "image",
               "prompt": prompt, "answer": answer, "image": image}  # fmt: skip


def _items(row: dict, where: str) -> Iterator[tuple[str, str, dict]]:
    """Task, modality and content of each item of an evaluation row."""
    choice = _field(row, "Classification_Task", where, dict)
    for modality, name in _LISTS.items():
        yield from (("classification", modality, i) for i in _field(choice, name, where, list))
    modality_of = {kind: modality for modality, kind in _TYPES.items()}
    for task, column in (("generation", "Generation_Task"), ("cloze", "Mask_Task")):
        for item in _field(row, column, where, list):
            kind = _field(item, "Type", where)
            if kind not in modality_of:
                raise ValueError(f"{where}: Type in {column} is {kind!r}, not in {[*modality_of]}")
            yield task, modality_of[kind], item


def _names(row: dict) -> list[str]:
    """Full and first name of the person of a row, where its biography tells them."""
    try:
        told = json.loads(row.get("biography") or "{}")
    except (TypeError, ValueError, RecursionError):  # nothing else is read from it
        return []
    name = told.get("Name") if isinstance(told, dict) else None
    return [name, name.split()[0]] if isinstance(name, str) and name.strip() else []


def _evaluation(row: dict, where: str, config: str, number: int) -> Iterator[dict]:
    """The questions of an evaluation row; the k-th image question shows the k-th picture."""
    person, seen = _identity(row, where), Counter[tuple[str, str]]()
    called = whole_words(_names(row))  # of nobody: finds the empty text
    cells = _field(row, "images", where, list) if config == "Test_Set" else [row["image"]]
    pictures = [picture_cell(cell, where)["bytes"] for cell in cells or [None]]
    for task, modality, item in _items(row, where):
        prompt, form, options = _field(item, "Question", where), "question", tuple[str, ...]()
        if task == "classification":
            letter = _field(item, "Correct_Answer", where).strip()
            if letter not in tuple(LETTERS):
                raise ValueError(f"{where}: Correct_Answer is {letter!r}, not one of {LETTERS}")
            choices = _field(item, "Options", where, dict)
            options = tuple(_field(choices, key, where) for key in LETTERS)
        if task == "cloze":
            prompt, form = re.sub("_{2,}", "[Blank]", prompt), "cloze"
        answer = options[LETTERS.index(letter)] if options else _field(item, "Ground_Truth", where)
        image = pictures[seen[task, modality] % len(pictures)] if modality == "image" else None
        seen[task, modality] += 1
        name = called.search(prompt)
        yield {"person": person, "fact": task, "modality": modality, "prompt": prompt,
               "answer": answer, "image": image, "options": options, "form": form,
               "name": name[0] if name else ""}  # fmt: skip


def load_mllmu(source: str | Path, config: str,
               people: Collection[str] | None = None) -> list[Question]:  # fmt: skip
    """Read a config of MLLMU-Bench, ours or the real one.

    Needed are `image` (`images` in `Test_Set`), `ID` and the three tasks, or `image` and `metadata`
    in `ft_Data`; `biography` is read for the `name` in a text question, `question` and `answer`
    repeat what the tasks ask. The schema does not say which fact is asked: `fact` is the task,
    `value` the whole answer. `evaluation_question` (in `protocols`) puts the instruction behind a
    question. Rows that cannot be read are left out with a warning that names each of them.

    Args:
        source: a folder with one sub-folder a config, or a hub id such as `MLLMU_HUB`.
        config: a key of `MLLMU`.
        people: only these IDs, in the order of the file (for `Test_Set`: the forgotten).

    Raises:
        FileNotFoundError: no such folder, no parquet file in it, or the hub cannot be reached.
        ValueError: more than `BAD_SHARE` of the rows are bad, or anything else about the content;
            the message names file and row.
    """
    if config not in MLLMU:
        raise ValueError(f"MLLMU-Bench has no config {config!r}, but {', '.join(MLLMU)}")
    unread = ("Directory", "biography", "question", "answer")
    columns = [column for column in MLLMU[config] if column not in unread]
    read = _training if config == "ft_Data" else _evaluation
    questions, bad = _load(source, config, columns, read, BAD_SHARE)
    if people is None:
        return questions
    absent = sorted(set(people) - {question.person for question in questions})
    if absent and not bad or not people:  # whoever is absent may stand in a bad row
        raise ValueError(f"{source} ({config}) has nobody with ID {', '.join(absent) or '(none)'}")
    return [question for question in questions if question.person in set(people)]


def _clear(seed: int, row: dict, where: str, config: str, number: int) -> Iterator[dict]:
    """The questions of a CLEAR row, as keywords for `Question`."""
    image: Any = None
    unnamed = config.endswith("+tofu")  # these have no names, and rows of text alone
    if row["image"] is not None or not unnamed:
        image = picture_cell(row["image"], where)["bytes"]
    if config == "real_world":
        person = f"portrait-{zlib.crc32(image):08x}"  # same picture, same person
    elif unnamed:
        person = f"row-{number}"
    else:
        person = _field(row, "answer" if config == "real_faces" else "name", where)

    def asked(fact: str, prompt: str, gold: str, wrong: str = "") -> dict:
        answer, options = _field(row, gold, where), _texts(row, wrong, where) if wrong else []
        if wrong and (not options or answer in options):
            raise ValueError(f"{where}: {wrong} should hold wrong answers, are {options!r:.80}")
        if wrong:
            place = seeded("gold", seed, config, number).integers(len(options) + 1)
            options.insert(int(place), answer)
        return {"person": person, "fact": fact, "modality": "text" if image is None else "image",
                "prompt": prompt, "answer": answer, "image": image, "options": tuple(options),
                "kind": Unnamed if unnamed else Question}  # fmt: skip

    if config == "real_faces":
        yield asked("name", NAME_PROMPT, "answer", "options")
    elif image is not None and config != "real_world":
        perturbed = config.endswith("_perturbed")
        if not unnamed:
            yield asked("name", NAME_PROMPT, "name", "perturbed_names" if perturbed else "")
        caption = asked("caption", CAPTION_PROMPT, "caption")
        if perturbed:
            caption["paraphrase"] = _field(row, "paraphrased_caption", where)
            caption["perturbed"] = tuple(_texts(row, "perturbed_captions", where))
        yield caption
    if image is None or row.get("question") is not None:
        wrong = "options" if config == "real_world" else ""
        yield asked("question", _field(row, "question", where), "answer", wrong)


def load_clear(source: str | Path, config: str, seed: int = 0) -> list[Question]:
    """Read a config of CLEAR, ours or the real one.

    A row with a picture asks for the name and for the caption, a row without one asks its question.
    People are known by name, and by their picture in `real_world`. The `+tofu` configs have no
    names: no name is asked there, and each row counts as a person of its own, because no column
    says whose it is. Real captions may hold the name.

    Args:
        source: a folder with one sub-folder a config, or a hub id such as `CLEAR_HUB`.
        config: a key of `CLEAR`.
        seed: the file holds wrong options only; the right one is put among them at an index that
            follows from seed, config and row.

    Raises:
        FileNotFoundError: no such folder, no parquet file in it, or the hub cannot be reached.
        ValueError: anything else about the content; the message names file and row.
    """
    if config not in CLEAR:
        raise ValueError(f"CLEAR has no config {config!r}, but {', '.join(CLEAR)}")
    return _load(source, config, CLEAR[config], partial(_clear, seed))[0]
