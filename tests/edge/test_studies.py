"""Own the proof that every study runs at its smallest size and says something.

EDGE: what it says at that size means nothing.
"""

import json
from pathlib import Path

import pytest

from walras.cli.app import main
from walras.studies.study import FUNCTIONS, find_studies

FOLDER = Path(__file__).parents[2] / "studies"
STUDIES = find_studies(FOLDER)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("studies")


@pytest.mark.parametrize("name", [study.name for study in STUDIES])
def test_a_study_runs_at_its_smallest_size(name, kept, capsys):
    words = ["study", "run", name, "--size", "smoke", "--studies", str(FOLDER), "--out", str(kept), "--json"]
    assert main(words) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["complete"] and found["figures"] and found["answer"].endswith(".")
    assert all(row["figure"] and row["data"] and row["met"] in (True, False, None) for row in found["key"])
    assert all(Path(file).exists() for file in found["files"]) and any(name.endswith(".png") for name in found["files"])


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_a_study_says_what_it_asks_and_how(study):
    assert study.question.endswith("?") and all(hasattr(study.code, name) for name in FUNCTIONS)
    text = (study.folder / "README.md").read_text()
    for heading in ("## Design", "## What would change our mind", "## Answer"):
        assert heading in text, f"{study.name} lacks {heading}"


def test_all_answers_are_listed_and_collected_on_one_page(tmp_path, capsys):
    assert main(["study", "list", "--studies", str(FOLDER), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out.splitlines()[-1])["studies"]
    assert [row["study"] for row in listed] == [study.number for study in STUDIES]
    assert main(["study", "report", "--studies", str(FOLDER), "--out", str(tmp_path), "--json"]) == 0
    page = (tmp_path / "studies.html").read_text()
    assert all(f"{study.number:02d} " in page for study in STUDIES)


def test_all_studies_go_on_one_after_the_other(kept, tmp_path, capsys):
    """Without time nothing is begun; what is there is put together, and where nothing is, nothing is written."""
    words = ["study", "run", "all", "--size", "smoke", "--studies", str(FOLDER), "--minutes", "0", "--json"]
    assert main([*words, "--out", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])["studies"]
    assert [each["study"] for each in found] == [study.number for study in STUDIES]
    assert all(each["waiting"] and not each["complete"] and not each["files"] for each in found)
    first = STUDIES[0].name
    assert main(["study", "run", first, *words[3:7], "--out", str(kept)]) == 0
    capsys.readouterr()
    assert main([*words, "--out", str(kept)]) == 0
    again = json.loads(capsys.readouterr().out.splitlines()[-1])["studies"][0]
    assert again["complete"] and again["files"]


@pytest.mark.parametrize(
    ("words", "needed"),
    [
        (["run", "2", "--minutes", "-1"], "must be 0 or more"),
        (["run", "77"], "choose among"),
        (["run", "2", "--size", "huge"], "smoke"),
        (["run", "2", "--data", "nowhere"], "name a folder"),
        (["list", "--studies", "nowhere"], "is no folder"),
    ],
)
def test_a_mistake_ends_in_one_sentence(words, needed, capsys):
    place = [] if "--studies" in words else ["--studies", str(FOLDER)]
    assert main(["study", *words, *place]) == 2
    told = capsys.readouterr().err.strip()
    assert needed in told and "Traceback" not in told and told.count("\n") <= 1
