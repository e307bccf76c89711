// The page around the timeline.

const $ = (id) => document.getElementById(id);
const element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") made.className = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
};
const count = (number, one, many = `${one}s`) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
const say = (text) => { $("said").textContent = text; };

const violation = run.violations[0] || null;

function title() {
  $("name").textContent = run.name;
  const chip = $("chip");
  chip.textContent = violation ? `broke: ${violation.name}` : run.settled === null ? "stopped early" : "all promises held";
  chip.className = `chip ${violation ? "broke" : "held"}`;
  const c = run.counts;
  const parts = [
    `${count(run.nodes.length, "server")} in ${count(run.zones.length, "zone")}`, `${seconds(END, 1)} of virtual time`,
    `${run.document} documents`, count(c.faults, "fault"), count(c.crashes, "crash", "crashes"),
    `${c.acknowledged.toLocaleString("en")} writes acknowledged, ${c.refused.toLocaleString("en")} refused, ${c.unknown.toLocaleString("en")} unknown`,
    count(c.repairs, "repair"),
  ];
  if (run.settled !== null) parts.push(`settled in ${lasting(run.settled)}`);
  if (run.planted.length) parts.push(`planted bug: ${run.planted.join(", ")}`);
  $("facts").textContent = parts.join(" · ");
  lanes.setAttribute("aria-label", `${run.name}: ${chip.textContent}. ${parts.join(", ")}. The events are listed below.`);
}

function broken() {
  if (!violation) return;
  const box = $("broken");
  box.hidden = false;
  const where = (one) => `${seconds(one.at, 6)} on ${name(one.node)}`;
  box.append(
    element("h2", {}, `${violation.name[0].toUpperCase()}${violation.name.slice(1)} at ${where(violation)}`),
    element("p", {}, violation.promise),
    element("p", { class: "detail" }, violation.detail),
  );
  const more = run.violations.slice(1);
  if (more.length) {
    const list = more.map((one) => element("p", { class: "detail" }, `${one.name} at ${where(one)}: ${one.detail}`));
    box.append(element("details", {}, element("summary", {}, `${count(more.length, "more violation")} at once`), ...list));
  }
  $("jump").hidden = false;
}

function widths() {
  const longest = Math.max(...run.nodes.map(([label]) => label.length));
  document.documentElement.style.setProperty("--who", `${Math.min(10, Math.max(3, longest * 0.6 + 0.4))}rem`);
}

function rule() {
  const { sent, drawn: kept, all_from: from, documents, rest } = run.rule;
  const parts = [];
  if (kept === sent) parts.push(`All ${count(sent, "message")} are here.`);
  else {
    parts.push(`${kept.toLocaleString("en")} of ${count(sent, "message")} are here, to keep the page small: all from ${seconds(from, 1)} on`
      + `; before, one in ${documents} of those about documents and one in ${rest} of the others. ${(sent - kept).toLocaleString("en")} are left out.`);
  }
  if (run.operations.asked > operations.length) parts.push(`The last ${operations.length.toLocaleString("en")} of ${run.operations.asked.toLocaleString("en")} operations are here.`);
  if (run.roots.step > 1) parts.push(`Heads are shown every ${lasting(run.roots.step)} before that.`);
  $("rule").textContent = parts.join(" ");
}

// ---- time ----

const LEAST = 50;
function setView(from, to) {
  const span = Math.max(LEAST, Math.min(to - from, END * 1.02));
  const start = Math.max(-END * 0.01, Math.min(from, END * 1.01 - span));
  view.from = start;
  view.to = start + span;
  later();
}
function zoom(factor, around = (view.from + view.to) / 2) {
  setView(around - (around - view.from) * factor, around + (view.to - around) * factor);
}
const showAll = () => setView(-END * 0.005, END * 1.01);
function setCursor(at, follow = true) {
  state.cursor = Math.max(0, Math.min(END, at));
  const span = view.to - view.from;
  if (follow && (state.cursor < view.from || state.cursor > view.to)) setView(state.cursor - span / 2, state.cursor + span / 2);
  later();
}
function showViolation() {
  const span = Math.min(END, Math.max(4e5, END * 0.01));
  setCursor(violation.at, false);
  setView(violation.at - span * 0.85, violation.at + span * 0.15);
}

