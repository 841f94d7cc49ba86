"""Open every page of the built book in a headless browser, from the file system, without network.

    python tests/check_browser.py [--shots FOLDER]

Checks: no console error, no request beyond the folder of the book, every formula set, every
slider moves its picture, no launch button while the repository setting is empty; on the landing
page that its slider changes the answers, and on the playground that the model in the page answers
as PyTorch does, by keyboard alone.
Prints of every page how long it is, in screens of 1,280 x 900 pixels, how much of that is prose,
how many tables have more than eight rows, and its bytes with those of everything that it loads;
what the playground loads upon its buttons is counted apart.
Without Chromium (or Chrome) and its driver the check says that it was skipped.
"""

import argparse
import hashlib
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

ROOT = Path(__file__).resolve().parent.parent
BUILT = ROOT / "_build" / "html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--window-size=1280,900",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # there is no network, whatever the machine has
]  # fmt: skip
LOCAL = ("file:", "data:", "blob:", "about:", "chrome:", "chrome-untrusted:", "chrome-extension:",
         "devtools:")  # fmt: skip

# formulas that the page has, formulas that MathJax set, formulas that it could not read
FORMULAS = """
const found = document.querySelectorAll('span.math, div.math').length;
const done = () => callback([found,
  document.querySelectorAll('.math mjx-container').length,
  document.querySelectorAll('[data-mjx-error]').length]);
const callback = arguments[arguments.length - 1];
if (window.MathJax && MathJax.startup && MathJax.startup.promise)
  MathJax.startup.promise.then(done);
else done();
"""
# what the visible pictures of all widgets look like, as data that can be compared
PICTURES = """
const callback = arguments[arguments.length - 1];
const shown = [...document.querySelectorAll('.jupyter-widgets img')]
  .filter(i => i.offsetParent !== null && i.naturalWidth > 0);
callback(shown.map(i => {
  const canvas = document.createElement('canvas');
  canvas.width = i.naturalWidth; canvas.height = i.naturalHeight;
  canvas.getContext('2d').drawImage(i, 0, 0);
  return canvas.toDataURL();
}));
"""
# height of the page, share of its text that stands outside of cells, tables with many rows
COUNTERS = """
const text = document.querySelector('article') || document.body;
const height = of => [...text.querySelectorAll(of)].reduce((sum, e) => sum + e.offsetHeight, 0);
const rows = [...text.querySelectorAll('table')].map(t => t.querySelectorAll('tbody tr').length);
return [document.documentElement.scrollHeight, 1 - height('div.cell') / text.offsetHeight,
        rows.filter(count => count > arguments[0]).length];
"""
# of the playground: the visible cells of a row of its tables, by model
CELLS = """
const cells = document.querySelectorAll(`#playground [data-row="${arguments[0]}"] td`);
return Object.fromEntries([...cells].filter(c => c.offsetParent !== null)
  .map(c => [c.dataset.model, c.textContent]));
"""
# compare with PyTorch as many questions as are stored
COMPARED = """
const callback = arguments[arguments.length - 1];
playground.check(Infinity).then(callback, error => callback({problems: [String(error)]}));
"""
# of the landing page: what it shows of people (answers) and of the four sets (scores), and says
LANDED = """
const all = of => [...document.querySelectorAll('#landing ' + of)];
return [all('[data-taught]').map(c => c.textContent), all('td.score b').map(c => c.textContent),
        all('[aria-live]').map(c => c.textContent),
        all('[data-taught]').every(c => c.classList.contains('changed') ===
                                        (c.textContent !== c.dataset.taught))];
"""
LANDING = ("book", "index.html")
CONTROLS = "#playground :is(button, input, select)"
PLAYGROUND = "playground"
QUESTIONS = 50  # that the playground must answer as PyTorch does
ROWS = ("answer", "truth", "values", "forget", "test", "retain", "general")
SCREEN = 900  # pixels
MANY_ROWS = 8


