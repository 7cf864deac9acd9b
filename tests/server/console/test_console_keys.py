"""Who may use the console: keys, an application in another one, a server that goes."""

from __future__ import annotations

import socket
from pathlib import Path

from console_page import Opened, Served, chosen, listening, tiny_model
from fastapi import FastAPI
from playwright.sync_api import expect

from sakuin.server.app import create_app
from sakuin.server.service import Service
from sakuin.server.settings import Settings


def test_a_server_with_keys_asks_for_one(keyed: Served, opened: Opened) -> None:
    keyed.add("mine", ("mine.txt", b"What is mine."))
    page = opened(keyed)
    dialog = page.get_by_role("dialog", name="This server asks for a key")
    expect(dialog).to_be_visible()
    expect(page.get_by_label("Key", exact=True)).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.locator("#key-wrong")).to_have_text("Enter a key.")
    page.get_by_label("Key", exact=True).fill("sk-1234-not-a-key")
    page.keyboard.press("Enter")
    expect(page.locator("#key-wrong")).to_contain_text("This key is not known to the server, or was revoked.")
    expect(page.get_by_label("Key", exact=True)).to_have_attribute("aria-invalid", "true")
    page.get_by_label("Key", exact=True).fill(keyed.key or "")
    page.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    chosen(page, "mine")
    expect(page.locator("#document-text")).to_have_text("What is mine.")
    expect(page.locator("figure.chart")).to_have_count(6)

    page.reload()
    expect(page.locator("#ask-title")).to_have_text("mine")
    expect(dialog).to_be_hidden()
    stored = page.evaluate("JSON.stringify([{ ...localStorage }, document.cookie, location.href])")
    assert (keyed.key or "").rsplit("-", 1)[1] not in stored

    page.get_by_role("button", name="Change key").click()
    expect(dialog).to_be_visible()
    expect(page.locator("button.context")).to_have_count(0)


def test_another_tab_asks_again(keyed: Served, opened: Opened) -> None:
    page = opened(keyed)
    page.get_by_label("Key", exact=True).fill(keyed.key or "")
    page.keyboard.press("Enter")
    expect(page.locator("#context-list")).to_contain_text("Nothing has been read yet.")
    other = page.context.new_page()
    other.goto(keyed.url)
    expect(other.get_by_role("dialog", name="This server asks for a key")).to_be_visible()


def test_an_upload_goes_with_the_key(keyed: Served, opened: Opened) -> None:
    page = opened(keyed)
    page.get_by_label("Key", exact=True).fill(keyed.key or "")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Add documents").first.click()
    page.set_input_files("#files", [{"name": "a.txt", "mimeType": "text/plain", "buffer": b"Of a."}])
    page.locator("#add-submit").click()
    expect(page.locator("#document-text")).to_have_text("Of a.")


def test_it_works_inside_another_application(tmp_path: Path, opened: Opened) -> None:
    outer = FastAPI()
    with Service(*tiny_model(), Settings(library=str(tmp_path / "library"), name="tiny")) as service:
        outer.mount("/tools/sakuin", create_app(service))
        with listening(outer) as url:
            inside = Served(url + "tools/sakuin/")
            inside.add("notes", ("notes.txt", b"Inside."))
            page = opened(inside)
            expect(page.locator("#model")).to_have_text("tiny")
            chosen(page, "notes")
            expect(page.locator("#document-text")).to_have_text("Inside.")


def test_a_server_that_goes_is_told_and_is_found_again(tmp_path: Path, opened: Opened) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with Service(*tiny_model(), Settings(library=str(tmp_path / "library"), name="tiny")) as service:
        app = create_app(service)
        with listening(app, port) as url:
            served = Served(url)
            served.add("notes", ("notes.txt", b"Still here."))
            page = opened(served)
            chosen(page, "notes")
            page.get_by_role("textbox").fill("Where?")
        page.keyboard.press("Enter")
        expect(page.locator("article[data-state=failed]")).to_contain_text("The server cannot be reached.")
        page.get_by_role("button", name="日本語").click()
        expect(page.locator("article[data-state=failed]")).to_contain_text("サーバーに接続できません。")
        page.get_by_role("button", name="文書を追加", exact=True).click()
        page.set_input_files("#files", [{"name": "b.txt", "mimeType": "text/plain", "buffer": b"Of b."}])
        page.locator("#add-submit").click()
        expect(page.locator("#add-wrong")).to_contain_text("接続")
        with listening(app, port):
            page.locator("#add-submit").click()
            expect(page.locator("#document-text")).to_have_text("Of b.")
