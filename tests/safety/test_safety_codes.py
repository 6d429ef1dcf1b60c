"""The table of codes and the order of search."""

import pytest

from worker.safety import codes
from worker.safety.codes import CODES, CodeKind, code_of, lookup, rank, weight
from worker.safety.stream import ProviderProblem


def test_every_code_has_a_source_and_one_spelling():
    for name, code in CODES.items():
        assert name == code.name == codes.normalize_code(name)
        assert code.source
        assert (code.kind is CodeKind.BLOCK) == (code.category is not None)


def test_what_tells_more_ranks_higher():
    order = [
        None,
        lookup("server_error"),
        lookup("brand_new"),
        lookup("server_is_overloaded"),
        lookup("chem_policy"),
        lookup("cyber_policy"),
    ]
    assert [rank(code) for code in order] == [0, 1, 2, 3, 4, 5]
    assert weight(None, "content_filter") == codes.BLOCK
    assert weight(None, "max_output_tokens") < codes.KNOWN
    assert weight(None) == codes.NOTHING


@pytest.mark.parametrize(
    ("code", "kind", "found"),
    [
        ("cyber_policy", "invalid_request", "cyber_policy"),
        (None, "insufficient_quota", "insufficient_quota"),
        ("", "requests", None),
        (None, None, None),
        ("server_error", "cyber_policy", "cyber_policy"),  # the precise one of the two
        ("rate_limit_exceeded", "insufficient_quota", "rate_limit_exceeded"),  # the code comes first
        ("brand_new", "server_error", "brand_new"),
        ("invalid_request_error", None, None),
        ("something a person wrote", "server_error", "server_error"),
        ("x" * 200, None, None),
    ],
)
def test_code_comes_before_type_and_precise_before_generic(code, kind, found):
    result = code_of(ProviderProblem(code, kind))
    assert (result.name if result else None) == found


def test_no_error_has_no_code():
    assert code_of(None) is None
    assert not codes.is_invalid_request(None)
