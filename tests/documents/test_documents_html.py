"""HTML: what a reader of the page sees, in its order; encodings as the web has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from sakuin.documents import Document, read
from sakuin.errors import SakuinError

JAPANESE = "<h1>契約</h1><p>契約は三月に終了する。これは日本語の文書で、カタカナも使う。①</p>"


def page(tmp_path: Path, html: str | bytes, encoding: str | None = None) -> Document:
    path = tmp_path / "page.html"
    path.write_bytes(html.encode() if isinstance(html, str) else html)
    return read(path, encoding)


def test_ligatures_are_letters_and_headings_stay_where_they_are(tmp_path: Path) -> None:
    got = page(tmp_path, "<h1>ﬁre</h1><p>ﬂat o\ufb03ce, \ufb00 \ufb04 \ufb05 \ufb06<h2>A oﬀer</h2>")
    assert got.text == "# fire\n\nflat office, ff ffl st st\n\n## A offer"
    assert [(mark.start, mark.heading) for mark in got.marks] == [(0, "fire"), (35, "A offer")]


def test_a_page_keeps_its_headings_lists_tables_and_code(tmp_path: Path) -> None:
    got = page(
        tmp_path,
        "<html><head><title>T</title></head><body><h1>Rules <em>of</em> use</h1><p>One <b>bold</b>word&nbsp;"
        "and a <a href='x'>link</a>.<h2>Fees</h2><table><tr><th>Item<th>Price<tr><td>Rent<td>900</table>"
        "<ol start=3><li>one<li>two</ol><pre>  a_b\n    *c*</pre></body></html>",
    )
    assert got.text == (
        "# T\n\n# Rules of use\n\nOne boldword and a link (x).\n\n## Fees\n\n"
        "| Item | Price |\n| --- | --- |\n"
        "| Rent | 900 |\n\n3. one\n4. two\n\n```\n  a_b\n    *c*\n```"
    )
    assert [(mark.heading, got.text[mark.start :][:4]) for mark in got.marks] == [
        ("T", "# T\n"),
        ("Rules of use", "# Ru"),
        ("Fees", "## F"),
    ]
    assert got.mark(got.text.index("900")).heading == "Fees"


def test_what_nobody_sees_is_not_read(tmp_path: Path) -> None:
    got = page(
        tmp_path,
        "<!doctype html><style>p{}</style><script>let secret</script><!-- secret -->"
        "<template>secret</template>"
        "<p hidden>secret<b>secret</b></p><div style='DISPLAY :none'>secret<p hidden>secret</div>"
        "<p style='visibility:hidden'>secret</p><p>Seen.</p><noscript>Fallback.</noscript>",
    )
    assert got.text == "Seen.\n\nFallback."


def test_a_table_that_lays_out_a_page_is_read_in_order(tmp_path: Path) -> None:
    got = page(
        tmp_path,
        "<table><tr><td>Menu</td><td><h1>News</h1><p>First.</p><p>Second.</p>"
        "<table><tr><th>a<th>b<tr><td>1<td>2</table></td></tr></table>",
    )
    assert got.text == "Menu\n\n# News\n\nFirst.\n\nSecond.\n\n| a | b |\n| --- | --- |\n| 1 | 2 |"
    assert got.mark(got.text.index("Second")).heading == "News"


def test_pictures_leave_their_words_and_are_counted(tmp_path: Path) -> None:
    got = page(
        tmp_path,
        "<p>See <img src=a alt='a chart of fees'> <img src=b> <img src=c alt=''></p><iframe></iframe>",
    )
    assert "[a chart of fees]" in got.text
    assert got.notes == (f"not read of {tmp_path / 'page.html'}: 2 pictures and 1 embedded page or film.",)


@pytest.mark.parametrize("declared", ["shift_jis", "Shift_JIS", "x-sjis", "windows-31j", "cp932"])
def test_shift_jis_is_read_as_the_web_means_it(tmp_path: Path, declared: str) -> None:
    html = f'<html><head><meta charset="{declared}"></head>{JAPANESE}</html>'
    assert "三月に終了する。" in page(tmp_path, html.encode("cp932"), "auto").text
    if declared != "x-sjis":  # a name that Python does not know: guessed with "auto", else refused
        got = page(tmp_path, html.encode("cp932"))
        assert got.text.startswith("# 契約\n\n")
        assert "①" in got.text
        assert got.notes == ()


@pytest.mark.parametrize("encoding", ["euc_jp", "iso2022_jp", "utf-16", "utf-8-sig"])
def test_other_encodings_that_a_page_declares(tmp_path: Path, encoding: str) -> None:
    html = (
        f'<meta http-equiv="Content-Type" content="text/html; charset={encoding}">{JAPANESE.replace("①", "")}'
    )
    assert "三月に終了する。" in page(tmp_path, html.encode(encoding)).text


def test_a_wrong_declaration_is_found_out(tmp_path: Path) -> None:
    html = f'<html><meta charset="%s">{JAPANESE}</html>'
    got = page(tmp_path, html % "iso-8859-1")
    assert "三月に終了する。" in got.text
    assert "is UTF-8, as which it was read" in got.notes[0]
    with pytest.raises(SakuinError, match=r"declares utf-8 .* it looks like cp932: pass --encoding cp932"):
        page(tmp_path, (html % "utf-8").encode("cp932"))
    assert "三月に終了する。" in page(tmp_path, (html % "utf-8").encode("cp932"), "cp932").text
    got = page(tmp_path, (html % "utf-8").encode("cp932"), "auto")
    assert "三月に終了する。" in got.text
    assert "cp932, which is a guess" in got.notes[0]


def test_a_page_without_words_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SakuinError, match="has no text that can be seen; if scripts write it"):
        page(tmp_path, "<html><body><div id=app></div><script>render('words')</script></body></html>")


def test_elements_nested_without_end_cost_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SakuinError, match="too deeply"):
        page(tmp_path, "<html>" + "<div>" * 20_000 + "deep")


def test_private_signs_in_a_page_do_not_become_headings(tmp_path: Path) -> None:
    got = page(tmp_path, "<p>a\ue000b\ue001c</p><h2>Real</h2>")
    assert [mark.heading for mark in got.marks] == ["Real"]
    assert got.text.startswith("abc")
