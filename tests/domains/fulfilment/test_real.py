"""Hold order lines to a real table, where a folder with one is named by the environment; refuse what is none."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from walras.domains.fulfilment.policies import Greedy
from walras.domains.fulfilment.real import read_orders
from walras.domains.fulfilment.run import fulfil
from walras.errors import InputError

FOLDER = os.environ.get("WALRAS_REAL_DATA")


@pytest.mark.skipif(not FOLDER, reason="WALRAS_REAL_DATA names no folder with real tables")
def test_the_gift_wholesalers_order_lines_are_a_world():
    world = read_orders(Path(FOLDER or "") / "online_retail_ii_orders.parquet")
    assert world.n_orders == 722_382 and len(world.reward) == 43
    first = world.first_orders(20_000)
    found = fulfil(first, Greedy())
    assert found.converged and found.share > 0.9


def test_a_table_of_order_lines_is_read(tmp_path):
    lines = {"unique_id": ["b", "a", "b"], "country": ["EIRE", "Nowhere", "France"], "qty": [2, 1, 3]}
    pq.write_table(pa.table(lines), tmp_path / "orders.parquet")
    world = read_orders(tmp_path / "orders.parquet", stock_share=4.0, capacity_share=4.0)
    np.testing.assert_array_equal(world.product, [1, 0, 1])
    np.testing.assert_array_equal(world.quantity, [2, 1, 3])
    assert world.reward[2].max() == 0 < world.reward[:2].min()  # 0 EIRE, 1 France, 2 Nowhere


def test_what_is_no_table_of_orders_is_refused(tmp_path):
    pq.write_table(pa.table({"unique_id": ["a"], "qty": [1]}), tmp_path / "few.parquet")
    pq.write_table(pa.table({"unique_id": ["a"], "country": ["EIRE"], "qty": [-1]}), tmp_path / "back.parquet")
    (tmp_path / "text.parquet").write_text("no")
    for name, said in {"few": "country", "back": "line 0", "text": "cannot be read", "gone": "cannot be read"}.items():
        with pytest.raises(InputError, match=said):
            read_orders(tmp_path / f"{name}.parquet")
