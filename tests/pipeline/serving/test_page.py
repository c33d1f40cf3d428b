"""The page at / as a person uses it, in a real browser. Skipped without a Chromium."""

import json

import pytest
from chromium import CONTRASTS
from in_process_server import Server, listening, wanted

from pipeline.serving.desk import Desk
from pipeline.serving.memory_store import MemoryStore

HOSTILE = '<img src=x onerror="document.title=`owned`"><script>document.title="owned"</script> & co'
TOO_WIDE = """
[...document.querySelectorAll("body *")].filter(e => e.getClientRects().length
  && e.getBoundingClientRect().right > innerWidth + 0.5).map(e => e.outerHTML.slice(0, 80))
"""
SMALL_TARGETS = """
[...document.querySelectorAll("button.item, select, input[type=search]")].filter(e =>
  e.getBoundingClientRect().height < 43.5).map(e => e.outerHTML.slice(0, 80))
"""
SHOWN = """
[...document.querySelectorAll("#recommended .item")].map(e => [
  e.dataset.item, e.querySelector(".score").textContent, e.querySelector(".text").textContent])
"""


@pytest.fixture(scope="module")
def served(bundle):
    server = Server(Desk(wanted(bundle)), MemoryStore(1 << 24, 3_600))
    replica = server.replica()
    replica.post("/items", domain="garden", item="<b>evil</b>", text=HOSTILE)
    with listening(replica.service) as address:
        yield address


def search(browser, words):
    browser.ask(
        f"(() => {{ const q = document.querySelector('#query'); q.value = {json.dumps(words)};"
        "q.dispatchEvent(new Event('input')); })()"
    )


def shown_after(browser, events):
    browser.until(f"document.querySelector('#recommended').dataset.events === '{events}'")
    return browser.ask(SHOWN)


def as_shown(recommender, domain, history):
    found = recommender.recommend(history, 10, domain=domain)
    catalogue = recommender.catalogue(domain)
    return [
        [item, f"{score:.3f}", catalogue.texts(catalogue.row(item))]
        for item, score in zip(found.item_ids, found.scores.tolist(), strict=True)
    ]


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (1280, "light")])
def test_recommendations_change_event_by_event(served, browser, recommender, width, scheme):
    browser.open(served, width, scheme=scheme)
    domains = browser.until("[...document.querySelectorAll('#domain option')].map(e => e.value)")
    assert domains == ["books", "garden"]
    assert browser.ask("document.querySelector('#bundle').textContent") == recommender.version
    assert browser.ask(SHOWN) == []
    catalogue = recommender.catalogue("books")
    word = catalogue.texts(7).split()[0]
    search(browser, word)
    found = browser.until("[...document.querySelectorAll('#found .item')].map(e => e.dataset.item)")
    assert found == catalogue.ids(catalogue.search(word, 8))
    history = found[:1]
    browser.ask("document.querySelector('#found .item').click()")
    assert shown_after(browser, 1) == as_shown(recommender, "books", history)
    for events in (2, 3):
        history.append(
            browser.ask("document.querySelectorAll('#recommended .item')[1].dataset.item")
        )
        browser.ask("document.querySelectorAll('#recommended .item')[1].click()")
        assert shown_after(browser, events) == as_shown(recommender, "books", history)
    assert (
        browser.ask("[...document.querySelectorAll('#history .id')].map(e => e.textContent)")
        == history
    )
    assert browser.ask("document.documentElement.scrollWidth") <= width
    assert browser.ask(TOO_WIDE) == []
    assert browser.ask(SMALL_TARGETS) == []
    assert browser.ask(CONTRASTS) == []
    assert browser.complaints == []
    assert all(url.startswith((served, "data:")) for url in browser.requests), browser.requests
    browser.ask("document.querySelector('#clear').click()")
    assert (
        browser.ask("document.querySelectorAll('#history .item, #recommended .item').length") == 0
    )


def test_another_domain_begins_anew(served, browser, recommender):
    browser.open(served, 1280)
    browser.until("!!document.querySelector('#domain option')")
    browser.ask(
        "(() => { const d = document.querySelector('#domain'); d.value = 'garden';"
        "d.dispatchEvent(new Event('change')); })()"
    )
    catalogue = recommender.catalogue("garden")
    search(browser, catalogue.texts(2))
    found = browser.until("[...document.querySelectorAll('#found .item')].map(e => e.dataset.item)")
    assert found[0] in catalogue
    browser.ask("document.querySelector('#found .item').click()")
    assert {item for item, _, _ in shown_after(browser, 1)} <= {
        *catalogue.ids(range(len(catalogue))),
        "<b>evil</b>",
    }


def test_texts_of_items_are_shown_and_never_run(served, browser):
    browser.open(served, 1280)
    browser.until("!!document.querySelector('#domain option')")
    browser.ask("document.querySelector('#domain').value = 'garden'")
    search(browser, "onerror")
    browser.until("!!document.querySelector('#found .item')")
    assert browser.ask("document.querySelector('#found .text').textContent") == HOSTILE
    assert browser.ask("document.querySelector('#found .id').textContent") == "<b>evil</b>"
    browser.ask("document.querySelector('#found .item').click()")
    shown_after(browser, 1)
    assert browser.ask("document.querySelectorAll('img, b, main script').length") == 0
    assert browser.ask("document.title") == "hydrarec"
    assert browser.complaints == []


def test_what_the_server_refuses_is_said(served, browser):
    browser.open(served, 390)
    browser.until("!!document.querySelector('#domain option')")
    browser.ask("choose({item: 'not there', text: 'x'})")
    said = browser.until("document.querySelector('#error:not([hidden])')?.textContent")
    assert "'not there'" in said


def test_the_page_may_load_nothing_else(replica):
    for path in ("/", "/page.js", "/page.css"):
        answer = replica.client.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"].startswith("default-src 'none';")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "http://" not in answer.text
        assert "https://" not in answer.text
