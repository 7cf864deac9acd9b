"""What people do in the console, from a dropped file to the passage that an answer came from."""

from __future__ import annotations

import json
import re

import httpx
import pytest
from console_page import Opened, Served, asked, chosen, two_pages
from playwright.sync_api import Page, expect

NOTES = (
    "# Harbour notes\n\n"
    + "The pilots meet each morning at the north quay. 🚢 They drink tea. 🍵\n\n" * 5
    + "## Codes 🔑\n\nThe door code of the pilot house is 4519.\n\n"
    + "The crane was painted in spring, and nobody has complained since. 😀\n" * 5
)
QUESTION = "What is the door code of the pilot house?"

DROP = """([name, text]) => {
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([text], name, { type: "text/markdown" }));
  for (const kind of ["dragenter", "dragover", "drop"])
    document.body.dispatchEvent(new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true }));
}"""


def _said(page: Page) -> str:
    """What a screen reader was told."""
    return page.locator("#announcer").inner_text()


def _marked(page: Page) -> str:
    """The passage that is looked at, as the document has it."""
    return "".join(page.locator("#document-text mark.now").all_text_contents())


def test_a_dropped_file_is_read_asked_and_its_passage_shown(served: Served, opened: Opened) -> None:
    page = opened(served)
    expect(page.locator("#conversation")).to_contain_text("Ask long documents")
    page.evaluate(DROP, ["Harbour notes.md", NOTES])
    expect(page.get_by_role("dialog", name="Add documents")).to_be_visible()
    expect(page.get_by_label("Name", exact=True)).to_have_value("Harbour-notes")
    page.keyboard.press("Enter")

    expect(page.locator("#ask-title")).to_have_text("Harbour-notes")
    expect(page.locator("progress").first).to_be_visible()
    expect(page.get_by_role("textbox")).to_be_visible()
    expect(page.locator("#announcer")).to_contain_text("Harbour-notes has been read and can be asked.")
    expect(page.locator("#document-text")).to_contain_text("The door code of the pilot house is 4519.")

    asked(page, QUESTION)
    expect(page.locator(".answer-text")).to_contain_text("4519")
    expect(page.locator("#announcer")).to_contain_text("The answer is there.")
    sources = page.locator("button.source")
    assert sources.count() >= 1
    # Its offsets count characters; the emoji before it would put units of UTF-16 elsewhere.
    assert "The door code of the pilot house is 4519." in _marked(page)
    expect(page.locator("#document-text mark.now").first).to_be_in_viewport()
    expect(page.locator("#document-place")).to_contain_text("Codes 🔑")
    expect(sources.first).to_contain_text("Harbour notes.md · Codes 🔑")
    expect(page.locator(".support")).to_contain_text(re.compile(r"Support \d+%"))


def test_a_chosen_pdf_names_page_and_heading(served: Served, opened: Opened) -> None:
    page = opened(served)
    page.get_by_role("button", name="Add documents").first.click()
    page.set_input_files(
        "#files", [{"name": "rules.pdf", "mimeType": "application/pdf", "buffer": two_pages()}]
    )
    page.locator("#add-submit").click()
    page.get_by_role("textbox").wait_for()
    expect(page.locator("#document-text .page")).to_have_text(["Page 1", "Page 2"])
    expect(page.locator("#document-place")).to_have_text("page 1 · 1. Times")
    asked(page, QUESTION)
    page.locator("button.source", has_text="4519").first.click()
    assert "4519" in _marked(page)
    expect(page.locator("#document-place")).to_have_text("page 2 · 2. Codes")
    expect(page.locator("button.source", has_text="4519").first).to_contain_text(
        "rules.pdf · page 2 · 2. Codes"
    )
    assert "page 2 · 2. Codes" in _said(page)


