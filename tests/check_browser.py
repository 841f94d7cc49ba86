"""Open every page of the built book in a headless browser, from the file system, without network.

    python tests/check_browser.py [--axe]

Checks of every page: no console error, no request beyond the folder of the book, every formula set
and every icon drawn, every slider moves its picture, no launch button while the repository setting
is empty, nothing wider than a phone, no page heavier than `MOST_A_PAGE`, the site no heavier than
`MOST_IN_ALL`, and nobody asks for what was left out to keep it so; each page says what it is and
follows the system into the dark. Also: the search finds first what is wanted; on the landing page
the slider changes the answers, and the model itself says what was recorded; on the playground the
model in the page answers as PyTorch does, by keyboard alone. With `--axe` also that axe finds
nothing worse than minor, in light, in dark and on a phone, every page of source code and every
button of the playground.
Without Chromium (or Chrome) and its driver the check says that it was skipped.
"""

import argparse
import json
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

ROOT = Path(__file__).resolve().parent.parent
BUILT = ROOT / "_build" / "html"
AXE_SCRIPT = ROOT / "tests" / "vendor" / "axe.min.js"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1280,900",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # there is no network, whatever the machine has
]
LOCAL = (
    "file:",
    "data:",
    "blob:",
    "about:",
    "chrome:",
    "chrome-untrusted:",
    "chrome-extension:",
    "devtools:",
)

