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

  document.addEventListener("htmx:after:swap", () => enliven(document));
  document.addEventListener("DOMContentLoaded", () => {
    showZone();
    enliven(document);
  });
})();
