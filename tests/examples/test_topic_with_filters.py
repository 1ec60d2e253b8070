"""The example of a topic, against a gateway in the same process."""

from __future__ import annotations

import pytest

from examples import topic_with_filters
from tests.api.fake_client import gateway


async def test_each_consumer_gets_what_it_wants_and_the_shop_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    async with gateway() as node:
        await topic_with_filters.main(f"http://127.0.0.1:{node.port}")
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(" would not get an inquiry: ")[0] for line in said[:3]] == [
        "shop-invoices",
        "shop-sales",
        "shop-shipping",
    ]
    assert said[3:] == [
        "order orders.de of 150 went to shop-invoices, shop-sales, shop-shipping",
        "order orders.fr.express of 20 went to shop-invoices",
        "refund orders.de of 120 went to shop-invoices, shop-sales",
        "inquiry letters.de.berlin of 0 went to nobody",
        "shop-invoices took [150, 20, 120]",
        "shop-sales took [150, 120]",
        "shop-shipping took [150]",
    ]
