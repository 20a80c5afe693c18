"""The page in a real browser, over a real service: what a person does, and what the page promises."""

from __future__ import annotations

import json
import re
import shlex
import urllib.request
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from qdrant_cir.drawn.dataset import DrawnCatalog, DrawnQuery

pytest.importorskip("playwright.sync_api", reason="needs browser: playwright is not installed")
from playwright.sync_api import Browser, Page, Route, expect

WIDE = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}
TILE = "#wall .tile"
expect.set_options(timeout=20_000)
MOVED = re.compile("^(up|down) [0-9]+$|^new in first ten$")

_WATCH = """
window.shifts = [];
window.moves = [];
const start = document.startViewTransition?.bind(document);
if (start) document.startViewTransition = (change) => {
  const moved = {from: performance.now(), to: Infinity};
  window.moves.push(moved);
  const transition = start(change);
  transition.finished.finally(() => { moved.to = performance.now() + 50; });
  return transition;
};
new PerformanceObserver((list) => window.shifts.push(...list.getEntries().filter((each) => !each.hadRecentInput)
  .map((each) => ({at: each.startTime, value: each.value}))))
  .observe({type: "layout-shift", buffered: true});
"""


@pytest.fixture(scope="session")
def queries(catalog: DrawnCatalog) -> tuple[DrawnQuery, ...]:
    return catalog.queries


@pytest.fixture
def open_page(browser: Browser, service: str) -> Iterator[Callable[..., Page]]:
    """``open_page(address="", **context)``: a page of its own context. No error and no other host is seen in any."""
    contexts, errors, hosts = [], [], set()

    def opened(address: str = "", *, settled: bool = True, **settings: object) -> Page:
        context = browser.new_context(**({"viewport": WIDE, "reduced_motion": "no-preference"} | settings))
        contexts.append(context)
        context.add_init_script(_WATCH)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
        page.goto(f"{service}/{address}")
        if settled and settings.get("java_script_enabled", True):
            expect(page.locator(TILE).first).to_be_visible()
        return page

    yield opened
    for context in contexts:
        context.close()
    assert not errors
    assert hosts == {urlsplit(service).netloc}


def address(query: DrawnQuery, **more: str) -> str:
    return "?" + urlencode({"in": "catalog", "like": query.reference_id, "but": query.modification_text, **more})


def keys(page: Page, within: str = TILE) -> list[str]:
    return page.eval_on_selector_all(within, "tiles => tiles.map((tile) => tile.dataset.key)")


def until_ranked(page: Page, text: str) -> None:
    expect(page.locator("#results")).to_have_attribute("data-settled", text)


