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
_TYPES = {"image": "Image_Textual", "text": "Pure_Text"}  # names of the modalities
_LISTS = {modality: f"{kind}_Questions" for modality, kind in _TYPES.items()}
#: the largest share of bad rows in a config of MLLMU-Bench: one of the 25 rows of `forget_5`
BAD_SHARE = 0.05


class Unnamed(Question):
    """A question of a row that does not name its person."""


# ---- readers -----------------------------------------------------------------------------------


def _field(record: Any, key: str, where: str, kind: type = str) -> Any:
    """Value `record[key]`: a text that is not empty, a list or a dict; else raises ValueError."""
    if not isinstance(record, dict) or key not in record:
        present = ", ".join(map(str, record)) if isinstance(record, dict) else f"{record!r:.60}"
        raise ValueError(f"{where}: there is no {key}; found {present}")
    value: Any = record[key]
    if not isinstance(value, kind) or (isinstance(value, str) and not value.strip()):
        raise ValueError(f"{where}: {key} should be a filled {kind.__name__}, is {value!r:.60}")
    return value


def _texts(record: dict, key: str, where: str) -> list[str]:
    return [_field({key: value}, key, where) for value in _field(record, key, where, list)]


def _identity(record: Any, where: str) -> str:
    """ID of a record, as a text; in the data it is a text or an integer."""
    is_number = isinstance(record, dict) and type(record.get("ID")) is int
    return str(record["ID"]) if is_number else _field(record, "ID", where)


def picture_cell(cell: Any, where: str) -> dict:
    """Picture cell, `{"bytes": ...}`; raises ValueError if its picture cannot be decoded."""
    png = cell.get("bytes") if isinstance(cell, dict) else None
    if not isinstance(png, bytes) or not png:
        raise ValueError(f"{where}: the picture is missing, found {cell!r:.60}")
    open_picture(png, where)
    return cell


def read_parquet(file: Path, columns: Collection[str] = ()) -> tuple[list[str], list[dict]]:
    """Reads a parquet file: the names of all columns, and rows with the columns of `columns`.

    Args:
        columns: names of the columns to read; default: all columns.

    Raises:
        ValueError: the file cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
            names = parquet.schema_arrow.names
            selected = [column for column in names if not columns or column in columns]
            return names, parquet.read(columns=selected).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{file} cannot be read as a parquet file: {error}") from error


def read_hub(source: str, config: str | None = None) -> tuple[list[str], list[dict]]:
    """Reads the split `train` of a hub data set: the names of all columns, and all rows.

    Raises:
        FileNotFoundError: the hub cannot be reached, or has no such data set or config.
    """
    import pyarrow as pa
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    # no network, offline mode, an unknown id or an unknown config: each raises one of these
    description = f"its config {config}" if config else "it"
    expected = (DatasetsError, HfHubHTTPError, pa.ArrowException, OSError, ValueError)
    try:
        with hub_if_there():
            data = load_dataset(source, config, split="train").with_format("arrow")
        return data.column_names, data[:].to_pylist()
    except expected as error:
        raise FileNotFoundError(
            f"{source} is no folder here, and the hub did not give {description}: {error} "
            "-- download the data set where there is a network and give its local folder"
        ) from error


def _load(
    source: str | Path,
    config: str,
    columns: Collection[str],
    parse_row: Callable[..., Iterator[dict]],
    share: float = 0.0,
) -> tuple[list[Question], list[str]]:
    """Reads all rows of a config with `parse_row(row, where, config, number)`.

    Returns:
        The questions, and the problem of each row that was left out.

    Raises:
        FileNotFoundError: the source does not exist, or has no such config.
        ValueError: columns are missing, or more than `share` of the rows are bad.
    """
    if Path(source).is_dir():
        folder, selected = Path(source) / config, (*columns, "biography")
        parts = {str(f): read_parquet(f, selected) for f in sorted(folder.glob("*.parquet"))}
        if not parts:
            contents = ", ".join(sorted(path.name for path in Path(source).iterdir())) or "nothing"
            raise FileNotFoundError(f"no parquet file in {folder}; {source} holds {contents}")
    elif isinstance(source, str) and HUB_ID.fullmatch(source):
        parts = {f"{source} ({config})": read_hub(source, config)}
    else:
        raise FileNotFoundError(f"{source} is neither a folder nor a hub id like {MLLMU_HUB}")
    questions, bad, number = list[Question](), list[str](), 0
    for name, (names, rows) in parts.items():
        missing = ", ".join(column for column in columns if names.count(column) != 1)
        if missing:  # `names` holds a name twice if two columns have it
            raise ValueError(f"{name} needs one column {missing}; found {', '.join(names)}")
        if not rows:
            raise ValueError(f"{name} has no rows")
        for i, row in enumerate(rows):
            fields, where = list[dict](), f"{name}, row {i}"
            try:
                fields = list(parse_row(row, where, config, number))
            except ValueError as error:
                bad.append(str(error))
            else:
                if not fields:
                    bad.append(f"{where}: there is no question in this row")
            for index, entry in enumerate(fields):
                computed = {"id": f"{config}/{number}/{index}", "value": entry["answer"]}
                questions.append(entry.pop("kind", Question)(**computed, **entry))
            number += 1
    summary = f"{len(bad)} of {number} rows of {config} cannot be read"
    if len(bad) > share * number:
        raise ValueError(f"{summary}, at most {share:.0%} may be bad: {'; '.join(bad[:3])}")
    if bad:
        warnings.warn(f"{summary} and are left out: {'; '.join(bad)}", stacklevel=3)
    return questions, bad


def _training(row: dict, where: str, config: str, number: int) -> Iterator[dict]:
    """Questions of a row of `ft_Data`, as keyword arguments of `Question`."""
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
    """Full and first name of a row's person; empty if the biography does not hold them."""
    try:
        biography = json.loads(row.get("biography") or "{}")
    except (TypeError, ValueError, RecursionError):  # the biography is used for the name only
        return []
    name = biography.get("Name") if isinstance(biography, dict) else None
    return [name, name.split()[0]] if isinstance(name, str) and name.strip() else []


