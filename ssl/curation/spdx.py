"""Licenses as people write them, as ids of the SPDX License List (3.27).

An id that is not in the list is a LicenseRef-…, as SPDX has it for such licenses. Those given here:

- LicenseRef-CC-BY-unversioned, -CC-BY-SA-unversioned, …: a Creative Commons license without its version ("CC BY", Flickr's
  "Attribution License"). The versions differ in what they ask for, so it is no CC-BY-4.0, and `CC-BY-*` does not match it.
- LicenseRef-CC-BY-2.0-FR, …: a version for a country that SPDX does not list. `CC-BY-*` matches it.
- LicenseRef-all-rights-reserved, -no-known-restrictions, -public-domain (said, but not by which means), -US-government-work.

Users write LicenseRef-NAME for a license of their own.
"""

import difflib
import re
from collections.abc import Iterable
from functools import cache, lru_cache

from wildfern.ssl.curation.manifest import CurationError

__all__ = ["LICENSES", "check_pattern", "common_license", "license_id", "license_url", "matches"]

RESERVED = "LicenseRef-all-rights-reserved"
UNRESTRICTED = "LicenseRef-no-known-restrictions"
PUBLIC = "LicenseRef-public-domain"
US_WORK = "LicenseRef-US-government-work"

_CC = "https://creativecommons.org"
_KINDS = ("BY", "BY-SA", "BY-ND", "BY-NC", "BY-NC-SA", "BY-NC-ND")
_VERSIONS = ("1.0", "2.0", "2.5", "3.0", "4.0")
_PORTED = {  # versions for countries that SPDX lists
    "BY": "2.5-AU 3.0-AT 3.0-AU 3.0-DE 3.0-IGO 3.0-NL 3.0-US",
    "BY-SA": "2.0-UK 2.1-JP 3.0-AT 3.0-DE 3.0-IGO",
    "BY-ND": "3.0-DE",
    "BY-NC": "3.0-DE",
    "BY-NC-SA": "2.0-DE 2.0-FR 2.0-UK 3.0-DE 3.0-IGO",
    "BY-NC-ND": "3.0-DE 3.0-IGO",
}
# Countries for which Creative Commons published versions.
_COUNTRIES = (
    "am|ar|at|au|az|be|bg|br|ca|ch|cl|cn|co|cr|cz|de|dk|ec|ee|eg|es|fi|fr|ge|gr|gt|hk|hr|hu|ie|igo|il|in|it|jp|kr|lu|mk|mt|mx|"
    "my|nl|no|nz|pe|ph|pl|pr|pt|ro|rs|scotland|se|sg|si|th|tw|ug|uk|us|ve|vn|za"
)
_NAMED_COUNTRIES = {
    "australia": "AU",
    "austria": "AT",
    "canada": "CA",
    "deutschland": "DE",
    "france": "FR",
    "germany": "DE",
    "japan": "JP",
    "netherlands": "NL",
    "united-kingdom": "UK",
    "united-states": "US",
}


def _cc_url(kind: str, version: str, country: str = "") -> str:
    kind = "by-nd-nc" if (kind, version) == ("BY-NC-ND", "1.0") else kind.lower()
    return f"{_CC}/licenses/{kind}/{version}/" + (f"{country.lower()}/" if country else "")


