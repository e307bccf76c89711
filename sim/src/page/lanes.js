// The timeline: a lane a server, time from left to right.

const view = { from: 0, to: END };
const state = {
  cursor: 0, chosen: null, hover: null, pinned: null,
  layers: { documents: true, membership: true, lost: true, operations: true, heads: true },
};
const lanes = document.getElementById("lanes");
const overview = document.getElementById("overview");
let colours = {};
let geo = null;

const ARROWS_MAX = 2500;
const HEADS_MAX = 700;
const FAULT_ROWS_MAX = 12;

function readColours() {
  const style = getComputedStyle(document.documentElement);
  const names = ["ground", "card", "line", "faint", "text", "dim", "accent", "documents", "membership", "lost", "alive",
    "down", "pause", "agree", "churn", "ok", "refused", "unknown", "read", "broken", "fault", "fault-text", "cut-left",
    "cut-right", "veil", "root-light"];
  colours = Object.fromEntries(names.map((colour) => [colour, style.getPropertyValue(`--${colour}`).trim()]));
}
// Any hue but those of agreement, neighbours far apart.
const rootColour = (root) => {
  const hue = (root * 114.59) % 300;
  return `hsl(${(hue < 125 ? hue : hue + 60).toFixed(0)} 62% ${colours["root-light"]})`;
};

// When each server stands on the left, and on the right, of some cut.
const cuts = run.nodes.map((_, node) => [0, 1].map((side) => {
  const spans = run.faults.filter((fault) => fault.sides && fault.sides[side].includes(node))
    .map((fault) => [fault.from, fault.to === null ? END : fault.to])
    .sort((one, other) => one[0] - other[0]);
  return spans.reduce((merged, [from, to]) => {
    const last = merged[merged.length - 1];
    if (last && from <= last[1]) last[1] = Math.max(last[1], to);
    else merged.push([from, to]);
    return merged;
  }, []);
}));

// Faults in rows, so that none hides another.
const faultRows = (() => {
  const free = [];
  for (const fault of [...run.faults].sort((one, other) => one.from - other.from)) {
    const to = fault.to === null ? END : Math.max(fault.to, fault.from + END / 200);
    let row = free.findIndex((until) => until <= fault.from);
    if (row < 0) row = free.length < FAULT_ROWS_MAX ? free.length : FAULT_ROWS_MAX - 1;
    free[row] = Math.max(to, free[row] || 0);
    fault.row = row;
  }
  return free.length;
})();

// Servers of a zone lie together.
const order = run.nodes.map((_, node) => node).sort((one, other) => {
  const [zone, another] = [run.nodes[one][1], run.nodes[other][1]];
  return zone < another ? -1 : zone > another ? 1 : one - other;
});

function measure() {
  const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
  const width = lanes.parentElement.clientWidth;
  const narrow = width < 34 * rem;
  const longest = Math.max(...run.nodes.map(([label]) => label.length), ...run.zones.map((zone) => zone.length));
  const gutter = Math.max((narrow ? 2.2 : 3.8) * rem, Math.min((narrow ? 4.2 : 8) * rem, (longest * 0.56 + 1.3) * rem));
  const axis = 1.7 * rem;
  const flags = run.violations.length || run.quiet < END ? 1.25 * rem : 0;
  const faultHeight = 1.3 * rem;
  const most = state.layers.heads ? Math.max(0, ...run.nodes.map((_, node) => scopes.filter((scope) => scope.of.has(node)).length)) : 0;
  const strip = 0.52 * rem;
  const least = 1.9 * rem + most * (strip + 1);
  const rowHeight = Math.max(least, Math.min(5.4 * rem, (innerHeight * 0.56) / run.nodes.length));
  const zoneHeight = 1.15 * rem;
  let top = axis + flags + faultRows * faultHeight + 0.3 * rem;
  const rows = [];
  const zones = [];
  let zone = null;
  for (const node of order) {
    if (run.nodes[node][1] !== zone) {
      zone = run.nodes[node][1];
      zones.push({ name: zone, top });
      top += zoneHeight;
    }
    const stripTop = top + rowHeight - most * (strip + 1) - 0.15 * rem;
    rows[node] = { top, height: rowHeight, y: top + (stripTop - top) * 0.56, stripTop };
    top += rowHeight;
  }
  geo = { rem, width, height: Math.ceil(top + 0.4 * rem), gutter, right: width - 0.5 * rem, axis, flags, faultHeight, rows, zones, strip, zoneHeight, narrow };
  fit(lanes, width, geo.height);
  fit(overview, width, Math.round(2.9 * rem));
}