def answered(service: str, query: DrawnQuery, **more: object) -> list[dict[str, Any]]:
    """What the service answers to the page's query, as JSON."""
    body = {
        "collection": "catalog",
        "reference": {"id": query.reference_id},
        "text": query.modification_text,
        "exclude_reference": True,
        "limit": 100,
        "rerank_depth": 100,
        **more,
    }
    request = urllib.request.Request(
        f"{service}/search", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        found: list[dict[str, Any]] = json.load(answer)["candidates"]
    return found


def test_it_begins_with_pictures_and_a_click_makes_one_the_reference(open_page: Callable[..., Page]) -> None:
    page = open_page()
    expect(page.get_by_role("heading", name="Begin with a picture.")).to_be_visible()
    expect(page.locator("#count")).to_have_text("60 pictures")
    first = keys(page)[0]
    page.locator(".pick").first.click()
    expect(page.locator("#reference img")).to_have_attribute("src", re.compile(f"/{first}\\?"))
    expect(page.locator("#text")).to_be_focused()
    expect(page.locator(TILE)).to_have_count(59)
    assert first not in keys(page)
    expect(page.locator("#honest")).to_contain_text("not re-ranked")


def test_typing_searches_by_itself_and_the_wall_is_re_ranked(
    open_page: Callable[..., Page], service: str, queries: tuple[DrawnQuery, ...]
) -> None:
    query = queries[0]
    page = open_page(f"?like={query.reference_id}")
    page.locator("#text").press_sequentially(query.modification_text)
    until_ranked(page, query.modification_text)
    assert keys(page) == [each["id"] for each in answered(service, query)]
    badges = page.locator(".badge").all_text_contents()
    assert badges
    assert all(MOVED.match(badge) for badge in badges)
    expect(page.locator("#live")).to_have_text(re.compile("^Re-ranked, ([0-9]+|none) new in first ten[.]$"))
    expect(page.locator("#honest")).to_have_text(
        re.compile(r"^retrieved 59 of 60 in [\d.]+ ms, re-ranked 59.* in [\d,]+ ms, (float32|int8)$")
    )


def test_an_example_is_one_click_and_enter_searches_at_once(
    open_page: Callable[..., Page], queries: tuple[DrawnQuery, ...]
) -> None:
    page = open_page(f"?like={queries[0].reference_id}")
    chips = page.locator("#examples button")
    expect(chips).to_have_count(3)
    text = chips.nth(0).inner_text()
    chips.nth(0).click()
    until_ranked(page, text)
    expect(page.locator("#text")).to_have_value(text)
    page.locator("#text").fill("is green")
    page.keyboard.press("Enter")
    until_ranked(page, "is green")
    assert page.evaluate("history.state.path.length") == 2


def test_the_trail_is_the_history_and_a_copied_address_brings_it_all_back(
    open_page: Callable[..., Page], queries: tuple[DrawnQuery, ...]
) -> None:
    query = queries[0]
    page = open_page(address(query))
    until_ranked(page, query.modification_text)
    first_wall = keys(page)
    page.locator(".pick").nth(1).click()
    expect(page.locator("#trail li")).to_have_count(2)
    page.locator("#text").fill("is red")
    page.keyboard.press("Enter")
    until_ranked(page, "is red")
    expect(page.locator("#trail .then")).to_have_text([f"“{query.modification_text}”", "“is red”"])
    wall = keys(page)
    other = open_page(urlsplit(page.url).path.lstrip("/") + "?" + urlsplit(page.url).query)
    until_ranked(other, "is red")
    assert keys(other) == wall
    expect(other.locator("#trail li")).to_have_count(2)
    page.reload()
    until_ranked(page, "is red")
    assert keys(page) == wall
    page.go_back()
    page.go_back()
    until_ranked(page, query.modification_text)
    expect(page.locator("#text")).to_have_value(query.modification_text)
    assert keys(page) == first_wall
    page.go_forward()
    page.go_forward()
    until_ranked(page, "is red")
    page.locator("#trail a").first.click()
    until_ranked(page, query.modification_text)
    assert keys(page) == first_wall
    assert page.evaluate("history.state.path.length") == 0


def test_before_after_and_side_by_side_are_the_orders_of_the_service(
    open_page: Callable[..., Page], service: str, queries: tuple[DrawnQuery, ...]
) -> None:
    query = queries[1]
    page = open_page(address(query))
    until_ranked(page, query.modification_text)
    found = answered(service, query)
    after = [each["id"] for each in found]
    before = [each["id"] for each in sorted(found, key=lambda each: each["retrieval_rank"])]
    assert before != after
    page.get_by_label("before", exact=True).check()
    expect(page.locator(TILE).first).to_have_attribute("data-key", before[0])
    page.wait_for_timeout(350)
    assert keys(page) == before
    page.get_by_label("side by side").check()
    expect(page.locator(".sides")).to_be_visible()
    assert keys(page, ".sides section:first-child .tile") == before
    assert keys(page, ".sides section:last-child .tile") == after
    assert "view=both" in page.url


def test_a_picture_of_ones_own_is_searched_survives_a_reload_and_says_when_it_has_expired(
    open_page: Callable[..., Page], service: str, pictures: Path, queries: tuple[DrawnQuery, ...]
) -> None:
    page = open_page()
    nearest = answered(service, queries[0], text="")[0]["id"]
    picture = pictures / f"{queries[0].reference_id}.jpg"
    page.locator("#file").set_input_files(picture)
    expect(page.locator("#reference canvas")).to_be_visible()
    expect(page.locator(TILE).first).to_have_attribute("data-key", nearest)
    assert re.search(r"like=(\*|%2A)[0-9a-f]{64}", page.url)
    page.reload()
    expect(page.locator(TILE).first).to_have_attribute("data-key", nearest)
    assert page.locator("#reference img").evaluate("image => image.decode().then(() => image.naturalWidth > 0)")
    page.goto(re.sub("[0-9a-f]{64}", "0" * 64, page.url))
    expect(page.get_by_role("heading", name="Your picture has expired.")).to_be_visible()


def test_a_dropped_and_a_pasted_picture_are_searched(
    open_page: Callable[..., Page], service: str, pictures: Path, queries: tuple[DrawnQuery, ...]
) -> None:
    page = open_page()
    for kind, query in zip(("drop", "paste"), (queries[0], queries[-1]), strict=True):
        picture = (pictures / f"{query.reference_id}.jpg").read_bytes()
        page.evaluate(
            """([kind, bytes]) => {
              const data = new DataTransfer();
              data.items.add(new File([new Uint8Array(bytes)], "mine.jpg", {type: "image/jpeg"}));
              document.getElementById("drop").dispatchEvent(kind === "drop"
                ? new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true})
                : new ClipboardEvent("paste", {clipboardData: data, bubbles: true, cancelable: true}));
            }""",
            [kind, list(picture)],
        )
        nearest = answered(service, query, text="")[0]["id"]
        expect(page.locator(TILE).first).to_have_attribute("data-key", nearest)


def test_filters_have_counts_apply_in_qdrant_and_say_when_they_leave_nothing(
    open_page: Callable[..., Page], queries: tuple[DrawnQuery, ...]
) -> None:
    page = open_page(address(queries[0]))
    until_ranked(page, queries[0].modification_text)
    page.get_by_role("button", name="color", exact=True).click()
    value, count = page.locator("#filters .panel:visible .chip").first.inner_text().rsplit(" ", 1)
    page.locator("#filters .panel:visible .chip").first.click()
    page.wait_for_function("tiles => document.querySelectorAll('#wall .tile').length <= tiles", arg=int(count))
    until_ranked(page, queries[0].modification_text)
    shown = page.eval_on_selector_all(TILE, "tiles => tiles.map((tile) => tile.candidate.payload.color)")
    assert set(shown) == {value}
    assert int(count) - len(shown) in (0, 1)
    assert f"f.color={value}" in page.url
    page.goto(page.url + "&f.pattern=plutonium")
    expect(page.get_by_role("heading", name="Nothing is left with pattern: plutonium.")).to_be_visible()
    page.get_by_role("button", name="Lift pattern: plutonium").click()
    expect(page.locator(TILE).first).to_be_visible()
    assert "plutonium" not in page.url


def test_why_shows_parts_words_places_and_numbers_and_gives_the_focus_back(
    open_page: Callable[..., Page], queries: tuple[DrawnQuery, ...]
) -> None:
    query = queries[0]
    page = open_page(address(query))
    until_ranked(page, query.modification_text)
    page.locator(TILE).nth(2).hover()
    page.locator(TILE).nth(2).get_by_role("button", name="Why").click()
    drawer = page.get_by_role("dialog", name="Why here?")
    expect(drawer.locator(".sentence")).to_have_text(f"like this, but {query.modification_text}")
    expect(drawer.locator(".sentence u").first).to_be_visible()
    expect(drawer.locator(".lights")).to_be_visible()
    expect(drawer).to_contain_text(re.compile("(was [0-9]+(st|nd|rd|th), now 3rd|3rd before and after) of"))
    words = drawer.locator("table").nth(1).locator("tr th[scope=row]").all_text_contents()
    assert [word.split(" (")[0] for word in words] == query.modification_text.split()
    expect(drawer.locator("table").first).to_contain_text("re-ranked")
    page.keyboard.press("Escape")
    expect(drawer).to_be_hidden()
    expect(page.locator(".pick").nth(2)).to_be_focused()


def test_everything_can_be_done_with_the_keyboard(
    open_page: Callable[..., Page], queries: tuple[DrawnQuery, ...]
) -> None:
    query = queries[0]
    page = open_page(f"?like={query.reference_id}")
    page.keyboard.press("/")
    page.keyboard.type(query.modification_text)
    page.keyboard.press("Enter")
    until_ranked(page, query.modification_text)
    page.keyboard.press("?")
    assert "?" in page.locator("#text").input_value()
    page.keyboard.press("Backspace")
    page.locator(".pick[tabindex='0']").focus()
    order = keys(page)
    for key, place in (("ArrowRight", 1), ("ArrowDown", 6), ("ArrowLeft", 5), ("ArrowUp", 0), ("End", 58), ("Home", 0)):
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.closest('.tile').dataset.key") == order[place]
    assert page.locator("#wall .pick[tabindex='0']").count() == 1
    page.keyboard.press("w")
    expect(page.get_by_role("dialog", name="Why here?")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.locator("#reference img")).to_have_attribute("src", re.compile(f"/{order[1]}\\?"))
    page.locator(".pick[tabindex='0']").focus()
    page.keyboard.press("u")
    until_ranked(page, query.modification_text)


def test_a_second_picture_a_weight_and_must_not_are_in_the_query(
    open_page: Callable[..., Page], queries: tuple[DrawnQuery, ...]
) -> None:
    query = queries[0]
    page = open_page(address(query))
    until_ranked(page, query.modification_text)
    second = keys(page)[1]
    page.locator(".pick").nth(1).focus()
    page.keyboard.press("2")
    expect(page.locator("#reference2 img")).to_have_attribute("src", re.compile(f"/{second}\\?"))
    with page.expect_request("**/search") as sent:
        page.locator("#share").fill("70")
    assert sent.value.post_data_json["weights"] == [0.3, 0.7]
    assert [each["id"] for each in sent.value.post_data_json["references"]] == [query.reference_id, second]
    with page.expect_request("**/search") as sent:
        page.locator("#not").fill("red")
    assert sent.value.post_data_json["must_not"] == "red"
    expect(page.locator("#wall.old")).to_have_count(0)
    assert "not=red" in page.url
    page.locator("#curl-button").click()
    expect(page.locator("#curl pre")).to_contain_text('"must_not":"red"')


def test_the_curl_line_is_this_very_query(open_page: Callable[..., Page], queries: tuple[DrawnQuery, ...]) -> None:
    page = open_page(address(queries[0], **{"not": "a man's hat"}))
    until_ranked(page, queries[0].modification_text)
    page.locator("#curl-button").click()
    line = shlex.split(page.locator("#curl pre").inner_text())
    assert line[:2] == ["curl", "-s"]
    body = line[line.index("-d") + 1].encode()
    with urllib.request.urlopen(urllib.request.Request(line[2], body, {"Content-Type": "application/json"})) as answer:
        assert [each["id"] for each in json.load(answer)["candidates"]] == keys(page)


def test_one_per_product_shows_each_value_once(open_page: Callable[..., Page], queries: tuple[DrawnQuery, ...]) -> None:
    page = open_page(address(queries[0], per="family"))
    until_ranked(page, queries[0].modification_text)
    families = "tiles => tiles.map((tile) => tile.candidate.payload.family)"
    shown = page.eval_on_selector_all(TILE, families)
    assert len(shown) == len(set(shown)) > 1
    page.get_by_label("one per product").uncheck()
    expect(page.locator(TILE)).to_have_count(59)
    assert "per=" not in page.url


def test_without_a_good_match_the_wall_does_not_look_confident(
    open_page: Callable[..., Page], queries: tuple[DrawnQuery, ...]
) -> None:
    page = open_page()
    page.route(
        "**/search",
        lambda route: route.fulfill(
            response=(answer := route.fetch()),
            body=answer.text().replace('"is_match":null', '"is_match":false,"match_probability":0.07'),
        ),
    )
    page.locator("#text").fill("is red")
    page.keyboard.press("Enter")
    expect(page.locator("#notice")).to_have_text(re.compile("^No good match: the first is right with 7 %"))
    expect(page.locator("#wall")).to_have_class(re.compile("doubtful"))


def test_words_that_the_model_does_not_know_are_struck_through(
    open_page: Callable[..., Page], queries: tuple[DrawnQuery, ...]
) -> None:
    page = open_page(f"?like={queries[0].reference_id}&but=make+it+xylophonic+red")
    expect(page.locator("#unknown s")).to_have_text(["xylophonic"])


def fulfil(status: int, body: str, **headers: str) -> Callable[[Route], None]:
    kind = "text/event-stream" if body.startswith("event:") else "application/json"
    return lambda route: route.fulfill(status=status, body=body, headers={"Content-Type": kind, **headers})


def test_a_busy_service_is_asked_again_by_itself(
    open_page: Callable[..., Page], queries: tuple[DrawnQuery, ...]
) -> None:
    page = open_page()
    page.route("**/search", fulfil(429, "{}", **{"Retry-After": "1"}), times=1)
    page.locator("#text").fill("is red")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="The service is busy.")).to_be_visible()
    until_ranked(page, "is red")


