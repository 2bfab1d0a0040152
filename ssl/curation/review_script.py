"""The script of the review page: marks, kept by the browser and downloaded as CSV, and the zoom of the treemap.

Plain JavaScript without a library. It reads the JSON of the page and makes no HTML of texts.
"""

# The counterpart of `write_marks`.
CSV_SCRIPT = r"""
"use strict";
function cell(text) { return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text; }
function marksCsv(marks, paths) {
  const rows = [["sha256", "path", "mark"]];
  for (const [sha256, mark] of marks) {
    const path = paths.get(sha256) ?? "";
    rows.push([sha256, /^[=+\-@\t\r]/.test(path) ? "./" + path : path, mark]);
  }
  return rows.map(row => row.map(cell).join(",") + "\r\n").join("");
}
"""

_MARKS = r"""
const data = JSON.parse(document.getElementById("data").textContent);
const paths = new Map(data.images);
const key = "wildfern-review-" + data.manifest;
const tiles = new Map();
const byId = id => document.getElementById(id);
let marks = new Map(), stored = true;
for (const tile of document.querySelectorAll(".tile")) {
  if (!tiles.has(tile.dataset.sha256)) tiles.set(tile.dataset.sha256, []);
  tiles.get(tile.dataset.sha256).push(tile);
}
function load() {
  try {
    const found = Object.entries(JSON.parse(localStorage.getItem(key) ?? "{}"));
    marks = new Map(found.filter(([, mark]) => mark === "keep" || mark === "drop"));
  } catch { stored = false; }
}
function save() {
  try { localStorage.setItem(key, JSON.stringify(Object.fromEntries(marks))); stored = true; } catch { stored = false; }
  count();
}
function count() {
  const keep = [...marks.values()].filter(mark => mark === "keep").length, drop = marks.size - keep;
  byId("count").textContent = marks.size ? `${marks.size} marked: ${keep} keep, ${drop} drop` : "nothing marked";
  byId("download").disabled = byId("clear").disabled = !marks.size;
  byId("lost").hidden = stored || !marks.size;
}
function paint(sha256) {
  for (const tile of tiles.get(sha256) ?? []) {
    tile.dataset.mark = marks.get(sha256) ?? "";
    for (const button of tile.querySelectorAll("[data-do]")) {
      button.setAttribute("aria-pressed", button.dataset.do === marks.get(sha256));
    }
  }
}
function setMark(sha256, mark) {
  if (!sha256) return; // a file that could not be read has none
  if (mark === "keep" || mark === "drop") marks.set(sha256, mark); else marks.delete(sha256);
  paint(sha256);
}
function focusable(tile) {
  const grid = tile.closest(".tiles");
  for (const one of grid.querySelectorAll("[tabindex='0']")) one.tabIndex = -1;
  for (const one of [tile, ...tile.querySelectorAll("button")]) one.tabIndex = 0;
  byId("focused").textContent = tile.title.split("\n").join(" · ");
}
function neighbor(tile, key) {
  const all = [...document.querySelectorAll(".tile")].filter(one => !one.closest("details:not([open])"));
  if (key === "ArrowLeft" || key === "ArrowRight") return all[all.indexOf(tile) + (key === "ArrowRight" ? 1 : -1)];
  const down = key === "ArrowDown" ? 1 : -1, from = tile.getBoundingClientRect();
  let best, least = Infinity;
  for (const one of all) {
    const to = one.getBoundingClientRect(), rows = down * (to.top - from.top);
    const distance = 1000 * rows + Math.abs(to.left - from.left);
    if (rows >= from.height / 2 && distance < least) { best = one; least = distance; }
  }
  return best;
}
function openTarget() {
  const target = byId(location.hash.slice(1));
  if (target && target.tagName === "DETAILS") { target.open = true; target.scrollIntoView(); }
}
document.addEventListener("click", event => {
  const button = event.target.closest("button, a");
  const tile = event.target.closest(".tile");
  if (button && tile) {
    const same = marks.get(tile.dataset.sha256) === button.dataset.do;
    setMark(tile.dataset.sha256, same ? "" : button.dataset.do);
    save();
  } else if (button && "all" in button.dataset) {
    for (const one of button.closest("details").querySelectorAll(".tile")) setMark(one.dataset.sha256, button.dataset.all);
    save();
  } else if (button && button.matches("a[href^='#']")) setTimeout(openTarget);
});
document.addEventListener("focusin", event => {
  const tile = event.target.closest(".tile");
  if (tile) focusable(tile);
});
document.addEventListener("keydown", event => {
  const tile = event.target.closest(".tile");
  if (!tile || event.ctrlKey || event.metaKey || event.altKey) return;
  const mark = { k: "keep", d: "drop", u: "" }[event.key.toLowerCase()];
  if (mark !== undefined) { setMark(tile.dataset.sha256, mark); save(); }
  else if (event.key.startsWith("Arrow")) neighbor(tile, event.key)?.focus();
  else return;
  event.preventDefault();
});
byId("download").addEventListener("click", () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([marksCsv(marks, paths)], { type: "text/csv" }));
  link.download = "marks.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
});
byId("clear").addEventListener("click", () => {
  if (!confirm(`Remove all ${marks.size} marks?`)) return;
  const before = [...marks.keys()];
  marks.clear();
  before.forEach(paint);
  save();
});
window.addEventListener("storage", event => { // another tab with this page
  if (event.key !== key) return;
  const before = [...marks.keys()];
  load();
  [...before, ...marks.keys()].forEach(paint);
  count();
});
window.addEventListener("beforeunload", event => { if (!stored && marks.size) event.preventDefault(); });
window.addEventListener("hashchange", openTarget);
load();
[...marks.keys()].forEach(paint);
count();
openTarget();
"""

