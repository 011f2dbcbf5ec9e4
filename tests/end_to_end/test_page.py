"""The web page at "/" in a real Chromium, with a running server."""

from __future__ import annotations

import base64
import io
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from serve.atlas.data import save_atlas
from serve.config.schema import Settings
from tests.artifacts import quadrant_image
from tests.serve.atlas.atlases import atlas_of, cell, network
from tests.waiting import until

PATIENCE_SECONDS = 30
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--window-size=1200,1000")
ONLINE = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
SET = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', { bubbles: true }))"
DROP = """
const [target, name, bytes] = arguments;
const transfer = new DataTransfer();
transfer.items.add(new File([Uint8Array.from(atob(bytes), c => c.charCodeAt(0))], name));
document.getElementById(target).dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, cancelable: true }));
"""
DROP_BYTES = DROP.replace("Uint8Array.from(atob(bytes), c => c.charCodeAt(0))", "new Uint8Array(bytes)")
PASTE = DROP.replace(
    'document.getElementById(target).dispatchEvent(new DragEvent("drop", { dataTransfer',
    'document.dispatchEvent(new ClipboardEvent("paste", { clipboardData',
)


class Page:
    """The page in the browser."""

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver = driver
        self.url = url

    def open(self, section: str = "playground") -> None:
        self.driver.get("about:blank")
        self.driver.get(f"{self.url}/#{section}")
        self.wait(lambda: self.script("return document.documentElement.dataset.ready") == "yes")

    def script(self, text: str, *arguments: Any) -> Any:
        return self.driver.execute_script(text, *arguments)

    def wait(self, condition: Callable[[], Any]) -> Any:
        return WebDriverWait(self.driver, PATIENCE_SECONDS).until(lambda _: condition(), self.text("body")[:2000])

    def text(self, selector: str) -> str:
        return str(self.driver.find_element(By.CSS_SELECTOR, selector).text)

    def click(self, selector: str) -> None:
        self.driver.find_element(By.CSS_SELECTOR, selector).click()

    def choose(self, *models: str) -> None:
        for box in self.driver.find_elements(By.CSS_SELECTOR, "#models input"):
            if box.is_selected() != (box.get_attribute("id") in [f"model-{model}" for model in models]):
                box.click()

    def answers(self, count: int) -> str:
        """The text of the answers once the table has `count` complete rows."""
        rows = "const all = document.querySelectorAll('#answers tr');"
        complete = f"{rows} return all.length === {count} && all[{count - 1}].cells.length > 1"
        self.wait(lambda: self.script(complete))
        return self.text("#answers")

    def complaints(self) -> list[str]:
        """Messages of Chromium's console, without those about refused requests, which tests provoke."""
        log: Callable[[str], list[dict[str, str]]] = self.driver.get_log
        return [entry["message"] for entry in log("browser") if "Failed to load resource" not in entry["message"]]


@pytest.fixture(scope="module")
def driver() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    yield chrome
    chrome.quit()


@pytest.fixture
def page(driver: webdriver.Chrome, server: Settings) -> Iterator[Page]:
    shown = Page(driver, f"http://127.0.0.1:{server.listen.http_port}")
    yield shown
    assert shown.complaints() == []


def encoded(image: bytes) -> str:
    return base64.b64encode(image).decode()


@pytest.mark.parametrize("way", [DROP, PASTE], ids=["dropped", "pasted"])
def test_a_photo_is_classified_with_times_and_energy(page: Page, samples: Path, way: str) -> None:
    page.open()
    page.choose("squeezenet1_1-imagenet", "resnet20-cifar10")
    page.script(way, "drop", "cat.png", encoded((samples / "chelsea.png").read_bytes()))
    shown = page.answers(2)
    assert any(cat in shown for cat in ("tabby", "tiger cat", "Egyptian cat"))
    assert "resnet20-cifar10" in shown
    assert "queue" in page.script("return document.querySelector('.stages').title")
    page.wait(lambda: page.driver.find_element(By.ID, "preview").is_displayed())


