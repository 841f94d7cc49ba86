"""Two public benchmarks as questions: MLLMU-Bench and CLEAR, from a local folder or a hub id.

Sources: the data set cards of `MLLMMU/MLLMU-Bench` and `therem/CLEAR`.
"""

import json
import re
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
from ..questions import Question, seeded
from ..zoo.catalogue import hub_if_there
from .multiple_choice import LETTERS, whole_words

MLLMU_HUB, CLEAR_HUB = "MLLMMU/MLLMU-Bench", "therem/CLEAR"
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_EVALUATION = (
    "ID",
    "Directory",
    "biography",
    "question",
    "answer",
    "Classification_Task",
    "Generation_Task",
    "Mask_Task",
)
_ONE_PICTURE = (
    "Full_Set",
    "Retain_Set",
    "forget_5",
    "forget_10",
    "forget_15",
    "retain_95",
    "retain_90",
    "retain_85",
)
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


def read_hub(source: str, config: str | None = None) -> tuple[list[str], list[dict]]:
    """The same from the hub, of its split `train`.

    Raises:
        FileNotFoundError: the hub cannot be reached, or has no such data set or config.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    # no network, offline mode, an unknown id and an unknown config come as any of these
    wanted = f"its config {config}" if config else "it"
    expected = (DatasetsError, HfHubHTTPError, pa.ArrowException, OSError, ValueError)
    try:
        with hub_if_there():
            data = load_dataset(source, config, split="train").with_format("arrow")
        return data.column_names, data[:].to_pylist()
    except expected as error:
        raise FileNotFoundError(
            f"{source} is no folder here, and the hub did not give {wanted}: {error} "
            "-- download the data set where there is a network and give its local folder"
        ) from error


def _load(
    source: str | Path,
    config: str,
    columns: Collection[str],
    read: Callable[..., Iterator[dict]],
    share: float = 0.0,
) -> tuple[list[Question], list[str]]:
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
    elif isinstance(source, str) and HUB_ID.fullmatch(source):
        parts = {f"{source} ({config})": read_hub(source, config)}
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
        yield {
            "person": _identity(item, where),
            "fact": "training",
            "modality": "image",
            "prompt": prompt,
            "answer": answer,
            "image": image,
        }


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
        yield {
            "person": person,
            "fact": task,
            "modality": modality,
            "prompt": prompt,
            "answer": answer,
            "image": image,
            "options": options,
            "form": form,
            "name": name[0] if name else "",
        }


def load_mllmu(
    source: str | Path, config: str, people: Collection[str] | None = None
) -> list[Question]:
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
        return {
            "person": person,
            "fact": fact,
            "modality": "text" if image is None else "image",
            "prompt": prompt,
            "answer": answer,
            "image": image,
            "options": tuple(options),
            "kind": Unnamed if unnamed else Question,
        }

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
