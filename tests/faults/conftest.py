"""What the tests of faults share: a sweep that nothing disturbs, and the count at the end."""

import harness
import pytest


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory) -> harness.Undisturbed:
    base = tmp_path_factory.getbasetemp()
    # Several test processes have one directory each, in one that they share.
    return harness.undisturbed(base.parent if base.name.startswith("popen-") else base)


@pytest.fixture
def fault(request, undisturbed, tmp_path, record_property) -> harness.Fault:
    """A fault whose seed is the test's, in a store of its own."""
    seed = request.node.callspec.params["seed"]
    kind = "-".join([request.node.originalname, *map(str, _others(request.node.callspec.params))])
    return harness.Fault(undisturbed, tmp_path / kind, seed, record_property)


def _others(params):
    return [value for name, value in params.items() if name != "seed"]


def pytest_terminal_summary(terminalreporter):
    said = [
        (report, dict(report.user_properties))
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if report.when == "call" and "fault" in dict(report.user_properties)
    ]
    if said:
        terminalreporter.section("faults")
        for report, told in said:
            terminalreporter.line(f"{report.nodeid.partition('::')[2]}: {told['fault']}")
        recovered = sum(report.passed and "recovered" in told for report, told in said)
        terminalreporter.line(f"{len(said)} faults, {recovered} recoveries")
