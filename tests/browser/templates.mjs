// Templates and variables: made on one server, seen on others, checked where they are written.
import { ADMIN } from "./people.mjs";
import { api, check, logIn, person, until, urls, violations } from "./steps.mjs";

const EVE = { name: "eve", password: "orange orange orange" };
const JOB = "image: ${{ .var.registry }}/php:8\nports:\n  - 80\n";

/** A template that is made on one server comes into an open list of another. */
export async function templates(page, shoot) {
  const other = await person();
  await logIn(other, 2, ADMIN.name, ADMIN.password, "/templates");
  await other.getByText("There are no templates").waitFor();
  await other.evaluate(() => { globalThis.isTheSamePage = true; });

  await page.goto(`${urls[0]}/variables/new`);
  await page.getByLabel("Name").fill("registry");
  await page.getByLabel("Value", { exact: true }).fill("registry.example");
  await page.getByLabel("Protected").check();
  await page.getByRole("button", { name: "Make variable" }).click();
  await page.getByRole("link", { name: "registry", exact: true }).click();
  await page.getByText("Left empty, it stays").waitFor();
  check((await page.getByLabel("Value", { exact: true }).inputValue()) === "", "a protected value is not shown");

  await page.goto(`${urls[0]}/templates`);
  await page.getByRole("link", { name: "New template" }).click();
  await page.getByLabel("Name", { exact: true }).fill("php");
  await page.getByLabel("Zones").fill("!gb");
  await page.locator("#zones-meant li", { hasText: "gb" }).getByText("not allowed").waitFor();
  await page.locator("#zones-meant li", { hasText: "au" }).getByText("allowed, this server's").waitFor();
  await page.getByLabel("Job, in YAML").fill(JOB);
  check((await page.locator(".gutter").first().textContent()).endsWith("3\n4"), "lines are numbered");
  await page.getByLabel("Job, in YAML").press("Tab");
  check((await page.evaluate(() => document.activeElement.id)) === "volumes", "Tab leaves the field");

  await page.getByRole("button", { name: "Check" }).click();
  await page.locator("#n-job").getByText("Line 3, ports[0]: is no port.").waitFor();
  await shoot("template-wrong");
  await page.getByLabel("Job, in YAML").fill(JOB.replace("- 80", "- 8080:80"));
  await page.getByRole("button", { name: "Check" }).click();
  await page.getByText("Nothing is wrong with it").waitFor();
  check((await page.locator("#n-job p").count()) === 0, "what was mended is complained of no more");
  await page.getByRole("button", { name: "Preview" }).click();
  await page.getByText("hidden/php:8", { exact: true }).waitFor();
  await shoot("template-preview");
  const rows = page.locator("#rows-ports .row-of");
  await page.getByLabel("Name of port 1").fill("Web");
  await page.getByLabel("Number of port 1").fill("80");
  await page.locator("section", { has: page.locator("#rows-ports") }).getByRole("button", { name: "Add a row" }).click();
  await rows.nth(1).waitFor();
  check((await page.getByLabel("Name of port 1").inputValue()) === "Web", "rows keep what is in them");
  await page.getByRole("button", { name: "Make template" }).first().click();
  await page.getByText("The template is made").waitFor();

  await other.getByRole("link", { name: "php", exact: true }).waitFor();
  check(await other.evaluate(() => globalThis.isTheSamePage), "the page was loaded again");
  await other.context().close();
}

/** Who may only use templates reads those that are for them, where they are allowed. */
export async function readers() {
  const { role_id } = await (await api(2, "POST", "/api/roles", { name: "Developer", permissions: [7] })).json();
  await api(2, "POST", "/api/users", { username: EVE.name, password: EVE.password, roles: [role_id] });
  const page = await person();
  await logIn(page, 2, EVE.name, EVE.password, "/templates");
  check((await page.getByRole("link", { name: "New template" }).count()) === 0, "who reads makes none");
  await page.getByRole("link", { name: "php", exact: true }).click();
  await page.getByText("registry }}/php:8").waitFor();
  check((await page.locator("textarea").count()) === 0, "who reads has no editor");
  const found = await violations(page);
  check(found.length === 0, `on a template that is read:\n${found.join("\n")}`);
  const there = `${urls[1]}/templates`;
  await until("the session is known", async () => (await page.goto(there), page.url() === there));
  await page.getByText("There are no templates that you may use").waitFor();
  await page.context().close();
}

/** Two people edit one template: each field has whoever changed it, and where both did, the second is asked. */
export async function disputes(page, shoot) {
  await page.goto(`${urls[0]}/templates`);
  await page.getByRole("link", { name: "php", exact: true }).click();
  const path = `/api${new URL(page.url()).pathname}`;
  await page.getByLabel("Description", { exact: true }).fill("mine");
  await api(0, "PUT", path, { description: "theirs", compute_units: 3 });
  await page.getByText("The template has changed since you opened it").waitFor();
  check((await page.getByLabel("Description", { exact: true }).inputValue()) === "mine", "what was typed stays");
  await page.getByRole("button", { name: "Save" }).first().click();
  await page.getByRole("alert").getByText("Somebody else has changed description").waitFor();
  await page.locator("#n-description").getByText("theirs").waitFor();
  await shoot("template-disputed");
  await page.getByRole("button", { name: "Save" }).first().click();
  await page.getByText("The template is changed").waitFor();
  const said = await until("the template is changed", async () => (await api(0, "GET", path)).json());
  check(said.description === "mine" && said.compute_units === 3, `both are kept: ${JSON.stringify(said)}`);
}

/** A server is shut out and let in again, by its name. */
export async function eviction(page, shoot) {
  const { data } = await (await api(0, "GET", "/api/cluster")).json();
  const { id } = data.find(({ name }) => name === "n2");
  await page.goto(`${urls[0]}/cluster-info/${id}`);
  await page.getByLabel("to shut it out").fill("n1");
  await page.getByRole("button", { name: "Shut out" }).click();
  await page.getByRole("alert").getByText("not the server's name").waitFor();
  await page.getByLabel("to shut it out").fill("n2");
  await page.getByLabel("Why").fill("stolen");
  await page.getByRole("button", { name: "Shut out" }).click();
  await page.getByText("The server is shut out").waitFor();
  await page.locator('tr[data-server="n2"] .evicted').waitFor();
  await page.getByRole("cell", { name: "stolen" }).waitFor();
  await shoot("evicted");
  await page.getByRole("link", { name: "Let n2 in again" }).click();
  await page.getByLabel("to let it in").fill("n2");
  await page.getByRole("button", { name: "Let in again" }).click();
  await page.getByText("The server is let in again").waitFor();
  await page.locator('tr[data-server="n2"] .evicted').waitFor({ state: "detached" });
}
