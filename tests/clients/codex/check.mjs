// The Codex CLI: one answer, one shell command and one patch, in a scratch folder.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { feature, KEY, MODEL, run, URL } from "./checks.mjs";

const BIN = join(import.meta.dirname, "node_modules", ".bin", "codex");
const CONFIG = `
model = "${MODEL}"
model_provider = "vigil"
approval_policy = "never"
sandbox_mode = "danger-full-access"
[model_providers.vigil]
name = "vigil"
base_url = "${URL}"
env_key = "VIGIL_API_KEY"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
`;

async function codex(prompt) {
  const home = mkdtempSync(join(tmpdir(), "codex-home-")), folder = mkdtempSync(join(tmpdir(), "codex-work-"));
  writeFileSync(join(home, "config.toml"), CONFIG);
  const env = { PATH: process.env.PATH, HOME: home, CODEX_HOME: home, VIGIL_API_KEY: KEY };
  const words = ["exec", "--json", "--skip-git-repo-check", "-C", folder, prompt];
  const child = spawn(BIN, words, { env, stdio: ["ignore", "pipe", "pipe"] });
  let out = "", err = "";
  child.stdout.on("data", (piece) => (out += piece));
  child.stderr.on("data", (piece) => (err += piece));
  const timer = setTimeout(() => child.kill(), 90_000);
  const code = await new Promise((resolve) => child.on("close", resolve));
  clearTimeout(timer);
  const events = out.split("\n").filter((line) => line.startsWith("{")).map((line) => JSON.parse(line));
  const items = events.filter((event) => event.type === "item.completed").map((event) => event.item);
  const file = join(folder, "simulated.txt");
  const written = existsSync(file) ? readFileSync(file, "utf8") : null;
  rmSync(home, { recursive: true, force: true });
  rmSync(folder, { recursive: true, force: true });
  assert.equal(code, 0, `exit ${code}: ${out.slice(-800)} ${err.slice(-800)}`);
  return { items, written, folder };
}

const answered = (items) => items.some((item) => item.type === "agent_message" && item.text);

feature("answer", async () => {
  const { items } = await codex("[[sim: normal tokens=30]] x");
  assert.ok(answered(items), JSON.stringify(items));
});

feature("one shell command", async () => {
  const { items, folder } = await codex("[[sim: shell_call command=pwd]] x");
  const ran = items.find((item) => item.type === "command_execution");
  assert.ok(ran, JSON.stringify(items));
  assert.ok(ran.aggregated_output.includes(folder), JSON.stringify(ran));
  assert.ok(answered(items));
});

feature("one patch", async () => {
  const { items, written } = await codex("[[sim: apply_patch_call reasoning=1]] x");
  assert.equal(written, "simulated line\n", JSON.stringify(items));
  assert.ok(answered(items));
});

await run();
