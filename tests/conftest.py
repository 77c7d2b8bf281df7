from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser):
    parser.addoption(
        "--data",
        default=str(ROOT / "data"),
        metavar="DIR",
        help="folder with the open data sets that some tests read (default: data/ in the checkout)",
    )


@pytest.fixture(scope="session")
def data_dir(request) -> Path:
    """The folder of open data sets; a test that asks for it is skipped in words without it."""
    folder = Path(request.config.getoption("--data"))
    if not folder.is_dir():
        pytest.skip("no data folder: pass --data=DIR to run the tests on open data sets")
    return folder.resolve()
