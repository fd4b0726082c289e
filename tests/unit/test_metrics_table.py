"""The operator's page has the metrics that the code has."""

from deploy.upkeep.metrics_table import PAGE, put_table_into


def test_the_table_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert put_table_into(page) == page
    assert "| `waxwing_uploads_total` | counter | `outcome` | records |" in page
