"""Write what two pages say of the code: `book/package.md`, the drawn tree and where each formula
stands; `book/glossary.md`, what each letter means.

    python tests/write_pages.py

Generated from the code and from `tests/notation.py`, so that it cannot drift; tests compare.
"""

import ast
import importlib
import inspect
import json
from pathlib import Path

from notation import ROOT, SYMBOLS, Symbol, notebook_of

PACKAGE = ROOT / "kvw_minimal"
PAGE = ROOT / "book" / "package.md"
GLOSSARY = ROOT / "book" / "glossary.md"
BEGIN, END = "<!-- generated: begin -->\n", "<!-- generated: end -->\n"
BREAKS = ROOT / "data" / "results" / "breaks.json"
#: the core, in the order in which the rooms are read
CORE = (
    "questions",
    "models",
    "batches",
    "beginnings",
    "coefficients",
    "coefficients_io",
    "edits",
    "scores",
    "bootstrap",
    "results",
    "forget_request",
    "session",
    "conditions",
    "method",
    "kvw",
    "atomic_io",
    "distributed",
)
#: each room, the title of its page, and what it is for
ROOMS = {
    "architectures": ("Architectures", "where weights stand in a model: FFNs, experts, quantised"),
    "strangers": ("Strangers", "the hundred people, their portraits, the questions about them"),
    "zoo": ("Models of this book", "the models of this book: found, put together, loaded"),
    "methods": ("Methods", "every way to forget, under one signature and in one list"),
    "audit": ("Audit", "gone, or only quiet? probes of an edit, and a verdict"),
    "testing": ("Testing a method", "what every method promises, and a check of your own"),
    "benchmarks": ("Benchmarks", "MLLMU-Bench and CLEAR, and questions of your own"),
    "sharing": ("Sharing", "edits for other tools: adapters, merged models, cards"),
    "evaluation": ("Evaluation", "one request: scored, estimated beforehand, resumed, reported"),
}
#: what stands beside the chapters: how this book's models, numbers and figures are made
EXPERIMENTS = ROOT / "notebooks" / "kvw_experiments"
PARTS = {
    "recipes": "the strangers, and the models that were taught them by one loop, `fit`",
    "experiments as data": (
        "plans",
        "baselines",
        "design_space",
        "in_place",
        "kin",
        "sequential",
        "trials",
        "subjects",
        "model_selection",
    ),
    "one runner, one store": (
        "runner",
        "results_store",
        "freshness",
        "dependencies",
        "summary_files",
    ),
    "what rows say": ("summaries", "curves", "comparison", "verdicts", "cards", "doctor"),
    "shown": ("figures", "explorer", "drawings", "demo", "scaffold", "bench", "commands"),
}
SECTION = "## `{name}`\n\n```{{eval-rst}}\n.. automodule:: {module}\n   :members:\n{more}```\n"
#: grids of settings fill a screen each; the source shows them
WITHOUT_VALUES = "   :no-value:\n"
#: each formula of the book, and the function that is it
FORMULAS = (
    (r"mask $M$: one before an answer token", "batches", "Batch"),
    (r"$c = \sum M \lvert h\rvert / \sum M$, of one batch", "coefficients", "mean_absolute"),
    (r"the same, by person, for any number of batches", "coefficients", "accumulate"),
    (r"mean over the tokens that asked, of an expert those that asked it", "coefficients", "mean"),
    (r"knowledge vectors $v_i$: the columns of $W_\text{down}$", "models", "columns"),
    (r"contrast $\delta = \max(0, \log c_f - \log c_r)$", "kvw", "contrast"),
    (r"gate $g = e^{-G\delta} = \min(1, (c_r/c_f)^G)$", "kvw", "gate"),
    (r"$W' = W\,g$, columnwise", "edits", "scaled_columns"),
    (r"averaged first, weakened once", "kvw", "one_pass"),
    (r"batch after batch, $\gamma = G / n$", "kvw", "published"),
    (r"$W' = W + G\,BA$", "edits", "LowRank"),
    (r"exact match, $\log p$, $p = e^{\log p / n}$", "scores", "read"),
    (r"truth ratio $R = \overline{p(wrong)} / p(true)$", "benchmarks.truth_ratios", "truth_ratio"),
    (r"$[low, high]$ over people", "bootstrap", "interval"),
    (r"the sham: other people in their place", "forget_request", "Request"),
    (
        r"$-\mathrm{CE}_f$; $-\mathrm{CE}_f + w\,\mathrm{CE}_r$",
        "methods.gradients",
        "GradientDifference",
    ),
    (
        r"NPO: $-\frac{2}{\beta}\log\sigma(\beta\Delta)$, $\Delta = \mathrm{NLL} - \mathrm{NLL}_0$",
        "methods.losses",
        "negative_preference",
    ),
    (r"$\mathrm{KL}(p_0 \Vert p)$", "methods.losses", "divergence"),
    (
        r"Fisher diagonal $F = \overline{(\partial\,\mathrm{NLL} / \partial W)^2}$",
        "methods.fisher",
        "fisher",
    ),
    (r"score, positions, contrast, shape, schedule", "kvw_experiments.design_space", "Setting"),
    (r"strength at a mass: mean of $1 - g$", "kvw_experiments.design_space", "at_mass"),
    (r"effect $E_i = \sum_t h_i\,\partial m/\partial h_i$", "methods.least_squares", "effects"),
    (
        r"ridge: $\min \overline{(E z - \text{wanted})^2} + \rho\lvert z\rvert^2$",
        "methods.least_squares",
        "ridge_solution",
    ),
    (
        r"$\Delta W = \frac{d^\top k}{n} (\frac{k^\top k}{n} + aC + bC_d + \mu I)^{-1}$",
        "methods.rewrite",
        "solution",
    ),
    (
        r"$\Delta W = (\sum_g d^\top k / n) (\sum_g k^\top k / n + aC + \mu I)^{-1}$",
        "methods.layerwise_rewrite",
        "sweep",
    ),
    (r"recovered share: (attack $-$ edited) / (vanilla $-$ edited)", "audit.findings", "Finding"),
    (r"at least one of $n$ samples: $1 - (1 - p)^n$", "audit.prompting_probes", "samples"),
    (
        r"extraction strength: 1 - tokens given / tokens",
        "audit.token_probes",
        "extraction_strength",
    ),
    (r"which setting is chosen", "kvw_experiments.model_selection", "choose"),
    (r"sham minus edit, over people", "kvw_experiments.summaries", "excess"),
)


