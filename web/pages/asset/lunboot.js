// Theme, copy buttons, buttons that take seconds and the "/" key. Every page works without this file.
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
  document.addEventListener("keydown", (e) => {
    if (e.key === "/" && !e.target.matches("input, select, textarea")) {
      const search = document.querySelector("[data-slash]");
      if (search) {
        e.preventDefault();
        search.focus();
      }
    }
  });
  document.addEventListener("DOMContentLoaded", () => document.querySelector(".problem")?.focus());
})();
