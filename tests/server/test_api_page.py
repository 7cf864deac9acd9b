"""`/docs` shows all of /openapi.json, asks nobody but its server, and its examples work as they stand."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from guarded_app import error_of
from playwright.sync_api import Browser, Page, expect
from whole_app import client_of, whole

from sakuin.server.tenants.keys import Keys

ROOT = Path(__file__).parents[2]
NAMES = ("index.html", "docs.css", "docs.js")


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A server's address, and a key of it."""
    folder = tmp_path_factory.mktemp("api-page")
    key = Keys(folder / "keys.json").add("ann")
    with whole(folder / "library", api_keys=str(folder / "keys.json")) as (_, url):
        yield url, key


@pytest.fixture
def page(chromium: Browser, keyed: tuple[str, str]) -> Iterator[Page]:
    """The page, opened. At its end it has asked nobody else, and broken no rule of its policy."""
    wrong: list[str] = []
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(120_000)
    found = context.new_page()
    found.on("pageerror", lambda error: wrong.append(str(error)))
    found.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    found.on(
        "request",
        lambda request: None if request.url.startswith((keyed[0], "data:")) else wrong.append(request.url),
    )
    found.goto(f"{keyed[0]}/docs")
    found.locator(".operation").first.wait_for()
    yield found
    context.close()
    assert wrong == []


def operations(url: str) -> dict[tuple[str, str], Any]:
    with client_of(url) as client:
        paths = client.get("/openapi.json").json()["paths"]
    return {(method, path): said for path, methods in paths.items() for method, said in methods.items()}


def test_page_and_schema_need_no_key_and_load_nothing_from_elsewhere(keyed: tuple[str, str]) -> None:
    with client_of(keyed[0]) as client:
        assert client.get("/openapi.json").json()["info"]["title"] == "sakuin"
        for path, kind in (("/docs", "html"), ("/docs/docs.js", "javascript"), ("/docs/docs.css", "css")):
            answer = client.get(path)
            assert answer.status_code == 200
            assert answer.headers["content-type"] == f"text/{kind}; charset=utf-8"
            rules = answer.headers["content-security-policy"].split("; ")
            rules = dict(rule.split(" ", 1) for rule in rules)
            assert (rules["default-src"], rules["script-src"], rules["style-src"]) == (
                "'none'",
                "'self'",
                "'self'",
            )
            assert rules["require-trusted-types-for"] == "'script'"
            assert client.head(path).content == b""
        for path in ("/docs/index.html.js", "/docs/..%2F__init__.py", "/redoc", "/docs/oauth2-redirect"):
            assert error_of(client.get(path))["type"] == "not_found_error"
    for name in NAMES:
        text = files("sakuin.server.console").joinpath("docs", name).read_text()
        assert re.findall(r"https?://|//cdn|innerHTML|eval\(|<script>|\sstyle=|\son\w+=", text) == []


def test_all_operations_and_fields_are_shown(page: Page, keyed: tuple[str, str]) -> None:
    known = operations(keyed[0])
    shown = page.locator(".operation h3").all_text_contents()
    assert shown == [f"{method.upper()} {path}" for method, path in known]
    assert page.locator("nav a").count() == len(known)
    assert page.locator("main h2").all_text_contents() == [
        "Answers",
        "Contexts",
        "Models",
        "Tokens",
        "Health",
        "Metrics",
    ]
    page.evaluate("document.querySelectorAll('.operation').forEach((one) => { one.open = true; })")
    expect(page.locator(".operation > .inside")).to_have_count(len(known))
    for at, said in enumerate(known.values()):
        text = page.locator(".operation").nth(at).inner_text()
        assert set(re.findall(r"\b[1-5]\d\d\b", text)) >= set(said["responses"])
        for parameter in said.get("parameters", []):
            assert parameter["name"] in text
    chat = page.locator("#post-v1-chat-completions")
    temperature = chat.locator("li", has=page.locator("code", has_text=re.compile("^temperature$"))).first
    expect(temperature).to_contain_text("number or null 0 to 1000, the default, is the likeliest.")
    footnotes = chat.locator("li", has=page.locator("code", has_text=re.compile("^footnotes$"))).first
    expect(footnotes).to_contain_text("default false")
    expect(footnotes).to_contain_text("put their numbers into the answer")
    assert chat.locator(".needed").count() == 2  # model, messages