function fit(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  canvas.style.height = `${height}px`;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  canvas.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
}

const xOf = (at) => geo.gutter + ((at - view.from) / (view.to - view.from)) * (geo.right - geo.gutter);
const atOf = (x) => view.from + ((x - geo.gutter) / (geo.right - geo.gutter)) * (view.to - view.from);
const font = (size, weight = 400) => `${weight} ${(size * geo.rem).toFixed(1)}px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif`;

function draw() {
  const ink = lanes.getContext("2d");
  ink.clearRect(0, 0, geo.width, geo.height);
  drawAxis(ink);
  ink.save();
  ink.beginPath();
  ink.rect(geo.gutter - 1, 0, geo.right - geo.gutter + 2, geo.height);
  ink.clip();
  drawCuts(ink);
  drawFaults(ink);
  for (const node of order) drawLife(ink, node);
  if (state.layers.heads) drawHeads(ink);
  const hidden = drawMessages(ink);
  if (state.layers.operations) drawOperations(ink);
  drawMoments(ink);
  if (state.hover) drawHover(ink, state.hover);
  ink.restore();
  drawLabels(ink);
  if (hidden) drawBadge(ink, hidden);
}

function tickStep(span, room) {
  const least = (span / Math.max(1, room / (5.5 * geo.rem))) || 1;
  const power = 10 ** Math.floor(Math.log10(least));
  return Math.max(1, [1, 2, 5, 10].map((times) => times * power).find((step) => step >= least));
}

function drawAxis(ink) {
  const step = tickStep(view.to - view.from, geo.right - geo.gutter);
  const digits = Math.max(0, 6 - Math.floor(Math.log10(step)));
  ink.font = font(0.78);
  ink.textBaseline = "middle";
  ink.textAlign = "center";
  for (let tick = Math.ceil(view.from / step) * step; tick <= view.to; tick += step) {
    const x = xOf(tick);
    ink.fillStyle = colours.faint;
    ink.fillRect(Math.round(x), geo.axis, 1, geo.height - geo.axis);
    const label = `${(tick / 1e6).toFixed(digits)} s`;
    const half = ink.measureText(label).width / 2;
    ink.fillStyle = colours.dim;
    if (x - half > geo.gutter - 4 && x + half < geo.width) ink.fillText(label, x, geo.axis / 2);
  }
  ink.textAlign = "left";
}

const isInView = (from, to) => from <= view.to && (to === null || to >= view.from);

function drawCuts(ink) {
  cuts.forEach((sides, node) => sides.forEach((spans, side) => {
    ink.fillStyle = colours[side ? "cut-right" : "cut-left"];
    for (const [from, to] of spans) {
      if (!isInView(from, to)) continue;
      const [x, end] = [Math.max(geo.gutter, xOf(from)), Math.min(geo.right, xOf(to))];
      ink.fillRect(x, geo.rows[node].top + 1, Math.max(1, end - x), geo.rows[node].height - 2);
    }
  }));
}

function drawFaults(ink) {
  ink.font = font(0.75);
  ink.textBaseline = "middle";
  for (const fault of run.faults) {
    if (!isInView(fault.from, fault.to)) continue;
    const box = faultBox(fault);
    ink.fillStyle = colours.fault;
    ink.beginPath();
    ink.roundRect(box.x, box.y, box.width, box.height, 3);
    ink.fill();
    if (state.hover === fault || fault.sides) {
      ink.strokeStyle = colours[state.hover === fault ? "text" : "pause"];
      ink.lineWidth = 1;
      ink.stroke();
    }
    const start = Math.max(box.x, geo.gutter) + 5;
    const room = Math.min(box.x + box.width, geo.right) - start - 4;
    if (room > 2 * geo.rem) {
      ink.fillStyle = colours["fault-text"];
      ink.fillText(clipped(ink, fault.text, room), start, box.y + box.height / 2 + 0.5);
    }
  }
}

function faultBox(fault) {
  const from = xOf(fault.from);
  const to = xOf(fault.to === null ? END : fault.to);
  return { x: from, y: geo.axis + geo.flags + fault.row * geo.faultHeight + 1, width: Math.max(3, to - from), height: geo.faultHeight - 3 };
}

