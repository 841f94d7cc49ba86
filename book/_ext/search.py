"""Sphinx extension: what the search finds first, and that it is light.

The index that Sphinx writes gets the terms of the glossary, words under which readers look for a
page that has others, and what each page says of itself, which is its excerpt where the book is read
from a disk. The entries of functions go, since the search finds functions by name anyhow.
`_static/search.js` puts in order what is found.
"""

import html
import json
import re
from pathlib import Path

from docutils import nodes

GLOSSARY = "book/glossary"
DESCRIPTION = re.compile(r'<meta name="description" content="([^"]*)"')
MEANING = 240  # characters of what a term means
#: words under which a page is looked for as well
ALSO = {
    "book/quick_start": "install installation begin start gpu cpu download long take",
    "book/how_to_read": "colab binder google exercises minutes time long take",
    "book/vision_language_model": "vlm llava multimodal transformer introduction",
    "book/to_be_forgotten": "gdpr law right erasure privacy",
    "book/when_something_goes_wrong": "error out of memory windows install gpu cuda problem",
    "book/which_method": "which method best compare choose recommend edit long take time fastest",
    "book/fifteen_minutes": "use own my model people tutorial first hugging face",
    "book/your_own": "own model people data custom hugging face",
    "book/hub_models": "hugging face hub llava qwen own model",
    "book/related_work": "paper papers literature",
    "book/teaching": "course lecture class slides solutions",
    "notebooks/01_what_would_it_mean_to_forget": "metric metrics exact match oracle sham "
    "confidence interval",
    "notebooks/04_who_fires": "sham coefficients",
    "notebooks/05_turning_it_down": "gate gates strength undo save edit",
    "notebooks/07_the_gradient_way": "npo gradient ascent difference kl baseline baselines",
    "notebooks/11_beyond_the_gate": "rewrite closed form least squares",
    "notebooks/13_gone_or_only_quiet": "attack attacks relearning probe logit lens",
}


def term_id(name: str) -> str:
    """The place of a term on the page.

    >>> term_id("exact match")
    'term-exact-match'
    """
    return "term-" + "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


def mark_terms(app, doctree) -> None:
    """Give each term of the glossary a place of its own, and remember it."""
    if app.env.docname != GLOSSARY:
        return
    terms, meanings = {}, ""
    for item in doctree.findall(nodes.definition_list_item):
        term = item[0]
        names = [name.strip() for name in term.astext().split(",")]
        term["ids"].append(term_id(names[0]))
        terms |= {name.lower(): term_id(names[0]) for name in names}
        meaning = html.escape(item[-1].astext()[:MEANING])
        meanings += f'<dt id="{term_id(names[0])}"></dt><dd>{meaning}</dd>'
    app.env.glossary_terms, app.env.glossary_meanings = terms, meanings


def with_words(index: dict, terms: dict[str, str]) -> dict:
    """The index with the terms of the glossary as its entries, and `ALSO` by number of the page."""
    places = {name: number for number, name in enumerate(index["docnames"])}
    if GLOSSARY in places:
        here = places[GLOSSARY]
        entries = {name: [[here, place, True]] for name, place in sorted(terms.items())}
    else:
        entries = {}
    also = {places[name]: words for name, words in ALSO.items() if name in places}
    return index | {"indexentries": entries, "also": also}


def said_of(app, name: str) -> str:
    """What a written page says of itself, as HTML; of the glossary also what each term means."""
    page = Path(app.outdir, f"{name}.html").read_text(encoding="utf-8")
    described = DESCRIPTION.search(page)
    meanings = getattr(app.env, "glossary_meanings", "") if name == GLOSSARY else ""
    return f"<p>{described[1] if described else ''}</p>{meanings}"


def write(app, error) -> None:
    """Write the index again."""
    path = Path(app.outdir, "searchindex.js")
    if error or not path.is_file():
        return
    before, opening, rest = path.read_text(encoding="utf-8").partition("(")
    index = json.loads(rest.rstrip().removesuffix(";").removesuffix(")"))
    made = with_words(index, getattr(app.env, "glossary_terms", {}))
    made["said"] = [said_of(app, name) for name in index["docnames"]]
    text = json.dumps(made, ensure_ascii=False, separators=(",", ":"))
    path.write_text(f"{before}{opening}{text})", encoding="utf-8")


def add_script(app, pagename, templatename, context, doctree) -> None:
    if pagename == "search":
        app.add_js_file("search.js", loading_method="defer")


def setup(app) -> dict:
    app.connect("doctree-read", mark_terms)
    app.connect("html-page-context", add_script, priority=400)  # plain_pages copies the list
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "env_version": 2}