# formulas that the page has, and those that are set as MathML without a remainder of LaTeX
FORMULAS = r"""
const set = math => math && !math.querySelector('merror') && !/[\\$]/.test(math.textContent);
const found = [...document.querySelectorAll('span.math, div.math')];
return [found.length, found.filter(f => set(f.querySelector(':scope > math'))).length];
"""
# what a page says of itself to search engines and where it is shared
DESCRIPTION = """
const said = name => document.querySelector(`meta[${name}]`)?.content;
return said('name=description') && said('property="og:title"') && said('property="og:image"');
"""
# icons that would be empty squares
ICONS = """
return [...document.querySelectorAll('i, span')]
  .filter(e => /(^| )fa-/.test(e.className) && getComputedStyle(e).maskImage === 'none')
  .map(e => e.className);
"""
# of a deck: its slides, and pictures that are not there; of each slide its size of type in percent,
# and whether it runs over its edge
DECK = """
const slides = [...document.querySelectorAll('.slides > section')];
const fitted = slides.map((slide, at) => {
  Reveal.slide(at);
  return [parseInt(slide.style.fontSize), slide.scrollHeight > 720 || slide.scrollWidth > 1281];
});
return [Reveal.getTotalSlides(), [...document.images].filter(i => !i.naturalWidth).map(i => i.src),
        fitted];
"""
# go to the first slide with a picture; where it lies, and how wide the window is without the notes
PICTURE_SLIDE = """
const slides = [...document.querySelectorAll('.slides > section')];
const at = slides.findIndex(slide => slide.querySelector('img'));
if (Reveal.getIndices().h !== at) Reveal.slide(at);
const own = Reveal.getCurrentSlide().getBoundingClientRect();
const notes = document.querySelector('.speaker-notes').getBoundingClientRect();
return [Math.round(own.left), Math.round(own.right), notes.width ? notes.left : innerWidth];
"""
# of a deck on a phone: whether it is a show, its slides, how many of them are seen, by how many
# pixels it is too wide, and its smallest type in pixels
SCROLLED_DECK = """
const slides = [...document.querySelectorAll('.slides > section')];
const words = [...document.querySelectorAll('.slides > section *')].filter(
  e => e.offsetParent && [...e.childNodes].some(c => c.nodeType === 3 && c.data.trim()));
const seen = slides.filter(slide => slide.getBoundingClientRect().height);
return [Reveal.isReady(), slides.length, seen.length,
        document.documentElement.scrollWidth - document.documentElement.clientWidth,
        Math.min(...words.map(e => parseFloat(getComputedStyle(e).fontSize)))];
"""
# of an explorer: its visible pictures and what a screen reader is told
PICTURES = """
const shown = [...arguments[0].querySelectorAll('[data-at] img')].filter(i => i.offsetParent);
return [shown.map(i => i.src), arguments[0].querySelector('[aria-live=polite]').textContent];
"""
# open what an explorer is folded in, as what answers a prediction is
UNFOLD = """
for (let e = arguments[0]; e; e = e.parentElement) if (e.matches('details')) e.open = true;
"""
# what axe finds: its rule, how bad it is, how many elements, the first of them
AXE = """
const callback = arguments[arguments.length - 1];
document.documentElement.dataset.theme = arguments[0];
axe.run(document, {resultTypes: ['violations'], preload: false, ...arguments[1]}).then(
  found => callback(found.violations.map(v => [v.id, v.impact, v.nodes.length, v.nodes[0].html])),
  error => callback([['axe', 'critical', 1, String(error)]]));
"""
# whether the table of contents shows the page that is open, where it has that page
IN_SIGHT = """
const sidebar = document.querySelector('div.bd-sidebar');
const link = [...document.querySelectorAll('.bd-docs-nav .active > a')].at(-1);
if (!sidebar || !link) return true;
const room = sidebar.getBoundingClientRect(), own = link.getBoundingClientRect();
return own.top >= room.top && own.bottom <= room.bottom;
"""
THEME = "return document.documentElement.dataset.theme"
# figures whose paper is still white
BRIGHT = """
return [...document.querySelectorAll('article .sheet img.paper')]
  .filter(each => getComputedStyle(each).mixBlendMode !== 'difference')
  .map(each => each.previousElementSibling.alt);
"""
# what reaches beyond the screen of a phone, by how much the page does
WIDE = """
const width = document.documentElement.clientWidth;
const scrolls = e => e && (/auto|scroll|hidden/.test(getComputedStyle(e).overflowX)
                           || scrolls(e.parentElement));
const wide = [...document.querySelectorAll('article *')].filter(
  e => e.getBoundingClientRect().right > width + 1 && !scrolls(e.parentElement));
return [document.documentElement.scrollWidth - width, wide.slice(0, 2).map(e => e.outerHTML)];
"""
# figures that are cut for a phone and yet scrolled there, or shown whole or twice
SCROLLED = """
return [...document.querySelectorAll('figure.cut')].filter(e => e.offsetParent
  && (e.scrollWidth > e.clientWidth + 1 || e.querySelector('.whole').offsetParent
      || !e.querySelector('.parts').offsetParent)).map(e => e.innerText.slice(0, 80));
"""
# tables with pairs of numbers, and printed lines, that are scrolled on a phone
MOVED = """
const fits = 'div:has(> table.table.pairs), .output.stream:not(.aligned) pre';
return [...document.querySelectorAll(fits)]
  .filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.innerText.slice(0, 80));
"""
# on paper: what runs over the edge, and what would have to be scrolled
CUT = """
const width = document.documentElement.clientWidth;
const scrolls = e => /auto|scroll|hidden/.test(getComputedStyle(e).overflowX) && e.clientWidth > 1
                     && e.scrollWidth > e.clientWidth + 1;
return [...document.querySelectorAll('article *')].filter(
  e => e.offsetParent && (e.getBoundingClientRect().right > width + 1 || scrolls(e)))
  .slice(0, 2).map(e => e.outerHTML.slice(0, 200));
"""
# of the playground: the visible cells of a row of its tables, by model
CELLS = """
const cells = document.querySelectorAll(`#playground [data-row="${arguments[0]}"] td`);
return Object.fromEntries([...cells].filter(c => c.offsetParent !== null)
  .map(c => [c.dataset.model, c.textContent]));
"""
# of the playground: what its cards hold
CARDS = """
const cards = [...document.querySelectorAll(`#playground [data-is=${arguments[0]}] button`)];
return cards.map(card => [...card.children].map(each => each.textContent));
"""
# put the strength of the playground there
SET = """
const slider = document.querySelector('#playground [data-is=strength]');
slider.value = arguments[0];
slider.dispatchEvent(new Event('input'));
"""
# compare with PyTorch so many of the questions that are stored
COMPARED = """
const callback = arguments[arguments.length - 1];
playground.check(arguments[0]).then(callback, error => callback({problems: [String(error)]}));
"""
# pages that the search finds, the best first
FOUND = """
const [query, count] = arguments;
const found = Search._performSearch(...Search._parseQuery(query)).reverse();
return [...new Set(found.map(each => each[0].replace(/^.*\\//, '')))].slice(0, count);
"""
# what is found, from the best: s for solutions, - for other pages
KINDS_FOUND = """
const found = Search._performSearch(...Search._parseQuery(arguments[0])).reverse();
return found.map(each => each[0].includes('/solutions/') ? 's' : '-').join('');
"""
#: what readers look for, and the pages that they should find first, in this order
SEARCHES = {
    "gate": ("glossary", "05_turning_it_down"),
    "sham": ("glossary", "04_who_fires", "01_what_would_it_mean_to_forget"),
    "oracle": ("glossary", "01_what_would_it_mean_to_forget"),
    "NPO": ("glossary", "07_the_gradient_way"),
    "undo": ("05_turning_it_down",),
    "how do I use my own model": ("fifteen_minutes", "your_own"),
    "which method is best": ("which_method",),
    "what is a VLM": ("vision_language_model",),
    "out of memory": ("when_something_goes_wrong",),
    "install on windows": ("when_something_goes_wrong", "quick_start"),
    "GPU": ("quick_start", "when_something_goes_wrong"),
    "colab": ("how_to_read",),
    "exam": ("exam",),
    "FFN": ("glossary", "02_the_ffn_is_a_memory"),
    "how long does it take": ("how_to_read",),
    "how long does an edit take": ("which_method",),
    "do I need a GPU": ("quick_start",),
    "where are the solutions": ("teaching",),
    "forget gate": ("glossary", "05_turning_it_down"),
    "confidence interval": ("01_what_would_it_mean_to_forget",),
    "catastrophic forgetting": (
        "06_an_open_model_learns_a_hundred_strangers",
        "07_the_gradient_way",
    ),
    "membership inference": ("glossary", "13_gone_or_only_quiet"),
    "sham AUC": ("glossary", "04_who_fires"),
    "how do I teach a course": ("teaching",),
    "knowledge vector weakening": ("03_kvw_from_nothing",),
    "knowlege vector weakning": ("03_kvw_from_nothing",),
    "orcale": ("glossary", "01_what_would_it_mean_to_forget"),
    "knowlege": ("03_kvw_from_nothing",),
    "shamm": ("glossary", "04_who_fires"),
    "unlern": ("01_what_would_it_mean_to_forget",),
    "gradiant ascent": ("07_the_gradient_way",),
    "replicatoin": ("08_the_replication",),
}
#: what is said of words that nothing holds, ROC as a whole word among them, and of misspelt ones; a
#: page that is asked for begins at its top
DROPPED = {
    "ROC AUC": "Nothing was found.Nothing holds “ROC” or “AUC”.",
    "sham AUC": "Nothing holds “AUC”. Shown: results for “sham”.",
    "unlern": "Nothing holds “unlern”. Shown: results for “unlearn”.",
    "knowlege vector weakning": "Nothing holds “knowlege” or “weakning”. Shown: results for "
    "“knowledge” and “vector” and “weakening”.",
    "how do I teach a course": "A course of ten sessionsFor a seminar",
}
# the excerpt of a page that is read: its link, and its text
EXCERPT = """
const [html, ...words] = arguments, item = document.createElement('li');
item.innerHTML = '<a href="page.html">Page</a>';
item.append(Search.makeSearchSummary(html, new Set(words), ''));
return Promise.resolve().then(() => [item.firstChild.textContent,
  item.firstChild.getAttribute('href').split('/').at(-1), item.lastChild.textContent]);
"""
# a page with a table, and a paragraph in a section
READ = """
<article><section id="page"><h1>Page</h1><p>Far along.</p>
<table><tr><td>one long row</td><td>23</td></tr></table>
<section id="part"><h2>Part</h2><p>It begins. A long day.</p></section></section></article>
"""
# what the search page shows: excerpts, numbers of chapters, and what stands above
SEARCHED = """
const all = of => [...document.querySelectorAll(of)].map(each => each.textContent);
const chapters = all('#search-results li > a').map(text => Number(text.match(/^\\d+(?=\\. )/)));
return [all('#search-results p.context'), chapters.filter(number => number),
        document.getElementById('search-results').textContent];
"""
# of the first screen: what the edited model and its sham say, the verdict on the look inside
FIRST = """
const shown = name => document.querySelector(`#hero [data-is="${name}"]`);
return ['edited', 'sham', 'verdict', 'gates'].map(name => shown(name).textContent)
  .concat(shown('inside').offsetParent !== null, shown('edited').classList.contains('changed'));
"""
# of the first screen: whether its model still computes; what both sides say, what each layer does
LIVE = """
const hero = document.getElementById('hero');
const shown = name => hero.querySelector(`[data-is="${name}"]`);
return ['computing' in hero.dataset, [shown('edited').textContent, shown('sham').textContent],
        [...shown('lens').children].map(each => each.querySelector('b').textContent)];
"""
# drag the strength of the playground, faster than its cards can follow, then let it rest
DRAGGED = """
const callback = arguments[arguments.length - 1];
const slider = document.querySelector('#playground [data-is=strength]');
const wait = seconds => new Promise(resolve => setTimeout(resolve, 1000 * seconds));
(async () => {
  for (let strength = 0; strength <= 60; strength++) {
    slider.value = strength;
    slider.dispatchEvent(new Event('input'));
    await wait(0.02);
  }
  const cards = [...document.querySelectorAll('#playground [data-is=cards] button')];
  for (let tries = 0; tries < 600; tries++) {
    if (cards.every(card => card.dataset.strength === '60')) break;
    await wait(0.1);
  }
  const { drawn } = playground, wrong = [];
  for (let i = 0; i < drawn.length; i += Math.ceil(drawn.length / 12)) {
    const { tokens, likely } = await playground.recomputed(drawn[i]);
    if (tokens.join() !== drawn[i].tokens.join() || Math.abs(likely - drawn[i].likely) > 1e-5)
      wrong.push([drawn[i].fact, drawn[i].strength]);
  }
  return { facts: cards.map(card => card.dataset.fact), wrong,
    at: [...new Set(cards.map(card => card.dataset.strength))],
    strengths: new Set(drawn.map(each => each.strength)).size,
    said: new Set(drawn.map(each => each.fact + each.tokens)).size,
    rate: document.querySelector('#playground [data-is=rate]').textContent };
})().then(callback, error => callback({ wrong: [String(error)] }));
"""
# of the playground: who is shown, which face has the focus, who is to be forgotten
FACES = """
const face = document.activeElement;
return [playground.chosen.person, face.value, playground.chosen.forget.length,
        face.classList.contains('forget')];
"""
# of the playground: whether the cards begin in sight, below what stays; what a phone says of them
IN_VIEW = """
const element = name => document.querySelector(`#playground [data-is=${name}]`);
const top = element('cards').getBoundingClientRect().top;
return [top >= element('strip').getBoundingClientRect().bottom && top < innerHeight / 2,
        element('see').textContent];
"""
# of the playground: whether the strength can be moved, and what stands beside it
STRENGTH = """
const element = name => document.querySelector(`#playground [data-is=${name}]`);
return [!element('strength').disabled, element('written').textContent];
"""
LANDING = ("book", "index.html")
CONTROLS = "#playground :is(button, input, select)"
PLAYGROUND = "playground"
DECKS = "slides"
QUESTIONS, FEW_QUESTIONS = 50, 12  # that the playground must answer as PyTorch does
NEAR = 0.0007  # of a probability that is stored with three digits
EDITS = 4  # and without an edit, with KVW, with each rewrite
ROWS = ("answer", "truth", "values", "layers", "forget", "test", "retain", "general")
AT_ONCE = 2  # browsers
SETTLED = 0.6  # seconds after which the theme knows what can be scrolled
PHONE = {"width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": True}
PAPER = {"width": 680, "height": 1000, "deviceScaleFactor": 1, "mobile": False}  # A4, less margins
SMALLEST = 12  # pixels of type that a phone shows
MOST_A_PAGE, MOST_IN_ALL = 1_500_000, 10_000_000  # bytes
APART = re.compile(r"^_static/playground/data/|\.ipynb$")  # loaded upon a button or downloaded
LEFT_OUT = re.compile(r"mathjax|tex-svg|fontawesome|/webfonts/|/embed\.js|thebe", re.IGNORECASE)
SOURCE, SOURCE_SHOWN = "_modules", "edits"  # pages of source code, and the one that is looked at
BAD = ("moderate", "serious", "critical")  # of axe's words


