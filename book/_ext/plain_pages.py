"""Sphinx extension: take from the pages what this book does not use, and mend what it does.

- Launch buttons while there is no repository to launch from: the theme builds their addresses
  from `repository: url` in _config.yml and fails when it is empty.
- Thebe, which would run cells on a distant server: its script is written into each page twice,
  and browsers report the second as an error.
- What makes pages heavy and is not seen: marks around code that has the colour of all text, around
  dots and around each line of a docstring; empty lines, the table of contents beside source code
  and the one for paper; files of the theme that no page asks for.
- Classes that no style asks for, and rules of the theme for classes that no page has (`unused`).
- Pages of source code of `kvw_experiments`, which makes this book's numbers: a third of all source.
- Pictures that a notebook holds as text: they become files beside the pages, a quarter smaller.
- What a screen reader cannot name: see `NAMES`.
"""

import base64
import hashlib
import re
import shutil
from pathlib import Path

import tables
import unused
from sphinx.addnodes import desc_signature

UNUSED = (
    "**/*.map",  # of scripts and styles, for those who write them
    "**/*webpack-macros.html",  # templates
    "before_after.png",  # of the README
    "images/logo_*hub*",
    "images/logo_*lite*",
    "images/logo_deepnote*",
    "locales",
    "sphinx-thebe.*",
    "scripts/fontawesome.js*",
    "vendor",
)
# names, operators, punctuation and white space need no colour of their own
PLAIN = re.compile(r'<span class="[npwo]">([^<]*)</span>')
# a docstring: one mark for all its lines, in place of one for each
DOCSTRING = re.compile(r'<span class="sd">[^<]*</span>(?:\n<span class="sd">[^<]*</span>)+')
NEXT_LINE = '</span>\n<span class="sd">'
CODE = re.compile(r"(<(?:pre|script|style)\b.*?</(?:pre|script|style)>)", re.DOTALL)
EMPTY = re.compile(r"\s*\n\s*")
PRE = re.compile(r'<span class="pre">([^<]*)</span>')  # they only keep words from being hyphenated
LITERAL = '<code class="docutils literal notranslate">'  # no style asks for the first
# a second table of contents, which is seen on paper alone and names no page of it
PRINTED = re.compile(r'<div id="print-main-content">.*?(?=<div id="searchbox">)', re.DOTALL)
# tables of contents: no style asks for these classes, but where there are pages below
#: a cell of a table that holds numbers alone, some with their interval
NUMBER = re.compile(r"<td>((?:<p>)?[-+−\d.,/ \[\]*%]*\d[-+−\d.,/ \[\]*%]*(?:</p>)?)</td>")
NAVIGATION = re.compile(r"<nav\b.*?</nav>", re.DOTALL)
IN_NAVIGATION = re.compile(
    r'(<li class="(?:(?!has-children)[^"])*">\s*<a )class="reference internal( nav-link)?" '
)
STATIC = re.compile(r'_static/([^/"?]+)"')
VIEWPORT = re.compile(r'<meta name="viewport"[^>]*>')  # Sphinx and the theme say it three times
SOLUTIONS = "solutions/"
ANSWERS = re.compile(rf"{SOLUTIONS}|exam_answers")
BEHIND = "kvw_experiments"  # code behind the book's numbers: its source is read in the repository
OWN = Path(__file__).resolve().parents[1] / "_static"  # this book's styles stay as they are
DATA = "playground/data"  # holds numbers, no classes
HELD = re.compile(r'(<img\b[^>]*? src=")data:image/(png|webp|svg\+xml);base64,([^"]+)"')
#: in the table of contents, the part that repeats the titles of all chapters
FOLDED = re.compile(
    r'<p aria-level="2" class="caption" role="heading"><span class="caption-text">([^<]+)'
    r'</span></p>\s*(<ul class="([^"]*)">.*?</ul>)(?=\s*(?:<p aria-level="2"|</div>|$))',
    re.DOTALL,
)
NAMES = (
    # the theme and Sphinx have said it before
    (
        re.compile(r'(<meta name="viewport"[^>]*>)(.*?)<meta name="viewport"[^>]*>', re.DOTALL),
        r"\1\2",
    ),
    # what folds a part of the table of contents is named after that part
    (
        re.compile(r'(<a class="[^"]*" href="[^"]*">([^<]*)</a><details[^>]*>\s*<summary)>'),
        r'\1 aria-label="Pages below: \2">',
    ),
    # the title of the book stands in a part of the page that has a name
    (
        re.compile(
            r'<div class="sidebar-primary-item">\s*(<a class="navbar-brand logo".*?</a>)\s*</div>',
            re.DOTALL,
        ),
        r'<nav class="sidebar-primary-item" aria-label="Title">\1</nav>',
    ),
    # a name must hold what is seen, here "Search Ctrl+K"
    (re.compile(r'(<button class="btn search-button-field[^>]*?)\s+aria-label="[^"]*"'), r"\1"),
    (re.compile(r'<summary aria-label="Toggle hidden content">'), "<summary>"),
    # colours without JavaScript: those of "auto" are none
    (re.compile(r'(<html\b[^>]* data-theme=")auto"'), r'\1light"'),
    # what is in the bibliography is no item of a list
    (re.compile(r'<div role="list" (class="citation-list")'), r"<div \1"),
)


