"""Which keys count; tests/blueprints/public/test_oidc.py shows what tokens must be."""

import pytest
from joserfc.jwk import ECKey, OctKey, RSAKey

from app.oidc import tokens
from app.oidc.errors import SignInFailed

RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
CURVE = ECKey.generate_key("P-256", {"kid": "curve"})


def test_keys_that_cannot_check_signatures_are_left_out() -> None:
    listed = [
        RSA.as_dict(private=False),
        CURVE.as_dict(private=False) | {"use": "enc"},
        OctKey.generate_key(256, {"kid": "shared"}).as_dict(private=True),
        {"kty": "AKP", "kid": "new"},
        {"kty": "RSA", "n": "?", "e": "?"},
        "no key",
    ]
    assert [key.kid for key in tokens.import_keys({"keys": listed})] == ["rsa"]


@pytest.mark.parametrize("document", [None, [], {}, {"keys": None}, {"keys": {}}])
def test_what_is_no_set_of_keys_has_none(document: object) -> None:
    assert tokens.import_keys(document) == []


@pytest.mark.parametrize("text", [None, 1, "", "a.b", "a.b.c", "ö.b.c", "." * 2, "e30.e30.x" * 10_000, "bnVsbA.e30.x"])
def test_what_is_no_token_is_refused(text: object) -> None:
    with pytest.raises(SignInFailed):
        tokens.verified(text, lambda _: [RSA], ["RS256"])
