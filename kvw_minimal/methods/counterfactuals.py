"""Counterfactuals: the same question about another person, with the same answer.

The question gets another picture or name. `answer_states` reads the hidden states of the model,
token by token and layer by layer.
"""

import re
from dataclasses import replace

import torch
from torch import nn

from ..batches import Batch
from ..beginnings import share
from ..coefficients import hook_inputs
from ..forget_request import Request, people_of
from ..models import backbone, find_projections
from ..questions import Question, name_in_prompt, seeded
from ..session import Session


def invented(names: list[str]) -> list[str]:
    """Invents names from pairs of the names. If all names are single words, returns them."""
    parts = [name.split(maxsplit=1) for name in sorted(set(names))]
    pairs = {f"{one[0]} {two[1]}" for one in parts for two in parts if len(two) > 1}
    return sorted(pairs - set(names) or set(names))


def coined(names: list[str], forgotten: list[str]) -> list[str]:
    """Coins names of which every part is new, in a fixed random order.

    A part joins the first half of a known part to the second half of another one. No half comes
    from a name to forget. Names that cannot be coined, such as numbers, give an empty list.

    >>> coined(["Maren Holt", "Ida Brandt"], ["Tomas Weil"])
    ['Iden Hondt', 'Mara Bralt']
    """
    known, avoided = (
        [name.split(maxsplit=1) for name in sorted(set(side))] for side in (names, forgotten)
    )
    taken = {part for name in known + avoided for part in name}
    columns = list[list[str]]()
    for place in range(min(map(len, known), default=0)):
        pairs = [halves(part) for part in sorted({name[place] for name in known})]
        avoided_halves = [halves(name[place]) for name in avoided if len(name) > place]
        heads, tails = ({pair[side] for pair in avoided_halves} for side in (0, 1))
        new = {
            head + tail
            for head, _ in pairs
            for _, tail in pairs
            if head not in heads and tail not in tails
        }
        columns.append(sorted(new - taken))
    count = max(map(len, columns), default=0) if all(columns) else 0
    orders = [seeded("coined", place).permutation(count) for place in range(len(columns))]
    return [
        " ".join(
            words[order[row] % len(words)] for words, order in zip(columns, orders, strict=True)
        )
        for row in range(count)
    ]