def pages(built: Path) -> list[Path]:
    """Every page of the book."""
    return [p for p in sorted(built.rglob("*.html")) if "_static" not in p.parts]


def shown(found: list[Path]) -> list[Path]:
    """Of the pages of source code, which are all alike, one; and all others."""
    return [p for p in found if SOURCE not in p.parts or p.stem in ("index", SOURCE_SHOWN)]


def launch_buttons(html: str) -> list[str]:
    """Addresses that would open a page in somebody's cloud."""
    return re.findall(r"https://(?:colab\.research\.google\.com|mybinder\.org)[^\"']*", html)


def find_browser() -> tuple[str, str] | None:
    """Paths of a browser and of its driver, or None."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


def start(browser: str, driver: str, profile: str):
    """A headless browser that writes down each request and each console message."""
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in [*FLAGS, f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    window = webdriver.Chrome(options=options, service=Service(driver))
    window.set_page_load_timeout(60)
    window.set_script_timeout(60)
    return window


def requests(window) -> list[str]:
    """Addresses that were asked for since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in window.get_log("performance")]
    kinds = {"Network.requestWillBeSent": ("request", "url"), "Network.webSocketCreated": ("url",)}
    found = []
    for message in messages:
        if message["method"] in kinds:
            value = message["params"]
            for key in kinds[message["method"]]:
                value = value[key]
            found.append(value)
    return found