def test_a_text_is_pasted_and_more_is_added(served: Served, opened: Opened) -> None:
    page = opened(served)
    page.get_by_role("button", name="Add documents").first.click()
    page.locator("#add-submit").click()
    expect(page.get_by_role("alert")).to_have_text("Choose a file or paste a text first.")
    page.get_by_text("Or paste a text", exact=True).click()
    page.get_by_label("Text", exact=True).fill("The ferry leaves at 7:40.")
    page.get_by_label("Name", exact=True).fill("ferries")
    page.get_by_label("Keep it when space runs short").check()
    page.locator("#add-submit").click()
    expect(page.get_by_role("button", name="No longer keep when space runs short")).to_be_visible()
    expect(page.locator("#document-text")).to_contain_text("The ferry leaves at 7:40.")

    page.get_by_role("button", name="Add to this context").click()
    expect(page.get_by_role("dialog", name="Add to ferries")).to_be_visible()
    expect(page.get_by_label("Name", exact=True)).to_be_hidden()
    page.set_input_files("#files", [{"name": "b.txt", "mimeType": "text/plain", "buffer": b"It is blue."}])
    page.locator("#add-submit").click()
    expect(page.locator("#ask-meta")).to_contain_text("2 documents")
    page.get_by_label("Document to show").select_option("b.txt")
    expect(page.locator("#document-text")).to_have_text("It is blue.")
    with served.client() as client:
        one = client.get("/v1/contexts/ferries").json()
    assert [document["name"] for document in one["documents"]] == ["pasted text.txt", "b.txt"]
    assert one["pinned"] is True

    page.get_by_role("button", name="No longer keep when space runs short").click()
    expect(page.get_by_role("button", name="Keep when space runs short")).to_be_visible()
    with served.client() as client:
        assert client.get("/v1/contexts/ferries").json()["pinned"] is False


def test_a_name_that_is_taken_can_be_changed_and_the_files_are_still_there(
    keyed: Served, opened: Opened
) -> None:
    keyed.add("report", ("report.txt", b"One report."))
    page = opened(keyed)
    page.get_by_label("Key", exact=True).fill(keyed.key or "")
    page.keyboard.press("Enter")
    page.locator("button.context").wait_for()
    page.get_by_role("button", name="Add documents").click()
    page.set_input_files("#files", [{"name": "report.txt", "mimeType": "text/plain", "buffer": b"Another."}])
    expect(page.get_by_label("Name", exact=True)).to_have_value("report-2")
    page.get_by_label("Name", exact=True).fill("report")
    page.locator("#add-submit").click()
    expect(page.locator("#add-wrong")).to_have_text(
        "There is a context of this name already. Choose another name."
    )
    expect(page.get_by_label("Name", exact=True)).to_be_focused()
    page.get_by_label("Name", exact=True).fill("no/path")
    page.keyboard.press("Enter")
    expect(page.locator("#add-wrong")).to_contain_text("cannot be named 'no/path'")
    page.get_by_label("Name", exact=True).fill("another")
    page.keyboard.press("Enter")
    expect(page.locator("#ask-title")).to_have_text("another")
    expect(page.locator("#document-text")).to_have_text("Another.")


def test_a_context_is_deleted_when_that_was_confirmed(served: Served, opened: Opened) -> None:
    served.add("one", ("one.txt", b"Of one."))
    served.add("two", ("two.txt", b"Of two."))
    page = opened(served)
    chosen(page, "one")
    page.get_by_role("button", name="Delete this context").click()
    dialog = page.get_by_role("dialog", name="Delete one?")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(page.locator("button.context")).to_have_count(2)
    page.get_by_role("button", name="Delete this context").click()
    dialog.get_by_role("button", name="Delete").click()
    expect(page.locator("button.context")).to_have_count(1)
    expect(page.locator("button.context")).to_be_focused()
    expect(page.locator("#announcer")).to_contain_text("one has been deleted.")
    expect(page.locator("#document-text")).not_to_contain_text("Of one.")
    with served.client() as client:
        assert [one["id"] for one in client.get("/v1/contexts").json()["data"]] == ["two"]


def test_the_history_is_there_again_for_its_context_until_it_is_cleared(
    served: Served, opened: Opened
) -> None:
    served.add("notes", ("notes.md", NOTES.encode()))
    served.add("other", ("other.md", b"Nothing of that."))
    page = opened(served)
    chosen(page, "notes")
    asked(page, QUESTION)
    answer = page.locator(".answer-text").inner_text()
    page.reload()
    expect(page.locator(".question-said")).to_have_text(QUESTION)
    assert page.locator(".answer-text").inner_text() == answer
    page.locator("#document-text .block").first.wait_for()
    page.locator("button.source").first.click()
    assert "4519" in _marked(page)
    chosen(page, "other")
    expect(page.locator("article.entry")).to_have_count(0)
    chosen(page, "notes")
    page.get_by_role("button", name="Clear history").click()
    expect(page.locator("article.entry")).to_have_count(0)
    expect(page.get_by_role("textbox")).to_be_focused()
    page.reload()
    page.get_by_role("textbox").wait_for()
    expect(page.locator("article.entry")).to_have_count(0)


