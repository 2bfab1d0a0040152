"""`_classes.csv` of a multi-label export (Roboflow): one row for each image file, one column of 0 and 1 for each class."""

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wildfern.ssl.data.base import DataError

NAME = "_classes.csv"


def read_classes_csv(folder: Path) -> tuple[list[str], dict[str, NDArray[np.uint8]]]:
    """Class names, and uint8[K] by the name of the file. Raises DataError for a missing or malformed file."""
    file = folder / NAME
    try:
        with open(file, newline="", encoding="utf-8-sig") as lines:
            rows = [[cell.strip() for cell in row] for row in csv.reader(lines) if row]
    except OSError as error:
        raise DataError(f"labels: classes_csv needs {file}, which cannot be opened: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    if not rows or len(rows[0]) < 2:
        raise DataError(f"{file} needs a first line such as filename, cat, dog")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(rows[0]) or not set(row[1:]) <= {"0", "1"}:
            raise DataError(f"{file} row {number}: a file name and {len(rows[0]) - 1} numbers, 0 or 1, are needed")
    return rows[0][1:], {row[0]: np.array(row[1:]).astype(np.uint8) for row in rows[1:]}
