// The passage behind a citation, shown as plain text with the cited stretch marked.

import { make } from "/static/answer.js";
import { getJson } from "/static/client.js";

const panel = document.getElementById("panel");
const shade = document.getElementById("shade");
const title = document.getElementById("panel-title");
const where = document.getElementById("panel-where");
const body = document.getElementById("panel-body");
let opener = null;
let latest = 0;

export function isOpen() {
  return !panel.hidden;
}

export async function openSource(citation, number, button) {
  const mine = (latest += 1);
  opener?.setAttribute("aria-expanded", "false");
  opener = button;
  button.setAttribute("aria-expanded", "true");
  document.getElementById("panel-number").textContent = String(number);
  describe(citation.title || citation.path, citation.path, citation.place);
  body.replaceChildren();
  panel.hidden = shade.hidden = false;
  title.focus({ preventScroll: true });
  const asked = new URLSearchParams({ document_id: citation.document_id, start: citation.source_start, end: citation.source_end });
  try {
    const view = await getJson(`/api/source?${asked}`);
    if (mine !== latest) return;
    describe(view.title || view.path, view.path, view.place);
    const cited = make("mark", "", view.cited);
    body.replaceChildren(view.before, cited, view.after);
    body.scrollTop = Math.max(0, cited.offsetTop - body.offsetTop - body.clientHeight / 4);
  } catch (error) {
    if (mine !== latest) return;
    body.replaceChildren(make("p", "trouble", error.message));
  }
}

export function closePanel() {
  latest += 1;
  panel.hidden = shade.hidden = true;
  opener?.setAttribute("aria-expanded", "false");
  if (opener?.isConnected) opener.focus();
  opener = null;
}

function describe(name, path, place) {
  title.textContent = name;
  where.replaceChildren(make("span", "", path));
  if (place) where.append(make("span", "place", place));
}

document.getElementById("panel-close").addEventListener("click", closePanel);
shade.addEventListener("click", closePanel);