function clipped(ink, text, room) {
  if (ink.measureText(text).width <= room) return text;
  let length = Math.floor((text.length * room) / ink.measureText(text).width);
  while (length > 1 && ink.measureText(`${text.slice(0, length)}…`).width > room) length -= 1;
  return length > 3 ? `${text.slice(0, length)}…` : "";
}

function drawLife(ink, node) {
  const row = geo.rows[node];
  const lives = run.lives[node];
  let before = 0;
  const gap = (from, to) => {
    if (!isInView(from, to) || to <= from) return;
    const [x, end] = [Math.max(geo.gutter, xOf(from)), Math.min(geo.right, xOf(to))];
    ink.fillStyle = colours.down;
    ink.globalAlpha = 0.55;
    ink.fillRect(x, row.top + 2, Math.max(1, end - x), row.height - 4);
    ink.globalAlpha = 1;
    if (end - x > 5 * geo.rem) {
      ink.fillStyle = colours.dim;
      ink.font = font(0.75);
      ink.textBaseline = "middle";
      ink.fillText("down", x + geo.rem, row.y);
    }
  };
  for (const [from, to] of lives) {
    gap(before, from);
    before = to === null ? Infinity : to;
    if (isInView(from, to)) {
      ink.strokeStyle = colours.alive;
      ink.lineWidth = state.chosen === node ? 2.5 : 1.4;
      ink.beginPath();
      ink.moveTo(Math.max(geo.gutter, xOf(from)), row.y);
      ink.lineTo(Math.min(geo.right, xOf(to === null ? END : to)), row.y);
      ink.stroke();
    }
  }
  gap(before, END);
  for (const [from, to] of pausedLives(node)) {
    if (!isInView(from, to)) continue;
    const [x, end] = [xOf(from), xOf(to)];
    ink.fillStyle = colours.card;
    ink.fillRect(x, row.y - 3, end - x, 6);
    ink.strokeStyle = colours.pause;
    ink.lineWidth = 2;
    ink.setLineDash([2, 4]);
    ink.beginPath();
    ink.moveTo(x, row.y);
    ink.lineTo(end, row.y);
    ink.stroke();
    ink.setLineDash([]);
  }
  for (const [from, to, how] of lives) {
    if (from >= view.from && from <= view.to) bar(ink, xOf(from), row.y, colours.ok);
    if (to !== null && to >= view.from && to <= view.to) {
      if (how === "clean") bar(ink, xOf(to), row.y, colours.dim);
      else cross(ink, xOf(to), row.y, 0.32 * geo.rem, how === "power" ? colours.lost : colours.refused, 2);
    }
  }
}

// Where a process is there and is not scheduled.
const pausedLives = (node) => run.pauses[node].flatMap(([from, to]) => run.lives[node]
  .map(([starts, ends]) => [Math.max(from, starts), Math.min(to === null ? END : to, ends === null ? END : ends)])
  .filter(([begins, over]) => begins < over));

function bar(ink, x, y, colour) {
  ink.fillStyle = colour;
  ink.fillRect(x - 1, y - 0.4 * geo.rem, 2.5, 0.8 * geo.rem);
}

function cross(ink, x, y, size, colour, width = 1.4) {
  ink.strokeStyle = colour;
  ink.lineWidth = width;
  ink.beginPath();
  ink.moveTo(x - size, y - size);
  ink.lineTo(x + size, y + size);
  ink.moveTo(x - size, y + size);
  ink.lineTo(x + size, y - size);
  ink.stroke();
}

