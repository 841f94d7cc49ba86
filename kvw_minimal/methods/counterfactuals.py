"""The same question about somebody else: another picture or name, the same answer behind it.

And what the model is about to say then, token by token and layer by layer.
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
    """What the prompt calls the person; nothing where it does not."""
    own = question.name or question.person
    return own if own in question.prompt else ""


def invented(names: list[str]) -> list[str]:
    """Names that nobody has, each put together from two; or these, if all are of one word."""
    parts = [name.split(maxsplit=1) for name in sorted(set(names))]
    made = {f"{one[0]} {two[1]}" for one in parts for two in parts if len(two) > 1}
    return sorted(made - set(names) or set(names))


def counterfactual_people(
    request: Request, retained: bool = False
) -> tuple[list[bytes], list[str]]:
    """Pictures and names to ask about: of nobody where the request has such, else of the retained.

    Args:
        retained: of the retained in any case.

    Raises:
        ValueError: a forget question has neither a picture nor a name that could be exchanged.
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
    """Each question about somebody else, another one for each draw; the answer stays."""
    found, (faces, names) = [], others
    for row, question in enumerate(questions, draw):
        if question.image is not None and faces:
            question = replace(question, image=faces[row % len(faces)])
        if name_in_prompt(question) and names:
            own, new = name_in_prompt(question), names[row % len(names)]
            new = new if " " in own else new.split(maxsplit=1)[0]  # a first name for a first name
            question = replace(question, prompt=question.prompt.replace(own, new), name=new)
        found.append(question)
    return found


# --- what the layers say -------------------------------------------------------------------------


def decoder_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layer that each output projection belongs to, by its path."""
    paths = [re.sub(r"(\.\d+)\..*", r"\1", path) for path in find_projections(model)]
    return {path: model.get_submodule(path) for path in paths}


def hidden_state(output: torch.Tensor | tuple) -> torch.Tensor:
    """What a layer gives on, `[B, T, d_model]`; some wrap it."""
    return output[0] if isinstance(output, tuple) else output


@torch.no_grad()
def answer_states(
    model: nn.Module, batches: list[Batch]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """What a model is about to say at each token of each answer.

    Returns:
        for each question the probability of its tokens, `[tokens]` float32, and the states behind
        the layers, `[tokens, layers, d_model]`.
    """
    found = dict[int, tuple[torch.Tensor, torch.Tensor]]()
    layers, device = decoder_layers(model), next(model.parameters()).device
    for batch in share(model, batches):
        batch, where = batch.to(device), batch.predicts
        states = list[torch.Tensor]()

        def see(_, out, where=where, states=states):
            states.append(hidden_state(out)[where])

        with hook_inputs(layers, see, outputs=True):
            last = backbone(model)(**batch.inputs, use_cache=False)[0]  # [B, T, d_model]
        said = model.get_output_embeddings()(last[where]).float().softmax(-1)
        p = said.gather(1, batch.labels[:, 1:][where[:, :-1]][:, None])[:, 0]  # [tokens]
        counts = where.sum(1).tolist()
        split = zip(p.split(counts), torch.stack(states, 1).split(counts), strict=True)
        found |= dict(zip(batch.rows, split, strict=True))
    return [found[row] for row in sorted(found)]


def counterfactual_states(
    session: Session, questions: list[Question], others: tuple, draw: int = 0
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """`answer_states` when each question is asked about somebody else."""
    anew = substitute_subject(questions, others, draw)
    return answer_states(session.model, session.encode(session.processor, anew, session.batch_size))
