"""How the console looks and is used by everyone: languages, colours, keyboard, narrow screens, screen
readers, and documents that mean harm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from console_page import Opened, Served, asked, chosen
from playwright.sync_api import Page, expect

AXE = (Path(__file__).parent / "vendor" / "axe.min.js").read_text(encoding="utf-8")
NOTES = b"# Codes\n\nThe door code of the pilot house is 4519.\n\n# Ferries\n\nThe ferry leaves at 7:40.\n"
QUESTION = "What is the door code of the pilot house?"


def _contrast_and_the_rest(page: Page) -> list[str]:
    """What axe finds wrong, by the rules of WCAG 2.2 A and AA and good practice."""
    page.evaluate(AXE)  # not as a script of the page, which its policy would refuse
    found: dict[str, Any] = page.evaluate("axe.run(document, { preload: false })")
    assert {"color-contrast", "button-name"} <= {one["id"] for one in found["passes"]}
    return [f"{one['id']}: {[node['html'] for node in one['nodes']]}" for one in found["violations"]]


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("language", ["en-GB", "ja-JP"])
def test_axe_finds_nothing(served: Served, opened: Opened, colours: Any, language: str) -> None:
    page = opened(served, color_scheme=colours, locale=language, reduced_motion="reduce")
    page.locator(".empty").wait_for()
    assert _contrast_and_the_rest(page) == []
    served.add("notes", ("notes.md", NOTES), ("other.md", b"Another one."))
    page.reload()
    chosen(page, "notes")
    asked(page, QUESTION)
    page.locator("mark.now").first.wait_for()
    page.locator("#live-table").click()
    page.locator("figure.chart").first.wait_for()
    assert _contrast_and_the_rest(page) == []
    page.locator("#add").click()
    page.set_input_files("#files", [{"name": "a.txt", "mimeType": "text/plain", "buffer": b"a"}])
    page.locator("#paste summary").click()
    assert _contrast_and_the_rest(page) == []
    page.keyboard.press("Escape")
    page.locator("#delete").click()
    assert _contrast_and_the_rest(page) == []


@pytest.mark.parametrize("view", ["contexts", "ask", "document", "live"])
def test_axe_finds_nothing_on_a_narrow_screen(served: Served, opened: Opened, view: str) -> None:
    served.add("notes", ("notes.md", NOTES))
    page = opened(served, viewport={"width": 360, "height": 740}, reduced_motion="reduce")
    page.locator("button.context").click()
    page.locator(f"[data-show={view}]").click()
    page.locator("#document-text .block").first.wait_for(state="attached")
    assert _contrast_and_the_rest(page) == []


def test_axe_finds_nothing_where_a_key_is_asked_for(keyed: Served, opened: Opened) -> None:
    page = opened(keyed)
    page.get_by_label("Key", exact=True).fill("sk-no-key")
    page.keyboard.press("Enter")
    expect(page.locator("#key-wrong")).to_contain_text("not known")
    assert _contrast_and_the_rest(page) == []


def test_axe_would_find_what_is_wrong(keyed: Served, opened: Opened) -> None:
    page = opened(keyed)
    page.locator("#key").evaluate("input => document.querySelector('label[for=key]').remove()")
    page.locator("#key").evaluate("input => input.removeAttribute('placeholder')")
    assert [one.split(":")[0] for one in _contrast_and_the_rest(page)] == ["label"]


def test_the_language_is_the_browsers_until_another_is_chosen(served: Served, opened: Opened) -> None:
    assert opened(served, locale="fr-FR").evaluate("document.documentElement.lang") == "en"
    page = opened(served, locale="ja-JP")
    expect(page.locator("#contexts-title")).to_have_text("コンテキスト")
    assert page.evaluate("document.documentElement.lang") == "ja"
    page.get_by_role("button", name="English").click()
    expect(page.locator("#contexts-title")).to_have_text("Contexts")
    page.reload()
    expect(page.locator("#contexts-title")).to_have_text("Contexts")
    page.get_by_role("button", name="日本語").click()
    page.reload()
    expect(page.locator("#contexts-title")).to_have_text("コンテキスト")


def _english_left(page: Page) -> list[str]:
    """What of the page's own words has no Japanese letter, in texts and in names for screen readers."""
    found: list[str] = page.evaluate(
        """() => {
          const documents = "bdi, .block, .answer-text, .question-said, .source-text, .source-place, option";
          const own = `${documents}, #language, #model, .brand, #announcer, #document-place, #ask-title`;
          const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
          const said = [];
          for (let node = walker.nextNode(); node; node = walker.nextNode())
            if (!node.parentElement.closest(`${own}, script, noscript`)) said.push(node.textContent.trim());
          for (const name of ["aria-label", "title", "placeholder"])
            for (const one of document.querySelectorAll(`[${name}]`))
              if (!one.closest("#language")) said.push(one.getAttribute(name));
          const japanese = /[\\u3040-\\u30ff\\u4e00-\\u9fff]/;
          return said.filter((text) => /[a-z]{2}/i.test(text) && !japanese.test(text));
        }"""
    )
    # Sizes are written so in Japanese too, and names of documents are nobody's words.
    return [text for text in found if text not in ("sk-…", "notes.md") and not text.endswith("iB")]


