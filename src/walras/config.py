"""Settings from TOML files and flags, validated once, with one sentence for every error."""

import difflib
import re
import tomllib
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

from walras.errors import SettingsError, one_line

ResourceName = Literal["inbound_units", "inbound_volume", "storage"]
TableFormat = Literal["table", "online-retail", "m5", "favorita"]
PriceKind = Literal["none", "pulse", "haar"]


def _named_once(resources: tuple[ResourceName, ...]) -> tuple[ResourceName, ...]:
    if len(set(resources)) < len(resources):
        raise ValueError("`resources` names a resource twice; name each once")
    return resources


Resources = Annotated[tuple[ResourceName, ...], Field(min_length=1), AfterValidator(_named_once)]

LEAST_COHORT = 20  # agents of the smallest cohort that represents a population: two in each of ten strata

PLAIN_WORDS = {
    "^Input should": "it must",
    ", unable.*": "",
    ", got a number.*": "",
    "Tuple should have at least 1 item.*": "name at least one",
    "valid tuple": "list",
    "valid dictionary.*": "table of names and values",
}
"""Pydantic's wording -> ours."""


class Settings(BaseModel):
    """Immutable settings that refuse unknown keys, infinities, and true or false in place of a number."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_numbers(cls, value: Any, info: Any) -> Any:
        name = str(info.field_name)
        if isinstance(value, bool) and cls.model_fields[name].annotation is not bool:
            raise ValueError(f"`{name}` is {str(value).lower()}, which is no value for it; give it a value")
        return value


class EconomicsSettings(Settings):
    """Costs of a product beside its purchase, where the table does not give them."""

    holding_rate: float = Field(0.25, ge=0, le=10, description="cost of holding stock for a year, share of unit cost")
    lost_sale_penalty: float = Field(0.0, ge=0, le=10, description="cost of a lost sale beyond margin, share of price")
    discount: float = Field(1.0, gt=0.9, le=1, description="discount factor per week")


class PlanFields(Settings):
    """The fields of `PlanSettings`, each validated alone: flags give some of them, a file the others."""

    weeks: int = Field(26, ge=1, le=260, description="weeks to plan, after the last week of the table")
    resources: Resources = Field(
        ("inbound_units",), description="shared resources to plan; repeat the flag for several"
    )
    scenarios: int = Field(16, ge=1, le=10_000, description="demand scenarios that the plan is made on")
    paths: int = Field(16, ge=1, le=10_000, description="other scenarios that the finished plan is verified on")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="random seed")
    active_weeks: int = Field(26, ge=1, le=10_000, description="plan the products that sold in this many last weeks")
    frozen_weeks: int = Field(
        0, ge=0, le=260, description="first weeks whose capacity is fixed, at the last plan's or the regular one"
    )
    rule: Literal["consensus", "marginal", "proximal"] = Field(
        "proximal", description="revision rule of the planning loop"
    )
    max_iterations: int = Field(
        60,
        ge=1,
        le=100_000,
        description="revisions by this rule; if it stalls, up to three times as many small ones follow",
    )
    reissue: bool = Field(True, description="verify with prices re-issued every week, besides fixed prices")
    regular_share: float = Field(
        0.9, gt=0, le=10, description="regular capacity, share of the mean expected use without prices"
    )
    service_level: float = Field(
        0.8, gt=0, lt=1, description="probability that a week's use fits its capacity at the planned prices"
    )
    policy: str = Field(
        "newsvendor",
        min_length=1,
        description="ordering policy of the products: newsvendor, buyer (the trained one), or the file of a buyer",
    )
    buyer: Path | None = Field(None, description="former name of the file in `policy`")
    bound: bool = Field(False, description="compare with the best prices in hindsight, which takes long")
    interface: Literal["simulated", "learned"] = Field(
        "simulated", description="how planning evaluates prices: by simulating every product, or by learned maps"
    )
    maps: str = Field(
        "default", min_length=1, description="learned maps: a name that comes with walras, or their folder"
    )
    cohort: int | None = Field(
        None,
        ge=0,
        description="agents simulated during the search to represent all, 0 for all (default: 20,000 of larger "
        "populations with learned maps, else all)",
    )
    economics: EconomicsSettings = Field(EconomicsSettings(), description="costs that the table does not give")

    @field_validator("policy")
    @classmethod
    def _policy_is_named(cls, given: str) -> str:
        if given == "auto":
            raise ValueError(
                "`policy` is auto, which is no more: name newsvendor, buyer, or the file of a buyer; "
                "`walras policy compare` shows which earns more on a table"
            )
        return given

    @field_validator("cohort")
    @classmethod
    def _cohort_of_some_size(cls, given: int | None) -> int | None:
        if given is not None and 0 < given < LEAST_COHORT:
            needed = f"a cohort has {LEAST_COHORT} agents at least; give more, or 0 to simulate all agents"
            raise ValueError(f"`cohort` is {given} but {needed}")
        return given


class PlanSettings(PlanFields):
    """Which weeks and resources to plan, on how many scenarios, and how to search."""

    @model_validator(mode="after")
    def _consistent(self) -> "PlanSettings":
        if self.frozen_weeks > self.weeks:
            given = f"`frozen_weeks` is {self.frozen_weeks}, more than the {self.weeks} planned weeks"
            raise ValueError(f"{given}; make it at most that")
        if self.interface == "simulated" and self.maps != "default":
            raise ValueError("`maps` is given but `interface` is simulated; set `interface` to learned, or drop `maps`")
        return self


class HistorySettings(Settings):
    """How a table's history is split into training weeks and later, held-out weeks."""

    holdout: int = Field(26, ge=1, le=10_000, description="last weeks of the table, held out for evaluation")
    active_weeks: int = Field(
        26, ge=1, le=10_000, description="use the products that sold in this many weeks before the held-out ones"
    )
    resources: Resources = Field(
        ("inbound_units",), description="shared resources that can be priced; repeat the flag for several"
    )
    lead_times: Literal["drawn", "planned"] = Field(
        "drawn", description="lead times of orders: drawn around each product's typical one, or exactly that one"
    )
    draws: int = Field(4, ge=1, le=1000, description="draws of the lead times, each with the same recorded demand")
    prices: Literal["latest", "recorded"] = Field(
        "latest",
        description="sale prices and unit costs: those of the last training week, or as recorded each week",
    )
    refit_weeks: int = Field(1, ge=1, le=260, description="weeks between two fits of the forecast")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="random seed")
    economics: EconomicsSettings = Field(EconomicsSettings(), description="costs that the table does not give")


