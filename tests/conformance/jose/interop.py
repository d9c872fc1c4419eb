"""Makes objects that Counterseal must open, and opens objects that Counterseal made."""

import base64
import json
import sys

import http_ece
from jwcrypto import jwe, jwk, jws
from jwcrypto.common import json_encode

DID = "did:web:interop.invalid"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def plaintext(length: int) -> bytes:
    return bytes(i % 251 for i in range(length))


def make(path: str) -> None:
    import hashlib

    signing = jwk.JWK.generate(kty="OKP", crv="Ed25519")
    public = unb64(json.loads(signing.export_public())["x"])
    kid = f"{DID}#signing-{hashlib.sha256(public).hexdigest()[:16]}"
    payload = '{"a":[1,2,"三"],"v":1}'
    token = jws.JWS(payload.encode())
    header = json.dumps({"alg": "EdDSA", "kid": kid, "typ": "counterseal-offer+jws"}, separators=(",", ":"))
    token.add_signature(signing, None, header)

    sealing = jwk.JWK.generate(kty="OKP", crv="X25519")
    sealed = jwe.JWE(
        b"an offer",
        json_encode({"alg": "ECDH-ES+A256KW", "enc": "A256GCM", "kid": "k", "cty": "counterseal-offer+jws"}),
    )
    sealed.add_recipient(sealing)

    ikm, salt = bytes(range(32)), bytes(range(16))
    bodies = []
    for length in (1, 100, 65519, 65520, 200000):  # for none, http_ece writes no record at all
        coded = http_ece.encrypt(plaintext(length), salt=salt, key=ikm, rs=65536, keyid="hint", version="aes128gcm")
        entry = {"length": length, "coded": b64(coded)} if length < 200 else {"length": length}
        if length >= 200:
            entry["sha256"] = hashlib.sha256(coded).hexdigest()
        bodies.append(entry)
    vectors = {
        "madeBy": "jwcrypto 1.5.6, http_ece 1.2.1",
        "jws": {"token": token.serialize(compact=True), "public": b64(public), "did": DID, "payload": payload},
        "jwe": {
            "token": sealed.serialize(compact=True),
            "private": json.loads(sealing.export_private())["d"],
            "plaintext": "an offer",
            "cty": "counterseal-offer+jws",
        },
        "ece": {"ikm": b64(ikm), "salt": b64(salt), "keyid": "hint", "bodies": bodies},
    }
    with open(path, "w") as out:
        json.dump(vectors, out, indent=1, ensure_ascii=False)
        out.write("\n")


def open_ours(path: str) -> int:
    with open(path) as file:
        ours = json.load(file)
    passed = failed = 0

    def check(name, holds):
        nonlocal passed, failed
        print(("ok      " if holds else "FAILED  ") + name)
        if holds:
            passed += 1
        else:
            failed += 1

    def refused(call):
        try:
            call()
            return False
        except Exception:
            return True

    key = jwk.JWK(kty="OKP", crv="Ed25519", x=ours["jws"]["public"])
    token = jws.JWS()
    token.deserialize(ours["jws"]["token"])
    token.verify(key)
    check("our JWS verifies with jwcrypto", token.payload.decode() == ours["jws"]["payload"])
    other = jwk.JWK.generate(kty="OKP", crv="Ed25519")
    check("and not with another key", refused(lambda: jws.JWS.from_jose_token(ours["jws"]["token"]).verify(other)))

    private = jwk.JWK(kty="OKP", crv="X25519", x=ours["jwe"]["public"], d=ours["jwe"]["private"])
    sealed = jwe.JWE()
    sealed.deserialize(ours["jwe"]["token"], key=private)
    check("our JWE opens with jwcrypto", sealed.payload.decode() == ours["jwe"]["plaintext"])

    ikm = unb64(ours["ece"]["ikm"])
    for body in ours["ece"]["bodies"]:
        coded = unb64(body["coded"])
        opened = http_ece.decrypt(coded, key=ikm, version="aes128gcm")
        check(f"our sealed stream of {body['length']} bytes opens with http_ece", opened == plaintext(body["length"]))
        if coded:
            broken = coded[:-1] + bytes([coded[-1] ^ 1])
            check("and not with a flipped bit", refused(lambda: http_ece.decrypt(broken, key=ikm, version="aes128gcm")))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or passed < 8 else 0


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(sys.argv[2])
    else:
        sys.exit(open_ours(sys.argv[2]))
