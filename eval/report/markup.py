"""Text and elements in, HTML out, with everything escaped that is not markup already.

    element("td", "<b>", class_="n")  ->  Html('<td class="n">&lt;b&gt;</td>')

A name from outside (a genre, a file, a model) is a plain ``str`` and can never become an element: only ``Html`` is
taken as it stands. Outside this module it is made of constants and numbers alone, and of matplotlib's SVG.
"""

import html
from collections.abc import Iterable

_VOID = frozenset({"meta", "link", "img", "br"})


class Html(str):
    """Markup that is safe to write down as it is."""

    __slots__ = ()


def escaped(text: object) -> Html:
    """Turn anything into text that means itself; what UTF-8 cannot write becomes a question mark."""
    if isinstance(text, Html):
        return text
    return Html(html.escape(str(text).encode("utf-8", "replace").decode(), quote=True))


def element(tag: str, *children: object, **attributes: object) -> Html:
    """Make an element; children are escaped unless they are ``Html``.

    Args:
        tag: the element's name.
        children: in their order; None is left out.
        attributes: a trailing underscore is dropped (``class_``), others become dashes; None and False are left out,
            True has no value.
    """
    given = ((name.rstrip("_").replace("_", "-"), value) for name, value in attributes.items())
    written = [
        f" {name}" if value is True else f' {name}="{escaped(value)}"'
        for name, value in given
        if value is not None and value is not False
    ]
    opening = f"<{tag}{''.join(written)}>"
    return Html(opening) if tag in _VOID else Html(f"{opening}{joined(children)}</{tag}>")


def joined(parts: Iterable[object], between: str = "") -> Html:
    """Put parts behind each other; None and what is empty are left out."""
    return Html(escaped(between).join(str(escaped(part)) for part in parts if part is not None and part != ""))


def details(summary: object, *children: object, open_: bool = False) -> Html:
    """Fold children away under one line."""
    return element("details", element("summary", summary), *children, open=open_)
