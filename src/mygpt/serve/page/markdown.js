// A small Markdown renderer that builds DOM nodes from text, never from markup. Nothing it makes loads or runs anything:
// images become a note, links their label and address as plain text, HTML stays the text it is.
//
//   render(text, { unsupported: [[start, end], ...], chips: [{ at, node }, ...] }) -> DocumentFragment
//
// Offsets are UTF-16 positions in `text`. A chip is placed behind the character before `at`; `chips` are in the order of `at`.

const FENCE = /^ {0,3}(`{3,}|~{3,})/;
const HEADING = /^ {0,3}(#{1,6})[ \t]+/;
const ITEM = /^( *)([-*+]|\d{1,9}[.)])[ \t]+/;
const QUOTE = /^ {0,3}> ?/;
const TABLE_RULE = /^ *\|?[ :|-]*-[ :|-]*\|[ :|-]*$/;
const INLINE = new RegExp(
  [
    /(?<ticks>`+)(?<code>[^`](?:.*?[^`])?)\k<ticks>(?!`)/,
    /!\[(?<alt>[^\]]*)\]\([^)]*\)/,
    /\[(?<label>[^\]]+)\]\((?<address>[^)\s]+)[^)]*\)/,
    /(?<strong>\*\*(?=\S)(?:.+?)(?<=\S)\*\*)/,
    /(?<em>\*(?=[^\s*])[^*]*?(?<=[^\s*])\*|(?<!\w)_(?=[^\s_])[^_]*?(?<=[^\s_])_(?!\w))/,
    /\\(?<escaped>[\\`*_{}[\]()#+.!>|-])/,
  ].map((part) => part.source).join("|"),
);

export function render(text, { unsupported = [], chips = [] } = {}) {
  const root = document.createDocumentFragment();
  new Renderer(text, unsupported, [...chips]).blocks(linesOf(text), root);
  return root;
}

function linesOf(text) {
  const lines = [];
  let start = 0;
  for (const line of text.split("\n")) {
    lines.push({ start, end: start + line.replace(/\r$/, "").length });
    start += line.length + 1;
  }
  return lines;
}

class Renderer {
  constructor(text, unsupported, chips) {
    this.text = text;
    this.unsupported = unsupported;
    this.chips = chips;
  }

  source(line) {
    return this.text.slice(line.start, line.end);
  }

  blocks(lines, parent) {
    let i = 0;
    while (i < lines.length) {
      const line = this.source(lines[i]);
      if (!line.trim()) i += 1;
      else if (FENCE.test(line)) i = this.fence(lines, i, parent);
      else if (HEADING.test(line)) i = this.heading(lines, i, parent);
      else if (ITEM.test(line)) i = this.list(lines, i, parent);
      else if (QUOTE.test(line)) i = this.quote(lines, i, parent);
      else if (this.startsTable(lines, i)) i = this.table(lines, i, parent);
      else i = this.paragraph(lines, i, parent);
    }
    if (lines.length) this.placeChips(parent.lastElementChild ?? parent, lines[lines.length - 1].end);
  }

  fence(lines, i, parent) {
    const mark = FENCE.exec(this.source(lines[i]))[1];
    let last = i + 1;
    while (last < lines.length && !this.source(lines[last]).trim().startsWith(mark)) last += 1;
    const code = element("code", lines.slice(i + 1, last).map((line) => this.source(line)).join("\n"));
    parent.append(element("pre", code));
    if (last > i + 1) this.placeChips(parent.lastElementChild, lines[last - 1].end);
    return last + 1;
  }

  heading(lines, i, parent) {
    const [prefix, marks] = HEADING.exec(this.source(lines[i]));
    const heading = element("p");
    heading.className = "heading";
    heading.setAttribute("role", "heading");
    heading.setAttribute("aria-level", String(Math.min(6, marks.length + 2)));
    this.inline(lines[i].start + prefix.length, lines[i].end, heading);
    parent.append(heading);
    return i + 1;
  }

  list(lines, i, parent) {
    const [, , marker] = ITEM.exec(this.source(lines[i]));
    const ordered = /\d/.test(marker);
    const list = element(ordered ? "ol" : "ul");
    if (ordered) list.start = parseInt(marker, 10);
    const indent = this.indentOf(lines[i]);
    parent.append(list);
    while (i < lines.length) {
      const found = ITEM.exec(this.source(lines[i]));
      if (!found || found[1].length !== indent || /\d/.test(found[2]) !== ordered) break;
      const own = [{ start: lines[i].start + found[0].length, end: lines[i].end }];
      i += 1;
      while (i < lines.length && this.belongsToItem(lines, i, indent)) {
        const inner = Math.min(this.indentOf(lines[i]), found[0].length);
        own.push({ start: lines[i].start + inner, end: lines[i].end });
        i += 1;
      }
      const item = element("li");
      list.append(item);
      this.blocks(own, item);
      if (item.firstElementChild?.tagName === "P") item.firstElementChild.replaceWith(...item.firstElementChild.childNodes);
      while (i < lines.length - 1 && !this.source(lines[i]).trim() && this.indentOf(lines[i + 1]) === indent && ITEM.test(this.source(lines[i + 1]))) i += 1;
    }
    return i;
  }

