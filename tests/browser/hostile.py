"What a model may write to take over the page that shows it, and whether it did."
import json

from browser.reader import STEP
from optima.agents.messages import Message, Trajectory

ATTACKS = {
    "script": "<script>owned.push('script');document.title='owned'</script>",
    "image": "<img src=x onerror=\"owned.push('image')\">",
    "svg": "<svg onload=\"owned.push('svg')\"></svg>",
    "frame": "</div></code></details><iframe srcdoc=\"<script>parent.owned.push('frame')</script>\"></iframe>",
    "toggle": "\"><details open ontoggle=\"owned.push('toggle')\">attribute",
    "link": "<a href=\"javascript:owned.push('link')\">a link</a>",
    "markdown link": "[a link](javascript:owned.push('link'))",
    "attribute": "' onmouseover='owned.push(1)' \" onmouseover=\"owned.push(1)\"",
}
EAR = "window.owned = []"  # where attacks say that they ran
LOADED = """() => [...document.images].every(image => image.complete)
    && [...document.querySelectorAll('iframe[srcdoc]')].every(({contentDocument: inside}) => !inside
        || inside.URL === 'about:srcdoc' && inside.readyState === 'complete')"""  # or failed: then its handler was called
LIVE = "script, iframe, svg[onload], [onerror], [ontoggle], [onmouseover], a[href^='javascript:' i]"


WORDS = " ".join(ATTACKS.values())


def hostile_dialogue() -> Trajectory:
    "A dialogue with every attack in every place that a model or a task file fills."
    valid = json.dumps({"say": WORDS, "answer": WORDS})
    messages = [Message("proposer", "proposer", valid, prompt=WORDS), Message(WORDS, "critic", WORDS, prompt=WORDS, cut=True)]
    return Trajectory(WORDS, "debate", WORDS, 0, messages, WORDS, {"proposer": WORDS}, rewards={WORDS: 0.5})


def taken_over(page, outputs: str) -> list[str]:
    "What of a page's outputs ran or could run, in words. The page must have `EAR` as its first script."
    page.wait_for_function(LOADED, timeout=STEP)
    found = [f"{name} ran" for name in page.evaluate("owned")] + ["the title was changed"] * (page.title() == "owned")
    return found + page.locator(outputs).locator(LIVE).evaluate_all("all => all.map(element => `${element.tagName} is live`)")
