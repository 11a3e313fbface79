"""`walras fulfil` decides, writes and refuses: one sentence, exit code 2, nothing half-written.

Instances are tiny, so that little is compiled.
"""

import csv
import json
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest

from walras.cli import app, fulfil
from walras.domains.fulfilment.instance import NONE, generate_instance
from walras.domains.fulfilment.process import check_actions
from walras.parallel.process import Trajectory

WORLD = "--orders 60 --products 7 --centres 4 --capacity 0.5"
ORDERS = "unique_id,country,qty\nA1,France,2\nB7,Atlantis,1\nA1,Germany,3\nA1,France,4\n"
PLACES = "place,latitude,longitude,capacity\nLille,50.6,3.1,5\nUlm,48.4,10.0,3\nAtlantis,36,-20,\n"
STOCK = "unique_id,centre,stock\nA1,Lille,4\nA1,Ulm,5\nB7,Ulm,1\n"


def run(capsys, words: str) -> tuple[int, str, str]:
    """Run a command and give its exit code, stdout and stderr."""
    code = app.main(["fulfil", *words.split()])
    caught = capsys.readouterr()
    return code, caught.out, caught.err


def answer(capsys, words: str) -> dict:
    """Run a command that must succeed and give its last line as an object."""
    code, out, err = run(capsys, f"{words} --json")
    assert (code, err) == (0, "")
    return json.loads(out.splitlines()[-1])


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Lay out orders, places and stock in a folder, and work there."""
    monkeypatch.chdir(tmp_path)
    for name, text in {"orders.csv": ORDERS, "places.csv": PLACES, "stock.csv": STOCK}.items():
        Path(name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("policy", ["greedy", "capacity --width 8 --window 20"])
def test_a_policy_decides_and_what_is_written_can_be_sent(capsys, folder, policy):
    found = answer(capsys, f"simulate {WORLD} --most-units 2 --refills 1 --policy {policy} --verify --out o")
    assert found["verified"] is True and found["converged"] is True
    assert found["lowest_stock"] == 0 <= found["lowest_capacity"] and found["filled"] > 10
    assert found["filled"] + sum(found["not_filled"].values()) == found["orders"] == 60
    instance = generate_instance(60, 7, 4, -0.8, capacity_share=0.5, most_units=2, refills=1)
    rows = pq.read_table("o/actions.parquet").to_pylist()
    actions = np.array([NONE if row["centre"] is None else instance.names.index(row["centre"]) for row in rows])
    check_actions(instance, actions)
    assert [row["order"] for row in rows] == list(range(1, 61))
    assert sum(row["reward"] for row in rows) == pytest.approx(found["reward"])
    assert found["reward"] == json.loads(Path("o/fulfilment.json").read_text())["reward"]
    with open("o/centres.csv", newline="") as file:
        centres = list(csv.DictReader(file))
    assert sum(int(row["units_sent"]) for row in centres) == found["filled_units"]
    out = {row["centre"]: int(row["out_after_order"]) for row in centres if row["out_after_order"]}
    assert out == found["out_after_order"]


def test_words_say_what_a_planner_asks(capsys, folder):
    code, out, err = run(capsys, f"simulate {WORLD} --most-units 2 --refills 1 --verify")
    assert (code, err) == (0, "")
    for said in (
        "of 60 orders filled",
        "The reward is ",
        "if the nearest centre could send every",
        "Not filled:",
        "ran out of capacity: ",
        "after order",
        "gives the same",
    ):
        assert said in out
    assert "wrote walras-out/fulfilment/fulfilment.html" in out
    page = Path("walras-out/fulfilment/fulfilment.html").read_text()
    assert "New York" in page and page.count("<svg") == 2 and "http://" not in re.sub(r'xmlns[:\w]*="[^"]*"', "", page)


def test_orders_stock_and_places_of_ones_own(capsys, folder):
    found = answer(capsys, "simulate orders.csv --places places.csv --stock-file stock.csv --out o --verify")
    assert found["filled"] == 2 and found["not_filled"] == {"no stock": 0, "no capacity": 2, "turned away": 0}
    with open("o/actions.csv", newline="") as file:
        rows = [(row["product"], row["destination"], row["centre"]) for row in csv.DictReader(file)]
    assert rows == [("A1", "France", "Lille"), ("B7", "Atlantis", "Ulm"), ("A1", "Germany", ""), ("A1", "France", "")]
    more = answer(capsys, "simulate orders.csv --places places.csv --stock-file stock.csv --out o --refills 1")
    assert more["filled"] == 3  # capacity comes once more before order 3; order 4 finds 2 units of A1 in either centre
    dated = [f"{line},2024-01-0{day}" for day, line in enumerate(ORDERS.splitlines()[1:], 1)]
    Path("dated.csv").write_text("\n".join(["unique_id,country,qty,ts", *dated]))
    Path("few.csv").write_text(PLACES.replace("3.1,5", "3.1,2"))
    _, out, _ = run(capsys, "simulate dated.csv --places few.csv --out o")
    assert "Lille (on 1 Jan 2024)" in out


def test_prices_are_learned_and_judged_on_other_orders(capsys, folder):
    found = answer(capsys, f"optimise {WORLD} --steps 2 --samples 1")
    assert len(found["rewards"]) == len(found["step_seconds"]) == 2
    for one in (found["given"], found["unseen"]):
        assert 0 < one["greedy"] <= one["bound"] + 1e-6 and one["learned"] <= one["bound"] + 1e-6
    assert "unseen orders: " in fulfil.format_gains(found)[1] and "clairvoyant bound" in fulfil.format_gains(found)[0]


def test_the_benchmark_compares(capsys, folder):
    found = answer(capsys, f"benchmark {WORLD} --width 8")
    assert found["exact"] is True and found["sequential_device_over_ours"] > 0
    assert list(folder.glob("walras-out")) == []


@pytest.mark.parametrize("words", ["simulate --verify", "benchmark --width 8", "simulate --verify --json"])
def test_a_difference_is_a_defect(capsys, folder, monkeypatch, words):
    def other(process, initial, events):
        return Trajectory(final=None, records=jnp.full(events.product.shape, NONE))

    for module in ("picard", "process"):
        monkeypatch.setattr(f"walras.parallel.{module}.run_sequentially", other)
    code, out, err = run(capsys, f"{words} {WORLD}")
    assert code == 1 and len(err.splitlines()) == 1 and "gave other actions than one order after the other" in err
    assert '"verified": false' in out if "--json" in words else "other actions" in out or "False" in out


def test_what_was_run_is_told(capsys, folder):
    found = answer(capsys, f"simulate {WORLD} --policy mlp --width 8 --seed 3 --window 20 --out o")
    told = {"policy": "mlp", "width": 8, "seed": 3, "orders": 60, "products": 7, "centres": 4, "beta": -0.8}
    told |= {"stock": 0.8, "capacity": 0.5, "refills": 0, "most_units": 1, "window": 20}
    assert found["settings"] == told == json.loads(Path("o/fulfilment.json").read_text())["settings"]
    page = Path("o/fulfilment.html").read_text()
    assert "What was run" in page
    for name, value in told.items():
        assert f">{name.replace('_', ' ')}</td>" in page and f">{value}</td>" in page
    words = "simulate orders.csv --places places.csv --stock-file stock.csv --out o"
    own = {"table": "orders.csv", "stock_file": "stock.csv", "places": "places.csv", "policy": "greedy"}
    assert answer(capsys, words)["settings"] == own | {"capacity": 0.8, "refills": 0, "seed": 0, "window": None}
    assert "automatic" in Path("o/fulfilment.html").read_text()


MISTAKES = [
    ("simulate --orders 0", "`orders` is '0' in the flags; it must be greater than or equal to 1"),
    ("simulate --centres 0", "`centres` is '0'"),
    ("simulate --beta nan", "`beta` is 'nan' in the flags; it must be a finite number"),
    ("simulate --beta inf", "`beta` is 'inf'"),
    ("simulate --capacity=-1", "`capacity` is '-1'"),
    ("simulate --capacity nan", "`capacity` is 'nan'"),
    ("simulate --stock=-0.1", "`stock` is '-0.1'"),
    ("simulate --width 0", "`width` is '0'"),
    ("simulate --gamma 99", "`gamma` is '99'"),
    ("simulate --seed=-1", "`seed` is '-1'"),
    ("simulate --refills=-1", "`refills` is '-1'"),
    ("simulate --policy gredy", "it must be 'greedy', 'mlp', 'dual' or 'capacity'"),
    ("simulate --window 0", "`window` is '0'"),
    ("simulate --orders 10 --window 11", "`--window` is 11 but there are only 10 orders"),
    ("benchmark --orders 10 --window 11", "`--window` is 11 but there are only 10 orders"),
    ("simulate --orders 99000000 --centres 9999", "do not fit in memory"),
    ("simulate gone.csv", "there is no file gone.csv"),
    ("simulate .", "is a folder"),
    ("simulate orders.csv", "`country` of orders.csv is Atlantis in data row 2"),
    ("simulate orders.csv --places places.csv --orders 3", "`--orders` is of a generated instance"),
    ("simulate orders.csv --places gone.csv", "there is no file gone.csv"),
    ("simulate --places places.csv", "`--places` belongs to a table of orders"),
    ("simulate --stock-file stock.csv", "`--stock-file` belongs to a table of orders"),
    ("simulate --out orders.csv", "orders.csv is a file; name a folder"),
    ("simulate --out orders.csv/below", "orders.csv is a file"),
    ("optimise --steps 0", "`steps` is '0'"),
    ("optimise --rate nan", "`rate` is 'nan'"),
    ("optimise --samples=-1", "`samples` is '-1'"),
]
EDITS = [
    ("orders.csv", "B7,Atlantis,1", "B7,Atlantis,-1", "`qty` of orders.csv is -1 in data row 2; it must be 1 or more"),
    ("orders.csv", "B7,Atlantis,1", "B7,Atlantis,0", "`qty` of orders.csv is 0 in data row 2"),
    ("orders.csv", "B7,Atlantis,1", "B7,Atlantis,x", "`qty` of orders.csv is x in data row 2; it needs a number"),
    ("orders.csv", "B7,Atlantis,1", "B7,Atlantis,1.5", "`qty` of orders.csv is 1.5 in data row 2"),
    ("orders.csv", "B7,Atlantis,1", "B7,Atlantis,", "`qty` of orders.csv is empty in data row 2"),
    ("orders.csv", "B7,Atlantis,1", "B7,,1", "`country` of orders.csv is empty in data row 2"),
    ("orders.csv", "B7,Atlantis,1", "B7,Lemuria,1", "`country` of orders.csv is Lemuria in data row 2"),
    (
        "orders.csv",
        "B7,Atlantis,1",
        "C9,Atlantis,1",
        "`unique_id` of orders.csv is C9 in data row 2; stock.csv does not have",
    ),
    ("orders.csv", "B7,Atlantis,1", "B7,Atlantis", "has 2 fields in data row 2 but its header names 3"),
    ("orders.csv", "qty", "quantity", "qty"),
    ("orders.csv", ORDERS, "unique_id,country,qty\n", "header but no rows"),
    ("orders.csv", ORDERS, "", "is an empty file"),
    (
        "orders.csv",
        ORDERS,
        "unique_id,country,qty,ts\nA1,France,1,2024-01-02\nA1,France,1,2024-01-01\n",
        "sort by time",
    ),
    ("orders.csv", ORDERS, "unique_id,country,qty,ts\nA1,France,1,soon\n", "needs times such as"),
    ("stock.csv", "A1,Ulm,5", "A1,Ulm,-5", "`stock` of stock.csv is -5 in data row 2; it must be 0 or more"),
    ("stock.csv", "A1,Ulm,5", "A1,Bonn,5", "`centre` of stock.csv is Bonn in data row 2; the centres are Lille, Ulm"),
    ("stock.csv", "A1,Ulm,5", "A1,Lille,5", "`unique_id` of stock.csv is A1 in data row 2; its stock"),
    ("places.csv", "3.1,5", "3.1,-5", "`capacity` of places.csv is -5 in data row 1"),
    ("places.csv", "50.6", "95", "`latitude` of places.csv is 95.0 in data row 1"),
    ("places.csv", "50.6", "", "`latitude` of places.csv is empty in data row 1"),
    ("places.csv", "Ulm,", "Lille,", "`place` of places.csv is Lille in data row 2"),
]


def refused(capsys, words: str, fragment: str) -> None:
    """Insist on one sentence, exit code 2, and a folder with the files that were there."""
    before = sorted(Path.cwd().iterdir())
    code, out, err = run(capsys, words)
    assert code == 2 and out == "", err
    assert len(err.splitlines()) == 1 and err.startswith("walras: ") and "Traceback" not in err
    assert fragment in err
    assert sorted(Path.cwd().iterdir()) == before


@pytest.mark.parametrize("words, fragment", MISTAKES, ids=[words for words, _ in MISTAKES])
def test_a_mistake_is_one_sentence_and_nothing_is_written(capsys, folder, words, fragment):
    refused(capsys, words, fragment)


@pytest.mark.parametrize("file, right, wrong, fragment", EDITS, ids=[fragment for *_, fragment in EDITS])
def test_a_bad_row_is_named(capsys, folder, file, right, wrong, fragment):
    text = Path(file).read_text()
    assert right in text
    Path(file).write_text(text.replace(right, wrong))
    refused(capsys, "simulate orders.csv --places places.csv --stock-file stock.csv", fragment)
