"""Order lines are read from tables (a real one where the environment names its folder); other files are refused."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from walras.domains.fulfilment.from_table import read_orders
from walras.domains.fulfilment.instance import UNIT
from walras.domains.fulfilment.policies import make_policy
from walras.domains.fulfilment.process import audit_actions, fulfil
from walras.errors import InputError
from walras.parallel.picard import Picard
from walras.parallel.strategies import SlidingWindow

FOLDER = os.environ.get("WALRAS_REAL_DATA")


@pytest.mark.skipif(not FOLDER, reason="WALRAS_REAL_DATA names no folder with real tables")
def test_the_gift_wholesalers_order_lines_are_a_world():
    instance = read_orders(Path(FOLDER or "") / "online_retail_ii_orders.parquet", capacity_share=0.6, refills=3)
    assert instance.n_orders == 722_382 and len(instance.reward) == 43 and instance.quantity.max() > 10_000
    assert np.sum(instance.reward.max(1) == 0) < 20 and instance.times[0] == np.datetime64("2009-12-01T07:45")
    first = instance.first_orders(5_000)
    tight = replace(first, stock=first.stock // 40, capacity=first.capacity // 40)
    for name in ("greedy", "mlp", "dual", "capacity"):
        found = fulfil(tight, make_policy(tight, name, width=8), Picard(SlidingWindow(500), verify=True))
        assert found.converged and bool(found.info.verified)
        account = audit_actions(tight, found.actions)
        assert 0.3 < found.fill_rate < 0.999 and account.filled + sum(account.unfilled.values()) == 5_000


def test_a_table_of_order_lines_is_read(tmp_path):
    lines = {"unique_id": ["b", "a", "b"], "country": ["EIRE", "Unspecified", "France"], "qty": [2, 1, 3]}
    pq.write_table(pa.table(lines), tmp_path / "orders.parquet")
    instance = read_orders(tmp_path / "orders.parquet", stock_share=4.0, capacity_share=4.0, refills=1)
    np.testing.assert_array_equal(instance.product, [1, 0, 1])
    np.testing.assert_array_equal(instance.quantity, [2, 1, 3])
    assert list(instance.destinations) == ["EIRE", "France", "Unspecified"]
    assert instance.reward[2].max() == 0 < instance.reward[:2].min()
    assert list(instance.refill_before) == [1] and instance.cumulative_capacity()[-1].sum() == pytest.approx(24, abs=10)


def test_stock_and_places_may_be_given(tmp_path):
    (tmp_path / "orders.csv").write_text("unique_id,country,qty,ts\nb,Here,2,2024-01-01\na,France,1,2024-01-02\n")
    (tmp_path / "places.csv").write_text("place,latitude,longitude,capacity\nHere,50,2,\nHub,50,2,7\nFar,0,0,3\n")
    (tmp_path / "stock.csv").write_text("unique_id,centre,stock\nz,Far,9\na,Hub,1\nb,Hub,2\nb,Far,1\n")
    instance = read_orders(tmp_path / "orders.csv", stock=tmp_path / "stock.csv", places=tmp_path / "places.csv")
    assert instance.names == ("Hub", "Far") and list(instance.products) == ["a", "b", "z"]
    np.testing.assert_array_equal(instance.stock, [[1, 0], [2, 1], [0, 9]])
    np.testing.assert_array_equal(instance.capacity, [7, 3])
    assert instance.reward[1, 0] == UNIT and instance.times[1] == np.datetime64("2024-01-02")
    (tmp_path / "known.csv").write_text("place,latitude,longitude\nHere,50,2\n")
    assert read_orders(tmp_path / "orders.csv", places=tmp_path / "known.csv").n_centres == 10


def test_what_is_no_table_of_orders_is_refused(tmp_path):
    pq.write_table(pa.table({"unique_id": ["a"], "qty": [1]}), tmp_path / "few.parquet")
    pq.write_table(pa.table({"unique_id": ["a"], "country": ["EIRE"], "qty": [-1]}), tmp_path / "back.parquet")
    pq.write_table(pa.table({"unique_id": ["a"], "country": ["Mu"], "qty": [1]}), tmp_path / "lost.parquet")
    (tmp_path / "text.parquet").write_text("no")
    refused = {"few": "country", "back": "data row 1", "lost": "Mu in data row 1", "text": "cannot be read"}
    for name, said in (refused | {"gone": "no file"}).items():
        with pytest.raises(InputError, match=said):
            read_orders(tmp_path / f"{name}.parquet")
