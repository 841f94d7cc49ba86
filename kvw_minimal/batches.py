"""From questions to tensors: chat template, padding, and the mask of answer positions."""

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from PIL import Image

from .models import tokenizer_of
from .questions import Question

IGNORED = -100
PIXELS = 40_000_000  # a larger picture takes a minute and gigabytes


def open_picture(png: bytes, name: str) -> Image.Image:
    """Decodes a PNG or JPEG of at most `PIXELS` pixels to RGB; of larger ones it reads the header.

    Raises:
        ValueError: the picture cannot be decoded; the message says `name`.
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
        inputs: the inputs of the model (`input_ids [B, T]`, `attention_mask [B, T]`, pictures).
        labels: `[B, T]`, the token ids of answer and end of turn, -100 elsewhere.
        rows: `[B]`, the index of each question in the encoded list.
        ends: `[B, T]` bool, the labels that end the turn; None: no label does.
    """

    inputs: dict[str, torch.Tensor]
    labels: torch.Tensor
    rows: list[int]
    ends: torch.Tensor | None = None

    @property
    def predicts(self) -> torch.Tensor:
        """`[B, T]` bool: True at position t if token t + 1 is in the answer or ends its turn.

        A causal model predicts each token one position early. Losses and scores use this mask.
        """
        return self._before(self.labels != IGNORED)

    @property
    def answers(self) -> torch.Tensor:
        """`[B, T]` bool: True at position t if token t + 1 is in the answer itself.

        This is the mask M of the coefficients. As in the authors' code it leaves out the end of
        the turn.
        """
        labelled = self.labels != IGNORED
        return self._before(labelled if self.ends is None else labelled & ~self.ends)

    def _before(self, tokens: torch.Tensor) -> torch.Tensor:
        """The positions one before the marked tokens, without padding."""
        mask = torch.zeros_like(tokens)
        mask[:, :-1] = tokens[:, 1:]
        return mask & self.inputs["attention_mask"].bool()

    def to(self, device) -> "Batch":
        inputs = {
            name: value.to(device) if isinstance(value, torch.Tensor) else value
            for name, value in self.inputs.items()
        }
        ends = None if self.ends is None else self.ends.to(device)
        return replace(self, inputs=inputs, labels=self.labels.to(device), ends=ends)


def render(processor, question: Question) -> tuple[str, str]:
    """Renders prompt and answer as text; the answer ends with the template's end of turn.

    Raises:
        ValueError: a question that the processor cannot render; the message says why.
    """
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
    messages, reply = question.messages(has_eyes), {"role": "assistant", "content": answer}
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    whole = processor.apply_chat_template([*messages, reply], tokenize=False).rstrip()
    if not whole.startswith(prompt):
        raise ValueError(f"the chat template changes the prompt of {question.id} after its answer")
    return prompt, whole[len(prompt) :]


def _batches(
    processor, texts: list[str], questions: list[Question], batch_size: int, side: str
) -> Iterator[Batch]:
    """Encodes texts in batches without labels: image and text apart, similar lengths together.

    `token_type_ids` stay where they mark a picture: its tokens then attend to each other (Gemma 3).
    """
    if not questions:
        raise ValueError("there are no questions to encode")
    tokenizer, options = tokenizer_of(processor), {"padding": True, "return_tensors": "pt"}
    tokenizer.padding_side = side
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    if tokenizer.bos_token and texts[0].startswith(tokenizer.bos_token):
        options["add_special_tokens"] = False  # the template has added it already
    order = sorted(range(len(texts)), key=lambda row: (len(texts[row]), row))
    for with_image in (True, False):
        kind = [row for row in order if bool(questions[row].pictures) == with_image]
        for rows in (kind[i : i + batch_size] for i in range(0, len(kind), batch_size)):
            pictures = [
                [open_picture(png, questions[row].id) for png in questions[row].pictures]
                for row in rows
            ]
            images = {"images": pictures} if with_image else {}
            encoded = processor(text=[texts[row] for row in rows], **images, **options)
            inputs = {
                name: tensor
                for name, tensor in encoded.items()
                if name != "token_type_ids" or with_image and tensor.any()
            }
            yield Batch(inputs, torch.full_like(inputs["input_ids"], IGNORED), rows)


def reply_tokens(
    processor, prompt: str, reply: str, name: str
) -> tuple[list[int], list[tuple[int, int]]]:
    """The ids of the tokens of a reply as they follow its prompt, and their places in the reply.

    White space at the end of a prompt may belong to the first token of the reply, which then
    starts at a negative place.

    Raises:
        ValueError: a token has other characters of both; the message says `name`.
    """
    whole = tokenizer_of(processor)(
        prompt + reply, add_special_tokens=False, return_offsets_mapping=True
    )
    places = [(start - len(prompt), end - len(prompt)) for start, end in whole["offset_mapping"]]
    first = sum(end <= 0 for _, end in places)  # the tokens of the prompt
    start, end = places[first] if first < len(places) else (0, 0)
    if start < 0 and prompt[start:].strip():
        token = (prompt + reply)[len(prompt) + start : len(prompt) + end]
        raise ValueError(
            f"no answer token found for {name}: the token {token!r} crosses the border between "
            f"the chat template and the answer, {prompt[-20:]!r} and {reply[:20]!r}"
        )
    return whole["input_ids"][first:], places[first:]


def answer_batches(processor, questions: list[Question], batch_size: int = 64) -> list[Batch]:
    """Encodes questions with their answers: the model reads each in one pass.

    Raises:
        ValueError: no questions, an empty answer, or an answer whose tokens do not follow its
            prompt; the message names the question.
    """
    rendered = [render(processor, question) for question in questions]
    batches = list(_batches(processor, [*map("".join, rendered)], questions, batch_size, "right"))
    for batch in batches:
        batch.ends = torch.zeros_like(batch.labels, dtype=torch.bool)
        for i, row in enumerate(batch.rows):
            prompt, text = rendered[row]
            reply, name = questions[row].answer.strip(), questions[row].id
            answer, spans = reply_tokens(processor, prompt, text, name)
            end = int(batch.inputs["attention_mask"][i].sum())
            here = slice(end - len(answer), end)
            last = batch.inputs["input_ids"][i, here].tolist()
            if not reply or not answer or last != answer or reply not in text:
                raise ValueError(f"no answer token found for {name}: {reply!r} in {text!r}")
            batch.labels[i, here] = torch.tensor(answer)
            over = text.index(reply) + len(reply)  # the end of turn begins here
            batch.ends[i, here] = torch.tensor([start >= over for start, _ in spans])
    return batches


def prompt_batches(processor, questions: list[Question], batch_size: int = 64) -> list[Batch]:
    """Encodes prompts without answers, padded on the left, for generation.

    Raises:
        ValueError: no questions, or one that the processor cannot render.
    """
    prompts = [render(processor, question)[0] for question in questions]
    return list(_batches(processor, prompts, questions, batch_size, "left"))


def png_bytes(picture: Image.Image) -> bytes:
    """Encodes a picture as PNG."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def without_photo(questions: list[Question], pixels: int = 128) -> list[Question]:
    """The blank-image control: the image questions with a grey square of `pixels` x `pixels`."""
    grey = png_bytes(Image.new("RGB", (pixels, pixels), (128, 128, 128)))
    return [replace(q, image=grey) for q in questions if q.image is not None]
