"""A page looked at as people with various screens and eyes would: what is wrong with it, as lines of text.

Every third page is opened wide, light and in English, or narrow, dark and in German, in turn; with
``tests/run --full`` each page in both, and in what lies between them. Looked for are violations of axe-core (WCAG 2 A
and AA, best practices), complaints of the browser (errors of scripts, what the Content-Security-Policy refused,
requests that failed), a page that scrolls sideways, and controls that do not show that they have the focus.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self, TypeVar

import pytest
from axe_playwright_python.sync_playwright import Axe
from django.conf import settings
from django.test import Client
from playwright.sync_api import expect, sync_playwright

from tests import servers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from django.contrib.auth.models import User
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, Response

T = TypeVar("T")

PATIENCE = 30_000  # ms
FULL = servers.in_full_run()
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


class Look(NamedTuple):
    """How somebody sees the pages."""

    width: str
    scheme: Literal["light", "dark"]
    language: str = "en"

    def __str__(self) -> str:
        return f"{self.width} {self.scheme} {self.language}"

    @property
    def context(self) -> dict[str, Any]:
        """What Playwright takes for it."""
        narrow = self.width == "narrow"
        return {
            "viewport": {"width": 360, "height": 740} if narrow else {"width": 1280, "height": 800},
            "color_scheme": self.scheme,
            "locale": {"en": "en-GB", "de": "de-DE"}[self.language],
        }


# Whatever fits on a telephone in the dark, in German, and on a screen in the light, is mostly well between them, too.
LOOKS = [Look("wide", "light"), Look("narrow", "dark", "de")]
ALL_LOOKS = [*LOOKS, Look("wide", "dark", "de"), Look("narrow", "light")]


def looked_at(pages: Iterable[str]) -> pytest.MarkDecorator:
    """The parameters of a test: each page in all looks in a full run; else every third page, in one of them in turn."""
    turns = ((page, turn) for turn, page in enumerate(pages) if FULL or turn % 3 == 0)
    chosen = ((page, ALL_LOOKS if FULL else [LOOKS[turn % 2]]) for page, turn in turns)
    return pytest.mark.parametrize(
        ("page", "look"), [pytest.param(page, look, id=f"{page} {look}") for page, looks in chosen for look in looks]
    )


TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]

# Without "preload": it puts the style sheets into the page once more, which the Content-Security-Policy refuses. Only
# rules need it that are about pages for one orientation of a telephone, and about sound.
OPTIONS = {"resultTypes": ["violations"], "runOnly": {"type": "tag", "values": TAGS}, "preload": False}
AXE = Axe()

# What is not ours: the rule, what its element matches, and why it is let be.
NOT_OURS = (
    ("link-in-text-block", "body:not(.scheduler) .breadcrumbs a", "the admin's own way back, as on all of its pages"),
    ("link-in-text-block", "#changelist :is(.quiet, .paginator) a", "beside the admin's own search, and its count"),
    ("target-size", "#changelist-filter a", "the admin's own filters"),
    ("label-title-only", "#searchbar", "the admin's own search has a label of a picture and a description"),
    ("empty-table-header", ".inline-related.tabular th:is(.original, :last-child)", "the admin's own tables of parts"),
    ("scrollable-region-focusable", ".inline-related.tabular", "the admin's own tables of parts scroll when narrow"),
    ("aria-input-field-name", ".select2-selection, .select2-selection *", "the admin's own search in a long list"),
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


def require_chromium() -> None:
    """Skip the test where there is no Chromium; in CI, fail."""
    if servers.program("chromium") is None:
        (pytest.fail if servers.in_ci() else pytest.skip)("Chromium is not installed: NOT TESTED HERE")


class Chromium:
    """One browser for a module, driven from a thread of its own: Playwright's loop would keep Django out of ours."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._thread = ThreadPoolExecutor(1)
        self._contexts: dict[Any, BrowserContext] = {}

    def __enter__(self) -> Self:
        require_chromium()
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
            args=ARGUMENTS,
        )
        expect.set_options(timeout=PATIENCE)

    def _end(self) -> None:
        self._browser.close()
        self._playwright.stop()

    def open(self, user: User | None, look: Look, act: Callable[[Page], T]) -> tuple[T, list[str]]:
        """Act with a page of somebody's browser; what came of it, and what the browser complained about."""
        cookies = session(user, self.address) if user is not None else []

        def work() -> tuple[T, list[str]]:
            key = (user and user.pk, look)
            if key not in self._contexts:  # kept, for its cache
                context = self._browser.new_context(**look.context, reduced_motion="reduce")
                context.set_default_timeout(PATIENCE)
                context.add_cookies(cookies)  # type: ignore[arg-type]
                self._contexts[key] = context
            page = self._contexts[key].new_page()
            try:
                said = listen(page)
                return act(page), said
            finally:
                page.close()

        return self.do(work)


def session(user: User, address: str) -> list[dict[str, Any]]:
    client = Client()
    client.force_login(user)
    name = settings.SESSION_COOKIE_NAME
    return [{"name": name, "value": client.cookies[name].value, "url": address}]


def listen(page: Page) -> list[str]:
    """What the browser complains about from now on: scripts, the Content-Security-Policy, requests that failed."""
    said: list[str] = []
    page.add_init_script(REFUSED)

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


def violations(page: Page) -> list[str]:
    """What axe-core finds on the page as it is shown now, but for what is not ours."""
    found = AXE.run(page, options=OPTIONS)
    lines = []
    for violation in found.response["violations"]:
        for node in violation["nodes"]:
            if not _is_not_ours(page, violation["id"], node):
                why = node["failureSummary"].partition("\n")[2].strip().replace("\n", "; ")
                html = " ".join(node["html"].split())[:160]
                lines.append(f"axe {violation['id']}: {html} at {node['target']} ({why[:200]})")
    return lines


def _is_not_ours(page: Page, rule: str, node: dict[str, Any]) -> bool:
    selectors = [selector for excused, selector, _why in NOT_OURS if excused == rule]
    element = page.locator(node["target"][0])
    return any(element.evaluate("(each, selector) => each.matches(selector)", selector) for selector in selectors)


def problems(
    chromium: Chromium,
    user: User | None,
    path: str,
    look: Look,
    *,
    status: int = 200,
    prepare: Callable[[Page], object] | None = None,
) -> list[str]:
    """Everything that is wrong with a page in this look."""

    def act(page: Page) -> list[str]:
        answer = page.goto(chromium.address + path)
        assert answer is not None
        wrong: list[str] = [] if answer.status == status else [f"answered with {answer.status}"]
        if (language := page.evaluate("document.documentElement.lang").partition("-")[0]) != look.language:
            wrong.append(f"is in {language}")
        if prepare is not None:
            prepare(page)
        page.evaluate(STILL)
        wrong += violations(page)
        if look.width == "wide":
            page.keyboard.press("Tab")  # to whoever uses the keyboard the focus is shown
            wrong += page.evaluate(UNFOCUSED)
        wrong += page.evaluate(WIDER)
        return wrong

    wrong, said = chromium.open(user, look, act)
    return list(dict.fromkeys(wrong + said))
