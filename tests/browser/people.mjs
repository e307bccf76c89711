// Setting up, logging in, tokens, sessions, and who may see what.
import { api, ask, check, logIn, person, say, until, urls } from "./steps.mjs";

export const ADMIN = { name: "ann", password: "correct horse battery" };
const BOB = { name: "bob", password: "staple staple staple" };

export async function setUp(page) {
  const link = await ask("setup", 0);
  await page.goto(link.replace(/^https?:\/\/[^/]+/, urls[0]));
  await page.getByLabel("User name").fill(ADMIN.name);
  await page.getByLabel("E-mail address").fill("ann@example.org");
  await page.getByLabel("Password", { exact: true }).fill(ADMIN.password);
  await page.getByLabel("The same password again").fill("another password");
  await page.getByRole("button", { name: "Make administrator" }).click();
  await page.getByRole("alert").getByText("not the same").waitFor();
  await page.getByLabel("Password", { exact: true }).fill(ADMIN.password);
  await page.getByLabel("The same password again").fill(ADMIN.password);
  await page.getByRole("button", { name: "Make administrator" }).click();
  await page.getByText("You are the first administrator").waitFor();
  check((await page.goto(link)).status() === 403, "a setup link works once");
}

export async function logInAndOut(page) {
  await page.goto(`${urls[0]}/`);
  await page.getByRole("button", { name: "Log out" }).click();
  await page.waitForURL(/\/login/);
  await page.goto(`${urls[0]}/api-tokens`);
  check(page.url() === `${urls[0]}/login?next=%2Fapi-tokens`, `who has not logged in is sent to: ${page.url()}`);
  await page.getByLabel("E-mail address or user name").fill(ADMIN.name);
  await page.getByLabel("Password").fill("wrong, but long enough");
  await page.getByRole("button", { name: "Log in" }).click();
  await page.getByRole("alert").getByText("Wrong name or password").waitFor();
  check((await page.getByLabel("E-mail address or user name").inputValue()) === ADMIN.name, "the name is still there");
  await page.getByLabel("Password").fill(ADMIN.password);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.waitForURL(`${urls[0]}/api-tokens`);
  const [cookie] = (await page.context().cookies()).filter(({ name }) => name === "__Host-knot");
  check(cookie?.httpOnly && cookie.secure, "the session's cookie is kept, and from scripts");
}

export async function makeToken(page) {
  await page.getByRole("navigation", { name: "Main" }).getByRole("link", { name: "API Tokens" }).click();
  await page.getByRole("link", { name: "New Token" }).click();
  await page.getByLabel("Name").fill("Leaf Test");
  await page.getByRole("button", { name: "Create Token" }).click();
  const secret = await page.locator("#token").textContent();
  await page.getByRole("button", { name: "Copy" }).click();
  await page.getByText(/Copied\.|Selected/).waitFor();
  for (const server of [0, 1, 2]) {
    const who = await until("the token is good on every server", async () => {
      const reply = await api(server, "GET", "/api/users/whoami", undefined, secret);
      return reply.status === 200 && (await reply.json());
    });
    check(who.user.username === ADMIN.name, `a token is its user's: ${JSON.stringify(who)}`);
  }
  await page.goto(`${urls[1]}/api-tokens`);
  await page.getByText("Leaf Test", { exact: true }).waitFor();
  check(!(await page.content()).includes(secret), "a token is shown once");
}

async function fillUser(page, { name, password }) {
  await page.goto(`${urls[0]}/users`);
  await page.getByRole("link", { name: "New user" }).click();
  await page.getByLabel("User name").fill(name);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Make user" }).click();
}

export async function makeUsers(page) {
  await fillUser(page, { name: "not a name", password: BOB.password });
  await page.getByRole("alert").getByText("`username` is not valid").waitFor();
  await fillUser(page, BOB);
  await page.getByText("The user is made").waitFor();
  await page.goto(`${urls[0]}/roles/new`);
  await page.getByLabel("Name").fill("Reader");
  await page.getByLabel("Read Documents").check();
  await page.getByRole("button", { name: "Make role" }).click();
  await page.getByRole("link", { name: "Reader" }).waitFor();
  await page.goto(`${urls[0]}/groups/new`);
  await page.getByLabel("Name").fill("Developers");
  await page.getByLabel("Spaces").fill("5");
  await page.getByRole("button", { name: "Make group" }).click();
  await page.getByRole("link", { name: "Developers" }).waitFor();
}

/** Who lacks a permission sees neither the menu's entry nor what is behind it. */
export async function permissions() {
  const page = await person();
  await until("bob is known", async () => (await logIn(page, 1, BOB.name, BOB.password), page.url() === `${urls[1]}/`));
  const entries = await page.getByRole("navigation", { name: "Main" }).getByRole("link").allTextContents();
  check(entries.join() === "Dashboard,API", `the menu of who may nothing: ${entries}`);
  for (const [path, title] of [["/users", "Manage Users"], ["/cluster-info", "View Cluster Info"], ["/audit", "View Audit Logs"], ["/templates", "Use Spaces"], ["/variables", "Manage Variables"], ["/documents/global/knot.users", "Read Documents"]]) {
    const reply = await page.goto(urls[1] + path);
    check(reply.status() === 403, `${path} answers ${reply.status()}`);
    const text = await page.locator("main").textContent();
    check(text.includes(title), `${path} says what is missing: ${text}`);
    check(!/ann|n2/.test(text), `${path} shows what it must not: ${text}`);
  }
  await page.context().close();
}

/** A session of one server is good on another, and dies there when it is ended. */
export async function sessions() {
  const [one, other] = [await person(), await person()];
  await logIn(one, 0, BOB.name, BOB.password);
  await one.goto(`${urls[1]}/profile`);
  await one.getByText("this one").waitFor();
  await logIn(other, 2, BOB.name, BOB.password, "/profile");
  const ends = other.getByRole("button", { name: "End the session" });
  const mine = other.locator("tr", { hasText: "this one" }).getByRole("button");
  check((await mine.count()) === 1, "the session that is used is marked");
  const began = Date.now();
  for (let left = await ends.count(); left > 1; left -= 1) {
    await other.locator("tr", { has: ends }).filter({ hasNotText: "this one" }).first().getByRole("button").click();
    await other.getByText("The session has ended").waitFor();
    await other.goto(`${urls[2]}/profile`);
  }
  await one.waitForURL(/\/login/);
  say(`a session that was ended on one server was gone from an open page of another within ${Date.now() - began} ms`);
  await one.context().close();
  await other.context().close();
}