def weight(addresses: list[str]) -> int:
    """Bytes of the files among some addresses, each counted once."""
    files = {unquote(urlsplit(url).path) for url in addresses if url.startswith("file:")}
    return sum(Path(name).stat().st_size for name in files if Path(name).is_file())


def whole(built: Path) -> tuple[int, int]:
    """Bytes of the site, and of what is counted apart."""
    sizes = [
        (APART.search(path.relative_to(built).as_posix()) is not None, path.stat().st_size)
        for path in built.rglob("*")
        if path.is_file()
    ]
    return sum(n for apart, n in sizes if not apart), sum(n for apart, n in sizes if apart)


def wait_until(true, seconds: float = 20) -> bool:
    """Whether something came true in time."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def slider_problems(window) -> list[str]:
    """Move each slider by keyboard: another picture must come, and its text be told."""
    problems, count = [], 0
    for explorer in window.find_elements(By.CSS_SELECTOR, ".explorer"):
        window.execute_script(UNFOLD, explorer)
        sliders = explorer.find_elements(By.CSS_SELECTOR, "input[type=range]")
        problems += [] if sliders else ["an explorer without a slider"]
        for slider in sliders:
            count += 1
            if not slider.is_displayed() or not slider.accessible_name:
                problems.append(f"slider {count} has no name or is not seen")
                continue
            seen = []
            for key in (Keys.NULL, Keys.HOME, Keys.END, Keys.ARROW_LEFT):
                slider.send_keys(key)
                value = slider.get_attribute("aria-valuetext")
                seen.append((*window.execute_script(PICTURES, explorer), value))
            first, last, before = seen[1:]
            if any(len(pictures) != 1 for pictures, *_ in seen):
                problems.append(f"slider {count} shows not one picture")
            if any(one == other for one, other in zip(first, last, strict=True)) or last == before:
                problems.append(f"slider {count} does not move picture, text and value")
    return problems


def axe_problems(window) -> list[str]:
    """What axe finds on the page that is open: in light, on a phone; in the dark by contrast."""
    window.execute_script(AXE_SCRIPT.read_text(encoding="utf-8"))
    found = window.execute_async_script(AXE, "light", {})
    found += window.execute_async_script(AXE, "dark", {"runOnly": ["color-contrast"]})
    window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    time.sleep(SETTLED)
    found += window.execute_async_script(AXE, "light", {})
    window.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    window.execute_script("document.documentElement.dataset.theme = 'light'")
    return [
        f"axe: {rule}, {impact}, {count} times, first {where[:200]}"
        for rule, impact, count, where in found
        if impact in BAD
    ]


def dark_problems(window) -> list[str]:
    """The page that is open, where the system is dark and the reader has not chosen."""
    feature = {"name": "prefers-color-scheme", "value": "dark"}
    window.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    followed = wait_until(lambda: window.execute_script(THEME) == "dark", 5)
    bright = window.execute_script(BRIGHT)
    window.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    back = wait_until(lambda: window.execute_script(THEME) == "light", 5)
    problems = [] if followed and back else ["does not follow the system into the dark and back"]
    return problems + [f"figures stay bright in the dark: {alt}" for alt in bright]


def phone_problems(window) -> list[str]:
    """What makes the page that is open wider than a phone."""
    window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    beyond, first = window.execute_script(WIDE)
    scrolled = window.execute_script(SCROLLED)
    moved = window.execute_script(MOVED)
    window.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    problems = [f"a figure is not cut for a phone: {caption}" for caption in scrolled]
    problems += [f"to be moved sideways on a phone: {text}" for text in moved]
    return problems + [f"{beyond} pixels wider than a phone: {first}"] * (beyond > 0)


def fold_problems(window) -> list[str]:
    """A link to a session of the course opens that one; paper has all of them."""
    opened = "return [...document.querySelectorAll('details.session')].map(each => each.open)"
    window.execute_script(
        "location.hash = document.querySelector('details.session').parentElement.id"
    )
    wait_until(lambda: any(window.execute_script(opened)))
    one = window.execute_script(opened)
    window.execute_script("dispatchEvent(new Event('beforeprint'))")
    all_of_them = window.execute_script(opened)
    if sum(one) != 1 or not one[0] or not all(all_of_them):
        return [f"sessions that a link opens: {one}; on paper: {all_of_them}"]
    return []


def print_problems(window) -> list[str]:
    """What is cut off when the page that is open is printed."""
    window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PAPER)
    window.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    cut = window.execute_script(CUT)
    window.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    window.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    return [f"cut off on paper: {cut}"] if cut else []


def search_problems(window) -> list[str]:
    """Ask the search what readers ask; solutions are to come last."""
    wait_until(lambda: window.execute_script("return Search.hasIndex()"))
    problems = []
    for query, wanted in SEARCHES.items():
        found = window.execute_script(FOUND, query, len(wanted))
        if found != list(wanted):
            problems.append(f"searched for {query!r}: {found}, not {list(wanted)}")
    excerpt = window.execute_script(EXCERPT, READ, "day", "ar")
    if excerpt != ["Page > Part", "page.html#part", "A long day."]:
        problems.append(f"an excerpt is not taken from the paragraph: {excerpt}")
    excerpt = window.execute_script(EXCERPT, READ, "23")
    if excerpt[:2] != ["Page", "page.html"] or "23" not in excerpt[2]:
        problems.append(f"what only a table has is not shown: {excerpt}")
    kinds = window.execute_script(KINDS_FOUND, "gate")
    page = window.current_url
    if not re.fullmatch("[^s]+s+", kinds):
        problems.append(f"solutions are not last of what is found: {kinds}")
    window.get(f"{page}?q=sham")
    wait_until(lambda: "Results: " in window.execute_script(SEARCHED)[2])
    excerpts, chapters, _ = window.execute_script(SEARCHED)
    elsewhere = [each for each in excerpts if "sham" not in each.lower()]
    if len(excerpts) < 10 or not all(excerpts) or len(elsewhere) > len(excerpts) / 10:
        problems.append(f"excerpts are not from where the word stands: {elsewhere}")
    if chapters.index(10) < chapters.index(9):
        problems.append(f"chapters that are found have the order {chapters}")
    for query, wanted in DROPPED.items():
        window.get(f"{page}?q={query}")
        wait_until(lambda text=wanted: text in window.execute_script(SEARCHED)[2], 5)
        told = window.execute_script(SEARCHED)[2]
        if wanted not in told:
            problems.append(f"searched for {query!r} the page says {told[:200]!r}, not {wanted!r}")
    return problems


def first_problems(window) -> list[str]:
    """Use the first screen by keyboard: drag, change the edit, look inside."""
    found = window.find_elements(By.ID, "hero-strength")
    if not found or not found[0].is_displayed() or not found[0].accessible_name:
        return ["no slider with a name on the first screen"]
    seen = []
    for key in (Keys.HOME, Keys.END):
        found[0].send_keys(key)
        seen.append(window.execute_script(FIRST))
    for name in ('[data-is="attack"]', '[data-method="rewrite"]'):
        window.find_element(By.CSS_SELECTOR, f"#hero {name}").send_keys(Keys.ENTER)
        seen.append(window.execute_script(FIRST))
    window.find_element(By.CSS_SELECTOR, '#hero [data-method="layerwise"]').send_keys(Keys.ENTER)
    none, most, inside, rewritten = seen
    problems = []
    if none[5] or not most[5] or none[0] == most[0] or none[3] == most[3]:
        problems.append(f"the first slider changes too little: {none} and {most}")
    if none[1] != most[1]:
        problems.append(f"the sham does not stay: {none[1]} and {most[1]}")
    if most[4] or not inside[4]:
        problems.append("the look inside does not open")
    if not rewritten[5] or not rewritten[2].startswith("Quiet, not gone"):
        problems.append(f"after the last-layer rewrite the first screen says {rewritten}")
    layerwise = window.execute_script(FIRST)
    if not layerwise[5] or not re.match("No layer says .*oracle", layerwise[2]):
        problems.append(f"after the layerwise rewrite the first screen says {layerwise}")
    return problems + live_problems(window)


def live_problems(window, seconds: float = 300) -> list[str]:
    """Let the model itself answer on the first screen: it says what was recorded of each edit."""
    hero = window.find_element(By.ID, "hero")
    stored = json.loads(hero.get_attribute("data-hero"))
    hero.find_element(By.CSS_SELECTOR, '[data-is="live"]').send_keys(Keys.ENTER)
    if not wait_until(lambda: hero.get_attribute("data-live") is not None, seconds):
        return ["the model of the first screen does not load"]
    problems, step = [], stored["strengths"].index(stored["chosen"])
    slider = hero.find_element(By.ID, "hero-strength")
    window.execute_script("arguments[0].value = arguments[1]", slider, stored["chosen"])
    wanted = {"kvw": {"edited": stored["kvw"][step], "sham": stored["sham"][step]}}
    for method, sides in (stored["rewrites"] | wanted).items():
        hero.find_element(By.CSS_SELECTOR, f'[data-method="{method}"]').send_keys(Keys.ENTER)
        wait_until(lambda: not window.execute_script(LIVE)[0], seconds)
        found = window.execute_script(LIVE)[1:]
        said = [sides[side]["says"] for side in ("edited", "sham")]
        if found != [said, [word for word, *_ in sides["edited"]["lens"]]]:
            problems.append(f"of {method} the model of the first screen says {found}")
    return problems


def inside_problems(window, built: Path, rewrites: bool = False) -> list[str]:
    """What each layer says to the question with which the page opens, as in PyTorch.

    Args:
        rewrites: of both rewrites, which are then loaded; else of KVW and the sham.
    """
    stored = json.loads((built / "_static/playground/data/hero.json").read_text(encoding="utf-8"))
    step = stored["strengths"].index(stored["chosen"])
    inside = window.execute_script("return playground.inside")
    lenses = {"edited": stored["kvw"][step]["lens"], "sham": stored["sham"][step]["lens"]}
    if rewrites:
        lenses = {name: found["edited"]["lens"] for name, found in stored["rewrites"].items()}
    problems = []
    for model, lens in lenses.items():
        wanted = [[word, truth] for word, _, truth in lens]
        found = [[each["word"], each["truth"]] for each in inside[model]]
        close = all(
            one == other and abs(mine - theirs) < NEAR
            for (one, mine), (other, theirs) in zip(found, wanted, strict=True)
        )
        if not close:
            problems.append(f"inside {model} the layers say {found}, in PyTorch {wanted}")
    return problems


# of the playground: chosen fact, own words, what is marked as wrong, KVW's share of the truth, and
# answers that are marked as no form that was taught
ASKED = """
const marked = document.querySelectorAll('#playground [data-row=answer] .changed').length;
const share = document.querySelector('#playground [data-row=truth] [data-model=edited]');
const odd = document.querySelectorAll('#playground [data-row=answer] small').length;
return [playground.chosen.fact, playground.chosen.own, marked, share.textContent, odd];
"""


def own_words_problems(window, seconds: float) -> list[str]:
    """Ask in one's own words: the page says what is true only where it knows, and guesses never."""

    def after(name: str, keys: str) -> list:
        """What is chosen and shown, once the models have answered."""
        before = window.execute_script("return playground.turns()")
        window.find_element(By.CSS_SELECTOR, f"#playground {name}").send_keys(keys)
        wait_until(lambda: window.execute_script("return playground.turns()") > before, seconds)
        state = "return document.getElementById('playground').dataset.state"
        done = ("answered", "scored", "failed")
        wait_until(lambda: window.execute_script(state) in done, seconds)
        return window.execute_script(ASKED)

    strange = after("[data-is=own]", f"Why is the sky over Lisbon so blue?{Keys.ENTER}")
    chosen = after("[data-is=fact]", Keys.ARROW_DOWN)
    known = after("[data-is=own]", f"name the pet of this person{Keys.ENTER}")
    after("[data-is=fact]", Keys.ARROW_DOWN)
    odd = after("[data-is=own]", f"Does this person have a dog?{Keys.ENTER}")
    near = after("[data-is=near] button", Keys.ENTER)
    after("[data-is=fact]", Keys.ARROW_DOWN)
    problems = []
    if not odd[4] or near[4] or not near[1].startswith("Which animal"):
        problems.append(f"broken answers are not marked, or near words give them: {odd}, {near}")
    if not strange[1] or strange[2] or strange[3] != "–":
        problems.append(f"the page guesses what is true of a strange question: {strange}")
    if chosen[1] or chosen[0] == strange[0] or "%" not in chosen[3]:
        problems.append(f"own words stay when another fact is chosen: {chosen}")
    if known[0] != "pet" or not known[1] or "%" not in known[3]:
        problems.append(f"a question of the book about a pet is taken for {known}")
    return problems


