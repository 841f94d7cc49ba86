"""`book/fifteen_minutes.md`: its blocks run in order, and lead to what the page says."""

import json
import re
import subprocess
import sys

import pytest
import tiny
from execute import ROOT

BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGE = ROOT / "book" / "fifteen_minutes.md"


@pytest.mark.nightly
def test_the_blocks_of_the_page_run_in_order(tmp_path, monkeypatch, capsys):
    """Shell in processes of their own, Python in one session."""
    monkeypatch.chdir(tmp_path)
    session: dict = {"__name__": "page"}
    said = []
    for language, code in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if language == "python":
            exec(compile(code, PAGE.name, "exec"), session)
            said.append(capsys.readouterr().out)
            continue
        done = subprocess.run(
            ["bash", "-ec", f'python() {{ "{sys.executable}" "$@"; }}\n{code}'],
            capture_output=True,
            text=True,
            env=tiny.environment(),
        )
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    validated, told, forgotten, looked, audited, exported = said[1:7]
    assert ": ready\n" in validated and "layerwise rewrite (LayerwiseRewrite)" in told
    assert "time:      about" in told
    *_, kvw, rewrite = re.findall(r"^next: .*", forgotten, re.MULTILINE)
    assert "next: KVW(strength=8.0) " in kvw and "Try another strength or method" in kvw
    assert rewrite.endswith("--edit rewrite/edit.safetensors --questions people.jsonl")
    assert "LayerwiseRewrite(): of the forgotten 0.0" in looked and "(1 sham)" in looked
    verdict = json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))["verdict"]
    assert f"verdict: {verdict}" in audited
    assert exported.count("are equal to 4 digits; ") == 2
    before, merged, adapted, asked = (session[n] for n in ("before", "merged", "adapted", "asked"))
    assert before.strip() == asked["answer"] != merged.strip() and merged == adapted
