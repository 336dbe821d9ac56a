"""How numbers are written for people: one way on the page, in the terminal and in sentences."""


def signed(value: float, digits: int = 2) -> str:
    """With a sign as wide as a plus; what rounds to zero has none: `+0.13`, `−0.02`, `0.00`."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def decimal(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def grouped(count: float | None) -> str:
    """`12 345`, with a thin space that does not break."""
    return "–" if count is None else f"{count:,.0f}".replace(",", "\u202f")


def duration(seconds: float | None) -> str:
    """`0.4 s`, `12 s`, `3 min 05 s`, `2 h 10 min`."""
    if seconds is None:
        return "–"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
