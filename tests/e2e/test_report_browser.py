"""The report of a run in a real browser, from the disk: it filters, sorts, and asks for nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bigner.cli import run as bigner
from tests.e2e.conftest import main
from tests.finished_run import write_run
from tests.unit.test_report import FIRST, GOLD, HOSTILE, SECOND, SURE, WORDS

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

MANY = 5000
ON_A_PAGE = 50


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless Chromium that notes what it asks for and what its console is told."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium and chromedriver (Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (
        *("headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run"),
        *("disable-background-networking", "disable-component-update", "disable-sync"),
        "disable-dev-shm-usage",
        f"user-data-dir={tmp_path_factory.mktemp('profile')}",
        "window-size=1280,1000",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    started = webdriver.Chrome(options=options, service=service)
    yield started
    started.quit()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Reports: of one run, of two, and of one with thousands of errors."""
    path = tmp_path_factory.mktemp("reports")
    write_run(path / "a", WORDS, GOLD, FIRST, confidences=SURE)
    write_run(path / "b", WORDS, GOLD, SECOND)
    words, gold, predicted = many()
    write_run(path / "many", words, gold, predicted, confidences=random_confidences(words))
    report(path, "one.html", "a")
    report(path, "two.html", "a", "b")
    report(path, "many.html", "many")
    return path


def report(folder: Path, name: str, *runs: str) -> None:
    folders = [str(folder / run) for run in runs]
    assert bigner(["report", *folders, "--output", str(folder / name)]) == 0


def many() -> tuple[list[list[str]], list[list[str]], list[list[str]]]:
    """Sentences of which each has one to three errors."""
    random = np.random.default_rng(0)
    words, gold, predicted = [], [], []
    for number in range(MANY):
        length, errors = 20, int(random.integers(1, 4))
        words.append([f"word{number}", *(f"w{int(i)}" for i in random.integers(99, size=19))])
        gold.append(["B-PER" if i < errors else "O" for i in range(length)])
        predicted.append(["B-LOC" if 1 < i < errors else "O" for i in range(length)])
    return words, gold, predicted


def random_confidences(words: list[list[str]]) -> list[list[str]]:
    random = np.random.default_rng(1)
    return [[f"{value:.4f}" for value in random.random(len(sentence))] for sentence in words]


@pytest.fixture
def opened(browser: Any, folder: Path) -> Iterator[Any]:
    """Opens a report; whatever a test does then, no script fails and nothing is asked for."""

    def go_to(name: str) -> Any:
        for kind in ("browser", "performance"):
            browser.get_log(kind)
        browser.get((folder / name).as_uri())
        return browser

    yield go_to
    assert browser.get_log("browser") == []
    asked = requests(browser)
    assert asked
    assert [url for url in asked if not url.startswith(folder.as_uri())] == []
    assert {url.rpartition(".")[2] for url in asked} == {"html"}


def requests(browser: Any) -> list[str]:
    """Addresses that a page asked for, itself included."""
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]


def choose(browser: Any, control: str, value: str) -> None:
    """Set a control as a person does."""
    script = """
    const control = document.getElementById(arguments[0]);
    control.value = arguments[1];
    control.dispatchEvent(new Event("input", {bubbles: true}));
    return control.value;
    """
    assert browser.execute_script(script, control, value) == value


def choose_by_name(browser: Any, control: str, name: str) -> None:
    """Set a control by what it shows."""
    script = """
    return [...document.getElementById(arguments[0]).options]
        .filter((option) => option.textContent === arguments[1])[0].value;
    """
    choose(browser, control, browser.execute_script(script, control, name))


def lines(browser: Any) -> list[int]:
    """The lines in the file of the sentences that are shown."""
    script = """
    return [...document.querySelectorAll("#sentences > li .place")]
        .map((place) => Number(place.firstChild.textContent.split(":")[1]));
    """
    found: list[int] = browser.execute_script(script)
    return found


def shown(browser: Any) -> str:
    text: str = browser.find_element("id", "shown").text
    return text


# ---------------------------------------------------------------- one run


