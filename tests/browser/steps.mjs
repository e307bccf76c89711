// What all steps need: browsers, what they complain of, and waiting.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const { servers, token, executable, screenshots } = JSON.parse(process.argv[2]);
export const urls = servers;
export const folder = screenshots;
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const browser = await chromium.launch({ executablePath: executable, args: ["--no-sandbox"] });
const complaints = [];

export const TIMEOUT_MS = 30_000;

export function check(holds, what) {
  if (!holds) throw new Error(what);
}

export const say = (text) => console.log(`say ${text}`);

/** Asks the test to do something to a server: `kill`, `restart`, or the `log`'s setup link. */
export async function ask(what, server) {
  console.log(`ask ${what} ${server}`);
  const { value } = await answers.next();
  check(value?.startsWith("done"), `${what} ${server}: ${value}`);
  return value.slice(5);
}

/** A browser of its own: nothing is remembered from others. */
export async function person(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, ...options });
  context.setDefaultTimeout(TIMEOUT_MS);
  const page = await context.newPage();
  watch(page);
  return page;
}

export function watch(page) {
  page.on("pageerror", (error) => complaints.push(`${page.url()}: ${error}`));
  page.on("console", (message) => {
    if (/Content.Security.Policy|Refused to/i.test(message.text())) complaints.push(`${page.url()}: ${message.text()}`);
  });
  page.on("request", (request) => {
    if (!urls.some((url) => request.url().startsWith(url))) complaints.push(`${page.url()} asks ${request.url()}`);
  });
}

export function api(server, method, path, body, as = token, headers = {}) {
  const sent = body === undefined ? undefined : JSON.stringify(body);
  return fetch(urls[server] + path, { method, body: sent, headers: { authorization: `Bearer ${as}`, ...headers } });
}

/** Waits for what an answer of the API says. */
export async function until(what, condition) {
  const end = Date.now() + TIMEOUT_MS;
  for (;;) {
    const value = await condition().catch(() => undefined);
    if (value) return value;
    check(Date.now() < end, `${what}: not within ${TIMEOUT_MS} ms`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

export async function logIn(page, server, name, password, next = "/") {
  await page.goto(`${urls[server]}/login?next=${encodeURIComponent(next)}`);
  await page.getByLabel("E-mail address or user name").fill(name);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Log in" }).click();
}

/** What axe-core finds on a page. */
export async function violations(page) {
  // As the debugger does, so that the page's policy stays as strict as it is.
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ["violations"] }));
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.html} ${node.any[0]?.message ?? ""}`).join("; ")}`);
}

export async function end() {
  await browser.close();
  // Nothing more is asked; an open stdin would keep this process.
  process.stdin.destroy();
  check(complaints.length === 0, `complaints of the browser:\n${complaints.join("\n")}`);
}
