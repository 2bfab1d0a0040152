"""Bytes of the indexes of many images on disk, which each host maps into memory once."""

PATH_BYTES = 40  # of an image below its folder, such as n01440764/n01440764_10026.JPEG, or in its shard


def folder_index_bytes(images: int, path_bytes: float = PATH_BYTES) -> int:
    """A folder without labels: for each image its path with an end, and its size, of 64 bits; its number, of 32 where they fit.

    See `folder_walk`, `path_store` and `folder_selection` in wildfern.ssl.data. Folders and faulty files are not counted.
    """
    return round(images * (path_bytes + 8 + 8 + (4 if images < 2**31 else 8)))


def shard_index_bytes(images: int, path_bytes: float = PATH_BYTES) -> int:
    """Tar shards of less than 4 GiB without labels: for each image its offset, size and name with an end, of 32 bits.

    See `wildfern.ssl.data.shard_table`.
    """
    return round(images * (path_bytes + 4 + 4 + 4))