def test_passages_of_a_document_that_was_changed_are_not_shown_elsewhere(
    served: Served, opened: Opened
) -> None:
    served.add("notes", ("notes.md", NOTES.encode()))
    page = opened(served)
    chosen(page, "notes")
    asked(page, QUESTION)
    with served.client() as client:
        client.delete("/v1/contexts/notes")
    served.add("notes", ("notes.md", b"Quite another text, which is long enough. " * 40))
    page.reload()
    page.locator("#document-text .block").first.wait_for()
    page.locator("button.source").first.click()
    expect(page.locator("#notice")).to_contain_text("The documents have changed since this answer")
    expect(page.locator("mark")).to_have_count(0)
    page.get_by_role("button", name="Close").click()
    expect(page.locator("#notice")).to_be_hidden()


@pytest.mark.parametrize("by", ["Escape", "button"])
def test_an_answer_is_stopped(served: Served, opened: Opened, by: str) -> None:
    served.add("notes", ("notes.md", NOTES.encode()))
    page = opened(served)
    chosen(page, "notes")
    page.get_by_role("textbox").fill("Write the numbers from one to three hundred.")  # it does
    page.keyboard.press("Enter")
    page.locator("article[data-state=writing]").wait_for()
    if by == "Escape":
        page.keyboard.press("Escape")
    else:
        page.get_by_role("button", name="Stop the answer").click()
    expect(page.locator("article.entry")).to_have_attribute("data-state", "stopped")
    expect(page.locator("article.entry")).to_contain_text("Stopped.")
    expect(page.get_by_role("button", name="Ask", exact=True).and_(page.locator("#submit"))).to_be_visible()


def test_the_answer_comes_piece_by_piece(served: Served, opened: Opened) -> None:
    served.add("notes", ("notes.md", NOTES.encode()))
    page = opened(served)
    chosen(page, "notes")
    page.evaluate(
        """() => {
          window.lengths = new Set();
          new MutationObserver(() => {
            const text = document.querySelector("article[data-state=writing] .answer-text");
            if (text) window.lengths.add(text.textContent.length);
          }).observe(document.getElementById("conversation"), { childList: true, subtree: true });
        }"""
    )
    asked(page, "Tell me all about the pilots and the crane.")
    assert page.evaluate("window.lengths.size") >= 3


def test_what_was_said_before_goes_along_where_it_is_wanted(served: Served, opened: Opened) -> None:
    served.add("notes", ("notes.md", NOTES.encode()))
    page = opened(served)
    chosen(page, "notes")
    sent = []
    page.on("request", lambda request: sent.append(request) if "chat" in request.url else None)
    asked(page, QUESTION)
    asked(page, "What was painted?")
    page.get_by_label("With what was said before").check()
    asked(page, "And when?")
    roles = [[one["role"] for one in json.loads(request.post_data or "")["messages"]] for request in sent]
    assert roles == [["user"], ["user"], ["user", "assistant", "user", "assistant", "user"]]


def test_enter_that_ends_the_choice_of_a_word_asks_nothing(served: Served, opened: Opened) -> None:
    served.add("notes", ("notes.md", NOTES.encode()))
    page = opened(served)
    chosen(page, "notes")
    box = page.get_by_role("textbox")
    box.fill("扉の番号は")
    box.dispatch_event("keydown", {"key": "Enter", "isComposing": True})
    box.dispatch_event("keydown", {"key": "Enter", "keyCode": 229})
    page.keyboard.press("Shift+Enter")
    expect(box).to_have_value("扉の番号は\n")
    expect(page.locator("article.entry")).to_have_count(0)
    height = box.evaluate("box => box.clientHeight")
    page.keyboard.press("Shift+Enter")
    assert box.evaluate("box => box.clientHeight") > height


def test_a_file_that_cannot_be_read_says_why(served: Served, opened: Opened) -> None:
    page = opened(served)
    page.get_by_role("button", name="Add documents").first.click()
    page.set_input_files(
        "#files", [{"name": "bad.pdf", "mimeType": "application/pdf", "buffer": b"%PDF-1.7 no"}]
    )
    page.locator("#add-submit").click()
    expect(page.locator("#conversation")).to_contain_text("This could not be read")
    expect(page.locator("#conversation")).to_contain_text("bad.pdf")
    expect(page.locator("button.context")).to_contain_text("Could not be read")
    expect(page.get_by_role("textbox")).to_be_hidden()
    page.get_by_role("button", name="Delete this context").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator("#context-list")).to_contain_text("Nothing has been read yet.")