# The ids that images carry, with where the license can be read.
LICENSES: dict[str, str | None] = {
    "CC0-1.0": f"{_CC}/publicdomain/zero/1.0/",
    "CC-PDM-1.0": f"{_CC}/publicdomain/mark/1.0/",
    "CC-PDDC": f"{_CC}/licenses/publicdomain/",
    "CC-SA-1.0": f"{_CC}/licenses/sa/1.0/",
    **{f"CC-{kind}-{version}": _cc_url(kind, version) for kind in _KINDS for version in _VERSIONS},
    **{
        f"CC-{kind}-{one}": _cc_url(kind, *one.split("-")) for kind, all_of in _PORTED.items() for one in all_of.split()
    },
    "Apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "BSD-3-Clause": "https://opensource.org/licenses/BSD-3-Clause",
    "DL-DE-BY-2.0": "https://www.govdata.de/dl-de/by-2-0",
    "DL-DE-ZERO-2.0": "https://www.govdata.de/dl-de/zero-2-0",
    "etalab-2.0": "https://spdx.org/licenses/etalab-2.0.html",
    **{
        f"GFDL-{version}-{end}": f"https://www.gnu.org/licenses/old-licenses/fdl-{version}.html"
        for version in ("1.1", "1.2")
        for end in ("only", "or-later")
    },
    "GFDL-1.3-only": "https://www.gnu.org/licenses/fdl-1.3.html",
    "GFDL-1.3-or-later": "https://www.gnu.org/licenses/fdl-1.3.html",
    "LAL-1.2": "https://artlibre.org/licence/lal/licence-art-libre-12/",
    "LAL-1.3": "https://artlibre.org/licence/lal/en/",
    "MIT": "https://opensource.org/licenses/MIT",
    "ODbL-1.0": "https://opendatacommons.org/licenses/odbl/1-0/",
    "ODC-By-1.0": "https://opendatacommons.org/licenses/by/1-0/",
    "OGL-Canada-2.0": "https://open.canada.ca/en/open-government-licence-canada",
    **{
        f"OGL-UK-{n}.0": f"https://www.nationalarchives.gov.uk/doc/open-government-licence/version/{n}/"
        for n in (1, 2, 3)
    },
    "PDDL-1.0": "https://opendatacommons.org/licenses/pddl/1-0/",
    "Unlicense": "https://unlicense.org/",
    **{f"LicenseRef-CC-{kind}-unversioned": None for kind in _KINDS},
    RESERVED: None,
    UNRESTRICTED: None,
    PUBLIC: None,
    US_WORK: None,
}
_CANONICAL = {name.lower(): name for name in LICENSES}
# Names of other licenses that say which version; as a whole text.
_NAMES = {
    "apache-2": "Apache-2.0",
    "apache-license-2.0": "Apache-2.0",
    "apache-license-version-2.0": "Apache-2.0",
    "bsd-3-clause-license": "BSD-3-Clause",
    "mit-license": "MIT",
    "odbl": "ODbL-1.0",
    "open-database-license": "ODbL-1.0",
    "pddl": "PDDL-1.0",
    "the-mit-license": "MIT",
    "the-unlicense": "Unlicense",
}
_GENERIC_PUBLIC = {"CC0-1.0", "CC-PDM-1.0", "CC-PDDC", "PDDL-1.0", US_WORK}  # each a way to be in the public domain
_MOST_CHARACTERS = 10_000

_URL = re.compile(r"(?:https?://|www\.|creativecommons\.org/)[^\s<>\"'()]+", re.IGNORECASE)
_CC_URL = re.compile(
    r"(?:https?://)?(?:www\.)?creativecommons\.org/(?:licenses|publicdomain)/([a-z][a-z-]*)(?:/(\d\.\d))?"
    r"(?:/(?!deed|legalcode|rdf)([a-z]{2,8})(?![a-z.]))?",
    re.IGNORECASE,
)
_SHORTER = [
    (re.compile(pattern, re.IGNORECASE), short)
    for pattern, short in [
        (r"licence", "license"),
        (r"creative[\s_-]*commons", "cc"),
        (r"attribution", "by"),
        (r"non[\s_-]*commercial", "nc"),
        (r"share[\s_-]*alike", "sa"),
        (r"no[\s_-]*deriv(?:ative)?s?(?:[\s_-]*works?)?", "nd"),
        (r"[\s_/,:;()\[\]\u2010-\u2015-]+", "-"),
    ]
]
_ELEMENTS = r"((?:-?(?:nc|sa|nd)(?![a-z]))*)"
_VERSION = r"(?:-?(?:license-)?(?:version-|v\.?-?)?(\d(?:\.\d)?)(?![.\d]*\d))"
_NAMED = r"(?:-(?:generic|unported|international|license|licensed))*"
_WORDS = [
    (re.compile(pattern, re.IGNORECASE), read)
    for pattern, read in [
        (r"(?<![a-z\d])cc-?(?:0|zero)(?:-?v?1\.0)?(?:-universal)?(?:-public-domain-dedication)?(?![a-z\d])", "CC0-1.0"),
        (r"(?<![a-z\d])(?:cc-)?(?:public-domain-mark|pdm)(?:-?v?1\.0)?(?![a-z\d])", "CC-PDM-1.0"),
        (rf"(?<![a-z\d])cc-?(?:license-)?by{_ELEMENTS}{_VERSION}\+?{_NAMED}(?=(?:-([a-z]+(?:-[a-z]+)?))?)", None),
        (rf"(?<![a-z\d])cc-?(?:license-)?by{_ELEMENTS}{_NAMED}(?=-?(?:$|[.|\"']))", None),
        (rf"^by{_ELEMENTS}{_VERSION}{_NAMED}()$", None),  # the heading of the license itself
        (rf"^by{_ELEMENTS}-license$", None),
        (r"^by((?:-(?:nc|sa|nd))+)$", None),
        (
            r"(?<![a-z\d])(?:all-rights-reserved|alle-rechte-vorbehalten|alle-rechten-voorbehouden|todos-los-derechos-reservados|"
            r"todos-os-direitos-reservados|tous-droits-r[ée]serv[ée]s|tutti-i-diritti-riservati)(?![a-z])",
            RESERVED,
        ),
        (r"(?<![a-z\d])no-known-(?:copyright-)?restrictions(?![a-z])", UNRESTRICTED),
        (r"(?<![a-z\d])(?:united-states|u\.?s\.?)-government-work(?![a-z])", US_WORK),
        (r"(?<![a-z\d])public-domain(?:-work|-dedication)?(?![a-z])", PUBLIC),
        (r"open-government-license-(?:version-|v\.?-?)?([123])(?:\.0)?(?![\d.]*\d)", "OGL-UK-"),
        (
            r"(?<![a-z\d])(?:gfdl|gnu-free-documentation-license)-(?:version-|v)?(1\.[123])(\+|-or-(?:any-)?later)?",
            "GFDL-",
        ),
    ]
]
# What is left of a text beside the name of its license must not limit it: words of denial and of the past in some languages,
# purposes, and licenses that are known as a whole text only. What is refused wrongly is read by a person.
_LIMITS = re.compile(
    r"(?<![a-z])(?:nc|nd|sa|no|not|non|never|neither|cannot|except|excluding|unless|without|or|only|commercial\w*|editorial|"
    r"personal|private|research|academic|education\w*|formerly|former|previously|was|were|until|revoked|withdrawn|expired|"
    r"prohibited|forbidden|banned|restricted|permission|consent|managed|proprietary|confidential|ai|training|"
    r"kein\w*|nicht|ohne|nur|verboten|kommerziell\w*|pas|sans|jamais|interdit\w*|seulement|sin|nunca|solo|prohibido|"
    r"gfdl|l?gpl\w*|agpl\w*|mit|apache\w*|bsd|mpl|exception)(?![a-z])",
    re.IGNORECASE,
)
_JOINED = re.compile(r"(?<![A-Za-z])(?:AND|WITH|LicenseRef)(?![a-z])")  # of SPDX expressions; "Ada and Bob" are authors