def test_a_chosen_file_and_a_sample_are_classified(page: Page, samples: Path) -> None:
    page.open()
    page.choose("lenet5-mnist")
    page.driver.find_element(By.ID, "file").send_keys(str((samples / "mnist-0-7.png").resolve()))
    assert "7" in page.answers(1)
    page.click("#samples button[title^='4 ']")
    page.wait(lambda: page.text("#answers tr td b") == "4")


def test_a_drawn_digit_is_classified(page: Page) -> None:
    page.open()
    page.choose("lenet5-mnist")
    pad = page.driver.find_element(By.ID, "pad")
    seven = ActionChains(page.driver, duration=40).move_to_element_with_offset(pad, -50, -70).click_and_hold()
    for step in ((100, 0), (-30, 70), (-30, 70)):
        seven = seven.move_by_offset(*step)
    seven.release().perform()
    page.click("#read")
    page.answers(1)
    assert page.text("#answers tr td b") == "7"
    page.click("#wipe")
    page.click("#read")
    page.wait(lambda: "Draw a digit first" in page.text("#problem"))


def huge_png() -> bytes:
    """A small PNG whose header declares 200 megapixels."""
    header = struct.pack(">IIBBBBB", 20_000, 10_000, 8, 0, 0, 0, 0)
    chunks = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b""))
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize(
    ("image", "message"),
    [(huge_png(), "smaller image"), (b"not an image at all", "JPEG, PNG")],
    ids=["200 megapixels", "no image"],
)
def test_an_unreadable_image_is_explained(page: Page, image: bytes, message: str) -> None:
    page.open()
    page.choose("squeezenet1_1-imagenet")
    page.script(DROP, "drop", "image.png", encoded(image))
    assert message in page.answers(1)
    assert not page.driver.find_element(By.ID, "preview").is_displayed()


def test_a_file_over_the_limit_is_explained(page: Page, server: Settings) -> None:
    page.open()
    page.choose("squeezenet1_1-imagenet")
    page.script(DROP_BYTES, "drop", "image.jpg", server.limits.body_bytes + 1)
    assert "smaller image" in page.answers(1)


