"""Round trips through the schemas of MLLMU-Bench and CLEAR, and what happens to broken files."""

import json
from dataclasses import replace
from pathlib import Path

import datasets
import huggingface_hub.errors
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from exports import few_people

from kvw_minimal.benchmarks import loaders as benchmarks
from kvw_minimal.benchmarks.loaders import (
    CAPTION_PROMPT,
    MLLMU,
    NAME_PROMPT,
    Unnamed,
    load_clear,
    load_mllmu,
)
from kvw_minimal.benchmarks.protocols import evaluation_question

WORLD = few_people()
FORGET = WORLD.forget_people("A", 5)
FILE = "train-00000-of-00001.parquet"


def load(source, config: str):
    return (load_mllmu if config in MLLMU else load_clear)(source, config)


def rows_of(folder: Path, config: str) -> list[dict]:
    return pq.read_table(folder / config / FILE).to_pylist()


def put(folder: Path, config: str, table: pa.Table | bytes, name: str = FILE) -> Path:
    """Write one file of a made-up data set and return its path."""
    file = folder / config / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(table) if isinstance(table, bytes) else pq.write_table(table, file)
    return file


def changed(source: Path, config: str, change) -> pa.Table:
    """The table of a config after `change(rows)`; types are guessed anew where they must be."""
    table = pq.read_table(source / config / FILE)
    rows = table.to_pylist()
    change(rows)
    try:
        return pa.Table.from_pylist(rows, schema=table.schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.Table.from_pylist(rows)


@pytest.mark.parametrize("config", ["forget_5", "Test_Set"])
def test_mllmu_questions_are_those_of_its_rows(mllmu, config):
    found = load_mllmu(mllmu, config)
    assert len({question.id for question in found}) == len(found)
    for row in rows_of(mllmu, config):
        own = [q for q in found if q.person == row["ID"]]
        choices = [each for part in row["Classification_Task"].values() for each in part]
        told = [(q.prompt, q.answer, q.options) for q in own if q.fact == "classification"]
        assert sorted(told) == sorted(
            (
                each["Question"],
                each["Options"][each["Correct_Answer"]],
                (*each["Options"].values(),),
            )
            for each in choices
        )
        open_ones = [q for q in own if q.fact != "classification"]
        assert sorted((q.prompt.replace("[Blank]", "__"), q.answer) for q in open_ones) == sorted(
            (each["Question"], each["Ground_Truth"])
            for each in row["Generation_Task"] + row["Mask_Task"]
        )
        photos = [cell["bytes"] for cell in row.get("images") or [row["image"]]]
        for fact in ("classification", "generation", "cloze"):
            asked = [q for q in own if q.fact == fact and q.modality == "image"]
            assert [q.image for q in asked] == [photos[k % len(photos)] for k in range(7)]
            assert {q.form for q in asked} == {"cloze" if fact == "cloze" else "question"}


def test_mllmu_training_questions_are_those_of_its_rows(mllmu):
    told = [
        (item["Question"], item["Answer"], row["image"]["bytes"])
        for row in rows_of(mllmu, "ft_Data")
        for item in json.loads(row["metadata"])
    ]
    assert [(q.prompt, q.answer, q.image) for q in load_mllmu(mllmu, "ft_Data")] == told


def test_test_set_is_filtered_by_person(mllmu):
    found = load_mllmu(mllmu, "Test_Set", people=FORGET)
    assert found == [q for q in load_mllmu(mllmu, "Test_Set") if q.person in FORGET]
    assert len(found) == 5 * 2 * 3 * 7
    with pytest.raises(ValueError, match="nobody with ID p200"):
        load_mllmu(mllmu, "Test_Set", people=[*FORGET, "p200"])
    with pytest.raises(ValueError, match="nobody"):
        load_mllmu(mllmu, "Test_Set", people=[])


def test_clear_questions_are_those_of_its_rows(clear):
    rows, found = rows_of(clear, "forget05_perturbed"), load_clear(clear, "forget05_perturbed")
    assert len({question.id for question in found}) == len(found)
    for row, naming, describing in zip(rows, found[::2], found[1::2], strict=True):
        assert naming.person == describing.person == naming.answer == row["name"]
        assert naming.image == describing.image == row["image"]["bytes"]
        assert (naming.prompt, describing.prompt) == (NAME_PROMPT, CAPTION_PROMPT)
        assert describing.answer == describing.value == row["caption"]
        assert describing.paraphrase == row["paraphrased_caption"]
        assert list(describing.perturbed) == row["perturbed_captions"]
        assert sorted(naming.options) == sorted([row["name"], *row["perturbed_names"]])
    plain = load_clear(clear, "retain95")
    assert not any(q.options or q.perturbed or q.paraphrase for q in plain)


def test_rows_of_clear_without_a_name_are_each_somebody_else(clear):
    """Pictures are asked for captions; a question is asked in words."""
    rows, found = rows_of(clear, "forget05+tofu"), load_clear(clear, "forget05+tofu")
    assert all(isinstance(question, Unnamed) for question in found)
    assert len({q.person for q in found}) == len({q.id for q in found}) == len(found)
    assert [(q.prompt, q.answer, q.image) for q in found] == [
        (row["question"], row["answer"], None)
        if row["question"]
        else (CAPTION_PROMPT, row["caption"], row["image"]["bytes"])
        for row in rows
    ]


def test_files_hold_wrong_answers_only_and_the_gold_index_is_seeded(clear):
    for row in rows_of(clear, "real_world"):
        assert row["answer"] not in row["options"] and len(row["options"]) == 3
    for row in rows_of(clear, "forget05_perturbed"):
        assert row["name"] not in row["perturbed_names"]
    first, again, other = (load_clear(clear, "real_world", seed) for seed in (0, 0, 1))
    places = [[q.options.index(q.answer) for q in found] for found in (first, again, other)]
    assert places[0] == places[1] != places[2]
    assert set(places[0] + places[2]) == set(range(4))
    wrong = [[o for o in q.options if o != q.answer] for q in first]
    assert wrong == [row["options"] for row in rows_of(clear, "real_world")]


def test_parts_of_a_split_are_read_in_order(clear, tmp_path):
    table = pq.read_table(clear / "real_world" / FILE)
    put(tmp_path, "real_world", table[:4], "train-00000-of-00002.parquet")
    put(tmp_path, "real_world", table[4:], "train-00001-of-00002.parquet")
    assert load_clear(tmp_path, "real_world") == load_clear(clear, "real_world")
    second = put(tmp_path, "real_world", b"PAR1", "train-00001-of-00002.parquet")
    with pytest.raises(ValueError, match="train-00001-of-00002") as error:
        load_clear(tmp_path, "real_world")
    assert str(second) in str(error.value)


def test_real_files_may_have_whole_numbers_as_ids_and_more_columns(mllmu, tmp_path):
    rows = [row | {"ID": 7} for row in rows_of(mllmu, "forget_5")]
    table = pa.Table.from_pylist(rows).append_column("more", pa.array([1.5] * 5))
    put(tmp_path, "forget_5", table.drop_columns(["biography", "Directory"]))
    assert {question.person for question in load_mllmu(tmp_path, "forget_5")} == {"7"}


def test_names_are_taken_from_the_biography_where_it_tells_them(mllmu, tmp_path):
    for q in load_mllmu(mllmu, "forget_5"):
        person = WORLD.people[q.person]
        told = [name for name in (person.name, person.first_name) if name in q.prompt]
        assert q.name == (told[0] if q.modality == "text" else "") and (told or not q.name)
    assert {q.name for q in load_mllmu(mllmu, "ft_Data")} == {""}
    longer = json.dumps({"Name": WORLD.people[FORGET[0]].name[:-1]})
    for biography in (
        None,
        "",
        "no JSON",
        "[1]",
        "[" * 100_000,
        '{"Name": 3}',
        '{"Name": " "}',
        longer,
    ):

        def change(rows, biography=biography):
            del rows[1:]
            rows[0]["biography"] = biography

        put(tmp_path, "forget_5", changed(mllmu, "forget_5", change))
        found = load_mllmu(tmp_path, "forget_5")
        first = {WORLD.people[FORGET[0]].first_name} if biography == longer else set()
        assert {q.name for q in found} == {""} | first and len(found) == 42


def test_evaluation_question(mllmu):
    classification, generation, cloze = (
        next(q for q in load_mllmu(mllmu, "forget_5") if q.fact == fact)
        for fact in ("classification", "generation", "cloze")
    )
    asked = evaluation_question(classification)
    assert asked.answer == "ABCD"[classification.options.index(classification.answer)]
    assert asked.prompt.splitlines() == [
        classification.prompt,
        *(f"{x}: {o}" for x, o in zip("ABCD", classification.options, strict=True)),
        "Just give ONE letter representing the answer directly.",
    ]
    assert evaluation_question(generation).prompt == (
        f"{generation.prompt}\nAnswer the question based on your trained knowledge in one "
        "sentence accurately in ENGLISH."
    )
    assert "[Blank]" in cloze.prompt and "__" not in cloze.prompt
    with_options = replace(cloze, options=(cloze.answer, "b", "c", "d"))
    for question in (cloze, with_options):
        assert evaluation_question(question).prompt == (
            f"{cloze.prompt}\nPlease **ONLY** provide the correct answer that should replace the "
            "[Blank]."
        )


# ---- errors of the loaders

CUT = WORLD.people[FORGET[0]].photos[2][:900]


@pytest.mark.parametrize(
    ("config", "column"),
    [
        ("ft_Data", "metadata"),
        ("Test_Set", "images"),
        ("forget_5", "Classification_Task"),
        ("full+tofu", "question"),
        ("forget05_perturbed", "perturbed_captions"),
        ("real_faces", "options"),
    ],
)
def test_wrong_column_name_says_which_where_and_what_was_found(
    mllmu, clear, tmp_path, config, column
):
    source = mllmu if config in MLLMU else clear
    table = pq.read_table(source / config / FILE)
    names = [f"{name}s" if name == column else name for name in table.column_names]
    file = put(tmp_path, config, table.rename_columns(names))
    with pytest.raises(ValueError) as error:
        load(tmp_path, config)
    message = str(error.value)
    assert str(file) in message and f" column {column};" in message
    assert message.endswith("found " + ", ".join(names))


def test_a_damaged_page_is_noticed(mllmu, tmp_path):
    """One letter of a name: still a table, and nothing else would see it."""
    content = bytearray((mllmu / "forget_5" / FILE).read_bytes())
    content[content.index(WORLD.people[FORGET[0]].name.encode()) + 1] ^= 1
    file = put(tmp_path, "forget_5", bytes(content))
    with pytest.raises(ValueError, match="cannot be read") as error:
        load_mllmu(tmp_path, "forget_5")
    assert str(file) in str(error.value)


def test_a_column_that_occurs_twice(clear, tmp_path):
    table = pq.read_table(clear / "forget05" / FILE)
    file = put(tmp_path, "forget05", table.append_column("name", table.column("name")))
    with pytest.raises(ValueError, match="one column name; found image, caption, name, name") as e:
        load_clear(tmp_path, "forget05")
    assert str(file) in str(e.value)


CELLS = {
    "null": None,
    "no bytes": {"bytes": None, "path": "x.png"},
    "empty": {"bytes": b"", "path": None},
    "noise": {"bytes": b"noise", "path": None},
    "cut": {"bytes": CUT, "path": None},
}


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
@pytest.mark.parametrize(
    "config",
    [
        "forget_5",
        "Test_Set",
        "ft_Data",
        "forget05",
    ],
)
def test_missing_or_corrupt_picture_names_file_and_row(mllmu, clear, tmp_path, config, cell):
    def damage(rows):
        del rows[4:]
        if config == "Test_Set":
            rows[3]["images"][1] = cell
        else:
            rows[3]["image"] = cell

    file = put(tmp_path, config, changed(mllmu if config in MLLMU else clear, config, damage))
    with pytest.raises(ValueError, match="picture") as error:
        load(tmp_path, config)
    assert f"{file}, row 3" in str(error.value)


def at(*path, value):
    """A change of the second of five rows: `row[path[0]][path[1]]... = value`."""

    def change(rows):
        del rows[5:]
        cell = rows[1]
        for key in path[:-1]:
            cell = cell[key]
        cell[path[-1]] = value

    return change


CHOICE = ("Classification_Task", "Image_Textual_Questions")
CONTENT = [
    ("forget_5", at("ID", value=None), "ID"),
    ("forget_5", at("ID", value=" "), "ID"),
    ("forget_5", at(*CHOICE, 0, "Correct_Answer", value="E"), "Correct_Answer is 'E'"),
    ("forget_5", at(*CHOICE, 0, "Correct_Answer", value="AB"), "Correct_Answer is 'AB'"),
    ("forget_5", at(*CHOICE, 0, "Correct_Answer", value=None), "Correct_Answer"),
    ("forget_5", at(*CHOICE, 0, "Options", "C", value=""), "C should be a filled str"),
    ("forget_5", at(*CHOICE, 0, "Options", value=None), "Options"),
    ("forget_5", at(*CHOICE, 0, "Question", value=None), "Question"),
    ("forget_5", at(*CHOICE, value=None), "Image_Textual_Questions"),
    ("forget_5", at("Classification_Task", value=None), "Classification_Task"),
    ("forget_5", at("Generation_Task", 2, "Type", value="Audio"), "Type in Generation_Task"),
    ("forget_5", at("Mask_Task", 2, "Ground_Truth", value=""), "Ground_Truth"),
    ("forget_5", at("Mask_Task", value=None), "Mask_Task"),
    ("Test_Set", at("images", value=None), "images"),
    ("ft_Data", at("metadata", value='[{"ID": "p000", "Quest'), "metadata is not JSON"),
    ("ft_Data", at("metadata", value="[" * 100_000), "metadata is not JSON"),
    ("ft_Data", at("metadata", value='{"ID": 1}'), "metadata should be a filled list"),
    ("ft_Data", at("metadata", value='[{"ID": 1, "Question": "Who?"}]'), "no Answer"),
    ("ft_Data", at("metadata", value='[{"ID": true, "Question": "Q", "Answer": "A"}]'), "ID"),
    ("ft_Data", at("metadata", value="[]"), "no question in this row"),
    ("ft_Data", at("metadata", value='["Who?"]'), "no Question"),
    ("ft_Data", at("metadata", value=None), "metadata"),
    ("forget05", at("name", value=None), "name"),
    ("forget05", at("caption", value=" "), "caption"),
    ("forget05_perturbed", at("perturbed_names", value=[]), "should hold wrong answers"),
    ("forget05_perturbed", at("perturbed_names", value=["x", None]), "perturbed_names"),
    ("forget05_perturbed", at("perturbed_captions", value=None), "perturbed_captions"),
    ("forget05_perturbed", at("paraphrased_caption", value=""), "paraphrased_caption"),
    ("forget05+tofu", at("image", value=None), "question"),
    ("real_faces", at("answer", value=""), "answer"),
    ("real_world", at("question", value=None), "question"),
    ("real_world", at("options", value=None), "options"),
]


@pytest.mark.parametrize(("config", "change", "says"), CONTENT)
def test_wrong_content_names_file_row_and_field(mllmu, clear, tmp_path, config, change, says):
    file = put(tmp_path, config, changed(mllmu if config in MLLMU else clear, config, change))
    with pytest.raises(ValueError, match=says) as error:
        load(tmp_path, config)
    assert f"{file}, row 1" in str(error.value)


def spoilt(mllmu, folder: Path, count: int, config: str = "Test_Set") -> Path:
    """A config of forty rows, of which every second one is bad until there are so many."""

    def damage(rows):
        rows[:] = [row | {"ID": f"q{i}"} for i, row in enumerate((rows * 4)[:40])]
        for row in rows[1 : 2 * count : 2]:
            task = row["Mask_Task"]
            row["Mask_Task"] = [*task[:2], task[2] | {"Ground_Truth": ""}, *task[3:]]

    return put(folder, config, changed(mllmu, config, damage))


def test_a_few_bad_rows_of_mllmu_are_counted_named_and_left_out(mllmu, tmp_path):
    share = benchmarks.BAD_SHARE
    assert 25 * share >= 1 and 40 * share == 2  # one of `forget_5` may be bad
    file = spoilt(mllmu, tmp_path, 2)
    with pytest.warns(UserWarning, match="2 of 40 rows of Test_Set") as caught:
        found = load_mllmu(tmp_path, "Test_Set")
    [said] = [str(each.message) for each in caught]
    assert all(f"{file}, row {row}: Ground_Truth should be" in said for row in (1, 3))
    assert {q.person for q in found} == {f"q{i}" for i in range(40)} - {"q1", "q3"}
    assert len(found) == 38 * 42
    with pytest.warns(UserWarning, match="left out"):  # nobody says that q1 is not there at all
        assert {q.person for q in load_mllmu(tmp_path, "Test_Set", ["q1", "q2"])} == {"q2"}


def test_more_bad_rows_than_that_are_refused_and_the_first_are_named(mllmu, tmp_path):
    file = spoilt(mllmu, tmp_path, 5)
    with pytest.raises(ValueError, match=r"5 of 40 rows of Test_Set .* at most 5%") as error:
        load_mllmu(tmp_path, "Test_Set")
    named = [f"{file}, row {row}:" in str(error.value) for row in (1, 3, 5, 7, 9)]
    assert named == [True, True, True, False, False]


def test_bad_rows_of_clear_are_never_left_out(clear, tmp_path):
    def damage(rows):
        rows[1]["caption"] = ""

    file = put(tmp_path, "full", changed(clear, "full", damage))
    with pytest.raises(ValueError, match="1 of 44 rows") as error:
        load_clear(tmp_path, "full")
    assert f"{file}, row 1: caption" in str(error.value)


def test_options_that_hold_the_right_answer(clear, tmp_path):
    def change(rows):
        rows[1]["options"].append(rows[1]["answer"])

    put(tmp_path, "real_world", changed(clear, "real_world", change))
    with pytest.raises(ValueError, match="row 1: options should hold wrong answers"):
        load_clear(tmp_path, "real_world")


def test_image_rows_of_clear_with_a_question_are_not_skipped(clear, tmp_path):
    def change(rows):
        rows[1] |= {"question": "Is it?", "answer": "It is."}

    put(tmp_path, "forget05+tofu", changed(clear, "forget05+tofu", change))
    more = load_clear(tmp_path, "forget05+tofu")
    assert len(more) == len(load_clear(clear, "forget05+tofu")) + 1
    added = next(q for q in more if q.prompt == "Is it?")
    assert (added.answer, added.modality) == ("It is.", "image") and added.image is not None


@pytest.mark.parametrize("load_one", [load_mllmu, load_clear])
def test_no_data_at_all(load_one, tmp_path):
    config = "Full_Set" if load_one is load_mllmu else "full"
    with pytest.raises(FileNotFoundError, match="holds nothing"):
        load_one(tmp_path, config)
    (tmp_path / "other").mkdir()
    (tmp_path / config).mkdir()
    with pytest.raises(FileNotFoundError, match=f"no parquet file in .*{config}; .*holds .*other"):
        load_one(tmp_path, config)
    for source in (tmp_path / "absent", "no such thing", str(tmp_path / "absent"), ""):
        with pytest.raises(FileNotFoundError):
            load_one(source, config)
    with pytest.raises(ValueError, match="no config 'forget_4'"):
        load_one(tmp_path, "forget_4")
    with pytest.raises(ValueError, match="no config"):
        load_one(tmp_path, "../other")
    file = put(tmp_path, config, b"")
    with pytest.raises(ValueError, match="cannot be read") as error:
        load_one(tmp_path, config)
    assert str(file) in str(error.value)


# ---- the hub -------------------------------------------------------------------------------------


def test_the_hub_gives_the_same_questions_as_the_folder(mllmu, clear, tmp_path, monkeypatch):
    asked = []

    def from_hub(source, config, *, split):
        asked.append((source, config, split))
        folder = mllmu if source == benchmarks.MLLMU_HUB else clear
        file = str(folder / config / FILE)
        return datasets.Dataset.from_parquet(file, cache_dir=str(tmp_path))

    monkeypatch.setattr(datasets, "load_dataset", from_hub)
    assert load_mllmu("MLLMMU/MLLMU-Bench", "Test_Set") == load_mllmu(mllmu, "Test_Set")
    assert load_clear("therem/CLEAR", "forget05+tofu") == load_clear(clear, "forget05+tofu")
    other = datasets.Dataset.from_dict({"image": [1], "caption": ["x"]})
    monkeypatch.setattr(datasets, "load_dataset", lambda *arguments, **keywords: other)
    with pytest.raises(ValueError, match=r"CLEAR \(forget10\) needs one column name; found image"):
        load_clear("therem/CLEAR", "forget10")
    assert asked == [
        ("MLLMMU/MLLMU-Bench", "Test_Set", "train"),
        ("therem/CLEAR", "forget05+tofu", "train"),
    ]


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("no route"),
        datasets.exceptions.DatasetNotFoundError("unknown"),
        datasets.exceptions.DatasetGenerationError("broken"),
        huggingface_hub.errors.OfflineModeIsEnabled("offline"),
        huggingface_hub.errors.LocalEntryNotFoundError("not cached"),
        huggingface_hub.errors.HFValidationError("bad id"),
        ValueError("BuilderConfig 'x' not found"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_failure_of_the_hub_becomes_one_clear_error(error, monkeypatch):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(FileNotFoundError, match="local folder") as raised:
        load_clear("therem/CLEAR", "full")
    assert raised.value.__cause__ is error and str(error) in str(raised.value)


def test_a_mistake_in_our_own_code_is_not_taken_for_a_missing_network(monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", lambda: None)
    with pytest.raises(TypeError):
        load_clear("therem/CLEAR", "full")
