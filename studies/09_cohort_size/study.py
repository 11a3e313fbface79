"""Forecast large populations from cohorts of several sizes and designs, and compare predicted with measured errors."""

from functools import partial

from lab.datasets import by_table, evaluation_pool
from lab.figures import against_size, to_png
from lab.forecast_study import ForecastBudget, cohort_figures
from lab.reference_maps import default_maps
from lab.results import round_digits, target_row
from lab.shift_cases import ShiftCases, ShiftSizes
from walras.maps.file import PRIMAL
from walras.policies.base_stock import PricedNewsvendor

OURS = "bucketized+delegates"
FEW, MANY = 2000, 20_000
TOLERATED = 1.05


def parts(context):
    """Return one part for each table and size of the target."""
    return by_table(context, "repeats", _measured)


def _measured(context, data, number):
    settings = context.settings
    agent_pool = evaluation_pool(data, context.data, settings["world_agents"])
    sizes = {"cohorts": settings["counts"], "repeats": (number,), "draws_of_cohorts": settings["draws"]}
    cases = ShiftCases(
        agent_pool, PricedNewsvendor(), ShiftSizes(origins=settings.get("origins", 4)).fitted_to(agent_pool)
    )
    name = settings.get("map", OURS)
    learned = default_maps(PRIMAL, [name])[name]
    return round_digits(cohort_figures(cases, learned, ForecastBudget(**sizes), context.tell))


def figures(measured, context):
    """Return errors by target, design and size of the cohort."""
    tables = {}
    for name, rows in measured.items():
        for row in rows:
            place = tables.setdefault(f"{name.split(':')[0]}, {row['target']} agents", {})
            place.setdefault(row["design"], {})[str(row["n"])] = {
                "predicted_scale_error": row["predicted"],
                "scale_error": row["scale_interval"],
                "mape": row["mape_interval"],
                "distance_from_everybody": row["full_interval"],
                "mape_of_everybody": row["mape_of_everybody"],
                "cohorts": row["draws"],
            }
    return tables


def answer(measured):
    """State for each target whether a stratified cohort is as good as a uniform one of ten times the size."""
    lines = [_line(name, designs) for name, designs in measured.items()]
    held = [each for each, _ in lines]
    verdict = "Held" if all(held) else "Not held everywhere"
    return f"{verdict}: {'; '.join(text for _, text in lines)}."


def _line(name, designs):
    few, many = _compared_sizes(designs)
    ours, theirs = designs["stratified"][str(few)], designs["uniform"][str(many)]
    scale = [100 * each["scale_error"]["estimate"] for each in (ours, theirs)]
    mape = [100 * each["mape"]["estimate"] for each in (ours, theirs)]
    least = min(designs["proportional"], key=int)
    text = (
        f"of {name}, {few:,} stratified agents give an error of {mape[0]:.1f} % and a scale within {scale[0]:.2f} %, "
        f"{many:,} uniformly drawn ones {mape[1]:.1f} % and {scale[1]:.2f} %, the fewest drawn by demand ({least}) "
        f"{100 * designs['proportional'][least]['mape']['estimate']:.1f} %; {_predicted(designs)}"
    )
    return mape[0] <= TOLERATED * mape[1], text


def _compared_sizes(designs):
    """Return the sizes of the stratified and the uniform cohort."""
    few = min(map(int, designs["stratified"]), key=lambda n: abs(n - FEW))
    return few, max((n for n in map(int, designs["uniform"]) if n <= MANY), default=FEW)


def _predicted(designs):
    """Count how often the predicted error of the scale lies within the interval of the measured one."""
    rows = [each for sizes in designs.values() for each in sizes.values()]
    within = sum(
        each["scale_error"]["low"] <= each["predicted_scale_error"] <= each["scale_error"]["high"] for each in rows
    )
    return f"predicted errors of the scale lie within the intervals of {within} of {len(rows)}"


def key(measured):
    """Compare a small stratified cohort with a large uniform one."""
    rows = []
    for name, designs in measured.items():
        few, many = _compared_sizes(designs)
        ours, theirs = designs["stratified"][str(few)]["mape"], designs["uniform"][str(many)]["mape"]["estimate"]
        words = f"error of {few:,} stratified agents, that of {many:,} uniformly drawn ones being {theirs:.3g}"
        rows.append(target_row(words, name, ours, most=float(f"{TOLERATED * theirs:.3g}")))
    return rows


def pictures(measured):
    """Draw error of the scale (predicted as lines) and of the forecast by size of the cohort, for each target."""
    drawn = {}
    for name, designs in measured.items():
        short = name.replace(", ", "-").replace(" ", "-")
        drawn[f"{short}-scale.png"] = to_png(partial(_scale, designs))
        drawn[f"{short}-forecast.png"] = to_png(partial(_forecast, designs))
    return drawn


def _scale(designs, axes):
    measured = {design: {int(n): row["scale_error"] for n, row in rows.items()} for design, rows in designs.items()}
    known = {
        design: {int(n): row["predicted_scale_error"] for n, row in rows.items()} for design, rows in designs.items()
    }
    axes.set_yscale("log")
    against_size(axes, measured, known)
    axes.set_ylabel("error of the scale")
    axes.set_xlabel("agents of the cohort (lines: as predicted)")


def _forecast(designs, axes):
    measured = {design: {int(n): row["mape"] for n, row in rows.items()} for design, rows in designs.items()}
    against_size(axes, measured)
    whole = next(row for rows in designs.values() for row in rows.values())["mape_of_everybody"]
    if whole is not None:
        axes.axhline(whole, color="#1A1A1A", linewidth=0.8, linestyle=":")
        axes.annotate(
            "reading everybody", (0.99, whole), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=6
        )
    axes.set_ylim(bottom=0)
    axes.set_ylabel("forecast error (MAPE)")
    axes.set_xlabel("agents of the cohort")