def test_it_filters(opened: Any) -> None:
    browser = opened("one.html")
    assert lines(browser) == [1, 8, 12, 18]
    assert shown(browser) == "1\N{EN DASH}4 of 4 sentences"
    kinds = ("boundary", "type", "boundary and type", "missed", "spurious")
    expected: list[list[int]] = [[1], [12], [18], [12], [8]]
    for kind, places in zip(kinds, expected, strict=True):
        choose_by_name(browser, "kind", kind)
        assert lines(browser) == places
    choose(browser, "kind", "")
    for name, places in (
        ("ORG", [18]),
        ("PER", [8, 12]),
        ("LOC → PER", [12]),
        ("LOC", [1, 12, 18]),
    ):
        choose_by_name(browser, "type", name)
        assert lines(browser) == places
    # Of one error, not of two in one sentence.
    choose_by_name(browser, "kind", "missed")
    choose_by_name(browser, "type", "PER")
    assert lines(browser) == []
    assert shown(browser) == "none chosen of 4 with errors"
    browser.find_element("id", "clear").click()
    assert lines(browser) == [1, 8, 12, 18]
    browser.find_element("id", "text").send_keys("ANNA")
    assert lines(browser) == [1, 18]


def test_it_sorts(opened: Any) -> None:
    browser = opened("one.html")
    choose(browser, "order", "errors")
    assert lines(browser) == [12, 1, 8, 18]
    choose(browser, "order", "position")
    assert lines(browser) == [1, 8, 12, 18]


def told(browser: Any) -> list[list[str]]:
    """What is told of the errors of each sentence that is shown."""
    script = """
    return [...document.querySelectorAll("#sentences > li")].map((sentence) =>
        [...sentence.querySelectorAll(".chips .kind")].map((chip) => chip.textContent));
    """
    found: list[list[str]] = browser.execute_script(script)
    return found


def test_it_sorts_by_confidence(opened: Any) -> None:
    browser = opened("one.html")
    choose_by_name(browser, "order", "most confident mistakes")
    assert lines(browser) == [12, 18, 8, 1]
    assert told(browser) == [
        ["type LOC → PER0.4000", "missed LOC0.9800"],
        ["boundary and type ORG → LOC0.8000"],
        ["spurious PER0.7000"],
        ["boundary LOC0.5500"],
    ]
    # By those that are chosen, not by others of the same sentence.
    choose_by_name(browser, "type", "PER")
    assert lines(browser) == [8, 12]
    browser.find_element("id", "clear").click()
    assert lines(browser) == [1, 8, 12, 18]
    browser.find_element("css selector", "[data-order='confidence']").click()
    assert lines(browser) == [12, 18, 8, 1]


def test_numbers_lead_to_sentences(opened: Any) -> None:
    browser = opened("one.html")
    browser.find_element("css selector", ".kinds button[data-kind='3']").click()
    assert lines(browser) == [12]
    browser.find_element("css selector", ".confusion button[data-type='1:0']").click()
    assert lines(browser) == [18]


def test_entities_are_marked(opened: Any) -> None:
    browser = opened("one.html")
    marks = browser.execute_script(
        """
        return [...document.querySelectorAll("#sentences > li:first-child .row")].map((row) =>
            [...row.querySelectorAll("mark")].map((mark) => [mark.textContent, mark.className]));
        """
    )
    assert marks == [
        [["Anna BergPER", "right"], ["New OsloLOC", "kind-0"]],
        [["Anna BergPER", "right"], ["OsloLOC", "kind-0"]],
    ]


def test_words_are_text(opened: Any) -> None:
    browser = opened("one.html")
    assert browser.find_elements("css selector", "img") == []
    assert "pwned" not in browser.title
    choose(browser, "text", HOSTILE)
    assert lines(browser) == [12]
    assert HOSTILE in browser.find_element("id", "sentences").text


def test_nothing_may_be_loaded(browser: Any, folder: Path) -> None:
    browser.get((folder / "one.html").as_uri())
    blocked = browser.execute_async_script(
        """
        const done = arguments[arguments.length - 1], blocked = [];
        document.addEventListener("securitypolicyviolation", (event) => {
            blocked.push(event.effectiveDirective);
            if (blocked.length === 3) done(blocked.sort());
        });
        document.body.append(Object.assign(new Image(), {src: "http://127.0.0.1:9/x.png"}));
        document.body.append(Object.assign(document.createElement("script"), {textContent: "1"}));
        fetch("http://127.0.0.1:9/").catch(() => {});
        """
    )
    assert blocked == ["connect-src", "img-src", "script-src-elem"]