def statements(folder: Path) -> int:
    """Statements (`ast.stmt`) of all modules of a folder: what no newline can change."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in folder.rglob("*.py")]
    return sum(isinstance(node, ast.stmt) for tree in trees for node in ast.walk(tree))


def first_line(path: Path) -> str:
    """The first sentence of a module's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.split("\n")[0].rstrip(".")


def of_room(room: str) -> list[str]:
    """What a room is for, and its modules, as lines of text."""
    return [f"  {room + '/':18} {ROOMS[room][1]}", f"  {'':18} {', '.join(files_of(room))}"]


def files_of(room: str) -> list[str]:
    """The names of the modules of a room."""
    return sorted(path.stem for path in (PACKAGE / room).glob("*.py") if path.stem[0] != "_")


def tree() -> list[str]:
    """The rooms as lines of text, each module of the core with what it says of itself."""
    below, *above = ROOMS  # what the core imports, and what imports the core
    lines = ["kvw_minimal/", *of_room(below)]
    for name in CORE:
        lines.append(f"  {name + '.py':18} {first_line(PACKAGE / f'{name}.py')}")
    for room in above:
        lines += of_room(room)
    return [
        *lines,
        f"  {'api.py':18} {first_line(PACKAGE / 'api.py')}",
        f"  {'__main__.py':18} the command line",
        "",
        *beside(),
    ]


def beside() -> list[str]:
    """The experiments as lines of text.

    Raises:
        ValueError: a module that no part names, or a name without a module.
    """
    lines = ["notebooks/kvw_experiments/   it imports kvw_minimal"]
    left = {path.stem for path in EXPERIMENTS.glob("[!_]*.py")}
    for part, what in PARTS.items():
        if isinstance(what, str):
            files = sorted(path.stem for path in (EXPERIMENTS / part).glob("[!_]*.py"))
            lines += [f"  {part + '/':18} {what.replace('`', '')}", f"  {'':18} {', '.join(files)}"]
            continue
        lines.append(f"  {part + ':':23} {', '.join(what)}")
        if set(what) - left:
            raise ValueError(f"{sorted(set(what) - left)} of {part!r} are not there")
        left -= set(what)
    if left:
        raise ValueError(f"no part of the page names {sorted(left)}")
    return lines


def place(module: str, name: str) -> str:
    """A link to the file in which a function stands.

    Raises:
        AttributeError: it does not stand there.
    """
    beside = module.removeprefix("kvw_experiments.")
    found = importlib.import_module(module if beside != module else f"kvw_minimal.{module}")
    function = getattr(found, name)
    if inspect.getmodule(inspect.unwrap(function)) is not found:
        raise AttributeError(f"{name} is not defined in {module}")
    folder = "kvw_minimal" if beside == module else "notebooks/kvw_experiments"
    file = f"{folder}/{beside.replace('.', '/')}.py"
    return f"`{file}` | `{name}`"


