"""The pages as a browser without JavaScript gets them."""

from __future__ import annotations

import pytest

from .conftest import Site

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("path", ["", "new", "experiments", "experiments/xfel%2F700002", "experiments/xfel/700002"])
async def test_page_is_shown(site: Site, path: str) -> None:
    browser = await site.browser()
    answer = await browser.get(path)
    assert answer.status_code == 200, answer.text
    assert "Alice Adams" in answer.text