// A strip a scope: calm while all that run hold the same, else a colour for each state, or one for change that is too
// quick for this zoom.
function drawHeads(ink) {
  const [first, last] = [Math.floor(geo.gutter), Math.ceil(geo.right)];
  for (const node of order) {
    let place = 0;
    for (const scope of scopes) {
      const series = scope.of.get(node);
      if (!series) continue;
      const top = geo.rows[node].stripTop + place * (geo.strip + 1);
      place += 1;
      let entry = lastAt(series, atOf(first));
      let span = Math.max(0, lastAt(scope.agree, atOf(first), (one) => one[0]));
      let [from, colour] = [first, null];
      for (let x = first; x <= last; x += 1) {
        const [begins, ends] = [atOf(x), atOf(x + 1)];
        const before = entry;
        while (entry + 1 < series.length && series[entry + 1].at <= ends) entry += 1;
        while (span + 1 < scope.agree.length && scope.agree[span + 1][0] <= begins) span += 1;
        const agree = scope.agree[span];
        let next = null;
        if (entry >= 0 && begins < END && lifeAt(node, Math.min(ends, END))) {
          if (agree && agree[0] <= begins && agree[1] >= Math.min(ends, END)) next = colours.agree;
          else next = entry - before > 1 ? colours.churn : rootColour(series[entry].root);
        }
        if (next !== colour || x === last) {
          if (colour) {
            ink.fillStyle = colour;
            ink.fillRect(from, top, x - from, geo.strip);
          }
          [from, colour] = [x, next];
        }
      }
    }
  }
}

function isShown(message) {
  const { documents, membership, lost } = state.layers;
  if (message.from === message.to) return false;
  if (state.chosen !== null && message.from !== state.chosen && message.to !== state.chosen) return false;
  if (message.lost && lost) return true;
  if (message.lost) return false;
  return isAboutDocuments(message) ? documents : membership;
}

function messagesInView() {
  const shown = [];
  for (let i = Math.max(0, lastAt(messages, view.from - LONGEST)); i < messages.length; i += 1) {
    const message = messages[i];
    if (message.at > view.to) break;
    if (message.end >= view.from && isShown(message)) shown.push(message);
  }
  return shown;
}

// Too many arrows say nothing: then those about documents and the lost are drawn if they are few enough, the rest as
// the ups and downs of traffic. Returns what is not drawn as arrows.
function drawMessages(ink) {
  const all = messagesInView();
  let arrows = all;
  if (all.length > ARROWS_MAX) {
    const rest = [];
    arrows = [];
    for (const message of all) (message.lost || isAboutDocuments(message) ? arrows : rest).push(message);
    if (arrows.length > ARROWS_MAX) {
      rest.push(...arrows.filter((message) => !message.lost));
      arrows = arrows.filter((message) => message.lost);
    }
    if (arrows.length > ARROWS_MAX) {
      rest.push(...arrows);
      arrows = [];
    }
    drawDensity(ink, rest);
  }
  drawn = arrows;
  const crowd = arrows.length;
  const heads = crowd < HEADS_MAX;
  const alpha = crowd < 300 ? 0.95 : crowd < 1000 ? 0.6 : 0.35;
  const kinds = [
    [(m) => !m.lost && !isAboutDocuments(m), colours.membership, 0.75, []],
    [(m) => !m.lost && isAboutDocuments(m), colours.documents, 1.2, []],
    [(m) => m.lost, colours.lost, 1, [3, 3]],
  ];
  for (const [wanted, colour, width, dash] of kinds) {
    ink.globalAlpha = Math.min(1, dash.length ? Math.max(0.6, alpha) : alpha);
    ink.strokeStyle = ink.fillStyle = colour;
    ink.lineWidth = width;
    ink.setLineDash(dash);
    ink.beginPath();
    const ends = arrows.filter(wanted).map((message) => {
      const line = lineOf(message);
      ink.moveTo(line.x, line.y);
      ink.lineTo(line.toX, line.toY);
      return line;
    });
    ink.stroke();
    ink.setLineDash([]);
    if (!heads && !dash.length) continue;
    for (const line of ends) {
      if (dash.length) line.open || cross(ink, line.toX, line.toY, 2.6, colour);
      else head(ink, line);
    }
  }
  ink.globalAlpha = 1;
  return all.length - arrows.length;
}
let drawn = [];

// What never comes near its receiver gets no further than a third of its way.
function lineOf(message) {
  const [y, toY] = [geo.rows[message.from].y, geo.rows[message.to].y];
  const x = xOf(message.at);
  if (message.lost && message.lost !== "nobody there") {
    return { x, y, toX: x + Math.min(10, Math.abs(toY - y) * 0.2), toY: y + (toY - y) * 0.34, open: message.lost === "under way at the end" };
  }
  return { x, y, toX: xOf(message.end), toY };
}

