import { Webhook } from "standardwebhooks";

/** A webhook message of Vigil. `data` depends on the payload that the endpoint asked for. */
export interface WebhookMessage {
  type: string;
  timestamp: string;
  data: Record<string, unknown>;
}

/**
 * Return the message of a webhook request whose signature is right and which is at most five minutes old; throws
 * otherwise. `body` is the body exactly as it came, not parsed and written again. `secret` begins with `whsec_`.
 */
export function verifyWebhook(
  body: string,
  headers: Headers | Record<string, string | string[] | undefined>,
  secret: string,
): WebhookMessage {
  const given: Record<string, string> = {};
  const rows = headers instanceof Headers ? [...headers.entries()] : Object.entries(headers);
  for (const [name, value] of rows) if (value !== undefined) given[name.toLowerCase()] = String(value);
  return new Webhook(secret).verify(body, given) as WebhookMessage;
}