def halves(word: str) -> tuple[str, str]:
    """The first and the second half of a word; the first is not shorter."""
    return word[: (len(word) + 1) // 2], word[(len(word) + 1) // 2 :]


People = tuple[list[bytes], list[str]]  # pictures and names of counterfactual people


def counterfactual_people(request: Request, retained: bool = False) -> People:
    """Pictures and names of counterfactual people, in random order.

    The pictures show strangers (`request.general`) if the request has some, else retained people.
    The names are invented.

    Args:
        retained: whether to use pictures and names of retained people only.

    Raises:
        ValueError: a forget question without a picture or a name to replace.
    """
    known = [name_in_prompt(q) for q in request.retain if name_in_prompt(q)]
    names = sorted(set(known)) if retained else invented(known)
    return _shuffled(request, _pictures(request, [] if retained else request.general), names)


def unfamiliar_people(request: Request, held_out: bool = False) -> People:
    """Pictures of strangers and names of which every part is new (`coined`), in random order.

    Args:
        held_out: whether to give the people for probes: other names, and the strangers of the
            evaluation set `general` if it has some that the request does not show. No method moves
            anything to these people.

    Raises:
        ValueError: a forget question without a picture or a name to replace.
    """
    strangers = request.general
    if held_out:
        shown = {q.image for q in request.general}
        unseen = [q for q in request.eval_sets.get("general", []) if q.image not in shown]
        strangers = unseen or strangers
    known = [name_in_prompt(q) for q in request.retain if name_in_prompt(q)]
    forgotten = [name_in_prompt(q) for q in request.forget if name_in_prompt(q)]
    names = coined([name for name in known if " " in name] or known, forgotten)
    return _shuffled(request, _pictures(request, strangers), names[held_out::2] or invented(known))


def _pictures(request: Request, strangers: list[Question]) -> list[bytes]:
    """One picture of each stranger, or of each retained person if no stranger has a picture."""
    seen = {q.person: q.image for q in strangers if q.image is not None}
    return list(
        (seen or {q.person: q.image for q in request.retain if q.image is not None}).values()
    )


def _shuffled(request: Request, faces: list[bytes], names: list[str]) -> People:
    for question in request.forget:
        if not (faces if question.image is not None else name_in_prompt(question) and names):
            raise ValueError(
                f"{question.id} cannot be asked about somebody else: it needs a "
                "picture, or a name in its prompt, and others in the retain set to "
                "put in their place"
            )
    rng = seeded("somebody else", request.seed)
    return [faces[i] for i in rng.permutation(len(faces))], rng.permutation(names).tolist()


def substitute_subject(questions: list[Question], others: People, draw: int = 0) -> list[Question]:
    """Asks each question about another person; the answer stays. `draw` selects the person."""
    return [_about(question, others, row) for row, question in enumerate(questions, draw)]


def substitute_person(questions: list[Question], others: People, draw: int = 0) -> list[Question]:
    """As `substitute_subject`, with one other person for all questions about the same person."""
    people = people_of(questions)
    first = draw * len(people)
    return [_about(q, others, first + people.index(q.person)) for q in questions]


def _about(question: Question, others: People, row: int) -> Question:
    """The question about the counterfactual person in a row of `others`, which repeats itself."""
    faces, names = others
    if question.image is not None and faces:
        question = replace(question, image=faces[row % len(faces)])
    if name_in_prompt(question) and names:
        old, new = name_in_prompt(question), names[row % len(names)]
        new = new if " " in old else new.split(maxsplit=1)[0]  # a first name for a first name
        question = replace(question, prompt=question.prompt.replace(old, new), name=new)
    return question


# --- the states of the layers --------------------------------------------------------------------


def decoder_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The decoder layer of each output projection, by its path."""
    paths = [re.sub(r"(\.\d+)\..*", r"\1", path) for path in find_projections(model)]
    return {path: model.get_submodule(path) for path in paths}


def hidden_state(output: torch.Tensor | tuple) -> torch.Tensor:
    """The hidden state `[B, T, d_model]` in the output of a layer, which may be a tuple."""
    return output[0] if isinstance(output, tuple) else output


@torch.no_grad()
def answer_states(
    model: nn.Module, batches: list[Batch]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Probabilities and hidden states at the positions that predict the answer tokens.

    Returns:
        For each question the probabilities of its answer tokens, `[tokens]` float32, and the states
        behind the layers, `[tokens, layers, d_model]`.
    """
    by_row = dict[int, tuple[torch.Tensor, torch.Tensor]]()
    layers, device = decoder_layers(model), next(model.parameters()).device
    for batch in share(model, batches):
        batch, where = batch.to(device), batch.predicts
        states = list[torch.Tensor]()

        def see(_, out, where=where, states=states):
            states.append(hidden_state(out)[where])

        with hook_inputs(layers, see, outputs=True):
            last = backbone(model)(**batch.inputs, use_cache=False)[0]  # [B, T, d_model]
        probabilities = model.get_output_embeddings()(last[where]).float().softmax(-1)
        p = probabilities.gather(1, batch.labels[:, 1:][where[:, :-1]][:, None])[:, 0]  # [tokens]
        counts = where.sum(1).tolist()
        split = zip(p.split(counts), torch.stack(states, 1).split(counts), strict=True)
        by_row |= dict(zip(batch.rows, split, strict=True))
    return [by_row[row] for row in sorted(by_row)]


def counterfactual_states(
    session: Session, questions: list[Question], others: tuple, draw: int = 0
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """`answer_states` of each question about another person (`substitute_subject`)."""
    changed = substitute_subject(questions, others, draw)
    batches = session.encode(session.processor, changed, session.batch_size)
    return answer_states(session.model, batches)
