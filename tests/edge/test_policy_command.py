"""`walras policy compare` ranks policies for people and for programs, and refuses bad input in one sentence."""

import contextlib
import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest

from walras.cli import app

DOCUMENT = Path(__file__).parents[2] / "docs" / "how-to" / "compare-policies.md"
QUICK = ["--policies", "newsvendor,constant-order", "--holdout", "10", "--draws", "2"]


def run(capsys, *words: str) -> tuple[int, str, str]:
    code = app.main(list(words))
    caught = capsys.readouterr()
    return code, caught.out, caught.err


def write_table(folder: Path) -> Path:
    """Write a small table."""
    weeks, random = np.datetime64("2024-01-01") + 7 * np.arange(34), np.random.default_rng(0)
    rows = [f"{name},{week},{random.poisson(6)},5,3" for name in "abcdef" for week in weeks]
    path = folder / "table.csv"
    path.write_text("unique_id,ds,units,price,unit_cost\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture
def table(tmp_path, monkeypatch) -> Path:
    """Write the table, and work in its folder."""
    monkeypatch.chdir(tmp_path)
    return write_table(tmp_path)


@pytest.fixture(scope="module")
def ranked(tmp_path_factory):
    """Run the command once, with settings from a file: its output, and its files."""
    folder = tmp_path_factory.mktemp("ranked")
    (folder / "compare.toml").write_text('holdout = 10\ndraws = 3\n[columns]\nunits = "units"\n')
    words = ["policy", "compare", str(write_table(folder)), "--settings", str(folder / "compare.toml")]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert app.main([*words, *QUICK, "--out", str(folder / "out"), "--json"]) == 0
    return json.loads(printed.getvalue().splitlines()[-1]), folder / "out"


def test_a_ranking_for_programs(ranked):
    answer, folder = ranked
    text = DOCUMENT.read_text()
    promised = text.split("| key | meaning |")[1].split("\n\n")[0]
    keys = {key for row in promised.splitlines()[2:] for key in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert len(keys) > 10 and keys <= set(answer)
    assert set(re.findall(r"`(\w+)`", promised.splitlines()[2].split("|")[2])) <= set(answer["policies"][0])
    rows = {row["policy"]: row for row in answer["policies"]}
    assert set(rows) == {"newsvendor", "constant-order"} and answer["agents"] == 6
    assert answer["policies"][0]["ratio"] == 1.0 and answer["policies"][1]["difference"] < 0
    assert answer["training_weeks"] == 16 and answer["first_holdout_week"] == "2024-06-17"
    assert (answer["settings"]["holdout"], answer["settings"]["draws"]) == (10, 2)
    assert 0 < rows["newsvendor"]["service"] <= 1
    with open(folder / "policies.csv") as file:
        assert [row["policy"] for row in csv.DictReader(file)] == [row["policy"] for row in answer["policies"]]


def test_a_ranking_for_people_is_the_same_again(capsys, table, ranked):
    code, out, err = run(capsys, "policy", "compare", "table.csv", *QUICK, "--out", "here")
    assert (code, err) == (0, "")
    assert "6 products: tuned on 16 weeks" in out and "10 weeks from" in out and "constant-order" in out
    again = json.loads(Path("here/policies.json").read_text())["policies"]
    assert [{**row, "seconds": 0} for row in ranked[0]["policies"]] == [{**row, "seconds": 0} for row in again]


MISTAKES = [
    ("policy compare none.csv", "none.csv"),
    ("policy compare table.csv --policies base-stok", "policy `base-stok` is not known; did you mean `base-stock`?"),
    ("policy compare table.csv --policies luck", "choose from buyer, newsvendor, tuned-newsvendor"),
    ("policy compare table.csv --policies newsvendor,newsvendor", "`policies` names newsvendor twice"),
    ("policy compare table.csv --holdout 60", "`holdout` is 60 weeks of a table of 34, which leaves 0 but at least 16"),
    ("policy compare table.csv --holdout 20", "make it at most 18"),
    ("policy compare table.csv --holdout 0", "`holdout` is '0' in the flags; it must be greater than or equal to 1"),
    ("policy compare table.csv --shadow-price luck", "`shadow_price` is 'luck' in the flags; it must be 'none'"),
    ("policy compare table.csv --round-to 0", "`round_to` is '0' in the flags; it must be greater than 0"),
    ("policy compare table.csv --resources storage --resources storage", "`resources` names a resource twice"),
    ("policy compare table.csv --settings none.toml", "cannot read settings from `none.toml`"),
    ("policy compare table.csv --out table.csv/below", "is a file; name a folder"),
    ("policy compar", "`compar` is not a command; did you mean `compare`?"),
]


@pytest.mark.parametrize("words, fragment", MISTAKES, ids=[words for words, _ in MISTAKES])
def test_a_mistake_is_one_sentence_and_exit_code_2(capsys, table, words, fragment):
    code, out, err = run(capsys, *words.split())
    lines = err.splitlines()
    assert code == 2 and out == "" and len(lines) == 1 and lines[0].startswith("walras: ")
    assert fragment in lines[0] and [path.name for path in table.parent.iterdir()] == ["table.csv"]


def test_too_few_weeks_are_one_sentence(capsys, table):
    lines = table.read_text().splitlines()
    table.write_text("\n".join(line for line in lines if "2024-01" in line or "ds" in line) + "\n")
    code, _, err = run(capsys, "policy", "compare", "table.csv")
    assert code == 2 and len(err.splitlines()) == 1 and "weeks but more than 16 are needed" in err


@pytest.mark.parametrize("words", [["policy"], ["policy", "compare"]])
def test_help_shows_every_setting(capsys, words):
    code, out, err = run(capsys, *words, "--help")
    assert code == 0 and err == "" and "Usage: walras " + " ".join(words) in out
    flags = ("--holdout", "--policies", "--lead-times", "--shadow-price", "--draws", "--json", "--out", "--format")
    assert words == ["policy"] or all(flag in out for flag in flags)
