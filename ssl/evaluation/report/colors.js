// Colors of categories on the map: ten that differ well, then hues by the golden angle in three lightnesses.
"use strict";

const CategoryColors = (() => {
  // Of Tableau 10, ordered so that neighbors differ; readable on light and dark.
  const TEN = ["#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#76b7b2", "#edc948", "#ff9da7", "#9c755f", "#8a8f98"];
  const UNKNOWN = [150, 150, 150];
  const RIGHT = [54, 114, 200];
  const WRONG = [224, 108, 32];

  const fromHex = (text) => [1, 3, 5].map((start) => parseInt(text.slice(start, start + 2), 16));

  function fromHsl(hue, saturation, lightness) {
    const reach = saturation * Math.min(lightness, 1 - lightness);
    const channel = (n) => {
      const k = (n + hue / 30) % 12;
      return Math.round(255 * (lightness - reach * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
    };
    return [channel(0), channel(8), channel(4)];
  }

  // The colors of `count` categories, as [red, green, blue].
  function colors(count) {
    if (count <= TEN.length) {
      return TEN.slice(0, count).map(fromHex);
    }
    return Array.from({ length: count }, (_, i) => fromHsl((i * 137.508) % 360, 0.62, [0.45, 0.62, 0.34][i % 3]));
  }

  return { colors, UNKNOWN, RIGHT, WRONG, ten: TEN.map(fromHex) };
})();