function head(ink, { x, y, toX, toY }) {
  const angle = Math.atan2(toY - y, toX - x);
  const size = 5.5;
  ink.beginPath();
  ink.moveTo(toX, toY);
  ink.lineTo(toX - size * Math.cos(angle - 0.4), toY - size * Math.sin(angle - 0.4));
  ink.lineTo(toX - size * Math.cos(angle + 0.4), toY - size * Math.sin(angle + 0.4));
  ink.fill();
}

function drawDensity(ink, rest) {
  const bin = 3;
  const bins = Math.ceil((geo.right - geo.gutter) / bin) + 1;
  const counts = run.nodes.map(() => [new Float32Array(bins), new Float32Array(bins)]);
  let most = 1;
  for (const message of rest) {
    const at = Math.floor((xOf(message.at) - geo.gutter) / bin);
    if (at < 0 || at >= bins) continue;
    const column = counts[message.from][isAboutDocuments(message) ? 0 : 1];
    column[at] += 1;
  }
  for (const pair of counts) for (let i = 0; i < bins; i += 1) most = Math.max(most, pair[0][i] + pair[1][i]);
  run.nodes.forEach((_, node) => {
    const row = geo.rows[node];
    const room = row.y - row.top - 4;
    for (let i = 0; i < bins; i += 1) {
      const [documents, membership] = [counts[node][0][i], counts[node][1][i]];
      const x = geo.gutter + i * bin;
      const scale = room / Math.sqrt(most);
      const whole = Math.sqrt(documents + membership) * scale;
      const part = documents ? whole * (documents / (documents + membership)) : 0;
      ink.globalAlpha = 0.5;
      ink.fillStyle = colours.documents;
      if (part) ink.fillRect(x, row.y - part, bin - 0.5, part);
      ink.fillStyle = colours.membership;
      if (whole > part) ink.fillRect(x, row.y - whole, bin - 0.5, whole - part);
    }
  });
  ink.globalAlpha = 1;
}

const operationY = (node) => geo.rows[node].y - Math.min(0.62 * geo.rem, (geo.rows[node].y - geo.rows[node].top) * 0.6);

function operationsInView() {
  const shown = [];
  for (let i = Math.max(0, lastAt(operations, view.from - 5e6)); i < operations.length; i += 1) {
    const operation = operations[i];
    if (operation.at > view.to) break;
    if (state.chosen !== null && operation.node !== state.chosen) continue;
    if (operation.at + Math.max(0, operation.took) >= view.from) shown.push(operation);
  }
  return shown;
}

function drawOperations(ink) {
  const shown = operationsInView();
  const size = shown.length < 150 ? 0.3 * geo.rem : shown.length < 800 ? 0.22 * geo.rem : 0.14 * geo.rem;
  ink.globalAlpha = shown.length < 800 ? 1 : 0.7;
  for (const operation of shown) {
    const [x, y] = [xOf(operation.at), operationY(operation.node)];
    const end = operation.took > 0 ? xOf(operation.at + operation.took) : x;
    const colour = colours[["ok", "ok", "refused", "unknown", "read"][operation.answer]];
    if (end - x > 2) {
      ink.strokeStyle = colour;
      ink.lineWidth = 1.5;
      ink.beginPath();
      ink.moveTo(x, y);
      ink.lineTo(end, y);
      ink.stroke();
    }
    sign(ink, operation.answer, x, y, size, colour);
  }
  ink.globalAlpha = 1;
}

// Not by colour alone: a disc, a ring, a diamond, a triangle, a dot.
function sign(ink, answer, x, y, size, colour) {
  ink.fillStyle = ink.strokeStyle = colour;
  ink.lineWidth = 1.4;
  ink.beginPath();
  if (answer === 2) {
    ink.moveTo(x, y - size * 1.2);
    ink.lineTo(x + size * 1.2, y);
    ink.lineTo(x, y + size * 1.2);
    ink.lineTo(x - size * 1.2, y);
    ink.closePath();
  } else if (answer === 3) {
    ink.moveTo(x, y - size * 1.2);
    ink.lineTo(x + size * 1.2, y + size);
    ink.lineTo(x - size * 1.2, y + size);
    ink.closePath();
  } else {
    ink.arc(x, y, answer === 4 ? size * 0.6 : size, 0, 2 * Math.PI);
  }
  if (answer === 1) ink.stroke(); else ink.fill();
}

