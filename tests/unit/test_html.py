"""What the HTML pages share: pictures that fit into them."""

from __future__ import annotations

from dictalake.html import BLUE, drawing, to_svg


def draw(label: str) -> str:
    with drawing(2, 1) as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=BLUE)
        axes.set_title("a < b")
        return to_svg(figure, label)


def test_a_picture_is_text_and_says_what_it_shows() -> None:
    svg = draw('<b> & "c"')
    assert svg.startswith('<svg role="img" aria-label="&lt;b&gt; &amp; &#34;c&#34;" ')
    assert ">a &lt; b</text>" in svg
    assert "<?xml" not in svg


def test_a_picture_takes_the_colours_of_the_page() -> None:
    svg = draw("line")
    assert "stroke: var(--blue)" in svg
    assert "fill: var(--ink)" in svg
    assert "#0" not in svg


def test_the_same_picture_is_drawn_the_same_and_two_share_no_names() -> None:
    assert draw("one") == draw("one")
    names = [{part.split('"')[0] for part in draw(label).split('id="')[1:]} for label in ("one", "two")]
    assert all(names)
    assert names[0].isdisjoint(names[1])
