// The page: asks, shows the answer as it comes, stops, keeps the conversation in this tab's memory.

import { AnswerView, make } from "/static/answer.js";
import { ServerError, getJson, streamAnswer, useKey } from "/static/client.js";
import { closePanel, isOpen, openSource } from "/static/source_panel.js";

const at = (id) => document.getElementById(id);
const scroller = at("scroller");
const thread = at("thread");
const question = at("question");

let messages = []; // what the model is told: only what was answered
let underWay = null; // the AbortController of the answer that is coming
let models = [];

async function start() {
  try {
    const page = await getJson("/api/page");
    document.title = page.title;
    at("title").textContent = page.title;
    at("welcome-title").textContent = page.title;
    for (const place of document.querySelectorAll(".where-it-runs")) place.textContent = `Runs on ${machine()}; nothing leaves it`;
    models = page.models;
    showModels();
    at("suggestions").replaceChildren(...page.suggestions.map(suggestion));
    showWelcome();
  } catch (error) {
    if (error instanceof ServerError && error.status === 401) return at("key-dialog").showModal();
    const view = new AnswerView({ question: "", model: "", openSource });
    thread.append(view.root);
    view.fail(error, [["Try again", () => location.reload()]]);
  }
}

function machine() {
  return ["127.0.0.1", "localhost", "[::1]"].includes(location.hostname) ? "this machine" : location.hostname;
}

function showModels() {
  const single = models.length === 1;
  at("model-name").textContent = single ? models[0] : "";
  at("model").hidden = single;
  at("model").replaceChildren(...models.map((name) => make("option", "", name)));
}

function suggestion(text) {
  const item = make("li");
  const button = make("button", "", text);
  button.type = "button";
  button.addEventListener("click", () => ask(text));
  item.append(button);
  return item;
}

function showWelcome() {
  at("welcome").hidden = thread.childElementCount > 0;
  if (matchMedia("(hover: hover)").matches) question.focus(); // on a phone this would open the keyboard
}

async function ask(text) {
  if (underWay) return;
  const model = models.length === 1 ? models[0] : at("model").value;
  const view = new AnswerView({ question: text, model, openSource });
  const asked = make("div", "asked", text);
  at("welcome").hidden = true;
  thread.append(asked, view.root);
  scroller.scrollTop = scroller.scrollHeight;
  const mine = (underWay = new AbortController());
  showState();
  announce("Answering");
  const history = [...messages, { role: "user", content: text }];
  const again = () => {
    asked.remove();
    view.root.remove();
    ask(text);
  };
  try {
    await receive(view, { model, messages: history }, mine.signal);
    remember(history, view);
    announce(view.content);
  } catch (error) {
    if (error.name === "AbortError") {
      view.stopped();
      remember(history, view);
      announce("Stopped");
    } else {
      view.fail(error, error.code === "context_length_exceeded" ? [["New chat", newChat]] : [["Try again", again]]);
    }
  }
  if (underWay === mine) underWay = null;
  showState();
  follow();
}

async function receive(view, body, signal) {
  let last = null;
  for await (const chunk of streamAnswer(body, signal)) {
    const following = isAtEnd();
    const choice = chunk.choices[0];
    if (choice?.delta.content) view.add(choice.delta.content);
    if (chunk.mygpt) last = [chunk.mygpt, choice.finish_reason];
    if (following) requestAnimationFrame(follow);
  }
  if (last === null) throw new ServerError("The answer broke off. Try again.");
  const following = isAtEnd();
  view.finish(...last);
  if (following) follow();
}

// A conversation that was left for a new one does not come back.
function remember(history, view) {
  if (view.root.isConnected && view.content.trim()) messages = [...history, { role: "assistant", content: view.content }];
}

function newChat() {
  underWay?.abort();
  underWay = null;
  messages = [];
  thread.replaceChildren();
  if (isOpen()) closePanel();
  showState();
  showWelcome();
  question.focus();
}

function showState() {
  at("send").hidden = underWay !== null;
  at("stop").hidden = underWay === null;
  at("send").disabled = !question.value.trim();
}

function isAtEnd() {
  return scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 80;
}

function follow() {
  scroller.scrollTop = scroller.scrollHeight;
}

function announce(text) {
  at("announcer").textContent = text;
}

function fitQuestion() {
  question.style.height = "auto";
  question.style.height = `${question.scrollHeight}px`;
  showState();
}

function submit() {
  const text = question.value.trim();
  if (!text || underWay || !models.length) return;
  question.value = "";
  fitQuestion();
  ask(text);
}

at("composer").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
at("composer").addEventListener("click", (event) => {
  if (event.target === at("composer")) question.focus();
});
question.addEventListener("input", fitQuestion);
question.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  submit();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || event.isComposing) return;
  if (underWay) underWay.abort();
  else if (isOpen()) closePanel();
});
at("stop").addEventListener("click", () => {
  underWay?.abort();
  question.focus();
});
at("new-chat").addEventListener("click", newChat);
at("to-latest").addEventListener("click", follow);
scroller.addEventListener("scroll", () => {
  at("to-latest").hidden = isAtEnd();
});
at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(at("key").value);
  at("key-dialog").close();
  start();
});

showState();
start();