def leave_out_launch_buttons(app, config) -> None:
    """Take the launch buttons away while the repository has no address."""
    if not config.html_theme_options.get("repository_url"):
        config.html_theme_options.pop("launch_buttons", None)
        config.html_theme_options.pop("repository_url", None)


def leave_out_source(app, doctree) -> None:
    """Keep `viewcode` from a page for what does not say in which module it is."""
    for signature in doctree.findall(desc_signature):
        if signature.get("module", "").startswith(BEHIND):
            signature["module"] = ""


def is_thebe(asset) -> bool:
    """Whether a script or style of a page belongs to Thebe."""
    body = asset.attributes.get("body") or ""
    return "THEBE_JS_URL" in body or "sphinx-thebe" in str(asset.filename)


def plain_navigation(navigation: str) -> str:
    """A table of contents without classes that no style asks for.

    >>> plain_navigation('<li class="toctree-l1"><a class="reference internal" href="a.html">')
    '<li class="toctree-l1"><a href="a.html">'
    >>> plain_navigation('<li class="toc-h2"><a class="reference internal nav-link" href="#a">')
    '<li class="toc-h2"><a class="nav-link" href="#a">'
    """
    return IN_NAVIGATION.sub(
        lambda match: match[1] + ('class="nav-link" ' if match[2] else ""), navigation
    )


def with_fold(page: str) -> str:
    """A page in whose table of contents all parts are folded but the chapters and its own.

    >>> head = '<p aria-level="2" class="caption" role="heading"><span class="caption-text">'
    >>> head += "Solutions"
    >>> with_fold(head + '</span></p><ul class="nav"><li>1</li></ul>')
    '<details class="fold"><summary>Solutions</summary><ul class="nav"><li>1</li></ul></details>'
    >>> with_fold(head + '</span></p><ul class="current nav"></ul>')[:29]
    '<details class="fold" open=""'
    """

    def folded(part: re.Match) -> str:
        opened = ' open=""' if "current" in part[3] or part[1] == "Chapters" else ""
        return f'<details class="fold"{opened}><summary>{part[1]}</summary>{part[2]}</details>'

    return FOLDED.sub(folded, page)


def mended(page: str) -> str:
    """A page as it is delivered.

    >>> mended('<p>a\\n\\n  b</p><pre><span class="n">x</span>\\n\\n<span class="o">+</span></pre>')
    '<p>a\\nb</p><pre>x\\n\\n+</pre>'
    >>> mended('<pre><span class="sd">One</span>\\n<span class="sd">two.</span></pre>')
    '<pre><span class="sd">One\\ntwo.</span></pre>'
    >>> mended('<div id="a"><div id="print-main-content">x</div></div><div id="searchbox">')
    '<div id="a"></div><div id="searchbox">'
    >>> mended('<a class="r" href="c.html">3. Who?</a><details><summary>')
    '<a class="r" href="c.html">3. Who?</a><details><summary aria-label="Pages below: 3. Who?">'
    >>> mended('<html lang="en" data-theme="auto">')
    '<html lang="en" data-theme="light">'
    >>> mended("<td>0.75 [0.66, 0.83]</td><td><p>1.00 / 0.97</p></td><td>5 of 7</td>")
    '<td class="num">0.75 [0.66, 0.83]</td><td class="num"><p>1.00 / 0.97</p></td><td>5 of 7</td>'
    """
    first = VIEWPORT.search(page)
    if first:
        page = page[: first.end()] + VIEWPORT.sub("", page[first.end() :])
    page = PRINTED.sub("</div>", PLAIN.sub(r"\1", PRE.sub(r"\1", page)))
    page = DOCSTRING.sub(lambda match: match[0].replace(NEXT_LINE, "\n"), page)
    parts = CODE.split(page.replace(LITERAL, '<code class="literal notranslate">'))
    parts[::2] = [EMPTY.sub("\n", part) for part in parts[::2]]
    page = "".join(parts)
    for pattern, better in NAMES:
        page = pattern.sub(better, page)
    page = with_fold(tables.marked(NUMBER.sub(r'<td class="num">\1</td>', page)))
    return NAVIGATION.sub(lambda match: plain_navigation(match[0]), page)


