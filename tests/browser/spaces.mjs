// Spaces: made on one server, seen on others; what is missing to run them is said.
import { ADMIN } from "./people.mjs";
import { check, logIn, person, urls } from "./steps.mjs";

/** A space that is made on one server comes into an open list of another. */
export async function spaces(page, shoot) {
  const other = await person();
  await logIn(other, 2, ADMIN.name, ADMIN.password, "/spaces");
  await other.getByText("There are no spaces").waitFor();
  await other.getByText("No server can run spaces now").waitFor();
  await other.evaluate(() => { globalThis.isTheSamePage = true; });

  await page.goto(`${urls[0]}/spaces`);
  await page.getByRole("link", { name: "New space" }).click();
  await page.getByRole("link", { name: "php", exact: true }).click();
  await page.getByLabel("Name", { exact: true }).fill("web");
  check(!(await page.getByLabel("Zone").locator("option").allTextContents()).includes("gb"), "a zone is offered that the template is not for");
  await page.getByLabel("Start it at once").uncheck();
  await page.getByRole("button", { name: "Make space" }).click();
  await page.getByText("The space is made").waitFor();

  await other.getByRole("link", { name: "web", exact: true }).waitFor();
  check(await other.evaluate(() => globalThis.isTheSamePage), "the page was loaded again");
  await other.context().close();

  await page.getByRole("button", { name: "Start", exact: true }).click();
  await page.getByRole("alert").getByText("has Docker or Podman").waitFor();
  await shoot("space-not-started");
  await page.getByLabel("Note", { exact: true }).fill("mine");
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByText("The space is changed").waitFor();
  check((await page.getByLabel("Note", { exact: true }).inputValue()) === "mine", "the note is kept");
}
