"""The model card of an exported edit: its method, its scores beside the sham's, its limits."""

import json

from huggingface_hub import EvalResult, ModelCardData
from rich.box import MARKDOWN

from ..edits import ComposedEdit, Edit
from ..method import name_of_method
from ..results import (
    BEYOND,
    malformed,
    more_or_less,
    outcome,
    people_text,
    pooled_mean,
    remarks,
    score_table,
    unmeasured,
)

#: code that loads each format: the imports, and the lines that use the unedited model
LOAD = {
    "merged": ("", "processor = {processor}.from_pretrained(FOLDER)"),
    "peft": ("from peft import PeftModel\n", "model = PeftModel.from_pretrained(model, FOLDER)"),
    "factors": (
        "import json\nimport torch\nfrom safetensors.torch import load_file\n",
        """tensors = load_file(f"{{FOLDER}}/edit.safetensors")
with torch.no_grad():
    for name in json.load(open(f"{{FOLDER}}/edit.json"))["parameters"]:
        weight = model.get_parameter(name)
        weight.copy_({how})""",
    ),
}
#: what a name in this code stands for
PLACES = {
    "FOLDER": "FOLDER is this folder.",
    "UNEDITED": "FOLDER is this folder, UNEDITED that of the unedited model.",
}
PRIVATE = "For whom it was made is not said here: who asked to be forgotten is personal data, too."
LIMITS = """- An answer that is not given any more may still be there: asked another way, taught
  again, rounded or looked into, a model can give back what an edit hides. `python -m kvw_minimal
  audit` asks for that.
- An edit may take what nobody asked about. Questions about other people, and general ones, say how
  much.
- Whoever has the model before has what was to be forgotten, and can tell from the difference for
  whom the edit was made.
- Scores hold for the questions that were asked, and for weights in the number format in which
  they were asked. Nothing here is a legal assurance.
"""
NO_SCORES = "None were given to this card: nothing here says that anything was forgotten."
EXACT = "The share of answers that are right word for word (exact match):"
NO_SHAM = "No sham stands beside them: what the same method does to others' answers is not known."


def single(edit: Edit) -> list[Edit]:
    """The components of an edit, in order: itself, or the edits of a sum."""
    if isinstance(edit, ComposedEdit):
        return [part for component in edit.edits for part in single(component)]
    return [edit]


def scores_section(rows: list[dict], method: str = "the edit") -> str:
    """A verdict that names nobody, and mean exact match under each condition, in Markdown.

    Raises:
        ValueError: `rows` are no rows of `unlearn --json`.
    """
    try:
        exact = [row for row in rows if row["metric"] == "exact_match"]
        others = [row for row in rows if BEYOND not in row["metric"]]
        table = score_table(exact or others, 3, MARKDOWN)
        beyond = [
            f"In {row['metric'].removesuffix(BEYOND)} the edit takes of the forgotten, beside its "
            f"shams, {more_or_less(row, 3)}."
            for row in rows
            if BEYOND in row["metric"]
        ]
        verdict, *criteria = outcome(rows, method, named=False).splitlines()
        warnings = [text for text in (malformed(rows), unmeasured(rows)) if text]
        without_sham = all(row["condition"] != "sham" for row in rows)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"these scores are no rows of `unlearn --json`: {error!r}") from error
    sentences = ["95 % intervals over people.", *remarks(rows), *beyond]
    if without_sham:
        sentences.append(NO_SHAM)
    verdict += "\n\n" + "\n".join(f"- {line.strip()}" for line in criteria)
    return f"{verdict}\n\n{EXACT}\n\n{table}\n\n{' '.join(sentences)}{''.join(warnings)}"


def front_matter(format: str, words: dict, scores: list[dict] | None) -> str:
    """The metadata of a card in the format of the hub, with the edited model's exact match."""
    model, rows = words["model"], scores or []
    sets = dict.fromkeys(row["set"] for row in rows)
    means = {name: pooled_mean(rows, "edited", name) for name in sets}
    results = [
        EvalResult(
            task_type=words["task"],
            dataset_type="questions",
            dataset_name=f"questions of the set {name}",
            dataset_config=name,  # the hub groups by it
            metric_type="exact_match",
            metric_value=round(mean, 4),
        )
        for name, mean in means.items()
        if mean is not None
    ]
    return ModelCardData(
        base_model=words["base"],
        eval_results=results or None,
        library_name={"merged": "transformers", "peft": "peft"}.get(format, "safetensors"),
        license=words["license"],
        model_name=f"{model}, edited" if results else None,
        pipeline_tag=words["task"],
        tags=["machine-unlearning"],
    ).to_yaml()


def card(
    edit: Edit,
    format: str,
    words: dict,
    scores: list[dict] | None,
    named: bool,
    verdict: str | None = None,
) -> str:
    """Text of `README.md`, with the front matter that hubs read.

    Args:
        words: `model`, the name of its class; `auto` and `processor`, the classes that load both;
            `task`, a pipeline tag of the hub; `dtype` of the model; `base`, the hub id of the
            unedited model, or None; `license`, or None; `changes`, a few words on the changed
            weights; `how`, the expression of a new weight in terms of `weight` and `tensors`.
        format, scores, named, verdict: as in `export`.

    Raises:
        ValueError: as in `scores_section`.
    """
    table = scores_section(scores, name_of_method(edit)) if scores else NO_SCORES
    notes, model = [component.notes for component in single(edit)], words["model"]
    people = list(dict.fromkeys(str(person) for note in notes for person in note.get("people", [])))
    forgotten = people_text(len(people)) if people else "some people"
    method_lines = [
        f"| {note.get('method', 'not said')} | `{json.dumps(note.get('settings', {}))}` |"
        for note in notes
    ]
    source = repr(words["base"]) if words["base"] else "UNEDITED"
    source = "FOLDER" if format == "merged" else source
    imports, load_lines = LOAD[format]
    return "\n".join(
        [
            "---",
            front_matter(format, words, scores),
            "---",
            "",
            f"# {(words['base'] or model).split('/')[-1]}, edited to forget {forgotten}",
            "",
            f"Made with `kvw_minimal` for the model with the fingerprint `{edit.fingerprint}`; "
            f"it changes {words['changes']}.",
            "",
            "| method | settings |",
            "|---|---|",
            *method_lines,
            "",
            f"Made for: {', '.join(people)}." if named else PRIVATE,
            "",
            "## Load it",
            "",
            PLACES.get(source, PLACES["FOLDER"]),
            "",
            "```python",
            f"{imports}from transformers import {words['auto']}, {words['processor']}",
            "",
            f'model = {words["auto"]}.from_pretrained({source}, dtype="{words["dtype"]}")',
            load_lines.format(**words),
            "```",
            "",
            "## Scores",
            "",
            table,
            "",
            f"Verdict of the audit, which looks for hidden knowledge: {verdict}."
            if verdict
            else "",
            "",
            "## Limits",
            "",
            LIMITS,
        ]
    )
