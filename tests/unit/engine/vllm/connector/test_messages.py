"""Orders as requests carry them."""

import pytest

from mooring.engine.vllm.connector.messages import (
    Keep,
    List,
    Malformed,
    Release,
    ReleaseAllBut,
    Stat,
    Use,
    read_order,
)

ID = "0123456789abcdef" * 4
EXTENT = {"tokens": 100, "lease_s": 60}

ORDERS = [
    ({"keep": ID} | EXTENT, Keep(ID, 100, 60.0)),
    ({"use": ID} | EXTENT, Use(ID, 100, 60.0)),
    ({"use": ID, "tokens": 1, "lease_s": 0.5, "later": "ignored"}, Use(ID, 1, 0.5)),
    ({"release": [ID]}, Release((ID,), delete=False)),
    ({"release": [], "delete": True}, Release((), delete=True)),
    ({"release": [ID], "delete": 1}, Release((ID,), delete=False)),
    ({"release_all_but": [ID], "delete": True}, ReleaseAllBut((ID,), delete=True)),
    ({"stat": True}, Stat()),
    ({"list": True}, List()),
]


@pytest.mark.parametrize(("said", "order"), ORDERS)
def test_order_is_read(said, order):
    assert read_order({"mooring": said}) == order


@pytest.mark.parametrize("params", [None, {}, {"do_remote_prefill": True}, {"mooring": None}])
def test_request_without_order_has_none(params):
    assert read_order(params) is None


@pytest.mark.parametrize(
    "said",
    [
        5,
        {},
        {"stat": True, "keep": ID},
        {"keep": ID},
        {"keep": ID, "tokens": 0, "lease_s": 1},
        {"keep": ID, "tokens": True, "lease_s": 1},
        {"keep": ID, "tokens": 1.5, "lease_s": 1},
        {"keep": ID, "tokens": 1, "lease_s": 0},
        {"keep": ID, "tokens": 1, "lease_s": -1},
        {"keep": ID, "tokens": 1, "lease_s": float("nan")},
        {"keep": ID, "tokens": 1, "lease_s": float("inf")},
        {"keep": ID, "tokens": 1, "lease_s": "1"},
        {"keep": "../" * 21 + "x"} | EXTENT,
        {"keep": ID.upper()} | EXTENT,
        {"use": 5} | EXTENT,
        {"release": ID},
        {"release": [ID[:-1]]},
        {"release_all_but": [None]},
    ],
    ids=str,
)
def test_order_that_cannot_be_read_is_malformed(said):
    with pytest.raises(Malformed):
        read_order({"mooring": said})