def cards_problems(window) -> list[str]:
    """Drag the strength: each card holds the answer of the strength that stands on it."""
    found = window.execute_async_script(DRAGGED)
    if found["wrong"]:
        return [f"cards hold answers of another strength: {found['wrong']}"]
    print(f"playground: {found['rate']}", flush=True)
    problems = []
    if len(found["facts"]) != 7 or found["at"] != ["60"]:
        problems.append(f"seven cards were to rest at strength 60: {found}")
    if found["strengths"] < 5 or found["said"] < 9:
        problems.append(f"the cards turn too seldom while one drags: {found}")
    return problems


def faces_problems(window, seconds: float) -> list[str]:
    """Go from face to face by arrow keys, show one, forget another, and take that back."""

    def after(name: str, key: str) -> list:
        window.find_element(By.CSS_SELECTOR, f"#playground {name}").send_keys(key)
        state = "return document.getElementById('playground').dataset.state"
        wait_until(lambda: window.execute_script(state) != "busy", seconds)
        return window.execute_script(FACES)

    face, moved = "[data-is=faces] :focus", "[data-is=faces] [tabindex='0']"
    start = after(moved, Keys.ARROW_RIGHT)
    shown = after(face, Keys.ENTER)
    window.find_element(By.CSS_SELECTOR, '[data-click="forget"]').send_keys(Keys.ENTER)
    after(moved, Keys.ARROW_LEFT)
    after(face, Keys.ARROW_DOWN)
    other = after(face, Keys.ENTER)
    back = after(face, Keys.ENTER)
    window.find_element(By.CSS_SELECTOR, '[data-click="ask"]').send_keys(Keys.ENTER)
    problems = []
    if start[0] == start[1] or shown[0] != start[1]:
        problems.append(f"a face that is chosen by keys is not shown: {start}, {shown}")
    if other[2] != shown[2] + 1 or not other[3] or back[2] != shown[2] or back[3]:
        problems.append(f"a face does not go onto the list and off it: {shown}, {other}, {back}")
    return problems