  belongsToItem(lines, i, indent) {
    const line = this.source(lines[i]);
    if (!line.trim()) return i + 1 < lines.length && this.source(lines[i + 1]).trim() !== "" && this.indentOf(lines[i + 1]) > indent;
    return this.indentOf(lines[i]) > indent || (this.source(lines[i - 1]).trim() !== "" && !this.startsBlock(line));
  }

  indentOf(line) {
    return /^ */.exec(this.source(line))[0].length;
  }

  quote(lines, i, parent) {
    const own = [];
    for (; i < lines.length; i += 1) {
      const found = QUOTE.exec(this.source(lines[i]));
      if (!found) break;
      own.push({ start: lines[i].start + found[0].length, end: lines[i].end });
    }
    const quote = element("blockquote");
    parent.append(quote);
    this.blocks(own, quote);
    return i;
  }

  startsTable(lines, i) {
    return i + 1 < lines.length && this.source(lines[i]).includes("|") && TABLE_RULE.test(this.source(lines[i + 1]));
  }

  table(lines, i, parent) {
    const table = element("table");
    this.row(lines[i], "th", table);
    for (i += 2; i < lines.length && this.source(lines[i]).includes("|"); i += 1) this.row(lines[i], "td", table);
    const scroll = element("div", table);
    scroll.className = "scroll";
    parent.append(scroll);
    return i;
  }

  row(line, tag, table) {
    const row = element("tr");
    table.append(row);
    let start = line.start;
    for (const cell of this.source(line).split("|")) {
      const end = start + cell.length;
      const outside = (start === line.start || end === line.end) && !cell.trim();
      if (!outside) {
        const box = element(tag);
        row.append(box);
        const lead = cell.length - cell.trimStart().length;
        this.inline(Math.min(start + lead, end), Math.max(start + lead, start + cell.trimEnd().length), box);
      }
      start = end + 1;
    }
  }

  paragraph(lines, i, parent) {
    const paragraph = element("p");
    parent.append(paragraph);
    for (let first = true; i < lines.length; i += 1, first = false) {
      const line = this.source(lines[i]);
      if (!line.trim() || (!first && (this.startsBlock(line) || this.startsTable(lines, i)))) break;
      if (!first) paragraph.append(element("br"));
      const lead = line.length - line.trimStart().length;
      this.inline(lines[i].start + lead, lines[i].start + line.trimEnd().length, paragraph);
    }
    return i;
  }

  startsBlock(line) {
    return FENCE.test(line) || HEADING.test(line) || ITEM.test(line) || QUOTE.test(line);
  }

  inline(start, end, parent) {
    while (start < end) {
      const found = INLINE.exec(this.text.slice(start, end));
      if (!found) return this.run(start, end, parent);
      const at = start + found.index;
      const after = at + found[0].length;
      this.run(start, at, parent);
      this.span(found.groups, found[0], at, after, parent);
      this.placeChips(parent, after);
      start = after;
    }
  }

  span(groups, whole, at, after, parent) {
    if (groups.code !== undefined) {
      const inside = at + groups.ticks.length;
      const code = element("code");
      parent.append(code);
      this.run(inside, inside + groups.code.length, code, false);
    } else if (groups.alt !== undefined) {
      parent.append(aside(`[image${groups.alt ? `: ${groups.alt}` : ""}]`));
    } else if (groups.label !== undefined) {
      this.inline(at + 1, at + 1 + groups.label.length, parent);
      if (groups.address !== groups.label) parent.append(" ", aside(`(${groups.address})`));
    } else if (groups.strong !== undefined) {
      this.nested("strong", at + 2, after - 2, parent);
    } else if (groups.em !== undefined) {
      this.nested("em", at + 1, after - 1, parent);
    } else {
      this.run(at + whole.length - groups.escaped.length, after, parent);
    }
  }

  nested(tag, start, end, parent) {
    const inner = element(tag);
    parent.append(inner);
    this.inline(start, end, inner);
  }

  // Characters start..end as they are, cut where a chip stands and where support begins or ends.
  run(start, end, parent, withChips = true) {
    while (start < end) {
      let stop = end;
      for (const chip of withChips ? this.chips : []) if (chip.at > start && chip.at < stop) stop = chip.at;
      for (const edge of this.unsupported.flat()) if (edge > start && edge < stop) stop = edge;
      const piece = this.text.slice(start, stop);
      if (this.unsupported.some(([from, to]) => start >= from && start < to)) {
        const doubtful = element("span", piece);
        doubtful.className = "unsupported";
        doubtful.title = "Not found in your documents";
        parent.append(doubtful);
      } else {
        parent.append(piece);
      }
      start = stop;
      if (withChips) this.placeChips(parent, start);
    }
  }

  placeChips(parent, upTo) {
    while (this.chips.length && this.chips[0].at <= upTo) parent.append(this.chips.shift().node);
  }
}

function element(tag, ...children) {
  const made = document.createElement(tag);
  made.append(...children);
  return made;
}

function aside(text) {
  const made = element("span", text);
  made.className = "aside";
  return made;
}
