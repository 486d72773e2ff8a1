"""The page of a report in a real browser: no error, no request, every picture, in light and dark, wide and narrow."""

import shutil

import pytest

for package in ("matplotlib", "sklearn", "tests.support.ffcv_installed"):
    pytest.importorskip(package, reason=f"{package} is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

pytestmark = pytest.mark.whole_run

CHROMIUM = shutil.which("chromium")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1240), ("dark", 390)])
def test_the_page_is_whole_and_asks_for_nothing(browser, reported, scheme, width):
    with browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900}) as context:
        page = context.new_page()
        told, asked = [], []
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("dialog", lambda dialog: told.append(dialog.message))
        page.on("request", lambda request: asked.append(request.url))
        address = (reported / "report.html").as_uri()
        page.goto(address)
        assert told == [] and [url for url in asked if not url.startswith("data:")] == [address]
        broken = page.evaluate("[...document.images].filter(image => !image.complete || !image.naturalWidth).length")
        assert page.evaluate("document.images.length") == len(list(reported.glob("*.png"))) and broken == 0
        assert page.evaluate("document.documentElement.scrollWidth") <= width  # nothing sticks out
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, paper[4:-1].split(","))) < 300) == (scheme == "dark")
        page.get_by_text("The most frequent confusions").click()
        assert page.get_by_role("cell", name="<img src=x onerror=alert(1)>").count() > 0  # text, not an element
