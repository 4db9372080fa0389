from pathlib import Path

from scarce.budget.limits import Budget
from scarce.budget.prices import Node, Prices
from scarce.budget.spending import Spending
from scarce.report.cost import cost_line, cost_markdown, cost_summary
from scarce.study.expected_improvement import Improvement
from scarce.study.outlook import Outlook

OUTLOOK = Outlook(14, 1.0, 0.9, 0.85, "GPU", 12, Improvement(0.004, 0.0, 0.013))
NEXT = (
    "The next hour (about 14 trials) is expected to raise the validation AUC by 0.004 (90% interval 0.000 to 0.013) "
    "and to cost $0.85."
)


def spent(folder: Path, price: float | None) -> Spending:
    """An hour of preparation, ten of search with eight trial-hours of a whole GPU, and two of the end."""
    spending = Spending(folder, "GPU")
    nodes = [Node("head", "0", 0.0, price), Node("l4", "1", 1.0, price)]
    spending.tick("preparation", nodes, now=0.0)
    spending.tick("preparation", nodes, {"a": "1"}, 1.0, now=3600.0)
    spending.tick("search", nodes, {}, 1.0, now=9 * 3600.0)
    spending.tick("search", now=11 * 3600.0)
    spending.tick("final", now=13 * 3600.0)
    return spending


def test_every_device_hour_and_dollar_is_told(tmp_path: Path):
    cost = cost_summary(spent(tmp_path, 0.5), Budget(usd=20), Prices({}, 0.5), OUTLOOK)
    assert (cost["hours"], cost["device_hours"], cost["usd"]) == (13, 13, 13)
    assert [phase["usd"] for phase in cost["phases"].values()] == [1, 10, 2]
    assert cost["trials"] == {"device_hours": 8, "usd": 4}
    assert round(cost["idle_share"], 6) == 0.2
    assert cost["budget"] == {"hours": None, "usd": 20}
    text = cost_markdown(cost)
    for words in (
        "| GPU-hours | dollars |",
        "| **all**                  | 13    | 13        | 13.00   |",
        "left 20% of its GPU-hours idle",
        "13 hours of l4 at $0.5",
        "Prices are those of `--price-per-hour 0.5`.",
        NEXT,
    ):
        assert words in text
    assert cost_line(cost) == f"Cost: 13 hours, 13 GPU-hours, $13.00 (budget: $20). {NEXT}"


def test_without_a_price_no_dollars_are_made_up(tmp_path: Path):
    cost = cost_summary(spent(tmp_path, None), Budget(), Prices(), OUTLOOK)
    assert cost["usd"] is None
    assert cost["trials"]["usd"] is None
    assert "No price: give --price-per-hour." in cost_markdown(cost)
    assert cost_line(cost).startswith("Cost: 13 hours, 13 GPU-hours. The next")