function drawMoments(ink) {
  const line = (at, colour, dash, label) => {
    if (at < view.from || at > view.to) return;
    const x = xOf(at);
    ink.strokeStyle = colour;
    ink.lineWidth = 1.5;
    ink.setLineDash(dash);
    ink.beginPath();
    ink.moveTo(x, geo.axis);
    ink.lineTo(x, geo.height);
    ink.stroke();
    ink.setLineDash([]);
    if (label) flag(ink, x, label, colour);
  };
  if (run.quiet < END) line(run.quiet, colours.dim, [5, 4], "faults end");
  const first = run.violations[0];
  if (first) {
    line(first.at, colours.broken, [], first.name);
    for (const violation of run.violations) {
      const row = geo.rows[violation.node];
      if (!row) continue;
      ink.strokeStyle = colours.broken;
      ink.lineWidth = 2.5;
      ink.beginPath();
      ink.arc(xOf(violation.at), row.y, 0.5 * geo.rem, 0, 2 * Math.PI);
      ink.stroke();
    }
  }
  line(state.cursor, colours.accent, [], null);
}

function flag(ink, x, label, colour) {
  ink.font = font(0.75, 600);
  ink.textBaseline = "middle";
  const width = ink.measureText(label).width + 0.8 * geo.rem;
  const height = 1.15 * geo.rem;
  const left = x + width > geo.right ? x - width : x;
  ink.fillStyle = colour;
  ink.beginPath();
  ink.roundRect(left, geo.axis, width, height, 3);
  ink.fill();
  ink.fillStyle = colours.card;
  ink.fillText(label, left + 0.4 * geo.rem, geo.axis + height / 2 + 0.5);
}

function drawLabels(ink) {
  ink.textBaseline = "middle";
  for (const zone of geo.zones) {
    ink.fillStyle = colours.line;
    ink.fillRect(0, Math.round(zone.top), geo.width, 1);
    ink.font = font(0.72, 600);
    ink.fillStyle = colours.dim;
    ink.fillText(zone.name, 2, zone.top + geo.zoneHeight / 2 + 1);
  }
  for (const node of order) {
    const row = geo.rows[node];
    if (state.chosen === node) {
      ink.fillStyle = colours.veil;
      ink.fillRect(0, row.top, geo.width, row.height);
    }
    ink.font = font(0.86, state.chosen === node ? 700 : 500);
    ink.fillStyle = processAt(node, state.cursor) === "down" ? colours.dim : colours.text;
    ink.fillText(clipped(ink, name(node), geo.gutter - 0.7 * geo.rem), 0.3 * geo.rem, row.y);
    if (!state.layers.heads || geo.narrow) continue;
    ink.font = font(0.58);
    ink.fillStyle = colours.dim;
    scopes.filter((scope) => scope.of.has(node)).forEach((scope, place) => {
      ink.fillText(clipped(ink, scope.name.replace(/^zone:/, ""), geo.gutter - 0.9 * geo.rem), 0.3 * geo.rem, row.stripTop + place * (geo.strip + 1) + geo.strip / 2);
    });
  }
}

function drawBadge(ink, hidden) {
  const label = `${hidden.toLocaleString("en")} messages as traffic; zoom in for arrows`;
  ink.font = font(0.75);
  const width = ink.measureText(label).width + 1 * geo.rem;
  const [x, y] = [geo.right - width, geo.height - 1.5 * geo.rem];
  ink.fillStyle = colours.card;
  ink.globalAlpha = 0.85;
  ink.fillRect(x, y, width, 1.3 * geo.rem);
  ink.globalAlpha = 1;
  ink.fillStyle = colours.dim;
  ink.textBaseline = "middle";
  ink.fillText(label, x + 0.5 * geo.rem, y + 0.65 * geo.rem);
}

function drawHover(ink, hover) {
  if (hover.what !== "message") return;
  const line = lineOf(hover);
  ink.strokeStyle = ink.fillStyle = colours.text;
  ink.lineWidth = 2.2;
  ink.beginPath();
  ink.moveTo(line.x, line.y);
  ink.lineTo(line.toX, line.toY);
  ink.stroke();
  if (!hover.lost) head(ink, line);
}

