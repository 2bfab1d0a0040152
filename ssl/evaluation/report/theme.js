// A button that switches between light and dark, and light colors on paper. Charts redraw on the event "themechange".
"use strict";

(() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const button = document.createElement("button");
  let printed;

  const stored = () => {
    try {
      return localStorage.getItem("wildfern-theme");
    } catch {
      return null; // storage is forbidden in some browsers for files
    }
  };

  const current = () => root.dataset.theme ?? (system.matches ? "dark" : "light");

  const show = () => {
    const other = current() === "dark" ? "light" : "dark";
    button.textContent = `${other === "dark" ? "Dark" : "Light"} colors`;
    document.dispatchEvent(new Event("themechange"));
  };

  const choose = (theme) => {
    if (theme === undefined) {
      delete root.dataset.theme;
    } else {
      root.dataset.theme = theme;
    }
    show();
  };

  button.type = "button";
  button.className = "theme";
  button.addEventListener("click", () => {
    choose(current() === "dark" ? "light" : "dark");
    try {
      localStorage.setItem("wildfern-theme", root.dataset.theme);
    } catch {
      // as above: the choice holds until the page is left
    }
  });
  document.querySelector("header").append(button);
  system.addEventListener("change", show);

  addEventListener("beforeprint", () => {
    printed = root.dataset.theme;
    choose("light");
  });
  addEventListener("afterprint", () => choose(printed));

  const kept = stored();
  choose(["light", "dark"].includes(kept) ? kept : undefined);
})();
