// The SDK of OpenAI for Node: plain, streamed, background, structured, tools, and every event of every scenario.

import assert from "node:assert/strict";
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import { feature, KEY, MODEL, run, URL } from "./checks.mjs";

const client = new OpenAI({ baseURL: URL, apiKey: KEY, maxRetries: 0, timeout: 60_000 });
const weather = {
  type: "function",
  name: "weather",
  strict: true,
  parameters: {
    type: "object",
    properties: { city: { type: "string" } },
    required: ["city"],
    additionalProperties: false,
  },
};
const Answer = z.object({ title: z.string(), points: z.array(z.number()) });
const ENDS = new Set(["response.completed", "response.failed", "response.incomplete", "error"]);

feature("plain", async () => {
  const answer = await client.responses.create({ model: MODEL, input: "hello" });
  assert.equal(answer.status, "completed");
  assert.ok(answer.output_text);
});

feature("streamed", async () => {
  const stream = client.responses.stream({ model: MODEL, input: "[[sim: normal tokens=200]] x" });
  const final = await stream.finalResponse();
  assert.equal(final.output_text.split(" ").length, 200);
});

feature("background, polled and read again", async () => {
  let answer = await client.responses.create({ model: MODEL, input: "hello", background: true });
  while (["queued", "in_progress"].includes(answer.status)) answer = await client.responses.retrieve(answer.id);
  let last;
  for await (const event of await client.responses.retrieve(answer.id, { stream: true, starting_after: 2 })) last = event;
  assert.equal(last.response.status, "completed");
});

feature("structured", async () => {
  const text = { format: zodTextFormat(Answer, "answer") };
  const answer = await client.responses.parse({ model: MODEL, input: "x", text });
  assert.deepEqual(Answer.parse(answer.output_parsed), answer.output_parsed);
});

feature("tools, to the end of the loop", async () => {
  const input = [{ role: "user", content: "[[sim: parallel_tool_calls reasoning=1]] x" }];
  const first = await client.responses.create({ model: MODEL, input, tools: [weather] });
  const calls = first.output.filter((item) => item.type === "function_call");
  assert.deepEqual(calls.map((call) => JSON.parse(call.arguments)), [{ city: "ok" }, { city: "ok" }]);
  input.push(...first.output);
  for (const call of calls) input.push({ type: "function_call_output", call_id: call.call_id, output: "sunny" });
  const last = await client.responses.create({ model: MODEL, input, tools: [weather] });
  assert.ok(last.output_text);
});

feature("tools and reasoning, streamed", async () => {
  const stream = client.responses.stream({ model: MODEL, input: "[[sim: tool_call reasoning=1]] x", tools: [weather] });
  const seen = new Set();
  for await (const event of stream) seen.add(event.type);
  const final = await stream.finalResponse();
  assert.ok(seen.has("response.function_call_arguments.delta"));
  assert.ok(seen.has("response.reasoning_summary_text.delta"));
  assert.deepEqual(final.output.map((item) => item.type), ["reasoning", "function_call"]);
});

feature("errors and blocks", async () => {
  const wrong = new OpenAI({ baseURL: URL, apiKey: "wrong", maxRetries: 0 });
  await assert.rejects(wrong.responses.create({ model: MODEL, input: "x" }), OpenAI.AuthenticationError);
  await assert.rejects(client.responses.retrieve("resp_0"), OpenAI.NotFoundError);
  const blocked = await client.responses.create({ model: MODEL, input: "[[sim: check_then_block]] x" });
  assert.equal(blocked.error.code, "cyber_policy");
});

