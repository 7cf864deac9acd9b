"""What the page's modules do, run in the browser: streams cut anywhere, offsets, blocks of a long text."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from console_page import Opened, Served, chosen
from playwright.sync_api import Page, expect

STREAM = (
    "\ufeff: prefill 128/1024\n\n"
    'data: {"text": "索引は🔎である"}\r\n\r\n'
    "event: note\rdata: one\rdata: two\r\r"
    ":\n: alive\n\n"
    "id: 7\nretry: 10\nnonsense\ndata\n\n"
    "data:[DONE]\n\n"
    "data: never ended"
)
EVENTS = [
    {"comment": "prefill 128/1024"},
    {"name": "message", "data": '{"text": "索引は🔎である"}'},
    {"name": "note", "data": "one\ntwo"},
    {"comment": ""},
    {"comment": "alive"},
    {"name": "message", "data": ""},
    {"name": "message", "data": "[DONE]"},
]


@pytest.fixture
def page(keyed: Served, opened: Opened) -> Page:
    """A page from which the modules can be loaded."""
    return opened(keyed)


def _parsed(page: Page, pieces: list[bytes]) -> list[Any]:
    found: list[Any] = page.evaluate(
        """async (pieces) => {
          const { Parser } = await import("/console/sse.js");
          const parser = new Parser();
          return pieces.flatMap((piece) => parser.push(new Uint8Array(piece)));
        }""",
        [list(piece) for piece in pieces],
    )
    return found


def test_a_stream_is_the_same_wherever_it_is_cut(page: Page) -> None:
    data = STREAM.encode()
    assert _parsed(page, [data]) == EVENTS
    assert _parsed(page, [data[at : at + 1] for at in range(len(data))]) == EVENTS
    found = page.evaluate(
        """async ([data, wanted]) => {
          const { Parser } = await import("/console/sse.js");
          const wrong = [];
          for (let cut = 0; cut <= data.length; cut += 1) {
            const parser = new Parser();
            const pieces = [data.slice(0, cut), [], data.slice(cut)];
            const seen = pieces.flatMap((piece) => parser.push(new Uint8Array(piece)));
            if (JSON.stringify(seen) !== JSON.stringify(wanted)) wrong.push(cut);
          }
          return wrong;
        }""",
        [list(data), _parsed(page, [data])],
    )
    assert found == []


@pytest.mark.parametrize(
    "text", ["", "plain", "🚢", "a🚢b🍵c", "日本語🗾です", "x" * 3000 + "🚢" * 3000 + "y", "\ud83d a"]
)
def test_offsets_are_those_of_python(page: Page, text: str) -> None:
    points = sorted({0, 1, 2, 3, 1023, 1024, 1025, 2999, 3000, 3001, 5999, 6000, 6001, 9999})
    # The text goes as JSON, as the server sends it: a lone surrogate is one character on both sides.
    found = page.evaluate(
        """async ([text, points]) => {
          const { Offsets } = await import("/console/offsets.js");
          const offsets = new Offsets(JSON.parse(text));
          return points.map((point) => offsets.at(point));
        }""",
        [json.dumps(text), points],
    )
    assert found == [len(text[:point].encode("utf-16-le", "surrogatepass")) // 2 for point in points]


def test_blocks_hold_each_character_once_and_cut_no_pair(page: Page) -> None:
    text = "A line.\r\n" * 700 + "🚢" * 9000 + "\n" + "word " * 5000 + "\nend"
    marks = [
        {"start": 0, "page": 1},
        {"start": 20, "page": 1},
        {"start": 4500, "page": 2},
        {"start": len(text), "page": 9},
    ]
    blocks = page.evaluate(
        """async ([text, marks]) => {
          const { cut } = await import("/console/blocks.js");
          return cut(text, marks).map((block) => ({ ...block, text: text.slice(block.start, block.end) }));
        }""",
        [text, marks],
    )
    assert "".join(block["text"] for block in blocks) == text
    assert all(block["end"] - block["start"] <= 12_000 for block in blocks)
    starts = {block["start"]: block["page"] for block in blocks if block["page"] is not None}
    units = len(text.encode("utf-16-le")) // 2
    assert starts == {0: 1, 4500: 2, len(text): 9} or starts == {0: 1, 4500: 2, units: 9}


def test_passages_of_a_block_do_not_hide_each_other(page: Page) -> None:
    passages = [
        {"start": 4, "end": 8},
        {"start": 2, "end": 6},
        {"start": 90, "end": 120},
        {"start": 0, "end": 0},
    ]
    pieces = page.evaluate(
        """async (passages) => {
          const { pieces } = await import("/console/blocks.js");
          return pieces({ start: 0, end: 100 }, passages);
        }""",
        passages,
    )
    assert [(one["start"], one["end"], one["passage"]) for one in pieces] == [
        (0, 2, None),
        (2, 4, 1),
        (4, 8, 0),
        (8, 90, None),
        (90, 100, 2),
    ]


@pytest.mark.parametrize(
    ("values", "limits", "binary", "wanted"),
    [
        ([], None, False, [0, 1]),
        ([0, 0], None, False, [0, 1]),
        ([31, 29], None, False, [0, 50]),
        ([180], None, False, [0, 200]),
        ([0.021], None, False, [0, 0.025]),
        ([0.97], [0, 1], False, [0, 1]),
        ([1.3 * 2**30], None, True, [0, 1.5 * 2**30]),
        ([1.7 * 2**30], None, True, [0, 2.0 * 2**30]),
    ],
)
def test_axes_end_at_round_numbers(
    page: Page, values: list[float], limits: list[int] | None, binary: bool, wanted: list[float]
) -> None:
    found = page.evaluate(
        "async (given) => (await import('/console/charts.js')).reach(...given)",
        [values, limits, binary],
    )
    assert found == pytest.approx(wanted)


def test_gaps_in_a_series_are_no_lines(page: Page) -> None:
    lines = page.evaluate(
        """async () => {
          const { chart } = await import("/console/charts.js");
          const series = [1, 2, null, null, 3, null, 4, 5];
          const made = chart({ series, title: "", said: "", now: "", ends: () => ["", ""] });
          const points = (line) => line.getAttribute("points").split(" ").length;
          return [...made.querySelectorAll(".line")].map(points);
        }"""
    )
    assert lines == [2, 2, 2]  # the value alone is a line of two equal points, a dot


LONG = "".join(f"Line {i}: the pilot boat 🚢 leaves the north quay at {i % 24}:15.\n" for i in range(34_000))


def test_two_megabytes_are_shown_and_a_passage_in_them_is_found(served: Served, opened: Opened) -> None:
    """No model reads so much within a test, so a short context is shown with a long text in its place."""
    served.add("notes", ("notes.md", b"The pilot boat leaves the north quay at 6:15."))
    page = opened(served)
    text = {
        "documents": [{"name": "notes.md", "text": LONG, "marks": [{"start": 0}], "notes": [], "offset": 0}]
    }
    body = json.dumps(text, ensure_ascii=False)
    assert len(body.encode()) > 2_000_000
    page.evaluate(
        """() => {
          window.laidOut = new Set();
          addEventListener("contentvisibilityautostatechange", ({ target, skipped }) =>
            skipped ? window.laidOut.delete(target) : window.laidOut.add(target), true);
        }"""
    )
    page.route("**/text", lambda route: route.fulfill(body=body, content_type="application/json"))
    began = time.monotonic()
    chosen(page, "notes")
    loaded = time.monotonic() - began
    passage = "Line 33000: the pilot boat 🚢 leaves the north quay at 0:15."
    start = LONG.index(passage)
    evidence = {"document": "notes.md", "text": passage, "start": start, "end": start + len(passage)}
    longest = page.evaluate(
        """async (evidence) => {
          const { showPassages } = await import("/console/document.js");
          const picture = () => new Promise((resolve) => requestAnimationFrame(resolve));
          const times = [await picture()];
          if (!showPassages([evidence])) throw new Error("not found");
          while (times.length < 30) times.push(await picture());
          return Math.max(...times.slice(1).map((time, at) => time - times[at]));
        }""",
        evidence,
    )
    print(f"shown after {loaded:.2f} s; the longest picture took {longest:.0f} ms")
    expect(page.locator("mark.now")).to_have_text(passage)
    expect(page.locator("mark.now")).to_be_in_viewport()
    page.locator("#document-text").evaluate("region => { region.scrollTop = region.scrollHeight; }")
    expect(page.locator("#document-text .block").last).to_be_in_viewport()
    assert page.locator("#document-text .block").count() > 500
    assert 0 < page.evaluate("window.laidOut.size") < 50  # the others are not laid out
