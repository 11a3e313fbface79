"""Hold the adapters to tiny files in the layout in which the public sets are published."""

import datetime

import numpy as np
import openpyxl
import pytest

from walras.data.adapters import ADAPTERS, READERS, read_original
from walras.data.adapters import favorita as favorita_module
from walras.errors import InputError, SettingsError

HEADER = ("Invoice", "StockCode", "Description", "Quantity", "InvoiceDate", "Price", "Customer ID", "Country")


def line(invoice, code, units, day, price):
    return (invoice, code, "THING", units, datetime.datetime(2010, 12, day, 9, 30), price, 13085.0, "United Kingdom")


FIRST_SHEET = [
    line(489434, 85048, 12, 1, 6.95),
    line(489434, "79323p", 4, 1, 2.0),
    line(489435, "79323P", 2, 8, 1.0),
    line("C489449", 85048, -3, 8, 6.95),
    line(489440, "POST", 1, 8, 18.0),
    line(489441, "85048", -5, 9, 0.0),
    line(489442, "85048", 7, 9, 0.0),
    line(489443, "85048", 8, 9, 7.0),
]
SECOND_SHEET = [
    line(489443, "85048", 8, 1, 7.0),  # an invoice that the first sheet has too
    line("A563185", "B", 1, 14, 11062.06),
    line(489500, "85048", 5, 14, 7.0),
]


def workbook(path):
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in (("Year 2009-2010", FIRST_SHEET), ("Year 2010-2011", SECOND_SHEET)):
        sheet = book.create_sheet(title)
        for row in (HEADER, *rows):
            sheet.append(row)
    book.save(path)


def comma_file(path, dates="%Y-%m-%d %H:%M:%S", header=HEADER, encoding="utf-8"):
    rows = [",".join(header)]
    for row in (*FIRST_SHEET, *SECOND_SHEET):
        cells = [cell.strftime(dates) if isinstance(cell, datetime.datetime) else str(cell) for cell in row]
        rows.append(",".join(cells))
    path.write_bytes("\n".join(rows).replace("THING", "CAFÉ").encode(encoding))


OLD_HEADER = ("InvoiceNo", "StockCode", "Description", "Quantity", "InvoiceDate", "UnitPrice", "CustomerID", "Country")


@pytest.mark.parametrize("layout", ["xlsx", "csv", "latin", "old"])
def test_online_retail_keeps_sales_of_products_and_counts_the_rest(layout, tmp_path):
    path = tmp_path / f"online_retail_II.{'xlsx' if layout == 'xlsx' else 'csv'}"
    if layout == "xlsx":
        workbook(path)
    elif layout == "old":
        comma_file(path, "%m/%d/%Y %H:%M", OLD_HEADER, "latin-1")
    else:
        comma_file(path, encoding="latin-1" if layout == "latin" else "utf-8")
    panel = READERS["online-retail"](path)
    assert panel.agents.tolist() == ["79323P", "85048"]
    assert panel.weeks.tolist() == [datetime.date(2010, 12, 1), datetime.date(2010, 12, 8)]
    np.testing.assert_array_equal(panel.units, [[4, 12], [2, 13]])
    np.testing.assert_allclose(panel.price, [[2.0, 6.95], [1.0, 7.0]])
    for words in (
        "2 lines dropped: cancelled or adjusted",
        "1 line dropped: no products",
        "1 line dropped: invoices that an earlier sheet has too",
        "1 line dropped: returns",
        "1 line dropped: given away",
    ):
        assert any(words in note for note in panel.notes), (words, panel.notes)


def test_online_retail_refuses_other_files(tmp_path):
    other = tmp_path / "other.csv"
    other.write_text("a,b\n1,2\n")
    broken = tmp_path / "broken.xlsx"
    broken.write_bytes(b"PK no workbook")
    for path in (other, broken, tmp_path / "missing.xlsx"):
        with pytest.raises(InputError):
            READERS["online-retail"](path)