def leads_on(context: dict, pagename: str) -> None:
    """Nobody comes to solutions by turning pages: only from one of them to another."""
    for way in ("next", "prev"):
        other = context.get(way) or {}
        if ANSWERS.search(other.get("link", "")) and not ANSWERS.search(pagename):
            context[way] = None


def lighten(app, pagename, templatename, context, doctree) -> None:
    """Take from one page the assets of Thebe, and from source code the table of contents."""
    leads_on(context, pagename)
    for kind in ("script_files", "css_files"):
        context[kind] = [asset for asset in context[kind] if not is_thebe(asset)]
    if pagename.startswith("_modules/"):
        context["sidebars"] = [
            name for name in context["sidebars"] if "nav" not in name or "logo" in name
        ]


def with_files(page: str, images: Path, up: str) -> str:
    """A page whose pictures are files; their names are hashes of what they hold.

    Args:
        images: the folder of pictures; it must exist.
        up: the way from the page to the folder above that.
    """

    def stored(picture: re.Match) -> str:
        content = base64.b64decode(picture[3])
        name = f"{hashlib.sha256(content).hexdigest()[:16]}.{picture[2].removesuffix('+xml')}"
        images.joinpath(name).write_bytes(content)
        return f'{picture[1]}{up}{images.name}/{name}"'

    return HELD.sub(stored, page)


def without_unused(site: Path, pages: dict[Path, str]) -> dict[Path, str]:
    """Pages without classes that nothing asks for. Rules that no page needs are left out, too."""
    static = site / "_static"
    styles = {path: path.read_text(encoding="utf-8") for path in static.rglob("*.css")}
    scripts = unused.words_of(
        path.read_text(encoding="utf-8")
        for path in static.rglob("*.js")
        if DATA not in path.as_posix()
    )
    named, parts = zip(*map(unused.classes_of, styles.values()), strict=True)
    named_classes, some = scripts.union(*named), set().union(*parts)
    lighter = {
        path: unused.without_classes(page, named_classes | unused.scripted(page), some)
        for path, page in pages.items()
    }
    used = scripts.union(*map(unused.classes_in, lighter.values()))
    for path, style in styles.items():
        if not OWN.joinpath(path.relative_to(static)).exists():
            path.write_text(unused.pruned(style, used), encoding="utf-8")
    return lighter


def finish(app, error) -> None:
    """Mend the pages that were written, and remove the files of the theme that none asks for."""
    if error:
        return
    site = Path(app.outdir)
    static, images, pages = site / "_static", site / "_images", {}
    images.mkdir(exist_ok=True)
    for path in site.rglob("*.html"):
        up = "../" * (len(path.relative_to(site).parts) - 1)
        pages[path] = with_files(mended(path.read_text(encoding="utf-8")), images, up)
    shown = {name for page in pages.values() for name in STATIC.findall(page)}
    for path in images.glob("*"):  # what pages show lies there as well
        if path.name not in shown:
            static.joinpath(path.name).unlink(missing_ok=True)
    for path in [path for pattern in UNUSED for path in static.glob(pattern)]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for path, page in without_unused(site, pages).items():
        path.write_text(page, encoding="utf-8")


def setup(app) -> dict:
    app.connect("config-inited", leave_out_launch_buttons)
    app.connect("doctree-read", leave_out_source, priority=400)  # viewcode comes later
    app.connect("html-page-context", lighten)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True}
