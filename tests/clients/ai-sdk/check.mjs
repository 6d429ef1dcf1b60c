// Vercel's AI SDK: text, streamed text, an object, a tool loop.

import assert from "node:assert/strict";
import { createOpenAI } from "@ai-sdk/openai";
import { generateText, isStepCount, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { feature, KEY, MODEL, run, URL } from "./checks.mjs";

const openai = createOpenAI({ baseURL: URL, apiKey: KEY });
const called = [];
const options = { model: openai.responses(MODEL), maxRetries: 0 };
const weather = tool({
  description: "The weather of a city.",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => (called.push(city), "sunny"),
});
const stopWhen = (isStepCount ?? stepCountIs)(5);

feature("plain", async () => {
  assert.ok((await generateText({ ...options, prompt: "hello" })).text);
});

feature("streamed", async () => {
  let text = "";
  for await (const piece of streamText({ ...options, prompt: "[[sim: normal tokens=200]] x" }).textStream) text += piece;
  assert.equal(text.split(" ").length, 200);
});

feature("tools, to the end of the loop", async () => {
  called.length = 0;
  const prompt = "[[sim: parallel_tool_calls]] x";
  const result = await generateText({ ...options, prompt, tools: { weather }, stopWhen });
  assert.deepEqual(called, ["ok", "ok"]);
  assert.ok(result.text);
});

async function thinkingLoop(more) {
  called.length = 0;
  const result = streamText({ ...options, ...more, prompt: "[[sim: agent_loop rounds=2]] x", tools: { weather }, stopWhen });
  let text = "", thought = "";
  for await (const part of result.fullStream ?? result.stream) {
    if (part.type === "error") throw part.error;
    if (part.type === "text-delta") text += part.text;
    if (part.type === "reasoning-delta") thought += part.text;
  }
  assert.deepEqual(called, ["ok", "ok"]);
  assert.ok(text);
  assert.ok(thought, "no reasoning was streamed");
}

feature("tools and reasoning, streamed, store: false", async () => {
  await thinkingLoop({ providerOptions: { openai: { store: false, include: ["reasoning.encrypted_content"] } } });
});

// It names the reasoning of an earlier turn by its id and does not send it.
feature("tools and reasoning, streamed", async () => thinkingLoop({}), { needs: "item references" });

feature("structured", async () => {
  const output = Output.object({ schema: z.object({ title: z.string(), points: z.array(z.number()) }) });
  const result = await generateText({ ...options, prompt: "x", output });
  assert.equal(typeof result.output.title, "string");
});

feature("tools by chat", async () => {
  called.length = 0;
  const model = openai.chat(MODEL);
  const result = await generateText({ model, maxRetries: 0, prompt: "[[sim: tool_call]] x", tools: { weather }, stopWhen });
  assert.deepEqual(called, ["ok"]);
  assert.ok(result.text);
}, { needs: "chat" });

await run();