def _evaluation(row: dict, where: str, config: str, number: int) -> Iterator[dict]:
    """Questions of an evaluation row; the k-th image question shows the k-th picture."""
    person, counts = _identity(row, where), Counter[tuple[str, str]]()
    name_pattern = whole_words(_names(row))  # without names it finds the empty text
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
        image = pictures[counts[task, modality] % len(pictures)] if modality == "image" else None
        counts[task, modality] += 1
        name = name_pattern.search(prompt)
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
    """Reads a config of MLLMU-Bench, from this book's copy or the original.

    The columns `image` (`images` in `Test_Set`), `ID` and the three tasks are required; in
    `ft_Data`, `image` and `metadata`. `biography` gives the `name` in a text question. `question`
    and `answer` repeat the tasks and are not read. The schema does not name the fact in question,
    so `fact` is the task and `value` is the whole answer. `evaluation_question` (in `protocols`)
    appends the instruction. Rows that cannot be read are left out, with a warning about each.

    Args:
        source: a folder with one sub-folder for each config, or a hub id such as `MLLMU_HUB`.
        config: a key of `MLLMU`.
        people: only questions about these IDs, in the order of the file (for `Test_Set`: the people
            to forget).

    Raises:
        FileNotFoundError: the folder or its parquet files do not exist, or the hub cannot be
            reached.
        ValueError: more than `BAD_SHARE` of the rows are bad, or the content is wrong in another
            way; the message names file and row.
    """
    if config not in MLLMU:
        raise ValueError(f"MLLMU-Bench has no config {config!r}, but {', '.join(MLLMU)}")
    unread = ("Directory", "biography", "question", "answer")
    columns = [column for column in MLLMU[config] if column not in unread]
    parse_row = _training if config == "ft_Data" else _evaluation
    questions, bad = _load(source, config, columns, parse_row, BAD_SHARE)
    if people is None:
        return questions
    absent = sorted(set(people) - {question.person for question in questions})
    if absent and not bad or not people:  # a bad row may hold the absent person
        raise ValueError(f"{source} ({config}) has nobody with ID {', '.join(absent) or '(none)'}")
    return [question for question in questions if question.person in set(people)]


def _clear(seed: int, row: dict, where: str, config: str, number: int) -> Iterator[dict]:
    """Questions of a CLEAR row, as keyword arguments of `Question`."""
    image: Any = None
    unnamed = config.endswith("+tofu")  # no names, and some rows without a picture
    if row["image"] is not None or not unnamed:
        image = picture_cell(row["image"], where)["bytes"]
    if config == "real_world":
        person = f"portrait-{zlib.crc32(image):08x}"  # same picture, same person
    elif unnamed:
        person = f"row-{number}"
    else:
        person = _field(row, "answer" if config == "real_faces" else "name", where)

    def entry(fact: str, prompt: str, gold: str, wrong: str = "") -> dict:
        answer, options = _field(row, gold, where), _texts(row, wrong, where) if wrong else []
        if wrong and (not options or answer in options):
            raise ValueError(f"{where}: {wrong} should hold wrong answers, are {options!r:.80}")
        if wrong:
            index = seeded("gold", seed, config, number).integers(len(options) + 1)
            options.insert(int(index), answer)
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
        yield entry("name", NAME_PROMPT, "answer", "options")
    elif image is not None and config != "real_world":
        perturbed = config.endswith("_perturbed")
        if not unnamed:
            yield entry("name", NAME_PROMPT, "name", "perturbed_names" if perturbed else "")
        caption = entry("caption", CAPTION_PROMPT, "caption")
        if perturbed:
            caption["paraphrase"] = _field(row, "paraphrased_caption", where)
            caption["perturbed"] = tuple(_texts(row, "perturbed_captions", where))
        yield caption
    if image is None or row.get("question") is not None:
        wrong = "options" if config == "real_world" else ""
        yield entry("question", _field(row, "question", where), "answer", wrong)


def load_clear(source: str | Path, config: str, seed: int = 0) -> list[Question]:
    """Reads a config of CLEAR, from this book's copy or the original.

    A row with a picture asks for the name and for the caption. A row without a picture asks its
    question. The name identifies the person; in `real_world`, the picture does. The `+tofu` configs
    have no column for the person, so they ask for no name, and each row counts as a separate
    person. Original captions may hold the name.

    Args:
        source: a folder with one sub-folder for each config, or a hub id such as `CLEAR_HUB`.
        config: a key of `CLEAR`.
        seed: the file holds only the wrong options. Seed, config and row determine the index at
            which the right option is inserted.

    Raises:
        FileNotFoundError: the folder or its parquet files do not exist, or the hub cannot be
            reached.
        ValueError: the content is wrong; the message names file and row.
    """
    if config not in CLEAR:
        raise ValueError(f"CLEAR has no config {config!r}, but {', '.join(CLEAR)}")
    return _load(source, config, CLEAR[config], partial(_clear, seed))[0]
