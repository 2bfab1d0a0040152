"""`_classes.csv` of a multi-label export (Roboflow): one row for each image file, one column of 0 and 1 for each class."""

import csv
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wildfern.ssl.data.base import DataError
from wildfern.ssl.data.steady_file import SteadyFile

NAME = "_classes.csv"
MOST_BYTES = 256 * 2**20


def read_classes_csv(folder: Path) -> tuple[list[str], dict[str, NDArray[np.uint8]]]:
    """Class names, and uint8[K] by the name of the file. Raises DataError for a missing or malformed file."""
    file = folder / NAME
    names: list[str] = []
    rows: dict[str, NDArray[np.uint8]] = {}
    try:
        noted = SteadyFile.of(file)
    except DataError as error:
        raise DataError(f"labels: classes_csv needs {file}, which{str(error).removeprefix(str(file))}") from error
    try:
        if noted.size > MOST_BYTES:
            raise DataError(f"{file} is larger than {MOST_BYTES:,} bytes, the limit for a table of classes")
        with noted.open() as opened, io.TextIOWrapper(opened, "utf-8-sig", newline="") as lines:
            number = 0
            for row in csv.reader(lines):
                if not row:
                    continue
                number += 1
                name, *cells = [cell.strip() for cell in row]
                if number == 1:
                    names = cells
                    continue
                if len(cells) != len(names) or not set(cells) <= {"0", "1"}:
                    raise DataError(f"{file} row {number}: a file name and {len(names)} numbers, 0 or 1, are needed")
                rows[name] = np.array([cell == "1" for cell in cells], np.uint8)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    if not names:
        raise DataError(f"{file} needs a first line such as filename, cat, dog")
    return names, rows
