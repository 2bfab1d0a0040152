"""Licenses as people write them: ids, addresses, words; what is ambiguous or limited names none."""

import fnmatch

import pytest

from wildfern.ssl.curation.manifest import CurationError
from wildfern.ssl.curation.spdx import LICENSES, check_pattern, common_license, license_id, license_url, matches


@pytest.mark.parametrize("name", LICENSES)
def test_each_id_is_read_in_any_case_and_each_address_gives_its_id(name):
    assert license_id(name) == license_id(name.lower()) == license_id(f" {name.upper()} ") == name
    if url := license_url(name):
        assert license_id(url) == name.replace("-or-later", "-only")
        assert license_id(url.replace("https://", "http://").rstrip("/")) == name.replace("-or-later", "-only")


def test_all_versions_of_all_creative_commons_licenses_are_there():
    kinds = ["BY", "BY-SA", "BY-ND", "BY-NC", "BY-NC-SA", "BY-NC-ND"]
    for kind in kinds:
        for version in ["1.0", "2.0", "2.5", "3.0", "4.0"]:
            name = f"CC-{kind}-{version}"
            assert license_id(f"CC {kind} {version}") == name
            assert license_id(f"https://creativecommons.org/licenses/{kind.lower()}/{version}/legalcode") == name
        assert license_id(f"CC {kind}") == f"LicenseRef-CC-{kind}-unversioned"
        assert license_id(f"http://creativecommons.org/licenses/{kind.lower()}/") == f"LicenseRef-CC-{kind}-unversioned"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("http://creativecommons.org/licenses/by/2.0/", "CC-BY-2.0"),
        ("https://creativecommons.org/licenses/by-nc-sa/4.0/deed.en", "CC-BY-NC-SA-4.0"),
        ("creativecommons.org/licenses/by-nd-nc/1.0/", "CC-BY-NC-ND-1.0"),
        ("https://creativecommons.org/licenses/by/3.0/de/", "CC-BY-3.0-DE"),
        ("https://creativecommons.org/licenses/by/2.0/fr/deed.fr", "LicenseRef-CC-BY-2.0-FR"),
        ("http://creativecommons.org/publicdomain/zero/1.0/", "CC0-1.0"),
        ("https://creativecommons.org/publicdomain/mark/1.0/deed.de", "CC-PDM-1.0"),
        ("https://www.apache.org/licenses/LICENSE-2.0.txt", "Apache-2.0"),
        ("Creative Commons Attribution 2.0", "CC-BY-2.0"),
        ("Creative Commons Attribution-NonCommercial-ShareAlike 3.0 Unported License", "CC-BY-NC-SA-3.0"),
        ("Creative Commons Attribution Non Commercial No Derivatives 4.0", "CC-BY-NC-ND-4.0"),
        ("This work is licensed under a Creative Commons Attribution 4.0 International License.", "CC-BY-4.0"),
        ("Licence: Creative Commons Attribution 4.0", "CC-BY-4.0"),
        ("© 2015 Ada, CC BY 4.0", "CC-BY-4.0"),
        ("CC BY-SA 4.0, via Wikimedia Commons", "CC-BY-SA-4.0"),
        ("CC BY-SA 3.0 de", "CC-BY-SA-3.0-DE"),
        ("Creative Commons Attribution 3.0 Germany", "CC-BY-3.0-DE"),
        ("CC BY 3.0 in a book", "CC-BY-3.0"),
        ("cc_by_2.5", "CC-BY-2.5"),
        ("cc by 4", "CC-BY-4.0"),
        ("Attribution License", "LicenseRef-CC-BY-unversioned"),
        ("Attribution-ShareAlike License", "LicenseRef-CC-BY-SA-unversioned"),
        ("Attribution 4.0 International", "CC-BY-4.0"),
        ("CC BY, http://creativecommons.org/licenses/by/2.0/", "CC-BY-2.0"),
        ("CC0 1.0 Universal (CC0 1.0) Public Domain Dedication", "CC0-1.0"),
        ("Public Domain Mark 1.0", "CC-PDM-1.0"),
        ("This image is in the public domain.", "LicenseRef-public-domain"),
        ("No known copyright restrictions", "LicenseRef-no-known-restrictions"),
        ("United States Government Work", "LicenseRef-US-government-work"),
        ("© 2015 Ada. All rights reserved. No copying without permission.", "LicenseRef-all-rights-reserved"),
        ("Alle Rechte vorbehalten", "LicenseRef-all-rights-reserved"),
        ("MIT License", "MIT"),
        ("Apache 2.0", "Apache-2.0"),
        ("GFDL 1.2 or later", "GFDL-1.2-or-later"),
        ("licensed under the Open Government Licence v3.0.", "OGL-UK-3.0"),
        ("licenseref-Studio.7", "LicenseRef-Studio.7"),
        ("by", "LicenseRef-CC-BY-unversioned"),  # from here on, codes of Openverse
        ("BY-SA", "LicenseRef-CC-BY-SA-unversioned"),
        ("by-nc-nd", "LicenseRef-CC-BY-NC-ND-unversioned"),
        ("by 2.0", "CC-BY-2.0"),
        ("by-nc-sa 4.0", "CC-BY-NC-SA-4.0"),
        ("cc0 1.0", "CC0-1.0"),
        ("pdm", "CC-PDM-1.0"),
        ("by https://creativecommons.org/licenses/by/2.0/", "CC-BY-2.0"),
        ("by-nc https://creativecommons.org/licenses/by-nc/2.0/", "CC-BY-NC-2.0"),
        ("by-nc https://example.org/about", "LicenseRef-CC-BY-NC-unversioned"),
    ],
)
def test_a_text_that_names_one_license(text, name):
    assert license_id(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4",  # Flickr's number of a license
        "© 2015 Ada",
        "Attribution",
        "Creative Commons",
        "Some rights reserved",
        "CC by Ada",
        "by Ada",
        "by https://creativecommons.org/licenses/by-nc/2.0/",
        "CC BY 5.0",
        "CC BY-SA-ND 4.0",
        "not in the public domain",
        "CC BY 4.0 NC",
        "CC BY 4.0, not for commercial use",
        "CC BY 4.0 except the logo",
        "CC BY 4.0, all rights reserved",
        "CC BY 4.0 or CC BY-NC 4.0",
        "CC BY-SA 3.0, GFDL 1.2",
        "CC BY 4.0 http://creativecommons.org/licenses/by-nc/4.0/",
        "https://example.org/licenses/by/4.0/",
        "CC BY 4.0 " + "and so on " * 2000,
    ],
)
def test_a_text_that_names_none_or_several_or_limits_it(text):
    assert license_id(text) is None


