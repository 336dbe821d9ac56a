"""Pages from templates of this folder: one file each, no script, no request to anywhere; what comes from data is escaped."""

from importlib import resources
from typing import Any

from jinja2 import BaseLoader, Environment, StrictUndefined, TemplateNotFound
from markupsafe import Markup

from mygpt.views import numbers


class _OwnTemplates(BaseLoader):
    def get_source(self, environment: Environment, template: str) -> tuple[str, str | None, Any]:
        file = resources.files("mygpt.views") / template
        if not file.is_file():
            raise TemplateNotFound(template)
        return file.read_text(encoding="utf-8"), None, None


def html(template: str, *, styles: tuple[str, ...], **values: Any) -> str:
    """`template` filled in, with the style sheets written into it."""
    folder = resources.files("mygpt.views")
    environment = _environment(autoescape=True)
    css = Markup("\n".join((folder / style).read_text(encoding="utf-8") for style in styles))
    return environment.get_template(template).render(css=css, **values)


def markdown(template: str, **values: Any) -> str:
    """`template` filled in. Markdown has no one way to escape: its templates do so cell by cell, with `cell` and `quote`."""
    environment = _environment(autoescape=False)
    environment.filters.update(cell=cell, quote=quote)
    return environment.get_template(template).render(**values)


def cell(text: Any) -> str:
    """On one line, with nothing in it that ends a table's cell or begins markup."""
    line = " ".join(str(text).split())
    for sign in "\\`|<>[]*_":
        line = line.replace(sign, f"\\{sign}")
    return line


def quote(text: Any) -> str:
    """As a quotation, line by line, its markup taken literally."""
    return "\n".join(f"> {cell(line)}" for line in str(text).splitlines()) or "> (empty)"


def _environment(*, autoescape: bool) -> Environment:
    environment = Environment(
        loader=_OwnTemplates(),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        signed=numbers.signed, decimal=numbers.decimal, percent=numbers.percent, grouped=numbers.grouped, duration=numbers.duration
    )
    return environment
