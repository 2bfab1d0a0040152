"""The style sheet of the review page, after that of the report."""

REVIEW_STYLE = """
:root { --kept: var(--up); --put-aside: #b98a12; --rejected: var(--down); }
@media (prefers-color-scheme: dark) { :root { --put-aside: #dcb64a; } }
html { scroll-padding: 1rem 0 6rem; }
main { padding-bottom: 8rem; }
button { font: inherit; color: var(--ink); background: var(--card); border: 1px solid var(--line); border-radius: 6px;
  padding: .3rem .8rem; cursor: pointer; }
button:hover:enabled { border-color: var(--soft); } button:disabled { color: var(--soft); opacity: .6; cursor: default; }
a { color: inherit; text-underline-offset: .15em; }
:focus-visible { outline: 2px solid var(--run-3); outline-offset: 2px; }
.keep { --color: var(--kept); } .review { --color: var(--put-aside); } .reject { --color: var(--rejected); }

.figures { display: flex; flex-wrap: wrap; gap: .6rem 2.6rem; margin: 1.6rem 0 .8rem; padding: 0; list-style: none; }
.figures b { display: block; font-size: 2.1rem; line-height: 1.15; font-weight: 600; font-variant-numeric: tabular-nums; }
.figures span, .decision { color: var(--soft); white-space: nowrap; }
.figures span { font-size: .92rem; }
.figures span::before, .decision::before { content: ""; display: inline-block; width: .62em; height: .62em; margin-right: .4em;
  border-radius: 50%; background: var(--color); }
.figures .all span::before { display: none; }
.shares { display: flex; gap: 2px; height: .7rem; }
.shares i { background: var(--color); border-radius: 2px; min-width: 2px; }
.note.unchecked { border-left: 4px solid var(--put-aside); color: var(--ink); }
.note pre { margin: .5rem 0 0; color: var(--ink); }
kbd { font: .85em ui-monospace, "SF Mono", Menlo, Consolas, monospace; padding: 0 .35em; border: 1px solid var(--line);
  border-bottom-width: 2px; border-radius: 4px; }

.sheet { padding: 0; } .sheet > summary { padding: .7rem 1rem; } .sheet > div { padding: 0 1rem 1rem; }
.sheet summary b { font-weight: 600; } .sheet summary span, .about { color: var(--soft); font-size: .92rem; }
.about { margin: .2rem 0 .8rem; } .scroll + .about { margin-top: .7rem; }
.all-of { display: flex; flex-wrap: wrap; align-items: center; gap: .4rem; margin: 0 0 .9rem; font-size: .88rem;
  color: var(--soft); }
.all-of button { padding: .1rem .7rem; }
.tiles { display: grid; gap: .7rem .6rem; grid-template-columns: repeat(auto-fill, minmax(7.2rem, 1fr)); margin: 0; padding: 0;
  list-style: none; }
.tiles .threshold { grid-column: 1 / -1; display: flex; align-items: center; gap: .8rem; font-size: .85rem; color: var(--soft); }
.threshold::before, .threshold::after { content: ""; flex: 1; border-top: 1px dashed var(--soft); opacity: .6; }
.tile { height: 100%; display: flex; flex-direction: column; padding: .3rem; border: 2px solid transparent; border-radius: 8px;
  background: var(--page); font-size: .75rem; line-height: 1.35; color: var(--soft); font-variant-numeric: tabular-nums; }
.tile .image { position: relative; flex: none; aspect-ratio: 1; margin-bottom: .25rem; }
.tile img { position: absolute; width: 100%; height: 100%; object-fit: contain; border-radius: 2px; }
img.pixels { image-rendering: pixelated; }
.tile b { color: var(--ink); font-weight: 600; }
.tile .first { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 .4rem; }
.tile .name { white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.tile .detail { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2; overflow: hidden; }
.tile .marks { display: grid; grid-template-columns: 1fr 1fr; gap: .25rem; margin-top: auto; padding-top: .35rem; }
.tile button { padding: .2rem 0; color: var(--soft); border-radius: 5px; }
.tile button[aria-pressed=true] { background: var(--color); border-color: var(--color); color: var(--page); font-weight: 600; }
.tile[data-mark=keep] { border-color: var(--kept); } .tile[data-mark=drop] { border-color: var(--rejected); }
.tile[data-mark=drop] img { opacity: .35; }
.tile[data-mark] .image::after { position: absolute; top: .2rem; right: .2rem; width: 1.35rem; border-radius: 50%;
  color: var(--page); font-size: .85rem; line-height: 1.35rem; text-align: center; font-weight: 700; }
.tile[data-mark=keep] .image::after { content: "✓"; background: var(--kept); }
.tile[data-mark=drop] .image::after { content: "✕"; background: var(--rejected); }

.groups { display: flex; flex-wrap: wrap; align-items: flex-start; gap: .8rem; }
.group { max-width: 100%; padding: .6rem; background: var(--card); border: 1px solid var(--line); border-radius: 8px; }
.group .tiles { display: flex; flex-wrap: wrap; } .group li { width: 6.8rem; }
.group i { font-style: normal; white-space: nowrap; } .group .detail i { white-space: normal; overflow-wrap: anywhere; }
.group .differs { color: var(--ink); font-weight: 600; }

.trail { display: flex; flex-wrap: wrap; align-items: baseline; gap: .2rem .4rem; margin-bottom: .5rem; color: var(--soft); }
.crumb { padding: 0; border: 0; background: none; text-decoration: underline; text-underline-offset: .15em; }
.crumb:disabled { color: var(--ink); opacity: 1; text-decoration: none; }
.stage { position: relative; overflow: hidden; aspect-ratio: 3 / 2; background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; }
.layer { position: absolute; inset: 0; transform-origin: 0 0; }
.cluster { position: absolute; display: flex; flex-direction: column; padding: 3px; overflow: hidden; text-align: left;
  border: 1px solid var(--line); border-radius: 0; background: var(--page); }
.cluster:hover, .cluster:focus-visible { z-index: 1; outline: 2px solid var(--run-3); outline-offset: -2px; }
.cluster .head { flex: none; padding: 0 .15rem .1rem; font-size: .75rem; line-height: 1.3; white-space: nowrap; overflow: hidden;
  text-overflow: ellipsis; }
.cluster .head i { font-style: normal; color: var(--soft); }
.images { flex: 1; min-height: 0; display: grid; gap: 2px; overflow: hidden; }
.images img { width: 100%; height: 100%; object-fit: cover; border-radius: 2px; }
.images.whole { position: absolute; inset: 0; padding: 3px; overflow-y: auto; align-content: start;
  grid-template-columns: repeat(auto-fill, minmax(6rem, 1fr)); }
.images.whole img { aspect-ratio: 1; }

.footer { position: fixed; inset: auto 0 0; z-index: 2; background: var(--card); border-top: 1px solid var(--line);
  box-shadow: 0 -2px 12px rgb(0 0 0 / 8%); }
.footer > div { max-width: 70rem; margin: 0 auto; padding: .55rem 1.5rem; display: flex; flex-wrap: wrap; align-items: center;
  gap: .4rem .8rem; }
.footer output { font-weight: 600; font-variant-numeric: tabular-nums; }
#focused { flex: 1; min-width: 0; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; font-size: .82rem;
  color: var(--soft); }
#lost { color: var(--rejected); font-size: .88rem; }
#download:enabled { background: var(--kept); border-color: var(--kept); color: var(--page); font-weight: 600; }
.tile[data-sha256=""] .marks { display: none; } /* a file that could not be read */
@media (max-width: 56rem) {
  .meaning, th:has(.meaning) { display: none; }
  .figures { gap: .6rem 1.6rem; } .figures b { font-size: 1.6rem; }
  .sheet > summary { padding: .6rem .8rem; } .sheet > div { padding: 0 .6rem .8rem; }
  .tiles { gap: .5rem .4rem; grid-template-columns: repeat(auto-fill, minmax(6.2rem, 1fr)); }
  .tile button { padding: .4rem 0; }
  .stage { aspect-ratio: 2 / 3; }
  .footer > div { padding: .5rem .8rem; } #focused { flex-basis: 100%; }
}
@media print { .footer, .marks, .all-of, .trail { display: none; } .tile, .group { break-inside: avoid; } }
"""

WITHOUT_SCRIPT = ".marks, .all-of, .footer { display: none !important; }"
