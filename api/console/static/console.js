// What the console's pages do in a browser beyond links and forms: fetch newer states of the page that is open, keep
// times relative, copy ids, and the keys. Without it every page still works. It runs no text as code.

const policy = window.trustedTypes?.createPolicy("vigil", { createHTML: (html) => html });
const MAX_PAUSE = 30;

// -- live pages: ask for the page that is open, with the version that it has; the server decides how often

function startLive() {
  const main = document.getElementById("main");
  let failures = 0;
  let timer = 0;

  function plan() {
    clearTimeout(timer);
    const seconds = Number(main.dataset.refresh);
    if (seconds > 0 && !document.hidden) {
      const pause = Math.min(Math.max(MAX_PAUSE, seconds), seconds * 2 ** failures);
      timer = setTimeout(refresh, pause * 1000 * (0.9 + 0.2 * Math.random()));
    }
  }

  async function refresh() {
    try {
      const response = await fetch(location.pathname + location.search, {
        headers: { Accept: "text/html", "Vigil-Live": "1", "If-None-Match": `"${main.dataset.version}"` },
        credentials: "same-origin",
        redirect: "error",
        cache: "no-store",
      });
      if (response.status === 401) {
        say("Your session has ended.", true);
        return;
      }
      if (response.status === 200) {
        const text = await response.text();
        const html = policy ? policy.createHTML(text) : text;
        const fresh = new DOMParser().parseFromString(html, "text/html").getElementById("main");
        failures = 0;
        if (fresh && dropsPicked(fresh)) {
          say("There are newer jobs. The list stays as it is while jobs are selected that would leave it.");
          plan();
          return;
        }
        if (fresh) morph(main, document.adoptNode(fresh));
        readClock();
        relate();
        mark();
        countPicked();
      } else if (response.status !== 304) {
        throw new Error(String(response.status));
      }
      failures = 0;
      say("");
    } catch {
      failures = Math.min(failures + 1, 5);
      say("This page shows an older state: Vigil does not answer. Trying again …");
    }
    plan();
  }

  document.addEventListener("visibilitychange", () => (document.hidden ? clearTimeout(timer) : refresh()));
  plan();
}

function say(text, login = false) {
  const banner = document.getElementById("live-state");
  banner.textContent = text;
  banner.hidden = !text;
  if (login) {
    const link = document.createElement("a");
    link.href = location.href;
    link.textContent = "Log in again";
    banner.append(" ", link);
  }
}

// Makes `old` look like `fresh` and keeps what a person changed: focus, open details, ticked boxes, text in fields.
function morph(old, fresh) {
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !(name === "open" && old.localName === "details") && name !== "class")
      old.removeAttribute(name);
  }
  for (const { name, value } of [...fresh.attributes]) {
    if (old.getAttribute(name) !== value && !(name === "open" && old.localName === "details")) old.setAttribute(name, value);
  }
  if (!fresh.hasAttribute("class")) old.removeAttribute("class");
  if (["input", "textarea", "select"].includes(old.localName)) return;
  let at = old.firstChild;
  for (const node of [...fresh.childNodes]) {
    const match = find(old, at, node);
    if (!match) {
      old.insertBefore(node, at);
      continue;
    }
    if (match === at) at = at.nextSibling;
    else old.insertBefore(match, at);
    if (node.nodeType === Node.ELEMENT_NODE) morph(match, node);
    else if (match.nodeValue !== node.nodeValue) match.nodeValue = node.nodeValue;
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

// Returns the child of `old`, from `at` on, that stands for `node`: with the same name of its own, or none.
function find(old, at, node) {
  const name = nameOf(node);
  for (let one = at; one; one = one.nextSibling) {
    if (one.nodeName === node.nodeName && nameOf(one) === name) return one;
    if (node.nodeType !== Node.ELEMENT_NODE && one.nodeType === Node.ELEMENT_NODE) return null;
  }
  return null;
}

function nameOf(node) {
  return node.id || node.dataset?.row || node.getAttribute?.("aria-labelledby") || "";
}

// -- relative times, as formats.py writes them

function length(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const whole = Math.round(seconds);
  const padded = (number) => String(Math.floor(number)).padStart(2, "0");
  const two = (number, unit, rest, smaller) => `${Math.floor(number)} ${unit}${rest < 1 ? "" : ` ${padded(rest)} ${smaller}`}`;
  if (whole < 3600) return two(whole / 60, "min", whole < 600 ? whole % 60 : 0, "s");
  if (whole < 86400) return two(whole / 3600, "h", (whole % 3600) / 60, "min");
  const hours = Math.floor((whole % 86400) / 3600);
  return `${Math.floor(whole / 86400)} d${hours ? ` ${hours} h` : ""}`;
}

// The times are the server's, so is "now": a wrong clock of this machine must not make a time negative.
let ahead = 0;

function readClock() {
  const now = document.getElementById("main")?.dataset.now;
  if (now) ahead = Date.parse(now) - Date.now();
}

function relate() {
  const now = Date.now() + ahead;
  for (const time of document.querySelectorAll("time[data-relative]")) {
    const seconds = (now - Date.parse(time.dateTime)) / 1000;
    const text = length(Math.abs(seconds));
    time.textContent = Math.abs(seconds) < 1 ? "now" : seconds > 0 ? `${text} ago` : `in ${text}`;
  }
}

// -- copying, confirmation, the login's link

document.addEventListener("click", async (event) => {
  const copy = event.target.closest("[data-copy]");
  if (copy) {
    await navigator.clipboard?.writeText(copy.dataset.copy);
    copy.classList.add("done");
    setTimeout(() => copy.classList.remove("done"), 1500);
  } else if (event.target.closest("[data-help]")) {
    document.getElementById("keys").showModal();
  }
});

document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !window.confirm(question)) event.preventDefault();
});