# ---------------------------------------------------------------- two runs


def test_two_runs_beside_one_another(opened: Any) -> None:
    browser = opened("two.html")
    assert lines(browser) == [1, 8, 12, 18]
    for change, places in (("fixed", [1]), ("broken", []), ("changed", [12])):
        choose_by_name(browser, "change", change)
        assert lines(browser) == places
    browser.find_element("id", "clear").click()
    choose_by_name(browser, "run", "B")
    assert lines(browser) == [8, 12, 18]
    choose_by_name(browser, "kind", "type")
    assert lines(browser) == []
    choose_by_name(browser, "run", "A or B")
    assert lines(browser) == [12]
    rows = browser.find_elements("css selector", "#sentences > li .side")
    assert [row.text for row in rows] == ["gold", "A", "B"]


def test_a_run_without_confidences_beside_one_that_has_them(opened: Any) -> None:
    browser = opened("two.html")
    choose_by_name(browser, "order", "most confident mistakes")
    assert lines(browser) == [12, 18, 8, 1]
    assert told(browser)[2] == ["spurious PER0.7000", "spurious PER"]
    # Nothing is known of B, so all are as sure.
    choose_by_name(browser, "run", "B")
    assert lines(browser) == [8, 12, 18]
    browser.find_element("css selector", "[data-order='confidence']").click()
    assert lines(browser) == [12, 18, 8, 1]


# ---------------------------------------------------------------- many errors


def test_thousands_of_errors_are_shown_by_the_page(opened: Any) -> None:
    browser = opened("many.html")
    assert len(lines(browser)) == ON_A_PAGE
    assert shown(browser) == "1\N{EN DASH}50 of 5,000 sentences"
    earlier, later = browser.find_elements("css selector", ".turning [data-turn]")[:2]
    assert not earlier.is_enabled()
    later.click()
    assert lines(browser)[0] == 50 * 21 + 1
    assert shown(browser).startswith("51\N{EN DASH}100 of 5,000")
    choose(browser, "text", "word4999")
    assert lines(browser) == [4999 * 21 + 1]
    assert not later.is_enabled()


def test_filters_draw_no_more_than_a_page(opened: Any) -> None:
    browser = opened("many.html")
    added = browser.execute_script(
        """
        const watched = new MutationObserver(() => {});
        watched.observe(document.body, {childList: true, subtree: true});
        for (const [name, value] of [
            ["text", "w1"], ["kind", "1"], ["order", "errors"], ["order", "confidence"],
        ]) {
            const control = document.getElementById(name);
            control.value = value;
            control.dispatchEvent(new Event("input"));
        }
        return watched.takeRecords().reduce((sum, one) => sum + one.addedNodes.length, 0);
        """
    )
    assert len(lines(browser)) == ON_A_PAGE
    # Of thousands of sentences; each time these lines, and what stands around them.
    assert 0 < added < 4 * 2 * ON_A_PAGE


# ---------------------------------------------------------------- looks


def emulate(browser: Any, scheme: str, width: int) -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    metrics = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


@pytest.mark.parametrize("name", ["one", "two"])
@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("dark", 375)])
def test_it_fits_every_screen(
    opened: Any, tmp_path: Path, name: str, scheme: str, width: int
) -> None:
    browser = opened(f"{name}.html")
    emulate(browser, scheme, width)
    try:
        # Tables scroll in themselves, the page never sideways.
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
        red = int(ground.removeprefix("rgb(").split(",")[0])
        assert (red < 128) == (scheme == "dark")
        picture = tmp_path / f"{name}-{scheme}-{width}.png"
        assert browser.save_screenshot(str(picture))
        assert picture.read_bytes().startswith(b"\x89PNG")
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


# ---------------------------------------------------------------- a run that was trained


def test_the_report_of_a_run_that_was_trained(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "run.yaml"]) == 0
    assert main(["report", "run"]) == 0
    assert "report.html is the report" in capsys.readouterr().out
    f1 = json.loads((project / "run" / "summary.json").read_text())["validation"]["f1"]
    page = (project / "report.html").read_text(encoding="utf-8")
    assert f"<b>{f1:.4f}</b>" in page
    assert "bigner report &middot; validation" in page
    assert "</b> training; dashed: validation</figcaption><svg" in page
