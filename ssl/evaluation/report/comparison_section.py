"""The comparison of runs in the report: scores by setting, and the settings that differ."""

from itertools import groupby, islice

from wildfern.ssl.evaluation.report.comparison import Comparison, score_cells
from wildfern.ssl.evaluation.report.parts import escape, section, table
from wildfern.ssl.evaluation.score_words import metric_words, short_name

MOST_SETTINGS = 300  # rows
MOST_TABLES = 100


def comparison_sections(comparison: Comparison) -> str:
    """The two sections, as HTML."""
    parts = []
    for key, scores in islice(groupby(comparison.main_scores(), lambda score: score.key), MOST_TABLES):
        head, rows = score_cells(comparison, list(scores))
        lines = [
            f"<tr class=first><td>{escape(label)}</td>{''.join(f'<td class=num>{escape(cell)}</td>' for cell in cells)}</tr>"
            for label, *cells in rows
        ]
        title = f"{escape(key[0])} · {escape(short_name(key[1]))} · {escape(metric_words(key[2]))}"
        parts.append(f"<h3>{title}</h3>{table(map(escape, head), lines, numbers=len(head) - 1)}")
    notes = "".join(f"<li>{escape(note)}</li>" for note in islice(comparison.notes(), MOST_SETTINGS))
    about = f"<div class=note><ul>{notes}</ul></div>" if notes else ""
    title = "Scores by setting" if comparison.series else "Runs compared"
    scores_part = section(title, "".join(parts) + about if parts or about else "")
    return scores_part + section("Settings that differ", _settings(comparison))


def _settings(comparison: Comparison) -> str:
    if not comparison.settings:
        return "<p class=legend>None but the seed.</p>" if len(comparison.groups) == 1 else ""
    rows = [
        f"<tr class=first><th>{escape(key)}</th>{''.join(f'<td>{escape(text)}</td>' for text in row)}</tr>"
        for key, row in islice(comparison.settings.items(), MOST_SETTINGS)
    ]
    return table(("", *(escape(group.label) for group in comparison.groups)), rows)
