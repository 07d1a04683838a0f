import pytest
import tally


def pytest_terminal_summary(terminalreporter):
    for line in tally.lines():
        terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def _quiet(caplog):
    """Thousands of models are built: the log keeps nothing of that."""
    caplog.set_level('ERROR')