def test_a_phone_shows_two_columns_and_nothing_is_wider_than_it(
    open_page: Callable[..., Page], queries: tuple[DrawnQuery, ...]
) -> None:
    query = queries[0]
    page = open_page(address(query), viewport=PHONE, is_mobile=True, has_touch=True)
    until_ranked(page, query.modification_text)
    assert page.locator("#wall .row").first.locator(".tile").count() == 2
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    expect(page.get_by_text("Take a photo")).to_be_visible()
    assert page.locator("#camera").get_attribute("capture") == "environment"
    tile = page.locator(TILE).first
    expect(tile.get_by_role("button", name="Why")).to_be_hidden()
    tile.dispatch_event("contextmenu")
    tile.get_by_role("button", name="Why").tap()
    expect(page.get_by_role("dialog", name="Why here?")).to_be_visible()
    small = page.evaluate(
        """() => [...document.querySelectorAll("button, summary, select, a, .button, input:not(.away), textarea")]
          .filter((each) => each.checkVisibility({opacityProperty: true}) && !each.closest("label"))
          .map((each) => [each.outerHTML.slice(0, 80), each.getBoundingClientRect()])
          .filter(([, {height, width}]) => Math.min(height, width) < 43.5).map(([html]) => html)"""
    )
    assert small == []