_TREEMAP = r"""
const stage = byId("stage"), narrow = matchMedia("(max-width: 56rem)"), CELL = 56;
let trail = [];
function element(tag, kind, text) {
  const made = document.createElement(tag);
  made.className = kind;
  if (text !== undefined) made.textContent = text;
  return made;
}
function image(place) {
  const made = element("img", data.thumbnails[place].startsWith("data:image/png") ? "pixels" : "");
  made.src = data.thumbnails[place];
  made.alt = "";
  return made;
}
function fill(box, places) { // as many images as there is room for, in nearly square cells
  const { clientWidth: width, clientHeight: height } = box;
  let columns = 1;
  const most = () => Math.max(1, Math.round(height / (width / columns)));
  while (columns * most() < places.length && width / (columns + 1) >= CELL) columns += 1;
  const rows = Math.min(most(), Math.ceil(places.length / columns));
  box.style.gridTemplate = `repeat(${rows}, minmax(0, 8rem)) / repeat(${columns}, minmax(0, 8rem))`;
  box.append(...places.slice(0, columns * rows).map(image));
}
function clusters(count) { return count === 1 ? "1 image" : `${count.toLocaleString("en")} images`; }
function draw() {
  let node = { children: data.clusters, thumbnails: [] };
  byId("trail").replaceChildren(crumb("all clusters", 0));
  trail.forEach((place, depth) => {
    node = node.children[place];
    byId("trail").append(" › ", crumb(`${node.label} (${clusters(node.size)})`, depth + 1));
  });
  byId("trail").lastChild.disabled = true;
  const layer = element("div", "layer");
  stage.replaceChildren(layer);
  if (!node.children.length) {
    const box = element("div", "images whole");
    layer.append(box);
    box.append(...node.thumbnails.map(image));
  }
  node.children.forEach((child, place) => {
    const [left, top, width, height] = narrow.matches ? [1, 0, 3, 2].map(side => child.box[side]) : child.box;
    const tile = element("button", "cluster");
    for (const [side, part] of Object.entries({ left, top, width, height })) tile.style[side] = `${100 * part}%`;
    tile.title = `${child.label}: ${clusters(child.size)}`;
    const head = element("span", "head", child.label + " ");
    head.append(element("i", "", child.size.toLocaleString("en")));
    const box = element("div", "images");
    tile.append(head, box);
    layer.append(tile);
    if (tile.clientWidth < 44 || tile.clientHeight < 60) head.remove();
    fill(box, child.thumbnails);
    tile.addEventListener("click", () => {
      zoom([...trail, place]);
      move(`translate(${100 * left}%, ${100 * top}%) scale(${width}, ${height})`);
    });
  });
  return layer;
}
function crumb(text, depth) {
  const made = element("button", "crumb", text);
  made.addEventListener("click", () => { zoom(trail.slice(0, depth)); move("scale(1.04)"); });
  return made;
}
function zoom(to) {
  trail = to;
  draw();
  const next = stage.querySelector("button") ?? byId("trail").querySelector("button:nth-last-of-type(2)");
  next.focus({ preventScroll: true });
}
function move(from) {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  const frames = [{ transform: from, opacity: 0.4 }, { transform: "none", opacity: 1 }];
  stage.firstChild.animate(frames, { duration: 220, easing: "ease-out" });
}
if (stage) {
  byId("treemap").addEventListener("keydown", event => {
    if (event.key === "Escape" && trail.length) { zoom(trail.slice(0, -1)); move("scale(1.04)"); }
  });
  new ResizeObserver(draw).observe(stage);
}
"""

SCRIPT = f"{CSV_SCRIPT}{_MARKS}{_TREEMAP}"