def m5_folder(folder, days=17):
    """Two items in one store; weeks of seven days from d_1, and three days more."""
    names = [f"d_{day + 1}" for day in range(days)]
    start = datetime.date(2011, 1, 29)
    calendar = ["date,wm_yr_wk,weekday,d"]
    for day in range(28):
        calendar.append(f"{start + datetime.timedelta(days=day)},{11101 + day // 7},x,d_{day + 1}")
    (folder / "calendar.csv").write_text("\n".join(calendar))
    sales = ["id,item_id,dept_id,cat_id,store_id,state_id," + ",".join(names)]
    for item, late in (("FOODS_1_002", 0), ("FOODS_1_001", 7)):
        cells = ",".join(str(0 if day < late else day + 1) for day in range(days))
        sales.append(f"{item}_CA_1_evaluation,{item},FOODS_1,FOODS,CA_1,CA,{cells}")
    (folder / "sales_train_evaluation.csv").write_text("\n".join(sales))
    (folder / "sell_prices.csv").write_text(
        "store_id,item_id,wm_yr_wk,sell_price\nCA_1,FOODS_1_002,11101,2.0\nCA_1,FOODS_1_002,11102,2.5\n"
        "CA_1,FOODS_1_001,11102,1.25\nCA_1,FOODS_1_001,11104,9\nCA_9,FOODS_1_001,11101,9\n"
    )


def test_m5_sums_complete_walmart_weeks(tmp_path):
    m5_folder(tmp_path)
    panel = READERS["m5"](tmp_path)
    assert panel.agents.tolist() == ["FOODS_1_001_CA_1", "FOODS_1_002_CA_1"]
    assert panel.weeks.tolist() == [datetime.date(2011, 1, 29), datetime.date(2011, 2, 5)]
    np.testing.assert_array_equal(panel.units, [[0, 28], [77, 77]])
    np.testing.assert_array_equal(panel.on_sale, [[False, True], [True, True]])
    np.testing.assert_array_equal(panel.price, [[1.25, 2.0], [1.25, 2.5]])
    assert panel.category.tolist() == ["FOODS", "FOODS"]
    assert panel.notes == ("3 days outside complete weeks dropped.",)


@pytest.mark.parametrize("name", ["calendar.csv", "sales_train_evaluation.csv", "sell_prices.csv"])
@pytest.mark.parametrize("damage", ["missing", "other"])
def test_m5_names_the_file_that_is_wrong(name, damage, tmp_path):
    m5_folder(tmp_path)
    (tmp_path / name).unlink()
    if damage == "other":
        (tmp_path / name).write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        READERS["m5"](tmp_path)


def favorita_folder(folder):
    rows = ["id,date,store_nbr,item_nbr,unit_sales,onpromotion"]
    number = 0
    for day in range(17):
        date = datetime.date(2013, 1, 1) + datetime.timedelta(days=day)
        for store, item, units in ((25, 103665, 1.5), (1, 105574, -4.0 if day < 10 else 2.0)):
            if day == 16 and store == 1:
                continue
            rows.append(f"{number},{date},{store},{item},{units},")
            number += 1
    (folder / "train.csv").write_text("\n".join(rows) + "\n")
    (folder / "items.csv").write_text("item_nbr,family,class,perishable\n103665,BREAD/BAKERY,2712,1\n9,GROCERY I,1,0\n")


@pytest.mark.parametrize("chunk", [1 << 25, 200])
def test_favorita_is_summed_in_chunks(chunk, tmp_path, monkeypatch):
    monkeypatch.setattr(favorita_module, "CHUNK_BYTES", chunk)
    favorita_folder(tmp_path)
    panel = READERS["favorita"](tmp_path)
    assert panel.agents.tolist() == ["1_105574", "25_103665"]
    assert panel.weeks.tolist() == [datetime.date(2013, 1, 4), datetime.date(2013, 1, 11)]
    np.testing.assert_array_equal(panel.units, [[0, 10.5], [12, 10.5]])
    assert panel.category.tolist() == ["not recorded", "BREAD/BAKERY"]
    assert any("more returns than sales" in note for note in panel.notes)
    assert any("from 2013-01-01 do not fill a week" in note for note in panel.notes)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("7,2019-01-01,1,1,1.0,", "later than the last row's in data row 6"),
        ("7,2013-01-02,1,1,,", "`unit_sales` of train.csv is empty in data row 6"),
        ("7,2013-01-02,1,1,inf,", "`unit_sales` of train.csv is not a finite number in data row 6"),
        ("7,2013-01-02,1,one,1.0,", "train.csv"),
    ],
)
def test_favorita_names_a_bad_row(row, words, tmp_path):
    favorita_folder(tmp_path)
    lines = (tmp_path / "train.csv").read_text().splitlines()
    lines.insert(6, row)
    (tmp_path / "train.csv").write_text("\n".join(lines))
    with pytest.raises(InputError) as refusal:
        READERS["favorita"](tmp_path)
    assert words in str(refusal.value)


def test_an_unknown_data_set_is_refused():
    with pytest.raises(SettingsError, match="online-retail, m5, favorita"):
        read_original("m6", "folder")
    assert set(READERS) == set(ADAPTERS)