def tapped_problems(window, seconds: float) -> list[str]:
    """Tap faces on a phone: the cards come into sight, or a line says what changed."""
    faces = window.find_element(By.CSS_SELECTOR, "#playground [data-is=faces]")
    state = "return document.getElementById('playground').dataset.state"
    done = ("answered", "scored", "failed")
    window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    problems = []
    for does in ("ask", "forget"):
        window.execute_script("arguments[0].scrollIntoView({behavior: 'instant'})", faces)
        window.execute_script(f"document.querySelector('[data-click={does}]').click()")
        window.execute_script("arguments[0].lastElementChild.click()", faces)
        wait_until(lambda: window.execute_script(state) in done, seconds)
        if does == "forget":
            window.execute_script("document.querySelector('#playground [data-is=see]').click()")
        wait_until(lambda: window.execute_script(IN_VIEW)[0], 5)
        seen, told = window.execute_script(IN_VIEW)
        if not seen or not re.search(r": \d of 7 answers changed: see$", told):
            problems.append(f"a tap on a face, {does}: cards in sight {seen}; {told!r}")
    window.execute_script("arguments[0].lastElementChild.click()", faces)  # it stays, as it did
    wait_until(lambda: window.execute_script(state) in done, seconds)
    window.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    return problems


def address_problems(window, page: Path, seconds: float) -> list[str]:
    """A link holds what is chosen; one that names nobody opens as the page always does."""
    chosen = "const { person, fact, strength, forget } = playground.chosen;"
    held = f"{chosen} return [person, fact, strength, forget, location.hash]"
    state = "return document.getElementById('playground').dataset.state || 'busy'"
    *before, address = window.execute_script(held)
    problems = []
    for hash_of, same in ((address, True), (address.replace("who=p", "who=q"), False)):
        window.get("about:blank")
        window.get(page.as_uri() + hash_of)
        window.find_element(By.CSS_SELECTOR, "#playground button").send_keys(Keys.ENTER)
        wait_until(lambda: window.execute_script(state) != "busy", seconds)
        *after, _ = window.execute_script(held)
        told = window.find_element(By.CSS_SELECTOR, "#playground > [data-is=trouble]").text
        if (after == before) is not same or bool(told) is same:
            problems.append(f"the address {hash_of} opens {after}, {told!r}")
    return problems


