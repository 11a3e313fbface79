"""The command line prints one sentence for people and one object for programs, whatever happens.

Most commands run in this process; tests of signals, pipes and start-up use a process of their own.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from walras import __version__
from walras.cli import app
from walras.cli.options import print_json
from walras.cli.price_tables import read_prices
from walras.errors import InputError

PROGRAM = [sys.executable, "-c", "from walras.cli import run_program; run_program()"]


def run(capsys, *words: str) -> tuple[int, str, str]:
    """Run a command and give its exit code, stdout and stderr."""
    code = app.main(list(words))
    caught = capsys.readouterr()
    return code, caught.out, caught.err


def one_sentence(stderr: str) -> str:
    """Insist that stderr is exactly one line for people, and give it without its prefix."""
    lines = stderr.splitlines()
    assert len(lines) == 1, stderr
    assert lines[0].startswith("walras: ") and "Traceback" not in stderr
    return lines[0].removeprefix("walras: ")


@pytest.fixture
def table(tmp_path) -> Path:
    """Write a small table that can be planned with."""
    path = tmp_path / "table.csv"
    weeks = np.datetime64("2024-01-01") + 7 * np.arange(30)
    rows = [f"{name},{week},{5 + index % 3}" for name in ("a", "b") for index, week in enumerate(weeks)]
    path.write_text("unique_id,ds,units\n" + "\n".join(rows) + "\n")
    return path


# --- help -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_help_lists_every_command(capsys, words):
    code, out, err = run(capsys, *words)
    assert code == 0 and err == ""
    assert all(name in out for name in ("demo", "plan", "simulate", "data", "train"))


@pytest.mark.parametrize(
    "words",
    [
        ["demo"],
        ["plan"],
        ["simulate"],
        ["data"],
        ["data", "check"],
        ["data", "generate"],
        ["train"],
        ["train", "buyer"],
        ["fulfil", "simulate"],
        ["fulfil", "optimise"],
        ["fulfil", "benchmark"],
    ],
)
def test_every_command_has_help(capsys, words):
    code, out, err = run(capsys, *words, "--help")
    assert code == 0 and err == "" and "Usage: walras " + " ".join(words) in out


def test_settings_are_shown_as_flags_with_their_defaults(capsys):
    _, out, _ = run(capsys, "plan", "--help")
    for flag in ("--weeks", "--resources", "--seed", "--regular-share", "--costs", "--settings", "--column", "--json"):
        assert flag in out


def test_the_version_is_told(capsys):
    assert run(capsys, "--version")[1].strip() == __version__


# --- mistakes ---------------------------------------------------------------------------------------------------------

MISTAKES = [
    ("plna", "`plna` is not a command; did you mean `plan`?"),
    ("unheard", "`unheard` is not a command; the commands are compare, data, demo, fulfil, plan, policy"),
    ("data chek", "`chek` is not a command; did you mean `check`?"),
    ("plan", "requires an argument"),
    ("plan TABLE more", "`more` is more than this command takes"),
    ("plan TABLE --weks 3", "unknown option: --weks; did you mean --weeks?"),
    ("plan TABLE --weeks", "--weeks requires an argument"),
    ("plan TABLE --weeks 3 --weeks 4", "--weeks specified multiple times"),
    ("plan TABLE --weeks 0", "`weeks` is '0' in the flags; it must be greater than or equal to 1"),
    ("plan TABLE --weeks soon", "`weeks` is 'soon' in the flags; it must be a valid integer"),
    ("plan TABLE --seed=-1", "`seed` is '-1' in the flags"),
    ("plan TABLE --regular-share nan", "`regular_share` is 'nan' in the flags"),
    ("plan TABLE --rule luck", "`rule` is 'luck' in the flags; it must be 'consensus', 'marginal' or 'proximal'"),
    ("plan TABLE --resources luck", "it must be 'inbound_units', 'inbound_volume' or 'storage'"),
    ("plan TABLE --frozen-weeks 40", "`frozen_weeks` is 40, more than the 26 planned weeks"),
    ("plan TABLE --economics.discount 0.1", "`economics.discount` is '0.1' in the flags; it must be greater than 0.9"),
    ("plan TABLE --reissue=maybe", "unable to convert"),
    ("plan TABLE --column nosign", "'nosign' is not of the form ours=theirs"),
    ("plan TABLE --column colour=x", "`colour`"),
    ("plan TABLE --format luck", "--format"),
    ("plan TABLE --format m5 --column units=x", "`columns` is set, but files in the m5 layout have their own"),
    ("plan TABLE --settings none.toml", "cannot read settings from `none.toml`"),
    ("plan TABLE --costs none.toml", "cannot read settings from `none.toml`"),
    ("plan TABLE --settings TABLE", "is not valid TOML"),
    ("plan TABLE --out TABLE/below", "is a file; name a folder"),
    ("plan none.csv", "none.csv"),
    ("plan TABLE --static none.csv", "none.csv"),
    ("data check none.csv", "none.csv"),
    ("data generate out.xyz --agents 4", "write to .parquet or .csv"),
    ("data generate out.csv --agents 0", "the number of products is 0"),
    ("data generate none/out.csv --agents 4", "cannot be written"),
    ("demo --agents many", 'unable to convert "many" into int'),
    ("demo --agents 0", "the number of products is 0"),
]


@pytest.mark.parametrize("words, fragment", MISTAKES, ids=[words for words, _ in MISTAKES])
def test_a_mistake_is_one_sentence_and_exit_code_2(capsys, table, monkeypatch, words, fragment):
    monkeypatch.chdir(table.parent)
    code, out, err = run(capsys, *words.replace("TABLE", "table.csv").split())
    assert code == 2 and out == ""
    # Versions of the parser differ in where they put quotes.
    assert fragment.replace('"', "") in one_sentence(err).replace('"', "")
    assert list(table.parent.iterdir()) == [table]


# --- tables -----------------------------------------------------------------------------------------------------------


def test_a_good_table_is_described(capsys, table):
    code, out, err = run(capsys, "data", "check", str(table), "--json")
    assert code == 0 and err == ""
    answer = json.loads(out.splitlines()[-1])
    assert (answer["rows"], answer["agents"], answer["weeks"], answer["problems"]) == (60, 2, 30, [])
    code, out, _ = run(capsys, "data", "check", str(table))
    assert code == 0 and "60 rows: 2 products over 30 weeks from 2024-01-01 to 2024-07-22." in out


def test_columns_are_mapped_by_flags_and_by_a_file(capsys, table, tmp_path):
    table.write_text(table.read_text().replace("units", "qty", 1))
    assert run(capsys, "data", "check", str(table))[0] == 2
    assert run(capsys, "data", "check", str(table), "--column", "units=qty")[0] == 0
    mapping = tmp_path / "plan.toml"
    mapping.write_text('[columns]\nunits = "qty"\n')
    assert run(capsys, "data", "check", str(table), "--settings", str(mapping))[0] == 0


def test_every_problem_is_listed_and_the_first_is_the_sentence(capsys, tmp_path):
    bad = tmp_path / "bad.csv"
    bad.write_text("unique_id,ds,units\na,2024-01-01,x\nb,never,-3\n")
    code, out, err = run(capsys, "data", "check", str(bad), "--json")
    problems = json.loads(out.splitlines()[-1])["problems"]
    assert code == 2 and len(problems) >= 2
    assert one_sentence(err) == f"{problems[0].rstrip('.')} (and {len(problems) - 1} more)"


CELL = st.sampled_from(["", "a", "7", "-7", "nan", "inf", "1e400", "2024-01-01", "2024-13-01", "x,y", '"', "é", "0x1F"])
ROWS = st.lists(st.lists(CELL, min_size=1, max_size=5), max_size=5)
HEADER = st.sampled_from(["unique_id,ds,units", "ds,units", "unique_id,unique_id,ds,units", "", "unique_id;ds;units"])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(header=HEADER, rows=ROWS, tail=st.binary(max_size=4))
def test_malformed_tables_end_in_one_sentence(capsys, tmp_path, header, rows, tail):
    bad = tmp_path / "bad.csv"
    bad.write_bytes("\n".join([header, *(",".join(row) for row in rows)]).encode() + tail)
    code, _, err = run(capsys, "data", "check", str(bad))
    assert code in (0, 2)
    assert (err == "") if code == 0 else one_sentence(err)


@pytest.mark.parametrize(
    "text", ["", "\n", " \n \n", ",\n", "\n,\n", "sep=;\n", "sep=;\n;\n", "\ufeff", '""\n""\n', ";;\n;;\n"]
)
def test_tables_of_blank_cells_are_refused(capsys, tmp_path, text):
    bad = tmp_path / "bad.csv"
    bad.write_text(text, encoding="utf-8")
    code, _, err = run(capsys, "data", "check", str(bad))
    assert code == 2 and one_sentence(err)


def test_a_generated_table_is_read_back(capsys, tmp_path):
    path = tmp_path / "made.parquet"
    code, out, _ = run(capsys, "data", "generate", str(path), "--agents", "12", "--weeks", "60", "--json")
    made = json.loads(out)
    assert code == 0 and made["agents"] == 12 and made["files"] == [str(path)]
    read = json.loads(run(capsys, "data", "check", str(path), "--json")[1])
    assert (read["rows"], read["agents"], read["weeks"]) == (made["rows"], made["agents"], made["weeks"])


# --- prices -----------------------------------------------------------------------------------------------------------

WEEKS = np.datetime64("2024-08-05") + 7 * np.arange(3)


@pytest.mark.parametrize("header", ["week,resource,shadow_price", "week,resource,shadow_price,capacity"])
def test_prices_are_placed_by_week_and_resource(tmp_path, header):
    path = tmp_path / "prices.csv"
    more = ",9" if "capacity" in header else ""
    path.write_text(f"{header}\n2024-08-12,storage,0.5{more}\n2024-08-05,inbound_units,2{more}\n")
    prices = read_prices(path, WEEKS, ("inbound_units", "storage"))
    np.testing.assert_array_equal(prices, [[2, 0], [0, 0.5], [0, 0]])


def test_one_resource_needs_no_name(tmp_path):
    path = tmp_path / "prices.csv"
    path.write_text("week,shadow_price\n2024-08-19,1.25\n")
    np.testing.assert_array_equal(read_prices(path, WEEKS, ("inbound_units",)), [[0], [0], [1.25]])


@pytest.mark.parametrize(
    "rows, sentence",
    [
        ("week,price\n", "lacks the column `shadow_price`"),
        (
            "week,shadow_price\n2023-01-02,1\n",
            "`week` of prices.csv in data row 1 is 2023-01-02, which is not simulated",
        ),
        ("week,resource,shadow_price\n2024-08-05,luck,1\n", "`resource` of prices.csv in data row 1 is luck"),
        ("week,shadow_price\n2024-08-05,1\n2024-08-12,-1\n", "`shadow_price` of prices.csv in data row 2 is -1"),
        ("week,shadow_price\n2024-08-05,\n2024-08-12,1\n", "data row 1 is None; it must be a number"),
        ("week,shadow_price\n2024-08-05,much\n", "value that is not a number"),
        ("week,shadow_price\n2024-08-05,1\n2024-08-05,1\n", "twice, again in data row 2"),
    ],
)
def test_prices_that_cannot_be_charged_are_refused(tmp_path, rows, sentence):
    path = tmp_path / "prices.csv"
    path.write_text(rows)
    with pytest.raises(InputError, match=sentence):
        read_prices(path, WEEKS, ("inbound_units",))


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_defect_is_one_line_and_a_log(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(app, "dispatch", lambda words: 1 // 0)
    monkeypatch.setattr(app.tempfile, "tempdir", str(tmp_path))
    code, out, err = run(capsys, "demo")
    sentence = one_sentence(err)
    log = Path(sentence.split("details are in ")[1].rstrip(")"))
    assert code == 1 and out == "" and "ZeroDivisionError" in sentence
    assert log.parent == tmp_path and "1 // 0" in log.read_text() and __version__ in log.read_text()


def test_debug_shows_where_a_defect_came_from(capsys, monkeypatch):
    monkeypatch.setattr(app, "dispatch", lambda words: 1 // 0)
    code, _, err = run(capsys, "demo", "--debug")
    assert code == 1 and "Traceback" in err and "1 // 0" in err


def test_a_full_disk_is_the_users_to_mend(capsys, monkeypatch):
    def full(words):
        raise OSError(28, "No space left on device", "report.html")

    monkeypatch.setattr(app, "dispatch", full)
    code, _, err = run(capsys, "demo")
    assert code == 2 and one_sentence(err) == "`report.html`: No space left on device"


WAITING = """
import time
from walras.cli import app
def dispatch(words):
    print("ready", flush=True)
    {body}
