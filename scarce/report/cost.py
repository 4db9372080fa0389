"""What a run cost, for summary.json, summary.md and the last lines on the screen."""

from collections.abc import Mapping
from typing import Any

from scarce.budget.limits import Budget
from scarce.budget.prices import FLAG, Prices
from scarce.budget.spending import HOUR, PHASES, Spending
from scarce.report.tables import Rows, markdown_table
from scarce.study.outlook import Outlook


def cost_summary(spending: Spending, budget: Budget, prices: Prices, outlook: Outlook) -> dict[str, Any]:
    """The `cost` of summary.json: hours, device-hours and dollars, None where a node has no price."""
    phases = {
        name: {
            "hours": spending.phases[name]["seconds"] / HOUR,
            "device_hours": spending.phases[name]["device_seconds"] / HOUR,
            "usd": spending.phases[name]["usd"] if spending.is_priced else None,
        }
        for name in PHASES
    }
    trials = {
        "device_hours": sum(trial["device_seconds"] for trial in spending.trials.values()) / HOUR,
        "usd": sum(trial["usd"] for trial in spending.trials.values()) if spending.is_priced else None,
    }
    searched = phases["search"]["device_hours"] or 0.0
    return {
        "unit": spending.unit,
        "hours": spending.seconds / HOUR,
        "device_hours": sum(phase["device_hours"] or 0.0 for phase in phases.values()),
        "usd": spending.usd if spending.is_priced else None,
        "phases": phases,
        "trials": trials,
        "idle_share": 1 - trials["device_hours"] / searched if searched else 0.0,
        "nodes": {
            name: {"hours": node["seconds"] / HOUR, "usd_per_hour": node["usd_per_hour"], "usd": node["usd"]}
            for name, node in spending.nodes.items()
        },
        "price_source": f"{FLAG} {prices.text}" if prices.text else "",
        "budget": {"hours": budget.hours or None, "usd": budget.usd or None},
        "next_hour": outlook.to_json(),
    }


def cost_markdown(cost: Mapping[str, Any]) -> str:
    """The cost as a table and sentences."""
    unit = cost["unit"]
    nodes = ", ".join(
        f"{node['hours']:.3g} hours of {name}"
        + (f" at ${node['usd_per_hour']:g}" if node["usd_per_hour"] is not None else " (no price)")
        for name, node in cost["nodes"].items()
    )
    source = f"Prices are those of `{cost['price_source']}`." if cost["price_source"] else f"No price: give {FLAG}."
    return "\n\n".join(
        [
            markdown_table(*cost_rows(cost)),
            f"The search left {100 * cost['idle_share']:.0f}% of its {unit}-hours idle. Nodes: {nodes}. {source}",
            cost["next_hour"]["sentence"],
        ]
    )


def cost_rows(cost: Mapping[str, Any]) -> Rows:
    """Header and rows of the cost's table: its phases, what trials took of the search, and all."""
    rows = [_row(name, phase) for name, phase in cost["phases"].items()]
    rows += [_row("of the search, in trials", {"hours": None, **cost["trials"]}), _row("**all**", cost)]
    return ["", "hours", f"{cost['unit']}-hours", "dollars"], rows


def cost_line(cost: Mapping[str, Any]) -> str:
    """One line for the screen, and what the next hour would bring."""
    dollars = f", ${cost['usd']:.2f}" if cost["usd"] is not None else ""
    budget = [
        text
        for text, limit in (("{:g} hours", cost["budget"]["hours"]), ("${:g}", cost["budget"]["usd"]))
        if limit is not None
        for text in [text.format(limit)]
    ]
    within = f" (budget: {', '.join(budget)})" if budget else ""
    return (
        f"Cost: {cost['hours']:.3g} hours, {cost['device_hours']:.3g} {cost['unit']}-hours{dollars}{within}. "
        f"{cost['next_hour']['sentence']}"
    )


def _row(name: str, amounts: Mapping[str, Any]) -> list[str]:
    hours, usd = amounts["hours"], amounts["usd"]
    return [
        name,
        "" if hours is None else f"{hours:.3g}",
        f"{amounts['device_hours']:.3g}",
        "" if usd is None else f"{usd:.2f}",
    ]