def test_schemas_in_schemas_open_by_the_keyboard(page: Page) -> None:
    page.keyboard.press("/")
    page.keyboard.type("chat/completions")
    expect(page.locator("#found")).to_have_text("1 found")
    page.keyboard.press("Enter")
    expect(page.locator("#post-v1-chat-completions")).to_have_attribute("open", "")
    message = page.get_by_text("Fields of Message", exact=True)
    message.focus()
    page.keyboard.press("Enter")
    call = page.get_by_text("Fields of ToolCall", exact=True)
    call.focus()
    page.keyboard.press("Enter")
    function = page.get_by_text("Fields of CalledFunction", exact=True)
    function.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("1 to 64 characters, like", exact=False).first).to_be_visible()
    expect(page.get_by_text("JSON as text.")).to_be_visible()


def test_the_search_finds_fields_and_says_when_there_are_none(page: Page) -> None:
    box = page.get_by_label("Search")
    box.fill("refuse_unsupported")
    expect(page.locator("#found")).to_have_text("2 found")
    assert page.locator(".operation:visible").count() == page.locator("nav a:visible").count() == 2
    box.fill("no such word")
    expect(page.locator("#found")).to_have_text("nothing found")
    page.keyboard.press("Escape")
    expect(page.locator("#found")).to_have_text("")
    assert page.locator(".operation:visible").count() == page.locator("nav a").count()


def test_an_address_with_an_operation_opens_it(page: Page, keyed: tuple[str, str]) -> None:
    page.goto("about:blank")
    page.goto(f"{keyed[0]}/docs#get-ready")
    expect(page.locator("#get-ready")).to_have_attribute("open", "")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_are_easy_to_tell_from_the_ground(page: Page, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme)
    page.locator("#post-v1-contexts > summary").click()
    found = page.evaluate(CONTRASTS)
    assert len(found) > 60  # words were found at all
    assert min(found) >= 4.5
    page.set_viewport_size({"width": 320, "height": 700})
    assert page.evaluate(TOO_WIDE) == []


CONTRASTS = """() => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const light = (color) => channels(color).slice(0, 3).map((each) => each / 255)
    .map((each) => (each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4))
    .reduce((sum, each, at) => sum + each * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = (one) => {
    const color = getComputedStyle(one).backgroundColor;
    const parts = channels(color);
    return parts.length === 4 && parts[3] === 0 ? ground(one.parentElement) : color;
  };
  const texts = [...document.querySelectorAll("body *")].filter((one) =>
    [...one.childNodes].some((each) => each.nodeType === 3 && each.data.trim()) && one.offsetParent);
  return texts.map((one) => {
    const pair = [light(getComputedStyle(one).color), light(ground(one))].sort((a, b) => b - a);
    return (pair[0] + 0.05) / (pair[1] + 0.05);
  });
}"""

TOO_WIDE = """() => document.documentElement.scrollWidth <= innerWidth ? [] :
  [...document.querySelectorAll("body *")].filter((one) => one.getBoundingClientRect().right > innerWidth)
    .map((one) => one.outerHTML.slice(0, 200))"""


def test_the_examples_work_as_they_stand(page: Page, keyed: tuple[str, str]) -> None:
    url, key = keyed
    page.evaluate("document.querySelectorAll('.operation').forEach((one) => { one.open = true; })")
    expect(page.locator(".operation > .inside")).to_have_count(len(operations(url)))
    examples = page.locator(".operation pre").all_text_contents()
    assert len(examples) == len(operations(url)) + 2  # uploads, by JSON and as files
    first = next(one for one in examples if "/v1/contexts' \\" in one and "application/json" in one)
    last = next(one for one in examples if "DELETE" in one)
    rest = [one for one in examples if one not in (first, last)]
    status: dict[str, str] = {}
    for example in (first, *rest, last):
        command = example.replace("MODEL", "tiny").replace("name=contract", "name=files")
        command = command.replace("curl ", "curl -s -m 60 -o /dev/null -w '%{http_code}' ", 1)
        for _ in range(600):
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=ROOT / "examples/files",
                env={"KEY": key, "PATH": "/usr/bin:/bin"},
                capture_output=True,
                text=True,
                check=True,
            )
            if done.stdout != "409":  # while it is read, it is not to be changed
                break
            time.sleep(0.1)
        status[example] = done.stdout
    assert {example: code for example, code in status.items() if code[0] != "2"} == {}
