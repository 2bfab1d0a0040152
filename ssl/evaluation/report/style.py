"""The style sheet of the report: one column, tabular figures, light or dark."""

LIGHT = """
  --page: #fbfbf9; --card: #ffffff; --ink: #1d2320; --soft: #5d6661; --line: #e3e6e1; --up: #1b7a43; --down: #b3402f;
  --run-1: #1f7a54; --run-2: #c2571a; --run-3: #3667b8; --run-4: #8a4fb0;
  --run-5: #a3851a; --run-6: #b83c6f; --run-7: #2b8a9a; --run-8: #6b6f73; --mark: #fdf0b4;
"""
DARK = """
  --page: #131714; --card: #1a1f1c; --ink: #e6eae6; --soft: #9aa59e; --line: #313934; --up: #6fd09a; --down: #f0917f;
  --run-1: #5fc795; --run-2: #f29a5c; --run-3: #86aef0; --run-4: #c79be6;
  --run-5: #dcc062; --run-6: #ef88b0; --run-7: #6fcbd9; --run-8: #b4bab6; --mark: #4d451d;
"""
COLORS = f"""
html {{ color-scheme: light; {LIGHT} }}
@media (prefers-color-scheme: dark) {{ html:not([data-theme=light]) {{ color-scheme: dark; {DARK} }} }}
html[data-theme=dark] {{ color-scheme: dark; {DARK} }}
@media print {{ html:not([data-theme]) {{ color-scheme: light; {LIGHT} }} }}
"""

STYLE = (
    COLORS
    + """
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
main { max-width: 70rem; margin: 0 auto; padding: 3rem 1.5rem 5rem; overflow-wrap: anywhere; }
table { overflow-wrap: break-word; } /* and not anywhere, which would make columns as narrow as a letter */
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 .3rem; letter-spacing: -.01em; }
h2 { font-size: 1.15rem; margin: 2.8rem 0 .8rem; }
h3 { font-size: .95rem; font-weight: 600; margin: 1.2rem 0 .5rem; }
.kicker { margin: 0 0 .4rem; color: var(--run-1); font-weight: 600; font-size: .85rem; }
.lead { margin: 0; color: var(--soft); }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .5rem .9rem; vertical-align: top; border-top: 1px solid var(--line); }
tr:not(.first) td:not([rowspan]) { border-top-color: transparent; }
thead th, tbody th { font-weight: 500; color: var(--soft); }
thead th { border-top: 0; white-space: nowrap; }
tbody tr:first-child > *, tbody tr > th, tbody tr > th ~ td { border-top: 1px solid var(--line) !important; }
.num { text-align: right; white-space: nowrap; }
.up { color: var(--up); font-weight: 600; } .down { color: var(--down); font-weight: 600; }
.baseline td:not([rowspan]) { color: var(--soft); } .baseline .bar i { opacity: .35; }
.bar { width: 18%; min-width: 6rem; } .bar span { position: relative; display: block; height: .6rem; margin-top: .45rem; }
.bar i { position: absolute; height: .6rem; border-radius: 2px; opacity: .75; }
.bar b { position: absolute; top: -.1rem; height: .8rem; border: solid var(--ink); border-width: 0 1.5px;
  background: linear-gradient(var(--ink), var(--ink)) center / 100% 1.5px no-repeat; }
.run, .metric { white-space: nowrap; }
.dataset th { padding-top: 1rem; color: var(--ink); font-weight: 600; overflow-wrap: anywhere; }
.dataset small { display: block; color: var(--soft); font-size: .86rem; font-weight: 400; }
.secondary td { padding-top: .25rem; padding-bottom: .25rem; font-size: .86rem; color: var(--soft); }
.secondary .bar i { height: .35rem; top: .12rem; }
.dot { display: inline-block; width: .62rem; height: .62rem; border-radius: 50%; margin-right: .5rem; }
.differs td { font-weight: 600; }
.note { color: var(--soft); font-size: .92rem; }
.note { margin-top: .9rem; padding: .7rem 1rem; border: 1px solid var(--line); border-radius: 8px; }
.note p { margin: 0; } .note ul { margin: .3rem 0 0; padding-left: 1.1rem; }
.words { display: grid; grid-template-columns: fit-content(17rem) 1fr; gap: .25rem 1.2rem; margin: 1rem 0 0; }
.words { font-size: .9rem; color: var(--soft); }
.legend > span { margin-right: 1.4rem; }
.words dt { color: var(--ink); } .words dd { margin: 0; max-width: 46rem; }
.charts { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); }
.charts.small { margin-top: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(17rem, 100%), 1fr)); }
figure { margin: 0; padding: .9rem 1rem; background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
figcaption { font-size: .92rem; margin-bottom: .4rem; }
figure svg { display: block; width: 100%; height: auto; }
.views { display: grid; gap: 1rem; }
img { max-width: 100%; display: block; border-radius: 4px; }
details { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .6rem 1rem; margin-top: .6rem; }
summary { cursor: pointer; }
:focus-visible { outline: 2px solid var(--run-3); outline-offset: 2px; }
small { display: block; color: var(--soft); font-size: .82rem; font-weight: 400; }
pre { overflow-x: auto; font: .85rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
@media (max-width: 56rem) {
  main { padding: 2rem .8rem 3rem; }
  table { font-size: .82rem; }
  th, td { padding: .4rem .45rem; }
  thead th, .metric { white-space: normal; }
  .bar { display: none; }
  .words { grid-template-columns: 1fr; }
  .words dd { margin-bottom: .4rem; }
}
@media print { details > pre { display: block; } body { background: none; } }
"""
)