let waiting = false;
let settle = 0;
function later() {
  if (!waiting) {
    waiting = true;
    requestAnimationFrame(() => { waiting = false; paint(); });
  }
  clearTimeout(settle);
  settle = setTimeout(lists, 90);
}
function paint() {
  draw();
  drawOverview();
  $("time").value = Math.round((state.cursor / END) * 10000);
  $("time").setAttribute("aria-valuetext", seconds(state.cursor));
  $("span").textContent = `${seconds(Math.max(0, view.from))} to ${seconds(Math.min(END, view.to))} · at ${seconds(state.cursor)}`;
}

// ---- what is at the time ----

function rootChip(root, agrees, documents) {
  const colour = element("i");
  colour.style.background = agrees ? colours.agree : rootColour(root);
  return element("span", { class: "root", title: agrees ? "as everywhere" : "not as everywhere" }, colour,
    element("code", {}, run.roots.names[root]), documents === undefined ? "" : ` ${count(documents, "document")}`);
}

function moment() {
  const at = state.cursor;
  $("moment-title").textContent = `At ${seconds(at, 6)}`;
  const shown = scopes.filter((scope) => scope.of.size);
  const beliefs = beliefsAt(at);
  const rows = order.map((node) => {
    const process = processAt(node, at);
    const roots = shown.filter((scope) => scope.of.has(node)).map((scope) => {
      const series = scope.of.get(node);
      const entry = series[lastAt(series, at)];
      if (!entry || process === "down") return null;
      const chip = rootChip(entry.root, agreesAt(scope, at), entry.documents);
      return element("div", {}, `${scope.name} `, chip);
    });
    const doubted = [...beliefs[node]].filter(([subject, status]) => subject !== node && status !== "alive");
    const seen = process === "down" ? "" : doubted.length
      ? doubted.map(([subject, status]) => `${name(subject)} ${status}`).join(", ")
      : `${count([...beliefs[node]].filter(([subject]) => subject !== node).length, "other")}, all alive`;
    return element("tr", { class: node === state.chosen ? "chosen" : "" },
      element("td", { class: "n" }, element("b", {}, name(node)), ` ${run.nodes[node][1]}`),
      element("td", { class: process === "running" ? "" : "bad" }, process),
      element("td", {}, ...roots.filter(Boolean)),
      element("td", { class: doubted.length ? "bad" : "" }, seen));
  });
  const header = ["Server", "Process", "Heads", "Sees"].map((title) => element("th", { scope: "col" }, title));
  $("moment").replaceChildren(element("table", {}, element("thead", {}, element("tr", {}, ...header)), element("tbody", {}, ...rows)));
}

const EVENTS_MAX = 250;
function listed() {
  const wanted = $("filter").value.trim().toLowerCase();
  const matches = (event) => (state.chosen === null || event.node === state.chosen || event.node === null)
    && (!wanted || `${event.node === null ? "" : name(event.node)} ${event.text}`.toLowerCase().includes(wanted));
  return events.filter((event) => event.at >= view.from && event.at <= view.to && matches(event));
}
function eventList() {
  const inView = listed();
  // Around the time, where there are too many.
  const place = Math.max(0, lastAt(inView, state.cursor));
  const first = Math.max(0, Math.min(place - EVENTS_MAX / 2, inView.length - EVENTS_MAX));
  const shown = inView.slice(first, first + EVENTS_MAX);
  const items = shown.map((event, i) => element("li", { class: first + i === place && event.at <= state.cursor ? "now" : "" },
    element("button", { type: "button", onclick: () => setCursor(event.at) },
      element("time", {}, seconds(event.at)),
      element("span", { class: "who" }, event.node === null ? "" : name(event.node)),
      element("span", { class: `what ${event.kind}` }, event.text))));
  $("events").replaceChildren(...items);
  $("events-title").textContent = shown.length < inView.length
    ? `Events in view: ${shown.length} of ${inView.length.toLocaleString("en")}, around the time` : `Events in view: ${inView.length}`;
  const now = $("events").querySelector(".now");
  if (now) $("events").scrollTop = now.offsetTop - $("events").offsetTop - $("events").clientHeight / 2;
}
function lists() {
  moment();
  eventList();
}
function goToEvent(step) {
  const all = listedAll();
  const place = lastAt(all, step > 0 ? state.cursor : state.cursor - 1);
  const next = all[step > 0 ? place + 1 : place];
  if (next) {
    setCursor(next.at);
    say(`${seconds(next.at)} ${next.node === null ? "" : name(next.node)} ${next.text}`);
  }
}
function listedAll() {
  const kept = { ...view };
  [view.from, view.to] = [-1, END + 1];
  const all = listed();
  Object.assign(view, kept);
  return all;
}

