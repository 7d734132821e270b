"""Elements and drawings of a page: what comes from outside is text, and names meet no others."""

import re

from eval.report.charts import draw_curve
from eval.report.markup import element
from eval.report.svg import style, svg_of


def test_elements_escape_all_but_markup() -> None:
    assert element("p", "<b>", element("b", "&"), None, title='"') == '<p title="&quot;">&lt;b&gt;<b>&amp;</b></p>'
    assert element("img", src="data:,", alt=None, hidden=True) == '<img src="data:," hidden>'
    assert element("p", "\ud800") == "<p>?</p>"


def test_an_svg_keeps_its_names_to_itself() -> None:
    with style():
        figure = draw_curve([1, 2], {"a<b & c": [2, 1]})
        svg = svg_of(figure, "chart-1", "a<b")
    assert "<title>a&lt;b</title>" in svg
    assert "a&lt;b &amp; c" in svg
    assert "<style" not in svg
    assert "metadata" not in svg
    assert all(name.startswith("chart-1-") for name in re.findall(r'\bid="([^"]+)"', svg))
