// Compiled, not run: what users of the client write has to fit its types.

import { isSettled, type Job, type JobEvent, type Submit, verifyWebhook, Vigil, VigilError } from "./dist/index.js";

export async function usage(): Promise<string | null | undefined> {
  const vigil = new Vigil({ baseUrl: "http://127.0.0.1:8700", key: "vgl_" });
  const least: Submit = { model: "gpt-5.6-sol", input: "Why?" };
  const most: Submit = {
    model: "gpt-5.6-sol",
    input: [{ role: "user", content: [{ type: "input_text", text: "Why?" }] }],
    params: { reasoning: { effort: "high" }, tools: [] },
    policy: { on_delay: { action: "switch", after_seconds: 5 }, require_model: true },
    webhook: { url: "https://app.example/hooks", events: ["job.completed"] },
    metadata: { ticket: "A-17" },
  };
  const job: Job = await vigil.submit(least, { idempotencyKey: "k" });
  await vigil.submit(most);
  for await (const event of vigil.events(job.id, { after: 3 })) {
    const shown: JobEvent = event;
    if (shown.type === "job.output.delta") console.log(shown.data.delta, shown.seq);
  }
  const done = await vigil.wait(job.id, { timeout: 60 });
  if (!isSettled(done) || done.status === "failed") return done.error?.message;
  const { data, error } = await vigil.http.GET("/v1/jobs", { params: { query: { status: "completed", limit: 5 } } });
  if (error) return error.detail;
  const message = verifyWebhook("{}", new Headers(), "whsec_");
  try {
    await vigil.cancel(data.data[0]!.id);
  } catch (problem) {
    if (problem instanceof VigilError && problem.code === "job_not_found") return message.type;
  }
  const { token, expires_at } = await vigil.createToken(job.id, 60);
  // @ts-expect-error a job has a model
  await vigil.submit({ input: "x" });
  // @ts-expect-error there is no such action
  await vigil.submit({ ...least, policy: { on_delay: { action: "hurry" } } });
  return done.disclosure ? token + expires_at : done.output_text;
}
