"""Tables as text and as HTML. Host-side, so no backend."""

from xpnet.tables import Table

TABLE = Table(
    ("name", "count"), [("a", "1"), ("a longer line that spans all columns",), ("long name", "1,000")], "count"
)


def test_columns_are_aligned():
    assert str(TABLE) == (
        "name       count\n----------------\na              1\na longer line that spans all columns\nlong name  1,000"
    )


def test_html_escapes_every_cell():
    html = Table(("<script>", "b & c"), [("<i>", '"'), ("<b>",)])._repr_html_()

    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "&lt;b&gt;" in html
    assert 'colspan="2"' in html
