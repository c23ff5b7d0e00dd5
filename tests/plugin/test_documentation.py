"""The documentation says what the schema says."""

import pathlib

import pytest

from tensorboard_plugin import documentation, metadata

pytestmark = pytest.mark.unit

PAGE = pathlib.Path(__file__).resolve().parents[2] / "docs" / "telemetry.md"


def test_the_page_has_the_tables_of_the_schema():
    text = PAGE.read_text()
    found = text.partition(documentation.BEGIN)[2].partition(documentation.END)[0].strip()
    assert found == documentation.tables(), (
        "paste what `python -m tensorboard_plugin.documentation` prints"
    )


def test_every_column_of_every_tag_is_in_them():
    tables = documentation.tables()
    for tag in metadata.TAGS:
        assert f"`{tag}`" in tables
    for statistic in (*metadata.LAYER_STATISTICS, *metadata.STEP_QUANTITIES):
        assert f"| `{statistic.name}` |" in tables
