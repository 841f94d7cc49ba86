"""Sphinx extension: what the search finds first, and that it is light.

The index that Sphinx writes gets the terms of the glossary, and words under which readers look for
a page that has others. The entries of functions go, since the search finds functions by name
anyhow. The texts of all pages, from which excerpts are taken, stand in one script, since a page
that is read from a disk cannot read others. `_static/search.js` puts in order what is found.
"""

import base64
import json
import re
import zlib
from pathlib import Path

from bs4 import BeautifulSoup
from docutils import nodes

GLOSSARY = "book/glossary"
TEXTS = "searchtexts.js"
#: what no excerpt is taken from, and what a text keeps of its page
LEFT_OUT = (
    ".headerlink, script, style, summary, .cell_input, .toctree-wrapper, pre, .highlight, "
    ".parts, svg, select, button, [role=status]"
)
KEPT = re.compile(r"section|h\d|p|li|d[td]|t[dh]|caption|figcaption")
SHORT = 12  # characters of a formula that is shown
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
    "book/teaching": "teach course lecture class slides solutions",
    "notebooks/01_what_would_it_mean_to_forget": "metric metrics exact match oracle sham "
    "confidence interval",
    "notebooks/03_kvw_from_nothing": "knowledge vector weakening",
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
    terms = {}
    for item in doctree.findall(nodes.definition_list_item):
        term = item[0]
        names = [name.strip() for name in term.astext().split(",")]
        term["ids"].append(term_id(names[0]))
        terms |= {name.lower(): term_id(names[0]) for name in names}
    app.env.glossary_terms = terms


def with_words(index: dict, glossary: dict[str, str]) -> dict:
    """The index with the terms of the glossary as its entries, and `ALSO` by number of the page.

    Numbers go: Sphinx leaves them out of what is asked.
    """
    places = {name: number for number, name in enumerate(index["docnames"])}
    if GLOSSARY in places:
        here = places[GLOSSARY]
        entries = {name: [[here, place, True]] for name, place in sorted(glossary.items())}
    else:
        entries = {}
    also = {places[name]: words for name, words in ALSO.items() if name in places}
    terms = {word: files for word, files in index["terms"].items() if not word.isdecimal()}
    return index | {"indexentries": entries, "also": also, "terms": terms}


def text_of(page: str) -> str:
    """The article of a page as HTML of its sections and paragraphs, without code.

    >>> text_of('<article><section id="a"><h1>A</h1><p class="b">An <em>i</em></p></section>')
    '<section id="a"><h1>A</h1><p>An i</p></section>'
    >>> text_of("<article><div><math>x</math> <math>a long formula</math></div><pre>1</pre>")
    'x …'
    """
    article = BeautifulSoup(page, "html.parser").find("article")
    if article is None:
        return ""
    for part in article.select(LEFT_OUT):
        part.extract()
    for formula in article.find_all("math"):
        text = formula.get_text()
        formula.replace_with(text if len(text) <= SHORT else "…")
    for part in article.find_all(True):
        if KEPT.fullmatch(part.name):
            part.attrs = {"id": part["id"]} if part.get("id") else {}
        else:
            part.unwrap()
    return re.sub(r"\s+", " ", article.decode_contents()).strip()


def write(app, error) -> None:
    """Write the index again, and the texts of its pages: packed, since they are large."""
    path = Path(app.outdir, "searchindex.js")
    if error or not path.is_file():
        return
    before, opening, rest = path.read_text(encoding="utf-8").partition("(")
    index = json.loads(rest.rstrip().removesuffix(";").removesuffix(")"))
    made = with_words(index, getattr(app.env, "glossary_terms", {}))
    text = json.dumps(made, ensure_ascii=False, separators=(",", ":"))
    path.write_text(f"{before}{opening}{text})", encoding="utf-8")
    pages = [Path(app.outdir, f"{name}.html") for name in index["docnames"]]
    texts = [text_of(page.read_text(encoding="utf-8")) for page in pages]
    packed = zlib.compress(json.dumps(texts, ensure_ascii=False).encode(), 9)
    content = f'globalThis.searchTexts = "{base64.b64encode(packed).decode("ascii")}";\n'
    Path(app.outdir, TEXTS).write_text(content, encoding="utf-8")


def add_script(app, pagename, templatename, context, doctree) -> None:
    if pagename == "search":
        app.add_js_file("search.js", loading_method="defer")


def setup(app) -> dict:
    app.connect("doctree-read", mark_terms)
    app.connect("html-page-context", add_script, priority=400)  # plain_pages copies the list
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "env_version": 3}