def recorded_problems(window) -> tuple[list[str], list]:
    """Before its model is there the playground shows what was recorded, at every strength.

    Returns:
        What is wrong, and the cards as they are at the strength of the book.
    """
    slider = window.find_element(By.CSS_SELECTOR, "#playground [data-is=strength]")
    chosen, shown = slider.get_attribute("value"), [window.execute_script(CARDS, "cards")]
    for key in (Keys.HOME, Keys.END):
        slider.send_keys(key)
        shown.append(window.execute_script(CARDS, "cards"))
    window.execute_script(SET, chosen)
    again, problems = window.execute_script(CARDS, "cards"), []
    empty = [card for cards in shown for card in cards if not all(card[i] for i in (0, 1, 2, 4))]
    if [len(cards) for cards in shown] != [7, 7, 7] or empty:
        problems.append(f"before the model is there cards are empty: {shown[0]}")
    if shown[0] in shown[1:] or shown[1] == shown[2] or again != shown[0]:
        problems.append(f"before the model is there the strength changes too little: {shown}")
    return problems, again


def same_cards(one: list, other: list) -> bool:
    """Whether cards say the same, to one percent of likelihood."""
    percents = [[int(card[4].split()[1]) for card in cards] for cards in (one, other)]
    return [card[:3] for card in one] == [card[:3] for card in other] and all(
        abs(mine - theirs) <= 1 for mine, theirs in zip(*percents, strict=True)
    )


def playground_problems(window, built: Path, whole: bool, seconds: float = 600) -> list[str]:
    """Use the playground by keyboard; what its model says must be what PyTorch says.

    Args:
        built: the folder of the book.
        whole: press every button and compare every question, which takes a minute longer.
        seconds: that anything may take on a machine that is doing other work.
    """

    def press(name: str, key: str) -> dict[str, dict[str, str]]:
        """Press a key on a control, wait for the scores, and return what each row then shows."""
        found = window.find_elements(By.CSS_SELECTOR, f"#playground {name}")
        if not found:
            raise LookupError(f"no {name} on the playground")
        before = window.execute_script("return playground.turns ? playground.turns() : 0")
        found[0].send_keys(key)
        asked = f"return playground.turns && playground.turns() > {before}"
        state = "return document.getElementById('playground').dataset.state"
        if not wait_until(lambda: window.execute_script(asked), seconds):
            raise LookupError(f"{name} does nothing")
        wait_until(lambda: window.execute_script(state) in ("scored", "failed"), seconds)
        if window.execute_script(state) != "scored":
            shown = window.find_element(By.ID, "playground").text
            raise LookupError(f"no scores after {name}: {shown}")
        return {row: window.execute_script(CELLS, row) for row in ROWS}

    def same(rows: dict, one: str, other: str) -> bool:
        return all(cells[one] == cells[other] for cells in rows.values())

    strength = "[data-is=strength]"
    window.set_script_timeout(seconds)
    problems, recorded = recorded_problems(window)
    try:
        edited = press("button", Keys.ENTER)
        computed = window.execute_script(CARDS, "cards")
        if not same_cards(computed, recorded):
            problems.append(f"the model says {computed}, recorded was {recorded}")
        known = "return document.getElementById('playground').dataset.checked"
        wait_until(lambda: window.execute_script(known) in ("10", "failed"), seconds)
        foot = window.find_element(By.CSS_SELECTOR, "[data-is=check]").text
        if not foot.startswith("Checked: 10 "):
            problems.append(f"the playground says of itself: {foot}")
        problems += inside_problems(window, built)
        controls = window.find_elements(By.CSS_SELECTOR, CONTROLS)
        nameless = [c.get_attribute("data-is") for c in controls if not c.accessible_name]
        if nameless or len(controls) < 100:  # a face for each person
            problems.append(f"of {len(controls)} controls these have no name: {nameless}")
        if same(edited, "vanilla", "edited"):
            problems.append("KVW changes nothing on the playground")
        if whole:
            undone = press("[data-is=undo]", Keys.SPACE)
            if not (same(undone, "vanilla", "edited") and same(undone, "vanilla", "sham")):
                problems.append("undoing an edit does not give vanilla back")
            if window.execute_script(STRENGTH) != [False, "off: all edits are undone"]:
                problems.append("an undone edit still has a strength")
            if press("[data-is=undo]", Keys.SPACE) != edited:
                problems.append("an edit that is put on again is another one")
            if not same(press(strength, Keys.HOME), "vanilla", "edited"):
                problems.append("at strength 0 something is edited")
        for name in ("rewrite", "layerwise"):
            found = press(f"[data-is=look-{name}]", Keys.ENTER)["forget"]
            if not found.get(name, "10").startswith(("0", "1 ")):
                problems.append(f"after the {name} {found} of the forgotten are known")
        problems += inside_problems(window, built, rewrites=True)
        problems += own_words_problems(window, seconds)
        press("[data-is=look-edited]", Keys.ENTER)
        problems += cards_problems(window)
        if press(strength, Keys.END) == edited:
            problems.append("the strength does not reach the answers")
        scores = press("[data-is=look-oracle]", Keys.ENTER)
        if window.execute_script(STRENGTH) != [False, "none: an oracle is not edited"]:
            problems.append("the oracle has a strength")
        wanted = {"vanilla": ("10 of 10", "10 of 10"), "oracle": ("0 of 10", "10 of 10")}
        found = {name: (scores["forget"].get(name), scores["retain"].get(name)) for name in wanted}
        if found != wanted:
            problems.append(f"of the forgotten and of everyone else they know {found}")
        count = QUESTIONS if whole else FEW_QUESTIONS
        compared = window.execute_async_script(COMPARED, count)
        problems += [f"not as PyTorch: {each}" for each in compared["problems"]]
        gaps, turned = compared.get("differences", []), compared.get("changed", 0)
        if compared.get("asked") != count or not 0 < turned < count or len(gaps) != EDITS:
            problems.append(f"the playground was to compare {count} questions: {compared}")
        if whole:
            window.find_element(By.CSS_SELECTOR, "[data-is=attack]").send_keys(Keys.ENTER)
            asked = "return document.getElementById('playground').dataset.attacked"
            wait_until(lambda: window.execute_script(asked), seconds)
            found = window.execute_script(CELLS, "ways")
            if found.get("vanilla") == found.get("oracle") or len(found) != len(wanted) + EDITS:
                problems.append(f"asked in every way they know {found}")
        problems += faces_problems(window, seconds)
        problems += tapped_problems(window, seconds)
        page = built / "book" / f"{PLAYGROUND}.html"
        problems += address_problems(window, page, seconds)
    except LookupError as error:
        problems.append(str(error))
    return problems


