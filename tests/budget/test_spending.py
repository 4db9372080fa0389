import pytest

from scarce.budget.prices import Node
from scarce.budget.spending import SPENDING_NAME, Spending, device_price

HEAD = Node("head", "0", 0.0, 0.1)
SPOT = [Node("l4", str(number), 1.0, 0.36) for number in (1, 2)]


def metered(folder) -> Spending:
    """Two hours of search: one node at first, two after half an hour, of which one is lost an hour later."""
    spending = Spending(folder, "GPU")
    spending.tick("preparation", [HEAD, SPOT[0]], now=100.0)
    spending.tick("preparation", now=1900.0)
    spending.tick("search", [HEAD, *SPOT], {"a": "1", "b": "2"}, 0.25, now=1900.0)
    spending.tick("search", [HEAD, SPOT[0]], {"a": "1"}, 0.25, now=5500.0)
    spending.tick("search", [HEAD, SPOT[0]], {}, 0.25, now=9100.0)
    spending.tick("final", now=9460.0)
    spending.save()
    return spending


def test_nodes_cost_while_they_live_and_trials_their_share_of_their_node(tmp_path):
    spending = metered(tmp_path)
    assert spending.phases["preparation"] == {"seconds": 1800, "device_seconds": 1800, "usd": pytest.approx(0.23)}
    search = {"seconds": 7200, "device_seconds": 3600 * 3, "usd": pytest.approx(0.1 * 2 + 0.36 * 3)}
    assert spending.phases["search"] == search
    assert spending.phases["final"] == {"seconds": 360, "device_seconds": 360, "usd": pytest.approx(0.046)}
    assert spending.usd == pytest.approx(0.23 + 1.28 + 0.046)
    assert spending.nodes["l4"]["usd"] == pytest.approx(0.36 * (0.5 + 3 + 0.1))
    ended = {"seconds": 7200, "device_seconds": 1800, "usd": pytest.approx(0.36 * 0.25 * 2), "status": "running"}
    assert spending.trials["a"] == ended
    assert spending.trials["b"]["usd"] == pytest.approx(0.36 * 0.25)
    assert spending.usd_per_hour == pytest.approx(0.46)
    assert spending.is_priced


def test_a_restart_goes_on_with_the_sums(tmp_path):
    before = metered(tmp_path)
    again = Spending(tmp_path, "GPU")
    assert (again.seconds, again.usd, again.trials) == (before.seconds, before.usd, before.trials)
    again.tick("search", [SPOT[0]], {"a": "1"}, 0.25, now=5.0)  # another process, another clock
    again.tick("search", [SPOT[0]], {}, 0.25, now=3605.0)
    assert again.seconds == before.seconds + 3600
    assert again.trials["a"]["device_seconds"] == 1800 + 900


def test_a_tick_is_on_disk_within_seconds(tmp_path):
    spending = Spending(tmp_path, "CPU")
    for second in range(8):
        spending.tick("search", SPOT, {"a": None}, 1.0, now=float(second))
    assert Spending(tmp_path, "CPU").seconds >= 8 - 1 - 5
    assert (tmp_path / SPENDING_NAME).stat().st_size < 2000


def test_without_an_address_a_device_costs_the_mean(tmp_path):
    nodes = [Node("small", "1", 1.0, 0.3), Node("large", "2", 2.0, 1.2), HEAD]
    assert device_price(nodes, "2") == pytest.approx(0.6)
    assert device_price(nodes, None) == pytest.approx(0.5)
    assert device_price([HEAD], "0") == 0
    unpriced = Spending(tmp_path, "CPU")
    unpriced.tick("search", [Node("head", "1", 2.0, None)], now=0.0)
    unpriced.tick("search", now=3600.0)
    assert not unpriced.is_priced
    assert unpriced.phases["search"] == {"seconds": 3600, "device_seconds": 7200, "usd": 0}