def test_nothing_is_left_in_english(served: Served, opened: Opened) -> None:
    served.add("notes", ("notes.md", NOTES))
    page = opened(served, locale="en-GB")
    chosen(page, "notes")
    asked(page, QUESTION)
    page.locator("figure.chart").first.wait_for()
    page.get_by_role("button", name="Show as a table").click()
    page.get_by_role("button", name="日本語").click()
    expect(page.locator(".sources-part h4")).to_have_text("参照した箇所")
    expect(page.locator("#document-place")).to_have_text("Codes")  # the document's own words stay
    assert _english_left(page) == []


def test_colours_follow_the_system_until_they_are_chosen(served: Served, opened: Opened) -> None:
    page = opened(served, color_scheme="dark")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(ground)
    page.emulate_media(color_scheme="light")
    light = page.evaluate(ground)
    assert dark != light
    page.get_by_role("button", name="Colours: as the system").click()
    page.get_by_role("button", name="Colours: light").click()
    expect(page.get_by_role("button", name="Colours: dark")).to_be_focused()
    assert page.evaluate(ground) == dark
    page.reload(wait_until="commit")
    page.locator("#theme").wait_for()
    assert page.evaluate(ground) == dark  # before any module has run
    page.get_by_role("button", name="Colours: dark").click()
    assert page.evaluate(ground) == light


