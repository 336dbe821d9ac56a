// One answer on the page: its text with chips, what was not found, its sources, and the buttons below it.

import { postJson } from "/static/client.js";
import { render } from "/static/markdown.js";

const SHAPES = {
  copy: ["M6 6h6.5v7.5H6z", "M10 6V3H3.5v7.5H6"],
  done: ["M3.5 8.5l3 3 6-7"],
  up: ["M5 7.2v5.8M5 7.2l2.4-4.5c1.1 0 1.8.8 1.6 1.9L8.7 6.5h3.1c.8 0 1.4.8 1.2 1.6l-.9 3.9c-.1.6-.6 1-1.2 1H5H3.2c-.4 0-.7-.3-.7-.7V7.9c0-.4.3-.7.7-.7z"],
  down: ["M11 8.8V3M11 8.8l-2.4 4.5c-1.1 0-1.8-.8-1.6-1.9l.3-1.9H4.2c-.8 0-1.4-.8-1.2-1.6l.9-3.9c.1-.6.6-1 1.2-1H11h1.8c.4 0 .7.3.7.7v4.4c0 .4-.3.7-.7.7z"],
  absent: ["M7 12.5a5.5 5.5 0 1 1 0-11 5.5 5.5 0 0 1 0 11z", "M11.2 11.2L14.5 14.5", "M5 7h4"],
};

export class AnswerView {
  constructor({ question, model, openSource }) {
    this.question = question;
    this.model = model;
    this.openSource = openSource;
    this.content = "";
    this.citations = [];
    this.root = make("article", "answer streaming");
    this.root.setAttribute("aria-label", "Answer");
    this.root.setAttribute("aria-busy", "true");
    this.body = make("div", "text");
    this.root.append(waiting());
    this.started = performance.now();
  }

  add(piece) {
    this.content += piece;
    if (this.drawing) return;
    this.drawing = requestAnimationFrame(() => this.draw());
  }

  draw(marks) {
    cancelAnimationFrame(this.drawing);
    this.drawing = null;
    if (!this.content.trim()) return;
    this.body.replaceChildren(render(this.content, marks));
    if (!this.body.isConnected) this.root.replaceChildren(this.body);
  }

  finish(extra, finishReason) {
    if (extra.text !== undefined) this.content = extra.text;
    this.citations = extra.citations;
    const position = utf16(this.content);
    const sources = numbered(this.citations);
    const chips = chipsOf(this.citations, sources, position, this.openSource);
    this.draw({ unsupported: extra.unsupported.map(([from, to]) => [position(from), position(to)]), chips });
    if (extra.abstained) this.showAbsent();
    this.showSources(sources);
    if (extra.unsupported.length) {
      const legend = make("p", "legend");
      legend.append(make("span", "unsupported", "Dotted underline"), ": not found in your documents.");
      this.root.append(legend);
    }
    this.close([finishReason === "length" ? "Cut at the length limit" : null, `${((performance.now() - this.started) / 1000).toFixed(1)} s`]);
  }

  stopped() {
    this.draw();
    this.close(["Stopped"]);
  }

  fail(error, actions) {
    this.draw();
    const trouble = make("div", "trouble");
    trouble.setAttribute("role", "alert");
    trouble.append(make("p", "label", "That did not work"), make("p", "", error.message));
    for (const [label, act] of actions) {
      const button = make("button", "quiet", label);
      button.type = "button";
      button.addEventListener("click", act);
      trouble.append(button);
    }
    this.settle();
    if (!this.content.trim()) this.root.replaceChildren();
    this.root.append(trouble);
  }

  settle() {
    this.root.classList.remove("streaming");
    this.root.setAttribute("aria-busy", "false");
  }

  close(notes) {
    this.settle();
    if (!this.content.trim()) this.root.replaceChildren();
    this.root.append(this.tools(notes.filter(Boolean)));
  }

  showAbsent() {
    const card = make("div", "absent");
    card.append(icon("absent", 20), make("p", "label", "Not in your documents"), this.body);
    this.root.replaceChildren(card);
  }

