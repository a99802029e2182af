// Theme, copy buttons, buttons that take seconds, printing and keys. Every page works without this file.
(() => {
  const root = document.documentElement;
  const saved = localStorage.getItem("theme");
  if (saved) root.dataset.theme = saved;
  document.addEventListener("click", (e) => {
    const theme = e.target.closest("[data-theme]");
    if (theme && theme !== root) {
      const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = dark ? "light" : "dark";
      localStorage.setItem("theme", root.dataset.theme);
    }
    const copy = e.target.closest("[data-copy]");
    if (copy && navigator.clipboard) {
      navigator.clipboard.writeText(document.getElementById(copy.dataset.copy).textContent).then(() => {
        copy.classList.add("copied");
        setTimeout(() => copy.classList.remove("copied"), 1500);
      });
    }
  });
  // A button that takes seconds says so; the page comes when they are over.
  document.addEventListener("submit", (e) => {
    const b = e.submitter;
    if (b?.dataset.busy) {
      b.textContent = b.dataset.busy;
      b.setAttribute("aria-busy", "true");
    }
  });
  // Keys move the focus itself, from one row's link to the next: Enter then opens
  // it as any link, and a screen reader says where one is. Single keys can be
  // turned off (WCAG 2.1.4); the choice is kept in this browser.
  const rows = () => [...document.querySelectorAll("main tbody tr, main .tray li")].map((r) => r.querySelector("a.name, a.mac, td a")).filter(Boolean);
  const move = (by) => {
    const links = rows();
    const row = document.activeElement.closest?.("tbody tr, .tray li");
    const at = links.findIndex((a) => row?.contains(a));
    const to = links[at < 0 ? (by > 0 ? 0 : links.length - 1) : Math.min(Math.max(at + by, 0), links.length - 1)];
    to?.focus();
    to?.scrollIntoView({ block: "nearest" });
    return Boolean(to);
  };
  const acts = {
    "/": () => {
      const search = document.querySelector("[data-slash]");
      search?.focus();
      search?.select?.();
      return search;
    },
    "?": () => {
      const keys = document.getElementById("keys");
      if (keys && !keys.open) keys.showModal();
      return keys;
    },
    j: () => move(1),
    k: () => move(-1),
    x: () => {
      const box = document.activeElement.closest?.("tbody tr, .tray li")?.querySelector('input[type="checkbox"]');
      box?.click();
      return box;
    },
  };
  document.addEventListener("keydown", (e) => {
    const t = e.target;
    if (e.ctrlKey || e.altKey || e.metaKey || t.closest("dialog")) return;
    const writing = t.matches("input:not([type=checkbox]), select, textarea, [contenteditable]");
    // Arrows are no single characters: they move from row to row once one has the focus.
    const arrow = { ArrowDown: 1, ArrowUp: -1 }[e.key];
    if (arrow && !writing && t.closest("main tbody tr, main .tray li")) {
      if (move(arrow)) e.preventDefault();
      return;
    }
    if (!writing && localStorage.getItem("keys") !== "off" && Object.hasOwn(acts, e.key) && acts[e.key]()) e.preventDefault();
  });
  document.addEventListener("change", (e) => {
    if (e.target.matches("[data-keys]")) localStorage.setItem("keys", e.target.checked ? "on" : "off");
  });
  document.addEventListener("click", (e) => {
    if (e.target.closest("[data-print]")) print();
    if (e.target.closest("[data-show-keys]")) document.getElementById("keys")?.showModal();
  });
  document.addEventListener("DOMContentLoaded", () => {
    document.querySelector(".problem")?.focus();
    for (const b of document.querySelectorAll("[data-print], [data-show-keys]")) b.hidden = false;
    const box = document.querySelector("[data-keys]");
    if (box) box.checked = localStorage.getItem("keys") !== "off";
  });
})();