def test_all_is_done_by_the_keyboard(served: Served, opened: Opened) -> None:
    served.add("notes", ("notes.md", NOTES))
    page = opened(served)
    page.locator("button.context").wait_for()
    page.locator("figure.chart").first.wait_for()

    def tab_to(selector: str, back: bool = False) -> None:
        for _ in range(40):
            page.keyboard.press("Shift+Tab" if back else "Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                shown = page.evaluate(
                    """() => { const style = getComputedStyle(document.activeElement);
                      return style.outlineStyle !== "none" || style.boxShadow !== "none"; }"""
                )
                ring = page.evaluate("document.activeElement.closest('.composer-box, .dropzone') !== null")
                assert shown or ring, f"{selector} does not show that it has the focus"
                return
        raise AssertionError(f"{selector} is not reached")

    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the question")).to_be_focused()
    expect(page.get_by_role("link", name="Skip to the question")).to_be_in_viewport()
    for selector in ("#language", "#theme", "#add", "button.context"):
        tab_to(selector)
    page.keyboard.press("Enter")
    expect(page.get_by_role("textbox")).to_be_focused()
    page.keyboard.type(QUESTION)
    page.keyboard.press("Enter")
    page.locator("article[data-state=done]").wait_for()
    tab_to("button.source", back=True)
    page.keyboard.press("Enter")
    expect(page.locator("#announcer")).to_contain_text("Passage 1 of")
    expect(page.locator("button.source").first).to_be_focused()
    for selector in ("#earlier", "#passage-before", "#passage-next", "#document-text", "#live-table"):
        tab_to(selector)
    page.keyboard.press("Space")
    tab_to("#live-values")
    tab_to("#add", back=True)
    page.keyboard.press("Enter")
    expect(page.locator("#files")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#add")).to_be_focused()


@pytest.mark.parametrize(
    "width", [320, 1000, *(pytest.param(width, marks=pytest.mark.slow) for width in (360, 720, 1360))]
)
def test_nothing_is_wider_than_the_screen(served: Served, opened: Opened, width: int) -> None:
    served.add("a-context-of-a-rather-long-name-that-nobody-would-give-" + "x" * 40, ("notes.md", b"w" * 600))
    page = opened(served, viewport={"width": width, "height": 700})
    page.locator("button.context").click()
    page.locator("#document-text .block").first.wait_for(state="attached")
    shown = page.locator("#views button:visible")
    for at in range(max(shown.count(), 1)):
        if shown.count():
            shown.nth(at).click()
        wide = page.evaluate(
            """() => [...document.querySelectorAll("body *")].filter((one) => {
              const box = one.getBoundingClientRect();
              return one.checkVisibility() && box.width > 1 && box.right > innerWidth + 1;
            }).map((one) => one.outerHTML.slice(0, 80))"""
        )
        assert wide == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_narrow_screen_shows_one_part_at_a_time(served: Served, opened: Opened) -> None:
    served.add("notes", ("notes.md", NOTES))
    page = opened(served, viewport={"width": 360, "height": 740}, has_touch=True)
    expect(page.locator("#view-ask")).to_be_hidden()
    page.locator("button.context").tap()
    expect(page.locator("#view-contexts")).to_be_hidden()
    asked(page, QUESTION)
    expect(page.locator("#view-document")).to_be_hidden()
    page.locator("button.source").first.tap()
    expect(page.locator("#view-document")).to_be_visible()
    expect(page.locator("mark.now").first).to_be_in_viewport()
    page.get_by_role("button", name="Live").tap()
    expect(page.locator("figure.chart").first).to_be_in_viewport()
    expect(page.get_by_role("button", name="Live")).to_have_attribute("aria-current", "page")


HARM = '<img src=x onerror="window.harmed=1"><script>window.harmed=1</script><b>bold</b> & \u202egnihton'


def test_a_document_that_means_harm_is_text(served: Served, opened: Opened) -> None:
    page = opened(served)
    page.add_init_script(
        "addEventListener('securitypolicyviolation', (event) => console.error(event.violatedDirective))"
    )
    page.reload()
    page.get_by_role("button", name="Add documents").first.click()
    file = {"name": "<b>x</b> & y.txt", "mimeType": "text/plain", "buffer": f"{HARM}\n{HARM}".encode()}
    page.set_input_files("#files", [file])
    expect(page.locator("#chosen")).to_contain_text("<b>x</b> & y.txt")
    page.get_by_label("Name", exact=True).fill("harm")
    page.locator("#add-submit").click()
    page.locator("#document-text .block").first.wait_for()
    assert page.locator("#document-text").inner_text().count("<script>window.harmed=1</script>") == 2
    asked(page, HARM)
    expect(page.locator(".question-said")).to_have_text(HARM)
    assert page.locator("#conversation :is(img, script, b), #document-text :is(img, script, b)").count() == 0
    assert page.evaluate("window.harmed") is None
    other = page.context.new_page()
    other.goto(served.url)
    refused = other.evaluate(
        "() => { try { document.body.innerHTML = '<b>no</b>'; } catch (error) { return error.name; } }"
    )
    assert refused == "TypeError"  # the browser itself lets no text become markup


def test_less_motion_where_it_is_asked_for(served: Served, opened: Opened) -> None:
    page = opened(served, reduced_motion="reduce")
    longest = page.evaluate(
        "Math.max(...[...document.querySelectorAll('button')].map((one) =>"
        " parseFloat(getComputedStyle(one).transitionDuration)))"
    )
    assert longest <= 0.001