def test_without_scripts_it_says_what_to_do(open_page: Callable[..., Page]) -> None:
    page = open_page(java_script_enabled=False)
    expect(page.locator("noscript p")).to_be_visible()
    expect(page.locator("noscript p")).to_contain_text("This page needs JavaScript.")


def test_the_first_wall_stands_within_300_ms_and_nothing_jumps(
    open_page: Callable[..., Page], queries: tuple[DrawnQuery, ...]
) -> None:
    query = queries[0]
    page = open_page(f"?like={query.reference_id}")
    times = []
    for text in (query.modification_text, "is red", "is blue", "is green", query.modification_text):
        page.locator("#text").fill(text)
        page.evaluate(
            """() => { window.first = new Promise((done) => addEventListener("keydown", () => {
                const start = performance.now();
                new MutationObserver((_, watcher) => {
                  if (document.querySelector("#wall.old") || !document.querySelector("#wall .tile img")) return;
                  watcher.disconnect();
                  requestAnimationFrame(() => done(performance.now() - start));
                }).observe(document.getElementById("wall"), {childList: true, attributes: true});
              }, {once: true, capture: true})); }"""
        )
        page.keyboard.press("Enter")
        times.append(page.evaluate("window.first"))
        until_ranked(page, text)
    assert min(times[1:]) < 300, times
    page.wait_for_timeout(300)
    shifts = page.evaluate(
        "shifts.filter(({at}) => !moves.some(({from, to}) => from - 20 <= at && at <= to)).map(({value}) => value)"
    )
    assert sum(shifts) < 0.02, shifts


