// What pages gain from a script. Each works without it: times are in UTC, and nothing is live.
"use strict";

(() => {
  const ZONE = "reelhook-zone";

  const pad = (number) => String(number).padStart(2, "0");
  const local = (date) =>
    `${date.getFullYear()}-${pad(date.getMonth() + 1)}-${pad(date.getDate())} ` +
    `${pad(date.getHours())}:${pad(date.getMinutes())}:${pad(date.getSeconds())}`;
  const utc = (date) => date.toISOString().slice(0, 19).replace("T", " ");
  const isLocal = () => {
    try {
      return localStorage.getItem(ZONE) === "local";
    } catch {
      return false;
    }
  };

  function writeTimes(root) {
    const write = isLocal() ? local : utc;
    for (const time of root.querySelectorAll("time[data-when]")) {
      time.textContent = write(new Date(time.dateTime));
    }
  }

  function showZone() {
    const button = document.querySelector("button[data-zone]");
    if (!button) return;
    button.hidden = false;
    button.textContent = isLocal() ? "Local time" : "UTC";
    button.title = "Switch between UTC and local time";
  }

  function enliven(root) {
    for (const button of root.querySelectorAll("button[data-copy]")) button.hidden = false;
    writeTimes(root);
  }

  async function copy(button) {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.dataset.done = "";
    setTimeout(() => delete button.dataset.done, 1200);
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.copy !== undefined) copy(button);
    if (button.dataset.zone !== undefined) {
      localStorage.setItem(ZONE, isLocal() ? "utc" : "local");
      showZone();
      writeTimes(document);
    }
  });

  document.addEventListener("submit", (event) => {
    const question = event.target.dataset.confirm;
    if (question && !confirm(question)) event.preventDefault();
  });

  // Live: the receiver says that something has changed, and the page asks for its part anew. Where
  // a proxy or tunnel holds such news back, or the stream breaks, the page asks now and then instead.
  const SILENT = 4000; // ms until the first word of a stream has to be there
  const POLL = 5000; // ms between two looks without a stream
  const AGE = 15000; // ms between two looks with one, since times go by
  const GAP = 700; // ms between two looks, however much happens

  const live = { source: null, heard: false, paused: false, looked: 0, timer: 0, asked: false };

  const region = () => document.querySelector("#live[data-live]");

  function showLive() {
    const button = document.querySelector("[data-live-switch]");
    if (!button || !region()) return;
    const state = live.paused ? "paused" : live.heard ? "live" : "polling";
    button.hidden = false;
    button.dataset.state = state;
    button.setAttribute("aria-pressed", String(!live.paused));
    button.querySelector(".label").textContent = { live: "Live", polling: "Polling", paused: "Paused" }[state];
    button.title = live.paused ? "Go on updating this page" : "Stop updating this page";
  }

  function look() {
    clearTimeout(live.timer);
    if (live.paused || document.hidden || !region()) return;
    const wait = live.looked + GAP - Date.now();
    if (wait > 0) {
      live.timer = setTimeout(look, wait);
      return;
    }
    live.looked = Date.now();
    htmx.trigger(region(), "refresh");
    live.timer = setTimeout(look, live.heard ? AGE : POLL);
  }

  function leave() {
    live.source?.close();
    live.source = null;
    live.heard = false;
    clearTimeout(live.timer);
  }

  function follow() {
    leave();
    if (live.paused || document.hidden || !region()) return;
    const source = new EventSource(region().dataset.live);
    live.source = source;
    source.onmessage = (event) => {
      live.heard = true;
      showLive();
      if (event.data === "change") look();
    };
    source.addEventListener("problem", look); // the session is no more; a look leads to the login
    source.onerror = () => {
      live.heard = false;
      showLive();
      // What the receiver refuses for good, such as a session that is over, is told by a look.
      if (source.readyState === EventSource.CLOSED) setTimeout(() => live.source === source && follow(), POLL);
      live.timer = setTimeout(look, POLL);
    };
    live.timer = setTimeout(() => {
      showLive();
      look();
    }, SILENT);
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return leave();
    follow();
    look();
  });
  // A page in the browser's memory keeps no connection open.
  addEventListener("pagehide", leave);
  addEventListener("pageshow", (event) => event.persisted && follow());

  // Keys: j and k walk through a list, o opens, / searches, r loads anew, ? tells.
  const rows = () => [...document.querySelectorAll("tbody tr, .entry")];

  function walk(step) {
    const all = rows();
    if (!all.length) return;
    const at = all.findIndex((row) => row.getAttribute("aria-selected") === "true");
    const next = all[Math.max(0, Math.min(all.length - 1, at + step))];
    all.forEach((row) => row.removeAttribute("aria-selected"));
    next.setAttribute("aria-selected", "true");
    next.scrollIntoView({ block: "nearest" });
    next.querySelector("a, summary")?.focus({ preventScroll: true });
  }

  const keys = {
    j: () => walk(1),
    k: () => walk(-1),
    o: () => document.querySelector("[aria-selected] a, [aria-selected] summary")?.click(),
    r: () => location.reload(),
    "/": () => document.querySelector(".filters input:not([type=hidden])")?.focus(),
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.key === "Escape") {
      for (const menu of document.querySelectorAll("details.menu[open]")) menu.open = false;
      if (event.target.matches("input, textarea, select")) event.target.blur();
    }
    if (event.target.closest("input, textarea, select, video, audio")) return;
    if (!Object.hasOwn(keys, event.key)) return;
    event.preventDefault();
    keys[event.key]();
  });

  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-live-switch]")) {
      live.paused = !live.paused;
      follow();
      look();
      showLive();
    }
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
  });

  document.addEventListener("htmx:after:swap", () => enliven(document));
  document.addEventListener("DOMContentLoaded", () => {
    showZone();
    enliven(document);
    showLive();
    // On a narrow screen the pages stand in a row that scrolls.
    document.querySelector(".side nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
    follow();
  });
})();
