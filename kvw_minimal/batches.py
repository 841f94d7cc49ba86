"""From questions to tensors: chat template, padding, and the mask of answering positions."""

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from PIL import Image

from .models import tokenizer_of
from .questions import Question

IGNORED = -100
PIXELS = 40_000_000  # more would take a minute and gigabytes for each question


def open_picture(png: bytes, name: str) -> Image.Image:
    """Decode a PNG or JPEG of at most `PIXELS` pixels to RGB; of others only the header is read.

    Raises:
        ValueError: it cannot be decoded; the message names it.
    """
    try:
        picture = Image.open(io.BytesIO(png), formats=("PNG", "JPEG"))
        if picture.width * picture.height > PIXELS:
            raise ValueError(f"{picture.width} x {picture.height} is more than {PIXELS:,} pixels")
        return picture.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as why:
        raise ValueError(f"the picture of {name} cannot be decoded as PNG or JPEG: {why}") from why


@dataclass
class Batch:
    """Questions of one modality, padded on the right.

    Attributes:
        inputs: what the model takes (`input_ids [B, T]`, `attention_mask [B, T]`, pictures).
        labels: `[B, T]`, token ids of answer and end of turn, -100 elsewhere.
        rows: `[B]`, where the questions stood in the list that was asked for.
        ends: `[B, T]` bool, which of the labels end the turn; None: none of them.
    """

    inputs: dict[str, torch.Tensor]
    labels: torch.Tensor
    rows: list[int]
    ends: torch.Tensor | None = None

    @property
    def predicts(self) -> torch.Tensor:
        """`[B, T]` bool: position t is True where token t + 1 is of the answer or ends its turn.

        A causal model says the answer one position early. Losses and scores are taken here.
        """
        return self._before(self.labels != IGNORED)

    @property
    def answers(self) -> torch.Tensor:
        """`[B, T]` bool: position t is True where token t + 1 is of the answer itself.

        This is the mask M of the coefficients: in the authors' code the end of turn is not in it.
        """
        own = self.labels != IGNORED
        return self._before(own if self.ends is None else own & ~self.ends)

    def _before(self, tokens: torch.Tensor) -> torch.Tensor:
        """The positions one before some tokens, padding left out."""
        mask = torch.zeros_like(tokens)
        mask[:, :-1] = tokens[:, 1:]
        return mask & self.inputs["attention_mask"].bool()

    def to(self, device) -> "Batch":
        inputs = {
            name: given.to(device) if isinstance(given, torch.Tensor) else given
            for name, given in self.inputs.items()
        }
        ends = None if self.ends is None else self.ends.to(device)
        return replace(self, inputs=inputs, labels=self.labels.to(device), ends=ends)


def render(processor, question: Question) -> tuple[str, str]:
    """Prompt and answer as text; the answer ends with the template's end of turn."""
    if "labels" in getattr(processor, "model_input_names", ()):
        raise ValueError("PaliGemma reads a prompt as a whole, the answer apart: not supported")
    has_eyes, has_image = hasattr(processor, "image_processor"), bool(question.pictures)
    if has_image and not has_eyes:
        raise ValueError(f"{question.id} shows a picture, but this model has no eyes")
    if getattr(processor, "chat_template", None) is None:  # a base model: plain text
        if has_image:
            raise ValueError(f"{question.id}: there is no chat template to place a picture with")
        return f"{question.prompt} ", question.answer + (tokenizer_of(processor).eos_token or "")

    answer = [{"type": "text", "text": question.answer}] if has_eyes else question.answer
    asked, said = question.messages(has_eyes), {"role": "assistant", "content": answer}
    prompt = processor.apply_chat_template(asked, add_generation_prompt=True, tokenize=False)
    whole = processor.apply_chat_template([*asked, said], tokenize=False).rstrip()
    if not whole.startswith(prompt):
        raise ValueError(f"the chat template changes the prompt of {question.id} after its answer")
    return prompt, whole[len(prompt) :]


def _batches(
    processor, texts: list[str], questions: list[Question], batch_size: int, side: str
) -> Iterator[Batch]:
    """Questions in batches, nothing labelled: image and text apart, similar lengths together.

    `token_type_ids` stay where they mark a picture, whose pieces then see each other (Gemma 3).
    """
    if not questions:
        raise ValueError("there are no questions to encode")
    tokenizer, given = tokenizer_of(processor), {"padding": True, "return_tensors": "pt"}
    tokenizer.padding_side = side
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    if tokenizer.bos_token and texts[0].startswith(tokenizer.bos_token):
        given["add_special_tokens"] = False  # the template has put it there already
    order = sorted(range(len(texts)), key=lambda row: (len(texts[row]), row))
    for with_image in (True, False):
        kind = [row for row in order if bool(questions[row].pictures) == with_image]
        for rows in (kind[i : i + batch_size] for i in range(0, len(kind), batch_size)):
            some = [questions[row] for row in rows]
            shown = [[open_picture(each, q.id) for each in q.pictures] for q in some]
            images = {"images": shown} if with_image else {}
            read = processor(text=[texts[row] for row in rows], **images, **given)
            inputs = {
                key: own
                for key, own in read.items()
                if key != "token_type_ids" or with_image and own.any()
            }
            yield Batch(inputs, torch.full_like(inputs["input_ids"], IGNORED), rows)


def answer_batches(processor, questions: list[Question], batch_size: int = 64) -> list[Batch]:
    """Encode questions with their answers, to be read by the model in one pass each.

    Raises:
        ValueError: no questions, an empty answer, or an answer whose tokens cannot be found
            behind its prompt; the message names the question.
    """
    rendered = [render(processor, question) for question in questions]
    batches = list(_batches(processor, [*map("".join, rendered)], questions, batch_size, "right"))
    for batch in batches:
        batch.ends = torch.zeros_like(batch.labels, dtype=torch.bool)
        for i, row in enumerate(batch.rows):
            text, said = rendered[row][1], questions[row].answer.strip()
            turn = tokenizer_of(processor)(
                text, add_special_tokens=False, return_offsets_mapping=True
            )
            answer, end = turn["input_ids"], int(batch.inputs["attention_mask"][i].sum())
            here = slice(end - len(answer), end)
            found = batch.inputs["input_ids"][i, here].tolist()
            if not said or not answer or found != answer or said not in text:
                raise ValueError(f"no answer token found for {questions[row].id}: not {text!r}")
            batch.labels[i, here] = torch.tensor(answer)
            over = text.index(said) + len(said)  # where the end of turn begins
            batch.ends[i, here] = torch.tensor([a >= over for a, _ in turn["offset_mapping"]])
    return batches


def prompt_batches(processor, questions: list[Question], batch_size: int = 64) -> list[Batch]:
    """Encode prompts alone, padded on the left, for generation."""
    prompts = [render(processor, question)[0] for question in questions]
    return list(_batches(processor, prompts, questions, batch_size, "left"))


def without_photo(questions: list[Question], pixels: int = 128) -> list[Question]:
    """The blank-image control: the same image questions with a grey picture."""
    buffer = io.BytesIO()
    Image.new("RGB", (pixels, pixels), (128, 128, 128)).save(buffer, "PNG")
    return [replace(q, image=buffer.getvalue()) for q in questions if q.image is not None]