// ---- the tip ----

function tipOf(found) {
  switch (found.what) {
    case "message": {
      const fate = found.lost ? `: ${found.lost}` : ` in ${lasting(found.took)}`;
      return [`${run.kinds[found.kind]}`, `${name(found.from)} → ${name(found.to)}${fate}, ${bytesText(found.bytes)}, sent at ${seconds(found.at, 6)}`];
    }
    case "operation": return [name(found.node), `${operationText(found)}, asked at ${seconds(found.at, 6)}`];
    case "server": return [name(found.node), `zone ${run.nodes[found.node][1]}; click for its messages alone`];
    case "heads": {
      const series = found.scope.of.get(found.node);
      const entry = series[lastAt(series, found.at)];
      if (!entry || processAt(found.node, found.at) === "down") return null;
      const word = agreesAt(found.scope, found.at) ? "as everywhere" : "not as everywhere";
      return [`${name(found.node)} ${found.scope.name}`, `${run.roots.names[entry.root]}, ${count(entry.documents, "document")}, ${word}`];
    }
    default: return [found.kind.replaceAll("_", " "), `${found.text}, from ${seconds(found.from)} ${found.to === null ? "on" : `to ${seconds(found.to)}`}`];
  }
}
function showTip(found, x, y) {
  const content = found && tipOf(found);
  const tip = $("tip");
  tip.hidden = !content;
  if (!content) return;
  tip.replaceChildren(element("b", {}, content[0]), ` ${content[1]}`);
  const room = lanes.parentElement.clientWidth;
  tip.style.left = "0px";
  tip.style.left = `${Math.max(0, Math.min(x + 14, room - tip.offsetWidth - 4))}px`;
  tip.style.top = `${y + 18 + tip.offsetHeight > geo.height ? y - tip.offsetHeight - 10 : y + 18}px`;
}

// ---- hands ----

