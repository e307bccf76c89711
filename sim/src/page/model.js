"use strict";
// What happened, out of the columns it is stored in. Times are microseconds from the beginning of the run.

const run = JSON.parse(document.getElementById("data").textContent);

const END = Math.max(run.end, 1);
const sums = (differences) => {
  let sum = 0;
  return differences.map((difference) => (sum += difference));
};

const messages = (() => {
  const { sent, from, to, kind, took, bytes, lost } = run.messages;
  const at = sums(sent);
  return at.map((time, i) => ({
    what: "message", place: i, at: time, from: from[i], to: to[i], kind: kind[i], bytes: bytes[i],
    lost: lost[i] || null, took: Math.abs(took[i]),
    end: lost[i] === "under way at the end" ? END : time + Math.abs(took[i]),
  }));
})();
const LONGEST = messages.reduce((most, m) => Math.max(most, m.end - m.at), 0);
const isAboutDocuments = (m) => m.kind < run.replication;

const ANSWERS = ["acknowledged", "acknowledged, nothing to change", "refused", "no answer that the client knows of", "read"];
const operations = (() => {
  const o = run.operations;
  return sums(o.at).map((time, i) => ({
    what: "operation", place: i, at: time, id: o.id[i], node: o.node[i], action: o.actions[o.action[i]],
    target: o.targets[o.target[i]], answer: o.answer[i], took: o.took[i], spread: o.spread[i], why: o.refusals[i],
  }));
})();

// Of each scope: what each server holds, and when all that run hold the same.
const scopes = run.scopes.map((name) => ({ name, of: new Map(), agree: [] }));
for (const [node, scope, times, roots, documents] of run.roots.series) {
  scopes[scope].of.set(node, sums(times).map((at, i) => ({ at, root: roots[i], documents: documents[i] })));
}
for (const scope of scopes) {
  const turns = [];
  for (const [node, series] of scope.of) {
    for (const { at, root } of series) turns.push([at, 1, node, root]);
    for (const [, ends] of run.lives[node]) if (ends !== null) turns.push([ends, 0, node, null]);
  }
  turns.sort((one, other) => one[0] - other[0] || one[1] - other[1]);
  const held = new Map();
  const count = new Map();
  let since = null;
  const change = (root, by) => {
    const now = (count.get(root) || 0) + by;
    if (now) count.set(root, now); else count.delete(root);
  };
  turns.forEach(([at, , node, root], i) => {
    if (held.has(node)) change(held.get(node), -1);
    held.delete(node);
    if (root !== null) { held.set(node, root); change(root, 1); }
    if (i + 1 < turns.length && turns[i + 1][0] === at) return;
    const agrees = count.size <= 1;
    if (agrees && since === null) since = at;
    if (!agrees && since !== null) {
      if (at > since) scope.agree.push([since, at]);
      since = null;
    }
  });
  if (since !== null) scope.agree.push([since, END]);
}

// The last place in a sorted list that is not after `at`; -1 when all are.
const lastAt = (list, at, key = (entry) => entry.at) => {
  let low = 0, high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (key(list[middle]) <= at) low = middle + 1; else high = middle;
  }
  return low - 1;
};

const lifeAt = (node, at) => run.lives[node].find(([from, to]) => from <= at && (to === null || at <= to));
const isPaused = (node, at) => run.pauses[node].some(([from, to]) => from <= at && (to === null || at < to));
const processAt = (node, at) => (!lifeAt(node, at) ? "down" : isPaused(node, at) ? "paused" : "running");
const agreesAt = (scope, at) => {
  const place = lastAt(scope.agree, at, (span) => span[0]);
  return place >= 0 && at <= scope.agree[place][1];
};

const beliefsAt = (at) => {
  const all = run.nodes.map(() => new Map());
  for (const [time, observer, subject, status] of run.beliefs) {
    if (time > at) break;
    all[observer].set(subject, status);
  }
  return all;
};

const name = (node) => (run.nodes[node] ? run.nodes[node][0] : `n${node}`);
const seconds = (us, digits = 3) => `${(us / 1e6).toFixed(digits)} s`;
const lasting = (us) => (us < 1e3 ? `${us} µs` : us < 1e6 ? `${(us / 1e3).toFixed(us < 1e4 ? 2 : 1)} ms` : `${(us / 1e6).toFixed(2)} s`);
const bytesText = (bytes) => (bytes < 1e4 ? `${bytes} B` : `${(bytes / 1e3).toFixed(1)} kB`);

const ENDS = { clean: "stops after a goodbye", killed: "is killed", power: "loses power" };
// Everything but messages, in the order of time.
const events = (() => {
  const all = [];
  const add = (at, node, kind, text, of) => all.push({ at, node, kind, text, of });
  run.lives.forEach((lives, node) => lives.forEach(([from, to, how], i) => {
    add(from, node, "life", i ? "starts again" : "starts");
    if (to !== null) add(to, node, "life", ENDS[how] || how);
  }));
  run.pauses.forEach((pauses, node) => pauses.forEach(([from, to]) => {
    add(from, node, "life", "is not scheduled any more");
    if (to !== null) add(to, node, "life", "is scheduled again");
  }));
  for (const fault of run.faults) {
    add(fault.from, null, "fault", fault.text, fault);
    if (fault.to !== null && fault.to > fault.from) add(fault.to, null, "fault", `over: ${fault.text}`, fault);
  }
  for (const [at, observer, subject, status] of run.beliefs) {
    if (observer !== subject) add(at, observer, "belief", `sees ${name(subject)} ${status}`);
  }
  for (const [at, node, scope] of run.repairs) add(at, node, "repair", `repairs ${run.scopes[scope] || ""}`);
  for (const operation of operations) add(operation.at, operation.node, "operation", operationText(operation), operation);
  for (const violation of run.violations) add(violation.at, violation.node, "broke", violation.name);
  if (run.quiet < END) add(run.quiet, null, "fault", "from here on nothing goes wrong and nobody writes");
  all.sort((one, other) => one.at - other.at);
  return all;
})();

function operationText(o) {
  if (o.answer === 4) return `w${o.id} read ${o.target}`;
  const parts = [`w${o.id} ${o.action} ${o.target}: ${ANSWERS[o.answer]}`];
  if (o.why) parts.push(o.why);
  if (o.took >= 0) parts.push(`after ${lasting(o.took)}`);
  if (o.answer === 0) parts.push(o.spread < 0 ? "never everywhere" : o.spread ? `everywhere ${lasting(o.spread)} later` : "everywhere at once");
  return parts.join(", ");
}