// The whole run, with what the timeline shows of it.
const traffic = (() => {
  const bins = new Float32Array(400);
  const lost = new Float32Array(400);
  for (const message of messages) {
    const bin = Math.min(399, Math.floor((message.at / END) * 400));
    (message.lost ? lost : bins)[bin] += 1;
  }
  return { bins, lost, most: Math.max(1, ...bins.map((count, i) => count + lost[i])) };
})();
const overviewX = (at) => geo.gutter + (at / END) * (geo.right - geo.gutter);

function drawOverview() {
  const ink = overview.getContext("2d");
  const height = overview.clientHeight;
  ink.clearRect(0, 0, geo.width, height);
  ink.fillStyle = colours.faint;
  ink.fillRect(geo.gutter, 0, geo.right - geo.gutter, height);
  const each = (geo.right - geo.gutter) / 400;
  for (let i = 0; i < 400; i += 1) {
    const scale = (count) => Math.sqrt(count / traffic.most) * (height - 6);
    const [sent, lost] = [scale(traffic.bins[i] + traffic.lost[i]), scale(traffic.lost[i])];
    ink.fillStyle = colours.membership;
    ink.globalAlpha = 0.6;
    ink.fillRect(geo.gutter + i * each, height - sent, each, sent);
    ink.globalAlpha = 1;
    ink.fillStyle = colours.lost;
    ink.fillRect(geo.gutter + i * each, height - lost, each, lost);
  }
  ink.fillStyle = colours.churn;
  for (const fault of run.faults) {
    const from = overviewX(fault.from);
    ink.fillRect(from, 0, Math.max(1.5, overviewX(fault.to === null ? END : fault.to) - from), 3);
  }
  for (const { at } of run.violations) {
    ink.fillStyle = colours.broken;
    ink.fillRect(overviewX(at) - 1, 0, 2.5, height);
  }
  const [from, to] = [overviewX(view.from), overviewX(view.to)];
  ink.fillStyle = colours.veil;
  ink.fillRect(from, 0, Math.max(2, to - from), height);
  ink.strokeStyle = colours.accent;
  ink.lineWidth = 1.5;
  ink.strokeRect(from + 0.75, 0.75, Math.max(2, to - from) - 1.5, height - 1.5);
  ink.fillStyle = colours.accent;
  ink.fillRect(overviewX(state.cursor) - 0.75, 0, 1.5, height);
  if (!geo.narrow) {
    ink.fillStyle = colours.dim;
    ink.font = font(0.72);
    ink.textBaseline = "middle";
    ink.fillText("whole run", 2, height / 2);
  }
}

// What lies at a point of the timeline.
function hit(x, y) {
  if (x < geo.gutter) {
    const node = order.find((node) => y >= geo.rows[node].top && y < geo.rows[node].top + geo.rows[node].height);
    return node === undefined ? null : { what: "server", node };
  }
  const fault = run.faults.find((fault) => {
    const box = faultBox(fault);
    return isInView(fault.from, fault.to) && x >= box.x - 2 && x <= box.x + box.width + 2 && y >= box.y && y <= box.y + box.height;
  });
  if (fault) return fault;
  let best = null;
  let nearest = 0.6 * geo.rem;
  if (state.layers.operations) {
    for (const operation of operationsInView()) {
      const distance = Math.hypot(xOf(operation.at) - x, operationY(operation.node) - y);
      if (distance < nearest) [best, nearest] = [operation, distance];
    }
  }
  if (best) return best;
  nearest = 5;
  for (const message of drawn) {
    const distance = distanceTo(lineOf(message), x, y);
    if (distance < nearest) [best, nearest] = [message, distance];
  }
  if (best) return best;
  const node = order.find((node) => y >= geo.rows[node].top && y < geo.rows[node].top + geo.rows[node].height);
  if (node === undefined) return null;
  const row = geo.rows[node];
  if (state.layers.heads && y >= row.stripTop) {
    const own = scopes.filter((scope) => scope.of.has(node));
    const scope = own[Math.floor((y - row.stripTop) / (geo.strip + 1))];
    if (scope) return { what: "heads", node, scope, at: atOf(x) };
  }
  return null;
}

function distanceTo({ x: fromX, y: fromY, toX, toY }, x, y) {
  const [dx, dy] = [toX - fromX, toY - fromY];
  const along = Math.max(0, Math.min(1, ((x - fromX) * dx + (y - fromY) * dy) / (dx * dx + dy * dy || 1)));
  return Math.hypot(x - fromX - along * dx, y - fromY - along * dy);
}
