"""The console's files: how they are sent, and what they refer to."""

from __future__ import annotations

import re
from importlib.resources import files

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from sakuin.server import problems
from sakuin.server.routes import console

FILES = {
    one.name: one
    for one in files("sakuin.server.console").iterdir()
    if one.name.endswith((".html", ".js", ".css", ".svg"))
}


@pytest.fixture
def client() -> TestClient:
    app = FastAPI()
    problems.install(app)
    app.include_router(console.router)
    return TestClient(app)


def test_the_page_is_sent_with_a_policy_without_inline_scripts(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(rule.split(" ", 1) for rule in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", sorted(FILES))
def test_each_file_is_sent_as_what_it_is(client: TestClient, name: str) -> None:
    answer = client.get(f"/console/{name}")
    assert answer.status_code == 200
    assert answer.content == FILES[name].read_bytes()
    kind = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
    assert answer.headers["content-type"].split(";")[0] == kind[name.rsplit(".", 1)[1]]
    assert "content-security-policy" in answer.headers
    assert client.head(f"/console/{name}").content == b""
    again = client.get(f"/console/{name}", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get(f"/console/{name}", headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    "path", ["nothing.js", "__init__.py", "..%2Fservice.py", "%2e%2e/service.py", "....js", "%00", "index"]
)
def test_nothing_else_is_sent(client: TestClient, path: str) -> None:
    answer = client.get(f"/console/{path}")
    assert answer.status_code == 404
    assert set(answer.json()) == {"error"}


def test_what_the_files_refer_to_is_there_and_nowhere_else() -> None:
    page = FILES["index.html"].read_text()
    named = set(re.findall(r'(?:src|href)="console/([^"#]+)', page))
    for name, file in FILES.items():
        text = file.read_text()
        named |= set(re.findall(r'(?:from|import) "\./([^"]+)"', text))
        outside = set(re.findall(r"https?://[^\s\"'`)]+", text)) - {"http://www.w3.org/2000/svg"}
        assert not outside, name
    used = set(re.findall(r"console/icons\.svg#([a-z-]+)", page))
    for name in FILES:
        if name.endswith(".js"):
            used |= set(re.findall(r'icon\("([a-z-]+)"\)', FILES[name].read_text()))
    assert used <= set(re.findall(r'<symbol id="([a-z-]+)"', FILES["icons.svg"].read_text()))
    assert named | {"index.html", "icons.svg"} == set(FILES)


def test_no_file_makes_markup_of_text() -> None:
    forbidden = (
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|DOMParser"
        r"|createContextualFragment|setHTML"
    )
    found = {
        name: re.findall(forbidden, file.read_text()) for name, file in FILES.items() if name.endswith("js")
    }
    assert not any(found.values()), found
    page = FILES["index.html"].read_text()
    assert not re.search(r"\son\w+=|\sstyle=|<style|<script>", page)


def _words(name: str) -> dict[str, str]:
    text = FILES[name].read_text()
    return dict(re.findall(r'^  "?([\w.]+)"?: "(.*)",$', text, re.M))


def test_both_languages_say_the_same_things() -> None:
    english, japanese = _words("english.js"), _words("japanese.js")
    singular = {key for key in english if key.endswith(".one")}  # which Japanese does not tell apart
    own = {
        "refused.400",
        "refused.403",
        "refused.409",
        "refused.500",
    }  # in English the server's sentence says it
    assert set(english) - singular == set(japanese) - own
    for key, words in japanese.items():
        if key in english:
            assert set(re.findall(r"{(\w+)}", words)) == set(re.findall(r"{(\w+)}", english[key])), key


def test_each_word_that_is_said_is_there() -> None:
    english, said = _words("english.js"), set[str]()
    for name, file in FILES.items():
        text = file.read_text()
        said |= set(re.findall(r'\b(?:t|counted)\(\s*"([\w.]+)"', text))
        said |= {
            each for pair in re.findall(r'\bt\([^()"]* \? "([\w.]+)" : "([\w.]+)"', text) for each in pair
        }
        if name == "index.html":
            said |= set(re.findall(r'data-t(?:-\w+)?="([\w.]+)"', text))
    assert len(said) > 80
    assert said <= set(english), said - set(english)
