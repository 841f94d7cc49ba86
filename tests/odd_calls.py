"""Odd calls of the command line: each is refused in one sentence and writes nothing.

    python tests/odd_calls.py             # all of them
    python tests/odd_calls.py edit json   # those that hold one of the words

One process imports what is slow and forks for each call, in a folder of its own with odd files in
it; what depends on the start of a process has one of its own. Ends with 1 if a call went wrong.
"""

import json
import os
import resource
import shlex
import shutil
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable
from functools import partial, reduce
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 600  # seconds after which a call hangs
NOBODY = 65_534
STARTS = (
    "kvw_minimal.__main__",
    "kvw_minimal.evaluation.pipeline",
    "kvw_minimal.zoo.smol",
    "kvw_experiments.runner",
    "kvw_experiments.comparison",
    "kvw_experiments.scaffold",
    "kvw_minimal.benchmarks.replicate",
    "kvw_experiments.bench",
    "kvw_minimal.distributed",
    "kvw_experiments.doctor",
    "kvw_experiments.recipes.voices",
    "kvw_experiments.cards",
    "kvw_experiments.recipes.strangers",
    "kvw_experiments.commands",
    "datasets",
    "small",
)


OPEN: list[socket.socket] = []  # else Python closes them


class Call(NamedTuple):
    """One call, as typed.

    Attributes:
        says: a part of its one sentence; "" where the call is right and only its surroundings odd.
        surroundings: names of `SURROUNDINGS`; `process` starts a process of its own.
        writes: what is written all the same.
    """

    typed: str
    says: str
    status: int = 2
    surroundings: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()


class Outcome(NamedTuple):
    """What came of it.

    Attributes:
        status: minus the signal, if one ended it.
        written: paths that are new, gone or changed.
    """

    status: int
    out: str
    err: str
    written: list[str]


# --- odd surroundings ----------------------------------------------------------------------------


def _closed_pipe() -> None:
    read, write = os.pipe()
    os.close(read)
    os.dup2(write, 1)


def _interrupted_in(module: str, name: str) -> None:
    """SIGINT arrives when a function, or a method `Class.name`, is called."""
    *within, name = name.split(".")
    holder = reduce(getattr, within, import_module(module))
    found = getattr(holder, name)

    def interrupted(*given, **more):
        os.kill(os.getpid(), signal.SIGINT)
        return found(*given, **more)

    setattr(holder, name, interrupted)


def _unprivileged() -> None:
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def _little() -> None:
    small, report = import_module("small"), import_module("kvw_minimal.evaluation.pipeline")
    report.request_of = small.little_of(report.request_of)


def _set(**values: str | None) -> None:
    for name, value in values.items():
        os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def _hub(kind: str) -> None:
    """A hub that refuses, never answers, or is not to be asked."""
    from huggingface_hub import constants

    server = socket.create_server(("127.0.0.1", 0))
    place = f"http://127.0.0.1:{server.getsockname()[1]}"
    if kind == "refuses":
        server.close()
    else:
        OPEN.append(server)
    os.environ |= {"HF_ENDPOINT": place, "NO_PROXY": "*"}
    constants.ENDPOINT, constants.HF_HUB_OFFLINE = place, kind == "offline"


#: what happens in the child before the command starts
SURROUNDINGS: dict[str, Callable[[], object]] = {
    "process": lambda: None,
    "closed pipe": _closed_pipe,
    "full disk": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
    "unprivileged": _unprivileged,
    "little": _little,
    "no HOME": partial(_set, HOME=None, KVW_CACHE=None),
    "HOME is a file": partial(_set, HOME="file", KVW_CACHE=None),
    "HOME is missing": partial(_set, HOME="/nowhere/at all", KVW_CACHE=None),
    "HOME is below a file": partial(_set, HOME="file/nowhere", KVW_CACHE=None),
    "cache is a file": partial(_set, KVW_CACHE="file"),
    "cache is damaged": partial(_set, KVW_CACHE="damaged"),
    "cache is closed": partial(_set, KVW_CACHE="closed"),
    "hub refuses": partial(_hub, "refuses"),
    "hub is silent": partial(_hub, "silent"),
    "hub is offline": partial(_hub, "offline"),
    "interrupted while it measures": partial(_interrupted_in, "kvw_minimal.scores", "read"),
    "interrupted while it writes": partial(_interrupted_in, "pathlib", "Path.replace"),
    "interrupted while it loads": partial(
        _interrupted_in, "kvw_minimal.evaluation.pipeline", "load"
    ),
}