  showSources(sources) {
    if (!sources.size) return;
    const list = make("ul", "sources");
    list.setAttribute("aria-label", "Sources");
    for (const { number, citation } of sources.values()) {
      const button = make("button", "source");
      button.type = "button";
      button.setAttribute("aria-expanded", "false");
      const what = make("span", "what", citation.title || citation.path);
      if (citation.place) what.append(make("span", "", `, ${citation.place}`));
      button.append(make("span", "number", String(number)), what);
      button.addEventListener("click", () => this.openSource(citation, number, button));
      const item = make("li");
      item.append(button);
      list.append(item);
    }
    this.root.append(list);
  }

  tools(notes) {
    const row = make("div", "tools");
    const said = make("span", "said");
    said.setAttribute("role", "status");
    if (navigator.clipboard && this.content) row.append(copyButton(() => this.content));
    if (this.content) row.append(...this.thumbs(said));
    row.append(...notes.map((note) => make("span", "said", note)));
    row.append(said);
    said.hidden = true;
    return row;
  }

  thumbs(said) {
    const buttons = [
      [1, "up", "Good answer"],
      [-1, "down", "Bad answer"],
    ].map(([rating, shape, label]) => {
      const button = toolButton(shape, label);
      button.setAttribute("aria-pressed", "false");
      button.addEventListener("click", async () => {
        for (const other of buttons) other.disabled = true;
        try {
          await postJson("/v1/feedback", { rating, question: this.question, answer: this.content, citations: this.citations, model: this.model });
          for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
          said.textContent = "Thanks, noted on this machine";
        } catch (error) {
          said.textContent = error.message;
        }
        said.hidden = false;
        for (const other of buttons) other.disabled = other.getAttribute("aria-pressed") === "true";
      });
      return button;
    });
    return buttons;
  }
}

function waiting() {
  const line = make("p", "waiting");
  const dots = make("span", "dots");
  dots.append(make("i"), make("i"), make("i"));
  line.append(dots, "Reading your documents");
  return line;
}

// One number per place in a document, in the order of the answer.
function numbered(citations) {
  const sources = new Map();
  for (const citation of [...citations].sort((a, b) => a.end - b.end)) {
    const place = placeOf(citation);
    if (!sources.has(place)) sources.set(place, { number: sources.size + 1, citation });
  }
  return sources;
}

function chipsOf(citations, sources, position, openSource) {
  const seen = new Set();
  const chips = [];
  for (const citation of [...citations].sort((a, b) => a.end - b.end)) {
    const { number } = sources.get(placeOf(citation));
    if (seen.has(`${citation.end}/${number}`)) continue;
    seen.add(`${citation.end}/${number}`);
    const node = make("button", "chip", String(number));
    node.type = "button";
    node.setAttribute("aria-expanded", "false");
    node.setAttribute("aria-label", `Source ${number}: ${[citation.title || citation.path, citation.place].filter(Boolean).join(", ")}`);
    node.addEventListener("click", () => openSource(citation, number, node));
    chips.push({ at: position(citation.end), node });
  }
  return chips;
}

function placeOf(citation) {
  return `${citation.document_id}/${citation.place}`;
}

// The server counts characters; JavaScript counts UTF-16 units.
function utf16(text) {
  const positions = [0];
  for (const character of text) positions.push(positions[positions.length - 1] + character.length);
  return (offset) => positions[Math.max(0, Math.min(offset, positions.length - 1))];
}

function copyButton(content) {
  const button = toolButton("copy", "Copy the answer");
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(content());
    button.replaceChildren(icon("done"));
    button.setAttribute("aria-label", "Copied");
    setTimeout(() => {
      button.replaceChildren(icon("copy"));
      button.setAttribute("aria-label", "Copy the answer");
    }, 1600);
  });
  return button;
}

function toolButton(shape, label) {
  const button = make("button", "tool");
  button.type = "button";
  button.title = label;
  button.setAttribute("aria-label", label);
  button.append(icon(shape));
  return button;
}

function icon(shape, size = 16) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [name, value] of Object.entries({ viewBox: "0 0 16 16", width: size, height: size, "aria-hidden": "true" })) svg.setAttribute(name, value);
  for (const outline of SHAPES[shape]) {
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    const look = { d: outline, fill: "none", stroke: "currentColor", "stroke-width": 1.3, "stroke-linecap": "round", "stroke-linejoin": "round" };
    for (const [name, value] of Object.entries(look)) path.setAttribute(name, value);
    svg.append(path);
  }
  return svg;
}

export function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}
