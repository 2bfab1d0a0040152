// Where the points of a map are on the screen: draw, pan, zoom, and find the point under the pointer.
"use strict";

class MapView {
  // `holder` gets the canvas; `looked(index)` is called with the point under the pointer, or -1.
  constructor(holder, label, looked) {
    this.holder = holder;
    this.looked = looked;
    this.canvas = document.createElement("canvas");
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "img");
    this.canvas.ariaLabel = `${label}. Arrow keys move it, + and - zoom, 0 shows all.`;
    holder.append(this.canvas);
    this.points = new PointCanvas(this.canvas);
    this.positions = new Float32Array();
    this.listen();
    new ResizeObserver(() => {
      const [width, height] = [holder.clientWidth, holder.clientHeight];
      if (width > 0 && (this.width !== width || this.height !== height)) {
        this.fit();
      }
    }).observe(holder);
  }

  // `positions` Float32Array of x, y; `colors` [red, green, blue] and `above`, whether it is drawn over the others, by index.
  paint(positions, colors, above) {
    const count = positions.length / 2;
    const [dimmed, opaque] = [count > 5000 ? 14 : 36, 225]; // alpha, of 255
    const order = Uint32Array.from({ length: count }, (_, i) => i);
    order.sort((a, b) => above(a) - above(b) || a - b);
    const sorted = new Float32Array(2 * count);
    const shades = new Uint8Array(4 * count);
    order.forEach((i, place) => {
      sorted.set(positions.subarray(2 * i, 2 * i + 2), 2 * place);
      shades.set([...colors(i), above(i) ? opaque : dimmed], 4 * place);
    });
    this.positions = positions;
    this.above = above;
    this.points.setPoints(sorted, shades);
    this.draw();
  }

  draw() {
    if (this.place === undefined) {
      return;
    }
    const { zoom, left, top, fitted } = this.place;
    const { ratio } = this;
    const alone = 378 / Math.sqrt(this.points.count || 1);
    const size = Math.min(14, Math.max(3, alone * Math.sqrt(zoom / fitted)));
    this.points.draw({ zoom: zoom * ratio, left: left * ratio, top: top * ratio, size: size * ratio });
  }

  // All points in view.
  fit() {
    [this.width, this.height] = [this.holder.clientWidth || 600, this.holder.clientHeight || 400];
    this.ratio = Math.min(devicePixelRatio || 1, 2);
    this.canvas.width = Math.round(this.width * this.ratio);
    this.canvas.height = Math.round(this.height * this.ratio);
    const low = [1, 1];
    const high = [0, 0];
    this.positions.forEach((value, i) => {
      low[i % 2] = Math.min(low[i % 2], value);
      high[i % 2] = Math.max(high[i % 2], value);
    });
    const zoom = 0.92 * Math.min(this.width / (high[0] - low[0] || 1), this.height / (high[1] - low[1] || 1));
    this.place = {
      zoom,
      fitted: zoom,
      left: this.width / 2 - ((low[0] + high[0]) / 2) * zoom,
      top: this.height / 2 - ((low[1] + high[1]) / 2) * zoom,
    };
    this.draw();
  }

  zoomAt(factor, x = this.width / 2, y = this.height / 2) {
    const { place } = this;
    const zoom = Math.min(Math.max(place.zoom * factor, place.fitted / 4), place.fitted * 200);
    const change = zoom / place.zoom;
    place.left = x - (x - place.left) * change;
    place.top = y - (y - place.top) * change;
    place.zoom = zoom;
    this.draw();
  }

  pan(x, y) {
    this.place.left += x;
    this.place.top += y;
    this.draw();
  }

  // Where a point is, in pixels of the holder.
  pixel(index) {
    const { zoom, left, top } = this.place;
    return [this.positions[2 * index] * zoom + left, this.positions[2 * index + 1] * zoom + top];
  }

  // The point nearest to a pixel, not of those below; -1 if there is none near.
  nearest(x, y) {
    const REACH = 14; // pixels
    let best = -1;
    let least = REACH ** 2;
    for (let i = 0; i < this.points.count; i += 1) {
      if (this.above(i)) {
        const [left, top] = this.pixel(i);
        const distance = (left - x) ** 2 + (top - y) ** 2;
        if (distance < least) {
          [best, least] = [i, distance];
        }
      }
    }
    return best;
  }

  listen() {
    const { canvas } = this;
    const pointers = new Map();
    canvas.addEventListener("wheel", (event) => {
      // Plain scrolling moves the page unless the map has the focus.
      if (event.ctrlKey || document.activeElement === canvas) {
        event.preventDefault();
        this.zoomAt(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY);
      }
    });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.focus({ preventScroll: true });
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, [event.clientX, event.clientY]);
    });
    for (const kind of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(kind, (event) => pointers.delete(event.pointerId));
    }
    canvas.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (before === undefined) {
        this.looked(this.nearest(event.offsetX, event.offsetY));
        return;
      }
      const now = [event.clientX, event.clientY];
      const other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
      if (other === undefined) {
        this.pan(now[0] - before[0], now[1] - before[1]);
      } else {
        const span = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]) || 1;
        this.zoomAt(span(now) / span(before), event.offsetX, event.offsetY);
      }
      pointers.set(event.pointerId, now);
      this.looked(-1);
    });
    canvas.addEventListener("pointerleave", () => this.looked(-1));
    canvas.addEventListener("click", (event) => this.looked(this.nearest(event.offsetX, event.offsetY)));
    canvas.addEventListener("keydown", (event) => {
      const moves = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
      const zooms = { "+": 1.3, "=": 1.3, "-": 1 / 1.3 };
      if (event.key in moves) {
        this.pan(...moves[event.key]);
      } else if (event.key in zooms) {
        this.zoomAt(zooms[event.key]);
      } else if (event.key === "0") {
        this.fit();
      } else {
        return;
      }
      event.preventDefault();
    });
  }
}
