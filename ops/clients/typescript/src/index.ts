/**
 * The TypeScript client of Vigil. Its types are generated from the OpenAPI document (schema.ts); `http` calls every
 * route with them, and the methods do what a loop around it would: waiting, reading events, sending again.
 */
import createClient, { type Client } from "openapi-fetch";
import { errorOf, retryAfter, StillRunning } from "./errors.js";
import { Cursor, frames, Gap, type JobEvent } from "./events.js";
import type { paths } from "./schema.js";

export { StillRunning, VigilError } from "./errors.js";
export type { JobEvent } from "./events.js";
export type { components, operations, paths } from "./schema.js";
export { verifyWebhook, type WebhookMessage } from "./webhooks.js";

export type Submit = paths["/v1/jobs"]["post"]["requestBody"]["content"]["application/json"];
export type Job = paths["/v1/jobs/{job_id}"]["get"]["responses"]["200"]["content"]["application/json"];
export type JobToken = paths["/v1/jobs/{job_id}/token"]["post"]["responses"]["200"]["content"]["application/json"];

export interface Options {
  baseUrl: string;
  /** An app's API key (`vgl_…`), for servers only, or a token for one job (`vgt_…`), for browsers. */
  key: string;
  fetch?: typeof globalThis.fetch;
  /** How often a request is sent again where that is safe. */
  retries?: number;
}

const TERMINAL = new Set<string>(["completed", "blocked", "failed", "cancelled", "expired"]);
const TEMPORARY = new Set([429, 502, 503, 504]);
const LONGEST_WAIT_S = 50;
const MOST_ASKED_S = 60;

/** Return whether a job has reached its last status. */
export function isSettled(job: { status: string }): boolean {
  return TERMINAL.has(job.status);
}

export class Vigil {
  /** Calls any route of the document: `vigil.http.GET("/v1/jobs", …)`. */
  readonly http: Client<paths>;
  private readonly base: string;
  private readonly key: string;
  private readonly send: typeof globalThis.fetch;
  private readonly retries: number;

  constructor({ baseUrl, key, fetch = globalThis.fetch, retries = 5 }: Options) {
    this.base = baseUrl.replace(/\/+$/, "");
    this.key = key;
    this.send = (input, init) => fetch(input, init);
    this.retries = retries;
    this.http = createClient<paths>({
      baseUrl: this.base,
      headers: { Authorization: `Bearer ${key}` },
      fetch: (request: Request) => this.send(request),
    });
  }

  /** Submit a job. It has an Idempotency-Key, so it may be sent again and is one job all the same. */
  async submit(job: Submit, options: { idempotencyKey?: string; signal?: AbortSignal } = {}): Promise<Job> {
    const headers = { "Idempotency-Key": options.idempotencyKey ?? crypto.randomUUID() };
    return this.json("POST", "/v1/jobs", { body: job, headers, signal: options.signal });
  }

  /** Return a job, at once or, with `wait`, at its next change of status. */
  async get(jobId: string, options: { wait?: number; signal?: AbortSignal } = {}): Promise<Job> {
    const query = options.wait === undefined ? "" : `?wait=${options.wait}`;
    return this.json("GET", `${jobPath(jobId)}${query}`, { signal: options.signal });
  }

  /** Return a job once it has settled. Throws StillRunning after `timeout` seconds. */
  async wait(jobId: string, options: { timeout?: number; signal?: AbortSignal } = {}): Promise<Job> {
    const end = Date.now() + (options.timeout ?? Infinity) * 1000;
    for (;;) {
      const left = Math.max(0, (end - Date.now()) / 1000);
      const wait = Math.round(Math.min(LONGEST_WAIT_S, left) * 1000) / 1000;
      const job = await this.get(jobId, { wait, signal: options.signal });
      if (isSettled(job)) return job;
      if (Date.now() >= end) throw new StillRunning(jobId);
    }
  }

  /** Cancel a job; one that has settled stays as it is. */
  async cancel(jobId: string): Promise<Job> {
    return this.json("POST", `${jobPath(jobId)}/cancel`, {});
  }

  /** Return a token with which a browser reads this job and its events, and nothing else. */
  async createToken(jobId: string, seconds?: number): Promise<JobToken> {
    return this.json("POST", `${jobPath(jobId)}/token`, { body: seconds === undefined ? {} : { seconds } });
  }

  /**
   * Yield the events of a job from `after` on, live, each once and in order, until the last one. A broken connection is
   * read on from where it broke (Last-Event-ID).
   */
  async *events(jobId: string, options: { after?: number; signal?: AbortSignal } = {}): AsyncGenerator<JobEvent> {
    const cursor = new Cursor(options.after ?? 0);
    let fruitless = 0;
    while (!cursor.over) {
      const before = `${cursor.after}.${cursor.offset}`;
      try {
        const headers: Record<string, string> = { Accept: "text/event-stream" };
        if (cursor.after > 0) headers["Last-Event-ID"] = String(cursor.after);
        const path = `${jobPath(jobId)}/events${cursor.offset ? `?offset=${cursor.offset}` : ""}`;
        const response = await this.request("GET", path, { headers, signal: options.signal });
        if (response.status === 204 || response.body === null) return;
        for await (const frame of frames(response.body)) {
          const event = cursor.take(frame);
          if (event !== null) yield event;
        }
      } catch (error) {
        if (options.signal?.aborted || !(error instanceof Gap || isBroken(error))) throw error;
      }
      fruitless = `${cursor.after}.${cursor.offset}` === before ? fruitless + 1 : 0;
      if (fruitless > this.retries) throw new StillRunning(jobId);
      if (!cursor.over && fruitless) await pause(backoff(fruitless), options.signal);
    }
  }

  private async json<T>(method: string, path: string, options: RequestOptions): Promise<T> {
    return (await (await this.request(method, path, options)).json()) as T;
  }

  /** Send a request, again where that is safe; throws VigilError for an answer that is an error. */
  private async request(method: string, path: string, { body, headers, signal }: RequestOptions): Promise<Response> {
    const repeatable = method === "GET" || headers?.["Idempotency-Key"] !== undefined;
    for (let tries = 1; ; tries += 1) {
      let response: Response | null = null;
      try {
        response = await this.send(this.base + path, {
          method,
          headers: {
            Authorization: `Bearer ${this.key}`,
            ...(body === undefined ? {} : { "Content-Type": "application/json" }),
            ...headers,
          },
          body: body === undefined ? null : JSON.stringify(body),
          signal: signal ?? null,
        });
      } catch (error) {
        if (signal?.aborted || !repeatable || tries > this.retries) throw error;
      }
      if (response?.ok) return response;
      let seconds = backoff(tries);
      if (response !== null) {
        const asked = retryAfter(response) ?? 0;
        const again = response.status === 429 || (repeatable && TEMPORARY.has(response.status));
        if (!again || tries > this.retries || asked > MOST_ASKED_S) throw await errorOf(response);
        await response.body?.cancel();
        seconds = Math.max(seconds, asked);
      }
      await pause(seconds, signal);
    }
  }
}

interface RequestOptions {
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal | undefined;
}

function jobPath(jobId: string): string {
  return `/v1/jobs/${encodeURIComponent(jobId)}`;
}

/** Whether a connection broke while it was read: fetch says so by a TypeError. */
function isBroken(error: unknown): boolean {
  return error instanceof TypeError;
}

function backoff(tries: number): number {
  return Math.min(8, 0.25 * 2 ** Math.min(tries - 1, 10)) * (1 - Math.random() / 2);
}

async function pause(seconds: number, signal?: AbortSignal | undefined): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });
}
