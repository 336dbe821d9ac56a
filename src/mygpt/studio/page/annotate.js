// The page: asks who rates, shows one item at a time, saves each rating at once. What comes from the server is shown as text only.

const at = (id) => document.getElementById(id);
const ORDINALS = ["1st", "2nd", "3rd", "4th", "5th", "6th", "7th", "8th", "9th"];

let task = null; // what the server sent last
let places = []; // of each answer as shown; 0: none yet
let tieNext = false; // "=" was pressed
let busy = false;
let seconds = 0; // in sight so far
let inSightSince = null;

async function ask(path, body) {
  const post = body === undefined ? {} : { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  const response = await fetch(path, { ...post, redirect: "error", cache: "no-store" }).catch(() => {
    throw new Error("The server does not answer. See whether it is still running in its terminal, then try again.");
  });
  const told = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(told.error?.message ?? `The server answered with status ${response.status}.`);
  return told;
}

// One thing at a time; what goes wrong is said, and nothing is lost.
async function during(work) {
  if (busy) return;
  busy = true;
  showState();
  at("trouble").hidden = true;
  try {
    await work();
  } catch (error) {
    at("trouble").textContent = error.message;
    at("trouble").hidden = false;
    at("trouble").scrollIntoView({ block: "nearest" });
  }
  busy = false;
  showState();
}

function make(tag, name, text) {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text !== undefined) node.textContent = text;
  return node;
}

function show(told) {
  task = told;
  for (const id of ["welcome", "task", "thanks", "dock"]) at(id).hidden = true;
  at("rater").textContent = `· ${told.rater}`;
  at("progress").hidden = false;
  at("progress-text").textContent = `${told.done} of ${told.total} rated`;
  at("progress-bar").max = told.total;
  at("progress-bar").value = told.done;
  if (told.item === null) return showThanks();
  at("task").hidden = at("dock").hidden = false;
  at("prompt").textContent = told.item.prompt;
  const only = told.rating?.choice === "best";
  places = told.item.answers.map((_, k) => (told.rating?.ranks[k] === 1 || !only ? (told.rating?.ranks[k] ?? 0) : 0));
  tieNext = false;
  at("answers").replaceChildren(...told.item.answers.map(candidate));
  at("scroller").scrollTop = 0;
  at("answers").focus({ preventScroll: true });
  seconds = 0;
  inSightSince = document.hidden ? null : performance.now();
}

function candidate(text, k) {
  const card = make("section", "candidate");
  const header = make("header");
  header.append(make("span", "number", String(k + 1)), make("h3", "", `Answer ${k + 1}`));
  const body = text.trim() ? make("div", "body", text) : make("div", "body empty", "(nothing)");
  const choices = make("fieldset", "places");
  choices.append(make("legend", "", "Place"));
  task.item.answers.forEach((_, place) => {
    const label = make("label", "", ORDINALS[place]);
    const radio = make("input");
    radio.type = "radio";
    radio.name = `place-${k}`;
    radio.value = String(place + 1);
    radio.setAttribute("aria-label", `Answer ${k + 1}: ${ORDINALS[place]}`);
    radio.addEventListener("change", () => put(k, place + 1));
    label.append(radio);
    choices.append(label);
  });
  card.append(header, body, choices);
  return card;
}

function put(k, place) {
  places[k] = place;
  tieNext = false;
  showState();
}

// The keyboard: the answer goes behind those that have a place, or beside the last of them.
function putNext(k) {
  const last = Math.max(0, ...places);
  put(k, places[k] ? 0 : tieNext && last ? last : last + 1);
}

// What would be saved: {choice, ranks}, or null while it is neither a ranking nor a best answer.
function judgement() {
  const placed = places.filter((place) => place > 0);
  if (placed.length === places.length) {
    const used = [...new Set(places)].sort((a, b) => a - b);
    return { choice: "ranking", ranks: places.map((place) => used.indexOf(place) + 1) }; // 1, 1, 3 is kept as 1, 1, 2
  }
  if (placed.length === 1 && placed[0] === 1) return { choice: "best", ranks: places.map((place) => (place ? 1 : 2)) };
  return null;
}