def test_a_star_stands_for_a_version():
    wanted = [name for name in LICENSES if matches(name, "CC-BY-*")]
    plain = [name for name in LICENSES if fnmatch.fnmatch(name, "CC-BY-[0-9]*")]
    assert wanted == plain
    assert {"CC-BY-1.0", "CC-BY-4.0", "CC-BY-3.0-IGO"} <= set(wanted)
    assert matches("LicenseRef-CC-BY-2.0-FR", "cc-by-*")
    assert not matches("LicenseRef-CC-BY-unversioned", "CC-BY-*")
    assert not matches("CC-BY-NC-4.0", "CC-BY-*")
    assert not matches("CC-BY-4.0", "CC-BY-4")
    assert matches("CC-BY-4.0", "cc-by-4.0")
    assert matches("GFDL-1.2-or-later", "GFDL-*")
    assert not matches("LicenseRef-CC-BY-4.0", "CC-BY-4.0")


@pytest.mark.parametrize("pattern", ["CC-BY-4.0", "cc0-1.0", "CC-BY-*", "CC0-*", "LicenseRef-Studio", "OGL-UK-*"])
def test_patterns_that_can_match(pattern):
    check_pattern(pattern)


@pytest.mark.parametrize(
    ("pattern", "near"),
    [
        ("CC-BY-5.0", "CC-BY-4.0"),
        ("CC BY 4.0", "CC-BY-4.0"),
        ("CCBY-*", "CC-BY-*"),
        ("OGL-*", "OGL-UK-*"),
        ("MTI", "MIT"),
        ("*", None),
        ("Flickr", None),
    ],
)
def test_a_pattern_for_no_license_is_refused_with_the_nearest(pattern, near):
    with pytest.raises(CurationError, match=r"license\.allow: there is no license") as error:
        check_pattern(pattern)
    assert ("did you mean" in str(error.value)) == (near is not None)
    assert near is None or f"did you mean {near}?" in str(error.value)


def test_one_license_in_several_ids():
    assert common_license(["LicenseRef-CC-BY-unversioned", "CC-BY-2.0", None]) == "CC-BY-2.0"
    assert common_license(["LicenseRef-CC-BY-unversioned", "CC-BY-SA-2.0"]) is None
    assert common_license(["LicenseRef-public-domain", "CC-PDM-1.0"]) == "CC-PDM-1.0"
    assert common_license(["CC-BY-2.0", "LicenseRef-all-rights-reserved"]) is None
    assert common_license([]) is None


def test_where_a_license_can_be_read():
    assert license_url("CC-BY-SA-2.0-UK") == "https://creativecommons.org/licenses/by-sa/2.0/uk/"
    assert license_url("LicenseRef-CC-BY-2.0-FR") == "https://creativecommons.org/licenses/by/2.0/fr/"
    assert license_url("LicenseRef-CC-BY-unversioned") is None
    assert license_url("LicenseRef-Studio") is None


@pytest.mark.parametrize(
    "text",
    [
        *(
            "CC0-1.0 AND GPL-3.0-only",
            "CC-BY-4.0 AND MIT",
            "CC-BY-4.0 AND LicenseRef-own",
            "CC-BY-4.0 WITH my-exception",
        ),
        *("CC BY 4.0, personal use only", "CC BY 4.0 for research", "formerly CC BY 4.0", "was CC BY 2.0, now private"),
        *(
            "CC BY 4.0 revoked",
            "kein CC BY 4.0",
            "CC BY 4.0, nicht kommerziell",
            "CC BY 4.0; MIT",
            "CC BY 4.0 | Apache-2.0",
        ),
        *("rights-managed CC BY 4.0", "CC BY 4.0, AI training prohibited"),
        *(
            "https://evil.example/creativecommons.org/licenses/by/4.0/",
            "https://notcreativecommons.org/licenses/by/4.0/",
        ),
    ],
)
def test_a_text_that_joins_or_limits_licenses_is_unknown(text):
    assert license_id(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "Photo by Ada and Bob / CC BY 2.0",
        "Ada With, CC BY 2.0",
        "CC BY 2.0 (https://www.creativecommons.org/licenses/by/2.0)",
    ],
)
def test_names_of_authors_limit_nothing(text):
    assert license_id(text) == "CC-BY-2.0"
