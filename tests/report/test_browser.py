"""The page in headless Chromium: opened from a file, clicked through, printed; nothing on the console, nothing from the network."""

import base64
import json

import pytest
from msgspec import structs

from secondsight.report import write
from secondsight.report.schema import pack
from support.browser import Browser
from support.results import results

pytestmark = pytest.mark.browser


@pytest.fixture
def opened(tmp_path):
    write(results(), tmp_path / "r.html")
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(tmp_path / "r.html")
        yield browser
        assert browser.complaints == []
        # The page itself and its data: icon; a URL of any other kind would be the network.
        assert all(url.startswith(("file://", "data:", "blob:")) for url in browser.requests)
    finally:
        browser.close()


def place(browser, selector, x=0.5, y=0.5):
    """A point inside *selector*, scrolled into view."""
    # A click is aimed at what was last drawn: let the scroll be drawn first.
    box = browser.run(
        f"(async () => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center'}}); "
        "await new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r))); "
        "const b = e.getBoundingClientRect(); return [b.x, b.y, b.width, b.height]; })()"
    )
    return box[0] + x * box[2], box[1] + y * box[3]


def text(browser, selector):
    return browser.run(f"document.querySelector('{selector}').innerText")


def test_a_click_in_the_map_tells_a_blocks_history(opened):
    before = text(opened, "#history h3")
    opened.click(*place(opened, "#heat", 0.6, 0.05))
    after = text(opened, "#history h3")
    assert after != before
    assert "under khugepaged under 6.1" in after
    assert "lack_referenced_page" in text(opened, "#history")
    assert "66bc627e7fee" in text(opened, "#history")
    opened.click(*place(opened, "#next"))
    assert text(opened, "#history h3") not in (before, after)


def test_a_drag_zooms_and_a_double_click_undoes_it(opened):
    picture = "document.querySelector('#heat').toDataURL()"
    opened.run(f"window.whole = {picture}; 0")
    x, y = place(opened, "#heat", 0.5, 0.3)
    opened.click(x, y, to=(x, y + 60))
    opened.until(f"{picture} !== window.whole")
    opened.click(*place(opened, "#zoomout"))
    opened.until(f"{picture} === window.whole")


def test_a_row_and_a_channel_are_chosen(opened):
    opened.click(*place(opened, "tr[data-row='4'] td"))
    opened.until("document.querySelector('#rowpick').value === '4'")
    assert "under hawkeye under 7.2" in text(opened, "#history h3")
    opened.click(*place(opened, "#channels button[data-key='secondary']"))
    assert (
        opened.run(
            "document.querySelector('#channels button[data-key=secondary]').getAttribute('aria-pressed')"
        )
        == "true"
    )
    opened.click(*place(opened, "#heat", 0.6, 0.5))
    assert "recorded no verdicts" in text(opened, "#history")


def test_refused_attempts_are_drawn_and_told(opened):
    opened.run(
        "(async () => { const s = document.querySelector('#rowpick'); s.value = '1'; await s.onchange(); })()"
    )
    opened.click(*place(opened, "#channels button[data-key='refused']"))
    assert "33 refused" in text(opened, "#key")
    heads = [cell.strip() for cell in text(opened, "#history thead").split("\t")]
    assert heads[-3:-1] == ["size", "refused"]
    assert "64 KiB" in text(opened, "#history tbody")
    # A row that refused nothing, or was not asked, has no such picture.
    opened.click(*place(opened, "tr[data-row='4'] td"))
    opened.until("document.querySelector('#rowpick').value === '4'")
    assert opened.run("document.querySelector('#channels button[data-key=refused]').disabled") is True
    assert "512 young" in text(opened, "#key")


@pytest.mark.parametrize("width", [480, 1200])
def test_nothing_is_wider_than_the_window(opened, width):
    opened.call(
        "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
    )
    opened.until(f"innerWidth === {width}")
    assert opened.run("document.documentElement.scrollWidth") <= width


def test_a_page_of_before_orders_works(tmp_path):
    from pathlib import Path

    from secondsight.report import decode

    old = Path(__file__).with_name("results-before-orders.json")
    write(decode(old.read_bytes(), str(old)), tmp_path / "old.html")
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(tmp_path / "old.html")
        assert browser.complaints == []
        assert browser.run("document.querySelector('#channels button[data-key=refused]')") is None
        assert "lack_referenced_page" in text(browser, "#history")
    finally:
        browser.close()


