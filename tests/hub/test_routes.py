"""The proxy is away while an instance becomes ready: nothing is stopped for it, and its route comes with a round."""

from __future__ import annotations

import pytest

from tests.services.hub import wait_until
from visahub.model.instance import Phase, Want, new_instance_id

from .conftest import Asking, choices

pytestmark = pytest.mark.services


@pytest.mark.timeout(300)
def test_f3_a_start_without_its_proxy_is_kept(asking: Asking) -> None:
    server = new_instance_id()
    asking.token("alice")
    asking.hub.kill_proxy()
    try:
        assert asking.start(server, choices()).status_code in {201, 202}
        wait_until(lambda: asking.row(server).phase is Phase.READY, "it is ready")
        # The Hub tries for half a minute, and then used to stop the instance.
        wait_until(lambda: "cannot be set yet" in asking.hub.log.read_text(), "the Hub gives up", seconds=120)
    finally:
        asking.hub.start_proxy()
    asking.hub.wait_ready("alice", server)
    asking.hub.round()
    assert asking.visit(server)["path"] == f"/user/alice/{server}/api"
    assert (asking.row(server).phase, asking.row(server).want) == (Phase.READY, Want.ON)
