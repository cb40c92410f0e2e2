// The playground's chat: sends the form's conversation, and shows the answer as it comes. Without this script the same
// form is answered with the whole page. Each piece of an answer is added once, so a long one costs no more than its length.
"use strict";

(() => {
  const form = document.getElementById("playground");
  if (!form) return;
  const $ = (selector, within = form) => within.querySelector(selector);
  const [turns, place, message, send, stop] = ["#turns", "#trouble-place", "#message", "#send", "#stop"].map((one) => $(one));
  const CHUNK = 2000; // characters of plain text in one element: what is full is laid out only once
  let running = null;

  const fragment = (html) => document.createRange().createContextualFragment(html);

  let codes = 0;
  const decorate = (part) => {
    for (const code of part.querySelectorAll("pre > code:not([id])")) {
      code.id = `code-${codes += 1}`;
      const button = document.getElementById("copy-code").content.firstElementChild.cloneNode(true);
      button.dataset.copyFrom = code.id;
      code.parentElement.before(button);
      code.parentElement.tabIndex = 0;
    }
  };

  const announce = (words) => {
    const region = document.getElementById("announcer");
    region.textContent = "";
    setTimeout(() => { region.textContent = words; }, 50);
  };

  // Text that grows: at most once a frame, into the last of several elements.
  const growing = (element) => {
    let waiting = "";
    let frame = 0;
    let last = null;
    const flush = () => {
      frame = 0;
      if (!waiting) return;
      if (!last || last.textContent.length > CHUNK && last.textContent.endsWith("\n")) {
        last = document.createElement("div");
        last.append("");
        element.append(last);
      }
      last.firstChild.appendData(waiting);
      waiting = "";
    };
    return {
      add(text) { waiting += text; frame ||= requestAnimationFrame(flush); },
      set(text) { element.replaceChildren(); last = null; waiting = text; flush(); },
    };
  };

  const isAtEnd = () => {
    const box = form.closest("main")?.parentElement ?? document.scrollingElement;
    return [box, document.scrollingElement].some((one) => one.scrollHeight > one.clientHeight && one.scrollHeight - one.scrollTop - one.clientHeight < 400);
  };

  // Keeps the end in view for those who look at it, once a frame.
  let follows = 0;
  const follow = () => {
    follows ||= requestAnimationFrame(() => { follows = 0; if (isAtEnd()) turns.lastElementChild?.scrollIntoView({ block: "end" }); });
  };

  const show = (isRunning) => {
    stop.hidden = !isRunning;
    for (const button of form.querySelectorAll("button[type=submit]")) {
      button.disabled = isRunning;
      button.removeAttribute("aria-disabled");
      button.classList.remove("pf-m-in-progress");
    }
    if (isRunning) stop.focus(); else message.focus();
  };

  const read = async (response, take) => {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let pieces = [];
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      if (!value.includes("\n\n")) { pieces.push(value); continue; }
      const events = [...pieces, value].join("").split("\n\n");
      pieces = [events.pop()];
      for (const event of events) if (event.startsWith("data: ")) take(JSON.parse(event.slice(6)));
    }
  };

  const ask = async (act) => {
    const data = new FormData(form);
    data.set("act", act);
    running = new AbortController();
    place.replaceChildren();
    show(true);
    let live = null;
    const shown = {};
    const takes = {
      begun({ html }) {
        if (act === "again") while (turns.lastElementChild?.matches(".turn-assistant")) turns.lastElementChild.remove();
        for (const result of turns.querySelectorAll(".turn-result")) result.remove();
        turns.append(fragment(html));
        if (act !== "again") { message.value = ""; for (const one of form.querySelectorAll("[name=images]")) one.value = ""; for (const one of form.querySelectorAll(".turn-image-choice, #kept-prompt")) one.remove(); }
        live = document.getElementById("live-turn").content.firstElementChild.cloneNode(true);
        $("[data-model]", live).textContent = form.elements.choice.selectedOptions[0].text;
        turns.append(live);
        shown.blocks = $("[data-blocks]", live);
        shown.tail = growing($("[data-tail]", live));
        shown.thoughts = growing($("[data-thoughts]", live));
        live.scrollIntoView({ block: "nearest" });
      },
      text({ text }) { shown.tail.add(text); },
      reasoning({ text }) { $(".turn-thoughts", live).hidden = false; shown.thoughts.add(text); },
      block({ html, text }) { const part = fragment(html); decorate(part); shown.blocks.append(part); shown.tail.set(text); },
      figures({ html }) { $("[data-figures]", live).replaceChildren(fragment(html)); },
      done({ html }) {
        const part = fragment(html);
        decorate(part);
        live.replaceWith(part);
        live = null;
        announce("The answer is complete.");
      },
    };
    try {
      const response = await fetch(form.dataset.answers, { method: "POST", body: data, signal: running.signal });
      if (!response.headers.get("Content-Type")?.startsWith("text/event-stream")) {
        const html = await response.text();
        if (response.redirected || html.startsWith("<!doctype")) { location.reload(); return; }
        place.replaceChildren(fragment(html));
        document.getElementById("trouble")?.focus();
        return;
      }
      await read(response, (event) => {
        takes[event.kind](event);
        follow();
      });
      if (live) throw new Error("cut");
    } catch (error) {
      if (live) settle(live, error.name === "AbortError" ? "Stopped." : "The connection was lost.");
      else if (error.name !== "AbortError") place.textContent = "The server could not be reached. Try again.";
    } finally {
      running = null;
      show(false);
    }
  };

  // What came of an answer that was stopped stays as a turn of the conversation.
  const settle = (live, words) => {
    const text = $("[data-blocks]", live).textContent + $("[data-tail]", live).textContent;
    const input = Object.assign(document.createElement("input"), { type: "hidden", name: "turn", value: JSON.stringify({ role: "assistant", text: text || "…" }) });
    live.prepend(input);
    live.classList.remove("turn-live");
    live.removeAttribute("aria-busy");
    $("[data-acts]", live).hidden = false;
    $("[data-figures]", live).append(` ${words}`);
    announce(words);
  };

  form.addEventListener("submit", (event) => {
    const act = event.submitter?.value ?? "send";
    if (act !== "send" && act !== "again") return;
    event.preventDefault();
    event.stopImmediatePropagation();
    delete form.dataset.sending; // which the page's own listener has noted
    if (!running) ask(act);
  }, true);
  const halt = () => running?.abort();
  stop.addEventListener("click", halt);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && running) halt();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target === message && !running) ask("send");
  });
  // A pasted image is chosen like one of a file.
  message.addEventListener("paste", (event) => {
    const files = $("#images");
    const pasted = [...event.clipboardData.files].filter((file) => file.type.startsWith("image/"));
    if (!files || !pasted.length) return;
    event.preventDefault();
    const chosen = new DataTransfer();
    for (const file of [...files.files, ...pasted]) chosen.items.add(file);
    files.files = chosen.files;
    announce(`${chosen.files.length} images chosen`);
  });
  // Before the page's own listener copies it.
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-copy-turn]");
    if (button) button.dataset.copy = JSON.parse($("[name=turn]", button.closest(".turn")).value).text ?? "";
  }, true);
  decorate(turns);
})();
