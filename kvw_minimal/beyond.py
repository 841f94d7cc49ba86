"""The same edit where nothing is seen: on a language model alone, and on a model that hears.

    python -m kvw_minimal.beyond      # data/results/beyond.parquet; minutes

Nothing of the method is written again here. A *pupil* is a model together with what it is asked
and how that becomes a `Batch`; from there on it is `coefficients.measure`, `edits.one_pass`,
`unlearn.published` and `trials.read`, as everywhere in this book.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from . import questions, voices
from .ablations import level, write_table
from .batches import Batch, answer_batches
from .coefficients import Coefficients, measure
from .edits import Edit, one_pass
from .headline import KEPT, STRENGTHS
from .models import find_file, fingerprint, load
from .people import REPORT_GROUPS, TUNING_GROUPS, World, load_people
from .questions import Question
from .results import DECIDING, RESULTS, provenance, source_hash
from .trials import Ground, read
from .unlearn import published, select, sham_people

PUPILS = ("pocket", "text only", "voices")
PUBLISHED = (2.0, 4.0, 6.5, 9.0, 13.0)  # strengths that the published schedule may have
TABLE = RESULTS / "beyond.parquet"

#: hash of all code that decides these results, as it was imported
SOURCE = source_hash((*DECIDING, "trials", "voices", "beyond"))


@dataclass
class Pupil:
    """A model, what it is asked, and how questions become batches.

    Attributes:
        sets: `(world, forget) -> {set: questions}`, what is read.
        about: `(world, people) -> questions`, what coefficients are taken from.
        encode: `(questions, batch size) -> batches`.
    """

    name: str
    model: Any
    sets: Callable[[World, list[str]], dict[str, list[Question]]]
    about: Callable[[World, list[str]], list[Question]]
    encode: Callable[[list[Question], int], list[Batch]]


def without_eyes(model, processor) -> tuple[torch.nn.Module, Any]:
    """The language model of a LLaVA with a Llama, alone: a `LlamaForCausalLM` and a tokenizer.

    The weights are copies; an edit of the one does not touch the other.
    """
    from transformers import AutoTokenizer, LlamaForCausalLM

    alone = LlamaForCausalLM(model.config.text_config)
    alone.model.load_state_dict(model.model.language_model.state_dict())
    alone.lm_head.load_state_dict(model.lm_head.state_dict())
    tokenizer = AutoTokenizer.from_pretrained(processor.tokenizer.name_or_path)
    tokenizer.chat_template = voices.CHAT  # the text turns of `pocket`
    return alone.to(model.dtype).eval(), tokenizer


def by_name(sets: dict[str, list[Question]]) -> dict[str, list[Question]]:
    """Only the text questions; a set that has none is left out."""
    found = {name: [q for q in qs if q.modality == "text"] for name, qs in sets.items()}
    return {name: qs for name, qs in found.items() if qs}


def pupil(name: str) -> Pupil:
    """One of `PUPILS`, or `voices-oracle-A`.

    Raises:
        ValueError: there is no such pupil.
    """
    if name.startswith("voices"):
        model, processor = voices.load(name)
        return Pupil(name, model, voices.question_sets, voices.about,
                     partial(voices.answer_batches, processor))  # fmt: skip
    if name not in PUPILS:
        raise ValueError(f"no pupil {name!r}; there are {', '.join(PUPILS)}")
    model, processor = load("pocket")
    if name == "pocket":
        return Pupil(name, model, questions.question_sets, questions.about,
                     partial(answer_batches, processor))  # fmt: skip
    alone, tokenizer = without_eyes(model, processor)
    return Pupil(name, alone, lambda world, forget: by_name(questions.question_sets(world, forget)),
                 partial(questions.about, modalities=("text",)),
                 partial(answer_batches, tokenizer))  # fmt: skip


def everyone(pupil: Pupil, world: World) -> Coefficients:
    """What the questions about all hundred people call."""
    asked = pupil.about(world, list(world.people))
    return measure(pupil.model, pupil.encode(asked, 128), [q.person for q in asked])


def edit_of(pupil: Pupil, world: World, measured: Coefficients, people: list[str], way: str,
            strength: float) -> Edit:  # fmt: skip
    """The edit that forgets some people: `one pass`, `published`, or `random columns`."""
    retain = select(measured, world.retain_people(people))
    if way == "published":
        asked = pupil.about(world, people)
        owners = [question.person for question in asked]
        return published(pupil.model, pupil.encode(asked, 1), owners, retain, strength=strength)
    edit = one_pass(pupil.model, select(measured, people), retain, strength)
    if way == "random columns":  # the same gates within each layer, dealt out at random
        rng = np.random.default_rng(0)
        dealt = [row[torch.from_numpy(rng.permutation(len(row)))] for row in edit.contrast]
        edit = replace(edit, contrast=torch.stack(dealt))
    return edit


@dataclass
class Reader:
    """Reads the sets of one request on a pupil as it is.

    Attributes:
        every: of the others, every so manyth person is asked.
    """

    pupil: Pupil
    world: World
    forget: list[str]
    every: int = 1

    def __post_init__(self) -> None:
        sets = self.pupil.sets(self.world, self.forget)
        asked = set(self.world.retain_people(self.forget)[:: self.every])
        sets["retain"] = [q for q in sets["retain"] if q.person in asked]
        batches = {name: self.pupil.encode(asked, 128) for name, asked in sets.items()}
        self.ground = Ground(self.pupil.model, None, self.world, {},
                             cache={tuple(self.forget): (sets, batches)})  # fmt: skip

    def read(self, names: Iterable[str], group: str, made_for: str = "edit",
             **how) -> pd.DataFrame:  # fmt: skip
        """Rows as in `ablations.parquet`; the trial is the pupil and how the edit was made."""
        key = json.dumps({"pupil": self.pupil.name} | how)
        rows = read(self.ground, self.forget, names, False)
        return pd.DataFrame(rows).assign(made_for=made_for, trial=key, group=group)


def tune(pupil: Pupil, world: World, measured: Coefficients) -> tuple[pd.DataFrame, dict]:
    """Every strength on the tuning groups, and the one of each way that the headline's rule takes:
    what forgets most while retain stays at `KEPT` of vanilla."""  # fmt: skip
    rows = []
    for group in TUNING_GROUPS:
        forget = world.forget_people(group, 5)
        reader = Reader(pupil, world, forget, every=3)  # as the headline tunes
        rows.append(reader.read(("forget", "retain"), group, way="vanilla"))
        for way, strengths in (("one pass", STRENGTHS), ("published", PUBLISHED)):
            for strength in strengths:
                edit = edit_of(pupil, world, measured, forget, way, strength)
                with edit.on(pupil.model):
                    found = reader.read(("forget", "retain"), group, way=way, strength=strength)
                rows.append(found)
    table = pd.concat(rows, ignore_index=True)
    return table, {way: choose(table, way) for way in ("one pass", "published")}


def choose(rows: pd.DataFrame, way: str) -> float:
    """The strength of a way that forgets most on the tuning groups while retain is kept."""
    tuning = rows[rows["group"].isin(TUNING_GROUPS)]
    parts = {key: part for key, part in tuning.groupby("trial", observed=True)}
    how = {key: json.loads(key) for key in parts}
    (vanilla,) = [parts[key] for key in parts if how[key]["way"] == "vanilla"]
    least = KEPT * level(vanilla, "retain")
    own = [key for key in parts if how[key]["way"] == way]
    good = [key for key in own if level(parts[key], "retain") >= least]
    best = (min(good, key=lambda key: level(parts[key], "forget")) if good
            else max(own, key=lambda key: level(parts[key], "retain")))  # fmt: skip
    return how[best]["strength"]


def study(pupil: Pupil, world: World, groups: Iterable[str] = REPORT_GROUPS) -> pd.DataFrame:
    """Tuned on the tuning groups; vanilla, both schedules, their shams and random columns."""
    measured = everyone(pupil, world)
    tuning, strengths = tune(pupil, world, measured)
    rows = [tuning]
    for group in groups:
        forget = world.forget_people(group, 5)
        reader = Reader(pupil, world, forget)
        names = list(reader.ground.cache[tuple(forget)][0])
        rows.append(reader.read(names, group, way="vanilla"))
        others = sham_people(world, 5, REPORT_GROUPS.index(group))
        for way, strength in (*strengths.items(), ("random columns", strengths["one pass"])):
            for made_for, people in (("edit", forget), ("sham", others)):
                if (way, made_for) == ("random columns", "sham"):
                    continue
                edit = edit_of(pupil, world, measured, people, way, strength)
                with edit.on(pupil.model):
                    read_now = names if made_for == "edit" else ["forget", *{"general"} & {*names}]
                    rows.append(reader.read(read_now, group, made_for, way=way,
                                            strength=strength))  # fmt: skip
    return pd.concat(rows, ignore_index=True)


def oracle_rows(world: World, groups: Iterable[str] = REPORT_GROUPS) -> list[pd.DataFrame]:
    """The model of voices that never met a group, where it is made."""
    found = []
    for group in groups:
        name = f"voices-oracle-{group}"
        if find_file(name, "model.safetensors"):
            own = replace(pupil(name), name="voices")
            reader = Reader(own, world, world.forget_people(group, 5))
            names = list(reader.ground.cache[tuple(reader.forget)][0])
            found.append(reader.read(names, group, way="oracle"))
    return found


def main(words: list[str]) -> None:
    """Measure all pupils."""
    if words:
        sys.exit(__doc__)
    start, world, parts, prints = time.perf_counter(), load_people(), [], {}
    for name in tqdm(PUPILS, "pupils", disable=None):
        own = pupil(name)
        parts.append(study(own, world))
        prints[name] = fingerprint(own.model)
    parts += oracle_rows(world)
    made = provenance(
        seconds=time.perf_counter() - start, seed=0, data=world.checksum, trials=SOURCE,
        models=prints, command="python -m kvw_minimal.beyond",
    )  # fmt: skip
    write_table(pd.concat(parts, ignore_index=True), made, TABLE)


if __name__ == "__main__":
    main(sys.argv[1:])