# the rows after the third are more of the same
_AXE = """axe.run({exclude: [".row:nth-child(n + 4)"]}, {resultTypes: ["violations"]})
  .then(({violations}) => violations)"""
STATES = ("empty", "loading", "slow", "partial", "error", "offline", "no result", "busy", "ranked", "sides", "why")


def reach(page: Page, state: str, query: DrawnQuery, first_events: str) -> None:
    """Bring a page into a state."""
    if state == "empty":
        return
    if state == "loading":
        page.evaluate("const set = setTimeout; window.setTimeout = (act, wait) => wait === 1500 ? 0 : set(act, wait)")
    routes: dict[str, Callable[[Route], None]] = {
        "loading": lambda route: None,
        "slow": lambda route: None,
        "partial": fulfil(200, first_events),
        "error": fulfil(500, '{"error": {"message": "the disk is full"}}'),
        "offline": lambda route: route.abort("connectionrefused"),
        "busy": fulfil(429, "{}", **{"Retry-After": "60"}),
    }
    if state in routes:
        page.route("**/search", routes[state])
    if state == "no result":
        page.goto(page.url.split("?")[0] + address(query, **{"f.color": "plutonium"}))
    else:
        page.locator(".pick").first.click()
        page.locator("#text").fill(query.modification_text)
        page.keyboard.press("Enter")
    seen = {
        "loading": ".waits",
        "slow": "text=This takes longer than usual.",
        "partial": "text=The answer ended early.",
        "error": "text=Something broke in the service.",
        "offline": "text=The service cannot be reached.",
        "no result": "text=Nothing is left with color: plutonium.",
        "busy": "text=The service is busy.",
    }
    if state in seen:
        expect(page.locator(seen[state]).first).to_be_visible()
        return
    until_ranked(page, query.modification_text)
    if state == "sides":
        page.get_by_label("side by side").check()
    if state == "why":
        page.locator(".pick").first.focus()
        page.keyboard.press("w")
        expect(page.locator("#why .lights")).to_be_visible()
        page.locator("#why summary").click()


@pytest.mark.parametrize("state", STATES)
def test_axe_finds_nothing_in_any_state_scheme_or_width(
    open_page: Callable[..., Page], service: str, queries: tuple[DrawnQuery, ...], state: str
) -> None:
    axe = resources.files(pytest.importorskip("axe_playwright_python", reason="needs browser: axe is not installed"))
    query = queries[0]
    retrieved = [{**each, "score": None} for each in answered(service, query, rerank_depth=0)]
    page = open_page()
    reach(page, state, query, f"event: retrieved\ndata: {json.dumps({'candidates': retrieved})}\n\n")
    page.evaluate((axe / "axe.min.js").read_text("utf-8"))
    found = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        for size in (WIDE, PHONE):
            page.set_viewport_size(size)
            page.wait_for_timeout(60)
            violations = page.evaluate(_AXE)
            found += [
                f"{scheme} {size['width']}: {each['id']}: {node['html'][:120]}: {node['failureSummary']}"
                for each in violations
                for node in each["nodes"][:3]
            ]
    assert not found, "\n".join(found)