const pointers = new Map();
let moved = 0;
const place = (event, canvas) => {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
};
lanes.addEventListener("pointerdown", (event) => {
  lanes.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, place(event, lanes));
  moved = 0;
});
lanes.addEventListener("pointermove", (event) => {
  const [x, y] = place(event, lanes);
  const before = pointers.get(event.pointerId);
  if (!before) {
    const found = hit(x, y);
    if (found !== state.hover) {
      state.hover = found;
      later();
    }
    showTip(found, x, y);
    return;
  }
  const others = [...pointers].filter(([id]) => id !== event.pointerId).map(([, point]) => point);
  if (others.length) {
    const apart = Math.abs(before[0] - others[0][0]) || 1;
    zoom(Math.max(0.5, Math.min(2, apart / (Math.abs(x - others[0][0]) || 1))), atOf((x + others[0][0]) / 2));
  } else if (before[0] >= geo.gutter) {
    const by = ((before[0] - x) / (geo.right - geo.gutter)) * (view.to - view.from);
    if (Math.abs(before[0] - x) > 0) setView(view.from + by, view.to + by);
  }
  moved += Math.abs(x - before[0]) + Math.abs(y - before[1]);
  pointers.set(event.pointerId, [x, y]);
});
lanes.addEventListener("pointerup", (event) => {
  const [x, y] = place(event, lanes);
  const was = pointers.delete(event.pointerId);
  if (!was || moved > 5 || pointers.size) return;
  const found = hit(x, y);
  if (found && found.what === "server") choose(state.chosen === found.node ? null : found.node);
  else if (x >= geo.gutter) setCursor(found && found.at !== undefined ? found.at : atOf(x));
  state.hover = found;
  showTip(found, x, y);
});
lanes.addEventListener("pointercancel", (event) => pointers.delete(event.pointerId));
lanes.addEventListener("pointerleave", () => { state.hover = null; $("tip").hidden = true; later(); });
lanes.addEventListener("dblclick", (event) => zoom(0.4, atOf(place(event, lanes)[0])));
lanes.addEventListener("wheel", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) {
    event.preventDefault();
    zoom(Math.exp(Math.max(-1, Math.min(1, event.deltaY / 200))), atOf(place(event, lanes)[0]));
  } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
    event.preventDefault();
    const by = ((event.deltaX || event.deltaY) / geo.width) * (view.to - view.from);
    setView(view.from + by, view.to + by);
  }
}, { passive: false });

function choose(node) {
  state.chosen = node;
  say(node === null ? "All servers" : `${name(node)} alone`);
  later();
}
function chooseNext(step) {
  const place = state.chosen === null ? (step > 0 ? -1 : order.length) : order.indexOf(state.chosen);
  const next = order[place + step];
  choose(next === undefined ? null : next);
}

const keys = {
  ArrowLeft: (event) => (event.shiftKey ? pan(-0.2) : setCursor(state.cursor - (view.to - view.from) / 100)),
  ArrowRight: (event) => (event.shiftKey ? pan(0.2) : setCursor(state.cursor + (view.to - view.from) / 100)),
  ArrowUp: () => chooseNext(-1),
  ArrowDown: () => chooseNext(1),
  "+": () => zoom(0.6, state.cursor),
  "=": () => zoom(0.6, state.cursor),
  "-": () => zoom(1 / 0.6, state.cursor),
  0: showAll,
  v: () => violation && showViolation(),
  n: () => goToEvent(1),
  p: () => goToEvent(-1),
  Escape: () => { choose(null); $("tip").hidden = true; },
};
const pan = (part) => {
  const by = (view.to - view.from) * part;
  setView(view.from + by, view.to + by);
};
document.addEventListener("keydown", (event) => {
  const target = event.target;
  const typing = target.matches("input, pre, summary, .events *") && !["Escape"].includes(event.key);
  const arrows = event.key.startsWith("Arrow") && target !== lanes;
  if (typing || arrows || event.ctrlKey || event.metaKey || event.altKey) return;
  const act = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (act) {
    event.preventDefault();
    act(event);
  }
});

let dragging = null;
overview.addEventListener("pointerdown", (event) => {
  overview.setPointerCapture(event.pointerId);
  const x = place(event, overview)[0];
  const [from, to] = [overviewX(view.from), overviewX(view.to)];
  const edge = 7;
  dragging = Math.abs(x - from) < edge ? "from" : Math.abs(x - to) < edge ? "to" : x > from && x < to ? x - from : "jump";
  if (dragging === "jump") dragging = (to - from) / 2;
  dragOverview(x);
});
overview.addEventListener("pointermove", (event) => { if (dragging !== null) dragOverview(place(event, overview)[0]); });
for (const over of ["pointerup", "pointercancel"]) overview.addEventListener(over, () => { dragging = null; });
function dragOverview(x) {
  const at = (position) => ((position - geo.gutter) / (geo.right - geo.gutter)) * END;
  if (dragging === "from") setView(Math.min(at(x), view.to - LEAST), view.to);
  else if (dragging === "to") setView(view.from, Math.max(at(x), view.from + LEAST));
  else {
    const from = at(x - dragging);
    setView(from, from + view.to - view.from);
  }
}