feature("events of every scenario", async () => {
  const listing = await client.responses.create({ model: MODEL, input: "[[sim: list]]" });
  const names = listing.output_text.split("\n").map((line) => line.split(":")[0]);
  const policy = { max_attempts: 2, run_deadline_seconds: 5, queue_deadline_seconds: 5 };
  const tools = [weather, { type: "local_shell" }, { type: "shell" }, { type: "apply_patch" }];
  const faults = [];
  const queue = [...names];
  const work = async () => {
    for (let name = queue.shift(); name; name = queue.shift()) {
      const body = { model: MODEL, input: `[[sim: ${name}]] x`, tools, stream: true, vigil: { policy } };
      let last, number = -1;
      for await (const event of await client.responses.create(body, { timeout: 120_000 })) {
        last = event.type;
        if (!(event.sequence_number > number)) faults.push(`${name}: ${event.type} has no number above ${number}`);
        number = event.sequence_number;
      }
      if (!ENDS.has(last)) faults.push(`${name}: ended with ${last}`);
    }
  };
  await Promise.all(Array.from({ length: 25 }, work));
  assert.deepEqual(faults, []);
});

feature("chat, streamed, tools", async () => {
  const { strict, type, ...inner } = weather;
  const tools = [{ type: "function", function: inner }];
  const messages = [{ role: "user", content: "[[sim: tool_call]] x" }];
  const stream = client.chat.completions.stream({ model: MODEL, messages, tools });
  const message = (await stream.finalChatCompletion()).choices[0].message;
  assert.equal(message.tool_calls[0].function.arguments, '{"city":"ok"}');
}, { needs: "chat" });

feature("chat: plain, structured, limits, errors, blocks", async () => {
  const messages = [{ role: "user", content: "hello" }];
  const plain = await client.chat.completions.create({ model: MODEL, messages });
  assert.equal(plain.choices[0].finish_reason, "stop");
  assert.ok(plain.choices[0].message.content);
  const response_format = zodResponseFormat(Answer, "answer");
  const parsed = await client.chat.completions.parse({ model: MODEL, messages, response_format });
  assert.deepEqual(Answer.parse(parsed.choices[0].message.parsed), parsed.choices[0].message.parsed);
  const ask = (content) => client.chat.completions.create({ model: MODEL, messages: [{ role: "user", content }] });
  const tooLong = (error) => error.status === 413 && /VIGIL_MAX_BODY_BYTES/.test(error.message);
  await assert.rejects(ask("x".repeat(2 ** 20)), tooLong);
  await assert.rejects(client.chat.completions.create({ model: "none", messages }), OpenAI.NotFoundError);
  const blocked = await ask("[[sim: check_then_block]] x");
  assert.equal(blocked.choices[0].finish_reason, "content_filter");
}, { needs: "chat" });

feature("a large picture, in both APIs", async () => {
  const image_url = `data:image/png;base64,${"iVBORw0KGgo".repeat(300_000)}`;
  const input = [{ role: "user", content: [{ type: "input_image", image_url, detail: "auto" }] }];
  assert.equal((await client.responses.create({ model: MODEL, input })).status, "completed");
  const messages = [{ role: "user", content: [{ type: "image_url", image_url: { url: image_url } }] }];
  assert.equal((await client.chat.completions.create({ model: MODEL, messages })).choices[0].finish_reason, "stop");
}, { needs: "chat" });

feature("given up and sent again, it is one job", async () => {
  const hasty = new OpenAI({ baseURL: URL, apiKey: KEY, maxRetries: 20, timeout: 700 });
  const content = "[[sim: silent_delay hold=200]] x";
  const body = { model: MODEL, metadata: { ticket: `${Date.now()}` } };
  const completion = await hasty.chat.completions.create({ ...body, messages: [{ role: "user", content }] });
  assert.ok(completion.choices[0].message.content);
  const answer = await hasty.responses.create({ ...body, input: content });
  assert.equal(answer.status, "completed");
  const jobs = await (await fetch(`${URL}/jobs?limit=100`, { headers: { Authorization: `Bearer ${KEY}` } })).json();
  const ours = jobs.data.filter((job) => job.metadata.ticket === body.metadata.ticket);
  assert.deepEqual(ours.map((job) => job.attempts.length), [1, 1]);
}, { needs: "chat" });

await run();