class CompareSettings(HistorySettings):
    """Which policies to compare, under which shadow prices."""

    policies: tuple[str, ...] = Field(
        (), description="names of policies, separated by commas or by repeating the flag (default: all)"
    )
    shadow_price: PriceKind = Field(
        "none", description="prices charged for the resources: none, an announced pulse, or a Haar path"
    )
    round_to: float | None = Field(
        None, gt=0, description="orders are whole multiples of this many units (default: any amount)"
    )
    level: float = Field(0.95, gt=0.5, lt=1, description="nominal coverage of the intervals")

    @field_validator("policies", mode="before")
    @classmethod
    def _split_at_commas(cls, given: Any) -> Any:
        listed = [given] if isinstance(given, str) else given
        if isinstance(listed, list | tuple) and all(isinstance(part, str) for part in listed):
            return tuple(name.strip() for part in listed for name in part.split(",") if name.strip())
        return given


class ResourceCosts(Settings):
    """Cost of one resource: regular up to K0, overtime up to `overtime_limit` K0, agency up to `agency_limit` K0."""

    regular_capacity: float | tuple[float, ...] | None = Field(
        None, description="K0 per week, one number or one per week (default: by `regular_share`)"
    )
    closed: tuple[date, ...] = Field(
        (), description="days, such as 2026-12-25, whose weeks receive nothing but what is already on order"
    )
    regular_rate: float = Field(0.03, ge=0, description="cost of one unit of resource up to K0")
    overtime_rate: float = Field(0.045, ge=0, description="cost of one unit beyond K0")
    agency_rate: float = Field(0.08, ge=0, description="cost of one unit beyond the overtime limit")
    overtime_limit: float = Field(1.15, ge=1, le=100, description="overtime reaches to this share of K0")
    agency_limit: float = Field(1.3, ge=1, le=100, description="agency work reaches to this share of K0")
    ramp_up: float = Field(0.005, ge=0, description="cost of one unit more than the week before")
    ramp_down: float = Field(0.005, ge=0, description="cost of one unit less than the week before")
    revision_rate: float = Field(
        0.01, ge=0, description="cost of one unit of difference from the last plan, if one is revised"
    )
    lower_bound: float = Field(
        1.0, ge=0, le=100, description="smallest capacity, share of K0; below 1 regular capacity can be given back"
    )
    upper_bound: float | None = Field(
        None, ge=0, le=100, description="largest capacity, share of K0 (default: the agency limit)"
    )

    @property
    def tier_ends(self) -> tuple[float, float, float]:
        """Return where regular, overtime and agency capacity end, as shares of K0; all are cut at `upper_bound`."""
        most = self.agency_limit if self.upper_bound is None else self.upper_bound
        return min(1.0, most), min(self.overtime_limit, most), min(self.agency_limit, most)

    @model_validator(mode="after")
    def _convex(self) -> "ResourceCosts":
        # A unit that costs more than the next one would make the cost concave, and no price could support a plan.
        for name, below in (
            ("overtime_rate", "regular_rate"),
            ("agency_rate", "overtime_rate"),
            ("agency_limit", "overtime_limit"),
            ("upper_bound", "lower_bound"),
        ):
            value, least = getattr(self, name), getattr(self, below)
            if value is not None and value < least:
                raise ValueError(f"`{name}` is {value:g}, less than `{below}` ({least:g}); it must be at least that")
        given = self.regular_capacity if isinstance(self.regular_capacity, tuple) else (self.regular_capacity,)
        if not given or any(value is not None and value < 0 for value in given):
            raise ValueError("`regular_capacity` must be one number of at least 0, or a list of them, one per week")
        return self


