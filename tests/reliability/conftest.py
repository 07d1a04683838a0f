import pytest
import tally
from mmengine.logging import MMLogger


def pytest_terminal_summary(terminalreporter):
    for line in tally.lines():
        terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def _quiet():
    """Thousands of models are built: the log keeps nothing of that."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('ERROR')
    yield
    logger.setLevel(level)
