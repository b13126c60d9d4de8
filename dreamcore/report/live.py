"""The page's one script, which copies commands and, while the run lasts, looks for a newer page.

The page is a file, from which nothing beside it can be asked for: it says itself until when a newer one is to come, and
looks no longer.  So the page of a run that has died, which nobody writes anew, comes to rest and says so.
"""

from __future__ import annotations

import base64
import hashlib

from .collect import RunData

SECONDS = 15
"""Between two looks for a newer page."""

SCRIPT = """
(() => {
  const page = document.documentElement, key = "dreambooth " + location.pathname;
  const focusable = () => [...document.querySelectorAll("summary, button")];
  for (const button of document.querySelectorAll("button[data-copy]")) {
    const code = document.getElementById(button.dataset.copy), said = button.textContent;
    const select = () => getSelection().selectAllChildren(code);
    button.hidden = false;
    button.setAttribute("aria-live", "polite");
    button.addEventListener("click", async () => {
      let copied = false;
      try { await navigator.clipboard.writeText(code.textContent); copied = true; }
      catch { select(); copied = document.execCommand("copy"); }
      button.textContent = copied ? "Copied" : "Selected: Ctrl+C";
      setTimeout(() => { button.textContent = said; }, 2000);
    });
  }
  const keep = (store) => { try { return store(sessionStorage); } catch { return null; } };
  const left = JSON.parse(keep((storage) => storage.getItem(key)) || "null");
  keep((storage) => storage.removeItem(key));
  if (left) {
    history.scrollRestoration = "manual";
    for (const details of document.querySelectorAll("details"))
      details.open = left.open.includes(details.firstElementChild.textContent);
    focusable()[left.focus]?.focus({ preventScroll: true });
    scrollTo(left.x, left.y);
  }
  const until = Number(page.dataset.until || 0);
  if (!until) return;
  const look = () => {
    if (Date.now() > until) {
      document.getElementById("live").hidden = true;
      document.getElementById("silent").hidden = false;
    } else if (document.hidden || String(getSelection())) {
      setTimeout(look, 1000);
    } else {
      const open = [...document.querySelectorAll("details[open]")].map((one) => one.firstElementChild.textContent);
      const focus = focusable().indexOf(document.activeElement);
      keep((storage) => storage.setItem(key, JSON.stringify({ open, focus, x: scrollX, y: scrollY })));
      location.reload();
    }
  };
  setTimeout(look, Date.now() > until ? 0 : 1000 * Number(page.dataset.seconds));
})();
"""
_HASH = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode("ascii")
STILL = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Nothing is loaded but data URIs, and nothing runs: a mistake in a page cannot become either."""
POLICY = f"{STILL}; script-src 'sha256-{_HASH}'"
"""Nothing runs but this script."""


def attributes(data: RunData) -> str:
    """What the script is told, at the page's root; nothing of a run that has ended."""
    if data.live is None:
        return ""
    return f' data-until="{data.live.until.timestamp() * 1000:.0f}" data-seconds="{SECONDS}"'


def words(data: RunData) -> str:
    """What the page says of its own age while the run lasts."""
    if data.live is None:
        return ""
    written = f"{data.live.written:%Y-%m-%d %H:%M:%S}"
    return (
        f'<p id="live" class="live">Written at {written}, while the run is at work: this page looks for a newer one '
        f'every {SECONDS} seconds, where scripts run.</p><p id="silent" class="problem" role="status" hidden>'
        f"Nothing has been heard of this run since {written}, and this page looks for no newer one any more. "
        "<code>dreambooth runs</code> says whether it is still there.</p>"
    )
