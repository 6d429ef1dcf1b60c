// Vigil's own client for TypeScript (ops/clients/typescript), built and run under Node.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { isSettled, StillRunning, verifyWebhook, Vigil, VigilError } from "./dist/index.js";
import { feature, KEY, MODEL, run } from "./checks.mjs";
import openapiTS, { astToString } from "openapi-typescript";
import { Webhook } from "standardwebhooks";

const baseUrl = process.env.VIGIL_URL;
const vigil = new Vigil({ baseUrl, key: KEY });
const slowly = { model: MODEL, input: "[[sim: normal tokens=400 rate=20]] x" };

async function collect(client, job, options) {
  const events = [];
  for await (const event of client.events(job.id, options)) events.push(event);
  return events;
}

const textOf = (events) =>
  events.filter((event) => event.type === "job.output.delta").map((event) => event.data.delta).join("");

feature("submit and wait", async () => {
  const job = await vigil.submit({ model: MODEL, input: "hello" });
  const done = await vigil.wait(job.id);
  assert.equal(done.status, "completed");
  assert.ok(isSettled(done) && done.output_text);
  const same = { model: MODEL, input: "same" };
  const twice = [await vigil.submit(same, { idempotencyKey: "k" }), await vigil.submit(same, { idempotencyKey: "k" })];
  assert.equal(twice[0].id, twice[1].id);
});

feature("a wait with an end, cancelled", async () => {
  const job = await vigil.submit({ model: MODEL, input: "[[sim: queued_forever]] x" });
  await assert.rejects(vigil.wait(job.id, { timeout: 0.2 }), StillRunning);
  await vigil.cancel(job.id);
  assert.equal((await vigil.wait(job.id)).status, "cancelled");
});

feature("events, live", async () => {
  const job = await vigil.submit(slowly);
  const events = await collect(vigil, job);
  assert.equal(textOf(events), (await vigil.get(job.id)).output_text);
  const numbers = events.filter((event) => event.seq).map((event) => event.seq);
  assert.deepEqual(numbers, numbers.map((_, index) => index + 1));
});

feature("events over broken connections", async () => {
  let connections = 0;
  const breaking = async (input, init) => {
    const response = await fetch(input, init);
    if (!String(input.url ?? input).includes("/events")) return response;
    connections += 1;
    let left = 600 + 200 * connections;
    const cut = new TransformStream({
      transform(chunk, controller) {
        controller.enqueue(chunk.slice(0, left));
        left -= chunk.length;
        if (left <= 0) controller.error(new TypeError("terminated"));
      },
    });
    return new Response(response.body.pipeThrough(cut), { status: response.status, headers: response.headers });
  };
  const job = await vigil.submit(slowly);
  const events = await collect(new Vigil({ baseUrl, key: KEY, fetch: breaking, retries: 50 }), job);
  assert.ok(connections > 3, `${connections} connections`);
  assert.equal(textOf(events), (await vigil.get(job.id)).output_text);
  const numbers = events.filter((event) => event.seq).map((event) => event.seq);
  assert.deepEqual(numbers, numbers.map((_, index) => index + 1));
});

feature("sent again where that is safe", async () => {
  const sent = [];
  const failing = async (input, init) => {
    sent.push(init?.method);
    if (sent.length === 1) throw new TypeError("fetch failed");
    if (sent.length === 2) return new Response("{}", { status: 503, headers: { "retry-after": "0" } });
    return fetch(input, init);
  };
  const job = await new Vigil({ baseUrl, key: KEY, fetch: failing }).submit({ model: MODEL, input: "x" });
  assert.ok(job.id && sent.length === 3);
  sent.length = 0;
  await assert.rejects(new Vigil({ baseUrl, key: KEY, fetch: failing }).cancel(job.id), TypeError);
  assert.equal(sent.length, 1);
});

feature("errors", async () => {
  const unknown = await vigil.get("job_0").catch((error) => error);
  assert.ok(unknown instanceof VigilError);
  assert.deepEqual([unknown.status, unknown.code], [404, "job_not_found"]);
  assert.ok(unknown.requestId);
  const invalid = await vigil.submit({ model: MODEL }).catch((error) => error);
  assert.deepEqual([invalid.status, invalid.code], [422, "validation_error"]);
});

feature("a browser's token", async () => {
  const job = await vigil.submit({ model: MODEL, input: "x" });
  const other = await vigil.submit({ model: MODEL, input: "y" });
  const { token } = await vigil.createToken(job.id, 60);
  const page = new Vigil({ baseUrl, key: token });
  assert.equal((await page.wait(job.id)).status, "completed");
  assert.equal((await collect(page, job)).at(-1).type, "job.completed");
  assert.equal((await page.get(other.id).catch((error) => error)).status, 401);
  const url = `${baseUrl}/v1/jobs/${job.id}/events?token=${token}`;
  assert.match(await (await fetch(url)).text(), /job\.completed/);
});

feature("every other route, typed", async () => {
  const { data, error } = await vigil.http.GET("/v1/jobs", { params: { query: { limit: 2 } } });
  assert.equal(error, undefined);
  assert.equal(data.data.length, 2);
});

feature("webhooks, delivered and verified", async () => {
  let arrived;
  const message = new Promise((resolve) => (arrived = resolve));
  const server = createServer((request, response) => {
    let body = "";
    request.on("data", (piece) => (body += piece));
    request.on("end", () => (response.end(), arrived({ body, headers: request.headers })));
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${server.address().port}/hook`;
  const body = { url, events: ["job.completed"], payload: "thin" };
  const made = await vigil.http.POST("/v1/webhook-endpoints", { body });
  assert.ok(made.data, JSON.stringify(made.error));
  const job = await vigil.submit({ model: MODEL, input: "x" });
  const { body: sent, headers } = await message;
  server.close();
  const { secret } = made.data;
  const verified = verifyWebhook(sent, headers, secret);
  assert.equal(verified.type, "job.completed");
  assert.equal(JSON.parse(sent).data.id ?? JSON.parse(sent).data.job_id, job.id);
  assert.throws(() => verifyWebhook(sent.replace("completed", "failed"), headers, secret));
  assert.throws(() => verifyWebhook(sent, headers, "whsec_" + Buffer.from("x".repeat(32)).toString("base64")));
  const at = new Date(Date.now() - 600_000);
  const signature = new Webhook(secret).sign("msg_1", at, sent);
  const old = { "webhook-id": "msg_1", "webhook-timestamp": `${Math.floor(at / 1000)}`, "webhook-signature": signature };
  assert.throws(() => verifyWebhook(sent, new Headers(old), secret));
});

feature("the types are those of the document", async () => {
  const { servers, ...document } = await (await fetch(`${baseUrl}/openapi.json`)).json();
  const sorted = (value) =>
    Array.isArray(value) ? value.map(sorted)
    : value && typeof value === "object" ? Object.fromEntries(Object.keys(value).sort().map((k) => [k, sorted(value[k])]))
    : value;
  const made = astToString(await openapiTS(sorted(document), { defaultNonNullable: false, emptyObjectsUnknown: true }));
  const kept = readFileSync(new URL("src/schema.ts", import.meta.url), "utf8");
  assert.equal(kept.slice(kept.indexOf("export interface paths")), made.slice(made.indexOf("export interface paths")));
});

feature("the types fit what users write", () => {
  const words = ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2022", "--skipLibCheck", "usage.ts"];
  execFileSync("node_modules/.bin/tsc", words, { cwd: import.meta.dirname, stdio: ["ignore", "inherit", "inherit"] });
});

await run();
