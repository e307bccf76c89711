// Every page: what axe-core finds, whether it fits, what it weighs, and a picture.
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { api, check, folder, person, say, urls, violations } from "./steps.mjs";

const WEIGHT_MAX = 100_000;
const NARROWEST = 360;
const WIDTHS = [390, 1440];
const COLOURS = ["light", "dark"];

/** Takes a picture in both colours and widths, where a folder is given. */
export function camera(page) {
  return async (name, colours = COLOURS) => {
    if (!folder) return;
    mkdirSync(folder, { recursive: true });
    for (const colorScheme of colours) {
      await page.emulateMedia({ colorScheme });
      for (const width of WIDTHS) {
        await page.setViewportSize({ width, height: 900 });
        await page.screenshot({ path: join(folder, `${name}-${colorScheme}-${width}.png`), fullPage: width < 800 });
      }
    }
    await page.emulateMedia({ colorScheme: "light" });
  };
}

async function look(page, name, found) {
  for (const colorScheme of COLOURS) {
    await page.emulateMedia({ colorScheme });
    for (const violation of await violations(page)) found.push(`${name}, ${colorScheme}: ${violation}`);
  }
  await page.setViewportSize({ width: NARROWEST, height: 800 });
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  if (wide > 0) found.push(`${name} is ${wide} px wider than a window of ${NARROWEST} px`);
  await page.setViewportSize({ width: 1440, height: 900 });
  await camera(page)(name);
}

async function pages() {
  const { data } = await (await api(0, "GET", "/api/cluster")).json();
  const { users } = await (await api(0, "GET", "/api/users")).json();
  const { templates } = await (await api(0, "GET", "/api/templates")).json();
  const { variables } = await (await api(0, "GET", "/api/templatevars")).json();
  const { spaces } = await (await api(0, "GET", "/api/spaces")).json();
  const { roles } = await (await api(0, "GET", "/api/roles")).json();
  return [
    ["dashboard", "/"], ["tokens", "/api-tokens"], ["token-new", "/api-tokens/new"],
    ["cluster", "/cluster-info"], ["server", `/cluster-info/${data.find(({ name }) => name === "n2").id}`],
    ["users", "/users"], ["user-new", "/users/new"], ["user", `/users/${users.find(({ username }) => username === "bob").user_id}`],
    ["groups", "/groups"], ["group-new", "/groups/new"],
    ["roles", "/roles"], ["role", `/roles/${roles.find(({ name }) => name === "Reader").role_id}`],
    ["administrator", `/roles/${roles.find(({ name }) => name === "Administrator").role_id}`],
    ["templates", "/templates"], ["template-new", "/templates/new"], ["template", `/templates/${templates[0].template_id}`],
    ["spaces", "/spaces"], ["space-choose", "/spaces/new"], ["space-new", `/spaces/new?template=${templates[0].template_id}`],
    ["space", `/spaces/${spaces[0].space_id}`],
    ["variables", "/variables"], ["variable-new", "/variables/new"], ["variable", `/variables/${variables[0].templatevar_id}`],
    ["profile", "/profile"], ["audit", "/audit"], ["documents", "/documents"], ["collection", "/documents/global/plans"],
    ["document", "/documents/global/plans/trip"], ["document-new", "/documents/new"], ["api", "/api-docs"], ["api-documents", "/api-docs/Documents"],
    ["nothing", "/no/such/page"],
  ];
}

export async function looks(page) {
  const found = [];
  for (const [name, path] of await pages()) {
    await page.goto(urls[0] + path);
    await look(page, name, found);
  }
  const stranger = await person();
  for (const [name, path] of [["login", "/login"], ["setup-over", "/setup?code=none"]]) {
    await stranger.goto(urls[0] + path);
    await look(stranger, name, found);
  }
  await stranger.context().close();
  check(found.length === 0, `on pages:\n${found.join("\n")}`);
}

/** The colours that were chosen stay, without a script in the page that a policy would have to allow. */
export async function colours(page) {
  await page.goto(`${urls[0]}/`);
  await page.emulateMedia({ colorScheme: "light" });
  await page.getByRole("button", { name: "Light or dark" }).click();
  await page.goto(`${urls[0]}/profile`);
  check((await page.locator("html").getAttribute("data-theme")) === "dark", "the colours that were chosen stay");
  await page.getByRole("button", { name: "Light or dark" }).click();
  await page.context().clearCookies({ name: "knot-theme" });
}

/** By keyboard, one reaches the content first, and sees where one is. */
export async function keyboard(page) {
  await page.goto(`${urls[0]}/users`);
  await page.keyboard.press("Tab");
  check((await page.evaluate(() => document.activeElement.textContent)) === "Skip to content", "Tab begins with a way past the menu");
  await page.keyboard.press("Enter");
  await page.keyboard.press("Tab");
  check((await page.evaluate(() => document.activeElement.textContent)) === "New user", "which leads to the content");
}

/** What a first visit loads, all together. */
export async function weight(page) {
  const { cookies } = await page.context().storageState();
  const visitor = await person({ storageState: { cookies, origins: [] } });
  for (const path of ["/", "/cluster-info", "/documents/global/plans/trip", "/templates/new", "/spaces", "/api-docs", "/api-docs/Documents"]) {
    await visitor.context().clearCookies({ name: "knot-theme" });
    const fresh = await visitor.context().newPage();
    const session = await visitor.context().newCDPSession(fresh);
    await session.send("Network.setCacheDisabled", { cacheDisabled: true });
    const sizes = [];
    fresh.on("response", async (response) => {
      if (!response.url().includes("/live")) sizes.push(response.body().then((body) => body.length, () => 0));
    });
    await fresh.goto(urls[0] + path, { waitUntil: "load" });
    const bytes = (await Promise.all(sizes)).reduce((sum, size) => sum + size, 0);
    say(`a first visit of ${path} loads ${bytes} bytes`);
    check(bytes <= WEIGHT_MAX, `${path} weighs ${bytes} bytes`);
    await fresh.close();
  }
  await visitor.context().close();
}