$("time").addEventListener("input", (event) => setCursor((event.target.value / 10000) * END));
$("back").addEventListener("click", () => pan(-0.4));
$("on").addEventListener("click", () => pan(0.4));
$("in").addEventListener("click", () => zoom(0.5));
$("out").addEventListener("click", () => zoom(2));
$("fit").addEventListener("click", showAll);
$("jump").addEventListener("click", showViolation);
$("filter").addEventListener("input", eventList);

const LAYERS = [
  ["documents", "Documents", "Pushes, repairs and what belongs to them"],
  ["membership", "Membership", "Probes, their answers, gossip"],
  ["lost", "Lost", "Messages that did not arrive"],
  ["operations", "Operations", "What clients asked for"],
  ["heads", "Heads", "What each server holds"],
];
for (const [layer, label, title] of LAYERS) {
  const button = element("button", { type: "button", title, "aria-pressed": "true" }, label);
  button.addEventListener("click", () => {
    state.layers[layer] = !state.layers[layer];
    button.setAttribute("aria-pressed", state.layers[layer]);
    measure();
    later();
  });
  $("layers").append(button);
}

// ---- signs ----

function legend() {
  const signs = [
    ["all that run hold the same", (ink) => { ink.fillStyle = colours.agree; ink.fillRect(2, 6, 34, 5); }],
    ["they differ: a colour a state", (ink) => [3, 8, 14].forEach((root, i) => { ink.fillStyle = rootColour(root); ink.fillRect(2 + i * 12, 6, 11, 5); })],
    ["changes too quick for this zoom", (ink) => { ink.fillStyle = colours.churn; ink.fillRect(2, 6, 34, 5); }],
    ["about documents", (ink) => { ink.strokeStyle = ink.fillStyle = colours.documents; sample(ink); }],
    ["membership", (ink) => { ink.strokeStyle = ink.fillStyle = colours.membership; sample(ink); }],
    ["did not arrive", (ink) => { ink.strokeStyle = colours.lost; ink.setLineDash([3, 3]); ink.beginPath(); ink.moveTo(4, 3); ink.lineTo(24, 11); ink.stroke(); ink.setLineDash([]); cross(ink, 26, 12, 2.6, colours.lost); }],
    ...ANSWERS.map((answer, i) => [answer, (ink) => sign(ink, i, 18, 9, 5, colours[["ok", "ok", "refused", "unknown", "read"][i]])]),
    ["starts", (ink) => { ink.fillStyle = colours.ok; ink.fillRect(17, 2, 2.5, 13); }],
    ["is killed", (ink) => cross(ink, 18, 9, 5, colours.refused, 2)],
    ["loses power", (ink) => cross(ink, 18, 9, 5, colours.lost, 2)],
    ["is not scheduled", (ink) => { ink.strokeStyle = colours.pause; ink.lineWidth = 2; ink.setLineDash([2, 4]); ink.beginPath(); ink.moveTo(2, 9); ink.lineTo(36, 9); ink.stroke(); }],
    ["the sides of a cut", (ink) => { ink.fillStyle = colours["cut-left"]; ink.fillRect(2, 1, 17, 16); ink.fillStyle = colours["cut-right"]; ink.fillRect(19, 1, 17, 16); }],
  ];
  const sample = (ink) => {
    ink.lineWidth = 1.3;
    ink.beginPath();
    ink.moveTo(4, 3);
    ink.lineTo(32, 14);
    ink.stroke();
    head(ink, { x: 4, y: 3, toX: 33, toY: 14.4 });
  };
  $("legend").replaceChildren(...signs.map(([text, make]) => {
    const canvas = element("canvas", { width: 76, height: 36, "aria-hidden": "true" });
    const ink = canvas.getContext("2d");
    ink.scale(2, 2);
    make(ink);
    return element("span", {}, canvas, text);
  }));
}

// ---- again ----

