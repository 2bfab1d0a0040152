"""A curated folder as Croissant 1.0 (MLCommons): JSON-LD that catalogs and loaders of datasets read, with its RAI vocabulary."""

from collections.abc import Sequence
from typing import Any

from wildfern.ssl.curation.datasheet import Summary
from wildfern.ssl.curation.manifest import MANIFEST
from wildfern.ssl.curation.spdx import license_url

__all__ = ["croissant"]

# Columns of the manifest that are fields of the records, with their type and what they are.
_FIELDS = {
    "path": ("sc:Text", "Path of the image in its source"),
    "sha256": ("sc:Text", "SHA-256 of the bytes of the image"),
    "width": ("sc:Integer", "Pixels"),
    "height": ("sc:Integer", "Pixels"),
    "license": ("sc:Text", "SPDX id of the license; empty if it is not known"),
    "author": ("sc:Text", "Author, as named by the user's metadata or the file"),
    "source_url": ("sc:URL", "Where the image is from"),
    "decision": ("sc:Text", "keep, review or reject; the dataset is what is kept"),
}
_CONTEXT = {  # of Croissant 1.0
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def croissant(
    summary: Summary,
    *,
    description: str | None = None,
    url: str | None = None,
    creators: Sequence[str] = (),
    citation: str | None = None,
) -> dict[str, Any]:
    """The metadata of a curated folder, to be written as JSON beside its manifest, which it describes column by column.

    - description: by default the numbers of the summary. url: of the dataset's page. creators: names. citation: BibTeX or words.

    The licenses are those of the kept images, as addresses where there is one, most frequent first; the images themselves are not
    part of the distribution. Validators warn of arguments that are not given.
    """
    licenses = [license_url(name) or name for name, _ in summary.licenses.most_common()]
    found: dict[str, Any] = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": ["http://mlcommons.org/croissant/1.0", "http://mlcommons.org/croissant/RAI/1.0"],
        "name": summary.name,
        "description": description or f"{summary.kept:,} images without labels, kept of {summary.images:,}.",
        "version": f"1.0.0+{summary.manifest_sha256[:12]}",
        "datePublished": summary.date,
        "license": [*licenses, *(["unknown"] if summary.unknown_licenses else [])],
        "url": url,
        "citeAs": citation,
        "creator": [{"@type": "sc:Person", "name": name} for name in creators],
        "rai:dataCollection": f"Images of {', '.join(summary.sources)}.",
        "rai:dataPreprocessingProtocol": [
            f"{rule}: {count:,} images set to {action}"
            for rule, actions in sorted(summary.by_reason.items())
            for action, count in actions.items()
        ],
        "rai:dataLimitations": [f"Not checked: {words}" for words in summary.not_checked],
        "rai:personalSensitiveInformation": [f"Examined for people with {words}" for words in summary.people_checked]
        + [
            f"{summary.people_unchecked:,} of {summary.kept:,} images were not examined for people",
            f"{summary.has_gps:,} files have coordinates in them",
        ],
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": "manifest",
                "name": MANIFEST,
                "description": "One row an image: what was measured and what was decided",
                "contentUrl": MANIFEST,
                "encodingFormat": "application/x-parquet",
                "sha256": summary.manifest_sha256,
            }
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "images",
                "name": "images",
                "description": "All images that were found, also those that were left out",
                "field": [
                    {
                        "@type": "cr:Field",
                        "@id": f"images/{column}",
                        "name": column,
                        "description": words,
                        "dataType": kind,
                        "source": {"fileObject": {"@id": "manifest"}, "extract": {"column": column}},
                    }
                    for column, (kind, words) in _FIELDS.items()
                ],
            }
        ],
    }
    return {key: value for key, value in found.items() if value not in (None, [])}
