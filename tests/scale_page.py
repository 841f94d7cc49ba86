"""Write what `book/scale.md` says in numbers: 7B, 72B, a million requests, on paper.

    python tests/write_pages.py

Everything is arithmetic on what `make bench` measured (`data/results/bench.json`) and on the public
shapes of two models; a test compares.
"""

import json
from dataclasses import dataclass
from math import ceil, floor, log10

from package_page import ROOT, filled
from size import METHODS

from kvw_minimal.methods.layerwise_rewrite import LayerwiseRewrite
from kvw_minimal.methods.rewrite import MOMENTS_BYTES

PAGE = ROOT / "book" / "scale.md"
BENCH = ROOT / "data" / "results" / "bench.json"
SIZE = ROOT / "data" / "results" / "size.json"  # what `tests/size.py` measured
CONSTANTS_OF = "SmolVLM-256M's shape"  # the model and set that the constants are taken from
CARD = 10**14  # operations a second of a large card: assumed, as in `hub_models.md`
ASKED, PICTURE, TEXT = 20, 576, 64  # questions about a person; tokens of a picture, of a question
DAY = 86_400
HUNDRED, FIVE = 100 * ASKED, 5 * ASKED  # questions about a hundred people, about five of them
#: what is told of each set; what was not measured yet is left out
COLUMNS = {
    "bare / batched": "bare pass / measured",
    "bare / shared": "bare pass / shared",
    "published / batched": "public loop / measured",
    "published / shared": "public loop / shared",
}


