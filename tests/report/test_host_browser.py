"""The page of a recorded host in headless Chromium: both themes, wide and narrow; nothing on the console, nothing from the network."""

import pytest

from secondsight.host.recorded import history
from secondsight.report import host_page
from support.browser import Browser
from support.host_recordings import record

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hosts")
    record(folder / "host.parquet")
    host_page.write(history(folder / "host.parquet", 50), folder / "host.html")
    return folder / "host.html"


@pytest.mark.parametrize("width", [1200, 480])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_opens_and_fits(page, width, theme, tmp_path):
    browser = Browser(tmp_path / "profile", width=width)
    try:
        browser.call(
            "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}]
        )
        browser.open(page)
        # Tables scroll by themselves; the page never sideways.
        assert browser.run("document.documentElement.scrollWidth") <= width
        paper = browser.run("getComputedStyle(document.body).backgroundColor")
        assert (paper != "rgb(255, 255, 255)") is (theme == "dark")
        # A line for each mark in every chart, inside of it.
        assert browser.run(
            "[...document.querySelectorAll('svg.chart')].every(s => s.querySelectorAll('.mark').length === 1)"
        )
        assert browser.run("document.querySelectorAll('svg.chart').length") >= 5
        assert browser.complaints == []
        assert all(url.startswith(("file://", "data:")) for url in browser.requests)
    finally:
        browser.close()


def test_its_table_sorts_and_a_chart_tells_its_values(page, tmp_path):
    browser = Browser(tmp_path / "profile")
    try:
        browser.open(page)
        column = "[...document.querySelectorAll('#table ~ .tablebox tbody tr')].slice(0, 4).map(r => Number(r.cells[2].dataset.v))"
        browser.run("document.querySelectorAll('th button')[2].click()")
        column_values = browser.run(column)
        assert column_values == sorted(column_values, reverse=True)
        browser.run("document.querySelector('#more').click()")
        assert browser.run("getComputedStyle(document.querySelector('.extra')).display") == "table-cell"
        box = browser.run(
            "(async () => { const e = document.querySelectorAll('svg.chart')[1]; e.scrollIntoView({block: 'center'}); "
            "await new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r))); "
            "const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=box[0], y=box[1])
        tooltip = browser.run(
            "[...document.querySelectorAll('.tip')].find(t => t.style.display === 'block').innerText"
        )
        assert "grows" in tooltip and "MiB" in tooltip
        # The name that is a script is a name.
        assert "<script>" in browser.run("document.querySelector('#table ~ .tablebox').innerText")
        assert browser.complaints == []
    finally:
        browser.close()
