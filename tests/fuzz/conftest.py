"""Two profiles of hypothesis: `quick` in every run of the tests, with the same examples each time, and `long` by hand."""

from hypothesis import HealthCheck, settings

COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True}
settings.register_profile("quick", max_examples=150, derandomize=True, database=None, **COMMON)
settings.register_profile("long", max_examples=20_000, **COMMON)


def pytest_configure(config):
    if not config.getoption("--hypothesis-profile"):
        settings.load_profile("quick")
