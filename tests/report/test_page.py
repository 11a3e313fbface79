"""The page of a plan: complete, self-contained, escaped, readable where numbers are missing."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import report_example

from walras.config import CostSettings
from walras.planning.result import Search
from walras.planning.service import Service
from walras.report import page, summary

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
    """Parse a page and check that every tag closes."""
    checker = Checker()
    checker.feed(text)
    assert checker.open == []
    return checker


def visible(text: str) -> str:
    return " ".join("".join(read(text).text).split())


@pytest.fixture(scope="module")
def one_page(written) -> str:
    """The page of three resources, with its charts."""
    return written["report.html"].read_text(encoding="utf-8")


@pytest.fixture
def text_of(monkeypatch):
    """Render pages without charts, for tests of what they say."""
    monkeypatch.setattr(page, "picture", lambda *_: ())
    return lambda result: visible(page.plan_page(result))


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
    text = visible(one_page)
    assert "inbound <m3> & pallets" in text and "product <A&B>" in text and "<sales & returns>.csv" in text


def test_every_section_and_chart_is_there(one_page):
    headings = re.findall(r"<h2>(.*?)</h2>", one_page)
    assert headings == [
        "What needs a decision", "Service and lost sales", "Capacity and use", "Shadow prices",
        "What more capacity is worth", "Week by week", "Demand and arrivals", "Which products use less",
        "How this was verified", "What is real and what is assumed", "Notes and limits", "How the plan was made",
        "Glossary",
    ]  # fmt: skip
    # Three resources twice, lost sales, demand and two groupings, each wide and for a phone.
    assert one_page.count("<svg") == 2 * (3 + 3 + 1 + 1 + 2)


def test_weeks_that_fail_are_marked_and_decided_on(one_page):
    text = visible(one_page)
    assert "18 Jul, inbound units" in text and "no price helps" in text and "over at the highest price" in text
    assert one_page.count('<tr class="bad">') == 2 * 3


def test_assumed_columns_are_named(one_page):
    text = visible(one_page)
    assert "2 of 7 columns are assumed, not measured: lead_time and unit_cost." in text
    assert "Gamma(2.49) with median 3 weeks" in text and "Assumed for some of the products: volume." in text


@pytest.mark.parametrize(
    ("provenance", "words"),
    [
        ({"units": "given", "price": "given"}, "Nothing was assumed"),
        ({"units": "generated: seed 0"}, "This plan is about generated products: units"),
        ({}, "did not say where its numbers come from"),
    ],
)
def test_only_given_numbers_are_called_real(result, provenance, words):
    sentences = " ".join(summary.data_sources(replace(result, provenance=provenance))["sentences"])
    assert words in sentences
    assert ("Nothing was assumed" in sentences) == (words == "Nothing was assumed")


def test_missing_measures_are_not_defined(easy_result, text_of):
    text = text_of(easy_result)
    assert "not defined" in text and "no week is near its limit" in text
    assert not re.search(r"\b(nan|None|inf)\b", text)


def test_forecast_without_a_score_says_why(result, text_of):
    reason = "The history has 30 weeks, too few to hold out 26 and fit on 8."
    text = text_of(replace(result, forecast_score={"reason": reason, "holdout": 26, "bias": None}))
    assert f"unknown. {reason}" in text and "CRPS" not in text


@pytest.mark.parametrize("weeks", [1, 60])
def test_short_and_long_horizons(weeks):
    long = report_example.plan(weeks=max(weeks, 12))
    record, by_week = long.record, ("weeks", "regular_capacity", "committed", "reissued_prices")
    fans = ("unconstrained", "verified_utilization", "fixed_utilization", "demand", "receipts")
    cut = replace(
        long,
        record=replace(
            record,
            **{name: getattr(record, name)[:weeks] for name in ("capacity", "shadow_prices", "utilization")},
            trace=(),
        ),
        **{name: getattr(long, name)[:weeks] for name in by_week},
        **{name: getattr(long, name)[:, :weeks] for name in fans},
        week_verdicts=long.week_verdicts[:weeks],
        service=Service(*(values[:weeks] for values in vars(long.service).values())),
        price_ranges=(),
        gave_way=(),
    )
    read(page.plan_page(cut))


def test_almost_nothing_known_gives_the_same_page_twice():
    bare = report_example.plan(
        past=0, groups=(), money={}, verified={}, verified_fixed={}, intervals={}, forecast_score={}, week_verdicts=(),
        verdict=(), provenance={}, notes=(), counts={}, settings={}, seconds={},
    )  # fmt: skip
    record = replace(bare.record, capacity=np.zeros_like(bare.record.capacity), trace=())
    bare = replace(bare, record=record, regular_capacity=record.capacity, demand=np.full_like(bare.demand, np.nan))
    text = page.plan_page(bare)
    assert not re.search(r"\bnan\b", visible(text))
    assert page.plan_page(bare) == text


def test_products_are_counted_once(result):
    counts = {"agents": 4378, "active": 3280, "inactive": 1098}
    assert page.basis(replace(result, counts=counts))[1] == (
        "3,280 products planned (of 4,378; 1,098 sold nothing lately)"
    )
    assert page.basis(replace(result, counts={"agents": 1, "active": 1})) == ["26 weeks planned", "1 product planned"]


def test_nothing_is_said_to_be_reissued_that_was_not(result, text_of, one_page):
    text = text_of(replace(result, settings={"plan": {"reissue": False}}))
    assert not re.search("re-?issued", text, re.IGNORECASE) and "9 of 10 futures, planned prices" in text
    assert "Re-issued weekly" in one_page


def test_assumed_capacity_and_rates_are_named(result):
    costs = CostSettings().model_dump()
    settings = {"plan": {"regular_share": 0.8}, "costs": costs}
    text = " ".join(summary.data_sources(replace(result, settings=settings, provenance={}))["sentences"])
    assert "assumed 0.8 × mean expected use without prices" in text and "shares of the median unit margin" in text
    settings = {"costs": {**costs, "regular_capacity": 9.0, "regular_rate": 0.01}}
    text = " ".join(
        summary.data_sources(replace(result, settings=settings, provenance={"units": "given"}))["sentences"]
    )
    assert "Nothing was assumed" in text


def test_settings_that_are_empty_are_not_given(result, text_of):
    assert "not given" in text_of(replace(result, settings={"costs": {"upper_bound": None}}))


@pytest.mark.parametrize("over", [0, 2])
def test_the_tile_of_weeks_that_fit_counts_them(result, over):
    weeks = len(result.weeks)
    judged = replace(result, week_verdicts=("over on 50 % of paths",) * over + ("fits",) * (weeks - over))
    title, value, small, kind = page.tiles(judged)[0]
    assert (title, value) == ("Weeks that fit", f"{weeks - over} of {weeks}")
    assert (small == "of the planned weeks") == (over == 0) == (kind == "good")


def test_reward_kept_says_on_how_many_futures(result):
    counted = replace(result, verified={**result.verified, "oracle_paths": 4})
    assert any("computed on 4 of 32 futures" in small for _, _, small, _ in page.tiles(counted))
    assert not any("computed on" in small for _, _, small, _ in page.tiles(result))


def test_use_of_maps_outside_training_is_said_on_top_and_in_the_table(result, text_of):
    text = text_of(result)
    assert "learned maps" not in text and "used outside" not in text
    search = Search("learned", "default", queries=120, simulations=4)
    inside = text_of(replace(result, search=search))
    assert "learned maps (default), corrected and checked by simulating every product 4 times" in inside
    assert "used outside" not in inside and "queries to learned maps, corrected by 4 simulations" in inside
    outside = text_of(replace(result, search=replace(search, outside_training=("the history has 3 weeks",))))
    assert "used outside of their training: the history has 3 weeks." in outside
    assert "outside training" in outside and outside.count("the history has 3 weeks") == 2