app.dispatch = dispatch
from walras.cli import run_program
run_program()
"""
BODIES = {
    "plain": "time.sleep(60)",
    "swallowed by an extension": "\n    try: time.sleep(60)\n    except KeyboardInterrupt: raise RuntimeError('lost')",
}


@pytest.mark.skipif(os.name == "nt", reason="signals are sent differently there")
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_ctrl_c_is_one_line_and_exit_code_130(body):
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING.format(body=body)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert one_sentence(err).startswith("stopped by Ctrl-C")


@pytest.mark.skipif(os.name == "nt", reason="signals are sent differently there")
def test_ctrl_c_ends_a_real_plan_with_one_line_and_leaves_the_old_report(tmp_path):
    old = tmp_path / "report.html"
    old.write_text("old")
    command = [*PROGRAM, "demo", "--agents", "60", "--weeks", "4", "--out", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    time.sleep(5.0)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert one_sentence(err.splitlines()[-1]).startswith("stopped by Ctrl-C") and "Traceback" not in err
    assert old.read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_reader_that_leaves_is_no_mistake():
    process = subprocess.Popen([*PROGRAM, "plan", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    _, err = process.communicate(timeout=60)
    assert process.returncode in (0, 1) and err == b""


def test_the_interrupt_handler_is_given_back():
    before = signal.getsignal(signal.SIGINT)
    assert app.main(["--version"]) == 0
    assert signal.getsignal(signal.SIGINT) is before


# --- answers ----------------------------------------------------------------------------------------------------------


def test_json_is_strict_and_the_last_line(capsys):
    week = np.array(["2024-01-01"], dtype="datetime64[D]")
    print_json({"a": np.nan, "b": np.array([1.0, np.inf]), "weeks": week, "path": Path("x"), "n": np.int64(3)})
    line = capsys.readouterr().out.splitlines()[-1]

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    answer = json.loads(line, parse_constant=refuse)
    assert answer == {"a": None, "b": [1.0, None], "weeks": ["2024-01-01"], "path": "x", "n": 3}