def quadrant(bright: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(quadrant_image(bright)).save(file, "PNG")
    return file.getvalue()


def test_an_unavailable_model_is_shown_with_the_reason(page: Page, http: httpx.Client) -> None:
    assert http.post("/v2/repository/models/quadrants-b/unload").status_code == 200
    try:
        page.open()
        assert "quadrants-b is UNAVAILABLE: unloaded" in page.text("#models")
        assert not page.driver.find_elements(By.ID, "model-quadrants-b")
    finally:
        assert http.post("/v2/repository/models/quadrants-b/load").status_code == 200
    page.open()
    assert page.driver.find_elements(By.ID, "model-quadrants-b")
    assert "UNAVAILABLE" not in page.text("#models")


def test_an_experiment_shows_its_verdict_arms_and_history(page: Page, http: httpx.Client) -> None:
    arms = [{"name": "first", "model": "quadrants-a"}, {"name": "second", "model": "quadrants-b"}]
    assert http.post("/v1/experiments", json={"name": "shown", "arms": arms}).status_code == 201
    ask = partial(http.post, "/v1/models/shown/classify", content=quadrant(0))
    until(lambda: ask().status_code == 200)
    until(
        lambda: (
            ask().is_success and all(arm["energy"] for arm in http.get("/v1/experiments/shown/report").json()["arms"])
        )
    )
    for number in range(60):
        assert ask(params={"id": f"shown-{number}"}).status_code == 200
    labels = [{"id": f"shown-{number}", "label": int(number % 3 == 0), "experiment": "shown"} for number in range(60)]
    assert http.post("/v1/feedback", json={"feedback": labels}).status_code == 202
    page.open("experiments/shown")
    page.wait(lambda: page.driver.find_elements(By.CSS_SELECTOR, "#differences svg[role=img] path"))
    report = http.get("/v1/experiments/shown/report").json()
    assert page.text("#sentence") == report["sentence"]
    assert {"first", "second", "50.0 %"} <= {
        part for line in page.text("#arms").split("\n") for part in (line, line[:6])
    }
    assert "estimated, declared" in page.text("#arms")
    assert "calibration error" in page.text("#classes")
    assert "top right" in page.text("#classes")
    assert page.text("#class-arms").split() == ["class", "first", "second"]
    assert "second minus first" in page.text("#differences")
    page.driver.find_element(By.LINK_TEXT, "split").click()
    page.wait(lambda: page.text("#report-title") == "split")


def test_ensembles_and_cascades_show_their_members_and_cost(page: Page, http: httpx.Client, samples: Path) -> None:
    ship = (samples / "cifar10-1-ship.png").read_bytes()
    assert http.post("/v1/models/cifar10-cascade/classify", content=ship).status_code == 200
    page.open("ensembles")
    page.wait(lambda: "100.0 % of" in page.text("#compositions"))
    shown = page.text("#compositions")
    for plan in http.get("/v1/explain").json()["compositions"]:
        assert f"{plan['name']} ({plan['kind']})" in shown
    assert "So far: resnet20-cifar10" in shown
    assert page.driver.find_elements(By.CSS_SELECTOR, "#compositions svg[role=img] rect")


def test_live_figures_change_under_load(page: Page, http: httpx.Client, samples: Path) -> None:
    digit = (samples / "mnist-0-7.png").read_bytes()
    stopped = threading.Event()

    def send() -> None:
        while not stopped.is_set():
            http.post("/v1/models/lenet5-mnist/classify", content=digit)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        page.open("health")
        rate = "return +document.querySelector('#vitals b')?.textContent > 0"
        page.wait(lambda: page.script(rate))
        assert "modelled, declared" in page.text("#vitals")
        assert "lenet5-mnist" in page.text("#vital-models")
        page.wait(lambda: page.driver.find_elements(By.CSS_SELECTOR, "#rates svg path"))
    finally:
        stopped.set()
        thread.join()


def test_an_unreachable_server_is_reported(page: Page) -> None:
    page.open("health")
    page.driver.execute_cdp_cmd("Network.enable", {})
    page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", ONLINE | {"offline": True})
    try:
        page.wait(lambda: "does not answer" in page.text("#problem"))
    finally:
        page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", ONLINE)
    page.wait(lambda: page.text("#problem") == "")


def test_the_atlas_is_drawn_if_its_file_exists(page: Page, server: Settings) -> None:
    server.atlas_path.unlink(missing_ok=True)
    page.open("atlas")
    page.wait(lambda: "convoy atlas" in page.text("#problem"))
    nets = [network(f"net{size}", size * 10**8, 0.5 + 0.02 * size) for size in range(1, 8)]
    atlas = atlas_of(nets, [cell(net, batch, net.macs / 1e10, 9.0) for net in nets for batch in (1, 2, 16)])
    save_atlas(atlas, server.atlas_path)
    try:
        page.open("atlas")
        page.wait(lambda: len(page.driver.find_elements(By.CSS_SELECTOR, "#charts svg")) == 9)
        assert page.text("#charts").count("Holds.") >= 2
        page.script(SET, page.driver.find_element(By.NAME, "top1"), 61)
        assert page.text("#cheapest").startswith("net6")
        server.atlas_path.write_text("{")
        page.open("atlas")
        page.wait(lambda: "is no atlas" in page.text("#problem"))
    finally:
        server.atlas_path.unlink()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone_in_both_colour_schemes(page: Page, scheme: str) -> None:
    cdp = page.driver.execute_cdp_cmd
    cdp("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    cdp("Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True})
    try:
        page.open()
        ground = page.script("return getComputedStyle(document.body).backgroundColor")
        light = sum(int(part) for part in ground.removeprefix("rgb(").removesuffix(")").split(",")) / 3
        assert light > 200 if scheme == "light" else light < 60
        for section in ("playground", "health", "experiments/paired", "ensembles", "atlas"):
            page.open(section)
            assert page.script("return document.documentElement.scrollWidth <= innerWidth"), section
    finally:
        cdp("Emulation.setEmulatedMedia", {"features": []})
        cdp("Emulation.clearDeviceMetricsOverride", {})


def test_the_content_security_policy_allows_only_own_resources(http: httpx.Client) -> None:
    policy = dict(part.strip().split(" ", 1) for part in http.get("/").headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in str(policy)
