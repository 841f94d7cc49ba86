"""A copy of the book to hand out: without solutions and answers, and without links to them.

    python book/_ext/students.py [--folder FOLDER] [--keep KEPT ...] [MORE ...]   # `make students`

What is left out is named in `LEFT_OUT`: solutions, the exam, its answers, and the teacher's page
with the answers to the votes. Of these some may be kept, and more may be named. A link to something
that is left out becomes its text, in pages and in notebooks, since the build refuses links that
lead nowhere; a sentence that says nothing but where it leads goes, and so does its line in
`_toc.yml`. Nothing in the repository is changed.
"""

import argparse
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "_build" / "students"
LEFT_OUT = ("notebooks/solutions", "book/exam_answers.md", "book/exam.md", "book/teaching.md")
MADE = {"_build", "build", "dist", "__pycache__"}
LINK = re.compile(r"\[([^\[\]]*)\]\(([^()\s#]+)(?:#[^()\s]*)?\)")
# a link with the words that are nothing without it, from the start of a line or sentence to its end
ALONE = re.compile(
    r"(^|[\n\"]|[.?!] )(?:Worked solutions: )?"
    + LINK.pattern
    + r"(?: run the same checks)?(?:(?:\.| ·) ?|(?=\n))(?=[\n\"\\A-Z\[★]|$)"
)


def files(root: Path = ROOT) -> list[Path]:
    """The files of the book, relative: those that git knows or would know, else all."""
    if shutil.which("git") and (root / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listing = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
        names = [Path(name) for name in set(listing.stdout.split("\0")) if name]
    else:
        names = [path.relative_to(root) for path in root.rglob("*")]
        names = [
            name
            for name in names
            if not MADE & set(name.parts)
            and not any(
                part.startswith(".") and part not in (".ci", ".github") for part in name.parts[:-1]
            )
        ]
    return sorted(name for name in names if (root / name).is_file())


def is_out(name: Path, out: Sequence[str]) -> bool:
    return any(name.is_relative_to(excluded) for excluded in out)


def unlinked(text: str, page: Path, out: Sequence[str]) -> str:
    """A page or the JSON of a notebook with the links to what is left out as their text.

    >>> unlinked("[Solved](solutions/1.ipynb), [next](2.ipynb)", Path("n/1.ipynb"), ["n/solutions"])
    'Solved, [next](2.ipynb)'
    >>> unlinked("[Solutions](../n/s.md). [Next](2.ipynb)", Path("n/1.ipynb"), ["n/s.md"])
    '[Next](2.ipynb)'
    """

    def leads_out(address: str) -> bool:
        if re.match("[a-z]+:", address):
            return False
        target = (ROOT / page.parent / address).resolve()
        return target.is_relative_to(ROOT) and is_out(target.relative_to(ROOT), out)

    text = ALONE.sub(lambda link: link[1] if leads_out(link[3]) else link[0], text)
    return LINK.sub(lambda link: link[1] if leads_out(link[2]) else link[0], text)


def contents_without(toc: str, out: Sequence[str]) -> str:
    """`_toc.yml` without the lines of what is left out, and without parts that are empty then."""
    bare = tuple({path.removesuffix(".md").removesuffix(".ipynb") for path in out})
    head, *parts = re.split(r"(?m)^(?=  - caption: )", toc)
    remaining = []
    for part in parts:
        lines = [
            line
            for line in part.splitlines()
            if not ((file := re.search(r"- file: (\S+)", line)) and is_out(Path(file[1]), bare))
        ]
        if any("- file: " in line for line in lines):
            remaining.append("\n".join(lines) + "\n")
    return head + "".join(remaining)


def build(folder: Path, more: Sequence[str] = (), keep: Sequence[str] = ()) -> Path:
    """Write the copy, in the place of an earlier one.

    Args:
        more: left out as well.
        keep: of what is left out otherwise.

    Raises:
        ValueError: something else is in the folder, or what is to be left out or kept is not there.
    """
    for name in set(keep) - set(LEFT_OUT):
        raise ValueError(f"{name} is not among what is left out: {', '.join(LEFT_OUT)}")
    out = (*(name for name in LEFT_OUT if name not in keep), *more)
    for name in out:
        if not (ROOT / name).exists():
            raise ValueError(f"there is no {name} to leave out")
    if folder.exists() and any(folder.iterdir()):
        if not (folder / "_toc.yml").is_file():
            raise ValueError(f"{folder} holds something else than a copy of the book")
        shutil.rmtree(folder)
    for name in files():
        if is_out(name, out):
            continue
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name.suffix in (".md", ".ipynb") and "vendor" not in name.parts:
            text = (ROOT / name).read_bytes().decode("utf-8")
            target.write_bytes(unlinked(text, name, out).encode("utf-8"))
        elif name == Path("_toc.yml"):
            toc = (ROOT / name).read_text(encoding="utf-8")
            target.write_bytes(contents_without(toc, out).encode("utf-8"))
        else:
            shutil.copy2(ROOT / name, target)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("more", nargs="*", help="left out as well, as book/projects.md")
    parser.add_argument("--keep", nargs="+", default=[], help="kept after all, as book/exam.md")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    try:
        print("the copy is in", build(arguments.folder, arguments.more, arguments.keep))
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