function inWords() {
  if (tieNext) return "The next answer ties with the last one";
  const judged = judgement();
  if (judged === null) return places.some(Boolean) ? "Place every answer, or only the best" : "";
  if (judged.choice === "best") return `Answer ${places.indexOf(1) + 1} is the best`;
  const groups = [];
  judged.ranks.forEach((rank, k) => (groups[rank - 1] ??= []).push(k + 1));
  return `Best first: ${groups.map((group) => group.join(" = ")).join(" > ")}`;
}

function showState() {
  if (!task?.item) return;
  [...at("answers").children].forEach((card, k) => {
    card.classList.toggle("placed", places[k] > 0);
    card.classList.toggle("first", places[k] === 1);
    for (const radio of card.querySelectorAll("input")) radio.checked = Number(radio.value) === places[k];
  });
  at("save").disabled = busy || judgement() === null;
  at("cannot").disabled = busy;
  at("cannot").setAttribute("aria-pressed", String(task.rating?.choice === "cannot judge" && !places.some(Boolean)));
  at("back").disabled = busy || earlier() < 0;
  at("said").textContent = inWords();
}

function earlier() {
  return (task.number ?? task.total) - 1;
}

function save(judged) {
  if (!judged) return;
  if (inSightSince !== null) seconds += (performance.now() - inSightSince) / 1000;
  inSightSince = performance.now();
  const body = { rater: task.rater, item_id: task.item.id, shown: task.item.shown, seconds: Math.min(Math.round(seconds * 10) / 10, 86400), ...judged };
  during(async () => show(await ask("/api/ratings", body)));
}

function go(number) {
  const which = number === undefined ? "" : `&number=${number}`;
  during(async () => show(await ask(`/api/task?rater=${encodeURIComponent(task.rater)}${which}`)));
}

function showThanks() {
  at("thanks").hidden = false;
  at("thanks-text").textContent = `${task.total} rated by ${task.rater}. Others can go on under their own names; publishing again takes in what came since.`;
  at("published").textContent = "";
  at("thanks").querySelector("h2").focus();
}

at("name-form").addEventListener("submit", (event) => {
  event.preventDefault();
  during(async () => show(await ask(`/api/task?rater=${encodeURIComponent(at("name").value)}`)));
});
at("save").addEventListener("click", () => save(judgement()));
at("cannot").addEventListener("click", () => save({ choice: "cannot judge", ranks: [] }));
at("back").addEventListener("click", () => go(earlier()));
at("again").addEventListener("click", () => go(earlier()));
at("finish").addEventListener("click", () =>
  during(async () => {
    const { artifact, facts } = await ask("/api/finish", {});
    at("published").textContent = `Published ${artifact}: ${facts.ratings} ratings of ${facts.items} items by ${facts.raters} people.`;
  }),
);

document.addEventListener("keydown", (event) => {
  if (!task?.item || busy || event.repeat || event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const onButton = event.target.closest?.("button");
  const number = Number(event.key);
  if (event.key === "0") save({ choice: "cannot judge", ranks: [] });
  else if (/^[1-9]$/.test(event.key) && number <= places.length) putNext(number - 1);
  else if (event.key === "=" && places.some(Boolean)) tieNext = !tieNext;
  else if (event.key === "Escape") (places = places.map(() => 0)), (tieNext = false);
  else if (event.key === "Enter" && !onButton) save(judgement());
  else return;
  event.preventDefault();
  showState();
});

document.addEventListener("visibilitychange", () => {
  if (document.hidden && inSightSince !== null) {
    seconds += (performance.now() - inSightSince) / 1000;
    inSightSince = null;
  } else if (!document.hidden && task?.item) {
    inSightSince = performance.now();
  }
});

at("welcome").hidden = false;
at("name").focus();
