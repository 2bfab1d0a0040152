"""Where a run was trained and by which recipe: tables in the report, what differs between runs highlighted."""

from collections.abc import Iterator, Sequence
from itertools import islice

from wildfern.bounded_yaml import MOST_BYTES as MOST_YAML
from wildfern.ssl.evaluation.report.parts import MOST_CHARACTERS, escape, folded, run_name, section, table
from wildfern.ssl.evaluation.run_record import RunRecord

MOST_ROWS = 300  # of the table of machines


def environment_sections(records: Sequence[RunRecord], names: Sequence[str]) -> str:
    """The sections on machines and recipes, as HTML."""
    return section("Machine", _machines(records, names)) + section("Recipe, as resolved", _recipes(records, names))


def _flat(tree: dict, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested mappings as ("gpu.name", "…")."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}."[:MOST_CHARACTERS])
        elif isinstance(value, list):
            yield f"{prefix}{name}", ", ".join(map(str, value[:MOST_CHARACTERS]))
        else:
            yield f"{prefix}{name}", str(value)


def _machines(records: Sequence[RunRecord], names: Sequence[str]) -> str:
    environments = [{name: value for name, value in record.environment.items() if name != "run"} for record in records]
    flats = [dict(islice(_flat(found), MOST_ROWS)) for found in environments]
    keys = dict.fromkeys(key for flat in flats for key in flat)
    if not keys:
        return ""
    rows = []
    for key in keys:
        values = [flat.get(key, "–") for flat in flats]
        mark = " class=differs" * (len(set(values)) > 1)
        cells = "".join(f"<td>{escape(value)}</td>" for value in values)
        rows.append(f"<tr{mark}><th scope=row>{escape(key)}</th>{cells}</tr>")
    cut = any(len(flat) == MOST_ROWS for flat in flats)
    note = f"<p class=note-line>The first {MOST_ROWS} values of a run are shown.</p>" * cut
    head = ("", *(run_name(names, index) for index in range(len(records))))
    shown = table(head, rows, caption="Machine and versions") + note
    return folded(f"{len(keys)} values: processor, memory, GPUs, versions", shown)


def _recipes(records: Sequence[RunRecord], names: Sequence[str]) -> str:
    """The text of each recipe; lines that not all others have are marked."""
    lines = [record.recipe_text[:MOST_YAML].splitlines() for record in records]
    shared = set.intersection(*(set(found) for found in lines if found)) if any(lines) else set()
    parts = []
    for index, found in enumerate(lines):
        if found:
            said = "\n".join(
                escape(line, MOST_YAML) if line in shared else f"<mark>{escape(line, MOST_YAML)}</mark>"
                for line in found
            )
            parts.append(folded(run_name(names, index), f"<pre tabindex=0>{said}</pre>"))
    marked = any(set(found) - shared for found in lines)
    return "<p class=note-line>Lines that not all runs have are marked.</p>" * marked + "".join(parts)
