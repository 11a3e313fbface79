"""Own the promise of the page: complete, self-contained, escaped, readable where numbers are missing."""

import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import report_example

from walras.config import CostSettings
from walras.planning.result import Search
from walras.report import details, formatting, sections
from walras.report.page import page, write_report

VOID = {"meta", "br", "img", "hr", "link", "input", "use", "path", "rect", "stop"}


class Checker(HTMLParser):
    """Follow open tags, and collect ids, the references to them and the visible text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("href", "xlink:href", "src"):
                self.references.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
            self.open.pop()

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)


def read(text: str) -> Checker:
    """Parse a page and see that every tag closes."""
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    return checker


@pytest.fixture(scope="module")
def one_page() -> str:
    """Write the page of three resources once."""
    return page(report_example.plan(("inbound units", "inbound <m3> & pallets", "storage units")))


def test_all_files_are_written(result, tmp_path):
    paths = write_report(result, tmp_path / "new" / "report")
    assert [path.name for path in paths] == ["report.html", "plan.parquet", "plan.csv", "groups.csv", "report.json"]
    assert all(path.stat().st_size > 0 for path in paths)
    assert sorted(path.name for path in paths[0].parent.iterdir()) == sorted(path.name for path in paths)


def test_page_needs_nothing_from_outside(one_page):
    assert "http" not in one_page and "@import" not in one_page and "<script" not in one_page
    assert all(reference.startswith("#") for reference in read(one_page).references)
    assert set(re.findall(r"url\((.)", one_page)) <= {"#"}


def test_ids_are_unique_and_every_reference_is_met(one_page):
    checker = read(one_page)
    assert len(checker.ids) == len(set(checker.ids))
    used = {reference.removeprefix("#") for reference in checker.references}
    used |= set(re.findall(r"url\(#([^)]*)\)", one_page))
    assert used and used <= set(checker.ids)


def test_user_text_is_escaped(one_page):
    assert "<b>Garden" not in one_page and "<m3>" not in one_page and "<sales" not in one_page
    text = "".join(read(one_page).text)
    assert "inbound <m3> & pallets" in text and "product <A&B>" in text and "<sales & returns>.csv" in text


def test_every_section_is_there(one_page):
    headings = re.findall(r"<h2>(.*?)</h2>", one_page)
    assert headings == [
        "Capacity and use", "Shadow prices", "Week by week", "Demand and arrivals", "Who gave way", "Money",
        "How this was verified", "What is real and what is assumed", "Notes and limits", "How the plan was made",
        "Words",
    ]  # fmt: skip
    # Three resources twice, demand, two groupings, money and the loop, each wide and for a phone.
    assert one_page.count("<svg") == 2 * (3 + 3 + 1 + 2 + 1 + 1)


def test_weeks_that_fail_are_named_with_the_reason(one_page):
    text = "".join(read(one_page).text)
    assert re.search(r"18 Jul 2011: already committed; [\d,]+ for [\d,]+ inbound units", text)
    assert "7 Nov 2011: over at the highest price" in text
    assert one_page.count('<tr class="bad">') == 2 * 3


def test_assumed_columns_are_named(one_page):
    text = "".join(read(one_page).text)
    assert "2 of 7 columns are assumed, not measured: lead_time and unit_cost." in text
    assert "Gamma(2.49) with median 3 weeks" in text and "Assumed for some of the products: volume." in text


@pytest.mark.parametrize(
    ("provenance", "words"),
    [
        ({"units": "given", "price": "given"}, "Nothing was assumed"),
        ({"units": "generated: seed 0"}, "This plan is about made-up products: units were generated"),
        ({}, "did not say where its numbers come from"),
    ],
)
def test_nothing_is_called_real_that_is_not(result, provenance, words):
    section = details.data_sources(replace(result, provenance=provenance))
    assert words in section
    assert ("Nothing was assumed" in section) == (words == "Nothing was assumed")


def test_many_weeks_with_one_reason_share_a_line(result):
    verdicts = [f"over on {10 + week} % of paths" if 4 <= week < 10 else "fits" for week in range(26)]
    lines = sections.failing_weeks(replace(result, week_verdicts=(*verdicts[:-1], "already committed")))
    assert len(lines) == 2 and lines[1].startswith("26 Dec 2011: already committed")
    assert lines[0].startswith("over on 14 to 19 % of paths, 6 weeks: 1 Aug, 8 Aug, 15 Aug, 22 Aug, 29 Aug and 5 Sep")


def test_missing_measures_are_not_defined(easy_result):
    text = "".join(read(page(easy_result)).text)
    assert "not defined" in text and "no week is near its limit" in text
    assert not re.search(r"\b(nan|None|inf)\b", text)


def test_forecast_without_a_score_says_why(result):
    reason = "The history has 30 weeks, too few to hold out 26 and fit on 8."
    text = "".join(read(page(replace(result, forecast_score={"reason": reason, "holdout": 26, "bias": None}))).text)
    assert f"How far to trust this forecast is unknown. {reason}" in text and "CRPS" not in text


@pytest.mark.parametrize("weeks", [1, 2, 60])
def test_short_and_long_horizons(weeks):
    short = report_example.plan(weeks=max(weeks, 12))
    cut = replace(
        short,
        record=replace(
            short.record,
            capacity=short.record.capacity[:weeks],
            shadow_prices=short.record.shadow_prices[:weeks],
            utilization=short.record.utilization[:weeks],
            trace=(),
        ),
        **{
            name: getattr(short, name)[:weeks] for name in ("weeks", "regular_capacity", "committed", "reissued_prices")
        },
        **{
            name: getattr(short, name)[:, :weeks]
            for name in ("unconstrained", "verified_utilization", "fixed_utilization", "demand", "receipts")
        },
        week_verdicts=short.week_verdicts[:weeks],
    )
    read(page(cut))


def test_almost_nothing_known():
    bare = report_example.plan(
        past=0, groups=(), money={}, verified={}, verified_fixed={}, intervals={}, forecast_score={}, week_verdicts=(),
        verdict=(), provenance={}, notes=(), counts={}, settings={}, seconds={},
    )  # fmt: skip
    record = replace(bare.record, capacity=np.zeros_like(bare.record.capacity), trace=())
    bare = replace(bare, record=record, regular_capacity=record.capacity, demand=np.full_like(bare.demand, np.nan))
    text = "".join(read(page(bare)).text)
    assert not re.search(r"\bnan\b", text)


def test_same_plan_gives_the_same_page(result):
    assert page(result) == page(result)


def test_import_does_not_load_matplotlib():
    code = "import sys, walras.report.page, walras.report.tables; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_products_are_counted_once(result):
    counts = {"agents": 4378, "active": 3280, "inactive": 1098}
    text = sections.top(replace(result, counts=counts))
    assert "3,280 products planned (of 4,378; 1,098 sold nothing lately)" in text
    assert '<p class="quiet">26 weeks planned · 1 product planned</p>' in sections.top(
        replace(result, counts={"agents": 1, "active": 1})
    )


def test_nothing_is_said_to_be_reissued_that_was_not(result):
    text = "".join(read(page(replace(result, settings={"plan": {"reissue": False}}))).text)
    assert not re.search("re-?issued", text, re.IGNORECASE) and "9 of 10 futures, planned prices" in text
    assert "Re-issued weekly" in page(result)


def test_assumed_capacity_and_rates_are_named(result):
    costs = CostSettings().model_dump()
    text = details.data_sources(
        replace(result, settings={"plan": {"regular_share": 0.8}, "costs": costs}, provenance={})
    )
    assert "assumed 0.8 × mean expected use without prices" in text and "shares of the median unit margin" in text
    given = {**costs, "regular_capacity": 9.0, "regular_rate": 0.01}
    text = details.data_sources(replace(result, settings={"costs": given}, provenance={"units": "given"}))
    assert "Nothing was assumed" in text


def test_settings_that_are_empty_are_not_given(result):
    assert "not given" in details.run_info(replace(result, settings={"costs": {"upper_bound": None}}))


def test_reward_kept_says_on_how_many_futures(result):
    counted = replace(result, verified={**result.verified, "oracle_paths": 4})
    assert "computed on 4 of 32 futures" in sections.key_figures(counted)
    assert "computed on" not in sections.key_figures(result)


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ("spread over 1 weeks.", "spread over 1 week."),
        ("12345 of 20000 rows left", "12,345 of 20,000 rows left"),
        ("product 85123 in 2011", "product 85123 in 2011"),
        ("0.1 units, 21 weeks", "0.1 units, 21 weeks"),
    ],
)
def test_sentences_from_elsewhere_are_tidied(given, written):
    assert formatting.fix_plurals(given) == written


def test_what_maps_had_not_learned_is_said_on_top_and_in_the_table(result):
    assert "learned maps" not in page(result) and "used outside" not in page(result)
    asked = Search("learned", "default", queries=120, simulations=4)
    inside = page(replace(result, search=asked))
    assert "learned maps (default), corrected and judged by simulating every product 4 times" in inside
    assert "used outside" not in inside and "queries to learned maps, corrected by 4 simulations" in inside
    outside = page(replace(result, search=replace(asked, outside_training=("the history has 3 weeks",))))
    assert "The learned maps were used outside of their training: the history has 3 weeks." in outside
    assert "outside training</span>" in outside and outside.count("the history has 3 weeks") == 2
