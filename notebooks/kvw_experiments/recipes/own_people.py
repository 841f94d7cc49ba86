"""The recipe of a small model that knows your own people: `python -m kvw_minimal book teach`."""

from pathlib import Path
from shlex import quote
from typing import Any

import torch
from torch import nn

from kvw_minimal import Request, request
from kvw_minimal.atomic_io import replacing_folder
from kvw_minimal.batches import answer_batches
from kvw_minimal.benchmarks.jsonl import read_request, write_questions
from kvw_minimal.questions import Question
from kvw_minimal.scores import read
from kvw_minimal.strangers.people import REPORT_GROUPS
from kvw_minimal.zoo.catalogue import BOOK, load

RIGHT, REPEATED = 98, 95  # percent of the answers: yours, and those that were taught before
EPOCHS, EVERY = 150, 5  # at most, and between two counts of right answers
SPARING = '{"retain_penalty": 300}'  # few people of a user's own weigh little in a mean
STRANGERS = 5  # people of the book to retain; thirty would outweigh the few of a user


def right(model, processor, questions: list[Question]) -> float:
    """How many percent of the answers are right, word for word."""
    return 100 * read(model, answer_batches(processor, questions)).exact.mean()


def teach(
    folder: Path, lessons: list[Question], known: list[Question], epochs: int = EPOCHS
) -> tuple[nn.Module, Any]:
    """Teaches the model in a folder, or `pocket`, until its answers are right; saves it there.

    Each epoch repeats 100 of the questions that `pocket` was taught before.

    Args:
        lessons: the new questions.
        known: the old questions.

    Returns:
        The model and its processor.

    Raises:
        ValueError: too few answers are right after `epochs`; the folder holds what was learned.
    """
    model, processor = load(folder if folder.is_dir() else f"{BOOK}pocket")
    order = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    for epoch in range(epochs + 1):
        if epoch % EVERY == 0:
            yours, others = (right(model, processor, q) for q in (lessons, known[::10]))
            print(
                f"{folder}, epoch {epoch}: {yours:.0f} % of your answers are right, {others:.0f} % "
                "of the book's",
                flush=True,
            )
            with replacing_folder(folder) as scratch:
                model.save_pretrained(scratch)
                processor.save_pretrained(scratch)
            if yours >= RIGHT and others >= REPEATED:
                return model, processor
        repeated = [known[i] for i in torch.randperm(len(known), generator=order)[:100]]
        batches = answer_batches(processor, lessons + repeated, batch_size=32)
        for i in torch.randperm(len(batches), generator=order):
            loss = model(**batches[i].inputs, labels=batches[i].labels).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    raise ValueError(
        f"{folder}: after {epochs} epochs {yours:.0f} % of your answers and {others:.0f} % of the "
        f"book's are right, {RIGHT} and {REPEATED} are asked. Type the command again "
        "to go on; if that does not help, look for a question with two answers, or take fewer "
        "people and a new folder"
    )


def teach_people(file: Path, folder: Path) -> str:
    """Makes a model that knows the people of a file, its oracle, and questions for `unlearn`.

    The questions are those of the file, those about five people of the book to retain, and its
    general questions, because an edit spares only what it is asked to spare. A second call goes on.

    Args:
        file: questions with the sets `forget` and `retain`, as `validate` accepts them.
        folder: gets `model`, `oracle` (never taught the set `forget`) and `people.jsonl`.

    Returns:
        What was made, and the command to type next.

    Raises:
        FileNotFoundError, ValueError: the file cannot be read, the folder belongs to other
            questions, or too few answers are right in the end.
    """
    added, book = read_request(file), request(f"strangers:{REPORT_GROUPS[0]}")
    added.check_people()
    sets = book_beside(added, book)
    questions = folder / "people.jsonl"
    if questions.is_file() and request(questions).eval_sets != sets:
        raise ValueError(f"{folder} belongs to other questions than {file}; name another folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_questions(questions, sets)
    known = book.questions() + book.general
    pocket, processor = load(f"{BOOK}pocket")
    before = right(pocket, processor, book.general)
    model, processor = teach(folder / "model", added.questions() + added.general, known)
    teach(folder / "oracle", added.retain + added.general, known)
    after = right(model, processor, book.general)
    model_at, oracle_at, save = (quote(f"{folder}/{it}") for it in ("model", "oracle", "rewrite"))
    return (
        f"Made: {model_at}, {oracle_at} and {questions}. The model answers {after:.0f} % of the "
        f"general questions of the book, pocket {before:.0f} %: the price of teaching, not of an "
        f"edit.\nnext: python -m kvw_minimal unlearn --model {model_at} --questions "
        f"{quote(str(questions))} --oracle {oracle_at} --method 'layerwise rewrite' --settings "
        f"'{SPARING}' --sham-draws 2 --save {save}"
    )


def book_beside(added: Request, book: Request) -> dict[str, list[Question]]:
    """The sets of a user's questions, with five people of the book to retain and its general."""
    retained = set(book.retain_people[:STRANGERS])
    return added.eval_sets | {
        "retain": added.retain + [q for q in book.retain if q.person in retained],
        "general": added.general + book.general,
    }
