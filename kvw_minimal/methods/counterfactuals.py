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
from ..forget_request import Request
from ..models import backbone, find_projections
from ..questions import Question, seeded
from ..session import Session


def name_in_prompt(question: Question) -> str:
    """The name of the person in the prompt; empty if the prompt has no name."""
    name = question.name or question.person
    return name if name in question.prompt else ""


def invented(names: list[str]) -> list[str]:
    """Invents names from pairs of the names. If all names are single words, returns them."""
    parts = [name.split(maxsplit=1) for name in sorted(set(names))]
    pairs = {f"{one[0]} {two[1]}" for one in parts for two in parts if len(two) > 1}
    return sorted(pairs - set(names) or set(names))


def counterfactual_people(
    request: Request, retained: bool = False
) -> tuple[list[bytes], list[str]]:
    """Pictures and names of counterfactual people, in random order.

    The pictures show strangers (`request.general`) if the request has some, else retained people.
    The names are invented.

    Args:
        retained: whether to use pictures and names of retained people only.

    Raises:
        ValueError: a forget question without a picture or a name to replace.
    """
    seen = {q.person: q.image for q in request.general if q.image is not None and not retained}
    faces = list(
        (seen or {q.person: q.image for q in request.retain if q.image is not None}).values()
    )
    known = [name_in_prompt(q) for q in request.retain if name_in_prompt(q)]
    names = sorted(set(known)) if retained else invented(known)
    for question in request.forget:
        if not (faces if question.image is not None else name_in_prompt(question) and names):
            raise ValueError(
                f"{question.id} cannot be asked about somebody else: it needs a "
                "picture, or a name in its prompt, and others in the retain set to "
                "put in their place"
            )
    rng = seeded("somebody else", request.seed)
    return [faces[i] for i in rng.permutation(len(faces))], rng.permutation(names).tolist()


def substitute_subject(
    questions: list[Question], others: tuple[list[bytes], list[str]], draw: int = 0
) -> list[Question]:
    """Asks each question about another person; the answer stays. `draw` selects the person."""
    changed, (faces, names) = [], others
    for row, question in enumerate(questions, draw):
        if question.image is not None and faces:
            question = replace(question, image=faces[row % len(faces)])
        if name_in_prompt(question) and names:
            old, new = name_in_prompt(question), names[row % len(names)]
            new = new if " " in old else new.split(maxsplit=1)[0]  # a first name for a first name
            question = replace(question, prompt=question.prompt.replace(old, new), name=new)
        changed.append(question)
    return changed


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
