"""From questions to tensors: chat template, padding, and the mask of answering positions."""

from dataclasses import dataclass, replace

import torch

from .models import tokenizer_of
from .people import open_picture
from .questions import Question

IGNORED = -100


@dataclass
class Batch:
    """Questions of one modality, padded on the right.

    Attributes:
        inputs: what the model takes (`input_ids [B, T]`, `attention_mask [B, T]`, pictures).
        labels: `[B, T]`, token ids of answer and end of turn, -100 elsewhere.
        rows: `[B]`, where the questions stood in the list that was asked for.
    """

    inputs: dict[str, torch.Tensor]
    labels: torch.Tensor
    rows: list[int]

    @property
    def predicts(self) -> torch.Tensor:
        """`[B, T]` bool: position t is True where token t + 1 belongs to the answer.

        This is the published mask M: a causal model says the answer one position early.
        """
        mask = torch.zeros_like(self.labels, dtype=torch.bool)
        mask[:, :-1] = self.labels[:, 1:] != IGNORED
        return mask & self.inputs["attention_mask"].bool()

    def to(self, device) -> "Batch":
        inputs = {name: tensor.to(device) for name, tensor in self.inputs.items()}
        return replace(self, inputs=inputs, labels=self.labels.to(device))


def messages(question: Question, image: bool = True) -> list[dict]:
    """One user turn in the form that chat templates take."""
    content = [{"type": "text", "text": question.prompt}]
    if question.image is not None and image:
        content.insert(0, {"type": "image"})
    return [{"role": "user", "content": content}]


def render(processor, question: Question) -> tuple[str, str]:
    """Prompt and answer as text; the answer ends with the template's end of turn."""
    has_eyes = hasattr(processor, "image_processor")
    turns = messages(question)
    if not has_eyes:
        if question.image is not None:
            raise ValueError(f"{question.id} shows a picture, but this model has no eyes")
        turns = [{"role": "user", "content": question.prompt}]
    if getattr(processor, "chat_template", None) is None:  # a base model: plain text
        if question.image is not None:
            raise ValueError(
                f"{question.id}: a processor without chat template cannot place a picture"
            )
        return f"{question.prompt} ", question.answer + (tokenizer_of(processor).eos_token or "")
    prompt = processor.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    content = [{"type": "text", "text": question.answer}] if has_eyes else question.answer
    turns = [*turns, {"role": "assistant", "content": content}]
    whole = processor.apply_chat_template(turns, tokenize=False).rstrip()
    if not whole.startswith(prompt):
        raise ValueError(f"the chat template changes the prompt of {question.id} after its answer")
    return prompt, whole[len(prompt) :]


def _processed(processor, texts: list[str], questions: list[Question], side: str) -> dict:
    """Run the processor on a batch; pictures that cannot be decoded are named."""
    tokenizer = tokenizer_of(processor)
    tokenizer.padding_side = side
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    pictures = [open_picture(q.image, q.id) for q in questions if q.image is not None]
    arguments = {"text": texts, "padding": True, "return_tensors": "pt"}
    if pictures:
        arguments["images"] = [[picture] for picture in pictures]
    if tokenizer.bos_token and texts[0].startswith(tokenizer.bos_token):
        arguments["add_special_tokens"] = False  # the template has put it there already
    inputs = dict(processor(**arguments))
    inputs.pop("token_type_ids", None)
    return inputs


def _chunks(texts: list[str], questions: list[Question], batch_size: int) -> list[list[int]]:
    """Rows in batches: image and text apart, similar lengths together."""
    order = sorted(
        range(len(texts)), key=lambda row: (questions[row].image is None, len(texts[row]), row)
    )
    image = [row for row in order if questions[row].image is not None]
    text = order[len(image) :]
    return [
        rows[start : start + batch_size]
        for rows in (image, text)
        for start in range(0, len(rows), batch_size)
    ]


def answer_batches(processor, questions: list[Question], batch_size: int = 64) -> list[Batch]:
    """Encode questions with their answers, to be read by the model in one pass each.

    Raises:
        ValueError: no questions, an empty answer, or an answer whose tokens cannot be found
            behind its prompt; the message names the question.
    """
    if not questions:
        raise ValueError("there are no questions to encode")
    rendered = [render(processor, question) for question in questions]
    wholes = [prompt + answer for prompt, answer in rendered]
    tokenizer, batches = tokenizer_of(processor), []
    for rows in _chunks(wholes, questions, batch_size):
        asked = [questions[row] for row in rows]
        inputs = _processed(processor, [wholes[row] for row in rows], asked, "right")
        labels = torch.full_like(inputs["input_ids"], IGNORED)
        lengths = inputs["attention_mask"].sum(1).tolist()
        for i, row in enumerate(rows):
            answer = tokenizer(rendered[row][1], add_special_tokens=False)["input_ids"]
            start = lengths[i] - len(answer)
            found = inputs["input_ids"][i, start : lengths[i]].tolist()
            if not asked[i].answer.strip() or not answer or found != answer:
                raise ValueError(
                    f"no answer token found for {asked[i].id}: expected the tokens of "
                    f"{rendered[row][1]!r} at the end of the sequence"
                )
            labels[i, start : lengths[i]] = torch.tensor(answer)
        batches.append(Batch(inputs, labels, rows))
    return batches


def prompt_batches(processor, questions: list[Question], batch_size: int = 64) -> list[Batch]:
    """Encode prompts alone, padded on the left, for generation."""
    if not questions:
        raise ValueError("there are no questions to encode")
    prompts = [render(processor, question)[0] for question in questions]
    batches = []
    for rows in _chunks(prompts, questions, batch_size):
        asked = [questions[row] for row in rows]
        inputs = _processed(processor, [prompts[row] for row in rows], asked, "left")
        batches.append(Batch(inputs, torch.full_like(inputs["input_ids"], IGNORED), rows))
    return batches


def without_photo(questions: list[Question], pixels: int = 128) -> list[Question]:
    """The blank-image control: the same image questions with a grey picture."""
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (pixels, pixels), (128, 128, 128)).save(buffer, "PNG")
    return [replace(q, image=buffer.getvalue()) for q in questions if q.image is not None]