def license_id(text: str) -> str | None:
    """The SPDX id, or the LicenseRef- id of this module, of the license that a text names; None if it names none or several.

    Reads ids in any case, addresses of Creative Commons (https://creativecommons.org/licenses/by/2.0/), and words ("CC BY 4.0",
    "Creative Commons Attribution-ShareAlike 2.0 Generic", Openverse's "by-nc 2.0", "© Ada, all rights reserved"). A text that
    limits or denies what it names ("CC BY 4.0, not for commercial use") is None, and so are several licenses joined with AND or
    WITH: to be read by a person.
    """
    text = text.strip()
    if text.lower() in _CANONICAL:
        return _CANONICAL[text.lower()]
    if own := re.fullmatch(r"LicenseRef-([A-Za-z0-9.-]+)", text, re.IGNORECASE):
        return f"LicenseRef-{own[1]}"
    if len(text) > _MOST_CHARACTERS:  # the license itself, or a page about something else
        return None
    found = {_of_url(url[0]) for url in _URL.finditer(text)} - {None}
    rest = _URL.sub(" | ", text)
    if rest.strip(" |").lower() == "by":  # Openverse's code; within a text it is a preposition
        found.add("LicenseRef-CC-BY-unversioned")
    for pattern, short in _SHORTER:
        rest = pattern.sub(short, rest)
    rest = rest.strip("-.|")
    if name := _NAMES.get(rest.lower()) or _CANONICAL.get(rest.lower()):
        return common_license({*found, name})
    for pattern, read in _WORDS:
        while match := pattern.search(rest):
            if (named := _of_words(match, read)) is None:
                return None
            found.add(named)
            rest = rest[: match.start()] + "|" + rest[match.end() :]
    limited = _JOINED.search(text) or (found != {RESERVED} and _LIMITS.search(rest))
    return None if limited else common_license(found)


def common_license(ids: Iterable[str | None]) -> str | None:
    """The one license that all these ids mean; None if there are none, or several.

    A license without a version means the one with a version beside it, and "public domain" the way that is given beside it.
    """
    found = {one for one in ids if one}
    for one in list(found):
        if one.endswith("-unversioned"):
            pattern = one.removeprefix("LicenseRef-").removesuffix("unversioned") + "*"
            if any(matches(other, pattern) for other in found):
                found.discard(one)
        if one == PUBLIC and found & _GENERIC_PUBLIC:
            found.discard(one)
    return found.pop() if len(found) == 1 else None


def matches(license: str, pattern: str) -> bool:
    """Whether an id is meant by a pattern, in any case of letters; * stands for a version.

    CC-BY-* matches CC-BY-2.0, CC-BY-3.0-DE and LicenseRef-CC-BY-2.0-FR, and neither CC-BY-NC-4.0 nor CC-BY-SA-4.0, nor
    LicenseRef-CC-BY-unversioned.
    """
    return _compiled(pattern).fullmatch(license) is not None


