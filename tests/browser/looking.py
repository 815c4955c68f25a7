"""A page looked at as people with various screens and eyes would: what is wrong with it, as lines of text.

Each page is opened wide and light, narrow and dark (with ``tests/run --full`` in all four ways), and narrow in German. Looked for are violations of
axe-core (WCAG 2 A and AA, best practices), complaints of the browser (errors of scripts, what the
Content-Security-Policy refused, requests that failed), a page that scrolls sideways, and controls that do not show that
they have the focus.
"""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Self, TypeVar

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.conf import settings
from django.test import Client
from playwright.sync_api import expect, sync_playwright

from tests import servers

if TYPE_CHECKING:
    from collections.abc import Callable

    from django.contrib.auth.models import User
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Response

T = TypeVar("T")

PATIENCE = 30_000  # ms
# Whatever fits on a telephone in the dark, and on a screen in the light, is mostly well between them, too.
LOOKS = {"wide": ["light"], "narrow": ["dark"]}
if os.environ.get("SCHEDULER_TESTS_FULL"):
    LOOKS = dict.fromkeys(LOOKS, ["light", "dark"])
WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 360, "height": 740}
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]

# Without "preload": it puts the style sheets into the page once more, which the Content-Security-Policy refuses. Only
# rules need it that are about pages for one orientation of a telephone, and about sound.
OPTIONS = {"resultTypes": ["violations"], "runOnly": {"type": "tag", "values": TAGS}, "preload": False}
# What can differ between light and dark: the colours.
COLOURS = {**OPTIONS, "runOnly": {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}}
AXE = Axe()

# What is not ours: the rule, what its element matches, and why it is let be.
NOT_OURS = (
    ("link-in-text-block", "body:not(.scheduler) .breadcrumbs a", "the admin's own way back, as on all of its pages"),
    ("link-in-text-block", "#changelist :is(.quiet, .paginator) a", "beside the admin's own search, and its count"),
    ("target-size", "#changelist-filter a", "the admin's own filters"),
    ("label-title-only", "#searchbar", "the admin's own search has a label of a picture and a description"),
    (
        "empty-table-header",
        ".inline-related.tabular th",
        "the admin's own tables of parts have a column without a name",
    ),
    (
        "aria-input-field-name",
        "[class^=select2-selection]",
        "the admin's own search among many is called by what is chosen",
    ),
    ("page-has-heading-one", "html:has(body.login:not(.site-login))", "the admin's own log-in page has no heading"),
)

# Nothing moves, so that what is looked at is how it will be.
STILL = """() => {
  const sheet = new CSSStyleSheet();
  sheet.replaceSync("*, ::before, ::after { transition: none !important; animation: none !important; }");
  document.adoptedStyleSheets = [sheet];
  for (const each of document.querySelectorAll("details")) each.open = true;
}"""

REFUSED = """document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`CSP: ${event.violatedDirective} refused ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));
"""

# The page itself must not scroll; what is wide scrolls within itself. Names what stands out.
WIDER = """() => {
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth <= width) return [];
  const inside = (each) => {
    for (let up = each.parentElement; up && up !== document.body; up = up.parentElement)
      if (getComputedStyle(up).overflowX !== "visible") return true;
    return false;
  };
  const out = [...document.body.querySelectorAll("*")].filter((each) => {
    const box = each.getBoundingClientRect();
    return box.width && box.right > width + 0.5 && !inside(each);
  });
  const named = out.slice(-3).map((each) => each.outerHTML.slice(0, 140).replaceAll("\\n", " "));
  return [`scrolls sideways (${document.documentElement.scrollWidth} px): ${named.join(" | ")}`];
}"""

# Each control is given the focus; how it, what it stands in or what it holds is painted must change.
UNFOCUSED = """() => {
  const painted = (each) =>
    [each.parentElement, each, ...each.children].map((part) => {
      const style = getComputedStyle(part);
      const outline = style.outlineStyle === "none" ? "" : style.outline;
      const { boxShadow, borderColor, backgroundColor, stroke, textDecorationLine } = style;
      return [outline, boxShadow, borderColor, backgroundColor, stroke, textDecorationLine];
    }).join();
  const silent = [];
  const controls = "a[href], button, input, select, textarea, summary, [tabindex]:not([tabindex='-1'])";
  for (const each of document.querySelectorAll(controls)) {
    if (!each.checkVisibility({ visibilityProperty: true }) || each.disabled) continue;
    document.activeElement.blur();
    const before = painted(each);
    each.focus({ preventScroll: true });
    if (document.activeElement === each && painted(each) === before) silent.push(each.outerHTML.slice(0, 140));
  }
  return silent.map((html) => `does not show the focus: ${html.replaceAll("\\n", " ")}`);
}"""