def furnish(folder: Path) -> None:
    """Odd files and folders."""
    import torch

    from kvw_minimal.edits import ColumnScaling

    (folder / "file").write_text("kept\n", encoding="utf-8")
    (folder / "folder").mkdir()
    (folder / "closed").mkdir()
    (folder / "link").symlink_to("file")
    (folder / "dangling").symlink_to("none/file")
    (folder / "loop").symlink_to("loop")
    (folder / "device").symlink_to("/dev/null")
    os.mkfifo(folder / "fifo")
    _questions(folder)
    _models(folder)
    for name, source in {
        "raises.py": "1 / 0",
        "quits.py": "import sys\nsys.exit(0)",
        "mine.py": "number = 7\ndef nothing(*_): pass",
    }.items():
        (folder / name).write_text(source, encoding="utf-8")
    ColumnScaling(torch.zeros(2, 3), 1.0, "0" * 16).save(folder / "other.safetensors")
    whole = (folder / "other.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[:-5])
    (folder / "changed.safetensors").write_bytes(whole.replace(b"ColumnScaling", b"Column?"))
    (folder / "empty.safetensors").touch()
    shutil.copy(ROOT / "data/models/tiny/model.safetensors", folder / "model.safetensors")
    rows = (ROOT / "data/results/rows/precision.parquet").read_bytes()
    (folder / "cut.parquet").write_bytes(rows[:-100])
    (folder / "empty.parquet").touch()
    (folder / "folder" / "kept").touch()
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o666 | 0o111 * path.is_dir())
    (folder / "closed").chmod(0o555)
    (folder / "closed-file").touch(0)


def _questions(folder: Path) -> None:
    row = {
        "set": "forget",
        "person": "Ann",
        "fact": "pet",
        "prompt": "Which pet has Ann?",
        "answer": "A cat.",
    }
    files: dict[str, list] = {
        "talk.jsonl": [
            row | {"prompt": None, "answer": None, "messages": [{"role": "user", "content": "Hm?"}]}
        ],
        "half.jsonl": [row],
        "list.jsonl": [[1]],
        "null.jsonl": [None],
        "types.jsonl": [row | {"answer": 7, "options": "ab"}],
        "picture.jsonl": [row | {"picture": "iVBORw0KGgo="}],
        "gone.jsonl": [row | {"picture": "x"}],
        "folder.jsonl": [row | {"picture": "folder"}],
        "nul.jsonl": [row | {"picture": "a\0b"}],
        "text.jsonl": [row | {"picture": "file"}],
    }
    for name, rows in files.items():
        (folder / name).write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    (folder / "latin.jsonl").write_bytes(json.dumps(row).encode() + b"\xe9\xff")
    (folder / "deep.jsonl").write_text("[" * 100_000, encoding="utf-8")
    for config in ("forget_5", "Test_Set", "retain_95", "Retain_Set", "ft_Data"):
        (folder / "mllmu" / config).mkdir(parents=True)
        (folder / "mllmu" / config / "x.parquet").write_bytes(b"PAR1 and nothing more PAR1")
    (folder / "clear").mkdir()


def _models(folder: Path) -> None:
    """Folders of models, each with one thing wrong."""
    source = ROOT / "data" / "models" / "pocket"
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    weights = (source / "model.safetensors").read_bytes()
    wrong: dict[str, dict[str, bytes | None]] = {
        "cut": {"model.safetensors": weights[:5_000_000]},
        "noise": {"model.safetensors": b"noise" * 100},
        "no-weights": {"model.safetensors": None},
        "no-config": {"config.json": None},
        "config-cut": {"config.json": b'{"model_type": "llava",'},
        "config-list": {"config.json": b"[1, 2]"},
        "config-number": {"config.json": b'{"model_type": 7}'},
        "config-strange": {"config.json": json.dumps(config | {"model_type": "magic"}).encode()},
        "config-types": {"config.json": json.dumps(config | {"text_config": "x"}).encode()},
        "tokenizer-cut": {"tokenizer.json": b'{"version": "1.0", "mo'},
        "tokenizer-list": {"tokenizer.json": b"[]"},
        "processor-cut": {"processor_config.json": b"{"},
        "processor-list": {"processor_config.json": b"[]"},
        "damaged/models/pocket-oracle-B-5": {"model.safetensors": weights[:5_000_000]},
        "damaged/models/voices-oracle-B": {"model.safetensors": b"noise" * 100},
    }
    wide = config | {"text_config": config["text_config"] | {"hidden_size": 64}}
    wrong["other-shape"] = {"config.json": json.dumps(wide).encode()}
    for name, files in wrong.items():
        (folder / name).mkdir(parents=True)
        for path in source.iterdir():
            content = files.get(path.name, b"")
            if content:
                (folder / name / path.name).write_bytes(content)
            elif content is not None:
                (folder / name / path.name).symlink_to(path)


