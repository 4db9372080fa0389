import pytest

from scarce.budget.prices import Node, Prices, parse_prices, read_nodes, types_of
from scarce.errors import UserError

LABEL, HEAD = "ray.io/node-group", {"node:__internal_head__": 1.0}


def entry(address: str = "1", alive: bool = True, labels: dict[str, str] | None = None, **resources: float) -> dict:
    return {"Alive": alive, "NodeManagerAddress": address, "Labels": labels or {}, "Resources": resources}


@pytest.mark.parametrize(
    ("words", "prices"),
    [
        ((), Prices()),
        (("0.71",), Prices({}, 0.71)),
        (("l4-spot=0.34", "head=0.10"), Prices({"l4-spot": 0.34, "head": 0.1})),
        (("0.2", "L4=0.34"), Prices({"L4": 0.34}, 0.2)),
    ],
)
def test_prices_are_read_as_they_are_told(words, prices):
    assert parse_prices(words) == prices
    assert parse_prices(prices.text.split()) == prices


@pytest.mark.parametrize("words", [("cheap",), ("l4=",), ("=3",), ("l4=-1",), ("nan",), ("1", "2"), ("a=1", "a=2")])
def test_what_is_no_price_is_refused_with_an_example(words):
    with pytest.raises(UserError, match=r"--price-per-hour l4-spot=0\.34"):
        parse_prices(words)


def test_a_node_goes_by_its_group_its_place_or_its_gpu():
    assert types_of(entry(labels={LABEL: "l4-spot"}, GPU=1)) == ("l4-spot", "worker")
    assert types_of(entry(**HEAD)) == ("head", "worker")
    assert types_of(entry(**{"accelerator_type:L4": 1.0})) == ("L4", "worker")
    assert types_of(entry(labels={"ray.io/accelerator-type": "L4"}, **HEAD)) == ("head", "L4", "worker")
    assert types_of(entry(CPU=4)) == ("worker",)


def test_living_nodes_get_the_price_of_their_first_named_type():
    nodes = [
        entry("1", CPU=8, **HEAD),
        entry("2", labels={LABEL: "l4-spot"}, CPU=8, GPU=1),
        entry("3", alive=False, labels={LABEL: "l4-spot"}, GPU=1),
        entry("4", CPU=2),
    ]
    prices = parse_prices(["l4-spot=0.34", "head=0.1"])
    expected = [Node("head", "1", 0, 0.1), Node("l4-spot", "2", 1, 0.34), Node("worker", "4", 0, 0.34)]
    assert read_nodes(nodes, prices, "GPU") == expected  # one that is not named costs as much as the dearest
    assert [node.devices for node in read_nodes(nodes, prices, "CPU")] == [8, 8, 2]
    assert [node.usd_per_hour for node in read_nodes(nodes, Prices(), "CPU")] == [None] * 3