def test_a_heading_sorts(opened):
    column = "[...document.querySelectorAll('tbody tr')].map(r => Number(r.cells[3].dataset.v)).slice(0, 6)"
    opened.click(*place(opened, "th:nth-child(4) button"))
    down = opened.run(column)
    assert down == sorted(down, reverse=True)
    opened.click(*place(opened, "th:nth-child(4) button"))
    assert opened.run(column) == sorted(down)


def test_an_address_is_found(opened):
    x, y = place(opened, "#find")
    opened.click(x, y)
    opened.call("Input.insertText", text="0x7f0000200abc")
    opened.call("Input.dispatchKeyEvent", type="keyDown", key="Enter", windowsVirtualKeyCode=13, text="\r")
    assert "0x7f0000200000" in text(opened, "#history h3")


def test_all_figures_and_both_themes(opened):
    opened.click(*place(opened, "#more"))
    assert opened.run("getComputedStyle(document.querySelector('.extra')).display") == "table-cell"
    for theme, dark in (("light", False), ("dark", True)):
        opened.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        paper = opened.run("getComputedStyle(document.body).backgroundColor")
        assert (paper != "rgb(255, 255, 255)") is dark


def test_it_prints(opened):
    raw = base64.b64decode(
        opened.call("Page.printToPDF", printBackground=True, preferCSSPageSize=True)["data"]
    )
    assert raw.startswith(b"%PDF")
    assert len(raw) > 20_000


def test_over_many_traces_there_is_no_map_and_all_else_works(tmp_path):
    made = results()
    nothing = type(made.blocks)(*(pack([], d) for d in ("i4", "f8", "f8", "i4")))
    bare = [structs.replace(r, channels={}, events=None, fate=None, curve=[]) for r in made.rows]
    spread = {
        "coverage": {
            r.label: [(0.0, 0.1 * i), (0.5, 0.2 * i), (1.0, 0.2 * i)] for i, r in enumerate(made.rows)
        }
    }
    write(
        structs.replace(made, rows=bare, blocks=nothing, spaces=[], spread=spread, oracle=[]),
        tmp_path / "r.html",
    )
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(tmp_path / "r.html")
        assert browser.run("document.querySelector('#heat')") is None
        assert "map" not in text(browser, ".tools")
        assert "Coverage over the traces" in text(browser, ".charts")
        browser.click(*place(browser, "th:nth-child(4) button"))
        browser.click(*place(browser, "tr[data-row='2'] td"))
        browser.click(*place(browser, "#theme"))
        browser.call(
            "Input.dispatchMouseEvent",
            type="mouseMoved",
            **dict(zip("xy", place(browser, ".charts svg"), strict=True)),
        )
        assert "under" in browser.run(
            "[...document.querySelectorAll('.tip')].find(t => t.style.display === 'block').innerText"
        )
        assert browser.complaints == []
    finally:
        browser.close()


def test_without_channels_a_block_still_has_its_history(tmp_path):
    made = results()
    write(
        structs.replace(made, rows=[structs.replace(r, channels={}) for r in made.rows]), tmp_path / "r.html"
    )
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(tmp_path / "r.html")
        assert browser.run("document.querySelector('#heat').checkVisibility()") is False
        assert "lack_referenced_page" in text(browser, "#history")
        browser.click(*place(browser, "#next"))
        assert browser.complaints == []
    finally:
        browser.close()


def test_tens_of_thousands_of_blocks_stay_fluid(tmp_path):
    write(results(blocks=30_000, columns=24, rows=4), tmp_path / "big.html")
    browser = Browser(tmp_path / "profile")
    try:
        seconds = browser.open(tmp_path / "big.html")
        assert seconds < 10
        # A redraw of the whole map, the worst case while zooming: milliseconds on this machine, a generous bound for a busy one.
        milliseconds = browser.run(
            "(async () => { const t = performance.now(); for (let i = 0; i < 5; i++) { dispatchEvent(new Event('resize')); "
            "await new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r))); } return (performance.now() - t) / 5; })()"
        )
        assert milliseconds < 250
        assert browser.complaints == []
    finally:
        browser.close()