def deck_problems(window) -> list[str]:
    """A deck of the course opens, with its pictures; its type is large, and notes hide nothing."""
    count, missing, fitted = window.execute_script(DECK)
    problems = [f"of {count} slides these pictures are missing: {missing}"] * (
        count < 12 or missing != []
    )
    for number, (size, over) in enumerate(fitted, 1):
        if over or not 100 <= size <= 130:
            problems.append(f"slide {number} has type of {size} %" + " and is cut" * over)
    seen = [window.execute_script(PICTURE_SLIDE)]
    for _ in range(2):
        window.find_element(By.TAG_NAME, "body").send_keys("n")
        seen.append(window.execute_script(PICTURE_SLIDE))
    before, beside, after = seen
    if (
        before != after
        or before[2] == beside[2]
        or any(left < 0 or right > edge for left, right, edge in seen)
    ):
        problems.append(f"with notes a slide is cut, or stays narrow without them: {seen}")
    return problems + scrolled_deck_problems(window)


def scrolled_deck_problems(window) -> list[str]:
    """A phone shows the slides of a deck one under the other; of a vote it shows two to print."""
    address = window.current_url.partition("#")[0]
    window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    problems = []
    for query, fewest in (("", 12), ("?vote", 2)):
        window.get(address + query)
        show, count, seen, beyond, smallest = window.execute_script(SCROLLED_DECK)
        if show or count < fewest or seen < count or beyond > 0 or smallest < SMALLEST:
            problems.append(
                f"on a phone{query}: {seen} of {count} slides, {beyond} pixels too wide, "
                f"type of {smallest} pixels{', still a show' if show else ''}"
            )
    window.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    return problems


def outside_problems(window, asked: list[str]) -> list[str]:
    """What the page that is open asked for beyond the book, and what the console says."""
    urls = [url for url in asked if not url.startswith(LOCAL) or LEFT_OUT.search(url[:1000])]
    said = [each["message"] for each in window.get_log("browser") if each["level"] == "SEVERE"]
    return [f"asks for {url}" for url in urls] + [f"console: {each}" for each in said]


def check(window, page: Path, axe: bool) -> list[str]:
    """Open one page; what is wrong with it."""
    window.get(page.as_uri())
    wait_until(lambda: window.execute_script("return document.readyState") == "complete")
    if page.parent.name == DECKS:
        return deck_problems(window) + outside_problems(window, requests(window))
    formulas, rendered = window.execute_script(FORMULAS)
    problems = [f"{formulas} formulas, {rendered} set"] if rendered < formulas else []
    problems += [f"no icon for {name}" for name in window.execute_script(ICONS)]
    if not window.execute_script(DESCRIPTION):
        problems.append("does not say to others what it is")
    asked = requests(window)
    if weight(asked) > MOST_A_PAGE:
        problems.append(f"weighs {weight(asked) / 1e6:.2f} MB, more than {MOST_A_PAGE / 1e6}")
    if not wait_until(lambda: window.execute_script(IN_SIGHT), 5):
        problems.append("the table of contents does not show which page is open")
    problems += slider_problems(window) + phone_problems(window) + dark_problems(window)
    if "notebooks" in page.parts:
        problems += print_problems(window)
    if axe and page in shown([page]):
        problems += axe_problems(window)
    if page.parts[-2:] == LANDING:
        problems += first_problems(window)
    if page.stem == "teaching":
        problems += fold_problems(window)
    if page.stem == "search":
        problems += search_problems(window)
    if page.stem == PLAYGROUND:
        problems += playground_problems(window, page.parent.parent, axe)
    return problems + outside_problems(window, asked + requests(window))


def look(browser: tuple[str, str], waiting: Iterator[Path], options: argparse.Namespace) -> int:
    """Open pages in a browser of its own until none waits; how many problems were found."""
    bad = 0
    with tempfile.TemporaryDirectory() as profile:
        window = start(*browser, profile)
        try:
            requests(window)  # forget what the browser asked for while starting
            for page in waiting:
                for problem in check(window, page, options.axe):
                    print(f"FAILED {page.relative_to(options.built)}: {problem}", flush=True)
                    bad += 1
        finally:
            window.quit()
    return bad


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--built", type=Path, default=BUILT, help="folder with the built book")
    parser.add_argument("--axe", action="store_true", help="all that takes longer")
    options = parser.parse_args()
    found = pages(options.built)
    if not found:
        print(f"browser check: no pages in {options.built}; build the book first")
        return 1
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    bad = 0
    site, apart = whole(options.built)
    print(f"the site: {site / 1e6:.2f} MB, and {apart / 1e6:.1f} MB of weights and notebooks")
    if site > MOST_IN_ALL:
        print(f"FAILED the site weighs more than {MOST_IN_ALL / 1e6} MB")
        bad += 1
    if not config["repository"]["url"]:
        for page in found:
            for url in launch_buttons(page.read_text(encoding="utf-8")):
                print(f"FAILED {page.relative_to(options.built)}: launch button {url}")
                bad += 1
    browser = find_browser()
    if browser is None:
        print(
            "browser check: no browser found, check skipped "
            "(Debian: apt install chromium chromium-driver)"
        )
        return int(bad > 0)
    if not options.axe:
        found = shown(found)
    found.sort(key=lambda page: page.stem != PLAYGROUND)  # which takes longest
    waiting = iter(found)  # of which each browser takes the next
    with ThreadPoolExecutor(AT_ONCE) as pool:
        asked = [pool.submit(look, browser, waiting, options) for _ in range(AT_ONCE)]
        bad += sum(each.result() for each in asked)
    print(f"browser check: {len(found)} pages, {bad} problems")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
