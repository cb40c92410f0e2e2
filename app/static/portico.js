// What pages do beyond plain HTML and htmx: one small function per behaviour, each delegated from the document,
// so content that is swapped in later behaves the same. Reading and submitting work without any of this.
"use strict";

(() => {
  const $ = (selector, within = document) => within.querySelector(selector);
  const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];
  const on = (event, selector, act, options) => document.addEventListener(event, (e) => {
    const found = e.target instanceof Element ? e.target.closest(selector) : null;
    if (found) act(e, found);
  }, options);
  const ready = []; // functions to run on each new part of the page

  // -- words for screen readers, toasts ---------------------------------------------------------------------------

  const announce = (words) => {
    const region = $("#announcer");
    if (!region) return;
    region.textContent = "";
    setTimeout(() => { region.textContent = words; }, 50);
  };

  const leave = (item) => { item.remove(); };
  const expire = (item) => {
    if (item.dataset.toast === "danger") return; // errors stay until closed
    let timer = setTimeout(leave, 8000, item);
    const hold = () => clearTimeout(timer);
    const go = () => { clearTimeout(timer); timer = setTimeout(leave, 4000, item); };
    for (const event of ["mouseenter", "focusin"]) item.addEventListener(event, hold);
    for (const event of ["mouseleave", "focusout"]) item.addEventListener(event, go);
  };

  const LEVELS = ["success", "info", "warning", "danger"];
  const toast = ({ level = "info", message = "" }) => {
    const list = $("#toast-list");
    const template = $("#toast-template");
    if (!list || !template || !message) return;
    const name = level === "error" ? "danger" : LEVELS.includes(level) ? level : "info";
    const item = template.content.firstElementChild.cloneNode(true);
    const drawing = $("#toast-icons")?.content.querySelector(`[data-level="${name}"] svg`);
    item.dataset.toast = name;
    $(".pf-v6-c-alert", item).className = `pf-v6-c-alert pf-m-${name}`;
    if (drawing) $(".pf-v6-c-alert__icon", item).replaceChildren(drawing.cloneNode(true));
    $("[data-toast-text]", item).textContent = message;
    list.append(item);
    expire(item);
  };

  const toasts = () => {
    $$("#toast-list > li").forEach(expire);
    document.addEventListener("toast", (e) => (e.detail?.messages ?? [e.detail ?? {}]).forEach(toast));
    on("click", "[data-toast-close]", (e, button) => leave(button.closest("li")));
    // If a list cannot be loaded, its place says so. A part that refreshes itself keeps its old content.
    const failed = (ctx) => {
      const region = ctx?.target?.closest?.(".region");
      const template = $("#failed-template");
      if (!region || !template || ctx.sourceElement === region) return;
      region.replaceChildren(template.content.cloneNode(true));
      $("a", region).href = location.href;
    };
    document.addEventListener("htmx:response:error", (e) => {
      const { status, headers } = e.detail.ctx.response;
      if (status >= 500) failed(e.detail.ctx);
      if (status === 422 || status === 409 || headers.get("HX-Redirect") || headers.get("HX-Trigger")) return;
      const words = status === 429 ? "Too many requests. Please wait a moment."
        : status === 403 ? "You may not do this."
        : status === 404 ? "This is no longer there."
        : status === 401 ? "Your session has ended. Please sign in again."
        : status === 413 ? "That is too large."
        : status < 500 ? "This could not be done. Reload the page and try again." : "Something went wrong. Trying again may help.";
      const id = headers.get("X-Request-ID");
      toast({ level: "danger", message: id ? `${words} (request ${id})` : words });
    });
    document.addEventListener("htmx:error", (e) => {
      failed(e.detail?.ctx);
      if (e.detail?.ctx) toast({ level: "danger", message: "The server could not be reached." });
    });
  };

  // -- theme, sidebar, menus, dialogs -----------------------------------------------------------------------------

  const theme = () => {
    const mark = () => $$("button[data-theme]").forEach((button) => {
      const chosen = button.dataset.theme === document.documentElement.dataset.themeChoice;
      button.setAttribute("aria-pressed", chosen);
      button.classList.toggle("pf-m-selected", chosen);
    });
    on("click", "button[data-theme]", (e, button) => { window.porticoTheme(button.dataset.theme); button.closest("details").open = false; });
    // A theme for every browser goes before the one that this browser kept.
    on("submit", "form[data-forget-theme]", () => { try { localStorage.removeItem("portico-theme"); } catch { /* private window */ } });
    document.addEventListener("portico:theme", mark);
    mark();
  };

  const sidebar = () => {
    const bar = $("#sidebar");
    const toggle = $("[data-sidebar-toggle]");
    const root = document.documentElement;
    if (!bar || !toggle) return;
    const narrow = matchMedia("(max-width: 1199.98px)");
    const show = (open) => {
      bar.classList.toggle("pf-m-expanded", open);
      document.body.classList.toggle("sidebar-open", open);
      toggle.setAttribute("aria-expanded", narrow.matches ? open : !root.classList.contains("sidebar-closed"));
      bar.inert = narrow.matches && !open;
      if (open) ($("[aria-current]", bar) ?? $("a", bar))?.focus();
    };
    const close = () => { if (bar.classList.contains("pf-m-expanded")) { show(false); toggle.focus(); } };
    // On a wide screen the menu stays as it was left, on every page.
    const fold = () => {
      const closed = root.classList.toggle("sidebar-closed");
      try { localStorage.setItem("portico-sidebar", closed ? "closed" : "open"); } catch { /* private window */ }
      show(false);
    };
    toggle.addEventListener("click", (e) => { e.preventDefault(); if (narrow.matches) show(!bar.classList.contains("pf-m-expanded")); else fold(); });
    on("click", "[data-sidebar-close]", (e) => { e.preventDefault(); close(); });
    document.addEventListener("keydown", (e) => { if (e.key === "Escape") close(); });
    narrow.addEventListener("change", () => show(false));
    show(false);
    // The server opens the groups that this cookie names, so that nothing moves after the first paint.
    on("click", "[data-nav-group] > summary", (e, summary) => {
      const kept = document.cookie.match(/(?:^|; )portico_menu=([a-z.]*)/)?.[1] ?? "";
      const { navGroup } = summary.parentElement.dataset;
      const others = kept.split(".").filter((name) => name && name !== navGroup);
      const open = summary.parentElement.open ? others : [...others, navGroup]; // the click has not yet opened or closed it
      document.cookie = `portico_menu=${open.join(".")}; path=/; max-age=31536000; samesite=lax`;
    });
    if (!narrow.matches) $("[aria-current]", bar)?.scrollIntoView({ block: "nearest" });
    $$(".page-tabs").forEach((tabs) => $("[aria-current]", tabs)?.scrollIntoView({ block: "nearest", inline: "center" }));
  };

  const menus = () => {
    const shut = (except) => $$("details[data-menu][open]").forEach((menu) => { if (menu !== except) menu.open = false; });
    document.addEventListener("click", (e) => shut(e.target.closest("details[data-menu]")));
    document.addEventListener("keydown", (e) => {
      const menu = e.target instanceof Element ? e.target.closest("details[data-menu][open]") : null;
      if (!menu) return;
      if (e.key === "Escape") { menu.open = false; $("summary", menu).focus(); }
      if (e.key !== "ArrowDown" && e.key !== "ArrowUp") return;
      e.preventDefault();
      const items = $$(".pf-v6-c-menu__item", menu);
      const at = items.indexOf(document.activeElement);
      items[(at + (e.key === "ArrowDown" ? 1 : at < 0 ? 0 : -1) + items.length) % items.length]?.focus();
    });
    // Near the bottom of the window, a menu opens upwards.
    document.addEventListener("toggle", (e) => {
      const menu = e.target;
      if (!(menu instanceof HTMLDetailsElement) || !menu.open || !menu.matches("[data-menu]")) return;
      const panel = $(".menu-panel", menu);
      menu.classList.remove("menu-up");
      const end = menu.closest("main")?.parentElement.getBoundingClientRect().bottom ?? innerHeight;
      if (panel && panel.getBoundingClientRect().bottom > end) menu.classList.add("menu-up");
    }, true);
  };

  const dialogs = () => {
    const open = (dialog, opener) => {
      if (!(dialog instanceof HTMLDialogElement) || dialog.open) return false;
      dialog.showModal();
      dialog.addEventListener("close", () => opener?.isConnected && opener.focus(), { once: true });
      return true;
    };
    on("click", "a[data-opens]", (e, link) => {
      if (!e.ctrlKey && !e.metaKey && open(document.getElementById(link.dataset.opens), link)) e.preventDefault();
    });
    if (!("commandForElement" in HTMLButtonElement.prototype)) {
      on("click", "button[commandfor]", (e, button) => {
        const dialog = document.getElementById(button.getAttribute("commandfor"));
        if (button.getAttribute("command") === "show-modal") open(dialog, button);
        if (button.getAttribute("command") === "close") dialog?.close();
      });
    }
    on("click", "dialog", (e, dialog) => { if (e.target === dialog) dialog.close(); }); // a click on the backdrop targets the dialog itself
    ready.push((part) => $$("dialog[data-open]", part).forEach((dialog) => { dialog.removeAttribute("data-open"); open(dialog); }));
  };

  // -- copying, keys, times ---------------------------------------------------------------------------------------

  const write = async (text) => {
    if (navigator.clipboard?.writeText) return navigator.clipboard.writeText(text);
    const area = Object.assign(document.createElement("textarea"), { value: text, className: "pf-v6-screen-reader" }); // for plain http, which has no clipboard API
    (document.querySelector("dialog[open]") ?? document.body).append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (!done) throw new Error("copying refused");
  };

  const copying = () => on("click", "[data-copy], [data-copy-from]", async (e, button) => {
    const source = button.dataset.copyFrom && document.getElementById(button.dataset.copyFrom);
    try {
      await write(source ? source.value ?? source.textContent : button.dataset.copy);
    } catch {
      toast({ level: "warning", message: "Your browser did not allow copying. Select the text and copy it yourself." });
      return;
    }
    announce("Copied");
    button.closest("[data-unstored]")?.removeAttribute("data-unstored");
    button.classList.add("copied");
    setTimeout(() => button.classList.remove("copied"), 2000);
  });

  const typing = (target) => target instanceof Element && target.closest("input, textarea, select, [contenteditable]");
  const keys = () => {
    let before = "";
    document.addEventListener("keydown", (e) => {
      if (e.ctrlKey || e.metaKey || e.altKey || typing(e.target) || $("dialog[open]")) return;
      if (e.key === "/") {
        const field = $("#global-search") ?? $("[data-search]");
        if (field) { e.preventDefault(); field.focus(); field.select(); }
      }
      if (e.key === "?") $("#shortcuts")?.showModal?.();
      if (before === "g") $(`a[data-key="g ${CSS.escape(e.key)}"]`)?.click();
      before = e.key;
      setTimeout(() => { before = ""; }, 1000);
    });
  };

  // Arrow keys walk from the masthead's search field through what it found, Escape closes that.
  const searching = () => {
    document.addEventListener("keydown", (e) => {
      const box = e.target instanceof Element ? e.target.closest("[data-search-box]") : null;
      const hits = box ? $$("#search-hits a", box) : [];
      if (!hits.length || !["ArrowDown", "ArrowUp", "Escape"].includes(e.key)) return;
      e.preventDefault();
      const stops = [$("input", box), ...hits];
      const step = e.key === "ArrowDown" ? 1 : -1;
      if (e.key === "Escape") $("#search-hits").replaceChildren();
      stops[e.key === "Escape" ? 0 : (stops.indexOf(document.activeElement) + step + stops.length) % stops.length].focus();
    });
    ready.push((part) => $$("#search-hits [data-count]", part).forEach((words) => announce(words.textContent)));
  };

  const times = () => ready.push((part) => $$("time[datetime]", part).forEach((time) => {
    const moment = new Date(time.dateTime);
    if (Number.isNaN(moment.getTime())) return;
    const local = moment.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "long" });
    const utc = moment.toISOString().replace("T", " ").replace(/\.\d+Z/, " UTC");
    time.title = `${local}\n${utc}`;
  }));

  // A time zone field also offers the browser's own zone.
  const zones = () => ready.push((part) => $$("select[data-zones]", part).forEach((select) => {
    const own = Intl.DateTimeFormat().resolvedOptions().timeZone;
    if (own && ![...select.options].some((option) => option.value === own)) select.add(new Option(`${own} (yours)`, own));
  }));

  // -- forms ------------------------------------------------------------------------------------------------------

  const forms = () => {
    const buttons = (form) => [...form.elements].filter((element) => element.matches("button[type=submit], input[type=submit]"));
    const free = (form) => buttons(form).forEach((button) => { button.removeAttribute("aria-disabled"); button.classList.remove("pf-m-in-progress"); });
    document.addEventListener("submit", (e) => {
      const form = e.target;
      if (form.dataset.sending) { e.preventDefault(); e.stopImmediatePropagation(); return; }
      if (form.method !== "post" || form.target === "_blank") return;
      const wrong = $$("[data-must-equal]", form).find((input) => input.value !== input.dataset.mustEqual);
      if (wrong) {
        e.preventDefault(); e.stopImmediatePropagation();
        wrong.setCustomValidity(`Type ${wrong.dataset.mustEqual} to confirm`); wrong.reportValidity();
        return;
      }
      form.dataset.sending = "yes";
      delete form.dataset.changed;
      // Not `disabled`: the form would not send a disabled button's value.
      buttons(form).forEach((button) => { button.setAttribute("aria-disabled", "true"); button.classList.add("pf-m-in-progress"); });
      if (form.hasAttribute("data-download")) setTimeout(() => { delete form.dataset.sending; free(form); }, 2000);
    }, true);
    const finish = (e) => {
      const form = e.target instanceof Element ? e.target.closest("form[data-sending]") : null;
      if (form) { delete form.dataset.sending; free(form); }
    };
    document.addEventListener("htmx:finally:request", finish);
    addEventListener("pageshow", () => $$("form[data-sending]").forEach((form) => { delete form.dataset.sending; free(form); }));
    on("input", "[data-must-equal]", (e, input) => input.setCustomValidity(""));
    on("click", "[aria-disabled=true]", (e) => e.preventDefault(), true);
    // Ask before leaving a form with changes.
    on("input", "form[data-guard]", (e, form) => { form.dataset.changed = "yes"; });
    // So does a page that shows a secret once, until it was copied, downloaded or said to be stored.
    on("click", "[data-unstored] :is([download], [data-stored])", (e, link) => link.closest("[data-unstored]").removeAttribute("data-unstored"));
    addEventListener("beforeunload", (e) => { if ($("form[data-changed], [data-unstored]")) e.preventDefault(); });
    addEventListener("pageshow", (e) => { if (e.persisted && $("[data-once]")) location.reload(); }); // Back must not show it again
    // Keep empty filters out of the URL, with and without htmx.
    document.addEventListener("htmx:config:request", (e) => {
      const { ctx } = e.detail;
      if (!ctx.sourceElement.closest("form[data-prune]") || !(ctx.request.body instanceof FormData)) return;
      [...ctx.request.body].forEach(([name, value]) => { if (value === "") ctx.request.body.delete(name); });
    });
    document.addEventListener("formdata", (e) => {
      if (e.target.matches("form[data-prune]")) [...e.formData].forEach(([name, value]) => { if (value === "") e.formData.delete(name); });
    });
    // An invalid or missing value is reported in the browser's words when the field loses focus.
    const judge = (input) => {
      const box = input.closest(".pf-v6-c-form-control");
      const group = input.closest(".pf-v6-c-form__group");
      if (!box || !group || !input.isConnected || input.form.dataset.sending || document.getElementById(`${input.id}-error`)) return;
      const id = `${input.id}-browser`;
      document.getElementById(id)?.remove();
      const wrong = !input.validity.valid;
      const others = (input.getAttribute("aria-describedby") ?? "").split(" ").filter((one) => one && one !== id);
      const described = (wrong ? [...others, id] : others).join(" ");
      box.classList.toggle("pf-m-error", wrong);
      if (wrong) input.setAttribute("aria-invalid", "true"); else input.removeAttribute("aria-invalid");
      if (described) input.setAttribute("aria-describedby", described); else input.removeAttribute("aria-describedby");
      if (!wrong) return;
      const note = $("#fault-template").content.firstElementChild.cloneNode(true);
      note.id = id;
      $("[data-fault]", note).textContent = input.validationMessage;
      ($(".pf-v6-c-form__group-control", group) ?? group).append(note);
    };
    // What the browser cannot know, the form's own check on the server says (see `CheckedForm`). It becomes the field's validity.
    const ask = async (input) => {
      const { form } = input;
      judge(input);
      if (!form?.matches("[data-check]:not([enctype])") || !input.matches("textarea, input:not([type=checkbox], [type=radio], [type=password])")) return;
      if (!input.name || !input.validity.valid || input.value === input.defaultValue || form.dataset.sending) return;
      const body = new FormData(form);
      $$("input[type=password]", form).forEach(({ name }) => body.delete(name));
      const asked = input.value;
      const answer = await fetch(form.getAttribute("action"), { method: "POST", body, headers: { "X-Check-Field": input.name }, redirect: "error" }).catch(() => null);
      if (!answer?.ok || input.value !== asked || form.dataset.sending) return;
      input.setCustomValidity((await answer.json()).errors.join(" "));
      judge(input);
    };
    let pressed = false;
    document.addEventListener("pointerdown", () => { pressed = true; }, true);
    for (const event of ["pointerup", "pointercancel"]) document.addEventListener(event, () => { pressed = false; }, true);
    on("focusout", "form[method=post] :is(input, select, textarea):not(dialog *, [data-must-equal])", (e, input) => {
      // A button must not move while the pointer presses it.
      if (pressed) document.addEventListener("pointerup", () => setTimeout(ask, 0, input), { once: true });
      else ask(input);
    });
    on("input", "[aria-invalid]", (e, input) => {
      if (input.form?.hasAttribute("data-check")) input.setCustomValidity("");
      if (input.validity.valid) judge(input);
    });
    ready.push((part) => $("[data-focus]", part)?.focus());
  };

  // What was entered in a form survives an expired session: it waits in this tab until the same person is back from signing in.
  const drafts = () => {
    const KEY = "portico-draft";
    const who = $(".user-name")?.textContent;
    const fields = (form) => [...form.elements].filter(({ name, type }) => name && !["hidden", "password", "file", "submit", "button", "select-multiple"].includes(type));
    on("submit", "form[data-guard]", (e, form) => {
      const values = fields(form).map(({ name, type, value, checked }) => ({ name, value, checked: ["checkbox", "radio"].includes(type) ? checked : null }));
      try { sessionStorage.setItem(KEY, JSON.stringify({ who, action: form.getAttribute("action"), values })); } catch { /* private window */ }
    });
    if (!who) return; // nobody is signed in yet
    let draft = null;
    try { draft = JSON.parse(sessionStorage.getItem(KEY)); sessionStorage.removeItem(KEY); } catch { /* private window */ }
    const form = draft?.who === who && $$("form[data-guard]").find((one) => one.getAttribute("action") === draft.action);
    if (!form || !URL.canParse(document.referrer) || new URL(document.referrer).pathname !== "/sign-in") return;
    for (const field of fields(form)) {
      const kept = draft.values.find(({ name, value, checked }) => name === field.name && (checked === null || value === field.value));
      if (!kept) continue;
      if (kept.checked === null) field.value = kept.value; else field.checked = kept.checked;
      field.dispatchEvent(new Event("input", { bubbles: true }));
    }
    toast({ level: "info", message: "What you entered is back. It is not saved yet." });
  };

  const summaries = () => {
    const said = (group) => {
      const control = $("select, textarea, input", group);
      if (group.matches("fieldset")) return $$("input:checked", group).map((input) => input.labels[0]?.textContent.trim()).join(", ");
      if (!control || (control.dataset.shownWith && !control.form.elements[control.dataset.shownWith]?.value.trim())) return "";
      if (control.matches("select")) return control.selectedOptions[0]?.text ?? "";
      return control.value.trim() && [control.value.trim(), $(".affix", group)?.textContent].filter(Boolean).join(" ");
    };
    const tell = (list) => {
      const row = $("template", list);
      const rows = $$(".pf-v6-c-form__group:not(.pf-m-action)", list.closest("form")).map((group) => [$(".pf-v6-c-form__label-text", group)?.textContent, said(group)]).filter(([label, words]) => label && words).map(([label, words]) => {
        const made = row.content.firstElementChild.cloneNode(true);
        $("dt > *", made).textContent = label;
        $("dd > *", made).textContent = words;
        return made;
      });
      list.replaceChildren(row, ...rows);
    };
    // On input, not on focusout: a button below must not move while the pointer presses it.
    on("input", "form", (e, form) => $$("[data-summary]", form).forEach(tell));
    ready.push((part) => $$("[data-summary]", part).forEach(tell));
  };

  const checkLists = () => {
    const shown = (list) => $$(".choices-list > *, tbody > tr", list).filter((row) => !row.hidden).map((row) => $("input[type=checkbox]", row)).filter((box) => box && !box.disabled);
    on("input", "[data-check-search]", (e, field) => {
      const words = field.value.trim().toLowerCase();
      $$(".choices-list > *", field.closest("[data-check-list]")).forEach((row) => { row.hidden = !row.textContent.toLowerCase().includes(words); });
    });
    on("keydown", "[data-check-search]", (e) => { if (e.key === "Enter") e.preventDefault(); });
    on("click", "[data-check-all]", (e, button) => {
      const boxes = shown(button.closest("[data-check-list]"));
      const all = boxes.some((box) => !box.checked);
      boxes.forEach((box) => { if (box.checked !== all) box.click(); });
    });
  };

  // Which columns of a list are shown, as this browser remembers it by the list's name.
  const columnChoice = () => {
    const key = (menu) => `portico-columns-${menu.dataset.columns}`;
    const apply = (menu) => {
      const table = menu.parentElement.querySelector("table");
      const hidden = $$("input", menu).filter((box) => !box.checked).map((box) => Number(box.value));
      $$("tr", table).forEach((row) => [...row.children].forEach((cell, at) => cell.classList.toggle("column-hidden", hidden.includes(at))));
    };
    on("input", "[data-columns] input", (e, box) => {
      const menu = box.closest("[data-columns]");
      const labels = $$("input:not(:checked)", menu).map((one) => one.labels[0].textContent.trim());
      try { localStorage.setItem(key(menu), JSON.stringify(labels)); } catch { /* private window */ }
      apply(menu);
    });
    ready.push((part) => $$("[data-columns]", part).forEach((menu) => {
      let labels = [];
      try { labels = JSON.parse(localStorage.getItem(key(menu))) ?? []; } catch { /* private window */ }
      $$("input", menu).forEach((box) => { box.checked = !labels.includes(box.labels[0].textContent.trim()); });
      if (labels.length) apply(menu);
    }));
  };

  const codeTabs = () => {
    const key = (input) => `portico-${input.dataset.remember}`;
    on("change", "input[data-remember]", (e, input) => {
      try { localStorage.setItem(key(input), input.value); } catch { /* private window */ }
      $$(`input[data-remember="${CSS.escape(input.dataset.remember)}"]`).forEach((other) => { if (other.value === input.value) other.checked = true; });
    });
    ready.push((part) => $$("input[data-remember]", part).forEach((input) => {
      try { if (localStorage.getItem(key(input)) === input.value) input.checked = true; } catch { /* private window */ }
    }));
  };

  // -- refreshing -------------------------------------------------------------------------------------------------

  // <div data-refresh="30" hx-get="…" hx-trigger="portico:refresh"> reloads every 30 s while the page is visible.
  const refreshing = () => {
    const last = new WeakMap();
    const due = (element, now) => {
      if (!last.has(element)) last.set(element, now);
      return now - last.get(element) >= Number(element.dataset.refresh || 30) * 1000;
    };
    const tick = () => {
      if (document.visibilityState !== "visible") return;
      const now = Date.now();
      $$("[data-age]").forEach((words) => {
        const seconds = Math.max(0, Math.round((now - Date.parse(words.dataset.age)) / 1000));
        words.textContent = seconds < 5 ? "Updated just now" : seconds < 120 ? `Updated ${seconds} s ago` : `Updated ${Math.round(seconds / 60)} min ago`;
      });
      $$("[data-refresh]").filter((element) => due(element, now)).forEach((element) => {
        last.set(element, now);
        // Do not replace a part with an open menu or a focused field.
        if ($("details[data-menu][open]", element) || (element.contains(document.activeElement) && typing(document.activeElement))) return;
        element.dispatchEvent(new CustomEvent("portico:refresh"));
      });
    };
    setInterval(tick, 1000);
    document.addEventListener("visibilitychange", tick);
  };

  // -- charts -----------------------------------------------------------------------------------------------------

  const charts = (() => {
    const drawn = new Map();
    const opened = new Set(); // ids of charts whose data table is open
    let library = null;
    const load = (src) => library ??= new Promise((done, fail) => {
      const script = Object.assign(document.createElement("script"), { src, onload: done, onerror: fail });
      document.head.append(script);
    });
    const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const palette = () => Array.from({ length: 8 }, (_, at) => colour(`--chart-${at + 1}`));
    const number = (cell) => (cell.dataset.value === "" ? null : Number(cell.dataset.value ?? cell.textContent.replace(/[^\d.-]/g, "")));

    const read = (table) => {
      const heads = $$("thead th", table).map((head) => head.textContent.trim());
      const rows = $$("tbody tr", table).map((row) => [...row.cells]);
      return {
        labels: rows.map((row) => row[0].textContent.trim()),
        series: heads.slice(1).map((name, at) => ({ name, values: rows.map((row) => number(row[at + 1])), texts: rows.map((row) => row[at + 1].textContent.trim()) })),
      };
    };

    const setUp = (table) => {
      const kind = table.dataset.chart;
      const { labels, series } = read(table);
      const colours = palette();
      const [text, grid, ground, failed] = [colour("--chart-text"), colour("--chart-grid"), colour("--chart-ground"), colour("--chart-failed")];
      const round = kind === "donut";
      const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
      const unit = table.dataset.unit ?? "";
      // Amounts far below one show two significant digits, so that ticks differ.
      const short = (value) => unit + Intl.NumberFormat("en", Math.abs(value) < 0.1 ? { maximumSignificantDigits: 2 } : { notation: "compact", maximumFractionDigits: 2 }).format(value);
      const colourOf = (name, at) => name === "Failed" || name === "Errors" ? failed : colours[at % 8];
      const datasets = series.map((one, at) => ({
        label: one.name, data: one.values, texts: one.texts,
        backgroundColor: round ? labels.map((_, i) => colours[i % 8]) : colourOf(one.name, at),
        borderColor: round ? ground : colourOf(one.name, at),
        borderWidth: round ? 2 : kind === "line" ? 2 : 0,
        pointRadius: labels.length > 40 ? 0 : 2, tension: 0, maxBarThickness: 40, borderRadius: kind === "bar" ? 2 : 0,
      }));
      const axis = (extra) => ({ border: { display: false }, grid: { color: grid }, ticks: { color: text, maxRotation: 0, autoSkipPadding: 12 }, ...extra });
      return {
        type: round ? "doughnut" : kind === "line" ? "line" : "bar",
        data: { labels, datasets },
        options: {
          responsive: true, maintainAspectRatio: false, animation: still ? false : { duration: 250 }, cutout: "65%",
          interaction: round ? { mode: "nearest", intersect: true } : { mode: "index", intersect: false },
          scales: round ? {} : { x: axis({ stacked: kind === "stacked", grid: { display: false } }), y: axis({ stacked: kind === "stacked", beginAtZero: true, ticks: { color: text, maxTicksLimit: 6, callback: short } }) },
          plugins: {
            legend: { display: round || series.length > 1, position: round ? "right" : "bottom", labels: { color: text, boxWidth: 10, boxHeight: 10, usePointStyle: true } },
            tooltip: { callbacks: { label: (item) => ` ${round ? item.label : item.dataset.label}: ${item.dataset.texts[item.dataIndex]}` } },
          },
        },
      };
    };

    const draw = (table) => {
      const figure = table.closest("figure");
      const place = $("[data-chart-canvas]", figure);
      if (!place || !window.Chart) return;
      drawn.get(table)?.destroy();
      const canvas = document.createElement("canvas");
      canvas.setAttribute("aria-hidden", "true");
      place.hidden = false;
      place.replaceChildren(canvas);
      window.Chart.defaults.font.family = getComputedStyle(document.body).fontFamily;
      drawn.set(table, new window.Chart(canvas, setUp(table)));
    };

    const all = (part = document) => {
      for (const [table, chart] of drawn) if (!table.isConnected) { chart.destroy(); drawn.delete(table); }
      const tables = $$("table[data-chart]", part).filter((table) => $$("tbody tr", table).length);
      tables.forEach((table) => {
        const details = table.closest("details");
        // New content has its table open, as without scripts. Close it, unless the person opened it before.
        if (details && !details.dataset.seen) { details.open = opened.has(table.closest("figure").id); details.dataset.seen = "yes"; }
        $("[data-chart-canvas]", table.closest("figure"))?.removeAttribute("hidden");
      });
      if (tables.length) load(tables[0].dataset.library).then(() => tables.filter((table) => table.isConnected).forEach(draw), () => tables.forEach((table) => { table.closest("details").open = true; }));
    };
    const remember = (e, summary) => {
      const { id } = summary.closest("figure");
      if (summary.parentElement.open) opened.delete(id); else opened.add(id); // the state before the click
    };
    return { start: () => { on("click", ".chart-data > summary", remember); ready.push(all); document.addEventListener("portico:theme", () => all()); } };
  })();

  // -- start ------------------------------------------------------------------------------------------------------

  for (const begin of [toasts, theme, sidebar, menus, dialogs, copying, keys, searching, times, zones, forms, drafts, summaries, checkLists, columnChoice, codeTabs, refreshing, charts.start]) begin();
  const arrived = (part) => ready.forEach((act) => act(part));
  arrived(document);
  // The requesting element may be gone after the swap, so look for new parts in the whole document.
  document.addEventListener("htmx:after:swap", () => arrived(document));
})();
