// The map of test images: choose positions, colors and categories, and look at single images.
"use strict";

(() => {
  const LISTED = 20; // categories in the legend; the others are found by its search

  function unpacked(text, Kind) {
    const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
    return new Kind(bytes.buffer);
  }

  function element(tag, properties = {}, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  class ImageMap {
    constructor(figure) {
      const data = JSON.parse(figure.querySelector("script").textContent);
      this.data = data;
      this.items = unpacked(data.items, Uint32Array);
      this.labels = unpacked(data.labels, Uint16Array);
      for (const one of data.predictions) {
        one.guesses = unpacked(one.guesses, Uint16Array);
      }
      for (const group of data.groups) {
        group.codes = unpacked(group.codes, Uint16Array);
      }
      for (const backbone of data.backbones) {
        backbone.points = Float32Array.from(unpacked(backbone.points, Uint16Array), (value) => value / 65535);
      }
      this.stage = figure.querySelector(".stage");
      this.colorings = this.makeColorings();
      this.build();
      this.chooseBackbone(0);
      this.chooseColors(0);
      this.view.fit();
    }

    // Parts of the page

    build() {
      this.tip = element("div", { className: "tip", hidden: true });
      this.holder = element("div", { className: "holder" });
      this.legend = element("ul", { className: "categories" });
      this.search = element("input", { type: "search", placeholder: "find a category", ariaLabel: "find a category" });
      this.search.addEventListener("input", () => this.showLegend());
      this.words = element("p", { className: "note-line" });
      this.bar = element("div", { className: "filters-bar" });
      const { backbones } = this.data;
      this.bar.append(
        this.choice("features of", backbones.map((one) => one.name), (i) => this.chooseBackbone(i)),
        this.choice("color by", this.colorings.map((one) => one.name), (i) => this.chooseColors(i)),
        this.button("show all", () => this.view.fit()),
        this.button("+", () => this.view.zoomAt(1.5), "zoom in"),
        this.button("−", () => this.view.zoomAt(1 / 1.5), "zoom out"),
      );
      this.side = element("div", { className: "side" }, this.search, this.legend);
      this.stage.append(this.bar, element("div", { className: "map-parts" }, this.holder, this.side), this.words);
      this.view = new MapView(this.holder, this.stage.dataset.label, (found) => this.look(found));
      this.holder.append(this.tip);
      this.stage.dataset.kind = this.view.points.kind;
    }

    choice(label, names, chosen) {
      const select = element("select");
      names.forEach((name, i) => select.append(element("option", { value: String(i), textContent: name })));
      select.addEventListener("change", () => chosen(Number(select.value)));
      return element("label", {}, `${label} `, select);
    }

    button(text, pressed, label = text) {
      const made = element("button", { type: "button", textContent: text, ariaLabel: label });
      made.addEventListener("click", pressed);
      return made;
    }

    // What colors mean: {name, codes: of each point, 0 for unknown, names: of 1, 2, …}

    makeColorings() {
      const { data } = this;
      const found = [{ name: "class", codes: this.labels, names: (code) => this.className(code) }];
      const one = (prediction) => `${prediction.protocol}, ${prediction.backbone}`;
      for (const prediction of data.predictions) {
        const codes = Uint16Array.from(prediction.guesses, (guess, i) =>
          this.labels[i] === 0 ? 0 : guess === this.labels[i] ? 1 : 2,
        );
        const names = (code) => ["right", "wrong"][code - 1];
        const fixed = [CategoryColors.RIGHT, CategoryColors.WRONG];
        found.push({ name: `right or wrong: ${one(prediction)}`, codes, names, fixed });
      }
      for (const prediction of data.predictions) {
        const names = (code) => this.className(code);
        found.push({ name: `prediction: ${one(prediction)}`, codes: prediction.guesses, names });
      }
      for (const group of data.groups) {
        found.push({ name: group.name, codes: group.codes, names: (code) => group.names[code - 1] ?? `${code - 1}` });
      }
      return found;
    }

    className(code) {
      return code === 0 ? "none" : (this.data.names[code - 1] ?? `${code - 1}`);
    }

    chooseBackbone(index) {
      this.backbone = this.data.backbones[index];
      this.words.textContent = `Positions: ${this.backbone.words}.`;
      this.paint();
      this.view.fit();
    }

    chooseColors(index) {
      this.coloring = this.colorings[index];
      const counts = new Map();
      for (const code of this.coloring.codes) {
        counts.set(code, (counts.get(code) ?? 0) + 1);
      }
      const codes = [...counts.keys()].filter((code) => code > 0).sort((a, b) => a - b);
      const colors = this.coloring.fixed ?? CategoryColors.colors(codes.length);
      const fixed = this.coloring.fixed !== undefined;
      this.colorOf = new Map(codes.map((code, i) => [code, colors[fixed ? code - 1 : i]]));
      this.categories = [...counts].map(([code, count]) => ({ code, count }));
      this.categories.sort((a, b) => b.count - a.count || a.code - b.code);
      this.chosen = new Map();
      this.search.value = "";
      this.search.hidden = this.categories.length <= LISTED;
      this.showLegend();
      this.paint();
    }

    nameOf(code) {
      return code === 0 ? "unknown" : this.coloring.names(code);
    }

    // The color of a category: chosen ones have colors that differ well from each other.
    shade(code) {
      return this.chosen.get(code) ?? this.colorOf.get(code) ?? CategoryColors.UNKNOWN;
    }

    showLegend() {
      const wanted = this.search.value.toLowerCase();
      const found = this.categories.filter(({ code }) => this.nameOf(code).toLowerCase().includes(wanted));
      const listed = found.filter(({ code }, i) => i < LISTED || this.chosen.has(code));
      const lines = listed.map(({ code, count }) => {
        const dot = element("span", { className: "dot" });
        dot.style.background = `rgb(${this.shade(code).join(" ")})`;
        const button = this.button("", () => this.toggle(code), `${this.nameOf(code)}, ${count} images`);
        button.ariaPressed = String(this.chosen.has(code));
        button.append(dot, element("span", { textContent: this.nameOf(code) }), element("small", { textContent: count }));
        return element("li", {}, button);
      });
      if (found.length > listed.length) {
        lines.push(element("li", { textContent: `and ${found.length - listed.length} more` }));
      }
      this.legend.replaceChildren(...lines);
    }

    toggle(code) {
      const focused = [...this.legend.querySelectorAll("button")].indexOf(document.activeElement);
      if (!this.chosen.delete(code)) {
        const used = [...this.chosen.values()];
        const many = this.categories.length > CategoryColors.ten.length;
        const free = CategoryColors.ten.find((color) => !used.includes(color));
        this.chosen.set(code, many && free ? free : (this.colorOf.get(code) ?? CategoryColors.UNKNOWN));
      }
      this.showLegend();
      this.legend.querySelectorAll("button")[focused]?.focus();
      this.paint();
    }

    paint() {
      if (this.coloring === undefined || this.backbone === undefined) {
        return;
      }
      const { codes } = this.coloring;
      this.view.paint(
        this.backbone.points,
        (i) => this.shade(codes[i]),
        (i) => this.chosen.size === 0 || this.chosen.has(codes[i]),
      );
    }

    look(found) {
      this.tip.hidden = found < 0;
      if (found < 0) {
        return;
      }
      const parts = [];
      const thumbnail = this.data.thumbnails[found];
      if (thumbnail !== undefined) {
        parts.push(element("img", { src: `data:image/jpeg;base64,${thumbnail}`, alt: "" }));
      }
      const lines = [element("b", { textContent: this.className(this.labels[found]) })];
      lines.push(element("small", { textContent: `image ${this.items[found]}` }));
      for (const prediction of this.data.predictions.filter((one) => one.backbone === this.backbone.name)) {
        const guess = prediction.guesses[found];
        const mark = this.labels[found] === 0 ? "" : guess === this.labels[found] ? "✓ " : "✗ ";
        lines.push(element("small", { textContent: `${prediction.protocol}: ${mark}${this.className(guess)}` }));
      }
      for (const group of this.data.groups) {
        const name = group.codes[found] === 0 ? "unknown" : group.names[group.codes[found] - 1];
        lines.push(element("small", { textContent: `${group.name}: ${name}` }));
      }
      parts.push(element("div", {}, ...lines));
      this.tip.replaceChildren(...parts);
      const [left, top] = this.view.pixel(found);
      const room = [this.holder.clientWidth - this.tip.offsetWidth, this.holder.clientHeight - this.tip.offsetHeight];
      this.tip.style.left = `${Math.min(Math.max(left + 12, 4), Math.max(4, room[0] - 4))}px`;
      this.tip.style.top = `${Math.min(Math.max(top + 12, 4), Math.max(4, room[1] - 4))}px`;
    }
  }

  for (const figure of document.querySelectorAll("figure.map")) {
    new ImageMap(figure);
  }
})();