@dataclass(frozen=True)
class Shape:
    """A model from the hub in numbers, weights in bfloat16."""

    name: str
    weights: float
    layers: int
    d_ff: int
    d_model: int

    @property
    def row(self) -> int:
        """Bytes of the coefficients of a person, or of an edit."""
        return 4 * self.layers * self.d_ff

    @property
    def moments(self) -> int:
        """Bytes of the rewrite's second moments of a layer: two, float64."""
        return 2 * 8 * self.d_ff**2

    @property
    def blocks(self) -> int:
        """How often the survey is read: once for as many layers as may be in memory."""
        return ceil(self.layers / max(1, MOMENTS_BYTES // self.moments))


SHAPES = (
    Shape("LLaVA, 7B", 7e9, 32, 11_008, 4096),
    Shape("Qwen2-VL, 72B", 72e9, 80, 29_568, 8192),
)


def rounded(value: float, digits: int = 2) -> int:
    scale = 10 ** max(0, floor(log10(value)) + 1 - digits)
    return round(value / scale) * scale


def size(count: float) -> str:
    """Bytes, without a point."""
    for unit, power in (("TB", 12), ("GB", 9), ("MB", 6)):
        if count >= 3 * 10**power:
            return f"{rounded(count / 10**power)} {unit}"
    return f"{rounded(count / 1000)} kB"


def time(seconds: float) -> str:
    for unit, length in (("years", 365 * DAY), ("days", DAY), ("hours", 3600), ("minutes", 60)):
        if seconds >= 3 * length:
            return f"{rounded(seconds / length):,} {unit}"
    return f"{max(1, rounded(max(1, seconds)))} s"


def power(value: float) -> str:
    """Two digits, without a point: a reader can divide the rounded numbers of the page."""
    number = rounded(value)
    exponent = floor(log10(number)) - 1
    return f"${number // 10**exponent} \\times 10^{{{exponent}}}$"


def constants(bench: dict) -> dict[str, float]:
    """What was measured: operations, bytes hashed, bytes joined a second."""
    (model,) = [each for each in bench["models"] if each["model"] == CONSTANTS_OF]
    (row,) = [r for r in bench["rows"] if (r["model"], r["set"]) == (CONSTANTS_OF, "text")]
    return {
        "operations": 2 * model["decoder"] * row["tokens a second"],
        "hashed": model["bytes"] / model["fingerprint"],
        "joined": bench["joining"],
    }


def stored() -> dict:
    return json.loads(BENCH.read_text(encoding="utf-8"))


def ratios(bench: dict) -> list[str]:
    """Those of `COLUMNS` that every row has."""
    return [name for name in COLUMNS if all(name in row for row in bench["rows"])]


def measured(bench: dict) -> list[str]:
    """What measuring costs, as a table of medians."""
    names = ratios(bench)
    heads = ["model", "set", "tokens a second", *(COLUMNS[name] for name in names)]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for row in bench["rows"]:
        found = [f"{row[name]:.2f}" for name in names]
        lines.append(
            f"| {row['model']} | {row['set']} | {row['tokens a second']:,.0f} | "
            f"{' | '.join(found)} |"
        )
    return lines


def on_paper(bench: dict) -> list[str]:
    """A table for each model: one request, a thousand, a million."""
    known, lines = constants(bench), []
    for shape in SHAPES:
        lines += [
            "",
            f"**{shape.name}**: {size(2 * shape.weights)} of weights; {size(shape.row)} "
            f"of coefficients a person, and as much an edit; {size(shape.moments)} of second "
            f"moments a layer, {size(shape.layers * shape.moments)} in all, in "
            f"{shape.blocks} blocks; its fingerprint takes "
            f"{time(2 * shape.weights / known['hashed'])}, once for a process.",
            "",
            "| people | coefficients | operations | with shared beginnings | this machine | "
            "a large card (assumed) | cards for a day | added up in |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for people in (1, 1000, 10**6):
            whole = 2 * shape.weights * people * ASKED * (PICTURE + TEXT)
            shared = 2 * shape.weights * people * (PICTURE + ASKED * TEXT)
            joining = 2 * people * shape.row / known["joined"]  # float64
            cells = (
                f"{people:,}",
                size(people * shape.row),
                power(whole),
                power(shared),
                time(shared / known["operations"]),
                time(shared / CARD),
                f"{ceil(shared / CARD / DAY):,}",
                time(joining),
            )
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def operations_of_layerwise(shape: Shape, blocks: int) -> tuple[float, float, float]:
    """Operations of a layerwise rewrite of five people among a hundred: passes, price, solving.

    All questions are read twice for each block of second moments. The price adds up k k' at every
    position of a question, in each layer. Each layer is solved once in a sweep.
    """
    edit, tokens = LayerwiseRewrite(), PICTURE + TEXT
    passes = 2 * blocks * HUNDRED + (edit.others + 2 + 3 * edit.sweeps) * FIVE
    price = 2.0 * HUNDRED * tokens * shape.layers * shape.d_ff**2
    solved = 2 / 3 * shape.d_ff**3 + 2 * shape.d_ff**2 * shape.d_model
    return 2 * shape.weights * tokens * passes, price, edit.sweeps * shape.layers * solved


def layerwise_on_paper() -> list[str]:
    """A table of one request: KVW, and the layerwise rewrite with little and with much memory."""
    lines = [
        "",
        "**The layerwise rewrite on paper**: five people among a hundred, 20 questions each, every "
        "question read whole. Its second moments fit into memory in blocks of layers, and each "
        "block reads all questions again; with memory for all layers they are read once.",
        "",
        "| model | edit | memory beside the weights | passes, operations | price C, operations | "
        "solving, operations | a large card (assumed) |",
        "|---|---|---|---|---|---|---|",
    ]
    for shape in SHAPES:
        once = 2 * shape.weights * HUNDRED * (PICTURE + TEXT)
        whole = shape.layers * shape.moments
        kinds = (
            ("KVW one pass", 100 * shape.row, (once, 0, 0)),
            (
                "layerwise, in blocks",
                whole / shape.blocks,
                operations_of_layerwise(shape, shape.blocks),
            ),
            ("layerwise, in one block", whole, operations_of_layerwise(shape, 1)),
        )
        for name, memory, parts in kinds:
            cells = [power(part) if part else "" for part in parts]
            cells = [shape.name, name, size(memory), *cells, time(sum(parts) / CARD)]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def by_rows(size: dict) -> list[str]:
    """What an edit and the whole command cost by the number of rows."""
    lines = [
        "",
        f"**By the number of rows**: `python tests/size.py`, {size['date']}, commit "
        f"`{size['commit']}`, {size['processor']}, one thread, seconds of its own work. Text about "
        "up to 300 people, one in twenty forgotten; a random Llama of 16 layers and d_ff 1,024. "
        f"The whole command makes {size['draws']} sham.",
        "",
        "| method | rows | the edit, s | more memory, MB | the whole command, s | "
        "estimate of `--dry-run`, s | its memory, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in sorted(
        size["trials"], key=lambda each: (list(METHODS).index(each["method"]), each["rows"])
    ):
        edit, whole = each["edit"], each.get("whole")
        cells = [f"{edit['seconds']:.0f}", f"{edit['memory'] - edit['before']:.0f}"]
        cells += (
            [
                f"{whole['seconds']:.0f}",
                f"{each['expected']['seconds']:.0f}" if "expected" in each else "",
                f"{whole['memory']:.0f}",
            ]
            if whole
            else [""] * 3
        )
        lines.append(f"| {each['method']} | {each['rows']:,} | {' | '.join(cells)} |")
    edit, whole = (
        ", ".join(
            f"{row['method']} {row['value']:.2f}" for row in size["slopes"] if row["kind"] == kind
        )
        for kind in ("edit", "whole")
    )
    return [
        *lines,
        "",
        f"Seconds of the edit grow with a power of the rows: {edit}. Those of the whole command: "
        f"{whole}.",
    ]


def page() -> str:
    """The whole page."""
    bench = stored()
    known, source = constants(bench), bench["provenance"]
    grows = ", ".join(f"{row['grows with']} {row['value']:.2f}" for row in bench["slopes"])
    how, cores = (
        ("by one thread and the time that the processor gave to it", "one core")
        if source["threads"] == 1
        else (
            f"on {source['threads']} cores by the clock on the wall",
            f"{source['threads']} cores",
        )
    )
    load = max(source["load"], default=0)
    return filled(
        PAGE,
        [
            f"Measured on {source['date']}, commit `{source['commit']}`, {how}; the load of the "
            f"machine, itself counted, was about {round(load)}:",
            "",
            *measured(bench),
            "",
            f"Seconds grow with a power of the size: {grows}.",
            "",
            f"From it three constants, of {CONSTANTS_OF} and {cores}: "
            f"{power(known['operations'])} operations a second while measuring, "
            f"{size(known['hashed'])} a second hashed, {size(known['joined'])} a second joined.",
            *on_paper(bench),
            *layerwise_on_paper(),
            *by_rows(json.loads(SIZE.read_text(encoding="utf-8"))),
        ],
    )