def mutants() -> list[str]:
    """What the tests of each tier noticed of the mutants, by room, and what changes nothing."""
    outcomes = json.loads(BREAKS.read_text(encoding="utf-8"))
    tiers = {tier: outcomes[f"mutants, {tier}"] for tier in ("check", "test")}
    rooms = list(tiers["test"]["rooms"])
    lines = [f"| | {' | '.join(rooms)} | all |", f"|---|{'---|' * (len(rooms) + 1)}"]
    for tier, found in tiers.items():
        cells = [found["rooms"][room] for room in rooms] + [found]
        counts = " | ".join(f"{cell['killed']}/{cell['tried']}" for cell in cells)
        lines.append(f"| `make {tier}`, {found['date']} | {counts} |")
    drawn = json.loads((ROOT / "tests" / "mutants.json").read_text(encoding="utf-8"))
    idle = [number for number, each in enumerate(drawn) if "changes nothing" in each]
    gone = sum("gone" in each for each in drawn)
    return [
        f"What the tests noticed of {len(drawn)} mutants of the package, drawn by `cosmic-ray` by "
        f"a committed seed, when they were last tried. {len(idle)} of "
        f"these change nothing that anybody could see, and the lines of {gone} are gone since: "
        f"`tests/mutants.json` says why.",
        "",
        *lines,
    ]


def filled(page: Path, made: list[str]) -> str:
    """A page with these lines between its marks.

    Raises:
        ValueError: it has no marks.
    """
    head, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page.name} has no place for what is generated")
    return head + begin + "\n".join(made) + "\n" + end + tail


def page() -> str:
    """The whole page of the package."""
    size = (
        f"Size in statements: the package about {round(statements(PACKAGE), -2):,}; what made this "
        f"book's models, numbers and figures about {round(statements(EXPERIMENTS), -2):,} more, "
        "beside the chapters."
    )
    rows = [f"| {formula} | {place(module, name)} |" for formula, module, name in FORMULAS]
    head_of_table = ["| formula | file | function |", "|---|---|---|"]
    return filled(
        PAGE, ["```text", *tree(), "```", "", size, "", *head_of_table, *rows, "", *mutants()]
    )


def api_pages() -> dict[Path, str]:
    """The pages that show docstrings: one of the core, one for each room, and their index."""
    experiments = sorted(path.stem for path in EXPERIMENTS.glob("[!_]*.py"))
    recipes = sorted(path.stem for path in (EXPERIMENTS / "recipes").glob("[!_]*.py"))
    shown = {
        "core": ("The core", "kvw_minimal", ["api", *CORE]),
        **{
            room: (title, "kvw_minimal", [f"{room}.{name}" for name in files_of(room)])
            for room, (title, _) in ROOMS.items()
        },
        "experiments": (
            "Experiments of this book",
            "kvw_experiments",
            [*experiments, *(f"recipes.{name}" for name in recipes)],
        ),
    }
    pages, index = {}, []
    for page, (title, package, names) in shown.items():
        sections = [
            SECTION.format(
                name=name,
                module=f"{package}.{name}",
                more=WITHOUT_VALUES if page == "experiments" else "",
            )
            for name in names
        ]
        pages[ROOT / "book" / f"api_{page}.md"] = "\n".join([f"# {title}\n", *sections])
        index.append(f"- [{title}](api_{page}.md): {', '.join(f'`{name}`' for name in names)}")
    head = (
        "# API\n\nThe docstrings, as they stand in the source; `[source]` shows the code. A page "
        "for each room, as on [the package on one screen](package.md).\n\n"
    )
    return pages | {ROOT / "book" / "api.md": head + "\n".join(index) + "\n"}


def row_of(symbol: Symbol) -> str:
    """A row of the table of notation.

    Raises:
        AttributeError: its function does not stand where it says.
        ValueError: there is no such chapter.
    """
    letters = ", ".join(f"${each}$" for each in symbol.latex.split(", "))
    _, name = place(symbol.module, symbol.name).split(" | ")  # a long path would squeeze the rest
    notebook = notebook_of(symbol.chapter).name
    called = int(symbol.chapter) if symbol.chapter.isdigit() else "by hand"
    link = f"[{called}](../notebooks/{notebook})"
    return f"| {letters} | {symbol.meaning} | {symbol.shape} | {name} | {link} |"


def glossary() -> str:
    """The whole page of words and letters."""
    head_of_table = [
        "| letter | means | shape, unit, range | function | chapter |",
        "|---|---|---|---|---|",
    ]
    return filled(GLOSSARY, head_of_table + [row_of(symbol) for symbol in SYMBOLS])
