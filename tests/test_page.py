"""The page, in a headless Chromium (Debian: chromium, chromium-driver): asked by keyboard, light and dark."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tfft
from tests.test_proving import make_run
from tests.test_server import Running, serving

# Where the pictures of docs/ are written anew, if it is asked for.
PICTURES = os.environ.get("TFFT_PICTURES")


@pytest.fixture(scope="module")
def server(presets: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("page")
    for seed in (1, 2):
        tfft.export_saved_model(make_run(presets("bert"), seed), folder / "models" / "reviews")
    with serving(folder / "models") as running:
        yield running


@pytest.fixture(params=["light", "dark"])
def browser(request: pytest.FixtureRequest) -> Iterator[Any]:
    driver, chromium = shutil.which("chromedriver"), shutil.which("chromium")
    if not driver or not chromium:
        pytest.skip("no chromium and chromedriver on this machine (Debian: chromium, chromium-driver)")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=900,900", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options, webdriver.ChromeService(driver))
    opened.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": request.param}]}
    )
    opened.scheme = request.param
    yield opened
    opened.quit()


@pytest.mark.slow
def test_a_text_is_asked_by_keyboard_and_answered(server: Running, browser: Any) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import WebDriverWait

    def shown(name: str) -> Any:
        return browser.find_element(By.ID, name)

    browser.get(server.address)
    wait = WebDriverWait(browser, 20)
    wait.until(lambda _: shown("model").get_attribute("value") == "reviews")
    assert [option.text for option in shown("version").find_elements(By.TAG_NAME, "option")] == ["newest", "2"]
    shown("text").send_keys("the movie was good")
    shown("text").send_keys(Keys.CONTROL, Keys.ENTER)
    wait.until(lambda _: shown("answer").is_displayed())
    row = server.post("/v1/models/reviews:predict", {"instances": ["the movie was good"]}).json()["predictions"][0]
    assert shown("answered").text == f"{row['label']}, {100 * row['score']:.1f} %"
    lines = shown("classes").find_elements(By.TAG_NAME, "tr")
    assert lines[0].find_element(By.TAG_NAME, "th").text == row["label"]
    bar, track = (lines[0].find_element(By.CLASS_NAME, name).size["width"] for name in ("bar", "track"))
    assert bar / track == pytest.approx(row["score"], abs=0.02)
    back = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, back[4:-1].split(","))) < 200) == (browser.scheme == "dark")
    if PICTURES:
        Path(PICTURES).mkdir(parents=True, exist_ok=True)
        browser.save_screenshot(str(Path(PICTURES) / f"page-{browser.scheme}.png"))

    # an error is said aloud, and everything has a name
    browser.execute_script("document.getElementById('text').value = 'x'.repeat(200000)")
    shown("go").click()
    wait.until(lambda _: shown("problem").is_displayed())
    assert "a text of 200000 bytes" in shown("problem").text
    assert shown("problem").get_attribute("role") == "alert"
    for name in ("model", "version", "text"):
        assert shown(name).accessible_name
    refused = [line for line in browser.get_log("browser") if "413" not in line["message"]]
    assert [line for line in refused if line["level"] == "SEVERE" and "favicon" not in line["message"]] == []
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map(one => one.name)")
    assert all(name.startswith(server.address) for name in loaded)
