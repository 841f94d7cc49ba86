"""Sphinx extension: what answers a prediction stays folded until the reader opens it.

A paragraph with **Your prediction.** asks the reader for a guess. The output of the code
cell that follows is the answer, and so is a paragraph below it that begins with bold text.
"""

from docutils import nodes

ASKED = "Your prediction."
SUMMARY = "Compare with your prediction"


def asks(node: nodes.Node) -> bool:
    """Whether a node is a paragraph that asks for a prediction."""
    return isinstance(node, nodes.paragraph) and any(
        isinstance(child, nodes.strong) and child.astext() == ASKED for child in node.children
    )


def tells(node: nodes.Node) -> bool:
    """Whether a node is a paragraph that begins with the answer, in bold."""
    if not isinstance(node, nodes.paragraph) or asks(node):
        return False
    first = next((child for child in node.children if child.astext()), None)  # empty text is none
    return isinstance(first, nodes.strong)


def fold_answers(doctree: nodes.document) -> int:
    """Fold the output of each code cell that follows a prediction, and the words that answer it.

    Returns:
        How many were folded.

    Raises:
        ValueError: what follows a prediction is no code cell with an output.
    """
    folded = 0
    for question in list(doctree.findall(asks)):
        place = question.parent.index(question) + 1
        cell = question.parent[place] if place < len(question.parent) else None
        outputs = [
            child
            for child in (cell.children if cell is not None else ())
            if isinstance(child, nodes.container) and "cell_output" in child["classes"]
        ]
        if not outputs:
            raise ValueError(f"no code cell with an output follows {question.astext()!r}")
        first, last = cell.index(outputs[0]), cell.index(outputs[-1])
        below = question.parent[place + 1 :]
        # a step that is folded whole stands between
        while below and "tag_hide-cell" in below[0].get("classes", ()):
            below = below[1:]
        answer = below[:1] if below and tells(below[0]) else []
        for paragraph in answer:
            question.parent.remove(paragraph)
        cell.insert(last + 1, [*answer, nodes.raw("", "</details>", format="html")])
        start = f'<details class="prediction"><summary>{SUMMARY}</summary>'
        cell.insert(first, nodes.raw("", start, format="html"))
        folded += 1
    return folded


def setup(app) -> dict:
    app.connect("doctree-read", lambda app, doctree: fold_answers(doctree))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