def test_a_folder_is_no_file_and_an_empty_one_is_refused(served: Served, opened: Opened) -> None:
    page = opened(served)
    page.get_by_role("button", name="Add documents").first.click()
    page.set_input_files("#files", [{"name": "empty.txt", "mimeType": "text/plain", "buffer": b""}])
    page.locator("#add-submit").click()
    expect(page.locator("#add-wrong")).to_contain_text("is empty")
    page.get_by_role("button", name="Leave out empty.txt").click()
    expect(page.locator("#chosen")).to_be_hidden()


def test_a_context_that_somebody_else_deleted_goes(served: Served, opened: Opened) -> None:
    served.add("notes", ("notes.md", NOTES.encode()))
    page = opened(served)
    chosen(page, "notes")
    with served.client() as client:
        client.delete("/v1/contexts/notes")
    page.get_by_role("textbox").fill(QUESTION)
    page.keyboard.press("Enter")
    expect(page.locator("article[data-state=failed]")).to_contain_text("There is no context 'notes'")


def test_reading_goes_on_when_the_page_is_loaded_anew(served: Served, opened: Opened) -> None:
    page = opened(served)
    page.get_by_role("button", name="Add documents").first.click()
    file = {"name": "notes.md", "mimeType": "text/plain", "buffer": (NOTES * 4).encode()}
    page.set_input_files("#files", [file])
    page.locator("#add-submit").click()
    expect(page.locator("#ask-title")).to_have_text("notes")
    page.reload()
    expect(page.locator("#ask-title")).to_have_text("notes")
    expect(page.locator("#conversation")).to_contain_text("Being read")
    expect(page.get_by_role("textbox")).to_be_visible()
    expect(page.locator("#ask-meta")).to_contain_text("tokens")


def test_a_browser_that_keeps_nothing_works(served: Served, opened: Opened) -> None:
    served.add("notes", ("notes.md", b"The ferry leaves at 7:40."))
    page = opened(served)
    page.add_init_script(
        "for (const name of ['localStorage', 'sessionStorage'])"
        " Object.defineProperty(window, name, { get() { throw new DOMException('no', 'SecurityError'); } });"
    )
    page.reload()
    chosen(page, "notes")
    asked(page, "When does the ferry leave?")
    page.get_by_role("button", name="日本語").click()
    expect(page.locator("#contexts-title")).to_have_text("コンテキスト")


def test_figures_come_with_the_first_answer(served: Served, opened: Opened) -> None:
    served.add("notes", ("notes.md", b"The ferry leaves at 7:40."))
    page = opened(served)
    expect(page.locator("figure.chart")).to_have_count(6)
    drawings = page.locator("figure.chart svg[role=img]")
    expect(drawings.last).to_have_attribute("aria-label", re.compile(r"^Memory: now [\d.]+ [MG]iB, between"))
    page.get_by_role("button", name="Show as a table").click()
    table = page.get_by_role("table", name="Figures as a table")
    assert table.get_by_role("columnheader").all_text_contents() == [
        "Time",
        "First token",
        "Time per token",
        "Tokens per second",
        "Coverage",
        "Read of the cache",
        "Memory",
    ]
    expect(table.get_by_role("row").nth(1)).to_be_visible()
    page.get_by_role("button", name="Hide the table").click()
    expect(table).to_be_hidden()
    with httpx.Client(base_url=served.url) as client:
        assert set(client.get("/v1/stats").json()["series"]) == {
            "first_token_ms",
            "token_ms",
            "tokens_per_s",
            "coverage",
            "touched",
            "memory_bytes",
        }


def test_a_japanese_file_is_read_and_named_by_its_own_name(served: Served, opened: Opened) -> None:
    page = opened(served, locale="ja-JP")
    page.get_by_role("button", name="文書を追加").first.click()
    text = "# 会議録\n\n次回の会議は8月10日に水先人詰所で行う。\n"
    file = {"name": "港湾 会議録.md", "mimeType": "text/markdown", "buffer": text.encode()}
    page.set_input_files("#files", [file])
    expect(page.get_by_label("名前", exact=True)).to_have_value("港湾-会議録")
    page.locator("#add-submit").click()
    expect(page.locator("#ask-title")).to_have_text("港湾-会議録")
    expect(page.locator("#document-title")).to_have_text("港湾 会議録.md")
    page.reload()
    expect(page.locator("#ask-title")).to_have_text("港湾-会議録")
