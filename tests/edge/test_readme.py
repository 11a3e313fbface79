"""What the README and the documents tell people to type works; commands run in this process, at small sizes."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import jax
import pytest

from walras.cli import app
from walras.config import CostSettings, PlanSettings, checked, read_costs, read_settings
from walras.data.records import STATIC_COLUMNS, TABLE_COLUMNS
from walras.train.settings import BuyerTraining, read_training

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text()
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SMALLER = {
    "fulfil": "--orders 60 --products 7 --centres 4 --width 8",
    "generate": "--weeks 60",
    "plan": "--scenarios 2 --paths 2 --max-iterations 2",
    "simulate": "--paths 2",
    "train": "--steps 2 --agents 8",
    "policy": "--holdout 8 --policies newsvendor",
}
"""What is added to a command for a test: sizes only, and the same ones everywhere, so that little is compiled twice."""


def blocks(text: str, language: str) -> list[str]:
    """Find the code blocks in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def commands(text: str) -> list[list[str]]:
    """Find the lines people are told to type."""
    lines = [line for block in blocks(text, "sh") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.strip() and not line.startswith("#")]


def test_every_target_named_exists():
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, re.M))
    named = set(re.findall(r"`make ([a-z]+)`|^make ([a-z]+)$", README, re.M))
    assert {a or b for a, b in named} >= {"demo", "test", "check", "bench"}
    assert {a or b for a, b in named} <= targets


def test_the_build_runs_the_test_command_of_the_readme():
    section = README.split("## Test\n")[1].split("\n## ")[0]
    (command,) = commands(section)
    script = (ROOT / ".ci" / "run").read_text()
    assert " ".join(command) in script
    assert os.access(ROOT / ".ci" / "run", os.X_OK) and os.access(ROOT / ".ci" / "setup", os.X_OK)


@pytest.mark.skipif(os.name == "nt", reason="needs a shell")
def test_the_scripts_are_well_formed():
    for name in ("run", "setup"):
        assert subprocess.run(["bash", "-n", str(ROOT / ".ci" / name)], timeout=30).returncode == 0


@pytest.mark.slow
def test_the_commands_work_one_after_the_other(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (costs,) = (block for block in blocks(TUTORIAL, "toml") if "agency_rate" in block)
    (tmp_path / "costs.toml").write_text(costs)
    words = [line[1:] for line in commands(README) if line[0] == "walras"]
    assert [line[0] for line in words] == ["data", "data", "plan", "simulate", "whatif", "plan", "compare"]
    words += [line[1:] for line in commands(TUTORIAL) if line[0] == "walras" and line[1:] not in words]
    for line in words:
        small = ["40" if before == "--agents" else word for before, word in zip(["", *line], line, strict=False)]
        extra = next((more for name, more in SMALLER.items() if name in line[:2]), "")
        code = app.main([*small, *extra.split(), "--json"])
        out, err = capsys.readouterr()
        assert code == 0 and "walras:" not in err, (line, err)
        assert isinstance(json.loads(out.splitlines()[-1]), dict)
    assert {"report.html", "plan.csv"} <= {path.name for path in (tmp_path / "walras-out").iterdir()}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_settings_shown_are_settings_that_are_read(path, tmp_path):
    for index, block in enumerate(blocks(path.read_text(), "toml")):
        file = tmp_path / f"{index}.toml"
        file.write_text(block)
        if "learning_rate" in block:
            assert read_training(file, None, BuyerTraining)[0] == BuyerTraining()  # all of them, as they are by default
        elif "rate" in block and "[economics]" not in block:
            costs = read_costs(file)
            assert checked(CostSettings, costs.model_dump(), "itself") == costs
        else:
            read_settings(PlanSettings, file)


SMALL_CODE = {"agents=60, weeks=110": "agents=40, weeks=60", "paths=4": "paths=2, max_iterations=2"}


@pytest.mark.slow
@pytest.mark.parametrize("text", [README, TUTORIAL], ids=["README", "tutorial"])
def test_the_python_examples_run(text, capsys):
    code = "\n".join(blocks(text, "python"))
    for usual, small in SMALL_CODE.items():
        assert usual in code
        code = code.replace(usual, small)
    assert set(re.findall(r"(?:from|import) (walras[\w.]*)", code)) == {"walras"}
    with jax.numpy_rank_promotion("allow"):  # as in a user's session
        exec(compile(code, "document", "exec"), {})
    assert "shadow_price" in capsys.readouterr().out


def test_the_answer_has_what_the_document_promises(tmp_path, capsys):
    text = (ROOT / "docs" / "reference" / "output.md").read_text()
    table = text.split("| key | meaning |")[1].split("\n\n")[0]
    keys = {
        key for row in table.splitlines() for key in re.findall(r"`(\w+)`", row.split("|")[1] if "|" in row else "")
    }
    words = "demo --agents 40 --history 60 --scenarios 2 --paths 2 --max-iterations 2 --json --out".split()
    assert app.main([*words, str(tmp_path / "out")]) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(keys) > 20 and keys <= set(answer)
    measures = re.findall(r"`(\w+)`", table.split("measures with prices re-issued:")[1].split("\n")[0])
    assert len(measures) >= 6 and set(measures) <= set(answer["verified"])


def test_every_column_is_documented_and_no_other():
    text = (ROOT / "docs" / "how-to" / "read-your-table.md").read_text()
    long = text.split("## The long table")[1].split("## ")[0]
    cells = [row.split("|")[1] for row in long.splitlines() if row.startswith("| `")]
    assert {name for cell in cells for name in re.findall(r"`(\w+)`", cell)} == set(TABLE_COLUMNS)
    static = text.split("## The static table")[1].split("Where it has")[0]
    assert set(re.findall(r"`(\w+)`", static)) == set(STATIC_COLUMNS)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
        assert (path.parent / target).exists(), target


def test_the_settings_of_a_training_are_all_shown(tmp_path):
    (block,) = blocks((ROOT / "docs" / "how-to" / "train-a-buyer.md").read_text(), "toml")
    (tmp_path / "t.toml").write_text(block)
    settings, _ = read_training(tmp_path / "t.toml", None, BuyerTraining)
    assert settings.model_fields_set == set(BuyerTraining.model_fields)
