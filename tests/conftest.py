"""What all tests share: in continuous integration nothing may be skipped in silence."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# Reasons that continuous integration accepts: what a machine can't be made to have.
_ACCEPTED = ("not this machine's",)


# Rooms whose tests start servers, whatever their own marks say: `make check` leaves them out.
_WITH_SERVERS = ("tests/portal/", "tests/hub/", "tests/backends/test_local", "tests/binder/", "tests/browser/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.nodeid.startswith(_WITH_SERVERS) or "[postgres" in item.nodeid or "postgres]" in item.nodeid:
            item.add_marker(pytest.mark.services)
        if "test_reconcile_machine" in item.nodeid:
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not any(accepted in reason for accepted in _ACCEPTED):
            report.outcome = "failed"
            report.longrepr = f"Skipped, which continuous integration does not allow: {reason}"