async function copy(text, button) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = element("textarea", { class: "hidden" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  button.textContent = "Copied";
  say("Copied");
  setTimeout(() => { button.textContent = label; }, 1500);
}

function again() {
  for (const line of [run.replay, run.shrink].filter(Boolean)) {
    const button = element("button", { type: "button", "aria-label": `Copy: ${line}` }, "Copy");
    button.addEventListener("click", () => copy(line, button));
    $("lines").append(element("div", { class: "command" }, element("code", {}, line), button));
  }
  if (run.toml === null) {
    $("toml-box").replaceChildren(element("summary", {}, "The scenario is too long for a page"),
      element("p", { class: "note" }, `${run.replay.replace(" replay ", " scenario ")} prints it.`));
  } else {
    $("toml").textContent = run.toml;
    $("toml-copy").addEventListener("click", () => copy(run.toml, $("toml-copy")));
  }
  $("log-title").textContent = `The last ${count(run.lines.length, "line")} of its log`;
  $("log").textContent = run.lines.join("\n");
  $("log-box").addEventListener("toggle", () => { $("log").scrollTop = $("log").scrollHeight; });
  stateTable();
}

function stateTable() {
  const rows = run.state.map((server, node) => element("tr", {},
    element("td", { class: "n" }, element("b", {}, name(node))),
    element("td", { class: server.process === "running" ? "" : "bad" }, server.process),
    element("td", {}, ...server.scopes.map((scope) => element("div", {}, `${scope.scope} `, element("code", {}, scope.root.slice(0, 8)),
      ` ${count(scope.documents, "document")}, ${scope.deleted} deleted`))),
    element("td", {}, server.members.map(([who, status, incarnation]) => `${who} ${status} ${incarnation}`).join(", ")),
    element("td", {}, server.queues.map(([queue, depth, limit]) => `${queue} ${depth} of ${limit}`).join(", ") || "empty")));
  const header = ["Server", "Process", "Scopes", "Sees", "Queues"].map((title) => element("th", { scope: "col" }, title));
  const parts = [element("table", {}, element("thead", {}, element("tr", {}, ...header)), element("tbody", {}, ...rows))];
  const different = Object.entries(run.different);
  if (different.length) {
    const lines = different.map(([document_, states]) => element("tr", {}, element("td", {}, element("code", {}, document_)),
      element("td", {}, ...Object.entries(states).map(([etag, on]) => element("div", {}, element("code", {}, etag.slice(0, 12)), ` on ${on.join(", ")}`)))));
    const title = ["Document that differs", "State"].map((text) => element("th", { scope: "col" }, text));
    parts.push(element("table", {}, element("thead", {}, element("tr", {}, ...title)), element("tbody", {}, ...lines)));
  }
  $("state").replaceChildren(...parts);
}

// ---- colours ----

const THEMES = [[null, "◐", "as the system has them"], ["dark", "☾", "dark"], ["light", "☀", "light"]];
let theme = 0;
function setTheme(next) {
  theme = next % THEMES.length;
  const [which, glyph, words] = THEMES[theme];
  if (which) document.documentElement.dataset.theme = which;
  else delete document.documentElement.dataset.theme;
  $("theme").textContent = glyph;
  $("theme").title = `Colours: ${words}`;
  $("theme").setAttribute("aria-label", `Colours: ${words}`);
  try { localStorage.setItem("knot-sim-colours", String(theme)); } catch { /* A page from a file may have no storage. */ }
  recolour();
}
function recolour() {
  readColours();
  legend();
  later();
}
$("theme").addEventListener("click", () => setTheme(theme + 1));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", recolour);

// ---- begin ----

readColours();
title();
broken();
rule();
widths();
again();
measure();
showAll();
setCursor(violation ? violation.at : run.quiet < END ? run.quiet : 0, false);
// What breaks long after the last fault is seen better from afar.
if (violation && violation.at < run.quiet + 2e6) showViolation();
try { setTheme(Number(localStorage.getItem("knot-sim-colours")) || 0); } catch { setTheme(0); }
new ResizeObserver(() => { measure(); paint(); }).observe(lanes.parentElement);
paint();
lists();
