// Theme, copy buttons, buttons that take seconds, lost connections, printing and keys. Every page works without this file.
(() => {
  const root = document.documentElement;
  // The server reads the choice from a cookie, so that the page comes in its theme.
  const choose = (theme) => {
    root.dataset.theme = theme;
    document.cookie = "lunboot_theme=" + theme + "; Path=/; Max-Age=31536000; SameSite=Lax";
  };
  const former = localStorage.getItem("theme"); // where the choice was kept before
  if (former) {
    localStorage.removeItem("theme");
    if (!root.dataset.theme) choose(former === "dark" ? "dark" : "light");
  }
  document.addEventListener("click", (e) => {
    const theme = e.target.closest("[data-theme]");
    if (theme && theme !== root) {
      const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      choose(dark ? "light" : "dark");
    }
    const copy = e.target.closest("[data-copy]");
    if (copy) {
      copied(document.getElementById(copy.dataset.copy)).then((done) => {
        if (!done) return; // the text is selected: the keys for copying do the rest
        getSelection().removeAllRanges();
        copy.classList.add("copied");
        setTimeout(() => copy.classList.remove("copied"), 1500);
      });
    }
  });
  // Over plain HTTP a browser has no clipboard to write to, but still the old command.
  const copied = async (from) => {
    if (navigator.clipboard) {
      try {
        await navigator.clipboard.writeText(from.textContent);
        return true;
      } catch {}
    }
    getSelection().selectAllChildren(from);
    return document.execCommand("copy");
  };
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
  // The facts beside a boot follow with it, and the forms among them are of when the
  // page was made. A form that nobody has touched becomes what it would be now. One that somebody has begun goes on from the
  // present revision while what it is about is as it was; else it keeps the one that
  // was seen, and the appliance refuses it: two people are at the same thing. What is
  // about the whole thing, or about what no page shows, such as a password (data-whole),
  // keeps it in any case.
  const seen = ["revision", "mapping"];
  const chosen = (select) => ([...select.options].find((o) => o.defaultSelected) ?? select.options[0])?.value;
  const tick = (e) => e.matches("[type=checkbox], [type=radio]");
  const fields = (form) => [...form.elements].filter((e) => e.name && !seen.includes(e.name));
  const made = (form) => JSON.stringify(fields(form).map((e) => [e.name, e.matches("select") ? chosen(e) : tick(e) ? [e.value, e.defaultChecked] : e.defaultValue]));
  const begun = (form) => form.contains(document.activeElement) || fields(form).some((e) => (e.matches("select") ? e.value !== chosen(e) : tick(e) ? e.checked !== e.defaultChecked : "defaultValue" in e && e.value !== e.defaultValue));
  const fact = (now, fresh) => {
    if (!now.matches?.("[data-fresh] form")) return true;
    if (document.querySelector(".problem")) return false; // a form that was refused shows what was typed
    if (!begun(now)) {
      if (!now.isEqualNode(fresh)) now.replaceChildren(...fresh.childNodes);
    } else if (!("whole" in now.dataset) && made(now) === made(fresh)) {
      for (const name of seen) if (now.elements[name] && fresh.elements[name]) now.elements[name].value = fresh.elements[name].value;
    }
    return false;
  };
  // A live page says when it no longer is: without a word it would go on to show
  // what was so once. The server sends a sign of life every 15 seconds.
  const patience = 5e3, silence = 40e3;
  let heard = new Date(), waits = 0, stream = null;
  const lost = (text, link, to) => {
    const bar = document.getElementById("lost");
    if (!bar) return;
    const p = bar.querySelector("p");
    p.textContent = text;
    if (link) {
      const a = document.createElement("a");
      a.href = to;
      a.textContent = link;
      p.append(" ", a);
    }
    bar.hidden = false;
    const state = document.getElementById("state");
    state?.classList.replace("ok", "bad");
    state?.lastChild?.replaceWith("Not connected");
  };
  const loggedOut = () => lost("You are logged out here. This page shows what was known at " + heard.toLocaleTimeString() + ".", "Log in", "/login?next=" + encodeURIComponent(location.pathname + location.search));
  const anew = () => document.getElementById("live")?.dispatchEvent(new Event("change", { bubbles: true }));
  const alive = () => {
    heard = new Date();
    clearTimeout(waits);
    waits = 0;
    const bar = document.getElementById("lost");
    if (bar && !bar.hidden) {
      bar.hidden = true;
      anew();
    }
  };
  document.addEventListener("alive", alive);
  // One login has too many windows open: this one asks by itself from now on.
  document.addEventListener("crowded", () => {
    stream = null;
    setInterval(() => document.hidden || anew(), patience);
  });
  document.addEventListener("htmx:sse:after:connection", (e) => { stream = e.detail.connection; });
  document.addEventListener("htmx:sse:error", (e) => {
    if (e.detail.status === 401) return loggedOut();
    waits ||= setTimeout(() => lost("Not connected to the appliance. This page shows what was known at " + heard.toLocaleTimeString() + "; it goes on by itself."), patience);
  });
  setInterval(() => {
    if (stream && !document.hidden && new Date() - heard > silence) stream.reader?.cancel(); // it connects anew, or says that it cannot
  }, patience);
  document.addEventListener("visibilitychange", () => { heard = new Date(); }); // a hidden page has no stream
  document.addEventListener("htmx:before:response", (e) => {
    const { raw, status } = e.detail.ctx.response;
    if (status < 400 && !stream) alive();
    if (status === 401 || (raw.redirected && new URL(raw.url).pathname === "/login")) {
      e.preventDefault();
      loggedOut();
    } else if (status === 404) {
      e.preventDefault();
      location.reload(); // what it showed is gone: so says the page
    } else if (status >= 400 && !(raw.headers.get("Content-Type") || "").startsWith("text/event-stream")) {
      e.preventDefault();
      lost("The appliance could not make this page anew (" + status + "). It shows what was known at " + heard.toLocaleTimeString() + ".");
    }
  });
  document.addEventListener("DOMContentLoaded", () => {
    window.htmx?.registerExtension("facts", { htmx_before_morph_node: (_, { oldNode, newNode }) => fact(oldNode, newNode) });
    (document.querySelector("[aria-invalid=true]") ?? document.querySelector(".problem"))?.focus(); // the field at fault, else what is wrong
    for (const b of document.querySelectorAll("[data-print], [data-show-keys]")) b.hidden = false;
    const box = document.querySelector("[data-keys]");
    if (box) box.checked = localStorage.getItem("keys") !== "off";
  });
})();
