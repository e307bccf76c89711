// Drives a browser through three servers. The test that starts it does to the servers what it is asked to.
import { apart, conflict, killed, live } from "./cluster.mjs";
import { camera, colours, keyboard, looks, weight } from "./looks.mjs";
import { logInAndOut, makeToken, makeUsers, permissions, sessions, setUp } from "./people.mjs";
import { spaces } from "./spaces.mjs";
import { end, person } from "./steps.mjs";
import { disputes, eviction, readers, templates } from "./templates.mjs";

const page = await person();
const steps = [
  setUp, logInAndOut, makeToken, makeUsers, permissions, sessions, templates, spaces, readers, disputes, live, killed, apart,
  conflict, looks, colours, keyboard, weight, eviction,
];
for (const step of steps) {
  const began = Date.now();
  console.log(`step ${step.name}`);
  await step(page, camera(page));
  console.log(`took ${Date.now() - began}`);
}
await end();
