"""docs/errors.md has every code that the source can give, and no other."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PATTERNS = (
    r'(?:code=|default_code(?:: ClassVar\[str\])? = )"([a-z0-9_]+)"',
    r'TokenRefused\(\s*"([a-z_]+)"',
    r'^    \d+: \("([a-z_]+)", "',
    r'_HTTP\.get\([^,]+, \("([a-z_]+)"',
    r'_ensure_text\("([a-z_]+)"',
    r'self\.metadata, "([a-z_]+)"',
)


def codes_in_source():
    found = set()
    for path in (ROOT / "secure_embed").rglob("*.py"):
        for pattern in PATTERNS:
            found |= set(re.findall(pattern, path.read_text(), re.MULTILINE))
    return found


def test_every_code_is_documented():
    documented = set(
        re.findall(
            r"`([a-z]+(?:_[a-z0-9]+)+|conflict|overloaded|unavailable)`", (ROOT / "docs" / "errors.md").read_text()
        )
    )
    codes = codes_in_source()
    assert len(codes) > 100
    assert codes - documented == set()
    fields_not_codes = {"records_max", "k_max", "retry_after_s", "required_scope"}
    assert documented - codes - fields_not_codes == set()
