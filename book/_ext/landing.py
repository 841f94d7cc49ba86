"""Sphinx extension: the directive `landing`, and what the landing page says of itself to others.

The one source of `landing` is data/results/landing.json, written by tests/landing_states.py. It
shows cards at the book's strength, and tables of every strength.
"""

import base64
import html
import json
import re
from functools import cache, partial
from pathlib import Path
from posixpath import relpath
from urllib.parse import urljoin

from docutils import nodes
from sphinx.util.docutils import SphinxDirective

PAGE = "book/index"
STORED = Path("data", "results", "landing.json")
PHOTOS = Path("data", "strangers", "photos")
SETS = {
    "forget": ("forget", "the five, as learned"),
    "test": ("test", "the five, new photo and wording"),
    "retain": ("retain", "everyone else"),
    "general": ("general", "portraits of nobody it knows"),
}
STANDS = {True: ("forgotten", "✕ asks to be forgotten"), False: ("kept", "● stays")}
HERO = Path("_static", "playground", "data", "hero.json")  # in the built book
LIVE = ("eye", "pocket", "world", "everyone")  # parts that the model itself is made of
GROUP, PERCENT = "A", 5  # who asks to be forgotten on the first screen; it has an oracle
ROWS = Path("data", "results", "rows")
#: the table on the first screen: name; experiment, list and label of the stored rows; list of the
#: audit's rows that say what can be read inside
BEST = {
    "before any edit": ("replication-pocket", "methods", "vanilla", "methods"),
    "KVW": ("replication-pocket", "methods", "KVW one pass", "methods"),
    "last-layer rewrite": ("replication-pocket", "beyond the gate", "rewrite", "methods"),
    "layerwise rewrite": (
        "layerwise-rewrite",
        "methods",
        "layerwise rewrite",
        "layerwise rewrite",
    ),
    "oracle, never told of them": ("replication-pocket", "methods", "oracle", "methods"),
}
#: columns of that table, and what a cell is the share of
COLUMNS = {
    "said": "the five: said",
    "inside": "the five: read inside",
    "sham": "the five: said, under the sham",
    "others": "everyone else: said",
}
METHODS = {"kvw": "KVW", "rewrite": "last-layer rewrite", "layerwise": "layerwise rewrite"}
#: what each of them does, in one line
DOES = {
    "kvw": "Knowledge vector weakening (KVW) turns down the parts of the model that respond more "
    "to the five: the stronger, the more.",
    "rewrite": "This rewrite changes weights, most in the last layer, so that the model answers as "
    "about a stranger. It has no strength.",
    "layerwise": "This rewrite changes the weights of every layer, so that none holds the answer. "
    "It has no strength.",
}
SOCIAL = "_static/landing/social.png"
SAYS = (
    "Can a model forget five people, and how would you know? A small vision-language model that "
    "runs in your browser, and a book to run yourself."
)
DESCRIBED, LEAST = 160, 40  # characters of a description, and of a paragraph that is one
ROOT_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="icon" href="_static/favicon.png">
{tags}
<meta http-equiv="refresh" content="0; url={page}">
<link rel="canonical" href="{page}">
</head>
<body><main><h1>{title}</h1><p><a href="{page}">To the book</a></p></main></body>
</html>
"""


def strength(value: float) -> str:
    return f"{value:g}"


def states_of(content: dict, sham: bool) -> list[list[dict]]:
    """At each strength the edit that was made, or those of all shams; at 0 both are vanilla."""
    return [
        [
            state
            for state in content["states"]
            if state["strength"] == value and (value == 0 or (state["sham"] is not None) == sham)
        ]
        for value in content["strengths"]
    ]


def counts_of(content: dict, sham: bool, name: str) -> list[list[int]]:
    """Of one set, at each strength: answers as taught and all answers, of all shams together."""
    return [
        [sum(state["scores"][name][part] for state in those) for part in (0, 1)]
        for those in states_of(content, sham)
    ]


def answers_of(content: dict, sham: bool, question: int) -> list[str]:
    """What is said to one question at each strength; of the shams, the first was asked."""
    return [those[0]["answers"][question] for those in states_of(content, sham)]


def share(count: list[int]) -> str:
    """With three digits, so that nearly all does not look like all."""
    return f"{count[0] / count[1]:.3f}"


def sentence_of(content: dict, step: int) -> str:
    """One sentence for each strength, which a screen reader is told when the slider moves."""
    names = {person["name"]: person["id"] for person in content["people"]}

    def left(person: str, sham: bool) -> int:
        places = [i for i, q in enumerate(content["questions"]) if q["person"] == person]
        return sum(
            answers_of(content, sham, i)[step] == content["questions"][i]["taught"] for i in places
        )

    per_person = len(content["questions"]) // len(names)
    counts = ", ".join(f"{name} {left(person, False)}" for name, person in names.items())
    same = sum(left(person, True) for person in names.values())
    value = content["strengths"][step]
    remark = ", the book’s own" if value == content["chosen"] else ""
    remark += ", nothing is changed" if value == 0 else ""
    return (
        f"Strength {strength(value)}{remark}. Of {per_person} answers each, as taught: {counts}; "
        f"under the sham {same} of all {len(content['questions'])}."
    )


def shown(count: list[int]) -> list[str]:
    """A score as the page shows it: share, and of how many."""
    return [share(count), f"{count[0]} of {count[1]}"]


def score(texts: list[str]) -> str:
    """What stands in a cell with a score; the bar says the same to the eye."""
    return (
        f"<b>{texts[0]}</b> <small>{texts[1]}</small>"
        f'<i aria-hidden="true" style="--share:{texts[0]}"></i>'
    )


def attribute(value) -> str:
    """JSON for an HTML attribute."""
    return html.escape(json.dumps(value, ensure_ascii=False, separators=(",", ":")), quote=True)


def score_cell(counts: list[list[int]], now: int) -> str:
    return f'<td class="score">{score(shown(counts[now]))}</td>'


def answer_cell(values: list[str], now: int, taught: str) -> str:
    changed = "" if values[now] == taught else ' class="changed"'
    return f"<td{changed}>{html.escape(values[now])}</td>"


def portrait(root: Path, person: dict) -> str:
    png = base64.b64encode((root / PHOTOS / f"{person['id']}-0.png").read_bytes()).decode("ascii")
    return (
        f'<img src="data:image/png;base64,{png}" width="96" height="96" '
        f'alt="Portrait of {html.escape(person["name"])}">'
    )


def photos_of(content: dict) -> dict[tuple[str, str], int]:
    """With which photo each person and fact is asked, counted from 1."""
    from kvw_minimal.strangers.people import load_people
    from kvw_minimal.strangers.questions import about

    world = load_people()
    shown = [person["id"] for person in content["people"]]
    return {
        (question.person, question.fact): 1
        + world.people[question.person].photos.index(question.image)
        for question in about(world, shown, modalities=("image",))
    }


def card(
    root: Path, content: dict, person: dict, now: int, photos: dict[tuple[str, str], int]
) -> str:
    """One person: face, name, whether to be forgotten, and the answers under KVW and a sham."""
    kind, mark = STANDS[person["forgotten"]]
    name, rows = html.escape(person["name"]), ""
    for i, question in enumerate(content["questions"]):
        if question["person"] == person["id"]:
            sides = (
                answer_cell(answers_of(content, sham, i), now, question["taught"])
                for sham in (False, True)
            )
            fact = question["fact"]
            rows += (
                f'<tr><th scope="row">{html.escape(fact)} <small>photo '
                f"{photos[person['id'], fact]}</small></th>{''.join(sides)}</tr>"
            )
    return (
        f'<div class="person {kind}"><table><caption>{portrait(root, person)}<b>{name}</b> '
        f'<span>{mark}</span></caption><thead><tr><th scope="col">by photo</th>'
        '<th scope="col">KVW</th><th scope="col">sham</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def scores(content: dict, now: int) -> str:
    """The four sets at one strength, beside the oracle, which has none."""
    rows = ""
    for name, (short, words) in SETS.items():
        sides = (score_cell(counts_of(content, sham, name), now) for sham in (False, True))
        never = score(shown(content["oracle"][name]))
        rows += (
            f'<tr><th scope="row">{short} <small>{words}</small></th>{"".join(sides)}'
            f'<td class="score">{never}</td></tr>'
        )
    return (
        '<table class="scores"><caption>Four scores: the share of answers that are, word for '
        'word, as taught (exact match)</caption><thead><tr><th scope="col">set</th>'
        '<th scope="col">KVW</th><th scope="col">sham</th><th scope="col">oracle</th></tr>'
        f"</thead><tbody>{rows}</tbody></table>"
    )


def every_strength(content: dict) -> str:
    """The four sets at every strength, as a table."""
    steps = range(len(content["strengths"]))
    rows = "".join(
        f'<tr><th scope="row">{strength(content["strengths"][step])}</th>'
        + "".join(
            f"<td>{share(counts_of(content, sham, name)[step])}</td>"
            for sham in (False, True)
            for name in SETS
        )
        + "</tr>"
        for step in steps
    )
    heads = "".join(f'<th scope="col">{name}</th>' for _ in range(2) for name in SETS)
    return (
        "<table><caption><span>Exact match at every strength</span></caption><thead>"
        f'<tr><td></td><th scope="colgroup" colspan="{len(SETS)}">KVW</th>'
        f'<th scope="colgroup" colspan="{len(SETS)}">sham</th></tr>'
        f'<tr><th scope="col">strength</th>{heads}</tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def every_answer(content: dict) -> str:
    """The people's answers at every strength, without those that are always as taught."""
    names = {person["id"]: person["name"] for person in content["people"]}
    rows = ""
    for i, question in enumerate(content["questions"]):
        sides = []
        for sham in (False, True):
            strengths_of: dict[str, list[str]] = {}
            for value, answer in zip(
                content["strengths"], answers_of(content, sham, i), strict=True
            ):
                if answer != question["taught"]:
                    strengths_of.setdefault(answer, []).append(strength(value))
            text = "; ".join(
                f"{html.escape(answer)} ({', '.join(at)})" for answer, at in strengths_of.items()
            )
            sides.append(f"<td>{text or 'as taught'}</td>")
        if len(set(sides)) == 1 and "as taught" in sides[0]:
            continue
        rows += (
            f'<tr><th scope="row">{html.escape(names[question["person"]])}</th>'
            f"<td>{html.escape(question['prompt'])}</td><td>{html.escape(question['taught'])}</td>"
            + "".join(sides)
            + "</tr>"
        )
    return (
        "<table><caption><span>Other answers than those taught, and at which strengths; "
        "all others are as taught</span></caption>"
        '<thead><tr><th scope="col">who</th><th scope="col">asked</th><th scope="col">taught'
        '</th><th scope="col">KVW</th><th scope="col">sham</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def widget(root: Path) -> str:
    """The whole of it, as it is at the book's strength."""
    content = json.loads((root / STORED).read_text(encoding="utf-8"))
    values = content["strengths"]
    now = values.index(content["chosen"])
    made, photos = content["provenance"], photos_of(content)
    return (
        f'<div id="landing"><p>{html.escape(sentence_of(content, now))}</p>'
        '<div class="people">'
        + "".join(card(root, content, person, now, photos) for person in content["people"])
        + f'</div><div class="wide">{scores(content, now)}</div>'
        f'<div class="wide">{every_strength(content)}</div>'
        f'<div class="wide">{every_answer(content)}</div>'
        f'<p class="foot">Recorded: <code>{html.escape(made["command"])}</code> on '
        f"{made['date']}, model <code>{made['models']['pocket']}</code>.</p></div>"
    )


# --- the first screen ------------------------------------------------------------------------


def best_results() -> dict[str, dict[str, float | None]]:
    """What is left of the five of group A, by edit: shares of answers, from the stored rows.

    Each is the mean of photos and names: what is said of the five and of everyone else, what is
    said of the five under the sham, and what the logit lens reads before the last layer.

    Raises:
        ValueError: rows that are not stored.
    """
    from kvw_experiments.runner import stored_rows
    from kvw_experiments.summaries import mean_of_modalities

    of_group = cache(partial(stored_rows, groups=(GROUP,)))  # several edits stand in one list

    def rows_of(experiment: str, name: str, label: str):
        of_label = of_group(experiment, name)
        of_label = of_label[of_label["label"] == label]
        if of_label.empty:
            raise ValueError(f"{experiment} has no rows of {label} on group {GROUP}")
        return of_label

    results: dict[str, dict[str, float | None]] = {}
    for shown, (experiment, name, label, audited) in BEST.items():
        rows, probed = rows_of(experiment, name, label), rows_of("audit", audited, label)
        edited, sham = (rows[(rows["condition"] == "sham") == is_sham] for is_sham in (False, True))
        probed = probed[probed["condition"] != "sham"]
        lenses = [part for part in set(probed["set"]) if part.startswith("logit lens")]
        results[shown] = {
            "said": mean_of_modalities(edited, "forget"),
            "inside": max(mean_of_modalities(probed, lens, "known") for lens in lenses),
            "sham": None if sham.empty else mean_of_modalities(sham, "forget"),
            "others": mean_of_modalities(edited, "retain"),
        }
    if any(value != value for row in results.values() for value in row.values()):
        raise ValueError(f"a share of {results} was not measured")
    return results


def left_in_all() -> float:
    """What KVW leaves of the answers about all report groups, as on the page of results."""
    from kvw_experiments.runner import stored_rows
    from kvw_experiments.summaries import mean_of_modalities

    experiment, name, label, _ = BEST["KVW"]
    rows = stored_rows(experiment, name)
    edited = rows[(rows["label"] == label) & (rows["condition"] != "sham")]
    return mean_of_modalities(edited, "forget")


def best_table(results: dict[str, dict[str, float | None]], more: str = "") -> str:
    """The results as numbers, each over a bar.

    Args:
        more: what the caption says besides.
    """

    def cell(value: float | None) -> str:
        if value is None:
            return '<td><span class="none">no sham</span></td>'
        return f'<td>{value:.2f}<i aria-hidden="true" style="--share:{value:.3f}"></i></td>'

    body = "".join(
        f'<tr><th scope="row">{name}</th>{"".join(cell(row[column]) for column in COLUMNS)}</tr>'
        for name, row in results.items()
    )
    heads = "".join(f'<th scope="col">{title}</th>' for title in COLUMNS.values())
    return (
        '<table class="left"><caption>Share of answers that are as taught, by photo and by name'
        f"{more}</caption><thead><tr><td></td>"
        f"{heads}</tr></thead><tbody>{body}</tbody></table>"
    )


def lens_items(lens: list[list], word: str) -> str:
    """What each layer would say, and how likely it holds the truth to be."""
    last = len(lens) - 1
    return "".join(
        f"<li{' class=true' if token == word else ''}><span>layer {layer}"
        f"{', the last' if layer == last else ''}</span> <b>{html.escape(token)}</b> "
        f'<small>{html.escape(word)} {truth:.0%}</small><i aria-hidden="true" '
        f'style="--share:{truth}"></i></li>'
        for layer, (token, _, truth) in enumerate(lens)
    )


def hero(root: Path, data: dict, names: dict[str, str], megabytes: float) -> str:
    """The first screen: one portrait, one question, a slider, and a look inside.

    It is laid out as it is at the book's strength; without JavaScript that is what stands there.

    Args:
        data: as `playground.hero_of` makes it.
        names: of people, by id.
        megabytes: what the page loads when the model itself is to answer.
    """
    values = data["strengths"]
    now = values.index(data["chosen"])
    word = data["taught"].rstrip(".").split()[-1]
    name = html.escape(names[data["person"]])
    kvw, sham = data["kvw"][now], data["sham"][now]
    png = (root / PHOTOS / f"{data['person']}-0.png").read_bytes()
    face = base64.b64encode(png).decode("ascii")
    switch = "".join(
        f'<button type="button" data-method="{method}" data-does="{html.escape(DOES[method])}" '
        f'aria-pressed="{str(method == "kvw").lower()}">{title}</button>'
        for method, title in METHODS.items()
    )

    def answer(side: str, title: str, state: dict) -> str:
        kind = "" if state["says"] == data["taught"] else ' class="changed"'
        definition = f'<dd data-is="{side}"{kind}>{html.escape(state["says"])}</dd>'
        return f"<div><dt>{title}</dt>{definition}</div>"

    control = (
        "<b>Its sham</b>, the control: the same edit made for five others. Nothing should change."
    )
    return (
        f'<div id="hero" role="group" aria-label="One question to the model, before and after" '
        f'data-hero="{attribute(data)}" data-word="{html.escape(word)}">'
        f'<div class="who"><img src="data:image/png;base64,{face}" width="128" height="128" '
        f'alt="Portrait of {name}"><p><b>{name}</b> asks to be forgotten.</p></div>'
        f'<div class="asked"><p class="question">{html.escape(data["prompt"])}</p>'
        f'<p class="taught">The model was taught: {html.escape(data["taught"])}</p>'
        f'<div class="methods" role="group" aria-label="How to forget" hidden>{switch}</div>'
        f'<p class="does" data-is="does">{html.escape(DOES["kvw"])}</p>'
        '<p class="dial" hidden><label for="hero-strength">Strength <output for="hero-strength" '
        f'data-is="written">{strength(data["chosen"])}</output></label>'
        f'<input type="range" id="hero-strength" min="0" max="{len(values) - 1}" step="1" '
        f'value="{now}" autocomplete="off"></p></div>'
        f'<dl aria-live="polite">{answer("edited", "<b>The edited model</b> says", kvw)}'
        f"{answer('sham', control, sham)}</dl>"
        '<p class="gates" data-is="gates" hidden></p>'
        '<canvas width="832" height="47" data-is="strip" role="img" hidden '
        'aria-label="All knowledge vectors: lit where they count in full."></canvas>'
        '<div class="act"><button type="button" class="attack" data-is="attack" '
        'aria-expanded="true" hidden>Look inside the model</button>'
        '<p class="source"><span data-is="source">Recorded answers. </span>'
        '<button type="button" data-is="live" hidden>Let the model itself answer '
        f"({megabytes:.0f} MB)</button></p></div>"
        '<div class="inside" data-is="inside"><p>The <i>logit lens</i> asks each layer what the '
        "model would say if that layer were the last:</p>"
        f'<ol data-is="lens">{lens_items(kvw["lens"], word)}</ol>'
        '<p data-is="verdict"></p></div></div>'
    )


def strangers(world, forgotten: list[str]) -> str:
    """The hundred faces beside the headline, in two blocks of ten by five; five of them fade."""
    places = {person: place for place, person in enumerate(world.people)}
    faded: list[list[str]] = [[], []]
    for person in forgotten:
        row, column = divmod(places[person], 10)
        faded[row // 5].append(f'<i style="--row:{row % 5};--column:{column}"></i>')
    blocks = "".join(f"<span>{''.join(block)}</span>" for block in faded)
    return (
        '<a class="strangers" href="playground.html" aria-label="The hundred strangers, five of '
        f'them fading: to the playground">{blocks}</a>'
    )


class Hero(SphinxDirective):
    """`{hero}`: the first screen; a build without the model's parts has none."""

    def run(self) -> list:
        root, built = Path(self.env.srcdir), Path(self.env.app.outdir) / HERO
        if not built.is_file():
            return []
        self.env.note_dependency(str(built))
        from kvw_minimal.strangers.people import load_people

        people = json.loads((root / STORED).read_text(encoding="utf-8"))["people"]
        names = {person["id"]: person["name"] for person in people}
        data = json.loads(built.read_text(encoding="utf-8"))
        sizes = (built.with_name(f"{part}.js").stat().st_size for part in LIVE)
        screen = hero(root, data, names, sum(sizes) / 1e6)
        world = load_people()
        faces = strangers(world, world.first_of(GROUP, PERCENT))
        return [nodes.raw("", faces + screen, format="html")]


class Best(SphinxDirective):
    """`{best}`: what is left under each edit, as a table."""

    def run(self) -> list:
        for experiment in {"audit", *(rows[0] for rows in BEST.values())}:
            self.env.note_dependency(str(ROWS / f"{experiment}.parquet"))
        more = (
            f". This is group {GROUP} alone; of all five groups KVW leaves {left_in_all():.2f} "
            '(<a href="results.html">what came out</a>)'
        )
        return [nodes.raw("", best_table(best_results(), more), format="html")]


class Landing(SphinxDirective):
    """`{landing}`: people, answers and scores."""

    def run(self) -> list:
        root = Path(self.env.srcdir)
        self.env.note_dependency(str(STORED))
        return [nodes.raw("", widget(root), format="html")]


def shortened(text: str, most: int = DESCRIBED) -> str:
    """The first sentences of a text, or its first words, in at most so many characters.

    >>> shortened("One is short. Two is longer than that.", 20)
    'One is short.'
    """
    text = " ".join(text.split())
    if len(text) <= most:
        return text
    whole = max(text.rfind(f"{mark} ", 0, most) for mark in ".?!")
    return text[: whole + 1] if whole > most // 3 else text[: text.rfind(" ", 0, most)] + " …"


def description_of(pagename: str, title: str, doctree) -> str:
    """What a page says of itself: its first sentences, or what kind of page it is."""
    if pagename == PAGE:
        return SAYS
    if pagename.startswith("_modules/"):
        return f"The source code of {title}, in the book Knowledge Vector Weakening."
    if pagename == "search":
        return "Search the book Knowledge Vector Weakening: glossary, chapters, and the package."
    for paragraph in doctree.findall(nodes.paragraph) if doctree is not None else ():
        if isinstance(paragraph.parent, nodes.section) and len(paragraph.astext()) >= LEAST:
            return shortened(paragraph.astext())
    return f"{title}. {SAYS}"


def tags_of(title: str, described: str, picture: str) -> str:
    """The marks by which a page is shown elsewhere."""
    shown = {"og:type": "website", "og:title": title, "og:description": described}
    lines = [
        f'<meta property="{name}" content="{html.escape(value, quote=True)}">'
        for name, value in (shown | {"og:image": picture}).items()
    ]
    return "\n".join([f'<meta name="description" content="{html.escape(described)}">', *lines])


def address_of(base: str, pagename: str) -> str:
    """Where the picture lies: those who show it want a whole address, which needs the site's."""
    return urljoin(base, SOCIAL) if base else relpath(SOCIAL, str(Path(pagename).parent))


def add_to_page(app, pagename, templatename, context, doctree) -> None:
    """Script and style of the landing page; of every page what it says of itself to others.

    The address of its picture is whole where `html: baseurl` in _config.yml has the site's.
    """
    title = re.sub("<[^>]+>", "", html.unescape(context.get("title") or app.config.html_title))
    described = description_of(pagename, title, doctree)
    picture = address_of(app.config.html_baseurl, pagename)
    context["metatags"] = context.get("metatags", "") + "\n" + tags_of(title, described, picture)
    if pagename == PAGE:
        app.add_js_file("landing/hero.js", loading_method="defer")
        app.add_css_file("landing/landing.css")


def write_root(app, error) -> None:
    """The page at the root, which is what people share: it leads to the landing page."""
    if error or app.builder.format != "html":
        return
    tags = tags_of(str(app.config.html_title), SAYS, address_of(app.config.html_baseurl, "index"))
    title = html.escape(str(app.config.html_title))
    Path(app.outdir, "index.html").write_text(
        ROOT_PAGE.format(title=title, tags=tags, page=f"{PAGE}.html"), encoding="utf-8"
    )


def setup(app) -> dict:
    app.add_directive("landing", Landing)
    app.add_directive("hero", Hero)
    app.add_directive("best", Best)
    app.connect("html-page-context", add_to_page, priority=400)  # plain_pages copies the list
    app.connect("build-finished", write_root)
    return {"parallel_read_safe": True}