def pages(built: Path) -> list[Path]:
    """Every page of the book."""
    return [p for p in sorted(built.rglob("*.html")) if "_static" not in p.parts]


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
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in [*FLAGS, f"--user-data-dir={profile}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    window = webdriver.Chrome(options=options, service=Service(driver))
    window.set_page_load_timeout(60)
    window.set_script_timeout(30)
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


def wait_until(true, seconds: float = 20) -> bool:
    """Whether something came true in time."""
    import time

    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def slider_problems(window) -> tuple[int, list[str]]:
    """Move each slider with the keyboard; the picture that is visible must become another."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    def pictures() -> list[str]:
        return window.execute_async_script(PICTURES)

    handles = window.find_elements(By.CSS_SELECTOR, ".jupyter-widgets .noUi-handle")
    problems = []
    for number, handle in enumerate(handles):
        window.execute_script("arguments[0].scrollIntoView({block: 'center'})", handle)
        if not wait_until(lambda: len(pictures()) > 0, 10):
            problems.append(f"slider {number} has no picture")
            continue
        before = pictures()
        for key in (Keys.ARROW_RIGHT, Keys.ARROW_LEFT, Keys.ARROW_LEFT):
            handle.send_keys(key)
            if wait_until(lambda before=before: pictures() not in ([], before), 2):
                break
        else:
            problems.append(f"slider {number} moves no picture")
    return len(handles), problems


def landing_problems(window) -> list[str]:
    """Move the slider of the landing page by keyboard; answers and scores must follow."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    found = window.find_elements(By.ID, "landing-strength")
    if not found or not found[0].is_displayed() or not found[0].accessible_name:
        return ["no slider with a name on the landing page"]
    shown = [window.execute_script(LANDED)]
    for key in (Keys.HOME, Keys.END, Keys.ARROW_LEFT):
        found[0].send_keys(key)
        shown.append(window.execute_script(LANDED))
    chosen, none, most, less = shown
    names = ("answers", "scores", "announcement")
    problems = [f"the slider changes no {name}" for i, name in enumerate(names)
                if not most[i] or none[i] in (most[i], chosen[i])]  # fmt: skip
    if less[2] == most[2]:
        problems.append("an arrow key does not move the slider")
    if not all(marked for *_, marked in shown):
        problems.append("an answer that changed is not marked, or one that did not is")
    return problems


def playground_problems(window, seconds: float = 180) -> tuple[str, list[str]]:
    """Use the playground by keyboard; what its model says must be what PyTorch says.

    Args:
        seconds: that anything may take on a machine that is doing other work.
    """
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

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

    problems, strength = [], "[data-is=strength]"
    window.set_script_timeout(seconds)
    try:
        edited = press("button", Keys.ENTER)
        first, foot = window.execute_script(
            "return [playground.firstAnswer, document.querySelector('[data-is=check]').textContent]"
        )
        if not foot.startswith("Checked: 10 "):
            problems.append(f"the playground says of itself: {foot}")
        window.find_element(By.CSS_SELECTOR, "#playground summary").send_keys(Keys.ENTER)
        controls = window.find_elements(By.CSS_SELECTOR, CONTROLS)
        nameless = [c.get_attribute("data-is") for c in controls if not c.accessible_name]
        if nameless or len(controls) < 100:  # a face for each person
            problems.append(f"of {len(controls)} controls these have no name: {nameless}")
        compared = window.execute_async_script(COMPARED)
        problems += [f"not as PyTorch: {each}" for each in compared["problems"]]
        if compared.get("asked") != QUESTIONS or not 0 < compared.get("changed", 0) < QUESTIONS:
            problems.append(f"the playground was to compare {QUESTIONS} questions: {compared}")
        if same(edited, "vanilla", "edited"):
            problems.append("KVW changes nothing on the playground")
        undone = press("[data-is=undo]", Keys.SPACE)
        if not (same(undone, "vanilla", "edited") and same(undone, "vanilla", "sham")):
            problems.append("undoing an edit does not give vanilla back")
        if press("[data-is=undo]", Keys.SPACE) != edited:
            problems.append("an edit that is put on again is another one")
        nothing, most = press(strength, Keys.HOME), press(strength, Keys.END)
        if not same(nothing, "vanilla", "edited") or most == edited:
            problems.append("the strength does not reach the answers")
        after = window.execute_script("return playground.lastAnswers")
        scores = press("[data-is=oracle]", Keys.ENTER)
        wanted = {"vanilla": ("10 of 10", "10 of 10"), "oracle": ("0 of 10", "10 of 10")}
        found = {name: (scores["forget"].get(name), scores["retain"].get(name)) for name in wanted}
        if found != wanted:
            problems.append(f"of the forgotten and of everyone else they know {found}")
    except LookupError as error:
        return "", [*problems, str(error)]
    return (f"first answer after {first / 1000:.1f} s, three models in {after:.0f} ms, "
            f"logits within {max(compared['differences']):.0e}"), problems  # fmt: skip


def check(window, page: Path, shots: Path | None) -> tuple[str, list[str]]:
    """Open one page; return what was seen on it and what is wrong with it."""
    from selenium.webdriver.common.by import By

    window.get(page.as_uri())
    wait_until(lambda: window.execute_script("return document.readyState") == "complete")
    formulas, rendered, unreadable = window.execute_async_script(FORMULAS)
    problems = []
    if rendered < formulas or unreadable:
        problems.append(f"{formulas} formulas, {rendered} set, {unreadable} unreadable")
    views = len(window.find_elements(
        By.CSS_SELECTOR, "script[type='application/vnd.jupyter.widget-view+json']"))  # fmt: skip
    drawn = "return document.querySelectorAll('.jupyter-widgets').length"
    if views and not wait_until(lambda: window.execute_script(drawn) >= views):
        problems.append(f"{views} widgets, {window.execute_script(drawn)} drawn")
    sliders, slider_trouble = slider_problems(window) if views else (0, [])
    problems += slider_trouble
    if page.parts[-2:] == LANDING:
        problems += landing_problems(window)
    asked, later, played = requests(window), [], ""
    if page.stem == PLAYGROUND:
        played, playground_trouble = playground_problems(window)
        problems += playground_trouble
        later = requests(window)
        played = f"; upon its buttons {weight(later) / 1e6:.1f} MB, {played}"
    problems += [f"asks for {url}" for url in asked + later if not url.startswith(LOCAL)]
    problems += [f"console: {entry['message']}" for entry in window.get_log("browser")
                 if entry["level"] == "SEVERE"]  # fmt: skip
    if shots:
        shots.mkdir(parents=True, exist_ok=True)
        name = hashlib.sha256(str(page).encode()).hexdigest()[:6] + "-" + page.stem + ".png"
        window.save_screenshot(str(shots / name))
    height, prose, tables = window.execute_script(COUNTERS, MANY_ROWS)
    return (
        f"{height / SCREEN:.1f} screens, {prose:.0%} prose, {tables} long tables, "
        f"{weight(asked) / 1e6:.1f} MB; {rendered} formulas, {views} widgets, {sliders} sliders"
        + played
    ), problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--built", type=Path, default=BUILT, help="folder with the built book")
    parser.add_argument("--shots", type=Path, help="keep a screenshot of every page here")
    options = parser.parse_args()
    found = pages(options.built)
    if not found:
        print(f"browser check: no pages in {options.built}; build the book first")
        return 1
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    bad = 0
    if not config["repository"]["url"]:
        for page in found:
            for url in launch_buttons(page.read_text(encoding="utf-8")):
                print(f"FAILED {page.relative_to(options.built)}: launch button {url}")
                bad += 1
    browser = find_browser()
    if browser is None:
        print("browser check: no browser found, check skipped "
              "(Debian: apt install chromium chromium-driver)")  # fmt: skip
        return int(bad > 0)
    with tempfile.TemporaryDirectory() as profile:
        window = start(*browser, profile)
        try:
            requests(window)  # forget what the browser asked for while starting
            for page in found:
                seen, problems = check(window, page, options.shots)
                for problem in problems:
                    print(f"FAILED {page.relative_to(options.built)}: {problem}")
                bad += len(problems)
                print(f"{'seen' if problems else 'ok'} {page.relative_to(options.built)}: {seen}")
        finally:
            window.quit()
    print(f"browser check: {len(found)} pages, {bad} problems")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
