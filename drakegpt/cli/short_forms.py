"""Values in a short form: losses as a row of bars, durations in their largest units."""

import math

BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: list[float], width: int = 40) -> str:
    """Draw values as a row of bars between their lowest and highest.

    Of more than `width` values, that many are shown, evenly spaced, with the first and
    the last. Values that are not finite are left out.
    """
    shown = [value for value in values if math.isfinite(value)]
    if not shown:
        return ""
    if len(shown) > width:
        shown = [shown[round(i * (len(shown) - 1) / (width - 1))] for i in range(width)]
    low, high = min(shown), max(shown)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((value - low) * scale)] for value in shown)


def format_duration(seconds: float) -> str:
    """Format seconds: 4.2 s, 42 s, 3:07, 1:02:03."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def format_estimate(seconds: float) -> str:
    """Format estimated seconds: 42 s, 7 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
