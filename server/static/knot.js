// What pages do besides what they do without script: colours, copying, and hearing of changes.
"use strict";
(() => {
  const root = document.documentElement;
  const isDark = () =>
    root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;

  // The server reads this cookie, so that the next page comes in the right colours.
  const remember = (theme) => {
    root.dataset.theme = theme;
    document.cookie = `knot-theme=${theme}; Path=/; Max-Age=31536000; SameSite=Lax`;
  };

  const copy = async (button) => {
    const source = document.getElementById(button.dataset.copy);
    const said = button.parentElement.querySelector("[data-copied]");
    try {
      await navigator.clipboard.writeText(source.textContent);
      said.textContent = "Copied.";
    } catch {
      getSelection().selectAllChildren(source);
      said.textContent = "Selected: copy it with your keyboard.";
    }
  };

  document.addEventListener("click", (event) => {
    const target = event.target instanceof Element ? event.target : null;
    if (target?.closest("[data-theme-toggle]")) remember(isDark() ? "light" : "dark");
    const button = target?.closest("[data-copy]");
    if (button) copy(button);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const open of document.querySelectorAll("details.sure[open]")) {
      open.open = false;
      open.querySelector("summary").focus();
    }
  });
  for (const button of document.querySelectorAll("[data-theme-toggle]")) button.hidden = false;
  // Where the menu is a line, the entry of this page may be beyond its end.
  document.querySelector(".side [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
  document.getElementById("problem")?.focus();

  // Complaints name lines, so these are numbered.
  for (const area of document.querySelectorAll(".numbered textarea")) {
    const gutter = document.createElement("pre");
    gutter.className = "gutter";
    gutter.setAttribute("aria-hidden", "true");
    area.before(gutter);
    const follow = () => { gutter.scrollTop = area.scrollTop; };
    const number = () => {
      gutter.textContent = area.value.split("\n").map((_, at) => at + 1).join("\n");
      follow();
    };
    area.addEventListener("input", number);
    area.addEventListener("scroll", follow);
    number();
  }

  // A page that nobody looks at does not listen: browsers open few connections to one server.
  const address = document.body.dataset.live;
  const lost = document.getElementById("lost");
  const PATIENCE_MS = 1500;
  let source = null;
  let waiting = null;

  const tell = (name) => document.body.dispatchEvent(new CustomEvent(name));
  const found = () => {
    clearTimeout(waiting);
    waiting = null;
    if (lost.hidden) return;
    lost.hidden = true;
    tell("live-page");
    tell("live-cluster");
  };
  const listen = () => {
    source = new EventSource(address);
    source.onopen = found;
    source.onerror = () => {
      waiting ??= setTimeout(() => { lost.hidden = false; }, PATIENCE_MS);
      if (source?.readyState === EventSource.CLOSED) setTimeout(again, PATIENCE_MS);
    };
    source.addEventListener("page", () => tell("live-page"));
    source.addEventListener("cluster", () => tell("live-cluster"));
    source.addEventListener("gone", () => location.reload());
  };
  const stop = () => {
    source?.close();
    source = null;
  };
  const again = () => {
    stop();
    if (!document.hidden) listen();
  };
  if (address) {
    again();
    document.addEventListener("visibilitychange", again);
    addEventListener("pagehide", stop);
    addEventListener("pageshow", (event) => { if (event.persisted) again(); });
  }
})();
