// The Agents SDK for Node: a tool, a tool and a handoff streamed, an output type.

import assert from "node:assert/strict";
import { Agent, OpenAIProvider, Runner, setTracingDisabled, tool } from "@openai/agents";
import { z } from "zod";
import { feature, KEY, MODEL, run, URL } from "./checks.mjs";

setTracingDisabled(true);
const called = [];
const runner = (useResponses = true) =>
  new Runner({ modelProvider: new OpenAIProvider({ apiKey: KEY, baseURL: URL, useResponses }) });
const weather = tool({
  name: "weather",
  description: "The weather of a city.",
  parameters: z.object({ city: z.string() }),
  execute: async ({ city }) => (called.push(city), "sunny"),
});
const agent = (more = {}) => new Agent({ name: "one", model: MODEL, tools: [weather], ...more });

feature("tool", async () => {
  called.length = 0;
  const result = await runner().run(agent(), "[[sim: tool_call]] x");
  assert.deepEqual(called, ["ok"]);
  assert.ok(result.finalOutput);
});

feature("tool and handoff, streamed", async () => {
  called.length = 0;
  const second = agent({ name: "Billing" });
  const first = Agent.create({ name: "Desk", model: MODEL, tools: [weather], handoffs: [second] });
  const prompt = "[[sim: tool_call name=weather,transfer_to_Billing]] x";
  const result = await runner().run(first, prompt, { stream: true });
  for await (const _ of result);
  await result.completed;
  assert.deepEqual(called, ["ok"]);
  assert.equal(result.lastAgent.name, "Billing");
  assert.ok(result.finalOutput);
});

feature("parallel tools with reasoning", async () => {
  called.length = 0;
  const result = await runner().run(agent(), "[[sim: agent_loop rounds=2 calls=2]] x");
  assert.equal(called.length, 4);
  assert.ok(result.finalOutput);
});

feature("output type", async () => {
  const result = await runner().run(agent({ tools: [], outputType: z.object({ title: z.string() }) }), "x");
  assert.equal(typeof result.finalOutput.title, "string");
});

feature("tool by chat", async () => {
  called.length = 0;
  const result = await runner(false).run(agent(), "[[sim: tool_call]] x");
  assert.deepEqual(called, ["ok"]);
  assert.ok(result.finalOutput);
}, { needs: "chat" });

await run();
