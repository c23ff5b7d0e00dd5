"""The boxes that search layers: regular expressions as the browser has them, and never for long."""

import urllib.parse

import numpy as np
import pytest

from tensorboard_plugin import metadata
from tests.plugin import screenshot
from tests.plugin.conftest import Server
from tests.plugin.run_writer import RunWriter, layers_part, variable
from tests.plugin.test_page import Opened

pytestmark = pytest.mark.browser

LONG = "a" * 5000 + "/kernel"
PATHS = [LONG, "block_0/attention/kernel", "block_1/bias"]

#: Each would take the browser's own expressions longer than anyone lives.
ENDLESS = ["(a+)+$", "(a|a)*!", "(a?){40}a{40}!", "(.*)*(.*)*(.*)*!$", "a*a*a*a*a*a*a*!"]

EXPRESSIONS = [
    *("a", "^a$", "a*", "(a|b)+c", "a{2}", "a{1,2}b", "a{2,}", "[a-c]+$", "x\\d{1,}y", "\\bkey\\b"),
    *(
        "\\Bey",
        "block_[0-3]/.*(key|query)",
        "(?:a|b)*?c",
        "(?<n>a)b",
        "a.b",
        "b$",
        "[\\]a]",
        "[^a]",
    ),
    *(".", "a|", "(|a)b", "\\.", "\\w+\\s\\w+", "\\u0061", "\\x61", "a{", "a{,2}", "(a*)*b", "k"),
    *("(a?){3}b", "[^]", "$", "^", "}", "(^a|b$)", "\\cJ", "é|s", "😀+", "[😀x]", "\\u{1F600}"),
    *("\\p{L}y", "\\u{61}", "a\\/b", "[/]b", "(a", "[z-a]", "a**", "\\"),
]
TEXTS = [
    *("", "a", "aa", "ab", "abc", "a/b", "block_0/attention/key/kernel", "BLOCK_1/b", "a\nb", "é"),
    *("😀", "aaaaab", "a{2}", "x1y22", "layer.0", "foo bar", "\u2028", "K", "\u017f"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    root = tmp_path_factory.mktemp("search")
    part = layers_part([variable(path) for path in PATHS])
    for run in ("one", "other"):
        with RunWriter(root / run) as writer:
            for step in range(3):
                shape = len(PATHS), len(part.columns)
                writer.record(metadata.LAYERS, 0, part, step, np.ones(shape))
    with screenshot.tensorboard(root, "--load_fast=false") as address:
        running = Server(address)
        for run in ("one", "other"):
            running.wait_for(run, 2)
        yield running


@pytest.fixture(scope="module")
def shared(browser, server):
    tab = Opened(browser, server, "data/plugin_entry.html?name=disttrain")
    yield tab
    tab.page.close()


@pytest.fixture
def tab(shared):
    yield shared
    assert shared.faults == []


def open_view(tab, server, view):
    query = urllib.parse.urlencode({"name": "disttrain", "p.disttrain.view": view})
    tab.page.goto(f"{server.address}data/plugin_entry.html?{query}")
    screenshot.wait_until_ready(tab.frame)
    return tab.frame.locator(f"#view-{view}")


def searched(tab, expression, **given):
    """Evaluates an expression of the modules that search, with what is given."""
    return tab.frame.evaluate(
        f"""async (given) => {{
          const [style] = document.querySelectorAll('link[href$="layers.css"]');
          const load = (name) => import(new URL(name, style.href).href);
          const {{compile}} = await load('./expression.js');
          const {{pathFilter}} = await load('./search.js');
          return {expression};
        }}""",
        given,
    )


def test_expressions_find_what_the_browsers_own_find(tab):
    found = searched(
        tab,
        """given.expressions.flatMap((source) => ['', 'i', 'm', 's', 'u', 'iu'].flatMap((flags) => {
             const answers = (make) => {
               try {
                 const matches = make();
                 return given.texts.map(matches);
               } catch (error) {
                 return error.name;
               }
             };
             const own = answers(() => compile(source, flags));
             const browsers = answers(() => {
               const expression = new RegExp(source, flags);
               return (text) => expression.test(text);
             });
             return [[source, flags, JSON.stringify(own), JSON.stringify(browsers)]];
           }))""",
        expressions=EXPRESSIONS,
        texts=TEXTS,
    )
    assert len(found) == 6 * len(EXPRESSIONS)
    assert [one for one in found if one[2] != one[3]] == []
    # Some are found and some not, and some make no sense.
    assert {'"SyntaxError"'} < {one[2] for one in found}
    assert sum("true" in one[2] and "false" in one[2] for one in found) > 150


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("/(a)\\1/", "references such as \\1 are not supported here"),
        ("/(?=a)/", "look-ahead"),
        ("/(?<!a)b/", "look-behind"),
        ("/(a{400}){400}/", "too long"),
        ("/(/", "Unterminated group"),
        ("/[[a]--b]/v", "the flag v is not supported here"),
    ],
)
def test_what_cannot_be_searched_for_is_said(tab, expression, said):
    answer = searched(
        tab, "((filter) => [filter.error, filter.matches('a')])(pathFilter(given.text))",
        text=expression,
    )  # fmt: skip
    assert answer[0].startswith("Not a regular expression")
    assert said in answer[0]
    assert answer[1] is False


@pytest.mark.parametrize("view", ["overview", "layers", "compare"])
def test_no_expression_stops_the_page(tab, server, view):
    root = open_view(tab, server, view)
    box = {
        "overview": tab.frame.locator("input.filter").first,
        "layers": root.get_by_role("searchbox", name="Find a layer"),
        "compare": root.get_by_role("searchbox", name="Layers"),
    }[view]

    def shown(text):
        box.fill(text)
        if view == "layers":
            return root.locator(".layer-choice").count()
        return tab.state["rows"]

    assert shown("") == 3
    # The page answers, which it could not while the browser's own expressions run.
    assert [shown(f"/{expression}/") for expression in ENDLESS] == [0, 0, 0, 0, 0]
    assert shown("/(a+)+/.*l$/") == 1
    assert shown("/^(block_\\d*)+/(attention|bias)/") == 2