// What follows # is never sent, so the link is in no log; the person decides, so no other page can log anybody in.
function takeLink() {
  const login = document.querySelector("form[data-login]");
  if (!login || !location.hash.startsWith("#link=")) return;
  login.elements.secret.value = location.hash.slice(6);
  history.replaceState(null, "", location.pathname + location.search);
  login.querySelector("button").focus();
}

addEventListener("hashchange", takeLink);
takeLink();

if (document.querySelector("[data-notice]")) {
  const address = new URL(location.href);
  address.searchParams.delete("notice");
  address.searchParams.delete("n");
  history.replaceState(null, "", address);
}

// -- keys

let current = "";
let leader = 0;

function rows() {
  return [...document.querySelectorAll("[data-row]")];
}

function mark() {
  for (const row of rows()) row.classList.toggle("current", row.dataset.row === current);
}

function step(by) {
  const all = rows();
  if (!all.length) return;
  const at = all.findIndex((row) => row.dataset.row === current);
  const next = all[Math.min(all.length - 1, Math.max(0, at < 0 ? 0 : at + by))];
  current = next.dataset.row;
  mark();
  next.querySelector("a")?.focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea, select, dialog, [contenteditable]");
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && typing) event.target.blur();
  if (typing && !(event.target.type === "checkbox")) return;
  const row = rows().find((one) => one.dataset.row === current);
  if (leader && Date.now() - leader < 1500) {
    leader = 0;
    const link = document.querySelector(`a[data-keys="g ${CSS.escape(event.key)}"]`);
    if (link) link.click();
    return;
  }
  const acts = {
    "/": () => document.querySelector("[data-search]")?.focus(),
    "?": () => document.getElementById("keys")?.showModal(),
    j: () => step(1),
    k: () => step(-1),
    x: () => row?.querySelector("input[type=checkbox]")?.click(),
    X: () => {
      const box = row?.querySelector("input[type=checkbox]");
      if (!box) return;
      box.checked = !box.checked;
      pickRange(box);
      lastPicked = box;
      countPicked();
    },
    g: () => (leader = Date.now()),
  };
  if (acts[event.key]) {
    event.preventDefault();
    acts[event.key]();
  }
});

// -- selection in a list: count it, all of the page, a range with shift

let lastPicked = null;

function boxes() {
  return [...document.querySelectorAll("[data-row] input[type=checkbox]")];
}

function countPicked() {
  const form = document.querySelector("form[data-selection]");
  if (!form) return;
  const all = boxes();
  const picked = all.filter((box) => box.checked).length;
  const master = form.querySelector("[data-pick-all]");
  if (master) {
    master.hidden = false;
    master.checked = picked > 0 && picked === all.length;
    master.indeterminate = picked > 0 && picked < all.length;
  }
  for (const place of form.querySelectorAll("[data-picked]")) place.textContent = picked ? ` (${picked})` : "";
}

// Whether a newer state of the list lacks a row that is selected: it would no longer be.
function dropsPicked(fresh) {
  return boxes().some((box) => {
    const row = box.closest("[data-row]").dataset.row;
    return box.checked && !fresh.querySelector(`[data-row="${CSS.escape(row)}"]`);
  });
}

function pickRange(box) {
  const all = boxes();
  const ends = [all.indexOf(lastPicked), all.indexOf(box)].sort((one, other) => one - other);
  if (ends[0] >= 0) for (const one of all.slice(ends[0], ends[1] + 1)) one.checked = box.checked;
}

document.addEventListener("click", (event) => {
  const box = event.target.closest?.("[data-row] input[type=checkbox]");
  if (box) {
    if (event.shiftKey) pickRange(box);
    lastPicked = box;
    countPicked();
  } else if (event.target.closest?.("[data-pick-all]")) {
    for (const one of boxes()) one.checked = event.target.checked;
    countPicked();
  }
});

// -- an action on many jobs: its page asks for one part after another, and its address says how far it is

async function goOn() {
  const form = document.querySelector("form[data-continue]");
  if (!form) return;
  let pause = 0;
  try {
    const response = await fetch(form.action, {
      method: "POST",
      headers: { Accept: "text/html" },
      body: new URLSearchParams(new FormData(form)),
      credentials: "same-origin",
    });
    if (response.ok && new URL(response.url).pathname.endsWith("/jobs/actions/result")) {
      const text = await response.text();
      const html = policy ? policy.createHTML(text) : text;
      history.replaceState(null, "", response.url);
      morph(
        document.getElementById("main"),
        document.adoptNode(new DOMParser().parseFromString(html, "text/html").getElementById("main")),
      );
      say("");
      readClock();
      relate();
    } else if (response.status === 429 || response.status === 503) {
      pause = Math.min(Math.max(Number(response.headers.get("Retry-After")) || 5, 1), MAX_PAUSE);
      say("Vigil takes no more at the moment: the app's limit is reached, or the store does not answer. Going on soon.");
    } else {
      say("This stopped: Vigil refused the next part. Go on with the button, or reload the page.");
      return;
    }
  } catch {
    pause = 5;
    say("Vigil does not answer. Trying again …");
  }
  setTimeout(goOn, pause * 1000);
}

readClock();
countPicked();
goOn();
if (document.getElementById("live-state")) startLive();
setInterval(relate, 5000);