def check_pattern(pattern: str) -> None:
    """Raise CurationError unless `matches` can be true for the pattern: for a license that is not known, naming the nearest."""
    if any(matches(one, pattern) for one in LICENSES) or re.fullmatch(
        r"LicenseRef-[A-Za-z0-9.*-]+", pattern, re.IGNORECASE
    ):
        return
    families = {re.sub(r"-\d.*", "-*", name) for name in LICENSES if not name.startswith("LicenseRef-")}
    if "*" in pattern:
        known = sorted(families, key=lambda name: (len(name), name))
        near = next((name for name in known if name.startswith(pattern.upper().rstrip("*") or "*")), None)
    else:
        known = list(LICENSES)
        near = license_id(pattern)
    lower = {name.lower(): name for name in known}
    if near is None and (close := difflib.get_close_matches(pattern.lower(), lower, n=1)):
        near = lower[close[0]]
    raise CurationError(
        f"license.allow: there is no license {pattern!r}"
        + (f"; did you mean {near}?" if near else ".")
        + " Write an SPDX id such as CC-BY-4.0, CC-BY-* for each of its versions, or LicenseRef-NAME for a license of your own"
    )


def license_url(license: str) -> str | None:
    """Where the license of this id can be read; None for an id that is not known, or has no text of its own."""
    if known := LICENSES.get(license):
        return known
    if ported := re.fullmatch(r"LicenseRef-CC-([A-Z-]+)-(\d\.\d)-([A-Z]+)", license):
        return _cc_url(*ported.groups())
    return None


@lru_cache(256)
def _compiled(pattern: str) -> re.Pattern[str]:
    version = rf"\d+(?:\.\d+)*(?:-only|-or-later|-(?:{_COUNTRIES}))?"
    own = "" if pattern.lower().startswith("licenseref-") or "*" not in pattern else "(?:LicenseRef-)?"
    return re.compile(own + re.escape(pattern).replace(r"\*", version), re.IGNORECASE)


def _of_url(url: str) -> str | None:
    url = url.rstrip(".,;")
    if (match := _CC_URL.match(url)) is None:
        return _addresses().get(_plain_url(url))
    kind, version, country = match.groups()
    elements = re.fullmatch(r"by((?:-(?:nc|sa|nd))*)", kind, re.IGNORECASE)
    if elements is None:
        return _addresses().get(_plain_url(match[0]))
    return _creative_commons(elements[1], version, country)


@cache
def _addresses() -> dict[str, str]:
    known = {_plain_url(at): name for name, at in LICENSES.items() if at and not name.endswith("-or-later")}
    return {
        **known,
        "creativecommons.org/publicdomain/zero": "CC0-1.0",
        "creativecommons.org/publicdomain/mark": "CC-PDM-1.0",
    }


def _plain_url(url: str) -> str:
    return re.sub(r"^https?://(?:www\.)?|\.(?:html|txt|php)$|/+$", "", url.lower())


def _of_words(match: re.Match[str], read: str | None) -> str | None:
    if read == "OGL-UK-":
        return f"OGL-UK-{match[1]}.0"
    if read == "GFDL-":
        return f"GFDL-{match[1]}-{'or-later' if match[2] else 'only'}"
    if read is not None:
        return read
    _, version, country = (*match.groups(), None, None)[:3]
    return _creative_commons(match[1], version, _country(match, country))


def _country(match: re.Match[str], words: str | None) -> str | None:
    """Of the one or two words after a version, the country; small letters count only at the end, where "in" is no preposition."""
    if not words:
        return None
    first = words.split("-")[0]
    for name in (words, first):
        if name.lower() in _NAMED_COUNTRIES:
            return _NAMED_COUNTRIES[name.lower()]
    ends = first == words and match.end(3) == len(match.string)
    return first if re.fullmatch(_COUNTRIES, first, re.IGNORECASE) and (first.isupper() or ends) else None


def _creative_commons(elements: str, version: str | None, country: str | None) -> str | None:
    kind = "-".join(["BY", *sorted(re.findall("NC|SA|ND", elements.upper()))])
    if kind not in _KINDS:  # such as SA with ND, which exclude each other
        return None
    if version is None:
        return f"LicenseRef-CC-{kind}-unversioned"
    version = version if "." in version else f"{version}.0"
    if country:
        name = f"CC-{kind}-{version}-{country.upper()}"
        return name if name in LICENSES else f"LicenseRef-{name}"
    return name if (name := f"CC-{kind}-{version}") in LICENSES else None
