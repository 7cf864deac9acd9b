"""Each row of the table of HTML in docs/documents.md: what stands there, and how it is written."""

from __future__ import annotations

import pytest

from sakuin.documents.html.file import lay_out

CHOICES = "<option>Norway<option selected>Sweden<option label='Denmark'>DK"
COUNTRIES = "".join(f"<option>Land {n}" for n in range(20))

ROWS = {
    "a title": ("<title>Lease</title><p>Words.", "# Lease\n\nWords."),
    "a title that a heading says": ("<title>Lease</title><h1>Lease</h1>Words.", "# Lease\n\nWords."),
    "struck out": ("Rent <s>900</s> <del>950 </del><strike>999</strike> 1100.", "Rent ~~900 950 999~~ 1100."),
    "struck out by style": (
        "<p style='text-decoration: line-through'>No <b>dogs</b>.</p>Cats.",
        "~~No dogs.~~\n\nCats.",
    ),
    "struck out by a sheet": (
        "<style>/* x */ p{color:red} .c5, #x {text-decoration:line-through}</style>"
        "<span class='a c5'>900</span> 1100",
        "~~900~~ 1100",
    ),
    "struck out on paper only": ("<style>@media print{p{text-decoration:line-through}}</style><p>900", "900"),
    "inserted": ("Rent <del>900</del><ins>1100</ins>.", "Rent ~~900~~1100."),
    "a power": ("10<sup>6</sup> cells, 10<sup>&minus;3</sup>, x<sup>n+1</sup>", "10^6 cells, 10^−3, x^(n+1)"),
    "an index": ("CO<sub>2</sub>, v<sub>max</sub>, 10<sub>2</sub>", "CO2, v_max, 10_2"),
    "a mark of a note": ("in 2019<sup>4</sup>, 2020<sup><a href='#n'>[5]</a></sup>", "in 2019^4, 2020[5]"),
    "an ordinal": ("the 2<sup>nd</sup> day, Halden<sup>®</sup>", "the 2nd day, Halden®"),
    "raised by a length": (
        "10<span style='vertical-align:5px'>6</span>, 10<b style='position:relative;top:-.5em;font-size:80%'>"
        "<i>-3</i></b>, <style>.up{position:relative; bottom:+4px}</style>2<i class=up>8</i>",
        "10^6, 10^-3, 2^8",
    ),
    "moved for its looks": (
        "5<a style='position:relative;top:-1px'>Buy</a> v<i style='vertical-align:2px'>6</i> "
        "10<i style='vertical-align:0px'>6</i> 10<i style='top:-1em'>6</i> "
        "1<i style='vertical-align:5px;font-size:2em'>6</i> 1<i style='vertical-align:-2px'>6</i> "
        "<b style='vertical-align:1px'>10<sup>6</sup> 1<i>2</i></b>",
        "5Buy v6 106 106 16 16 10^6 12",
    ),
    "raised whatever it is moved by": (
        "<style>sup,sub{position:relative;vertical-align:baseline}sup{top:-.5em}sub{bottom:-.25em}</style>"
        "x<sup>n</sup>, v<sub>max</sub>",
        "x^n, v_max",
    ),
    "raised by style": ("10<span style='vertical-align:super;font-size:60%'>6</span>", "10^6"),
    "capitals": ("<span style='text-transform: uppercase'>seller</span>", "SELLER"),
    "boxes": (
        "<input type=checkbox checked> Milk <input type=checkbox> Nuts <input type=radio checked=''> yes",
        "[x] Milk [ ] Nuts [x] yes",
    ),
    "boxes that a page draws": (
        "<span role=checkbox aria-checked=true>Milk</span> <span role=radio aria-checked=false>Nuts</span>",
        "[x] Milk [ ] Nuts",
    ),
    "boxes as letters": ("☐ yes ☒ no", "[ ] yes [x] no"),
    "fields": (
        "Name: <input value='Anna'> Born: <input type=date value=2001-02-03> Mail: <input type=email> "
        "Word: <input type=password value=geheim><input type=hidden value=token>",
        "Name: Anna Born: 2001-02-03 Mail: ____ Word: ****",
    ),
    "buttons": ("Go. <input type=submit value='Send it'> <button>Stop</button>", "Go. [Send it] Stop"),
    "a text field": (
        "Note: <textarea>Two\nlines</textarea> More: <textarea></textarea>",
        "Note: Two\nlines More: ____",
    ),
    "a list to choose from": (
        f"Country: <select>{CHOICES}</select>.",
        "Country: [ ] Norway [x] Sweden [ ] Denmark.",
    ),
    "a list with groups": (
        "<select multiple><optgroup label=North><option selected>Oslo</optgroup><option>Rome</select>",
        "[x] North: Oslo [ ] Rome",
    ),
    "a list nobody chose from": ("<select><option>May<option>June</select>", "[x] May [ ] June"),
    "a list box nobody chose from": (
        "<select size=3><option>May<option>June</select>",
        "[ ] May [ ] June",
    ),
    "a list that opens with what cannot be chosen": (
        "<select size=1><option disabled>Choose"
        "<optgroup disabled><option>May</optgroup><option>June</select>",
        "[ ] Choose [ ] May [x] June",
    ),
    "a long list": (f"<select>{COUNTRIES}</select>", "Land 0"),
    "labels elsewhere": (
        f"<label for=a>Rent</label> <label for=b>Milk</label><p>{'x' * 400}<p><input id=a value=900> "
        "<input id=b type=checkbox checked>",
        f"Rent Milk\n\n{'x' * 400}\n\nRent: 900 [x] Milk",
    ),
    "labels beside": ("<label for=a>Rent:</label> <input id=a value=900>", "Rent: 900"),
    "labels around": ("<label>Rent <input value=900></label>", "Rent 900"),
    "boxes behind their labels": (
        "<label>Eggs <input type=checkbox></label> <label>Nuts<input type=checkbox checked></label>, "
        "<label><b>Yes</b> <input type=radio></label>",
        "[ ] Eggs [x] Nuts, [ ] Yes",
    ),
    "boxes behind labels for them": (
        "<label for=e>Eggs</label> <input id=e type=checkbox> <label for=n>Nuts:</label>"
        "<input id=n type=checkbox checked>Oil",
        "[ ] Eggs [x] Nuts: Oil",
    ),
    "boxes that may be for what is behind them": (
        "Eggs <input type=checkbox> Nuts <label>Oil <input type=checkbox checked> pure</label> "
        "<label for=x>Salt</label> <input type=checkbox id=y> "
        "<label>Fee <input type=checkbox> <input value=3></label>",
        "Eggs [ ] Nuts Oil [x] pure Salt [ ] Fee [ ] 3",
    ),
    "labels that are spoken": ("<input aria-label='Rent' value=900>", "Rent: 900"),
    "fields without blanks": (
        "Milk:<input type=radio id=y checked><label for=y>yes</label>"
        "<input type=radio id=n><label for=n>no</label>",
        "Milk: [x] yes [ ] no",
    ),
    "a form in a table": (
        "<table><tr><td>Rent<td><input value=900><tr><td>Note<td><textarea>a\nb</textarea></table>",
        "| Rent | 900 |\n| --- | --- |\n| Note | a<br>b |",
    ),
    "a legend": ("<fieldset><legend>Fees</legend>Rent</fieldset>", "Fees\n\nRent"),
    "a numbered list": ("<ol start=3><li>a<li value=7>b<li>c</ol>", "3. a\n7. b\n8. c"),
    "letters and roman": (
        "<ol type=a start=3><li>a<li>b</ol><ol type=I><li>x<li>y</ol>",
        "c. a\nd. b\n\nI. x\nII. y",
    ),
    "numbers by style": ("<ol style='list-style-type: lower-roman'><li>a<li>b</ol>", "i. a\nii. b"),
    "counted down": ("<ol reversed><li>a<li>b</ol>", "2. a\n1. b"),
    "lists in lists": ("<ol><li>a<ol type=a><li>b<li>c</ol><li>d</ol>", "1. a\n   a. b\n   b. c\n2. d"),
    "details": ("<details><summary>More</summary>Inside.</details>", "More\n\nInside."),
    "parts of a page": ("<header>Menu</header><main>Text</main><footer>End</footer>", "Menu\n\nText\n\nEnd"),
    "what is short": (
        "<abbr title='Key Value'>KV</abbr> and <abbr title='Key Value'>KV</abbr>",
        "KV (Key Value) and KV",
    ),
    "a quotation": ("<p>He said <q>no</q>.</p><blockquote>Never.</blockquote>", 'He said "no".\n\n> Never.'),
    "cells merged downwards": (
        "<table><tr><th>House<th>Room<tr><td rowspan=2>North<td>Pine<tr><td>Oak</table>",
        "| House | Room |\n| --- | --- |\n| North | Pine |\n| North | Oak |",
    ),
    "cells merged sideways": (
        "<table><tr><th colspan=2>2030<th>Sum<tr><td>1<td>2<td>3<tr><td colspan=3>Part"
        "<tr><td>4<td>5<td>9</table>",
        "| 2030 | 2030 | Sum |\n| --- | --- | --- |\n| 1 | 2 | 3 |\n| Part |  |  |\n| 4 | 5 | 9 |",
    ),
    "cells merged to the end": (
        "<table><tr><td rowspan=0>a<td>b<tr><td>c</table>",
        "| a | b |\n| --- | --- |\n| a | c |",
    ),
    "cells merged further than their part of the table": (
        "<table><thead><tr><th rowspan=9>Area<th>Fee</thead><tbody><tr><td rowspan=3>North<td>1<tr><td>2"
        "</tbody><tbody><tr><td>South<td>9</tbody><tfoot><tr><td>All<td>12</table>",
        "| Area | Fee |\n| --- | --- |\n| North | 1 |\n| North | 2 |\n| South | 9 |\n| All | 12 |",
    ),
    "cells merged to the end of their part of the table": (
        "<table><tbody><tr><td rowspan=0>North<td>1<tr><td>2</tbody><tbody><tr><td>South<td>9</table>",
        "| North | 1 |\n| --- | --- |\n| North | 2 |\n| South | 9 |",
    ),
    "cells merged over a row without cells": (
        "<table><tr><td rowspan=2>North<td>1<tr></tr><tr><td>South<td>9</table>",
        "| North | 1 |\n| --- | --- |\n| South | 9 |",
    ),
    "the title of a table": (
        "<table><caption>Fees</caption><tr><td>a<td>b</table>",
        "Fees\n\n| a | b |\n| --- | --- |",
    ),
    "lines and bars in a cell": (
        "<table><tr><td>a<br>b<td><p>c<p>d|e<td><ul><li>f<li>g</ul></table>",
        "| a<br>b | c<br>d\\|e | - f<br>- g |\n| --- | --- | --- |",
    ),
    "definitions": ("<dl><dt>Fee<dd>What is paid.</dl>", "Fee\n:   What is paid."),
    "code": ("<pre>  a_b\n   c</pre>", "```\n  a_b\n   c\n```"),
    "lines": ("a<br>b", "a\nb"),
    "entities": ("900&nbsp;&euro; &lt;5 &#8211; &frac12; re&shy;read", "900 € <5 – ½ reread"),
    "a fraction": (
        "so <math><mi>x</mi><mo>=</mo><mfrac>"
        "<mrow><mi>a</mi><mo>+</mo><mi>b</mi></mrow><msqrt><mi>c</mi></msqrt></mfrac></math>.",
        "so x = (a + b)/(sqrt(c)).",
    ),
    "a sum": (
        "<math><semantics><mrow><munderover><mo>∑</mo><mrow><mi>i</mi><mo>=</mo><mn>1</mn></mrow><mi>n</mi></munderover>"
        "<msubsup><mi>x</mi><mi>i</mi><mn>2</mn></msubsup></mrow><annotation>\\sum</annotation></semantics></math>",
        "sum_(i = 1)^n x_i^2",
    ),
    "how signs are spoken": ("<ruby>契約<rp>(</rp><rt>けいやく</rt><rp>)</rp></ruby>", "契約(けいやく)"),
    "a picture with words": ("See <img src=a alt='a map'>.", "See [a map]."),
    "a drawing with words": (
        "See <svg><title>Fees</title><text>May</text><style>p{}</style></svg>",
        "See [Fees May]",
    ),
    "how far": ("Done: <progress value=70 max=100></progress>", "Done: 70/100"),
    "links": (
        "See <a href='https://a.no/t'>the terms </a>or <a href='mailto:a@b.no?subject=x'>write</a>, "
        "<a href='annex.pdf'>annex</a>, <a href='tel:+47 22'>call</a>.",
        "See the terms (https://a.no/t) or write (a@b.no?subject=x), annex (annex.pdf), call (tel:+47 22).",
    ),
    "links whose words say where they lead": (
        "<a href='https://a.no/'>a.no</a> <a href='mailto:a@b.no?x=1'>A@b.no</a> "
        "<a href='http://a.no/t'>Terms at www.a.no/t</a>",
        "a.no A@b.no Terms at www.a.no/t",
    ),
    "links that lead nowhere else": (
        "<a href='#a'>a</a> <a href=' java\nscript:b()'>b</a> <a href='DATA:x'>c</a> <a>d</a> "
        "<a href='https://e.no'></a><code><a href='https://f.no'>f</a></code>",
        "a b c d `f`",
    ),
    "a date that the page means": (
        "<time datetime='2031-03-14T20:00Z'>yesterday</time>, <time datetime=2031-03-04>4 March 2031</time>, "
        "<time datetime=2031-03-04>5 March 2031</time>, <time datetime=PT2H>2 hours</time>",
        "yesterday (2031-03-14T20:00Z), 4 March 2031, 5 March 2031 (2031-03-04), 2 hours",
    ),
    "a table of data with tables in a cell": (
        "<table><caption>Fees</caption><thead><tr><th>Kind<th>Fee</thead><tr><td>Boat<td>300 <table><tr>"
        "<th>small<td>120<tr><td>large<td>300</table> net<tr><td>Canoe<td>20</table>",
        "Fees\n\n| Kind | Fee |\n| --- | --- |\n| Boat | 300<br>small, 120; large, 300<br>net |\n"
        "| Canoe | 20 |",
    ),
    "a table of data with a heading in its head": (
        "<table><caption><h3>Fees</h3></caption><tr><th><h4>Kind</h4><th>Fee<tr><td>Boat<td>3</table>",
        "### Fees\n\n| Kind | Fee |\n| --- | --- |\n| Boat | 3 |",
    ),
    "a page in a table with heads": (
        "<table><tr><th>Menu<td><h1>Fees</h1>Words</table>",
        "Menu\n\n# Fees\n\nWords",
    ),
    "tables that lay a page out": (
        "<table><tr><td>Menu<td><table><tr><th>a<th>b<tr><td>1<td>2</table></table>"
        "<table role=presentation><tr><th>c<td><table><tr><td>d</table></table>",
        "Menu\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\nc\n\n| d |\n| --- |",
    ),
    "lowered, then raised": (
        "x<sub>i</sub><sup>2</sup> a<sub>n+1</sub><sup>k</sup> 5<sup>2</sup><sub>a</sub> "
        "x<sup>n</sup><sub>1</sub> 10<sup>n<b>+1</b></sup> SO<sub>4</sub><sup>2−</sup>",
        "x_i^2 a_(n+1)^k 5^2_a x^n_1 10^(n+1) SO4^(2−)",
    ),
    "numbers by style and sheet": (
        "<style>.x{list-style-type:upper-alpha} li.q{list-style:lower-greek}</style><ol style='list-style:"
        "lower-roman inside'><li>a<li>b</ol><p><ul style='list-style-type: lower-alpha'><li>c<li>d</ul>"
        "<p><ol class=x><li>e<li class=q>f</ol><p><ol style='list-style:disc'><li>g</ol><p><ul><li>h</ul>",
        "i. a\nii. b\n\na. c\nb. d\n\nA. e\nβ. f\n\n- g\n\n- h",
    ),
    "what only screens show": ("<p aria-hidden=true>Seen.", "Seen."),
    "what nobody sees": (
        "Seen.<script>a</script><template>b</template><p hidden>c</p><dialog>d</dialog><!-- e -->"
        "<noscript>Else.</noscript>",
        "Seen.Else.",
    ),
}


@pytest.mark.parametrize(("html", "expected"), ROWS.values(), ids=ROWS.keys())
def test_what_stands_on_a_page(html: str, expected: str) -> None:
    assert lay_out(f"<html>{html}", "a.html").text == expected


NOTES = {
    "struck out": (
        "a <s>b</s> c <s>d</s>",
        "a.html has 2 passages struck out, which stand between ~~ and ~~.",
    ),
    "hidden": ("a<p hidden>b<script>c</script></p><p hidden></p>", "not read of a.html: 1 hidden passage."),
    "a long list": (f"a<select>{COUNTRIES}</select>", "not read of a.html: 19 choices of long lists."),
    "elsewhere": ("a<iframe></iframe><object>b</object>", "not read of a.html: 2 embedded pages or films."),
    "pictures": ("a<img src=x><img alt=''>", "not read of a.html: 1 picture."),
}


@pytest.mark.parametrize(("html", "note"), NOTES.values(), ids=NOTES.keys())
def test_what_is_noted_of_a_page(html: str, note: str) -> None:
    assert lay_out(f"<html>{html}", "a.html").notes == (note,)
