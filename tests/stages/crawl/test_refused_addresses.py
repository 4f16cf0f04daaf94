"""Connections that the crawler refuses: private addresses, and invalid certificates."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime, timedelta

import pytest

from data_contracts import InputError
from tests.stages.crawl.tables import failures


def test_loopback_is_refused_unless_the_origin_is_named(site, crawl):
    site.page("/")
    with pytest.raises(
        InputError, match=rf"address_refused.*127\.0\.0\.1(?s:.)*allow_origins: \[{site.origin}\]"
    ):
        crawl(allow_origins=[])
    with pytest.raises(InputError, match="address_refused"):
        crawl(
            allow_origins=[], seeds=[f"http://localhost:{site.port}/"]
        )  # refused after the name is resolved
    assert site.log == []


def test_a_redirect_to_a_private_address_is_refused_even_in_scope(site, crawl):
    site.page("/", "/out")
    site.redirect("/out", "http://127.0.0.1:9/metadata")
    artifact = crawl(scope=[site.origin, "http://127.0.0.1:9"])
    assert failures(artifact, site) == {
        "/out": "address_refused",
        "http://127.0.0.1:9/metadata": "address_refused",
    }


@pytest.mark.parametrize("spelling", ["127.1", "2130706433", "0177.0.0.1", "0x7f.1", "0x7F000001"])
def test_loopback_in_another_spelling_is_refused_before_anybody_reads_it(site, crawl, spelling):
    site.page("/")
    with pytest.raises(InputError, match=r"address_refused.*neither a name nor an address"):
        crawl(seeds=[f"http://{spelling}:{site.port}/"])
    assert site.log == []


def test_robots_txt_that_leads_to_loopback_in_another_spelling_is_refused(site, crawl):
    site.page("/")
    site.redirect("/robots.txt", f"http://2130706433:{site.port}/rules")
    with pytest.raises(
        InputError,
        match=r"address_refused: robots\.txt could not be fetched.*neither a name nor an address",
    ):
        crawl()
    assert [path for path, _ in site.log] == ["/robots.txt"]


def test_a_certificate_that_nobody_vouches_for_is_refused(crawl, tmp_path):
    certificate, key = _self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def serve_and_crawl():
        server = await asyncio.start_server(
            lambda reader, writer: None, "127.0.0.1", 0, ssl=context
        )
        address = f"https://localhost:{server.sockets[0].getsockname()[1]}"
        async with server:
            return await asyncio.to_thread(_told, crawl, address)

    assert "certificate" in asyncio.run(serve_and_crawl())


def _told(crawl, address):
    with pytest.raises(InputError) as error:
        crawl(seeds=[address], allow_origins=[address])
    return str(error.value)


def _self_signed(folder):
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = x509.CertificateBuilder(
        name, name, key.public_key(), 1, now - timedelta(1), now + timedelta(1)
    ).sign(key, hashes.SHA256())
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(secret)
    return folder / "certificate.pem", folder / "key.pem"
