"""Every study runs at smoke size, its recorded results can be read, and mistakes end in one sentence."""

import json
from pathlib import Path

import pytest

from lab.reference_maps import default_maps
from lab.runner import Context, run_study, settings_hash
from lab.study import FUNCTIONS, find_studies
from walras.cli.app import main
from walras.maps.file import DUAL, PRIMAL

FOLDER = Path(__file__).parents[2] / "studies"
STUDIES = find_studies(FOLDER)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("studies")


@pytest.mark.slow
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


@pytest.mark.parametrize("text", ['{"fou', "", "{}", "[]", "[1]"])
def test_a_damaged_part_is_named(text, tmp_path, capsys):
    study = STUDIES[0]
    words = ["study", "run", study.name, "--size", "smoke", "--studies", str(FOLDER), "--out", str(tmp_path)]
    run_study(study, STUDIES, "smoke", tmp_path / "parts", minutes=0)
    settings = study.settings("smoke")
    name = next(iter(study.code.parts(Context("smoke", settings)))).replace(":", "-")
    kept = tmp_path / "parts" / study.name / f"smoke-{settings_hash(settings)}" / f"{name}.json"
    kept.parent.mkdir(parents=True)
    kept.write_text(text)
    assert main([*words, "--minutes", "0"]) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert "delete it" in told and "Traceback" not in told


def test_a_damaged_result_and_a_lacking_setting_are_named(tmp_path, capsys):
    folder = tmp_path / "studies" / "01_own"
    (folder / "results").mkdir(parents=True)
    (folder / "study.toml").write_text('question = "Why?"\n[size.smoke]\nagnts = 5\n')
    (folder / "study.py").write_text(
        "def parts(context):\n    return {'made-up:x': lambda: context.settings['agents']}\n"
        "def figures(found, context):\n    return found\n"
        "key = answer = pictures = lambda found: []\n"
    )
    place = ["--studies", str(folder.parent)]
    assert main(["study", "run", "1", "--size", "smoke", "--out", str(tmp_path / "out"), *place]) == 2
    assert "lacks the setting `agents`" in capsys.readouterr().err
    (folder / "results" / "small.json").write_text('{"x":')
    assert main(["study", "list", *place]) == 2
    assert "is damaged" in capsys.readouterr().err


@pytest.mark.slow
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
        (["list", "--studies", "nowhere"], "is not a folder"),
    ],
)
def test_a_mistake_ends_in_one_sentence(words, needed, capsys):
    place = [] if "--studies" in words else ["--studies", str(FOLDER)]
    assert main(["study", *words, *place]) == 2
    told = capsys.readouterr().err.strip()
    assert needed in told and "Traceback" not in told and told.count("\n") <= 1


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.name)
def test_recorded_figures_still_give_an_answer(study):
    recorded = study.recorded()
    figures = recorded["figures"]
    assert study.code.answer(figures).endswith(".") and study.code.pictures(figures)
    estimates = [[row["estimate"] for row in rows] for rows in (study.code.key(figures), recorded["key"])]
    assert estimates[0] == estimates[1]


def test_maps_to_compare_with_are_there():
    names = {kind: list(default_maps(kind)) for kind in (PRIMAL, DUAL)}
    assert {"bucketized", "global", "bottom-up", "moments"} <= set(names[PRIMAL]) and "global" in names[DUAL]
