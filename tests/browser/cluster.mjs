// What open pages show while servers die, come back and are apart.
import { api, ask, check, say, TIMEOUT_MS, until, urls } from "./steps.mjs";

const MERGE = { "content-type": "application/merge-patch+json" };
const ROUNDS = 20;
/** Longest time from an edit's answer on one server to an open page of another, on a machine that does much else. */
const LIVE_MS = 300;

/** Cluster Info shows, without being loaded again, that a server was killed and that it came back. */
export async function killed(page, shoot) {
  await page.goto(`${urls[0]}/`);
  await page.getByRole("navigation", { name: "Main" }).getByRole("link", { name: "Cluster Info" }).click();
  await page.getByText("this server", { exact: true }).waitFor();
  check((await page.locator("tr[data-server]").count()) === 3, "there are three servers");
  await page.evaluate(() => { globalThis.isTheSamePage = true; });
  const is = (name, wanted) =>
    page.waitForFunction(([name, wanted]) => document.querySelector(`tr[data-server="${name}"] .state`)?.textContent === wanted, [name, wanted], { timeout: 2 * TIMEOUT_MS });
  await is("n2", "alive");
  const began = Date.now();
  await ask("kill", 2);
  await is("n2", "failed");
  say(`an open page showed a killed server as failed after ${Date.now() - began} ms`);
  await shoot("cluster-killed");
  check(await page.locator("#banner p").count() === 0, "who sees two of three is not cut off");
  await ask("restart", 2);
  await is("n2", "alive");
  check(await page.evaluate(() => globalThis.isTheSamePage), "the page was loaded again");
  await page.locator('tr[data-server="n2"]').getByRole("link", { name: "n2", exact: true }).click();
  const steps = page.getByRole("region", { name: "Comings and goings" }).locator("tbody tr");
  await steps.filter({ hasText: "failed" }).filter({ hasText: /its host refused n[01]|did not answer n[01]/ }).first().waitFor();
  await steps.filter({ hasText: "started anew" }).first().waitFor();
  await shoot("server-killed");
}

/** An edit on one server is seen on an open page of another, soon. */
export async function live(page) {
  await api(0, "PUT", "/api/documents/plans/trip", { to: "Rome", days: 3 });
  await until("the document is everywhere", async () => (await api(1, "GET", "/api/documents/plans/trip")).status === 200);
  await page.goto(`${urls[1]}/documents/global/plans/trip`);
  await page.getByText('"Rome"').first().waitFor();
  // The editor is opened, to see that what is typed stays.
  await page.locator("summary", { hasText: "Edit" }).click();
  await page.getByLabel("JSON").fill('{"typed": true}');
  await page.evaluate(() => {
    const seen = {};
    globalThis.seen = seen;
    new MutationObserver(() => {
      const round = /"round": (\d+)/.exec(document.querySelector("pre.json")?.textContent)?.[1];
      if (round) seen[round] ??= Date.now();
    }).observe(document.body, { childList: true, subtree: true, characterData: true });
  });
  const took = [];
  for (let round = 1; round <= ROUNDS; round += 1) {
    const began = Date.now();
    await api(0, "PATCH", "/api/documents/plans/trip", { round }, undefined, MERGE);
    const at = await page.waitForFunction((round) => globalThis.seen[round], round, { polling: 5 });
    took.push((await at.jsonValue()) - began);
  }
  took.sort((one, other) => one - other);
  const [median, longest] = [took[ROUNDS / 2], took[ROUNDS - 1]];
  say(`from the request on one server to the open page of another: ${median} ms (median), ${longest} ms (longest of ${ROUNDS})`);
  check(median <= LIVE_MS, `an open page of another server shows an edit only after ${median} ms`);
  check((await page.getByLabel("JSON").inputValue()) === '{"typed": true}', "what was typed is gone");
  await page.getByText("has changed since this editor was opened").waitFor();
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByRole("alert").getByText("has changed meanwhile").waitFor();
  await page.getByLabel("JSON").fill('{\n  "to": "Rome",\n}');
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByRole("alert").getByText("line 3").waitFor();
  await page.getByLabel("JSON").fill('{"to": "Rome", "days": 4}');
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByText("The document is saved").waitFor();
}

/** A server that reaches no other says so, takes edits all the same, and says no more of it afterwards. */
export async function apart(page, shoot) {
  await until("the document is everywhere", async () => (await (await api(2, "GET", "/api/documents/plans/trip")).json()).days === 4);
  await page.goto(`${urls[0]}/documents`);
  await page.evaluate(() => { globalThis.isTheSamePage = true; });
  await ask("kill", 1);
  await ask("kill", 2);
  await page.locator("#banner").getByText("none of the 2 other servers").waitFor({ timeout: 2 * TIMEOUT_MS });
  await shoot("cut-off");
  await api(0, "PATCH", "/api/documents/plans/trip", { to: "Pisa" }, undefined, MERGE);
  await ask("kill", 0);
  await page.locator("#lost").waitFor();
  await ask("restart", 1);
  await api(1, "PATCH", "/api/documents/plans/trip", { to: "Bari" }, undefined, MERGE);
  await ask("restart", 0);
  await ask("restart", 2);
  await page.locator("#lost").waitFor({ state: "hidden" });
  await page.locator("#banner p").waitFor({ state: "detached", timeout: 2 * TIMEOUT_MS });
  check(await page.evaluate(() => globalThis.isTheSamePage), "the page was loaded again");
}

async function conflicts(server) {
  return (await (await api(server, "GET", "/api/documents/plans/trip?conflicts=true")).json()).conflicts;
}

/** Two servers that were apart wrote different values: a person picks the one that is shown already. */
export async function conflict(page, shoot) {
  for (const server of [0, 1, 2]) await until("the conflict is everywhere", async () => (await conflicts(server)).length === 1);
  const [{ values }] = await conflicts(0);
  await page.goto(`${urls[0]}/documents/global/plans/trip`);
  await page.getByText("Conflict", { exact: true }).waitFor();
  await shoot("conflict");
  await page.locator(".side-by", { hasText: "shown now" }).getByRole("button").click();
  await page.getByText("The document is saved").waitFor();
  for (const server of [0, 1, 2]) await until("the conflict is over", async () => (await conflicts(server)).length === 0);
  const { to } = await (await api(2, "GET", "/api/documents/plans/trip")).json();
  check(to === values[0].value, `the value that was picked is ${values[0].value}, not ${to}`);
}

