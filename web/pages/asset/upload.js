// Uploads in pieces, which go on where a line broke. Without this file the form sends the image in one piece.
(() => {
  const form = document.querySelector("form[data-upload]");
  if (!form) return;
  const piece = 16 << 20;
  const { name, file } = form.elements;
  const drop = form.querySelector(".drop");
  const sending = form.querySelector("[data-sending]");
  const bar = form.querySelector("progress");
  const said = form.querySelector("[data-said]");
  const told = form.querySelector("[data-told]");
  const stop = form.querySelector("[data-stop]");
  const go = form.querySelector(".primary");
  let under = null; // the request under way
  let stopped = false;
  let leaving = false;

  form.querySelector("[data-hint]").hidden = false;
  const chosen = () => {
    if (file.files[0] && !name.value) {
      name.value = file.files[0].name.toLowerCase().replace(/(\.(img|raw|iso|qcow2|vhdx?|vmdk|gz|xz|zst))+$/, "").replace(/[^a-z0-9-]+/g, "-").replace(/^-+|-+$/g, "").slice(0, 63);
    }
  };
  file.addEventListener("change", chosen);
  for (const kind of ["dragenter", "dragover"]) {
    drop.addEventListener(kind, (e) => {
      e.preventDefault();
      drop.classList.add("over");
    });
  }
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (e) => {
    e.preventDefault();
    drop.classList.remove("over");
    if (e.dataTransfer.files.length) {
      file.files = e.dataTransfer.files;
      chosen();
    }
  });

  const size = (n) => {
    const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let i = 0;
    while (n >= 1024 && i < units.length - 1) [n, i] = [n / 1024, i + 1];
    return `${n >= 100 || !i ? Math.round(n) : n.toFixed(1)} ${units[i]}`;
  };
  const show = (part, text) => {
    bar.value = Math.round(part * 1000);
    said.textContent = text;
  };
  // refused is an answer that trying again does not change.
  const refused = (text) => Object.assign(new Error(text), { refused: true });
  const ask = (method, path, body, headers, progress) =>
    new Promise((resolve, reject) => {
      const x = (under = new XMLHttpRequest());
      x.open(method, "/api/v1" + path);
      for (const [k, v] of Object.entries(headers || {})) x.setRequestHeader(k, v);
      if (progress) x.upload.onprogress = (e) => progress(e.loaded);
      x.onload = () => {
        let answer = {};
        try {
          answer = JSON.parse(x.responseText);
        } catch {} // an empty answer, or one of something between us
        if (x.status < 300) return resolve(answer);
        const text = answer.detail || `The appliance answered ${x.status}.`;
        reject(x.status === 409 && method === "PATCH" || x.status === 502 || x.status === 504 ? new Error(text) : refused(text));
      };
      x.onerror = x.onabort = () => reject(new Error("The line is broken."));
      x.send(body);
    });
  const json = { "Content-Type": "application/json" };
  const wait = (ms) => new Promise((r) => setTimeout(r, ms));

  const begin = async (f) => {
    const all = await ask("GET", "/uploads");
    const same = (u) => u.name === name.value.trim().toLowerCase() && u.file === f.name && u.size === f.size;
    const before = all.items.find(same);
    if (before) return before;
    const { format, sha256, block_size, read_only } = form.elements;
    return ask("POST", "/uploads", JSON.stringify({
      name: name.value.trim(), size: f.size, file: f.name, format: format.value, sha256: sha256.value.trim(), block_size: Number(block_size.value) || 0, read_only: read_only.checked,
    }), json);
  };
  const send = async (u, f) => {
    const began = performance.now();
    const from = u.offset;
    for (let tries = 0; u.offset < u.size; ) {
      const progress = (n) => {
        const at = u.offset + n;
        const rate = (at - from) / Math.max(0.2, (performance.now() - began) / 1000);
        const left = Math.ceil((u.size - at) / Math.max(rate, 1));
        show(at / u.size, `${size(at)} of ${size(u.size)} sent, ${size(rate)} a second, ${left > 90 ? Math.round(left / 60) + " min" : left + " s"} left`);
      };
      try {
        u = await ask("PATCH", "/uploads/" + u.id, f.slice(u.offset, u.offset + piece), { "Upload-Offset": u.offset, "Content-Type": "application/octet-stream" }, progress);
        tries = 0;
      } catch (e) {
        if (stopped || e.refused) throw e;
        const pause = Math.min(30, 2 ** tries++);
        show(u.offset / u.size, `${e.message} ${size(u.offset)} have arrived; trying again in ${pause} s`);
        await wait(pause * 1000);
        if (stopped) throw e;
        u = await ask("GET", "/uploads/" + u.id).catch((again) => {
          if (again.refused) throw again;
          return u;
        });
      }
    }
    return u;
  };
  const make = async (u) => {
    show(1, "All of it has arrived; making the volume");
    const { job } = await ask("POST", `/uploads/${u.id}/finish`);
    for (;;) {
      const { items } = await ask("GET", "/jobs");
      const now = items.find((j) => j.id === job.id) || { state: "done" };
      if (now.state !== "running") {
        if (now.error) throw refused(now.error);
        return;
      }
      show(now.done / Math.max(1, now.total), "Making the volume");
      await wait(400);
    }
  };

  form.addEventListener("submit", async (e) => {
    e.preventDefault();
    const f = file.files[0];
    let u = null;
    stopped = false;
    leaving = true;
    sending.hidden = stop.hidden = false;
    go.disabled = true;
    form.classList.remove("broken");
    show(0, "Sending");
    told.textContent = "The upload has begun.";
    try {
      u = await begin(f);
      u = await send(u, f);
      stop.hidden = true;
      await make(u);
      leaving = false;
      location.assign("/volumes");
      return;
    } catch (bad) {
      if (stopped && u) await ask("DELETE", "/uploads/" + u.id).catch(() => {});
      const text = stopped ? "Stopped; what was sent is dropped." : bad.message.charAt(0).toUpperCase() + bad.message.slice(1);
      said.textContent = told.textContent = text;
      form.classList.toggle("broken", !stopped);
    }
    leaving = false;
    stop.hidden = true;
    go.disabled = false;
  });
  stop.addEventListener("click", () => {
    stopped = true;
    under?.abort();
  });
  addEventListener("beforeunload", (e) => {
    if (leaving) e.preventDefault();
  });
})();