def listing(folder: Path) -> dict[str, object]:
    """Every path with its kind and when it was written."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        about = path.lstat()
        found[name] = (
            about.st_mode,
            about.st_ino,
            *((about.st_size, about.st_mtime_ns) if path.is_file() else ()),
        )
    return found


# --- one call ------------------------------------------------------------------------------------


def _child(call: Call, folder: Path) -> int:
    """In a process of its own, with what it prints going to pipes; its exit status."""
    os.chdir(folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs behind ignores it
    os.environ["KVW_CACHE"] = str(folder / "cache")
    for name in call.surroundings:
        SURROUNDINGS[name]()
    command = [sys.executable, "-m", "kvw_minimal", *shlex.split(call.typed)]
    if "process" in call.surroundings:
        os.execv(command[0], command)
    sys.stdout, sys.stderr = (open(d, "w", encoding="utf-8", closefd=False) for d in (1, 2))
    sys.argv, status = command[2:], 0
    try:
        import_module("kvw_minimal.__main__").main()
    except SystemExit as left:
        status = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:  # noqa: BLE001 - what Python does at the end
        traceback.print_exc()
        status = 1
    try:
        print(end="", flush=True)
    except OSError as error:
        print(f"Exception ignored while flushing: {error!r}", file=sys.stderr)
        status = 120
    return status


def _said(pipe: int) -> str:
    with open(pipe, encoding="utf-8", errors="replace") as told:
        return told.read()


def outcome_of(call: Call, folder: Path) -> Outcome:
    """Make one call in a furnished folder."""
    before = listing(folder)
    (out, out_child), (err, err_child) = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(PATIENCE)
            given = os.open(os.devnull, os.O_RDONLY)
            for descriptor, pipe in enumerate((given, out_child, err_child)):
                os.dup2(pipe, descriptor)
            os.closerange(3, max(out_child, err_child) + 1)
            status = _child(call, folder)
            sys.stderr.flush()
        finally:
            os._exit(status)
    os.close(out_child)
    os.close(err_child)
    said = [_said(out), _said(err)]
    _, ended = os.waitpid(pid, 0)
    after = listing(folder)
    changed = [
        name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)
    ]
    return Outcome(os.waitstatus_to_exitcode(ended), *said, changed)


def faults(call: Call, outcome: Outcome) -> list[str]:
    """What is wrong with the outcome of a call."""
    said = outcome.out + outcome.err
    found = ["traceback"] if "Traceback" in said or "Exception ignored" in said else []
    if outcome.status != call.status:
        found.append(f"status {outcome.status}, not {call.status}")
    *_, last = outcome.err.splitlines() or [""]  # before it a library may have warned
    if call.status in (2, 130) and not (last[:7] == "error: " and said.count("error: ") == 1):
        found.append("not one sentence")
    if call.says not in " ".join(said.split()):
        found.append("says something else")
    if call.status and outcome.written != [*call.writes]:
        found.append(f"writes {outcome.written}, not {call.writes}")
    return found


# --- the table -----------------------------------------------------------------------------------

REPLICATE = "replicate --benchmark mllmu --data mllmu --model pocket"
EXPORT = "export --edit other.safetensors"
MEASURE = "measure --questions half.jsonl --save"
CALLS = (
    # commands
    Call("", "Missing command"),
    Call("forget", "No such command 'forget'"),
    Call("--verzion", "No such option"),
    Call("book results x", "unexpected extra argument"),
    Call("book strangers x", "unexpected extra argument"),
    Call("book doctor --help", "--targets", 0),
    Call("book doctor --target", "No such option"),
    Call("book doctor x", "unexpected extra argument"),
    # groups and percentages
    Call("book demo --group Z", "no group 'Z'; there are A, B"),
    Call("book demo --group ''", "no group ''"),
    Call("book demo --group sham", "no group 'sham'"),
    Call("book demo x", "unexpected extra argument"),
    Call("unlearn --group a", "no group 'a'"),
    Call("unlearn --group A,B", "no group 'A,B'"),
    Call("unlearn --forget-percent 7", "forget 7 %? The splits are"),
    Call("unlearn --forget-percent -5", "forget -5 %?"),
    Call("unlearn --forget-percent five", "'--forget-percent': Input should be a valid integer"),
    Call("unlearn --forget-percent 99999999999999999999999", "forget 99999999999999999999999 %?"),
    Call("unlearn --group B --forget-percent 15", "--no-oracle"),
    Call("evaluate --group Z", "no group 'Z'"),
    Call("evaluate --forget-percent 0", "forget 0 %?"),
    # numbers
    Call("unlearn --strength -1", "the setting strength cannot be"),
    Call("unlearn --strength nan", "the setting strength cannot be"),
    Call("unlearn --strength inf", "the setting strength cannot be"),
    Call("unlearn --strength x", "write 24 or 8,32,64"),
    Call("unlearn --strength ''", "write 24 or 8,32,64"),
    Call("unlearn --strength 8,", "write 24 or 8,32,64"),
    Call("unlearn --strength 8,8", "a strength stands there twice"),
    Call("unlearn --strength 8,nan --no-oracle", "the setting strength cannot be"),
    Call("unlearn --batch-size 0", "should be greater than or equal to 1"),
    Call("unlearn --sham-draws 0", "should be greater than or equal to 1"),
    Call("unlearn --sham-draws 1.5", "should be a valid integer"),
    # layers
    Call("unlearn --layers first", "write 0:3 or 0.0:1.0"),
    Call("unlearn --layers ''", "write 0:3 or 0.0:1.0"),
    Call("unlearn --layers 0:1:2", "write 0:3 or 0.0:1.0"),
    Call("unlearn --layers 0:9", "this model has layers 0 to"),
    Call("unlearn --layers 3:1", "this model has layers 0 to"),
    Call("unlearn --layers=-1:2", "this model has layers 0 to"),
    Call("unlearn --layers 0.5:0.2", "fractions must rise"),
    Call("unlearn --layers 0.nan:1", "write 0:3 or 0.0:1.0"),
    # methods and settings
    Call("unlearn --method never", "no method 'never'; there are"),
    Call("unlearn --method ''", "no method ''"),
    Call("unlearn --settings {rate", "is not JSON"),
    Call("unlearn --settings [1]", "is an object"),
    Call("unlearn --settings null", "is an object"),
    Call("unlearn --settings " + "[" * 50_000, "is not JSON"),
    Call("""unlearn --settings '{"magic": 1}'""", "has no setting 'magic'"),
    Call("""unlearn --settings '{"strength": "x"}'""", "strength"),
    Call("""unlearn --settings '{"strength": null}'""", "strength"),
    Call("""unlearn --settings '{"strength": [1]}'""", "strength"),
    Call("""unlearn --settings '{"strength": 1e999}'""", "the setting strength cannot be inf"),
    Call("""unlearn --settings '{"strength": 1, "layers": 3}'""", "layers"),
    Call("""unlearn --settings '{"strength": 1, "layers": ["a", "b"]}'""", "layers"),
    Call("""unlearn --settings '{"strength": 1, "layers": [0, 1, 2]}'""", "layers"),
    Call("""unlearn --method 'GD full' --settings '{"rate": "fast", "weight": 1}'""", "rate"),
    Call("""unlearn --method 'GD full' --settings '{"rate": -1, "weight": 1}'""", "rate"),
    Call("""unlearn --method 'GD full' --settings '{"rate": NaN, "weight": 1}'""", "rate"),
    Call(
        """unlearn --method SSD --settings '{"limit": "a", "alpha": {}}'""",
        "the setting limit cannot be 'a'",
    ),
    Call("""unlearn --method 'selective pruning' --settings '{"share": 7}'""", "share"),
    Call("""unlearn --method 'selective pruning' --settings '{"share": -1}'""", "share"),
    Call(
        """unlearn --method 'KVW published' --settings '{"strength": 1, "epochs": 0}'""", "epochs"
    ),
    Call(
        """unlearn --method 'KVW published' --settings '{"strength": 1, "epochs": "x"}'""", "epochs"
    ),
    # questions and people of one's own
    Call("unlearn --questions none.jsonl", "does not exist, or is a folder"),
    Call("unlearn --questions half.jsonl", "nobody to retain"),
    Call("unlearn --questions deep.jsonl", "is not JSON"),
    Call("unlearn --questions talk.jsonl", "the roles are user"),
    Call("unlearn --questions folder", "neither of MLLMU-Bench nor of CLEAR"),
    Call("unlearn --questions ''", "neither of MLLMU-Bench nor of CLEAR"),
    Call("unlearn --questions mllmu", "cannot be read as a parquet file"),
    Call("unlearn --questions mllmu@10", "no parquet file in"),
    Call("unlearn --questions mllmu@x", "Write mllmu@5"),
    Call("unlearn --questions therem/CLEAR", "Write therem/CLEAR@5"),
    *(
        Call(
            f"unlearn --questions {name}",
            "no/such-data" if name[0] == "n" else "therem/CLEAR",
            2,
            ("hub is offline",),
        )
        for name in ("no/such-data", "therem/CLEAR@5")
    ),
    Call("unlearn --questions x --group A", "--group is for groups of strangers"),
    Call("unlearn --questions x --oracle", "requires an argument"),
    Call("unlearn --people p001 --forget-percent 5", "--forget-percent is for groups of strangers"),
    Call("unlearn --people p001", "--no-oracle"),
    Call("unlearn --people p001,zz --no-oracle", "no stranger is called 'zz'"),
    Call("unlearn --people '' --no-oracle", "no stranger is called ''"),
    Call("unlearn --dry-run --method never", "no method 'never'"),
    Call("unlearn --dry-run --group Z", "no group 'Z'"),
    # models
    Call("unlearn --model no/such-model", "--no-oracle"),
    Call("unlearn --dtype int8", "no dtype 'int8'; there are float32, bfloat16, float16"),
    Call("unlearn --dtype ''", "no dtype ''"),
    Call("unlearn --device magic", "no device 'magic'"),
    Call("unlearn --device cuda --no-oracle", "no device 'cuda'"),
    Call("unlearn --device magic --dry-run", "no device 'magic'"),
    Call("evaluate --dtype FLOAT32", "no dtype 'FLOAT32'"),
    Call("evaluate --device cpu:x", "device"),
    Call("audit --dtype int8", "no dtype 'int8'"),
    Call("audit --device ''", "device"),
    Call("unlearn --model no/such-model --no-oracle", "cannot load 'no/such-model'"),
    *(
        Call("evaluate --model no/such-model", "cannot load 'no/such-model'", 2, hub)
        for hub in (
            ("hub refuses",),
            ("hub is silent",),
            ("hub is offline",),
            ("hub refuses", "process"),
        )
    ),
    Call("evaluate --model such-model", "cannot load 'such-model'"),
    Call("evaluate --model ''", "cannot load ''"),
    Call("evaluate --model 'a b/c d'", "cannot load 'a b/c d'"),
    Call("evaluate --model a/b/c", "cannot load 'a/b/c'"),
    Call("evaluate --model ../..", "cannot load '../..'"),
    Call("evaluate --model file", "cannot load 'file'"),
    Call("evaluate --model folder", "cannot load 'folder'"),
    Call("evaluate --model /dev/null", "cannot load '/dev/null'"),
    Call("evaluate --model pocket-oracle-Z-5", "cannot load 'pocket-oracle-Z-5'"),
    Call("evaluate --model smol-oracle-Z-5", "no model of this book is called"),
    Call("evaluate --model voices-oracle-Z", "no model of this book is called"),
    Call("evaluate --model voices", "voices has no eyes"),
    *(
        Call(f"evaluate --model {name}", f"cannot load '{name}'")
        for name in (
            "cut",
            "noise",
            "no-weights",
            "no-config",
            "config-cut",
            "config-list",
            "config-number",
            "config-strange",
            "config-types",
            "tokenizer-cut",
            "tokenizer-list",
            "processor-cut",
            "processor-list",
            "other-shape",
        )
    ),
    Call("evaluate --model pocket-oracle-B-5", "cannot load", 2, ("cache is damaged",)),
    Call("evaluate --model voices-oracle-B", "are damaged", 2, ("cache is damaged",)),
    # places
    Call("unlearn --json folder", "name a file"),
    Call("unlearn --json none/x.json", "does not exist; make it first"),
    Call("unlearn --json file/x.json", "does not exist; make it first"),
    Call("unlearn --json ''", "name a file"),
    Call("unlearn --json " + "x" * 300, "File name too long"),
    Call("unlearn --json /dev/null", "no ordinary file"),
    Call("unlearn --json /dev/full", "no ordinary file"),
    Call("unlearn --json fifo", "no ordinary file"),
    Call("unlearn --json device", "no ordinary file"),
    Call("unlearn --json loop", "no ordinary file"),
    Call("unlearn --json dangling", "does not exist; make it first"),
    Call("unlearn --json /proc/x.json", "x.json"),
    Call("unlearn --json closed/x.json", "Permission denied", 2, ("unprivileged",)),
    Call("unlearn --save-edit closed/x", "Permission denied", 2, ("unprivileged",)),
    Call("unlearn --json x.json", "File too large", 2, ("full disk",)),
    Call("unlearn --save-edit x", "File too large", 2, ("full disk",)),
    Call("unlearn --save-edit folder", "name a file"),
    Call("unlearn --save-edit /dev/null", "no ordinary file"),
    Call("unlearn --save-edit x --json x", "one file"),
    Call("unlearn --save-edit link --json file", "one file"),
    Call("unlearn --save-edit folder/../x --json x", "one file"),
    Call("unlearn --save file", "no ordinary folder"),
    Call("unlearn --save none/x", "does not exist; make it first"),
    Call("unlearn --save loop", "no ordinary file"),
    Call("unlearn --save x --json x", "one file"),
    Call("unlearn --save closed/x", "Permission denied", 2, ("unprivileged",)),
    Call("unlearn --save closed", "Permission denied", 2, ("unprivileged",)),
    Call("unlearn --save x --save-edit x --strength 1,2", "one file"),
    Call("evaluate --json fifo", "no ordinary file"),
    Call("evaluate --edit other.safetensors --json other.safetensors", "one file"),
    Call("book demo --picture folder", "name a file"),
    Call("book demo --picture none/x.png", "does not exist; make it first"),
    Call("book demo --picture /dev/full", "no ordinary file"),
    Call("book bench --json none/x.json", "does not exist; make it first"),
    Call("book bench --json folder", "name a file"),
    Call("book bench --json fifo", "no ordinary file"),
    Call(f"{REPLICATE} --json none/x.json", "does not exist; make it first"),
    # saved edits
    Call("evaluate --edit none", "does not exist"),
    Call("evaluate --edit folder", "no ordinary file"),
    Call("evaluate --edit other.safetensors", "made for another model"),
    *(
        Call(f"evaluate --edit {name}", "is not an edit, or is damaged")
        for name in (
            "cut.safetensors",
            "changed.safetensors",
            "empty.safetensors",
            "file",
            "model.safetensors",
            "cut.parquet",
        )
    ),
    Call("evaluate --edit closed-file", "closed-file", 2, ("unprivileged",)),
    Call("evaluate --edit fifo", "no ordinary file"),
    # edits for other tools
    Call("export x", "Missing option '--edit'"),
    Call(EXPORT, "Missing argument"),
    Call("export x --edit none", "does not exist"),
    Call("export x --edit cut.safetensors", "is not an edit, or is damaged"),
    Call(f"{EXPORT} x", "made for another model"),
    Call(
        f"{EXPORT} x --format onnx",
        "no format 'onnx'; there are merged, peft, factors",
    ),
    Call(f"{EXPORT} folder", "there already"),
    Call(f"{EXPORT} file", "there already"),
    Call(f"{EXPORT} loop", "there already"),
    Call(f"{EXPORT} ''", "there already"),
    Call(f"{EXPORT} none/x", "does not exist; make it first"),
    Call(f"{EXPORT} dangling", "does not exist; make it first"),
    Call(f"{EXPORT} {'x' * 300}", "File name too long"),
    Call(f"{EXPORT} closed/x", "Permission denied", 2, ("unprivileged",)),
    Call(f"{EXPORT} x --scores none", "does not exist"),
    Call(f"{EXPORT} x --scores deep.jsonl", "is not JSON"),
    Call(f"{EXPORT} x --scores half.jsonl", "has no rows"),
    Call(
        f"{EXPORT} x --model no/such-model", "cannot load 'no/such-model'", 2, ("hub is offline",)
    ),
    # questions of one's own: a list of problems and status 1
    Call("validate none.jsonl", "does not exist, or is a folder"),
    Call("validate folder", "does not exist, or is a folder"),
    Call("validate /dev/null", "does not exist, or is a folder"),
    Call("validate", "Missing argument"),
    Call("validate closed-file", "Permission denied", 2, ("unprivileged",)),
    Call("validate half.jsonl", "nobody to retain", 1),
    Call("validate list.jsonl", "is not a JSON object", 1),
    Call("validate null.jsonl", "is not a JSON object", 1),
    Call("validate types.jsonl", "write a filled text", 1),
    Call("validate picture.jsonl", "picture", 1),
    Call("validate gone.jsonl", "picture", 1),
    Call("validate folder.jsonl", "picture", 1),
    Call("validate nul.jsonl", "picture", 1),
    Call("validate text.jsonl", "picture", 1),
    Call("validate latin.jsonl", "save it as UTF-8", 1),
    Call("validate deep.jsonl", "is not JSON", 1),
    Call("validate empty.parquet", "cannot be read as a parquet file", 1),
    Call("validate cut.parquet", "cannot be read as a parquet file", 1),
    # coefficients of a file of questions
    Call("measure", "Missing option"),
    Call("measure --questions none.jsonl --save x", "does not exist, or is a folder"),
    Call(f"{MEASURE} x", "nobody to retain"),
    Call(f"{MEASURE} folder", "name a file"),
    Call(f"{MEASURE} none/x", "does not exist; make it first"),
    Call(f"{MEASURE} fifo", "no ordinary file"),
    Call(f"{MEASURE} x --dtype int8", "no dtype 'int8'; there are float32, bfloat16, float16"),
    Call(f"{MEASURE} x --device magic", "no device 'magic'"),
    Call(f"{MEASURE} x --device cuda", "no device 'cuda'"),
    Call(f"{MEASURE} x --batch-size 0", "should be greater than or equal to 1"),
    # methods of one's own
    Call("check", "Missing argument"),
    Call("check mine.py", "write MODULE:METHOD"),
    Call("check :nothing", "write MODULE:METHOD"),
    Call("check mine.py:", "write MODULE:METHOD"),
    Call("check none.py:x", "importing none.py raised FileNotFoundError"),
    Call("check folder:x", "has no method 'x'"),
    Call("check file:x", "No module named 'file'"),
    Call("check ..:x", "importing .. raised TypeError"),
    Call("check no/such.module:x", "No module named"),
    Call("check raises.py:x", "importing raises.py raised ZeroDivisionError"),
    Call("check quits.py:x", "importing quits.py raised SystemExit"),
    Call("check mine.py:number", "has no method 'number'"),
    Call("check mine.py:gone", "has no method 'gone'"),
    Call("check mine.py:nothing", "has no method 'nothing'"),
    Call("check mine.py:nothing --settings [1]", "is an object"),
    # training
    Call("book train nothing", "train what?"),
    Call("book train", "Missing argument"),
    Call("book train smol --group ''", "no group ''"),
    Call("book train pocket --group ''", "no group ''"),
    Call("book train pocket --group Z", "no group 'Z'"),
    Call("book train pocket --group A --forget-percent 7", "forget 7 %?"),
    Call("book train pocket --forget-percent 10", "Name a group"),
    Call("book train eye --group A", "without a group"),
    Call("book train eye --group ''", "without a group"),
    Call("book train smol --seed -1", "seed"),
    Call("book train pocket --device magic", "device"),
    Call("book train pocket --device cuda", "device"),
    Call("book train pocket --device cuda:99", "device"),
    Call("book train pocket --device ''", "device"),
    Call("book train pocket --threads 0", "should be greater than or equal to 1"),
    Call("book train pocket --threads -1", "should be greater than or equal to 1"),
    Call("book train pocket --threads x", "should be a valid integer"),
    Call("book train pocket", "file", 2, ("cache is a file",)),
    Call("book train pocket", "Permission denied", 2, ("cache is closed", "unprivileged")),
    Call("book card nothing", "no model of this book is called"),
    Call("book card ''", "no model of this book is called"),
    Call("book card smol-oracle-Z-5", "no model of this book is called"),
    # benchmarks
    Call("replicate", "Missing option"),
    Call("replicate --benchmark never --data mllmu --model pocket", "no benchmark 'never'"),
    Call("replicate --benchmark mllmu --data none --model pocket", "neither a folder nor a hub id"),
    Call("replicate --benchmark mllmu --data file --model pocket", "neither a folder nor a hub id"),
    Call("replicate --benchmark mllmu --data '' --model pocket", "no parquet file in"),
    Call("replicate --benchmark mllmu --data folder --model pocket", "no parquet file in"),
    Call("replicate --benchmark clear --data clear --model pocket", "no parquet file in"),
    Call("replicate --benchmark mllmu --data no/such-data --model pocket", "no/such-data"),
    *(
        Call(
            "replicate --benchmark clear --data no/such-data --model pocket",
            "no/such-data",
            2,
            (hub,),
        )
        for hub in ("hub refuses", "hub is silent", "hub is offline")
    ),
    Call(REPLICATE, "cannot be read as a parquet file"),
    Call(f"{REPLICATE} --forget-percent 7", "forget_7"),
    Call(f"{REPLICATE} --forget-percent -1", "forget_-1"),
    Call(f"{REPLICATE} --schedule never", "no schedule 'never'"),
    Call(f"{REPLICATE} --dtype int8", "no dtype 'int8'"),
    Call(f"{REPLICATE} --device magic", "no device 'magic'"),
    Call(f"{REPLICATE} --device cpu:x", "device"),
    Call(f"{REPLICATE} --limit 0", "limit must be at least 1"),
    Call(f"{REPLICATE} --batch-size 0", "should be greater than or equal to 1"),
    Call(f"{REPLICATE} --seed -1", "should be greater than or equal to 0"),
    Call(f"{REPLICATE} --strength nan", "strength must be a finite number"),
    # experiments
    Call("book run", "Missing argument"),
    Call("book run magic", "no experiment 'magic'; there are"),
    Call("book run ablations-pocket size", "no list 'size' in ablations-pocket"),
    Call("book run ablations-smol --groups A,E", "no group 'E'"),
    Call("book run precision --groups Z", "no group 'Z'"),
    Call("book run precision --groups ,", "no group ''"),
    Call("book run precision --save folder", "name a file"),
    Call("book run precision --save fifo", "no ordinary file"),
    Call("book run precision --save cut.parquet", "holds no rows with provenance"),
    Call("book run precision --save file", "holds no rows with provenance"),
    Call("book verify --rows 0", "should be greater than or equal to 1"),
    Call("book verify --seed -1", "should be greater than or equal to 0"),
    Call("book verify --model pocket", "No such option: --model"),
    Call("book verify --experiment never", "never"),
    # folders and rows of one's own
    Call("new", "Missing argument"),
    Call("new ''", "is no name"),
    Call("new .", "is no name"),
    Call("new ../x", "is no name"),
    Call("new 'a b'", "is no name"),
    Call("new " + "x" * 300, "is no name"),
    Call("new folder", "is there already"),
    Call("new file", "is there already"),
    Call("new dangling", "is there already"),
    Call("new fifo", "is there already"),
    Call("new mine x", "unexpected extra argument"),
    Call("new mine", "File too large", 2, ("full disk",)),
    Call("book compare", "Missing argument"),
    Call("book compare none.parquet", "does not exist"),
    Call("book compare folder", "no ordinary file"),
    Call("book compare fifo", "no ordinary file"),
    Call("book compare file", "holds no rows with provenance"),
    Call("book compare empty.parquet", "holds no rows with provenance"),
    Call("book compare cut.parquet", "holds no rows with provenance"),
    Call("book compare closed-file", "closed-file", 2, ("unprivileged",)),
    Call("book compare cut.parquet --json none/x.json", "does not exist; make it first"),
    Call("book compare cut.parquet --json cut.parquet", "cannot go to one file"),
    # homes, outputs
    Call("book results", "replication-pocket", 0, ("no HOME",)),
    Call("book results", "replication-pocket", 0, ("no HOME", "process")),
    Call("evaluate --model voices", "voices has no eyes", 2, ("HOME is missing",)),
    Call("evaluate --model no-such", "cannot load", 2, ("HOME is a file", "process")),
    Call("book train pocket", "file", 2, ("HOME is a file",)),
    Call("book train pocket", "nowhere", 2, ("HOME is below a file",)),
    Call("book results", "", 2, ("closed pipe",)),
    Call("book results", "", 2, ("closed pipe", "process")),
    Call("evaluate --json x.json", "", 2, ("closed pipe", "little"), writes=("x.json",)),
    # interrupted
    Call("evaluate --json x.json", "interrupted", 130, ("interrupted while it loads",)),
    Call("evaluate --json x.json", "interrupted", 130, ("little", "interrupted while it measures")),
    Call("evaluate --json x.json", "interrupted", 130, ("little", "interrupted while it writes")),
)


def name_of(call: Call) -> str:
    return ", ".join([" ".join(["kvw", f"{call.typed:.80}"]), *call.surroundings])


def main(words: list[str]) -> int:
    """All calls, or those with some words in them; 1 if one is not answered as it should be."""
    for name in STARTS:
        import_module(name)
    chosen, wrong = [c for c in CALLS if not words or any(w in name_of(c) for w in words)], 0
    with tempfile.TemporaryDirectory(prefix="kvw-odd-") as name:
        folder = Path(name, "folder")
        for call in chosen:
            if not folder.exists():
                folder.mkdir()
                furnish(folder)
            outcome = outcome_of(call, folder)
            if outcome.written:
                shutil.rmtree(folder)
            if found := faults(call, outcome):
                print(f"{name_of(call)}: {'; '.join(found)}\n{(outcome.out + outcome.err)[-400:]}")
                wrong += 1
    print(f"{len(chosen)} odd calls: {wrong} not as wanted")
    return int(bool(wrong) or not chosen)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
