"""The page's style sheet: one column on a phone, the system's own font, light and dark."""

SERIES = (
    ("#0b5cad", "#6cb6ff", "none"),
    ("#b34700", "#ffa657", "7 4"),
    ("#1a7f37", "#56d364", "2 3"),
    ("#8250df", "#d2a8ff", "9 3 2 3"),
    ("#b02a5b", "#ff8fb8", "14 4"),
    ("#57606a", "#b5bec8", "4 2"),
)
"""Of lines beside each other: colour on light paper, on dark, dashes."""


def series(place: int) -> str:
    """The style of the line at a place, from 0; the seventh has the first's."""
    return f"series-{place % len(SERIES)}"


_SERIES = "".join(
    f".{series(n)} {{ color: {light}; }} .line.{series(n)} path, .swatch.{series(n)} line "
    f"{{ stroke-dasharray: {dashes}; }}\n@media (prefers-color-scheme: dark) {{ .{series(n)} {{ color: {dark}; }} }}\n"
    for n, (light, dark, dashes) in enumerate(SERIES)
)
STYLE = (
    _SERIES
    + """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --panel: #f4f5f7; --ink: #1b1f24; --soft: #57606a; --rule: #d5d9de;
  --instance: #0b5cad; --prior: #b34700; --warn: #8a4b00;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171b; --panel: #1e2329; --ink: #e8eaed; --soft: #a3abb5; --rule: #3a424b;
    --instance: #6cb6ff; --prior: #ffa657; --warn: #f0b55a;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 72rem; padding: 1.5rem 1rem 4rem;
  background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 .3rem; padding-top: .8rem; border-top: 1px solid var(--rule); }
h3 { font-size: 1rem; margin: 0 0 .3rem; }
p { margin: .3rem 0 .8rem; max-width: 46rem; overflow-wrap: anywhere; }
.kicker, .note, figcaption { color: var(--soft); font-size: .875rem; }
.kicker { margin: 0; }
.live { color: var(--soft); font-size: .875rem; border-left: 4px solid var(--instance); padding-left: .6rem; }
[hidden] { display: none !important; }
:focus-visible { outline: 3px solid var(--instance); outline-offset: 2px; border-radius: .2rem; }
.glance { display: grid; grid-auto-flow: column; grid-auto-columns: minmax(0, 24rem); gap: .75rem;
  margin: 1.2rem 0 0; }
.copied { display: flex; gap: .5rem; align-items: stretch; margin: .3rem 0 .6rem; }
code { font: .9em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.copied code { flex: 1; min-width: 0; padding: .45rem .7rem; overflow-wrap: anywhere; white-space: pre-wrap;
  background: var(--panel); border-radius: .4rem; }
button { font: inherit; font-size: .875rem; color: var(--ink); background: var(--paper); border-radius: .4rem;
  border: 1px solid var(--soft); padding: .3rem .8rem; min-width: 5.5rem; cursor: pointer; }
button:hover { background: var(--panel); }
.words { font-size: 1.05rem; font-weight: 600; }
.warnings { color: var(--warn); padding-left: 1.2rem; max-width: 60rem; overflow-wrap: anywhere; }
section > h3 { margin-top: 1.1rem; }
.files th { overflow-wrap: anywhere; color: var(--ink); }
.missing { color: var(--soft); font-style: italic; }
.problem { color: var(--warn); }
.facts {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: .6rem;
  margin: .6rem 0 0;
}
.facts div { background: var(--panel); border-radius: .5rem; padding: .5rem .75rem; }
dt { color: var(--soft); font-size: .8rem; }
dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
figure { margin: 0; min-width: 0; }
img { display: block; width: 100%; height: auto; border-radius: .3rem; background: var(--panel); }
img.pixels { image-rendering: pixelated; }
.pictures {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: .75rem;
  align-items: start;
}
.pictures figcaption { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.pairs {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 24rem), 1fr)); gap: 1.25rem;
}
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: .4rem; }
dd.meaning { color: var(--soft); font-size: .8rem; font-weight: 400; line-height: 1.4; margin-top: .15rem; }
.film { display: grid; gap: .35rem; grid-auto-flow: column; grid-template-rows: auto repeat(var(--pictures), auto);
  grid-template-columns: repeat(var(--steps), minmax(0, 15rem)); }
.film .step { font-size: .8rem; color: var(--soft); align-self: end; font-variant-numeric: tabular-nums; }
.charts {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: 2rem;
  align-items: start;
}
.charts > figure { max-width: 40rem; }
svg { display: block; width: 100%; height: auto; }
svg text { font-size: 12px; fill: var(--soft); }
.axes line { stroke: var(--rule); stroke-width: 1; }
.line path { fill: none; stroke: currentColor; stroke-width: 2; stroke-linejoin: round; }
.line circle { fill: currentColor; }
.line.faint path { stroke-width: 1; opacity: .35; }
.instance { color: var(--instance); }
.prior { color: var(--prior); }
.prior:not(.faint) path { stroke-dasharray: 7 4; }
.preservation { color: var(--warn); }
.preservation:not(.faint) path { stroke-dasharray: 2 3; }
.mark circle { fill: none; stroke: var(--ink); stroke-width: 2; }
.mark text { fill: var(--ink); font-weight: 600; }
.key {
  display: inline-block; width: 1.6em; border-top: 3px solid currentColor; vertical-align: middle;
  margin-right: .35em;
}
.key.prior { border-top-style: dashed; }
.key.preservation { border-top-style: dotted; }
.swatch { display: inline-block; vertical-align: middle; width: 1.8em; height: .8em; margin-right: .35em; }
.swatch line { stroke: currentColor; stroke-width: 3; }
.legend span { margin-right: 1.2em; color: var(--ink); white-space: nowrap; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td {
  text-align: left; vertical-align: top; padding: .25rem 1rem .25rem 0;
  border-bottom: 1px solid var(--rule);
}
th { font-weight: 500; color: var(--soft); }
td { overflow-wrap: anywhere; min-width: 4rem; }
.figures td { white-space: nowrap; min-width: 0; }
summary { cursor: pointer; padding: .3rem 0; color: var(--instance); }
@media (max-width: 40rem) {
  svg text { font-size: 15px; }
  .pictures { grid-template-columns: repeat(auto-fill, minmax(6rem, 1fr)); }
  .film { grid-auto-flow: row; grid-template-rows: none; grid-template-columns: repeat(4, minmax(0, 1fr)); }
  .film .step { grid-column: 1 / -1; }
  .glance { gap: .4rem; }
  .facts { grid-template-columns: 1fr 1fr; }
  .figures { font-size: .75rem; }
  .figures th, .figures td { padding-right: .4rem; }
  .copied { flex-direction: column; }
  .copied button { align-self: start; }
  .settings tr, .settings th, .settings td, .files tr, .files th, .files td { display: block; padding: 0; }
  .settings th, .files th { border: 0; }
  .settings tr, .files tr { padding: .25rem 0; }
}
@media print { details > * { display: block; } }
"""
)