class CostSettings(ResourceCosts):
    """Costs of all resources, and of single ones under `[resource.NAME]`.

    Rates are shares of the population's median unit margin (`rates = "margin"`) or money per unit of the resource
    (`rates = "money"`), which volume and storage need: a unit's margin says nothing of a unit of volume.
    """

    rates: Literal["margin", "money"] = Field("margin", description="unit of the rates: shares of the margin, or money")
    resource: dict[ResourceName, dict[str, Any]] = Field({}, description="different values for one resource")

    def of(self, name: str) -> ResourceCosts:
        """Return the costs of one resource: its own values over the common ones."""
        common = {key: getattr(self, key) for key in ResourceCosts.model_fields}
        own = self.resource.get(name, {})  # type: ignore[call-overload]
        return checked(ResourceCosts, {**common, **own}, f"[resource.{name}]")

    @model_validator(mode="after")
    def _resources_are_costs(self) -> "CostSettings":
        for name in self.resource:
            try:
                self.of(name)
            except SettingsError as error:
                raise ValueError(str(error)) from None
        return self


Weekday = Literal["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]


class Reading(Settings):
    """What a table leaves open about its own notation; by default the table shows it, or is refused."""

    sheet: str | None = Field(None, description="sheet of a workbook (default: the first with a table)")
    decimal: Literal[".", ","] | None = Field(None, description="decimal mark of numbers")
    date_order: Literal["day", "month"] | None = Field(None, description="what comes first in dates such as 3/4/2024")
    timezone: str | None = Field(None, description="time zone whose days count, such as Europe/Berlin")
    week_start: Weekday | None = Field(None, description="day on which weeks start")
    first_week: str | None = Field(None, description="date of the first of columns W1, W2, ...")
    returns: Literal["net", "drop"] | None = Field(None, description="negative units: subtract or leave out")
    repeats: Literal["sum", "drop"] | None = Field(None, description="rows of one product and week: add or keep one")
    dash_zero: bool = Field(False, description="a dash in a cell means 0")


class TableSettings(Reading):
    """How to read a table: its layout, a second table of product attributes, and its column names."""

    format: TableFormat = Field("table", description="layout of the files")
    static: Path | None = Field(None, description="table with one row per product")
    columns: dict[str, str] = Field({}, description="our column name -> the table's")


Model = TypeVar("Model", bound=Settings)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; raise `SettingsError` if it is missing, unreadable or not TOML."""
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"cannot read settings from `{path}` ({error.strerror}); give a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"`{path}` is not valid TOML: {one_line(str(error))}") from None


def read_costs(path: Path | None) -> CostSettings:
    """Read `costs.toml`; without a file return the default costs."""
    return CostSettings() if path is None else checked(CostSettings, read_toml(path), str(path))


def read_settings(
    kind: type[Model], path: Path | None, flags: Settings | None = None, table_flags: Mapping[str, Any] | None = None
) -> tuple[Model, TableSettings]:
    """Join a settings file with the given flags, which take precedence.

    The file has the fields of `kind` and of `TableSettings` side by side; `[economics]` and `[columns]` are its tables.
    """
    content = {} if path is None else read_toml(path)
    source = "the flags" if path is None else str(path)
    # What belongs together is validated after joining, since flags give some of it.
    parts: tuple[type[Settings], ...] = (TableSettings, PlanFields if issubclass(kind, PlanFields) else kind)
    checked(create_model("SettingsFile", __base__=parts), content, source)
    table = {name: content.pop(name) for name in TableSettings.model_fields if name in content}
    both = source if path is None else f"{source} and the flags"
    return (
        checked(kind, _merged(content, {} if flags is None else flags.model_dump(exclude_unset=True)), both),
        checked(TableSettings, _merged(table, table_flags or {}), both),
    )


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `under` updated with `over`, nested tables too."""
    both = {key for key in over if isinstance(over[key], Mapping) and isinstance(under.get(key), Mapping)}
    return {**under, **over, **{key: _merged(under[key], over[key]) for key in both}}


def checked(kind: type[Model], values: Mapping[str, Any], source: str) -> Model:
    """Validate values as a settings model; raise `SettingsError` with the field, the value and what is allowed."""
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise SettingsError(validation_sentence(error, kind, source)) from None


def validation_sentence(error: ValidationError, kind: type[BaseModel], source: str) -> str:
    """Describe the first error in one sentence, and count the others."""
    errors = error.errors(include_url=False)
    first = errors[0]
    others = len({entry["loc"][0] for entry in errors if entry["loc"]}) - 1
    more = f" (and {others} more)" if others > 0 else ""
    path = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        return f"{_unknown(kind, path, source)}{more}"
    if first["type"] == "value_error":
        return f"{first['ctx']['error']} (in {source}){more}"
    name = ".".join(part for part in path if not part.startswith(("tuple[", "float", "[key]")))
    message, value = first["msg"], repr(first["input"])
    for theirs, ours in PLAIN_WORDS.items():
        message = re.sub(theirs, ours, message)
    value = value if len(value) <= 60 else value[:57] + "..."
    return f"`{name}` is {value} in {source}; {message[:1].lower()}{message[1:]}{more}"


def _unknown(kind: type[BaseModel], path: list[str], source: str) -> str:
    """Say that the last name of a path into nested settings is unknown, and suggest one that is known."""
    for part in path[:-1]:
        inner = getattr(kind.model_fields.get(part), "annotation", None)
        kind = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else kind
    name = path[-1] if path[-1].isprintable() else repr(path[-1])
    near = difflib.get_close_matches(path[-1], kind.model_fields, n=1)
    advice = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(kind.model_fields)}"
    return f"`{name}` in {source} is not a setting; {advice}"
