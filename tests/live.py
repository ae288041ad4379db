"""Whether there is an account to test with; ``python -m tests.live`` says what is missing."""

from __future__ import annotations

import sys

from workersai import Settings
from workersai.errors import ConfigurationError
from workersai.settings import DEFAULT_BASE_URL


def account() -> Settings | None:
    """The account that the environment names, or None where it names none.

    Raises:
        SystemExit: it names another service than Cloudflare's.
    """
    try:
        settings = Settings()
    except ConfigurationError:
        return None
    if settings.base_url != DEFAULT_BASE_URL:
        sys.exit(f"CLOUDFLARE_BASE_URL is {settings.base_url}: unset it, since this is about Cloudflare's service.")
    return settings


if __name__ == "__main__" and account() is None:
    sys.exit(
        "This needs an account: set CLOUDFLARE_ACCOUNT_ID, and CLOUDFLARE_API_TOKEN with the Workers AI permission. "
        "The tests cost some cents."
    )