class Chromium:
    """One browser for a module, driven from a thread of its own: Playwright's loop would keep Django out of ours."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._thread = ThreadPoolExecutor(1)
        self._contexts: dict[Any, BrowserContext] = {}

    def __enter__(self) -> Self:
        if servers.program("chromium") is None:
            (pytest.fail if servers.in_ci() else pytest.skip)("Chromium is not installed: NOT TESTED HERE")
        self.do(self._start)
        return self

    def __exit__(self, *_error: object) -> None:
        self.do(self._end)
        self._thread.shutdown()

    def do(self, act: Callable[[], T]) -> T:
        return self._thread.submit(act).result()

    def _start(self) -> None:
        self._playwright = sync_playwright().start()
        self._browser: Browser = self._playwright.chromium.launch(
            executable_path=str(servers.program("chromium")),
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        expect.set_options(timeout=PATIENCE)

    def _end(self) -> None:
        self._browser.close()
        self._playwright.stop()

    def open(
        self, user: User | None, act: Callable[[Page], T], *, narrow: bool = False, scheme: str = "light", **look: Any
    ) -> tuple[T, list[str]]:
        """Act with a page of somebody's browser; what came of it, and what the browser complained about."""
        cookies = _session(user, self.address) if user is not None else []

        def work() -> tuple[T, list[str]]:
            key = (user and user.pk, narrow, *sorted(look.items()))
            if key not in self._contexts:  # kept, for its cache
                context = self._browser.new_context(
                    viewport=NARROW if narrow else WIDE,  # type: ignore[arg-type]
                    reduced_motion="reduce",
                    **{"locale": "en-GB", **look},
                )
                context.set_default_timeout(PATIENCE)
                context.add_init_script(REFUSED)
                context.add_cookies(cookies)  # type: ignore[arg-type]
                self._contexts[key] = context
            page = self._contexts[key].new_page()
            try:
                page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
                said = _listen(page)
                return act(page), said
            finally:
                page.close()

        return self.do(work)


def _session(user: User, address: str) -> list[dict[str, Any]]:
    client = Client()
    client.force_login(user)
    name = settings.SESSION_COOKIE_NAME
    return [{"name": name, "value": client.cookies[name].value, "url": address}]


def _listen(page: Page) -> list[str]:
    said: list[str] = []

    def console(message: ConsoleMessage) -> None:
        # A failed request is heard of below, with its address.
        if message.type in {"error", "warning"} and not message.text.startswith("Failed to load resource"):
            said.append(f"console: {message.text}")

    def failed(request: Request) -> None:
        # What a page has asked for and is left before the answer is no failure.
        if request.failure != "net::ERR_ABORTED":
            said.append(f"request failed: {request.url} {request.failure}")

    def answered(response: Response) -> None:
        # Of the page itself a test knows what it is answered with.
        if response.status >= 400 and not response.request.is_navigation_request():
            said.append(f"{response.status}: {response.url}")

    page.on("console", console)
    page.on("pageerror", lambda error: said.append(f"script: {error}"))
    page.on("requestfailed", failed)
    page.on("response", answered)
    return said


def violations(page: Page, options: dict[str, Any]) -> list[str]:
    """What axe-core finds on the page as it is shown now, but for what is not ours."""
    found = AXE.run(page, options=options)
    lines = []
    for violation in found.response["violations"]:
        for node in violation["nodes"]:
            if not _is_not_ours(page, violation["id"], node):
                why = node["failureSummary"].partition("\n")[2].strip().replace("\n", "; ")
                html = " ".join(node["html"].split())[:160]
                lines.append(f"axe {violation['id']}: {html} ({why[:200]})")
    return lines


def _is_not_ours(page: Page, rule: str, node: dict[str, Any]) -> bool:
    selectors = [selector for excused, selector, _why in NOT_OURS if excused == rule]
    element = page.locator(node["target"][0])
    return any(element.evaluate("(each, selector) => each.matches(selector)", selector) for selector in selectors)


def problems(
    chromium: Chromium,
    user: User | None,
    path: str,
    *,
    status: int = 200,
    prepare: Callable[[Page], object] | None = None,
) -> list[str]:
    """Everything that is wrong with a page, in each look; each line once, with the looks that it was seen in."""
    seen: dict[str, list[str]] = {}

    def add(look: str, lines: list[str]) -> None:
        for line, count in Counter(lines).items():
            seen.setdefault(line if count == 1 else f"{line} ({count} times)", []).append(look)

    def show(page: Page) -> list[str]:
        answer = page.goto(chromium.address + path)
        assert answer is not None
        wrong = [] if answer.status == status else [f"answered with {answer.status}"]
        if prepare is not None:
            prepare(page)
        page.evaluate(STILL)
        return wrong

    for width, schemes in LOOKS.items():
        narrow = width == "narrow"

        def look(page: Page, *, width: str = width, schemes: list[str] = schemes, narrow: bool = narrow) -> None:
            add(width, show(page))
            for scheme in schemes:
                page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
                add(f"{width} {scheme}", violations(page, OPTIONS if scheme == schemes[0] else COLOURS))
                if not narrow:
                    page.keyboard.press("Tab")  # to whoever uses the keyboard the focus is shown
                    add(f"{width} {scheme}", page.evaluate(UNFOCUSED))
            add(width, page.evaluate(WIDER))

        add(width, chromium.open(user, look, narrow=narrow)[1])

    def look_in_german(page: Page) -> None:
        add("German", show(page))
        if (language := page.evaluate("document.documentElement.lang")) != "de":
            add("German", [f"is in {language}"])
        add("German", page.evaluate(WIDER))

    add("German", chromium.open(user, look_in_german, narrow=True, locale="de-DE")[1])
    return [f"{line} [{', '.join(looks)}]" for line, looks in seen.items()]
