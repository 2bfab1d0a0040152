// Line charts by uPlot: in the colors of the page, with the values under the pointer in the caption.
"use strict";

(() => {
  const FONT = '12px system-ui, "Segoe UI", Helvetica, Arial, sans-serif';
  const MARKED = 40; // points; fewer are drawn as dots too
  const charts = [];

  const cssColor = (name) =>
    getComputedStyle(document.documentElement)
      .getPropertyValue(name.replace(/^var\((--[a-z0-9-]+)\)$/, "$1"))
      .trim();

  function words(value, percent) {
    if (value === null || value === undefined) {
      return "–";
    }
    if (percent) {
      return `${(100 * value).toFixed(1)} %`;
    }
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-3 || size >= 1e6)) {
      return value.toExponential(2).replace("e+", "e");
    }
    return Number(value.toPrecision(4)).toLocaleString("en", { maximumSignificantDigits: 4 });
  }

  // Ticks need fewer digits than values.
  function tick(value, percent) {
    if (percent) {
      return `${Number((100 * value).toPrecision(3))} %`;
    }
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-3 || size >= 1e6)) {
      return Number(value.toPrecision(3)).toExponential().replace("e+", "e");
    }
    return Number(value.toPrecision(6)).toLocaleString("en", { maximumSignificantDigits: 6 });
  }

  // One table [x, y, y, …] of lines with different x; null where a line has no point.
  function joined(data) {
    const tables = data.lines.flatMap((line) => {
      const found = [[line.x, line.y]];
      if (line.mean) {
        found.push([line.x, line.mean]);
      }
      return found;
    });
    return tables.length === 1 ? tables[0] : uPlot.join(tables);
  }

  function series(data) {
    return data.lines.flatMap((line) => {
      const stroke = () => cssColor(line.color);
      const base = { stroke, spanGaps: true, label: line.name, points: { show: line.x.length <= MARKED, size: 5 } };
      if (!line.mean) {
        return [{ ...base, width: 1.8 }];
      }
      return [
        { ...base, width: 1, alpha: 0.32 },
        { ...base, width: 2, points: { show: false } },
      ];
    });
  }

  function yRange(data) {
    const pad = (data.high - data.low || Math.abs(data.high) || 1) * 0.06;
    let low = data.low - pad;
    let high = data.high + pad;
    if (data.low >= 0 && low < 0) {
      low = 0;
    }
    if (data.percent) {
      high = Math.min(high, 1.0);
      low = Math.max(low, 0);
    }
    return high > low ? [low, high] : [low, low + 1];
  }

  function options(data, width, shown) {
    const axis = () => ({
      stroke: () => cssColor("--soft"),
      font: FONT,
      grid: { stroke: () => cssColor("--line"), width: 1 },
      ticks: { show: false },
      border: { show: false },
    });
    const long = (values) => Math.max(0, ...(values ?? []).map((value) => value.length));
    const whole = { space: 60, incrs: [1, 2, 5].flatMap((n) => Array.from({ length: 13 }, (_, i) => n * 10 ** i)) };
    whole.incrs.sort((a, b) => a - b);
    return {
      width,
      height: data.small ? 160 : 230,
      padding: [8, 12, 0, 0],
      legend: { show: false },
      cursor: {
        sync: data.x === "step" ? { key: "step", scales: ["x", null], setSeries: false } : undefined,
        drag: { x: true, y: false },
        points: { size: 7, width: 0 },
        y: false,
      },
      scales: { x: { time: false }, y: { range: yRange(data) } },
      axes: [
        { ...axis(), ...whole, size: 26, values: (_, splits) => splits.map((value) => tick(value, false)) },
        {
          ...axis(),
          space: 32,
          size: (_, values) => Math.round(14 + 6.8 * long(values)),
          values: (_, splits) => splits.map((value) => tick(value, data.percent)),
        },
      ],
      series: [{}, ...series(data)],
      hooks: { setCursor: [shown] },
    };
  }

  // In the caption, each after its dot: the values under the pointer, or the last ones.
  function readout(output, data, plot) {
    const index = plot?.cursor.idx;
    output.replaceChildren();
    output.classList.toggle("many", data.lines.length > 2);
    const parts = [];
    if (index !== null && index !== undefined) {
      parts.push(`${data.x} ${words(plot.data[0][index], false)}`);
    }
    let column = 1;
    for (const line of data.lines) {
      const values = plot ? plot.data[column] : line.y;
      column += line.mean ? 2 : 1;
      const value = index === null || index === undefined ? line.y.at(-1) : near(values, index);
      const part = document.createElement("span");
      if (data.lines.length > 1) {
        const dot = document.createElement("span");
        dot.className = "dot";
        dot.style.background = line.color;
        part.append(dot);
        part.title = line.name;
      }
      part.append(words(value, data.percent));
      parts.push(part);
    }
    parts.forEach((part) => output.append(part, " "));
  }

  // The value at a place, or the last one before it.
  function near(values, index) {
    let place = index;
    while (place > 0 && (values[place] === null || values[place] === undefined)) {
      place -= 1;
    }
    return values[place];
  }

  function draw(figure) {
    const data = JSON.parse(figure.querySelector("script").textContent);
    const place = figure.querySelector(".plot");
    const output = figure.querySelector("output");
    const table = joined(data);
    const plot = new uPlot(
      options(data, place.clientWidth || 300, (found) => readout(output, data, found)),
      table,
      place,
    );
    readout(output, data, plot);
    place.addEventListener("keydown", (event) => {
      const last = table[0].length - 1;
      const now = plot.cursor.idx ?? last;
      const next = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: last }[event.key];
      if (next === undefined) {
        return;
      }
      event.preventDefault();
      output.ariaLive = "polite"; // of the chart that has the focus, not of those that follow it
      const x = table[0][Math.min(Math.max(next, 0), last)];
      plot.setCursor({ left: plot.valToPos(x, "x"), top: plot.bbox.height / 4 });
    });
    charts.push({ plot, place });
  }

  for (const figure of document.querySelectorAll("figure.chart")) {
    draw(figure);
  }

  new ResizeObserver(() => {
    for (const { plot, place } of charts) {
      const width = place.clientWidth;
      if (width > 0 && width !== plot.width) {
        plot.setSize({ width, height: plot.height });
      }
    }
  }).observe(document.querySelector("main"));

  document.addEventListener("themechange", () => charts.forEach(({ plot }) => plot.redraw(false, true)));
})();
